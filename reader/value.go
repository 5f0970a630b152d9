package reader

import (
	"math"

	"github.com/shmts/shmts/layout"
)

// Value is one series in one row. FORMAT.md 6.2.
type Value struct {
	Kind   Kind
	Number Number

	Int   int64   // counter (u64: as the same 64 bits), updown, gauge of number i64
	Float float64 // counter and gauge of number f64; Int as a float for the others

	Count          uint64  // stat, histogram
	Sum            float64 // stat, histogram
	Last, Min, Max float64 // stat: NaN when unset
	Unset          bool    // gauge: never set. Stat: no last

	Zero, Above uint64   // histogram
	Buckets     []uint64 // histogram: of index Buckets.Min on; a part of the row's memory

	sum uint64 // histogram of number u64: Sum before it became a float
}

// Value of a series in the row; false if the row does not hold the series
// (not yet born, retired, of another table).
func (r *Row) Value(s *Series) (Value, bool) {
	if s.Table != r.Table || !s.in(r.BaseRow, len(r.cells)) {
		return Value{}, false
	}
	v := Value{Kind: s.Kind, Number: s.Number}
	c := r.cells[s.rowCell:][:s.cells()]
	switch s.Kind {
	case Counter, UpDown, Gauge:
		v.number(c[0])
		v.Unset = s.Kind == Gauge && c[0] == s.Number.Unset()
	case Stat:
		v.Count, v.Sum = c[layout.StatCount], math.Float64frombits(c[layout.StatSum])
		v.Last, v.Min, v.Max = orNaN(c[layout.StatLast]), orNaN(c[layout.StatMin]), orNaN(c[layout.StatMax])
		v.Unset = c[layout.StatLast] == layout.UnsetF64
	case Histogram:
		v.histogramSum(c[layout.HistSum])
		v.Zero, v.Above = c[layout.HistZero], c[len(c)-1]
		v.Buckets = c[layout.HistBuckets : len(c)-1 : len(c)-1]
		v.Count = v.Zero + v.Above
		for _, n := range v.Buckets {
			v.Count += n
		}
	}
	return v, true
}

func (v *Value) number(cell uint64) {
	switch v.Number {
	case F64:
		v.Float = math.Float64frombits(cell)
		if cell == layout.UnsetF64 && v.Kind == Gauge {
			v.Float = math.NaN()
		}
	case U64:
		v.Int, v.Float = int64(cell), float64(cell)
	case I64:
		v.Int, v.Float = int64(cell), float64(int64(cell))
	}
}

func (v *Value) histogramSum(cell uint64) {
	if v.sum = cell; v.Number == U64 {
		v.Sum = float64(cell)
	} else {
		v.Sum = math.Float64frombits(cell)
	}
}

// orNaN is the number in a cell that may be unset.
func orNaN(cell uint64) float64 {
	if cell == layout.UnsetF64 {
		return math.NaN()
	}
	return math.Float64frombits(cell)
}

// clone keeps the value beyond its row.
func (v Value) clone() Value {
	v.Buckets = append([]uint64(nil), v.Buckets...)
	return v
}

// minus is the change from an earlier value of the same series: what is additive subtracted, the rest as it is in v.
func (v Value) minus(from Value) Value {
	switch v.Kind {
	case Counter, UpDown:
		switch v.Number {
		case F64:
			v.Float -= from.Float
		case U64: // modulo 2^64, as it is summed
			v.Int -= from.Int
			v.Float = float64(uint64(v.Int))
		case I64:
			v.Int -= from.Int
			v.Float = float64(v.Int)
		}
	case Stat:
		v.Count -= from.Count
		v.Sum -= from.Sum
	case Histogram:
		v.Count -= from.Count
		v.Zero -= from.Zero
		v.Above -= from.Above
		v.Buckets = append([]uint64(nil), v.Buckets...)
		for i := range from.Buckets {
			v.Buckets[i] -= from.Buckets[i]
		}
		if v.Number == U64 {
			v.histogramSum(v.sum - from.sum)
		} else {
			v.Sum -= from.Sum
		}
	}
	return v
}
