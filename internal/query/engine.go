package query

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Options of New. The zero value of each is a default that is fit for a daemon.
type Options struct {
	Sources     Sources
	Scope       *Scope        // what of it may be seen; nil: everything
	Timeout     time.Duration // of a query; 0: 2 min
	MaxSamples  int           // in memory at once, a query; 0: 5,000,000, which is 80 MB
	MaxMemory   int64         // bytes that a query may hold; 0: no limit. See Memory
	Memory      *Memory       // of all queries; may be nil
	Share       *Share        // of a gate; nil: of one of its own, of Concurrency and Queue
	Concurrency int           // queries that run at the same time, beside half as many light ones; 0: 4
	Queue       int           // queries that wait for that; 0: 64
	Pace        *Pace         // of queries that are not light; nil: of its own
	Rules       *Rules        // for the labels of all series; nil: none
	Logger      *slog.Logger
	Now         func() time.Time

	// Experimental allows the functions that Prometheus has behind promql-experimental-functions.
	Experimental bool
}

// Engine evaluates PromQL over Sources. It is safe for concurrent use.
type Engine struct {
	*Storage
	engine *promql.Engine
	parser parser.Parser
	share  *Share
	stats  engineStats
}

// New makes an Engine.
func New(o Options) *Engine {
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.MaxSamples == 0 {
		o.MaxSamples = 5_000_000
	}
	if o.Share == nil {
		o.Share = NewGate(cmp.Or(o.Concurrency, 4)).Share(ShareOptions{Queue: o.Queue})
	}
	if o.Pace == nil {
		o.Pace = NewPace()
	}
	e := &Engine{
		Storage: NewStorage(o.Sources, o.MaxSamples, o.Now),
		parser:  parser.NewParser(parser.Options{EnableExperimentalFunctions: o.Experimental}),
		share:   o.Share,
	}
	switch {
	case o.Scope != nil: // what is known is of what he sees
		e.rules = newRules(o.Rules.source(), o.Scope)
	case o.Rules != nil:
		e.rules = o.Rules
	}
	e.maxMemory, e.memory, e.pace = o.MaxMemory, o.Memory, o.Pace
	e.engine = promql.NewEngine(promql.EngineOpts{
		Logger:                   o.Logger,
		MaxSamples:               o.MaxSamples,
		Timeout:                  o.Timeout,
		NoStepSubqueryIntervalFn: func(int64) int64 { return subqueryStep.Milliseconds() },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       true,
		Parser:                   e.parser,
	})
	return e
}

// Parse parses a query as the engine would, and holds it to the limits.
func (e *Engine) Parse(q string) (parser.Expr, error) {
	if err := checkText(q); err != nil {
		return nil, err
	}
	expr, err := e.parser.ParseExpr(q)
	if err != nil {
		return nil, err
	}
	if err := checkTree(expr); err != nil {
		return nil, err
	}
	return expr, nil
}

// Selectors parses match[] parameters.
func (e *Engine) Selectors(match []string) ([][]*labels.Matcher, error) {
	if len(match) > MaxSelectors {
		return nil, fmt.Errorf("shmts: query: want at most %d selectors, got %d", MaxSelectors, len(match))
	}
	all := 0
	for _, m := range match {
		all += len(m)
	}
	if all > MaxQueryLength {
		return nil, fmt.Errorf("shmts: query: want selectors of at most %d bytes together, got %d", MaxQueryLength, all)
	}
	if err := checkText(strings.Join(match, " ")); err != nil {
		return nil, err
	}
	return e.parser.ParseMetricSelectors(match)
}

// Matcher makes a matcher that no parser has seen, within the same limits.
func Matcher(t labels.MatchType, name, value string) (*labels.Matcher, error) {
	if (t == labels.MatchRegexp || t == labels.MatchNotRegexp) && (len(value) > MaxQueryLength || regexSize(value) > MaxRegexSize) {
		return nil, errRegexSize
	}
	return labels.NewMatcher(t, name, value)
}

// QueryOptions are a client's wishes for one query.
type QueryOptions struct {
	Lookback     time.Duration // 0: Storage.Lookback
	PerStepStats bool

	MaxSourceResolution time.Duration // see Hints
}

// Instant prepares a query at one time, once there is a place for it. The caller Closes it when the result is no longer used.
// An error is the query's own (it can't be parsed), or of waiting for a place: ErrBusy, or the context's.
func (e *Engine) Instant(ctx context.Context, q string, t time.Time, o QueryOptions) (promql.Query, error) {
	return e.begin(ctx, q, t, t, 0, o)
}

// Range prepares a query at each step from start to end.
func (e *Engine) Range(ctx context.Context, q string, start, end time.Time, step time.Duration, o QueryOptions) (promql.Query, error) {
	return e.begin(ctx, q, start, end, step, o)
}

