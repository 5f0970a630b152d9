package vectors

import (
	"bytes"
	"time"

	"github.com/shmts/shmts/layout"
)

// withRing is the segment that the vectors of exemplars are a change of: a counter, a gauge and a histogram, and a ring of four slots in which
// there are three exemplars.
func withRing() *segment {
	series := []layout.SeriesInfo{
		want(layout.Counter, layout.U64, "c", label("k", "v")),
		want(layout.Gauge, layout.F64, "g"),
		bucketed(want(layout.Histogram, layout.F64, "h"), layout.BucketRange{Scale: 0, Min: 0, Count: 4}),
	}
	g := newSegment(0xa0, layout.Schema{Series: 4, HeapBytes: 64, Exemplars: 4,
		Tables: []layout.TableSchema{room("t", 1, steps(step(time.Second, 4)), series...)}})
	for _, s := range series {
		g.register(s, false)
	}
	g.exemplar(g.infos[2], 2.5)
	g.record(g.infos[2], 0, 2.5)
	g.add(g.infos[0], 0, 7)
	g.exemplar(g.infos[0], 7)
	g.tick(time.Second)
	g.record(g.infos[2], 1, 1.0/3)
	g.exemplar(g.infos[2], 1.0/3)
	return g
}

// exemplar takes the next number and stores an exemplar of a series under it. FORMAT.md 10.12.
func (g *segment) exemplar(s *layout.SeriesInfo, value float64) (n uint64) {
	return g.store(layout.Exemplar{Series: uint32(s.Index), Generation: s.Generation(), Value: value})
}

// store fills in time, trace and span, by the number.
func (g *segment) store(x layout.Exemplar) (n uint64) {
	ctl := g.control()
	ctl.Exemplars++
	n = ctl.Exemplars
	x.T = g.unix() + int64(n)
	for i := range x.TraceID {
		x.TraceID[i] = byte(n)*16 + byte(i)
	}
	for i := range x.SpanID {
		x.SpanID[i] = 0xf0 - byte(n) - byte(i)
	}
	g.sum(n, &x)
	return n
}

// sum puts x into the slot of exemplar n, with a good check.
func (g *segment) sum(n uint64, x *layout.Exemplar) {
	slot := g.exemplarSlot(n)
	slot[0] = 0
	if !layout.StoreExemplar(slot, g.h.ExemplarIdentity(), n, x) {
		panic("a slot that is free")
	}
}

func (g *segment) exemplarSlot(n uint64) []uint64 {
	return g.w[g.h.ExemplarOffset(n)/8:][:layout.ExemplarWords]
}

// again changes exemplar n, and has its check right.
func (g *segment) again(n uint64, do func(x *layout.Exemplar)) {
	x := *layout.View[layout.Exemplar](g.exemplarSlot(n), 0)
	do(&x)
	g.sum(n, &x)
}

