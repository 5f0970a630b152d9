package archive

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
)

// maxFindings bounds what Check says of one archive.
const maxFindings = 200

// Check reads everything in the archive of a directory and says what is wrong with it: tier, extent, block, what was wanted and what is
// there. It may be written meanwhile: what only its writer's work explains is no finding, nor what a kill leaves behind
// the last block. Bytes that are no block between two that are were damaged, or half written before a loss of power.
func Check(dir string) []error { return check(dir, SystemFiles()) }

func check(dir string, files Files) []error {
	names, err := files.List(dir)
	if err != nil {
		return []error{fmt.Errorf("shmts: archive: %w", err)}
	}
	c := &checker{}
	tiers := 0
	for _, name := range names {
		if strings.HasSuffix(name, tierSuffix) {
			tiers++
			c.file(filepath.Join(dir, name), files)
		}
	}
	if tiers == 0 {
		c.say(fmt.Errorf("shmts: archive: %s: want files named <step>%s, got none", dir, tierSuffix))
	}
	return c.found
}

// checker is one Check at work.
type checker struct {
	found []error
	first TierHeader // of the first tier
	steps map[uint64]string
	d     decoder
}

func (c *checker) say(err error) {
	switch n := len(c.found); {
	case n < maxFindings:
		c.found = append(c.found, err)
	case n == maxFindings:
		c.found = append(c.found, fmt.Errorf("shmts: archive: more than %d findings", maxFindings))
	}
}

func (c *checker) file(path string, files Files) {
	t := &tier{path: path, shared: true}
	var err error
	if t.file, err = files.OpenRead(path); err != nil {
		c.say(fmt.Errorf("shmts: archive: %w", err))
		return
	}
	defer t.file.Close()
	finished, err := t.readTierHeader()
	if err != nil {
		c.say(fmt.Errorf("shmts: archive: %s: %w", path, err))
		return
	}
	if !finished {
		return // its writer is about to, or will begin it anew
	}
	if c.first.Magic == [8]byte{} {
		c.first, c.steps = t.header, map[uint64]string{}
	} else if c.first.ArchiveID != t.header.ArchiveID {
		c.say(fmt.Errorf("shmts: archive: %s: want a tier of archive %x, as the others are, got one of %x", path, c.first.ArchiveID, t.header.ArchiveID))
	}
	if other, ok := c.steps[t.header.Step]; ok {
		c.say(fmt.Errorf("shmts: archive: %s: want one tier of %v, got %s as well", path, t.step(), other))
	}
	c.steps[t.header.Step] = path
	n, err := t.slots()
	if err != nil {
		c.say(err)
		return
	}
	if n < minExtents {
		c.say(fmt.Errorf("shmts: archive: %s: want at least %d extents of %d bytes, got %d", path, minExtents, t.size(), n))
	}
	at := map[uint64]int{}
	t.extents = make([]*extent, n)
	for slot := range n {
		h, state := t.headerState(slot)
		switch state {
		case slotEmpty:
			continue
		case slotError, slotLost:
			if _, state = t.headerState(slot); state == slotLost || state == slotError { // not just then written
				c.say(fmt.Errorf("shmts: archive: %s: extent %d: header: want a valid one or zeros, got neither", path, slot))
			}
			continue
		}
		if other, ok := at[h.Generation]; ok {
			c.say(fmt.Errorf("shmts: archive: %s: extent %d: generation: want each once, got %d in extent %d as well", path, slot, h.Generation, other))
			continue
		}
		at[h.Generation] = slot
		e := t.newExtent(slot, h)
		t.extents[slot] = e
		for _, err := range c.extent(e) {
			if !t.gone(e) {
				c.say(err)
			}
		}
	}
}

// extent says what is wrong with one.
func (c *checker) extent(e *extent) (found []error) {
	say := func(err error) {
		if err != nil && len(found) <= maxFindings {
			found = append(found, err)
		}
	}
	sealed := e.t.newExtent(e.slot, ExtentHeader{Generation: e.generation})
	end := e.limit()
	if sealed.loadIndex() {
		end = sealed.trailer.IndexOffset
	} else if b, err := e.readAt(e.limit(), TrailerSize); err != nil {
		say(err)
	} else if e.seed.checked(e.limit(), b) {
		say(e.bad(e.limit(), "trailer", "an index where it says", "none"))
	}
	e.mem = newMemIndex()
	all, err := e.readAt(0, end) // with 16 MiB the largest
	if err != nil {
		return append(found, err)
	}
	nothing := uint32(0) // where bytes that are no block begin
	for off := uint32(ExtentHeaderSize); off+BlockHeaderSize <= end; {
		h, ok := e.seed.checkBlockHeader(off, all[off:], end)
		if !ok {
			if nothing == 0 {
				nothing = off
			}
			off += align
			continue
		}
		if nothing > 0 {
			say(e.bad(nothing, "header", "a valid one", fmt.Sprintf("%d bytes that are no block", off-nothing)))
			nothing = 0
		}
		body := all[off+BlockHeaderSize : off+h.Length]
		if sum := e.check(off+BlockHeaderSize, body); sum != h.BodyCheck {
			if body, _, err = e.block(off); err != nil { // not just then written
				say(err)
				e.mem.passOver(&h, nil)
				off += h.Length
				continue
			}
		}
		say(c.block(e, off, &h, body))
		off += h.Length
	}
	if sealed.trailer != nil && nothing > 0 && nothing < end {
		say(e.bad(nothing, "header", "a valid one, before the index", fmt.Sprintf("%d bytes that are no block", end-nothing)))
	}
	blocks, _ := e.mem.blocks()
	for _, ref := range blocks {
		for _, err := range c.rows(e, ref) {
			say(err)
		}
	}
	exemplars, _ := e.mem.exemplars()
	for _, ref := range exemplars {
		for _, err := range c.exemplars(e, ref) {
			say(err)
		}
	}
	if sealed.trailer != nil {
		for _, err := range c.index(sealed, e.mem) {
			say(err)
		}
	}
	return found
}

