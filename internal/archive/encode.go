package archive

import (
	"fmt"
	"slices"

	"github.com/shmts/shmts/internal/archive/column"
	"github.com/shmts/shmts/reader"
)

// isFloat tells whether a field's words are the bits of f64s. FORMAT.md 16.2.
func isFloat(s *reader.Series, f Field) bool {
	switch {
	case f == Count:
		return false
	case s.Kind == reader.Stat, s.Kind == reader.Gauge && f == Sum:
		return true
	}
	return s.Number == reader.F64
}

// An encoder makes blocks, at first without what depends on the extent that they come to lie in: ordinals and checks. It
// is used again and again, by one goroutine at a time.
type encoder struct {
	col    column.Encoder
	out    []byte // what is written: prefix bytes of sources and schemas, then the rows blocks
	prefix int
	rows   []rowsImage
	times  []uint64
	sums   []uint64
	counts []uint64

	// Of the extent that it is made for: what is new in it.
	sources  map[Key]uint32
	schemas  map[[16]byte]uint32
	ordinals []uint32
	sorted   []uint32
}

// rowsImage is a rows block in out, or one of exemplars.
type rowsImage struct {
	block      *Block
	parts      []Exemplars // of exemplars, without a block
	at, length int         // behind the prefix
	h          BlockHeader
}

// check says what is wrong with a block, as nothing else would before it is read.
func (b *Block) check() error {
	bad := func(what string, want, got any) error {
		return fmt.Errorf("shmts: archive: append: %s: want %v, got %v", what, want, got)
	}
	if b.Schema == nil || b.Step <= 0 {
		return bad("block", "a schema and a step", fmt.Sprintf("%v and %v", b.Schema != nil, b.Step))
	}
	if n := len(b.Sources); n < 1 || n > maxSources {
		return bad("sources of a block", fmt.Sprintf("1 to %d", maxSources), n)
	}
	if len(b.Members) > 0 && (len(b.Sources) != 1 || !b.Sources[0].Source.Ephemeral) {
		return bad("block with members", "one source, ephemeral", fmt.Sprintf("%d", len(b.Sources)))
	}
	fields := b.Schema.fields(b.Folded)
	if fields > maxRuns-runFields {
		return bad("fields", fmt.Sprintf("at most %d", maxRuns-runFields), fields)
	}
	for i := range b.Sources {
		s := &b.Sources[i]
		n := len(s.Times)
		coverage := 0
		if b.Folded {
			coverage = n
		}
		switch {
		case s.Source == nil:
			return bad(fmt.Sprintf("source %d", i), "one", nil)
		case n < 1 || n > maxRows:
			return bad("rows of a source", fmt.Sprintf("1 to %d", maxRows), n)
		case len(s.Numbers) != n || len(s.Coverage) != coverage:
			return bad("numbers and coverage", fmt.Sprintf("%d and %d", n, coverage), fmt.Sprintf("%d and %d", len(s.Numbers), len(s.Coverage)))
		case len(s.Starts) != len(b.Schema.Series):
			return bad("starts", len(b.Schema.Series), len(s.Starts))
		case len(s.Cells) != fields || s.Present != nil && len(s.Present) != fields:
			return bad("fields", fields, fmt.Sprintf("%d, present %d", len(s.Cells), len(s.Present)))
		case !b.Folded && s.Base != s.Numbers[n-1]:
			return bad("base of rows that are not folded", s.Numbers[n-1], s.Base)
		case s.Source.UID != b.Sources[0].Source.UID:
			return bad("uid", b.Sources[0].Source.UID, s.Source.UID)
		}
		f := 0
		for _, sr := range b.Schema.Series {
			for _, field := range Fields(sr.Kind, b.Folded) {
				want := n
				if field == Hist {
					want = n * (sr.Buckets.Count + 3)
				}
				if want > maxCells {
					return fmt.Errorf("%w: want at most %d cells of %s, got %d rows that have %d", ErrTooLarge, maxCells, sr.Name, n, want)
				}
				if len(s.Cells[f]) != want || s.Present != nil && s.Present[f] != nil && len(s.Present[f]) != n {
					return bad(fmt.Sprintf("cells of field %d of %s", field, sr.Name), want, len(s.Cells[f]))
				}
				f++
			}
		}
	}
	return nil
}

// encode makes the rows blocks, and no prefix.
func (e *encoder) encode(blocks []*Block) {
	e.out, e.prefix, e.rows = e.out[:0], 0, e.rows[:0]
	for _, b := range blocks {
		at := len(e.out)
		h := e.block(b)
		e.rows = append(e.rows, rowsImage{block: b, at: at, length: len(e.out) - at, h: h})
	}
}

