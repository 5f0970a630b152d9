package reader

// Words are a series' cells in the row, as FORMAT.md 6.2 has them: of a stat count, sum, last, min, max; of a histogram
// sum, zero, buckets, above; of all others the value. What was never set is there as Number.Unset's pattern. They
// are a part of the row's memory, and may not be changed. false if the row does not hold the series.
func (r *Row) Words(s *Series) ([]uint64, bool) {
	if s.Table != r.Table || !s.in(r.BaseRow, len(r.cells)) {
		return nil, false
	}
	n := 1
	if s.Kind >= Stat {
		n = s.cells()
	}
	return r.cells[s.rowCell:][:n:n], true
}

// Holds tells whether any base row numbered from first to last may hold the series.
func (s *Series) Holds(first, last uint64) bool {
	if last < s.bornRow {
		return false
	}
	if s.retiredRow == nil {
		return true
	}
	r := s.retiredRow.Load()
	return r == 0 || first < r
}
