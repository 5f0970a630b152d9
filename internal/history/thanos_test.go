package history_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

// What went wrong where Thanos downsampled, by the numbers of its issues, over 30 days of a counter that counts 10 a second and a
// gauge that is the second: rows of 5 m, of 10 s for a day, of 1 s for three hours. Issue 7908, raw data that expired
// before it was downsampled, is the archiver's: TestReuse evicts what was not folded yet.
func TestThanos(t *testing.T) {
	s := newStage(t, 0)
	ramp(t, s)
	old := t0 + 10*86_400_000 // 5 m rows alone
	seconds := func(at int64) float64 { return float64(at-t0) / 1000 }

	// 922: sum() was inflated by the samples of a window.
	t.Run("922", func(t *testing.T) {
		for _, at := range []int64{old, s.now - 20*3_600_000, s.now - 3_600_000, s.now} {
			if got := number(t, s.engine, "sum(x_total)", at); got != 10*seconds(at) {
				t.Errorf("922: sum(x_total) at %g s: got %g", seconds(at), got)
			}
		}
	})

	// 1115, 2737: rate() of a range shorter than the rows are apart was empty.
	t.Run("1115, 2737", func(t *testing.T) {
		for _, rng := range []string{"2s", "1m", "4m59s", "9m"} {
			m, err := ask(t, s.engine, "rate(x_total["+rng+"])", old, old+3_600_000, 17_000).Matrix()
			if err != nil || len(m) != 1 || len(m[0].Floats) != 3600/17+1 {
				t.Fatalf("1115: rate of %s: want %d points, got %.200v, %v", rng, 3600/17+1, m, err)
			}
			for _, p := range m[0].Floats {
				if math.Abs(p.F-10) > 1e-6 {
					t.Errorf("1115: rate of %s at %g s: got %g", rng, seconds(p.T), p.F)
				}
			}
		}
	})

	// 1433: gaps where the resolution was no less than the lookback.
	t.Run("1433, 3277", func(t *testing.T) {
		m, err := ask(t, s.engine, "g", old, old+7_200_000, 30_000).Matrix()
		if err != nil || len(m) != 1 || len(m[0].Floats) != 241 {
			t.Errorf("1433: want 241 points, got %.200v, %v", m, err)
		}
	})

	// 1170: downsampled data answered where raw data was.
	t.Run("1170", func(t *testing.T) {
		for _, q := range []string{"quantile_over_time(0.5, g[1h])", "sum_over_time(g[1h])", "avg_over_time(g[1h])", "count_over_time(g[1h])", "stddev_over_time(g[1h])", "g"} {
			at := s.now - 3_600_000
			sec := seconds(at)
			wanted := map[string]float64{"quan": sec - 1799.5, "sum_": 3600 * (sec - 1799.5), "avg_": sec - 1799.5, "coun": 3600, "stdd": math.Sqrt((3600*3600 - 1) / 12.0), "g": sec}[q[:min(4, len(q))]]
			res := ask(t, s.engine, q, at, at, 0)
			v, err := res.Vector()
			if err != nil || len(v) != 1 || math.Abs(v[0].F-wanted) > 1e-9*wanted {
				t.Errorf("1170: %s: want %g, got %v, %v", q, wanted, v, err)
			}
			if _, infos := res.Warnings.AsStrings("", 0, 0); len(infos) > 0 {
				t.Errorf("1170: %s: want no other tier to answer, got %q", q, infos)
			}
		}
	})

	// 2706: quantiles were those of averages. They are of values that were, fewer than there were, and say so.
	t.Run("2706", func(t *testing.T) {
		res := ask(t, s.engine, "quantile_over_time(1, g[1h])", old, old, 0)
		v, err := res.Vector()
		if err != nil || len(v) != 1 || v[0].F != seconds(old) {
			t.Errorf("2706: want %g, got %v, %v", seconds(old), v, err)
		}
		if _, infos := res.Warnings.AsStrings("", 0, 0); !strings.Contains(strings.Join(infos, ""), "quantile_over_time sees one value of each 5m") {
			t.Errorf("2706: got %q", infos)
		}
	})

	// count_over_time counted windows, of which there are twelve an hour.
	t.Run("count_over_time", func(t *testing.T) {
		if got := number(t, s.engine, "count_over_time(g[1h])", old); got != 3600 {
			t.Errorf("count_over_time: want 3600 rows, got %g", got)
		}
	})
}

// 3644: resets() was of windows. And staleness markers were dropped: what had ended went on as long as the lookback.
func TestThanosLives(t *testing.T) {
	rnd := rand.New(rand.NewPCG(36, 44))
	s := newStage(t, 0)
	s.rings = []reader.Table{querytest.Scalars()}
	const lives, length, rest = 6, 1200, 600 // s
	for range lives {
		a := s.app(rnd, "job", "fwd", "instance", "h:1")
		for i := 1; i <= length; i++ {
			s.now += 1000
			a.work(s.now, i == length)
		}
		s.flush(a.process, 0, 1<<30, 60)
		s.fold(a.process, 0, 1, 1<<30)
		s.fold(a.process, 0, 2, 1<<30)
		s.unlink(a.process)
		s.now += rest * 1000
	}
	end := s.now
	for evicted := range 3 {
		if evicted > 0 {
			s.archive.(*archivetest.Memory).Evict(evicted-1, map[int]int{1: lives * length / 60, 2: lives}[evicted])
		}
		what := fmt.Sprintf("%d tiers evicted", evicted)
		if got := number(t, s.engine, "resets(u_total[4h])", end); got != lives-1 && got != lives {
			t.Errorf("%s: resets: want %d, got %g", what, lives-1, got)
		}
		if got, want := number(t, s.engine, "resets(u_total[4h])", end), number(t, s.truth, "resets(u_total[4h])", end); got != want {
			t.Errorf("%s: resets: want %g, got %g", what, want, got)
		}
		m, err := ask(t, s.engine, "count(u_total)", t0+400_000, end, 10_000).Matrix()
		if err != nil || len(m) != 1 {
			t.Fatalf("%s: %v, %v", what, m, err)
		}
		for _, p := range m[0].Floats {
			if into := (p.T - t0) % ((length + rest) * 1000); into > length*1000+1 {
				t.Errorf("%s: %d s after the process ended it is still there", what, into/1000-length)
			}
		}
		if want := lives*(length/10) - 41 - (lives-1)*30; len(m[0].Floats) < want-lives*5 {
			t.Errorf("%s: want about %d points while it lives, got %d", what, want, len(m[0].Floats))
		}
	}
}
