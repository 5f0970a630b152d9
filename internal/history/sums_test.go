package history_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/archive/archivetest"
)

// tiered is an app of half an hour of which the archive has all rows of the newest minutes, rows of 10 s of some more, and rows of 5 m of all.
// Nothing of it is in a ring, and each tier begins amid a row of the next coarser one.
func tiered(t *testing.T) (*stage, *app) {
	s := newStage(t, 0)
	a := s.app(rand.New(rand.NewPCG(7, 1)), "job", "fwd", "instance", "h:1")
	for i := int64(1); i <= 1800; i++ {
		s.now = t0 + i*1000
		a.work(s.now, i == 1800)
	}
	s.flush(a.process, 0, 1<<30, 9)
	for tier := 1; tier < 3; tier++ {
		for k := a.folded[fold{0, tier}]; k < 1800; k = a.folded[fold{0, tier}] {
			s.fold(a.process, 0, tier, 5-2*tier)
		}
	}
	s.archive.(*archivetest.Memory).Evict(0, (1800-423)/9)
	s.archive.(*archivetest.Memory).Evict(1, (180-87)/3)
	s.flush(a.process, 1, 1<<30, 9)
	s.unlink(a.process)
	return s, a
}

// Sums, counts and means over rows of any tier are those of what was recorded: where a window begins and ends with coarse rows exactly,
// wherever it crosses from tier to tier, and else to within a row at either end.
func TestSums(t *testing.T) {
	s, _ := tiered(t)
	end := s.now
	near := func(what string, got, want, share float64) {
		t.Helper()
		if !(math.Abs(got-want) <= share*math.Abs(want)) {
			t.Errorf("%s: got %g, want %g to %g", what, got, want, share)
		}
	}
	for _, at := range []int64{end, end - 100_000, end - 300_000, end - 600_000} {
		for back := int64(300_000); at-back >= t0; back += 300_000 {
			if (at-back-t0)%300_000 != 0 { // at the end it is of fine rows
				back += 300_000 - (at-back-t0)%300_000 - 300_000
				continue
			}
			for _, x := range []string{"g", "x_total", "open", "depth", "depth_count", "target_info"} {
				q := fmt.Sprintf("count_over_time(%s[%dms])", x, back)
				near(fmt.Sprintf("%s at %d", q, at-end), number(t, s.engine, q, at), number(t, s.truth, q, at), 0)
			}
			for _, fn := range []string{"sum", "avg"} {
				q := fmt.Sprintf("%s_over_time(g[%dms])", fn, back)
				near(fmt.Sprintf("%s at %d", q, at-end), number(t, s.engine, q, at), number(t, s.truth, q, at), 1e-12)
			}
			// A stat's mean is of what was recorded, which is here once a row.
			q := fmt.Sprintf("avg_over_time(depth[%dms])", back)
			near(fmt.Sprintf("%s at %d", q, at-end), number(t, s.engine, q, at), number(t, s.truth, q, at), 0.02)
			// What a counter was, on average, is seen in samples.
			q = fmt.Sprintf("avg_over_time(x_total[%dms])", back)
			if back >= 900_000 {
				near(fmt.Sprintf("%s at %d", q, at-end), number(t, s.engine, q, at), number(t, s.truth, q, at), 0.4)
			}
		}
	}
	for _, q := range []string{"count_over_time(g[10m])", "sum_over_time(g[10m])", "avg_over_time(g[10m])", "count_over_time(x_total[10m])"} {
		got, err := ask(t, s.engine, q, t0+900_000, end, 7000).Matrix()
		want, _ := ask(t, s.truth, q, t0+900_000, end, 7000).Matrix()
		if err != nil || len(got) != 1 || len(got[0].Floats) != len(want[0].Floats) {
			t.Fatalf("%s: want one series of %d points, got %.200v, %v", q, len(want[0].Floats), got, err)
		}
		for i, p := range got[0].Floats {
			share := 0.55 // 10 m are two rows of 5 m
			if p.T > end-423_000+600_000-1000 {
				share = 1e-12 // the finest rows alone
			}
			near(fmt.Sprintf("%s at %d", q, p.T-end), p.F, want[0].Floats[i].F, share)
		}
	}
}

// Rewriting goes by what calls what: wherever the call stands, and whatever its selector says beside.
func TestMeansWithin(t *testing.T) {
	s, _ := tiered(t)
	at := s.now - 600_000
	for _, q := range []string{
		"avg_over_time(g[10m])", "(avg_over_time(g[10m]))", "-avg_over_time(g[10m])", "sum(avg_over_time(g[10m]))", "abs(avg_over_time(g[10m]))",
		"2 * avg_over_time(g[10m]) ^ 2", "avg_over_time(g[10m]) / avg_over_time(g[10m] offset 5m)", "topk(scalar(avg_over_time(target_info[10m])), avg_over_time(g[10m]))",
		"max_over_time(avg_over_time(g[10m])[1s:1s])", "avg_over_time(g{instance=\"h:1\"}[5m] offset 10m)", fmt.Sprintf("avg_over_time(g[10m] @ %d)", at/1000), "avg_over_time(g[10m] @ end())",
		"count_over_time(g[10m]) - count_over_time(g[5m])", "avg_over_time({__name__=\"g\"}[10m]) > bool count_over_time(g[5m])", "avg_over_time(g[10m]) and on (job) count_over_time(g[10m])",
		"histogram_count(sum_over_time(lat[10m]))", "count_over_time(lat[10m])", "count_over_time(nosuch[10m])",
	} {
		got, err := ask(t, s.engine, q, at, at, 0).Vector()
		want, _ := ask(t, s.truth, q, at, at, 0).Vector()
		if strings.Contains(q, "lat") { // histograms are not folded here, and all there
			got, err = ask(t, s.engine, q, s.now, s.now, 0).Vector()
			want, _ = ask(t, s.truth, q, s.now, s.now, 0).Vector()
		}
		if err != nil || len(got) != len(want) || len(want) > 1 {
			t.Errorf("%s: got %v, %v, want %v", q, got, err, want)
		} else if len(want) == 1 && (math.Abs(got[0].F-want[0].F) > 1e-9*math.Abs(want[0].F) || got[0].Metric.String() != want[0].Metric.String()) {
			t.Errorf("%s: got %v, want %v", q, got, want)
		}
	}
	// What sees each value says that it does not.
	for q, note := range map[string]string{
		"quantile_over_time(0.5, g[10m])": "quantile_over_time sees one value of each 10s", "stddev_over_time(g[10m])": "stddev_over_time sees", "changes(g[10m])": "changes sees",
		"deriv(g[10m])": "deriv sees", "min_over_time(open[10m])": "min_over_time sees", "min_over_time(g[10m])": "", "max_over_time(depth[10m])": "",
		"present_over_time(g[10m])": "", "sum_over_time(g[10m])": "", "rate(x_total[25m])": "", "resets(x_total[10m])": "resets sees",
	} {
		_, infos := ask(t, s.engine, q, at, at, 0).Warnings.AsStrings("", 0, 0)
		joined := strings.Join(infos, "\n")
		if strings.Contains(joined, " sees ") != (note != "") || !strings.Contains(joined, note) || !strings.Contains(joined, "rows of step") {
			t.Errorf("%s: want %q and the step, got %q", q, note, joined)
		}
	}
}
