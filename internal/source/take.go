package source

import "github.com/shmts/shmts/reader"

// What an archive asks of a segment: who it is, and rows together with what they mean.

// UID is the owner of the segment's file, by fstat.
func (s *Segment) UID() int { return s.life.g.UID() }

// Inode tells files apart: see reader.Segment.Inode.
func (s *Segment) Inode() (dev, ino uint64) { return s.life.g.Inode() }

// BootID is the host's when the segment was born, as 32 hexadecimal digits; zeros if unknown.
func (s *Segment) BootID() string { return s.life.g.BootID() }

// Epoch is the control block's, as of the last poll. A row has the low 16 bits of its own. FORMAT.md 10.9.
func (s *Segment) Epoch() uint32 { return s.life.g.Epoch() }

// Take yields rows of a tier as Rows does, together with what they mean: begin is told the segment's series, the tier's
// head and the epoch, all as of one poll, which no row yielded is newer than, and answers the number of the first row
// wanted, or false. The answer is false if the segment is no longer there. begin runs under the same locks as yield.
func (s *Segment) Take(table, tier int, begin func(series []*reader.Series, head uint64, epoch uint32) (from uint64, ok bool), yield func(*reader.Row) bool) bool {
	if !s.life.lock() {
		return false
	}
	defer s.life.unlock()
	g := s.life.g
	if from, ok := begin(g.Series(), g.Head(table, tier), g.Epoch()); ok {
		g.Rows(table, tier, from)(yield)
	}
	return true
}
