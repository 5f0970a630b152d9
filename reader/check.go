package reader

import (
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
)

// maxFindings bounds what Check says of one file.
const maxFindings = 200

// Check reads everything in a segment and says what is wrong with it, in
// FORMAT.md's order: the errors are *layout.CorruptError, *layout.VersionError, or of the system. Of a header that is
// refused it says the first rule broken, and no more. A segment that is being written may be checked: what only its writer's work
// explains is no finding. Neither is what a kill leaves behind: one row half written, where the next one would be,
// and exemplars half written.
func Check(path string) []error {
	fd, err := unix.Open(path, openFlags&^unix.O_NOFOLLOW, 0)
	if err != nil {
		return []error{fmt.Errorf("shmts: open %s: %w", path, err)}
	}
	file := os.NewFile(uintptr(fd), path)
	g, err := openAlone(file, path)
	if err != nil {
		file.Close()
		return []error{err}
	}
	defer g.Close()
	c := &checker{g: g}
	if c.v, err = g.win.use(); err != nil {
		return []error{err}
	}
	defer c.v.done()
	for _, step := range []func() error{c.control, c.series, c.rows, c.exemplars} {
		if err := step(); err != nil {
			return append(c.found, named(err, path))
		}
	}
	return c.found
}

// checker reads with pread, each structure once or, where a writer may be at work, a few times.
type checker struct {
	g     *Segment
	v     view
	found []error
	used  int // descriptors
}

func (c *checker) bad(section string, index int, want string, got any) {
	switch n := len(c.found); {
	case n < maxFindings:
		c.found = append(c.found, &layout.CorruptError{Segment: c.g.path, Section: section, Index: index, Want: want, Got: fmt.Sprint(got)})
	case n == maxFindings:
		c.found = append(c.found, fmt.Errorf("shmts: corrupt segment %s: more than %d findings", c.g.path, maxFindings))
	}
}

// control: FORMAT.md 5.
func (c *checker) control() error {
	g := c.g
	if err := c.v.copy(g.raw[:g.ctlWords], g.h.Control.Offset); err != nil {
		return err
	}
	ctl := layout.View[layout.Control](g.raw[:], 0)
	if ctl.State != layout.StateLive && ctl.State != layout.StateClosed {
		c.bad("control", -1, "state 1 or 2", ctl.State)
	}
	if ctl.SeriesUsed > g.h.Series.Count {
		c.bad("control", -1, fmt.Sprintf("series_used at most %d", g.h.Series.Count), ctl.SeriesUsed)
	}
	if uint64(ctl.HeapUsed) > g.h.Heap.Length {
		c.bad("control", -1, fmt.Sprintf("heap_used at most %d", g.h.Heap.Length), ctl.HeapUsed)
	}
	c.used = int(min(ctl.SeriesUsed, g.h.Series.Count))
	for i := range g.h.Tables {
		t, tc := &g.h.Tables[i], &ctl.Table[i]
		for _, f := range []struct {
			what      string
			got, most uint32
		}{
			{"row_cells_used", tc.RowCellsUsed, t.RowCells},
			{"lane_cells_used", tc.LaneCellsUsed, t.LaneCells},
			{"shared_cells_used", tc.SharedCellsUsed, t.SharedCells},
		} {
			if f.got > f.most {
				c.bad("table control", i, fmt.Sprintf("%s at most %d", f.what, f.most), f.got)
			}
		}
		if tc.OpenRow < 1 || tc.OpenRow > maxRowNo {
			c.bad("table control", i, fmt.Sprintf("open_row 1 to %d", uint64(maxRowNo)), tc.OpenRow)
		} else if h := tc.Head[0]; t.Tiers > 0 && tc.OpenRow != h+1 && tc.OpenRow != h+2 {
			// One more between a tick's second step and its fourth; a copy may fall between head0 and open_row too.
			if !c.moved(i, layout.TctlHead, h) {
				c.bad("table control", i, fmt.Sprintf("open_row %d or %d, as head0 is %d", h+1, h+2, h), tc.OpenRow)
			}
		}
		for k, h := range tc.Head {
			if k >= int(t.Tiers) && h != 0 {
				c.bad("table control", i, fmt.Sprintf("head%d 0, as there are %d tiers", k, t.Tiers), h)
			}
		}
	}
	return nil
}

