package layout

import (
	"math/rand/v2"
	"testing"
)

// slowSum is FORMAT.md 8.3, written down as it stands there.
func slowSum(seed uint64, w []uint64) uint64 {
	const P = 0x9e3779b185ebca87
	rotl := func(x uint64, n int) uint64 { return x<<n | x>>(64-n) }
	a := [4]uint64{P, 0xc2b2ae3d27d4eb4f, 0x165667b19e3779f9, seed}
	for i := range w {
		a[i%4] = rotl(a[i%4]^w[i], 29) * P
	}
	h := rotl(a[0], 1) + rotl(a[1], 7) + rotl(a[2], 12) + rotl(a[3], 18)
	h = (h ^ (h >> 33)) * 0xc2b2ae3d27d4eb4f
	h = (h ^ (h >> 29)) * 0x165667b19e3779f9
	return h ^ (h >> 32)
}

func TestSumWorkedExample(t *testing.T) {
	for _, sum := range []func(uint64, []uint64) uint64{Sum, slowSum} {
		if got := sum(0, nil); got != 0xda5c44aa32663017 {
			t.Errorf("seed 0 over nothing: got %#x", got)
		}
		if got := sum(7, []uint64{1, 2, 3, 4, 5}); got != 0x5bbe6bd3fd8658a7 {
			t.Errorf("seed 7 over 1 to 5: got %#x", got)
		}
	}
}

func TestSumAgainstSlow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 70 {
		w := make([]uint64, n)
		for i := range w {
			w[i] = r.Uint64()
		}
		seed := r.Uint64()
		want := slowSum(seed, w)
		if got := Sum(seed, w); got != want {
			t.Fatalf("%d words: want %#x, got %#x", n, want, got)
		}
		s := NewSummer(seed)
		at := 0
		for ; at+4 <= n && r.IntN(3) > 0; at += 4 {
			s.Add(w[at], w[at+1], w[at+2], w[at+3])
		}
		if got := s.Finish(w[at:]); got != want {
			t.Fatalf("%d words, %d of them added: want %#x, got %#x", n, at, want, got)
		}
	}
}

// Each bit of each word counts, and so do the place and the seed. (Two flips can cancel: that of bit 34 of a word and that of
// bit 63 of the word four further on do. A sum over a row is over its cell count as well, so lengths need not count.)
func TestSumSeesEveryBit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	w := make([]uint64, 11)
	for i := range w {
		w[i] = r.Uint64()
	}
	whole := Sum(0, w)
	for i := range w {
		for bit := range 64 {
			w[i] ^= 1 << bit
			if Sum(0, w) == whole {
				t.Errorf("bit %d of word %d does not count", bit, i)
			}
			w[i] ^= 1 << bit
		}
		for j := range i {
			w[i], w[j] = w[j], w[i]
			if Sum(0, w) == whole {
				t.Errorf("words %d and %d can be exchanged", i, j)
			}
			w[i], w[j] = w[j], w[i]
		}
	}
	seen := map[uint64]bool{}
	for table := range MaxTables {
		for tier := range MaxTiers {
			seen[Sum(rowSeed(table, tier), w)] = true
		}
	}
	if len(seen) != MaxTables*MaxTiers {
		t.Errorf("want %d sums of as many seeds, got %d", MaxTables*MaxTiers, len(seen))
	}
}

func TestSumAllocatesNothing(t *testing.T) {
	w := make([]uint64, 100)
	if n := testing.AllocsPerRun(100, func() { w[0] = Sum(1, w) }); n != 0 {
		t.Errorf("want no allocation, got %v", n)
	}
}
