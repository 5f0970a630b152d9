package archive

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"sync"
)

// memIndex is the index of an extent that is not sealed, filled by Append and by the scan of recovery. What a source
// is, is kept as it lies on disk. What was answered is only ever appended to.
type memIndex struct {
	mu          sync.RWMutex
	rows        []blockRef
	exemplarsAt []exemplarsRef
	schemaAt    []memSchema // by ordinal
	byHash      map[[16]byte]uint32
	records     []byte      // of all sources, one behind the other
	sourceAt    []memSource // by ordinal
	first       map[[16]byte]uint32
	keys        map[uint64]struct{} // of the filter
	pairHash    []uint64            // pairKey of each label of each source, in their order
	room        int                 // what the sections take at most, without their ordinals'
	mark        Mark                // the newest in the extent
	tmin        int64               // ms, of all rows
	tmax        int64
}

type memSource struct {
	record   uint32 // where in records + 1; 0: absent
	next     uint32 // the next source of the same segment + 1; 0: none
	pairs    uint32 // where its hashes end in pairHash
	posts    []uint32
	exemplar uint64 // number of its last one; 0: none
}

type memSchema struct {
	schemaRef
	fields, folded int // runs of its series
}

var _ index = (*memIndex)(nil)

func newMemIndex() *memIndex {
	return &memIndex{byHash: map[[16]byte]uint32{}, first: map[[16]byte]uint32{}, keys: map[uint64]struct{}{}}
}

func (m *memIndex) mayHave(key uint64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.keys[key]
	return ok
}

func (m *memIndex) blocks() ([]blockRef, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clip(m.rows), nil
}

func (m *memIndex) schemas() ([]schemaRef, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make([]schemaRef, len(m.schemaAt))
	for i := range all {
		all[i] = m.schemaAt[i].schemaRef
	}
	return all, nil
}

func (m *memIndex) sources() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.sourceAt)
}

// record is a source's, and what follows in memory. With the lock held.
func (m *memIndex) record(ordinal uint32) []byte {
	if int(ordinal) >= len(m.sourceAt) || m.sourceAt[ordinal].record == 0 {
		return nil
	}
	return m.records[m.sourceAt[ordinal].record-1:]
}

func (m *memIndex) ids(segment [16]byte) (all []uint32, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for o, ok := m.first[segment]; ok; {
		all = append(all, o)
		next := m.sourceAt[o].next
		o, ok = next-1, next > 0
	}
	return all, nil
}

// lookup is the ordinal of a key.
func (m *memIndex) lookup(k Key) (uint32, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for o, ok := m.first[k.Segment]; ok; {
		if keyOf(m.record(o)) == k {
			return o, true
		}
		next := m.sourceAt[o].next
		o, ok = next-1, next > 0
	}
	return 0, false
}

func (m *memIndex) schemaCount() uint32 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return uint32(len(m.schemaAt))
}

// sourceRoom is by how much the index grows at most with a source.
func (m *memIndex) sourceRoom(record []byte) int {
	n := len(record) + roomSource + sourceEntrySize
	m.mu.RLock()
	defer m.mu.RUnlock()
	if lists, _, err := sourceLists(record); err == nil {
		_, _ = eachPair(lists, func(name, value []byte) {
			n += roomPairOf
			if _, known := m.keys[pairKey(name, value)]; !known {
				n += roomPair + len(name) + len(value)
			}
		})
	}
	return n
}

func (m *memIndex) pair(name, value string) (all []uint32, err error) {
	h := pairKey(name, value)
	m.mu.RLock()
	defer m.mu.RUnlock()
	if _, ok := m.keys[h]; !ok {
		return nil, nil
	}
	at := uint32(0)
	for o := range m.sourceAt {
		end := m.sourceAt[o].pairs
		if slices.Contains(m.pairHash[at:end], h) && m.has(uint32(o), name, value) {
			all = append(all, uint32(o))
		}
		at = end
	}
	return all, nil
}

// has tells whether a source has a label. With the lock held.
func (m *memIndex) has(ordinal uint32, name, value string) (found bool) {
	lists, _, err := sourceLists(m.record(ordinal))
	if err == nil {
		_, _ = eachPair(lists, func(n, v []byte) { found = found || string(n) == name && string(v) == value })
	}
	return found
}

// ownPair is a label of one source.
type ownPair struct {
	name, value []byte
	source      uint32
}