// moved tells whether a word of a table's control is another than it was.
func (c *checker) moved(table, word int, was uint64) bool {
	var now [1]uint64
	off := c.g.h.Control.Offset + 8*uint64(layout.CtlTables+table*layout.TctlWords+word)
	return c.v.copy(now[:], off) == nil && now[0] != was
}

// run is a series' cells in one place of one table.
type run struct {
	first, end uint32
	index      int
}

// series: FORMAT.md 6.
func (c *checker) series() error {
	g := c.g
	sc, strings := takeScratch(), takeScratch()
	defer func() { sc.give(); strings.give() }()
	places := [3]string{"row_cell", "lane_cell", "shared_cell"}
	runs := make([][3][]run, len(g.h.Tables))
	names := map[string]int{}
	for i := range c.used {
		var image, again [1]layout.Series
		var info layout.SeriesInfo
		settled := false
		for range tries {
			if err := g.copyDescriptors(&c.v, sc, i, image[:]); err != nil {
				return err
			}
			d := &image[0]
			var fault error
			if d.Life() == layout.SeriesLive || d.Life() == layout.SeriesRetired {
				if fault = d.Check(g.h, i); fault == nil {
					b, err := g.copyHeap(&c.v, strings, uint64(d.Strings), uint64(d.StringsLength()))
					if err != nil {
						return err
					}
					info, fault = d.CutStrings(b, i)
				}
			}
			if err := g.copyDescriptors(&c.v, sc, i, again[:]); err != nil {
				return err
			}
			if again[0].State != d.State {
				continue
			}
			if settled = true; fault != nil {
				if len(c.found) < maxFindings {
					c.found = append(c.found, named(fault, g.path))
				}
				settled = false
			}
			break
		}
		d := &image[0]
		if d.Life() > layout.SeriesRetired {
			c.bad("series", i, "state free, being filled, live or retired (0 to 3)", d.Life())
		}
		if !settled || d.Life() < layout.SeriesLive || d.Life() > layout.SeriesRetired {
			continue
		}
		open := g.tableWord(int(d.Table), layout.TctlOpenRow)
		switch {
		case d.BornRow < 1 || d.BornRow > open+2 && !c.moved(int(d.Table), layout.TctlOpenRow, open):
			c.bad("series", i, fmt.Sprintf("born_row 1 to open_row, %d", open), d.BornRow)
		case d.Life() == layout.SeriesRetired && d.RetiredRow <= d.BornRow:
			c.bad("series", i, fmt.Sprintf("retired_row above born_row, %d", d.BornRow), d.RetiredRow)
		case d.Life() == layout.SeriesLive && d.RetiredRow != 0 && again[0].RetiredRow == d.RetiredRow:
			// Between the two stores of a retirement this is right for a moment.
			if err := g.copyDescriptors(&c.v, sc, i, again[:]); err == nil && again[0].State == d.State {
				c.bad("series", i, "retired_row 0 while live", d.RetiredRow)
			}
		}
		if d.Life() != layout.SeriesLive {
			continue
		}
		key := fmt.Sprintf("%q%q", info.Name, info.Labels)
		if other, ok := names[key]; ok {
			c.bad("series", i, fmt.Sprintf("%s once among the live ones", info.Name), fmt.Sprintf("series %d as well", other))
		}
		names[key] = i
		n := d.Kind.Cells(int(d.Buckets))
		for k, at := range [3]struct {
			first uint32
			n     int
		}{{d.RowCell, n.Row}, {d.LaneCell, n.Lane}, {d.SharedCell, n.Shared}} {
			if at.n > 0 {
				runs[d.Table][k] = append(runs[d.Table][k], run{at.first, at.first + uint32(at.n), i})
			}
		}
	}
	for table := range runs {
		for k, list := range runs[table] {
			slices.SortFunc(list, func(x, y run) int { return int(x.first) - int(y.first) })
			for i := 1; i < len(list); i++ {
				if before := list[i-1]; list[i].first < before.end {
					c.bad("series", list[i].index, fmt.Sprintf("a %s of its own, %d or above", places[k], before.end),
						fmt.Sprintf("%d, which is series %d's", list[i].first, before.index))
				}
			}
		}
	}
	return nil
}

