package vectors

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// Archives are built here byte by byte from FORMAT.md part two, with encoders that know nothing of what is small or fast: nothing
// of package archive or column is used.

const (
	second     = 1_000_000_000
	extentSize = 65536
	limit      = extentSize - 64
)

// birthMs is when every source of an archive is born, unix ms; rows come later.
const birthMs = birthUnix / 1_000_000

// A tierFile is one tier.
type tierFile struct {
	name string
	step uint64
	b    []byte
}

// archiveID is that of all images, but of the tiers that don't belong together.
var archiveID = [16]byte([]byte("vectors' archive"))

func newTier(name string, step uint64, extents int) *tierFile {
	f := &tierFile{name: name, step: step, b: make([]byte, 4096+extents*extentSize)}
	copy(f.b, "SHMTA\r\n\x1a")
	le.PutUint16(f.b[0x08:], 1)
	le.PutUint32(f.b[0x14:], extentSize)
	le.PutUint64(f.b[0x18:], step)
	copy(f.b[0x20:], archiveID[:])
	le.PutUint64(f.b[0x30:], birthUnix)
	f.sign()
	return f
}

func (f *tierFile) sign() { le.PutUint32(f.b[0x3c:], crc32.ChecksumIEEE(f.b[:0x3c])) }

// check is FORMAT.md 14.2's.
func (f *tierFile) check(generation uint64, offset int, b []byte) uint32 {
	seed := slices.Clone(f.b[0x20:0x30])
	for _, v := range []uint64{f.step, generation, uint64(offset)} {
		seed = le.AppendUint64(seed, v)
	}
	return crc32.ChecksumIEEE(append(seed, b...))
}

// An extentFile is one use of a part of a tier.
type extentFile struct {
	f          *tierFile
	generation uint64
	b          []byte // all of it
	at         int    // behind the last block

	// What the index says.
	sources []indexSource
	schemas []indexSchema
	rows    [][]byte
	traces  [][]byte // section 8
	mark    [2]uint64
	span    [2]int64
	filter  int // bytes
}

type indexSource struct {
	record []byte
	labels [][2]string
	posts  []uint32
	last   uint64 // of its exemplars
}

type indexSchema struct {
	hash                  []byte
	offset, table, series uint32
}

// extent begins one in a slot. What lay there stays.
func (f *tierFile) extent(slot int, generation uint64) *extentFile {
	e := &extentFile{f: f, generation: generation, b: f.b[4096+slot*extentSize:][:extentSize], at: 64, span: [2]int64{math.MaxInt64, math.MinInt64}, filter: 64}
	clear(e.b[:64])
	le.PutUint64(e.b, generation)
	le.PutUint64(e.b[8:], birthUnix+generation*second)
	e.sign(0)
	return e
}

func (e *extentFile) check(offset int, b []byte) uint32 { return e.f.check(e.generation, offset, b) }

// sign puts the check of 60 bytes at an offset behind them.
func (e *extentFile) sign(at int) {
	le.PutUint32(e.b[at+60:], e.check(at, e.b[at:at+60]))
}

// blockHead is a block's header, without what follows from the body.
type blockHead struct {
	typ, flags   uint16
	first, count uint32
	step         uint64
	tmin, tmax   int64
	runs, head   uint32
}

const (
	typeSources = 1 + iota
	typeSchema
	typeRows
	typeMark
	typeIndex
	typeExemplars
)

// block appends one, and answers where it lies.
func (e *extentFile) block(h blockHead, body []byte) (at int) {
	at = e.at
	for len(body)%8 != 0 {
		body = append(body, 0)
	}
	b := e.b[at:][:64+len(body)]
	clear(b)
	copy(b, "SBLK")
	le.PutUint16(b[0x04:], h.typ)
	le.PutUint16(b[0x06:], h.flags)
	le.PutUint32(b[0x08:], uint32(len(b)))
	le.PutUint32(b[0x10:], h.first)
	le.PutUint32(b[0x14:], h.count)
	le.PutUint64(b[0x18:], h.step)
	le.PutUint64(b[0x20:], uint64(h.tmin))
	le.PutUint64(b[0x28:], uint64(h.tmax))
	le.PutUint32(b[0x30:], h.runs)
	le.PutUint32(b[0x34:], h.head)
	copy(b[64:], body)
	e.at += len(b)
	e.signBody(at)
	return at
}

