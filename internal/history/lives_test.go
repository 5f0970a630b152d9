package history_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/storage"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/history"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/reader"
)

// run has a process count one a second.
func run(s *stage, p *process, x handle, seconds int) {
	for range seconds {
		s.now += 1000
		x.set(func(v *reader.Value) { v.Float++; v.Int++ })
		p.tick(s.now, false)
	}
}

func (s *stage) one(labels ...string) (*process, handle) {
	s.rings = []reader.Table{scalars}
	p := s.born(labels...)
	return p, p.register(s.now, reader.Series{Definition: &reader.Definition{Name: "x", Kind: reader.Counter, Number: reader.U64}})
}

// end ends a process, and takes it out of the store, drained.
func (s *stage) end(p *process, x handle) {
	s.now += 300
	x.set(func(v *reader.Value) { v.Float++; v.Int++ })
	p.tick(s.now, true)
	s.flush(p, 0, 1<<30, 60)
	s.fold(p, 0, 1, 1<<30)
	s.unlink(p)
}

func vector(t *testing.T, s *stage, q string, at int64) string {
	t.Helper()
	return text(ask(t, s.engine, q, at, at, 0))
}

// Two lives of a source at one time are told apart, the older by shmts_segment, and it is the same label when both are archived, whatever
// part of their time is asked for.
func TestOverlap(t *testing.T) {
	s := newStage(t, 0)
	older, x1 := s.one("job", "fwd", "instance", "h:1")
	run(s, older, x1, 30)
	newer, x2 := s.one("job", "fwd", "instance", "h:1")
	for range 30 {
		s.now += 1000
		for _, p := range []*process{older, newer} {
			p.tick(s.now, false)
		}
	}
	mid := s.now - 10_000
	s.end(older, x1)
	run(s, newer, x2, 200)
	s.end(newer, x2)
	s.now += 600_000
	id := older.ID()[:8]
	label := fmt.Sprintf(`instance="h:1", job="fwd", shmts_segment=%q`, id)
	if got := vector(t, s, "count by (instance, job, shmts_segment) (x_total)", mid); !strings.Contains(got, label) || strings.Count(got, "=>") != 2 {
		t.Errorf("both: got %s", got)
	}
	// Before the newer one was born, and where it alone is left.
	if got := vector(t, s, "x_total", t0+20_000); !strings.Contains(got, label) {
		t.Errorf("before: want %s, got %s", label, got)
	}
	if got := vector(t, s, "x_total", mid+100_000); strings.Contains(got, "shmts_segment") || !strings.Contains(got, "h:1") {
		t.Errorf("after: want the newer one without the label, got %s", got)
	}
	// Asked again, the archive is not: who overlapped with whom does not change.
	before := s.reads.selects.Load()
	vector(t, s, "x_total", t0+20_000)
	if n := s.reads.selects.Load() - before; n != 1 {
		t.Errorf("want one select, got %d", n)
	}

	// A restart is no overlap: the next life goes on under the same labels, and increase is exact over the seam.
	s = newStage(t, 0)
	first, x1 := s.one("job", "fwd", "instance", "h:1")
	run(s, first, x1, 50)
	s.end(first, x1)
	second, x2 := s.one("job", "fwd", "instance", "h:1")
	run(s, second, x2, 50)
	for range 2 {
		if got := vector(t, s, "increase(x_total[5m] anchored)", s.now); got != `{instance="h:1", job="fwd"} => 101 @[`+fmt.Sprint(s.now)+`]` {
			t.Errorf("restart: want 101, got %s", got)
		}
		s.flush(second, 0, 1<<30, 7)
	}
	// A living one of the same labels that is older than an archived one is the one labelled.
	third, x3 := s.one("job", "fwd", "instance", "h:1")
	run(s, third, x3, 10)
	s.end(third, x3)
	run(s, second, x2, 1)
	if got := vector(t, s, `last_over_time(x_total{shmts_segment!=""}[30s])`, s.now); !strings.Contains(got, second.ID()[:8]) {
		t.Errorf("living: want it labelled, got %s", got)
	}
}

