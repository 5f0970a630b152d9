// Package canon says what a segment's image, and an archive, means, in the canonical text of
// spec/vectors/README.md, so that readers in different languages can be held
// against one another line by line. It is for tests and the vectors. Of segments it knows
// nothing but package layout; archives it sees as package archive shows them.
package canon

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/shmts/shmts/layout"
)

// Dump writes the canonical text of a segment's whole image. image is only
// read; its memory need not be aligned. A segment that FORMAT.md refuses gives
// layout's error and no text.
func Dump(out io.Writer, image []byte) error {
	w := make([]uint64, len(image)/8)
	copy(layout.Bytes(w), image)
	h, err := layout.ParseHeader(w, int64(len(image)))
	if err != nil {
		return err
	}
	d := &dump{Writer: bufio.NewWriter(out), w: w, h: h}
	d.header()
	d.control()
	d.descriptors()
	for table := range h.Tables {
		for tier := range int(h.Tables[table].Tiers) {
			d.ring(table, tier)
		}
	}
	for i := range d.series {
		if s := &d.series[i]; s.Life() == layout.SeriesLive {
			d.printf("live %d %s", s.Index, value(s, d.live(s)))
		}
	}
	if h.Exemplars.Count > 0 {
		d.exemplars()
	}
	return d.Flush()
}

type dump struct {
	*bufio.Writer
	w      []uint64
	h      *layout.Header
	c      *layout.Control
	series []layout.SeriesInfo // live and retired
}

func (d *dump) printf(format string, args ...any) { fmt.Fprintf(d, format+"\n", args...) }

func (d *dump) header() {
	h := d.h
	d.printf("shmts %d.%d", h.Major, h.Minor)
	d.printf("size header=%d total=%d", h.HeaderSize, h.TotalSize)
	d.printf("writer %s", fixed(h.Writer[:]))
	d.printf("segment %x", h.SegmentID)
	d.printf("group %x index=%d", h.GroupID, h.GroupIndex)
	d.printf("boot %x", h.BootID)
	d.printf("birth unix=%d mono=%d error=%d", h.BirthUnix, h.BirthMono, h.BirthError)
	d.printf("process pid=%d uid=%d pid_ns=%d", h.Pid, h.UID, h.PidNs)
	d.printf("flags flags=%d compat=%d", h.Flags, h.Compat)
	if h.ShadowOf != [16]byte{} {
		d.printf("shadow of=%x", h.ShadowOf)
	}
	for _, p := range h.Labels {
		d.printf("label %s", pair(p))
	}
	for _, p := range h.Attributes {
		d.printf("attribute %s", pair(p))
	}
	for i := range h.Tables {
		t := &h.Tables[i]
		d.printf("table %d %s", i, fixed(t.Name[:]))
		d.printf("room %d lanes=%d row_cells=%d lane_cells=%d shared_cells=%d series=%d",
			i, t.Lanes, t.RowCells, t.LaneCells, t.SharedCells, t.SeriesCapacity)
		for j := range int(t.Tiers) {
			d.printf("tier %d %d step=%d rows=%d", i, j, t.Tier[j].Step, t.Tier[j].Rows)
		}
	}
}

func (d *dump) control() {
	h := d.h
	c := *layout.View[layout.Control](d.w, h.Control.Offset)
	d.c = &c
	if c.State != layout.StateClosed {
		c.State = layout.StateLive
	}
	c.SeriesUsed = min(c.SeriesUsed, h.Series.Count)
	d.printf("control state=%d epoch=%d heartbeat=%d ticks=%d clock_offset=%d", c.State, c.Epoch, c.Heartbeat, c.Ticks, c.ClockOffset)
	d.printf("lost dropped_series=%d overflow_threads=%d rejected_records=%d fork_losses=%d",
		c.DroppedSeries, c.OverflowThreads, c.RejectedRecords, c.ForkLosses)
	d.printf("used series=%d heap=%d", c.SeriesUsed, min(uint64(c.HeapUsed), h.Heap.Length))
	for i := range h.Tables {
		t, tc := &h.Tables[i], &c.Table[i]
		heads := make([]string, t.Tiers)
		for j := range heads {
			heads[j] = strconv.FormatUint(tc.Head[j], 10)
		}
		d.printf("open %d row=%d heads=%s", i, tc.OpenRow, strings.Join(heads, ","))
		d.printf("cells %d row=%d lane=%d shared=%d changes=%d", i, min(tc.RowCellsUsed, t.RowCells),
			min(tc.LaneCellsUsed, t.LaneCells), min(tc.SharedCellsUsed, t.SharedCells), tc.Changes)
	}
}

