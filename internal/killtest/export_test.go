package killtest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/shmts/shmts/internal/testenv"
	"github.com/shmts/shmts/writer"
)

// exportPlaces are those at which the daemon is killed while it exports. TestExportPlaces holds them against the code.
var exportPlaces = []string{"export.position.renaming", "export.answered", "export.position.begun", "export.catchup.send", "export.position.written"}

// seenRow is a row that came, and with which request.
type seenRow struct {
	value   int64
	end     bool
	request int
}

// receiver keeps what it is sent, and can be away.
type receiver struct {
	t    *testing.T
	mu   sync.Mutex
	down bool
	n    int
	rows map[string]map[int64][]seenRow // by instance and time in ticks
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down || err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if q.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(bytes.NewReader(body))
		if err == nil {
			body, err = io.ReadAll(z)
		}
		if err != nil {
			return
		}
	}
	m := &collector.ExportMetricsServiceRequest{}
	if err := proto.Unmarshal(body, m); err != nil {
		r.t.Errorf("a request that can't be read: %v", err)
		return
	}
	r.n++
	for _, rm := range m.ResourceMetrics {
		instance := ""
		for _, a := range rm.Resource.Attributes {
			if a.Key == "service.instance.id" {
				instance = a.Value.GetStringValue()
			}
		}
		for _, sm := range rm.ScopeMetrics {
			for _, metric := range sm.Metrics {
				if metric.Name != "c" {
					continue
				}
				for _, p := range metric.GetSum().DataPoints {
					if r.rows[instance] == nil {
						r.rows[instance] = map[int64][]seenRow{}
					}
					at := int64(p.TimeUnixNano)
					r.rows[instance][at] = append(r.rows[instance][at], seenRow{p.GetAsInt(), p.Flags != 0, r.n})
				}
			}
		}
	}
}

func (r *receiver) set(down bool) {
	r.mu.Lock()
	r.down = down
	r.mu.Unlock()
}

func (r *receiver) requests() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// process is a writer whose clock is the test's: its rows are 100 ms apart, and row n says n.
type process struct {
	*writer.Writer
	c     *writer.Counter
	name  string
	birth int64 // unix ns, whole ticks
	ticks int64
	ended int64 // time of the last row
}

const tick = 100 * time.Millisecond

