package exemplars

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/shmts/shmts/reader"
)

// fake is a segment with a ring of slots, of which some numbers are not there, or not yet.
type fake struct {
	id      string
	ino     uint64
	slots   int
	head    uint64
	lost    map[uint64]bool // never stored
	writing map[uint64]bool // not stored yet
	settled uint64          // as of the poll before
	ended   bool
	reads   int
}

func (f *fake) ID() string               { return f.id }
func (f *fake) Inode() (dev, ino uint64) { return 1, f.ino }
func (f *fake) End() (int64, bool)       { return 1, f.ended }
func (f *fake) ExemplarHead() uint64     { return f.head }

func (f *fake) Exemplars(from uint64, yield func(*reader.Exemplar) bool) {
	f.reads++
	if f.head > uint64(f.slots) {
		from = max(from, f.head-uint64(f.slots)+1)
	}
	for n := from; n <= f.head; n++ {
		switch {
		case f.writing[n] && n > f.settled && !f.ended:
			return
		case f.lost[n] || f.writing[n]:
			continue
		}
		if !yield(&reader.Exemplar{Number: n, Value: float64(n)}) {
			return
		}
	}
}

// poll collects, as after a poll of the register.
func poll(s *Store, all ...*fake) {
	list := make([]Segment, len(all))
	for i, f := range all {
		list[i] = f
	}
	s.Collect(list)
	for _, f := range all {
		f.settled = f.head
	}
}

func held(s *Store, id string, after uint64) (numbers []uint64) {
	s.mu.Lock()
	var ino uint64
	for _, r := range s.files[id] {
		ino = r.ino
	}
	s.mu.Unlock()
	s.Above(id, ino, after, func(x *reader.Exemplar) bool {
		if x.Value != float64(x.Number) {
			panic(fmt.Sprint("exemplar ", x.Number, " says ", x.Value))
		}
		numbers = append(numbers, x.Number)
		return true
	})
	return numbers
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}

// Each is taken over once, what can't be had is counted, and a segment is read only when its number moved.
func TestCollect(t *testing.T) {
	s := New(100)
	f := &fake{id: "a", ino: 7, slots: 4, lost: map[uint64]bool{}, writing: map[uint64]bool{}}
	poll(s, f)
	equal(t, "reads of a ring without any", f.reads, 0)
	f.head = 10 // six were gone before it was seen
	poll(s, f)
	equal(t, "first", held(s, "a", 0), []uint64{7, 8, 9, 10})
	equal(t, "missed before it was seen", s.Stats().Missed, 0)
	for range 5 {
		poll(s, f)
	}
	equal(t, "reads while nothing moves", f.reads, 1)
	f.head, f.lost[11] = 13, true
	poll(s, f)
	equal(t, "with one that was dropped", held(s, "a", 9), []uint64{10, 12, 13})
	equal(t, "missed", s.Stats().Missed, 1)
	f.head = 20 // 14 to 16 were written over
	poll(s, f)
	equal(t, "after an overrun", held(s, "a", 13), []uint64{17, 18, 19, 20})
	equal(t, "missed", s.Stats().Missed, 4)
	// One that is being written is waited for, once; those behind it come with it.
	f.head, f.writing[21] = 22, true
	poll(s, f)
	equal(t, "while one is written", held(s, "a", 20), []uint64(nil))
	delete(f.writing, 21)
	poll(s, f)
	equal(t, "once it is", held(s, "a", 20), []uint64{21, 22})
	// A number that never comes is not asked for again and again.
	f.head, f.lost[23] = 23, true
	before := f.reads
	for range 6 {
		poll(s, f)
	}
	equal(t, "reads for one that never comes", f.reads-before, 2)
	equal(t, "missed", s.Stats().Missed, 5)
	equal(t, "seen", s.Stats().Seen, 12)
	equal(t, "held", s.Stats().Held, 12)
	equal(t, "newest", s.Newest("a", 7), 22)
	equal(t, "of another file", s.Newest("a", 8), 0)
	poll(s)
	equal(t, "of one that is gone", held(s, "a", 0), []uint64(nil))
	equal(t, "held without it", s.Stats().Held, 0)
}

// The end is known once everything that a dead writer left was read, and not before.
func TestWhole(t *testing.T) {
	s := New(100)
	f := &fake{id: "a", ino: 7, slots: 8, head: 3, writing: map[uint64]bool{2: true}}
	g := &fake{id: "none", ino: 8, ended: true}
	equal(t, "without any, never seen", s.Whole("none", 8, 0), true)
	poll(s, f, g)
	equal(t, "held while it lives", held(s, "a", 0), []uint64{1})
	equal(t, "whole while it lives", s.Whole("a", 7, 3), false)
	f.ended, f.head = true, 4
	equal(t, "before the poll that sees the end", s.Whole("a", 7, 4), false)
	poll(s, f, g)
	equal(t, "held", held(s, "a", 0), []uint64{1, 3, 4})
	equal(t, "whole", s.Whole("a", 7, 4), true)
	equal(t, "a file that was not seen", s.Whole("a", 9, 4), false)
}

