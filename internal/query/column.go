package query

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/value"

	"github.com/shmts/shmts/reader"
)

// Field is a part of a series that is a Prometheus series by itself.
type Field uint8

// The fields. A stat has five.
const (
	Value     Field = iota // counter, updown, gauge; a stat's last
	Min                    // stat: of the row's own window. Gauge: of what was folded into the row
	Max                    // stat, gauge
	Sum                    // stat: cumulative. Gauge: of what was folded into the row
	Count                  // stat: cumulative. Gauge: of what was folded into the row
	Buckets                // histogram: a native histogram
	Target                 // of no series: target_info, 1 at each row
	Rows                   // of no series: how many rows of the finest tier a folded row was made of
	numFields              // not a field
)

// Column is a field of a series, to be read. Series is nil for Target and Rows.
type Column struct {
	Series *reader.Series
	Field  Field
}

// A column's cell that holds no value (a gauge never set, a window in which nothing was
// recorded, a row that does not hold the series) is a staleness marker: the
// series was there before, perhaps, and is not there now.
var stale = math.Float64frombits(value.StaleNaN)

func isStale(v float64) bool { return math.Float64bits(v) == value.StaleNaN }

// Batch is what the rows of one table and tier say of some of its series: one column of
// times, and for each Column one of values, all of the same length.
type Batch struct {
	Columns []Column
	Times   []int64 // unix ms, each greater than the one before
	Floats  [][]float64
	Hists   []HistColumn
	Epochs  []uint16
	First   uint64 // number of the first row, 0 if there is none or it is not known
	Absent  []bool // by column: some cell of it is a staleness marker
	Lost    []int  // rows before which others were, by their numbers, that are not to be had

	last  uint64 // number of the newest row
	width int    // numbers a row
	left  int    // numbers that there is room for
}

// HistColumn is a histogram's cumulative counts by row.
type HistColumn struct {
	Range  reader.BucketRange
	Sum    []float64 // a staleness marker where there is no value
	Counts []uint64  // Stride a row: zero, the buckets, above
}

// Stride is the number of counts a row.
func (h *HistColumn) Stride() int { return h.Range.Count + 2 }

// fewRows is a Batch of one column with its memory: what a selector wants of each of a thousand segments, mostly.
type fewRows struct {
	Batch
	times  [few]int64
	slab   [few]float64
	epochs [few]uint16
	floats [1][]float64
	absent [1]bool
}

const few = 12

// numbers are how many a row has of c.
func (c *Column) numbers() int {
	if c.Field == Buckets {
		return 1 + c.Series.Buckets.Count + 2
	}
	return 1
}

// histogramSamples is what the engine counts a native histogram as, against the limit of samples: 16 bytes are one.
func histogramSamples(spans, buckets int) int {
	const head, timestamp, word, sample = 168, 8, 8, 16 // histogram.FloatHistogram's Size
	return (head + timestamp + word*(spans+buckets)) / sample
}

// samples is what the rows count as: of a histogram those buckets that any of them fills.
func (b *Batch) samples() int {
	n := 0
	for i, c := range b.Columns {
		if c.Field != Buckets {
			n += b.Len()
			continue
		}
		spans, buckets, before := 0, 0, false
		for _, filled := range b.Hists[i].filled()[1:] { // but the zero bucket
			if filled != 0 {
				if buckets++; !before {
					spans++
				}
			}
			before = filled != 0
		}
		n += b.Len() * histogramSamples(spans, buckets)
	}
	return n
}

// filled are the counts of all rows, one over the other: 0 where none counted anything.
func (h *HistColumn) filled() []uint64 {
	stride := h.Stride()
	any := make([]uint64, stride)
	for at := 0; at < len(h.Counts); at += stride {
		for k, n := range h.Counts[at : at+stride] {
			any[k] |= n
		}
	}
	return any
}

// NewBatch prepares a Batch for columns of about so many rows, and of at most limit numbers.
func NewBatch(columns []Column, rows, limit int) *Batch {
	width := 0
	for _, c := range columns {
		width += c.numbers()
	}
	if rows*width > 1<<16 { // a claim: let it prove itself
		rows = 1<<16/width + 1
	}
	var b *Batch
	var slab []float64
	if rows <= few && len(columns) == 1 {
		f := &fewRows{}
		b, slab = &f.Batch, f.slab[:]
		b.Times, b.Epochs, b.Floats, b.Absent = f.times[:0:rows], f.epochs[:0:rows], f.floats[:], f.absent[:]
	} else {
		b, slab = &Batch{}, make([]float64, len(columns)*rows)
		b.Times, b.Epochs = make([]int64, 0, rows), make([]uint16, 0, rows)
		b.Floats, b.Absent = make([][]float64, len(columns)), make([]bool, len(columns))
	}
	b.width, b.left, b.Columns = width, limit, columns
	for i, c := range columns {
		room := slab[i*rows : i*rows : (i+1)*rows]
		if c.Field != Buckets {
			b.Floats[i] = room
			continue
		}
		if b.Hists == nil {
			b.Hists = make([]HistColumn, len(columns))
		}
		h := &b.Hists[i]
		h.Range, h.Sum = c.Series.Buckets, room
		h.Counts = make([]uint64, 0, rows*h.Stride())
	}
	return b
}

