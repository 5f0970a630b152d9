package archive

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive/column"
	"github.com/shmts/shmts/reader"
)

// A world is what tests archive: every value follows from who it is of and its row's number, so that whatever is read
// proves itself right or wrong.
type world struct {
	schemas []*Schema
	next    map[Key]uint64     // number of the next row
	spoiled bool               // an index need not be what the blocks say
	known   map[string][]rowID // blocks that were read and found right, by all that they depend on
}

const worldBirth = 1_700_000_000_000 // ms

func newWorld(t testing.TB) *world {
	t.Helper()
	series := []*reader.Series{
		{Definition: &reader.Definition{Name: "requests", Kind: reader.Counter, Number: reader.U64}},
		{Definition: &reader.Definition{Name: "temperature", Kind: reader.Gauge, Number: reader.F64, Labels: []reader.Pair{{Name: "sensor", Value: "a"}}}},
		{Definition: &reader.Definition{Name: "queue", Kind: reader.Gauge, Number: reader.I64}},
		{Definition: &reader.Definition{Name: "size", Kind: reader.Stat, Number: reader.F64}},
		{Definition: &reader.Definition{Name: "latency", Kind: reader.Histogram, Number: reader.F64, Buckets: reader.BucketRange{Scale: 0, Min: -4, Count: 8}}},
		{Definition: &reader.Definition{Name: "errors", Kind: reader.Counter, Number: reader.U64}},
	}
	w := &world{next: map[Key]uint64{}, known: map[string][]rowID{}}
	for _, n := range []int{3, 5, 6} {
		s, err := NewSchema(0, "t", series[:n])
		if err != nil {
			t.Fatal(err)
		}
		w.schemas = append(w.schemas, s)
	}
	return w
}

// source is the i-th.
func (w *world) source(i int) *Source {
	s := &Source{Key: Key{Epoch: uint32(i % 2), Copy: uint32(i % 3 / 2)}, Birth: (worldBirth + int64(i)) * 1e6, Inode: uint64(i), UID: 1000 + i%2,
		Labels: []reader.Pair{{Name: "instance", Value: fmt.Sprint("vm", i)}, {Name: "job", Value: fmt.Sprint("job", i%3)}}}
	binary.LittleEndian.PutUint32(s.Segment[:], uint32(i))
	s.Segment[15] = 7
	if i%4 == 0 {
		s.Attributes = []reader.Pair{{Name: "zone", Value: "z"}}
	}
	return s
}

// word is one cell, column one of the words of a histogram.
func (w *world) word(k Key, series string, f Field, float bool, no uint64, column int) uint64 {
	h := mix(uint64(le.Uint32(k.Segment[:]))<<32 | uint64(k.Epoch)<<16 | uint64(k.Copy)<<8 | uint64(f)<<4 | uint64(len(series)))
	v := h%1000 + no*(1+h>>60)
	switch {
	case f == Hist && column > 0:
		v = no * (mix(h+uint64(column)) % 3)
	case series == "temperature" || series == "size":
		v = mix(h+no) >> 24
	}
	if float {
		return math.Float64bits(float64(v) / 8)
	}
	return v
}

