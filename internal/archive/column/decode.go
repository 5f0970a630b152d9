package column

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// Decode reads one column of n values from the beginning of src, and answers what follows it. Values are integers, or the bits of f64s;
// those that are absent are 0. present is nil if all are there. vals and present are the Decoder's, until the next call.
// An error answers nothing else.
func (d *Decoder) Decode(src []byte, n int, float bool) (vals []uint64, present []bool, rest []byte, err error) {
	if n == 0 {
		return d.vals[:0], nil, src, nil
	}
	in := input{src: src}
	h := readHeader(&in, n, float)
	if in.err != nil {
		return nil, nil, nil, in.err
	}
	d.vals = slices.Grow(d.vals[:0], n)[:n]
	vals = d.vals[:h.m]
	switch {
	case h.m == 0:
	case h.head&codecMask == codecConstant:
		v := h.base
		if float {
			v = value(v, h.transform)
		}
		for i := range vals {
			vals[i] = v
		}
	default:
		if err := integers(&in, &h, vals); err != nil {
			return nil, nil, nil, err
		}
		if float && h.transform != transformBits {
			scale := tens[h.transform]
			if h.transform == 0 {
				for i, v := range vals {
					vals[i] = math.Float64bits(float64(int64(v)))
				}
			} else {
				for i, v := range vals {
					vals[i] = math.Float64bits(float64(int64(v)) / scale)
				}
			}
		}
	}
	if h.head&presenceMask != presentAll {
		present = d.spread(&h)
	}
	return d.vals, present, src[in.at:], nil
}

func value(v uint64, transform byte) uint64 {
	if transform == transformBits {
		return v
	}
	return math.Float64bits(float64(int64(v)) / tens[transform])
}

// integers decodes a frame or a delta into vals, which is as long as there are values.
func integers(in *input, h *header, vals []uint64) error {
	k := vals[len(vals)-h.packed:]
	from := in.at
	in.bytes(h.size(), "packed integers")
	if in.err != nil {
		return in.err
	}
	unpack(k, in.src[from:], h.width)
	before := -1
	for range h.exceptions {
		at := in.at
		position, high := in.uvarint("a position"), in.uvarint("high bits")
		if in.err != nil {
			return in.err
		}
		if before < 0 {
			position++ // counted from -1: each further one is beyond the one before
		}
		if position == 0 || position > uint64(h.packed-1-before) {
			in.fail(at, fmt.Sprintf("a position behind %d and below %d", before, h.packed), fmt.Sprintf("%d on", position))
			return in.err
		}
		if high == 0 || bits.Len64(high) > 64-int(h.width) {
			in.fail(at, fmt.Sprintf("high bits, at most %d", 64-h.width), fmt.Sprintf("%#x", high))
			return in.err
		}
		before += int(position)
		k[before] |= high << h.width
	}
	if h.head&codecMask == codecDelta {
		v := h.first
		vals[0] = v
		if h.divisor == 1 {
			for i, x := range k {
				v += h.base + x
				k[i] = v
			}
		} else {
			for i, x := range k {
				v += h.base + x*h.divisor
				k[i] = v
			}
		}
	} else if h.base != 0 || h.divisor != 1 {
		for i, x := range k {
			k[i] = h.base + x*h.divisor
		}
	}
	return nil
}

// spread moves the values, which lie at the beginning, to where they belong.
func (d *Decoder) spread(h *header) []bool {
	d.present = slices.Grow(d.present[:0], h.n)[:h.n]
	if h.m == 0 {
		clear(d.present)
		clear(d.vals)
		return d.present
	}
	from := h.m
	for i := h.n - 1; i >= 0; i-- {
		there := h.bitmap[i>>3]>>(i&7)&1 != 0
		d.present[i] = there
		if there {
			from--
			d.vals[i] = d.vals[from]
		} else {
			d.vals[i] = 0
		}
	}
	return d.present
}
