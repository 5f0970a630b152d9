package writer

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// fakeClock is both clocks of a test. It stands still until it is told to move.
type fakeClock struct{ unix, mono atomic.Int64 }

func newClock() *fakeClock {
	c := &fakeClock{}
	c.unix.Store(1_700_000_000_000_000_000)
	c.mono.Store(1_000_000_000_000)
	return c
}

func (c *fakeClock) now() (int64, int64) { return c.unix.Load(), c.mono.Load() }

func (c *fakeClock) advance(d time.Duration) {
	c.unix.Add(int64(d))
	c.mono.Add(int64(d))
}

// fixedIDs makes ids whose first word is 0, so that steps end at multiples of themselves.
func fixedIDs() func() [16]byte {
	n := byte(0)
	return func() (id [16]byte) {
		n++
		id[15] = n
		return id
	}
}

// testStore is a private store on tmpfs, as segments have in life; it is removed at the end.
func testStore(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-writer-test-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func testOptions(t testing.TB) (Options, *fakeClock) {
	clock := newClock()
	return Options{Job: "job", Instance: "instance", Dir: testStore(t), NoTicker: true, Clock: clock.now, NewID: fixedIDs()}, clock
}

func mustOpen(t testing.TB, o Options) *Writer {
	t.Helper()
	w, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// image is a private copy of a segment's file, as a reader has it.
type image struct {
	t     testing.TB
	words []uint64
	h     *layout.Header
}

func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, fmt.Sprint(os.Geteuid()), "*.shmts"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func load(t testing.TB, path string) *image {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]uint64, len(b)/8)
	copy(layout.Bytes(words), b)
	h, err := layout.ParseHeader(words, int64(len(b)))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return &image{t, words, h}
}

func (m *image) control() *layout.Control {
	return layout.View[layout.Control](m.words, m.h.Control.Offset)
}

// series are the descriptors that are live or retired, checked.
func (m *image) series() []layout.SeriesInfo {
	m.t.Helper()
	var all []layout.SeriesInfo
	for i := range int(m.control().SeriesUsed) {
		s := *layout.View[layout.Series](m.words, m.h.Series.Offset+uint64(i)*layout.SeriesSize)
		if s.Life() != layout.SeriesLive && s.Life() != layout.SeriesRetired {
			continue
		}
		if err := s.Check(m.h, i); err != nil {
			m.t.Fatal(err)
		}
		at := m.h.Heap.Offset + uint64(s.Strings)
		info, err := s.CutStrings(slices.Clone(layout.Bytes(m.words)[at:][:s.StringsLength()]), i)
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, info)
	}
	return all
}

// find is the live series of that name, label values behind it in name order, such as `requests{GET}`.
func (m *image) find(name string) layout.SeriesInfo {
	m.t.Helper()
	for _, s := range m.series() {
		var values []string
		for _, p := range s.Labels {
			values = append(values, p.Value)
		}
		full := s.Name
		if len(values) > 0 {
			full += "{" + strings.Join(values, ",") + "}"
		}
		if full == name && s.Life() == layout.SeriesLive {
			return s
		}
	}
	m.t.Fatalf("want a live series %s, got none", name)
	return layout.SeriesInfo{}
}

type row struct {
	layout.RowHeader
	cells []uint64
}

// row is row n of a tier, which must be there and valid.
func (m *image) row(table, tier int, n uint64) row {
	m.t.Helper()
	d := &m.h.Tables[table].Tier[tier]
	slot := m.words[d.RowOffset(n)/8:][:d.RowStride/8]
	h, cells, verdict := layout.DecodeRow(slot, m.h.RowIdentity(table, tier), n)
	if verdict != layout.RowOK {
		m.t.Fatalf("row %d of table %d, tier %d: want it valid, got %v", n, table, tier, verdict)
	}
	return row{h, cells}
}

func (m *image) head(table, tier int) uint64 { return m.control().Table[table].Head[tier] }

// last is the newest row of the series' table, in a tier.
func (m *image) last(s layout.SeriesInfo, tier int) row {
	m.t.Helper()
	n := m.head(int(s.Table), tier)
	if n == 0 {
		m.t.Fatalf("table %d, tier %d: want a row, got none", s.Table, tier)
	}
	return m.row(int(s.Table), tier, n)
}

func (r row) of(t testing.TB, s layout.SeriesInfo) []uint64 {
	t.Helper()
	if !s.In(r.BaseRow, len(r.cells)) {
		t.Fatalf("series %s: want it in row with base_row %d, got born %d, retired %d, %d cells", s.Name, r.BaseRow, s.BornRow, s.RetiredRow, len(r.cells))
	}
	return r.cells[s.RowCell:][:s.Kind.Cells(int(s.Buckets)).Row]
}

// value is the one cell of a counter or gauge in the newest base row.
func (m *image) value(name string) uint64 {
	m.t.Helper()
	s := m.find(name)
	return m.last(s, 0).of(m.t, s)[0]
}

func (m *image) float(name string) float64 {
	m.t.Helper()
	return math.Float64frombits(m.value(name))
}

// live is the sum of a cell over all lanes, straight from the live cells: what last words are made of.
func (m *image) live(s layout.SeriesInfo, cell int) uint64 {
	d := &m.h.Tables[s.Table]
	sum := uint64(0)
	for k := range uint64(d.Lanes) + 1 {
		sum += m.words[(d.LanesOffset+k*uint64(d.LaneStride))/8+uint64(s.LaneCell)+uint64(cell)]
	}
	return sum
}

// histogramCount is the count of a histogram's row cells.
func histogramCount(cells []uint64) (n uint64) {
	for _, c := range cells[layout.HistZero:] {
		n += c
	}
	return n
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}
