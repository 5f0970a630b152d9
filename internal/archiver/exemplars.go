package archiver

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/reader"
)

// Exemplars is where exemplars wait for the archive, taken over from the segments at each poll. *exemplars.Store is one.
type Exemplars interface {
	// Newest is the number of the newest one of a segment's file, 0 if there is none.
	Newest(segment string, inode uint64) uint64
	// Above yields those of a file numbered above after, oldest first, until yield answers false. They are not changed afterwards.
	Above(segment string, inode, after uint64, yield func(*reader.Exemplar) bool)
	// Archived says that those of a file up to a number are written.
	Archived(segment string, inode, number uint64)
	// Crowded tells whether so many wait that there may be no room for more before the next sync.
	Crowded() bool
	// Whole tells of a file whose writer has ended, with exemplars numbered up to head, whether all of them that could be had are there.
	Whole(segment string, inode, head uint64) bool
}

// What one block of exemplars takes in at most. FORMAT.md 16.3 would allow more: these are as many as are written between two syncs.
const (
	exemplarParts = 512
	exemplarsMost = 8192
)

// tracing is what is new of one segment.
type tracing struct {
	st   *segment
	list []*reader.Exemplar
}

// flushExemplars writes what is new of some segments, or of all: a block for those of one user, or as many as it takes. ending says that
// there is no later for them.
func (a *Archiver) flushExemplars(of []*segment, ending bool) {
	if a.o.Exemplars == nil || a.Stopped() != nil {
		return
	}
	var all []tracing
	for _, st := range of {
		newest := a.o.Exemplars.Newest(st.seg.ID(), st.ino)
		if newest == 0 || st.traced && newest <= st.exemplar {
			continue
		}
		if !st.located && !a.locate(st) || !st.traced && !a.trace(st) {
			continue
		}
		over := a.isOver(st.uid, 0)
		if over && !ending {
			continue // they wait in memory, as long as there is room
		}
		t := tracing{st: st}
		a.o.Exemplars.Above(st.seg.ID(), st.ino, st.exemplar, func(x *reader.Exemplar) bool {
			t.list = append(t.list, x)
			return true
		})
		switch n := len(t.list); {
		case n == 0:
		case over:
			a.lostExemplars(n)
			a.tracedUpTo(st, t.list[n-1].Number)
		default:
			all = append(all, t)
		}
	}
	slices.SortStableFunc(all, func(x, y tracing) int {
		return cmp.Or(cmp.Compare(x.st.uid, y.st.uid), bytes.Compare(x.st.id[:], y.st.id[:]))
	})
	for len(all) > 0 && a.Stopped() == nil {
		n, parts := 0, 0
		k := slices.IndexFunc(all, func(t tracing) bool {
			n += len(t.list)
			parts += len(t.st.tables)
			return t.st.uid != all[0].st.uid || n > exemplarsMost || parts > exemplarParts
		})
		if k < 0 {
			k = len(all)
		}
		a.putExemplars(all[:max(k, 1)])
		all = all[max(k, 1):]
	}
}

// trace finds up to where the archive has a segment's exemplars. FORMAT.md 19.4.
func (a *Archiver) trace(st *segment) bool {
	found, err := a.w.FindExemplars(st.id)
	if err != nil {
		a.o.Logger.Warn("the archive can't be searched for exemplars", "err", err)
		return false
	}
	last := uint64(0)
	for _, p := range found {
		if p.Copy == st.copy && p.Inode == st.ino && p.Boot == st.boot {
			last = max(last, p.Last)
		}
	}
	st.traced = true
	a.tracedUpTo(st, last)
	return true
}

// tracedUpTo notes up to where the exemplars of a segment are done with.
func (a *Archiver) tracedUpTo(st *segment, number uint64) {
	st.exemplar = number
	a.o.Exemplars.Archived(st.seg.ID(), st.ino, number)
}

