package reader

import (
	"slices"

	"github.com/shmts/shmts/layout"
)

// Room is how much of what a segment was born with its writer has ever given to series. What a retired one had, the next of
// its shape gets. FORMAT.md 5, 10.2.
type Room struct {
	Series Part // descriptors
	Heap   Part // bytes of names, units, help and labels
	Tables []TableRoom
}

// TableRoom is that of one table. Of lanes and the shared lane it is one's.
type TableRoom struct {
	Name                          string
	Cells, LaneCells, SharedCells Part
}

// Part is how much of something is used. It is the writer's word, and at most Size.
type Part struct{ Used, Size uint64 }

func part(used, size uint32) Part { return Part{uint64(min(used, size)), uint64(size)} }

// Room is as of the last Refresh or Poll.
func (g *Segment) Room() Room {
	g.mu.Lock()
	defer g.mu.Unlock()
	used := g.raw[layout.CtlUsed]
	r := Room{Series: part(uint32(used), g.h.Series.Count), Heap: part(uint32(used>>32), g.h.Heap.Count), Tables: make([]TableRoom, len(g.tables))}
	for i := range g.tables {
		t, cells, shared := &g.h.Tables[i], g.tableWord(i, layout.TctlCellsUsed), g.tableWord(i, layout.TctlSharedUsed)
		r.Tables[i] = TableRoom{Name: g.tables[i].Name, Cells: part(uint32(cells), t.RowCells), LaneCells: part(uint32(cells>>32), t.LaneCells), SharedCells: part(uint32(shared), t.SharedCells)}
	}
	return r
}

// Add makes of r the room of both: of another segment of the source, say. Tables go by their names.
func (r *Room) Add(o Room) {
	add := func(p *Part, q Part) { p.Used, p.Size = p.Used+q.Used, p.Size+q.Size }
	add(&r.Series, o.Series)
	add(&r.Heap, o.Heap)
	for _, t := range o.Tables {
		i := slices.IndexFunc(r.Tables, func(x TableRoom) bool { return x.Name == t.Name })
		if i < 0 {
			r.Tables = append(r.Tables, t)
			continue
		}
		add(&r.Tables[i].Cells, t.Cells)
		add(&r.Tables[i].LaneCells, t.LaneCells)
		add(&r.Tables[i].SharedCells, t.SharedCells)
	}
}
