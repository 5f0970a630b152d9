package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
	"github.com/urfave/cli/v2"
)

// What plan --json prints.
type planJSON struct {
	TotalBytes uint64            `json:"total_bytes" doc:"the file's size"`
	Processes  int               `json:"processes"`
	HostBytes  uint64            `json:"host_bytes" doc:"total_bytes x processes"`
	Series     uint32            `json:"series" doc:"descriptors: how many series fit at most"`
	Sections   []planSectionJSON `json:"sections" doc:"in the file's order; their bytes add up to total_bytes"`
	Tables     []planTableJSON   `json:"tables"`
	Archive    *planArchiveJSON  `json:"archive,omitempty" doc:"where an archive was asked for: absent else"`
}

type planSectionJSON struct {
	Name   string `json:"name" doc:"header, control, series, heap, lanes, rows, exemplars, padding"`
	Offset uint64 `json:"offset"`
	Bytes  uint64 `json:"bytes" doc:"with what rounds it up to the next section"`
	Count  uint32 `json:"count" doc:"elements"`
}

type planTableJSON struct {
	Name        string         `json:"name"`
	Series      uint32         `json:"series" doc:"planned"`
	Lanes       uint32         `json:"lanes" doc:"private ones; the overflow lane comes on top"`
	LaneCells   uint32         `json:"lane_cells"`
	LaneBytes   uint64         `json:"lane_bytes" doc:"one lane"`
	SharedCells uint32         `json:"shared_cells"`
	LanesBytes  uint64         `json:"lanes_bytes" doc:"all lanes, overflow and shared ones too"`
	RowCells    uint32         `json:"row_cells"`
	Tiers       []planTierJSON `json:"tiers"`
}

type planTierJSON struct {
	StepSeconds float64 `json:"step_seconds"`
	Rows        uint32  `json:"rows"`
	RowBytes    uint32  `json:"row_bytes"`
	Bytes       uint64  `json:"bytes" doc:"the ring"`
	Covers      float64 `json:"covers_seconds" doc:"rows x step"`
}

func planVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:  "plan",
			Usage: "say what a schema costs, to the byte, before anything is created",
			Description: "The schema comes from flags, or from a file, and what is not said is the writer's default: 100 series, of which 10\n" +
				"histograms of 80 buckets and 10 stats; tiers 1s:120 and 10s:60, for histograms 10s:30; a lane for each of this\n" +
				"machine's processors. A file is YAML or JSON:\n" +
				"\n" +
				"    job: forwarder\n" +
				"    instance: eth0\n" +
				"    labels: {rack: r12}\n" +
				"    max_bytes: 524288\n" +
				"    tables:\n" +
				"    - name: scalars\n" +
				"      tiers: [\"1s:120\", \"10s:60\"]\n" +
				"      counters: 60\n" +
				"      gauges: 20\n" +
				"      stats: 10\n" +
				"      lanes: 4\n" +
				"    - name: histograms\n" +
				"      tiers: [\"10s:30\"]\n" +
				"      histograms: 10\n" +
				"      buckets: 80\n" +
				"\n" +
				"Further keys: attributes, owned_lanes, heap_bytes, descriptors, exemplars; of a table: scalars (counters, updowns or gauges,\n" +
				"whichever come) and updowns.\n" +
				"\n" + aboutArchivePlan,
			Flags: append([]cli.Flag{jsonFlag(),
				&cli.StringFlag{Name: "schema", Usage: "read this `FILE`, - for standard input; the flags for series and tiers don't go with it", TakesFile: true},
				&cli.IntFlag{Name: "series", Usage: "room for `N` series, a tenth of them histograms and a tenth stats unless given"},
				&cli.IntFlag{Name: "counters", Usage: "`N` counters"},
				&cli.IntFlag{Name: "updowns", Usage: "`N` up-down counters"},
				&cli.IntFlag{Name: "gauges", Usage: "`N` gauges"},
				&cli.IntFlag{Name: "stats", Usage: "`N` stats"},
				&cli.IntFlag{Name: "histograms", Usage: "`N` histograms"},
				&cli.IntFlag{Name: "buckets", Usage: "`N` buckets in a histogram"},
				&cli.StringSliceFlag{Name: "tier", Usage: "`STEP:ROWS` of scalars, such as 1s:120; may be repeated"},
				&cli.StringSliceFlag{Name: "histogram-tier", Usage: "the same for histograms"},
				&cli.IntFlag{Name: "lanes", Usage: "`N` lanes for processors in each table; for histograms at most 4"},
				&cli.IntFlag{Name: "owned-lanes", Usage: "`N` lanes for single writers"},
				&cli.IntFlag{Name: "descriptors", Usage: "`N` series descriptors in all"},
				&cli.IntFlag{Name: "heap", Usage: "`BYTES` for names, units, help and labels"},
				&cli.IntFlag{Name: "exemplars", Usage: "`N` slots for exemplars, rounded up to a power of two; 64 unless given"},
				&cli.IntFlag{Name: "max-bytes", Usage: "shorten rings to fit in `BYTES`"},
				&cli.BoolFlag{Name: "sampled", Usage: "a segment that never ticks: no tiers, a daemon samples it"},
				&cli.StringFlag{Name: "job", Usage: "the header holds it: `NAME`", Value: "job"},
				&cli.StringFlag{Name: "instance", Usage: "as job: `NAME`", Value: "host.example.com:1234567"},
				&cli.IntFlag{Name: "processes", Aliases: []string{"segments"}, Usage: "say what `N` such processes take together", Value: 1},
			}, planArchiveFlags()...),
			Action: planAction,
		},
		json: planJSON{},
		examples: []string{
			"shmctl plan",
			"shmctl plan --counters 60 --gauges 20 --stats 10 --histograms 10 --tier 1s:120 --tier 10s:60",
			"shmctl plan --schema forwarder.yaml --processes 1000",
			"shmctl plan --archive --processes 1000 # how far back shmtsd's default tiers reach",
			"shmctl plan --retention 1s=2d --retention 5m=2y --segments 200 --churn 3600 # what disk that takes",
			"shmctl plan --from-archive /var/lib/shmtsd/archive --retention 1s=7d # from what was measured there",
			"shmctl plan --counters 60 --gauges 20 --stats 10 --histograms 10 --sampled",
		},
	}
}

