package writer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
	"golang.org/x/sys/unix"
)

// TestMain is also the child that some tests need: a process with limits of its own, or one to kill.
func TestMain(m *testing.M) {
	if mode := os.Getenv("SHMTS_TEST_CHILD"); mode != "" {
		if err := child(mode); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(mode string) error {
	switch mode {
	case "fsize":
		limit := unix.Rlimit{Cur: 4096, Max: 4096}
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		w, err := Open(Options{Job: "child", Dir: os.Getenv("SHMTS_TEST_DIR")})
		if err == nil || !strings.Contains(err.Error(), "RLIMIT_FSIZE 4096") {
			return fmt.Errorf("want an error with RLIMIT_FSIZE, got %v", err)
		}
		allHandles(w).record()
		return w.Close()
	case "chroot": // a jail: no /proc, no /dev, nothing but the store
		if err := unix.Chroot(os.Getenv("SHMTS_TEST_DIR")); err != nil {
			return err
		}
		if err := os.Chdir("/"); err != nil {
			return err
		}
		w, err := Open(Options{Job: "child", Dir: "/", NoTicker: true})
		if err != nil {
			return err
		}
		w.Counter("c").Add(42)
		return w.Close()
	case "record": // until it is killed
		w, err := Open(Options{Job: "child", Dir: os.Getenv("SHMTS_TEST_DIR"), NoTicker: true})
		if err != nil {
			return err
		}
		w.Counter("c").Add(42)
		fmt.Println("ready", os.Getpid())
		io.Copy(io.Discard, os.Stdin)
	}
	return nil
}

func runChild(t *testing.T, mode, dir string) (*exec.Cmd, io.WriteCloser, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SHMTS_TEST_CHILD="+mode, "SHMTS_TEST_DIR="+dir)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, in, bufio.NewReader(out)
}

// A segment appears complete and locked, with the mode and owner that a reader wants, no hole in
// it, and no descriptor left open.
func TestBirth(t *testing.T) {
	o, _ := testOptions(t)
	o.Job = "a job/with: signs"
	o.Labels = map[string]string{"zone": "z1", "none": ""}
	o.Attributes = map[string]string{"service.version": "1.2"}
	o2, _ := testOptions(t)
	mustOpen(t, o2).Close() // the runtime's own descriptors come with the first file
	open := openDescriptors(t)
	w := mustOpen(t, o)
	equal(t, "descriptors", openDescriptors(t), open)
	files := segmentFiles(t, o.Dir)
	equal(t, "files", len(files), 1)
	equal(t, "name", filepath.Base(files[0]), "a_job_with__signs.00000000000000000000000000000001.shmts")
	var st unix.Stat_t
	if err := unix.Stat(files[0], &st); err != nil {
		t.Fatal(err)
	}
	m := load(t, files[0])
	equal(t, "mode", st.Mode&0o7777, 0o444)
	equal(t, "links", st.Nlink, 1)
	equal(t, "size", uint64(st.Size), m.h.TotalSize)
	if uint64(st.Blocks)*512 < m.h.TotalSize {
		t.Errorf("want %d bytes allocated, got %d", m.h.TotalSize, st.Blocks*512)
	}
	plan, err := Plan(o)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "planned size", plan.TotalSize, m.h.TotalSize)
	equal(t, "zone", layout.Value(m.h.Labels, "zone"), "z1")
	equal(t, "labels", len(m.h.Labels), 3)
	equal(t, "attribute", layout.Value(m.h.Attributes, "service.version"), "1.2")
	equal(t, "writer", layout.Text(m.h.Writer[:]), Version)
	equal(t, "pid", m.h.Pid, uint32(os.Getpid()))
	if _, err := os.Stat("/proc/sys/kernel/random/boot_id"); err == nil && m.h.BootID == [16]byte{} {
		t.Error("want a boot_id")
	}
	equal(t, "locked", isDeadPath(t, files[0]), false)
	dir, _ := os.Stat(filepath.Dir(files[0]))
	equal(t, "directory", dir.Mode().Perm(), 0o755)
	w.Close()
	equal(t, "locked after Close", isDeadPath(t, files[0]), true)
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(fds)
}

func isDeadPath(t *testing.T, path string) bool {
	t.Helper()
	dir, err := unix.Open(filepath.Dir(path), unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	_, dead := lookAtDead(dir, filepath.Base(path))
	return dead
}

// The lock goes with the process, however it ends, and the live cells stay.
func TestKilled(t *testing.T) {
	dir := testStore(t)
	cmd, _, out := runChild(t, "record", dir)
	if line, err := out.ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready") {
		t.Fatalf("want the child ready, got %q, %v", line, err)
	}
	file := segmentFiles(t, dir)[0]
	equal(t, "dead while it lives", isDeadPath(t, file), false)
	cmd.Process.Kill()
	cmd.Wait()
	equal(t, "dead", isDeadPath(t, file), true)
	m := load(t, file)
	equal(t, "live cell", m.live(m.find("c"), 0), 42)
	equal(t, "state", m.control().State, layout.StateLive)
}

// In a jail without /proc: linkat by the descriptor, or a dot-name.
func TestNoProc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("chroot needs root")
	}
	dir := testStore(t)
	cmd, in, out := runChild(t, "chroot", dir)
	in.Close()
	text, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("want the child to end well, got %v: %s", err, text)
	}
	equal(t, "counter", load(t, segmentFiles(t, dir)[0]).value("c"), 42)
	names, _ := os.ReadDir(filepath.Join(dir, strconv.Itoa(os.Geteuid())))
	equal(t, "names", len(names), 1)
}

