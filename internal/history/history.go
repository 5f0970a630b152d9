// Package history puts what segments hold and what the archive holds of them together: for PromQL, a writer's life is one
// query.Segment, whether its rows are in its rings, on the disk, or some here and some there.
//
//	register ─▶ living, and dead ones that are kept ─┐
//	                                                 ├─ by segment id and copy ─▶ query.Segment
//	archive  ─▶ incarnations found by time, labels ──┘
//
// A query that the rings answer alone asks the archive for nothing: see alone.
package history

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/reader"
)

// Living is a segment that is in the store: its writer lives, or is dead and the segment is kept.
type Living interface {
	query.Segment
	ID() string    // of the segment, 32 hexadecimal digits
	Group() string // of the process, FORMAT.md 10.7
	UID() int
	Inode() (dev, ino uint64)
	BootID() string
	// Head is the number of a tier's newest row, 0 if there is none, or no segment any more.
	Head(table, tier int) uint64
}

// Options of New.
type Options struct {
	// Living is a snapshot, oldest first: the same slice as long as nothing changed, and never changed.
	Living func() []Living
	// Left is the time, unix ms, up to which rows may be of segments that have left Living. It is asked after Living.
	Left func() int64
	// Archive is where the rest is; nil: nowhere.
	Archive archive.Reader
	// Recent has exemplars of Living; nil: there are none but the archive's.
	Recent Recent
	// UID, if not nil, says whose lives of the archive may be seen, and Scope, if not nil, which of those. Living has no others either.
	UID   func(uid int) bool
	Scope *query.Scope
	// MaxSources is how many incarnations of the archive one selector may find; 0: 20,000.
	MaxSources int
}

// History is query.Sources over segments and an archive. It is safe for concurrent use.
type History struct {
	o        Options
	snapshot atomic.Pointer[snapshot]
	pairs    pairs
	overlaps overlaps
}

var _ query.Sources = (*History)(nil)

// margin is three steps of most histograms, in ms.
const margin = 30_000

// defaultSources is what a query holds at most, at some kilobytes each.
const defaultSources = 20_000

// New makes a History.
func New(o Options) *History {
	if o.MaxSources == 0 {
		o.MaxSources = defaultSources
	}
	h := &History{o: o}
	h.pairs.of = map[pairKey]*pair{}
	h.overlaps.of = map[archive.Key]*overlap{}
	return h
}

// snapshot is what is known of Living's, once for each.
type snapshot struct {
	living   []Living
	segments []query.Segment
	ids      map[[16]byte]int // index in living
	coarsest time.Duration
	reach    int64 // ms: how much time every finest ring holds
	fresh    int64 // ms: how much, but for the time that a row is not stale yet
	slack    int64 // ms: how long that is, in the finest tier of any
}

func (h *History) now() *snapshot {
	living := h.o.Living()
	if s := h.snapshot.Load(); s != nil && len(s.living) == len(living) && (len(living) == 0 || &s.living[0] == &living[0]) {
		return s
	}
	s := &snapshot{living: living, segments: make([]query.Segment, len(living)), ids: make(map[[16]byte]int, len(living)), reach: 1 << 60, fresh: 1 << 60}
	for i, l := range living {
		s.segments[i] = l
		s.ids[id(l.ID())] = i
		for _, t := range l.Tables() {
			if len(t.Tiers) > 0 {
				step := t.Tiers[0].Step.Milliseconds()
				// The oldest row may be overwritten while it is read, and the newest not be there yet.
				reach := int64(t.Tiers[0].Rows-2) * step
				s.reach, s.fresh, s.slack = min(s.reach, reach), min(s.fresh, reach-3*step), max(s.slack, 3*step)
			}
		}
	}
	s.coarsest = query.Coarsest(s.segments)
	h.snapshot.Store(s)
	return s
}

// id is an identity as bytes; zeros if it is none.
func id(digits string) (out [16]byte) {
	_, _ = hex.Decode(out[:], []byte(digits)[:min(len(digits), 32)])
	return out
}

