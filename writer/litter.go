package writer

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
)

const (
	// keptDead is how many dead segments of its own stem a writer leaves in peace, ...
	keptDead = 16
	// ... and how long it leaves all of them: whoever keeps the history has the default
	// rings' ten minutes for a segment, also after it died. FORMAT.md 10.11.
	keptFor = 10 * time.Minute
)

// removeLitter removes what a service that crashes again and again would fill the
// store with where no daemon is: FORMAT.md 10.11. Only segments of this uid and stem
// that are dead and gave their last sign ten minutes ago, beyond the 16 newest. What
// can't be looked at is left alone.
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
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), stem(o.Job)+"."); ok && isSegmentID(id) {
			names = append(names, e.Name())
		}
	}
	if len(names) <= keptDead {
		return // whoever is dead of them: none is opened for it
	}
	type file struct {
		name string
		last int64 // sign of life, mono ns
	}
	var files []file
	for _, name := range names {
		if last, dead := lookAtDead(dir, name); dead {
			files = append(files, file{name, last})
		}
	}
	if len(files) <= keptDead {
		return
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(cmp.Compare(b.last, a.last), strings.Compare(a.name, b.name)) })
	_, mono := o.Clock()
	for _, f := range files[keptDead:] {
		if mono-f.last > int64(keptFor) {
			unix.Unlinkat(dir, f.name, 0) // ids are random: no living segment can have taken the name meanwhile
		}
	}
}

// isSegmentID tells whether text is what follows the stem in a segment's name.
func isSegmentID(text string) bool {
	id, ok := strings.CutSuffix(text, ".shmts")
	return ok && len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

// lookAtDead tells whether a file is a segment of this user's that nobody holds the lock of
// (FORMAT.md 10.5), and when it gave its last sign of life: its heartbeat, or its birth.
func lookAtDead(dir int, name string) (last int64, dead bool) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != os.Geteuid() {
		return 0, false
	}
	lock := unix.Flock_t{Type: unix.F_RDLCK}
	if unix.FcntlFlock(uintptr(fd), unix.F_OFD_GETLK, &lock) != nil || lock.Type != unix.F_UNLCK {
		return 0, false
	}
	var head [512]uint64
	n, err := unix.Pread(fd, layout.Bytes(head[:]), 0)
	if err != nil || n < layout.SuperblockSize {
		return 0, false
	}
	at := layout.ControlOffset(head[:n/8])
	var control [layout.CtlHeartbeat + 1]uint64
	if n, err := unix.Pread(fd, layout.Bytes(control[:]), int64(at)); at == 0 || err != nil || n < len(control)*8 {
		return 0, false
	}
	return max(int64(control[layout.CtlHeartbeat]), layout.View[layout.Superblock](head[:], 0).BirthMono), true
}
