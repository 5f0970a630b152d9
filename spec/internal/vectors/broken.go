package vectors

import (
	"encoding/binary"
	"fmt"

	"github.com/shmts/shmts/layout"
)

var le = binary.LittleEndian

// A change makes of base something else: bytes first, then the header's checksum.
type change struct {
	id, section, comment, verdict, rule string
	do                                  func(g *segment, b []byte)
}

func changes(list []change) []Vector { return changesOf(base, list) }

// changesOf makes them of another segment than base.
func changesOf(make func() *segment, list []change) []Vector {
	var all []Vector
	for _, c := range list {
		g := make()
		c.do(g, layout.Bytes(g.w))
		rehash(g.w)
		all = append(all, Vector{ID: c.id, Section: c.section, Comment: c.comment, Verdict: c.verdict, Rule: c.rule, Image: image(g.w)})
	}
	return all
}

// rehash makes the header's checksum right for whatever the header says, so that only the rule meant breaks.
func rehash(w []uint64) {
	const at = 0x88 / 8
	size := int(uint32(w[1]>>32)) / 8
	if size <= at || size > len(w) {
		return
	}
	w[at] = 0
	w[at] = layout.Sum(0x53, w[:size])
}

// entry is where the section table speaks of a type.
func entry(b []byte, t layout.SectionType) []byte {
	for at := layout.SuperblockSize; ; at += layout.SectionSize {
		if le.Uint32(b[at:]) == uint32(t) {
			return b[at:]
		}
	}
}

func sectionOffset(b []byte, t layout.SectionType) uint64 { return le.Uint64(entry(b, t)[8:]) }

// table is table 0's descriptor.
func table(b []byte) []byte { return b[sectionOffset(b, layout.SectionTables):] }

// An eighth section fits between the section table and the tables, which begin at a multiple of 64.
func eighth(b []byte, t uint32, count uint32, offset, length uint64, element uint32) {
	le.PutUint32(b[0x80:], 8)
	e := b[layout.SuperblockSize+7*layout.SectionSize:]
	le.PutUint32(e, t)
	le.PutUint32(e[4:], count)
	le.PutUint64(e[8:], offset)
	le.PutUint64(e[16:], length)
	le.PutUint32(e[24:], element)
}

func put16(at int, v uint16) func(*segment, []byte) {
	return func(_ *segment, b []byte) { le.PutUint16(b[at:], v) }
}

func put32(at int, v uint32) func(*segment, []byte) {
	return func(_ *segment, b []byte) { le.PutUint32(b[at:], v) }
}

func put64(at int, v uint64) func(*segment, []byte) {
	return func(_ *segment, b []byte) { le.PutUint64(b[at:], v) }
}

