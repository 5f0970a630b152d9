package conservation

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/testenv"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// kills is how often each kind of writer is killed; SHMTS_KILLS says otherwise.
func kills(t *testing.T) int { return testenv.Number(t, "SHMTS_KILLS", 500, 20) }

// A series of a writer under test: which word of a worker counts its completed records, and how
// many records a value stands for.
type expected struct {
	name    string
	ack     int
	records func(reader.Value) (float64, bool) // from the value; false where its parts contradict one another
	falls   bool                               // a sum of steps up to 2 either way, not a number of records
}

// step is the most that one record changes.
func (e *expected) step() float64 {
	if e.falls {
		return 2
	}
	return 1
}

// truth is what a life's writers completed, by segment.
type truth interface {
	ready() bool
	// acked is how many records of a kind the segment's writer has completed, and how many
	// things may have one more in flight; false if that writer has not come to record yet.
	acked(segment string, kind int) (n float64, inFlight int, ok bool)
	// offered is how many exemplars that worker of the segment's has offered, one in flight apart.
	offered(segment string, worker uint64) uint64
}

// life is one start of a writer, which may fork into more.
type life struct {
	series []expected
	truth  truth
	forks  bool
	stops  int           // so often it is stopped for a while, and goes on
	ahead  time.Duration // by how much its monotonic clock is another
}

// A lane of the store: one writer after another, all under one source, so that each
// meets the leavings of the one before.
type loop struct {
	t     *testing.T
	store *reader.Store
	dir   string
	tmp   string
	seen  map[string]bool // segment ids

	rows, segments, exemplars int
}

func newLoop(t *testing.T) *loop {
	dir, err := os.MkdirTemp("/dev/shm", "shmts-conservation-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	store, err := reader.Open(reader.Options{Dir: dir, NoMap: rand.IntN(2) == 0})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &loop{t: t, store: store, dir: dir, tmp: t.TempDir(), seen: map[string]bool{}}
}

// forget unmaps and removes the page of a life that is over.
func (l *loop) forget(path string, page []uint64) {
	if err := errors.Join(unix.Munmap(layout.Bytes(page)), os.Remove(path)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *loop) poll() reader.Events {
	ev, err := l.store.Poll()
	if err != nil {
		l.t.Fatal(err)
	}
	for _, r := range ev.Refused {
		l.t.Fatalf("refused %s: %v", r.Path, r.Err)
	}
	return ev
}

// kill starts a writer, watches it, kills it after a random time, and holds what the store says against the truth.
func (l *loop) kill(w *life, cmd *exec.Cmd) {
	t := l.t
	t.Helper()
	var stderr bytes.Buffer
	cmd.Env = append(os.Environ(), append(cmd.Env, "SHMTS_DIR="+l.dir)...)
	cmd.Stderr = &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL} // also if the test itself is killed
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killAll := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	defer killAll()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	deadline := time.Now().Add(20 * time.Second)
	for !w.truth.ready() {
		select {
		case err := <-exited:
			t.Fatalf("the writer ended by itself: %v\n%s", err, stderr.String())
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the writer is not ready after 20 s\n%s", stderr.String())
		}
	}

	// Watch it live for a random time: rows come in order and never fall.
	watched := map[*reader.Segment]*watcher{}
	look := func() {
		ev := l.poll()
		for _, g := range ev.New {
			if l.seen[g.ID()] {
				t.Fatalf("segment %s: want it once, got it again", g.ID())
			}
			l.seen[g.ID()] = true
			watched[g] = &watcher{l: l, w: w, seg: g, last: map[string]float64{}, next: map[[2]int]uint64{}, traces: map[[2]uint64]bool{}}
		}
		for _, one := range watched {
			one.look()
		}
	}
	for end := time.Now().Add(time.Duration(rand.IntN(120)) * time.Millisecond); time.Now().Before(end); {
		look()
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
	}
	for range w.stops {
		l.stop(cmd.Process.Pid, w.ahead, watched, look)
	}
	killAll()
	<-exited
	allDead := func() bool {
		for g := range watched {
			if !g.Liveness().Ended() {
				return false
			}
		}
		return len(watched) > 0
	}
	for deadline := time.Now().Add(20 * time.Second); !allDead(); look() {
		if time.Now().After(deadline) {
			t.Fatalf("not seen as dead after 20 s: %d segments", len(watched))
		}
	}
	look()
	if len(watched) > 1 && !w.forks {
		t.Fatalf("want one segment a life, got %d", len(watched))
	}
	for g, one := range watched {
		if got := g.Liveness(); got != reader.Dead {
			t.Fatalf("a killed writer: want dead, got %v", got)
		}
		one.final()
		l.rows += one.rows
		l.segments++
		if err := l.store.Unlink(g); err != nil {
			t.Fatal(err)
		}
	}
	l.poll()
	l.poll()
	if n := len(l.store.Segments()); n != 0 {
		t.Fatalf("want no segment left, got %d", n)
	}
}

// stopFor is longer than any step of the writers here, and than what moves an epoch.
const stopFor = 700 * time.Millisecond

// stop stops a writer and lets it go on. A reader never waits for it, nor takes it for dead; and it has not been rewound.
func (l *loop) stop(pid int, ahead time.Duration, watched map[*reader.Segment]*watcher, look func()) {
	for _, signal := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := syscall.Kill(-pid, signal); err != nil {
			l.t.Fatal(err)
		}
		for end := time.Now().Add(stopFor); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			began := time.Now()
			look()
			if took := time.Since(began); took > stopFor/2 {
				l.t.Fatalf("%v: want a look that waits for nobody, got one of %v", signal, took)
			}
			for g := range watched {
				if g.Liveness().Ended() || g.Epoch() != 0 {
					l.t.Fatalf("%v: want it alive or stalled in epoch 0, got it %v in %d", signal, g.Liveness(), g.Epoch())
				}
				var here unix.Timespec
				if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &here); err != nil {
					l.t.Fatal(err)
				}
				if off := time.Duration(g.Heartbeat() - here.Nano()); g.Heartbeat() != 0 && (off-ahead).Abs() > 20*time.Second {
					l.t.Fatalf("want a monotonic clock that is ahead by %v, got one by %v", ahead, off)
				}
			}
		}
	}
}

