package archive

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/shmts/shmts/reader"
)

// idsSize is trace_id and span_id of an exemplar. FORMAT.md 16.3.
const idsSize = 24

// AppendExemplars implements Writer.
func (a *Archive) AppendExemplars(parts ...Exemplars) error {
	t, err := a.writable(0)
	if err != nil || len(parts) == 0 {
		return err
	}
	if err := checkExemplars(parts); err != nil {
		return err
	}
	enc := a.encoder()
	defer a.release(enc)
	enc.out, enc.prefix = enc.out[:0], 0
	h := enc.exemplars(parts)
	enc.rows = append(enc.rows[:0], rowsImage{parts: parts, length: len(enc.out), h: h})
	return a.append(0, t, enc)
}

// has tells whether a series may have exemplars. FORMAT.md 16.3.
func hasExemplars(s *reader.Series) bool {
	return s.Kind == reader.Counter || s.Kind == reader.Histogram
}

// checkExemplars says what is wrong with some, as nothing else would before they are read.
func checkExemplars(parts []Exemplars) error {
	bad := func(what string, want, got any) error {
		return fmt.Errorf("shmts: archive: append exemplars: %s: want %v, got %v", what, want, got)
	}
	if len(parts) > maxParts {
		return bad("parts", fmt.Sprintf("1 to %d", maxParts), len(parts))
	}
	n := 0
	type numbering struct {
		Key
		table int
	}
	seen := make(map[numbering]bool, len(parts))
	for i := range parts {
		p := &parts[i]
		switch n += len(p.List); {
		case p.Source == nil || p.Schema == nil:
			return bad(fmt.Sprintf("part %d", i), "a source and a schema", fmt.Sprintf("%v and %v", p.Source != nil, p.Schema != nil))
		case p.Source.UID != parts[0].Source.UID:
			return bad("uid", parts[0].Source.UID, p.Source.UID)
		case len(p.List) == 0:
			return bad(fmt.Sprintf("exemplars of part %d", i), "at least 1", 0)
		}
		of := numbering{p.Source.Key, p.Schema.Table}
		if seen[of] {
			return bad(fmt.Sprintf("part %d", i), "each source and table once", fmt.Sprintf("table %d of %x twice", of.table, of.Segment))
		}
		seen[of] = true
		last := uint64(0)
		for k := range p.List {
			x := &p.List[k]
			if x.Number <= last {
				return bad("number", fmt.Sprintf("more than %d", last), x.Number)
			}
			last = x.Number
			if x.Series < 0 || x.Series >= len(p.Schema.Series) || !hasExemplars(p.Schema.Series[x.Series]) {
				return bad("series", fmt.Sprintf("a counter or histogram of %d series", len(p.Schema.Series)), x.Series)
			}
		}
	}
	if n > maxExemplars {
		return bad("exemplars", fmt.Sprintf("at most %d", maxExemplars), n)
	}
	return nil
}

// exemplars appends an exemplars block to out. Its header, the checks and ordinals in it are left to placeExemplars.
func (e *encoder) exemplars(parts []Exemplars) BlockHeader {
	h := BlockHeader{Type: blockExemplars, Count: uint32(len(parts)), Head: uint32(exemplarsHead(len(parts))), TMin: math.MaxInt64, TMax: math.MinInt64}
	block := len(e.out)
	e.out = grow(e.out, BlockHeaderSize+int(h.Head))
	table, runs := block+BlockHeaderSize+headSize, len(e.out)
	for i := range parts {
		list := parts[i].List
		h.Runs += uint32(len(list))
		e.out = append(e.out, 0, 0, 0, 0) // the check
		column := func(float bool, word func(x *Exemplar) uint64) {
			e.times = e.times[:0]
			for k := range list {
				e.times = append(e.times, word(&list[k]))
			}
			e.out = e.col.Encode(e.out, e.times, nil, float)
		}
		column(false, func(x *Exemplar) uint64 { return x.Number })
		column(false, func(x *Exemplar) uint64 { return uint64(x.Series) })
		column(false, func(x *Exemplar) uint64 { return uint64(x.Time) })
		column(true, func(x *Exemplar) uint64 { return math.Float64bits(x.Value) })
		for k := range list {
			e.out = append(append(e.out, list[k].TraceID[:]...), list[k].SpanID[:]...)
			ms := floorMillis(list[k].Time)
			h.TMin, h.TMax = min(h.TMin, ms), max(h.TMax, ms)
		}
		appendTo(e.out[:table+i*ExemplarPartSize], &ExemplarPart{Exemplars: uint32(len(list)), End: uint32(len(e.out) - runs), LastNo: list[len(list)-1].Number})
	}
	e.out = pad(e.out, block)
	return h
}

