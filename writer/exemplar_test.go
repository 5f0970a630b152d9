package writer

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

var le = binary.LittleEndian

// exemplars are those that are whole in the file, by number.
func (m *image) exemplars() map[uint64]layout.Exemplar {
	m.t.Helper()
	all := map[uint64]layout.Exemplar{}
	for i := range uint64(m.h.Exemplars.Count) {
		at := (m.h.Exemplars.Offset + i*uint64(m.h.Exemplars.ElementSize)) / 8
		slot := m.words[at:][:layout.ExemplarWords]
		n := slot[0] >> 1
		if n == 0 {
			continue
		}
		if m.h.ExemplarSlot(n) != i {
			m.t.Fatalf("exemplar %d: want it in slot %d, got it in %d", n, m.h.ExemplarSlot(n), i)
		}
		x, v := layout.DecodeExemplar(slot, m.h.ExemplarIdentity(), n)
		if v != layout.ExemplarOK {
			m.t.Fatalf("exemplar %d: want it whole, got %v", n, v)
		}
		all[n] = x
	}
	return all
}

// values are those of the exemplars of a series, in the order of their numbers.
func (m *image) values(name string) (values []float64) {
	m.t.Helper()
	s := m.find(name)
	all := m.exemplars()
	for n := uint64(1); n <= m.control().Exemplars; n++ {
		if x, ok := all[n]; ok && int(x.Series) == s.Index && x.Generation == s.Generation() {
			values = append(values, x.Value)
		}
	}
	return values
}

func wantValues(t *testing.T, what string, got []float64, want ...float64) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: want exemplars of %v, got %v", what, want, got)
	}
}

// traced is an exemplar that can be told from others.
func traced(n byte) Exemplar {
	return Exemplar{TraceID: [16]byte{0: n, 15: 255 - n}, SpanID: [8]byte{0: n, 7: 1}, Time: time.Unix(1_700_000_100, int64(n))}
}

// Every kind that may have exemplars leaves what it was given, by every sort of handle, and its records count as without.
func TestExemplars(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	a := allHandles(w)
	l, err := w.Lane()
	if err != nil {
		t.Fatal(err)
	}
	other := allHandlesOf(w, "other")
	a.c.AddExemplar(3, traced(1))
	a.f.AddExemplar(2.5, traced(2))
	a.h.RecordExemplar(0.125, traced(3))
	a.ih.RecordExemplar(77, traced(4))
	l.Counter(other.c).AddExemplar(4, traced(5))
	l.FloatCounter(other.f).AddExemplar(3.5, traced(6))
	l.Histogram(other.h).RecordExemplar(0.25, traced(7))
	l.IntHistogram(other.ih).RecordExemplar(99, traced(8))
	m := load(t, segmentFiles(t, o.Dir)[0])
	all := m.exemplars()
	for n, want := range []struct {
		series string
		value  float64
	}{{"c", 3}, {"f", 2.5}, {"h", 0.125}, {"ih", 77}, {"c{other}", 4}, {"f{other}", 3.5}, {"h{other}", 0.25}, {"ih{other}", 99}} {
		x, ex, s := all[uint64(n+1)], traced(byte(n+1)), m.find(want.series)
		if x.Value != want.value || int(x.Series) != s.Index || x.Generation != s.Generation() || x.TraceID != ex.TraceID || x.SpanID != ex.SpanID || x.T != ex.Time.UnixNano() {
			t.Errorf("exemplar %d: want %g of %s with %+v, got %+v", n+1, want.value, want.series, ex, x)
		}
	}
	equal(t, "numbers given", m.control().Exemplars, 8)
	equal(t, "by Stats", w.Stats().Exemplars, 8)
	clock.advance(10 * time.Second)
	w.Tick()
	m = load(t, segmentFiles(t, o.Dir)[0])
	equal(t, "counter", m.value("c"), 3)
	equal(t, "owned counter", m.value("c{other}"), 4)
	equal(t, "float counter", m.float("f"), 2.5)
	h, ih := m.find("h"), m.find("ih{other}")
	equal(t, "histogram", histogramCount(m.last(h, 0).of(t, h)), 1)
	equal(t, "owned histogram", m.last(ih, 0).of(t, ih)[layout.HistSum], 99)
	w.Close()
	equal(t, "by Stats, once closed", w.Stats().Exemplars, 8)
	a.c.AddExemplar(3, traced(1))
	equal(t, "by Stats, after a record that went nowhere", w.Stats().Exemplars, 8)
}

func allHandlesOf(w *Writer, label string) handles {
	by := Label("by", label)
	return handles{c: w.Counter("c", by), f: w.FloatCounter("f", by), h: w.Histogram("h", by), ih: w.IntHistogram("ih", by)}
}

