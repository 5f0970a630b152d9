package bridge

import (
	"math"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
)

// Histogram is a point of a histogram with base-2 exponential buckets, in OpenTelemetry's numbering: the bucket of
// index i holds values in (base^i, base^(i+1)], base = 2^(2^-Scale).
type Histogram struct {
	Scale         int
	Zero          uint64
	ZeroThreshold float64 // what Zero counted is at or below
	Min           int     // index of Buckets[0]
	Buckets       []uint64
	Sum           float64
	IntSum        uint64 // of IntHistogram, in the place of Sum
	Start         int64  // unix ns; 0: unknown
}

// histogram is what an entry keeps of one.
type histogram struct {
	floats  *writer.Histogram
	ints    *writer.IntHistogram
	r       layout.BucketRange
	last    Histogram // its Buckets are ours
	pending writer.Counts
}

// Histogram brings the counts and the f64 sum of a histogram without negative values.
func (s *Set[K]) Histogram(key K, p *Histogram, shape Shape, describe func() Series) {
	s.histogram(key, formHistogram, p, shape, describe)
}

// IntHistogram brings the counts and the u64 sum of one of integers.
func (s *Set[K]) IntHistogram(key K, p *Histogram, shape Shape, describe func() Series) {
	s.histogram(key, formIntHistogram, p, shape, describe)
}

func (s *Set[K]) histogram(key K, f form, p *Histogram, shape Shape, describe func() Series) {
	if p.Scale < 0 {
		s.Unsupported(key, "want histogram buckets that are powers of two wide at most (a scale of 0 or more), got wider ones", describe)
		return
	}
	e, fresh := s.entry(key, f, describe)
	if e == nil {
		return
	}
	h := &e.histogram
	switch {
	case fresh:
		shape.Scale = min(shape.Scale, p.Scale)
		s.registerHistogram(e, shape)
	case p.Scale < h.r.Scale:
		// One bucket of the points' is several of the series' by now, and how they share it is not known. So the
		// series ends, with all that came before, and another one goes on at that scale with what came since.
		s.fail(&s.stats.rescaled, "bridge: series %q: want points of scale %d or more, got %d: it goes on as a new series of that scale",
			e.describe.Name, h.r.Scale, p.Scale)
		e.retire()
		e.lost, e.born, e.amount = false, s.round, amount{base: -e.amount.last, last: e.amount.last}
		shape.Scale = p.Scale
		s.registerHistogram(e, shape)
	}
	restarted := e.restarted(p.Start)
	if restarted || !s.since(h, p) {
		restarted = true
		h.last = Histogram{Scale: p.Scale, ZeroThreshold: p.ZeroThreshold, Buckets: h.last.Buckets[:0]}
		s.since(h, p)
	}
	if h.pending.Zero > 0 && p.ZeroThreshold > h.r.ZeroThreshold() {
		s.stats.coarse.Add(1)
	}
	sum := 0.0
	switch {
	case f == formIntHistogram:
		_ = h.ints.Merge(&h.pending, p.IntSum-h.last.IntSum) // of our scale or more
	case !isTotal(p.Sum): // NaN or an infinity was observed
		s.fail(&s.stats.rejected, "bridge: series %q: want a sum that is finite and not negative, got %g", e.describe.Name, p.Sum)
		sum = h.last.Sum
		e.amount.add(0)
	default:
		sum = p.Sum
		e.amount.to(sum, restarted)
		e.amount.add(0) // the counts, where the sum did not move
	}
	kept := append(h.last.Buckets[:0], p.Buckets...)
	h.last = *p
	h.last.Buckets, h.last.Sum = kept, sum
}

// registerHistogram makes the handle; e.amount.add brings the pending counts with the sum, once.
func (s *Set[K]) registerHistogram(e *entry, shape Shape) {
	h := &e.histogram
	buckets, scale := writer.Buckets(shape.Low, shape.High), writer.Scale(shape.Scale)
	h.r, _ = layout.NewBucketRange(shape.Scale, shape.Low, shape.High) // the writer says what is wrong with it
	h.r.Scale = shape.Scale
	if e.form == formIntHistogram {
		h.ints = register(s, e, "", (*writer.Writer).IntHistogram, buckets, scale)
		e.offer = h.ints.MergeExemplar
		return
	}
	h.floats = register(s, e, "", (*writer.Writer).Histogram, buckets, scale)
	e.offer = h.floats.MergeExemplar
	e.amount.add = func(v float64) {
		if v == 0 && h.pending.Zero == 0 && len(h.pending.Buckets) == 0 {
			return
		}
		_ = h.floats.Merge(&h.pending, v) // of our scale or more, and an amount
		h.pending = writer.Counts{Scale: h.pending.Scale}
	}
}

// since makes h.pending what p counts and the last point does not. False where that can't be: p counts less than it, or in finer
// buckets, so it began again.
func (s *Set[K]) since(h *histogram, p *Histogram) bool {
	s.diff = append(s.diff[:0], p.Buckets...)
	h.pending = writer.Counts{Scale: p.Scale, Min: p.Min, Buckets: s.diff}
	last, zero := &h.last, h.last.Zero
	if len(last.Buckets) > 0 && last.Scale < p.Scale {
		return false
	}
	widened := p.ZeroThreshold > last.ZeroThreshold
	for i, n := range last.Buckets {
		if n == 0 {
			continue
		}
		index := (last.Min + i) >> (last.Scale - p.Scale)
		if widened && upper(p.Scale, index) <= p.ZeroThreshold*(1+1e-12) {
			zero += n // client_golang moved the bucket into the zero bucket
			continue
		}
		at := index - p.Min
		if uint(at) >= uint(len(s.diff)) || s.diff[at] < n {
			return false
		}
		s.diff[at] -= n
	}
	if p.Zero < zero {
		return false
	}
	h.pending.Zero = p.Zero - zero
	return true
}

// upper is a bucket's upper bound, to a few last digits.
func upper(scale, index int) float64 { return math.Exp2(math.Ldexp(float64(index+1), -scale)) }
