package cshim_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// warnings are what C dataplanes compile with, and more. Every one is an error.
var warnings = []string{"-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"}

// A compiler in one of the two languages that shmts.h is written in.
type compiler struct {
	name string
	args []string // command and language
	cxx  bool
}

// compilers are those of this machine: gcc, and clang by either of its names, as C11 and C++17.
var compilers = sync.OnceValue(func() []compiler {
	var found []compiler
	for _, c := range []struct{ c, cxx string }{{"gcc", "g++"}, {"clang", "clang++"}, {"clang-19", "clang++-19"}} {
		if _, err := exec.LookPath(c.c); err == nil {
			found = append(found, compiler{c.c + " C11", []string{c.c, "-std=c11"}, false})
		}
		if _, err := exec.LookPath(c.cxx); err == nil {
			found = append(found, compiler{c.cxx + " C++17", []string{c.cxx, "-std=c++17"}, true})
		}
	}
	return found
})

var workDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "shmts-cshim-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workDir = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// compile builds a program, or with other flags something else, from source and answers its path. The
// output of a compiler that refuses is the error.
func compile(c compiler, source, out string, flags ...string) (string, error) {
	if c.cxx { // by its name a compiler knows the language
		copied := filepath.Join(workDir, strings.TrimSuffix(filepath.Base(source), ".c")+".cc")
		text, err := os.ReadFile(source)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(copied, text, 0o644); err != nil {
			return "", err
		}
		source = copied
	}
	out = filepath.Join(workDir, strings.NewReplacer(" ", "-", "+", "x").Replace(c.name)+"-"+out)
	args := append(append([]string{}, c.args[1:]...), "-O2", "-g", "-I.", "-o", out, source)
	args = append(append(args, warnings...), flags...)
	text, err := exec.Command(c.args[0], append(args, "-pthread")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", c.args[0], strings.Join(args, " "), err, text)
	}
	return out, nil
}

var (
	builtMu sync.Mutex
	built   = map[string]string{}
)

// program compiles source (of this directory) once with the compiler, and answers where it is.
func program(t *testing.T, c compiler, source string, flags ...string) string {
	t.Helper()
	builtMu.Lock()
	defer builtMu.Unlock()
	name := strings.TrimSuffix(filepath.Base(source), ".c")
	key := c.name + " " + name
	if built[key] == "" {
		out, err := compile(c, source, name, flags...)
		if err != nil {
			t.Fatal(err)
		}
		built[key] = out
	}
	return built[key]
}

// firstCompiler is gcc where there is one.
func firstCompiler(t *testing.T) compiler {
	t.Helper()
	if len(compilers()) == 0 {
		t.Skip("no C compiler: apt-get install gcc")
	}
	return compilers()[0]
}