// Len is the number of rows.
func (b *Batch) Len() int { return len(b.Times) }

// Full tells whether the limit is passed, and reading may end.
func (b *Batch) Full() bool { return b.left < 0 }

// milli is ns in ms, rounded down, so that order is kept.
func milli(ns int64) int64 {
	ms := ns / 1e6
	if ns%1e6 < 0 {
		ms--
	}
	return ms
}

// At begins the row of time t, in unix ms: what lies at t or after it is taken back first. So two
// rows of one millisecond give the later one, and after the wall clock was stepped
// back the newer rows hide the older ones that they overlap.
func (b *Batch) At(t int64, no uint64, epoch uint16) {
	b.left -= b.width
	n := len(b.Times)
	for n > 0 && b.Times[n-1] >= t {
		n--
	}
	if n < len(b.Times) {
		b.cut(n)
	}
	if n == 0 {
		b.First = no
	} else if no > b.last+1 {
		b.Lost = append(b.Lost, n)
	}
	b.last = no
	b.Times = append(b.Times, t)
	b.Epochs = append(b.Epochs, epoch)
}

// cut keeps the first n rows.
func (b *Batch) cut(n int) {
	for k := len(b.Lost); k > 0 && b.Lost[k-1] >= n; k-- {
		b.Lost = b.Lost[:k-1]
	}
	b.Times, b.Epochs = b.Times[:n], b.Epochs[:n]
	for i, c := range b.Columns {
		if c.Field == Buckets {
			h := &b.Hists[i]
			h.Sum, h.Counts = h.Sum[:n], h.Counts[:n*h.Stride()]
		} else {
			b.Floats[i] = b.Floats[i][:n]
		}
	}
}

// Add takes a row. FORMAT.md 6.2, 8.1.
func (b *Batch) Add(r *reader.Row) {
	b.At(milli(r.Time), r.No, r.Epoch)
	for i, c := range b.Columns {
		switch c.Field {
		case Target:
			b.AddFloat(i, 1)
			continue
		case Rows:
			b.AddFloat(i, stale) // a row of a segment is never folded
			continue
		}
		v, ok := r.Value(c.Series)
		b.AddValue(i, &v, ok)
	}
}

// AddValue appends what the row that At began says of column i; ok is false if it does not hold the series.
func (b *Batch) AddValue(i int, v *reader.Value, ok bool) {
	c := b.Columns[i]
	switch {
	case c.Field == Buckets:
		b.addHistogram(i, v, ok)
	case ok:
		b.AddFloat(i, field(v, c.Field))
	default:
		b.AddFloat(i, stale)
	}
}

// AddFloat appends a number to column i in the row that At began.
func (b *Batch) AddFloat(i int, f float64) {
	if isStale(f) {
		b.Absent[i] = true
	}
	b.Floats[i] = append(b.Floats[i], f)
}

// AddRows begins as many rows as there are times, unix ms, each greater than the one before; no is the first one's number, and each
// other's is one more than that of the one before. Then
// AddCells wants them all, for each column.
func (b *Batch) AddRows(times []int64, no uint64, epoch uint16) {
	if len(times) == 0 {
		return
	}
	b.At(times[0], no, epoch)
	b.left -= (len(times) - 1) * b.width
	b.last = no + uint64(len(times)) - 1
	b.Times = append(b.Times, times[1:]...)
	n := len(b.Epochs)
	b.Epochs = slices.Grow(b.Epochs, len(times)-1)[:n+len(times)-1]
	for i := range b.Epochs[n:] {
		b.Epochs[n+i] = epoch
	}
}

