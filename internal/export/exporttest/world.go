// Package exporttest is what the tests of all protocols that go out share: a store whose clock they wind, with real writers in it,
// and the page that says what becomes of a receiver's failures.
package exporttest

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/exemplars"
	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// World is a store whose clock the test winds, and writers in it.
type World struct {
	T       testing.TB
	Epoch   int64         // the beginning, unix ns
	Now     time.Duration // since then, by a clock that nobody steps
	Stepped time.Duration // by how much the wall clock was
	Traces  *exemplars.Store
	Writers []*writer.Writer // that Run ticks
	Dir     string           // the store

	store *reader.Store
	ids   uint32
}

// New makes one, in a directory of /dev/shm that goes with the test.
func New(t testing.TB, epoch int64) *World {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-export-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &World{T: t, Epoch: epoch, Traces: exemplars.New(1000), Dir: dir}
	if w.store, err = reader.Open(reader.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	return w
}

// Time is what the wall clock says.
func (w *World) Time() time.Time { return time.Unix(0, w.Epoch+int64(w.Now+w.Stepped)) }

// Writer gives birth to a segment with phase 0: rows fall on whole steps.
func (w *World) Writer(o writer.Options) *writer.Writer {
	w.T.Helper()
	o.Dir, o.NoTicker = w.Dir, true
	o.Clock = func() (int64, int64) { return w.Time().UnixNano(), int64(1000*time.Second + w.Now) }
	o.NewID = func() [16]byte {
		w.ids++
		return [16]byte{13: byte(w.ids >> 16), 14: byte(w.ids >> 8), 15: byte(w.ids)}
	}
	wr, err := writer.Open(o)
	if err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(func() { wr.Close() })
	w.Writers = append(w.Writers, wr)
	return wr
}

// Run lets time pass second by second, with a tick of every writer at each.
func (w *World) Run(d time.Duration) {
	for end := w.Now + d; w.Now < end; {
		w.Now += time.Second
		for _, wr := range w.Writers {
			wr.Tick()
		}
	}
}

type segment struct{ *reader.Segment }

func (s segment) Source() string                              { return s.Job() + "/" + s.Instance() }
func (s segment) Overrides() map[*reader.Series][]reader.Pair { return nil }
func (s segment) Rows(table, tier int, from uint64, yield func(*reader.Row) bool) {
	s.Segment.Rows(table, tier, from)(yield)
}

func (s segment) Exemplars(from uint64, yield func(*reader.Exemplar) bool) {
	s.Segment.Exemplars(from)(yield)
}

// Segments polls the store, takes over what exemplars there are, and answers what an Exporter asks for.
func (w *World) Segments() (out []export.Segment) {
	if _, err := w.store.Poll(); err != nil {
		w.T.Error(err)
	}
	var traced []exemplars.Segment
	for _, g := range w.store.Segments() {
		out = append(out, segment{g})
		traced = append(traced, segment{g})
	}
	w.Traces.Collect(traced)
	return out
}

// Flush has an Exporter send what there is, within half a minute.
func (w *World) Flush(e *export.Exporter) {
	w.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := e.Flush(ctx); err != nil {
		w.T.Fatal(err)
	}
}

// RecordAll records one series of every kind, with values that are exact; of one, labels are such as need translation.
func RecordAll(w *writer.Writer) {
	w.Counter("rx.packets", writer.Label("queue", "0"), writer.Unit("{packet}"), writer.Help("packets")).Add(7)
	w.Counter("rx.packets", writer.Label("queue", "1"), writer.Unit("{packet}"), writer.Help("packets")).Add(1 << 63)
	w.FloatCounter("cpu", writer.Unit("s"), writer.Label("Zone", "own"), writer.Label("job", "own")).Add(2.5)
	w.UpDownCounter("open").Add(-3)
	w.Gauge("temperature", writer.Unit("Cel")).Set(21.5)
	w.IntGauge("level").Set(-7)
	w.Gauge("never")
	st := w.Stat("depth", writer.NonNegative())
	st.Record(4)
	st.Record(1.5)
	w.Stat("queue.wait", writer.Unit("s")).Record(-0.5)
	w.Stat("silent")
	h := w.Histogram("latency", writer.Unit("s"), writer.Buckets(0.25, 1))
	for _, v := range []float64{0.5, 0.5, 1, 0.25, 0.125, 0, 8} { // upper bounds inclusive; 8 above, three at or below the lower bound
		h.Record(v)
	}
	s := w.IntHistogram("size", writer.Unit("By"), writer.Buckets(64, 128), writer.Scale(0))
	s.Record(100)
	s.Record(100)
	w.Histogram("empty", writer.Buckets(0.25, 1))
}

// Lines are a text's, without the space around each.
func Lines(text string) []string {
	out := strings.Split(strings.TrimSpace(text), "\n")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// SameLines compares without regard to order, and says what is missing and what nobody wanted.
func SameLines(t testing.TB, got []string, want string) {
	t.Helper()
	wanted := slices.Sorted(slices.Values(Lines(want)))
	got = slices.Sorted(slices.Values(got))
	if slices.Equal(got, wanted) {
		return
	}
	without := func(these, those []string) (out []string) {
		for _, l := range these {
			if !slices.Contains(those, l) {
				out = append(out, l)
			}
		}
		return out
	}
	t.Errorf("want %d lines, got %d; missing\n\t%s\nunwanted\n\t%s", len(wanted), len(got),
		strings.Join(without(wanted, got), "\n\t"), strings.Join(without(got, wanted), "\n\t"))
}
