package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shmts/shmts/writer"
)

// memory is a line of /proc/PID/status, in bytes: VmRSS, or VmHWM, the most it ever was.
func memory(t *testing.T, pid int, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s of %d", name, pid)
	return 0
}

// nested is a text inside itself n times.
func nested(before, inside, after string, n int) string {
	return strings.Repeat(before, n) + inside + strings.Repeat(after, n)
}

// A hostile is a request that asks for more than anybody should, and how it may be answered.
type hostile struct {
	name  string
	path  string
	form  url.Values
	body  []byte // instead of form
	codes []int
}

func hostiles() []hostile {
	now := time.Now().Unix()
	query := func(name, q string, codes ...int) hostile {
		return hostile{name, "query", url.Values{"query": {q}}, nil, codes}
	}
	over := func(name, q string, seconds, step float64, codes ...int) hostile {
		// What lives is taken to go on, so that there are as many points as can be.
		return hostile{name, "query_range", url.Values{"query": {q}, "start": {fmt.Sprint(now)}, "end": {fmt.Sprint(float64(now) + seconds)}, "step": {fmt.Sprint(step)}, "lookback_delta": {"4h"}}, nil, codes}
	}
	var selectors []string
	for i := range 5000 {
		selectors = append(selectors, fmt.Sprintf("g%d", i))
	}
	snappyBomb := binary.AppendUvarint(nil, 1<<32-1) // says that it is 4 GiB
	regexes := make([]string, 800)
	for i := range regexes {
		regexes[i] = fmt.Sprintf(`g{i=~"(?:(?:[\\pL%d]{30}){30})"}`, i)
	}
	return []hostile{
		over("10^7 points", "g", 1e7, 1, 400),
		over("11,000 points of 500 series", "g", 11000, 1, 200, 422, 503),
		over("all the samples that there may be", `g{i=~"value-[1-4].*"}`, 10900, 1, 200, 422, 503),
		over("10^7 points by a product of series", `g * on() group_right() sum(g)`, 11000, 1, 200, 422, 503),
		over("an instant for each ms", "g", 1, 1e-9, 400),
		query("a subquery of 3*10^10 points", "max_over_time(vector(1)[1y:1ms])", 400),
		query("a subquery in a subquery", "max_over_time(sum_over_time(rate(g[1m])[1h:1s])[1d:1s])", 200, 422, 503),
		query("subqueries all the way down", nested("max_over_time(", "g", "[1d:1s])", 6), 200, 400, 422, 503),
		query("a range of 290 years", "rate(g[290y])", 200, 422, 503),
		query("a regular expression of a million", `g{i=~"(?:(?:x{100}){100}){100}"}`, 400),
		query("a regular expression of 10^6 letters", `g{i=~"(?:[\\pL]{1000}){900}"}`, 400),
		query("many regular expressions", strings.Join(regexes, " or "), 400),
		query("in label_replace", `label_replace(g, "a", "$1", "i", "(?:(?:(x){100}){100}){100}")`, 400, 422),
		query("a label that doubles 40 times", nested("label_join(", "g", `, "i", "", "i", "i")`, 40), 400),
		query("a label of its copies", `label_replace(label_replace(g, "i", "`+strings.Repeat("$1", 5000)+`", "i", "(.*)"), "i", "`+strings.Repeat("$1", 5000)+`", "i", "(.*)")`, 400),
		query("brackets", nested("(", "1", ")", 30_000), 400),
		query("signs", strings.Repeat("-", 60_000)+"1", 400),
		query("a sum of 30,000", strings.TrimSuffix(strings.Repeat("1+", 30_000), "+"), 400),
		query("functions", nested("abs(", "g", ")", 12_000), 400),
		query("a query of 1 MB", strings.Repeat("x", 900_000), 400),
		query("a selector of 5,000 matchers", `g{`+strings.TrimSuffix(strings.Repeat(`i!="x",`, 5000), ",")+`}`, 400, 422),
		{"5,000 match[]", "series", url.Values{"match[]": selectors}, nil, []int{400}},
		{"5,000 match[] of labels", "labels", url.Values{"match[]": selectors}, nil, []int{400}},
		{"a body of 8 MB", "query", url.Values{"query": {strings.Repeat("y", 8<<20)}}, nil, []int{400, 503}},
		{"a snappy bomb", "read", nil, snappyBomb, []int{400}},
		{"snappy of nothing", "read", nil, bytes.Repeat([]byte{0xff}, 60_000), []int{400}},
	}
}

