package reader

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/shmts/shmts/layout"
)

// A writer may leave ticking to a daemon, which samples its live cells into a shadow: a segment of the
// daemon's own that speaks for the other one. FORMAT.md 10.8. What is known of both is here.

// Shadow tells whether the segment is the shadow of another, which never ticks: its ID, UID, Group, Start, labels
// and series are that one's, its rows are what a daemon sampled. A store shows both; the sampled one has no rows.
// A shadow of root's or of this process's own user is believed, any other is refused.
func (g *Segment) Shadow() bool { return g.shadow }

// Owner is the file's owner, by fstat: also of a shadow, whose UID is another.
func (g *Segment) Owner() int { return g.uid }

// Header is the segment's, for who samples it. It must not be changed.
func (g *Segment) Header() *layout.Header { return g.h }

// Copy copies len(dst) words of the segment from byte offset off on, a multiple of 8: live words, as they are just now.
// An error says that they are not there any more.
func (g *Segment) Copy(dst []uint64, off uint64) error {
	v, err := g.win.use()
	if err != nil {
		return err
	}
	defer v.done()
	return named(v.copy(dst, off), g.path)
}

// believe refuses a shadow of somebody who may not speak for others.
func (s *Store) believe(g *Segment) error {
	if g.shadow && g.uid != 0 && g.uid != s.euid {
		return &unsafeError{g.path, fmt.Sprintf("a shadow to belong to root or uid %d", s.euid), fmt.Sprintf("uid %d", g.uid)}
	}
	g.lean = s.o.SkipSampled && g.Sampled()
	return nil
}

// shadowEnded says how the writer ended that a closed shadow speaks for: its last words are flagged as estimated.
func (g *Segment) shadowEnded(v *view) Liveness {
	sc := takeScratch()
	defer sc.give()
	heads := g.hints()
	for table := range g.tables {
		if len(g.tables[table].Tiers) > 0 && heads[table][0] > 0 && g.row(v, sc, table, 0, heads[table][0]) && sc.row.Estimated {
			return Dead
		}
	}
	return Closed
}

// newestAsLive is a shadow's newest row as a sample: it has no live cells. g.mu is held.
func (g *Segment) newestAsLive(v *view, table int) (*Row, error) {
	sc := takeScratch()
	defer sc.give()
	head := g.Head(table, 0)
	if head == 0 || !g.row(v, sc, table, 0, head) {
		return nil, fmt.Errorf("shmts: segment %s: table %d: want a row of the shadow, got none yet: %w", g.path, table, ErrNoRows)
	}
	row := sc.row.Clone()
	row.No, row.Begin, row.Time, row.Mono = 0, 0, 0, 0
	return row, nil
}

// thisBoot is the kernel's id of this boot, zero if it can't be had.
var thisBoot = sync.OnceValue(func() (id [16]byte) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err == nil && len(b) == len(id) {
		copy(id[:], b)
	}
	return id
})

// anotherBoot tells whether a segment's writer can't be alive, since its host was booted after it. FORMAT.md 10.5.
func anotherBoot(id [16]byte) bool {
	here := thisBoot()
	return id != [16]byte{} && here != [16]byte{} && id != here
}
