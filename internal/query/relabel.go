package query

import (
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/reader"
)

// Rules (metric_relabel_configs) are applied to schemas, not to series: what they leave of one is a schema again, of other names and
// labels, and whoever selects, lists or counts sees that alone. It is made once for all sources whose labels that the rules read
// have the same values, so that a thousand processes of one program share it as they share the one that it is made of.
//
// Where two series become equal, the one of the process that began first is read, as long as that has not ended, and then the
// other: see owners. Within one process it is the one that was registered first.

// Rules are the relabelling of all segments, and what is known of them under it. Who else than PromQL is to see what it leaves, and
// not more, asks the same Rules. They are safe for concurrent use.
type Rules struct {
	now   func() *relabel.Rules
	scope *Scope
	known atomic.Pointer[schemas]
}

// NewRules makes Rules of what now answers: the same pointer until they change. A nil now: there are never any.
func NewRules(now func() *relabel.Rules) *Rules { return newRules(now, nil) }

func newRules(now func() *relabel.Rules, scope *Scope) *Rules {
	r := &Rules{now: now, scope: scope}
	if now == nil {
		r.known.Store(newSchemas(nil, scope))
	} else {
		r.known.Store(newSchemas(now(), scope))
	}
	return r
}

// source is where the rules come from.
func (r *Rules) source() func() *relabel.Rules {
	if r == nil {
		return nil
	}
	return r.now
}

// schemas are those of the rules that hold now. What was known under others is forgotten.
func (r *Rules) schemas() *schemas {
	c := r.known.Load()
	if r.now == nil {
		return c
	}
	rules := r.now()
	for c.rules != rules {
		fresh := newSchemas(rules, r.scope)
		if r.known.CompareAndSwap(c, fresh) {
			return fresh
		}
		c, rules = r.known.Load(), r.now()
	}
	return c
}

// relabelled is what rules leave of a schema.
type relabelled struct {
	schema *schema        // its metrics have labels of their own: the series', and what the rules gave to some
	passes []string       // names of the source's labels that stay as they are
	common []labels.Label // what the rules gave to all: the source's, as good as
	drops  []drop
}

// drop is a metric that rules did not keep.
type drop struct {
	metric  int32 // in the raw schema
	outcome int32 // see relabel.Rules
}

// relabelledKey names one: the values are those of the source's labels that the rules read.
type relabelledKey struct {
	raw    *schema
	values string
}

// keepRelabelled is how many are kept beside those that segments use.
const keepRelabelled = 4096

// applied is what rules did to an entry.
type applied struct {
	before     *schema        // the schema before them
	full       []labels.Label // source before them
	identity   uint64         // of those
	drops      []drop
	targetDrop int32                            // what became of target_info, an outcome
	overrides  map[*reader.Series][]reader.Pair // which schema has in it
	shown      []*reader.Series                 // see Rules.Shown; nil: not looked at yet
}

// relabel gives a view what the rules leave of it, or of what a scope left. That is kept with what was recorded.
func (c *schemas) relabel(v *view, recorded *entry, wanted func(*metric) bool) {
	if c.rules.Len() == 0 {
		return
	}
	kept := &recorded.after
	if v.entry != recorded {
		kept = &recorded.narrow
	}
	overrides := v.Overrides()
	if e := *kept; e == nil || !sameOverrides(e.overrides, overrides) {
		*kept = c.apply(v.entry, v.series, overrides, wanted, v.starts != nil)
	}
	v.entry = *kept
}

