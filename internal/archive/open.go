package archive

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"math/bits"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Archive is one on disk: see Open and OpenReader.
type Archive struct {
	dir   string
	files Files
	log   *slog.Logger
	now   func() time.Time
	id    [16]byte
	tiers []*tier // finest first

	lock     io.Closer // nil: another process writes it
	reuse    func(tier int, generation uint64)
	encoders []*encoder // that nobody uses
	reading  reading    // what those that read share

	errMu sync.Mutex
	err   error // why it is stopped
}

var errReadOnly = errors.New("shmts: archive: open for reading alone")

const tierSuffix = ".tier"

// Open opens the archive of a directory for writing, and makes what is missing of it.
//
// A tier whose budget has grown gets more extents. One whose budget has shrunk keeps its newest ones. Extents stay as large as they
// were when the tier was made. A tier that Options doesn't name any more is left alone: its file stays, is not read, and
// the log says so at each Open. It is there again when it is named again, and gone when somebody removes the file.
func Open(o Options) (*Archive, error) {
	a := &Archive{dir: o.Dir, files: o.Files, log: o.Logger, now: o.Now}
	if a.files == nil {
		a.files = SystemFiles()
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := a.files.MkdirAll(a.dir); err != nil {
		return nil, fmt.Errorf("shmts: archive: %w", err)
	}
	var err error
	if a.lock, err = a.files.Lock(filepath.Join(a.dir, "lock")); err != nil {
		if errors.Is(err, ErrLocked) {
			return nil, err
		}
		return nil, fmt.Errorf("shmts: archive: lock: %w", err)
	}
	if err = a.open(&o); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (o *Options) check() error {
	if n := len(o.Tiers); n < 1 || n > maxTiers {
		return fmt.Errorf("shmts: archive: tiers: want 1 to %d, got %d", maxTiers, n)
	}
	for i, t := range o.Tiers {
		switch size := o.extentSize(t); {
		case t.Step < 100*time.Millisecond || t.Step > time.Hour || t.Step%time.Millisecond != 0:
			return fmt.Errorf("shmts: archive: tier %d: step: want whole milliseconds, from 100ms to 1h, got %v", i, t.Step)
		case i > 0 && t.Step <= o.Tiers[i-1].Step:
			return fmt.Errorf("shmts: archive: tier %d: step: want more than %v, the one before, got %v", i, o.Tiers[i-1].Step, t.Step)
		case size < minExtentSize || size > maxExtentSize || size%4096 != 0:
			return fmt.Errorf("shmts: archive: extents: want a multiple of 4096 from %d to %d, got %d", minExtentSize, maxExtentSize, size)
		case t.Budget < least(size):
			return fmt.Errorf("shmts: archive: tier %v: budget: want at least %d bytes, %d extents of %d, got %d", t.Step, least(size), minExtents, size, t.Budget)
		}
	}
	return nil
}

// least is the least budget of a tier.
func least(extentSize int) int64 { return tierHeaderArea + minExtents*int64(extentSize) }

// extentSize is that of a tier that is made.
func (o *Options) extentSize(t TierOptions) int {
	if o.ExtentSize > 0 {
		return o.ExtentSize
	}
	n := min(max(t.Budget/16, minExtentSize), maxExtentSize)
	return 1 << (bits.Len64(uint64(n)) - 1)
}

// extents are as many as a budget allows.
func extents(budget int64, size uint32) int {
	return int(min((budget-tierHeaderArea)/int64(size), maxExtents))
}

// open opens or makes every tier.
func (a *Archive) open(o *Options) error {
	found, err := a.find()
	if err != nil {
		return err
	}
	for _, to := range o.Tiers {
		t := found[to.Step]
		delete(found, to.Step)
		if t == nil {
			if t, err = a.create(to, o.extentSize(to)); err != nil {
				return err
			}
		}
		a.tiers = append(a.tiers, t)
		if err := a.recover(t, to.Budget); err != nil {
			return err
		}
	}
	for step, t := range found {
		size, _ := t.file.Size()
		a.log.Warn("a tier that is not configured is left alone: name it again to read it, remove its file to free the space", "file", t.path, "step", step, "bytes", size)
		if err := t.file.Close(); err != nil {
			return fmt.Errorf("shmts: archive: %w", err)
		}
	}
	if err := a.files.SyncDir(a.dir); err != nil { // also of what a process made that was killed before it came to that
		return fmt.Errorf("shmts: archive: %w", err)
	}
	return nil
}

// find opens the tiers that there are. What was never finished is passed over, and removed by who writes.
func (a *Archive) find() (map[time.Duration]*tier, error) {
	names, err := a.files.List(a.dir)
	if err != nil {
		return nil, fmt.Errorf("shmts: archive: %w", err)
	}
	found := map[time.Duration]*tier{}
	fail := func(err error) (map[time.Duration]*tier, error) {
		for _, t := range found {
			err = errors.Join(err, t.file.Close())
		}
		return nil, err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, tierSuffix) {
			continue
		}
		t := &tier{path: filepath.Join(a.dir, name)}
		if a.lock == nil {
			t.file, err = a.files.OpenRead(t.path)
		} else {
			t.file, err = a.files.Open(t.path, false)
		}
		if err != nil {
			return fail(fmt.Errorf("shmts: archive: %w", err))
		}
		finished, err := t.readTierHeader()
		switch {
		case err == nil && !finished:
			err := t.file.Close()
			if a.lock != nil {
				err = errors.Join(err, a.files.Remove(t.path))
			}
			if err != nil {
				return fail(fmt.Errorf("shmts: archive: %w", err))
			}
			continue
		case err != nil:
		case a.id != [16]byte{} && a.id != t.header.ArchiveID:
			err = fmt.Errorf("want a tier of archive %x, as the others are, got one of %x", a.id, t.header.ArchiveID)
		case found[t.step()] != nil:
			err = fmt.Errorf("want one tier of %v, got %s as well", t.step(), found[t.step()].path)
		}
		if err != nil {
			return fail(errors.Join(fmt.Errorf("shmts: archive: %s: %w (moved out of the directory, it is begun anew)", t.path, err), t.file.Close()))
		}
		a.id = t.header.ArchiveID
		found[t.step()] = t
	}
	return found, nil
}

// readTierHeader reads a tier's header, and tells whether there is one: a file that was never finished has zeros there, and no extent.
func (t *tier) readTierHeader() (finished bool, err error) {
	b := make([]byte, tierHeaderArea+ExtentHeaderSize)
	n, err := t.file.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	if !slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		return false, nil
	}
	t.header, err = checkTierHeader(b[:n])
	return true, err
}

