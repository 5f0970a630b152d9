package reader

import (
	"math"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/shmts/shmts/layout"
)

func TestWords(t *testing.T) {
	row := &Row{Table: 1, BaseRow: 10, cells: []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, layout.UnsetF64}}
	for _, c := range []struct {
		name string
		s    Series
		want []uint64
	}{
		{"counter", Series{Definition: &Definition{Kind: Counter, Number: U64, Table: 1}, rowCell: 2}, []uint64{3}},
		{"gauge never set", Series{Definition: &Definition{Kind: Gauge, Number: F64, Table: 1}, rowCell: 10}, []uint64{F64.Unset()}},
		{"stat", Series{Definition: &Definition{Kind: Stat, Number: F64, Table: 1}, rowCell: 1}, []uint64{2, 3, 4, 5, 6}},
		{"histogram", Series{Definition: &Definition{Kind: Histogram, Number: U64, Table: 1, Buckets: BucketRange{Count: 3}}, rowCell: 4}, []uint64{5, 6, 7, 8, 9, 10}},
		{"of another table", Series{Definition: &Definition{Kind: Counter, Number: U64}}, nil},
		{"not born", Series{Definition: &Definition{Kind: Counter, Number: U64, Table: 1}, bornRow: 11}, nil},
		{"beyond the row", Series{Definition: &Definition{Kind: Counter, Number: U64, Table: 1}, rowCell: 11}, nil},
	} {
		got, ok := row.Words(&c.s)
		if ok != (c.want != nil) || !slices.Equal(got, c.want) || cap(got) != len(got) {
			t.Errorf("%s: want %v, got %v, %v", c.name, c.want, got, ok)
		}
		if _, value := row.Value(&c.s); value != ok {
			t.Errorf("%s: want Value to say the same as Words, %v, got %v", c.name, ok, value)
		}
	}
}

func TestHolds(t *testing.T) {
	s := Series{Definition: &Definition{}, bornRow: 5}
	for _, c := range []struct {
		first, last uint64
		want        bool
	}{{1, 4, false}, {1, 5, true}, {9, math.MaxUint64, true}} {
		if got := s.Holds(c.first, c.last); got != c.want {
			t.Errorf("rows %d to %d: want %v, got %v", c.first, c.last, c.want, got)
		}
	}
	s.retiredRow = new(atomic.Uint64)
	s.retiredRow.Store(8)
	if !s.Holds(7, 9) || s.Holds(8, 9) {
		t.Errorf("retired at row 8: want 7 to 9 held and 8 to 9 not, got %v and %v", s.Holds(7, 9), s.Holds(8, 9))
	}
}
