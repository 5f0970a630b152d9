package reader

import (
	"encoding/hex"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
)

// Segment is one writer process's file, open. Its methods may be called by several goroutines at
// once, and while a Poll refreshes it. What they say of its state (rows, series,
// liveness) is as of the last Refresh or Poll, so that all of it fits together.
type Segment struct {
	h         *layout.Header
	id, group string
	path      string
	uid       int
	dev, ino  uint64
	win       window
	tables    []Table
	step      int64 // ns, of the finest tier; 0 if there is none
	shadow    bool  // of another segment: id and uid are that one's. FORMAT.md 10.8
	lean      bool  // its series are not read
	elsewhere bool  // it is of another boot
	strings   *interner
	budget    int64 // bytes of series' strings

	// The store's: nobody else looks.
	dir    *userDir // where it lies; nil: opened alone
	name   string
	listed bool  // among the store's segments
	kept   bool  // has a descriptor of its own
	mapped int64 // bytes of the store's MapBytes
	part   int64 // bytes of the store's ControlBytes
	claim  *claim

	// What Refresh knows, under mu.
	mu       sync.Mutex
	raw      [layout.ControlSize / 8]uint64 // a private copy of the control block
	ctlWords int                            // of it, as many as there are tables for
	seen     bool
	beat     int64 // the heartbeat last seen
	moved    int64 // mono ns: when it last moved
	still    uint  // looks since
	known    descriptors
	stirred  bool // the list of series is another than at the last refresh

	// What everybody may read.
	control  [layout.CtlTables]atomic.Uint64
	heads    [layout.MaxTables][layout.MaxTiers]atomic.Uint64
	liveness atomic.Int64
	series   atomic.Pointer[[]*Series]
	words    atomic.Pointer[lastWords] // once dead
	end      atomic.Int64

	clocks    clocks
	skips     skips
	exemplars exemplars

	skippedSeries atomic.Uint64
	budgetSeries  atomic.Uint64 // of those
}

// usualHeader is how much of a file is read at first: most headers are shorter.
const usualHeader = 4096

// openSegment reads the header of an open file and takes the file over. On an error it is
// the caller's to close. uid and the rules of FORMAT.md 2 are the caller's too.
func openSegment(file *os.File, path string, st *unix.Stat_t, in *interner, budget int64) (*Segment, error) {
	g := &Segment{path: path, uid: int(st.Uid), dev: st.Dev, ino: st.Ino, strings: in, budget: budget}
	g.win = window{size: st.Size, file: file, fd: int(file.Fd())}
	if st.Size < layout.SuperblockSize || st.Size > layout.MaxTotalSize {
		return nil, &layout.CorruptError{Segment: path, Section: "superblock", Index: -1,
			Want: fmt.Sprintf("a file of at least %d bytes, at most %d", layout.SuperblockSize, layout.MaxTotalSize), Got: fmt.Sprint(st.Size)}
	}
	v, err := g.win.use()
	if err != nil {
		return nil, err
	}
	defer v.done()
	sc := takeScratch()
	defer sc.give()
	words := sc.words(int(min(st.Size, usualHeader) / 8))
	if err := v.copy(words, 0); err != nil {
		return nil, named(err, path)
	}
	size, err := layout.HeaderSize(words)
	if err != nil {
		return nil, named(err, path)
	}
	if int64(size) > st.Size {
		return nil, &layout.CorruptError{Segment: path, Section: "superblock", Index: -1,
			Want: fmt.Sprintf("header_size of at most %d", st.Size), Got: fmt.Sprint(size)}
	}
	if size > len(words)*8 {
		words = sc.words(size / 8)
		if err := v.copy(words, 0); err != nil {
			return nil, named(err, path)
		}
	}
	if g.h, err = layout.ParseHeader(words, st.Size); err != nil {
		return nil, named(err, path)
	}
	g.id, g.group = hex.EncodeToString(g.h.SegmentID[:]), hex.EncodeToString(g.h.GroupID[:])
	if g.shadow = g.h.ShadowOf != [16]byte{}; g.shadow {
		g.id = hex.EncodeToString(g.h.ShadowOf[:])
	}
	g.elsewhere = anotherBoot(g.h.BootID)
	for i := range g.h.Tables {
		t := &g.h.Tables[i]
		table := Table{Name: layout.Text(t.Name[:])}
		for _, tier := range t.Tier[:t.Tiers] {
			table.Tiers = append(table.Tiers, Tier{Step: time.Duration(tier.Step), Rows: int(tier.Rows)})
			if s := int64(tier.Step); g.step == 0 || s < g.step {
				g.step = s
			}
		}
		g.tables = append(g.tables, table)
		g.clocks.at = append(g.clocks.at, make([]tierClock, len(table.Tiers)))
	}
	if g.Sampled() {
		g.step = 0 // it never ticks, so it can't stand still
	}
	g.ctlWords = layout.CtlTables + len(g.h.Tables)*layout.TctlWords
	g.series.Store(new([]*Series))
	return g, nil
}

