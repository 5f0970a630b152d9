package forecast

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// Load is what is to be archived.
type Load struct {
	Job, Instance string
	Labels        []reader.Pair // further ones of each source
	Tables        []Table
	Processes     int           // that live on
	Churn         float64       // and that come and go, beginning so many an hour
	Life          time.Duration // each of those
	Ephemeral     bool          // those that live less than half a step are added to a sum in folded tiers: FORMAT.md 19.6

	// Constant is the part of counters, gauges and stats, 0 to 1, whose values stay as they are from block to block.
	Constant float64
	// Rate is how often a second something happens that a series counts: the median of the counters, which are spread
	// lognormally (sigma 2) around it, and what a stat or a histogram records.
	Rate float64
}

// Table is one of each process. A third of gauges are whole numbers, a third have one decimal, a third all digits of an f64.
type Table struct {
	Step                                                  time.Duration // of tier 0
	Rows                                                  int           // of its ring
	Counters, Updowns, Gauges, Stats, Histograms, Buckets int
}

func (t *Table) series() int { return t.Counters + t.Updowns + t.Gauges + t.Stats + t.Histograms }

// schema is a table's, with names as people give them.
func (t *Table) schema(number int) (*archive.Schema, error) {
	var all []*reader.Series
	add := func(n int, kind reader.Kind, number reader.Number, name, unit string) {
		for i := range n {
			s := &reader.Series{Definition: &reader.Definition{Kind: kind, Number: number, Name: fmt.Sprintf("subsystem_%s_%02d_%s", part(i), i, name), Unit: unit, Help: fmt.Sprintf("What the %s's part number %d counts.", part(i), i)}}
			if kind == reader.Histogram {
				s.Buckets = reader.BucketRange{Scale: 3, Min: -t.Buckets / 2, Count: t.Buckets}
			}
			all = append(all, s)
		}
	}
	add(t.Counters, reader.Counter, reader.U64, "events_total", "{event}")
	add(t.Updowns, reader.UpDown, reader.I64, "in_flight", "{request}")
	for i := range t.Gauges {
		number := reader.F64
		if i%3 == 0 {
			number = reader.I64
		}
		add(1, reader.Gauge, number, fmt.Sprintf("level_%02d", i), "By")
	}
	add(t.Stats, reader.Stat, reader.F64, "wait_seconds", "s")
	add(t.Histograms, reader.Histogram, reader.F64, "latency_seconds", "s")
	return archive.NewSchema(number, fmt.Sprintf("table%d", number), all)
}

func part(i int) string {
	return []string{"input", "output", "parser", "cache", "session", "worker", "queue"}[i%7]
}

// drawn is a source's rows in a block, by field.
type drawn struct {
	cells   [][]uint64
	present [][]bool
}

// draw draws n rows of a table.
func (l *Load) draw(s *stream, schema *archive.Schema, seed uint64) drawn {
	r := rand.New(rand.NewPCG(seed, 7))
	var d drawn
	n := s.rows
	seconds := s.step.Seconds()
	scalars, still := 0, 0
	field := func(present []bool, cells []uint64) {
		d.cells, d.present = append(d.cells, cells), append(d.present, present)
	}
	column := func(f func(row int) uint64) []uint64 {
		c := make([]uint64, n)
		for i := range c {
			c[i] = f(i)
		}
		return c
	}
	for i, sr := range schema.Series {
		constant := false
		if sr.Kind != reader.Histogram {
			scalars++
			if constant = int(float64(scalars)*l.Constant) > still; constant {
				still++
			}
		}
		rate := l.Rate * math.Exp(2*r.NormFloat64()) // events a second
		if constant {
			rate = 0
		}
		switch sr.Kind {
		case reader.Counter:
			count := uint64(r.ExpFloat64() * (1 + rate) * 3600 * 24)
			field(nil, column(func(int) uint64 { count += poisson(r, rate*seconds); return count }))
		case reader.UpDown:
			level := int64(r.IntN(100))
			field(nil, column(func(int) uint64 {
				if rate > 0 {
					level += int64(math.Round(r.NormFloat64() * math.Sqrt(rate*seconds)))
				}
				return uint64(level)
			}))
		case reader.Gauge:
			l.gauge(r, s, i, sr.Number == reader.I64, rate, field)
		case reader.Stat:
			l.stat(r, s, constant, field)
		case reader.Histogram:
			field(nil, l.histogram(r, s, sr.Buckets.Count))
		}
	}
	return d
}

