package main

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/internal/server"
	"github.com/shmts/shmts/writer"
)

// fullSegments are of a process that registers more series than its first segment, and the three that it opens then, have room for.
func fullSegments(t testing.TB, store string) {
	t.Helper()
	now, ids := int64(0), byte(0)
	w, err := writer.Open(writer.Options{
		Job: "greedy", Instance: "g", Dir: store, NoTicker: true, OwnedLanes: -1,
		Clock: func() (int64, int64) { return birth + now, 1e12 + now },
		NewID: func() (id [16]byte) { ids++; id[0], id[15] = 0xe0+ids, 1; return id },
		Tables: []writer.Table{
			{Name: "scalars", Counters: 2, Lanes: 1, Tiers: []writer.Tier{{Step: time.Second, Rows: 8}}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		w.Counter("user_requests_total", writer.Label("user", fmt.Sprint(i)), writer.Unit("{request}")).Add(1)
	}
	now += int64(time.Second)
	w.Tick()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTopSeries(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0", 7)
	closedSegment(t, store, "forwarder", "eth1", 8)
	fullSegments(t, store)

	all := shmctl(t, store, "top", "--series", "--all").ok()
	golden(t, "top-series.txt", all.out[len("15:04:05Z"):])
	j := decode[censusJSON](shmctl(t, store, "top", "--series", "--all", "--json").ok())
	j.Time = ""
	text, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "top-series.json", string(text)+"\n")

	// 8 of 12 found room, in four segments; the others were turned away.
	greedy := j.Sources[len(j.Sources)-1]
	for _, s := range j.Sources {
		if s.Job == "greedy" {
			greedy = s
		}
	}
	if greedy.Series != 8 || greedy.Segments != 4 || greedy.Grown != 3 || greedy.Dropped == 0 || greedy.Slots.Used < 8 || greedy.Heap.Used == 0 ||
		len(greedy.Tables) != 1 || greedy.Tables[0].Cells.Used != 8 || greedy.Tables[0].Cells.Size < 8 {
		t.Errorf("want 8 series in 4 full segments, got %+v", greedy)
	}
	if j.Series != 20 || j.Names[0] != (nameCountJSON{"user_requests_total", 8}) || j.Labels[0].Name != "user" || j.Labels[0].Values != 8 {
		t.Errorf("want 20 series, most of them user_requests_total, got %+v", j)
	}
	if d := (dropJSON{Reason: "writer", Series: greedy.Dropped}); len(j.Dropped) != 1 || j.Dropped[0] != d || len(j.DroppedFrom) != 1 || j.DroppedFrom[0].Job != "greedy" {
		t.Errorf("want the writer's drops, got %+v and %+v", j.Dropped, j.DroppedFrom)
	}

	// A part: segments, names, the first of each list.
	j = decode[censusJSON](shmctl(t, store, "top", "--series", "--all", "--json", "--limit", "1", "--match", "rx_*", "forwarder").ok())
	if j.Series != 2 || len(j.Names) != 1 || len(j.Sources) != 1 || j.Sources[0].Instance != "eth0" || j.Sources[0].Series != 1 || len(j.TopPairs) != 1 {
		t.Errorf("want one of each, got %+v", j)
	}
	shmctl(t, store, "top", "--series").ok().contains("0 alive, 6 closed", "0 series")
	shmctl(t, store, "top", "--series", "nobody").fails(exitFailed, "no segment")

	// Looks go on, and see what is new.
	w := startWriter(t, store, "live")
	looks := decodeLines[censusJSON](shmctl(t, store, "top", "--series", "--json", "-n", "2", "-d", "200ms").ok())
	if len(looks) != 2 || looks[1].Series != 2 || looks[1].Segments["alive"] != 1 || looks[0].Time >= looks[1].Time {
		t.Errorf("want two looks at two series, got %+v", looks)
	}
	w.kill()
}

// What shmtsd answers, in the same words: with what its rules drop.
func TestTopSeriesOfDaemon(t *testing.T) {
	const t0 = 1_700_000_000_000
	var segments querytest.Segments
	for i := range 3 {
		g := querytest.New(t0, querytest.Pairs("job", "web", "instance", fmt.Sprint("h", i)), querytest.Scalars())
		g.Counter("requests", "code", "200")
		g.Counter("requests", "code", "500")
		g.Gauge("debug")
		g.Tick(t0 + 1000)
		segments = append(segments, g)
	}
	rules, err := relabel.Parse([]byte(`[{action: drop, source_labels: [__name__], regex: debug}, {action: labeldrop, regex: code}]`))
	if err != nil {
		t.Fatal(err)
	}
	daemon := httptest.NewServer(server.New(server.Options{Engine: query.New(query.Options{Sources: segments, Now: func() time.Time { return time.UnixMilli(t0 + 2000) },
		Rules: query.NewRules(func() *relabel.Rules { return rules })})}))
	defer daemon.Close()
	j := decode[censusJSON](shmctl(t, "", "top", "--series", "--json", "--url", daemon.URL).ok())
	if j.From != daemon.URL || j.Series != 3 || j.Names[0] != (nameCountJSON{"requests_total", 3}) || len(j.Sources) != 0 {
		t.Errorf("want three series, got %+v", j)
	}
	if fmt.Sprint(j.Dropped) != "[{collision 0     3} {relabel 1 drop    3}]" || fmt.Sprint(j.DroppedNames) != "[{relabel 1 drop debug   3} {collision 0  requests_total   3}]" || len(j.DroppedFrom) != 6 {
		t.Errorf("want what the rules drop, got %v, %v, %v", j.Dropped, j.DroppedNames, j.DroppedFrom)
	}
	shmctl(t, "", "top", "--series", "--url", daemon.URL).ok().contains(daemon.URL+": 3 series, 6 dropped\n", "rule 1: drop", "debug", `job="web"`, "web/h2", "rules left another's labels")
	shmctl(t, "", "top", "--series", "--url", "http://127.0.0.1:1").fails(exitFailed, "is shmtsd running?")
	shmctl(t, "", "top", "--series", "--limit", "10000", "--url", daemon.URL+"/nothing").fails(exitFailed, "want Prometheus's JSON")
}

func TestTopSeriesScreen(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0", 7)
	fullSegments(t, store)
	s := newScreen(t, 100, 30)
	cmd := s.run(store, "top", "--series", "--all", "-d", "200ms")
	s.waits(0, "user_requests_total")
	s.waits(0, "LABEL PAIR")
	at := len(s.String())
	w := startWriter(t, store, "live") // it comes into view by itself
	s.waits(at, "1 alive")
	s.type_("GjjG ")
	s.waits(at, "paused")
	s.type_("q")
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	w.kill()
	k := &counter{j: &censusJSON{Time: "2023-11-14T22:13:20Z", Names: []nameCountJSON{{"a", 1}}, TopPairs: []pairCountJSON{{"a", strings.Repeat("x", 90), 1}}}}
	for width := range 30 {
		for height := range 12 {
			for _, line := range strings.Split(k.frame(width, height, 0, true), "\r\n") {
				line = strings.NewReplacer("\x1b[H", "", "\x1b[K", "", "\x1b[J", "", "\x1b[7m", "", "\x1b[0m", "").Replace(line)
				if n := len([]rune(line)); n > width {
					t.Fatalf("%d x %d: want lines of at most %d, got %d: %q", width, height, width, n, line)
				}
			}
		}
	}
}
