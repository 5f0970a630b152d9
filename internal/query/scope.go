package query

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/reader"
)

// A Scope is what somebody may see: every series that one of its selectors accepts, and no other. What is not in it is not there for
// him: a Storage with a Scope shows views of segments without it, so that no query, list, count or message can tell of it. nil is everything.
//
// Selectors are held against series as they are recorded, before Rules, which see of it what he may see and no more: of a histogram that is
// seen, the classic view is too. Of what an archive sums up of short lives, only that is seen of which a selector surely accepts every part:
// see narrow.
type Scope struct{ selectors [][]*labels.Matcher }

// OverlapLabel is set while two processes have the same series, see Segment.Overrides: who sees one of them sees both.
const OverlapLabel = "shmts_segment"

// NewScope makes a Scope of selectors, at least one.
func NewScope(selectors [][]*labels.Matcher) (*Scope, error) {
	if n := len(selectors); n == 0 || n > maxMatchers {
		return nil, fmt.Errorf("want 1 to %d selectors, got %d", maxMatchers, n)
	}
	for _, s := range selectors {
		if n := len(s); n == 0 || n > maxMatchers {
			return nil, fmt.Errorf("want 1 to %d matchers in a selector, got %d", maxMatchers, n)
		}
		if slices.ContainsFunc(s, func(m *labels.Matcher) bool { return m.Name == OverlapLabel || m.Name == rowsMark }) {
			return nil, fmt.Errorf("want labels that are a series' own, got %s", OverlapLabel)
		}
	}
	return &Scope{selectors}, nil
}

// Source tells whether any series of a source can be seen, as far as the source's own labels say it.
func (s *Scope) Source(pairs []reader.Pair) bool {
	source := legalLabels(pairs)
	sum := isSum(source)
	for _, matchers := range s.selectors {
		if _, ok := prune(source, matchers); ok && !(sum && narrow(matchers)) {
			return true
		}
	}
	return false
}

// isSum tells a source that sums up short lives of a user's job, by its instance: FORMAT.md 19.6. What it sums up had other labels beside.
func isSum(source []labels.Label) bool {
	return strings.HasPrefix(get(source, model.InstanceLabel), "ephemeral-")
}

// narrow tells whether a selector may accept a sum although it does not accept all that is in it: by a label that the sum has not, or
// has of its own.
func narrow(matchers []*labels.Matcher) bool {
	return slices.ContainsFunc(matchers, func(m *labels.Matcher) bool {
		switch m.Name {
		case model.MetricNameLabel, model.JobLabel:
			return false
		case model.InstanceLabel:
			return true
		}
		return m.Matches("")
	})
}

// A Sieve finds the segments of which a scope sees anything. It is safe for concurrent use.
type Sieve struct{ schemas *schemas }

// NewSieve makes one.
func NewSieve(s *Scope) *Sieve {
	return &Sieve{newSchemas(nil, s)}
}

// Keep tells of each segment whether there is something to be seen.
func (s *Sieve) Keep(segments []Segment) []bool {
	keep := make([]bool, len(segments))
	for _, v := range s.schemas.views(segments, nil) {
		keep[v.index] = true
	}
	return keep
}

// scopedKey is a schema, and which selectors of a scope have a say about its series, with what their source leaves open.
type scopedKey struct {
	schema *schema
	open   string
}

// keepScoped bounds what is remembered of them.
const keepScoped = 1024

// restrict takes away of a view what is not in the scope, and tells whether anything is left. c is locked.
func (c *schemas) restrict(v *view) bool {
	type open struct {
		matchers []*labels.Matcher
		mask     uint64
	}
	var some []open
	var key []byte
	target, sum := false, isSum(v.source)
	for i, matchers := range c.scope.selectors {
		mask, ok := prune(v.source, matchers)
		if !ok || sum && narrow(matchers) {
			continue
		}
		if mask == 0 { // the source's labels say it all
			return true
		}
		some = append(some, open{matchers, mask})
		key = binary.AppendUvarint(append(key, byte(i)), mask)
		target = target || v.target != nil && matchesTarget(v.target, matchers, mask)
	}
	if len(some) == 0 {
		return false
	}
	k := scopedKey{v.schema, string(key)}
	scoped, ok := c.scoped[k]
	if !ok {
		if len(c.scoped) >= keepScoped {
			clear(c.scoped)
		}
		var seen []metric
		for _, o := range some {
			for _, m := range v.schema.match(o.matchers, o.mask) {
				if m.as == asIs {
					seen = append(seen, *m)
				}
			}
		}
		scoped = v.schema.only(seen)
		c.scoped[k] = scoped
	}
	e := *v.entry
	e.schema = scoped
	if !target {
		e.target = nil
	}
	v.entry = &e
	return target || len(scoped.metrics) > 0
}

// matchesTarget tells whether matchers of mask accept target_info.
func matchesTarget(target []labels.Label, matchers []*labels.Matcher, mask uint64) bool {
	for i, m := range matchers {
		value := names.TargetInfo
		if m.Name != model.MetricNameLabel {
			value = get(target, m.Name)
		}
		if mask>>i&1 == 1 && !m.Matches(value) {
			return false
		}
	}
	return true
}

// only is the schema without other metrics than these.
func (s *schema) only(seen []metric) *schema {
	out := &schema{series: s.series, source: s.source, own: s.own, byName: map[string]span{}}
	same := func(a, b metric) bool { return a.name == b.name && a.series == b.series && a.field == b.field }
	slices.SortFunc(seen, compareMetrics)
	out.metrics = slices.CompactFunc(seen, same)
	out.index()
	return out
}

// String is the selectors as they would be written.
func (s *Scope) String() string {
	var b strings.Builder
	for i, matchers := range s.selectors {
		if i > 0 {
			b.WriteString(" or ")
		}
		b.WriteByte('{')
		for k, m := range matchers {
			if k > 0 {
				b.WriteByte(',')
			}
			b.WriteString(m.String())
		}
		b.WriteByte('}')
	}
	return b.String()
}
