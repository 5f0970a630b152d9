// Package exemplars keeps the newest exemplars of all segments in memory, so that a ring of a few slots may go round between two
// flushes or exports: of each segment they are taken over at each poll, if there are any new ones.
//
//	segment's ring ─▶ Store ─▶ archive (internal/archiver)
//	                    ├────▶ query_exemplars (internal/history)
//	                    └────▶ exporters
//
// It is bounded by a number over all segments. Where that is exceeded, those segments give way that have most, their oldest first: one that
// offers an exemplar for every request does not push out the others'.
package exemplars

import (
	"slices"
	"sort"
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
	wait  int // of those, not archived yet
	stats Stats
}

// ring is what is held of one segment.
type ring struct {
	ino   uint64            // tells copied files of one id apart
	list  []reader.Exemplar // by number; what is in it is not changed
	next  uint64            // number to go on with
	done  uint64            // number up to which they are archived
	tried uint64            // the head up to which it was read at the poll before, without getting there
	seen  uint64            // poll
	whole bool              // its writer has ended, and there are no others
}

// Stats are what a Store counted.
type Stats struct {
	Held     int    // just now
	Seen     uint64 // taken over from segments
	Missed   uint64 // numbers that were given between those and could not be had: not stored, written over before a poll, or broken
	Waiting  int    // of those held, not archived yet
	Evicted  uint64 // let go for newer ones
	Unkept   uint64 // of those, before they were archived
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
			s.drop(r)
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
				s.drop(r)
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
	s.wait += len(s.got)
	r.list = append(r.list, s.got...)
	r.next, r.tried = next, head
}

// maxSlots is how many slots a segment's ring has at most. FORMAT.md 11.
const maxSlots = 4096

// evict lets go of the oldest until there are max: of what is archived first, and of the rest where that is not enough; of those segments that
// have most of it, so that all that give way have equally many afterwards.
func (s *Store) evict() {
	s.fill(max(s.max-s.wait, 0), func(r *ring) int { return len(r.list) - r.waiting() })
	if s.held > s.max {
		s.fill(s.max, func(r *ring) int { return len(r.list) })
	}
}

// fill lets go of the oldest of each segment until those that of counts are room.
func (s *Store) fill(room int, of func(*ring) int) {
	type part struct {
		*ring
		n int
	}
	var all []part
	for _, rings := range s.files {
		for _, r := range rings {
			if n := of(r); n > 0 {
				all = append(all, part{r, n})
			}
		}
	}
	slices.SortFunc(all, func(x, y part) int { return x.n - y.n })
	for i, r := range all {
		keep := min(r.n, room/(len(all)-i))
		room -= keep
		n := r.n - keep
		if n == 0 {
			continue
		}
		lost := max(n-(len(r.list)-r.waiting()), 0)
		s.stats.Unkept += uint64(lost)
		s.wait -= lost
		// The rest moves, so that memory is given back; who reads the old list has it for as long as it takes.
		r.list = slices.Clone(r.list[n:])
		s.stats.Evicted += uint64(n)
		s.held -= n
	}
}

// waiting is how many are not archived yet.
func (r *ring) waiting() int { return len(r.list) - after(r.list, r.done) }

// drop lets go of all that is held of a segment. With the lock held.
func (s *Store) drop(r *ring) {
	s.held -= len(r.list)
	s.wait -= r.waiting()
	r.list = nil
}

// Archived says that those of a file up to a number are archived: they are the first to be let go.
func (s *Store) Archived(segment string, inode, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.file(segment, inode)
	if r == nil {
		return
	}
	before := r.waiting()
	r.done = number
	s.wait += r.waiting() - before
}

// Crowded tells whether so many wait to be archived that there may soon be no room for them.
func (s *Store) Crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wait > s.max/2
}

// Stats answers what was counted so far.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Held, st.Waiting = s.held, s.wait
	for _, rings := range s.files {
		for _, r := range rings {
			if len(r.list) > 0 {
				st.Segments++
			}
		}
	}
	return st
}

// Above yields those of a segment's file, by id and inode, numbered above a number, oldest first, until yield answers false. What it yields is
// not changed: it may be kept.
func (s *Store) Above(segment string, inode, number uint64, yield func(*reader.Exemplar) bool) {
	s.mu.Lock()
	var list []reader.Exemplar
	if r := s.file(segment, inode); r != nil {
		list = r.list
	}
	s.mu.Unlock()
	above(list, number, yield)
}

// after is how many of a list are numbered up to a number.
func after(list []reader.Exemplar, number uint64) int {
	return sort.Search(len(list), func(i int) bool { return list[i].Number > number })
}

func above(list []reader.Exemplar, number uint64, yield func(*reader.Exemplar) bool) {
	for i := after(list, number); i < len(list); i++ {
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