// source writes a file for a compiler to see.
func source(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHeaderCompilesWithoutWarnings(t *testing.T) {
	firstCompiler(t)
	for _, c := range compilers() {
		t.Run(c.name, func(t *testing.T) {
			for _, optimise := range []string{"-O0", "-O2"} { // flow is analysed at -O2 only, and -O0 sees what that removes
				one := source(t, "one.c", "#define SHMTS_IMPLEMENTATION\n#include \"shmts.h\"\n")
				if _, err := compile(c, one, "one.o", "-c", optimise); err != nil {
					t.Error(err)
				}
				use := source(t, "use.c", "#include <stdio.h>\n#include \"shmts.h\"\nvoid use(shmts_counter_t *c);\nvoid use(shmts_counter_t *c) { shmts_add(c, 1); }\n")
				if _, err := compile(c, use, "use.o", "-c", optimise, "-Wunused"); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestHeaderRefuses(t *testing.T) {
	firstCompiler(t)
	for _, c := range compilers() {
		for _, r := range []struct{ name, text, flag, want string }{
			{"fast math", "#include \"shmts.h\"\n", "-ffast-math", "shmts: want IEEE arithmetic"},
			{"a gauge added to", "#include \"shmts.h\"\nvoid f(shmts_gauge_t *g);\nvoid f(shmts_gauge_t *g) { shmts_add(g, 1); }\n", "-O1", "shmts_gauge_t"},
			{"a counter of doubles as one of integers", "#include \"shmts.h\"\nvoid f(shmts_counter_f64_t *c);\nvoid f(shmts_counter_f64_t *c) { shmts_add(c, 1); }\n", "-O1", "shmts_counter_f64_t"},
		} {
			_, err := compile(c, source(t, "refused.c", r.text), "refused.o", "-c", r.flag)
			if err == nil || !strings.Contains(err.Error(), r.want) {
				t.Errorf("%s: %s: want an error that says %q, got %v", c.name, r.name, r.want, err)
			}
		}
	}
}

func TestHeaderStaysTiny(t *testing.T) {
	text, err := os.ReadFile("shmts.h")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), "\n"); n >= 1600 {
		t.Errorf("shmts.h: want less than 1600 lines, got %d: a header that people copy is one that they can read", n)
	}
}

// The program in the header's first comment is what people paste.
func TestFirstScreenCompiles(t *testing.T) {
	c := firstCompiler(t)
	text, err := os.ReadFile("shmts.h")
	if err != nil {
		t.Fatal(err)
	}
	var code []string
	for _, line := range strings.Split(string(text), "\n") {
		inside := strings.TrimPrefix(line, " *     ")
		if inside == line || len(code) == 0 && inside != "#define SHMTS_IMPLEMENTATION" {
			if len(code) > 0 {
				break
			}
			continue
		}
		code = append(code, inside)
	}
	if len(code) < 10 {
		t.Fatalf("want the program of the first comment, got %d lines: %q", len(code), code)
	}
	if _, err := compile(c, source(t, "pasted.c", strings.Join(code, "\n")+"\n"), "pasted"); err != nil {
		t.Error(err)
	}
}

// The record path has no call and no lock: in the instructions that come out.
func TestDisassembly(t *testing.T) {
	if _, err := exec.LookPath("objdump"); err != nil {
		t.Skip("no objdump: apt-get install binutils")
	}
	firstCompiler(t)
	text := "#include \"shmts.h\"\n"
	plain := map[string]bool{}
	for _, f := range []struct {
		name, call string
		lock       bool // a lock prefix stands in the branch for rejected records, or the overflow lane
	}{
		{"exemplar", "shmts_histogram_t *h, double v, const shmts_exemplar *x) { shmts_exemplar_histogram(h, v, x)", false},
		{"add", "shmts_counter_t *h, uint64_t n) { shmts_add(h, n)", false},
		{"add_i64", "shmts_updown_t *h, int64_t n) { shmts_add_i64(h, n)", false},
		{"set", "shmts_gauge_t *h, double n) { shmts_set(h, n)", false},
		{"set_i64", "shmts_gauge_i64_t *h, int64_t n) { shmts_set_i64(h, n)", false},
		{"observe_u64", "shmts_histogram_u64_t *h, uint64_t n) { shmts_observe_u64(h, n)", false},
		{"observe", "shmts_histogram_t *h, double n) { shmts_observe(h, n)", true},
		{"record", "shmts_stat_t *h, double n) { shmts_record(h, n)", true},
		{"lane_add", "const shmts_lane *l, shmts_counter_t *h, uint64_t n) { shmts_lane_add(l, h, n)", true},
		{"lane_observe", "const shmts_lane *l, shmts_histogram_t *h, double n) { shmts_lane_observe(l, h, n)", true},
	} {
		head := f.call[:strings.Index(f.call, ")")]
		text += fmt.Sprintf("void call_%s(%s);\nvoid call_%s(%s; }\n", f.name, head, f.name, f.call)
		plain["call_"+f.name] = !f.lock
	}
	for _, c := range compilers() {
		if c.cxx {
			continue
		}
		object, err := compile(c, source(t, "calls.c", text), "calls.o", "-c")
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("objdump", "-d", "--no-show-raw-insn", object).Output()
		if err != nil {
			t.Fatal(err)
		}
		function, seen := "", 0
		for _, line := range strings.Split(string(out), "\n") {
			if _, name, ok := strings.Cut(line, " <"); ok && strings.HasSuffix(line, ">:") {
				function = strings.TrimSuffix(strings.TrimSuffix(name, ">:"), ".cold")
				seen++
				continue
			}
			_, instruction, _ := strings.Cut(line, "\t")
			leave := strings.Contains(instruction, "shmts__leave") || function == "call_exemplar" && strings.HasPrefix(instruction, "call") // relocated: of one that is taken
			if strings.HasPrefix(instruction, "call") && !leave || strings.HasPrefix(instruction, "bl ") && !leave {
				t.Errorf("%s: %s: want no call, got %s", c.name, function, instruction)
			}
			if plain[function] && (strings.Contains(instruction, "lock") || strings.HasPrefix(instruction, "xchg") && strings.Contains(instruction, "(")) {
				t.Errorf("%s: %s: want no locked instruction, got %s", c.name, function, instruction)
			}
		}
		if seen < len(plain) {
			t.Errorf("%s: want %d functions, got %d", c.name, len(plain), seen)
		}
	}
}

var interrupt = os.Interrupt

// lines collects what a program says, and tells when it said the first line.
type lines struct {
	mu    sync.Mutex
	text  strings.Builder
	ready chan struct{}
	once  sync.Once
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(b)
	if strings.Contains(l.text.String(), "\n") {
		l.once.Do(func() { close(l.ready) })
	}
	return len(b), nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
