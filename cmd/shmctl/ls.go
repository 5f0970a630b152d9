package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shmts/shmts/reader"
	"github.com/urfave/cli/v2"
)

// What ls --json prints.
type lsJSON struct {
	Store    string        `json:"store" doc:"the directory"`
	Segments []segmentJSON `json:"segments" doc:"oldest first"`
	Refused  []refusalJSON `json:"refused" doc:"files that are not read"`
	Users    []userJSON    `json:"users" doc:"by uid: what each user's segments take; none where SEGMENT is said"`
}

type segmentJSON struct {
	ID              string            `json:"id" doc:"32 hexadecimal digits"`
	Group           string            `json:"group" doc:"the incarnation: equal for segments that one process grew"`
	Path            string            `json:"path"`
	Job             string            `json:"job"`
	Instance        string            `json:"instance"`
	Labels          map[string]string `json:"labels" doc:"of every series of the segment, job and instance among them"`
	Attributes      map[string]string `json:"attributes" doc:"resource attributes"`
	UID             int               `json:"uid" doc:"the file's owner"`
	PID             int               `json:"pid" doc:"information: of the writer's own pid namespace"`
	State           string            `json:"state" doc:"alive, stalled, closed or dead"`
	Start           string            `json:"start" doc:"birth, RFC 3339"`
	End             string            `json:"end,omitempty" doc:"time of the last row, RFC 3339; only of closed and dead ones"`
	AgeSeconds      float64           `json:"age_seconds" doc:"since birth"`
	SizeBytes       int64             `json:"size_bytes"`
	Series          int               `json:"series" doc:"live ones"`
	DroppedSeries   uint64            `json:"dropped_series" doc:"registrations that found no room"`
	OverflowThreads uint64            `json:"overflow_threads" doc:"times that a thread found no lane free"`
	RejectedRecords uint64            `json:"rejected_records" doc:"records of NaN, infinity, or a negative amount where there can be none"`
	ForkLosses      uint64            `json:"fork_losses" doc:"forks after which the child had no segment"`
}

type refusalJSON struct {
	Path   string `json:"path"`
	Error  string `json:"error"`
	Budget string `json:"budget,omitempty" doc:"segments, bytes, series or label-bytes, where that is what there was no room in"`
}

type userJSON struct {
	UID           int        `json:"uid"`
	Used          budgetJSON `json:"used" doc:"of the user's segments that are read"`
	Limit         budgetJSON `json:"limit" doc:"what they may take, by shmtsd's defaults"`
	Waiting       int        `json:"waiting" doc:"segments that are refused for want of room"`
	SkippedSeries uint64     `json:"skipped_series" doc:"series, of segments that are read, that found no room"`
}

type budgetJSON struct {
	Segments   int   `json:"segments"`
	Bytes      int64 `json:"bytes"`
	Series     int   `json:"series" doc:"retired ones among them"`
	LabelBytes int64 `json:"label_bytes" doc:"names, units, help and labels"`
}

func describeUser(u reader.Usage) userJSON {
	return userJSON{u.UID, budgetJSON(u.Used), budgetJSON(u.Limit), u.Refused, u.SkippedSeries}
}

func lsVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "ls",
			Aliases:   []string{"list"},
			Usage:     "list segments",
			ArgsUsage: "[SEGMENT...]",
			Description: "A segment is alive while its writer holds the file's lock and ticks, stalled when it holds the lock and does not,\n" +
				"closed when it said goodbye, and dead when the lock is free without that. Files that are refused go to standard\n" +
				"error with the reason, and do not change the exit status; those that are over a budget as one line for each user and\n" +
				"budget (--json has them all). Budgets are shmtsd's defaults; one that was told others, or saw the files come\n" +
				"in another order than their times say, may read others.",
			Flags: []cli.Flag{
				storeFlag(), jsonFlag(),
				&cli.StringSliceFlag{Name: "state", Usage: "only those in this `STATE`: alive, stalled, closed, dead; may be repeated"},
				&cli.StringFlag{Name: "sort", Usage: "by `KEY`: age, job, size, series", Value: "age"},
				&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print paths only"},
				&cli.BoolFlag{Name: "users", Usage: "list users instead: what the segments of each take of his budget"},
			},
			Action: lsAction,
		},
		json: lsJSON{},
		examples: []string{
			"shmctl ls",
			"shmctl ls --state dead --quiet # paths, for a script",
			"shmctl ls --users # who takes how much",
			"shmctl ls --json | jq '.segments[] | select(.dropped_series > 0)'",
		},
		complete: func(c *completion) []candidate {
			switch c.flag {
			case "state":
				return words(stateNames...)
			case "sort":
				return words("age", "job", "size", "series")
			}
			return c.segments()
		},
	}
}

var stateNames = []string{"alive", "stalled", "closed", "dead"}

func stateOf(g *reader.Segment) string { return stateNames[g.Liveness()] }

func describe(g *reader.Segment, now time.Time) segmentJSON {
	n := g.Counters()
	s := segmentJSON{ID: g.ID(), Group: g.Group(), Path: g.Path(), Job: g.Job(), Instance: g.Instance(),
		Labels: pairsMap(g.Labels()), Attributes: pairsMap(g.Attributes()), UID: g.UID(), PID: g.Pid(), State: stateOf(g),
		Start: jsonTime(g.Start()), AgeSeconds: now.Sub(time.Unix(0, g.Start())).Seconds(), SizeBytes: g.Size(),
		Series: liveSeries(g), DroppedSeries: n.DroppedSeries, OverflowThreads: n.OverflowThreads,
		RejectedRecords: n.RejectedRecords, ForkLosses: n.ForkLosses}
	if end, ok := g.End(); ok {
		s.End = jsonTime(end)
	}
	return s
}

