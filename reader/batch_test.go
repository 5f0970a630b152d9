package reader

import (
	"slices"
	"sync/atomic"
	"testing"
)

// A batch says of each row what the row itself says.
func TestBatch(t *testing.T) {
	rows := []*Row{
		{Table: 1, BaseRow: 3, cells: []uint64{1, 2, 3}},
		{Table: 1, BaseRow: 4, cells: []uint64{11, 12, 13, 14, 15, 16, 17, 18}},
		{Table: 1, BaseRow: 5, cells: []uint64{21, 22, 23, 24, 25, 26, 27, 28}},
	}
	retired := new(atomic.Uint64)
	retired.Store(5)
	var b Batch
	b.Add(&Row{cells: []uint64{9}})
	b.Reset()
	b.Grow(len(rows), 8)
	for _, r := range rows {
		b.Add(r)
	}
	for _, s := range []*Series{
		{Definition: &Definition{Kind: Counter, Number: U64, Table: 1}},
		{Definition: &Definition{Kind: Counter, Number: U64, Table: 1}, bornRow: 4},
		{Definition: &Definition{Kind: Gauge, Number: F64, Table: 1}, rowCell: 2, retiredRow: retired},
		{Definition: &Definition{Kind: Stat, Number: F64, Table: 1}, rowCell: 3},
		{Definition: &Definition{Kind: Histogram, Number: U64, Table: 1, Buckets: BucketRange{Count: 4}}, rowCell: 1, retiredRow: new(atomic.Uint64)},
	} {
		n, all := s.cells(), true
		whole := make([]uint64, b.Len()*n)
		b.Column(whole, s, 0, n)
		for k, r := range rows {
			want, ok := r.Words(s)
			all = all && ok
			if b.Holds(s, k) != ok {
				t.Errorf("%v, row %d: want held %v, got %v", s.Kind, k, ok, !ok)
			}
			if ok && !slices.Equal(whole[k*n:(k+1)*n], want) {
				t.Errorf("%v, row %d: want %v, got %v", s.Kind, k, want, whole[k*n:(k+1)*n])
			}
			for w := range n {
				column := make([]uint64, b.Len())
				if b.Column(column, s, w, 1); ok && column[k] != want[w] {
					t.Errorf("%v, row %d, word %d: want %d, got %d", s.Kind, k, w, want[w], column[k])
				}
			}
		}
		if b.HoldAll(s) != all {
			t.Errorf("%v: want all rows to hold it: %v, got %v", s.Kind, all, !all)
		}
	}
}
