package layout

// Kind says how a series' cells are to be read. FORMAT.md 6.2.
type Kind uint8

// The kinds of 1.0.
const (
	Counter   Kind = 1 // cumulative, never falls
	UpDown    Kind = 2 // a sum that may fall
	Gauge     Kind = 3 // the last value set
	Stat      Kind = 4 // count, sum, last, min, max of a sampled quantity
	Histogram Kind = 5 // base-2 exponential buckets
)

// Number is the type of a series' values.
type Number uint8

// The number types.
const (
	U64 Number = 1
	I64 Number = 2
	F64 Number = 3
)

var kindNames = [...]string{"free", "counter", "updown", "gauge", "stat", "histogram"}

// String names the kind as FORMAT.md 6.2 does.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

var numberNames = [...]string{"none", "u64", "i64", "f64"}

// String names the number type as FORMAT.md 6.1 does.
func (n Number) String() string {
	if int(n) < len(numberNames) {
		return numberNames[n]
	}
	return "unknown"
}

// Valid tells whether the kind exists with this number type.
func (k Kind) Valid(n Number) bool {
	switch k {
	case Counter:
		return n == U64 || n == F64
	case UpDown:
		return n == I64
	case Gauge:
		return n == F64 || n == I64
	case Stat:
		return n == F64
	case Histogram:
		return n == F64 || n == U64
	}
	return false
}

// Cells is how many cells a series takes, in each place. FORMAT.md 6.2.
type Cells struct{ Row, Lane, Shared int }

// Cells of a series of this kind; buckets counts for histograms only.
func (k Kind) Cells(buckets int) Cells {
	switch k {
	case Counter, UpDown:
		return Cells{Row: 1, Lane: 1}
	case Gauge:
		return Cells{Row: 1, Shared: 1}
	case Stat:
		return Cells{Row: 5, Lane: 8, Shared: 1}
	case Histogram:
		return Cells{Row: buckets + 3, Lane: buckets + 3}
	}
	return Cells{}
}

// Cells of a stat, in a row and in a lane. FORMAT.md 6.2.
const (
	StatCount = 0
	StatSum   = 1
	StatLast  = 2
	StatMin   = 3
	StatMax   = 4

	// A lane holds two windows, for even and odd rows, behind count and sum.
	StatWindow      = 2
	StatWindowCells = 3
	WindowTag       = 0
	WindowMin       = 1
	WindowMax       = 2
)

// Cells of a histogram, in a row and in a lane. FORMAT.md 6.2.
const (
	HistSum     = 0
	HistZero    = 1
	HistBuckets = 2 // the first bucket; the cell after the last counts what lies above
)

// Unset cells: a gauge never set, a window in which nothing was recorded. FORMAT.md 6.2.
const (
	UnsetF64 uint64 = 0xfff800756e736574
	UnsetI64 uint64 = 1 << 63
)

// Unset is the pattern for a number type; u64 has none.
func (n Number) Unset() uint64 {
	switch n {
	case F64:
		return UnsetF64
	case I64:
		return UnsetI64
	}
	return 0
}

// EmptyWindow is what the tick puts into min and max of the overflow lane's
// window for row: a NaN that names the row, so that a record which is late by a whole
// step fails its compare-and-swap. FORMAT.md 7.1.
func EmptyWindow(row uint64) uint64 { return 0x7ff8000000000000 + row&(1<<51-1) }
