package archive

import (
	"fmt"

	"github.com/shmts/shmts/internal/failpoint"
)

// writing is what of a tier only its writer has.
type writing struct {
	busy     bool   // an Append is at work, perhaps inside of what OnReuse registered
	dirty    bool   // written since the last good sync
	sealNext bool   // the open extent has a trailer already: nothing is appended to it
	last     uint64 // the greatest generation that may have been used
}

// Largest buffer that is kept for the next Append.
const keepBuffer = 4 << 20

// Append implements Writer.
func (a *Archive) Append(tier int, blocks ...*Block) error {
	t, err := a.writable(tier)
	if err != nil || len(blocks) == 0 {
		return err
	}
	for _, b := range blocks {
		if err := b.check(); err != nil {
			return err
		}
	}
	enc := a.encoder()
	defer a.release(enc)
	enc.encode(blocks)
	return a.append(tier, t, enc)
}

// append writes what was encoded into a tier's open extent, or the next one.
func (a *Archive) append(tier int, t *tier, enc *encoder) error {
	t.w.busy = true
	defer func() { t.w.busy = false }()
	failpoint.Here("archive.append.encoded")
	if e := t.open; e != nil && !t.w.sealNext && e.trailer == nil {
		if fits, err := t.fits(enc, e.mem, e.seed, e.end.Load()); err != nil {
			return err
		} else if fits {
			return a.write(t, enc)
		}
	}
	// Would it fit into the next one, which begins with the mark?
	if fits, err := t.fits(enc, newMemIndex(), 0, ExtentHeaderSize+BlockHeaderSize+markSize); err != nil {
		return err
	} else if !fits {
		return fmt.Errorf("%w: want at most %d bytes with labels and index, got %d in %d blocks", ErrTooLarge, t.size(), len(enc.out)-enc.prefix, len(enc.rows))
	}
	if err := a.turn(tier, t); err != nil {
		return err
	}
	e := t.open
	if fits, err := t.fits(enc, e.mem, e.seed, e.end.Load()); err != nil || !fits {
		return fmt.Errorf("shmts: archive: %s: block does not fit into an empty extent after all: %w", t.path, err)
	}
	return a.write(t, enc)
}

// writable is a tier that can be appended to.
func (a *Archive) writable(tier int) (*tier, error) {
	if a.lock == nil {
		return nil, errReadOnly
	}
	if tier < 0 || tier >= len(a.tiers) {
		return nil, fmt.Errorf("shmts: archive: tier: want 0 to %d, got %d", len(a.tiers)-1, tier)
	}
	if err := a.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStopped, err)
	}
	t := a.tiers[tier]
	if t.w.busy {
		return nil, fmt.Errorf("shmts: archive: %s: append from inside of an append to the same tier", t.path)
	}
	return t, nil
}

// encoder is one that nobody uses: more than one at a time are needed only where what OnReuse registered appends.
func (a *Archive) encoder() *encoder {
	if n := len(a.encoders); n > 0 {
		e := a.encoders[n-1]
		a.encoders = a.encoders[:n-1]
		return e
	}
	return &encoder{}
}

func (a *Archive) release(e *encoder) {
	clear(e.rows) // not to hold the caller's blocks
	if cap(e.out) > keepBuffer {
		e.out = nil
	}
	a.encoders = append(a.encoders, e)
}

// fits places what was encoded, and tells whether it goes with the index that it will need before an extent's end.
func (t *tier) fits(enc *encoder, m *memIndex, s seed, offset uint32) (bool, error) {
	if len(enc.out)-enc.prefix > int(t.size()) {
		return false, nil
	}
	room, err := enc.place(m, s, offset)
	return err == nil && int(offset)+len(enc.out)+m.indexRoom()+room <= int(t.size()-TrailerSize) &&
		m.sources()+len(enc.sources) <= maxOrdinals && int(m.schemaCount())+len(enc.schemas) <= maxOrdinals, err
}

// write writes what was placed behind the open extent's last block, in one go, and then shows it to readers.
func (a *Archive) write(t *tier, enc *encoder) error {
	e := t.open
	offset := e.end.Load()
	failpoint.Here("archive.append.placed")
	if err := a.pwrite(t, enc.out, e, offset); err != nil {
		return err
	}
	failpoint.Here("archive.append.written")
	return a.show(t, e, offset, enc.out)
}

