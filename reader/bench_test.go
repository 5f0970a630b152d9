package reader_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// BenchmarkPoll is one poll of a store and the reading of one new row of every segment: 1,000 segments of 100 counters
// each, as DESIGN.md's numbers have it. At one poll a second, 5 ms are 0.5 % of a core.
func BenchmarkPoll(b *testing.B) {
	for _, c := range []struct {
		name     string
		segments int
		o        reader.Options
	}{
		{"mapped/1000", 1000, reader.Options{MapBytes: 1 << 30}},
		{"control/1000", 1000, reader.Options{MapBytes: -1, ControlBytes: 16 << 20}},
		{"pread/1000", 1000, reader.Options{NoMap: true}},
		{"reopened/1000", 1000, reader.Options{NoMap: true, MaxFiles: -1}},
		{"pread/5000", 5000, reader.Options{NoMap: true}},
	} {
		b.Run(c.name, func(b *testing.B) {
			dir := segtest.Store(b)
			all := herd(b, dir, c.segments, 100)
			c.o.Rescan = 10 * time.Second
			s := open(b, dir, c.o)
			began := time.Now()
			if ev := poll(b, s); len(ev.New) != c.segments {
				b.Fatalf("want %d segments, got %d (%v)", c.segments, len(ev.New), ev.Refused)
			}
			first := time.Since(began)
			row := make([]uint64, 100)
			n, rows := uint64(0), 0
			var cpu int64
			for b.Loop() {
				b.StopTimer()
				n++
				for _, f := range all {
					f.Publish(0, 0, n, row)
				}
				b.StartTimer()
				before := usage()
				if _, err := s.Poll(); err != nil {
					b.Fatal(err)
				}
				for _, g := range s.Segments() {
					for range g.Rows(0, 0, n) {
						rows++
					}
				}
				cpu += usage() - before
			}
			if rows != int(n)*c.segments {
				b.Fatalf("want %d rows, got %d", int(n)*c.segments, rows)
			}
			b.ReportMetric(float64(cpu)/float64(n)/1e7, "%core@1s")
			b.ReportMetric(float64(first.Milliseconds()), "ms-first-poll")
		})
	}
}

// BenchmarkIdlePoll is a poll where nothing moved: every lock is asked for.
func BenchmarkIdlePoll(b *testing.B) {
	dir := segtest.Store(b)
	herd(b, dir, 1000, 100)
	s := open(b, dir, reader.Options{NoMap: true, Rescan: time.Hour})
	poll(b, s)
	b.ReportAllocs()
	for b.Loop() {
		poll(b, s)
	}
}

// BenchmarkBetween reads the newest rows of 1,000 segments of 100 counters each, for the first time since a poll or again.
func BenchmarkBetween(b *testing.B) {
	dir := segtest.Store(b)
	all := herd(b, dir, 1000, 100)
	n, row := uint64(0), make([]uint64, 100)
	publish := func() {
		n++
		for _, f := range all {
			f.Publish(0, 0, n, row)
			f.Control(layout.CtlClockOffset, uint64(segtest.Birth-segtest.BirthMono))
		}
	}
	for n < 130 {
		publish()
	}
	for _, c := range []struct {
		name string
		o    reader.Options
	}{{"mapped", reader.Options{MapBytes: 1 << 30}}, {"pread", reader.Options{NoMap: true}}} {
		s := open(b, dir, c.o)
		poll(b, s)
		for _, rows := range []int64{1, 3, 60, 118} {
			for _, again := range []bool{false, true} {
				b.Run(fmt.Sprintf("%s/rows=%d,again=%v", c.name, rows, again), func(b *testing.B) {
					before := usage()
					got := int64(0)
					for b.Loop() {
						if !again {
							b.StopTimer()
							skip := usage()
							publish()
							poll(b, s)
							before += usage() - skip
							b.StartTimer()
						}
						for i, g := range s.Segments() {
							begin := segtest.Birth + int64(i) + (int64(n)-rows)*1e9 + 1
							for range g.Between(0, 0, begin, begin+1e15) {
								got++
							}
						}
					}
					if got != rows*1000*int64(b.N) {
						b.Fatalf("want %d rows, got %d", rows*1000*int64(b.N), got)
					}
					b.ReportMetric(float64(usage()-before)/float64(b.N)/1000, "cpu-ns/segment")
				})
			}
		}
	}
}

func BenchmarkDelta(b *testing.B) {
	dir := segtest.Store(b)
	f := herd(b, dir, 1, 100)[0]
	for n := uint64(1); n <= 200; n++ {
		f.Publish(0, 0, n, make([]uint64, 100))
	}
	for name, o := range map[string]reader.Options{"mapped": {}, "pread": {NoMap: true}} {
		b.Run(name, func(b *testing.B) {
			s := open(b, dir, o)
			g := poll(b, s).New[0]
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.Delta(g.Series()[7], 10*time.Second); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func herd(b *testing.B, dir string, segments, series int) []*segtest.Segment {
	b.Helper()
	ts := layout.TableSchema{Name: "scalars", Lanes: 1, Tiers: []layout.TierSchema{{Step: 1e9, Rows: 120}, {Step: 10e9, Rows: 60}}}
	ts.Add(series, layout.Counter, 0)
	var all []*segtest.Segment
	for i := range segments {
		f := segtest.New(b, segtest.Options{Job: "vm", Instance: "vm" + strconv.Itoa(i), Tables: []layout.TableSchema{ts}, Series: series, HeapBytes: series * 64, BirthUnix: segtest.Birth + int64(i)})
		f.H.SegmentID[0], f.H.SegmentID[1] = byte(i), byte(i>>8)
		f.H.Encode(f.W)
		for k := range series {
			f.Series(b, 0, "vm_metric_number_"+strconv.Itoa(k)+"_total", layout.Counter, layout.U64, layout.BucketRange{}, layout.Pair{Name: "cpu", Value: "all"})
		}
		f.Birth(b, dir)
		all = append(all, f)
	}
	return all
}

// usage is this process's CPU time in ns.
func usage() int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(os.NewSyscallError("getrusage", err))
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// BenchmarkOpen is a store's first poll: all is read, and what stays of it in memory is reported.
func BenchmarkOpen(b *testing.B) {
	dir := segtest.Store(b)
	herd(b, dir, 1000, 100)
	var before, after runtime.MemStats
	for b.Loop() {
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&before)
		b.StartTimer()
		s := open(b, dir, reader.Options{NoMap: true})
		poll(b, s)
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-kept")
		s.Close()
		b.StartTimer()
	}
}
