package column

import (
	"encoding/binary"
	"math"
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
		return e.constant(dst, at, v[:1], float)
	}
	transform, p := byte(0), plan{}
	diffs := e.diffs[:0] // of p's values, where they are at hand
	if !float {
		p = e.plan(v)
		diffs = e.diffs
	} else if whole, exp, ok := wholes(e.whole, v); ok {
		e.whole, transform = whole, byte(exp)
		p = e.plan(whole)
		if p.size > 6*len(v) { // so many digits are hardly meant as such
			if q := e.plan(v); q.size < p.size {
				transform, p = transformBits, q
			}
		} else {
			diffs = e.diffs
		}
	} else {
		e.whole, transform = whole, transformBits
		p = e.plan(v)
		diffs = e.diffs
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
	packed := p.vals
	if p.codec == codecDelta {
		if len(diffs) == 0 {
			_, _ = e.survey(p.vals)
			diffs = e.diffs
		}
		packed = diffs
	}
	if p.divisor > 1 {
		dst[at] |= hasDivisor
		dst = binary.AppendUvarint(dst, p.divisor)
	}
	dst = append(dst, byte(p.width))
	if p.exceptions > 0 {
		dst[at] |= hasExceptions
		dst = binary.AppendUvarint(dst, uint64(p.exceptions))
	}
	dst = pack(dst, packed, p.base, p.divisor, p.width)
	if p.exceptions > 0 {
		dst = appendExceptions(dst, packed, p.base, p.divisor, p.width)
	}
	return dst
}

// appendExceptions appends where integers are that are longer than a width, and what of them is above it.
func appendExceptions(dst []byte, v []uint64, base, divisor uint64, width uint) []byte {
	inverse, shift := inverse(divisor)
	before, bar := 0, divisor<<width
	for i, x := range v {
		if x -= base; x >= bar {
			dst = binary.AppendUvarint(dst, uint64(i-before))
			dst = binary.AppendUvarint(dst, x>>shift*inverse>>width)
			before = i
		}
	}
	return dst
}

// constant completes a column, whose first byte is at, of values that are all this one.
func (e *Encoder) constant(dst []byte, at int, v []uint64, float bool) []byte {
	c, transform := v[0], 0
	if float {
		whole, exp, ok := wholes(e.whole, v)
		if e.whole, transform = whole, exp; !ok || varintSize(zigzag(whole[0])) > 6 && varintSize(zigzag(c)) < varintSize(zigzag(whole[0])) {
			transform = transformBits
		} else {
			c = whole[0]
		}
	}
	if transform != 0 {
		dst[at] |= hasTransform
		dst = append(dst, byte(transform))
	}
	if c != 0 {
		dst[at] |= hasBase
		dst = binary.AppendVarint(dst, int64(c))
	}
	return dst
}

