package writer

import (
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// handles is one of every kind, with what it takes.
type handles struct {
	c  *Counter
	f  *FloatCounter
	u  *UpDownCounter
	g  *Gauge
	ig *IntGauge
	s  *Stat
	h  *Histogram
	ih *IntHistogram
}

func allHandles(w *Writer) handles {
	return handles{w.Counter("c"), w.FloatCounter("f"), w.UpDownCounter("u"), w.Gauge("g"), w.IntGauge("ig"),
		w.Stat("s"), w.Histogram("h"), w.IntHistogram("ih")}
}

func (a handles) record() {
	a.c.Add(2)
	a.c.Inc()
	a.f.Add(0.5)
	a.u.Add(-1)
	a.u.Inc()
	a.g.Set(1)
	a.ig.Set(1)
	a.s.Record(1)
	a.h.Record(0.5)
	a.ih.Record(5)
}

// recordExemplars is record, for what may have exemplars.
func (a handles) recordExemplars() {
	ex := Exemplar{TraceID: [16]byte{15: 1}}
	a.c.AddExemplar(2, ex)
	a.c.AddExemplar(1, ex)
	a.f.AddExemplar(0.5, ex)
	a.h.RecordExemplar(0.5, ex)
	a.ih.RecordExemplar(5, ex)
}

func (a handles) retire() {
	a.c.Retire()
	a.f.Retire()
	a.u.Retire()
	a.g.Retire()
	a.ig.Retire()
	a.s.Retire()
	a.h.Retire()
	a.ih.Retire()
}

// Nothing that can be held is nil, or crashes: nil handles, handles of a nil writer, of
// one without a segment, retired ones, and those of a closed writer.
func TestHandlesNeverCrash(t *testing.T) {
	var none handles
	none.record()
	none.recordExemplars()
	none.retire()
	var noWriter *Writer
	a := allHandles(noWriter)
	a.record()
	a.recordExemplars()
	a.h.Record(math.NaN())
	a.h.RecordExemplar(math.NaN(), Exemplar{})
	a.retire()
	noWriter.Tick()
	noWriter.SetEpoch(1)
	noWriter.NewEpoch()
	if noWriter.Close() != nil || noWriter.Err() != nil || noWriter.Stats().Series != 0 {
		t.Error("want a nil writer to do nothing")
	}
	l, err := noWriter.Lane()
	if err == nil {
		t.Error("want a lane of no writer to be an error")
	}
	recordOwned(l, a)
	l.Close()
	recordOwned(nil, handles{})
	var zero OwnedCounter
	zero.Add(1)
	zero.AddExemplar(1, Exemplar{})

	wrong, err := Open(Options{Dir: testStore(t), Tables: []Table{{Name: "t", Scalars: 1, Tiers: []Tier{{time.Millisecond, 2}}}}})
	if err == nil || wrong == nil {
		t.Fatalf("want a writer and an error for a step of 1 ms, got %v and %v", wrong, err)
	}
	a = allHandles(wrong)
	a.record()
	a.recordExemplars()
	a.retire()
	wrong.Tick()
	wrong.Close()

	o, clock := testOptions(t)
	w := mustOpen(t, o)
	a = allHandles(w)
	a.record()
	a.retire()
	a.retire()
	a.record()
	clock.advance(10 * time.Second)
	w.Tick()
	b := allHandles(w)
	l, _ = w.Lane()
	w.Close()
	for range 3 {
		a.record()
		b.record()
		a.recordExemplars()
		b.recordExemplars()
		recordOwned(l, b)
		runtime.Gosched()
	}
	b.retire()
	l.Close()
	m := load(t, segmentFiles(t, o.Dir)[0])
	for _, s := range m.series() {
		if s.Life() == layout.SeriesLive && s.Kind == layout.Counter && s.Number == layout.U64 {
			equal(t, "counter of a closed writer", m.live(s, 0), 0)
		}
	}
}

func recordOwned(l *Lane, a handles) {
	l.Counter(a.c).Inc()
	l.FloatCounter(a.f).Add(1)
	l.UpDownCounter(a.u).Add(1)
	l.Stat(a.s).Record(1)
	l.Histogram(a.h).Record(1)
	l.IntHistogram(a.ih).Record(1)
	ex := Exemplar{TraceID: [16]byte{15: 2}}
	l.Counter(a.c).AddExemplar(0, ex)
	l.FloatCounter(a.f).AddExemplar(0, ex)
	l.IntHistogram(nil).RecordExemplar(1, ex)
}

// A record call allocates nothing, in every state that a handle can be in.
func TestRecordsAllocateNothing(t *testing.T) {
	o, _ := testOptions(t)
	w := mustOpen(t, o)
	a := allHandles(w)
	l, err := w.Lane()
	if err != nil {
		t.Fatal(err)
	}
	oc, of, ou := l.Counter(a.c), l.FloatCounter(a.f), l.UpDownCounter(a.u)
	os, oh, oi := l.Stat(a.s), l.Histogram(a.h), l.IntHistogram(a.ih)
	at := a.s.s.place.Load()
	ex, grown := Exemplar{TraceID: [16]byte{1}}, 0.0
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"goroutine-safe", a.record},
		{"rejected", func() { a.f.Add(-1); a.s.Record(math.NaN()); a.h.Record(math.Inf(1)) }},
		{"owned", func() {
			oc.Inc()
			of.Add(1)
			ou.Add(1)
			os.Record(1)
			oh.Record(0.5)
			oi.Record(7)
		}},
		{"exemplars", func() {
			a.recordExemplars()
			ex.SpanID[0]++
			grown++
			a.h.RecordExemplar(grown, ex) // each is taken
			oc.AddExemplar(1, ex)
			of.AddExemplar(1, ex)
			oh.RecordExemplar(0.5, ex)
			oi.RecordExemplar(7, ex)
		}},
		{"overflow", func() {
			a.c.s.place.Load().addShared(1)
			recordStatShared(at.words[at.overflow:], 1, 2)
		}},
	} {
		if n := testing.AllocsPerRun(1000, c.f); n != 0 {
			t.Errorf("%s: want no allocation, got %v a run", c.name, n)
		}
	}
	a.retire()
	if n := testing.AllocsPerRun(1000, func() { a.record(); a.recordExemplars(); oc.Inc(); oh.Record(1); oh.RecordExemplar(1, ex) }); n != 0 {
		t.Errorf("retired: want no allocation, got %v a run", n)
	}
}

