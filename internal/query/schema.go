package query

import (
	"cmp"
	"hash/maphash"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/reader"
)

// A schema is a set of series as Prometheus sees it, without the source's labels. The processes of one
// program have the same, so a thousand segments share one, and a matcher looks at it
// once and not a thousand times.
type schema struct {
	series  []*reader.Series // of the segment that showed it first
	source  []string         // label names of the source, which series' labels give way to
	own     [][]labels.Label // by series: its own labels, legal, sorted
	metrics []metric         // by name, then series
	byName  map[string]span
}

// metric is a field of a series under its name.
type metric struct {
	name   string
	series int32
	field  Field
	as     shape
	bucket int32          // of asBucket: how many of the row's counts it adds up, zero first
	own    []labels.Label // of asBucket: the series' own labels and le; after rules: see relabel.go; nil: the series' own
	origin uint64         // after rules: what it was known by before them
}

type span struct{ from, to int32 }

// entry is what is known of a segment.
type entry struct {
	schema *schema
	source []labels.Label // legal, sorted
	target []labels.Label // target_info's, nil if there is none
	raw    []reader.Pair  // Labels as they were

	targetName string

	after, narrow *entry // what rules leave of it, and of what a scope leaves of it; nil: not known yet
	*applied             // what it is that rules left; nil: it is as recorded
}

// parts of a kind: fields and the suffix of their names.
var parts = map[reader.Kind][]struct {
	field Field
	part  string
}{
	reader.Counter:   {{Value, names.Last}},
	reader.UpDown:    {{Value, names.Last}},
	reader.Gauge:     {{Value, names.Last}},
	reader.Stat:      {{Value, names.Last}, {Min, names.Min}, {Max, names.Max}, {Sum, names.Sum}, {Count, names.Count}},
	reader.Histogram: {{Buckets, names.Last}},
}

// exported is Prometheus's rule for a series' label that the source has too.
const exported = names.Exported

func newSchema(series []*reader.Series, source []string) *schema {
	s := &schema{series: series, source: source, own: make([][]labels.Label, len(series)), byName: map[string]span{}}
	for i, sr := range series {
		s.own[i] = ownLabels(sr.Labels, source)
		name := names.Metric(sr.Name, sr.Unit, sr.Kind)
		for _, p := range parts[sr.Kind] {
			s.metrics = append(s.metrics, metric{name: names.StatPart(name, p.part), series: int32(i), field: p.field})
		}
	}
	slices.SortFunc(s.metrics, compareMetrics)
	s.index()
	return s
}

func compareMetrics(a, b metric) int {
	return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.series, b.series), cmp.Compare(a.field, b.field))
}

// index makes byName of metrics, which are sorted.
func (s *schema) index() {
	for i, m := range s.metrics {
		sp, ok := s.byName[m.name]
		if !ok {
			sp.from = int32(i)
		}
		sp.to = int32(i) + 1
		s.byName[m.name] = sp
	}
}

// ownLabels are a series' labels with legal names, exported_ where the source has the name.
func ownLabels(pairs []reader.Pair, source []string) []labels.Label {
	if len(pairs) == 0 {
		return nil
	}
	own := names.SeriesLabels(pairs, source)
	out := make([]labels.Label, len(own))
	for i, p := range own {
		out[i] = labels.Label{Name: p.Name, Value: p.Value}
	}
	return out
}

// legalLabels are pairs with legal names.
func legalLabels(pairs []reader.Pair) []labels.Label {
	out := make([]labels.Label, 0, len(pairs))
	for _, p := range names.Labels(pairs) {
		if p.Value != "" {
			out = append(out, labels.Label{Name: p.Name, Value: p.Value})
		}
	}
	return out
}

// schemas keeps what is known of segments, by the identity of their series slice: segments and
// the values that stand for them come and go, the slice says whether anything changed.
type schemas struct {
	rules *relabel.Rules // what is known is as these leave it

	mu      sync.Mutex
	seed    maphash.Seed
	entries map[**reader.Series]*entry // by the address of the slice's first element
	known   map[uint64][]*schema
	shared  map[sharedKey]*schema

	scope        *Scope // nil: everything
	scoped       map[scopedKey]*schema
	relab        map[relabelledKey]*relabelled
	last         map[*schema]*relabelled // the newest of each
	read, writes map[string]bool         // what the rules say of labels
}

// sharedKey names a slice of series that several sources share, as an archive's do, with the label names of the source.
type sharedKey struct {
	series **reader.Series
	length int
	source string
}

