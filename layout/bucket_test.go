package layout

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

// above tells whether v > 2^(n/d) for v > 0: exactly, as v^d > 2^n in integers.
func above(v float64, n, d int) bool {
	// v = m x 2^e, so that v^d > 2^n where m^d > 2^(n - d x e).
	frac, exp := math.Frexp(v)
	m := new(big.Int).SetUint64(uint64(frac * (1 << 53)))
	m.Exp(m, big.NewInt(int64(d)), nil)
	shift := n - d*(exp-53)
	if shift < 0 {
		return true // 2^shift < 1 <= m^d
	}
	return m.Cmp(new(big.Int).Lsh(big.NewInt(1), uint(shift))) > 0
}

// trueIndex is the i with base^i < v <= base^(i+1), found by exact comparisons alone.
func trueIndex(scale int, v float64) int {
	d := 1 << scale
	_, exp := math.Frexp(v) // 2^(exp-1) <= v < 2^exp
	i := (exp-1)*d - 1      // v may be the power of two itself
	for above(v, i+1, d) {
		i++
	}
	return i
}

// The table of bounds anew, by exact integers.
func TestBoundTable(t *testing.T) {
	for k := range bound {
		switch k {
		case 0:
			if bound[0] != 0 {
				t.Errorf("bound[0] is %#x", bound[0])
			}
			continue
		case 1 << MaxScale: // a sentinel behind the last
			if bound[k] < 1<<52 {
				t.Errorf("bound[%d] is %#x: want more than 52 bits", k, bound[k])
			}
			continue
		}
		least := math.Float64frombits(1023<<52 | (bound[k] + 1)) // the least f64 that is not below 2^(k/64)
		if !above(least, k, 64) || above(math.Nextafter(least, 0), k, 64) {
			t.Errorf("bound[%d] is %#x: want the least value above 2^(%d/64), less one", k, bound[k], k)
		}
	}
}

// Every bound of every scale in some octaves, one ulp below, on and above it.
func TestBucketIndexAtBounds(t *testing.T) {
	for scale := range MaxScale + 1 {
		for _, octave := range []int{-1022, -511, -60, -1, 0, 1, 2, 31, 52, 53, 511, 1023} {
			for k := range 1 << scale {
				near := math.Ldexp(math.Exp2(float64(k)/float64(int(1)<<scale)), octave)
				for ulp := -3; ulp <= 3; ulp++ {
					v := math.Float64frombits(math.Float64bits(near) + uint64(ulp))
					if v < 0x1p-1022 || v > math.MaxFloat64 || math.IsNaN(v) {
						continue
					}
					if got, want := BucketIndex(scale, v), trueIndex(scale, v); got != want {
						t.Fatalf("scale %d, %b (%g): want %d, got %d", scale, v, v, want, got)
					}
				}
			}
		}
	}
}

func TestBucketIndexOfRandomValues(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		v := math.Float64frombits(r.Uint64() &^ (1 << 63))
		if math.IsNaN(v) || math.IsInf(v, 0) || v < 0x1p-1022 {
			continue
		}
		scale := r.IntN(MaxScale + 1)
		if got, want := BucketIndex(scale, v), trueIndex(scale, v); got != want {
			t.Fatalf("scale %d, %g: want %d, got %d", scale, v, want, got)
		}
	}
}

// A subnormal, however large, is below the least bucket that a range may have.
func TestBucketIndexOfSubnormals(t *testing.T) {
	for scale := range MaxScale + 1 {
		for _, v := range []float64{5e-324, 1e-310, math.Nextafter(0x1p-1022, 0), 0x1p-1022} {
			if got := BucketIndex(scale, v); got >= -1022<<scale {
				t.Errorf("scale %d, %g: want less than %d, got %d", scale, v, -1022<<scale, got)
			}
		}
		if got := BucketIndex(scale, math.MaxFloat64); got != 1024<<scale-1 {
			t.Errorf("scale %d: the largest value is in bucket %d", scale, got)
		}
	}
}

// Buckets of a lower scale are unions of those of a higher one.
func TestBucketIndexMerges(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 100_000 {
		v := math.Float64frombits(r.Uint64N(0x7fe0000000000000-1<<52) + 1<<52)
		for scale := range MaxScale {
			if fine, coarse := BucketIndex(scale+1, v), BucketIndex(scale, v); fine>>1 != coarse {
				t.Fatalf("%g: bucket %d at scale %d, %d at scale %d", v, fine, scale+1, coarse, scale)
			}
		}
	}
}

