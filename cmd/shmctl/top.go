package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/reader"
)

// What top --json prints: one for each look.
type topJSON struct {
	Time     string          `json:"time" doc:"RFC 3339"`
	Segments map[string]int  `json:"segments" doc:"how many are alive, stalled, closed, dead, refused"`
	Bytes    int64           `json:"bytes" doc:"of all segments"`
	Series   []topSeriesJSON `json:"series"`
}

type topSeriesJSON struct {
	Segment   string            `json:"segment" doc:"id"`
	Job       string            `json:"job"`
	Instance  string            `json:"instance"`
	State     string            `json:"state" doc:"of the segment"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels"`
	Kind      string            `json:"kind"`
	Value     any               `json:"value,omitempty" doc:"counter, updown, gauge: the value; stat, histogram: the mean of the newest window in which something was recorded"`
	PerSecond *float64          `json:"per_second,omitempty" doc:"counter: its rate; updown: its change; stat, histogram: records a second; of the newest row's window"`
	Trend     []float64         `json:"trend" doc:"counter: rates, else values, oldest first, of the rows that there are"`
}

func topVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "top",
			Usage:     "watch series move: values, rates and trends",
			ArgsUsage: "[SEGMENT...]",
			Description: "On a terminal the screen is kept up to date: q or ^C ends it, space pauses, s changes the order, arrows, j, k, page up\n" +
				"and down scroll. Elsewhere, and with -n, looks are printed as plain text. Trends come from the segments' own rings, so\n" +
				"the first look has them: a counter's rates, anything else's values (of a stat or histogram, the means).\n" +
				"With --series it shows where the series are instead: names, labels and sources with the most, how full their segments are,\n" +
				"and what is dropped, and why. Those of a store are as they were recorded; with --url shmtsd says what it shows, and what its\n" +
				"metric_relabel_configs drop.",
			Flags: slices.Concat([]cli.Flag{storeFlag(), jsonFlag(),
				&cli.DurationFlag{Name: "interval", Aliases: []string{"d"}, Usage: "look each `DURATION`", Value: time.Second},
				&cli.IntFlag{Name: "n", Usage: "print `N` looks and end", DefaultText: "1 where there is no terminal"},
				&cli.StringFlag{Name: "sort", Usage: "by `KEY`: rate, name, source", Value: "rate"},
				&cli.StringFlag{Name: "match", Usage: "only `SERIES`: a name, in which * and ? stand for text, or name{label=\"value\"}"},
				&cli.IntFlag{Name: "rows", Usage: "print the first `N` series only"},
				&cli.BoolFlag{Name: "all", Usage: "closed and dead segments too"},
				&cli.BoolFlag{Name: "ascii", Usage: "sparklines in ASCII"},
				&cli.BoolFlag{Name: "series", Usage: "count series: by name, label, source, and what is dropped"},
				&cli.IntFlag{Name: "limit", Usage: "with --series: the first `N` of each list", Value: 10},
				&cli.StringFlag{Name: "url", Usage: "with --series: ask shmtsd, or any Prometheus, at `URL` or unix:///path of a socket", DefaultText: "the store itself is read"},
			}, clientFlags()),
			Action: topAction,
		},
		json: topJSON{}, lines: true, also: []alsoJSON{{"--series", censusJSON{}}},
		examples: []string{
			"shmctl top",
			"shmctl top --series # who has the most series, and how full the segments are",
			"shmctl top --series --url http://127.0.0.1:9465 -n 1 --limit 20",
			"shmctl top forwarder --match 'rx_*' -n 1",
		},
		complete: func(c *completion) []candidate {
			if c.flag == "sort" {
				return words(topOrders...)
			}
			return c.segments()
		},
	}
}

var topOrders = []string{"rate", "name", "source"}

// trendPoints is how much of a trend is kept.
const trendPoints = 60

// A track is one series, watched.
type track struct {
	g         *reader.Segment
	s         *reader.Series
	trend     []float64
	value     any
	perSecond float64

	last *reader.Value // in the newest row
	at   int64         // its mono time
	ep   uint16
}