func liveSeries(g *reader.Segment) int {
	n := 0
	for _, s := range g.Series() {
		if !s.Retired {
			n++
		}
	}
	return n
}

func lsAction(c *cli.Context) error {
	states := c.StringSlice("state")
	for _, s := range states {
		if !slices.Contains(stateNames, s) {
			return usagef(c, "state: want alive, stalled, closed or dead, got %q", s)
		}
	}
	order := map[string]func(a, b segmentJSON) int{
		"age": func(a, b segmentJSON) int { return cmp.Compare(b.AgeSeconds, a.AgeSeconds) },
		"job": func(a, b segmentJSON) int {
			return cmp.Or(cmp.Compare(a.Job, b.Job), cmp.Compare(a.Instance, b.Instance))
		},
		"size":   func(a, b segmentJSON) int { return cmp.Compare(b.SizeBytes, a.SizeBytes) },
		"series": func(a, b segmentJSON) int { return cmp.Compare(b.Series, a.Series) },
	}[c.String("sort")]
	if order == nil {
		return usagef(c, "sort: want age, job, size or series, got %q", c.String("sort"))
	}
	if c.Bool("users") && (c.NArg() > 0 || len(states) > 0 || c.Bool("quiet")) {
		return usagef(c, "users: want no SEGMENT, --state or --quiet with it, got one")
	}
	v, list, err := lookAt(c, c.Args().Slice())
	if err != nil {
		return err
	}
	defer v.Close()
	now := time.Now()
	out := lsJSON{Store: v.dir, Segments: []segmentJSON{}, Refused: []refusalJSON{}, Users: []userJSON{}}
	for _, g := range list {
		if len(states) == 0 || slices.Contains(states, stateOf(g)) {
			out.Segments = append(out.Segments, describe(g, now))
		}
	}
	slices.SortStableFunc(out.Segments, func(a, b segmentJSON) int { return cmp.Or(order(a, b), cmp.Compare(a.ID, b.ID)) })
	if c.NArg() == 0 {
		for _, r := range v.refused {
			f := refusalJSON{Path: r.Path, Error: r.Err.Error()}
			var over *reader.BudgetError
			if errors.As(r.Err, &over) {
				f.Budget = over.Budget
			}
			out.Refused = append(out.Refused, f)
		}
		_, users := v.store.Usage()
		for _, u := range users {
			out.Users = append(out.Users, describeUser(u))
		}
	}
	if c.Bool("json") {
		return printJSON(c, out)
	}
	if c.NArg() == 0 {
		warnRefused(c, v.refused)
	}
	if c.Bool("users") {
		return printUsers(c, out.Users)
	}
	if c.Bool("quiet") {
		for _, s := range out.Segments {
			fmt.Fprintln(c.App.Writer, s.Path)
		}
		return nil
	}
	g := newGrid("ID", "JOB", "INSTANCE", ">UID", ">PID", "STATE", ">AGE", ">SIZE", ">SERIES", ">DROPPED")
	for _, s := range out.Segments {
		state := s.State
		if end, err := time.Parse(time.RFC3339Nano, s.End); err == nil {
			state += " " + ageText(now.Sub(end))
		}
		g.add(s.ID[:8], s.Job, s.Instance, strconv.Itoa(s.UID), strconv.Itoa(s.PID), state,
			ageText(time.Duration(s.AgeSeconds*float64(time.Second))), sizeText(s.SizeBytes), strconv.Itoa(s.Series), strconv.FormatUint(s.DroppedSeries, 10))
	}
	g.print(c.App.Writer)
	return nil
}

// warnRefused says what is not read, and why: of what is over a budget, the first of each user and budget, and how many more.
func warnRefused(c *cli.Context, refused []reader.Refusal) {
	type key struct {
		uid    int
		budget string
		total  bool
	}
	first := map[key]reader.Refusal{}
	count := map[key]int{}
	var order []key
	for _, r := range refused {
		var over *reader.BudgetError
		if !errors.As(r.Err, &over) {
			warn(c, "refused %s: %s", r.Path, r.Err)
			continue
		}
		k := key{over.UID, over.Budget, over.Total}
		if count[k]++; count[k] == 1 {
			first[k] = r
			order = append(order, k)
		}
	}
	for _, k := range order {
		more := ""
		if n := count[k] - 1; n > 0 {
			more = fmt.Sprintf(", and %d more of this user", n)
		}
		warn(c, "refused %s%s: %s", first[k].Path, more, first[k].Err)
	}
}

// printUsers lists users, with what each takes of what he may.
func printUsers(c *cli.Context, users []userJSON) error {
	of := func(used, limit string) string { return used + " of " + limit }
	count := func(used, limit int) string { return of(strconv.Itoa(used), strconv.Itoa(limit)) }
	size := func(used, limit int64) string { return of(sizeText(used), sizeText(limit)) }
	g := newGrid(">UID", ">SEGMENTS", ">SIZE", ">SERIES", ">LABELS", ">WAITING", ">SKIPPED")
	for _, u := range users {
		g.add(strconv.Itoa(u.UID), count(u.Used.Segments, u.Limit.Segments), size(u.Used.Bytes, u.Limit.Bytes), count(u.Used.Series, u.Limit.Series),
			size(u.Used.LabelBytes, u.Limit.LabelBytes), strconv.Itoa(u.Waiting), strconv.FormatUint(u.SkippedSeries, 10))
	}
	g.print(c.App.Writer)
	return nil
}