// named says in a layout error which segment it is about.
func named(err error, path string) error {
	switch e := err.(type) {
	case *layout.CorruptError:
		e.Segment = path
	case *layout.VersionError:
		e.Segment = path
	}
	return err
}

// alignedWords are n words that begin at a multiple of 64 bytes, as the kernel copies whole
// cache lines best. Go's allocator gives that for 4 KiB and up.
func alignedWords(n int) []uint64 { return make([]uint64, max(n, 512))[:n] }

// ID is the segment's identity, 32 hexadecimal digits. Of a shadow it is that of the segment that it is the shadow of: see Shadow.
func (g *Segment) ID() string { return g.id }

// Group is the incarnation: equal for segments that one process grew. FORMAT.md 10.7.
func (g *Segment) Group() string { return g.group }

// Path of the file.
func (g *Segment) Path() string { return g.path }

// UID is the file's owner, by fstat; of a shadow, that of the file that it is the shadow of.
func (g *Segment) UID() int {
	if g.shadow {
		return int(g.h.UID)
	}
	return g.uid
}

// Inode tells files apart: a name may be used again.
func (g *Segment) Inode() (dev, ino uint64) { return g.dev, g.ino }

// Pid is information, never identity: it may be used again, or of another namespace.
func (g *Segment) Pid() int { return int(g.h.Pid) }

// Job is the label of that name.
func (g *Segment) Job() string { return layout.Value(g.h.Labels, "job") }

// Instance is the label of that name.
func (g *Segment) Instance() string { return layout.Value(g.h.Labels, "instance") }

// Labels are those that every series of the segment carries: job, instance and others, sorted.
func (g *Segment) Labels() []Pair { return g.h.Labels }

// Attributes are the resource attributes, in OpenTelemetry's meaning; they are no labels.
func (g *Segment) Attributes() []Pair { return g.h.Attributes }

// Start is the unix time of birth in ns: every additive value was 0 then.
func (g *Segment) Start() int64 { return g.h.BirthUnix }

// BootID is the host's, when the segment was born, as 32 hexadecimal digits; zeros if unknown.
func (g *Segment) BootID() string { return hex.EncodeToString(g.h.BootID[:]) }

// Writer is name and version of the writing library.
func (g *Segment) Writer() string { return layout.Text(g.h.Writer[:]) }

// Sampled tells whether the writer never ticks: its live cells are all there is. FORMAT.md 10.8.
func (g *Segment) Sampled() bool { return g.h.Flags&layout.FlagSampled != 0 }

// Size in bytes.
func (g *Segment) Size() int64 { return g.win.size }

// Tables are the segment's, by number.
func (g *Segment) Tables() []Table { return g.tables }

// Liveness of the writer, as of the last Refresh or Poll.
func (g *Segment) Liveness() Liveness { return Liveness(g.liveness.Load()) }

// End is the unix time in ns of the last row, once the writer is Closed or Dead.
func (g *Segment) End() (int64, bool) {
	if !g.Liveness().Ended() {
		return 0, false
	}
	return g.end.Load(), true
}

// Series are those live or retired, in the order of their descriptors. The slice and what it points to
// are not changed afterwards: a series that is retired is another one then, Retired.
func (g *Segment) Series() []*Series { return *g.series.Load() }

// Find is the live series of that name with all of these labels, nil if there is none.
func (g *Segment) Find(name string, labels ...Pair) *Series {
	for _, s := range g.Series() {
		if s.Name == name && !s.Retired && s.has(labels) {
			return s
		}
	}
	return nil
}

// Epoch moves when the writer's values may have been rewound. FORMAT.md 10.9.
func (g *Segment) Epoch() uint32 { return uint32(g.control[layout.CtlState].Load() >> 32) }

// Heartbeat is the mono time in ns of the last tick that published; 0 if there was none.
func (g *Segment) Heartbeat() int64 { return int64(g.control[layout.CtlHeartbeat].Load()) }

// Counters are what the segment's writer, and this reader, counted.
type Counters struct {
	DroppedSeries, OverflowThreads, RejectedRecords, ForkLosses, ExemplarsDropped uint64 // the writer's

	// This reader's. A row that is torn or broken counts once, however often it is asked for.
	SkippedRows      uint64
	SkippedSeries    uint64 // broken, or over this reader's own limit
	BudgetSeries     uint64 // of those, that found no room in a budget
	SkippedExemplars uint64 // broken, or of no series that is there; each counts once, likewise
}

// Add adds those of another segment.
func (c *Counters) Add(o Counters) {
	c.DroppedSeries += o.DroppedSeries
	c.OverflowThreads += o.OverflowThreads
	c.RejectedRecords += o.RejectedRecords
	c.ForkLosses += o.ForkLosses
	c.ExemplarsDropped += o.ExemplarsDropped
	c.SkippedRows += o.SkippedRows
	c.SkippedSeries += o.SkippedSeries
	c.BudgetSeries += o.BudgetSeries
	c.SkippedExemplars += o.SkippedExemplars
}

