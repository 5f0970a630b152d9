// Package reader reads shmts segments: it finds them, tells the living from
// the dead, and hands out rows as private copies. It is for the daemon, for
// tools, and for orchestrators that decide from local data.
//
// Nothing a segment says can crash, block or grow its reader: FORMAT.md 2, 8
// and 11 are held against every byte. The package starts no goroutine, logs
// nothing and sets no globals. A Store, its Segments and what they hand out
// belong to one goroutine at a time, unless a method says otherwise.
package reader

import (
	"iter"
	"time"

	"github.com/shmts/shmts/layout"
)

// Kind, Number and Pair are the format's own words.
type (
	Kind   = layout.Kind
	Number = layout.Number
	Pair   = layout.Pair
)

// The kinds and number types of FORMAT.md 6.2.
const (
	Counter   = layout.Counter
	UpDown    = layout.UpDown
	Gauge     = layout.Gauge
	Stat      = layout.Stat
	Histogram = layout.Histogram

	U64 = layout.U64
	I64 = layout.I64
	F64 = layout.F64
)

// Tier is a ring of rows at one step.
type Tier struct {
	Step time.Duration
	Rows int // capacity
}

// Table is a set of series that share tiers.
type Table struct {
	Name  string
	Tiers []Tier
}

// Series is one series of a segment. It never changes, but for Retired.
type Series struct {
	Name        string
	Unit        string // UCUM
	Help        string
	Labels      []Pair // its own, sorted; the source's are the segment's
	Kind        Kind
	Number      Number
	NonNegative bool // a stat's sum never falls
	Table       int
	Buckets     BucketRange // histograms
	Start       int64       // unix ns: when it was registered, with every additive value 0
	Retired     bool

	desc layout.SeriesInfo
}

// BucketRange is a histogram's shape: see layout.BucketRange.
type BucketRange = layout.BucketRange

// Row is one table at one instant: a private copy, valid until the iteration
// that gave it goes on. FORMAT.md 8.1.
type Row struct {
	Table, Tier int
	No          uint64 // position in the tier since birth, from 1, dense
	Begin, Time int64  // unix ns: the window is (Begin, Time]
	Mono        int64  // mono ns
	BaseRow     uint64
	Epoch       uint16
	Final       bool // the writer closed with it
	Estimated   bool // made from the live cells of a dead writer: its last words

	cells []uint64
}

// Value is one series in one row.
type Value struct {
	Kind   Kind
	Number Number

	Int   int64   // counter (u64: as the same 64 bits), updown, gauge of number i64
	Float float64 // counter and gauge of number f64; Int as a float for the others

	Count          uint64  // stat, histogram
	Sum            float64 // stat, histogram
	Last, Min, Max float64 // stat: NaN when unset
	Unset          bool    // gauge: never set. Stat: no last

	Zero, Above uint64   // histogram
	Buckets     []uint64 // histogram: of index Buckets.Min on; a part of the row's memory
}

// Value of a series in the row; false if the row does not hold the series
// (not yet born, retired, of another table).
func (r *Row) Value(s *Series) (Value, bool) { panic("to come") }

// Liveness is what can be known of a segment's writer. FORMAT.md 10.5.
type Liveness int

const (
	Alive   Liveness = iota // its heartbeat moves
	Stalled                 // the lock is held, the heartbeat stands still for more than 3 steps
	Closed                  // it said so, after a final row in every tier
	Dead                    // the lock is free: its last words are in the last row
)

// Segment is one writer process's file, open.
type Segment struct{}

// The segment's identity and source.
func (g *Segment) ID() string         { panic("to come") } // 32 hexadecimal digits
func (g *Segment) Group() string      { panic("to come") } // of the incarnation: equal for segments that one process grew
func (g *Segment) Path() string       { panic("to come") }
func (g *Segment) UID() int           { panic("to come") } // owner, by fstat
func (g *Segment) Pid() int           { panic("to come") } // information, never identity
func (g *Segment) Job() string        { panic("to come") }
func (g *Segment) Instance() string   { panic("to come") }
func (g *Segment) Labels() []Pair     { panic("to come") } // job, instance and others, sorted
func (g *Segment) Attributes() []Pair { panic("to come") } // resource attributes
func (g *Segment) Start() int64       { panic("to come") } // unix ns: birth
func (g *Segment) Size() int64        { panic("to come") } // bytes
func (g *Segment) Tables() []Table    { panic("to come") }
func (g *Segment) Liveness() Liveness { panic("to come") } // as of the last Refresh or Poll
func (g *Segment) End() (int64, bool) { panic("to come") } // unix ns of the last row's time, once Closed or Dead
func (g *Segment) Series() []*Series  { panic("to come") } // as of the last Refresh or Poll; the slice is not changed afterwards
func (g *Segment) Epoch() uint32      { panic("to come") }
func (g *Segment) Refresh() error     { panic("to come") } // re-reads control block, series, liveness
func (g *Segment) Close() error       { panic("to come") }
func (g *Segment) Counters() Counters { panic("to come") }