func (d *dump) descriptors() {
	h := d.h
	heap := layout.Bytes(d.w)[h.Heap.Offset:][:h.Heap.Length]
	for i := range int(d.c.SeriesUsed) {
		s := layout.View[layout.Series](d.w, h.Series.Offset+uint64(i)*uint64(h.Series.ElementSize))
		life := "live"
		switch s.Life() {
		case layout.SeriesFree, layout.SeriesFilling:
			continue
		case layout.SeriesRetired:
			life = "retired"
		case layout.SeriesLive:
		default:
			d.printf("skip series %d state", i)
			continue
		}
		if s.Check(h, i) != nil {
			d.printf("skip series %d descriptor", i)
			continue
		}
		info, err := s.CutStrings(heap[s.Strings:][:s.StringsLength()], i)
		if err != nil {
			d.printf("skip series %d strings", i)
			continue
		}
		labels := make([]string, len(info.Labels))
		for k, p := range info.Labels {
			labels[k] = pair(p)
		}
		shape := ""
		if s.Kind == layout.Histogram {
			shape = fmt.Sprintf(" scale=%d bucket_min=%d buckets=%d", s.Scale, s.BucketMin, s.Buckets)
		}
		d.printf("series %d %s generation=%d %v %v %s{%s} unit=%s help=%s flags=%d table=%d born_unix=%d born_row=%d retired_row=%d%s",
			i, life, s.Generation(), s.Kind, s.Number, text(info.Name), strings.Join(labels, ","), text(info.Unit), text(info.Help),
			s.Flags, s.Table, s.BornUnix, s.BornRow, s.RetiredRow, shape)
		d.series = append(d.series, info)
	}
}

// ring shows the valid rows of a tier in their order, then what was skipped.
func (d *dump) ring(table, tier int) {
	t := &d.h.Tables[table]
	ring, id := &t.Tier[tier], d.h.RowIdentity(table, tier)
	type found struct {
		h     layout.RowHeader
		cells []uint64
	}
	rows := map[uint64]found{}
	var numbers []uint64
	var skips []string
	for slot := range uint64(ring.Rows) {
		at := (ring.Offset + slot*uint64(ring.RowStride)) / 8
		words := d.w[at:][:layout.RowWords+int(t.RowCells)]
		raw := layout.View[layout.RowHeader](words, 0)
		why := ""
		switch {
		case raw.RowNo == 0:
			continue
		case ring.Slot(raw.RowNo) != slot:
			why = "number"
		case raw.Cells > t.RowCells:
			why = "cells"
		default:
			h, cells, verdict := layout.DecodeRow(words, id, raw.RowNo)
			if verdict == layout.RowOK {
				rows[h.RowNo] = found{h, cells}
				numbers = append(numbers, h.RowNo)
				continue
			}
			why = "checksum"
		}
		skips = append(skips, fmt.Sprintf("skip row %d %d slot %d %s", table, tier, slot, why))
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		h, cells := rows[n].h, rows[n].cells
		d.printf("row %d %d %d base=%d begin=%d t=%d mono=%d epoch=%d flags=%d cells=%d",
			table, tier, n, h.BaseRow, h.TBegin, h.T, h.TMono, h.Epoch, h.Flags, h.Cells)
		for i := range d.series {
			if s := &d.series[i]; int(s.Table) == table && s.In(h.BaseRow, len(cells)) {
				d.printf("value %d %s", s.Index, value(s, cells[s.RowCell:]))
			}
		}
	}
	for _, s := range skips {
		d.printf("%s", s)
	}
}

// live makes of a series' live cells what a row would hold. FORMAT.md 7.
func (d *dump) live(s *layout.SeriesInfo) []uint64 {
	t := &d.h.Tables[s.Table]
	lane := func(k, cell uint32) uint64 {
		return d.w[(t.LanesOffset+uint64(k)*uint64(t.LaneStride))/8+uint64(s.LaneCell+cell)]
	}
	integer := func(cell uint32) (sum uint64) {
		for k := range t.Lanes + 1 {
			sum += lane(k, cell)
		}
		return sum
	}
	float := func(cell uint32) uint64 {
		sum := math.Float64frombits(lane(0, cell))
		for k := range t.Lanes {
			sum += math.Float64frombits(lane(k+1, cell))
		}
		return math.Float64bits(sum)
	}
	additive := func(cell uint32) uint64 {
		if s.Number == layout.F64 {
			return float(cell)
		}
		return integer(cell)
	}
	switch s.Kind {
	case layout.Counter, layout.UpDown:
		return []uint64{additive(0)}
	case layout.Gauge:
		return []uint64{d.w[t.SharedOffset/8+uint64(s.SharedCell)]}
	case layout.Stat:
		row := d.c.Table[s.Table].OpenRow
		slot := uint32(layout.StatWindow + layout.StatWindowCells*(row%2))
		least, greatest := layout.UnsetF64, layout.UnsetF64
		for k := range t.Lanes + 1 {
			if lane(k, slot+layout.WindowTag) != row {
				continue
			}
			least = fold(least, lane(k, slot+layout.WindowMin), func(x, y float64) bool { return x < y })
			greatest = fold(greatest, lane(k, slot+layout.WindowMax), func(x, y float64) bool { return x > y })
		}
		return []uint64{integer(layout.StatCount), float(layout.StatSum), d.w[t.SharedOffset/8+uint64(s.SharedCell)], least, greatest}
	default: // histogram
		cells := []uint64{additive(layout.HistSum)}
		for c := range uint32(s.Buckets) + 2 {
			cells = append(cells, integer(layout.HistZero+c))
		}
		return cells
	}
}

