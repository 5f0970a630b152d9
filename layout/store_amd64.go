//go:build amd64 && !race

package layout

// storeWords stores the words of a row between the two atomic stores of its
// seq. Those are XCHG here: full barriers, which neither the processor nor the
// compiler moves a store across, string and non-temporal ones included. Between
// them the order does not matter, so it is a copy, 20 times cheaper than
// atomic.StoreUint64 a word. Elsewhere (arm64: a later plain store may overtake
// STLR) see store_other.go.
func storeWords(dst, src []uint64) { copy(dst[:len(src)], src) }
