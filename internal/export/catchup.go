package export

import (
	"context"
	"encoding/hex"
	"math"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/failpoint"
	"github.com/shmts/shmts/reader"
)

// Archive is where rows are that the rings forgot. *archive.Archive is one.
type Archive interface {
	archive.Reader
	// End is the place behind a tier's last block.
	End(tier int) archive.Mark
	// Part reads the rows of one source of a block.
	Part(info *archive.BlockInfo, source int, columns []archive.Column) (c *archive.Chunk, starts []int64, ok bool, err error)
}

// A cursor goes through the blocks of one of the archive's tiers, oldest first. What lies before its mark was sent, by whatever way, or is lost. In
// health everything that comes by was sent from the rings already, and is passed over by what a block's head says of it. After an
// outage it is what an outage costs: one place in each tier, whatever was recorded in the meantime, and by however many.
//
// The finest cursor is in the coarsest tier whose step is neither more than the destination's nor so long that rows come there later than rings
// go round: what is folded is folded some 30 rows at a time. Where a table's home (FORMAT.md 14) is coarser, its rows
// are there, as they were recorded: of the tiers above, only such blocks count.
type cursor struct {
	tier   int
	step   time.Duration
	first  bool // the finest one
	mark   archive.Mark
	jumped bool // extents were evicted before they were gone through
}

// longestFold is the step of a tier into which rows of living processes are folded within the ten minutes that most rings hold.
const longestFold = 15 * time.Second

// openCursors finds where each is to go on, once there is an archive: one that can't be opened for the disk is there later.
func (e *Exporter) openCursors() bool {
	if e.o.Archive == nil || len(e.cursors) > 0 || e.o.Archive.ID() == [16]byte{} {
		return len(e.cursors) > 0
	}
	e.pos.archiveIs(e.o.Archive.ID())
	tiers := e.o.Archive.Tiers()
	finest := 0
	for i, t := range tiers {
		if t.Step <= min(e.o.Step, longestFold) {
			finest = i
		}
	}
	for i := finest; i < len(tiers); i++ {
		c := &cursor{tier: i, step: tiers[i].Step, first: i == finest}
		mark, ok := e.pos.marks[tiers[i].Step.Milliseconds()]
		if c.mark = mark; !ok && !e.pos.other {
			c.mark = e.o.Archive.End(i) // what was recorded before is not meant
		}
		e.marks = append(e.marks, markMove{c.step, c.mark})
		e.cursors = append(e.cursors, c)
	}
	e.commit()
	return true
}

// current tells whether nothing lies behind the cursors.
func (e *Exporter) current() bool {
	for _, c := range e.cursors {
		if end := e.o.Archive.End(c.tier); before(c.mark, end) {
			return false
		}
	}
	return true
}

func before(a, b archive.Mark) bool {
	return a.Generation < b.Generation || a.Generation == b.Generation && a.Offset < b.Offset
}

// catchUp goes through what lies behind the cursors until that is nothing, or it is late. It answers whether it is nothing. An error is the context's.
func (e *Exporter) catchUp(ctx context.Context, until time.Time) (done bool, err error) {
	done = true
	for ; len(e.orphans) > 0; e.orphans = e.orphans[1:] {
		if err := e.orphan(ctx, e.orphans[0]); err != nil {
			return false, err
		}
	}
	for _, c := range e.cursors {
		end := e.o.Archive.End(c.tier)
		if before(end, c.mark) { // a failed disk took some back
			c.mark = end
		}
		if !before(c.mark, end) {
			c.jumped = false
			continue
		}
		for info, err := range e.o.Archive.Blocks(c.tier, c.mark) {
			if err != nil {
				e.o.Logger.Warn("a block of the archive can't be read, and is passed over", "tier", c.step, "err", err)
				continue
			}
			if time.Now().After(until) {
				done = false
				break
			}
			if info.Generation > c.mark.Generation+1 || c.mark.Generation == 0 && info.Generation > 1 {
				c.jumped = c.mark != archive.Mark{}
				if c.jumped {
					e.count(func(s *Stats) { s.Extents += info.Generation - c.mark.Generation - 1 })
				}
			}
			if c.first || !info.Folded {
				if err := e.block(ctx, c, info); err != nil {
					return false, err
				}
			}
			c.mark = archive.Mark{Generation: info.Generation, Offset: info.Offset + uint64(info.Length)}
			e.marks = append(e.marks, markMove{c.step, c.mark})
			// Not before: with the mark before the block, and without its position, a source would be sent anew.
			e.gone, e.leaving = append(e.gone, e.leaving...), e.leaving[:0]
		}
		if done && before(c.mark, end) { // what is left holds no rows
			c.mark = end
			e.marks = append(e.marks, markMove{c.step, c.mark})
		}
	}
	return done, nil
}

