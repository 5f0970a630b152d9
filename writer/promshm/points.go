package promshm

import (
	"slices"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shmts/shmts/writer/internal/bridge"
)

func nanos(t *timestamppb.Timestamp) int64 {
	if t == nil {
		return 0
	}
	return t.AsTime().UnixNano()
}

// ucum is a unit of OpenMetrics in the format's words. Others stay as they are.
func ucum(unit string) string {
	switch unit {
	case "seconds":
		return "s"
	case "bytes":
		return "By"
	case "ratio":
		return "1"
	case "celsius":
		return "Cel"
	case "meters":
		return "m"
	case "grams":
		return "g"
	case "joules":
		return "J"
	case "volts":
		return "V"
	case "amperes":
		return "A"
	}
	return unit
}

func (b *Bridge) metric(f *dto.MetricFamily, m *dto.Metric) {
	key, describe := b.keyOf(f, m), describe(f, m)
	switch f.GetType() {
	case dto.MetricType_COUNTER:
		b.set.FloatCounter(key, m.GetCounter().GetValue(), nanos(m.GetCounter().GetCreatedTimestamp()), describe)
		b.offer(key, m.GetCounter().GetExemplar())
	case dto.MetricType_GAUGE:
		b.set.Gauge(key, m.GetGauge().GetValue(), describe)
	case dto.MetricType_UNTYPED:
		b.set.Gauge(key, m.GetUntyped().GetValue(), describe)
	case dto.MetricType_SUMMARY:
		p, c := m.GetSummary(), &b.old
		*c = bridge.Classic{Summary: true, Count: p.GetSampleCount(), Sum: p.GetSampleSum(), Start: nanos(p.GetCreatedTimestamp()),
			Quantiles: c.Quantiles[:0], Values: c.Values[:0], Counts: c.Counts, Bounds: c.Bounds}
		for _, q := range p.GetQuantile() {
			c.Quantiles, c.Values = append(c.Quantiles, q.GetQuantile()), append(c.Values, q.GetValue())
		}
		c.Bounds = c.Bounds[:0]
		b.set.Classic(key, c, describe)
	case dto.MetricType_HISTOGRAM:
		b.histogram(key, f, m.GetHistogram(), describe)
	default:
		b.set.Unsupported(key, "want a counter, gauge, histogram or summary, got a "+f.GetType().String(), describe)
	}
}

func (b *Bridge) histogram(key string, f *dto.MetricFamily, p *dto.Histogram, describe func() bridge.Series) {
	switch {
	case p.GetSampleCountFloat() > 0 || len(p.GetPositiveCount())+len(p.GetNegativeCount()) > 0:
		b.set.Unsupported(key, "want a histogram with integer counts, got floats", describe)
	case p.Schema == nil:
		c := &b.old
		*c = bridge.Classic{Count: p.GetSampleCount(), Sum: p.GetSampleSum(), Start: nanos(p.GetCreatedTimestamp()),
			Bounds: c.Bounds[:0], Counts: c.Counts[:0], Quantiles: c.Quantiles[:0], Values: c.Values}
		for _, bucket := range p.GetBucket() {
			c.Bounds, c.Counts = append(c.Bounds, bucket.GetUpperBound()), append(c.Counts, bucket.GetCumulativeCount())
		}
		b.set.Classic(key, c, describe)
		b.offer(key, ofBuckets(p)...)
	case p.GetSchema() < 0:
		// Said by the set, in its words.
		b.set.Histogram(key, &bridge.Histogram{Scale: int(p.GetSchema())}, bridge.Shape{}, describe)
	case slices.ContainsFunc(p.GetNegativeSpan(), func(s *dto.BucketSpan) bool { return s.GetLength() > 0 }):
		b.set.Unsupported(key, "want histogram values that are not negative, got some that are", describe)
	default:
		low, high := b.options.bounds(f.GetName(), f.GetUnit())
		h := &b.hist
		*h = bridge.Histogram{Zero: p.GetZeroCount(), ZeroThreshold: p.GetZeroThreshold(), Sum: p.GetSampleSum(), Start: nanos(p.GetCreatedTimestamp()),
			Buckets: h.Buckets[:0]}
		if !fill(h, p, b.options.scale) {
			b.set.Unsupported(key, "want spans with as many deltas, and no count below 0, got others", describe)
			return
		}
		b.set.Histogram(key, h, bridge.Shape{Low: low, High: high, Scale: b.options.scale}, describe)
		if b.offer(key, p.GetExemplars()...); len(p.GetExemplars()) == 0 { // it is classic as well, and keeps them there
			b.offer(key, ofBuckets(p)...)
		}
	}
}

// ofBuckets are the exemplars of classic buckets.
func ofBuckets(p *dto.Histogram) (list []*dto.Exemplar) {
	for _, bucket := range p.GetBucket() {
		if x := bucket.GetExemplar(); x != nil {
			list = append(list, x)
		}
	}
	return list
}

// fill lays the spans of a native histogram out as buckets without gaps, of the scale that is asked for where the schema is
// higher: one observation of infinity would else cost all buckets between. False if spans and deltas do not fit.
func fill(h *bridge.Histogram, p *dto.Histogram, scale int) bool {
	schema := int(p.GetSchema())
	if schema > maxSchema {
		return false
	}
	h.Scale = min(schema, scale)
	deltas := p.GetPositiveDelta()
	index, count := -1, int64(0) // Prometheus' bucket 0 ends at 1, as OpenTelemetry's -1
	for _, span := range p.GetPositiveSpan() {
		index += int(span.GetOffset())
		for range span.GetLength() {
			if len(deltas) == 0 {
				return false
			}
			count += deltas[0]
			deltas = deltas[1:]
			at := index >> (schema - h.Scale)
			index++
			switch {
			case count < 0 || at < -1100<<h.Scale || at > 1100<<h.Scale:
				return false
			case len(h.Buckets) == 0:
				h.Min = at
			case at < h.Min:
				return false
			}
			for at-h.Min >= len(h.Buckets) {
				h.Buckets = append(h.Buckets, 0)
			}
			h.Buckets[at-h.Min] += uint64(count)
		}
	}
	return len(deltas) == 0
}

// maxSchema is Prometheus' highest exponential schema.
const maxSchema = 8
