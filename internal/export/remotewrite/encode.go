package remotewrite

import (
	"encoding/hex"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/pbwire"
	"github.com/shmts/shmts/reader"
)

// Field numbers of io.prometheus.write.v2.
const (
	requestSymbols    = 4
	requestTimeseries = 5

	seriesLabels     = 1
	seriesSamples    = 2
	seriesHistograms = 3
	seriesExemplars  = 4
	seriesMetadata   = 5

	sampleValue = 1
	sampleTime  = 2
	sampleStart = 3

	exemplarLabels = 1
	exemplarValue  = 2
	exemplarTime   = 3

	metadataType = 1
	metadataHelp = 3
	metadataUnit = 4

	histCount     = 1
	histSum       = 3
	histSchema    = 4
	histThreshold = 5
	histZero      = 6
	histSpans     = 11 // of positive buckets
	histDeltas    = 12
	histResetHint = 14
	histTime      = 15
	histStart     = 17

	spanOffset = 1
	spanLength = 2

	resetYes = 1 // RESET_HINT_YES: the first one after a reset
)

// staleNaN says that there is no value any more.
const staleNaN = 0x7ff0000000000002

// shard is one request in the making. A series is always in the same one, as long as there are as many shards.
type shard struct {
	symbols []byte   // the request's fields of symbols
	layers  []*layer // of time series, the first of which are used
	used    int
	points  int // samples and histograms of all layers
	size    int // bytes of all layers

	ids  map[string]uint32 // of symbols
	refs map[*schema]*refs
	// What was written last: the next one is of the same, mostly.
	schema *schema
	of     *refs
	source *source
	its    []uint32 // numbers of the source's labels, name and value

	batch    uint64 // counts requests
	body     []byte // the request, compressed, when it was sent once
	scratch  []byte
	ready    bool // body holds what is to be sent: as 2.0, or a layer as 1.0
	v1       bool
	sent     int // layers that are done with, in 1.0
	attempts int
}

// A layer holds at most one sample of each series: the first of the batch, the second. A request of 2.0 is all of them together, since its
// receiver takes each sample by itself. In 1.0 each is a request: there a receiver such as Prometheus refuses all of a
// request if it refuses one sample of it, and it refuses what it has already unless that is a series' newest. So a request that is
// repeated, after an answer was lost or by another daemon of the same host, does no harm.
type layer struct {
	series []byte
	points int
}

func newShard() *shard {
	return &shard{ids: map[string]uint32{}, refs: map[*schema]*refs{}}
}

// layer is the n-th.
func (s *shard) layer(n int) *layer {
	for len(s.layers) <= n {
		s.layers = append(s.layers, &layer{})
	}
	s.used = max(s.used, n+1)
	return s.layers[n]
}

// refs are the numbers in a request of a schema's symbols; 0: none yet, but for the first, the empty one.
type refs struct {
	batch uint64
	ids   []uint32
}

// maxLayers bounds those that a shard has memory for.
const maxLayers = 64

// maxRefs bounds the schemas that a shard has memory for.
const maxRefs = 256

func (s *shard) reset() {
	for _, l := range s.layers[:s.used] {
		l.series, l.points = l.series[:0], 0
	}
	if len(s.layers) > maxLayers {
		s.layers = s.layers[:maxLayers]
	}
	s.symbols, s.ready = s.symbols[:0], false
	s.used, s.points, s.size, s.sent, s.attempts = 0, 0, 0, 0, 0
	s.schema, s.of, s.source = nil, nil, nil
	clear(s.ids)
	s.batch++
	if len(s.refs) > maxRefs {
		clear(s.refs)
	}
}

// symbol is a string's number in the request.
func (s *shard) symbol(text string) uint32 {
	if text == "" {
		return 0
	}
	id, ok := s.ids[text]
	if !ok {
		if len(s.symbols) == 0 { // the first one is empty
			s.symbols = protowire.AppendString(protowire.AppendTag(s.symbols, requestSymbols, protowire.BytesType), "")
		}
		id = uint32(len(s.ids)) + 1
		s.ids[text] = id
		s.symbols = protowire.AppendString(protowire.AppendTag(s.symbols, requestSymbols, protowire.BytesType), text)
	}
	return id
}

// ref is the number in the request of a schema's symbol.
func (s *shard) ref(n uint32) uint32 {
	if s.of.ids[n] == 0 && n != 0 {
		s.of.ids[n] = s.symbol(s.schema.symbols[n])
	}
	return s.of.ids[n]
}

// use has ref and labels speak of a schema, and of a source.
func (s *shard) use(sc *schema, src *source) {
	if s.schema != sc {
		r := s.refs[sc]
		if r == nil {
			r = &refs{batch: s.batch, ids: make([]uint32, len(sc.symbols))}
			if sc.tables != nil { // else it is one source's alone
				s.refs[sc] = r
			}
		}
		if r.batch != s.batch {
			clear(r.ids)
			r.batch = s.batch
		}
		s.schema, s.of = sc, r
	}
	if s.source != src {
		s.source, s.its = src, s.its[:0]
		for _, l := range src.labels {
			s.its = append(s.its, s.symbol(l.name), s.symbol(l.value))
		}
	}
}