func (l *Load) gauge(r *rand.Rand, s *stream, i int, whole bool, rate float64, field func([]bool, []uint64)) {
	n, covers := s.rows, s.covers
	value := math.Abs(r.NormFloat64()) * 100
	if whole {
		value = math.Round(value)
	}
	next := func() float64 {
		switch {
		case rate == 0:
		case whole:
			value = max(0, value+math.Round(r.NormFloat64()*math.Sqrt(rate*s.table.Step.Seconds())))
		case i%2 == 0:
			value += r.NormFloat64() / 5
			return math.Round(value*10) / 10
		default:
			value = r.Float64()
		}
		return value
	}
	word := func(v float64) uint64 {
		if whole {
			return uint64(int64(v))
		}
		return math.Float64bits(v)
	}
	if !s.folded {
		c := make([]uint64, n)
		for k := range c {
			c[k] = word(next())
		}
		field(nil, c)
		return
	}
	const most = 30 // draws for a folded row: more would change its bits no more
	var all [5][]uint64
	for range n {
		least, greatest, sum, last := math.Inf(1), math.Inf(-1), 0.0, 0.0
		draws := min(covers, most)
		for range draws {
			last = next()
			least, greatest, sum = min(least, last), max(greatest, last), sum+last
		}
		sum *= float64(covers) / float64(draws)
		for f, w := range [5]uint64{word(last), word(least), word(greatest), math.Float64bits(sum), uint64(covers)} {
			all[f] = append(all[f], w)
		}
	}
	for _, c := range all {
		field(nil, c)
	}
}

func (l *Load) stat(r *rand.Rand, s *stream, constant bool, field func([]bool, []uint64)) {
	count, sum, last := uint64(l.Rate*3600), l.Rate*3600*0.007, r.ExpFloat64()*0.007
	var all [5][]uint64
	recorded := make([]bool, s.rows)
	for k := range s.rows {
		n := uint64(0)
		if !constant {
			n = poisson(r, l.Rate*s.step.Seconds())
		}
		least, greatest := 0.0, 0.0
		if n > 0 {
			recorded[k] = true
			last = r.ExpFloat64() * 0.007
			least, greatest = last/float64(n)*r.Float64(), last*(1+math.Log(float64(n))*r.Float64())
			sum += 0.007 * (float64(n) + r.NormFloat64()*math.Sqrt(float64(n)))
		}
		count += n
		for f, w := range [5]uint64{count, math.Float64bits(sum), math.Float64bits(last), math.Float64bits(least), math.Float64bits(greatest)} {
			all[f] = append(all[f], w)
		}
	}
	for f, c := range all {
		if f < 3 {
			field(nil, c)
		} else {
			field(recorded, c)
		}
	}
}

// histogram draws sum, zero, buckets and above of each row: lognormal observations whose logarithm has a standard deviation of 0.5.
func (l *Load) histogram(r *rand.Rand, s *stream, buckets int) []uint64 {
	const sigma = 0.5
	width := sigma / (math.Ln2 / 8)
	below := func(b int) float64 { return math.Erfc(-(float64(b)-float64(buckets)/2)/(width*math.Sqrt2)) / 2 }
	c := make([]uint64, s.rows*(buckets+3))
	for b := range buckets {
		share := below(b+1) - below(b)
		count := poisson(r, l.Rate*3600*share)
		for k := range s.rows {
			count += poisson(r, l.Rate*s.step.Seconds()*share)
			c[k*(buckets+3)+2+b] = count
		}
	}
	sum := l.Rate * 3600
	for k := range s.rows {
		n := l.Rate * s.step.Seconds()
		if n >= 1 || r.Float64() < n {
			sum += max(n, 1) * (1 + 0.1*r.NormFloat64())
		}
		c[k*(buckets+3)] = math.Float64bits(sum)
	}
	return c
}

// poisson draws how many events there were, of which mean are expected.
func poisson(r *rand.Rand, mean float64) uint64 {
	if mean > 50 { // near enough to a normal distribution
		return uint64(max(0, math.Round(mean+r.NormFloat64()*math.Sqrt(mean))))
	}
	n, limit := uint64(0), math.Exp(-mean)
	for p := r.Float64(); p > limit; p *= r.Float64() {
		n++
	}
	return n
}
