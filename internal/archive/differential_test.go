package archive_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/archivetest"
	"github.com/shmts/shmts/reader"
)

// life is one incarnation in a random world: its rows so far, of which any part may be appended.
type life struct {
	src   *archive.Source
	tiers []lifeTier
	grown int // how many of the world's schemas of table 0 it has grown to
}

// lifeTier is what was made of a life for a tier and table.
type lifeTier struct {
	numbers []uint64
	times   []int64
	bases   []uint64 // of folded rows
	done    int      // rows that were appended
	since   int      // and how many when the life last grew: rows before are not given again with more series
	ended   bool
}

// chance appends random blocks to archives that should be the same.
type chance struct {
	t       testing.TB
	r       *rand.Rand
	schemas [2][]*archive.Schema // by table; table 0 grows
	lives   []*life
	step    []time.Duration
	now     int64
}

func mustSchema(t testing.TB, table int, name string, series ...*reader.Series) *archive.Schema {
	s, err := archive.NewSchema(table, name, series)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newChance(t testing.TB, seed uint64, steps []time.Duration) *chance {
	c := &chance{t: t, r: rand.New(rand.NewPCG(seed, 7)), step: steps, now: 1_700_000_000_000}
	up := &reader.Series{Definition: &reader.Definition{Name: "up_total", Kind: reader.Counter, Number: reader.U64}}
	series := []*reader.Series{
		up,
		{Definition: &reader.Definition{Name: "temperature", Kind: reader.Gauge, Number: reader.F64, Labels: []reader.Pair{{Name: "zone", Value: "a"}}}},
		{Definition: &reader.Definition{Name: "temperature", Kind: reader.Gauge, Number: reader.F64, Labels: []reader.Pair{{Name: "zone", Value: "b"}}}},
		{Definition: &reader.Definition{Name: "size", Kind: reader.Gauge, Number: reader.I64}},
		{Definition: &reader.Definition{Name: "delay", Kind: reader.Stat, Number: reader.F64, NonNegative: true}},
		{Definition: &reader.Definition{Name: "open", Kind: reader.UpDown, Number: reader.I64}},
	}
	c.schemas[0] = []*archive.Schema{mustSchema(t, 0, "scalars", series[:3]...), mustSchema(t, 0, "scalars", series[:5]...),
		mustSchema(t, 0, "scalars", append(slices.Clone(series), up)...)} // retired, and registered again
	c.schemas[1] = []*archive.Schema{mustSchema(t, 1, "histograms", &reader.Series{Definition: &reader.Definition{Name: "took", Kind: reader.Histogram, Number: reader.F64, Buckets: reader.BucketRange{Scale: 3, Min: -4, Count: 9}}})}
	return c
}

func (c *chance) life() *life {
	i := uint64(len(c.lives))
	l := &life{tiers: make([]lifeTier, 2*len(c.step))}
	l.src = &archive.Source{Birth: c.now*1e6 + int64(c.r.IntN(1e9)), Inode: i, UID: 1000 + int(i/2%2), Group: [16]byte{2}, Boot: [16]byte{3}}
	l.src.Segment = [16]byte{byte(i / 3), 9}
	l.src.Epoch, l.src.Copy = uint32(i%3), uint32(i%3/2)
	l.src.Labels = []reader.Pair{{Name: "instance", Value: fmt.Sprint("vm-", i)}, {Name: "job", Value: fmt.Sprint("job-", i%4)}}
	if i%3 == 0 {
		l.src.Labels = append(l.src.Labels, reader.Pair{Name: "zone", Value: fmt.Sprint(i % 2)})
		l.src.Attributes = []reader.Pair{{Name: "host.name", Value: "h"}}
	}
	c.lives = append(c.lives, l)
	return l
}

// word is a value: of whom, of what, when.
func word(k archive.Key, s *reader.Series, f archive.Field, ms int64, cell int) uint64 {
	h := uint64(k.Segment[0])<<20 | uint64(k.Epoch)<<16 | uint64(f)<<8 | uint64(len(s.Name))
	for _, p := range s.Labels {
		h = h*31 + uint64(p.Value[0])
	}
	h = (h ^ uint64(ms)) * 0x9e3779b97f4a7c15
	return (h>>33)%5000 + uint64(cell)
}

func here(k archive.Key, s *reader.Series, f archive.Field, ms int64) bool {
	return s.Kind != reader.Gauge || word(k, s, f, ms, 0)%4 > 0
}

// rows makes the next rows of a life for a tier, or some that were appended already.
func (c *chance) rows(l *life, tier int, schema *archive.Schema, n int) archive.Rows {
	lt := &l.tiers[2*tier+schema.Table]
	for len(lt.numbers) < lt.done+n {
		t, no := c.now, uint64(1)
		if k := len(lt.numbers); k > 0 {
			t, no = lt.times[k-1]+c.step[tier].Milliseconds()+int64(c.r.IntN(3)), lt.numbers[k-1]+1
			switch back := l.src.Inode%2 == 0; c.r.IntN(60) {
			case 0:
				if !back {
					break
				}
				t -= c.step[tier].Milliseconds() * int64(c.r.IntN(50)) // the wall clock is stepped back
			case 1:
				no, t = no+4, t+4*c.step[tier].Milliseconds()
			}
		}
		base := no
		if tier > 0 {
			no = uint64((t + c.step[tier].Milliseconds() - 1) / c.step[tier].Milliseconds())
			base = uint64(len(lt.numbers)+1) * 10
		}
		lt.numbers, lt.times, lt.bases = append(lt.numbers, no), append(lt.times, t), append(lt.bases, base)
	}
	from := lt.done
	if c.r.IntN(8) == 0 && from > lt.since && l.src.Inode%2 == 1 {
		if again := c.r.IntN(min(from-lt.since, 9)) + 1; tier == 0 {
			from -= again // some once more, and then new ones
		} else if c.r.IntN(2) == 0 { // a folded part, once more
			from, n = from-again, again
		}
	}
	to := min(from+n, len(lt.numbers))
	lt.done = max(lt.done, to)
	out := archive.Rows{Source: l.src, Copied: c.r.IntN(20) == 0, Numbers: slices.Clone(lt.numbers[from:to]), Times: slices.Clone(lt.times[from:to]), Base: lt.bases[to-1]}
	if to == lt.done && c.r.IntN(20) == 0 {
		lt.ended = true
		out.Final, out.Estimated = to%2 == 0, to%2 == 1
	}
	for i, s := range schema.Series {
		again := slices.IndexFunc(schema.Series, func(o *reader.Series) bool { return o.Name == s.Name && slices.Equal(o.Labels, s.Labels) })
		out.Starts = append(out.Starts, l.src.Birth/1e6+int64(again*7)+int64(i-again))
		for _, f := range archive.Fields(s.Kind, tier > 0) {
			var cells []uint64
			var present []bool
			for k, t := range out.Times {
				width := 1
				if f == archive.Hist {
					width = s.Buckets.Count + 3
				}
				for cell := range width {
					cells = append(cells, word(l.src.Key, s, f, t, cell))
				}
				switch old := out.Times[k]%20000 < 10000; { // a series that was registered again is either
				case again != i:
					present = append(present, !old)
				case s.Name == "up_total" && len(schema.Series) > 6:
					present = append(present, old)
				default:
					present = append(present, here(l.src.Key, s, f, t))
				}
			}
			out.Cells, out.Present = append(out.Cells, cells), append(out.Present, present)
		}
	}
	if tier > 0 {
		for _, t := range out.Times {
			out.Coverage = append(out.Coverage, uint64(t%11))
		}
	}
	return out
}

// block makes a block for a tier, of lives of one uid and schema.
func (c *chance) block(tier int) *archive.Block {
	for len(c.lives) < 6 || c.r.IntN(25) == 0 {
		c.life()
	}
	c.now += int64(c.r.IntN(4000))
	table := c.r.IntN(4) / 3
	uid := c.r.IntN(2) + 1000
	b := &archive.Block{Step: c.step[tier], Folded: tier > 0}
	young := c.lives[max(0, len(c.lives)-12):]
	for _, i := range c.r.Perm(len(young)) {
		l := young[i]
		if c.r.IntN(50) == 0 {
			l.grown = min(l.grown+1, 2)
			for i := range l.tiers {
				l.tiers[i].since = l.tiers[i].done
			}
		}
		schema := c.schemas[table][min(l.grown, len(c.schemas[table])-1)]
		if l.src.UID != uid || b.Schema != nil && b.Schema != schema || len(b.Sources) == 5 || l.tiers[2*tier+table].ended {
			continue
		}
		b.Schema = schema
		b.Sources = append(b.Sources, c.rows(l, tier, schema, 1+c.r.IntN(30)))
	}
	if b.Schema == nil {
		return c.block(tier)
	}
	return b
}

// ephemeral makes a block of an ephemeral source, with members.
func (c *chance) ephemeral(tier int) *archive.Block {
	b := c.block(tier)
	b.Sources = b.Sources[:1]
	src := *b.Sources[0].Source
	src.Ephemeral, src.Segment[15] = true, 1
	src.Labels = []reader.Pair{{Name: "instance", Value: "ephemeral"}, {Name: "job", Value: "job-1"}}
	b.Sources[0].Source = &src
	for i := range c.r.IntN(5) {
		b.Members = append(b.Members, archive.Key{Segment: [16]byte{byte(i)}, Epoch: 1, Copy: uint32(i)})
	}
	return b
}

// tell writes down what an archive answered.
func tell(all []*archive.Incarnation) string {
	var w strings.Builder
	for _, inc := range all {
		fmt.Fprintf(&w, "%+v\n", *inc.Source)
		order := make([]int, len(inc.Series))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(i, j int) int {
			return cmp.Compare(archivetest.Identity(inc.Series[i]), archivetest.Identity(inc.Series[j]))
		})
		for _, i := range order {
			fmt.Fprintf(&w, "  %s since %d\n", archivetest.Identity(inc.Series[i]), inc.Starts[i])
		}
		fmt.Fprintf(&w, "  ended %d %+v\n", inc.Ended, inc.Tables)
	}
	return w.String()
}

