package source

import (
	"github.com/shmts/shmts/reader"
)

// Segments that never tick, and what stands for them: FORMAT.md 10.8. Such a segment has no rows and is in no snapshot. Its
// shadow is, under its identity, from its first row to the time to live after its end; they go together, the
// sampled one first, so that a daemon that starts in between makes no second shadow.

// sample has the keeper publish what is due.
func (r *Register) sample(segments []*reader.Segment) {
	if r.shadows == nil {
		return
	}
	if err := r.shadows.Poll(segments); err != nil {
		r.o.Logger.Warn("segments can't be sampled", "err", err)
	}
	r.mu.Lock()
	r.stats.Shadows = r.shadows.Stats()
	r.mu.Unlock()
}

// stand files a segment that was found under what it is: sampled, a shadow, or neither.
func (r *Register) stand(l *life) {
	switch {
	case l.g.Shadow() && r.standing[l.id] == nil:
		r.standing[l.id] = l
	case l.g.Shadow():
		l.hidden = true // a second one of the same segment, of a daemon that did not know of the first
	case l.g.Sampled():
		r.sampled[l.id], l.hidden = l, true
	}
	r.join(l.id)
}

// join tells a shadow what it stands for, as far as that is there.
func (r *Register) join(id string) {
	if s := r.standing[id]; s != nil {
		s.sampled = r.sampled[id]
	}
}

// fall takes a segment out again.
func (r *Register) fall(l *life) {
	if r.sampled[l.id] == l {
		delete(r.sampled, l.id)
	}
	if r.standing[l.id] == l {
		delete(r.standing, l.id)
	}
	r.join(l.id)
}

// unlink removes a segment, and before a shadow what it stands for.
func (r *Register) unlink(l *life) error {
	if of := r.sampled[l.id]; of != nil && r.standing[l.id] == l && !of.dropped {
		if err := r.store.Unlink(of.g); err != nil {
			return err
		}
		of.dropped = true
	}
	return r.store.Unlink(l.g)
}

// letGo reads a segment no more whose file stays, nor what it stands for: while that is there, its shadow says that all is said.
func (r *Register) letGo(l *life) {
	if of := r.sampled[l.id]; of != nil && r.standing[l.id] == l {
		r.store.Release(of.g)
	}
	r.store.Release(l.g)
}