// AddCells appends to column i what the rows that AddRows began hold of it, as words of the field's number type: of a histogram
// sum, zero, buckets, above, row by row. present tells which rows have a value, nil: all. Without words, none has.
func (b *Batch) AddCells(i, rows int, words []uint64, present []bool) {
	c := b.Columns[i]
	if c.Field == Buckets {
		b.addHistograms(i, rows, words, present)
		return
	}
	from := len(b.Floats[i])
	to := slices.Grow(b.Floats[i], rows)[:from+rows]
	out := to[from:]
	b.Floats[i] = to
	switch {
	case c.Field == Target:
		for k := range out {
			out[k] = 1
		}
		return
	case len(words) < rows:
		b.Absent[i] = true
		for k := range out {
			out[k] = stale
		}
		return
	}
	var number reader.Number
	switch c.Field {
	case Count, Rows:
		number = reader.U64
	case Sum:
		number = reader.F64
	default:
		number = c.Series.Number
	}
	words = words[:rows]
	switch number {
	case reader.U64:
		for k, w := range words {
			out[k] = float64(w)
		}
	case reader.I64:
		for k, w := range words {
			out[k] = float64(int64(w))
		}
	default:
		for k, w := range words {
			out[k] = math.Float64frombits(w)
		}
	}
	for k, ok := range present {
		if !ok {
			out[k] = stale
			b.Absent[i] = true
		}
	}
}

func (b *Batch) addHistograms(i, rows int, words []uint64, present []bool) {
	h := &b.Hists[i]
	width := h.Stride() + 1
	for k := range rows {
		if len(words) < (k+1)*width || present != nil && !present[k] {
			b.Absent[i] = true
			h.Sum = append(h.Sum, stale)
			h.Counts = append(h.Counts, make([]uint64, h.Stride())...)
			continue
		}
		row := words[k*width : (k+1)*width]
		if b.Columns[i].Series.Number == reader.U64 {
			h.Sum = append(h.Sum, float64(row[0]))
		} else {
			h.Sum = append(h.Sum, math.Float64frombits(row[0]))
		}
		h.Counts = append(h.Counts, row[1:]...)
	}
}

func (b *Batch) addHistogram(i int, v *reader.Value, ok bool) {
	h := &b.Hists[i]
	if !ok || len(v.Buckets) != h.Range.Count {
		b.Absent[i] = true
		h.Sum = append(h.Sum, stale)
		h.Counts = append(h.Counts, make([]uint64, h.Stride())...)
		return
	}
	h.Sum = append(h.Sum, v.Sum)
	h.Counts = append(h.Counts, v.Zero)
	h.Counts = append(h.Counts, v.Buckets...)
	h.Counts = append(h.Counts, v.Above)
}

// field is one number of a value; a staleness marker if it is unset.
func field(v *reader.Value, f Field) float64 {
	var x float64
	if v.Kind == reader.Gauge { // a row of a segment is never folded: it has one value
		switch {
		case v.Unset:
			return stale
		case f == Count:
			return 1
		}
		return v.Float
	}
	switch f {
	case Min:
		x = v.Min
	case Max:
		x = v.Max
	case Sum:
		return v.Sum
	case Count:
		return float64(v.Count)
	default:
		if v.Unset {
			return stale
		}
		if v.Kind == reader.Stat {
			return v.Last
		}
		return v.Float
	}
	if x != x { // a window in which nothing was recorded
		return stale
	}
	return x
}

// Read appends the rows of a tier in [begin, end], unix ms; if newest, the last one of them is enough.
func (b *Batch) Read(s Segment, table, tier int, begin, end int64, newest bool) error {
	from, to := nanos(begin, 0), nanos(end, 999_999)
	if c, ok := s.(ColumnReader); ok {
		return c.Columns(table, tier, from, to, b)
	}
	add := func(r *reader.Row) bool {
		b.Add(r)
		return !b.Full()
	}
	if n, ok := s.(NewestReader); ok && newest {
		n.Newest(table, tier, from, to, add)
		return nil
	}
	s.Between(table, tier, from, to, add)
	return nil
}

// nanos is ms in ns plus some, kept inside int64: the engine asks for the beginning and end of time.
func nanos(ms, plus int64) int64 {
	switch {
	case ms > math.MaxInt64/1_000_000-1:
		return math.MaxInt64
	case ms < math.MinInt64/1_000_000+1:
		return math.MinInt64
	}
	return ms*1_000_000 + plus
}

// Prepend puts older's rows before b's, those that b's first row does not hide. They have the same columns.
func (b *Batch) Prepend(older *Batch) {
	n := older.Len()
	if b.Len() > 0 {
		for n > 0 && older.Times[n-1] >= b.Times[0] {
			n--
		}
	}
	if n == 0 {
		return
	}
	older.cut(n)
	older.left = b.left - n*b.width
	if b.Len() > 0 && b.First > older.last+1 {
		older.Lost = append(older.Lost, n)
	}
	for _, k := range b.Lost {
		older.Lost = append(older.Lost, n+k)
	}
	if b.Len() > 0 {
		older.last = b.last
	}
	older.join(b)
	*b = *older
}