// A child of fork does not inherit the mapping.
func TestDontFork(t *testing.T) {
	o, _ := testOptions(t)
	w := mustOpen(t, o)
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skip("no /proc/self/smaps")
	}
	_, after, ok := strings.Cut(string(smaps), w.Stats().Paths[0])
	if !ok {
		_, after, ok = strings.Cut(string(smaps), o.Dir) // it had no name when it was mapped
	}
	if !ok {
		t.Skip("the mapping does not show its path here")
	}
	_, after, _ = strings.Cut(after, "VmFlags:")
	flags, _, _ := strings.Cut(after, "\n")
	if !strings.Contains(flags+" ", " dc ") {
		t.Errorf("want the flag dc (don't copy) on the mapping, got %q", flags)
	}
}

// With a dot-name, where an unnamed file can't be had.
func TestBirthDotted(t *testing.T) {
	o, _ := testOptions(t)
	d := o.withDefaults()
	h, err := d.plan()
	if err != nil {
		t.Fatal(err)
	}
	h.SegmentID = d.NewID()
	b, err := bear(&d, h, true)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(b.path)
	if _, err := os.Stat(filepath.Join(dir, "."+b.name)); err != nil {
		t.Errorf("want the dot-name there: %v", err)
	}
	h.Encode(b.words)
	h.InitControl(b.words)
	if err := b.publish(0o444); err != nil {
		t.Fatal(err)
	}
	b.close()
	load(t, b.path)
	names := func() int { e, _ := os.ReadDir(dir); return len(e) }
	equal(t, "names", names(), 1)

	again, err := bear(&d, h, true) // the same id: the name is taken
	if err != nil {
		t.Fatal(err)
	}
	if err := again.publish(0o444); !errors.Is(err, unix.EEXIST) {
		t.Errorf("want EEXIST, got %v", err)
	}
	again.abandon()
	equal(t, "names after a failed birth", names(), 1)
	if err := mapPrivateOver(b.words); err != nil {
		t.Fatal(err)
	}
}

// RLIMIT_FSIZE is an error, not SIGXFSZ.
func TestFileSizeLimit(t *testing.T) {
	cmd, in, out := runChild(t, "fsize", testStore(t))
	in.Close()
	text, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("want the child to end well, got %v: %s", err, text)
	}
}

// A full tmpfs is an error, not SIGBUS; when there is room again, the file comes.
func TestNoSpace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 900<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	o, clock := testOptions(t)
	o.Dir = dir
	w, err := Open(o)
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("want ENOSPC, got %v", err)
	}
	defer w.Close()
	equal(t, "files", len(segmentFiles(t, dir)), 0)
	recovers(t, w, clock, func() {
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}, dir)
}

