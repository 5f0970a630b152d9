package history

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/source"
	"github.com/shmts/shmts/reader"
)

// Where two lives of one source had the same series at the same time, the older one's carry source.OverlapLabel. While
// both are in the store the register sees to it. What is archived knows births and ends, and so the rule is the same here: the
// older one is labelled if it ended more than source.RestartSteps of its finest steps after the newer one's birth. It is labelled
// for all of its life, whatever part of it a query is about: where it reaches beyond the query's span, the archive is asked once
// who else was there, and the answer is kept.

// life is when somebody was there.
type life struct {
	segment, group [16]byte
	uid            int
	start, end     int64 // unix ns; end MaxInt64: it lives, or nobody knows
	step           time.Duration
	living         bool
}

func lifeOf(g query.Segment) (l life) {
	l.end = math.MaxInt64
	if end, ended := g.End(); ended {
		l.end = end
	}
	l.start = g.Start()
	for _, t := range g.Tables() {
		if len(t.Tiers) > 0 && (l.step == 0 || t.Tiers[0].Step < l.step) {
			l.step = t.Tiers[0].Step
		}
	}
	if s, ok := g.(*segment); ok && s.living == nil {
		src := s.source()
		l.segment, l.group, l.uid, l.living = src.Segment, src.Group, src.UID, s.owner != nil
		return l
	} else if ok {
		g = s.living
	}
	liv := g.(Living)
	l.segment, l.group, l.uid, l.living = id(liv.ID()), id(liv.Group()), liv.UID(), true
	return l
}

// over tells whether l, being older, was there at the same time as newer.
func (l *life) over(newer *life) bool {
	return l.older(newer) && l.group != newer.group && l.end-newer.start > source.RestartSteps*int64(l.step)
}

func (l *life) older(o *life) bool {
	return l.start < o.start || l.start == o.start && bytes.Compare(l.segment[:], o.segment[:]) < 0
}

// overlaps keeps, of lives that the archive alone has, the series that a newer one had at the same time.
type overlaps struct {
	mu sync.Mutex
	of map[archive.Key]*overlap
}

type overlap struct {
	taken map[string]bool // series keys, nil: none
	end   int64           // of the life, unix ns: of its newest row, if nobody saw it end
}

// keepOverlaps bounds them.
const keepOverlaps = 8192

// relabel gives overrides to the segments of out that are in the archive and were overlapped by a newer one.
func (h *History) relabel(ctx context.Context, s *snapshot, out []query.Segment, want query.Selection) (warnings []error, err error) {
	if len(out) == 0 {
		return nil, nil
	}
	bySource := make(map[string][]*segment) // those that the archive alone has
	var key []byte
	for _, g := range out {
		if a, ok := g.(*segment); ok && a.living == nil {
			key = sourceKey(key, a.source().UID, a.Labels())
			bySource[string(key)] = append(bySource[string(key)], a)
		}
	}
	if len(bySource) == 0 {
		return nil, nil
	}
	members := map[string][]query.Segment{}
	for _, g := range s.segments { // a living one may be of the same source
		key = sourceKey(key, g.(Living).UID(), g.Labels())
		if bySource[string(key)] != nil {
			members[string(key)] = append(members[string(key)], g)
		}
	}
	for i, g := range out { // what the archive adds to a living one changes nothing of its life, but it is the one to be labelled
		if a, ok := g.(*segment); ok && a.living != nil {
			key = sourceKey(key, a.living.UID(), a.Labels())
			for k, m := range members[string(key)] {
				if m.(Living).ID() == a.living.ID() {
					members[string(key)][k] = out[i]
				}
			}
		}
	}
	if err := h.overlapMany(ctx, bySource, want); err != nil && ctx.Err() != nil {
		return nil, err
	}
	for key, list := range bySource {
		all := slices.Clone(members[key])
		for _, a := range list {
			all = append(all, a)
		}
		warnings = append(warnings, h.relabelSource(ctx, out, all, want)...)
		if ctx.Err() != nil {
			return warnings, ctx.Err()
		}
	}
	return warnings, nil
}

