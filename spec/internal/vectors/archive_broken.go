package vectors

import (
	"crypto/sha256"
	"slices"
)

// Verdicts of part two, beside those of FORMAT.md 1.
const (
	Empty    = "empty"
	Unsealed = "unsealed"
	NoBlock  = "no block"
)

// An archiveChange makes of newSimple something else.
type archiveChange struct {
	id, section, comment, verdict, rule string
	do                                  func(s *simple)
}

func archiveChanges(list []archiveChange) (all []Vector) {
	for _, c := range list {
		s := newSimple()
		c.do(s)
		all = append(all, Vector{ID: c.id, Section: c.section, Comment: c.comment, Verdict: c.verdict, Rule: c.rule, Image: archiveImage(s.f)})
	}
	return all
}

// header changes a field of the tier's, and makes its check right.
func header32(at int, v uint32) func(*simple) {
	return func(s *simple) {
		le.PutUint32(s.f.b[at:], v)
		s.f.sign()
	}
}

func header64(at int, v uint64) func(*simple) {
	return func(s *simple) {
		le.PutUint64(s.f.b[at:], v)
		s.f.sign()
	}
}

// trailer changes a word of the sealed extent's.
func trailer32(at int, v func(s *simple) uint32) func(*simple) {
	return func(s *simple) {
		le.PutUint32(s.sealed.b[limit+at:], v(s))
		s.sealed.sign(limit)
	}
}

// block32 changes a word of the header of a block of the open extent, and makes all checks right.
func block32(which func(s *simple) int, at int, v uint32) func(*simple) {
	return func(s *simple) {
		b := which(s)
		le.PutUint32(s.open.b[b+at:], v)
		s.open.sign(b)
	}
}

func people(s *simple) int   { return s.at[1].people }
func schemaAt(s *simple) int { return s.at[1].schema }
func rowsAt(s *simple) int   { return s.at[1].rows }

// body changes a block's body in the open extent.
func body(which func(s *simple) int, do func(b []byte)) func(*simple) {
	return func(s *simple) {
		at := which(s)
		do(s.open.b[at+64:][:le.Uint32(s.open.b[at+8:])-64])
		s.open.signBody(at)
	}
}

// head changes the head of the first rows block of the open extent, two sources: 8, 2 x 48, and 7 runs' ends.
func head(do func(b []byte)) func(*simple) {
	return func(s *simple) {
		do(s.open.b[rowsAt(s)+64:])
		s.open.signHead(rowsAt(s))
	}
}

// tracedBlock appends a block of exemplars to the open extent: two parts of one exemplar each.
func tracedBlock(s *simple) int {
	return s.open.exemplars(tracePart{source: 0, of: []trace{{no: 3, t: 5_000_000_000, value: 0.75, id: 1}}}, tracePart{source: 1, of: []trace{{no: 4, t: 6_000_000_000, value: 8, id: 2}}})
}

// traceHead changes the head of such a block.
func traceHead(do func(b []byte)) func(*simple) {
	return func(s *simple) {
		at := tracedBlock(s)
		do(s.open.b[at+64:])
		s.open.signHead(at)
	}
}

// traceRun changes the run of its first part, and makes body_check right.
func traceRun(do func(b []byte)) func(*simple) {
	return func(s *simple) {
		at := tracedBlock(s)
		run := at + 64 + 8 + 2*24
		end := run + int(le.Uint32(s.open.b[at+64+8+12:]))
		do(s.open.b[run:end])
		s.open.signBody(at)
	}
}

// tracesOf appends a block of these exemplars, of the first source, and a good one.
func tracesOf(all ...trace) func(*simple) {
	return func(s *simple) {
		s.open.exemplars(tracePart{source: 0, of: all}, tracePart{source: 1, of: []trace{{no: 4, id: 2}}})
	}
}

const directory = 8 + 2*48

// column replaces one of 3 rows of one source in a run of the open extent, by a new block behind the others; the field is the
// counter (integers) or the gauge (f64s).
func columnOf(gauge bool, n int, bytes string) func(*simple) {
	return func(s *simple) {
		var broken, good share
		broken.source, good.source = 1, 0
		for i := range n {
			no := uint64(20 + i)
			broken.times, broken.numbers = append(broken.times, int64(no)*1000), append(broken.numbers, no)
		}
		good.times, good.numbers = broken.times, broken.numbers
		ones := make([]uint64, n)
		zeros := make([]float64, n)
		good.fields = [][]byte{words(ones...), reals(zeros...)}
		broken.fields = slices.Clone(good.fields)
		broken.fields[0] = words(ones...)
		at := 0
		if gauge {
			at = 1
		}
		broken.fields[at] = unhex(bytes)
		s.open.shares(0, second, false, nil, good, broken)
	}
}

