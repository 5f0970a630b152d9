package config

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Archive is where history is kept, and how much of it. No directory, no archive.
type Archive struct {
	Dir                string
	Tiers              []ArchiveTier // finest first
	SyncInterval       time.Duration
	UserBytesPerSecond int64
	Ephemeral          bool
}

// ArchiveTier is one tier: what it may take on disk, for ever.
type ArchiveTier struct {
	Step   time.Duration
	Budget int64
}

const (
	// noArchive is what archive.dir says to have none where the environment names a place for one.
	noArchive = "none"
	// stateEnv is systemd's variable: the directories of StateDirectory=.
	stateEnv     = "STATE_DIRECTORY"
	defaultTiers = "1s=512MiB,10s=256MiB,5m=256MiB"
	mostTiers    = 8 // FORMAT.md 20
	leastTier    = 1 << 20
)

func archiveSettings(a *Archive) []setting {
	return []setting{
		{name: "archive.dir", what: "DIR", help: "keep history here, in files that are allocated at the start and never grow; none, or empty: no archive. Under systemd, StateDirectory= is enough",
			otel: []from{{stateEnv, stateDir}}, set: archiveDir(&a.Dir)},
		{name: "archive.tiers", def: defaultTiers, what: "STEP=SIZE,...", help: "its tiers, and what each takes on disk, for ever", set: tiers(&a.Tiers)},
		{name: "archive.sync-interval", def: "5s", what: "DURATION", help: "how often what was written is synced to the disk: a loss of power costs that, and what was in the segments' rings", set: duration(&a.SyncInterval, 100*time.Millisecond, 10*time.Minute)},
		{name: "archive.user-bytes-per-second", def: "1MiB", what: "SIZE", help: "what the segments of one user may add to a tier, a second; what is over it is lost in that tier, and counted", set: size(&a.UserBytesPerSecond, 1<<10, 1<<40)},
		{name: "archive.ephemeral", boolean: true, def: "true", help: "in tiers of which a step is more than twice as long as a process lived, add its counters and histograms to a sum of its job's (instance ephemeral-5m for a tier of 5m), instead of keeping its own series", set: boolean(&a.Ephemeral)},
	}
}

func archiveDir(to *string) func(string) error {
	return func(v string) error {
		if v == noArchive {
			v = ""
		}
		*to = v
		return nil
	}
}

// stateDir is the first of the directories that systemd made.
func stateDir(v string) (string, error) {
	first, _, _ := strings.Cut(v, ":")
	return filepath.Join(first, "archive"), nil
}

func tiers(to *[]ArchiveTier) func(string) error {
	return func(v string) error {
		var all []ArchiveTier
		for _, f := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }) {
			step, bytes, ok := strings.Cut(f, "=")
			var t ArchiveTier
			if !ok {
				return fmt.Errorf("want STEP=SIZE with commas between, such as %s, got %q", defaultTiers, v)
			}
			if err := duration(&t.Step, 100*time.Millisecond, time.Hour)(step); err != nil {
				return err
			}
			if t.Step%time.Millisecond != 0 {
				return fmt.Errorf("want a step of whole milliseconds, got %v", t.Step)
			}
			if err := size(&t.Budget, leastTier, mostBytes)(bytes); err != nil {
				return err
			}
			all = append(all, t)
		}
		slices.SortFunc(all, func(a, b ArchiveTier) int { return cmp.Compare(a.Step, b.Step) })
		for i, t := range all {
			switch {
			case i > 0 && t.Step == all[i-1].Step:
				return fmt.Errorf("want each step once, got %v twice", t.Step)
			case i > 0 && t.Step%all[i-1].Step != 0:
				return fmt.Errorf("want each step a multiple of the one before, got %v and %v", all[i-1].Step, t.Step)
			}
		}
		if len(all) == 0 || len(all) > mostTiers {
			return fmt.Errorf("want 1 to %d tiers, got %d", mostTiers, len(all))
		}
		*to = all
		return nil
	}
}
