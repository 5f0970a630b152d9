// Package archive is the bounded history on disk: FORMAT.md part two.
//
// An Archive is a directory with one preallocated file per tier, each a ring of extents that explain
// themselves. What is written, in one go, is a Block: rows of up to 64 sources that
// have the same schema, as columns. What is read is an Incarnation's rows, as columns again, found by labels and time
// without any other extent's help, and without anything resident but a filter for each extent.
//
//	Block ─▶ encode ─▶ open extent ─▶ sealed with its index ─▶ reused
//	                        └──────────────┴─▶ Select ─▶ Incarnation ─▶ Read ─▶ Chunk
//
// The package knows files and bytes: no segments' rings, no processes, no clocks, no PromQL. Who decides what is
// written when is internal/archiver; who puts archived and living rows together is internal/history.
package archive

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/shmts/shmts/reader"
)

// Key names an incarnation, in every extent and tier. FORMAT.md 15.2.
type Key struct {
	Segment     [16]byte
	Epoch, Copy uint32
}

// Source is one incarnation of a source: one life of a process, or one epoch of it. FORMAT.md 15.2.
// It is not changed once it was handed over.
type Source struct {
	Key
	Group, Boot [16]byte
	Birth       int64 // unix ns
	Inode       uint64
	UID         int
	Ephemeral   bool
	Labels      []reader.Pair // sorted; job and instance among them
	Attributes  []reader.Pair // sorted
}

// Schema is a set of series of one table, shared by all sources that have the same. FORMAT.md 15.3.
// A series' Start in it is 0, and Retired false: those are a source's own, see Rows and Incarnation.
// It is not changed, and equal schemas that are in use at one time are mostly the same pointer.
type Schema struct {
	Hash   [16]byte
	Table  int
	Name   string // of the table
	Series []*reader.Series

	body atomic.Pointer[[]byte] // of its block, once it was written
}

// Field is a part of a series that has a column of its own. FORMAT.md 16.2.
type Field uint8

// The fields. Rows that are not folded have a gauge's Last alone; asked for its Min, Max or Sum they
// answer the same value, for its Count 1.
const (
	Last  Field = iota // counter, updown: the value. Gauge, stat: the newest one
	Min                // gauge, stat
	Max                // gauge, stat
	Sum                // gauge: of the rows' values. Stat: cumulative
	Count              // gauge: rows that had a value. Stat: cumulative
	Hist               // histogram: sum, zero, buckets, above
)

// Fields are those that a series of a kind has in rows that are folded, or not, in the order of FORMAT.md 16.2.
func Fields(kind reader.Kind, folded bool) []Field {
	switch {
	case kind == reader.Histogram:
		return []Field{Hist}
	case kind == reader.Stat:
		return []Field{Count, Sum, Last, Min, Max}
	case kind == reader.Gauge && folded:
		return []Field{Last, Min, Max, Sum, Count}
	}
	return []Field{Last}
}

// Block is what one Append writes: FORMAT.md 16. All of its sources have one uid, the schema, and the step.
type Block struct {
	Schema  *Schema
	Step    time.Duration // from row to row
	Folded  bool
	Members []Key // of an ephemeral source, alone in its block: whom it took in. FORMAT.md 19.6
	Sources []Rows
}

// Rows are one source's in a Block: n rows, oldest first.
type Rows struct {
	Source    *Source
	Final     bool // the last row is the writer's final one
	Estimated bool // the last row is made of live cells: last words
	Copied    bool // rows are copies of a coarser ring of the writer's

	Numbers  []uint64 // n, of the rows
	Times    []int64  // n, unix ms
	Base     uint64   // number of the last row of tier 0 that is in them
	Coverage []uint64 // n, of folded rows: how many rows of tier 0 each was made of
	Starts   []int64  // of each series of the schema: when it was registered, unix ms

	// Cells are the values by field: Cells[f][row], f counting over all series' Fields, in the schema's order. A
	// histogram's field is n x (buckets + 3) words, row by row: sum, zero, buckets, above. Numbers are
	// 64 bits of the field's type.
	Cells [][]uint64
	// Present tells by field which rows have a value. nil: all.
	Present [][]bool
}

// Position is how far a source's table is archived in a tier. FORMAT.md 19.4.
type Position struct {
	Last  uint64 // number of the last row
	Base  uint64 // number of the last row of tier 0 that is in it
	Time  int64  // of the last row, unix ms
	Ended bool   // that is its final or estimated one
}

// Options of Open.
type Options struct {
	Dir        string
	Tiers      []TierOptions    // finest first
	ExtentSize int              // 0: Budget / 16 rounded down to a power of two, at most 16 MiB, at least 64 KiB
	Files      Files            // nil: the system's
	Logger     *slog.Logger     // nil: none
	Now        func() time.Time // nil: time.Now
}

