package source

import (
	"time"

	"golang.org/x/sys/unix"
)

// The store is short of room when less than a tenth of its filesystem, or of that one's inodes, is left. A new writer
// that finds none records into private memory, and nobody sees it: what is over makes room for what is alive.
const shortPart = 10

// Segments that everybody has finished with are kept for queries, which find their rows in the archive as well. So where
// room is short, or a budget turns segments away, they go as soon as they may: MinDeadTTL after their death. Those that somebody still
// holds are kept all the same, up to HoldLimit.
func (r *Register) deadTTL() (ttl time.Duration, early bool) {
	if len(r.dead) > 0 && r.o.DeadTTL > MinDeadTTL && r.short() {
		return MinDeadTTL, true
	}
	return r.o.DeadTTL, false
}

// short tells whether there is little room for further segments.
func (r *Register) short() bool {
	if all, _ := r.store.Usage(); all.Refused > 0 {
		return true
	}
	var st unix.Statfs_t
	if unix.Statfs(r.store.Dir(), &st) != nil {
		return false
	}
	return st.Bavail < st.Blocks/shortPart || st.Files > 0 && st.Ffree < st.Files/shortPart
}
