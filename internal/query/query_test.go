package query_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

const t0 int64 = 1_700_000_000_000 // unix ms, a multiple of 10 s

func from(instance string) []reader.Pair {
	return querytest.Pairs("job", "fwd", "instance", instance)
}

// newEngine answers at a clock of the test's own.
func newEngine(now int64, segments ...query.Segment) *query.Engine {
	return query.New(query.Options{Sources: querytest.Segments(segments), Now: func() time.Time { return time.UnixMilli(now) }})
}

// instant evaluates q and returns its result as text, one series a line, sorted.
func instant(t *testing.T, e *query.Engine, q string, at int64) string {
	t.Helper()
	pq, err := e.Instant(t.Context(), q, time.UnixMilli(at), query.QueryOptions{})
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer pq.Close()
	res := pq.Exec(t.Context())
	if res.Err != nil {
		t.Fatalf("%s: %v", q, res.Err)
	}
	return render(res, at)
}

func rangeQuery(t *testing.T, e *query.Engine, q string, start, end, step int64) *promql.Result {
	t.Helper()
	pq, err := e.Range(t.Context(), q, time.UnixMilli(start), time.UnixMilli(end), time.Duration(step)*time.Millisecond, query.QueryOptions{})
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	res := pq.Exec(t.Context())
	if res.Err != nil {
		t.Fatalf("%s: %v", q, res.Err)
	}
	return res
}

