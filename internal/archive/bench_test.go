package archive

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/reader"
)

// flushBlock is a flush of a cohort: 64 sources x 100 series x 60 rows, most of which stand still, as on hosts.
func flushBlock(tb testing.TB, r *rand.Rand, still float64) *Block {
	series := make([]*reader.Series, 100)
	for i := range series {
		series[i] = &reader.Series{Definition: &reader.Definition{Name: "series_" + string(rune('a'+i%26)) + string(rune('a'+i/26)), Kind: reader.Counter, Number: reader.U64}}
		if i >= 60 {
			series[i].Kind = reader.Gauge
			series[i].Number = reader.F64
		}
	}
	schema, err := NewSchema(0, "scalars", series)
	if err != nil {
		tb.Fatal(err)
	}
	b := &Block{Schema: schema, Step: time.Second}
	w := newWorld(tb)
	for i := range 64 {
		s := Rows{Source: w.source(2 * i), Base: 60, Starts: make([]int64, 100)}
		for k := range 60 {
			s.Numbers = append(s.Numbers, uint64(k+1))
			s.Times = append(s.Times, worldBirth+int64(k)*1000+r.Int64N(3))
		}
		for j := range series {
			s.Starts[j] = worldBirth + int64(j/50)
			cells := make([]uint64, 60)
			v := r.Uint64N(1e6)
			moves := r.Float64() >= still
			for k := range cells {
				if moves {
					v += r.Uint64N(200)
				}
				cells[k] = v
				if j >= 60 {
					cells[k] = math.Float64bits(float64(v%10000) / 100)
				}
			}
			s.Cells = append(s.Cells, cells)
		}
		b.Sources = append(b.Sources, s)
	}
	return b
}

// cpuTime is what the process has used: the clock says little on a machine that others use too.
func cpuTime(tb testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tallied are the system's files, and how many bytes were written to them.
type tallied struct {
	Files
	bytes *int64
}

type talliedFile struct {
	File
	bytes *int64
}

func (c tallied) Open(path string, create bool) (File, error) {
	f, err := c.Files.Open(path, create)
	return talliedFile{f, c.bytes}, err
}

func (f talliedFile) WriteAt(b []byte, off int64) (int, error) {
	*f.bytes += int64(len(b))
	return f.File.WriteAt(b, off)
}

// BenchmarkAppend writes flushes of cohorts into files.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		name  string
		still float64
	}{{"host", 0.8}, {"application", 0.1}} {
		b.Run(c.name, func(b *testing.B) {
			written, payload := int64(0), int64(0)
			a := mustOpen(b, Options{Files: tallied{SystemFiles(), &written}, Dir: b.TempDir(), Tiers: []TierOptions{{time.Second, 4096 + 4*maxExtentSize}}, ExtentSize: maxExtentSize})
			defer a.Close()
			block := flushBlock(b, rand.New(rand.NewPCG(1, 1)), c.still)
			b.ReportAllocs()
			b.ResetTimer()
			began := cpuTime(b)
			for range b.N {
				for i := range block.Sources {
					s := &block.Sources[i]
					for k := range s.Numbers {
						s.Numbers[k] += 60
						s.Times[k] += 60000
					}
					s.Base += 60
				}
				if err := a.Append(0, block); err != nil {
					b.Fatal(err)
				}
				blocks, _ := a.tiers[0].open.mem.blocks()
				payload += int64(blocks[len(blocks)-1].length)
			}
			values := 64.0 * 100 * 60
			b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N)/values, "cpu-ns/value")
			b.ReportMetric(float64(payload)/float64(b.N)/values, "B/value")
			b.ReportMetric(float64(written)/float64(payload), "written/payload")
		})
	}
}

// BenchmarkOpen opens an archive that is full, with 1,000 sources in each extent: what a restart waits for.
func BenchmarkOpen(b *testing.B) {
	o := Options{Dir: b.TempDir(), Tiers: []TierOptions{{time.Second, 512 << 20}}}
	a := mustOpen(b, o)
	w, r := newWorld(b), rand.New(rand.NewPCG(1, 1))
	var blocks []*Block // again and again
	for i := range 16 {
		var sources []int
		for k := range 64 {
			sources = append(sources, 2*(i*64+k))
		}
		blocks = append(blocks, w.block(r, w.schemas[2], false, sources, 60))
	}
	for i := 0; a.End(0).Generation < 31 || a.End(0).Offset < maxExtentSize/2; i++ {
		if err := a.Append(0, blocks[i%16]); err != nil {
			b.Fatal(err)
		}
	}
	st := a.Tiers()[0]
	if err := a.Close(); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	began := cpuTime(b)
	for range b.N {
		if err := mustOpen(b, o).Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N)/1e6, "cpu-ms/op")
	b.ReportMetric(float64(st.Used), "extents")
	b.ReportMetric(float64(st.Sources)/float64(st.Used), "sources/extent")
}
