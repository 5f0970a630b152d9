package archive

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

// deadVMs makes the archive of n VMs that lived 45 s each, 64 at a time: 100 series of an application mix (60 counters, 20 gauges, 20 up-downs).
func deadVMs(tb testing.TB, dir string, n int) *Archive {
	series := make([]*reader.Series, 100)
	for i := range series {
		series[i] = &reader.Series{Definition: &reader.Definition{Name: fmt.Sprintf("vm_metric_%d_total", i), Unit: "By", Help: "What a VM did.", Kind: reader.Counter, Number: reader.U64}}
		switch {
		case i >= 80:
			series[i].Kind, series[i].Number = reader.UpDown, reader.I64
		case i >= 60:
			series[i].Kind, series[i].Number = reader.Gauge, reader.F64
		}
	}
	schema, err := NewSchema(0, "scalars", series)
	if err != nil {
		tb.Fatal(err)
	}
	bytes := int64(n) * 100 * 45 * 2
	a, err := Open(Options{Dir: dir, Tiers: []TierOptions{{Step: time.Second, Budget: max(bytes, 64<<20)}}, ExtentSize: maxExtentSize})
	if err != nil {
		tb.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	b := &Block{Schema: schema, Step: time.Second}
	const rows, cohort = 45, 64
	for from := 0; from < n; from += cohort {
		b.Sources = b.Sources[:0]
		for i := from; i < min(from+cohort, n); i++ {
			birth := worldBirth + int64(i/cohort)*50_000
			src := &Source{Birth: birth * 1e6, Inode: uint64(i), UID: 1000, Labels: []reader.Pair{{Name: "host", Value: "h1"}, {Name: "instance", Value: fmt.Sprintf("vm-%08d", i)}, {Name: "job", Value: fmt.Sprintf("tenant-%d", i/1000)}, {Name: "region", Value: "eu"}}}
			le.PutUint64(src.Segment[:], mix(uint64(i)))
			s := Rows{Source: src, Base: rows, Final: true, Starts: slices.Repeat([]int64{birth}, 100), Cells: make([][]uint64, 100)}
			for k := range rows {
				s.Numbers = append(s.Numbers, uint64(k+1))
				s.Times = append(s.Times, birth+int64(k+1)*1000+r.Int64N(3))
			}
			for j := range s.Cells {
				cells := make([]uint64, rows)
				v, moves := r.Uint64N(1e6), r.IntN(2) == 0
				for k := range cells {
					if moves {
						v += r.Uint64N(100)
					}
					if cells[k] = v; series[j].Number == reader.F64 {
						cells[k] = math.Float64bits(float64(v%10000) / 100)
					}
				}
				s.Cells[j] = cells
			}
			b.Sources = append(b.Sources, s)
		}
		if err := a.Append(0, b); err != nil {
			tb.Fatal(err)
		}
	}
	if err := a.Sync(); err != nil {
		tb.Fatal(err)
	}
	return a
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// readCounter counts reads.
type readCounter struct {
	File
	reads, bytes int
}

func (c *readCounter) ReadAt(b []byte, off int64) (int, error) {
	c.reads++
	c.bytes += len(b)
	return c.File.ReadAt(b, off)
}

// BenchmarkDead measures selections in an archive of 10 M dead series: SHMTS_DEAD VMs of 100 series, if it is set, else 5,000. Cold
// is with nothing in our caches, disk with nothing in the page cache either.
func BenchmarkDead(b *testing.B) {
	n := 5000
	if v := os.Getenv("SHMTS_DEAD"); v != "" {
		n, _ = strconv.Atoi(v)
	}
	dir := b.TempDir()
	if d := os.Getenv("SHMTS_DEAD_DIR"); d != "" {
		dir = d
	}
	if _, err := os.Stat(dir + "/1s.tier"); err != nil {
		a := deadVMs(b, dir, n)
		s := a.Tiers()[0]
		b.Logf("%d VMs: %d extents, %d blocks, %.2f bytes a sample", n, s.Used, s.Blocks, float64(s.Used)*float64(maxExtentSize)/float64(n*4500))
		a.Close()
	}
	before := heap()
	opening := time.Now()
	a, err := OpenReader(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	b.Logf("open: %v, %d bytes resident", time.Since(opening), heap()-before)
	count := &readCounter{File: a.tiers[0].file}
	a.tiers[0].file = count
	eq := func(name, value string) Matcher {
		return Matcher{Name: name, Equal: value, Match: func(s string) bool { return s == value }}
	}
	all := Selection{From: 0, To: 1 << 60, Schema: func(s *Schema) bool {
		return slices.ContainsFunc(s.Series, func(s *reader.Series) bool { return s.Name == "vm_metric_7_total" })
	}}
	one, job, re, some := all, all, all, all
	one.Labels = []Matcher{eq("instance", fmt.Sprintf("vm-%08d", n/2))}
	job.Labels = []Matcher{eq("job", fmt.Sprintf("tenant-%d", n/2000))}
	re.Labels = []Matcher{{Name: "instance", Match: regexp.MustCompile(`^(?:vm-000.*77)$`).MatchString}}
	some.From = worldBirth + int64(n/2/64)*50_000
	some.To = some.From + 15*50_000
	some.Labels = []Matcher{eq("host", "h1")}
	ctx := context.Background()
	for _, c := range []struct {
		name string
		s    Selection
	}{{"instance", one}, {"job", job}, {"time", some}, {"regex", re}} {
		for _, mode := range []string{"warm", "cold", "disk"} {
			b.Run(c.name+"/"+mode, func(b *testing.B) {
				found := 0
				count.reads, count.bytes = 0, 0
				used := cpuTime(b)
				for range b.N {
					if mode != "warm" {
						a.reading = reading{}
					}
					if mode == "disk" {
						b.StopTimer()
						if err := count.Forget(); err != nil {
							b.Fatal(err)
						}
						b.StartTimer()
					}
					got, err := a.Select(ctx, c.s)
					if err != nil {
						b.Fatal(err)
					}
					found = len(got)
				}
				b.ReportMetric(float64((cpuTime(b)-used).Microseconds())/float64(b.N)/1000, "cpu-ms")
				b.ReportMetric(float64(found), "found")
				b.ReportMetric(float64(count.reads)/float64(b.N), "preads")
				b.ReportMetric(float64(count.bytes)/float64(b.N), "read-B")
			})
		}
	}
	b.Logf("resident after all: %d bytes", heap()-before)
}

// BenchmarkRead measures one metric over 1,000 living sources and an hour at 1 s.
func BenchmarkRead(b *testing.B) {
	const sources, hours, rows = 1000, 1, 60
	r := rand.New(rand.NewPCG(1, 1))
	dir := b.TempDir()
	a, err := Open(Options{Dir: dir, Tiers: []TierOptions{{Step: time.Second, Budget: 512 << 20}}, ExtentSize: maxExtentSize})
	if err != nil {
		b.Fatal(err)
	}
	defer a.Close()
	base := flushBlock(b, r, 0.5)
	for minute := range hours * 60 {
		for from := 0; from < sources; from += 64 {
			blk := *base
			blk.Sources = slices.Clone(base.Sources[:min(64, sources-from)])
			for i := range blk.Sources {
				s := &blk.Sources[i]
				src := *s.Source
				le.PutUint64(src.Segment[:], uint64(from+i))
				src.Labels = []reader.Pair{{Name: "instance", Value: fmt.Sprint("i", from+i)}, {Name: "job", Value: "j"}}
				s.Source, s.Base = &src, uint64(minute+1)*rows
				s.Numbers, s.Times = slices.Clone(s.Numbers), slices.Clone(s.Times)
				for k := range s.Numbers {
					s.Numbers[k] += uint64(minute * rows)
					s.Times[k] += int64(minute * rows * 1000)
				}
			}
			if err := a.Append(0, &blk); err != nil {
				b.Fatal(err)
			}
		}
	}
	s := a.Tiers()[0]
	b.Logf("%d extents, %d blocks, %.2f bytes a sample", s.Used, s.Blocks, float64(s.Used)*float64(maxExtentSize)/float64(sources*hours*3600*100))
	count := &readCounter{File: a.tiers[0].file}
	a.tiers[0].file = count
	want := base.Schema.Series[7]
	b.Run("find", func(b *testing.B) { // all of them, as after a restart
		count.reads, count.bytes = 0, 0
		used := cpuTime(b)
		for range b.N {
			a.reading = reading{}
			for i := range sources {
				segment := base.Sources[0].Source.Segment
				le.PutUint64(segment[:], uint64(i))
				if found, err := a.Find(segment); err != nil || len(found) != 1 || found[0].Tables[0].Tiers[0].Last != hours*60*rows {
					b.Fatal(found, err)
				}
			}
		}
		b.ReportMetric(float64((cpuTime(b)-used).Microseconds())/float64(b.N)/1000, "cpu-ms")
		b.ReportMetric(float64(count.reads)/float64(b.N), "preads")
	})
	for _, mode := range []string{"warm", "disk"} {
		b.Run(mode, func(b *testing.B) {
			count.reads, count.bytes = 0, 0
			var selecting time.Duration
			used := cpuTime(b)
			samples := 0
			for range b.N {
				if mode == "disk" {
					b.StopTimer()
					if err := count.Forget(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				t := time.Now()
				all, err := a.Select(context.Background(), Selection{From: 0, To: 1 << 60})
				selecting += time.Since(t)
				if err != nil || len(all) != sources {
					b.Fatal(len(all), err)
				}
				samples = 0
				for _, inc := range all {
					for c, err := range a.Read(inc, 0, 0, 0, 1<<60, []Column{{want, Last}}) {
						if err != nil {
							b.Fatal(err)
						}
						samples += len(c.Cells[0])
					}
				}
			}
			if samples != sources*hours*3600 {
				b.Fatal(samples)
			}
			b.ReportMetric(float64((cpuTime(b)-used).Microseconds())/float64(b.N)/1000, "cpu-ms")
			b.ReportMetric(float64(samples), "samples")
			b.ReportMetric(float64(selecting.Microseconds())/float64(b.N)/1000, "select-ms")
			b.ReportMetric(float64(count.reads)/float64(b.N), "preads")
			b.ReportMetric(float64(count.bytes)/float64(b.N), "read-B")
		})
	}
}