func mix(x uint64) uint64 { // splitmix64
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (w *world) present(k Key, series string, no uint64) bool {
	return series != "temperature" || (no+uint64(k.Segment[0]))%7 != 0
}

func (w *world) time(no uint64) int64 { return worldBirth + int64(no)*1000 + int64(no*no%7) }

// block makes one of rows of some sources of one uid, going on where the last one of each ended.
func (w *world) block(r *rand.Rand, schema *Schema, folded bool, sources []int, rows int) *Block {
	b := &Block{Schema: schema, Step: time.Second, Folded: folded}
	for _, i := range sources {
		src := w.source(i)
		s := Rows{Source: src, Final: r.IntN(50) == 0, Estimated: r.IntN(50) == 0, Copied: r.IntN(50) == 0}
		no := w.next[src.Key]
		for range rows {
			no++
			if r.IntN(200) == 0 {
				no += 3
			}
			s.Numbers, s.Times = append(s.Numbers, no), append(s.Times, w.time(no))
			if folded {
				s.Coverage = append(s.Coverage, no%10+1)
			}
		}
		w.next[src.Key] = no
		s.Base = no
		for j, sr := range schema.Series {
			s.Starts = append(s.Starts, worldBirth+int64(i+j))
			for _, f := range Fields(sr.Kind, folded) {
				var cells []uint64
				var present []bool
				width := 1
				if f == Hist {
					width = sr.Buckets.Count + 3
				}
				for _, no := range s.Numbers {
					for c := range width {
						cells = append(cells, w.word(src.Key, sr.Name, f, isFloat(sr, f) && c == 0, no, c))
					}
					present = append(present, w.present(src.Key, sr.Name, no))
				}
				s.Cells, s.Present = append(s.Cells, cells), append(s.Present, present)
			}
		}
		b.Sources = append(b.Sources, s)
	}
	return b
}

// exemplars makes some of a few sources of one uid, going on where the last ones of each ended.
func (w *world) exemplars(r *rand.Rand, sources []int, n int) (parts []Exemplars) {
	for _, i := range sources {
		src := w.source(i)
		at := exemplarKey(src.Key)
		p := Exemplars{Source: src, Schema: w.schemas[1+r.IntN(2)]}
		for range n {
			w.next[at] += 1 + r.Uint64N(3)/2
			p.List = append(p.List, w.exemplar(src.Key, w.next[at]))
		}
		parts = append(parts, p)
	}
	return parts
}

// exemplar is one of a source: what it says follows from its number.
func (w *world) exemplar(k Key, no uint64) (x Exemplar) {
	h := mix(uint64(le.Uint32(k.Segment[:]))<<32 | no)
	x = Exemplar{Number: no, Series: int(h % 2 * 4), Value: float64(h>>40) / 16, Time: w.time(no)*1e6 + int64(h%1e6)} // requests, or latency
	le.PutUint64(x.TraceID[:], h)
	le.PutUint64(x.TraceID[8:], mix(h))
	le.PutUint32(x.SpanID[4:], uint32(h%3))
	return x
}

// exemplarKey is what a source's exemplars are numbered by in next, and known by as rowIDs.
func exemplarKey(k Key) Key {
	k.Epoch |= 1 << 31
	return k
}

// readExemplars adds all exemplars to rows, and says what is wrong with them.
func (w *world) readExemplars(a *Archive, rows map[rowID]bool) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	for p, err := range a.Exemplars(context.Background(), Selection{From: math.MinInt64, To: math.MaxInt64}) {
		if err != nil {
			say("exemplars: %v", err)
			continue
		}
		if want := w.source(int(p.Source.Inode)); fmt.Sprint(*p.Source) != fmt.Sprint(*want) {
			say("source of exemplars: want %+v, got %+v", want, p.Source)
		}
		for _, x := range p.List {
			if want := w.exemplar(p.Source.Key, x.Number); x != want {
				say("exemplar: want %+v, got %+v", want, x)
			}
			id := rowID{exemplarKey(p.Source.Key), x.Number}
			if rows[id] {
				say("exemplar %d twice", x.Number)
			}
			rows[id] = true
		}
	}
	return wrong
}

// exemplarIDs names those of some parts.
func exemplarIDs(parts []Exemplars) map[rowID]bool {
	out := map[rowID]bool{}
	for _, p := range parts {
		for _, x := range p.List {
			out[rowID{exemplarKey(p.Source.Key), x.Number}] = true
		}
	}
	return out
}

// A rowID is a row in the archive.
type rowID struct {
	key Key
	no  uint64
}

