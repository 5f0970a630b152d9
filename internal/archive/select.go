package archive

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/shmts/shmts/reader"
)

// parts is what Read needs of an Incarnation.
type parts struct {
	session *session
	spans   []span
}

// span is a source's rows blocks in one extent.
type span struct {
	v       *view
	ordinal uint32
	posts   []uint32 // positions in v.refs, all of them
}

// view is what one selection needs of an extent, shared by all that it found there.
type view struct {
	e       *extent
	tier    int
	refs    []blockRef
	schemas []schemaRef
	loaded  []*Schema
	tables  []int // of blocks that are wanted
}

// has tells whether an extent was looked at already.
func (p *parts) has(v *view) bool {
	n := len(p.spans)
	return n > 0 && p.spans[n-1].v.tier == v.tier && p.spans[n-1].v.e.generation == v.e.generation
}

// table is which a rows block's schema is of.
func (v *view) table(ref *blockRef) int { return int(v.schemas[ref.schema].table) }

// A selecting is one Select or Find at work.
type selecting struct {
	a       *Archive
	s       *Selection
	session *session
	d       decoder
	known   map[[16]byte]schemaAnswer
	found   map[Key]*finding
	all     []*finding
	full    bool // Limit was reached: only those found already are looked for
	errs    []error
}

// schemaAnswer is what the selection's Schema said of one.
type schemaAnswer struct {
	s      *Schema // nil: it can't be read
	wanted bool
}

// finding is an Incarnation that grows.
type finding struct {
	inc     *Incarnation
	p       *parts
	schemas []*Schema // oldest first
	starts  [][]int64 // of their series
}

// Select implements Reader.
func (a *Archive) Select(ctx context.Context, s Selection) ([]*Incarnation, error) {
	return a.search(ctx, &s, nil)
}

// Find implements Reader.
func (a *Archive) Find(segment [16]byte) ([]*Incarnation, error) {
	return a.search(context.Background(), &Selection{From: math.MinInt64, To: math.MaxInt64}, &segment)
}

// FindSince implements Reader.
func (a *Archive) FindSince(segment [16]byte, tier int, from int64) ([]*Incarnation, error) {
	return a.search(context.Background(), &Selection{From: from, To: math.MaxInt64, Tiers: []int{tier}}, &segment)
}

// search selects, in one segment if it is told which.
func (a *Archive) search(ctx context.Context, s *Selection, segment *[16]byte) ([]*Incarnation, error) {
	if err := a.follow(); err != nil {
		return nil, err
	}
	q := &selecting{a: a, s: s, known: map[[16]byte]schemaAnswer{}, found: map[Key]*finding{}}
	if segment == nil {
		q.session = &session{}
	}
	for i, t := range a.tiers {
		if s.Tiers != nil && !slices.Contains(s.Tiers, i) {
			continue
		}
		begun := false // there was an extent with rows of the time that is asked for
		for _, e := range t.all() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			blocks, _, tmin, tmax := e.stat()
			// What lies in later extents and before From hides what it follows: Read has to know of it.
			if inside := blocks > 0 && tmax >= s.From; blocks == 0 || tmin > s.To || !inside && !begun {
				continue
			}
			begun = true
			if err := q.extent(ctx, i, e, segment); err != nil {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
				q.errs = append(q.errs, err)
			}
		}
	}
	return q.answer()
}

// extent looks into one.
func (q *selecting) extent(ctx context.Context, tier int, e *extent, segment *[16]byte) error {
	if segment != nil {
		if e.trailer != nil && !filterHas(e.filter, segmentKey(*segment)) {
			return nil
		}
	} else if !q.mayMatch(e) {
		return nil
	}
	return q.a.withIndex(e, func(e *extent, ix index) error {
		v := &view{e: e, tier: tier}
		var err error
		if v.refs, err = ix.blocks(); err != nil || len(v.refs) == 0 {
			return err
		}
		if v.schemas, err = ix.schemas(); err != nil {
			return err
		}
		v.loaded = make([]*Schema, len(v.schemas))
		wanted, any := q.wanted(v)
		if !any {
			return nil
		}
		var ordinals []uint32
		if segment != nil {
			ordinals, err = ix.ids(*segment)
		} else {
			ordinals, err = q.candidates(ix)
		}
		if err != nil {
			return err
		}
		return q.sources(ctx, v, ix, ordinals, wanted)
	})
}

