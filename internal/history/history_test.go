package history_test

import (
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql"

	"github.com/shmts/shmts/reader"
)

// text is an answer, series sorted.
func text(res *promql.Result) string {
	var lines []string
	switch v := res.Value.(type) {
	case promql.Matrix:
		for _, s := range v {
			lines = append(lines, fmt.Sprint(s))
		}
	case promql.Vector:
		for _, s := range v {
			lines = append(lines, fmt.Sprint(s))
		}
	default:
		lines = append(lines, fmt.Sprint(v))
	}
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}

// base are queries that the finest tier answers.
var base = []string{
	"x_total", "u_total", "open", "g", "depth", "depth_min", "depth_sum", "target_info", `{job="fwd"}`, `x_total{dev="a",instance="h:1"}`,
	"rate(x_total[20s])", "increase(u_total[30s])", "sum_over_time(g[1m])", "count_over_time(x_total[40s])", "min_over_time(g[7s])", "max_over_time(depth[9s])",
	"delta(g[20s])", "changes(g[2m])", "sum(x_total)", "count by (__name__) ({job=~\"f.*\"})", "irate(x_total[1m])", "resets(x_total[3m])", "last_over_time(open[3m])",
	"histogram_count(lat)", "histogram_sum(lat)", "histogram_quantile(0.9, increase(lat[40s]))", "x_total offset 30s", "x_total[2m:7s]",
}

func compareAll(t *testing.T, s *stage, what string, spans [][3]int64) {
	t.Helper()
	for _, q := range base {
		for _, sp := range spans {
			if strings.HasSuffix(q, "s]") && sp[2] != 0 {
				continue // a range vector has no range
			}
			want := text(ask(t, s.truth, q, sp[0], sp[1], sp[2]))
			if got := text(ask(t, s.engine, q, sp[0], sp[1], sp[2])); got != want {
				t.Errorf("%s: %s from %d to %d by %d ms:\n%s", what, q, sp[0]-t0, sp[1]-t0, sp[2], differ(got, want))
				return
			}
		}
	}
}

// The same rows are the same answer, whether they are in a ring, in the archive, in both, or partly here and partly there.
func TestSeam(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			s := newStage(t, 0)
			a, b := s.app(rnd, "job", "fwd", "instance", "h:1"), s.app(rnd, "job", "fwd", "instance", "h:2")
			seconds := 60 + rnd.IntN(200)
			for i := 1; i <= seconds; i++ {
				s.now = t0 + int64(i)*1000 + int64(rnd.IntN(300))
				if i%37 < 34 { // now and then they stall
					a.work(s.now, false)
				}
				b.work(s.now, false)
				for _, p := range []*process{a.process, b.process} {
					for table, rows := range []int{10, 2} { // what the ring loses otherwise
						if int(p.heads[table])-p.archived[table] >= rows+rnd.IntN(rows) {
							s.flush(p, table, p.archived[table]+1+rnd.IntN(rows*2), 1+rnd.IntN(12))
						}
					}
				}
			}
			end := s.now
			spans := [][3]int64{
				{end, end, 0}, {t0 + 30_000, t0 + 30_000, 0}, {end - 20_000, end - 20_000, 0}, {end - 33_000, end - 33_000, 0},
				{t0, end, 1000}, {end - 50_000, end, 1500}, {t0 - 30_000, end + 30_000, 777},
			}
			compareAll(t, s, "living", spans)
			if s.reads.selects.Load() == 0 {
				t.Error("want the archive asked")
			}

			// One ends, is drained, and its segment is unlinked.
			a.work(s.now+500, true)
			s.now += 800
			compareAll(t, s, "dead", spans)
			for table := range 2 {
				s.flush(a.process, table, 1<<30, 9)
			}
			compareAll(t, s, "drained", spans)
			s.unlink(a.process)
			compareAll(t, s, "unlinked", spans)
			s.now += 20_000
			compareAll(t, s, "and later", append(spans, [3]int64{s.now, s.now, 0}, [3]int64{s.now - 60_000, s.now, 1000}))
		})
	}
}

// What a range query says at an instant is what an instant query says there, of whatever comes and goes.
func TestRangeIsInstants(t *testing.T) {
	for seed := range uint64(3) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		s := newStage(t, 0)
		apps := []*app{s.app(rnd, "job", "fwd", "instance", "h:1"), s.app(rnd, "job", "fwd", "instance", "h:2")}
		for i := 1; i <= 400; i++ {
			s.now = t0 + int64(i)*1000 + int64(rnd.IntN(300))
			switch i {
			case 150:
				apps[0].g.set(func(v *reader.Value) { v.Unset = true })
				apps[0].u.retire()
			case 200:
				apps[1].work(s.now, true)
				for table := range 2 {
					s.flush(apps[1].process, table, 1<<30, 9)
				}
				s.unlink(apps[1].process)
			case 205: // anew, under the same labels
				apps[1] = s.app(rnd, "job", "fwd", "instance", "h:2")
			}
			for k, a := range apps {
				if i%90 < 90-10*(k+1) && (k == 0 || i < 200 || i > 205) { // they stall
					a.work(s.now, false)
				}
				for table, rows := range []int{10, 2} {
					if int(a.heads[table])-a.archived[table] >= rows {
						s.flush(a.process, table, a.archived[table]+rows, 7)
					}
				}
			}
		}
		for _, q := range []string{"x_total", "u_total", "g", "depth_min", "lat", "count(g)", "timestamp(open)", "g offset 13s", `histogram_quantile(0.9, lat)`, "target_info", "x_total + 1", "absent(u_total)"} {
			for _, span := range [][3]int64{{t0 + 3000, s.now, 7000}, {t0 + 140_000, t0 + 300_000, 2500}, {t0, s.now + 60_000, 15_000}, {t0 + 120_500, s.now, 19_000}} {
				m, err := ask(t, s.engine, q, span[0], span[1], span[2]).Matrix()
				if err != nil {
					t.Fatal(err)
				}
				points := 0
				for _, series := range m {
					points += len(series.Floats) + len(series.Histograms)
				}
				for at := span[0]; at <= span[1]; at += span[2] {
					v, err := ask(t, s.engine, q, at, at, 0).Vector()
					if err != nil {
						t.Fatal(err)
					}
					points -= len(v)
					for _, want := range v {
						found := false
						for _, series := range m {
							if series.Metric.Hash() != want.Metric.Hash() {
								continue
							}
							for _, p := range series.Floats {
								found = found || p.T == at && want.H == nil && p.F == want.F
							}
							for _, p := range series.Histograms {
								found = found || p.T == at && want.H != nil && p.H.Copy().Compact(0).Equals(want.H.Copy().Compact(0))
							}
						}
						if !found {
							t.Fatalf("seed %d: %s by %d ms: at %d ms: want %v", seed, q, span[2], at-t0, want)
						}
					}
				}
				if points != 0 {
					t.Fatalf("seed %d: %s from %d by %d ms: want as many points as the instants have, got %d more", seed, q, span[0]-t0, span[2], points)
				}
			}
		}
	}
}
