package archive

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"

	"github.com/shmts/shmts/reader"
)

// follow looks what another process, which writes the archive, has done since.
func (a *Archive) follow() error {
	if a.lock != nil {
		return nil
	}
	a.reading.following.Lock()
	defer a.reading.following.Unlock()
	var errs []error
	for _, t := range a.tiers {
		errs = append(errs, t.refresh())
	}
	return errors.Join(errs...)
}

var decoders = sync.Pool{New: func() any { return new(decoder) }}

// Read implements Reader.
func (a *Archive) Read(inc *Incarnation, table, tier int, from, to int64, columns []Column) iter.Seq2[*Chunk, error] {
	return func(yield func(*Chunk, error) bool) {
		p, ok := inc.parts.(*parts)
		if !ok || table < 0 || table >= len(inc.Tables) || tier < 0 || tier >= len(inc.Tables[table].Tiers) {
			yield(nil, fmt.Errorf("shmts: archive: read: want one of the incarnation's tables and tiers, got table %d, tier %d", table, tier))
			return
		}
		r := rowsReader{a: a, p: p, table: table, tier: inc.Tables[table].Tiers[tier].Tier, from: from, to: to, columns: columns,
			d: decoders.Get().(*decoder), readMemory: readMemories.Get().(*readMemory)}
		defer decoders.Put(r.d)
		defer r.readMemory.release()
		r.read(yield)
	}
}

// readMemory is what one Read after the other uses.
type readMemory struct {
	c       Chunk
	cover   []uint64 // of c, as far as it has them, as the next
	cells   [][]uint64
	present [][]bool
	rows    []int
}

var readMemories = sync.Pool{New: func() any { return new(readMemory) }}

// keepRead is how many words of a Read's memory are kept for the next one.
const keepRead = 1 << 17

// use makes room for n columns.
func (m *readMemory) use(n int) {
	m.cells, m.present = slices.Grow(m.cells, max(n-len(m.cells), 0))[:n], slices.Grow(m.present, max(n-len(m.present), 0))[:n]
	m.c.Cells, m.c.Present = slices.Grow(m.c.Cells[:0], n)[:n], slices.Grow(m.c.Present[:0], n)[:n]
}

func (m *readMemory) release() {
	words := 0
	for _, c := range m.cells[:cap(m.cells)] {
		words += cap(c)
	}
	if words > keepRead {
		return
	}
	clear(m.c.Cells)
	clear(m.c.Present)
	m.c = Chunk{Numbers: m.c.Numbers, Times: m.c.Times, Cells: m.c.Cells, Present: m.c.Present}
	readMemories.Put(m)
}

// rowsReader is one Read at work.
type rowsReader struct {
	a        *Archive
	p        *parts
	table    int
	tier     int // of the archive
	from, to int64
	columns  []Column
	d        *decoder
	*readMemory

	at     int    // of the source in the last block
	last   uint64 // number, or base, up to which rows were read
	newest int64  // time of the last one
	hidden place  // up to which rows are hidden by one before from

	plan   []fieldPlan // of the columns in schema
	schema *Schema
	ends   [2]int // how many runs its blocks have, not folded and folded
	used   bool   // there is room for the columns
}

// place is where in the order of rows one is.
type place struct {
	n   uint64 // its number; of a folded one its block's base
	row int    // of a folded one: in that
}

func (p place) after(q place) bool { return p.n > q.n || p.n == q.n && p.row > q.row }

// fieldPlan says which runs of a schema make a column.
type fieldPlan struct {
	runs    []int // of the unfolded and the folded rows' field; more than one where a series was registered again
	folded  []int
	float   bool
	buckets int  // + 2
	same    bool // rows that are not folded have one value for all of a gauge's fields
}

func (r *rowsReader) read(yield func(*Chunk, error) bool) {
	first := true
	var within []int // spans and positions of what may be yielded
	for i := range r.p.spans {
		s := &r.p.spans[i]
		if s.v.tier != r.tier {
			continue
		}
		for k, p := range s.posts {
			ref := &s.v.refs[p]
			if s.v.table(ref) != r.table || ref.tmin > r.to {
				continue
			}
			if ref.tmax >= r.from {
				first = false
				within = append(within, i, k)
			}
			if !first && ref.tmin < r.from {
				if err := s.v.e.failed(r.hide(i, k, len(within) > 2)); err != nil && !yield(nil, err) {
					return
				}
			}
		}
	}
	for ; len(within) > 0; within = within[2:] {
		s := &r.p.spans[within[0]]
		more := true
		err := r.block(within[0], within[1], func() bool {
			more = yield(&r.c, nil)
			return more
		})
		if err = s.v.e.failed(err); err != nil && more {
			more = yield(nil, err)
		}
		if !more {
			return
		}
	}
}

