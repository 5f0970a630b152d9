package column

import (
	"encoding/binary"
	"math/bits"
)

// A bitWriter appends bits, the first one of each byte lowest.
type bitWriter struct {
	dst    []byte
	acc    uint64
	filled uint // of acc, below 64
}

// write appends the low bits of v, at most 64. What is above them must be 0.
func (w *bitWriter) write(v uint64, width uint) {
	w.acc |= v << w.filled
	if w.filled += width; w.filled >= 64 {
		w.dst = binary.LittleEndian.AppendUint64(w.dst, w.acc)
		w.filled -= 64
		w.acc = v >> (width - w.filled)
	}
}

// unary appends n ones, and a zero.
func (w *bitWriter) unary(n uint) {
	for ; n >= 32; n -= 32 {
		w.write(1<<32-1, 32)
	}
	w.write(1<<n-1, n+1)
}

// change appends a small signed number: 0, -1, 1, -2 ... in unary.
func (w *bitWriter) change(d int) { w.unary(uint(zigzag(uint64(int64(d))))) }

// below appends the bits of v below its highest one. A reader knows how many those are.
func (w *bitWriter) below(v uint64) {
	if n := bits.Len64(v); n > 1 {
		w.write(v&^(1<<(n-1)), uint(n-1))
	}
}

// bytes ends the stream with zeros up to the next byte.
func (w *bitWriter) bytes() []byte {
	for ; w.filled > 0; w.filled -= min(w.filled, 8) {
		w.dst = append(w.dst, byte(w.acc))
		w.acc >>= 8
	}
	return w.dst
}

// A bitReader reads what a bitWriter wrote. Behind the end are zeros; whether it got there, overrun says.
type bitReader struct {
	src    []byte
	at     int    // of src: the next byte for acc
	acc    uint64 // bits at hand, lowest first; zeros behind them
	filled int    // how many; less than 0 once it has read beyond the end
}

// fill makes at least 56 bits be at hand, as long as there are so many.
func (r *bitReader) fill() {
	if r.at+8 <= len(r.src) {
		r.acc |= binary.LittleEndian.Uint64(r.src[r.at:]) << uint(r.filled)
		n := (63 - r.filled) >> 3
		r.at += n
		r.filled += n << 3
		r.acc &= 1<<uint(r.filled) - 1
		return
	}
	for r.filled <= 55 && r.at < len(r.src) {
		r.acc |= uint64(r.src[r.at]) << uint(r.filled)
		r.at++
		r.filled += 8
	}
}

// read answers the next bits, at most 64.
func (r *bitReader) read(width uint) uint64 {
	if width > 32 {
		low := r.read(32)
		return low | r.read(width-32)<<32
	}
	if r.filled < int(width) {
		if r.fill(); r.filled < int(width) {
			r.filled = -1
			r.acc, r.at = 0, len(r.src)
			return 0
		}
	}
	v := r.acc & (1<<width - 1)
	r.acc >>= width
	r.filled -= int(width)
	return v
}

// unary answers how many ones come before the next zero, at most 255.
func (r *bitReader) unary() int {
	for n := 0; ; {
		if r.filled < 32 {
			r.fill()
		}
		if r.filled <= 0 {
			r.filled = -1
			return n
		}
		ones := min(bits.TrailingZeros64(^r.acc), r.filled)
		n += ones
		if ones < r.filled {
			r.acc >>= uint(ones + 1)
			r.filled -= ones + 1
			return min(n, 255)
		}
		r.acc, r.filled = 0, 0
		if n > 255 {
			return 255
		}
	}
}

func (r *bitReader) change() int {
	v := uint64(r.unary())
	return int(int64(v>>1 ^ -(v & 1)))
}

// below answers the number of length n whose highest bit is not in the stream.
func (r *bitReader) below(n int) uint64 {
	if n <= 1 {
		return uint64(n)
	}
	return 1<<(n-1) | r.read(uint(n-1))
}

// overrun says that more was read than there is.
func (r *bitReader) overrun() bool { return r.filled < 0 }

// ended says that all was read but zeros up to the end of a byte.
func (r *bitReader) ended() bool {
	return !r.overrun() && r.at == len(r.src) && r.filled < 8 && r.acc == 0
}
