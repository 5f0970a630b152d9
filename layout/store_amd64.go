//go:build amd64 && !race

package layout

// storeWords stores the words of a row between the two atomic stores of its
// seq. Those are XCHG here: full barriers, which neither the processor nor the
// compiler moves a store across, and x86 keeps plain stores in order. So plain
// ones are enough, 15 times cheaper than atomic.StoreUint64 a word. Elsewhere
// (arm64: a later plain store may overtake STLR) see store_other.go.
func storeWords(dst, src []uint64) {
	dst = dst[:len(src)]
	for i, w := range src {
		dst[i] = w
	}
}
