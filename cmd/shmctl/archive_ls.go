package main

import (
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/forecast"
	"github.com/shmts/shmts/layout"
)

// What archive ls --json prints.
type archiveLsJSON struct {
	Dir     string              `json:"dir"`
	ID      string              `json:"id" doc:"the archive's, 32 hexadecimal digits"`
	Tiers   []archiveTierJSON   `json:"tiers" doc:"finest first"`
	Sources []archiveSourceJSON `json:"sources,omitempty" doc:"with --sources, or SOURCE: oldest first; absent else"`
	Blocks  []archiveBlockJSON  `json:"blocks,omitempty" doc:"with --blocks: oldest first, tier by tier; absent else"`
}

type archiveTierJSON struct {
	StepSeconds    float64             `json:"step_seconds"`
	SizeBytes      int64               `json:"size_bytes" doc:"of the file: it never grows"`
	ExtentBytes    int64               `json:"extent_bytes"`
	Extents        int                 `json:"extents"`
	ExtentsUsed    int                 `json:"extents_used"`
	UsedBytes      int64               `json:"used_bytes" doc:"rows, labels and index"`
	Generation     uint64              `json:"generation" doc:"extents that were ever begun"`
	Oldest         string              `json:"oldest" doc:"RFC 3339: time of the oldest row; empty for none"`
	Newest         string              `json:"newest" doc:"RFC 3339: time of the newest row; empty for none"`
	CoversSeconds  float64             `json:"covers_seconds" doc:"between them"`
	Sources        int                 `json:"sources" doc:"incarnations with rows in it"`
	Ended          int                 `json:"ended" doc:"of those, with their last row"`
	Blocks         int                 `json:"blocks" doc:"of rows"`
	Rows           uint64              `json:"rows"`
	Samples        uint64              `json:"samples" doc:"values of series in rows, absent ones too"`
	BytesPerSample float64             `json:"bytes_per_sample" doc:"used_bytes by samples; 0 without any"`
	Exemplars      uint64              `json:"exemplars" doc:"the finest tier has them"`
	Skipped        uint64              `json:"skipped" doc:"blocks and runs that failed a check just now"`
	ExtentList     []archiveExtentJSON `json:"extent_list,omitempty" doc:"with --extents: those that hold rows, oldest first; absent else"`
}

type archiveExtentJSON struct {
	Generation uint64 `json:"generation"`
	Sealed     bool   `json:"sealed" doc:"false: rows are appended to it"`
	Oldest     string `json:"oldest" doc:"RFC 3339"`
	Newest     string `json:"newest" doc:"RFC 3339"`
	Sources    int    `json:"sources"`
	Blocks     int    `json:"blocks"`
	Rows       uint64 `json:"rows"`
	Samples    uint64 `json:"samples"`
	RowsBytes  int64  `json:"rows_bytes" doc:"of rows blocks: the rest is labels, schemas, index and what is free"`
}

type archiveSourceJSON struct {
	Segment    string             `json:"segment" doc:"id of the segment, 32 hexadecimal digits"`
	Epoch      uint32             `json:"epoch" doc:"moves when a writer's values may have been rewound"`
	Copy       uint32             `json:"copy" doc:"other files that had the same id, from 1"`
	Group      string             `json:"group" doc:"the incarnation: equal for segments that one process grew"`
	Job        string             `json:"job"`
	Instance   string             `json:"instance"`
	Labels     map[string]string  `json:"labels" doc:"of every series, job and instance among them"`
	Attributes map[string]string  `json:"attributes" doc:"resource attributes"`
	UID        int                `json:"uid"`
	Start      string             `json:"start" doc:"birth, RFC 3339"`
	End        string             `json:"end,omitempty" doc:"time of the last row, RFC 3339; absent while it lives, or where that is not known"`
	Ephemeral  bool               `json:"ephemeral,omitempty" doc:"a sum over sources that lived for less than half a step; absent from others"`
	Series     int                `json:"series"`
	Tables     []archiveTableJSON `json:"tables" doc:"one for each table and tier that has rows of it"`
}