func tellRows(t testing.TB, a archive.Reader, inc *archive.Incarnation, table, tier int, from, to int64, columns []archive.Column) string {
	var w strings.Builder
	for c, err := range a.Read(inc, table, tier, from, to, columns) {
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(c.Cells, func(cells []uint64) bool { return cells != nil }) {
			continue // of a schema that has none of it
		}
		fmt.Fprintf(&w, "folded %v copied %v final %v estimated %v base %d coverage %v\n", c.Folded, c.Copied, c.Final, c.Estimated, c.Base, c.Coverage)
		for i := range c.Numbers {
			fmt.Fprintf(&w, "  %d at %d:", c.Numbers[i], c.Times[i])
			for k := range c.Cells {
				width := len(c.Cells[k]) / len(c.Numbers)
				if width == 0 || c.Present[k] != nil && !c.Present[k][i] {
					fmt.Fprint(&w, " -")
					continue
				}
				fmt.Fprint(&w, " ", c.Cells[k][i*width:(i+1)*width])
			}
			fmt.Fprintln(&w)
		}
	}
	return w.String()
}

func same(t testing.TB, what, want, got string) {
	t.Helper()
	if want == got {
		return
	}
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := 0; i < len(w) || i < len(g); i++ {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			from := max(i-3, 0)
			t.Fatalf("%s: line %d of %d and %d:\nwant %s\ngot  %s", what, i, len(w), len(g), strings.Join(w[min(from, len(w)):min(i+3, len(w))], "\n     "), strings.Join(g[min(from, len(g)):min(i+3, len(g))], "\n     "))
		}
	}
}

