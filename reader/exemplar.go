package reader

import (
	"cmp"
	"iter"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shmts/shmts/layout"
)

// An Exemplar is one recorded value with the trace that it belongs to. FORMAT.md 8.4.
type Exemplar struct {
	Number  uint64 // position among the segment's exemplars, from 1; those that were not stored, or are gone, leave gaps
	Series  *Series
	Value   float64 // of a histogram what was observed, of a counter the amount that was added (of a bucket's, le, what was observed)
	Time    int64   // unix ns
	TraceID [16]byte
	SpanID  [8]byte // zeros: none
}

// exemplars is what is known of a segment's ring of them.
type exemplars struct {
	head    atomic.Uint64 // the newest number, as of the last refresh
	settled atomic.Uint64 // as of the refresh before: what is not there by now is not awaited any more

	mu      sync.Mutex
	judged  uint64 // numbers up to it are counted, if they are to be
	skipped atomic.Uint64
}

// observe takes over the number that a refresh found.
func (x *exemplars) observe(head uint64, ended bool) {
	if head >= maxRowNo {
		head = 0 // nonsense
	}
	if ended {
		set(&x.settled, head)
	} else {
		set(&x.settled, min(x.head.Load(), head))
	}
	set(&x.head, head)
}

// skip counts exemplar n, once however often it is asked for.
func (x *exemplars) skip(n uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if n > x.judged {
		x.judged = n
		x.skipped.Add(1)
	}
}

// ExemplarHead is the number of the newest exemplar as of the last Refresh or Poll, 0 if there is none: it costs nothing,
// for who polls. That one may not be stored, or not yet.
func (g *Segment) ExemplarHead() uint64 { return g.exemplars.head.Load() }

// Exemplars yields those numbered from and up that are still there and whole, in the order of their numbers, up to
// ExemplarHead. They are the caller's to keep. Who goes on with the number after the last one that was yielded misses none that could
// still be had: a number that may just be being written ends the iteration, and is passed over when it is not there once another
// Refresh or Poll has gone by, or the writer has ended. Exemplars that break FORMAT.md 8.4 are passed over, and counted as SkippedExemplars.
func (g *Segment) Exemplars(from uint64) iter.Seq[*Exemplar] { return g.ExemplarsAs(g, from) }

// ExemplarsAs yields the segment's exemplars with the series of another one, as Exemplars does: of a sampled segment with those of its
// shadow, whose descriptors are the same ones. FORMAT.md 10.8.
func (g *Segment) ExemplarsAs(shadow *Segment, from uint64) iter.Seq[*Exemplar] {
	return func(yield func(*Exemplar) bool) {
		count, head := uint64(g.h.Exemplars.Count), g.exemplars.head.Load()
		settled := min(g.exemplars.settled.Load(), head)
		if count == 0 || head == 0 {
			return
		}
		if from = max(from, 1); head > count {
			from = max(from, head-count+1)
		}
		if from > head {
			return
		}
		v, err := g.win.use()
		if err != nil {
			return
		}
		defer v.done()
		sc := takeScratch()
		defer sc.give()
		r := exemplarRing{g: g, v: &v, id: g.h.ExemplarIdentity()}
		if err := r.load(sc, from, head); err != nil {
			return // the file is not what it was: Refresh will say so
		}
		series := shadow.Series()
		for n := from; n <= head; n++ {
			x, verdict, err := r.exemplar(n)
			switch {
			case err != nil:
				return
			case verdict == layout.ExemplarAwaited && n > settled:
				return
			case verdict == layout.ExemplarAwaited || verdict == layout.ExemplarGone:
				continue
			}
			s := seriesOf(series, &x)
			if verdict != layout.ExemplarOK || s == nil || x.TraceID == [16]byte{} {
				g.exemplars.skip(n)
				continue
			}
			if !yield(&Exemplar{Number: n, Series: s, Value: x.Value, Time: x.T, TraceID: x.TraceID, SpanID: x.SpanID}) {
				return
			}
		}
	}
}

// seriesOf finds the series that an exemplar is of; nil if there is none, or none that may have any. list is in the order of descriptors.
func seriesOf(list []*Series, x *layout.Exemplar) *Series {
	i, ok := slices.BinarySearchFunc(list, x.Series, func(s *Series, index uint32) int { return cmp.Compare(s.index, index) })
	if !ok || list[i].state>>8 != x.Generation || list[i].Kind != Counter && list[i].Kind != Histogram {
		return nil
	}
	return list[i]
}

// exemplarRing reads slots of the ring, for one goroutine: in place where they are mapped, else those that lie side by side with one call.
type exemplarRing struct {
	g     *Segment
	v     *view
	id    layout.ExemplarIdentity
	first uint64 // exemplars first and up, as far as words go, were copied, side by side
	words []uint64
}

// load copies the slots of exemplars from to head, at most as many as there are slots, if they are to be read with pread. Nothing is proven yet.
func (r *exemplarRing) load(sc *scratch, from, head uint64) error {
	h := r.g.h
	if r.v.w.words != nil || h.Exemplars.ElementSize != layout.ExemplarSize {
		return nil
	}
	n := head - from + 1
	words := sc.words(int(n) * layout.ExemplarWords)
	side := min(n, uint64(h.Exemplars.Count)-h.ExemplarSlot(from)) // that many lie side by side
	if err := r.v.copy(words[:side*layout.ExemplarWords], h.ExemplarOffset(from)); err != nil {
		return err
	}
	if err := r.v.copy(words[side*layout.ExemplarWords:], h.Exemplars.Offset); err != nil {
		return err
	}
	r.first, r.words = from, words
	return nil
}

func (r *exemplarRing) exemplar(n uint64) (layout.Exemplar, layout.ExemplarVerdict, error) {
	off := r.g.h.ExemplarOffset(n)
	if r.v.w.words != nil {
		return exemplarMapped(r.v.w.words[off/8:][:layout.ExemplarWords], r.id, n)
	}
	verdict := layout.ExemplarBad
	if at := (n - r.first) * layout.ExemplarWords; at < uint64(len(r.words)) {
		var x layout.Exemplar
		if x, verdict = layout.DecodeExemplar(r.words[at:][:layout.ExemplarWords], r.id, n); verdict != layout.ExemplarBad {
			return x, verdict, nil
		}
	}
	// Not read yet, or torn by the copy, perhaps.
	var slot [512]uint64 // as alignedWords has it
	for range tries {
		if err := r.v.copy(slot[:layout.ExemplarWords], off); err != nil {
			return layout.Exemplar{}, verdict, err
		}
		var x layout.Exemplar
		if x, verdict = layout.DecodeExemplar(slot[:layout.ExemplarWords], r.id, n); verdict != layout.ExemplarBad {
			return x, verdict, nil
		}
	}
	return layout.Exemplar{}, verdict, nil
}

// exemplarMapped is as rowMapped is: nothing but loads.
func exemplarMapped(slot []uint64, id layout.ExemplarIdentity, n uint64) (x layout.Exemplar, verdict layout.ExemplarVerdict, err error) {
	defer func(old bool) {
		if err = caught(old, recover(), err); err != nil {
			x, verdict = layout.Exemplar{}, layout.ExemplarBad
		}
	}(debug.SetPanicOnFault(true))
	x, verdict = layout.LoadExemplar(slot, id, n)
	return x, verdict, nil
}
