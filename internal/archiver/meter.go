package archiver

import (
	"sync"
	"time"

	"github.com/shmts/shmts/internal/archive"
)

// meter is an archive.Writer that counts what is written, by tier, and tells who wrote it.
type meter struct {
	archive.Writer
	wrote func(uid, tier int, bytes int64)

	mu    sync.Mutex
	tiers []TierStats
}

func newMeter(w archive.Writer) *meter {
	m := &meter{Writer: w}
	for _, t := range w.Tiers() {
		m.tiers = append(m.tiers, TierStats{Step: t.Step})
	}
	return m
}

// Append implements archive.Writer.
func (m *meter) Append(tier int, blocks ...*archive.Block) error {
	begin, before := time.Now(), m.End(tier)
	if err := m.Writer.Append(tier, blocks...); err != nil {
		return err
	}
	took, n := time.Since(begin), length(before, m.End(tier))
	m.mu.Lock()
	t := &m.tiers[tier]
	t.Bytes += uint64(n)
	t.Time += took
	for _, b := range blocks {
		t.Blocks++
		rows := uint64(0)
		for i := range b.Sources {
			rows += uint64(len(b.Sources[i].Times))
		}
		t.Rows += rows
		t.Samples += rows * uint64(len(b.Schema.Series))
	}
	m.mu.Unlock()
	if len(blocks) > 0 && len(blocks[0].Sources) > 0 {
		m.wrote(blocks[0].Sources[0].Source.UID, tier, n)
	}
	return nil
}

// AppendExemplars implements archive.Writer.
func (m *meter) AppendExemplars(parts ...archive.Exemplars) error {
	before := m.End(0)
	if err := m.Writer.AppendExemplars(parts...); err != nil || len(parts) == 0 {
		return err
	}
	m.wrote(parts[0].Source.UID, 0, length(before, m.End(0)))
	return nil
}

// extentHeader is where an extent's first block begins: FORMAT.md 14.3.
const extentHeader = 64

// length is how many bytes lie between two ends of a tier, the index of an extent that was sealed in between not counted.
func length(before, after archive.Mark) int64 {
	if before.Generation == after.Generation {
		return int64(after.Offset - before.Offset)
	}
	return int64(after.Offset - extentHeader)
}

func (m *meter) stats() []TierStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]TierStats(nil), m.tiers...)
}
