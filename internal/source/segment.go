package source

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/reader"
)

// Segment is one segment as of a snapshot. What it says of itself never changes: a later snapshot
// may hold another *Segment of the same ID. Its rows are read from the file at each call, and
// calls from any goroutine are safe; a call waits for another on the same segment, and for a poll.
//
// The function handed to Between or Rows runs under those locks: it must be short, and must not
// read a segment itself.
type Segment struct {
	life *life

	labels, attributes []reader.Pair
	series             []*reader.Series
	overrides          map[*reader.Series][]reader.Pair

	liveness reader.Liveness
	end      int64
	ended    bool
}

// life is what all snapshots' views of one open segment share.
type life struct {
	polling *sync.RWMutex // the register's: read-held while rows are read
	asOf    *atomic.Int64 // the register's: when its last poll began, unix ns

	mu     sync.Mutex // one reader at a time
	g      *reader.Segment
	closed bool // released by a poll: there is nothing to read any more

	// What the register alone touches, from Poll.
	id      string
	group   string
	source  string // key of its source
	path    string
	tables  []reader.Table
	start   int64
	since   uint64 // the poll that found it
	died    time.Time
	retry   time.Time // after a failed unlink
	hidden  bool      // it shows no rows of its own: see shadow.go
	dropped bool      // its time to live is over: in no snapshot any more
	late    bool      // dropped although somebody still held it
	view    *Segment
	taken   map[string]bool // series keys of segments that overlapped it and have left
	sampled *life           // of a shadow: the segment that it stands for, which keeps the exemplars
}

// ID is the segment's id, 32 hexadecimal digits. It names an incarnation's segment for ever.
func (s *Segment) ID() string { return s.life.id }

// Path is the segment's file.
func (s *Segment) Path() string { return s.life.path }

// Group is the incarnation's id: equal for segments that one process grew. FORMAT.md 10.7.
func (s *Segment) Group() string { return s.life.group }

// Source is a key that is equal for segments of one source: owner and labels. FORMAT.md 4.4.
func (s *Segment) Source() string { return s.life.source }

// Labels are the source's labels, job and instance among them, sorted by name.
func (s *Segment) Labels() []reader.Pair { return s.labels }

// Attributes are the source's resource attributes, sorted by name.
func (s *Segment) Attributes() []reader.Pair { return s.attributes }

// Series are the segment's series: the same slice until one is registered or retired.
func (s *Segment) Series() []*reader.Series { return s.series }

// Overrides are labels that single series carry beside their own and the source's: where a newer
// segment of the source has the same series at the same time, this one's has OverlapLabel. Nil for most.
func (s *Segment) Overrides() map[*reader.Series][]reader.Pair { return s.overrides }

// Tables are the segment's tables and their tiers.
func (s *Segment) Tables() []reader.Table { return s.life.tables }

// Start is the time of birth, unix ns.
func (s *Segment) Start() int64 { return s.life.start }

// End is the time of the last row, unix ns, once the writer closed or died.
func (s *Segment) End() (int64, bool) { return s.end, s.ended }

// AsOf is when the register last looked at all segments, unix ns: rows published after it are not seen yet.
// It is 0 before the first poll has ended.
func (s *Segment) AsOf() int64 { return s.life.asOf.Load() }

// Liveness of the writer, as of the snapshot.
func (s *Segment) Liveness() reader.Liveness { return s.liveness }

// Counters are what the writer, and this reader, counted.
func (s *Segment) Counters() reader.Counters { return s.life.g.Counters() }

// Room is how much of what the segment was born with is given to series.
func (s *Segment) Room() reader.Room { return s.life.g.Room() }

// Between yields the rows of a tier whose time lies in [begin, end], unix ns, oldest first, until
// yield answers false. A row is valid during its call only. Of a segment that is no longer there,
// nothing is yielded.
func (s *Segment) Between(table, tier int, begin, end int64, yield func(*reader.Row) bool) {
	if s.life.lock() {
		defer s.life.unlock()
		s.life.g.Between(table, tier, begin, end)(yield)
	}
}

// Newest yields the newest row of a tier whose time lies in [begin, end], unix ns, if there is one, as Between does.
func (s *Segment) Newest(table, tier int, begin, end int64, yield func(*reader.Row) bool) {
	if s.life.lock() {
		defer s.life.unlock()
		s.life.g.Newest(table, tier, begin, end)(yield)
	}
}

// Rows yields the rows of a tier numbered from and up, as Between does. The last row of an ended
// segment is its writer's final row or its last words.
func (s *Segment) Rows(table, tier int, from uint64, yield func(*reader.Row) bool) {
	if s.life.lock() {
		defer s.life.unlock()
		s.life.g.Rows(table, tier, from)(yield)
	}
}

// Head is the number of a tier's newest row, 0 if there is none.
func (s *Segment) Head(table, tier int) uint64 {
	if !s.life.lock() {
		return 0
	}
	defer s.life.unlock()
	return s.life.g.Head(table, tier)
}

// Exemplars yields the exemplars numbered from and up, oldest first, as reader.Segment.Exemplars does, until yield answers false. A segment
// that never ticks keeps them itself, its shadow none: they are found through the shadow like all else of it. yield runs under the same locks as
// Between's, and may keep what it is given.
func (s *Segment) Exemplars(from uint64, yield func(*reader.Exemplar) bool) {
	if !s.life.lock() {
		return
	}
	defer s.life.unlock()
	g := s.life.g
	if of := s.life.sampled; of != nil {
		of.mu.Lock()
		defer of.mu.Unlock()
		if !of.closed {
			of.g.ExemplarsAs(g, from)(yield)
		}
		return
	}
	g.Exemplars(from)(yield)
}

// ExemplarHead is the number of the newest exemplar as of the last poll, 0 if there is none.
func (s *Segment) ExemplarHead() uint64 {
	if !s.life.lock() {
		return 0
	}
	defer s.life.unlock()
	if of := s.life.sampled; of != nil {
		return of.g.ExemplarHead()
	}
	return s.life.g.ExemplarHead()
}

// lock begins a reading, until unlock; false if there is nothing to read any more.
func (l *life) lock() bool {
	l.polling.RLock()
	l.mu.Lock()
	if l.closed {
		l.unlock()
		return false
	}
	return true
}

func (l *life) unlock() {
	l.mu.Unlock()
	l.polling.RUnlock()
}