func (h *History) relabelSource(ctx context.Context, out, all []query.Segment, want query.Selection) (warnings []error) {
	lives := make([]life, len(all))
	for i, g := range all {
		lives[i] = lifeOf(g)
	}
	for i, g := range all {
		older := &lives[i]
		var taken map[string]bool
		a, archived := g.(*segment)
		if archived && older.crosses(want) {
			o, err := h.overlap(ctx, a, older)
			if err != nil {
				warnings = append(warnings, fmt.Errorf("shmts: the archive can't be read: who overlapped with whom is not known: %w", err))
			} else {
				taken, older.end = o.taken, o.end // what was selected may not reach as far as its end
			}
		}
		for k := range all {
			if newer := &lives[k]; k != i && !(older.living && newer.living) && older.over(newer) {
				taken = take(taken, all[k].Series(), taken == nil || archived)
			}
		}
		if taken == nil {
			continue
		}
		overrides := label(g, older, taken)
		switch {
		case overrides == nil:
		case archived:
			a.overrides = overrides
		default:
			for n := range out {
				if out[n] == g {
					out[n] = &relabelled{g.(Living), overrides}
				}
			}
		}
	}
	return warnings
}

// crosses tells whether a life that the archive alone has reaches beyond a selection: who was born meanwhile may not be in it.
func (l *life) crosses(want query.Selection) bool {
	return !l.living && (l.start/1e6 < want.From || l.end/1e6 > want.To)
}

// manyLives are worth asking for at once.
const manyLives = 8

// overlapMany asks the archive once for all lives that cross a selection's edges, of which nothing is known yet: for all the time since the oldest of
// them was born, or, where too many others were there since, for some of it around the selection. What it does not find out is left to overlap, which
// asks for each by itself.
func (h *History) overlapMany(ctx context.Context, bySource map[string][]*segment, want query.Selection) error {
	type asked struct {
		*segment
		life
	}
	many := map[string][]asked{}
	n, lo := 0, want.From
	for key, list := range bySource {
		for _, a := range list {
			if l := lifeOf(a); l.crosses(want) && h.overlaps.get(a) == nil {
				many[key] = append(many[key], asked{a, l})
				n++
				lo = min(lo, l.start/1e6)
			}
		}
	}
	if n < manyLives {
		return nil
	}
	hi := want.To
	for _, t := range h.o.Archive.Tiers() {
		hi = max(hi, t.Newest)
	}
	whole := true // what is found is all there is of each
	ask := func() ([]*archive.Incarnation, error) {
		return h.o.Archive.Select(ctx, archive.Selection{From: lo, To: hi, Labels: labelMatchers(want.Matchers), Limit: 1000 + 4*n})
	}
	found, err := ask()
	if errors.Is(err, archive.ErrTooMany) {
		around := max(want.To-want.From, 600_000)
		lo = max(lo, want.From-around)
		if to := want.To + min(want.To-lo, around); to < hi {
			hi, whole = to, false
		}
		found, err = ask()
	}
	if err != nil {
		return err
	}
	near := map[string][]*archive.Incarnation{}
	var b []byte
	for _, inc := range found {
		b = sourceKey(b, inc.UID, inc.Labels)
		if many[string(b)] != nil {
			near[string(b)] = append(near[string(b)], inc)
		}
	}
	for key, list := range many {
		for _, a := range list {
			src, end := a.source(), int64(0)
			ended := whole
			for _, inc := range near[key] {
				if inc.Segment == src.Segment && inc.Copy == src.Copy {
					end, ended = max(end, newest(inc)*1e6), ended || inc.Ended != 0
				}
			}
			if !ended || end == 0 || end/1e6 > hi || a.start/1e6 < lo {
				continue
			}
			o := &overlap{end: end}
			me := a.life
			me.end = end
			for _, inc := range near[key] {
				o.add(&me, inc)
			}
			h.overlaps.put(a.segment, o)
		}
	}
	return nil
}

