package archive

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A bit is flipped in a byte of a small archive, each in turn: it is opened, never shows a wrong value, loses nothing of other
// extents, and goes on; nothing that lay there before comes back as something else.
func TestFlips(t *testing.T) {
	t.Parallel()
	r := newRun(t, 5)
	r.o.Tiers = []TierOptions{{time.Second, 4096 + 3*minExtentSize}}
	r.o.Files = r.s
	a := mustOpen(t, r.o)
	byGen := map[uint64]map[rowID]bool{}
	for i := range 12 {
		if i > 0 && i%4 == 0 { // long before it is full: so every byte has its turn
			if err := a.turn(0, a.tiers[0]); err != nil {
				t.Fatal(err)
			}
		}
		b := r.w.block(r.r, r.w.schemas[i%3], false, []int{i % 4 * 2, 8}, 8)
		if err := a.Append(0, b); err != nil {
			t.Fatal(err)
		}
		gen := a.End(0).Generation
		if byGen[gen] == nil {
			byGen[gen] = map[rowID]bool{}
		}
		for id := range rowsOf(b) {
			byGen[gen][id] = true
		}
	}
	if err := errors.Join(a.SetMark(0, Mark{5, 5}), a.Sync()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.o.Dir, "1s.tier")
	good := r.s.image(true).files[path].data
	// The extent of generation 3 is open and lies in slot 2; that of generation 1 is sealed.
	stride, ends := flipStride(), usedEnds(a)
	r.w.spoiled = true
	flips, refused := 0, 0
	flip := func(at int) {
		s := newSim(r.r)
		data := bytes.Clone(good)
		data[at] ^= 1 << r.r.IntN(8)
		s.file(path, data)
		c := r.fork(s)
		c.o.Files = s
		flips++
		a, err := Open(c.o)
		if err != nil {
			if refused++; at >= TierHeaderSize {
				t.Fatalf("byte %d: %v", at, err)
			}
			return
		}
		look := func(when string) {
			got, wrong := c.w.read(a, 0)
			for _, word := range wrong {
				t.Fatalf("byte %d, %s: %s", at, when, word)
			}
			for gen, rows := range byGen {
				first := tierHeaderArea + int(gen-1)*minExtentSize
				if at >= first && at < first+minExtentSize || when != "opened" && gen < 3 {
					continue
				}
				for id := range rows {
					if !got[id] {
						t.Fatalf("byte %d, %s: row %d of generation %d is gone", at, when, id.no, gen)
					}
				}
			}
		}
		look("opened")
		for range 3 { // into what is open, and where another one begins
			if err := a.Append(0, c.w.block(c.r, c.w.schemas[1], false, []int{10, 12}, 30), c.w.block(c.r, c.w.schemas[1], false, []int{14, 4}, 30)); err != nil {
				t.Fatalf("byte %d: %v", at, err)
			}
		}
		look("gone on")
		if at%3 == 0 {
			if err := errors.Join(a.turn(0, a.tiers[0]), a.Append(0, c.w.block(c.r, c.w.schemas[1], false, []int{10, 16}, 30))); err != nil {
				t.Fatalf("byte %d: %v", at, err)
			}
			look("gone on in another extent")
		}
		if err := errors.Join(a.Sync(), a.Close()); err != nil {
			t.Fatal(err)
		}
		if a, err = Open(c.o); err != nil {
			t.Fatalf("byte %d: %v", at, err)
		}
		look("opened again")
	}
	headers := func(f func(from, to int)) {
		f(0, TierHeaderSize)
		for slot := range 3 {
			at := tierHeaderArea + slot*minExtentSize
			f(at, at+ExtentHeaderSize)
			f(at+minExtentSize-TrailerSize, at+minExtentSize)
		}
	}
	headers(func(from, to int) {
		for at := from; at < to; at++ {
			flip(at)
		}
	})
	for slot, end := range ends {
		first := tierHeaderArea + slot*minExtentSize
		for at := first + ExtentHeaderSize; at < first+end; at += stride {
			flip(at)
		}
		for at := first + end; at < first+minExtentSize; at += 977 {
			flip(at)
		}
	}
	if refused < TierHeaderSize/2 { // minor and compat are for who comes later, but the check is over them too
		t.Errorf("want flips of the tier's header refused, got %d", refused)
	}
	t.Logf("%d flips", flips)
}

