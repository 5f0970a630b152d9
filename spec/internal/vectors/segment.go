package vectors

import (
	"math"
	"time"

	"github.com/shmts/shmts/layout"
)

// Births of all images: 2023-11-14 22:13:20 UTC, 1,000 s after boot.
const (
	birthUnix = 1_700_000_000_000_000_000
	birthMono = 1_000_000_000_000
)

// A segment is a small, slow writer: FORMAT.md 6, 7 and 10.4 word by word, for
// one goroutine and times that the caller tells.
type segment struct {
	h    *layout.Header
	w    []uint64
	mono int64 // now

	infos  []*layout.SeriesInfo
	heap   uint32
	used   [layout.MaxTables]layout.Cells
	last   [layout.MaxTables][layout.MaxTiers]layout.RowHeader
	passed [layout.MaxTables][layout.MaxTiers]int64 // mono time of the tier's last row, or birth
	folds  map[[2]int]*[2]float64                   // (series, tier): min and max since the tier's last row
	sums   map[int]float64                          // series: the non-negative f64 sum published last
	epoch  uint16
}

// newSegment is born with an id that begins with the byte given.
func newSegment(id byte, schema layout.Schema) *segment {
	if schema.Labels == nil {
		schema.Labels = []layout.Pair{{Name: "job", Value: "vector"}, {Name: "instance", Value: "one"}}
	}
	h, err := layout.NewHeader(schema)
	if err != nil {
		panic(err)
	}
	for i := range h.SegmentID {
		h.SegmentID[i] = id + byte(i)*17
		h.BootID[i] = 0xb0 + byte(i)
	}
	h.GroupID = h.SegmentID
	h.BirthUnix, h.BirthMono, h.BirthError = birthUnix, birthMono, 250
	h.Pid, h.UID, h.PidNs = 4242, 1000, 4026531836
	copy(h.Writer[:], "vectors 1.0")
	g := &segment{h: h, w: make([]uint64, h.TotalSize/8), mono: birthMono,
		folds: map[[2]int]*[2]float64{}, sums: map[int]float64{}}
	g.seal()
	h.InitControl(g.w)
	for t := range h.Tables {
		for tier := range layout.MaxTiers {
			g.last[t][tier].T = birthUnix
			g.passed[t][tier] = birthMono
		}
	}
	return g
}

// seal encodes the header anew, after a change of it.
func (g *segment) seal() { g.h.Encode(g.w) }

func (g *segment) control() *layout.Control {
	return layout.View[layout.Control](g.w, g.h.Control.Offset)
}

func (g *segment) descriptor(index int) *layout.Series {
	return layout.View[layout.Series](g.w, g.h.Series.Offset+uint64(index)*uint64(g.h.Series.ElementSize))
}

// register puts a series behind the others: in new cells, or in those that s names when reuse is set.
func (g *segment) register(s layout.SeriesInfo, reuse bool) *layout.SeriesInfo {
	c, u := s.Kind.Cells(int(s.Buckets)), &g.used[s.Table]
	if !reuse {
		s.Index = len(g.infos)
		s.RowCell = uint32(u.Row)
		if c.Lane > 0 {
			s.LaneCell = uint32(u.Lane)
		}
		if c.Shared > 0 {
			s.SharedCell = uint32(u.Shared)
		}
		u.Row, u.Lane, u.Shared = u.Row+c.Row, u.Lane+c.Lane, u.Shared+c.Shared
	}
	strings, err := s.AppendStrings(nil)
	if err != nil {
		panic(err)
	}
	ctl := g.control()
	tc := &ctl.Table[s.Table]
	s.Strings = g.heap
	s.BornUnix, s.BornRow = g.unix(), tc.OpenRow
	if err := s.Check(g.h, s.Index); err != nil {
		panic(err)
	}
	for k := range g.lanes(&s) {
		for cell := range c.Lane {
			*g.lane(&s, k, cell) = 0
		}
	}
	if c.Shared > 0 {
		*g.shared(&s) = s.Number.Unset()
	}
	if s.Kind == layout.Stat {
		g.prepare(&s, tc.OpenRow)
	}
	delete(g.sums, s.Index)
	layout.StoreSeries(g.w, g.h, &s, strings)
	g.heap += uint32(len(strings))
	if s.Index == len(g.infos) {
		g.infos = append(g.infos, &s)
	} else {
		g.infos[s.Index] = &s
	}
	ctl.SeriesUsed, ctl.HeapUsed = uint32(len(g.infos)), g.heap
	tc.RowCellsUsed, tc.LaneCellsUsed, tc.SharedCellsUsed = uint32(u.Row), uint32(u.Lane), uint32(u.Shared)
	return &s
}

func (g *segment) retire(s *layout.SeriesInfo) {
	s.RetiredRow = g.control().Table[s.Table].OpenRow + 1
	s.State = layout.NewState(s.Generation(), layout.SeriesRetired)
	layout.RetireSeries(g.w, g.h, s.Index, s.RetiredRow)
}

