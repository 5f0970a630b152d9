package reader_test

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

func delta(t testing.TB, g *reader.Segment, name string, window time.Duration) reader.Delta {
	t.Helper()
	d, err := g.Delta(g.Find(name), window)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDelta(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{})
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		if _, err := g.Delta(g.Find("requests"), time.Second); !errors.Is(err, reader.ErrNoRows) {
			t.Errorf("before the first row: want ErrNoRows, got %v", err)
		}
		for n := uint64(1); n <= 20; n++ { // tier 0 holds 13 to 20, tier 1 rows 2 to 5 (8 to 20 s)
			f.Publish(0, 0, n, f.row(n))
			if n%4 == 0 {
				f.Publish(0, 1, n/4, f.row(n))
			}
			if n == 3 { // younger than the window: everything since birth
				poll(t, s)
				d := delta(t, g, "requests", 10*time.Second)
				if d.From != segtest.Birth || d.Rows != 3 || d.Change.Int != 30 || d.Seconds() != 3 || d.PerSecond() != 10 {
					t.Errorf("young segment: got %+v", d)
				}
			}
		}
		poll(t, s)
		d := delta(t, g, "requests", 5*time.Second)
		if d.Tier != 0 || d.Rows != 5 || d.From != segtest.Birth+15e9 || d.To != segtest.Birth+20e9 || d.Gaps != 0 || d.First.Int != 150 || d.Last.Int != 200 || d.Change.Int != 50 || d.PerSecond() != 10 {
			t.Errorf("counter over 5 s: got %+v", d)
		}
		if d := delta(t, g, "seconds", 5*time.Second); d.Change.Float != 2.5 || d.PerSecond() != 0.5 {
			t.Errorf("f64 counter: got %+v", d)
		}
		if d := delta(t, g, "inflight", 5*time.Second); d.Change.Int != -5 || d.PerSecond() != -1 {
			t.Errorf("updown: got %+v", d)
		}
		if d := delta(t, g, "depth", 2*time.Second); d.Change.Int != 2 || d.Change.Min != 1 || d.Change.Max != 2 || !math.IsNaN(d.PerSecond()) {
			t.Errorf("gauge: want 2, of 1 and 2, got %+v", d)
		}
		if d := delta(t, g, "level", 2*time.Second); !d.Change.Unset || !math.IsNaN(d.Change.Min) {
			t.Errorf("gauge never set: got %+v", d)
		}
		if d := delta(t, g, "wait", 4*time.Second); d.Change.Count != 4 || d.Change.Sum != 17+18+19+20 || d.Change.Min != 17 || d.Change.Max != 20 || d.Change.Last != 20 {
			t.Errorf("stat: got %+v", d)
		}
		if d := delta(t, g, "size", 4*time.Second); d.Change.Count != 4 || d.Change.Sum != 12 || d.Change.Buckets[1] != 4 || d.First.Buckets[1] != 16 || d.Last.Buckets[1] != 20 || d.PerSecond() != 3 {
			t.Errorf("histogram: got %+v", d)
		}
		if d := delta(t, g, "requests", 12*time.Second); d.Tier != 1 || d.Rows != 3 || d.Change.Int != 120 || d.Seconds() != 12 {
			t.Errorf("12 s: want the coarse tier, 3 rows, 120, got %+v", d)
		}
		if d := delta(t, g, "requests", time.Hour); d.Tier != 1 || d.Seconds() != 12 {
			t.Errorf("an hour: want what reaches furthest, 12 s, got %+v", d)
		}
		if d := delta(t, g, "requests", 10*time.Millisecond); d.Rows != 1 || d.Change.Int != 10 {
			t.Errorf("less than a step: want one row, got %+v", d)
		}
	})
}

