package shadow

import (
	"bufio"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// fixture is a store, its reader and a keeper, whose clock is the test's.
type fixture struct {
	t          testing.TB
	dir        string
	store      *reader.Store
	k          *Keeper
	unix, mono int64
}

func newFixture(t testing.TB, o Options) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: segtest.Store(t), unix: segtest.Birth, mono: segtest.BirthMono}
	o.Dir, o.Clock = f.dir, func() (int64, int64) { return f.unix, f.mono }
	f.k = New(o)
	t.Cleanup(func() { f.k.Close() })
	var err error
	if f.store, err = reader.Open(reader.Options{Dir: f.dir, SkipSampled: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.store.Close() })
	return f
}

func (f *fixture) writer(o writer.Options) *writer.Writer {
	f.t.Helper()
	if o.Job == "" {
		o.Job, o.Instance = "j", "i"
	}
	o.Sampled, o.Dir, o.NoTicker = true, f.dir, true
	o.Clock = func() (int64, int64) { return f.unix, f.mono }
	w, err := writer.Open(o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { w.Close() })
	return w
}

// poll is a daemon's: it samples, and then looks.
func (f *fixture) poll() {
	f.t.Helper()
	if err := f.try(); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) try() error {
	err := f.k.Poll(f.store.Segments())
	ev, failed := f.store.Poll()
	if failed != nil {
		f.t.Fatal(failed)
	}
	for _, r := range ev.Refused {
		f.t.Fatalf("refused: %v", r.Err)
	}
	return err
}

func (f *fixture) second() {
	f.unix += 1e9
	f.mono += 1e9
}

// shadow is the only one in the store.
func (f *fixture) shadow() *reader.Segment {
	f.t.Helper()
	var found *reader.Segment
	for _, g := range f.store.Segments() {
		if g.Shadow() {
			if found != nil {
				f.t.Fatalf("want one shadow, got %s and %s", found.Path(), g.Path())
			}
			found = g
		}
	}
	if found == nil {
		f.t.Fatal("want a shadow in the store, got none")
	}
	return found
}

func (f *fixture) original() *reader.Segment {
	f.t.Helper()
	for _, g := range f.store.Segments() {
		if g.Sampled() {
			return g
		}
	}
	f.t.Fatal("want the sampled segment in the store, got none")
	return nil
}

func value(t testing.TB, g *reader.Segment, row *reader.Row, name string) reader.Value {
	t.Helper()
	s := g.Find(name)
	if s == nil {
		t.Fatalf("want series %s in %s, got none", name, g.Path())
	}
	v, ok := row.Value(s)
	if !ok {
		t.Fatalf("want %s in row %d, got none", name, row.No)
	}
	return v
}

// rows are copies of all that a tier holds. Their numbers are dense, and each begins where the one before ends.
func rows(t testing.TB, g *reader.Segment, table, tier int) []*reader.Row {
	t.Helper()
	var all []*reader.Row
	for row := range g.Rows(table, tier, 1) {
		if n := len(all); n > 0 && (row.No != all[n-1].No+1 || row.Begin != all[n-1].Time) {
			t.Fatalf("%s: row %d from %d follows row %d of %d", g.Path(), row.No, row.Begin, all[n-1].No, all[n-1].Time)
		}
		all = append(all, row.Clone())
	}
	return all
}

func check(t testing.TB, path string) {
	t.Helper()
	for _, err := range reader.Check(path) {
		t.Errorf("%s: %v", path, err)
	}
}

