package remotewrite

import (
	"google.golang.org/protobuf/encoding/protowire"

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