func (g *segment) unix() int64 { return birthUnix + g.mono - birthMono }

// lanes counts the overflow lane as well: it is the last.
func (g *segment) lanes(s *layout.SeriesInfo) int { return int(g.h.Tables[s.Table].Lanes) + 1 }

func (g *segment) lane(s *layout.SeriesInfo, k, cell int) *uint64 {
	t := &g.h.Tables[s.Table]
	return &g.w[(t.LanesOffset+uint64(k)*uint64(t.LaneStride))/8+uint64(s.LaneCell)+uint64(cell)]
}

func (g *segment) shared(s *layout.SeriesInfo) *uint64 {
	return &g.w[g.h.Tables[s.Table].SharedOffset/8+uint64(s.SharedCell)]
}

func bitsOf(v float64) uint64 { return math.Float64bits(v) }

func addFloat(cell *uint64, v float64) { *cell = bitsOf(math.Float64frombits(*cell) + v) }

// add records n in a lane of a counter of number u64, or an updown.
func (g *segment) add(s *layout.SeriesInfo, lane int, n int64) { *g.lane(s, lane, 0) += uint64(n) }

func (g *segment) addFloat(s *layout.SeriesInfo, lane int, v float64) {
	addFloat(g.lane(s, lane, 0), v)
}

// set stores a gauge.
func (g *segment) set(s *layout.SeriesInfo, bits uint64) { *g.shared(s) = bits }

// record is a record of a stat or histogram of number f64. FORMAT.md 7.1, 9.
func (g *segment) record(s *layout.SeriesInfo, lane int, v float64) {
	if s.Kind == layout.Histogram {
		addFloat(g.lane(s, lane, layout.HistSum), v)
		*g.lane(s, lane, bucketCell(s, v))++
		return
	}
	*g.lane(s, lane, layout.StatCount)++
	addFloat(g.lane(s, lane, layout.StatSum), v)
	g.set(s, bitsOf(v))
	row := g.control().Table[s.Table].OpenRow
	slot := layout.StatWindow + layout.StatWindowCells*int(row%2)
	tag, least, most := g.lane(s, lane, slot+layout.WindowTag), g.lane(s, lane, slot+layout.WindowMin), g.lane(s, lane, slot+layout.WindowMax)
	overflow := lane == g.lanes(s)-1
	switch {
	case overflow && *tag != row:
		panic("the tick prepares the overflow lane")
	case *tag != row || overflow && *least == layout.EmptyWindow(row):
		*tag, *least, *most = row, bitsOf(v), bitsOf(v)
	default:
		*least = bitsOf(min(v, math.Float64frombits(*least)))
		*most = bitsOf(max(v, math.Float64frombits(*most)))
	}
}

// recordInt is a record of a histogram of number u64.
func (g *segment) recordInt(s *layout.SeriesInfo, lane int, v uint64) {
	*g.lane(s, lane, layout.HistSum) += v
	*g.lane(s, lane, bucketCell(s, float64(v)))++
}

func bucketCell(s *layout.SeriesInfo, v float64) int {
	if v <= 0 {
		return layout.HistZero
	}
	i := layout.BucketIndex(int(s.Scale), v) - int(s.BucketMin)
	return layout.HistBuckets + max(-1, min(i, int(s.Buckets)))
}

// prepare makes the overflow lane's window of a row ready. FORMAT.md 7.1.
func (g *segment) prepare(s *layout.SeriesInfo, row uint64) {
	k, slot := g.lanes(s)-1, layout.StatWindow+layout.StatWindowCells*int(row%2)
	*g.lane(s, k, slot+layout.WindowMin) = layout.EmptyWindow(row)
	*g.lane(s, k, slot+layout.WindowMax) = layout.EmptyWindow(row)
	*g.lane(s, k, slot+layout.WindowTag) = row
}

// tick lets d pass and publishes what is due. FORMAT.md 10.4.
func (g *segment) tick(d time.Duration) {
	g.mono += int64(d)
	g.publish(false)
}

// close publishes the final rows. FORMAT.md 10.6.
func (g *segment) close(d time.Duration) {
	g.mono += int64(d)
	g.publish(true)
	g.control().State = layout.StateClosed
}

