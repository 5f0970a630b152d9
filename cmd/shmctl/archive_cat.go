package main

import (
	"encoding/hex"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// What archive cat --json prints: one for each series and row.
type archiveSampleJSON struct {
	Segment   string            `json:"segment" doc:"id"`
	Job       string            `json:"job"`
	Instance  string            `json:"instance"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels" doc:"its own"`
	Kind      string            `json:"kind"`
	Table     string            `json:"table"`
	Step      float64           `json:"step_seconds" doc:"from row to row"`
	Row       uint64            `json:"row" doc:"number of the row: in the segment; of a folded one, time by step"`
	Time      string            `json:"time" doc:"RFC 3339: of the row; of a folded one, of the last row in it"`
	Folded    bool              `json:"folded,omitempty" doc:"made of finer rows; absent from others"`
	Coverage  uint64            `json:"coverage,omitempty" doc:"folded: of how many rows of the segment it was made; absent from others"`
	Partial   bool              `json:"partial,omitempty" doc:"folded: of less than half as many as the steps say; absent from others"`
	Final     bool              `json:"final,omitempty" doc:"the writer closed with this row"`
	Estimated bool              `json:"estimated,omitempty" doc:"last words: made from the live cells of a dead writer"`
	Copied    bool              `json:"copied,omitempty" doc:"from a coarser ring of the writer's, the finer rows being lost"`
	valueJSON
}

func archiveCatVerb() *verb {
	return &verb{
		under: "archive",
		Command: &cli.Command{
			Name:      "cat",
			Usage:     "print archived rows of series, or their exemplars",
			ArgsUsage: "DIR SELECTOR...",
			Description: "SELECTOR is a name, in which * and ? stand for text, or name{label=\"value\"}; the labels may be the series' own or its\n" +
				"source's, such as job and instance. Rows come source by source, oldest source first, and in the order of their numbers,\n" +
				"each once, whatever was written twice. What a row hides that came after a wall clock was stepped back is left out.\n" +
				"\n" +
				"Rows that are folded have of a gauge the last value, the least, the greatest, their sum and count, and say how many\n" +
				"rows they were made of (coverage): of less than half, they are partial. Counts, sums and buckets are cumulative\n" +
				"since birth, as in cat; p50, p90 and p99 are those of what was recorded since the row before.\n" +
				"\n" +
				aboutSources,
			Flags: append([]cli.Flag{jsonFlag(),
				&cli.StringFlag{Name: "tier", Usage: "of the tier of this `STEP`, such as 10s", DefaultText: "the finest that has rows of the series in that time"},
				&cli.StringSliceFlag{Name: "source", Usage: "only of this `SOURCE`; may be repeated"},
				&cli.StringSliceFlag{Name: "field", Usage: "only this `PART` of values: " + strings.Join(partNames, ", ") + "; may be repeated"},
				&cli.StringFlag{Name: "format", Usage: "`FORMAT`: text, csv", Value: "text"},
				&cli.IntFlag{Name: "last", Aliases: []string{"n"}, Usage: "only the last `N` rows of each source and table"},
				&cli.BoolFlag{Name: "exemplars", Usage: "exemplars instead of rows, of the finest tier; --json prints those of show, without an age, with job and instance"},
			}, windowFlags()...),
			Action: archiveCatAction,
		},
		json: archiveSampleJSON{}, lines: true,
		examples: []string{
			"shmctl archive cat /var/lib/shmtsd/archive 'rx_packets_total{job=\"forwarder\"}' --since 1h",
			"shmctl archive cat /var/lib/shmtsd/archive queue_depth --tier 5m --field max --format csv",
			"shmctl archive cat /var/lib/shmtsd/archive '*' --source 7f3a --last 1 --json",
			"shmctl archive cat /var/lib/shmtsd/archive http.server.request.duration --exemplars --since 1h # the traces of slow requests",
		},
		complete: archiveComplete,
	}
}

// isArchived tells whether a series of a source is meant: labels may be those of either.
func (p *pick) isArchived(s *reader.Series, src *archive.Source) bool {
	if ok, _ := path.Match(p.name, s.Name); !ok && p.name != s.Name {
		return false
	}
	return !slices.ContainsFunc(p.labels, func(l layout.Pair) bool {
		return layout.Value(s.Labels, l.Name) != l.Value && layout.Value(src.Labels, l.Name) != l.Value
	})
}

// A catTable is one table of one source, in one tier.
type catTable struct {
	inc     *archive.Incarnation
	table   int
	tier    int // of TableTier
	series  []*reader.Series
	columns []archive.Column // the fields of each of series
	full    float64          // coverage of a whole row; 0: not known
}

func (t *catTable) at() archive.TableTier { return t.inc.Tables[t.table].Tiers[t.tier] }

func archiveCatAction(c *cli.Context) error {
	if c.NArg() < 2 {
		return usagef(c, "want DIR and SELECTOR, got %d arguments", c.NArg())
	}
	switch f := c.String("format"); {
	case f != "text" && f != "csv":
		return usagef(c, "format: want text or csv, got %q", f)
	case c.Int("last") < 0:
		return usagef(c, "last: want 0 or more rows, got %d", c.Int("last"))
	}
	for _, f := range c.StringSlice("field") {
		if !slices.Contains(partNames, f) {
			return usagef(c, "field: want one of %s, got %q", strings.Join(partNames, ", "), f)
		}
	}
	from, to, err := windowMs(c)
	if err != nil {
		return err
	}
	picks, err := parsePicks(c.Args().Tail())
	if err != nil {
		return err
	}
	a, err := openArchive(c)
	if err != nil {
		return err
	}
	defer a.Close()
	tier, err := tierFlag(c, a)
	if err != nil {
		return err
	}
	sel := archive.Selection{From: from, To: to, Schema: func(s *archive.Schema) bool {
		return slices.ContainsFunc(s.Series, func(s *reader.Series) bool {
			return slices.ContainsFunc(picks, func(p pick) bool { ok, _ := path.Match(p.name, s.Name); return ok || p.name == s.Name })
		})
	}}
	if len(picks) == 1 {
		sel.Labels = equal(picks[0].labels)
	}
	if c.Bool("exemplars") {
		return catArchivedExemplars(c, a, sel, picks)
	}
	if tier >= 0 {
		sel.Tiers = []int{tier}
	}
	list, err := selectSources(c.Context, a, sel, c.StringSlice("source"))
	if err != nil {
		return err
	}
	tables, err := catTables(c, a, list, picks, tier)
	if err != nil {
		return err
	}
	p := newArchivePrinter(c, tables)
	for i := range tables {
		if err := tables[i].print(a, p, from, to, c.Int("last")); err != nil {
			return err
		}
	}
	warnSkipped(c, a)
	return p.done()
}

// catTables are the tables that have series which are meant.
func catTables(c *cli.Context, a archive.Reader, list []*archive.Incarnation, picks []pick, tier int) (all []catTable, err error) {
	for _, inc := range list {
		for n, table := range inc.Tables {
			if len(table.Tiers) == 0 {
				continue
			}
			t := catTable{inc: inc, table: n}
			if tier >= 0 { // it is the only one that was looked into
				t.tier = slices.IndexFunc(table.Tiers, func(tt archive.TableTier) bool { return tt.Tier == tier })
				if t.tier < 0 {
					continue
				}
			}
			for _, s := range inc.Series {
				if s.Table != n || !slices.ContainsFunc(picks, func(p pick) bool { return p.isArchived(s, inc.Source) }) {
					continue
				}
				t.series = append(t.series, s)
				for _, f := range archive.Fields(s.Kind, t.at().Folded) {
					t.columns = append(t.columns, archive.Column{Series: s, Field: f})
				}
			}
			if len(t.series) > 0 {
				all = append(all, t)
			}
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("shmts: %s: no series %s in that time and tier; shmctl archive ls --sources lists sources", c.Args().First(), strings.Join(c.Args().Tail(), ", "))
	}
	for i := range all {
		if err := all[i].findFull(a); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// findFull finds out how many rows of the segment a whole folded row is made of: from the step of those that are as they were, where
// the archive still has some.
func (t *catTable) findFull(a archive.Reader) error {
	if !t.at().Folded {
		return nil
	}
	tiers := t.inc.Tables[t.table].Tiers
	if tiers[0].Folded { // not selected, perhaps
		list, err := a.Find(t.inc.Segment)
		if err != nil {
			return err
		}
		for _, inc := range list {
			if inc.Key == t.inc.Key && t.table < len(inc.Tables) && len(inc.Tables[t.table].Tiers) > 0 {
				tiers = inc.Tables[t.table].Tiers
			}
		}
	}
	if !tiers[0].Folded && tiers[0].Step > 0 {
		t.full = float64(t.at().Step) / float64(tiers[0].Step)
	}
	return nil
}

// archivePrinter prints samples with where they come from.
type archivePrinter struct {
	*printer
	sources bool // there are several
	fields  []string
	lines   int
}

// heldLines are kept back so that columns line up.
const heldLines = 4096

func newArchivePrinter(c *cli.Context, tables []catTable) *archivePrinter {
	has := map[string]bool{}
	n, folded := 0, false
	sources := map[archive.Key]bool{}
	fields := c.StringSlice("field")
	for i := range tables {
		t := &tables[i]
		sources[t.inc.Key] = true
		folded = folded || t.at().Folded
		n = max(n, len(t.series))
		for _, s := range t.series {
			list := partsOf(s.Kind)
			if s.Kind == reader.Gauge && t.at().Folded {
				list = []string{"value", "count", "sum", "min", "max"}
			}
			for _, part := range list {
				has[part] = len(fields) == 0 || slices.Contains(fields, part)
			}
		}
	}
	p := &archivePrinter{sources: len(sources) > 1 || c.String("format") == "csv", fields: fields}
	var lead []string
	if p.sources {
		lead = append(lead, "source")
	}
	lead = append(lead, ">row")
	if folded || c.String("format") == "csv" {
		lead = append(lead, ">coverage")
	}
	if len(tables) > 1 && len(sources) < len(tables) {
		n++ // several tables of a source
	}
	p.printer = newSamplePrinter(c, lead, n, has)
	return p
}

// print prints the table's rows in a window; the last n of them, if n is not 0.
func (t *catTable) print(a archive.Reader, p *archivePrinter, from, to int64, last int) error {
	before := make([]*reader.Value, len(t.series))
	// What a histogram recorded in its first row is the difference to the one before.
	early := from
	if slices.ContainsFunc(t.series, func(s *reader.Series) bool { return s.Kind == reader.Histogram }) && from > math.MinInt64/2 {
		early = from - 3*t.at().Step.Milliseconds()
	}
	skip := 0
	if last > 0 {
		for chunk, err := range a.Read(t.inc, t.table, t.tier, from, to, nil) {
			if err != nil {
				return err
			}
			skip += len(chunk.Times)
		}
		skip = max(0, skip-last)
	}
	for chunk, err := range a.Read(t.inc, t.table, t.tier, early, to, t.columns) {
		if err != nil {
			return err
		}
		for k := range chunk.Times {
			show := chunk.Times[k] >= from
			if show && skip > 0 {
				skip--
				show = false
			}
			if err := t.row(p, chunk, k, before, show); err != nil {
				return err
			}
		}
	}
	return nil
}

// row prints a row, or only remembers its histograms.
func (t *catTable) row(p *archivePrinter, chunk *archive.Chunk, k int, before []*reader.Value, show bool) error {
	column := 0
	for i, s := range t.series {
		fields := archive.Fields(s.Kind, t.at().Folded)
		v, there := cellsOf(s, fields, chunk, column, k)
		column += len(fields)
		if !there {
			if s.Kind == reader.Histogram {
				before[i] = nil
			}
			continue
		}
		if show {
			if err := p.archived(t, s, chunk, k, &v, before[i]); err != nil {
				return err
			}
		}
		if s.Kind == reader.Histogram {
			before[i] = keep(v.Value)
		}
	}
	return nil
}

// archivedValue is a value, and what a folded gauge has more.
type archivedValue struct {
	reader.Value
	folded   bool // a gauge's
	min, max any
	sum      float64
	count    uint64
}

// cellsOf takes a value out of a chunk's columns, which begin at column; false if there is none.
func cellsOf(s *reader.Series, fields []archive.Field, chunk *archive.Chunk, column, k int) (v archivedValue, there bool) {
	v.Kind, v.Number = s.Kind, s.Number
	cell := func(f archive.Field) (uint64, bool) {
		at := column + slices.Index(fields, f)
		if chunk.Cells[at] == nil || chunk.Present[at] != nil && !chunk.Present[at][k] {
			return 0, false
		}
		there = true
		return chunk.Cells[at][k], true
	}
	float := func(f archive.Field) float64 {
		if w, ok := cell(f); ok {
			return math.Float64frombits(w)
		}
		return math.NaN()
	}
	switch s.Kind {
	case reader.Stat:
		v.Count, _ = cell(archive.Count)
		v.Sum, v.Last, v.Min, v.Max = float(archive.Sum), float(archive.Last), float(archive.Min), float(archive.Max)
		v.Unset = math.IsNaN(v.Last)
	case reader.Histogram:
		width := s.Buckets.Count + 3
		if chunk.Cells[column] == nil || chunk.Present[column] != nil && !chunk.Present[column][k] {
			return v, false
		}
		there = true
		w := chunk.Cells[column][k*width:][:width]
		v.Sum = archive.Number(s, archive.Hist, w[0])
		v.Zero, v.Above, v.Buckets = w[1], w[width-1], w[2:width-1]
		v.Count = v.Zero + v.Above
		for _, n := range v.Buckets {
			v.Count += n
		}
	default:
		w, ok := cell(archive.Last)
		v.Float, v.Int, v.Unset = archive.Number(s, archive.Last, w), int64(w), !ok
		if s.Kind == reader.Gauge && len(fields) > 1 {
			v.folded = true
			v.sum = float(archive.Sum)
			v.count, _ = cell(archive.Count)
			for f, to := range map[archive.Field]*any{archive.Min: &v.min, archive.Max: &v.max} {
				if w, ok := cell(f); ok {
					*to = scalar(&reader.Value{Kind: s.Kind, Number: s.Number, Int: int64(w), Float: archive.Number(s, f, w)})
				}
			}
		}
	}
	return v, there
}

func (p *archivePrinter) archived(t *catTable, s *reader.Series, chunk *archive.Chunk, k int, v *archivedValue, before *reader.Value) error {
	src, end := t.inc.Source, k == len(chunk.Times)-1
	final, estimated := chunk.Final && end, chunk.Estimated && end
	coverage, partial := uint64(0), false
	if chunk.Folded {
		coverage = chunk.Coverage[k]
		partial = float64(coverage) < t.full/2
	}
	at := chunk.Times[k] * int64(time.Millisecond)
	if p.c.Bool("json") {
		j := archiveSampleJSON{Segment: hex.EncodeToString(src.Segment[:]), Job: layout.Value(src.Labels, "job"), Instance: layout.Value(src.Labels, "instance"),
			Name: s.Name, Labels: pairsMap(s.Labels), Kind: s.Kind.String(), Table: t.inc.Tables[t.table].Name, Step: t.at().Step.Seconds(), Row: chunk.Numbers[k],
			Time: jsonTime(at), Folded: chunk.Folded, Coverage: coverage, Partial: partial, Final: final, Estimated: estimated, Copied: chunk.Copied, valueJSON: v.json(s)}
		if len(p.fields) > 0 {
			j.valueJSON = j.only(p.fields)
		}
		return printJSONLine(p.c, j)
	}
	var note []string
	for _, n := range []struct {
		is   bool
		word string
	}{{partial, "partial"}, {final, "final"}, {estimated, "estimated"}, {chunk.Copied, "copied"}} {
		if n.is {
			note = append(note, n.word)
		}
	}
	m := parts(s, &v.Value, before)
	if v.folded {
		m["count"], m["sum"], m["min"], m["max"] = v.count, number(v.sum, v.count == 0), v.min, v.max
	}
	var lead []string
	if p.sources {
		lead = append(lead, oneLine(layout.Value(src.Labels, "job")+"/"+layout.Value(src.Labels, "instance")))
	}
	lead = append(lead, strconv.FormatUint(chunk.Numbers[k], 10))
	if slices.Contains(p.lead, ">coverage") {
		switch {
		case !chunk.Folded:
			lead = append(lead, "")
		case p.csv != nil || t.full == 0:
			lead = append(lead, strconv.FormatUint(coverage, 10))
		default:
			lead = append(lead, fmt.Sprintf("%d of %s", coverage, floatText(t.full)))
		}
	}
	if err := p.line(at, lead, seriesText(s.Name, s.Labels), m, note); err != nil {
		return err
	}
	if p.lines++; p.lines%heldLines == 0 {
		return p.done()
	}
	return nil
}

// json is what --json prints of the value.
func (v *archivedValue) json(s *reader.Series) valueJSON {
	j := valueOf(s, &v.Value)
	if v.folded {
		j.Count, j.Sum, j.Min, j.Max = &v.count, number(v.sum, v.count == 0), v.min, v.max
	}
	return j
}

// only leaves some parts of a value. Quantiles are made of buckets, which stay for them.
func (j valueJSON) only(fields []string) (out valueJSON) {
	for _, f := range fields {
		switch f {
		case "value":
			out.Value = j.Value
		case "count":
			out.Count = j.Count
		case "sum":
			out.Sum = j.Sum
		case "last":
			out.Last = j.Last
		case "min":
			out.Min = j.Min
		case "max":
			out.Max = j.Max
		default:
			out.Zero, out.Above, out.Buckets = j.Zero, j.Above, j.Buckets
		}
	}
	return out
}
