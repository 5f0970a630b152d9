package archiver

import (
	"errors"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/failpoint"
)

// write writes a batch, and what is written moves its tables' positions. False: archiving is stopped. The batch is empty
// afterwards.
func (a *Archiver) write(b *batch) bool {
	defer b.reset()
	if len(b.rows) == 0 || a.Stopped() != nil {
		return a.Stopped() == nil
	}
	// What was lost is counted with what comes behind it: until then it may be found again.
	for i := range b.taken {
		x := &b.taken[i]
		if x.rewound {
			x.t.last = 0
		}
		reason := LostOverrun
		if x.t.over || x.t.lastOnly {
			reason = LostBudget
		}
		x.t.over, x.t.missed = false, missed{x.lost, reason, x.unreadable}
	}
	if b.key.fold {
		if b.fold(a.steps[b.key.home]); len(b.rows) == 0 {
			return true
		}
	}
	if !a.put(b, 0, len(b.rows)) {
		return false
	}
	failpoint.Here("archiver.flush.written")
	return true
}

// missed are rows to be counted as lost once those behind them are written.
type missed struct {
	rows       uint64
	reason     string
	unreadable uint64
}

// put writes the sources from i to j of a batch, in as many blocks as it takes.
func (a *Archiver) put(b *batch, i, j int) bool {
	err := a.append(b, b.rows[i:j])
	switch {
	case err == nil:
		for k := i; k < j; k++ {
			a.wrote(b.of[k], &b.rows[k])
		}
		return true
	case a.w.Err() != nil:
		a.stop(err)
		return false
	case j-i > 1:
		m := (i + j) / 2
		return a.put(b, i, m) && a.put(b, m, j)
	}
	return a.putRows(b, i, 0, len(b.rows[i].Numbers), err)
}

// putRows writes the rows from m to n of one source in as many blocks as it takes. err is why they could not go all at once.
func (a *Archiver) putRows(b *batch, i, m, n int, err error) bool {
	t, all := b.of[i], &b.rows[i]
	if n-m == 1 {
		a.lost(LostTooLarge, 1)
		a.o.Logger.Warn("a row can't be archived", "segment", t.st.seg.ID(), "table", t.name, "row", all.Numbers[m], "err", err)
		t.last, t.time = all.Numbers[m], all.Times[m]
		return true
	}
	for _, half := range [2][2]int{{m, (m + n) / 2}, {(m + n) / 2, n}} {
		rows := part(b.plan.widths(b.key.fold), all, half[0], half[1])
		err := a.append(b, []archive.Rows{rows})
		switch {
		case err == nil:
			a.wrote(t, &rows)
		case a.w.Err() != nil:
			a.stop(err)
			return false
		case !a.putRows(b, i, half[0], half[1], err):
			return false
		}
	}
	return true
}

// part is the rows from m to n of a source's, in fields of these widths.
func part(widths []int, all *archive.Rows, m, n int) archive.Rows {
	r := *all
	r.Numbers, r.Times = all.Numbers[m:n], all.Times[m:n]
	if all.Coverage != nil {
		r.Coverage = all.Coverage[m:n]
	} else {
		r.Base = all.Numbers[n-1]
	}
	if n < len(all.Numbers) {
		r.Final, r.Estimated = false, false
	}
	r.Cells = make([][]uint64, len(all.Cells))
	if all.Present != nil {
		r.Present = make([][]bool, len(all.Present))
	}
	for f, w := range widths {
		r.Cells[f] = all.Cells[f][m*w : n*w]
		if all.Present != nil && all.Present[f] != nil {
			r.Present[f] = all.Present[f][m:n]
		}
	}
	return r
}

func (a *Archiver) append(b *batch, rows []archive.Rows) error {
	block := &archive.Block{Schema: b.plan.Schema, Step: time.Duration(b.key.step), Sources: rows}
	if b.key.fold {
		block.Step, block.Folded = a.steps[b.key.home], true
	}
	return a.w.Append(b.key.home, block)
}

// wrote moves a table's position behind rows that are in the archive.
func (a *Archiver) wrote(t *table, r *archive.Rows) {
	n := len(r.Numbers)
	t.last, t.time = r.Base, r.Times[n-1]
	t.st.epoch = max(t.st.epoch, r.Source.Epoch)
	if m := t.missed; m != (missed{}) {
		if m.rows > 0 {
			a.lost(m.reason, m.rows)
		}
		if m.unreadable > 0 {
			a.lost(LostUnreadable, m.unreadable)
		}
		t.missed = missed{}
	}
}

// The wait before a stopped archive is tried again. It stays well below the two minutes that the rings reach back.
const (
	firstMend = time.Second
	longMend  = 20 * time.Second
)

// stop says, once, that nothing is archived from now on. What was written since the last sync may not be there: no
// segment counts as drained, and every position is looked up again.
func (a *Archiver) stop(err error) {
	if a.Stopped() != nil {
		return
	}
	if cause := a.w.Err(); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause)
	}
	a.stopped.Store(&err)
	a.mend, a.wait = a.o.Now().Add(firstMend), firstMend
	a.mu.Lock()
	a.stats.Failures++
	a.mu.Unlock()
	a.o.Logger.Error("archiving stopped; everything else goes on, and it is tried again", "err", err)
	for _, st := range a.states {
		st.drained.Store(false)
	}
}

// mended tells whether the archive can be written, and tries to mend it from time to time.
func (a *Archiver) mended(now time.Time) bool {
	if a.Stopped() == nil {
		if err := a.w.Err(); err != nil {
			a.stop(err)
		}
	}
	if a.Stopped() == nil {
		return true
	}
	if now.Before(a.mend) {
		return false
	}
	if err := a.w.Mend(); err != nil {
		a.wait = min(2*a.wait, longMend)
		a.mend = now.Add(a.wait)
		a.stopped.Store(&err)
		a.o.Logger.Debug("the archive can't be mended yet", "err", err, "again_in", a.wait)
		return false
	}
	for _, st := range a.states {
		st.located, st.copy, st.sources = false, 0, nil
		if st.traced { // those that were written wait again, until it is known what is there
			a.tracedUpTo(st, 0)
			st.traced = false
		}
		for _, t := range st.tables {
			t.last, t.time = 0, 0
			t.missed = missed{}
		}
	}
	a.stopped.Store(nil)
	a.o.Logger.Info("archiving goes on")
	return true
}

// sync makes what was written outlive a loss of power.
func (a *Archiver) sync(now time.Time) error {
	a.synced = now
	if !a.dirty {
		return nil
	}
	begin := time.Now()
	err := a.w.Sync()
	failpoint.Here("archiver.synced")
	a.mu.Lock()
	a.stats.Syncs++
	a.stats.SyncTime += time.Since(begin)
	a.mu.Unlock()
	if err != nil {
		a.stop(err)
		return err
	}
	a.dirty = false
	return nil
}