func constant(v []uint64) bool {
	first := v[0]
	for ; len(v) >= 4; v = v[4:] {
		if (v[0]^first)|(v[1]^first)|(v[2]^first)|(v[3]^first) != 0 {
			return false
		}
	}
	for _, x := range v {
		if x != first {
			return false
		}
	}
	return true
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

// bounds are the least and the greatest of some integers.
type bounds struct{ least, most int64 }

func (b bounds) span() uint64 { return uint64(b.most - b.least) }

// plan is for values that are not all the same. Their differences are in e.diffs then.
func (e *Encoder) plan(v []uint64) plan {
	of, ofDiffs := e.survey(v)
	d := plan{vals: v, codec: codecDelta}
	d.frame(e.diffs, ofDiffs, 0)
	known := uint64(0)
	if span := ofDiffs.span(); span > 0 && bits.Len64(span) <= longSpan && d.divisor == 1 {
		known = 1 // what divides all values above their base divides their differences, and the differences of those
	}
	f := plan{vals: v, codec: codecFrame}
	d.size += varintSize(zigzag(v[0]))
	if known == 1 && ofDiffs.least >= 0 && d.size < leastFrame(v) {
		return d
	}
	if f.frame(v, of, known); d.size < f.size {
		return d
	}
	return f
}

// leastFrame is less than what a frame of rising integers can take, without a divisor. Three quarters of them lie at least as far above the base as
// the one at a quarter: with a smaller width than its length, all those were exceptions.
func leastFrame(v []uint64) int {
	n := len(v)
	size := min((n*bits.Len64(v[n/4]-v[0])+7)/8, 2*(n-n/4)+1) + 1
	if v[0] != 0 {
		size += varintSize(zigzag(v[0]))
	}
	return size
}

// survey makes differences, those of each value to the one before it, and finds the bounds of both.
func (e *Encoder) survey(v []uint64) (values, diffs bounds) {
	n := len(v) - 1
	d := slices.Grow(e.diffs[:0], n)[:n]
	e.diffs = d
	before := v[0]
	rest := v[1:][:len(d)]
	least, most := int64(before), int64(before)
	leastDiff, mostDiff := int64(math.MaxInt64), int64(math.MinInt64)
	for i, x := range rest {
		y := x - before
		d[i] = y
		before = x
		least, most = min(least, int64(x)), max(most, int64(x))
		leastDiff, mostDiff = min(leastDiff, int64(y)), max(mostDiff, int64(y))
	}
	return bounds{least, most}, bounds{leastDiff, mostDiff}
}

// frame finds the base, divisor and width that a frame of integers takes least bytes with. known is the divisor, if that is known; else 0.
func (p *plan) frame(v []uint64, b bounds, known uint64) {
	p.base, p.divisor = uint64(b.least), 1
	if p.base != 0 {
		p.size = varintSize(zigzag(p.base))
	}
	p.size++ // width
	span := b.span()
	if span == 0 {
		return
	}
	if p.divisor = known; known == 0 {
		p.divisor = divisor(v, p.base, span)
	}
	if p.divisor > 1 {
		p.size += varintSize(p.divisor)
	}
	var l lengths
	l.longest = bits.Len64(span / p.divisor)
	if span>>63 == 0 {
		if l.some(v, p.base, p.divisor); p.choose(len(v), &l) {
			return
		}
	}
	l.all(v, p.base, p.divisor)
	p.choose(len(v), &l)
}

// lengths says how many of some integers there are of each length, and which lengths there are, as far as is known.
type lengths struct {
	longest int
	above   int    // of longer ones than this it is known
	there   uint64 // bit l - 1: length l, but for 0
	count   [65]int32
}

// some counts the longest three lengths: that is all that is asked of most integers, and costs a quarter. The integers lie less than 2^63 above
// the base, so that the highest bit of a difference of two is its sign.
func (l *lengths) some(v []uint64, base, divisor uint64) {
	l.above = l.longest
	var bars [3]uint64
	for i := range bars {
		bars[i] = base + divisor<<max(l.longest-1-i, 0)
	}
	x0, x1, x2 := bars[0], bars[1], bars[2]
	n0, n1, n2 := uint64(0), uint64(0), uint64(0)
	for _, x := range v {
		n0 += (x - x0) >> 63
		n1 += (x - x1) >> 63
		n2 += (x - x2) >> 63
	}
	before := uint64(len(v))
	for _, below := range [3]uint64{n0, n1, n2} {
		if l.above == 0 {
			return
		}
		if n := before - below; n > 0 {
			l.count[l.above] = int32(n)
			l.there |= 1 << (l.above - 1)
		}
		before = below
		l.above--
	}
}

// all counts all of them.
func (l *lengths) all(v []uint64, base, divisor uint64) {
	*l = lengths{longest: l.longest}
	inverse, shift := inverse(divisor)
	for _, x := range v {
		n := bits.Len64((x - base) >> (shift & 63) * inverse)
		l.count[n]++
		l.there |= 1 << (uint(n) - 1)
	}
}

// choose finds the width for n integers, with which those that are longer are exceptions. False: too few lengths are known.
func (p *plan) choose(n int, l *lengths) bool {
	best, width, exceptions := (n*l.longest+7)/8, l.longest, 0
	// The width goes down past one length after another. Each exception takes at least two bytes.
	above := 0
	for rest := l.there; ; {
		if rest == 0 && l.above > 0 {
			return false
		} else if rest == 0 {
			break
		}
		top := bits.Len64(rest)
		rest &^= 1 << (top - 1)
		above += int(l.count[top])
		if 2*above+1 >= best {
			break
		}
		if rest == 0 && l.above > 0 {
			return false
		}
		w := bits.Len64(rest)
		size := (n*w+7)/8 + varintSize(uint64(above)) + above*varintSize(uint64(n/above/2))
		for over := l.there &^ rest; over != 0 && size < best; over &= over - 1 {
			k := bits.TrailingZeros64(over) + 1
			size += int(l.count[k]) * ((k - w + 6) / 7)
		}
		if size < best {
			best, width, exceptions = size, w, above
		}
	}
	p.width, p.exceptions = uint(width), exceptions
	p.size += best
	return true
}

// longSpan is of how many bits a span is at most whose integers are looked through for a divisor. Longer ones are of f64s' bits, mostly:
// there, a power of two is all that is worth finding.
const longSpan = 44

// divisor is the greatest common one of integers above a base, the greatest of which lies span above it.
func divisor(v []uint64, base, span uint64) uint64 {
	if span == 1 {
		return 1
	}
	if bits.Len64(span) > longSpan {
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
func inverse(d uint64) (inverse uint64, shift uint) {
	if d == 1 {
		return 1, 0
	}
	shift = uint(bits.TrailingZeros64(d))
	d >>= shift
	inverse = d // right in 3 bits, and in twice as many each time
	for range 5 {
		inverse *= 2 - d*inverse
	}
	return inverse, shift
}

func zigzag(v uint64) uint64 { return v<<1 ^ uint64(int64(v)>>63) }

func varintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
