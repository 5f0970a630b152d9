package remotewrite

import (
	"encoding/hex"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/pbwire"
	"github.com/shmts/shmts/reader"
)

// milli is a time in ms.
func milli(ns int64) int64 { return ns / 1e6 }

// add puts a row, or an end, into the shards, from a place on.
func (e *Encoder) add(src *export.Source, row *export.Row, end bool, at export.Cursor) (export.Cursor, bool) {
	s := e.source(src)
	var metrics []metric
	if row.Table < len(s.schema.tables) {
		metrics = s.schema.tables[row.Table]
	}
	began := e.points
	time, ok := s.time(row, end)
	if !ok {
		e.left += len(metrics)
		return at, true
	}
	level := e.level(s, row.Table)
	// A row is cut only if it is too large for a request of its own.
	cut := at != (export.Cursor{}) || !e.fits(0, rowPoints(metrics, row, end))
	room := func() bool { return !cut || e.points == 0 || !e.Full() }
	if at.Metric == 0 { // target_info is in front of the rest
		if e.points > 0 && (e.Full() || !cut && !e.fits(e.before(level), rowPoints(metrics, row, end))) {
			e.wanted = true
			return at, false
		}
		e.addTarget(s, row, level, time, end)
		at.Metric++
	}
	var v reader.Value
	of, prefix, top := int32(-1), false, level
	for ; at.Metric <= len(metrics); at.Metric++ {
		if !room() {
			break
		}
		m := &metrics[at.Metric-1]
		i := int(m.series)
		if of != m.series {
			of, prefix = m.series, false
			v, ok = reader.Value{}, false
			if !end {
				v, ok = row.Value(i)
			}
		}
		last := at.Metric == len(metrics) || metrics[at.Metric].series != m.series
		if !ok || v.Kind == reader.Gauge && v.Unset {
			if (end || ok || row.Gone(i)) && src.Seen.Has(i) {
				e.addStale(s, m, row.Table, level, time)
				if last && !end {
					src.Seen.Clear(i)
				}
			}
			continue
		}
		if m.part == partBucket && !prefix {
			e.cumulate(&v)
			prefix = true
		}
		top = max(top, e.addValue(src, s, m, row, level, time, &v))
	}
	s.sent.levels[row.Table] = top + 1
	s.life.top = max(s.life.top, top+1)
	if e.points > began {
		s.sent.last = max(s.sent.last, time)
	}
	done := at.Metric > len(metrics)
	if done {
		s.sent.tables[row.Table] = time
		s.rows[row.Table] = s.rows[row.Table] || !end
	}
	return at, done
}

// rowPoints is how many points a row makes, about.
func rowPoints(metrics []metric, row *export.Row, end bool) int {
	if n := len(metrics); n > 0 && !end && row.Born(int(metrics[0].series)) { // with 0 in front of them
		return 2 * n
	}
	return len(metrics)
}

// before is how many points there are in what the points of a level would be sent with.
func (e *Encoder) before(level int) (n int) {
	if !e.layered {
		return e.points
	}
	for _, s := range e.shards[:e.used] {
		if level < s.used {
			n += s.layers[level].points
		}
	}
	return n
}

// fits tells whether there is room for more points beside so many. Several shards are not filled quite alike.
func (e *Encoder) fits(before, more int) bool {
	room := e.used * e.o.MaxSamples
	if e.used > 1 {
		room -= room / 8
	}
	return before+more <= room
}

// time is the one, in ms, at which a row, or an end, goes out: each of a table's is later than the one before. False: it would not be, and
// is not the last; that is so after the wall clock was stepped back, and receivers would refuse it.
func (s *source) time(row *export.Row, end bool) (int64, bool) {
	if row.Table >= len(s.sent.tables) {
		return 0, false
	}
	time, before := milli(row.Time), s.sent.tables[row.Table]
	if time > before {
		return time, true
	}
	return before + 1, end || row.Final
}

// cumulate counts up a histogram's buckets.
func (e *Encoder) cumulate(v *reader.Value) {
	e.prefix = append(e.prefix[:0], v.Zero)
	n := v.Zero
	for _, c := range v.Buckets {
		n += c
		e.prefix = append(e.prefix, n)
	}
	e.prefix = append(e.prefix, n+v.Above)
}

// level is the layer that is next for a row of a table. Where there are several segments of one source, they are one after the other.
func (e *Encoder) level(s *source, table int) int {
	l, mine := s.life, s.sent
	if l.batch != e.batch {
		l.batch, l.base, l.top, l.of = e.batch, 0, 0, mine
		clear(mine.levels)
	}
	if l.of != mine {
		l.base, l.of = l.top, mine
		clear(mine.levels)
	}
	return max(l.base, mine.levels[table])
}

// open finds a metric's shard and begins its time series.
func (e *Encoder) open(s *source, sc *schema, m *metric, level int) (sh *shard, l *layer, b []byte, body int) {
	sh = e.shards[0]
	if e.used > 1 {
		h := (m.hash ^ s.hash) * 0x9e3779b97f4a7c15
		sh = e.shards[h>>32%uint64(e.used)]
	}
	sh.use(sc, s)
	l = sh.layer(level)
	b, body = sh.begin(l, m)
	e.points++
	return sh, l, b, body
}

func (e *Encoder) addStale(s *source, m *metric, table, level int, time int64) {
	if m.kind == reader.Stat && m.part <= partMax && s.rows[table] && !s.recorded.Has(int(m.series)) {
		return // it never had one
	}
	sh, l, b, body := e.open(s, s.schema, m, level)
	if m.part == partHistogram {
		b = staleHistogram(b, time)
	} else {
		b = sample(b, staleNaN, time, 0)
	}
	sh.end(l, b, body, m)
}