// block says what is wrong with a block whose check is right.
func (c *checker) block(e *extent, off uint32, h *BlockHeader, body []byte) error {
	if h.Type < blockSources || h.Type > blockExemplars {
		return nil // of a later minor version
	}
	if h.Type == blockIndex {
		return nil // without a trailer it is no index
	}
	if err := e.take(off, h, body); err != nil {
		return e.bad(off, fmt.Sprintf("block of type %d", h.Type), "a valid one", err)
	}
	return nil
}

// rows decodes all of a rows block, and holds it against what it says of itself.
func (c *checker) rows(e *extent, ref blockRef) (found []error) {
	say := func(err error) { found = append(found, err) }
	refs, _ := e.mem.schemas()
	schema, err := e.readSchema(refs[ref.schema])
	if err != nil {
		return []error{err}
	}
	b, err := e.readHead(ref, schema)
	if err == nil {
		err = b.load(0, len(b.ends))
	}
	if err != nil {
		return []error{err}
	}
	if want := runFields + schema.fields(b.folded()); len(b.ends) != want {
		return []error{e.bad(ref.offset, "runs", want, len(b.ends))}
	}
	for i := range b.ends {
		if r := b.run(i); r.err != nil {
			say(r.err)
		}
	}
	if _, err := b.members(); err != nil {
		say(err)
	}
	var tmin, tmax int64
	for k := range b.sources {
		s := &b.sources[k]
		what := func(field string) string { return fmt.Sprintf("source %d: %s", s.Source, field) }
		if err := c.d.rows(b, k); err != nil {
			say(err)
			return found
		}
		n := len(c.d.times)
		if f, l := c.d.numbers[0], c.d.numbers[n-1]; f != s.FirstNo || l != s.LastNo {
			say(e.bad(ref.offset, what("first_no and last_no"), fmt.Sprintf("%d and %d", f, l), fmt.Sprintf("%d and %d", s.FirstNo, s.LastNo)))
		}
		if !b.folded() && s.BaseNo != s.LastNo {
			say(e.bad(ref.offset, what("base_no"), s.LastNo, s.BaseNo))
		}
		if f, l := c.d.times[0], c.d.times[n-1]; f != s.TFirst || l != s.TLast {
			say(e.bad(ref.offset, what("t_first and t_last"), fmt.Sprintf("%d and %d", f, l), fmt.Sprintf("%d and %d", s.TFirst, s.TLast)))
		}
		least, most := slices.Min(c.d.times), slices.Max(c.d.times)
		if falls := least < s.TFirst || most > s.TLast; falls != (s.Flags&flagFalling != 0) {
			say(e.bad(ref.offset, what("flag 3"), falls, !falls))
		}
		if k == 0 {
			tmin, tmax = least, most
		}
		tmin, tmax = min(tmin, least), max(tmax, most)
		if !b.folded() && !slices.IsSorted(c.d.numbers) {
			say(e.bad(ref.offset, what("numbers"), "ascending", "falling"))
		}
		if _, err := c.d.starts(b, k, len(schema.Series), 0); err != nil {
			say(err)
		}
		run := runFields
		for _, series := range schema.Series {
			for _, f := range Fields(series.Kind, b.folded()) {
				buckets := 0
				if f == Hist {
					buckets = series.Buckets.Count + 2
				}
				if b.run(run).err == nil {
					if _, _, err := c.d.values(nil, b, run, k, isFloat(series, f), buckets); err != nil {
						say(fmt.Errorf("%w (%s)", err, series.Name))
					}
				}
				run++
			}
		}
	}
	if tmin != b.h.TMin || tmax != b.h.TMax {
		say(e.bad(ref.offset, "t_min and t_max", fmt.Sprintf("%d and %d", tmin, tmax), fmt.Sprintf("%d and %d", b.h.TMin, b.h.TMax)))
	}
	return found
}