// Counters of the writer and of this reader.
func (g *Segment) Counters() Counters {
	return Counters{
		DroppedSeries:    g.control[layout.CtlDroppedSeries].Load(),
		OverflowThreads:  g.control[layout.CtlOverflowThreads].Load(),
		RejectedRecords:  g.control[layout.CtlRejectedRecords].Load(),
		ForkLosses:       g.control[layout.CtlForkLosses].Load(),
		ExemplarsDropped: g.control[layout.CtlExemplarsDropped].Load(),
		SkippedRows:      g.skips.count(),
		SkippedSeries:    g.skippedSeries.Load(),
		BudgetSeries:     g.budgetSeries.Load(),
		SkippedExemplars: g.exemplars.skipped.Load(),
	}
}

// Head is the number of the newest row of a tier that can be served, 0 if there is none. Of a
// dead writer the row of its last words is the newest.
func (g *Segment) Head(table, tier int) uint64 {
	if table < 0 || table >= len(g.tables) || tier < 0 || tier >= len(g.tables[table].Tiers) {
		return 0
	}
	if w := g.words.Load(); w != nil {
		return w.rows[table][tier].No
	}
	return g.heads[table][tier].Load()
}

// Refresh reads control block, series and liveness anew. An error means that the file can't be read any more:
// truncated, or not whole. A store's segments are refreshed by Poll.
func (g *Segment) Refresh() error {
	_, err := g.refresh(monotonic(), time.Now().UnixNano())
	return err
}

// refresh tells whether the series changed, as well.
func (g *Segment) refresh(mono, unixNow int64) (changed bool, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.Liveness().Ended() {
		return false, nil // nobody writes there any more
	}
	v, err := g.win.use()
	if err != nil {
		return false, err
	}
	defer v.done()
	if err := v.copy(g.raw[:g.ctlWords], g.h.Control.Offset); err != nil {
		return false, named(err, g.path)
	}
	alive, err := g.look(&v, mono)
	if err != nil {
		return false, named(err, g.path)
	}
	// The heads in g.raw are older than the descriptors read now: what those say is right for
	// every row up to these heads. FORMAT.md 10.2.
	if !g.lean {
		g.reconsider(mono)
		if err := g.readSeries(&v); err != nil {
			return false, named(err, g.path)
		}
	}
	heads := g.hints()
	g.clocks.observe(int64(g.raw[layout.CtlClockOffset]), g.step, &heads)
	if alive == Dead && !g.shadow {
		if err := g.finish(&v, &heads, unixNow); err != nil {
			return false, named(err, g.path)
		}
	}
	for i := range g.control {
		set(&g.control[i], g.raw[i])
	}
	if g.h.Exemplars.Count > 0 {
		g.exemplars.observe(g.raw[layout.CtlExemplars], alive.Ended())
	}
	for t := range g.tables {
		for k := range g.tables[t].Tiers {
			set(&g.heads[t][k], heads[t][k])
		}
	}
	if alive == Closed || alive == Dead && g.shadow {
		g.end.Store(g.lastTime(&v, &heads))
	}
	g.liveness.Store(int64(alive))
	changed, g.stirred = g.stirred, false
	return changed, nil
}

// set spares the store, a locked instruction, where nothing moved: most words of most polls.
func set(w *atomic.Uint64, v uint64) {
	if w.Load() != v {
		w.Store(v)
	}
}

type headNumbers [layout.MaxTables][layout.MaxTiers]uint64

// maxRowNo is more rows than any writer can publish: a head above is nonsense, and taken as none.
const maxRowNo = 1 << 62

func (g *Segment) tableWord(table, word int) uint64 {
	return g.raw[layout.CtlTables+table*layout.TctlWords+word]
}

// hints are the heads that the control block in g.raw tells of.
func (g *Segment) hints() (heads headNumbers) {
	for t := range g.tables {
		for k := range g.tables[t].Tiers {
			if n := g.tableWord(t, layout.TctlHead+k); n < maxRowNo {
				heads[t][k] = n
			}
		}
	}
	return heads
}

// stillWhole holds the open file against what it was when it was admitted.
func (g *Segment) stillWhole(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("shmts: fstat", err)
	}
	if st.Size != g.win.size || g.dir != nil && st.Blocks*512 < st.Size {
		return &layout.CorruptError{Segment: g.path, Section: "file", Index: -1,
			Want: fmt.Sprintf("%d bytes, all of them allocated", g.win.size), Got: fmt.Sprintf("%d, %d allocated", st.Size, st.Blocks*512)}
	}
	return nil
}

// Close gives the file back. Iterations that are under way end well.
func (g *Segment) Close() error {
	g.mu.Lock()
	g.known.release(g.strings)
	g.mu.Unlock()
	return g.win.close()
}