// add takes in what a newer life had at the same time.
func (o *overlap) add(me *life, inc *archive.Incarnation) {
	newer := life{segment: inc.Segment, group: inc.Group, start: inc.Birth}
	if me.over(&newer) {
		o.taken = take(o.taken, inc.Series, o.taken == nil)
	}
}

func (c *overlaps) get(a *segment) *overlap {
	src := a.source()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of[archive.Key{Segment: src.Segment, Copy: src.Copy}]
}

func (c *overlaps) put(a *segment, o *overlap) {
	src := a.source()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.of) >= keepOverlaps {
		clear(c.of)
	}
	c.of[archive.Key{Segment: src.Segment, Copy: src.Copy}] = o
}

// take adds series to a set, a new one if it may be somebody else's.
func take(taken map[string]bool, series []*reader.Series, fresh bool) map[string]bool {
	out := taken
	if fresh {
		out = make(map[string]bool, len(taken)+len(series))
		for k := range taken {
			out[k] = true
		}
	}
	var key []byte
	for _, s := range series {
		key = source.SeriesKey(key, s)
		out[string(key)] = true
	}
	return out
}

// label makes the overrides of a segment.
func label(g query.Segment, l *life, taken map[string]bool) map[*reader.Series][]reader.Pair {
	out := map[*reader.Series][]reader.Pair{}
	for s, pairs := range g.Overrides() {
		out[s] = pairs
	}
	pairs := source.OverlapPairs(fmt.Sprintf("%x", l.segment))
	var key []byte
	for _, s := range g.Series() {
		if key = source.SeriesKey(key, s); taken[string(key)] {
			out[s] = pairs
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// relabelled is a living segment that an archived one overlapped.
type relabelled struct {
	Living
	overrides map[*reader.Series][]reader.Pair
}

// Unwrap is the segment without them.
func (r *relabelled) Unwrap() query.Segment { return r.Living }

// Overrides implements query.Segment.
func (r *relabelled) Overrides() map[*reader.Series][]reader.Pair { return r.overrides }

// overlap asks the archive who was born while somebody was there.
func (h *History) overlap(ctx context.Context, a *segment, l *life) (*overlap, error) {
	src := a.source()
	if o := h.overlaps.get(a); o != nil {
		return o, nil
	}
	me := *l
	if me.end == math.MaxInt64 { // its end is not in what was selected
		found, err := h.o.Archive.Find(src.Segment)
		if err != nil {
			return nil, err
		}
		me.end = 0
		for _, inc := range found {
			if inc.Copy == src.Copy {
				me.end = max(me.end, newest(inc)*1e6)
			}
		}
	}
	var exact []archive.Matcher
	for _, p := range src.Labels {
		exact = append(exact, archive.Matcher{Name: p.Name, Equal: p.Value, Match: func(v string) bool { return v == p.Value }})
	}
	found, err := h.o.Archive.Select(ctx, archive.Selection{From: floor(me.start), To: floor(me.end) + 1, Labels: exact, UID: func(uid int) bool { return uid == src.UID }})
	if err != nil {
		return nil, err
	}
	o := &overlap{end: me.end}
	for _, inc := range found {
		if slices.Equal(inc.Labels, src.Labels) {
			o.add(&me, inc)
		}
	}
	h.overlaps.put(a, o)
	return o, nil
}

// newest is the time of the newest row of an incarnation, unix ms.
func newest(inc *archive.Incarnation) int64 {
	t := inc.Ended
	for _, table := range inc.Tables {
		for _, tt := range table.Tiers {
			t = max(t, tt.Newest)
		}
	}
	return t
}

func sourceKey(b []byte, uid int, labels []reader.Pair) []byte {
	b = strconv.AppendInt(b[:0], int64(uid), 10)
	for _, p := range labels {
		b = append(append(append(append(b, 0), p.Name...), 0), p.Value...)
	}
	return b
}