// always are labels that every source has: a source without the value that is asked for is none that is looked for. FORMAT.md 4.4.
func always(name string) bool { return name == "job" || name == "instance" }

// mayMatch asks an extent's filter.
func (q *selecting) mayMatch(e *extent) bool {
	_, ix := q.a.index(e)
	for _, m := range q.s.Labels {
		if m.Equal != "" && always(m.Name) && !ix.mayHave(pairKey(m.Name, m.Equal)) {
			return false
		}
	}
	return true
}

// wanted are the blocks whose schema and time are asked for.
func (q *selecting) wanted(v *view) (wanted []bool, any bool) {
	wanted = make([]bool, len(v.refs))
	broken := map[uint32]bool{}
	for i := range v.refs {
		r := &v.refs[i]
		if r.tmin > q.s.To || r.tmax < q.s.From && len(q.found) == 0 || broken[r.schema] {
			continue
		}
		ref := v.schemas[r.schema]
		k, ok := q.known[ref.hash]
		if !ok {
			s, err := q.a.schema(v.e, ref)
			if err = v.e.failed(err); err != nil {
				q.errs = append(q.errs, err)
			}
			k = schemaAnswer{s, s != nil && (q.s.Schema == nil || q.s.Schema(s))}
			if broken[r.schema] = s == nil; s != nil { // else another extent has it perhaps whole
				q.known[ref.hash] = k
			}
		}
		v.loaded[r.schema] = k.s
		wanted[i] = k.wanted && r.tmax >= q.s.From
		any = any || k.wanted || len(q.found) > 0 // what was found may be hidden by what else is here
		if t := v.table(r); wanted[i] && !slices.Contains(v.tables, t) {
			v.tables = append(v.tables, t)
		}
	}
	return wanted, any
}

// candidates are the ordinals of sources whose labels match, ascending. FORMAT.md 18.
func (q *selecting) candidates(ix index) ([]uint32, error) {
	n := ix.sources()
	set := newSet(n)
	set.all(n)
	for _, first := range []bool{true, false} { // lookups, then searches
		for i := range q.s.Labels {
			m := &q.s.Labels[i]
			if lookup := m.Equal != "" && always(m.Name); lookup != first {
				continue
			} else if lookup {
				have, err := ix.pair(m.Name, m.Equal)
				if err != nil {
					return nil, err
				}
				set.retain(have)
				continue
			}
			err := ix.pairs(m.Name, func(value string, ordinals []uint32) bool {
				if m.Equal != "" && value != m.Equal || m.Equal == "" && !m.Match(value) {
					set.remove(ordinals)
				}
				return true
			})
			if err != nil {
				return nil, err
			}
		}
	}
	return set.list(), nil
}

// sources looks at those of an extent.
func (q *selecting) sources(ctx context.Context, v *view, ix index, ordinals []uint32, wanted []bool) error {
	if d, ok := ix.(*diskIndex); ok {
		d.many = len(ordinals) > 8
	}
	for i, o := range ordinals {
		if i%256 == 255 && ctx.Err() != nil {
			return ctx.Err()
		}
		record, posts, _, err := ix.entry(o)
		if errors.Is(err, errAbsent) {
			continue
		} else if err != nil {
			return err
		}
		for n := len(posts); n > 0 && int(posts[n-1]) >= len(v.refs); n-- { // appended since
			posts = posts[:n-1]
		}
		f := q.found[keyOf(record)]
		if f != nil && f.p.has(v) { // the index broke in the middle
			continue
		}
		if f == nil && (q.full || !slices.ContainsFunc(posts, func(p uint32) bool { return wanted[p] })) {
			continue
		}
		if q.s.UID != nil && !q.s.UID(int(le.Uint32(record[0x48:]))) {
			continue
		}
		if q.s.Source != nil && f == nil {
			if src, _, err := cutSource(record); err == nil && !q.s.Source(src) {
				continue // a broken one is seen to below
			}
		}
		if err := q.source(v, o, record, posts, wanted, f); err != nil {
			q.errs = append(q.errs, err)
		}
	}
	return nil
}

