package reader

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
)

// What may be opened, and what an open file must be: FORMAT.md 2. A store is a
// place where strangers put files.

const suffix = ".shmts"

// isSegmentName tells names of segments from all others: <stem>.<32 hexadecimal digits>.shmts.
func isSegmentName(name string) bool {
	stem, ok := strings.CutSuffix(name, suffix)
	if !ok || len(name) > 255 || name[0] == '.' || len(stem) < 34 || stem[len(stem)-33] != '.' {
		return false
	}
	for _, c := range []byte(stem[len(stem)-32:]) {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return false
		}
	}
	return true
}

// userID is the uid that a directory's name says; false if it is not written as a decimal number.
func userID(name string) (uint32, bool) {
	n, err := strconv.ParseUint(name, 10, 32)
	return uint32(n), err == nil && strconv.FormatUint(n, 10) == name
}

const (
	openFlags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	dirFlags  = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
)

// openBeneath opens dir/name below root with no symbolic link followed on the way. Where openat2 can't be had
// (a kernel before 5.6, a seccomp filter), step by step.
func openBeneath(root int, dir, name string) (int, error) {
	how := unix.OpenHow{Flags: openFlags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS}
	for range tries {
		fd, err := unix.Openat2(root, dir+"/"+name, &how)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN: // renamed while it was resolved
			continue
		case unix.ENOSYS, unix.EPERM:
			return openSteps(root, dir, name)
		}
		return -1, err
	}
	return openSteps(root, dir, name)
}

func openSteps(root int, dir, name string) (int, error) {
	d, err := unix.Openat(root, dir, dirFlags, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(d)
	return unix.Openat(d, name, openFlags, 0)
}

// An unsafeError says which rule of FORMAT.md 2 a file breaks.
type unsafeError struct{ path, want, got string }

func (e *unsafeError) Error() string {
	return fmt.Sprintf("shmts: unsafe segment %s: want %s, got %s", e.path, e.want, e.got)
}

// checkFile holds FORMAT.md 2 against a file. owner is its directory's.
func checkFile(path string, st *unix.Stat_t, owner uint32) error {
	bad := func(want, got string) error { return &unsafeError{path, want, got} }
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return bad("a regular file", fileType(st.Mode))
	case st.Nlink == 0:
		return unix.ENOENT // unlinked a moment ago
	case st.Nlink != 1:
		return bad("one link", fmt.Sprint(st.Nlink))
	case st.Uid != owner:
		return bad(fmt.Sprintf("the directory's owner, uid %d", owner), fmt.Sprintf("uid %d", st.Uid))
	case st.Size < layout.SuperblockSize || st.Size > layout.MaxTotalSize:
		return bad(fmt.Sprintf("a size of %d to %d bytes", layout.SuperblockSize, layout.MaxTotalSize), fmt.Sprint(st.Size))
	case st.Blocks*512 < st.Size:
		return bad(fmt.Sprintf("%d bytes allocated", st.Size), fmt.Sprint(st.Blocks*512))
	}
	return nil
}

func fileType(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFSOCK:
		return "a socket"
	case unix.S_IFCHR, unix.S_IFBLK:
		return "a device"
	}
	return fmt.Sprintf("mode %#o", mode)
}

// admit opens a file of the store and makes a segment of it. The error unix.ENOENT is no refusal: the file is gone.
func (s *Store) admit(d *userDir, name string) (*Segment, unix.Stat_t, error) {
	path := s.dir + "/" + d.name + "/" + name
	// Looked at before it is opened: opening a device may do something.
	var st unix.Stat_t
	if err := unix.Fstatat(s.root, d.name+"/"+name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, st, statError(path, err)
	}
	if err := checkFile(path, &st, d.uid); err != nil {
		return nil, st, err
	}
	c := &claim{l: s.ledger, of: d.account, path: path}
	if c.takeAll(&amounts{ofSegments: 1, ofBytes: st.Size}); c.err != nil {
		return nil, st, c.err
	}
	g, err := s.openFile(d, name, path, &st, c)
	if err != nil {
		c.close()
		return nil, st, err
	}
	s.equip(g, d.name, name)
	return g, st, nil
}

// openFile makes a segment of a file that there is room for, as far as its size tells.
func (s *Store) openFile(d *userDir, name, path string, st *unix.Stat_t, c *claim) (*Segment, error) {
	if d.account.waste(0, s.polls) {
		return nil, d.account.late(path, c.has)
	}
	fd, err := openBeneath(s.root, d.name, name)
	if err != nil {
		return nil, statError(path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	if err := unix.Fstat(fd, st); err != nil {
		file.Close()
		return nil, os.NewSyscallError("shmts: fstat "+path, err)
	}
	if err := checkFile(path, st, d.uid); err != nil {
		file.Close()
		return nil, err
	}
	if more := st.Size - c.has[ofBytes]; more > 0 && !c.take(ofBytes, more) { // another file by now
		file.Close()
		return nil, c.err
	}
	g, err := openSegment(file, path, st, &s.strings, s.o.SeriesBytes)
	if err == nil {
		g.claim = c
		if !c.take(ofLabels, pairsLength(g.h.Labels)+pairsLength(g.h.Attributes)) {
			err = c.err
		}
	}
	if err == nil {
		err = s.believe(g)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return g, nil
}

func statError(path string, err error) error {
	if errors.Is(err, unix.ENOENT) {
		return unix.ENOENT
	}
	return fmt.Errorf("shmts: open %s: %w", path, err)
}

// equip decides how a new segment is read: mapped, whole or its control block alone, where that is safe and there is room for it, and
// with a descriptor of its own while there are enough.
func (s *Store) equip(g *Segment, dir, name string) {
	w := &g.win
	root, dev, ino := s.root, g.dev, g.ino
	w.reopen = func() (int, error) {
		fd, err := openBeneath(root, dir, name)
		if err != nil {
			return -1, fmt.Errorf("shmts: open %s again: %w", g.path, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Dev != dev || st.Ino != ino {
			unix.Close(fd)
			return -1, fmt.Errorf("shmts: open %s again: want inode %d, got %d (%v)", g.path, ino, st.Ino, err)
		}
		return fd, nil
	}
	if s.trusts(g.uid) && s.mapped+w.size <= s.o.MapBytes && w.mapFile() == nil {
		g.mapped = w.size
		s.mapped += w.size
	}
	if s.kept < s.o.MaxFiles {
		g.kept = true
		s.kept++
		if s.trusts(g.uid) && w.m == nil {
			// Where it can't be had, pread does.
			g.part, _ = w.mapPart(g.h.Control.Offset, uint64(g.ctlWords)*8, s.o.ControlBytes-s.parts)
			s.parts += g.part
		}
		return
	}
	w.file.Close()
	w.file, w.fd = nil, -1
}

func (s *Store) trusts(uid int) bool {
	if s.o.NoMap || !canMap {
		return false
	}
	if uid == s.euid {
		return true
	}
	for _, u := range s.o.TrustUIDs {
		if u == uid {
			return true
		}
	}
	return false
}

// settle closes a segment and gives back what equip took. The window itself goes when its last user is done.
func (s *Store) settle(g *Segment) {
	s.mapped -= g.mapped
	s.parts -= g.part
	if g.kept {
		s.kept--
	}
	g.mapped, g.part, g.kept = 0, 0, false
	g.Close()
	g.claim.close()
}
