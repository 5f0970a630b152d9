package reader_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

const childEnv = "SHMTS_READER_TEST_CHILD" // the store that a child of the test gives a segment to

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is a writer: it gives a segment, and publishes a row for each line that it reads.
func child(dir string) error {
	h := time.Now()
	ts := layout.TableSchema{Name: "t", Lanes: 1, RowCells: 1, LaneCells: 1, Tiers: []layout.TierSchema{{Step: 100e6, Rows: 8}}}
	f := segtest.New(nobody{}, segtest.Options{Job: "child", Tables: []layout.TableSchema{ts}, BirthUnix: h.UnixNano(), BirthMono: monotonic()})
	f.Series(nobody{}, 0, "n", layout.Counter, layout.U64, layout.BucketRange{})
	if err := f.Give(dir); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	fmt.Println("born", f.Path)
	for n := uint64(1); in.Scan(); n++ {
		f.Lane(0, 0)[0] = n
		f.Publish(0, 0, n, []uint64{n})
		f.Control(layout.CtlHeartbeat, uint64(monotonic()))
		f.Lane(0, 0)[0] = n * 100 // and recorded since
		fmt.Println("row", n)
	}
	return in.Err()
}

// nobody lets segtest be used outside of a test.
type nobody struct{ testing.TB }

func (nobody) Helper()           {}
func (nobody) Fatal(args ...any) { fmt.Fprintln(os.Stderr, args...); os.Exit(1) }

func monotonic() int64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

type writerProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startWriter(t *testing.T, dir string, attr *syscall.SysProcAttr) *writerProcess {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &writerProcess{cmd: exec.Command(exe)}
	p.cmd.Env = append(os.Environ(), childEnv+"="+dir)
	p.cmd.Stderr, p.cmd.SysProcAttr = os.Stderr, attr
	p.in, _ = p.cmd.StdinPipe()
	out, _ := p.cmd.StdoutPipe()
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		if attr != nil && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC)) {
			t.Skipf("no new namespace here: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	p.expect(t, "born")
	return p
}

func (p *writerProcess) expect(t *testing.T, word string) {
	t.Helper()
	if !p.out.Scan() || !strings.HasPrefix(p.out.Text(), word) {
		t.Fatalf("writer process: want %q, got %q (%v)", word, p.out.Text(), p.out.Err())
	}
}

func (p *writerProcess) row(t *testing.T) {
	t.Helper()
	fmt.Fprintln(p.in)
	p.expect(t, "row")
}

// until polls until a condition holds.
func until(t *testing.T, s *reader.Store, what string, ok func(reader.Events) bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ok(poll(t, s)) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("want %s within 10 s", what)
		}
	}
}

func TestKilledWriter(t *testing.T) {
	for name, attr := range map[string]*syscall.SysProcAttr{
		"same pid namespace": nil,
		"pid namespace":      {Cloneflags: unix.CLONE_NEWPID},
		"user namespace": {Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := segtest.Store(t)
			s := open(t, dir, reader.Options{NoMap: true})
			p := startWriter(t, dir, attr)
			p.row(t)
			p.row(t)
			g := poll(t, s).New[0]
			if g.Liveness() != reader.Alive || g.Head(0, 0) != 2 {
				t.Fatalf("want it alive with row 2, got %v, %d", g.Liveness(), g.Head(0, 0))
			}
			// Stopped, it is stalled, however long; and a poll does not wait for it.
			p.cmd.Process.Signal(unix.SIGSTOP)
			until(t, s, "stalled", func(ev reader.Events) bool { return g.Liveness() == reader.Stalled })
			if err := s.Unlink(g); !errors.Is(err, reader.ErrAlive) {
				t.Errorf("unlink of a stalled one: want ErrAlive, got %v", err)
			}
			p.cmd.Process.Signal(unix.SIGCONT)
			p.row(t)
			until(t, s, "alive again", func(reader.Events) bool { return g.Liveness() == reader.Alive && g.Head(0, 0) == 3 })
			p.cmd.Process.Kill()
			p.cmd.Wait()
			until(t, s, "dead", func(ev reader.Events) bool { return len(ev.Ended) == 1 })
			if g.Liveness() != reader.Dead {
				t.Fatalf("want it dead, got %v", g.Liveness())
			}
			r := last(t, g, 0)
			if v, ok := r.Value(g.Series()[0]); !ok || r.No != 4 || v.Int != 300 {
				t.Errorf("last words: want row 4 with 300, got %+v, %+v", r, v)
			}
		})
	}
}

