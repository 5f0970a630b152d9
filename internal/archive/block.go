package archive

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/archive/column"
)

// damage is what fails a check: it is counted, and the rest is served.
type damage struct {
	tier      string
	extent    int
	offset    uint32 // of the block
	what      string
	want, got any
}

func (d *damage) Error() string {
	return fmt.Sprintf("shmts: archive: %s: extent %d: block at %d: %s: want %v, got %v", d.tier, d.extent, d.offset, d.what, d.want, d.got)
}

func (e *extent) bad(offset uint32, what string, want, got any) error {
	return &damage{tier: e.t.path, extent: e.slot, offset: offset, what: what, want: want, got: got}
}

// failed says what of an error those that read are told: nothing of damage, which is counted, nor of what was evicted meanwhile.
func (e *extent) failed(err error) error {
	var d *damage
	switch {
	case err == nil || e.t.gone(e):
		return nil
	case errors.As(err, &d):
		e.t.skipped.Add(1)
		return nil
	}
	return err
}

// block reads a whole block: its body.
func (e *extent) block(offset uint32) ([]byte, BlockHeader, error) {
	if uint64(offset)+BlockHeaderSize > uint64(e.limit()) {
		return nil, BlockHeader{}, e.bad(offset, "offset", fmt.Sprintf("at most %d", e.limit()-BlockHeaderSize), offset)
	}
	b, err := e.readAt(offset, BlockHeaderSize)
	if err != nil {
		return nil, BlockHeader{}, err
	}
	h, ok := e.seed.checkBlockHeader(offset, b, e.limit())
	if !ok {
		return nil, h, e.bad(offset, "header", "a valid one", "none")
	}
	body, err := e.readAt(offset+BlockHeaderSize, h.Length-BlockHeaderSize)
	if err != nil {
		return nil, h, err
	}
	if sum := e.check(offset+BlockHeaderSize, body); sum != h.BodyCheck {
		return nil, h, e.bad(offset, "check of the body", fmt.Sprintf("%#x", h.BodyCheck), fmt.Sprintf("%#x", sum))
	}
	return body, h, nil
}

// rowsBlock is a rows block of which the head was read, and the runs that somebody asked for. It is safe for concurrent use.
type rowsBlock struct {
	e       *extent
	ref     blockRef
	h       BlockHeader
	sources []SourceRows
	ends    []uint32
	keep    *session // that it belongs to; nil: none

	mu   sync.Mutex
	many *loaded           // at once
	few  map[int]*blockRun // each by itself
	cost int               // the session's
}

// loaded are runs of a block that lie side by side and were read in one go.
type loaded struct {
	first int
	runs  []*blockRun // nil: it was known before
	of    []blockRun
	data  []byte
	at    []uint32 // of all of them
}

// size is how many bytes of memory it takes beside its data.
func (l *loaded) size() int { return 4*cap(l.at) + (8+runSize)*cap(l.of) }

// runSize is a blockRun's, bytes.
const runSize = 64

// manyRuns is how many are worth a memory of their own.
const manyRuns = 16

// blockRun is a run of a block, without its check.
type blockRun struct {
	data []byte
	at   []uint32 // where the columns of the block's sources begin, as far as is known
	err  error
}

func (b *rowsBlock) step() time.Duration { return time.Duration(b.h.Step) }

func (b *rowsBlock) folded() bool { return b.h.Flags&flagFolded != 0 }