// Files is what an archive needs of the system: tests lose power and fill disks behind it.
type Files interface {
	MkdirAll(dir string) error
	// Open opens a file for reading and writing, creating it if it is told to.
	Open(path string, create bool) (File, error)
	// OpenRead opens one for reading alone.
	OpenRead(path string) (File, error)
	// List names the files of a directory, sorted.
	List(dir string) ([]string, error)
	Remove(path string) error
	// SyncDir makes a directory's entries outlive a loss of power.
	SyncDir(dir string) error
	// Lock takes the writers' lock on a file, creating it, until the Closer is closed. ErrLocked: somebody has it.
	Lock(path string) (io.Closer, error)
}

// File is an open one.
type File interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Allocate(size int64) error // makes it so large, all of it allocated; what is new reads as zeros
	Truncate(size int64) error
	Sync() error   // fdatasync
	Forget() error // drop clean pages from the cache, so that a read comes from the disk
	Close() error
}

// TierOptions are one tier's. A tier's file is as large as Budget allows whole extents, and never larger.
type TierOptions struct {
	Step   time.Duration
	Budget int64 // bytes on disk
}

// Tier is what is known of one.
type Tier struct {
	Step             time.Duration
	Size             int64 // of the file
	Extents          int   // that there are
	Used             int   // that hold something, the open one included
	ExtentSize       int64 // bytes
	Bytes            int64 // that those in use take: a sealed one all of it, the open one what it holds and the index that this will need
	Generation       uint64
	Oldest, Newest   int64  // unix ms, of its rows; 0 and 0 without any
	Blocks           int    // rows blocks
	Sources          int    // summed over extents
	Exemplars        int    // exemplars blocks
	Evicted          uint64 // extents reused since Open
	EvictedExemplars uint64 // exemplars in those
	Skipped          uint64 // blocks and runs that failed a check since Open
}

// Mark is a place in a tier: an extent's generation and an offset in it. FORMAT.md 15.4.
type Mark struct{ Generation, Offset uint64 }

// Selection says which incarnations Select finds.
type Selection struct {
	From, To int64 // unix ms, inclusive: with rows in there
	// Labels are held against the source's labels by name: of each, a source that has the label and whose value
	// does not match is left out. One that has no such label stays: a series may have it.
	Labels []Matcher
	// Schema says of a schema whether anything in it is wanted. nil: all.
	Schema func(*Schema) bool
	// UID, if not nil, says whose sources are wanted, and Source, if not nil, which of those: what it leaves out does not count
	// against Limit.
	UID    func(uid int) bool
	Source func(*Source) bool
	// Tiers that are looked into, by index; nil: all.
	Tiers []int
	// Limit, if not 0, is how many are found at most: if there are more, so many are answered, whichever, with ErrTooMany.
	Limit int
}

// Matcher is a condition on one label.
type Matcher struct {
	Name  string
	Equal string // if not empty, the only value that Match accepts: looked up, not searched
	Match func(value string) bool
}

// Incarnation is one source's life as the archive has it, in all tiers. It is a snapshot: extents may be reused
// while it is in use, and then Read yields less.
type Incarnation struct {
	*Source
	// Series of all its tables. The same slice for all incarnations of the same schemas, mostly; its Starts are 0: see Starts.
	Series []*reader.Series
	// Starts is when each of Series was registered, unix ms.
	Starts []int64
	// Tables by number: what tiers each has here, finest first.
	Tables []Table
	// Ended is the unix ms of its last row once it ended, else 0.
	Ended int64

	parts any // what Read needs
}

// Table is one of an Incarnation's.
type Table struct {
	Name  string
	Tiers []TableTier
}

// TableTier is a tier as one table of an incarnation has it. Oldest and Newest are of what was selected.
type TableTier struct {
	Tier           int           // index in the archive
	Step           time.Duration // of the rows
	Folded         bool
	Oldest, Newest int64  // unix ms
	Last, Base     uint64 // as in Position
}

// Column is a field of a series, to be read. Series may be any that says the same of itself as one in the
// archive does: name, labels, kind, number, table and buckets.
type Column struct {
	Series *reader.Series
	Field  Field
}

// Chunk is rows of one source as columns, a part of what Read yields. It is valid until the next one.
type Chunk struct {
	Folded    bool
	Copied    bool
	Final     bool // its last row is the writer's final one
	Estimated bool // its last row is last words
	Numbers   []uint64
	Times     []int64 // unix ms; they may fall, and then hide: FORMAT.md 19.3
	Coverage  []uint64
	Base      uint64
	// Cells and Present are by column, as in Rows: for a column that the rows don't have, nil, and Present is all false.
	Cells   [][]uint64
	Present [][]bool
}