// A watch follows every row of the tables' finest tiers, reading each once.
type watch struct {
	tracks map[*reader.Series]*track
	next   map[watchKey]uint64
}

type watchKey struct {
	g     *reader.Segment
	table int
}

func newWatch() *watch {
	return &watch{map[*reader.Series]*track{}, map[watchKey]uint64{}}
}

// look reads what the segments have published since the last look, and forgets those that have gone.
func (w *watch) look(list []*reader.Segment, match *pick) []*track {
	var tracks []*track
	seen := map[*reader.Series]*track{}
	keys := map[watchKey]uint64{}
	for _, g := range list {
		tables := make([][]*track, len(g.Tables()))
		for _, s := range g.Series() {
			if s.Retired || match != nil && !match.is(s) {
				continue
			}
			t := w.tracks[s]
			if t == nil {
				t = &track{g: g, s: s, perSecond: math.NaN()}
			}
			seen[s] = t
			tables[s.Table] = append(tables[s.Table], t)
			tracks = append(tracks, t)
		}
		for table, in := range tables {
			if len(in) == 0 || len(g.Tables()[table].Tiers) == 0 {
				continue
			}
			key := watchKey{g, table}
			from, known := w.next[key]
			if head := g.Head(table, 0); !known && head > trendPoints {
				from = head - trendPoints
			}
			for r := range g.Rows(table, 0, from) {
				for _, t := range in {
					t.add(r)
				}
				from = r.No + 1
			}
			keys[key] = from
		}
	}
	w.tracks, w.next = seen, keys
	return tracks
}

// add takes a row into the trend.
func (t *track) add(r *reader.Row) {
	v, ok := r.Value(t.s)
	if !ok {
		return
	}
	was, seconds := t.last, float64(r.Mono-t.at)/1e9
	if was == nil || t.ep != r.Epoch {
		was = nil
		// Born in this row's window: it changed from nothing.
		if t.s.Start >= r.Begin && t.s.Start < r.Time {
			was, seconds = &reader.Value{}, float64(r.Time-t.s.Start)/1e9
		}
	}
	if was != nil && seconds <= 0 { // the final row, right behind the one before: nothing to divide by
		was = nil
	}
	point, level := math.NaN(), t.s.Kind == reader.Gauge || t.s.Kind == reader.UpDown
	switch t.s.Kind {
	case reader.Stat, reader.Histogram:
		if was != nil && v.Count >= was.Count {
			n := float64(v.Count - was.Count)
			t.perSecond = n / seconds
			if n > 0 {
				point = (v.Sum - was.Sum) / n
				t.value = number(point, false)
			}
		}
	default:
		if was != nil {
			t.perSecond = (v.Float - was.Float) / seconds
			if t.s.Number == reader.U64 || t.s.Number == reader.I64 {
				t.perSecond = float64(v.Int-was.Int) / seconds
			}
		}
		t.value = scalar(&v)
		switch {
		case level && !v.Unset:
			point = v.Float
		case !level && was != nil:
			point = t.perSecond
		}
	}
	if t.s.Kind == reader.Gauge {
		t.perSecond = math.NaN()
	}
	if level || was != nil {
		t.trend = append(t.trend, point)
	}
	if len(t.trend) > trendPoints {
		t.trend = slices.Delete(t.trend, 0, len(t.trend)-trendPoints)
	}
	v.Buckets = nil // counts and sums are enough
	t.last, t.at, t.ep = &v, r.Mono, r.Epoch
}

// A topView is what top shows at one instant.
type topView struct {
	at     time.Time
	counts map[string]int
	bytes  int64
	tracks []*track
}

// A looker takes looks at the segments that the command line names.
type looker struct {
	v      *view
	words  []string
	all    bool
	match  *pick
	watch  *watch
	sort   string
	levels []rune
}

