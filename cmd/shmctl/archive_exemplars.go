package main

import (
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/layout"
)

// What archive cat --exemplars --json prints, an object a line: exemplarJSON without an age, and whose it is.
type archiveExemplarJSON struct {
	Segment  string            `json:"segment"`
	Job      string            `json:"job"`
	Instance string            `json:"instance"`
	Number   uint64            `json:"number"`
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels"`
	Value    any               `json:"value"`
	Time     string            `json:"time"`
	TraceID  string            `json:"trace_id"`
	SpanID   string            `json:"span_id,omitempty"`

	title string // of the series, for people
	at    int64
}

func archiveExemplarOf(p *archive.Exemplars, x *archive.Exemplar) archiveExemplarJSON {
	s := p.Schema.Series[x.Series]
	j := archiveExemplarJSON{Segment: hex.EncodeToString(p.Source.Segment[:]), Job: layout.Value(p.Source.Labels, "job"), Instance: layout.Value(p.Source.Labels, "instance"),
		Number: x.Number, Name: s.Name, Labels: pairsMap(s.Labels), Value: number(x.Value, false), Time: jsonTime(x.Time), TraceID: hex.EncodeToString(x.TraceID[:]),
		title: seriesText(s.Name, s.Labels), at: x.Time}
	if x.SpanID != [8]byte{} {
		j.SpanID = hex.EncodeToString(x.SpanID[:])
	}
	return j
}

// wantedExemplars says whose are meant by words: everybody's without any.
func wantedExemplars(words []string) (func(*archive.Source) bool, error) {
	var all []wanted
	for _, word := range words {
		ways, err := wantedBy(word)
		if err != nil {
			return nil, err
		}
		all = append(all, ways...)
	}
	return func(s *archive.Source) bool {
		return len(all) == 0 || slices.ContainsFunc(all, func(w wanted) bool { return w.is(s) })
	}, nil
}

// catArchivedExemplars prints the exemplars of series instead of rows, in the order of their blocks; with --last, segment by segment.
func catArchivedExemplars(c *cli.Context, a archive.Reader, sel archive.Selection, picks []pick) error {
	is, err := wantedExemplars(c.StringSlice("source"))
	if err != nil {
		return err
	}
	out := &archiveExemplarPrinter{sheet: sheet{c: c, grid: newGrid("TIME", "JOB", "INSTANCE", ">NUMBER", "SERIES", ">VALUE", "TRACE", "SPAN")}}
	if c.String("format") == "csv" && !c.Bool("json") {
		out.csv = csv.NewWriter(c.App.Writer)
		if err := out.csv.Write([]string{"time", "segment", "job", "instance", "number", "series", "value", "trace_id", "span_id"}); err != nil {
			return err
		}
	}
	last, found := c.Int("last"), false
	kept := map[string][]archiveExemplarJSON{} // by segment, where only the last ones are wanted
	var order []string
	for p, err := range a.Exemplars(c.Context, sel) {
		if err != nil {
			return err
		}
		if !is(p.Source) {
			continue
		}
		for i := range p.List {
			s := p.Schema.Series[p.List[i].Series]
			if !slices.ContainsFunc(picks, func(pk pick) bool { return pk.isArchived(s, p.Source) }) {
				continue
			}
			found = true
			j := archiveExemplarOf(p, &p.List[i])
			if last == 0 {
				if err := out.print(&j); err != nil {
					return err
				}
				continue
			}
			if kept[j.Segment] == nil {
				order = append(order, j.Segment)
			}
			if kept[j.Segment] = append(kept[j.Segment], j); len(kept[j.Segment]) > last {
				kept[j.Segment] = kept[j.Segment][1:]
			}
		}
	}
	if !found {
		return fmt.Errorf("shmts: %s: no exemplar of %s in that time", c.Args().First(), strings.Join(c.Args().Tail(), ", "))
	}
	for _, segment := range order {
		for i := range kept[segment] {
			if err := out.print(&kept[segment][i]); err != nil {
				return err
			}
		}
	}
	warnSkipped(c, a)
	return out.done()
}

// An archiveExemplarPrinter prints exemplars as text, CSV or JSON lines.
type archiveExemplarPrinter struct {
	sheet
	rows int
}

func (p *archiveExemplarPrinter) print(j *archiveExemplarJSON) error {
	switch {
	case p.c.Bool("json"):
		return printJSONLine(p.c, j)
	case p.csv != nil:
		return p.csv.Write([]string{j.Time, j.Segment, j.Job, j.Instance, strconv.FormatUint(j.Number, 10), j.title, partText(j.Value), j.TraceID, j.SpanID})
	}
	p.grid.add(timeText(j.at), j.Job, j.Instance, digits(j.Number), j.title, partText(j.Value), j.TraceID, j.SpanID)
	if p.rows++; p.rows%heldLines == 0 {
		p.held()
	}
	return nil
}
