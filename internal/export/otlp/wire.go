package otlp

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/export/pbwire"
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

	temporalityDelta      = 1 // AGGREGATION_TEMPORALITY_DELTA
	temporalityCumulative = 2

	pointStart      = 2
	pointTime       = 3
	numberDouble    = 4
	numberExemplars = 5
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
	histExemplars   = 11
	histThreshold   = 14
	exemplarTime    = 2
	exemplarDouble  = 3
	exemplarSpan    = 4
	exemplarTrace   = 5
	bucketsOffset   = 1
	bucketsCounts   = 2
	noRecordedValue = 1 // DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK

	keyValueKey   = 1
	keyValueValue = 2
	anyString     = 1
)

// Short names for what every message is written with.
func open(b []byte, field protowire.Number) ([]byte, int) { return pbwire.Open(b, field) }
func shut(b []byte, body int) []byte                      { return pbwire.Shut(b, body) }

func appendString(b []byte, field protowire.Number, s string) []byte {
	return pbwire.String(b, field, s)
}

func appendFixed(b []byte, field protowire.Number, v uint64) []byte {
	return pbwire.Fixed(b, field, v)
}

func appendDouble(b []byte, field protowire.Number, v float64) []byte {
	return pbwire.Double(b, field, v)
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	return pbwire.Varint(b, field, v)
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
	pbwire.Each(b, f)
}
