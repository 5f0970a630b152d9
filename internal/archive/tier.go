package archive

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// tier is one tier's file: a ring of extents. Readers and the writer share it.
type tier struct {
	path   string
	file   File
	header TierHeader
	shared bool // another process writes it: see refresh

	mu      sync.RWMutex // of what follows
	extents []*extent    // by slot; nil: empty
	open    *extent      // that is appended to; nil: none yet
	mark    Mark         // the newest

	evicted, skipped, exemplarsEvicted atomic.Uint64

	w writing // the writer's alone
}

func (t *tier) step() time.Duration { return time.Duration(t.header.Step) }

// size is an extent's.
func (t *tier) size() uint32 { return t.header.ExtentSize }

// at is where an extent's bytes lie in the file.
func (t *tier) at(slot int) int64 { return tierHeaderArea + int64(slot)*int64(t.size()) }

// all are the extents that hold something, by generation, oldest first.
func (t *tier) all() []*extent {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return byGeneration(t.extents)
}

// An extent is one use of a part of a tier's file, by generation. It is not changed but for what grows at its end while
// it is open; what is sealed, and what is reused, is another extent.
type extent struct {
	t          *tier
	slot       int
	generation uint64
	opened     int64 // unix ns
	seed       seed

	trailer  *Trailer                    // nil: it is not sealed
	sections [indexSections]sectionEntry // of a sealed one, offsets in the body of the index
	filter   []byte                      // of a sealed one: empty lets everything pass
	mem      *memIndex                   // of one that is not

	end atomic.Uint32 // behind the last block
}

// limit is where blocks end at the latest.
func (e *extent) limit() uint32 { return e.t.size() - TrailerSize }

// readAt reads n bytes from an offset. Nothing is checked.
func (e *extent) readAt(off, n uint32) ([]byte, error) {
	if uint64(off)+uint64(n) > uint64(e.t.size()) {
		return nil, e.beyond(off, n)
	}
	b := make([]byte, n)
	return b, e.readInto(b, off)
}

func (e *extent) beyond(off, n uint32) error {
	return fmt.Errorf("shmts: archive: %s: extent %d: want at most %d bytes, got %d + %d", e.t.path, e.slot, e.t.size(), off, n)
}

// readInto is readAt into memory that the caller has.
func (e *extent) readInto(b []byte, off uint32) error {
	if n, err := e.t.file.ReadAt(b, e.t.at(e.slot)+int64(off)); n < len(b) {
		return fmt.Errorf("shmts: archive: %s: extent %d: read %d bytes at %d: got %d: %w", e.t.path, e.slot, len(b), off, n, err)
	}
	return nil
}

// check is the check of bytes of this extent.
func (e *extent) check(off uint32, b []byte) uint32 { return e.seed.check(off, b) }

// section reads a section of a sealed extent's index and holds it against its check.
func (e *extent) section(i int) ([]byte, error) { return e.sectionInto(nil, i) }

// sectionInto is section with memory that is used where it is enough.
func (e *extent) sectionInto(b []byte, i int) ([]byte, error) {
	s := e.sections[i]
	off := e.trailer.IndexOffset + BlockHeaderSize + s.Offset
	if uint64(off)+uint64(s.Length) > uint64(e.t.size()) {
		return nil, e.beyond(off, s.Length)
	}
	if uint32(cap(b)) < s.Length {
		b = make([]byte, s.Length)
	}
	b = b[:s.Length]
	if err := e.readInto(b, off); err != nil {
		return nil, err
	}
	if sum := e.check(off, b); sum != s.Check {
		return nil, fmt.Errorf("shmts: archive: %s: extent %d: section %d of the index: want check %#x, got %#x", e.t.path, e.slot, i, s.Check, sum)
	}
	return b, nil
}

// gone tells whether an extent was evicted: what failed in it is then no fault.
func (t *tier) gone(e *extent) bool {
	t.mu.RLock()
	now := (*extent)(nil)
	if e.slot < len(t.extents) {
		now = t.extents[e.slot]
	}
	t.mu.RUnlock()
	if now == nil || now.generation != e.generation {
		return true
	}
	if !t.shared {
		return false
	}
	h, ok := t.readHeader(e.slot)
	return !ok || h.Generation != e.generation
}