// render writes times relative to base.
func render(res *promql.Result, base int64) string {
	var lines []string
	number := func(f float64) string { return fmt.Sprintf("%.6g", f) }
	switch v := res.Value.(type) {
	case promql.Vector:
		for _, s := range v {
			if s.H != nil {
				lines = append(lines, s.Metric.String()+" "+s.H.String())
			} else {
				lines = append(lines, s.Metric.String()+" "+number(s.F))
			}
		}
	case promql.Matrix:
		for _, s := range v {
			l := s.Metric.String()
			for _, p := range s.Floats {
				l += fmt.Sprintf(" %d:%s", p.T-base, number(p.F))
			}
			lines = append(lines, l)
		}
	case promql.Scalar:
		return number(v.V)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != strings.TrimSpace(want) {
		t.Errorf("%s\ngot:\n%s\nwant:\n%s", what, got, strings.TrimSpace(want))
	}
}

func TestKindsAndNames(t *testing.T) {
	s := querytest.New(t0, from("h:1"), querytest.Scalars())
	s.Attribute(querytest.Pairs("host.name", "h", "service.name", "fwd"))
	reg := func(sr reader.Series) *reader.Value {
		_, v := s.Register(t0, sr)
		return v
	}
	querytest.Set(reg(reader.Series{Definition: &reader.Definition{Name: "rx.packets", Kind: reader.Counter, Number: reader.U64, Labels: querytest.Pairs("net.if", "eth0")}}), 7)
	querytest.Set(reg(reader.Series{Definition: &reader.Definition{Name: "open", Kind: reader.UpDown, Number: reader.I64}}), -3)
	querytest.Set(reg(reader.Series{Definition: &reader.Definition{Name: "temp", Unit: "Cel", Kind: reader.Gauge, Number: reader.F64, Labels: querytest.Pairs("job", "mine")}}), 20.5)
	reg(reader.Series{Definition: &reader.Definition{Name: "never", Kind: reader.Gauge, Number: reader.F64}})
	st := reg(reader.Series{Definition: &reader.Definition{Name: "depth", Kind: reader.Stat, Number: reader.F64, NonNegative: true}})
	st.Unset, st.Count, st.Sum, st.Last, st.Min, st.Max = false, 4, 10, 3, 1, 5
	s.Tick(t0 + 1000)

	e := newEngine(t0+1000, s)
	want(t, "everything", instant(t, e, `{job="fwd"}`, t0+1000), `
{__name__="depth", instance="h:1", job="fwd"} 3
{__name__="depth_count", instance="h:1", job="fwd"} 4
{__name__="depth_max", instance="h:1", job="fwd"} 5
{__name__="depth_min", instance="h:1", job="fwd"} 1
{__name__="depth_sum", instance="h:1", job="fwd"} 10
{__name__="open", instance="h:1", job="fwd"} -3
{__name__="rx_packets_total", instance="h:1", job="fwd", net_if="eth0"} 7
{__name__="target_info", host_name="h", instance="h:1", job="fwd"} 1
{__name__="temp_celsius", exported_job="mine", instance="h:1", job="fwd"} 20.5`)
	for q, wanted := range map[string]string{
		`{exported_job="mine"}`:                                      `{__name__="temp_celsius", exported_job="mine", instance="h:1", job="fwd"} 20.5`,
		`rx_packets_total{net_if=~"eth.*"}`:                          `{__name__="rx_packets_total", instance="h:1", job="fwd", net_if="eth0"} 7`,
		`rx_packets_total{net_if!=""}`:                               `{__name__="rx_packets_total", instance="h:1", job="fwd", net_if="eth0"} 7`,
		`rx_packets_total{net_if=""}`:                                ``,
		`rx_packets_total{job!~"f.*"}`:                               ``,
		`{__name__=~"depth_m.+"}`:                                    "{__name__=\"depth_max\", instance=\"h:1\", job=\"fwd\"} 5\n{__name__=\"depth_min\", instance=\"h:1\", job=\"fwd\"} 1",
		`{__name__=~"depth_m.+",__name__!~".*x"}`:                    `{__name__="depth_min", instance="h:1", job="fwd"} 1`,
		`target_info{host_name="h"}`:                                 `{__name__="target_info", host_name="h", instance="h:1", job="fwd"} 1`,
		`target_info{host_name="x"}`:                                 ``,
		`open * on(job, instance) group_left(host_name) target_info`: `{host_name="h", instance="h:1", job="fwd"} -3`,
		`open{nosuch="x"}`:                                           ``,
	} {
		want(t, q, instant(t, e, q, t0+1000), wanted)
	}
}

// A native histogram has the very bounds and counts of the buckets recorded into.
func TestHistogram(t *testing.T) {
	s := querytest.New(t0, from("h:1"), querytest.Scalars(), querytest.Histograms())
	r := reader.BucketRange{Scale: 1, Min: -2, Count: 6} // from 0.5 to 4
	_, v := s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "latency", Unit: "s", Kind: reader.Histogram, Number: reader.F64, Table: 1, Buckets: r}})
	v.Zero, v.Above, v.Sum = 2, 1, 20
	copy(v.Buckets, []uint64{0, 3, 0, 0, 5, 0})
	s.Tick(t0 + 10_000)
	s.Tick(t0 + 20_000)

	e := newEngine(t0+20_000, s)
	pq, err := e.Instant(t.Context(), "latency_seconds", time.UnixMilli(t0+20_000), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	res := pq.Exec(t.Context())
	vec, err := res.Vector()
	if err != nil || len(vec) != 1 || vec[0].H == nil {
		t.Fatalf("got %v, %v; want one histogram", vec, err)
	}
	h := vec[0].H
	if h.Count != 11 || h.Sum != 20 || h.ZeroCount != 2 || h.ZeroThreshold != 0.5 || h.Schema != 1 {
		t.Errorf("got count %g, sum %g, zero %g at %g, schema %d", h.Count, h.Sum, h.ZeroCount, h.ZeroThreshold, h.Schema)
	}
	if err := h.Validate(); err != nil {
		t.Error(err)
	}
	got := map[string]float64{}
	for it := h.PositiveBucketIterator(); it.Next(); {
		b := it.At()
		got[fmt.Sprintf("(%.4g, %.4g]", b.Lower, b.Upper)] = b.Count
	}
	// Bucket i holds (base^i, base^(i+1)], base = sqrt 2.
	wanted := map[string]float64{"(0.7071, 1]": 3, "(2, 2.828]": 5, "(4, 5.657]": 1}
	if fmt.Sprint(got) != fmt.Sprint(wanted) {
		t.Errorf("buckets: got %v, want %v", got, wanted)
	}
	want(t, "count", instant(t, e, "histogram_count(latency_seconds)", t0+20_000), `{instance="h:1", job="fwd"} 11`)
	want(t, "quantile", instant(t, e, "histogram_quantile(1, latency_seconds)", t0+20_000), `{instance="h:1", job="fwd"} 5.65685`)
	// All 11 were recorded since birth: the zero histogram at the start says so.
	want(t, "increase", instant(t, e, "histogram_count(increase(latency_seconds[20s]))", t0+20_000), `{instance="h:1", job="fwd"} 0`)
	want(t, "increase since before birth", instant(t, e, "histogram_count(increase(latency_seconds[30s])) > 0", t0+20_000), `{instance="h:1", job="fwd"} 11`)
}