// flipStride is 1, every byte, where the long tests are wanted.
func flipStride() int {
	if os.Getenv("SHMTS_CRASHES") != "" {
		return 1
	}
	return 29
}

// usedEnds are where what each slot of the first tier holds ends, its index included.
func usedEnds(a *Archive) []int {
	ends := make([]int, len(a.tiers[0].extents))
	for _, e := range a.tiers[0].all() {
		ends[e.slot] = int(e.end.Load() + indexLength(e))
	}
	return ends
}

// An extent whose header is lost is begun anew under a generation that it never had: what lies in it stays dead.
func TestLostHeader(t *testing.T) {
	r := newRun(t, 6)
	r.o.Files = r.s
	a := mustOpen(t, r.o)
	for i := range 9 { // each block of a source of its own: nothing but its generation keeps it from coming back
		if err := a.Append(0, r.w.block(r.r, r.w.schemas[0], false, []int{2 * i}, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	r.s.files[filepath.Join(r.o.Dir, "1s.tier")].data[tierHeaderArea+9] ^= 4
	a = mustOpen(t, r.o)
	if got, _ := r.w.read(a, 0); len(got) > 0 {
		t.Errorf("want nothing without the header, got %d rows", len(got))
	}
	want := map[rowID]bool{}
	for i := range 6 {
		b := r.w.block(r.r, r.w.schemas[0], false, []int{60 + 2*i}, 2)
		if err := a.Append(0, b); err != nil {
			t.Fatal(err)
		}
		for id := range rowsOf(b) {
			want[id] = true
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a = mustOpen(t, r.o)
		checkWorld(t, r.w, a, 0, want)
		if got, _ := r.w.read(a, 0); len(got) != len(want) {
			t.Fatalf("want %d rows, got %d", len(want), len(got))
		}
	}
}

// A broken block in an extent that is not sealed hides nothing behind it, neither by its header that is gone nor by one that is left of
// a block that a crash took back, and whose length reaches over what was written in its place.
func TestBrokenBlock(t *testing.T) {
	r := newRun(t, 8)
	r.o.Files = r.s
	path := filepath.Join(r.o.Dir, "1s.tier")
	a := mustOpen(t, r.o)
	end := func() int { return tierHeaderArea + int(a.End(0).Offset) }
	add := func(rows int, sources ...int) (map[rowID]bool, int) {
		t.Helper()
		at := end()
		b := r.w.block(r.r, r.w.schemas[0], false, sources, rows)
		if err := a.Append(0, b); err != nil {
			t.Fatal(err)
		}
		return rowsOf(b), at
	}
	again := func() {
		t.Helper()
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a = mustOpen(t, r.o)
	}
	first, _ := add(10, 2)
	before := bytes.Clone(r.s.files[path].data)
	next := maps.Clone(r.w.next)
	_, large := add(300, 2)
	left := bytes.Clone(r.s.files[path].data[large:][:BlockHeaderSize])
	for _, c := range []struct {
		what  string
		spoil func(data []byte, at int)
	}{
		{"header", func(data []byte, at int) { data[at+9] ^= 1 }},
		{"body", func(data []byte, at int) { data[at+BlockHeaderSize+5] ^= 1 }},
		{"header that was left", func(data []byte, at int) { copy(data[at:], left) }},
	} {
		r.s.files[path].data = bytes.Clone(before)
		r.w.next = maps.Clone(next)
		again()
		_, torn := add(3, 2)
		behind, _ := add(3, 2)
		more, _ := add(3, 14) // a source of its own
		last := end()
		c.spoil(r.s.files[path].data, torn)
		for i := range 3 { // what comes next is of others, and lies behind
			again()
			if got := a.Tiers()[0].Skipped; got == 0 {
				t.Errorf("%s: want it counted, got nothing", c.what)
			}
			if end() < last {
				t.Errorf("%s: want the end at %d or behind it, got %d", c.what, last, end())
			}
			for _, rows := range []map[rowID]bool{first, behind, more} {
				checkWorld(t, r.w, a, 0, rows)
			}
			rows, _ := add(2, 20+2*i, 26)
			checkWorld(t, r.w, a, 0, rows)
		}
	}
}

// To an extent that has a trailer, which a crash has left without the blocks that it tells of, nothing is appended: who reads beside the
// writer goes by the trailer.
func TestTrailerDisagrees(t *testing.T) {
	r := newRun(t, 9)
	r.o.Files = r.s
	a := mustOpen(t, r.o)
	add := func(rows int) map[rowID]bool {
		t.Helper()
		b := r.w.block(r.r, r.w.schemas[0], false, []int{2}, rows)
		if err := a.Append(0, b); err != nil {
			t.Fatal(err)
		}
		return rowsOf(b)
	}
	first := add(10)
	at := tierHeaderArea + int(a.End(0).Offset)
	add(300)
	if err := errors.Join(a.seal(a.tiers[0], a.tiers[0].open), a.Close()); err != nil {
		t.Fatal(err)
	}
	data := r.s.files[filepath.Join(r.o.Dir, "1s.tier")].data
	clear(data[at : at+2*BlockHeaderSize])
	a = mustOpen(t, r.o)
	for range 3 {
		rows := add(2)
		for id := range first {
			rows[id] = true
		}
		checkWorld(t, r.w, a, 0, rows)
		other, err := openReader(r.o.Dir, r.s)
		if err != nil {
			t.Fatal(err)
		}
		got, wrong, _ := r.w.readAll(other, 0)
		for _, word := range wrong {
			t.Error(word)
		}
		for id := range rows {
			if !got[id] {
				t.Fatalf("as others read it: want row %d, got %d others", id.no, len(got))
			}
		}
	}
}

// Readers see whole blocks and right values while extents are written, sealed and reused.
func TestReadersBeside(t *testing.T) {
	t.Parallel()
	a := mustOpen(t, Options{Dir: t.TempDir(), Tiers: testTiers[:1], ExtentSize: minExtentSize})
	defer a.Close()
	var wg sync.WaitGroup
	done := make(chan struct{})
	seen := make([]int, 2)
	for i := range seen {
		wg.Add(1)
		w := newWorld(t)
		go func() {
			defer wg.Done()
			for {
				got, wrong := w.read(a, 0)
				for _, word := range wrong {
					t.Error(word)
				}
				seen[i] = max(seen[i], len(got))
				a.Tiers()
				a.End(0)
				select {
				case <-done:
					return
				default:
				}
			}
		}()
	}
	w, r := newWorld(t), rand.New(rand.NewPCG(3, 3))
	for i := range 300 {
		if err := a.Append(0, w.block(r, w.schemas[i%3], i%2 == 0, []int{i % 7 * 2, 20 + i%5*2}, 20)); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	if a.End(0).Generation < 6 || seen[0] == 0 || seen[1] == 0 {
		t.Errorf("want rows seen and extents reused, got %v and generation %d", seen, a.End(0).Generation)
	}
}

// What OnReuse registered is called while the extent is there, and may append to another tier, but not to the same.
func TestOnReuse(t *testing.T) {
	a := mustOpen(t, Options{Dir: t.TempDir(), Tiers: testTiers, ExtentSize: minExtentSize})
	defer a.Close()
	w, r := newWorld(t), rand.New(rand.NewPCG(4, 3))
	calls := 0
	a.OnReuse(func(tier int, generation uint64) {
		if calls++; tier != 0 {
			return
		}
		if all := a.tiers[0].all(); all[0].generation != generation {
			t.Errorf("want generation %d there, got %d as the oldest", generation, all[0].generation)
		}
		if err := a.Append(1, w.block(r, w.schemas[0], true, []int{0}, 3)); err != nil {
			t.Error(err)
		}
		if err := a.Append(0, w.block(r, w.schemas[0], false, []int{0}, 3)); err == nil {
			t.Error("the same tier: want an error")
		}
	})
	for a.End(0).Generation < 7 {
		if err := a.Append(0, w.block(r, w.schemas[2], false, []int{2, 4, 6}, 100)); err != nil {
			t.Fatal(err)
		}
	}
	if calls < 3 {
		t.Errorf("want 3 calls, got %d", calls)
	}
	for tier := range testTiers {
		if _, wrong := w.read(a, tier); len(wrong) > 0 {
			t.Error(wrong)
		}
	}
}

// Blocks that no reader could take are refused, and leave nothing.
func TestAppendRefuses(t *testing.T) {
	a := mustOpen(t, Options{Dir: t.TempDir(), Tiers: testTiers[:1], ExtentSize: minExtentSize})
	defer a.Close()
	w, r := newWorld(t), rand.New(rand.NewPCG(4, 3))
	good := func() *Block { return w.block(r, w.schemas[2], false, []int{2, 4}, 10) }
	if err := a.Append(0, good()); err != nil {
		t.Fatal(err)
	}
	end := a.End(0)
	for _, c := range []struct {
		what, want string
		spoil      func(b *Block)
	}{
		{"no schema", "a schema", func(b *Block) { b.Schema = nil }},
		{"no source", "1 to 1024", func(b *Block) { b.Sources = nil }},
		{"a source twice", "each once, got 1 of 2", func(b *Block) { b.Sources[1] = b.Sources[0] }},
		{"numbers", "numbers and coverage", func(b *Block) { b.Sources[0].Numbers = b.Sources[0].Numbers[1:] }},
		{"coverage", "numbers and coverage", func(b *Block) { b.Folded = true }},
		{"cells", "cells of field", func(b *Block) { b.Sources[1].Cells[3] = nil }},
		{"starts", "starts", func(b *Block) { b.Sources[1].Starts = nil }},
		{"base", "base", func(b *Block) { b.Sources[0].Base++ }},
		{"uids", "uid", func(b *Block) { s := *b.Sources[1].Source; s.UID = 7; b.Sources[1].Source = &s }},
		{"members", "one source, ephemeral", func(b *Block) { b.Members = []Key{{}} }},
		{"labels", "label", func(b *Block) {
			s := *w.source(8)
			s.Labels = append(s.Labels, s.Labels[0])
			b.Sources[1].Source = &s
		}},
		{"too large", ErrTooLarge.Error(), func(b *Block) { *b = *w.block(r, w.schemas[2], false, []int{2, 4, 6, 8}, 2000) }},
	} {
		b := good()
		c.spoil(b)
		if err := a.Append(0, good(), b); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "shmts:") {
			t.Errorf("%s: want an error that says %q, got %v", c.what, c.want, err)
		}
		if a.End(0) != end || a.Err() != nil {
			t.Errorf("%s: want nothing written, got end %v after %v, %v", c.what, a.End(0), end, a.Err())
		}
	}
	if err := a.Append(1, good()); err == nil {
		t.Error("a tier that there is not: want an error")
	}
	if err := a.Append(0, good()); err != nil {
		t.Error(err)
	}
	if rows, wrong := w.read(a, 0); len(wrong) > 0 || len(rows) < 30 {
		t.Errorf("got %d rows, %v", len(rows), wrong)
	}
}

func TestOneWriter(t *testing.T) {
	o := Options{Dir: t.TempDir(), Tiers: testTiers, ExtentSize: minExtentSize}
	a := mustOpen(t, o)
	if b, err := Open(o); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
		t.Errorf("the second writer: want %v, and who, got %v, %v", ErrLocked, b, err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := mustOpen(t, o)
	if b.ID() != a.ID() {
		t.Errorf("want archive %x, got %x", a.ID(), b.ID())
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefuses(t *testing.T) {
	tiers := func(t ...TierOptions) Options { return Options{Tiers: t, ExtentSize: minExtentSize} }
	const enough = 4096 + 2*minExtentSize
	for _, c := range []struct {
		o    Options
		want string
	}{
		{tiers(), "1 to 8"},
		{tiers(TierOptions{time.Millisecond, enough}), "100ms to 1h"},
		{tiers(TierOptions{2 * time.Hour, enough}), "100ms to 1h"},
		{tiers(TierOptions{10 * time.Second, enough}, TierOptions{time.Second, enough}), "more than 10s"},
		{tiers(TierOptions{time.Second, enough - 1}), "budget"},
		{Options{Tiers: []TierOptions{{time.Second, 1 << 30}}, ExtentSize: 1000}, "multiple of 4096"},
	} {
		c.o.Dir = t.TempDir()
		if a, err := Open(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want an error that says %q, got %v, %v", c.want, a, err)
		}
	}
	// A file that is no tier, a tier of another archive, a tier under another's name.
	dir, other := t.TempDir(), t.TempDir()
	o := Options{Dir: dir, Tiers: testTiers, ExtentSize: minExtentSize}
	a, b := mustOpen(t, o), mustOpen(t, Options{Dir: other, Tiers: testTiers, ExtentSize: minExtentSize})
	if err := errors.Join(a.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	try := func(want string) {
		t.Helper()
		before, _ := os.ReadDir(dir)
		a, err := Open(o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error that says %q, got %v, %v", want, a, err)
		}
		if after, _ := os.ReadDir(dir); len(after) != len(before) {
			t.Errorf("want all files left alone, got %v of %v", after, before)
		}
	}
	path := filepath.Join(dir, "10s.tier")
	data, err := os.ReadFile(filepath.Join(other, "10s.tier"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path, data)
	try("want a tier of archive")
	write(path, []byte("hello"))
	try("want 64 bytes, got 5")
	write(path, make([]byte, 100)) // never finished: made anew
	mustOpen(t, o).Close()
	if err := os.Rename(path, filepath.Join(dir, "5m.tier")); err != nil {
		t.Fatal(err)
	}
	mine, err := os.ReadFile(filepath.Join(dir, "1s.tier"))
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "2s.tier"), mine)
	try("want one tier of 1s")
}

// A tier that is not named any more is left alone, and said.
func TestTierLeftAlone(t *testing.T) {
	var log bytes.Buffer
	o := Options{Dir: t.TempDir(), Tiers: testTiers, ExtentSize: minExtentSize, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	a := mustOpen(t, o)
	w, r := newWorld(t), rand.New(rand.NewPCG(4, 3))
	b := w.block(r, w.schemas[2], true, []int{2, 4}, 10)
	if err := errors.Join(a.Append(1, b), a.Close()); err != nil {
		t.Fatal(err)
	}
	o.Tiers = testTiers[:1]
	if a = mustOpen(t, o); len(a.Tiers()) != 1 || !strings.Contains(log.String(), "10s.tier") {
		t.Errorf("want one tier, and the other in the log, got %d and %q", len(a.Tiers()), log.String())
	}
	a.Close()
	o.Tiers = testTiers
	a = mustOpen(t, o)
	defer a.Close()
	checkWorld(t, w, a, 1, rowsOf(b))
}

// A real file system that is full: an error that says so, and once the archive is there it needs nothing more.
func TestRealDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 16<<20), os.Mkdir(at, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, at}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%v: %v\n%s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", at).CombinedOutput(); err != nil {
			t.Errorf("umount: %v\n%s", err, out)
		}
	})
	o := Options{Dir: filepath.Join(at, "archive"), Tiers: []TierOptions{{time.Second, 64 << 20}}}
	if a, err := Open(o); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "67108864 bytes") {
		t.Fatalf("want no space for 67108864 bytes, got %v, %v", a, err)
	}
	if names, _ := SystemFiles().List(o.Dir); len(names) != 1 || names[0] != "lock" {
		t.Errorf("want nothing left but the lock, got %q", names)
	}
	o.Tiers[0].Budget, o.ExtentSize = 4<<20, minExtentSize
	a := mustOpen(t, o)
	defer a.Close()
	fill, err := os.Create(filepath.Join(at, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	_ = fill.Close()
	w, r := newWorld(t), rand.New(rand.NewPCG(4, 3))
	last := map[rowID]bool{}
	for a.End(0).Generation < 70 {
		b := w.block(r, w.schemas[2], false, []int{2, 4, 6}, 400)
		if err := errors.Join(a.Append(0, b), a.Sync()); err != nil {
			t.Fatal(err)
		}
		last = rowsOf(b)
	}
	checkWorld(t, w, a, 0, last)
}
