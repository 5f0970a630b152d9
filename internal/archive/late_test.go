package archive

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
)

// fullFiles have no room for anything until they are told.
type fullFiles struct {
	Files
	err error
}

type fullFile struct {
	File
	of *fullFiles
}

func (f *fullFiles) Open(path string, create bool) (File, error) {
	file, err := f.Files.Open(path, create)
	if err != nil {
		return nil, err
	}
	return &fullFile{file, f}, nil
}

func (f *fullFile) Allocate(size int64) error {
	if f.of.err != nil {
		return f.of.err
	}
	return f.File.Allocate(size)
}

// An archive for which there is no room is stopped, says so to whoever asks, and begins at the Mend that finds room.
func TestLate(t *testing.T) {
	files := &fullFiles{Files: SystemFiles(), err: syscall.ENOSPC}
	w, err := OpenStopped(Options{Dir: t.TempDir(), Tiers: testTiers, ExtentSize: minExtentSize, Files: files})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	reused := false
	w.OnReuse(func(int, uint64) { reused = true })
	world, r := newWorld(t), rand.New(rand.NewPCG(1, 1))
	block := world.block(r, world.schemas[0], false, []int{1, 3}, 5)
	all := Selection{From: math.MinInt64, To: math.MaxInt64}
	stopped := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrStopped) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: want it stopped for want of room, got %v", what, err)
		}
	}
	stopped("Append", w.Append(0, block))
	stopped("SetMark", w.SetMark(0, Mark{1, 64}))
	stopped("Sync", w.Sync())
	_, err = w.Select(context.Background(), all)
	stopped("Select", err)
	_, err = w.Find(block.Sources[0].Source.Segment)
	stopped("Find", err)
	for _, err := range w.Blocks(0, Mark{}) {
		stopped("Blocks", err)
	}
	if !errors.Is(w.Err(), syscall.ENOSPC) || !errors.Is(w.Mend(), syscall.ENOSPC) {
		t.Errorf("Err and Mend: want no room, got %v", w.Err())
	}
	if tiers := w.Tiers(); len(tiers) != 2 || tiers[1].Step != testTiers[1].Step || tiers[1].Size != 0 || w.End(0) != (Mark{}) {
		t.Errorf("want two tiers with nothing in them, got %+v, end %v", tiers, w.End(0))
	}

	files.err = nil
	if err := w.Mend(); err != nil || w.Err() != nil {
		t.Fatalf("with room: want it mended, got %v, %v", err, w.Err())
	}
	for range 200 {
		if err := w.Append(0, world.block(r, world.schemas[0], false, []int{1, 3}, 400)); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := w.Select(context.Background(), all); err != nil || len(found) == 0 {
		t.Errorf("want what was appended, got %v, %v", found, err)
	}
	if !reused {
		t.Error("want OnReuse handed on to the archive that was opened")
	}

	files.err = syscall.EACCES
	if w, err := OpenStopped(Options{Dir: t.TempDir(), Tiers: testTiers, ExtentSize: minExtentSize, Files: files}); !errors.Is(err, syscall.EACCES) {
		t.Errorf("what is not the disk's doing: want Open's error, got %v, %v", w, err)
	}
}
