package fold

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// kinds are a series of each kind and number.
func kinds() []*reader.Series {
	return []*reader.Series{
		{Definition: &reader.Definition{Name: "c", Kind: reader.Counter, Number: reader.U64}},
		{Definition: &reader.Definition{Name: "cf", Kind: reader.Counter, Number: reader.F64}},
		{Definition: &reader.Definition{Name: "u", Kind: reader.UpDown, Number: reader.I64}},
		{Definition: &reader.Definition{Name: "g", Kind: reader.Gauge, Number: reader.F64}},
		{Definition: &reader.Definition{Name: "gi", Kind: reader.Gauge, Number: reader.I64}},
		{Definition: &reader.Definition{Name: "s", Kind: reader.Stat, Number: reader.F64}},
		{Definition: &reader.Definition{Name: "h", Kind: reader.Histogram, Number: reader.F64, Buckets: reader.BucketRange{Scale: 2, Min: -3, Count: 5}}},
		{Definition: &reader.Definition{Name: "hi", Kind: reader.Histogram, Number: reader.U64, Buckets: reader.BucketRange{Scale: 0, Min: 0, Count: 2}}},
	}
}

// cell is a field's words in a row, nil if it has none.
type cell []uint64

// line is a row as the model has it: one value after the other.
type line struct {
	no, base, coverage uint64
	time               int64
	cells              []cell
}

// model folds as FORMAT.md 19.5 says it, a value at a time.
func model(series []*reader.Series, step int64, folded bool, in []line) (out []line) {
	var window []line
	end := func() {
		if len(window) == 0 {
			return
		}
		last := window[len(window)-1]
		o := line{no: Number(last.time, step), base: last.base, time: last.time}
		for _, l := range window {
			o.coverage += l.coverage
		}
		col := 0
		for _, s := range series {
			values := func(i int) (all []uint64) { // of those rows that have one
				for _, l := range window {
					if c := l.cells[col+i]; c != nil {
						all = append(all, c[0])
					}
				}
				return all
			}
			newest := func(i int) (c cell) {
				for _, l := range window {
					if l.cells[col+i] != nil {
						c = l.cells[col+i]
					}
				}
				return c
			}
			extreme := func(i int, sign float64) cell {
				var best cell
				for _, v := range values(i) {
					if s.Number == reader.I64 { // exactly
						if best == nil || new(big.Int).Mul(big.NewInt(int64(v)), big.NewInt(int64(sign))).Cmp(new(big.Int).Mul(big.NewInt(int64(best[0])), big.NewInt(int64(sign)))) > 0 {
							best = cell{v}
						}
					} else if x := math.Float64frombits(v); !math.IsNaN(x) && (best == nil || x*sign > math.Float64frombits(best[0])*sign) {
						best = cell{v}
					}
				}
				return best
			}
			sum := func(i int, integers bool) cell {
				all := values(i)
				if all == nil {
					return nil
				}
				total := 0.0
				for _, v := range all {
					if integers {
						total += float64(int64(v))
					} else {
						total += math.Float64frombits(v)
					}
				}
				return cell{math.Float64bits(total)}
			}
			switch {
			case s.Kind == reader.Stat:
				o.cells = append(o.cells, newest(0), newest(1), newest(2), extreme(3, -1), extreme(4, 1))
			case s.Kind == reader.Gauge && folded:
				o.cells = append(o.cells, newest(0), extreme(1, -1), extreme(2, 1), sum(3, false))
				var n cell
				for _, v := range values(4) {
					if n == nil {
						n = cell{0}
					}
					n[0] += v
				}
				o.cells = append(o.cells, n)
			case s.Kind == reader.Gauge:
				o.cells = append(o.cells, newest(0), extreme(0, -1), extreme(0, 1), sum(0, s.Number == reader.I64))
				var n cell
				if all := values(0); all != nil {
					n = cell{uint64(len(all))}
				}
				o.cells = append(o.cells, n)
			default:
				o.cells = append(o.cells, newest(0))
			}
			col += len(archive.Fields(s.Kind, folded))
		}
		out = append(out, o)
		window = nil
	}
	for _, l := range in {
		if len(window) > 0 && Number(window[0].time, step) != Number(l.time, step) {
			end()
		}
		window = append(window, l)
	}
	end()
	return out
}