// What can't be recorded is counted, and changes nothing.
func TestRejected(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	f, h, s, n := w.FloatCounter("f"), w.Histogram("h"), w.Stat("s"), w.Stat("n", NonNegative())
	bad := []float64{math.NaN(), math.Inf(1), math.Inf(-1)}
	for _, v := range append(bad, -1) {
		f.Add(v)
		h.Record(v)
		n.Record(v)
	}
	for _, v := range bad {
		s.Record(v)
	}
	s.Record(-1) // negative samples are samples
	g, ig := w.Gauge("g"), w.IntGauge("ig")
	g.Set(math.Float64frombits(layout.UnsetF64))
	ig.Set(math.MinInt64)
	clock.advance(10 * time.Second)
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	equal(t, "rejected", m.control().RejectedRecords, 15)
	equal(t, "rejected, by Stats", w.Stats().RejectedRecords, 15)
	equal(t, "float counter", m.float("f"), 0)
	hi, si, ni := m.find("h"), m.find("s"), m.find("n")
	equal(t, "histogram", histogramCount(m.last(hi, 0).of(t, hi)), 0)
	equal(t, "stat", m.last(si, 0).of(t, si)[layout.StatCount], 1)
	equal(t, "non-negative stat", m.last(ni, 0).of(t, ni)[layout.StatCount], 0)
	equal(t, "flags", ni.Flags, layout.FlagNonNegative)
	equal(t, "gauge at the bits of unset", m.value("g"), nanGauge)
	equal(t, "gauge at the least integer", int64(m.value("ig")), math.MinInt64+1)
}

