package vectors

import (
	"math"
	"strings"
	"time"

	"github.com/shmts/shmts/layout"
)

// want is a series before it has its place.
func want(kind layout.Kind, number layout.Number, name string, labels ...layout.Pair) layout.SeriesInfo {
	return layout.SeriesInfo{Series: layout.Series{Kind: kind, Number: number}, Name: name, Labels: labels}
}

func described(s layout.SeriesInfo, unit, help string) layout.SeriesInfo {
	s.Unit, s.Help = unit, help
	return s
}

func nonNegative(s layout.SeriesInfo) layout.SeriesInfo {
	s.Flags |= layout.FlagNonNegative
	return s
}

func bucketed(s layout.SeriesInfo, r layout.BucketRange) layout.SeriesInfo {
	s.Scale, s.BucketMin, s.Buckets = int8(r.Scale), int16(r.Min), uint16(r.Count)
	return s
}

func inTable(s layout.SeriesInfo, table int) layout.SeriesInfo {
	s.Table = uint16(table)
	return s
}

// room is a table that fits the series exactly.
func room(name string, lanes int, tiers []layout.TierSchema, series ...layout.SeriesInfo) layout.TableSchema {
	t := layout.TableSchema{Name: name, Lanes: lanes, Tiers: tiers}
	for _, s := range series {
		t.Add(1, s.Kind, int(s.Buckets))
	}
	return t
}

func steps(s ...layout.TierSchema) []layout.TierSchema { return s }

func step(d time.Duration, rows int) layout.TierSchema { return layout.TierSchema{Step: d, Rows: rows} }

func label(name, value string) layout.Pair { return layout.Pair{Name: name, Value: value} }

// base is the segment that most vectors are a change of: a counter, a gauge, a stat and a histogram
// of four buckets in one table of one lane and two tiers, with three rows and one.
func base() *segment {
	series := []layout.SeriesInfo{
		want(layout.Counter, layout.U64, "c", label("k", "v")),
		want(layout.Gauge, layout.F64, "g"),
		want(layout.Stat, layout.F64, "s"),
		bucketed(want(layout.Histogram, layout.F64, "h"), layout.BucketRange{Scale: 0, Min: 0, Count: 4}),
	}
	g := newSegment(0x10, layout.Schema{Series: 4, HeapBytes: 64,
		Tables: []layout.TableSchema{room("t", 1, steps(step(time.Second, 4), step(2*time.Second, 2)), series...)}})
	for _, s := range series {
		g.register(s, false)
	}
	for i := range 3 {
		g.work(float64(i + 1))
		g.tick(time.Second)
	}
	g.work(9)
	return g
}

// work records something in each of base's series.
func (g *segment) work(v float64) {
	g.add(g.infos[0], 0, int64(v))
	g.add(g.infos[0], 1, 1)
	g.set(g.infos[1], bitsOf(v/2))
	g.record(g.infos[2], 0, v)
	g.record(g.infos[3], 0, v)
}

func (g *segment) vector(id, section, comment string) Vector {
	return Vector{ID: id, Section: section, Comment: comment, Verdict: Valid, Image: image(g.w)}
}