// readHead reads the head of a rows block that an index names. schema, if it is known, says how long that is.
func (e *extent) readHead(ref blockRef, schema *Schema) (*rowsBlock, error) {
	fields := 0
	if schema != nil {
		fields = schema.fields(true)
	}
	if ref.length < BlockHeaderSize || uint64(ref.offset)+uint64(ref.length) > uint64(e.limit()) || ref.sources > maxSources {
		return nil, e.bad(ref.offset, "place in the index", fmt.Sprintf("at most %d, at most %d sources", e.limit(), maxSources), fmt.Sprintf("%d + %d, %d", ref.offset, ref.length, ref.sources))
	}
	n := min(ref.length, uint32(BlockHeaderSize+headLength(int(ref.sources), runFields+min(fields, maxRuns))))
	b, err := e.readAt(ref.offset, n)
	if err != nil {
		return nil, err
	}
	h, ok := e.seed.checkBlockHeader(ref.offset, b, e.limit())
	if !ok || h.Type != blockRows || h.Length != ref.length || h.Count != ref.sources || h.First != ref.schema {
		return nil, e.bad(ref.offset, "header", "that of a rows block, as the index says", "another")
	}
	if h.Head > n-BlockHeaderSize && h.Head <= h.Length-BlockHeaderSize {
		if b, err = e.readAt(ref.offset, BlockHeaderSize+h.Head); err != nil {
			return nil, err
		}
	}
	head, err := e.seed.cutRowsHead(ref.offset, &h, b[BlockHeaderSize:])
	if err != nil {
		return nil, e.bad(ref.offset, "head", "a valid one", err)
	}
	return &rowsBlock{e: e, ref: ref, h: h, sources: head.sources, ends: head.ends}, nil
}

// source finds a source in the block, where it was in another one first: cohorts stay together.
func (b *rowsBlock) source(ordinal uint32, hint int) (int, error) {
	if hint < len(b.sources) && b.sources[hint].Source == ordinal {
		return hint, nil
	}
	for k := range b.sources {
		if b.sources[k].Source == ordinal {
			return k, nil
		}
	}
	return 0, b.e.bad(b.ref.offset, fmt.Sprintf("source %d", ordinal), "rows, as the index says", "none")
}

// bounds of a run, counted from the end of the head.
func (b *rowsBlock) bounds(i int) (from, to uint32) {
	if i > 0 {
		from = b.ends[i-1]
	}
	return from, b.ends[i]
}

// run is one that was loaded; nil: it was not.
func (b *rowsBlock) run(i int) *blockRun {
	if l := b.many; l != nil && i >= l.first && i < l.first+len(l.runs) && l.runs[i-l.first] != nil {
		return l.runs[i-l.first]
	}
	return b.few[i]
}

// load reads runs [first, last), as far as they were not, in one go, and holds each against its check.
func (b *rowsBlock) load(first, last int) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for first < last && b.run(first) != nil {
		first++
	}
	for first < last && b.run(last-1) != nil {
		last--
	}
	if first >= last {
		return nil
	}
	from, _ := b.bounds(first)
	_, to := b.bounds(last - 1)
	at := b.ref.offset + BlockHeaderSize + b.h.Head
	if uint64(at)+uint64(to) > uint64(b.e.t.size()) {
		return b.e.beyond(at+from, to-from)
	}
	n := len(b.sources)
	l := b.keep.memory(last-first, int(to-from), n)
	if err := b.e.readInto(l.data, at+from); err != nil {
		return err
	}
	l.first = first
	for i := first; i < last; i++ {
		if b.run(i) != nil {
			continue
		}
		r := &l.of[i-first]
		*r = blockRun{at: l.at[(i-first)*n : (i-first)*n : (i-first+1)*n]}
		if o, end := b.bounds(i); end > o {
			data := l.data[o-from : end-from]
			r.data = data[4:]
			if sum := b.e.check(at+o+4, r.data); sum != le.Uint32(data) {
				r.data, r.err = nil, b.e.bad(b.ref.offset, fmt.Sprintf("check of run %d", i), fmt.Sprintf("%#x", le.Uint32(data)), fmt.Sprintf("%#x", sum))
			}
		}
		l.runs[i-first] = r
	}
	if b.many == nil && last-first >= manyRuns {
		b.many = l
	} else {
		if b.few == nil {
			b.few = map[int]*blockRun{}
		}
		for k, r := range l.runs {
			if r != nil {
				b.few[first+k] = r
			}
		}
	}
	if b.keep != nil {
		b.keep.grow(b, int(to-from)+(4*n+8+runSize)*(last-first))
	}
	return nil
}