func (g *segment) publish(final bool) {
	ctl, any := g.control(), false
	for table := range g.h.Tables {
		t, tc := &g.h.Tables[table], &ctl.Table[table]
		due := func(tier int) bool {
			step := t.Tier[tier].Step
			phase := layout.View[layout.Superblock](g.w, 0).SegmentID
			first := uint64(0)
			for i := range 8 {
				first |= uint64(phase[i]) << (8 * i)
			}
			at := func(mono int64) uint64 { return (uint64(mono) + first%step) / step }
			return final || at(g.mono) != at(g.passed[table][tier])
		}
		if t.Tiers == 0 || !due(0) {
			continue
		}
		any = true
		row := tc.OpenRow
		for _, s := range g.infos {
			if s.Kind == layout.Stat && int(s.Table) == table {
				g.prepare(s, row+1)
			}
		}
		tc.OpenRow = row + 1
		cells := make([]uint64, g.used[table].Row)
		for _, s := range g.infos {
			if int(s.Table) == table && (s.Life() == layout.SeriesLive || s.RetiredRow > row) {
				copy(cells[s.RowCell:], g.take(s, row))
			}
		}
		for tier := range int(t.Tiers) {
			if due(tier) {
				g.row(table, tier, row, cells, final)
				tc.Head[tier] = g.last[table][tier].RowNo
			}
		}
	}
	if any {
		ctl.Heartbeat, ctl.ClockOffset = g.mono, g.unix()-g.mono
		ctl.Ticks++
	}
}

// take is a series' part of base row row. It folds min and max into the further tiers.
func (g *segment) take(s *layout.SeriesInfo, row uint64) []uint64 {
	integer := func(cell int) (sum uint64) {
		for k := range g.lanes(s) {
			sum += *g.lane(s, k, cell)
		}
		return sum
	}
	float := func(cell int, monotonic bool) uint64 {
		sum := math.Float64frombits(*g.lane(s, 0, cell))
		for k := 1; k < g.lanes(s); k++ {
			sum += math.Float64frombits(*g.lane(s, k, cell))
		}
		if monotonic {
			sum = max(sum, g.sums[s.Index])
			g.sums[s.Index] = sum
		}
		return bitsOf(sum)
	}
	switch s.Kind {
	case layout.Gauge:
		return []uint64{*g.shared(s)}
	case layout.Stat:
		window := [2]float64{math.NaN(), math.NaN()}
		slot := layout.StatWindow + layout.StatWindowCells*int(row%2)
		for k := range g.lanes(s) {
			if *g.lane(s, k, slot+layout.WindowTag) == row {
				fold(&window, math.Float64frombits(*g.lane(s, k, slot+layout.WindowMin)), math.Float64frombits(*g.lane(s, k, slot+layout.WindowMax)))
			}
		}
		for tier := 1; tier < int(g.h.Tables[s.Table].Tiers); tier++ {
			key := [2]int{s.Index, tier}
			if row == s.BornRow || g.folds[key] == nil {
				g.folds[key] = &[2]float64{math.NaN(), math.NaN()}
			}
			fold(g.folds[key], window[0], window[1])
		}
		return []uint64{integer(layout.StatCount), float(layout.StatSum, s.Flags&layout.FlagNonNegative != 0), *g.shared(s),
			unsetNaN(window[0]), unsetNaN(window[1])}
	case layout.Histogram:
		cells := make([]uint64, s.Buckets+3)
		for i := range cells {
			cells[i] = integer(i)
		}
		if s.Number == layout.F64 {
			cells[layout.HistSum] = float(layout.HistSum, true)
		}
		return cells
	default:
		if s.Number == layout.F64 {
			return []uint64{float(0, true)}
		}
		return []uint64{integer(0)}
	}
}

func fold(window *[2]float64, least, most float64) {
	if !math.IsNaN(least) && !(window[0] <= least) {
		window[0] = least
	}
	if !math.IsNaN(most) && !(window[1] >= most) {
		window[1] = most
	}
}

func unsetNaN(v float64) uint64 {
	if math.IsNaN(v) {
		return layout.UnsetF64
	}
	return bitsOf(v)
}

// row publishes one row of a tier: the base row's cells, with the tier's own min and max.
func (g *segment) row(table, tier int, base uint64, cells []uint64, final bool) {
	own := append([]uint64(nil), cells...)
	for _, s := range g.infos {
		if f := g.folds[[2]int{s.Index, tier}]; f != nil && int(s.Table) == table {
			own[s.RowCell+layout.StatMin], own[s.RowCell+layout.StatMax] = unsetNaN(f[0]), unsetNaN(f[1])
			*f = [2]float64{math.NaN(), math.NaN()}
		}
	}
	last := &g.last[table][tier]
	h := layout.RowHeader{RowNo: last.RowNo + 1, TBegin: last.T, T: g.unix(), TMono: g.mono, BaseRow: base, Epoch: g.epoch}
	if final {
		h.Flags = layout.RowFinal
	}
	layout.PublishRow(g.slot(table, tier, h.RowNo), g.h.RowIdentity(table, tier), &h, own)
	*last = h
	g.passed[table][tier] = g.mono
}

// slot is the words of a row's slot, its whole stride.
func (g *segment) slot(table, tier int, rowNo uint64) []uint64 {
	r := &g.h.Tables[table].Tier[tier]
	return g.w[r.RowOffset(rowNo)/8:][:r.RowStride/8]
}