// A segment id that was used again, or whose rows were rewound, is another life. An epoch is not.
func TestCopiesAndEpochs(t *testing.T) {
	s := newStage(t, 0)
	p, x := s.one("job", "fwd", "instance", "h:1")
	run(s, p, x, 60)
	s.flush(p, 0, 30, 60)
	src := *p.source()
	other := src
	other.Copy, other.Inode = 0, 99 // what the archive has of this id is of another file
	write := func(src archive.Source, from, to, value int, start int64) {
		r := archive.Rows{Source: &src, Starts: []int64{start}, Base: uint64(to)}
		r.Cells = make([][]uint64, 1)
		for n := from; n <= to; n++ {
			r.Numbers, r.Times = append(r.Numbers, uint64(n)), append(r.Times, start+int64(n)*1000)
			r.Cells[0] = append(r.Cells[0], uint64(value+n))
		}
		_, series := p.rows(0)
		s.append(0, &archive.Block{Schema: p.schema(0, series), Step: steps[0], Sources: []archive.Rows{r}})
	}
	if got := number(t, s.engine, "count_over_time(x_total[2m])", s.now); got != 51 {
		t.Errorf("want 30 rows of the archive, 20 of the ring, and one of 10 s for those that are lost, got %g", got)
	}
	epoch := src
	epoch.Epoch = 1
	write(epoch, 31, 45, 0, t0) // rows 31 to 45, of the next epoch: the ring has 41 to 60
	if got := number(t, s.engine, "count_over_time(x_total[2m])", s.now); got != 60 {
		t.Errorf("with an epoch: want 60 rows, got %g", got)
	}
	if got := number(t, s.engine, "x_total", s.now); got != 60 {
		t.Errorf("with an epoch: want 60, got %g", got)
	}

	s2 := newStage(t, 0)
	q, y := s2.one("job", "fwd", "instance", "h:1")
	run(s2, q, y, 10)
	first := *q.source()
	first.Inode, first.Birth = 77, (t0-3_600_000)*1e6
	p, s = q, s2
	write(first, 1, 50, 1000, t0-3_600_000)
	if got := number(t, s.engine, "count(count_over_time(x_total[2h]))", s.now); got != 1 {
		t.Errorf("want one series, got %g", got)
	}
	if got := number(t, s.engine, "count_over_time(x_total[2h])", s.now); got != 60 {
		t.Errorf("want 50 rows of one file and 10 of the other, got %g", got)
	}
	if got := number(t, s.engine, "increase(x_total[2h] anchored)", s.now); got != 1050+10 {
		t.Errorf("want what both counted from 0, got %g", got)
	}
}

// What an ephemeral source took in counts once, wherever the finer tier begins.
func TestEphemeral(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	s := newStage(t, 0)
	total := 0.0
	var at []int64
	var sums []float64
	for i := range 40 {
		s.now = t0 + int64(i)*60_000
		p, x := s.one("job", "vm", "instance", fmt.Sprint("vm-", i))
		n := 1 + rnd.IntN(100)
		s.now += 1000
		x.set(func(v *reader.Value) { v.Float, v.Int = float64(n), int64(n) })
		p.tick(s.now, true)
		s.flush(p, 0, 1<<30, 60)
		total += float64(n)
		at, sums = append(at, s.now), append(sums, total)
		s.unlink(p)
	}
	src := archive.Source{Key: archive.Key{Segment: [16]byte{0xe}}, Birth: t0 * 1e6, Ephemeral: true, Labels: querytest.Pairs("job", "vm", "instance", "ephemeral")}
	r := archive.Rows{Source: &src, Starts: []int64{t0 - 1}, Cells: [][]uint64{nil}}
	for i, ms := range at {
		if b := (ms + 299_999) / 300_000; i+1 == len(at) || (at[i+1]+299_999)/300_000 != b {
			r.Numbers, r.Times, r.Coverage = append(r.Numbers, uint64(b)), append(r.Times, ms), append(r.Coverage, 1)
			r.Cells[0] = append(r.Cells[0], uint64(sums[i]))
			r.Base = uint64(b)
		}
	}
	series := []*reader.Series{{Definition: &reader.Definition{Name: "x", Kind: reader.Counter, Number: reader.U64}}}
	s.append(2, &archive.Block{Schema: &archive.Schema{Hash: [16]byte{9}, Name: "scalars", Series: series}, Step: steps[2], Folded: true, Sources: []archive.Rows{r}})
	s.now += 3_600_000
	if got := number(t, s.engine, "sum(last_over_time(x_total[6h]))", s.now); got != total {
		t.Errorf("the finer tier has them all: want %g, got %g", total, got)
	}
	// The 1 s tier forgets the first twenty; the 10 s tier has none of them at all.
	for _, b := range []int{0} {
		src := *r.Source
		src.Segment, src.Ephemeral, src.Labels = [16]byte{0xf}, false, querytest.Pairs("job", "other", "instance", "o")
		src.Birth = at[20] * 1e6
		o := archive.Rows{Source: &src, Starts: []int64{at[20]}, Numbers: []uint64{1}, Times: []int64{at[20]}, Coverage: []uint64{1}, Base: 1, Cells: [][]uint64{{uint64(b)}}}
		s.append(1, &archive.Block{Schema: &archive.Schema{Hash: [16]byte{9}, Name: "scalars", Series: series}, Step: steps[1], Folded: true, Sources: []archive.Rows{o}})
	}
	s.evict(0, 20)
	before := 0.0 // of the rows of 5 m that end before the finer tier begins
	for i, ms := range r.Times {
		if ms < at[20] {
			before = math.Float64frombits(math.Float64bits(float64(r.Cells[0][i])))
		}
	}
	want := before + total - sums[19]
	if got := number(t, s.engine, `sum(last_over_time(x_total{job="vm"}[6h]))`, s.now); got != want {
		t.Errorf("half of them: want %g, got %g", want, got)
	}
}

