package archiver

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// world is a store with writers whose clock is the test's, a register of it, and an archiver.
type world struct {
	t       testing.TB
	dir     string
	clock   atomic.Int64 // unix and mono
	started int64
	r       *source.Register
	w       archive.Writer
	a       *Archiver
	o       Options
	writers []*ticking
	bench   bool   // only counters are recorded
	disk    string // directory of the archive, if it is a real one
}

func newWorld(t testing.TB, o Options) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-archiver-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, o: o}
	w.started = time.Now().Truncate(time.Second).UnixNano()
	w.clock.Store(w.started)
	if w.w = o.Archive; w.w == nil {
		w.disk = t.TempDir()
	}
	w.o.Now = func() time.Time { return time.Unix(0, w.clock.Load()) }
	w.register()
	w.restart()
	return w
}

func (w *world) register() {
	var err error
	w.r, err = source.Open(source.Options{Store: reader.Options{Dir: w.dir, Rescan: time.Nanosecond}, Now: w.o.Now, DeadTTL: 5 * time.Second})
	if err != nil {
		w.t.Fatal(err)
	}
	r := w.r
	w.t.Cleanup(func() { r.Close() })
	r.Hold("archive", func(s *source.Segment) bool { return w.a.Finished(s) })
}

// restart is what a new process begins with: the same archive, and nothing else.
func (w *world) restart() {
	if w.disk != "" {
		if w.w != nil {
			if err := w.w.Close(); err != nil {
				w.t.Fatal(err)
			}
		}
		w.w = open(w.t, w.disk, 4<<20)
	}
	w.o.Archive = w.w
	w.a = New(w.o, func() []Segment {
		var out []Segment
		for _, s := range w.r.Segments() {
			out = append(out, s)
		}
		return out
	})
}

// ticking is a writer of which each row's values follow from its number.
type ticking struct {
	w        *writer.Writer
	counters []*writer.Counter
	gauge    *writer.IntGauge
	stat     *writer.Stat
	hist     *writer.IntHistogram
	n        uint64
}

func ring(rows int) []writer.Table {
	return []writer.Table{{Name: "t", Tiers: []writer.Tier{{Step: time.Second, Rows: rows}, {Step: 10 * time.Second, Rows: 60}}, Counters: 40, Gauges: 4, Stats: 2, Histograms: 2, Buckets: 16}}
}

func (w *world) writer(instance string, counters int, tables []writer.Table) *ticking {
	w.t.Helper()
	wr, err := writer.Open(writer.Options{Job: "j", Instance: instance, Dir: w.dir, NoTicker: true, Tables: tables, Series: 60,
		Clock: func() (int64, int64) { now := w.clock.Load(); return now, now - w.started + 1e12 }})
	if err != nil {
		w.t.Fatal(err)
	}
	k := &ticking{w: wr, gauge: wr.IntGauge("level"), stat: wr.Stat("size", writer.InTable(tables[0].Name)), hist: wr.IntHistogram("length", writer.Buckets(1, 256), writer.InTable(tables[0].Name))}
	for i := range counters {
		k.counters = append(k.counters, wr.Counter(fmt.Sprint("c", i)))
	}
	w.writers = append(w.writers, k)
	w.t.Cleanup(func() { wr.Close() })
	return k
}

// record makes the values of row n: counter i is n x (i+1), the gauge n from row 3 on, the stat has recorded n in each, and the
// histogram as well.
func (k *ticking) record() {
	k.n++
	for i, c := range k.counters {
		c.Add(uint64(i + 1))
	}
}

func (k *ticking) others() {
	if k.n >= 3 {
		k.gauge.Set(int64(k.n))
	}
	if k.n%4 != 0 {
		k.stat.Record(float64(k.n))
	}
	k.hist.Record(k.n % 200)
}

// step lets a second pass: every writer records and ticks, the store is looked at.
func (w *world) step(n int) {
	w.t.Helper()
	for range n {
		w.tick(1)
		w.poll()
	}
}

// tick lets seconds pass that nobody looks at.
func (w *world) tick(n int) {
	for range n {
		w.clock.Add(1e9)
		for _, k := range w.writers {
			if k != nil {
				if k.record(); !w.bench {
					k.others()
				}
				k.w.Tick()
			}
		}
	}
}

func (w *world) poll() {
	w.t.Helper()
	if err := w.r.Poll(); err != nil {
		w.t.Fatal(err)
	}
	w.a.Poll()
}

// end closes a writer, after it recorded once more: its final row has that number.
func (w *world) end(k *ticking) {
	k.record()
	k.others()
	w.clock.Add(1e6)
	k.w.Close()
	w.writers[slices.Index(w.writers, k)] = nil
}

