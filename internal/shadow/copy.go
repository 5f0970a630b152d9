package shadow

import (
	"slices"
	"sync/atomic"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// sync copies the descriptors that are new, or retired since, from a segment into its shadow, and makes the runs anew. A
// descriptor of a sampled segment is used once: open_row stands still there (FORMAT.md 10.8).
func (k *Keeper) sync(s *shadow, g *reader.Segment) error {
	h := g.Header()
	used := min(uint32(k.ctl[layout.CtlUsed]), h.Series.Count)
	stride := int(h.Series.ElementSize / 8)
	n, words := int(used)*stride, (int(h.Heap.Length)+7)/8 // the heap is followed by other sections, or by the padding to a page
	k.lanes = grow(k.lanes, 2*n+words)
	before, after, heap := k.lanes[:n], k.lanes[n:2*n], k.lanes[2*n:]
	if err := g.Copy(before, h.Series.Offset); err != nil {
		return err
	}
	if err := g.Copy(heap, h.Heap.Offset); err != nil {
		return err
	}
	if err := g.Copy(after, h.Series.Offset); err != nil {
		return err
	}
	k.count(s, Budget{Series: -s.used.Series, LabelBytes: -s.used.LabelBytes}) // those that are there are counted below
	heapUsed := uint32(0)
	var cells [layout.MaxTables]layout.Cells
	for i := range s.tables {
		s.tables[i].runs, s.tables[i].cells = s.tables[i].runs[:0], 0
	}
	for i := range int(used) {
		d := *layout.View[layout.Series](before, uint64(i*stride*8))
		own := s.descriptor(i)
		if life := d.Life(); uint32(after[i*stride]) != d.State || life != layout.SeriesLive && life != layout.SeriesRetired || d.Check(h, i) != nil {
			// Being filled just now, or broken. One that was good once goes on as it is.
			if own.Life() < layout.SeriesLive {
				continue
			}
			d = own
		}
		if own.Life() >= layout.SeriesLive && own.Check(s.h, i) != nil {
			continue
		}
		t := &s.tables[d.Table]
		if own.Life() < layout.SeriesLive {
			strings := layout.Bytes(heap)[d.Strings:][:d.StringsLength()]
			if _, err := d.CutStrings(strings, i); err != nil {
				continue
			}
			if !k.room(s, int64(len(strings))) {
				k.stats.Skipped++
				continue
			}
			info := layout.SeriesInfo{Series: d, Index: i}
			info.State = layout.NewState(d.Generation(), layout.SeriesFilling)
			info.BornRow, info.RetiredRow = t.row+1, 0
			layout.StoreSeries(s.words, s.h, &info, strings)
			own = s.descriptor(i)
		}
		if own.Generation() != d.Generation() || !sameCells(&own, &d) {
			continue // it was taken for another series, which a writer of such a segment never does
		}
		if d.Life() == layout.SeriesRetired && own.Life() == layout.SeriesLive {
			layout.RetireSeries(s.words, s.h, i, t.row+2)
		}
		k.count(s, Budget{Series: 1, LabelBytes: int64(own.StringsLength())})
		heapUsed = max(heapUsed, own.Strings+uint32(own.StringsLength()))
		c := own.Kind.Cells(int(own.Buckets))
		at := &cells[own.Table]
		at.Row = max(at.Row, int(own.RowCell)+c.Row)
		if c.Lane > 0 {
			at.Lane = max(at.Lane, int(own.LaneCell)+c.Lane)
		}
		if c.Shared > 0 {
			at.Shared = max(at.Shared, int(own.SharedCell)+c.Shared)
		}
		t.add(&own)
	}
	ctl := s.h.Control.Offset / 8
	atomic.StoreUint64(&s.words[ctl+layout.CtlUsed], uint64(used)|uint64(heapUsed)<<32)
	for i := range s.tables {
		t, at := &s.tables[i], ctl+uint64(layout.CtlTables+i*layout.TctlWords)
		t.cells, t.runs = cells[i].Row, slices.Clip(t.runs)
		atomic.StoreUint64(&s.words[at+layout.TctlCellsUsed], uint64(cells[i].Row)|uint64(cells[i].Lane)<<32)
		atomic.StoreUint64(&s.words[at+layout.TctlSharedUsed], uint64(cells[i].Shared))
	}
	return nil
}

// descriptor is the shadow's own.
func (s *shadow) descriptor(i int) layout.Series {
	return *layout.View[layout.Series](s.words, s.h.Series.Offset+uint64(i)*uint64(s.h.Series.ElementSize))
}

// sameCells tells whether two descriptors mean the same cells, so that rows of the one are rows of the other.
func sameCells(a, b *layout.Series) bool {
	return a.Kind == b.Kind && a.Number == b.Number && a.Flags == b.Flags && a.Table == b.Table && a.Buckets == b.Buckets &&
		a.RowCell == b.RowCell && a.LaneCell == b.LaneCell && a.SharedCell == b.SharedCell
}

// add puts a series into the run before it, if it goes on with that, or begins one.
func (t *table) add(d *layout.Series) {
	if n := len(t.runs); n > 0 {
		r := &t.runs[n-1]
		c := r.Kind.Cells(int(r.Buckets))
		if r.Kind == d.Kind && r.Number == d.Number && r.Flags == d.Flags && r.Buckets == d.Buckets &&
			r.RowCell+uint32(r.n*c.Row) == d.RowCell && (c.Lane == 0 || r.LaneCell+uint32(r.n*c.Lane) == d.LaneCell) &&
			(c.Shared == 0 || r.SharedCell+uint32(r.n*c.Shared) == d.SharedCell) {
			r.n++
			return
		}
	}
	t.runs = append(t.runs, run{*d, 1})
}