func widths(series []*reader.Series, folded bool) (w []int) {
	for _, c := range Columns(series, folded) {
		n := 1
		if c.Field == archive.Hist {
			n = c.Series.Buckets.Count + 3
		}
		w = append(w, n)
	}
	return w
}

// rowsOf makes columns of lines.
func rowsOf(series []*reader.Series, folded bool, lines []line) (r archive.Rows) {
	w := widths(series, folded)
	r.Cells, r.Present = make([][]uint64, len(w)), make([][]bool, len(w))
	for _, l := range lines {
		r.Numbers, r.Times, r.Base = append(r.Numbers, l.no), append(r.Times, l.time), l.base
		if folded {
			r.Coverage = append(r.Coverage, l.coverage)
		}
		for i, c := range l.cells {
			r.Present[i] = append(r.Present[i], c != nil)
			if c == nil {
				c = make(cell, w[i]) // what is absent is 0
			}
			r.Cells[i] = append(r.Cells[i], c...)
		}
	}
	for i, p := range r.Present {
		switch {
		case !slices.Contains(p, false):
			r.Present[i] = nil
		case !slices.Contains(p, true):
			r.Cells[i] = nil // as Read has it of a column that the rows don't have
		}
	}
	return r
}

// linesOf is the reverse.
func linesOf(series []*reader.Series, folded bool, r *archive.Rows) (out []line) {
	w := widths(series, folded)
	for k := range r.Times {
		l := line{no: r.Numbers[k], base: r.Numbers[k], coverage: 1, time: r.Times[k]}
		if folded {
			l.base, l.coverage = 0, r.Coverage[k]
		}
		for i := range w {
			if r.Present != nil && r.Present[i] != nil && !r.Present[i][k] {
				l.cells = append(l.cells, nil)
			} else {
				l.cells = append(l.cells, slices.Clone(r.Cells[i][k*w[i]:(k+1)*w[i]]))
			}
		}
		out = append(out, l)
	}
	if n := len(out); n > 0 && folded {
		out[n-1].base = r.Base
	}
	return out
}

// random makes base rows: with gaps, clocks that are stepped back, series that come and go, and every odd value.
func random(rng *rand.Rand, series []*reader.Series, n int, step int64) (out []line) {
	t := int64(1_700_000_000_000) + rng.Int64N(600_000)
	w := widths(series, false)
	no := uint64(rng.IntN(3))
	totals := map[int]uint64{}
	type life struct{ born, retired int }
	lives := make([]life, len(series))
	for i := range lives {
		if rng.IntN(2) == 0 {
			lives[i] = life{rng.IntN(n), rng.IntN(2 * n)}
		} else {
			lives[i] = life{0, math.MaxInt}
		}
	}
	exact := func() float64 { return float64(rng.IntN(1<<20)-1<<19) / 64 }
	odd := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), 5e-324, math.Float64frombits(0x7ff8000000000001)}
	gauge := func() uint64 {
		if rng.IntN(8) == 0 {
			return math.Float64bits(odd[rng.IntN(len(odd))])
		}
		return math.Float64bits(exact())
	}
	for k := range n {
		no++
		t += step + rng.Int64N(7) - 3
		switch rng.IntN(60) {
		case 0: // rows are missing
			lost := uint64(rng.IntN(700))
			no, t = no+lost, t+int64(lost)*step
		case 1: // the writer slept
			t += rng.Int64N(500_000)
		case 2: // the clock is stepped back
			t -= rng.Int64N(20_000)
		}
		l := line{no: no, base: no, coverage: 1, time: t}
		col := 0
		for i, s := range series {
			held := k >= lives[i].born && k < lives[i].retired
			for f := range archive.Fields(s.Kind, false) {
				var c cell
				switch {
				case !held:
				case s.Kind == reader.Histogram:
					c = make(cell, w[col+f])
					for b := range c {
						totals[100*i+b] += uint64(rng.IntN(5))
						c[b] = totals[100*i+b]
					}
				case s.Kind == reader.Gauge && s.Number == reader.I64:
					c = cell{rng.Uint64()}
					if rng.IntN(3) > 0 {
						c[0] = uint64(int64(rng.IntN(2000) - 1000))
					}
				case s.Kind == reader.Gauge, s.Kind == reader.Stat && f >= 2:
					c = cell{gauge()}
				default:
					totals[100*i+f] += uint64(rng.IntN(50))
					c = cell{totals[100*i+f]}
				}
				if may := s.Kind == reader.Gauge || s.Kind == reader.Stat && f >= 2; may && rng.IntN(5) == 0 {
					c = nil // unset
				}
				l.cells = append(l.cells, c)
			}
			col += len(archive.Fields(s.Kind, false))
		}
		out = append(out, l)
	}
	return out
}