// keepShared bounds those.
const keepShared = 256

func newSchemas(rules *relabel.Rules, scope *Scope) *schemas {
	return &schemas{
		rules: rules, scope: scope, scoped: map[scopedKey]*schema{}, seed: maphash.MakeSeed(), entries: map[**reader.Series]*entry{}, known: map[uint64][]*schema{}, shared: map[sharedKey]*schema{},
		relab: map[relabelledKey]*relabelled{}, last: map[*schema]*relabelled{}, read: map[string]bool{}, writes: map[string]bool{},
	}
}

// view is a segment as one query sees it.
type view struct {
	Segment
	*entry
	series []*reader.Series // parallel to schema.series
	starts []int64          // unix ms, parallel to series; nil: each one's own
	index  int              // among the segments
	partly bool             // a scope has a part of it only
}

// labelled are the labels of single series that the schema does not have yet.
func (v *view) labelled() map[*reader.Series][]reader.Pair {
	if v.applied != nil {
		return nil
	}
	return v.Overrides()
}

// views gives what is known of each segment. Of those that share their series, metrics that are not wanted may be missing.
func (c *schemas) views(segments []Segment, wanted func(*metric) bool) []view {
	out, own := make([]view, len(segments)), len(segments)
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, g := range segments {
		series, pairs := g.Series(), g.Labels()
		if len(series) == 0 { // has no address to be known by
			out[i] = view{g, c.add(g, nil, pairs), nil, nil, i, false}
			continue
		}
		if a, ok := g.(Archived); ok {
			if starts := a.Starts(); starts != nil {
				out[i] = view{g, c.share(g, series, pairs), series, starts, i, false}
				own--
				continue
			}
		}
		out[i] = view{g, c.entry(g, series, pairs), series, nil, i, false}
	}
	if len(c.entries) > 2*own+16 || len(c.known) > 2*(len(segments)+keepShared) {
		c.sweep(out)
	}
	if c.scope == nil && c.rules.Len() == 0 {
		return out
	}
	seen := out[:0]
	for i := range out {
		v := &out[i]
		recorded := v.entry
		if c.scope != nil && !c.restrict(v) {
			continue
		}
		v.partly = v.entry != recorded
		c.relabel(v, recorded, wanted)
		seen = append(seen, *v)
	}
	clear(out[len(seen):])
	return seen
}

// entry is what is known of series that one segment alone has.
func (c *schemas) entry(g Segment, series []*reader.Series, pairs []reader.Pair) *entry {
	e := c.entries[&series[0]]
	if e == nil || len(e.schema.series) != len(series) || !slices.Equal(e.raw, pairs) {
		e = c.add(g, series, pairs)
		c.entries[&series[0]] = e
	}
	return e
}

func (c *schemas) add(g Segment, series []*reader.Series, pairs []reader.Pair) *entry {
	e := newEntry(g, pairs)
	e.schema = c.schema(series, e.names())
	return e
}

// share is add for series that several sources share: the schema is found by the identity of their slice, and the entry is made anew.
func (c *schemas) share(g Segment, series []*reader.Series, pairs []reader.Pair) *entry {
	e := newEntry(g, pairs)
	names := e.names()
	key := sharedKey{&series[0], len(series), strings.Join(names, "\xff")}
	if e.schema = c.shared[key]; e.schema == nil {
		if len(c.shared) >= keepShared {
			clear(c.shared)
		}
		e.schema = c.schema(series, names)
		c.shared[key] = e.schema
	}
	return e
}

func newEntry(g Segment, pairs []reader.Pair) *entry {
	e := &entry{raw: pairs, source: legalLabels(pairs), targetName: names.TargetInfo}
	for _, p := range names.TargetLabels(pairs, g.Attributes()) {
		if p.Value != "" {
			e.target = append(e.target, labels.Label{Name: p.Name, Value: p.Value})
		}
	}
	return e
}

// names are those of the source's labels.
func (e *entry) names() []string {
	out := make([]string, len(e.source))
	for i, l := range e.source {
		out[i] = l.Name
	}
	return out
}

// schema of series under a source's label names.
func (c *schemas) schema(series []*reader.Series, source []string) *schema {
	h := c.hash(series, source)
	for _, s := range c.known[h] {
		if s.same(series, source) {
			return s
		}
	}
	s := newSchema(series, source)
	c.known[h] = append(c.known[h], s)
	return s
}