// source takes in what an extent has of one source. An error is the system's, of a block.
func (q *selecting) source(v *view, ordinal uint32, record []byte, posts []uint32, wanted []bool, f *finding) error {
	var failure error
	for _, table := range v.tables {
		var of []uint32
		for _, p := range posts {
			if wanted[p] && v.table(&v.refs[p]) == table {
				of = append(of, p)
			}
		}
		if len(of) > 0 {
			var err error
			if f, err = q.table(v, ordinal, record, of, table, f); err != nil {
				failure = err
			}
		}
	}
	if f != nil {
		f.p.spans = append(f.p.spans, span{v, ordinal, posts})
	}
	return failure
}

// newest is what was found last of a table.
func (inc *Incarnation) newest(table int) *TableTier {
	if table >= len(inc.Tables) || len(inc.Tables[table].Tiers) == 0 {
		return nil
	}
	return &inc.Tables[table].Tiers[len(inc.Tables[table].Tiers)-1]
}

// table takes in the blocks of one table. Their heads are read only where they can say more than the index does: mostly of the first
// and the last.
func (q *selecting) table(v *view, ordinal uint32, record []byte, of []uint32, table int, f *finding) (*finding, error) {
	var failure error
	seen := make([]bool, len(of))
	look := func(i int) (in bool) {
		if seen[i] {
			return false
		}
		seen[i] = true
		var err error
		f, in, err = q.block(v, &v.refs[of[i]], ordinal, record, table, f)
		if err = v.e.failed(err); err != nil {
			failure = err
		}
		return in
	}
	for i := range of {
		if look(i) {
			break
		}
	}
	for i := len(of) - 1; i >= 0; i-- {
		if seen[i] || look(i) {
			break
		}
	}
	for i := range of { // where clocks were stepped back, or rows written twice
		if f == nil || seen[i] {
			continue
		}
		if r, tt := &v.refs[of[i]], f.inc.newest(table); tt == nil || r.tmin < tt.Oldest || r.tmax > tt.Newest {
			look(i)
		}
	}
	// A schema that is in neither gives its series, and when they began.
	for i := range of {
		if f != nil && !seen[i] && f.lacks(v.loaded[v.refs[of[i]].schema]) {
			look(i)
		}
	}
	return f, failure
}

// lacks tells whether it is not known when a schema's series began: where their run is broken, another block says it.
func (f *finding) lacks(s *Schema) bool {
	i := slices.Index(f.schemas, s)
	return i < 0 || f.starts[i] == nil
}

// head is a rows block's: Find keeps some, Select all of the session's.
func (q *selecting) head(e *extent, ref *blockRef, schema *Schema) (*rowsBlock, error) {
	if q.session != nil {
		return q.session.block(e, *ref, schema)
	}
	k := blockKey{e, ref.offset}
	if b, ok := q.a.reading.heads.get(k); ok {
		return b, nil
	}
	b, err := e.readHead(*ref, schema)
	if err != nil {
		return nil, err
	}
	_, runs := b.bounds(runStarts) // are kept with it
	return q.a.reading.heads.put(k, b, 200+len(b.sources)*(SourceRowsSize+4)+4*len(b.ends)+int(runs), keepHeads), nil
}