// zeroAt is when, ms, a series that goes up was 0, if that is to be said before a row of it at time; else 0.
func (e *Encoder) zeroAt(s *source, m *metric, row *export.Row, time int64) int64 {
	if !row.Born(int(m.series)) {
		return 0
	}
	start := milli(row.Start(int(m.series)))
	if start >= time || time-start > max(5*e.o.Step.Milliseconds(), zeroWithin) || s.life.after(s.sent, m, start) {
		return 0
	}
	return start
}

// zeroWithin is how long before a row its series may have begun, in ms, for the beginning to be said: rows in between that are
// not sent say that it is not the life's beginning that goes out, and receivers refuse what is old.
const zeroWithin = 5 * 60_000

// addValue puts what a row says of a metric into a layer, and behind a 0 that is to be said before into the next one: it answers which.
func (e *Encoder) addValue(src *export.Source, s *source, m *metric, row *export.Row, level int, time int64, v *reader.Value) int {
	i := int(m.series)
	adds := m.typ != typeGauge // goes up from its start
	var zero, start int64
	if adds {
		zero = e.zeroAt(s, m, row, time)
		if start = milli(row.Start(i)); start >= time {
			start = 0
		}
	}
	if m.part == partHistogram {
		r := src.Series[i].Buckets
		if zero != 0 {
			sh, l, b, body := e.open(s, s.schema, m, level)
			sh.end(l, native(b, r, nil, zero, 0, resetYes), body, m)
			level++
		}
		sh, l, b, body := e.open(s, s.schema, m, level)
		b = native(b, r, v, time, start, 0)
		if e.o.Exemplars && row.HasExemplars() {
			b = sh.exemplars(b, row, i, math.Inf(-1), math.Inf(1))
		}
		sh.end(l, b, body, m)
		src.Seen.Set(i)
		return level
	}
	f := v.Float
	switch m.part {
	case partMin:
		f = v.Min
	case partMax:
		f = v.Max
	case partSum:
		f = v.Sum
	case partCount:
		f = float64(v.Count)
		if v.Kind == reader.Histogram {
			n := v.Zero + v.Above
			for _, c := range v.Buckets {
				n += c
			}
			f = float64(n)
		}
	case partBucket:
		f = float64(e.prefix[min(int(m.bucket)-1, len(e.prefix)-1)])
	default:
		if v.Kind == reader.Stat {
			f = v.Last
		}
	}
	bits := math.Float64bits(f)
	if v.Kind == reader.Stat && math.IsNaN(f) {
		if v.Count == 0 || m.part == partValue {
			return level // nothing was recorded yet
		}
		bits = staleNaN // in this time nothing
	}
	if v.Kind == reader.Stat && m.part == partValue {
		s.recorded.Set(i)
	}
	if zero != 0 {
		sh, l, b, body := e.open(s, s.schema, m, level)
		sh.end(l, sample(b, 0, zero, 0), body, m)
		level++
	}
	sh, l, b, body := e.open(s, s.schema, m, level)
	b = sample(b, bits, time, start)
	if e.o.Exemplars && row.HasExemplars() {
		switch {
		case m.part == partBucket:
			above, most := bounds(src.Series[i].Buckets, int(m.bucket)-1)
			b = sh.exemplars(b, row, i, above, most)
		case m.kind == reader.Counter:
			b = sh.exemplars(b, row, i, math.Inf(-1), math.Inf(1))
		}
	}
	sh.end(l, b, body, m)
	src.Seen.Set(i)
	return level
}

// exemplars appends those of a series that lie in (above, most], with their traces' ids as OpenMetrics names them.
func (s *shard) exemplars(b []byte, row *export.Row, series int, above, most float64) []byte {
	row.Exemplars(series, func(x *reader.Exemplar) bool {
		if x.Value <= above || x.Value > most {
			return true
		}
		var body, packed int
		b, body = pbwire.Open(b, seriesExemplars)
		b, packed = pbwire.Open(b, exemplarLabels)
		if x.SpanID != [8]byte{} {
			b = protowire.AppendVarint(b, uint64(s.symbol("span_id")))
			b = protowire.AppendVarint(b, uint64(s.symbol(hex.EncodeToString(x.SpanID[:]))))
		}
		b = protowire.AppendVarint(b, uint64(s.symbol("trace_id")))
		b = protowire.AppendVarint(b, uint64(s.symbol(hex.EncodeToString(x.TraceID[:]))))
		b = pbwire.Shut(b, packed)
		b = pbwire.Double(b, exemplarValue, x.Value)
		b = pbwire.Varint(b, exemplarTime, uint64(milli(x.Time)))
		b = pbwire.Shut(b, body)
		return true
	})
	return b
}

// bounds are those of classic bucket k, of which the first is the zero bucket and the last the one above all.
func bounds(r reader.BucketRange, k int) (above, most float64) {
	bound := func(k int) float64 { // a bucket's lower bound is the upper one of that before
		return reader.BucketRange{Scale: r.Scale, Min: r.Min + k}.ZeroThreshold()
	}
	above, most = math.Inf(-1), math.Inf(1)
	if k > 0 {
		above = bound(k - 1)
	}
	if k <= r.Count {
		most = bound(k)
	}
	return above, most
}

// addTarget puts target_info beside the rows of one of the source's tables.
func (e *Encoder) addTarget(s *source, row *export.Row, level int, time int64, end bool) {
	if s.target == nil || row.Table != s.targetTable || time <= s.life.target {
		return
	}
	s.life.target = time
	sh, l, b, body := e.open(s, s.own, s.target, level)
	bits := math.Float64bits(1)
	if end {
		bits = staleNaN
	}
	sh.end(l, sample(b, bits, time, 0), body, s.target)
}