// create makes a tier's file: all of it allocated, its header last.
func (a *Archive) create(to TierOptions, extentSize int) (*tier, error) {
	if a.id == [16]byte{} {
		if _, err := rand.Read(a.id[:]); err != nil {
			return nil, err
		}
	}
	t := &tier{path: filepath.Join(a.dir, stepName(to.Step)+tierSuffix)}
	var err error
	if t.file, err = a.files.Open(t.path, true); err != nil {
		return nil, fmt.Errorf("shmts: archive: %w", err)
	}
	if finished, err := t.readTierHeader(); finished || err != nil { // by another name it would have been found
		return nil, errors.Join(fmt.Errorf("shmts: archive: %s: want a tier of %v, as its name says, got one of %v: %w", t.path, to.Step, t.step(), err), t.file.Close())
	}
	if err := a.fill(t, to, extentSize); err != nil { // what was allocated is given back
		return nil, errors.Join(fmt.Errorf("shmts: archive: %s: make a tier of %d bytes: %w", t.path, to.Budget, err), t.file.Close(), a.files.Remove(t.path))
	}
	return t, nil
}

// stepName is a step as Prometheus writes durations: 1s, 1m30s, 100ms. (Its own package for that would bring protobuf, 2 MB, into
// everything that reads an archive.)
func stepName(d time.Duration) (name string) {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if n := d / u.unit; n > 0 {
			name += strconv.FormatInt(int64(n), 10) + u.name
			d -= n * u.unit
		}
	}
	return name
}

