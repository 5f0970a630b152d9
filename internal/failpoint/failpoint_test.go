package failpoint

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// The places do what they are told in a process that is built with the tag, and nothing in this one.
func TestPlaces(t *testing.T) {
	Here("a")
	if err := Fails("b"); err != nil || On {
		t.Fatalf("without the tag: want nothing, got %v, On %v", err, On)
	}
	dir := t.TempDir()
	bin := dir + "/places"
	build := exec.Command("go", "build", "-tags", "failpoint", "-o", bin, "./testdata/places")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, c := range []struct{ points, out string }{
		{"", "a a b:<nil> b:<nil> done"},
		{"a:2", "a signal: killed"},
		{"a:1:kill", "signal: killed"},
		{"a:2:exit", "a exit status 3"},
		{"b:2:error", "a a b:<nil> b:shmts: failpoint b: pass 2 done"},
		{"x:1,b:1:error", "a a b:shmts: failpoint b: pass 1 b:shmts: failpoint b: pass 2 done"},
		{"a:0", "exit status 2"},
	} {
		cmd := exec.Command(bin)
		cmd.Env = append(os.Environ(), "SHMTS_FAILPOINTS="+c.points)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.Output()
		got := string(out)
		if err != nil {
			got += err.Error()
		}
		if got = strings.TrimSpace(got); got != c.out {
			t.Errorf("%q: want %q, got %q", c.points, c.out, got)
		}
	}
}
