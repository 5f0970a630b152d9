// Package shadow keeps a history of segments whose writers never tick: FORMAT.md 10.8. Once a step it samples
// their live cells and publishes them as rows, by the code that every tick is made of, into a segment of its own, the
// shadow, which speaks for the sampled one. So everything downstream sees ordinary rows.
//
// A shadow is a file in the store and not memory of the daemon's, because
//
//   - a daemon that is killed loses nothing: the next one takes the lock of the same file, and goes on behind its newest row
//     with the next number. There is one shadow for the life of a segment, so there is nothing to join, and nothing twice;
//   - it is a segment like any other to whoever reads: query, export, archive and tools need no second way;
//   - it is no memory of this process's: the mapping's pages are given back after each tick, so that a
//     shadow of 450 kB costs the daemon a kilobyte of heap, and no more;
//   - it stays readable while no daemon runs, as other segments do.
//
// Its price is tmpfs, which Options bound, and that it must say whom it speaks for: the header does, and readers
// believe root and themselves.
//
// Nothing here trusts the sampled segment: what is copied of it is held against the format before it is stored.
package shadow

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// Budget is what shadows may take, of the user whose they are: files, the series in them, and these' names, units, help and labels.
type Budget struct{ Bytes, Series, LabelBytes int64 }

// The defaults that the zero Options stand for. 1,000 segments of 100 series, all of one user, take 450 MB. All series
// together are half of what readers take of one user by default, so that his own segments still find room there.
var (
	DefaultTotal   = Budget{1 << 30, 1 << 18, 64 << 20}
	DefaultPerUser = Budget{1 << 29, 1 << 17, 32 << 20}
)

// maxShadow bounds one shadow.
const maxShadow = 16 << 20

// Options of New.
type Options struct {
	Dir string // the store, as reader.Options.Dir

	// What all shadows may take, and those of one user's segments. A shadow that would take too much has shorter rings; for
	// one that does not fit all the same there is none, until there is room. Series beyond are in no row. Both are counted. Zero: the defaults.
	Total, PerUser Budget

	// Clock answers unix and monotonic time in ns. nil: CLOCK_REALTIME and CLOCK_MONOTONIC.
	Clock func() (unix, mono int64)
}

// Keeper keeps the shadows of a store. It belongs to one goroutine.
type Keeper struct {
	o       Options
	euid    int
	shadows map[string]*shadow // by the sampled segment's id; nil inside: there can be none
	all     Budget             // in use
	users   map[int]*Budget    // in use, by the owner of what is sampled
	stats   Stats

	roster   []*reader.Segment          // the segments that the rest was made of
	order    []*reader.Segment          // those that are sampled, oldest first: who came first is served first
	sampled  map[string]*reader.Segment // the same by id
	standing map[string]*reader.Segment // shadows in the store, by the id that they speak for
	failed   map[string]*failure        // by the ids of sampled segments that could have none

	first     int64 // mono time of the first poll
	begun     bool
	unix, now int64 // of the poll under way

	ctl   [layout.ControlSize / 8]uint64
	lanes []uint64
	cells []uint64
}

// failure is a shadow that could not be had.
type failure struct {
	next int64 // mono time of the next attempt
	room bool  // for want of room
}

// tryAgain is the time from one attempt to have a shadow to the next.
const tryAgain = 10 * time.Second

// Stats are what a Keeper counted.
type Stats struct {
	Shadows int    // being kept
	Used    Budget // by them
	Begun   uint64 // shadows that were born
	Resumed uint64 // gone on with, after another daemon
	Ended   uint64
	Samples uint64 // ticks that published
	Failed  uint64 // samples that could not be taken: the segment or its shadow could not be read
	Refused int    // segments for which there is none, for want of room: see Options
	Skipped uint64 // series in no row: the same
}