// exemplars shows the valid exemplars in their order, then what was skipped. FORMAT.md 8.4.
func (d *dump) exemplars() {
	h, given := d.h, d.c.Exemplars
	count := uint64(h.Exemplars.Count)
	d.printf("exemplars slots=%d given=%d dropped=%d", count, given, d.c.ExemplarsDropped)
	good := map[uint64]*layout.Exemplar{}
	var numbers []uint64
	var skips []string
	for slot := range count {
		words := d.w[(h.Exemplars.Offset+slot*uint64(h.Exemplars.ElementSize))/8:][:layout.ExemplarWords]
		x := layout.View[layout.Exemplar](words, 0)
		n, why := x.Number(), ""
		_, verdict := layout.DecodeExemplar(words, h.ExemplarIdentity(), n)
		switch {
		case x.Seq == 0:
			continue
		case n == 0 || (n-1)%count != slot || n > given || given-n >= count:
			why = "number"
		case x.Seq%2 != 0:
			why = "writing"
		case verdict != layout.ExemplarOK:
			why = "check"
		case !slices.ContainsFunc(d.series, func(s layout.SeriesInfo) bool {
			return s.Index == int(x.Series) && s.Generation() == x.Generation && (s.Kind == layout.Counter || s.Kind == layout.Histogram)
		}):
			why = "series"
		case x.TraceID == [16]byte{}:
			why = "trace"
		default:
			good[n] = x
			numbers = append(numbers, n)
			continue
		}
		skips = append(skips, fmt.Sprintf("skip exemplar slot %d %s", slot, why))
	}
	slices.Sort(numbers)
	for _, n := range numbers {
		x := good[n]
		d.printf("exemplar %d series=%d value=%s t=%d trace=%x span=%x", n, x.Series, number(layout.F64, math.Float64bits(x.Value)), x.T, x.TraceID, x.SpanID)
	}
	for _, s := range skips {
		d.printf("%s", s)
	}
}

// fold takes v where it is a number and better than, or the first after, unset.
func fold(now, v uint64, better func(x, y float64) bool) uint64 {
	x := math.Float64frombits(v)
	if math.IsNaN(x) || now != layout.UnsetF64 && !better(x, math.Float64frombits(now)) {
		return now
	}
	return v
}

func value(s *layout.SeriesInfo, cells []uint64) string {
	switch s.Kind {
	case layout.Counter, layout.UpDown:
		return number(s.Number, cells[0])
	case layout.Gauge:
		return unset(s.Number, cells[0])
	case layout.Stat:
		return fmt.Sprintf("count=%d sum=%s last=%s min=%s max=%s", cells[layout.StatCount], number(layout.F64, cells[layout.StatSum]),
			unset(layout.F64, cells[layout.StatLast]), unset(layout.F64, cells[layout.StatMin]), unset(layout.F64, cells[layout.StatMax]))
	default: // histogram
		var buckets []string
		for i, n := range cells[layout.HistBuckets:][:s.Buckets] {
			if n != 0 {
				buckets = append(buckets, fmt.Sprintf("%d:%d", int(s.BucketMin)+i, n))
			}
		}
		return fmt.Sprintf("sum=%s zero=%d above=%d buckets=%s", number(s.Number, cells[layout.HistSum]), cells[layout.HistZero],
			cells[layout.HistBuckets+int(s.Buckets)], strings.Join(buckets, ","))
	}
}

func unset(n layout.Number, bits uint64) string {
	if bits == n.Unset() {
		return "unset"
	}
	return number(n, bits)
}

func number(n layout.Number, bits uint64) string {
	switch n {
	case layout.U64:
		return strconv.FormatUint(bits, 10)
	case layout.I64:
		return strconv.FormatInt(int64(bits), 10)
	}
	switch f := math.Float64frombits(bits); {
	case math.IsNaN(f):
		return fmt.Sprintf("nan:%016x", bits)
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	default:
		return strconv.FormatFloat(f, 'g', 17, 64)
	}
}

func pair(p layout.Pair) string { return text(p.Name) + "=" + text(p.Value) }

func fixed(b []byte) string {
	s, _, _ := strings.Cut(string(b), "\x00")
	return text(s)
}

func text(s string) string {
	b := []byte{'"'}
	for i := range len(s) {
		if c := s[i]; c >= 0x20 && c < 0x7f && c != '"' && c != '\\' {
			b = append(b, c)
		} else {
			b = append(append(b, `\x`...), hex.EncodeToString([]byte{c})...)
		}
	}
	return string(append(b, '"'))
}
