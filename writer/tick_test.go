package writer

import (
	"encoding/hex"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// tiny is a segment small enough to be spelled.
func tiny(o Options) Options {
	o.OwnedLanes = -1
	o.Descriptors = 4
	o.HeapBytes = 64
	o.Exemplars = 2
	o.Tables = []Table{{Name: "t", Counters: 1, Gauges: 1, Lanes: 1, Tiers: []Tier{{time.Second, 2}}}}
	return o
}

// The bytes of a segment with a counter at 7 and a gauge at 1.5, after one tick: what does not
// depend on this process and machine. FORMAT.md, section by section.
func TestGoldenBytes(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // so that it is P 0 that records
	o, clock := testOptions(t)
	w := mustOpen(t, tiny(o))
	w.Counter("c", Unit("By")).AddExemplar(7, Exemplar{TraceID: [16]byte{0: 1, 15: 2}, SpanID: [8]byte{0: 3, 7: 4}, Time: time.Unix(1_700_000_000, 5)})
	w.Gauge("g", Label("k", "v")).Set(1.5)
	clock.advance(time.Second)
	w.Tick()
	m := load(t, segmentFiles(t, o.Dir)[0])
	b := layout.Bytes(m.words)
	golden := []struct {
		what string
		at   uint64
		want string
	}{
		{"magic, version, header_size 0x340", 0, "534d54530d0a1a" /* set below */},
		{"segment_id", 0x20, "00000000000000000000000000000001"},
		{"group_id", 0x30, "00000000000000000000000000000001"},
		{"birth_unix, birth_mono", 0x50, "0000d9be789c9717" + "00a0724e18090000"},
		{"writer", 0x90, hex.EncodeToString([]byte(Version))},
		{"state live, epoch 0", m.h.Control.Offset, "0100000000000000"},
		{"heartbeat", m.h.Control.Offset + 8, ""},
		{"ticks 1, series_used 2, heap_used", m.h.Control.Offset + 0x10, "0100000000000000" + "02000000" + "0e000000"},
		{"open_row 2, row cells 2, lane cells 1, shared cells 1", m.h.Control.Offset + 0x80, "0200000000000000" + "0200000001000000" + "0100000000000000"},
		{"head0 1", m.h.Control.Offset + 0x98, "0100000000000000"},
		{"changes 2", m.h.Control.Offset + 0xb8, "0200000000000000"},
		{"descriptor 0", m.h.Series.Offset, "02010000" + "01" + "01" + "00" + "00" + "0000" + "0100" + "0200" + "0000" +
			"00000000" + "02000000" + "00000000" + "00000000" + "00000000" + "0000" + "0000"},
		{"descriptor 1", m.h.Series.Offset + 64, "02010000" + "03" + "03" + "00" + "00" + "0000" + "0100" + "0000" + "0000" +
			"05000000" + "08000000" + "01000000" + "00000000" + "00000000" + "0000" + "0000"},
		{"heap", m.h.Heap.Offset, hex.EncodeToString([]byte("cBy\x00\x00g\x01\x00\x01\x00\x01\x00kv"))},
		{"lane 0", m.h.Tables[0].LanesOffset, "0700000000000000"},
		{"overflow lane", m.h.Tables[0].LanesOffset + 64, "0000000000000000"},
		{"shared lane", m.h.Tables[0].SharedOffset, "000000000000f83f"},
		{"row 1: seq 2, row_no 1", m.h.Tables[0].Tier[0].RowOffset(1), "0200000000000000" + "0100000000000000"},
		{"row 1: cells 2, epoch, flags", m.h.Tables[0].Tier[0].RowOffset(1) + 0x30, "0200000000000000"},
		{"exemplars 1", m.h.Control.Offset + 0x48, "0100000000000000" + "0000000000000000"},
		{"exemplar 1: seq 2, check", m.h.Exemplars.Offset, "0200000000000000"},
		{"exemplar 1: series 0 of generation 1, value, t", m.h.Exemplars.Offset + 0x10, "00000000" + "01000000" + "0000000000001c40" + "05002a36fe9c9717"},
		{"exemplar 1: trace_id, span_id", m.h.Exemplars.Offset + 0x28, "01000000000000000000000000000002" + "0300000000000004"},
		{"row 1: cells", m.h.Tables[0].Tier[0].RowOffset(1) + 0x40, "0700000000000000" + "000000000000f83f"},
	}
	golden[0].want = "53484d54530d0a1a" + "01000000" + fmt.Sprintf("%02x%02x0000", m.h.HeaderSize&255, m.h.HeaderSize>>8)
	golden[6].want = hex.EncodeToString(layout.Bytes([]uint64{uint64(clock.mono.Load())}))
	golden[3].want = hex.EncodeToString(layout.Bytes([]uint64{1_700_000_000_000_000_000, 1_000_000_000_000}))
	for _, g := range golden {
		if got := hex.EncodeToString(b[g.at:][:len(g.want)/2]); got != g.want {
			t.Errorf("%s at %#x: want\n%s, got\n%s", g.what, g.at, g.want, got)
		}
	}
	equal(t, "total size", m.h.TotalSize, 4096)
	r := m.row(0, 0, 1)
	equal(t, "t", r.T, 1_700_000_001_000_000_000)
	equal(t, "t_begin", r.TBegin, 1_700_000_000_000_000_000)
	equal(t, "t_mono", r.TMono, 1_001_000_000_000)
	equal(t, "clock_offset", m.control().ClockOffset, 1_700_000_000_000_000_000-1_000_000_000_000)
}

// Rows come when mono time crosses a step, one at most, and say what they cover.
func TestSteps(t *testing.T) {
	o, clock := testOptions(t)
	o.Tables = []Table{{Name: "t", Scalars: 4, Lanes: 1, Tiers: []Tier{{time.Second, 8}, {4 * time.Second, 4}}}}
	w := mustOpen(t, o)
	c := w.Counter("c")
	file := segmentFiles(t, o.Dir)[0]
	step := func(d time.Duration, base, coarse uint64) *image {
		t.Helper()
		clock.advance(d)
		c.Inc()
		w.Tick()
		m := load(t, file)
		equal(t, "base head", m.head(0, 0), base)
		equal(t, "coarse head", m.head(0, 1), coarse)
		equal(t, "open_row", m.control().Table[0].OpenRow, base+1)
		return m
	}
	birth := clock.unix.Load()
	step(999*time.Millisecond, 0, 0) // mono 1000.999
	step(time.Millisecond, 1, 0)     // 1001.000
	step(time.Millisecond, 1, 0)     // 1001.001
	step(time.Second, 2, 0)
	step(time.Second, 3, 0)
	m := step(time.Second, 4, 1) // 1004.001
	r := m.row(0, 1, 1)
	equal(t, "coarse base_row", r.BaseRow, 4)
	equal(t, "coarse t_begin", r.TBegin, birth)
	equal(t, "coarse value", r.cells[0], 6)
	m = step(time.Hour, 5, 2) // late: one row a tier, which says so
	r = m.row(0, 0, 5)
	equal(t, "late row covers", time.Duration(r.T-r.TBegin), time.Hour)
	equal(t, "coarse late row covers", time.Duration(m.row(0, 1, 2).T-m.row(0, 1, 2).TBegin), time.Hour)

	clock.unix.Add(-int64(time.Hour)) // the wall clock is stepped back: rows go on
	m = step(time.Second, 6, 2)
	equal(t, "clock_offset follows", m.control().ClockOffset, clock.unix.Load()-clock.mono.Load())
	if r := m.row(0, 0, 6); r.T >= r.TBegin || r.TMono <= m.row(0, 0, 5).TMono {
		t.Errorf("want a row whose unix time went back and whose mono time did not, got %+v", r.RowHeader)
	}
	for range 20 { // around the ring
		clock.advance(time.Second)
		w.Tick()
	}
	m = load(t, file)
	for n := m.head(0, 0) - 7; n <= m.head(0, 0); n++ {
		m.row(0, 0, n)
	}
}

// The phase of a segment is its id's first word: it does not tick on the full second.
func TestPhase(t *testing.T) {
	o, clock := testOptions(t)
	o.NewID = func() [16]byte { return [16]byte{0x00, 0xca, 0x9a, 0x3b - 0x1e, 1} } // some first word
	w := mustOpen(t, o)
	first := idWord(w.segments[0].hdr.SegmentID)
	phase := time.Duration(first % uint64(time.Second))
	wait := time.Second - phase
	if phase == 0 {
		t.Fatal("want an id with a phase")
	}
	clock.advance(wait - 1)
	w.Tick()
	equal(t, "rows 1 ns before", w.Stats().Ticks, 0)
	clock.advance(1)
	w.Tick()
	equal(t, "rows", w.Stats().Ticks, 1)
}

// min and max are those of each row's own window, in the coarser tier over all its base rows.
func TestStatWindows(t *testing.T) {
	for _, procs := range []int{1, 64} { // 64 lanes: never the overflow lane; 1: see overflow below
		t.Run(fmt.Sprint(procs), func(t *testing.T) {
			o, clock := testOptions(t)
			o.OwnedLanes = -1
			o.Tables = []Table{{Name: "t", Stats: 2, Lanes: procs, Tiers: []Tier{{time.Second, 16}, {4 * time.Second, 4}}}}
			w := mustOpen(t, o)
			s := w.Stat("s")
			record := s.Record
			if procs == 1 { // as from a P that has no lane
				record = func(v float64) {
					at := s.s.place.Load()
					at.useOverflow()
					recordStatShared(at.words[at.overflow:], w.segments[0].tables[0].openRow, v)
				}
			}
			windows := [][]float64{{3, 1, 2}, {}, {-5}, {7, 7}, {}, {}, {}, {}, {100, -100}, {1}}
			for _, win := range windows {
				for _, v := range win {
					record(v)
				}
				clock.advance(time.Second)
				w.Tick()
			}
			m := load(t, segmentFiles(t, o.Dir)[0])
			si := m.find("s")
			check := func(r row, vs []float64) {
				t.Helper()
				cells := r.of(t, si)
				if len(vs) == 0 {
					equal(t, "min unset", cells[layout.StatMin], layout.UnsetF64)
					equal(t, "max unset", cells[layout.StatMax], layout.UnsetF64)
					return
				}
				low, high := vs[0], vs[0]
				for _, v := range vs {
					low, high = min(low, v), max(high, v)
				}
				equal(t, "min", math.Float64frombits(cells[layout.StatMin]), low)
				equal(t, "max", math.Float64frombits(cells[layout.StatMax]), high)
			}
			for i, win := range windows {
				check(m.row(0, 0, uint64(i+1)), win)
			}
			var four []float64
			for i, win := range windows[:8] {
				if four = append(four, win...); i%4 == 3 {
					check(m.row(0, 1, uint64(i/4+1)), four)
					four = nil
				}
			}
		})
	}
}

// Close publishes a final row in every tier at once.
func TestCloseIsFinalInEveryTier(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	c, s, h := w.Counter("c"), w.Stat("s"), w.Histogram("h")
	c.Add(5)
	s.Record(9)
	h.Record(0.1)
	clock.advance(time.Millisecond)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: want nothing, got %v", err)
	}
	m := load(t, segmentFiles(t, o.Dir)[0])
	equal(t, "state", m.control().State, layout.StateClosed)
	for _, tt := range [][2]int{{0, 0}, {0, 1}, {1, 0}} {
		r := m.row(tt[0], tt[1], 1)
		equal(t, fmt.Sprintf("flags of table %d, tier %d", tt[0], tt[1]), r.Flags, layout.RowFinal)
	}
	si := m.find("s")
	equal(t, "coarse max", math.Float64frombits(m.row(0, 1, 1).of(t, si)[layout.StatMax]), 9)
	equal(t, "counter", m.value("c"), 5)
}

