package archiver

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/fold"
	"github.com/shmts/shmts/internal/failpoint"
)

// SweepOptions are NewSweeper's.
type SweepOptions struct {
	Archive archive.Writer
	// Ephemeral adds up what sources that lived for less than half of a coarse tier's step left there, in one source of their job:
	// FORMAT.md 19.6.
	Ephemeral bool
	Logger    *slog.Logger // nil: none
}

// Sweeper folds each tier of an archive into the next coarser one, out of the archive itself: FORMAT.md 19.5.
//
// It is the archive that an Archiver writes: what is appended passes through it, so it knows which rows are not folded yet, and
// holds of them some numbers for each source and nothing else. A source is read and folded when some 30 rows can be made of it, the first time fewer, when it
// ended and its last window is over, when it has been silent for long, or when the extent that its rows lie in is about to be reused;
// one after the other, and those of one schema go into one block. How far each source is folded is what the coarser tier says of
// it. The mark there is a place before which nothing is left to fold, so that after a restart only what lies behind it is
// looked at again. Whenever this process is killed, nothing is folded twice, and nothing is left out.
//
// All of it but Stats belongs to the goroutine that appends.
type Sweeper struct {
	archive.Writer
	o       SweepOptions
	out     archive.Writer         // what it writes itself goes here
	live    func(archive.Key) bool // whether a source may get further rows
	steps   []time.Duration
	levels  []*level
	schemas schemaCache
	reused  func(tier int, generation uint64)
	stats   SweepStats
	told    atomic.Pointer[SweepStats]
}

// SweepStats are what a Sweeper counted.
type SweepStats struct {
	Folded    uint64 // times that a source's rows were folded into a coarser tier
	Ephemeral uint64 // sources that were added to their job's ephemeral one
	Copied    uint64 // rows that were taken from a writer's coarser ring
	Failed    uint64 // sources that could not be folded
	Pending   int    // sources and tables of which rows are not folded yet, over all tiers
}

const (
	sweepRows      = 30               // so many rows of the coarse tier are worth a block
	leastSweepRows = 5                // and the first time so many at least
	sweepWords     = 1 << 19          // values of rows that are held before they are written, at most, unless one source alone has more
	sweepTables    = 256              // of these, so many are folded in one Sweep for a tier, so that work is spread
	loadBlocks     = 1024             // and so many blocks looked at after a restart
	settle         = 15 * time.Minute // a source without rows for so long and two steps is taken as silent: rows are written within maxWait
	markEvery      = time.Minute
	scanEvery      = 5 * time.Second
)

// NewSweeper makes a sweeper of an archive, which is to be written through it from then on.
func NewSweeper(o SweepOptions) *Sweeper {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sweeper{Writer: o.Archive, o: o, live: func(archive.Key) bool { return false }}
	s.out = s
	for _, t := range o.Archive.Tiers() {
		s.steps = append(s.steps, t.Step)
	}
	for i := range len(s.steps) - 1 {
		s.levels = append(s.levels, &level{s: s, fine: i, step: s.steps[i+1]})
	}
	s.forget()
	o.Archive.OnReuse(s.reuse)
	return s
}

// Through has everything that the sweeper writes go through w, which ends in the sweeper itself, and live tell which sources may get
// further rows.
func (s *Sweeper) Through(w archive.Writer, live func(archive.Key) bool) { s.out, s.live = w, live }

// forget has everything be looked up again.
func (s *Sweeper) forget() {
	for _, l := range s.levels {
		l.pending, l.loaded, l.frontier, l.members = map[tableKey]*pending{}, false, math.MinInt64, nil
		l.noted, l.scanned = nil, 0
		l.drop()
		l.scan, _ = s.Writer.Marked(l.fine + 1)
		l.marked = l.scan
	}
}

