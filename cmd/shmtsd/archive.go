package main

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archiver"
	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/internal/exemplars"
	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/source"
)

// history is the archive, and who writes it.
type history struct {
	archive  archive.Writer
	archiver *archiver.Archiver
	sweeper  *archiver.Sweeper
	swept    atomic.Pointer[archiver.SweepStats] // after the last sweep
}

// openHistory opens the archive that the settings name, and has the register hold ended segments until they are in it. Where the
// disk does not let it, archiving is stopped, as after a failure later on, and tried again. An error says why else there can't
// be one: it is another process's, or the directory may not be written.
func openHistory(c *config.Archive, r *source.Register, rules *query.Rules, x *exemplars.Store, log *slog.Logger) (*history, error) {
	o := archive.Options{Dir: c.Dir, Logger: log}
	size := int64(0)
	for _, t := range c.Tiers {
		o.Tiers = append(o.Tiers, archive.TierOptions{Step: t.Step, Budget: t.Budget})
		size += t.Budget
	}
	w, err := archive.OpenStopped(o)
	if err != nil {
		return nil, fmt.Errorf("shmts: archive %s: %w", c.Dir, err)
	}
	if err := w.Err(); err != nil {
		log.Error("history is not kept until the disk allows it", "dir", c.Dir, "err", err)
	}
	// What is flushed passes through the sweeper, and what that folds through the archiver's meter.
	h := &history{archive: w, sweeper: archiver.NewSweeper(archiver.SweepOptions{Archive: w, Ephemeral: c.Ephemeral, Logger: log})}
	ao := archiver.Options{Archive: h.sweeper, SyncInterval: c.SyncInterval, UserBytesPerSecond: c.UserBytesPerSecond,
		Missing: h.sweeper.Missing, Swept: h.sweep, Logger: log}
	if x != nil {
		ao.Exemplars = x
	}
	a := archiver.New(ao, archived(r, rules))
	h.archiver = a
	h.sweeper.Through(a.Writer(), a.Live)
	r.Hold("archive", func(s *source.Segment) bool { return a.Finished(s) })
	if w.Err() == nil {
		log.Info("history is kept", "dir", c.Dir, "bytes", size)
	}
	return h, nil
}

// sweep folds what is due, from the archiver's goroutine.
func (h *history) sweep(now time.Time) {
	h.sweeper.Sweep(now)
	s := h.sweeper.Stats()
	h.swept.Store(&s)
}

// close makes what was written outlive a loss of power. What was not written yet is in the segments.
func (h *history) close() error { return errors.Join(h.archiver.Close(), h.archive.Close()) }

// degraded says what does not work of a daemon that serves all the same: queries of what is there, exports.
func (d *daemon) degraded() string {
	if d.history == nil {
		return ""
	}
	if err := d.history.archiver.Stopped(); err != nil {
		return "archiving is stopped: " + err.Error()
	}
	return ""
}

// Reasons why archiving is stopped, as /metrics has them; the log and /-/ready have the error itself.
var stopReasons = [...]struct {
	name string
	is   []error
}{
	{"no_space", []error{syscall.ENOSPC, syscall.EDQUOT}},
	{"io", []error{syscall.EIO}},
	{"read_only", []error{syscall.EROFS, syscall.EACCES, syscall.EPERM}},
	{"other", nil},
}

// stopReason is the number of the one that an error is of, -1 of none.
func stopReason(err error) int {
	if err == nil {
		return -1
	}
	for i, r := range stopReasons {
		for _, is := range r.is {
			if errors.Is(err, is) {
				return i
			}
		}
	}
	return len(stopReasons) - 1
}