// block sends what of a block was not sent yet.
func (e *Exporter) block(ctx context.Context, c *cursor, info *archive.BlockInfo) error {
	for i := range info.Sources {
		s := &info.Sources[i]
		if s.Ephemeral {
			continue
		}
		k := key{s.Segment, s.Inode, info.Schema.Table}
		pos, st := e.pos.of(k), e.states[hexID(s.Segment)]
		if st != nil && st.active(k.table) && pos != nil { // its ring goes on; and says the end, too, or orphan does
			pos.passed = pos.passed || s.Ended
			continue
		}
		if pos == nil || s.Base > pos.base {
			if pos == nil {
				pos = e.pos.add(k)
			}
			if err := e.part(ctx, c, info, i, pos); err != nil {
				return err
			}
		}
		if !s.Ended || s.Base > pos.base && !pos.done {
			continue
		}
		switch {
		case e.isThere(hexID(s.Segment)):
			pos.passed = true
		case pos.done:
			e.leaving = append(e.leaving, pos)
		default:
			if err := e.endPast(ctx, info, i, pos); err != nil {
				return err
			}
			e.leaving = append(e.leaving, pos)
		}
	}
	for _, m := range info.Members {
		if err := e.member(ctx, c, m, info.Schema.Table); err != nil {
			return err
		}
	}
	return nil
}

// part sends a source's part of a block.
func (e *Exporter) part(ctx context.Context, c *cursor, info *archive.BlockInfo, i int, pos *position) error {
	s := &info.Sources[i]
	src := e.source(s.Source, info.Schema, nil, info.Step)
	cols := e.columns(src, info.Folded)
	chunk, starts, ok, err := e.o.Archive.Part(info, i, cols.list)
	if err != nil {
		e.o.Logger.Warn("rows of the archive can't be read, and are passed over", "segment", src.ID, "err", err)
	}
	if !ok || len(chunk.Numbers) == 0 {
		e.count(func(st *Stats) { st.Lost[LostUnreadable] += uint64(s.Rows) })
		e.move(pos, s.Base, max(pos.time, s.Time*1e6), false, false)
		return nil
	}
	src.starting(info.Schema, starts)
	e.bases = bases(e.bases, chunk)
	first := 0
	for first < len(e.bases) && e.bases[first] <= pos.base {
		first++
	}
	if first == len(e.bases) {
		return nil
	}
	// What is missing between was passed by while the ring had it, or is perhaps in a coarser tier.
	if begins := e.begins(chunk, first); begins > pos.reached()+1 && (pos.base > 0 || s.Birth >= e.pos.born) {
		if err := e.fill(ctx, c.tier, s.Source, info.Schema.Table, pos, begins); err != nil {
			return err
		}
		if pos.reached()+1 < begins {
			covers := uint64(1)
			if chunk.Folded {
				covers = max(covers, chunk.Coverage[first])
			}
			reason := LostOverrun
			if c.jumped {
				reason = LostAgedOut
			}
			missing := (begins - 1 - pos.reached() + covers - 1) / covers
			if pos.base == 0 { // rows before a table's first series hold nothing
				missing = min(missing, rowsBetween(src.since(info.Schema.Table), chunk.Times[first]*1e6-int64(info.Step), info.Step))
			}
			e.lost(reason, missing)
		}
	}
	return e.pass(ctx, src, pos, chunk, cols, 0)
}

// starting takes over when the series were registered.
func (p *pastSource) starting(schema *archive.Schema, starts []int64) {
	if len(starts) != len(schema.Series) {
		return
	}
	for i := range p.starts {
		p.starts[i] = starts[i] * 1e6
	}
	p.tables = p.tables[:0]
}