// Everything that increase() says of a young process is exact, though only one row is there.
func TestStartZero(t *testing.T) {
	s := querytest.New(t0+500, from("h:1"), querytest.Scalars())
	v := s.Counter("x_total")
	late, w := (*reader.Series)(nil), (*reader.Value)(nil)
	for i := int64(1); i <= 30; i++ {
		querytest.Set(v, float64(i*100))
		if i == 20 {
			late, w = s.Register(t0+19_700, reader.Series{Definition: &reader.Definition{Name: "late_total", Kind: reader.Counter, Number: reader.F64}})
		}
		if late != nil {
			querytest.Set(w, float64(i))
		}
		s.Tick(t0 + i*1000)
	}
	e := newEngine(t0+30_000, s)
	for q, wanted := range map[string]string{
		`resets(x_total[1m])`:          `{instance="h:1", job="fwd"} 0`,
		`x_total - x_total`:            `{instance="h:1", job="fwd"} 0`,
		`count_over_time(x_total[1m])`: `{instance="h:1", job="fwd"} 30`, // the zero is no sample
		`irate(x_total[1m])`:           `{instance="h:1", job="fwd"} 100`,
		// From 0 at 500 ms to 3000 at 30 s, and no further back than a zero can be.
		`increase(x_total[60s])`:    `{instance="h:1", job="fwd"} 3000`,
		`increase(late_total[60s])`: `{instance="h:1", job="fwd"} 30`,
	} {
		want(t, q, instant(t, e, q, t0+30_000), wanted)
	}
	// 800 ms old: one row, and the rate is there. (The engine's extrapolation to now makes 160 of 100.)
	e = newEngine(t0+1300, s)
	want(t, "young", instant(t, e, `rate(x_total[1m]) > 0`, t0+1300), `{instance="h:1", job="fwd"} 2.66667`)
}

// A restart is a reset of the same series.
func TestRestart(t *testing.T) {
	a := querytest.New(t0, from("h:1"), querytest.Scalars())
	va := a.Counter("x_total")
	for i := int64(1); i <= 20; i++ {
		querytest.Set(va, float64(i))
		a.Tick(t0 + i*1000)
	}
	querytest.Set(va, 25)
	a.Finish(t0 + 20_400)
	b := querytest.New(t0+22_000, from("h:1"), querytest.Scalars())
	vb := b.Counter("x_total")
	for i := int64(23); i <= 40; i++ {
		querytest.Set(vb, float64(100+i))
		b.Tick(t0 + i*1000)
	}
	e := newEngine(t0+40_000, a, b)
	me := `{__name__="x_total", instance="h:1", job="fwd"}`
	want(t, "last words", instant(t, e, `x_total`, t0+20_400), me+" 25")
	want(t, "after death", instant(t, e, `x_total`, t0+20_401), "")
	want(t, "second life", instant(t, e, `x_total`, t0+23_000), me+" 123")
	want(t, "raw", instant(t, e, `x_total[3500ms]`, t0+23_500), me+" -3100:25 -500:123")
	want(t, "increase of both lives", instant(t, e, `increase(x_total[40s])`, t0+40_000), `{instance="h:1", job="fwd"} 165`)
	want(t, "resets", instant(t, e, `resets(x_total[40s])`, t0+40_000), `{instance="h:1", job="fwd"} 1`)
	want(t, "one series", instant(t, e, `count(x_total)`, t0+30_000), `{} 1`)
}

