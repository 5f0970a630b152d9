package source

import (
	"errors"
	"time"

	"github.com/shmts/shmts/reader"
)

const (
	// remindOver is how long after a line in the log about a user and a budget the next may follow.
	remindOver = time.Hour
	// maxTold bounds the users and budgets that are remembered for it: those beyond are counted, not logged.
	maxTold = 1024
)

// overKey is what is said once: whose budget, and which.
type overKey struct {
	uid    int
	budget string
	total  bool
}

// budgets takes over what is in use, and tells of users of whose segments series were skipped.
func (r *Register) budgets(now time.Time) {
	all, users := r.store.Usage()
	r.mu.Lock()
	before := r.stats.Users
	r.stats.Budget, r.stats.Users = all, users
	r.mu.Unlock()
	if all.SkippedSeries == 0 || len(before) == len(users) && &before[0] == &users[0] {
		return
	}
	skipped := make(map[int]uint64, len(before))
	for _, u := range before {
		skipped[u.UID] = u.SkippedSeries
	}
	for _, u := range users {
		if u.SkippedSeries > skipped[u.UID] && r.tell(overKey{uid: u.UID, budget: "growth"}, now) {
			r.o.Logger.Warn("series over budget are not read", "uid", u.UID, "skipped", u.SkippedSeries,
				"series", u.Used.Series, "series_limit", u.Limit.Series, "label_bytes", u.Used.LabelBytes, "label_bytes_limit", u.Limit.LabelBytes)
		}
	}
}

// overBudget tells of a refusal for want of room: the first of its user and budget. It answers false if it is another refusal.
func (r *Register) overBudget(f reader.Refusal, now time.Time) bool {
	var over *reader.BudgetError
	if !errors.As(f.Err, &over) {
		return false
	}
	if r.tell(overKey{over.UID, over.Budget, over.Total}, now) {
		r.o.Logger.Warn("segments over budget are not read", "uid", over.UID, "budget", over.Budget, "of_all", over.Total,
			"limit", over.Want, "first", f.Path, "err", f.Err)
	}
	return true
}

// tell answers whether it is time to say that, and notes that it was said.
func (r *Register) tell(k overKey, now time.Time) bool {
	if at, ok := r.told[k]; ok && now.Sub(at) < remindOver {
		return false
	}
	if len(r.told) >= maxTold {
		for k, at := range r.told {
			if now.Sub(at) >= remindOver {
				delete(r.told, k)
			}
		}
		if len(r.told) >= maxTold {
			return false
		}
	}
	r.told[k] = now
	return true
}