// fill sends what a tier and coarser ones have of the rows between a position and row below of tier 0: of each time the finest that there is.
func (e *Exporter) fill(ctx context.Context, tier int, of *archive.Source, table int, pos *position, below uint64) error {
	if tier >= len(e.o.Archive.Tiers()) || pos.reached()+1 >= below {
		return nil
	}
	found, err := e.o.Archive.FindSince(of.Segment, tier, pos.since())
	if err != nil {
		e.o.Logger.Warn("the archive can't be searched", "err", err)
		return nil
	}
	var inc *archive.Incarnation
	for _, f := range found {
		if f.Key == of.Key {
			inc = f
		}
	}
	first := below
	if inc != nil {
		first = min(below, e.first(inc, table, tier, pos))
	}
	if err := e.fill(ctx, tier+1, of, table, pos, first); err != nil || inc == nil {
		return err
	}
	return e.incarnation(ctx, inc, table, tier, pos, below)
}

// first is the first row of tier 0 behind a position that a tier's rows tell of.
func (e *Exporter) first(inc *archive.Incarnation, table, tier int, pos *position) uint64 {
	if table < len(inc.Tables) {
		for k, tt := range inc.Tables[table].Tiers {
			if tt.Tier != tier {
				continue
			}
			for chunk, err := range e.o.Archive.Read(inc, table, k, pos.since(), math.MaxInt64, nil) {
				if err != nil {
					continue
				}
				e.bases = bases(e.bases, chunk)
				for i, base := range e.bases {
					if base > pos.reached() {
						return e.begins(chunk, i)
					}
				}
			}
		}
	}
	return math.MaxUint64
}

// since is the time of a position in ms, from which on rows behind it are looked for.
func (p *position) since() int64 {
	if p.time == 0 {
		return math.MinInt64
	}
	return p.time / 1e6
}

// incarnation sends the rows that a tier has of a table of an incarnation, before row below of tier 0, if that is not 0.
func (e *Exporter) incarnation(ctx context.Context, inc *archive.Incarnation, table, tier int, pos *position, below uint64) error {
	if table >= len(inc.Tables) {
		return nil
	}
	for k, tt := range inc.Tables[table].Tiers {
		if tt.Tier != tier {
			continue
		}
		schema := &archive.Schema{Table: table, Name: inc.Tables[table].Name}
		var starts []int64
		for i, s := range inc.Series {
			if s.Table == table {
				schema.Series = append(schema.Series, s)
				starts = append(starts, inc.Starts[i])
			}
		}
		was := e.seen[pastKey{inc.Key, table}]
		src := e.source(inc.Source, schema, starts, tt.Step)
		src.Schema = nil // nobody else has it
		cols := columnsOf(src.Series, tt.Folded)
		for chunk, err := range e.o.Archive.Read(inc, table, k, pos.since(), math.MaxInt64, cols.list) {
			if err != nil {
				e.o.Logger.Warn("rows of the archive can't be read, and are passed over", "segment", src.ID, "err", err)
				continue
			}
			if err := e.pass(ctx, src, pos, chunk, cols, below); err != nil {
				return err
			}
			if n := len(e.bases); below > 0 && n > 0 && e.bases[n-1] >= below {
				break
			}
		}
		if was != nil { // its own goes on
			was.carry(src)
			e.seen[pastKey{inc.Key, table}] = was
		}
	}
	return nil
}

// member sends the life of a source that was too short for the tier, and is in there as a part of its job's sum: out of the finer ones.
func (e *Exporter) member(ctx context.Context, c *cursor, m archive.Key, table int) error {
	pos := e.pos.ofName(m.Segment, table)
	if e.isThere(hexID(m.Segment)) {
		if pos != nil {
			pos.passed = true
		}
		return nil
	}
	if pos != nil && pos.done {
		e.leaving = append(e.leaving, pos)
		return nil
	}
	found, err := e.o.Archive.Find(m.Segment)
	if err != nil {
		e.o.Logger.Warn("the archive can't be searched", "err", err)
		return nil
	}
	for _, inc := range found {
		if inc.Key != m {
			continue
		}
		k := key{m.Segment, inc.Inode, table}
		if pos = e.pos.of(k); pos == nil {
			pos = e.pos.add(k)
		}
		for tier := c.tier - 1; tier >= 0; tier-- {
			if err := e.incarnation(ctx, inc, table, tier, pos, 0); err != nil {
				return err
			}
		}
		if pos.time == 0 {
			e.leaving = append(e.leaving, pos)
			break
		}
		e.leaving = append(e.leaving, pos)
		return e.endSeen(ctx, e.seen[pastKey{m, table}], pos)
	}
	e.count(func(s *Stats) { s.Lost[LostAgedOut]++ })
	return nil
}

