package history_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/reader"
)

// traces are the exemplars of a stage: of each process all that there ever were, and of those the ones that are in memory.
type traces struct {
	s      *stage
	all    map[*process][]reader.Exemplar
	forgot map[*process]int // so many are not in memory any more
	stored map[*process]int // so many are archived
	engine *query.Engine
}

func newTraces(s *stage) *traces {
	x := &traces{s: s, all: map[*process][]reader.Exemplar{}, forgot: map[*process]int{}, stored: map[*process]int{}}
	h := history.New(history.Options{Living: func() []history.Living { return s.living }, Left: func() int64 { return s.left }, Archive: s.reads, Recent: x})
	x.engine = query.New(query.Options{Sources: h, Now: s.time})
	return x
}

// Above implements history.Recent.
func (x *traces) Above(segment string, inode, after uint64, yield func(*reader.Exemplar) bool) {
	for _, p := range x.s.store {
		if p.ID() != segment || p.inode != inode {
			continue
		}
		list := x.all[p][x.forgot[p]:]
		for i := range list {
			if list[i].Number > after && !yield(&list[i]) {
				return
			}
		}
	}
}

// leave has a series leave an exemplar now.
func (x *traces) leave(p *process, h handle, value float64) {
	n := len(x.all[p]) + 1
	x.all[p] = append(x.all[p], reader.Exemplar{Number: uint64(n), Series: h.sa, Value: value, Time: x.s.now*1e6 + 123, TraceID: [16]byte{byte(n), byte(n >> 8), byte(p.inode)}})
}

// archive writes those of a process up to a number.
func (x *traces) archive(p *process, until int) {
	for until = min(until, len(x.all[p])); x.stored[p] < until; {
		list := x.all[p][x.stored[p]:until]
		table := list[0].Series.Table
		part := archive.Exemplars{Source: p.source()}
		var series []*reader.Series
		for _, sr := range p.all.Series() {
			if sr.Table == table {
				series = append(series, sr)
			}
		}
		part.Schema = p.schema(table, series)
		for _, e := range list {
			if e.Series.Table != table {
				break
			}
			at := slices.IndexFunc(series, func(sr *reader.Series) bool { return sr.Name == e.Series.Name })
			part.List = append(part.List, archive.Exemplar{Number: e.Number, Series: at, Value: e.Value, Time: e.Time, TraceID: e.TraceID, SpanID: e.SpanID})
			x.stored[p]++
		}
		if err := x.s.archive.AppendExemplars(part); err != nil {
			x.s.t.Fatal(err)
		}
	}
}

// ask is what a query says, a line for each exemplar, sorted.
func (x *traces) ask(q string, start, end int64) []string {
	x.s.t.Helper()
	expr, err := x.engine.Parse(q)
	if err != nil {
		x.s.t.Fatal(err)
	}
	found, warnings, err := x.engine.Exemplars(context.Background(), expr, start, end)
	if err != nil || len(warnings) > 0 {
		x.s.t.Fatalf("%s: %v, %v", q, err, warnings)
	}
	var lines []string
	for _, s := range found {
		last := int64(math.MinInt64)
		for _, e := range s.Exemplars {
			if e.Time < last {
				x.s.t.Errorf("%s: %s: want exemplars in the order of their times", q, s.Labels)
			}
			last = e.Time
			lines = append(lines, fmt.Sprintf("%s %x %v %d", s.Labels, e.TraceID[:3], e.Value, e.Time/1e6-t0))
		}
	}
	sort.Strings(lines)
	return lines
}

// want is what it should say of series with a name, given labels.
func (x *traces) want(name string, start, end int64, labels func(p *process, e reader.Exemplar) string) []string {
	var lines []string
	for p, all := range x.all {
		for i, e := range all {
			archived, remembered := i < x.stored[p], i >= x.forgot[p] && slices.Contains(x.s.store, p)
			if e.Series.Name != name || !archived && !remembered || e.Time/1e6 < start || e.Time/1e6 > end {
				continue
			}
			lines = append(lines, fmt.Sprintf("%s %x %v %d", labels(p, e), e.TraceID[:3], e.Value, e.Time/1e6-t0))
		}
	}
	sort.Strings(lines)
	return lines
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: want\n\t%s\ngot\n\t%s", what, strings.Join(want, "\n\t"), strings.Join(got, "\n\t"))
	}
}

func instanceOf(p *process) string {
	for _, l := range p.Labels() {
		if l.Name == "instance" {
			return l.Value
		}
	}
	return ""
}

