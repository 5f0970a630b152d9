package reader

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Finding segments: inotify says where to look, without a goroutine, by nonblocking reads at Poll; a scan now
// and then finds what it did not say. Both end in look, which trusts neither.

// userDir is one user's directory of the store. FORMAT.md 2.
type userDir struct {
	name    string
	uid     uint32
	account *account
	watch   int32
	files   map[string]*file
	bad     error // it is not what it must be
	round   uint64
}

// file is a name in it that looks like a segment's.
type file struct {
	dev, ino uint64
	g        *Segment // nil: refused, or released
	released bool
	err      error
	next     int64 // mono ns: when it is tried again
	wait     time.Duration
	round    uint64 // of the scan that saw it last

	over    bool    // refused for want of room
	needs   amounts // of which so much is needed, as far as is known
	arrival uint64  // among those refused
}

const (
	firstWait = time.Second
	longWait  = 5 * time.Minute
	// maxNames bounds what is looked at of a directory's names.
	maxNames = 1 << 16
)

// watcher is an inotify instance; fd is -1 where there is none to be had.
type watcher struct {
	fd  int
	buf [16 << 10]byte
}

func newWatcher() *watcher {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		fd = -1 // too many instances of this user: scans do
	}
	return &watcher{fd: fd}
}

const watchMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_MOVED_FROM |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// add watches a directory; -1 if it can't.
func (w *watcher) add(path string, flags uint32) int32 {
	if w.fd < 0 {
		return -1
	}
	wd, err := unix.InotifyAddWatch(w.fd, path, watchMask|flags)
	if err != nil {
		return -1
	}
	return int32(wd)
}

// drain gives every event that is there to f, and tells whether some were lost.
func (w *watcher) drain(f func(wd int32, mask uint32, name []byte)) (lost bool) {
	for w.fd >= 0 {
		n, err := unix.Read(w.fd, w.buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return lost
		}
		for b := w.buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			le := binary.LittleEndian
			wd, mask, size := int32(le.Uint32(b)), le.Uint32(b[4:]), int(le.Uint32(b[12:]))
			name := b[unix.SizeofInotifyEvent:][:size]
			b = b[unix.SizeofInotifyEvent+size:]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				lost = true
				continue
			}
			f(wd, mask, untilNUL(name))
		}
	}
	return lost
}

func untilNUL(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}