// endPast says that a source's series have no value any more.
func (e *Exporter) endPast(ctx context.Context, info *archive.BlockInfo, i int, pos *position) error {
	s := &info.Sources[i]
	src := e.seen[pastKey{s.Key, info.Schema.Table}]
	if src == nil { // its rows were sent, its end was not: by a process before this one
		src = e.source(s.Source, info.Schema, nil, info.Step)
		if last := e.lookup(pos); last != nil {
			see(src.Source, info.Schema.Table, last)
		}
	}
	return e.endSeen(ctx, src, pos)
}

// followed tells whether a later incarnation of a source has sent rows: see succeeded.
func (e *Exporter) followed(src *pastSource) bool {
	if e.o.SourceKey == nil {
		return false
	}
	group := hexID(src.of.Group)
	for _, st := range e.sources[e.o.SourceKey(src.of.UID, src.of.Labels)] {
		if st.sent() && st.seg.Start() > src.Start && st.seg.Group() != group {
			return true
		}
	}
	return false
}

// orphan ends a source whose segment left before that could be said: what there was of it is in the archive.
func (e *Exporter) orphan(ctx context.Context, pos *position) error {
	found, err := e.o.Archive.Find(pos.segment)
	if err != nil {
		e.o.Logger.Warn("the archive can't be searched", "err", err)
		return nil
	}
	for _, inc := range found {
		if inc.Inode != pos.ino || inc.Ended == 0 || pos.done {
			continue
		}
		for _, c := range e.cursors {
			if err := e.incarnation(ctx, inc, pos.table, c.tier, pos, 0); err != nil {
				return err
			}
		}
		src := e.seen[pastKey{inc.Key, pos.table}]
		if src == nil || pos.table >= len(inc.Tables) {
			continue
		}
		for _, t := range inc.Tables[pos.table].Tiers {
			if t.Base > pos.base { // the rest comes yet
				return nil
			}
		}
		if last := e.lookup(pos); last != nil {
			see(src.Source, pos.table, last)
		}
		if err := e.endSeen(ctx, src, pos); err != nil {
			return err
		}
	}
	if pos.passed { // else the cursor is still to come by
		e.gone = append(e.gone, pos)
	}
	return nil
}

// see has a source's series have had a point that have one in a row.
func see(src *Source, table int, row *kept) {
	for i, s := range src.Series {
		if s.Table != table {
			continue
		}
		if v, ok := row.value(src, i); ok && (s.Kind != reader.Gauge || !v.Unset) {
			src.Seen.Set(i)
		}
	}
}

func (e *Exporter) endSeen(ctx context.Context, src *pastSource, pos *position) error {
	if src == nil || pos.done {
		return nil
	}
	if pos.time > 0 && !e.followed(src) {
		r := &e.row
		*r = Row{Table: src.table, Time: pos.time + int64(time.Millisecond), src: src.Source, cells: nothing{}, start: pos.start, after: pos.time}
		for at, done := (Cursor{}), false; !done; {
			if e.enc.Full() {
				if err := e.paced(ctx); err != nil {
					return err
				}
			}
			at, done = e.enc.End(src.Source, r, at)
		}
	}
	delete(e.seen, pastKey{src.of.Key, src.table})
	e.move(pos, pos.base, pos.time, false, true)
	return nil
}

// paced sends what there is, and then waits as long as the rate of catching up demands.
func (e *Exporter) paced(ctx context.Context) error {
	began, n := time.Now(), e.enc.Points()
	failpoint.Here("export.catchup.send")
	if err := e.send(ctx, true); err != nil {
		return err
	}
	wait := time.Duration(float64(n)/float64(e.o.CatchUpRate)*float64(time.Second)) - time.Since(began)
	if wait <= 0 {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

func hexID(id [16]byte) string { return hex.EncodeToString(id[:]) }
