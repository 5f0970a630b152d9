package reader

import (
	"fmt"

	"github.com/shmts/shmts/layout"
)

// Live samples the table's live cells: what the next row would say if it were taken
// now. A sample, never a row: No, Begin, Time and Mono are 0. Of an ended
// writer it is what it left. The row is the caller's.
func (g *Segment) Live(table int) (*Row, error) {
	if table < 0 || table >= len(g.tables) {
		return nil, fmt.Errorf("shmts: segment %s: want a table of 0 to %d, got %d", g.path, len(g.tables)-1, table)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	v, err := g.win.use()
	if err != nil {
		return nil, err
	}
	defer v.done()
	if g.shadow {
		return g.newestAsLive(&v, table)
	}
	if w := g.words.Load(); w != nil && len(w.rows[table]) > 0 {
		row := w.rows[table][0].Clone()
		row.No, row.Begin, row.Time, row.Mono = 0, 0, 0, 0
		return row, nil
	}
	// The cells of a series that was retired under us may be another's by now.
	for range tries {
		if err := v.copy(g.raw[:g.ctlWords], g.h.Control.Offset); err != nil {
			return nil, named(err, g.path)
		}
		if err := g.readSeries(&v); err != nil {
			return nil, named(err, g.path)
		}
		open, changes := g.tableWord(table, layout.TctlOpenRow), g.known.changes
		heads := g.hints()
		cells, err := g.liveCells(&v, table, open, layout.Windows{open}, heads[table][0])
		if err != nil {
			return nil, named(err, g.path)
		}
		var word [1]uint64
		if err := v.copy(word[:], g.h.Control.Offset+8*uint64(layout.CtlTables+table*layout.TctlWords+layout.TctlChanges)); err != nil {
			return nil, named(err, g.path)
		}
		if word[0] == changes[table] {
			return &Row{Table: table, BaseRow: open, Epoch: uint16(g.raw[layout.CtlState] >> 32), cells: cells}, nil
		}
	}
	return nil, fmt.Errorf("shmts: segment %s: table %d: want series that stand still for a sample, got changes %d times", g.path, table, tries)
}

// liveCells does step 3 of FORMAT.md 10.4: it sums the lanes of a table into the cells of row number row, the windows
// given counting. head is the number of the last base row published. One lane is held at a time.
func (g *Segment) liveCells(v *view, table int, row uint64, windows layout.Windows, head uint64) ([]uint64, error) {
	t := &g.h.Tables[table]
	var series []layout.Series
	var owners []*Series
	rowCells, laneCells, sharedCells := 0, 0, 0
	for _, s := range g.Series() {
		if s.Table != table || !s.in(row, int(t.RowCells)) {
			continue
		}
		d := s.descriptor()
		n := d.Kind.Cells(int(d.Buckets))
		rowCells = max(rowCells, int(d.RowCell)+n.Row)
		if n.Lane > 0 {
			laneCells = max(laneCells, int(d.LaneCell)+n.Lane)
		}
		if n.Shared > 0 {
			sharedCells = max(sharedCells, int(d.SharedCell)+n.Shared)
		}
		series, owners = append(series, d), append(owners, s)
	}
	cells := make([]uint64, rowCells)
	sc := takeScratch()
	defer sc.give()
	lane := sc.words(max(laneCells, sharedCells))
	for k := uint64(0); k <= uint64(t.Lanes) && laneCells > 0; k++ {
		if err := v.copy(lane[:laneCells], t.LanesOffset+k*uint64(t.LaneStride)); err != nil {
			return nil, err
		}
		for i := range series {
			series[i].FoldLane(cells, lane[:laneCells], k == 0, windows)
		}
	}
	if err := v.copy(lane[:sharedCells], t.SharedOffset); err != nil {
		return nil, err
	}
	// What may not fall is held against the row published last, of the series that are in it.
	before := takeScratch()
	defer before.give()
	published := t.Tiers > 0 && head > 0 && g.row(v, before, table, 0, head)
	for i := range series {
		var previous []uint64
		if published && owners[i].in(before.row.BaseRow, len(before.row.cells)) {
			previous = before.row.cells
		}
		series[i].FinishCells(cells, lane[:sharedCells], previous)
	}
	return cells, nil
}