// New makes a keeper. It touches nothing yet.
func New(o Options) *Keeper {
	if o.Total == (Budget{}) {
		o.Total = DefaultTotal
	}
	if o.PerUser == (Budget{}) {
		o.PerUser = DefaultPerUser
	}
	if o.Clock == nil {
		o.Clock = systemClock
	}
	return &Keeper{o: o, euid: os.Geteuid(), shadows: map[string]*shadow{}, users: map[int]*Budget{}, failed: map[string]*failure{}}
}

func systemClock() (int64, int64) {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return time.Now().UnixNano(), 0
	}
	return time.Now().UnixNano(), ts.Nano()
}

// Stats answers what was counted so far.
func (k *Keeper) Stats() Stats { return k.stats }

// Poll samples what is due. segments are the store's as of its last poll: those sampled, and the shadows there
// are. The error joins what newly went wrong; it stops nothing.
func (k *Keeper) Poll(segments []*reader.Segment) error {
	k.unix, k.now = k.o.Clock()
	if !k.begun {
		k.first, k.begun = k.now, true
	}
	var errs []error
	k.look(segments)
	k.stats.Refused = 0
	for _, g := range k.order {
		id := g.ID()
		s, known := k.shadows[id]
		if !known {
			var settled bool
			var err error
			f := k.failed[id]
			if f != nil && k.now < f.next {
				if f.room {
					k.stats.Refused++
				}
				continue
			}
			if s, settled, err = k.begin(g); err != nil {
				if f == nil {
					errs = append(errs, fmt.Errorf("shmts: shadow of %s: %w", g.Path(), err))
				}
				room := errors.Is(err, errNoRoom)
				if room {
					k.stats.Refused++
				}
				k.failed[id] = &failure{k.now + int64(tryAgain), room}
			}
			if !settled {
				continue // to be looked at again
			}
			k.shadows[id] = s
		}
		if s != nil {
			if err := k.tend(s, g); err != nil {
				errs = append(errs, err)
			}
		}
	}
	for id, s := range k.shadows {
		if k.sampled[id] != nil {
			continue
		}
		if s != nil {
			if err := k.finish(s, nil); err != nil { // somebody unlinked the segment
				errs = append(errs, err)
			}
		}
		delete(k.shadows, id)
	}
	k.stats.Shadows, k.stats.Used = 0, k.all
	for _, s := range k.shadows {
		if s != nil && !s.ended {
			k.stats.Shadows++
		}
	}
	return errors.Join(errs...)
}

// look makes the lists anew where the store's is another.
func (k *Keeper) look(segments []*reader.Segment) {
	if len(segments) == len(k.roster) && (len(segments) == 0 || &segments[0] == &k.roster[0]) {
		return
	}
	k.order = nil
	k.roster, k.sampled, k.standing = segments, map[string]*reader.Segment{}, map[string]*reader.Segment{}
	for _, g := range segments {
		switch {
		case g.Shadow():
			if other := k.standing[g.ID()]; other == nil || preferred(g, other) {
				k.standing[g.ID()] = g
			}
		case g.Sampled():
			k.order, k.sampled[g.ID()] = append(k.order, g), g
		}
	}
	for id := range k.failed {
		if k.sampled[id] == nil {
			delete(k.failed, id)
		}
	}
	// Shadows of segments that are gone, which a daemon left that ended in between: they are to end as well.
	for id, g := range k.standing {
		if k.sampled[id] == nil && k.shadows[id] == nil && !g.Liveness().Ended() && g.Owner() == k.euid {
			if s, err := k.resume(g); err == nil {
				k.shadows[id] = s
			}
		}
	}
}

// preferred tells which of two shadows of one segment speaks for it: one of root's, else the one that lies first.
func preferred(a, b *reader.Segment) bool {
	if (a.Owner() == 0) != (b.Owner() == 0) {
		return a.Owner() == 0
	}
	return a.Path() < b.Path()
}

// Close lets go of every shadow: they stay as they are, for the next daemon.
func (k *Keeper) Close() {
	for _, s := range k.shadows {
		if s != nil {
			k.forget(s)
		}
	}
	clear(k.shadows)
}
