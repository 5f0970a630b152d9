package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
	"github.com/urfave/cli/v2"
)

// What show --json prints: one for each segment.
type showJSON struct {
	segmentJSON
	Writer        string       `json:"writer" doc:"name and version of the writing library"`
	Sampled       bool         `json:"sampled" doc:"the writer never ticks"`
	Epoch         uint32       `json:"epoch" doc:"moves when the writer's memory may have been rewound"`
	SkippedRows   uint64       `json:"skipped_rows" doc:"rows passed over by this look: torn or broken"`
	SkippedSeries uint64       `json:"skipped_series" doc:"descriptors passed over by this look"`
	Tables        []tableJSON  `json:"tables"`
	SeriesList    []seriesJSON `json:"series_list" doc:"live and retired"`

	ExemplarsTaken   uint64         `json:"exemplars_taken" doc:"numbers ever given to exemplars"`
	ExemplarsDropped uint64         `json:"exemplars_dropped" doc:"of those, that found their slot held by another thread"`
	SkippedExemplars uint64         `json:"skipped_exemplars" doc:"exemplars passed over by this look"`
	Exemplars        []exemplarJSON `json:"exemplars" doc:"of these series, those that are still there, oldest first"`
}

type tableJSON struct {
	Name  string     `json:"name"`
	Tiers []tierJSON `json:"tiers"`
}

type tierJSON struct {
	StepSeconds float64 `json:"step_seconds"`
	Rows        int     `json:"rows" doc:"capacity of the ring"`
	Head        uint64  `json:"head" doc:"number of the newest row, 0 if none"`
}

type seriesJSON struct {
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels" doc:"its own; the segment's are the segment's"`
	Kind      string            `json:"kind" doc:"counter, updown, gauge, stat, histogram"`
	Number    string            `json:"number" doc:"u64, i64, f64"`
	Unit      string            `json:"unit,omitempty" doc:"UCUM"`
	Help      string            `json:"help,omitempty"`
	Table     string            `json:"table"`
	Start     string            `json:"start" doc:"registration, RFC 3339"`
	Retired   bool              `json:"retired,omitempty"`
	Time      string            `json:"time,omitempty" doc:"of the value: the row's, or absent for a sample of live cells"`
	PerSecond *float64          `json:"per_second,omitempty" doc:"change a second over the newest 10 s: a counter's or updown's value, a stat's or histogram's count"`
	valueJSON

	title, text string // the same for people
}

func showVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "show",
			Usage:     "show a segment: its source, tables and series with their values and exemplars",
			ArgsUsage: "SEGMENT [SERIES...]",
			Description: "Of a job or job/instance the newest incarnation is shown. Values are a sample of the live cells while the writer\n" +
				"lives, and its last row afterwards. SERIES is a name, in which * and ? stand for text, or name{label=\"value\"}.",
			Flags: []cli.Flag{storeFlag(), jsonFlag(),
				&cli.BoolFlag{Name: "help-text", Usage: "print each series' help too"}},
			Action: showAction,
		},
		json: showJSON{}, lines: true,
		examples: []string{
			"shmctl show forwarder/eth0",
			"shmctl show 7f3a 'rx_*' # series whose names begin with rx_",
		},
		complete: func(c *completion) []candidate {
			if len(c.words) == 0 {
				return c.segments()
			}
			return c.series(c.words[0])
		},
	}
}

// rateWindow is what rates in show cover.
const rateWindow = 10 * time.Second

// shortest is the least time over which a rate says anything: one step of the finest tier that there can be.
const shortest = layout.MinStep