// The same series is the same handle; the same name in another shape is an error and a sink.
func TestSameSeries(t *testing.T) {
	o, _ := testOptions(t)
	w := mustOpen(t, o)
	c := w.Counter("c", Labels("a", "1", "b", "2"))
	if w.Counter("c", Label("b", "2"), Label("a", "1"), Label("none", ""), Help("later")) != c {
		t.Error("want the handle of the first registration")
	}
	if w.Counter("c", Label("a", "1")) == c {
		t.Error("want other labels to be another series")
	}
	if w.Err() != nil {
		t.Fatal(w.Err())
	}
	for i, register := range []func(){
		func() { w.FloatCounter("c", Labels("a", "1", "b", "2")).Add(1) },
		func() { w.Gauge("c", Labels("a", "1", "b", "2")).Set(1) },
		func() { w.Histogram("h"); w.Histogram("h", Scale(2)).Record(1) },
		func() { w.Counter("") },
		func() { w.Counter("odd", Labels("a")) },
		func() { w.Counter("bad\xff") },
		func() { w.Counter("t", InTable("nowhere")) },
		func() { w.Histogram("r", Buckets(2, 1)) },
		func() { w.Histogram("r", Scale(7)) },
		func() { w.Histogram("wide", Buckets(1e-9, 1e9)).Record(1) }, // 478 buckets: fits 830 cells
	} {
		register()
		equal(t, "dropped", w.Stats().DroppedSeries, uint64(min(i+1, 9)))
	}
	if w.Err() == nil {
		t.Error("want the first error kept")
	}
}

// Conservation: many goroutines, GOMAXPROCS changing, ticks all the time. Every sum is exact at
// the end, no total ever goes down in a row, and no window holds what was not recorded.
func TestConservation(t *testing.T) {
	const goroutines, records = 64, 4000
	o, _ := testOptions(t)
	o.Clock, o.NewID = nil, nil
	o.OwnedLanes = 4
	o.Tables = []Table{
		{Name: "t", Scalars: 8, Stats: 1, Histograms: 2, Lanes: 2, Tiers: []Tier{{100 * time.Millisecond, 512}, {time.Second, 64}}}}
	w := mustOpen(t, o)
	procs := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(procs)
	a := allHandles(w)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			count := a.c.Add
			if g < 4 { // four of them have lanes of their own, half the time
				l, err := w.Lane()
				if err != nil {
					t.Error(err)
					return
				}
				defer l.Close()
				count = l.Counter(a.c).Add
			}
			for i := range records {
				count(1)
				a.f.Add(0.25)
				a.u.Add(int64(i%3) - 1)
				a.s.Record(float64(1 + i%10))
				a.h.Record(0.001 + float64(i%100)/100)
				a.ih.Record(uint64(i))
				if i%500 == 0 {
					runtime.Gosched()
				}
			}
		}()
	}
	stop := make(chan struct{})
	var ticker sync.WaitGroup
	ticker.Add(1)
	go func() {
		defer ticker.Done()
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				w.mu.Lock()
				for _, g := range w.segments { // faster than any step
					unixNow, mono := systemClock()
					g.publish(unixNow, mono, true)
				}
				w.mu.Unlock()
				runtime.GOMAXPROCS(1 + n%6)
			}
		}
	}()
	wg.Wait()
	close(stop)
	ticker.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Err() != nil {
		t.Fatal(w.Err())
	}
	m := load(t, segmentFiles(t, o.Dir)[0])
	const all = goroutines * records
	sumMod3, sumTen, sumInts := int64(0), 0, uint64(0)
	for i := range records {
		sumMod3 += int64(i%3) - 1
		sumTen += 1 + i%10
		sumInts += uint64(i)
	}
	equal(t, "counter", m.value("c"), all)
	equal(t, "float counter", m.float("f"), all*0.25)
	equal(t, "updown", int64(m.value("u")), sumMod3*goroutines)
	si := m.find("s")
	cells := m.last(si, 0).of(t, si)
	equal(t, "stat count", cells[layout.StatCount], all)
	equal(t, "stat sum", math.Float64frombits(cells[layout.StatSum]), float64(sumTen*goroutines))
	hi, ii := m.find("h"), m.find("ih")
	equal(t, "histogram count", histogramCount(m.last(hi, 0).of(t, hi)), all)
	equal(t, "int histogram count", histogramCount(m.last(ii, 0).of(t, ii)), all)
	equal(t, "int histogram sum", m.last(ii, 0).of(t, ii)[layout.HistSum], sumInts*goroutines)
	// Rows still in the ring: totals never fall.
	head, before := m.head(0, 0), make([]uint64, 3)
	for n := max(head, 500) - 499; n <= head; n++ {
		r := m.row(0, 0, n)
		if r.BaseRow < si.BornRow {
			continue
		}
		for i, s := range []layout.SeriesInfo{m.find("c"), si} {
			if v := r.of(t, s)[0]; v < before[i] {
				t.Fatalf("row %d: want %s to be at least %d, got %d", n, s.Name, before[i], v)
			} else {
				before[i] = v
			}
		}
		low := math.Float64frombits(r.of(t, si)[layout.StatMin])
		if !math.IsNaN(low) && (low < 1 || low > 10) {
			t.Fatalf("row %d: want a min of 1 to 10, got %v", n, low)
		}
	}
}

