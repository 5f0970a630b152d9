package query

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/promql"

	"github.com/shmts/shmts/reader"
)

// A group is what one selector wants of one table of one segment: one pass over its rows gives the
// columns of all of them. It reads when the first of its series is iterated.
type group struct {
	q       *querier
	plan    *plan
	segment Segment
	table   int
	tier    int    // the one that should answer
	others  uint32 // a bit for each that may
	tiers   []reader.Tier
	spans   []Span // of the tiers, where an archive has some; else nil
	known   int64  // ms: a row that is missing up to here is not there
	columns []Column
	all     *batches // that it is one of

	once  sync.Once
	batch *Batch
	steps []stepFrom // ms, of the rows from an index on
	one   struct {   // memory for the usual case
		column [1]Column
		step   [1]stepFrom
	}
	means   bool      // some part has a sum
	cover   int       // the column of Rows, and one more; 0: none
	weights []float64 // of each row, how many of the finest tier it stands for; nil: 1
	before  *Batch    // the row before the first, where a mean needs it; nil: there is none
	gaps    []int     // rows before which the series went stale
	tail    int64     // when it went stale after the last row; 0 if it did not
	end     int64     // 1 ms after the process's last row, 0 while it lives
	err     error
}

// batches are all groups of one selector. Where there are many, they are read side by side, and while the engine is at work on the first
// ones: it waits for one that it needs, or reads it itself if nobody has begun with it.
type batches struct {
	ctx    context.Context
	groups []*group
	once   sync.Once
}

// manyGroups are worth a second goroutine.
const manyGroups = 64

func (a *batches) load() {
	if len(a.groups) < manyGroups {
		return // each when it is asked for
	}
	a.once.Do(func() {
		run := a.groups[0].q.Run
		var next atomic.Int64
		if run.pacer != nil && run.pacer.isWatched(time.Since(run.pacer.made)) {
			return // there are others who want a processor: as when they are few
		}
		for range runtime.GOMAXPROCS(0) {
			run.work.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= len(a.groups) || run.closed.Load() || a.ctx.Err() != nil || run.left() < 0 {
						return // what is left out here says so itself when it is asked for
					}
					g := a.groups[i]
					g.once.Do(g.load)
				}
			})
		}
	})
}

type stepFrom struct {
	from   int
	step   int64
	folded bool
}

func (g *group) step(tier int) int64 { return g.tiers[tier].Step.Milliseconds() }

// noRows is the batch of a group that has none. It is not changed.
var noRows Batch

// load reads the rows of the span.
func (g *group) load() {
	g.batch = &noRows
	defer func() {
		if p := recover(); p != nil { // in a goroutine of ours nobody else would catch it
			g.err = fmt.Errorf("shmts: query: reading rows: %v", p)
		}
	}()
	if g.err = g.all.ctx.Err(); g.err != nil {
		return
	}
	g.q.yield(g.all.ctx)
	end := g.plan.end
	if ns, ended := g.segment.End(); ended {
		g.end = milli(ns) + 1
		end = min(end, milli(ns))
	}
	var memory [2]piece
	o := planned
	if g.spans != nil && g.spans[g.tier].Newest < g.plan.start {
		o = finer // not folded yet
	}
	pieces := g.fill(memory[:0], g.others, g.plan.start, end, g.tier, o)
	if g.err != nil {
		return
	}
	g.thin(pieces)
	if g.plan.weighs() {
		if pieces = g.align(pieces); g.err != nil {
			return
		}
	}
	g.join(pieces)
	if g.plan.weighs() && len(pieces) > 0 {
		g.weigh(pieces[0].tier)
	}
	g.findGaps()
	if g.q.grid && g.plan.rng == 0 && g.plan.step > 0 && !g.plan.newest() {
		g.err = g.seen()
	}
}

