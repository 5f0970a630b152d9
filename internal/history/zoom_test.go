package history_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

// month is thirty days of processes, as a daemon keeps them: rows of 5 m of all of it but the newest hours, of 10 s of a day but the newest
// minutes, of 1 s of three hours but the newest minute, and the rings of the one that lives. Each second x counts 10, g is the
// second, d records 4, 5 and 6, and lat is the same eight observations.
type month struct {
	*stage
	living *process
}

// past is when a process was there, in s since the month began.
type past struct {
	instance string
	from, to int64    // to 0: it lives
	gap      [2]int64 // no rows at all
	retired  int64    // x and g are no more; 0: they are
}

const (
	monthDays = 30
	minutely  = 60
	hourly    = 3600
	daily     = 86_400
	monthEnd  = int64(monthDays * daily)
)

var monthBuckets = reader.BucketRange{Scale: 0, Min: -4, Count: 7}

// perSecond are lat's counts of a second: zero, buckets, above.
var perSecond = []uint64{1, 0, 2, 0, 3, 1, 0, 1, 0}

func (p *past) there(sec int64) bool {
	return sec > p.from && (p.to == 0 || sec <= p.to) && (sec <= p.gap[0] || sec > p.gap[1])
}

func newMonth(t *testing.T, lives ...past) *month {
	m := &month{stage: newStage(t, 0)}
	m.rings = []reader.Table{querytest.Scalars(), {Name: "histograms", Tiers: []reader.Tier{{Step: 10 * time.Second, Rows: 30}}}}
	for i := range lives {
		m.now = t0 + lives[i].from*1000
		p := m.born("job", "fwd", "instance", lives[i].instance)
		m.store = m.store[:len(m.store)-1] // its segment has left, but for the living one's
		if lives[i].to == 0 && lives[i].gap[1] == 0 && lives[i].retired == 0 {
			m.store = append(m.store, p)
			m.living = p
		}
		m.archived(p, &lives[i])
	}
	m.publish()
	m.now = t0 + monthEnd*1000
	m.left = m.now - 200_000
	m.tickNow()
	return m
}

var monthSeries = [][]*reader.Series{{
	{Definition: &reader.Definition{Name: "x", Kind: reader.Counter, Number: reader.F64}},
	{Definition: &reader.Definition{Name: "g", Kind: reader.Gauge, Number: reader.F64}},
	{Definition: &reader.Definition{Name: "d", Kind: reader.Stat, Number: reader.F64, NonNegative: true}},
}, {
	{Definition: &reader.Definition{Name: "lat", Kind: reader.Histogram, Number: reader.F64, Table: 1, Buckets: monthBuckets}},
}}

// row is when in a second a process ticks.
const rowMS = 370

