package archive

import (
	"slices"
	"sync"
)

// Blocks that are kept for as long as what one Select found is in use: sources of one cohort are read one behind the other.
const keepBlocks = 16 << 20

// session are the blocks that were read for what one Select found.
type session struct {
	mu     sync.Mutex
	blocks map[blockKey]*rowsBlock
	size   int
	last   planned // sources of one cohort have one schema, and are mostly asked for the same
	shared *Shared // whose memory it uses; nil: its own
}

type blockKey struct {
	e      *extent
	offset uint32
}

// block is a rows block's head. A nil session keeps nothing.
func (s *session) block(e *extent, ref blockRef, schema *Schema) (*rowsBlock, error) {
	if s == nil {
		return e.readHead(ref, schema)
	}
	k := blockKey{e, ref.offset}
	s.mu.Lock()
	b := s.blocks[k]
	s.mu.Unlock()
	if b != nil {
		return b, nil
	}
	b, err := e.readHead(ref, schema)
	if err != nil {
		return nil, err
	}
	b.keep = s
	b.cost = 300 + len(b.sources)*SourceRowsSize + 4*len(b.ends)
	s.mu.Lock()
	defer s.mu.Unlock()
	if known := s.blocks[k]; known != nil {
		return known, nil
	}
	if s.blocks == nil {
		s.blocks = map[blockKey]*rowsBlock{}
	}
	s.blocks[k] = b
	s.size += b.cost
	s.shrink()
	return b, nil
}

// grow reckons runs that a block has read.
func (s *session) grow(b *rowsBlock, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blocks[blockKey{b.e, b.ref.offset}] == b { // else it was dropped, and lives while it is in use
		b.cost += n
		s.size += n
		s.shrink()
	}
}

// shrink drops blocks at random: they are read round and round, and what was not used for longest is what will be used next.
func (s *session) shrink() {
	for k, b := range s.blocks {
		if s.size <= keepBlocks {
			return
		}
		delete(s.blocks, k)
		s.size -= b.cost
	}
}

// planned is where columns are in a schema.
type planned struct {
	schema  *Schema
	columns []Column
	plan    []fieldPlan
}

// plan is planColumns', which goes through all series for each column, once for all that ask the same.
func (s *session) plan(schema *Schema, columns []Column) []fieldPlan {
	if s == nil {
		return planColumns(schema, columns)
	}
	s.mu.Lock()
	last := s.last
	s.mu.Unlock()
	if last.schema == schema && slices.Equal(last.columns, columns) {
		return last.plan
	}
	plan := planColumns(schema, columns)
	s.mu.Lock()
	s.last = planned{schema, slices.Clone(columns), plan} // the caller may use its columns' memory again
	s.mu.Unlock()
	return plan
}

// end lets go of all blocks, and answers them: nobody reads them any more.
func (s *session) end() (all []*rowsBlock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.blocks {
		all = append(all, b)
	}
	s.blocks, s.size = nil, 0
	return all
}

// memory is for some runs of a block, of so many bytes and so many sources. A nil session has none of its own.
func (s *session) memory(runs, size, sources int) *loaded {
	var l *loaded
	if s != nil && s.shared != nil && runs >= manyRuns {
		l = s.shared.memory(size)
	} else {
		l = &loaded{data: make([]byte, size)}
	}
	l.runs, l.of = slices.Grow(l.runs[:0], runs)[:runs], slices.Grow(l.of[:0], runs)[:runs]
	clear(l.runs)
	clear(l.of)
	l.at = slices.Grow(l.at[:0], runs*sources)[:runs*sources]
	return l
}