// sweep forgets segments that are gone.
func (c *schemas) sweep(views []view) {
	clear(c.entries)
	clear(c.scoped)
	used := make(map[*schema]bool, 16)
	for _, v := range views {
		used[v.schema] = true
		if len(v.series) > 0 && v.starts == nil {
			c.entries[&v.series[0]] = v.entry
		}
	}
	for _, s := range c.shared {
		used[s] = true
	}
	for key := range c.relab {
		if !used[key.raw] {
			delete(c.relab, key)
			delete(c.last, key.raw)
		}
	}
	for h, list := range c.known {
		list = slices.DeleteFunc(list, func(s *schema) bool { return !used[s] })
		if len(list) == 0 {
			delete(c.known, h)
		} else {
			c.known[h] = list
		}
	}
}

func (c *schemas) hash(series []*reader.Series, source []string) uint64 {
	var h maphash.Hash
	h.SetSeed(c.seed)
	put := func(s string) {
		h.WriteString(s)
		h.WriteByte(0xff)
	}
	for _, n := range source {
		put(n)
	}
	for _, s := range series {
		put(s.Name)
		put(s.Unit)
		h.WriteByte(byte(s.Kind))
		for _, p := range s.Labels {
			put(p.Name)
			put(p.Value)
		}
	}
	return h.Sum64()
}

// same tells whether the series make this schema.
func (s *schema) same(series []*reader.Series, source []string) bool {
	return slices.Equal(s.source, source) && slices.EqualFunc(s.series, series, func(a, b *reader.Series) bool {
		return a.Name == b.Name && a.Unit == b.Unit && a.Help == b.Help && a.Kind == b.Kind && slices.Equal(a.Labels, b.Labels)
	})
}

// match finds the metrics that the matchers of mask accept, by name and the series' own labels alone.
func (s *schema) match(matchers []*labels.Matcher, mask uint64) []*metric {
	from, to := int32(0), int32(len(s.metrics))
	for i, m := range matchers {
		if mask>>i&1 == 1 && m.Name == model.MetricNameLabel && m.Type == labels.MatchEqual {
			sp := s.byName[m.Value]
			from, to = max(from, sp.from), min(to, sp.to)
		}
	}
	var out []*metric
	name, nameOK := "", false
	var own, ownOK = int32(-1), false
	for k := from; k < to; k++ {
		m := &s.metrics[k]
		if m.name != name {
			name, nameOK = m.name, true
			for i, mt := range matchers {
				if mask>>i&1 == 1 && mt.Name == model.MetricNameLabel && !mt.Matches(name) {
					nameOK = false
					break
				}
			}
		}
		if !nameOK {
			continue
		}
		if m.series != own || m.own != nil {
			own, ownOK = m.series, true
			for i, mt := range matchers {
				if mask>>i&1 == 1 && mt.Name != model.MetricNameLabel && !mt.Matches(get(s.labels(m), mt.Name)) {
					ownOK = false
					break
				}
			}
		}
		if ownOK {
			out = append(out, m)
		}
	}
	return s.classic(out, matchers, mask)
}

// get is a label's value, empty if it is not there.
func get(ls []labels.Label, name string) string {
	for i := range ls {
		if ls[i].Name == name {
			return ls[i].Value
		}
	}
	return ""
}

// MatchNames makes of matchers a condition on a set of series: whether any metric of theirs, or target_info, may have a name that is
// wanted. It is nil if every name is.
func MatchNames(matchers []*labels.Matcher) func([]*reader.Series) bool {
	var wanted []*labels.Matcher
	for _, m := range matchers {
		if m.Name == model.MetricNameLabel {
			wanted = append(wanted, m)
		}
	}
	match := func(name string) bool {
		for _, m := range wanted {
			if !m.Matches(name) {
				return false
			}
		}
		return true
	}
	if match(names.TargetInfo) {
		return nil
	}
	return func(series []*reader.Series) bool {
		last := "" // series of one metric stand together, mostly
		for _, s := range series {
			name := names.Metric(s.Name, s.Unit, s.Kind)
			if name == last {
				continue
			}
			last = name
			for _, p := range parts[s.Kind] {
				if match(names.StatPart(name, p.part)) {
					return true
				}
			}
			if s.Kind != reader.Histogram {
				continue
			}
			for _, c := range classicParts {
				if match(names.StatPart(name, c.part)) {
					return true
				}
			}
		}
		return false
	}
}
