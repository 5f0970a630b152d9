// Package house holds the tests of how the packages of this module stand to
// one another: what may import what, and why. A broken rule's message says
// what to do instead.
package house

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module = "github.com/shmts/shmts"
	root   = "../.."
)

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Standard   bool
	Imports    []string // what it imports itself, tests apart
	Deps       []string // and what those do
}

// house is every package of the module and all that they reach, by import path.
func house(t *testing.T) map[string]*pkg {
	t.Helper()
	// The daemon is built with this tag: see the Makefile.
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Imports,Deps", "-tags", "grpcnotrace", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	all := map[string]*pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := &pkg{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p
	}
}

// ours tells whether an import path matches a pattern: a path below the module, "..." at its end for all below.
func ours(pattern, path string) bool {
	pattern = module + "/" + pattern
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == below || strings.HasPrefix(path, below+"/")
	}
	return path == pattern
}

// An arrow is forbidden from the packages of one pattern. Direct ones concern only what a package imports
// itself; the others whatever it reaches.
type arrow struct {
	from   string
	direct bool
	bad    func(p *pkg) bool
	why    string // what would be lost, and what to do instead
}

func below(patterns ...string) func(*pkg) bool {
	return func(p *pkg) bool {
		return slices.ContainsFunc(patterns, func(pattern string) bool { return ours(pattern, p.ImportPath) })
	}
}

func path(paths ...string) func(*pkg) bool {
	return func(p *pkg) bool { return slices.Contains(paths, p.ImportPath) }
}

func notStandardBut(allowed ...string) func(*pkg) bool {
	return func(p *pkg) bool {
		if p.Standard {
			return false
		}
		return !slices.ContainsFunc(allowed, func(a string) bool { return p.ImportPath == a || strings.HasPrefix(p.ImportPath, a+"/") })
	}
}

