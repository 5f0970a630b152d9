package query

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/shmts/shmts/reader"
)

// rewrite makes a query answer over rows of several tiers where the engine would fall short.
//
// rate(x[6s]) of rows that are 10 s apart: such a window holds less than two rows, and PromQL
// would say nothing, or now something and now nothing. The selector becomes smoothed: the engine then
// interpolates what a counter was at the window's edges. Grafana asks so of a source of 1 s
// whatever the age of what it shows, and of histograms, whose rows are 10 s apart.
//
// So does a window over the seam of two tiers, fine rows and coarser ones before them: rate extrapolates to a window's edges by
// how far its samples are apart on average, and would fall short there by up to a coarse step.
//
// avg_over_time(x[6s]) of such rows, and what else does not grow with the range, becomes that of a range in which there is a row: now a
// value and now none would be a row of dots.
//
// count_over_time and avg_over_time, where rows of a coarser tier than the finest are needed, become what weigh.go can answer.
//
// It returns the query to evaluate, q itself if nothing was to be done, and the coarsest step that a
// smoothed selector has to go by.
func (r *Run) rewrite(ctx context.Context, expr parser.Expr, q string, start, end time.Time) (string, time.Duration) {
	var coarsest time.Duration
	var calls []rewritten
	wider := false
	parser.Inspect(expr, func(n parser.Node, path []parser.Node) error {
		call, ok := n.(*parser.Call)
		if !ok || len(call.Args) != 1 {
			return nil
		}
		m, ok := call.Args[0].(*parser.MatrixSelector)
		if !ok {
			return nil
		}
		v := m.VectorSelector.(*parser.VectorSelector)
		if v.Smoothed || v.Anchored {
			return nil
		}
		from, to := start.Add(-m.Range-v.OriginalOffset), end.Add(-v.OriginalOffset)
		if v.Timestamp != nil {
			to = time.UnixMilli(*v.Timestamp).Add(-v.OriginalOffset)
			from = to.Add(-m.Range)
		}
		for _, p := range path {
			if s, ok := p.(*parser.SubqueryExpr); ok {
				from, to = from.Add(-s.Range-s.OriginalOffset), to.Add(-s.OriginalOffset)
			}
		}
		switch call.Func.Name {
		case "rate", "increase":
			if 5*r.sources.Coarsest() <= m.Range {
				return nil // plan takes the coarsest tier, and there are two rows of it
			}
			step, seam := r.coarsestNeeded(ctx, v.LabelMatchers, from.UnixMilli(), to.UnixMilli(), m.Range)
			if 2*step <= m.Range && !seam {
				return nil
			}
			r.note(fmt.Errorf("%w: shmts: rows are %s apart: %s(...[%s]) is evaluated as smoothed", annotations.PromQLInfo,
				model.Duration(step), call.Func.Name, model.Duration(m.Range)))
			v.Smoothed, r.smooth = true, true
			coarsest = max(coarsest, step)
		case "count_over_time", "avg_over_time", "min_over_time", "max_over_time", "last_over_time", "present_over_time":
			step, coarse := r.coarsestNeeded(ctx, v.LabelMatchers, from.UnixMilli(), to.UnixMilli(), 0)
			if !coarse {
				return nil
			}
			if least := step + step/4; m.Range < step && call.Func.Name != "count_over_time" {
				r.note(fmt.Errorf("%w: shmts: rows are %s apart: %s(...[%s]) is that of %s", annotations.PromQLInfo,
					model.Duration(step), call.Func.Name, model.Duration(m.Range), model.Duration(least)))
				m.Range, wider = least, true
			}
			if call.Func.Name == "count_over_time" || call.Func.Name == "avg_over_time" {
				calls = append(calls, rewritten{call, slices.Clone(path)})
			}
		}
		return nil
	})
	for _, c := range calls {
		expr = c.weighed(expr)
	}
	if coarsest == 0 && len(calls) == 0 && !wider {
		return q, 0
	}
	return expr.String(), coarsest
}

// rewritten is a call that another expression stands for, and what it is in, from the query on.
type rewritten struct {
	call *parser.Call
	path []parser.Node
}

