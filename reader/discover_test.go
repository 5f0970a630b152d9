package reader

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
)

func TestNames(t *testing.T) {
	id := fmt.Sprintf("%032x", 1)
	for name, want := range map[string]bool{
		"api." + id + ".shmts": true, "a.b." + id + ".shmts": true, "." + id + ".shmts": false, "." + id: false, id + ".shmts": false,
		"api." + id[1:] + ".shmts": false, "api" + id + ".shmts": false, "api." + id + ".shmts.1": false, "": false, ".shmts": false,
		"api.0000000000000000000000000000000A.shmts": false, ".api." + id + ".shmts": false,
	} {
		if got := name != "" && isSegmentName(name); got != want {
			t.Errorf("segment name %q: want %v, got %v", name, want, got)
		}
	}
	for name, want := range map[string]bool{"0": true, "1000": true, "4294967295": true, "4294967296": false, "01": false, "-1": false, "+1": false, "": false, "root": false} {
		if _, got := userID(name); got != want {
			t.Errorf("user directory %q: want %v, got %v", name, want, got)
		}
	}
}

// With and without openat2, no symbolic link and no way out is followed.
func TestOpenBeneath(t *testing.T) {
	dir := segtest.Store(t)
	outside := t.TempDir()
	for _, p := range []string{filepath.Join(dir, "1"), filepath.Join(dir, "2")} {
		if err := os.Mkdir(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{filepath.Join(dir, "1", "file"), filepath.Join(outside, "file")} {
		if err := os.WriteFile(p, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{"1/link": "file", "1/out": filepath.Join(outside, "file"), "3": "1", "4": outside, "1/fd": "/proc/self/fd/0"} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	for what, open := range map[string]func(int, string, string) (int, error){"openat2": openBeneath, "steps": openSteps} {
		for _, c := range []struct {
			dir, name string
			want      bool
		}{{"1", "file", true}, {"1", "link", false}, {"1", "out", false}, {"1", "fd", false}, {"3", "file", false}, {"4", "file", false}, {"2", "file", false}} {
			fd, err := open(root, c.dir, c.name)
			if err == nil {
				unix.Close(fd)
			}
			if (err == nil) != c.want {
				t.Errorf("%s: %s/%s: want opened %v, got %v", what, c.dir, c.name, c.want, err)
			}
		}
		if what == "openat2" {
			for _, d := range []string{"..", "1/.."} {
				if fd, err := open(root, d, filepath.Base(outside)); err == nil {
					unix.Close(fd)
					t.Errorf("%s: %s: want no way out", what, d)
				}
			}
		}
	}
}

// Where inotify can't be had, scans do.
func TestWithoutInotify(t *testing.T) {
	dir := segtest.Store(t)
	s, err := Open(Options{Dir: dir, Rescan: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	unix.Close(s.watch.fd)
	s.watch.fd = -1
	find := func(what string, want int) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if _, err := s.Poll(); err != nil {
				t.Fatal(err)
			}
			if len(s.Segments()) == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: want %d segments within 10 s, got %d", what, want, len(s.Segments()))
			}
		}
	}
	f := segtest.New(t, segtest.Options{ID: 1})
	f.Birth(t, dir)
	find("the first", 1)
	segtest.New(t, segtest.Options{ID: 2}).Birth(t, dir)
	find("the second", 2)
	if err := os.Remove(f.Path); err != nil {
		t.Fatal(err)
	}
	find("after removal", 1)
}

// More happened than inotify keeps: what it lost is found all the same, in the same poll.
func TestInotifyOverflow(t *testing.T) {
	dir := segtest.Store(t)
	s, err := Open(Options{Dir: dir, Rescan: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mine := filepath.Join(dir, strconv.Itoa(os.Geteuid()))
	if err := os.Mkdir(mine, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Poll(); err != nil {
		t.Fatal(err)
	}
	limit := 16384
	if b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events"); err == nil {
		fmt.Sscan(string(b), &limit)
	}
	if limit > 100_000 {
		t.Skipf("max_queued_events is %d here", limit)
	}
	for i := 0; i < limit/2+100; i++ {
		p := filepath.Join(mine, fmt.Sprintf("x%d", i%2))
		if err := os.WriteFile(p, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		os.Remove(p)
	}
	segtest.New(t, segtest.Options{}).Birth(t, dir)
	if _, err := s.Poll(); err != nil || len(s.Segments()) != 1 {
		t.Errorf("after an overflow: want the segment found, got %d (%v)", len(s.Segments()), err)
	}
}

// Segments that come and go by the thousand: each last value is had, and nothing stays.
func TestChurn(t *testing.T) {
	dir := segtest.Store(t)
	s, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const n, batch = 2000, 50
	ts := layout.TableSchema{Name: "t", Lanes: 1, RowCells: 1, LaneCells: 1, Tiers: []layout.TierSchema{{Step: 1e9, Rows: 2}}}
	drained := map[string]int64{}
	for i := 0; i < n; i += batch {
		for k := i; k < i+batch; k++ {
			f := segtest.New(t, segtest.Options{Instance: strconv.Itoa(k), Tables: []layout.TableSchema{ts}})
			f.H.SegmentID[0], f.H.SegmentID[1] = byte(k), byte(k>>8)
			f.H.Encode(f.W)
			f.Series(t, 0, "n", layout.Counter, layout.U64, layout.BucketRange{}, layout.Pair{Name: "k", Value: strconv.Itoa(k)})
			f.Lane(0, 0)[0] = uint64(1000 + k)
			if k%3 == 0 {
				f.Leave(t, dir)
				continue
			}
			if err := f.Give(dir); err != nil {
				t.Fatal(err)
			}
			f.Die()
		}
		ev, err := s.Poll()
		if err != nil || len(ev.New) != batch || len(ev.Ended) != batch {
			t.Fatalf("want %d new and ended, got %d and %d (%v)", batch, len(ev.New), len(ev.Ended), err)
		}
		for _, g := range ev.Ended {
			for r := range g.Rows(0, 0, 0) {
				if v, ok := r.Value(g.Series()[0]); ok {
					drained[g.Instance()] += v.Int
				}
			}
			if err := s.Unlink(g); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		if _, err := s.Poll(); err != nil {
			t.Fatal(err)
		}
	}
	for k := range n {
		if got := drained[strconv.Itoa(k)]; got != int64(1000+k) {
			t.Fatalf("segment %d: want %d drained once, got %d", k, 1000+k, got)
		}
	}
	if len(s.open)+len(s.closing)+len(s.index)+len(s.strings.m)+s.kept+int(s.mapped) != 0 {
		t.Errorf("want nothing kept, got %d open, %d closing, %d indexed, %d strings, %d descriptors, %d bytes mapped",
			len(s.open), len(s.closing), len(s.index), len(s.strings.m), s.kept, s.mapped)
	}
	for _, d := range s.users {
		if len(d.files) != 0 || d.account.used != (amounts{}) {
			t.Errorf("directory %s: want nothing kept, got %d files, %v in use", d.name, len(d.files), d.account.used)
		}
	}
}
