package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
)

// What write --json prints.
type writeJSON struct {
	Paths    []string `json:"paths" doc:"the segments"`
	Records  uint64   `json:"records" doc:"recorded"`
	Rejected uint64   `json:"rejected" doc:"lines and values that were not"`
}

var kinds = []string{"counter", "updown", "gauge", "stat", "histogram"}

func writeVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "write",
			Usage:     "record values from a shell",
			ArgsUsage: "KIND NAME VALUE... | KIND - | -",
			Description: "Gives birth to a segment, records each VALUE, publishes a final row and goes. The segment stays until shmtsd has read it\n" +
				"(rm removes it where none runs). KIND is counter, updown, gauge, stat or histogram. A counter or updown is added to, and\n" +
				"begins at 0 with each call, as with any process that starts: PromQL's increase() adds calls up.\n" +
				"\n" +
				"With - lines are read from standard input until it ends, and a row is published each second: NAME VALUE, or, where no\n" +
				"KIND is given, KIND NAME VALUE. NAME may carry labels: NAME{label=\"value\"}. Empty lines and those that begin with # are\n" +
				"passed over; a line that is wrong is reported, the others count, and the status is 1.",
			Flags: []cli.Flag{storeFlag(), jsonFlag(),
				&cli.StringFlag{Name: "job", Usage: "the source: `NAME`", Value: "shmctl"},
				&cli.StringFlag{Name: "instance", Usage: "of it: `NAME`", DefaultText: "the host's name"},
				&cli.StringSliceFlag{Name: "label", Usage: "`NAME=VALUE` of every series; may be repeated"},
				&cli.StringSliceFlag{Name: "attribute", Usage: "`NAME=VALUE`: a resource attribute; may be repeated"},
				&cli.StringFlag{Name: "unit", Usage: "in UCUM: s, By, {packet}: `UNIT`"},
				&cli.StringFlag{Name: "describe", Usage: "`TEXT` for people: the series' help"},
				&cli.BoolFlag{Name: "float", Usage: "counters of floats instead of whole numbers"},
				&cli.StringFlag{Name: "buckets", Usage: "a histogram's range: `LOW:HIGH`", Value: "0.001:1000"},
				&cli.IntFlag{Name: "scale", Usage: "a histogram's resolution: 2^`N` buckets to a doubling, 0 to 6", Value: 3},
				&cli.StringFlag{Name: "trace", Usage: "the trace that counter and histogram values belong to, left with them as exemplars: 32 hexadecimal digits: `ID`"},
				&cli.StringFlag{Name: "span", Usage: "the span in it: 16 hexadecimal digits: `ID`"},
				&cli.IntFlag{Name: "series", Usage: "with -, room for `N` series", Value: 100},
			},
			Action: writeAction,
		},
		json: writeJSON{},
		examples: []string{
			"shmctl write counter backup_bytes_total 1048576 --job backup --label disk=sda --unit By",
			"shmctl write histogram backup_duration_seconds 312.5 --job backup --trace \"$TRACE_ID\" --unit s",
			"shmctl write gauge last_success_timestamp_seconds \"$(date +%s)\" --job backup",
			"ping -i 1 host | sed -un 's/.*time=\\(.*\\) ms/ping_ms \\1/p' | shmctl write histogram - --buckets 0.1:1000 --unit ms",
		},
		complete: func(c *completion) []candidate {
			switch {
			case c.flag == "" && len(c.words) == 0:
				return append(words(kinds...), candidate{"-", "lines from standard input"})
			case c.flag == "" && len(c.words) == 1:
				return words("-")
			}
			return nil
		},
	}
}

// A recorder writes values into one writer, series by series.
type recorder struct {
	w        *writer.Writer
	options  []writer.SeriesOption
	float    bool
	low      float64
	high     float64
	scale    int
	trace    writer.Exemplar
	series   map[string]func(string) error
	records  uint64
	rejected uint64
}

