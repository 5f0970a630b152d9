package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shmts/shmts/reader"
	"github.com/urfave/cli/v2"
)

// What rm --json prints: one for each segment that was, or would be, removed.
type rmJSON struct {
	ID        string `json:"id"`
	Path      string `json:"path"`
	Job       string `json:"job"`
	Instance  string `json:"instance"`
	State     string `json:"state" doc:"closed or dead"`
	SizeBytes int64  `json:"size_bytes"`
	Removed   bool   `json:"removed" doc:"false with --dry-run"`
}

// keepFor is how long a segment stays after its writer's end: who keeps the history may still be reading. FORMAT.md 10.5.
const keepFor = 5 * time.Second

func rmVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "rm",
			Usage:     "remove segments whose writers have ended",
			ArgsUsage: "SEGMENT... | --ended",
			Description: "shmtsd does this after it has read the last rows; rm is for hosts without it. A segment whose writer lives is never\n" +
				"removed, and one that ended less than 5 s ago is left to whoever may be reading it.",
			Flags: []cli.Flag{storeFlag(), jsonFlag(),
				&cli.BoolFlag{Name: "ended", Usage: "all closed and dead segments of the store that this user may remove"},
				&cli.DurationFlag{Name: "older", Usage: "only those that ended at least this `DURATION` ago", Value: keepFor},
				&cli.BoolFlag{Name: "dry-run", Usage: "say what would be removed"},
			},
			Action: rmAction,
		},
		json: rmJSON{}, lines: true,
		examples: []string{"shmctl rm --ended --older 10m", "shmctl rm 7f3a --dry-run"},
		complete: func(c *completion) []candidate { return c.segments() },
	}
}

func rmAction(c *cli.Context) error {
	if c.Bool("ended") == c.Args().Present() {
		return usagef(c, "want either SEGMENT or --ended, got %s", map[bool]string{true: "both", false: "neither"}[c.Bool("ended")])
	}
	if c.Duration("older") < keepFor {
		return usagef(c, "older: want at least %v, got %v", keepFor, c.Duration("older"))
	}
	// Removing goes through the store, and only one that is this user's or root's: a path that leads
	// elsewhere is no business of rm's.
	v, err := open(c, false)
	if err != nil {
		return err
	}
	defer v.Close()
	list := v.all
	var failed error
	if !c.Bool("ended") {
		list = nil
		for _, word := range c.Args().Slice() {
			m := matches(v.all, word)
			if isPath(word) {
				m = v.byPath(word)
			}
			if len(m) == 0 {
				failed = errors.Join(failed, v.none(word))
			}
			list = append(list, m...)
		}
	}
	// What has a shadow goes before it: a daemon would make another.
	slices.SortStableFunc(list, func(a, b *reader.Segment) int { return btoi(a.Shadow()) - btoi(b.Shadow()) })
	seen := map[*reader.Segment]bool{}
	for _, g := range list {
		if seen[g] {
			continue
		}
		seen[g] = true
		if err := removable(g, c.Duration("older")); err != nil {
			if !c.Bool("ended") {
				failed = errors.Join(failed, err)
			}
			continue
		}
		out := rmJSON{ID: g.ID(), Path: g.Path(), Job: g.Job(), Instance: g.Instance(), State: stateOf(g), SizeBytes: g.Size()}
		if !c.Bool("dry-run") {
			if err := v.store.Unlink(g); err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			out.Removed = true
		}
		if c.Bool("json") {
			if err := printJSONLine(c, out); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintln(c.App.Writer, oneLine(out.Path))
	}
	return failed
}

func removable(g *reader.Segment, older time.Duration) error {
	end, ended := g.End()
	if !ended {
		return fmt.Errorf("shmts: %s: want a segment that is closed or dead, got one that is %s (pid %d)", g.Path(), stateOf(g), g.Pid())
	}
	if ago := time.Since(time.Unix(0, end)); ago < older {
		return fmt.Errorf("shmts: %s: want one that ended at least %v ago, got %v", g.Path(), older, ago.Round(time.Millisecond))
	}
	return nil
}
