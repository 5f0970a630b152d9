package layout

import (
	"encoding/binary"
	"sync/atomic"
)

// Both halves of the row seqlock stand in this file, so that their barriers
// are read in pairs. FORMAT.md 8 and 10.3.

// Slot is the number of the slot of row rowNo in a ring.
func (t *Tier) Slot(rowNo uint64) uint64 { return rowNo % uint64(t.Rows) }

// RowOffset is the byte offset of the slot of row rowNo.
func (t *Tier) RowOffset(rowNo uint64) uint64 {
	return t.Offset + t.Slot(rowNo)*uint64(t.RowStride)
}

// RowIdentity is what a row's checksum is seeded with, so that a row of
// another segment, table or tier is never taken for one of this.
type RowIdentity struct {
	id0, id1 uint64
	seed     uint64
}

// RowIdentity of a tier of a table of the segment.
func (s *Superblock) RowIdentity(table, tier int) RowIdentity {
	le := binary.LittleEndian
	return RowIdentity{le.Uint64(s.SegmentID[:8]), le.Uint64(s.SegmentID[8:]), rowSeed(table, tier)}
}

func (h *RowHeader) word6() uint64 {
	return uint64(h.Cells) | uint64(h.Epoch)<<32 | uint64(h.Flags)<<48
}

func (r *RowIdentity) sum(h *RowHeader, cells []uint64) uint64 {
	s := NewSummer(r.seed)
	s.Add(r.id0, r.id1, h.RowNo, uint64(h.TBegin))
	s.Add(uint64(h.T), uint64(h.TMono), h.BaseRow, h.word6())
	return s.Finish(cells)
}

// PublishRow is the writer's half: it stores header and cells into a slot, so
// that a reader at any instant sees the whole row or knows that it does not.
// h.Cells and h.Checksum are filled in. slot holds at least RowWords +
// len(cells) words. One publisher at a time; it never waits and allocates nothing.
func PublishRow(slot []uint64, id RowIdentity, h *RowHeader, cells []uint64) {
	h.Cells = uint32(len(cells))
	h.Checksum = id.sum(h, cells)
	seq := atomic.LoadUint64(&slot[rowSeq]) &^ 1 // heals a row whose last owner died inside
	h.Seq = seq + 2
	atomic.StoreUint64(&slot[rowSeq], seq+1)
	head := [RowWords - 1]uint64{h.RowNo, uint64(h.TBegin), uint64(h.T), uint64(h.TMono), h.BaseRow, h.word6(), h.Checksum}
	storeWords(slot[rowNo:RowWords], head[:])
	storeWords(slot[RowWords:RowWords+len(cells)], cells)
	atomic.StoreUint64(&slot[rowSeq], seq+2)
}

// Verdict is what became of an attempt to read a row.
type Verdict int

// The verdicts.
const (
	RowOK    Verdict = iota
	RowOther         // the slot holds another row: not yet written, or overwritten
	RowBusy          // the writer is inside, or died inside
	RowBad           // the checksum or the cell count is wrong
)

// String names the verdict.
func (v Verdict) String() string {
	return [...]string{"ok", "other row", "busy", "bad"}[v]
}

// copyTries bounds the seqlock reader: a writer killed inside a row leaves
// seq odd for ever, and one in a tight loop could starve it.
const copyTries = 3

// CopyRow is the reader's half, for rows read in place, where the writer may
// be at work: it copies row want out of slot into dst and proves the copy.
// Words are loaded atomically, one by one; a plain copy is a data race even
// though a torn result is thrown away. slot holds RowWords and the table's RowCells
// words, dst has room for the latter: both bound the cell count (FORMAT.md 8.2). The
// cells answered are a part of dst.
func CopyRow(slot []uint64, id RowIdentity, want uint64, dst []uint64) (h RowHeader, cells []uint64, v Verdict) {
	for range copyTries {
		seq := atomic.LoadUint64(&slot[rowSeq])
		if seq&1 != 0 {
			v = RowBusy
			continue
		}
		h, cells, v = copyRow(slot, id, want, dst)
		if atomic.LoadUint64(&slot[rowSeq]) == seq {
			return h, cells, v
		}
		v = RowBusy
	}
	return RowHeader{}, nil, v
}

// DecodeRow proves row want in slot, a private copy of RowWords and the table's
// RowCells words (the latter bound the cell count, FORMAT.md 8.2): there the checksum
// alone decides. The cells answered are a part of slot.
func DecodeRow(slot []uint64, id RowIdentity, want uint64) (h RowHeader, cells []uint64, v Verdict) {
	h = *View[RowHeader](slot, 0)
	switch {
	case h.RowNo != want || want == 0:
		return RowHeader{}, nil, RowOther
	case uint64(h.Cells) > uint64(len(slot)-RowWords):
		return RowHeader{}, nil, RowBad
	}
	cells = slot[RowWords : RowWords+int(h.Cells)]
	if id.sum(&h, cells) != h.Checksum {
		return RowHeader{}, nil, RowBad
	}
	return h, cells, RowOK
}

func copyRow(slot []uint64, id RowIdentity, want uint64, dst []uint64) (RowHeader, []uint64, Verdict) {
	var head [RowWords]uint64
	for i := range head {
		head[i] = atomic.LoadUint64(&slot[i])
	}
	h := *View[RowHeader](head[:], 0)
	switch {
	case h.RowNo != want || want == 0:
		return RowHeader{}, nil, RowOther
	case uint64(h.Cells) > uint64(len(dst)) || uint64(h.Cells) > uint64(len(slot)-RowWords):
		return RowHeader{}, nil, RowBad
	}
	cells := dst[:h.Cells]
	src := slot[RowWords : RowWords+len(cells)]
	for i := range cells {
		cells[i] = atomic.LoadUint64(&src[i])
	}
	if id.sum(&h, cells) != h.Checksum {
		return RowHeader{}, nil, RowBad
	}
	return h, cells, RowOK
}