// read reads all that a tier holds, from the blocks, and says what is wrong with it. What fails a check is passed over.
func (w *world) read(a *Archive, tier int) (rows map[rowID]bool, wrong []string) {
	rows = map[rowID]bool{}
	if tier == 0 {
		wrong = w.readExemplars(a, rows)
	}
	say := func(e *extent, off uint32, format string, args ...any) {
		if e.t.gone(e) {
			return
		}
		wrong = append(wrong, fmt.Sprintf("tier %d, generation %d, block %d: %s", tier, e.generation, off, fmt.Sprintf(format, args...)))
	}
	for _, e := range a.tiers[tier].all() {
		m := e.mem
		if e.trailer != nil {
			again := e.t.newExtent(e.slot, ExtentHeader{Generation: e.generation})
			if err := again.unseal(); err != nil {
				say(e, 0, "%v", err)
				continue
			}
			m = again.mem
			if !w.spoiled && (!e.whole() || int(e.trailer.Blocks) != len(m.rows) || m.mark != Mark{} && e.newestMark() != m.mark) {
				say(e, e.trailer.IndexOffset, "sealed, and %d blocks and mark %v are there: want %+v, whole %v", len(m.rows), m.mark, *e.trailer, e.whole())
			}
			// One that was made after a broken block may have more ordinals, absent, than the blocks that are there now.
			if off := e.trailer.IndexOffset; !w.spoiled && e.whole() && int(e.trailer.Sources) == m.sources() && e.trailer.Schemas == m.schemaCount() {
				disk, _ := e.readAt(off, e.trailer.IndexLength)
				if made := m.appendIndex(nil, e.seed, off); !bytes.Equal(disk, made) {
					say(e, off, "the index differs from what the blocks say: %d bytes, want %d", len(disk), len(made))
				}
			}
		}
		blocks, _ := m.blocks()
		for _, ref := range blocks {
			b, err := e.readAt(ref.offset, ref.length)
			if err != nil {
				say(e, ref.offset, "%v", err)
				continue
			}
			h, ok := e.seed.checkBlockHeader(ref.offset, b, e.limit())
			if !ok {
				continue
			}
			head, err := e.seed.cutRowsHead(ref.offset, &h, b[BlockHeaderSize:])
			if err != nil {
				continue
			}
			all, _ := m.schemas()
			sb, err := e.readAt(all[h.First].offset, BlockHeaderSize)
			if err != nil {
				say(e, ref.offset, "%v", err)
				continue
			}
			sh, ok := e.seed.checkBlockHeader(all[h.First].offset, sb, e.limit())
			if !ok || sh.Type != blockSchema {
				continue
			}
			if sb, err = e.readAt(all[h.First].offset, sh.Length); err != nil {
				say(e, ref.offset, "%v", err)
				continue
			}
			var schema *Schema
			for _, known := range w.schemas {
				if known.Hash == [16]byte(sb[BlockHeaderSize:]) {
					schema = known
				}
			}
			if e.check(all[h.First].offset+BlockHeaderSize, sb[BlockHeaderSize:]) != sh.BodyCheck {
				continue
			}
			if schema == nil {
				say(e, ref.offset, "schema %x: nobody wrote it", all[h.First].hash)
				continue
			}
			for _, word := range w.readBlock(e, m, &h, head, schema, ref.offset, b, rows) {
				say(e, ref.offset, "%s", word)
			}
		}
	}
	return rows, wrong
}

