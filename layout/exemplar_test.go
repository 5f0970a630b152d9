package layout

import (
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func testExemplarIdentity() ExemplarIdentity {
	var s Superblock
	for i := range s.SegmentID {
		s.SegmentID[i] = byte(i + 1)
	}
	return s.ExemplarIdentity()
}

func testExemplar() Exemplar {
	x := Exemplar{Series: 5, Generation: 7, Value: 1.5, T: 1_700_000_000_000_000_000}
	for i := range x.TraceID {
		x.TraceID[i] = byte(0x10 + i)
	}
	for i := range x.SpanID {
		x.SpanID[i] = byte(0x80 + i)
	}
	return x
}

// The slot's words and its check are those of FORMAT.md 8.4, one by one.
func TestExemplarWords(t *testing.T) {
	x := testExemplar()
	slot := make([]uint64, ExemplarWords)
	if !StoreExemplar(slot, testExemplarIdentity(), 9, &x) {
		t.Fatal("want it stored in an empty slot")
	}
	words := []uint64{5 | 7<<32, math.Float64bits(1.5), 1_700_000_000_000_000_000, 0x1716151413121110, 0x1f1e1d1c1b1a1918, 0x8786858483828180}
	sum := slowSum(0x10000, append([]uint64{0x0807060504030201, 0x100f0e0d0c0b0a09, 9}, words...))
	for i, want := range append([]uint64{18, sum}, words...) {
		if slot[i] != want {
			t.Errorf("word %d: want %#x, got %#x", i, want, slot[i])
		}
	}
	x.Seq, x.Check = 18, sum
	for name, read := range exemplarReaders {
		if got, v := read(slot, testExemplarIdentity(), 9); v != ExemplarOK || got != x || got.Number() != 9 {
			t.Errorf("%s: want %+v, got %v, %+v", name, x, v, got)
		}
	}
}

var exemplarReaders = map[string]func([]uint64, ExemplarIdentity, uint64) (Exemplar, ExemplarVerdict){"in place": LoadExemplar, "a copy": DecodeExemplar}

// Each case is what a reader may find in the slot of exemplar 9, and what it is to say.
func TestExemplarVerdicts(t *testing.T) {
	for _, c := range []struct {
		what string
		want ExemplarVerdict
		do   func(slot []uint64) uint64
	}{
		{"as it was", ExemplarOK, func([]uint64) uint64 { return 9 }},
		{"the one before", ExemplarGone, func([]uint64) uint64 { return 5 }},
		{"the next one", ExemplarAwaited, func([]uint64) uint64 { return 13 }},
		{"no number", ExemplarGone, func([]uint64) uint64 { return 0 }},
		{"empty", ExemplarAwaited, func(s []uint64) uint64 { clear(s); return 9 }},
		{"being written", ExemplarAwaited, func(s []uint64) uint64 { s[0]++; return 9 }},
		{"the next one being written", ExemplarGone, func(s []uint64) uint64 { s[0] = 13<<1 | 1; return 9 }},
		{"a number past everything", ExemplarGone, func(s []uint64) uint64 { s[0] = 1<<64 - 1; return 9 }},
		{"half of it", ExemplarBad, func(s []uint64) uint64 { s[7] = 0; return 9 }},
		{"another number's", ExemplarBad, func(s []uint64) uint64 { s[0] = 26; return 13 }},
	} {
		x := testExemplar()
		for name, read := range exemplarReaders {
			slot := make([]uint64, ExemplarWords)
			StoreExemplar(slot, testExemplarIdentity(), 9, &x)
			got, v := read(slot, testExemplarIdentity(), c.do(slot))
			if v != c.want || v != ExemplarOK && got != (Exemplar{}) {
				t.Errorf("%s, %s: want %v, got %v with %+v", c.what, name, c.want, v, got)
			}
		}
	}
	x, slot := testExemplar(), make([]uint64, ExemplarWords)
	StoreExemplar(slot, testExemplarIdentity(), 9, &x)
	for name, read := range exemplarReaders {
		if _, v := read(slot, ExemplarIdentity{1, 2}, 9); v != ExemplarBad {
			t.Errorf("of another segment, %s: want %v, got %v", name, ExemplarBad, v)
		}
	}
	if ExemplarOK.String() != "ok" || ExemplarBad.String() != "bad" {
		t.Errorf("verdicts: %v, %v", ExemplarOK, ExemplarBad)
	}
}

// A writer never waits and never writes over a younger one, nor into what another holds.
func TestExemplarRefused(t *testing.T) {
	for _, c := range []struct {
		what string
		seq  uint64
		n    uint64
		want bool
	}{
		{"an empty slot", 0, 3, true},
		{"an older one", 3 << 1, 7, true},
		{"a younger one", 7 << 1, 3, false},
		{"the same", 7 << 1, 7, false},
		{"held by an older one", 3<<1 | 1, 7, false},
		{"held by a younger one", 7<<1 | 1, 3, false},
	} {
		slot := make([]uint64, ExemplarWords)
		slot[0] = c.seq
		x := testExemplar()
		if got := StoreExemplar(slot, testExemplarIdentity(), c.n, &x); got != c.want {
			t.Errorf("%s: want %v, got %v", c.what, c.want, got)
		}
		if !c.want && (slot[0] != c.seq || slot[1] != 0 || slot[2] != 0) {
			t.Errorf("%s: want the slot as it was, got %x", c.what, slot)
		}
	}
}

// A writer that slept between looking at the slot and claiming it: meanwhile others were there.
func TestExemplarClaimedLate(t *testing.T) {
	id, x := testExemplarIdentity(), testExemplar()
	for what, meanwhile := range map[string]func(slot []uint64){
		"a younger one is whole":  func(slot []uint64) { StoreExemplar(slot, id, 9, &x) },
		"an older one is whole":   func(slot []uint64) { StoreExemplar(slot, id, 3, &x) },
		"another one is inside":   func(slot []uint64) { slot[0] = 3<<1 | 1 },
		"a younger one is inside": func(slot []uint64) { slot[0] = 9<<1 | 1 },
	} {
		slot := make([]uint64, ExemplarWords)
		StoreExemplar(slot, id, 1, &x)
		found := slot[0]
		meanwhile(slot)
		was := slot[0]
		if claimExemplar(slot, found, 5) || slot[0] != was {
			t.Errorf("%s: want exemplar 5 refused and seq %d, got %d", what, was, slot[0])
		}
	}
	slot := make([]uint64, ExemplarWords)
	if !claimExemplar(slot, 0, 5) || slot[0] != 5<<1|1 {
		t.Errorf("nobody meanwhile: want the slot, got %d", slot[0])
	}
}

// Every bit of an exemplar, flipped: never served.
func TestExemplarFlips(t *testing.T) {
	x := testExemplar()
	slot := make([]uint64, ExemplarWords)
	StoreExemplar(slot, testExemplarIdentity(), 12345, &x)
	for bit := range 64 * ExemplarWords {
		slot[bit/64] ^= 1 << (bit % 64)
		for name, read := range exemplarReaders {
			if _, v := read(slot, testExemplarIdentity(), 12345); v == ExemplarOK {
				t.Errorf("bit %d flipped: served, %s", bit, name)
			}
		}
		slot[bit/64] ^= 1 << (bit % 64)
	}
}

// tied is an exemplar of which every word is tied to its number, so that any word of another would be seen.
func tied(n uint64) Exemplar {
	x := Exemplar{Series: uint32(n), Generation: uint32(n * 3), Value: float64(n) * 1.25, T: int64(n * 1_000_003)}
	le.PutUint64(x.TraceID[:8], n*5+1)
	le.PutUint64(x.TraceID[8:], n*7+1)
	le.PutUint64(x.SpanID[:], n*11+1)
	return x
}

// Writers that take numbers from one counter into a ring of four slots, as fast as they can, and readers in place: what is served is
// whole, no slot goes back to an older number, and the numbers that were stored or dropped are all of them. Run with -race too.
func TestExemplarsAreNeverTorn(t *testing.T) {
	const slots, each, writers, readers = 4, 200_000, 4, 2
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(8)) // the system preempts in the midst of anything
	id := testExemplarIdentity()
	ring := make([]uint64, slots*ExemplarWords)
	slot := func(n uint64) []uint64 { return ring[(n-1)%slots*ExemplarWords:][:ExemplarWords] }
	var tickets, stored, dropped, served atomic.Uint64
	var writing, reading sync.WaitGroup
	done := make(chan struct{})
	for reader := range readers {
		reading.Go(func() {
			r := rand.New(rand.NewPCG(uint64(reader), 1))
			last := false
			var newest [slots]uint64
			for !last {
				select {
				case <-done:
					last = true
				default:
				}
				runtime.Gosched()
				head := tickets.Load()
				n := max(head, slots) - r.Uint64N(slots)
				if number := atomic.LoadUint64(&slot(n)[exemplarSeq]) >> 1; number < newest[n%slots] {
					t.Errorf("the slot of exemplar %d: want number %d or more, got %d", n, newest[n%slots], number)
				} else {
					newest[n%slots] = number
				}
				x, v := LoadExemplar(slot(n), id, n)
				switch {
				case v == ExemplarBad:
					t.Errorf("exemplar %d: seq was steady, the check wrong", n)
				case v == ExemplarOK:
					served.Add(1)
					want := tied(n)
					want.Seq, want.Check = x.Seq, x.Check
					if x != want || x.Number() != n {
						t.Errorf("exemplar %d is torn: want %+v, got %+v", n, want, x)
					}
				}
			}
		})
	}
	for range writers {
		writing.Go(func() {
			for range each {
				n := tickets.Add(1)
				x := tied(n)
				if StoreExemplar(slot(n), id, n, &x) {
					stored.Add(1)
				} else {
					dropped.Add(1)
				}
			}
		})
	}
	writing.Wait()
	close(done)
	reading.Wait()
	if stored.Load()+dropped.Load() != writers*each || stored.Load() == 0 {
		t.Errorf("want %d numbers, got %d stored and %d dropped", writers*each, stored.Load(), dropped.Load())
	}
	if served.Load() == 0 {
		t.Error("the readers were served nothing")
	}
	for i := range slots { // at rest, each slot holds one that is whole
		n := ring[i*ExemplarWords] >> 1
		if x, v := DecodeExemplar(slot(n), id, n); v != ExemplarOK || (n-1)%slots != uint64(i) || x.Value != tied(n).Value {
			t.Errorf("slot %d, at rest: %v, number %d", i, v, n)
		}
	}
}