func (l *looker) look(first bool) (*topView, error) {
	t, shown, err := l.segments(first)
	if err != nil {
		return nil, err
	}
	t.tracks = l.watch.look(shown, l.match)
	sortTracks(t.tracks, l.sort)
	return t, nil
}

// segments are those to be shown, and the counts of all.
func (l *looker) segments(first bool) (*topView, []*reader.Segment, error) {
	if !first {
		if l.v.store != nil {
			if err := l.v.poll(); err != nil {
				return nil, nil, err
			}
		}
		for _, g := range l.v.loose {
			if err := g.Refresh(); err != nil {
				return nil, nil, err
			}
		}
	}
	list := l.v.all
	if len(l.words) > 0 {
		list = slices.Clone(l.v.loose)
		for _, word := range l.words {
			if !isPath(word) {
				list = append(list, matches(l.v.all, word)...)
			}
		}
		list = unique(list)
	}
	t := &topView{at: time.Now(), counts: map[string]int{"refused": len(l.v.refused)}}
	for _, s := range stateNames {
		t.counts[s] = 0
	}
	var shown []*reader.Segment
	for _, g := range list {
		t.counts[stateOf(g)]++
		t.bytes += g.Size()
		if l.all || !g.Liveness().Ended() || slices.Contains(l.v.loose, g) {
			shown = append(shown, g)
		}
	}
	return t, shown, nil
}

func unique(list []*reader.Segment) []*reader.Segment {
	seen := map[*reader.Segment]bool{}
	return slices.DeleteFunc(list, func(g *reader.Segment) bool {
		was := seen[g]
		seen[g] = true
		return was
	})
}

func sortTracks(tracks []*track, order string) {
	byName := func(a, b *track) int { return cmp.Compare(a.s.Name, b.s.Name) }
	bySource := func(a, b *track) int {
		return cmp.Or(cmp.Compare(a.g.Job(), b.g.Job()), cmp.Compare(a.g.Instance(), b.g.Instance()), cmp.Compare(a.g.ID(), b.g.ID()))
	}
	rate := func(t *track) float64 {
		if math.IsNaN(t.perSecond) {
			return -1
		}
		return math.Abs(t.perSecond)
	}
	slices.SortStableFunc(tracks, func(a, b *track) int {
		switch order {
		case "name":
			return cmp.Or(byName(a, b), bySource(a, b))
		case "source":
			return cmp.Or(bySource(a, b), byName(a, b))
		}
		return cmp.Or(cmp.Compare(rate(b), rate(a)), byName(a, b), bySource(a, b))
	})
}

func topAction(c *cli.Context) error {
	if !slices.Contains(topOrders, c.String("sort")) {
		return usagef(c, "sort: want %s, got %q", strings.Join(topOrders, ", "), c.String("sort"))
	}
	if d := c.Duration("interval"); d < 100*time.Millisecond {
		return usagef(c, "interval: want at least 100ms, got %v", d)
	}
	if c.IsSet("n") && c.Int("n") < 1 || c.Int("rows") < 0 {
		return usagef(c, "want -n of 1 or more and --rows of 0 or more, got %d and %d", c.Int("n"), c.Int("rows"))
	}
	if c.Bool("series") {
		return seriesAction(c)
	}
	for _, f := range []string{"limit", "url"} {
		if c.IsSet(f) {
			return usagef(c, "%s: want --series with it, got none", f)
		}
	}
	l, err := newLooker(c)
	if err != nil {
		return err
	}
	defer l.v.Close()
	if term, ok := openTerminal(c); ok && !c.IsSet("n") && !c.Bool("json") {
		return showOn(c, term, &watchBoard{l: l})
	}
	return l.print(c, max(1, c.Int("n")))
}