// watcher reads the rows of one segment as they come.
type watcher struct {
	l    *loop
	w    *life
	seg  *reader.Segment
	last map[string]float64 // records, by table, tier and series
	next map[[2]int]uint64
	rows int

	newest uint64             // exemplar
	traces map[[2]uint64]bool // that were seen
}

func (w *watcher) look() {
	for table, tb := range w.seg.Tables() {
		for tier := range tb.Tiers {
			at := [2]int{table, tier}
			for row := range w.seg.Rows(table, tier, w.next[at]) {
				if row.No < w.next[at] {
					w.l.t.Fatalf("table %d tier %d: row %d twice", table, tier, row.No)
				}
				w.next[at] = row.No + 1
				w.rows++
				w.hold(row)
			}
		}
	}
	w.lookExemplars()
}

// lookExemplars holds those that came against what says which they are: each is one that was offered, whole, and none comes twice.
func (w *watcher) lookExemplars() {
	t, le := w.l.t, binary.LittleEndian
	for x := range w.seg.Exemplars(w.newest + 1) {
		k, i := le.Uint64(x.TraceID[:]), le.Uint64(x.TraceID[8:])-1
		switch offered := w.w.truth.offered(w.seg.ID(), i); {
		case x.Number <= w.newest || x.Number > w.seg.ExemplarHead():
			t.Fatalf("exemplar %d: want it behind %d, up to %d", x.Number, w.newest, w.seg.ExemplarHead())
		case !strings.HasPrefix(x.Series.Name, "traced"):
			t.Fatalf("exemplar %d: want one of traced, got %s", x.Number, x.Series.Name)
		case x.Value != float64(k*128+i) || le.Uint64(x.SpanID[:]) != k*7+i || x.Time != int64(k*1000+i):
			t.Fatalf("exemplar %d: torn: %+v", x.Number, x)
		case k == 0 || k > offered+1:
			t.Fatalf("exemplar %d: want one of %d that worker %d has offered, got its %dth", x.Number, offered, i, k)
		case w.traces[[2]uint64{k, i}]:
			t.Fatalf("exemplar %d: the %dth of worker %d twice", x.Number, k, i)
		}
		w.newest, w.traces[[2]uint64{le.Uint64(x.TraceID[:]), i}] = x.Number, true
		w.l.exemplars++
	}
	if c := w.seg.Counters(); c.SkippedExemplars != 0 || c.ExemplarsDropped > w.seg.ExemplarHead()+1000 {
		t.Fatalf("want no exemplar that is broken, and no more dropped than there are, got %+v of %d", c, w.seg.ExemplarHead())
	}
}

