package main

import (
	"encoding/csv"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/reader"
)

const asArchiver = "SHMCTL_TEST_ARCHIVER"

const birthMs = birth / 1e6

var archiveSeries = []*reader.Series{
	{Definition: &reader.Definition{Name: "rx_packets_total", Kind: reader.Counter, Number: reader.U64, Labels: []reader.Pair{{Name: "queue", Value: "0"}}}},
	{Definition: &reader.Definition{Name: "in_flight", Kind: reader.UpDown, Number: reader.I64}},
	{Definition: &reader.Definition{Name: "queue_depth", Kind: reader.Gauge, Number: reader.I64}},
	{Definition: &reader.Definition{Name: "temperature", Kind: reader.Gauge, Number: reader.F64}},
	{Definition: &reader.Definition{Name: "wait_seconds", Kind: reader.Stat, Number: reader.F64}},
	{Definition: &reader.Definition{Name: "latency_seconds", Kind: reader.Histogram, Number: reader.F64, Buckets: reader.BucketRange{Scale: 0, Min: -4, Count: 6}}},
}

func archiveSource(digit byte, job, instance string) *archive.Source {
	s := &archive.Source{Birth: birth + int64(digit), UID: 1000, Labels: []reader.Pair{{Name: "instance", Value: instance}, {Name: "job", Value: job}, {Name: "rack", Value: "r12"}},
		Attributes: []reader.Pair{{Name: "host.name", Value: "h1"}}}
	s.Segment[0], s.Segment[15] = digit<<4, 1
	s.Group[0] = digit
	return s
}

// archiveRows are rows number first on, of which every value follows from its number n: the counter is 100 n, the updown -n, gauges
// n/2-3 (whole, and not in every third row) and 20.5 + n, the stat has recorded n values, the histogram n in each bucket.
func archiveRows(src *archive.Source, first uint64, n int, folded bool) archive.Rows {
	r := archive.Rows{Source: src, Starts: make([]int64, len(archiveSeries))}
	step := int64(1000)
	if folded {
		step = 10_000
	}
	for k := range n {
		no := first + uint64(k)
		r.Numbers, r.Times = append(r.Numbers, no), append(r.Times, birthMs+int64(no)*step)
		if folded {
			r.Coverage = append(r.Coverage, 10)
		}
	}
	if folded {
		r.Coverage[0] = 3
	}
	r.Base = r.Numbers[n-1]
	for i, s := range archiveSeries {
		r.Starts[i] = birthMs
		for _, f := range archive.Fields(s.Kind, folded) {
			var cells []uint64
			present := make([]bool, n)
			for k, no := range r.Numbers {
				present[k] = s.Name != "queue_depth" || no%3 != 0
				w := float64(no)
				switch {
				case f == archive.Hist:
					cells = append(cells, math.Float64bits(w/4))
					for range s.Buckets.Count + 2 {
						cells = append(cells, no)
					}
				case s.Kind == reader.Counter:
					cells = append(cells, 100*no)
				case s.Kind == reader.UpDown:
					cells = append(cells, -no)
				case f == archive.Count:
					cells = append(cells, no)
				case s.Number == reader.I64 && f != archive.Sum:
					cells = append(cells, uint64(int64(no)/2-3))
				case f == archive.Sum:
					cells = append(cells, math.Float64bits(10*w))
				default:
					cells = append(cells, math.Float64bits(20.5+w))
				}
			}
			r.Cells, r.Present = append(r.Cells, cells), append(r.Present, present)
		}
	}
	return r
}

