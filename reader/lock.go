package reader

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
)

// held tells whether somebody holds the segment's lock, and so lives: across
// users and pid namespaces, however it dies. It takes nothing: a read-only
// descriptor is enough. FORMAT.md 10.5.
func held(fd int) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_RDLCK, Whence: unix.SEEK_SET}
	for {
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock)
		switch err {
		case nil:
			return lock.Type != unix.F_UNLCK, nil
		case unix.EINTR:
		default:
			return false, os.NewSyscallError("shmts: fcntl F_OFD_GETLK", err)
		}
	}
}

// monotonic is CLOCK_MONOTONIC, which the heartbeat is of.
func monotonic() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return 0
	}
	return ts.Nano()
}

// Liveness is what can be known of a segment's writer. FORMAT.md 10.5.
type Liveness int

const (
	Alive   Liveness = iota // its heartbeat moves, or it holds the lock
	Stalled                 // the lock is held, the heartbeat stands still for more than 3 steps
	Closed                  // it said so, after a final row in every tier
	Dead                    // the lock is free: its last words are in the last row
)

var livenessNames = [...]string{"alive", "stalled", "closed", "dead"}

// String names the liveness.
func (l Liveness) String() string {
	if l >= 0 && int(l) < len(livenessNames) {
		return livenessNames[l]
	}
	return "unknown"
}

// Ended tells whether the writer is gone, and no row will follow.
func (l Liveness) Ended() bool { return l == Closed || l == Dead }

// stallSteps is by how many steps of its finest tier a heartbeat may stand still.
const stallSteps = 3

// wholeEvery is how many looks at a heartbeat that stands still go by between two fstats.
const wholeEvery = 8

// look decides about the liveness from the control block in g.raw and, where the
// heartbeat stands still, from the lock. The heartbeat comes first: it is free.
func (g *Segment) look(v *view, now int64) (Liveness, error) {
	state := uint32(g.raw[layout.CtlState])
	beat := int64(g.raw[layout.CtlHeartbeat])
	switch {
	case state == layout.StateClosed && g.shadow:
		return g.shadowEnded(v), nil
	case state == layout.StateClosed:
		return Closed, nil
	case g.elsewhere:
		return Dead, nil
	case g.seen && beat != g.beat:
		g.beat, g.moved, g.still = beat, now, 0
		return Alive, nil
	case !g.seen:
		// When it moved last nobody here has seen; its own word for it, if that can be.
		g.seen, g.beat, g.moved = true, beat, now
		if beat == 0 {
			beat = g.h.BirthMono
		}
		if beat > 0 && beat < now {
			g.moved = beat
		}
	}
	if err := v.needFile(); err != nil {
		return Alive, err
	}
	if g.still%wholeEvery == 0 {
		if err := g.stillWhole(v.fd); err != nil {
			return Alive, err
		}
	}
	g.still++
	alive, err := held(v.fd)
	switch {
	case err != nil:
		return Alive, err
	case !alive && g.shadow:
		return Stalled, nil // nobody samples it just now
	case !alive:
		// It may have ticked or closed between the copy of the control block and its end.
		if err := v.copy(g.raw[:g.ctlWords], g.h.Control.Offset); err != nil {
			return Alive, err
		}
		if uint32(g.raw[layout.CtlState]) == layout.StateClosed {
			return Closed, nil
		}
		return Dead, nil
	case g.step > 0 && now-g.moved > stallSteps*g.step:
		return Stalled, nil
	}
	return Alive, nil
}