// archived writes what the archive has of a life.
func (m *month) archived(p *process, life *past) {
	end := monthEnd
	if life.to != 0 {
		end = life.to
	}
	for table := range 2 {
		for tier, span := range [][2]int64{{monthEnd - 3*hourly, monthEnd - 70}, {monthEnd - daily, monthEnd - 6*minutely}, {0, monthEnd - 3*hourly}} {
			if table == 1 && tier == 0 {
				continue
			}
			if table == 1 && tier == 1 {
				span[1] = monthEnd - 70
			}
			step := steps[tier].Milliseconds() / 1000
			number := func(sec int64) uint64 { // of the row of the finest tier
				if table == 1 {
					return uint64(sec/10) + 1
				}
				return uint64(sec)
			}
			from, to := max(span[0], life.from), min(span[1], end)
			folded := tier > table // histograms' home is the tier of 10 s
			var r archive.Rows
			begin := func() {
				r = archive.Rows{Source: p.source(), Starts: make([]int64, len(monthSeries[table]))}
				for i := range r.Starts {
					r.Starts[i] = t0 + life.from*1000
				}
			}
			write := func(final bool) {
				if r.Final = final; len(r.Numbers) > 0 {
					m.append(tier, &archive.Block{Schema: p.schema(table, monthSeries[table]), Step: steps[tier], Folded: folded, Sources: []archive.Rows{r}})
				}
				begin()
			}
			begin()
			for w := from / step; w*step < to; w++ { // seconds w*step+1 to (w+1)*step, but that a row is a little later than its second
				var sec, n, sum, least int64
				for s := w * step; s < (w+1)*step && s <= to; s++ {
					if life.there(s) {
						if n == 0 {
							least = s
						}
						sec, n, sum = s, n+1, sum+s
					}
				}
				if n == 0 {
					continue
				}
				ms := t0 + sec*1000 + rowMS
				if r.Times = append(r.Times, ms); folded {
					r.Numbers, r.Coverage = append(r.Numbers, uint64((ms+step*1000-1)/(step*1000))), append(r.Coverage, uint64(n)/uint64(1+9*table))
				} else {
					r.Numbers = append(r.Numbers, number(sec))
				}
				r.Base = number(sec)
				f := 0
				put := func(ok bool, words ...uint64) {
					if f == len(r.Cells) {
						r.Cells, r.Present = append(r.Cells, nil), append(r.Present, nil)
					}
					r.Cells[f], r.Present[f] = append(r.Cells[f], words...), append(r.Present[f], ok)
					f++
				}
				float := func(v float64) uint64 { return math.Float64bits(v) }
				if table == 1 {
					words := []uint64{float(float64(sec))}
					for _, c := range perSecond {
						words = append(words, c*uint64(sec))
					}
					put(true, words...)
				} else {
					has := life.retired == 0 || sec <= life.retired
					put(has, float(10*float64(sec)))
					if put(has, float(float64(sec))); folded {
						put(has, float(float64(least)))
						put(has, float(float64(sec)))
						put(has, float(float64(sum)))
						put(has, uint64(n))
					}
					put(true, uint64(3*sec))
					put(true, float(15*float64(sec)))
					for _, v := range []float64{5, 4, 6} {
						put(true, float(v))
					}
				}
				if len(r.Numbers) == 60 {
					write(life.to != 0 && (w+1)*step > to && to == end)
				}
			}
			write(life.to != 0 && to == end)
		}
	}
}

// tickNow fills the rings of the one that lives.
func (m *month) tickNow() {
	p := m.living
	const back = 600
	at := t0 + (monthEnd-back)*1000
	var hs []handle
	for _, list := range monthSeries {
		for _, sr := range list {
			hs = append(hs, p.register(t0, *sr))
		}
	}
	p.Passed(0, 0, uint64(monthEnd-back), at)
	p.Passed(0, 1, uint64(monthEnd-back)/10, at)
	p.Passed(1, 0, uint64(monthEnd-back)/10, at)
	p.last = []int64{at, at}
	for sec := monthEnd - back + 1; sec < monthEnd; sec++ {
		f := float64(sec)
		hs[0].set(func(v *reader.Value) { v.Float = 10 * f })
		hs[1].set(func(v *reader.Value) { v.Float, v.Unset = f, false })
		hs[2].set(func(v *reader.Value) {
			v.Last, v.Min, v.Max, v.Sum, v.Count, v.Unset = 5, 4, 6, 15*f, uint64(3*sec), false
		})
		hs[3].set(func(v *reader.Value) {
			v.Sum, v.Zero, v.Above, v.Count = f, perSecond[0]*uint64(sec), 0, 8*uint64(sec)
			for k := range v.Buckets {
				v.Buckets[k] = perSecond[1+k] * uint64(sec)
			}
		})
		p.tick(t0+sec*1000+rowMS, false)
	}
	p.heads = []uint64{uint64(monthEnd - 1), uint64(monthEnd) / 10}
}

// panel is what Grafana makes of a span of time at a data source with timeInterval 1s, a thousand points wide.
type panel struct {
	start, end, step int64 // ms
	rate             int64 // $__rate_interval
}

func zoom(span time.Duration, end int64) panel {
	p := panel{start: end - span.Milliseconds(), end: end, step: 1000}
	for _, s := range []int64{2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600} {
		if s*1000 <= span.Milliseconds()/800 {
			p.step = s * 1000
		}
	}
	p.start = max(p.start, t0+hourly*1000)
	p.start, p.end = p.start/p.step*p.step, p.end/p.step*p.step // Grafana's grid
	p.rate = max(p.step+1000, 4000)
	return p
}

var zooms = []time.Duration{5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour}

