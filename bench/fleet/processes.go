package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is a process that is measured.
type child struct {
	cmd   *exec.Cmd
	lines chan string // what it prints, until the buffer is full
	done  chan struct{}
	err   error
}

// children are all processes ever started, so that none outlives the run.
type children struct {
	mu  sync.Mutex
	all []*child
}

func (c *children) start(path string, args ...string) (*child, error) {
	return c.startEnv(nil, path, args...)
}

func (c *children) startEnv(env []string, path string, args ...string) (*child, error) {
	p := &child{cmd: exec.Command(path, args...), lines: make(chan string, 16), done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var said tail
	p.cmd.Stderr = &said
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("shmts: start %s: %w", path, err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case p.lines <- s.Text():
			default:
			}
		}
		_, _ = io.Copy(io.Discard, out)
		if p.err = p.cmd.Wait(); p.err != nil {
			p.err = fmt.Errorf("%s: %w: %s", filepath.Base(path), p.err, said.String())
		}
		close(p.done)
	}()
	c.mu.Lock()
	c.all = append(c.all, p)
	c.mu.Unlock()
	return p, nil
}

// kill ends what still runs.
func (c *children) kill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.all {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// ready waits for the child's first line.
func (p *child) ready(limit time.Duration) error {
	select {
	case <-p.lines:
		return nil
	case <-p.done:
		return fmt.Errorf("shmts: a child ended before it was ready: %w", p.err)
	case <-time.After(limit):
		return fmt.Errorf("shmts: %s was not ready in %v", p.cmd.Path, limit)
	}
}

// stop asks it to end, and waits.
func (p *child) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return errors.New("it did not end within 20 s of SIGTERM")
	}
}

// tail keeps the last of what is written to it.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	if n := len(t.data); n > 4096 {
		t.data = append(t.data[:0], t.data[n-2048:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.data)
}

// cpu is the processor time that a process has used, all its threads', ended ones too.
func (p *child) cpu() (time.Duration, error) {
	// The clock of another process: MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of the
	// kernel's posix-timers. /proc/PID/stat counts in 10 ms, too coarse for 0.5 %.
	clock := int32(^p.cmd.Process.Pid<<3 | 2)
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("shmts: processor time of %s: %w", p.cmd.Path, err)
	}
	return time.Duration(ts.Nano()), nil
}

// memory is a process's resident set in kB: all of it, its own (anonymous), what is mapped shared
// memory (segments), and the most it ever was.
func (p *child) memory() (rss, anon, shmem, peak int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0, 0, 0, err
	}
	fields := map[string]*int64{"VmRSS": &rss, "RssAnon": &anon, "RssShmem": &shmem, "VmHWM": &peak}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		if to := fields[name]; to != nil {
			if *to, err = strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64); err != nil {
				return 0, 0, 0, 0, fmt.Errorf("shmts: %s of /proc/PID/status: %w", name, err)
			}
		}
	}
	return rss, anon, shmem, peak, nil
}

// usage is what groups of processes took.
type usage map[string]*taken

type taken struct {
	cpu                    float64 // per cent of a core
	rss, anon, shmem, peak int64   // kB
}

// watch measures groups of processes over the same window. Their resident set is
// the mean of one look a second.
func watch(window time.Duration, groups map[string][]*child) (usage, error) {
	u := usage{}
	begin := time.Now()
	before := map[string]time.Duration{}
	for name, group := range groups {
		u[name] = &taken{}
		for _, p := range group {
			d, err := p.cpu()
			if err != nil {
				return nil, err
			}
			before[name] += d
		}
	}
	looks := int64(0)
	for time.Since(begin) < window {
		time.Sleep(min(time.Second, window-time.Since(begin)))
		looks++
		for name, group := range groups {
			peak := int64(0)
			for _, p := range group {
				rss, anon, shmem, most, err := p.memory()
				if err != nil {
					return nil, err
				}
				u[name].rss += rss
				u[name].anon += anon
				u[name].shmem += shmem
				peak += most
			}
			u[name].peak = peak
		}
	}
	for name, group := range groups {
		t, sum := u[name], time.Duration(0)
		for _, p := range group {
			d, err := p.cpu()
			if err != nil {
				return nil, err
			}
			sum += d
		}
		t.cpu = 100 * float64(sum-before[name]) / float64(time.Since(begin))
		t.rss /= looks
		t.anon /= looks
		t.shmem /= looks
	}
	return u, nil
}

func (u usage) print(name string) {
	t := u[name]
	fmt.Printf("%s_cpu\t%.3f\n%s_rss\t%d\n%s_rss_anon\t%d\n%s_rss_shmem\t%d\n%s_rss_peak\t%d\n",
		name, t.cpu, name, t.rss, name, t.anon, name, t.shmem, name, t.peak)
}

func eventually(limit time.Duration, ok func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := ok()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(200 * time.Millisecond)
	}
}
