package archive

import (
	"errors"
	"fmt"
)

// Mend implements Writer: FORMAT.md 19.7. What a tier was thought to hold is forgotten, read back from the disk and checked;
// what fails is as if it had never been written. So positions may have gone back: they are to be looked up anew.
func (a *Archive) Mend() error {
	if a.lock == nil {
		return errReadOnly
	}
	why := a.Err()
	if why == nil {
		return nil
	}
	for _, t := range a.tiers {
		if err := a.mend(t); err != nil {
			return fmt.Errorf("shmts: archive: %s: mend: %w", t.path, err)
		}
	}
	a.errMu.Lock()
	a.err = nil
	a.errMu.Unlock()
	a.log.Warn("archiving goes on: what is on the disk was read back and checked", "stopped", why)
	return nil
}

func (a *Archive) mend(t *tier) error {
	if t.w.busy {
		return errors.New("from inside of an append")
	}
	// What is still to be written is written now, so that all pages are clean and can be forgotten. That this goes well says
	// nothing of what failed before it: the kernel says that once.
	if err := t.file.Sync(); err != nil {
		return err
	}
	if err := t.file.Forget(); err != nil {
		return err
	}
	slots, err := t.read()
	if err != nil {
		return err
	}
	all := byGeneration(slots)
	for _, e := range all[max(len(all)-2, 0):max(len(all)-1, 0)] { // read has looked at the last; an extent is synced before the next but one is begun
		if e.trailer != nil && !e.agrees() {
			if err := e.unseal(); err != nil {
				return err
			}
		}
	}
	// Does it take a write? The same bytes again do no harm, whatever becomes of them.
	if len(all) > 0 {
		e := all[len(all)-1]
		b, err := e.readAt(0, ExtentHeaderSize)
		if err == nil {
			_, err = t.file.WriteAt(b, t.at(e.slot))
		}
		if err != nil {
			return err
		}
	}
	for len(slots) < len(t.extents) {
		slots = append(slots, nil)
	}
	t.publish(slots)
	if err := a.repeatMark(t); err != nil {
		return err
	}
	return t.file.Sync()
}

// agrees tells whether a sealed extent's index and blocks are as they were written.
func (e *extent) agrees() bool {
	if !e.whole() {
		return false
	}
	other := e.t.newExtent(e.slot, ExtentHeader{Generation: e.generation, Opened: e.opened})
	skipped := e.t.skipped.Load()
	if err := other.unseal(); err != nil {
		return false
	}
	return e.t.skipped.Load() == skipped && len(other.mem.rows) == int(e.trailer.Blocks) && len(other.mem.sourceAt) == int(e.trailer.Sources) &&
		other.mem.mark == e.newestMark() // that of an earlier extent is repeated at the beginning of this one
}
