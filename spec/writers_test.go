package spec_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/canon"
	"github.com/shmts/shmts/writer"
)

var update = flag.Bool("update", false, "write the images of TestWritersAgree to spec/vectors; go generate ./spec afterwards")

// script is what both writers do: see testdata/script.c. Sums are of values that f64 adds exactly, since a Go record may go to any lane.
const script = `
s counter requests {request} Requests_served. method=GET,code=200 0 0 0
s counter_f64 cpu.time s - - 0 0 0
s updown queue - - - 0 0 0
s gauge temperature Cel - - 0 0 0
s gauge_i64 offset - - - 0 0 0
s stat size By - - 0 0 0
s stat_nonneg depth - - - 0 0 0
s histogram latency s Time_to_answer. path=/ 0.25 16 2
s histogram_u64 batch - - - 1 1024 1
a 0 3
a 1 0.125
a 2 -4
a 5 -2.5
a 5 7.5
a 6 3
a 6 1
a 7 0.3125
a 7 0.25
a 7 0
a 7 100
a 8 0
a 8 1
a 8 2
a 8 300
a 8 4096
q 7 0.5 1 0
q 7 0.375 2 0
q 7 1.5 3 1700000000000000007
q 0 0 4 0
q 1 0.5 5 0
q 8 7 6 -5
q 7 9 0 0
t 1000000000
q 7 0.25 7 0
q 1 0.25 8 0
q 1 nan 9 0
q 7 -1 10 0
q 7 inf 11 0
q 0 12 12 0
q 0 12 13 0
q 0 13 14 0
a 0 18446744073709551615
a 0 4
a 1 8
a 2 9
a 3 21.5
a 4 -7
a 6 2
a 7 16
a 7 16.5
t 1000000000
a 1 -1
a 1 nan
a 1 inf
a 5 nan
a 5 -inf
a 6 -1
a 7 -0.5
a 7 inf
a 3 nan
t 1000000000
a 3 -0
a 5 1
s counter late - - - 0 0 0
a 9 1
t 1000000000
t 300000000
t 200000000
t 4500000000
r 9
q 9 1 15 0
q 8 4097 16 0
a 0 1
t 1000000000
w 400000000
t 1000000000
w 3600000000000
a 0 7
t 1000000000
w -7200000000000
a 1 1
t 1000000000
s updown reborn - - - 0 0 0
a 10 -6
a 5 4
t 1000000000
e
a 5 -9
a 0 5
t 1000000000
a 0 100
a 2 1
a 5 2
a 7 1
q 7 0.125 17 0
`

const closing = "x 123456789\n"

