package history_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

// ramp is 30 days of a counter that counts 10 a second and of a gauge that is the second, as a daemon keeps it: 5 m
// rows of all of it but the newest hours, 10 s rows of a day but the newest minutes, 1 s rows of three hours but the newest minute, and
// the writer's rings.
func ramp(t *testing.T, s *stage) *process {
	day := int64(86_400_000)
	now := t0 + 30*day
	s.rings = []reader.Table{querytest.Scalars()}
	p := s.born("job", "fwd", "instance", "h:1")
	x := p.register(t0, reader.Series{Definition: &reader.Definition{Name: "x", Kind: reader.Counter, Number: reader.F64}})
	g := p.register(t0, reader.Series{Definition: &reader.Definition{Name: "g", Kind: reader.Gauge, Number: reader.F64}})
	series := []*reader.Series{{Definition: &reader.Definition{Name: "x", Kind: reader.Counter, Number: reader.F64}}, {Definition: &reader.Definition{Name: "g", Kind: reader.Gauge, Number: reader.F64}}}
	write := func(tier int, from, to int64) {
		step := steps[tier].Milliseconds()
		for at := from; at < to; at += 50 * step {
			r := archive.Rows{Source: p.source(), Starts: []int64{t0, t0}}
			fields := 2
			if tier > 0 {
				fields = 6
			}
			r.Cells = make([][]uint64, fields)
			put := func(f int, v float64) { r.Cells[f] = append(r.Cells[f], math.Float64bits(v)) }
			for ms := at; ms < min(at+50*step, to); ms += step {
				sec := float64(ms-t0) / 1000
				r.Times = append(r.Times, ms)
				r.Base = uint64((ms - t0) / 1000)
				put(0, 10*sec)
				put(1, sec)
				if tier == 0 {
					r.Numbers = append(r.Numbers, r.Base)
					continue
				}
				n := float64(step / 1000)
				r.Numbers, r.Coverage = append(r.Numbers, uint64(ms/step)), append(r.Coverage, uint64(n))
				put(2, sec-n+1)
				put(3, sec)
				put(4, n*(sec-(n-1)/2))
				r.Cells[5] = append(r.Cells[5], uint64(n))
			}
			s.append(tier, &archive.Block{Schema: p.schema(0, series), Step: steps[tier], Folded: tier > 0, Sources: []archive.Rows{r}})
		}
	}
	write(2, t0+300_000, now-3*3_600_000+1)
	write(1, now-day, now-6*60_000+1)
	write(0, now-3*3_600_000, now-70_000+1)
	begin := now - 900_000
	p.Passed(0, 0, uint64((begin-t0)/1000), begin)
	p.Passed(0, 1, uint64((begin-t0)/10_000), begin)
	for ms := begin + 1000; ms <= now; ms += 1000 {
		sec := float64(ms-t0) / 1000
		x.set(func(v *reader.Value) { v.Float = 10 * sec })
		g.set(func(v *reader.Value) { v.Float, v.Unset = sec, false })
		p.tick(ms, false)
	}
	p.heads[0] = uint64((now - t0) / 1000)
	s.now = now
	return p
}

// Grafana's zoom from minutes to a month: no blank, no step, no double, whatever tiers answer.
func TestZoom(t *testing.T) {
	s := newStage(t, 0)
	ramp(t, s)
	for _, span := range []time.Duration{5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 4 * time.Hour, 12 * time.Hour, 36 * time.Hour, 7 * 24 * time.Hour, 29 * 24 * time.Hour} {
		for _, back := range []time.Duration{0, 100 * time.Second, 20 * time.Minute} {
			end := s.now - back.Milliseconds()
			start := max(end-span.Milliseconds(), t0+3_600_000)
			step := max(span/500, time.Second).Milliseconds()
			rng := max(4*step, 4000)
			points := int((end-start)/step) + 1
			what := fmt.Sprintf("%v, %v ago", span, back)
			for _, q := range []string{fmt.Sprintf("rate(x_total[%dms])", rng), fmt.Sprintf("sum(increase(x_total[%dms])) * 1000 / %d", rng, rng)} {
				m, err := ask(t, s.engine, q, start, end, step).Matrix()
				if err != nil || len(m) != 1 || len(m[0].Floats) != points {
					t.Fatalf("%s: %s: want one series of %d points, got %d: %.300v", what, q, points, len(m[0].Floats), m)
				}
				for _, p := range m[0].Floats {
					// Where the window begins and ends with rows the engine extrapolates, and that is exact as the rate is constant.
					if math.Abs(p.F-10) > 1e-6 {
						t.Fatalf("%s: %s: at %d s before the end: want 10, got %g", what, q, (end-p.T)/1000, p.F)
					}
				}
			}
			m, err := ask(t, s.engine, "g", start, end, step).Matrix()
			if err != nil || len(m) != 1 || len(m[0].Floats) != points {
				t.Fatalf("%s: g: want one series of %d points, got %.300v", what, points, m)
			}
			for i, p := range m[0].Floats {
				sec := float64(p.T-t0) / 1000
				if i > 0 && p.F < m[0].Floats[i-1].F || p.F > sec || p.F < sec-310 || span <= 2*time.Hour && back == 0 && p.F < sec-10 {
					t.Fatalf("%s: g at %g s: got %g", what, sec, p.F)
				}
			}
		}
	}
	_, infos := ask(t, s.engine, "rate(x_total[1h])", t0+86_400_000, s.now, 3_600_000).Warnings.AsStrings("", 0, 0)
	if joined := strings.Join(infos, "\n"); !strings.Contains(joined, "5m") || !strings.Contains(joined, "10s") {
		t.Errorf("infos: want one that names 5m and 10s, got %q", infos)
	}
	// A gauge's extremes come from folded rows, not from samples of them.
	at := s.now - 5*3_600_000
	if got := number(t, s.engine, "min_over_time(g[1h])", at); got != float64(at-t0)/1000-3600+1 && got != float64(at-t0)/1000-3600-8 {
		t.Errorf("min_over_time: want the first second of the hour, or of the row that it is in, got %g of %g", got, float64(at-t0)/1000)
	}
	if got := number(t, s.engine, "max_over_time(g[1h])", at); got != float64(at-t0)/1000 {
		t.Errorf("max_over_time: got %g, want %g", got, float64(at-t0)/1000)
	}
}