// newArchive makes an archive that says the same on every machine: 1 s and 10 s, two sources, one of which ended.
func newArchive(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "archive")
	a, err := archive.Open(archive.Options{Dir: dir, Now: func() time.Time { return time.Unix(0, birth) },
		Tiers: []archive.TierOptions{{Step: time.Second, Budget: 1 << 20}, {Step: 10 * time.Second, Budget: 1 << 20}}})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	schema, err := archive.NewSchema(0, "scalars", archiveSeries)
	if err != nil {
		t.Fatal(err)
	}
	forwarder, router := archiveSource(7, "forwarder", "eth0"), archiveSource(9, "router", "a/b")
	block := func(step time.Duration, folded bool, rows ...archive.Rows) *archive.Block {
		return &archive.Block{Schema: schema, Step: step, Folded: folded, Sources: rows}
	}
	last := archiveRows(forwarder, 31, 4, false)
	last.Final = true
	words := archiveRows(router, 1, 12, false)
	words.Estimated = true
	copied := archiveRows(router, 1, 2, true)
	copied.Copied = true
	for _, err := range []error{
		a.Append(0, block(time.Second, false, archiveRows(forwarder, 1, 30, false), words)),
		a.Append(0, block(time.Second, false, last)),
		a.Append(1, block(10*time.Second, true, archiveRows(forwarder, 1, 4, true), copied)),
		a.AppendExemplars(archiveExemplars(forwarder, schema, 1, 3), archiveExemplars(router, schema, 60, 2)),
		a.AppendExemplars(archiveExemplars(forwarder, schema, 4, 2)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// archiveExemplars are n from a number on, each second one of the counter, the others of the histogram: what they say follows from their number.
func archiveExemplars(src *archive.Source, schema *archive.Schema, first uint64, n int) archive.Exemplars {
	p := archive.Exemplars{Source: src, Schema: schema}
	for no := first; no < first+uint64(n); no++ {
		x := archive.Exemplar{Number: no, Value: float64(no) / 4, Time: birth + int64(no)*1e9 + 500_000_000, TraceID: [16]byte{1: byte(no), 15: 1}}
		if no%2 == 1 {
			x.Series, x.SpanID = 5, [8]byte{7, byte(no)}
		}
		p.List = append(p.List, x)
	}
	return p
}

func TestArchiveGolden(t *testing.T) {
	dir := newArchive(t)
	at := func(args ...string) []string { return slices.Insert(args, 2, dir) }
	for _, g := range []struct {
		file string
		args []string
	}{
		{"archive-ls.txt", at("archive", "ls")},
		{"archive-ls-all.txt", at("archive", "ls", "--extents", "--sources", "--blocks")},
		{"archive-ls.json", at("archive", "ls", "--extents", "--sources", "--blocks", "--json")},
		{"archive-cat.txt", at("archive", "cat", `rx_packets_total{job="forwarder",queue="0"}`, "-n", "3")},
		{"archive-cat-all.txt", at("archive", "cat", "*", "--last", "1")},
		{"archive-cat-folded.txt", at("archive", "cat", "*", "--tier", "10s", "--source", "forwarder", "-n", "4")},
		{"archive-cat.csv", at("archive", "cat", "*", "--format", "csv", "--last", "1", "--tier", "10s")},
		{"archive-cat-exemplars.txt", at("archive", "cat", "*", "--exemplars")},
		{"archive-cat-exemplars.csv", at("archive", "cat", "*", "--exemplars", "--format", "csv", "--source", "forwarder", "-n", "2")},
		{"archive-cat-exemplars.json", at("archive", "cat", "latency_seconds", "--exemplars", "--json", "--from", "1700000002")},
		{"archive-cat.json", at("archive", "cat", "*", "--json", "--last", "1", "--tier", "10s")},
	} {
		t.Run(g.file, func(t *testing.T) {
			golden(t, g.file, shmctl(t, "", g.args...).ok().out)
		})
	}
	shmctl(t, "", "archive", "check", dir).ok().contains(": sound")
}

func TestArchiveCat(t *testing.T) {
	dir := newArchive(t)
	cat := func(args ...string) []archiveSampleJSON {
		t.Helper()
		return decodeLines[archiveSampleJSON](shmctl(t, "", append([]string{"archive", "cat", dir, "--json"}, args...)...).ok())
	}
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"rx_*"}, 34 + 12}, {[]string{`rx_*{job="forwarder"}`}, 34}, {[]string{`rx_*{job="forwarder",queue="0",rack="r12"}`}, 34},
		{[]string{"rx_*", "--source", "forwarder/eth0"}, 34}, {[]string{"rx_*", "--source", "router/a/b"}, 12}, {[]string{"rx_*", "--source", "70"}, 34},
		{[]string{"rx_*", "--source", `{rack="r12"}`}, 46}, {[]string{"rx_*", "--source", "70", "--source", "router"}, 46}, {[]string{"rx_*", "--tier", "10s"}, 6},
		{[]string{"rx_*", "--from", "1700000030"}, 5}, {[]string{"rx_*", "--from", "1700000010", "--to", "1700000011"}, 4}, {[]string{"queue_depth", "--source", "70"}, 23},
		{[]string{"rx_*", "in_flight", "--source", "90", "-n", "5"}, 10},
	} {
		if got := len(cat(c.args...)); got != c.want {
			t.Errorf("%q: want %d rows, got %d", c.args, c.want, got)
		}
	}
	rows := cat("*", "--source", "70", "--last", "1")
	want := map[string]string{"rx_packets_total": "3400", "in_flight": "-34", "queue_depth": "14", "temperature": "54.5"}
	for _, r := range rows {
		if !r.Final || r.Row != 34 || r.Time != "2023-11-14T22:13:54Z" {
			t.Errorf("%s: want the final row, number 34, got %+v", r.Name, r)
		}
		if w, ok := want[r.Name]; ok && partText(r.Value) != w {
			t.Errorf("%s: want %s, got %v", r.Name, w, r.Value)
		}
		if r.Name == "latency_seconds" && (*r.Count != 34*8 || len(r.Buckets) != 6 || r.Sum != 8.5) {
			t.Errorf("latency: want 272 observations in all buckets, and a sum of 8.5, got %+v", r.valueJSON)
		}
	}
	folded := cat("temperature", "--tier", "10s", "--source", "70")
	if f := folded[0]; !f.Folded || f.Coverage != 3 || !f.Partial || f.Value != 21.5 || f.Sum != 10.0 || *f.Count != 1 || f.Min != 21.5 || f.Max != 21.5 {
		t.Errorf("want a partial row of 3, got %+v", f)
	}
	if f := folded[1]; f.Partial || f.Coverage != 10 {
		t.Errorf("want a whole row of 10, got %+v", f)
	}
	if f := cat("temperature", "--tier", "10s", "--source", "90")[0]; !f.Copied {
		t.Errorf("want rows that were copied, got %+v", f)
	}
	if f := cat("temperature", "--tier", "10s", "--source", "70", "--field", "max")[0]; f.Max != 21.5 || f.Value != nil || f.Min != nil {
		t.Errorf("want the greatest alone, got %+v", f)
	}
	// A histogram's quantiles are those of its row, also of the first one of a window.
	for _, from := range []string{"1700000009", "1700000001"} {
		text, err := csv.NewReader(strings.NewReader(shmctl(t, "", "archive", "cat", dir, "latency_seconds", "--source", "70", "--from", from, "--to", "1700000010", "--format", "csv").ok().out)).ReadAll()
		p50 := slices.Index(text[0], "p50")
		if err != nil || p50 < 0 || text[len(text)-1][p50] != text[1][p50] {
			t.Errorf("from %s: want the same p50 in each row, got %v, %v", from, text, err)
		}
	}
	for _, f := range []struct {
		says string
		args []string
	}{
		{"no source \"nobody\"", []string{"cat", dir, "*", "--source", "nobody"}}, {"no series tx_*", []string{"cat", dir, "tx_*"}},
		{"want one of 1s, 10s, got \"2s\"", []string{"cat", dir, "*", "--tier", "2s"}}, {"want one of 1s, 10s, got \"x\"", []string{"ls", dir, "--tier", "x"}},
		{"no such file", []string{"ls", dir + "x"}}, {"no source \"nobody\"", []string{"ls", dir, "nobody"}},
	} {
		shmctl(t, "", append([]string{"archive"}, f.args...)...).fails(exitFailed, "shmts: ", f.says)
	}
}