// exemplars decodes all of an exemplars block, and holds it against what it says of itself.
func (c *checker) exemplars(e *extent, ref exemplarsRef) (found []error) {
	say := func(err error) { found = append(found, err) }
	b, err := e.readExemplarsHead(ref)
	if err != nil {
		return []error{err}
	}
	refs, _ := e.mem.schemas()
	tmin, tmax := int64(math.MaxInt64), int64(math.MinInt64)
	whole := true
	for k, p := range b.parts {
		schema, err := e.readSchema(refs[p.Schema])
		if err != nil {
			return append(found, err)
		}
		list, err := c.d.exemplars(nil, b, k, schema)
		if err != nil {
			whole = false
			say(err)
			continue
		}
		for i := range list {
			tmin, tmax = min(tmin, floorMillis(list[i].Time)), max(tmax, floorMillis(list[i].Time))
		}
	}
	if whole && (tmin != b.h.TMin || tmax != b.h.TMax) {
		say(e.bad(ref.offset, "t_min and t_max", fmt.Sprintf("%d and %d", tmin, tmax), fmt.Sprintf("%d and %d", b.h.TMin, b.h.TMax)))
	}
	return found
}

// index holds an index against the one that is made of the blocks.
func (c *checker) index(e *extent, m *memIndex) (found []error) {
	off := e.trailer.IndexOffset
	disk, err := e.readAt(off, e.trailer.IndexLength)
	if err != nil {
		return []error{err}
	}
	body := disk[BlockHeaderSize:]
	want := m.appendIndex(nil, e.seed, off)[BlockHeaderSize:]
	made, err := cutSections(want, uint32(len(want)))
	if err != nil {
		return []error{err}
	}
	part := func(b []byte, s sectionEntry) []byte { return b[s.Offset : s.Offset+s.Length] }
	for i, s := range e.sections {
		switch b := part(body, s); {
		case e.check(off+BlockHeaderSize+s.Offset, b) != s.Check:
			found = append(found, e.bad(off, fmt.Sprintf("check of section %d", i), fmt.Sprintf("%#x", s.Check), fmt.Sprintf("%#x", e.check(off+BlockHeaderSize+s.Offset, b))))
		case i == sectionFilter:
			for key := range m.keys {
				if !filterHas(b, key) {
					found = append(found, e.bad(off, "filter", fmt.Sprintf("key %#x", key), "none"))
					break
				}
			}
		case i == sectionSourceOffsets: // their checks say where the section lies
			if !bytes.Equal(ordinalOffsets(b), ordinalOffsets(part(want, made[i]))) {
				found = append(found, e.bad(off, fmt.Sprintf("section %d", i), "what the blocks say", "else"))
			}
		case !bytes.Equal(b, part(want, made[i])):
			found = append(found, e.bad(off, fmt.Sprintf("section %d", i), fmt.Sprintf("what the blocks say, %d bytes", made[i].Length), fmt.Sprintf("%d bytes, or else", s.Length)))
		}
	}
	if h := decodeBlockHeader(disk); e.check(off+BlockHeaderSize, body) != h.BodyCheck {
		found = append(found, e.bad(off, "check of the body", fmt.Sprintf("%#x", h.BodyCheck), fmt.Sprintf("%#x", e.check(off+BlockHeaderSize, body))))
	}
	d := &diskIndex{e: e, c: &cache[sectionKey, []byte]{}}
	for o := range uint32(min(d.sources(), m.sources())) {
		if _, _, _, err := d.entry(o); err != nil && !errors.Is(err, errAbsent) {
			return append(found, err)
		}
	}
	tr := e.trailer
	blocks, sources, tmin, tmax := (&extent{mem: m}).stat()
	exemplars, _ := m.exemplars()
	if int(tr.Blocks) != blocks || int(tr.Sources) != sources || tr.Schemas != m.schemaCount() || int(tr.Exemplars) != len(exemplars) ||
		blocks > 0 && (tr.TMin != tmin || tr.TMax != tmax) {
		found = append(found, e.bad(e.limit(), "trailer", fmt.Sprintf("%d blocks, %d sources, %d schemas, %d exemplars blocks, %d to %d", blocks, sources, m.schemaCount(), len(exemplars), tmin, tmax),
			fmt.Sprintf("%d, %d, %d, %d, %d to %d", tr.Blocks, tr.Sources, tr.Schemas, tr.Exemplars, tr.TMin, tr.TMax)))
	}
	return found
}

// ordinalOffsets are section 2 without checks.
func ordinalOffsets(b []byte) []byte {
	out := make([]byte, 0, len(b)/2)
	for ; len(b) >= sourceEntrySize; b = b[sourceEntrySize:] {
		out = append(out, b[:4]...)
	}
	return out
}
