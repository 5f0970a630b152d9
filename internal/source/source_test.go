package source

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// childEnv makes this test binary a writer process of that store: it says "ready" and waits to be killed.
const childEnv = "SHMTS_SOURCE_TEST_STORE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		w, err := writer.Open(writer.Options{Job: "j", Instance: "i", Dir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		w.Counter("c").Add(41)
		fmt.Println("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// fixture is a store, writers whose clock is the test's, and a register of it.
type fixture struct {
	t    testing.TB
	dir  string
	unix atomic.Int64 // of the writers
	now  time.Time    // of the register
	r    *Register
}

func newFixture(t testing.TB, o Options) *fixture {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-source-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fixture{t: t, dir: dir, now: time.Now()}
	f.unix.Store(f.now.UnixNano())
	o.Store.Dir, o.Now = dir, func() time.Time { return f.now }
	if f.r, err = Open(o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.r.Close() })
	return f
}

func (f *fixture) writer(job, instance string) *writer.Writer {
	f.t.Helper()
	w, err := writer.Open(writer.Options{Job: job, Instance: instance, Dir: f.dir, NoTicker: true,
		Clock: func() (int64, int64) { now := f.unix.Load(); return now, now }})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { w.Close() })
	return w
}

// step lets time pass for the writers.
func (f *fixture) step(d time.Duration) { f.unix.Add(int64(d)) }

func (f *fixture) poll() []*Segment {
	f.t.Helper()
	if err := f.r.Poll(); err != nil {
		f.t.Fatal(err)
	}
	return f.r.Segments()
}

func (f *fixture) file(s *Segment) bool {
	_, err := os.Stat(s.Path())
	return err == nil
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}

func overridden(s *Segment) (names []string) {
	for series, labels := range s.Overrides() {
		if len(labels) == 1 && labels[0] == (reader.Pair{Name: OverlapLabel, Value: s.ID()[:shortID]}) {
			names = append(names, series.Name)
		}
	}
	slices.Sort(names)
	return names
}

func TestSnapshot(t *testing.T) {
	f := newFixture(t, Options{})
	a, b := f.writer("a", "1"), f.writer("b", "1")
	a.Counter("hits").Add(3)
	b.Gauge("temperature").Set(21)
	f.step(time.Second)
	a.Tick()
	b.Tick()
	snap := f.poll()
	if len(snap) != 2 {
		t.Fatalf("want 2 segments, got %d", len(snap))
	}
	i := slices.IndexFunc(snap, func(s *Segment) bool { return s.Labels()[1].Value == "a" })
	s := snap[i]
	equal(t, "series", s.Series()[0].Name, "hits")
	if s.Source() == snap[1-i].Source() || s.Group() == snap[1-i].Group() || len(s.ID()) != 32 {
		t.Errorf("identity: got sources %q and %q", s.Source(), snap[1-i].Source())
	}
	rows, value := 0, int64(0)
	s.Between(0, 0, 0, f.unix.Load(), func(r *reader.Row) bool {
		v, ok := r.Value(s.Series()[0])
		rows++
		value = v.Int
		return ok
	})
	if rows != 1 || value != 3 || s.Head(0, 0) != 1 {
		t.Errorf("want a row of 3, got %d rows, the last of %d, head %d", rows, value, s.Head(0, 0))
	}
	if again := f.poll(); &again[0] != &snap[0] {
		t.Error("nothing changed: want the same snapshot, got another")
	}
	a.Counter("more")
	a.Tick()
	after := f.poll()
	equal(t, "series after a registration", len(after[i].Series()), 2)
	equal(t, "series in the old snapshot", len(s.Series()), 1)
	st := f.r.Stats()
	if st.Alive+st.Stalled != 2 || st.Sources != 2 || st.Found != 2 || st.Series != 3 || st.Polls != 3 || st.Bytes == 0 {
		t.Errorf("stats: got %+v", st)
	}
}