// compare asks both the same.
func (c *chance) compare(model *archivetest.Memory, real archive.Reader, times int) {
	t := c.t
	ctx := context.Background()
	for range times {
		s := archive.Selection{From: c.now - int64(c.r.IntN(400_000)), To: c.now}
		switch c.r.IntN(4) {
		case 0:
			s.To = s.From + int64(c.r.IntN(50_000))
		case 1:
			s.From, s.To = 0, 1<<60
		}
		what := fmt.Sprintf("select %d to %d", s.From, s.To)
		if c.r.IntN(2) == 0 {
			v := fmt.Sprint("job-", c.r.IntN(5))
			s.Labels = append(s.Labels, archive.Matcher{Name: "job", Equal: v, Match: func(s string) bool { return s == v }})
			what += " job=" + v
		}
		if c.r.IntN(4) == 0 {
			re := regexp.MustCompile(fmt.Sprintf("^vm-.*%d$", c.r.IntN(10)))
			s.Labels = append(s.Labels, archive.Matcher{Name: "instance", Match: re.MatchString})
			what += " instance=~" + re.String()
		}
		if c.r.IntN(4) == 0 {
			s.Labels = append(s.Labels, archive.Matcher{Name: "zone", Equal: "1", Match: func(s string) bool { return s == "1" }})
			what += " zone=1"
		}
		if c.r.IntN(4) == 0 {
			s.Labels = append(s.Labels, archive.Matcher{Name: "zone", Match: func(s string) bool { return s != "0" }})
			what += " zone!=0"
		}
		if c.r.IntN(4) == 0 {
			uid := 1000 + c.r.IntN(2)
			s.UID = func(u int) bool { return u == uid }
			what += fmt.Sprint(" uid=", uid)
		}
		var columns []archive.Column
		if c.r.IntN(2) == 0 {
			schema := c.schemas[c.r.IntN(2)]
			all := schema[len(schema)-1].Series
			one := all[c.r.IntN(len(all))]
			s.Schema = func(s *archive.Schema) bool {
				return slices.ContainsFunc(s.Series, func(x *reader.Series) bool { return archivetest.Identity(x) == archivetest.Identity(one) })
			}
			columns = []archive.Column{{Series: one, Field: archive.Fields(one.Kind, true)[c.r.IntN(len(archive.Fields(one.Kind, true)))]}}
			what += " with " + archivetest.Identity(one)
		}
		if c.r.IntN(3) == 0 {
			s.Tiers = []int{c.r.IntN(len(c.step))}
			what += fmt.Sprint(" in ", s.Tiers)
		}
		want, err := model.Select(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := real.Select(ctx, s)
		if err != nil {
			t.Fatal(err)
		}
		same(t, what, tell(want), tell(got))
		if n := len(want); n > 1 {
			s.Limit = 1 + c.r.IntN(n-1)
			if some, err := real.Select(ctx, s); !errors.Is(err, archive.ErrTooMany) || len(some) != s.Limit {
				t.Fatalf("%s: limit %d: got %d and %v", what, s.Limit, len(some), err)
			}
		}
		c.read(what, model, real, want, got, s.From, s.To, columns)
		l := c.lives[c.r.IntN(len(c.lives))]
		if want, err = model.Find(l.src.Segment); err != nil {
			t.Fatal(err)
		}
		if got, err = real.Find(l.src.Segment); err != nil {
			t.Fatal(err)
		}
		same(t, "find", tell(want), tell(got))
		c.read("find", model, real, want, got, c.now-100_000, c.now, nil)
		tier, from := c.r.IntN(len(c.step)), c.now-int64(c.r.IntN(400_000))
		if got, err = real.FindSince(l.src.Segment, tier, from); err != nil {
			t.Fatal(err)
		}
		c.since(model, real, want, got, tier, from)
	}
	for tier := range c.step {
		same(t, fmt.Sprint("blocks of ", tier), tellBlocks(t, model, tier, archive.Mark{}), tellBlocks(t, real, tier, archive.Mark{}))
	}
}

func (c *chance) read(what string, model, real archive.Reader, want, got []*archive.Incarnation, from, to int64, columns []archive.Column) {
	for i := range want {
		for table := range want[i].Tables {
			for tier := range want[i].Tables[table].Tiers {
				cols := columns
				if cols == nil {
					for _, s := range want[i].Series {
						if s.Table == table && c.r.IntN(2) == 0 {
							f := archive.Fields(s.Kind, true)
							cols = append(cols, archive.Column{Series: s, Field: f[c.r.IntN(len(f))]})
						}
					}
				}
				same(c.t, fmt.Sprintf("%s: read %d to %d of %x epoch %d, table %d, tier %d", what, from, to, want[i].Segment[:2], want[i].Epoch, table, tier),
					tellRows(c.t, model, want[i], table, tier, from, to, cols), tellRows(c.t, real, got[i], table, tier, from, to, cols))
			}
		}
	}
}

// since holds what FindSince found against everything that there is of a tier since then.
func (c *chance) since(model, real archive.Reader, want, got []*archive.Incarnation, tier int, from int64) {
	rows := func(a archive.Reader, inc *archive.Incarnation, table int, columns []archive.Column) string {
		if table >= len(inc.Tables) {
			return ""
		}
		at := slices.IndexFunc(inc.Tables[table].Tiers, func(tt archive.TableTier) bool { return tt.Tier == tier })
		if at < 0 {
			return ""
		}
		return tellRows(c.t, a, inc, table, at, from, math.MaxInt64, columns)
	}
	for _, inc := range want {
		at := slices.IndexFunc(got, func(x *archive.Incarnation) bool { return x.Key == inc.Key })
		for table := range inc.Tables {
			var columns []archive.Column
			for _, s := range inc.Series {
				if s.Table == table {
					columns = append(columns, archive.Column{Series: s, Field: archive.Fields(s.Kind, true)[0]})
				}
			}
			found := ""
			if at >= 0 {
				found = rows(real, got[at], table, columns)
			}
			same(c.t, fmt.Sprintf("since %d of %x epoch %d, table %d, tier %d", from, inc.Segment[:2], inc.Epoch, table, tier), rows(model, inc, table, columns), found)
		}
	}
}

func tellBlocks(t testing.TB, a archive.Reader, tier int, from archive.Mark) string {
	var w strings.Builder
	for b, err := range a.Blocks(tier, from) {
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&w, "%x %v %v %d %d %v\n", b.Schema.Hash, b.Step, b.Folded, b.From, b.To, b.Members)
		for _, s := range b.Sources {
			fmt.Fprintf(&w, "  %+v %+v %d %d %v\n", *s.Source, s.Position, s.First, s.Rows, s.Copied)
		}
	}
	return w.String()
}

