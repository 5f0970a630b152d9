package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/reader"
)

// What top --series --json prints: one for each look. Of a store, names and labels are as they were recorded; of shmtsd they are PromQL's,
// after its metric_relabel_configs.
type censusJSON struct {
	Time         string           `json:"time" doc:"RFC 3339"`
	From         string           `json:"from" doc:"the store's directory, or shmtsd's URL"`
	Segments     map[string]int   `json:"segments,omitempty" doc:"of a store: how many are alive, stalled, closed, dead, refused"`
	Series       int              `json:"series" doc:"live ones"`
	Pairs        int              `json:"label_pairs" doc:"different labels with a value"`
	Names        []nameCountJSON  `json:"names" doc:"the most series first, as in all that follow; at most --limit of each"`
	Labels       []labelCountJSON `json:"labels" doc:"by their number of values"`
	TopPairs     []pairCountJSON  `json:"top_label_pairs" doc:"by their number of series"`
	Sources      []sourceUseJSON  `json:"sources" doc:"job and instance, of one user; their segments together"`
	Dropped      []dropJSON       `json:"dropped" doc:"series that are not there, by the reason"`
	DroppedNames []dropJSON       `json:"dropped_names" doc:"the same by name, of what rules of shmtsd drop"`
	DroppedFrom  []dropJSON       `json:"dropped_sources" doc:"the same by source"`
}

type nameCountJSON struct {
	Name   string `json:"name"`
	Series uint64 `json:"series"`
}

type labelCountJSON struct {
	Name   string `json:"name"`
	Values uint64 `json:"values" doc:"different ones"`
	Bytes  uint64 `json:"bytes" doc:"of the values, once for each series"`
}

type pairCountJSON struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Series uint64 `json:"series"`
}

type sourceUseJSON struct {
	Job      string         `json:"job"`
	Instance string         `json:"instance"`
	UID      int            `json:"uid"`
	Series   int            `json:"series"`
	Segments int            `json:"segments"`
	Grown    int            `json:"grown_segments" doc:"of those, that a process opened because its first was full (FORMAT.md 10.7)"`
	Slots    useJSON        `json:"slots" doc:"series' descriptors: how many were ever used, and how many there are"`
	Heap     useJSON        `json:"heap_bytes" doc:"of names, units, help and labels"`
	Tables   []tableUseJSON `json:"tables"`
	Dropped  uint64         `json:"dropped_series" doc:"registrations that found no room in the segments"`
	Skipped  uint64         `json:"skipped_series" doc:"series that are not read: broken, or over a budget"`
}

type tableUseJSON struct {
	Name  string  `json:"name"`
	Cells useJSON `json:"cells" doc:"of a row"`
}

type useJSON struct {
	Used uint64 `json:"used"`
	Size uint64 `json:"size"`
}

type dropJSON struct {
	Reason   string `json:"reason" doc:"writer: no room in its segment, each registration counts; budget; corrupt; of shmtsd also relabel, nameless, invalid, collision"`
	Rule     int    `json:"rule,omitempty" doc:"of relabel: its number, from 1"`
	Action   string `json:"action,omitempty" doc:"of relabel: what it does"`
	Name     string `json:"name,omitempty"`
	Job      string `json:"job,omitempty"`
	Instance string `json:"instance,omitempty"`
	Series   uint64 `json:"series"`
}

// maxLimit is shmtsd's.
const maxLimit = 10_000

