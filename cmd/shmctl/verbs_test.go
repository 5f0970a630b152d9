package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/shadow"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/writer"
)

func TestGolden(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0", 7)
	for _, g := range []struct {
		file string
		args []string
	}{
		{"show.txt", []string{"show", "forwarder/eth0", "--help-text"}},
		{"show.json", []string{"show", "70", "--json"}},
		{"cat.txt", []string{"cat", "forwarder", "rx_packets_total"}},
		{"cat-stat.txt", []string{"cat", "forwarder", "wait_seconds", "--tier", "4s"}},
		{"cat-all.txt", []string{"cat", "forwarder", "*", "-n", "2"}},
		{"cat.csv", []string{"cat", "forwarder", "*", "--format", "csv", "--last", "1"}},
		{"cat.json", []string{"cat", "forwarder", "*", "--json", "--last", "1"}},
		{"cat-exemplars.txt", []string{"cat", "forwarder", "*", "--exemplars", "-n", "3"}},
		{"cat-exemplars.csv", []string{"cat", "forwarder", "latency_seconds", "--exemplars", "--format", "csv", "--from", "1700000003.5"}},
		{"cat-exemplars.json", []string{"cat", "forwarder", "*", "--exemplars", "--json", "--last", "1"}},
		{"dump.txt", []string{"dump", "7000"}},
		{"dump.json", []string{"dump", "7000", "--cells", "--section", "control", "--section", "rows", "--json"}},
		{"plan.txt", []string{"plan", "--lanes", "4", "--processes", "1000"}},
		{"plan.json", []string{"plan", "--json", "--counters", "60", "--gauges", "20", "--stats", "10", "--histograms", "10", "--lanes", "4"}},
	} {
		t.Run(g.file, func(t *testing.T) {
			golden(t, g.file, shmctl(t, store, g.args...).ok().out)
		})
	}
}

// What every closed, dead, stalled and living writer looks like, and a file that is none.
func TestLsStates(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "closed", "a", 1)
	dead, stalled, alive := startWriter(t, store, "dead"), startWriter(t, store, "stalled"), startWriter(t, store, "alive")
	dead.kill()
	stalled.stop()
	defer stalled.goOn()
	bad := filepath.Join(store, strconv.Itoa(os.Getuid()), "bad.00000000000000000000000000000bad.shmts")
	if err := os.WriteFile(bad, []byte("no segment"), 0o444); err != nil {
		t.Fatal(err)
	}
	var states map[string]string
	eventually(t, "a stalled writer", func() bool {
		o := shmctl(t, store, "ls", "--json")
		if o.status != exitDone {
			o.ok()
		}
		states = map[string]string{}
		list := decode[lsJSON](o)
		for _, s := range list.Segments {
			states[s.Job] = s.State
		}
		if len(list.Refused) != 1 || list.Refused[0].Path != bad || !strings.HasPrefix(list.Refused[0].Error, "shmts: ") {
			t.Fatalf("want %s refused with a reason, got %v", bad, list.Refused)
		}
		return states["stalled"] == "stalled"
	})
	for job, state := range map[string]string{"closed": "closed", "dead": "dead", "alive": "alive"} {
		if states[job] != state {
			t.Errorf("%s: want %s, got %s", job, state, states[job])
		}
	}
	o := shmctl(t, store, "ls")
	o.fails(exitDone, "shmts: refused "+bad).contains("JOB", "closed ", "dead ", strconv.Itoa(alive.cmd.Process.Pid))
	only := shmctl(t, store, "ls", "--state", "dead", "--state", "closed", "-q")
	if lines := strings.Fields(only.out); len(lines) != 2 || !strings.Contains(only.out, "/dead.") {
		t.Errorf("want the paths of the dead and the closed one, got %q", only.out)
	}
	shmctl(t, store, "ls", "alive/child").ok().contains("alive")
	shmctl(t, store, "ls", "nobody").fails(exitFailed, `no segment "nobody"`, store)
	shmctl(t, filepath.Join(store, "absent"), "ls").fails(exitFailed, "shmts: store:")
}