// The archive answers what the simplest thing that could answers: sealed and not, opened again, by another process, and after eviction.
func TestAsMemory(t *testing.T) {
	steps := []time.Duration{time.Second, 10 * time.Second, 5 * time.Minute}
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := newChance(t, seed, steps)
			o := archive.Options{Dir: t.TempDir(), ExtentSize: 64 << 10}
			for _, step := range steps {
				extents := int64(3)
				if seed%2 == 0 {
					extents = 30
				}
				o.Tiers = append(o.Tiers, archive.TierOptions{Step: step, Budget: 4096 + extents*int64(o.ExtentSize)})
			}
			a, err := archive.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { a.Close() }()
			other, err := archive.OpenReader(o.Dir)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			model := archivetest.New(steps...)
			evicted := 0
			reuse := func(tier int, generation uint64) {
				n := 0
				for b, err := range a.Blocks(tier, archive.Mark{}) {
					if err != nil {
						t.Error(err)
					}
					if b.Generation == generation {
						n++
					}
				}
				model.Evict(tier, n)
				evicted += n
			}
			a.OnReuse(reuse)
			for i := range 300 {
				tier := c.r.IntN(4) % 3
				b := c.block(tier)
				if tier > 0 && c.r.IntN(20) == 0 {
					b = c.ephemeral(tier)
				}
				if err := a.Append(tier, b); err != nil {
					t.Fatal(err)
				}
				if err := model.Append(tier, b); err != nil {
					t.Fatal(err)
				}
				if i%40 != 39 {
					continue
				}
				c.compare(model, a, 4)
				c.compare(model, other, 4)
				if err := a.Close(); err != nil {
					t.Fatal(err)
				}
				if a, err = archive.Open(o); err != nil {
					t.Fatal(err)
				}
				a.OnReuse(reuse)
				c.compare(model, a, 2)
			}
			for tier, s := range a.Tiers() {
				if s.Skipped > 0 || other.Tiers()[tier].Skipped > 0 {
					t.Errorf("tier %d: want nothing skipped, got %d and %d", tier, s.Skipped, other.Tiers()[tier].Skipped)
				}
			}
			if g := a.Tiers()[0].Generation; g < 3 || seed%2 == 1 && evicted == 0 {
				t.Errorf("want extents sealed, and evicted, got generation %d and %d blocks evicted", g, evicted)
			}
		})
	}
}
