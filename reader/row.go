package reader

import (
	"iter"
	"sync"

	"github.com/shmts/shmts/layout"
)

// Row is one table at one instant: a private copy, valid until the iteration
// that gave it goes on. FORMAT.md 8.1.
type Row struct {
	Table, Tier int
	No          uint64 // position in the tier since birth, from 1, dense
	Begin, Time int64  // unix ns: the window is (Begin, Time]
	Mono        int64  // mono ns
	BaseRow     uint64
	Epoch       uint16
	Final       bool // the writer closed with it
	Estimated   bool // made from the live cells of a dead writer: its last words

	cells []uint64
}

// Clone is a copy that stays.
func (r *Row) Clone() *Row {
	c := *r
	c.cells = append([]uint64(nil), r.cells...)
	return &c
}

// Size is how many bytes the row takes in the segment.
func (r *Row) Size() int { return layout.RowHeaderSize + 8*len(r.cells) }

func (r *Row) fill(table, tier int, h *layout.RowHeader, cells []uint64) {
	*r = Row{Table: table, Tier: tier, No: h.RowNo, Begin: h.TBegin, Time: h.T, Mono: h.TMono, BaseRow: h.BaseRow,
		Epoch: h.Epoch, Final: h.Flags&layout.RowFinal != 0, Estimated: h.Flags&layout.RowEstimated != 0, cells: cells}
}

// scratch is a row in the making and the memory for it, kept for the next iteration.
type scratch struct {
	row Row
	buf []uint64
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// scratchKeep bounds what is kept of a large one, in words.
const scratchKeep = 1 << 17

func takeScratch() *scratch { return scratches.Get().(*scratch) }

func (sc *scratch) give() {
	sc.row = Row{}
	if cap(sc.buf) > scratchKeep {
		sc.buf = nil
	}
	scratches.Put(sc)
}

func (sc *scratch) words(n int) []uint64 {
	if cap(sc.buf) < n {
		sc.buf = alignedWords(n)
	}
	return sc.buf[:n]
}

// Rows yields the rows of a tier numbered from and up, oldest first, those
// that are still there and valid, up to Head. The row is valid until the next one is asked for.
// After a writer's death its last words come as the last row, Estimated.
func (g *Segment) Rows(table, tier int, from uint64) iter.Seq[*Row] {
	return func(yield func(*Row) bool) { g.rows(table, tier, from, yield) }
}

func (g *Segment) rows(table, tier int, from uint64, yield func(*Row) bool) {
	head := g.Head(table, tier)
	if head == 0 {
		return
	}
	words := g.words.Load()
	last := head
	if words != nil {
		last-- // the last words are not in the file
	}
	if from = max(from, g.oldest(table, tier, last)); from <= last {
		var r ring
		if r.open(g, table, tier) != nil {
			return
		}
		ok := r.each(from, last, yield)
		r.done()
		if !ok {
			return
		}
	}
	if words != nil && from <= head {
		row := words.rows[table][tier]
		yield(&row)
	}
}

// oldest is the number of the oldest row that a ring still holds when last is its newest.
func (g *Segment) oldest(table, tier int, last uint64) uint64 {
	if n := uint64(g.h.Tables[table].Tier[tier].Rows); last > n {
		return last - n + 1
	}
	return 1
}

// row copies row n of a tier into sc; false if it is not there.
func (g *Segment) row(v *view, sc *scratch, table, tier int, n uint64) bool {
	if w := g.words.Load(); w != nil && n == w.rows[table][tier].No {
		sc.row = w.rows[table][tier]
		return true
	}
	t := &g.h.Tables[table]
	h, cells, verdict, err := v.row(&t.Tier[tier], g.h.RowIdentity(table, tier), n, sc.words(layout.RowWords+int(t.RowCells)))
	if err != nil || verdict != layout.RowOK {
		return false
	}
	sc.row.fill(table, tier, &h, cells)
	return true
}