func TestDeltaGapsAndClocks(t *testing.T) {
	dir := segtest.Store(t)
	f := newFixture(t, segtest.Options{})
	f.Birth(t, dir)
	s := open(t, dir, reader.Options{})
	// Row 4 comes 3 s late, and the wall clock is stepped an hour back before row 6.
	mono := []int64{0, 1, 2, 3, 7, 8, 9, 10}
	for n := uint64(1); n < 8; n++ {
		h := layout.RowHeader{RowNo: n, BaseRow: n, TMono: segtest.BirthMono + mono[n]*1e9, T: segtest.Birth + mono[n]*1e9, TBegin: segtest.Birth + mono[n-1]*1e9}
		if n >= 6 {
			h.T -= 3600e9
		}
		if n >= 7 {
			h.TBegin -= 3600e9
		}
		f.PublishRow(0, 0, &h, f.row(n))
	}
	poll(t, s)
	g := s.Segments()[0]
	if d := delta(t, g, "requests", 8*time.Second); d.Change.Int != 50 || d.Gaps != 3*time.Second || d.Seconds() != 8 || d.PerSecond() != 6.25 {
		t.Errorf("over a gap of 3 s and a stepped clock: want 50 in 8 s, got %+v", d)
	}
	// All rows are found by their own times.
	for _, c := range []struct {
		begin, end int64
		want       []uint64
	}{
		{segtest.Birth + 2e9, segtest.Birth + 7e9, []uint64{2, 3, 4}},
		{segtest.Birth - 3591e9 - 1e9, segtest.Birth - 3590e9, []uint64{6, 7}},
		{0, math.MaxInt64, []uint64{1, 2, 3, 4, 5, 6, 7}},
		{segtest.Birth + 9e9, segtest.Birth + 12e9, nil},
	} {
		var got []uint64
		for r := range g.Between(0, 0, c.begin, c.end) {
			got = append(got, r.No)
		}
		if len(got) != len(c.want) || len(got) > 0 && (got[0] != c.want[0] || got[len(got)-1] != c.want[len(got)-1]) {
			t.Errorf("between birth %+d s and %+d s: want rows %v, got %v", (c.begin-segtest.Birth)/1e9, (c.end-segtest.Birth)/1e9, c.want, got)
		}
	}
	// A new epoch: nothing is subtracted across it.
	f.Control(layout.CtlState, layout.StateLive|1<<32)
	for n := uint64(8); n < 11; n++ {
		h := layout.RowHeader{RowNo: n, BaseRow: n, TMono: segtest.BirthMono + int64(n+3)*1e9, T: segtest.Birth + int64(n+3)*1e9, TBegin: segtest.Birth + int64(n+2)*1e9, Epoch: 1}
		f.PublishRow(0, 0, &h, f.row(n-7)) // rewound
	}
	poll(t, s)
	if d := delta(t, g, "requests", 8*time.Second); d.Change.Int != 20 || d.Rows != 2 || d.From != segtest.Birth+11e9 {
		t.Errorf("over an epoch: want 20 in 2 rows since the first of the epoch, got %+v", d)
	}
	if g.Epoch() != 1 {
		t.Errorf("epoch: want 1, got %d", g.Epoch())
	}
}

func TestBetweenSteadyClock(t *testing.T) {
	dir := segtest.Store(t)
	ts := layout.TableSchema{Name: "t", Lanes: 1, Tiers: []layout.TierSchema{{Step: 1e9, Rows: 100}}}
	ts.Add(1, layout.Counter, 0)
	f := segtest.New(t, segtest.Options{Tables: []layout.TableSchema{ts}})
	f.Series(t, 0, "n", layout.Counter, layout.U64, layout.BucketRange{})
	// Ticks up to half a step early and late, and one long pause.
	for n := uint64(1); n <= 250; n++ {
		at := int64(n)*1e9 + int64(n%3-1)*4e8
		if n > 200 {
			at += 30e9
		}
		h := layout.RowHeader{RowNo: n, BaseRow: n, T: segtest.Birth + at, TMono: segtest.BirthMono + at, TBegin: segtest.Birth + at - 1e9}
		f.PublishRow(0, 0, &h, []uint64{n})
	}
	f.Close()
	f.Leave(t, dir)
	for _, o := range []reader.Options{{}, {NoMap: true}} {
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		for begin := int64(140e9); begin < 300e9; begin += 37e8 {
			for _, length := range []int64{0, 1e9, 5e9, 100e9} {
				end := begin + length
				want := map[uint64]bool{}
				for r := range g.Rows(0, 0, 0) {
					if at := r.Time - segtest.Birth; at >= begin && at <= end {
						want[r.No] = true
					}
				}
				got := 0
				for r := range g.Between(0, 0, segtest.Birth+begin, segtest.Birth+end) {
					if got++; !want[r.No] {
						t.Fatalf("%d to %d: row %d is not in it", begin, end, r.No)
					}
				}
				if got != len(want) {
					t.Fatalf("%d to %d: want %d rows, got %d", begin, end, len(want), got)
				}
			}
		}
	}
}

func TestQuantile(t *testing.T) {
	dir := segtest.Store(t)
	f := newFixture(t, segtest.Options{})
	row := make([]uint64, f.H.Tables[0].RowCells)
	h := row[f.size.RowCell:]
	// 10 at or below 1, 20 in (1,2], 0 in (2,4], 40 in (4,8], 0 in (8,16], 30 above.
	h[layout.HistZero], h[2], h[4], h[6] = 10, 20, 40, 30
	f.Publish(0, 0, 1, row)
	f.Birth(t, dir)
	s := open(t, dir, reader.Options{})
	poll(t, s)
	d := delta(t, s.Segments()[0], "size", time.Second)
	for _, c := range []struct{ q, want float64 }{
		{0, 0}, {0.05, 0.5}, {0.1, 1}, {0.2, math.Sqrt2}, {0.3, 2}, {0.5, 4 * math.Sqrt2}, {0.7, 8}, {0.9, 16}, {1, 16},
		{-0.1, math.Inf(-1)}, {1.1, math.Inf(1)},
	} {
		if got := d.Quantile(c.q); !(math.Abs(got-c.want) < 1e-12) && got != c.want {
			t.Errorf("quantile %g: want %g, got %g", c.q, c.want, got)
		}
	}
	if got := d.Quantile(math.NaN()); !math.IsNaN(got) {
		t.Errorf("quantile NaN: want NaN, got %g", got)
	}
	d = delta(t, s.Segments()[0], "requests", time.Second)
	if got := d.Quantile(0.5); !math.IsNaN(got) {
		t.Errorf("quantile of a counter: want NaN, got %g", got)
	}
}