// hold holds a row against the row before and against what is completed by now.
func (w *watcher) hold(row *reader.Row) {
	for _, want := range w.w.series {
		s := w.seg.Find(want.name)
		if s == nil || s.Table != row.Table {
			continue
		}
		v, ok := row.Value(s)
		if !ok {
			continue
		}
		n, _ := want.records(v)
		key := fmt.Sprint(row.Table, row.Tier, want.name)
		acked, inFlight, _ := w.w.truth.acked(w.seg.ID(), want.ack)
		most := acked + float64(inFlight)
		if (n < w.last[key] || n > most) && !want.falls {
			w.l.t.Fatalf("%s in row %d of tier %d: want %g to %g records, got %g", want.name, row.No, row.Tier, w.last[key], most, n)
		}
		w.last[key] = n
	}
}

// final holds the last words: every completed record, none twice, one in flight a worker excepted.
func (w *watcher) final() {
	t := w.l.t
	total, workers := 0.0, 0
	for _, want := range w.w.series {
		acked, inFlight, known := w.w.truth.acked(w.seg.ID(), want.ack)
		workers = inFlight
		s := w.seg.Find(want.name)
		if s == nil {
			if !known {
				continue // killed inside fork
			}
			t.Fatalf("series %s: want it, got none", want.name)
		}
		for tier := range w.seg.Tables()[s.Table].Tiers {
			var got float64
			var consistent, found bool
			for row := range w.seg.Rows(s.Table, tier, w.seg.Head(s.Table, tier)) {
				if !row.Estimated {
					t.Fatalf("%s tier %d: want the last words as the last row, got row %d", want.name, tier, row.No)
				}
				v, ok := row.Value(s)
				got, consistent = want.records(v)
				found = ok
			}
			over := got - acked
			if !found || over < 0 && !want.falls || math.Abs(over) > want.step()*float64(inFlight) {
				t.Fatalf("%s tier %d: want %g records, at most %d more in flight, got %g (row found: %v)",
					want.name, tier, acked, inFlight, got, found)
			}
			if !consistent {
				t.Fatalf("%s tier %d: its parts disagree by more than the records in flight", want.name, tier)
			}
			if tier == 0 {
				total += math.Ceil(math.Abs(over) / want.step())
			}
		}
	}
	if total > float64(workers) {
		t.Fatalf("want at most one record in flight a worker, %d, got %g", workers, total)
	}
}

// The ways to read a number of records out of a value.
func plain(per float64) func(reader.Value) (float64, bool) {
	return func(v reader.Value) (float64, bool) { return v.Float / per, true }
}

func count(v reader.Value) (float64, bool) { return float64(v.Count), true }

// counted is for stats and histograms that record one value: count and sum say the same, but for what is in flight.
func counted(value float64, workers int) func(reader.Value) (float64, bool) {
	return func(v reader.Value) (float64, bool) {
		d := float64(v.Count) - v.Sum/value
		return float64(v.Count), d >= -float64(workers) && d <= float64(workers)
	}
}

// goPage is the truth of the Go writer: see recordForEver.
type goPage []uint64

func (p goPage) ready() bool { return atomic.LoadUint64(&p[pageReady]) != 0 }

func (p goPage) acked(_ string, kind int) (n float64, inFlight int, ok bool) {
	for worker := range workers {
		n += float64(atomic.LoadUint64(&p[pageHead+worker*kinds+kind]))
	}
	return n, workers, true
}

func (p goPage) offered(_ string, worker uint64) uint64 {
	if worker >= workers {
		return 0
	}
	return atomic.LoadUint64(&p[pageHead+int(worker)*kinds+ackExemplar])
}