// id of the segment of an instance.
func (w *world) id(instance string) (id [16]byte) {
	w.t.Helper()
	for _, s := range w.r.Segments() {
		if slices.Contains(s.Labels(), reader.Pair{Name: "instance", Value: instance}) {
			return id16(s.ID())
		}
	}
	w.t.Fatalf("no segment of instance %s", instance)
	return id
}

// archived are the rows of a segment's table in a tier by number, each held against what it must be. Of a row that is there twice,
// the test fails.
func (w *world) archived(id [16]byte, table, tier int) map[uint64]archive.Key {
	w.t.Helper()
	rows := map[uint64]archive.Key{}
	w.each(id, table, tier, func(inc *archive.Incarnation, c *archive.Chunk, cols []archive.Column) {
		for i, no := range c.Numbers {
			if k, twice := rows[no]; twice {
				w.t.Errorf("row %d: want it once, got it of %v and of %v", no, k, inc.Key)
			}
			rows[no] = inc.Key
			for j, col := range cols {
				hold(w.t, no, col, c.Cells[j], c.Cells[j] != nil && (c.Present[j] == nil || c.Present[j][i]), i)
			}
		}
	})
	return rows
}

func (w *world) each(id [16]byte, table, tier int, f func(*archive.Incarnation, *archive.Chunk, []archive.Column)) {
	w.t.Helper()
	found, err := w.w.Find(id)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, inc := range found {
		if len(inc.Tables) <= table {
			continue
		}
		for k, tt := range inc.Tables[table].Tiers {
			if tt.Tier != tier {
				continue
			}
			var cols []archive.Column
			for _, s := range inc.Series {
				for _, f := range archive.Fields(s.Kind, false) {
					if s.Table == table {
						cols = append(cols, archive.Column{Series: s, Field: f})
					}
				}
			}
			for c, err := range w.w.Read(inc, table, k, math.MinInt64, math.MaxInt64, cols) {
				if err != nil {
					w.t.Fatal(err)
				}
				f(inc, c, cols)
			}
		}
	}
}

// hold holds a value of row no against ticking's formula.
func hold(t testing.TB, no uint64, c archive.Column, cells []uint64, present bool, i int) {
	t.Helper()
	wrong := func(want any, got uint64) {
		t.Errorf("row %d: %s, field %d: want %v, got %d, present: %v", no, c.Series.Name, c.Field, want, got, present)
	}
	var cell uint64
	if cells != nil && c.Field != archive.Hist {
		cell = cells[i]
	}
	recorded := no - no/4 // the stat's records
	switch s := c.Series; {
	case s.Name == "level":
		if present != (no >= 3) || present && cell != no {
			wrong(no, cell)
		}
	case s.Name == "size" && c.Field == archive.Count:
		if !present || cell != recorded {
			wrong(recorded, cell)
		}
	case s.Name == "size" && (c.Field == archive.Min || c.Field == archive.Max):
		if present != (no%4 != 0) || present && cell != math.Float64bits(float64(no)) {
			wrong(no, cell)
		}
	case s.Name == "size" && c.Field == archive.Last:
		last := no
		if no%4 == 0 {
			last--
		}
		if !present || cell != math.Float64bits(float64(last)) {
			wrong(last, cell)
		}
	case s.Name == "length":
		k := s.Buckets.Count + 3
		sum, count := uint64(0), uint64(0)
		for n := uint64(1); n <= no; n++ {
			sum += n % 200
		}
		for _, v := range cells[i*k+1 : (i+1)*k] {
			count += v
		}
		if !present || cells[i*k] != sum || count != no {
			t.Errorf("row %d: histogram: want sum %d, count %d, got %d, %d, present: %v", no, sum, no, cells[i*k], count, present)
		}
	case strings.HasPrefix(s.Name, "c"):
		var k uint64
		fmt.Sscan(s.Name[1:], &k)
		if want := no * (k + 1); !present || cell != want {
			wrong(want, cell)
		}
	}
}

// whole fails unless rows are first to last, each of them.
func whole(t testing.TB, rows map[uint64]archive.Key, first, last uint64) {
	t.Helper()
	for n := first; n <= last; n++ {
		if _, ok := rows[n]; !ok {
			t.Errorf("row %d of %d to %d: want it in the archive, got nothing", n, first, last)
			break
		}
	}
	if want := int(last - first + 1); len(rows) != want {
		t.Errorf("want %d rows, got %d", want, len(rows))
	}
}

func equal[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: want %v, got %v", what, want, got)
	}
}