// begin parses a query, waits for a place, and rewrites it where it must be. Of an instant query, every is 0.
func (e *Engine) begin(ctx context.Context, q string, start, end time.Time, every time.Duration, o QueryOptions) (promql.Query, error) {
	expr, err := e.Parse(q)
	if err == nil {
		err = checkSubqueries(expr, end.Sub(start))
	}
	if err != nil {
		return nil, err
	}
	lane := laneOf(expr, start, end, every)
	leave, err := e.share.enter(ctx, lane)
	if err != nil {
		return nil, err
	}
	lookback := o.Lookback
	if lookback <= 0 {
		lookback = e.Lookback()
	}
	r := &running{run: e.With(Hints{MaxSourceResolution: o.MaxSourceResolution}), leave: leave, stats: &e.stats}
	r.over = r.run.in(lane)
	q, step := r.run.rewrite(ctx, expr, q, start, end)
	if step > 0 && o.Lookback <= 0 {
		// Smoothing reaches as far as the lookback for a row. Beyond this there is a gap, and it stays one.
		lookback = min(lookback, time.Duration(gapSteps*float64(step)))
	}
	r.run.hints.Lookback = lookback
	r.run.grid = every > 0 && onGrid(expr)
	opts := promql.NewPrometheusQueryOpts(o.PerStepStats, lookback, nil)
	if every == 0 {
		r.Query, err = e.engine.NewInstantQuery(ctx, r.run, opts, q, start)
	} else {
		r.Query, err = e.engine.NewRangeQuery(ctx, r.run, opts, q, start, end, every)
	}
	if err != nil {
		r.end()
		return nil, err
	}
	return r, nil
}

// onGrid tells whether instant selectors are asked for values at the query's instants alone: a subquery has instants of its own, and smoothing
// looks at what is around.
func onGrid(expr parser.Expr) bool {
	yes := true
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.SubqueryExpr:
			yes = false
		case *parser.VectorSelector:
			yes = yes && !n.Smoothed && !n.Anchored
		}
		return nil
	})
	return yes
}

// running is a query that has a place, and says which tiers answered.
type running struct {
	promql.Query
	run   *Run
	leave func() // the gate
	over  func() // with the pace
	once  sync.Once
	stats *engineStats
}

// Exec implements promql.Query. It can be called once.
func (r *running) Exec(ctx context.Context) *promql.Result {
	defer r.vacate()
	res := r.Query.Exec(ctx)
	r.run.rest()
	if infos := r.run.Infos(); infos != nil {
		res.Warnings.Merge(infos)
	}
	if res.Err != nil {
		res.Value = nil
	}
	r.forget()
	if res.Err == nil {
		res.Err = r.run.memory.settle(resultBytes(res.Value))
	}
	return res
}

// forget lets go what was read: a client may take its time for the result, and the engine would keep the series that it was made of.
func (r *running) forget() {
	r.run.mu.Lock()
	r.run.found = nil
	r.run.mu.Unlock()
	stmt, ok := r.Statement().(*parser.EvalStmt)
	if !ok {
		return
	}
	parser.Inspect(stmt.Expr, func(n parser.Node, _ []parser.Node) error {
		if v, ok := n.(*parser.VectorSelector); ok {
			v.Series, v.UnexpandedSeriesSet = nil, nil
		}
		return nil
	})
}

// vacate gives the place back.
func (r *running) vacate() {
	r.once.Do(func() {
		r.over()
		r.leave()
		r.stats.samples.Add(uint64(r.run.samples.Load()))
	})
}

func (r *running) end() {
	r.vacate()
	r.run.Close()
}

// Close implements promql.Query.
func (r *running) Close() {
	r.Query.Close()
	r.end()
}

// Stats are of an engine's queries since it was made.
type Stats struct {
	ShareStats
	Samples uint64 // numbers read
	Memory  int64  // bytes that all that share its Memory hold
}

type engineStats struct{ samples atomic.Uint64 }

// Stats of what was asked.
func (e *Engine) Stats() Stats {
	s := Stats{ShareStats: e.share.Stats(), Samples: e.stats.samples.Load()}
	if e.memory != nil {
		s.Memory = e.memory.Used()
	}
	return s
}

// What a light query may be: a look at what is now, or a panel of some minutes.
const (
	lightPoints = 1000 // instants times rows of a window
	lightRange  = 10 * time.Minute
)

// laneOf is light if a query can't take long whatever it selects, but for the number of series.
func laneOf(expr parser.Expr, start, end time.Time, step time.Duration) int {
	points := int64(1)
	if step > 0 {
		points += int64(end.Sub(start) / step)
	}
	long := points > lightPoints
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.SubqueryExpr:
			long = true
		case *parser.MatrixSelector:
			long = long || n.Range > lightRange || points*int64(n.Range/time.Second) > lightPoints*60
		}
		return nil
	})
	if long {
		return heavy
	}
	return light
}
