package writer

import (
	"math"
	"sync/atomic"

	"github.com/shmts/shmts/internal/pin"
	"github.com/shmts/shmts/layout"
)

// Stat is a sampled quantity: count and sum since birth, the last value, and the
// least and the greatest of each row's window. All methods may be called from any
// goroutine, and on nil.
type Stat struct{ s *series }

// Stat registers, or finds, a stat.
func (w *Writer) Stat(name string, options ...SeriesOption) *Stat {
	return register(w, layout.Stat, layout.F64, name, options, func(s *series) *Stat { return &Stat{s} })
}

// takes tells whether v is a sample: finite, and not negative where that was promised.
func (c *Stat) takes(v float64) bool {
	return v-v == 0 && (v >= 0 || c.s.info.Flags&layout.FlagNonNegative == 0)
}

// Record takes one sample. NaN, infinities, and negative ones after NonNegative, are
// rejected and counted.
func (c *Stat) Record(v float64) {
	if c == nil {
		return
	}
	if !c.takes(v) {
		c.s.w.reject()
		return
	}
	p := pin.Pin()
	if at := c.s.place.Load(); at != nil {
		row := atomic.LoadUint64(at.openRow)
		if p < at.procs {
			recordStat(at.words[p*at.stride:], row, v)
		} else {
			at.useOverflow()
			recordStatShared(at.words[at.overflow:], row, v)
		}
		*at.shared = math.Float64bits(v)
	}
	pin.Unpin()
}

// Retire is Counter.Retire.
func (c *Stat) Retire() {
	if c != nil {
		c.s.retire()
	}
}

// statLaneCells is what a stat takes in a lane: count, sum, two windows.
const statLaneCells = layout.StatWindow + 2*layout.StatWindowCells

// recordStat records into a lane of which the caller is the owner: FORMAT.md 7.1.
func recordStat(cells []uint64, row uint64, v float64) {
	cells = cells[:statLaneCells]
	cells[layout.StatCount]++
	cells[layout.StatSum] = math.Float64bits(math.Float64frombits(cells[layout.StatSum]) + v)
	win := (*[layout.StatWindowCells]uint64)(cells[layout.StatWindow+row&1*layout.StatWindowCells:])
	if win[layout.WindowTag] != row {
		win[layout.WindowMin] = math.Float64bits(v)
		win[layout.WindowMax] = math.Float64bits(v)
		atomic.StoreUint64(&win[layout.WindowTag], row) // the tick reads tag first
		return
	}
	if v < math.Float64frombits(win[layout.WindowMin]) {
		win[layout.WindowMin] = math.Float64bits(v)
	}
	if v > math.Float64frombits(win[layout.WindowMax]) {
		win[layout.WindowMax] = math.Float64bits(v)
	}
}

// recordStatShared records into the overflow lane: FORMAT.md 7.1.
func recordStatShared(cells []uint64, row uint64, v float64) {
	atomic.AddUint64(&cells[layout.StatCount], 1)
	addFloat(&cells[layout.StatSum], v)
	moveExtremes(cells, row, v)
}

// moveExtremes lowers the min and raises the max of a row's window in the overflow lane.
func moveExtremes(cells []uint64, row uint64, v float64) {
	win := window(cells, row)
	if atomic.LoadUint64(&win[layout.WindowTag]) != row {
		return // the window has gone
	}
	move := func(word *uint64, beyond func(a, b float64) bool) {
		for {
			old := atomic.LoadUint64(word)
			held := math.Float64frombits(old)
			switch {
			case held != held && old != layout.EmptyWindow(row):
				return // emptied for a later row meanwhile
			case held == held && !beyond(v, held):
				return
			}
			if atomic.CompareAndSwapUint64(word, old, math.Float64bits(v)) {
				return
			}
		}
	}
	move(&win[layout.WindowMin], func(a, b float64) bool { return a < b })
	move(&win[layout.WindowMax], func(a, b float64) bool { return a > b })
}
