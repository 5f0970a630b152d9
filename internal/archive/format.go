package archive

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/shmts/shmts/layout"
)

// Sizes of the structures of FORMAT.md 14 to 18, bytes, and what those sections call maxima.
const (
	tierHeaderArea   = 4096 // before the first extent
	TierHeaderSize   = 64
	ExtentHeaderSize = 64
	TrailerSize      = 64
	BlockHeaderSize  = 64
	SourceRecordSize = 88
	SourceRowsSize   = 48
	ExemplarPartSize = 24
	headSize         = 8  // u32 check, u32 reserved: before a rows block's source table
	markSize         = 16 // body of a mark
	schemaBodySize   = 24 // hash, length, reserved: before the DEFLATE stream

	minExtentSize = 64 << 10
	maxExtentSize = 16 << 20
	minExtents    = 2
	maxExtents    = 65536
	maxTiers      = 8
	maxOrdinals   = 1 << 20 // sources, and schemas, of an extent
	maxSources    = 1024    // of a rows block
	maxRows       = 65535   // of a source in a block
	maxRuns       = 1 << 24 // of a rows block
	maxCells      = 1 << 23 // of a source's field in a block
	maxExemplars  = 1 << 16 // of a block
	maxParts      = 1024    // of an exemplars block

	align = 8 // of blocks, and of what lies in them
)

// Magic numbers, versions, feature bits that this package knows.
const (
	tierMagic  = "SHMTA\r\n\x1a"
	tierMajor  = 1
	tierMinor  = 0
	blockMagic = 0x4b4c4253
)

// Block types. FORMAT.md 15.1.
const (
	blockSources = 1 + iota
	blockSchema
	blockRows
	blockMark
	blockIndex
	blockExemplars
)

const (
	flagFolded = 1 << 0 // of a rows block

	flagEphemeral = 1 << 0 // of a source

	flagFinal     = 1 << 0 // of a source's rows
	flagEstimated = 1 << 1
	flagCopied    = 1 << 2
	flagFalling   = 1 << 3
)

// The runs before the fields'. FORMAT.md 16.2.
const (
	runTimes = iota
	runNumbers
	runCoverage
	runStarts
	runMembers
	runFields
)

// The index's sections. FORMAT.md 18.
const (
	sectionFilter = iota
	sectionBlocks
	sectionSourceOffsets
	sectionSources
	sectionSchemas
	sectionIDs
	sectionPairOffsets
	sectionPairs
	sectionExemplars
	indexSections
)

const (
	indexEntrySize  = 16                               // offset, length, check, reserved: of a section
	indexHeadSize   = 8 + indexSections*indexEntrySize // before the sections
	blockEntrySize  = 32                               // of sections 1 and 8
	sourceEntrySize = 8                                // of section 2
	schemaEntrySize = 32                               // of section 4
	idEntrySize     = 20                               // of section 5
)

// TierHeader is a tier file's first 64 bytes. FORMAT.md 14.1.
type TierHeader struct {
	Magic      [8]byte  // 0x00
	Major      uint16   // 0x08
	Minor      uint16   // 0x0a
	Compat     uint32   // 0x0c
	Incompat   uint32   // 0x10
	ExtentSize uint32   // 0x14
	Step       uint64   // 0x18  ns
	ArchiveID  [16]byte // 0x20
	Created    int64    // 0x30  unix ns
	Reserved   uint32   // 0x38
	Check      uint32   // 0x3c  plain CRC-32 of what is before it
}

// ExtentHeader begins an extent. FORMAT.md 14.3.
type ExtentHeader struct {
	Generation uint64   // 0x00  0: the extent is empty
	Opened     int64    // 0x08  unix ns
	Reserved   [44]byte // 0x10
	Check      uint32   // 0x3c
}

// Trailer ends a sealed extent. FORMAT.md 14.4.
type Trailer struct {
	IndexOffset    uint32 // 0x00
	IndexLength    uint32 // 0x04
	Sources        uint32 // 0x08
	Schemas        uint32 // 0x0c
	Blocks         uint32 // 0x10
	Exemplars      uint32 // 0x14  blocks of them
	TMin           int64  // 0x18  ms
	TMax           int64  // 0x20
	MarkGeneration uint64 // 0x28
	MarkOffset     uint64 // 0x30
	Reserved       uint32 // 0x38
	Check          uint32 // 0x3c
}

