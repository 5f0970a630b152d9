package archiver

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

func counterNamed(name string) *reader.Series {
	return &reader.Series{Definition: &reader.Definition{Name: name, Kind: reader.Counter, Number: reader.U64, Labels: []reader.Pair{{Name: "a", Value: "b"}}}}
}

func someCounters(n int) (list []*reader.Series) {
	for i := range n {
		list = append(list, counterNamed(fmt.Sprintf("c%03d", i)))
	}
	return list
}

// planned asks for a plan of series, as a table does that had one.
func (p *plans) planned(t *testing.T, had *plan, series ...*reader.Series) *plan {
	t.Helper()
	p.collect(0, series, 1, 1)
	if q := p.find(0, "t", had); q != nil {
		return q
	}
	q, err := p.add(0, "t")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// Tables share a plan that has their series in their order, and where some are missing the plan that a table had goes on, if they are not many.
func TestPlansAreShared(t *testing.T) {
	var p plans
	all := someCounters(40)
	first := p.planned(t, nil, all...)
	equal(t, "columns", first.columns, 40)
	equal(t, "words of a row", first.words, 40)
	if again := p.planned(t, nil, someCounters(40)...); again != first {
		t.Error("equal series: want one plan, got two")
	}
	// Columns are the plan's, with holes where the table has no series.
	rest := slices.Clone(all)
	rest = append(rest[:3:3], rest[5:39]...)
	if q := p.planned(t, first, rest...); q != first || len(p.cols) != 40 {
		t.Fatalf("three series less: want the plan that was there, of 40 columns, got %d", len(p.cols))
	}
	for i := range p.cols {
		var want *reader.Series
		if i != 3 && i != 4 && i != 39 {
			want = all[i]
		}
		if p.cols[i].Series != want {
			t.Errorf("column %d: want %v, got %v", i, want, p.cols[i].Series)
		}
	}
	if q := p.planned(t, nil, rest...); q == first {
		t.Error("a table that had none: want a plan of its own series")
	}
	for _, c := range []struct {
		what string
		n    int
		same bool
	}{{"as few as may be missing", 40 - 14, true}, {"one more", 40 - 15, false}} { // n - have <= 8 + have/4
		if q := p.planned(t, first, all[:c.n]...); (q == first) != c.same {
			t.Errorf("%s: want the same plan %v, got %v", c.what, c.same, q == first)
		}
	}
	if q := p.planned(t, first, append(slices.Clone(all), counterNamed("d"))...); q == first {
		t.Error("a series more: want another plan")
	}
	turned := slices.Clone(all)
	turned[0], turned[1] = turned[1], turned[0]
	if q := p.planned(t, first, turned...); q == first {
		t.Error("another order: want another plan")
	}
	// Whatever a schema says of a series makes it another one.
	for what, change := range map[string]func(*reader.Definition){
		"name": func(d *reader.Definition) { d.Name = "x" }, "kind": func(d *reader.Definition) { d.Kind = reader.Gauge },
		"number": func(d *reader.Definition) { d.Number = reader.F64 }, "unit": func(d *reader.Definition) { d.Unit = "s" },
		"help": func(d *reader.Definition) { d.Help = "h" }, "non-negative": func(d *reader.Definition) { d.NonNegative = true },
		"buckets": func(d *reader.Definition) { d.Buckets.Count = 3 }, "label": func(d *reader.Definition) { d.Labels = []reader.Pair{{Name: "a", Value: "c"}} },
		"labels": func(d *reader.Definition) { d.Labels = nil },
	} {
		d := *all[7].Definition
		change(&d)
		other := slices.Clone(all)
		other[7] = &reader.Series{Definition: &d}
		if q := p.planned(t, first, other...); q == first {
			t.Errorf("another %s: want another plan", what)
		}
		if same(all[7], other[7]) {
			t.Errorf("another %s: want it not the same series", what)
		}
	}
	if d := *all[7].Definition; !same(all[7], &reader.Series{Definition: &d}) {
		t.Error("equal definitions: want the same series")
	}
	equal(t, "another table's", p.find(1, "t", nil), nil)
}

// A series that was retired and registered again is one column: the newest is its own, those before are behind it, in whatever order they come.
func TestColumnsOfOneIdentity(t *testing.T) {
	old, older, now, other := counterNamed("c"), counterNamed("c"), counterNamed("c"), counterNamed("d")
	old.Start, older.Start, now.Start = 2, 1, 3
	old.Retired, older.Retired = true, true
	elsewhere := counterNamed("e")
	elsewhere.Table = 1
	stat := &reader.Series{Definition: &reader.Definition{Name: "c", Kind: reader.Stat, Number: reader.F64}} // another kind
	for _, order := range [][]*reader.Series{{old, older, other, now, stat, elsewhere}, {now, other, old, older, elsewhere, stat}, {older, now, old, stat, other}} {
		var p plans
		for range 2 { // what is remembered of the first time does not matter
			p.collect(0, order, 1, 1)
			if len(p.cols) != 3 {
				t.Fatalf("want three columns, got %d", len(p.cols))
			}
			for _, c := range p.cols {
				if c.Name != "c" || c.Kind == reader.Stat {
					if len(c.older) != 0 {
						t.Errorf("%s: want none before it, got %d", c.Name, len(c.older))
					}
					continue
				}
				if c.Series != now || len(c.older) != 2 || !slices.Contains(c.older, old) || !slices.Contains(c.older, older) {
					t.Errorf("want the newest in front of both others, got the one of %d, and %d", c.Start, len(c.older))
				}
			}
		}
	}
}

// Plans that nobody has are forgotten once they are many; those in use stay.
func TestPlansAreForgotten(t *testing.T) {
	var p plans
	var used []*table
	for i := range 5 {
		used = append(used, &table{})
		used[i].setPlan(p.planned(t, nil, counterNamed(fmt.Sprint("used", i))))
	}
	used[4].setPlan(used[3].plan) // nobody has the fifth any more
	used[4].setPlan(used[3].plan)
	equal(t, "tables of one plan", used[3].plan.refs, 2)
	most := 0
	for i := range 20 * plansKept {
		p.planned(t, nil, counterNamed(fmt.Sprint("c", i)))
		most = max(most, p.n)
	}
	if most < plansKept || most > 2*plansKept+5 {
		t.Errorf("want %d to %d kept, got %d", plansKept, 2*plansKept+5, most)
	}
	n := 0
	for _, list := range p.all {
		n += len(list)
	}
	equal(t, "plans that are counted", p.n, n)
	for i := range 4 {
		if q := p.planned(t, nil, counterNamed(fmt.Sprint("used", i))); q != used[i].plan {
			t.Errorf("plan %d is in use: want it found, got another", i)
		}
	}
	used[3].setPlan(nil)
	used[4].setPlan(nil)
	equal(t, "tables of a plan that was given back", p.planned(t, nil, counterNamed("used3")).refs, 0)
}

// How a row's cells become columns follows from the series' kinds.
func TestShapes(t *testing.T) {
	p, err := newPlan(0, "t", []*reader.Series{counterNamed("c"),
		{Definition: &reader.Definition{Name: "g", Kind: reader.Gauge, Number: reader.F64}},
		{Definition: &reader.Definition{Name: "s", Kind: reader.Stat, Number: reader.F64}},
		{Definition: &reader.Definition{Name: "h", Kind: reader.Histogram, Number: reader.U64, Buckets: reader.BucketRange{Count: 4}}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []shape{{0, 1, 1, 1, 0}, {1, 1, 1, 0, 0}, {2, 5, 1, 2, 0}, {7, 1, 7, 1, 0}} {
		got := p.shapes[i]
		got.word = 0
		equal(t, p.Series[i].Name, got, want)
	}
	equal(t, "columns", p.columns, 8)
	equal(t, "words", p.words, 14)
	if w := p.widths(false); !slices.Equal(w, []int{1, 1, 1, 1, 1, 1, 1, 7}) {
		t.Errorf("widths: got %v", w)
	}
	if w := p.widths(true); !slices.Equal(w, []int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 7}) || len(w) != 1+len(archive.Fields(reader.Gauge, true))+5+1 {
		t.Errorf("widths when folded: got %v", w)
	}
}

// The archive's tier of rows is the coarsest that is not coarser than the rows, else the finest, and
// then they are folded.
func TestHome(t *testing.T) {
	for _, c := range []struct {
		step string
		tier int
		fold bool
	}{{"100ms", 0, true}, {"1s", 0, false}, {"9s", 0, false}, {"10s", 1, false}, {"1m", 1, false}, {"5m", 2, false}, {"1h", 2, false}} {
		tier, fold := home(sweepSteps, duration(t, c.step))
		equal(t, c.step+": tier", tier, c.tier)
		equal(t, c.step+": folded", fold, c.fold)
	}
}

func duration(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
