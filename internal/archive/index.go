package archive

import (
	"errors"
	"slices"
)

// An index finds what an extent holds. A sealed extent's lies on disk behind its blocks, the open one's is
// kept in memory while it grows. Both are safe for concurrent use, and what they answer is not changed.
type index interface {
	// mayHave is false only if the extent has no such filter key: see segmentKey and pairKey.
	mayHave(key uint64) bool
	// blocks are the rows blocks, in their order.
	blocks() ([]blockRef, error)
	// exemplars are the exemplars blocks, in their order.
	exemplars() ([]exemplarsRef, error)
	// entry is a source by ordinal, as it lies on disk (see cutSource), with the positions in blocks() that have rows of it, and the number
	// of its last exemplar in the extent, 0 if there is none.
	entry(ordinal uint32) (record []byte, posts []uint32, exemplar uint64, err error)
	// ids are the ordinals of a segment's sources: one for each epoch and copy.
	ids(segment [16]byte) ([]uint32, error)
	// pair are the ordinals, ascending, of sources with a label; pairs those of each value of one, in the values' order, until f answers false.
	pair(name, value string) ([]uint32, error)
	pairs(name string, f func(value string, ordinals []uint32) bool) error
	// schemas by ordinal. One that no valid block gave has offset 0.
	schemas() ([]schemaRef, error)
	// sources is how many ordinals there are. A source that no valid block gave is errAbsent.
	sources() int
}

// blockRef is a rows block in the index. FORMAT.md 18, section 1.
type blockRef struct {
	offset, length, schema, sources uint32
	tmin, tmax                      int64 // ms
}

// schemaRef is a schema in the index. FORMAT.md 18, section 4.
type schemaRef struct {
	hash                  [16]byte
	offset, table, series uint32 // of the schema's block
}

// exemplarsRef is an exemplars block in the index. FORMAT.md 18, section 8.
type exemplarsRef struct {
	offset, length, parts, exemplars uint32
	tmin, tmax                       int64 // ms
}

var errAbsent = errors.New("no valid block gives this ordinal")

func (m *memIndex) entry(ordinal uint32) (record []byte, posts []uint32, exemplar uint64, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if record = m.sourceRecord(ordinal); record == nil {
		return nil, nil, 0, errAbsent
	}
	s := &m.sourceAt[ordinal]
	return slices.Clip(record), slices.Clip(s.posts), s.exemplar, nil
}

func (m *memIndex) exemplars() ([]exemplarsRef, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return slices.Clip(m.exemplarsAt), nil
}