// column is where source k's column lies in a run that was loaded; skip passes over that of another.
func (b *rowsBlock) column(i, k int, skip func(src []byte, rows int) (rest []byte, err error)) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.run(i)
	if r.err != nil {
		return nil, r.err
	}
	if len(r.at) == 0 {
		r.at = append(r.at, 0)
	}
	for len(r.at) <= k {
		at := len(r.at) - 1
		rest, err := skip(r.data[r.at[at]:], int(b.sources[at].Rows))
		if err != nil { // what lies before it is good
			return nil, b.corrupt(i, at, err)
		}
		r.at = append(r.at, uint32(len(r.data)-len(rest)))
	}
	return r.data[r.at[k]:], nil
}

// behind says what follows source k's column in a run, once that is known: the next source's is not looked for then.
func (b *rowsBlock) behind(i, k int, rest []byte) {
	b.mu.Lock()
	if r := b.run(i); len(r.at) == k+1 && len(r.at) < cap(r.at) {
		r.at = append(r.at, uint32(len(r.data)-len(rest)))
	}
	b.mu.Unlock()
}

func skipIntegers(src []byte, n int) ([]byte, error) { return column.Skip(src, n, false) }
func skipFloats(src []byte, n int) ([]byte, error)   { return column.Skip(src, n, true) }

// decoder is what decoding needs, used again and again by one goroutine at a time.
type decoder struct {
	col     column.Decoder
	times   []int64
	numbers []uint64
	cover   []uint64
	counts  []uint64
}

func (b *rowsBlock) corrupt(i, k int, err error) error {
	return b.e.bad(b.ref.offset, fmt.Sprintf("run %d, source %d", i, k), "a column", err)
}

// integers decodes a column of integers that are all there, of runs 0 to 2.
func (d *decoder) integers(b *rowsBlock, i, k int) ([]uint64, error) {
	src, err := b.column(i, k, skipIntegers)
	if err != nil {
		return nil, err
	}
	vals, present, _, err := d.col.Decode(src, int(b.sources[k].Rows), false)
	if err == nil && there(present, len(vals)) < len(vals) {
		err = errors.New("absent values")
	}
	if err != nil {
		return nil, b.corrupt(i, k, err)
	}
	return vals, nil
}

// rows decodes the times, numbers and coverage of source k: what the block's rows are.
func (d *decoder) rows(b *rowsBlock, k int) error {
	if err := b.load(runTimes, runCoverage+1); err != nil {
		return err
	}
	vals, err := d.integers(b, runTimes, k)
	if err != nil {
		return err
	}
	d.times = d.times[:0]
	for _, v := range vals {
		d.times = append(d.times, int64(v))
	}
	s := &b.sources[k]
	d.numbers = d.numbers[:0]
	if from, to := b.bounds(runNumbers); from < to {
		if vals, err = d.integers(b, runNumbers, k); err != nil {
			return err
		}
		d.numbers = append(d.numbers, vals...)
	} else {
		if s.LastNo-s.FirstNo+1 != uint64(s.Rows) {
			return b.e.bad(b.ref.offset, fmt.Sprintf("source %d: numbers", k), fmt.Sprintf("%d dense ones", s.Rows), fmt.Sprintf("%d to %d", s.FirstNo, s.LastNo))
		}
		for i := range uint64(s.Rows) {
			d.numbers = append(d.numbers, s.FirstNo+i)
		}
	}
	d.cover = d.cover[:0]
	if b.folded() {
		if vals, err = d.integers(b, runCoverage, k); err != nil {
			return err
		}
		d.cover = append(d.cover, vals...)
	}
	return nil
}

// span is the least and greatest time of source k's rows.
func (d *decoder) span(b *rowsBlock, k int) (oldest, newest int64, err error) {
	s := &b.sources[k]
	oldest, newest = min(s.TFirst, s.TLast), max(s.TFirst, s.TLast)
	if s.Flags&flagFalling != 0 {
		if err := d.rows(b, k); err != nil {
			return 0, 0, err
		}
		for _, t := range d.times {
			oldest, newest = min(oldest, t), max(newest, t)
		}
	}
	return oldest, newest, nil
}