// equal holds two runs of lines against each other; loose sums may differ in their last digits.
func equal(t *testing.T, series []*reader.Series, what string, want, got []line, bases, loose bool) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: want %d rows, got %d", what, len(want), len(got))
	}
	columns := Columns(series, true)
	for k := range want {
		w, g := want[k], got[k]
		if w.no != g.no || w.time != g.time || w.coverage != g.coverage || bases && w.base != g.base {
			t.Fatalf("%s: row %d: want number %d, time %d, coverage %d, base %d, got %d, %d, %d, %d", what, k, w.no, w.time, w.coverage, w.base, g.no, g.time, g.coverage, g.base)
		}
		for i := range w.cells {
			if slices.Equal(w.cells[i], g.cells[i]) && (w.cells[i] == nil) == (g.cells[i] == nil) {
				continue
			}
			if f := columns[i].Field; w.cells[i] != nil && g.cells[i] != nil && f == archive.Sum && columns[i].Series.Kind == reader.Gauge {
				a, b := math.Float64frombits(w.cells[i][0]), math.Float64frombits(g.cells[i][0])
				if math.IsNaN(a) && math.IsNaN(b) || loose && math.Abs(a-b) <= 1e-12*max(math.Abs(a), 1e19) {
					continue
				}
			}
			t.Fatalf("%s: row %d: %s, field %d: want %x, got %x", what, k, columns[i].Series.Name, columns[i].Field, w.cells[i], g.cells[i])
		}
	}
}

// split cuts rows into parts of random length, as blocks would.
func split(rng *rand.Rand, lines []line) (parts [][]line) {
	for len(lines) > 0 {
		n := min(len(lines), 1+rng.IntN(80))
		parts = append(parts, lines[:n])
		lines = lines[n:]
	}
	return parts
}

// run folds lines that come in parts, flushed at random times, each time from the position that the rows before said.
func run(rng *rand.Rand, f *Folder, series []*reader.Series, step time.Duration, folded bool, lines []line) (out []line) {
	parts := split(rng, lines)
	var images []archive.Rows
	for _, p := range parts {
		images = append(images, rowsOf(series, folded, p))
	}
	after := uint64(0)
	f.Reset(series, step, folded, 0)
	for i := range images {
		f.Add(&images[i])
		end := i == len(images)-1
		if !end && rng.IntN(2) == 0 {
			continue
		}
		r := f.Flush(end)
		if len(r.Times) > 0 {
			out = append(out, linesOf(series, true, &r)...)
			after = r.Base
		}
		if rng.IntN(2) == 0 { // another process goes on: it reads everything again
			f.Reset(series, step, folded, after)
			for j := range i + 1 {
				f.Add(&images[j])
			}
		}
	}
	return out
}

func TestModel(t *testing.T) {
	var f Folder
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		series := kinds()
		rng.Shuffle(len(series), func(i, j int) { series[i], series[j] = series[j], series[i] })
		step := []int64{100, 250, 1000, 1000, 1000, 3000}[rng.IntN(6)]
		to := []time.Duration{time.Second, 10 * time.Second, 7 * time.Second, 5 * time.Minute, time.Hour}[rng.IntN(5)]
		base := random(rng, series, 1+rng.IntN(1500), step)
		want := model(series, to.Milliseconds(), false, base)
		got := run(rng, &f, series, to, false, base)
		equal(t, series, fmt.Sprintf("seed %d, %d ms to %v", seed, step, to), want, got, false, false)
	}
}

// What is folded in two steps is what is folded in one. Sums of a gauge are f64 additions in another order: equal where they are exact, else to
// their last digits.
func TestTwoSteps(t *testing.T) {
	var f Folder
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		series := kinds()
		base := random(rng, series, 1+rng.IntN(3000), 1000)
		mid := model(series, 10_000, false, base)
		want := model(series, 300_000, false, base)
		equal(t, series, fmt.Sprintf("seed %d: the model", seed), want, model(series, 300_000, true, mid), true, true)
		first := run(rng, &f, series, 10*time.Second, false, base)
		for i := range first { // of which run knows the last one's alone
			first[i].base = mid[i].base
		}
		got := run(rng, &f, series, 5*time.Minute, true, first)
		equal(t, series, fmt.Sprintf("seed %d", seed), want, got, false, true)
	}
}