// exemplars: FORMAT.md 8.4. Every slot is looked at.
func (c *checker) exemplars() error {
	g := c.g
	ctl := layout.View[layout.Control](g.raw[:], 0)
	given, dropped := ctl.Exemplars, ctl.ExemplarsDropped
	switch ring := &g.h.Exemplars; {
	case given >= maxRowNo:
		c.bad("control", -1, fmt.Sprintf("exemplars at most %d", uint64(maxRowNo)), given)
		return nil
	case dropped > given && !c.controlMoved(layout.CtlExemplars, given):
		c.bad("control", -1, fmt.Sprintf("exemplars_dropped at most exemplars, %d", given), dropped)
	case ring.Count == 0 && given != 0:
		c.bad("control", -1, "exemplars 0, as there is no ring of them", given)
	}
	id := g.h.ExemplarIdentity()
	var slot [512]uint64 // as alignedWords has it
	for i := range uint64(g.h.Exemplars.Count) {
		var x layout.Exemplar
		var n uint64
		verdict := layout.ExemplarBad
		for range tries {
			if err := c.v.copy(slot[:layout.ExemplarWords], g.h.ExemplarOffset(i+1)); err != nil {
				return err
			}
			n = slot[0] >> 1
			if x, verdict = layout.DecodeExemplar(slot[:layout.ExemplarWords], id, n); verdict != layout.ExemplarBad {
				break
			}
		}
		switch {
		case slot[0] == 0:
		case n == 0 || g.h.ExemplarSlot(n) != i:
			c.bad("exemplar", int(i), fmt.Sprintf("a number that is %d modulo %d", (i+1)%uint64(g.h.Exemplars.Count), g.h.Exemplars.Count), n)
		case n > given && !c.controlMoved(layout.CtlExemplars, given):
			c.bad("exemplar", int(i), fmt.Sprintf("a number of at most %d, as the control block says", given), n)
		case slot[0]&1 != 0: // under way, or its writer was killed
		case verdict != layout.ExemplarOK:
			c.bad("exemplar", int(i), "a check that holds", fmt.Sprintf("%#x, which does not", slot[1]))
		case x.Series >= g.h.Series.Count:
			c.bad("exemplar", int(i), fmt.Sprintf("a series below %d", g.h.Series.Count), x.Series)
		case x.TraceID == [16]byte{}:
			c.bad("exemplar", int(i), "a trace_id", "zeros")
		default:
			c.exemplarOf(int(i), &x)
		}
	}
	return nil
}

// exemplarOf checks that the series of an exemplar, if the descriptor is still that one's, may have any.
func (c *checker) exemplarOf(slot int, x *layout.Exemplar) {
	var image, again [1]layout.Series
	sc := takeScratch()
	defer sc.give()
	if c.g.copyDescriptors(&c.v, sc, int(x.Series), image[:]) != nil || c.g.copyDescriptors(&c.v, sc, int(x.Series), again[:]) != nil {
		return
	}
	d := &image[0]
	if d.State == again[0].State && d.Life() >= layout.SeriesLive && d.Generation() == x.Generation && d.Kind != layout.Counter && d.Kind != layout.Histogram {
		c.bad("exemplar", slot, "a counter or a histogram", fmt.Sprintf("series %d, a %v", x.Series, d.Kind))
	}
}

// controlMoved tells whether a word of the control block is another than it was.
func (c *checker) controlMoved(word int, was uint64) bool {
	var now [1]uint64
	return c.v.copy(now[:], c.g.h.Control.Offset+8*uint64(word)) == nil && now[0] != was
}