// Over the number, those that have most give way, the oldest first; whoever has little keeps it.
func TestEvict(t *testing.T) {
	s := New(100)
	small := &fake{id: "small", slots: 4096, head: 5}
	some := &fake{id: "some", slots: 4096, head: 40}
	flood := &fake{id: "flood", slots: 4096, head: 4000}
	other := &fake{id: "other", slots: 4096, head: 300}
	poll(s, small, some, flood, other)
	equal(t, "held", s.Stats().Held, 100)
	equal(t, "small", len(held(s, "small", 0)), 5)
	for _, id := range []string{"some", "flood", "other"} {
		if n := len(held(s, id, 0)); n < 31 || n > 32 {
			t.Errorf("%s: want a third of what is left, got %d", id, n)
		}
	}
	equal(t, "the flood's newest", held(s, "flood", 3998), []uint64{3999, 4000})
	equal(t, "evicted", s.Stats().Evicted, 4345-100)
	equal(t, "segments", s.Stats().Segments, 4)
	poll(s, small)
	equal(t, "held", s.Stats().Held, 5)
}

// What is archived goes first, whoever has most; what is not is counted when it has to go. Half of the room is a crowd.
func TestArchived(t *testing.T) {
	s := New(100)
	a, b := &fake{id: "a", slots: 4096, head: 40}, &fake{id: "b", slots: 4096, head: 8}
	poll(s, a, b)
	equal(t, "crowded by 48", s.Crowded(), false)
	b.head = 20
	poll(s, a, b)
	equal(t, "crowded by 60", s.Crowded(), true)
	s.Archived("b", 0, 20)
	s.Archived("nobody", 0, 20)
	equal(t, "waiting", s.Stats().Waiting, 40)
	a.head = 95
	poll(s, a, b)
	equal(t, "of a, which waits", len(held(s, "a", 0)), 95)
	equal(t, "of b, which is archived", held(s, "b", 0), []uint64{16, 17, 18, 19, 20})
	equal(t, "lost", s.Stats().Unkept, 0)
	a.head = 130
	poll(s, a, b)
	equal(t, "held", s.Stats().Held, 100)
	equal(t, "the oldest is lost", held(s, "a", 0)[0], 31)
	equal(t, "lost", s.Stats().Unkept, 30)
	equal(t, "waiting", s.Stats().Waiting, 100)
	s.Archived("a", 0, 130)
	equal(t, "waiting", s.Stats().Waiting, 0)
	poll(s, b)
	equal(t, "waiting of one that is gone", s.Stats().Waiting, 0)
}

// Two files of one id are two; numbers that begin anew are new ones.
func TestCopiesAndRewound(t *testing.T) {
	s := New(100)
	a, b := &fake{id: "x", ino: 1, slots: 64, head: 5}, &fake{id: "x", ino: 2, slots: 64, head: 9}
	poll(s, a, b)
	equal(t, "of the second file", held(s, "x", 7), []uint64{8, 9})
	var of []uint64
	s.Above("x", 1, 3, func(x *reader.Exemplar) bool { of = append(of, x.Number); return true })
	equal(t, "of the first file", of, []uint64{4, 5})
	s.Above("x", 1, 0, func(x *reader.Exemplar) bool { of = append(of, x.Number); return false })
	equal(t, "stopped after one", of, []uint64{4, 5, 1})
	b.head, b.settled = 2, 0
	poll(s, a, b)
	equal(t, "rewound", s.Stats().Rewound, 1)
	equal(t, "newest", s.Newest("x", 2), 2)
	equal(t, "held", s.Stats().Held, 7)
}

// Readers and the one that collects don't see one another's work half done.
func TestConcurrently(t *testing.T) {
	s := New(200)
	all := []*fake{{id: "a", slots: 64}, {id: "b", slots: 64}, {id: "c", slots: 64}}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, id := range []string{"a", "b", "c"} {
					if n := held(s, id, 0); !slices.IsSorted(n) || len(slices.Compact(n)) != len(n) {
						t.Errorf("want numbers that rise, got %d", n)
						return
					}
					s.Stats()
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		all[r.IntN(3)].head += r.Uint64N(80)
		poll(s, all[:1+r.IntN(3)]...)
	}
	close(stop)
	readers.Wait()
	if n := s.Stats().Held; n > 200 {
		t.Errorf("want at most 200, got %d", n)
	}
}

// A thousand segments of which nothing moves, and a thousand of which each has two new ones: see docs/shmtsd.md.
func BenchmarkCollect(b *testing.B) {
	for _, moves := range []bool{false, true} {
		b.Run(fmt.Sprintf("moves=%v", moves), func(b *testing.B) {
			s := New(10_000)
			var fakes []*fake
			var all []Segment
			for i := range 1000 {
				f := &fake{id: fmt.Sprintf("%032x", i), ino: uint64(i), slots: 64, head: 20}
				fakes, all = append(fakes, f), append(all, f)
			}
			s.Collect(all)
			for b.Loop() {
				if moves {
					for _, f := range fakes {
						f.head += 2
					}
				}
				s.Collect(all)
			}
		})
	}
}