// placeExemplars puts ordinals and checks into the exemplars block at the front of b, which is to lie at an offset.
func (r *rowsImage) placeExemplars(b []byte, offset uint32, s seed, sources, schemas []uint32) {
	b = b[:r.length]
	head, runs := b[BlockHeaderSize:][:r.h.Head], b[BlockHeaderSize+r.h.Head:]
	runsAt, from := offset+BlockHeaderSize+r.h.Head, uint32(0)
	for i := range sources {
		p := head[headSize+i*ExemplarPartSize:]
		le.PutUint32(p, sources[i])
		le.PutUint32(p[4:], schemas[i])
		to := le.Uint32(p[12:])
		le.PutUint32(runs[from:], s.check(runsAt+from+4, runs[from+4:to]))
		from = to
	}
	le.PutUint32(head, s.check(offset+BlockHeaderSize+4, head[4:]))
	s.finish(b, offset, &r.h)
}

// exemplarsHead is how long the head of an exemplars block of so many parts is.
func exemplarsHead(parts int) int { return headSize + parts*ExemplarPartSize }

// cutExemplarsHead reads the head of the exemplars block at an offset, and holds it against itself and the block's header: whether its
// ordinals are anything's is for the caller to say.
func (s seed) cutExemplarsHead(offset uint32, h *BlockHeader, head []byte) ([]ExemplarPart, error) {
	bad := func(field string, want, got any) ([]ExemplarPart, error) {
		return nil, fmt.Errorf("%s: want %v, got %v", field, want, got)
	}
	switch {
	case h.Type != blockExemplars:
		return bad("type", blockExemplars, h.Type)
	case h.Count < 1 || h.Count > maxParts:
		return bad("count", fmt.Sprintf("1 to %d", maxParts), h.Count)
	case uint64(h.Head) != uint64(exemplarsHead(int(h.Count))):
		return bad("head", exemplarsHead(int(h.Count)), h.Head)
	case uint64(h.Head) > uint64(h.Length-BlockHeaderSize):
		return bad("head", fmt.Sprintf("at most %d", h.Length-BlockHeaderSize), h.Head)
	case len(head) < int(h.Head):
		return bad("head", h.Head, len(head))
	}
	head = head[:h.Head]
	if sum := s.check(offset+BlockHeaderSize+4, head[4:]); sum != le.Uint32(head) {
		return bad("check of the head", fmt.Sprintf("%#x", sum), fmt.Sprintf("%#x", le.Uint32(head)))
	}
	parts := make([]ExemplarPart, h.Count)
	before, room, n := uint32(0), h.Length-BlockHeaderSize-h.Head, uint64(0)
	for i := range parts {
		b := head[headSize+i*ExemplarPartSize:]
		p := ExemplarPart{le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint64(b[16:])}
		if n += uint64(p.Exemplars); p.Exemplars == 0 || n > maxExemplars {
			return bad(fmt.Sprintf("exemplars of part %d", i), fmt.Sprintf("1 to %d with those before", maxExemplars), p.Exemplars)
		}
		if p.End < before || p.End > room || p.End-before < 4 {
			return bad(fmt.Sprintf("end of part %d", i), fmt.Sprintf("%d to %d", before+4, room), p.End)
		}
		parts[i], before = p, p.End
	}
	if n != uint64(h.Runs) {
		return bad("exemplars", h.Runs, n)
	}
	return parts, nil
}