// A writer killed with SIGKILL: what it recorded after its last row is there, exact, and is said to be an estimate
// of the time.
func TestLastWords(t *testing.T) {
	store := newStore(t)
	w := startWriter(t, store, "victim", "NO_TICKER=1")
	eventually(t, "a row", func() bool {
		w.do("tick", 0)
		return len(decodeLines[sampleJSON](shmctl(t, store, "cat", "victim", "events_total", "--json"))) > 0
	})
	w.do("record", 234)
	w.kill()
	rows := decodeLines[sampleJSON](shmctl(t, store, "cat", "victim/child", "events_total", "--json").ok())
	last := rows[len(rows)-1]
	if !last.Estimated || last.Value != float64(1234) || last.Kind != "counter" {
		t.Errorf("want an estimated last row of 1234, got %+v", last)
	}
	for _, r := range rows[:len(rows)-1] {
		if r.Estimated || r.Value != float64(1000) {
			t.Errorf("want rows of 1000 before it, got %+v", r)
		}
	}
	shmctl(t, store, "cat", "victim", "events_total", "--last", "1").ok().contains("1234  estimated")
	shmctl(t, store, "show", "victim").ok().contains("dead, last row", "1234")
	shmctl(t, store, "check").ok().contains(": sound")
}

func TestCatWindows(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0", 7)
	count := func(args ...string) int {
		t.Helper()
		return len(decodeLines[sampleJSON](shmctl(t, store, append([]string{"cat", "forwarder", "rx_*", "--json"}, args...)...).ok()))
	}
	for _, w := range []struct {
		args []string
		want int
	}{
		{nil, 6}, {[]string{"-n", "2"}, 2}, {[]string{"--since", "1h"}, 0},
		{[]string{"--from", "1700000003"}, 4}, {[]string{"--to", "2023-11-14T22:13:22Z"}, 2},
		{[]string{"--from", "1700000002", "--to", "1700000003"}, 2}, {[]string{"--tier", "1"}, 2}, {[]string{"--tier=4s"}, 2},
		{[]string{"-f"}, 6}, // the writer has ended: follow ends too
	} {
		if got := count(w.args...); got != w.want {
			t.Errorf("%q: want %d rows, got %d", w.args, w.want, got)
		}
	}
	shmctl(t, store, "cat", "forwarder", "rx_*", "--tier", "2s").fails(exitFailed, "0 (1s), 1 (4s)", `"2s"`)
	shmctl(t, store, "cat", "forwarder", "tx_*").fails(exitFailed, "no series tx_*")
	shmctl(t, store, "cat", "forwarder", `rx_packets_total{queue="1"}`).fails(exitFailed, "no series")
	rows, err := csv.NewReader(strings.NewReader(shmctl(t, store, "cat", "forwarder", "rx_*", "--format", "csv").ok().out)).ReadAll()
	if err != nil || len(rows) != 7 || !slices.Equal(rows[0], []string{"time", "series", "value", "note"}) || rows[6][3] != "final" {
		t.Errorf("want a heading and 6 rows of CSV, got %v, %v", rows, err)
	}
}

// Follow prints rows as they come, and ends with the writer.
func TestCatFollow(t *testing.T) {
	store := newStore(t)
	w := startWriter(t, store, "live")
	cmd := command(store, "cat", "-f", "live", "events_total", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		b := make([]byte, 1<<16)
		for text := ""; ; {
			n, err := out.Read(b)
			text += string(b[:n])
			for at := strings.IndexByte(text, '\n'); at >= 0; at = strings.IndexByte(text, '\n') {
				lines <- text[:at]
				text = text[at+1:]
			}
			if err != nil {
				return
			}
		}
	}()
	wait := func(what string) bool {
		t.Helper()
		timeout := time.After(20 * time.Second)
		for {
			select {
			case line, ok := <-lines:
				if !ok {
					return false
				}
				if strings.Contains(line, what) {
					return true
				}
			case <-timeout:
				t.Fatalf("want a line with %s within 20 s", what)
			}
		}
	}
	wait(`"value":1000`)
	w.do("record", 5)
	if !wait(`"value":1005`) {
		t.Fatal("want a row of 1005 while the writer lives, got the end")
	}
	w.close()
	if !wait(`"final":true`) {
		t.Error("want the final row, got the end")
	}
	for range lines {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("want follow to end well with its writer, got %v", err)
	}
}

