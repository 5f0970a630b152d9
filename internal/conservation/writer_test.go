package conservation

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
)

// The page that a writer keeps beside its segment: words of completed records, each written
// by one worker, right after the record call returned. Words 0 to pageHead-1 are the page's own.
const (
	pageWords = 8192
	pageHead  = 8
	pageReady = 0 // number of workers, once all series are registered

	workers  = 6 // goroutines that record at the same time
	owned    = 2 // of them, with a lane of their own
	kinds    = 7 // words a worker: see record
	rotation = 200
)

// The series, and the word of a worker that counts its completed records.
const (
	ackCounter = iota
	ackFloat
	ackUpDown
	ackStat
	ackHistogram
	ackIntHistogram
	ackExemplar // offered: of traced_total
)

// traceOf is the k-th exemplar that a worker offers, from 1: all of it says which one it is.
func traceOf(worker int, k uint64) (value uint64, ex writer.Exemplar) {
	i, le := uint64(worker), binary.LittleEndian
	le.PutUint64(ex.TraceID[:], k)
	le.PutUint64(ex.TraceID[8:], i+1)
	le.PutUint64(ex.SpanID[:], k*7+i)
	ex.Time = time.Unix(0, int64(k*1000+i))
	return k*128 + i, ex
}

func openPage(path string, words int, create bool) ([]uint64, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_EXCL
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if create {
		if err := f.Truncate(int64(words) * 8); err != nil {
			return nil, err
		}
	}
	b, err := unix.Mmap(int(f.Fd()), 0, words*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return layout.Words(b), nil
}

// TestMain is the Go writer when the environment says so: the test runs its own binary.
func TestMain(m *testing.M) {
	if page := os.Getenv("SHMTS_CONSERVATION_PAGE"); page != "" {
		fmt.Fprintln(os.Stderr, recordForEver(page))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// recordForEver records as fast as it can, in goroutines that stay and goroutines that come and go, until it is killed.
func recordForEver(path string) error {
	page, err := openPage(path, pageWords, false)
	if err != nil {
		return err
	}
	tiers := []writer.Tier{{Step: 100 * time.Millisecond, Rows: 50}, {Step: 500 * time.Millisecond, Rows: 20}}
	w, err := writer.Open(writer.Options{Job: "conservation", Instance: "go", OwnedLanes: owned, Exemplars: 4, Tables: []writer.Table{
		{Name: "scalars", Scalars: 4, Stats: 1, Tiers: tiers},
		{Name: "histograms", Histograms: 2, Buckets: 80, Tiers: tiers},
	}})
	if err != nil {
		return err
	}
	counter := w.Counter("records_total")
	float := w.FloatCounter("halves_total")
	updown := w.UpDownCounter("open")
	stat := w.Stat("size")
	histogram := w.Histogram("latency", writer.Buckets(0.001, 1))
	ints := w.IntHistogram("length", writer.Buckets(1, 1024))
	traced := w.Counter("traced_total")
	if err := w.Err(); err != nil {
		return err
	}
	done := func(worker, kind int) {
		p := &page[pageHead+worker*kinds+kind]
		atomic.StoreUint64(p, *p+1)
	}
	shared := func(worker, n int) {
		for range n {
			counter.Add(1)
			done(worker, ackCounter)
			float.Add(0.5)
			done(worker, ackFloat)
			updown.Add(-2)
			done(worker, ackUpDown)
			stat.Record(1)
			done(worker, ackStat)
			histogram.Record(0.25)
			done(worker, ackHistogram)
			ints.Record(3)
			done(worker, ackIntHistogram)
			value, ex := traceOf(worker, page[pageHead+worker*kinds+ackExemplar]+1)
			traced.AddExemplar(value, ex)
			done(worker, ackExemplar)
		}
	}
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Add(1)
		switch {
		case worker < owned: // a lane of its own, closed and claimed again
			go func() {
				for {
					lane, err := w.Lane()
					if err != nil {
						fmt.Fprintln(os.Stderr, err)
						os.Exit(1)
					}
					c, f, u := lane.Counter(counter), lane.FloatCounter(float), lane.UpDownCounter(updown)
					s, h, i, x := lane.Stat(stat), lane.Histogram(histogram), lane.IntHistogram(ints), lane.Counter(traced)
					for range rotation {
						c.Add(1)
						done(worker, ackCounter)
						f.Add(0.5)
						done(worker, ackFloat)
						u.Add(-2)
						done(worker, ackUpDown)
						s.Record(1)
						done(worker, ackStat)
						h.Record(0.25)
						done(worker, ackHistogram)
						i.Record(3)
						done(worker, ackIntHistogram)
						value, ex := traceOf(worker, page[pageHead+worker*kinds+ackExemplar]+1)
						x.AddExemplar(value, ex)
						done(worker, ackExemplar)
					}
					lane.Close()
				}
			}()
		case worker%2 == 0: // goroutines that come and go
			go func() {
				for {
					finished := make(chan struct{})
					go func() { shared(worker, rotation); close(finished) }()
					<-finished
				}
			}()
		default:
			go func() {
				for {
					shared(worker, 1<<20)
				}
			}()
		}
	}
	atomic.StoreUint64(&page[pageReady], workers)
	wg.Wait()
	return nil
}