// apply is what the rules leave of an entry. Of one that is used once, those metrics that are not wanted are not looked at.
func (c *schemas) apply(of *entry, series []*reader.Series, overrides map[*reader.Series][]reader.Pair, wanted func(*metric) bool, once bool) *entry {
	if !once {
		wanted = nil
	}
	e := *of
	e.after, e.narrow = nil, nil
	r := c.relabelled(of.source, of.schema, series, overrides, wanted)
	e.applied = &applied{before: of.schema, full: of.source, identity: c.identity("", of.source), drops: r.drops, targetDrop: relabel.Kept, overrides: overrides}
	e.schema = r.schema
	e.source = slices.Concat(slices.DeleteFunc(slices.Clone(of.source), func(l labels.Label) bool { return !slices.Contains(r.passes, l.Name) }), r.common)
	slices.SortFunc(e.source, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	c.targetOf(&e)
	return &e
}

func (c *schemas) relabelled(source []labels.Label, raw *schema, series []*reader.Series, overrides map[*reader.Series][]reader.Pair, wanted func(*metric) bool) *relabelled {
	var values strings.Builder
	for _, l := range source {
		if c.reads(l.Name) {
			values.WriteString(l.Value + "\xff")
		}
	}
	key := relabelledKey{raw, values.String()}
	if key.values == "" {
		wanted = nil // all sources share it
	}
	if len(overrides) > 0 || wanted != nil {
		return c.evaluate(source, raw, series, overrides, wanted)
	}
	r := c.relab[key]
	if r == nil {
		if len(c.relab) >= keepRelabelled+2*len(c.entries) {
			clear(c.relab)
			clear(c.last)
		}
		r = c.evaluate(source, raw, series, nil, nil)
		if last := c.last[raw]; last != nil && last.same(r) { // the values made no difference, but for what is common
			r.schema, r.passes, r.drops = last.schema, last.passes, last.drops
		}
		c.relab[key], c.last[raw] = r, r
	}
	return r
}

// reads remembers what rules say of a label.
func (c *schemas) reads(name string) bool {
	is, ok := c.read[name]
	if !ok {
		is = c.rules.Reads(name)
		c.read[name] = is
	}
	return is
}

// evaluate applies the rules to each metric under the labels of a source.
func (c *schemas) evaluate(source []labels.Label, raw *schema, series []*reader.Series, overrides map[*reader.Series][]reader.Pair, wanted func(*metric) bool) *relabelled {
	r := &relabelled{schema: &schema{series: raw.series, byName: map[string]span{}}}
	var scratch labels.ScratchBuilder
	builder := labels.NewBuilder(labels.EmptyLabels())
	type result struct {
		metric
		labels []labels.Label // all but the name, sorted
		before []labels.Label
	}
	var kept []result
	for i := range raw.metrics {
		m := &raw.metrics[i]
		if wanted != nil && !wanted(m) {
			continue
		}
		own := raw.own[m.series]
		if len(overrides) > 0 {
			own = withOverrides(own, overrides[series[m.series]])
		}
		name, after, outcome := process(c.rules, builder, &scratch, m.name, source, own)
		if outcome != relabel.Kept {
			r.drops = append(r.drops, drop{int32(i), int32(outcome)})
			continue
		}
		k := result{*m, after, own}
		k.name, k.origin = name, c.identity(m.name, own)
		kept = append(kept, k)
	}
	for _, l := range source {
		if !slices.ContainsFunc(kept, func(k result) bool { return get(k.labels, l.Name) != l.Value }) {
			r.passes = append(r.passes, l.Name)
		}
	}
	r.schema.source = slices.Clone(r.passes)
	if len(kept) > 0 {
		for _, l := range kept[0].labels {
			if !slices.Contains(r.passes, l.Name) && !slices.ContainsFunc(kept, func(k result) bool { return get(k.labels, l.Name) != l.Value || get(k.before, l.Name) != "" }) {
				r.common = append(r.common, l)
				r.schema.source = append(r.schema.source, l.Name)
			}
		}
	}
	for _, k := range kept {
		own := slices.DeleteFunc(k.labels, func(l labels.Label) bool { return slices.Contains(r.schema.source, l.Name) })
		if slices.Equal(own, k.before) {
			own = k.before // which others have as well
		}
		k.metric.own = slices.Clip(own)
		if k.metric.own == nil {
			k.metric.own = []labels.Label{}
		}
		r.schema.metrics = append(r.schema.metrics, k.metric)
	}
	slices.SortFunc(r.schema.metrics, compareMetrics)
	r.schema.index()
	return r
}

// process applies rules to one set of labels. What it answers is sorted.
func process(rules *relabel.Rules, b *labels.Builder, scratch *labels.ScratchBuilder, name string, source, own []labels.Label) (string, []labels.Label, int) {
	scratch.Reset()
	scratch.Add(model.MetricNameLabel, name)
	for _, l := range source {
		scratch.Add(l.Name, l.Value)
	}
	for _, l := range own {
		scratch.Add(l.Name, l.Value)
	}
	scratch.Sort()
	b.Reset(scratch.Labels())
	if outcome := rules.Process(b); outcome != relabel.Kept {
		return "", nil, outcome
	}
	out := make([]labels.Label, 0, len(source)+len(own))
	b.Range(func(l labels.Label) {
		switch {
		case l.Name == model.MetricNameLabel && l.Value == name:
		case l.Name == model.MetricNameLabel:
			name = strings.Clone(l.Value)
		default:
			out = append(out, ours(l, source, own))
		}
	})
	slices.SortFunc(out, func(a, b labels.Label) int { return strings.Compare(a.Name, b.Name) })
	return name, out, relabel.Kept
}

// ours is a label in memory that is there anyway, or else of its own: the builder's is one string of all labels.
func ours(l labels.Label, lists ...[]labels.Label) labels.Label {
	for _, list := range lists {
		for i := range list {
			if list[i] == l {
				return list[i]
			}
		}
	}
	return labels.Label{Name: strings.Clone(l.Name), Value: strings.Clone(l.Value)}
}

// same tells whether one can stand for the other, but for the values of what is common.
func (r *relabelled) same(o *relabelled) bool {
	return slices.Equal(r.passes, o.passes) && slices.Equal(r.schema.source, o.schema.source) && slices.Equal(r.drops, o.drops) &&
		slices.EqualFunc(r.schema.metrics, o.schema.metrics, func(a, b metric) bool {
			return a.name == b.name && a.series == b.series && a.field == b.field && a.origin == b.origin && slices.Equal(a.own, b.own)
		})
}

// identity is what a series, or a source, was known by before rules. Equal ones are the same but for one in 2^64.
func (c *schemas) identity(name string, ls []labels.Label) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	h.WriteString(name)
	for _, l := range ls {
		h.WriteByte(0xff)
		h.WriteString(l.Name)
		h.WriteByte(0xff)
		h.WriteString(l.Value)
	}
	return h.Sum64()
}