// signBody makes body_check and check of a block right.
func (e *extentFile) signBody(at int) {
	n := int(le.Uint32(e.b[at+8:]))
	le.PutUint32(e.b[at+12:], e.check(at+64, e.b[at+64:at+n]))
	e.sign(at)
}

// signHead makes the check of a rows block's head right, and then the block's.
func (e *extentFile) signHead(at int) {
	n := int(le.Uint32(e.b[at+0x34:]))
	le.PutUint32(e.b[at+64:], e.check(at+68, e.b[at+68:at+64+n]))
	e.signBody(at)
}

// runAt is where a run lies, and how long it is.
func (e *extentFile) runAt(at, run int) (from, n int) {
	count, head := int(le.Uint32(e.b[at+0x14:])), int(le.Uint32(e.b[at+0x34:]))
	end := func(i int) int {
		if i < 0 {
			return 0
		}
		return int(le.Uint32(e.b[at+64+8+48*count+4*i:]))
	}
	return at + 64 + head + end(run-1), end(run) - end(run-1)
}

// A person is a source, as the images have them.
type person struct {
	id          byte
	epoch, copy uint32
	uid         uint32
	ephemeral   bool
	labels      [][2]string
	attributes  [][2]string
}

func (p *person) segment() []byte {
	if p.ephemeral { // FORMAT.md 19.6
		hash := sha256.Sum256([]byte(fmt.Sprintf("ephemeral\x00%d\x00vector", 1000+p.uid)))
		return hash[:16]
	}
	b := make([]byte, 16)
	for i := range b {
		b[i] = p.id + byte(i)*17
	}
	return b
}

func (p *person) key() []byte {
	return le.AppendUint32(le.AppendUint32(p.segment(), p.epoch), p.copy)
}

func pairList(pairs [][2]string) []byte {
	b := le.AppendUint16(nil, uint16(len(pairs)))
	for _, p := range pairs {
		b = le.AppendUint16(b, uint16(len(p[0])))
		b = le.AppendUint16(b, uint16(len(p[1])))
		b = append(append(b, p[0]...), p[1]...)
	}
	return b
}

func (p *person) record() []byte {
	if p.labels == nil {
		p.labels = [][2]string{{"instance", fmt.Sprintf("i%d", p.id)}, {"job", "vector"}}
	}
	lists := append(pairList(p.labels), pairList(p.attributes)...)
	b := append(p.segment(), p.segment()...)
	for i := range 16 {
		b = append(b, 0xb0+byte(i))
	}
	b = le.AppendUint64(b, birthUnix)
	b = le.AppendUint64(b, 1000+uint64(p.id))
	flags := uint32(0)
	if p.ephemeral {
		flags = 1
	}
	for _, v := range []uint32{p.epoch, p.copy, 1000 + p.uid, flags, uint32(len(lists)), 0} {
		b = le.AppendUint32(b, v)
	}
	return pad8(append(b, lists...))
}

func pad8(b []byte) []byte {
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	return b
}

// people appends a block of sources.
func (e *extentFile) people(first uint32, all ...person) (at int) {
	var body []byte
	for i := range all {
		r := all[i].record()
		body = append(body, r...)
		if int(first)+i == len(e.sources) {
			e.sources = append(e.sources, indexSource{record: r, labels: all[i].labels})
		}
	}
	return e.block(blockHead{typ: typeSources, first: first, count: uint32(len(all))}, body)
}

// A line is one series of a schema's text.
type line struct {
	name, unit, help string
	labels           [][2]string
	kind, number     byte
	scale            int8
	flags            byte
	buckets          uint16
	min              int16
}

const (
	counterK = 1 + iota
	updownK
	gaugeK
	statK
	histogramK
)

const (
	u64N = 1 + iota
	i64N
	f64N
)

