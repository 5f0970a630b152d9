// Package pages is memory that the collector knows nothing of: for some MB that are needed for some milliseconds a minute. Made anew each time, they
// would make the collector run; kept, they would be memory that does nothing.
package pages

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
)

// size is an Arena's, addresses that are no memory until they are used. What does not fit comes from the heap.
const size = 32 << 20

// align is that of what is answered, bytes: a cache line.
const align = 64

// An Arena answers memory piece by piece, and takes all of it back at once. It belongs to one goroutine. The zero value is ready, and has no memory.
type Arena struct {
	m    *mapping
	used int // of m, bytes
}

type mapping struct{ b []byte }

// Bytes are n bytes, as somebody left them, until Reset or Release, or the Arena is gone: who uses them then sees others'.
func (a *Arena) Bytes(n int) []byte {
	if n > size-a.used || n == 0 || !a.mapped() {
		return make([]byte, n)
	}
	b := a.m.b[a.used : a.used+n : a.used+n]
	a.used = (a.used + n + align - 1) &^ (align - 1)
	return b
}

// Words are n words, as Bytes.
func (a *Arena) Words(n int) []uint64 {
	if n == 0 {
		return nil
	}
	return layout.Words(a.Bytes(8 * n))
}

// mapped sees to it that there are addresses.
func (a *Arena) mapped() bool {
	if a.m != nil {
		return true
	}
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return false
	}
	a.m = &mapping{b}
	runtime.AddCleanup(a.m, func(b []byte) { _ = unix.Munmap(b) }, b)
	return true
}

// Reset takes back what was answered, to be answered again.
func (a *Arena) Reset() { a.used = 0 }

// Release takes back what was answered, and gives the memory back to the system.
func (a *Arena) Release() {
	if a.used = 0; a.m != nil {
		_ = unix.Madvise(a.m.b, unix.MADV_DONTNEED)
	}
}