// seen lets go of the rows that no instant sees: an instant selector at steps of 15 s needs one of fifteen rows of 1 s, and the engine would go over all of
// them. Of the rows that are no more than one step apart from the next it keeps none that is not the last before an instant.
func (g *group) seen() error {
	p, b := g.plan, g.batch
	if b.Len() < 2 || b.Times[b.Len()-1]-b.Times[0] >= int64(b.Len())*p.step/2 {
		return nil // most are seen
	}
	rows := make([]int, 0, min(int64(b.Len()), (p.end-p.first)/p.step+1))
	for i, t := range b.Times {
		at := p.first // the first instant that is not before the row
		if t > at {
			at += (t - at + p.step - 1) / p.step * p.step
		}
		if at <= p.end && (i+1 == b.Len() || at < b.Times[i+1]) {
			rows = append(rows, i)
		}
	}
	kept := b.pick(rows)
	gaps, steps := g.gaps[:0:0], g.steps[:0:0]
	for k, i := range rows {
		if k > 0 { // the gap after the row before is one; others in between are nobody's
			if _, ok := slices.BinarySearch(g.gaps, rows[k-1]+1); ok {
				gaps = append(gaps, k)
			}
		}
		run := len(g.steps) - 1
		for g.steps[run].from > i {
			run--
		}
		if s := g.steps[run]; len(steps) == 0 || steps[len(steps)-1].step != s.step || steps[len(steps)-1].folded != s.folded {
			s.from = k
			steps = append(steps, s)
		}
	}
	g.q.samples.Add(int64(kept.samples() - b.samples()))
	g.batch, g.gaps, g.steps = kept, gaps, steps
	return g.q.Run.memory.take(kept.bytes() - b.bytes())
}

// piece is the rows of one tier in a span that it answers for.
type piece struct {
	batch *Batch
	step  int64
	tier  int
}

// The order in which tiers are asked for a span: the one at hand before the coarser ones and then the finer, the
// coarser ones before the finer (what is older), or the finer ones before the coarser (what is newer).
type order int

const (
	planned order = iota
	coarser
	finer
)

// sequence appends the numbers of n tiers in an order around one to to.
func sequence(to []int, at, n int, o order) []int {
	if o == planned {
		to = append(to, at)
	}
	if o != finer {
		for k := at + 1; k < n; k++ {
			to = append(to, k)
		}
	}
	for k := at - 1; k >= 0; k-- {
		to = append(to, k)
	}
	if o == finer {
		for k := at + 1; k < n; k++ {
			to = append(to, k)
		}
	}
	return to
}

// fill appends to out the rows of [lo, hi], unix ms, of the first tier in order that has some, and of others what is older and newer
// than those. It asks the tiers of set alone.
func (g *group) fill(out []piece, set uint32, lo, hi int64, at int, o order) []piece {
	p := g.plan
	var memory [16]int
	for _, tier := range sequence(memory[:0], at, len(g.tiers), o) {
		if set>>tier&1 == 0 {
			continue
		}
		set &^= 1 << tier
		step := g.step(tier)
		begin := max(lo, p.begin(step, g.known))
		if g.spans != nil && (g.spans[tier].Newest < begin || g.spans[tier].Oldest > hi) {
			continue
		}
		b := g.read(tier, begin, hi)
		if g.err != nil {
			return out
		}
		reaches := tier == 0 && g.reaches(begin, hi)
		if b.Len() == 0 {
			if reaches {
				return out // there is a gap, and a coarser row that was before it would hide it
			}
			continue
		}
		oldest, newest := b.Times[0], b.Times[b.Len()-1]
		if !reaches && !g.begins(b, lo, oldest) && !p.covered(lo, oldest, step, g.known) {
			rest := set
			if g.spans == nil { // the rings of a living process: a finer one reaches less far
				rest &^= 1<<tier - 1
			}
			out = g.fill(out, rest, lo, oldest-1, tier, coarser)
		}
		if g.spans != nil && len(b.Lost) > 0 {
			out, b = g.fillLost(out, set, b, tier)
		}
		out = append(out, piece{b, step, tier})
		late := min(hi, g.known) - newest
		// What is folded is so later: up to now, finer rows have what it lacks, however little.
		if g.spans != nil && (late > step+step/2 || tier > 0 && hi >= g.known && late > g.step(0)/2) {
			out = g.fill(out, set, newest+1, hi, tier, finer)
		}
		return out
	}
	return out
}

