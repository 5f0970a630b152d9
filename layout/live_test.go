package layout

import (
	"math"
	"reflect"
	"testing"
)

// foldAll makes a row of one series from its lanes, as a reader of live cells does.
func foldAll(s *Series, lanes [][]uint64, shared, previous []uint64, windows Windows) []uint64 {
	cells := make([]uint64, int(s.RowCell)+s.Kind.Cells(int(s.Buckets)).Row)
	for k, lane := range lanes {
		s.FoldLane(cells, lane, k == 0, windows)
	}
	s.FinishCells(cells, shared, previous)
	return cells[s.RowCell:]
}

func f(v float64) uint64 { return math.Float64bits(v) }

func TestLiveCells(t *testing.T) {
	counter := Series{Kind: Counter, Number: F64, RowCell: 2, LaneCell: 1}
	order := [][]uint64{{0, f(0.1)}, {0, f(0.2)}, {0, f(0.3)}}
	ordered := 0.0
	for _, v := range []float64{0.1, 0.2, 0.3} { // at run time: constants would be added exactly
		ordered += v
	}
	stat := Series{Kind: Stat, Number: F64, RowCell: 1, LaneCell: 0, SharedCell: 1}
	window := func(count uint64, sum float64, cells ...uint64) []uint64 { return append([]uint64{count, f(sum)}, cells...) }
	// Row 6 is in slot 0, row 5 in slot 1.
	statLanes := [][]uint64{
		window(1, 1, 6, f(3), f(4), 5, f(-9), f(9)),
		window(2, 2, 4, f(-100), f(100), 3, f(-100), f(100)), // windows of rows long gone
		window(3, 3, 6, EmptyWindow(6), EmptyWindow(6), 5, EmptyWindow(5), EmptyWindow(5)),
	}
	hist := Series{Kind: Histogram, Number: U64, Buckets: 2}
	for _, c := range []struct {
		what             string
		s                Series
		lanes            [][]uint64
		shared, previous []uint64
		windows          Windows
		want             []uint64
	}{
		{"f64 counter, in order", counter, order, nil, nil, Windows{}, []uint64{f(ordered)}},
		{"f64 counter, never falls", counter, order, nil, []uint64{0, 0, f(7)}, Windows{}, []uint64{f(7)}},
		{"f64 counter, -0 alone stays", counter, [][]uint64{{0, 1 << 63}}, nil, nil, Windows{}, []uint64{1 << 63}},
		{"u64 counter, modulo 2^64", Series{Kind: Counter, Number: U64}, [][]uint64{{1<<64 - 1}, {3}}, nil, nil, Windows{}, []uint64{2}},
		{"updown falls", Series{Kind: UpDown, Number: I64}, [][]uint64{{5}, {1<<64 - 9}}, nil, []uint64{77}, Windows{}, []uint64{1<<64 - 4}},
		{"gauge", Series{Kind: Gauge, Number: F64, SharedCell: 1}, [][]uint64{{1}}, []uint64{0, UnsetF64}, nil, Windows{}, []uint64{UnsetF64}},
		{"stat, one window", stat, statLanes, []uint64{0, f(8)}, nil, Windows{6}, []uint64{6, f(6), f(8), f(3), f(4)}},
		{"stat, two windows", stat, statLanes, []uint64{0, f(8)}, nil, Windows{6, 5}, []uint64{6, f(6), f(8), f(-9), f(9)}},
		{"stat, no window", stat, statLanes, []uint64{0, UnsetF64}, nil, Windows{8}, []uint64{6, f(6), UnsetF64, UnsetF64, UnsetF64}},
		{"stat, sum falls", stat, statLanes, []uint64{0, 0}, []uint64{0, 0, f(99), 0, 0, 0}, Windows{8}, []uint64{6, f(6), 0, UnsetF64, UnsetF64}},
		{"histogram", hist, [][]uint64{{10, 1, 2, 3, 4}, {20, 5, 6, 7, 8}}, nil, []uint64{99, 0, 0, 0, 0}, Windows{}, []uint64{30, 6, 8, 10, 12}},
	} {
		if got := foldAll(&c.s, c.lanes, c.shared, c.previous, c.windows); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: want %x, got %x", c.what, c.want, got)
		}
	}
	stat.Flags = FlagNonNegative
	if got := foldAll(&stat, statLanes, []uint64{0, 0}, []uint64{0, 0, f(99), 0, 0, 0}, Windows{8}); got[StatSum] != f(99) {
		t.Errorf("a non-negative stat's sum: want 99, got %x", got[StatSum])
	}
}

func TestFoldRow(t *testing.T) {
	s := Series{Kind: Stat, Number: F64, RowCell: 1}
	cells := []uint64{7, 1, f(1), f(1), UnsetF64, UnsetF64}
	for _, other := range [][]uint64{
		{9, 1, f(1), f(1), UnsetF64, UnsetF64},
		{9, 1, f(1), f(1), f(2), f(3)},
		{9, 1, f(1), f(1), f(-1), f(2.5)},
	} {
		s.FoldRow(cells, other)
	}
	if want := []uint64{7, 1, f(1), f(1), f(-1), f(3)}; !reflect.DeepEqual(cells, want) {
		t.Errorf("want %x, got %x", want, cells)
	}
	c := Series{Kind: Counter, Number: U64}
	c.FoldRow(cells, []uint64{1000})
	if cells[0] != 7 {
		t.Error("only a stat has what is folded")
	}
}

func TestEmptyWindow(t *testing.T) {
	for _, row := range []uint64{1, 2, 1<<51 - 1, 1 << 51, 1<<64 - 1} {
		w := EmptyWindow(row)
		if !math.IsNaN(math.Float64frombits(w)) || w == UnsetF64 || w>>63 != 0 {
			t.Errorf("row %d: %#x", row, w)
		}
		if EmptyWindow(row+1) == w || EmptyWindow(row+2) == w {
			t.Errorf("row %d: the next windows have the same pattern", row)
		}
	}
}
