package archive

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

// plain is an archive of one source, a row of which is a counter's number, and a gauge where somebody set it.
type plain struct {
	*Archive
	t      *testing.T
	schema [2]*Schema // both series; the counter alone
	source *Source
	no     uint64
}

func newPlain(t *testing.T) *plain {
	p := &plain{t: t, source: &Source{Key: Key{Segment: [16]byte{7}}, Birth: 1e9, UID: 5, Labels: []reader.Pair{{Name: "instance", Value: "i"}, {Name: "job", Value: "j"}}}}
	list := []*reader.Series{{Definition: &reader.Definition{Name: "c", Kind: reader.Counter, Number: reader.U64}}, {Definition: &reader.Definition{Name: "g", Kind: reader.Gauge, Number: reader.F64}}}
	for i := range p.schema {
		var err error
		if p.schema[i], err = NewSchema(0, "t", list[:2-i]); err != nil {
			t.Fatal(err)
		}
	}
	p.Archive = mustOpen(t, Options{Dir: t.TempDir(), Tiers: []TierOptions{{time.Second, 4096 + 3*minExtentSize}}, ExtentSize: minExtentSize})
	t.Cleanup(func() { p.Close() })
	return p
}

// add writes rows of these seconds. The gauge is there in every second row; without, the schema has none.
func (p *plain) add(gauge bool, seconds ...int64) Mark {
	p.t.Helper()
	r := Rows{Source: p.source, Starts: []int64{1000, 1000}, Cells: make([][]uint64, 2), Present: make([][]bool, 2)}
	for i, s := range seconds {
		p.no++
		r.Numbers, r.Times = append(r.Numbers, p.no), append(r.Times, 1000*s)
		r.Cells[0], r.Cells[1] = append(r.Cells[0], p.no), append(r.Cells[1], math.Float64bits(float64(p.no)))
		r.Present[1] = append(r.Present[1], i%2 == 0)
	}
	r.Base = p.no
	schema := p.schema[0]
	if !gauge {
		schema = p.schema[1]
		r.Starts, r.Cells, r.Present = r.Starts[:1], r.Cells[:1], r.Present[:1]
	}
	at := p.End(0)
	if err := p.Append(0, &Block{Schema: schema, Step: time.Second, Sources: []Rows{r}}); err != nil {
		p.t.Fatal(err)
	}
	return at
}

// rows are the numbers of those from a second to another.
func (p *plain) rows(from, to int64) (numbers []uint64) {
	p.t.Helper()
	found, err := p.Select(context.Background(), Selection{From: 1000 * from, To: 1000 * to})
	if err != nil || len(found) > 1 {
		p.t.Fatal(len(found), err)
	}
	for _, inc := range found {
		for c, err := range p.Read(inc, 0, 0, 1000*from, 1000*to, []Column{{p.schema[0].Series[0], Last}}) {
			if err != nil {
				p.t.Fatal(err)
			}
			for i, no := range c.Numbers {
				if c.Cells[0][i] != no {
					p.t.Errorf("row %d: want its number, got %d", no, c.Cells[0][i])
				}
				numbers = append(numbers, no)
			}
		}
	}
	return numbers
}

// What is not there is refused, and not looked for.
func TestAskedForWhatIsNotThere(t *testing.T) {
	p := newPlain(t)
	p.add(true, 10, 11)
	found, err := p.Find(p.source.Segment)
	if err != nil || len(found) != 1 {
		t.Fatal(len(found), err)
	}
	inc := found[0]
	foreign := *inc
	foreign.parts = nil
	for _, c := range []struct {
		what        string
		inc         *Incarnation
		table, tier int
	}{{"table -1", inc, -1, 0}, {"table 1", inc, 1, 0}, {"tier -1", inc, 0, -1}, {"tier 1", inc, 0, 1}, {"another archive's", &foreign, 0, 0}} {
		n := 0
		for chunk, err := range p.Read(c.inc, c.table, c.tier, 0, 1<<60, nil) {
			if n++; chunk != nil || err == nil {
				t.Errorf("%s: want an error and nothing else, got %v, %v", c.what, chunk, err)
			}
		}
		if n != 1 {
			t.Errorf("%s: want one error, got %d", c.what, n)
		}
	}
	for _, tier := range []int{-1, 1} {
		n := 0
		for info, err := range p.Blocks(tier, Mark{}) {
			if n++; info != nil || err == nil {
				t.Errorf("blocks of tier %d: want an error, got %v", tier, info)
			}
		}
		if n != 1 {
			t.Errorf("blocks of tier %d: want one error, got %d", tier, n)
		}
	}
}