// block takes in a block, and tells whether it has rows of the source in the time that is asked for.
func (q *selecting) block(v *view, ref *blockRef, ordinal uint32, record []byte, table int, f *finding) (_ *finding, in bool, err error) {
	schema := v.loaded[ref.schema]
	b, err := q.head(v.e, ref, schema)
	if err != nil {
		return f, false, err
	}
	k, err := b.source(ordinal, 0)
	if err != nil {
		return f, false, err
	}
	oldest, newest, err := q.d.span(b, k)
	if err != nil {
		return f, false, err
	}
	if oldest > q.s.To || newest < q.s.From {
		return f, false, nil
	}
	if f == nil {
		if q.s.Limit > 0 && len(q.all) >= q.s.Limit {
			q.full = true
			return nil, false, nil
		}
		src, _, err := cutSource(record)
		if err != nil {
			return nil, false, v.e.bad(ref.offset, fmt.Sprintf("source %d", ordinal), "a valid one", err)
		}
		p := &parts{session: q.session}
		f = &finding{inc: &Incarnation{Source: src, parts: p}, p: p}
		q.found[src.Key] = f
		q.all = append(q.all, f)
	}
	if f.lacks(schema) {
		starts, err := q.d.starts(b, k, len(schema.Series), f.inc.Birth)
		if err = v.e.failed(err); err != nil {
			return f, false, err
		}
		if i := slices.Index(f.schemas, schema); i >= 0 {
			f.starts[i] = starts
		} else {
			f.schemas = append(f.schemas, schema)
			f.starts = append(f.starts, starts)
		}
	}
	s := &b.sources[k]
	for len(f.inc.Tables) <= table {
		f.inc.Tables = append(f.inc.Tables, Table{})
	}
	t := &f.inc.Tables[table]
	t.Name = schema.Name
	if n := len(t.Tiers); n == 0 || t.Tiers[n-1].Tier != v.tier {
		t.Tiers = append(t.Tiers, TableTier{Tier: v.tier, Step: b.step(), Folded: b.folded(), Oldest: oldest, Newest: newest})
	}
	tt := &t.Tiers[len(t.Tiers)-1]
	tt.Oldest, tt.Newest = min(tt.Oldest, oldest), max(tt.Newest, newest)
	if s.BaseNo > tt.Base {
		tt.Last, tt.Base = s.LastNo, s.BaseNo
	}
	if s.Flags&(flagFinal|flagEstimated) != 0 {
		f.inc.Ended = max(f.inc.Ended, s.TLast)
	}
	return f, true, nil
}

// answer makes Incarnations of what was found.
func (q *selecting) answer() ([]*Incarnation, error) {
	out := make([]*Incarnation, len(q.all))
	for i, f := range q.all {
		u := q.a.union(f.schemas)
		out[i] = f.inc
		f.inc.Series = u.series
		if len(f.starts) == 1 && len(f.starts[0]) == len(u.series) {
			f.inc.Starts = f.starts[0]
			continue
		}
		f.inc.Starts = make([]int64, len(u.series))
		birth := floorMillis(f.inc.Birth)
		set := make([]bool, len(u.series))
		for k := range f.inc.Starts {
			f.inc.Starts[k] = birth // where the run is broken
		}
		for k := range f.starts { // the oldest that has a series counts, and of one registered again the first time
			for s, start := range f.starts[k] {
				if at := u.at[k][s]; !set[at] {
					f.inc.Starts[at], set[at] = start, true
				}
			}
		}
	}
	slices.SortFunc(out, func(x, y *Incarnation) int {
		return cmp.Or(cmp.Compare(x.Birth, y.Birth), bytes.Compare(x.Segment[:], y.Segment[:]), cmp.Compare(x.Epoch, y.Epoch), cmp.Compare(x.Copy, y.Copy))
	})
	err := errors.Join(q.errs...)
	if q.full {
		err = errors.Join(fmt.Errorf("%w: want at most %d", ErrTooMany, q.s.Limit), err)
	}
	return out, err
}

// set is one of ordinals.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

func (s set) all(n int) {
	for i := range s {
		s[i] = math.MaxUint64
	}
	if n%64 != 0 {
		s[len(s)-1] = 1<<(n%64) - 1
	}
}

func (s set) remove(ordinals []uint32) {
	for _, o := range ordinals {
		if int(o/64) < len(s) {
			s[o/64] &^= 1 << (o % 64)
		}
	}
}

// retain removes all others.
func (s set) retain(ordinals []uint32) {
	keep := make(set, len(s))
	for _, o := range ordinals {
		if int(o/64) < len(s) {
			keep[o/64] |= 1 << (o % 64)
		}
	}
	for i := range s {
		s[i] &= keep[i]
	}
}

func (s set) list() []uint32 {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	all := make([]uint32, 0, n)
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			all = append(all, uint32(64*i+bits.TrailingZeros64(w)))
		}
	}
	return all
}

// Number is a word of a field as a float64. It is not for histograms.
func Number(s *reader.Series, f Field, word uint64) float64 {
	switch {
	case isFloat(s, f):
		return math.Float64frombits(word)
	case s.Number == reader.U64 || f == Count || f == Hist:
		return float64(word)
	}
	return float64(int64(word))
}