// Values of which every sum is exact in f64 give the same bits in one step and in two.
func TestTwoStepsExact(t *testing.T) {
	series := kinds()[3:4]
	rng := rand.New(rand.NewPCG(1, 1))
	var base []line
	for k := range 2000 {
		base = append(base, line{no: uint64(k + 1), base: uint64(k + 1), coverage: 1, time: int64(k+1) * 1000, cells: []cell{{math.Float64bits(float64(rng.IntN(1<<30)) / 1024)}}})
	}
	want := model(series, 300_000, false, base)
	equal(t, series, "two steps", want, model(series, 300_000, true, model(series, 10_000, false, base)), true, false)
}

// Positions: where rows of tier 0 were lost in between, a row's base is found the same each time, and nothing is taken twice or left out.
func TestBaseOfFoldedRows(t *testing.T) {
	series := kinds()[:1]
	var lines []line
	for k, base := range []uint64{10, 20, 95, 100} { // 65 rows lost before the third
		lines = append(lines, line{no: uint64(k + 1), base: base, coverage: []uint64{10, 10, 7, 5}[k], time: int64(k+1) * 10_000, cells: []cell{{base}}})
	}
	r := rowsOf(series, true, lines)
	var f Folder
	f.Reset(series, 20*time.Second, true, 0)
	if n := f.Add(&r); n != 4 {
		t.Fatalf("want 4 new rows, got %d", n)
	}
	first := f.Flush(false)
	if len(first.Times) != 1 || first.Coverage[0] != 20 {
		t.Fatalf("want one row of 20, got %+v", first)
	}
	base := first.Base
	if base < 20 || base >= 95 {
		t.Errorf("want a base from 20 to 94, got %d", base)
	}
	f.Reset(series, 20*time.Second, true, base)
	if n := f.Add(&r); n != 2 {
		t.Errorf("want 2 rows behind %d, got %d", base, n)
	}
	if r := f.Flush(true); len(r.Times) != 1 || r.Coverage[0] != 12 || r.Base != 100 || r.Cells[0][0] != 100 {
		t.Errorf("want one row of 12 up to 100, got %+v", r)
	}
}

// The last row's flags come out with it and not before; copies say so.
func TestFlags(t *testing.T) {
	series := kinds()[:1]
	var lines []line
	for k := range 15 {
		lines = append(lines, line{no: uint64(k + 1), base: uint64(k + 1), coverage: 1, time: int64(k+1) * 1000, cells: []cell{{1}}})
	}
	r := rowsOf(series, false, lines)
	r.Estimated = true
	var f Folder
	f.Reset(series, 10*time.Second, false, 0)
	f.Add(&r)
	if r := f.Flush(false); len(r.Times) != 1 || r.Estimated || r.Final || r.Copied {
		t.Errorf("want one row without flags, got %+v", r)
	}
	if r := f.Flush(true); len(r.Times) != 1 || !r.Estimated || r.Final || r.Coverage[0] != 5 {
		t.Errorf("want an estimated row of 5, got %+v", r)
	}
	if r := f.Flush(true); len(r.Times) != 0 {
		t.Errorf("want nothing left, got %+v", r)
	}
	r.Copied = true
	f.Reset(series, 10*time.Second, false, 3)
	f.Add(&r)
	if r := f.Flush(true); len(r.Times) != 2 || !r.Copied || r.Coverage[0] != 7 {
		t.Errorf("want two rows that are copies, the first of 7, got %+v", r)
	}
}

