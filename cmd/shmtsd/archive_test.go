package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shmts/shmts/internal/archive"
)

// What a killed process left is in the archive, its segment is unlinked, and a second daemon does not touch either.
func TestHistoryIsKept(t *testing.T) {
	dir, state := newStore(t), t.TempDir()
	args := []string{"--dead-ttl", "5s", "--poll-interval", "100ms", "--archive.tiers", "1s=1MiB,10s=1MiB", "--archive.sync-interval", "200ms"}
	env := []string{"SHMTS_DIR=" + dir, "STATE_DIRECTORY=" + state}
	d := startDaemon(t, env, args...)
	w := startWriter(t, dir, "shop")
	w.add(40)
	waitFor(t, "its segment", func() error {
		got, err := d.query("work_done_total")
		if err == nil && len(got) != 1 {
			err = fmt.Errorf("got %v", got)
		}
		return err
	})
	w.add(2)
	w.kill()
	metric := func(want string) func() error {
		return func() error {
			text, err := d.get("/metrics")
			if err == nil && !strings.Contains(text, want) {
				err = fmt.Errorf("want %q, got %s", want, text)
			}
			return err
		}
	}
	waitFor(t, "the dead segment drained", metric("shmtsd_archive_segments_drained_total 1\n"))
	waitFor(t, "a sync", func() error {
		if metric("shmtsd_archive_syncs_total 0\n")() == nil {
			return errors.New("none yet")
		}
		return nil
	})
	for _, want := range []string{`shmtsd_archive_stopped{reason="io"} 0`, `shmtsd_archive_rows_lost_total{reason="overrun"} 0`, `shmtsd_archive_size_bytes{tier="10s"} `} {
		if err := metric(want)(); err != nil {
			t.Error(err)
		}
	}
	waitFor(t, "it unlinked", func() error {
		if left := segments(t, dir, "shop"); len(left) > 0 {
			return fmt.Errorf("got %v", left)
		}
		return nil
	})
	if err := metric("shmtsd_segments_unfinished_total 0\n")(); err != nil {
		t.Error(err)
	}
	if text, err := d.get("/-/ready"); err != nil || text != "shmtsd is ready.\n" {
		t.Errorf("/-/ready: want it ready and nothing more, got %q, %v", text, err)
	}
	// A second one on the same archive.
	var out, errs strings.Builder
	status := run(append([]string{"--listen", "127.0.0.1:0", "--self-metrics=false", "--archive.dir", filepath.Join(state, "archive")}, args...),
		func(k string) string { return map[string]string{"SHMTS_DIR": dir}[k] }, &out, &errs)
	if status != 1 || !strings.Contains(errs.String(), "another process writes it") {
		t.Errorf("a second daemon: want status 1 and why, got %d, %q", status, errs.String())
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: want status 0, got %v", err)
	}
	size := int64(0)
	files, _ := filepath.Glob(filepath.Join(state, "archive", "*.tier"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if len(files) != 2 || size > 2<<20 {
		t.Errorf("want two tiers in 2 MiB, got %d in %d", len(files), size)
	}
}

func TestStopReason(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("%w: %w", archive.ErrStopped, syscall.ENOSPC), "no_space"},
		{&os.PathError{Op: "write", Path: "x", Err: syscall.EIO}, "io"},
		{syscall.EROFS, "read_only"},
		{errors.New("what"), "other"},
	} {
		if got := stopReasons[stopReason(c.err)].name; got != c.want {
			t.Errorf("%v: want %s, got %s", c.err, c.want, got)
		}
	}
	if got := stopReason(nil); got != -1 {
		t.Errorf("no error: want -1, got %d", got)
	}
}

// A disk that has no room for the archive does not keep the daemon from serving, and once it has, history is kept from what is
// in the rings on.
func TestNoRoomAtFirst(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	at := t.TempDir()
	if err := syscall.Mount("shmts", at, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	dir := newStore(t)
	d := startDaemon(t, []string{"SHMTS_DIR=" + dir}, "--poll-interval", "100ms", "--dead-ttl", "5s", "--archive.dir", filepath.Join(at, "archive"), "--archive.tiers", "1s=1MiB")
	w := startWriter(t, dir, "shop")
	w.add(40)
	waitFor(t, "an answer", func() error {
		got, err := d.query("work_done_total")
		if err == nil && len(got) != 1 {
			err = fmt.Errorf("got %v", got)
		}
		return err
	})
	if text, err := d.get("/-/ready"); err != nil || !strings.Contains(text, "archiving is stopped") || !strings.Contains(text, "no space left") {
		t.Errorf("/-/ready: want it ready, and why nothing is archived, got %q, %v", text, err)
	}
	metric := func(want string) func() error {
		return func() error {
			text, err := d.get("/metrics")
			if err == nil && !strings.Contains(text, want) {
				err = fmt.Errorf("want %q, got %s", want, text)
			}
			return err
		}
	}
	waitFor(t, "the reason in /metrics", metric(`shmtsd_archive_stopped{reason="no_space"} 1`))
	w.add(2)
	w.kill()
	if err := syscall.Mount("shmts", at, "tmpfs", syscall.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "archiving", metric(`shmtsd_archive_stopped{reason="no_space"} 0`))
	waitFor(t, "it unlinked", func() error {
		if left := segments(t, dir, "shop"); len(left) > 0 {
			return fmt.Errorf("got %v", left)
		}
		return nil
	})
	got, err := d.query("sum(last_over_time(work_done_total[5m]))")
	if err != nil || len(got) != 1 || got[""] != "42" && got["{}"] != "42" {
		t.Errorf("want 42 from the archive, got %v, %v", got, err)
	}
	if err := metric("shmtsd_archive_segments_drained_total 1\n")(); err != nil {
		t.Error(err)
	}
}
