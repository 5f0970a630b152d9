package query

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/names"
)

// Cardinality says where the series are, of what runs or ran in the last minutes. Lists are sorted, the most first.
type Cardinality struct {
	Series     int
	Pairs      int   // different label names with a value
	Oldest     int64 // unix ms: since when there may be rows of these
	Newest     int64 // up to when they are known
	Metrics    []NamedCount
	Labels     []NamedCount // different values of a label name
	Bytes      []NamedCount // of the values of a label name, once for each series
	LabelPairs []NamedCount // series of name=value
}

// NamedCount is one entry of a list.
type NamedCount struct {
	Name  string
	Count uint64
}

// MaxPairs bounds what Cardinality counts: a store may hold millions of different label values.
const MaxPairs = 1 << 19

// pairBytes is what one takes while they are counted.
const pairBytes = 2 * stringBytes

// Cardinality counts the series of what runs. Lists have at most limit entries. It fails where there are more than MaxPairs
// different names with a value.
func (s *Storage) Cardinality(ctx context.Context, limit int) (*Cardinality, error) {
	now := s.now().UnixMilli()
	wanted := Selection{From: now - metadataSpan.Milliseconds(), To: now, Partial: true}
	wanted.First = wanted.From
	segments, _, err := s.sources.Select(ctx, wanted)
	if err != nil {
		return nil, err
	}
	run := s.With(Hints{})
	defer run.Close()
	views := s.schemas.views(segments)
	c := counter{pairs: map[labels.Label]uint64{}, out: Cardinality{Newest: now}}
	bySource := map[string][]*view{} // lives of one source have most of their series in common
	var order []string
	var key strings.Builder
	for i := range views {
		v := &views[i]
		key.Reset()
		for _, l := range v.source {
			key.WriteString(l.Name + "\xff" + l.Value + "\xff")
		}
		k := key.String()
		if bySource[k] == nil {
			order = append(order, k)
		}
		bySource[k] = append(bySource[k], v)
		if at := s.oldest(v, now); c.out.Oldest == 0 || at < c.out.Oldest {
			c.out.Oldest = at
		}
	}
	for i, k := range order {
		if i%64 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if i%64 == 63 {
			run.yield(ctx)
		}
		before := len(c.pairs)
		c.source(bySource[k])
		if err := run.memory.take(int64(len(c.pairs)-before) * pairBytes); err != nil {
			return nil, err
		}
		if len(c.pairs) > MaxPairs {
			return nil, fmt.Errorf("shmts: query: more than %d different label values: too many to count", MaxPairs)
		}
	}
	c.finish(limit)
	return &c.out, nil
}

// oldest is since when a segment may have rows, unix ms.
func (s *Storage) oldest(v *view, now int64) int64 {
	archived, _ := v.Segment.(Archived)
	at := now
	for i, t := range v.Tables() {
		for k, tier := range t.Tiers {
			if archived != nil {
				if sp := archived.Span(i, k); sp.Oldest <= sp.Newest {
					at = min(at, sp.Oldest)
				}
			} else {
				at = min(at, max(milli(v.Start()), now-tier.Step.Milliseconds()*int64(tier.Rows)))
			}
		}
	}
	return at
}

// counter counts series by their labels' names with a value. A value of the name label is a metric.
type counter struct {
	out   Cardinality
	pairs map[labels.Label]uint64
}

// source counts the series of all lives of one source, each once.
func (c *counter) source(lives []*view) {
	single := len(lives) == 1
	seen := map[string]struct{}{}
	var key strings.Builder
	once := func(name string, own []labels.Label) bool {
		if single {
			return true
		}
		key.Reset()
		key.WriteString(name)
		for _, l := range own {
			key.WriteString("\xff" + l.Name + "\xff" + l.Value)
		}
		k := key.String()
		if _, ok := seen[k]; ok {
			return false
		}
		seen[k] = struct{}{}
		return true
	}
	count, of := uint64(0), lives[0].source
	for _, v := range lives {
		overrides := v.Overrides()
		for i := range v.schema.metrics {
			m := &v.schema.metrics[i]
			own := v.schema.own[m.series]
			if len(overrides) > 0 {
				own = withOverrides(own, overrides[v.series[m.series]])
			}
			if !once(m.name, own) {
				continue
			}
			count++
			c.pairs[labels.Label{Name: model.MetricNameLabel, Value: m.name}]++
			for _, l := range own {
				c.pairs[l]++
			}
		}
		if v.target != nil && once(names.TargetInfo, v.target) {
			c.out.Series++
			c.pairs[labels.Label{Name: model.MetricNameLabel, Value: names.TargetInfo}]++
			for _, l := range v.target {
				c.pairs[l]++
			}
		}
	}
	c.out.Series += int(count)
	if count > 0 {
		for _, l := range of {
			c.pairs[l] += count
		}
	}
}

func (c *counter) finish(limit int) {
	values, bytes := map[string]uint64{}, map[string]uint64{}
	for l, n := range c.pairs {
		values[l.Name]++
		bytes[l.Name] += n * uint64(len(l.Value))
		if l.Name == model.MetricNameLabel {
			c.out.Metrics = append(c.out.Metrics, NamedCount{l.Value, n})
		}
		c.out.LabelPairs = append(c.out.LabelPairs, NamedCount{l.Name + "=" + l.Value, n})
		if len(c.out.LabelPairs) > 2*limit+1024 {
			c.out.LabelPairs = most(c.out.LabelPairs, limit)
		}
	}
	c.out.Pairs = len(c.pairs)
	for name, n := range values {
		c.out.Labels = append(c.out.Labels, NamedCount{name, n})
		c.out.Bytes = append(c.out.Bytes, NamedCount{name, bytes[name]})
	}
	c.out.Metrics, c.out.Labels = most(c.out.Metrics, limit), most(c.out.Labels, limit)
	c.out.Bytes, c.out.LabelPairs = most(c.out.Bytes, limit), most(c.out.LabelPairs, limit)
}

// most keeps the greatest; of equal ones the first by name.
func most(list []NamedCount, limit int) []NamedCount {
	slices.SortFunc(list, func(a, b NamedCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Name, b.Name))
	})
	return list[:min(limit, len(list))]
}