// fillLost has other tiers answer where rows of one were lost, and not only for what is older or newer than all of its rows. It appends
// what comes before the last of such holes, and answers what comes after.
func (g *group) fillLost(out []piece, set uint32, b *Batch, tier int) ([]piece, *Batch) {
	step, at := g.step(tier), 0
	for _, i := range b.Lost {
		if b.Times[i]-b.Times[i-1] <= staleAfter(step) {
			continue
		}
		out = append(out, piece{b.part(at, i), step, tier})
		if out = g.fill(out, set, b.Times[i-1]+1, b.Times[i]-1, tier, coarser); g.err != nil {
			break
		}
		at = i
	}
	if at == 0 {
		return out, b
	}
	return out, b.part(at, b.Len())
}

// reaches tells whether the finest tier has all rows of [begin, hi] that ever were.
func (g *group) reaches(begin, hi int64) bool {
	if g.spans != nil {
		return g.spans[0].Oldest <= begin && g.spans[0].Newest >= hi
	}
	return begin >= g.known-int64(g.tiers[0].Rows-2)*g.step(0)
}

// begins tells whether a tier's rows since lo begin with the process, so that there is nothing older.
func (g *group) begins(b *Batch, lo, oldest int64) bool {
	if b.First == 1 && g.spans == nil {
		return true
	}
	birth := milli(g.segment.Start())
	return birth > lo && birth <= oldest && oldest-birth <= g.tiers[0].Step.Milliseconds()
}

// read reads the rows of a tier in [begin, end].
func (g *group) read(tier int, begin, end int64) *Batch {
	rows := int64(g.tiers[tier].Rows)
	if n := (min(end, g.known) - begin) / g.step(tier); n < rows {
		rows = max(n+2, 0)
	}
	if g.plan.newest() {
		rows = 1
	}
	b := NewBatch(g.columns, int(rows), g.q.room(g.columns))
	if err := b.Read(g.segment, g.table, tier, begin, end, g.plan.newest()); err != nil {
		g.q.warn(err)
	}
	if g.err = g.q.count(b); g.err == nil && b.Len() > 0 {
		coarse := g.tiers[tier].Step > g.tiers[0].Step || g.folded(tier)
		if g.q.used(g.tiers[tier].Step, coarse); coarse && g.sampled(tier) {
			g.q.sees(g.plan.fn, g.tiers[tier].Step)
		}
	}
	return b
}

// sampled tells whether a tier's rows are too few for the function.
func (g *group) sampled(tier int) bool {
	switch {
	case g.plan.rng == 0:
		return false
	case rangeFunctions[g.plan.fn] != ofExtreme:
		return rangeFunctions[g.plan.fn] == eachValue
	}
	return slices.ContainsFunc(g.columns, func(c Column) bool {
		return c.Series != nil && (c.Field != Min && c.Field != Max || c.Series.Kind == reader.Gauge && !g.folded(tier))
	})
}

// thin has pieces of finer tiers be as dense as the planned one: rate extrapolates by how far the samples of a window are apart on
// average, and would be wrong where it holds rows of two steps. For what is older, and less dense, see rewrite.
func (g *group) thin(pieces []piece) {
	p, step := g.plan, g.step(g.tier)
	if p.fn != "rate" && p.fn != "increase" || p.override > 0 {
		return
	}
	for i := range pieces {
		if pieces[i].step < step {
			pieces[i].batch.thin(step)
			pieces[i].step = step
		}
	}
}