func (m *month) ask(q string, p panel) []promql.FPoint {
	m.t.Helper()
	q = strings.NewReplacer("$__rate_interval", fmt.Sprint(p.rate, "ms"), "$__interval", fmt.Sprint(p.step, "ms")).Replace(q)
	res, err := ask(m.t, m.engine, q, p.start, p.end, p.step).Matrix()
	switch {
	case err != nil || len(res) > 1:
		m.t.Fatalf("%s: want one series at most, got %d, %v", q, len(res), err)
	case len(res) == 0:
		return nil
	}
	return res[0].Floats
}

// A panel of what goes on without end, zoomed from five minutes to thirty days, now and around every seam between tiers: no blank, no
// step, no double, whatever is asked.
func TestPanelOverSeams(t *testing.T) {
	m := newMonth(t, past{instance: "h:1"})
	quantile := number(t, m.engine, "histogram_quantile(0.9, rate(lat[1m]))", m.now)
	constant := map[string]float64{
		"rate(x_total[$__rate_interval])": 10, "sum(increase(x_total[$__rate_interval])) / (0.001 * $RI)": 10,
		"rate(d_sum[$__rate_interval]) / rate(d_count[$__rate_interval])": 5,
		"histogram_quantile(0.9, sum(rate(lat[$__rate_interval])))":       quantile, "histogram_count(rate(lat[$__rate_interval]))": 8,
		"histogram_quantile(0.9, lat)": quantile, "histogram_avg(rate(lat[$__rate_interval]))": 0.125,
		"d": 5, "d_min": 4, "d_max": 6, "min_over_time(d[$__interval])": 4, "max_over_time(d[$__interval])": 6, "avg_over_time(d[$__interval])": 5,
		"count(x_total)": 1, "present_over_time(g[$__interval])": 1, "target_info": 1,
	}
	// Of what rises by one a second, at most so many seconds behind; coarse rows are 5 m.
	rising := map[string]float64{
		"g": 310, "x_total / 10": 310, "last_over_time(g[$__interval])": 310, "max_over_time(g[$__interval])": 620, "min_over_time(g[$__interval])": 700, "avg_over_time(g[$__interval])": 700,
	}
	if math.IsNaN(quantile) {
		t.Fatal("no quantile")
	}
	now := m.now
	centers := map[string]int64{"now": now, "rings": now - 90_000, "1s/10s": now - 3*hourly*1000, "10s/5m": now - daily*1000, "5m": now - 10*daily*1000}
	for what, center := range centers {
		for _, span := range zooms {
			p := zoom(span, min(center+span.Milliseconds()/2, now))
			points := int((p.end-p.start)/p.step) + 1
			for q, want := range constant {
				q = strings.ReplaceAll(q, "$RI", fmt.Sprint(p.rate))
				got := m.ask(q, p)
				if len(got) != points {
					t.Fatalf("%v around %s: %s: want %d points, got %d: %s", span, what, q, points, len(got), blanks(got, p))
				}
				for _, f := range got {
					if !(math.Abs(f.F-want) <= 1e-6*want) {
						t.Fatalf("%v around %s: %s: %d s before the end: want %g, got %g", span, what, q, (p.end-f.T)/1000, want, f.F)
					}
				}
			}
			for q, behind := range rising {
				got := m.ask(q, p)
				if len(got) != points {
					t.Fatalf("%v around %s: %s: want %d points, got %d: %s", span, what, q, points, len(got), blanks(got, p))
				}
				most := behind + float64(p.step)/1000
				for i, f := range got {
					sec := float64(f.T-t0) / 1000
					if f.F > sec || f.F < sec-most || i > 0 && f.F < got[i-1].F && !strings.HasPrefix(q, "avg") && !strings.HasPrefix(q, "min") {
						t.Fatalf("%v around %s: %s: at %g s, %d s before the end: got %g after %g", span, what, q, sec, (p.end-f.T)/1000, f.F, got[max(i-1, 0)].F)
					}
				}
			}
		}
	}
}

