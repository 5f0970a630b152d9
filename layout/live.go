package layout

import "math"

// Live cells become a row's cells here, for whoever is not the writer: a reader
// that makes a dead writer's last words, and one that samples a living one.
// FORMAT.md 7 and 10.4, step 3. All memory is private copies.

// Windows are the rows whose windows of a stat count; 0 is none.
type Windows [2]uint64

// FoldLane adds one lane's cells of the series to its cells in a row. Lanes are given
// in the order 0 to lanes, each once, since f64 addition has an order;
// first marks lane 0. cells is the table's row, lane the whole lane: both reach past the series' last cell.
func (s *Series) FoldLane(cells, lane []uint64, first bool, windows Windows) {
	n := s.Kind.Cells(int(s.Buckets))
	if n.Lane == 0 {
		return
	}
	to := cells[s.RowCell : int(s.RowCell)+n.Row]
	from := lane[s.LaneCell : int(s.LaneCell)+n.Lane]
	switch s.Kind {
	case Counter, UpDown:
		add(&to[0], from[0], s.Number, first)
	case Stat:
		add(&to[StatCount], from[StatCount], U64, first)
		add(&to[StatSum], from[StatSum], F64, first)
		if first {
			to[StatMin], to[StatMax] = UnsetF64, UnsetF64
		}
		for _, row := range windows {
			w := from[StatWindow+StatWindowCells*(row%2):][:StatWindowCells]
			if row != 0 && w[WindowTag] == row {
				foldWindow(to, w[WindowMin], w[WindowMax])
			}
		}
	case Histogram:
		add(&to[HistSum], from[HistSum], s.Number, first)
		for i := HistZero; i < len(from); i++ {
			add(&to[i], from[i], U64, first)
		}
	}
}

// FinishCells takes what is not additive from the shared lane, and keeps what may not fall from
// falling below previous, the cells of the row before; nil if that did not hold the series.
func (s *Series) FinishCells(cells, shared, previous []uint64) {
	at := -1 // the f64 cell that never falls
	switch s.Kind {
	case Counter:
		at = int(s.RowCell)
	case Gauge:
		cells[s.RowCell] = shared[s.SharedCell]
	case Stat:
		cells[s.RowCell+StatLast] = shared[s.SharedCell]
		if s.Flags&FlagNonNegative != 0 {
			at = int(s.RowCell) + StatSum
		}
	case Histogram:
		at = int(s.RowCell) + HistSum
	}
	if at >= 0 && s.Number == F64 && previous != nil {
		if p := previous[at]; math.Float64frombits(p) > math.Float64frombits(cells[at]) {
			cells[at] = p
		}
	}
}

// FoldRow folds a stat's min and max of another row's cells into cells, as coarser tiers do.
func (s *Series) FoldRow(cells, other []uint64) {
	if s.Kind == Stat {
		o := other[s.RowCell:][:StatMax+1]
		foldWindow(cells[s.RowCell:][:StatMax+1], o[StatMin], o[StatMax])
	}
}

func add(to *uint64, v uint64, n Number, first bool) {
	switch {
	case first:
		*to = v
	case n == F64:
		*to = math.Float64bits(math.Float64frombits(*to) + math.Float64frombits(v))
	default:
		*to += v
	}
}

// foldWindow widens a stat's min and max. A NaN is no value: unset, empty, or gone.
func foldWindow(stat []uint64, low, high uint64) {
	if l := math.Float64frombits(low); l == l && !(math.Float64frombits(stat[StatMin]) <= l) {
		stat[StatMin] = low
	}
	if h := math.Float64frombits(high); h == h && !(math.Float64frombits(stat[StatMax]) >= h) {
		stat[StatMax] = high
	}
}
