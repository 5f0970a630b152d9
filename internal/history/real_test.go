package history_test

import (
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archiver"
	"github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// host is a store of real writers, and a daemon's organs over it, whose clock is the test's.
type host struct {
	t        *testing.T
	store    string
	dir      string
	now      atomic.Int64 // unix and mono ns
	ids      int
	archive  *archive.Archive
	archiver *archiver.Archiver
	register *source.Register
	engine   *query.Engine
	options  query.Options         // of the engine, beside what host says
	tiers    []archive.TierOptions // nil: 4, 2 and 1 MiB
}

// start is the daemon's, also after a stop.
func (h *host) start() {
	h.t.Helper()
	clock := func() time.Time { return time.Unix(0, h.now.Load()) }
	var err error
	if h.tiers == nil {
		h.tiers = []archive.TierOptions{{Step: time.Second, Budget: 4 << 20}, {Step: 10 * time.Second, Budget: 2 << 20}, {Step: 5 * time.Minute, Budget: 1 << 20}}
	}
	if h.archive, err = archive.Open(archive.Options{Dir: h.dir, Now: clock, Tiers: h.tiers}); err != nil {
		h.t.Fatal(err)
	}
	if h.register, err = source.Open(source.Options{Store: reader.Options{Dir: h.store, NoMap: true}, Now: clock}); err != nil {
		h.t.Fatal(err)
	}
	h.archiver = archiver.New(archiver.Options{Archive: h.archive, Now: clock}, func() []archiver.Segment {
		var out []archiver.Segment
		for _, s := range h.register.Segments() {
			out = append(out, s)
		}
		return out
	})
	h.register.Hold("archive", func(s *source.Segment) bool { return h.archiver.Finished(s) })
	var of []*source.Segment
	var living []history.Living
	o := h.options
	o.Now, o.Sources = clock, history.New(history.Options{
		Living: func() []history.Living {
			if now := h.register.Segments(); len(now) != len(of) || len(now) > 0 && &now[0] != &of[0] {
				of, living = now, make([]history.Living, len(now))
				for i, s := range now {
					living[i] = s
				}
			}
			return living
		},
		Left: func() int64 { return h.register.Left() / 1e6 }, Archive: h.archive,
	})
	h.engine = query.New(o)
}

func (h *host) stop() {
	h.t.Helper()
	if err := h.archiver.Close(); err != nil {
		h.t.Fatal(err)
	}
	if err := h.register.Close(); err != nil {
		h.t.Fatal(err)
	}
	if err := h.archive.Close(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) writer(o writer.Options) *writer.Writer {
	h.t.Helper()
	o.Dir, o.NoTicker = h.store, true
	o.Clock = func() (int64, int64) { now := h.now.Load(); return now, now }
	h.ids++
	id := h.ids
	o.NewID = func() [16]byte { return [16]byte{8: byte(id), 9: byte(id >> 8), 10: 1} }
	w, err := writer.Open(o)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { w.Close() })
	return w
}

// Real writers that come and go, a daemon that is restarted, an archive on disk: every count is exact and every second is there, whether
// it is asked for while a segment lives, when it is unlinked, or much later.
func TestReal(t *testing.T) {
	store, err := os.MkdirTemp("/dev/shm", "shmts-history-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(store) })
	h := &host{t: t, store: store, dir: t.TempDir()}
	begin := time.Now().Truncate(5 * time.Minute).UnixNano()
	h.now.Store(begin)
	h.start()
	t.Cleanup(func() { h.stop() })

	long := h.writer(writer.Options{Job: "fwd", Instance: "long"})
	rx, lat, temp := long.Counter("rx"), long.Histogram("lat"), long.Gauge("temp")
	twin := h.writer(writer.Options{Job: "twin", Instance: "t:1", Histograms: -1}) // it is started anew, seconds after its end
	turns := twin.Counter("turns")
	var vm *writer.Writer
	var served *writer.Counter
	lives, total := 0, uint64(0)
	ms := func() int64 { return h.now.Load() / 1e6 }
	for i := 1; i <= 900; i++ {
		h.now.Add(int64(time.Second))
		if i%50 == 1 {
			lives++
			vm = h.writer(writer.Options{Job: "vm", Instance: fmt.Sprint("vm-", lives), Histograms: -1})
			served = vm.Counter("served")
		}
		rx.Add(7)
		lat.Record(0.004)
		temp.Set(float64(i))
		long.Tick()
		switch i {
		case 400:
			twin.Close()
		case 405:
			twin = h.writer(writer.Options{Job: "twin", Instance: "t:1", Histograms: -1})
			turns = twin.Counter("turns")
		}
		if i < 400 || i >= 405 {
			turns.Inc()
			twin.Tick()
		}
		if i%50 >= 1 && i%50 <= 45 {
			served.Add(uint64(i % 13))
			total += uint64(i % 13)
			if i%50 == 45 {
				vm.Close()
			} else {
				vm.Tick()
			}
		}
		if err := h.register.Poll(); err != nil {
			t.Fatal(err)
		}
		h.archiver.Poll()
		if i == 333 || i == 710 {
			h.stop()
			h.start()
			if err := h.register.Poll(); err != nil {
				t.Fatal(err)
			}
		}
		if i%100 != 0 {
			continue
		}
		for _, q := range []struct {
			q    string
			want float64
		}{
			{"rx_total", 7 * float64(i)},
			{"increase(rx_total[1h] anchored)", 7 * float64(i)},
			{"count_over_time(temp[1h])", float64(i)},
			{"sum_over_time(temp[1h])", float64(i) * float64(i+1) / 2},
			{"max_over_time(temp[20s])", float64(i)},
			{"sum(increase(served_total[1h] anchored))", float64(total)},
			{"sum(last_over_time(served_total[1h]))", float64(total)},
			{"count(last_over_time(served_total[1h]))", float64(lives)},
			{"sum(count_over_time(served_total[1h]))", float64(lives * 44)}, // born and ticked at one instant: no row,
		} {
			if got := number(t, h.engine, q.q, ms()); got != q.want {
				t.Errorf("after %d s: %s: want %g, got %g", i, q.q, q.want, got)
			}
		}
		if got := number(t, h.engine, "histogram_count(lat)", ms()); math.Abs(got-float64(i)) > 10 {
			t.Errorf("after %d s: histogram: want about %d, got %g", i, i, got)
		}
		m, err := ask(t, h.engine, "temp", begin/1e6+1000, ms(), 1000).Matrix()
		if err != nil || len(m) != 1 || len(m[0].Floats) != i {
			t.Fatalf("after %d s: want a point each second, got %d", i, len(m[0].Floats))
		}
		for k, p := range m[0].Floats {
			if p.F != float64(k+1) {
				t.Fatalf("after %d s: second %d: got %g", i, k+1, p.F)
			}
		}
	}
	for at := begin/1e6 + 50_000; at < ms(); at += 50_000 { // nobody was there twice, whatever part of a life is looked at
		if n, twice := number(t, h.engine, "count(turns_total)", at), number(t, h.engine, `count(turns_total{shmts_segment!=""})`, at); n != 1 || !math.IsNaN(twice) {
			t.Errorf("%d s in: want one twin and none of two at once, got %g and %g", (at-begin/1e6)/1000, n, twice)
		}
	}
	if n := len(h.register.Segments()); n > 6 {
		t.Errorf("want dead segments unlinked, got %d segments", n)
	}
	q, err := h.engine.Querier(begin/1e6, ms())
	if err != nil {
		t.Fatal(err)
	}
	if names, warnings, err := q.LabelValues(t.Context(), "instance", nil); err != nil || len(warnings) > 0 || len(names) != lives+2 {
		t.Errorf("instances: want %d, got %d, %v, %v", lives+2, len(names), warnings, err)
	}
}
