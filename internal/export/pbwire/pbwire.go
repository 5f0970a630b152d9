// Package pbwire writes protobuf messages straight into a request's buffer: a point is some 80 bytes there, and would be
// several allocations as a Go message.
package pbwire

import (
	"math"
	"math/bits"

	"google.golang.org/protobuf/encoding/protowire"
)

// Open begins a nested message whose length is not known yet; Shut ends it.
func Open(b []byte, field protowire.Number) (out []byte, body int) {
	b = append(protowire.AppendTag(b, field, protowire.BytesType), 0)
	return b, len(b)
}

// Shut writes the length in front of the message that began at body. The one byte kept for it is
// often enough; if not, the message moves up.
func Shut(b []byte, body int) []byte {
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

// String appends a field that is left out if it is empty.
func String(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// Fixed appends a fixed64 field.
func Fixed(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(b, field, protowire.Fixed64Type), v)
}

// Double appends a double field.
func Double(b []byte, field protowire.Number, v float64) []byte {
	return Fixed(b, field, math.Float64bits(v))
}

// Varint appends an integer field of any kind but sint.
func Varint(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

// Each walks a message's fields; it ends at the first that is broken, and tells whether there was none. bytes is of a field
// with a length, number the bits of any other.
func Each(b []byte, f func(n protowire.Number, t protowire.Type, bytes []byte, number uint64)) bool {
	for len(b) > 0 {
		n, t, size := protowire.ConsumeTag(b)
		if size < 0 {
			return false
		}
		b = b[size:]
		var bytes []byte
		var number uint64
		switch t {
		case protowire.BytesType:
			bytes, size = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			number, size = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			number, size = protowire.ConsumeFixed64(b)
		default:
			size = protowire.ConsumeFieldValue(n, t, b)
		}
		if size < 0 {
			return false
		}
		f(n, t, bytes, number)
		b = b[size:]
	}
	return true
}