func TestCheckStatus(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0", 7)
	shmctl(t, store, "check").ok().contains(": sound")
	if o := shmctl(t, store, "check", "-q").ok(); o.out != "" {
		t.Errorf("want nothing of sound files, got %q", o.out)
	}
	path := strings.TrimSpace(shmctl(t, store, "ls", "-q").ok().out)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	image[0x10d] ^= 1 // in the section table: the header's checksum fails
	broken := filepath.Join(t.TempDir(), "broken.shmts")
	if err := os.WriteFile(broken, image, 0o444); err != nil {
		t.Fatal(err)
	}
	shmctl(t, store, "check", path, broken).fails(exitDamaged, broken+": shmts: corrupt segment", "superblock: want checksum").contains(path + ": sound")
	results := decodeLines[checkJSON](shmctl(t, store, "check", "--json", broken).fails(exitDamaged))
	if p := results[0]; p.OK || len(p.Errors) == 0 || p.Errors[0].Section != "superblock" || !p.Errors[0].Damage || p.Errors[0].Want == "" || p.Errors[0].Got == "" {
		t.Errorf("want a fault of the superblock with both sides, got %+v", p)
	}
	shmctl(t, store, "check", filepath.Join(store, "absent.shmts")).fails(exitUnchecked, "no such file")
	image[0x10d] ^= 1
	image[8] = 9 // another major version: nothing is wrong with it
	if err := os.WriteFile(broken+".shmts", image, 0o444); err != nil {
		t.Fatal(err)
	}
	shmctl(t, store, "check", broken+".shmts").fails(exitUnchecked, "another version")
	shmctl(t, store, "check", "nobody").fails(exitUnchecked, "no segment")
	// A file that the store refuses is found by its id, and by check of the whole store.
	refused := filepath.Join(filepath.Dir(path), "forwarder.ab000000000000000000000000000000.shmts")
	image[8], image[0x10d] = 1, image[0x10d]^1
	if err := os.WriteFile(refused, image, 0o444); err != nil {
		t.Fatal(err)
	}
	shmctl(t, store, "check").fails(exitDamaged, refused).contains(path + ": sound")
	shmctl(t, store, "check", "ab").fails(exitDamaged, refused)
	shmctl(t, store, "dump", "ab").fails(exitFailed, "want checksum").contains("superblock.magic")
	shmctl(t, store, "show", "ab").fails(exitFailed, "is refused", "checksum")
}

func TestRm(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "old", "a", 1)
	closedSegment(t, store, "old", "b", 2)
	w := startWriter(t, store, "alive")
	shmctl(t, store, "rm", "alive").fails(exitFailed, "closed or dead", "alive")
	w.kill()
	shmctl(t, store, "rm", "alive").fails(exitFailed, "ended at least 5s ago")
	shmctl(t, store, "rm", "old/a", "--older", "1s").fails(exitUsage, "at least 5s")
	dry := decodeLines[rmJSON](shmctl(t, store, "rm", "old", "--dry-run", "--json").ok())
	if len(dry) != 2 || dry[0].Removed {
		t.Errorf("want two that would be removed, got %+v", dry)
	}
	shmctl(t, store, "rm", "old/a").ok().contains("/old.10")
	if left := strings.Fields(shmctl(t, store, "ls", "-q").ok().out); len(left) != 2 {
		t.Errorf("want old/b and the dead one left, got %q", left)
	}
	done := decodeLines[rmJSON](shmctl(t, store, "rm", "--ended", "--json").ok())
	if len(done) != 1 || done[0].Instance != "b" || !done[0].Removed {
		t.Errorf("want old/b removed and nothing else, got %+v", done)
	}
	shmctl(t, store, "rm", "old").fails(exitFailed, "no segment")
}