// An epoch is in the control block and in every row after it.
func TestEpoch(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	w.Counter("c").Inc()
	w.SetEpoch(0x1_0007)
	clock.advance(time.Second)
	w.Tick()
	equal(t, "next epoch", w.NewEpoch(), 0x1_0008)
	m := load(t, segmentFiles(t, o.Dir)[0])
	equal(t, "epoch", m.control().Epoch, 0x1_0008)
	equal(t, "state", m.control().State, layout.StateLive)
	equal(t, "row's epoch", m.row(0, 0, 1).Epoch, 7)
}

// An f64 total never goes down, though another order of additions would make it.
func TestTotalsNeverFall(t *testing.T) {
	dst := []uint64{math.Float64bits(2)}
	sumTotals(dst, [][]uint64{{math.Float64bits(1)}, {math.Float64bits(0.5)}}, 0)
	equal(t, "kept", math.Float64frombits(dst[0]), 2)
	sumTotals(dst, [][]uint64{{math.Float64bits(1)}, {math.Float64bits(1.5)}}, 0)
	equal(t, "risen", math.Float64frombits(dst[0]), 2.5)
}

// The sums are those of FORMAT.md 7, for every number of lanes: f64 left to right.
func TestSums(t *testing.T) {
	for n := 1; n <= 65; n++ {
		lanes := make([][]uint64, n)
		want := make([]uint64, 5)
		total := 0.0
		for k := range lanes {
			lanes[k] = make([]uint64, 9)
			for i := range lanes[k] {
				lanes[k][i] = uint64(k*1000003+i*7919) << 40
			}
			for i := range want {
				want[i] += lanes[k][2+i]
			}
			v := 0.1 * float64(k+1)
			lanes[k][8] = math.Float64bits(v)
			if k == 0 {
				total = v
			} else {
				total += v
			}
		}
		got := []uint64{9, 9, 9, 9, 9}
		sumInts(got, lanes, 2)
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%d lanes, cell %d: want %#x, got %#x", n, i, want[i], got[i])
			}
		}
		short := []uint64{9, 9, 9}
		sumInts(short, lanes, 2)
		for i := range short {
			if short[i] != want[i] {
				t.Fatalf("%d lanes, short run, cell %d: want %#x, got %#x", n, i, want[i], short[i])
			}
		}
		sumFloats(got[:1], lanes, 8)
		if got[0] != math.Float64bits(total) {
			t.Fatalf("%d lanes: want the f64 sum %v, got %v", n, total, math.Float64frombits(got[0]))
		}
	}
}

