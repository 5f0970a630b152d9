package reader

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultDir         = "/dev/shm/shmts"
	defaultRescan      = 10 * time.Second
	defaultMapBytes    = 64 << 20
	defaultSeriesBytes = 32 << 20
	never              = math.MaxInt64
	blindScan          = time.Second // where there is no inotify
)

// Dir is the store that dir means: dir itself, else $SHMTS_DIR, else /dev/shm/shmts.
func Dir(dir string) string {
	return cmp.Or(dir, os.Getenv("SHMTS_DIR"), defaultDir)
}

// Store is a directory of segments, watched.
type Store struct {
	o    Options
	dir  string
	euid int

	root             int // -1: not there
	rootDev, rootIno uint64
	rootWatch        int32
	watch            *watcher
	watched          map[int32]*userDir
	users            map[string]*userDir
	polls            uint64
	round, fileRound uint64
	nextScan         int64
	nextRetry        int64

	segments []*Segment // oldest first; replaced, never changed
	stale    bool       // segments is to be made anew
	open     map[*Segment]struct{}
	index    map[instance][]*Segment
	closing  []*Segment // Gone; closed by the next Poll
	unlinked []*Segment // by Unlink or Release; Gone with the next Poll

	strings interner
	mapped  int64 // bytes of segments
	parts   int64 // and of control blocks
	kept    int   // descriptors

	ledger   *ledger
	waiting  int    // files refused for want of room
	room     uint64 // the ledger's, when they were looked at last
	arrivals uint64 // files that were ever refused
	retrying bool
	usage    usage

	// Of the Poll under way.
	now, unixNow int64
	ev           Events
}

type instance struct{ job, instance string }

// Open opens a store for reading. The directory may not exist yet: it is looked for at every Poll. An error says that
// it is there and may not be trusted, or not be read.
func Open(o Options) (*Store, error) {
	if o.MaxFiles == 0 {
		var limit unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return nil, os.NewSyscallError("shmts: getrlimit", err)
		}
		o.MaxFiles = int(min(limit.Cur/2, math.MaxInt32))
	}
	if o.Rescan <= 0 {
		o.Rescan = defaultRescan
	}
	if o.MapBytes == 0 {
		o.MapBytes = defaultMapBytes
	}
	if o.SeriesBytes <= 0 {
		o.SeriesBytes = defaultSeriesBytes
	}
	s := &Store{o: o, dir: Dir(o.Dir), euid: os.Geteuid(), root: -1, rootWatch: -1, watch: newWatcher(),
		watched: map[int32]*userDir{}, users: map[string]*userDir{}, open: map[*Segment]struct{}{},
		index: map[instance][]*Segment{}, nextRetry: never}
	s.strings.m = map[string]*text{}
	s.ledger = newLedger(&s.o)
	if err := s.openRoot(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Dir is the store's directory.
func (s *Store) Dir() string { return s.dir }

// Poll looks for what is new, changed, ended and gone. It refreshes every segment. It never waits
// for a writer, and one bad file never hides another. Its error is about the store itself: what was found so
// far is good, and the next Poll tries again.
func (s *Store) Poll() (Events, error) {
	for _, g := range s.closing {
		s.settle(g)
	}
	clear(s.closing)
	s.closing = s.closing[:0]
	s.now, s.unixNow, s.ev = monotonic(), time.Now().UnixNano(), Events{}
	s.polls++

	for _, g := range s.unlinked {
		if f := g.dir.files[g.name]; f != nil && f.g == g {
			if s.drop(g.dir, g.name); f.released {
				f.g = nil
				g.dir.files[g.name] = f
			}
		}
	}
	clear(s.unlinked)
	s.unlinked = s.unlinked[:0]
	before := s.segments
	s.retry() // those who wait come before those who are new
	err := s.discover()
	s.retry()
	for _, g := range before {
		if g.listed {
			s.refresh(g)
		}
	}
	if s.stale {
		s.segments = make([]*Segment, 0, len(s.open))
		for g := range s.open {
			s.segments = append(s.segments, g)
		}
		slices.SortFunc(s.segments, olderFirst)
		s.stale = false
	}
	ev := s.ev
	s.ev = Events{}
	return ev, err
}

func (s *Store) discover() error {
	scan, root := s.events()
	if s.root >= 0 {
		// inotify says nothing of the removal of a directory that somebody, this process, has open.
		var st unix.Stat_t
		root = root || unix.Fstat(s.root, &st) != nil || st.Nlink == 0
	}
	if s.root < 0 || root || s.now >= s.nextScan {
		was := s.root
		if err := s.openRoot(); err != nil {
			return err
		}
		scan = scan || s.root != was || s.now >= s.nextScan
	}
	if !scan || s.root < 0 {
		return nil
	}
	s.nextScan = s.now + int64(s.o.Rescan)
	if s.watch.fd < 0 || s.rootWatch < 0 {
		s.nextScan = s.now + int64(min(blindScan, s.o.Rescan))
	}
	return s.scan()
}

// refresh brings a segment up to date, and puts one that can't be read any more into quarantine.
func (s *Store) refresh(g *Segment) {
	if g.Liveness().Ended() {
		return
	}
	changed, err := g.refresh(s.now, s.unixNow)
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM):
		return // this process is short of something; the segment is what it was
	case err != nil:
		f := g.dir.files[g.name]
		s.remove(g)
		if errors.Is(err, unix.ENOENT) { // it kept no descriptor, and is unlinked
			delete(g.dir.files, g.name)
			return
		}
		s.refuse(g.dir, g.name, f, err)
		return
	}
	if changed {
		s.ev.Changed = append(s.ev.Changed, g)
	}
	if g.Liveness().Ended() {
		s.ev.Ended = append(s.ev.Ended, g)
	}
}