// goodExemplars are rings as writers leave them.
func goodExemplars() []Vector {
	all := []Vector{withRing().vector("exemplars", "8.4", "exemplars of a histogram and a counter, one slot never used")}

	g := withRing()
	for i := range 6 {
		g.exemplar(g.infos[2], float64(i+10))
	}
	all = append(all, g.vector("exemplars-overwritten", "8.4", "nine exemplars in a ring of four: the newest are there"))

	g = withRing()
	g.again(1, func(x *layout.Exemplar) { x.SpanID = [8]byte{} })
	all = append(all, g.vector("exemplar-no-span", "8.4", "a trace without a span"))

	g = withRing()
	copy(g.exemplarSlot(4), g.exemplarSlot(3)) // as 10.12 has it after its third step, with a part of the words
	g.exemplarSlot(4)[0] = 4<<1 | 1
	g.control().Exemplars = 4
	all = append(all, g.vector("exemplar-killed-inside", "10.12", "the writer died inside exemplar 4: seq odd; the others are good"))

	g = withRing()
	for range 4 {
		g.exemplar(g.infos[0], 1)
	}
	g.exemplarSlot(6)[0] = 6<<1 | 1
	g.control().Exemplars, g.control().ExemplarsDropped = 10, 1
	g.exemplar(g.infos[0], 2)
	all = append(all, g.vector("exemplar-slot-held", "12", "a thread that was killed holds a slot: number 10 was dropped, and what is there is of number 6; 8 and 9 were never stored"))

	g = withRing()
	g.retire(g.infos[2])
	all = append(all, g.vector("exemplar-retired", "8.4", "exemplars of a series that was retired"))

	g = withRing()
	g.retire(g.infos[0])
	for range 7 { // the rows that held it are out of the ring
		g.tick(time.Second)
	}
	next := want(layout.Counter, layout.U64, "d")
	next.Index, next.RowCell, next.LaneCell, next.State = 0, g.infos[0].RowCell, g.infos[0].LaneCell, layout.NewState(1, layout.SeriesFree)
	g.exemplar(g.register(next, true), 9)
	all = append(all, g.vector("exemplar-generation", "8.4", "an exemplar of a descriptor that is another series' by now, and one of that"))

	g = newSegment(0xa1, layout.Schema{Series: 1, HeapBytes: 64, Sampled: true, Exemplars: 2,
		Tables: []layout.TableSchema{room("t", 2, nil, want(layout.Counter, layout.U64, "c"))}})
	g.exemplar(g.register(want(layout.Counter, layout.U64, "c"), false), 42)
	return append(all, g.vector("exemplars-sampled", "10.8", "a segment that never ticks keeps its exemplars itself"), wideExemplars())
}

// wideExemplars has slots of more bytes than 1.0 knows.
func wideExemplars() Vector {
	g := withRing()
	e := entry(layout.Bytes(g.w), layout.SectionExemplars)
	le.PutUint32(e[4:], 2)
	le.PutUint32(e[24:], 2*layout.ExemplarSize)
	g.h.Exemplars.Count, g.h.Exemplars.ElementSize = 2, 2*layout.ExemplarSize
	clear(g.w[g.h.Exemplars.Offset/8:][:g.h.Exemplars.Length/8])
	g.control().Exemplars = 0
	for range 3 {
		n := g.exemplar(g.infos[2], 1)
		g.w[g.h.ExemplarOffset(n)/8+layout.ExemplarWords] = 0xeeeeeeeeeeeeeeee
	}
	rehash(g.w)
	v := g.vector("exemplars-larger", "4.2", "slots with a tail of 64 bytes that 1.0 does not know")
	v.Verdict, v.Rule = Ignore, "element_size"
	return v
}

