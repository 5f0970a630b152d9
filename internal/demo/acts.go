package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// live shows rates while they happen.
func (s *stage) live(d time.Duration) {
	s.title("Live, from PromQL")
	end := time.Now().Add(d)
	for time.Now().Before(end) && s.ctx.Err() == nil {
		s.pause(min(2*time.Second, time.Until(end)))
		rx, _ := s.one(`sum(rate(udp_packets_total{direction="rx"}[3s]))`, time.Time{})
		mbit, _ := s.one(`sum(rate(udp_bytes_total{direction="tx"}[3s])) * 8 / 1e6`, time.Time{})
		queue, _ := s.one(`sum(udp_queue_depth_bytes)`, time.Time{})
		web, _ := s.one(`sum(rate(http_server_requests_total[3s]))`, time.Time{})
		s.say("%8.0f datagrams/s in  %7.1f Mbit/s out  %8.0f bytes queued  %7.0f requests/s", rx, mbit, queue, web)
	}
}

// recordCost measures a record call next to a plain increment of private memory, in one process.
func (s *stage) recordCost() {
	s.title("What a record call costs, in C, next to an increment of private memory (median ns; both cores are busy)")
	out, err := exec.CommandContext(s.ctx, filepath.Join(s.bin, "record"), "-r", "21").Output()
	s.hold(err == nil, "the benchmark ran%s", because(err))
	ns := map[string]float64{}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		if f := strings.Split(sc.Text(), "\t"); len(f) >= 3 {
			ns[f[0]], _ = strconv.ParseFloat(f[2], 64)
		}
	}
	for _, name := range []string{"private ++", "shmts_add", "shmts_lane_add", "shmts_tls_add", "shmts_atomic_add", "shmts_observe"} {
		v, ok := ns[name]
		if !ok {
			s.hold(false, "the benchmark says what %s costs", name)
			continue
		}
		s.say("%-18s %6.2f ns   %5.1f x", name, v, v/ns["private ++"])
	}
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// answers asks what a dashboard would ask.
func (s *stage) answers() {
	s.title("PromQL answers")
	for _, q := range []struct {
		ask  string
		unit string
		ok   func(float64) bool
	}{
		{`sum(rate(udp_packets_total{direction="rx"}[10s]))`, "datagrams/s", func(v float64) bool { return v > 1000 }},
		{`histogram_quantile(0.5, sum(rate(udp_forward_latency_seconds[30s])))`, "s", func(v float64) bool { return v > 1e-6 && v < 1 }},
		{`histogram_quantile(0.99, sum(rate(udp_forward_latency_seconds[30s])))`, "s", func(v float64) bool { return v > 1e-6 && v < 1 }},
		{`max_over_time(udp_batch_size_max[10s])`, "datagrams", func(v float64) bool { return v >= 1 }},
		{`histogram_quantile(0.99, sum(rate(http_server_request_duration_seconds[30s])))`, "s", func(v float64) bool { return v > 0 && v < 10 }},
	} {
		v, found := s.one(q.ask, time.Time{})
		s.hold(found && q.ok(v), "%s = %.6g %s", q.ask, v, q.unit)
	}
}

// ackWord is a word of the page that the forwarder keeps of completed records, and the
// series that counts the same. See cshim/examples/udpfwd.c.
type ackWord struct {
	word             int
	prometheus, otlp string
	labels           string
	most             float64 // that one record call adds: a batch
}

var ackWords = []ackWord{
	{0, "udp_packets_total", "udp_packets", `direction="rx"`, 32},
	{1, "udp_bytes_total", "udp_bytes", `direction="rx"`, 32 * 2048},
	{2, "udp_packets_total", "udp_packets", `direction="tx"`, 32},
	{3, "udp_bytes_total", "udp_bytes", `direction="tx"`, 32 * 2048},
}

const (
	ackThreadWords = 8
	ackThreads     = 2
	ackLatencies   = 5
)