var arrows = []arrow{
	{"layout", false, notStandardBut(module + "/layout"),
		"layout is the format and nothing else, for anybody to copy: the standard library alone. Put what needs more into writer or reader"},
	{"layout", true, path("os", "io/fs", "net", "syscall", "log", "log/slog"),
		"layout knows bytes: no files, no locks, no clocks. Hand it the words instead"},
	{"writer", false, below("reader"),
		"a service that records must not carry a reader, and the two halves meet in FORMAT.md alone. Put what both need into layout"},
	{"reader", false, below("writer"),
		"the two halves meet in FORMAT.md alone: a bug in one must not hide in the other. Put what both need into layout"},
	{"writer", false, notStandardBut(module+"/writer", module+"/layout", module+"/internal/pin", "golang.org/x/sys", "github.com/edsrzf/mmap-go"),
		"services link writer: x/sys and mmap-go and no more. A bridge to another library goes into a package of its own below writer"},
	{"writer", false, below("writer/internal/...", "writer/otelshm", "writer/promshm"),
		"the bridges record through writer's public API: what they need of it goes into writer/merge.go, and never costs a record"},
	{"writer/internal/bridge", false, notStandardBut(module+"/writer", module+"/layout", module+"/internal/pin", "golang.org/x/sys", "github.com/edsrzf/mmap-go"),
		"what the bridges share knows no other library: a service with one of them must not link the other's. Translate in otelshm or promshm"},
	{"writer/otelshm", false, func(p *pkg) bool {
		return below("reader", "writer/promshm")(p) || below("internal/...")(p) && !below("internal/pin")(p) || strings.HasPrefix(p.ImportPath, "github.com/prometheus/")
	},
		"an instrumented service links the SDK that it has, and writer: no reader, no daemon, no Prometheus"},
	{"writer/promshm", false, func(p *pkg) bool {
		return below("reader", "writer/otelshm")(p) || below("internal/...")(p) && !below("internal/pin")(p) || strings.HasPrefix(p.ImportPath, "go.opentelemetry.io/")
	},
		"an instrumented service links the client_golang that it has, and writer: no reader, no daemon, no OpenTelemetry"},
	{"reader", false, notStandardBut(module+"/reader", module+"/layout", "golang.org/x/sys", "github.com/edsrzf/mmap-go"),
		"orchestrators link reader: x/sys and mmap-go and no more"},
	{"writer", true, path("log", "log/slog", "flag", "net/http", "expvar"),
		"a library does not log, parse flags or serve. Answer an error, or count"},
	{"reader", true, path("log", "log/slog", "flag", "net/http", "expvar"),
		"a library does not log, parse flags or serve. Answer an error, or count"},
	{"internal/relabel", false, below("layout", "reader", "writer", "internal/names", "internal/source/...", "internal/query/...", "internal/export/...", "internal/archive/..."),
		"rules know labels and nothing that has some: query, export and the archiver apply them, each where it makes its labels"},
	{"internal/archive/column", false, notStandardBut(),
		"a column is bytes and numbers: the standard library alone. What knows rows and series belongs into internal/archive"},
	{"internal/query/...", true, below("layout"),
		"downstream of reader.Row nothing knows offsets, seqlocks or processes. Use reader's names, or an interface of query's own"},
	{"internal/export/...", true, below("layout"),
		"downstream of reader.Row nothing knows offsets, seqlocks or processes. Use reader's names, or an interface of export's own"},
	{"internal/source/...", true, below("layout"),
		"the daemon's organs see reader, never layout. What is missing belongs into reader's public API"},
	{"internal/exemplars", true, func(p *pkg) bool {
		return !p.Standard && !below("reader")(p) || path("os", "net", "log/slog")(p)
	},
		"the newest exemplars in memory are copies of what the reader yields: no files, no archive, no PromQL. Who wants them asks by number"},
	{"internal/shadow", false, below("internal/query/...", "internal/export/...", "internal/server/...", "internal/source/..."),
		"a shadow is what a writer would have written: upstream of every row, so it may know layout, and nothing that reads rows"},
	{"internal/archive", false, below("writer", "internal/source/...", "internal/query/...", "internal/server/...", "internal/export/..."),
		"the archive knows files and bytes: no rings, no processes, no PromQL. It may use layout's pair lists, histogram shapes and rules of series: those bytes are the same in both parts of FORMAT.md"},
	{"internal/archive/fold", true, func(p *pkg) bool {
		return !p.Standard && !below("internal/archive", "reader")(p) || path("os", "net", "log/slog", "sync")(p)
	},
		"folding is columns in, columns out: no files, no segments, no daemon. Who reads and writes them is internal/archiver"},
	{"internal/archive/forecast", false, below("writer", "internal/archiver", "internal/source/...", "internal/query/...", "internal/server", "internal/export/..."),
		"a forecast is made by the archive's own code alone, from what it is told of a load: shmctl links it, and no part of the daemon"},
	{"internal/server/...", true, below("layout"),
		"the daemon's organs see reader, never layout. What is missing belongs into reader's public API"},
	{"internal/history", true, below("layout"),
		"the daemon's organs see reader, never layout. What is missing belongs into reader's public API"},
	{"internal/history", false, below("internal/server", "internal/export/...", "internal/archiver/..."),
		"history reads what is there, wherever it is: it knows neither who asks nor who archives"},
	{"internal/query/...", false, below("internal/archive/...", "internal/history", "internal/source"),
		"PromQL sees Sources, an interface of its own. What an archive needs of it goes into internal/history"},
	{"internal/archiver", true, below("layout"),
		"the archiver sees rows and series, never offsets or seqlocks. What is missing belongs into reader's public API"},
	{"internal/archiver", false, below("writer", "internal/source/...", "internal/query/...", "internal/server/...", "internal/export/...", "internal/health"),
		"the archiver declares what a segment is to it, and says what happened through Stats: put the organs together in cmd/shmtsd"},
	{"internal/query/...", false, below("internal/server", "internal/export/..."),
		"a query knows neither who asked nor who else is told: the arrow goes the other way"},
	{"internal/export/httpclient", false, notStandardBut(),
		"who is spoken to, and as whom, is the same for every protocol: the standard library alone. Messages belong into the protocol's own package"},
	{"internal/export", false, below("internal/export/otlp", "internal/export/remotewrite", "internal/source/...", "internal/archiver/..."),
		"export knows what goes out when: how a protocol writes it is an Encoder below it, and where rows come from are interfaces of its own and archive.Reader"},
	{"internal/export/...", false, below("internal/server", "internal/query/..."),
		"export reads rows, not PromQL: the two stand side by side over internal/source"},
	{"cmd/shmtsd", false, path("html/template", "text/template", "plugin"),
		"one of these makes the linker keep every method: megabytes. std flag, hand-written text, -tags grpcnotrace"},
	{"cmd/shmtsd", false, path("github.com/prometheus/prometheus/web/api/v1"),
		"35 MB and 149 modules. The handlers in internal/server say the same"},
	{"cmd/shmtsd", false, path("github.com/prometheus/prometheus/storage/remote"),
		"28 MB. Remote-write and remote-read are small over prompb"},
	{"cmd/shmtsd", false, path("github.com/prometheus/prometheus/rules"),
		"21 MB. Rules are another issue, and model/rulefmt with the engine is enough for them"},
	{"cmd/shmtsd", false, path("github.com/prometheus/exporter-toolkit/web"),
		"10.8 MB, and it turns dead code elimination off. internal/webconfig reads the same file"},
	{"internal/tenant", false, below("writer", "internal/archive/...", "internal/history", "internal/source", "internal/server"),
		"who asks is found out of a request and the configuration: what may be seen is a query.Scope and user ids. Who reads and answers is told so by cmd/shmtsd"},
	{"internal/server", false, below("internal/tenant", "internal/config"),
		"the server is told who asks by Options.Who, and has a desk for each: it knows no rules and no file"},
	{"internal/webconfig", false, notStandardBut(module+"/internal/webconfig", "go.yaml.in/yaml/v2", "golang.org/x/crypto", "golang.org/x/time"),
		"who is let in does not depend on what is served: it knows an http.Handler, a file, and nothing of shmts"},
	{"cmd/shmctl", false, path("github.com/prometheus/common/model", "google.golang.org/protobuf/proto"),
		"2 MB in a tool of 11, for durations and names: shmctl and internal/archive say those themselves"},
	{"cmd/...", false, path("testing", module+"/internal/segtest", module+"/internal/canon", module+"/internal/testenv", module+"/internal/export/exporttest"),
		"tests' helpers are for tests"},
	{"examples/...", true, below("layout"),
		"an example shows the public libraries: writer and reader"},
}

