// Package layout is FORMAT.md as Go: every offset of a segment, both halves of
// the row seqlock and of the ring of exemplars, the checksum, the bucket index and the bounds-checked way
// to memory. It knows bytes and nothing else: no files, no locks, no clocks.
//
//	+--------------------------------------------------+ 0
//	| Superblock 256 | Section[] | Table[] | source     |  header: immutable, one checksum
//	+--------------------------------------------------+ HeaderSize
//	| Control 640                                       |  the few words that change
//	| Series[] 64 B each                                |  append-only descriptors
//	| heap: names, units, help, labels                  |
//	| lanes: table 0: lane 0..n, overflow, shared | ... |  where records go
//	| rows:  table 0: tier 0, tier 1, ...         | ... |  what ticks publish
//	| exemplars: Exemplar[] 64 B each                   |  records with their traces, if there is room for any
//	+--------------------------------------------------+ TotalSize
//
// A segment is seen as []uint64: Words turns a mapping into one, and from
// there on slices check every bound. That function, View, Bytes and Address are the
// only unsafe in this module.
//
// The structs below are the format: their fields lie where FORMAT.md's tables
// say, which a test compares. They are used on private copies and on segments
// that have no name yet; memory that somebody else writes is loaded word by
// word.
package layout

// Version of the format, FORMAT.md 3.
const (
	Major = 1
	Minor = 0
)

// Magic is the first word of a segment: "SHMTS\r\n\x1a".
const Magic = 0x1a0a0d53544d4853

// Sizes of the structures, in bytes.
const (
	SuperblockSize   = 256
	SectionSize      = 32
	TableSize        = 256
	TierSize         = 32
	ControlSize      = 640
	TableControlSize = 64
	SeriesSize       = 64
	RowHeaderSize    = 64
	ExemplarSize     = 64
)

// Maxima, FORMAT.md 11. What a file says is held against these before it sizes anything.
const (
	MaxTotalSize    = 1 << 30
	MaxHeaderSize   = 65536
	MaxSections     = 64
	MaxTables       = 8
	MaxTiers        = 4
	MaxRows         = 65536
	MinRows         = 2
	MaxExemplars    = 4096
	MinExemplars    = 2
	MaxCells        = 1 << 20
	MaxLanes        = 64
	MaxSeries       = 1 << 20
	MaxPairs        = 64
	MaxLabelName    = 255
	MaxLabelValue   = 1023
	MaxName         = 255
	MaxUnit         = 63
	MaxHelp         = 1023
	MaxLabelsLength = 65535
	MaxBuckets      = 2048
	MaxScale        = 6
	MaxGroup        = 4
	MinStep         = 100_000_000
	MaxStep         = 3_600_000_000_000
	pageSize        = 4096
	lineSize        = 64
)

// Superblock is the segment's birth certificate. FORMAT.md 4.1.
type Superblock struct {
	Magic         uint64   // 0x00
	Major         uint16   // 0x08
	Minor         uint16   // 0x0a
	HeaderSize    uint32   // 0x0c  bytes under Checksum
	Compat        uint32   // 0x10
	Incompat      uint32   // 0x14
	TotalSize     uint64   // 0x18
	SegmentID     [16]byte // 0x20
	GroupID       [16]byte // 0x30  SegmentID of the incarnation's first segment
	BootID        [16]byte // 0x40
	BirthUnix     int64    // 0x50  ns
	BirthMono     int64    // 0x58  ns
	BirthError    uint64   // 0x60  ns
	Pid           uint32   // 0x68  information, never identity
	UID           uint32   // 0x6c  information, never identity
	PidNs         uint64   // 0x70
	Flags         uint32   // 0x78
	GroupIndex    uint32   // 0x7c
	SectionCount  uint32   // 0x80
	SectionOffset uint32   // 0x84
	Checksum      uint64   // 0x88
	Writer        [32]byte // 0x90
	ShadowOf      [16]byte // 0xb0  SegmentID of the sampled segment that this is the shadow of; zero: none
	Reserved      [64]byte // 0xc0
}

// FlagSampled in Superblock.Flags: the writer never ticks. FORMAT.md 10.8.
const FlagSampled = 1 << 0

// SectionType names what a section holds. FORMAT.md 4.2.
type SectionType uint32

// The section types of 1.0. SectionExemplars is there or not; readers pass over others.
const (
	SectionControl   SectionType = 1
	SectionTables    SectionType = 2
	SectionSource    SectionType = 3
	SectionSeries    SectionType = 4
	SectionHeap      SectionType = 5
	SectionLanes     SectionType = 6
	SectionRows      SectionType = 7
	SectionExemplars SectionType = 8
	SectionEvents    SectionType = 9 // reserved
)

// Section is one entry of the section table. FORMAT.md 4.2.
type Section struct {
	Type        SectionType // 0x00
	Count       uint32      // 0x04
	Offset      uint64      // 0x08
	Length      uint64      // 0x10
	ElementSize uint32      // 0x18
	Reserved    uint32      // 0x1c
}

// Table describes one table's place and shape. FORMAT.md 4.3.
type Table struct {
	Name           [16]byte       // 0x00
	Tiers          uint32         // 0x10
	Lanes          uint32         // 0x14  private lanes; the overflow lane follows them
	RowCells       uint32         // 0x18
	LaneCells      uint32         // 0x1c
	SharedCells    uint32         // 0x20
	LaneStride     uint32         // 0x24  bytes
	LanesOffset    uint64         // 0x28
	SharedOffset   uint64         // 0x30
	SeriesCapacity uint32         // 0x38
	Reserved0      uint32         // 0x3c
	Tier           [MaxTiers]Tier // 0x40
	Reserved       [64]byte       // 0xc0
}

