package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/reader"
)

// Cardinality says where the series are, of what runs or ran in the last minutes. Lists are sorted, the most first.
type Cardinality struct {
	Series     int
	Pairs      int   // different label names with a value
	Oldest     int64 // unix ms: since when there may be rows of these
	Newest     int64 // up to when they are known
	Metrics    []NamedCount
	Labels     []NamedCount // different values of a label name
	Bytes      []NamedCount // of the values of a label name, once for each series
	LabelPairs []NamedCount // series of name=value

	// Series that are in none of those: all, by the reason alone; and the most, by the reason and their names, where those are known, or
	// their sources.
	Dropped, DroppedNames, DroppedSources []Dropped

	// Sources with segments in the store, those with the most series first.
	Sources []SourceUse
}

// SourceUse is what the segments of a source have room for, and what they turned away.
type SourceUse struct {
	Job, Instance string // before rules
	UID           int
	Series        int // that are shown
	Segments      int
	Grown         int // of those, that a process opened because its first one was full, FORMAT.md 10.7
	Room          reader.Room
	Counters      reader.Counters
}

// Accounted is a Segment that is in the store: what its writer, and its reader, counted is known. One that a Segment stands for is what its
// Unwrap answers, nil if there is none.
type Accounted interface {
	ID() string
	Group() string
	UID() int
	Room() reader.Room
	Counters() reader.Counters
}

// Dropped is how many series are not shown, and why.
type Dropped struct {
	Name          string // before rules
	Job, Instance string // as well
	Reason        string
	Rule          int    // of ReasonRelabel: its number, from 1
	Action        string // and what it does
	Series        uint64
}

func compareDropped(a, b Dropped) int {
	return cmp.Or(cmp.Compare(b.Series, a.Series), strings.Compare(a.Name, b.Name), strings.Compare(a.Job, b.Job), strings.Compare(a.Instance, b.Instance),
		cmp.Compare(a.Rule, b.Rule), strings.Compare(a.Reason, b.Reason))
}

// Reasons why a series is not shown.
const (
	ReasonRelabel   = "relabel"   // a rule dropped it
	ReasonNameless  = "nameless"  // rules took its name
	ReasonInvalid   = "invalid"   // rules gave it a label that none can have
	ReasonCollision = "collision" // rules gave it the labels of another series
	ReasonWriter    = "writer"    // there was no room in its segment: it is in no file, and each registration counts
	ReasonBudget    = "budget"    // there was no room in the reader's budget
	ReasonCorrupt   = "corrupt"   // its descriptor is broken
)

// NamedCount is one entry of a list.
type NamedCount struct {
	Name  string
	Count uint64
}

// MaxPairs bounds what Cardinality counts: a store may hold millions of different label values.
const MaxPairs = 1 << 19

// pairBytes is what one takes while they are counted.
const pairBytes = 2 * stringBytes

// Cardinality counts the series of what runs. Lists have at most limit entries. It fails where there are more than MaxPairs
// different names with a value.
func (s *Storage) Cardinality(ctx context.Context, limit int) (*Cardinality, error) {
	now := s.now().UnixMilli()
	wanted := Selection{From: now - metadataSpan.Milliseconds(), To: now, Partial: true}
	wanted.First = wanted.From
	segments, _, err := s.sources.Select(ctx, wanted)
	if err != nil {
		return nil, err
	}
	run := s.With(Hints{})
	defer run.Close()
	known := run.schemas
	views := known.views(segments, nil)
	c := counter{rules: known.rules, pairs: map[labels.Label]uint64{}, out: Cardinality{Newest: now}}
	bySource := map[string][]*view{} // lives of one source have most of their series in common
	var order []string
	var key strings.Builder
	for i := range views {
		v := &views[i]
		key.Reset()
		for _, l := range v.recorded() {
			key.WriteString(l.Name + "\xff" + l.Value + "\xff")
		}
		k := key.String()
		if bySource[k] == nil {
			order = append(order, k)
		}
		bySource[k] = append(bySource[k], v)
		if at := s.oldest(v, now); c.out.Oldest == 0 || at < c.out.Oldest {
			c.out.Oldest = at
		}
	}
	if known.rules.Rewrites() {
		c.all = map[uint64]struct{}{}
	}
	for i, k := range order {
		if i%64 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if i%64 == 63 {
			run.yield(ctx)
		}
		before := len(c.pairs)
		c.source(bySource[k])
		if err := run.memory.take(int64(len(c.pairs)-before) * pairBytes); err != nil {
			return nil, err
		}
		if len(c.pairs) > MaxPairs {
			return nil, fmt.Errorf("shmts: query: more than %d different label values: too many to count", MaxPairs)
		}
	}
	c.finish(limit)
	return &c.out, nil
}