// BlockHeader begins a block. FORMAT.md 15.1.
type BlockHeader struct {
	Magic     uint32 // 0x00
	Type      uint16 // 0x04
	Flags     uint16 // 0x06
	Length    uint32 // 0x08  with the header
	BodyCheck uint32 // 0x0c
	First     uint32 // 0x10  an ordinal
	Count     uint32 // 0x14
	Step      uint64 // 0x18  ns
	TMin      int64  // 0x20  ms
	TMax      int64  // 0x28
	Runs      uint32 // 0x30
	Head      uint32 // 0x34  bytes
	Reserved  uint32 // 0x38
	Check     uint32 // 0x3c
}

// SourceRecord is a source without its labels. FORMAT.md 15.2.
type SourceRecord struct {
	SegmentID   [16]byte // 0x00
	GroupID     [16]byte // 0x10
	BootID      [16]byte // 0x20
	BirthUnix   int64    // 0x30  ns
	Inode       uint64   // 0x38
	Epoch       uint32   // 0x40
	Copy        uint32   // 0x44
	UID         uint32   // 0x48
	Flags       uint32   // 0x4c
	ListsLength uint32   // 0x50
	Reserved    uint32   // 0x54
}

// SourceRows is one source in a rows block. FORMAT.md 16.1.
type SourceRows struct {
	Source  uint32 // 0x00  ordinal
	Rows    uint16 // 0x04
	Flags   uint16 // 0x06
	FirstNo uint64 // 0x08
	LastNo  uint64 // 0x10
	BaseNo  uint64 // 0x18
	TFirst  int64  // 0x20  ms
	TLast   int64  // 0x28
}

// ExemplarPart is one source's exemplars in an exemplars block, of series of one schema. FORMAT.md 16.3.
type ExemplarPart struct {
	Source    uint32 // 0x00  ordinal
	Schema    uint32 // 0x04  ordinal
	Exemplars uint32 // 0x08
	End       uint32 // 0x0c  of its run, from the end of the head
	LastNo    uint64 // 0x10
}

var le = binary.LittleEndian

// decode reads the structure at the front of b, which is as large at least.
func decode[T any](b []byte) (v T) {
	if _, err := binary.Decode(b, le, &v); err != nil {
		panic(err) // b is shorter: who calls has looked
	}
	return v
}

// appendTo appends a structure.
func appendTo[T any](b []byte, v *T) []byte {
	b, err := binary.Append(b, le, v)
	if err != nil {
		panic(err) // T has no fixed size
	}
	return b
}

// decodeSourceRows and decodeBlockHeader are decode without reflection: a Select reads many.
func decodeSourceRows(b []byte) SourceRows {
	_ = b[SourceRowsSize-1]
	return SourceRows{Source: le.Uint32(b), Rows: le.Uint16(b[4:]), Flags: le.Uint16(b[6:]), FirstNo: le.Uint64(b[8:]), LastNo: le.Uint64(b[16:]),
		BaseNo: le.Uint64(b[24:]), TFirst: int64(le.Uint64(b[32:])), TLast: int64(le.Uint64(b[40:]))}
}

func decodeBlockHeader(b []byte) BlockHeader {
	_ = b[BlockHeaderSize-1]
	return BlockHeader{Magic: le.Uint32(b), Type: le.Uint16(b[4:]), Flags: le.Uint16(b[6:]), Length: le.Uint32(b[8:]), BodyCheck: le.Uint32(b[12:]),
		First: le.Uint32(b[16:]), Count: le.Uint32(b[20:]), Step: le.Uint64(b[24:]), TMin: int64(le.Uint64(b[32:])), TMax: int64(le.Uint64(b[40:])),
		Runs: le.Uint32(b[48:]), Head: le.Uint32(b[52:]), Reserved: le.Uint32(b[56:]), Check: le.Uint32(b[60:])}
}

// A seed is the CRC of what stands before every checked byte of an extent: archive, step and generation. FORMAT.md 14.2.
type seed uint32

