package otelshm

import (
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/shmts/shmts/writer"
	"github.com/shmts/shmts/writer/internal/bridge"
)

// key is a series of the SDK's. It has the attributes as the SDK itself tells them apart.
type key struct {
	scope, version, name string
	attributes           attribute.Distinct
}

// instrument is where the points at hand come from.
type instrument struct {
	r     *Reader
	scope *instrumentation.Scope
	m     *metricdata.Metrics
}

func (in *instrument) key(a *attribute.Set) key {
	return key{in.scope.Name, in.scope.Version, in.m.Name, a.Equivalent()}
}

func (in *instrument) describe(a *attribute.Set) func() bridge.Series {
	return func() bridge.Series {
		s := bridge.Series{Name: in.m.Name, Unit: in.m.Unit, Help: in.m.Description}
		if in.r.options.scope {
			s.Labels = append(s.Labels, "otel_scope_name", in.scope.Name, "otel_scope_version", in.scope.Version)
		}
		for i := a.Iter(); i.Next(); {
			kv := i.Attribute()
			s.Labels = append(s.Labels, string(kv.Key), kv.Value.String())
		}
		return s
	}
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func (r *Reader) metric(scope *instrumentation.Scope, m *metricdata.Metrics) {
	in := &instrument{r, scope, m}
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for i := range data.DataPoints {
			p := &data.DataPoints[i]
			a := &p.Attributes
			switch {
			case data.Temporality != metricdata.CumulativeTemporality:
				in.delta(a)
			case !data.IsMonotonic:
				r.set.UpDownCounter(in.key(a), p.Value, in.describe(a))
			case p.Value < 0:
				r.set.Reject(in.key(a), p.Value)
			default:
				r.set.Counter(in.key(a), uint64(p.Value), nanos(p.StartTime), in.describe(a))
				exemplars(in, a, p.Exemplars)
			}
		}
	case metricdata.Sum[float64]:
		for i := range data.DataPoints {
			p := &data.DataPoints[i]
			a := &p.Attributes
			switch {
			case data.Temporality != metricdata.CumulativeTemporality:
				in.delta(a)
			case !data.IsMonotonic:
				r.set.Gauge(in.key(a), p.Value, in.describe(a))
			default:
				r.set.FloatCounter(in.key(a), p.Value, nanos(p.StartTime), in.describe(a))
				exemplars(in, a, p.Exemplars)
			}
		}
	case metricdata.Gauge[int64]:
		for i := range data.DataPoints {
			p := &data.DataPoints[i]
			r.set.IntGauge(in.key(&p.Attributes), p.Value, in.describe(&p.Attributes))
		}
	case metricdata.Gauge[float64]:
		for i := range data.DataPoints {
			p := &data.DataPoints[i]
			r.set.Gauge(in.key(&p.Attributes), p.Value, in.describe(&p.Attributes))
		}
	case metricdata.ExponentialHistogram[int64]:
		exponential(in, data, r.set.IntHistogram)
	case metricdata.ExponentialHistogram[float64]:
		exponential(in, data, r.set.Histogram)
	case metricdata.Histogram[int64]:
		explicit(in, data)
	case metricdata.Histogram[float64]:
		explicit(in, data)
	case metricdata.Summary:
		for i := range data.DataPoints {
			p := &data.DataPoints[i]
			c := &r.old
			*c = bridge.Classic{Summary: true, Count: p.Count, Sum: p.Sum, Start: nanos(p.StartTime), Quantiles: c.Quantiles[:0], Values: c.Values[:0], Counts: c.Counts}
			for _, q := range p.QuantileValues {
				c.Quantiles, c.Values = append(c.Quantiles, q.Quantile), append(c.Values, q.Value)
			}
			r.set.Classic(in.key(&p.Attributes), c, in.describe(&p.Attributes))
		}
	}
}

// delta passes over a point that only a Producer can bring: this reader asks the SDK for cumulative ones.
func (in *instrument) delta(a *attribute.Set) {
	in.r.set.Unsupported(in.key(a), "want cumulative points, got deltas", in.describe(a))
}

func exponential[N int64 | float64](in *instrument, data metricdata.ExponentialHistogram[N],
	bring func(key, *bridge.Histogram, bridge.Shape, func() bridge.Series)) {
	r := in.r
	low, high := r.options.bounds(Instrument{in.scope.Name, in.m.Name, in.m.Unit})
	shape := bridge.Shape{Low: low, High: high, Scale: r.options.scale}
	for i := range data.DataPoints {
		p := &data.DataPoints[i]
		a := &p.Attributes
		if data.Temporality != metricdata.CumulativeTemporality {
			in.delta(a)
			continue
		}
		if anyOf(p.NegativeBucket.Counts) {
			r.set.Unsupported(in.key(a), "want histogram values that are not negative, got some that are", in.describe(a))
			continue
		}
		r.hist = bridge.Histogram{Scale: int(p.Scale), Zero: p.ZeroCount, ZeroThreshold: p.ZeroThreshold, Min: int(p.PositiveBucket.Offset),
			Buckets: p.PositiveBucket.Counts, Sum: float64(p.Sum), IntSum: uint64(p.Sum), Start: nanos(p.StartTime)}
		bring(in.key(a), &r.hist, shape, in.describe(a))
		exemplars(in, a, p.Exemplars)
	}
}

func anyOf(counts []uint64) bool {
	for _, n := range counts {
		if n > 0 {
			return true
		}
	}
	return false
}

// explicit brings a histogram with explicit bounds, which the SDK makes where a View asks for it. Its buckets are disjoint, and become
// cumulative over the bounds.
func explicit[N int64 | float64](in *instrument, data metricdata.Histogram[N]) {
	r := in.r
	for i := range data.DataPoints {
		p := &data.DataPoints[i]
		a := &p.Attributes
		if data.Temporality != metricdata.CumulativeTemporality {
			in.delta(a)
			continue
		}
		c := &r.old
		*c = bridge.Classic{Bounds: p.Bounds, Count: p.Count, Sum: float64(p.Sum), Start: nanos(p.StartTime), Counts: c.Counts[:0], Quantiles: nil, Values: c.Values}
		total := uint64(0)
		for b := range p.Bounds {
			if b < len(p.BucketCounts) {
				total += p.BucketCounts[b]
			}
			c.Counts = append(c.Counts, total)
		}
		r.set.Classic(in.key(a), c, in.describe(a))
		exemplars(in, a, p.Exemplars)
	}
}

// exemplars offers those of the point that was brought last.
func exemplars[N int64 | float64](in *instrument, a *attribute.Set, list []metricdata.Exemplar[N]) {
	if len(list) == 0 {
		return
	}
	r := in.r
	r.exemplars = r.exemplars[:0]
	for i := range list {
		p := &list[i]
		x := bridge.Exemplar{Value: float64(p.Value), Exemplar: writer.Exemplar{Time: p.Time}}
		if len(p.TraceID) == len(x.TraceID) {
			copy(x.TraceID[:], p.TraceID)
		}
		if len(p.SpanID) == len(x.SpanID) {
			copy(x.SpanID[:], p.SpanID)
		}
		r.exemplars = append(r.exemplars, x)
	}
	r.set.Exemplars(in.key(a), r.exemplars)
}