// Counters are what the segment's writer, and this reader, counted.
type Counters struct {
	DroppedSeries, OverflowThreads, RejectedRecords, ForkLosses uint64 // the writer's
	SkippedRows, SkippedSeries                                  uint64 // this reader's: torn, overwritten or broken
}

// Head is the number of the newest row of a tier that can be served, 0 if there is none. Of a
// dead writer the row of its last words is the newest.
func (g *Segment) Head(table, tier int) uint64 { panic("to come") }

// Rows yields the rows of a tier numbered from and up, oldest first, those
// that are still there and valid. The row is valid until the next one is asked for.
// After a writer's death its last words come as the last row, Estimated.
func (g *Segment) Rows(table, tier int, from uint64) iter.Seq[*Row] { panic("to come") }

// Between yields the rows of a tier whose Time lies in [begin, end], unix ns, oldest first.
func (g *Segment) Between(table, tier int, begin, end int64) iter.Seq[*Row] { panic("to come") }

// Live samples the table's live cells: what the next row would say if it were taken
// now. A sample, never a row: No is 0.
func (g *Segment) Live(table int) (*Row, error) { panic("to come") }

// Delta is the change of a series over the newest rows that cover window.
func (g *Segment) Delta(s *Series, window time.Duration) (Delta, error) { panic("to come") }

// Delta is what a series did in a window.
type Delta struct {
	From, To int64         // unix ns: what the rows really cover
	Gaps     time.Duration // of it, what no row covers at the tier's step
	Tier     int
	Rows     int
	First    Value // at From: absent (zero) when the series was born inside
	Last     Value // at To
	Change   Value // additive parts subtracted; Min, Max over the window; Last the newest
}

// Seconds is the time that the delta covers.
func (d *Delta) Seconds() float64 { return float64(d.To-d.From) / 1e9 }

// PerSecond is the rate of a counter's, updown's, or a stat's or histogram's sum's change.
func (d *Delta) PerSecond() float64 { panic("to come") }

// Quantile estimates the q-quantile of what a histogram recorded in the window; NaN if nothing.
func (d *Delta) Quantile(q float64) float64 { panic("to come") }

// Options of Open. The zero value reads $SHMTS_DIR, else /dev/shm/shmts.
type Options struct {
	Dir string // the store; see Dir

	// TrustUIDs names the users, beside this process's own, whose segments may be
	// mapped. Others are read with pread, which no truncation can hurt.
	TrustUIDs []int
	// NoMap reads everything with pread.
	NoMap bool
	// AnyOwner accepts a store directory that belongs to neither root nor this process's user.
	AnyOwner bool
	// Rescan is the safety net under inotify: how often a Poll scans the store whatever inotify says. 0: 10 s.
	Rescan time.Duration
}

// Dir is the store that dir means: dir itself, else $SHMTS_DIR, else /dev/shm/shmts.
func Dir(dir string) string { panic("to come") }

// Store is a directory of segments, watched.
type Store struct{}

// Open opens a store for reading. The directory may not exist yet: it is looked for at every Poll.
func Open(o Options) (*Store, error) { panic("to come") }

// Events is what a Poll found.
type Events struct {
	New     []*Segment
	Changed []*Segment // series were registered or retired
	Ended   []*Segment // the writer closed or died; still readable until Release
	Gone    []*Segment // unlinked by somebody; closed after this Poll's caller is done with it, at the next Poll
	Refused []Refusal  // newly refused: corrupt, of another version, unsafe; retried with backoff
}

// Refusal is a file that is not read, and why.
type Refusal struct {
	Path string
	Err  error
}

// Poll looks for what is new, changed, ended and gone. It refreshes every segment. It never waits
// for a writer, and one bad file never hides another.
func (s *Store) Poll() (Events, error) { panic("to come") }

// Segments are those open as of the last Poll, oldest first.
func (s *Store) Segments() []*Segment { panic("to come") }

// Lookup finds the segments of an instance, newest incarnation first.
func (s *Store) Lookup(job, instance string) []*Segment { panic("to come") }

// Unlink removes a closed or dead segment's file. It refuses one that is alive.
func (s *Store) Unlink(g *Segment) error { panic("to come") }

// Close closes every segment.
func (s *Store) Close() error { panic("to come") }

// Check reads everything in a segment and says what is wrong with it, in
// FORMAT.md's order: the errors are *layout.CorruptError, *layout.VersionError, or of the system.
func Check(path string) []error { panic("to come") }

// OpenSegment opens one file, wherever it lies, for tools: FORMAT.md 2's rules on
// owner and directory are not held against it, all others are.
func OpenSegment(path string) (*Segment, error) { panic("to come") }