func (a *Archive) fill(t *tier, to TierOptions, extentSize int) error {
	t.header = TierHeader{Magic: [8]byte([]byte(tierMagic)), Major: tierMajor, Minor: tierMinor, ExtentSize: uint32(extentSize), Step: uint64(to.Step),
		ArchiveID: a.id, Created: a.now().UnixNano()}
	if err := t.file.Allocate(t.at(extents(to.Budget, t.size()))); err != nil {
		return err
	}
	if err := t.file.Sync(); err != nil {
		return err
	}
	b := appendTo(nil, &t.header)
	t.header.Check = crc32.ChecksumIEEE(b[:60])
	if _, err := t.file.WriteAt(appendTo(nil, &t.header), 0); err != nil {
		return err
	}
	return t.file.Sync()
}

// recover reads what a tier holds, and makes it as large as its budget says. FORMAT.md 19.3.
func (a *Archive) recover(t *tier, budget int64) error {
	want := extents(budget, t.size())
	if want < minExtents {
		return fmt.Errorf("shmts: archive: %s: budget: want at least %d bytes, %d extents of %d as they were made, got %d (the file moved out of the directory, the tier is begun anew)",
			t.path, least(int(t.size())), minExtents, t.size(), budget)
	}
	slots, err := t.read()
	if err != nil {
		return err
	}
	if len(slots) > want {
		if slots, err = a.shrink(t, slots, want); err != nil {
			return fmt.Errorf("shmts: archive: %s: from %d to %d extents: %w", t.path, len(slots), want, err)
		}
	}
	if err := t.file.Allocate(t.at(want)); err != nil { // holes, too, that a copy of the file may have
		if len(slots) < minExtents {
			return fmt.Errorf("shmts: archive: %s: allocate %d bytes: %w", t.path, t.at(want), err)
		}
		a.log.Error("a tier keeps its size, as there is no room", "tier", t.path, "want", t.at(want), "got", t.at(len(slots)), "err", err)
		if err := t.file.Truncate(t.at(len(slots))); err != nil {
			return fmt.Errorf("shmts: archive: %s: %w", t.path, err)
		}
		want = len(slots)
	}
	slots = append(slots, make([]*extent, want-len(slots))...)
	t.w.dirty = true
	t.publish(slots)
	return a.repeatMark(t)
}

// read reads all extents as they lie in the file, and finds out where the writer stands.
func (t *tier) read() ([]*extent, error) {
	n, err := t.slots()
	if err != nil {
		return nil, err
	}
	slots := make([]*extent, n)
	known := map[uint64]bool{}
	t.w = writing{busy: t.w.busy}
	lost := false
	for slot := range slots {
		h, state := t.headerState(slot)
		lost = lost || state == slotLost || state == slotError
		if state != slotUsed || known[h.Generation] { // of two extents of one generation the first counts
			continue
		}
		known[h.Generation] = true
		if slots[slot], err = t.load(slot, h); err != nil {
			return nil, err
		}
	}
	all := byGeneration(slots)
	if len(all) > 0 {
		last := all[len(all)-1]
		t.w.last = last.generation
		// The last extent's trailer was perhaps written and its index not, or blocks before it not: then the index is written again,
		// at the same place or before it. With a trailer, nothing more is appended.
		if b, err := last.readAt(last.limit(), TrailerSize); err == nil && last.seed.checked(last.limit(), b) {
			t.w.sealNext = true
			if last.trailer != nil && !last.agrees() {
				if err := last.unseal(); err != nil {
					return nil, err
				}
			}
		}
	}
	if lost { // a header that is gone may have had the next generation, and its blocks are still there
		t.w.last++
	}
	return slots, nil
}

