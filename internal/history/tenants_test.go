package history_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/internal/server"
	"github.com/shmts/shmts/reader"
)

// A plot is what happens on a stage, decided beforehand: so the same happens where only a part of it is there.
type plot struct {
	actors []actor
	length int64 // s
	rest   int64 // s, after which everything is asked for
}

type actor struct {
	uid        int
	labels     []string // of the source
	attributes []string
	series     []reader.Series
	late       int // series from here on are registered later
	born, dies int64
	goes       int64 // is unlinked
	flushed    []int64
	seed       uint64
}

func pick[T any](rnd *rand.Rand, of ...T) T { return of[rnd.IntN(len(of))] }

func newPlot(rnd *rand.Rand) *plot {
	p := &plot{length: 150 + rnd.Int64N(250), rest: pick(rnd, int64(0), 0, 30, 400)}
	for range 3 + rnd.IntN(8) {
		a := actor{uid: 1000 + rnd.IntN(3), seed: rnd.Uint64(), born: rnd.Int64N(p.length / 2)}
		a.dies = a.born + 5 + rnd.Int64N(p.length)
		a.goes = a.dies + rnd.Int64N(60)
		a.labels = []string{"job", pick(rnd, "a", "a", "b", "c"), "instance", fmt.Sprintf("h:%d", rnd.IntN(3))}
		if rnd.IntN(2) == 0 {
			a.labels = append(a.labels, "zone", pick(rnd, "x", "y"))
		}
		if rnd.IntN(3) > 0 {
			a.attributes = []string{"os", pick(rnd, "linux", "plan9"), "host.name", fmt.Sprint("secret-", len(p.actors))}
		}
		for k := range 2 + rnd.IntN(10) {
			d := &reader.Definition{Name: fmt.Sprintf("m%d", rnd.IntN(5)), Kind: pick(rnd, reader.Counter, reader.Gauge, reader.UpDown, reader.Stat, reader.Histogram), Number: reader.F64, Help: fmt.Sprint("help of ", k)}
			d.Name += d.Kind.String() // of one name, all are of a kind
			if rnd.IntN(2) == 0 {
				d.Labels = append(d.Labels, reader.Pair{Name: "team", Value: pick(rnd, "red", "blue")})
			}
			d.Labels = append(d.Labels, reader.Pair{Name: "v", Value: fmt.Sprintf("%d-%d", len(p.actors), k)})
			switch d.Kind {
			case reader.UpDown:
				d.Number = reader.I64
			case reader.Histogram:
				d.Table, d.Buckets = 1, reader.BucketRange{Scale: 0, Min: -2, Count: 6}
			case reader.Stat:
				d.NonNegative = true
			}
			a.series = append(a.series, reader.Series{Definition: d})
		}
		a.late = rnd.IntN(len(a.series) + 1)
		for t := a.born; t < p.length; t += 1 + rnd.Int64N(50) {
			a.flushed = append(a.flushed, t)
		}
		p.actors = append(p.actors, a)
	}
	return p
}