func TestStaleness(t *testing.T) {
	s := querytest.New(t0, from("h:1"), querytest.Scalars())
	g := s.Gauge("g")
	retired, rv := s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "r", Kind: reader.Gauge, Number: reader.F64}})
	st, sv := s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "s", Kind: reader.Stat, Number: reader.F64}})
	_ = st
	querytest.Set(rv, 1)
	for i := int64(1); i <= 30; i++ {
		if i > 10 && i < 16 { // stopped for five seconds
			continue
		}
		if i == 20 {
			s.Retire(retired)
		}
		querytest.Set(g, float64(i))
		sv.Unset, sv.Last, sv.Min, sv.Max = false, float64(i), float64(i), float64(i)
		if i == 25 {
			sv.Min, sv.Max = math.NaN(), math.NaN() // nothing recorded
		}
		s.Tick(t0 + i*1000)
	}
	s.Finish(t0 + 30_200)
	e := newEngine(t0+60_000, s)
	all := func(q string) string { return render(rangeQuery(t, e, q, t0+8_000, t0+33_000, 1000), t0) }
	want(t, "a gap of 5 steps, and the end", all("g"), `
{__name__="g", instance="h:1", job="fwd"} 8000:8 9000:9 10000:10 11000:10 12000:10 16000:16 17000:17 18000:18 19000:19 20000:20 21000:21 22000:22 23000:23 24000:24 25000:25 26000:26 27000:27 28000:28 29000:29 30000:30`)
	want(t, "retired", all("r"), `
{__name__="r", instance="h:1", job="fwd"} 8000:1 9000:1 10000:1 11000:1 12000:1 16000:1 17000:1 18000:1 19000:1`)
	want(t, "an empty window has no minimum", all("s_min > 23"), `
{__name__="s_min", instance="h:1", job="fwd"} 24000:24 26000:26 27000:27 28000:28 29000:29 30000:30`)

	// A trailing gap is one only when it has passed on our own clock: a browser that is ahead sees the newest value.
	live := querytest.New(t0, from("h:2"), querytest.Scalars())
	querytest.Set(live.Gauge("g"), 5)
	live.Tick(t0 + 1000)
	want(t, "asked for the future", instant(t, newEngine(t0+1500, live), "g", t0+9000), `{__name__="g", instance="h:2", job="fwd"} 5`)
	want(t, "stopped", instant(t, newEngine(t0+9000, live), "g", t0+9000), ``)
	// And only as far as rows are known: a daemon that polls each 10 s has the value of its last poll.
	live.Known = (t0 + 1200) * 1e6
	want(t, "not polled since", instant(t, newEngine(t0+9000, live), "g", t0+9000), `{__name__="g", instance="h:2", job="fwd"} 5`)
}

// Rows of one ms do not double, and rows after a step back of the clock hide those that they overlap.
func TestClock(t *testing.T) {
	s := querytest.New(t0, from("h:1"), querytest.Scalars())
	g := s.Gauge("g")
	for i, at := range []int64{1000, 2000, 3000, 3000, 4000, 5000, 2500, 3500} {
		querytest.Set(g, float64(i))
		s.Tick(t0+at, true)
	}
	want(t, "rows", instant(t, newEngine(t0+5000, s), "g[10s]", t0+5000), `{__name__="g", instance="h:1", job="fwd"} -4000:0 -3000:1 -2500:6 -1500:7`)
}