// shrink keeps the newest extents: those behind the new end are moved to where the oldest ones are, which are evicted. Whenever it is
// interrupted, each of those that are kept is there once at least, whole.
func (a *Archive) shrink(t *tier, slots []*extent, want int) ([]*extent, error) {
	all := byGeneration(slots)
	keep := all[max(len(all)-want, 0):]
	oldest := uint64(0)
	if len(keep) > 0 {
		oldest = keep[0].generation
	}
	var free []int
	for slot := range want {
		if slots[slot] == nil || slots[slot].generation < oldest {
			free = append(free, slot)
		}
	}
	buf := make([]byte, min(1<<20, int(t.size())))
	zeros := make([]byte, ExtentHeaderSize)
	for _, e := range keep {
		if e.slot < want {
			continue
		}
		to := free[0]
		free = free[1:]
		if _, err := t.file.WriteAt(zeros, t.at(to)); err != nil {
			return slots, err
		}
		if err := t.file.Sync(); err != nil {
			return slots, err
		}
		for off := uint32(ExtentHeaderSize); off < t.size(); {
			b := buf[:min(len(buf), int(t.size()-off))]
			if err := e.readInto(b, off); err != nil {
				return slots, err
			}
			if _, err := t.file.WriteAt(b, t.at(to)+int64(off)); err != nil {
				return slots, err
			}
			off += uint32(len(b))
		}
		if err := t.file.Sync(); err != nil {
			return slots, err
		}
		header, err := e.readAt(0, ExtentHeaderSize)
		if err != nil {
			return slots, err
		}
		if _, err := t.file.WriteAt(header, t.at(to)); err != nil {
			return slots, err
		}
		if err := t.file.Sync(); err != nil {
			return slots, err
		}
		e.slot = to // nobody else has it yet
		slots[to] = e
	}
	for _, slot := range free {
		slots[slot] = nil
	}
	if err := t.file.Truncate(t.at(want)); err != nil {
		return slots, err
	}
	if evicted := len(all) - len(keep); evicted > 0 {
		a.log.Warn("a tier was made smaller", "tier", t.path, "extents", want, "evicted", evicted)
	}
	return slots[:want], t.file.Sync()
}

// ID implements Reader.
func (a *Archive) ID() [16]byte { return a.id }

// Tiers implements Reader.
func (a *Archive) Tiers() []Tier {
	if err := a.follow(); err != nil {
		a.log.Error("an archive can't be looked at", "err", err)
	}
	out := make([]Tier, len(a.tiers))
	for i, t := range a.tiers {
		out[i] = t.stat()
	}
	return out
}

func (t *tier) stat() Tier {
	t.mu.RLock()
	defer t.mu.RUnlock()
	s := Tier{Step: t.step(), Size: t.at(len(t.extents)), Extents: len(t.extents), ExtentSize: int64(t.size()), Evicted: t.evicted.Load(), EvictedExemplars: t.exemplarsEvicted.Load(), Skipped: t.skipped.Load()}
	for _, e := range t.extents {
		if e == nil {
			continue
		}
		s.Used++
		s.Bytes += t.taken(e)
		s.Generation = max(s.Generation, e.generation)
		s.Exemplars += e.exemplarBlocks()
		blocks, sources, tmin, tmax := e.stat()
		if s.Sources += sources; blocks == 0 {
			continue
		}
		if s.Blocks == 0 || tmin < s.Oldest {
			s.Oldest = tmin
		}
		if s.Blocks == 0 || tmax > s.Newest {
			s.Newest = tmax
		}
		s.Blocks += blocks
	}
	return s
}

// taken is how many of an extent's bytes are in use.
func (t *tier) taken(e *extent) int64 {
	if e.trailer != nil || e != t.open {
		return int64(t.size())
	}
	return min(int64(e.end.Load())+int64(e.mem.indexRoom())+TrailerSize, int64(t.size()))
}

func (e *extent) stat() (blocks, sources int, tmin, tmax int64) {
	if tr := e.trailer; tr != nil {
		return int(tr.Blocks), int(tr.Sources), tr.TMin, tr.TMax
	}
	e.mem.mu.RLock()
	defer e.mem.mu.RUnlock()
	return len(e.mem.rows), len(e.mem.sourceAt), e.mem.tmin, e.mem.tmax
}

// exemplarBlocks is how many blocks of exemplars an extent has.
func (e *extent) exemplarBlocks() int {
	if e.trailer != nil {
		return int(e.trailer.Exemplars)
	}
	all, _ := e.mem.exemplars()
	return len(all)
}

// Close implements Reader. What was not synced is not synced by it.
func (a *Archive) Close() error {
	var errs []error
	for _, t := range a.tiers {
		errs = append(errs, t.file.Close())
	}
	if a.lock != nil {
		errs = append(errs, a.lock.Close())
	}
	return errors.Join(errs...)
}