// own are the labels of all sources, of one name or of any, sorted by name, value and ordinal.
func (m *memIndex) own(name string) []ownPair {
	m.mu.RLock()
	var all []ownPair
	for o := range m.sourceAt {
		if lists, _, err := sourceLists(m.record(uint32(o))); err == nil {
			_, _ = eachPair(lists, func(n, v []byte) {
				if name == "" || string(n) == name {
					all = append(all, ownPair{n, v, uint32(o)})
				}
			})
		}
	}
	m.mu.RUnlock()
	slices.SortStableFunc(all, func(x, y ownPair) int {
		if c := bytes.Compare(x.name, y.name); c != 0 {
			return c
		}
		return bytes.Compare(x.value, y.value)
	})
	return all
}

// eachValue cuts sorted pairs where name or value changes.
func eachValue(all []ownPair, f func(same []ownPair) bool) {
	for len(all) > 0 {
		n := 1
		for n < len(all) && bytes.Equal(all[n].value, all[0].value) && bytes.Equal(all[n].name, all[0].name) {
			n++
		}
		if !f(all[:n]) {
			return
		}
		all = all[n:]
	}
}

func (m *memIndex) pairs(name string, f func(value string, ordinals []uint32) bool) error {
	eachValue(m.own(name), func(same []ownPair) bool {
		ordinals := make([]uint32, len(same))
		for i := range same {
			ordinals[i] = same[i].source
		}
		return f(string(same[0].value), ordinals)
	})
	return nil
}

// What an index takes on disk beyond its ordinals, bytes at most: of a source beside its record, of a pair beside its text, of a
// pair once more, of a rows block and of each of its sources.
const (
	roomSource = 8 + 4 + 4 + idEntrySize + 2 // last exemplar, k, padding, id, filter
	roomPair   = 4 + 4 + 3 + 2               // offset, lengths, count, filter
	roomPairOf = 3                           // an ordinal below 2^20 as a uvarint
	roomBlock  = blockEntrySize
	roomPost   = 4
	roomFixed  = BlockHeaderSize + indexHeadSize + indexSections*align + sourceEntrySize + 4 + align // alignment, last offsets, the filter's
)

// indexRoom is what the index's block takes at most.
func (m *memIndex) indexRoom() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return roomFixed + m.room + len(m.schemaAt)*schemaEntrySize + len(m.sourceAt)*sourceEntrySize
}

