package archive

import (
	"cmp"
	"fmt"
	"slices"
)

// window is how much of an extent a scan reads at once, if no block in it is larger.
const window = 256 << 10

// scan reads an unsealed extent from its end on: FORMAT.md 19.3. Its end is then behind the last valid block. What fails
// a check is counted. following says that somebody appends to it meanwhile: then a
// block that is not whole yet is looked at again the next time, and what lies behind is not searched.
func (e *extent) scan(following bool) error {
	var buf []byte
	at := uint32(0) // of buf in the extent
	bytes := func(off, n uint32) ([]byte, error) {
		if off < at || off+n > at+uint32(len(buf)) {
			want := min(max(n, window), e.limit()-off)
			buf = slices.Grow(buf[:0], int(want))[:want]
			at = off
			if err := e.readInto(buf, off); err != nil {
				buf = buf[:0]
				return nil, err
			}
		}
		return buf[off-at:][:n], nil
	}
	broken := uint64(0) // since the last valid one
	gap := false        // there were bytes that are no block
	for off := e.end.Load(); off+BlockHeaderSize <= e.limit(); {
		b, err := bytes(off, BlockHeaderSize)
		if err != nil {
			return err
		}
		h, ok := e.seed.checkBlockHeader(off, b, e.limit())
		if !ok {
			if following {
				return nil
			}
			gap = true
			// Most of what is left of an extent is no block: of what was read, only what begins as one is looked at.
			for off += align; off+BlockHeaderSize <= at+uint32(len(buf)) && le.Uint32(buf[off-at:]) != blockMagic; off += align {
			}
			continue
		}
		if gap { // what lies behind the last block is no fault
			gap = false
			broken++
		}
		body, err := bytes(off+BlockHeaderSize, h.Length-BlockHeaderSize)
		if err != nil {
			return err
		}
		if e.check(off+BlockHeaderSize, body) != h.BodyCheck {
			// Its length says nothing: the header may be what is left of a block that a crash took back, with others since in its place.
			// Were one of those passed over now, it could come to light later, when its ordinals are somebody else's.
			e.mem.passOver(&h, nil)
			broken++
			if off += align; following {
				off += h.Length - align
			}
			continue
		}
		if e.take(off, &h, body) != nil {
			broken++
		}
		if h.Type != blockIndex { // an index without a trailer is written again
			e.end.Store(off + h.Length)
			e.t.skipped.Add(broken)
			broken = 0
		}
		off += h.Length
	}
	if !following && !e.t.shared { // what another process is about to write is not broken
		e.t.skipped.Add(broken)
	}
	return nil
}

// take puts a block whose checks are right into the index of an unsealed extent. An error: it contradicts what is there.
func (e *extent) take(off uint32, h *BlockHeader, body []byte) error {
	switch h.Type {
	case blockSources:
		if err := e.mem.addSources(h.First, h.Count, body); err != nil {
			e.mem.passOver(h, nil)
			return err
		}
	case blockSchema:
		s, err := cutSchema(body)
		if err == nil && len(s.Series) != int(h.Count) {
			err = fmt.Errorf("schema: want %d series, got %d", h.Count, len(s.Series))
		}
		if err == nil {
			err = e.mem.addSchema(h.First, off, s)
		}
		if err != nil {
			e.mem.passOver(h, nil)
		}
		return err
	case blockRows:
		head, err := e.seed.cutRowsHead(off, h, body)
		if err == nil {
			err = e.mem.addRows(off, h, head.sources)
		}
		if err != nil {
			e.mem.passOver(h, head.sources)
		}
		return err
	case blockExemplars:
		parts, err := e.seed.cutExemplarsHead(off, h, body)
		if err == nil {
			err = e.mem.addExemplars(off, h, parts)
		}
		if err != nil {
			e.mem.passOver(h, nil)
			e.mem.passOverParts(parts)
		}
		return err
	case blockMark:
		if len(body) < markSize {
			return errShort
		}
		e.mem.setMark(Mark{le.Uint64(body), le.Uint64(body[8:])})
	}
	return nil
}

func (m *memIndex) setMark(mark Mark) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mark = mark
}

// passOver gives the ordinals that a broken block gives, or uses, to nobody else: were they given again, it would be taken for
// another's once the order of blocks is not looked at.
func (m *memIndex) passOver(h *BlockHeader, sources []SourceRows) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch h.Type {
	case blockSources:
		if end := uint64(h.First) + uint64(h.Count); end <= maxOrdinals {
			m.reserve(uint32(end))
		}
	case blockSchema, blockRows:
		if h.First < maxOrdinals {
			m.reserveSchemas(h.First + 1)
		}
		for _, s := range sources {
			if s.Source < maxOrdinals {
				m.reserve(s.Source + 1)
			}
		}
	}
}

// passOverParts is passOver for what an exemplars block refers to.
func (m *memIndex) passOverParts(parts []ExemplarPart) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range parts {
		if p.Schema < maxOrdinals {
			m.reserveSchemas(p.Schema + 1)
		}
		if p.Source < maxOrdinals {
			m.reserve(p.Source + 1)
		}
	}
}

// readHeader reads a slot's header. It is not ok if the slot is empty.
func (t *tier) readHeader(slot int) (h ExtentHeader, ok bool) {
	h, state := t.headerState(slot)
	return h, state == slotUsed
}

// What a slot's header says of it.
const (
	slotEmpty = iota // zeros
	slotUsed
	slotLost // neither: nobody knows which generation it had
	slotError
)