func schemaText(table uint16, name string, lines []line) []byte {
	b := le.AppendUint16(nil, table)
	b = le.AppendUint32(append(b, 0, 0), uint32(len(lines)))
	b = append(b, append([]byte(name), make([]byte, 16-len(name))...)...)
	for _, l := range lines {
		labels := pairList(l.labels)
		b = append(b, l.kind, l.number, byte(l.scale), l.flags)
		for _, v := range []uint16{uint16(len(l.name)), uint16(len(l.unit)), uint16(len(l.help)), l.buckets, uint16(l.min), 0} {
			b = le.AppendUint16(b, v)
		}
		b = le.AppendUint32(b, uint32(len(labels)))
		b = append(append(b, l.name+l.unit+l.help...), labels...)
	}
	return b
}

// stored is DEFLATE that leaves text as it is.
func stored(text []byte) []byte {
	b := le.AppendUint16([]byte{1}, uint16(len(text)))
	return append(le.AppendUint16(b, ^uint16(len(text))), text...)
}

// huffman is DEFLATE with the fixed codes, literals alone.
func huffman(text []byte) []byte {
	w := &bitWriter{}
	w.put(3, 3) // the last block, of fixed codes
	code := func(v, n uint64) {
		for n > 0 { // Huffman codes go highest bit first
			n--
			w.put(v>>n&1, 1)
		}
	}
	for _, c := range text {
		if c < 144 {
			code(0x30+uint64(c), 8)
		} else {
			code(0x190+uint64(c)-144, 9)
		}
	}
	code(0, 7)
	return w.b
}

// A bitWriter packs bits lowest first.
type bitWriter struct {
	b []byte
	n int
}