// begin begins a time series: its labels.
func (s *shard) begin(l *layer, m *metric) (b []byte, body int) {
	b, body = pbwire.Open(l.series, requestTimeseries)
	b, packed := pbwire.Open(b, seriesLabels)
	for k := 0; k < len(m.labels); k++ {
		if n := m.labels[k]; n < 0 {
			b = protowire.AppendVarint(b, uint64(s.its[2*^n]))
			b = protowire.AppendVarint(b, uint64(s.its[2*^n+1]))
		} else {
			b = protowire.AppendVarint(b, uint64(s.ref(uint32(n))))
		}
	}
	return pbwire.Shut(b, packed), body
}

// end ends it: its metadata.
func (s *shard) end(l *layer, b []byte, body int, m *metric) {
	b, meta := pbwire.Open(b, seriesMetadata)
	b = pbwire.Varint(b, metadataType, uint64(m.typ))
	if ref := s.ref(m.help); ref != 0 {
		b = pbwire.Varint(b, metadataHelp, uint64(ref))
	}
	if ref := s.ref(m.unit); ref != 0 {
		b = pbwire.Varint(b, metadataUnit, uint64(ref))
	}
	before := len(l.series)
	l.series = pbwire.Shut(pbwire.Shut(b, meta), body)
	l.points++
	s.points++
	s.size += len(l.series) - before
}

// sample appends a float; start 0: it has none.
func sample(b []byte, bits uint64, time, start int64) []byte {
	b, body := pbwire.Open(b, seriesSamples)
	if bits != 0 {
		b = pbwire.Fixed(b, sampleValue, bits)
	}
	b = pbwire.Varint(b, sampleTime, uint64(time))
	if start != 0 {
		b = pbwire.Varint(b, sampleStart, uint64(start))
	}
	return pbwire.Shut(b, body)
}

// native appends a histogram; nil: an empty one.
func native(b []byte, r reader.BucketRange, v *reader.Value, time, start int64, hint uint64) []byte {
	b, body := pbwire.Open(b, seriesHistograms)
	var empty reader.Value
	if v == nil {
		v = &empty
	}
	count := v.Zero + v.Above
	for _, n := range v.Buckets {
		count += n
	}
	b = pbwire.Varint(b, histCount, count) // one of a oneof: also if it is 0
	if v.Sum != 0 {
		b = pbwire.Double(b, histSum, v.Sum)
	}
	if r.Scale != 0 {
		b = pbwire.Varint(b, histSchema, protowire.EncodeZigZag(int64(r.Scale)))
	}
	b = pbwire.Double(b, histThreshold, r.ZeroThreshold())
	b = pbwire.Varint(b, histZero, v.Zero)
	if count != v.Zero {
		b = buckets(b, r, v)
	}
	if hint != 0 {
		b = pbwire.Varint(b, histResetHint, hint)
	}
	b = pbwire.Varint(b, histTime, uint64(time))
	if start != 0 {
		b = pbwire.Varint(b, histStart, uint64(start))
	}
	return pbwire.Shut(b, body)
}

// maxGap is how many empty buckets are written as such rather than begin a span.
const maxGap = 2

// buckets appends spans and deltas of those that are filled. Prometheus names a bucket by its upper bound's exponent: bucket k
// of the row is of index Min+k, and Prometheus's is one more. What lies above them all is in one bucket more.
func buckets(b []byte, r reader.BucketRange, v *reader.Value) []byte {
	at := func(k int) uint64 {
		if k == len(v.Buckets) {
			return v.Above
		}
		return v.Buckets[k]
	}
	n := len(v.Buckets) + 1
	// from and to are where a span begins and ends; it takes short gaps along.
	next := 0 // Prometheus's index behind the last span
	span := func(from, to int) {
		var body int
		b, body = pbwire.Open(b, histSpans)
		index := r.Min + from + 1
		if index != next {
			b = pbwire.Varint(b, spanOffset, protowire.EncodeZigZag(int64(index-next)))
		}
		b = pbwire.Varint(b, spanLength, uint64(to-from))
		b = pbwire.Shut(b, body)
		next = index + to - from
	}
	spans(n, at, span)
	b, packed := pbwire.Open(b, histDeltas)
	before := uint64(0)
	spans(n, at, func(from, to int) {
		for k := from; k < to; k++ {
			c := at(k)
			b = protowire.AppendVarint(b, protowire.EncodeZigZag(int64(c-before)))
			before = c
		}
	})
	return pbwire.Shut(b, packed)
}

func spans(n int, at func(int) uint64, yield func(from, to int)) {
	from, last := -1, 0
	for k := range n {
		if at(k) == 0 {
			continue
		}
		if from >= 0 && k-last > maxGap+1 {
			yield(from, last+1)
			from = k
		}
		if from < 0 {
			from = k
		}
		last = k
	}
	if from >= 0 {
		yield(from, last+1)
	}
}

// staleHistogram appends the end of a histogram.
func staleHistogram(b []byte, time int64) []byte {
	b, body := pbwire.Open(b, seriesHistograms)
	b = pbwire.Varint(b, histCount, 0)
	b = pbwire.Fixed(b, histSum, staleNaN)
	b = pbwire.Varint(b, histZero, 0)
	b = pbwire.Varint(b, histTime, uint64(time))
	return pbwire.Shut(b, body)
}

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