// Wherever exemplars are, in memory, in the archive, in both, each is there once, under the names that its series has.
func TestExemplars(t *testing.T) {
	for seed := range uint64(5) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		s := newStage(t, 0)
		x := newTraces(s)
		apps := []*app{s.app(rnd, "job", "fwd", "instance", "h:1"), s.app(rnd, "job", "fwd", "instance", "h:2"), s.app(rnd, "job", "other", "instance", "h:3")}
		check := func(what string) {
			t.Helper()
			for _, sp := range [][2]int64{{t0, s.now + 1000}, {t0 + 20_000, t0 + 40_000}, {s.now - 5000, s.now}} {
				x_ := func(p *process, e reader.Exemplar) string {
					return fmt.Sprintf(`{__name__="x_total", dev="a", instance=%q, job=%q}`, instanceOf(p), map[bool]string{true: "other", false: "fwd"}[instanceOf(p) == "h:3"])
				}
				same(t, what+": x_total", x.ask("x_total", sp[0], sp[1]), x.want("x", sp[0], sp[1], x_))
				same(t, what+": twice in an expression", x.ask(`rate(x_total[1m]) / sum(x_total{dev="a"})`, sp[0], sp[1]), x.want("x", sp[0], sp[1], x_))
				one := slices.DeleteFunc(x.want("x", sp[0], sp[1], x_), func(line string) bool { return !strings.Contains(line, `"h:1"`) })
				same(t, what+": of one instance", x.ask(`x_total{instance="h:1"}`, sp[0], sp[1]), one)
				lat := func(p *process, e reader.Exemplar) string {
					return strings.NewReplacer(`"x_total", dev="a"`, `"lat"`).Replace(x_(p, e))
				}
				same(t, what+": lat", x.ask("histogram_quantile(0.9, rate(lat[1m]))", sp[0], sp[1]), x.want("lat", sp[0], sp[1], lat))
				bucket := func(p *process, e reader.Exemplar) string {
					le := "+Inf"
					for b := -2; b <= 4; b++ { // of scale 0, from 2^-2 on
						if bound := math.Pow(2, float64(b)); e.Value <= bound {
							le = fmt.Sprint(bound)
							if bound >= 1 {
								le += ".0"
							}
							break
						}
					}
					return strings.NewReplacer(`__name__="lat", `, `__name__="lat_bucket", `, `, job=`, `, job=`, `}`, `, le="`+le+`"}`).Replace(lat(p, e))
				}
				same(t, what+": classic buckets", x.ask("lat_bucket", sp[0], sp[1]), x.want("lat", sp[0], sp[1], bucket))
				same(t, what+": counts have none", x.ask("lat_count + lat_sum + g", sp[0], sp[1]), nil)
				same(t, what+": one bucket", x.ask(`lat_bucket{le="0.5"}`, sp[0], sp[1]),
					slices.DeleteFunc(x.want("lat", sp[0], sp[1], bucket), func(line string) bool { return !strings.Contains(line, `le="0.5"`) }))
			}
		}
		for i := range 120 {
			s.now = t0 + int64(i+1)*700
			for _, a := range apps {
				a.work(s.now, false)
				for range rnd.IntN(3) {
					x.leave(a.process, a.x, float64(rnd.IntN(5)))
				}
				if rnd.IntN(2) == 0 {
					x.leave(a.process, a.h, []float64{0.1, 0.25, 0.3, 0.5, 1, 3, 16, 17, 1e6}[rnd.IntN(9)])
				}
			}
			p := apps[rnd.IntN(3)].process
			switch n := len(x.all[p]); rnd.IntN(3) {
			case 0:
				x.archive(p, n-rnd.IntN(4))
			case 1: // memory is bounded: what was written goes first
				x.forgot[p] = max(x.forgot[p], min(x.stored[p], n-rnd.IntN(20)))
			}
		}
		check("living")
		clear(x.forgot)
		for _, a := range apps { // a daemon that starts has what the rings still hold
			x.forgot[a.process] = max(len(x.all[a.process])-8, 0)
		}
		check("after a restart")
		p := apps[0].process
		apps[0].work(s.now+500, true)
		x.archive(p, 1<<30)
		check("ended")
		for table := range 2 {
			s.flush(p, table, 1<<30, 20)
		}
		s.unlink(p)
		check("unlinked")
		s.unlink(apps[1].process) // nothing of its rows was archived: exemplars know who they are of
		x.archive(apps[1].process, 1<<30)
		check("exemplars without rows")
	}
}

