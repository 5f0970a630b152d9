package column_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/internal/archive/column"
)

// A part is n rows of a series.
type part struct {
	vals    []uint64
	present []bool
	float   bool
}

func parts(series []*hostmix.Series, n int, changing bool) (all []part, values int) {
	for _, s := range series {
		same := true
		for _, v := range s.Values {
			same = same && v == s.Values[0]
		}
		if same && changing {
			continue
		}
		for at := 0; at+n <= len(s.Values); at += n {
			p := part{vals: s.Values[at : at+n], float: s.Float}
			if s.Present != nil {
				p.present = s.Present[at : at+n]
			}
			all = append(all, p)
			values += n
		}
	}
	return all, values
}

// xor is the peer: Prometheus' own chunk of the same values, timestamps (which lie exactly one step apart) included.
func xor(p part) *chunkenc.XORChunk {
	c := chunkenc.NewXORChunk()
	a, err := c.Appender()
	if err != nil {
		panic(err) // an empty chunk has one
	}
	for i, v := range p.vals {
		if p.present != nil && !p.present[i] {
			continue
		}
		f := float64(v)
		if p.float {
			f = math.Float64frombits(v)
		}
		a.Append(0, int64(i)*1000, f)
	}
	return c
}

var mixes = []struct {
	name     string
	series   func() []*hostmix.Series
	changing bool
}{
	{"host", hostmix.Recorded, false},
	{"host-changing", hostmix.Recorded, true},
	{"app-1s", func() []*hostmix.Series { return hostmix.App(1, 500, 300, 1) }, false},
	{"app-10s", func() []*hostmix.Series { return hostmix.App(1, 500, 300, 10) }, false},
}

func BenchmarkColumns(b *testing.B) {
	for _, mix := range mixes {
		series := mix.series()
		for _, n := range []int{15, 60, 100} {
			all, values := parts(series, n, mix.changing)
			name := fmt.Sprintf("%s/rows=%d/", mix.name, n)
			report := func(b *testing.B, size int) {
				b.ReportMetric(float64(size)/float64(values), "B/value")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(values), "ns/value")
				b.ReportMetric(0, "ns/op")
			}
			b.Run(name+"encode", func(b *testing.B) {
				var e column.Encoder
				var dst []byte
				for b.Loop() {
					dst = dst[:0]
					for _, p := range all {
						dst = e.Encode(dst, p.vals, p.present, p.float)
					}
				}
				report(b, len(dst))
			})
			b.Run(name+"decode", func(b *testing.B) {
				var e column.Encoder
				var d column.Decoder
				var dst []byte
				for _, p := range all {
					dst = e.Encode(dst, p.vals, p.present, p.float)
				}
				for b.Loop() {
					rest, err := dst, error(nil)
					for _, p := range all {
						if _, _, rest, err = d.Decode(rest, n, p.float); err != nil {
							b.Fatal(err)
						}
					}
				}
				report(b, len(dst))
			})
			b.Run(name+"xor-encode", func(b *testing.B) {
				size := 0
				for b.Loop() {
					size = 0
					for _, p := range all {
						size += len(xor(p).Bytes())
					}
				}
				report(b, size)
			})
			b.Run(name+"xor-decode", func(b *testing.B) {
				var chunks []*chunkenc.XORChunk
				size := 0
				for _, p := range all {
					chunks = append(chunks, xor(p))
					size += len(chunks[len(chunks)-1].Bytes())
				}
				var it chunkenc.Iterator
				sum := 0.0
				for b.Loop() {
					for _, c := range chunks {
						for it = c.Iterator(it); it.Next() != chunkenc.ValNone; {
							_, v := it.At()
							sum += v
						}
					}
				}
				report(b, size)
			})
		}
	}
}

func BenchmarkHistograms(b *testing.B) {
	const rows, buckets = 15, 160
	for _, sigma := range []float64{0.5, 1} {
		for _, rate := range []float64{5, 50, 1000} {
			counts := hostmix.Histogram(1, rows, buckets, 10, rate, sigma)
			name := fmt.Sprintf("sigma=%v/rate=%v/", sigma, rate)
			report := func(b *testing.B, size int) {
				b.ReportMetric(float64(size)/rows, "B/row")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/rows, "ns/row")
				b.ReportMetric(0, "ns/op")
			}
			b.Run(name+"encode", func(b *testing.B) {
				var e column.Encoder
				var dst []byte
				for b.Loop() {
					dst = e.EncodeHistogram(dst[:0], counts, rows, buckets)
				}
				report(b, len(dst))
			})
			b.Run(name+"decode", func(b *testing.B) {
				var e column.Encoder
				var d column.Decoder
				dst := e.EncodeHistogram(nil, counts, rows, buckets)
				var got []uint64
				var err error
				for b.Loop() {
					if got, _, err = d.DecodeHistogram(got, dst, rows, buckets); err != nil {
						b.Fatal(err)
					}
				}
				report(b, len(dst))
			})
			b.Run(name+"columns", func(b *testing.B) { // a column for each bucket instead
				var e column.Encoder
				var dst []byte
				bucket := make([]uint64, rows)
				for b.Loop() {
					dst = dst[:0]
					for k := range buckets {
						for row := range rows {
							bucket[row] = counts[row*buckets+k]
						}
						dst = e.Encode(dst, bucket, nil, false)
					}
				}
				report(b, len(dst))
			})
		}
	}
}