// A Folder goes on behind what it has answered: windows that were cut, rows that come again, flags, and what Reset forgets.
func TestGoesOn(t *testing.T) {
	series := kinds()[:1]
	part := func(from, to int) archive.Rows {
		var lines []line
		for k := from; k <= to; k++ {
			lines = append(lines, line{no: uint64(k), base: uint64(k), coverage: 1, time: int64(k) * 1000, cells: []cell{{uint64(100 * k)}}})
		}
		return rowsOf(series, false, lines)
	}
	var f Folder
	add := func(from, to, fresh int, change ...func(*archive.Rows)) {
		t.Helper()
		r := part(from, to)
		for _, c := range change {
			c(&r)
		}
		if n := f.Add(&r); n != fresh {
			t.Errorf("rows %d to %d: want %d new ones, got %d", from, to, fresh, n)
		}
	}
	type row struct {
		number, coverage uint64
		time             int64
	}
	flush := func(end bool, flags string, want ...row) {
		t.Helper()
		r := f.Flush(end)
		var got []row
		for k := range r.Times {
			if v := uint64(r.Times[k] / 10); r.Cells[0][k] != v {
				t.Errorf("row %d: want the value %d of its last row, got %d", k, v, r.Cells[0][k])
			}
			got = append(got, row{r.Numbers[k], r.Coverage[k], r.Times[k]})
		}
		if !slices.Equal(got, want) {
			t.Errorf("want %v, got %v", want, got)
		}
		if n := len(want); n > 0 && r.Base != uint64(want[n-1].time/1000) {
			t.Errorf("want base %d, got %d", want[n-1].time/1000, r.Base)
		}
		is := fmt.Sprint(r.Final, r.Estimated, r.Copied)
		if is != flags {
			t.Errorf("%v: want final, estimated, copied %s, got %s", want, flags, is)
		}
	}
	copied := func(r *archive.Rows) { r.Copied = true }
	final := func(r *archive.Rows) { r.Final = true }
	f.Reset(series, 10*time.Second, false, 0)
	add(1, 13, 13, copied)
	add(9, 17, 4) // some of them again
	add(3, 17, 0)
	flush(false, "false false true", row{1, 10, 10_000})
	flush(true, "false false true", row{2, 7, 17_000}) // cut, without another row since
	add(18, 24, 7)                                     // a further row of the same window, and none of it is a copy
	flush(false, "false false false", row{2, 3, 20_000})
	flush(false, "false false false")
	add(25, 32, 8)
	flush(false, "false false false", row{3, 10, 30_000})
	add(33, 35, 3, final)
	flush(false, "false false false")
	flush(true, "true false false", row{4, 5, 35_000})
	flush(true, "false false false")
	f.Reset(series, 10*time.Second, false, 1) // another source
	add(1, 12, 11)
	flush(true, "false false false", row{1, 9, 10_000}, row{2, 2, 12_000})
	add(13, 14, 2, final, copied, func(r *archive.Rows) { r.Estimated = true })
	f.Reset(series, 10*time.Second, false, 0) // what was not asked for is forgotten
	add(1, 2, 2)
	flush(true, "false false false", row{1, 2, 2000})
	add(3, 3, 1, final)
	add(4, 4, 1, func(r *archive.Rows) { r.Estimated = true })
	flush(true, "true true false", row{1, 2, 4000})
}

// Windows are half open: (b-1) x step < t <= b x step.
func TestNumber(t *testing.T) {
	for _, c := range []struct {
		ms   int64
		want int64
	}{{1, 1}, {9999, 1}, {10_000, 1}, {10_001, 2}, {20_000, 2}, {0, 0}, {-1, 0}, {-9999, 0}, {-10_000, -1}} {
		if got := Number(c.ms, 10_000); got != uint64(c.want) {
			t.Errorf("%d ms: want number %d, got %d", c.ms, c.want, int64(got))
		}
	}
}