// Reader is what can be read of an archive, whether this process writes it (Open) or not (OpenReader).
// It is safe for concurrent use.
type Reader interface {
	// ID is the archive's, random.
	ID() [16]byte
	// Tiers, finest first.
	Tiers() []Tier
	// Select finds incarnations, in the order of their births. An error is the context's or of the system, or ErrTooMany beside
	// Limit of them; what fails a check is counted, and the rest is found.
	Select(ctx context.Context, s Selection) ([]*Incarnation, error)
	// Find finds everything that the archive has of a segment: an incarnation for each epoch and copy, with all
	// its blocks whatever their times, and so with its positions. Nil if there is nothing.
	Find(segment [16]byte) ([]*Incarnation, error)
	// FindSince is Find for who wants rows of one tier at a time, unix ms, or later, and no more: blocks of other tiers, and extents in which all
	// is older, may be missing of what it answers, and so may positions. It costs as much as lies behind that time, whatever the archive holds.
	FindSince(segment [16]byte, tier int, from int64) ([]*Incarnation, error)
	// Read yields the rows of one table and of TableTier number tier of an incarnation whose times lie in [from, to],
	// unix ms, in the order of their numbers, none twice, as columns. What has been evicted since is missing. So is a row that one before from
	// hides, where a wall clock was stepped back: so rows yielded are hidden by others that are yielded, and by no others. FORMAT.md 19.3.
	Read(inc *Incarnation, table, tier int, from, to int64, columns []Column) iter.Seq2[*Chunk, error]
	// Blocks yields what a tier's rows blocks from a place on say of themselves, oldest first.
	Blocks(tier int, from Mark) iter.Seq2[*BlockInfo, error]
	// Exemplars yields exemplars of the finest tier whose time lies in [From, To] and whose source and schema are wanted, as Select says of
	// those (Tiers and Limit mean nothing here): by block, oldest first, each once, whatever was written twice. What it yields is valid until
	// the next. An error is the context's or of the system; what fails a check is counted, and the rest is found.
	Exemplars(ctx context.Context, s Selection) iter.Seq2[*Exemplars, error]
	// FindExemplars says up to which number the exemplars of a segment are in the archive, for each epoch and copy that it has any of.
	FindExemplars(segment [16]byte) ([]ExemplarPosition, error)
	Close() error
}

// Exemplar is one recorded value and the trace that it belongs to, as the archive has it. FORMAT.md 16.3.
type Exemplar struct {
	Number  uint64 // in its segment, from 1
	Series  int    // position in Schema.Series: of a counter or histogram
	Value   float64
	Time    int64 // unix ns
	TraceID [16]byte
	SpanID  [8]byte // zeros: none
}

// Exemplars are those of one source whose series are of one schema, in the order of their numbers.
type Exemplars struct {
	Source *Source
	Schema *Schema
	List   []Exemplar
}

// ExemplarPosition is how far the exemplars of an incarnation are archived. FORMAT.md 19.4.
type ExemplarPosition struct {
	*Source
	Last uint64 // number
}

// BlockInfo is what a rows block says of itself, without its values.
type BlockInfo struct {
	Mark     // where it is
	Length   int
	Schema   *Schema
	Step     time.Duration
	Folded   bool
	From, To int64 // unix ms
	Sources  []BlockSource
	Members  []Key

	part *part // for Archive.Part
}

// BlockSource is one source in a BlockInfo.
type BlockSource struct {
	*Source
	Position
	First  uint64 // number of its first row
	Rows   int
	Copied bool
}

// ErrTooMany is what Select answers, wrapped, beside what it found where there is more than the Selection's Limit.
var ErrTooMany = errors.New("shmts: archive: more sources than the limit")

// Errors of Append.
var (
	// ErrTooLarge says that a block does not fit into an empty extent: split it.
	ErrTooLarge = errors.New("shmts: archive: block is larger than an extent")
	// ErrStopped says that archiving stopped after a failure of the disk: see Err and Mend.
	ErrStopped = errors.New("shmts: archive: stopped")
	// ErrLocked says that another process writes the archive.
	ErrLocked = errors.New("shmts: archive: another process writes it")
)

// Writer is what a daemon does to its archive. One goroutine at a time, beside any number that read.
type Writer interface {
	Reader
	// Append writes blocks into a tier in one go: all of them, or none with an error. When it has returned they outlive
	// this process, and after the next Sync a loss of power. Whoever reads sees them from then on.
	Append(tier int, blocks ...*Block) error
	// AppendExemplars is Append for exemplars, into the finest tier: one block. Their sources are of one uid. Of a source and table, numbers
	// are greater than all that were appended before, or are passed over when they are read.
	AppendExemplars(parts ...Exemplars) error
	// End is the place behind a tier's last block, and Marked the newest mark in it.
	End(tier int) Mark
	Marked(tier int) (Mark, bool)
	// SetMark writes a mark. FORMAT.md 15.4.
	SetMark(tier int, m Mark) error
	// OnReuse has f called, from Append, before an extent of a tier is sealed and the next one reused: what in there is not yet
	// folded is folded now or never. f may Append to coarser tiers.
	OnReuse(f func(tier int, generation uint64))
	// Sync makes what was appended outlive a loss of power. An error is the disk's, and stops the archive. Close does not sync.
	Sync() error
	// Err says why the archive is stopped, nil if it is not. Mend tries to go on: FORMAT.md 19.7. What had not reached
	// the disk is then not in the archive any more, whatever Append said: positions and marks are to be looked up anew.
	Err() error
	Mend() error
}