// history is a process that ticked for n seconds, counting 10 a second.
func history(instance string, n int64) *querytest.Segment {
	s := querytest.New(t0, from(instance), querytest.Scalars())
	c, g := s.Counter("x_total"), s.Gauge("g")
	for i := int64(1); i <= n; i++ {
		querytest.Set(c, float64(10*i))
		querytest.Set(g, float64(i))
		s.Tick(t0 + i*1000)
	}
	return s
}

// Older time comes from the coarser tier: no step, no blank, no double, and infos say so.
func TestTiersJoin(t *testing.T) {
	s := history("h:1", 500) // 1 s rows since 381, 10 s rows since 10
	end := t0 + 500_000
	e := newEngine(end, s)

	res := rangeQuery(t, e, "g", t0+10_000, end, 1000)
	m, _ := res.Matrix()
	if len(m) != 1 || len(m[0].Floats) != 491 {
		t.Fatalf("want one series with a point each second, got %v", render(res, t0))
	}
	for _, p := range m[0].Floats {
		sec := float64(p.T-t0) / 1000
		wanted := sec
		if sec < 381 {
			wanted = math.Floor(sec/10) * 10
		}
		if p.F != wanted {
			t.Errorf("at %g s: got %g, want %g", sec, p.F, wanted)
		}
	}
	if _, infos := res.Warnings.AsStrings("", 0, 0); len(infos) != 1 || !strings.Contains(infos[0], "1s, 10s") {
		t.Errorf("infos: got %q, want one that names 1s and 10s", infos)
	}

	raw := instant(t, e, "x_total[500s]", end)
	if n := strings.Count(raw, ":") - 1; n != 38+120 {
		t.Errorf("want 38 coarse rows and 120 fine ones, got %d samples: %s", n, raw)
	}
	m, _ = rangeQuery(t, e, "rate(x_total[1m])", t0+60_000, end, 1000).Matrix()
	for _, p := range m[0].Floats {
		if math.Abs(p.F-10) > 1e-9 {
			t.Errorf("rate at %d ms: got %g, want 10", p.T-t0, p.F)
		}
	}
	if len(m[0].Floats) != 441 {
		t.Errorf("rate: want 441 points, got %d", len(m[0].Floats))
	}
	if _, infos := rangeQuery(t, e, "g", t0+490_000, end, 1000).Warnings.AsStrings("", 0, 0); len(infos) != 0 {
		t.Errorf("only the finest tier answered: want no infos, got %q", infos)
	}
}

