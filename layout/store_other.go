//go:build !amd64 || race

package layout

import "sync/atomic"

// storeWords stores the words of a row between the two atomic stores of its
// seq, each with release order: FORMAT.md 10.3's relaxed stores behind a
// release fence are not to be had in Go. Under the race detector too, since it sees
// only sync/atomic.
func storeWords(dst, src []uint64) {
	dst = dst[:len(src)]
	for i, w := range src {
		atomic.StoreUint64(&dst[i], w)
	}
}
