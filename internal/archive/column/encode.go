package column

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Encode appends a column of values: integers, or the bits of f64s. present is nil when all are there, else it
// says of each value whether it is, and what those are that are not does not matter. A column without values is no bytes.
func (e *Encoder) Encode(dst []byte, vals []uint64, present []bool, float bool) []byte {
	if len(vals) == 0 {
		return dst
	}
	head := byte(presentAll)
	v := vals
	if present != nil {
		e.present = e.present[:0]
		for i, there := range present[:len(vals)] {
			if there {
				e.present = append(e.present, vals[i])
			}
		}
		if len(e.present) == 0 {
			return append(dst, presentNone)
		}
		if len(e.present) < len(vals) {
			head, v = presentSome, e.present
		}
	}
	at := len(dst)
	dst = append(dst, head)
	if head == presentSome {
		dst = append(dst, make([]byte, (len(vals)+7)/8)...)
		bitmap := dst[at+1:]
		for i, there := range present[:len(vals)] {
			if there {
				bitmap[i>>3] |= 1 << (i & 7)
			}
		}
	}
	if constant(v) {
		v = v[:1]
	}
	transform, p := byte(0), plan{}
	if !float {
		p = e.plan(v)
	} else if whole, exp, ok := wholes(e.whole, v); ok {
		e.whole, transform = whole, byte(exp)
		p = e.plan(whole)
		if p.size > 6*len(v) { // so many digits are hardly meant as such
			if q := e.plan(v); q.size < p.size {
				transform, p = transformBits, q
			}
		}
	} else {
		e.whole, transform = whole, transformBits
		p = e.plan(v)
	}
	if transform != 0 {
		dst[at] |= hasTransform
		dst = append(dst, transform)
	}
	dst[at] |= p.codec
	if p.codec == codecDelta {
		dst = binary.AppendVarint(dst, int64(p.vals[0]))
	}
	if p.base != 0 {
		dst[at] |= hasBase
		dst = binary.AppendVarint(dst, int64(p.base))
	}
	if p.codec == codecConstant {
		return dst
	}
	packed := p.vals
	if p.codec == codecDelta {
		packed = differences(&e.diffs, p.vals)
	}
	if p.divisor > 1 {
		dst[at] |= hasDivisor
		dst = binary.AppendUvarint(dst, p.divisor)
	}
	e.scaled = slices.Grow(e.scaled[:0], len(packed))[:len(packed)]
	subtract(e.scaled, packed, p.base, p.divisor)
	dst = append(dst, byte(p.width))
	if p.exceptions > 0 {
		dst[at] |= hasExceptions
		dst = binary.AppendUvarint(dst, uint64(p.exceptions))
	}
	dst = pack(dst, e.scaled, p.width)
	if p.exceptions > 0 {
		before := 0
		for i, x := range e.scaled {
			if high := x >> p.width; high != 0 {
				dst = binary.AppendUvarint(dst, uint64(i-before))
				dst = binary.AppendUvarint(dst, high)
				before = i
			}
		}
	}
	return dst
}

func constant(v []uint64) bool {
	for _, x := range v {
		if x != v[0] {
			return false
		}
	}
	return true
}

// subtract answers by how many divisors integers lie above a base.
func subtract(dst, v []uint64, base, divisor uint64) {
	inverse, shift := inverse(divisor)
	for i, x := range v {
		dst[i] = (x - base) >> shift * inverse
	}
}

// A plan is how integers would be written, and in about how many bytes: only the distances of exceptions are estimated.
type plan struct {
	vals       []uint64
	codec      byte
	base       uint64
	divisor    uint64
	width      uint
	exceptions int
	size       int
}

func (e *Encoder) plan(v []uint64) plan {
	if len(v) == 1 {
		return plan{vals: v, codec: codecConstant, base: v[0], size: varintSize(zigzag(v[0]))}
	}
	f := frame(v)
	f.vals, f.codec = v, codecFrame
	d := frame(differences(&e.diffs, v))
	d.vals, d.codec = v, codecDelta
	if d.size += varintSize(zigzag(v[0])); d.size < f.size {
		return d
	}
	return f
}

