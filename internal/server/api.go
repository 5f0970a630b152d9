package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/shmts/shmts/internal/query"
)

// maxWarnings is how many warnings, and how many infos, an answer tells.
const maxWarnings = 10

func (s *server) query(r *http.Request) answer {
	limit, err := limitParam(r)
	if err != nil {
		return invalid("limit", err)
	}
	at, err := timeParam(r, "time", s.Now())
	if err != nil {
		return invalid("time", err)
	}
	return s.evaluate(r, limit, func(ctx context.Context) (promql.Query, error) {
		o, err := queryOptions(r)
		if err != nil {
			return nil, optionError{err}
		}
		return s.Engine(r).Instant(ctx, r.Form.Get("query"), at, o)
	})
}

func (s *server) queryRange(r *http.Request) answer {
	limit, err := limitParam(r)
	if err != nil {
		return invalid("limit", err)
	}
	start, err := parseTime(r.Form.Get("start"))
	if err != nil {
		return invalid("start", err)
	}
	end, err := parseTime(r.Form.Get("end"))
	if err != nil {
		return invalid("end", err)
	}
	if end.Before(start) {
		return invalid("end", errors.New("end timestamp must not be before start time"))
	}
	step, err := parseDuration(r.Form.Get("step"))
	if err != nil {
		return invalid("step", err)
	}
	if step <= 0 {
		return invalid("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if step < time.Millisecond { // the engine counts in ms, and would not get on
		return invalid("step", fmt.Errorf("shmts: want a step of at least 1ms, got %s", step))
	}
	if end.Sub(start)/step > time.Duration(s.MaxPoints) {
		return failed(badData, fmt.Errorf("exceeded maximum resolution of %s points per timeseries. Try decreasing the query resolution (?step=XX)", thousands(s.MaxPoints)))
	}
	return s.evaluate(r, limit, func(ctx context.Context) (promql.Query, error) {
		o, err := queryOptions(r)
		if err != nil {
			return nil, optionError{err}
		}
		return s.Engine(r).Range(ctx, r.Form.Get("query"), start, end, step, o)
	})
}

// thousands writes 11000 as 11,000.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// optionError is a parameter's beside the query.
type optionError struct{ error }

// evaluate runs a query.
func (s *server) evaluate(r *http.Request, limit int, prepare func(context.Context) (promql.Query, error)) (a answer) {
	ctx := r.Context()
	if t := r.Form.Get("timeout"); t != "" {
		d, err := parseDuration(t)
		if err != nil {
			return invalid("timeout", err)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	q, err := prepare(ctx)
	var o optionError
	switch {
	case errors.As(err, &o):
		return failed(badData, o.error)
	case err != nil:
		if t := classify(err, badData); t != badData {
			return failed(t, err)
		}
		return invalid("query", err)
	}
	defer func() {
		if a.done == nil {
			q.Close()
		}
	}()

	res := q.Exec(ctx)
	if res.Err != nil {
		return failed(classify(res.Err, execution), res.Err)
	}
	a.warnings, a.infos = res.Warnings.AsStrings(q.String(), maxWarnings, maxWarnings)
	if limit > 0 {
		cut := false
		switch v := res.Value.(type) {
		case promql.Matrix:
			if cut = len(v) > limit; cut {
				res.Value = v[:limit]
			}
		case promql.Vector:
			if cut = len(v) > limit; cut {
				res.Value = v[:limit]
			}
		}
		if cut {
			a.warnings = append(a.warnings, truncated)
		}
	}
	n, d := samples(res.Value), s.desk(r)
	if !d.held.take(n, n <= smallAnswer) {
		return failed(unavailable, fmt.Errorf("shmts: answers of as many samples wait for their clients already as may, %d in all", s.MaxHeld))
	}
	defer func() {
		if a.done == nil {
			d.held.give(n)
		}
	}()
	result := &queryResult{value: res.Value}
	switch st := r.Form.Get("stats"); st {
	case "":
	case "true", "all":
		result.stats = stats.NewQueryStats(q.Stats())
	default:
		result.stats = stats.NewQueryStats(q.Stats())
		a.warnings = append(a.warnings, fmt.Sprintf("value %q for parameter \"stats\" is deprecated and will be rejected in the next major release, use \"true\" or \"all\"", st))
	}
	a.data, a.done = result, func() { q.Close(); d.held.give(n) }
	return a
}

// queryExemplars answers the exemplars of the series that an expression selects. Grafana probes for it, with times in ms, and takes an error for a
// broken data source.
func (s *server) queryExemplars(r *http.Request) answer {
	start, end, bad := span(r)
	if bad != nil {
		return *bad
	}
	if end.Before(start) {
		return failed(badData, errors.New("end timestamp must not be before start timestamp"))
	}
	expr, err := s.Engine(r).Parse(r.Form.Get("query"))
	if err != nil {
		return failed(badData, err)
	}
	if len(parser.ExtractSelectors(expr)) == 0 {
		return answer{} // as Prometheus: 204
	}
	found, warnings, err := s.Engine(r).Exemplars(r.Context(), expr, timestamp.FromTime(start), timestamp.FromTime(end))
	if err != nil {
		return failed(classify(err, execution), err)
	}
	n := int64(0)
	for i := range found {
		n += int64(len(found[i].Exemplars)) * query.ExemplarSamples
	}
	d := s.desk(r)
	if !d.held.take(n, n <= smallAnswer) {
		return failed(unavailable, fmt.Errorf("shmts: answers of as many samples wait for their clients already as may, %d in all", s.MaxHeld))
	}
	a := answer{data: exemplarSets(found), done: func() { d.held.give(n) }}
	a.warnings, _ = warnings.AsStrings("", maxWarnings, 0)
	return a
}

func (s *server) formatQuery(r *http.Request) answer {
	expr, err := s.Engine(r).Parse(r.Form.Get("query"))
	if err != nil {
		return invalid("query", err)
	}
	return answer{data: str(expr.Pretty(0))}
}

func (s *server) parseQuery(r *http.Request) answer {
	expr, err := s.Engine(r).Parse(r.Form.Get("query"))
	if err != nil {
		return invalid("query", err)
	}
	return answer{data: value{translate(expr)}}
}

// closeUnless closes a querier that a good answer would close once the client has taken it: until then, what it found counts as memory.
func closeUnless(a *answer, q storage.Querier) {
	if a.done == nil {
		q.Close()
	}
}

// lookup is what the label endpoints have in common: each selector's strings, merged, sorted and cut.
func (s *server) lookup(r *http.Request, find func(storage.Querier, context.Context, *storage.LabelHints, []*labels.Matcher) ([]string, annotations.Annotations, error)) (a answer) {
	limit, err := limitParam(r)
	if err != nil {
		return invalid("limit", err)
	}
	start, end, bad := span(r)
	if bad != nil {
		return *bad
	}
	sets, err := s.selectors(r)
	if err != nil {
		return failed(badData, err)
	}
	q, err := s.Engine(r).Querier(timestamp.FromTime(start), timestamp.FromTime(end))
	if err != nil {
		return failed(classify(err, execution), err)
	}
	defer closeUnless(&a, q)
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	out := strs{}
	var warnings annotations.Annotations
	for _, set := range sets {
		found, more, err := find(q, r.Context(), &storage.LabelHints{Limit: oneMore(limit)}, set)
		if err != nil {
			return failed(classify(err, execution), err)
		}
		out = append(out, found...)
		warnings.Merge(more)
	}
	slices.Sort(out)
	a.warnings, _ = warnings.AsStrings("", maxWarnings, 0)
	if out = slices.Compact(out); limit > 0 && len(out) > limit {
		out = out[:limit]
		a.warnings = append(a.warnings, truncated)
	}
	a.data, a.done = out, func() { q.Close() }
	return a
}

func (s *server) labelNames(r *http.Request) answer {
	return s.lookup(r, func(q storage.Querier, ctx context.Context, h *storage.LabelHints, m []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(ctx, h, m...)
	})
}

func (s *server) labelValues(r *http.Request) answer {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return failed(badData, fmt.Errorf("invalid label name: %q", name))
	}
	return s.lookup(r, func(q storage.Querier, ctx context.Context, h *storage.LabelHints, m []*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(ctx, name, h, m...)
	})
}

func (s *server) series(r *http.Request) (a answer) {
	if len(r.Form["match[]"]) == 0 {
		return failed(badData, errors.New("no match[] parameter provided"))
	}
	limit, err := limitParam(r)
	if err != nil {
		return invalid("limit", err)
	}
	start, end, bad := span(r)
	if bad != nil {
		return *bad
	}
	sets, err := s.selectors(r)
	if err != nil {
		return invalid("match[]", err)
	}
	q, err := s.Engine(r).Querier(timestamp.FromTime(start), timestamp.FromTime(end))
	if err != nil {
		return failed(classify(err, execution), err)
	}
	defer closeUnless(&a, q)
	hints := &storage.SelectHints{Start: timestamp.FromTime(start), End: timestamp.FromTime(end), Func: "series", Limit: oneMore(limit)}
	selected := make([]storage.SeriesSet, len(sets))
	for i, m := range sets {
		selected[i] = q.Select(r.Context(), true, hints, m...)
	}
	set := selected[0]
	if len(selected) > 1 {
		set = storage.NewMergeSeriesSet(selected, 0, storage.ChainedSeriesMerge)
	}
	out := labelSets{}
	for set.Next() {
		if limit > 0 && len(out) == limit {
			a.warnings = []string{truncated}
			break
		}
		out = append(out, set.At().Labels())
	}
	if err := set.Err(); err != nil {
		return failed(classify(err, execution), err)
	}
	warnings, _ := set.Warnings().AsStrings("", maxWarnings, 0)
	a.data, a.warnings, a.done = out, append(warnings, a.warnings...), func() { q.Close() }
	return a
}

func (s *server) metadata(r *http.Request) answer {
	limits := map[string]int{"limit": -1, "limit_per_metric": -1}
	for name := range limits {
		if v := r.Form.Get(name); v != "" {
			n, err := strconv.Atoi(v)
			if err != nil {
				return failed(badData, fmt.Errorf("%s must be a number", name))
			}
			limits[name] = n
		}
	}
	all, err := s.Engine(r).Metadata(r.Context(), r.Form.Get("metric"))
	if err != nil {
		return failed(classify(err, execution), err)
	}
	if n := limits["limit_per_metric"]; n > 0 {
		for name, list := range all {
			all[name] = list[:min(n, len(list))]
		}
	}
	if n := limits["limit"]; n >= 0 && n < len(all) {
		names := make([]string, 0, len(all))
		for name := range all {
			names = append(names, name)
		}
		slices.SortFunc(names, cmp.Compare[string])
		for _, name := range names[n:] {
			delete(all, name)
		}
	}
	return answer{data: value{all}}
}