// starts decodes when source k's series were registered, unix ms.
func (d *decoder) starts(b *rowsBlock, k, series int, birth int64) ([]int64, error) {
	if err := b.load(runStarts, runStarts+1); err != nil {
		return nil, err
	}
	src, err := b.column(runStarts, k, func(src []byte, _ int) ([]byte, error) { return column.Skip(src, series, false) })
	if err != nil {
		return nil, err
	}
	vals, present, _, err := d.col.Decode(src, series, false)
	if err == nil && there(present, len(vals)) < len(vals) {
		err = errors.New("absent values")
	}
	if err != nil {
		return nil, b.corrupt(runStarts, k, err)
	}
	all, from := make([]int64, series), floorMillis(birth)
	for i, v := range vals {
		all[i] = from + int64(v)
	}
	return all, nil
}

// values appends one column of source k to cells and tells which rows have a value: nil, all of them. k buckets and more make a histogram's
// column as wide as Rows says.
func (d *decoder) values(cells []uint64, b *rowsBlock, i, k int, float bool, buckets int) (_ []uint64, present []bool, err error) {
	skip := skipIntegers
	if float {
		skip = skipFloats
	}
	if buckets > 0 {
		skip = func(src []byte, rows int) ([]byte, error) {
			_, present, rest, err := d.col.Decode(src, rows, float)
			if err != nil {
				return nil, err
			}
			if m := there(present, rows); m > 0 {
				return column.SkipHistogram(rest, m, buckets)
			}
			return rest, nil
		}
	}
	src, err := b.column(i, k, skip)
	if err != nil {
		return cells, nil, err
	}
	n := int(b.sources[k].Rows)
	vals, present, rest, err := d.col.Decode(src, n, float)
	if err != nil {
		return cells, nil, b.corrupt(i, k, err)
	}
	if buckets == 0 {
		b.behind(i, k, rest)
		return append(cells, vals...), present, nil
	}
	if n*(buckets+1) > maxCells {
		return cells, nil, b.e.bad(b.ref.offset, fmt.Sprintf("run %d, source %d: cells", i, k), fmt.Sprintf("at most %d", maxCells), n*(buckets+1))
	}
	m := there(present, n)
	counts := d.counts[:0]
	if m > 0 {
		if counts, rest, err = d.col.DecodeHistogram(counts, rest, m, buckets); err != nil {
			return cells, nil, b.corrupt(i, k, err)
		}
		d.counts = counts
	}
	b.behind(i, k, rest)
	for row := range n {
		cells = append(cells, vals[row])
		if present != nil && !present[row] {
			cells = grow64(cells, buckets)
			continue
		}
		cells = append(cells, counts[:buckets]...)
		counts = counts[buckets:]
	}
	return cells, present, nil
}

// there is how many of n values are.
func there(present []bool, n int) int {
	if present == nil {
		return n
	}
	m := 0
	for _, p := range present {
		if p {
			m++
		}
	}
	return m
}

func grow64(cells []uint64, n int) []uint64 {
	for range n {
		cells = append(cells, 0)
	}
	return cells
}

// members decodes run 4.
func (b *rowsBlock) members() ([]Key, error) {
	if from, to := b.bounds(runMembers); from == to {
		return nil, nil
	}
	if err := b.load(runMembers, runMembers+1); err != nil {
		return nil, err
	}
	r := b.run(runMembers)
	if r.err != nil {
		return nil, r.err
	}
	const size = 24
	if len(r.data) < 4 || uint64(le.Uint32(r.data)) > uint64(len(r.data)-4)/size {
		return nil, b.e.bad(b.ref.offset, "members", fmt.Sprintf("as many as fit into %d bytes", len(r.data)), "more")
	}
	all := make([]Key, le.Uint32(r.data))
	for i := range all {
		k := r.data[4+i*size:]
		all[i] = Key{[16]byte(k), le.Uint32(k[16:]), le.Uint32(k[20:])}
	}
	return all, nil
}