// legal are images that a narrow reader would stumble over, and must not.
func legal() []Vector {
	all := changes([]change{
		{"minor-99", "3", "a newer minor version", Valid, "", put16(0x0a, 99)},
		{"compat-unknown", "3", "a compat bit that nobody knows", Ignore, "compat", put32(0x10, 1<<31)},
		{"flags-unknown", "4.1", "flags other than sampled", Ignore, "flags", put32(0x78, 0xfffffffe)},
		{"group-index-9", "4.1", "a group_index over 3", Ignore, "group_index", put32(0x7c, 9)},
		{"reserved-set", "1", "reserved bytes of header and control block that are not zero", Ignore, "reserved", func(_ *segment, b []byte) {
			b[0xc0], b[0xff] = 1, 2
			le.PutUint32(entry(b, layout.SectionHeap)[0x1c:], 3)
			t := table(b)
			t[0x3c], t[0xc0], t[0xff], t[0x40+0x18] = 1, 2, 3, 4
			c := b[sectionOffset(b, layout.SectionControl):]
			c[0x58], c[0x80+0x14] = 1, 2
		}},
		{"tiers-unused-set", "4.3", "tier 2 is not used and says nonsense", Ignore, "tiers", func(_ *segment, b []byte) {
			le.PutUint64(table(b)[0x80:], 7)
		}},
		{"section-unknown", "4.2", "a section of a type that nobody knows, with an offset that is no multiple of 64 and past the file", Skip, "type",
			func(_ *segment, b []byte) { eighth(b, 0x8000, 1, 1<<40+1, 1<<50, 3) }},
		{"section-reserved-type", "4.2", "a section of a type that 1.0 reserves, over another section", Skip, "type",
			func(_ *segment, b []byte) {
				eighth(b, uint32(layout.SectionEvents), 8, sectionOffset(b, layout.SectionHeap), 64, 8)
			}},
		{"sections-in-another-order", "4.2", "the section table backwards", Valid, "", func(_ *segment, b []byte) {
			t := b[layout.SuperblockSize:][:7*layout.SectionSize]
			var turned []byte
			for i := 6; i >= 0; i-- {
				turned = append(turned, t[i*layout.SectionSize:][:layout.SectionSize]...)
			}
			copy(t, turned)
		}},
		{"source-tail", "4.4", "bytes behind the second pair list", Ignore, "source", func(_ *segment, b []byte) {
			e := entry(b, layout.SectionSource) // the header ends at a multiple of 64: there is room
			n := le.Uint32(e[4:]) + 3
			le.PutUint32(e[4:], n)
			le.PutUint64(e[16:], uint64(n))
			copy(b[sectionOffset(b, layout.SectionSource)+uint64(n)-3:], "\xff\xff\xff")
		}},
		{"control-state-unknown", "5", "a state that is not 1 or 2 is live", Ignore, "state", func(_ *segment, b []byte) {
			le.PutUint32(b[sectionOffset(b, layout.SectionControl):], 3)
		}},
		{"control-used-too-large", "5", "series_used, heap_used and cells used past their sections and capacities", Ignore, "clamp", func(_ *segment, b []byte) {
			c := b[sectionOffset(b, layout.SectionControl):]
			for _, at := range []int{0x18, 0x1c, 0x88, 0x8c, 0x90} {
				le.PutUint32(c[at:], 1<<32-1)
			}
		}},
		{"heads-wrong", "5.1", "heads that lie: rows decide", Ignore, "head", func(_ *segment, b []byte) {
			c := b[sectionOffset(b, layout.SectionControl):]
			le.PutUint64(c[0x80+0x18:], 1<<63)
			le.PutUint64(c[0x80+0x20:], 0)
		}},
		{"series-flags-unknown", "6.1", "flags of a series that nobody knows", Ignore, "flags", func(g *segment, _ []byte) { g.descriptor(0).Flags = 0xfe }},
		{"series-cells-unused", "6.1", "a counter with a shared_cell, a gauge with a lane_cell, past all capacities", Ignore, "lane_cell, shared_cell",
			func(g *segment, _ []byte) {
				g.descriptor(0).SharedCell, g.descriptor(1).LaneCell = 1<<32-1, 1<<32-1
			}},
		{"series-being-filled", "10.2", "descriptors that are free, and being filled, below series_used", Valid, "", func(g *segment, _ []byte) {
			g.descriptor(0).State, g.descriptor(1).State = layout.NewState(5, layout.SeriesFree), layout.NewState(0, layout.SeriesFilling)
		}},
		{"label-value-empty", "6.4", "a pair with an empty value is no pair", Ignore, "empty", func(g *segment, b []byte) {
			relabel(g, b, 0, "\x02\x00"+"\x01\x00\x00\x00a"+"\x01\x00\x01\x00bx")
		}},
		{"row-short", "6.1", "a row of fewer cells than the table: the series behind them are not in it", Valid, "", func(g *segment, _ []byte) {
			row := layout.View[layout.RowHeader](g.slot(0, 0, 2), 0)
			h := *row
			cells := append([]uint64(nil), g.slot(0, 0, 2)[layout.RowWords:][:6]...)
			layout.PublishRow(g.slot(0, 0, 2), g.h.RowIdentity(0, 0), &h, cells)
		}},
	})
	return append(all, larger())
}

// larger has a control block, descriptors and tables of more bytes than 1.0 knows.
func larger() Vector {
	g := base()
	b := image(g.w)
	old := layout.Bytes(g.w)
	const end, more = 2 * 4096, 64
	b = append(b, make([]byte, end-len(b))...)
	at := uint64(len(old))
	le.PutUint64(b[0x18:], end)
	for _, t := range []layout.SectionType{layout.SectionControl, layout.SectionSeries} {
		e := entry(b, t)
		count, offset, element := uint64(le.Uint32(e[4:])), le.Uint64(e[8:]), uint64(le.Uint32(e[24:]))
		for i := range count {
			copy(b[at+i*(element+more):], old[offset+i*element:][:element])
			for j := range uint64(more) {
				b[at+i*(element+more)+element+j] = 0xee
			}
		}
		le.PutUint64(e[8:], at)
		le.PutUint64(e[16:], count*(element+more))
		le.PutUint32(e[24:], uint32(element+more))
		at += count * (element + more)
	}
	w := make([]uint64, end/8)
	copy(layout.Bytes(w), b)
	rehash(w)
	return Vector{ID: "elements-larger", Section: "4.2", Comment: "control block and descriptors with a tail of 64 bytes that 1.0 does not know",
		Verdict: Ignore, Rule: "element_size", Image: image(w)}
}