// death kills the forwarder and holds what the store says against what it had done.
func (s *stage) death() {
	s.title("SIGKILL to the forwarder, pid %d, in the middle of its work", s.forwarder.Process.Pid)
	if err := s.forwarder.Process.Signal(syscall.SIGKILL); err != nil {
		s.hold(false, "killed (%v)", err)
		return
	}
	<-s.forwarder.exited // until then it may still record
	b, err := os.ReadFile(s.ack)
	if err != nil {
		s.hold(false, "what it had done can be read (%v)", err)
		return
	}
	acked := func(word int) (n float64) {
		for thread := range ackThreads {
			n += float64(binary.LittleEndian.Uint64(b[(thread*ackThreadWords+word)*8:]))
		}
		return n
	}
	err = s.eventually("the daemon has the last words", func() error {
		out, err := exec.CommandContext(s.ctx, filepath.Join(s.bin, "shmctl"), "ls", "--store", s.store).Output()
		if err == nil && !bytes.Contains(out, []byte("dead")) {
			err = fmt.Errorf("shmctl ls shows nothing dead:\n%s", out)
		}
		return err
	})
	s.hold(err == nil, "shmctl ls says that it is dead%s", because(err))
	s.pause(2 * time.Second) // the daemon polls each 500 ms
	for _, w := range ackWords {
		want := acked(w.word)
		got, found := s.one("last_over_time("+w.prometheus+"{"+w.labels+"}[1m])", time.Time{})
		s.last[w] = got
		s.hold(found && got >= want && got <= want+ackThreads*w.most,
			"%s{%s}: it had completed %.0f, the store says %.0f", w.prometheus, w.labels, want, got)
	}
	want := acked(ackLatencies)
	got, found := s.one("histogram_count(last_over_time(udp_forward_latency_seconds[1m]))", time.Time{})
	s.hold(found && got >= want && got <= want+ackThreads, "udp_forward_latency_seconds: it had completed %.0f, the store says %.0f", want, got)
	_, still := s.one(`udp_packets_total`, time.Time{})
	s.hold(!still, "and the series have ended: an instant query of now finds none")
}

// left shows what left the machine by OTLP.
func (s *stage) left() {
	s.title("What left by OTLP")
	if s.receiver == nil {
		s.say("to the collector that you named: look there for service udpfwd")
		return
	}
	_ = s.eventually("the last values have left", func() error {
		if _, ended := s.receiver.ended("udpfwd", "udp_packets"); !ended {
			return fmt.Errorf("no end of udp_packets yet")
		}
		return nil
	})
	requests, size, points, streams := s.receiver.totals()
	s.hold(requests > 0, "%d requests, %d kB, %d data points of %d streams", requests, size/1000, points, streams)
	for _, w := range ackWords {
		got := s.receiver.value("udpfwd", w.otlp, w.labels)
		s.hold(got.ended && got.value == s.last[w], "udpfwd %s{%s}: %.0f, then its end (NoRecordedValue)", w.otlp, w.labels, got.value)
	}
	count, ended := s.receiver.ended("udpfwd", "udp_forward_latency")
	s.hold(count > 0 && ended, "udpfwd udp_forward_latency: an exponential histogram of %d, then its end", count)
}

// sizes shows what it takes.
func (s *stage) sizes() {
	s.title("What it takes, for ever: on /dev/shm")
	var total int64
	_ = filepath.WalkDir(s.store, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			var st syscall.Stat_t
			_ = syscall.Stat(path, &st)
			s.say("%7d kB (%d kB allocated)  %s", info.Size()/1024, st.Blocks/2, strings.SplitN(filepath.Base(path), ".", 2)[0])
			total += info.Size()
		}
		return nil
	})
	s.hold(total > 0 && total < 4<<20, "together %d kB", total/1024)
	var kept int64
	_ = filepath.WalkDir(s.archive, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				kept += info.Size()
			}
		}
		return nil
	})
	s.hold(kept > 0 && kept <= 24<<20, "and on disk %d kB, which is all that the archive will ever take", kept/1024)
}