type archiveTableJSON struct {
	Table       string  `json:"table"`
	StepSeconds float64 `json:"step_seconds" doc:"of the tier"`
	RowSeconds  float64 `json:"row_seconds" doc:"from row to row"`
	Folded      bool    `json:"folded" doc:"each row was made of finer ones"`
	Oldest      string  `json:"oldest" doc:"RFC 3339"`
	Newest      string  `json:"newest" doc:"RFC 3339"`
	LastRow     uint64  `json:"last_row" doc:"number of the newest row"`
}

type archiveBlockJSON struct {
	StepSeconds float64 `json:"step_seconds" doc:"of the tier"`
	Generation  uint64  `json:"generation" doc:"of the extent"`
	Offset      uint64  `json:"offset" doc:"bytes from the extent's start"`
	Bytes       int     `json:"bytes"`
	Table       string  `json:"table"`
	Folded      bool    `json:"folded"`
	Sources     int     `json:"sources"`
	Rows        int     `json:"rows" doc:"of all sources"`
	Series      int     `json:"series"`
	Oldest      string  `json:"oldest" doc:"RFC 3339"`
	Newest      string  `json:"newest" doc:"RFC 3339"`
	Members     int     `json:"members,omitempty" doc:"sources that an ephemeral one took in; absent for none"`
}

func archiveLsVerb() *verb {
	return &verb{
		under: "archive",
		Command: &cli.Command{
			Name:      "ls",
			Usage:     "list what an archive holds",
			ArgsUsage: "DIR [SOURCE...]",
			Description: "Tiers, unless more is asked for; with SOURCE, the sources that it names. It may be asked while shmtsd writes the\n" +
				"archive: what is evicted meanwhile is left out. " + aboutSources + "\nWhat a sample takes is all-in: labels and index too.",
			Flags: append([]cli.Flag{jsonFlag(),
				&cli.BoolFlag{Name: "sources", Usage: "list sources: every process that left rows"},
				&cli.BoolFlag{Name: "extents", Usage: "list each tier's extents"},
				&cli.BoolFlag{Name: "blocks", Usage: "list blocks of rows"},
				&cli.StringFlag{Name: "tier", Usage: "only the tier of this `STEP`, such as 10s"},
			}, windowFlags()...),
			Action: archiveLsAction,
		},
		json: archiveLsJSON{},
		examples: []string{
			"shmctl archive ls /var/lib/shmtsd/archive",
			"shmctl archive ls /var/lib/shmtsd/archive forwarder --since 24h # who of that job was there",
			"shmctl archive ls /var/lib/shmtsd/archive '{rack=\"r12\"}' --json",
		},
		complete: archiveComplete,
	}
}

// archiveComplete: the first word is a directory, the shell's business.
func archiveComplete(c *completion) []candidate {
	if c.flag == "format" {
		return words("text", "csv")
	}
	return nil
}

func archiveLsAction(c *cli.Context) error {
	from, to, err := windowMs(c)
	if err != nil {
		return err
	}
	a, err := openArchive(c)
	if err != nil {
		return err
	}
	defer a.Close()
	only, err := tierFlag(c, a)
	if err != nil {
		return err
	}
	id := a.ID()
	out := archiveLsJSON{Dir: c.Args().First(), ID: hex.EncodeToString(id[:])}
	sources := c.Bool("sources") || c.NArg() > 1
	var tiers []int
	for i := range a.Tiers() {
		if only < 0 || i == only {
			tiers = append(tiers, i)
		}
	}
	words := c.Args().Tail()
	if sources {
		list, err := selectSources(c.Context, a, archive.Selection{From: from, To: to, Tiers: tiers}, words)
		if err != nil {
			return err
		}
		out.Sources = []archiveSourceJSON{}
		for _, inc := range list {
			out.Sources = append(out.Sources, describeSource(a, inc))
		}
	}
	for _, i := range tiers {
		m, err := forecast.Measure(a, i)
		if err != nil {
			return err
		}
		t := describeTier(m, c.Bool("extents"))
		if i == 0 && m.Exemplars > 0 {
			if t.Exemplars, err = countExemplars(c, a); err != nil {
				return err
			}
		}
		out.Tiers = append(out.Tiers, t)
		if c.Bool("blocks") {
			for b, err := range a.Blocks(i, archive.Mark{}) {
				if err != nil {
					return err
				}
				if b.From <= to && b.To >= from {
					out.Blocks = append(out.Blocks, describeBlock(m.Step, b))
				}
			}
		}
	}
	if c.Bool("json") {
		return printJSON(c, out)
	}
	warnSkipped(c, a)
	switch {
	case c.Bool("extents"):
		printExtents(c, out.Tiers)
	case !sources && !c.Bool("blocks"):
		printTiers(c, out.Tiers)
	}
	if sources {
		printSources(c, out.Sources)
	}
	if c.Bool("blocks") {
		printBlocks(c, out.Blocks)
	}
	return nil
}