// histogramOf appends a histogram of 4 buckets with these counts, of 2 rows.
func histogramOf(bytes string) func(*simple) {
	return func(s *simple) {
		s.open.schema(1, 1, "histograms", []line{{name: "latency", kind: histogramK, number: u64N, buckets: 4, min: 0}})
		h := share{times: []int64{1000, 2000}, fields: [][]byte{append(words(3, 5), unhex(bytes)...)}}
		s.open.shares(1, second, false, nil, h)
	}
}

// schemaOf appends a schema's block with this body, and a row that would have it.
func schemaOf(count uint32, body func() []byte) func(*simple) {
	return func(s *simple) {
		s.open.block(blockHead{typ: typeSchema, first: 1, count: count}, body())
		s.open.shares(1, second, false, nil, tick(0, 20, 1))
	}
}

func lineOf(change func(l *line)) func() []byte {
	return func() []byte {
		l := one[0]
		change(&l)
		text := schemaText(0, "scalars", []line{l})
		return schemaBody(text, stored(text))
	}
}

// section changes an entry of the sealed extent's index, and makes body_check and check right.
func sectionEntry(i, at int, v func(now uint32) uint32) func(*simple) {
	return func(s *simple) {
		e := s.sealed.b[s.index+64+8+16*i+at:]
		le.PutUint32(e, v(le.Uint32(e)))
		s.sealed.signBody(s.index)
	}
}

func plus(d uint32) func(uint32) uint32 { return func(now uint32) uint32 { return now + d } }

