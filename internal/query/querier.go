package query

import (
	"context"
	"fmt"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/reader"
)

// Storage shows Sources as a storage.Queryable. It is safe for concurrent use.
type Storage struct {
	sources    Sources
	rules      *Rules
	maxSamples int64
	now        func() time.Time
	maxMemory  int64   // of a query; 0: no limit
	memory     *Memory // of all; may be nil
	pace       *Pace   // of those that are not light; may be nil
}

// NewStorage is a Storage over sources. A query that reads more than maxSamples numbers fails; 0: no limit.
// A nil now is time.Now.
func NewStorage(sources Sources, maxSamples int, now func() time.Time) *Storage {
	if now == nil {
		now = time.Now
	}
	return &Storage{sources: sources, rules: NewRules(nil), maxSamples: int64(maxSamples), now: now}
}

// Querier implements storage.Queryable, without the knowledge of a query's lookback: see With. What it found counts as memory until
// it is closed.
func (s *Storage) Querier(mint, maxt int64) (storage.Querier, error) {
	r := s.With(Hints{})
	return &wholeRun{&querier{Run: r, mint: mint, maxt: maxt}}, nil
}

// wholeRun is a querier that is all there is of its Run.
type wholeRun struct{ *querier }

func (q *wholeRun) Close() error {
	q.Run.Close()
	return nil
}

// Held adds to what a Querier of a Storage counts as memory, until it is closed: what its caller makes of what it found.
func Held(q storage.Querier, bytes int64) error {
	if w, ok := q.(*wholeRun); ok {
		return w.memory.take(bytes)
	}
	return nil
}

// Hints say of a query what the engine does not pass on.
type Hints struct {
	// Lookback is the engine's in this query: instant selectors then read no row that has
	// gone stale before the first instant.
	Lookback time.Duration
	// MaxSourceResolution is the coarsest step to read, instead of the plan's choice; 0: the plan's.
	MaxSourceResolution time.Duration
}

// Run is the storage for one query: it knows the query's hints, holds it to the limit, and
// remembers which tiers answered.
type Run struct {
	*Storage
	schemas *schemas // one for the whole query
	hints   Hints
	now     int64 // unix ms, as well
	samples atomic.Int64
	memory  *Memory // its own; nil where nothing counts it
	light   bool
	pacer   *pacer         // nil: it has none
	work    sync.WaitGroup // what reads rows in the background
	closed  atomic.Bool    // it should end
	smooth  bool           // some selector became smoothed: see rewrite
	grid    bool           // instant selectors are asked at the steps of the query, and nowhere else

	mu    sync.Mutex
	tiers map[time.Duration]bool // steps that gave rows
	all   bool                   // none but base tiers
	notes []error                // further infos, and warnings
	found []found                // what was selected, newest last

	sampled map[sampledBy]bool // what notes say of functions
}

type sampledBy struct {
	fn   string
	step time.Duration
}

// found is what Sources answered.
type found struct {
	Selection
	segments []Segment
}

// With begins a Run.
func (s *Storage) With(h Hints) *Run {
	r := &Run{Storage: s, schemas: s.rules.schemas(), hints: h, now: s.now().UnixMilli(), tiers: map[time.Duration]bool{}, all: true}
	if s.maxMemory > 0 || s.memory != nil {
		r.memory = NewMemory(s.maxMemory, "a query", s.memory)
	}
	return r
}

// Close says that nothing that was found is used any more.
func (r *Run) Close() {
	r.rest()
	_ = r.memory.settle(0)
}

// rest ends what still reads rows in the background, and waits for it.
func (r *Run) rest() {
	r.closed.Store(true)
	r.work.Wait()
}

// in says which lane a query is in, until it is over.
func (r *Run) in(lane int) (over func()) {
	switch {
	case r.pace == nil:
		return func() {}
	case lane == light:
		r.light = true
		r.pace.enter()
		return r.pace.leave
	default:
		p := &pacer{Pace: r.pace}
		r.pacer = p
		return func() { p.end(true) }
	}
}