// Of two living segments with the same series, the newer keeps the labels.
func TestOverlap(t *testing.T) {
	f := newFixture(t, Options{})
	old := f.writer("j", "i")
	old.Counter("both", writer.Label("k", "v"))
	old.Counter("both", writer.Label("k", "other"))
	old.Counter("alone")
	f.step(5 * time.Second)
	f.poll()
	young := f.writer("j", "i")
	young.Counter("both", writer.Label("k", "v"))
	young.Counter("new")

	// The poll that finds the newer one can't tell yet whether the older one has just died.
	snap := f.poll()
	equal(t, "overrides at once", len(overridden(snap[0])), 0)
	snap = f.poll()
	if got := overridden(snap[0]); !slices.Equal(got, []string{"both"}) {
		t.Errorf("the older one: want both{k=v} overridden, got %v", got)
	}
	equal(t, "overrides of the newer one", len(snap[1].Overrides()), 0)
	equal(t, "counted", f.r.Stats().Overlapped, 1)

	// It stays so when the older one ends, for its rows are still of the same time.
	f.step(10 * time.Second)
	old.Tick()
	old.Close()
	snap = f.poll()
	if _, ended := snap[0].End(); !ended || len(overridden(snap[0])) != 1 {
		t.Errorf("after its end: want 1 override, got %v (ended %v)", overridden(snap[0]), ended)
	}
	// A register that finds both from the beginning says the same, and at once.
	r, err := Open(Options{Store: reader.Options{Dir: f.dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Poll()
	equal(t, "overrides after a restart", len(overridden(r.Segments()[0])), 1)
}

// Segments that one process grew are one: nothing is overridden.
func TestGrowth(t *testing.T) {
	f := newFixture(t, Options{})
	w := f.writer("j", "i")
	for i := range 400 {
		w.Counter("c", writer.Label("n", strconv.Itoa(i)))
	}
	f.poll()
	snap := f.poll()
	if len(snap) < 2 {
		t.Fatalf("want a writer that grew, got %d segment", len(snap))
	}
	n := 0
	for _, s := range snap {
		n += len(s.Series())
		equal(t, "group", s.Group(), snap[0].Group())
		equal(t, "overrides", len(s.Overrides()), 0)
	}
	equal(t, "series", n, 400)
	equal(t, "sources", f.r.Stats().Sources, 1)
}

// A writer killed with SIGKILL, and its successor under the same labels.
func TestRestartIsNoOverlap(t *testing.T) {
	f := newFixture(t, Options{})
	first, kill := f.child()
	waitFor(t, "the segment", func() bool { f.poll(); return len(f.r.Segments()) == 1 })
	kill()
	_, _ = f.child()
	var snap []*Segment
	waitFor(t, "the death and the successor", func() bool {
		snap = f.poll()
		if len(snap) != 2 {
			return false
		}
		if n := len(snap[0].Overrides()); n != 0 {
			t.Fatalf("a restart: want no override, got %d", n)
		}
		_, ended := snap[0].End()
		return ended && snap[0].Liveness() == reader.Dead
	})
	f.poll()
	equal(t, "overrides", len(f.r.Segments()[0].Overrides())+len(f.r.Segments()[1].Overrides()), 0)

	// Its last value is in its last row.
	s := snap[0]
	last := int64(-1)
	s.Rows(0, 0, 1, func(r *reader.Row) bool {
		if v, ok := r.Value(s.Series()[0]); ok {
			last = v.Int
		}
		return true
	})
	equal(t, "last value of process "+strconv.Itoa(first), last, 41)
}

func (f *fixture) child() (pid int, kill func()) {
	f.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+f.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { cmd.Process.Kill(); in.Close(); cmd.Wait() })
	f.t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		f.t.Fatalf("the child: want ready, got %q, %v", line, err)
	}
	return cmd.Process.Pid, kill
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func TestTimeToLive(t *testing.T) {
	f := newFixture(t, Options{DeadTTL: 7 * time.Second, HoldLimit: 20 * time.Second})
	finished := map[string]bool{}
	f.r.Hold("test", func(s *Segment) bool { return finished[s.ID()] })
	a, b := f.writer("a", "1"), f.writer("b", "1")
	alive := f.writer("c", "1")
	alive.Counter("c").Inc()
	a.Counter("c").Add(1)
	b.Counter("c").Add(2)
	f.poll()
	a.Close()
	b.Close()
	snap := slices.Clone(f.poll())
	byJob := map[string]*Segment{}
	for _, s := range snap {
		byJob[s.Labels()[1].Value] = s
	}
	sa, sb := byJob["a"], byJob["b"]
	finished[sa.ID()] = true

	f.now = f.now.Add(7*time.Second - 1)
	equal(t, "segments before the time to live is over", len(f.poll()), 3)
	f.now = f.now.Add(1)
	equal(t, "segments after it", len(f.poll()), 2)
	equal(t, "the file that was finished with", f.file(sa), false)
	equal(t, "the file that is held", f.file(sb), true)

	f.now = f.now.Add(20 * time.Second)
	equal(t, "segments after the hold limit", len(f.poll()), 1)
	equal(t, "the file that was held", f.file(sb), false)
	f.now = f.now.Add(time.Hour)
	f.poll()
	f.poll()
	st := f.r.Stats()
	if st.Unlinked != 2 || st.Unfinished != 1 || st.UnlinkFailed != 0 || st.Vanished != 0 || st.Closed != 0 || st.Sources != 1 {
		t.Errorf("stats: got %+v", st)
	}
	// An old snapshot does no harm.
	sa.Between(0, 0, 0, 1<<62, func(*reader.Row) bool { t.Error("a row of a segment that is gone"); return false })
	equal(t, "head of a segment that is gone", sa.Head(0, 0), 0)
}

// A register that begins when the writer is long gone keeps the segment for its whole time to live all the same.
func TestDeadFromTheBeginning(t *testing.T) {
	f := newFixture(t, Options{DeadTTL: 10 * time.Second})
	w := f.writer("a", "1")
	w.Counter("c").Add(5)
	f.step(time.Second)
	w.Close()
	f.step(time.Hour)
	s := f.poll()[0]
	if _, ended := s.End(); !ended || s.Liveness() != reader.Closed {
		t.Errorf("want it closed, got %v", s.Liveness())
	}
	f.now = f.now.Add(9 * time.Second)
	equal(t, "segments", len(f.poll()), 1)
	equal(t, "rows", s.Head(0, 0), 1)
	f.now = f.now.Add(time.Second)
	equal(t, "segments after the time to live", len(f.poll()), 0)
	equal(t, "the file", f.file(s), false)
}

// A dead segment in a directory that this process may not change: it is let go, once, and the file stays.
func TestUnlinkForbidden(t *testing.T) {
	const env = "SHMTS_SOURCE_TEST_FORBIDDEN"
	if os.Getuid() == 0 {
		// Root may do everything: again, as nobody, on a store of root's.
		if _, err := os.Stat(os.Args[0]); err != nil {
			t.Skip(err)
		}
		dir, err := os.MkdirTemp("/dev/shm", "shmts-source-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		binary := filepath.Join(dir, "test")
		if b, err := os.ReadFile(os.Args[0]); err != nil || os.WriteFile(binary, b, 0o755) != nil || os.Chmod(dir, 0o755) != nil {
			t.Fatal("the test binary can't be copied")
		}
		store := filepath.Join(dir, "store")
		if err := os.Mkdir(store, 0o755); err != nil {
			t.Fatal(err)
		}
		w, err := writer.Open(writer.Options{Job: "j", Instance: "i", Dir: store})
		if err != nil {
			t.Fatal(err)
		}
		w.Counter("c").Inc()
		w.Close()
		cmd := exec.Command(binary, "-test.run", "^TestUnlinkForbidden$", "-test.v")
		cmd.Env = []string{env + "=" + store}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestUnlinkForbidden") {
			t.Errorf("as nobody: %v\n%s", err, out)
		}
		return
	}
	store := os.Getenv(env)
	if store == "" {
		t.Skip("needs root, to have a segment of another user")
	}
	now := time.Now()
	r, err := Open(Options{Store: reader.Options{Dir: store}, DeadTTL: MinDeadTTL, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	r.Poll()
	if len(r.Segments()) != 1 {
		t.Fatalf("want the segment, got %d, refused %v", len(r.Segments()), r.Stats().Refused)
	}
	path := r.Segments()[0].Path()
	for range 5 {
		now = now.Add(time.Hour)
		r.Poll()
	}
	if st := r.Stats(); st.UnlinkFailed != 1 || st.Unlinked != 0 || st.Found != 1 || len(r.Segments()) != 0 || st.Vanished != 0 {
		t.Errorf("want one attempt, got %+v", st)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file: %v", err)
	}
}

func TestVanished(t *testing.T) {
	f := newFixture(t, Options{})
	w := f.writer("a", "1")
	w.Counter("c").Inc()
	s := f.poll()[0]
	if err := os.Remove(s.Path()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the segment to go", func() bool { return len(f.poll()) == 0 })
	f.poll()
	equal(t, "vanished", f.r.Stats().Vanished, 1)
	equal(t, "rows of it", s.Head(0, 0), 0)
}

func TestRefused(t *testing.T) {
	f := newFixture(t, Options{})
	w := f.writer("good", "1")
	w.Counter("c").Inc()
	good := f.poll()[0]
	image, err := os.ReadFile(good.Path())
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, change func([]byte)) {
		b := slices.Clone(image)
		change(b)
		if err := os.WriteFile(filepath.Join(filepath.Dir(good.Path()), name+".0123456789abcdef0123456789abcdef.shmts"), b, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	put("version", func(b []byte) { b[8] = 2 })
	put("magic", func(b []byte) { b[0] = 'X' })
	if err := os.Symlink(good.Path(), filepath.Join(filepath.Dir(good.Path()), "link.00112233445566778899aabbccddeeff.shmts")); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f.poll()
	}
	equal(t, "segments", len(f.r.Segments()), 1)
	got := f.r.Stats().Refused
	for _, reason := range []string{ReasonVersion, ReasonCorrupt, ReasonUnsafe} {
		if got[reason] == 0 {
			t.Errorf("refused for %s: want it counted, got %v", reason, got)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{DeadTTL: time.Second}, {Every: time.Millisecond}} {
		if _, err := Open(o); err == nil {
			t.Errorf("%+v: want an error, got none", o)
		}
	}
	if Reason(errors.New("x")) != ReasonUnsafe {
		t.Error("an error of the system: want unsafe")
	}
}

// Readers in other goroutines go on while polls come and writers go. For the race detector.
func TestConcurrent(t *testing.T) {
	f := newFixture(t, Options{DeadTTL: MinDeadTTL})
	var stop atomic.Bool
	var readers sync.WaitGroup
	var rows atomic.Int64
	for range 3 {
		readers.Go(func() {
			for !stop.Load() {
				for _, s := range f.r.Segments() {
					for table := range s.Tables() {
						s.Between(table, 0, 0, 1<<62, func(r *reader.Row) bool {
							for _, series := range s.Series() {
								r.Value(series)
							}
							rows.Add(1)
							return true
						})
					}
					_ = s.Overrides()
					s.End()
				}
			}
		})
	}
	for i := range 30 {
		w := f.writer("j", strconv.Itoa(i%3))
		c := w.Counter("c")
		for range 5 {
			c.Inc()
			f.step(time.Second)
			w.Tick()
			f.poll()
		}
		w.Counter("late")
		if i%2 == 0 {
			w.Close()
		}
		f.now = f.now.Add(2 * time.Second)
	}
	for deadline := time.Now().Add(5 * time.Second); rows.Load() == 0 && time.Now().Before(deadline); {
		f.poll()
	}
	stop.Store(true)
	readers.Wait()
	if rows.Load() == 0 || f.r.Stats().Unlinked == 0 {
		t.Errorf("want rows read and segments unlinked, got %d and %+v", rows.Load(), f.r.Stats())
	}
}

// A poll of 1,000 segments of 100 series, each with a new row.
func BenchmarkPoll(b *testing.B) {
	f := newFixture(b, Options{})
	writers := make([]*writer.Writer, 1000)
	for i := range writers {
		writers[i] = f.writer("j", strconv.Itoa(i))
		for k := range 100 {
			writers[i].Counter("c", writer.Label("n", strconv.Itoa(k))).Inc()
		}
	}
	f.poll()
	f.poll()
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		f.step(time.Second)
		for _, w := range writers {
			w.Tick()
		}
		b.StartTimer()
		f.poll()
	}
}
