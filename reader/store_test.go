package reader_test

import (
	"errors"
	"math"
	"os"
	"testing"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// fixture is one series of each kind in one table of two tiers.
type fixture struct {
	*segtest.Segment
	requests, seconds, inflight, depth, level, wait, size *layout.SeriesInfo
}

var sizes = layout.BucketRange{Scale: 0, Min: 0, Count: 4} // (1,2] (2,4] (4,8] (8,16]

func newFixture(t testing.TB, o segtest.Options) *fixture {
	t.Helper()
	if o.Tables == nil {
		var ts layout.TableSchema
		for _, k := range []layout.Kind{layout.Counter, layout.Counter, layout.UpDown, layout.Gauge, layout.Gauge, layout.Stat} {
			ts.Add(1, k, 0)
		}
		ts.Add(1, layout.Histogram, sizes.Count)
		ts.Name, ts.Lanes = "all", 2
		ts.Tiers = []layout.TierSchema{{Step: 1e9, Rows: 8}, {Step: 4e9, Rows: 4}}
		o.Tables = []layout.TableSchema{ts}
	}
	s := segtest.New(t, o)
	none := layout.BucketRange{}
	f := &fixture{Segment: s}
	f.requests = s.Series(t, 0, "requests", layout.Counter, layout.U64, none, layout.Pair{Name: "code", Value: "200"})
	f.seconds = s.Series(t, 0, "seconds", layout.Counter, layout.F64, none)
	f.inflight = s.Series(t, 0, "inflight", layout.UpDown, layout.I64, none)
	f.depth = s.Series(t, 0, "depth", layout.Gauge, layout.I64, none)
	f.level = s.Series(t, 0, "level", layout.Gauge, layout.F64, none)
	f.wait = s.Series(t, 0, "wait", layout.Stat, layout.F64, none)
	f.size = s.Series(t, 0, "size", layout.Histogram, layout.F64, sizes)
	return f
}

// row is the cells after n seconds in which each second brought 10 requests, 0.5 s, a wait of n ms and a size of 3.
func (f *fixture) row(n uint64) []uint64 {
	c := make([]uint64, f.H.Tables[0].RowCells)
	c[f.requests.RowCell] = 10 * n
	c[f.seconds.RowCell] = math.Float64bits(0.5 * float64(n))
	c[f.inflight.RowCell] = -n
	c[f.depth.RowCell] = n % 3
	c[f.level.RowCell] = layout.UnsetF64
	w := c[f.wait.RowCell:]
	w[layout.StatCount], w[layout.StatSum] = n, math.Float64bits(float64(n*(n+1)/2))
	for _, i := range []int{layout.StatLast, layout.StatMin, layout.StatMax} {
		w[i] = math.Float64bits(float64(n))
	}
	h := c[f.size.RowCell:]
	h[layout.HistSum], h[layout.HistBuckets+1] = math.Float64bits(3*float64(n)), n
	return c
}

func open(t testing.TB, dir string, o reader.Options) *reader.Store {
	t.Helper()
	o.Dir = dir
	s, err := reader.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func poll(t testing.TB, s *reader.Store) reader.Events {
	t.Helper()
	ev, err := s.Poll()
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

// backings runs a test with a mapping, with one of the control block alone, with pread, and with pread and no descriptor kept.
func backings(t *testing.T, f func(t *testing.T, o reader.Options)) {
	t.Run("mapped", func(t *testing.T) { f(t, reader.Options{}) })
	t.Run("control", func(t *testing.T) { f(t, reader.Options{MapBytes: -1, ControlBytes: 1 << 20}) })
	t.Run("pread", func(t *testing.T) { f(t, reader.Options{NoMap: true}) })
	t.Run("reopened", func(t *testing.T) { f(t, reader.Options{NoMap: true, MaxFiles: -1}) })
}

func TestSegmentFromBirthToUnlink(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		s := open(t, dir, o)
		if ev := poll(t, s); len(ev.New)+len(ev.Refused)+len(ev.Gone) != 0 {
			t.Fatalf("empty store: want no events, got %+v", ev)
		}
		f := newFixture(t, segtest.Options{Job: "api", Instance: "a"})
		f.Birth(t, dir)
		ev := poll(t, s)
		if len(ev.New) != 1 || len(ev.Refused) != 0 || len(ev.Ended) != 0 {
			t.Fatalf("after birth: want one new segment, got %+v", ev)
		}
		g := ev.New[0]
		if g.Job() != "api" || g.Instance() != "a" || g.Path() != f.Path || g.UID() != os.Geteuid() || len(g.Series()) != 7 {
			t.Errorf("got job %s, instance %s, path %s, uid %d, %d series", g.Job(), g.Instance(), g.Path(), g.UID(), len(g.Series()))
		}
		for n := uint64(1); n <= 5; n++ {
			f.Publish(0, 0, n, f.row(n))
			ev := poll(t, s)
			if len(ev.New)+len(ev.Changed)+len(ev.Ended)+len(ev.Gone) != 0 {
				t.Fatalf("row %d: want no events, got %+v", n, ev)
			}
			if g.Head(0, 0) != n || g.Liveness() != reader.Alive {
				t.Fatalf("row %d: got head %d, %v", n, g.Head(0, 0), g.Liveness())
			}
		}
		checkRows(t, g, 0, 1, 5)
		if err := s.Unlink(g); !errors.Is(err, reader.ErrAlive) {
			t.Fatalf("unlink of a live segment: want ErrAlive, got %v", err)
		}
		f.Die()
		ev = poll(t, s)
		if len(ev.Ended) != 1 || ev.Ended[0] != g || g.Liveness() != reader.Dead {
			t.Fatalf("after death: want it ended and dead, got %+v, %v", ev, g.Liveness())
		}
		if g.Head(0, 0) != 6 {
			t.Errorf("head of a dead segment: want the last words, 6, got %d", g.Head(0, 0))
		}
		if err := s.Unlink(g); err != nil {
			t.Fatal(err)
		}
		if ev = poll(t, s); len(ev.Gone) != 1 || len(s.Segments()) != 0 {
			t.Fatalf("after unlink: want it gone, got %+v", ev)
		}
		n := 0
		for range g.Rows(0, 0, 0) {
			n++
		}
		if _, err := os.Stat(f.Path); !os.IsNotExist(err) {
			t.Errorf("file of an unlinked segment: want none, got %v", err)
		}
		if o.MaxFiles >= 0 && n != 6 {
			t.Errorf("rows of a gone segment until the next poll: want 6, got %d", n)
		}
		poll(t, s)
		if err := g.Refresh(); g.Liveness() != reader.Dead && err == nil {
			t.Errorf("refresh of a closed segment: want an error")
		}
	})
}

// checkRows holds the fixture's rows against what its row makes of their numbers.
func checkRows(t *testing.T, g *reader.Segment, tier int, from, to uint64) {
	t.Helper()
	want := from
	for r := range g.Rows(0, tier, from) {
		if r.Estimated {
			continue
		}
		if r.No != want {
			t.Fatalf("want row %d, got %d", want, r.No)
		}
		want++
		n := float64(r.BaseRow)
		for _, s := range g.Series() {
			v, ok := r.Value(s)
			if !ok {
				t.Fatalf("row %d: want a value of %s", r.No, s.Name)
			}
			var good bool
			switch s.Name {
			case "requests":
				good = v.Int == int64(10*r.BaseRow) && v.Float == 10*n
			case "seconds":
				good = v.Float == n/2
			case "inflight":
				good = v.Int == -int64(r.BaseRow)
			case "depth":
				good = v.Int == int64(r.BaseRow%3)
			case "level":
				good = v.Unset && math.IsNaN(v.Float)
			case "wait":
				good = v.Count == r.BaseRow && v.Sum == n*(n+1)/2 && v.Last == n && v.Min <= n && v.Max == n
			case "size":
				good = v.Count == r.BaseRow && v.Sum == 3*n && len(v.Buckets) == 4 && v.Buckets[1] == r.BaseRow
			}
			if !good {
				t.Errorf("row %d: %s: got %+v", r.No, s.Name, v)
			}
		}
	}
	if want != to+1 {
		t.Fatalf("want rows to %d, got to %d", to, want-1)
	}
}
