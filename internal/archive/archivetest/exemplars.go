package archivetest

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/shmts/shmts/internal/archive"
)

// AppendExemplars implements archive.Writer.
func (m *Memory) AppendExemplars(parts ...archive.Exemplars) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return fmt.Errorf("%w: %w", archive.ErrStopped, m.err)
	}
	for _, p := range parts {
		p.List = slices.Clone(p.List)
		m.exemplars = append(m.exemplars, p)
	}
	return nil
}

// Exemplars implements archive.Reader.
func (m *Memory) Exemplars(ctx context.Context, s archive.Selection) iter.Seq2[*archive.Exemplars, error] {
	return func(yield func(*archive.Exemplars, error) bool) {
		m.mu.RLock()
		all := slices.Clone(m.exemplars)
		m.mu.RUnlock()
		type numbered struct {
			archive.Key
			table int
		}
		last := map[numbered]uint64{}
		for _, p := range all {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			at := numbered{archive.Key{Segment: p.Source.Segment, Copy: p.Source.Copy}, p.Schema.Table}
			before := last[at]
			last[at] = max(before, p.List[len(p.List)-1].Number)
			if s.UID != nil && !s.UID(p.Source.UID) || s.Source != nil && !s.Source(p.Source) || s.Schema != nil && !s.Schema(p.Schema) || !matches(s.Labels, p.Source) {
				continue
			}
			p.List = slices.DeleteFunc(slices.Clone(p.List), func(x archive.Exemplar) bool {
				ms := x.Time / 1e6
				return x.Number <= before || ms < s.From || ms > s.To
			})
			if len(p.List) > 0 && !yield(&p, nil) {
				return
			}
		}
	}
}

func matches(labels []archive.Matcher, src *archive.Source) bool {
	for _, mt := range labels {
		for _, p := range src.Labels {
			if p.Name == mt.Name && !mt.Match(p.Value) {
				return false
			}
		}
	}
	return true
}

// FindExemplars implements archive.Reader.
func (m *Memory) FindExemplars(segment [16]byte) (out []archive.ExemplarPosition, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	at := map[archive.Key]int{}
	for _, p := range m.exemplars {
		if p.Source.Segment != segment {
			continue
		}
		i, ok := at[p.Source.Key]
		if !ok {
			i = len(out)
			at[p.Source.Key] = i
			out = append(out, archive.ExemplarPosition{Source: p.Source})
		}
		out[i].Last = max(out[i].Last, p.List[len(p.List)-1].Number)
	}
	return out, nil
}