// targetOf applies the rules to target_info.
func (c *schemas) targetOf(e *entry) {
	if e.target == nil {
		return
	}
	var scratch labels.ScratchBuilder
	name, out, outcome := process(c.rules, labels.NewBuilder(labels.EmptyLabels()), &scratch, names.TargetInfo, nil, e.target)
	if e.targetName, e.target = name, out; outcome != relabel.Kept {
		e.target, e.targetDrop = nil, int32(outcome)
	}
}

// passed are the matchers that sources can be asked for: those of labels that no rule gives another value.
func (c *schemas) passed(matchers []*labels.Matcher) []*labels.Matcher {
	if c.rules.Len() == 0 {
		return matchers
	}
	return slices.DeleteFunc(slices.Clone(matchers), func(m *labels.Matcher) bool {
		is, ok := c.written(m.Name)
		return ok && is
	})
}

func (c *schemas) written(name string) (is, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	is, ok = c.writes[name]
	if !ok {
		is, ok = c.rules.Writes(name), true
		if len(c.writes) < keepRelabelled { // names are clients' here
			c.writes[name] = is
		}
	}
	return is, ok
}

// wanted makes of matchers a condition on metrics before rules: nil if they may all be meant.
func (c *schemas) wanted(matchers []*labels.Matcher) func(*metric) bool {
	if c.rules.Len() == 0 {
		return nil
	}
	var list []*labels.Matcher
	for _, m := range c.passed(matchers) {
		if m.Name == model.MetricNameLabel {
			list = append(list, m)
		}
	}
	if len(list) == 0 {
		return nil
	}
	match := func(name string) bool {
		return !slices.ContainsFunc(list, func(m *labels.Matcher) bool { return !m.Matches(name) })
	}
	return func(m *metric) bool {
		if match(m.name) {
			return true
		}
		return m.field == Buckets && slices.ContainsFunc(classicParts, func(p classicPart) bool { return match(names.StatPart(m.name, p.part)) })
	}
}