// brokenExemplars breaks one rule each, in exemplar 2, slot 1, or in the section.
func brokenExemplars() []Vector {
	const section, rule = layout.SectionExemplars, "a power of two of exemplars"
	one := func(id, comment, rule string, do func(x *layout.Exemplar)) change {
		return change{id, "8.4", comment, Skip, rule, func(g *segment, _ []byte) { g.again(2, do) }}
	}
	slot := func(id, comment, rule string, do func(slot []uint64)) change {
		return change{id, "8.4", comment, Skip, rule, func(g *segment, _ []byte) { do(g.exemplarSlot(2)) }}
	}
	counted := func(id, comment string, n uint32) change {
		return change{id, "4.2", comment, Refuse, rule, func(_ *segment, b []byte) {
			le.PutUint32(entry(b, section)[4:], n)
			le.PutUint64(entry(b, section)[16:], uint64(n)*layout.ExemplarSize)
		}}
	}
	put := func(id, comment, rule string, at int, v uint64) change {
		return change{id, "4.2", comment, Refuse, rule, func(_ *segment, b []byte) {
			if at == 24 {
				le.PutUint32(entry(b, section)[at:], uint32(v))
			} else {
				le.PutUint64(entry(b, section)[at:], v)
			}
		}}
	}
	return append(changesOf(withRing, []change{
		slot("exemplar-torn", "the value of another", "check", func(s []uint64) { s[3]++ }),
		slot("exemplar-check", "one bit of the check", "check", func(s []uint64) { s[1] ^= 1 << 63 }),
		slot("exemplar-flip-span", "one bit of span_id", "check", func(s []uint64) { s[7] ^= 1 << 63 }),
		{"exemplar-another-number", "8.4", "seq says another number of the slot's", Skip, "check", func(g *segment, _ []byte) {
			g.exemplarSlot(2)[0], g.control().Exemplars = 2*6, 6
		}},
		slot("exemplar-wrong-slot", "a number of another slot", "number", func(s []uint64) { s[0] = 2 * 1 }),
		slot("exemplar-number-0", "being written, without a number", "number", func(s []uint64) { s[0] = 1 }),
		{"exemplar-number-far", "8.4", "a number that was never given", Skip, "number", func(g *segment, _ []byte) {
			x := *layout.View[layout.Exemplar](g.exemplarSlot(2), 0)
			g.sum(1<<40+2, &x)
		}},
		{"exemplar-of-another-segment", "8.4", "summed for another segment_id", Skip, "check", func(g *segment, _ []byte) {
			other := g.h.Superblock
			other.SegmentID[15] ^= 1
			x := *layout.View[layout.Exemplar](g.exemplarSlot(2), 0)
			g.exemplarSlot(2)[0] = 0
			layout.StoreExemplar(g.exemplarSlot(2), other.ExemplarIdentity(), 2, &x)
		}},
		one("exemplar-series-far", "a descriptor past the section", "series", func(x *layout.Exemplar) { x.Series = 1<<32 - 1 }),
		one("exemplar-gauge", "of a gauge", "a counter or a histogram", func(x *layout.Exemplar) { x.Series = 1 }),
		one("exemplar-no-trace", "a trace_id of zeros", "trace_id", func(x *layout.Exemplar) { x.TraceID = [16]byte{} }),
		counted("exemplars-count-0", "a ring of no slots", 0),
		counted("exemplars-count-1", "a ring of one slot", 1),
		counted("exemplars-count-3", "a ring of three slots", 3),
		put("exemplars-misaligned", "an offset that is no multiple of 64", "offset a multiple of 64", 8, 0x1008),
		put("exemplars-past-file", "an offset past the file", "offset a multiple of 64", 8, 1<<40),
		put("exemplars-in-header", "the ring in the header", "offset a multiple of 64", 8, 512),
		put("exemplars-length", "a length past the file", "length at most", 16, 1<<62),
		put("exemplars-element-small", "slots of 32 bytes", "element_size", 24, 32),
		put("exemplars-element-odd", "slots of 96 bytes: no multiple of 64", "element_size", 24, 96),
		{"exemplars-product", "4.2", "length is not count x element_size", Refuse, "count x element_size", func(_ *segment, b []byte) { le.PutUint32(entry(b, section)[4:], 2) }},
		{"exemplars-overlap", "4.2", "the ring lies where the rows are", Refuse, "overlap", func(g *segment, b []byte) {
			le.PutUint64(entry(b, section)[8:], g.h.Rows.Offset)
		}},
		{"exemplars-twice", "4.2", "two rings", Refuse, "section type 8 once", func(g *segment, b []byte) {
			e := bytes.Clone(entry(b, section)[:layout.SectionSize])
			le.PutUint64(e[8:], g.h.Exemplars.Offset+2*layout.ExemplarSize)
			for _, half := range [][]byte{e, entry(b, section)} {
				le.PutUint32(half[4:], 2)
				le.PutUint64(half[16:], 2*layout.ExemplarSize)
			}
			copy(entry(b, layout.SectionRows), e)
		}},
	}), ringTooLarge())
}

// ringTooLarge has 8,192 slots.
func ringTooLarge() Vector {
	g := withRing()
	const size = 8192 * layout.ExemplarSize
	w := make([]uint64, (g.h.TotalSize+size)/8)
	copy(w, g.w)
	b := layout.Bytes(w)
	le.PutUint64(b[0x18:], uint64(len(b)))
	e := entry(b, layout.SectionExemplars)
	le.PutUint32(e[4:], 8192)
	le.PutUint64(e[8:], g.h.TotalSize)
	le.PutUint64(e[16:], size)
	rehash(w)
	return Vector{ID: "exemplars-count-8192", Section: "4.2", Comment: "a ring of too many slots", Verdict: Refuse, Rule: "a power of two of exemplars", Image: image(w)}
}
