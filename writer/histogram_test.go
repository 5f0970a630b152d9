package writer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/shmts/shmts/layout"
)

// Every value is counted in the bucket that FORMAT.md 9 says, found here by searching the
// bounds: what no bucket holds, bounds and their neighbours, zeros and subnormals, every scale.
func TestHistogramCells(t *testing.T) {
	o, _ := testOptions(t)
	o.Histograms, o.Buckets = 40, 660
	w := mustOpen(t, o)
	l, err := w.Lane()
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for scale := 0; scale <= layout.MaxScale; scale++ {
		for _, r := range [][2]float64{{0.001, 1}, {1, 1000}, {0x1p-511, 0x1p-510}, {math.MaxFloat64 / 4, math.MaxFloat64}, {3, 3.5}} {
			if _, err := layout.NewBucketRange(scale, r[0], r[1]); err != nil {
				continue
			}
			h := w.Histogram("h", Labels("range", fmt.Sprint(r), "scale", fmt.Sprint(scale)), Buckets(r[0], r[1]), Scale(scale))
			owned := l.Histogram(h)
			values := []float64{0, math.Copysign(0, -1), math.SmallestNonzeroFloat64, 0x1p-1022, 0x1.fffffffffffffp-1023,
				math.MaxFloat64, r[0], r[1], math.Nextafter(r[0], 0), math.Nextafter(r[1], math.Inf(1))}
			for i := range h.shape.count {
				b := layout.BucketUpper(scale, h.shape.min+i)
				values = append(values, b*(1-1e-9), b*(1+1e-9))
			}
			for range 200 {
				values = append(values, r[0]*math.Pow(r[1]/r[0], 2*rng.Float64()-0.5))
			}
			for _, v := range values {
				if math.IsInf(v, 0) {
					continue
				}
				want := layout.HistBuckets + h.shape.count
				for i := -1; i < h.shape.count; i++ {
					if v <= layout.BucketUpper(scale, h.shape.min+i) {
						want = layout.HistZero + 1 + i
						break
					}
				}
				if v < 0x1p-1022 {
					want = layout.HistZero
				}
				got := countedIn(h, func() { h.Record(v) })
				if again := countedIn(h, func() { owned.Record(v) }); got != want || again != want {
					t.Fatalf("scale %d, range %v, value %v: want cell %d, got %d, owned %d", scale, r, v, want, got, again)
				}
			}
		}
	}
	if w.Err() != nil {
		t.Error(w.Err())
	}
}

// countedIn is the number of the cell that record adds 1 to, -1 if it is not exactly one.
func countedIn(h *Histogram, record func()) int {
	at := h.s.place.Load()
	sums := func() []uint64 {
		sum := make([]uint64, h.shape.count+3)
		for lane := 0; lane <= at.overflow; lane += at.stride {
			for i := range sum {
				sum[i] += at.words[lane+i]
			}
		}
		return sum
	}
	before := sums()
	record()
	found := -1
	for i, n := range sums() {
		if i < layout.HistZero || n == before[i] {
			continue
		}
		if found >= 0 || n != before[i]+1 {
			return -1
		}
		found = i
	}
	return found
}
