package spec_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/canon"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// manyArchives runs the reference reader over many archives in one process.
const manyArchives = `
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, ".")
import reference
out = {}
for path in sys.stdin.read().split("\n"):
    try:
        a = reference.Archive(path)
        out[path] = {"text": "".join(line + "\n" for line in reference.dump_archive(a)), "notes": a.notes}
    except reference.Refuse as e:
        out[path] = {"refuse": str(e)}
json.dump(out, sys.stdout)
`

// said is what the reference reader says of an archive.
type said struct {
	Text, Refuse string
	Notes        []string
}

func archivesInPython(t *testing.T, dirs []string) map[string]said {
	t.Helper()
	cmd := exec.Command(python(t), "-c", manyArchives)
	cmd.Stderr = os.Stderr
	cmd.Stdin = strings.NewReader(strings.Join(dirs, "\n"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]said
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// A scenario appends rows as a daemon would, of sources that come and go, are rewound and copied, whose tables grow and whose clocks are
// stepped back.
type scenario struct {
	r       *rand.Rand
	live    []*life
	schemas []*archive.Schema
}

type life struct {
	*archive.Source
	schema int
	no     uint64
	now    int64

	exemplar uint64
}

func (s *scenario) birth() *life {
	r := s.r
	l := &life{Source: &archive.Source{Key: archive.Key{Epoch: uint32(r.IntN(2)), Copy: uint32(r.IntN(2))}, Birth: 1_700_000_000_123_456_789 + r.Int64N(1e12), Inode: r.Uint64(), UID: 1000,
		Labels:     []reader.Pair{{Name: "instance", Value: fmt.Sprintf("i%d", r.IntN(5))}, {Name: "job", Value: "é\"x"}},
		Attributes: []reader.Pair{{Name: "host.name", Value: "h"}}}, schema: r.IntN(len(s.schemas))}
	for i := range 4 { // so that an extent is soon full
		l.Attributes = append(l.Attributes, reader.Pair{Name: fmt.Sprintf("z%d", i), Value: strings.Repeat(fmt.Sprintf("%08x", r.Uint32()), 100)})
	}
	for i := range l.Segment {
		l.Segment[i], l.Boot[i] = byte(r.Uint32()), 7
	}
	l.Group = l.Segment
	l.now = l.Birth / 1e6
	return l
}

// series are n of every kind.
func (s *scenario) series(n int) (all []*reader.Series) {
	shapes := []struct {
		kind   reader.Kind
		number reader.Number
	}{{reader.Counter, reader.U64}, {reader.Gauge, reader.F64}, {reader.Histogram, reader.F64}, {reader.Stat, reader.F64}, {reader.Gauge, reader.I64},
		{reader.UpDown, reader.I64}, {reader.Counter, reader.F64}, {reader.Histogram, reader.U64}}
	for i := range n {
		sh := shapes[i%len(shapes)]
		sr := &reader.Series{Definition: &reader.Definition{Name: fmt.Sprintf("s%d", i), Unit: "By", Help: "about\n", Kind: sh.kind, Number: sh.number, NonNegative: sh.kind == reader.Stat, Labels: []reader.Pair{{Name: "n", Value: fmt.Sprint(i)}}}}
		if sh.kind == reader.Histogram {
			sr.Buckets = layout.BucketRange{Scale: 1, Min: -3, Count: 5}
		}
		all = append(all, sr)
	}
	return all
}

func (s *scenario) rows(l *life, schema *archive.Schema, folded bool, step int64) archive.Rows {
	r := s.r
	n := 1 + r.IntN(12)
	rows := archive.Rows{Source: l.Source, Copied: r.IntN(6) == 0, Final: r.IntN(8) == 0}
	rows.Estimated = !rows.Final && r.IntN(8) == 0
	gaps := r.IntN(3) == 0
	for i := range n {
		l.no++
		if gaps {
			l.no += r.Uint64N(3)
		}
		l.now += step
		if r.IntN(20) == 0 {
			l.now -= 5 * step
		}
		no := l.no
		if folded {
			no = uint64(l.now / step)
			rows.Coverage = append(rows.Coverage, 1+uint64(i))
		}
		rows.Numbers, rows.Times = append(rows.Numbers, no), append(rows.Times, l.now)
	}
	rows.Base = l.no
	for i, sr := range schema.Series {
		rows.Starts = append(rows.Starts, l.Birth/1e6+int64(100*i))
		for _, f := range archive.Fields(sr.Kind, folded) {
			rows.Cells = append(rows.Cells, s.cells(sr, f, n))
			present := slices.Repeat([]bool{true}, n)
			for k := range present {
				present[k] = i%3 != 1 || r.IntN(4) > 0
			}
			rows.Present = append(rows.Present, present)
		}
	}
	return rows
}

func (s *scenario) cells(sr *reader.Series, f archive.Field, n int) (cells []uint64) {
	r := s.r
	float := sr.Number == reader.F64
	word := r.Uint64N(1000)
	for range n {
		word += r.Uint64N(9)
		switch {
		case f == archive.Hist:
			sum := word
			if float {
				sum = math.Float64bits(float64(word) / 4)
			}
			cells = append(cells, sum)
			for b := range sr.Buckets.Count + 2 {
				cells = append(cells, uint64(b)*word/3)
			}
			continue
		case f == archive.Count:
			cells = append(cells, word)
		case float || f == archive.Sum:
			v := float64(word) / 10
			if r.IntN(40) == 0 {
				v = []float64{math.NaN(), math.Inf(1), math.Copysign(0, -1), 1 / 3.0}[r.IntN(4)]
			}
			cells = append(cells, math.Float64bits(v))
		default:
			cells = append(cells, word-500)
		}
	}
	return cells
}

// exemplars are some of all that live.
func (s *scenario) exemplars() (parts []archive.Exemplars) {
	r := s.r
	for _, l := range s.live {
		p := archive.Exemplars{Source: l.Source, Schema: s.schemas[l.schema]}
		for range 1 + r.IntN(6) {
			l.exemplar += 1 + r.Uint64N(2)
			x := archive.Exemplar{Number: l.exemplar, Value: float64(r.IntN(1000)) / 8, Time: l.now*1e6 + r.Int64N(1e9)} // of the counter
			for i := range x.TraceID {
				x.TraceID[i] = byte(r.Uint32())
			}
			if r.IntN(3) > 0 {
				x.Series, x.SpanID = 2, [8]byte{byte(r.Uint32()), 7} // of the histogram
			}
			p.List = append(p.List, x)
		}
		parts = append(parts, p)
	}
	return parts
}

// write makes an archive in dir.
func write(t *testing.T, dir string, seed uint64, flushes int) {
	t.Helper()
	steps := []time.Duration{time.Second, 10 * time.Second}
	const size = 64 << 10
	a, err := archive.Open(archive.Options{Dir: dir, ExtentSize: size, Tiers: []archive.TierOptions{{Step: steps[0], Budget: 4096 + 4*size}, {Step: steps[1], Budget: 4096 + 2*size}}})
	if err != nil {
		t.Fatal(err)
	}
	s := &scenario{r: rand.New(rand.NewPCG(seed, 19))}
	for i, n := range []int{3, 8, 20} {
		all := s.series(n)
		for _, sr := range all {
			sr.Table = i / 2
		}
		schema, err := archive.NewSchema(i/2, "scalars", all)
		if err != nil {
			t.Fatal(err)
		}
		s.schemas = append(s.schemas, schema)
	}
	for range 6 {
		s.live = append(s.live, s.birth())
	}
	for flush := range flushes {
		tier := s.r.IntN(2)
		l := s.r.IntN(len(s.live))
		if s.r.IntN(4) == 0 {
			s.live[l] = s.birth()
		}
		if s.r.IntN(4) == 0 {
			s.live[l].schema = s.r.IntN(len(s.schemas))
		}
		schema := s.schemas[s.live[l].schema]
		b := &archive.Block{Schema: schema, Step: steps[tier], Folded: tier == 1}
		for _, other := range s.live {
			if other == s.live[l] || other.schema == s.live[l].schema && s.r.IntN(2) == 0 {
				b.Sources = append(b.Sources, s.rows(other, schema, b.Folded, steps[tier].Milliseconds()))
			}
		}
		if tier == 1 && s.r.IntN(5) == 0 {
			e := s.birth()
			e.Ephemeral = true
			b.Sources = b.Sources[:0]
			b.Sources = append(b.Sources, s.rows(e, schema, true, 10_000))
			for _, m := range s.live {
				b.Members = append(b.Members, m.Key)
			}
		}
		blocks := []*archive.Block{b}
		if s.r.IntN(6) == 0 { // what was written twice counts once
			blocks = append(blocks, b)
		}
		if err := a.Append(tier, blocks...); err != nil {
			t.Fatal(err)
		}
		if flush%3 == 0 {
			if err := a.AppendExemplars(s.exemplars()...); err != nil {
				t.Fatal(err)
			}
		}
		if flush%7 == 3 {
			if m := a.End(0); m.Generation > 0 {
				if err := a.SetMark(1, m); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func archiveText(t *testing.T, dir string) string {
	t.Helper()
	var b bytes.Buffer
	if err := canon.Archive(&b, dir); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return b.String()
}

// What the Go writer makes, both readers read, and say the same of every row and value.
func TestWrittenArchivesAgree(t *testing.T) {
	var dirs []string
	for seed := range uint64(6) {
		dir := filepath.Join(t.TempDir(), "a")
		write(t, dir, seed, []int{1, 10, 20, 30, 50, 80}[seed])
		dirs = append(dirs, dir)
	}
	said := archivesInPython(t, dirs)
	for i, dir := range dirs {
		want := archiveText(t, dir)
		if len(said[dir].Notes) > 0 || said[dir].Refuse != "" {
			t.Errorf("%d: want nothing to say, got %q, %q", i, said[dir].Refuse, said[dir].Notes)
		}
		diff(t, want, said[dir].Text)
	}
}

// withoutStarts leaves out of a text when series were registered: which of two blocks that say it is broken decides who is asked.
func withoutStarts(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "start ") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// facts are what a line says that can't become another. A row may hide no longer, a start be the birth.
func facts(line string) (all []string) {
	words := strings.Fields(line)
	switch words[0] {
	case "row", "start", "tier", "mark":
		return nil
	case "value": // a field may be missing
		for _, field := range words[4:] {
			all = append(all, strings.Join(append(words[:4:4], field), " "))
		}
		return all
	}
	return []string{line}
}

// With a bit turned over anywhere, both readers agree about what is left: never another value, only less.
func TestFlippedArchivesAgree(t *testing.T) {
	const flips = 60
	r := rand.New(rand.NewPCG(3, 3))
	from := filepath.Join(t.TempDir(), "a")
	write(t, from, 7, 40)
	whole, lines := map[string]bool{}, 0
	text := archiveText(t, from)
	if !strings.Contains(text, " used=2 ") && !strings.Contains(text, " used=3 ") {
		t.Fatal("want extents that are sealed, got none")
	}
	for line := range strings.Lines(text) {
		for _, f := range facts(line) {
			whole[f] = true
		}
		lines++
	}
	tiers, err := filepath.Glob(filepath.Join(from, "*.tier"))
	if err != nil || len(tiers) != 2 {
		t.Fatalf("want two tiers, got %q (%v)", tiers, err)
	}
	var dirs, where []string
	for i := range flips {
		dir := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		flipped := r.IntN(2)
		for k, path := range tiers {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if k == flipped {
				at := 4096 + r.IntN(len(b)-4096)
				for b[at] == 0 { // what says something
					at = 4096 + r.IntN(len(b)-4096)
				}
				b[at] ^= 1 << r.IntN(8)
				where = append(where, fmt.Sprintf("%s at %d", filepath.Base(path), at))
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		dirs = append(dirs, dir)
	}
	said := archivesInPython(t, dirs)
	fewer := 0
	for i, dir := range dirs {
		t.Run(where[i], func(t *testing.T) {
			got := archiveText(t, dir)
			if said[dir].Refuse != "" {
				t.Fatalf("refused: %s", said[dir].Refuse)
			}
			diff(t, withoutStarts(got), withoutStarts(said[dir].Text))
			left := 0
			for line := range strings.Lines(got) {
				left++
				for _, f := range facts(line) {
					if !whole[f] {
						t.Errorf("want nothing that was not there, got %s in %s", f, line)
					}
				}
			}
			if left < lines {
				fewer++
			}
		})
	}
	t.Logf("%d of %d left less", fewer, flips)
	if fewer < flips/10 {
		t.Errorf("want at least %d flips that leave less, got %d", flips/10, fewer)
	}
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}
