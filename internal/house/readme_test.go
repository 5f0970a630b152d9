package house

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shmts/shmts/reader"
)

// snippet is the fenced block of README.md behind its marker, as it stands: "go" or, where there are several, "go otel".
func snippet(t *testing.T, name string) string {
	t.Helper()
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	language, _, _ := strings.Cut(name, " ")
	marker := "<!-- snippet: " + name + " -->\n```" + language + "\n"
	_, code, ok := strings.Cut(string(page), marker)
	if !ok {
		t.Fatalf("README.md: want %q, got none", marker)
	}
	code, _, ok = strings.Cut(code, "\n```\n")
	if !ok {
		t.Fatalf("README.md: the block behind %q does not end", marker)
	}
	return code + "\n"
}

func goBuild(source, program string) *exec.Cmd {
	return exec.Command("go", "build", "-o", program, source)
}

// The README's programs are built as a stranger would paste them, run, and
// what they recorded is read back.
func TestReadmeSnippetsBuildAndRecord(t *testing.T) {
	for _, c := range []struct {
		name, file, instance, counter, histogram string
		build                                    func(source, program string) *exec.Cmd
	}{
		{"c", "hello.c", "c-1", "rx_packets_total", "rx_latency_seconds", func(source, program string) *exec.Cmd {
			return exec.Command("gcc", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I", "cshim", source, "-o", program, "-pthread")
		}},
		{"go", "main.go", "go-1", "http_requests_total", "http_request_duration_seconds", goBuild},
		{"go otel", "main.go", "otel-1", "http.server.requests", "http.server.request.duration", goBuild},
		{"go prometheus", "main.go", "prometheus-1", "http_requests_total", "http_request_duration_seconds", goBuild},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("gcc"); c.name == "c" && err != nil {
				t.Skip("needs gcc")
			}
			tmp := t.TempDir()
			source, program := filepath.Join(tmp, c.file), filepath.Join(tmp, "hello")
			if err := os.WriteFile(source, []byte(snippet(t, c.name)), 0o600); err != nil {
				t.Fatal(err)
			}
			build := c.build(source, program)
			build.Dir = "../.."
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			store, err := os.MkdirTemp("/dev/shm", "shmts-readme-")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(store)
			run := exec.Command(program)
			run.Env = append(os.Environ(), "SHMTS_DIR="+store)
			if out, err := run.CombinedOutput(); err != nil || len(out) > 0 {
				t.Fatalf("want it to run and say nothing, got %v and %q", err, out)
			}
			s, err := reader.Open(reader.Options{Dir: store})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Poll(); err != nil {
				t.Fatal(err)
			}
			found := s.Lookup("hello", c.instance)
			if len(found) != 1 {
				t.Fatalf("want one segment of hello/%s, got %d", c.instance, len(found))
			}
			g := found[0]
			if g.Liveness() != reader.Closed {
				t.Fatalf("want it closed, got %v", g.Liveness())
			}
			for _, name := range []string{c.counter, c.histogram} {
				var sr *reader.Series
				for _, one := range g.Series() {
					if one.Name == name {
						sr = one
					}
				}
				if sr == nil {
					t.Fatalf("want series %s, got none", name)
				}
				n := -1.0
				for row := range g.Rows(sr.Table, 0, g.Head(sr.Table, 0)) {
					if v, ok := row.Value(sr); ok && sr.Kind == reader.Histogram {
						n = float64(v.Count)
					} else if ok {
						n = v.Float
					}
				}
				if n != 3000 {
					t.Fatalf("%s: want 3000, got %g", name, n)
				}
			}
		})
	}
}