func (t *tier) headerState(slot int) (h ExtentHeader, state int) {
	b := make([]byte, ExtentHeaderSize)
	if n, _ := t.file.ReadAt(b, t.at(slot)); n < len(b) {
		return h, slotError
	}
	h = decode[ExtentHeader](b)
	switch {
	case h.Generation > 0 && newSeed(t.header.ArchiveID, t.header.Step, h.Generation).checked(0, b):
		return h, slotUsed
	case h == ExtentHeader{}:
		return h, slotEmpty
	}
	return h, slotLost
}

// newExtent is one without blocks.
func (t *tier) newExtent(slot int, h ExtentHeader) *extent {
	e := &extent{t: t, slot: slot, generation: h.Generation, opened: h.Opened, seed: newSeed(t.header.ArchiveID, t.header.Step, h.Generation)}
	e.end.Store(ExtentHeaderSize)
	return e
}

// load reads what a slot holds: of a sealed extent its trailer and filter, of another everything.
func (t *tier) load(slot int, h ExtentHeader) (*extent, error) {
	e := t.newExtent(slot, h)
	if e.loadIndex() {
		return e, nil
	}
	return e, e.unseal()
}

// unseal reads an extent as if it had no index.
func (e *extent) unseal() error {
	e.trailer, e.filter, e.mem = nil, nil, newMemIndex()
	e.end.Store(ExtentHeaderSize)
	return e.scan(false)
}

// loadIndex reads trailer, sections and filter, and tells whether the extent has them.
func (e *extent) loadIndex() bool {
	b, err := e.readAt(e.limit(), TrailerSize)
	if err != nil || !e.seed.checked(e.limit(), b) {
		return false
	}
	tr := decode[Trailer](b)
	off, n := tr.IndexOffset, tr.IndexLength
	if off < ExtentHeaderSize || off%align != 0 || n < BlockHeaderSize+indexHeadSize || uint64(off)+uint64(n) > uint64(e.limit()) {
		return false
	}
	if b, err = e.readAt(off, BlockHeaderSize+indexHeadSize); err != nil {
		return false
	}
	h, ok := e.seed.checkBlockHeader(off, b, e.limit())
	if !ok || h.Type != blockIndex || h.Length != n {
		return false
	}
	if e.sections, err = cutSections(b[BlockHeaderSize:], n-BlockHeaderSize); err != nil {
		return false
	}
	e.trailer = &tr
	if e.filter, err = e.section(sectionFilter); err != nil {
		e.trailer = nil
		return false
	}
	e.end.Store(off)
	return true
}

// whole tells whether all of a sealed extent's index is as its check says.
func (e *extent) whole() bool {
	off := e.trailer.IndexOffset
	b, err := e.readAt(off, e.trailer.IndexLength)
	if err != nil {
		return false
	}
	h, ok := e.seed.checkBlockHeader(off, b, e.limit())
	return ok && e.check(off+BlockHeaderSize, b[BlockHeaderSize:]) == h.BodyCheck
}

// newest is the newest mark in an extent, as far as it knows.
func (e *extent) newestMark() Mark {
	if e.trailer != nil {
		return Mark{e.trailer.MarkGeneration, e.trailer.MarkOffset}
	}
	e.mem.mu.RLock()
	defer e.mem.mu.RUnlock()
	return e.mem.mark
}

// byGeneration are the extents of slots that hold something, oldest first.
func byGeneration(slots []*extent) []*extent {
	all := make([]*extent, 0, len(slots))
	for _, e := range slots {
		if e != nil {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(x, y *extent) int { return cmp.Compare(x.generation, y.generation) })
	return all
}

// slots is how many extents fit into the file as it is now.
func (t *tier) slots() (int, error) {
	size, err := t.file.Size()
	if err != nil {
		return 0, fmt.Errorf("shmts: archive: %s: %w", t.path, err)
	}
	return int(min(max(size-tierHeaderArea, 0)/int64(t.size()), maxExtents)), nil
}

// refresh looks what another process has written since: extents that it began, sealed, or appended to. One caller at a time.
func (t *tier) refresh() error {
	n, err := t.slots()
	if err != nil {
		return err
	}
	t.mu.RLock()
	known := slices.Clone(t.extents)
	t.mu.RUnlock()
	now := make([]*extent, n)
	byGen := map[uint64]bool{}
	for slot := range now {
		h, ok := t.readHeader(slot)
		if !ok || byGen[h.Generation] { // of two extents of one generation the first counts
			continue
		}
		byGen[h.Generation] = true
		if slot < len(known) && known[slot] != nil && known[slot].generation == h.Generation {
			e := known[slot]
			if now[slot] = e; e.trailer != nil {
				continue
			}
			if sealed := t.newExtent(slot, h); sealed.loadIndex() {
				now[slot] = sealed
			} else if err := e.scan(true); err != nil {
				return err
			}
			continue
		}
		if now[slot], err = t.load(slot, h); err != nil {
			return err
		}
	}
	t.publish(now)
	return nil
}

// publish makes these the tier's extents.
func (t *tier) publish(slots []*extent) {
	all := byGeneration(slots)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.extents = slots
	t.open, t.mark = nil, Mark{}
	if len(all) > 0 {
		t.open = all[len(all)-1]
	}
	for _, e := range all {
		if m := e.newestMark(); m.Generation > 0 {
			t.mark = m
		}
	}
}
