package archive

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
)

// A sim is Files in memory whose power can be cut: each 512-byte sector that was written since the last sync is then
// as it was before or after any of those writes, each file as large as before or after, and each name there or not.
type sim struct {
	mu    sync.Mutex
	r     *rand.Rand
	files map[string]*simFile
	named map[string]bool     // names that outlive a loss of power
	gone  map[string]*simFile // removed since the directory was synced: a loss of power may bring them back

	left   int   // operations before the power is cut; negative: it is not
	cut    bool  // everything fails from now on
	failW  error // writes fail, having written a part
	failS  error // syncs fail, having written a part
	space  int64 // bytes that may be allocated in all; 0: any
	locked bool
}

const sector = 512

var errCut = errors.New("power cut")

type simFile struct {
	s     *sim
	path  string
	data  []byte           // as it is read
	old   unsynced         // sectors
	lost  map[int64][]byte // of sectors that a failed sync has not written: what is on the disk
	sizes []resizing       // since the last sync
}

// unsynced are sectors written since the last sync: what they were before each write.
type unsynced map[int64][][]byte

// A resizing is undone by a loss of power: what was cut off is there again, as the disk has it.
type resizing struct {
	size int64 // before
	tail []byte
	old  unsynced // of the tail
}

// tear has each sector be as it was before or after any of its writes.
func (u unsynced) tear(r *rand.Rand, data []byte, at int64) {
	for _, sec := range slices.Sorted(maps.Keys(u)) {
		all := u[sec]
		if i := r.IntN(len(all) + 1); i < len(all) && sec*sector-at < int64(len(data)) {
			copy(data[sec*sector-at:], all[i])
		}
	}
}

// onDisk is what a loss of power leaves of a file.
func (f *simFile) onDisk(r *rand.Rand) []byte {
	data := slices.Clone(f.data)
	for sec, b := range f.lost {
		copy(data[sec*sector:], b)
	}
	f.old.tear(r, data, 0)
	for _, c := range slices.Backward(f.sizes[r.IntN(len(f.sizes)+1):]) {
		if c.size <= int64(len(data)) {
			data = data[:c.size:c.size]
			continue
		}
		at := int64(len(data))
		data = append(data, c.tail...)
		c.old.tear(r, data[at:], at)
	}
	return data
}

func newSim(r *rand.Rand) *sim {
	return &sim{r: r, files: map[string]*simFile{}, named: map[string]bool{}, gone: map[string]*simFile{}, left: -1}
}

func (s *sim) file(path string, data []byte) *simFile {
	f := &simFile{s: s, path: path, data: data, old: unsynced{}, lost: map[int64][]byte{}}
	s.files[path] = f
	return f
}

// step counts an operation, and tells whether the power is cut in it.
func (s *sim) step() bool {
	if s.left == 0 {
		s.cut = true
	}
	if s.left > 0 {
		s.left--
	}
	return s.cut
}

