package export

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/failpoint"
)

// Positions are kept in one file for each destination, which is only ever appended to, and written anew when most of it is history:
//
//	header, 64 bytes   magic "SHMTX\r\n\x1a" · u32 version · u32 0 · archive id (16) · i64 born, unix ns · zeros · u32 CRC-32 of the 60 bytes before
//	record             u32 length of the payload · u32 CRC-32 of the record's offset (u64) and the payload · payload
//	payload            entries, all of which hold, or none:
//	                     1 define   segment id (16) · uvarint inode · uvarint table: the next ordinal is theirs, from 0
//	                     2 advance  varint ordinal less the last one in the payload · uvarint and varint: what is added to base, and to time (ms)
//	                     3 epoch    uvarint ordinal · uvarint epoch · varint start (ms)
//	                     4 done     uvarint ordinal: everything was sent, its end included
//	                     5 forget   uvarint ordinal
//	                     6 mark     uvarint step (ms) · uvarint generation · uvarint offset: of the archive's tier
//	                     7 rewind   uvarint ordinal: base and time are 0
//	                     8 exemplar uvarint ordinal · uvarint number of the last exemplar of the segment that was sent or passed over
//
// Integers are little-endian. The file is read up to the first record that is not as its check says; what is behind it is cut off. A record is
// written once the receiver has answered, so that a file that lost its end has older positions, never newer ones: something is sent
// again, nothing is left out.

const (
	positionsMagic   = "SHMTX\r\n\x1a"
	positionsVersion = 1
	positionsHeader  = 64
	recordHeader     = 8
	maxRecord        = 16 << 20

	entryDefine  = 1
	entryAdvance = 2
	entryEpoch   = 3
	entryDone    = 4
	entryForget  = 5
	entryMark    = 6
	entryRewind  = 7
	entryTraced  = 8
)

// key names a table of a file.
type key struct {
	segment [16]byte
	ino     uint64
	table   int
}

// position is how far a table was sent: as of the request that is being filled. What is on the disk is as of the last one that was answered.
type position struct {
	key
	base    uint64 // number of the last row of tier 0 that what was sent tells of
	time    int64  // of the last row sent, unix ns, whole milliseconds
	epoch   uint16
	started bool  // there is an epoch
	start   int64 // of the epoch, if it began a new stream, unix ns
	done    bool  // its end was sent, too

	exemplar uint64 // number of the last one of the segment that was sent, or is of another table

	whole   bool   // the first row that was looked at is the first of all
	passed  bool   // the cursor went by its end
	at      uint64 // base of the last row of the archive that was looked at, if that is behind base
	looked  int64  // time of the last row of the archive that was looked at, unix ns
	ordinal int    // in the file, -1: not there
	wrote   struct {
		base     uint64
		ms       int64
		exemplar uint64
	}
}

// reached is up to where rows of the archive were sent or passed over.
func (p *position) reached() uint64 { return max(p.base, p.at) }

// move is what a request means for a position, once it is answered.
type move struct {
	*position
	base     uint64
	time     int64
	exemplar uint64
	epoch    bool // and start
	done     bool
}

// positions are those of one destination.
type positions struct {
	path string // empty: in memory alone
	log  *slog.Logger
	f    *os.File
	lock interface{ Close() error }

	id    [16]byte // of the archive that marks are of
	born  int64    // when the destination was seen first, unix ns
	fresh bool     // that was now
	other bool     // marks were of another archive
	known map[key]*position
	named map[key]*position // by segment and table, inode 0
	marks map[int64]archive.Mark
	next  int // ordinal

	size    int64
	unsyncd bool
	broken  bool // what was written last is perhaps not whole: it is all to be written anew
	buf     []byte
	last    int // ordinal, in the payload

	records, failures uint64
}

// openPositions reads a destination's positions, or begins to keep some. An error is the system's, or says that the file is of another version.
func openPositions(path string, id [16]byte, now int64, log *slog.Logger) (*positions, error) {
	p := &positions{path: path, log: log, id: id, born: now, known: map[key]*position{}, named: map[key]*position{}, marks: map[int64]archive.Mark{}}
	if path == "" {
		return p, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("shmts: export: positions: %w", err)
	}
	var err error
	if p.lock, err = archive.SystemFiles().Lock(path + ".lock"); err != nil {
		return nil, fmt.Errorf("shmts: export: positions: %w", err)
	}
	if err = p.read(); err != nil {
		return nil, errors.Join(err, p.lock.Close())
	}
	return p, nil
}