func TestWhatIsNoSegment(t *testing.T) {
	dir := segtest.Store(t)
	mine := filepath.Join(dir, strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	good := newFixture(t, segtest.Options{Job: "good", ID: 0xaa})
	good.Birth(t, dir)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, good.Bytes(), 0o444); err != nil {
		t.Fatal(err)
	}
	name := func(i int) string { return filepath.Join(mine, fmt.Sprintf("x.%032x.shmts", i)) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	wants := map[string]string{}
	must(os.Symlink(outside, name(1)))
	wants[name(1)] = "symbolic link"
	must(unix.Mkfifo(name(2), 0o644))
	wants[name(2)] = "FIFO"
	must(os.Mkdir(name(3), 0o755))
	wants[name(3)] = "directory"
	must(os.WriteFile(name(4), good.Bytes(), 0o444))
	must(os.Link(name(4), filepath.Join(mine, "other")))
	wants[name(4)] = "want one link, got 2"
	must(os.WriteFile(name(5), nil, 0o444))
	wants[name(5)] = "a size of"
	must(os.WriteFile(name(6), good.Bytes()[:4096], 0o444))
	wants[name(6)] = "total_size"
	huge, err := os.Create(name(7))
	must(err)
	huge.Write(good.Bytes())
	if err := huge.Truncate(1<<63 - 1); err != nil {
		must(huge.Truncate(1 << 40))
	}
	huge.Close()
	wants[name(7)] = "a size of"
	sparse, err := os.Create(name(8))
	must(err)
	sparse.Write(good.Bytes()[:4096])
	must(sparse.Truncate(int64(len(good.Bytes()))))
	sparse.Close()
	wants[name(8)] = "bytes allocated"
	bad := append([]byte(nil), good.Bytes()...)
	bad[8] = 9
	must(os.WriteFile(name(9), bad, 0o444))
	wants[name(9)] = "another version"
	if os.Geteuid() == 0 {
		if unix.Mknod(name(10), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))) == nil {
			wants[name(10)] = "a device"
		}
		must(os.WriteFile(name(11), good.Bytes(), 0o444))
		must(os.Chown(name(11), 65534, -1))
		wants[name(11)] = "directory's owner, uid 0"
		must(os.Mkdir(filepath.Join(dir, "4321"), 0o755))
		wants[filepath.Join(dir, "4321")] = "a directory of uid 4321"
	}
	must(os.Symlink(mine, filepath.Join(dir, "77")))
	wants[filepath.Join(dir, "77")] = "a symbolic link"
	// Silently passed over: not named like a segment, or like a user.
	for _, n := range []string{".x." + strings.Repeat("0", 32) + ".shmts", "x.shmts", "x." + strings.Repeat("G", 32) + ".shmts"} {
		must(os.WriteFile(filepath.Join(mine, n), good.Bytes(), 0o444))
	}
	must(os.Mkdir(filepath.Join(dir, "007"), 0o755))
	must(os.Mkdir(filepath.Join(dir, "someone"), 0o755))

	s := open(t, dir, reader.Options{})
	began := time.Now()
	ev := poll(t, s)
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("poll: want it not to block, took %v", d)
	}
	if len(ev.New) != 1 || ev.New[0].Job() != "good" {
		t.Errorf("want the good one alone, got %d", len(ev.New))
	}
	got := map[string]string{}
	for _, r := range ev.Refused {
		got[r.Path] = r.Err.Error()
	}
	for path, want := range wants {
		if !strings.Contains(got[path], want) || !strings.HasPrefix(got[path], "shmts: ") {
			t.Errorf("%s: want it refused with %q, got %q", filepath.Base(path), want, got[path])
		}
		delete(got, path)
	}
	if len(got) != 0 {
		t.Errorf("refused beyond that: %v", got)
	}
	// Refused once, not at each poll.
	if ev := poll(t, s); len(ev.Refused) != 0 {
		t.Errorf("second poll: want nothing refused newly, got %v", ev.Refused)
	}
	// Healed, it is admitted when its time has come.
	must(os.Remove(filepath.Join(mine, "other")))
	until(t, s, "the hard-linked one, once it has one link", func(ev reader.Events) bool { return len(ev.New) == 1 })
}

