package otlp

import (
	"math"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages of opentelemetry-proto are written straight into a request's buffer: a point is some 80
// bytes there, and would be four allocations as a Go message. Tests read what comes out with the
// generated messages.

// Field numbers, opentelemetry/proto/collector/metrics/v1 and metrics/v1.
const (
	requestResourceMetrics = 1

	resourceMetricsResource = 1
	resourceMetricsScope    = 2
	resourceAttributes      = 1
	scopeMetricsScope       = 1
	scopeMetricsMetrics     = 2
	scopeName               = 1
	scopeVersion            = 2

	metricName        = 1
	metricDescription = 2
	metricUnit        = 3
	metricGauge       = 5
	metricSum         = 7
	metricExponential = 10

	dataPoints      = 1 // of gauge, sum and exponential histogram
	dataTemporality = 2
	dataMonotonic   = 3
	cumulative      = 2 // AGGREGATION_TEMPORALITY_CUMULATIVE

	pointStart      = 2
	pointTime       = 3
	numberDouble    = 4
	numberInt       = 6
	numberAttrs     = 7
	numberFlags     = 8
	histAttrs       = 1
	histCount       = 4
	histSum         = 5
	histScale       = 6
	histZeroCount   = 7
	histPositive    = 8
	histFlags       = 10
	histThreshold   = 14
	bucketsOffset   = 1
	bucketsCounts   = 2
	noRecordedValue = 1 // DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK

	keyValueKey   = 1
	keyValueValue = 2
	anyString     = 1
)

// open begins a nested message whose length is not known yet; shut ends it.
func open(b []byte, field protowire.Number) (out []byte, body int) {
	b = append(protowire.AppendTag(b, field, protowire.BytesType), 0)
	return b, len(b)
}

// shut writes the length in front of the message that began at body. The one byte kept for it is
// often enough; if not, the message moves up.
func shut(b []byte, body int) []byte {
	n := len(b) - body
	size := (bits.Len32(uint32(n)|1) + 6) / 7
	for range size - 1 {
		b = append(b, 0)
	}
	if size > 1 {
		copy(b[body+size-1:], b[body:body+n])
	}
	protowire.AppendVarint(b[:body-1], uint64(n))
	return b
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendFixed(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), v)
}

func appendDouble(b []byte, field protowire.Number, v float64) []byte {
	return appendFixed(b, field, math.Float64bits(v))
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// appendAttribute appends a KeyValue of a string as a field of its parent.
func appendAttribute(b []byte, field protowire.Number, name, value string) []byte {
	b, kv := open(b, field)
	b = protowire.AppendString(protowire.AppendTag(b, keyValueKey, protowire.BytesType), name)
	b, any := open(b, keyValueValue)
	b = protowire.AppendString(protowire.AppendTag(b, anyString, protowire.BytesType), value) // also if empty: it is a string
	return shut(shut(b, any), kv)
}

// partialSuccess reads an ExportMetricsServiceResponse. What is not one says nothing.
func partialSuccess(b []byte) (rejected int64, message string) {
	eachField(b, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) {
		if n != 1 || t != protowire.BytesType {
			return
		}
		eachField(v, func(n protowire.Number, t protowire.Type, v []byte, i uint64) {
			switch {
			case n == 1 && t == protowire.VarintType:
				rejected = int64(i)
			case n == 2 && t == protowire.BytesType:
				message = string(v)
			}
		})
	})
	return rejected, message
}

// rpcStatus reads a google.rpc.Status: its message, and the delay in seconds and nanoseconds of a
// google.rpc.RetryInfo among its details.
func rpcStatus(b []byte) (message string, seconds, nanos int64, retryInfo bool) {
	eachField(b, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) {
		if t != protowire.BytesType {
			return
		}
		if n == 2 {
			message = string(v)
		}
		if n != 3 {
			return
		}
		var url string
		var value []byte
		eachField(v, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) {
			switch {
			case n == 1 && t == protowire.BytesType:
				url = string(v)
			case n == 2 && t == protowire.BytesType:
				value = v
			}
		})
		if url != "type.googleapis.com/google.rpc.RetryInfo" {
			return
		}
		retryInfo = true
		eachField(value, func(n protowire.Number, t protowire.Type, v []byte, _ uint64) {
			if n != 1 || t != protowire.BytesType {
				return
			}
			eachField(v, func(n protowire.Number, t protowire.Type, _ []byte, i uint64) {
				switch {
				case n == 1 && t == protowire.VarintType:
					seconds = int64(i)
				case n == 2 && t == protowire.VarintType:
					nanos = int64(int32(i))
				}
			})
		})
	})
	return message, seconds, nanos, retryInfo
}

// eachField walks a message's fields; it ends at the first that is broken.
func eachField(b []byte, f func(n protowire.Number, t protowire.Type, bytes []byte, varint uint64)) {
	for len(b) > 0 {
		n, t, size := protowire.ConsumeTag(b)
		if size < 0 {
			return
		}
		b = b[size:]
		switch t {
		case protowire.BytesType:
			v, size := protowire.ConsumeBytes(b)
			if size < 0 {
				return
			}
			f(n, t, v, 0)
			b = b[size:]
		case protowire.VarintType:
			v, size := protowire.ConsumeVarint(b)
			if size < 0 {
				return
			}
			f(n, t, nil, v)
			b = b[size:]
		default:
			size := protowire.ConsumeFieldValue(n, t, b)
			if size < 0 {
				return
			}
			b = b[size:]
		}
	}
}
