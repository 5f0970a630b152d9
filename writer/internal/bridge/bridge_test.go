package bridge

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shmts/shmts/writer"
)

func testWriter(t *testing.T, o writer.Options) (*writer.Writer, *atomic.Int64) {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-bridge-test-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	clock := &atomic.Int64{}
	clock.Store(1e18)
	o.Dir, o.NoTicker, o.Clock = dir, true, func() (int64, int64) { n := clock.Load(); return n, n }
	w, err := writer.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w, clock
}

func named(name string) func() Series { return func() Series { return Series{Name: name} } }

// A sum of steps is the total, to the bit, and no step is less than 0.
func TestAmountIsExact(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 20_000 {
		cell := 0.0
		a := amount{}
		a.add = func(v float64) {
			if v < 0 {
				t.Fatalf("want no step below 0, got %g", v)
			}
			cell += v
		}
		total := 0.0
		for i := range 8 {
			total += math.Ldexp(rng.Float64(), rng.IntN(130)-65)
			if i < 2 { // one step is a tie here, and may round away from the total
				total = []float64{float64(rng.IntN(16)) / 2, 1<<52 + float64(rng.IntN(16))}[i]
			}
			if a.to(total, false); cell != total {
				t.Fatalf("want %x, got %x", total, cell)
			}
		}
		a.to(0.5, true)
		if want := total + 0.5; cell != want {
			t.Fatalf("after a restart: want %x, got %x", want, cell)
		}
	}
}

// A series that found no room is tried again once others made some.
func TestTriedAgain(t *testing.T) {
	w, clock := testWriter(t, writer.Options{MaxSegments: 1, HeapBytes: 1 << 12, Descriptors: 2, Series: 2, Histograms: -1, Stats: -1,
		Tables: []writer.Table{{Name: "t", Scalars: 2, Tiers: []writer.Tier{{Step: time.Second, Rows: 8}}}}})
	s := New[string](w)
	round := func(names ...string) {
		s.Begin()
		for _, name := range names {
			s.Counter(name, 5, 0, named(name))
		}
		s.End(true)
		clock.Add(1e9)
		w.Tick()
	}
	round("a", "b", "c")
	if got := s.Stats(); got != (Stats{Series: 3, Dropped: 1}) {
		t.Fatalf("want c dropped, got %+v", got)
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), `"c"`) {
		t.Fatalf("want an error that names c, got %v", err)
	}
	for range 2 * retryRounds { // nothing was retired: c is not even tried
		round("a", "b", "c")
	}
	if got := s.Stats().Dropped; got != 1 {
		t.Fatalf("want c dropped once, got %d", got)
	}
	round("a", "c")
	for range retryRounds + 1 {
		round("a", "c")
	}
	if got := w.Stats().Series; got != 2 || s.byKey["c"].lost {
		t.Fatalf("want a and c in the segment, got %d series", got)
	}
}

// The one of two series with one name and labels that goes makes way for the other.
func TestConflictEnds(t *testing.T) {
	w, _ := testWriter(t, writer.Options{})
	s := New[int](w)
	for _, keys := range [][]int{{1, 2}, {1, 2}, {2}, {2}} {
		s.Begin()
		for _, key := range keys {
			s.Counter(key, uint64(key), 0, named("same"))
		}
		s.End(true)
	}
	if got := s.Stats(); got != (Stats{Series: 1, Conflicts: 1}) || s.byKey[2].form != formCount {
		t.Fatalf("want one conflict, and 2 recorded after it, got %+v, form %d", got, s.byKey[2].form)
	}
}

// A key that changes its kind is another series.
func TestKindChanges(t *testing.T) {
	w, _ := testWriter(t, writer.Options{})
	s := New[int](w)
	for n, bring := range []func(){
		func() { s.Counter(1, 5, 0, named("x")) },
		func() { s.Gauge(1, 5, named("x")) },
		func() { s.Unsupported(1, "why", named("x")) },
		func() { s.Histogram(1, &Histogram{Scale: 2}, Shape{Low: 1, High: 8, Scale: 2}, named("x")) },
		func() { s.Classic(1, &Classic{}, named("x")) },
	} {
		s.Begin()
		bring()
		s.End(true)
		if want := []int{1, 1, 0, 1, 3}[n]; w.Stats().Series != want {
			t.Errorf("step %d: want %d live series, got %d (%v)", n, want, w.Stats().Series, w.Err())
		}
	}
	if got := s.Stats(); got != (Stats{Series: 1, Unsupported: 1}) {
		t.Errorf("got %+v", got)
	}
}

func TestHelpFits(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"short", "short"},
		{strings.Repeat("x", 1024), strings.Repeat("x", 1023)},
		{strings.Repeat("x", 1022) + "é", strings.Repeat("x", 1022)},
		{"a\xffb", "a�b"},
	} {
		if got := fitHelp(c.text); got != c.want {
			t.Errorf("want %d bytes, got %d: %q", len(c.want), len(got), got)
		}
	}
}

// A collection comes before each step ends, also when one takes longer than a step; Stop ends the loop, and so does the writer's Close.
func TestLoop(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "shmts-bridge-test-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	defer os.RemoveAll(dir)
	for i, took := range []time.Duration{0, 150 * time.Millisecond} {
		w, err := writer.Open(writer.Options{Dir: dir, Instance: strconv.Itoa(i),
			Tables: []writer.Table{{Name: "t", Scalars: 1, Tiers: []writer.Tier{{Step: 100 * time.Millisecond, Rows: 8}}}}})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		calls := make(chan time.Time, 100)
		var l Loop
		l.Start(w, 0, func(ctx context.Context) {
			calls <- time.Now()
			select {
			case <-ctx.Done():
			case <-time.After(took):
			}
		})
		began := time.Now()
		for range 5 {
			select {
			case <-calls:
			case <-time.After(5 * time.Second):
				t.Fatalf("collections that take %v: want 5 within seconds, got fewer", took)
			}
		}
		if least := 300 * time.Millisecond; time.Since(began) < least {
			t.Errorf("want one collection a step of 100 ms, got 5 in %v", time.Since(began))
		}
		if i == 1 {
			w.Close()
			<-l.done
		}
		for range 2 {
			if err := l.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	var idle Loop
	idle.Start(nil, 0, nil)
	if err := idle.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}
