package archive

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/reader"
)

// all are the numbers that a selection finds, by source.
func numbersOf(t *testing.T, a *Archive, s Selection) map[Key][]uint64 {
	t.Helper()
	out := map[Key][]uint64{}
	for p, err := range a.Exemplars(context.Background(), s) {
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range p.List {
			out[p.Source.Key] = append(out[p.Source.Key], x.Number)
		}
	}
	return out
}

var everything = Selection{From: math.MinInt64, To: math.MaxInt64}

// Exemplars are found by time, label, schema and user, in the open extent and in sealed ones alike, by the process that writes and by another.
func TestExemplarsSelected(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir(), Tiers: []TierOptions{{time.Second, 4096 + 64*minExtentSize}}, ExtentSize: minExtentSize}
	a := mustOpen(t, o)
	w, r := newWorld(t), rand.New(rand.NewPCG(3, 4))
	appended := map[Key][]uint64{}
	schemas := map[rowID]*Schema{}
	for i := range 90 {
		parts := w.exemplars(r, []int{0, 4, 8 + i%3*2}, 1+r.IntN(60))
		if err := a.AppendExemplars(parts...); err != nil {
			t.Fatal(err)
		}
		odd := w.exemplars(r, []int{1}, 3) // of another user
		if err := a.AppendExemplars(odd...); err != nil {
			t.Fatal(err)
		}
		for _, p := range append(parts, odd...) {
			for _, x := range p.List {
				appended[p.Source.Key] = append(appended[p.Source.Key], x.Number)
				schemas[rowID{p.Source.Key, x.Number}] = p.Schema
			}
		}
	}
	if n := a.Tiers()[0].Used; n < 4 {
		t.Fatalf("want extents that are sealed, got %d in use", n)
	}
	b, err := OpenReader(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	again := func() { // opened again, what is open is scanned
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a = mustOpen(t, o)
	}
	for range 2 {
		for _, c := range []struct {
			what string
			s    Selection
			want func(src *Source, no uint64) bool
		}{
			{"everything", everything, func(*Source, uint64) bool { return true }},
			{"a time", Selection{From: w.time(20), To: w.time(90)}, func(src *Source, no uint64) bool {
				x := w.exemplar(src.Key, no)
				return x.Time >= w.time(20)*1e6 && x.Time < w.time(90)*1e6+1e6
			}},
			{"a millisecond", Selection{From: w.time(33), To: w.time(33)}, func(_ *Source, no uint64) bool { return no == 33 }},
			{"a job", Selection{From: math.MinInt64, To: math.MaxInt64, Labels: []Matcher{{Name: "job", Equal: "job1", Match: func(v string) bool { return v == "job1" }}}},
				func(src *Source, _ uint64) bool { return src.Labels[1].Value == "job1" }},
			{"a pattern", Selection{From: math.MinInt64, To: math.MaxInt64, Labels: []Matcher{{Name: "instance", Match: func(v string) bool { return v != "vm4" }}}},
				func(src *Source, _ uint64) bool { return src.Labels[0].Value != "vm4" }},
			{"no such job", Selection{From: math.MinInt64, To: math.MaxInt64, Labels: []Matcher{{Name: "job", Equal: "none", Match: func(v string) bool { return v == "none" }}}},
				func(*Source, uint64) bool { return false }},
			{"a user", Selection{From: math.MinInt64, To: math.MaxInt64, UID: func(uid int) bool { return uid == 1001 }}, func(src *Source, _ uint64) bool { return src.UID == 1001 }},
			{"a schema", Selection{From: math.MinInt64, To: math.MaxInt64, Schema: func(s *Schema) bool { return len(s.Series) == 6 }},
				func(src *Source, no uint64) bool { return len(schemas[rowID{src.Key, no}].Series) == 6 }},
		} {
			for _, x := range []*Archive{a, b} {
				got := numbersOf(t, x, c.s)
				for key, all := range appended {
					src := w.source(int(le.Uint32(key.Segment[:])))
					want := slices.DeleteFunc(slices.Clone(all), func(no uint64) bool { return !c.want(src, no) })
					if !slices.Equal(got[key], want) {
						t.Errorf("%s: source %d: want %d, got %d", c.what, src.Inode, want, got[key])
					}
					delete(got, key)
				}
				if len(got) > 0 {
					t.Errorf("%s: want no others, got %v", c.what, got)
				}
			}
		}
		for key, all := range appended {
			for _, x := range []*Archive{a, b} {
				at, err := x.FindExemplars(key.Segment)
				if err != nil || len(at) != 1 || at[0].Key != key || at[0].Last != all[len(all)-1] {
					t.Errorf("position of %v: want %d, got %+v (%v)", key, all[len(all)-1], at, err)
				}
			}
		}
		if at, err := a.FindExemplars([16]byte{0xff}); err != nil || len(at) > 0 {
			t.Errorf("position of a segment that is not there: %v, %v", at, err)
		}
		again()
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for _, err := range Check(o.Dir) {
		t.Error(err)
	}
}

// Rows and exemplars of a source share its record and schema, also where one comes first; what was written twice counts once; and what is
// evicted is counted.
func TestExemplarsBesideRows(t *testing.T) {
	t.Parallel()
	o := Options{Dir: t.TempDir(), Tiers: testTiers[:1], ExtentSize: minExtentSize}
	a := mustOpen(t, o)
	w, r := newWorld(t), rand.New(rand.NewPCG(5, 6))
	parts := w.exemplars(r, []int{0, 2}, 5)
	parts[0].Schema, parts[1].Schema = w.schemas[2], w.schemas[2]
	if err := a.AppendExemplars(parts...); err != nil {
		t.Fatal(err)
	}
	before := a.End(0).Offset
	rows := w.block(r, w.schemas[2], false, []int{0, 2}, 3)
	if err := a.Append(0, rows); err != nil {
		t.Fatal(err)
	}
	m := a.tiers[0].open.mem
	if n, s := m.sources(), m.schemaCount(); n != 2 || s != 1 {
		t.Errorf("want 2 sources and a schema in the extent, got %d and %d", n, s)
	}
	grown := a.End(0).Offset - before
	if err := a.AppendExemplars(parts...); err != nil {
		t.Fatal(err)
	}
	if n := a.End(0).Offset - before - grown; n > 64+8+2*24+2*(5*(24+20)+40) {
		t.Errorf("want no labels twice, got a block of %d bytes", n)
	}
	checkWorld(t, w, a, 0, rowsOf(rows))
	for key, all := range numbersOf(t, a, everything) {
		if len(all) != 5 {
			t.Errorf("%v: want 5 exemplars, each once, got %d", key, all)
		}
	}
	if s := a.Tiers()[0]; s.Exemplars != 2 || s.EvictedExemplars != 0 || s.Blocks != 1 {
		t.Errorf("want 2 blocks of exemplars and one of rows, got %+v", s)
	}
	all := 20
	for a.Tiers()[0].Evicted == 0 {
		parts := w.exemplars(r, []int{0}, 100)
		if err := a.AppendExemplars(parts...); err != nil {
			t.Fatal(err)
		}
		all += 100
	}
	left := 0
	for _, list := range numbersOf(t, a, everything) {
		left += len(list)
	}
	if s := a.Tiers()[0]; int(s.EvictedExemplars)+left != all || left == 0 {
		t.Errorf("want %d evicted or left, got %d and %d", all, s.EvictedExemplars, left)
	}
}

// What makes no sense is refused, and said so; what does not fit too.
func TestAppendExemplarsRefuses(t *testing.T) {
	t.Parallel()
	a := mustOpen(t, Options{Dir: t.TempDir(), Tiers: testTiers[:1], ExtentSize: minExtentSize})
	w := newWorld(t)
	one := func(x ...Exemplar) Exemplars { return Exemplars{w.source(0), w.schemas[0], x} }
	for _, c := range []struct {
		what  string
		parts []Exemplars
		want  string
	}{
		{"no source", []Exemplars{{nil, w.schemas[0], []Exemplar{{Number: 1}}}}, "a source and a schema"},
		{"nothing", []Exemplars{one()}, "at least 1"},
		{"number 0", []Exemplars{one(Exemplar{})}, "number: want more than 0, got 0"},
		{"falling", []Exemplars{one(Exemplar{Number: 4}, Exemplar{Number: 4})}, "number: want more than 4, got 4"},
		{"a gauge", []Exemplars{one(Exemplar{Number: 4, Series: 1})}, "a counter or histogram of 3 series, got 1"},
		{"no series", []Exemplars{one(Exemplar{Number: 4, Series: 3})}, "got 3"},
		{"two users", []Exemplars{one(Exemplar{Number: 4}), {w.source(1), w.schemas[0], []Exemplar{{Number: 1}}}}, "uid: want 1000, got 1001"},
		{"twice", []Exemplars{one(Exemplar{Number: 4}), {w.source(0), w.schemas[1], []Exemplar{{Number: 5}}}}, "each source and table once"},
		{"many parts", slices.Repeat([]Exemplars{one(Exemplar{Number: 4})}, maxParts+1), "parts: want 1 to 1024, got 1025"},
		{"many", []Exemplars{one(make([]Exemplar, maxExemplars+1)...)}, "number"},
	} {
		if err := a.AppendExemplars(c.parts...); err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "shmts: archive: ") {
			t.Errorf("%s: want an error with %q, got %v", c.what, c.want, err)
		}
	}
	many := Exemplars{w.source(0), w.schemas[0], nil}
	for i := range 3000 {
		many.List = append(many.List, w.exemplar(many.Source.Key, uint64(i+1)))
		many.List[i].Series = 0
	}
	if err := a.AppendExemplars(many); !errors.Is(err, ErrTooLarge) {
		t.Errorf("want %v, got %v", ErrTooLarge, err)
	}
	if a.Tiers()[0].Used != 0 {
		t.Errorf("want nothing written, got %+v", a.Tiers()[0])
	}
	if err := a.AppendExemplars(); err != nil {
		t.Error(err)
	}
}

