package layout

import (
	"math"
	"testing"
)

// f64 is added from lane 0 to the last, left to right: another order gives another last digit here.
func TestFoldLaneOrder(t *testing.T) {
	s := Series{Kind: Counter, Number: F64, RowCell: 1, LaneCell: 2}
	lanes := []float64{1e16, 1, 1, -1e16}
	cells := make([]uint64, 2)
	for k, v := range lanes {
		s.FoldLane(cells, []uint64{0, 0, math.Float64bits(v)}, k == 0, Windows{})
	}
	want := ((lanes[0] + lanes[1]) + lanes[2]) + lanes[3]
	if got := math.Float64frombits(cells[1]); got != want || got != 0 {
		t.Errorf("want %g, left to right, got %g (any other order: 1 or 2)", want, got)
	}
	// -0 is lane 0's value, not 0 + -0.
	s.FoldLane(cells, []uint64{0, 0, 1 << 63}, true, Windows{})
	if cells[1] != 1<<63 {
		t.Errorf("lane 0 alone: want its very bits, %#x, got %#x", uint64(1)<<63, cells[1])
	}
}

func TestFoldLaneWindows(t *testing.T) {
	f := math.Float64bits
	s := Series{Kind: Stat, Number: F64}
	lane := func(tag0 uint64, min0, max0 uint64, tag1 uint64, min1, max1 uint64) []uint64 {
		return []uint64{1, f(2), tag0, min0, max0, tag1, min1, max1}
	}
	for _, c := range []struct {
		what      string
		lanes     [][]uint64
		windows   Windows
		low, high uint64
	}{
		{"one window", [][]uint64{lane(6, f(1), f(2), 5, f(-9), f(9))}, Windows{6}, f(1), f(2)},
		{"two windows", [][]uint64{lane(6, f(1), f(2), 5, f(-9), f(9))}, Windows{6, 5}, f(-9), f(9)},
		{"two lanes", [][]uint64{lane(6, f(1), f(2), 0, 0, 0), lane(6, f(0.5), f(1.5), 0, 0, 0)}, Windows{6}, f(0.5), f(2)},
		{"an old window", [][]uint64{lane(4, f(1), f(2), 5, f(3), f(4))}, Windows{6}, UnsetF64, UnsetF64},
		{"an empty window", [][]uint64{lane(6, EmptyWindow(6), EmptyWindow(6), 0, 0, 0)}, Windows{6}, UnsetF64, UnsetF64},
		{"empty, then a value", [][]uint64{lane(6, EmptyWindow(6), EmptyWindow(6), 0, 0, 0), lane(6, f(3), f(3), 0, 0, 0)}, Windows{6}, f(3), f(3)},
		{"a tag of 0 is no row", [][]uint64{lane(0, f(1), f(2), 0, f(1), f(2))}, Windows{6}, UnsetF64, UnsetF64},
	} {
		cells := make([]uint64, 5)
		for k, l := range c.lanes {
			s.FoldLane(cells, l, k == 0, c.windows)
		}
		if cells[StatMin] != c.low || cells[StatMax] != c.high || cells[StatCount] != uint64(len(c.lanes)) {
			t.Errorf("%s: want %#x to %#x, count %d, got %#x to %#x, count %d", c.what, c.low, c.high, len(c.lanes), cells[StatMin], cells[StatMax], cells[StatCount])
		}
	}
}

// What never falls is held at what was published; what may fall is not.
func TestFinishCells(t *testing.T) {
	f := math.Float64bits
	for _, c := range []struct {
		what      string
		s         Series
		at        int
		now, want uint64
	}{
		{"f64 counter", Series{Kind: Counter, Number: F64}, 0, f(1), f(2)},
		{"u64 counter", Series{Kind: Counter, Number: U64}, 0, f(1), f(1)},
		{"stat", Series{Kind: Stat, Number: F64}, StatSum, f(1), f(1)},
		{"non-negative stat", Series{Kind: Stat, Number: F64, Flags: FlagNonNegative}, StatSum, f(1), f(2)},
		{"f64 histogram", Series{Kind: Histogram, Number: F64, Buckets: 2}, HistSum, f(1), f(2)},
		{"grown", Series{Kind: Counter, Number: F64}, 0, f(3), f(3)},
	} {
		cells, previous := make([]uint64, 8), make([]uint64, 8)
		cells[c.at], previous[c.at] = c.now, f(2)
		c.s.FinishCells(cells, []uint64{0}, previous)
		if cells[c.at] != c.want {
			t.Errorf("%s: want %#x, got %#x", c.what, c.want, cells[c.at])
		}
		cells[c.at] = c.now
		if c.s.FinishCells(cells, []uint64{0}, nil); cells[c.at] != c.now {
			t.Errorf("%s with no row before: want %#x as it is, got %#x", c.what, c.now, cells[c.at])
		}
	}
	g := Series{Kind: Gauge, Number: I64, RowCell: 1, SharedCell: 2}
	cells := make([]uint64, 2)
	if g.FinishCells(cells, []uint64{7, 8, 9}, nil); cells[1] != 9 {
		t.Errorf("gauge: want the shared cell, 9, got %d", cells[1])
	}
}