// good are images as writers leave them.
func good() []Vector {
	var all []Vector
	newborn := newSegment(0x01, layout.Schema{Series: 1, HeapBytes: 64,
		Tables: []layout.TableSchema{room("t", 1, steps(step(time.Second, 2)), want(layout.Counter, layout.U64, "c"))}})
	all = append(all, newborn.vector("newborn", "10.1", "as it gets its name: no series, no rows"))
	all = append(all, base().vector("base", "4", "one table, two tiers, a series of four of the kinds; the broken ones are changes of it"))
	all = append(all, kinds().vector("kinds", "6.2", "every kind with every number type, over two lanes and the overflow lane; values that were never set"))
	all = append(all, floats().vector("floats", "7", "f64 sums in the order of lanes 0 to n, and values at the edges of f64 and i64"))
	all = append(all, wrapped().vector("wrapped", "8.1", "two tables of three tiers and one; rings that have gone round; folded min and max"))
	all = append(all, buckets().vector("buckets", "9", "values at the bounds of buckets, below and above the range, at scales 0, 3 and 6"))
	all = append(all, texts().vector("texts", "6.4", "names, labels, unit and help at their maxima, empty, and with bytes to be escaped"))

	g := base()
	g.close(100 * time.Millisecond)
	all = append(all, g.vector("closed", "10.6", "closed by its writer: a final row in every tier, between the steps"))

	g = base()
	slot := g.slot(0, 0, 4) // as 10.3 has it after its second store, with a part of the others
	slot[0]++
	slot[1], slot[2], slot[8] = 4, slot[2]+1, 77
	all = append(all, g.vector("killed-inside-row", "10.3", "the writer died inside a row: seq odd, the checksum does not hold; the others are good"))

	g = base()
	g.slot(0, 0, 2)[0]++
	v := g.vector("odd-seq-whole-row", "8.2", "seq odd and all words stored: good in a copy, to be skipped in place")
	v.Verdict, v.Rule = Ignore, "seq"
	all = append(all, v)

	all = append(all, reused(false).vector("cells-reused", "10.2", "a series retired and its cells used again: no row shows another series' past"))
	all = append(all, reused(true).vector("descriptor-reused", "10.2", "a descriptor used again under a new generation, once its rows had left the ring"))

	g = base()
	g.epoch, g.control().Epoch = 1, 0x10001
	g.tick(time.Second)
	all = append(all, g.vector("epoch", "10.9", "rows before and after the epoch moved; a row has the low 16 bits"))

	g = newSegment(0x60, layout.Schema{Series: 1, HeapBytes: 64, Sampled: true,
		Tables: []layout.TableSchema{room("t", 2, nil, want(layout.Counter, layout.U64, "c"))}})
	g.add(g.register(want(layout.Counter, layout.U64, "c"), false), 1, 42)
	all = append(all, g.vector("sampled", "10.8", "never ticks: a table without tiers, an empty section of rows, live cells"))

	all = append(all, shadow().vector("shadow", "10.8", "the shadow of the one before: all but segment_id, flags and tiers as there, no live cells; its writer has died, and its last words are a row"))

	g = base()
	g.h.GroupIndex = 1
	g.h.GroupID[0] ^= 0xff
	g.seal()
	all = append(all, g.vector("grown", "10.7", "the second segment of an incarnation"))
	return all
}

// shadow is what a daemon keeps of the vector "sampled": two rows, and the last words as a third one.
func shadow() *segment {
	g := newSegment(0x61, layout.Schema{Series: 1, HeapBytes: 64,
		Tables: []layout.TableSchema{room("t", 1, steps(step(time.Second, 4)), want(layout.Counter, layout.U64, "c"))}})
	for i := range g.h.GroupID {
		g.h.GroupID[i] = 0x60 + byte(i)*17
	}
	g.h.ShadowOf = g.h.GroupID
	g.seal()
	c := g.register(want(layout.Counter, layout.U64, "c"), false)
	for _, n := range []int64{30, 11} {
		g.add(c, 0, n)
		g.tick(time.Second)
	}
	g.add(c, 0, 1)
	g.close(400 * time.Millisecond)
	h := g.last[0][0]
	h.Flags = layout.RowEstimated
	layout.PublishRow(g.slot(0, 0, h.RowNo), g.h.RowIdentity(0, 0), &h, []uint64{42})
	*g.lane(c, 0, 0) = 0 // only the daemon of these vectors records at all
	return g
}