// Every kind comes through exactly, each second, under the identity of who recorded it.
func TestRows(t *testing.T) {
	f := newFixture(t, Options{})
	w := f.writer(writer.Options{Job: "job", Instance: "one", Labels: map[string]string{"zone": "a"}, Attributes: map[string]string{"service.version": "1"}})
	n, fl, up := w.Counter("n", writer.Label("k", "v"), writer.Unit("{x}"), writer.Help("Help.")), w.FloatCounter("fl"), w.UpDownCounter("up")
	ga, st, hi := w.Gauge("ga"), w.Stat("st"), w.Histogram("hi", writer.Buckets(0.25, 16))
	f.poll() // found
	for i := range 25 {
		n.Add(3)
		fl.Add(0.25)
		up.Add(-2)
		ga.Set(float64(i))
		st.Record(float64(i))
		hi.Record(1)
		if i == 9 {
			w.Counter("late").Add(100)
		}
		f.second()
		f.poll()
	}
	f.poll()
	g, of := f.shadow(), f.original()
	check(t, g.Path())
	if g.ID() != of.ID() || g.Group() != of.Group() || g.UID() != of.UID() || g.Start() != of.Start() || g.BootID() != of.BootID() ||
		g.Job() != "job" || fmt.Sprint(g.Labels()) != fmt.Sprint(of.Labels()) || fmt.Sprint(g.Attributes()) != fmt.Sprint(of.Attributes()) {
		t.Errorf("want the identity of the sampled segment, got %s %s %d %d %v", g.ID(), g.Group(), g.UID(), g.Start(), g.Labels())
	}
	if s := g.Find("n"); s == nil || s.Unit != "{x}" || s.Help != "Help." || len(s.Labels) != 1 || s.Start != g.Start() {
		t.Errorf("want the series as it was registered, got %+v", s)
	}
	if of.Live(0); len(of.Series()) != 0 && of.Head(0, 0) != 0 {
		t.Error("want no rows of the sampled segment")
	}
	for _, tier := range []int{0, 1} {
		all := rows(t, g, 0, tier)
		if want := []int{25, 3}[tier]; len(all) != want {
			t.Fatalf("tier %d: want %d rows, got %d", tier, want, len(all))
		}
		for _, row := range all {
			k := row.Mono - segtest.BirthMono // seconds since the first poll
			i := float64(k / 1e9)
			st := value(t, g, row, "st")
			if got := value(t, g, row, "n").Float; got != 3*i {
				t.Errorf("row %d: n: want %g, got %g", row.No, 3*i, got)
			}
			if got := value(t, g, row, "fl").Float; got != 0.25*i {
				t.Errorf("row %d: fl: want %g, got %g", row.No, 0.25*i, got)
			}
			if got := value(t, g, row, "up").Float; got != -2*i {
				t.Errorf("row %d: up: want %g, got %g", row.No, -2*i, got)
			}
			if got := value(t, g, row, "ga").Float; got != i-1 {
				t.Errorf("row %d: ga: want %g, got %g", row.No, i-1, got)
			}
			if st.Count != uint64(i) || st.Last != i-1 || st.Sum != i*(i-1)/2 || !math.IsNaN(st.Min) || !math.IsNaN(st.Max) {
				t.Errorf("row %d: st: want %g, last %g and no extremes, got %+v", row.No, i, i-1, st)
			}
			if _, held := row.Value(g.Find("late")); held != (i > 9) {
				t.Errorf("row %d: late: want it held %v, got %v", row.No, i > 9, held)
			}
		}
	}
	all := rows(t, g, 1, 0)
	if last := all[len(all)-1]; len(all) != 3 || value(t, g, last, "hi").Count != 20 {
		t.Errorf("want 3 rows of histograms, the last of 20, got %d, %+v", len(all), value(t, g, last, "hi"))
	}
	if live, err := g.Live(0); err != nil || value(t, g, live, "n").Float != 75 {
		t.Errorf("want the newest row as a sample, got %v, %v", live, err)
	}
}

// A closed writer's last values are a final row; a retired series is in no row after it; the shadow ends, and is not begun again.
func TestClosed(t *testing.T) {
	f := newFixture(t, Options{})
	w := f.writer(writer.Options{})
	a, b := w.Counter("a"), w.Counter("b")
	a.Add(5)
	b.Add(7)
	f.poll()
	f.poll()
	a.Retire()
	f.second()
	f.poll()
	f.second()
	f.poll()
	b.Add(1)
	f.second()
	w.Close()
	for range 4 {
		f.poll()
		f.second()
	}
	g := f.shadow()
	check(t, g.Path())
	all := rows(t, g, 0, 0)
	last := all[len(all)-1]
	if g.Liveness() != reader.Closed || !last.Final || last.Estimated || value(t, g, last, "b").Float != 8 {
		t.Errorf("want it closed with a final row of 8, got %v, %+v", g.Liveness(), last)
	}
	for _, row := range all {
		if _, held := row.Value(g.Series()[0]); held != (row.No <= 2) {
			t.Errorf("row %d: want a retired series in rows 1 and 2, got %v", row.No, held)
		}
	}
	f.k.Close()
	f.k = New(f.k.o)
	f.poll()
	f.poll()
	if s := f.k.Stats(); s.Begun+s.Resumed != 0 || s.Shadows != 0 {
		t.Errorf("want nothing begun of what ended, got %+v", s)
	}
	f.shadow()
}

