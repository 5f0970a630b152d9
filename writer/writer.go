package writer

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/shmts/shmts/layout"
)

// Writer is one incarnation of a source: up to four segments, and the series in
// them. Its methods may be called from any goroutine, and on a nil Writer.
type Writer struct {
	opts    Options
	control atomic.Pointer[controlWords]

	mu       sync.Mutex // all that follows; registration and ticks take it, records never
	segments []*segment
	byKey    map[string]*series // live ones
	firstErr error
	epoch    uint32
	offset   int64  // unix minus mono time at the last tick, or at Open
	ticks    uint64 // calls of tick, whether anything was published or not
	closed   bool

	lanes     uint64 // owned lanes that are taken, by number
	lanesEver uint64 // and that ever were

	spares     []spare // words of detached handles
	freeSpares []*uint64
	spareWords []uint64 // not handed out yet

	wake chan struct{} // nil: no ticker
	done chan struct{} // closed when the ticker has gone
}

// controlWords are the words of the first segment's control block.
type controlWords struct{ words []uint64 }

// Open gives birth to a segment and starts the ticker. It never answers nil: where
// err is not nil, the writer and its handles work, and record into private memory.
// If it was the system that could not give a file (no directory, no space), that is tried again at ticks,
// and what was recorded until then moves into it; if it was the options, nothing is ever kept.
func Open(o Options) (*Writer, error) {
	w := &Writer{opts: o.withDefaults(), byKey: map[string]*series{}}
	w.useControl(make([]uint64, layout.ControlSize/8))
	if w.opts.Clock == nil {
		w.opts.Clock = systemClock
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.opts.plan(); err != nil {
		w.fail(err)
		return w, w.firstErr
	}
	removeLitter(&w.opts)
	if _, err := w.newSegment(); err != nil {
		w.fail(err)
		return w, w.firstErr
	}
	if !w.opts.NoTicker {
		w.startTicker()
	}
	return w, w.firstErr
}

// Close publishes a final row in every tier, marks the segments closed and gives them
// up: FORMAT.md 10.6. Handles go on working and record nowhere. Their addresses stay
// mapped, to private memory, for calls that are on their way. A second Close does nothing.
func (w *Writer) Close() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	unixNow, mono := w.readClock()
	w.closed = true
	var errs []error
	w.moveSpares()
	for _, g := range w.segments {
		g.reconcile()
		if g.path == "" {
			g.adopt(unixNow, mono, true) // the last chance to leave something
		}
		if g.path != "" {
			g.publish(unixNow, mono, true)
			atomic.StoreUint64(&g.words[g.ctl+layout.CtlState], layout.StateClosed|uint64(w.epoch)<<32)
		}
	}
	kept := make([]uint64, layout.ControlSize/8) // Stats still answers
	counted := w.control.Load().words
	for i := range kept {
		kept[i] = atomic.LoadUint64(&counted[i])
	}
	w.useControl(kept)
	for _, g := range w.segments {
		g.given, g.givenNowhere = g.exemplars()
		for _, d := range g.descriptors {
			if d.series == nil {
				continue
			}
			d.series.place.Store(nil)
			for _, o := range d.series.owned {
				o.detach()
			}
		}
		if g.path != "" {
			errs = append(errs, mapPrivateOver(g.words))
		}
	}
	w.mu.Unlock()
	w.stopTicker()
	return errors.Join(errs...)
}

// useControl makes words the control block in which records count what they reject. w.mu is held.
func (w *Writer) useControl(words []uint64) { w.control.Store(&controlWords{words}) }

// count adds to a counter of the control block.
func (w *Writer) count(word int) {
	if w != nil {
		atomic.AddUint64(&w.control.Load().words[word], 1)
	}
}

func (w *Writer) reject() { w.count(layout.CtlRejectedRecords) }

// fail keeps the first error. w.mu is held.
func (w *Writer) fail(err error) {
	if w.firstErr == nil {
		w.firstErr = err
	}
}

// dropped counts a registration that found no room. w.mu is held.
func (w *Writer) dropped(err error) {
	w.fail(err)
	w.count(layout.CtlDroppedSeries)
}

// Err is the first thing that went wrong: a birth that failed, a series that found no
// room or was registered twice in two ways. nil if nothing did.
func (w *Writer) Err() error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.firstErr
}

// Stats is what the writer counted since Open, and what it has.
type Stats struct {
	DroppedSeries   uint64 // registrations that found no room, or were wrong, and record nowhere
	RejectedRecords uint64 // of NaN, infinity, or a negative amount where there can be none
	OverflowThreads uint64 // calls of Lane that found none free, and tables that a P without a lane came to
	Ticks           uint64 // that published

	Exemplars        uint64 // that were taken of those offered
	ExemplarsDropped uint64 // of them, that found their slot held by another goroutine

	Series   int   // live
	Segments int   // 1 to 4; 0 when the options were wrong
	Private  int   // of them, those without a file
	Bytes    int64 // of all segments
	Paths    []string
}

// Stats answers the writer's own counters.
func (w *Writer) Stats() Stats {
	if w == nil {
		return Stats{}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.control.Load().words
	s := Stats{
		DroppedSeries:   atomic.LoadUint64(&c[layout.CtlDroppedSeries]),
		RejectedRecords: atomic.LoadUint64(&c[layout.CtlRejectedRecords]),
		OverflowThreads: atomic.LoadUint64(&c[layout.CtlOverflowThreads]),
		Ticks:           atomic.LoadUint64(&c[layout.CtlTicks]),
		Series:          len(w.byKey),
		Segments:        len(w.segments),
	}
	for _, g := range w.segments {
		given, dropped := g.exemplars()
		s.Exemplars, s.ExemplarsDropped = s.Exemplars+given, s.ExemplarsDropped+dropped
		s.Bytes += int64(g.hdr.TotalSize)
		if g.path == "" {
			s.Private++
		} else {
			s.Paths = append(s.Paths, g.path)
		}
	}
	return s
}

// SetEpoch says that this process's memory may have been rewound: restored from a
// snapshot, or resumed from a checkpoint. Rows carry the low 16 bits. FORMAT.md 10.9. Ticks find out by themselves where
// the clocks give it away, that is, after half a second or more.
func (w *Writer) SetEpoch(epoch uint32) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setEpoch(epoch)
}

// NewEpoch is SetEpoch to the next one, which it answers.
func (w *Writer) NewEpoch() uint32 {
	if w == nil {
		return 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.setEpoch(w.epoch + 1)
	return w.epoch
}

func (w *Writer) setEpoch(epoch uint32) {
	w.epoch = epoch
	if w.closed {
		return
	}
	for _, g := range w.segments {
		atomic.StoreUint64(&g.words[g.ctl+layout.CtlState], layout.StateLive|uint64(epoch)<<32)
	}
}