// Append implements archive.Writer.
func (s *Sweeper) Append(tier int, blocks ...*archive.Block) error {
	at := s.Writer.End(tier)
	if err := s.Writer.Append(tier, blocks...); err != nil {
		return err
	}
	if tier >= len(s.levels) || !s.levels[tier].loaded {
		return nil
	}
	if end := s.Writer.End(tier); end.Generation != at.Generation {
		at = archive.Mark{Generation: end.Generation}
	}
	for _, b := range blocks {
		for i := range b.Sources {
			r := &b.Sources[i]
			n := len(r.Times)
			s.levels[tier].note(news{source: r.Source, table: b.Schema.Table, hint: b.Schema.Hash, at: at, base: r.Base, first: slices.Min(r.Times), newest: r.Times[n-1], ended: r.Final || r.Estimated})
		}
	}
	return nil
}

// Mend implements archive.Writer.
func (s *Sweeper) Mend() error {
	err := s.Writer.Mend()
	if err == nil {
		s.forget()
	}
	return err
}

// OnReuse implements archive.Writer: f is called once what has to be folded is.
func (s *Sweeper) OnReuse(f func(tier int, generation uint64)) { s.reused = f }

// Stats answers what was counted as of the last Sweep. It is safe from any goroutine.
func (s *Sweeper) Stats() SweepStats {
	if st := s.told.Load(); st != nil {
		return *st
	}
	return SweepStats{}
}

// tell makes what was counted known.
func (s *Sweeper) tell() {
	st := s.stats
	for _, l := range s.levels {
		st.Pending += len(l.pending)
	}
	s.told.Store(&st)
}

// Sweep folds what is due. It does a bounded piece of work, and is to be called each second or so.
func (s *Sweeper) Sweep(now time.Time) {
	defer s.tell()
	for _, l := range s.levels { // finest first: what comes of one may be due in the next
		if s.Writer.Err() != nil {
			return
		}
		l.sweep(now.UnixMilli())
	}
}

// reuse folds what an extent that is about to be reused holds and is not folded yet.
func (s *Sweeper) reuse(tier int, generation uint64) {
	if tier < len(s.levels) {
		s.levels[tier].reuse(generation)
	}
	if s.reused != nil {
		s.reused(tier, generation)
	}
}

// level folds one tier into the next.
type level struct {
	s    *Sweeper
	fine int           // tier that is folded
	step time.Duration // of the one that it is folded into

	pending map[tableKey]*pending
	loaded  bool         // everything behind the mark was looked at, and what is appended is noted
	scan    archive.Mark // up to where it was looked at
	// frontier is the newest time up to there, unix ms: until all was looked at, it is what the time is.
	frontier int64
	marked   archive.Mark
	markedAt int64
	members  map[tableKey]bool // of ephemeral sources, among pending ones that were found by looking: see isMember

	reading  archive.Shared
	together int      // sources that share what is read
	cohort   [16]byte // which they are of, probably
	folder   fold.Folder
	batch    sweepBatch
	intakes  map[intakeKey]*intake
	due      []*pending
	noted    []*pending // that got blocks since the last sweep: what else is due, time alone makes so
	scanned  int64      // when all pending ones were looked at, unix ms; 0: they have to be
}

type tableKey struct {
	archive.Key
	table int
}

// pending is a source's table in the finer tier: what of it is not folded yet.
type pending struct {
	key       tableKey
	uid       int
	hint      [16]byte // hash of its newest schema: likely to be in one block with others that have it
	blocks    []entry  // that have rows not folded, oldest first
	newest    int64    // time of its last row, unix ms
	since     int64    // when the first of these rows came, or it was tried last, unix ms
	base      uint64   // position in the coarser tier, once it is located
	located   bool
	looked    bool // found by looking after a restart
	ended     bool
	ephemeral bool
	noted     bool
}

// entry is a block, or some of them, in which a source has rows.
type entry struct {
	at, last archive.Mark // of the first and of the last block
	base     uint64       // position of the last row in it
	first    int64        // the least time, unix ms
}

// entries is how many are held of a source.
const entries = 16

// news is what a block says of a source.
type news struct {
	source        *archive.Source
	table         int
	hint          [16]byte
	at            archive.Mark
	base          uint64
	first, newest int64
	ended, looked bool
}