// Of two lives that had a series at the same time, the older one's exemplars have the label that its rows have.
func TestExemplarsOverlap(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	s := newStage(t, 0)
	x := newTraces(s)
	a := s.app(rnd, "job", "fwd", "instance", "h:1")
	var b *app
	for i := range 60 {
		s.now = t0 + int64(i+1)*1000
		if i == 20 {
			b = s.app(rnd, "job", "fwd", "instance", "h:1")
		}
		a.work(s.now, i == 59)
		x.leave(a.process, a.x, float64(i))
		if b != nil {
			b.work(s.now, i == 59)
			x.leave(b.process, b.x, float64(1000+i))
		}
	}
	for _, p := range []*process{a.process, b.process} {
		x.archive(p, 1<<30)
		for table := range 2 {
			s.flush(p, table, 1<<30, 50)
		}
		s.unlink(p)
	}
	short := fmt.Sprintf("%x", a.id)[:8]
	for _, c := range []struct {
		q     string
		lines int
	}{{"x_total", 100}, {`x_total{shmts_segment="` + short + `"}`, 60}, {`x_total{shmts_segment=""}`, 40}} {
		if got := x.ask(c.q, t0, s.now); len(got) != c.lines {
			t.Errorf("%s: want %d exemplars, got %d", c.q, c.lines, len(got))
		}
	}
	for _, line := range x.ask(`x_total{shmts_segment!=""}`, t0, s.now) {
		if !strings.Contains(line, `shmts_segment="`+short+`"`) {
			t.Errorf("want the label of the older life, got %s", line)
		}
	}
}

// A series that was retired, and of which no ring has a row any more, still has the exemplars that are archived.
func TestExemplarsOfRetiredSeries(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	s := newStage(t, 0)
	x := newTraces(s)
	a := s.app(rnd, "job", "fwd", "instance", "h:1")
	s.now += 1000
	x.leave(a.process, a.u, 7)
	x.archive(a.process, 1)
	x.leave(a.process, a.u, 8) // in memory alone
	a.u.retire()
	a.Forget(a.u.sa)
	got := x.ask("u_total", t0, s.now)
	if len(got) != 1 || !strings.Contains(got[0], `{__name__="u_total", instance="h:1", job="fwd"} 010001 7`) {
		t.Errorf("want the archived one, got %q", got)
	}
}