func TestWrite(t *testing.T) {
	store := newStore(t)
	value := func(job, name string) seriesJSON {
		t.Helper()
		s := decode[showJSON](shmctl(t, store, "show", job, name, "--json").ok())
		return s.SeriesList[0]
	}
	o := shmctl(t, store, "write", "counter", "bytes_total", "5", "--label", "disk=a,b", "--job", "backup", "--unit", "By", "--describe", "Bytes kept.", "--json").ok()
	if r := decode[writeJSON](o); r.Records != 1 || r.Rejected != 0 || len(r.Paths) != 1 {
		t.Errorf("want one record in one segment, got %+v", r)
	}
	host, _ := os.Hostname()
	if s := value("backup/"+host, "bytes_total"); s.Value != float64(5) || s.Labels["disk"] != "a,b" || s.Unit != "By" || s.Help != "Bytes kept." {
		t.Errorf("want a counter of 5 By on disk a,b, got %+v", s)
	}
	shmctl(t, store, "cat", "backup", "bytes_total").ok().contains("final")
	// PromQL knows milliseconds: the counter was 0 in an earlier one.
	row := decode[sampleJSON](shmctl(t, store, "cat", "backup", "bytes_total", "--json").ok())
	begin, beginErr := time.Parse(time.RFC3339Nano, row.Begin)
	end, endErr := time.Parse(time.RFC3339Nano, row.Time)
	if beginErr != nil || endErr != nil || begin.UnixMilli() >= end.UnixMilli() {
		t.Errorf("want a final row in a later millisecond than birth, got %s and %s", row.Begin, row.Time)
	}
	shmctl(t, store, "write", "updown", "level", "-5", "--job", "u").ok()
	if s := value("u", "level"); s.Value != float64(-5) || s.Number != "i64" {
		t.Errorf("want -5, got %+v", s)
	}
	shmctl(t, store, "--store", store, "write", "--job=g", "gauge", `temp{room="a b",wall="\"n\""}`, "-1.5e3").ok()
	if s := value("g", "temp"); s.Value != -1500.0 || s.Labels["wall"] != `"n"` || s.Labels["room"] != "a b" {
		t.Errorf("want -1500 in room a b, got %+v", s)
	}
	shmctl(t, store, "write", "histogram", "lat", "0.5", "1.5", "99", "--buckets", "1:64", "--scale", "0", "--job", "h").ok()
	if s := value("h", "lat"); *s.Count != 3 || *s.Zero != 1 || *s.Above != 1 || len(s.Buckets) != 1 || s.Buckets[0] != (bucketJSON{1, 2, 1}) {
		t.Errorf("want one below, one in (1, 2] and one above, got %+v", s)
	}
	shmctl(t, store, "write", "counter", "cpu_seconds_total", "0.5", "0.25", "--float", "--job", "f").ok()
	if s := value("f", "cpu_seconds_total"); s.Value != 0.75 {
		t.Errorf("want 0.75, got %+v", s)
	}
	long := strings.Repeat("v", 1000)
	var many []string
	for i := range 20 {
		many = append(many, "--label", "label"+strconv.Itoa(i)+"="+long)
	}
	shmctl(t, store, append([]string{"write", "stat", "s", "1", "--job", "wide"}, many...)...).ok()
	if s := value("wide", "s"); len(s.Labels) != 20 || s.Labels["label19"] != long {
		t.Errorf("want 20 long labels, got %d", len(s.Labels))
	}
	// None of these leaves a segment.
	before := shmctl(t, store, "ls", "-q").ok().out
	shmctl(t, store, "write", "counter", "c", "0.5").fails(exitFailed, "whole number", `"0.5"`)
	shmctl(t, store, "write", "counter", "c", "-1").fails(exitFailed, "whole number", `"-1"`)
	shmctl(t, store, "write", "gauge", "c", "NaN").fails(exitFailed, "finite")
	shmctl(t, store, "write", "gauge", `c{a=b}`, "1").fails(exitFailed, "quoted")
	shmctl(t, store, "write", "histogram", "c", "1", "--buckets", "0:1").fails(exitUsage, "2^-511")
	shmctl(t, filepath.Join(store, "absent"), "write", "gauge", "c", "1").fails(exitFailed, "absent")
	if after := shmctl(t, store, "ls", "-q").ok().out; after != before {
		t.Errorf("want no further segment, got %q after %q", after, before)
	}
}

