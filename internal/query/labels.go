package query

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/shmts/shmts/reader"
)

// LabelNames implements storage.LabelQuerier.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	found := map[string]struct{}{}
	err := q.walk(ctx, matchers, func(v *view, m *metric, own []labels.Label) error {
		before, bytes := len(found), 0
		put := func(name string) {
			found[name] = struct{}{}
			if n := len(found); n > before {
				before, bytes = n, bytes+stringBytes+len(name)
			}
		}
		put(model.MetricNameLabel)
		if m == nil {
			own = v.target
		} else {
			for _, l := range v.source {
				put(l.Name)
			}
		}
		for _, l := range own {
			put(l.Name)
		}
		return q.Run.memory.take(int64(bytes))
	})
	return sorted(found, hints), q.warnings(), err
}

// LabelValues implements storage.LabelQuerier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	found := map[string]struct{}{}
	err := q.walk(ctx, matchers, func(v *view, m *metric, own []labels.Label) error {
		value := ""
		switch {
		case name == model.MetricNameLabel && m == nil:
			value = v.targetName
		case name == model.MetricNameLabel:
			value = m.name
		case m == nil:
			value = get(v.target, name)
		default:
			if value = get(v.source, name); value == "" {
				value = get(own, name)
			}
		}
		if value == "" {
			return nil
		}
		before := len(found)
		if found[value] = struct{}{}; len(found) == before {
			return nil
		}
		return q.Run.memory.take(int64(stringBytes + len(value)))
	})
	return sorted(found, hints), q.warnings(), err
}

// walk calls f with every metric that the matchers select, once for all segments of a schema and a source.
func (q *querier) walk(ctx context.Context, matchers []*labels.Matcher, f func(v *view, m *metric, own []labels.Label) error) error {
	sel, err := newSelector(matchers)
	if err != nil {
		return err
	}
	views, err := q.views(ctx, Selection{From: q.mint, To: q.maxt, First: q.mint, Matchers: matchers, Partial: true})
	if err != nil {
		return err
	}
	for i := range views {
		if i%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if i%64 == 63 {
			q.yield(ctx)
		}
		v := &views[i]
		sel.each(v, func(m *metric, own []labels.Label) bool {
			err = f(v, m, own)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// warnings are those of the query so far.
func (r *Run) warnings() annotations.Annotations {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out annotations.Annotations
	for _, err := range r.notes {
		if errors.Is(err, annotations.PromQLWarning) {
			out.Add(err)
		}
	}
	return out
}

func sorted(found map[string]struct{}, hints *storage.LabelHints) []string {
	out := slices.AppendSeq(make([]string, 0, len(found)), maps.Keys(found))
	slices.Sort(out)
	if hints != nil && hints.Limit > 0 && len(out) > hints.Limit {
		out = out[:hints.Limit]
	}
	return out
}

// Metadata is what writers say of a metric.
type Metadata struct {
	Type string `json:"type"` // Prometheus's word
	Help string `json:"help"`
	Unit string `json:"unit"` // UCUM, as recorded
}

// metadataSpan is how far back Metadata looks: help and unit are of what runs, not of what once ran.
const metadataSpan = 5 * time.Minute

// Metadata of every metric, or of one, by name, of the last minutes. The list of a metric is sorted and without doubles.
func (s *Storage) Metadata(ctx context.Context, metric string) (map[string][]Metadata, error) {
	now := s.now().UnixMilli()
	wanted := Selection{From: now - metadataSpan.Milliseconds(), To: now, Partial: true}
	wanted.First = wanted.From
	if metric != "" {
		wanted.Matchers = []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, metric)}
	}
	known := s.rules.schemas()
	asked := wanted
	asked.Matchers = known.passed(wanted.Matchers)
	segments, _, err := s.sources.Select(ctx, asked)
	if err != nil {
		return nil, err
	}
	out := map[string][]Metadata{}
	seen := map[*schema]bool{}
	add := func(name string, m Metadata) {
		if metric == "" || metric == name {
			if at, ok := slices.BinarySearchFunc(out[name], m, compareMetadata); !ok {
				out[name] = slices.Insert(out[name], at, m)
			}
		}
	}
	for _, v := range known.views(segments, known.wanted(wanted.Matchers)) {
		if v.target != nil {
			add(v.targetName, Metadata{"gauge", "Resource attributes of the source.", ""})
		}
		if seen[v.schema] {
			continue
		}
		seen[v.schema] = true
		for _, m := range v.schema.metrics {
			sr := v.schema.series[m.series]
			add(m.name, Metadata{typeOf(sr, m.field), sr.Help, unitOf(sr, m.field)})
		}
	}
	return out, nil
}

func compareMetadata(a, b Metadata) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Help, b.Help), cmp.Compare(a.Unit, b.Unit))
}

func typeOf(s *reader.Series, f Field) string {
	switch {
	case f == Buckets:
		return "histogram"
	case additive(s, f):
		return "counter"
	}
	return "gauge"
}

func unitOf(s *reader.Series, f Field) string {
	if f == Count {
		return ""
	}
	return s.Unit
}
