// Package exemplars keeps the newest exemplars of all segments in memory, so that a ring of a few slots may go round between two
// flushes or exports: of each segment they are taken over at each poll, if there are any new ones.
//
//	segment's ring ─▶ Store ─▶ archive (internal/archiver)
//	                    ├────▶ query_exemplars (internal/history)
//	                    └────▶ exporters: Since
//
// It is bounded by a number over all segments. Where that is exceeded, those segments give way that have most, their oldest first: one that
// offers an exemplar for every request does not push out the others'.
package exemplars

import (
	"slices"
	"sync"

	"github.com/shmts/shmts/reader"
)

// Segment is what exemplars are taken from. *source.Segment is one.
type Segment interface {
	ID() string
	Inode() (dev, ino uint64)
	End() (int64, bool)
	// ExemplarHead is the number of the newest one as of the last poll, and costs next to nothing.
	ExemplarHead() uint64
	// Exemplars yields those numbered from and up, oldest first, until yield answers false.
	Exemplars(from uint64, yield func(*reader.Exemplar) bool)
}

// Store holds exemplars by segment. Collect belongs to the goroutine that polls; everything else is safe from any.
type Store struct {
	max int

	polls uint64
	got   []reader.Exemplar // of one segment, in Collect

	mu    sync.Mutex
	files map[string][]*ring // by id: one, but for copied files
	held  int
	stats Stats
}

// ring is what is held of one segment.
type ring struct {
	ino   uint64            // tells copied files of one id apart
	list  []reader.Exemplar // by number; what is in it is not changed
	next  uint64            // number to go on with
	tried uint64            // the head up to which it was read at the poll before, without getting there
	seen  uint64            // poll
	whole bool              // its writer has ended, and there are no others
}

// Stats are what a Store counted.
type Stats struct {
	Held     int    // just now
	Seen     uint64 // taken over from segments
	Missed   uint64 // numbers that were given between those and could not be had: not stored, written over before a poll, or broken
	Evicted  uint64 // let go for newer ones, archived or not
	Rewound  uint64 // segments whose numbers began anew: their process was restored from a snapshot
	Segments int    // that any are held of
}

// New makes a Store of at most max exemplars, at least 1.
func New(max int) *Store { return &Store{max: max, files: map[string][]*ring{}} }

