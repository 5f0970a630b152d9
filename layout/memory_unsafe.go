//go:build amd64 || arm64 || loong64 || mips64le || ppc64le || riscv64

package layout

import "unsafe"

// Fails to compile if a struct stops having the size that FORMAT.md gives it.
// Little-endian 64-bit hosts only: see the build constraint.
var (
	_ [SuperblockSize]byte   = [unsafe.Sizeof(Superblock{})]byte{}
	_ [SectionSize]byte      = [unsafe.Sizeof(Section{})]byte{}
	_ [TableSize]byte        = [unsafe.Sizeof(Table{})]byte{}
	_ [TierSize]byte         = [unsafe.Sizeof(Tier{})]byte{}
	_ [ControlSize]byte      = [unsafe.Sizeof(Control{})]byte{}
	_ [TableControlSize]byte = [unsafe.Sizeof(TableControl{})]byte{}
	_ [SeriesSize]byte       = [unsafe.Sizeof(Series{})]byte{}
	_ [RowHeaderSize]byte    = [unsafe.Sizeof(RowHeader{})]byte{}
	_ [ExemplarSize]byte     = [unsafe.Sizeof(Exemplar{})]byte{}
)

// Structure is any of the format's structures.
type Structure interface {
	Superblock | Section | Table | Tier | Control | TableControl | Series | RowHeader | Exemplar
}

// Words sees b as words. b must be 8-byte aligned, as mappings are; a tail of
// less than a word is left out. It panics on misaligned memory: that is a bug
// of the caller's, never a matter of what the bytes say.
func Words(b []byte) []uint64 {
	if len(b) < 8 {
		return nil
	}
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(p)%8 != 0 {
		panic("shmts: memory of a segment is not 8-byte aligned")
	}
	return unsafe.Slice((*uint64)(p), len(b)/8)
}

// Bytes sees words as bytes: the reverse of Words.
func Bytes(w []uint64) []byte {
	if len(w) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), len(w)*8)
}

// Address is where w lies, for mmap(2) at a fixed address: a writer that closes
// puts private memory where its segment was.
func Address(w []uint64) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(w))) }

// View sees the words from byte offset off on as a structure. It answers nil
// where the structure would not lie inside w, or off is not a multiple of 8.
// For memory that nobody else writes: private copies, and segments before
// they have a name.
func View[T Structure](w []uint64, off uint64) *T {
	var t T
	n := uint64(unsafe.Sizeof(t)) / 8
	at := off / 8
	if off%8 != 0 || at > uint64(len(w)) || uint64(len(w))-at < n {
		return nil
	}
	return (*T)(unsafe.Pointer(&w[at]))
}
