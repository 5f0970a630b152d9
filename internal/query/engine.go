package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// Options of New. The zero value of each is a default that is fit for a daemon.
type Options struct {
	Sources     Sources
	Timeout     time.Duration // of a query; 0: 2 min
	MaxSamples  int           // in memory at once, a query; 0: 5,000,000, which is 80 MB
	Concurrency int           // queries that run at the same time; 0: 4
	Queue       int           // queries that wait for that; 0: 64
	Logger      *slog.Logger
	Now         func() time.Time
}

// Engine evaluates PromQL over Sources. It is safe for concurrent use.
type Engine struct {
	*Storage
	engine *promql.Engine
	parser parser.Parser
	gate   *gate
}

// New makes an Engine.
func New(o Options) *Engine {
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.MaxSamples == 0 {
		o.MaxSamples = 5_000_000
	}
	if o.Concurrency == 0 {
		o.Concurrency = 4
	}
	if o.Queue == 0 {
		o.Queue = 64
	}
	e := &Engine{
		Storage: NewStorage(o.Sources, o.MaxSamples, o.Now),
		parser:  parser.NewParser(parser.Options{EnableExtendedRangeSelectors: true}),
		gate:    &gate{run: make(chan struct{}, o.Concurrency), wait: make(chan struct{}, o.Concurrency+o.Queue)},
	}
	e.engine = promql.NewEngine(promql.EngineOpts{
		Logger:                   o.Logger,
		MaxSamples:               o.MaxSamples,
		Timeout:                  o.Timeout,
		ActiveQueryTracker:       e.gate,
		NoStepSubqueryIntervalFn: func(int64) int64 { return 15_000 },
		EnableAtModifier:         true,
		EnableNegativeOffset:     true,
		EnablePerStepStats:       true,
		Parser:                   e.parser,
	})
	return e
}

// What a query's text may be. The parser and the engine recurse over it: a million brackets
// would overflow the stack, which no recover catches.
const (
	MaxQueryLength = 64 << 10 // bytes
	MaxQueryDepth  = 400      // expressions inside each other
)

// Parse parses a query as the engine would, and holds it to the limits.
func (e *Engine) Parse(q string) (parser.Expr, error) {
	if len(q) > MaxQueryLength {
		return nil, fmt.Errorf("shmts: query: want at most %d bytes, got %d", MaxQueryLength, len(q))
	}
	expr, err := e.parser.ParseExpr(q)
	if err != nil {
		return nil, err
	}
	if d := depth(expr); d > MaxQueryDepth {
		return nil, fmt.Errorf("shmts: query: want at most %d expressions inside each other, got %d", MaxQueryDepth, d)
	}
	return expr, nil
}

// Selectors parses match[] parameters.
func (e *Engine) Selectors(match []string) ([][]*labels.Matcher, error) {
	return e.parser.ParseMetricSelectors(match)
}

func depth(n parser.Node) int {
	d := 0
	for c := range parser.ChildrenIter(n) {
		d = max(d, depth(c))
	}
	return d + 1
}

// QueryOptions are a client's wishes for one query.
type QueryOptions struct {
	Lookback     time.Duration // 0: Storage.Lookback
	PerStepStats bool

	MaxSourceResolution time.Duration // see Hints
}

// Instant prepares a query at one time. The caller Closes it when the result is no longer used.
// An error is the query's own (it can't be parsed), or of waiting for a place: ErrBusy, or the context's.
func (e *Engine) Instant(ctx context.Context, q string, t time.Time, o QueryOptions) (promql.Query, error) {
	run, q, opts, err := e.begin(ctx, q, t, t, o)
	if err != nil {
		return nil, err
	}
	pq, err := e.engine.NewInstantQuery(ctx, run, opts, q, t)
	return wrap(pq, run, err)
}

// Range prepares a query at each step from start to end.
func (e *Engine) Range(ctx context.Context, q string, start, end time.Time, step time.Duration, o QueryOptions) (promql.Query, error) {
	run, q, opts, err := e.begin(ctx, q, start, end, o)
	if err != nil {
		return nil, err
	}
	pq, err := e.engine.NewRangeQuery(ctx, run, opts, q, start, end, step)
	return wrap(pq, run, err)
}

// begin parses a query, and rewrites it where it must be.
func (e *Engine) begin(ctx context.Context, q string, start, end time.Time, o QueryOptions) (*Run, string, promql.QueryOpts, error) {
	expr, err := e.Parse(q)
	if err != nil {
		return nil, "", nil, err
	}
	lookback := o.Lookback
	if lookback <= 0 {
		lookback = e.Lookback()
	}
	run := e.With(Hints{MaxSourceResolution: o.MaxSourceResolution})
	q, step := run.rewrite(ctx, expr, q, start, end)
	if step > 0 && o.Lookback <= 0 {
		// Smoothing reaches as far as the lookback for a row. Beyond this there is a gap, and it stays one.
		lookback = min(lookback, time.Duration(gapSteps*float64(step)))
	}
	run.hints.Lookback = lookback
	return run, q, promql.NewPrometheusQueryOpts(o.PerStepStats, lookback), nil
}

// running is a query that says which tiers answered.
type running struct {
	promql.Query
	run *Run
}

func wrap(q promql.Query, run *Run, err error) (promql.Query, error) {
	if err != nil {
		return nil, err
	}
	return &running{q, run}, nil
}

func (r *running) Exec(ctx context.Context) *promql.Result {
	res := r.Query.Exec(ctx)
	if infos := r.run.Infos(); infos != nil {
		res.Warnings.Merge(infos)
	}
	return res
}

// ErrBusy says that as many queries wait as may.
var ErrBusy = errors.New("shmts: too many queries are waiting to run")

// gate is a promql.QueryTracker that lets so many run, so many wait, and no more.
type gate struct{ run, wait chan struct{} }

func (g *gate) GetMaxConcurrent() int { return cap(g.run) }

func (g *gate) Insert(ctx context.Context, _ string) (int, error) {
	select {
	case g.wait <- struct{}{}:
	default:
		return 0, ErrBusy
	}
	select {
	case g.run <- struct{}{}:
		return 1, nil
	case <-ctx.Done():
		<-g.wait
		return 0, ctx.Err()
	}
}

// Delete gives the place back. The engine calls it after a failed Insert as well, with that's index 0.
func (g *gate) Delete(index int) {
	if index == 1 {
		<-g.run
		<-g.wait
	}
}

func (g *gate) Close() error { return nil }
