package reader_test

import (
	"math"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

var f64 = math.Float64bits

// live puts values into the lanes of the fixture: lane 0, lane 1 and the overflow lane, index 2.
func (f *fixture) live() {
	for k := range 3 {
		l := f.Lane(0, k)
		l[f.requests.LaneCell] = uint64(100 + k)
		l[f.seconds.LaneCell] = f64([]float64{0.1, 0.2, 0.3}[k])
		l[f.inflight.LaneCell] = uint64(-5 + 10*k) // modulo 2^64
		l[f.wait.LaneCell+layout.StatCount] = uint64(k)
		l[f.wait.LaneCell+layout.StatSum] = f64(float64(k))
		l[f.size.LaneCell+layout.HistSum] = f64(1.5)
		l[f.size.LaneCell+layout.HistZero] = 1
		l[f.size.LaneCell+layout.HistBuckets+3] = 2
		l[f.size.LaneCell+layout.HistBuckets+4] = 4
	}
	f.Set(f.depth, 42)
	f.Set(f.wait, f64(7.5))
}

func (f *fixture) window(lane int, row uint64, low, high float64) {
	w := f.Lane(0, lane)[f.wait.LaneCell+layout.StatWindow+layout.StatWindowCells*uint32(row%2):]
	w[layout.WindowTag], w[layout.WindowMin], w[layout.WindowMax] = row, f64(low), f64(high)
}

func last(t testing.TB, g *reader.Segment, tier int) *reader.Row {
	t.Helper()
	var row *reader.Row
	for r := range g.Rows(0, tier, 0) {
		row = r.Clone()
	}
	if row == nil {
		t.Fatalf("tier %d: want rows, got none", tier)
	}
	return row
}

func value(t testing.TB, g *reader.Segment, r *reader.Row, name string) reader.Value {
	t.Helper()
	v, ok := r.Value(g.Find(name))
	if !ok {
		t.Fatalf("row %d: want a value of %s", r.No, name)
	}
	return v
}

func TestLastWords(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{BirthUnix: time.Now().Add(-time.Minute).UnixNano()})
		f.live()
		for n := uint64(1); n <= 5; n++ {
			row := f.row(n)
			row[f.wait.RowCell+layout.StatMin] = f64(float64(n))
			f.Publish(0, 0, n, row)
		}
		four := f.row(4)
		f.Publish(0, 1, 1, four)
		// The f64 counter was published as 2.5, more than its lanes say now: it must not fall.
		f.window(0, 6, 8, 9)
		f.window(1, 5, 0.1, 99) // row 5 was published: this window is in it
		f.window(2, 6, math.Float64frombits(layout.EmptyWindow(6)), math.Float64frombits(layout.EmptyWindow(6)))
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		sample, err := g.Live(0)
		if err != nil {
			t.Fatal(err)
		}
		f.Die()
		if ev := poll(t, s); len(ev.Ended) != 1 {
			t.Fatalf("after death: want it ended, got %+v", ev)
		}
		row := last(t, g, 0)
		if row.No != 6 || !row.Estimated || row.Final || row.BaseRow != 6 || row.Begin != f.H.BirthUnix+5e9 || row.Time != f.H.BirthUnix+6e9 || row.Mono != f.H.BirthMono+6e9 {
			t.Errorf("last words: got %+v", row)
		}
		for what, r := range map[string]*reader.Row{"last words": row, "live before death": sample} {
			sum := 0.1 + 0.2
			sum += 0.3
			if v := value(t, g, r, "requests"); v.Int != 303 {
				t.Errorf("%s: requests: want 303, got %+v", what, v)
			}
			if v := value(t, g, r, "seconds"); v.Float != 2.5 {
				t.Errorf("%s: seconds: want what was published, 2.5, not %g, got %g", what, sum, v.Float)
			}
			if v := value(t, g, r, "inflight"); v.Int != 15 {
				t.Errorf("%s: inflight: want 15, got %d", what, v.Int)
			}
			if v := value(t, g, r, "depth"); v.Int != 42 {
				t.Errorf("%s: depth: want 42, got %d", what, v.Int)
			}
			if v := value(t, g, r, "level"); !v.Unset {
				t.Errorf("%s: level: want unset, got %+v", what, v)
			}
			if v := value(t, g, r, "wait"); v.Count != 3 || v.Sum != 3 || v.Last != 7.5 || v.Min != 8 || v.Max != 9 {
				t.Errorf("%s: wait: want 3, 3, 7.5, 8, 9, got %+v", what, v)
			}
			if v := value(t, g, r, "size"); v.Count != 21 || v.Sum != 15 || v.Zero != 3 || v.Above != 12 || v.Buckets[3] != 6 {
				t.Errorf("%s: size: want 21 in 3, 6 and 12, and the published sum of 15, got %+v", what, v)
			}
		}
		// The coarse tier folds the base row 5 that came since its own, and the windows.
		row = last(t, g, 1)
		if row.No != 2 || !row.Estimated || row.BaseRow != 6 || row.Begin != f.H.BirthUnix+4e9 || row.Time != f.H.BirthUnix+8e9 {
			t.Errorf("last words of tier 1: got %+v", row)
		}
		if v := value(t, g, row, "wait"); v.Min != 5 || v.Max != 9 || v.Count != 3 {
			t.Errorf("wait in tier 1: want 5 to 9, got %+v", v)
		}
		if end, ok := g.End(); !ok || end != f.H.BirthUnix+6e9 {
			t.Errorf("end: want birth + 6 s, got %d, %v", end-f.H.BirthUnix, ok)
		}
		// The same again, by who comes later.
		later := open(t, dir, o)
		ev := poll(t, later)
		if len(ev.New) != 1 || len(ev.Ended) != 1 {
			t.Fatalf("a dead one at first sight: want it new and ended, got %+v", ev)
		}
		again := last(t, ev.New[0], 0)
		if again.No != 6 || again.Time != f.H.BirthUnix+6e9 || value(t, ev.New[0], again, "requests").Int != 303 {
			t.Errorf("last words made twice: got %+v", again)
		}
	})
}