// exemplarsBlock is one of which the head was read.
type exemplarsBlock struct {
	e     *extent
	ref   exemplarsRef
	h     BlockHeader
	parts []ExemplarPart
}

// readExemplarsHead reads the head of an exemplars block that an index names.
func (e *extent) readExemplarsHead(ref exemplarsRef) (*exemplarsBlock, error) {
	if ref.length < BlockHeaderSize || uint64(ref.offset)+uint64(ref.length) > uint64(e.limit()) || ref.parts > maxParts {
		return nil, e.bad(ref.offset, "place in the index", fmt.Sprintf("at most %d, at most %d parts", e.limit(), maxParts), fmt.Sprintf("%d + %d, %d", ref.offset, ref.length, ref.parts))
	}
	b, err := e.readAt(ref.offset, min(ref.length, uint32(BlockHeaderSize+exemplarsHead(int(ref.parts)))))
	if err != nil {
		return nil, err
	}
	h, ok := e.seed.checkBlockHeader(ref.offset, b, e.limit())
	if !ok || h.Type != blockExemplars || h.Length != ref.length || h.Count != ref.parts || h.Runs != ref.exemplars {
		return nil, e.bad(ref.offset, "header", "that of an exemplars block, as the index says", "another")
	}
	parts, err := e.seed.cutExemplarsHead(ref.offset, &h, b[BlockHeaderSize:])
	if err != nil {
		return nil, e.bad(ref.offset, "head", "a valid one", err)
	}
	return &exemplarsBlock{e, ref, h, parts}, nil
}

// exemplars appends those of part k, all or none. schema is the part's.
func (d *decoder) exemplars(list []Exemplar, b *exemplarsBlock, k int, schema *Schema) ([]Exemplar, error) {
	p, from := &b.parts[k], uint32(0)
	if k > 0 {
		from = b.parts[k-1].End
	}
	at := b.ref.offset + BlockHeaderSize + b.h.Head + from
	run, err := b.e.readAt(at, p.End-from)
	if err != nil {
		return list, err
	}
	bad := func(what string, want, got any) ([]Exemplar, error) {
		return list, b.e.bad(b.ref.offset, fmt.Sprintf("part %d: %s", k, what), want, got)
	}
	if sum := b.e.check(at+4, run[4:]); sum != le.Uint32(run) {
		return bad("check", fmt.Sprintf("%#x", le.Uint32(run)), fmt.Sprintf("%#x", sum))
	}
	n, run := int(p.Exemplars), run[4:]
	if len(run) < n*idsSize { // of columns alone a few bytes may say that many
		return bad("length", fmt.Sprintf("at least %d", n*idsSize), len(run))
	}
	begin := len(list)
	list = append(list, make([]Exemplar, n)...)
	fail := func(what string, want, got any) ([]Exemplar, error) {
		list = list[:begin]
		return bad(what, want, got)
	}
	for c, set := range []func(x *Exemplar, word uint64){
		func(x *Exemplar, word uint64) { x.Number = word },
		func(x *Exemplar, word uint64) { x.Series = int(min(word, math.MaxInt32)) },
		func(x *Exemplar, word uint64) { x.Time = int64(word) },
		func(x *Exemplar, word uint64) { x.Value = math.Float64frombits(word) },
	} {
		vals, present, rest, err := d.col.Decode(run, n, c == 3)
		if err == nil && there(present, n) < n {
			err = errors.New("absent values")
		}
		if err != nil {
			return fail(fmt.Sprintf("column %d", c), "a column", err)
		}
		for i, v := range vals {
			set(&list[begin+i], v)
		}
		run = rest
	}
	last := b.parts[k].LastNo
	if len(run) < n*idsSize {
		return fail("ids", n*idsSize, len(run))
	}
	number := uint64(0)
	for i := range n {
		x := &list[begin+i]
		copy(x.TraceID[:], run[i*idsSize:])
		copy(x.SpanID[:], run[i*idsSize+16:])
		if x.Number <= number || x.Number > last || i == n-1 && x.Number != last {
			return fail("number", fmt.Sprintf("ascending to %d", last), x.Number)
		}
		number = x.Number
		if x.Series >= len(schema.Series) || !hasExemplars(schema.Series[x.Series]) {
			return fail("series", fmt.Sprintf("a counter or histogram of %d series", len(schema.Series)), x.Series)
		}
	}
	return list, nil
}