func TestBucketUpper(t *testing.T) {
	for scale := range MaxScale + 1 {
		for i := -600 << scale; i < 600<<scale; i += 7 {
			u := BucketUpper(scale, i)
			// To the nearest f64: the value before is in the bucket, that after the next is not.
			if got := BucketIndex(scale, math.Nextafter(u, 0)); got != i {
				t.Fatalf("scale %d: the value before the upper bound of %d is in %d", scale, i, got)
			}
			if got := BucketIndex(scale, math.Nextafter(u, math.Inf(1))); got != i+1 {
				t.Fatalf("scale %d: the value after the upper bound of %d is in %d", scale, i, got)
			}
		}
	}
}

func TestNewBucketRange(t *testing.T) {
	for _, c := range []struct {
		scale     int
		low, high float64
		want      BucketRange
	}{
		{3, 0.001, 1, BucketRange{3, -80, 80}}, // the default: 1 ms to 1 s
		{0, 1, 2, BucketRange{0, 0, 1}},        // low is a bound: what lies above it is the first bucket
		{0, 1, math.Nextafter(2, 3), BucketRange{0, 0, 2}},
		{0, math.Nextafter(1, 0), 2, BucketRange{0, -1, 2}},
		{6, 0x1p-511, 0x1p-510, BucketRange{6, -511 * 64, 64}},
		{0, 0x1p-511, math.MaxFloat64, BucketRange{0, -511, 1535}},
	} {
		got, err := NewBucketRange(c.scale, c.low, c.high)
		if err != nil || got != c.want {
			t.Errorf("scale %d, %g to %g: want %+v, got %+v and %v", c.scale, c.low, c.high, c.want, got, err)
		}
	}
	// Whatever the range, what lies between low and high has a bucket, and no bucket at an end is without need.
	r := rand.New(rand.NewPCG(9, 10))
	for range 5000 {
		low := math.Ldexp(1+r.Float64(), r.IntN(500)-250)
		high := low * (1 + r.Float64()*math.Exp2(float64(r.IntN(20))))
		scale := r.IntN(MaxScale + 1)
		b, err := NewBucketRange(scale, low, high)
		if err != nil || !(high > low) {
			continue
		}
		if i := BucketIndex(scale, math.Nextafter(low, high)); i != b.Min {
			t.Fatalf("scale %d, %g to %g: the first value is in %d, the range begins at %d", scale, low, high, i, b.Min)
		}
		if i := BucketIndex(scale, high); i != b.Min+b.Count-1 {
			t.Fatalf("scale %d, %g to %g: the last value is in %d, the range ends with %d", scale, low, high, i, b.Min+b.Count-1)
		}
	}
	for _, c := range []struct {
		scale     int
		low, high float64
		want      string
	}{
		{-1, 1, 2, "scale of 0 to 6, got -1"},
		{7, 1, 2, "scale of 0 to 6, got 7"},
		{0, 0, 1, "low < high"},
		{0, -1, 1, "low < high"},
		{0, 2, 1, "low < high"},
		{0, 1, 1, "low < high"},
		{0, math.NaN(), 1, "low < high"},
		{0, 1, math.NaN(), "low < high"},
		{0, 1, math.Inf(1), "low < high"},
		{0, 0x1p-512, 1, "2^-511"},
		{6, 1e-100, 1e100, "want 1 to 2048 buckets"},
		{6, 0x1p512, 0x1p513, "lowest bucket"},
	} {
		if _, err := NewBucketRange(c.scale, c.low, c.high); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("scale %d, %g to %g: want %q, got %v", c.scale, c.low, c.high, c.want, err)
		}
	}
}

func TestBucketRangeCheck(t *testing.T) {
	for _, r := range []BucketRange{{0, -1022, 2046}, {6, math.MinInt16, 1}, {3, 0, MaxBuckets}} {
		if err := r.Check(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, r := range []BucketRange{{-1, 0, 1}, {7, 0, 1}, {0, 0, 0}, {0, 0, MaxBuckets + 1}, {0, -1023, 1}, {6, math.MinInt16 - 1, 1}, {6, math.MaxInt16 + 1, 1}} {
		if err := r.Check(); err == nil {
			t.Errorf("%+v: want an error", r)
		}
	}
}

func TestBucketIndexAllocatesNothing(t *testing.T) {
	sink := 0
	if n := testing.AllocsPerRun(100, func() { sink += BucketIndex(3, 1.5) }); n != 0 {
		t.Errorf("want no allocation, got %v", n)
	}
}