// show takes blocks that were written into the index, as the scan of recovery would.
func (a *Archive) show(t *tier, e *extent, offset uint32, b []byte) error {
	for len(b) > 0 {
		h, ok := e.seed.checkBlockHeader(offset, b, e.limit())
		if !ok {
			return a.stop(fmt.Errorf("shmts: archive: %s: extent %d: wrote no block at %d", t.path, e.slot, offset))
		}
		if err := e.take(offset, &h, b[BlockHeaderSize:h.Length]); err != nil {
			return a.stop(fmt.Errorf("shmts: archive: %s: extent %d: wrote a broken block at %d: %w", t.path, e.slot, offset, err))
		}
		offset += h.Length
		b = b[h.Length:]
		e.end.Store(offset)
	}
	return nil
}

// pwrite writes into an extent. What fails stops the archive.
func (a *Archive) pwrite(t *tier, b []byte, e *extent, offset uint32) error {
	t.w.dirty = true
	err := failpoint.Fails("archive.write")
	if err == nil {
		var n int
		if n, err = t.file.WriteAt(b, t.at(e.slot)+int64(offset)); err == nil && n < len(b) {
			err = fmt.Errorf("wrote %d of %d bytes", n, len(b))
		}
	}
	if err != nil {
		return a.stop(fmt.Errorf("shmts: archive: %s: extent %d: write %d bytes at %d: %w", t.path, e.slot, len(b), offset, err))
	}
	return nil
}

func (a *Archive) sync(t *tier) error {
	err := failpoint.Fails("archive.sync")
	if err == nil {
		err = t.file.Sync()
	}
	if err != nil {
		return a.stop(fmt.Errorf("shmts: archive: %s: sync: %w", t.path, err))
	}
	t.w.dirty = false
	return nil
}

// turn seals a tier's open extent, and begins the next one in the place of the oldest. FORMAT.md 19.2.
func (a *Archive) turn(tier int, t *tier) error {
	slot := t.oldest()
	if e := t.extents[slot]; e != nil && a.reuse != nil {
		a.reuse(tier, e.generation)
		if err := a.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrStopped, err)
		}
	}
	failpoint.Here("archive.reuse.folded")
	if e := t.open; e != nil && e.trailer == nil {
		if err := a.seal(t, e); err != nil {
			return err
		}
	}
	return a.begin(t, slot)
}

// oldest is the slot that is used next.
func (t *tier) oldest() (slot int) {
	for i, e := range t.extents {
		if e == nil {
			return i
		}
		if e.generation < t.extents[slot].generation {
			slot = i
		}
	}
	return slot
}

// seal writes an extent's index and trailer, and makes them outlive a loss of power.
func (a *Archive) seal(t *tier, e *extent) error {
	off := e.end.Load()
	enc := a.encoder()
	defer a.release(enc)
	enc.out = e.mem.appendIndex(enc.out[:0], e.seed, off)
	if int(off)+len(enc.out) > int(e.limit()) { // blocks that others wrote: it is read without
		a.log.Warn("extent stays without an index, for which there is no room", "tier", t.path, "extent", e.slot, "offset", off, "index", len(enc.out))
		return a.sync(t)
	}
	e.mem.mu.RLock()
	tr := Trailer{IndexOffset: off, IndexLength: uint32(len(enc.out)), Sources: uint32(len(e.mem.sourceAt)), Schemas: uint32(len(e.mem.schemaAt)),
		Blocks: uint32(len(e.mem.rows)), Exemplars: uint32(len(e.mem.exemplarsAt)), TMin: e.mem.tmin, TMax: e.mem.tmax, MarkGeneration: t.mark.Generation, MarkOffset: t.mark.Offset}
	e.mem.mu.RUnlock()
	failpoint.Here("archive.seal.begun")
	if err := a.pwrite(t, enc.out, e, off); err != nil {
		return err
	}
	failpoint.Here("archive.seal.index")
	b := appendTo(enc.out[:0], &tr)
	e.seed.sign(e.limit(), b)
	if err := a.pwrite(t, b, e, e.limit()); err != nil {
		return err
	}
	failpoint.Here("archive.seal.trailer")
	if err := a.sync(t); err != nil {
		return err
	}
	failpoint.Here("archive.seal.synced")
	sealed := t.newExtent(e.slot, ExtentHeader{Generation: e.generation, Opened: e.opened})
	if !sealed.loadIndex() {
		return a.stop(fmt.Errorf("shmts: archive: %s: extent %d: its index can't be read back", t.path, e.slot))
	}
	t.mu.Lock()
	t.extents[e.slot], t.open = sealed, sealed
	t.mu.Unlock()
	return nil
}