func describeTier(m *forecast.Measured, extents bool) archiveTierJSON {
	t := archiveTierJSON{StepSeconds: m.Step.Seconds(), SizeBytes: m.Size, ExtentBytes: m.ExtentSize, Extents: m.Tier.Extents, ExtentsUsed: m.Used, UsedBytes: m.Bytes,
		Generation: m.Generation, CoversSeconds: m.Span().Seconds(), Sources: m.Sources, Ended: m.Ended, Rows: m.Rows, Samples: m.Samples, Skipped: m.Skipped}
	oldest, newest := int64(math.MaxInt64), int64(0)
	for _, e := range m.Extents {
		t.Blocks += e.Blocks
		oldest, newest = min(oldest, e.From), max(newest, e.To)
		if extents {
			t.ExtentList = append(t.ExtentList, archiveExtentJSON{e.Generation, e.Sealed, msTime(e.From, jsonTime), msTime(e.To, jsonTime), e.Sources, e.Blocks, e.Rows, e.Samples, e.Length})
		}
	}
	if len(m.Extents) > 0 {
		t.Oldest, t.Newest = msTime(oldest, jsonTime), msTime(newest, jsonTime)
	}
	if m.Samples > 0 {
		t.BytesPerSample = m.BytesSample()
	}
	return t
}

// countExemplars is how many exemplars an archive has.
func countExemplars(c *cli.Context, a archive.Reader) (n uint64, err error) {
	for p, err := range a.Exemplars(c.Context, archive.Selection{From: math.MinInt64, To: math.MaxInt64}) {
		if err != nil {
			return 0, err
		}
		n += uint64(len(p.List))
	}
	return n, nil
}

func describeSource(a archive.Reader, inc *archive.Incarnation) archiveSourceJSON {
	s := archiveSourceJSON{Segment: hex.EncodeToString(inc.Segment[:]), Epoch: inc.Epoch, Copy: inc.Copy, Group: hex.EncodeToString(inc.Group[:]),
		Job: layout.Value(inc.Labels, "job"), Instance: layout.Value(inc.Labels, "instance"), Labels: pairsMap(inc.Labels), Attributes: pairsMap(inc.Attributes),
		UID: inc.UID, Start: jsonTime(inc.Birth), End: msTime(inc.Ended, jsonTime), Ephemeral: inc.Ephemeral, Series: len(inc.Series), Tables: []archiveTableJSON{}}
	tiers := a.Tiers()
	for _, t := range inc.Tables {
		for _, tt := range t.Tiers {
			s.Tables = append(s.Tables, archiveTableJSON{t.Name, tiers[tt.Tier].Step.Seconds(), tt.Step.Seconds(), tt.Folded, msTime(tt.Oldest, jsonTime), msTime(tt.Newest, jsonTime), tt.Last})
		}
	}
	return s
}

func describeBlock(step time.Duration, b *archive.BlockInfo) archiveBlockJSON {
	j := archiveBlockJSON{StepSeconds: step.Seconds(), Generation: b.Generation, Offset: b.Offset, Bytes: b.Length, Table: b.Schema.Name, Folded: b.Folded,
		Sources: len(b.Sources), Series: len(b.Schema.Series), Oldest: msTime(b.From, jsonTime), Newest: msTime(b.To, jsonTime), Members: len(b.Members)}
	for i := range b.Sources {
		j.Rows += b.Sources[i].Rows
	}
	return j
}

// seconds is a step or a span of what --json prints.
func seconds(s float64) time.Duration { return time.Duration(math.Round(s * 1e9)) }

