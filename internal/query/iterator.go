package query

import (
	"math"
	"sort"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/shmts/shmts/reader"
)

// series is a storage.Series. It may be iterated several times.
type series struct {
	labels labels.Labels
	q      *querier
	plan   *plan
	owners owners   // where rules may have made it of several
	owner  [1]owner // memory for the usual case
	parts  []part
	one    [1]part // memory for the usual case
	joined samples
	read   bool
	err    error
}

func (s *series) Labels() labels.Labels { return s.labels }

// Iterator reads the rows, the first time.
func (s *series) Iterator(reuse chunkenc.Iterator) chunkenc.Iterator {
	if !s.read {
		s.q.yield(s.parts[0].g.all.ctx)
		s.joined, s.err = join(s.parts)
		s.read = true
		if s.err == nil {
			if s.err = s.q.Run.memory.take(s.made()); s.err != nil {
				s.joined = samples{} // or nobody would ask for the error
			}
		}
	}
	it, ok := reuse.(*iterator)
	if !ok {
		it = &iterator{}
	}
	*it = iterator{samples: &s.joined, i: -1, err: s.err}
	return it
}

// made is what the engine makes of a series, in bytes: a point at each instant at which it has a value, which is a row or a window of rows.
func (s *series) made() int64 {
	n := s.joined.len()
	if n == 0 {
		return 0
	}
	points := int64(1)
	if h := s.plan.step; h > 0 {
		points = max(1, min(s.plan.end-s.plan.first-s.plan.rng, s.joined.times[n-1]-s.joined.times[0]+s.plan.rng)/h+1)
	}
	joined := int64(0)
	if len(s.parts) > 1 {
		joined = s.joined.bytes()
	}
	if s.joined.hists == nil {
		return joined + pointBytes*points
	}
	return joined + points*(pointBytes+histogramHead+8*int64(len(s.joined.hists[0].column.used)+len(s.joined.hists[0].column.spans)))
}

// iterator goes over samples. Start timestamps are not given: a 0 sample says the same, see plan.
type iterator struct {
	*samples
	i   int
	err error
}

func (it *iterator) typ() chunkenc.ValueType {
	switch {
	case it.i >= len(it.times):
		return chunkenc.ValNone
	case it.hists != nil:
		return chunkenc.ValFloatHistogram
	}
	return chunkenc.ValFloat
}

func (it *iterator) Next() chunkenc.ValueType {
	if it.i < len(it.times) {
		it.i++
	}
	return it.typ()
}

// unixMilli is int64 under a name that go vet does not take for io.Seeker's.
type unixMilli = int64

func (it *iterator) Seek(t unixMilli) chunkenc.ValueType {
	it.i = max(it.i, 0)
	if it.i < len(it.times) && it.times[it.i] < t {
		rest := it.times[it.i:]
		it.i += sort.Search(len(rest), func(k int) bool { return rest[k] >= t })
	}
	return it.typ()
}

func (it *iterator) At() (int64, float64) { return it.times[it.i], it.floats[it.i] }
func (it *iterator) AtT() int64           { return it.times[it.i] }
func (it *iterator) AtST() int64          { return 0 }
func (it *iterator) Err() error           { return it.err }

// AtHistogram is for integer histograms, of which there are none here.
func (it *iterator) AtHistogram(*histogram.Histogram) (int64, *histogram.Histogram) {
	panic("shmts: query: AtHistogram of a float histogram")
}

func (it *iterator) AtFloatHistogram(h *histogram.FloatHistogram) (int64, *histogram.FloatHistogram) {
	if h == nil {
		h = &histogram.FloatHistogram{}
	}
	r := it.hists[it.i]
	r.column.fill(h, int(r.row))
	return it.times[it.i], h
}

// histView is a histogram's column as native histograms: schema = scale, zero threshold = base^Min, and
// bucket i as index i + 1, since Prometheus names a bucket by its upper bound's exponent. What was
// recorded above the last bucket is in one bucket more after it: a quantile that falls into it is
// no more than the upper bound of that one.
//
// All rows share their spans, which cover every bucket that any row fills, so that the engine subtracts
// and adds them without reconciling.
type histView struct {
	h         *HistColumn
	epochs    []uint16
	threshold float64
	spans     []histogram.Span
	used      []int32 // indices into a row's counts, of the buckets in spans
	share     float64 // of rowAhead
}

func newHistView(h *HistColumn, epochs []uint16) *histView {
	v := &histView{h: h, epochs: epochs, threshold: lowerBound(h.Range)}
	any := h.filled()
	next := int32(0)
	for k := 1; k < len(any); k++ {
		if any[k] == 0 {
			continue
		}
		index := int32(h.Range.Min + k) // bucket k-1 is of index Min+k-1, and Prometheus's is one more
		if n := len(v.spans); n > 0 && index == next {
			v.spans[n-1].Length++
		} else {
			v.spans = append(v.spans, histogram.Span{Offset: index - next, Length: 1})
		}
		next = index + 1
		v.used = append(v.used, int32(k))
	}
	return v
}

// lowerBound is base^Min, the lower bound of the lowest bucket.
func lowerBound(r reader.BucketRange) float64 {
	whole, part := r.Min>>r.Scale, r.Min&(1<<r.Scale-1)
	return math.Ldexp(math.Exp2(float64(part)/float64(int(1)<<r.Scale)), whole)
}

// fill makes h the histogram of a row.
func (v *histView) fill(h *histogram.FloatHistogram, row int) {
	*h = histogram.FloatHistogram{
		PositiveSpans:   append(h.PositiveSpans[:0], v.spans...),
		PositiveBuckets: h.PositiveBuckets[:0],
		Schema:          int32(v.h.Range.Scale),
		ZeroThreshold:   v.threshold,
	}
	if row == rowAhead {
		v.fillAhead(h)
		return
	}
	if row < 0 {
		if row == rowStale {
			h.Sum = stale
		}
		for range v.used {
			h.PositiveBuckets = append(h.PositiveBuckets, 0)
		}
		return
	}
	if row > 0 && v.epochs[row] == v.epochs[row-1] && !isStale(v.h.Sum[row-1]) {
		h.CounterResetHint = histogram.NotCounterReset
	}
	counts := v.h.Counts[row*v.h.Stride():][:v.h.Stride()]
	h.ZeroCount = float64(counts[0])
	h.Count = h.ZeroCount
	h.Sum = v.h.Sum[row]
	for _, k := range v.used {
		n := float64(counts[k])
		h.PositiveBuckets = append(h.PositiveBuckets, n)
		h.Count += n
	}
}

// fillAhead goes on from the last two rows.
func (v *histView) fillAhead(h *histogram.FloatHistogram) {
	n, stride := len(v.h.Sum)-1, v.h.Stride()
	last, before := v.h.Counts[n*stride:(n+1)*stride], v.h.Counts[(n-1)*stride:n*stride]
	at := func(k int32) float64 { return float64(last[k]) + v.share*float64(last[k]-before[k]) }
	h.CounterResetHint = histogram.NotCounterReset
	h.ZeroCount = at(0)
	h.Count, h.Sum = h.ZeroCount, v.h.Sum[n]+v.share*(v.h.Sum[n]-v.h.Sum[n-1])
	for _, k := range v.used {
		h.PositiveBuckets = append(h.PositiveBuckets, at(k))
		h.Count += at(k)
	}
}