func (p *positions) read() error {
	b, err := os.ReadFile(p.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("shmts: export: positions: %w", err)
	}
	if len(b) < positionsHeader || crc32.ChecksumIEEE(b[:60]) != binary.LittleEndian.Uint32(b[60:]) {
		if len(b) > 0 {
			p.log.Warn("positions can't be read: export begins anew", "file", p.path, "err", fmt.Errorf("want a header of %d bytes that is as its check says, got %d bytes", positionsHeader, len(b)))
		}
		p.fresh = true
		return p.rewrite()
	}
	if v := binary.LittleEndian.Uint32(b[8:]); string(b[:8]) != positionsMagic || v != positionsVersion {
		return fmt.Errorf("shmts: export: positions: %s: want %q, version %d, got %q, version %d: another shmtsd wrote it; remove it to begin anew", p.path, positionsMagic, positionsVersion, b[:8], v)
	}
	id := [16]byte(b[16:])
	if p.id == ([16]byte{}) { // it is not there yet, or no more
		p.id = id
	}
	sameArchive := id == p.id
	p.born = int64(binary.LittleEndian.Uint64(b[32:]))
	var all []*position // by ordinal
	off := positionsHeader
	for off+recordHeader <= len(b) {
		n := int(binary.LittleEndian.Uint32(b[off:]))
		if n > maxRecord || n > len(b)-off-recordHeader {
			break
		}
		payload := b[off+recordHeader:][:n]
		if recordCheck(int64(off), payload) != binary.LittleEndian.Uint32(b[off+4:]) {
			break
		}
		var ok bool
		if all, ok = p.apply(all, payload); !ok {
			break
		}
		off += recordHeader + n
	}
	if off < len(b) {
		p.log.Warn("positions: the end of the file is not whole, and cut off: what was sent last may be sent again", "file", p.path, "bytes", len(b)-off)
	}
	p.next = len(all)
	p.size = int64(off)
	if p.other = !sameArchive; p.other {
		clear(p.marks)
	}
	if p.f, err = os.OpenFile(p.path, os.O_RDWR|unix.O_NOFOLLOW, 0o640); err == nil {
		err = p.f.Truncate(p.size)
	}
	if err != nil {
		return fmt.Errorf("shmts: export: positions: %w", err)
	}
	if !sameArchive {
		return p.rewrite()
	}
	return nil
}

func recordCheck(off int64, payload []byte) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(off))
	return crc32.Update(crc32.ChecksumIEEE(b[:]), crc32.IEEETable, payload)
}

// apply does what a payload says. False: it is not one.
func (p *positions) apply(all []*position, b []byte) ([]*position, bool) {
	bad := false
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	varint := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	at := func(i uint64) *position {
		if i >= uint64(len(all)) || all[i] == nil {
			bad = true
			return &position{}
		}
		return all[i]
	}
	last := int64(0)
	for len(b) > 0 && !bad {
		kind := b[0]
		b = b[1:]
		switch kind {
		case entryDefine:
			if len(b) < 16 {
				return all, false
			}
			k := key{segment: [16]byte(b)}
			b = b[16:]
			k.ino, k.table = uvarint(), int(uvarint())
			q := p.add(k)
			q.ordinal = len(all)
			all = append(all, q)
		case entryAdvance:
			last += varint()
			q := at(uint64(last))
			q.base += uvarint()
			q.time += varint() * 1e6
			q.wrote.base, q.wrote.ms = q.base, q.time/1e6
		case entryEpoch:
			q := at(uvarint())
			q.epoch, q.started = uint16(uvarint()), true
			q.start = varint() * 1e6
		case entryDone:
			at(uvarint()).done = true
		case entryForget:
			i := uvarint()
			p.drop(at(i))
			if !bad {
				all[i] = nil
			}
		case entryMark:
			step := int64(uvarint())
			p.marks[step] = archive.Mark{Generation: uvarint(), Offset: uvarint()}
		case entryRewind:
			q := at(uvarint())
			q.base, q.time, q.done = 0, 0, false
			q.wrote.base, q.wrote.ms = 0, 0
		case entryTraced:
			q := at(uvarint())
			q.exemplar = uvarint()
			q.wrote.exemplar = q.exemplar
		default:
			return all, false
		}
	}
	return all, !bad
}