func planAction(c *cli.Context) error {
	if c.Args().Present() {
		return usagef(c, "want no arguments, got %q", c.Args().First())
	}
	if n := c.Int("processes"); n < 0 || n == 0 && c.Float64("churn") == 0 {
		return usagef(c, "processes: want 1 or more, or --churn, got %d", n)
	}
	ask, err := planAsked(c)
	if err != nil {
		return err
	}
	if c.IsSet("from-archive") {
		return planFromArchive(c, ask)
	}
	var o writer.Options
	if c.IsSet("schema") {
		o, err = planFile(c)
	} else {
		o, err = planFlags(c)
	}
	if err != nil {
		return err
	}
	h, err := writer.Plan(o)
	if err != nil {
		return err
	}
	p := planOf(h, c.Int("processes"))
	if len(ask) > 0 {
		if p.Archive, err = planArchive(c, loadOf(c, &o, h), ask); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return printJSON(c, p)
	}
	printPlan(c, h, &p)
	if p.Archive != nil {
		fmt.Fprintln(c.App.Writer)
		printArchivePlan(c, p.Archive)
	}
	return nil
}

// shapeFlags are those that a schema file says itself.
var shapeFlags = []string{"series", "counters", "updowns", "gauges", "stats", "histograms", "buckets", "tier", "histogram-tier", "lanes"}

