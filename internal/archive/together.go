package archive

// Shared is what incarnations that several Finds answered share, as those that one Select found do: sources of one cohort lie in the same blocks,
// and each is then read behind the one before, without going through all of a block again. Up to 16 MiB of blocks are held. It belongs to one
// goroutine, as the reading of those incarnations does. The zero value is ready.
type Shared struct {
	now  *session
	free []*loaded
}

// keepShared is how many bytes of blocks' memory are kept from one Next to the next.
const keepShared = 8 << 20

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
		if l := b.many; l != nil && size+l.size() <= keepShared {
			s.free = append(s.free, l)
			size += l.size()
		}
	}
	s.now = nil
}

// Release lets go of all memory.
func (s *Shared) Release() { *s = Shared{} }

// take is memory that is free: the smallest that is large enough for some bytes, else the largest, so that what is too small goes. nil: there is none.
func (s *Shared) take(size int) *loaded {
	if len(s.free) == 0 {
		return nil
	}
	best := 0
	for i, l := range s.free {
		switch n, least := cap(l.data), cap(s.free[best].data); {
		case least < size && n > least, n >= size && n < least:
			best = i
		}
	}
	l := s.free[best]
	s.free[best] = s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	return l
}