func kinds() *segment {
	shape := layout.BucketRange{Scale: 1, Min: -2, Count: 6}
	series := []layout.SeriesInfo{
		described(want(layout.Counter, layout.U64, "requests", label("code", "200"), label("method", "GET")), "{request}", "Requests served."),
		want(layout.Counter, layout.F64, "cpu.time"),
		want(layout.UpDown, layout.I64, "queue"),
		want(layout.Gauge, layout.F64, "temperature"),
		want(layout.Gauge, layout.I64, "offset"),
		nonNegative(described(want(layout.Stat, layout.F64, "size"), "By", "")),
		bucketed(described(want(layout.Histogram, layout.F64, "latency"), "s", "Time to answer."), shape),
		bucketed(want(layout.Histogram, layout.U64, "batch"), shape),
		want(layout.Gauge, layout.F64, "never.f64"),
		want(layout.Gauge, layout.I64, "never.i64"),
		want(layout.Stat, layout.F64, "never.stat"),
		bucketed(want(layout.Histogram, layout.F64, "never.histogram"), shape),
	}
	g := newSegment(0x20, layout.Schema{Series: len(series) + 2, HeapBytes: 512,
		Labels:     []layout.Pair{label("instance", "host-1:9100"), label("job", "vectors"), label("zone", "a")},
		Attributes: []layout.Pair{label("service.version", "1.0"), label("host.arch", "amd64")},
		Tables:     []layout.TableSchema{room("everything", 2, steps(step(time.Second, 4)), series...)}})
	var s []*layout.SeriesInfo
	for _, info := range series {
		s = append(s, g.register(info, false))
	}
	for i := range 3 {
		v := int64(i + 1)
		for lane := range 3 {
			g.add(s[0], lane, v*10+int64(lane))
			g.addFloat(s[1], lane, float64(v)/8)
			g.add(s[2], lane, 2-v*int64(lane))
			if i != 1 { // row 2's windows are empty
				g.record(s[5], lane, float64(v)*1.5+float64(lane))
			}
			g.record(s[6], lane, math.Ldexp(1, i-lane))
			g.recordInt(s[7], lane, uint64(i*lane))
		}
		g.set(s[3], bitsOf(-float64(v)/4))
		g.set(s[4], uint64(-v))
		if i < 2 {
			g.tick(time.Second)
		}
	}
	return g
}

func floats() *segment {
	sum := want(layout.Counter, layout.F64, "sum")
	f := func(name string) layout.SeriesInfo { return want(layout.Gauge, layout.F64, name) }
	names := []string{"largest", "least", "subnormal", "negative.zero", "infinite", "negative.infinite", "nan", "nan.unset", "tenth", "big"}
	values := []uint64{bitsOf(math.MaxFloat64), bitsOf(0x1p-1022), 1, 1 << 63, 0x7ff << 52, 0xfff << 52, 0x7ff8000000000001,
		layout.UnsetF64, bitsOf(0.1), bitsOf(1e22)}
	integers := []uint64{1<<63 - 1, 1<<63 + 1, 1 << 63}
	series := []layout.SeriesInfo{sum, want(layout.Counter, layout.U64, "modulo")}
	for _, n := range names {
		series = append(series, f(n))
	}
	for _, n := range []string{"i.most", "i.least", "i.unset"} {
		series = append(series, want(layout.Gauge, layout.I64, n))
	}
	g := newSegment(0x30, layout.Schema{Series: len(series), HeapBytes: 512,
		Tables: []layout.TableSchema{room("t", 3, steps(step(time.Second, 2)), series...)}})
	for i, info := range series {
		s := g.register(info, false)
		switch {
		case i == 0: // another order gives another last digit: 0.1+0.2+0.3+1e-17, 0.6 the other way round
			for lane, v := range []float64{0.1, 0.2, 0.3, 1e-17} {
				g.addFloat(s, lane, v)
			}
		case i == 1: // 2^64 + 4
			for lane := range 4 {
				*g.lane(s, lane, 0) = 1<<62 + 1
			}
		case i-2 < len(values):
			g.set(s, values[i-2])
		default:
			g.set(s, integers[i-2-len(values)])
		}
	}
	g.tick(time.Second)
	return g
}

func wrapped() *segment {
	series := []layout.SeriesInfo{
		want(layout.Counter, layout.U64, "c"),
		want(layout.Stat, layout.F64, "s"),
		inTable(want(layout.UpDown, layout.I64, "slow"), 1),
	}
	g := newSegment(0x40, layout.Schema{Series: 3, HeapBytes: 64, Tables: []layout.TableSchema{
		room("fast", 1, steps(step(100*time.Millisecond, 3), step(300*time.Millisecond, 4), step(900*time.Millisecond, 2)), series[:2]...),
		room("slow", 1, steps(step(time.Second, 3)), series[2]),
	}})
	var s []*layout.SeriesInfo
	for _, info := range series {
		s = append(s, g.register(info, false))
	}
	for i := range 40 {
		g.add(s[0], 0, int64(i))
		if i%7 != 3 { // some windows are empty
			g.record(s[1], i%2, float64(i*37%41)-20)
		}
		g.add(s[2], 0, int64(1-i%3))
		d := 100 * time.Millisecond
		if i == 30 {
			d = 750 * time.Millisecond // a pause: one row a tier, however long
		}
		g.tick(d)
	}
	return g
}

