package writer

import (
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// keptDead is how many dead segments of its own stem a writer leaves in peace.
const keptDead = 16

// removeLitter removes what a service that crashes again and again would fill the
// store with where no daemon is: FORMAT.md 10.11. Only dead segments, of this uid
// and stem, beyond the 16 newest, and born 5 s ago at the least, so that whoever keeps
// the history had the time of 10.5. What can't be looked at is left alone.
func removeLitter(o *Options) {
	store, create := storeDir(o.Dir)
	if create {
		if _, err := os.Lstat(store); err != nil {
			return
		}
	}
	dir, path, err := openUserDir(store, create)
	if err != nil {
		return
	}
	defer unix.Close(dir)
	entries, err := os.ReadDir(path)
	if err != nil {
		return
	}
	type file struct {
		name string
		born int64
	}
	var files []file
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), stem(o.Job)+"."); !ok || !isSegmentID(id) {
			continue
		}
		var st unix.Stat_t
		if unix.Fstatat(dir, e.Name(), &st, unix.AT_SYMLINK_NOFOLLOW) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG ||
			int(st.Uid) != os.Geteuid() {
			continue
		}
		files = append(files, file{e.Name(), st.Mtim.Nano()})
	}
	if len(files) <= keptDead {
		return
	}
	slices.SortFunc(files, func(a, b file) int { // newest first
		switch {
		case a.born > b.born:
			return -1
		case a.born < b.born:
			return 1
		}
		return strings.Compare(a.name, b.name)
	})
	dead := 0
	for _, f := range files {
		if !isDead(dir, f.name) {
			continue
		}
		if dead++; dead > keptDead && time.Now().UnixNano()-f.born > int64(5*time.Second) {
			unix.Unlinkat(dir, f.name, 0) // ids are random: no living segment can have taken the name meanwhile
		}
	}
}

// isSegmentID tells whether text is what follows the stem in a segment's name.
func isSegmentID(text string) bool {
	id, ok := strings.CutSuffix(text, ".shmts")
	return ok && len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

// isDead tells whether nobody holds the lock of a segment: FORMAT.md 10.5.
func isDead(dir int, name string) bool {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	lock := unix.Flock_t{Type: unix.F_RDLCK}
	return unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock) == nil && lock.Type == unix.F_UNLCK
}