// join makes one batch of pieces, which are in the order of their times.
func (g *group) join(pieces []piece) {
	g.steps = g.one.step[:0]
	if len(pieces) == 0 {
		return
	}
	g.batch = pieces[0].batch
	if len(pieces) > 1 {
		rows := 0
		for _, p := range pieces {
			rows += p.batch.Len()
		}
		g.batch = NewBatch(g.columns, rows, math.MaxInt)
		g.batch.First = pieces[0].batch.First
	}
	at := 0
	for _, p := range pieces {
		g.steps = append(g.steps, stepFrom{at, p.step, g.folded(p.tier)})
		at += p.batch.Len()
		if len(pieces) > 1 {
			g.batch.join(p.batch)
		}
	}
}

func (g *group) findGaps() {
	times := g.batch.Times
	for k, s := range g.steps {
		to := len(times) // the last row of these goes with the next step's first
		if k+1 < len(g.steps) {
			to = g.steps[k+1].from + 1
		}
		limit := staleAfter(s.step)
		for i := s.from + 1; i < to; i++ {
			if k+1 < len(g.steps) && i == g.steps[k+1].from {
				limit = max(limit, staleAfter(g.steps[k+1].step))
			}
			if times[i]-times[i-1] > limit {
				g.gaps = append(g.gaps, i)
			}
		}
	}
	if n := len(times); n > 0 {
		// A gap that is not over yet is one when it has passed on our own clock and as far as rows are known.
		t := times[n-1] + staleAfter(g.steps[len(g.steps)-1].step)
		if g.end > times[n-1] {
			t = min(t, g.end)
		}
		if t <= min(g.plan.end, g.known) {
			g.tail = t
		}
	}
}

// stepAt is the step of row i.
func (g *group) stepAt(i int) int64 {
	for _, s := range slices.Backward(g.steps) {
		if i >= s.from {
			return s.step
		}
	}
	return 0
}

// part is one series of one segment, a column of a group.
type part struct {
	g      *group
	column int
	as     shape
	bucket int32 // see metric
	sum    int   // of asTotal of a stat: the column of its sum, and one more; its count's is the next. 0: none
	start  int64 // ms: its registration, with every additive value 0
	zero   bool  // begins with 0 there
	since  int64 // ms: what comes before, and then, is another's, see owners; MinInt64: nothing
}

// histRef is a histogram sample: a row of a column, or one of those that no row has.
type histRef struct {
	column *histView
	row    int32
}

const (
	rowZero  = -1
	rowStale = -2
	rowAhead = -3 // see ahead
)

// samples are what a series' iterator goes over: floats or histograms, with markers and zeros.
type samples struct {
	times  []int64
	floats []float64
	hists  []histRef
}

// samples of the part, which must not be changed: where nothing is added they are the columns themselves.
func (p *part) samples() (samples, error) {
	s, err := p.all()
	if p.since == math.MinInt64 || err != nil {
		return s, err
	}
	from := sort.Search(len(s.times), func(i int) bool { return s.times[i] > p.since })
	for from < len(s.times) && s.stale(from) { // it was not there before
		from++
	}
	s.times = s.times[from:]
	if s.hists != nil {
		s.hists = s.hists[from:]
	} else {
		s.floats = s.floats[from:]
	}
	return s, nil
}