// What is too much is an error that says so; what can't be read of the archive is a warning.
func TestExemplarsLimits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	s := newStage(t, 0)
	x := newTraces(s)
	a := s.app(rnd, "job", "fwd", "instance", "h:1")
	for range 40 {
		x.leave(a.process, a.x, 1)
	}
	x.archive(a.process, 20)
	x.forgot[a.process] = 20
	h := history.New(history.Options{Living: func() []history.Living { return s.living }, Left: func() int64 { return s.left }, Archive: s.reads, Recent: x})
	for _, c := range []struct {
		samples int
		ok      bool
	}{{40 * query.ExemplarSamples, true}, {39 * query.ExemplarSamples, false}, {10 * query.ExemplarSamples, false}} {
		e := query.New(query.Options{Sources: h, Now: s.time, MaxSamples: c.samples})
		expr, err := e.Parse("x_total")
		if err != nil {
			t.Fatal(err)
		}
		found, _, err := e.Exemplars(context.Background(), expr, 0, s.now)
		switch {
		case c.ok && (err != nil || len(found) != 1 || len(found[0].Exemplars) != 40):
			t.Errorf("%d samples: want 40 exemplars, got %d series, %v", c.samples, len(found), err)
		case !c.ok && (err == nil || !strings.Contains(err.Error(), fmt.Sprintf("want at most %d exemplars", c.samples/query.ExemplarSamples))):
			t.Errorf("%d samples: want an error that says how many may be, got %v", c.samples, err)
		}
		// Others don't count.
		if expr, err = e.Parse("nothing"); err != nil {
			t.Fatal(err)
		}
		if found, _, err := e.Exemplars(context.Background(), expr, 0, s.now); err != nil || len(found) != 0 {
			t.Errorf("nothing: %v, %v", found, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	expr, err := x.engine.Parse("x_total")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.engine.Exemplars(ctx, expr, 0, s.now); err == nil {
		t.Error("canceled: want an error")
	}
}

// Without an archive there is what memory has; without either, nothing, and no error.
func TestExemplarsWithoutArchive(t *testing.T) {
	s := newStage(t, 0)
	x := newTraces(s)
	a := s.app(rand.New(rand.NewPCG(9, 9)), "job", "fwd", "instance", "h:1")
	a.work(s.now+1000, false)
	s.now += 2000
	x.leave(a.process, a.x, 1)
	for _, c := range []struct {
		recent history.Recent
		want   int
	}{{x, 1}, {nil, 0}} {
		e := query.New(query.Options{Sources: history.New(history.Options{Living: func() []history.Living { return s.living }, Recent: c.recent}), Now: func() time.Time { return time.UnixMilli(s.now) }})
		expr, err := e.Parse("x_total")
		if err != nil {
			t.Fatal(err)
		}
		found, _, err := e.Exemplars(context.Background(), expr, t0, s.now)
		if err != nil || len(found) != c.want {
			t.Errorf("want %d series, got %v, %v", c.want, found, err)
		}
		if res := ask(t, e, "x_total", s.now, s.now, 0); res.Err != nil || !strings.Contains(text(res), "x_total") {
			t.Errorf("rows: want one, got %v", text(res))
		}
	}
}

// A tenant sees the exemplars of its users, and of the series in its scope, and no others: of what runs, of what is in memory and archived, and of
// what the archive alone has.
func TestExemplarsOfTenants(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	s := newStage(t, 0)
	x := newTraces(s)
	var apps []*app
	for i, uid := range []int{1000, 1001, 1000, 1001} {
		a := s.app(rnd, "job", fmt.Sprint("j", i/2), "instance", fmt.Sprint("i", i))
		a.uid = uid
		apps = append(apps, a)
	}
	for i := range 20 {
		s.now = t0 + int64(i+1)*1000
		for _, a := range apps {
			a.work(s.now, i == 19)
			x.leave(a.process, a.x, 1)
			x.leave(a.process, a.u, 2)
		}
	}
	for i, a := range apps {
		x.archive(a.process, 30)
		if i%2 == 0 {
			x.forgot[a.process] = 10
		}
	}
	for _, a := range apps[:2] { // unlinked: the archive alone has them
		x.archive(a.process, 1<<30)
		s.unlink(a.process)
	}
	scope := func(selectors ...string) *query.Scope {
		e := query.New(query.Options{Sources: query.Snapshot(func() []query.Segment { return nil })})
		sets, err := e.Selectors(selectors)
		if err != nil {
			t.Fatal(err)
		}
		sc, err := query.NewScope(sets)
		if err != nil {
			t.Fatal(err)
		}
		return sc
	}
	for _, c := range []struct {
		what  string
		uid   int // 0: all
		scope *query.Scope
		want  func(i int, name string) bool
	}{
		{"a user", 1000, nil, func(i int, _ string) bool { return i%2 == 0 }},
		{"another", 1001, nil, func(i int, _ string) bool { return i%2 == 1 }},
		{"a job", 0, scope(`{job="j1"}`), func(i int, _ string) bool { return i/2 == 1 }},
		{"a series", 0, scope(`{dev="a"}`), func(_ int, name string) bool { return name == "x_total" }},
		{"a job's series, or an instance, of a user", 1001, scope(`{job="j0",__name__="u_total"}`, `{instance="i3"}`), func(i int, name string) bool { return i == 3 || i == 1 && name == "u_total" }},
		{"nothing", 7, nil, func(int, string) bool { return false }},
	} {
		sees := func(uid int) bool { return c.uid == 0 || uid == c.uid }
		var kept []history.Living
		for _, l := range s.living {
			if sees(l.UID()) {
				kept = append(kept, l)
			}
		}
		h := history.New(history.Options{Living: func() []history.Living { return kept }, Left: func() int64 { return s.left }, Archive: s.archive, Recent: x, UID: sees, Scope: c.scope})
		mine := &traces{s: s, engine: query.New(query.Options{Sources: h, Scope: c.scope, Now: s.time})}
		for _, q := range []string{`{__name__=~".+"}`, "x_total or u_total", `{job=~"j.*"}`} {
			var want, got []string
			for i := range apps {
				for _, name := range []string{"u_total", "x_total"} {
					if c.want(i, name) {
						want = append(want, fmt.Sprint("i", i, " ", name, " 20"))
					}
				}
			}
			n := map[string]int{}
			for _, line := range mine.ask(q, t0, s.now) {
				for i := range apps {
					for _, name := range []string{"u_total", "x_total"} {
						if strings.Contains(line, fmt.Sprintf(`instance="i%d"`, i)) && strings.Contains(line, `"`+name+`"`) {
							n[fmt.Sprint("i", i, " ", name)]++
						}
					}
				}
			}
			for k, v := range n {
				got = append(got, fmt.Sprint(k, " ", v))
			}
			sort.Strings(got)
			sort.Strings(want)
			same(t, c.what+": "+q, got, want)
		}
	}
}
