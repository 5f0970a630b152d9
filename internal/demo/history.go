package main

import (
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// history kills the daemon as well, once it has let the forwarder's segment go, and asks its successor: what it knows of the
// forwarder then comes from the archive alone.
func (s *stage) history() {
	s.title("What is left when the forwarder's segment is gone and shmtsd, pid %d, was killed with SIGKILL", s.daemon.Process.Pid)
	err := s.eventually("the forwarder's segment is unlinked", func() error {
		left, err := filepath.Glob(filepath.Join(s.store, "*", "udpfwd.*.shmts"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("%s is there", left[0])
		}
		return err
	})
	s.hold(err == nil, "its last row is in the archive, and the segment unlinked%s", because(err))
	if err := s.daemon.Process.Signal(syscall.SIGKILL); err != nil {
		s.hold(false, "killed (%v)", err)
		return
	}
	<-s.daemon.exited
	began := time.Now()
	s.daemon = s.spawn("shmtsd", s.daemonArgs...)
	for s.ctx.Err() == nil && s.get("/-/ready", nil) != nil && time.Since(began) < 15*time.Second {
		s.pause(5 * time.Millisecond)
	}
	s.hold(s.get("/-/ready", nil) == nil, "its successor is ready after %d ms", time.Since(began).Milliseconds())
	for _, w := range ackWords {
		got, found := s.one("last_over_time("+w.prometheus+"{"+w.labels+"}[5m])", time.Time{})
		s.hold(found && got == s.last[w], "%s{%s}: %.0f, to the unit", w.prometheus, w.labels, got)
	}
	times, values, err := s.rows(`udp_packets_total{direction="rx"}[5m]`)
	whole := err == nil && len(times) > 2
	for i := 1; i < len(times); i++ {
		// The last row is the last words: at once, or up to a step later.
		gap := times[i] - times[i-1]
		whole = whole && values[i] >= values[i-1] && gap > 0 && gap < 1.5 && (gap > 0.5 || i == len(times)-1)
	}
	s.hold(whole, "and its history: %d rows, one each second, none twice%s", len(times), because(err))
	out, err := exec.CommandContext(s.ctx, filepath.Join(s.bin, "shmctl"), "archive", "check", s.archive).CombinedOutput()
	s.hold(err == nil, "shmctl archive check: %s", strings.TrimSpace(string(out)))
}

// rows are the samples of a range selector, as of now: unix seconds and values.
func (s *stage) rows(selector string) (times, values []float64, err error) {
	var answer struct {
		Data struct {
			Result []struct{ Values [][2]any }
		}
	}
	if err := s.get("/api/v1/query?"+url.Values{"query": {selector}}.Encode(), &answer); err != nil {
		return nil, nil, err
	}
	if n := len(answer.Data.Result); n != 1 {
		return nil, nil, fmt.Errorf("%s: want one series, got %d", selector, n)
	}
	for _, sample := range answer.Data.Result[0].Values {
		t, _ := sample[0].(float64)
		text, _ := sample[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: want numbers, got %v", selector, sample[1])
		}
		times, values = append(times, t), append(values, v)
	}
	return times, values, nil
}
