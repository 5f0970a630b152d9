package remotewrite

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

// world is a store whose clock the test winds, writers in it, and an exporter of it.
type world struct {
	t       testing.TB
	dir     string
	now     time.Duration // since epoch
	stepped time.Duration // by how much the wall clock was
	epoch   int64         // the beginning, unix ns
	step    time.Duration // of exporters
	store   *reader.Store
	ids     uint32
	e       *export.Exporter
	enc     *Encoder
	ws      []*writer.Writer
	traces  *exemplars.Store
}

func newWorld(t testing.TB, o Options, url string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-remotewrite-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, epoch: epoch, step: 10 * time.Second, traces: exemplars.New(1000)}
	if w.store, err = reader.Open(reader.Options{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if url != "" {
		w.exporter(o, url)
	}
	return w
}

// checked holds an Encoder against what its caller relies on: where a row was not wholly taken, the request is full, and not empty.
type checked struct {
	t testing.TB
	*Encoder
}

func (c checked) Add(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	at, done := c.Encoder.Add(src, row, at)
	c.check(done)
	return at, done
}

func (c checked) End(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	at, done := c.Encoder.End(src, row, at)
	c.check(done)
	return at, done
}

func (c checked) check(done bool) {
	if !done && (!c.Full() || c.Points() == 0) {
		c.t.Errorf("not all of a row was taken: want the request full, got %v with %d points", c.Full(), c.Points())
	}
}

func (w *world) time() time.Time { return time.Unix(0, w.epoch+int64(w.now+w.stepped)) }

// exporter begins a new one, which knows nothing.
func (w *world) exporter(o Options, url string) *export.Exporter {
	var err error
	o.HTTP.URL, o.Version, o.Now, o.Step = url, "test", w.time, w.step
	if w.enc, err = New(o); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.enc.Close)
	w.e, err = export.New(export.Options{Name: "test", Step: w.step, Exemplars: w.traces, Backoff: time.Millisecond, Now: w.time}, checked{w.t, w.enc}, w.segments)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.e
}

// writer gives birth to a segment with phase 0: rows fall on whole steps.
func (w *world) writer(o writer.Options) *writer.Writer {
	w.t.Helper()
	o.Dir, o.NoTicker = w.dir, true
	o.Clock = func() (int64, int64) { return w.epoch + int64(w.now+w.stepped), int64(1000*time.Second + w.now) }
	o.NewID = func() [16]byte {
		w.ids++
		return [16]byte{13: byte(w.ids >> 16), 14: byte(w.ids >> 8), 15: byte(w.ids)}
	}
	wr, err := writer.Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { wr.Close() })
	w.ws = append(w.ws, wr)
	return wr
}

// run lets time pass second by second, with a tick of every writer at each.
func (w *world) run(d time.Duration) {
	for end := w.now + d; w.now < end; {
		w.now += time.Second
		for _, wr := range w.ws {
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

func (w *world) segments() (out []export.Segment) {
	if _, err := w.store.Poll(); err != nil {
		w.t.Error(err)
	}
	var traced []exemplars.Segment
	for _, g := range w.store.Segments() {
		out = append(out, segment{g})
		traced = append(traced, segment{g})
	}
	w.traces.Collect(traced)
	return out
}

func (w *world) flush() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := w.e.Flush(ctx); err != nil {
		w.t.Fatal(err)
	}
}

func split(text string) []string {
	out := strings.Split(strings.TrimSpace(text), "\n")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// sameLines compares without regard to order.
func sameLines(t *testing.T, got []string, want string) {
	t.Helper()
	wanted := split(want)
	slices.Sort(wanted)
	got = slices.Clone(got)
	slices.Sort(got)
	if !slices.Equal(got, wanted) {
		var missing, more []string
		for _, l := range wanted {
			if !slices.Contains(got, l) {
				missing = append(missing, l)
			}
		}
		for _, l := range got {
			if !slices.Contains(wanted, l) {
				more = append(more, l)
			}
		}
		t.Errorf("want %d lines, got %d; missing\n\t%s\nunwanted\n\t%s", len(wanted), len(got), strings.Join(missing, "\n\t"), strings.Join(more, "\n\t"))
	}
}