// block appends a rows block to out. Its header, the checks and ordinals in it are left to place.
func (e *encoder) block(b *Block) BlockHeader {
	runs := runFields + b.Schema.fields(b.Folded)
	h := BlockHeader{Type: blockRows, Count: uint32(len(b.Sources)), Step: uint64(b.Step), Runs: uint32(runs), Head: uint32(headLength(len(b.Sources), runs)),
		TMin: b.Sources[0].Times[0], TMax: b.Sources[0].Times[0]}
	if b.Folded {
		h.Flags |= flagFolded
	}
	block := len(e.out)
	e.out = grow(e.out, BlockHeaderSize+int(h.Head))
	table := block + BlockHeaderSize + headSize
	dense := true
	for i := range b.Sources {
		s := &b.Sources[i]
		n := len(s.Times)
		falling := false
		for _, t := range s.Times {
			h.TMin, h.TMax = min(h.TMin, t), max(h.TMax, t)
			falling = falling || t < s.Times[0] || t > s.Times[n-1]
		}
		for k, no := range s.Numbers {
			dense = dense && no == s.Numbers[0]+uint64(k)
		}
		r := SourceRows{Rows: uint16(n), FirstNo: s.Numbers[0], LastNo: s.Numbers[n-1], BaseNo: s.Base, TFirst: s.Times[0], TLast: s.Times[n-1]}
		for _, f := range []struct {
			set  bool
			flag uint16
		}{{s.Final, flagFinal}, {s.Estimated, flagEstimated}, {s.Copied, flagCopied}, {falling, flagFalling}} {
			if f.set {
				r.Flags |= f.flag
			}
		}
		appendTo(e.out[:table+i*SourceRowsSize], &r)
	}
	directory, runsAt, run := table+len(b.Sources)*SourceRowsSize, len(e.out), 0
	begin := func() { e.out = append(e.out, 0, 0, 0, 0) } // the check
	end := func() {
		le.PutUint32(e.out[directory+4*run:], uint32(len(e.out)-runsAt))
		run++
	}
	begin()
	for i := range b.Sources {
		e.times = e.times[:0]
		for _, t := range b.Sources[i].Times {
			e.times = append(e.times, uint64(t))
		}
		e.out = e.col.Encode(e.out, e.times, nil, false)
	}
	end()
	if !dense {
		begin()
		for i := range b.Sources {
			e.out = e.col.Encode(e.out, b.Sources[i].Numbers, nil, false)
		}
	}
	end()
	if b.Folded {
		begin()
		for i := range b.Sources {
			e.out = e.col.Encode(e.out, b.Sources[i].Coverage, nil, false)
		}
	}
	end()
	begin()
	for i := range b.Sources {
		birth := floorMillis(b.Sources[i].Source.Birth)
		e.times = e.times[:0]
		for _, t := range b.Sources[i].Starts {
			e.times = append(e.times, uint64(t-birth))
		}
		e.out = e.col.Encode(e.out, e.times, nil, false)
	}
	end()
	if len(b.Members) > 0 {
		begin()
		e.out = le.AppendUint32(e.out, uint32(len(b.Members)))
		for _, k := range b.Members {
			e.out = append(e.out, k.Segment[:]...)
			e.out = le.AppendUint32(e.out, k.Epoch)
			e.out = le.AppendUint32(e.out, k.Copy)
		}
	}
	end()
	f := 0
	for _, sr := range b.Schema.Series {
		for _, field := range Fields(sr.Kind, b.Folded) {
			float := isFloat(sr, field)
			begin()
			for i := range b.Sources {
				s := &b.Sources[i]
				var present []bool
				if s.Present != nil {
					present = s.Present[f]
				}
				if field == Hist {
					e.histogram(s.Cells[f], present, len(s.Times), sr.Buckets.Count+2, float)
				} else {
					e.out = e.col.Encode(e.out, s.Cells[f], present, float)
				}
			}
			end()
			f++
		}
	}
	e.out = pad(e.out, block)
	return h
}

// histogram appends n sums, and k counts of each row that has one.
func (e *encoder) histogram(cells []uint64, present []bool, n, k int, float bool) {
	e.sums, e.counts = e.sums[:0], e.counts[:0]
	m := 0
	for row := range n {
		words := cells[row*(k+1):][:k+1]
		e.sums = append(e.sums, words[0])
		if present == nil || present[row] {
			e.counts = append(e.counts, words[1:]...)
			m++
		}
	}
	e.out = e.col.Encode(e.out, e.sums, present, float)
	if m > 0 {
		e.out = e.col.EncodeHistogram(e.out, e.counts, m, k)
	}
}

// floorMillis are nanoseconds in milliseconds, rounded down.
func floorMillis(ns int64) int64 {
	ms := ns / 1e6
	if ms*1e6 > ns {
		ms--
	}
	return ms
}

// grow makes b longer by n bytes of zeros.
func grow(b []byte, n int) []byte {
	if free := cap(b) - len(b); free < n {
		return append(b, make([]byte, n)...)
	}
	b = b[:len(b)+n]
	clear(b[len(b)-n:])
	return b
}

