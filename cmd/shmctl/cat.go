package main

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shmts/shmts/reader"
	"github.com/urfave/cli/v2"
)

// What cat --json prints: one for each series and row.
type sampleJSON struct {
	Segment   string            `json:"segment" doc:"id"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels" doc:"its own"`
	Kind      string            `json:"kind"`
	Table     string            `json:"table"`
	Tier      int               `json:"tier"`
	Row       uint64            `json:"row" doc:"number of the row in its tier, from 1"`
	Begin     string            `json:"begin" doc:"RFC 3339: the row's window is (begin, time]"`
	Time      string            `json:"time" doc:"RFC 3339"`
	Final     bool              `json:"final,omitempty" doc:"the writer closed with this row"`
	Estimated bool              `json:"estimated,omitempty" doc:"last words: made from the live cells of a dead writer"`
	valueJSON
}

func catVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "cat",
			Usage:     "print the rows of a series, or its exemplars",
			ArgsUsage: "SEGMENT SERIES...",
			Description: "Rows come oldest first, straight from the segment's ring, table by table. Counts, sums and buckets are cumulative\n" +
				"since birth; a stat's min and max, and a histogram's p50, p90 and p99, are those of the row's own window. SERIES is a\n" +
				"name, in which * and ? stand for text, or name{label=\"value\"}. The last row of a writer that died is made from its live\n" +
				"cells and says so: estimated.\n" +
				"\n" +
				"With --exemplars, what is printed instead is the traces that single records were left with, those that are still there:\n" +
				"the newest of all series share one ring.",
			Flags: []cli.Flag{
				storeFlag(), jsonFlag(),
				&cli.StringFlag{Name: "tier", Usage: "by its number, or its step such as 10s: `TIER`", Value: "0"},
				&cli.StringFlag{Name: "format", Usage: "`FORMAT`: text, csv", Value: "text"},
				&cli.DurationFlag{Name: "since", Usage: "only rows of the last `DURATION`"},
				&cli.StringFlag{Name: "from", Usage: "only rows from this `TIME` on, RFC 3339 or unix seconds"},
				&cli.StringFlag{Name: "to", Usage: "only rows until this `TIME`"},
				&cli.IntFlag{Name: "last", Aliases: []string{"n"}, Usage: "only the last `N` rows"},
				&cli.BoolFlag{Name: "exemplars", Usage: "exemplars instead of rows; --json prints those of show"},
				&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "wait for new rows until the writer ends"},
			},
			Action: catAction,
		},
		json: sampleJSON{}, lines: true,
		examples: []string{
			"shmctl cat forwarder/eth0 rx_packets_total --since 30s",
			"shmctl cat 7f3a 'latency*' --tier 10s --format csv > latency.csv",
			"shmctl cat -f -n 1 checkout 'http_requests_total{method=\"GET\"}' --json",
			"shmctl cat --exemplars checkout 'http_server_request_duration_seconds' # the traces of slow requests",
		},
		complete: func(c *completion) []candidate {
			switch c.flag {
			case "tier":
				return words("0", "1", "2", "3")
			case "format":
				return words("text", "csv")
			}
			if len(c.words) == 0 {
				return c.segments()
			}
			return c.series(c.words[0])
		},
	}
}

// A cursor is one table of one segment, and how far its rows were printed.
type cursor struct {
	g      *reader.Segment
	table  int
	tier   int
	series []*reader.Series
	before []*reader.Value // by series, in the row before: histograms
	next   uint64          // number of the row to print next
}