func (w *bitWriter) put(v uint64, n int) {
	for i := range n {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
}

// schemaBody is a schema's block's.
func schemaBody(text, stream []byte) []byte {
	hash := sha256.Sum256(text)
	b := le.AppendUint32(hash[:16:16], uint32(len(text)))
	return append(le.AppendUint32(b, 0), stream...)
}

// schema appends a schema's block.
func (e *extentFile) schema(ordinal uint32, table uint16, name string, lines []line) (at int) {
	text := schemaText(table, name, lines)
	stream := stored(text)
	if table%2 == 1 {
		stream = huffman(text)
	}
	at = e.block(blockHead{typ: typeSchema, first: ordinal, count: uint32(len(lines))}, schemaBody(text, stream))
	if int(ordinal) == len(e.schemas) {
		hash := sha256.Sum256(text)
		e.schemas = append(e.schemas, indexSchema{hash[:16], uint32(at), uint32(table), uint32(len(lines))})
	}
	return at
}

// A share is one source's rows in a block. Its fields are columns, as they lie in the runs.
type share struct {
	source   uint32
	flags    uint16
	times    []int64  // ms since birth
	numbers  []uint64 // nil: 1, 2 ...
	base     uint64   // 0: the last number
	coverage []uint64
	starts   []uint64 // nil: as many 0 as the schema has series
	fields   [][]byte
}

const (
	flagFinal = 1 << iota
	flagEstimated
	flagCopied
	flagFalling
)

// shares appends a block of rows. dense says that no numbers are written.
func (e *extentFile) shares(schema uint32, step uint64, folded bool, members []person, all ...share) (at int) {
	series := 1
	if int(schema) < len(e.schemas) {
		series = int(e.schemas[schema].series)
	}
	runs := make([][]byte, 5+len(all[0].fields))
	h := blockHead{typ: typeRows, first: schema, count: uint32(len(all)), step: step, tmin: math.MaxInt64, tmax: math.MinInt64, runs: uint32(len(runs))}
	table, dense := []byte{}, true
	for _, s := range all {
		dense = dense && s.numbers == nil
	}
	for _, s := range all {
		n := len(s.times)
		numbers, starts := s.numbers, s.starts
		if numbers == nil {
			for i := range n {
				numbers = append(numbers, uint64(i+1))
			}
		}
		if starts == nil {
			starts = make([]uint64, series)
		}
		base := s.base
		if base == 0 {
			base = numbers[n-1]
		}
		var times []uint64
		for _, t := range s.times {
			t += birthMs
			times = append(times, uint64(t))
			h.tmin, h.tmax = min(h.tmin, t), max(h.tmax, t)
		}
		table = le.AppendUint32(table, s.source)
		table = le.AppendUint16(table, uint16(n))
		table = le.AppendUint16(table, s.flags)
		for _, v := range []uint64{numbers[0], numbers[n-1], base, times[0], times[n-1]} {
			table = le.AppendUint64(table, v)
		}
		runs[0] = append(runs[0], words(times...)...)
		if !dense {
			runs[1] = append(runs[1], words(numbers...)...)
		}
		if folded {
			runs[2] = append(runs[2], words(s.coverage...)...)
		}
		runs[3] = append(runs[3], words(starts...)...)
		for i, f := range s.fields {
			runs[5+i] = append(runs[5+i], f...)
		}
		if int(s.source) < len(e.sources) {
			src := &e.sources[s.source]
			src.posts = append(src.posts, uint32(len(e.rows)))
		}
	}
	if folded {
		h.flags = 1
	}
	for i, m := range members {
		if i == 0 {
			runs[4] = le.AppendUint32(nil, uint32(len(members)))
		}
		runs[4] = append(runs[4], m.key()...)
	}
	h.head = uint32(8 + len(table) + 4*len(runs))
	head, data := append(make([]byte, 8), table...), []byte{}
	from := e.at + 64 + int(h.head)
	for _, r := range runs {
		if r != nil {
			data = le.AppendUint32(data, e.check(from+len(data)+4, r))
			data = append(data, r...)
		}
		head = le.AppendUint32(head, uint32(len(data)))
	}
	at = e.block(h, append(head, data...))
	e.signHead(at)
	entry := le.AppendUint32(nil, uint32(at))
	for _, v := range []uint32{uint32(e.at - at), schema, uint32(len(all))} {
		entry = le.AppendUint32(entry, v)
	}
	e.rows = append(e.rows, le.AppendUint64(le.AppendUint64(entry, uint64(h.tmin)), uint64(h.tmax)))
	e.span = [2]int64{min(e.span[0], h.tmin), max(e.span[1], h.tmax)}
	return at
}

// A trace is one exemplar, at a time in ns since birth.
type trace struct {
	no, series uint64
	t          int64
	value      float64
	id         byte
	root       bool // without span_id
}

// A tracePart is what one source and schema have in an exemplars block.
type tracePart struct {
	source, schema uint32
	of             []trace
	columns        []byte // nil: those of the exemplars
}

// exemplars appends a block of them. FORMAT.md 16.3.
func (e *extentFile) exemplars(all ...tracePart) (at int) {
	h := blockHead{typ: typeExemplars, count: uint32(len(all)), head: uint32(8 + 24*len(all)), tmin: math.MaxInt64, tmax: math.MinInt64}
	head, data := make([]byte, 8), []byte{}
	from := e.at + 64 + int(h.head)
	for _, p := range all {
		var numbers, series, times []uint64
		var values []float64
		var ids []byte
		for _, x := range p.of {
			t := birthUnix + x.t
			numbers, series, times, values = append(numbers, x.no), append(series, x.series), append(times, uint64(t)), append(values, x.value)
			for i := range 24 {
				c := x.id + byte(i)*3
				if x.root && i >= 16 {
					c = 0
				}
				ids = append(ids, c)
			}
			ms := t / 1_000_000
			h.tmin, h.tmax = min(h.tmin, ms), max(h.tmax, ms)
		}
		h.runs += uint32(len(p.of))
		run := p.columns
		if run == nil {
			run = slices.Concat(words(numbers...), words(series...), words(times...), reals(values...))
		}
		run = append(slices.Clip(run), ids...)
		data = le.AppendUint32(data, e.check(from+len(data)+4, run))
		data = append(data, run...)
		last := p.of[len(p.of)-1].no
		for _, v := range []uint32{p.source, p.schema, uint32(len(p.of)), uint32(len(data))} {
			head = le.AppendUint32(head, v)
		}
		head = le.AppendUint64(head, last)
		if int(p.source) < len(e.sources) {
			e.sources[p.source].last = max(e.sources[p.source].last, last)
		}
	}
	at = e.block(h, append(head, data...))
	e.signHead(at)
	entry := le.AppendUint32(nil, uint32(at))
	for _, v := range []uint32{uint32(e.at - at), h.count, h.runs} {
		entry = le.AppendUint32(entry, v)
	}
	e.traces = append(e.traces, le.AppendUint64(le.AppendUint64(entry, uint64(h.tmin)), uint64(h.tmax)))
	return at
}

func (e *extentFile) setMark(generation, offset uint64) (at int) {
	e.mark = [2]uint64{generation, offset}
	return e.block(blockHead{typ: typeMark}, le.AppendUint64(le.AppendUint64(nil, generation), offset))
}

// seal writes index and trailer. FORMAT.md 18, 14.4.
func (e *extentFile) seal() (index int) {
	index = e.index()
	e.trailer(index, e.at-index)
	return index
}

func (e *extentFile) trailer(index, length int) {
	b := e.b[limit:]
	clear(b)
	for i, v := range []int{index, length, len(e.sources), len(e.schemas), len(e.rows), len(e.traces)} {
		le.PutUint32(b[4*i:], uint32(v))
	}
	for i, v := range []uint64{uint64(e.span[0]), uint64(e.span[1]), e.mark[0], e.mark[1]} {
		le.PutUint64(b[0x18+8*i:], v)
	}
	e.sign(limit)
}

func (e *extentFile) index() int {
	var section [9][]byte
	type pair struct {
		name, value string
		sources     []uint64
	}
	var pairs []*pair
	filter := make([]byte, e.filter)
	add := func(key []byte) {
		h := uint64(0xcbf29ce484222325)
		for _, c := range key {
			h = (h ^ uint64(c)) * 0x100000001b3
		}
		for i := range uint64(7) {
			if len(filter) > 0 {
				b := (h + i*(h>>32|1)) % uint64(8*len(filter))
				filter[b/8] |= 1 << (b % 8)
			}
		}
	}
	type id struct {
		segment []byte
		source  uint32
	}
	var ids []id
	for i, s := range e.sources {
		ids = append(ids, id{s.record[:16], uint32(i)})
		add(s.record[:16])
		for _, l := range s.labels {
			if l[1] == "" {
				continue
			}
			add([]byte(l[0] + "\x00" + l[1]))
			at := slices.IndexFunc(pairs, func(p *pair) bool { return p.name == l[0] && p.value == l[1] })
			if at < 0 {
				at = len(pairs)
				pairs = append(pairs, &pair{name: l[0], value: l[1]})
			}
			pairs[at].sources = append(pairs[at].sources, uint64(i))
		}
	}
	section[0] = filter
	section[1] = bytes.Join(e.rows, nil)
	section[8] = bytes.Join(e.traces, nil)
	for _, s := range e.schemas {
		section[4] = append(section[4], s.hash...)
		for _, v := range []uint32{s.offset, s.table, s.series, 0} {
			section[4] = le.AppendUint32(section[4], v)
		}
	}
	slices.SortStableFunc(ids, func(x, y id) int { return bytes.Compare(x.segment, y.segment) })
	for _, i := range ids {
		section[5] = le.AppendUint32(append(section[5], i.segment...), i.source)
	}
	slices.SortFunc(pairs, func(x, y *pair) int { return strings.Compare(x.name+"\x00"+x.value, y.name+"\x00"+y.value) })
	for _, p := range pairs {
		section[6] = le.AppendUint32(section[6], uint32(len(section[7])))
		b := le.AppendUint16(section[7], uint16(len(p.name)))
		b = append(append(le.AppendUint16(b, uint16(len(p.value))), p.name...), p.value...)
		b = binary.AppendUvarint(b, uint64(len(p.sources)))
		last := uint64(0)
		for _, s := range p.sources {
			b = binary.AppendUvarint(b, s-last)
			last = s
		}
		section[7] = b
	}
	section[6] = le.AppendUint32(section[6], uint32(len(section[7])))
	// Where section 3 comes to lie is known once section 2's length is.
	body, from := make([]byte, 8+9*16), e.at+64
	le.PutUint32(body, 9)
	at := len(body) + len(section[0]) + len(section[1])
	at += 8 * (len(e.sources) + 1)
	for _, s := range e.sources {
		data := le.AppendUint64(slices.Clone(s.record), s.last)
		data = le.AppendUint32(data, uint32(len(s.posts)))
		for _, p := range s.posts {
			data = le.AppendUint32(data, p)
		}
		data = pad8(data)
		section[2] = le.AppendUint32(section[2], uint32(len(section[3])))
		section[2] = le.AppendUint32(section[2], e.check(from+at+len(section[3]), data))
		section[3] = append(section[3], data...)
	}
	section[2] = le.AppendUint32(le.AppendUint32(section[2], uint32(len(section[3]))), 0)
	for i, s := range section {
		entry := body[8+16*i:]
		le.PutUint32(entry, uint32(len(body)))
		le.PutUint32(entry[4:], uint32(len(s)))
		le.PutUint32(entry[8:], e.check(from+len(body), s))
		body = pad8(append(body, s...))
	}
	return e.block(blockHead{typ: typeIndex}, body)
}

// absent stands for a value that is not there.
const absent = 0xab5e_ab5e_ab5e_ab5e

// words are a column of integers, FORMAT.md 17, naive: a constant or a frame.
func words(v ...uint64) []byte { return column(v, 0) }

// reals are a column of f64s, by their bits.
func reals(v ...float64) []byte {
	var w []uint64
	for _, f := range v {
		w = append(w, math.Float64bits(f))
	}
	return column(w, 0x80)
}

// none is the f64 that stands for one that is absent.
var none = math.Float64frombits(absent)

func column(v []uint64, head byte) []byte {
	var there []uint64
	bitmap := make([]byte, (len(v)+7)/8)
	for i, w := range v {
		if w != absent {
			bitmap[i/8] |= 1 << (i % 8)
			there = append(there, w)
		}
	}
	if len(there) == 0 {
		return []byte{1}
	}
	out := []byte{head | 0x10}
	if len(there) < len(v) {
		out[0] |= 2
		out = append(out, bitmap...)
	}
	if head != 0 {
		out = append(out, 255)
	}
	base := slices.MinFunc(there, func(x, y uint64) int { return cmp.Compare(int64(x), int64(y)) })
	width := 0
	for _, w := range there {
		width = max(width, bits.Len64(w-base))
	}
	out = binary.AppendVarint(out, int64(base))
	if width == 0 {
		return out
	}
	out[0] |= 1 << 2
	out = append(out, byte(width))
	w := &bitWriter{}
	for _, v := range there {
		w.put(v-base, width)
	}
	return append(out, w.b...)
}

// counts are 17.5's, naive: each difference written out.
func counts(rows ...[]uint64) []byte {
	k := len(rows[0])
	w := &bitWriter{}
	length := 0
	unary := func(n int) {
		for range n {
			w.put(1, 1)
		}
	}
	below := func(v uint64) {
		if n := bits.Len64(v); n > 1 {
			w.put(v, n-1)
		}
	}
	for b := range k {
		n := bits.Len64(rows[0][b])
		if d := n - length; d < 0 {
			unary(-2*d - 1)
		} else {
			unary(2 * d)
		}
		w.put(0, 1)
		length = n
		below(rows[0][b])
		if len(rows) == 1 {
			continue
		}
		w.put(1, 1)
		w.put(0, 2) // mean and R stay 0
		for i := range rows[1:] {
			if z := rows[i+1][b] - rows[i][b]; z < 16 {
				unary(int(z))
				w.put(0, 1)
			} else {
				unary(16)
				w.put(uint64(bits.Len64(z)-1), 6)
				below(z)
			}
		}
	}
	out := binary.AppendUvarint(nil, uint64(k))
	out = binary.AppendUvarint(out, 0)
	return append(binary.AppendUvarint(out, uint64(len(w.b))), w.b...)
}

// unhex is bytes as the page writes them.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// archiveImage is the text of an archive's files: README.md of spec/vectors.
func archiveImage(files ...*tierFile) []byte {
	var b bytes.Buffer
	for _, f := range files {
		fmt.Fprintf(&b, "file %s %d\n", f.name, len(f.b))
		for at := 0; at < len(f.b); at += 32 {
			piece := f.b[at:min(at+32, len(f.b))]
			if n := len(bytes.TrimRight(piece, "\x00")); n > 0 {
				skip := len(piece) - len(bytes.TrimLeft(piece, "\x00"))
				fmt.Fprintf(&b, "%d %x\n", at+skip, piece[skip:n])
			}
		}
	}
	return b.Bytes()
}