// Every value recorded strictly inside a window is seen in that window's min and max, by
// private lanes and the overflow lane, whatever else records at the same time.
func TestStatWindowsHammered(t *testing.T) {
	for _, lanes := range []int{64, 1} {
		t.Run(fmt.Sprintf("lanes=%d", lanes), func(t *testing.T) {
			o, clock := testOptions(t)
			o.OwnedLanes = -1
			o.Tables = []Table{{Name: "t", Stats: 1, Lanes: lanes, Tiers: []Tier{{time.Second, 1024}}}}
			w := mustOpen(t, o)
			s := w.Stat("s")
			procs := runtime.GOMAXPROCS(4)
			defer runtime.GOMAXPROCS(procs)
			const windows, goroutines = 400, 4
			var round atomic.Int64
			var done [goroutines]atomic.Int64
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for n := int64(1); n <= windows; n++ {
						for round.Load() < n {
							runtime.Gosched()
						}
						for i := range 20 { // the extremes somewhere in between
							s.Record(float64(n) + float64((i*7+g)%20)/100)
						}
						s.Record(float64(n) - float64(g+1)/1000)
						s.Record(float64(n) + 0.5 + float64(g)/1000)
						done[g].Store(n)
					}
				}()
			}
			for n := int64(1); n <= windows; n++ {
				round.Store(n)
				for g := range done {
					for done[g].Load() < n {
						runtime.Gosched()
					}
				}
				clock.advance(time.Second)
				w.Tick()
			}
			wg.Wait()
			m := load(t, segmentFiles(t, o.Dir)[0])
			si := m.find("s")
			for n := uint64(1); n <= windows; n++ {
				cells := m.row(0, 0, n).of(t, si)
				equal(t, "count", cells[layout.StatCount], n*goroutines*22)
				equal(t, "min", math.Float64frombits(cells[layout.StatMin]), float64(n)-float64(goroutines)/1000)
				equal(t, "max", math.Float64frombits(cells[layout.StatMax]), float64(n)+0.5+float64(goroutines-1)/1000)
				if t.Failed() {
					t.Fatalf("in window %d", n)
				}
			}
		})
	}
}