// oldest is since when a segment may have rows, unix ms.
func (s *Storage) oldest(v *view, now int64) int64 {
	archived, _ := v.Segment.(Archived)
	at := now
	for i, t := range v.Tables() {
		for k, tier := range t.Tiers {
			if archived != nil {
				if sp := archived.Span(i, k); sp.Oldest <= sp.Newest {
					at = min(at, sp.Oldest)
				}
			} else {
				at = min(at, max(milli(v.Start()), now-tier.Step.Milliseconds()*int64(tier.Rows)))
			}
		}
	}
	return at
}

// counter counts series by their labels' names with a value. A value of the name label is a metric.
type counter struct {
	rules *relabel.Rules
	out   Cardinality
	pairs map[labels.Label]uint64
	drops map[Dropped]uint64
	all   map[uint64]struct{} // hashes of all series, where rules may have made two equal; else nil

	scratch labels.ScratchBuilder
}

// source counts the series of all lives of one source, each once.
func (c *counter) source(lives []*view) {
	single := len(lives) == 1
	seen := map[string]struct{}{}
	var key strings.Builder
	once := func(name string, own []labels.Label) bool {
		if single {
			return true
		}
		key.Reset()
		key.WriteString(name)
		for _, l := range own {
			key.WriteString("\xff" + l.Name + "\xff" + l.Value)
		}
		k := key.String()
		if _, ok := seen[k]; ok {
			return false
		}
		seen[k] = struct{}{}
		return true
	}
	shown := 0
	use := SourceUse{}
	for _, v := range lives {
		c.account(&use, v)
		count, overrides := uint64(0), v.labelled()
		for i := range v.schema.metrics {
			m := &v.schema.metrics[i]
			own := v.schema.labels(m)
			if len(overrides) > 0 {
				own = withOverrides(own, overrides[v.series[m.series]])
			}
			if !once(m.name, own) {
				continue
			}
			if !c.first(m.name, v.source, own) {
				c.drop(v, v.before.nameOf(m), collision)
				continue
			}
			count++
			c.pairs[labels.Label{Name: model.MetricNameLabel, Value: m.name}]++
			for _, l := range own {
				c.pairs[l]++
			}
		}
		shown += int(count)
		if count > 0 {
			for _, l := range v.source {
				c.pairs[l] += count
			}
		}
		rules := v.applied
		if rules == nil {
			rules = &applied{targetDrop: relabel.Kept}
		}
		for _, d := range rules.drops {
			m := &rules.before.metrics[d.metric]
			if once(relabelledAway+m.name, rules.before.labels(m)) {
				c.drop(v, m.name, int(d.outcome))
			}
		}
		switch {
		case v.target != nil && once(v.targetName, v.target):
			if !c.first(v.targetName, nil, v.target) {
				c.drop(v, names.TargetInfo, collision)
				break
			}
			shown++
			c.pairs[labels.Label{Name: model.MetricNameLabel, Value: v.targetName}]++
			for _, l := range v.target {
				c.pairs[l]++
			}
		case rules.targetDrop != relabel.Kept && once(relabelledAway+names.TargetInfo, nil):
			c.drop(v, names.TargetInfo, int(rules.targetDrop))
		}
	}
	c.out.Series += shown
	if use.Segments > 0 {
		use.Job, use.Instance, use.Series = get(lives[0].recorded(), "job"), get(lives[0].recorded(), "instance"), shown
		c.out.Sources = append(c.out.Sources, use)
		n := use.Counters
		for reason, n := range map[string]uint64{ReasonWriter: n.DroppedSeries, ReasonBudget: n.BudgetSeries, ReasonCorrupt: n.SkippedSeries - min(n.BudgetSeries, n.SkippedSeries)} {
			if n > 0 {
				c.count(Dropped{Reason: reason}, "", lives[0], n)
			}
		}
	}
}

// account adds what a segment in the store says of itself. Who sees a part of a segment only, is not told of the whole.
func (c *counter) account(use *SourceUse, v *view) {
	g := v.Segment
	if w, ok := g.(interface{ Unwrap() Segment }); ok {
		g = w.Unwrap()
	}
	a, ok := g.(Accounted)
	if !ok || v.partly {
		return
	}
	use.UID = a.UID()
	if use.Segments++; a.ID() != a.Group() {
		use.Grown++
	}
	use.Room.Add(a.Room())
	use.Counters.Add(a.Counters())
}

