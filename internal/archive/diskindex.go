package archive

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
	"sync"
)

// readAhead is how much of the sources' section is read at once where many of them are wanted.
const readAhead = 64 << 10

// keepSection is how large a section may be to be kept between reads.
const keepSection = 32 << 10

// diskIndex is the index of a sealed extent: its sections are read when they are needed, and held against their checks. One is made for each use,
// by one goroutine. An error means that the index can't be used.
type diskIndex struct {
	e      *extent
	c      *cache[sectionKey, []byte]
	loaded [indexSections][]byte
	have   [indexSections]bool

	many  bool   // sources are asked for in ascending order
	ahead []byte // of the sources' section
	at    uint32 // where in it that lies

	scratch []uint32
}

var _ index = (*diskIndex)(nil)

func (d *diskIndex) bad(section int, what string, want, got any) error {
	return fmt.Errorf("shmts: archive: %s: extent %d: section %d of the index: %s: want %v, got %v", d.e.t.path, d.e.slot, section, what, want, got)
}

func (d *diskIndex) section(i int) ([]byte, error) {
	if d.have[i] {
		return d.loaded[i], nil
	}
	k := sectionKey{d.e.key(), i}
	b, ok := d.c.get(k)
	if !ok {
		var err error
		if b, err = d.e.section(i); err != nil {
			return nil, err
		}
		if len(b) <= keepSection {
			b = d.c.put(k, b, len(b), keepSections)
		}
	}
	d.loaded[i], d.have[i] = b, true
	return b, nil
}

// entries is a section of entries of one size.
func (d *diskIndex) entries(i, size int, want uint32) ([]byte, error) {
	b, err := d.section(i)
	if err == nil && uint64(len(b)) != uint64(want)*uint64(size) {
		err = d.bad(i, "length", fmt.Sprintf("%d entries of %d bytes", want, size), len(b))
	}
	return b, err
}

func (d *diskIndex) mayHave(key uint64) bool { return filterHas(d.e.filter, key) }

func (d *diskIndex) sources() int { return int(d.e.trailer.Sources) }

func (d *diskIndex) blocks() ([]blockRef, error) {
	b, err := d.entries(sectionBlocks, blockEntrySize, d.e.trailer.Blocks)
	if err != nil {
		return nil, err
	}
	all := make([]blockRef, len(b)/blockEntrySize)
	for i := range all {
		e := b[i*blockEntrySize:]
		all[i] = blockRef{le.Uint32(e), le.Uint32(e[4:]), le.Uint32(e[8:]), le.Uint32(e[12:]), int64(le.Uint64(e[16:])), int64(le.Uint64(e[24:]))}
		if all[i].schema >= d.e.trailer.Schemas {
			return nil, d.bad(sectionBlocks, "schema", fmt.Sprintf("below %d", d.e.trailer.Schemas), all[i].schema)
		}
	}
	return all, nil
}

func (d *diskIndex) schemas() ([]schemaRef, error) {
	b, err := d.entries(sectionSchemas, schemaEntrySize, d.e.trailer.Schemas)
	if err != nil {
		return nil, err
	}
	all := make([]schemaRef, len(b)/schemaEntrySize)
	for i := range all {
		e := b[i*schemaEntrySize:]
		all[i] = schemaRef{[16]byte(e), le.Uint32(e[16:]), le.Uint32(e[20:]), le.Uint32(e[24:])}
	}
	return all, nil
}

func (d *diskIndex) exemplars() ([]exemplarsRef, error) {
	b, err := d.entries(sectionExemplars, blockEntrySize, d.e.trailer.Exemplars)
	if err != nil {
		return nil, err
	}
	all := make([]exemplarsRef, len(b)/blockEntrySize)
	for i := range all {
		e := b[i*blockEntrySize:]
		all[i] = exemplarsRef{le.Uint32(e), le.Uint32(e[4:]), le.Uint32(e[8:]), le.Uint32(e[12:]), int64(le.Uint64(e[16:])), int64(le.Uint64(e[24:]))}
	}
	return all, nil
}

