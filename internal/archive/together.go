package archive

import "slices"

// Together has incarnations that several Finds answered share what is read for them, as those that one Select found do: sources of one
// cohort lie in the same blocks, and each is then read behind the one before, without going through all of the block again. It holds up to
// 16 MiB of blocks until the incarnations are let go of, and is not to be called while one of them is being read.
func Together(incs ...*Incarnation) {
	var s *session
	for _, inc := range incs {
		if p, ok := inc.parts.(*parts); ok && p.session != nil {
			s = p.session
			break
		}
	}
	if s == nil {
		s = &session{}
	}
	for _, inc := range incs {
		if p, ok := inc.parts.(*parts); ok {
			p.session = s
		}
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