// A P beyond the lanes records in the overflow lane: exact, and counted once a table.
func TestMorePsThanLanes(t *testing.T) {
	o, clock := testOptions(t)
	o.OwnedLanes = -1
	o.Tables = []Table{{Name: "t", Scalars: 3, Stats: 1, Histograms: 2, Lanes: 1, Tiers: []Tier{{time.Second, 4}}}}
	w := mustOpen(t, o)
	a := handles{c: w.Counter("c"), f: w.FloatCounter("f"), u: w.UpDownCounter("u"), s: w.Stat("s"), h: w.Histogram("h"), ih: w.IntHistogram("ih")}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	const goroutines = 8
	lane := func(k int) uint64 {
		tab := w.segments[0].tables[0]
		return atomic.LoadUint64(&tab.laneCells(w.segments[0].words, a.c.s, k)[0])
	}
	n, deadline := 0, time.Now().Add(20*time.Second)
	for ; lane(1) == 0 || lane(0) == 0; n++ { // until both were used
		if time.Now().After(deadline) {
			t.Fatal("want P 0 and another one to have recorded within 20 s")
		}
		var wg sync.WaitGroup
		for range goroutines {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for range 1000 {
					a.record()
				}
			}()
		}
		wg.Wait()
	}
	clock.advance(time.Second)
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	all := uint64(n * goroutines * 1000)
	equal(t, "counter", m.value("c"), 3*all)
	equal(t, "float counter", m.float("f"), 0.5*float64(all))
	equal(t, "updown", int64(m.value("u")), 0)
	for _, name := range []string{"s", "h", "ih"} {
		s := m.find(name)
		cells := m.last(s, 0).of(t, s)
		count := cells[layout.StatCount]
		if s.Kind == layout.Histogram {
			count = histogramCount(cells)
		}
		equal(t, name, count, all)
	}
	equal(t, "overflow_threads", m.control().OverflowThreads, 1)
}

// Lanes: a plain add reaches the cell at once, the next owner goes on, no free lane loses nothing.
func TestOwnedLanes(t *testing.T) {
	o, clock := testOptions(t)
	o.OwnedLanes = 1
	w := mustOpen(t, o)
	a := allHandles(w)
	file := segmentFiles(t, o.Dir)[0]
	l, err := w.Lane()
	if err != nil {
		t.Fatal(err)
	}
	c := l.Counter(a.c)
	c.Add(5)
	m := load(t, file)
	equal(t, "before any tick", m.live(m.find("c"), 0), 5)
	recordOwned(l, a)

	none, err := w.Lane()
	if err == nil {
		t.Fatal("want no second lane free")
	}
	if n := w.Stats().OverflowThreads; n < 1 {
		t.Errorf("want it counted, got %d", n)
	}
	recordOwned(none, a)
	none.Counter(a.c).Add(10)

	l.Close()
	l.Close()
	c.Add(100) // a stale handle
	next, err := w.Lane()
	if err != nil {
		t.Fatal(err)
	}
	recordOwned(next, a)
	clock.advance(10 * time.Second)
	w.Tick()
	m = load(t, file)
	equal(t, "counter", m.value("c"), 5+1+1+10+100+1)
	equal(t, "float counter", m.float("f"), 3)
	equal(t, "updown", int64(m.value("u")), 3)
	for _, name := range []string{"s", "h", "ih"} {
		s := m.find(name)
		cells := m.last(s, 0).of(t, s)
		n := cells[layout.StatCount]
		if s.Kind == layout.Histogram {
			n = histogramCount(cells)
		}
		equal(t, name, n, 3)
	}
	owned := next.Counter(a.c)
	a.c.Retire()
	owned.Add(1) // goes nowhere
	next.Close()

	// Handles that nobody holds leave nothing behind, however many there were.
	for range 1000 {
		l, err := w.Lane()
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			l.UpDownCounter(a.u).Add(1)
		}
		l.Close()
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(w.spares) > 10 {
		if time.Now().After(deadline) {
			t.Fatalf("want the spare words of dropped handles back, got %d held", len(w.spares))
		}
		runtime.GC()
		clock.advance(time.Second)
		w.Tick()
	}
	equal(t, "updown after many lanes", int64(load(t, file).value("u")), 3+3000)
}