// No directory: private memory, tried again at ticks; an explicit one is never created.
func TestNoDirectory(t *testing.T) {
	o, clock := testOptions(t)
	o.Dir = filepath.Join(o.Dir, "later")
	w, err := Open(o)
	if !errors.Is(err, unix.ENOENT) || !errors.Is(w.Err(), unix.ENOENT) {
		t.Fatalf("want ENOENT, got %v, %v", err, w.Err())
	}
	defer w.Close()
	recovers(t, w, clock, func() {
		if _, err := os.Stat(o.Dir); err == nil {
			t.Error("want a directory that the options name not to be created")
		}
		if err := os.Mkdir(o.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}, o.Dir)
}

// recovers records into private memory, repairs what was wrong, and finds in the file's first row
// everything since Open: by handles of every sort, and not a record twice.
func recovers(t *testing.T, w *Writer, clock *fakeClock, repair func(), dir string) {
	t.Helper()
	birth := clock.unix.Load()
	a := allHandles(w)
	l, err := w.Lane()
	if err != nil {
		t.Fatal(err)
	}
	oc, oh := l.Counter(a.c), l.Histogram(a.h)
	a.record()
	recordOwned(l, a)
	a.s.Record(-8)
	a.h.Record(-1) // rejected
	gone := w.Counter("gone")
	gone.Add(7)
	gone.Retire()
	clock.advance(10 * time.Second)
	w.Tick()
	equal(t, "private", w.Stats().Private, 1)
	late := a.c.s.place.Load() // what a record holds that is preempted now
	repair()
	clock.advance(2 * time.Minute) // past every wait before the next attempt
	w.Tick()
	equal(t, "private after recovery", w.Stats().Private, 0)
	a.record()
	oc.Inc()
	oh.Record(0.25)
	late.words[0] += 1000 // and that ends now
	clock.advance(10 * time.Second)
	w.Tick()

	files := segmentFiles(t, dir)
	if len(files) != 1 {
		t.Fatalf("want one segment, got %v", files)
	}
	m := load(t, files[0])
	equal(t, "birth", m.h.BirthUnix, birth)
	equal(t, "t_begin of row 1", m.row(0, 0, 1).TBegin, birth)
	equal(t, "counter in row 1", m.row(0, 0, 1).of(t, m.find("c"))[0], 4)
	equal(t, "counter", m.value("c"), 3+1+3+1+1000)
	equal(t, "float counter", m.float("f"), 0.5+1+0.5)
	equal(t, "updown", int64(m.value("u")), 0+1+0)
	equal(t, "gauge", m.float("g"), 1)
	equal(t, "rejected", m.control().RejectedRecords, 1)
	si, hi, ii := m.find("s"), m.find("h"), m.find("ih")
	first := m.row(0, 0, 1).of(t, si)
	equal(t, "stat count in row 1", first[layout.StatCount], 3)
	equal(t, "stat min in row 1", first[layout.StatMin], 0xc020000000000000) // -8
	equal(t, "stat max in row 1", first[layout.StatMax], 0x3ff0000000000000) // 1
	equal(t, "stat count", m.last(si, 0).of(t, si)[layout.StatCount], 4)
	equal(t, "histogram count", histogramCount(m.last(hi, 0).of(t, hi)), 4)
	equal(t, "int histogram sum", m.last(ii, 0).of(t, ii)[layout.HistSum], 11)
	for i := range 2 * pastTicks {
		late.words[0] += uint64(i % 2)
		clock.advance(time.Second)
		w.Tick()
	}
	if n := load(t, files[0]).value("c"); n < 1008+10 || n > 1008+pastTicks {
		t.Errorf("want late records moved for %d ticks, got %d", pastTicks, n)
	}
}

// The default store is created as FORMAT.md 2 says; anything odd in its place is refused.
func TestUserDirectory(t *testing.T) {
	store := filepath.Join(testStore(t), "shmts")
	fd, path, err := openUserDir(store, true)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	st, _ := os.Stat(store)
	equal(t, "store", st.Mode(), os.ModeDir|os.ModeSticky|0o777)
	st, _ = os.Stat(path)
	equal(t, "directory", st.Mode(), os.ModeDir|0o755)
	equal(t, "its name", filepath.Base(path), strconv.Itoa(os.Geteuid()))

	os.Remove(path)
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, path); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openUserDir(store, true); err == nil {
		t.Error("want a symbolic link in the directory's place refused")
	}
	os.Remove(path)
	if os.Geteuid() == 0 {
		os.Mkdir(path, 0o755)
		os.Chown(path, 12345, 12345)
		if _, _, err := openUserDir(store, true); err == nil || !strings.Contains(err.Error(), "want owner 0, got 12345") {
			t.Errorf("want a directory of another owner refused, got %v", err)
		}
	}
	os.RemoveAll(store)
	if err := os.Symlink(elsewhere, store); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openUserDir(store, true); err == nil {
		t.Error("want a symbolic link in the default store's place refused")
	}
	t.Setenv("SHMTS_DIR", "/somewhere")
	dir, create := storeDir("")
	equal(t, "$SHMTS_DIR", dir, "/somewhere")
	equal(t, "created", create, false)
	t.Setenv("SHMTS_DIR", "")
	dir, create = storeDir("")
	equal(t, "default", dir, "/dev/shm/shmts")
	equal(t, "created", create, true)
}