func catAction(c *cli.Context) error {
	if c.NArg() < 2 {
		return usagef(c, "want SEGMENT and SERIES, got %d arguments", c.NArg())
	}
	switch f := c.String("format"); {
	case f != "text" && f != "csv":
		return usagef(c, "format: want text or csv, got %q", f)
	case c.Int("last") < 0:
		return usagef(c, "last: want 0 or more rows, got %d", c.Int("last"))
	case c.Bool("exemplars") && c.IsSet("tier"):
		return usagef(c, "exemplars: want no --tier with it: they are of none")
	case c.IsSet("since") && (c.IsSet("from") || c.Duration("since") <= 0):
		return usagef(c, "since: want a duration above 0, without from, got %v", c.Duration("since"))
	}
	begin, end, err := window(c)
	if err != nil {
		return err
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
	if list, err = oneIncarnation(list, c.Args().First()); err != nil {
		return err
	}
	if c.Bool("exemplars") {
		return catExemplars(c, v, list, picks, begin, end)
	}
	cursors, err := cursorsOf(c, list, picks)
	if err != nil {
		return err
	}
	p := newPrinter(c, cursors)
	for i := range cursors {
		if err := cursors[i].print(p, begin, end, c.Int("last")); err != nil {
			return err
		}
	}
	if !c.Bool("follow") {
		return p.done()
	}
	return follow(p, cursors, begin, end)
}

// window is what since, from and to say, in unix ns.
func window(c *cli.Context) (begin, end int64, err error) {
	begin, end = 0, 1<<63-1
	if d := c.Duration("since"); d > 0 {
		begin = time.Now().Add(-d).UnixNano()
	}
	for _, f := range []struct {
		name string
		to   *int64
	}{{"from", &begin}, {"to", &end}} {
		if text := c.String(f.name); text != "" {
			t, err := parseTime(text, time.Now())
			if err != nil {
				return 0, 0, usagef(c, "%s: %s", f.name, strings.TrimPrefix(err.Error(), "shmts: "))
			}
			*f.to = t.UnixNano()
		}
	}
	return begin, end, nil
}

// parseTime reads RFC 3339, unix seconds, now, or a duration before now such as -5m.
func parseTime(text string, now time.Time) (time.Time, error) {
	if text == "now" {
		return now, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s > -1e10 && s < 9e9 {
		return time.Unix(0, int64(s*1e9)), nil
	}
	if d, err := time.ParseDuration(text); err == nil && d < 0 {
		return now.Add(d), nil
	}
	return time.Time{}, fmt.Errorf("shmts: want a time: RFC 3339, unix seconds, now, or a duration before now such as -5m, got %q", text)
}

// cursorsOf finds the series, and their tier in each table.
func cursorsOf(c *cli.Context, list []*reader.Segment, picks []pick) ([]cursor, error) {
	var cursors []cursor
	for _, g := range list {
		for table := range g.Tables() {
			cur := cursor{g: g, table: table}
			for _, s := range g.Series() {
				if s.Table == table && picked(picks, s) {
					cur.series = append(cur.series, s)
				}
			}
			if len(cur.series) == 0 {
				continue
			}
			cur.before = make([]*reader.Value, len(cur.series))
			var err error
			if cur.tier, err = tierOf(g, table, c.String("tier")); err != nil {
				return nil, err
			}
			cursors = append(cursors, cur)
		}
	}
	if len(cursors) == 0 {
		return nil, fmt.Errorf("shmts: %s: no series %s; shmctl show lists them", c.Args().First(), strings.Join(c.Args().Tail(), ", "))
	}
	return cursors, nil
}

func tierOf(g *reader.Segment, table int, text string) (int, error) {
	t := g.Tables()[table]
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n < len(t.Tiers) {
		return n, nil
	}
	step, err := time.ParseDuration(text)
	var have []string
	for i, tier := range t.Tiers {
		if err == nil && tier.Step == step {
			return i, nil
		}
		have = append(have, fmt.Sprintf("%d (%s)", i, stepText(tier.Step)))
	}
	if len(have) == 0 {
		have = []string{"none: the segment is sampled"}
	}
	return 0, fmt.Errorf("shmts: tier of table %s: want one of %s, got %q", t.Name, strings.Join(have, ", "), text)
}

// print prints rows from next on in the window; the last n of them, if n is not 0.
func (cur *cursor) print(p *printer, begin, end int64, last int) error {
	var held []*reader.Row // the last n
	for r := range cur.g.Rows(cur.table, cur.tier, cur.next) {
		cur.next = r.No + 1
		if r.Time < begin || r.Time > end {
			cur.remember(r)
			continue
		}
		if last > 0 {
			if held = append(held, r.Clone()); len(held) > last {
				cur.remember(held[0])
				held = held[1:]
			}
			continue
		}
		if err := cur.row(p, r); err != nil {
			return err
		}
	}
	for _, r := range held {
		if err := cur.row(p, r); err != nil {
			return err
		}
	}
	return nil
}

// remember keeps a row's histograms for the row after it.
func (cur *cursor) remember(r *reader.Row) {
	for i, s := range cur.series {
		if s.Kind != reader.Histogram {
			continue
		}
		cur.before[i] = nil
		if v, ok := r.Value(s); ok {
			cur.before[i] = keep(v)
		}
	}
}

func (cur *cursor) row(p *printer, r *reader.Row) error {
	for i, s := range cur.series {
		v, ok := r.Value(s)
		if !ok {
			continue
		}
		if err := p.sample(cur, s, r, &v, cur.before[i]); err != nil {
			return err
		}
	}
	cur.remember(r)
	return nil
}

// follow prints what comes until every writer has ended, the window has, or the user had enough.
func follow(p *printer, cursors []cursor, begin, end int64) error {
	wait := time.Second
	for _, cur := range cursors {
		wait = min(wait, cur.g.Tables()[cur.table].Tiers[cur.tier].Step)
	}
	return p.follow(wait/2, end, func() (ended bool, err error) {
		ended = true
		for i := range cursors {
			if err := cursors[i].g.Refresh(); err != nil {
				return false, err
			}
			if err := cursors[i].print(p, begin, end, 0); err != nil {
				return false, err
			}
			ended = ended && cursors[i].g.Liveness().Ended()
		}
		return ended, nil
	})
}

// A printer prints samples as text, CSV or JSON lines.
type printer struct {
	sheet
	lead    []string // columns in front of the series
	columns []string // parts
	named   bool     // a column for the series
}

func newPrinter(c *cli.Context, cursors []cursor) *printer {
	n := 0
	has := map[string]bool{}
	for _, cur := range cursors {
		for _, s := range cur.series {
			n++
			for _, part := range partsOf(s.Kind) {
				has[part] = true
			}
		}
	}
	return newSamplePrinter(c, nil, n, has)
}

// newSamplePrinter prints samples of n series, whose values have these parts.
func newSamplePrinter(c *cli.Context, lead []string, n int, has map[string]bool) *printer {
	p := &printer{sheet: sheet{c: c}, lead: lead, named: n > 1 || c.String("format") == "csv"}
	for _, part := range partNames {
		if has[part] {
			p.columns = append(p.columns, part)
		}
	}
	head := []string{"TIME"}
	for _, l := range lead {
		head = append(head, strings.ToUpper(l))
	}
	if p.named {
		head = append(head, "SERIES")
	}
	for _, part := range p.columns {
		head = append(head, ">"+strings.ToUpper(part))
	}
	p.grid = newGrid(append(head, "NOTE")...)
	if c.String("format") == "csv" && !c.Bool("json") {
		p.csv = csv.NewWriter(c.App.Writer)
		names := []string{"time"}
		for _, l := range lead {
			names = append(names, strings.TrimPrefix(l, ">"))
		}
		p.csv.Write(append(append(append(names, "series"), p.columns...), "note"))
	}
	return p
}

func (p *printer) sample(cur *cursor, s *reader.Series, r *reader.Row, v, before *reader.Value) error {
	if p.c.Bool("json") {
		return printJSONLine(p.c, sampleJSON{Segment: cur.g.ID(), Name: s.Name, Labels: pairsMap(s.Labels), Kind: s.Kind.String(),
			Table: cur.g.Tables()[cur.table].Name, Tier: cur.tier, Row: r.No, Begin: jsonTime(r.Begin), Time: jsonTime(r.Time),
			Final: r.Final, Estimated: r.Estimated, valueJSON: valueOf(s, v)})
	}
	var note []string
	if r.Final {
		note = append(note, "final")
	}
	if r.Estimated {
		note = append(note, "estimated")
	}
	return p.line(r.Time, nil, seriesText(s.Name, s.Labels), parts(s, v, before), note)
}

// line prints a sample: of a time in unix ns, with cells for lead, and the parts that it has.
func (p *printer) line(at int64, lead []string, name string, m map[string]any, note []string) error {
	var cells []string
	for _, part := range p.columns {
		x, ok := m[part]
		switch text := partText(x); {
		case !ok && p.csv != nil, x == nil && p.csv != nil:
			cells = append(cells, "")
		case part[0] == 'p': // an estimate: more digits would be a lie
			cells = append(cells, shortPart(x, text, p.csv != nil))
		default:
			cells = append(cells, text)
		}
	}
	if p.csv != nil {
		line := append(append([]string{jsonTime(at)}, lead...), name)
		return p.csv.Write(append(append(line, cells...), strings.Join(note, " ")))
	}
	line := append([]string{timeText(at)}, lead...)
	if p.named {
		line = append(line, oneLine(name))
	}
	p.grid.add(append(append(line, cells...), strings.Join(note, " "))...)
	return nil
}

func shortPart(x any, text string, exact bool) string {
	if f, ok := x.(float64); ok && !exact {
		return shortText(f)
	}
	return text
}