// census counts the series of segments. Lists are whole: see cut.
func census(list []*reader.Segment, match *pick) *censusJSON {
	type key struct {
		uid    int
		labels string
	}
	names, pairs := map[string]uint64{}, map[reader.Pair]uint64{}
	sources := map[key]*sourceUseJSON{}
	rooms := map[key]*reader.Room{}
	drops := map[dropJSON]uint64{}
	j := &censusJSON{}
	for _, g := range list {
		k := key{g.UID(), pairsText(g.Labels())}
		s := sources[k]
		if s == nil {
			s = &sourceUseJSON{Job: g.Job(), Instance: g.Instance(), UID: g.UID()}
			sources[k], rooms[k] = s, &reader.Room{}
		}
		if s.Segments++; g.Group() != g.ID() {
			s.Grown++
		}
		rooms[k].Add(g.Room())
		n := g.Counters()
		s.Dropped, s.Skipped = s.Dropped+n.DroppedSeries, s.Skipped+n.SkippedSeries
		for reason, count := range map[string]uint64{"writer": n.DroppedSeries, "budget": n.BudgetSeries, "corrupt": n.SkippedSeries - min(n.SkippedSeries, n.BudgetSeries)} {
			if count > 0 {
				drops[dropJSON{Reason: reason}] += count
				drops[dropJSON{Reason: reason, Job: s.Job, Instance: s.Instance}] += count
			}
		}
		before := s.Series
		for _, sr := range g.Series() {
			if sr.Retired || match != nil && !match.is(sr) {
				continue
			}
			s.Series++
			names[sr.Name]++
			for _, p := range sr.Labels {
				pairs[p]++
			}
		}
		if n := uint64(s.Series - before); n > 0 {
			j.Series += int(n)
			for _, p := range g.Labels() {
				pairs[p] += n
			}
		}
	}
	labels := map[string]*labelCountJSON{}
	for p, n := range pairs {
		l := labels[p.Name]
		if l == nil {
			l = &labelCountJSON{Name: p.Name}
			labels[p.Name] = l
		}
		l.Values++
		l.Bytes += n * uint64(len(p.Value))
		j.TopPairs = append(j.TopPairs, pairCountJSON{p.Name, p.Value, n})
	}
	j.Pairs = len(pairs)
	for name, n := range names {
		j.Names = append(j.Names, nameCountJSON{name, n})
	}
	for _, l := range labels {
		j.Labels = append(j.Labels, *l)
	}
	for k, s := range sources {
		r := rooms[k]
		s.Slots, s.Heap, s.Tables = useJSON(r.Series), useJSON(r.Heap), []tableUseJSON{}
		for _, t := range r.Tables {
			s.Tables = append(s.Tables, tableUseJSON{t.Name, useJSON(t.Cells)})
		}
		j.Sources = append(j.Sources, *s)
	}
	for d, n := range drops {
		d.Series = n
		if d.Job == "" && d.Instance == "" {
			j.Dropped = append(j.Dropped, d)
		} else {
			j.DroppedFrom = append(j.DroppedFrom, d)
		}
	}
	return j
}

// cut sorts the lists and leaves the first of each.
func (j *censusJSON) cut(limit int) {
	j.Names = most(j.Names, limit, func(a, b nameCountJSON) int {
		return cmp.Or(cmp.Compare(b.Series, a.Series), strings.Compare(a.Name, b.Name))
	})
	j.Labels = most(j.Labels, limit, func(a, b labelCountJSON) int {
		return cmp.Or(cmp.Compare(b.Values, a.Values), strings.Compare(a.Name, b.Name))
	})
	j.TopPairs = most(j.TopPairs, limit, func(a, b pairCountJSON) int {
		return cmp.Or(cmp.Compare(b.Series, a.Series), strings.Compare(a.Name, b.Name), strings.Compare(a.Value, b.Value))
	})
	j.Sources = most(j.Sources, limit, func(a, b sourceUseJSON) int {
		return cmp.Or(cmp.Compare(b.Series, a.Series), strings.Compare(a.Job, b.Job), strings.Compare(a.Instance, b.Instance), cmp.Compare(a.UID, b.UID))
	})
	for _, list := range []*[]dropJSON{&j.Dropped, &j.DroppedNames, &j.DroppedFrom} {
		*list = most(*list, limit, func(a, b dropJSON) int {
			return cmp.Or(cmp.Compare(b.Series, a.Series), strings.Compare(a.Name, b.Name), strings.Compare(a.Job, b.Job), strings.Compare(a.Instance, b.Instance),
				cmp.Compare(a.Rule, b.Rule), strings.Compare(a.Reason, b.Reason))
		})
	}
}

func most[T any](list []T, limit int, compare func(a, b T) int) []T {
	slices.SortFunc(list, compare)
	return append([]T{}, list[:min(limit, len(list))]...)
}

// tsdbStatus is what shmtsd answers to status/tsdb. What is under shmts no Prometheus has.
type tsdbStatus struct {
	HeadStats struct {
		NumSeries     int `json:"numSeries"`
		NumLabelPairs int `json:"numLabelPairs"`
	} `json:"headStats"`
	Names  []tsdbCount `json:"seriesCountByMetricName"`
	Labels []tsdbCount `json:"labelValueCountByLabelName"`
	Bytes  []tsdbCount `json:"memoryInBytesByLabelName"`
	Pairs  []tsdbCount `json:"seriesCountByLabelValuePair"`
	Shmts  struct {
		Dropped []tsdbDrop `json:"droppedSeries"`
		Names   []tsdbDrop `json:"droppedSeriesByMetricName"`
		From    []tsdbDrop `json:"droppedSeriesBySource"`
		Sources []struct {
			Job, Instance string
			UID           int
			Series        int
			Segments      int
			Grown         int            `json:"grownSegments"`
			Slots         useJSON        `json:"seriesSlots"`
			Heap          useJSON        `json:"heapBytes"`
			Tables        []tableUseJSON `json:"tables"`
			Dropped       uint64         `json:"droppedSeries"`
			Skipped       uint64         `json:"skippedSeries"`
		} `json:"sources"`
	} `json:"shmts"`
}

