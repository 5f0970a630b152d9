package writer

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sync/atomic"

	"github.com/shmts/shmts/layout"
)

// A segment is one file of this writer's, or the private memory that stands in
// for one that could not be had. All of it belongs to Writer.mu, but for the
// cells in words, which records reach through places.
type segment struct {
	w     *Writer
	hdr   *layout.Header
	words []uint64
	path  string // "" while it is private memory
	ctl   int    // word of the control block

	ring         *exemplarRing // nil: none
	given        uint64        // numbers given to exemplars, once closed
	givenNowhere uint64        // and of those dropped
	tables       []*table
	descriptors  []descriptor
	unused       []int // descriptors below len(descriptors) that are free
	heap         arena

	past    *past // the private memory that this segment was, before it had a file
	retryAt int64 // mono time of the next attempt to have a file
	backoff int64
}

// descriptor is what the writer knows of one series descriptor.
type descriptor struct {
	generation uint32
	series     *series // nil: free
}

// table is one table of a segment.
type table struct {
	seg   *segment
	n     int
	d     *layout.Table
	tctl  int // word of the table's part of the control block
	procs int // lanes 0 to procs-1 belong to Ps, the others to owners

	row, lane, shared arena
	openRow           uint64
	live              []*series // whose cells go into the next row
	retired           []*series // whose cells, or descriptor, are not free yet
	overflowed        atomic.Bool

	tick tickState
}

// place is where the cells of a series are. A handle points to one, and to none when
// there is nothing to record into. It never changes: another one takes its turn.
type place struct {
	w          *Writer
	words      []uint64 // from the series' cell in lane 0 on
	stride     int      // words from lane to lane
	procs      int      // lanes that belong to Ps
	overflow   int      // word of the series' cell in the overflow lane
	overflowed *atomic.Bool
	openRow    *uint64
	shared     *uint64 // gauge, and last of a stat

	ring              *exemplarRing // nil: exemplars go nowhere
	index, generation uint32        // of the descriptor
}

// newSegment gives birth to the next segment of the incarnation: as a file, else in private memory. w.mu is held.
func (w *Writer) newSegment() (*segment, error) {
	hdr, err := w.opts.plan()
	if err != nil {
		return nil, err
	}
	unixNow, mono, half := birthClock(w.opts.Clock)
	hdr.SegmentID = w.newID()
	hdr.GroupID = hdr.SegmentID
	hdr.GroupIndex = uint32(len(w.segments))
	if len(w.segments) > 0 {
		hdr.GroupID = w.segments[0].hdr.SegmentID
	}
	hdr.BootID = bootID()
	hdr.BirthUnix, hdr.BirthMono, hdr.BirthError = unixNow, mono, half
	hdr.Pid, hdr.UID, hdr.PidNs = uint32(os.Getpid()), uint32(os.Geteuid()), pidNamespace()
	copy(hdr.Writer[:], Version)

	g := &segment{w: w, hdr: hdr, ctl: int(hdr.Control.Offset / 8), heap: arena{cap: int(hdr.Heap.Length)}}
	fill := func(words []uint64) {
		hdr.Encode(words)
		hdr.InitControl(words)
		atomic.StoreUint64(&words[g.ctl+layout.CtlState], layout.StateLive|uint64(w.epoch)<<32)
		clear(words[hdr.Lanes.Offset/8:][:hdr.Lanes.Length/8]) // page faults now, not in a record call
	}
	words, path, failed := giveBirth(&w.opts, hdr, fill)
	if failed != nil {
		w.fail(fmt.Errorf("shmts: recording into private memory, to be tried again: %w", failed))
		if words, err = privateWords(hdr.TotalSize); err != nil {
			return nil, err
		}
		fill(words)
		g.backoff = firstRetry
		g.retryAt = mono + g.backoff
	}
	g.words, g.path, g.ring = words, path, g.ringOf(words)
	for i := range hdr.Tables {
		d := &hdr.Tables[i]
		t := &table{seg: g, n: i, d: d, tctl: g.ctl + layout.CtlTables + i*layout.TctlWords, procs: w.opts.Tables[i].Lanes,
			row: arena{cap: int(d.RowCells)}, lane: arena{cap: int(d.LaneCells)}, shared: arena{cap: int(d.SharedCells)}, openRow: 1}
		t.initTick()
		g.tables = append(g.tables, t)
	}
	w.segments = append(w.segments, g)
	if len(w.segments) == 1 {
		w.offset = unixNow - mono
		w.useControl(words[g.ctl:][:layout.ControlSize/8])
	}
	return g, nil
}

