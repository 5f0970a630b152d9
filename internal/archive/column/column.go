// Package column encodes the columns of archive blocks: FORMAT.md section 17.
//
// A column is n values of 64 bits, integers or f64s, some of them perhaps absent. Most columns of real hosts are constant, and blocks have
// few rows: so a header has no byte that says only what is usual, and a column of zeros is a single byte.
//
//	f64 ── decimal or bits ──▶ integers ──▶ constant
//	                                    ├─▶ frame: base + divisor x (packed bits, patched)
//	                                    └─▶ delta: first, and a frame of differences
//
// Buckets of histograms that lie beside each other have much in common and few observations each: they are coded together
// (FORMAT.md 17.5).
//
// What was left out because it earned less than 1 % of any data that was tried: XOR with the value before (differences of bit
// patterns are as small), differences of differences, and constants of 8 plain bytes.
package column

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// Bits of a column's first byte. FORMAT.md 17.1.
const (
	presenceMask = 0x03
	presentAll   = 0x00
	presentNone  = 0x01
	presentSome  = 0x02

	codecMask     = 0x0c
	codecConstant = 0x00
	codecFrame    = 0x04
	codecDelta    = 0x08

	hasBase       = 0x10 // else 0
	hasDivisor    = 0x20 // else 1
	hasExceptions = 0x40 // else none
	hasTransform  = 0x80 // else 0: whole numbers
)

const (
	maxExponent   = 22  // 10^22 is the last power of ten that an f64 holds exactly
	transformBits = 255 // integers are the f64s' bits
)

// CorruptError says what is wrong with a column, and where.
type CorruptError struct {
	At        int // byte of the column
	Want, Got string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("corrupt column: byte %d: want %s, got %s", e.At, e.Want, e.Got)
}

// An Encoder writes columns. It holds what it needs for that from one to the next; it is for one goroutine at a time.
// The zero value is ready.
type Encoder struct {
	present []uint64 // values that are there, where some are not
	whole   []uint64 // integers of f64s
	diffs   []uint64 // of the values that were planned for last
	stream  []byte   // bits of a histogram
	column  []uint64 // one bucket's differences
}

// A Decoder reads columns. What its Decode answers is valid until the next one; it is for one goroutine at a time.
// The zero value is ready.
type Decoder struct {
	vals    []uint64
	present []bool
}

// input is what is left of a column, and where that is. The first error stays; what is read after it is 0.
type input struct {
	src []byte
	at  int
	err error
}

func (in *input) fail(at int, want, got string) {
	if in.err == nil {
		in.err = &CorruptError{At: at, Want: want, Got: got}
	}
}

func (in *input) left() int { return len(in.src) - in.at }

func (in *input) byte(what string) byte {
	if in.err != nil || in.at >= len(in.src) {
		in.fail(in.at, what, "the end")
		return 0
	}
	in.at++
	return in.src[in.at-1]
}

// bytes are the next n.
func (in *input) bytes(n int, what string) []byte {
	if in.err != nil || n > in.left() {
		in.fail(in.at, fmt.Sprintf("%d bytes of %s", n, what), fmt.Sprint(in.left()))
		return nil
	}
	in.at += n
	return in.src[in.at-n : in.at]
}

// uvarint is LEB128 of at most ten bytes and 64 bits.
func (in *input) uvarint(what string) uint64 {
	if in.err != nil {
		return 0
	}
	if in.at < len(in.src) && in.src[in.at] < 0x80 {
		in.at++
		return uint64(in.src[in.at-1])
	}
	v, n := binary.Uvarint(in.src[in.at:])
	if n <= 0 {
		in.fail(in.at, what+" in at most ten bytes and 64 bits", fmt.Sprintf("%d bytes without an end of it", in.left()))
		return 0
	}
	in.at += n
	return v
}

func (in *input) zigzag(what string) uint64 {
	v := in.uvarint(what)
	return v>>1 ^ -(v & 1)
}

