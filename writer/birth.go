package writer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	mmap "github.com/edsrzf/mmap-go"
	"github.com/shmts/shmts/layout"
	"golang.org/x/sys/unix"
)

// defaultStore is where segments are when nobody says otherwise. FORMAT.md 2.
const defaultStore = "/dev/shm/shmts"

// storeDir is the store that dir means, and whether this writer may create it.
func storeDir(dir string) (string, bool) {
	if dir == "" {
		dir = os.Getenv("SHMTS_DIR")
	}
	if dir == "" {
		return defaultStore, true
	}
	return dir, false
}

// openUserDir opens the uid's directory in the store, and creates what FORMAT.md 2
// says that a writer creates. Whoever owns that directory could take
// files out of it, so one of another owner is refused, and a symbolic link too.
func openUserDir(store string, create bool) (fd int, path string, err error) {
	flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
	if create {
		flags |= unix.O_NOFOLLOW // anybody may have put it there
		if err := unix.Mkdir(store, 0o1777); err == nil {
			if err := unix.Chmod(store, 0o1777); err != nil { // the umask took bits away
				return -1, "", fmt.Errorf("shmts: mode of the store %s: want 1777: %w", store, err)
			}
		} else if err != unix.EEXIST {
			return -1, "", fmt.Errorf("shmts: create the store %s: %w", store, err)
		}
	}
	base, err := unix.Open(store, flags, 0)
	if err != nil {
		return -1, "", fmt.Errorf("shmts: open the store %s: %w", store, err)
	}
	defer unix.Close(base)
	name := strconv.Itoa(os.Geteuid())
	path = filepath.Join(store, name)
	made := unix.Mkdirat(base, name, 0o755)
	if made != nil && made != unix.EEXIST {
		return -1, "", fmt.Errorf("shmts: create the directory %s: %w", path, made)
	}
	fd, err = unix.Openat(base, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return -1, "", fmt.Errorf("shmts: open the directory %s: %w", path, err)
	}
	var st unix.Stat_t
	if err = unix.Fstat(fd, &st); err == nil && made == nil {
		err = unix.Fchmod(fd, 0o755)
	}
	if err == nil && int(st.Uid) != os.Geteuid() {
		err = fmt.Errorf("want owner %d, got %d", os.Geteuid(), st.Uid)
	}
	if err != nil {
		unix.Close(fd)
		return -1, "", fmt.Errorf("shmts: directory %s: %w", path, err)
	}
	return fd, path, nil
}

// A birth is a segment's file that has no name yet: allocated, locked and mapped. FORMAT.md 10.1.
type birth struct {
	words []uint64
	path  string

	file *os.File
	dir  int
	name string
	dot  bool // it stands in the directory as .name
}