func (s *stage) evict(tier, n int) {
	s.archive.(interface{ Evict(tier, n int) }).Evict(tier, n)
}

// Too many sources are an error that says so, or half an answer to a label question; an archive that fails is a warning.
func TestFailures(t *testing.T) {
	s := newStage(t, 10)
	for i := range 30 {
		p, x := s.one("job", "vm", "instance", fmt.Sprint("vm-", i))
		run(s, p, x, 3)
		s.end(p, x)
	}
	live, x := s.one("job", "vm", "instance", "alive")
	run(s, live, x, 5)
	pq, err := s.engine.Instant(t.Context(), "count_over_time(x_total[1h])", live.stage.time(), query.QueryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if res := pq.Exec(t.Context()); !errors.Is(res.Err, query.ErrTooManySources) || !strings.Contains(res.Err.Error(), "want at most 10") {
		t.Errorf("want too many sources, got %v", res.Err)
	}
	if got := number(t, s.engine, `count(count_over_time(x_total{instance=~"vm-1.?"}[1h]))`, s.now); !math.IsNaN(got) && got > 11 {
		t.Errorf("got %g", got)
	}
	q, _ := s.engine.Querier(t0, s.now)
	names, warnings, err := q.LabelValues(t.Context(), "instance", &storage.LabelHints{})
	if err != nil || len(names) < 10 || len(warnings) != 1 {
		t.Errorf("labels: want some and a warning, got %v, %v, %v", names, warnings, err)
	}

	s.reads.fail = errors.New("the disk is gone")
	res := ask(t, s.engine, "count_over_time(x_total[1h])", s.now, s.now, 0)
	got, _ := res.Warnings.AsStrings("", 0, 0)
	if v, _ := res.Vector(); len(v) != 1 || v[0].F != 5 || len(got) != 1 || !strings.Contains(got[0], "the disk is gone") {
		t.Errorf("want what lives, and a warning, got %v, %q", res, got)
	}
	s.reads.fail = nil
	s.flush(live, 0, 3, 10)
	run(s, live, x, 60)
	found, _, err := s.history.Select(t.Context(), query.Selection{From: t0, First: t0, To: s.now, Matchers: nil, Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	s.reads.fail = errors.New("read error")
	failed := 0
	for _, g := range found {
		if a, ok := g.(query.Archived); ok {
			b := query.NewBatch([]query.Column{{Series: g.Series()[0]}}, 10, 1000)
			if a.Columns(0, 0, t0*1e6, s.now*1e6, b) != nil {
				failed++
			}
		}
	}
	if failed == 0 {
		t.Error("want errors of reading")
	}
}

// A wall clock that was stepped back: what overlaps is hidden, in the ring, in the archive and over both.
func TestClockSteps(t *testing.T) {
	for flushed := range 9 {
		s := newStage(t, 0)
		rnd := rand.New(rand.NewPCG(9, 9))
		a := s.app(rnd, "job", "fwd", "instance", "h:1")
		for i := 1; i <= 100; i++ {
			s.now += 1000
			if i == 50 {
				s.now -= 25_000
			}
			a.work(s.now, false)
			if n := i - 9; n > 0 && n%10 == flushed {
				s.flush(a.process, 0, n, 8)
			}
		}
		for table := range 2 {
			s.flush(a.process, table, 90-flushed*3, 8)
		}
		spans := [][3]int64{{s.now, s.now, 0}, {t0, s.now, 1000}, {s.now - 45_000, s.now, 1000}, {t0 + 28_000, t0 + 40_000, 500}}
		for _, q := range []string{"x_total", "count_over_time(x_total[20s])", "g", "sum_over_time(g[10s])"} {
			for _, sp := range spans {
				want := text(ask(t, s.truth, q, sp[0], sp[1], sp[2]))
				if got := text(ask(t, s.engine, q, sp[0], sp[1], sp[2])); got != want {
					t.Fatalf("%d: %s from %d to %d:\n%s", flushed, q, sp[0]-t0, sp[1]-t0, differ(got, want))
				}
			}
		}
	}
}

// A series that was retired, whose descriptor another one has now, is in the archive; one that was registered again is one series.
func TestRetired(t *testing.T) {
	s := newStage(t, 0)
	s.rings = []reader.Table{scalars}
	p := s.born("job", "fwd", "instance", "h:1")
	x := p.register(s.now, reader.Series{Definition: &reader.Definition{Name: "x", Kind: reader.Counter, Number: reader.U64}})
	old := p.register(s.now, reader.Series{Definition: &reader.Definition{Name: "old", Kind: reader.Counter, Number: reader.U64}})
	for range 20 {
		old.set(func(v *reader.Value) { v.Float++; v.Int++ })
		run(s, p, x, 1)
	}
	gone := s.now
	old.retire()
	run(s, p, x, 10)
	s.flush(p, 0, 30, 10)
	p.Forget(old.sa)
	p.all.Forget(old.sb)
	late := p.register(s.now, reader.Series{Definition: &reader.Definition{Name: "late", Kind: reader.Counter, Number: reader.U64}})
	born := s.now
	for range 30 {
		late.set(func(v *reader.Value) { v.Float++; v.Int++ })
		run(s, p, x, 1)
	}
	s.flush(p, 0, 45, 10)
	if got := number(t, s.engine, "max_over_time(old_total[2m])", s.now); got != 20 {
		t.Errorf("retired: want 20, got %g", got)
	}
	if got := number(t, s.engine, "old_total", gone+1500); !math.IsNaN(got) {
		t.Errorf("after its end: want nothing, got %g", got)
	}
	if got := number(t, s.engine, "increase(old_total[2m] anchored)", gone); got != 20 {
		t.Errorf("its increase: want 20, got %g", got)
	}
	if got := number(t, s.engine, "increase(late_total[2m] anchored)", s.now); got != 30 {
		t.Errorf("registered later: want 30 from its start on, got %g", got)
	}
	if got := number(t, s.engine, "min_over_time(late_total[2m])", s.now); got != 1 {
		t.Errorf("registered at %d: want 1 first, got %g", born-t0, got)
	}
}

// differ is where two answers do.
func differ(got, want string) string {
	a, b := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range a {
		if i >= len(b) || a[i] != b[i] {
			return fmt.Sprintf("got  %.300s\nwant %.300s", strings.Join(a[i:], " "), strings.Join(b[min(i, len(b)):], " "))
		}
	}
	return "want more"
}

// Rows that a ring lost before they were archived, and that were copied from the writer's coarser ring, fill the hole; one where the
// process stood still stays one.
func TestLost(t *testing.T) {
	s := newStage(t, 0)
	p, x := s.one("job", "fwd", "instance", "h:1")
	run(s, p, x, 60)
	s.flush(p, 0, 60, 60)
	run(s, p, x, 60) // lost
	p.archived[0] = 120
	s.now += 40_000 // stopped
	run(s, p, x, 60)
	s.flush(p, 0, 170, 60)
	_, series := p.rows(0)
	r := archive.Rows{Source: p.source(), Copied: true, Starts: []int64{t0}, Cells: [][]uint64{nil}, Base: 120}
	for k := int64(7); k <= 12; k++ {
		r.Numbers, r.Times, r.Coverage = append(r.Numbers, uint64((t0+k*10_000)/10_000)), append(r.Times, t0+k*10_000), append(r.Coverage, 10)
		r.Cells[0] = append(r.Cells[0], uint64(10*k))
	}
	s.append(1, &archive.Block{Schema: p.schema(0, series), Step: steps[1], Folded: true, Sources: []archive.Rows{r}})
	for _, end := range []bool{false, true} {
		if end {
			s.end(p, x)
		}
		m, err := ask(t, s.engine, "x_total", t0+1000, t0+220_000, 1000).Matrix()
		if err != nil || len(m) != 1 {
			t.Fatal(m, err)
		}
		seen := map[int64]float64{}
		for _, p := range m[0].Floats {
			seen[(p.T-t0)/1000] = p.F
		}
		for sec := int64(1); sec <= 220; sec++ {
			v, ok := seen[sec]
			want, there := float64(sec), true
			switch {
			case sec > 60 && sec < 70:
				want = 60
			case sec >= 70 && sec <= 120:
				want = float64(sec / 10 * 10)
			case sec > 120 && sec < 145: // 25 s after a row of 10 s
				want = 120
			case sec >= 145 && sec <= 160:
				there = false
			case sec > 160:
				want = float64(sec - 40)
			}
			if ok != there || ok && v != want {
				t.Errorf("ended %v: at %d s: want %v (%v), got %v (%v)", end, sec, want, there, v, ok)
			}
		}
	}
}

// Whatever tiers have what of a life, its total is exact, nothing is blank where it lived, and extremes are those of its rows.
func TestTierMix(t *testing.T) {
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		s := newStage(t, 0)
		a := s.app(rnd, "job", "fwd", "instance", "h:1")
		seconds := 400 + rnd.IntN(800)
		for i := 1; i <= seconds; i++ {
			s.now += 1000
			a.work(s.now, false)
			if n := int(a.heads[0]); n-a.archived[0] > 10 {
				s.flush(a.process, 0, n-rnd.IntN(5), 60)
				s.flush(a.process, 1, int(a.heads[1])-rnd.IntN(2), 60)
				if rnd.IntN(3) == 0 {
					s.fold(a.process, 0, 1, 1+rnd.IntN(4))
					s.fold(a.process, 1, 2, 1)
					s.fold(a.process, 0, 2, 1)
				}
			}
		}
		total := a.total
		states := []func(){
			func() {},
			func() { s.evict(0, 10+rnd.IntN(10)) },
			func() {
				a.work(s.now+400, true)
				s.now += 400
				total = a.total
				for table := range 2 {
					s.flush(a.process, table, 1<<30, 60)
					s.fold(a.process, table, 2, 1<<30)
				}
				s.fold(a.process, 0, 1, 1<<30)
			},
			func() { s.unlink(a.process) },
			func() { s.now += 100_000 },
			func() { s.evict(0, 10) },
		}
		end := int64(0)
		for state, change := range states {
			change()
			if end == 0 || state == 2 {
				end = s.now
			}
			what := fmt.Sprintf("seed %d, state %d", seed, state)
			for _, q := range []string{"increase(x_total[1h] anchored)", "sum(increase(x_total[23m] anchored))", "max_over_time(x_total[1h])"} {
				if got := number(t, s.engine, q, end); got != total {
					t.Errorf("%s: %s: want %g, got %g", what, q, total, got)
				}
			}
			if got, want := number(t, s.engine, "histogram_count(increase(lat[1h] anchored))", end), number(t, s.truth, "histogram_count(increase(lat[1h] anchored))", end); got != want {
				t.Errorf("%s: histogram: want %g, got %g", what, want, got)
			}
			m, err := ask(t, s.engine, "g", t0+10_000, end, 1000).Matrix()
			if want := int((end-t0-10_000)/1000) + 1; err != nil || len(m) != 1 || len(m[0].Floats) < want-1 {
				t.Errorf("%s: g: want one series of %d points, got %d", what, want, len(m[0].Floats))
			}
			for range 5 {
				at := t0 + 100_000 + int64(rnd.IntN(int(end-t0-100_000)))
				for _, f := range []string{"min", "max"} {
					got := number(t, s.engine, f+"_over_time(g[60s])", at)
					narrow, wide := number(t, s.truth, f+"_over_time(g[49s])", at-11_000), number(t, s.truth, f+"_over_time(g[71s])", at)
					if f == "max" {
						got, narrow, wide = -got, -narrow, -wide
					}
					if !(got <= narrow && got >= wide) {
						t.Errorf("%s: %s at %d: want from %g to %g, got %g", what, f, at-t0, wide, narrow, got)
					}
				}
			}
		}
	}
}

// A process that was started anew long after the time that is asked for changes nothing of the answer: what lived before is not
// labelled as if both had lived at once, and rows of its own that are missing then call for no smoothing.
func TestStartedAnewLater(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 1))
	s := newStage(t, 0)
	s.rings = []reader.Table{querytest.Scalars()}
	a := s.app(rnd, "job", "fwd", "instance", "h:1")
	for i := 1; i <= 600; i++ {
		s.now += 1000
		a.work(s.now, i == 600)
	}
	s.flush(a.process, 0, 1<<30, 60)
	s.fold(a.process, 0, 1, 1<<30)
	s.unlink(a.process)
	s.now += 5000
	b := s.app(rnd, "job", "fwd", "instance", "h:1")
	for range 900 { // more than its ring of 1 s has
		s.now += 1000
		b.work(s.now, false)
	}
	for _, q := range []string{"u_total", "rate(u_total[10s])", "count_over_time(g[30s])"} {
		at := t0 + 100_000
		res := ask(t, s.engine, q, at, at, 0)
		if got, want := text(res), text(ask(t, s.truth, q, at, at, 0)); got != want {
			t.Errorf("%s: got %s, want %s", q, got, want)
		}
		if _, infos := res.Warnings.AsStrings("", 0, 0); len(infos) > 0 {
			t.Errorf("%s: want nothing to be said, got %q", q, infos)
		}
	}
}