// A header is all of a column before its packed bits. FORMAT.md 17.1 to 17.3.
type header struct {
	head       byte
	n, m       int    // values, and those that are present
	bitmap     []byte // nil: all present, or none
	transform  byte
	first      uint64 // delta
	base       uint64
	divisor    uint64
	width      uint
	packed     int // how many integers are packed
	exceptions int
}

func readHeader(in *input, n int, float bool) (h header) {
	h.n, h.m, h.divisor = n, n, 1
	h.head = in.byte("a column")
	switch {
	case h.head&presenceMask == presentNone:
		if h.m = 0; h.head != presentNone {
			in.fail(in.at-1, "nothing but 1 in a column without values", fmt.Sprintf("%#02x", h.head))
		}
		return h
	case h.head&presenceMask == presentSome:
		h.bitmap = in.bytes((n+7)/8, "a bitmap")
		h.m = 0
		for _, b := range h.bitmap {
			h.m += bits.OnesCount8(b)
		}
		if tail := n & 7; in.err == nil && (h.m == 0 || tail != 0 && h.bitmap[len(h.bitmap)-1]>>tail != 0) {
			in.fail(in.at, fmt.Sprintf("a bitmap with bits, and of %d values", n), fmt.Sprintf("%#x", h.bitmap))
		}
	case h.head&presenceMask != presentAll:
		in.fail(in.at-1, "presence 0 to 2", "3")
	}
	codec := h.head & codecMask
	if codec > codecDelta || codec == codecConstant && h.head&(hasDivisor|hasExceptions) != 0 || !float && h.head&hasTransform != 0 {
		in.fail(in.at-1, fmt.Sprintf("the first byte of a column (f64: %v)", float), fmt.Sprintf("%#02x", h.head))
	}
	if h.head&hasTransform != 0 {
		if h.transform = in.byte("a transform"); h.transform > maxExponent && h.transform != transformBits {
			in.fail(in.at-1, "transform 0 to 22, or 255", fmt.Sprint(h.transform))
		}
	}
	h.packed = h.m
	if codec == codecDelta {
		h.first = in.zigzag("a first value")
		h.packed--
	}
	if h.head&hasBase != 0 {
		h.base = in.zigzag("a base")
	}
	if codec == codecConstant {
		return h
	}
	if h.head&hasDivisor != 0 {
		if h.divisor = in.uvarint("a divisor"); h.divisor == 0 && in.err == nil {
			in.fail(in.at-1, "a divisor of at least 1", "0")
		}
	}
	if h.width = uint(in.byte("a width")); h.width > 64 {
		in.fail(in.at-1, "a width of 0 to 64", fmt.Sprint(h.width))
	}
	if h.head&hasExceptions != 0 {
		x := in.uvarint("a number of exceptions")
		if in.err == nil && (x > uint64(h.packed) || h.width == 64) {
			in.fail(in.at-1, fmt.Sprintf("at most %d exceptions, and a width below 64 (%d)", h.packed, h.width), fmt.Sprint(x))
			x = 0
		}
		h.exceptions = int(x)
	}
	return h
}

// size is how many bytes the packed integers take.
func (h *header) size() int { return (h.packed*int(h.width) + 7) / 8 }

// Skip passes over one column of n values without decoding them, and answers what follows it. It sees less of what is corrupt than
// Decode does.
func Skip(src []byte, n int, float bool) (rest []byte, err error) {
	if n == 0 {
		return src, nil
	}
	in := input{src: src}
	h := readHeader(&in, n, float)
	if h.m != 0 && h.head&codecMask != codecConstant {
		in.bytes(h.size(), "packed integers")
		for range h.exceptions {
			in.uvarint("a position")
			in.uvarint("high bits")
			if in.err != nil {
				break
			}
		}
	}
	if in.err != nil {
		return nil, in.err
	}
	return src[in.at:], nil
}
