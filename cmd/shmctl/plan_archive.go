package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/forecast"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

// What plan --json prints of an archive.
type planArchiveJSON struct {
	Tiers         []planArchiveTierJSON `json:"tiers" doc:"finest first"`
	TotalBytes    int64                 `json:"total_bytes" doc:"of all tiers' files"`
	PowerLoss     float64               `json:"power_loss_seconds" doc:"what a loss of power costs at most, and with --from-archive on average: the rows that wait in segments, and what is not synced yet"`
	From          string                `json:"from,omitempty" doc:"the archive that was measured; absent for a planned load"`
	LivesPerHour  float64               `json:"lives_per_hour" doc:"of processes that come and go"`
	BytesAreGiven bool                  `json:"bytes_are_given,omitempty" doc:"by --bytes-per-sample; absent where they were measured"`
}

type planArchiveTierJSON struct {
	StepSeconds      float64 `json:"step_seconds"`
	BudgetBytes      int64   `json:"budget_bytes"`
	Extents          int     `json:"extents"`
	ExtentBytes      int64   `json:"extent_bytes"`
	ExtentSeconds    float64 `json:"extent_seconds" doc:"what one holds"`
	RetentionSeconds float64 `json:"retention_seconds" doc:"how far back the tier reaches at least, once it is full: just after an extent was reused"`
	LongestSeconds   float64 `json:"longest_seconds" doc:"and at most: just before"`
	SamplesPerSecond float64 `json:"samples_per_second" doc:"a value of a series in a row is one"`
	BytesPerSecond   float64 `json:"bytes_per_second" doc:"rows, labels and index, and what is left free at the end of extents"`
	BytesPerSample   float64 `json:"bytes_per_sample"`
	BytesPerSource   float64 `json:"bytes_per_source" doc:"labels and index of one, in each extent that has rows of it"`
	BytesPerLife     float64 `json:"bytes_per_life" doc:"rows, labels and index of a process that came and went; 0 without any, or where it is not known"`
	Ephemeral        bool    `json:"ephemeral,omitempty" doc:"processes that come and go are added to a sum; absent where each has its own rows"`
	LagSeconds       float64 `json:"lag_seconds" doc:"how long rows wait before they are in the tier: at most, or, measured, on average"`
}

const aboutArchivePlan = "Asked for an archive (--archive, --archive-budget, --retention), it says how far back each tier reaches with its budget, or\n" +
	"what budget that takes. Nothing is counted by hand: blocks of drawn values are written in memory with the archive's own\n" +
	"code, so that rows, labels and index are as they will be. What is assumed: how values move (--constant, --rate; a third of\n" +
	"gauges are whole numbers, a third have one decimal, a third all digits), that all processes run one program as one user,\n" +
	"and that none of them does more than is told here. Real values differ: of a host's own metrics four of five are constant, of\n" +
	"an application's hardly any, and a recorded host's took half of what is drawn with --constant 81. So a planned load says\n" +
	"the order of magnitude, --bytes-per-sample says it better, and where there is an archive already, --from-archive takes what\n" +
	"it measured, pauses of the daemon included: that is right within 10 % where the load goes on as it was, and once an extent\n" +
	"holds some flushes. A tier reaches back so far at least, just after an extent was reused."

// archiveDefaults are shmtsd's archive.tiers.
const archiveDefaults = "1s=512MiB,10s=256MiB,5m=256MiB"

func planArchiveFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "archive", Usage: "plan an archive, with the tiers of shmtsd's defaults"},
		&cli.StringSliceFlag{Name: "archive-budget", Usage: "plan a tier with `STEP=SIZE` on disk, such as 1s=512MiB; may be repeated"},
		&cli.StringSliceFlag{Name: "retention", Usage: "plan a tier that reaches back `STEP=DURATION`, such as 5m=1y; may be repeated"},
		&cli.Float64Flag{Name: "churn", Usage: "beside --processes, `N` begin each hour, and end"},
		&cli.DurationFlag{Name: "life", Usage: "those live for `DURATION`", Value: 45 * time.Second},
		&cli.BoolFlag{Name: "no-ephemeral", Usage: "as shmtsd with archive.ephemeral=false: each has its own rows in every tier"},
		&cli.IntFlag{Name: "constant", Usage: "`PERCENT` of counters, gauges and stats stay as they are", Value: 50},
		&cli.Float64Flag{Name: "rate", Usage: "`N` events a second: the median of counters, which are spread over four decades, and what stats and histograms record", Value: 1},
		&cli.StringSliceFlag{Name: "bytes-per-sample", Usage: "take `BYTES` for a sample, all-in, or STEP=BYTES, and draw nothing"},
		&cli.DurationFlag{Name: "sync-interval", Usage: "shmtsd's archive.sync-interval: `DURATION`", Value: 5 * time.Second},
		&cli.StringFlag{Name: "from-archive", Usage: "plan from what the archive in `DIR` has taken; flags for series don't go with it", TakesFile: true},
		&cli.Float64Flag{Name: "scale", Usage: "with --from-archive: for `N` times as much", Value: 1},
	}
}