func TestWriteLines(t *testing.T) {
	store := newStore(t)
	in := "# a comment\n\nreq_total 3\nreq_total 4\nreq_total{m=\"a b\"}\t5\n"
	shmctlIn(t, in, store, "write", "counter", "-", "--job", "lines").ok()
	shmctl(t, store, "cat", "lines", "req_total*", "--last", "1").ok().contains("7  final", "5  final", `req_total{m="a b"}`)
	o := shmctlIn(t, "gauge g 1.5\nnonsense\ncounter c x\ncounter c 2\ncounter g 1\n", store, "write", "-", "--job", "mixed", "--json")
	o.fails(exitFailed, "line 2: shmts: want KIND NAME VALUE", `line 3: shmts: counter: want a whole number`, "line 5: ")
	if r := decode[writeJSON](o); r.Records != 2 || r.Rejected != 3 {
		t.Errorf("want 2 records and 3 lines rejected, got %+v", r)
	}
	shmctl(t, store, "cat", "mixed", "*", "--last", "1").ok().contains("1.5  final", "2  final")
}

// The size that plan prints is that of the file that is born.
func TestPlanIsTheFile(t *testing.T) {
	plan := func(stdin string, args ...string) planJSON {
		t.Helper()
		p := decode[planJSON](shmctlIn(t, stdin, "", append([]string{"plan", "--json"}, args...)...).ok())
		sum := uint64(0)
		for _, s := range p.Sections {
			if s.Offset != sum {
				t.Errorf("%q: section %s: want offset %d, the sum of those before, got %d", args, s.Name, sum, s.Offset)
			}
			sum += s.Bytes
		}
		if sum != p.TotalBytes {
			t.Errorf("%q: want sections that add up to %d, got %d", args, p.TotalBytes, sum)
		}
		rows, lanes := uint64(0), uint64(0)
		for _, table := range p.Tables {
			lanes += table.LanesBytes
			for _, tier := range table.Tiers {
				rows += tier.Bytes
			}
		}
		for _, s := range p.Sections {
			if s.Name == "rows" && s.Bytes != rows || s.Name == "lanes" && s.Bytes-lanes >= 64 {
				t.Errorf("%q: section %s: want what its tables take, %d rows and %d lanes, got %d", args, s.Name, rows, lanes, s.Bytes)
			}
		}
		return p
	}
	born := func(o writer.Options) uint64 {
		t.Helper()
		o.Dir, o.NoTicker = newStore(t), true
		w, err := writer.Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		st, err := os.Stat(w.Stats().Paths[0])
		if err != nil {
			t.Fatal(err)
		}
		return uint64(st.Size())
	}
	same := func(p planJSON, o writer.Options) {
		t.Helper()
		if size := born(o); p.TotalBytes != size {
			t.Errorf("want the size of the file that is born, %d, got %d", size, p.TotalBytes)
		}
	}
	src := writer.Options{Job: "job", Instance: "host.example.com:1234567"}
	same(plan(""), src)
	flags := src
	flags.Tables = []writer.Table{
		{Name: "scalars", Counters: 65, Gauges: 20, Stats: 10, Lanes: 3, Tiers: []writer.Tier{{Step: time.Second, Rows: 60}, {Step: time.Minute, Rows: 5}}},
		{Name: "histograms", Histograms: 10, Buckets: 40, Lanes: 3, Tiers: []writer.Tier{{Step: 10 * time.Second, Rows: 30}}},
	}
	same(plan("", "--counters", "60", "--updowns", "5", "--gauges", "20", "--stats", "10", "--histograms", "10", "--buckets", "40", "--lanes", "3",
		"--tier", "1s:60", "--tier", "1m:5"), flags)
	few := src
	few.Series, few.Histograms, few.MaxBytes, few.OwnedLanes, few.HeapBytes, few.Descriptors = 500, -1, 256<<10, -1, 9999, 600
	same(plan("", "--series", "500", "--histograms", "0", "--max-bytes", "262144", "--owned-lanes", "0", "--heap", "9999", "--descriptors", "600"), few)
	yaml := `
job: forwarder
instance: eth0
labels: {rack: r12}
attributes: {host.name: h1}
owned_lanes: 0
max_bytes: 400000
tables:
- name: scalars
  tiers: ["1s:120", "10s:60"]
  counters: 60
  updowns: 2
  scalars: 3
  lanes: 2
- name: histograms
  tiers: ["10s:30"]
  histograms: 10
  buckets: 80
  lanes: 2
`
	file := writer.Options{Job: "forwarder", Instance: "eth0", Labels: map[string]string{"rack": "r12"}, Attributes: map[string]string{"host.name": "h1"},
		OwnedLanes: -1, MaxBytes: 400000, Tables: []writer.Table{
			{Name: "scalars", Counters: 62, Scalars: 3, Lanes: 2, Tiers: []writer.Tier{{Step: time.Second, Rows: 120}, {Step: 10 * time.Second, Rows: 60}}},
			{Name: "histograms", Histograms: 10, Buckets: 80, Lanes: 2, Tiers: []writer.Tier{{Step: 10 * time.Second, Rows: 30}}}}}
	same(plan(yaml, "--schema", "-"), file)
	path := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(path, []byte(`{"tables": [{"name": "t", "tiers": ["100ms:50"], "gauges": 3, "lanes": 1}]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	js := src
	js.Tables = []writer.Table{{Name: "t", Gauges: 3, Lanes: 1, Tiers: []writer.Tier{{Step: 100 * time.Millisecond, Rows: 50}}}}
	same(plan("", "--schema", path), js)
	// One that never ticks has no tiers, whatever its schema says: 64 kB.
	sampled := src
	sampled.Sampled = true
	same(plan("", "--sampled"), sampled)
	sampled = file
	sampled.Sampled = true
	same(plan(yaml, "--schema", "-", "--sampled"), sampled)
	if p := plan("", "--sampled", "--counters", "60", "--gauges", "20", "--stats", "10", "--histograms", "10"); p.TotalBytes > 64<<10 {
		t.Errorf("want at most 64 kB for a sampled segment, got %d", p.TotalBytes)
	}
	shmctl(t, "", "plan", "--sampled", "--tier", "1s:60").fails(exitUsage, "want either --sampled or tiers, got both")
	// 100 series with 10 histograms and default tiers fit in 512 kB.
	if p := plan("", "--lanes", "4"); p.TotalBytes > 512_000 {
		t.Errorf("want at most 512,000 bytes for the defaults, got %d", p.TotalBytes)
	}
	shmctlIn(t, "tables: [{name: t, tires: []}]", "", "plan", "--schema", "-").fails(exitFailed, "shmts: schema -: ", "tires")
	shmctl(t, "", "plan", "--tier", "1s:1").fails(exitFailed, "rows of table scalars, tier 0: want 2 to 65536, got 1")
	shmctl(t, "", "plan", "--max-bytes", "5000").fails(exitFailed, "MaxBytes: want at least")
}

// Names are other people's: an escape sequence must not reach a terminal.
func TestHostileNames(t *testing.T) {
	store := newStore(t)
	w, err := writer.Open(writer.Options{Job: "evil\x1b[2J", Instance: "a\nb\u202e", Dir: store, NoTicker: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Counter("c\x1b]0;x\x07", writer.Help("h\x1b[31m"), writer.Label("l", "\u009b2J")).Add(1)
	for _, args := range [][]string{{"ls"}, {"show", "/", "--help-text"}, {"cat", "/", "*"}, {"dump", "/"}, {"top", "/"}, {"check"}, {"__complete", "fish", "show", ""}} {
		for i, a := range args {
			if a == "/" {
				args[i] = w.Stats().Paths[0]
			}
		}
		o := shmctl(t, store, args...)
		if strings.ContainsAny(o.out+o.errors, "\x1b\x07\u009b\u202e") {
			t.Errorf("%q: want no control characters, got %q", args, o.out+o.errors)
		}
	}
}

// Whatever an image holds, every verb that reads one answers or refuses: it never crashes.
func TestVectors(t *testing.T) {
	dir := filepath.Join("..", "..", "spec", "vectors")
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index []struct{ ID, File, Verdict string }
	if err := json.Unmarshal(b, &index); err != nil || len(index) < 10 {
		t.Fatalf("want the index of the vectors, got %d, %v", len(index), err)
	}
	for _, v := range index {
		t.Run(v.ID, func(t *testing.T) {
			path := filepath.Join(dir, v.File)
			refused := strings.HasPrefix(v.Verdict, "refuse")
			for _, args := range [][]string{{"show", path, "--json"}, {"ls", path}, {"top", path}, {"dump", path, "--cells"}, {"cat", path, "*"}, {"check", path}} {
				// In this process: there are hundreds.
				var out, errs bytes.Buffer
				status := run(append([]string{"shmctl"}, args...), strings.NewReader(""), &out, &errs)
				lines := strings.Split(strings.TrimSpace(errs.String()), "\n")
				switch verb := args[0]; {
				case refused && status != exitDone && strings.Contains(lines[0], "shmts: "):
				case refused && verb == "dump" && strings.Contains(v.Verdict, "owner"):
				case refused:
					t.Errorf("%q: want %s, got status %d and %q", args, v.Verdict, status, errs.String())
				case v.Verdict == "valid" && verb == "check" && status != exitDone,
					status != exitDone && (verb == "show" || verb == "ls" || verb == "top"):
					t.Errorf("%q: want %s, got status %d and %q", args, v.Verdict, status, errs.String())
				}
			}
		})
	}
}

// A segment that never ticks is shown once, by its shadow; both go, the shadow last.
func TestSampled(t *testing.T) {
	store := newStore(t)
	clock := func() (int64, int64) { return time.Now().Add(-time.Minute).UnixNano(), time.Now().UnixNano() } // long enough ago to be removed
	w, err := writer.Open(writer.Options{Job: "sampled", Instance: "i", Dir: store, Sampled: true, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	w.Counter("n").Add(41)
	r, err := reader.Open(reader.Options{Dir: store})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	k := shadow.New(shadow.Options{Dir: store, Clock: clock})
	defer k.Close()
	poll := func() {
		if _, err := r.Poll(); err != nil {
			t.Fatal(err)
		}
		if err := k.Poll(r.Segments()); err != nil {
			t.Fatal(err)
		}
	}
	poll()
	if ids := strings.Fields(shmctl(t, store, "ls", "-q").ok().out); len(ids) != 1 {
		t.Errorf("want one segment, got %q", ids)
	}
	shmctl(t, store, "cat", "--last", "1", "sampled", "n").ok().contains("41")
	w.Close()
	poll()
	poll()
	paths, err := filepath.Glob(filepath.Join(store, "*", "*.shmts"))
	if err != nil || len(paths) != 2 {
		t.Fatalf("want the segment and its shadow, got %v, %v", paths, err)
	}
	out := shmctl(t, store, "rm", "sampled", "--dry-run").ok().out
	if at := strings.Index(out, "/sampled."); at < 0 || at > strings.Index(out, "/shadow-sampled.") {
		t.Errorf("want both, the shadow last, got %q", out)
	}
}

// Exemplars of a living writer, as they come; of one that never ticks, through its shadow; and those that write leaves.
func TestExemplars(t *testing.T) {
	store := newStore(t)
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	shmctl(t, store, "write", "histogram", "h", "0.5", "0.25", "2", "--job", "w", "--trace", trace, "--span", span).ok()
	shmctl(t, store, "write", "counter", "c", "3", "--job", "w2").ok()
	list := decodeLines[exemplarJSON](shmctl(t, store, "cat", "w", "h", "--exemplars", "--json"))
	if len(list) != 2 || list[0].Value != 0.5 || list[1].Value != 2.0 || list[0].TraceID != trace || list[1].SpanID != span || list[1].Number != 2 || list[0].AgeSeconds < 0 || list[0].AgeSeconds > 600 {
		t.Errorf("want those of 0.5 and 2, got %+v", list)
	}
	shmctl(t, store, "check", "w").ok()
	show := decode[showJSON](shmctl(t, store, "show", "w", "--json"))
	if len(show.Exemplars) != 2 || show.ExemplarsTaken != 2 || show.ExemplarsDropped != 0 || show.SkippedExemplars != 0 {
		t.Errorf("want two taken, got %+v", show)
	}
	shmctl(t, store, "show", "w").ok().contains("exemplars    2", trace, span)
	if o := shmctl(t, store, "show", "w2").ok(); strings.Contains(o.out, "TRACE") {
		t.Errorf("want nothing of exemplars where there are none, got:\n%s", o.out)
	}
	shmctl(t, store, "cat", "w", "nothing", "--exemplars").fails(exitFailed, "no such series")
	shmctl(t, store, "cat", "w", "h", "--exemplars", "--tier", "1").fails(exitUsage, "want no --tier with it")
	for _, bad := range [][]string{{"--trace", "xyz"}, {"--trace", trace + "00"}, {"--trace", trace[1:]}, {"--span", span}} {
		shmctl(t, store, append([]string{"write", "counter", "c", "1"}, bad...)...).fails(exitUsage, strings.TrimPrefix(bad[0], "--"))
	}

	// A dead thread's slot and a broken one.
	w, err := writer.Open(writer.Options{Job: "sampled", Instance: "i", Dir: store, Sampled: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h := w.Histogram("h")
	h.RecordExemplar(0.5, writer.Exemplar{TraceID: [16]byte{1}})
	shmctl(t, store, "cat", "sampled", "h", "--exemplars").ok().contains("01000000000000000000000000000000")
	keeper := shadow.New(shadow.Options{Dir: store})
	defer keeper.Close()
	s, err := reader.Open(reader.Options{Dir: store})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Poll(); err != nil {
		t.Fatal(err)
	}
	if err := keeper.Poll(s.Segments()); err != nil {
		t.Fatal(err)
	}
	show = decode[showJSON](shmctl(t, store, "show", "sampled", "--json"))
	if !strings.Contains(show.Path, "shadow-") || len(show.Exemplars) != 1 || show.ExemplarsTaken != 1 {
		t.Errorf("want the shadow, with the exemplar of what it stands for, got %+v", show)
	}
}

// cat --exemplars --follow prints what comes, once.
func TestExemplarsFollow(t *testing.T) {
	store := newStore(t)
	w, err := writer.Open(writer.Options{Job: "live", Instance: "i", Dir: store})
	if err != nil {
		t.Fatal(err)
	}
	c := w.Counter("c")
	c.AddExemplar(1, writer.Exemplar{TraceID: [16]byte{1}})
	go func() {
		for i := range 3 {
			time.Sleep(300 * time.Millisecond)
			c.AddExemplar(uint64(i)+10, writer.Exemplar{TraceID: [16]byte{byte(i) + 2}})
		}
		w.Close()
	}()
	list := decodeLines[exemplarJSON](shmctl(t, store, "cat", "-f", "live", "c", "--exemplars", "--json"))
	if len(list) != 4 {
		t.Fatalf("want 4, got %+v", list)
	}
	for i, x := range list {
		if x.Number != uint64(i+1) {
			t.Errorf("want number %d, got %d", i+1, x.Number)
		}
	}
}