// exemplarsIn is how many exemplars an extent has that is about to be reused: none, if its index can't say.
func (a *Archive) exemplarsIn(e *extent) (n uint64) {
	if e == nil || e.trailer != nil && e.trailer.Exemplars == 0 {
		return 0
	}
	_, ix := a.index(e)
	all, err := ix.exemplars()
	if err != nil {
		return 0 // who reads it sees it
	}
	for _, ref := range all {
		n += uint64(ref.exemplars)
	}
	return n
}

// exemplarsOf names what has exemplars of one numbering, of which a part is written once.
type exemplarsOf struct {
	segment [16]byte
	copy    uint32
	table   int
}

// exemplarsReader is one Exemplars at work.
type exemplarsReader struct {
	a     *Archive
	ctx   context.Context
	s     *Selection
	d     *decoder
	known map[[16]byte]schemaAnswer
	last  map[exemplarsOf]uint64 // number up to which they were yielded
	out   Exemplars
	list  []Exemplar
}

// Exemplars implements Reader.
func (a *Archive) Exemplars(ctx context.Context, s Selection) iter.Seq2[*Exemplars, error] {
	return func(yield func(*Exemplars, error) bool) {
		if err := a.follow(); err != nil && !yield(nil, err) {
			return
		}
		r := &exemplarsReader{a: a, ctx: ctx, s: &s, d: decoders.Get().(*decoder), known: map[[16]byte]schemaAnswer{}, last: map[exemplarsOf]uint64{}}
		defer decoders.Put(r.d)
		q := &selecting{a: a, s: &s}
		for _, e := range a.tiers[0].all() {
			if e.trailer != nil && e.trailer.Exemplars == 0 || !q.mayMatch(e) {
				continue
			}
			more, begin := true, uint32(0)
			err := a.withIndex(e, func(e *extent, ix index) (err error) {
				more, begin, err = r.extent(q, e, ix, begin, yield)
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

// extent yields those of an extent that lie behind an offset, and answers up to where it got. An error is the index's.
func (r *exemplarsReader) extent(q *selecting, e *extent, ix index, from uint32, yield func(*Exemplars, error) bool) (more bool, at uint32, err error) {
	refs, err := ix.exemplars()
	if err != nil || !slices.ContainsFunc(refs, r.within) { // most extents are of another time
		return true, from, err
	}
	schemas, err := ix.schemas()
	if err != nil {
		return true, from, err
	}
	ordinals, err := q.candidates(ix)
	if err != nil {
		return true, from, err
	}
	candidates := newSet(ix.sources())
	for _, o := range ordinals {
		candidates[o/64] |= 1 << (o % 64)
	}
	sources := map[uint32]*Source{}
	for _, ref := range refs {
		if ref.offset < from || !r.within(ref) {
			continue
		}
		if err := r.ctx.Err(); err != nil {
			yield(nil, err)
			return false, from, nil
		}
		b, err := e.readExemplarsHead(ref)
		if err != nil {
			if err = e.failed(err); err != nil && !yield(nil, err) {
				return false, from, nil
			}
			continue
		}
		for k := range b.parts {
			p := &b.parts[k]
			if int(p.Source/64) >= len(candidates) || candidates[p.Source/64]>>(p.Source%64)&1 == 0 {
				continue
			}
			src := sources[p.Source]
			if src == nil {
				record, _, _, err := ix.entry(p.Source)
				if errors.Is(err, errAbsent) {
					continue
				} else if err == nil {
					src, _, err = cutSource(record)
				}
				if err != nil {
					return true, from, err
				}
				sources[p.Source] = src
			}
			if r.s.UID != nil && !r.s.UID(src.UID) || r.s.Source != nil && !r.s.Source(src) {
				continue
			}
			err := r.part(e, b, k, src, schemas)
			if err = e.failed(err); err != nil && !yield(nil, err) {
				return false, from, nil
			}
			if err == nil && len(r.out.List) > 0 && !yield(&r.out, nil) {
				return false, from, nil
			}
		}
		from = ref.offset + ref.length
	}
	return true, from, nil
}

// within tells whether a block has exemplars of the time that is asked for.
func (r *exemplarsReader) within(ref exemplarsRef) bool {
	return ref.tmin <= r.s.To && ref.tmax >= r.s.From
}

// part makes out of one part of a block: nothing, if it is not wanted.
func (r *exemplarsReader) part(e *extent, b *exemplarsBlock, k int, src *Source, schemas []schemaRef) error {
	p := &b.parts[k]
	r.out = Exemplars{Source: src}
	if int(p.Schema) >= len(schemas) {
		return e.bad(b.ref.offset, fmt.Sprintf("schema of part %d", k), fmt.Sprintf("below %d", len(schemas)), p.Schema)
	}
	ref := schemas[p.Schema]
	of := exemplarsOf{src.Segment, src.Copy, int(ref.table)}
	before := r.last[of]
	if p.LastNo <= before {
		return nil
	}
	known, ok := r.known[ref.hash]
	if !ok {
		s, err := r.a.schema(e, ref)
		if err != nil {
			return err
		}
		known = schemaAnswer{s, r.s.Schema == nil || r.s.Schema(s)}
		r.known[ref.hash] = known
	}
	if !known.wanted {
		return nil
	}
	var err error
	if r.list, err = r.d.exemplars(r.list[:0], b, k, known.s); err != nil {
		return err
	}
	r.last[of] = p.LastNo
	r.out.Schema, r.out.List = known.s, r.list[:0]
	for i := range r.list {
		if x := &r.list[i]; x.Number > before && x.Time >= millisBegin(r.s.From) && x.Time <= millisEnd(r.s.To) {
			r.out.List = append(r.out.List, *x)
		}
	}
	return nil
}

// millisBegin and millisEnd are the first and the last nanosecond of a millisecond, as far as there are such.
func millisBegin(ms int64) int64 { return max(ms, math.MinInt64/1_000_000) * 1_000_000 }

func millisEnd(ms int64) int64 {
	if ms >= math.MaxInt64/1_000_000 {
		return math.MaxInt64
	}
	return millisBegin(ms) + 999_999
}

// FindExemplars implements Reader.
func (a *Archive) FindExemplars(segment [16]byte) ([]ExemplarPosition, error) {
	if err := a.follow(); err != nil {
		return nil, err
	}
	at := map[Key]int{}
	var all []ExemplarPosition
	var errs []error
	for _, e := range a.tiers[0].all() {
		if e.trailer != nil && (e.trailer.Exemplars == 0 || !filterHas(e.filter, segmentKey(segment))) {
			continue
		}
		errs = append(errs, a.withIndex(e, func(e *extent, ix index) error {
			ordinals, err := ix.ids(segment)
			if err != nil {
				return err
			}
			for _, o := range ordinals {
				record, _, last, err := ix.entry(o)
				if errors.Is(err, errAbsent) || err == nil && last == 0 {
					continue
				} else if err != nil {
					return err
				}
				src, _, err := cutSource(record)
				if err != nil {
					return err
				}
				i, ok := at[src.Key]
				if !ok {
					i = len(all)
					at[src.Key] = i
					all = append(all, ExemplarPosition{Source: src})
				}
				all[i].Last = max(all[i].Last, last)
			}
			return nil
		}))
	}
	return all, errors.Join(errs...)
}
