package writer

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/layout"
)

// What was counted elsewhere (by another library, by a worker that keeps its own histogram) comes into a
// series many records at a time. These methods are for that, and for nothing hot: they take the writer's lock, so that no
// row shows half of what one call adds, and add in the overflow lane alone, one after the other. So the f64 cell of a
// series that nobody records into otherwise holds exactly what its Merges add up to, in their order.
//
// Counter.Add and UpDownCounter.Add take any n, and are exact wherever they add: they need no such twin.

// Counts is what a histogram elsewhere counted: base-2 exponential buckets of OpenTelemetry's numbering
// (FORMAT.md 9), where the one of index i holds values in (base^i, base^(i+1)], base = 2^(2^-Scale).
type Counts struct {
	Scale   int
	Zero    uint64   // at or below the series' zero threshold
	Min     int      // the index of Buckets[0]
	Buckets []uint64 // without gaps
}

// maxMergeScale bounds Counts.Scale: OpenTelemetry's goes to 20, Prometheus's to 8.
const maxMergeScale = 20

// Merge adds counts, and the sum of what was counted, at once. Every bucket is added to the one of the series'
// that covers it, or to zero or above where the series' range ends: that is exact, whatever the values were,
// while the scale is not below the series'. An error says that it is below (one such bucket lies across several of the
// series'), or that sum is not an amount: then nothing is added, and it is counted as one rejected record.
func (h *Histogram) Merge(c *Counts, sum float64) error {
	if h == nil {
		return nil
	}
	if err := h.shape.takes(h.s, c); err != nil {
		return err
	}
	if !isAmount(sum) {
		h.s.w.reject()
		return fmt.Errorf("shmts: histogram %q: want a sum that is finite and not negative, got %g", h.s.info.Name, sum)
	}
	h.s.merge(func(at *place) {
		cells := at.words[at.overflow:]
		h.shape.merge(cells, c)
		addFloat(&cells[layout.HistSum], sum)
	})
	return nil
}

// Merge is Histogram.Merge.
func (h *IntHistogram) Merge(c *Counts, sum uint64) error {
	if h == nil {
		return nil
	}
	if err := h.shape.takes(h.s, c); err != nil {
		return err
	}
	h.s.merge(func(at *place) {
		cells := at.words[at.overflow:]
		h.shape.merge(cells, c)
		atomic.AddUint64(&cells[layout.HistSum], sum)
	})
	return nil
}

// Merge is Add for a value that is the sum of many: it takes the writer's lock, and always adds in one and the same
// place, so that Merges alone add up in their order. What is not finite, or negative, is rejected and counted.
func (c *FloatCounter) Merge(v float64) {
	if c == nil {
		return
	}
	if !isAmount(v) {
		c.s.w.reject()
		return
	}
	c.s.merge(func(at *place) { addFloat(&at.words[at.overflow], v) })
}

func (s *series) merge(add func(*place)) {
	if s.w == nil {
		return
	}
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	if at := s.place.Load(); at != nil {
		at.overflowed.Store(true) // no P that lacks a lane, so OverflowThreads stays
		add(at)
	}
}

func (h *shape) takes(s *series, c *Counts) error {
	if c.Scale >= h.scale && c.Scale <= maxMergeScale {
		return nil
	}
	s.w.reject()
	return fmt.Errorf("shmts: histogram %q: want buckets of scale %d to %d, got scale %d", s.info.Name, h.scale, maxMergeScale, c.Scale)
}

// merge adds c to a histogram's cells. One scale less makes one bucket of two, those of indices 2i and 2i+1: the
// arithmetic shift, which rounds down, is that for negative indices too.
func (h *shape) merge(cells []uint64, c *Counts) {
	add := func(cell int, n uint64) {
		if n > 0 {
			atomic.AddUint64(&cells[cell], n)
		}
	}
	add(layout.HistZero, c.Zero)
	for i, n := range c.Buckets {
		switch index := (c.Min+i)>>(c.Scale-h.scale) - h.min; {
		case index < 0:
			add(layout.HistZero, n)
		case index < h.count:
			add(layout.HistBuckets+index, n)
		default:
			add(layout.HistBuckets+h.count, n)
		}
	}
}

// NextTick is the time until the next step of any table ends, which is when a tick finds something to do. Who
// brings values from elsewhere brings them shortly before. It is negative once the writer is closed, and where there
// is no segment, not even in private memory.
func (w *Writer) NextTick() time.Duration {
	if w == nil {
		return -1
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.segments) == 0 {
		return -1
	}
	_, mono := w.opts.Clock()
	next := time.Duration(math.MaxInt64)
	for _, g := range w.segments {
		next = min(next, g.untilStep(mono))
	}
	return next
}
