package column

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
)

// FORMAT.md 17.5.
const (
	riceQuotient = 16 // ones in place of a quotient: a number follows by its length
	maxRice      = 48 // of k
	maxMeanBits  = 62 // of the expected difference: twice of it fits a word
)

// EncodeHistogram appends the counts of k buckets in n rows: counts[row*k+bucket], cumulative, so that each row is mostly
// a little more than the one before. Buckets that are 0 throughout at either end cost nothing.
func (e *Encoder) EncodeHistogram(dst []byte, counts []uint64, n, k int) []byte {
	if n == 0 || k == 0 {
		return dst
	}
	counts = counts[:n*k]
	least, end := k, 0 // of the buckets that are not 0 throughout
	for row := range n {
		r := counts[row*k:][:k]
		for b := 0; b < least; b++ {
			if r[b] != 0 {
				least = b
			}
		}
		for b := k - 1; b >= end; b-- {
			if r[b] != 0 {
				end = b + 1
			}
		}
	}
	if end == 0 {
		return append(dst, 0)
	}
	w := bitWriter{dst: e.stream[:0]}
	length, mean, rice := 0, 0, 0 // of the bucket before
	e.column = slices.Grow(e.column[:0], n)[:n-1]
	for b := least; b < end; b++ {
		first := counts[b]
		l := bits.Len64(first)
		w.change(l - length)
		w.below(first)
		length = l
		if n == 1 {
			continue
		}
		d, sum, changed := e.column, uint64(0), uint64(0)
		before := first
		for i, at := 0, k+b; i < n-1; i, at = i+1, at+k {
			d[i] = counts[at] - before
			sum += d[i]
			changed |= d[i]
			before = counts[at]
		}
		if changed == 0 {
			w.write(0, 1)
			continue
		}
		w.write(1, 1)
		m := (sum + uint64(n-1)/2) / uint64(n-1)
		if bits.Len64(m) > maxMeanBits {
			m = 0
		}
		l = bits.Len64(m)
		w.change(l - mean)
		w.below(m)
		mean = l
		total := uint64(0)
		for i, x := range d {
			if x <= 2*m {
				x = zigzag(x - m)
			}
			d[i] = x
			total += min(x, 1<<40)
		}
		r := bestRice(d, total, rice)
		w.change(r - rice)
		rice = r
		for _, x := range d {
			if q := x >> r; q < riceQuotient {
				w.write(1<<q-1, uint(q)+1)
				w.write(x&(1<<r-1), uint(r))
			} else {
				w.write(1<<riceQuotient-1, riceQuotient)
				w.write(uint64(bits.Len64(x)-1), 6)
				w.below(x)
			}
		}
	}
	e.stream = w.bytes()
	dst = binary.AppendUvarint(dst, uint64(end-least))
	dst = binary.AppendUvarint(dst, uint64(least))
	dst = binary.AppendUvarint(dst, uint64(len(e.stream)))
	return append(dst, e.stream...)
}

// bestRice is the parameter that numbers of a total take least bits with: the best lies at about their mean's length.
func bestRice(d []uint64, total uint64, before int) (best int) {
	least := int(^uint(0) >> 1)
	about := bits.Len64(total / uint64(len(d)))
	for r := max(about-2, 0); r <= min(about+1, maxRice); r++ {
		size := len(d)*(r+1) + int(zigzag(uint64(int64(r-before))))
		for _, x := range d {
			if q := x >> r; q < riceQuotient {
				size += int(q)
			} else {
				size += riceQuotient + 5 + bits.Len64(x) - r - 1
			}
		}
		if size < least {
			least, best = size, r
		}
	}
	return best
}

// histogramHeader answers which buckets are coded, and their bits.
func histogramHeader(in *input, k int) (least, buckets int, stream []byte) {
	w := in.uvarint("a number of buckets")
	if in.err == nil && w > uint64(k) {
		in.fail(in.at-1, fmt.Sprintf("at most %d buckets", k), fmt.Sprint(w))
	}
	if in.err != nil || w == 0 {
		return 0, 0, nil
	}
	l := in.uvarint("a first bucket")
	if in.err == nil && l > uint64(k)-w {
		in.fail(in.at-1, fmt.Sprintf("%d buckets, the last below %d", w, k), fmt.Sprintf("from %d on", l))
	}
	size := in.uvarint("a length")
	if in.err == nil && size > uint64(in.left()) {
		in.fail(in.at-1, fmt.Sprintf("at most the %d bytes that are left", in.left()), fmt.Sprint(size))
	}
	return int(l), int(w), in.bytes(int(size), "buckets")
}