// addSources takes in the body of a sources block, or nothing of it.
func (m *memIndex) addSources(first, count uint32, body []byte) error {
	if uint64(first)+uint64(count) > maxOrdinals {
		return fmt.Errorf("sources: want ordinals below %d, got %d + %d", maxOrdinals, first, count)
	}
	rest := body
	for range count {
		var err error
		if _, rest, err = cutSource(rest); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserve(first)
	for i := range count {
		_, rest, _ := sourceLists(body)
		m.addSource(first+i, body[:len(body)-len(rest)])
		body = rest
	}
	return nil
}

// reserve makes room for ordinals below one: those that no valid block gives stay absent. With the lock held.
func (m *memIndex) reserve(ordinals uint32) {
	for uint32(len(m.sourceAt)) < ordinals {
		m.sourceAt = append(m.sourceAt, memSource{pairs: uint32(len(m.pairHash))})
	}
}

func (m *memIndex) addSource(o uint32, record []byte) {
	if int(o) < len(m.sourceAt) { // the first one counts, and an ordinal that was passed over stays absent: rows of it may be those of another
		return
	}
	s := memSource{record: uint32(len(m.records)) + 1}
	m.records = append(m.records, record...)
	m.room += len(record) + roomSource
	id := [16]byte(record)
	if first, ok := m.first[id]; ok {
		s.next = first + 1
	}
	m.first[id] = o
	m.keys[segmentKey(id)] = struct{}{}
	if lists, _, err := sourceLists(record); err == nil {
		_, _ = eachPair(lists, func(name, value []byte) {
			h := pairKey(name, value)
			m.pairHash = append(m.pairHash, h)
			m.room += roomPairOf
			if _, known := m.keys[h]; !known {
				m.keys[h] = struct{}{}
				m.room += roomPair + len(name) + len(value)
			}
		})
	}
	s.pairs = uint32(len(m.pairHash))
	m.sourceAt = append(m.sourceAt, s)
}

// addSchema takes in a schema, whose block lies at an offset.
func (m *memIndex) addSchema(ordinal, offset uint32, s *Schema) error {
	if ordinal >= maxOrdinals {
		return fmt.Errorf("schema: want an ordinal below %d, got %d", maxOrdinals, ordinal)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reserveSchemas(ordinal)
	if int(ordinal) < len(m.schemaAt) {
		return nil
	}
	m.byHash[s.Hash] = ordinal
	m.schemaAt = append(m.schemaAt, memSchema{schemaRef{s.Hash, offset, uint32(s.Table), uint32(len(s.Series))}, s.fields(false), s.fields(true)})
	return nil
}

func (m *memIndex) reserveSchemas(ordinals uint32) {
	for uint32(len(m.schemaAt)) < ordinals {
		m.schemaAt = append(m.schemaAt, memSchema{})
	}
}

// addRows takes in a rows block whose head was read.
func (m *memIndex) addRows(offset uint32, h *BlockHeader, sources []SourceRows) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if int(h.First) >= len(m.schemaAt) || m.schemaAt[h.First].offset == 0 {
		return fmt.Errorf("schema %d: %w", h.First, errAbsent)
	}
	runs := m.schemaAt[h.First].fields
	if h.Flags&flagFolded != 0 {
		runs = m.schemaAt[h.First].folded
	}
	if int(h.Runs) != runFields+runs {
		return fmt.Errorf("runs: want %d for schema %d, got %d", runFields+runs, h.First, h.Runs)
	}
	for _, s := range sources {
		if m.record(s.Source) == nil {
			return fmt.Errorf("source %d: %w", s.Source, errAbsent)
		}
	}
	at := uint32(len(m.rows))
	for i, s := range sources {
		if posts := m.sourceAt[s.Source].posts; len(posts) > 0 && posts[len(posts)-1] == at {
			for _, before := range sources[:i] {
				posts := &m.sourceAt[before.Source].posts
				if k := len(*posts); k > 0 && (*posts)[k-1] == at {
					*posts = (*posts)[: k-1 : k-1]
				}
			}
			return fmt.Errorf("source %d: want it once in the block, got it twice", s.Source)
		}
		m.sourceAt[s.Source].posts = append(m.sourceAt[s.Source].posts, at)
	}
	if len(m.rows) == 0 || h.TMin < m.tmin {
		m.tmin = h.TMin
	}
	if len(m.rows) == 0 || h.TMax > m.tmax {
		m.tmax = h.TMax
	}
	m.rows = append(m.rows, blockRef{offset, h.Length, h.First, h.Count, h.TMin, h.TMax})
	m.room += roomBlock + roomPost*len(sources)
	return nil
}

// addExemplars takes in an exemplars block whose head was read.
func (m *memIndex) addExemplars(offset uint32, h *BlockHeader, parts []ExemplarPart) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range parts {
		if int(p.Schema) >= len(m.schemaAt) || m.schemaAt[p.Schema].offset == 0 {
			return fmt.Errorf("schema %d: %w", p.Schema, errAbsent)
		}
		if m.record(p.Source) == nil {
			return fmt.Errorf("source %d: %w", p.Source, errAbsent)
		}
	}
	for _, p := range parts {
		s := &m.sourceAt[p.Source]
		s.exemplar = max(s.exemplar, p.LastNo)
	}
	m.exemplarsAt = append(m.exemplarsAt, exemplarsRef{offset, h.Length, h.Count, h.Runs, h.TMin, h.TMax})
	m.room += roomBlock
	return nil
}

// schemaOrdinal is a schema's.
func (m *memIndex) schemaOrdinal(hash [16]byte) (uint32, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.byHash[hash]
	return o, ok
}

