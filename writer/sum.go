package writer

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"

	"github.com/shmts/shmts/layout"
)

// A run is a number of cells that lie side by side both in a row and in a lane, and
// are made in the same way: a tick goes over runs, not over series.
type run struct {
	op     runOp
	row    int
	source int // cell in a lane, or in the shared lane
	n      int
}

type runOp uint8

const (
	runInts   runOp = iota // sum of the lanes, integers
	runTotals              // sum of the lanes, f64 that never falls
	runShared              // copy of the shared lane
)

func (u *run) do(dst []uint64, lanes [][]uint64, shared []uint64) {
	switch u.op {
	case runInts:
		sumInts(dst, lanes, u.source)
	case runTotals:
		sumTotals(dst, lanes, u.source)
	case runShared:
		copy(dst, shared[u.source:])
	}
}

// compile makes the runs of the live series, in the order of their cells in a row.
func (t *table) compile() {
	k := &t.tick
	k.runs, k.stats, k.stale = k.runs[:0], k.stats[:0], false
	slices.SortFunc(t.live, func(a, b *series) int { return cmp.Compare(a.info.RowCell, b.info.RowCell) })
	add := func(op runOp, row, source, n int) {
		if i := len(k.runs) - 1; i >= 0 {
			if u := &k.runs[i]; u.op == op && u.row+u.n == row && u.source+u.n == source {
				u.n += n
				return
			}
		}
		k.runs = append(k.runs, run{op, row, source, n})
	}
	for _, s := range t.live {
		row, lane := int(s.info.RowCell), int(s.info.LaneCell)
		number := func(row, lane int) {
			if s.info.Number == layout.F64 {
				add(runTotals, row, lane, 1)
			} else {
				add(runInts, row, lane, 1)
			}
		}
		switch s.info.Kind {
		case layout.Counter, layout.UpDown:
			number(row, lane)
		case layout.Gauge:
			add(runShared, row, int(s.info.SharedCell), 1)
		case layout.Stat:
			k.stats = append(k.stats, s)
		case layout.Histogram:
			number(row+layout.HistSum, lane+layout.HistSum)
			add(runInts, row+layout.HistZero, lane+layout.HistZero, int(s.info.Buckets)+2)
		}
	}
}

// The sums go over up to eight lanes at a time, so that a cell of the row is
// stored once for eight of them. Lanes are loaded plainly: words of the
// segment are aligned, so each load is whole, and an atomic one could not be
// folded into the addition (measured: twice the time). f64 are added lane by
// lane, left to right, starting from lane 0's value: FORMAT.md 7.

// sumInts sets dst to the sums of the lanes' cells from at on, modulo 2^64.
func sumInts(dst []uint64, lanes [][]uint64, at int) {
	if len(dst) < 4 { // series of all kinds in turn make short runs: cell by cell costs less to begin
		for i := range dst {
			sum := uint64(0)
			for _, lane := range lanes {
				sum += lane[at+i]
			}
			dst[i] = sum
		}
		return
	}
	switch { // the first ones set the row's cells
	case len(lanes) >= 8:
		a, b, c, d := lanes[0][at:][:len(dst)], lanes[1][at:][:len(dst)], lanes[2][at:][:len(dst)], lanes[3][at:][:len(dst)]
		e, f, g, h := lanes[4][at:][:len(dst)], lanes[5][at:][:len(dst)], lanes[6][at:][:len(dst)], lanes[7][at:][:len(dst)]
		for i := range dst {
			dst[i] = a[i] + b[i] + c[i] + d[i] + e[i] + f[i] + g[i] + h[i]
		}
		lanes = lanes[8:]
	case len(lanes) >= 4:
		a, b, c, d := lanes[0][at:][:len(dst)], lanes[1][at:][:len(dst)], lanes[2][at:][:len(dst)], lanes[3][at:][:len(dst)]
		for i := range dst {
			dst[i] = a[i] + b[i] + c[i] + d[i]
		}
		lanes = lanes[4:]
	case len(lanes) >= 2:
		a, b := lanes[0][at:][:len(dst)], lanes[1][at:][:len(dst)]
		for i := range dst {
			dst[i] = a[i] + b[i]
		}
		lanes = lanes[2:]
	case len(lanes) == 1:
		copy(dst, lanes[0][at:]) // by whole words: the garbage collector relies on that too
		return
	default:
		clear(dst)
		return
	}
	for ; len(lanes) >= 4; lanes = lanes[4:] {
		a, b, c, d := lanes[0][at:][:len(dst)], lanes[1][at:][:len(dst)], lanes[2][at:][:len(dst)], lanes[3][at:][:len(dst)]
		for i := range dst {
			dst[i] += a[i] + b[i] + c[i] + d[i]
		}
	}
	for _, lane := range lanes {
		a := lane[at:][:len(dst)]
		for i := range dst {
			dst[i] += a[i]
		}
	}
}

func loadFloat(p *uint64) float64 { return math.Float64frombits(atomic.LoadUint64(p)) }

// sumFloat is the sum of one f64 cell over the lanes.
func sumFloat(lanes [][]uint64, at int) float64 {
	sum := loadFloat(&lanes[0][at])
	for _, lane := range lanes[1:] {
		sum += loadFloat(&lane[at])
	}
	return sum
}

// sumFloats sets dst to the f64 sums of the lanes' cells from at on.
func sumFloats(dst []uint64, lanes [][]uint64, at int) {
	for i := range dst {
		dst[i] = math.Float64bits(sumFloat(lanes, at+i))
	}
}

// sumTotals is sumFloats for what never falls: what was published last stands
// where the sum of this instant is below it, as another order of additions may make it.
func sumTotals(dst []uint64, lanes [][]uint64, at int) {
	for i := range dst {
		if sum := sumFloat(lanes, at+i); sum > math.Float64frombits(dst[i]) {
			dst[i] = math.Float64bits(sum)
		}
	}
}