// Bytes that changed on the disk: what is left is shown, with a word, and check says where and what.
func TestArchiveDamaged(t *testing.T) {
	dir := newArchive(t)
	path := filepath.Join(dir, "1s.tier")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ls := decode[archiveLsJSON](shmctl(t, "", "archive", "ls", dir, "--blocks", "--json").ok())
	at := 4096 + int(ls.Blocks[0].Offset) + ls.Blocks[0].Bytes - 20
	b[at] ^= 0xff
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	shmctl(t, "", "archive", "check", dir).fails(exitDamaged, "1s.tier", "want", "got")
	o := shmctl(t, "", "archive", "check", dir, "--json")
	if c := decode[checkJSON](o); o.status != exitDamaged || c.OK || !c.Errors[0].Damage {
		t.Errorf("want damage, got %d, %+v", o.status, c)
	}
	cat := shmctl(t, "", "archive", "cat", dir, "*", "--source", "70", "--last", "1")
	cat.fails(exitDone).contains("34")
	empty := t.TempDir()
	shmctl(t, "", "archive", "check", empty).fails(exitUnchecked, "want files named <step>.tier, got none")
	shmctl(t, "", "archive", "check", dir+"x").fails(exitUnchecked, "no such file")
}

// Another process appends, and reuses extents, while this one looks: no error, and every value that is shown is right.
func TestArchiveWhileWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "archive")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asArchiver+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { // it ends when nobody listens to it
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	first := uint64(0)
	eventually(t, "extents to be reused", func() bool {
		o := shmctl(t, "", "archive", "ls", dir, "--json")
		if o.status != exitDone {
			return false
		}
		ls := decode[archiveLsJSON](o)
		return ls.Tiers[0].Generation > 15
	})
	for range 4 {
		o := shmctl(t, "", "archive", "cat", dir, "rx_packets_total", "temperature", "latency_seconds", "--json").ok()
		before := uint64(0)
		rows := decodeLines[archiveSampleJSON](o)
		for _, r := range rows {
			switch {
			case r.Name == "rx_packets_total" && r.Value != float64(100*r.Row), r.Name == "temperature" && r.Value != 20.5+float64(r.Row), r.Name == "latency_seconds" && *r.Count != 8*r.Row:
				t.Fatalf("want the values of row %d, got %+v", r.Row, r)
			case r.Name == "rx_packets_total" && r.Row <= before:
				t.Fatalf("want rows once and in order, got %d after %d", r.Row, before)
			case r.Name == "rx_packets_total":
				before = r.Row
			}
		}
		if len(rows) == 0 || rows[0].Row < first {
			t.Fatalf("want rows from %d on at least, got %d", first, len(rows))
		}
		first = rows[0].Row
		for _, args := range [][]string{{"ls"}, {"ls", "--sources", "--blocks", "--extents"}, {"check"}} {
			shmctl(t, "", append(append([]string{"archive"}, args...), dir)...).ok()
		}
		shmctl(t, "", "plan", "--from-archive", dir).ok().contains("1s", "A loss of power costs on average the last", "Measured over")
	}
}

