package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// vm is a writer with a clock of the test's: the last seconds go by at once.
func vm(t *testing.T, dir, instance string, stealPerSecond float64) *writer.Writer {
	t.Helper()
	const history = 30
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		t.Fatal(err)
	}
	unixNow, monoNow, back := time.Now().UnixNano(), ts.Nano(), int64(history)
	w, err := writer.Open(writer.Options{Job: "vm", Instance: instance, Dir: dir, NoTicker: true,
		Clock: func() (int64, int64) { return unixNow - back*1e9, monoNow - back*1e9 }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	steal := w.FloatCounter("vm_cpu_steal_seconds_total", writer.Unit("s"))
	for ; back > 0; back-- {
		w.Tick()
		rate := stealPerSecond
		if back > 15 {
			rate = 0.9 // long ago: it may not count any more
		}
		steal.Add(rate)
	}
	w.Tick()
	return w
}

func TestStealAbove(t *testing.T) {
	dir := t.TempDir()
	vm(t, dir, "quiet", 0.01)
	vm(t, dir, "noisy", 0.2)
	gone := vm(t, dir, "gone", 0.2)
	store, err := reader.Open(reader.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	gone.Close()
	if _, err := store.Poll(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"quiet": false, "noisy": true} {
		got, d, err := above(store, "vm", name, "vm_cpu_steal_seconds_total", 0.05, 10*time.Second)
		if err != nil || got != want || d.Rows != 10 || d.Seconds() < 9.4 || d.Seconds() > 10.6 {
			t.Errorf("%s: want %v over 10 rows, got %v, %+v, %v", name, want, got, d, err)
		}
	}
	if _, _, err := above(store, "vm", "gone", "vm_cpu_steal_seconds_total", 0.05, 10*time.Second); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("a closed one: want an error that says so, got %v", err)
	}
	if _, _, err := above(store, "vm", "nobody", "vm_cpu_steal_seconds_total", 0.05, 10*time.Second); !errors.Is(err, errUnknown) {
		t.Errorf("nobody: want errUnknown, got %v", err)
	}
}

func TestRunOnce(t *testing.T) {
	dir := t.TempDir()
	vm(t, dir, "quiet", 0.01)
	vm(t, dir, "noisy", 0.2)
	var out strings.Builder
	if err := run(context.Background(), []string{"-store", dir, "-every", "0"}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"quiet                below    0.010/s over 10 s", "noisy                ABOVE    0.200/s over 10 s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want a line %q, got\n%s", want, out.String())
		}
	}
}