// Coarsest implements query.Sources.
func (h *History) Coarsest() time.Duration {
	d := h.now().coarsest
	if h.o.Archive == nil {
		return d
	}
	for _, t := range h.o.Archive.Tiers() {
		d = max(d, t.Step)
	}
	return d
}

// alone tells whether the rings have all that is wanted: nothing that has left could have a row of that time, and every finest
// ring reaches back that far.
func (h *History) alone(s *snapshot, want query.Selection) bool {
	if want.First <= h.o.Left() {
		return false
	}
	reach := s.reach
	if want.From < want.First {
		reach = s.fresh
	}
	return len(s.living) == 0 || want.First >= s.living[0].AsOf()/1e6-reach
}

// Select implements query.Sources. What the archive can't say is a warning: the segments are there all the same.
func (h *History) Select(ctx context.Context, want query.Selection) ([]query.Segment, []error, error) {
	if want.Exemplars > 0 {
		return h.exemplars(ctx, want)
	}
	s := h.now()
	if h.o.Archive == nil || h.alone(s, want) {
		return s.segments, nil, nil
	}
	tiers := h.o.Archive.Tiers()
	from := want.From
	if want.From < want.First { // a row that has gone stale in every tier before the first instant is nobody's
		var coarsest time.Duration
		for _, t := range tiers {
			coarsest = max(coarsest, t.Step)
		}
		from = max(from, want.First-max(3*coarsest.Milliseconds(), s.slack))
	}
	// A little more, so that a tier that reaches back far enough is seen to.
	before := max(s.slack, margin)
	from = max(from, math.MinInt64+before) - before
	asked := archive.Selection{
		From: from, To: want.To, Labels: labelMatchers(want.Matchers), Schema: schemaMatcher(want.Matchers), Limit: h.o.MaxSources + len(s.living),
	}
	found, err := h.o.Archive.Select(ctx, h.restricted(asked))
	var warnings []error
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, nil, err
	case errors.Is(err, archive.ErrTooMany) && !want.Partial:
		return nil, nil, fmt.Errorf("%w: want at most %d of the archive in a selector: ask for less time or with more labels, or raise query.max-sources", query.ErrTooManySources, h.o.MaxSources)
	case errors.Is(err, archive.ErrTooMany):
		warnings = append(warnings, fmt.Errorf("shmts: more than %d archived sources: a part of them is looked at; ask for less time or with more labels", h.o.MaxSources))
	default:
		warnings = append(warnings, fmt.Errorf("shmts: the archive can't be read, this is without it: %w", err))
	}
	out := h.combine(s, found, tiers, want)
	more, err := h.relabel(ctx, s, out, want)
	return out, append(warnings, more...), err
}

// restricted is a selection of what may be seen.
func (h *History) restricted(s archive.Selection) archive.Selection {
	s.UID = h.o.UID
	if h.o.Scope != nil {
		s.Source = func(src *archive.Source) bool { return h.o.Scope.Source(src.Labels) }
	}
	return s
}

// combine makes one segment of each life.
func (h *History) combine(s *snapshot, found []*archive.Incarnation, tiers []archive.Tier, want query.Selection) []query.Segment {
	slices.SortStableFunc(found, func(a, b *archive.Incarnation) int {
		return cmp.Or(bytes.Compare(a.Segment[:], b.Segment[:]), cmp.Compare(a.Copy, b.Copy), cmp.Compare(a.Epoch, b.Epoch))
	})
	out := slices.Clone(s.segments)
	for len(found) > 0 {
		first := found[0]
		n := 1
		for n < len(found) && found[n].Segment == first.Segment && found[n].Copy == first.Copy {
			n++
		}
		incs := found[:n:n]
		found = found[n:]
		i, alive := s.ids[first.Segment]
		latest := len(found) == 0 || found[0].Segment != first.Segment // copy: an older one is of another file, or rewound
		if alive = alive && latest && same(s.living[i], incs); alive {
			both := newSegment(h, s.living[i], incs, tiers)
			out[i] = both
			if gone := both.gone(tiers); gone != nil {
				out = append(out, gone)
			}
			continue
		}
		if end := ended(incs); end != 0 && end+1 < min(want.First, want.To) {
			continue // gone before the first instant
		}
		out = append(out, newSegment(h, nil, incs, tiers))
	}
	if len(out) > len(s.segments) {
		slices.SortStableFunc(out, func(a, b query.Segment) int { return cmp.Compare(a.Start(), b.Start()) })
	}
	return out
}