// Of a row the first is taken, and then each that is greater than all before: FORMAT.md 10.12. What is rejected, or has no trace, never is.
func TestExemplarsTaken(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	h := w.Histogram("h", InTable("scalars"), Buckets(0.001, 0.1))
	busy := w.Histogram("busy")
	offer := func(values ...float64) {
		for _, v := range values {
			h.RecordExemplar(v, traced(1))
		}
	}
	offer(5, 3, 5, 7, 1, 6, 8, 8)
	wantValues(t, "the first row", load(t, segmentFiles(t, o.Dir)[0]).values("h"), 5, 7, 8)
	clock.advance(time.Second)
	w.Tick()
	offer(2, 1, 4)
	for _, v := range []float64{math.NaN(), math.Inf(1), -1} {
		offer(v)
	}
	h.RecordExemplar(100, Exemplar{})
	h.RecordExemplar(100, Exemplar{SpanID: [8]byte{1}})
	m := load(t, segmentFiles(t, o.Dir)[0])
	wantValues(t, "two rows", m.values("h"), 5, 7, 8, 2, 4)
	equal(t, "rejected", m.control().RejectedRecords, 3)
	busy.RecordExemplar(0.5, traced(2)) // of another table, whose row is still the first
	clock.advance(time.Second)
	w.Tick()
	busy.RecordExemplar(0.5, traced(2))
	h.RecordExemplar(100, Exemplar{}) // takes nobody's turn
	offer(0.5)
	wantValues(t, "behind one without a trace", load(t, segmentFiles(t, o.Dir)[0]).values("h"), 5, 7, 8, 2, 4, 0.5)
	wantValues(t, "a row of 10 s", load(t, segmentFiles(t, o.Dir)[0]).values("busy"), 0.5)

	// A series that is offered a million in a row takes few of them, and the greatest is there.
	clock.advance(time.Second)
	w.Tick()
	before, greatest := w.Stats().Exemplars, 0.0
	for _, v := range samples {
		offer(v)
		greatest = max(greatest, v)
	}
	if taken := w.Stats().Exemplars - before; taken < 2 || taken > 25 { // 1 + ln 1024 is 7.9
		t.Errorf("want some 8 of %d taken, got %d", len(samples), taken)
	}
	got := load(t, segmentFiles(t, o.Dir)[0]).values("h")
	if got[len(got)-1] != greatest {
		t.Errorf("want the greatest, %g, got %g", greatest, got[len(got)-1])
	}
}

// Without a time it is that of the last tick, that of birth before the first.
func TestExemplarTimes(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	c := w.Counter("c")
	birth := clock.unix.Load()
	clock.advance(300 * time.Millisecond)
	c.AddExemplar(1, Exemplar{TraceID: [16]byte{1}})
	clock.advance(time.Second)
	w.Tick()
	tick := clock.unix.Load()
	clock.advance(300 * time.Millisecond)
	c.AddExemplar(1, Exemplar{TraceID: [16]byte{1}})
	all := load(t, segmentFiles(t, o.Dir)[0]).exemplars()
	equal(t, "before the first tick", all[1].T, birth)
	equal(t, "after a tick", all[2].T, tick)
}

// The ring's size is the option's, rounded up; none is none, and costs the record nothing.
func TestExemplarOptions(t *testing.T) {
	for given, want := range map[int]uint32{0: DefaultExemplars, -1: 0, 1: 2, 2: 2, 3: 4, 64: 64, 65: 128, 4096: 4096} {
		h, err := Plan(Options{Exemplars: given})
		if err != nil || h.Exemplars.Count != want {
			t.Errorf("%d exemplars: want %d slots, got %d, %v", given, want, h.Exemplars.Count, err)
		}
	}
	o, _ := testOptions(t)
	o.Exemplars = -1
	w := mustOpen(t, o)
	a := allHandles(w)
	a.recordExemplars()
	m := load(t, segmentFiles(t, o.Dir)[0])
	equal(t, "numbers given without a ring", m.control().Exemplars, 0)
	equal(t, "by Stats", w.Stats().Exemplars, 0)
	equal(t, "counter", m.live(m.find("c"), 0), 3)
}

// Each segment has a ring of its own, and what was retired leaves nothing more.
func TestExemplarsGrowAndRetire(t *testing.T) {
	o, clock := testOptions(t)
	o.Descriptors = 2
	o.Tables = []Table{{Name: "t", Scalars: 2, Tiers: []Tier{{time.Second, 4}}}}
	w := mustOpen(t, o)
	var cs []*Counter
	for i := range 6 {
		c := w.Counter("c", Label("i", fmt.Sprint(i)))
		c.AddExemplar(uint64(i+1), traced(byte(i+1)))
		cs = append(cs, c)
	}
	for _, f := range segmentFiles(t, o.Dir) {
		m := load(t, f)
		equal(t, "numbers given", m.control().Exemplars, 2)
		for _, s := range m.series() {
			i := layout.Value(s.Labels, "i")
			wantValues(t, "c of "+i, m.values("c{"+i+"}"), float64(i[0]-'0'+1))
		}
	}
	equal(t, "by Stats", w.Stats().Exemplars, 6)
	cs[0].Retire()
	cs[0].AddExemplar(9, traced(9))
	equal(t, "by Stats, after a record of what was retired", w.Stats().Exemplars, 6)
	for range 8 { // until cells and descriptor are free
		clock.advance(time.Second)
		w.Tick()
	}
	next := w.Counter("next")
	next.AddExemplar(5, traced(5))
	m := load(t, w.Stats().Paths[0])
	s := m.find("next")
	if s.Index != 0 || s.Generation() != 2 {
		t.Fatalf("want the descriptor used again, got %d of generation %d", s.Index, s.Generation())
	}
	wantValues(t, "the descriptor's next series", m.values("next"), 5)
	equal(t, "what is there of its first", m.exemplars()[1].Generation, 1)
}