// open reads what of a block says which rows of the source it has.
func (r *rowsReader) open(s *span, ref *blockRef) (b *rowsBlock, k int, err error) {
	if b, err = r.p.session.block(s.v.e, *ref, s.v.loaded[ref.schema]); err != nil {
		return nil, 0, err
	}
	if k, err = b.source(s.ordinal, r.at); err != nil {
		return nil, 0, err
	}
	r.at = k
	return b, k, nil
}

// hide finds the last row of a block that lies before from: it hides those before it. again says that it may have rows that other blocks had.
func (r *rowsReader) hide(at, post int, again bool) error {
	s := &r.p.spans[at]
	b, k, err := r.open(s, &s.v.refs[s.posts[post]])
	if err != nil {
		return err
	}
	sr := &b.sources[k]
	if sr.Flags&flagFalling == 0 && sr.TFirst >= r.from || again && r.stale(b, k, at, post) {
		return nil
	}
	if sr.Flags&flagFalling == 0 && sr.TLast < r.from {
		last := place{sr.LastNo, 0}
		if b.folded() {
			last = place{sr.BaseNo, int(sr.Rows) - 1}
		}
		if last.after(r.hidden) {
			r.hidden = last
		}
		return nil
	}
	if err := r.d.rows(b, k); err != nil {
		return err
	}
	for i, t := range r.d.times {
		if at := r.place(b, k, i); t < r.from && at.after(r.hidden) {
			r.hidden = at
		}
	}
	return nil
}

func (r *rowsReader) place(b *rowsBlock, k, row int) place {
	if b.folded() {
		return place{b.sources[k].BaseNo, row}
	}
	return place{r.d.numbers[row], 0}
}

// stale tells whether a source's part of a block of folded rows is passed over, for a block before it reaches as far. Only what steps back in
// time may be: most blocks are not asked.
func (r *rowsReader) stale(b *rowsBlock, k, at, post int) bool {
	if !b.folded() {
		return false
	}
	for i := range r.p.spans[:at+1] {
		s := &r.p.spans[i]
		if s.v.tier != r.tier {
			continue
		}
		for n, p := range s.posts {
			if i == at && n == post {
				return false
			}
			if s.v.table(&s.v.refs[p]) != r.table {
				continue
			}
			if before, j, err := r.open(s, &s.v.refs[p]); err == nil && before.sources[j].BaseNo >= b.sources[k].BaseNo {
				return true
			}
		}
	}
	return false
}

// block yields the rows of one block.
func (r *rowsReader) block(at, post int, yield func() bool) error {
	s := &r.p.spans[at]
	ref := &s.v.refs[s.posts[post]]
	b, k, err := r.open(s, ref)
	if err != nil {
		return err
	}
	src := &b.sources[k]
	if src.Flags&flagFalling == 0 && (src.TFirst > r.to || src.TLast < r.from) {
		r.passOver(b, src)
		return nil
	}
	if r.last > 0 && src.TFirst <= r.newest && r.stale(b, k, at, post) {
		return nil
	}
	r.newest = max(r.newest, src.TLast)
	if b.folded() && src.BaseNo <= r.last || !b.folded() && src.LastNo <= r.last {
		return nil
	}
	if err := r.d.rows(b, k); err != nil {
		return err
	}
	r.rows = r.rows[:0]
	for i, t := range r.d.times {
		if !b.folded() {
			if r.d.numbers[i] <= r.last {
				continue
			}
			r.last = r.d.numbers[i]
		}
		if t >= r.from && t <= r.to && r.place(b, k, i).after(r.hidden) {
			r.rows = append(r.rows, i)
		}
	}
	if b.folded() {
		r.last = src.BaseNo
	}
	if len(r.rows) == 0 {
		return nil
	}
	if err := r.prepare(s.v, ref, b); err != nil {
		return err
	}
	return r.chunk(b, k, yield)
}

// passOver counts rows as read without reading them.
func (r *rowsReader) passOver(b *rowsBlock, src *SourceRows) {
	r.newest = max(r.newest, src.TLast)
	if b.folded() {
		r.last = max(r.last, src.BaseNo)
	} else {
		r.last = max(r.last, src.LastNo)
	}
}

