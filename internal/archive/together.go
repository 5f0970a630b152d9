package archive

import "github.com/shmts/shmts/internal/archive/pages"

// Shared is what incarnations that several Finds answered share, as those that one Select found do: sources of one cohort lie in the same blocks,
// and each is then read behind the one before, without going through all of a block again. Up to 16 MiB of blocks are held. It belongs to one
// goroutine, as the reading of those incarnations does. The zero value is ready.
type Shared struct {
	now   *session
	pages pages.Arena // of the blocks
	free  []*loaded   // without data
}

// keepShared is how many bytes of memory, beside that of blocks, are kept from one Next to the next.
const keepShared = 1 << 20

// Add has an incarnation share what is read from now on with those that were added since the last Next.
func (s *Shared) Add(inc *Incarnation) {
	p, ok := inc.parts.(*parts)
	if !ok {
		return
	}
	if s.now == nil {
		s.now = &session{shared: s}
	}
	p.session = s.now
}

// Next lets go of the blocks that are held, and uses their memory for what is read next: the incarnations that were added are not read any more, or by
// themselves.
func (s *Shared) Next() {
	if s.now == nil {
		return
	}
	clear(s.free) // it was enough without
	s.free = s.free[:0]
	size := 0
	for _, b := range s.now.end() {
		l := b.many
		if l == nil {
			continue
		}
		if l.data = nil; size+l.size() <= keepShared {
			s.free = append(s.free, l)
			size += l.size()
		}
	}
	s.now = nil
	s.pages.Reset()
}

// Release is Next, and gives the blocks' memory back to the system.
func (s *Shared) Release() {
	s.Next()
	s.pages.Release()
}

// memory is for some runs of a block, of so many bytes.
func (s *Shared) memory(size int) (l *loaded) {
	if n := len(s.free); n > 0 {
		l, s.free = s.free[n-1], s.free[:n-1]
	} else {
		l = &loaded{}
	}
	l.data = s.pages.Bytes(size)
	return l
}