// What was offered while there was no file is in the file's ring, and numbers go on behind it.
func TestExemplarsBeforeTheFile(t *testing.T) {
	o, clock := testOptions(t)
	o.Dir = filepath.Join(o.Dir, "later")
	w, err := Open(o)
	if err == nil {
		t.Fatal("want an error")
	}
	defer w.Close()
	c, h := w.Counter("c"), w.Histogram("h")
	for i := range 5 {
		c.AddExemplar(uint64(i+1), traced(byte(i+1)))
	}
	h.RecordExemplar(0.5, traced(6))
	late := h.s.place.Load()                 // what a record holds that is preempted now
	late.ring.slots[1*late.ring.stride] |= 1 // number 2 is being written when the file is born
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	clock.advance(2 * time.Minute)
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	wantValues(t, "c", m.values("c"), 1, 3, 4, 5)
	wantValues(t, "h", m.values("h"), 0.5)
	late.ring.store(&layout.Exemplar{Value: 1, TraceID: [16]byte{1}})
	clock.advance(10 * time.Second)
	w.Tick()
	c.AddExemplar(9, traced(9))
	m = load(t, segmentFiles(t, o.Dir)[0])
	wantValues(t, "c, later", m.values("c"), 1, 3, 4, 5, 9)
	equal(t, "numbers given", m.control().Exemplars, 8)
	equal(t, "dropped", m.control().ExemplarsDropped, 1)
	equal(t, "by Stats", w.Stats().Exemplars, 8)
}

// In a sampled segment, where rows don't tell seconds apart, every one is taken.
func TestExemplarsSampled(t *testing.T) {
	o, _ := testOptions(t)
	o.Sampled = true
	w := mustOpen(t, o)
	h := w.Histogram("h")
	for _, v := range []float64{0.5, 0.25, 0.125} {
		h.RecordExemplar(v, traced(1))
	}
	wantValues(t, "sampled", load(t, segmentFiles(t, o.Dir)[0]).values("h"), 0.5, 0.25, 0.125)
}

// Many goroutines offer as fast as they can, GOMAXPROCS changes, ticks come: each exemplar in the ring is one that was offered, numbers are
// those taken, and every record counts.
func TestExemplarsHammered(t *testing.T) {
	o, clock := testOptions(t)
	o.Exemplars = 4
	w := mustOpen(t, o)
	h, c := w.Histogram("h", InTable("scalars"), Buckets(0.5, 4)), w.Counter("c")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	const goroutines, each = 4, 20_000
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := range each {
				n := uint64(g*each + i + 1)
				ex := Exemplar{Time: time.Unix(0, int64(n))}
				le.PutUint64(ex.TraceID[:], n)
				le.PutUint64(ex.TraceID[8:], n*3)
				le.PutUint64(ex.SpanID[:], n*7)
				h.RecordExemplar(float64(n), ex)
				c.AddExemplar(1, ex)
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	check := func() {
		m := load(t, segmentFiles(t, o.Dir)[0])
		for i := range uint64(4) {
			at := m.h.ExemplarOffset(i+1) / 8
			slot := m.words[at:][:layout.ExemplarWords]
			x, v := layout.DecodeExemplar(slot, m.h.ExemplarIdentity(), slot[0]>>1)
			if v != layout.ExemplarOK {
				continue // being written, or torn by the copy
			}
			n := uint64(x.T)
			if le.Uint64(x.TraceID[:]) != n || le.Uint64(x.TraceID[8:]) != n*3 || le.Uint64(x.SpanID[:]) != n*7 || x.Value != float64(n) && x.Value != 1 {
				t.Errorf("want one that was offered, got %+v", x)
			}
		}
	}
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		clock.advance(time.Second)
		w.Tick()
		check()
	}
	clock.advance(time.Second)
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	hi := m.find("h")
	equal(t, "histogram", histogramCount(m.last(hi, 0).of(t, hi)), goroutines*each)
	equal(t, "counter", m.value("c"), goroutines*each)
	if all := m.exemplars(); len(all) != 4 {
		t.Errorf("want 4 whole at rest, got %d", len(all))
	}
	s := w.Stats()
	if s.Exemplars < 4 || s.ExemplarsDropped*2 > s.Exemplars {
		t.Errorf("want few of those taken dropped, got %d of %d", s.ExemplarsDropped, s.Exemplars)
	}
}