// join puts newer's rows, which are later, behind b's.
func (b *Batch) join(newer *Batch) {
	b.Times = append(b.Times, newer.Times...)
	b.Epochs = append(b.Epochs, newer.Epochs...)
	for i := range b.Columns {
		b.Absent[i] = b.Absent[i] || newer.Absent[i]
		b.Floats[i] = append(b.Floats[i], newer.Floats[i]...)
		if b.Hists != nil {
			b.Hists[i].Sum = append(b.Hists[i].Sum, newer.Hists[i].Sum...)
			b.Hists[i].Counts = append(b.Hists[i].Counts, newer.Hists[i].Counts...)
		}
	}
}

// Since takes back the rows before t, unix ms, that begin the batch.
func (b *Batch) Since(t int64) {
	n := 0
	for n < len(b.Times) && b.Times[n] < t {
		n++
	}
	if n == 0 {
		return
	}
	b.First = 0
	lost := b.Lost[:0]
	for _, k := range b.Lost {
		if k > n {
			lost = append(lost, k-n)
		}
	}
	b.Lost = lost
	b.Times, b.Epochs = b.Times[n:], b.Epochs[n:]
	for i, c := range b.Columns {
		if c.Field == Buckets {
			h := &b.Hists[i]
			h.Sum, h.Counts = h.Sum[n:], h.Counts[n*h.Stride():]
		} else {
			b.Floats[i] = b.Floats[i][n:]
		}
	}
}

// thin keeps of each window of so many ms, as the wall clock has them, the last row.
func (b *Batch) thin(step int64) {
	n := 0
	b.Lost = nil
	for k, t := range b.Times {
		if k+1 < len(b.Times) && (t+step-1)/step == (b.Times[k+1]+step-1)/step {
			continue
		}
		if k > n {
			b.Times[n], b.Epochs[n] = t, b.Epochs[k]
			for i, c := range b.Columns {
				if c.Field == Buckets {
					h := &b.Hists[i]
					h.Sum[n] = h.Sum[k]
					copy(h.Counts[n*h.Stride():(n+1)*h.Stride()], h.Counts[k*h.Stride():])
				} else {
					b.Floats[i][n] = b.Floats[i][k]
				}
			}
		}
		n++
	}
	b.cut(n)
}

// pick is some rows, in memory of their own.
func (b *Batch) pick(rows []int) *Batch {
	out := NewBatch(b.Columns, len(rows), math.MaxInt)
	out.last = b.last
	if len(rows) > 0 && rows[0] == 0 {
		out.First = b.First
	}
	copy(out.Absent, b.Absent)
	for _, k := range rows {
		out.Times, out.Epochs = append(out.Times, b.Times[k]), append(out.Epochs, b.Epochs[k])
	}
	for i, c := range b.Columns {
		if c.Field != Buckets {
			for _, k := range rows {
				out.Floats[i] = append(out.Floats[i], b.Floats[i][k])
			}
			continue
		}
		h, to, stride := &b.Hists[i], &out.Hists[i], b.Hists[i].Stride()
		for _, k := range rows {
			to.Sum, to.Counts = append(to.Sum, h.Sum[k]), append(to.Counts, h.Counts[k*stride:(k+1)*stride]...)
		}
	}
	return out
}

// part is rows [from, to), in the same memory.
func (b *Batch) part(from, to int) *Batch {
	p := *b
	p.Lost = nil
	p.Times, p.Epochs = b.Times[from:to], b.Epochs[from:to]
	p.Floats = make([][]float64, len(b.Floats))
	p.Hists = slices.Clone(b.Hists)
	for i, c := range b.Columns {
		if c.Field == Buckets {
			h := &p.Hists[i]
			h.Sum, h.Counts = h.Sum[from:to], h.Counts[from*h.Stride():to*h.Stride()]
		} else {
			p.Floats[i] = b.Floats[i][from:to]
		}
	}
	return &p
}

// Absence says of the last rows that those outside [from, to), unix ms, do not hold column i.
func (b *Batch) Absence(i, rows int, from, to int64) {
	for k := len(b.Times) - rows; k < len(b.Times); k++ {
		if t := b.Times[k]; t >= from && t < to {
			continue
		}
		b.Absent[i] = true
		if b.Columns[i].Field == Buckets {
			b.Hists[i].Sum[k] = stale
		} else {
			b.Floats[i][k] = stale
		}
	}
}

// Left is how many numbers there is room for, and a Batch of the same columns may take.
func (b *Batch) Left() int { return b.left }
