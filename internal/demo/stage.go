package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stage is everything the demo started, and what it found.
type stage struct {
	ctx        context.Context
	cancel     context.CancelFunc
	bin        string
	tmp        string // scratch
	store      string
	listen     string // shmtsd's address
	archive    string // its history
	daemon     *proc
	daemonArgs []string
	ack        string // the forwarder's page of completed records
	forwarder  *proc
	receiver   *receiver // nil where a real collector receives

	last map[ackWord]float64 // what the store said of the dead forwarder

	procs          []*proc
	checks, failed int
}

type proc struct {
	*exec.Cmd
	name   string
	stderr bytes.Buffer
	exited chan struct{}
}

func newStage(ctx context.Context, bin string) (*stage, error) {
	bin, err := filepath.Abs(bin)
	if err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp("", "shmts-demo-")
	if err != nil {
		return nil, err
	}
	store, err := os.MkdirTemp("/dev/shm", "shmts-demo-")
	if err != nil {
		os.RemoveAll(tmp)
		return nil, err
	}
	s := &stage{bin: bin, tmp: tmp, store: store, last: map[ackWord]float64{}}
	s.ctx, s.cancel = context.WithCancel(ctx)
	return s, nil
}

// end stops everything and removes the store. A process that would not end cleanly is an error.
func (s *stage) end() error {
	s.cancel()
	var errs []error
	for i := len(s.procs) - 1; i >= 0; i-- {
		p := s.procs[i]
		_ = p.Process.Signal(os.Interrupt)
		select {
		case <-p.exited:
		case <-time.After(10 * time.Second):
			_ = p.Process.Kill()
			<-p.exited
			errs = append(errs, fmt.Errorf("%s did not end within 10 s of its signal", p.name))
		}
		if p.stderr.Len() > 0 {
			fmt.Fprintf(os.Stderr, "%s said:\n%s", p.name, p.stderr.String())
		}
	}
	if s.receiver != nil {
		_ = s.receiver.srv.Close()
	}
	return errors.Join(append(errs, os.RemoveAll(s.store), os.RemoveAll(s.tmp))...)
}

func (s *stage) spawn(name string, args ...string) *proc {
	p := &proc{Cmd: exec.Command(filepath.Join(s.bin, name), args...), name: name, exited: make(chan struct{})}
	p.Stderr = &p.stderr
	if err := p.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		_ = s.end()
		os.Exit(1)
	}
	s.procs = append(s.procs, p)
	go func() { _ = p.Wait(); close(p.exited) }()
	return p
}

func (s *stage) title(format string, args ...any) { fmt.Printf("\n"+format+"\n", args...) }
func (s *stage) say(format string, args ...any)   { fmt.Printf("  "+format+"\n", args...) }

// hold is one thing that must hold.
func (s *stage) hold(ok bool, format string, args ...any) {
	s.checks++
	mark := "ok  "
	if !ok {
		mark = "FAIL"
		s.failed++
	}
	fmt.Printf("  %s %s\n", mark, fmt.Sprintf(format, args...))
}

// eventually waits, for 15 s at the most, until f has no error.
func (s *stage) eventually(what string, f func() error) error {
	var err error
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline) && s.ctx.Err() == nil; {
		if err = f(); err == nil {
			return nil
		}
		s.pause(100 * time.Millisecond)
	}
	return fmt.Errorf("waited 15 s until %s: %w", what, err)
}

func (s *stage) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
	}
}

func (s *stage) get(path string, into any) error { return get(s.ctx, "http://"+s.listen+path, into) }

func get(ctx context.Context, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: want 200, got %s: %.200s", url, resp.Status, body)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

// sample is one element of an instant query's answer.
type sample struct {
	labels map[string]string
	value  float64
}

// query asks shmtsd a PromQL question, as of now or, if at is not zero, as of then.
func (s *stage) query(q string, at time.Time) ([]sample, error) {
	v := url.Values{"query": {q}}
	if !at.IsZero() {
		v.Set("time", strconv.FormatFloat(float64(at.UnixMilli())/1e3, 'f', 3, 64))
	}
	var answer struct {
		Data struct {
			Result []struct {
				Metric map[string]string
				Value  [2]any
			}
		}
	}
	if err := s.get("/api/v1/query?"+v.Encode(), &answer); err != nil {
		return nil, err
	}
	var out []sample
	for _, r := range answer.Data.Result {
		text, _ := r.Value[1].(string)
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("answer to %s: want a number, got %v", q, r.Value[1])
		}
		out = append(out, sample{r.Metric, f})
	}
	return out, nil
}

// one is the answer to a question that has one; 0 and false if there is none.
func (s *stage) one(q string, at time.Time) (float64, bool) {
	r, err := s.query(q, at)
	if err != nil {
		s.say("%v", err)
	}
	if len(r) == 0 {
		return 0, false
	}
	return r[0].value, true
}

var client = sync.OnceValue(func() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
})

// ask puts and gets values until the demo ends.
func (s *stage) ask(url string) {
	for n := 0; s.ctx.Err() == nil; n++ {
		method, body := http.MethodGet, io.Reader(nil)
		if n%4 == 0 {
			method, body = http.MethodPut, strings.NewReader("some value or other")
		}
		req, err := http.NewRequestWithContext(s.ctx, method, fmt.Sprintf("%s/kv/%d", url, n/4%1000), body)
		if err != nil {
			return
		}
		resp, err := client().Do(req)
		if err != nil {
			s.pause(10 * time.Millisecond)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// freeAddress is a port of the loopback that nobody has right now.
func freeAddress(network string) string {
	if network == "udp" {
		c, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		defer c.Close()
		return c.LocalAddr().String()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}