func (l *level) note(n news) {
	k := tableKey{n.source.Key, n.table}
	p := l.pending[k]
	if p == nil {
		p = &pending{key: k, uid: n.source.UID, looked: n.looked, ephemeral: n.source.Ephemeral}
		l.pending[k] = p
	}
	p.hint, p.newest, p.ended = n.hint, n.newest, p.ended || n.ended
	if !p.noted {
		p.noted = true
		l.noted = append(l.noted, p)
	}
	if p.located && n.base <= p.base {
		return
	}
	e := entry{n.at, n.at, n.base, n.first}
	if c := len(p.blocks); c > 0 && n.base <= p.blocks[c-1].base {
		return // written twice
	} else if c >= entries {
		last := &p.blocks[c-1]
		last.last, last.base, last.first = e.last, e.base, min(last.first, e.first)
		return
	} else if c == 0 {
		p.since = 0
	}
	p.blocks = append(p.blocks, e)
}

// folded moves the position.
func (l *level) folded(p *pending, base uint64) {
	p.base, p.located = max(p.base, base), true
	n := 0
	for n < len(p.blocks) && p.blocks[n].base <= p.base {
		n++
	}
	p.blocks = slices.Delete(p.blocks, 0, n)
	if len(p.blocks) == 0 && p.ended {
		delete(l.pending, p.key)
	}
}

func (p *pending) first() int64 {
	t := int64(math.MaxInt64)
	for i := range p.blocks {
		t = min(t, p.blocks[i].first)
	}
	return t
}

// load looks at some of what lies behind the mark, and tells whether it has seen all.
func (l *level) load() {
	n := 0
	for info, err := range l.s.Writer.Blocks(l.fine, l.scan) {
		if err != nil {
			l.s.o.Logger.Warn("rows that were not folded yet can't all be found", "tier", l.s.steps[l.fine], "err", err)
			continue
		}
		l.scan = archive.Mark{Generation: info.Generation, Offset: info.Offset + uint64(info.Length)}
		l.frontier = max(l.frontier, info.To)
		for i := range info.Sources {
			src := &info.Sources[i]
			l.note(news{source: src.Source, table: info.Schema.Table, hint: info.Schema.Hash, at: info.Mark, base: src.Base, first: info.From, newest: src.Time, ended: src.Ended, looked: true})
		}
		if n++; n >= loadBlocks {
			l.members = nil
			return
		}
	}
	l.loaded, l.members = true, nil
}

// clock is the time as far as this level has seen.
func (l *level) clock(now int64) int64 {
	if !l.loaded {
		return l.frontier
	}
	return now
}

func (l *level) silent(p *pending, clock int64) bool {
	return clock-p.newest > 2*l.step.Milliseconds()+settle.Milliseconds()
}

func (l *level) isDue(p *pending, clock int64) bool {
	if len(p.blocks) == 0 {
		return false
	}
	step := l.step.Milliseconds()
	switch {
	case p.ended:
		over := int64(fold.Number(p.newest, step)) * step
		return clock >= over || p.newest > clock+step // or the clock was stepped back
	case l.silent(p, clock):
		return true
	case p.since == 0:
		p.since = clock
	}
	return p.newest-p.first() > p.enough()*step || clock-p.since > 2*sweepRows*step+settle.Milliseconds()
}

// enough is how many rows of the coarse tier are worth a block. The first time they are fewer, by another part in each cohort, which is known by the
// place of its first block: those that began together are not all folded in the same minute for ever.
func (p *pending) enough() int64 {
	if p.located || p.looked {
		return sweepRows
	}
	at := p.blocks[0].at
	_, phase := math.Modf(float64(at.Generation%1024+at.Offset%(1<<24)) * math.Phi)
	return leastSweepRows + int64(phase*(sweepRows-leastSweepRows+1))
}

