package column_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/internal/archive/column"
)

// roundTrip encodes a column between other bytes, and wants it back, by Decode and by Skip.
func roundTrip(t *testing.T, e *column.Encoder, d *column.Decoder, vals []uint64, present []bool, float bool) []byte {
	t.Helper()
	b := e.Encode([]byte("before"), vals, present, float)
	if !bytes.HasPrefix(b, []byte("before")) {
		t.Fatal("what was there before is not any more")
	}
	b = append(b, "behind"...)[6:]
	rest, err := column.Skip(b, len(vals), float)
	if err != nil || string(rest) != "behind" {
		t.Fatalf("skip %x: left %q, %v", b, rest, err)
	}
	got, there, rest, err := d.Decode(b, len(vals), float)
	if err != nil || string(rest) != "behind" {
		t.Fatalf("decode %x: left %q, %v", b, rest, err)
	}
	if len(got) != len(vals) || there != nil && len(there) != len(vals) {
		t.Fatalf("want %d values, got %d (%d)", len(vals), len(got), len(there))
	}
	for i, v := range vals {
		p := present == nil || present[i]
		if !p {
			v = 0
		}
		if (there == nil || there[i]) != p || got[i] != v {
			t.Fatalf("value %d of %d: want %#x (%v), got %#x; column %x", i, len(vals), v, p, got[i], b)
		}
	}
	return b[:len(b)-6]
}

func f64s(v ...float64) []uint64 {
	u := make([]uint64, len(v))
	for i, f := range v {
		u[i] = math.Float64bits(f)
	}
	return u
}

func repeat(v uint64, n int) []uint64 {
	return slices.Repeat([]uint64{v}, n)
}

// What is usual costs no more than it has to.
func TestSizes(t *testing.T) {
	spikes := make([]uint64, 60)
	spikes[7], spikes[40] = 1000, 1000
	for _, c := range []struct {
		name  string
		vals  []uint64
		float bool
		most  int
	}{
		{"no values", nil, false, 0},
		{"zeros", repeat(0, 60), false, 1},
		{"zeros, f64", repeat(0, 60), true, 1},
		{"small constant", repeat(5, 60), false, 2},
		{"small constant, f64", f64s(5, 5, 5), true, 2},
		{"decimal constant", f64s(0.25, 0.25, 0.25), true, 4},
		{"row numbers", []uint64{7, 8, 9, 10, 11}, false, 4},
		{"pages", []uint64{4096 * 7, 4096 * 9, 4096 * 8, 4096 * 7}, false, 8},
		{"spikes", spikes, false, 11},
		{"tenths", f64s(40.1, 40.2, 40.1, 40.3, 40.2, 40.1, 40.0, 39.9), true, 8},
		{"a wrapping counter", []uint64{math.MaxUint64 - 1, math.MaxUint64, 0, 1}, false, 4},
	} {
		b := roundTrip(t, &column.Encoder{}, &column.Decoder{}, c.vals, nil, c.float)
		if len(b) > c.most {
			t.Errorf("%s: want at most %d bytes, got %d: %x", c.name, c.most, len(b), b)
		}
	}
}

// Every bit of every f64 comes back, whatever stands beside it.
func TestFloats(t *testing.T) {
	odd := []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.NaN(), math.Float64frombits(0xfff800756e736574),
		math.Float64frombits(0x7ff0000000000002), math.SmallestNonzeroFloat64, -math.SmallestNonzeroFloat64, 0x1p-1022, math.MaxFloat64,
		-math.MaxFloat64, 1 << 53, 1<<53 + 2, -(1 << 53), 1<<53 - 1, 1 << 63, 1e22, 1e23, 1e-22, 1e-23, 0.1, 0.3, 1.0 / 3, 123456.789, 1e15 + 0.3,
		1732161600.123, 1732161600.123456, 4.35, 2.675, 1e-7, 123e-9, 0.1 + 0.2}
	var e column.Encoder
	var d column.Decoder
	for _, a := range odd {
		roundTrip(t, &e, &d, f64s(a), nil, true)
		for _, b := range odd {
			roundTrip(t, &e, &d, f64s(a, b), nil, true)
			roundTrip(t, &e, &d, f64s(a, a, b, a), nil, true)
			for _, c := range odd {
				roundTrip(t, &e, &d, f64s(a, b, c), nil, true)
			}
		}
	}
	// What people write with so many digits is found to have so many.
	for digits := range 10 {
		scale := math.Pow10(digits)
		r := rand.New(rand.NewPCG(1, uint64(digits)))
		vals := make([]uint64, 60)
		for i := range vals {
			vals[i] = math.Float64bits(math.Round(r.Float64()*scale*1000) / scale)
		}
		b := roundTrip(t, &e, &d, vals, nil, true)
		if most := 10 + 60*int(math.Ceil(math.Log2(1000*scale)))/8; len(b) > most {
			t.Errorf("%d digits behind the point: want at most %d bytes, got %d", digits, most, len(b))
		}
	}
}

