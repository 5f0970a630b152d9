// Package fold makes rows of a coarse step out of finer ones: FORMAT.md 19.5.
//
// It knows columns and nothing else: no files, no clocks, no segments. Rows of one source's table go in, in the order of
// their numbers, as they are in the archive or as they would be written there; out come archive.Rows of the coarser step,
// each with how many rows of tier 0 it was made of. Nothing is interpolated: a window in which there was no row has no row.
//
//	f.Reset(series, 10*time.Second, false, position)
//	for each part: f.Add(&rows)
//	out := f.Flush(false)     // the windows that are over
//
// All that is cumulative is the last row's, so a fold costs a step for each row only where a gauge or a stat's extremes are.
package fold

import (
	"math"
	"slices"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// Folder folds rows of one source's table. Its memory is used again after Reset; it belongs to one goroutine.
type Folder struct {
	ops   []op
	step  int64 // ms
	in    bool  // what comes in is folded
	after uint64

	numbers, coverage, bases []uint64
	times                    []int64
	cells                    [][]uint64 // by field, as archive.Rows has them
	present                  [][]bool
	n                        int  // rows there are, the open one included
	open                     bool // the last one's window may get further rows
	given                    int  // so many of them Flush has answered
	final, estimated, copied bool

	groups []group
	all    [][]bool // Flush's answer, as the next
	out    [][]uint64
	flat   []uint64 // scratch of Add
}

// An op makes one field.
type op struct {
	from  int // column that it is made of
	width int
	how   how
}

type how uint8

const (
	lastOf    how = iota
	leastF64      // not NaN, as the next
	mostF64       //
	leastI64      //
	mostI64       //
	sumF64        // of f64 values, from 0
	sumI64        // of i64 values, as f64, from 0
	howMany       // that are present
	sumCounts     // of counts
)

// group is rows of one window that lie side by side: the part from lo to hi of what came in goes into row.
type group struct{ row, lo, hi int }

// Columns are those that rows of series have, folded or not, in the order of archive.Rows.Cells: what Add wants.
func Columns(series []*reader.Series, folded bool) (c []archive.Column) {
	for _, s := range series {
		for _, f := range archive.Fields(s.Kind, folded) {
			c = append(c, archive.Column{Series: s, Field: f})
		}
	}
	return c
}

// Rows are a Chunk's that was read with Columns. They share its memory.
func Rows(c *archive.Chunk) archive.Rows {
	return archive.Rows{Final: c.Final, Estimated: c.Estimated, Copied: c.Copied, Numbers: c.Numbers, Times: c.Times, Base: c.Base, Coverage: c.Coverage,
		Cells: c.Cells, Present: c.Present}
}

// Number is that of the window of step ms that a time in unix ms lies in: the window (b - 1) x step < t <= b x step has number b. A time
// before 1970 has a number modulo 2^64.
func Number(ms, step int64) uint64 {
	b := ms / step
	if ms%step > 0 {
		b++
	}
	return uint64(b)
}

// Reset begins anew: rows of these series, folded or not, are folded to step, those left out of which tier 0's number is not
// greater than after. What Flush answered before is no longer valid.
func (f *Folder) Reset(series []*reader.Series, step time.Duration, folded bool, after uint64) {
	f.step, f.in, f.after = step.Milliseconds(), folded, after
	f.ops = f.ops[:0]
	from := 0
	for _, s := range series {
		i64 := s.Number == reader.I64
		switch {
		case s.Kind == reader.Histogram:
			f.ops = append(f.ops, op{from, s.Buckets.Count + 3, lastOf})
		case s.Kind == reader.Stat: // count, sum, last, min, max
			f.ops = append(f.ops, op{from, 1, lastOf}, op{from + 1, 1, lastOf}, op{from + 2, 1, lastOf}, op{from + 3, 1, leastF64}, op{from + 4, 1, mostF64})
		case s.Kind != reader.Gauge:
			f.ops = append(f.ops, op{from, 1, lastOf})
		case folded: // last, min, max, sum, count
			f.ops = append(f.ops, op{from, 1, lastOf}, op{from + 1, 1, either(i64, leastI64, leastF64)}, op{from + 2, 1, either(i64, mostI64, mostF64)},
				op{from + 3, 1, sumF64}, op{from + 4, 1, sumCounts})
		default:
			f.ops = append(f.ops, op{from, 1, lastOf}, op{from, 1, either(i64, leastI64, leastF64)}, op{from, 1, either(i64, mostI64, mostF64)},
				op{from, 1, either(i64, sumI64, sumF64)}, op{from, 1, howMany})
		}
		from += len(archive.Fields(s.Kind, folded))
	}
	n := len(f.ops)
	f.cells, f.present = resize(f.cells, n), resize(f.present, n)
	for i := range n {
		f.cells[i], f.present[i] = f.cells[i][:0], f.present[i][:0]
	}
	f.numbers, f.coverage, f.bases, f.times = f.numbers[:0], f.coverage[:0], f.bases[:0], f.times[:0]
	f.n, f.given, f.open = 0, 0, false
	f.final, f.estimated, f.copied = false, false, false
}

func either(c bool, a, b how) how {
	if c {
		return a
	}
	return b
}

func resize[T any](s []T, n int) []T { return slices.Grow(s[:0], n)[:n] }

// Add takes further rows in, with the columns of Columns; a field without Cells has no values. Rows that are not folded count as
// one row of tier 0 each, unless they come with Coverage. The answer is how many of them were new. What Flush answered before is no
// longer valid.
func (f *Folder) Add(r *archive.Rows) int {
	f.letGo()
	bases := f.basesOf(r)
	lo := 0
	for lo < len(bases) && bases[lo] <= f.after {
		lo++
	}
	n := len(bases) - lo
	if n == 0 {
		return 0
	}
	f.after = bases[len(bases)-1]
	f.final, f.estimated, f.copied = f.final || r.Final, f.estimated || r.Estimated, f.copied || r.Copied
	before := f.n
	f.group(r, lo, bases)
	for i := range f.ops {
		o := &f.ops[i]
		f.cells[i] = zeros(f.cells[i], (f.n-before)*o.width)
		f.present[i] = zeros(f.present[i], f.n-before)
		if in := r.Cells[o.from]; in != nil {
			var present []bool
			if r.Present != nil {
				present = r.Present[o.from]
			}
			f.fold(o, f.cells[i], f.present[i], in, present)
		}
	}
	return n
}

func zeros[T any](s []T, n int) []T {
	at := len(s)
	s = slices.Grow(s, n)[:at+n]
	clear(s[at:])
	return s
}

// basesOf are for each row the number of tier 0's last row in it. Of folded rows the last one's is known, and how many rows of
// tier 0 each was made of; where some were lost in between, the answer is more than it was, the same each time, and less than the next
// one's.
func (f *Folder) basesOf(r *archive.Rows) []uint64 {
	if !f.in {
		return r.Numbers
	}
	b := resize(f.flat, len(r.Numbers))
	at := r.Base
	for k := len(b) - 1; k >= 0; k-- {
		b[k] = at
		at -= min(r.Coverage[k], at)
	}
	f.flat = b
	return b
}

// group finds the windows of the rows from lo on, and makes rows of those that are new.
func (f *Folder) group(r *archive.Rows, lo int, bases []uint64) {
	f.groups = f.groups[:0]
	for k := lo; k < len(r.Times); k++ {
		t := r.Times[k]
		b := Number(t, f.step)
		switch {
		case f.open && f.numbers[f.n-1] == b:
			if g := len(f.groups); g == 0 {
				f.groups = append(f.groups, group{f.n - 1, k, k})
			}
		default:
			f.numbers, f.times, f.coverage, f.bases = append(f.numbers, b), append(f.times, 0), append(f.coverage, 0), append(f.bases, 0)
			f.groups = append(f.groups, group{f.n, k, k})
			f.n++
			f.open = true
		}
		f.groups[len(f.groups)-1].hi = k + 1
		at := f.n - 1
		f.times[at], f.bases[at] = t, bases[k]
		if r.Coverage != nil {
			f.coverage[at] += r.Coverage[k]
		} else {
			f.coverage[at]++
		}
	}
}

// fold takes the rows of all groups into one field.
func (f *Folder) fold(o *op, out []uint64, is []bool, in []uint64, present []bool) {
	if o.how == lastOf {
		f.last(o.width, out, is, in, present)
		return
	}
	for _, g := range f.groups {
		if present == nil {
			out[g.row], is[g.row] = o.how.over(out[g.row], is[g.row], in[g.lo:g.hi])
			continue
		}
		for k := g.lo; k < g.hi; k++ {
			if present[k] {
				out[g.row], is[g.row] = o.how.over(out[g.row], is[g.row], in[k:k+1])
			}
		}
	}
}

// last takes the last row of each group that has a value.
func (f *Folder) last(width int, out []uint64, is []bool, in []uint64, present []bool) {
	for _, g := range f.groups {
		k := g.hi - 1
		for k >= g.lo && present != nil && !present[k] {
			k--
		}
		if k < g.lo {
			continue
		}
		if is[g.row] = true; width == 1 {
			out[g.row] = in[k]
		} else {
			copy(out[g.row*width:(g.row+1)*width], in[k*width:(k+1)*width])
		}
	}
}

// over is what values make of what those before them made, if there was any.
func (h how) over(acc uint64, any bool, vals []uint64) (uint64, bool) {
	switch h {
	case leastF64, mostF64:
		for ; !any && len(vals) > 0; vals = vals[1:] {
			if x := math.Float64frombits(vals[0]); x == x {
				acc, any = vals[0], true
			}
		}
		was := math.Float64frombits(acc)
		if h == leastF64 {
			for _, v := range vals {
				if x := math.Float64frombits(v); x < was {
					was = x
				}
			}
		} else {
			for _, v := range vals {
				if x := math.Float64frombits(v); x > was {
					was = x
				}
			}
		}
		return math.Float64bits(was), any
	case leastI64, mostI64:
		if !any {
			acc = vals[0]
		}
		was := int64(acc)
		if h == leastI64 {
			for _, v := range vals {
				was = min(was, int64(v))
			}
		} else {
			for _, v := range vals {
				was = max(was, int64(v))
			}
		}
		return uint64(was), true
	case sumF64:
		sum := math.Float64frombits(acc)
		for _, v := range vals {
			sum += math.Float64frombits(v)
		}
		return math.Float64bits(sum), true
	case sumI64:
		sum := math.Float64frombits(acc)
		for _, v := range vals {
			sum += float64(int64(v))
		}
		return math.Float64bits(sum), true
	case howMany:
		return acc + uint64(len(vals)), true
	case sumCounts:
		for _, v := range vals {
			acc += v
		}
		return acc, true
	}
	return acc, any
}

// Flush answers the rows whose windows are over since the one before: with end, the open one too, and what comes for its window
// later makes a further row of the same number. Source and Starts are left to the caller. The rows are the Folder's memory, and
// valid until the next call of anything else. They are Final or Estimated only with the last row that is.
func (f *Folder) Flush(end bool) (r archive.Rows) {
	f.letGo()
	n := f.n
	if !end { // the last window is open, if there is one
		n--
	}
	if n <= 0 {
		return r
	}
	f.given = n
	f.out = resize(f.out, len(f.ops))
	r = archive.Rows{Numbers: f.numbers[:n], Times: f.times[:n], Coverage: f.coverage[:n], Base: f.bases[n-1], Cells: f.out, Copied: f.copied}
	if n == f.n {
		f.open = false
		r.Final, r.Estimated = f.final, f.estimated
	}
	f.all = resize(f.all, len(f.ops))
	holes := false
	for i := range f.ops {
		r.Cells[i] = f.cells[i][:n*f.ops[i].width]
		f.all[i] = nil
		if p := f.present[i][:n]; slices.Contains(p, false) {
			f.all[i], holes = p, true
		}
	}
	if holes {
		r.Present = f.all
	}
	return r
}

// letGo forgets the rows that Flush has answered.
func (f *Folder) letGo() {
	n := f.given
	if n == 0 {
		return
	}
	f.given = 0
	f.n -= n
	f.numbers, f.times, f.coverage, f.bases = behind(f.numbers, n), behind(f.times, n), behind(f.coverage, n), behind(f.bases, n)
	for i := range f.ops {
		f.cells[i], f.present[i] = behind(f.cells[i], n*f.ops[i].width), behind(f.present[i], n)
	}
	if f.n == 0 {
		f.copied = false
	}
}

func behind[T any](s []T, n int) []T { return s[:copy(s, s[n:])] }