// A name that is used again is another segment; the old one is still read to its end by who has it.
func TestInodeSwap(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		if o.MaxFiles < 0 {
			t.Skip("without a descriptor kept, an unlinked file can't be read any more")
		}
		dir := segtest.Store(t)
		old := newFixture(t, segtest.Options{})
		old.Publish(0, 0, 1, old.row(1))
		old.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		young := newFixture(t, segtest.Options{BirthUnix: segtest.Birth + 5e9})
		young.Publish(0, 0, 1, young.row(1))
		young.Birth(t, dir)
		ev := poll(t, s)
		if len(ev.New) != 1 || len(ev.Gone) != 1 || ev.Gone[0] != g || ev.New[0].Start() != segtest.Birth+5e9 {
			t.Fatalf("want the old one gone, the other new; got %+v", ev)
		}
		checkRows(t, g, 0, 1, 1)
		if l := s.Lookup("test", "0"); len(l) != 1 || l[0] != ev.New[0] {
			t.Errorf("lookup: want the new one, got %v", l)
		}
	})
}

// A storm of truncations, extensions and holes under the reader: it lives, that file goes into quarantine, the
// other is not affected, and when the storm is over the file is read again.
func TestTruncateStorm(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		length := time.Second
		if testing.Short() {
			length = 200 * time.Millisecond
		}
		dir := segtest.Store(t)
		calm := newFixture(t, segtest.Options{Job: "calm", ID: 1})
		calm.Birth(t, dir)
		victim := newFixture(t, segtest.Options{Job: "victim", ID: 2})
		for n := uint64(1); n <= 8; n++ {
			victim.Publish(0, 0, n, victim.row(n))
		}
		path := victim.Leave(t, dir) // no process of ours maps it: the storm is for the reader
		image := append([]byte(nil), victim.Bytes()...)
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
		if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock); err != nil { // it passes for alive
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, 2))
			for {
				select {
				case <-stop:
					file.WriteAt(image, 0)
					file.Truncate(int64(len(image)))
					return
				default:
				}
				switch at := r.Int64N(int64(len(image))); r.IntN(4) {
				case 0:
					file.Truncate(at)
				case 1:
					unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at&^4095, 4096)
				case 2:
					file.Truncate(int64(len(image)) + at)
				default:
					file.Truncate(int64(len(image)))
					file.WriteAt(image, 0)
				}
			}
		})
		s := open(t, dir, o)
		refused, n := 0, uint64(0)
		for end := time.Now().Add(length); time.Now().Before(end); {
			n++
			calm.Publish(0, 0, n, calm.row(n))
			ev := poll(t, s)
			refused += len(ev.Refused)
			seen := false
			for _, g := range s.Segments() {
				if g.Job() == "calm" {
					seen = true
					if g.Head(0, 0) != n {
						t.Fatalf("calm segment: want head %d, got %d", n, g.Head(0, 0))
					}
					continue
				}
				readAll(g)
				requests := g.Find("requests", reader.Pair{Name: "code", Value: "200"})
				for r := range g.Rows(0, 0, 0) {
					if requests == nil {
						break // its descriptor is in a hole
					}
					if v, ok := r.Value(requests); ok && !r.Estimated && v.Int != int64(10*r.No) {
						t.Fatalf("row %d of the victim: served %d", r.No, v.Int)
					}
				}
			}
			if !seen {
				t.Fatal("calm segment: want it there")
			}
		}
		close(stop)
		wg.Wait()
		if refused == 0 {
			t.Errorf("want the victim refused now and then")
		}
		found := func() bool { return len(s.Lookup("victim", "0")) == 1 }
		until(t, s, "the victim read again", func(reader.Events) bool { return found() && s.Lookup("victim", "0")[0].Head(0, 0) == 8 })
		checkRows(t, s.Lookup("victim", "0")[0], 0, 1, 8)
	})
}

// Somebody flips every byte of a mapped segment while it is read: no panic, no row but true ones.
func TestFlippingBytes(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{Exemplars: 8})
		for n := uint64(1); n <= 8; n++ {
			f.Publish(0, 0, n, f.row(n))
			f.Exemplar(f.size, float64(n), int64(n), byte(n))
		}
		f.Birth(t, dir)
		s := open(t, dir, o)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			b := f.Bytes()
			r := rand.New(rand.NewPCG(3, 4))
			for {
				select {
				case <-stop:
					return
				default:
				}
				at := int(f.H.HeaderSize) + r.IntN(len(b)-int(f.H.HeaderSize))
				was := b[at]
				b[at] ^= 1 << r.IntN(8)
				if r.IntN(3) > 0 {
					b[at] = was
				}
			}
		})
		length := 700 * time.Millisecond
		if testing.Short() {
			length = 100 * time.Millisecond
		}
		for end := time.Now().Add(length); time.Now().Before(end); {
			poll(t, s)
			for _, g := range s.Segments() {
				readAll(g)
			}
			reader.Check(f.Path)
		}
		close(stop)
		wg.Wait()
	})
}