// brokenArchives break each rule of sections 14 to 18 once.
func brokenArchives() []Vector {
	all := archiveChanges([]archiveChange{
		// 14.1
		{"tier-magic", "14.1", "a magic that was converted like text", Refuse, "magic", func(s *simple) { s.f.b[5] = '\n'; s.f.sign() }},
		{"tier-major-2", "14.1", "another major version", Refuse, "major", header32(8, 2)},
		{"tier-minor-9", "14.1", "a newer minor version", Valid, "", header32(8, 1|9<<16)},
		{"tier-compat", "14.1", "a compat bit that nobody knows", Ignore, "compat", header32(0xc, 1<<31)},
		{"tier-incompat", "14.1", "an incompat bit that nobody knows", Refuse, "incompat", header32(0x10, 1)},
		{"tier-extent-size-odd", "14.1", "extents of no multiple of 4,096", Refuse, "extent_size", header32(0x14, 65536+512)},
		{"tier-extent-size-small", "14.1", "extents of 32 KiB", Refuse, "extent_size", header32(0x14, 32768)},
		{"tier-extent-size-large", "14.1", "extents of more than 16 MiB", Refuse, "extent_size", header32(0x14, 16777216+4096)},
		{"tier-step-short", "14.1", "a step below 100 ms", Refuse, "step", header64(0x18, 99_999_999)},
		{"tier-step-long", "14.1", "a step over an hour", Refuse, "step", header64(0x18, 3600*second+1)},
		{"tier-check", "14.1", "a header whose check is wrong", Refuse, "check", func(s *simple) { s.f.b[0x30] ^= 1 }},
		{"tier-cut", "14.1", "a file that ends in its header", Refuse, "64 bytes", func(s *simple) { s.f.b = s.f.b[:40] }},
		{"tier-half-an-extent", "14", "a file that ends in the last extent, which is none", Valid, "", func(s *simple) { s.f.b = s.f.b[:len(s.f.b)-4096] }},
		{"tier-another-archive", "14.2", "an archive_id that is not that of the checks: no header proves anything", Empty, "archive_id", func(s *simple) { s.f.b[0x20] ^= 1; s.f.sign() }},
		{"tier-another-step", "14.2", "a step that is not that of the checks", Empty, "step", header64(0x18, 2*second)},
		{"tier-reserved", "1", "reserved bytes that are not zero", Ignore, "reserved", func(s *simple) {
			s.f.b[0x38], s.f.b[100], s.f.b[4000] = 1, 2, 3
			s.f.sign()
			s.open.b[0x10], s.open.b[0x30] = 1, 2
			s.open.sign(0)
			s.sealed.b[limit+0x38] = 2
			s.sealed.sign(limit)
			at := rowsAt(s)
			s.open.b[at+0x38], s.open.b[at+64+4] = 1, 2
			s.open.signHead(at)
			s.open.b[people(s)+64+0x54] = 1
			s.open.signBody(people(s))
			s.open.b[schemaAt(s)+64+20] = 1
			s.open.signBody(schemaAt(s))
		}},
		// 14.3
		{"extent-generation-0", "14.3", "generation 0, with a right check", Empty, "generation", func(s *simple) {
			s.open.generation = 0
			clear(s.open.b[:8])
			s.open.sign(0)
		}},
		{"extent-check", "14.3", "an extent's header whose check is wrong", Empty, "check", func(s *simple) { s.open.b[9] ^= 1 }},
		{"extent-generation-twice", "14.3", "two extents of one generation, as while a tier is made smaller: the first counts", Empty, "generation",
			func(s *simple) { copy(s.f.b[4096+2*extentSize:], s.open.b) }},
		{"extent-another-generation", "14.2", "a header of another generation over the blocks of this one", NoBlock, "generation", func(s *simple) { s.f.extent(1, 3) }},
		// 14.4
		{"trailer-check", "14.4", "a trailer whose check is wrong", Unsealed, "check", func(s *simple) { s.sealed.b[limit+9] ^= 1 }},
		{"trailer-index-offset-odd", "14.4", "an index at no multiple of 8", Unsealed, "index_offset", trailer32(0, func(s *simple) uint32 { return uint32(s.index) + 4 })},
		{"trailer-index-offset-header", "14.4", "an index in the extent's header", Unsealed, "index_offset", trailer32(0, func(*simple) uint32 { return 0 })},
		{"trailer-index-offset-past", "14.4", "an index over the trailer", Unsealed, "index_offset", trailer32(0, func(*simple) uint32 { return limit })},
		{"trailer-index-length", "14.4", "another length than the index has", Unsealed, "an index where the trailer says", trailer32(4, func(s *simple) uint32 { return le.Uint32(s.sealed.b[limit+4:]) - 8 })},
		{"trailer-no-index", "14.4", "a block of another type where the index should be", Unsealed, "an index where the trailer says", func(s *simple) {
			s.sealed.trailer(s.at[0].people, int(le.Uint32(s.sealed.b[s.at[0].people+8:])))
		}},
		{"trailer-blocks", "18", "more rows blocks in the trailer than in the index", Unsealed, "sections as long as the trailer says", trailer32(0x10, func(*simple) uint32 { return 3 })},
		{"trailer-exemplars", "18", "more exemplars blocks in the trailer than in the index", Unsealed, "sections as long as the trailer says", trailer32(0x14, func(*simple) uint32 { return 3 })},
		{"trailer-schemas", "18", "fewer schemas in the trailer than in the index", Unsealed, "sections as long as the trailer says", trailer32(0xc, func(*simple) uint32 { return 0 })},
		{"trailer-sources", "18", "more sources in the trailer than in the index", Unsealed, "sections as long as the trailer says", trailer32(8, func(*simple) uint32 { return 3 })},
		// 18
		{"index-sections", "18", "an index of 8 sections", Unsealed, "9 sections", func(s *simple) { s.sealed.b[s.index+64] = 8; s.sealed.signBody(s.index) }},
		{"index-header", "18", "an index whose header's check is wrong", Unsealed, "an index where the trailer says", func(s *simple) { s.sealed.b[s.index+0x38] ^= 1 }},
		{"index-section-odd", "18", "a section at no multiple of 8", Unsealed, "section 1", sectionEntry(1, 0, plus(4))},
		{"index-section-past", "18", "a section behind the index's end", Unsealed, "section 7", sectionEntry(7, 4, plus(1<<20))},
		{"index-section-front", "18", "a section over the table of sections", Unsealed, "section 4", sectionEntry(4, 0, func(uint32) uint32 { return 128 })},
		{"index-source-check", "18", "a source's check in section 2 is wrong, the section's right", Unsealed, "check of source 1", func(s *simple) {
			at := s.index + 64 + int(le.Uint32(s.sealed.b[s.index+64+8+16*2:]))
			s.sealed.b[at+8+4] ^= 1
			n := int(le.Uint32(s.sealed.b[s.index+64+8+16*2+4:]))
			le.PutUint32(s.sealed.b[s.index+64+8+16*2+8:], s.sealed.check(at, s.sealed.b[at:at+n]))
			s.sealed.signBody(s.index)
		}},
		{"index-block-elsewhere", "18", "a rows block that is not where section 1 says", Skip, "rows block", func(s *simple) {
			at := s.index + 64 + int(le.Uint32(s.sealed.b[s.index+64+8+16:]))
			le.PutUint32(s.sealed.b[at:], uint32(s.at[0].rows+8))
			n := int(le.Uint32(s.sealed.b[s.index+64+8+16+4:]))
			le.PutUint32(s.sealed.b[s.index+64+8+16+8:], s.sealed.check(at, s.sealed.b[at:at+n]))
			s.sealed.signBody(s.index)
		}},
		// 15.1
		{"block-magic", "15.1", "a block without its magic: its sources are unknown, and the rows that refer to them", NoBlock, "no block", func(s *simple) { s.open.b[people(s)] ^= 1 }},
		{"block-check", "15.1", "a header whose check is wrong", NoBlock, "no block", func(s *simple) { s.open.b[rowsAt(s)+0x20] ^= 1 }},
		{"block-length-odd", "15.1", "a length of no multiple of 8", NoBlock, "no block", func(s *simple) {
			at := rowsAt(s)
			le.PutUint32(s.open.b[at+8:], le.Uint32(s.open.b[at+8:])-4)
			s.open.sign(at)
		}},
		{"block-length-short", "15.1", "a length below 64", NoBlock, "no block", block32(rowsAt, 8, 56)},
		{"block-length-past", "15.1", "a length beyond the trailer", NoBlock, "no block", block32(rowsAt, 8, extentSize)},
		{"block-type-7", "15.1", "a type of a later minor version: no damage", Ignore, "type", func(s *simple) {
			s.open.block(blockHead{typ: 7, first: 9, count: 9}, make([]byte, 40))
			s.open.shares(0, second, false, nil, tick2(0, 30))
		}},
		{"block-flags", "15.1", "flags that nobody knows", Ignore, "flags", func(s *simple) { s.open.b[rowsAt(s)+7] = 0x80; s.open.sign(rowsAt(s)) }},
		{"block-body-check", "15.1", "a body_check that is wrong: in an extent without an index the block is passed over", Skip, "body_check", block32(rowsAt, 0xc, 1)},
		{"source-unknown", "15.1", "rows of a source that no block gave", Skip, "a source that a block gave", func(s *simple) { s.open.shares(0, second, false, nil, tick2(2, 20)) }},
		{"schema-unknown", "15.1", "rows of a schema that no block gave", Skip, "a schema that a block gave", func(s *simple) { s.open.shares(1, second, false, nil, tick(0, 20, 1)) }},
		{"refers-forward", "15.1", "a source that is given behind the rows that refer to it: they are passed over, and so is it", Skip, "a source that a block gave", func(s *simple) {
			s.open.shares(0, second, false, nil, tick2(2, 20))
			s.open.people(2, person{id: 3})
			s.open.shares(0, second, false, nil, tick2(2, 21))
		}},
		{"ordinals-twice", "15.1", "two blocks that give one ordinal: the first counts", Valid, "", func(s *simple) {
			s.open.people(1, person{id: 7}, person{id: 8})
			s.open.schema(0, 0, "another", one)
			s.open.shares(0, second, false, nil, tick2(1, 20), tick2(2, 21))
		}},
		{"ordinals-of-a-broken-block", "15.1", "what a broken block gave is not given again, nor known", Skip, "body_check", func(s *simple) {
			at := s.open.people(2, person{id: 7}, person{id: 8})
			s.open.b[at+64+0x30] ^= 1
			s.open.people(2, person{id: 9})
			s.open.people(4, person{id: 10})
			s.open.shares(0, second, false, nil, tick2(2, 20))
			s.open.shares(0, second, false, nil, tick2(4, 20))
		}},
		{"ordinals-left-out", "15.1", "ordinals that no block gave, and those behind them", Valid, "", func(s *simple) {
			s.open.people(5, person{id: 7})
			s.open.schema(3, 1, "another", one)
			s.open.shares(3, second, false, nil, tick(5, 1, 2))
		}},
		{"ordinals-large", "20", "an ordinal of 2^20", Skip, "ordinals below 2^20", func(s *simple) {
			s.open.people(1<<20-1, person{id: 7}, person{id: 8})
			s.open.people(2, person{id: 9})
			s.open.shares(0, second, false, nil, tick2(2, 20))
		}},
		// 15.2
		{"source-lists-short", "15.2", "a lists_length below 4", Skip, "lists_length", body(people, func(b []byte) { le.PutUint32(b[0x50:], 3) })},
		{"source-lists-large", "15.2", "a lists_length over 65,535", Skip, "lists_length", body(people, func(b []byte) { le.PutUint32(b[0x50:], 65536) })},
		{"source-lists-past", "15.2", "lists that reach behind the block", Skip, "lists_length", body(people, func(b []byte) { le.PutUint32(b[0x50:], 2000) })},
		{"source-lists-length", "15.2", "a lists_length that is one more than the lists", Skip, "lists_length", body(people, func(b []byte) { le.PutUint32(b[0x50:], le.Uint32(b[0x50:])+1) })},
		{"source-pairs", "15.2", "labels out of order", Skip, "pair lists", body(people, func(b []byte) { b[88+6] = 'z' })},
		{"source-count", "15.2", "more sources than there are", Skip, "a record", block32(people, 0x14, 3)},
		{"source-flags", "15.2", "flags that nobody knows", Ignore, "flags", body(people, func(b []byte) { b[0x4f] = 0x80 })},
		// 15.3
		{"schema-hash", "15.3", "a hash that is not the text's", Skip, "hash", body(schemaAt, func(b []byte) { b[0] ^= 1 })},
		{"schema-longer", "15.3", "a text longer than said", Skip, "text", body(schemaAt, func(b []byte) { le.PutUint32(b[16:], le.Uint32(b[16:])-1) })},
		{"schema-shorter", "15.3", "a text shorter than said", Skip, "text", body(schemaAt, func(b []byte) { le.PutUint32(b[16:], le.Uint32(b[16:])+1) })},
		{"schema-large", "15.3", "a text of more than 2^28 bytes", Skip, "2^28", body(schemaAt, func(b []byte) { le.PutUint32(b[16:], 1<<28+1) })},
		{"schema-deflate", "15.3", "a stream that is no DEFLATE", Skip, "DEFLATE", body(schemaAt, func(b []byte) { b[24] = 7 })},
		{"schema-count", "15.3", "another count of series in the header", Skip, "count of series", block32(schemaAt, 0x14, 3)},
		{"schema-tail", "15.3", "bytes behind the last series", Skip, "no more", schemaOf(1, func() []byte {
			text := append(schemaText(0, "scalars", one), 0)
			return schemaBody(text, stored(text))
		})},
		{"schema-series-many", "15.3", "fewer series than the text says", Skip, "text of 2 series", schemaOf(2, func() []byte {
			text := schemaText(0, "scalars", one)
			text[4] = 2
			return schemaBody(text, stored(text))
		})},
		{"schema-cut", "15.3", "a text without its head", Skip, "text of 24 bytes", schemaOf(0, func() []byte {
			text := []byte("not a schema")
			return schemaBody(text, stored(text))
		})},
		{"schema-body-short", "15.3", "a body without hash and length", Skip, "hash and length", schemaOf(0, func() []byte { return make([]byte, 16) })},
		{"schema-kind", "15.3", "a series of kind 6", Skip, "6.1", schemaOf(1, lineOf(func(l *line) { l.kind = 6 }))},
		{"schema-number", "15.3", "a counter of i64", Skip, "6.1", schemaOf(1, lineOf(func(l *line) { l.number = i64N }))},
		{"schema-no-name", "15.3", "a series without a name", Skip, "6.1", schemaOf(1, lineOf(func(l *line) { l.name = "" }))},
		{"schema-utf8", "15.3", "a help text that is not UTF-8", Skip, "6.1", schemaOf(1, lineOf(func(l *line) { l.help = "\xff" }))},
		{"schema-labels", "15.3", "labels out of order", Skip, "6.1", schemaOf(1, lineOf(func(l *line) { l.labels = [][2]string{{"b", "1"}, {"a", "1"}} }))},
		{"schema-buckets", "15.3", "a counter that has buckets", Skip, "6.1", schemaOf(1, lineOf(func(l *line) { l.buckets = 3 }))},
		{"schema-scale", "15.3", "a histogram of scale 7", Skip, "6.1", schemaOf(1, lineOf(func(l *line) { l.kind, l.buckets, l.scale = histogramK, 3, 7 }))},
		// 15.4
		{"mark-short", "15.4", "a mark of 8 bytes", Skip, "16 bytes", func(s *simple) { s.open.block(blockHead{typ: typeMark}, make([]byte, 8)) }},
		// 16
		{"rows-count-0", "16", "a block of no source", Skip, "count 1 to 1024", func(s *simple) {
			s.open.block(blockHead{typ: typeRows, runs: 7, head: 8 + 28}, make([]byte, 40))
			s.open.signHead(s.open.at - 104)
		}},
		{"rows-runs-many", "16.2", "more runs than the schema has", Skip, "runs 7", func(s *simple) {
			r := tick2(0, 20)
			r.fields = append(r.fields, words(1))
			s.open.shares(0, second, false, nil, r)
		}},
		{"rows-runs-few", "16.2", "fewer runs than the schema has", Skip, "runs 7", func(s *simple) {
			r := tick2(0, 20)
			r.fields = r.fields[:1]
			s.open.shares(0, second, false, nil, r)
		}},
		{"rows-runs-4", "16.2", "fewer runs than any block has", Skip, "runs 5", block32(rowsAt, 0x30, 4)},
		{"rows-head", "16", "a head of another length than its parts have", Skip, "head", block32(rowsAt, 0x34, directory+4*7+4)},
		{"rows-head-check", "16", "a head whose check is wrong, under a right body_check", Skip, "check of the head", body(rowsAt, func(b []byte) { b[0] ^= 1 })},
		{"rows-0", "16.1", "a source without rows", Skip, "rows at least 1", head(func(b []byte) { le.PutUint16(b[8+4:], 0) })},
		{"rows-source-twice", "16.1", "a source twice in a block", Skip, "each source once", head(func(b []byte) { le.PutUint32(b[8+48:], 0) })},
		{"rows-source-unknown", "16.1", "one of the sources is none", Skip, "a source that a block gave", head(func(b []byte) { le.PutUint32(b[8+48:], 77) })},
		{"rows-not-dense", "16.2", "no numbers, where first_no and last_no are not as far apart as there are rows", Skip, "dense", func(s *simple) {
			r := tick2(0, 20)
			r.times, r.numbers, r.fields = []int64{20_000, 21_000}, nil, [][]byte{words(1, 2), reals(1, 2)}
			at := s.open.shares(0, second, false, nil, r)
			le.PutUint64(s.open.b[at+64+8+0x10:], 5)
			s.open.signHead(at)
		}},
		{"runs-descending", "16.2", "a run that ends before it begins", Skip, "run directory", head(func(b []byte) { le.PutUint32(b[directory+4*3:], 1) })},
		{"runs-past", "16.2", "a run that ends behind the block", Skip, "run directory", head(func(b []byte) { le.PutUint32(b[directory+4*6:], 1<<20) })},
		{"runs-without-check", "16.2", "a run of less than its check", Skip, "run directory", head(func(b []byte) { le.PutUint32(b[directory+4*2:], le.Uint32(b[directory+4:])+2) })},
		{"column-in-the-middle", "17", "a corrupt column between those of two other sources: what lies before it is good, what follows is not", Skip, "presence", func(s *simple) {
			s.open.people(2, person{id: 3})
			row := func(source uint32) share { return tick2(source, 20) }
			broken := row(2)
			broken.fields[0] = unhex("03")
			s.open.shares(0, second, false, nil, row(1), broken, row(0))
		}},
		// 16.3
		{"exemplars-0", "16.3", "a part without exemplars", Skip, "exemplars at least 1", traceHead(func(b []byte) { le.PutUint32(b[8+8:], 0) })},
		{"exemplars-count", "16.3", "another number of exemplars in the header than in the parts", Skip, "as many as the header says", block32(tracedBlock, 0x30, 3)},
		{"exemplars-parts-0", "16.3", "a block of no part", Skip, "count 1 to 1024", func(s *simple) {
			s.open.block(blockHead{typ: typeExemplars, head: 8}, make([]byte, 8))
			s.open.signHead(s.open.at - 72)
		}},
		{"exemplars-head", "16.3", "a head of another length than its parts have", Skip, "head", block32(tracedBlock, 0x34, 8+24)},
		{"exemplars-head-check", "16.3", "a head whose check is wrong, under a right body_check", Skip, "check of the head", body(tracedBlock, func(b []byte) { b[0] ^= 1 })},
		{"exemplars-end-past", "16.3", "a part that ends behind the block", Skip, "end of a part", traceHead(func(b []byte) { le.PutUint32(b[8+24+12:], 1<<20) })},
		{"exemplars-end-descending", "16.3", "a part that ends before it begins", Skip, "end of a part", traceHead(func(b []byte) { le.PutUint32(b[8+24+12:], 4) })},
		{"exemplars-source-unknown", "16.3", "exemplars of a source that no block gave, and what it would have been is given to nobody else", Skip, "a source that a block gave", func(s *simple) {
			tracedBlock(s)
			s.open.exemplars(tracePart{source: 2, of: []trace{{no: 9, t: 1}}})
			s.open.people(2, person{id: 3})
			s.open.shares(0, second, false, nil, tick2(2, 20))
		}},
		{"exemplars-schema-unknown", "16.3", "exemplars of a schema that no block gave", Skip, "a schema that a block gave", func(s *simple) {
			s.open.exemplars(tracePart{schema: 1, of: []trace{{no: 9, t: 1}}})
		}},
		{"exemplars-part-check", "16.3", "a part whose check is wrong: the other is read", Skip, "check of the part", traceRun(func(b []byte) { b[4] ^= 1 })},
		{"exemplars-ids-short", "16.3", "columns that leave no room for the ids", Skip, "ids in the run", func(s *simple) {
			at := s.open.exemplars(tracePart{of: []trace{{no: 9, t: 1}, {no: 10, t: 1}}})
			run, end := at+64+8+24, s.open.b[at+64+8+12:]
			le.PutUint32(end, le.Uint32(end)-1)
			le.PutUint32(s.open.b[run:], s.open.check(run+4, s.open.b[run+4:run+int(le.Uint32(end))]))
			s.open.signHead(at)
		}},
		{"exemplars-series", "16.3", "a series that the schema does not have", Skip, "a counter or histogram", tracesOf(trace{no: 9, series: 2})},
		{"exemplars-series-kind", "16.3", "an exemplar of a gauge", Skip, "a counter or histogram", tracesOf(trace{no: 9, series: 1})},
		{"exemplars-numbers", "16.3", "numbers that fall", Skip, "ascend to last_no", tracesOf(trace{no: 9}, trace{no: 8})},
		{"exemplars-number-0", "16.3", "number 0", Skip, "ascend to last_no", tracesOf(trace{no: 0}, trace{no: 8})},
		{"exemplars-last", "16.3", "a last_no that is not the last", Skip, "ascend to last_no", traceHead(func(b []byte) { le.PutUint64(b[8+16:], 77) })},
		{"exemplars-absent", "16.3", "a column with an absent value", Skip, "absent", func(s *simple) {
			s.open.exemplars(tracePart{of: []trace{{no: 9}, {no: 10}}, columns: slices.Concat(words(9, 10), words(0, 0), words(birthUnix, birthUnix), reals(1, none))})
		}},
		{"exemplars-column", "16.3", "a column that is corrupt", Skip, "presence", func(s *simple) {
			s.open.exemplars(tracePart{of: []trace{{no: 9}, {no: 10}}, columns: slices.Concat(words(9, 10), unhex("03"), words(birthUnix, birthUnix), reals(1, 2))})
		}},
		{"exemplars-sealed", "16.3", "a part whose check is wrong, in an extent that is sealed", Skip, "check of the part", func(s *simple) {
			f := newTier("1s.tier", second, 2)
			e := f.extent(0, 1)
			e.people(0, person{id: 1})
			e.schema(0, 0, "scalars", pairOf)
			at := e.exemplars(tracePart{of: []trace{{no: 9, t: 1}}})
			e.exemplars(tracePart{of: []trace{{no: 11, t: 1}}})
			e.seal()
			e.b[at+64+8+24+5] ^= 1
			s.f = f
		}},
		{"exemplars-elsewhere", "18", "an exemplars block that is not where section 8 says", Skip, "exemplars block", func(s *simple) {
			f := newTier("1s.tier", second, 2)
			e := f.extent(0, 1)
			e.people(0, person{id: 1})
			e.schema(0, 0, "scalars", pairOf)
			e.exemplars(tracePart{of: []trace{{no: 9, t: 1}}})
			e.exemplars(tracePart{of: []trace{{no: 11, t: 1}}})
			le.PutUint32(e.traces[0], uint32(le.Uint32(e.traces[0])+8))
			e.seal()
			s.f = f
		}},
		{"members-many", "16.2", "more members than run 4 has", Skip, "members", func(s *simple) {
			at := s.open.shares(0, second, false, []person{{id: 1}}, tick2(0, 20))
			run, n := s.open.runAt(at, 4)
			s.open.b[run+4] = 2
			le.PutUint32(s.open.b[run:], s.open.check(run+4, s.open.b[run+4:run+n]))
			s.open.signBody(at)
		}},
	})
	for _, c := range []struct {
		id      string
		section int
		comment string
		rule    string
	}{
		{"filter", 0, "the filter", ""}, {"blocks", 1, "rows blocks", ""}, {"offsets", 2, "the sources' places", ""}, {"sources", 3, "the sources", ""},
		{"schemas", 4, "the schemas", ""}, {"ids", 5, "segment ids", ""}, {"pair-offsets", 6, "the pairs' places", ""}, {"pairs", 7, "label pairs", ""}, {"exemplars", 8, "exemplars blocks", ""},
	} {
		all = append(all, archiveChanges([]archiveChange{{"index-check-" + c.id, "18", "the check of section " + string(rune('0'+c.section)) + ", " + c.comment + ", is wrong", Unsealed,
			"section " + string(rune('0'+c.section)), func(s *simple) { // the bytes, under a body_check that is right
				b := s.sealed.b[s.index+64+int(le.Uint32(s.sealed.b[s.index+64+8+16*c.section:])):]
				b[3] ^= 1
				s.sealed.signBody(s.index)
			}}})...)
	}
	for i, what := range []string{"times: the block", "numbers: the block", "", "starts: those alone", "", "the counter: that alone", "the gauge: that alone"} {
		if what == "" {
			continue
		}
		for k, where := range []string{"sealed", "open"} {
			all = append(all, archiveChanges([]archiveChange{{"run-check-" + string(rune('0'+i)) + "-" + where, "16.2", "a run whose check is wrong, in the extent that is " + where + ": " + what, Skip,
				"run " + string(rune('0'+i)), func(s *simple) {
					e := []*extentFile{s.sealed, s.open}[k]
					run, _ := e.runAt(s.at[k].rows, i)
					e.b[run] ^= 1
					if k == 1 {
						e.signBody(s.at[k].rows)
					}
				}}})...)
		}
	}
	for _, c := range []struct {
		id, section, comment string
		gauge                bool
		n                    int
		bytes, rule          string
	}{
		{"presence-3", "17.1", "presence 3", false, 3, "03", "presence"},
		{"codec-3", "17.1", "codec 3", false, 3, "0c 00", "codec"},
		{"none-says-more", "17.1", "no value is present, and a base follows", false, 3, "11 05", "says more"},
		{"bitmap-empty", "17.1", "a bitmap of nothing", false, 3, "12 00 05", "bitmap"},
		{"bitmap-past", "17.1", "a bitmap of more than there are", false, 3, "12 09 05", "bitmap"},
		{"constant-divisor", "17.1", "a constant with a divisor", false, 3, "20 02", "constant"},
		{"constant-exceptions", "17.1", "a constant with exceptions", false, 3, "40 00", "constant"},
		{"integers-transform", "17.1", "integers with a transform", false, 3, "90 01 05", "transform"},
		{"divisor-0", "17.1", "a divisor of 0", false, 3, "24 00 01 00", "divisor"},
		{"width-65", "17.1", "a width of 65", false, 2, "04 41 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "width"},
		{"cut", "17.1", "fewer bytes than the width wants", false, 3, "04 40 01 02 03", "bytes"},
		{"varint-long", "17", "a uvarint of eleven bytes", false, 3, "10 80 80 80 80 80 80 80 80 80 80 00", "varint"},
		{"varint-large", "17", "a uvarint of more than 64 bits", false, 3, "10 ff ff ff ff ff ff ff ff ff 02", "varint"},
		{"transform-23", "17.2", "a transform that is none", true, 3, "90 17 05", "transform"},
		{"exceptions-many", "17.3", "more exceptions than integers", false, 2, "44 01 03 00 00 01 01 01 01 01", "exceptions"},
		{"exceptions-wide", "17.3", "exceptions at a width of 64", false, 1, "44 40 01 00 00 00 00 00 00 00 00 00 01", "exceptions"},
		{"exception-past", "17.3", "an exception behind the last integer", false, 2, "44 01 01 00 02 01", "exception"},
		{"exception-again", "17.3", "a second exception in the place of the first", false, 3, "44 01 02 00 00 01 00 01", "exception"},
		{"exception-0", "17.3", "an exception whose high bits are 0", false, 2, "44 01 01 00 00 00", "high"},
		{"exception-high", "17.3", "an exception of more than 64 bits", false, 2, "44 02 01 00 00 ff ff ff ff ff ff ff ff ff 01", "high"},
	} {
		all = append(all, archiveChanges([]archiveChange{{"column-" + c.id, c.section, c.comment + ": that field of that source", Skip, c.rule, columnOf(c.gauge, c.n, c.bytes)}})...)
	}
	for _, c := range []struct{ id, comment, bytes, rule string }{
		{"buckets", "more buckets than there are", "07 00 01 00", "buckets"},
		{"first", "buckets from too far on", "04 03 01 00", "buckets"},
		{"length", "a stream longer than the run", "01 00 7f 00", "bytes"},
		{"short", "a stream that ends in a number", "01 00 01 ff", "too short"},
		{"tail", "more than zeros behind the last bit", "01 00 01 80", "zeros"},
		{"byte-more", "a byte more than is used", "01 00 02 00 00", "zeros"},
		{"count-65", "a count of 65 bits", "01 00 12 ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff ff 03 00", "64 bits"},
	} {
		all = append(all, archiveChanges([]archiveChange{{"histogram-" + c.id, "17.5", c.comment, Skip, c.rule, histogramOf(c.bytes)}})...)
	}

	two := func(change func(g *tierFile)) []*tierFile {
		f, g := newSimple().f, newTier("10s.tier", 10*second, 2)
		change(g)
		g.sign()
		return []*tierFile{f, g}
	}
	return append(all,
		Vector{ID: "tiers-of-two-archives", Section: "14.1", Comment: "a second tier with another archive_id", Verdict: Refuse, Rule: "archive",
			Image: archiveImage(two(func(g *tierFile) { hash := sha256.Sum256(nil); copy(g.b[0x20:], hash[:16]) })...)},
		Vector{ID: "tiers-of-one-step", Section: "14", Comment: "two tiers of one step", Verdict: Refuse, Rule: "one tier of", Image: archiveImage(two(func(g *tierFile) { le.PutUint64(g.b[0x18:], second) })...)},
		Vector{ID: "tiers-unfinished", Section: "14.1", Comment: "a directory with nothing but a file of zeros", Verdict: Refuse, Rule: "tier",
			Image: archiveImage(func() *tierFile { f := newTier("1s.tier", second, 2); clear(f.b); return f }())})
}
