package remotewrite

import (
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/exporttest"
)

// world is a store whose clock the test winds, writers in it, and an exporter of it.
type world struct {
	*exporttest.World
	step time.Duration // of exporters
	e    *export.Exporter
	enc  *Encoder
}

func newWorld(t testing.TB, o Options, url string) *world {
	t.Helper()
	w := &world{World: exporttest.New(t, epoch), step: 10 * time.Second}
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

// exporter begins a new one, which knows nothing.
func (w *world) exporter(o Options, url string) *export.Exporter {
	var err error
	o.HTTP.URL, o.Version, o.Now, o.Step = url, "test", w.Time, w.step
	if w.enc, err = New(o); err != nil {
		w.T.Fatal(err)
	}
	w.T.Cleanup(w.enc.Close)
	w.e, err = export.New(export.Options{Name: "test", Step: w.step, Exemplars: w.Traces, Backoff: time.Millisecond, Now: w.Time}, checked{w.T, w.enc}, w.Segments)
	if err != nil {
		w.T.Fatal(err)
	}
	return w.e
}

func (w *world) flush() { w.T.Helper(); w.Flush(w.e) }