// What a minute's dashboard asks is answered by the rings.
func TestAlone(t *testing.T) {
	s := newStage(t, 0)
	s.rings = []reader.Table{scalars, querytest.Histograms()}
	rnd := rand.New(rand.NewPCG(1, 1))
	a := s.app(rnd, "job", "fwd", "instance", "h:1")
	for i := int64(1); i <= 60; i++ {
		s.now = t0 + i*1000
		a.work(s.now, false)
		s.flush(a.process, 0, int(i)-5, 10)
	}
	for _, q := range []string{"x_total", "rate(x_total[10s])", "lat", "{job=~\".+\"}"} {
		ask(t, s.engine, q, s.now, s.now, 0)
	}
	ask(t, s.engine, "g", s.now-10_000, s.now, 1000)
	if s.reads.selects.Load() != 0 || s.reads.reads.Load() != 0 {
		t.Errorf("want the archive not asked, got %d selects, %d reads", s.reads.selects.Load(), s.reads.reads.Load())
	}
	ask(t, s.engine, "rate(x_total[40s])", s.now, s.now, 0)
	if s.reads.selects.Load() == 0 {
		t.Error("older than the ring: want the archive asked")
	}
	// Somebody who left may have had rows in that time.
	s.reads.selects.Store(0)
	b := s.app(rnd, "job", "fwd", "instance", "h:2")
	s.now += 1000
	b.work(s.now, true)
	a.work(s.now, false)
	s.flush(b.process, 0, 1<<30, 10)
	s.unlink(b.process)
	s.now += 1000
	a.work(s.now, false)
	if got := number(t, s.engine, "count(last_over_time(u_total[5s]))", s.now); got != 2 || s.reads.selects.Load() != 1 {
		t.Errorf("want 2 from the archive, got %g, %d selects", got, s.reads.selects.Load())
	}
	if got := number(t, s.engine, "count(u_total)", s.now); got != 1 || s.reads.selects.Load() != 1 {
		t.Errorf("now: want 1 and the archive not asked again, got %g, %d selects", got, s.reads.selects.Load())
	}
}

// A thousand machines that lived 45 seconds are all counted, at each tier, long after.
func TestShortLives(t *testing.T) {
	rnd := rand.New(rand.NewPCG(45, 1))
	s := newStage(t, 0)
	s.rings = []reader.Table{querytest.Scalars()}
	var total, observations float64
	const vms = 1000
	for i := range vms {
		born := t0 + int64(rnd.IntN(1_500_000))
		s.now = born
		p := s.born("job", "vm", "instance", fmt.Sprint("vm-", i))
		x := p.register(born, reader.Series{Definition: &reader.Definition{Name: "x", Kind: reader.Counter, Number: reader.U64}})
		st := p.register(born, reader.Series{Definition: &reader.Definition{Name: "d", Kind: reader.Stat, Number: reader.F64, NonNegative: true}})
		n := 0
		for k := int64(1); k <= 45; k++ {
			add := rnd.IntN(20)
			n += add
			x.set(func(v *reader.Value) { v.Float, v.Int = float64(n), int64(n) })
			st.set(func(v *reader.Value) {
				v.Count++
				v.Sum += float64(add)
				v.Last, v.Min, v.Max, v.Unset = 1, 1, 1, false
			})
			p.tick(born+k*1000, k == 45)
		}
		total += float64(n)
		observations += 45
		s.flush(p, 0, 1<<30, 60)
		s.fold(p, 0, 1, 1<<30)
		s.fold(p, 0, 2, 1<<30)
		s.unlink(p)
	}
	for evicted := range 3 {
		s.now = t0 + 3_600_000
		if evicted > 0 {
			s.archive.(*archivetest.Memory).Evict(evicted-1, vms)
		}
		for _, q := range []struct {
			q    string
			want float64
		}{
			{"sum(increase(x_total[2h] anchored))", total},
			{"sum(increase(d_count[2h] anchored))", observations},
			{"sum(increase(d_sum_total[2h] anchored) or increase(d_sum[2h] anchored))", total},
			{"sum(last_over_time(x_total[2h]))", total},
			{"count(last_over_time(x_total[2h]))", vms},
			{"count(x_total)", math.NaN()},
		} {
			if got := number(t, s.engine, q.q, s.now); got != q.want && !(math.IsNaN(got) && math.IsNaN(q.want)) {
				t.Errorf("%d tiers evicted: %s: want %g, got %g", evicted, q.q, q.want, got)
			}
		}
		// rate over time adds up to what was counted: each window's increase, side by side.
		m, err := ask(t, s.engine, "sum(increase(x_total[10m] anchored))", t0+600_000, t0+2_400_000, 600_000).Matrix()
		sum := 0.0
		if err != nil || len(m) != 1 {
			t.Fatal(m, err)
		}
		for _, p := range m[0].Floats {
			sum += p.F
		}
		if sum != total {
			t.Errorf("%d tiers evicted: windows of 10 m: want %g in all, got %g", evicted, total, sum)
		}
	}
}