func (w *Writer) newID() (id [16]byte) {
	if w.opts.NewID != nil {
		return w.opts.NewID()
	}
	rand.Read(id[:]) // never fails: crypto/rand
	return id
}

// laneCells are the cells of a series in lane k of words.
func (t *table) laneCells(words []uint64, s *series, k int) []uint64 {
	n := s.info.Kind.Cells(int(s.info.Buckets)).Lane
	at := (t.d.LanesOffset+uint64(k)*uint64(t.d.LaneStride))/8 + uint64(s.info.LaneCell)
	return words[at:][:n]
}

// sharedCell is the cell of a series in the shared lane of words.
func (t *table) sharedCell(words []uint64, s *series) *uint64 {
	return &words[t.d.SharedOffset/8+uint64(s.info.SharedCell)]
}

func (t *table) placeOf(s *series) *place {
	first, n := t.laneStart(s), s.info.Kind.Cells(int(s.info.Buckets))
	p := &place{w: t.seg.w, stride: int(t.d.LaneStride / 8), procs: t.procs, overflowed: &t.overflowed,
		openRow: &t.seg.words[t.tctl+layout.TctlOpenRow],
		ring:    t.seg.ring, index: uint32(s.info.Index), generation: s.info.Generation()}
	if n.Lane > 0 {
		p.overflow = int(t.d.Lanes) * p.stride
		p.words = t.seg.words[first:][: p.overflow+n.Lane : p.overflow+n.Lane]
	}
	if n.Shared > 0 {
		p.shared = t.sharedCell(t.seg.words, s)
	}
	return p
}

func (t *table) laneStart(s *series) uint64 { return t.d.LanesOffset/8 + uint64(s.info.LaneCell) }

// fits tells whether the segment has room for the series and its strings.
func (g *segment) fits(s *series, strings int) bool {
	t, c := g.tables[s.info.Table], s.info.Kind.Cells(int(s.info.Buckets))
	return (len(g.unused) > 0 || len(g.descriptors) < int(g.hdr.Series.Count)) &&
		g.heap.fits(strings) && t.row.fits(c.Row) && t.lane.fits(c.Lane) && t.shared.fits(c.Shared)
}

// add puts a series into the segment: FORMAT.md 10.2. It fits. w.mu is held.
func (g *segment) add(s *series, strings []byte, unixNow int64) {
	t, c := g.tables[s.info.Table], s.info.Kind.Cells(int(s.info.Buckets))
	if n := len(g.unused); n > 0 {
		s.info.Index, g.unused = g.unused[n-1], g.unused[:n-1]
	} else {
		s.info.Index = len(g.descriptors)
		g.descriptors = append(g.descriptors, descriptor{})
	}
	d := &g.descriptors[s.info.Index]
	d.generation, d.series = (d.generation+1)&0xffffff, s
	s.t = t

	heap, _ := g.heap.take(len(strings))
	row, _ := t.row.take(c.Row)
	lane, _ := t.lane.take(c.Lane)
	shared, _ := t.shared.take(c.Shared)
	s.info.Strings, s.info.RowCell, s.info.LaneCell, s.info.SharedCell = uint32(heap), uint32(row), uint32(lane), uint32(shared)
	s.info.State = layout.NewState(d.generation, layout.SeriesFilling)
	s.info.BornUnix, s.info.BornRow, s.info.RetiredRow = unixNow, t.openRow, 0

	t.zero(g.words, s)
	t.zeroRow(s)
	layout.StoreSeries(g.words, g.hdr, &s.info, strings)
	store := func(word int, low, high int) {
		atomic.StoreUint64(&g.words[word], uint64(low)|uint64(high)<<32)
	}
	store(g.ctl+layout.CtlUsed, len(g.descriptors), g.heap.used)
	store(t.tctl+layout.TctlCellsUsed, t.row.used, t.lane.used)
	store(t.tctl+layout.TctlSharedUsed, t.shared.used, 0)
	t.live = append(t.live, s)
	t.tick.stale = true
	s.place.Store(t.placeOf(s))
}