// place completes out for an extent whose index is given, and which it is to be written into from an offset on: sources and schemas that
// are new there go in front, ordinals and checks into the blocks. It answers by how much the index may grow.
func (e *encoder) place(m *memIndex, s seed, offset uint32) (room int, err error) {
	if e.sources == nil {
		e.sources, e.schemas = map[Key]uint32{}, map[[16]byte]uint32{}
	}
	clear(e.sources)
	clear(e.schemas)
	e.ordinals = e.ordinals[:0]
	var prefix []byte
	var h BlockHeader
	first, firstSchema := uint32(m.sources()), m.schemaCount()
	for _, r := range e.rows {
		begin := len(e.ordinals)
		room += roomBlock
		if r.block != nil {
			room += roomPost * len(r.block.Sources)
		}
		for i := range r.count() {
			src := r.source(i)
			o, ok := e.sources[src.Key]
			if !ok {
				o, ok = m.lookup(src.Key)
			}
			if !ok {
				if prefix == nil {
					prefix = make([]byte, BlockHeaderSize, BlockHeaderSize+256*r.count())
					h = BlockHeader{Type: blockSources, First: first}
				}
				o = first + h.Count
				h.Count++
				e.sources[src.Key] = o
				at := len(prefix)
				if prefix, err = appendSource(prefix, src); err != nil {
					return 0, err
				}
				room += m.sourceRoom(prefix[at:])
			}
			e.ordinals = append(e.ordinals, o)
		}
		if r.block == nil {
			continue
		}
		e.sorted = append(e.sorted[:0], e.ordinals[begin:]...)
		slices.Sort(e.sorted)
		if n := len(slices.Compact(e.sorted)); n != len(r.block.Sources) {
			return 0, fmt.Errorf("shmts: archive: append: sources of a block: want each once, got %d of %d", n, len(r.block.Sources))
		}
	}
	if prefix != nil {
		s.finish(prefix, offset, &h)
	}
	schemaOrdinals := make([]uint32, 0, len(e.rows))
	schema := func(of *Schema) error {
		o, ok := e.schemas[of.Hash]
		if !ok {
			o, ok = m.schemaOrdinal(of.Hash)
		}
		if !ok {
			o = firstSchema + uint32(len(e.schemas))
			e.schemas[of.Hash] = o
			at := len(prefix)
			if prefix, err = appendSchema(grow(prefix, BlockHeaderSize), of); err != nil {
				return err
			}
			prefix = pad(prefix, at)
			s.finish(prefix[at:], offset+uint32(at), &BlockHeader{Type: blockSchema, First: o, Count: uint32(len(of.Series))})
			room += schemaEntrySize
		}
		schemaOrdinals = append(schemaOrdinals, o)
		return nil
	}
	for _, r := range e.rows {
		if r.block != nil {
			if err := schema(r.block.Schema); err != nil {
				return 0, err
			}
		}
		for i := range r.parts {
			if err := schema(r.parts[i].Schema); err != nil {
				return 0, err
			}
		}
	}
	e.setPrefix(prefix)
	ordinals := e.ordinals
	for i := range e.rows {
		r := &e.rows[i]
		n := r.count()
		b, at := e.out[e.prefix+r.at:], offset+uint32(e.prefix+r.at)
		if r.block == nil {
			r.placeExemplars(b, at, s, ordinals[:n], schemaOrdinals[:n])
			schemaOrdinals = schemaOrdinals[n:]
		} else {
			r.h.First = schemaOrdinals[0]
			r.place(b, at, s, ordinals[:n])
			schemaOrdinals = schemaOrdinals[1:]
		}
		ordinals = ordinals[n:]
	}
	return room, nil
}

// count is how many sources a block's table names, and source one of them.
func (r *rowsImage) count() int {
	if r.block == nil {
		return len(r.parts)
	}
	return len(r.block.Sources)
}

func (r *rowsImage) source(i int) *Source {
	if r.block == nil {
		return r.parts[i].Source
	}
	return r.block.Sources[i].Source
}

// setPrefix puts another prefix in front of the rows blocks.
func (e *encoder) setPrefix(prefix []byte) {
	rows := len(e.out) - e.prefix
	if d := len(prefix) - e.prefix; d > 0 {
		e.out = grow(e.out, d)
	}
	copy(e.out[len(prefix):], e.out[e.prefix:e.prefix+rows])
	copy(e.out, prefix)
	e.out, e.prefix = e.out[:len(prefix)+rows], len(prefix)
}

// place puts ordinals and checks into the block at the front of b, which is to lie at an offset.
func (r *rowsImage) place(b []byte, offset uint32, s seed, ordinals []uint32) {
	b = b[:r.length]
	head := b[BlockHeaderSize:][:r.h.Head]
	for i, o := range ordinals {
		le.PutUint32(head[headSize+i*SourceRowsSize:], o)
	}
	runs := b[BlockHeaderSize+r.h.Head:]
	runsAt, from := offset+BlockHeaderSize+r.h.Head, uint32(0)
	for i := range r.h.Runs {
		to := le.Uint32(head[headSize+len(ordinals)*SourceRowsSize+4*int(i):])
		if to > from {
			le.PutUint32(runs[from:], s.check(runsAt+from+4, runs[from+4:to]))
		}
		from = to
	}
	le.PutUint32(head, s.check(offset+BlockHeaderSize+4, head[4:]))
	s.finish(b, offset, &r.h)
}
