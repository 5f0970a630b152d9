package column_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/internal/archive/column"
)

func roundTripHistogram(t *testing.T, e *column.Encoder, d *column.Decoder, counts []uint64, n, k int) []byte {
	t.Helper()
	b := e.EncodeHistogram([]byte("before"), counts, n, k)
	if !bytes.HasPrefix(b, []byte("before")) {
		t.Fatal("what was there before is not any more")
	}
	b = append(b, "behind"...)[6:]
	if rest, err := column.SkipHistogram(b, n, k); err != nil || string(rest) != "behind" {
		t.Fatalf("skip %x: left %q, %v", b, rest, err)
	}
	dirty := slices.Repeat([]uint64{77}, n*k)
	got, rest, err := d.DecodeHistogram(dirty, b, n, k)
	if err != nil || string(rest) != "behind" {
		t.Fatalf("decode %x: left %q, %v", b, rest, err)
	}
	if !slices.Equal(got, counts[:n*k]) {
		t.Fatalf("%d rows of %d: want %d, got %d", n, k, counts, got)
	}
	return b[:len(b)-6]
}

func TestHistogramShapes(t *testing.T) {
	var e column.Encoder
	var d column.Decoder
	r := rand.New(rand.NewPCG(1, 2))
	for n := range 20 {
		for k := range 25 {
			for kind := range 8 {
				counts := make([]uint64, n*k)
				for b := range k {
					v := r.Uint64() >> r.IntN(64)
					switch {
					case kind == 0 || kind == 1 && b%3 != 0:
						v = 0
					}
					for row := range n {
						counts[row*k+b] = v
						switch kind {
						case 2:
							v += r.Uint64N(3)
						case 3:
							v = r.Uint64()
						case 4:
							v -= r.Uint64N(100)
						case 5:
							v += r.Uint64N(1000) / 990 << r.IntN(64)
						case 6:
							v += math.MaxUint64 / 2
						case 7:
							v += 1<<50 + r.Uint64N(1<<40)
						}
					}
				}
				b := roundTripHistogram(t, &e, &d, counts, n, k)
				if kind == 0 && len(b) > 1 {
					t.Errorf("nothing observed: want a byte, got %x", b)
				}
			}
		}
	}
}

// FORMAT.md 17.5: what histograms at usual rates take.
func TestHistogramSizes(t *testing.T) {
	for _, c := range []struct{ rate, sigma, most float64 }{
		{5, 0.5, 14}, {50, 0.5, 24}, {1000, 0.5, 40}, {5, 1, 23}, {50, 1, 40},
	} {
		const rows = 15
		counts := hostmix.Histogram(1, rows, 160, 10, c.rate, c.sigma)
		b := roundTripHistogram(t, &column.Encoder{}, &column.Decoder{}, counts, rows, 160)
		if got := float64(len(b)) / rows; got > c.most {
			t.Errorf("%v observations a second, sigma %v: want at most %v bytes a row, got %.1f", c.rate, c.sigma, c.most, got)
		}
	}
}

func TestHistogramCorrupt(t *testing.T) {
	var e column.Encoder
	var d column.Decoder
	counts := hostmix.Histogram(1, 15, 160, 10, 50, 0.5)
	good := e.EncodeHistogram(nil, counts, 15, 160)
	for _, c := range []struct {
		name  string
		bytes []byte
		k     int
	}{
		{"nothing", nil, 160},
		{"more buckets than there are", []byte{5, 0, 5, 0, 0, 0, 0, 0}, 4},
		{"buckets beyond the last", []byte{3, 2, 5, 0, 0, 0, 0, 0}, 4},
		{"a length beyond the end", []byte{3, 0, 6, 0, 0, 0, 0, 0}, 4},
		{"a byte too few", append([]byte{1, 0, 0}, good[3:]...), 160},
		{"no bits", []byte{3, 0, 0}, 4},
		{"bits left", []byte{1, 0, 2, 0, 0}, 4},
		{"a length of -1", []byte{1, 0, 1, 0b01}, 4},
		{"a length of 65", append([]byte{1, 0, 19}, append(slices.Repeat([]byte{0xff}, 16), 3, 0, 0)...), 4},
		{"padding that is not 0", []byte{1, 0, 1, 0b100}, 4},
	} {
		var corrupt *column.CorruptError
		got, rest, err := d.DecodeHistogram(nil, c.bytes, 15, c.k)
		if !errors.As(err, &corrupt) || got != nil || rest != nil {
			t.Errorf("%s: want a CorruptError alone, got %v, %x, %v", c.name, got, rest, err)
		}
	}
	for n := range good {
		if _, _, err := d.DecodeHistogram(nil, good[:n], 15, 160); err == nil {
			t.Errorf("%d of %d bytes: want an error, got none", n, len(good))
		}
	}
}