// differences are those of each value to the one before it.
func differences(scratch *[]uint64, v []uint64) []uint64 {
	d := slices.Grow((*scratch)[:0], len(v))[:len(v)-1]
	*scratch = d
	before := v[0]
	for i, x := range v[1:] {
		d[i] = x - before
		before = x
	}
	return d
}

// frame finds the base, divisor and width that a frame of integers takes least bytes with.
func frame(v []uint64) plan {
	least, most := int64(v[0]), int64(v[0])
	for _, x := range v {
		least, most = min(least, int64(x)), max(most, int64(x))
	}
	p := plan{base: uint64(least), divisor: 1}
	if p.base != 0 {
		p.size = varintSize(zigzag(p.base))
	}
	p.size++ // width
	span := uint64(most - least)
	if span == 0 {
		return p
	}
	p.divisor = divisor(v, p.base, span)
	if p.divisor > 1 {
		p.size += varintSize(p.divisor)
	}
	// How many integers there are of each length, and which lengths there are.
	var count [65]int32
	lengths := uint64(0) // bit l - 1: length l, but for 0
	if p.divisor == 1 {
		for _, x := range v {
			l := bits.Len64(x - p.base)
			count[l]++
			lengths |= 1 << (uint(l) - 1)
		}
	} else {
		inverse, shift := inverse(p.divisor)
		for _, x := range v {
			l := bits.Len64((x - p.base) >> shift * inverse)
			count[l]++
			lengths |= 1 << (uint(l) - 1)
		}
	}
	p.width = uint(bits.Len64(lengths))
	best := (len(v)*int(p.width) + 7) / 8
	// The width goes down past one length after another. Each exception takes at least two bytes.
	above := 0
	for rest := lengths; rest != 0; {
		top := bits.Len64(rest)
		rest &^= 1 << (top - 1)
		above += int(count[top])
		if 2*above+1 >= best {
			break
		}
		width := bits.Len64(rest)
		size := (len(v)*width+7)/8 + varintSize(uint64(above)) + above*varintSize(uint64(len(v)/above/2))
		for over := lengths &^ rest; over != 0 && size < best; over &= over - 1 {
			l := bits.TrailingZeros64(over) + 1
			size += int(count[l]) * ((l - width + 6) / 7)
		}
		if size < best {
			best, p.width, p.exceptions = size, uint(width), above
		}
	}
	p.size += best
	return p
}

// divisor is the greatest common one of integers above a base, the greatest of which lies span above it.
// Spans of very many bits are those of f64s' bits, mostly: there, a power of two is all that is worth finding.
func divisor(v []uint64, base, span uint64) uint64 {
	if bits.Len64(span) > 44 {
		all := uint64(0)
		for _, x := range v {
			all |= x - base
		}
		return all & -all
	}
	g := span
	for _, x := range v {
		if x -= base; x != 0 && x%g != 0 {
			if g = gcd(g, x); g == 1 {
				break
			}
		}
	}
	return g
}

// gcd is Stein's: a division of words costs more than some rounds of it.
func gcd(a, b uint64) uint64 {
	zeros := bits.TrailingZeros64(a | b)
	a >>= bits.TrailingZeros64(a)
	for b != 0 {
		b >>= bits.TrailingZeros64(b)
		a, b = min(a, b), max(a, b)-min(a, b)
	}
	return a << zeros
}

// inverse answers how to divide what is a multiple of d: shift, and multiply modulo 2^64.
func inverse(d uint64) (inverse uint64, shift int) {
	shift = bits.TrailingZeros64(d)
	d >>= shift
	inverse = d // right in 3 bits, and in twice as many each time
	for range 5 {
		inverse *= 2 - d*inverse
	}
	return inverse, shift
}

func zigzag(v uint64) uint64 { return v<<1 ^ uint64(int64(v)>>63) }

func varintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