// openRoot opens the store's directory, or sees that it is still the one that is open. A missing one is no error.
func (s *Store) openRoot() error {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	if s.dir == defaultDir {
		flags |= unix.O_NOFOLLOW // anybody may put something there before the first writer does
	}
	fd, err := unix.Open(s.dir, flags, 0)
	if errors.Is(err, unix.ENOENT) {
		s.closeRoot()
		return nil
	}
	if err != nil {
		return fmt.Errorf("shmts: open store %s: %w", s.dir, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("shmts: fstat "+s.dir, err)
	}
	if !s.o.AnyOwner && st.Uid != 0 && int(st.Uid) != s.euid {
		unix.Close(fd)
		s.closeRoot()
		return fmt.Errorf("shmts: store %s: want it to belong to root or uid %d, got uid %d; repair it with: chown root:root %s && chmod 1777 %s",
			s.dir, s.euid, st.Uid, s.dir, s.dir)
	}
	if s.root >= 0 && st.Dev == s.rootDev && st.Ino == s.rootIno {
		unix.Close(fd)
		return nil
	}
	s.closeRoot()
	s.root, s.rootDev, s.rootIno = fd, st.Dev, st.Ino
	s.rootWatch = s.watch.add(s.dir, 0)
	return nil
}

// closeRoot forgets the directory and everything in it.
func (s *Store) closeRoot() {
	for name := range s.users {
		s.dropUser(name)
	}
	if s.rootWatch >= 0 {
		unix.InotifyRmWatch(s.watch.fd, uint32(s.rootWatch)) // gone by itself, perhaps
	}
	if s.root >= 0 {
		unix.Close(s.root)
	}
	s.root, s.rootWatch = -1, -1
}

func (s *Store) dropUser(name string) {
	d := s.users[name]
	for f := range d.files {
		s.drop(d, f)
	}
	if d.watch >= 0 {
		delete(s.watched, d.watch)
		unix.InotifyRmWatch(s.watch.fd, uint32(d.watch))
	}
	s.ledger.close(d.account)
	delete(s.users, name)
}

// events reads what inotify has to say. It tells whether a scan of everything is due, and whether the root itself moved.
func (s *Store) events() (scan, root bool) {
	lost := s.watch.drain(func(wd int32, mask uint32, name []byte) {
		if wd == s.rootWatch {
			if mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0 {
				root = true
			}
			if len(name) > 0 {
				s.lookUser(string(name))
			}
			return
		}
		d := s.watched[wd]
		switch {
		case d == nil:
		case mask&(unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_IGNORED|unix.IN_UNMOUNT) != 0:
			scan = true
		case len(name) > 0:
			if n := string(name); isSegmentName(n) {
				s.look(d, n)
			}
		}
	})
	return scan || lost || root, root
}

// scan looks at everything in the store.
func (s *Store) scan() error {
	s.round++
	var names []string
	err := readNames(s.root, ".", func(name []byte, _ uint64) {
		if _, ok := userID(string(name)); ok {
			names = append(names, string(name))
		}
	})
	if err != nil {
		return fmt.Errorf("shmts: read store %s: %w", s.dir, err)
	}
	for _, name := range names {
		s.lookUser(name)
	}
	for name, d := range s.users {
		if d.round != s.round {
			s.dropUser(name)
		}
	}
	return nil
}

// lookUser looks at everything in one user's directory.
func (s *Store) lookUser(name string) {
	uid, ok := userID(name)
	if !ok || s.root < 0 {
		return
	}
	path := s.dir + "/" + name
	d := s.users[name]
	var st unix.Stat_t
	err := unix.Fstatat(s.root, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		if d != nil {
			s.dropUser(name)
		}
		return
	case err != nil:
		err = fmt.Errorf("shmts: directory %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		err = &unsafeError{path, "a directory", fileType(st.Mode)}
	case st.Uid != uid:
		err = &unsafeError{path, fmt.Sprintf("a directory of uid %d", uid), fmt.Sprintf("uid %d", st.Uid)}
	}
	if d == nil {
		d = &userDir{name: name, uid: uid, account: s.ledger.open(uid), watch: -1, files: map[string]*file{}}
		s.users[name] = d
	}
	d.round = s.round
	if err != nil {
		for f := range d.files {
			s.drop(d, f)
		}
		if d.bad == nil || d.bad.Error() != err.Error() {
			s.ev.Refused = append(s.ev.Refused, Refusal{path, err})
		}
		d.bad = err
		return
	}
	d.bad = nil
	// Watched first, read then: nothing slips in between. A directory that was put in place of another gets
	// its own watch; the old one's goes by itself.
	if wd := s.watch.add(path, unix.IN_DONT_FOLLOW); wd != d.watch {
		if d.watch >= 0 {
			delete(s.watched, d.watch)
		}
		if d.watch = wd; wd >= 0 {
			s.watched[wd] = d
		}
	}
	s.fileRound++
	round := s.fileRound
	var found []string
	err = readNames(s.root, name, func(b []byte, ino uint64) {
		if f := d.files[string(b)]; f != nil {
			f.round = round
			if f.ino == ino {
				return
			}
		} else if !isSegmentName(string(b)) {
			return
		}
		found = append(found, string(b))
	})
	for _, n := range s.byArrival(d, found) {
		s.look(d, n)
		if f := d.files[n]; f != nil {
			f.round = round
		}
	}
	if err != nil {
		s.ev.Refused = append(s.ev.Refused, Refusal{path, fmt.Errorf("shmts: read directory %s: %w", path, err)})
		return
	}
	for n, f := range d.files {
		if f.round != round {
			s.look(d, n)
		}
	}
}

// byArrival puts names in the order in which they came to be in the directory, which is their ctime's: who was first
// keeps his room when this process starts anew. It is no more than the user's own order of his own files.
func (s *Store) byArrival(d *userDir, names []string) []string {
	if len(names) < 2 {
		return names
	}
	type arrival struct {
		name string
		at   int64
	}
	list := make([]arrival, len(names))
	for i, n := range names {
		list[i].name = n
		var st unix.Stat_t
		if unix.Fstatat(s.root, d.name+"/"+n, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			list[i].at = st.Ctim.Nano()
		}
	}
	slices.SortFunc(list, func(a, b arrival) int { return cmp.Or(cmp.Compare(a.at, b.at), strings.Compare(a.name, b.name)) })
	for i := range list {
		names[i] = list[i].name
	}
	return names
}

// look brings what is known of a name in line with what is there.
func (s *Store) look(d *userDir, name string) {
	if d.bad != nil {
		return
	}
	f := d.files[name]
	if f != nil {
		var st unix.Stat_t
		err := unix.Fstatat(s.root, d.name+"/"+name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err != nil:
			s.drop(d, name)
			return
		case st.Dev == f.dev && st.Ino == f.ino && (f.g != nil || f.released || s.now < f.next):
			return
		case st.Dev != f.dev || st.Ino != f.ino: // the name is used again: the old file is gone, this is another
			s.drop(d, name)
			f = nil
		}
	}
	if f == nil {
		s.retry() // those who wait come first
	}
	g, st, err := s.admit(d, name)
	if err == unix.ENOENT {
		if f != nil {
			s.drop(d, name)
		}
		return
	}
	if f == nil {
		f = &file{round: s.fileRound}
		d.files[name] = f
	}
	f.dev, f.ino = st.Dev, st.Ino
	if err == nil {
		// Read once before anybody hears of it: it may be broken behind its header.
		if _, err = g.refresh(s.now, s.unixNow); err != nil {
			if over := g.claim.err; over != nil {
				d.account.wastedOn = over
				d.account.waste(g.claim.has[ofLabels], s.polls)
			}
			s.settle(g)
		}
	}
	if err != nil {
		s.refuse(d, name, f, err)
		return
	}
	s.await(d, f, nil)
	f.g, f.err, f.wait = g, nil, 0
	g.claim.admit()
	g.dir, g.name = d, name
	s.add(g)
}

// refuse puts a file into quarantine, each time for longer.
func (s *Store) refuse(d *userDir, name string, f *file, err error) {
	if !sameRefusal(f.err, err) {
		s.ev.Refused = append(s.ev.Refused, Refusal{s.dir + "/" + d.name + "/" + name, err})
	}
	if f.err == nil {
		s.arrivals++
		f.arrival = s.arrivals
	}
	f.g, f.err = nil, err
	f.wait = min(max(2*f.wait, firstWait), longWait)
	f.next = s.now + int64(f.wait)
	s.nextRetry = min(s.nextRetry, f.next)
	over, _ := err.(*BudgetError)
	s.await(d, f, over)
}

// sameRefusal tells whether an error is news. What a budget had left when a file did not fit is none.
func sameRefusal(was, is error) bool {
	if was == nil {
		return false
	}
	x, ok := was.(*BudgetError)
	if y, also := is.(*BudgetError); ok && also {
		return x.Budget == y.Budget && x.Total == y.Total
	}
	return was.Error() == is.Error()
}

// await keeps count of the files that wait for room.
func (s *Store) await(d *userDir, f *file, over *BudgetError) {
	if f.over != (over != nil) {
		n := 1
		if f.over {
			n = -1
		}
		f.over = !f.over
		s.waiting += n
		s.ledger.await(d.account, n)
	}
	if over != nil {
		f.needs = over.needs
	}
}

// retry looks again at the refused whose time has come, in the order in which they came. Those who wait for room are not
// looked at before there is enough.
func (s *Store) retry() {
	if s.retrying {
		return
	}
	more := false
	if s.waiting > 0 {
		room := s.ledger.room()
		more = room != s.room
		s.room = room
	}
	if s.now < s.nextRetry && !more {
		return
	}
	type refused struct {
		d    *userDir
		f    *file
		name string
	}
	var due []refused
	s.nextRetry = never
	for _, d := range s.users {
		for name, f := range d.files {
			switch {
			case f.g != nil, f.released:
			case f.over && !s.ledger.fits(d.account, &f.needs):
			case s.now < f.next, f.over && d.account.waste(0, s.polls):
				s.nextRetry = min(s.nextRetry, max(f.next, s.now+1))
			default:
				due = append(due, refused{d, f, name})
			}
		}
	}
	slices.SortFunc(due, func(a, b refused) int { return cmp.Compare(a.f.arrival, b.f.arrival) })
	s.retrying = true
	for _, r := range due {
		if r.f.over && !s.ledger.fits(r.d.account, &r.f.needs) {
			continue // those before it took the room
		}
		s.look(r.d, r.name)
		s.nextRetry = min(s.nextRetry, max(r.f.next, s.now+1))
	}
	s.retrying = false
}

// drop forgets a name. Its segment, if it has one, is Gone.
func (s *Store) drop(d *userDir, name string) {
	f := d.files[name]
	if f.g != nil {
		s.remove(f.g)
	}
	s.await(d, f, nil)
	delete(d.files, name)
}

// readNames gives the names of a directory below root, and the inodes behind them, to f.
func readNames(root int, dir string, f func(name []byte, ino uint64)) error {
	fd, err := unix.Openat(root, dir, dirFlags, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var buf [16 << 10]byte
	for names := 0; names < maxNames; {
		n, err := unix.Getdents(fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n <= 0 {
			return nil
		}
		// struct linux_dirent64: u64 ino, i64 off, u16 reclen, u8 type, name
		for b := buf[:n]; len(b) > 19; names++ {
			size := int(binary.LittleEndian.Uint16(b[16:]))
			if size <= 19 || size > len(b) {
				break
			}
			name := untilNUL(b[19:size])
			if len(name) > 0 && name[0] != '.' {
				f(name, binary.LittleEndian.Uint64(b))
			}
			b = b[size:]
		}
	}
	return nil
}