func (p *part) all() (samples, error) {
	g := p.g
	g.all.load()
	if g.once.Do(g.load); g.err != nil {
		return samples{}, g.err
	}
	b := g.batch
	if b.Len() == 0 {
		return samples{}, nil
	}
	zero := p.zero && p.start >= g.plan.start && p.start <= g.plan.end
	var s samples
	var view *histView
	var floats []float64
	switch {
	case p.as != asIs:
		if err := cmp.Or(g.q.charge(b.Len()), g.q.Run.memory.take(int64(8*b.Len()))); err != nil {
			return samples{}, err
		}
		floats = p.derive()
	case g.columns[p.column].Field == Buckets:
		view = newHistView(&b.Hists[p.column], b.Epochs)
	default:
		floats = b.Floats[p.column]
	}
	ahead, share := p.ahead()
	if view == nil && !zero && !b.Absent[p.column] && len(g.gaps) == 0 && g.tail == 0 && ahead == 0 {
		return samples{times: b.Times, floats: floats}, nil
	}

	if view == nil && zero && !b.Absent[p.column] && len(g.gaps) == 0 && g.tail == 0 && ahead == 0 {
		if at := p.zeroAt(b.Times[0]); at < b.Times[0] {
			s.times, s.floats = make([]int64, b.Len()+1), make([]float64, b.Len()+1)
			s.times[0] = at
			copy(s.times[1:], b.Times)
			copy(s.floats[1:], floats)
			return s, g.q.Run.memory.take(s.bytes())
		}
		return samples{times: b.Times, floats: floats}, nil
	}

	n := b.Len() + len(g.gaps) + 3
	s.times = make([]int64, 0, n)
	if view != nil {
		s.hists = make([]histRef, 0, n)
	} else {
		s.floats = make([]float64, 0, n)
	}
	if err := g.q.Run.memory.take(s.bytes()); err != nil {
		return samples{}, err
	}
	put := func(t int64, row int32, f float64) {
		s.times = append(s.times, t)
		if view != nil {
			s.hists = append(s.hists, histRef{view, row})
		} else {
			s.floats = append(s.floats, f)
		}
	}
	gaps, live := g.gaps, false
	for i, t := range b.Times {
		if len(gaps) > 0 && gaps[0] == i {
			if gaps = gaps[1:]; live {
				put(b.Times[i-1]+staleAfter(g.stepAt(i-1)), rowStale, stale)
				live = false
			}
		}
		f := 0.0
		if view != nil {
			f = view.h.Sum[i]
		} else {
			f = floats[i]
		}
		if isStale(f) {
			if live {
				put(t, rowStale, stale)
				live = false
			}
			continue
		}
		if zero {
			at := p.zeroAt(t)
			if zero = false; at < t && (len(s.times) == 0 || at > s.times[len(s.times)-1]) {
				put(at, rowZero, 0)
			}
		}
		put(t, int32(i), f)
		live = true
	}
	if live && g.tail > 0 {
		put(g.tail, rowStale, stale)
	}
	if n := b.Len() - 1; live && ahead > 0 {
		switch {
		case view != nil && !isStale(view.h.Sum[n-1]):
			view.share = share
			put(ahead, rowAhead, 0)
		case view == nil && !isStale(floats[n-1]):
			put(ahead, 0, floats[n]+(floats[n]-floats[n-1])*share)
		}
	}
	return s, nil
}

// zeroAt is the time of a series' 0, of which the first row has time t. A process may begin and end in one millisecond: its zero is a
// millisecond older then, or increase would see one sample and not what was counted.
func (p *part) zeroAt(t int64) int64 {
	if p.start == t {
		return t - 1
	}
	return p.start
}

// ahead is where an additive series is by now, if its last two rows' slope goes on: the time, 0 if nothing is to be said, and how much of their
// difference has been added since. A smoothed selector knows nothing of the time behind the newest row, while rate without it goes on to the
// window's end: a panel would bend down at its right edge, by a tenth and more where the range is some rows.
func (p *part) ahead() (t int64, share float64) {
	g, b := p.g, p.g.batch
	n := b.Len() - 1
	if !g.q.smooth || !p.zero || g.plan.fn != "rate" && g.plan.fn != "increase" || n < 1 || g.tail > 0 || g.end > 0 || b.Epochs[n] != b.Epochs[n-1] {
		return 0, 0
	}
	last, apart, limit := b.Times[n], b.Times[n]-b.Times[n-1], staleAfter(g.stepAt(n))
	if t = g.q.now; t <= last || t > g.plan.end || t-last > limit || apart > limit {
		return 0, 0
	}
	return t, float64(t-last) / float64(apart)
}