// A column that a block does not have is absent in all of its rows, whatever was read before it, and its neighbours are whole.
func TestAbsentColumns(t *testing.T) {
	p := newPlain(t)
	p.add(true, 10, 11, 12, 13)
	p.add(false, 14, 15, 16)
	p.add(true, 17, 18)
	p.add(false, 19)
	found, err := p.Find(p.source.Segment)
	if err != nil || len(found) != 1 {
		t.Fatal(len(found), err)
	}
	c, g := p.schema[0].Series[0], p.schema[0].Series[1]
	for range 2 { // with memory that was used
		var there []bool
		var values []uint64
		for chunk, err := range p.Read(found[0], 0, 0, 0, 1<<60, []Column{{g, Max}, {c, Last}, {g, Count}}) {
			if err != nil {
				t.Fatal(err)
			}
			for i, no := range chunk.Numbers {
				if chunk.Cells[1][i] != no || chunk.Present[1] != nil {
					t.Errorf("row %d: want the counter there, got %d, %v", no, chunk.Cells[1][i], chunk.Present[1])
				}
				is := chunk.Present[0] == nil || chunk.Present[0][i]
				if is && (chunk.Cells[0][i] != math.Float64bits(float64(no)) || chunk.Cells[2][i] != 1) {
					t.Errorf("row %d: want the gauge %d once, got %#x, %d times", no, no, chunk.Cells[0][i], chunk.Cells[2][i])
				}
				there = append(there, is)
				values = append(values, no)
			}
		}
		if want := []bool{true, false, true, false, false, false, false, true, false, false}; !slices.Equal(there, want) {
			t.Errorf("the gauge: want it there in %v, got %v", want, there)
		}
		if len(values) != 10 {
			t.Errorf("want 10 rows, got %v", values)
		}
	}
}

// Blocks are told from a mark on, also in the middle of an extent, and end when nobody wants more.
func TestBlocksFromAMark(t *testing.T) {
	p := newPlain(t)
	var marks []Mark
	for i := range int64(6) {
		if i == 3 {
			if err := p.turn(0, p.tiers[0]); err != nil {
				t.Fatal(err)
			}
		}
		if at := p.add(i%2 == 0, 10+i); i > 0 { // behind the schema and source that come with the first
			marks = append(marks, at)
		}
	}
	told := func(from Mark, most int) (seconds []int64) {
		for info, err := range p.Blocks(0, from) {
			if err != nil {
				t.Fatal(err)
			}
			if info.From != info.To || len(info.Sources) != 1 || info.Sources[0].Key != p.source.Key || info.Sources[0].Rows != 1 || info.Sources[0].Ended || info.Folded {
				t.Errorf("want a block of one row, got %+v", info)
			}
			if seconds = append(seconds, info.From/1000); len(seconds) == most {
				break
			}
		}
		return seconds
	}
	if got := told(Mark{}, 0); !slices.Equal(got, []int64{10, 11, 12, 13, 14, 15}) {
		t.Errorf("all: got %v", got)
	}
	for i, m := range marks {
		var want []int64
		for s := int64(11 + i); s <= 15; s++ {
			want = append(want, s)
		}
		if got := told(m, 0); !slices.Equal(got, want) {
			t.Errorf("from %+v: want %v, got %v", m, want, got)
		}
		if got := told(m, 1); !slices.Equal(got, want[:1]) {
			t.Errorf("one from %+v: want %v, got %v", m, want[:1], got)
		}
	}
	if got := told(p.End(0), 0); got != nil {
		t.Errorf("from the end: want none, got %v", got)
	}
}

// Rows behind which others step back to before the time that is asked for are hidden by those, in whatever block or extent they lie. Within that time
// all are answered: who asks sees that they step back.
func TestStepBack(t *testing.T) {
	p := newPlain(t)
	p.add(true, 100, 101, 102, 103) // rows 1 to 4
	p.add(false, 90, 91)            // 5, 6: the clock was stepped back
	if err := p.turn(0, p.tiers[0]); err != nil {
		t.Fatal(err)
	}
	p.add(true, 92, 93, 101, 102) // 7 to 10
	p.add(true, 80, 120)          // 11, 12: in one block
	for _, c := range []struct {
		from, to int64
		want     []uint64
	}{{0, 1000, []uint64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}}, {80, 80, []uint64{11}}, {85, 110, nil}, {100, 200, []uint64{12}}, {90, 93, nil}, {120, 121, []uint64{12}}, {121, 130, nil}} {
		if got := p.rows(c.from, c.to); !slices.Equal(got, c.want) {
			t.Errorf("%d to %d s: want rows %v, got %v", c.from, c.to, c.want, got)
		}
	}
}

// A word is a number as its series and field say.
func TestNumber(t *testing.T) {
	of := func(k reader.Kind, n reader.Number) *reader.Series {
		return &reader.Series{Definition: &reader.Definition{Kind: k, Number: n}}
	}
	minus := uint64(math.MaxUint64) // -1 as an i64
	for _, c := range []struct {
		s    *reader.Series
		f    Field
		word uint64
		want float64
	}{{of(reader.Counter, reader.U64), Last, 1 << 63, 1 << 63}, {of(reader.UpDown, reader.I64), Last, minus, -1}, {of(reader.Counter, reader.F64), Last, math.Float64bits(0.5), 0.5},
		{of(reader.Gauge, reader.I64), Min, minus, -1}, {of(reader.Gauge, reader.I64), Sum, math.Float64bits(-2), -2}, {of(reader.Gauge, reader.F64), Count, 3, 3},
		{of(reader.Gauge, reader.I64), Count, minus, math.MaxUint64}, {of(reader.Stat, reader.F64), Sum, math.Float64bits(1.5), 1.5}, {of(reader.Stat, reader.F64), Count, 9, 9}} {
		if got := Number(c.s, c.f, c.word); got != c.want {
			t.Errorf("kind %v, number %v, field %v: want %v, got %v", c.s.Kind, c.s.Number, c.f, c.want, got)
		}
	}
}