// An f64 that may not fall does not, but where the writer says that it was rewound.
func TestFloatsAndEpochs(t *testing.T) {
	f := newFixture(t, Options{})
	s := segtest.New(t, segtest.Options{Sampled: true, Tables: []layout.TableSchema{{Name: "t", Lanes: 2, RowCells: 2, LaneCells: 2, SharedCells: 1}}})
	info := s.Series(t, 0, "f", layout.Counter, layout.F64, layout.BucketRange{})
	s.Birth(t, f.dir)
	set := func(v float64) {
		atomic.StoreUint64(&s.Lane(0, 1)[info.LaneCell], math.Float64bits(v))
		f.second()
		f.poll()
	}
	f.poll()
	set(10)
	set(9.5)
	s.Control(layout.CtlState, layout.StateLive|70000<<32)
	set(4)
	set(3)
	f.poll()
	g := f.shadow()
	want := []float64{10, 10, 4, 4}
	for i, row := range rows(t, g, 0, 0) {
		epoch := uint16(0)
		if i > 1 {
			epoch = 70000 & 0xffff
		}
		if v := value(t, g, row, "f").Float; v != want[i] || row.Epoch != epoch {
			t.Errorf("row %d: want %g of epoch %d, got %g of %d", row.No, want[i], epoch, v, row.Epoch)
		}
	}
	if g.Epoch() != 70000 {
		t.Errorf("want epoch 70000, got %d", g.Epoch())
	}
}

// Clocks: an hour's step either way, and a daemon that stood still, lose no count and double none.
func TestClocks(t *testing.T) {
	f := newFixture(t, Options{})
	w := f.writer(writer.Options{})
	n := w.Counter("n")
	f.poll()
	for i := range 9 {
		n.Add(1)
		f.second()
		switch i {
		case 2:
			f.unix += int64(time.Hour)
		case 4:
			f.unix -= 2 * int64(time.Hour)
		case 6:
			f.unix, f.mono = f.unix+int64(time.Hour), f.mono+int64(time.Hour)
		}
		f.poll()
		f.poll() // a second one in the same step does nothing
	}
	all := rows(t, f.shadow(), 0, 0)
	if len(all) != 9 {
		t.Fatalf("want 9 rows, got %d", len(all))
	}
	for i, row := range all {
		if got := value(t, f.shadow(), row, "n").Float; got != float64(i+1) {
			t.Errorf("row %d: want %d, got %g", row.No, i+1, got)
		}
	}
}

// A second daemon of the same user leaves the shadow to the first, and goes on with it when that has gone.
func TestTwoKeepers(t *testing.T) {
	f := newFixture(t, Options{})
	n := f.writer(writer.Options{}).Counter("n")
	f.poll()
	other := New(f.k.o)
	defer other.Close()
	for range 5 {
		n.Add(1)
		f.second()
		f.poll()
		if err := other.Poll(f.store.Segments()); err != nil {
			t.Fatal(err)
		}
	}
	if s := other.Stats(); s.Begun > 0 || s.Resumed > 0 {
		t.Errorf("want the second to keep none, got %+v", s)
	}
	f.k.Close()
	for range 5 {
		n.Add(1)
		f.second()
		if err := other.Poll(f.store.Segments()); err != nil {
			t.Fatal(err)
		}
		f.store.Poll()
	}
	if s := other.Stats(); s.Begun != 0 || s.Resumed != 1 {
		t.Errorf("want the second to go on with the first's, got %+v", s)
	}
	all := rows(t, f.shadow(), 0, 0)
	if last := all[len(all)-1]; len(all) != 10 || value(t, f.shadow(), last, "n").Float != 10 {
		t.Errorf("want 10 rows, the last of 10, got %d rows", len(all))
	}
}