// image is what a machine finds that was cut off now, killed: what a process finds whose predecessor was killed now.
func (s *sim) image(killed bool) *sim {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := newSim(s.r)
	if killed {
		for path, f := range s.files {
			g := c.file(path, slices.Clone(f.data))
			for sec, all := range f.old {
				g.old[sec] = slices.Clone(all)
			}
			g.sizes = slices.Clone(f.sizes)
			maps.Copy(g.lost, f.lost)
		}
		maps.Copy(c.named, s.named)
		maps.Copy(c.gone, s.gone)
		return c
	}
	paths := slices.Sorted(maps.Keys(s.files))
	for path := range s.gone {
		if s.files[path] == nil {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	for _, path := range paths {
		f := s.files[path]
		if !s.named[path] && s.r.IntN(2) == 0 {
			f = s.gone[path] // if it was another one's name
		}
		if f != nil {
			c.named[path] = true
			c.file(path, f.onDisk(s.r))
		}
	}
	return c
}

func resized(b []byte, size int64) []byte {
	if int64(len(b)) > size {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}

func (s *sim) MkdirAll(string) error { return nil }

func (s *sim) Open(path string, create bool) (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.step() {
		return nil, errCut
	}
	f := s.files[path]
	if f == nil {
		if !create {
			return nil, fs.ErrNotExist
		}
		f = s.file(path, nil)
	}
	return f, nil
}

func (s *sim) OpenRead(path string) (File, error) { return s.Open(path, false) }

func (s *sim) List(string) (names []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path := range s.files {
		names = append(names, filepath.Base(path))
	}
	slices.Sort(names)
	return names, nil
}

func (s *sim) Remove(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.step() {
		return errCut
	}
	if f := s.files[path]; f != nil && (s.named[path] || s.gone[path] == nil) {
		s.gone[path] = f
	}
	delete(s.files, path)
	delete(s.named, path)
	return nil
}

func (s *sim) SyncDir(string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.step() {
		return errCut
	}
	for path := range s.files {
		s.named[path] = true
	}
	clear(s.gone)
	return nil
}

type simLock struct{ s *sim }

func (l simLock) Close() error {
	l.s.locked = false
	return nil
}

func (s *sim) Lock(string) (io.Closer, error) {
	if s.locked {
		return nil, ErrLocked
	}
	s.locked = true
	return simLock{s}, nil
}

func (f *simFile) ReadAt(b []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if off >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *simFile) WriteAt(b []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.cut {
		return 0, errCut
	}
	cut, n := f.s.step(), len(b)
	if cut || f.s.failW != nil {
		n = f.s.r.IntN(len(b) + 1)
	}
	if cut && n < len(b) { // neither a disk nor a kernel that kills leaves a part of a sector
		n = max(int((off+int64(n))/sector*sector-off), 0)
	}
	b = b[:n]
	if end := off + int64(n); end > int64(len(f.data)) {
		f.resize(end)
	}
	for sec := off / sector; sec*sector < off+int64(n); sec++ {
		was := slices.Clone(f.data[sec*sector : min((sec+1)*sector, int64(len(f.data)))])
		if disk, ok := f.lost[sec]; ok {
			was = disk
			delete(f.lost, sec)
		}
		f.old[sec] = append(f.old[sec], was)
	}
	copy(f.data[off:], b)
	if cut {
		return n, errCut
	}
	return n, f.s.failW
}

func (f *simFile) resize(size int64) {
	c := resizing{size: int64(len(f.data))}
	if size < c.size {
		c.tail, c.old = slices.Clone(f.data[size:]), unsynced{}
		for sec, b := range f.lost {
			if at := sec*sector - size; at >= 0 {
				copy(c.tail[at:], b)
				delete(f.lost, sec)
			}
		}
		for sec, all := range f.old {
			if sec*sector >= size {
				c.old[sec] = all
				delete(f.old, sec)
			}
		}
	}
	f.sizes = append(f.sizes, c)
	f.data = resized(f.data, size)
}

func (f *simFile) Size() (int64, error) { return int64(len(f.data)), nil }

func (f *simFile) Allocate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.step() {
		return errCut
	}
	total := max(size-int64(len(f.data)), 0)
	for _, g := range f.s.files {
		total += int64(len(g.data))
	}
	if f.s.space > 0 && total > f.s.space {
		return errNoSpace
	}
	if size > int64(len(f.data)) {
		f.resize(size)
	}
	return nil
}

var errNoSpace = errors.New("no space left on device")

func (f *simFile) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.step() {
		return errCut
	}
	f.resize(size)
	return nil
}

func (f *simFile) Sync() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	if f.s.step() {
		return errCut
	}
	if f.s.failS != nil { // as Linux: some is written, all is clean
		for _, sec := range slices.Sorted(maps.Keys(f.old)) {
			all := f.old[sec]
			if i := f.s.r.IntN(len(all) + 1); i < len(all) {
				f.lost[sec] = all[i]
			}
		}
	}
	clear(f.old)
	f.sizes = nil
	return f.s.failS
}

func (f *simFile) Forget() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for sec, disk := range f.lost {
		if int(sec*sector) < len(f.data) {
			copy(f.data[sec*sector:], disk)
		}
	}
	clear(f.lost)
	return nil
}

func (f *simFile) Close() error { return nil }
