package query_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/reader"
)

func rulesOf(t testing.TB, text string) *relabel.Rules {
	t.Helper()
	r, err := relabel.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return r
}

// relabelled is an engine with rules.
func relabelled(t testing.TB, now int64, rules string, segments ...query.Segment) *query.Engine {
	r := rulesOf(t, rules)
	return query.New(query.Options{Sources: querytest.Segments(segments), Now: func() time.Time { return time.UnixMilli(now) },
		Rules: query.NewRules(func() *relabel.Rules { return r })})
}

// process has a row each second from start to end, unix s after t0, of a counter, two gauges and a stat.
func process(instance string, start, end int64, finish bool) *querytest.Segment {
	g := querytest.New(t0+start*1000, from(instance), querytest.Scalars())
	g.Attribute(querytest.Pairs("version", "1"))
	c, a, b := g.Counter("x", "queue", "1"), g.Gauge("y", "kind", "a"), g.Gauge("y", "kind", "b")
	_, s := g.Register(t0+start*1000, reader.Series{Definition: &reader.Definition{Name: "z", Kind: reader.Stat, Number: reader.F64}})
	for i := start + 1; i <= end; i++ {
		querytest.Set(c, float64(i-start))
		querytest.Set(a, 10)
		querytest.Set(b, 20)
		s.Unset, s.Last, s.Min, s.Max, s.Sum, s.Count = false, 1, 0, 2, float64(i), uint64(i)
		if i == end && finish {
			g.Finish(t0 + i*1000)
		} else {
			g.Tick(t0 + i*1000)
		}
	}
	return g
}

func TestRelabelledQueries(t *testing.T) {
	g := process("a:1", 0, 60, false)
	now := t0 + 60_000
	for _, c := range []struct{ name, rules, q, want string }{
		{"a rule about one metric leaves the others", `[{action: drop, source_labels: [__name__], regex: x_total}]`, `{__name__=~"x_total|y", kind!="b"}`, `{__name__="y", instance="a:1", job="fwd", kind="a"} 10`},
		{"kept alone", `[{action: keep, source_labels: [__name__], regex: z_(sum|count)}]`, `{job="fwd"}`, `{__name__="z_count", instance="a:1", job="fwd"} 60
{__name__="z_sum", instance="a:1", job="fwd"} 60`},
		{"renamed, asked by the new name", `[{source_labels: [__name__, kind], regex: y;(.*), target_label: __name__, replacement: y_$1}, {action: labeldrop, regex: kind}]`, `y_a`, `{__name__="y_a", instance="a:1", job="fwd"} 10`},
		{"renamed, asked by the old name", `[{source_labels: [__name__], regex: y, target_label: __name__, replacement: w}]`, `y`, ``},
		{"job rewritten, asked by the new one", `[{source_labels: [job], target_label: job, replacement: "new-$1"}]`, `x_total{job="new-fwd"}`, `{__name__="x_total", instance="a:1", job="new-fwd", queue="1"} 60`},
		{"job rewritten, asked by the old one", `[{source_labels: [job], target_label: job, replacement: "new-$1"}]`, `x_total{job="fwd"}`, ``},
		{"a part of instance", `[{source_labels: [instance], regex: "(.*):.*", target_label: host}]`, `x_total{host=~"a.*"}`, `{__name__="x_total", host="a", instance="a:1", job="fwd", queue="1"} 60`},
		{"without instance", `[{action: labeldrop, regex: instance}]`, `x_total{instance=""}`, `{__name__="x_total", job="fwd", queue="1"} 60`},
		{"a function of what is renamed", `[{source_labels: [__name__], regex: x_total, target_label: __name__, replacement: sent_total}]`, `increase(sent_total[30s])`, `{instance="a:1", job="fwd", queue="1"} 30`},
		{"target_info is a series", `[{action: drop, source_labels: [__name__], regex: target_info}]`, `target_info`, ``},
		{"and may be another", `[{action: replace, source_labels: [version], regex: (.+), target_label: release}]`, `target_info{release="1"}`, `{__name__="target_info", instance="a:1", job="fwd", release="1", version="1"} 1`},
		{"and have another name", `[{source_labels: [__name__], regex: target_info, target_label: __name__, replacement: about}]`, `about`, `{__name__="about", instance="a:1", job="fwd", version="1"} 1`},
		{"labelmap of the source's", `[{action: labelmap, regex: "(jo)b", replacement: "${1}iner"}]`, `x_total`, `{__name__="x_total", instance="a:1", job="fwd", joiner="fwd", queue="1"} 60`},
		{"labelkeep", `[{action: labelkeep, regex: "__name__|job|kind"}]`, `y`, `{__name__="y", job="fwd", kind="a"} 10
{__name__="y", job="fwd", kind="b"} 20`},
		{"two become one: the first by its labels", `[{action: labeldrop, regex: kind}]`, `y`, `{__name__="y", instance="a:1", job="fwd"} 10`},
		{"parts of a stat become one: the first of them", `[{source_labels: [__name__], regex: "z_(min|max)", target_label: __name__, replacement: z_range}]`, `z_range`, `{__name__="z_range", instance="a:1", job="fwd"} 0`},
		{"nothing is left of a name", `[{action: labelkeep, regex: job}]`, `{job="fwd"}`, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			want(t, c.q, instant(t, relabelled(t, now, c.rules, g), c.q, now), c.want)
		})
	}
}