// begin makes a slot the open extent.
func (a *Archive) begin(t *tier, slot int) error {
	h := ExtentHeader{Generation: t.w.last + 1, Opened: a.now().UnixNano()}
	e := t.newExtent(slot, h)
	e.mem = newMemIndex()
	exemplars := a.exemplarsIn(t.extents[slot])
	t.mu.Lock()
	if t.extents[slot] != nil {
		t.evicted.Add(1)
		t.exemplarsEvicted.Add(exemplars)
	}
	t.extents[slot] = nil // from here on what it held is gone
	t.mu.Unlock()
	b := appendTo(nil, &h)
	e.seed.sign(0, b)
	if t.mark.Generation > 0 { // in the header's sector: an extent that was begun has it
		b = e.appendMark(b, ExtentHeaderSize, t.mark)
	}
	t.w.last++ // even if it fails: no generation twice
	if err := a.pwrite(t, b, e, 0); err != nil {
		return err
	}
	failpoint.Here("archive.reuse.header")
	if err := a.sync(t); err != nil {
		return err
	}
	failpoint.Here("archive.reuse.synced")
	if err := a.show(t, e, ExtentHeaderSize, b[ExtentHeaderSize:]); err != nil {
		return err
	}
	t.mu.Lock()
	t.extents[slot], t.open = e, e
	t.mu.Unlock()
	t.w.sealNext = false
	return nil
}

// appendMark appends the block of a mark, which is to lie at an offset.
func (e *extent) appendMark(b []byte, off uint32, m Mark) []byte {
	at := len(b)
	b = grow(b, BlockHeaderSize)
	b = le.AppendUint64(b, m.Generation)
	b = le.AppendUint64(b, m.Offset)
	e.seed.finish(b[at:], off, &BlockHeader{Type: blockMark})
	return b
}

func (a *Archive) writeMark(t *tier, e *extent, m Mark) error {
	off := e.end.Load()
	b := e.appendMark(nil, off, m)
	if err := a.pwrite(t, b, e, off); err != nil {
		return err
	}
	failpoint.Here("archive.mark.written")
	return a.show(t, e, off, b)
}

// repeatMark writes the newest mark into the open extent where a crash has left it without. It follows upon a read, after which an extent that has a
// trailer is one that is sealed next.
func (a *Archive) repeatMark(t *tier) error {
	e := t.open
	if e == nil || t.w.sealNext || e.newestMark() == t.mark || !e.markFits() {
		return nil
	}
	return a.writeMark(t, e, t.mark)
}

// markFits tells whether a mark goes into an unsealed extent, with the index that it will need.
func (e *extent) markFits() bool {
	return int(e.end.Load())+BlockHeaderSize+markSize+e.mem.indexRoom() <= int(e.limit())
}

// SetMark implements Writer.
func (a *Archive) SetMark(tier int, m Mark) error {
	t, err := a.writable(tier)
	if err != nil {
		return err
	}
	if m.Generation == 0 {
		return fmt.Errorf("shmts: archive: %s: mark: want a generation, got none", t.path)
	}
	t.w.busy = true
	defer func() { t.w.busy = false }()
	e := t.open
	if e == nil || e.trailer != nil || t.w.sealNext || !e.markFits() {
		if err := a.turn(tier, t); err != nil {
			return err
		}
	}
	if err := a.writeMark(t, t.open, m); err != nil {
		return err
	}
	t.mu.Lock()
	t.mark = m
	t.mu.Unlock()
	return nil
}

// Marked implements Writer.
func (a *Archive) Marked(tier int) (Mark, bool) {
	t := a.tiers[tier]
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.mark, t.mark.Generation > 0
}

// End implements Writer. It is the zero Mark while there is no extent.
func (a *Archive) End(tier int) Mark {
	t := a.tiers[tier]
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.open == nil {
		return Mark{}
	}
	return Mark{t.open.generation, uint64(t.open.end.Load())}
}

// OnReuse implements Writer.
func (a *Archive) OnReuse(f func(tier int, generation uint64)) { a.reuse = f }

// Sync implements Writer.
func (a *Archive) Sync() error {
	if a.lock == nil {
		return errReadOnly
	}
	if err := a.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrStopped, err)
	}
	for _, t := range a.tiers {
		if t.w.dirty {
			if err := a.sync(t); err != nil {
				return err
			}
			failpoint.Here("archive.sync.done")
		}
	}
	return nil
}

// Err implements Writer.
func (a *Archive) Err() error {
	a.errMu.Lock()
	defer a.errMu.Unlock()
	return a.err
}

// stop stops archiving for a reason.
func (a *Archive) stop(err error) error {
	a.errMu.Lock()
	defer a.errMu.Unlock()
	if a.err == nil {
		a.err = err
		a.log.Error("archiving stops", "err", err)
	}
	return err
}