// A percentile of any window is the same from every step: buckets are counts that only grow, so that the rows at the window's ends are all
// that it takes, and they are the same rows.
func TestQuantiles(t *testing.T) {
	shape := layout.BucketRange{Scale: 3, Min: -80, Count: 160}
	series := []*reader.Series{{Definition: &reader.Definition{Name: "latency", Kind: reader.Histogram, Number: reader.F64, Buckets: shape}}, {Definition: &reader.Definition{Name: "latency", Kind: reader.Histogram, Number: reader.F64, Buckets: shape, Labels: []reader.Pair{{Name: "a", Value: "b"}}}}}
	s, err := archive.NewSchema(0, "histograms", series)
	if err != nil {
		t.Fatal(err)
	}
	m := archivetest.New(time.Second, 10*time.Second, 5*time.Minute)
	const sources, rows = 3, 3600
	begin := int64(1_700_000_100_000) // a multiple of 5 m
	for i := range sources {
		src := &archive.Source{Key: archive.Key{Segment: [16]byte{byte(i + 1)}}, Birth: begin * 1e6, Labels: []reader.Pair{{Name: "instance", Value: fmt.Sprint(i)}, {Name: "job", Value: "j"}}}
		rng := rand.New(rand.NewPCG(uint64(i), 7))
		var lines []line
		now := []cell{make(cell, shape.Count+3), make(cell, shape.Count+3)}
		for k := range rows {
			l := line{no: uint64(k + 1), base: uint64(k + 1), coverage: 1, time: begin + int64(k+1)*1000}
			for c := range now {
				now[c] = slices.Clone(now[c])
				for range rng.IntN(4) {
					v := math.Exp(rng.NormFloat64()*2 - 3)
					now[c][0] = math.Float64bits(math.Float64frombits(now[c][0]) + v)
					now[c][2+min(max(int(math.Ceil(math.Log2(v)*8))-1-shape.Min, 0), shape.Count-1)]++
				}
				l.cells = append(l.cells, now[c])
			}
			lines = append(lines, l)
		}
		r := rowsOf(series, false, lines)
		r.Source, r.Starts = src, make([]int64, len(series))
		put := func(tier int, step time.Duration, r archive.Rows) {
			if err := m.Append(tier, &archive.Block{Schema: s, Step: step, Folded: tier > 0, Sources: []archive.Rows{r}}); err != nil {
				t.Fatal(err)
			}
		}
		put(0, time.Second, r)
		var f Folder
		for tier, step := range []time.Duration{10 * time.Second, 5 * time.Minute} {
			found, err := m.Find(src.Segment)
			if err != nil || len(found) != 1 {
				t.Fatalf("want one incarnation, got %d, %v", len(found), err)
			}
			inc := found[0]
			f.Reset(inc.Series, step, tier > 0, 0)
			for c, err := range m.Read(inc, 0, tier, math.MinInt64, math.MaxInt64, Columns(inc.Series, tier > 0)) {
				if err != nil {
					t.Fatal(err)
				}
				r := Rows(c)
				f.Add(&r)
			}
			out := f.Flush(true)
			out.Source, out.Starts = src, make([]int64, len(series))
			put(tier+1, step, out)
		}
	}
	// quantiles over all sources and both series of what was recorded in (from, to], out of a tier's rows.
	quantiles := func(tier int, from, to int64) (q [4]float64) {
		sum := make(cell, shape.Count+3)
		for i := range sources {
			found, err := m.Find([16]byte{byte(i + 1)})
			if err != nil {
				t.Fatal(err)
			}
			inc := found[0]
			for c, err := range m.Read(inc, 0, tier, from, to, Columns(inc.Series, tier > 0)) {
				if err != nil {
					t.Fatal(err)
				}
				w := shape.Count + 3
				for _, cells := range c.Cells {
					for k, ms := range c.Times {
						if ms != from && ms != to {
							continue
						}
						for b := 1; b < w; b++ {
							if ms == to {
								sum[b] += cells[k*w+b]
							} else {
								sum[b] -= cells[k*w+b]
							}
						}
					}
				}
			}
		}
		v := reader.Value{Kind: reader.Histogram, Number: reader.F64, Buckets: sum[2 : 2+shape.Count], Zero: sum[1], Above: sum[shape.Count+2]}
		for _, n := range sum[1:] {
			v.Count += n
		}
		for i, p := range []float64{0.5, 0.9, 0.99, 0.999} {
			q[i] = v.Quantile(shape, p)
		}
		return q
	}
	const step = 300_000
	for _, w := range [][2]int64{{1, 2}, {1, 12}, {3, 7}, {11, 12}} {
		from, to := begin+w[0]*step, begin+w[1]*step
		want := quantiles(0, from, to)
		if want[0] != want[0] || want[0] == want[3] {
			t.Fatalf("windows %v: want quantiles that tell something, got %v", w, want)
		}
		for tier := 1; tier <= 2; tier++ {
			if got := quantiles(tier, from, to); got != want {
				t.Errorf("windows %v: want %v as from rows of 1 s, got %v from tier %d", w, want, got, tier)
			}
		}
	}
}

func BenchmarkFold(b *testing.B) {
	series := make([]*reader.Series, 100)
	for i := range series {
		series[i] = &reader.Series{Definition: &reader.Definition{Name: fmt.Sprint("c", i), Kind: reader.Counter, Number: reader.U64}}
		if i%3 == 0 {
			series[i].Kind, series[i].Number = reader.Gauge, reader.F64
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	r := rowsOf(series, false, random(rng, series, 600, 1000))
	var f Folder
	b.ReportAllocs()
	for b.Loop() {
		f.Reset(series, 10*time.Second, false, 0)
		f.Add(&r)
		f.Flush(true)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/600/100, "ns/value")
}