// entry reads one source, with a check of its own, and not the whole section.
func (d *diskIndex) entry(ordinal uint32) (record []byte, posts []uint32, exemplar uint64, err error) {
	offsets, err := d.entries(sectionSourceOffsets, sourceEntrySize, d.e.trailer.Sources+1)
	if err != nil {
		return nil, nil, 0, err
	}
	if ordinal >= d.e.trailer.Sources {
		return nil, nil, 0, d.bad(sectionSources, "ordinal", fmt.Sprintf("below %d", d.e.trailer.Sources), ordinal)
	}
	o := offsets[ordinal*sourceEntrySize:]
	from, end := le.Uint32(o), le.Uint32(o[sourceEntrySize:])
	s := d.e.sections[sectionSources]
	switch {
	case from > end || end > s.Length:
		return nil, nil, 0, d.bad(sectionSourceOffsets, "source", fmt.Sprintf("at most %d", s.Length), fmt.Sprintf("%d to %d", from, end))
	case from == end:
		return nil, nil, 0, errAbsent
	}
	if from < d.at || end > d.at+uint32(len(d.ahead)) {
		n := end - from
		if d.many {
			n = min(max(n, readAhead), s.Length-from)
		}
		if uint32(cap(d.ahead)) < n {
			d.ahead = make([]byte, n)
		}
		d.ahead, d.at = d.ahead[:n], from
		if err := d.e.readInto(d.ahead, d.sectionAt(sectionSources)+from); err != nil {
			d.ahead = d.ahead[:0]
			return nil, nil, 0, err
		}
	}
	b := d.ahead[from-d.at : end-d.at]
	if sum := d.e.check(d.sectionAt(sectionSources)+from, b); sum != le.Uint32(o[4:]) {
		return nil, nil, 0, d.bad(sectionSources, fmt.Sprintf("check of source %d", ordinal), fmt.Sprintf("%#x", le.Uint32(o[4:])), fmt.Sprintf("%#x", sum))
	}
	_, rest, err := sourceLists(b)
	if err != nil {
		return nil, nil, 0, d.bad(sectionSources, fmt.Sprintf("source %d", ordinal), "a valid one", err)
	}
	record = b[:len(b)-len(rest)]
	if len(rest) < 12 || uint64(le.Uint32(rest[8:])) > uint64(len(rest)-12)/4 {
		return nil, nil, 0, d.bad(sectionSources, fmt.Sprintf("rows blocks of source %d", ordinal), fmt.Sprintf("as many as fit into %d bytes", len(rest)), "more")
	}
	exemplar, rest = le.Uint64(rest), rest[8:]
	posts = make([]uint32, le.Uint32(rest))
	for i := range posts {
		posts[i] = le.Uint32(rest[4+4*i:])
		if posts[i] >= d.e.trailer.Blocks || i > 0 && posts[i] <= posts[i-1] {
			return nil, nil, 0, d.bad(sectionSources, fmt.Sprintf("rows block of source %d", ordinal), fmt.Sprintf("below %d, ascending", d.e.trailer.Blocks), posts[i])
		}
	}
	return record, posts, exemplar, nil
}

// sectionAt is where a section lies in the extent.
func (d *diskIndex) sectionAt(i int) uint32 {
	return d.e.trailer.IndexOffset + BlockHeaderSize + d.e.sections[i].Offset
}

// idMemory is what sections of ids that are not kept are read into.
var idMemory = sync.Pool{New: func() any { return new([]byte) }}

func (d *diskIndex) ids(segment [16]byte) (all []uint32, err error) {
	var b []byte
	if large := !d.have[sectionIDs] && d.e.sections[sectionIDs].Length > keepSection; large {
		// It is not kept, and asked for one segment after the other: by who folds, and after a restart.
		m := idMemory.Get().(*[]byte)
		defer idMemory.Put(m)
		if b, err = d.e.sectionInto(*m, sectionIDs); cap(b) > 0 {
			*m = b[:0]
		}
	} else {
		b, err = d.section(sectionIDs)
	}
	if err != nil {
		return nil, err
	}
	if n := len(b); n%idEntrySize != 0 || uint64(n/idEntrySize) > uint64(d.e.trailer.Sources) {
		return nil, d.bad(sectionIDs, "length", fmt.Sprintf("at most %d entries of %d bytes", d.e.trailer.Sources, idEntrySize), n)
	}
	n := len(b) / idEntrySize
	for i := sort.Search(n, func(i int) bool { return bytes.Compare(b[i*idEntrySize:][:16], segment[:]) >= 0 }); i < n && [16]byte(b[i*idEntrySize:]) == segment; i++ {
		o := le.Uint32(b[i*idEntrySize+16:])
		if o >= d.e.trailer.Sources {
			return nil, d.bad(sectionIDs, "ordinal", fmt.Sprintf("below %d", d.e.trailer.Sources), o)
		}
		all = append(all, o)
	}
	return all, nil
}

// diskPair is one of section 7.
type diskPair struct{ name, value, ordinals []byte }

// pairCount reads sections 6 and 7.
func (d *diskIndex) pairCount() (int, error) {
	offsets, err := d.section(sectionPairOffsets)
	if err == nil {
		_, err = d.section(sectionPairs)
	}
	if err == nil && (len(offsets) < 4 || len(offsets)%4 != 0) {
		err = d.bad(sectionPairOffsets, "length", "a multiple of 4, at least 4", len(offsets))
	}
	return len(offsets)/4 - 1, err
}