type tsdbCount struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

type tsdbDrop struct {
	Reason, Action, Name, Job, Instance string
	Rule                                int
	Value                               uint64
}

// askCensus has shmtsd count.
func askCensus(c *cli.Context, limit int) (*censusJSON, error) {
	answer, err := ask[tsdbStatus](c, http.MethodGet, "/api/v1/status/tsdb", url.Values{"limit": {strconv.Itoa(limit)}})
	if err != nil {
		return nil, err
	}
	s := &answer.Data
	j := &censusJSON{From: c.String("url"), Series: s.HeadStats.NumSeries, Pairs: s.HeadStats.NumLabelPairs}
	if u, err := url.Parse(j.From); err == nil {
		j.From = u.Redacted()
	}
	for _, n := range s.Names {
		j.Names = append(j.Names, nameCountJSON{n.Name, n.Value})
	}
	bytes := map[string]uint64{}
	for _, b := range s.Bytes {
		bytes[b.Name] = b.Value
	}
	for _, l := range s.Labels {
		j.Labels = append(j.Labels, labelCountJSON{l.Name, l.Value, bytes[l.Name]})
	}
	for _, p := range s.Pairs {
		name, value, _ := strings.Cut(p.Name, "=")
		j.TopPairs = append(j.TopPairs, pairCountJSON{name, value, p.Value})
	}
	for _, u := range s.Shmts.Sources {
		if u.Tables == nil {
			u.Tables = []tableUseJSON{}
		}
		j.Sources = append(j.Sources, sourceUseJSON(u))
	}
	for _, l := range []struct {
		from []tsdbDrop
		to   *[]dropJSON
	}{{s.Shmts.Dropped, &j.Dropped}, {s.Shmts.Names, &j.DroppedNames}, {s.Shmts.From, &j.DroppedFrom}} {
		for _, d := range l.from {
			*l.to = append(*l.to, dropJSON{d.Reason, d.Rule, d.Action, d.Name, d.Job, d.Instance, d.Value})
		}
	}
	return j, nil
}

// A counter takes looks at how many series there are.
type counter struct {
	c     *cli.Context
	l     *looker // nil: shmtsd is asked
	limit int
	j     *censusJSON
}

func (k *counter) look(first bool) (err error) {
	at := time.Now()
	if k.l == nil {
		if k.j, err = askCensus(k.c, k.limit); err != nil {
			return err
		}
	} else {
		t, shown, err := k.l.segments(first)
		if err != nil {
			return err
		}
		k.j = census(shown, k.l.match)
		k.j.From, k.j.Segments, at = k.l.v.dir, t.counts, t.at
	}
	k.j.Time = jsonTime(at.UnixNano())
	k.j.cut(k.limit)
	return nil
}

func (k *counter) title() string {
	at, _ := time.Parse(time.RFC3339Nano, k.j.Time)
	t := at.UTC().Format("15:04:05Z")
	if k.l != nil {
		t += "  segments: " + countsText(k.j.Segments) + ";"
	} else {
		t += "  " + k.j.From + ":"
	}
	t += fmt.Sprintf(" %s series", digits(uint64(k.j.Series)))
	dropped := uint64(0)
	for _, d := range k.j.Dropped {
		dropped += d.Series
	}
	if dropped > 0 {
		t += fmt.Sprintf(", %s dropped", digits(dropped))
	}
	return t
}

