package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shmts/shmts/bench/corpus"
	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/reader"
)

// record records this host each second, while it carries the demo's load, a UDP forwarder that counts with shmts.h, and the rows of
// that forwarder's segment.
func record(o options) error {
	if o.dir == "" {
		return errors.New("shmts: record: want -dir, got none")
	}
	store, err := os.MkdirTemp("/dev/shm", "shmts-record-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(store)
	in, err := freeUDP()
	if err != nil {
		return err
	}
	out, err := freeUDP()
	if err != nil {
		return err
	}
	// As the demo has them: see internal/demo.
	forwarder, err := begin(filepath.Join(o.bin, "udpfwd"), "--listen", in, "--target", out, "--threads", "2", "--dir", store, "--job", "udpfwd", "--instance", "demo")
	if err != nil {
		return err
	}
	defer stop(forwarder)
	generator, err := begin(filepath.Join(o.bin, "udpgen"), "--target", in, "--sink", out, "--rate", "50000", "--bytes", "256", "--flows", "8", "--seconds", fmt.Sprint(o.rows+10))
	if err != nil {
		return err
	}
	defer stop(generator)

	h := hostmix.NewHost()
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for range o.rows {
		<-second.C
		h.Sample()
	}
	if err := save(filepath.Join(o.dir, corpus.HostFile), h.Series()); err != nil {
		return err
	}
	demo, err := rowsOfStore(store, o.rows-2)
	if err != nil {
		return err
	}
	return save(filepath.Join(o.dir, corpus.DemoFile), demo)
}

func begin(path string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("shmts: start %s: %w", path, err)
	}
	return cmd, nil
}

func stop(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func freeUDP() (string, error) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.LocalAddr().String(), nil
}

func save(path string, series []*hostmix.Series) error {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	if err := hostmix.Write(w, series); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// rowsOfStore are the last rows of the one segment's table of 1 s, each cell a series of its own: a stat has five.
func rowsOfStore(store string, rows int) ([]*hostmix.Series, error) {
	s, err := reader.Open(reader.Options{Dir: store})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if _, err := s.Poll(); err != nil {
		return nil, err
	}
	if n := len(s.Segments()); n != 1 {
		return nil, fmt.Errorf("shmts: record: want one segment in the store, got %d", n)
	}
	g := s.Segments()[0]
	table := -1
	for i, t := range g.Tables() {
		if len(t.Tiers) > 0 && t.Tiers[0].Step == time.Second {
			table = i
			break
		}
	}
	if table < 0 {
		return nil, errors.New("shmts: record: the forwarder has no table at 1 s")
	}
	var out []*hostmix.Series
	n := 0
	from := uint64(max(1, int64(g.Head(table, 0))-int64(rows)+1))
	for row := range g.Rows(table, 0, from) {
		at := 0
		for _, sr := range g.Series() {
			words, ok := row.Words(sr)
			if sr.Table != table || sr.Kind == reader.Histogram {
				continue
			}
			if !ok {
				return nil, fmt.Errorf("shmts: record: row %d does not hold %s", row.No, sr.Name)
			}
			for k, word := range words {
				if n == 0 {
					name := sr.Name
					for _, p := range sr.Labels {
						name += "/" + p.Value
					}
					out = append(out, &hostmix.Series{Name: fmt.Sprintf("%s/%d", name, k), Float: sr.Number == reader.F64 && (sr.Kind != reader.Stat || k > 0)})
				}
				out[at].Values = append(out[at].Values, word)
				at++
			}
		}
		n++
	}
	if n < rows/2 {
		return nil, fmt.Errorf("shmts: record: want about %d rows of the forwarder, got %d", rows, n)
	}
	return out, nil
}