// A segment that somebody unlinks ends its shadow with what was known; one that a daemon left behind is ended by the next.
func TestGone(t *testing.T) {
	for _, restart := range []bool{false, true} {
		f := newFixture(t, Options{})
		w := f.writer(writer.Options{})
		w.Counter("n").Add(9)
		f.poll()
		f.poll()
		if restart {
			f.k.Close()
			f.k = New(f.k.o)
		}
		if err := os.Remove(w.Stats().Paths[0]); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			f.second()
			f.poll()
		}
		g := f.shadow()
		all := rows(t, g, 0, 0)
		if last := all[len(all)-1]; g.Liveness() != reader.Dead || !last.Estimated || value(t, g, last, "n").Float != 9 {
			t.Errorf("restart %v: want it dead with last words of 9, got %v, %+v", restart, g.Liveness(), last)
		}
	}
}

// Budgets: rings are shortened, then shadows refused, then series left out; it is counted, and the others go on.
func TestBudgets(t *testing.T) {
	small := func(i int) writer.Options {
		return writer.Options{Job: "j", Instance: strconv.Itoa(i), Tables: []writer.Table{{Name: "t", Counters: 4, Lanes: 1}}}
	}
	f := newFixture(t, Options{Total: Budget{72 << 10, 100, 1 << 10}, PerUser: Budget{1 << 20, 5, 1 << 10}})
	for i := range 8 {
		w := f.writer(small(i))
		for c := range 2 {
			w.Counter("n" + strconv.Itoa(c)).Add(uint64(i))
		}
	}
	f.poll()
	err := f.try()
	s := f.k.Stats()
	if err == nil || s.Shadows == 0 || s.Refused == 0 || s.Shadows+s.Refused != 8 || s.Used.Bytes > 72<<10 || s.Used.Series != 5 || s.Skipped == 0 {
		t.Errorf("want some refused, some series left out, and the budgets kept, got %+v, %v", s, err)
	}
	if err := f.try(); err != nil {
		t.Errorf("want it said once, got %v", err)
	}
	rowsOf := map[int]int{}
	f.store.Poll()
	for _, g := range f.store.Segments() {
		if g.Shadow() {
			rowsOf[g.Tables()[0].Tiers[0].Rows]++
		}
	}
	if rowsOf[120] == 0 || len(rowsOf) < 2 {
		t.Errorf("want long rings first and shorter ones then, got %v", rowsOf)
	}
	f.k.Close()
	if len(f.k.users) != 0 || f.k.all != (Budget{}) {
		t.Errorf("want nothing in use at the end, got %v, %v", f.k.users, f.k.all)
	}
}

// A stranger's shadow is refused, whatever it says.
func TestStrangersShadow(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make another user's files")
	}
	f := newFixture(t, Options{})
	f.writer(writer.Options{}).Counter("n").Add(1)
	f.poll()
	f.poll()
	b, err := os.ReadFile(f.shadow().Path())
	if err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(f.dir, "1234", filepath.Base(f.shadow().Path()))
	for _, step := range []error{os.Mkdir(filepath.Dir(theirs), 0o755), os.Chown(filepath.Dir(theirs), 1234, 1234), os.WriteFile(theirs, b, 0o444), os.Chown(theirs, 1234, 1234)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	store, err := reader.Open(reader.Options{Dir: f.dir})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	ev, err := store.Poll()
	if err != nil || len(ev.Refused) != 1 || ev.Refused[0].Path != theirs || len(ev.New) != 2 {
		t.Errorf("want the stranger's refused and the others read, got %+v, %v", ev, err)
	}
}