// putExemplars writes exemplars of segments of one user in as many blocks as it takes: in the order of their numbers, so that the last
// one of a segment that is there says that those before it are.
func (a *Archiver) putExemplars(all []tracing) {
	parts, n := a.exemplarParts(all)
	begin, before := time.Now(), a.w.End(0)
	var err error
	if n > 0 {
		err = a.w.AppendExemplars(parts...)
	}
	switch {
	case err == nil:
		failpoint.Here("archiver.exemplars.written")
		for _, t := range all {
			a.tracedUpTo(t.st, t.list[len(t.list)-1].Number)
		}
		a.mu.Lock()
		if a.stats.Exemplars += uint64(n); n > 0 {
			a.stats.ExemplarBlocks++
			a.stats.ExemplarBytes += uint64(length(before, a.w.End(0)))
		}
		a.stats.ExemplarTime += time.Since(begin)
		a.mu.Unlock()
	case a.w.Err() != nil:
		a.stop(err)
	case len(all) > 1:
		m := len(all) / 2
		if a.putExemplars(all[:m]); a.Stopped() == nil {
			a.putExemplars(all[m:])
		}
	case len(all[0].list) > 1:
		t, m := all[0], len(all[0].list)/2
		if a.putExemplars([]tracing{{t.st, t.list[:m]}}); a.Stopped() == nil {
			a.putExemplars([]tracing{{t.st, t.list[m:]}})
		}
	default:
		a.o.Logger.Warn("an exemplar can't be archived", "segment", all[0].st.seg.ID(), "number", all[0].list[0].Number, "err", err)
		a.tracedUpTo(all[0].st, all[0].list[0].Number)
		a.lostExemplars(1)
	}
}

func (a *Archiver) lostExemplars(n int) {
	a.mu.Lock()
	a.stats.ExemplarsLost += uint64(n)
	a.mu.Unlock()
}

// exemplarParts makes of exemplars parts of a block: one for each source and table. n is how many are in them.
func (a *Archiver) exemplarParts(all []tracing) (parts []archive.Exemplars, n int) {
	for _, t := range all {
		first, lost := len(parts), 0
		at := map[*reader.Series]int{} // position in its schema, -1: it is in none
		of := map[int]int{}            // of a table: its part
		for _, x := range t.list {
			k, ok := at[x.Series]
			if !ok {
				i, begun := of[x.Series.Table]
				if !begun {
					i = len(parts)
					of[x.Series.Table] = i
					parts = append(parts, archive.Exemplars{Source: t.st.source(t.st.seg.Epoch()), Schema: a.exemplarSchema(t, x.Series.Table)})
				}
				k = position(parts[i].Schema, x.Series)
				at[x.Series] = k
			}
			if k < 0 {
				if !dropped(t.st.seg, x.Series) {
					lost++
				}
				continue
			}
			p := &parts[of[x.Series.Table]]
			p.List = append(p.List, archive.Exemplar{Number: x.Number, Series: k, Value: x.Value, Time: x.Time, TraceID: x.TraceID, SpanID: x.SpanID})
			n++
		}
		parts = append(parts[:first], slices.DeleteFunc(slices.Clone(parts[first:]), func(p archive.Exemplars) bool { return len(p.List) == 0 })...)
		a.lostExemplars(lost)
	}
	return parts, n
}

// dropped tells whether a series is kept out of the archive, and its exemplars with it: they are not lost.
func dropped(seg Segment, sr *reader.Series) bool {
	d, ok := seg.(interface{ Dropped(*reader.Series) bool })
	return ok && d.Dropped(sr)
}

// position of a series in a schema, -1 if it is not there.
func position(s *archive.Schema, sr *reader.Series) int {
	if s == nil {
		return -1
	}
	return slices.IndexFunc(s.Series, func(x *reader.Series) bool { return same(x, sr) })
}

// exemplarSchema is a schema with the series of a table that t has exemplars of: the one of its rows, if it has them all, so that labels are
// not written again; else one with all that are in the segment now. nil: there can't be one.
func (a *Archiver) exemplarSchema(t tracing, n int) *archive.Schema {
	i := slices.IndexFunc(t.st.tables, func(tb *table) bool { return tb.n == n })
	if i < 0 {
		return nil
	}
	tb := t.st.tables[i]
	lacks := tb.plan == nil || slices.ContainsFunc(t.list, func(x *reader.Exemplar) bool {
		return x.Series.Table == n && position(tb.plan.Schema, x.Series) < 0
	})
	if !lacks {
		return tb.plan.Schema
	}
	oldest := uint64(1)
	if head := t.st.seg.Head(n, 0); head > uint64(tb.rows) {
		oldest = head - uint64(tb.rows)
	}
	a.plans.collect(n, t.st.seg.Series(), oldest, math.MaxUint64)
	if len(a.plans.cols) == 0 {
		return nil
	}
	p, err := a.planFor(tb)
	if err != nil {
		a.o.Logger.Warn("exemplars of a table can't be archived", "segment", t.st.seg.ID(), "table", tb.name, "err", err)
		return nil
	}
	return p.Schema
}