// yield lets others run, where they must not wait for this one.
func (r *Run) yield(ctx context.Context) {
	switch {
	case r.light:
	case r.pacer != nil:
		r.pacer.yield(ctx)
	default: // it may wait for its client in between, and must keep no others waiting then
		runtime.Gosched()
	}
}

// Querier implements storage.Queryable.
func (r *Run) Querier(mint, maxt int64) (storage.Querier, error) {
	return &querier{Run: r, mint: mint, maxt: maxt}, nil
}

// warn adds a warning: something is missing from the answer.
func (r *Run) warn(err error) { r.note(fmt.Errorf("%w: %w", annotations.PromQLWarning, err)) }

// note adds an info, or a warning.
func (r *Run) note(err error) {
	r.mu.Lock()
	r.notes = append(r.notes, err)
	r.mu.Unlock()
}

// Infos says which tiers answered, if any but the finest of their tables did, and what was rewritten.
func (r *Run) Infos() annotations.Annotations {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := annotations.New()
	for _, err := range r.notes {
		out.Add(err)
	}
	if r.all {
		return *out
	}
	steps := make([]string, 0, len(r.tiers))
	for _, d := range slices.Sorted(maps.Keys(r.tiers)) {
		steps = append(steps, model.Duration(d).String())
	}
	return out.Add(fmt.Errorf("%w: shmts: rows of step %s answered", annotations.PromQLInfo, strings.Join(steps, ", ")))
}

// used remembers a tier that gave rows.
func (r *Run) used(step time.Duration, coarse bool) {
	r.mu.Lock()
	r.tiers[step] = true
	r.all = r.all && !coarse
	r.mu.Unlock()
}

// sees remembers that rows of this step were too few for a function.
func (r *Run) sees(fn string, step time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := sampledBy{fn, step}
	if r.sampled[k] {
		return
	}
	if r.sampled == nil {
		r.sampled = map[sampledBy]bool{}
	}
	r.sampled[k] = true
	r.notes = append(r.notes, fmt.Errorf("%w: shmts: %s sees one value of each %s", annotations.PromQLInfo, fn, model.Duration(step)))
}

// Lookback is how far an instant selector should look back: 5 minutes, or twice the coarsest step.
func (s *Storage) Lookback() time.Duration {
	return max(5*time.Minute, 2*s.sources.Coarsest())
}

// keepFound is how many selections a query remembers: each selector is asked for twice, see rewrite.
const keepFound = 4

