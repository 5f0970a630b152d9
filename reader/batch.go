package reader

import "slices"

// A Batch is copies of rows of one table, to be read series by series: who wants a column of a thousand rows' values has it
// here without asking each row whether it holds the series. It belongs to one goroutine; its memory is used again.
type Batch struct {
	rows  []batchRow
	words []uint64
}

type batchRow struct {
	base  uint64
	first int // of its cells in words
	cells int
}

// Reset empties the batch.
func (b *Batch) Reset() { b.rows, b.words = b.rows[:0], b.words[:0] }

// Add adds a copy of a row.
func (b *Batch) Add(r *Row) {
	b.rows = append(b.rows, batchRow{r.BaseRow, len(b.words), len(r.cells)})
	b.words = append(b.words, r.cells...)
}

// Len is how many rows there are.
func (b *Batch) Len() int { return len(b.rows) }

// Cap is how many words the batch's memory has.
func (b *Batch) Cap() int { return cap(b.words) }

// Holds tells whether row k holds the series: see Row.Words.
func (b *Batch) Holds(s *Series, k int) bool { return s.in(b.rows[k].base, b.rows[k].cells) }

// HoldAll tells whether all rows do.
func (b *Batch) HoldAll(s *Series) bool {
	last := int(s.rowCell) + s.cells()
	retired := ^uint64(0)
	if s.retiredRow != nil {
		if r := s.retiredRow.Load(); r != 0 {
			retired = r
		}
	}
	for i := range b.rows {
		r := &b.rows[i]
		if r.base < s.bornRow || r.base >= retired || last > r.cells {
			return false
		}
	}
	return true
}

// Column copies, of every row, width words of the series from its word first on, as Row.Words has them, to dst, which is
// Len x width long. The rows hold the series: those that don't get zeros.
func (b *Batch) Column(dst []uint64, s *Series, first, width int) {
	at := int(s.rowCell) + first
	if width == 1 {
		words := b.words
		for k := range b.rows {
			r := &b.rows[k]
			if at >= r.cells {
				dst[k] = 0
				continue
			}
			dst[k] = words[r.first+at]
		}
		return
	}
	for k, r := range b.rows {
		to := dst[k*width : (k+1)*width]
		if at+width > r.cells {
			clear(to)
			continue
		}
		copy(to, b.words[r.first+at:])
	}
}

// Grow makes room for so many rows of so many cells.
func (b *Batch) Grow(rows, cells int) {
	b.rows = slices.Grow(b.rows, rows)
	b.words = slices.Grow(b.words, rows*cells)
}