// Tier is a ring of rows at one step. FORMAT.md 4.3.1.
type Tier struct {
	Step      uint64 // 0x00  ns
	Rows      uint32 // 0x08
	RowStride uint32 // 0x0c  bytes
	Offset    uint64 // 0x10  row slot 0
	Reserved  uint64 // 0x18
}

// Control is the block of words that change. FORMAT.md 5.
type Control struct {
	State            uint32                  // 0x00
	Epoch            uint32                  // 0x04
	Heartbeat        int64                   // 0x08  mono ns
	Ticks            uint64                  // 0x10
	SeriesUsed       uint32                  // 0x18
	HeapUsed         uint32                  // 0x1c
	DroppedSeries    uint64                  // 0x20
	OverflowThreads  uint64                  // 0x28
	RejectedRecords  uint64                  // 0x30
	ClockOffset      int64                   // 0x38  unix - mono ns
	ForkLosses       uint64                  // 0x40
	Exemplars        uint64                  // 0x48  numbers ever given to exemplars
	ExemplarsDropped uint64                  // 0x50  of those, that found their slot held
	Reserved         [40]byte                // 0x58
	Table            [MaxTables]TableControl // 0x80
}

// States of a segment, Control.State.
const (
	StateLive   = 1
	StateClosed = 2
)

// TableControl is the part of the control block that belongs to one table. FORMAT.md 5.1.
type TableControl struct {
	OpenRow         uint64           // 0x00
	RowCellsUsed    uint32           // 0x08
	LaneCellsUsed   uint32           // 0x0c
	SharedCellsUsed uint32           // 0x10
	Reserved0       uint32           // 0x14
	Head            [MaxTiers]uint64 // 0x18
	Changes         uint64           // 0x38  moves after a descriptor became live or retired
}

// Word numbers inside the control block and a table's part of it, for code
// that loads and stores live words. Two uint32 fields share a word, low first.
const (
	CtlState            = 0 // state, epoch
	CtlHeartbeat        = 0x08 / 8
	CtlTicks            = 0x10 / 8
	CtlUsed             = 0x18 / 8 // series_used, heap_used
	CtlDroppedSeries    = 0x20 / 8
	CtlOverflowThreads  = 0x28 / 8
	CtlRejectedRecords  = 0x30 / 8
	CtlClockOffset      = 0x38 / 8
	CtlForkLosses       = 0x40 / 8
	CtlExemplars        = 0x48 / 8
	CtlExemplarsDropped = 0x50 / 8
	CtlTables           = 0x80 / 8

	TctlWords      = TableControlSize / 8
	TctlOpenRow    = 0
	TctlCellsUsed  = 0x08 / 8 // row_cells_used, lane_cells_used
	TctlSharedUsed = 0x10 / 8
	TctlHead       = 0x18 / 8
	TctlChanges    = 0x38 / 8
)

// Series is a series descriptor. FORMAT.md 6.1.
type Series struct {
	State        uint32 // 0x00  low 8 bits: life; high 24: generation
	Kind         Kind   // 0x04
	Number       Number // 0x05
	Scale        int8   // 0x06
	Flags        uint8  // 0x07
	Table        uint16 // 0x08
	NameLength   uint16 // 0x0a
	UnitLength   uint16 // 0x0c
	HelpLength   uint16 // 0x0e
	Strings      uint32 // 0x10  heap offset of name, unit, help, labels
	LabelsLength uint32 // 0x14
	RowCell      uint32 // 0x18
	LaneCell     uint32 // 0x1c
	SharedCell   uint32 // 0x20
	Buckets      uint16 // 0x24
	BucketMin    int16  // 0x26
	BornUnix     int64  // 0x28
	BornRow      uint64 // 0x30
	RetiredRow   uint64 // 0x38
}

// The life of a descriptor, the low byte of Series.State. FORMAT.md 6.1.
const (
	SeriesFree    = 0
	SeriesFilling = 1
	SeriesLive    = 2
	SeriesRetired = 3
)

// FlagNonNegative in Series.Flags: no negative value is ever recorded.
const FlagNonNegative = 1 << 0

// Words of a descriptor that are stored while it lives.
const (
	SeriesWords       = SeriesSize / 8
	SeriesStateWord   = 0 // state, kind, number, scale, flags
	SeriesRetiredWord = 0x38 / 8
)

// RowHeader stands before a row's cells. FORMAT.md 8.1.
type RowHeader struct {
	Seq      uint64 // 0x00  odd while the writer is inside, or died inside
	RowNo    uint64 // 0x08  position in the tier since birth, from 1
	TBegin   int64  // 0x10  unix ns, where the window begins
	T        int64  // 0x18  unix ns
	TMono    int64  // 0x20  mono ns
	BaseRow  uint64 // 0x28
	Cells    uint32 // 0x30
	Epoch    uint16 // 0x34
	Flags    uint16 // 0x36
	Checksum uint64 // 0x38
}

// Flags of a row.
const (
	RowFinal     = 1 << 0 // the writer closed
	RowEstimated = 1 << 1 // made by a reader from the live cells of a dead writer
)

// Word numbers inside a row.
const (
	rowSeq      = 0
	rowNo       = 1
	rowChecksum = 7
	RowWords    = RowHeaderSize / 8
)
