package forecast

import (
	"io"
	"path/filepath"
	"slices"
	"sync"

	"github.com/shmts/shmts/internal/archive"
)

// files are archive.Files in memory, with holes where nothing was written.
type files struct {
	mu  sync.Mutex
	all map[string]*file
}

func newFiles() *files { return &files{all: map[string]*file{}} }

func (*files) MkdirAll(string) error { return nil }
func (*files) SyncDir(string) error  { return nil }

func (f *files) Open(path string, create bool) (archive.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all[path] == nil {
		f.all[path] = &file{pages: map[int64][]byte{}}
	}
	return f.all[path], nil
}

func (f *files) OpenRead(path string) (archive.File, error) { return f.Open(path, false) }

func (f *files) List(dir string) (names []string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for path := range f.all {
		if filepath.Dir(path) == filepath.Clean(dir) {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (f *files) Remove(path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, path)
	return nil
}

type unlocked struct{}

func (unlocked) Close() error { return nil }

func (*files) Lock(string) (io.Closer, error) { return unlocked{}, nil }

const page = 64 << 10

type file struct {
	mu    sync.Mutex
	size  int64
	pages map[int64][]byte
}

// each calls do with the parts of b and the pages that they lie in; a page that there is not yet is made if it is to be.
func (f *file) each(b []byte, off int64, create bool, do func(part, page []byte)) {
	for len(b) > 0 {
		at := off % page
		part := b[:min(int64(len(b)), page-at)]
		p := f.pages[off/page]
		if p == nil && create {
			p = make([]byte, page)
			f.pages[off/page] = p
		}
		if p == nil {
			do(part, nil)
		} else {
			do(part, p[at:])
		}
		b, off = b[len(part):], off+int64(len(part))
	}
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= f.size {
		return 0, io.EOF
	}
	n := min(int64(len(b)), f.size-off)
	f.each(b[:n], off, false, func(part, page []byte) {
		if page == nil {
			clear(part)
		} else {
			copy(part, page)
		}
	})
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.each(b, off, true, func(part, page []byte) { copy(page, part) })
	f.size = max(f.size, off+int64(len(b)))
	return len(b), nil
}

func (f *file) Size() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, nil
}

func (f *file) Allocate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size = max(f.size, size)
	return nil
}

func (f *file) Truncate(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.pages {
		if p*page >= size {
			delete(f.pages, p)
		}
	}
	f.size = size
	return nil
}

func (*file) Sync() error   { return nil }
func (*file) Forget() error { return nil }
func (*file) Close() error  { return nil }