// Two thousand segments with two hundred descriptors: all are read.
func TestFewDescriptors(t *testing.T) {
	dir := segtest.Store(t)
	const n = 2000
	ts := layout.TableSchema{Name: "t", Lanes: 1, RowCells: 1, LaneCells: 1, Tiers: []layout.TierSchema{{Step: 1e9, Rows: 2}}}
	s := open(t, dir, reader.Options{NoMap: true, MaxFiles: 100})
	var mine string
	for i := range n {
		f := segtest.New(t, segtest.Options{Instance: strconv.Itoa(i), Tables: []layout.TableSchema{ts}, BirthUnix: segtest.Birth + int64(i)})
		f.H.SegmentID[0], f.H.SegmentID[1] = byte(i), byte(i>>8)
		f.H.Encode(f.W)
		f.Series(t, 0, "n", layout.Counter, layout.U64, layout.BucketRange{})
		f.Publish(0, 0, 1, []uint64{uint64(i)})
		mine = filepath.Dir(f.Leave(t, dir))
	}
	before := openFiles(t)
	ev := poll(t, s)
	if len(ev.New) != n || len(ev.Ended) != n {
		t.Fatalf("want %d new and ended, got %d and %d (%d refused)", n, len(ev.New), len(ev.Ended), len(ev.Refused))
	}
	if got := openFiles(t) - before; got > 110 {
		t.Errorf("descriptors: want at most 100 and a few, got %d", got)
	}
	for i, g := range s.Segments() {
		for r := range g.Rows(0, 0, 0) {
			if v, _ := r.Value(g.Series()[0]); !r.Estimated && v.Int != int64(i) {
				t.Fatalf("segment %d: want %d, got %d", i, i, v.Int)
			}
		}
	}
	if err := os.RemoveAll(mine); err != nil {
		t.Fatal(err)
	}
	if ev := poll(t, s); len(ev.Gone) != n {
		t.Errorf("want %d gone, got %d", n, len(ev.Gone))
	}
	poll(t, s)
	if got := openFiles(t) - before; got > 5 {
		t.Errorf("descriptors at last: want none left, got %d", got)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	return len(d)
}

func TestStoreOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("giving a directory away needs root")
	}
	dir := segtest.Store(t)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.Open(reader.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "chown root:root "+dir) {
		t.Errorf("a store of uid 65534: want an error that says how to repair it, got %v", err)
	}
	s, err := reader.Open(reader.Options{Dir: dir, AnyOwner: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

// The store may come later, go, and come again.
func TestStoreComesAndGoes(t *testing.T) {
	dir := filepath.Join(segtest.Store(t), "store")
	s := open(t, dir, reader.Options{})
	poll(t, s)
	for round := range 2 {
		f := newFixture(t, segtest.Options{})
		f.Birth(t, dir)
		if ev := poll(t, s); len(ev.New) != 1 {
			t.Fatalf("round %d: want one new segment, got %+v", round, ev)
		}
		f.Die()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if ev := poll(t, s); len(ev.Gone) != 1 || len(s.Segments()) != 0 {
			t.Fatalf("round %d: want it gone with the store, got %+v", round, ev)
		}
	}
}

// Readers of one segment while it is polled: run with -race.
func TestConcurrentUse(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{})
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						readAll(g)
						g.Liveness()
						g.Counters()
						g.Epoch()
					}
				}
			})
		}
		for n := uint64(1); n <= 300; n++ {
			f.Publish(0, 0, n, f.row(n))
			if n == 100 {
				f.Retire(f.requests)
			}
			if n == 200 {
				f.Die()
				poll(t, s)
				break
			}
			poll(t, s)
		}
		g.Close()
		close(stop)
		wg.Wait()
	})
}

// Polling, and reading a new row of each segment, allocates nothing.
func TestNoAllocations(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{})
		f.Birth(t, dir)
		o.Rescan = time.Hour
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		requests := g.Find("requests")
		n, row := uint64(0), f.row(3)
		step := func() {
			n++
			f.Publish(0, 0, n, row)
			if _, err := s.Poll(); err != nil {
				t.Fatal(err)
			}
			for r := range g.Rows(0, 0, n) {
				if v, _ := r.Value(requests); v.Int != 30 {
					t.Fatalf("want 30, got %+v", v)
				}
			}
		}
		for range 20 {
			step()
		}
		if got := testing.AllocsPerRun(200, step); got > 0 && !raceEnabled && o.MaxFiles >= 0 {
			t.Errorf("want no allocations, got %g a poll", got)
		}
	})
}
