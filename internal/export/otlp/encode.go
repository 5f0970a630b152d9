package otlp

import (
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/reader"
)

// request is an ExportMetricsServiceRequest that is being filled.
type request struct {
	buf    []byte
	points int
	shut   bool     // the next row does not fit: see whole
	seen   []uint64 // scratch

	scope               []byte // the InstrumentationScope, as a field of ScopeMetrics
	maxBytes, maxPoints int
}

func (r *request) reset()     { r.buf, r.points, r.shut = r.buf[:0], 0, false }
func (r *request) full() bool { return r.shut || len(r.buf) >= r.maxBytes || r.points >= r.maxPoints }

// whole is table for all of a row, or nothing of it where it does not fit beside what is there: a row that is cut in two requests would be
// repeated in part, were this process killed between them. One that alone is more than a request is cut.
func (r *request) whole(src *export.Source, of *resource, row *export.Row, end bool, at export.Cursor) (export.Cursor, bool) {
	if r.points == 0 || at != (export.Cursor{}) {
		return r.table(src, of, row, end, at)
	}
	length, points := len(r.buf), r.points
	r.seen = append(r.seen[:0], src.Seen...)
	next, done := r.table(src, of, row, end, at)
	if !done {
		r.buf, r.points, r.shut = r.buf[:length], points, true
		copy(src.Seen, r.seen)
		return at, false
	}
	return next, done
}

// table appends the points of a table of a segment as one ResourceMetrics, from at on. It answers where it
// stopped, and whether that was the end. A ResourceMetrics without a point is left out.
func (r *request) table(src *export.Source, of *resource, row *export.Row, end bool, at export.Cursor) (export.Cursor, bool) {
	metrics := of.schema.tables[row.Table]
	begin, pointsBefore := len(r.buf), r.points
	b, resourceMetrics := open(r.buf, requestResourceMetrics)
	b = append(b, of.resource...)
	b, scopeMetrics := open(b, resourceMetricsScope)
	b = append(b, r.scope...)
	done := true
	for at.Metric < len(metrics) {
		m := &metrics[at.Metric]
		metricBegin, before := len(b), r.points
		var metric, data int
		b, metric = open(b, scopeMetricsMetrics)
		b = append(b, m.head...)
		b, data = open(b, m.data)
		for at.Point < len(m.points) && (r.points == 0 || len(b) < r.maxBytes && r.points < r.maxPoints) {
			p := &m.points[at.Point]
			var wrote bool
			if b, wrote = of.point(b, src, m, p, row, end); wrote {
				r.points++
			}
			at.Point++
		}
		if r.points == before {
			b = b[:metricBegin]
		} else {
			b = append(b, m.tail...)
			b = shut(shut(b, data), metric)
		}
		if at.Point < len(m.points) {
			done = false
			break
		}
		at.Metric, at.Point = at.Metric+1, 0
	}
	if r.points == pointsBefore {
		r.buf = b[:begin]
	} else {
		r.buf = shut(shut(b, scopeMetrics), resourceMetrics)
	}
	return at, done
}

// point appends one data point, or nothing: a series that the row does not hold, a gauge never set.
func (of *resource) point(b []byte, src *export.Source, m *metric, p *point, row *export.Row, end bool) ([]byte, bool) {
	if end {
		if !src.Seen.Has(p.series) {
			return b, false
		}
		return of.endPoint(b, m, p, row), true
	}
	v, ok := row.Value(p.series)
	if !ok {
		// Retired: its last value went out with an earlier row. All parts of a stat end in the
		// same row, so it is forgotten behind the last of them.
		if !src.Seen.Has(p.series) || !row.Gone(p.series) {
			return b, false
		}
		if m.kind != reader.Stat || m.part == names.Count {
			src.Seen.Clear(p.series)
		}
		return of.endPoint(b, m, p, row), true
	}
	start := int64(0)
	if m.data != metricGauge {
		start = row.Start(p.series)
	}
	if m.delta {
		if before, at, ok := row.Before(p.series); ok {
			start = at
			v = minus(v, &before)
		}
	}
	if m.kind == reader.Histogram {
		src.Seen.Set(p.series)
		return of.histogramPoint(b, p, src.Series[p.series], &v, start, row), true
	}
	var bits uint64
	field := protowire.Number(numberDouble)
	switch {
	case m.kind == reader.Stat:
		f := v.Last
		switch m.part {
		case names.Min:
			f = v.Min
		case names.Max:
			f = v.Max
		case names.Sum:
			f = v.Sum
		case names.Count:
			field, bits = numberInt, v.Count
		}
		if field == numberDouble {
			if math.IsNaN(f) {
				return b, false // nothing recorded, ever or in this window
			}
			bits = math.Float64bits(f)
		}
	case v.Unset:
		return b, false
	case v.Number == reader.F64:
		bits = math.Float64bits(v.Float)
	case v.Number == reader.U64 && v.Int < 0: // 2^63 and beyond: as_int is signed
		bits = math.Float64bits(float64(uint64(v.Int)))
	default:
		field, bits = numberInt, uint64(v.Int)
	}
	src.Seen.Set(p.series)
	b, body := open(b, dataPoints)
	if m.data == metricSum {
		b = appendFixed(b, pointStart, uint64(start))
	}
	b = appendFixed(b, pointTime, uint64(row.Time))
	b = appendFixed(b, field, bits)
	b = append(append(b, p.attrs...), of.numberAttrs...)
	if m.kind == reader.Counter && row.HasExemplars() {
		b = appendExemplars(b, numberExemplars, p, row)
	}
	return shut(b, body), true
}

