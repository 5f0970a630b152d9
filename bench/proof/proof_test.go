// Package proof shows that a record call does what DESIGN.md's law says: no system
// call, no lock, and of an owned counter nothing but the add. (That none allocates
// is tested beside the writer.)
package proof

import (
	"bufio"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// build builds ./record.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "record")
	if out, err := exec.Command("go", "build", "-o", binary, "./record").CombinedOutput(); err != nil {
		t.Fatalf("build ./record: %v\n%s", err, out)
	}
	return binary
}

// A thread makes thirteen million record calls of every kind, in a hundred batches between marks.
// strace shows every system call of every thread: that thread's are the record calls', the others'
// the runtime's own (sysmon's sleeps). Its preemption signals are switched off.
//
// What is left of the runtime is that a batch which the machine stretched to 10 ms is asked to yield, with
// futexes. A record call that made a system call, were it one in 100,000, would show in every batch.
func TestRecordingMakesNoSystemCall(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if out, err := exec.Command(strace, "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-o", trace, build(t), t.TempDir())
	cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("strace: %v\n%s", err, out)
	}
	f, err := os.Open(trace)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const batches, quiet = 100, 90
	var thread string // that recorded, once it has begun
	before, others, began, clean := 0, 0, 0, 0
	var calls []string // of the batch; nil outside of one
	for s := bufio.NewScanner(f); s.Scan(); {
		tid, call, _ := strings.Cut(s.Text(), " ")
		call = strings.TrimSpace(call)
		switch {
		case strings.HasPrefix(call, "close(-1000001"):
			thread, calls = tid, []string{}
			began++
		case thread == "":
			before++
		case tid != thread:
			others++
		case strings.HasPrefix(call, "close(-1000002"):
			if len(calls) == 0 {
				clean++
			} else {
				t.Logf("batch %d: %s", began, strings.Join(calls, "; "))
			}
			calls = nil
		case strings.HasPrefix(call, "<... close resumed>"): // of a mark
		case calls != nil:
			calls = append(calls, call)
			if !strings.HasPrefix(call, "futex(") && !strings.HasPrefix(call, "<... futex resumed>") {
				t.Errorf("while recording: %s", call)
			}
		}
	}
	if before == 0 || began != batches || calls != nil {
		t.Fatalf("want a trace of a birth and %d whole batches, got %d calls before, %d batches, the last one whole: %v",
			batches, before, began, calls == nil)
	}
	if clean < quiet {
		t.Errorf("want no system call in at least %d of %d batches, got %d such", quiet, batches, clean)
	}
	t.Logf("%d system calls before; none while recording, in %d of %d batches; %d of the runtime's other threads meanwhile",
		before, clean, batches, others)
}

// An owned counter's Add is inlined, and on the way that a live handle takes it is one add to
// memory: no call, no lock prefix, no exchange. (A handle whose lane was given back takes
// another way, which calls; so does a function's growing its stack.)
func TestOwnedAddIsOneInstruction(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skipf("reads amd64 instructions; this is %s", runtime.GOARCH)
	}
	out, err := exec.Command("go", "tool", "objdump", "-s", `^main\.ownedAdd$`, build(t)).CombinedOutput()
	if err != nil {
		t.Fatalf("go tool objdump: %v\n%s", err, out)
	}
	code := parse(string(out))
	if len(code) == 0 {
		t.Fatalf("no instructions in\n%s", out)
	}
	adds := 0
	for _, in := range code {
		if in.add() {
			adds++
		}
		for _, bad := range []string{"LOCK", "XCHG", "XADD"} {
			if strings.Contains(in.text, bad) {
				t.Errorf("want no %s, got %s", bad, in.text)
			}
		}
	}
	way, found := walk(code, 0, nil, map[int]bool{})
	if adds != 1 || !found {
		t.Errorf("want one add to memory on a way without a call, got %d adds, such a way: %v, in\n%s", adds, found, out)
	}
	t.Logf("the way of an add: %d instructions\n%s", len(way), strings.Join(way, "\n"))
}

// instruction is a line of objdump: where, what, and where else it may go on.
type instruction struct {
	at, to uint64 // to: of jumps
	text   string
}

var (
	line     = regexp.MustCompile(`(?m)^\s*\S+:\d+\s+0x([0-9a-f]+)\s+[0-9a-f]+\s+(.*?)\s*$`)
	toMemory = regexp.MustCompile(`^(INCQ [^,]*|ADDQ [^,]*, )(0x[0-9a-f]+)?\([A-Z0-9]+\)`)
	jump     = regexp.MustCompile(`^J[A-Z]+ 0x([0-9a-f]+)`)
)

func (in *instruction) add() bool { return toMemory.MatchString(in.text) }

func parse(text string) (code []instruction) {
	for _, m := range line.FindAllStringSubmatch(text, -1) {
		in := instruction{text: m[2]}
		in.at, _ = strconv.ParseUint(m[1], 16, 64)
		if j := jump.FindStringSubmatch(in.text); j != nil {
			in.to, _ = strconv.ParseUint(j[1], 16, 64)
		}
		code = append(code, in)
	}
	return code
}

// walk finds a way from instruction i to a return that comes past the add and past no call.
func walk(code []instruction, i int, way []string, seen map[int]bool) ([]string, bool) {
	for ; i < len(code) && !seen[i]; i++ {
		seen[i] = true
		in := code[i]
		way = append(way, in.text)
		switch {
		case strings.HasPrefix(in.text, "CALL"):
			return nil, false
		case strings.HasPrefix(in.text, "RET"):
			return way, slices.ContainsFunc(way, toMemory.MatchString)
		case in.to != 0:
			target := slices.IndexFunc(code, func(c instruction) bool { return c.at == in.to })
			if target >= 0 {
				if w, ok := walk(code, target, slices.Clone(way), maps.Clone(seen)); ok {
					return w, true
				}
			}
			if strings.HasPrefix(in.text, "JMP") {
				return nil, false
			}
		}
	}
	return nil, false
}