// A histogram is one series, its classic view one of what the rules leave.
func TestRelabelledHistogram(t *testing.T) {
	g := querytest.New(t0, from("a:1"), querytest.Scalars(), querytest.Histograms())
	_, h := g.Register(t0, reader.Series{Definition: &reader.Definition{Table: 1, Name: "h", Unit: "s", Kind: reader.Histogram, Number: reader.F64, Buckets: reader.BucketRange{Scale: 0, Min: 0, Count: 3}, Labels: querytest.Pairs("le", "own")}})
	for i := int64(1); i <= 60; i++ {
		h.Buckets[1]++
		h.Count, h.Sum = uint64(i), float64(i)*3
		g.Tick(t0 + i*1000)
	}
	now := t0 + 60_000
	e := relabelled(t, now, `[{source_labels: [__name__], regex: h_seconds, target_label: __name__, replacement: lat_seconds}, {action: labelmap, regex: job, replacement: tier}]`, g)
	want(t, "count", instant(t, e, `histogram_count(lat_seconds{tier="fwd"})`, now), `{instance="a:1", job="fwd", le="own", tier="fwd"} 60`)
	want(t, "classic", instant(t, e, `lat_seconds_bucket{le="4.0",tier="fwd"}`, now), `{__name__="lat_seconds_bucket", exported_le="own", instance="a:1", job="fwd", le="4.0", tier="fwd"} 60`)
	want(t, "the old name", instant(t, e, `h_seconds_bucket`, now), ``)
	want(t, "rules do not see le", instant(t, relabelled(t, now, `[{action: drop, source_labels: [__name__], regex: h_seconds_bucket}]`, g), `count(h_seconds_bucket)`, now), `{} 5`)
	want(t, "a dropped histogram has no buckets", instant(t, relabelled(t, now, `[{action: drop, source_labels: [__name__], regex: h_seconds}]`, g), `count(h_seconds_bucket)`, now), ``)
}