func TestGoWriterKilled(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(t)
	for n := range kills(t) {
		path := filepath.Join(l.tmp, fmt.Sprint("page", n))
		page, err := openPage(path, pageWords, true)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe)
		cmd.Env = []string{"SHMTS_CONSERVATION_PAGE=" + path}
		l.kill(&life{truth: goPage(page), series: []expected{
			{name: "records_total", ack: ackCounter, records: plain(1)},
			{name: "halves_total", ack: ackFloat, records: plain(0.5)},
			{name: "open", ack: ackUpDown, records: plain(-2)},
			{name: "size", ack: ackStat, records: counted(1, workers)},
			{name: "latency", ack: ackHistogram, records: counted(0.25, workers)},
			{name: "length", ack: ackIntHistogram, records: counted(3, workers)},
		}}, cmd)
		l.forget(path, page)
	}
	t.Logf("%d lives, %d rows and %d exemplars read while they lasted", l.segments, l.rows, l.exemplars)
	if l.exemplars < l.segments {
		t.Errorf("want an exemplar of each life at the least, got %d", l.exemplars)
	}
}

// The pages of cshim/testdata/stress.c, one a process.
const (
	stressProcesses = 16
	stressPage      = 16384 / 8 // words
	stressContexts  = 2 * 61
)

type stressPages struct {
	words    []uint64
	contexts int // that record: threads, the main one, and their signal handlers
}

func (p *stressPages) ready() bool { return atomic.LoadUint64(&p.words[0]) != 0 }

func (p *stressPages) acked(segment string, kind int) (n float64, inFlight int, ok bool) {
	for process := range stressProcesses {
		page := p.words[process*stressPage:][:stressPage]
		if atomic.LoadUint64(&page[0]) == 0 || hex.EncodeToString(layout.Bytes(page[2:4])) != segment {
			continue
		}
		for context := range stressContexts {
			n += float64(int64(atomic.LoadUint64(&page[8*(1+context)+kind])))
		}
		return n, p.contexts, true
	}
	return 0, 0, false
}

func (p *stressPages) offered(segment string, context uint64) uint64 {
	for process := range stressProcesses {
		page := p.words[process*stressPage:][:stressPage]
		if hex.EncodeToString(layout.Bytes(page[2:4])) == segment && context < stressContexts {
			return atomic.LoadUint64(&page[8*(1+context)+7])
		}
	}
	return 0
}

func TestCWriterKilled(t *testing.T) {
	t.Parallel()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("needs gcc")
	}
	l := newLoop(t)
	stress := filepath.Join(l.tmp, "stress")
	if out, err := exec.Command(gcc, "-std=c11", "-O2", "-I../../cshim", "-o", stress, "../../cshim/testdata/stress.c", "-pthread").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for n := range kills(t) {
		path := filepath.Join(l.tmp, fmt.Sprint("page", n))
		words, err := openPage(path, (stressProcesses+1)*stressPage, true)
		if err != nil {
			t.Fatal(err)
		}
		threads, forks := rand.IntN(5), rand.IntN(3)*rand.IntN(2)
		cmd := exec.Command(stress, "--dir", l.dir, "--ack", path, "--threads", fmt.Sprint(threads), "--forks", fmt.Sprint(forks))
		pages := &stressPages{words: words, contexts: threads + 1}
		if rand.IntN(2) == 0 {
			cmd.Args = append(cmd.Args, "--churn")
		}
		if rand.IntN(2) == 0 {
			cmd.Args = append(cmd.Args, "--signals")
			pages.contexts *= 2
		}
		l.kill(&life{truth: pages, forks: forks > 0, series: []expected{
			{name: "adds", ack: 0, records: plain(1)},
			{name: "f64s", ack: 1, records: plain(0.5)},
			{name: "level", ack: 2, records: plain(1), falls: true},
			{name: "sizes", ack: 3, records: count},
			{name: "waits", ack: 4, records: count},
			{name: "hops", ack: 5, records: counted(3, pages.contexts)},
		}}, cmd)
		l.forget(path, words)
	}
	t.Logf("%d lives, %d rows and %d exemplars read while they lasted", l.segments, l.rows, l.exemplars)
	if l.exemplars < l.segments {
		t.Errorf("want an exemplar of each life at the least, got %d", l.exemplars)
	}
}