// collect puts what is due into l.due, forgets who has nothing left to fold, and answers the time. All are looked at now and then, those with new
// blocks each time.
func (l *level) collect(now int64) (clock int64) {
	clock = l.clock(now)
	l.due = l.due[:0]
	all := !l.loaded || l.scanned == 0 || now < l.scanned || now-l.scanned >= scanEvery.Milliseconds()
	for _, p := range l.noted {
		if p.noted = false; !all && l.pending[p.key] == p && l.isDue(p, clock) {
			l.due = append(l.due, p)
		}
	}
	clear(l.noted)
	if l.noted = l.noted[:0]; !all {
		return clock
	}
	l.scanned = now
	for k, p := range l.pending {
		switch {
		case l.isDue(p, clock):
			l.due = append(l.due, p)
		case len(p.blocks) == 0 && (p.ended || l.silent(p, clock)):
			delete(l.pending, k)
		}
	}
	return clock
}

func (l *level) sweep(now int64) {
	// More is looked at only once there is little left to fold of what was: so neither memory nor a sweep is larger after a long time away.
	clock := l.collect(now)
	if !l.loaded && len(l.due) < sweepTables {
		l.load()
		l.scanned = 0
		clock = l.collect(now)
	}
	scanned := l.scanned
	l.scanned = 0 // unless all is done that is due
	if len(l.due) > sweepTables {
		l.choose()
		scanned = 0
	}
	l.order()
	for _, p := range l.due {
		end := p.ended || l.silent(p, clock)
		p.since = clock
		if !l.fold(p, end, end && (p.ended || !l.s.live(p.key.Key))) {
			return
		}
	}
	if !l.flush() {
		return
	}
	l.scanned = scanned
	l.rest()
	l.mark(now)
}

// rest gives back the memory of a sweep that had something to do.
func (l *level) rest() {
	if l.together = 0; len(l.due) > 0 {
		l.reading.Release()
		l.batch.pages.Release()
	}
}

// choose keeps of what is due as much as is done in one go, whole schemas, those with the oldest rows first.
func (l *level) choose() {
	oldest := map[[16]byte]int64{}
	for _, p := range l.due {
		if t, ok := oldest[p.hint]; !ok || p.first() < t {
			oldest[p.hint] = p.first()
		}
	}
	slices.SortFunc(l.due, func(a, b *pending) int {
		return cmp.Or(cmp.Compare(oldest[a.hint], oldest[b.hint]), slices.Compare(a.hint[:], b.hint[:]), cmp.Compare(a.first(), b.first()))
	})
	l.due = l.due[:sweepTables]
}

// order brings together what can be in one block.
func (l *level) order() {
	slices.SortFunc(l.due, func(a, b *pending) int {
		return cmp.Or(cmp.Compare(a.uid, b.uid), cmp.Compare(a.key.table, b.key.table), slices.Compare(a.hint[:], b.hint[:]),
			slices.Compare(a.key.Segment[:], b.key.Segment[:]), cmp.Compare(a.key.Epoch, b.key.Epoch), cmp.Compare(a.key.Copy, b.key.Copy))
	})
}

// reuse folds what lies in extents up to a generation, which will soon be gone.
func (l *level) reuse(generation uint64) {
	defer l.rest()
	for again := true; again; {
		again = !l.loaded && l.scan.Generation <= generation
		if again {
			l.load()
		}
		l.due = l.due[:0]
		for _, p := range l.pending {
			if len(p.blocks) > 0 && p.blocks[0].at.Generation <= generation {
				l.due = append(l.due, p)
			}
		}
		l.order()
		for _, p := range l.due {
			// A window of which all rows go is ended; so is one of which the rest comes later, in a further row of the same number.
			if !l.fold(p, p.ended || p.blocks[len(p.blocks)-1].last.Generation <= generation, p.ended) {
				return
			}
		}
		if !l.flush() {
			return
		}
		for _, p := range l.due {
			if len(p.blocks) > 0 && p.blocks[0].at.Generation <= generation && !l.fold(p, true, p.ended) {
				return
			}
		}
		if !l.flush() {
			return
		}
	}
}