// Sources that rules make one are one series: of the process that began first, until it has ended.
func TestRelabelledSourcesCollide(t *testing.T) {
	first, second, third := process("a:1", 0, 40, true), process("b:1", 20, 80, true), process("c:1", 50, 110, false)
	now := t0 + 110_000
	e := relabelled(t, now, `[{action: labeldrop, regex: instance|queue}]`, first, second, third)
	res := rangeQuery(t, e, `x_total`, t0, now, 10_000)
	// 40 of the first; the second is at 20 by then, and at 60 when it ends at 80 s; then the third, at 30.
	want(t, "one after the other", render(res, t0), `{__name__="x_total", job="fwd"} 10000:10 20000:20 30000:30 40000:40 50000:30 60000:40 70000:50 80000:60 90000:40 100000:50 110000:60`)
	if text := fmt.Sprint(res.Warnings.AsErrors()); strings.Contains(text, "labels that another one has") {
		t.Errorf("all of them are read: want no info, got %s", text)
	}
	// While an older one lives, a newer is not seen at all, and an info says so.
	old := process("a:1", 0, 110, false)
	res = rangeQuery(t, relabelled(t, now, `[{action: labeldrop, regex: instance|queue}]`, old, third), `x_total`, now-20_000, now, 10_000)
	want(t, "the older", render(res, t0), `{__name__="x_total", job="fwd"} 90000:90 100000:100 110000:110`)
	if text := fmt.Sprint(res.Warnings.AsErrors()); !strings.Contains(text, "metric_relabel_configs give 1 series labels that another one has") {
		t.Errorf("want an info, got %s", text)
	}
	// What is asked for alone is answered the same: whoever asks, an instant is of one process.
	for at := int64(30_000); at <= 110_000; at += 10_000 {
		one := instant(t, e, `x_total`, t0+at)
		several := instant(t, e, fmt.Sprintf(`last_over_time(x_total[%ds])`, at/1000), t0+at)
		if _, value, _ := strings.Cut(one, "} "); !strings.HasSuffix(several, "} "+value) {
			t.Errorf("%d: an instant says %s, a range %s", at, one, several)
		}
	}
	// Two lives of one source are one series, as without rules.
	again := process("a:1", 50, 110, false)
	want(t, "a restart", render(rangeQuery(t, relabelled(t, now, `[{target_label: dc, replacement: here}]`, first, again), `x_total`, t0+30_000, now, 20_000), t0),
		`{__name__="x_total", dc="here", instance="a:1", job="fwd", queue="1"} 30000:30 70000:20 90000:40 110000:60`)

	c, err := e.Cardinality(t.Context(), 10)
	if err != nil {
		t.Fatal(err)
	}
	// x, y, z with 5 parts, and target_info; y's two kinds stay apart.
	if c.Series != 9 {
		t.Errorf("want 9 series, got %d of %v", c.Series, c.Metrics)
	}
	if len(c.Dropped) != 1 || c.Dropped[0] != (query.Dropped{Reason: query.ReasonCollision, Series: 18}) {
		t.Errorf("want 18 collisions, got %+v", c.Dropped)
	}
	census := query.NewRules(func() *relabel.Rules { return rulesOf(t, `[{action: labeldrop, regex: instance|queue}]`) })
	if n := census.Census([]query.Segment{first, second, third}, true).Collisions; n != 18 {
		t.Errorf("want 18 collisions, got %d", n)
	}
}

// What one process overlapped carries shmts_segment, which rules see.
func TestRelabelledOverrides(t *testing.T) {
	g := process("a:1", 0, 30, false)
	g.Override(g.Series()[0], querytest.Pairs("shmts_segment", "0123"))
	now := t0 + 30_000
	want(t, "kept", instant(t, relabelled(t, now, `[{source_labels: [shmts_segment], regex: (.+), target_label: old, replacement: "yes"}]`, g), `x_total`, now),
		`{__name__="x_total", instance="a:1", job="fwd", old="yes", queue="1", shmts_segment="0123"} 30`)
	want(t, "dropped", instant(t, relabelled(t, now, `[{action: drop, source_labels: [shmts_segment], regex: .+}]`, g), `{__name__=~"x_total|y"}`, now),
		`{__name__="y", instance="a:1", job="fwd", kind="a"} 10
{__name__="y", instance="a:1", job="fwd", kind="b"} 20`)
}

