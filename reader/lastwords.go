package reader

import (
	"slices"

	"github.com/shmts/shmts/layout"
)

// lastWords are what a dead writer left in its live cells, as one row more for each tier. They are made
// once, when the death is seen, and never change: FORMAT.md 10.5.
type lastWords struct {
	rows [layout.MaxTables][]Row
}

// finish reads what a dead segment still has to say. A writer that died between a row and its head left a
// row that no head tells of: heads are put right. g.mu is held, descriptors have been read.
func (g *Segment) finish(v *view, heads *headNumbers, unixNow int64) error {
	words := &lastWords{}
	epoch := uint16(g.raw[layout.CtlState] >> 32)
	sc := takeScratch()
	defer sc.give()
	end := g.h.BirthUnix
	for table := range g.tables {
		t := &g.h.Tables[table]
		if t.Tiers == 0 {
			continue
		}
		birth := Row{Time: g.h.BirthUnix, Mono: g.h.BirthMono}
		var last [layout.MaxTiers]Row // without cells
		for tier := range g.tables[table].Tiers {
			last[tier] = birth
			head := &heads[table][tier]
			g.findHead(v, sc, table, tier, head)
			// Where that one row is broken, its number still stands, and the times are those of the one before.
			for n := *head; n > 0 && *head-n < tries; n-- {
				if g.row(v, sc, table, tier, n) {
					last[tier] = sc.row
					break
				}
			}
			last[tier].No, last[tier].cells = *head, nil
		}
		base := last[0].No + 1
		open := g.tableWord(table, layout.TctlOpenRow)
		windows := layout.Windows{open}
		if open == base+1 {
			windows[1] = base // the tick went on to the next row, and died before it published this
		}
		cells, err := g.liveCells(v, table, base, windows, last[0].No)
		if err != nil {
			return err
		}
		var stats []statCells
		for _, s := range g.Series() {
			if s.Table == table && s.Kind == Stat && s.in(base, len(cells)) {
				stats = append(stats, statCells{s, s.descriptor()})
			}
		}
		rows := make([]Row, len(g.tables[table].Tiers))
		for tier := range rows {
			l := &last[tier]
			at := min(l.Time+int64(t.Tier[tier].Step), unixNow)
			if at <= l.Time {
				at = l.Time + int64(t.Tier[tier].Step) // the wall clock was stepped back: now says nothing
			}
			rows[tier] = Row{Table: table, Tier: tier, No: l.No + 1, Begin: l.Time, Time: at, Mono: l.Mono + at - l.Time,
				BaseRow: base, Epoch: epoch, Estimated: true, cells: cells}
			if tier > 0 && len(stats) > 0 {
				rows[tier].cells = g.foldBase(v, sc, table, slices.Clone(cells), l.BaseRow+1, last[0].No, stats)
			}
		}
		words.rows[table] = rows
		end = max(end, rows[0].Time)
	}
	g.words.Store(words)
	g.end.Store(end)
	return nil
}

// scanRows is the largest ring that is searched for its newest row, when the head lies.
const scanRows = 4096

// findHead puts the head of a dead segment's tier right: rows decide. Those that were published after it was stored
// follow it; where it names no row at all, the ring is searched, once.
func (g *Segment) findHead(v *view, sc *scratch, table, tier int, head *uint64) {
	ring := &g.h.Tables[table].Tier[tier]
	found := *head == 0 || g.row(v, sc, table, tier, *head)
	for range ring.Rows {
		if !g.row(v, sc, table, tier, *head+1) {
			break
		}
		*head++
		found = true
	}
	if found && *head > 0 || ring.Rows > scanRows {
		return
	}
	best := uint64(0)
	for slot := range uint64(ring.Rows) {
		var w [layout.RowWords]uint64
		if v.copy(w[:], ring.Offset+slot*uint64(ring.RowStride)) != nil {
			return
		}
		n := layout.View[layout.RowHeader](w[:], 0).RowNo
		if n > best && n < maxRowNo && ring.Slot(n) == slot && g.row(v, sc, table, tier, n) {
			best = n
		}
	}
	if best > 0 {
		*head = best
	}
}

type statCells struct {
	s *Series
	d layout.Series
}

// foldBase folds min and max of the base rows from to last, those that are still there, into cells.
func (g *Segment) foldBase(v *view, sc *scratch, table int, cells []uint64, from, last uint64, stats []statCells) []uint64 {
	if n := uint64(g.h.Tables[table].Tier[0].Rows); last > n {
		from = max(from, last-n+1)
	}
	for n := max(from, 1); n <= last; n++ {
		if !g.row(v, sc, table, 0, n) {
			continue
		}
		for i := range stats {
			if stats[i].s.in(n, len(sc.row.cells)) {
				stats[i].d.FoldRow(cells, sc.row.cells)
			}
		}
	}
	return cells
}

// lastTime is the time of the newest row of any table's base tier.
func (g *Segment) lastTime(v *view, heads *headNumbers) int64 {
	end := g.h.BirthUnix
	sc := takeScratch()
	defer sc.give()
	for table := range g.tables {
		if len(g.tables[table].Tiers) > 0 && heads[table][0] > 0 && g.row(v, sc, table, 0, heads[table][0]) {
			end = max(end, sc.row.Time)
		}
	}
	return end
}