func buckets() *segment {
	var series []layout.SeriesInfo
	ranges := []layout.BucketRange{{Scale: 0, Min: -3, Count: 6}, {Scale: 3, Min: -4, Count: 20}, {Scale: 6, Min: -2, Count: 70}}
	for i, r := range ranges {
		series = append(series, bucketed(want(layout.Histogram, layout.F64, "h"+string(rune('0'+r.Scale))), ranges[i]))
	}
	g := newSegment(0x50, layout.Schema{Series: 3, HeapBytes: 64,
		Tables: []layout.TableSchema{room("t", 1, steps(step(10*time.Second, 2)), series...)}})
	values := []float64{0, math.Copysign(0, -1), 5e-324, 0x1p-1022, 0.125, 0.5, 1, math.Nextafter(1, 2), math.Nextafter(1, 0),
		math.Sqrt2, math.Nextafter(math.Sqrt2, 2), math.Nextafter(math.Sqrt2, 1), 2, math.Nextafter(2, 3), 8, math.Nextafter(8, 9), 1e300}
	for _, info := range series {
		s := g.register(info, false)
		for _, v := range values {
			g.record(s, 0, v)
		}
	}
	g.tick(10 * time.Second)
	return g
}

func texts() *segment {
	var many []layout.Pair
	for i := range layout.MaxPairs {
		many = append(many, label("l"+string(rune('A'+i/26))+string(rune('a'+i%26)), "v"))
	}
	series := []layout.SeriesInfo{
		described(want(layout.Counter, layout.U64, strings.Repeat("n", layout.MaxName)), strings.Repeat("u", layout.MaxUnit), strings.Repeat("h", layout.MaxHelp)),
		want(layout.Counter, layout.U64, "n", label(strings.Repeat("l", layout.MaxLabelName), strings.Repeat("v", layout.MaxLabelValue))),
		want(layout.Counter, layout.U64, "many", many...),
		described(want(layout.Counter, layout.U64, "größe_\"a\\b\"", label("é", "日本\x00\n"), label("e", "~\x7f ")), "°C", "line\nline\ttab"),
	}
	g := newSegment(0x70, layout.Schema{Series: 4, HeapBytes: 4096,
		Tables: []layout.TableSchema{room("sixteen bytes 16", 1, steps(step(time.Hour, 2)), series...)}})
	copy(g.h.Writer[:], "a name of just thirty-two bytes!")
	g.seal()
	for _, s := range series {
		g.register(s, false)
	}
	return g
}

// reused stops when a series lies in the cells of another, or goes on until one has the descriptor of another.
func reused(descriptor bool) *segment {
	first, second := want(layout.Counter, layout.U64, "first"), want(layout.Counter, layout.U64, "second")
	third := want(layout.Counter, layout.U64, "third")
	g := newSegment(0x80, layout.Schema{Series: 3, HeapBytes: 64,
		Tables: []layout.TableSchema{room("t", 1, steps(step(time.Second, 8)), first, second)}})
	a := g.register(first, false)
	b := g.register(second, false)
	g.add(a, 0, 1000)
	g.tick(time.Second) // row 1
	g.retire(a)
	g.add(a, 0, 1)
	for range 3 { // row 2 still holds it, 3 does not; open_row 5 is retired_row 3 + 2
		g.tick(time.Second)
	}
	c := third
	c.Index, c.RowCell, c.LaneCell = len(g.infos), a.RowCell, a.LaneCell
	g.infos = append(g.infos, nil)
	s := g.register(c, true)
	g.add(s, 0, 7)
	g.add(b, 0, 5)
	g.tick(time.Second) // row 5
	if !descriptor {
		return g
	}
	g.retire(b)
	for range 9 { // row 6 is out of the ring
		g.tick(time.Second)
	}
	d := want(layout.UpDown, layout.I64, "fourth")
	d.Index, d.RowCell, d.LaneCell, d.State = b.Index, b.RowCell, b.LaneCell, layout.NewState(1, layout.SeriesFree)
	g.add(g.register(d, true), 0, -3)
	g.tick(time.Second)
	return g
}
