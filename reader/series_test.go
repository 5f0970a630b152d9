package reader_test

import (
	"fmt"
	"testing"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// A cell that is used again never shows another series' past, neither with the series listed now nor with
// one that a caller has kept.
func TestRetiredCells(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		dir := segtest.Store(t)
		f := newFixture(t, segtest.Options{})
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		old := g.Find("requests")
		for n := uint64(1); n <= 3; n++ {
			f.Publish(0, 0, n, f.row(n))
		}
		f.Retire(f.requests) // row 4 holds it, 5 does not
		f.Publish(0, 0, 4, f.row(4))
		ev := poll(t, s)
		if len(ev.Changed) != 1 || g.Find("requests") != nil {
			t.Fatalf("after retirement: want it changed, got %+v, %v", ev, g.Find("requests"))
		}
		retired := g.Series()[0]
		if !retired.Retired || retired.Name != "requests" || old.Retired {
			t.Errorf("want another series in its place, retired; got %+v, was %+v", retired, old)
		}
		f.Publish(0, 0, 5, f.row(5))
		f.Publish(0, 0, 6, f.row(6))
		next := layout.SeriesInfo{Name: "next", Index: 7, Series: f.requests.Series}
		next.RetiredRow, next.BornRow, next.BornUnix = 0, f.OpenRow(0), segtest.Birth+6e9
		strings, _ := next.AppendStrings(nil)
		next.Strings = uint32(f.H.Heap.Length) - uint32(len(strings))
		f.Place(t, &next, strings)
		f.Publish(0, 0, 7, f.row(7))
		if ev := poll(t, s); len(ev.Changed) != 1 {
			t.Fatalf("after reuse: want it changed, got %+v", ev)
		}
		now := g.Find("next")
		for r := range g.Rows(0, 0, 0) {
			for _, c := range []struct {
				s    *reader.Series
				want bool
			}{{old, r.No <= 4}, {retired, r.No <= 4}, {now, r.No >= 7}} {
				if _, got := r.Value(c.s); got != c.want {
					t.Errorf("row %d: value of %s: want %v, got %v", r.No, c.s.Name, c.want, got)
				}
			}
		}
		if d, err := g.Delta(now, 5e9); err != nil || d.From != segtest.Birth+6e9 || d.Change.Int != 70 || d.First.Kind != 0 {
			t.Errorf("delta of a series born inside: want 70 since its registration, got %+v, %v", d, err)
		}
		if d, err := g.Delta(retired, 2e9); err != nil || d.To != segtest.Birth+4e9 || d.Change.Int != 20 {
			t.Errorf("delta of a retired series: want 20 up to row 4, got %+v, %v", d, err)
		}
	})
}

// What is retired after the heads were read may not be read by them.
func TestRowsEndAtTheHeadOfTheRefresh(t *testing.T) {
	dir := segtest.Store(t)
	f := newFixture(t, segtest.Options{})
	f.Birth(t, dir)
	s := open(t, dir, reader.Options{})
	f.Publish(0, 0, 1, f.row(1))
	g := poll(t, s).New[0]
	f.Publish(0, 0, 2, f.row(2))
	if r := last(t, g, 0); r.No != 1 || g.Head(0, 0) != 1 {
		t.Errorf("before the next poll: want row 1, got %d", r.No)
	}
	poll(t, s)
	if r := last(t, g, 0); r.No != 2 {
		t.Errorf("after it: want row 2, got %d", r.No)
	}
}

// Descriptors are read again when something changed, and only then.
func TestManySeries(t *testing.T) {
	backings(t, func(t *testing.T, o reader.Options) {
		const n = 1500 // three chunks
		dir := segtest.Store(t)
		ts := layout.TableSchema{Name: "t", Lanes: 1, Tiers: []layout.TierSchema{{Step: 1e9, Rows: 4}}}
		ts.Add(n, layout.Counter, 0)
		f := segtest.New(t, segtest.Options{Tables: []layout.TableSchema{ts}, Series: n, HeapBytes: 1 << 20})
		add := func(to int) {
			for i := len(names(f)); i < to; i++ {
				info := f.Series(t, 0, fmt.Sprintf("series_%d_%0200d", i, i), layout.Counter, layout.U64, layout.BucketRange{},
					layout.Pair{Name: "i", Value: fmt.Sprint(i)})
				counts[f] = append(counts[f], info.Name)
			}
		}
		defer delete(counts, f)
		add(700)
		f.Birth(t, dir)
		s := open(t, dir, o)
		g := poll(t, s).New[0]
		if len(g.Series()) != 700 {
			t.Fatalf("want 700 series, got %d", len(g.Series()))
		}
		before := g.Series()
		add(n)
		if ev := poll(t, s); len(ev.Changed) != 1 {
			t.Fatalf("want it changed, got %+v", ev)
		}
		for i, x := range g.Series() {
			if x.Name != names(f)[i] || x.Labels[0].Value != fmt.Sprint(i) {
				t.Fatalf("series %d: got %+v", i, x)
			}
			if i < len(before) && before[i] != x {
				t.Fatalf("series %d: want the same as before", i)
			}
		}
		if ev := poll(t, s); len(ev.Changed) != 0 {
			t.Errorf("nothing changed: got %+v", ev)
		}
	})
}

var counts = map[*segtest.Segment][]string{}

func names(f *segtest.Segment) []string { return counts[f] }

// Many descriptors over the same strings cost the reader no more than its budget.
func TestLabelBomb(t *testing.T) {
	const n = 5000
	dir := segtest.Store(t)
	ts := layout.TableSchema{Name: "t", Lanes: 1, Tiers: []layout.TierSchema{{Step: 1e9, Rows: 2}}}
	ts.Add(n, layout.Counter, 0)
	f := segtest.New(t, segtest.Options{Tables: []layout.TableSchema{ts}, Series: n, HeapBytes: 1 << 20})
	info := layout.SeriesInfo{Name: "bomb"}
	info.Kind, info.Number = layout.Counter, layout.U64
	for i := range 63 {
		info.Labels = append(info.Labels, layout.Pair{Name: fmt.Sprintf("l%02d", i), Value: fmt.Sprintf("%01000d", i)})
	}
	strings, err := info.AppendStrings(nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		info.Index, info.RowCell, info.LaneCell = i, uint32(i), uint32(i)
		f.Place(t, &info, strings)
	}
	f.Birth(t, dir)
	s := open(t, dir, reader.Options{SeriesBytes: 1 << 20})
	g := poll(t, s).New[0]
	if got := len(g.Series()); got < 10 || got > 20 {
		t.Errorf("series of 65 kB in a budget of 1 MiB: want about 15, got %d", got)
	}
	if c := g.Counters(); c.SkippedSeries != uint64(n-len(g.Series())) {
		t.Errorf("want the other %d counted as skipped, got %+v", n-len(g.Series()), c)
	}
}
