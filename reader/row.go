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

// batchWords is how much of a ring one pread brings, at most and if it is more than a row.
const batchWords = 64 << 10 / 8

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
	t := &g.h.Tables[table]
	ring := &t.Tier[tier]
	from = max(from, 1)
	if n := uint64(ring.Rows); last > n {
		from = max(from, last-n+1)
	}
	if from <= last {
		v, err := g.win.use()
		if err != nil {
			return
		}
		ok := g.ringRows(&v, table, tier, from, last, yield)
		v.done()
		if !ok {
			return
		}
	}
	if words != nil && from <= head {
		row := words.rows[table][tier]
		yield(&row)
	}
}

// ringRows yields rows from to last; false if whoever asked has enough.
func (g *Segment) ringRows(v *view, table, tier int, from, last uint64, yield func(*Row) bool) bool {
	t := &g.h.Tables[table]
	ring := &t.Tier[tier]
	id := g.h.RowIdentity(table, tier)
	need, stride := layout.RowWords+int(t.RowCells), int(ring.RowStride/8)
	sc := takeScratch()
	defer sc.give()
	batch := 1
	if v.w.words == nil && stride < 2*need {
		batch = max(1, batchWords/stride)
	}
	for n := from; n <= last; {
		k := int(min(uint64(batch), last-n+1, uint64(ring.Rows)-ring.Slot(n)))
		if k == 1 {
			buf := sc.words(need)
			h, cells, verdict, err := v.row(ring, id, n, buf)
			switch {
			case err != nil:
				g.skippedRows.Add(1)
				return true // the file is not what it was: Refresh will say so
			case verdict == layout.RowOK:
				sc.row.fill(table, tier, &h, cells)
				if !yield(&sc.row) {
					return false
				}
			default:
				g.passOver(verdict)
			}
			n++
			continue
		}
		buf := sc.words((k-1)*stride + need)
		if err := pread(v.fd, layout.Bytes(buf), int64(ring.RowOffset(n))); err != nil {
			g.skippedRows.Add(1)
			return true
		}
		for i := range k {
			slot := buf[i*stride:][:need]
			h, cells, verdict := layout.DecodeRow(slot, id, n+uint64(i))
			if verdict == layout.RowBad { // torn by the copy, perhaps
				var err error
				if h, cells, verdict, err = v.row(ring, id, n+uint64(i), slot); err != nil {
					g.skippedRows.Add(1)
					return true
				}
			}
			if verdict != layout.RowOK {
				g.passOver(verdict)
				continue
			}
			sc.row.fill(table, tier, &h, cells)
			if !yield(&sc.row) {
				return false
			}
		}
		n += uint64(k)
	}
	return true
}

// passOver counts a row that is not served. One that was overwritten since is no loss of the format's: the ring went round.
func (g *Segment) passOver(v layout.Verdict) {
	if v != layout.RowOther {
		g.skippedRows.Add(1)
	}
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

// Between yields the rows of a tier whose Time lies in [begin, end], unix ns, oldest first. The row is
// valid until the next one is asked for.
func (g *Segment) Between(table, tier int, begin, end int64) iter.Seq[*Row] {
	return func(yield func(*Row) bool) { g.between(table, tier, begin, end, yield) }
}

func (g *Segment) between(table, tier int, begin, end int64, yield func(*Row) bool) {
	head := g.Head(table, tier)
	if head == 0 || begin > end {
		return
	}
	from, steady := g.firstAt(table, tier, head, begin)
	g.rows(table, tier, from, func(r *Row) bool {
		switch {
		case r.Time > end:
			return !steady // where the clock was stepped, an earlier time may follow
		case r.Time < begin:
			return true
		}
		return yield(r)
	})
}

// firstAt is a row at or before the first one of a tier that is not older than begin. Rows lie a step apart or more, so
// the newest tells how far back that can be; unless the wall clock was stepped in between, which the oldest
// row tells by its two clocks. Then it is all rows, and steady is false.
func (g *Segment) firstAt(table, tier int, head uint64, begin int64) (from uint64, steady bool) {
	ring := &g.h.Tables[table].Tier[tier]
	oldest := uint64(1)
	if n := uint64(ring.Rows); head > n {
		oldest = head - n + 1
	}
	v, err := g.win.use()
	if err != nil {
		return oldest, false
	}
	defer v.done()
	sc := takeScratch()
	defer sc.give()
	if !g.row(&v, sc, table, tier, head) {
		return oldest, false
	}
	newest, mono, step := sc.row.Time, sc.row.Mono, int64(ring.Step)
	found := false
	for n := oldest; n < min(oldest+tries, head) && !found; n++ { // the oldest may be overwritten right now
		found = g.row(&v, sc, table, tier, n)
	}
	if !found {
		return oldest, false
	}
	if d := (newest - sc.row.Time) - (mono - sc.row.Mono); d > step || d < -step {
		return oldest, false
	}
	if newest < begin {
		return head, true
	}
	back := uint64(newest-begin)/uint64(step) + 3
	if back >= head-oldest {
		return oldest, true
	}
	return head - back, true
}