// A window of less than two rows answers all the same, over every seam, and does not outlive the process.
func TestSmoothed(t *testing.T) {
	s := history("h:1", 500)
	s.Finish(t0 + 500_000)
	e := newEngine(t0+560_000, s)
	res := rangeQuery(t, e, "rate(x_total[6s])", t0+20_000, t0+530_000, 1000)
	m, _ := res.Matrix()
	if len(m) != 1 {
		t.Fatalf("want one series, got %v", render(res, t0))
	}
	last := int64(0)
	for i, p := range m[0].Floats {
		if want := t0 + 20_000 + int64(i)*1000; p.T != want {
			t.Fatalf("point %d: want one at %d ms, got %d", i, want-t0, p.T-t0)
		}
		if math.Abs(p.F-10) > 1e-9 && p.T <= t0+500_000 {
			t.Errorf("at %d ms: got %g, want 10", p.T-t0, p.F)
		}
		last = p.T - t0
	}
	if last < 500_000 || last > 506_000 {
		t.Errorf("want points until the end at 500 s and a window more, got the last at %d ms", last)
	}
	if _, infos := res.Warnings.AsStrings("", 0, 0); !strings.Contains(strings.Join(infos, "\n"), "rows are 10s apart: rate(...[6s]) is evaluated as smoothed") {
		t.Errorf("infos: %q", infos)
	}
	// Where the fine rows reach, nothing is rewritten.
	res = rangeQuery(t, e, "rate(x_total[6s])", t0+450_000, t0+500_000, 1000)
	if _, infos := res.Warnings.AsStrings("", 0, 0); len(infos) > 0 {
		t.Errorf("infos: %q", infos)
	}

	h := querytest.New(t0, from("h:2"), querytest.Scalars(), querytest.Histograms())
	_, v := h.Register(t0, reader.Series{Definition: &reader.Definition{Name: "lat", Kind: reader.Histogram, Number: reader.F64, Table: 1, Buckets: reader.BucketRange{Scale: 0, Min: 0, Count: 4}}})
	for i := int64(1); i <= 100; i++ {
		v.Buckets[1] += 5
		h.Tick(t0 + i*1000)
	}
	m, _ = rangeQuery(t, newEngine(t0+100_000, h), "histogram_count(rate(lat[6s]))", t0+20_000, t0+90_000, 1000).Matrix()
	if len(m) != 1 || len(m[0].Floats) != 71 {
		t.Fatalf("histogram: want 71 points, got %v", m)
	}
	for _, p := range m[0].Floats {
		if math.Abs(p.F-5) > 1e-9 {
			t.Errorf("histogram at %d ms: got %g, want 5", p.T-t0, p.F)
		}
	}
}

// What a tier can't know yet, a finer one does.
func TestYoungProcess(t *testing.T) {
	s := history("h:1", 7)
	e := newEngine(t0+7000, s)
	want(t, "no coarse row yet", render(rangeQuery(t, e, "g", t0-53_000, t0+7_000, 60_000), t0), `{__name__="g", instance="h:1", job="fwd"} 7000:7`)
	want(t, "rate", instant(t, e, "increase(x_total[1m])", t0+7000), `{instance="h:1", job="fwd"} 70`)
}

func TestOverrides(t *testing.T) {
	a, b := history("h:1", 5), history("h:1", 5)
	a.Override(a.Series()[0], querytest.Pairs("shmts_segment", "0a1b"))
	e := newEngine(t0+5000, a, b)
	want(t, "both", instant(t, e, "x_total", t0+5000), `
{__name__="x_total", instance="h:1", job="fwd", shmts_segment="0a1b"} 50
{__name__="x_total", instance="h:1", job="fwd"} 50`)
	want(t, "with", instant(t, e, `count(x_total{shmts_segment!=""})`, t0+5000), `{} 1`)
	want(t, "without", instant(t, e, `x_total{shmts_segment=""}`, t0+5000), `{__name__="x_total", instance="h:1", job="fwd"} 50`)
	want(t, "the same series is one", instant(t, e, `count(g)`, t0+5000), `{} 1`)
}

func TestStatColumns(t *testing.T) {
	s := querytest.New(t0, from("h:1"), querytest.Scalars())
	_, v := s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "depth", Kind: reader.Stat, Number: reader.F64}})
	for i := int64(1); i <= 20; i++ {
		v.Unset, v.Last, v.Min, v.Max = false, 5, 5, 5
		if i == 13 {
			v.Min, v.Max = 1, 99 // between two rows
		}
		s.Tick(t0 + i*1000)
	}
	e := newEngine(t0+20_000, s)
	want(t, "max", instant(t, e, "max_over_time(depth[15s])", t0+20_000), `{instance="h:1", job="fwd"} 99`)
	want(t, "min", instant(t, e, "min_over_time(depth[15s])", t0+20_000), `{instance="h:1", job="fwd"} 1`)
	want(t, "max() is of the instant", instant(t, e, "max(depth)", t0+20_000), `{} 5`)
}