// SkipHistogram passes over the counts of a histogram without decoding them, and answers what follows.
func SkipHistogram(src []byte, n, k int) (rest []byte, err error) {
	if n == 0 || k == 0 {
		return src, nil
	}
	in := input{src: src}
	histogramHeader(&in, k)
	if in.err != nil {
		return nil, in.err
	}
	return src[in.at:], nil
}

// DecodeHistogram reads the counts of k buckets in n rows from the beginning of src, and answers what follows. It uses dst's memory where that
// is enough. An error answers nothing else.
func (d *Decoder) DecodeHistogram(dst []uint64, src []byte, n, k int) (counts []uint64, rest []byte, err error) {
	if n == 0 || k == 0 {
		return dst[:0], src, nil
	}
	in := input{src: src}
	least, buckets, stream := histogramHeader(&in, k)
	if in.err != nil {
		return nil, nil, in.err
	}
	counts = slices.Grow(dst[:0], n*k)[:n*k]
	if buckets < k {
		clear(counts)
	}
	r := bitReader{src: stream}
	length, mean, rice := 0, 0, 0
	corrupt := func(b int, want string, got int) error {
		if r.overrun() {
			return &CorruptError{At: in.at, Want: fmt.Sprintf("bucket %d in %d bytes", b, len(stream)), Got: "the end"}
		}
		return &CorruptError{At: in.at - len(stream) + r.at, Want: fmt.Sprintf("bucket %d: %s", b, want), Got: fmt.Sprint(got)}
	}
	for b := least; b < least+buckets; b++ {
		if length += r.change(); uint(length) > 64 || r.overrun() {
			return nil, nil, corrupt(b, "a length of 0 to 64", length)
		}
		v := r.below(length)
		counts[b] = v
		if n == 1 {
			continue
		}
		if r.read(1) == 0 {
			for at := b + k; at < len(counts); at += k {
				counts[at] = v
			}
			continue
		}
		if mean += r.change(); uint(mean) > maxMeanBits || r.overrun() {
			return nil, nil, corrupt(b, "an expected difference of at most 62 bits", mean)
		}
		m := r.below(mean)
		if rice += r.change(); uint(rice) > maxRice || r.overrun() {
			return nil, nil, corrupt(b, "a parameter of 0 to 48", rice)
		}
		v, ok := r.rices(counts, b, k, v, m, uint(rice))
		if !ok {
			return nil, nil, corrupt(b, "bits of its differences", int(v))
		}
	}
	if !r.ended() {
		return nil, nil, corrupt(least+buckets, "no more than zeros to the end of a byte behind the last one", max(r.filled, 0)+8*(len(stream)-r.at))
	}
	return counts, src[in.at:], nil
}

// rices reads a bucket's differences, which follow its first count v, into its column of counts.
func (r *bitReader) rices(counts []uint64, b, k int, v, mean uint64, rice uint) (uint64, bool) {
	mask := uint64(1)<<rice - 1
	for at := b + k; at < len(counts); at += k {
		if r.filled < riceQuotient+1+int(rice) {
			r.fill()
		}
		var z uint64
		q := uint(bits.TrailingZeros64(^r.acc))
		switch used := q + 1 + rice; {
		case q < riceQuotient && int(used) <= r.filled && used < 64:
			z = uint64(q)<<rice | r.acc>>(q+1)&mask
			r.acc >>= used
			r.filled -= int(used)
		case q < riceQuotient: // near the end, or a parameter so great that it takes two loads
			r.read(q + 1)
			z = uint64(q)<<rice | r.read(rice)
		default:
			r.read(riceQuotient)
			z = r.below(int(r.read(6)) + 1)
		}
		if r.overrun() {
			return 0, false
		}
		if z <= 2*mean {
			z = mean + (z>>1 ^ -(z & 1))
		}
		v += z
		counts[at] = v
	}
	return v, true
}
