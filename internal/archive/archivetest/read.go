package archivetest

import (
	"iter"
	"math"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/reader"
)

// gauge is what a row that is not folded says of a gauge's field.
func gauge(s *reader.Series, f archive.Field, word uint64) uint64 {
	switch {
	case f == archive.Count:
		return 1
	case f == archive.Sum && s.Number == reader.I64:
		return math.Float64bits(float64(int64(word)))
	}
	return word
}

// Blocks implements archive.Reader.
func (m *Memory) Blocks(tier int, from archive.Mark) iter.Seq2[*archive.BlockInfo, error] {
	return func(yield func(*archive.BlockInfo, error) bool) {
		m.mu.RLock()
		all := append([]stored(nil), m.tiers[tier]...)
		m.mu.RUnlock()
		for _, s := range all {
			if s.at.Generation < from.Generation || s.at.Generation == from.Generation && s.at.Offset < from.Offset {
				continue
			}
			b := s.block
			info := &archive.BlockInfo{Mark: s.at, Length: 8, Schema: b.Schema, Step: b.Step, Folded: b.Folded, Members: b.Members, From: math.MaxInt64, To: math.MinInt64}
			for _, r := range b.Sources {
				n := len(r.Numbers)
				info.Sources = append(info.Sources, archive.BlockSource{Source: r.Source, First: r.Numbers[0], Rows: n, Copied: r.Copied,
					Position: archive.Position{Last: r.Numbers[n-1], Base: r.Base, Time: r.Times[n-1], Ended: r.Final || r.Estimated}})
				for _, t := range r.Times {
					info.From, info.To = min(info.From, t), max(info.To, t)
				}
			}
			if !yield(info, nil) {
				return
			}
		}
	}
}
