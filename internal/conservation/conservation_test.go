package conservation

import (
	"bytes"
	"fmt"
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

	"github.com/shmts/shmts/reader"
)

// kills is how often each kind of writer is killed; SHMTS_KILLS says otherwise.
func kills(t *testing.T) int {
	if s := os.Getenv("SHMTS_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("SHMTS_KILLS: want a number, got %q", s)
		}
		return n
	}
	if testing.Short() {
		return 20
	}
	return 500
}

// A series of a writer under test: which word of a worker counts its completed records, and how
// many records a value stands for.
type expected struct {
	name    string
	ack     int
	records func(reader.Value) (float64, bool) // from the value; false where its parts contradict one another
}

// run is one life of a writer.
type run struct {
	workers, kinds int
	series         []expected
	page           []uint64
}

// acked is how many records of a kind all workers have completed.
func (r *run) acked(kind int) (n float64) {
	for worker := range r.workers {
		n += float64(atomic.LoadUint64(&r.page[pageHead+worker*r.kinds+kind]))
	}
	return n
}

// A lane of the store: one writer after another, all under one source, so that each
// meets the leavings of the one before.
type loop struct {
	t     *testing.T
	store *reader.Store
	dir   string
	seen  map[string]bool // segment ids
	rows  int
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
	return &loop{t: t, store: store, dir: dir, seen: map[string]bool{}}
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

// kill starts a writer, watches it, kills it after a random time, and holds what the store says against the page.
func (l *loop) kill(r *run, cmd *exec.Cmd) {
	t := l.t
	t.Helper()
	page := filepath.Join(t.TempDir(), "page")
	var err error
	if r.page, err = openPage(page, true); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(bytesOf(r.page)) }()
	var stderr bytes.Buffer
	cmd.Env = append(os.Environ(), "SHMTS_DIR="+l.dir, "SHMTS_CONSERVATION_PAGE="+page)
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()

	deadline := time.Now().Add(20 * time.Second)
	for atomic.LoadUint64(&r.page[pageReady]) == 0 {
		select {
		case err := <-exited:
			t.Fatalf("the writer ended by itself: %v\n%s", err, stderr.String())
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the writer is not ready after 20 s\n%s", stderr.String())
		}
	}
	r.workers = int(atomic.LoadUint64(&r.page[pageReady]))

	// Watch it live for a random time: rows come in order and never fall.
	watch := watcher{l: l, r: r, last: map[string]float64{}, next: map[[2]int]uint64{}}
	for end := time.Now().Add(time.Duration(rand.IntN(120)) * time.Millisecond); time.Now().Before(end); {
		watch.look(l.poll())
		time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-exited
	for deadline := time.Now().Add(20 * time.Second); watch.seg == nil || !watch.seg.Liveness().Ended(); {
		if time.Now().After(deadline) {
			t.Fatalf("not seen as dead after 20 s (segment %v)", watch.seg)
		}
		watch.look(l.poll())
	}
	watch.look(l.poll())
	if got := watch.seg.Liveness(); got != reader.Dead {
		t.Fatalf("a killed writer: want dead, got %v", got)
	}
	watch.final()
	l.rows += watch.rows
	if err := l.store.Unlink(watch.seg); err != nil {
		t.Fatal(err)
	}
	l.poll()
	l.poll()
	if n := len(l.store.Segments()); n != 0 {
		t.Fatalf("want no segment left, got %d", n)
	}
}

// watcher reads the rows of one life as they come.
type watcher struct {
	l    *loop
	r    *run
	seg  *reader.Segment
	last map[string]float64 // records, by table, tier and series
	next map[[2]int]uint64
	rows int
}

func (w *watcher) look(ev reader.Events) {
	t := w.l.t
	for _, g := range ev.New {
		if w.seg != nil || w.l.seen[g.ID()] {
			t.Fatalf("want one new segment a life, got %s too", g.ID())
		}
		w.l.seen[g.ID()] = true
		w.seg = g
	}
	if w.seg == nil {
		return
	}
	for table, tb := range w.seg.Tables() {
		for tier := range tb.Tiers {
			at := [2]int{table, tier}
			for row := range w.seg.Rows(table, tier, w.next[at]) {
				if row.No < w.next[at] {
					t.Fatalf("table %d tier %d: row %d twice", table, tier, row.No)
				}
				w.next[at] = row.No + 1
				w.rows++
				w.hold(row)
			}
		}
	}
}

// hold holds a row against the row before and against what is completed by now.
func (w *watcher) hold(row *reader.Row) {
	for _, want := range w.r.series {
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
		most := w.r.acked(want.ack) + float64(w.r.workers)
		if n < w.last[key] || n > most {
			w.l.t.Fatalf("%s in row %d of tier %d: want %g to %g records, got %g", want.name, row.No, row.Tier, w.last[key], most, n)
		}
		w.last[key] = n
	}
}

// final holds the last words: every completed record, none twice, one in flight a worker excepted.
func (w *watcher) final() {
	t := w.l.t
	inFlight := 0.0
	for _, want := range w.r.series {
		s := w.seg.Find(want.name)
		if s == nil {
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
			acked := w.r.acked(want.ack)
			over := got - acked
			if !found || over < 0 || over > float64(w.r.workers) {
				t.Fatalf("%s tier %d: want %g records, at most %d more in flight, got %g (row found: %v)",
					want.name, tier, acked, w.r.workers, got, found)
			}
			if !consistent {
				t.Fatalf("%s tier %d: its parts disagree by more than the records in flight", want.name, tier)
			}
			if tier == 0 {
				inFlight += over
			}
		}
	}
	if inFlight > float64(w.r.workers) {
		t.Fatalf("want at most one record in flight a worker, %d, got %g", w.r.workers, inFlight)
	}
}

// The ways to read a number of records out of a value.
func plain(per float64) func(reader.Value) (float64, bool) {
	return func(v reader.Value) (float64, bool) { return v.Float / per, true }
}

// counted is for stats and histograms that record one value: count and sum say the same, but for what is in flight.
func counted(value float64, workers int) func(reader.Value) (float64, bool) {
	return func(v reader.Value) (float64, bool) {
		d := float64(v.Count) - v.Sum/value
		return float64(v.Count), d >= -float64(workers) && d <= float64(workers)
	}
}

func TestGoWriterKilled(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(t)
	for range kills(t) {
		l.kill(&run{kinds: kinds, series: []expected{
			{"records_total", ackCounter, plain(1)},
			{"halves_total", ackFloat, plain(0.5)},
			{"open", ackUpDown, plain(-2)},
			{"size", ackStat, counted(1, workers)},
			{"latency", ackHistogram, counted(0.25, workers)},
			{"length", ackIntHistogram, counted(3, workers)},
		}}, exec.Command(exe))
	}
	t.Logf("%d rows read while they lived", l.rows)
}