// weighed makes count_over_time the sum of the rows' numbers, and avg_over_time that of their values by it. It answers the query.
func (c rewritten) weighed(query parser.Expr) parser.Expr {
	over := func(v *parser.VectorSelector) *parser.Call {
		m := *c.call.Args[0].(*parser.MatrixSelector)
		m.VectorSelector = v
		return &parser.Call{Func: parser.Functions["sum_over_time"], Args: parser.Expressions{&m}}
	}
	values := c.call.Args[0].(*parser.MatrixSelector).VectorSelector.(*parser.VectorSelector)
	marked := *values
	marked.LabelMatchers = append(slices.Clone(values.LabelMatchers), labels.MustNewMatcher(labels.MatchEqual, rowsMark, "1"))
	rows := over(&marked)
	if c.call.Func.Name == "count_over_time" {
		*c.call = *rows
		return query
	}
	mean := &parser.ParenExpr{Expr: &parser.BinaryExpr{Op: parser.DIV, LHS: over(values), RHS: rows, VectorMatching: &parser.VectorMatching{Card: parser.CardOneToOne}}}
	if len(c.path) == 0 {
		return mean
	}
	put := func(at *parser.Expr) {
		if *at == parser.Expr(c.call) {
			*at = mean
		}
	}
	switch p := c.path[len(c.path)-1].(type) {
	case *parser.Call:
		for i := range p.Args {
			put(&p.Args[i])
		}
	case *parser.AggregateExpr:
		put(&p.Expr)
		put(&p.Param)
	case *parser.BinaryExpr:
		put(&p.LHS)
		put(&p.RHS)
	case *parser.UnaryExpr:
		put(&p.Expr)
	case *parser.ParenExpr:
		put(&p.Expr)
	case *parser.SubqueryExpr:
		put(&p.Expr)
	case *parser.StepInvariantExpr:
		put(&p.Expr)
	}
	return query
}

// coarsestNeeded is the coarsest step among the tiers that are needed to answer for series that matchers
// select, from and to, unix ms, and whether for any of them it is coarser than what plan takes for windows of rng. It goes by additive series
// alone, or if rng is 0 by all of them and the finest tier. It goes by what the
// rings and the archive hold, and reads no row.
func (r *Run) coarsestNeeded(ctx context.Context, matchers []*labels.Matcher, from, to int64, rng time.Duration) (step time.Duration, seam bool) {
	sel, err := newSelector(matchers)
	if err != nil {
		return 0, false // the query will say so
	}
	q := &querier{Run: r}
	views, err := q.views(ctx, Selection{From: from, To: to, First: from, Matchers: matchers})
	if err != nil {
		return 0, false
	}
	for i := range views {
		v := &views[i]
		if milli(v.Start()) > to {
			continue // its rows are all later
		}
		tables := v.Tables()
		newest := q.known(v)
		if ns, ended := v.End(); ended {
			newest = milli(ns)
		}
		back := max(from, milli(v.Start()))
		archived, _ := v.Segment.(Archived)
		seen := make([]bool, len(tables))
		sel.each(v, func(m *metric, _ []labels.Label) bool {
			table := firstTable(tables)
			if m != nil {
				table = v.series[m.series].Table
			}
			if table < 0 || table >= len(tables) || seen[table] || len(tables[table].Tiers) == 0 {
				return true
			}
			if rng > 0 && (m == nil || !additive(v.series[m.series], m.field)) {
				return true
			}
			seen[table] = true
			tiers := tables[table].Tiers
			var needed time.Duration
			if archived != nil {
				span := func(k int) Span { return archived.Span(table, k) }
				needed = neededSpan(tiers, span, back, to)
				seam = seam || rng == 0 && span(0).Folded // nothing finer is even selected
			} else {
				t := 0
				for t+1 < len(tiers) && newest-int64(tiers[t].Rows)*tiers[t].Step.Milliseconds() > back {
					t++
				}
				needed = tiers[t].Step
			}
			planned := tiers[0].Step
			for _, t := range tiers {
				if t.Step <= rng/5 {
					planned = max(planned, t.Step)
				}
				seam = seam || rng == 0 && t.Step > planned && t.Step <= r.hints.MaxSourceResolution // which asks for it
			}
			step, seam = max(step, needed), seam || needed > planned
			return true
		})
	}
	return step, seam
}

// neededSpan is the step of the finest tier that has rows since back, unix ms: or of the finest of those that have the oldest.
func neededSpan(tiers []reader.Tier, span func(int) Span, back, to int64) (step time.Duration) {
	var reach int64 = math.MaxInt64
	for k, t := range tiers {
		s := span(k)
		if s.Oldest > s.Newest || s.Oldest > to {
			continue
		}
		if s.Oldest < reach-2*t.Step.Milliseconds() { // by more than where it happens to begin
			reach, step = s.Oldest, t.Step
		}
		if reach-staleAfter(t.Step.Milliseconds()) <= back {
			break
		}
	}
	return step
}