// planFlags makes options of the flags. Two tables, as the writer's defaults have them.
func planFlags(c *cli.Context) (writer.Options, error) {
	o := writer.Options{Job: c.String("job"), Instance: c.String("instance"), Series: c.Int("series"), Histograms: given(c, "histograms"),
		Stats: given(c, "stats"), Buckets: c.Int("buckets"), Descriptors: c.Int("descriptors"), HeapBytes: c.Int("heap"),
		OwnedLanes: given(c, "owned-lanes"), MaxBytes: c.Int("max-bytes"), Sampled: c.Bool("sampled"), Exemplars: given(c, "exemplars")}
	for _, f := range append([]string{"owned-lanes", "descriptors", "heap", "max-bytes", "exemplars"}, shapeFlags...) {
		if _, isInt := findFlag(c.Command, f).(*cli.IntFlag); isInt && c.Int(f) < 0 {
			return o, usagef(c, "%s: want 0 or more, got %d", f, c.Int(f))
		}
	}
	counted := c.IsSet("counters") || c.IsSet("updowns") || c.IsSet("gauges")
	if c.Bool("sampled") && (c.IsSet("tier") || c.IsSet("histogram-tier")) {
		return o, usagef(c, "want either --sampled or tiers, got both")
	}
	if counted && c.IsSet("series") {
		return o, usagef(c, "want either --series or counts of each kind, got both")
	}
	if !counted && !c.IsSet("tier") && !c.IsSet("histogram-tier") && !c.IsSet("lanes") {
		return o, nil
	}
	// What the writer would have made of the rest, to change only what was asked for.
	h, err := writer.Plan(o)
	if err != nil {
		return o, err
	}
	scalars := writer.Table{Name: "scalars", Stats: c.Int("stats"), Lanes: c.Int("lanes"), Tiers: tiersOf(h, 0)}
	histograms := writer.Table{Name: "histograms", Histograms: c.Int("histograms"), Buckets: c.Int("buckets"), Lanes: min(c.Int("lanes"), 4)}
	if len(h.Tables) > 1 {
		histograms.Tiers = tiersOf(h, 1)
	}
	if counted {
		scalars.Counters, scalars.Gauges = c.Int("counters")+c.Int("updowns"), c.Int("gauges")
	} else {
		series := orElse(c.Int("series"), writer.DefaultSeries)
		if !c.IsSet("stats") {
			scalars.Stats = series / 10
		}
		if !c.IsSet("histograms") {
			histograms.Histograms = series / 10
		}
		scalars.Scalars = max(0, series-scalars.Stats-histograms.Histograms)
	}
	if scalars.Tiers, err = orTiers(c, "tier", scalars.Tiers); err != nil {
		return o, err
	}
	if histograms.Tiers, err = orTiers(c, "histogram-tier", histograms.Tiers); err != nil {
		return o, err
	}
	o.Tables = []writer.Table{scalars, histograms}
	if histograms.Histograms == 0 {
		o.Tables = o.Tables[:1]
	}
	return o, nil
}

// given is the flag's number; 0, given, is the writer's word for none.
func given(c *cli.Context, name string) int {
	if c.IsSet(name) && c.Int(name) == 0 {
		return -1
	}
	return c.Int(name)
}

