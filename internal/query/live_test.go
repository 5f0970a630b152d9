package query_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// store is a real store of real writers, whose clock is the test's.
type store struct {
	t        testing.TB
	dir      string
	now      atomic.Int64 // unix and mono ns
	ids      int
	register *source.Register
	engine   *query.Engine
}

// registered is a register's segments alone.
func registered(r *source.Register) query.Snapshot {
	return func() []query.Segment {
		var out []query.Segment
		for _, s := range r.Segments() {
			out = append(out, s)
		}
		return out
	}
}

func newStore(t testing.TB, noMap bool) *store {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "shmts-query-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &store{t: t, dir: dir}
	s.now.Store(time.Now().Truncate(10 * time.Second).UnixNano())
	clock := func() time.Time { return time.Unix(0, s.now.Load()) }
	if s.register, err = source.Open(source.Options{Store: reader.Options{Dir: dir, NoMap: noMap}, Now: clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.register.Close() })
	s.engine = query.New(query.Options{Sources: registered(s.register), Now: clock})
	return s
}

func (s *store) writer(o writer.Options) *writer.Writer {
	s.t.Helper()
	o.Dir, o.NoTicker = s.dir, true
	o.Clock = func() (int64, int64) { now := s.now.Load(); return now, now }
	s.ids++ // in the id's second word: the first is the phase, and 0 has coarse rows at whole steps
	id := s.ids
	o.NewID = func() [16]byte { return [16]byte{8: byte(id), 9: byte(id >> 8), 10: 1} }
	w, err := writer.Open(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { w.Close() })
	return w
}