// The daemon is killed while it exports, at each place and at any other moment, and the receiver is away now and then: every row comes, and what comes
// twice was in the one request that the daemon had no answer of, or had not kept.
func TestExportKilled(t *testing.T) {
	store, err := os.MkdirTemp("/dev/shm", "shmts-killtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(store) })
	s := &stage{t: t, store: store, state: filepath.Join(t.TempDir(), "archive"), tier: "100ms=8MiB,1s=2MiB", diedAt: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rec := &receiver{t: t, rows: map[string]map[int64][]seenRow{}}
	server := &http.Server{Handler: rec}
	go server.Serve(l)
	defer server.Close()
	s.more = []string{"--otlp.endpoint", "http://" + l.Addr().String(), "--otlp.interval", "100ms", "--otlp.batch-points", "25"}

	var all, live []*process
	now := time.Now().Add(-10*time.Hour).UnixNano() / 1e9 * 1e9 // so that no row is of a time still to come
	born := func() {
		p := &process{name: fmt.Sprint("p", len(all)), birth: now}
		p.Writer, err = writer.Open(writer.Options{Job: "j", Instance: p.name, Dir: store, NoTicker: true,
			Tables: []writer.Table{{Name: "t", Scalars: 4, Tiers: []writer.Tier{{Step: tick, Rows: 300}}}},
			Clock:  func() (int64, int64) { return now, now - p.birth + int64(time.Hour) }})
		if err != nil {
			t.Fatal(err)
		}
		p.c = p.Counter("c")
		all, live = append(all, p), append(live, p)
	}
	t.Cleanup(func() {
		for _, p := range live {
			p.Close()
		}
	})
	run := func(n int) {
		for range n {
			now += int64(tick)
			for _, p := range live {
				p.c.Add(1)
				p.ticks++
				p.Tick()
			}
		}
	}
	end := func(i int) {
		now += int64(tick) / 2
		live[i].ended = now
		live[i].Close()
		live = slices.Delete(live, i, i+1)
		now -= int64(tick) / 2
	}
	for range 4 {
		born()
	}
	kills := testenv.Number(t, "SHMTS_KILLS", 20, 12)
	killedAfter := map[int]bool{} // requests that were the last before a kill
	pending := 0                  // ticks that perhaps no daemon has seen
	for i := range kills {
		if pending > 120 {
			d := s.daemon("")
			d.calm()
			d.kill()
			killedAfter[rec.requests()] = true
			pending = 0
		}
		place := exportPlaces[i%len(exportPlaces)]
		pass := 1 + rand.IntN(12)
		if strings.HasSuffix(place, "renaming") || strings.HasSuffix(place, "send") {
			pass = 1
		}
		d := s.daemon(fmt.Sprintf("%s:%d", place, pass))
		rec.set(i%5 == 3 || i%5 == 4)
		dead := false
		for range 6 {
			run(10)
			pending += 10
			if rand.IntN(6) == 0 && len(live) > 2 {
				end(rand.IntN(len(live)))
			} else if rand.IntN(4) == 0 && len(live) < 8 {
				born()
			}
			select {
			case <-d.ended:
				dead = true
			case <-time.After(60 * time.Millisecond):
			}
			if dead {
				break
			}
		}
		if dead {
			s.diedAt[place]++
			if status := d.cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL {
				t.Fatalf("%s: want SIGKILL, got %v\n%s", place, d.cmd.ProcessState, s.log.String())
			}
		} else {
			d.kill()
		}
		killedAfter[rec.requests()] = true
	}
	if len(s.diedAt) < 3 {
		t.Errorf("want it killed at three places at least, got %v", s.diedAt)
	}
	rec.set(false)
	d := s.daemon("")
	d.calm()
	for len(live) > 0 {
		end(0)
	}
	s.waitFor("all ends", func() error {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		for _, p := range all {
			if rows := rec.rows[p.name][whole(p.ended)+1e6]; len(rows) == 0 {
				return fmt.Errorf("none of %s", p.name)
			}
		}
		return nil
	})
	d.cmd.Process.Signal(syscall.SIGTERM)
	<-d.ended
	rec.check(all, killedAfter)
	t.Logf("%d processes, %d requests, died at %v", len(all), rec.n, s.diedAt)
}

func whole(ns int64) int64 { return ns / 1e6 * 1e6 }

func (r *receiver) check(all []*process, killedAfter map[int]bool) {
	twice := 0
	for _, p := range all {
		rows := r.rows[p.name]
		for n := int64(1); n <= p.ticks; n++ {
			at := p.birth + n*int64(tick)
			got := rows[at]
			if len(got) == 0 {
				r.t.Errorf("%s: want row %d of %d, got none", p.name, n, p.ticks)
				continue
			}
			twice += r.once(p, at, got, n, killedAfter)
			delete(rows, at)
		}
		for _, at := range []int64{whole(p.ended), whole(p.ended) + 1e6} {
			if len(rows[at]) == 0 {
				r.t.Errorf("%s: want its last row and an end at %d, got %v", p.name, p.ended, rows)
				continue
			}
			twice += r.once(p, at, rows[at], p.ticks, killedAfter)
			delete(rows, at)
		}
		if len(rows) > 0 {
			r.t.Errorf("%s: want nothing else, got %v", p.name, rows)
		}
	}
	r.t.Logf("%d rows came twice", twice)
}

// once holds what came of one row.
func (r *receiver) once(p *process, at int64, got []seenRow, value int64, killedAfter map[int]bool) (twice int) {
	for i, g := range got {
		if !g.end && g.value != value {
			r.t.Errorf("%s at %d: want %d, got %d", p.name, at, value, g.value)
		}
		if i > 0 {
			twice++
			if !killedAfter[got[i-1].request] {
				r.t.Errorf("%s at %d: came with request %d and again with %d: want that of the last request before a kill alone", p.name, at, got[i-1].request, g.request)
			}
		}
	}
	return twice
}

// Every place of the exporter's code is in the list.
func TestExportPlaces(t *testing.T) {
	out, err := exec.Command("grep", "-rhoE", `failpoint\.Here\("[^"]+"\)`, "../export").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name := strings.Split(line, `"`)[1]
		if !slices.Contains(exportPlaces, name) {
			t.Errorf("%s is a place at which nobody kills the daemon: add it to exportPlaces", name)
		}
	}
}