// writtenByGo runs a script with package writer, and answers the image that it leaves.
func writtenByGo(t *testing.T, dir, script string) []byte {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2)) // as many Ps as lanes: a P beyond is counted in overflow_threads
	unix, mono := int64(1_700_000_000_000_000_000), int64(1_000_000_000_000)
	w, err := writer.Open(writer.Options{
		Job: "writers", Instance: "one", Labels: map[string]string{"zone": "a"}, Attributes: map[string]string{"service.version": "1"}, Dir: dir,
		Tables: []writer.Table{
			{Name: "scalars", Scalars: 8, Stats: 2, Lanes: 2, Tiers: []writer.Tier{{Step: time.Second, Rows: 8}, {Step: 2 * time.Second, Rows: 4}}},
			{Name: "histograms", Histograms: 2, Buckets: 24, Lanes: 2, Tiers: []writer.Tier{{Step: 2 * time.Second, Rows: 4}}},
		},
		OwnedLanes: -1, MaxSegments: 1, NoTicker: true,
		Clock: func() (int64, int64) { return unix, mono },
		NewID: func() (id [16]byte) {
			for i := range id {
				id[i] = 0x20 + 0x11*byte(i)
			}
			return id
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	type series struct {
		record func(value string)
		retire func()
		traced func(value string, ex writer.Exemplar)
	}
	var all []series
	float := func(f func(float64)) func(string) {
		return func(s string) {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil {
				t.Fatal(err)
			}
			f(v)
		}
	}
	signed := func(f func(int64)) func(string) {
		return func(s string) {
			v, err := strconv.ParseInt(s, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			f(v)
		}
	}
	unsigned := func(f func(uint64)) func(string) {
		return func(s string) {
			v, err := strconv.ParseUint(s, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			f(v)
		}
	}
	for line := range strings.Lines(script) {
		word := strings.Fields(line)
		if len(word) == 0 {
			continue
		}
		number := func(i int) int64 {
			n, err := strconv.ParseInt(word[i], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		switch word[0] {
		case "s":
			name := word[2]
			var o []writer.SeriesOption
			if word[3] != "-" {
				o = append(o, writer.Unit(word[3]))
			}
			if word[4] != "-" {
				o = append(o, writer.Help(word[4]))
			}
			if word[5] != "-" {
				for _, label := range strings.Split(word[5], ",") {
					k, v, _ := strings.Cut(label, "=")
					o = append(o, writer.Label(k, v))
				}
			}
			if strings.HasPrefix(word[1], "histogram") {
				low, _ := strconv.ParseFloat(word[6], 64)
				high, _ := strconv.ParseFloat(word[7], 64)
				o = append(o, writer.Buckets(low, high), writer.Scale(int(number(8))))
			}
			switch word[1] {
			case "counter":
				h := w.Counter(name, o...)
				all = append(all, series{unsigned(h.Add), h.Retire, func(v string, ex writer.Exemplar) {
					unsigned(func(n uint64) { h.AddExemplar(n, ex) })(v)
				}})
			case "counter_f64":
				h := w.FloatCounter(name, o...)
				all = append(all, series{float(h.Add), h.Retire, func(v string, ex writer.Exemplar) {
					float(func(n float64) { h.AddExemplar(n, ex) })(v)
				}})
			case "updown":
				h := w.UpDownCounter(name, o...)
				all = append(all, series{signed(h.Add), h.Retire, nil})
			case "gauge":
				h := w.Gauge(name, o...)
				all = append(all, series{float(h.Set), h.Retire, nil})
			case "gauge_i64":
				h := w.IntGauge(name, o...)
				all = append(all, series{signed(h.Set), h.Retire, nil})
			case "stat":
				h := w.Stat(name, o...)
				all = append(all, series{float(h.Record), h.Retire, nil})
			case "stat_nonneg":
				h := w.Stat(name, append(o, writer.NonNegative())...)
				all = append(all, series{float(h.Record), h.Retire, nil})
			case "histogram":
				h := w.Histogram(name, o...)
				all = append(all, series{float(h.Record), h.Retire, func(v string, ex writer.Exemplar) {
					float(func(n float64) { h.RecordExemplar(n, ex) })(v)
				}})
			case "histogram_u64":
				h := w.IntHistogram(name, o...)
				all = append(all, series{unsigned(h.Record), h.Retire, func(v string, ex writer.Exemplar) {
					unsigned(func(n uint64) { h.RecordExemplar(n, ex) })(v)
				}})
			default:
				t.Fatalf("script: %s: not understood", line)
			}
		case "a":
			all[number(1)].record(word[2])
		case "q":
			ex := writer.Exemplar{TraceID: [16]byte{15: byte(number(3))}}
			if number(4) != 0 {
				ex.SpanID[0], ex.Time = byte(number(3)), time.Unix(0, number(4))
			}
			all[number(1)].traced(word[2], ex)
		case "r":
			all[number(1)].retire()
		case "e":
			w.NewEpoch()
		case "w":
			unix += number(1)
		case "t", "x":
			unix, mono = unix+number(1), mono+number(1)
			if word[0] == "t" {
				w.Tick()
			} else if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("script: %s: not understood", line)
		}
	}
	if err := w.Err(); err != nil {
		t.Errorf("the Go writer says: %v", err)
	}
	return theOnly(t, dir)
}

// theOnly is the one segment in a store.
func theOnly(t *testing.T, dir string) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.shmts"))
	if err != nil || len(files) != 1 {
		t.Fatalf("want one segment in the store, got %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// scriptProgram is testdata/script.c, compiled.
func scriptProgram(t *testing.T) string {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc: the C writer is not compared with the Go writer")
	}
	program := filepath.Join(t.TempDir(), "script")
	if out, err := exec.Command(gcc, "-std=c11", "-O1", "-Wall", "-Wextra", "-I", header, "-o", program, "testdata/script.c", "-pthread").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// writtenByC does the same with shmts.h.
func writtenByC(t *testing.T, program, dir, script string) []byte {
	t.Helper()
	cmd := exec.Command(program, dir)
	cmd.Stdin = strings.NewReader(strings.TrimSpace(script) + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	return theOnly(t, dir)
}

// ofTheWriter are the beginnings of lines that may differ between implementations: vectors/README.md.
var ofTheWriter = []string{"size ", "writer ", "room ", "used ", "cells ", "process "}

func meaning(t *testing.T, image []byte) string {
	t.Helper()
	var text bytes.Buffer
	if err := canon.Dump(&text, image); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
lines:
	for line := range strings.Lines(text.String()) {
		for _, p := range ofTheWriter {
			if strings.HasPrefix(line, p) {
				continue lines
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

// The C and the Go writer, told to do the same at the same times, leave segments that say the same, line by line.
func TestWritersAgree(t *testing.T) {
	program := scriptProgram(t)
	for _, c := range []struct{ name, script string }{{"killed", script}, {"closed", script + closing}} {
		t.Run(c.name, func(t *testing.T) {
			store := func() string { // on tmpfs, where segments live
				dir, err := os.MkdirTemp("/dev/shm", "shmts-spec-")
				if err != nil {
					t.Skipf("no /dev/shm to test in: %v", err)
				}
				t.Cleanup(func() { os.RemoveAll(dir) })
				return dir
			}
			byGo, byC := writtenByGo(t, store(), c.script), writtenByC(t, program, store(), c.script)
			want, got := meaning(t, byGo), meaning(t, byC)
			if n := strings.Count(want, "\nvalue "); n < 60 {
				t.Errorf("want some rows' values to compare, got %d", n)
			}
			if n := strings.Count(want, "\nexemplar "); n != 10 {
				t.Errorf("want 10 exemplars to compare, got %d", n)
			}
			if *update {
				for by, image := range map[string][]byte{"go": byGo, "c": byC} {
					if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("written-by-%s-%s.shmts", by, c.name)), image, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			t.Log("want: the Go writer; got: the C writer")
			diff(t, want, got)
		})
	}
}