// relabelledAway is no name's beginning.
const relabelledAway = "\xff"

// collision is the outcome, beside relabel's, of a series that has the labels of another.
const collision = -100

// first tells whether no other series had these labels.
func (c *counter) first(name string, source, own []labels.Label) bool {
	if c.all == nil {
		return true
	}
	c.scratch.Reset()
	c.scratch.Add(model.MetricNameLabel, name)
	for _, l := range source {
		c.scratch.Add(l.Name, l.Value)
	}
	for _, l := range own {
		c.scratch.Add(l.Name, l.Value)
	}
	c.scratch.Sort()
	h := c.scratch.Labels().Hash()
	if _, ok := c.all[h]; ok {
		return false
	}
	c.all[h] = struct{}{}
	return true
}

// drop counts a series that is not shown.
func (c *counter) drop(v *view, name string, outcome int) {
	d := Dropped{}
	switch outcome {
	case collision:
		d.Reason = ReasonCollision
	case relabel.Nameless:
		d.Reason = ReasonNameless
	case relabel.Invalid:
		d.Reason = ReasonInvalid
	default:
		d.Reason, d.Rule, d.Action = ReasonRelabel, outcome+1, c.rules.Action(outcome)
	}
	c.count(d, name, v, 1)
}

// count adds dropped series: to all of the reason, to those of the name, and to those of the source.
func (c *counter) count(d Dropped, name string, v *view, n uint64) {
	if c.drops == nil {
		c.drops = map[Dropped]uint64{}
	}
	c.drops[d] += n
	named, sourced := d, d
	named.Name = name
	sourced.Job, sourced.Instance = get(v.recorded(), "job"), get(v.recorded(), "instance")
	for _, more := range []Dropped{named, sourced} {
		if more != d {
			c.drops[more] += n
		}
	}
}

func (c *counter) finish(limit int) {
	values, bytes := map[string]uint64{}, map[string]uint64{}
	for l, n := range c.pairs {
		values[l.Name]++
		bytes[l.Name] += n * uint64(len(l.Value))
		if l.Name == model.MetricNameLabel {
			c.out.Metrics = append(c.out.Metrics, NamedCount{l.Value, n})
		}
		c.out.LabelPairs = append(c.out.LabelPairs, NamedCount{l.Name + "=" + l.Value, n})
		if len(c.out.LabelPairs) > 2*limit+1024 {
			c.out.LabelPairs = most(c.out.LabelPairs, limit)
		}
	}
	c.out.Pairs = len(c.pairs)
	for d, n := range c.drops {
		list := &c.out.Dropped
		switch {
		case d.Name != "":
			list = &c.out.DroppedNames
		case d.Job != "" || d.Instance != "":
			list = &c.out.DroppedSources
		}
		d.Series = n
		*list = append(*list, d)
	}
	slices.SortFunc(c.out.Sources, func(a, b SourceUse) int {
		return cmp.Or(cmp.Compare(b.Series, a.Series), strings.Compare(a.Job, b.Job), strings.Compare(a.Instance, b.Instance), cmp.Compare(a.UID, b.UID))
	})
	c.out.Sources = c.out.Sources[:min(limit, len(c.out.Sources))]
	for _, list := range []*[]Dropped{&c.out.Dropped, &c.out.DroppedNames, &c.out.DroppedSources} {
		slices.SortFunc(*list, compareDropped)
		if list != &c.out.Dropped { // of which there are as many as rules, and some
			*list = (*list)[:min(limit, len(*list))]
		}
	}
	for name, n := range values {
		c.out.Labels = append(c.out.Labels, NamedCount{name, n})
		c.out.Bytes = append(c.out.Bytes, NamedCount{name, bytes[name]})
	}
	c.out.Metrics, c.out.Labels = most(c.out.Metrics, limit), most(c.out.Labels, limit)
	c.out.Bytes, c.out.LabelPairs = most(c.out.Bytes, limit), most(c.out.LabelPairs, limit)
}

// most keeps the greatest; of equal ones the first by name.
func most(list []NamedCount, limit int) []NamedCount {
	slices.SortFunc(list, func(a, b NamedCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return list[:min(limit, len(list))]
}
