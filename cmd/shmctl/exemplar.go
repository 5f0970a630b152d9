package main

import (
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/shmts/shmts/reader"
	"github.com/urfave/cli/v2"
)

// What cat --exemplars --json prints an object a line of, and show --json a list.
type exemplarJSON struct {
	Segment    string            `json:"segment" doc:"id"`
	Number     uint64            `json:"number" doc:"position among the segment's exemplars, from 1"`
	Name       string            `json:"name" doc:"of the series"`
	Labels     map[string]string `json:"labels" doc:"its own"`
	Value      any               `json:"value" doc:"of a histogram what was observed, of a counter the amount that was added"`
	Time       string            `json:"time" doc:"RFC 3339"`
	AgeSeconds float64           `json:"age_seconds" doc:"since then"`
	TraceID    string            `json:"trace_id" doc:"32 hexadecimal digits"`
	SpanID     string            `json:"span_id,omitempty" doc:"16 hexadecimal digits; absent where none is known"`

	title string // of the series, for people
	at    int64
}

func exemplarOf(g *reader.Segment, x *reader.Exemplar, now time.Time) exemplarJSON {
	j := exemplarJSON{Segment: g.ID(), Number: x.Number, Name: x.Series.Name, Labels: pairsMap(x.Series.Labels), Value: number(x.Value, false),
		Time: jsonTime(x.Time), AgeSeconds: now.Sub(time.Unix(0, x.Time)).Seconds(), TraceID: hex.EncodeToString(x.TraceID[:]),
		title: seriesText(x.Series.Name, x.Series.Labels), at: x.Time}
	if x.SpanID != [8]byte{} {
		j.SpanID = hex.EncodeToString(x.SpanID[:])
	}
	return j
}

// cells are an exemplar's columns: exemplarHead.
func (j *exemplarJSON) cells() []string {
	return []string{strconv.FormatUint(j.Number, 10), j.title, partText(j.Value), ageText(time.Duration(j.AgeSeconds * 1e9)), j.TraceID, j.SpanID}
}

var exemplarHead = []string{">NUMBER", "SERIES", ">VALUE", ">AGE", "TRACE", "SPAN"}

// exemplars are those of a segment numbered from and up. A shadow keeps none: they are in the segment that never ticks, whose series it
// has. FORMAT.md 10.8.
func (v *view) exemplars(g *reader.Segment, from uint64) iter.Seq[*reader.Exemplar] {
	if !g.Shadow() || v.store == nil {
		return g.Exemplars(from)
	}
	for _, of := range v.store.Segments() {
		if of.ID() == g.ID() && !of.Shadow() {
			return of.ExemplarsAs(g, from)
		}
	}
	return func(func(*reader.Exemplar) bool) {}
}

// settle has the exemplars that were awaited passed over: who looks once does not wait for them.
func (v *view) settle(g *reader.Segment) error {
	if v.store != nil {
		for _, of := range v.store.Segments() {
			if of.ID() == g.ID() && of != g {
				if err := of.Refresh(); err != nil {
					return err
				}
			}
		}
	}
	return g.Refresh()
}

// An exemplarCursor is one segment, and how far its exemplars were printed.
type exemplarCursor struct {
	g    *reader.Segment
	next uint64
}

// catExemplars prints the exemplars of series instead of rows.
func catExemplars(c *cli.Context, v *view, list []*reader.Segment, picks []pick, begin, end int64) error {
	p := &exemplarPrinter{sheet{c: c, grid: newGrid(append([]string{"TIME"}, exemplarHead...)...)}}
	if c.String("format") == "csv" && !c.Bool("json") {
		p.csv = csv.NewWriter(c.App.Writer)
		p.csv.Write([]string{"time", "segment", "number", "series", "value", "trace_id", "span_id"})
	}
	var cursors []*exemplarCursor
	found := false
	for _, g := range list {
		cursors = append(cursors, &exemplarCursor{g: g})
		found = found || slices.ContainsFunc(g.Series(), func(s *reader.Series) bool { return picked(picks, s) })
		if err := v.settle(g); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("shmts: %s: no such series; shmctl show lists them", c.Args().First())
	}
	for _, cur := range cursors {
		if err := cur.print(p, v, picks, begin, end, c.Int("last")); err != nil {
			return err
		}
	}
	if !c.Bool("follow") {
		return p.done()
	}
	return p.follow(500*time.Millisecond, end, func() (ended bool, err error) {
		ended = true
		for _, cur := range cursors {
			if err := v.settle(cur.g); err != nil {
				return false, err
			}
			if err := cur.print(p, v, picks, begin, end, 0); err != nil {
				return false, err
			}
			ended = ended && cur.g.Liveness().Ended()
		}
		return ended, nil
	})
}

// print prints exemplars from next on in the window; the last n of them, if n is not 0.
func (cur *exemplarCursor) print(p *exemplarPrinter, v *view, picks []pick, begin, end int64, last int) error {
	var list []exemplarJSON
	now := time.Now()
	for x := range v.exemplars(cur.g, cur.next) {
		cur.next = x.Number + 1
		if picked(picks, x.Series) && x.Time >= begin && x.Time <= end {
			list = append(list, exemplarOf(cur.g, x, now))
		}
	}
	if last > 0 && len(list) > last {
		list = list[len(list)-last:]
	}
	for i := range list {
		if err := p.print(&list[i]); err != nil {
			return err
		}
	}
	return nil
}

// An exemplarPrinter prints them as text, CSV or JSON lines.
type exemplarPrinter struct {
	sheet
}

func (p *exemplarPrinter) print(j *exemplarJSON) error {
	switch {
	case p.c.Bool("json"):
		return printJSONLine(p.c, j)
	case p.csv != nil:
		return p.csv.Write([]string{j.Time, j.Segment, strconv.FormatUint(j.Number, 10), j.title, partText(j.Value), j.TraceID, j.SpanID})
	}
	p.grid.add(append([]string{timeText(j.at)}, j.cells()...)...)
	return nil
}

// traceOf reads the trace and the span that write is to leave with its values.
func traceOf(c *cli.Context) (trace [16]byte, span [8]byte, err error) {
	for _, f := range []struct {
		name string
		to   []byte
	}{{"trace", trace[:]}, {"span", span[:]}} {
		text := c.String(f.name)
		if text == "" {
			continue
		}
		if n, err := hex.Decode(f.to, []byte(text[:min(len(text), 2*len(f.to))])); err != nil || n != len(f.to) || len(text) != 2*n {
			return trace, span, usagef(c, "%s: want %d hexadecimal digits, got %q", f.name, 2*len(f.to), text)
		}
	}
	if c.IsSet("span") && trace == [16]byte{} {
		return trace, span, usagef(c, "span: want --trace with it, got none")
	}
	return trace, span, nil
}