// Litter: what is dead, gave its last sign ten minutes ago and is beyond the 16 newest goes, and nothing else.
func TestLitter(t *testing.T) {
	o, clock := testOptions(t)
	uid := filepath.Join(o.Dir, strconv.Itoa(os.Geteuid()))
	// One that dies leaves its file as it is, without the lock. Each is born a minute after the one before.
	leave := func(name string) string {
		t.Helper()
		w := mustOpen(t, o)
		path := w.Stats().Paths[0]
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(uid, name)
		if err := os.WriteFile(path, image, 0o444); err != nil {
			t.Fatal(err)
		}
		clock.advance(time.Minute)
		return path
	}
	exists := func(path string) bool { _, err := os.Lstat(path); return err == nil }
	others := []string{
		leave(fmt.Sprintf("other.%032x.shmts", 1)),
		leave(fmt.Sprintf("job.more.%032x.shmts", 1)),
		leave("job.txt"),
		leave(fmt.Sprintf("job.%032X.shmts", 0xabc)),
	}
	locked := leave(fmt.Sprintf("job.%032x.shmts", 1)) // as by a writer that lives
	if err := os.Chmod(locked, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(locked, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	noSegment := filepath.Join(uid, fmt.Sprintf("job.%032x.shmts", 2))
	if err := os.WriteFile(noSegment, []byte("what can't be read is left alone"), 0o444); err != nil {
		t.Fatal(err)
	}
	var dead []string
	for i := range 24 {
		dead = append(dead, leave(fmt.Sprintf("job.%032x.shmts", i+1000)))
	}
	for _, path := range append(others, append(dead[8:], locked, noSegment)...) {
		if !exists(path) {
			t.Errorf("want %s kept", path)
		}
	}
	// dead[i] gave its last sign 24-i minutes ago. The last of the loop was opened when dead[0..6] were beyond the 16 newest
	// and older than ten minutes; now dead[7] is too.
	w := mustOpen(t, o)
	defer w.Close()
	for i, path := range dead {
		if exists(path) != (i >= 8) {
			t.Errorf("dead %d, last sign %d minutes ago: want it kept: %v, got %v", i, 24-i, i >= 8, exists(path))
		}
	}
	for _, path := range append(others, locked, noSegment) {
		if !exists(path) {
			t.Errorf("want %s kept", path)
		}
	}
}

// Many short lives at once: what died a moment ago stays, however many there are.
func TestLitterLeavesTheYoung(t *testing.T) {
	o, clock := testOptions(t)
	var paths []string
	for range 40 {
		w := mustOpen(t, o)
		paths = append(paths, w.Stats().Paths[0])
		w.Close()
		clock.advance(time.Second)
	}
	for _, path := range paths {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("want it kept: %v", err)
		}
	}
}