// Hostile requests, eight of each at a time, are answered in bounded time and memory, while one who asks for little is answered.
func TestHostileRequests(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 30 s")
	}
	dir := newStore(t)
	for k := range 2 {
		w, err := writer.Open(writer.Options{Job: "hostile", Instance: fmt.Sprint(k), Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for i := range 250 {
			w.Gauge("g", writer.Label("i", fmt.Sprintf("value-%d", k*250+i))).Set(float64(i))
		}
	}
	const timeout = 4 * time.Second
	d := startDaemon(t, nil, "--store", dir, "--query.timeout", timeout.String())
	waitFor(t, "500 series", func() error {
		got, err := d.query("count(g)")
		if err == nil && got[""] != "500" {
			err = fmt.Errorf("count(g): %v", got)
		}
		return err
	})
	before := memory(t, d.cmd.Process.Pid, "VmRSS")

	// The one who asks for little.
	ctx, cancel := context.WithCancel(context.Background())
	var probe sync.WaitGroup
	var took []time.Duration
	probe.Go(func() {
		for ctx.Err() == nil {
			begin := time.Now()
			if got, err := d.query("count(g)"); err != nil || got[""] != "500" {
				t.Errorf("a cheap query beside hostile ones: %v, %v", got, err)
			}
			took = append(took, time.Since(begin))
			time.Sleep(20 * time.Millisecond)
		}
	})

	slow := slowReaders(t, d, 100)
	client := &http.Client{Timeout: time.Minute}
	var slowest time.Duration
	for _, h := range hostiles() {
		var at sync.WaitGroup
		var mu sync.Mutex
		codes := map[int]int{}
		for range 8 {
			at.Go(func() {
				body, kind := h.body, "application/x-protobuf"
				if body == nil {
					body, kind = []byte(h.form.Encode()), "application/x-www-form-urlencoded"
				}
				begin := time.Now()
				resp, err := client.Post(d.base+"/api/v1/"+h.path, kind, bytes.NewReader(body))
				if err != nil {
					// The server may answer and go before a body of megabytes is sent.
					if len(body) < 1<<20 {
						t.Errorf("%s: %v", h.name, err)
					}
					return
				}
				text, err := io.ReadAll(io.LimitReader(resp.Body, 300))
				if err != nil {
					t.Errorf("%s: %v", h.name, err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Errorf("%s: %v", h.name, err)
				}
				resp.Body.Close()
				mu.Lock()
				defer mu.Unlock()
				codes[resp.StatusCode]++
				slowest = max(slowest, time.Since(begin))
				if !slices.Contains(h.codes, resp.StatusCode) {
					t.Errorf("%s: want status %v, got %d: %s", h.name, h.codes, resp.StatusCode, text)
				}
				if took := time.Since(begin); took > timeout+6*time.Second {
					t.Errorf("%s: took %v", h.name, took)
				}
			})
		}
		at.Wait()
		t.Logf("%-36s %v, at most %3d MB so far", h.name, codes, memory(t, d.cmd.Process.Pid, "VmHWM")>>20)
	}
	cancel()
	probe.Wait()
	slow()
	slices.Sort(took)
	most := memory(t, d.cmd.Process.Pid, "VmHWM")
	t.Logf("RSS %d MB before, %d MB at most, %d MB after; %d cheap queries, p50 %v, p99 %v, max %v; the slowest answer %v", before>>20, most>>20,
		memory(t, d.cmd.Process.Pid, "VmRSS")>>20, len(took), took[len(took)/2], took[len(took)*99/100], took[len(took)-1], slowest)
	if most > maxHostile {
		t.Errorf("want at most %d MB, got %d", maxHostile>>20, most>>20)
	}
	if last := took[len(took)*99/100]; last > 2*time.Second {
		t.Errorf("want cheap queries answered within 2 s, p99 is %v", last)
	}
}

// maxHostile is what all limits together allow at their defaults, with as much garbage: four heavy queries and two light ones of 80 MB, and
// 160 MB of answers that wait.
const maxHostile = 700 << 20

// slowReaders ask for much, and take nothing. What is answered ends them.
func slowReaders(t *testing.T, d *daemonProcess, n int) (end func()) {
	var all []net.Conn
	for range n {
		c, err := net.Dial("tcp", strings.TrimPrefix(d.base, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		now := time.Now().Unix()
		fmt.Fprintf(c, "GET /api/v1/query_range?query=g%%20or%%20vector(1)&start=%d&end=%d&step=1&lookback_delta=4h HTTP/1.1\r\nHost: x\r\n\r\n", now, now+9000)
	}
	return func() {
		for _, c := range all {
			if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	}
}