// relabel gives series index another list of labels, raw, at the end of the heap.
func relabel(g *segment, b []byte, index int, list string) {
	s := g.descriptor(index)
	strings := string(b[g.h.Heap.Offset+uint64(s.Strings):][:s.StringsLength()-int(s.LabelsLength)]) + list
	if uint64(g.heap)+uint64(len(strings)) > g.h.Heap.Length {
		panic(fmt.Sprintf("no room in the heap for %q", list))
	}
	s.Strings, s.LabelsLength = g.heap, uint32(len(list))
	copy(b[g.h.Heap.Offset+uint64(g.heap):], strings)
}

func brokenHeaders() []Vector {
	section := func(t layout.SectionType, at int, v uint64) func(*segment, []byte) {
		return func(_ *segment, b []byte) {
			if at == 8 || at == 16 {
				le.PutUint64(entry(b, t)[at:], v)
			} else {
				le.PutUint32(entry(b, t)[at:], uint32(v))
			}
		}
	}
	list := []change{
		{"magic", "4.1", "one bit of the magic", Refuse, "magic", func(_ *segment, b []byte) { b[4] ^= 1 }},
		{"magic-text-mode", "4.1", "CR LF became LF", Refuse, "magic", func(_ *segment, b []byte) { copy(b[5:8], "\n\x1a\x00") }},
		{"major-0", "4.1", "an older major version", Refuse, "major 1", put16(0x08, 0)},
		{"major-2", "4.1", "a newer major version", Refuse, "major 1", put16(0x08, 2)},
		{"incompat-unknown", "3", "an incompat bit that nobody knows", Refuse, "incompat", put32(0x14, 1<<4)},
		{"header-size-odd", "4.1", "header_size no multiple of 64", Refuse, "header_size", put32(0x0c, 840)},
		{"header-size-small", "4.1", "header_size less than a superblock", Refuse, "header_size", put32(0x0c, 192)},
		{"header-size-large", "4.1", "header_size over 65,536", Refuse, "header_size", put32(0x0c, 65600)},
		{"header-size-past-file", "4.1", "header_size over the file's", Refuse, "header_size", put32(0x0c, 8192)},
		{"total-size-large", "4.1", "total_size over 2^30", Refuse, "total_size", put64(0x18, 1<<30+4096)},
		{"total-size-zero", "4.1", "total_size less than header_size", Refuse, "total_size", put64(0x18, 0)},
		{"total-size-truncated", "4.1", "a file that was cut", Refuse, "total_size", put64(0x18, 8192)},
		{"section-count-0", "4.1", "no sections", Refuse, "section_count", put32(0x80, 0)},
		{"section-count-65", "4.1", "too many sections", Refuse, "section_count", put32(0x80, 65)},
		{"section-table-past-header", "4.1", "the section table goes on behind the header", Refuse, "inside the header", put32(0x80, 64)},
		{"section-offset", "4.1", "section_offset is not 256", Refuse, "section_offset", put32(0x84, 288)},
		{"section-twice", "4.2", "two heaps", Refuse, "section type 5 once", func(g *segment, b []byte) {
			eighth(b, uint32(layout.SectionHeap), 64, g.h.TotalSize-64, 64, 1)
		}},
		{"section-overlap", "4.2", "the heap lies where the series are", Refuse, "overlap", func(_ *segment, b []byte) {
			le.PutUint64(entry(b, layout.SectionHeap)[8:], sectionOffset(b, layout.SectionSeries))
		}},
		{"section-overlap-in-header", "4.2", "the source lies where the tables are", Refuse, "overlap", func(_ *segment, b []byte) {
			le.PutUint64(entry(b, layout.SectionSource)[8:], sectionOffset(b, layout.SectionTables)+192)
		}},
		{"section-misaligned", "4.2", "an offset that is no multiple of 64", Refuse, "offset a multiple of 64", func(_ *segment, b []byte) {
			e := entry(b, layout.SectionHeap)
			le.PutUint64(e[8:], le.Uint64(e[8:])+8)
		}},
		{"section-offset-past-file", "4.2", "an offset past the file", Refuse, "offset a multiple of 64", section(layout.SectionRows, 8, 1<<63)},
		{"section-offset-in-header", "4.2", "the control block inside the header", Refuse, "offset a multiple of 64", section(layout.SectionControl, 8, 256)},
		{"section-tables-behind-header", "4.2", "the tables behind the header", Refuse, "offset a multiple of 64", section(layout.SectionTables, 8, 3840)},
		{"section-length-past-file", "4.2", "a length past the file", Refuse, "length at most", section(layout.SectionRows, 16, 1<<64-64)},
		{"section-length-product", "4.2", "length is not count x element_size", Refuse, "count x element_size", section(layout.SectionSeries, 4, 3)},
		{"section-element-small", "4.2", "a control block of 576 bytes", Refuse, "element_size", section(layout.SectionControl, 24, 576)},
		{"section-element-odd", "4.2", "descriptors of 96 bytes: no multiple of 64", Refuse, "element_size", section(layout.SectionSeries, 24, 96)},
		{"section-element-words", "4.2", "rows of words of 16 bytes", Refuse, "element_size", section(layout.SectionRows, 24, 16)},
		{"section-element-zero", "4.2", "elements of no bytes", Refuse, "element_size", section(layout.SectionHeap, 24, 0)},
		{"control-none", "4.2", "no control block in its section", Refuse, "one control block", func(_ *segment, b []byte) {
			e := entry(b, layout.SectionControl)
			le.PutUint32(e[4:], 0)
			le.PutUint64(e[16:], 0)
		}},
		{"tables-none", "4.2", "no table", Refuse, "1 to 8 tables", func(_ *segment, b []byte) {
			e := entry(b, layout.SectionTables)
			le.PutUint32(e[4:], 0)
			le.PutUint64(e[16:], 0)
		}},
	}
	for t := layout.SectionControl; t <= layout.SectionRows; t++ {
		list = append(list, change{fmt.Sprintf("section-missing-%d", t), "4.2", fmt.Sprintf("no section of type %d", t), Refuse,
			fmt.Sprintf("a section of type %d", t), section(t, 0, 77)})
	}
	source := func(id, comment, list2 string) change {
		return change{id, "4.4", comment, Refuse, "source", func(_ *segment, b []byte) {
			e := entry(b, layout.SectionSource)
			le.PutUint32(e[4:], uint32(len(list2)))
			le.PutUint64(e[16:], uint64(len(list2)))
			at := sectionOffset(b, layout.SectionSource)
			if at+uint64(len(list2)) > uint64(le.Uint32(b[0x0c:])) {
				panic(id + ": no room in the header")
			}
			clear(b[at:le.Uint32(b[0x0c:])])
			copy(b[at:], list2)
		}}
	}
	const job, instance = "\x03\x00\x01\x00jobj", "\x08\x00\x01\x00instancei"
	list = append(list,
		source("source-empty", "no bytes at all", ""),
		source("source-one-list", "the second list is missing", "\x02\x00"+instance+job),
		source("source-no-job", "no job among the labels", "\x01\x00"+instance+"\x00\x00"),
		source("source-no-instance", "no instance among the labels", "\x01\x00"+job+"\x00\x00"),
		source("source-job-empty", "a job with an empty value is none", "\x02\x00"+instance+"\x03\x00\x00\x00job"+"\x00\x00"),
		source("source-cut", "the last pair ends past the section", "\x02\x00"+instance+"\x03\x00\x09\x00jobj"),
		source("source-count", "65 pairs", "\x41\x00"+instance+job+"\x00\x00"),
		source("source-order", "names out of order", "\x02\x00"+job+instance+"\x00\x00"),
		source("source-twice", "a name twice", "\x03\x00"+instance+job+job+"\x00\x00"),
		source("source-name-empty", "an empty name", "\x03\x00"+"\x00\x00\x01\x00x"+instance+job+"\x00\x00"),
		source("source-name-long", "a name of 256 bytes", "\x03\x00"+instance+job+"\x00\x01\x00\x00"+"x"),
		source("source-value-long", "a value of 1,024 bytes", "\x03\x00"+instance+job+"\x01\x00\x00\x04"+"x"),
		source("source-utf8", "a value that is not UTF-8", "\x02\x00"+instance+"\x03\x00\x01\x00job\xff"+"\x00\x00"),
		source("source-surrogate", "a surrogate is not UTF-8", "\x02\x00"+instance+"\x03\x00\x03\x00job\xed\xa0\x80"+"\x00\x00"),
		source("attributes-broken", "the second list is broken", "\x02\x00"+instance+job+"\x01\x00"+"\x01\x00\x01\x00a\xc0"),
	)
	all := changes(list)

	// Images that are no change of the same length, or of which the checksum itself is wrong.
	g := base()
	layout.Bytes(g.w)[0x50] ^= 1
	all = append(all, Vector{ID: "header-checksum", Section: "4.1", Comment: "one bit of birth_unix", Verdict: Refuse, Rule: "checksum", Image: image(g.w)})
	g = base()
	layout.Bytes(g.w)[g.h.HeaderSize-1] ^= 0x80
	all = append(all, Vector{ID: "header-checksum-last", Section: "4.1", Comment: "one bit of the header's last byte", Verdict: Refuse, Rule: "checksum", Image: image(g.w)})
	g = base()
	le.PutUint64(layout.Bytes(g.w)[0x18:], 4096+64)
	rehash(g.w)
	all = append(all, Vector{ID: "total-size-odd", Section: "4.1", Comment: "total_size, and the file, no multiple of 4,096", Verdict: Refuse,
		Rule: "total_size", Image: append(image(g.w), make([]byte, 64)...)})
	all = append(all, Vector{ID: "total-size-grown", Section: "4.1", Comment: "a file that was lengthened", Verdict: Refuse,
		Rule: "total_size", Image: append(image(base().w), make([]byte, 4096)...)})
	all = append(all, Vector{ID: "file-short", Section: "4.1", Comment: "less than a superblock", Verdict: Refuse, Rule: "256 bytes", Image: image(base().w[:24])})
	return append(all, controlTwice(), nineTables())
}