// lines are the lists, one below the other; heads are the numbers of the lines that head one.
func (k *counter) lines() (lines []string, heads []int) {
	put := func(g *grid) {
		if len(g.rows) == 0 {
			return
		}
		if len(lines) > 0 {
			lines = append(lines, "")
		}
		heads = append(heads, len(lines))
		lines = append(lines, g.lines()...)
	}
	n := func(n uint64) string { return digits(n) }
	g := newGrid(">SERIES", "NAME")
	for _, x := range k.j.Names {
		g.add(n(x.Series), shorten(oneLine(x.Name), 80))
	}
	put(g)
	g = newGrid(">VALUES", ">BYTES", "LABEL")
	for _, x := range k.j.Labels {
		g.add(n(x.Values), n(x.Bytes), shorten(oneLine(x.Name), 60))
	}
	put(g)
	g = newGrid(">SERIES", "LABEL PAIR")
	for _, x := range k.j.TopPairs {
		g.add(n(x.Series), shorten(oneLine(x.Name+"="+strconv.Quote(x.Value)), 80))
	}
	put(g)
	g = newGrid(">SERIES", "SOURCE", ">SEGMENTS", ">SLOTS", ">HEAP", "CELLS", ">DROPPED", ">SKIPPED")
	for _, x := range k.j.Sources {
		var tables []string
		for _, t := range x.Tables {
			tables = append(tables, t.Name+" "+useText(t.Cells))
		}
		segments := strconv.Itoa(x.Segments)
		if x.Grown > 0 {
			segments += fmt.Sprintf(" (%d grown)", x.Grown)
		}
		g.add(strconv.Itoa(x.Series), shorten(oneLine(x.Job+"/"+x.Instance), 40), segments, useText(x.Slots), useText(x.Heap), shorten(oneLine(strings.Join(tables, ", ")), 60),
			n(x.Dropped), n(x.Skipped))
	}
	put(g)
	g = newGrid(">DROPPED", "WHY", "WHICH")
	for _, list := range [][]dropJSON{k.j.Dropped, k.j.DroppedNames, k.j.DroppedFrom} {
		for _, d := range list {
			why, which := whyText(d), "all"
			switch {
			case d.Name != "":
				which = d.Name
			case d.Job != "" || d.Instance != "":
				which = d.Job + "/" + d.Instance
			}
			g.add(n(d.Series), why, shorten(oneLine(which), 60))
		}
	}
	put(g)
	return lines, heads
}

func useText(u useJSON) string { return digits(u.Used) + "/" + digits(u.Size) }

func whyText(d dropJSON) string {
	switch d.Reason {
	case "relabel":
		return fmt.Sprintf("rule %d: %s", d.Rule, d.Action)
	case "writer":
		return "no room in its segment"
	case "budget":
		return "no room in the budget"
	case "corrupt":
		return "broken"
	case "nameless":
		return "rules left no name"
	case "invalid":
		return "rules left a label that is none"
	case "collision":
		return "rules left another's labels"
	}
	return oneLine(d.Reason)
}

// seriesAction is top --series.
func seriesAction(c *cli.Context) error {
	for _, f := range []string{"sort", "rows", "ascii"} {
		if c.IsSet(f) {
			return usagef(c, "%s: want it without --series, got both", f)
		}
	}
	limit := c.Int("limit")
	if limit < 1 || limit > maxLimit {
		return usagef(c, "limit: want 1 to %d, got %d", maxLimit, limit)
	}
	k := &counter{c: c, limit: limit}
	if c.IsSet("url") {
		if c.NArg() > 0 || c.IsSet("match") || c.IsSet("all") {
			return usagef(c, "url: want no SEGMENT, --match or --all with it: shmtsd counts all that it shows")
		}
	} else {
		l, err := newLooker(c)
		if err != nil {
			return err
		}
		defer l.v.Close()
		k.l = l
	}
	if term, ok := openTerminal(c); ok && !c.IsSet("n") && !c.Bool("json") {
		return showOn(c, term, k)
	}
	return looks(c, max(1, c.Int("n")), func(i int) error {
		if err := k.look(i == 0); err != nil {
			return err
		}
		if c.Bool("json") {
			return printJSONLine(c, k.j)
		}
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		fmt.Fprintln(c.App.Writer, k.title())
		lines, _ := k.lines()
		for _, line := range lines {
			fmt.Fprintln(c.App.Writer, line)
		}
		return nil
	})
}

// The methods of board.

func (k *counter) rows() int {
	lines, _ := k.lines()
	return len(lines)
}

func (k *counter) key(string) {}

func (k *counter) frame(width, height, top int, paused bool) string {
	title := k.title()
	if paused {
		title += "; paused"
	}
	lines, heads := k.lines()
	below := lines[top:min(len(lines), top+max(0, height-2))]
	marked := make([]int, len(heads))
	for i, h := range heads {
		marked[i] = h - top + 1
	}
	return draw(width, height, append([]string{title}, below...), marked, "q quit   space pause   arrows scroll")
}