// appendExemplars appends those of a point's series.
func appendExemplars(b []byte, field protowire.Number, p *point, row *export.Row) []byte {
	row.Exemplars(p.series, func(x *reader.Exemplar) bool {
		var body int
		b, body = open(b, field)
		b = appendFixed(b, exemplarTime, uint64(x.Time))
		b = appendDouble(b, exemplarDouble, x.Value)
		if x.SpanID != [8]byte{} {
			b = protowire.AppendBytes(protowire.AppendTag(b, exemplarSpan, protowire.BytesType), x.SpanID[:])
		}
		b = protowire.AppendBytes(protowire.AppendTag(b, exemplarTrace, protowire.BytesType), x.TraceID[:])
		b = shut(b, body)
		return true
	})
	return b
}

// minus is what came since an earlier value of the same series: what is only ever added to subtracted, the rest as it is.
func minus(v reader.Value, before *reader.Value) reader.Value {
	switch v.Kind {
	case reader.Counter:
		if v.Number == reader.F64 {
			v.Float -= before.Float
			break
		}
		v.Int -= before.Int // modulo 2^64, as it is counted
		v.Float = float64(uint64(v.Int))
	case reader.Stat:
		v.Count -= before.Count
		v.Sum -= before.Sum
	case reader.Histogram:
		v.Count -= before.Count
		v.Sum -= before.Sum
		v.Zero -= before.Zero
		v.Above -= before.Above
		v.Buckets = slices.Clone(v.Buckets)
		for i := range min(len(v.Buckets), len(before.Buckets)) {
			v.Buckets[i] -= before.Buckets[i]
		}
	}
	return v
}

func (of *resource) histogramPoint(b []byte, p *point, series *reader.Series, v *reader.Value, start int64, row *export.Row) []byte {
	b, body := open(b, dataPoints)
	b = append(append(b, p.attrs...), of.histAttrs...)
	b = appendFixed(b, pointStart, uint64(start))
	b = appendFixed(b, pointTime, uint64(row.Time))
	count := v.Zero + v.Above
	for _, n := range v.Buckets {
		count += n
	}
	b = appendFixed(b, histCount, count)
	b = appendDouble(b, histSum, v.Sum)
	if series.Buckets.Scale != 0 {
		b = appendVarint(b, histScale, protowire.EncodeZigZag(int64(series.Buckets.Scale)))
	}
	b = appendFixed(b, histZeroCount, v.Zero)
	// From the first bucket that counted something to the last, the one above them all included.
	first, last := 0, len(v.Buckets)
	for first < len(v.Buckets) && v.Buckets[first] == 0 {
		first++
	}
	if v.Above == 0 {
		for last--; last >= first && v.Buckets[last] == 0; last-- {
		}
	}
	if count != v.Zero {
		var positive, counts int
		b, positive = open(b, histPositive)
		b = appendVarint(b, bucketsOffset, protowire.EncodeZigZag(int64(series.Buckets.Min+first)))
		b, counts = open(b, bucketsCounts)
		for i := first; i <= last; i++ {
			n := v.Above
			if i < len(v.Buckets) {
				n = v.Buckets[i]
			}
			b = protowire.AppendVarint(b, n)
		}
		b = shut(shut(b, counts), positive)
	}
	if row.HasExemplars() {
		b = appendExemplars(b, histExemplars, p, row)
	}
	b = appendDouble(b, histThreshold, series.Buckets.ZeroThreshold())
	return shut(b, body)
}

// endPoint says that a series has no value from the row on.
func (of *resource) endPoint(b []byte, m *metric, p *point, row *export.Row) []byte {
	b, body := open(b, dataPoints)
	if m.kind == reader.Histogram {
		b = append(append(b, p.attrs...), of.histAttrs...)
		b = appendFixed(b, pointStart, uint64(row.Start(p.series)))
		b = appendFixed(b, pointTime, uint64(row.Time))
		b = appendVarint(b, histFlags, noRecordedValue)
		return shut(b, body)
	}
	if m.data == metricSum {
		b = appendFixed(b, pointStart, uint64(row.Start(p.series)))
	}
	b = appendFixed(b, pointTime, uint64(row.Time))
	b = append(append(b, p.attrs...), of.numberAttrs...)
	b = appendVarint(b, numberFlags, noRecordedValue)
	return shut(b, body)
}
