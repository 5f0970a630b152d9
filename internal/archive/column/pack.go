package column

import (
	"encoding/binary"
	"slices"
)

// pack appends the low bits, width of each, LSB first, of by how many divisors integers lie above a base.
func pack(dst []byte, v []uint64, base, divisor uint64, width uint) []byte {
	if width == 0 {
		return dst
	}
	inverse, shift := inverse(divisor)
	size, at := (len(v)*int(width)+7)/8, len(dst)
	dst = slices.Grow(dst, size+8)[:at+size+8] // words are stored whole
	out, o := dst[at:], 0
	mask := ^uint64(0) >> (64 - width)
	acc, filled := uint64(0), uint(0)
	for _, x := range v {
		x = (x - base) >> (shift & 63) * inverse & mask
		acc |= x << (filled & 63)
		if filled += width; filled >= 64 {
			binary.LittleEndian.PutUint64(out[o:], acc)
			o += 8
			filled -= 64
			acc = x >> 1 >> ((width - filled - 1) & 63) // 0 where it went in as a whole
		}
	}
	if filled > 0 {
		binary.LittleEndian.PutUint64(out[o:], acc)
	}
	return dst[:at+size]
}

// unpack reads len(dst) integers of width bits from the beginning of src, which has them all, and perhaps more behind them.
func unpack(dst []uint64, src []byte, width uint) {
	if width == 0 {
		clear(dst)
		return
	}
	mask := ^uint64(0) >> (64 - width)
	i, at := 0, uint(0) // at: bits
	if width <= 57 {
		// A load of 8 bytes holds each integer, wherever in its first byte it begins.
		for ; i < len(dst); i++ {
			p := int(at >> 3)
			if p+8 > len(src) {
				break
			}
			dst[i] = binary.LittleEndian.Uint64(src[p:]) >> (at & 7) & mask
			at += width
		}
	}
	var end [16]byte
	for ; i < len(dst); i++ {
		b, shift := src[at>>3:], at&7
		if len(b) < 9 {
			end = [16]byte{}
			copy(end[:], b)
			b = end[:]
		}
		dst[i] = (binary.LittleEndian.Uint64(b)>>shift | uint64(b[8])<<(64-shift)) & mask
		at += width
	}
}