// A writer that dies in the middle of a tick: the windows of the row that it never published count, and a row
// whose head it did not store is a row.
func TestDeathInsideATick(t *testing.T) {
	t.Run("open_row moved, row not published", func(t *testing.T) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{})
		f.live()
		f.Publish(0, 0, 1, f.row(1))
		f.window(0, 2, 3, 4)
		f.window(1, 3, 1, 2)
		f.SetOpenRow(0, 3)
		f.Leave(t, dir)
		g := poll(t, open(t, dir, reader.Options{})).New[0]
		row := last(t, g, 0)
		if v := value(t, g, row, "wait"); row.No != 2 || v.Min != 1 || v.Max != 4 {
			t.Errorf("want row 2 with 1 to 4, got row %d, %+v", row.No, v)
		}
	})
	t.Run("row published, head not stored", func(t *testing.T) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{})
		f.live()
		f.Publish(0, 0, 1, f.row(1))
		f.Publish(0, 0, 2, f.row(2))
		f.SetHead(0, 0, 1)
		f.Leave(t, dir)
		g := poll(t, open(t, dir, reader.Options{})).New[0]
		var got []uint64
		for r := range g.Rows(0, 0, 0) {
			got = append(got, r.No)
		}
		if len(got) != 3 || got[2] != 3 || g.Head(0, 0) != 3 {
			t.Errorf("want rows 1, 2 and last words 3, got %v, head %d", got, g.Head(0, 0))
		}
	})
	t.Run("inside a row", func(t *testing.T) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{})
		f.live()
		for n := uint64(1); n <= 9; n++ {
			f.Publish(0, 0, n, f.row(n))
		}
		slot := f.W[f.H.Tables[0].Tier[0].RowOffset(10)/8:]
		slot[0]++ // row 10 in the place of row 2
		slot[1] = 10
		slot[9] ^= 1
		f.Leave(t, dir)
		g := poll(t, open(t, dir, reader.Options{})).New[0]
		checkRows(t, g, 0, 3, 9)
		if row := last(t, g, 0); row.No != 10 || !row.Estimated {
			t.Errorf("want last words as row 10, got %+v", row)
		}
	})
}

func TestClosed(t *testing.T) {
	dir := segtest.Store(t)
	f := newFixture(t, segtest.Options{})
	f.Publish(0, 0, 1, f.row(1))
	h := layout.RowHeader{RowNo: 2, BaseRow: 2, TBegin: segtest.Birth + 1e9, T: segtest.Birth + 15e8, TMono: segtest.BirthMono + 15e8, Flags: layout.RowFinal}
	f.PublishRow(0, 0, &h, f.row(2))
	f.Birth(t, dir)
	s := open(t, dir, reader.Options{})
	g := poll(t, s).New[0]
	f.Close()
	ev := poll(t, s)
	if len(ev.Ended) != 1 || g.Liveness() != reader.Closed {
		t.Fatalf("want it ended and closed, got %+v, %v", ev, g.Liveness())
	}
	if row := last(t, g, 0); row.No != 2 || !row.Final || row.Estimated {
		t.Errorf("want the final row 2 and no last words, got %+v", row)
	}
	if end, ok := g.End(); !ok || end != segtest.Birth+15e8 {
		t.Errorf("end: want the final row's time, got birth + %d, %v", end-segtest.Birth, ok)
	}
	if ev := poll(t, s); len(ev.Ended) != 0 {
		t.Errorf("want it ended once, got %+v", ev)
	}
	s.Release(g)
	if ev := poll(t, s); len(ev.Gone) != 1 {
		t.Errorf("released: want it gone, got %+v", ev)
	}
	if ev := poll(t, s); len(ev.New) != 0 {
		t.Errorf("released: want it left alone, got %+v", ev)
	}
}