// rows: FORMAT.md 8. Every slot of every ring is looked at.
func (c *checker) rows() error {
	for table := range c.g.h.Tables {
		t := &c.g.h.Tables[table]
		for tier := range t.Tier[:t.Tiers] {
			if err := c.ring(table, tier); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *checker) ring(table, tier int) error {
	g := c.g
	t := &g.h.Tables[table]
	ring := &t.Tier[tier]
	id := g.h.RowIdentity(table, tier)
	section := fmt.Sprintf("table %d, tier %d, row", table, tier)
	head := g.tableWord(table, layout.TctlHead+tier)
	head0 := g.tableWord(table, layout.TctlHead)
	if head > maxRowNo {
		c.bad("table control", table, fmt.Sprintf("head%d at most %d", tier, uint64(maxRowNo)), head)
		return nil
	}
	sc := takeScratch()
	defer sc.give()
	buf := sc.words(layout.RowWords + int(t.RowCells))
	type stamp struct {
		no   uint64
		mono int64
	}
	var stamps []stamp
	for slot := uint64(0); slot < uint64(ring.Rows); slot++ {
		var h layout.RowHeader
		var verdict layout.Verdict
		for range tries {
			if err := c.v.copy(buf, ring.Offset+slot*uint64(ring.RowStride)); err != nil {
				return err
			}
			h = *layout.View[layout.RowHeader](buf, 0)
			if _, _, verdict = layout.DecodeRow(buf, id, h.RowNo); verdict != layout.RowBad && h.Seq&1 == 0 {
				break
			}
		}
		// What may be under way or was when the writer was killed: the row after the newest, in its slot.
		next := slot == ring.Slot(head+1) || c.moved(table, layout.TctlHead+tier, head)
		// The number that the slot must hold, as far as head says: the newest not above it.
		want := head - (head+uint64(ring.Rows)-slot)%uint64(ring.Rows)
		if want > head {
			want = 0 // the ring has not come round to this slot
		}
		switch {
		case next && (h.Seq&1 != 0 || verdict == layout.RowBad):
		case h.RowNo == 0 && want == 0:
		case h.RowNo == 0:
			if !next {
				c.bad(section, int(want), fmt.Sprintf("row_no %d in slot %d, as the head is %d", want, slot, head), "an empty slot")
			}
		case ring.Slot(h.RowNo) != slot:
			c.bad(section, int(min(h.RowNo, maxRowNo)), fmt.Sprintf("a row_no that is %d modulo %d, in slot %d", slot, ring.Rows, slot), fmt.Sprintf("row_no %d", h.RowNo))
		case h.Seq&1 != 0:
			c.bad(section, int(min(h.RowNo, maxRowNo)), "an even seq", fmt.Sprintf("%d, and a checksum that %s", h.Seq, map[bool]string{true: "holds", false: "does not hold"}[verdict == layout.RowOK]))
		case uint64(h.Cells) > uint64(t.RowCells):
			c.bad(section, int(min(h.RowNo, maxRowNo)), fmt.Sprintf("cells at most %d", t.RowCells), h.Cells)
		case verdict != layout.RowOK:
			c.bad(section, int(min(h.RowNo, maxRowNo)), "a checksum that holds", fmt.Sprintf("%#x, which does not", h.Checksum))
		case h.RowNo != want && !next:
			c.bad(section, int(min(h.RowNo, maxRowNo)), fmt.Sprintf("row_no %d in slot %d, as the head is %d", want, slot, head), fmt.Sprintf("row_no %d", h.RowNo))
		default:
			switch {
			case tier == 0 && h.BaseRow != h.RowNo:
				c.bad(section, int(h.RowNo), "base_row its own number", h.BaseRow)
			case h.BaseRow > head0 && !c.moved(table, layout.TctlHead, head0) && h.BaseRow != head0+1:
				c.bad(section, int(h.RowNo), fmt.Sprintf("base_row at most head0, %d", head0), h.BaseRow)
			}
			stamps = append(stamps, stamp{h.RowNo, h.TMono})
		}
	}
	slices.SortFunc(stamps, func(x, y stamp) int {
		if x.no < y.no {
			return -1
		}
		return 1
	})
	for i := 1; i < len(stamps); i++ {
		if stamps[i].mono < stamps[i-1].mono {
			c.bad(section, int(stamps[i].no), fmt.Sprintf("t_mono not before row %d's, %d", stamps[i-1].no, stamps[i-1].mono), stamps[i].mono)
		}
	}
	return nil
}