func orElse(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

func tiersOf(h *layout.Header, table int) (tiers []writer.Tier) {
	t := &h.Tables[table]
	for _, tier := range t.Tier[:t.Tiers] {
		tiers = append(tiers, writer.Tier{Step: time.Duration(tier.Step), Rows: int(tier.Rows)})
	}
	return tiers
}

func orTiers(c *cli.Context, flag string, otherwise []writer.Tier) ([]writer.Tier, error) {
	if !c.IsSet(flag) {
		return otherwise, nil
	}
	tiers, err := parseTiers(c.StringSlice(flag))
	if err != nil {
		return nil, usagef(c, "%s: %s", flag, err)
	}
	return tiers, nil
}

// parseTiers reads step:rows, such as 1s:120.
func parseTiers(words []string) (tiers []writer.Tier, err error) {
	for _, w := range words {
		step, rows, _ := strings.Cut(w, ":")
		d, err := time.ParseDuration(step)
		n, rowsErr := strconv.Atoi(rows)
		if err != nil || rowsErr != nil {
			return nil, fmt.Errorf("want STEP:ROWS such as 1s:120, got %q", w)
		}
		tiers = append(tiers, writer.Tier{Step: d, Rows: n})
	}
	return tiers, nil
}

func planFile(c *cli.Context) (writer.Options, error) {
	for _, f := range append([]string{"descriptors", "heap", "owned-lanes", "exemplars"}, shapeFlags...) {
		if c.IsSet(f) {
			return writer.Options{}, usagef(c, "want either --schema or --%s, got both", f)
		}
	}
	name := c.String("schema")
	var b []byte
	var err error
	if name == "-" {
		b, err = readAll(c.App.Reader, maxSchema)
	} else {
		var file *os.File
		if file, err = os.Open(name); err == nil {
			b, err = readAll(file, maxSchema)
			file.Close()
		}
	}
	if err != nil {
		return writer.Options{}, fmt.Errorf("shmts: schema: %w", err)
	}
	o, err := parseSchema(b)
	if err != nil {
		return o, fmt.Errorf("shmts: schema %s: %w", name, err)
	}
	if o.Job == "" || c.IsSet("job") {
		o.Job = c.String("job")
	}
	if o.Instance == "" || c.IsSet("instance") {
		o.Instance = c.String("instance")
	}
	if c.IsSet("max-bytes") {
		o.MaxBytes = c.Int("max-bytes")
	}
	o.Sampled = c.Bool("sampled")
	return o, nil
}

// maxSchema bounds what plan reads.
const maxSchema = 1 << 20

func planOf(h *layout.Header, processes int) planJSON {
	p := planJSON{TotalBytes: h.TotalSize, Processes: processes, HostBytes: h.TotalSize * uint64(processes), Series: h.Series.Count}
	p.Sections = []planSectionJSON{{Name: "header", Bytes: uint64(h.HeaderSize), Count: h.SectionCount}}
	sections, end := []layout.Section{h.Control, h.Series, h.Heap, h.Lanes, h.Rows}, h.Rows.Offset+h.Rows.Length
	if h.Exemplars.Count > 0 {
		sections, end = append(sections, h.Exemplars), h.Exemplars.Offset+h.Exemplars.Length
	}
	for _, s := range sections {
		last := &p.Sections[len(p.Sections)-1]
		last.Bytes = s.Offset - last.Offset
		p.Sections = append(p.Sections, planSectionJSON{Name: sectionName(s.Type), Offset: s.Offset, Bytes: s.Length, Count: s.Count})
	}
	if end < h.TotalSize {
		p.Sections = append(p.Sections, planSectionJSON{Name: "padding", Offset: end, Bytes: h.TotalSize - end, Count: 1})
	}
	for i := range h.Tables {
		t := &h.Tables[i]
		lanesEnd := h.Lanes.Offset + h.Lanes.Length
		if i+1 < len(h.Tables) {
			lanesEnd = h.Tables[i+1].LanesOffset
		}
		pt := planTableJSON{Name: layout.Text(t.Name[:]), Series: t.SeriesCapacity, Lanes: t.Lanes, LaneCells: t.LaneCells, LaneBytes: uint64(t.LaneStride),
			SharedCells: t.SharedCells, LanesBytes: lanesEnd - t.LanesOffset, RowCells: t.RowCells, Tiers: []planTierJSON{}}
		for _, tier := range t.Tier[:t.Tiers] {
			step := time.Duration(tier.Step)
			pt.Tiers = append(pt.Tiers, planTierJSON{step.Seconds(), tier.Rows, tier.RowStride,
				uint64(tier.Rows) * uint64(tier.RowStride), (step * time.Duration(tier.Rows)).Seconds()})
		}
		p.Tables = append(p.Tables, pt)
	}
	return p
}

func printPlan(c *cli.Context, h *layout.Header, p *planJSON) {
	w := c.App.Writer
	sections := newGrid("SECTION", ">OFFSET", ">BYTES", ">COUNT")
	for _, s := range p.Sections {
		sections.add(s.Name, fmt.Sprintf("%#x", s.Offset), digits(s.Bytes), digits(uint64(s.Count)))
	}
	sections.add("total", "", digits(p.TotalBytes), "")
	sections.print(w)
	fmt.Fprintln(w)
	tables := newGrid("TABLE", "PART", ">COUNT", ">CELLS", ">BYTES EACH", ">BYTES", "COVERS")
	for _, t := range p.Tables {
		tables.add(t.Name, "lanes", fmt.Sprintf("%d+1", t.Lanes), digits(uint64(t.LaneCells)), digits(t.LaneBytes), digits(uint64(t.Lanes+1)*t.LaneBytes), "")
		if t.SharedCells > 0 {
			bytes := t.LanesBytes - uint64(t.Lanes+1)*t.LaneBytes
			tables.add(t.Name, "shared lane", "1", digits(uint64(t.SharedCells)), digits(bytes), digits(bytes), "")
		}
		for i, tier := range t.Tiers {
			step := time.Duration(tier.StepSeconds * 1e9)
			tables.add(t.Name, fmt.Sprintf("tier %d, %s", i, stepText(step)), digits(uint64(tier.Rows)), digits(uint64(t.RowCells)),
				digits(uint64(tier.RowBytes)), digits(tier.Bytes), ageText(step*time.Duration(tier.Rows)))
		}
	}
	tables.print(w)
	fmt.Fprintln(w)
	fmt.Fprintf(w, "%s bytes (%s) for %s series in %d tables; descriptors for %d.\n", digits(p.TotalBytes), sizeText(int64(p.TotalBytes)),
		plannedSeries(p), len(p.Tables), h.Series.Count)
	if p.Processes > 1 {
		fmt.Fprintf(w, "%d processes: %s bytes (%s).\n", p.Processes, digits(p.HostBytes), sizeText(int64(p.HostBytes)))
	}
}

func plannedSeries(p *planJSON) string {
	n := 0
	for _, t := range p.Tables {
		n += int(t.Series)
	}
	return strconv.Itoa(n)
}
