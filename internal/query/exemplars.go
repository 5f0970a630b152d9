package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/shmts/shmts/reader"
)

// Exemplary is a Segment of which exemplars were selected: see Selection.Exemplars.
type Exemplary interface {
	Segment
	// Exemplars are those of the time that was asked for, each once. They are not changed by anyone.
	Exemplars() []Exemplar
}

// Exemplar is one recorded value and the trace that it belongs to.
type Exemplar struct {
	Series  int // position in the segment's Series
	Value   float64
	Time    int64 // unix ns
	TraceID [16]byte
	SpanID  [8]byte // zeros: none
}

// ErrTooManyExemplars is what Select answers, wrapped, where it finds more than Selection.Exemplars.
var ErrTooManyExemplars = errors.New("shmts: query: too many exemplars")

// ExemplarSeries are the exemplars of one series, oldest first.
type ExemplarSeries struct {
	Labels    labels.Labels
	Exemplars []Exemplar
}

// Exemplars weigh as so many samples, and take so many bytes beside their series.
const (
	ExemplarSamples = 8
	exemplarBytes   = 128
)

// Exemplars finds those that the series have which any selector of an expression selects, from start to end, unix ms, inclusive: by
// their labels, as Prometheus answers. A histogram's are under its name, and under the names of the classic view's buckets, where those are asked
// for: each in the bucket that its value lies in. It waits for a place as a query does: one of some minutes among light ones.
func (e *Engine) Exemplars(ctx context.Context, expr parser.Expr, start, end int64) ([]ExemplarSeries, annotations.Annotations, error) {
	lane := light
	if end-start > lightRange.Milliseconds() {
		lane = heavy
	}
	leave, err := e.share.enter(ctx, lane)
	if err != nil {
		return nil, nil, err
	}
	defer leave()
	run := e.With(Hints{})
	defer run.Close()
	defer run.in(lane)()
	q := &querier{Run: run, mint: start, maxt: end}
	f := &exemplarFinder{q: q, byHash: map[uint64]*foundExemplars{}}
	for _, matchers := range parser.ExtractSelectors(expr) {
		f.pass++
		if err := f.find(ctx, matchers); err != nil {
			return nil, nil, err
		}
	}
	out := make([]ExemplarSeries, len(f.all))
	for i, s := range f.all {
		out[i] = s.ExemplarSeries
		slices.SortStableFunc(out[i].Exemplars, func(a, b Exemplar) int { return cmp.Compare(a.Time, b.Time) })
	}
	slices.SortFunc(out, func(a, b ExemplarSeries) int { return labels.Compare(a.Labels, b.Labels) })
	return out, q.warnings(), nil
}

// exemplarFinder is one Exemplars at work.
type exemplarFinder struct {
	q      *querier
	pass   int // selector
	byHash map[uint64]*foundExemplars
	all    []*foundExemplars
	n      int // exemplars found
}

type foundExemplars struct {
	ExemplarSeries
	pass int // that found it: what another selector finds is the same
}

// most is how many exemplars a query may find.
func (f *exemplarFinder) most() int {
	if f.q.maxSamples == 0 {
		return 1 << 30
	}
	return int(max(f.q.maxSamples/ExemplarSamples, 1))
}

func (f *exemplarFinder) find(ctx context.Context, matchers []*labels.Matcher) error {
	sel, err := newSelector(matchers)
	if err != nil {
		return err
	}
	views, err := f.q.views(ctx, Selection{From: f.q.mint, To: f.q.maxt, First: f.q.mint, Matchers: matchers, Exemplars: f.most(), Yield: f.q.Run.yield})
	if errors.Is(err, ErrTooManyExemplars) {
		return promql.ErrTooManySamples(fmt.Sprintf("shmts: want at most %d exemplars", f.most()))
	}
	if err != nil {
		return err
	}
	for i := range views {
		if i%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		f.q.Run.yield(ctx)
		v := &views[i]
		x, ok := v.Segment.(Exemplary)
		if !ok {
			continue
		}
		bySeries := map[int32][]Exemplar{}
		for _, e := range x.Exemplars() {
			bySeries[int32(e.Series)] = append(bySeries[int32(e.Series)], e)
		}
		var failed error
		sel.each(v, func(m *metric, own []labels.Label) bool {
			if m == nil || len(bySeries[m.series]) == 0 {
				return true
			}
			list := bySeries[m.series]
			switch {
			case m.as == asBucket:
				r := v.series[m.series].Buckets
				list = slices.DeleteFunc(slices.Clone(list), func(e Exemplar) bool { return bucketOf(r, e.Value) != m.bucket })
			case m.as != asIs:
				return true // a sum, or a count, has no value of its own
			}
			if len(list) > 0 {
				failed = f.add(sel.labels(v, m.name, own, false), list)
			}
			return failed == nil
		})
		if failed != nil {
			return failed
		}
	}
	return nil
}

// add adds exemplars to a series.
func (f *exemplarFinder) add(ls labels.Labels, list []Exemplar) error {
	h := ls.Hash()
	s := f.byHash[h]
	for ; s != nil && !labels.Equal(s.Labels, ls); s = f.byHash[h] {
		h++
	}
	bytes := int64(len(list)) * exemplarBytes
	if s == nil {
		s = &foundExemplars{ExemplarSeries{Labels: ls}, f.pass}
		f.byHash[h] = s
		f.all = append(f.all, s)
		bytes += seriesBytes + int64(ls.ByteSize())
	}
	if s.pass != f.pass {
		return nil
	}
	if f.n += len(list); f.n > f.most() {
		return promql.ErrTooManySamples(fmt.Sprintf("shmts: want at most %d exemplars", f.most()))
	}
	s.Exemplars = append(s.Exemplars, list...)
	return f.q.Run.memory.take(bytes)
}

// bucketOf is the bucket of the classic view that a value lies in, as metric.bucket counts them.
func bucketOf(r reader.BucketRange, v float64) int32 {
	return int32(sort.Search(r.Count+1, func(k int) bool { return v <= reader.BucketRange{Scale: r.Scale, Min: r.Min + k}.ZeroThreshold() })) + 1
}