func TestLimits(t *testing.T) {
	s := history("h:1", 100)
	e := query.New(query.Options{Sources: querytest.Segments{s}, MaxSamples: 50, Concurrency: 1, Queue: 1, Now: func() time.Time { return time.UnixMilli(t0 + 100_000) }})
	pq, err := e.Instant(t.Context(), "g[100s]", time.UnixMilli(t0+100_000), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res := pq.Exec(t.Context()); res.Err == nil || !strings.Contains(res.Err.Error(), "too many samples") {
		t.Errorf("want too many samples, got %v", res.Err)
	}
	for _, q := range []string{
		strings.Repeat("(", 1000) + "1" + strings.Repeat(")", 1000),
		strings.Repeat("-", 1000) + "g",
		"1" + strings.Repeat("+1", 1000),
		strings.Repeat(" ", query.MaxQueryLength) + "1",
		`{a="1"` + strings.Repeat(`,b!="2"`, 100) + `}`,
	} {
		pq, err := e.Instant(t.Context(), q, time.UnixMilli(t0), query.QueryOptions{})
		if err == nil {
			err = pq.Exec(t.Context()).Err
		}
		if err == nil || !strings.Contains(err.Error(), "shmts:") {
			t.Errorf("%.20s...: want an error of our own, got %v", q, err)
		}
	}
}

func TestLabelQueries(t *testing.T) {
	a := history("h:1", 5)
	a.Attribute(querytest.Pairs("os", "linux"))
	b := querytest.New(t0, querytest.Pairs("job", "other", "instance", "h:2"), querytest.Scalars())
	b.Counter("y_total", "dev", "sda")
	b.Finish(t0 + 5000)
	e := newEngine(t0+10_000, a, b)
	q, _ := e.Querier(t0, t0+10_000)
	defer q.Close()
	m := func(s string) []*labels.Matcher {
		sets, err := e.Selectors([]string{s})
		if err != nil {
			t.Fatal(err)
		}
		return sets[0]
	}
	for _, c := range []struct {
		label string
		match []*labels.Matcher
		limit int
		want  string
	}{
		{"", nil, 0, "[__name__ dev instance job os]"},
		{"", m(`x_total`), 0, "[__name__ instance job]"},
		{"", m(`{job="other"}`), 0, "[__name__ dev instance job]"},
		{"", nil, 2, "[__name__ dev]"},
		{"job", nil, 0, "[fwd other]"},
		{"dev", nil, 0, "[sda]"},
		{"os", m(`{job="other"}`), 0, "[]"},
		{"__name__", nil, 0, "[g target_info x_total y_total]"},
		{"__name__", m(`{dev=""}`), 0, "[g target_info x_total]"},
		{"nosuch", nil, 0, "[]"},
	} {
		var got []string
		var err error
		h := &storage.LabelHints{Limit: c.limit}
		if c.label == "" {
			got, _, err = q.LabelNames(t.Context(), h, c.match...)
		} else {
			got, _, err = q.LabelValues(t.Context(), c.label, h, c.match...)
		}
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%q with %v: got %v, %v, want %s", c.label, c.match, got, err, c.want)
		}
	}
	// A process that ended before the span has no labels in it.
	late, _ := e.Querier(t0+6000, t0+10_000)
	if got, _, _ := late.LabelValues(t.Context(), "job", nil); fmt.Sprint(got) != "[fwd]" {
		t.Errorf("after its end: got %v", got)
	}
	md, err := e.Metadata(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(md["x_total"]) != "[{counter  }]" || len(md) != 4 {
		t.Errorf("metadata: got %v", md)
	}
}

// An instant query reads the rows that can be fresh and no others.
func TestInstantReadsFewRows(t *testing.T) {
	s := history("h:1", 120)
	e := newEngine(t0+120_000, s)
	s.RowsRead = 0
	instant(t, e, "g", t0+120_000)
	if s.RowsRead > 3 {
		t.Errorf("want at most 3 rows read for one instant, got %d", s.RowsRead)
	}
}

func TestTimeout(t *testing.T) {
	e := newEngine(t0+5000, history("h:1", 5))
	ctx, cancel := context.WithCancel(t.Context())
	pq, err := e.Instant(ctx, "g", time.UnixMilli(t0+5000), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	var canceled promql.ErrQueryCanceled
	if res := pq.Exec(ctx); res.Err == nil || !strings.Contains(res.Err.Error(), "cancel") {
		t.Errorf("want %T, got %v", canceled, res.Err)
	}
}

// Processes that tick, register, end and are replaced while queries run: no race, no error, no double.
func TestConcurrent(t *testing.T) {
	var mu sync.Mutex
	var now atomic.Int64
	now.Store(t0)
	segments := make([]query.Segment, 80) // enough to be read side by side
	life := func(i int) *querytest.Segment {
		s := querytest.New(now.Load(), from(fmt.Sprint("h:", i)), querytest.Scalars())
		s.Counter("x_total")
		return s
	}
	for i := range segments {
		segments[i] = life(i)
	}
	e := query.New(query.Options{
		Sources: query.Snapshot(func() []query.Segment {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(segments)
		}),
		Now: func() time.Time { return time.UnixMilli(now.Load()) },
	})
	stop := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			now.Add(500)
			mu.Lock()
			s := segments[i%80].(*querytest.Segment)
			if i%7 == 0 {
				s.Finish(now.Load())
				segments[i%80] = life(i % 80)
			} else if i%5 == 0 {
				s.Register(now.Load(), reader.Series{Definition: &reader.Definition{Name: fmt.Sprint("n", i%3), Kind: reader.Gauge, Number: reader.F64}})
			}
			mu.Unlock()
			for _, s := range segments {
				s.(*querytest.Segment).Tick(now.Load())
			}
		}
	})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for range 8 {
				for _, q := range []string{`sum(rate(x_total[1m]))`, `{job="fwd"}`, `count(x_total)`} {
					pq, err := e.Instant(t.Context(), q, time.UnixMilli(now.Load()), query.QueryOptions{})
					if err != nil {
						t.Error(err)
						return
					}
					if res := pq.Exec(t.Context()); res.Err != nil {
						t.Errorf("%s: %v", q, res.Err)
					}
					pq.Close()
				}
				if _, err := labelValues(e, "instance"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	work.Wait()
}

func labelValues(e *query.Engine, name string) ([]string, error) {
	q, err := e.Querier(t0, math.MaxInt64)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	values, _, err := q.LabelValues(context.Background(), name, nil)
	return values, err
}

// broken panics when it is read.
type broken struct{ *querytest.Segment }

func (broken) Columns(int, int, int64, int64, *query.Batch) error { panic("broken") }

// A segment that breaks while many are read side by side fails the query, and nothing else.
func TestBrokenSegment(t *testing.T) {
	var segments []query.Segment
	for i := range 100 {
		s := history(fmt.Sprint("h:", i), 3)
		if i == 50 {
			segments = append(segments, broken{s})
		} else {
			segments = append(segments, s)
		}
	}
	e := newEngine(t0+3000, segments...)
	pq, err := e.Instant(t.Context(), "sum(x_total)", time.UnixMilli(t0+3000), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res := pq.Exec(t.Context()); res.Err == nil || !strings.Contains(res.Err.Error(), "reading rows: broken") {
		t.Errorf("want an error, got %v", res)
	}
	want(t, "the others", instant(t, e, `count(x_total{instance!="h:50"})`, t0+3000), "{} 99")
}

// An author's own target_info is a series like others.
func TestOwnTargetInfo(t *testing.T) {
	s := querytest.New(t0, from("h:1"), querytest.Scalars())
	querytest.Set(s.Gauge("target_info"), 1)
	s.Tick(t0 + 1000)
	want(t, "target_info", instant(t, newEngine(t0+1000, s), "target_info", t0+1000), `{__name__="target_info", instance="h:1", job="fwd"} 1`)
}
