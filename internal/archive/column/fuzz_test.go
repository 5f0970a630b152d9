package column_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/internal/archive/column"
)

// FuzzDecode takes arbitrary bytes for a column. An error answers nothing; what is answered is of n values, those that are absent 0, Skip
// agrees about where it ends, and encoded again it is the same values.
func FuzzDecode(f *testing.F) {
	var e column.Encoder
	for _, s := range slices.Concat(hostmix.Recorded()[:200], hostmix.App(1, 10, 300, 1)) {
		n := 15
		f.Add(e.Encode(nil, s.Values[:n], nil, s.Float), uint16(n), s.Float)
		f.Add(e.Encode(nil, s.Values[:n], []bool{3: true, 5: true, 7: true, 14: false}, s.Float), uint16(n), s.Float)
	}
	f.Fuzz(func(t *testing.T, b []byte, n16 uint16, float bool) {
		n := int(n16)
		var e column.Encoder
		var d column.Decoder
		after, skipErr := column.Skip(b, n, float)
		vals, present, rest, err := d.Decode(b, n, float)
		if err != nil {
			if vals != nil || present != nil || rest != nil {
				t.Fatalf("%v: want nothing else, got %d values, %d, %d bytes", err, len(vals), len(present), len(rest))
			}
			return
		}
		if skipErr != nil || len(after) != len(rest) {
			t.Fatalf("decode left %d bytes, skip %d, %v", len(rest), len(after), skipErr)
		}
		if len(vals) != n || present != nil && len(present) != n {
			t.Fatalf("want %d values, got %d (%d)", n, len(vals), len(present))
		}
		for i := range present {
			if !present[i] && vals[i] != 0 {
				t.Fatalf("absent value %d: want 0, got %#x", i, vals[i])
			}
		}
		roundTrip(t, &e, &column.Decoder{}, slices.Clone(vals), slices.Clone(present), float)
	})
}

// FuzzRoundTrip takes arbitrary values.
func FuzzRoundTrip(f *testing.F) {
	for _, s := range slices.Concat(hostmix.Recorded()[:50], hostmix.App(1, 10, 300, 1)) {
		var b []byte
		for _, v := range s.Values[:15] {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
		f.Add(b, []byte(nil), s.Float)
		f.Add(b, []byte{0x55, 0x0f}, s.Float)
	}
	f.Fuzz(func(t *testing.T, b, absent []byte, float bool) {
		var vals []uint64
		for ; len(b) >= 8 && len(vals) < 1<<16-1; b = b[8:] {
			vals = append(vals, binary.LittleEndian.Uint64(b))
		}
		var present []bool
		if len(absent) > 0 {
			present = make([]bool, len(vals))
			for i := range present {
				present[i] = absent[i/8%len(absent)]>>(i%8)&1 == 0
			}
		}
		roundTrip(t, &column.Encoder{}, &column.Decoder{}, vals, present, float)
		if len(vals) > 0 {
			k := 1 + len(absent)%len(vals)
			roundTripHistogram(t, &column.Encoder{}, &column.Decoder{}, vals, len(vals)/k, k)
		}
	})
}

// FuzzHistogram takes arbitrary bytes for the counts of a histogram, with the same contract.
func FuzzHistogram(f *testing.F) {
	var e column.Encoder
	for _, rate := range []float64{0.1, 5, 1000} {
		f.Add(e.EncodeHistogram(nil, hostmix.Histogram(1, 4, 30, 10, rate, 0.1), 4, 30), uint8(4), uint8(30))
	}
	f.Fuzz(func(t *testing.T, b []byte, rows, buckets uint8) {
		n, k := int(rows), int(buckets)
		var d column.Decoder
		after, skipErr := column.SkipHistogram(b, n, k)
		counts, rest, err := d.DecodeHistogram(nil, b, n, k)
		if err != nil {
			if counts != nil || rest != nil {
				t.Fatalf("%v: want nothing else, got %d counts, %d bytes", err, len(counts), len(rest))
			}
			return
		}
		if skipErr != nil || len(after) != len(rest) {
			t.Fatalf("decode left %d bytes, skip %d, %v", len(rest), len(after), skipErr)
		}
		if len(counts) != n*k {
			t.Fatalf("want %d counts, got %d", n*k, len(counts))
		}
		roundTripHistogram(t, &column.Encoder{}, &d, counts, n, k)
	})
}