// play has it happen, but for what is not to be seen: nil sees everything.
func (p *plot) play(t *testing.T, sees func(a *actor, ls labels.Labels) bool) *stage {
	s := newStage(t, 0)
	type role struct {
		*actor
		p       *process
		handles map[int]handle // by index in series
		rnd     *rand.Rand
		flush   []int64
	}
	roles := make([]*role, len(p.actors))
	for now := range p.length {
		s.now = t0 + now*1000
		for i := range p.actors {
			a := &p.actors[i]
			r := roles[i]
			if r == nil && now == a.born {
				r = &role{actor: a, handles: map[int]handle{}, rnd: rand.New(rand.NewPCG(a.seed, 2)), flush: a.flushed}
				roles[i] = r
				any := false
				for k := range a.series {
					any = any || sees == nil || sees(a, a.of(k))
				}
				target := sees == nil || sees(a, a.target())
				if any || target && len(a.attributes) > 0 {
					s.ids = i
					r.p = s.bare(a.labels...)
					r.p.uid = a.uid
					if target {
						r.p.Attribute(querytest.Pairs(a.attributes...))
						r.p.all.Attribute(querytest.Pairs(a.attributes...))
					}
				}
			}
			if r == nil || r.p == nil || slices.Contains(s.dead, r.p) {
				continue
			}
			for k := range a.series {
				if _, has := r.handles[k]; has || k >= a.late && now < a.born+7 || sees != nil && !sees(a, a.of(k)) || r.p.final {
					continue
				}
				d := *a.series[k].Definition
				r.handles[k] = r.p.register(s.now, reader.Series{Definition: &d})
			}
			if !r.p.final {
				for k := range a.series {
					n := r.rnd.IntN(9)
					if h, ok := r.handles[k]; ok {
						h.set(func(v *reader.Value) {
							v.Unset = false
							switch v.Kind {
							case reader.Histogram:
								v.Buckets[n%6]++
								v.Sum += float64(n)
								v.Count++
							case reader.Gauge:
								v.Float = float64(n)
							case reader.Stat:
								v.Last, v.Min, v.Max = float64(n), float64(n), float64(n)
								v.Sum += float64(n)
								v.Count++
							default:
								v.Float += float64(n)
								v.Int += int64(n)
							}
						})
					}
				}
				r.p.tick(s.now, now >= a.dies)
			}
			for len(r.flush) > 0 && r.flush[0] <= now {
				r.flush = r.flush[1:]
				for table := range 2 {
					s.flush(r.p, table, 1<<30, 60)
				}
			}
			if r.p.final && now >= a.goes {
				for table := range 2 {
					s.flush(r.p, table, 1<<30, 60)
				}
				for table, tier := range []int{1, 2} {
					s.fold(r.p, table, tier, 1000)
				}
				s.unlink(r.p)
			}
		}
	}
	s.now += p.rest * 1000
	return s
}

// bare is a process without attributes.
func (s *stage) bare(labels ...string) *process {
	s.ids++
	p := &process{Segment: querytest.New(s.now, querytest.Pairs(labels...), s.rings...), all: querytest.New(s.now, querytest.Pairs(labels...), every...),
		stage: s, inode: uint64(s.ids), heads: make([]uint64, 2), last: []int64{s.now, s.now}, archived: make([]int, 2), folded: map[fold]int{}}
	p.id = sha256Of(s.ids)
	p.group = p.id
	s.store = append(s.store, p)
	s.publish()
	return p
}

// of is what PromQL calls a series; of a stat, one of its five.
func (a *actor) of(k int) labels.Labels {
	d := a.series[k].Definition
	name := d.Name
	if d.Kind == reader.Counter {
		name += "_total"
	}
	b := labels.NewBuilder(labels.FromStrings(a.labels...)).Set("__name__", name)
	for _, p := range d.Labels {
		b.Set(p.Name, p.Value)
	}
	return b.Labels()
}

func (a *actor) target() labels.Labels {
	b := labels.NewBuilder(labels.FromStrings(a.labels...)).Set("__name__", "target_info")
	for i := 0; i < len(a.attributes); i += 2 {
		b.Set(strings.ReplaceAll(a.attributes[i], ".", "_"), a.attributes[i+1])
	}
	return b.Labels()
}

// restrict is an engine over what a tenant may see of a stage.
func (s *stage) restrict(uids []int, scope *query.Scope) *query.Engine {
	var sieve *query.Sieve
	if scope != nil {
		sieve = query.NewSieve(scope)
	}
	sees := func(uid int) bool { return uids == nil || slices.Contains(uids, uid) }
	var kept []history.Living
	for _, l := range s.living {
		if sees(l.UID()) && (sieve == nil || sieve.Keep([]query.Segment{l})[0]) {
			kept = append(kept, l)
		}
	}
	h := history.New(history.Options{Living: func() []history.Living { return kept }, Left: func() int64 { return s.left }, Archive: s.archive, UID: sees, Scope: scope})
	return query.New(query.Options{Sources: h, Scope: scope, Now: s.time})
}

