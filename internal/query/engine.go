package query

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
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
	Concurrency int           // queries that run at the same time, beside half as many light ones; 0: 4
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
		parser:  parser.NewParser(parser.Options{}),
		gate:    newGate(o.Concurrency, o.Queue),
	}
	e.engine = promql.NewEngine(promql.EngineOpts{
		Logger:                   o.Logger,
		MaxSamples:               o.MaxSamples,
		Timeout:                  o.Timeout,
		ActiveQueryTracker:       e.gate,
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

// Instant prepares a query at one time. The caller Closes it when the result is no longer used.
// An error is the query's own (it can't be parsed), or of waiting for a place: ErrBusy, or the context's.
func (e *Engine) Instant(ctx context.Context, q string, t time.Time, o QueryOptions) (promql.Query, error) {
	run, q, opts, light, err := e.begin(ctx, q, t, t, 0, o)
	if err != nil {
		return nil, err
	}
	pq, err := e.engine.NewInstantQuery(lane(ctx, light), run, opts, q, t)
	return wrap(pq, run, light, err)
}

// Range prepares a query at each step from start to end.
func (e *Engine) Range(ctx context.Context, q string, start, end time.Time, step time.Duration, o QueryOptions) (promql.Query, error) {
	run, q, opts, light, err := e.begin(ctx, q, start, end, step, o)
	if err != nil {
		return nil, err
	}
	pq, err := e.engine.NewRangeQuery(lane(ctx, light), run, opts, q, start, end, step)
	return wrap(pq, run, light, err)
}

// begin parses a query, and rewrites it where it must be.
func (e *Engine) begin(ctx context.Context, q string, start, end time.Time, every time.Duration, o QueryOptions) (*Run, string, promql.QueryOpts, bool, error) {
	expr, err := e.Parse(q)
	if err == nil {
		err = checkSubqueries(expr, end.Sub(start))
	}
	if err != nil {
		return nil, "", nil, false, err
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
	return run, q, promql.NewPrometheusQueryOpts(o.PerStepStats, lookback, nil), light(expr, start, end, every), nil
}

// running is a query that says which tiers answered.
type running struct {
	promql.Query
	run   *Run
	light bool
}

func wrap(q promql.Query, run *Run, light bool, err error) (promql.Query, error) {
	if err != nil {
		return nil, err
	}
	return &running{q, run, light}, nil
}

func (r *running) Exec(ctx context.Context) *promql.Result {
	res := r.Query.Exec(lane(ctx, r.light))
	if infos := r.run.Infos(); infos != nil {
		res.Warnings.Merge(infos)
	}
	return res
}

// lightKey marks the context of a query that is light.
type lightKey struct{}

// lane tells the gate: the engine asks it when a query is prepared, and again when it runs.
func lane(ctx context.Context, light bool) context.Context {
	if light {
		return context.WithValue(ctx, lightKey{}, true)
	}
	return ctx
}

// What a light query may be: a look at what is now, or a panel of some minutes.
const (
	lightPoints = 1000 // instants times rows of a window
	lightRange  = 10 * time.Minute
)

// light tells whether a query can't take long whatever it selects, but for the number of series.
func light(expr parser.Expr, start, end time.Time, step time.Duration) bool {
	points := int64(1)
	if step > 0 {
		points += int64(end.Sub(start) / step)
	}
	heavy := points > lightPoints
	parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
		switch n := n.(type) {
		case *parser.SubqueryExpr:
			heavy = true
		case *parser.MatrixSelector:
			heavy = heavy || n.Range > lightRange || points*int64(n.Range/time.Second) > lightPoints*60
		}
		return nil
	})
	return !heavy
}

// ErrBusy says that as many queries wait as may.
var ErrBusy = errors.New("shmts: too many queries are waiting to run")

// gate is a promql.QueryTracker that lets so many run, so many wait, and no more. Light queries have places of their own beside: a
// dashboard does not wait for somebody's scan.
type gate struct{ run, wait, light, lightWait chan struct{} }

func newGate(run, wait int) *gate {
	beside := max(1, run/2)
	return &gate{make(chan struct{}, run), make(chan struct{}, run+wait), make(chan struct{}, beside), make(chan struct{}, beside+wait)}
}

func (g *gate) GetMaxConcurrent() int { return cap(g.run) + cap(g.light) }

// What Insert answers: which place was given.
const (
	noPlace = iota
	heavyPlace
	lightPlace
)

func (g *gate) Insert(ctx context.Context, _ string) (int, error) {
	run, wait, place := g.run, g.wait, heavyPlace
	if ctx.Value(lightKey{}) != nil {
		run, wait, place = g.light, g.lightWait, lightPlace
	}
	select {
	case wait <- struct{}{}:
	default:
		return noPlace, ErrBusy
	}
	select {
	case run <- struct{}{}:
		return place, nil
	case <-ctx.Done():
		<-wait
		return noPlace, ctx.Err()
	}
}

// Delete gives the place back. The engine calls it after a failed Insert as well, with that's index.
func (g *gate) Delete(index int) {
	switch index {
	case heavyPlace:
		<-g.run
		<-g.wait
	case lightPlace:
		<-g.light
		<-g.lightWait
	}
}

func (g *gate) Close() error { return nil }