func (s *Store) add(g *Segment) {
	s.open[g] = struct{}{}
	g.listed = true
	s.stale = true
	k := instance{g.Job(), g.Instance()}
	list := append(slices.Clone(s.index[k]), g)
	slices.SortFunc(list, func(x, y *Segment) int { return olderFirst(y, x) })
	s.index[k] = list
	s.ev.New = append(s.ev.New, g)
	if g.Liveness().Ended() {
		s.ev.Ended = append(s.ev.Ended, g)
	}
}

// remove takes a segment out of the store. It stays readable until the next Poll.
func (s *Store) remove(g *Segment) {
	delete(s.open, g)
	g.listed = false
	s.stale = true
	k := instance{g.Job(), g.Instance()}
	if list := slices.DeleteFunc(slices.Clone(s.index[k]), func(x *Segment) bool { return x == g }); len(list) > 0 {
		s.index[k] = list
	} else {
		delete(s.index, k)
	}
	s.ev.Gone = append(s.ev.Gone, g)
	s.closing = append(s.closing, g)
}

func olderFirst(x, y *Segment) int {
	return cmp.Or(cmp.Compare(x.h.BirthUnix, y.h.BirthUnix), cmp.Compare(x.id, y.id), cmp.Compare(x.ino, y.ino))
}

// Segments are those open as of the last Poll, oldest first. The slice is not changed afterwards.
func (s *Store) Segments() []*Segment { return s.segments }

// usage is what Usage answered last.
type usage struct {
	all     Usage
	users   []Usage
	version uint64
	known   bool
}

// Usage is what is in use as of the last Poll, and refused: of all users together, and of each whose directory is there, by uid. The
// slice is not changed afterwards, and is the same one while nothing changes.
func (s *Store) Usage() (all Usage, users []Usage) {
	if v := s.ledger.at(); !s.usage.known || v != s.usage.version {
		s.usage.all, s.usage.users, s.usage.version = s.ledger.usage()
		s.usage.known = true
	}
	return s.usage.all, s.usage.users
}

// Lookup finds the segments of an instance, newest incarnation first.
func (s *Store) Lookup(job, inst string) []*Segment { return s.index[instance{job, inst}] }

// ErrAlive is what Unlink answers for a segment that somebody still writes.
var ErrAlive = errors.New("its writer is alive")

// Unlink removes a closed or dead segment's file. It refuses one that is alive. FORMAT.md 10.5: whoever keeps
// the history does it, not before 5 s after the death. The segment is Gone with the next Poll.
func (s *Store) Unlink(g *Segment) error {
	if g.dir == nil || s.root < 0 || s.users[g.dir.name] != g.dir || g.dir.files[g.name] == nil || g.dir.files[g.name].g != g {
		return fmt.Errorf("shmts: unlink %s: want a segment of store %s, got another, or one that is gone", g.path, s.dir)
	}
	if !g.Liveness().Ended() {
		if err := g.Refresh(); err != nil {
			return err
		}
		if l := g.Liveness(); !l.Ended() {
			return fmt.Errorf("shmts: unlink %s: want it closed or dead, got %v (pid %d): %w", g.path, l, g.Pid(), ErrAlive)
		}
	}
	at := g.dir.name + "/" + g.name
	var st unix.Stat_t
	err := unix.Fstatat(s.root, at, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err == nil && (st.Dev != g.dev || st.Ino != g.ino) {
		return fmt.Errorf("shmts: unlink %s: want inode %d, got %d: the name is used again", g.path, g.ino, st.Ino)
	}
	if err == nil {
		err = unix.Unlinkat(s.root, at, 0)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("shmts: unlink %s: %w", g.path, err)
	}
	s.unlinked = append(s.unlinked, g)
	return nil
}

// Release lets go of a segment whose file is to stay, or can't be unlinked by this user. It is Gone with the next Poll, and not
// looked at again while the file is the same.
func (s *Store) Release(g *Segment) {
	if g.dir == nil || g.dir.files[g.name] == nil || g.dir.files[g.name].g != g {
		return
	}
	f := g.dir.files[g.name]
	f.released = true
	s.unlinked = append(s.unlinked, g)
}

// Close closes every segment.
func (s *Store) Close() error {
	for g := range s.open {
		s.settle(g)
	}
	for _, g := range s.closing {
		s.settle(g)
	}
	s.open, s.closing, s.segments = nil, nil, nil
	clear(s.users)
	clear(s.index)
	if s.root >= 0 {
		unix.Close(s.root)
		s.root = -1
	}
	if s.watch.fd >= 0 {
		unix.Close(s.watch.fd)
		s.watch.fd = -1
	}
	return nil
}

// OpenSegment opens one file, wherever it lies, for tools: FORMAT.md 2's rules on
// owner and directory are not held against it, all others are. It is read with pread, and refreshed once.
func OpenSegment(path string) (*Segment, error) {
	fd, err := unix.Open(path, openFlags&^unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("shmts: open %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	g, err := openAlone(file, path)
	if err != nil {
		file.Close()
		return nil, err
	}
	if err := g.Refresh(); err != nil {
		g.Close()
		return nil, err
	}
	return g, nil
}

func openAlone(file *os.File, path string) (*Segment, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return nil, os.NewSyscallError("shmts: fstat "+path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &unsafeError{path, "a regular file", fileType(st.Mode)}
	}
	return openSegment(file, path, &st, &interner{m: map[string]*text{}}, defaultSeriesBytes)
}