// requests are everything that can be asked.
func requests(now, length int64) (out []*http.Request) {
	get := func(path string, kv ...string) {
		v := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			v.Add(kv[i], kv[i+1])
		}
		out = append(out, httptest.NewRequest(http.MethodGet, path+"?"+v.Encode(), nil))
	}
	at := func(ms int64) string { return fmt.Sprintf("%d.%03d", ms/1000, ms%1000) }
	const api = "/api/v1/"
	for _, q := range []string{
		`{__name__!=""}`, `{job="a"}`, `{team="red"}`, `{zone=""}`, `{v=~".*"}`, `count({__name__=~".+"})`, `count by (job, instance) ({__name__!=""})`,
		`sum by (team) (rate({__name__=~".*_total"}[1m]))`, `m0stat_max or m1stat_max`, `histogram_count({__name__=~"m.histogram"})`, `sum(m2histogram_count)`, `topk(3, {__name__=~"m.*"})`,
		`target_info`, `info({__name__=~"m.*"})`, `info({__name__=~"m.*"}, {host_name=~".+"})`, `label_replace({job=~".+"}, "x", "$1", "v", "(.*)")`, `absent(m1gauge{job="b"})`,
		`count_over_time({__name__=~"m.*"}[5m])`, `max_over_time({__name__=~"m.gauge"}[2m])`, `last_over_time({shmts_segment!=""}[10m])`, `scalar(count({uid!=""}))`,
		`m0gauge / on (instance) group_left (zone) m0gauge`, `quantile(0.5, {__name__=~"m.gauge"})`, `{__name__=~".*_bucket"}`, `m0histogram_bucket`, `vector(1)`,
	} {
		get(api+"query", "query", q, "time", at(now))
		get(api+"query", "query", q, "time", at(now-60_000))
		get(api+"query_range", "query", q, "start", at(now-length), "end", at(now), "step", "13")
		get(api+"query_range", "query", q, "start", at(now-length), "end", at(now), "step", "60")
		get(api+"query_exemplars", "query", q, "start", at(now-length), "end", at(now))
	}
	get(api+"query", "query", "x[", "time", at(now))
	for _, m := range []string{`{__name__!=""}`, `{job="b"}`, `target_info`, `{team="blue"}`, `{v=~"1-.*"}`} {
		get(api+"series", "match[]", m, "start", at(now-length), "end", at(now))
		get(api+"series", "match[]", m, "limit", "2")
		get(api+"labels", "match[]", m)
		get("/federate", "match[]", m)
		for _, name := range []string{"__name__", "job", "instance", "zone", "team", "v", "host_name", "os", "shmts_segment"} {
			get(api+"label/"+name+"/values", "match[]", m, "start", at(now-length), "end", at(now))
		}
	}
	get(api + "labels")
	get(api + "label/v/values")
	get(api+"label/v/values", "limit", "3")
	get(api + "metadata")
	get(api+"metadata", "metric", "m1gauge")
	get(api+"metadata", "limit", "2")
	get(api + "targets")
	get(api + "targets/metadata")
	get(api + "rules")
	get(api + "status/tsdb")
	get(api+"status/tsdb", "limit", "100")
	get(api + "status/tsdb/blocks")
	for _, kind := range []uint64{0, 1} {
		matcher := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1) // not equal
		matcher = protowire.AppendString(protowire.AppendTag(matcher, 2, protowire.BytesType), "__name__")
		matcher = protowire.AppendString(protowire.AppendTag(matcher, 3, protowire.BytesType), "no such")
		q := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(now-length))
		q = protowire.AppendVarint(protowire.AppendTag(q, 2, protowire.VarintType), uint64(now))
		q = protowire.AppendBytes(protowire.AppendTag(q, 3, protowire.BytesType), matcher)
		body := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), q)
		body = protowire.AppendVarint(protowire.AppendTag(body, 2, protowire.VarintType), kind)
		out = append(out, httptest.NewRequest(http.MethodPost, api+"read", bytes.NewReader(snappy.Encode(nil, body))))
	}
	return out
}

// asked is an answer in one order.
func asked(t *testing.T, h http.Handler, r *http.Request) string {
	t.Helper()
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.Clone(r.Context()))
	r.Body = io.NopCloser(bytes.NewReader(body))
	if w.Code >= 500 || w.Code == 401 || w.Code == 403 {
		t.Errorf("%s: got %d %s", r.URL, w.Code, w.Body)
	}
	text := w.Body.String()
	var v any
	if json.Unmarshal([]byte(text), &v) == nil {
		b, _ := json.Marshal(sorted(v))
		text = string(b)
	} else if r.URL.Path == "/federate" {
		lines := strings.Split(text, "\n")
		sort.Strings(lines)
		text = strings.Join(lines, "\n")
	}
	return fmt.Sprint(w.Code, " ", text)
}