// archiveIs says which archive marks are of, where that was not known at the start.
func (p *positions) archiveIs(id [16]byte) {
	if p.id == id {
		return
	}
	p.other = p.id != [16]byte{}
	p.id, p.broken = id, true // the header is to be written anew
	clear(p.marks)
}

// of is a table's position, nil if there is none.
func (p *positions) of(k key) *position { return p.known[k] }

// ofName is one of a table of a segment, whatever its inode, nil if there is none.
func (p *positions) ofName(segment [16]byte, table int) *position {
	return p.named[key{segment: segment, table: table}]
}

// add makes a position for a table that has none.
func (p *positions) add(k key) *position {
	q := &position{key: k, ordinal: -1}
	p.known[k] = q
	p.named[key{segment: k.segment, table: k.table}] = q
	return q
}

func (p *positions) drop(q *position) {
	if p.known[q.key] == q {
		delete(p.known, q.key)
	}
	if n := (key{segment: q.segment, table: q.table}); p.named[n] == q {
		delete(p.named, n)
	}
}

// forget drops a position, in the file with the next commit.
func (p *positions) forget(q *position) {
	p.drop(q)
	if q.ordinal >= 0 {
		p.buf = binary.AppendUvarint(append(p.buf, entryForget), uint64(q.ordinal))
		q.ordinal = -1
	}
}

// mark notes a place in the archive's tier of a step, in the file with the next commit.
func (p *positions) mark(step time.Duration, m archive.Mark) {
	if was, ok := p.marks[step.Milliseconds()]; ok && was == m {
		return
	}
	p.marks[step.Milliseconds()] = m
	p.appendMark(step.Milliseconds(), m)
}

func (p *positions) appendMark(ms int64, m archive.Mark) {
	p.buf = binary.AppendUvarint(append(p.buf, entryMark), uint64(ms))
	p.buf = binary.AppendUvarint(binary.AppendUvarint(p.buf, m.Generation), m.Offset)
}

// define gives a position an ordinal.
func (p *positions) define(q *position) {
	if q.ordinal >= 0 {
		return
	}
	q.ordinal = p.next
	p.next++
	q.wrote.base, q.wrote.ms, q.wrote.exemplar = 0, 0, 0
	p.buf = append(append(p.buf, entryDefine), q.segment[:]...)
	p.buf = binary.AppendUvarint(binary.AppendUvarint(p.buf, q.ino), uint64(q.table))
}

// moved notes what an answered request means, for the next commit.
func (p *positions) moved(m *move) {
	if p.path == "" {
		return
	}
	q := m.position
	p.define(q)
	if m.base < q.wrote.base { // it was rewound
		p.buf = binary.AppendUvarint(append(p.buf, entryRewind), uint64(q.ordinal))
		q.wrote.base, q.wrote.ms = 0, 0
	}
	ms := m.time / 1e6
	p.buf = binary.AppendVarint(append(p.buf, entryAdvance), int64(q.ordinal-p.last))
	p.last = q.ordinal
	p.buf = binary.AppendUvarint(p.buf, m.base-q.wrote.base)
	p.buf = binary.AppendVarint(p.buf, ms-q.wrote.ms)
	q.wrote.base, q.wrote.ms = m.base, ms
	if m.exemplar != q.wrote.exemplar {
		p.buf = binary.AppendUvarint(append(p.buf, entryTraced), uint64(q.ordinal))
		p.buf = binary.AppendUvarint(p.buf, m.exemplar)
		q.wrote.exemplar = m.exemplar
	}
	if m.epoch {
		p.appendEpoch(q)
	}
	if m.done {
		p.buf = binary.AppendUvarint(append(p.buf, entryDone), uint64(q.ordinal))
	}
}

func (p *positions) appendEpoch(q *position) {
	p.buf = binary.AppendUvarint(append(p.buf, entryEpoch), uint64(q.ordinal))
	p.buf = binary.AppendUvarint(p.buf, uint64(q.epoch))
	p.buf = binary.AppendVarint(p.buf, q.start/1e6)
}