// Whatever a sampled segment says, its shadow is a good segment, and nothing panics.
func TestHostile(t *testing.T) {
	f := newFixture(t, Options{})
	r := rand.New(rand.NewPCG(1, 2))
	s := segtest.New(t, segtest.Options{Sampled: true, Tables: []layout.TableSchema{
		{Name: "t", Lanes: 3, RowCells: 64, LaneCells: 64, SharedCells: 8}, {Name: "histograms", Lanes: 1, RowCells: 40, LaneCells: 40}}})
	s.Series(t, 0, "n", layout.Counter, layout.U64, layout.BucketRange{})
	s.Series(t, 0, "g", layout.Gauge, layout.F64, layout.BucketRange{})
	s.Series(t, 0, "s", layout.Stat, layout.F64, layout.BucketRange{})
	s.Series(t, 1, "h", layout.Histogram, layout.F64, layout.BucketRange{Count: 8})
	s.Birth(t, f.dir)
	f.poll()
	from, to := s.H.Control.Offset/8, s.H.Rows.Offset/8
	for range 3000 {
		for range 1 + r.IntN(4) {
			at := from + r.Uint64N(to-from)
			if r.IntN(2) == 0 {
				at = from + r.Uint64N((s.H.Lanes.Offset/8)-from) // where meaning is
			}
			w := atomic.LoadUint64(&s.W[at]) ^ 1<<r.IntN(64)
			if r.IntN(4) == 0 {
				w = r.Uint64()
			}
			if at == from { // it is to go on
				w = w&^0xffffffff | layout.StateLive
			}
			atomic.StoreUint64(&s.W[at], w)
		}
		f.second()
		f.try()
	}
	check(t, f.shadow().Path())
	if st := f.k.Stats(); st.Samples < 2500 {
		t.Errorf("want it sampled all the same, got %+v", st)
	}
}

// A writer or a daemon of a process of its own: see the tests that start them.
const (
	writerEnv = "SHMTS_SHADOW_TEST_WRITER" // the ack page
	keeperEnv = "SHMTS_SHADOW_TEST_KEEPER" // real mono ns at which its clock began
	fastClock = 500                        // it goes so much faster than the real one
)

