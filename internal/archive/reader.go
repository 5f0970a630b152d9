package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"time"
)

var _ Writer = (*Archive)(nil)

// OpenReader opens the archive of a directory for reading, whether another process writes it meanwhile or not. All of its tiers
// are there, finest first. What was appended since is looked for at each Select, Find, Blocks and Tiers; what was evicted is missing, and
// no error. What would write is refused.
func OpenReader(dir string) (*Archive, error) { return openReader(dir, SystemFiles()) }

func openReader(dir string, files Files) (*Archive, error) {
	a := &Archive{dir: dir, files: files, log: slog.New(slog.DiscardHandler), now: time.Now}
	found, err := a.find()
	if err != nil {
		return nil, err
	}
	for _, step := range slices.Sorted(maps.Keys(found)) {
		t := found[step]
		t.shared = true
		a.tiers = append(a.tiers, t)
	}
	if len(a.tiers) == 0 {
		return nil, fmt.Errorf("shmts: archive: %s: want files named <step>%s, got none: %w", dir, tierSuffix, fs.ErrNotExist)
	}
	if err := a.follow(); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}