// Who overlapped with whom is asked once for many lives that cross a query's edges, and is what it is for each by itself.
func TestManyCross(t *testing.T) {
	rnd := rand.New(rand.NewPCG(20, 8))
	s := newStage(t, 0)
	s.rings = []reader.Table{querytest.Scalars()}
	const sources = 20
	var all []*app
	birth := func(i int) *app {
		a := s.app(rnd, "job", "vm", "instance", fmt.Sprint("vm-", i))
		all = append(all, a)
		return a
	}
	for i := range sources {
		birth(i)
	}
	older := slices.Clone(all)
	for i := 1; i <= 900; i++ {
		s.now += 1000
		for k, a := range older {
			if end := 300 + 20*k; i <= end { // some end before the newer one is born, some long after it
				a.work(s.now, i == end)
			}
		}
		if i == 450 {
			for k := range sources {
				if k%3 > 0 {
					birth(k)
				}
			}
		}
		for _, a := range all[sources:] {
			a.work(s.now, i == 900)
		}
	}
	for _, a := range all {
		s.flush(a.process, 0, 1<<30, 60)
		s.fold(a.process, 0, 1, 1<<30)
		s.unlink(a.process)
	}
	end := s.now
	for _, span := range [][2]int64{{t0 + 100_000, t0 + 200_000}, {t0 + 400_000, t0 + 500_000}, {t0 + 600_000, t0 + 650_000}, {t0 + 100_000, end}, {end - 100_000, end}} {
		fresh := func() *query.Engine {
			h := history.New(history.Options{Living: func() []history.Living { return nil }, Left: func() int64 { return math.MaxInt64 }, Archive: s.reads})
			return query.New(query.Options{Sources: h, Now: s.time})
		}
		s.reads.selects.Store(0)
		got := text(ask(t, fresh(), "u_total", span[0], span[1], 10_000))
		if n := s.reads.selects.Load(); n > 6 {
			t.Errorf("%v: want the archive asked for all at once, got %d times", span, n)
		}
		var each []string
		for k := range sources {
			if one := text(ask(t, fresh(), fmt.Sprintf(`u_total{instance="vm-%d"}`, k), span[0], span[1], 10_000)); one != "" {
				each = append(each, one)
			}
		}
		lines := strings.Split(strings.Join(each, "\n"), "\n")
		slices.Sort(lines)
		sorted := strings.Split(got, "\n")
		slices.Sort(sorted)
		if !slices.Equal(lines, sorted) {
			t.Errorf("%v: want what each is by itself:\n%s\ngot\n%s", span, strings.Join(lines, "\n"), strings.Join(sorted, "\n"))
		}
	}
}
