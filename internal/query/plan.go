package query

import (
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"github.com/shmts/shmts/reader"
)

// A gap of more than gapSteps steps ends a series until the next row: staleAfter later
// PromQL no longer sees it.
const gapSteps = 2.5

func staleAfter(step int64) int64 { return int64(float64(step) * gapSteps) }

// plan is what one selector reads, for whatever series: it is made of the engine's hints, once.
//
// Tiers. Every row of every tier is exact, so the question is only how many are needed:
//
//   - rate, increase: the coarsest tier with step <= range / 5;
//   - min_over_time, max_over_time of a stat: the same, as its columns fold every base row's window;
//   - any other range function: the finest;
//   - instant selectors: the coarsest with step <= query step / 2, so the finest in an instant query;
//
// where none is fine enough, the finest; and whatever the function, the coarsest with step <=
// max_source_resolution where a client gives that. Time before that tier's oldest row comes from
// the next coarser tiers. Where neither has a row yet, in a young process, the finer ones answer.
//
// Archives. What is folded is so later than what it is made of, by design: time behind a coarse tier's newest row comes from the
// next finer tiers, and so does what no coarser one has. A writer's own ring goes before folded rows of the same step.
// samples.go has how it is put together.
//
// Columns. A stat's own name is its last value, but min_over_time and max_over_time read its min and
// max. So do those of a gauge, where rows are folded: the ring of a writer's coarser tier has samples of a gauge, no more, so that
// it answers for neither. sum_over_time reads a gauge's sums, or its counts where rewrite says so: see weigh.go. functions.go has what
// each function of the language reads.
//
// Zeros. Additive series begin with 0 at the time of their registration for the functions that subtract.
type plan struct {
	fn         string
	start, end int64 // unix ms, inclusive
	first      int64 // the first instant that is evaluated, of instant selectors
	rng, step  int64 // ms; rng 0: an instant selector
	override   int64 // ms: the step that is coarse enough, if the client says so
	zeros      bool
	rows       bool // the rows are wanted, and not what they say: see rowsMark
}

func newPlan(h *storage.SelectHints, mint, maxt, lookback, override int64) plan {
	p := plan{start: mint, end: maxt, first: mint, override: override}
	if h != nil {
		p.fn, p.start, p.end, p.rng, p.step = h.Func, h.Start, h.End, h.Range, h.Step
		p.first = p.start
		if p.rng == 0 && lookback > 0 {
			// The engine asks for a lookback before the first instant. Our series go stale sooner.
			p.first = min(p.start+lookback-1, p.end)
		}
	}
	switch p.fn {
	case "rate", "increase", "irate", "resets":
		p.zeros = p.rng > 0
	}
	return p
}

// column is the field that answers for f.
func (p *plan) column(kind reader.Kind, f Field) Field {
	if (kind == reader.Stat || kind == reader.Gauge) && f == Value && p.rng > 0 {
		switch p.fn {
		case "min_over_time":
			return Min
		case "max_over_time":
			return Max
		}
	}
	if p.weighs() && kind == reader.Gauge && f == Value {
		if p.rows {
			return Count
		}
		return Sum
	}
	return f
}

// most is the step in ms that is coarse enough for c. 0: the finest tier alone will do.
func (p *plan) most(c Column, additive bool) int64 {
	switch {
	case p.override > 0:
		return p.override
	case p.rng == 0:
		return p.step / 2
	case additive && (p.fn == "rate" || p.fn == "increase"),
		c.Field == Min && p.fn == "min_over_time", c.Field == Max && p.fn == "max_over_time":
		return p.rng / 5
	}
	return 0
}

// tier is the one that should answer, of tiers finest first, and what others may: a bit for each. Spans are nil
// where nothing is archived.
func (p *plan) tier(c Column, additive bool, tiers []reader.Tier, spans []Span) (best int, others uint32) {
	others = 1<<len(tiers) - 1
	// exact tells whether tier k says of a gauge's least, greatest, sum and count what all rows of the finest would.
	exact := func(int) bool { return true }
	if c.Series != nil && c.Series.Kind == reader.Gauge && c.Field != Value {
		exact = func(k int) bool { return k == 0 || spans != nil && spans[k].Folded }
		folded := false
		for k := 1; k < len(tiers); k++ {
			folded = folded || exact(k)
		}
		for k := range tiers {
			if folded && !exact(k) {
				others &^= 1 << k
			}
		}
	}
	most := p.most(c, additive)
	for k := range tiers {
		if step := tiers[k].Step; exact(k) && step > tiers[best].Step && step.Milliseconds() <= most {
			best = k
		}
	}
	return best, others
}

// begin is where to begin reading a tier: instant selectors need no row that has gone stale before
// the first instant. Rows are known up to known.
func (p *plan) begin(step, known int64) int64 {
	if p.rng > 0 {
		return p.start
	}
	return max(p.start, min(p.first, known)-staleAfter(step))
}

// newest tells whether the newest row of the span is all that is asked for: an instant selector at one instant. If that row does
// not hold a series, or no value of it, the series is stale there, whatever came before.
func (p *plan) newest() bool { return p.rng == 0 && p.first == p.end }

// covered tells whether a tier whose oldest row since lo is at oldest leaves nothing for others to say of the time before.
func (p *plan) covered(lo, oldest, step, known int64) bool {
	if p.rng > 0 || lo != p.start {
		return oldest-lo <= step
	}
	return oldest <= min(p.first, known)
}

// selection is what the plan wants of Sources.
func (p *plan) selection(matchers []*labels.Matcher) Selection {
	s := Selection{From: p.start, To: p.end, First: p.start, Matchers: matchers}
	if p.rng == 0 {
		s.First = p.first
	}
	return s
}

// additive tells the fields that never fall while their process lives.
func additive(s *reader.Series, f Field) bool {
	switch f {
	case Value:
		return s.Kind == reader.Counter
	case Sum:
		return s.NonNegative
	case Count:
		return s.Kind == reader.Stat
	}
	return f == Buckets
}