func TestExemplarsAllocateNothing(t *testing.T) {
	id, slot, x, n := testExemplarIdentity(), make([]uint64, ExemplarWords), testExemplar(), uint64(0)
	for name, f := range map[string]func(){
		"StoreExemplar":  func() { n += 4; StoreExemplar(slot, id, n, &x) },
		"LoadExemplar":   func() { LoadExemplar(slot, id, n) },
		"DecodeExemplar": func() { DecodeExemplar(slot, id, n) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: want no allocation, got %v", name, n)
		}
	}
}

func TestExemplarSlots(t *testing.T) {
	h := Header{Exemplars: Section{Count: 8, ElementSize: 128, Offset: 4096}}
	for n, want := range map[uint64]uint64{1: 0, 2: 1, 8: 7, 9: 0, 1<<62 + 3: 2} {
		if slot, off := h.ExemplarSlot(n), h.ExemplarOffset(n); slot != want || off != 4096+128*want {
			t.Errorf("exemplar %d: want slot %d, got %d at %d", n, want, slot, off)
		}
	}
}

// Each case breaks one of FORMAT.md 4.2's rules for the section, which is there or not.
func TestExemplarSection(t *testing.T) {
	for _, c := range []struct {
		name, want string
		do         func(h *Superblock, s *Section)
	}{
		{"as it is", "", func(*Superblock, *Section) {}},
		{"wide elements", "", func(_ *Superblock, s *Section) { s.Count, s.ElementSize = 4, 128 }},
		{"unknown", "", func(_ *Superblock, s *Section) { *s = Section{Type: 10, Count: 6, Offset: 1} }},
		{"6", "want a power of two of exemplars, 2 to 4096, got 6", func(_ *Superblock, s *Section) { s.Count, s.Length = 6, 6*ExemplarSize }},
		{"0", "want a power of two of exemplars, 2 to 4096, got 0", func(_ *Superblock, s *Section) { s.Count, s.Length = 0, 0 }},
		{"1", "want a power of two of exemplars, 2 to 4096, got 1", func(_ *Superblock, s *Section) { s.Count, s.Length = 1, ExemplarSize }},
		{"8192", "want a power of two of exemplars, 2 to 4096, got 8192", func(h *Superblock, s *Section) {
			s.Count, s.Length, s.Offset = 8192, 8192*ExemplarSize, 1<<29
			h.TotalSize = MaxTotalSize
		}},
		{"small elements", "section table 7: want element_size 64 or a larger multiple of 64, got 32", func(_ *Superblock, s *Section) { s.ElementSize = 32 }},
		{"past the end", "section table 7: want length at most", func(h *Superblock, s *Section) { s.Offset = h.TotalSize - 64 }},
		{"misaligned", "section table 7: want offset a multiple of 64", func(_ *Superblock, s *Section) { s.Offset += 8 }},
		{"in the header", "section table 7: want offset a multiple of 64", func(_ *Superblock, s *Section) { s.Offset = 512 }},
		{"overlap", "section table 7: want no overlap with section type 7", func(_ *Superblock, s *Section) { s.Offset -= 64 }},
	} {
		schema := testSchema()
		schema.Exemplars = 8
		_, w := newborn(t, schema)
		c.do(View[Superblock](w, 0), section(w, SectionExemplars))
		rehash(w)
		_, err := ParseHeader(w, int64(View[Superblock](w, 0).TotalSize))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: want %q, got %v", c.name, c.want, err)
		}
	}
	schema := testSchema()
	schema.Exemplars = 8
	h, w := newborn(t, schema)
	twice := *section(w, SectionExemplars)
	twice.Offset += twice.Length / 2
	twice.Count, twice.Length = twice.Count/2, twice.Length/2
	*section(w, SectionRows) = twice
	section(w, SectionExemplars).Length /= 2
	section(w, SectionExemplars).Count /= 2
	rehash(w)
	if _, err := ParseHeader(w, int64(h.TotalSize)); err == nil || !strings.Contains(err.Error(), "section type 8 once, got twice") {
		t.Errorf("twice: got %v", err)
	}
	for _, n := range []int{-1, 1, 3, 8192} {
		schema.Exemplars = n
		if _, err := NewHeader(schema); err == nil || !strings.Contains(err.Error(), "exemplars: want 0, or a power of two from 2 to 4096, got") {
			t.Errorf("%d: got %v", n, err)
		}
	}
}