func newLooker(c *cli.Context) (l *looker, err error) {
	l = &looker{words: c.Args().Slice(), all: c.Bool("all"), watch: newWatch(), sort: c.String("sort"), levels: sparkLevels(c)}
	if c.IsSet("match") {
		p, err := parsePick(c.String("match"))
		if err != nil {
			return nil, usagef(c, "match: %s", strings.TrimPrefix(err.Error(), "shmts: "))
		}
		l.match = &p
	}
	if l.v, _, err = lookAt(c, l.words); err != nil {
		return nil, err
	}
	return l, nil
}

// looks prints n looks, an interval apart.
func looks(c *cli.Context, n int, look func(i int) error) error {
	for i := range n {
		if i > 0 {
			select {
			case <-c.Context.Done():
				return nil
			case <-time.After(c.Duration("interval")):
			}
		}
		if err := look(i); err != nil {
			return err
		}
		if err := flush(c); err != nil {
			return err
		}
	}
	return nil
}

// print prints n looks.
func (l *looker) print(c *cli.Context, n int) error {
	return looks(c, n, func(i int) error {
		t, err := l.look(i == 0)
		if err != nil {
			return err
		}
		if rows := c.Int("rows"); rows > 0 && len(t.tracks) > rows {
			t.tracks = t.tracks[:rows]
		}
		if c.Bool("json") {
			return printJSONLine(c, t.json())
		}
		if i > 0 {
			fmt.Fprintln(c.App.Writer)
		}
		fmt.Fprintln(c.App.Writer, t.title())
		for _, line := range t.lines(t.tracks, 30, l.levels) {
			fmt.Fprintln(c.App.Writer, line)
		}
		return nil
	})
}

func (t *topView) title() string {
	return fmt.Sprintf("%s  segments: %s; %s; %d series", t.at.UTC().Format("15:04:05Z"), countsText(t.counts), sizeText(t.bytes), len(t.tracks))
}

// countsText is how many segments are in which state.
func countsText(counts map[string]int) string {
	var out []string
	for _, s := range append(slices.Clone(stateNames), "refused") {
		if n := counts[s]; n > 0 || s == "alive" {
			out = append(out, fmt.Sprintf("%d %s", n, s))
		}
	}
	return strings.Join(out, ", ")
}

// lines lays tracks out, heading first, with trends of that width.
func (t *topView) lines(tracks []*track, width int, levels []rune) []string {
	g := newGrid("SOURCE", "SERIES", "KIND", ">VALUE", ">PER SECOND", "TREND")
	for _, k := range tracks {
		source := k.g.Job() + "/" + k.g.Instance()
		if l := k.g.Liveness(); l != reader.Alive {
			source += " (" + stateOf(k.g) + ")"
		}
		rate := ""
		if !math.IsNaN(k.perSecond) {
			rate = shortText(k.perSecond)
		}
		g.add(shorten(oneLine(source), 40), shorten(oneLine(seriesText(k.s.Name, k.s.Labels)), 60), k.s.Kind.String(), shortPart(k.value, partText(k.value), false), rate,
			spark(k.trend, width, levels))
	}
	return g.lines()
}

// shorten cuts the middle out of what is longer than n.
func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	head := (n - 2) / 2
	return string(r[:head]) + ".." + string(r[len(r)-(n-2-head):])
}

func (t *topView) json() topJSON {
	j := topJSON{Time: jsonTime(t.at.UnixNano()), Segments: t.counts, Bytes: t.bytes, Series: []topSeriesJSON{}}
	for _, k := range t.tracks {
		s := topSeriesJSON{Segment: k.g.ID(), Job: k.g.Job(), Instance: k.g.Instance(), State: stateOf(k.g), Name: k.s.Name,
			Labels: pairsMap(k.s.Labels), Kind: k.s.Kind.String(), Value: k.value, Trend: []float64{}}
		if !math.IsNaN(k.perSecond) && !math.IsInf(k.perSecond, 0) {
			s.PerSecond = &k.perSecond
		}
		for _, p := range k.trend {
			if !math.IsNaN(p) && !math.IsInf(p, 0) {
				s.Trend = append(s.Trend, p)
			}
		}
		j.Series = append(j.Series, s)
	}
	return j
}
