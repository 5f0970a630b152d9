package vectors

import "math"

// allKinds has every kind with every number type. fieldsOf gives what three rows of it hold.
func allKinds() []line {
	return []line{
		{name: "requests", unit: "1", help: "all of them", labels: [][2]string{{"code", "200"}}, kind: counterK, number: u64N},
		{name: "seconds", unit: "s", kind: counterK, number: f64N},
		{name: "open", kind: updownK, number: i64N},
		{name: "level", kind: gaugeK, number: f64N},
		{name: "offset", kind: gaugeK, number: i64N},
		{name: "size", unit: "By", kind: statK, number: f64N, flags: 1},
		{name: "latency", unit: "s", kind: histogramK, number: f64N, scale: 3, buckets: 4, min: -2},
		{name: "bytes", kind: histogramK, number: u64N, scale: 0, buckets: 3, min: 5},
	}
}

func kindFields() [][]byte {
	return [][]byte{
		words(10, 11, math.MaxUint64),
		reals(0.5, 0.75, 1e300),
		words(0, uint64(1<<63), 1<<63-1),
		reals(math.Inf(1), none, math.Copysign(0, -1)),
		words(absent, 7, uint64(1<<64-7)),
		words(0, 2, 5), reals(0, 1.5, 4), reals(none, 1, 2), reals(none, 0.5, math.NaN()), reals(none, 1, 2),
		append(reals(0, 1.5, none), counts([]uint64{0, 0, 0, 0, 0, 0}, []uint64{1, 0, 2, 0, 0, 40})...),
		append(words(0, 100, 200), counts([]uint64{0, 0, 0, 0, 0}, []uint64{0, 1, 1, 0, 0}, []uint64{0, 2, 2, 1, 1 << 40})...),
	}
}

// one is the schema of a single counter, and tick n rows of it, one a second.
var one = []line{{name: "ticks", kind: counterK, number: u64N}}

func tick(source uint32, first, n int) share {
	s := share{source: source}
	var v []uint64
	for i := range n {
		no := first + i
		s.times, s.numbers, v = append(s.times, int64(no)*1000), append(s.numbers, uint64(no)), append(v, uint64(no*no))
	}
	s.fields = [][]byte{words(v...)}
	return s
}

// simple is what broken images are changes of: an extent that is sealed, and one that is open; two sources in each, a counter and a gauge; exemplars in the sealed one.
type simple struct {
	f            *tierFile
	sealed, open *extentFile
	index        int // of the sealed extent
	at           [2]struct{ people, schema, rows, more int }
}

var pairOf = []line{{name: "ticks", kind: counterK, number: u64N}, {name: "level", help: "now", labels: [][2]string{{"a", "b"}}, kind: gaugeK, number: f64N}}

func newSimple() *simple {
	s := &simple{f: newTier("1s.tier", second, 3)}
	for i := range 2 {
		e, at := s.f.extent(i, uint64(i+1)), &s.at[i]
		at.people = e.people(0, person{id: 1}, person{id: 2, attributes: [][2]string{{"host.name", "h"}}})
		at.schema = e.schema(0, 0, "scalars", pairOf)
		no := uint64(6*i + 1)
		share := func(source uint32, no uint64) share {
			t := int64(no) * 1000
			return share{source: source, times: []int64{t, t + 1000, t + 2000}, numbers: []uint64{no, no + 1, no + 2}, starts: []uint64{0, 10},
				fields: [][]byte{words(no, no+5, no+9), reals(float64(no), none, 0.25)}}
		}
		at.rows = e.shares(0, second, false, nil, share(0, no), share(1, no))
		at.more = e.shares(0, second, false, nil, share(0, no+3))
		if i == 0 {
			e.exemplars(tracePart{source: 0, of: []trace{{no: 1, t: 1_000_000_000, value: 1, id: 3}, {no: 2, t: 1_500_000_000, value: 5, id: 4}}})
			s.sealed, s.index = e, e.seal()
		} else {
			s.open = e
		}
	}
	return s
}

func archive(id, section, comment string, files ...*tierFile) Vector {
	return Vector{ID: id, Section: section, Comment: comment, Verdict: Valid, Image: archiveImage(files...)}
}