func newSeed(id [16]byte, step, generation uint64) seed {
	var b [32]byte
	copy(b[:], id[:])
	le.PutUint64(b[16:], step)
	le.PutUint64(b[24:], generation)
	return seed(crc32.ChecksumIEEE(b[:]))
}

// check is the check of bytes that begin at an offset of the extent.
func (s seed) check(offset uint32, b []byte) uint32 {
	var o [8]byte
	le.PutUint64(o[:], uint64(offset))
	return crc32.Update(crc32.Update(uint32(s), crc32.IEEETable, o[:]), crc32.IEEETable, b)
}

// checked tells whether the 64 bytes of b, which begin at an offset, end in the check of those before.
func (s seed) checked(offset uint32, b []byte) bool {
	return s.check(offset, b[:60]) == le.Uint32(b[60:64])
}

// sign puts the check of 60 bytes behind them.
func (s seed) sign(offset uint32, b []byte) {
	le.PutUint32(b[60:64], s.check(offset, b[:60]))
}

func aligned[T int | uint32](n T) T { return (n + align - 1) &^ (align - 1) }

// pad appends zeros up to the next multiple of 8 of what was appended since length from.
func pad(b []byte, from int) []byte {
	for (len(b)-from)%align != 0 {
		b = append(b, 0)
	}
	return b
}

// checkTierHeader holds a tier file's first bytes against FORMAT.md 14.1.
func checkTierHeader(b []byte) (TierHeader, error) {
	if len(b) < TierHeaderSize {
		return TierHeader{}, fmt.Errorf("tier header: want %d bytes, got %d", TierHeaderSize, len(b))
	}
	h := decode[TierHeader](b)
	bad := func(field string, want, got any) (TierHeader, error) {
		return TierHeader{}, fmt.Errorf("tier header: %s: want %v, got %v", field, want, got)
	}
	switch sum := crc32.ChecksumIEEE(b[:60]); {
	case string(h.Magic[:]) != tierMagic:
		return bad("magic", fmt.Sprintf("%q", tierMagic), fmt.Sprintf("%q", h.Magic[:]))
	case h.Major != tierMajor:
		return bad("major", tierMajor, h.Major)
	case h.Check != sum:
		return bad("check", fmt.Sprintf("%#x", sum), fmt.Sprintf("%#x", h.Check))
	case h.Incompat != 0:
		return bad("incompat", "no bits", fmt.Sprintf("%#x", h.Incompat))
	case h.ExtentSize < minExtentSize || h.ExtentSize > maxExtentSize || h.ExtentSize%4096 != 0:
		return bad("extent_size", fmt.Sprintf("a multiple of 4096 from %d to %d", minExtentSize, maxExtentSize), h.ExtentSize)
	case h.Step < 1e8 || h.Step > 3.6e12:
		return bad("step", "100000000 to 3600000000000", h.Step)
	}
	return h, nil
}

// checkBlockHeader reads the header of the block at an offset of an extent, and tells whether it is one. No block reaches beyond limit.
func (s seed) checkBlockHeader(offset uint32, b []byte, limit uint32) (BlockHeader, bool) {
	if len(b) < BlockHeaderSize || le.Uint32(b) != blockMagic {
		return BlockHeader{}, false
	}
	h := decodeBlockHeader(b)
	if h.Length < BlockHeaderSize || h.Length%align != 0 || uint64(offset)+uint64(h.Length) > uint64(limit) || !s.checked(offset, b) {
		return BlockHeader{}, false
	}
	return h, true
}

// finish makes a block of b, whose body is there: it fills in the header's magic, length and checks, and puts it in front.
func (s seed) finish(b []byte, offset uint32, h *BlockHeader) {
	h.Magic, h.Length = blockMagic, uint32(len(b))
	h.BodyCheck = s.check(offset+BlockHeaderSize, b[BlockHeaderSize:])
	appendTo(b[:0], h)
	s.sign(offset, b)
}

