package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// Writers in Go and in C that never tick: what they count is in PromQL, exactly, through a SIGKILL of the daemon and to
// their own, with no series twice and no reset.
func TestSampledWriters(t *testing.T) {
	dir := newStore(t)
	writers := map[string]*process{"go": startProcess(t, dir, exec.Command(os.Args[0]), storeEnv+"="+dir, jobEnv+"=go", sampledEnv+"=1")}
	if gcc, err := exec.LookPath("gcc"); err == nil {
		program := filepath.Join(t.TempDir(), "sampled")
		if out, err := exec.Command(gcc, "-std=c11", "-O2", "-I../../cshim", "-o", program, "testdata/sampled.c", "-pthread").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		writers["c"] = startProcess(t, dir, exec.Command(program, "c"), "SHMTS_DIR="+dir)
	} else {
		t.Log("no gcc: the writer in Go alone")
	}
	args := []string{"--store", dir, "--poll-interval", "200ms", "--dead-ttl", "1m", "--self-metrics=false"}
	d := startDaemon(t, nil, args...)
	all := func(n int) {
		for _, w := range writers {
			w.add(n)
		}
	}
	say := func(query, value string) {
		t.Helper()
		waitFor(t, query+" to be "+value, func() error {
			got, err := d.query(query)
			if err != nil {
				return err
			}
			wanted := map[string]string{}
			for job := range writers {
				labels := "instance=i,job=" + job + ",kind=x"
				if query == "work_done_total" {
					labels = "__name__=work_done_total," + labels
				}
				wanted[labels] = value
			}
			return want(t, got, wanted)
		})
	}
	all(40)
	say("work_done_total", "40")
	all(1)
	say("work_done_total", "41")

	d.cmd.Process.Kill()
	d.cmd.Wait()
	all(1)
	d = startDaemon(t, nil, args...)
	say("work_done_total", "42")
	all(5)
	for _, w := range writers {
		w.kill()
	}
	say("max_over_time(work_done_total[5m])", "47")
	say("resets(work_done_total[5m])", "0")
}

// startProcess starts a writer that does as writerProcess.
func startProcess(t *testing.T, dir string, cmd *exec.Cmd, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.in, _ = p.cmd.StdinPipe()
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(fmt.Errorf("writer in %s: %w", dir, err))
	}
	p.out = bufio.NewReader(out)
	t.Cleanup(p.kill)
	p.expect("ready")
	return p
}
