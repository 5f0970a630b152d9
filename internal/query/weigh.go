package query

import (
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/reader"
)

// Sums and counts over rows of several tiers. PromQL's sum_over_time and count_over_time add up and count what an iterator
// gives. A coarse row is as many rows of the finest tier, and has to count as those: otherwise the answer
// would fall to a tenth where 10 s rows take over from 1 s rows. So an iterator gives
//
//   - to sum_over_time, the sum of those rows' values. A gauge's folded rows have it. Of others it is the row's value, of a stat the
//     mean of what was recorded since the row before if there was anything, by the number of rows;
//   - to sum_over_time of a selector with rowsMark, their number: of a folded row its coverage (of a gauge, the
//     rows that had a value), of another how many fit since the row before.
//
// count_over_time is rewritten to the latter, and avg_over_time to a quotient of both, where coarse rows are needed. Rows of
// the finest tier give their value and 1: what they alone answer is what Prometheus would.

// rowsMark is a matcher of the label of this name, by which a rewritten query asks for rows and not for what they say.
const rowsMark = "__shmts_rows__"

// withoutMark takes rowsMark away.
func withoutMark(matchers []*labels.Matcher) ([]*labels.Matcher, bool) {
	i := slices.IndexFunc(matchers, func(m *labels.Matcher) bool { return m.Name == rowsMark })
	if i < 0 {
		return matchers, false
	}
	return slices.Concat(matchers[:i], matchers[i+1:]), true
}

// weighs tells whether rows count as many.
func (p *plan) weighs() bool { return p.rng > 0 && p.fn == "sum_over_time" }

// folded tells whether a tier's rows are folded ones.
func (g *group) folded(tier int) bool { return g.spans != nil && g.spans[tier].Folded }

// align has every recorded row count once where one tier takes over from another: a coarse row is of a whole window, and what
// finer ones say of a part of that window is left out.
func (g *group) align(pieces []piece) []piece {
	out := pieces[:0:0]
	for _, p := range pieces {
		o := (*piece)(nil)
		if len(out) > 0 {
			o = &out[len(out)-1]
		}
		first := p.batch.Times[0]
		switch {
		case o == nil:
			if first-g.plan.start <= p.step || g.begins(p.batch, g.plan.start, first) {
				break
			}
			// It begins amid a coarser row, the only one of its tier.
			for k := p.tier + 1; k < len(g.tiers); k++ {
				if b := g.seam(k, &p); g.err != nil {
					return nil
				} else if b != nil {
					out = append(out, piece{b, g.step(k), k})
					break
				}
			}
		case o.step < p.step && g.folded(p.tier):
			begin := window(first, p.step)
			n := o.batch.Len()
			for n > 0 && o.batch.Times[n-1] > begin {
				n--
			}
			if o.batch.cut(n); n == 0 {
				out = out[:len(out)-1]
			}
		case o.step > p.step && first-o.batch.Times[o.batch.Len()-1] <= staleAfter(o.step):
			if b := g.seam(o.tier, &p); g.err != nil {
				return nil
			} else if b != nil {
				o.batch.join(b)
			}
		}
		if p.batch.Len() > 0 {
			out = append(out, p)
		}
	}
	return out
}

// window is when the window of a folded row begins, whose newest row is of time t. FORMAT.md 19.5.
func window(t, step int64) int64 { return (t+step-1)/step*step - step }

// seam is the coarse row in whose window a finer piece begins, which it takes the rest of that window from; nil if there is none.
func (g *group) seam(coarse int, fine *piece) *Batch {
	first, step := fine.batch.Times[0], g.step(coarse)
	end := min(first+2*step, fine.batch.Times[fine.batch.Len()-1])
	if step <= fine.step || g.others>>coarse&1 == 0 || g.spans != nil && (g.spans[coarse].Newest < first || g.spans[coarse].Oldest > end) {
		return nil
	}
	b := g.read(coarse, first, end)
	if g.err != nil || b.Len() == 0 || window(b.Times[0], step) >= first || b.Times[0]-first >= step {
		return nil
	}
	b.cut(1)
	fine.batch.Since(b.Times[0] + 1)
	return b
}