// zero puts a series' cells in words to what they hold before the first record.
func (t *table) zero(words []uint64, s *series) {
	if s.info.Kind.Cells(int(s.info.Buckets)).Lane > 0 {
		for k := range int(t.d.Lanes) + 1 {
			cells := t.laneCells(words, s, k)
			for i := range cells {
				atomic.StoreUint64(&cells[i], 0)
			}
		}
	}
	if s.info.Kind.Cells(int(s.info.Buckets)).Shared > 0 {
		atomic.StoreUint64(t.sharedCell(words, s), s.info.Number.Unset())
	}
	if s.info.Kind == layout.Stat {
		prepareWindow(t.laneCells(words, s, int(t.d.Lanes)), t.openRow)
	}
}

// retire ends a series: FORMAT.md 10.2. w.mu is held.
func (g *segment) retire(s *series) {
	g.w.moveSpares()
	s.place.Store(nil)
	for _, o := range s.owned {
		o.detach()
	}
	s.owned = nil
	s.info.RetiredRow = s.t.openRow + 1
	s.retiredTick = g.w.ticks
	layout.RetireSeries(g.words, g.hdr, s.info.Index, s.info.RetiredRow)
	s.info.State = layout.NewState(s.info.Generation(), layout.SeriesRetired)
	s.t.retired = append(s.t.retired, s)
}

// reclaim frees the cells, and later the descriptors, of series that were retired long enough
// ago: FORMAT.md 10.2. Private memory has no readers; there two ticks are enough for both.
func (t *table) reclaim() {
	kept := t.retired[:0]
	for _, s := range t.retired {
		private := t.seg.path == "" && t.seg.w.ticks >= s.retiredTick+2
		if !s.cellsFree && (private || t.openRow >= s.info.RetiredRow+2) {
			if private {
				t.drop(func(x *series) bool { return x == s })
			}
			c := s.info.Kind.Cells(int(s.info.Buckets))
			t.row.give(int(s.info.RowCell), c.Row)
			t.lane.give(int(s.info.LaneCell), c.Lane)
			t.shared.give(int(s.info.SharedCell), c.Shared)
			s.cellsFree = true
		}
		if s.cellsFree && (private || t.oldestBase() >= s.info.RetiredRow) {
			t.seg.free(s)
			continue
		}
		kept = append(kept, s)
	}
	clear(t.retired[len(kept):])
	t.retired = kept
}

// oldestBase is the least base_row that a row in one of the table's rings has, or the next
// one will have.
func (t *table) oldestBase() uint64 {
	oldest := t.openRow
	for i := range t.tick.tiers {
		tier := &t.tick.tiers[i]
		if tier.head > 0 {
			first := uint64(1)
			if tier.head >= uint64(tier.d.Rows) {
				first = tier.head - uint64(tier.d.Rows) + 1
			}
			oldest = min(oldest, t.seg.words[tier.d.RowOffset(first)/8+rowBaseWord])
		}
	}
	return oldest
}

const rowBaseWord = 0x28 / 8 // FORMAT.md 8.1

// free gives a descriptor and its strings back.
func (g *segment) free(s *series) {
	d := g.words[g.hdr.Series.Offset/8+uint64(s.info.Index)*uint64(g.hdr.Series.ElementSize)/8:]
	word := atomic.LoadUint64(&d[layout.SeriesStateWord])
	atomic.StoreUint64(&d[layout.SeriesStateWord], word&^0xff|layout.SeriesFree)
	g.heap.give(int(s.info.Strings), s.info.StringsLength())
	g.descriptors[s.info.Index].series = nil
	g.unused = append(g.unused, s.info.Index)
}

// prepareWindow empties the overflow lane's window of a row, in a stat's cells there: FORMAT.md
// 7.1. The store of open_row that follows makes it visible.
func prepareWindow(cells []uint64, row uint64) {
	win := window(cells, row)
	empty := layout.EmptyWindow(row)
	atomic.StoreUint64(&win[layout.WindowMin], empty)
	atomic.StoreUint64(&win[layout.WindowMax], empty)
	atomic.StoreUint64(&win[layout.WindowTag], row)
}

// window is the window of a row in a stat's cells of a lane.
func window(cells []uint64, row uint64) []uint64 {
	return cells[layout.StatWindow+(row&1)*layout.StatWindowCells:][:layout.StatWindowCells]
}

// addFloat adds into a word that others add to as well.
func addFloat(word *uint64, v float64) {
	for {
		old := atomic.LoadUint64(word)
		if atomic.CompareAndSwapUint64(word, old, math.Float64bits(math.Float64frombits(old)+v)) {
			return
		}
	}
}

func idWord(id [16]byte) uint64 { return binary.LittleEndian.Uint64(id[:8]) }
