package archiver

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/shmts/shmts/reader"
)

// Tables that are written together, so that one metric of all of them is one piece of the disk, are a cohort: of one
// owner, schema, step and ring. When one of them is due, all are.

// cohortTables is how many a cohort has at most.
const cohortTables = 64

// smallCohort is how few it may have before it joins another.
const smallCohort = 16

type groupKey struct {
	uid  int
	plan *plan
	step time.Duration
	rows int
	home int
}

// group is all cohorts of one key.
type group struct {
	key     groupKey
	cohorts []*cohort
	made    int
}

type cohort struct {
	group   *group
	tables  []*table
	first   uint64 // rows that are enough for its first flush
	half    uint64 // and for all others
	flushed bool
	due     float64 // the fullest ring's part that is not written; 0: not due
}

// enough is how many new rows make the cohort due. The first time they are fewer, by another part of the interval
// in each cohort, so that those born in the same second are not all written in the same one for ever.
func (c *cohort) enough() uint64 {
	if c.flushed {
		return c.half
	}
	return c.first
}

// join puts a table into a cohort, once it has series.
func (a *Archiver) join(t *table) {
	if !a.guess(t) {
		return
	}
	k := groupKey{t.st.uid, t.plan, t.step, t.rows, t.home}
	g := a.groups[k]
	if g == nil {
		g = &group{key: k}
		a.groups[k] = g
	}
	var c *cohort
	for _, have := range g.cohorts {
		if len(have.tables) < cohortTables && (c == nil || len(have.tables) > len(c.tables)) {
			c = have
		}
	}
	if c == nil {
		g.made++
		_, phase := math.Modf(float64(g.made) * math.Phi)
		c = &cohort{group: g, half: t.half, first: max(1, t.half-uint64(phase*float64(t.half)))}
		g.cohorts = append(g.cohorts, c)
	}
	c.tables = append(c.tables, t)
	t.cohort = c
}

// leave takes a table out of its cohort.
func (a *Archiver) leave(t *table) {
	c := t.cohort
	if c == nil {
		return
	}
	t.cohort = nil
	g := c.group
	c.tables = slices.DeleteFunc(c.tables, func(x *table) bool { return x == t })
	if n := len(c.tables); n <= smallCohort && n > 0 {
		for _, other := range g.cohorts {
			if other != c && len(other.tables)+n <= cohortTables {
				for _, x := range c.tables {
					x.cohort = other
				}
				other.tables = append(other.tables, c.tables...)
				c.tables = nil
				break
			}
		}
	}
	if len(c.tables) > 0 {
		return
	}
	g.cohorts = slices.DeleteFunc(g.cohorts, func(x *cohort) bool { return x == c })
	if len(g.cohorts) == 0 {
		delete(a.groups, g.key)
	}
}

// guess gives a table that has none the plan that its next rows will probably have; false if it has no series.
func (a *Archiver) guess(t *table) bool {
	if t.plan != nil {
		return true
	}
	a.plans.collect(t.n, t.st.seg.Series(), t.last+1, max(t.head, t.last+1))
	if len(a.plans.cols) == 0 {
		return false
	}
	p, err := a.planFor(t)
	if err != nil {
		return false
	}
	t.setPlan(p)
	return true
}

// planFor is a plan for the columns that were collected.
func (a *Archiver) planFor(t *table) (*plan, error) {
	if p := a.plans.find(t.n, t.name, t.plan); p != nil {
		return p, nil
	}
	return a.plans.add(t.n, t.name)
}

// byPlan brings together what can be in one block.
func byPlan(x, y *table) int {
	hash := func(t *table) (h [16]byte) {
		if t.plan != nil {
			h = t.plan.Hash
		}
		return h
	}
	a, b := hash(x), hash(y)
	return cmp.Or(cmp.Compare(x.st.uid, y.st.uid), cmp.Compare(x.home, y.home), cmp.Compare(x.step, y.step), cmp.Compare(x.n, y.n), slices.Compare(a[:], b[:]))
}

// passOver moves the position of a table without series behind its rows, which hold nothing.
func (a *Archiver) passOver(t *table) {
	t.st.seg.Take(t.n, 0, func(series []*reader.Series, head uint64, _ uint32) (uint64, bool) {
		if a.plans.collect(t.n, series, t.last+1, head); len(a.plans.cols) == 0 && head > t.last {
			t.last, t.time = head, 0
		}
		return 0, false
	}, nil)
}