func (s *samples) len() int { return len(s.times) }

// stale tells whether sample i is a staleness marker.
func (s *samples) stale(i int) bool {
	if s.hists != nil {
		return s.hists[i].row == rowStale
	}
	return isStale(s.floats[i])
}

// join puts the incarnations of a series behind each other, in the order of their starts. Where an older one
// reaches into a newer one's time the newer one counts, but the older one's last value is kept, just
// before it: it may be what was recorded after its last row but one.
func join(parts []part) (samples, error) {
	if len(parts) == 1 {
		return parts[0].samples()
	}
	parts = slices.Clone(parts)
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(max(a.start, a.since), max(b.start, b.since)) })
	var out samples
	for _, p := range parts {
		s, err := p.samples()
		if err != nil {
			return samples{}, err
		}
		if s.len() == 0 {
			continue
		}
		if (out.hists == nil) != (s.hists == nil) {
			out = samples{} // the newest kind counts: a series is of one
		}
		out.append(s)
	}
	return out, nil
}

func (s *samples) append(newer samples) {
	if s.len() == 0 {
		*s = newer
		return
	}
	cut := s.len()
	for cut > 0 && s.times[cut-1] >= newer.times[0] {
		cut--
	}
	last := s.len() - 1 // the last value
	for last >= cut && s.stale(last) {
		last--
	}
	moved := samples{}
	if last >= cut {
		moved.times = []int64{newer.times[0] - 1}
		if s.hists != nil {
			moved.hists = []histRef{s.hists[last]}
		} else {
			moved.floats = []float64{s.floats[last]}
		}
	}
	s.times = slices.Concat(s.times[:cut], moved.times, newer.times)
	for i := cut - 1; i >= 0 && len(moved.times) > 0 && s.times[i] >= s.times[i+1]; i-- {
		s.times[i] = s.times[i+1] - 1 // which makes room for it
	}
	if s.hists != nil {
		s.hists = slices.Concat(s.hists[:cut], moved.hists, newer.hists)
	} else {
		s.floats = slices.Concat(s.floats[:cut], moved.floats, newer.floats)
	}
}

// count adds what was read, against the query's limits.
func (r *Run) count(b *Batch) error {
	if err := cmp.Or(r.charge(b.samples()), r.memory.take(b.bytes())); err != nil || !b.Full() {
		return err
	}
	if n, full := r.memory.room(); n/8 < int64(r.samplesLeft()) {
		return full
	}
	return promql.ErrTooManySamples("query execution")
}

// charge counts n numbers.
func (r *Run) charge(n int) error {
	r.samples.Add(int64(n))
	if r.samplesLeft() < 0 {
		return promql.ErrTooManySamples("query execution")
	}
	return nil
}

// room is how many numbers of columns may still be read. Which buckets of a histogram are filled is not known yet: as if all were.
func (r *Run) room(columns []Column) int {
	numbers, samples := 0, 0
	for _, c := range columns {
		numbers += c.numbers()
		if c.Field == Buckets {
			samples += histogramSamples(1, c.Series.Buckets.Count+1)
		} else {
			samples++
		}
	}
	bytes, _ := r.memory.room()
	return min(math.MaxInt/max(numbers, 1), r.samplesLeft()/max(samples, 1), int(bytes/8)/max(numbers, 1)) * numbers
}

// left is how many numbers may still be read.
func (r *Run) left() int {
	n, _ := r.memory.room()
	return min(r.samplesLeft(), int(n/8))
}

func (r *Run) samplesLeft() int {
	if r.maxSamples <= 0 {
		return math.MaxInt
	}
	return int(r.maxSamples - r.samples.Load())
}