// selected asks Sources, but for what this query asked before.
func (r *Run) selected(ctx context.Context, s Selection) ([]Segment, error) {
	r.mu.Lock()
	for _, f := range r.found {
		if f.From <= s.From && f.To >= s.To && f.First <= s.First && f.Partial == s.Partial && f.Exemplars == s.Exemplars && slices.EqualFunc(f.Matchers, s.Matchers, sameMatcher) {
			r.mu.Unlock()
			return f.segments, nil
		}
	}
	r.mu.Unlock()
	segments, warnings, err := r.sources.Select(ctx, s)
	for _, w := range warnings {
		r.warn(w)
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	if len(r.found) == keepFound {
		r.found = r.found[1:]
	}
	r.found = append(r.found, found{s, segments})
	r.mu.Unlock()
	return segments, nil
}

// sameMatcher compares what matchers say: the engine parses a query again.
func sameMatcher(a, b *labels.Matcher) bool {
	return a.Type == b.Type && a.Name == b.Name && a.Value == b.Value
}

// querier is a storage.Querier.
type querier struct {
	*Run
	mint, maxt int64
}

func (q *querier) Close() error { return nil }

// views are the segments that may have something to say of what is selected.
func (q *querier) views(ctx context.Context, s Selection) ([]view, error) {
	wanted := q.schemas.wanted(s.Matchers)
	s.Matchers = q.schemas.passed(s.Matchers)
	found, err := q.selected(ctx, s)
	if err != nil {
		return nil, err
	}
	all := q.schemas.views(found, wanted)
	return slices.DeleteFunc(all, func(v view) bool {
		ns, ended := v.End()
		return ended && milli(ns)+1 < s.From
	}), nil
}

// known is up to when all rows of a segment are known, unix ms.
func (q *querier) known(v *view) int64 {
	if _, ended := v.End(); ended {
		return q.now // there will be no more
	}
	return min(q.now, milli(v.AsOf()))
}

// maxMatchers is how many matchers a selector may have.
const maxMatchers = 64

// prune asks the source's labels: mask are the matchers that are left for the series.
func prune(source []labels.Label, matchers []*labels.Matcher) (mask uint64, ok bool) {
	for i, m := range matchers {
		if value := get(source, m.Name); value != "" && m.Name != model.MetricNameLabel {
			if !m.Matches(value) {
				return 0, false
			}
			continue
		}
		mask |= 1 << i
	}
	return mask, true
}

// selector walks over the metrics that matchers select, segment by segment.
type selector struct {
	matchers []*labels.Matcher
	memo     map[memoKey][]*metric
	builder  labels.ScratchBuilder
	target   bool // target_info may match
}

type memoKey struct {
	schema *schema
	mask   uint64
}

func newSelector(matchers []*labels.Matcher) (*selector, error) {
	if len(matchers) > maxMatchers {
		return nil, fmt.Errorf("shmts: query: want at most %d matchers in a selector, got %d", maxMatchers, len(matchers))
	}
	s := &selector{matchers: matchers, memo: map[memoKey][]*metric{}, builder: labels.NewScratchBuilder(16)}
	s.target = s.named(names.TargetInfo)
	return s, nil
}

// each calls f with the metrics of a view, and with nil for target_info, until it says false.
func (s *selector) each(v *view, f func(m *metric, own []labels.Label) bool) bool {
	mask, ok := prune(v.source, s.matchers)
	if ok && len(v.schema.metrics) > 0 {
		// A label that single series have beside the source's is unknown to the schema.
		overrides := v.labelled()
		known := mask
		for i, m := range s.matchers {
			if m.Name != model.MetricNameLabel && len(overrides) > 0 && overrideName(overrides, m.Name) {
				known &^= 1 << i
			}
		}
		key := memoKey{v.schema, known}
		list, ok := s.memo[key]
		if !ok {
			list = v.schema.match(s.matchers, known)
			s.memo[key] = list
		}
		for _, m := range list {
			own := v.schema.labels(m)
			if len(overrides) > 0 {
				own = withOverrides(own, overrides[v.series[m.series]])
				if !s.matches(own, mask&^known) {
					continue
				}
			}
			if !f(m, own) {
				return false
			}
		}
	}
	if v.target != nil && (v.targetName == names.TargetInfo && s.target || v.targetName != names.TargetInfo && s.named(v.targetName)) && s.matches(v.target, math.MaxUint64) { // it has not all of the source's labels
		return f(nil, nil)
	}
	return true
}

// named tests a name.
func (s *selector) named(name string) bool {
	for _, m := range s.matchers {
		if m.Name == model.MetricNameLabel && !m.Matches(name) {
			return false
		}
	}
	return true
}

// matches tests labels with the matchers of mask, but those of the name.
func (s *selector) matches(ls []labels.Label, mask uint64) bool {
	for i, m := range s.matchers {
		if mask>>i&1 == 1 && m.Name != model.MetricNameLabel && !m.Matches(get(ls, m.Name)) {
			return false
		}
	}
	return true
}

// overrideName tells whether any series is given a label of this name.
func overrideName(overrides map[*reader.Series][]reader.Pair, name string) bool {
	for _, pairs := range overrides {
		for _, p := range pairs {
			if p.Name == name {
				return true
			}
		}
	}
	return false
}

// withOverrides adds labels, which win.
func withOverrides(own []labels.Label, pairs []reader.Pair) []labels.Label {
	if len(pairs) == 0 {
		return own
	}
	out := slices.Clone(own)
	for _, p := range pairs {
		out = slices.DeleteFunc(out, func(l labels.Label) bool { return l.Name == p.Name })
		out = append(out, labels.Label{Name: p.Name, Value: p.Value})
	}
	return out
}

// labels of a metric: the source's, the series' own, the name. target_info has its own.
func (s *selector) labels(v *view, name string, own []labels.Label, target bool) labels.Labels {
	s.builder.Reset()
	s.builder.Add(model.MetricNameLabel, name)
	if target {
		for _, l := range v.target {
			s.builder.Add(l.Name, l.Value)
		}
	} else {
		for _, l := range v.source {
			s.builder.Add(l.Name, l.Value)
		}
		for _, l := range own {
			s.builder.Add(l.Name, l.Value)
		}
	}
	s.builder.Sort()
	return s.builder.Labels()
}

// Select implements storage.Querier. It looks at labels when the set is first asked, and at rows
// when a series is first iterated.
func (q *querier) Select(ctx context.Context, sortSeries bool, hints *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
	matchers, rows := withoutMark(matchers)
	return &seriesSet{q: q, ctx: ctx, sort: sortSeries, hints: hints, matchers: matchers, rows: rows, i: -1}
}

// seriesSet finds its series at the first Next.
type seriesSet struct {
	q        *querier
	ctx      context.Context
	sort     bool
	hints    *storage.SelectHints
	matchers []*labels.Matcher
	rows     bool // see rowsMark

	found bool
	list  []*series
	i     int
	err   error
}

func (s *seriesSet) Next() bool {
	if !s.found {
		s.found = true
		p := newPlan(s.hints, s.q.mint, s.q.maxt, s.q.hints.Lookback.Milliseconds(), s.q.hints.MaxSourceResolution.Milliseconds())
		p.rows = s.rows
		limit := 0
		if s.hints != nil {
			limit = s.hints.Limit
		}
		s.list, s.err = s.q.find(s.ctx, &p, limit, s.matchers)
		if s.sort {
			slices.SortFunc(s.list, func(a, b *series) int { return labels.Compare(a.labels, b.labels) })
		}
	}
	s.i++
	return s.err == nil && s.i < len(s.list)
}

func (s *seriesSet) At() storage.Series                { return s.list[s.i] }
func (s *seriesSet) Err() error                        { return s.err }
func (s *seriesSet) Warnings() annotations.Annotations { return s.q.warnings() }

// find selects the series of a set.
func (q *querier) find(ctx context.Context, p *plan, limit int, matchers []*labels.Matcher) ([]*series, error) {
	sel, err := newSelector(matchers)
	if err != nil {
		return nil, err
	}
	all := &batches{ctx: ctx}
	wanted := p.selection(matchers)
	wanted.Partial = p.fn == "series"
	views, err := q.views(ctx, wanted)
	if err != nil {
		return nil, err
	}
	var out []*series
	byHash := map[uint64]*series{}
	var slab struct { // a thousand segments have a group and a series each
		groups []group
		series []series
	}
	var groups []*group // of one segment
	var (
		bytes int64 // of series, not counted yet
		full  error
	)
	rewrites, collided := q.schemas.rules.Rewrites(), 0
	for i := range views {
		if i%64 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		v := &views[i]
		groups = groups[:0]
		tables := v.Tables()
		archived, _ := v.Segment.(Archived)
		more := sel.each(v, func(m *metric, own []labels.Label) bool {
			name, column := v.targetName, Column{Field: Target}
			table, add := firstTable(tables), false
			if m != nil {
				sr := v.series[m.series]
				name = m.name
				column = Column{sr, p.column(sr.Kind, m.field)}
				table, add = sr.Table, additive(sr, m.field)
			}
			if table < 0 || table >= len(tables) || len(tables[table].Tiers) == 0 {
				return true
			}
			ls := sel.labels(v, name, own, m == nil)
			h := ls.Hash()
			s := byHash[h]
			for ; s != nil && !labels.Equal(s.labels, ls); s = byHash[h] {
				h++
			}
			if s == nil {
				if limit > 0 && len(out) >= limit {
					return false
				}
				s = next(&slab.series, len(out))
				s.labels, s.parts, s.owners, s.q, s.plan = ls, s.one[:0], s.owner[:0], q, p
				out = append(out, s)
				byHash[h] = s
				if bytes += seriesBytes + int64(ls.ByteSize()); bytes > 64<<10 {
					full = q.Run.memory.take(bytes)
					bytes = 0
				}
			}
			if full != nil {
				return false
			}
			if p.fn == "series" { // the HTTP API's token for a look-up of labels alone
				return true
			}
			since := int64(math.MinInt64)
			if rewrites {
				var free bool
				if since, free = s.owners.enter(v.origin(m), until(v)); !free {
					collided++
					return true
				}
			}
			g := findGroup(groups, table, 0, 0, true)
			var spans []Span
			switch {
			case archived == nil:
			case g != nil:
				spans = g.spans
			default:
				spans = make([]Span, len(tables[table].Tiers))
				for k := range spans {
					spans[k] = archived.Span(table, k)
				}
			}
			tier, others := p.tier(column, add, tables[table].Tiers, spans)
			if g = findGroup(groups, table, tier, others, false); g == nil {
				g = next(&slab.groups, len(all.groups))
				g.q, g.plan, g.all = q, p, all
				g.segment, g.table, g.tier, g.others, g.tiers, g.spans, g.known = v.Segment, table, tier, others, tables[table].Tiers, spans, q.known(v)
				g.columns = g.one.column[:0]
				groups = append(groups, g)
				all.groups = append(all.groups, g)
			}
			pt := part{g: g, zero: add && p.zeros, since: since}
			if m != nil {
				pt.as, pt.bucket = m.as, m.bucket
			}
			switch {
			case column.Series == nil:
				pt.start = milli(v.Start())
			case v.starts != nil:
				pt.start = v.starts[m.series]
			default:
				pt.start = milli(column.Series.Start)
			}
			g.want(&pt, column)
			s.parts = append(s.parts, pt)
			return true
		})
		if !more {
			break
		}
	}
	if full == nil {
		full = q.Run.memory.take(bytes)
	}
	if full != nil {
		return nil, full
	}
	q.collided(collided)
	return out, nil
}

// until is when a process ended, unix ms, MaxInt64 if it has not.
func until(v *view) int64 {
	if ns, ended := v.End(); ended {
		return milli(ns) + 1 // a marker follows the last row
	}
	return math.MaxInt64
}

// next is a zero T of a slab, which begins anew where it is full: the first ones small, since most selectors find few.
func next[T any](slab *[]T, had int) *T {
	if len(*slab) == cap(*slab) {
		*slab = make([]T, 0, min(had+1, 64))
	}
	*slab = (*slab)[:len(*slab)+1]
	return &(*slab)[len(*slab)-1]
}

// findGroup finds the one of a table and plan, or any of the table.
func findGroup(groups []*group, table, tier int, others uint32, anyTier bool) *group {
	for _, g := range groups {
		if g.table == table && (anyTier || g.tier == tier && g.others == others) {
			return g
		}
	}
	return nil
}

// firstTable is the one whose rows say that a process was there.
func firstTable(tables []reader.Table) int {
	return slices.IndexFunc(tables, func(t reader.Table) bool { return len(t.Tiers) > 0 })
}