func writeAction(c *cli.Context) error {
	args := c.Args().Slice()
	lines := len(args) > 0 && args[len(args)-1] == "-" && len(args) <= 2
	switch {
	case len(args) == 0, !lines && len(args) < 3:
		return usagef(c, "want KIND NAME VALUE, KIND - or -, got %d arguments", len(args))
	case args[0] != "-" && !slices.Contains(kinds, args[0]):
		return usagef(c, "KIND: want one of %s, got %q", strings.Join(kinds, ", "), args[0])
	}
	r, o, err := recorderOf(c)
	if err != nil {
		return err
	}
	kind := args[0]
	if kind == "-" {
		kind = ""
	}
	if lines {
		o.Series = c.Int("series")
	} else {
		// One series: no room for more than it needs.
		t := writer.Table{Name: "values", Lanes: 1, Tiers: []writer.Tier{{Step: time.Second, Rows: layout.MinRows}}}
		if err := r.room(&t, kind); err != nil {
			return usagef(c, "%s", strings.TrimPrefix(err.Error(), "shmts: "))
		}
		o.Tables, o.OwnedLanes, o.NoTicker = []writer.Table{t}, -1, true
		o.Descriptors, o.HeapBytes = 1, heapFor(c, args[1])
		if r.trace.TraceID == [16]byte{} {
			o.Exemplars = -1
		}
	}
	// Look before recording: a value that is none gives birth to nothing.
	if !lines {
		if err := r.tryAll(kind, args[1], args[2:]); err != nil {
			return err
		}
	}
	if r.w, err = writer.Open(o); err != nil {
		r.w.Close()
		return err
	}
	var failed error
	if lines {
		failed = r.readLines(c, kind)
	} else {
		for _, value := range args[2:] {
			if err := r.record(kind, args[1], value); err != nil {
				failed = err
				break
			}
		}
	}
	if !lines {
		// Birth and final row are to be of different milliseconds, PromQL's finest: else the
		// counter was never 0.
		time.Sleep(2 * time.Millisecond)
	}
	if err := r.w.Close(); failed == nil {
		failed = err
	}
	if err := r.w.Err(); failed == nil {
		failed = err
	}
	stats := r.w.Stats()
	if failed == nil && stats.RejectedRecords > 0 {
		failed = fmt.Errorf("shmts: %s: want values that are finite and no negative amounts where there can be none, got %d others", c.Args().First(), stats.RejectedRecords)
	}
	if failed == nil && r.rejected > 0 {
		failed = fmt.Errorf("shmts: want lines of NAME VALUE, got %d others of %d", r.rejected, r.rejected+r.records)
	}
	if c.Bool("json") {
		if err := printJSON(c, writeJSON{slices.Concat([]string{}, stats.Paths), r.records - stats.RejectedRecords, r.rejected + stats.RejectedRecords}); err != nil {
			return err
		}
	}
	return failed
}

func recorderOf(c *cli.Context) (*recorder, writer.Options, error) {
	r := &recorder{float: c.Bool("float"), scale: c.Int("scale"), series: map[string]func(string) error{}}
	o := writer.Options{Job: c.String("job"), Instance: c.String("instance"), Dir: c.String("store"), Attributes: map[string]string{}}
	if o.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, o, fmt.Errorf("shmts: instance: %w", err)
		}
		o.Instance = host
	}
	var err error
	if r.trace.TraceID, r.trace.SpanID, err = traceOf(c); err != nil {
		return nil, o, err
	}
	low, high, _ := strings.Cut(c.String("buckets"), ":")
	var lowErr, highErr error
	r.low, lowErr = strconv.ParseFloat(low, 64)
	r.high, highErr = strconv.ParseFloat(high, 64)
	if lowErr != nil || highErr != nil {
		return nil, o, usagef(c, "buckets: want LOW:HIGH such as 0.001:10, got %q", c.String("buckets"))
	}
	if n := c.Int("series"); n < 1 || n > layout.MaxSeries {
		return nil, o, usagef(c, "series: want 1 to %d, got %d", layout.MaxSeries, n)
	}
	for _, l := range c.StringSlice("label") {
		name, value, ok := strings.Cut(l, "=")
		if !ok || name == "" {
			return nil, o, usagef(c, "label: want NAME=VALUE, got %q", l)
		}
		r.options = append(r.options, writer.Label(name, value))
	}
	for _, a := range c.StringSlice("attribute") {
		name, value, ok := strings.Cut(a, "=")
		if !ok || name == "" {
			return nil, o, usagef(c, "attribute: want NAME=VALUE, got %q", a)
		}
		o.Attributes[name] = value
	}
	r.options = append(r.options, writer.Unit(c.String("unit")), writer.Help(c.String("describe")))
	return r, o, nil
}

// heapFor is no less than what the strings of one series take. FORMAT.md 6.4.
func heapFor(c *cli.Context, name string) int {
	n := len(name) + len(c.String("unit")) + len(c.String("describe")) + 2 + 4*layout.MaxPairs
	for _, l := range c.StringSlice("label") {
		n += len(l)
	}
	return n
}

// room makes the table hold one series of the kind.
func (r *recorder) room(t *writer.Table, kind string) error {
	switch kind {
	case "counter", "updown":
		t.Counters = 1
	case "gauge":
		t.Gauges = 1
	case "stat":
		t.Stats = 1
	case "histogram":
		b, err := layout.NewBucketRange(r.scale, r.low, r.high)
		if err != nil {
			return err
		}
		t.Histograms, t.Buckets = 1, b.Count
	}
	return nil
}