// fold reads what a source has that is not folded yet, and adds what comes of it to the batch: its open window too, if end. gone says that
// it will never have another row. False: nothing can be written just now.
func (l *level) fold(p *pending, end, gone bool) bool {
	find := func() ([]*archive.Incarnation, error) { return l.s.Writer.Find(p.key.Segment) }
	if p.located && !gone { // a long life is in many extents, and its end in few
		find = func() ([]*archive.Incarnation, error) {
			return l.s.Writer.FindSince(p.key.Segment, l.fine, p.first())
		}
	}
	found, err := find()
	if err != nil {
		return l.failed(p, err)
	}
	i := slices.IndexFunc(found, func(inc *archive.Incarnation) bool { return inc.Key == p.key.Key })
	if i < 0 || p.key.table >= len(found[i].Tables) {
		delete(l.pending, p.key) // evicted
		return true
	}
	inc := found[i]
	tiers := inc.Tables[p.key.table].Tiers
	if !p.located {
		base := uint64(0)
		for _, t := range tiers {
			if t.Tier == l.fine+1 {
				base = t.Base
			}
		}
		if base == 0 && p.looked && l.isMember(p.key) {
			delete(l.pending, p.key)
			return true
		}
		l.folded(p, base)
	}
	at := slices.IndexFunc(tiers, func(t archive.TableTier) bool { return t.Tier == l.fine })
	if at < 0 { // evicted
		p.blocks = p.blocks[:0]
	}
	if len(p.blocks) == 0 {
		return true
	}
	rows, series, err := l.read(p, inc, at, end)
	if err != nil {
		return l.failed(p, err)
	}
	if len(rows.Times) == 0 {
		if end { // what there was can't be read any more
			l.folded(p, p.blocks[len(p.blocks)-1].base)
		}
		return true
	}
	if gone && l.s.o.Ephemeral && l.isEphemeral(p, found, inc) && l.takeIn(p, inc, &rows, series) {
		return true
	}
	rows.Source = inc.Source
	return l.put(p, inc, rows, series)
}

// read folds the rows of a source that lie behind its position. Series are the places in the incarnation's of those that the rows have. The
// rows are the folder's.
func (l *level) read(p *pending, inc *archive.Incarnation, tier int, end bool) (rows archive.Rows, places []int, err error) {
	if l.cohort != p.hint || l.together >= cohortTables {
		l.reading.Next()
		l.together, l.cohort = 0, p.hint
	}
	l.reading.Add(inc)
	l.together++
	series := l.s.schemas.of(inc, p.key.table)
	folded := inc.Tables[p.key.table].Tiers[tier].Folded
	l.folder.Reset(series.list, l.step, folded, p.base)
	columns := series.columns[btoi(folded)]
	var errs []error
	for c, err := range l.s.Writer.Read(inc, p.key.table, tier, p.first(), math.MaxInt64, columns) {
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r := fold.Rows(c)
		l.folder.Add(&r)
	}
	return l.folder.Flush(end), series.places, errors.Join(errs...)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// failed counts a source that can't be read. It is tried again, until its rows are evicted.
func (l *level) failed(p *pending, err error) bool {
	l.s.stats.Failed++
	l.s.o.Logger.Warn("rows can't be folded", "segment", fmt.Sprintf("%x", p.key.Segment), "tier", l.step, "err", err)
	return l.s.Writer.Err() == nil
}

// mark says in the coarser tier up to where nothing is left to fold.
func (l *level) mark(now int64) {
	if now-l.markedAt < markEvery.Milliseconds() && now >= l.markedAt {
		return
	}
	at := l.scan
	if l.loaded {
		at = l.s.Writer.End(l.fine)
	}
	for _, p := range l.pending {
		if len(p.blocks) > 0 && before(p.blocks[0].at, at) {
			at = p.blocks[0].at
		}
	}
	l.markedAt = now
	if !before(l.marked, at) {
		return
	}
	failpoint.Here("archiver.sweep.mark")
	if err := l.s.out.SetMark(l.fine+1, at); err != nil {
		l.s.o.Logger.Warn("the mark of what is folded can't be set", "tier", l.step, "err", err)
		return
	}
	l.marked = at
}

func before(a, b archive.Mark) bool {
	return a.Generation < b.Generation || a.Generation == b.Generation && a.Offset < b.Offset
}