// Shown are those of a segment's series of which rules keep anything: the same slice, if that is all. The segment's own Series may be
// older ones.
func (r *Rules) Shown(g Segment, series []*reader.Series) []*reader.Series {
	c := r.schemas()
	if c.rules.Len() == 0 || len(series) == 0 {
		return series
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v := view{Segment: g, entry: c.entry(g, series, g.Labels()), series: series}
	c.relabel(&v, v.entry, nil)
	e := v.entry
	if len(e.drops) == 0 {
		return series
	}
	if e.shown == nil {
		left := make([]int, len(series)) // of each series' metrics
		for i := range e.before.metrics {
			left[e.before.metrics[i].series]++
		}
		for _, d := range e.drops {
			left[e.before.metrics[d.metric].series]--
		}
		e.shown = make([]*reader.Series, 0, len(series))
		for i, sr := range series {
			if left[i] > 0 {
				e.shown = append(e.shown, sr)
			}
		}
		if len(e.shown) == len(series) {
			e.shown = series
		}
	}
	return e.shown
}

// Census is how many series of some segments rules leave out.
type Census struct {
	Rules             []uint64 // by rule
	Nameless, Invalid uint64
	Collisions        uint64 // series that have the labels of another, where that was asked for
}

// Census counts series. Which of them are equal is known by looking at all of them, and else in a moment.
func (r *Rules) Census(segments []Segment, collisions bool) Census {
	known := r.schemas()
	out := Census{Rules: make([]uint64, known.rules.Len())}
	if len(out.Rules) == 0 {
		return out
	}
	var all []uint64
	collisions = collisions && known.rules.Rewrites()
	for _, v := range known.views(segments, nil) {
		count := func(outcome int32) {
			switch {
			case outcome >= 0:
				out.Rules[outcome]++
			case outcome == relabel.Nameless:
				out.Nameless++
			case outcome == relabel.Invalid:
				out.Invalid++
			}
		}
		for _, d := range v.drops {
			count(d.outcome)
		}
		count(v.targetDrop)
		if !collisions {
			continue
		}
		source := known.sum(v.source)
		for i := range v.schema.metrics {
			m := &v.schema.metrics[i]
			all = append(all, source+known.sum(m.own)+known.pair(model.MetricNameLabel, m.name))
		}
		if v.target != nil {
			all = append(all, known.sum(v.target)+known.pair(model.MetricNameLabel, v.targetName))
		}
	}
	slices.Sort(all)
	out.Collisions = uint64(len(all) - len(slices.Compact(all)))
	return out
}

// sum is a hash of labels whatever their order: those of a source and of a series are in two lists, and not always in the same ones.
func (c *schemas) sum(ls []labels.Label) (h uint64) {
	for _, l := range ls {
		h += c.pair(l.Name, l.Value)
	}
	return h
}

func (c *schemas) pair(name, value string) uint64 {
	return maphash.String(c.seed, name) * (maphash.String(c.seed, value) | 1)
}

// origin is what a metric of the view was known by before rules; a nil one is target_info.
func (v *view) origin(m *metric) uint64 {
	switch {
	case v.applied == nil:
		return 0
	case m == nil:
		return v.identity
	}
	return v.identity ^ m.origin
}

// recorded are the source's labels before rules.
func (v *view) recorded() []labels.Label {
	if v.applied != nil {
		return v.full
	}
	return v.source
}

// nameOf is the name of a metric before rules.
func (s *schema) nameOf(m *metric) string {
	for i := range s.metrics {
		if b := &s.metrics[i]; b.series == m.series && b.field == m.field {
			return b.name
		}
	}
	return m.name
}

// owners says of one set of labels whose they are: rules can make series equal, and a PromQL series is one at a time.
type owners []owner

type owner struct {
	identity uint64
	until    int64 // ms; MaxInt64: it lives
}

// enter is asked of each series of those labels, in the order of their processes' births. It answers since when the labels are free
// for it, unix ms; false if they never were.
func (o *owners) enter(identity uint64, until int64) (since int64, ok bool) {
	mine := -1
	for i, other := range *o {
		if other.identity == identity {
			mine = i
		} else {
			since = max(since, other.until)
		}
	}
	if since >= until {
		return 0, false
	}
	if mine < 0 {
		*o = append(*o, owner{identity, until})
	} else {
		(*o)[mine].until = max((*o)[mine].until, until)
	}
	return since, true
}

// collided notes that series were left out.
func (r *Run) collided(n int) {
	if n > 0 {
		r.note(fmt.Errorf("%w: shmts: metric_relabel_configs give %d series labels that another one has: that of the process that began first is read", annotations.PromQLInfo, n))
	}
}

// sameOverrides tells whether two maps say the same.
func sameOverrides(a, b map[*reader.Series][]reader.Pair) bool {
	return maps.EqualFunc(a, b, func(x, y []reader.Pair) bool { return slices.Equal(x, y) })
}