func showAction(c *cli.Context) error {
	if c.NArg() < 1 {
		return usagef(c, "want a SEGMENT, got none")
	}
	picks, err := parsePicks(c.Args().Tail())
	if err != nil {
		return err
	}
	v, list, err := lookAt(c, c.Args().Slice()[:1])
	if err != nil {
		return err
	}
	defer v.Close()
	found := 0
	for i, g := range newest(list) {
		show := showOf(g, picks, time.Now())
		if err := v.settle(g); err != nil {
			return err
		}
		for x := range v.exemplars(g, 0) {
			if picked(picks, x.Series) {
				show.Exemplars = append(show.Exemplars, exemplarOf(g, x, time.Now()))
			}
		}
		show.countExemplars(v, g)
		found += len(show.SeriesList)
		if c.Bool("json") {
			if err := printJSONLine(c, show); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		if err := printShow(c, g, &show); err != nil {
			return err
		}
	}
	if len(picks) > 0 && found == 0 {
		return fmt.Errorf("shmts: %s: no series %s", c.Args().First(), strings.Join(c.Args().Tail(), ", "))
	}
	return nil
}

func parsePicks(words []string) ([]pick, error) {
	var picks []pick
	for _, w := range words {
		p, err := parsePick(w)
		if err != nil {
			return nil, err
		}
		picks = append(picks, p)
	}
	return picks, nil
}

func picked(picks []pick, s *reader.Series) bool {
	for i := range picks {
		if picks[i].is(s) {
			return true
		}
	}
	return len(picks) == 0
}

// newestRow is what the table says now: live cells of a living writer, else the last row. Nil if there is
// neither. Live samples have no time.
func newestRow(g *reader.Segment, table int) *reader.Row {
	if !g.Liveness().Ended() {
		if r, err := g.Live(table); err == nil {
			return r
		}
	}
	if len(g.Tables()[table].Tiers) == 0 {
		return nil
	}
	var row *reader.Row
	for r := range g.Rows(table, 0, g.Head(table, 0)) {
		row = r.Clone()
	}
	return row
}

func showOf(g *reader.Segment, picks []pick, now time.Time) showJSON {
	show := showJSON{segmentJSON: describe(g, now), Writer: g.Writer(), Sampled: g.Sampled(), Epoch: g.Epoch(), SeriesList: []seriesJSON{}, Exemplars: []exemplarJSON{}}
	rows := make([]*reader.Row, len(g.Tables()))
	for i, t := range g.Tables() {
		tj := tableJSON{Name: t.Name, Tiers: []tierJSON{}}
		for j, tier := range t.Tiers {
			tj.Tiers = append(tj.Tiers, tierJSON{tier.Step.Seconds(), tier.Rows, g.Head(i, j)})
		}
		show.Tables = append(show.Tables, tj)
		rows[i] = newestRow(g, i)
	}
	for _, s := range g.Series() {
		if picked(picks, s) {
			show.SeriesList = append(show.SeriesList, seriesOf(g, s, rows[s.Table]))
		}
	}
	n := g.Counters()
	show.SkippedRows, show.SkippedSeries = n.SkippedRows, n.SkippedSeries
	return show
}

// countExemplars tells of the ring in which they are: of a shadow's, that of the segment that never ticks.
func (show *showJSON) countExemplars(v *view, g *reader.Segment) {
	if g.Shadow() && v.store != nil {
		for _, of := range v.store.Segments() {
			if of.ID() == g.ID() && !of.Shadow() {
				g = of
			}
		}
	}
	n := g.Counters()
	show.ExemplarsTaken, show.ExemplarsDropped, show.SkippedExemplars = g.ExemplarHead(), n.ExemplarsDropped, n.SkippedExemplars
}

func seriesOf(g *reader.Segment, s *reader.Series, row *reader.Row) seriesJSON {
	j := seriesJSON{Name: s.Name, Labels: pairsMap(s.Labels), Kind: s.Kind.String(), Number: s.Number.String(), Unit: s.Unit, Help: s.Help,
		Table: g.Tables()[s.Table].Name, Start: jsonTime(s.Start), Retired: s.Retired,
		title: seriesText(s.Name, s.Labels), text: "-"}
	if row != nil {
		if v, ok := row.Value(s); ok {
			j.valueJSON, j.text = valueOf(s, &v), valueText(s, &v)
			if row.No != 0 {
				j.Time = jsonTime(row.Time)
			}
		}
	}
	if s.Kind != reader.Gauge && !s.Retired {
		if d, err := g.Delta(s, rateWindow); err == nil && d.Elapsed >= shortest {
			r := perSecond(s, &d.Change, d.Seconds())
			j.PerSecond = &r
		}
	}
	return j
}

// perSecond is the rate of a change: of the value, or of how much was recorded.
func perSecond(s *reader.Series, change *reader.Value, seconds float64) float64 {
	switch {
	case s.Kind == reader.Stat || s.Kind == reader.Histogram:
		return float64(change.Count) / seconds
	case s.Number == reader.F64:
		return change.Float / seconds
	}
	return float64(change.Int) / seconds
}

func printShow(c *cli.Context, g *reader.Segment, show *showJSON) error {
	w := c.App.Writer
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-12s %s\n", name, oneLine(value))
		}
	}
	line("segment", show.ID)
	if show.Group != show.ID {
		line("grown from", show.Group)
	}
	line("path", show.Path)
	line("labels", pairsText(g.Labels()))
	line("attributes", pairsText(g.Attributes()))
	state := show.State
	if end, ok := g.End(); ok {
		state += ", last row " + timeText(end)
	}
	line("state", state)
	line("writer", fmt.Sprintf("%s, pid %d, uid %d", show.Writer, show.PID, show.UID))
	line("born", fmt.Sprintf("%s, %s ago", timeText(g.Start()), ageText(time.Duration(show.AgeSeconds*1e9))))
	line("size", fmt.Sprintf("%s bytes (%s)", digits(uint64(show.SizeBytes)), sizeText(show.SizeBytes)))
	for _, n := range []struct {
		name  string
		count uint64
	}{{"dropped", show.DroppedSeries}, {"overflow", show.OverflowThreads}, {"rejected", show.RejectedRecords},
		{"fork losses", show.ForkLosses}, {"epoch", uint64(show.Epoch)},
		{"skipped rows", show.SkippedRows}, {"skipped series", show.SkippedSeries},
		{"exemplars", show.ExemplarsTaken}, {"lost ones", show.ExemplarsDropped}, {"broken ones", show.SkippedExemplars}} {
		if n.count > 0 {
			line(n.name, strconv.FormatUint(n.count, 10))
		}
	}
	fmt.Fprintln(w)
	tables := newGrid("TABLE", ">TIER", ">STEP", ">ROWS", ">HEAD")
	for i, t := range g.Tables() {
		for j, tier := range t.Tiers {
			tables.add(t.Name, strconv.Itoa(j), stepText(tier.Step), strconv.Itoa(tier.Rows), strconv.FormatUint(g.Head(i, j), 10))
		}
	}
	tables.print(w)
	fmt.Fprintln(w)
	series := newGrid("SERIES", "KIND", "UNIT", ">PER SECOND", "VALUE")
	for i := range show.SeriesList {
		s := &show.SeriesList[i]
		rate := ""
		if s.PerSecond != nil {
			rate = shortText(*s.PerSecond)
		}
		kind := s.Kind
		if s.Retired {
			kind += ", retired"
		}
		series.add(oneLine(s.title), kind, oneLine(s.Unit), rate, s.text)
	}
	lines := series.lines()
	fmt.Fprintln(w, lines[0])
	for i, l := range lines[1:] {
		fmt.Fprintln(w, l)
		if h := show.SeriesList[i].Help; c.Bool("help-text") && h != "" {
			fmt.Fprintf(w, "    %s\n", oneLine(h))
		}
	}
	if len(show.Exemplars) > 0 {
		exemplars := newGrid(exemplarHead...)
		for i := range show.Exemplars {
			exemplars.add(show.Exemplars[i].cells()...)
		}
		fmt.Fprintln(w)
		exemplars.print(w)
	}
	return nil
}