// pairAt is one of those. The sections were read.
func (d *diskIndex) pairAt(i int) (p diskPair, err error) {
	offsets, all := d.loaded[sectionPairOffsets], d.loaded[sectionPairs]
	from, end := le.Uint32(offsets[4*i:]), le.Uint32(offsets[4*i+4:])
	if from > end || uint64(end) > uint64(len(all)) || end-from < 4 {
		return p, d.bad(sectionPairOffsets, fmt.Sprintf("pair %d", i), fmt.Sprintf("at least 4 bytes below %d", len(all)), fmt.Sprintf("%d to %d", from, end))
	}
	b := all[from:end]
	x, y := int(le.Uint16(b)), int(le.Uint16(b[2:]))
	if b = b[4:]; x+y > len(b) {
		return p, d.bad(sectionPairs, fmt.Sprintf("pair %d", i), fmt.Sprintf("name and value in %d bytes", len(b)), x+y)
	}
	return diskPair{b[:x], b[x : x+y], b[x+y:]}, nil
}

// ordinals decodes those of a pair. They are valid until the next.
func (d *diskIndex) ordinals(p diskPair) ([]uint32, error) {
	bad := func(what string, want, got any) ([]uint32, error) {
		return nil, d.bad(sectionPairs, fmt.Sprintf("%s of %q=%q", what, p.name, p.value), want, got)
	}
	b := p.ordinals
	count, n := binary.Uvarint(b)
	if n <= 0 || count > uint64(len(b)-n) {
		return bad("ordinals", fmt.Sprintf("at most %d", len(b)), count)
	}
	b = b[n:]
	all := d.scratch[:0]
	last := uint64(0)
	for i := range count {
		v, n := binary.Uvarint(b)
		if n <= 0 || v >= uint64(d.e.trailer.Sources)-last || i > 0 && v == 0 {
			return bad("ordinal", fmt.Sprintf("below %d, ascending", d.e.trailer.Sources), v)
		}
		b = b[n:]
		last += v
		all = append(all, uint32(last))
	}
	d.scratch = all
	return all, nil
}

// search finds the first pair that is not before a name and value.
func (d *diskIndex) search(name, value string) (at, n int, err error) {
	if n, err = d.pairCount(); err != nil {
		return 0, 0, err
	}
	at = sort.Search(n, func(i int) bool {
		p, e := d.pairAt(i)
		if e != nil {
			err = e
			return true
		}
		if string(p.name) != name {
			return string(p.name) > name
		}
		return string(p.value) >= value
	})
	return at, n, err
}

func (d *diskIndex) pair(name, value string) ([]uint32, error) {
	i, n, err := d.search(name, value)
	if err != nil || i == n {
		return nil, err
	}
	p, err := d.pairAt(i)
	if err != nil || string(p.name) != name || string(p.value) != value {
		return nil, err
	}
	return d.ordinals(p)
}

func (d *diskIndex) pairs(name string, f func(value string, ordinals []uint32) bool) error {
	i, n, err := d.search(name, "")
	for ; err == nil && i < n; i++ {
		var p diskPair
		if p, err = d.pairAt(i); err != nil || string(p.name) != name {
			return err
		}
		var all []uint32
		if all, err = d.ordinals(p); err == nil && !f(string(p.value), all) {
			return nil
		}
	}
	return err
}

// index is an extent's: of a sealed one whose index is broken that of a scan.
func (a *Archive) index(e *extent) (*extent, index) {
	if e.trailer == nil {
		return e, e.mem
	}
	if x, ok := a.reading.scanned.get(e.key()); ok {
		return x, x.mem
	}
	return e, &diskIndex{e: e, c: &a.reading.sections}
}

// withIndex calls f with an extent's index. If that is broken, f is called once more, with one made by a scan of the blocks: f begins
// anew then. f answers the index's errors alone. What fails in an extent that was evicted meanwhile is no fault, and nothing.
func (a *Archive) withIndex(e *extent, f func(e *extent, ix index) error) error {
	x, ix := a.index(e)
	err := f(x, ix)
	if err == nil || e.t.gone(e) {
		return nil
	}
	if x.trailer == nil {
		return err
	}
	e.t.skipped.Add(1)
	a.log.Warn("an extent's index can't be used, its blocks are read one by one", "tier", e.t.path, "extent", e.slot, "err", err)
	y := e.t.newExtent(e.slot, ExtentHeader{Generation: e.generation, Opened: e.opened})
	if err := y.unseal(); err != nil {
		if e.t.gone(e) {
			return nil
		}
		return err
	}
	y = a.reading.scanned.put(e.key(), y, y.mem.cost(), keepScanned)
	return f(y, y.mem)
}

// cost is about how many bytes of memory an index takes.
func (m *memIndex) cost() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	n := len(m.records) + len(m.sourceAt)*(16+24+48) + len(m.keys)*24 + len(m.pairHash)*8 + (len(m.rows)+len(m.exemplarsAt))*blockEntrySize
	for i := range m.sourceAt {
		n += 4 * cap(m.sourceAt[i].posts)
	}
	return n
}