// sorted puts lists of series in one order.
func sorted(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = sorted(v[k])
			if list, ok := v[k].([]any); ok && (k == "infos" || k == "warnings") { // the engine keeps them in a map
				sort.Slice(list, func(i, j int) bool { return fmt.Sprint(list[i]) < fmt.Sprint(list[j]) })
			}
		}
	case []any:
		if len(v) > 0 {
			if _, objects := v[0].(map[string]any); objects {
				sort.Slice(v, func(i, k int) bool {
					a, _ := json.Marshal(v[i])
					b, _ := json.Marshal(v[k])
					return bytes.Compare(a, b) < 0
				})
			}
		}
	}
	return v
}

// What a tenant is told, by every endpoint, is what a daemon would tell that has nothing else than what the tenant may see.
func TestTenantsSeeTheirOwn(t *testing.T) {
	p := parser.NewParser(parser.Options{})
	saw, compared := 0, 0
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 77))
		plot := newPlot(rnd)
		whole := plot.play(t, nil)
		for range 3 {
			var uids []int
			if rnd.IntN(2) == 0 {
				uids = []int{1000 + rnd.IntN(3)}
			}
			var match []string
			for range rnd.IntN(3) {
				match = append(match, pick(rnd, `{job="a"}`, `{job!="a",instance!=""}`, `{job=~"a|c",zone="x"}`, `{team="red"}`, `{team="red",zone=""}`, `{instance="h:1"}`,
					`{__name__=~"m[0-2].*"}`, `{__name__=~"m.gauge",job="b"}`, `{v=~"[0-4]-.*"}`, `{zone=~"x|y",team!="blue"}`))
			}
			if uids == nil && match == nil {
				continue
			}
			var scope *query.Scope
			var selectors [][]*labels.Matcher
			for _, m := range match {
				s, err := p.ParseMetricSelector(m)
				if err != nil {
					t.Fatal(err)
				}
				selectors = append(selectors, s)
			}
			if match != nil {
				var err error
				if scope, err = query.NewScope(selectors); err != nil {
					t.Fatal(err)
				}
			}
			sees := func(a *actor, ls labels.Labels) bool {
				return (uids == nil || slices.Contains(uids, a.uid)) && (match == nil || slices.ContainsFunc(selectors, func(s []*labels.Matcher) bool {
					return !slices.ContainsFunc(s, func(m *labels.Matcher) bool { return !m.Matches(ls.Get(m.Name)) })
				}))
			}
			part := plot.play(t, sees)
			tenant := &server.Tenant{Name: "t", Engine: whole.restrict(uids, scope)}
			got := server.New(server.Options{Tenants: []*server.Tenant{tenant}, Who: func(*http.Request) (*server.Tenant, error) { return tenant, nil }, Now: whole.time})
			want := server.New(server.Options{Engine: part.engine, Now: part.time})
			everything := server.New(server.Options{Engine: whole.engine, Now: whole.time})
			now := whole.now
			if part.now != now {
				t.Fatal("the two do not end at one time")
			}
			for _, r := range requests(now, plot.length*1000) {
				compared++
				g, w := asked(t, got, r), asked(t, want, r)
				if g != w {
					t.Errorf("seed %d, uids %v, match %q: %s:\ngot  %.1500s\nwant %.1500s", seed, uids, match, r.URL, g, w)
					return
				}
				if strings.Contains(w, "secret") || len(w) > 200 {
					saw++
				}
				if e := asked(t, everything, r); e == g && len(part.store)+len(part.dead) == 0 && strings.Contains(e, "h:") {
					t.Errorf("seed %d: %s: a tenant that sees nothing is told what one is who sees everything: %.300s", seed, r.URL, e)
				}
			}
		}
	}
	t.Logf("%d answers compared, %d of them with something in it", compared, saw)
	if saw < compared/10 {
		t.Errorf("want something to be seen in many of %d answers, got it in %d", compared, saw)
	}
}