// goodArchives are images with nothing to say against.
func goodArchives() (all []Vector) {
	add := func(id, section, comment string, files ...*tierFile) {
		all = append(all, archive(id, section, comment, files...))
	}
	tier := func(extents int) *tierFile { return newTier("1s.tier", second, extents) }
	first := func() (*tierFile, *extentFile) {
		f := tier(2)
		return f, f.extent(0, 1)
	}

	add("newborn", "14", "as it is made: no extent holds anything", tier(2))
	add("simple", "14", "an extent that is sealed, one that is open, one that is empty; the broken ones are changes of it", newSimple().f)

	f, e := first()
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", allKinds())
	e.shares(0, second, false, nil, share{times: []int64{1000, 2000, 3000}, starts: []uint64{0, 0, 1, 2, 3, 4, 5, uint64(1<<64 - 1)}, fields: kindFields()})
	add("kinds", "16.2", "every kind with every number type; absent values, and those at the edges", f)

	f, e = first()
	e.people(0, person{id: 1}, person{id: 2}, person{id: 3})
	e.schema(0, 1, "a table, DEFLATE", pairOf)
	cohort := func(source uint32, n int) share {
		s := share{source: source}
		var v []uint64
		var g []float64
		for i := range n {
			s.times, v, g = append(s.times, int64(i+1)*1000), append(v, uint64(i)*uint64(source+3)), append(g, 0.5*float64(source))
		}
		s.fields = [][]byte{words(v...), reals(g...)}
		return s
	}
	e.shares(0, second, false, nil, cohort(2, 3), cohort(0, 9), cohort(1, 1))
	add("cohort", "16.1", "three sources of one schema in a block, in another order than their ordinals, with rows of their own; a text deflated with the fixed codes", f)

	f, e = first()
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", one)
	e.shares(0, second, false, nil, tick(0, 1, 2))
	e.schema(1, 0, "scalars", append([]line{{name: "added", help: "later", kind: gaugeK, number: i64N}}, one...))
	grown := tick(0, 3, 2)
	grown.starts, grown.fields = []uint64{2500, 0}, append([][]byte{words(7, absent)}, grown.fields...)
	e.shares(1, second, false, nil, grown)
	e.schema(2, 1, "histograms", []line{{name: "h", kind: histogramK, number: u64N, buckets: 1, min: 0}})
	e.shares(2, second, false, nil, share{times: []int64{1000}, fields: [][]byte{append(words(3), counts([]uint64{0, 2, 0})...)}})
	add("schema-grew", "15.3", "a table that got a series, and a second table", f)

	f, e = first()
	e.people(0, person{id: 1}, person{id: 1, epoch: 1}, person{id: 1, epoch: 1, copy: 1}, person{id: 1, copy: 2, uid: 5})
	e.schema(0, 0, "scalars", one)
	for o := range 4 {
		e.shares(0, second, false, nil, tick(uint32(o), 1+o, 2))
	}
	e.seal()
	add("incarnations", "15.2", "epochs and copies of one segment", f)

	f, e = first()
	e.people(0, person{id: 1}, person{id: 2}, person{id: 3})
	e.schema(0, 0, "scalars", one)
	final, estimated, copied := tick(0, 1, 2), tick(1, 1, 2), tick(2, 1, 2)
	final.flags, estimated.flags, copied.flags = flagFinal, flagEstimated, flagCopied|0x8000
	e.shares(0, second, false, nil, final, estimated, copied)
	add("flags", "16.1", "a final row, last words, copies; a flag that nobody knows", f)

	f = newTier("10s.tier", 10*second, 2)
	e = f.extent(0, 1)
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", allKinds()[:7])
	fold := func(no, base uint64, t int64) share {
		return share{numbers: []uint64{no, no + 1, no + 1}, base: base, times: []int64{t, t + 11_000, t + 11_500}, coverage: []uint64{10, 3, 1}, fields: [][]byte{
			words(10, 11, 12), reals(1, 2, 3), words(1, 2, uint64(1<<64-1)),
			reals(1, none, 3), reals(-1, none, 3), reals(1.5, none, 3), reals(10, none, math.NaN()), words(10, 0, 1),
			words(absent, 5, 6), words(absent, 4, 6), words(absent, 5, 6), reals(none, 14, 6), words(absent, 3, 1),
			words(1, 2, 3), reals(1, 2, 3), reals(1, 2, 3), reals(1, 2, 3), reals(1, 2, 3),
			append(reals(1, 2, 3), counts([]uint64{1, 0, 0, 0, 0, 0}, []uint64{1, 1, 0, 0, 0, 0}, []uint64{1, 1, 1, 0, 0, 0})...)}}
	}
	e.shares(0, 10*second, true, nil, fold(170_000_001, 14, 3000))
	e.shares(0, 10*second, true, nil, fold(170_000_001, 14, 4000))
	e.shares(0, 10*second, true, nil, fold(170_000_004, 28, 31_000))
	g := tier(2)
	h := g.extent(1, 1)
	h.people(0, person{id: 1})
	h.schema(0, 0, "scalars", one)
	h.shares(0, second, false, nil, tick(0, 1, 14))
	add("folded", "19.5", "a home tier and a folded one with coverage, a partial row, a further row of one number; the same base_no twice counts once", f, g)

	f = newTier("5m.tier", 300*second, 2)
	e = f.extent(0, 1)
	e.people(0, person{id: 9, ephemeral: true, labels: [][2]string{{"instance", "ephemeral"}, {"job", "vector"}}})
	e.schema(0, 0, "scalars", one)
	sum := func(no uint64) share {
		return share{numbers: []uint64{5_666_667 + no}, base: no, times: []int64{int64(no) * 300_000}, coverage: []uint64{45}, fields: [][]byte{words(no * 100)}}
	}
	e.shares(0, 300*second, true, []person{{id: 1}, {id: 2, epoch: 1}, {id: 2, epoch: 1, copy: 3}}, sum(1))
	e.shares(0, 300*second, true, nil, sum(2))
	add("ephemeral", "19.6", "an ephemeral source, and those that it took in", f)

	f = newTier("10s.tier", 10*second, 3)
	e = f.extent(0, 1)
	e.setMark(3, 4096)
	e.setMark(4, 64)
	e.seal()
	e = f.extent(1, 2)
	e.setMark(4, 64)
	e.setMark(4, 8192)
	add("marks", "15.4", "marks in a sealed extent, and newer ones in the open one", f)

	f = tier(3)
	for i := range 5 { // extents 0 and 1 are used again
		slot := i % 3
		e = f.extent(slot, uint64(i+1))
		e.people(0, person{id: byte(10 * (i + 1))}, person{id: 99})
		e.schema(0, 0, "scalars", pairOf[:1])
		for k := range 4 - i/2 { // the new ones end before the old ones' last block
			e.shares(0, second, false, nil, tick(0, 100*i+10*k+1, 4), tick(1, 100*i+10*k+1, 4))
		}
		if i < 4 {
			e.seal()
		}
	}
	add("reused", "14.2", "extents that are used again, with what generations 1 and 2 left; the last is open and ends before old blocks, whose checks prove nothing", f)

	f = tier(2)
	e = f.extent(0, 7)
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", one)
	e.shares(0, second, false, nil, tick(0, 5, 3))
	e.seal()
	e = f.extent(1, 4)
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", one)
	e.shares(0, second, false, nil, tick(0, 1, 4))
	e.seal()
	add("generations", "14.3", "as a tier that was made smaller has them: not in the order of slots, and some missing", f)

	f, e = first()
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", one)
	for i, numbers := range [][]uint64{{3, 4, 9}, {10, 11, 12}, {20, 40, 41}} {
		s := share{numbers: numbers, fields: [][]byte{words(numbers...)}}
		for _, n := range numbers {
			s.times = append(s.times, int64(n)*1000+int64(i))
		}
		e.shares(0, second, false, nil, s)
	}
	add("not-dense", "16.2", "numbers with gaps, in a block and between blocks", f)

	f, e = first()
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", one)
	back := func(flags uint16, no int, times ...int64) {
		s := tick(0, no, len(times))
		s.times, s.flags = times, flags
		e.shares(0, second, false, nil, s)
	}
	back(0, 1, 1000, 2000, 3000, 4000)
	back(flagFalling, 5, 5000, 3500, 2500, 3000)
	back(0, 9, 3000, 4000)
	back(flagFalling, 11, 5000, 5000, 1500, 9000)
	add("clock-stepped-back", "19.3", "rows that hide others: times fall between blocks, in blocks, and stand still", f)

	f, e = first()
	e.people(0, person{id: 1}, person{id: 2})
	e.schema(0, 0, "scalars", one)
	e.shares(0, second, false, nil, tick(0, 1, 4), tick(1, 1, 3))
	e.shares(0, second, false, nil, tick(0, 1, 4))
	e.shares(0, second, false, nil, tick(0, 3, 4))
	e.seal()
	e = f.extent(1, 2)
	e.people(0, person{id: 2}, person{id: 1})
	e.schema(0, 0, "scalars", one)
	e.shares(0, second, false, nil, tick(1, 6, 3), tick(0, 3, 2))
	add("duplicates", "19.3", "rows that were written twice and more, in one extent and in two, count once", f)

	f, e = first()
	e.filter = 0
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", one)
	e.shares(0, second, false, nil, tick(0, 1, 4))
	e.seal()
	add("no-filter", "18", "an index with an empty filter", f)

	f, e = first()
	e.people(0, person{id: 1, labels: [][2]string{{"instance", "é"}, {"job", "vector"}, {"none", ""}}})
	e.schema(0, 0, "scalars", []line{{name: "é\n", unit: "µs", help: "\"quoted\\", labels: [][2]string{{"empty", ""}, {"x", "\x7f"}}, kind: counterK, number: u64N}})
	e.shares(0, second, false, nil, tick(0, 1, 1))
	add("texts", "6.4", "UTF-8, and labels whose value is empty", f)

	f, e = first()
	e.people(0, person{id: 1}, person{id: 2})
	e.schema(0, 0, "scalars", []line{{name: "again", kind: counterK, number: u64N}, {name: "again", kind: counterK, number: u64N}})
	s := tick(0, 1, 3)
	s.fields = [][]byte{words(5, absent, absent), words(absent, 1, 2)}
	e.shares(0, second, false, nil, s)
	add("registered-again", "6.1", "one series twice in a schema, retired and registered again", f)

	f, e = first()
	e.people(0, person{id: 1})
	e.schema(0, 0, "integers", []line{{name: "offset", kind: gaugeK, number: i64N}})
	e.schema(1, 1, "reals", []line{{name: "level", kind: gaugeK, number: f64N}})
	e.schema(2, 2, "histograms", []line{{name: "latency", kind: histogramK, number: f64N, buckets: 4, min: 0}})
	var at [3]int
	column := func(schema uint32, n int, hex string) {
		s := tick(0, at[schema]+1, n)
		s.fields = [][]byte{unhex(hex)}
		at[schema] += n
		e.shares(schema, second, false, nil, s)
	}
	for _, c := range []struct {
		n   int
		hex string
	}{{3, "00"}, {2, "10 05"}, {4, "01"}, {5, "12 1c d8 04"}, {4, "34 d0 0f 0a 03 88 08"}, {7, "18 c8 01 02 02 32 03"}, {4, "14 03 02 e4"},
		{16, "44 02 01 27 27 61 93 09 af 01"}, {16, "48 0a 01 01 00 40 08 f4 03"}, {3, "12 07 02"}} { // the last: a bitmap of all
		column(0, c.n, c.hex)
	}
	for _, c := range []struct {
		n   int
		hex string
	}{{2, "00"}, {2, "90 02 32"}, {3, "14 06 02 18"}, {4, "94 01 9e 06 02 1e"}, {3, "94 ff aa d5 aa d5 aa d5 aa d5 7f 02 18"},
		{2, "98 ff ff ff ff ff ff ff ff ff ff 01 ff ff ff ff ff ff ff 8f 80 01 00"}} {
		column(1, c.n, c.hex)
	}
	column(2, 4, "00 03 01 07 3f 3e dc be 47 fe 05")
	column(2, 3, "00 00")
	column(2, 2, "01")
	add("columns", "17.4", "the page's worked examples of columns, as fields of rows", f)

	f = tier(3)
	e = f.extent(0, 1)
	e.people(0, person{id: 1}, person{id: 2}, person{id: 3})
	e.schema(0, 0, "scalars", allKinds())
	e.schema(1, 1, "histograms", allKinds()[6:7])
	e.shares(0, second, false, nil, share{times: []int64{1000, 2000, 3000}, fields: kindFields()})
	e.exemplars(tracePart{source: 0, schema: 0, of: []trace{{no: 1, series: 0, t: 1_500_000_001, value: 3, id: 10}, {no: 2, series: 6, t: 1_499_999_999, value: 0.125, id: 20, root: true}, {no: 5, series: 7, t: 2_000_000_000, value: 1e9, id: 30}}},
		tracePart{source: 0, schema: 1, of: []trace{{no: 3, series: 0, t: 1_600_000_000, value: -2.5, id: 40}}},
		tracePart{source: 2, schema: 1, of: []trace{{no: 64, series: 0, t: -1, value: math.Copysign(0, -1), id: 50}, {no: 65, series: 0, t: 9_000_000_000_000, value: 0, id: 60}}})
	e.exemplars(tracePart{source: 0, schema: 0, of: []trace{{no: 6, series: 1, t: 2_100_000_000, value: 0.25, id: 70}}})
	e.seal()
	e = f.extent(1, 2)
	e.people(0, person{id: 3}, person{id: 1, epoch: 1})
	e.schema(0, 1, "histograms", allKinds()[6:7])
	e.schema(1, 0, "scalars", allKinds())
	e.exemplars(tracePart{source: 0, schema: 0, of: []trace{{no: 65, series: 0, t: 9_000_000_000_000, value: 0, id: 60}, {no: 66, series: 0, t: 9_100_000_000_000, value: 7, id: 80}}},
		tracePart{source: 1, schema: 1, of: []trace{{no: 5, series: 7, t: 2_000_000_000, value: 1e9, id: 30}, {no: 7, series: 7, t: 3_000_000_000, value: 2e9, id: 90}}})
	e.exemplars(tracePart{source: 0, schema: 0, of: []trace{{no: 66, series: 0, t: 9_100_000_000_000, value: 7, id: 80}}})
	add("exemplars", "16.3", "exemplars of counters and histograms, of sources with and without rows, in a sealed extent and an open one, of an epoch and the next; some written twice count once", f)

	// What a crash, and recovery behind it, leave.
	v := newSimple()
	gap := v.open.at
	for i := range 200 {
		v.open.b[gap+i] = byte(i*7 + 1)
	}
	v.open.at += 200
	v.open.shares(0, second, false, nil, tick2(0, 13))
	all = append(all, Vector{ID: "gap", Section: "19.3", Comment: "garbage between blocks, and a good block behind it", Verdict: NoBlock, Rule: "no block", Image: archiveImage(v.f)})
	v = newSimple()
	v.open.index()
	add("index-without-trailer", "19.3", "the power went while an extent was sealed: an index, no trailer", v.f)
	v = newSimple()
	v.open.seal()
	add("sealed-last", "19.2", "the power went before the next extent was begun", v.f)

	f = tier(3)
	for i := range 2 {
		e = f.extent(i, uint64(i+1))
		e.people(0, person{id: 1})
		at := e.schema(0, 0, "scalars", one)
		e.shares(0, second, false, nil, tick(0, 10*i+1, 2))
		e.seal()
		if i == 0 {
			e.b[at+64+30] ^= 1
		}
	}
	all = append(all, Vector{ID: "schema-of-another-extent", Section: "15.3", Comment: "a sealed extent's schema is broken, another one's has the same hash: no row is lost", Verdict: Skip, Rule: "schema: want body_check", Image: archiveImage(f)})

	f, e = first()
	e.people(0, person{id: 1})
	e.schema(0, 0, "scalars", one)
	e.shares(0, second, false, nil, tick(0, 1, 2))
	e.sources[0].labels = e.sources[0].labels[:0]
	e.seal()
	all = append(all, Vector{ID: "index-contradicts", Section: "18", Comment: "an index without its source's labels, all checks right: what it leaves out is not found by it, and is there", Verdict: Ignore, Rule: "contradicts", Image: archiveImage(f)})

	f, g = newSimple().f, newTier("10s.tier", 10*second, 2)
	clear(g.b)
	add("unfinished-tier", "14.1", "a second tier's file whose header was never written", f, g)
	return all
}

// tick2 is a row of newSimple's schema.
func tick2(source uint32, no uint64) share {
	return share{source: source, times: []int64{int64(no) * 1000}, numbers: []uint64{no}, fields: [][]byte{words(no), reals(1)}}
}