// FORMAT.md's worked example is what the encoder makes, and what is read back.
func TestExemplarsWorkedExample(t *testing.T) {
	page, err := os.ReadFile("../../spec/FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSchema(0, "t", slices.Repeat([]*reader.Series{{Definition: &reader.Definition{Name: "n", Kind: reader.Counter, Number: reader.U64}}}, 5))
	if err != nil {
		t.Fatal(err)
	}
	var e encoder
	h := e.exemplars([]Exemplars{{&Source{}, s, []Exemplar{{Number: 7, Series: 4, Time: 1_700_000_001e9, Value: 0.25}, {Number: 9, Series: 4, Time: 1_700_000_001e9 + 250e6, Value: 0.5}}}})
	run := e.out[BlockHeaderSize+h.Head+4:]
	for _, column := range []string{"18 0e 04 00", "10 08", "34 80 a8 a6 9c ce bf ce 97 2f 80 e5 9a 77 01 02", "98 02 32 32 00"} {
		want, err := hex.DecodeString(strings.ReplaceAll(column, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		rest, ok := bytes.CutPrefix(run, want)
		if !ok || !strings.Contains(string(page), "`"+column+"`") {
			t.Fatalf("want the column %s in the page and here, got % x", column, run)
		}
		run = rest
	}
	if len(bytes.TrimRight(run, "\x00")) > 0 || len(run) < 2*idsSize {
		t.Errorf("want %d bytes of ids behind the columns, got % x", 2*idsSize, run)
	}
}

// A context that ends, ends the search with its error.
func TestExemplarsCanceled(t *testing.T) {
	a := mustOpen(t, Options{Dir: t.TempDir(), Tiers: testTiers[:1], ExtentSize: minExtentSize})
	w, r := newWorld(t), rand.New(rand.NewPCG(5, 6))
	for range 3 {
		if err := a.AppendExemplars(w.exemplars(r, []int{0, 2}, 5)...); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := 0
	for _, err := range a.Exemplars(ctx, everything) {
		if n++; n == 1 && err == nil {
			cancel()
		} else if n > 2 && !errors.Is(err, context.Canceled) {
			t.Fatalf("item %d: want %v, got %v", n, context.Canceled, err)
		}
	}
	if n != 3 {
		t.Errorf("want the block that was begun and an error, got %d items", n)
	}
	cancel()
}