// appendSource appends a record and its lists, to a multiple of 8. FORMAT.md 15.2.
func appendSource(b []byte, s *Source) ([]byte, error) {
	from := len(b)
	r := SourceRecord{SegmentID: s.Segment, GroupID: s.Group, BootID: s.Boot, BirthUnix: s.Birth, Inode: s.Inode, Epoch: s.Epoch, Copy: s.Copy, UID: uint32(s.UID)}
	if s.Ephemeral {
		r.Flags |= flagEphemeral
	}
	b = appendTo(b, &r)
	var err error
	if b, err = layout.AppendPairs(b, s.Labels); err == nil {
		b, err = layout.AppendPairs(b, s.Attributes)
	}
	lists := len(b) - from - SourceRecordSize
	if err == nil && lists > 65535 {
		err = fmt.Errorf("want at most 65535 bytes of labels and attributes, got %d", lists)
	}
	if err != nil {
		return b[:from], fmt.Errorf("shmts: archive: source %x: %w", s.Segment, err)
	}
	le.PutUint32(b[from+0x50:], uint32(lists))
	return pad(b, from), nil
}

// sourceLists cuts the record at the front of b: its pair lists as they lie there, and what is behind it.
func sourceLists(b []byte) (lists, rest []byte, err error) {
	if len(b) < SourceRecordSize {
		return nil, nil, errShort
	}
	n := le.Uint32(b[0x50:])
	if n < 4 || n > 65535 {
		return nil, nil, fmt.Errorf("lists_length: want 4 to 65535, got %d", n)
	}
	end := aligned(SourceRecordSize + int(n))
	if end > len(b) {
		return nil, nil, errShort
	}
	return b[SourceRecordSize : SourceRecordSize+int(n)], b[end:], nil
}

// cutSource reads the record and lists at the front of b, and answers what is behind them. FORMAT.md 15.2.
func cutSource(b []byte) (s *Source, rest []byte, err error) {
	lists, rest, err := sourceLists(b)
	if err != nil {
		return nil, nil, err
	}
	s = &Source{Key: keyOf(b), Group: [16]byte(b[0x10:]), Boot: [16]byte(b[0x20:]), Birth: int64(le.Uint64(b[0x30:])), Inode: le.Uint64(b[0x38:]),
		UID: int(le.Uint32(b[0x48:])), Ephemeral: le.Uint32(b[0x4c:])&flagEphemeral != 0} // not by reflection: a Select reads many
	var left []byte
	if s.Labels, left, err = layout.CutPairs(lists); err == nil {
		s.Attributes, left, err = layout.CutPairs(left)
	}
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("lists_length: want %d, got %d", len(lists)-len(left), len(lists))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("source %x: %w", b[:16], err)
	}
	return s, rest, nil
}

// keyOf is the key of the record at the front of b.
func keyOf(record []byte) Key {
	return Key{[16]byte(record), le.Uint32(record[0x40:]), le.Uint32(record[0x44:])}
}

// eachPair calls f with each pair of the list at the front of b, and answers what is behind it. Nothing is copied or held against
// UTF-8: it is for lists that cutSource has accepted, or to look something up.
func eachPair(b []byte, f func(name, value []byte)) (rest []byte, err error) {
	if len(b) < 2 {
		return nil, errShort
	}
	n := le.Uint16(b)
	b = b[2:]
	for range n {
		if len(b) < 4 {
			return nil, errShort
		}
		x, y := int(le.Uint16(b)), int(le.Uint16(b[2:]))
		b = b[4:]
		if x+y > len(b) {
			return nil, errShort
		}
		if y > 0 { // else it means the same as none
			f(b[:x:x], b[x:x+y:x+y])
		}
		b = b[x+y:]
	}
	return b, nil
}

// sectionEntry says where in an index's body a section lies. FORMAT.md 18.
type sectionEntry struct{ Offset, Length, Check, Reserved uint32 }

// cutSections reads the front of an index's body, which is length bytes, and holds it against those.
func cutSections(b []byte, length uint32) (all [indexSections]sectionEntry, err error) {
	if len(b) < indexHeadSize {
		return all, errShort
	}
	if n := le.Uint32(b); n != indexSections {
		return all, fmt.Errorf("sections: want %d, got %d", indexSections, n)
	}
	for i := range all {
		e := b[8+i*indexEntrySize:]
		all[i] = sectionEntry{le.Uint32(e), le.Uint32(e[4:]), le.Uint32(e[8:]), le.Uint32(e[12:])}
		if o, n := all[i].Offset, all[i].Length; o < indexHeadSize || o%align != 0 || uint64(o)+uint64(n) > uint64(length) {
			return all, fmt.Errorf("section %d: want it inside %d to %d, got %d + %d", i, indexHeadSize, length, o, n)
		}
	}
	return all, nil
}