func (s *store) poll() {
	s.t.Helper()
	if err := s.register.Poll(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *store) ms() int64 { return s.now.Load() / 1e6 }

// What real writers record is what PromQL says, in every kind, from files as they are.
func TestRealSegments(t *testing.T) {
	for _, noMap := range []bool{false, true} {
		t.Run(fmt.Sprintf("pread %v", noMap), func(t *testing.T) { realSegments(t, noMap) })
	}
}

func realSegments(t *testing.T, noMap bool) {
	s := newStore(t, noMap)
	life := func(seconds int) (*writer.Writer, float64) {
		w := s.writer(writer.Options{Job: "fwd", Instance: "h:1", Attributes: map[string]string{"host.name": "h"}})
		rx := w.Counter("rx_packets", writer.Labels("dev", "eth0"))
		open := w.UpDownCounter("open")
		temp := w.Gauge("temp")
		depth := w.Stat("depth")
		lat := w.Histogram("latency")
		total := 0.0
		for i := range seconds {
			for k := range 10 {
				rx.Add(7)
				total += 7
				open.Add(int64(1 - k%2*2))
				depth.Record(float64(i + k))
				lat.Record(float64(k+1) / 1000)
			}
			open.Add(1)
			temp.Set(float64(i) + 0.5)
			s.now.Add(int64(time.Second))
			w.Tick()
		}
		return w, total
	}
	w, first := life(65)
	s.poll()
	now := s.ms()
	me := `instance="h:1", job="fwd"`
	q := func(q, wanted string) {
		t.Helper()
		want(t, q, instant(t, s.engine, q, s.ms()), wanted)
	}
	q("rx_packets_total", `{__name__="rx_packets_total", dev="eth0", `+me+`} 4550`)
	q("increase(rx_packets_total[2m])", `{dev="eth0", `+me+`} 4550`)
	q("open", `{__name__="open", `+me+`} 65`)
	q("temp", `{__name__="temp", `+me+`} 64.5`)
	q("depth", `{__name__="depth", `+me+`} 73`)
	q("depth_min", `{__name__="depth_min", `+me+`} 64`)
	q("depth_max", `{__name__="depth_max", `+me+`} 73`)
	q("depth_count", `{__name__="depth_count", `+me+`} 650`)
	q("max_over_time(depth[30s])", `{`+me+`} 73`)
	q("min_over_time(depth[29s])", `{`+me+`} 36`)
	q("target_info", `{__name__="target_info", host_name="h", `+me+`} 1`)
	q("histogram_count(latency)", `{`+me+`} 600`) // the row of 60 s
	q("histogram_avg(latency)", `{`+me+`} 0.0055`)
	q("histogram_count(increase(latency[2m]))", `{`+me+`} 650`) // which the engine extrapolates to now
	// Nine tenths are at most 9 ms, to 4.4 % at scale 3.
	res := rangeQuery(t, s.engine, "histogram_quantile(0.9, rate(latency[40s]))", now, now, 1000)
	if m, _ := res.Matrix(); len(m) != 1 || m[0].Floats[0].F < 0.0086 || m[0].Floats[0].F > 0.0095 {
		t.Errorf("histogram_quantile: got %v", res)
	}

	// Its end: last values in every tier, then nothing; its next life is the same series.
	w.Close()
	s.poll()
	q("histogram_count(latency)", `{`+me+`} 650`)
	q("open", `{__name__="open", `+me+`} 65`)
	s.now.Add(int64(time.Second))
	s.poll()
	q(`{job="fwd"}`, ``)
	_, second := life(44) // until a row of 10 s
	s.poll()
	q("count(rx_packets_total)", `{} 1`)
	q("rx_packets_total", `{__name__="rx_packets_total", dev="eth0", `+me+`} `+fmt.Sprint(second))
	q("increase(rx_packets_total[3m])", `{dev="eth0", `+me+`} `+fmt.Sprint(first+second))
	q("resets(rx_packets_total[3m])", `{dev="eth0", `+me+`} 1`)
	q("histogram_count(increase(latency[3m]))", `{`+me+`} 1090`)
}

// What a process counts that is born, counts and ends within a millisecond is not lost to increase: PromQL sees a 0 before it, and
// after it a process that has ended. So too where the next one comes at once.
func TestOneShot(t *testing.T) {
	s := newStore(t, true)
	s.now.Add(777_000_123)
	shot := func(n uint64) {
		w := s.writer(writer.Options{Job: "cron", Instance: "h:1"})
		w.Counter("done").Add(n)
		lat := w.Histogram("took")
		for range n {
			lat.Record(0.25)
		}
		s.now.Add(400_000) // of the same millisecond
		w.Close()
		s.poll()
	}
	shot(6)
	me := `{instance="h:1", job="cron"}`
	q := func(q, wanted string) {
		t.Helper()
		want(t, q, instant(t, s.engine, q, s.ms()), wanted)
	}
	q("increase(done_total[1m])", me+" 6")
	q("histogram_count(increase(took[1m]))", me+" 6")
	q("resets(done_total[1m])", me+" 0")
	q("done_total", `{__name__="done_total", instance="h:1", job="cron"} 6`)
	s.now.Add(3e6)
	s.poll()
	res := rangeQuery(t, s.engine, "done_total", s.ms()-4, s.ms(), 1)
	want(t, "each millisecond", render(res, s.ms()), `{__name__="done_total", instance="h:1", job="cron"} -3:6`)
	s.now.Add(10e9)
	s.poll()
	q("increase(done_total[1m])", me+" 9") // two samples a millisecond apart, extrapolated by half of that
	q("done_total", "")
	// Two more, a millisecond from one another: 6, 2 and 2 again, from 0 each time.
	for range 2 {
		shot(2)
		s.now.Add(600_000)
		s.poll()
	}
	q("resets(done_total[1m])", me+" 2")
	q("sum_over_time(done_total[1m])", me+" 10")
	q("last_over_time(done_total[1m])", `{__name__="done_total", instance="h:1", job="cron"} 2`)
	got := instant(t, s.engine, "increase(done_total[1m])", s.ms())
	var n float64
	if _, err := fmt.Sscanf(got, me+" %g", &n); err != nil || n < 10 || n > 10.01 {
		t.Errorf("increase of 6, 2 and 2: want 10, and what the engine extrapolates for a millisecond, got %s", got)
	}
}

// fleet is many real processes of one program after two minutes.
func fleet(b testing.TB, processes int) *store {
	s := newStore(b, true)
	writers := make([]*writer.Writer, processes)
	counters := make([][]*writer.Counter, processes)
	for i := range writers {
		writers[i] = s.writer(writer.Options{Job: "vm", Instance: fmt.Sprint("vm-", i), Histograms: -1, Stats: -1})
		for k := range 100 {
			counters[i] = append(counters[i], writers[i].Counter(fmt.Sprintf("metric_%d_total", k/4), writer.Labels("dev", fmt.Sprint(k%4))))
		}
	}
	for range 121 {
		s.now.Add(int64(time.Second))
		for i, w := range writers {
			for k, c := range counters[i] {
				c.Add(uint64(k))
			}
			w.Tick()
		}
	}
	s.poll()
	return s
}

// cpu is what this process used: on a busy machine it says more than the clock.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkFleet asks 1,000 real segments of 100 series each.
func BenchmarkFleet(b *testing.B) {
	s := fleet(b, 1000)
	for _, q := range []struct {
		query string
		span  time.Duration // 0: instant
		step  time.Duration
	}{
		{`metric_3_total{dev="1"}`, 0, 0},
		{`metric_3_total{instance="vm-77"}`, 0, 0},
		{`sum(rate(metric_3_total{dev="1"}[1m]))`, 0, 0},
		{`sum by (dev) (rate(metric_3_total[1m]))`, 0, 0},
		{`sum(rate(metric_3_total{dev="1"}[10s]))`, time.Minute, time.Second},
		{`metric_3_total{instance="vm-77"}`, 2 * time.Minute, time.Second},
		{`count({__name__=~"metric_.*"})`, 0, 0},
		{`topk(5, metric_24_total)`, 0, 0},
	} {
		name := q.query
		if q.span > 0 {
			name += fmt.Sprintf("/%v by %v", q.span, q.step)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			end := time.Unix(0, s.now.Load())
			before := cpu()
			defer func() { b.ReportMetric((cpu()-before).Seconds()*1e3/float64(b.N), "cpu-ms/op") }()
			for b.Loop() {
				var pq promql.Query
				var err error
				if q.span == 0 {
					pq, err = s.engine.Instant(b.Context(), q.query, end, query.QueryOptions{})
				} else {
					pq, err = s.engine.Range(b.Context(), q.query, end.Add(-q.span), end, q.step, query.QueryOptions{})
				}
				if err != nil {
					b.Fatal(err)
				}
				if res := pq.Exec(b.Context()); res.Err != nil {
					b.Fatal(res.Err)
				}
				pq.Close()
			}
		})
	}
}