// parse reads a value as the kind wants it.
func (r *recorder) parse(kind, value string) (f float64, i int64, u uint64, err error) {
	switch {
	case kind == "counter" && !r.float:
		if u, err = strconv.ParseUint(value, 10, 64); err != nil {
			err = fmt.Errorf("shmts: counter: want a whole number, 0 or more (or --float), got %q", value)
		}
	case kind == "updown":
		if i, err = strconv.ParseInt(value, 10, 64); err != nil {
			err = fmt.Errorf("shmts: updown: want a whole number, got %q", value)
		}
	default:
		f, err = strconv.ParseFloat(value, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || f < 0 && kind == "counter" {
			err = fmt.Errorf("shmts: %s: want a finite number%s, got %q", kind, map[bool]string{true: ", 0 or more"}[kind == "counter"], value)
		}
	}
	return f, i, u, err
}

func (r *recorder) tryAll(kind, name string, values []string) error {
	if _, _, err := parseSeries(name); err != nil {
		return err
	}
	for _, v := range values {
		if _, _, _, err := r.parse(kind, v); err != nil {
			return err
		}
	}
	return nil
}

// record records one value.
func (r *recorder) record(kind, name, value string) error {
	f, ok := r.series[kind+" "+name]
	if !ok {
		var err error
		if f, err = r.register(kind, name); err != nil {
			return err
		}
		r.series[kind+" "+name] = f
	}
	if err := f(value); err != nil {
		return err
	}
	r.records++
	return nil
}

func (r *recorder) register(kind, text string) (func(string) error, error) {
	name, labels, err := parseSeries(text)
	if err != nil {
		return nil, err
	}
	options := slices.Clone(r.options)
	for _, l := range labels {
		options = append(options, writer.Label(l.Name, l.Value))
	}
	before := r.w.Stats().DroppedSeries
	var put func(f float64, i int64, u uint64)
	switch {
	case kind == "counter" && r.float:
		h := r.w.FloatCounter(name, options...)
		put = func(f float64, _ int64, _ uint64) { h.AddExemplar(f, r.exemplar()) }
	case kind == "counter":
		h := r.w.Counter(name, options...)
		put = func(_ float64, _ int64, u uint64) { h.AddExemplar(u, r.exemplar()) }
	case kind == "updown":
		h := r.w.UpDownCounter(name, options...)
		put = func(_ float64, i int64, _ uint64) { h.Add(i) }
	case kind == "gauge":
		h := r.w.Gauge(name, options...)
		put = func(f float64, _ int64, _ uint64) { h.Set(f) }
	case kind == "stat":
		h := r.w.Stat(name, options...)
		put = func(f float64, _ int64, _ uint64) { h.Record(f) }
	case kind == "histogram":
		h := r.w.Histogram(name, append(options, writer.Buckets(r.low, r.high), writer.Scale(r.scale))...)
		put = func(f float64, _ int64, _ uint64) { h.RecordExemplar(f, r.exemplar()) }
	default:
		return nil, fmt.Errorf("shmts: kind: want one of %s, got %q", strings.Join(kinds, ", "), kind)
	}
	if r.w.Stats().DroppedSeries > before {
		return nil, fmt.Errorf("shmts: series %s: want room for it, and the same kind each time; got none: %w",
			text, cmp.Or(r.w.Err(), fmt.Errorf("the segments are full")))
	}
	return func(value string) error {
		f, i, u, err := r.parse(kind, value)
		if err == nil {
			put(f, i, u)
		}
		return err
	}, nil
}

// exemplar is of a record made now, in the trace that was given.
func (r *recorder) exemplar() writer.Exemplar {
	ex := r.trace
	ex.Time = time.Now()
	return ex
}

// readLines records line after line until the input ends, or the user ends it.
func (r *recorder) readLines(c *cli.Context, kind string) error {
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	lines := make(chan string)
	read := make(chan error, 1)
	go func() {
		in := bufio.NewScanner(c.App.Reader)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
		read <- in.Err()
	}()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil // what was recorded is recorded
		case err := <-read:
			if err != nil && err != io.EOF {
				return fmt.Errorf("shmts: standard input, line %d: %w", n, err)
			}
			return nil
		case line := <-lines:
			line = strings.TrimSpace(line)
			if line == "" || line[0] == '#' {
				continue
			}
			if err := r.line(kind, line); err != nil {
				r.rejected++
				fmt.Fprintf(c.App.ErrWriter, "line %d: %s\n", n, oneLine(err.Error()))
			}
		}
	}
}

// line records [KIND] NAME VALUE. The value is the last word: a name's labels may hold spaces.
func (r *recorder) line(kind, line string) error {
	if kind == "" {
		first, rest, ok := cutSpace(line)
		if !ok || !slices.Contains(kinds, first) {
			return fmt.Errorf("shmts: want KIND NAME VALUE with a KIND of %s, got %q", strings.Join(kinds, ", "), line)
		}
		kind, line = first, rest
	}
	at := strings.LastIndexAny(line, " \t")
	if at < 0 {
		return fmt.Errorf("shmts: want NAME VALUE, got %q", line)
	}
	if _, _, _, err := r.parse(kind, line[at+1:]); err != nil {
		return err // before a series is made for it
	}
	return r.record(kind, strings.TrimSpace(line[:at]), line[at+1:])
}

func cutSpace(s string) (before, after string, ok bool) {
	at := strings.IndexAny(s, " \t")
	if at < 0 {
		return s, "", false
	}
	return s[:at], strings.TrimSpace(s[at:]), true
}