// Keys of the filter and of pairs: FNV-1a. FORMAT.md 18.
const (
	fnvOffset = 0xcbf29ce484222325
	fnvPrime  = 0x100000001b3
)

func fnv[T string | []byte](h uint64, b T) uint64 {
	for i := range len(b) {
		h = (h ^ uint64(b[i])) * fnvPrime
	}
	return h
}

// segmentKey and pairKey are the filter's keys.
func segmentKey(id [16]byte) uint64 { return fnv(fnvOffset, id[:]) }

func pairKey[T string | []byte](name, value T) uint64 {
	return fnv(fnv(fnvOffset, name)*fnvPrime, value) // * fnvPrime: a zero byte
}

const filterProbes = 7

// filterAdd sets a key's bits in a filter.
func filterAdd(filter []byte, h uint64) {
	bits, step := uint64(len(filter))*8, h>>32|1
	for range filterProbes {
		b := h % bits
		filter[b/8] |= 1 << (b % 8)
		h += step
	}
}

// filterHas tells whether a filter may have been told the key. An empty one may.
func filterHas(filter []byte, h uint64) bool {
	bits, step := uint64(len(filter))*8, h>>32|1
	if bits == 0 {
		return true
	}
	for range filterProbes {
		b := h % bits
		if filter[b/8]&(1<<(b%8)) == 0 {
			return false
		}
		h += step
	}
	return true
}

// rowsHead is a rows block's head. FORMAT.md 16.
type rowsHead struct {
	sources []SourceRows
	ends    []uint32 // of the runs, counted from the end of the head
}

// headLength is how long the head of a block of so many sources and runs is.
func headLength(sources, runs int) int { return headSize + sources*SourceRowsSize + runs*4 }

// cutRowsHead reads the head of the rows block at an offset, and holds it against itself and the block's header: whether its ordinals are
// any source's, and the runs as many as the schema wants, is for the caller to say.
func (s seed) cutRowsHead(offset uint32, h *BlockHeader, head []byte) (rowsHead, error) {
	bad := func(field string, want, got any) (rowsHead, error) {
		return rowsHead{}, fmt.Errorf("%s: want %v, got %v", field, want, got)
	}
	switch {
	case h.Type != blockRows:
		return bad("type", blockRows, h.Type)
	case h.Count < 1 || h.Count > maxSources:
		return bad("count", fmt.Sprintf("1 to %d", maxSources), h.Count)
	case h.Runs < runFields || h.Runs > maxRuns:
		return bad("runs", fmt.Sprintf("%d to %d", runFields, maxRuns), h.Runs)
	case uint64(h.Head) != uint64(headLength(int(h.Count), int(h.Runs))):
		return bad("head", headLength(int(h.Count), int(h.Runs)), h.Head)
	case uint64(h.Head) > uint64(h.Length-BlockHeaderSize):
		return bad("head", fmt.Sprintf("at most %d", h.Length-BlockHeaderSize), h.Head)
	case len(head) < int(h.Head):
		return bad("head", h.Head, len(head))
	}
	head = head[:h.Head]
	if sum := s.check(offset+BlockHeaderSize+4, head[4:]); sum != le.Uint32(head) {
		return bad("check of the head", fmt.Sprintf("%#x", sum), fmt.Sprintf("%#x", le.Uint32(head)))
	}
	r := rowsHead{make([]SourceRows, h.Count), make([]uint32, h.Runs)}
	for i := range r.sources {
		r.sources[i] = decodeSourceRows(head[headSize+i*SourceRowsSize:])
		if r.sources[i].Rows == 0 {
			return bad("rows", "at least 1", 0)
		}
	}
	before, room := uint32(0), h.Length-BlockHeaderSize-h.Head
	for i := range r.ends {
		end := le.Uint32(head[headSize+len(r.sources)*SourceRowsSize+4*i:])
		if end < before || end > room || end != before && end-before < 4 {
			return bad(fmt.Sprintf("end of run %d", i), fmt.Sprintf("%d, or %d to %d", before, before+4, room), end)
		}
		r.ends[i], before = end, end
	}
	return r, nil
}