func TestMain(m *testing.M) {
	if page := os.Getenv(writerEnv); page != "" {
		fmt.Fprintln(os.Stderr, record(page))
		os.Exit(1)
	}
	if began := os.Getenv(keeperEnv); began != "" {
		fmt.Fprintln(os.Stderr, keep(began))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func mapPage(path string) ([]uint64, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.Truncate(4096); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return layout.Words(b), err
}

// record counts until it is killed: what is in the page was recorded.
func record(path string) error {
	page, err := mapPage(path)
	if err != nil {
		return err
	}
	w, err := writer.Open(writer.Options{Job: "killed", Instance: "go", Sampled: true})
	if err != nil {
		return err
	}
	n, h := w.Counter("n"), w.Histogram("h")
	fmt.Println("ready")
	for {
		n.Add(1)
		atomic.AddUint64(&page[0], 1)
		h.Record(0.25)
		atomic.AddUint64(&page[1], 1)
	}
}

// keep is a daemon with a fast clock, until it is killed.
func keep(began string) error {
	t0, err := strconv.ParseInt(began, 10, 64)
	if err != nil {
		return err
	}
	k := New(Options{Clock: func() (int64, int64) {
		_, mono := systemClock()
		passed := (mono - t0) * fastClock
		return segtest.Birth + passed, t0 + passed
	}})
	store, err := reader.Open(reader.Options{SkipSampled: true})
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		if err := k.Poll(store.Segments()); err != nil {
			return err
		}
		if _, err := store.Poll(); err != nil {
			return err
		}
		if i == 2 {
			fmt.Println("ready")
		}
	}
}

// start starts a process that says when it is ready.
func start(t *testing.T, dir string, cmd *exec.Cmd) (kill func()) {
	t.Helper()
	cmd.Env = append(append(os.Environ(), cmd.Env...), "SHMTS_DIR="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("want a process that is ready, got %q, %v", line, err)
	}
	return kill
}

// Writers in Go and C are killed while they record, and so are the daemons that sample them, again and again: the
// last words are what was recorded, rows are dense, and none falls.
func TestKilled(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "sampled")
	writers := map[string]func(page string) *exec.Cmd{"go": func(page string) *exec.Cmd {
		cmd := exec.Command(exe)
		cmd.Env = []string{writerEnv + "=" + page}
		return cmd
	}}
	if gcc, err := exec.LookPath("gcc"); err == nil {
		if out, err := exec.Command(gcc, "-std=c11", "-O2", "-I../../cshim", "-o", program, "testdata/sampled.c", "-pthread").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		writers["c"] = func(page string) *exec.Cmd { return exec.Command(program, page) }
	} else {
		t.Log("no gcc: the writer in Go alone")
	}
	for name, cmd := range writers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, path := segtest.Store(t), filepath.Join(t.TempDir(), "page")
			page, err := mapPage(path)
			if err != nil {
				t.Fatal(err)
			}
			killWriter := start(t, dir, cmd(path))
			_, began := systemClock()
			keeper := func() func() {
				cmd := exec.Command(exe)
				cmd.Env = []string{fmt.Sprintf("%s=%d", keeperEnv, began)}
				return start(t, dir, cmd)
			}
			const daemons = 12
			for i := range daemons {
				kill := keeper()
				time.Sleep(time.Duration(rand.IntN(30_000)) * time.Microsecond) // the instant is to be any
				if i == daemons-1 {
					killWriter()
					wait(t, dir, func(g *reader.Segment) bool { return g.Liveness().Ended() })
				}
				kill()
			}
			g := wait(t, dir, func(*reader.Segment) bool { return true })
			check(t, g.Path())
			if g.Liveness() != reader.Dead {
				t.Errorf("want its writer dead, got %v", g.Liveness())
			}
			for table, series := range []string{"n", "h"} {
				for tier := range g.Tables()[table].Tiers {
					all := rows(t, g, table, tier)
					before := -1.0
					for _, row := range all {
						v := value(t, g, row, series)
						got := v.Float
						if table == 1 {
							got = float64(v.Count)
						}
						if got < before {
							t.Fatalf("%s: row %d: want at least %g, got %g", series, row.No, before, got)
						}
						before = got
					}
					acked := float64(page[table])
					if over := before - acked; over < 0 || over > 1 || !all[len(all)-1].Estimated {
						t.Errorf("%s, tier %d: want last words of %g, or one more in flight, got %g in %+v", series, tier, acked, before, all[len(all)-1])
					}
					if table+tier == 0 {
						t.Logf("%d rows of %d daemons, %g records", all[len(all)-1].No, daemons, acked)
					}
				}
			}
		})
	}
}

// wait answers the only shadow of a store once that is as wanted.
func wait(t *testing.T, dir string, want func(*reader.Segment) bool) *reader.Segment {
	t.Helper()
	store, err := reader.Open(reader.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := store.Poll(); err != nil {
			t.Fatal(err)
		}
		var found []*reader.Segment
		for _, g := range store.Segments() {
			if g.Shadow() {
				found = append(found, g)
			}
		}
		if len(found) > 1 {
			t.Fatalf("want one shadow, got %s and %s", found[0].Path(), found[1].Path())
		}
		if len(found) == 1 && want(found[0]) {
			return found[0]
		}
	}
	t.Fatal("want the shadow within 20 s, got none")
	return nil
}

// 1,000 sampled segments of 100 series, a second apart: what a poll of the keeper costs.
func BenchmarkPoll(b *testing.B) {
	f := newFixture(b, Options{})
	for i := range 1000 {
		w := f.writer(writer.Options{Job: "j", Instance: strconv.Itoa(i)})
		for c := range 80 {
			w.Counter("c", writer.Label("n", strconv.Itoa(c))).Inc()
		}
		for c := range 10 {
			w.Stat("s", writer.Label("n", strconv.Itoa(c))).Record(1)
			w.Histogram("h", writer.Label("n", strconv.Itoa(c))).Record(1)
		}
	}
	f.poll()
	f.poll()
	b.ReportAllocs()
	for b.Loop() {
		f.second()
		if err := f.k.Poll(f.store.Segments()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/segment")
}