// asked is a tier: a budget or a retention.
type asked struct {
	step      time.Duration
	budget    int64
	retention time.Duration
}

// planAsked reads what tiers are asked for, finest first; none if no archive is.
func planAsked(c *cli.Context) (list []asked, err error) {
	add := func(flag, text string, set func(a *asked, value string) error) error {
		for _, word := range strings.Split(text, ",") {
			step, value, ok := strings.Cut(word, "=")
			a := asked{}
			d, err := parseStep(step)
			if err == nil && ok {
				a.step = d
				err = set(&a, value)
			}
			switch {
			case err != nil || !ok:
				return usagef(c, "%s: want STEP=VALUE such as %s, got %q", flag, map[bool]string{true: "1s=512MiB", false: "5m=30d"}[flag != "retention"], word)
			case d < 100*time.Millisecond || d > time.Hour:
				return usagef(c, "%s: want a step from 100ms to 1h, got %s", flag, step)
			}
			at := slices.IndexFunc(list, func(b asked) bool { return b.step == d })
			switch {
			case at < 0:
				list = append(list, a)
			case flag == "archive-budget" && list[at].retention == 0 || flag == "retention" && c.Bool("archive") && list[at].retention == 0:
				list[at] = a
			default:
				return usagef(c, "%s: want a budget or a retention for a tier, once, got %s twice", flag, step)
			}
		}
		return nil
	}
	size := func(a *asked, v string) (err error) { a.budget, err = parseSize(v); return err }
	if c.Bool("archive") {
		if err := add("archive", archiveDefaults, size); err != nil {
			return nil, err
		}
	}
	for _, text := range c.StringSlice("archive-budget") {
		if err := add("archive-budget", text, size); err != nil {
			return nil, err
		}
	}
	for _, text := range c.StringSlice("retention") {
		err := add("retention", text, func(a *asked, v string) (err error) {
			if a.retention, err = parseStep(v); err == nil && a.retention <= 0 {
				err = errors.New("want more than 0")
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(list, func(a, b asked) int { return int(a.step/time.Millisecond - b.step/time.Millisecond) })
	if len(list) == 0 && !c.IsSet("from-archive") {
		for _, f := range []string{"churn", "life", "no-ephemeral", "constant", "rate", "bytes-per-sample", "sync-interval", "scale"} {
			if c.IsSet(f) {
				return nil, usagef(c, "%s: want it with --archive, --archive-budget or --retention, got none of them", f)
			}
		}
	}
	switch p := c.Int("constant"); {
	case p < 0 || p > 100:
		return nil, usagef(c, "constant: want 0 to 100 percent, got %d", p)
	case !(c.Float64("rate") > 0):
		return nil, usagef(c, "rate: want more than 0, got %v", c.Float64("rate"))
	case c.Float64("churn") < 0:
		return nil, usagef(c, "churn: want 0 or more, got %v", c.Float64("churn"))
	case c.Duration("life") <= 0:
		return nil, usagef(c, "life: want more than 0, got %v", c.Duration("life"))
	case !(c.Float64("scale") > 0):
		return nil, usagef(c, "scale: want more than 0, got %v", c.Float64("scale"))
	case c.IsSet("scale") && !c.IsSet("from-archive"):
		return nil, usagef(c, "scale: want it with --from-archive, got none")
	}
	return list, nil
}

// parseSize reads bytes, as shmtsd's settings do: 64MiB, or 67108864.
func parseSize(text string) (int64, error) {
	digits, unit := strings.TrimSuffix(text, "B"), int64(1)
	for i, name := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if n, ok := strings.CutSuffix(text, name); ok {
			digits, unit = n, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > 1<<50/unit {
		return 0, fmt.Errorf("want a size such as 512MiB, got %q", text)
	}
	return n * unit, nil
}

// loadOf is what such processes bring. Scalars, of which the schema doesn't say what they are, are counters, and every fourth a gauge.
func loadOf(c *cli.Context, o *writer.Options, h *layout.Header) *forecast.Load {
	l := &forecast.Load{Job: o.Job, Instance: o.Instance, Processes: c.Int("processes"), Churn: c.Float64("churn"), Life: c.Duration("life"),
		Ephemeral: !c.Bool("no-ephemeral"), Constant: float64(c.Int("constant")) / 100, Rate: c.Float64("rate")}
	for name, value := range o.Labels {
		l.Labels = append(l.Labels, reader.Pair{Name: name, Value: value})
	}
	for i := range h.Tables {
		t := &h.Tables[i]
		if t.Tiers == 0 {
			continue
		}
		x := forecast.Table{Step: time.Duration(t.Tier[0].Step), Rows: int(t.Tier[0].Rows), Buckets: writer.DefaultBuckets}
		scalars := int(t.SeriesCapacity)
		switch {
		case len(o.Tables) > 0:
			from := o.Tables[i]
			x.Counters, x.Gauges, x.Stats, x.Histograms = from.Counters, from.Gauges, from.Stats, from.Histograms
			x.Buckets = orElse(from.Buckets, writer.DefaultBuckets)
			scalars = from.Scalars
		case i == 0:
			if x.Stats = max(0, o.Stats); o.Stats == 0 {
				x.Stats = orElse(o.Series, writer.DefaultSeries) / 10
			}
			scalars -= x.Stats
		default:
			x.Histograms, scalars = scalars, 0
			x.Buckets = orElse(o.Buckets, writer.DefaultBuckets)
		}
		x.Counters += scalars - scalars/4
		x.Gauges += scalars / 4
		l.Tables = append(l.Tables, x)
	}
	return l
}

func planArchive(c *cli.Context, l *forecast.Load, ask []asked) (*planArchiveJSON, error) {
	if err := l.Check(); err != nil {
		return nil, err
	}
	steps := stepsOf(ask)
	p := &planArchiveJSON{Tiers: []planArchiveTierJSON{}, LivesPerHour: l.Churn}
	for i, a := range ask {
		bytes, given, err := bytesPerSample(c, a.step)
		if err != nil {
			return nil, err
		}
		var t forecast.Tier
		switch {
		case given:
			p.BytesAreGiven = true
			t, err = l.Fixed(steps, i, bytes, a.budget, a.retention)
		case a.budget > 0:
			t, err = l.Of(steps, i, a.budget)
		default:
			t, err = l.For(steps, i, a.retention)
		}
		if err != nil {
			return nil, err
		}
		p.add(&t)
	}
	for i := range l.Tables {
		t := &l.Tables[i]
		p.PowerLoss = max(p.PowerLoss, t.Waits().Seconds())
	}
	p.PowerLoss += c.Duration("sync-interval").Seconds()
	return p, nil
}

func stepsOf(ask []asked) (steps []time.Duration) {
	for _, a := range ask {
		steps = append(steps, a.step)
	}
	return steps
}

// bytesPerSample is what was given for a tier.
func bytesPerSample(c *cli.Context, tier time.Duration) (bytes float64, given bool, err error) {
	for _, text := range c.StringSlice("bytes-per-sample") {
		step, value, ok := strings.Cut(text, "=")
		of := tier
		if !ok {
			value = step
		} else if of, err = parseStep(step); err != nil {
			return 0, false, usagef(c, "bytes-per-sample: %s", err)
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || !(n > 0) {
			return 0, false, usagef(c, "bytes-per-sample: want BYTES or STEP=BYTES, more than 0, got %q", text)
		}
		if of == tier {
			bytes, given = n, true
		}
	}
	return bytes, given, nil
}

func (p *planArchiveJSON) add(t *forecast.Tier) {
	p.TotalBytes += t.Budget
	p.Tiers = append(p.Tiers, planArchiveTierJSON{t.Step.Seconds(), t.Budget, t.Extents, t.ExtentSize, t.Fill.Seconds(), t.Least.Seconds(), t.Most.Seconds(),
		t.SamplesSecond, t.BytesSecond, t.BytesSample, t.BytesSource, t.BytesLife, t.EphemeralLives, t.Lag.Seconds()})
}

// planFromArchive plans from what an archive has taken.
func planFromArchive(c *cli.Context, ask []asked) error {
	for _, f := range append([]string{"schema", "descriptors", "heap", "owned-lanes", "max-bytes", "processes", "churn", "life", "no-ephemeral", "constant", "rate", "bytes-per-sample", "job", "instance"}, shapeFlags...) {
		if c.IsSet(f) {
			return usagef(c, "want either --from-archive or --%s, got both", f)
		}
	}
	a, err := archive.OpenReader(c.String("from-archive"))
	if err != nil {
		return err
	}
	defer a.Close()
	var have []string
	for _, t := range a.Tiers() {
		have = append(have, stepText(t.Step))
	}
	if len(ask) == 0 { // as it is
		for _, t := range a.Tiers() {
			ask = append(ask, asked{step: t.Step, budget: t.Size})
		}
	}
	p := &planArchiveJSON{Tiers: []planArchiveTierJSON{}, From: c.String("from-archive")}
	var spans []string
	for _, x := range ask {
		i := slices.IndexFunc(a.Tiers(), func(t archive.Tier) bool { return t.Step == x.step })
		if i < 0 {
			return fmt.Errorf("shmts: %s: want tiers that it has, of %s, got %s", p.From, strings.Join(have, ", "), stepText(x.step))
		}
		m, err := forecast.Measure(a, i)
		if err != nil {
			return err
		}
		t, err := m.Forecast(x.budget, x.retention, c.Float64("scale"))
		if err != nil {
			return err
		}
		p.add(&t)
		if i == 0 || p.LivesPerHour == 0 {
			p.LivesPerHour = m.Lives() * c.Float64("scale")
		}
		if len(p.Tiers) == 1 {
			p.PowerLoss = (t.Lag + c.Duration("sync-interval")).Seconds()
		}
		spans = append(spans, fmt.Sprintf("%s of %s", ageText(m.Span()), stepText(t.Step)))
	}
	if c.Bool("json") {
		return printJSON(c, planJSON{Sections: []planSectionJSON{}, Tables: []planTableJSON{}, Archive: p})
	}
	printArchivePlan(c, p)
	fmt.Fprintf(c.App.Writer, "Measured over %s.\n", strings.Join(spans, ", "))
	return nil
}

// spanText is a long time for people.
func spanText(s float64) string {
	if s > 100*365*86400 {
		return "more than 100 years"
	}
	return ageText(seconds(s))
}

func printArchivePlan(c *cli.Context, p *planArchiveJSON) {
	w := c.App.Writer
	g := newGrid("TIER", ">BUDGET", ">EXTENTS", ">REACHES BACK", ">SAMPLES/S", ">B/S", ">B/SAMPLE", ">B/SOURCE", ">B/LIFE", ">LAG")
	for _, t := range p.Tiers {
		life := "-"
		if t.BytesPerLife > 0 {
			life = fmt.Sprintf("%.0f", t.BytesPerLife)
		}
		source := "-"
		if t.BytesPerSource > 0 {
			source = fmt.Sprintf("%.0f", t.BytesPerSource)
		}
		g.add(stepText(seconds(t.StepSeconds)), sizeText(t.BudgetBytes), fmt.Sprintf("%d x %s", t.Extents, sizeText(t.ExtentBytes)), spanText(t.RetentionSeconds),
			shortText(t.SamplesPerSecond), shortText(t.BytesPerSecond), perSample(t.BytesPerSample), source, life, spanText(t.LagSeconds))
	}
	g.add("total", sizeText(p.TotalBytes), "", "", "", "", "", "", "", "")
	g.print(w)
	fmt.Fprintln(w)
	most := "at most"
	if p.From != "" { // how long rows waited there is known from how many were written at once, which is a mean
		most = "on average"
	}
	fmt.Fprintf(w, "A loss of power costs %s the last %s: rows wait in the segments' rings, and for a sync.\n", most, spanText(p.PowerLoss))
	switch {
	case p.From != "":
		fmt.Fprintf(w, "Processes that ended: %s an hour. Lag is the average.\n", shortText(p.LivesPerHour))
	case p.BytesAreGiven:
		fmt.Fprintln(w, "Bytes a sample are as given.")
	default:
		fmt.Fprintf(w, "Values are assumed: %d %% of scalars constant, others move with %s events a second. --from-archive measures.\n", c.Int("constant"), shortText(c.Float64("rate")))
	}
	for _, t := range p.Tiers {
		if t.Ephemeral {
			fmt.Fprintf(w, "In the %s tier, processes that come and go are added to a sum (archive.ephemeral).\n", stepText(seconds(t.StepSeconds)))
		}
	}
}