// blanks says where points are missing.
func blanks(got []promql.FPoint, p panel) string {
	have := map[int64]bool{}
	for _, f := range got {
		have[f.T] = true
	}
	for at := p.start; at <= p.end; at += p.step {
		if !have[at] {
			return fmt.Sprintf("the first blank is %d s before the end", (p.end-at)/1000)
		}
	}
	return "none is missing"
}

// A process's end, a series' retirement and a gap are where they were, at each zoom and in each tier: nothing is missing before, nothing is
// there after it but what a window still holds, and nothing counts twice.
func TestPanelOverEnds(t *testing.T) {
	ages := map[string]int64{"1s": 40 * minutely, "10s": 10 * hourly, "5m": 10 * daily}
	lives := []past{{instance: "h:1"}}
	for tier, age := range ages {
		at := monthEnd - age - 123
		lives = append(lives, past{instance: "end-" + tier, to: at}, past{instance: "gap-" + tier, gap: [2]int64{at, at + 25*minutely}}, past{instance: "retired-" + tier, retired: at})
	}
	m := newMonth(t, lives...)
	for tier, age := range ages {
		at := t0 + (monthEnd-age-123)*1000 + rowMS
		step := map[string]int64{"1s": 1000, "10s": 10_000, "5m": 300_000}[tier]
		for _, span := range zooms {
			p := zoom(span, min(at+span.Milliseconds()/2, m.now))
			// Rows that a plan by the query's step reads are no further apart than this.
			coarse := step
			for _, s := range []int64{10_000, 300_000} {
				if 2*s <= p.step {
					coarse = max(coarse, s)
				}
			}
			for _, what := range []string{"end", "retired", "gap"} {
				labels := fmt.Sprintf(`{instance="%s-%s"}`, what, tier)
				say := func(q string, f promql.FPoint) string {
					return fmt.Sprintf("%s %s, %v: %s: %d ms after it, by %d s", what, tier, span, q, f.T-at, p.step/1000)
				}
				var until, again int64 // the time in which nothing may be seen
				switch until, again = at+1, math.MaxInt64; what {
				case "gap":
					until, again = at+5*coarse/2, at+25*minutely*1000
				case "retired": // a row of the process says so
					until = at + coarse + 1
				}
				q := "x_total" + labels
				got, before := m.ask(q, p), 0
				for _, f := range got {
					if f.T >= until && f.T < again {
						t.Errorf("%s: want nothing, got %g", say(q, f), f.F)
						break
					}
					if f.T <= at {
						before++
					}
				}
				if want := int((min(at, p.end)-p.start)/p.step) + 1; before != want && !(what == "end" && before >= want-1) {
					t.Errorf("%s: want %d points before it, got %d", say(q, promql.FPoint{T: at}), want, before)
				}
				if again < p.end-2*coarse {
					if n := len(got); n == 0 || got[n-1].T < min(p.end, m.now-80_000-p.step) { // the newest minute of what does not live is not there
						t.Errorf("%s: want a point at the end", say(q, promql.FPoint{T: p.end}))
					}
				}
				q = "rate(x_total" + labels + "[$__rate_interval])"
				after := max(p.rate, 2*coarse, 2*step) + coarse
				for _, f := range m.ask(q, p) {
					switch {
					case f.F > 10+1e-6 && what != "gap":
						t.Errorf("%s: want no more than 10, got %g", say(q, f), f.F)
					case f.T < at-after && math.Abs(f.F-10) > 1e-6:
						t.Errorf("%s: want 10 before it, got %g", say(q, f), f.F)
					case f.T > at+after && f.T < again && what != "gap":
						t.Errorf("%s: want nothing long after it, got %g", say(q, f), f.F)
					default:
						continue
					}
					break
				}
			}
		}
		// Whatever is zoomed: the counter's growth over the whole, the gap or the end in it, is what was counted.
		for _, what := range []string{"end", "gap"} {
			q := fmt.Sprintf(`increase(x_total{instance="%s-%s"}[4h] anchored)`, what, tier)
			want := 10.0 * 4 * hourly
			if what == "end" {
				want = 10 * 2 * hourly
			}
			if got := number(t, m.engine, q, min(at+2*hourly*1000, m.now)); math.Abs(got-want) > 10*310 && age > 2*hourly {
				t.Errorf("%s: want about %g, got %g", q, want, got)
			}
		}
	}
}