// Collect takes over what is new in segments, and forgets those that are not among them any more. It is to be called after each poll of
// theirs. Where nothing is new, it costs a look at each segment's ExemplarHead.
func (s *Store) Collect(segments []Segment) {
	s.polls++
	for _, g := range segments {
		head := g.ExemplarHead()
		if head == 0 {
			continue // most have none, ever
		}
		_, ino := g.Inode()
		s.mu.Lock()
		r := s.file(g.ID(), ino)
		if r == nil {
			r = &ring{ino: ino, next: 1}
			s.files[g.ID()] = append(s.files[g.ID()], r)
		}
		r.seen = s.polls
		if head+1 < r.next {
			s.held -= len(r.list)
			s.stats.Rewound++
			*r = ring{ino: ino, next: 1, seen: s.polls}
		}
		s.mu.Unlock()
		if head >= r.next {
			s.collect(g, r, head)
		}
		if _, ended := g.End(); ended && !r.whole && head < r.next {
			s.mu.Lock()
			r.whole = true
			s.mu.Unlock()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, rings := range s.files {
		rings = slices.DeleteFunc(rings, func(r *ring) bool {
			if r.seen != s.polls {
				s.held -= len(r.list)
			}
			return r.seen != s.polls
		})
		if len(rings) == 0 {
			delete(s.files, id)
		} else {
			s.files[id] = rings
		}
	}
	if s.held > s.max {
		s.evict()
	}
}

// file is what is held of one, nil if it is not known. With the lock held.
func (s *Store) file(id string, ino uint64) *ring {
	for _, r := range s.files[id] {
		if r.ino == ino {
			return r
		}
	}
	return nil
}

// collect takes over those of one segment up to head.
func (s *Store) collect(g Segment, r *ring, head uint64) {
	s.got = s.got[:0]
	first := len(r.list) == 0 && r.next == 1
	g.Exemplars(r.next, func(x *reader.Exemplar) bool {
		s.got = append(s.got, *x)
		return len(s.got) < maxSlots
	})
	// What is not there when the same head was read before is not awaited any more: FORMAT.md 10.12. Nor is anything after the end.
	_, ended := g.End()
	next := r.next
	if n := len(s.got); n > 0 {
		next = s.got[n-1].Number + 1
	}
	if ended || r.tried == head {
		next = max(next, head+1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	from := r.next
	if first { // what the ring went over before it was seen first is nobody's loss
		from = next
		if len(s.got) > 0 {
			from = s.got[0].Number
		}
	}
	s.stats.Missed += next - from - uint64(len(s.got))
	s.stats.Seen += uint64(len(s.got))
	s.held += len(s.got)
	r.list = append(r.list, s.got...)
	r.next, r.tried = next, head
}

// maxSlots is how many slots a segment's ring has at most. FORMAT.md 11.
const maxSlots = 4096

// evict lets go of the oldest of those segments that have most, until there are max: all that give way have equally many afterwards.
func (s *Store) evict() {
	all := make([]*ring, 0, len(s.files))
	for _, rings := range s.files {
		for _, r := range rings {
			if len(r.list) > 0 {
				all = append(all, r)
			}
		}
	}
	slices.SortFunc(all, func(x, y *ring) int { return len(x.list) - len(y.list) })
	left := s.max
	for i, r := range all {
		share := left / (len(all) - i)
		if n := len(r.list) - share; n > 0 {
			// The rest moves, so that memory is given back; who reads the old list has it for as long as it takes.
			r.list = slices.Clone(r.list[n:])
			s.stats.Evicted += uint64(n)
			s.held -= n
		}
		left -= len(r.list)
	}
}

// Stats answers what was counted so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Held = s.held
	for _, rings := range s.files {
		for _, r := range rings {
			if len(r.list) > 0 {
				st.Segments++
			}
		}
	}
	return st
}

// Since yields those of a segment, by its id, numbered above after, oldest first, until yield answers false. What it yields is not changed.
func (s *Store) Since(segment string, after uint64, yield func(*reader.Exemplar) bool) {
	s.mu.Lock()
	var list []reader.Exemplar
	newest := uint64(0)
	for _, r := range s.files[segment] { // of copies of one file the one that goes on
		if n := len(r.list); n > 0 && r.list[n-1].Number >= newest {
			list, newest = r.list, r.list[n-1].Number
		}
	}
	s.mu.Unlock()
	above(list, after, yield)
}

// Above is Since for one file, by id and inode.
func (s *Store) Above(segment string, inode, after uint64, yield func(*reader.Exemplar) bool) {
	s.mu.Lock()
	var list []reader.Exemplar
	if r := s.file(segment, inode); r != nil {
		list = r.list
	}
	s.mu.Unlock()
	above(list, after, yield)
}

func above(list []reader.Exemplar, after uint64, yield func(*reader.Exemplar) bool) {
	i, found := slices.BinarySearchFunc(list, after, func(x reader.Exemplar, n uint64) int {
		switch {
		case x.Number < n:
			return -1
		case x.Number > n:
			return 1
		}
		return 0
	})
	if found {
		i++
	}
	for ; i < len(list); i++ {
		if !yield(&list[i]) {
			return
		}
	}
}

// Newest is the number of the newest one held of a file, 0 if there is none.
func (s *Store) Newest(segment string, inode uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.file(segment, inode); r != nil && len(r.list) > 0 {
		return r.list[len(r.list)-1].Number
	}
	return 0
}

// Whole tells of a file whose writer has ended, and of which exemplars were numbered up to head, whether all that could be had were taken
// over.
func (s *Store) Whole(segment string, inode, head uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.file(segment, inode)
	return head == 0 || r != nil && r.whole
}
