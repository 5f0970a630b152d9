package layout

import "math/bits"

// The constants of the sum. FORMAT.md 8.3.
const (
	sumP  = 0x9e3779b185ebca87
	sumA1 = 0xc2b2ae3d27d4eb4f
	sumA2 = 0x165667b19e3779f9
)

// Summer computes the format's one checksum: a 64-bit mix in four streams,
// so that the multiplications overlap and hide behind the copying of the
// words. FORMAT.md 8.3.
type Summer struct{ a0, a1, a2, a3 uint64 }

// NewSummer begins a sum.
func NewSummer(seed uint64) Summer { return Summer{sumP, sumA1, sumA2, seed} }

// Add takes four words.
func (s *Summer) Add(w0, w1, w2, w3 uint64) {
	s.a0 = bits.RotateLeft64(s.a0^w0, 29) * sumP
	s.a1 = bits.RotateLeft64(s.a1^w1, 29) * sumP
	s.a2 = bits.RotateLeft64(s.a2^w2, 29) * sumP
	s.a3 = bits.RotateLeft64(s.a3^w3, 29) * sumP
}

// Finish takes the last words, any number, and answers the sum. Only the last
// call may bring a number of words that is not a multiple of four.
func (s *Summer) Finish(tail []uint64) uint64 {
	a0, a1, a2, a3 := s.a0, s.a1, s.a2, s.a3 // in registers: through s each step would wait for a store
	for ; len(tail) >= 8; tail = tail[8:] {  // as fast as the four chains of multiplications are, to a tenth
		w := (*[8]uint64)(tail)
		a0 = bits.RotateLeft64(a0^w[0], 29) * sumP
		a1 = bits.RotateLeft64(a1^w[1], 29) * sumP
		a2 = bits.RotateLeft64(a2^w[2], 29) * sumP
		a3 = bits.RotateLeft64(a3^w[3], 29) * sumP
		a0 = bits.RotateLeft64(a0^w[4], 29) * sumP
		a1 = bits.RotateLeft64(a1^w[5], 29) * sumP
		a2 = bits.RotateLeft64(a2^w[6], 29) * sumP
		a3 = bits.RotateLeft64(a3^w[7], 29) * sumP
	}
	if len(tail) >= 4 {
		a0 = bits.RotateLeft64(a0^tail[0], 29) * sumP
		a1 = bits.RotateLeft64(a1^tail[1], 29) * sumP
		a2 = bits.RotateLeft64(a2^tail[2], 29) * sumP
		a3 = bits.RotateLeft64(a3^tail[3], 29) * sumP
		tail = tail[4:]
	}
	a := [4]uint64{a0, a1, a2, a3}
	for i, w := range tail {
		a[i] = bits.RotateLeft64(a[i]^w, 29) * sumP
	}
	h := bits.RotateLeft64(a[0], 1) + bits.RotateLeft64(a[1], 7) +
		bits.RotateLeft64(a[2], 12) + bits.RotateLeft64(a[3], 18)
	h = (h ^ h>>33) * sumA1
	h = (h ^ h>>29) * sumA2
	return h ^ h>>32
}

// Sum is the sum of words with a seed.
func Sum(seed uint64, words []uint64) uint64 {
	s := NewSummer(seed)
	return s.Finish(words)
}

// headerSeed seeds the sum over the header. FORMAT.md 4.1.
const headerSeed = 0x53

// rowSeed seeds the sum over a row.
func rowSeed(table, tier int) uint64 { return uint64(table)<<8 + uint64(tier) }