func (w *world) readBlock(e *extent, m *memIndex, h *BlockHeader, head rowsHead, schema *Schema, off uint32, b []byte, rows map[rowID]bool) (wrong []string) {
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	known := ""
	if e.check(off+BlockHeaderSize, b[BlockHeaderSize:]) == h.BodyCheck {
		k := append([]byte(nil), b[:BlockHeaderSize]...)
		k = append(k, schema.Hash[:]...)
		for _, s := range head.sources {
			k = append(k, recordOf(m, s.Source)...)
		}
		known = string(k)
	}
	if all, ok := w.known[known]; ok && known != "" {
		for _, id := range all {
			rows[id] = true
		}
		return nil
	}
	runs := b[BlockHeaderSize+h.Head:]
	var d column.Decoder
	run := func(i int) []byte {
		from := uint32(0)
		if i > 0 {
			from = head.ends[i-1]
		}
		if head.ends[i] == from {
			return nil
		}
		r := runs[from:head.ends[i]]
		if e.check(off+BlockHeaderSize+h.Head+from+4, r[4:]) != le.Uint32(r) {
			return nil
		}
		return r[4:]
	}
	decode := func(r *[]byte, n int, float bool) ([]uint64, []bool) {
		vals, present, rest, err := d.Decode(*r, n, float)
		if err != nil {
			say("%v", err)
			return nil, nil
		}
		*r = rest
		return slices.Clone(vals), slices.Clone(present)
	}
	times := run(runTimes)
	if times == nil {
		return nil
	}
	numbers := make([][]uint64, len(head.sources))
	sources := make([]*Source, len(head.sources))
	explicit := run(runNumbers)
	if explicit == nil && head.ends[runNumbers] > head.ends[runTimes] {
		return nil
	}
	for i, s := range head.sources {
		n := int(s.Rows)
		src, _, err := cutSource(recordOf(m, s.Source))
		if err != nil {
			say("source %d: %v", s.Source, err)
			return wrong
		}
		if want := w.source(int(src.Inode)); fmt.Sprint(*src) != fmt.Sprint(*want) {
			say("source: want %+v, got %+v", want, src)
		}
		sources[i] = src
		if explicit != nil {
			numbers[i], _ = decode(&explicit, n, false)
		} else {
			for k := range n {
				numbers[i] = append(numbers[i], s.FirstNo+uint64(k))
			}
		}
		at, _ := decode(&times, n, false)
		for k, no := range numbers[i] {
			if int64(at[k]) != w.time(no) {
				say("time of row %d: want %d, got %d", no, w.time(no), int64(at[k]))
			}
		}
	}
	complete := true
	f := runFields
	for _, sr := range schema.Series {
		for _, field := range Fields(sr.Kind, h.Flags&flagFolded != 0) {
			r := run(f)
			f++
			if r == nil {
				complete = false
				continue
			}
			for i, src := range sources {
				n := len(numbers[i])
				vals, present := decode(&r, n, isFloat(sr, field))
				var counts []uint64
				there := 0
				for k := range n {
					if present == nil || present[k] {
						there++
					}
				}
				if field == Hist && there > 0 {
					c, rest, err := d.DecodeHistogram(nil, r, there, sr.Buckets.Count+2)
					if err != nil {
						say("%v", err)
						return wrong
					}
					counts, r = c, rest
				}
				for k, no := range numbers[i] {
					here := present == nil || present[k]
					if here != w.present(src.Key, sr.Name, no) {
						say("%s of row %d: present %v", sr.Name, no, here)
					} else if want := w.word(src.Key, sr.Name, field, isFloat(sr, field), no, 0); here && vals[k] != want {
						say("%s of row %d: want %#x, got %#x", sr.Name, no, want, vals[k])
					}
				}
				for k, v := range counts { // latency is always there
					c := k % (sr.Buckets.Count + 2)
					if want := w.word(src.Key, sr.Name, field, false, numbers[i][k/(sr.Buckets.Count+2)], c+1); v != want {
						say("%s: bucket %d: want %d, got %d", sr.Name, c, want, v)
					}
				}
			}
		}
	}
	if complete && known != "" && len(wrong) == 0 {
		for i, src := range sources {
			for _, no := range numbers[i] {
				w.known[known] = append(w.known[known], rowID{src.Key, no})
			}
		}
	}
	if complete {
		for i, src := range sources {
			for _, no := range numbers[i] {
				rows[rowID{src.Key, no}] = true
			}
		}
	}
	return wrong
}

func recordOf(m *memIndex, ordinal uint32) []byte {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.sourceRecord(ordinal)
}