// prepare finds the columns in the block's schema, and reads their runs.
func (r *rowsReader) prepare(v *view, ref *blockRef, b *rowsBlock) error {
	schema := v.loaded[ref.schema]
	if schema == nil || schema.Hash != v.schemas[ref.schema].hash {
		var err error
		if schema, err = r.a.schema(v.e, v.schemas[ref.schema]); err != nil {
			return err
		}
	}
	if schema != r.schema {
		r.schema, r.plan = schema, r.p.session.plan(schema, r.columns)
		r.ends = [2]int{runFields + schema.fields(false), runFields + schema.fields(true)}
	}
	want := r.ends[0]
	if b.folded() {
		want = r.ends[1]
	}
	if len(b.ends) != want {
		return b.e.bad(ref.offset, "runs", want, len(b.ends))
	}
	lo, hi := math.MaxInt, 0
	gaps := false
	for i := range r.plan {
		for _, run := range r.plan[i].of(b.folded()) {
			gaps = gaps || hi > 0 && (run > hi || run < lo-1)
			lo, hi = min(lo, run), max(hi, run+1)
		}
	}
	if hi == 0 {
		return nil
	}
	if !gaps {
		return b.load(lo, hi)
	}
	for i := range r.plan {
		for _, run := range r.plan[i].of(b.folded()) {
			if err := b.load(run, run+1); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *fieldPlan) of(folded bool) []int {
	if folded {
		return p.folded
	}
	return p.runs
}

// planColumns finds columns in a schema.
func planColumns(schema *Schema, columns []Column) []fieldPlan {
	plan := make([]fieldPlan, len(columns))
	run, folded := runFields, runFields
	for _, s := range schema.Series {
		plain, wide := Fields(s.Kind, false), Fields(s.Kind, true)
		for i, c := range columns {
			if !sameSeries(s, c.Series) {
				continue
			}
			p := &plan[i]
			p.float = isFloat(s, c.Field)
			if c.Field == Hist {
				p.buckets = s.Buckets.Count + 2
			}
			if at := slices.Index(wide, c.Field); at >= 0 {
				p.folded = append(p.folded, folded+at)
			}
			at := slices.Index(plain, c.Field)
			if at < 0 && s.Kind == reader.Gauge && c.Field < Hist {
				at, p.same = 0, true
			}
			if at >= 0 {
				p.runs = append(p.runs, run+at)
			}
		}
		run += len(plain)
		folded += len(wide)
	}
	return plan
}

// chunk decodes the columns of the rows that were chosen.
func (r *rowsReader) chunk(b *rowsBlock, k int, yield func() bool) error {
	d, src := r.d, &b.sources[k]
	n, end := int(src.Rows), r.rows[len(r.rows)-1] == int(src.Rows)-1
	c := &r.c
	c.Folded, c.Copied, c.Base = b.folded(), src.Flags&flagCopied != 0, src.BaseNo
	c.Final, c.Estimated = src.Flags&flagFinal != 0 && end, src.Flags&flagEstimated != 0 && end
	c.Numbers, c.Times, c.Coverage = pick(c.Numbers[:0], d.numbers, r.rows), pick(c.Times[:0], d.times, r.rows), nil
	if c.Folded {
		r.cover = pick(r.cover[:0], d.cover, r.rows)
		c.Coverage = r.cover
	}
	if !r.used {
		r.use(len(r.columns))
		r.used = true
	}
	for i := range r.columns {
		if err := r.column(i, b, k, n); err != nil {
			return err
		}
	}
	yield()
	return nil
}

// column decodes one, and puts it into the chunk. A run that fails is a column that the rows don't have.
func (r *rowsReader) column(i int, b *rowsBlock, k, n int) error {
	p, field := &r.plan[i], r.columns[i].Field
	float := p.float
	if p.same && !b.folded() {
		float = r.columns[i].Series.Number == reader.F64
	}
	cells, width, have := r.cells[i][:0], max(p.buckets+1, 1), false
	all := false // rows have a value
	present := r.present[i][:0]
	for _, run := range p.of(b.folded()) {
		at := len(cells)
		var there []bool
		var err error
		if cells, there, err = r.d.values(cells, b, run, k, float, p.buckets); err != nil {
			cells = cells[:at]
			if err := b.e.failed(err); err != nil {
				return err
			}
			continue
		}
		if !have {
			have, all = true, there == nil
			present = append(present, there...)
			continue
		}
		// Registered again: the values of the one are absent where those of the other are.
		for row := range n {
			if all || present[row] || there != nil && !there[row] {
				continue
			}
			copy(cells[row*width:][:width], cells[at+row*width:][:width])
			present[row] = true
		}
		cells = cells[:at]
	}
	r.cells[i], r.present[i] = cells, present
	c := &r.c
	if !have {
		r.present[i] = falses(present, len(r.rows))
		c.Cells[i], c.Present[i] = nil, r.present[i]
		return nil
	}
	if len(r.rows) < n {
		for to, row := range r.rows {
			copy(cells[to*width:][:width], cells[row*width:][:width])
			if !all {
				present[to] = present[row]
			}
		}
		cells = cells[:len(r.rows)*width]
		if !all {
			present = present[:len(r.rows)]
		}
	}
	if p.same && !b.folded() {
		sameField(r.columns[i].Series, field, cells)
	}
	c.Cells[i], c.Present[i] = cells, present
	if all {
		c.Present[i] = nil
	}
	return nil
}

// sameField makes of a gauge's values what they are as another field: FORMAT.md 19.5, of one row.
func sameField(s *reader.Series, f Field, cells []uint64) {
	for i, word := range cells {
		switch {
		case f == Count:
			cells[i] = 1
		case f == Sum && s.Number == reader.I64:
			cells[i] = math.Float64bits(float64(int64(word)))
		}
	}
}

func falses(b []bool, n int) []bool {
	b = slices.Grow(b[:0], n)[:n]
	clear(b)
	return b
}

// pick appends those of rows.
func pick[T any](to, from []T, rows []int) []T {
	for _, i := range rows {
		to = append(to, from[i])
	}
	return to
}

// Blocks implements Reader.
func (a *Archive) Blocks(tier int, from Mark) iter.Seq2[*BlockInfo, error] {
	return func(yield func(*BlockInfo, error) bool) {
		if tier < 0 || tier >= len(a.tiers) {
			yield(nil, fmt.Errorf("shmts: archive: tier: want 0 to %d, got %d", len(a.tiers)-1, tier))
			return
		}
		if err := a.follow(); err != nil && !yield(nil, err) {
			return
		}
		for _, e := range a.tiers[tier].all() {
			if e.generation < from.Generation {
				continue
			}
			begin := uint32(0)
			if e.generation == from.Generation {
				begin = uint32(min(from.Offset, math.MaxUint32))
			}
			more := true
			err := a.withIndex(e, func(e *extent, ix index) error {
				var err error
				more, begin, err = a.blocks(e, ix, begin, yield)
				return err
			})
			if err != nil && more {
				more = yield(nil, err)
			}
			if !more {
				return
			}
		}
	}
}

// blocks yields those of an extent from an offset on, and answers behind which it got. An error is the index's.
func (a *Archive) blocks(e *extent, ix index, from uint32, yield func(*BlockInfo, error) bool) (more bool, at uint32, err error) {
	refs, err := ix.blocks()
	if err != nil {
		return true, from, err
	}
	schemas, err := ix.schemas()
	if err != nil {
		return true, from, err
	}
	sources, loaded, tier := map[uint32]*Source{}, make([]*Schema, len(schemas)), slices.Index(a.tiers, e.t)
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	for _, ref := range refs {
		if ref.offset < from {
			continue
		}
		schema, err := a.schema(e, schemas[ref.schema])
		var b *rowsBlock
		if err == nil {
			b, err = e.readHead(ref, schema)
		}
		var info *BlockInfo
		if err == nil {
			info = &BlockInfo{Mark: Mark{e.generation, uint64(ref.offset)}, Length: int(ref.length), Schema: schema, Step: b.step(), Folded: b.folded(), From: b.h.TMin, To: b.h.TMax}
			info.Members, err = b.members()
			var d *damage
			if errors.As(err, &d) { // that run alone
				err = e.failed(err)
			}
		}
		if err != nil {
			if err = e.failed(err); err != nil && !yield(nil, err) {
				return false, from, nil
			}
			continue
		}
		loaded[ref.schema] = schema
		info.part = &part{tier: tier, v: &view{e: e, tier: tier, refs: []blockRef{ref}, schemas: schemas, loaded: loaded}}
		for _, s := range b.sources {
			info.part.sources = append(info.part.sources, s.Source)
			src := sources[s.Source]
			if src == nil {
				record, _, _, err := ix.entry(s.Source)
				if err != nil {
					return true, from, err
				}
				if src, _, err = cutSource(record); err != nil {
					return true, from, err
				}
				sources[s.Source] = src
			}
			info.Sources = append(info.Sources, BlockSource{Source: src, First: s.FirstNo, Rows: int(s.Rows), Copied: s.Flags&flagCopied != 0,
				Position: Position{Last: s.LastNo, Base: s.BaseNo, Time: s.TLast, Ended: s.Flags&(flagFinal|flagEstimated) != 0}})
		}
		if !yield(info, nil) {
			return false, from, nil
		}
		from = ref.offset + ref.length
	}
	return true, from, nil
}