// Neighbours of one kind are one run, so that a tick goes over runs and not over series.
func TestRuns(t *testing.T) {
	o, clock := testOptions(t)
	w := mustOpen(t, o)
	for i := range 20 {
		w.Counter("c", Label("i", fmt.Sprint(i)))
	}
	for i := range 20 {
		w.Gauge("g", Label("i", fmt.Sprint(i)))
	}
	w.Histogram("h")
	w.IntHistogram("ih")
	clock.advance(10 * time.Second)
	w.Tick()
	runs := func(i int) string {
		return strings.ReplaceAll(fmt.Sprint(w.segments[0].tables[i].tick.runs), "} {", "}\n{")
	}
	equal(t, "scalars: ints 20, shared 20", runs(0), "[{0 0 0 20}\n{2 20 0 20}]")
	equal(t, "histograms: f64 sum, its 82 counts and the other's 83 cells", runs(1), "[{1 0 0 1}\n{0 1 1 165}]")
}

// The automatic ticker publishes by itself, and goes with Close.
func TestTicker(t *testing.T) {
	o, _ := testOptions(t)
	o.NoTicker, o.Clock, o.NewID = false, nil, nil
	o.Tables = []Table{{Name: "t", Scalars: 1, Tiers: []Tier{{100 * time.Millisecond, 64}}}}
	w := mustOpen(t, o)
	c := w.Counter("c")
	c.Add(3)
	deadline := time.Now().Add(10 * time.Second)
	for w.Stats().Ticks < 3 {
		if time.Now().After(deadline) {
			t.Fatal("want 3 ticks within 10 s, got none")
		}
		time.Sleep(10 * time.Millisecond)
	}
	m := load(t, segmentFiles(t, o.Dir)[0])
	equal(t, "counter", m.value("c"), 3)
	a, b := m.row(0, 0, 2).TMono, m.row(0, 0, 1).TMono
	if d := time.Duration(a - b); d < 50*time.Millisecond || d > 5*time.Second {
		t.Errorf("want rows about 100 ms apart, got %v", d)
	}
	w.Close()
	select {
	case <-w.done:
	default:
		t.Error("want the ticker gone after Close")
	}
}
