package peers

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// A peer is built once, however many ask for it at the same time; a build that fails leaves
// nothing that could be taken for a peer, and the next one tries again.
func TestBuiltOnce(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	broken := errors.New("no compiler today")
	if _, err := built("server-v1", "server", t.Logf, func(scratch, name string, _ Logf) error {
		if err := os.WriteFile(filepath.Join(scratch, name), []byte("half"), 0o755); err != nil {
			return err
		}
		return broken
	}); !errors.Is(err, broken) {
		t.Fatalf("want %v, got %v", broken, err)
	}

	var builds atomic.Int32
	build := func(scratch, name string, _ Logf) error {
		builds.Add(1)
		return os.WriteFile(filepath.Join(scratch, name), []byte("whole"), 0o755)
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			path, err := built("server-v1", "server", t.Logf, build)
			if err != nil {
				t.Error(err)
				return
			}
			if data, err := os.ReadFile(path); err != nil || string(data) != "whole" {
				t.Errorf("want a whole binary at %s, got %q, %v", path, data, err)
			}
		})
	}
	wait.Wait()
	if n := builds.Load(); n != 1 {
		t.Errorf("want one build, got %d", n)
	}
	dir, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*", ".build-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("want no scratch directory left, got %v, %v", left, err)
	}
}