// commit writes what was noted. It outlives this process when it returns, and a loss of power after the next sync. Where the disk fails it
// is said once, counted, and all is written anew the next time.
func (p *positions) commit() {
	if p.path == "" {
		p.buf = p.buf[:0]
		return
	}
	if len(p.buf) == 0 && !p.broken {
		return
	}
	failpoint.Here("export.position.begun")
	var err error
	if p.broken || p.size > 64<<10+256*int64(len(p.known)) || len(p.buf) > maxRecord {
		err = p.rewrite()
	} else {
		b := make([]byte, recordHeader, recordHeader+len(p.buf))
		binary.LittleEndian.PutUint32(b, uint32(len(p.buf)))
		binary.LittleEndian.PutUint32(b[4:], recordCheck(p.size, p.buf))
		b = append(b, p.buf...)
		if err = failpoint.Fails("export.position.write"); err == nil {
			_, err = p.f.WriteAt(b, p.size)
		}
		if err == nil {
			p.size += int64(len(b))
			p.records++
			p.unsyncd = true
		}
	}
	p.buf, p.last = p.buf[:0], 0
	failpoint.Here("export.position.written")
	p.failed(err)
}

func (p *positions) failed(err error) {
	if err != nil {
		p.failures++
		if !p.broken {
			p.log.Error("positions can't be kept: after a restart what was sent since is sent again", "file", p.path, "err", err)
		}
	}
	p.broken = err != nil
}

// rewrite writes all positions into a new file.
func (p *positions) rewrite() error {
	h := make([]byte, positionsHeader)
	copy(h, positionsMagic)
	binary.LittleEndian.PutUint32(h[8:], positionsVersion)
	copy(h[16:], p.id[:])
	binary.LittleEndian.PutUint64(h[32:], uint64(p.born))
	binary.LittleEndian.PutUint32(h[60:], crc32.ChecksumIEEE(h[:60]))
	out := bytes.NewBuffer(h)
	p.buf, p.last, p.next = p.buf[:0], 0, 0
	flush := func() {
		if len(p.buf) == 0 {
			return
		}
		var r [recordHeader]byte
		binary.LittleEndian.PutUint32(r[:], uint32(len(p.buf)))
		binary.LittleEndian.PutUint32(r[4:], recordCheck(int64(out.Len()), p.buf))
		out.Write(r[:])
		out.Write(p.buf)
		p.buf, p.last = p.buf[:0], 0
	}
	for ms, m := range p.marks {
		p.appendMark(ms, m)
	}
	for _, q := range p.known {
		if q.ordinal = -1; q.base == 0 {
			continue
		}
		p.moved(&move{position: q, base: q.base, time: q.time, exemplar: q.exemplar, epoch: q.started, done: q.done})
		if len(p.buf) > maxRecord/2 {
			flush()
		}
	}
	flush()
	temporary := p.path + ".new"
	f, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o640)
	if err == nil {
		if err = failpoint.Fails("export.position.write"); err == nil {
			_, err = f.Write(out.Bytes())
		}
		if err == nil {
			err = unix.Fdatasync(int(f.Fd()))
		}
		failpoint.Here("export.position.renaming")
		if err == nil {
			err = os.Rename(temporary, p.path)
		}
		if err == nil {
			err = archive.SystemFiles().SyncDir(filepath.Dir(p.path))
		}
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		return fmt.Errorf("shmts: export: positions: %w", err)
	}
	if p.f != nil {
		p.f.Close()
	}
	p.f, p.size, p.unsyncd = f, int64(out.Len()), false
	p.records++
	return nil
}

// sync makes what was written outlive a loss of power.
func (p *positions) sync() {
	if !p.unsyncd || p.broken {
		return
	}
	p.unsyncd = false
	if err := unix.Fdatasync(int(p.f.Fd())); err != nil {
		p.failed(os.NewSyscallError("fdatasync", err))
	}
}

func (p *positions) close() error {
	if p.path == "" {
		return nil
	}
	var err error
	if p.f != nil {
		p.sync()
		err = p.f.Close()
	}
	return errors.Join(err, p.lock.Close())
}
