package killtest

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
)

// The page that the writers' process and the test share.
const (
	pageWords  = 1 << 16
	pageTarget = 0 // rounds that the writers may do
	pageDone   = 1 // and have done
	pageSlots  = 2 // slots in use
	pageFirst  = 16
	slotWords  = 4 // segment id (2), rows ticked, state

	stateBorn   = 1 // it has ticked, or may
	stateClosed = 2 // Close has returned

	writersAtOnce = 10
	ringRows      = 120
	step          = 100 * time.Millisecond
	counters      = 6
	noises        = 24 // gauges that nothing compresses, so that extents fill
	pageEnv       = "SHMTS_KILLTEST_PAGE"
)

func openPage(path string, create bool) ([]uint64, error) {
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
		if err := f.Truncate(pageWords * 8); err != nil {
			return nil, err
		}
	}
	b, err := unix.Mmap(int(f.Fd()), 0, pageWords*8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return layout.Words(b), nil
}

// TestMain is the writers' process when the environment says so.
func TestMain(m *testing.M) {
	if page := os.Getenv(pageEnv); page != "" {
		fmt.Fprintln(os.Stderr, writeForEver(page))
		os.Exit(1)
	}
	status := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(status)
}

// noise is what gauge i holds in row n: a whole number that nobody can guess.
func noise(n uint64, i int) float64 {
	x := (n<<8 + uint64(i) + 1) * 0x9e3779b97f4a7c15
	x = (x ^ x>>29) * 0xbf58476d1ce4e5b9
	return float64(x >> 11)
}

// exemplar is the one of row n.
func exemplar(n uint64) (x writer.Exemplar) {
	binary.LittleEndian.PutUint64(x.TraceID[:], math.Float64bits(noise(n, 100)))
	binary.LittleEndian.PutUint64(x.TraceID[8:], n)
	x.SpanID[0] = byte(n)
	return x
}

// life is one segment: of row n, counter i is n x (i+1), gauge i is noise(n, i), and exemplar n is of counter 0.
type life struct {
	w        *writer.Writer
	slot     int
	n        uint64
	counters []*writer.Counter
	gauges   []*writer.Gauge
}

func (l *life) record() {
	l.n++
	for i, c := range l.counters {
		if i == 0 { // one in each row: exemplar n
			c.AddExemplar(1, exemplar(l.n))
			continue
		}
		c.Add(uint64(i + 1))
	}
	for i, g := range l.gauges {
		g.Set(noise(l.n, i))
	}
}

// writeForEver ticks some writers whenever the test has raised the target. A clock of its own, a round each step, makes one row
// of each tick.
func writeForEver(path string) error {
	page, err := openPage(path, false)
	if err != nil {
		return err
	}
	clock := time.Now().Add(-time.Hour).UnixNano()
	open := func() (*life, error) {
		l := &life{slot: pageFirst + int(page[pageSlots])*slotWords}
		if l.slot+slotWords > len(page) {
			return nil, fmt.Errorf("want room for a slot, got %d words", len(page))
		}
		id := [2]uint64{rand.Uint64(), rand.Uint64()}
		page[l.slot], page[l.slot+1] = id[0], id[1]
		atomic.AddUint64(&page[pageSlots], 1)
		kind := rand.IntN(3) // schemas
		l.w, err = writer.Open(writer.Options{Job: fmt.Sprint("job", kind), Instance: fmt.Sprint(l.slot), NoTicker: true,
			Tables: []writer.Table{{Name: "t", Counters: counters, Gauges: noises, Tiers: []writer.Tier{{Step: step, Rows: ringRows}}}}, Series: counters + noises, Exemplars: 256,
			Clock: func() (int64, int64) { return clock, clock },
			NewID: func() [16]byte { return [16]byte(layout.Bytes(id[:])) }})
		if err != nil {
			return nil, err
		}
		for i := range counters - kind {
			l.counters = append(l.counters, l.w.Counter(fmt.Sprint("c", i)))
		}
		for i := range noises {
			l.gauges = append(l.gauges, l.w.Gauge(fmt.Sprint("g", i)))
		}
		if err := l.w.Err(); err != nil {
			return nil, err
		}
		atomic.StoreUint64(&page[l.slot+3], stateBorn)
		return l, nil
	}
	var lives []*life
	for {
		for len(lives) < writersAtOnce {
			l, err := open()
			if err != nil {
				return err
			}
			lives = append(lives, l)
		}
		for atomic.LoadUint64(&page[pageDone]) >= atomic.LoadUint64(&page[pageTarget]) {
			time.Sleep(time.Millisecond)
		}
		clock += int64(step)
		for i, l := range lives {
			l.record()
			if rand.IntN(60) == 0 {
				clock++
				if err := l.w.Close(); err != nil {
					return err
				}
				atomic.StoreUint64(&page[l.slot+3], stateClosed)
				if lives[i], err = open(); err != nil {
					return err
				}
				continue
			}
			l.w.Tick()
			atomic.StoreUint64(&page[l.slot+2], l.n)
		}
		atomic.AddUint64(&page[pageDone], 1)
	}
}
