package server

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/query"
)

// The messages of remote read, prometheus/prompb/{remote,types}.proto, field by field: prompb itself needs gogo/protobuf, a second
// library of what is in the daemon already, for five small messages.

// readRequest is prometheus.ReadRequest.
type readRequest struct {
	queries []readQuery
	types   []uint64 // that the client takes, most wanted first
}

type readQuery struct {
	start, end int64 // unix ms, inclusive
	matchers   []*labels.Matcher
	hints      *storage.SelectHints
}

// What a request may be. Nothing of it sizes an allocation by itself.
const (
	maxReadQueries  = 100
	maxReadMatchers = 64
)

// fields calls f with each field of a message: v is a varint's value or fixed bits, b a length-delimited field's bytes.
func fields(b []byte, f func(n protowire.Number, t protowire.Type, v uint64, b []byte) error) error {
	for len(b) > 0 {
		n, t, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		var v uint64
		var inner []byte
		switch t {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			inner, size = protowire.ConsumeBytes(b)
		default:
			size = protowire.ConsumeFieldValue(n, t, b)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := f(n, t, v, inner); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

func (r *readRequest) parse(b []byte) error {
	return fields(b, func(n protowire.Number, t protowire.Type, v uint64, b []byte) error {
		switch {
		case n == 1 && t == protowire.BytesType:
			if len(r.queries) == maxReadQueries {
				return fmt.Errorf("shmts: want at most %d queries, got more", maxReadQueries)
			}
			q := readQuery{}
			if err := q.parse(b); err != nil {
				return err
			}
			r.queries = append(r.queries, q)
		case n == 2 && t == protowire.VarintType:
			r.types = append(r.types, v)
		case n == 2 && t == protowire.BytesType: // packed
			for len(b) > 0 {
				v, size := protowire.ConsumeVarint(b)
				if size < 0 {
					return protowire.ParseError(size)
				}
				r.types = append(r.types, v)
				b = b[size:]
			}
		}
		return nil
	})
}

func (q *readQuery) parse(b []byte) error {
	return fields(b, func(n protowire.Number, t protowire.Type, v uint64, b []byte) error {
		switch {
		case n == 1 && t == protowire.VarintType:
			q.start = int64(v)
		case n == 2 && t == protowire.VarintType:
			q.end = int64(v)
		case n == 3 && t == protowire.BytesType:
			if len(q.matchers) == maxReadMatchers {
				return fmt.Errorf("shmts: want at most %d matchers in a query, got more", maxReadMatchers)
			}
			m, err := parseMatcher(b)
			if err != nil {
				return err
			}
			q.matchers = append(q.matchers, m)
		case n == 4 && t == protowire.BytesType:
			q.hints = &storage.SelectHints{}
			return parseHints(q.hints, b)
		}
		return nil
	})
}

func parseMatcher(b []byte) (*labels.Matcher, error) {
	var kind uint64
	var name, value string
	if err := fields(b, func(n protowire.Number, t protowire.Type, v uint64, b []byte) error {
		switch {
		case n == 1 && t == protowire.VarintType:
			kind = v
		case n == 2 && t == protowire.BytesType:
			name = string(b)
		case n == 3 && t == protowire.BytesType:
			value = string(b)
		}
		return nil
	}); err != nil {
		return nil, err
	}
	if kind > uint64(labels.MatchNotRegexp) { // the numbers are those of the labels package
		return nil, fmt.Errorf("invalid matcher type: want 0 to 3, got %d", kind)
	}
	return query.Matcher(labels.MatchType(kind), name, value)
}

func parseHints(h *storage.SelectHints, b []byte) error {
	return fields(b, func(n protowire.Number, t protowire.Type, v uint64, b []byte) error {
		switch {
		case n == 2 && t == protowire.BytesType:
			h.Func = string(b)
		case t != protowire.VarintType: // grouping is of no use here
		case n == 1:
			h.Step = int64(v)
		case n == 3:
			h.Start = int64(v)
		case n == 4:
			h.End = int64(v)
		case n == 7:
			h.Range = int64(v)
		}
		return nil
	})
}

// message appends a field that is a message.
func message(b []byte, n protowire.Number, write func([]byte) []byte) []byte {
	b = protowire.AppendTag(b, n, protowire.BytesType)
	at := len(b)
	b = write(append(b, make([]byte, binary.MaxVarintLen32)...))
	size := len(b) - at - binary.MaxVarintLen32
	k := binary.PutUvarint(b[at:], uint64(size))
	return append(b[:at+k], b[at+binary.MaxVarintLen32:]...)
}

// Proto3 leaves out what is zero.

func varint(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func double(b []byte, n protowire.Number, v float64) []byte {
	if math.Float64bits(v) == 0 {
		return b
	}
	return oneof(b, n, v)
}

// oneof says which of its fields there is, so it is there even if it is zero.
func oneof(b []byte, n protowire.Number, v float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, n, protowire.Fixed64Type), math.Float64bits(v))
}

func doubles(b []byte, n protowire.Number, list []float64) []byte {
	if len(list) == 0 {
		return b
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.BytesType), uint64(8*len(list)))
	for _, v := range list {
		b = protowire.AppendFixed64(b, math.Float64bits(v))
	}
	return b
}

// valid is a string as JSON shows it too: what is no UTF-8 is refused on the other side, and with it all the answer.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s)) // U+FFFD for each byte that is wrong
}

func appendLabels(b []byte, ls labels.Labels) []byte {
	ls.Range(func(l labels.Label) {
		b = message(b, 1, func(b []byte) []byte {
			b = protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), valid(l.Name))
			return protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), valid(l.Value))
		})
	})
	return b
}

// appendSample is TimeSeries.samples.
func appendSample(b []byte, t int64, v float64) []byte {
	return message(b, 2, func(b []byte) []byte { return varint(double(b, 1, v), 2, uint64(t)) })
}

// appendHistogram is TimeSeries.histograms, of floats.
func appendHistogram(b []byte, t int64, h *histogram.FloatHistogram) []byte {
	return message(b, 4, func(b []byte) []byte {
		b = oneof(b, 2, h.Count)
		b = double(b, 3, h.Sum)
		b = varint(b, 4, protowire.EncodeZigZag(int64(h.Schema)))
		b = double(b, 5, h.ZeroThreshold)
		b = oneof(b, 7, h.ZeroCount)
		b = doubles(appendSpans(b, 8, h.NegativeSpans), 10, h.NegativeBuckets)
		b = doubles(appendSpans(b, 11, h.PositiveSpans), 13, h.PositiveBuckets)
		b = varint(b, 14, uint64(h.CounterResetHint))
		b = varint(b, 15, uint64(t))
		return doubles(b, 16, h.CustomValues)
	})
}

func appendSpans(b []byte, n protowire.Number, spans []histogram.Span) []byte {
	for _, s := range spans {
		b = message(b, n, func(b []byte) []byte {
			return varint(varint(b, 1, protowire.EncodeZigZag(int64(s.Offset))), 2, uint64(s.Length))
		})
	}
	return b
}

// appendChunk is ChunkedSeries.chunks.
func appendChunk(b []byte, c chunkenc.Chunk, from, to int64) []byte {
	return message(b, 2, func(b []byte) []byte {
		b = varint(b, 1, uint64(from))
		b = varint(b, 2, uint64(to))
		b = varint(b, 3, uint64(c.Encoding()))
		return protowire.AppendBytes(protowire.AppendTag(b, 4, protowire.BytesType), c.Bytes())
	})
}
