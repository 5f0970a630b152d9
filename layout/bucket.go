package layout

import (
	"fmt"
	"math"
)

// BucketRange is a histogram's shape: base-2 exponential buckets of a scale,
// Count of them from index Min on. FORMAT.md 9.
type BucketRange struct {
	Scale int // 0 to 6: base 2^(2^-scale)
	Min   int // index of the lowest bucket
	Count int // 1 to MaxBuckets
}

// NewBucketRange covers the values from low to high, both > 0. What lies at or below
// low's bucket goes to the zero bucket, what lies above high's to the bucket above.
func NewBucketRange(scale int, low, high float64) (BucketRange, error) {
	if scale < 0 || scale > MaxScale {
		return BucketRange{}, fmt.Errorf("shmts: histogram: want a scale of 0 to %d, got %d", MaxScale, scale)
	}
	if !(low >= 0x1p-511) || !(high > low) || high > math.MaxFloat64 {
		return BucketRange{}, fmt.Errorf("shmts: histogram: want 2^-511 <= low < high, both finite, got %g and %g", low, high)
	}
	// low's own bucket is (base^i, base^(i+1)]; when low is a bound, i is the bucket below it.
	r := BucketRange{Scale: scale, Min: BucketIndex(scale, low)}
	if BucketUpper(scale, r.Min) == low {
		r.Min++
	}
	r.Count = BucketIndex(scale, high) - r.Min + 1
	return r, r.Check()
}

// Check tells whether the range is one that FORMAT.md 6.1 allows.
func (r BucketRange) Check() error {
	switch {
	case r.Scale < 0 || r.Scale > MaxScale:
		return fmt.Errorf("shmts: histogram: want a scale of 0 to %d, got %d", MaxScale, r.Scale)
	case r.Count < 1 || r.Count > MaxBuckets:
		return fmt.Errorf("shmts: histogram: want 1 to %d buckets, got %d: take a lower scale or a smaller range", MaxBuckets, r.Count)
	case r.Min < -1022<<r.Scale || r.Min < math.MinInt16 || r.Min > math.MaxInt16:
		return fmt.Errorf("shmts: histogram: want a lowest bucket of %d to %d, got %d", max(-1022<<r.Scale, math.MinInt16), math.MaxInt16, r.Min)
	}
	return nil
}

// bound[k] is (the low 52 bits of the least float64 that is not below
// 2^(k/64)) - 1, and bound[0] is 0. FORMAT.md 9. A test computes them anew. The last one, for k = 64,
// is above every mantissa: it spares BucketIndex a comparison.
var bound = [1<<MaxScale + 1]uint64{
	0x0000000000000, 0x02c9a3e778060, 0x059b0d3158574, 0x0874518759bc8,
	0x0b5586cf9890f, 0x0e3ec32d3d1a2, 0x11301d0125b50, 0x1429aaea92ddf,
	0x172b83c7d517a, 0x1a35beb6fcb75, 0x1d4873168b9aa, 0x2063b88628cd6,
	0x2387a6e756238, 0x26b4565e27cdd, 0x29e9df51fdee1, 0x2d285a6e4030b,
	0x306fe0a31b715, 0x33c08b26416ff, 0x371a7373aa9ca, 0x3a7db34e59ff6,
	0x3dea64c123422, 0x4160a21f72e29, 0x44e086061892d, 0x486a2b5c13cd0,
	0x4bfdad5362a27, 0x4f9b2769d2ca6, 0x5342b569d4f81, 0x56f4736b527da,
	0x5ab07dd485429, 0x5e76f15ad2148, 0x6247eb03a5584, 0x6623882552224,
	0x6a09e667f3bcc, 0x6dfb23c651a2e, 0x71f75e8ec5f73, 0x75feb564267c8,
	0x7a11473eb0186, 0x7e2f336cf4e62, 0x82589994cce12, 0x868d99b4492ec,
	0x8ace5422aa0db, 0x8f1ae99157736, 0x93737b0cdc5e4, 0x97d829fde4e4f,
	0x9c49182a3f090, 0xa0c667b5de564, 0xa5503b23e255c, 0xa9e6b5579fdbf,
	0xae89f995ad3ad, 0xb33a2b84f15fa, 0xb7f76f2fb5e46, 0xbcc1e904bc1d2,
	0xc199bdd85529c, 0xc67f12e57d14b, 0xcb720dcef9069, 0xd072d4a07897b,
	0xd5818dcfba487, 0xda9e603db3285, 0xdfc97337b9b5e, 0xe502ee78b3ff6,
	0xea4afa2a490d9, 0xefa1bee615a27, 0xf50765b6e4540, 0xfa7c1819e90d8,
	1 << 52,
}

// first[s][f>>(51-s)] is the greatest j whose bound is not above the beginning of
// that cell of width 2^-(s+1): bounds lie further apart, so that one comparison finishes.
var first = func() (t [8][1 << (MaxScale + 1)]uint8) {
	for s := range MaxScale + 1 {
		for c := range 1 << (s + 1) {
			f := uint64(c) << (51 - s)
			j := 0
			for j+1 < 1<<s && f >= bound[(j+1)<<(MaxScale-s)] {
				j++
			}
			t[s][c] = uint8(j)
		}
	}
	return t
}()

// BucketIndex is the index of the bucket that holds a finite, normal v > 0: exact,
// upper bounds inclusive. FORMAT.md 9.
func BucketIndex(scale int, v float64) int {
	s := uint(scale) & 7 // the masks change nothing: they spare checks of shifts and bounds
	m := math.Float64bits(v) - 1
	f := m & (1<<52 - 1)
	j := uint64(first[s][f>>(51-s)&0x7f])
	// Without a branch, which real values would mispredict every other time: both sides are
	// at most 2^52, so the sign of the difference is the comparison.
	j += 1 - (f-bound[(j+1)<<((MaxScale-s)&7)&0x7f])>>63
	return (int(m>>52)-1023)<<s + int(j)
}

// BucketUpper is the upper bound of the bucket of index i, base^(i+1), to the nearest float64.
func BucketUpper(scale, i int) float64 {
	i++
	k := i & (1<<scale - 1)
	return math.Ldexp(math.Exp2(float64(k)/float64(int(1)<<scale)), i>>scale)
}

// ZeroThreshold is the lower bound of the lowest bucket, base^Min: what lies at or below it is counted as zero.
func (r BucketRange) ZeroThreshold() float64 { return BucketUpper(r.Scale, r.Min-1) }