// weigh finds out how many rows of the finest tier each row stands for. The first row is of tier first.
func (g *group) weigh(first int) {
	base := g.step(0) // if it is folded, all rows are, and have their coverage
	if !slices.ContainsFunc(g.steps, func(s stepFrom) bool { return s.step > base || s.folded }) {
		return
	}
	if g.cover == 0 { // histograms alone
		return
	}
	times := g.batch.Times
	g.weights = make([]float64, len(times))
	g.weights = make([]float64, len(times))
	before := milli(g.segment.Start())
	at := 0
	for i, t := range times {
		for at+1 < len(g.steps) && g.steps[at+1].from <= i {
			at++
		}
		s := g.steps[at]
		w := 1.0
		if n := g.batch.Floats[g.cover-1][i]; s.folded && !isStale(n) {
			w = n
		} else if s.step > base {
			w = max(1, math.Round(float64(min(t-before, s.step))/float64(base)))
		}
		g.weights[i] = w
		before = t
	}
	if g.means && g.coarse(0) {
		b := g.read(first, times[0]-2*g.steps[0].step, times[0]-1)
		if n := b.Len(); g.err == nil && n > 0 {
			g.before = b.part(n-1, n)
		}
	}
}

// coarse tells whether rows of a run of steps stand for several.
func (g *group) coarse(run int) bool { return g.steps[run].step > g.step(0) || g.steps[run].folded }

// mean is that of what a stat recorded since the row before row i; v if nothing, or it is not known.
func (p *part) mean(i int, v float64) float64 {
	b, k := p.g.batch, i-1
	if i == 0 {
		b, k = p.g.before, 0
	}
	sum, count := 0.0, 0.0
	switch {
	case b != nil && b.Epochs[k] == p.g.batch.Epochs[i] && !isStale(b.Floats[p.sum][k]):
		sum, count = b.Floats[p.sum-1][k], b.Floats[p.sum][k]
	case i > 0 || p.start < p.g.batch.Times[0]-p.g.steps[0].step:
		return v
	}
	if n := p.g.batch.Floats[p.sum][i] - count; n > 0 {
		return (p.g.batch.Floats[p.sum-1][i] - sum) / n
	}
	return v
}

// derive is the column of a part that is not its column as it is.
func (p *part) derive() []float64 {
	g, b := p.g, p.g.batch
	c := g.columns[p.column]
	switch {
	case p.as == asRows && c.Field == Buckets:
		return ones(b.Hists[p.column].Sum, nil, nil)
	case c.Field == Buckets:
		return b.Hists[p.column].classic(p.as, int(p.bucket))
	}
	column := b.Floats[p.column]
	gauge := c.Series != nil && c.Series.Kind == reader.Gauge && (c.Field == Sum || c.Field == Count)
	if p.as == asRows {
		if gauge {
			return ones(column, g.weights, g.steps)
		}
		return ones(column, g.weights, nil)
	}
	if g.weights == nil {
		return column
	}
	out := slices.Clone(column)
	at := 0
	for i, v := range column {
		for at+1 < len(g.steps) && g.steps[at+1].from <= i {
			at++
		}
		switch {
		case isStale(v), gauge && g.steps[at].folded:
			continue
		case p.sum > 0 && g.coarse(at):
			v = p.mean(i, v)
		}
		out[i] = v * g.weights[i]
	}
	return out
}

// ones are the weights of the rows that have a value in column; where steps says that rows are folded, the column has them itself.
func ones(column, weights []float64, steps []stepFrom) []float64 {
	out := make([]float64, len(column))
	at := 0
	for i, v := range column {
		for at+1 < len(steps) && steps[at+1].from <= i {
			at++
		}
		switch {
		case isStale(v), len(steps) > 0 && steps[at].folded:
			out[i] = v
		case weights == nil:
			out[i] = 1
		default:
			out[i] = weights[i]
		}
	}
	return out
}
