package otlp

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/reader"
)

// request is an ExportMetricsServiceRequest that is being filled.
type request struct {
	buf    []byte
	points int
	rows   int

	scope               []byte // the InstrumentationScope, as a field of ScopeMetrics
	maxBytes, maxPoints int
}

func (r *request) reset()     { r.buf, r.points, r.rows = r.buf[:0], 0, 0 }
func (r *request) full() bool { return len(r.buf) >= r.maxBytes || r.points >= r.maxPoints }

// cursor is where in a row a request became full, and the next one goes on.
type cursor struct{ metric, point int }

// sample is one table at one instant, or the end of all its series.
type sample struct {
	row   *reader.Row
	time  int64
	stale bool  // the process ended: no recorded value for every series that had one
	start int64 // of the epoch, if not the series' own
}

// table appends the points of a table of a segment as one ResourceMetrics, from at on. It answers where it
// stopped, and whether that was the end. A ResourceMetrics without a point is left out.
func (r *request) table(st *state, table int, s sample, at cursor) (cursor, bool) {
	metrics := st.schema.tables[table]
	begin, pointsBefore := len(r.buf), r.points
	b, resourceMetrics := open(r.buf, requestResourceMetrics)
	b = append(b, st.resource...)
	b, scopeMetrics := open(b, resourceMetricsScope)
	b = append(b, r.scope...)
	done := true
	for at.metric < len(metrics) {
		m := &metrics[at.metric]
		metricBegin, before := len(b), r.points
		var metric, data int
		b, metric = open(b, scopeMetricsMetrics)
		b = append(b, m.head...)
		b, data = open(b, m.data)
		for at.point < len(m.points) && (r.points == 0 || len(b) < r.maxBytes && r.points < r.maxPoints) {
			p := &m.points[at.point]
			var wrote bool
			if b, wrote = st.point(b, m, p, s); wrote {
				r.points++
			}
			at.point++
		}
		if r.points == before {
			b = b[:metricBegin]
		} else {
			b = append(b, m.tail...)
			b = shut(shut(b, data), metric)
		}
		if at.point < len(m.points) {
			done = false
			break
		}
		at.metric, at.point = at.metric+1, 0
	}
	if r.points == pointsBefore {
		r.buf = b[:begin]
	} else {
		r.buf = shut(shut(b, scopeMetrics), resourceMetrics)
	}
	return at, done
}

// point appends one data point, or nothing: a series that the row does not hold, a gauge never set.
func (st *state) point(b []byte, m *metric, p *point, s sample) ([]byte, bool) {
	series := st.series[p.series]
	if s.stale {
		if !st.seen.has(p.series) {
			return b, false
		}
		return st.stalePoint(b, m, p, s.time), true
	}
	v, ok := s.row.Value(series)
	if !ok {
		// Retired: its last value went out with an earlier row. All parts of a stat end in the
		// same row, so it is forgotten behind the last of them.
		if !series.Retired || !st.seen.has(p.series) {
			return b, false
		}
		if m.kind != reader.Stat || m.part == names.Count {
			st.seen.clear(p.series)
		}
		return st.stalePoint(b, m, p, s.time), true
	}
	if m.kind == reader.Histogram {
		st.seen.set(p.series)
		return st.histogramPoint(b, p, series, &v, s), true
	}
	var bits uint64
	field := protowire.Number(numberDouble)
	switch {
	case m.kind == reader.Stat:
		f := v.Last
		switch m.part {
		case names.Min:
			f, _ = st.window(p.series, &v)
		case names.Max:
			_, f = st.window(p.series, &v)
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
	st.seen.set(p.series)
	b, body := open(b, dataPoints)
	if m.data == metricSum {
		b = appendFixed(b, pointStart, uint64(max(series.Start, s.start)))
	}
	b = appendFixed(b, pointTime, uint64(s.time))
	b = appendFixed(b, field, bits)
	b = append(append(b, p.attrs...), st.numberAttrs...)
	return shut(b, body), true
}

func (st *state) histogramPoint(b []byte, p *point, series *reader.Series, v *reader.Value, s sample) []byte {
	b, body := open(b, dataPoints)
	b = append(append(b, p.attrs...), st.histAttrs...)
	b = appendFixed(b, pointStart, uint64(max(series.Start, s.start)))
	b = appendFixed(b, pointTime, uint64(s.time))
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
	b = appendDouble(b, histThreshold, series.Buckets.ZeroThreshold())
	return shut(b, body)
}

// stalePoint says that a series has no value from time on.
func (st *state) stalePoint(b []byte, m *metric, p *point, time int64) []byte {
	b, body := open(b, dataPoints)
	if m.kind == reader.Histogram {
		b = append(append(b, p.attrs...), st.histAttrs...)
		b = appendFixed(b, pointStart, uint64(st.series[p.series].Start))
		b = appendFixed(b, pointTime, uint64(time))
		b = appendVarint(b, histFlags, noRecordedValue)
		return shut(b, body)
	}
	if m.data == metricSum {
		b = appendFixed(b, pointStart, uint64(st.series[p.series].Start))
	}
	b = appendFixed(b, pointTime, uint64(time))
	b = append(append(b, p.attrs...), st.numberAttrs...)
	b = appendVarint(b, numberFlags, noRecordedValue)
	return shut(b, body)
}

// bitset is one bit a series.
type bitset []uint64

func (s bitset) has(i int) bool { return s[i/64]>>(i%64)&1 != 0 }
func (s bitset) set(i int)      { s[i/64] |= 1 << (i % 64) }
func (s bitset) clear(i int)    { s[i/64] &^= 1 << (i % 64) }