func TestArrows(t *testing.T) {
	all := house(t)
	for _, a := range arrows {
		found := 0
		for from, p := range all {
			if !ours(a.from, from) {
				continue
			}
			found++
			reached := p.Deps
			if a.direct {
				reached = p.Imports
			}
			for _, to := range reached {
				if q := all[to]; q != nil && to != from && a.bad(q) {
					t.Errorf("%s reaches %s (%s).\n\t%s.", from, to, chain(all, from, to), a.why)
				}
			}
		}
		if found == 0 {
			t.Errorf("no package %s: the rule about it (%s) is idle", a.from, a.why)
		}
	}
}

// chain is a shortest way from one package to another.
func chain(all map[string]*pkg, from, to string) string {
	before := map[string]string{from: ""}
	for next := []string{from}; len(next) > 0; next = next[1:] {
		if next[0] == to {
			var way []string
			for p := to; p != ""; p = before[p] {
				way = append(way, strings.TrimPrefix(p, module+"/"))
			}
			slices.Reverse(way)
			return strings.Join(way, " -> ")
		}
		if p := all[next[0]]; p != nil {
			for _, i := range p.Imports {
				if _, seen := before[i]; !seen {
					before[i] = next[0]
					next = append(next, i)
				}
			}
		}
	}
	return "no way found"
}

// The rules themselves: each forbids something that exists in the house, or could.
func TestArrowsSee(t *testing.T) {
	all := house(t)
	for _, c := range []struct {
		name string
		bad  func(*pkg) bool
		path string
		want bool
	}{
		{"below", below("layout"), module + "/layout", true},
		{"below", below("layout"), module + "/reader", false},
		{"below ...", below("internal/..."), module + "/internal/pin", true},
		{"path", path("os"), "os", true},
		{"not standard", notStandardBut(module + "/layout"), "os", false},
		{"not standard", notStandardBut(module + "/layout"), module + "/layout", false},
		{"not standard", notStandardBut(module + "/layout"), "golang.org/x/sys/unix", true},
		{"not standard", notStandardBut("golang.org/x/sys"), "golang.org/x/sys/unix", false},
	} {
		p := all[c.path]
		if p == nil {
			t.Fatalf("%s is not in the house", c.path)
		}
		if got := c.bad(p); got != c.want {
			t.Errorf("%s of %s: want %v, got %v", c.name, c.path, c.want, got)
		}
	}
	if got := chain(all, module+"/reader", module+"/layout"); got != "reader -> layout" {
		t.Errorf("want a way from reader to layout, got %q", got)
	}
}

// unsafeFiles are the files that may import unsafe, with the reason.
var unsafeFiles = map[string]string{
	"layout/memory_unsafe.go": "the one gate from bytes to words and structures",
	"internal/pin/pin.go":     "go:linkname needs the import, and nothing of it is used",
}

func TestUnsafe(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".cache" || d.Name() == "bin"):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(name) != ".go":
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			if p, _ := strconv.Unquote(i.Path.Value); p != "unsafe" {
				continue
			}
			seen[rel] = true
			if unsafeFiles[rel] == "" {
				t.Errorf("%s imports unsafe. Memory is seen through layout.Words, layout.Bytes and layout.View, which check every bound.", rel)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, why := range unsafeFiles {
		if !seen[name] {
			t.Errorf("%s (%s) does not import unsafe any more: take it off the list", name, why)
		}
	}
}