// when is a time of what --json prints, as the other tables have it.
func when(text string) string {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return "-"
	}
	return timeText(t.UnixNano())
}

func perSample(bytes float64) string {
	if bytes == 0 || math.IsNaN(bytes) {
		return "-"
	}
	return fmt.Sprintf("%.2f", bytes)
}

func printTiers(c *cli.Context, tiers []archiveTierJSON) {
	g := newGrid("STEP", ">SIZE", ">EXTENTS", "OLDEST", "NEWEST", ">COVERS", ">SOURCES", ">BLOCKS", ">SAMPLES", ">B/SAMPLE", ">EXEMPLARS", ">SKIPPED")
	for _, t := range tiers {
		g.add(stepText(seconds(t.StepSeconds)), sizeText(t.SizeBytes), fmt.Sprintf("%d of %d", t.ExtentsUsed, t.Extents), when(t.Oldest), when(t.Newest),
			ageText(seconds(t.CoversSeconds)), digits(uint64(t.Sources)), digits(uint64(t.Blocks)), digits(t.Samples), perSample(t.BytesPerSample), digits(t.Exemplars), digits(t.Skipped))
	}
	g.print(c.App.Writer)
}

func printExtents(c *cli.Context, tiers []archiveTierJSON) {
	g := newGrid("STEP", ">GENERATION", "STATE", "OLDEST", "NEWEST", ">SOURCES", ">BLOCKS", ">ROWS", ">SAMPLES", ">ROWS' BYTES")
	for _, t := range tiers {
		for _, e := range t.ExtentList {
			state := "open"
			if e.Sealed {
				state = "sealed"
			}
			g.add(stepText(seconds(t.StepSeconds)), digits(e.Generation), state, when(e.Oldest), when(e.Newest), digits(uint64(e.Sources)), digits(uint64(e.Blocks)),
				digits(e.Rows), digits(e.Samples), digits(uint64(e.RowsBytes)))
		}
	}
	g.print(c.App.Writer)
}

func printSources(c *cli.Context, sources []archiveSourceJSON) {
	g := newGrid("ID", "JOB", "INSTANCE", ">UID", "START", "END", ">SERIES", "TABLE", "TIER", "OLDEST", "NEWEST", ">LAST ROW")
	for _, s := range sources {
		id := s.Segment[:8]
		if s.Epoch > 0 {
			id += " epoch " + strconv.FormatUint(uint64(s.Epoch), 10)
		}
		if s.Copy > 0 {
			id += " copy " + strconv.FormatUint(uint64(s.Copy), 10)
		}
		for i, t := range s.Tables {
			tier := stepText(seconds(t.StepSeconds))
			if t.Folded {
				tier += " folded"
			}
			if i == 0 {
				g.add(id, s.Job, s.Instance, strconv.Itoa(s.UID), when(s.Start), when(s.End), strconv.Itoa(s.Series), t.Table, tier, when(t.Oldest), when(t.Newest), digits(t.LastRow))
			} else {
				g.add("", "", "", "", "", "", "", t.Table, tier, when(t.Oldest), when(t.Newest), digits(t.LastRow))
			}
		}
	}
	g.print(c.App.Writer)
}

func printBlocks(c *cli.Context, blocks []archiveBlockJSON) {
	g := newGrid("STEP", ">GENERATION", ">OFFSET", ">BYTES", "TABLE", "KIND", ">SOURCES", ">ROWS", ">SERIES", ">B/SAMPLE", "OLDEST", "NEWEST")
	for _, b := range blocks {
		kind := "as they were"
		if b.Folded {
			kind = "folded"
		}
		if b.Members > 0 {
			kind += fmt.Sprintf(", of %d sources", b.Members)
		}
		g.add(stepText(seconds(b.StepSeconds)), digits(b.Generation), digits(b.Offset), digits(uint64(b.Bytes)), b.Table, kind, digits(uint64(b.Sources)), digits(uint64(b.Rows)),
			digits(uint64(b.Series)), perSample(float64(b.Bytes)/float64(max(1, b.Rows*b.Series))), when(b.Oldest), when(b.Newest))
	}
	g.print(c.App.Writer)
}
