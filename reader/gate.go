package reader

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/layout"
)

// ErrClosed is what a closed segment answers.
var ErrClosed = errors.New("shmts: segment is closed")

// A window is the one gate to a segment's memory: it copies words out, and nothing
// else of this package touches a byte that somebody else may write. Behind it
// lies a read-only mapping (ours, or of users that we trust) or pread(2). What was copied
// is private, and only then looked at: no double fetch, no surprise.
//
// A window may be used by several goroutines at once; it goes when it is
// closed and the last of them is done.
type window struct {
	size   int64
	reopen func() (int, error) // where no descriptor is kept: opens the same file anew

	mu     sync.Mutex
	refs   int
	closed bool
	file   *os.File // nil: no descriptor is kept
	fd     int
	m      mmap.MMap
	words  []uint64  // of m
	part   mmap.MMap // of a file that is not mapped whole, the pages of the control block; nil: none
	partAt uint64    // where in the file they begin
}

// view is a window in use, until done.
type view struct {
	w   *window
	fd  int // -1: mapped, and no descriptor was asked for yet
	own bool
}

// use begins the use of a window. A descriptor is opened only if the window keeps none and
// is not mapped.
func (w *window) use() (view, error) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return view{}, ErrClosed
	}
	w.refs++
	v := view{w: w, fd: -1}
	if w.file != nil {
		v.fd = w.fd
	}
	w.mu.Unlock()
	if v.fd < 0 && w.words == nil {
		if err := v.needFile(); err != nil {
			v.done()
			return view{}, err
		}
	}
	return v, nil
}

// needFile sees to it that the view has a descriptor.
func (v *view) needFile() error {
	if v.fd >= 0 {
		return nil
	}
	fd, err := v.w.reopen()
	if err != nil {
		return err
	}
	v.fd, v.own = fd, true
	return nil
}

func (v *view) done() {
	if v.own {
		unix.Close(v.fd)
	}
	w := v.w
	w.mu.Lock()
	w.refs--
	last := w.closed && w.refs == 0
	w.mu.Unlock()
	if last {
		w.free()
	}
}

func (w *window) close() error {
	w.mu.Lock()
	was, last := w.closed, w.refs == 0
	w.closed = true
	w.mu.Unlock()
	if was || !last {
		return nil
	}
	return w.free()
}

func (w *window) free() error {
	var err error
	if w.m != nil {
		err = w.m.Unmap()
		w.m, w.words = nil, nil
	}
	if w.part != nil {
		err = errors.Join(err, w.part.Unmap())
		w.part = nil
	}
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
		w.file = nil
	}
	return err
}

// mapFile maps the window's file read-only from now on.
func (w *window) mapFile() error {
	m, err := mmap.MapRegion(w.file, int(w.size), mmap.RDONLY, 0, 0)
	if err != nil {
		return fmt.Errorf("shmts: map %s: %w", w.file.Name(), err)
	}
	w.m, w.words = m, layout.Words(m)
	return nil
}

// mapPart maps the pages of which n bytes from off on are a part, at most a limit of bytes, and answers how many that are.
func (w *window) mapPart(off, n uint64, limit int64) (int64, error) {
	page := uint64(os.Getpagesize())
	at := off / page * page
	end := min((off+n+page-1)/page*page, uint64(w.size))
	if size := int64(end - at); size > limit {
		return 0, nil
	}
	m, err := mmap.MapRegion(w.file, int(end-at), mmap.RDONLY, 0, int64(at))
	if err != nil {
		return 0, fmt.Errorf("shmts: map %d bytes at %d of %s: %w", end-at, at, w.file.Name(), err)
	}
	w.part, w.partAt = m, at
	return int64(len(m)), nil
}

// copy copies len(dst) words from byte offset off on; off is a multiple of 8.
func (v *view) copy(dst []uint64, off uint64) error {
	n := uint64(len(dst)) * 8
	if off%8 != 0 || off > uint64(v.w.size) || n > uint64(v.w.size)-off {
		return &layout.CorruptError{Section: "file", Index: -1,
			Want: fmt.Sprintf("%d bytes at %#x", n, off), Got: fmt.Sprintf("a size of %#x", v.w.size)}
	}
	if len(dst) == 0 {
		return nil
	}
	if v.w.words != nil {
		return copyMapped(dst, v.w.words[off/8:][:len(dst)])
	}
	if at := off - v.w.partAt; v.w.part != nil && off >= v.w.partAt && at+n <= uint64(len(v.w.part)) {
		return copyMapped(dst, layout.Words(v.w.part[at:at+n]))
	}
	return pread(v.fd, layout.Bytes(dst), int64(off))
}

// row copies row n of a ring into buf and proves it. buf has room for header and cells, and
// is cut to the table's row; the cells answered are a part of it.
func (v *view) row(t *layout.Tier, id layout.RowIdentity, n uint64, buf []uint64) (layout.RowHeader, []uint64, layout.Verdict, error) {
	off := t.RowOffset(n)
	if v.w.words != nil {
		return rowMapped(v.w.words[off/8:][:len(buf)], id, n, buf[layout.RowWords:])
	}
	// A copy that the writer tore says so by its checksum. Taken again, the slot holds the row that
	// the writer was at: another one.
	var verdict layout.Verdict
	for range tries {
		if err := pread(v.fd, layout.Bytes(buf), int64(off)); err != nil {
			return layout.RowHeader{}, nil, layout.RowBad, err
		}
		var h layout.RowHeader
		var cells []uint64
		if h, cells, verdict = layout.DecodeRow(buf, id, n); verdict != layout.RowBad {
			return h, cells, verdict, nil
		}
	}
	return layout.RowHeader{}, nil, verdict, nil
}

// tries bounds every retry in this package.
const tries = 3

func pread(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(fd, b, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("shmts: pread", err)
		case n == 0:
			return &layout.CorruptError{Section: "file", Index: -1,
				Want: fmt.Sprintf("%d bytes at %#x", len(b), off), Got: "the end of the file: it was truncated"}
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// The two functions below are where a load may meet a page that is no longer there: the
// file was truncated, and the kernel answers SIGBUS. It becomes a panic here and an
// error above. There is nothing inside but loads: no lock, map, channel or allocation
// that would stay half done.

func copyMapped(dst, src []uint64) (err error) {
	defer func(old bool) { err = caught(old, recover(), err) }(debug.SetPanicOnFault(true))
	for i := range dst {
		dst[i] = atomic.LoadUint64(&src[i])
	}
	return nil
}

func rowMapped(slot []uint64, id layout.RowIdentity, n uint64, dst []uint64) (h layout.RowHeader, cells []uint64, verdict layout.Verdict, err error) {
	defer func(old bool) {
		if err = caught(old, recover(), err); err != nil {
			h, cells, verdict = layout.RowHeader{}, nil, layout.RowBad
		}
	}(debug.SetPanicOnFault(true))
	h, cells, verdict = layout.CopyRow(slot, id, n, dst)
	return h, cells, verdict, nil
}

// caught makes an error of a fault, and lets every other panic go on.
func caught(old bool, r any, err error) error {
	debug.SetPanicOnFault(old)
	if r == nil {
		return err
	}
	if f, ok := r.(interface{ Addr() uintptr }); ok {
		return &layout.CorruptError{Section: "file", Index: -1, Want: "a page behind every address",
			Got: fmt.Sprintf("a fault at %#x: it was truncated", f.Addr())}
	}
	panic(r)
}
