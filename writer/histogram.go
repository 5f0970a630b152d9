package writer

import (
	"math"
	"sync/atomic"

	"github.com/shmts/shmts/internal/pin"
	"github.com/shmts/shmts/layout"
)

// shape is a histogram's bucket range, as its records need it.
type shape struct {
	scale, min, count int
}

func (s *series) shape() shape {
	r := s.info.Range()
	return shape{r.Scale, r.Min, r.Count}
}

// outside is the number, among a histogram's cells, of the one that counts a finite v >= 0 that no bucket holds: FORMAT.md 9.
// index is v's bucket index less min: the callers have it inlined, and the common case too.
// Zero and subnormals have an index that no range holds, and so come here.
func (h *shape) outside(v float64, index int) int {
	if index < 0 || v < 0x1p-1022 {
		return layout.HistZero
	}
	return layout.HistBuckets + h.count
}

// Histogram counts values in base-2 exponential buckets, and their sum in f64. All
// methods may be called from any goroutine, and on nil.
type Histogram struct {
	s     *series
	shape shape
}

// Histogram registers, or finds, a histogram of number f64. See Buckets and Scale.
func (w *Writer) Histogram(name string, options ...SeriesOption) *Histogram {
	return register(w, layout.Histogram, layout.F64, name, options, func(s *series) *Histogram { return &Histogram{s, s.shape()} })
}

// Record counts v in its bucket. NaN, infinities and what is negative are rejected and counted.
func (h *Histogram) Record(v float64) {
	if h == nil {
		return
	}
	if !isAmount(v) {
		h.s.w.reject()
		return
	}
	cell := layout.BucketIndex(h.shape.scale, v) - h.shape.min
	if uint(cell) < uint(h.shape.count) {
		cell += layout.HistBuckets
	} else {
		cell = h.shape.outside(v, cell)
	}
	p := pin.Pin()
	if at := h.s.place.Load(); at != nil {
		if p < at.procs {
			cells := at.words[p*at.stride:]
			cells[cell]++
			cells[layout.HistSum] = math.Float64bits(math.Float64frombits(cells[layout.HistSum]) + v)
		} else {
			at.useOverflow()
			atomic.AddUint64(&at.words[at.overflow+cell], 1)
			addFloat(&at.words[at.overflow+layout.HistSum], v)
		}
	}
	pin.Unpin()
}

// Retire is Counter.Retire.
func (h *Histogram) Retire() {
	if h != nil {
		h.s.retire()
	}
}

// IntHistogram counts integers in base-2 exponential buckets, and their sum, exact
// modulo 2^64. All methods may be called from any goroutine, and on nil.
type IntHistogram struct {
	s     *series
	shape shape
}

// IntHistogram registers, or finds, a histogram of number u64. See Buckets and Scale.
func (w *Writer) IntHistogram(name string, options ...SeriesOption) *IntHistogram {
	return register(w, layout.Histogram, layout.U64, name, options, func(s *series) *IntHistogram { return &IntHistogram{s, s.shape()} })
}

// Record counts v in its bucket.
func (h *IntHistogram) Record(v uint64) {
	if h == nil {
		return
	}
	cell := layout.BucketIndex(h.shape.scale, float64(v)) - h.shape.min
	if uint(cell) < uint(h.shape.count) {
		cell += layout.HistBuckets
	} else {
		cell = h.shape.outside(float64(v), cell)
	}
	p := pin.Pin()
	if at := h.s.place.Load(); at != nil {
		if p < at.procs {
			cells := at.words[p*at.stride:]
			cells[cell]++
			cells[layout.HistSum] += v
		} else {
			at.useOverflow()
			atomic.AddUint64(&at.words[at.overflow+cell], 1)
			atomic.AddUint64(&at.words[at.overflow+layout.HistSum], v)
		}
	}
	pin.Unpin()
}

// Retire is Counter.Retire.
func (h *IntHistogram) Retire() {
	if h != nil {
		h.s.retire()
	}
}