// Every number of values at every width, with and without what is absent.
func TestShapes(t *testing.T) {
	var e column.Encoder
	var d column.Decoder
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 70 {
		for width := range 65 {
			vals := make([]uint64, n)
			base, step := r.Uint64(), r.Uint64()>>r.IntN(64)
			present := make([]bool, n)
			density := r.IntN(5)
			for i := range vals {
				vals[i] = r.Uint64() >> (64 - width)
				if r.IntN(20) == 0 {
					vals[i] = r.Uint64() >> r.IntN(64)
				}
				switch width % 4 {
				case 1:
					vals[i] = base + vals[i]
				case 2:
					vals[i] = base + vals[i]*step
				case 3:
					vals[i] += base + uint64(i)*step
				}
				present[i] = r.IntN(4) < density
			}
			roundTrip(t, &e, &d, vals, nil, width&1 != 0)
			roundTrip(t, &e, &d, vals, present, width&1 == 0)
		}
	}
	long := make([]uint64, 65535)
	present := make([]bool, len(long))
	for i := range long {
		long[i] = r.Uint64() >> (40 + i%20)
		present[i] = i%3 != 0
	}
	roundTrip(t, &e, &d, long, nil, false)
	roundTrip(t, &e, &d, long, present, true)
}

func TestSeries(t *testing.T) {
	var e column.Encoder
	var d column.Decoder
	for _, s := range slices.Concat(hostmix.Recorded(), hostmix.App(1, 100, 300, 1)) {
		for _, n := range []int{1, 2, 15, 60} {
			for at := 0; at+n <= len(s.Values); at += n {
				var present []bool
				if s.Present != nil {
					present = s.Present[at : at+n]
				}
				roundTrip(t, &e, &d, s.Values[at:at+n], present, s.Float)
			}
		}
	}
}

// Rules of FORMAT.md 17 that broken columns break, one each.
func TestCorrupt(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes []byte
		n     int
		float bool
	}{
		{"nothing", []byte{}, 3, false},
		{"presence 3", []byte{0x03}, 3, false},
		{"none, and more", []byte{0x11, 2}, 3, false},
		{"codec 3", []byte{0x0c, 0}, 3, false},
		{"constant with a divisor", []byte{0x20, 1}, 3, false},
		{"constant with exceptions", []byte{0x40, 1}, 3, false},
		{"integers with a transform", []byte{0x80, 1}, 3, false},
		{"transform 23", []byte{0x80, 23}, 3, true},
		{"short bitmap", []byte{0x02, 0xff}, 9, false},
		{"empty bitmap", []byte{0x02, 0}, 3, false},
		{"bitmap of more", []byte{0x02, 0x0f}, 3, false},
		{"divisor 0", []byte{0x24, 0, 0}, 3, false},
		{"width 65", []byte{0x04, 65}, 3, false},
		{"short bits", []byte{0x04, 8, 1, 2}, 3, false},
		{"more exceptions than values", []byte{0x44, 0, 4, 0, 1, 1, 1, 1, 1, 1, 1}, 3, false},
		{"exceptions of 64 bits", append([]byte{0x44, 64, 1}, make([]byte, 30)...), 3, false},
		{"exception outside", []byte{0x44, 0, 1, 3, 1}, 3, false},
		{"exception at the same place", []byte{0x44, 0, 2, 1, 1, 0, 1}, 3, false},
		{"exception of 0", []byte{0x44, 0, 1, 1, 0}, 3, false},
		{"exception of too many bits", []byte{0x44, 63, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}, 3, false},
		{"long varint", []byte{0x10, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0}, 3, false},
		{"varint of 65 bits", []byte{0x10, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}, 3, false},
	} {
		var d column.Decoder
		var corrupt *column.CorruptError
		vals, present, rest, err := d.Decode(c.bytes, c.n, c.float)
		if !errors.As(err, &corrupt) || vals != nil || present != nil || rest != nil {
			t.Errorf("%s: want a CorruptError alone, got %v, %v, %x, %v", c.name, vals, present, rest, err)
		}
	}
}

// A cut column is an error, whatever is cut off.
func TestCut(t *testing.T) {
	var e column.Encoder
	for _, float := range []bool{false, true} {
		b := e.Encode(nil, []uint64{5, 900, 7, 9, 9, 7, 1 << 40}, []bool{true, true, true, false, true, true, true}, float)
		for n := range b {
			var d column.Decoder
			if _, _, _, err := d.Decode(b[:n], 7, float); err == nil {
				t.Errorf("%d of %d bytes: want an error, got none", n, len(b))
			}
			if _, err := column.Skip(b[:n], 7, float); err == nil {
				t.Errorf("%d of %d bytes skipped: want an error, got none", n, len(b))
			}
		}
	}
}

func TestAllocations(t *testing.T) {
	var e column.Encoder
	var d column.Decoder
	s := hostmix.App(1, 10, 60, 1)
	h := hostmix.Histogram(1, 15, 160, 10, 50, 0.5)
	var b []byte
	var counts []uint64
	if n := testing.AllocsPerRun(10, func() {
		for _, s := range s {
			b = e.Encode(b[:0], s.Values, nil, s.Float)
			if _, _, _, err := d.Decode(b, len(s.Values), s.Float); err != nil {
				t.Fatal(err)
			}
		}
		b = e.EncodeHistogram(b[:0], h, 15, 160)
		var err error
		if counts, _, err = d.DecodeHistogram(counts, b, 15, 160); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("want no allocation once there is scratch, got %v", n)
	}
}

func ExampleEncoder() {
	var e column.Encoder
	var d column.Decoder
	b := e.Encode(nil, []uint64{1000, 1010, 1020, 1040}, nil, false)
	vals, _, _, err := d.Decode(b, 4, false)
	fmt.Printf("%x %d %v\n", b, vals, err)
	// Output: 34d00f0a038808 [1000 1010 1020 1040] <nil>
}
