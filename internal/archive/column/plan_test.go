package column

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
)

// drawn are n integers of a shape that draws one: rising, falling, scattered, with few that are far off, multiples.
func drawn(r *rand.Rand, n int) []uint64 {
	v := make([]uint64, n)
	x, shift, shape, mul := r.Uint64()>>r.IntN(64), r.IntN(64), r.IntN(5), uint64(1)
	if r.IntN(3) == 0 {
		mul = 1 + r.Uint64N(1000)
	}
	for k := range v {
		d := r.Uint64() >> shift
		if r.IntN(12) == 0 {
			d = r.Uint64() >> r.IntN(64)
		}
		switch d *= mul; shape {
		case 0:
			x += d
		case 1:
			x -= d
		case 2:
			x = d
		case 3:
			if r.IntN(4) == 0 {
				x += mul
			}
		case 4:
			if x += mul; r.IntN(20) == 0 {
				x += d
			}
		}
		v[k] = x
	}
	return v
}

// What a plan does not look at costs no bytes: it is the one that looking at everything gives.
func TestPlanSparesNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	var e Encoder
	spared, few := 0, 0
	for range 50_000 {
		v := drawn(r, 2+r.IntN(70))
		if constant(v) {
			continue
		}
		all := func(v []uint64) (p plan) {
			b := bounds{int64(slices.MinFunc(v, signed)), int64(slices.MaxFunc(v, signed))}
			p.base, p.divisor = uint64(b.least), 1
			if p.base != 0 {
				p.size = varintSize(zigzag(p.base))
			}
			if p.size++; b.span() == 0 {
				return p
			}
			if p.divisor = divisor(v, p.base, b.span()); p.divisor > 1 {
				p.size += varintSize(p.divisor)
			}
			var l lengths
			l.longest = bits.Len64(b.span() / p.divisor)
			l.all(v, p.base, p.divisor)
			if !p.choose(len(v), &l) {
				t.Fatalf("%v: all lengths are known: want a width, got none", v)
			}
			var some lengths
			some.longest = l.longest
			if b.span()>>63 == 0 {
				if some.some(v, p.base, p.divisor); some.above > 0 && (&plan{}).choose(len(v), &some) {
					few++
				}
			}
			return p
		}
		diffs := make([]uint64, len(v)-1)
		for i := range diffs {
			diffs[i] = v[i+1] - v[i]
		}
		f, d := all(v), all(diffs)
		f.codec, d.codec = codecFrame, codecDelta
		d.size += varintSize(zigzag(v[0]))
		want := f
		if d.size < f.size {
			want = d
		}
		got := e.plan(v)
		if got.vals = nil; got.codec != want.codec || got.size != want.size || got.base != want.base || got.divisor != want.divisor || got.width != want.width || got.exceptions != want.exceptions {
			t.Fatalf("%v: want %+v, got %+v", v, want, got)
		}
		if slices.IsSorted(v) && f.divisor == 1 && int64(v[len(v)-1]) >= 0 {
			if least := leastFrame(v); least > f.size {
				t.Fatalf("%v: a frame takes %d bytes: want no more than that as the least, got %d", v, f.size, least)
			} else if d.size < least {
				spared++
			}
		}
	}
	if spared < 1000 || few < 1000 {
		t.Errorf("want frames spared and widths chosen by three lengths a thousand times each, got %d and %d", spared, few)
	}
}

func signed(a, b uint64) int { return cmp.Compare(int64(a), int64(b)) }
