package cshim_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/writer"
)

// mode_story of prog.c, told by the Go writer.
func tellStory(t *testing.T, store string, closed bool) {
	t.Helper()
	unix, mono := int64(1700000000000000000), int64(1000000000000)
	w, err := writer.Open(writer.Options{Job: "prog", Instance: "test", Dir: store, NoTicker: true,
		Attributes: map[string]string{"service.version": "1"},
		Clock:      func() (int64, int64) { return unix, mono },
		NewID:      func() (id [16]byte) { return [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} }})
	if err != nil {
		t.Fatal(err)
	}
	counter, counterF64, updown := w.Counter("counter"), w.FloatCounter("counter_f64"), w.UpDownCounter("updown")
	gauge, gaugeI64, stat := w.Gauge("gauge"), w.IntGauge("gauge_i64"), w.Stat("stat")
	histogram, histogramU64 := w.Histogram("histogram"), w.IntHistogram("histogram_u64")
	positive := w.Stat("sizes", writer.Unit("By"), writer.Help("Of a path."), writer.NonNegative(), writer.Label("path", `/a "b"`))
	x := uint64(12345)
	for i := range 300 {
		for k := range i % 7 {
			x = x*6364136223846793005 + 1442695040888963407
			v := float64(x>>40) / 1048576
			updown.Add(int64(x>>60) - 8)
			gauge.Set(v)
			gaugeI64.Set(int64(x >> 32))
			stat.Record(v - 8)
			positive.Record(v)
			ex := writer.Exemplar{}
			binary.LittleEndian.PutUint64(ex.TraceID[:], x)
			binary.LittleEndian.PutUint64(ex.SpanID[:], x)
			counter.AddExemplar(x>>50, ex)
			counterF64.AddExemplar(v, ex)
			histogram.RecordExemplar(v, ex)
			ex.Time = time.Unix(0, unix+int64(k))
			histogramU64.RecordExemplar(x>>55, ex)
		}
		if i == 100 {
			positive.Retire()
		}
		if i == 150 {
			w.NewEpoch()
		}
		step := 700 * time.Millisecond
		if i%10 == 0 {
			step = 2300 * time.Millisecond
		}
		unix, mono = unix+int64(step), mono+int64(step)
		w.Tick()
	}
	if closed {
		w.Close()
	}
}

// Told the same by the same clock, the writers in C and in Go leave the same: every row, to the bit.
func TestSameStoryAsGo(t *testing.T) {
	eachCompiler(t, func(t *testing.T, prog string) {
		for _, closed := range []bool{false, true} {
			inC, inGo := newStore(t), newStore(t)
			args := []string{"story", inC}
			if closed {
				args = append(args, "close")
			}
			run(t, prog, args...)
			tellStory(t, inGo, closed)
			depends := regexp.MustCompile(`^(size|writer|room|used|cells|process) `) // spec/vectors/README.md: on the implementation
			statements := func(s segment) (lines []string) {
				for _, line := range s.text {
					if !depends.MatchString(line) {
						lines = append(lines, regexp.MustCompile(` cells=\d+$`).ReplaceAllString(line, ""))
					}
				}
				return lines
			}
			c, g := statements(readOne(t, inC)), statements(readOne(t, inGo))
			for i := range max(len(c), len(g)) {
				if i >= len(c) || i >= len(g) || c[i] != g[i] {
					t.Fatalf("closed %v, statement %d of %d and %d: want (Go) %q, got (C) %q", closed, i, len(g), len(c), g[min(i, len(g)-1)], c[min(i, len(c)-1)])
				}
			}
			if len(c) < 1000 {
				t.Errorf("want hundreds of rows, got %d statements", len(c))
			}
		}
	})
}

// The forwarder moves every datagram, and its segment says what went by.
func TestForwarder(t *testing.T) {
	c := firstCompiler(t)
	forwarder, generator := program(t, c, "examples/udpfwd.c"), program(t, c, "examples/udpgen.c")
	for _, threads := range []string{"1", "2"} {
		store := newStore(t)
		base := 20000 + 4*rand.IntN(5000)
		in, out := "127.0.0.1:"+strconv.Itoa(base), "127.0.0.1:"+strconv.Itoa(base+1)
		fwd := exec.Command(forwarder, "--listen", in, "--target", out, "--threads", threads, "--dir", store, "--instance", "test")
		said := &lines{ready: make(chan struct{})}
		fwd.Stdout = said
		if err := fwd.Start(); err != nil {
			t.Fatal(err)
		}
		defer fwd.Process.Kill()
		select {
		case <-said.ready:
		case <-time.After(10 * time.Second):
			t.Fatal("want the forwarder to listen, got nothing in 10 s")
		}
		generated := run(t, generator, "--target", in, "--sink", out, "--rate", "20000", "--seconds", "1", "--flows", "8")
		fwd.Process.Signal(interrupt)
		if err := fwd.Wait(); err != nil {
			t.Fatal(err)
		}
		f := regexp.MustCompile(`sent (\d+) packets, received (\d+) `).FindStringSubmatch(generated)
		if f == nil {
			t.Fatalf("want the generator's numbers, got %q", generated)
		}
		sent, _ := strconv.Atoi(f[1])
		received, _ := strconv.Atoi(f[2])
		g := regexp.MustCompile(`(\d+) packets in, (\d+) out, (\d+) dropped`).FindStringSubmatch(said.String())
		if g == nil {
			t.Fatalf("want the forwarder's numbers, got %q", said.String())
		}
		if received < sent/2 || sent < 1000 || g[2] < f[2] && len(g[2]) == len(f[2]) {
			t.Errorf("want the datagrams to arrive, got %d of %d (%q)", received, sent, said.String())
		}
		s := readOne(t, store)
		live := map[string]string{}
		names := map[string]string{}
		for _, line := range s.text {
			words := strings.SplitN(line, " ", 3)
			if words[0] == "series" {
				names[words[1]] = regexp.MustCompile(`"[^{]*\{[^}]*\}`).FindString(line)
			} else if words[0] == "live" {
				live[names[words[1]]] = words[2]
			}
		}
		in1, _ := strconv.Atoi(g[1])
		out1, _ := strconv.Atoi(g[2])
		for series, want := range map[string]string{
			`"udp_packets"{"direction"="rx"}`: g[1], `"udp_packets"{"direction"="tx"}`: g[2],
			`"udp_bytes"{"direction"="rx"}`: strconv.Itoa(256 * in1), `"udp_bytes"{"direction"="tx"}`: strconv.Itoa(256 * out1),
			`"udp_drops"{"reason"="truncated"}`: "0",
		} {
			if live[series] != want {
				t.Errorf("%s threads: %s: want %s, got %s", threads, series, want, live[series])
			}
		}
		n := 0
		for _, b := range regexp.MustCompile(`-?\d+:(\d+)`).FindAllStringSubmatch(live[`"udp_forward_latency"{}`], -1) {
			k, _ := strconv.Atoi(b[1])
			n += k
		}
		if above := regexp.MustCompile(`zero=(\d+) above=(\d+)`).FindStringSubmatch(live[`"udp_forward_latency"{}`]); above != nil {
			z, _ := strconv.Atoi(above[1])
			a, _ := strconv.Atoi(above[2])
			n += z + a
		}
		if n != out1 {
			t.Errorf("%s threads: want a latency for each of %d datagrams, got %d", threads, out1, n)
		}
	}
}
