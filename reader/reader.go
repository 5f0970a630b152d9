// Package reader reads shmts segments: it finds them, tells the living from
// the dead, and hands out rows as private copies. It is for the daemon, for
// tools, and for orchestrators that decide from local data.
//
// Nothing a segment says can crash, block or grow its reader: FORMAT.md 2, 8
// and 11 are held against every byte. The package starts no goroutine, logs
// nothing and sets no globals. A Store belongs to one goroutine at a time. A
// Segment may be used by several at once, also while the store that it is of
// polls; a Row belongs to who asked for it.
package reader

import (
	"time"

	"github.com/shmts/shmts/layout"
)

// Kind, Number and Pair are the format's own words.
type (
	Kind   = layout.Kind
	Number = layout.Number
	Pair   = layout.Pair
)

// The kinds and number types of FORMAT.md 6.2.
const (
	Counter   = layout.Counter
	UpDown    = layout.UpDown
	Gauge     = layout.Gauge
	Stat      = layout.Stat
	Histogram = layout.Histogram

	U64 = layout.U64
	I64 = layout.I64
	F64 = layout.F64
)

// Tier is a ring of rows at one step.
type Tier struct {
	Step time.Duration
	Rows int // capacity
}

// Table is a set of series that share tiers.
type Table struct {
	Name  string
	Tiers []Tier
}

// Options of Open. The zero value reads $SHMTS_DIR, else /dev/shm/shmts.
type Options struct {
	Dir string // the store; see Dir

	// TrustUIDs names the users, beside this process's own, whose segments may be
	// mapped. Others are read with pread, which no truncation can hurt.
	TrustUIDs []int
	// NoMap reads everything with pread.
	NoMap bool
	// AnyOwner accepts a store directory that belongs to neither root nor this process's user.
	AnyOwner bool
	// SkipSampled leaves the series of segments whose writers never tick (FORMAT.md 10.8) unread: they have no rows
	// to be found in. It is for who shadows them, and reads their shadows.
	SkipSampled bool
	// Rescan is the safety net under inotify: how often a Poll scans the store whatever inotify says. 0: 10 s.
	Rescan time.Duration

	// MaxFiles bounds the descriptors kept, one for each segment; those of segments beyond are opened and closed
	// at each use (3 us, and such a segment can't be read any more once it is unlinked). 0: half of RLIMIT_NOFILE; less than 0: none is kept.
	MaxFiles int
	// MapBytes bounds what is mapped, all segments together, since mapped pages count as this process's memory;
	// segments beyond are read with pread. 0: 64 MiB; less than 0: none is mapped whole.
	MapBytes int64
	// ControlBytes bounds what is mapped of segments that are not mapped whole: the page of the control block, all that a Poll
	// looks at while nothing is registered. It spares it a call to the kernel for each. 0: none.
	ControlBytes int64
	// SeriesBytes bounds what is kept of one segment's names, labels and help; series beyond are skipped and
	// counted. 0: 32 MiB.
	SeriesBytes int64
	// PerUser bounds what the segments of one user take, Total what those of all do. A segment that would take its user
	// beyond is refused with a *BudgetError and looked at again once there is room; series that one registers later, and
	// that would, are skipped and counted. First come, first served; nobody's segments are refused for what another user has
	// beyond his. Of Total a user gets no more than he leaves free: half of it, if he is alone. 0 in a field:
	// DefaultPerUser's and DefaultTotal's.
	PerUser, Total Budget
}

// Events is what a Poll found.
type Events struct {
	New     []*Segment
	Changed []*Segment // series were registered or retired
	Ended   []*Segment // the writer closed or died (perhaps before it was New, in the same Poll); still readable until Unlink or Release
	Gone    []*Segment // unlinked by somebody, released, or refused from now on; still readable, and closed by the next Poll
	Refused []Refusal  // newly refused: corrupt, of another version, unsafe, over budget; retried with backoff, or when there is room
}

// Refusal is a file that is not read, and why.
type Refusal struct {
	Path string
	Err  error
}