func controlTwice() Vector {
	g := base()
	b := append(image(g.w), make([]byte, 4096)...)
	le.PutUint64(b[0x18:], uint64(len(b)))
	e := entry(b, layout.SectionControl)
	le.PutUint32(e[4:], 2)
	le.PutUint64(e[8:], 4096)
	le.PutUint64(e[16:], 2*layout.ControlSize)
	w := make([]uint64, len(b)/8)
	copy(layout.Bytes(w), b)
	rehash(w)
	return Vector{ID: "control-twice", Section: "4.2", Comment: "two control blocks in their section", Verdict: Refuse, Rule: "one control block", Image: image(w)}
}

func nineTables() Vector {
	var tables []layout.TableSchema
	for range layout.MaxTables {
		tables = append(tables, room("t", 1, steps(step(minStep, 2)), want(layout.Counter, layout.U64, "c")))
	}
	// The attributes keep room in the header for the ninth.
	long := string(make([]byte, 2*layout.TableSize))
	g := newSegment(0x90, layout.Schema{Series: 1, HeapBytes: 64, Tables: tables, Attributes: []layout.Pair{label("a", long)}})
	b := layout.Bytes(g.w)
	e, s := entry(b, layout.SectionTables), entry(b, layout.SectionSource)
	from := le.Uint64(s[8:])
	source := append([]byte(nil), b[from:from+le.Uint64(s[16:])]...)
	copy(b[from:], b[from-layout.TableSize:from]) // table 8 is as table 7
	const none = 2
	n, err := layout.AppendPairs(nil, g.h.Labels)
	if err != nil {
		panic(err)
	}
	at := from + layout.TableSize
	clear(b[at:g.h.HeaderSize])
	copy(b[at:], source[:len(n)])
	le.PutUint32(s[4:], uint32(len(n)+none))
	le.PutUint64(s[8:], at)
	le.PutUint64(s[16:], uint64(len(n)+none))
	le.PutUint32(e[4:], layout.MaxTables+1)
	le.PutUint64(e[16:], (layout.MaxTables+1)*layout.TableSize)
	rehash(g.w)
	return Vector{ID: "tables-nine", Section: "4.2", Comment: "nine tables", Verdict: Refuse, Rule: "1 to 8 tables", Image: image(g.w)}
}
