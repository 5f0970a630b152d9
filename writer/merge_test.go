package writer

import (
	"math"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// Values are counted at a finer scale and merged, and recorded one by one: the cells are the same, for every pair of scales, with
// values below the range, on its bounds and above.
func TestMergeIsRecording(t *testing.T) {
	o, clock := testOptions(t)
	o.Histograms, o.Buckets = 70, 200
	w := mustOpen(t, o)
	rng := rand.New(rand.NewPCG(3, 4))
	var values []float64
	for range 3000 {
		values = append(values, 0.01*math.Pow(1000, 3*rng.Float64()-1))
	}
	values = append(values, 0, 0.01, 10, 1, 0.5, 0.25, 2, 4, 1e-300, 1e300, 0x1p-1022)
	scales := [][2]int{}
	for to := 0; to <= 3; to++ {
		for from := to; from <= layout.MaxScale; from++ {
			scales = append(scales, [2]int{to, from})
		}
	}
	for i, scale := range scales {
		shape := []SeriesOption{Label("pair", string(rune('a'+i))), Scale(scale[0]), Buckets(0.01, 10)}
		recorded, merged, ints := w.Histogram("recorded", shape...), w.Histogram("merged", shape...), w.IntHistogram("ints", shape...)
		c := Counts{Scale: scale[1], Min: layout.BucketIndex(scale[1], 1e-300)}
		c.Buckets = make([]uint64, layout.BucketIndex(scale[1], 1e300)-c.Min+1)
		sum := 0.0
		for _, v := range values {
			recorded.Record(v)
			sum += v
			if v < 0x1p-1000 && v != 1e-300 {
				c.Zero++
			} else {
				c.Buckets[layout.BucketIndex(scale[1], v)-c.Min]++
			}
		}
		if err := merged.Merge(&c, sum); err != nil {
			t.Fatal(err)
		}
		if err := ints.Merge(&c, math.MaxUint64); err != nil {
			t.Fatal(err)
		}
		if err := ints.Merge(&Counts{Scale: scale[1]}, 8); err != nil { // modulo 2^64
			t.Fatal(err)
		}
	}
	clock.advance(10 * time.Second)
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	for i, scale := range scales {
		suffix := "{" + string(rune('a'+i)) + "}"
		one, other, ints := m.find("recorded"+suffix), m.find("merged"+suffix), m.find("ints"+suffix)
		a, b, c := m.last(one, 0).of(t, one), m.last(other, 0).of(t, other), m.last(ints, 0).of(t, ints)
		for cell := layout.HistZero; cell < len(a); cell++ {
			if b[cell] != a[cell] || c[cell] != a[cell] {
				t.Errorf("scale %d from %d, cell %d: want %d, got %d, ints %d", scale[0], scale[1], cell, a[cell], b[cell], c[cell])
			}
		}
		equal(t, "count", histogramCount(b), uint64(len(values)))
		equal(t, "sum of ints", c[layout.HistSum], 7)
	}
	equal(t, "no thread overflowed", w.Stats().OverflowThreads, 0)
	if w.Err() != nil {
		t.Error(w.Err())
	}
}

func TestMergeRejects(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	h, n, c := w.Histogram("h", Scale(3)), w.IntHistogram("n", Scale(3)), w.FloatCounter("c")
	for _, scale := range []int{2, -1, 21} {
		if h.Merge(&Counts{Scale: scale, Zero: 1}, 1) == nil || n.Merge(&Counts{Scale: scale, Zero: 1}, 1) == nil {
			t.Errorf("scale %d into 3: want an error, got none", scale)
		}
	}
	for _, sum := range []float64{-1, math.NaN(), math.Inf(1)} {
		if h.Merge(&Counts{Scale: 3, Zero: 1}, sum) == nil {
			t.Errorf("sum %g: want an error, got none", sum)
		}
		c.Merge(sum)
	}
	equal(t, "rejected", w.Stats().RejectedRecords, 12)
	c.Merge(2.5)
	c.Add(1)
	clock.advance(10 * time.Second)
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	equal(t, "c", m.float("c"), 3.5)
	for _, name := range []string{"h", "n"} {
		s := m.find(name)
		for cell, word := range m.last(s, 0).of(t, s) {
			if word != 0 {
				t.Errorf("%s, cell %d: want 0 after rejected merges, got %d", name, cell, word)
			}
		}
	}
	// To nowhere: nil, of a nil writer, without room, retired, closed.
	var none *Writer
	nowhere := &Counts{Scale: 3, Zero: 1}
	c.Retire()
	for _, h := range []*Histogram{nil, none.Histogram("x"), w.Histogram("far", Buckets(1e-100, 1e100), Scale(3))} {
		if err := h.Merge(nowhere, 1); err != nil {
			t.Error(err)
		}
	}
	none.FloatCounter("x").Merge(1)
	(*FloatCounter)(nil).Merge(1)
	if err := (*IntHistogram)(nil).Merge(nowhere, 1); err != nil {
		t.Error(err)
	}
	c.Merge(1)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Merge(nowhere, 1); err != nil {
		t.Error(err)
	}
}

// What was merged into private memory is in the file that takes its place.
func TestMergeBeforeTheFile(t *testing.T) {
	o, clock := testOptions(t)
	dir := o.Dir
	o.Dir = dir + "/missing"
	w, err := Open(o)
	if err == nil {
		t.Fatal("want an error without a directory, got none")
	}
	defer w.Close()
	c, h := w.FloatCounter("c"), w.Histogram("h", Scale(0), Buckets(1, 8))
	c.Merge(0.1)
	if err := h.Merge(&Counts{Scale: 1, Min: 2, Buckets: []uint64{5, 6}}, 30.1); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	clock.advance(90 * time.Second)
	w.Tick()
	c.Merge(0.2)
	clock.advance(10 * time.Second)
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	equal(t, "c", m.float("c"), sumOf(0.1, 0.2))
	s := m.find("h")
	cells := m.last(s, 0).of(t, s)
	equal(t, "bucket (2, 4]", cells[layout.HistBuckets+1-int(s.BucketMin)], 11)
	equal(t, "sum", math.Float64frombits(cells[layout.HistSum]), 30.1)
}

func TestNextTick(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	equal(t, "on a boundary", w.NextTick(), time.Second)
	clock.advance(300 * time.Millisecond)
	equal(t, "inside", w.NextTick(), 700*time.Millisecond)
	w.Close()
	if d := w.NextTick(); d >= 0 {
		t.Errorf("closed: want it negative, got %v", d)
	}
	if d := (*Writer)(nil).NextTick(); d >= 0 {
		t.Errorf("nil: want it negative, got %v", d)
	}
	bad, err := Open(Options{Mode: 0o777, Dir: o.Dir})
	if err == nil || bad.NextTick() >= 0 {
		t.Errorf("no segment: want an error and a negative time, got %v and %v", err, bad.NextTick())
	}
}

// sumOf adds as the cell does: at run time, in f64.
func sumOf(a, b float64) float64 { return a + b }