// archiving is the child: it appends until its standard input ends.
func archiving(dir string) error {
	done := make(chan struct{})
	go func() {
		var b [1]byte
		os.Stdin.Read(b[:])
		close(done)
	}()
	a, err := archive.Open(archive.Options{Dir: dir, ExtentSize: 64 << 10, Tiers: []archive.TierOptions{{Step: time.Second, Budget: 4096 + 6<<16}}})
	if err != nil {
		return err
	}
	defer a.Close()
	schema, err := archive.NewSchema(0, "scalars", archiveSeries)
	if err != nil {
		return err
	}
	src := archiveSource(7, "forwarder", "eth0")
	for no := uint64(1); ; no += 60 {
		select {
		case <-done:
			return nil
		case <-time.After(time.Millisecond):
		}
		if err := a.Append(0, &archive.Block{Schema: schema, Step: time.Second, Sources: []archive.Rows{archiveRows(src, no, 60, false)}}); err != nil {
			return err
		}
	}
}

// What is planned without a word is what shmtsd does without a word.
func TestArchivePlanDefaults(t *testing.T) {
	c, err := config.Load(nil, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	var got []config.ArchiveTier
	for _, s := range strings.Split(archiveDefaults, ",") {
		step, size, _ := strings.Cut(s, "=")
		d, err := parseStep(step)
		n, sizeErr := parseSize(size)
		if err != nil || sizeErr != nil {
			t.Fatal(err, sizeErr)
		}
		got = append(got, config.ArchiveTier{Step: d, Budget: n})
	}
	if !slices.Equal(got, c.Archive.Tiers) {
		t.Errorf("want shmtsd's defaults, %v, got %v", c.Archive.Tiers, got)
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "512MiB": 512 << 20, "2GiB": 2 << 30, "3KiB": 3072, "7B": 7, "1TiB": 1 << 40} {
		if n, err := parseSize(text); err != nil || n != want {
			t.Errorf("%s: want %d, got %d, %v", text, want, n, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "x", "1PiB", "9999999TiB", "1.5GiB"} {
		if n, err := parseSize(text); err == nil {
			t.Errorf("%q: want an error, got %s", text, strconv.FormatInt(n, 10))
		}
	}
}

func TestParseStep(t *testing.T) {
	for text, want := range map[string]time.Duration{"10s": 10 * time.Second, "100ms": 100 * time.Millisecond, "1h30m": 90 * time.Minute, "2d": 48 * time.Hour, "1w": 168 * time.Hour, "2y": 730 * 24 * time.Hour} {
		if d, err := parseStep(text); err != nil || d != want {
			t.Errorf("%s: want %v, got %v, %v", text, want, d, err)
		}
	}
	for _, text := range []string{"", "5", "-5s", "1x", "d", "-1d", "1.5y", "200y", "99999999999d"} {
		if d, err := parseStep(text); err == nil {
			t.Errorf("%q: want an error, got %v", text, d)
		}
	}
}