// same tells whether what the archive has of a segment id is of this very file, and not ahead of it. FORMAT.md 19.4.
func same(l Living, incs []*archive.Incarnation) bool {
	inc := incs[len(incs)-1]
	if _, ino := l.Inode(); inc.Inode != ino || inc.Boot != id(l.BootID()) {
		return false
	}
	for t := range inc.Tables {
		for _, tt := range inc.Tables[t].Tiers {
			if head := l.Head(t, 0); !tt.Folded && head > 0 && tt.Last > head {
				return false
			}
		}
	}
	return true
}

// ended is when a life ended, unix ms: 0 if it did not, as far as is known.
func ended(incs []*archive.Incarnation) int64 { return incs[len(incs)-1].Ended }

// labelMatchers are the matchers that a source's own labels decide, as they were recorded. A label that PromQL
// knows by another name is left to it: only one without '_' surely has its own, and a value without ';' is surely not joined of several.
func labelMatchers(matchers []*labels.Matcher) []archive.Matcher {
	var out []archive.Matcher
	for _, m := range matchers {
		equal := m.Type == labels.MatchEqual && m.Value != "" && !strings.Contains(m.Value, ";")
		if m.Name == model.MetricNameLabel || strings.Contains(m.Name, "_") && !equal {
			continue
		}
		a := archive.Matcher{Name: m.Name, Match: func(v string) bool { return v == "" || m.Matches(v) }}
		if equal {
			a.Equal = m.Value
		}
		out = append(out, a)
	}
	return out
}

// schemaMatcher tells whether any series of a schema has a wanted name; nil if all do.
func schemaMatcher(matchers []*labels.Matcher) func(*archive.Schema) bool {
	match := query.MatchNames(matchers)
	if match == nil {
		return nil
	}
	known := map[[16]byte]bool{}
	return func(s *archive.Schema) bool {
		ok, had := known[s.Hash]
		if !had {
			ok = match(s.Series)
			known[s.Hash] = ok
		}
		return ok
	}
}

// union is the series of several epochs or schemas of one source, the newest first, and when each was registered.
func union(incs []*archive.Incarnation) (series []*reader.Series, starts []int64) {
	last := incs[len(incs)-1]
	series, starts = last.Series, last.Starts
	seen := map[string]bool{}
	for i := len(incs) - 2; i >= 0; i-- {
		inc := incs[i]
		if len(inc.Series) == 0 || len(series) > 0 && &inc.Series[0] == &last.Series[0] {
			continue
		}
		if len(seen) == 0 {
			series, starts = slices.Clone(series), slices.Clone(starts)
			for _, s := range series {
				seen[identity(s)] = true
			}
		}
		for k, s := range inc.Series {
			if key := identity(s); !seen[key] {
				seen[key] = true
				series, starts = append(series, s), append(starts, inc.Starts[k])
			}
		}
	}
	return series, starts
}

// identity is what a series is known by in the archive and in a segment alike.
func identity(s *reader.Series) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d %d %d %d %d\x00%s", s.Table, s.Kind, s.Number, s.Buckets.Scale, s.Buckets.Min, s.Buckets.Count, s.Name)
	for _, p := range s.Labels {
		b.WriteString("\x00" + p.Name + "\x00" + p.Value)
	}
	return b.String()
}
