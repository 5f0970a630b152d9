package column

import "encoding/binary"

// pack appends the low bits of integers, width of each, LSB first.
func pack(dst []byte, v []uint64, width uint) []byte {
	if width == 0 {
		return dst
	}
	mask := ^uint64(0) >> (64 - width)
	acc, filled := uint64(0), uint(0)
	for _, x := range v {
		x &= mask
		acc |= x << filled
		if filled += width; filled >= 64 {
			dst = binary.LittleEndian.AppendUint64(dst, acc)
			filled -= 64
			acc = x >> (width - filled) // 0 where it went in as a whole: a shift by 64 leaves nothing
		}
	}
	for ; filled > 0; filled -= min(filled, 8) {
		dst = append(dst, byte(acc))
		acc >>= 8
	}
	return dst
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
