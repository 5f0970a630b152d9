package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/layout"
)

const aboutSources = "SOURCE is the first digits of a segment's id, a job, job/instance, or\n" +
	"labels that a source has, such as '{rack=\"r12\"}'."

// openArchive opens the archive that the first argument names. The caller closes it.
func openArchive(c *cli.Context) (*archive.Archive, error) {
	if !c.Args().Present() {
		return nil, usagef(c, "want the DIR of an archive, got none")
	}
	return archive.OpenReader(c.Args().First())
}

// tierFlag is the index of the tier with the step that --tier says; -1 without one.
func tierFlag(c *cli.Context, a archive.Reader) (int, error) {
	text := c.String("tier")
	if text == "" {
		return -1, nil
	}
	step, err := parseStep(text)
	var have []string
	for i, t := range a.Tiers() {
		if err == nil && t.Step == step {
			return i, nil
		}
		have = append(have, stepText(t.Step))
	}
	return -1, fmt.Errorf("shmts: tier: want one of %s, got %q", strings.Join(have, ", "), text)
}

// parseStep reads a duration as Go does, and in days, weeks or years of 365 days.
func parseStep(text string) (time.Duration, error) {
	for _, u := range []struct {
		name string
		days int64
	}{{"d", 1}, {"w", 7}, {"y", 365}} {
		if n, err := strconv.ParseUint(strings.TrimSuffix(text, u.name), 10, 32); err == nil && strings.HasSuffix(text, u.name) && int64(n) <= 36_500/u.days {
			return time.Duration(int64(n)*u.days) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("want a duration such as 10s, 36h, 30d or 2y, got %q", text)
	}
	return d, nil
}

// wanted says which sources are meant.
type wanted struct {
	labels []archive.Matcher            // prune the search
	is     func(s *archive.Source) bool // decides
}

// wantedBy reads a SOURCE, in the ways in which it may be meant: the first that finds something counts.
func wantedBy(word string) ([]wanted, error) {
	if strings.HasPrefix(strings.TrimSpace(word), "{") {
		_, pairs, err := parseSeries("x" + strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		return []wanted{labelled(pairs)}, nil
	}
	var all []wanted
	for i := range len(word) { // a job may have slashes, and so may an instance
		if word[i] == '/' {
			all = append(all, labelled([]layout.Pair{{Name: "job", Value: word[:i]}, {Name: "instance", Value: word[i+1:]}}))
		}
	}
	all = append(all, labelled([]layout.Pair{{Name: "job", Value: word}}))
	if isIDPrefix(word) {
		all = append(all, wanted{is: func(s *archive.Source) bool { return strings.HasPrefix(hex.EncodeToString(s.Segment[:]), word) }})
	}
	return all, nil
}

func labelled(pairs []layout.Pair) wanted {
	return wanted{equal(pairs), func(s *archive.Source) bool {
		return !slices.ContainsFunc(pairs, func(p layout.Pair) bool { return layout.Value(s.Labels, p.Name) != p.Value })
	}}
}

// equal are matchers of these labels.
func equal(pairs []layout.Pair) (ms []archive.Matcher) {
	for _, p := range pairs {
		ms = append(ms, archive.Matcher{Name: p.Name, Equal: p.Value, Match: func(v string) bool { return v == p.Value }})
	}
	return ms
}

// selectSources finds the incarnations that words name, all without any. A word that names none is an error.
func selectSources(ctx context.Context, a archive.Reader, base archive.Selection, words []string) ([]*archive.Incarnation, error) {
	if len(words) == 0 {
		return a.Select(ctx, base)
	}
	var found []*archive.Incarnation
	seen := map[archive.Key]bool{}
	for _, word := range words {
		ways, err := wantedBy(word)
		if err != nil {
			return nil, err
		}
		none := true
		for _, w := range ways {
			sel := base
			sel.Labels = append(slices.Clone(base.Labels), w.labels...)
			list, err := a.Select(ctx, sel)
			if err != nil {
				return nil, err
			}
			for _, inc := range list {
				if !w.is(inc.Source) {
					continue
				}
				none = false
				if !seen[inc.Key] {
					seen[inc.Key] = true
					found = append(found, inc)
				}
			}
			if !none {
				break
			}
		}
		if none {
			return nil, fmt.Errorf("shmts: no source %q in the archive: want the first digits of an id, a job, job/instance or {label=\"value\"}; shmctl archive ls --sources lists them", word)
		}
	}
	slices.SortStableFunc(found, func(x, y *archive.Incarnation) int {
		return strings.Compare(fmt.Sprintf("%020d", x.Birth), fmt.Sprintf("%020d", y.Birth))
	})
	return found, nil
}

// windowMs is what since, from and to say, in unix ms.
func windowMs(c *cli.Context) (from, to int64, err error) {
	if c.IsSet("since") && (c.IsSet("from") || c.Duration("since") <= 0) {
		return 0, 0, usagef(c, "since: want a duration above 0, without from, got %v", c.Duration("since"))
	}
	begin, end, err := window(c)
	from, to = begin/1e6, end/1e6
	if end == math.MaxInt64 {
		to = math.MaxInt64
	}
	return from, to, err
}

func windowFlags() []cli.Flag {
	return []cli.Flag{
		&cli.DurationFlag{Name: "since", Usage: "only rows of the last `DURATION`"},
		&cli.StringFlag{Name: "from", Usage: "only rows from this `TIME` on, RFC 3339 or unix seconds"},
		&cli.StringFlag{Name: "to", Usage: "only rows until this `TIME`"},
	}
}

// warnSkipped says that something could not be shown.
func warnSkipped(c *cli.Context, a archive.Reader) {
	for _, t := range a.Tiers() {
		if t.Skipped > 0 {
			warn(c, "tier %s: %d blocks or runs failed a check and are left out; shmctl archive check says what is wrong", stepText(t.Step), t.Skipped)
		}
	}
}

// msTime is unix ms as text; empty or - for none, as jsonTime and timeText have it.
func msTime(ms int64, text func(int64) string) string { return text(ms * int64(time.Millisecond)) }