// bear does steps 1 to 4 of FORMAT.md 10.1, with a dot-name where an unnamed
// file can't be had, or dotted says so.
func bear(o *Options, h *layout.Header, dotted bool) (b *birth, err error) {
	store, create := storeDir(o.Dir)
	dir, path, err := openUserDir(store, create)
	if err != nil {
		return nil, err
	}
	b = &birth{dir: dir, name: stem(o.Job) + "." + hex.EncodeToString(h.SegmentID[:]) + ".shmts"}
	b.path = filepath.Join(path, b.name)
	fd := -1
	if !dotted {
		fd, err = unix.Openat(dir, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	}
	if fd < 0 {
		const flags = unix.O_CREAT | unix.O_EXCL | unix.O_RDWR | unix.O_CLOEXEC | unix.O_NOFOLLOW
		fd, err = unix.Openat(dir, "."+b.name, flags, 0o600)
		b.dot = err == nil
	}
	if err != nil {
		unix.Close(dir)
		return nil, fmt.Errorf("shmts: create a segment in %s: %w", path, err)
	}
	b.file = os.NewFile(uintptr(fd), b.path)
	if err := b.allocate(h.TotalSize); err != nil {
		b.abandon()
		return nil, err
	}
	return b, nil
}

func (b *birth) allocate(size uint64) error {
	fd := int(b.file.Fd())
	var limit unix.Rlimit
	// Over it the kernel would raise SIGXFSZ, which ends the application.
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &limit); err == nil && limit.Cur < size {
		return fmt.Errorf("shmts: segment %s: want %d bytes, got RLIMIT_FSIZE %d", b.path, size, limit.Cur)
	}
	if err := fallocate(fd, int64(size)); err != nil {
		return fmt.Errorf("shmts: allocate %d bytes for segment %s: %w", size, b.path, err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &lock); err != nil {
		return fmt.Errorf("shmts: lock segment %s: %w", b.path, err)
	}
	m, err := mmap.MapRegion(b.file, int(size), mmap.RDWR, 0, 0)
	if err != nil {
		return fmt.Errorf("shmts: map segment %s: %w", b.path, err)
	}
	b.words = layout.Words(m)
	if err := unix.Madvise(m, unix.MADV_DONTFORK); err != nil {
		return fmt.Errorf("shmts: keep segment %s from children (MADV_DONTFORK): %w", b.path, err)
	}
	return nil
}

// fallocate is posix_fallocate: ENOSPC now instead of SIGBUS later. The runtime's
// own preemption signals interrupt it.
func fallocate(fd int, size int64) error {
	var err error
	for range 100 {
		if err = unix.Fallocate(fd, 0, 0, size); err != unix.EINTR {
			break
		}
	}
	if err != unix.EOPNOTSUPP && err != unix.ENOSYS && err != unix.EINTR {
		return err
	}
	zeros := make([]byte, 1<<16) // a file system without it: write every byte
	for at := int64(0); at < size; {
		n, err := unix.Pwrite(fd, zeros[:min(int64(len(zeros)), size-at)], at)
		if err != nil && err != unix.EINTR {
			return err
		}
		at += int64(max(n, 0))
	}
	return nil
}

// publish does the rest of FORMAT.md 10.1: mode and name.
func (b *birth) publish(mode os.FileMode) error {
	if err := b.file.Chmod(mode); err != nil {
		return fmt.Errorf("shmts: mode of segment %s: %w", b.path, err)
	}
	if err := b.link(); err != nil {
		return fmt.Errorf("shmts: name segment %s: %w", b.path, err)
	}
	return nil
}

func (b *birth) link() error {
	fd := int(b.file.Fd())
	if b.dot {
		err := unix.Renameat2(b.dir, "."+b.name, b.dir, b.name, unix.RENAME_NOREPLACE)
		if err == unix.EINVAL || err == unix.ENOSYS { // a file system that can't: linkat does not replace either
			if err = unix.Linkat(b.dir, "."+b.name, b.dir, b.name, 0); err == nil {
				err = unix.Unlinkat(b.dir, "."+b.name, 0)
			}
		}
		b.dot = err != nil
		return err
	}
	err := unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), b.dir, b.name, unix.AT_SYMLINK_FOLLOW)
	if err != nil { // jails have no /proc
		err = unix.Linkat(fd, "", b.dir, b.name, unix.AT_EMPTY_PATH)
	}
	return err
}

func (b *birth) close() {
	if b.dot {
		unix.Unlinkat(b.dir, "."+b.name, 0)
	}
	b.file.Close()
	unix.Close(b.dir)
}

// abandon gives everything back. words must not be used any more.
func (b *birth) abandon() {
	b.close()
	if b.words != nil {
		m := mmap.MMap(layout.Bytes(b.words))
		m.Unmap()
		b.words = nil
	}
}

// giveBirth makes a segment of h: FORMAT.md 10.1 whole. fill writes what is in it, before it has a
// name. Where an unnamed file can't get one (no /proc and an old kernel), all is done once more
// with a dot-name. An error leaves nothing behind.
func giveBirth(o *Options, h *layout.Header, fill func(words []uint64)) (words []uint64, path string, err error) {
	for _, dotted := range []bool{false, true} {
		b, failed := bear(o, h, dotted)
		if failed != nil {
			return nil, "", errors.Join(err, failed)
		}
		fill(b.words)
		if failed = b.publish(o.Mode); failed == nil {
			b.close()
			return b.words, b.path, nil
		}
		again := !b.dot
		b.abandon()
		err = errors.Join(err, failed)
		if !again {
			break
		}
	}
	return nil, "", err
}

// privateWords is memory that nobody else sees: zero, and not there until it is touched.
func privateWords(size uint64) ([]uint64, error) {
	m, err := mmap.MapRegion(nil, int(size), mmap.COPY, mmap.ANON, 0)
	if err != nil {
		return nil, fmt.Errorf("shmts: map %d bytes of private memory: %w", size, err)
	}
	return layout.Words(m), nil
}

// mapPrivateOver puts private memory where words lie. What is still stored there goes
// nowhere; the file is not mapped any more, and its lock is gone.
func mapPrivateOver(words []uint64) error {
	const prot, flags = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED
	_, _, errno := unix.Syscall6(unix.SYS_MMAP, layout.Address(words), uintptr(len(words)*8), prot, flags, ^uintptr(0), 0)
	if errno != 0 {
		return fmt.Errorf("shmts: map private memory over a segment: %w", errno)
	}
	return nil
}

// bootID is the host's, zero if it can't be had. FORMAT.md 4.1.
func bootID() (id [16]byte) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	b, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err == nil && len(b) == len(id) {
		copy(id[:], b)
	}
	return id
}

// pidNamespace is the inode of this process's pid namespace, 0 if it can't be had.
func pidNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino
}