// Rules that change are taken over by the next query, and by no other.
func TestRelabelReloaded(t *testing.T) {
	g := process("a:1", 0, 30, false)
	now := t0 + 30_000
	var rules atomic.Pointer[relabel.Rules]
	e := query.New(query.Options{Sources: querytest.Segments{g}, Now: func() time.Time { return time.UnixMilli(now) }, Rules: query.NewRules(rules.Load)})
	want(t, "none", instant(t, e, `count({job="fwd"})`, now), `{} 9`)
	pq, err := e.Instant(t.Context(), `count({job="fwd"})`, time.UnixMilli(now), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rules.Store(rulesOf(t, `[{action: keep, source_labels: [__name__], regex: y}]`))
	want(t, "some", instant(t, e, `count({job="fwd"})`, now), `{} 2`)
	want(t, "one that began before", render(pq.Exec(t.Context()), now), `{} 9`)
	rules.Store(&relabel.Rules{})
	want(t, "none again", instant(t, e, `count({job="fwd"})`, now), `{} 9`)
}

// Shown are the series that anything is left of.
func TestRelabelShown(t *testing.T) {
	g := process("a:1", 0, 30, false)
	shown := func(rules string) (out []string) {
		r := rulesOf(t, rules)
		list := query.NewRules(func() *relabel.Rules { return r })
		for _, s := range list.Shown(g, g.Series()) {
			out = append(out, s.Name)
		}
		if a, b := list.Shown(g, g.Series()), list.Shown(g, g.Series()); len(a) > 0 && &a[0] != &b[0] {
			t.Error("want the same slice again")
		}
		return out
	}
	for rules, want := range map[string]string{
		`[]`: "[x y y z]",
		`[{action: drop, source_labels: [__name__], regex: x_total}]`:     "[y y z]",
		`[{action: drop, source_labels: [kind], regex: a}]`:               "[x y z]",
		`[{action: drop, source_labels: [__name__], regex: z_.*}]`:        "[x y y z]", // z itself is there
		`[{action: drop, source_labels: [__name__], regex: "z|z_.*"}]`:    "[x y y]",
		`[{action: labeldrop, regex: kind}]`:                              "[x y y z]", // who collides is not dropped
		`[{action: keep, source_labels: [instance], regex: nobody}]`:      "[]",
		`[{action: labeldrop, regex: __name__}]`:                          "[]",
		`[{action: drop, source_labels: [__name__], regex: target_info}]`: "[x y y z]",
	} {
		if got := fmt.Sprint(shown(rules)); got != want {
			t.Errorf("%s: want %s, got %s", rules, want, got)
		}
	}
}

// archivedSegment shares its series with others, as an archive's do.
type archivedSegment struct {
	*querytest.Segment
	series []*reader.Series
	labels []reader.Pair
}

func (a archivedSegment) Labels() []reader.Pair    { return a.labels }
func (a archivedSegment) Series() []*reader.Series { return a.series }
func (a archivedSegment) Starts() []int64          { return make([]int64, len(a.series)) }
func (a archivedSegment) Span(int, int) query.Span {
	return query.Span{Oldest: 0, Newest: math.MaxInt64}
}

// With rules, what is selected, listed and counted is what there is without, relabelled and then selected: random rules over random
// sources, living ones and such as share their series.
func TestRelabelDifferential(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	name := func() string { return pick("x_total", "y", "z", "z_max", "target_info", "[xy].*", "z.*") }
	label := func() string { return pick("job", "instance", "queue", "kind", "version", "dc") }
	value := func() string { return pick("fwd", "web", "a:1", "b:1", "c:1", "1", "a", "b", "") }
	rule := func() string {
		switch rnd.IntN(9) {
		case 0:
			return fmt.Sprintf(`{action: drop, source_labels: [__name__], regex: "%s"}`, name())
		case 1:
			return fmt.Sprintf(`{action: drop, source_labels: [%s, __name__], regex: "%s;%s"}`, label(), value(), name())
		case 2:
			return fmt.Sprintf(`{action: keep, source_labels: [%s], regex: "%s|.*[a1].*|"}`, label(), value())
		case 3:
			return fmt.Sprintf(`{source_labels: [%s], target_label: %s, replacement: "%s$1"}`, label(), label(), pick("", "n"))
		case 4:
			return fmt.Sprintf(`{source_labels: [__name__, %s], regex: "%s;(.*)", target_label: __name__, replacement: "m_$1"}`, label(), name())
		case 5:
			return fmt.Sprintf(`{action: labeldrop, regex: "%s"}`, label())
		case 6:
			return fmt.Sprintf(`{action: labelmap, regex: "(%s)", replacement: "%s"}`, label(), label())
		case 7:
			return fmt.Sprintf(`{action: hashmod, source_labels: [%s], modulus: 2, target_label: %s}`, label(), pick("shard", "dc", "job"))
		default:
			return fmt.Sprintf(`{source_labels: [%s], regex: "%s", target_label: "%s", replacement: "%s"}`, label(), value(), label(), value())
		}
	}
	var segments querytest.Segments
	for i, instance := range []string{"a:1", "b:1", "c:1"} {
		for k, job := range []string{"fwd", "web"} {
			g := process(instance, int64(i), 20, false)
			if i == 0 && k == 0 {
				g.Override(g.Series()[1], querytest.Pairs("shmts_segment", "0123"))
			}
			l := querytest.Pairs("job", job, "instance", instance)
			if k == 1 {
				l = querytest.Pairs("job", job, "instance", instance, "dc", "east")
			}
			if i > 0 && k == 0 {
				segments = append(segments, labelled{g, l})
				continue
			}
			shared := segmentOf(segments)
			if shared == nil {
				shared = g.Series()
			}
			segments = append(segments, archivedSegment{g, shared, l})
		}
	}
	now := t0 + 20_000
	clock := func() time.Time { return time.UnixMilli(now) }
	plain := query.New(query.Options{Sources: segments, Now: clock})
	all := seriesOf(t, plain, labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, ".+"))
	if len(all) < 50 {
		t.Fatalf("want more series, got %d", len(all))
	}
	found, rules := 0, 0
	for range 3000 {
		var list []string
		for range 1 + rnd.IntN(4) {
			list = append(list, rule())
		}
		text := "[" + strings.Join(list, ", ") + "]"
		r := rulesOf(t, text)
		o := query.Options{Sources: segments, Now: clock, Rules: query.NewRules(func() *relabel.Rules { return r })}
		seen := all
		if rnd.IntN(3) == 0 { // somebody who may not see everything: rules are for what he sees
			var list [][]*labels.Matcher
			for range 1 + rnd.IntN(2) {
				list = append(list, []*labels.Matcher{labels.MustNewMatcher(labels.MatchType(rnd.IntN(2)), pick("job", "instance", "kind", "queue", model.MetricNameLabel), pick(value(), "x_total", "y"))})
			}
			scope, err := query.NewScope(list)
			if err != nil {
				t.Fatal(err)
			}
			o.Scope = scope
			text += " of " + scope.String()
			seen = slices.DeleteFunc(slices.Clone(all), func(ls labels.Labels) bool {
				return !slices.ContainsFunc(list, func(m []*labels.Matcher) bool { return m[0].Matches(ls.Get(m[0].Name)) })
			})
		}
		e := query.New(o)
		expect := map[string]labels.Labels{}
		dropped := map[int]uint64{}
		for _, ls := range seen {
			out, outcome := r.Apply(ls)
			if outcome == relabel.Kept {
				expect[out.String()] = out
			} else {
				dropped[outcome]++
			}
		}
		for range 3 {
			matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, model.MetricNameLabel, pick(".+", name(), "m_.*"))}
			if rnd.IntN(2) == 0 {
				matchers = append(matchers, labels.MustNewMatcher(labels.MatchType(rnd.IntN(4)), label(), value()))
			}
			var want []string
			for text, ls := range expect {
				if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) }) {
					want = append(want, text)
				}
			}
			var got []string
			for _, ls := range seriesOf(t, e, matchers...) {
				got = append(got, ls.String())
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(want, got) {
				t.Fatalf("%s\n%v\nwant %d series\n%s\ngot %d\n%s", text, matchers, len(want), strings.Join(want, "\n"), len(got), strings.Join(got, "\n"))
			}
			found += len(got)
		}
		rules++
		wantNames := map[string]bool{}
		for _, ls := range expect {
			ls.Range(func(l labels.Label) { wantNames[l.Name] = true })
		}
		q, err := e.Querier(now-60_000, now)
		if err != nil {
			t.Fatal(err)
		}
		gotNames, _, err := q.LabelNames(context.Background(), nil)
		if err != nil || !slices.Equal(gotNames, slices.Sorted(maps.Keys(wantNames))) {
			t.Fatalf("%s\nwant label names %v, got %v, %v", text, slices.Sorted(maps.Keys(wantNames)), gotNames, err)
		}
		q.Close()
		c, err := e.Cardinality(t.Context(), 1000)
		if err != nil || c.Series != len(expect) {
			t.Fatalf("%s\nwant %d series counted, got %+v, %v", text, len(expect), c, err)
		}
		for _, d := range c.Dropped {
			switch d.Reason {
			case query.ReasonRelabel:
				if dropped[d.Rule-1] != d.Series || r.Action(d.Rule-1) != d.Action {
					t.Fatalf("%s\nwant %v dropped, got %+v", text, dropped, d)
				}
				delete(dropped, d.Rule-1)
			case query.ReasonNameless:
				delete(dropped, relabel.Nameless)
			case query.ReasonInvalid:
				delete(dropped, relabel.Invalid)
			}
		}
		if len(dropped) > 0 {
			t.Fatalf("%s\nnot counted: %v, of %+v", text, dropped, c.Dropped)
		}
	}
	if found < rules*10 {
		t.Errorf("want more found, got %d series in %d", found, rules)
	}
}

// labelled is a segment of other labels.
type labelled struct {
	*querytest.Segment
	labels []reader.Pair
}

func (l labelled) Labels() []reader.Pair { return l.labels }

func segmentOf(segments querytest.Segments) []*reader.Series {
	for _, s := range segments {
		if a, ok := s.(archivedSegment); ok {
			return a.series
		}
	}
	return nil
}

func seriesOf(t *testing.T, e *query.Engine, matchers ...*labels.Matcher) (out []labels.Labels) {
	t.Helper()
	q, err := e.Querier(t0, t0+20_000)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	set := q.Select(t.Context(), true, &storage.SelectHints{Start: t0, End: t0 + 20_000, Func: "series"}, matchers...)
	for set.Next() {
		out = append(out, set.At().Labels())
	}
	if set.Err() != nil {
		t.Fatal(set.Err())
	}
	return out
}