// appendIndex appends the block of the index, which is to lie at an offset of an extent. FORMAT.md 18.
func (m *memIndex) appendIndex(b []byte, seed seed, offset uint32) []byte {
	block := len(b)
	b = append(b, make([]byte, BlockHeaderSize+indexHeadSize)...)
	body := block + BlockHeaderSize
	le.PutUint32(b[body:], indexSections)
	pairs := m.own("")

	m.mu.RLock()
	defer m.mu.RUnlock()
	from := 0 // where the section begins in b
	entry := func(i, from, end int) {
		e, o := b[body+8+i*indexEntrySize:], uint32(from-body)
		le.PutUint32(e, o)
		le.PutUint32(e[4:], uint32(end-from))
		le.PutUint32(e[8:], seed.check(offset+BlockHeaderSize+o, b[from:end]))
	}
	done := func(i int) {
		entry(i, from, len(b))
		b = pad(b, block)
		from = len(b)
	}
	from = len(b)
	if n := len(m.keys); n > 0 { // 10 bits a key
		b = append(b, make([]byte, aligned((n*10+7)/8))...)
		for key := range m.keys {
			filterAdd(b[from:], key)
		}
	}
	done(sectionFilter)
	for _, r := range m.rows {
		for _, v := range []uint32{r.offset, r.length, r.schema, r.sources} {
			b = le.AppendUint32(b, v)
		}
		b = le.AppendUint64(b, uint64(r.tmin))
		b = le.AppendUint64(b, uint64(r.tmax))
	}
	done(sectionBlocks)
	offsets := from
	b = append(b, make([]byte, (len(m.sourceAt)+1)*sourceEntrySize)...)
	from = len(b)
	for o := range m.sourceAt {
		at := len(b)
		if record := m.sourceRecord(uint32(o)); record != nil {
			b = append(b, record...)
			b = le.AppendUint64(b, m.sourceAt[o].exemplar)
			b = le.AppendUint32(b, uint32(len(m.sourceAt[o].posts)))
			for _, p := range m.sourceAt[o].posts {
				b = le.AppendUint32(b, p)
			}
			b = pad(b, from)
		}
		e := b[offsets+o*sourceEntrySize:]
		le.PutUint32(e, uint32(at-from))
		le.PutUint32(e[4:], seed.check(offset+uint32(at-block), b[at:]))
	}
	le.PutUint32(b[offsets+len(m.sourceAt)*sourceEntrySize:], uint32(len(b)-from))
	entry(sectionSourceOffsets, offsets, from)
	done(sectionSources)
	for i := range m.schemaAt {
		s := &m.schemaAt[i]
		b = append(b, s.hash[:]...)
		for _, v := range []uint32{s.offset, s.table, s.series, 0} {
			b = le.AppendUint32(b, v)
		}
	}
	done(sectionSchemas)
	ids := make([]uint32, 0, len(m.sourceAt))
	for o := range m.sourceAt {
		if m.sourceAt[o].record > 0 {
			ids = append(ids, uint32(o))
		}
	}
	slices.SortStableFunc(ids, func(x, y uint32) int { return bytes.Compare(m.record(x)[:16], m.record(y)[:16]) })
	for _, o := range ids {
		b = append(b, m.record(o)[:16]...)
		b = le.AppendUint32(b, o)
	}
	done(sectionIDs)
	at := uint32(0)
	eachValue(pairs, func(same []ownPair) bool {
		b = le.AppendUint32(b, at)
		at += uint32(4 + len(same[0].name) + len(same[0].value) + uvarintSize(uint64(len(same))))
		last := uint32(0)
		for _, p := range same {
			at += uint32(uvarintSize(uint64(p.source - last)))
			last = p.source
		}
		return true
	})
	b = le.AppendUint32(b, at)
	done(sectionPairOffsets)
	eachValue(pairs, func(same []ownPair) bool {
		b = le.AppendUint16(b, uint16(len(same[0].name)))
		b = le.AppendUint16(b, uint16(len(same[0].value)))
		b = append(append(b, same[0].name...), same[0].value...)
		b = binary.AppendUvarint(b, uint64(len(same)))
		last := uint32(0)
		for _, p := range same {
			b = binary.AppendUvarint(b, uint64(p.source-last))
			last = p.source
		}
		return true
	})
	done(sectionPairs)
	for _, r := range m.exemplarsAt {
		for _, v := range []uint32{r.offset, r.length, r.parts, r.exemplars} {
			b = le.AppendUint32(b, v)
		}
		b = le.AppendUint64(b, uint64(r.tmin))
		b = le.AppendUint64(b, uint64(r.tmax))
	}
	done(sectionExemplars)
	h := BlockHeader{Magic: blockMagic, Type: blockIndex}
	seed.finish(b[block:], offset, &h)
	return b
}

// sourceRecord is a source's record with its lists. With the lock held.
func (m *memIndex) sourceRecord(ordinal uint32) []byte {
	record := m.record(ordinal)
	if record == nil {
		return nil
	}
	_, rest, _ := sourceLists(record)
	return record[:len(record)-len(rest)]
}

func uvarintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }
