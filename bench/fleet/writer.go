package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/shmts/shmts/writer"
)

// segment is one writer and its handles.
type segment struct {
	w          *writer.Writer
	counters   []*writer.Counter
	gauges     []*writer.Gauge
	stats      []*writer.Stat
	histograms []*writer.Histogram
}

// write holds some writers in one process until SIGTERM, each ticking by itself as
// a service's does, and records every series once a second.
func write(store string, first, count int) error {
	all := make([]segment, count)
	for i := range all {
		s := &all[i]
		w, err := writer.Open(writer.Options{Job: "fleet", Instance: fmt.Sprint(first + i), Dir: store})
		if err != nil {
			return err
		}
		defer w.Close()
		s.w = w
		for n := range counters {
			s.counters = append(s.counters, w.Counter(fmt.Sprintf("fleet_c%02d_total", n), writer.Label("queue", fmt.Sprint(n%8))))
		}
		for n := range gauges {
			s.gauges = append(s.gauges, w.Gauge(fmt.Sprintf("fleet_g%02d", n)))
		}
		for n := range stats {
			s.stats = append(s.stats, w.Stat(fmt.Sprintf("fleet_s%02d", n)))
		}
		for n := range histograms {
			s.histograms = append(s.histograms, w.Histogram(fmt.Sprintf("fleet_h%02d_seconds", n), writer.Buckets(0.001, 1), writer.Unit("s")))
		}
		if err := w.Err(); err != nil {
			return err
		}
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	fmt.Println("ready")
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for round := uint64(0); ; round++ {
		for i := range all {
			all[i].record(round, uint64(i))
		}
		select {
		case <-second.C:
		case <-end:
			return nil
		}
	}
}

// timers keeps goroutines that wake up once a second, spread over it as the writers' ticks are.
func timers(count int) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, syscall.SIGTERM)
	for i := range count {
		go func() {
			time.Sleep(time.Second * time.Duration(i) / time.Duration(count))
			for range time.Tick(time.Second) {
			}
		}()
	}
	fmt.Println("ready")
	<-end
}

// record changes every series, by amounts that differ.
func (s *segment) record(round, i uint64) {
	for n, c := range s.counters {
		c.Add(1 + (round*7+i+uint64(n))%100)
	}
	for n, g := range s.gauges {
		g.Set(float64((round*13+i)%1000) + float64(n)/100)
	}
	for n, st := range s.stats {
		st.Record(float64((round*31+i+uint64(n))%500) / 10)
	}
	for n, h := range s.histograms {
		h.Record(0.0011 * float64(1+(round*17+i*5+uint64(n))%900))
	}
}

// printStoreSize prints what a segment takes, as the kernel allocated it.
func printStoreSize(store string, segments int) error {
	var files, bytes int64
	err := filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		files++
		bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
		return nil
	})
	if err != nil {
		return fmt.Errorf("shmts: size of the store: %w", err)
	}
	if files != int64(segments) {
		return fmt.Errorf("shmts: want %d segments in the store, got %d", segments, files)
	}
	fmt.Printf("segment_kB\t%.1f\n", float64(bytes)/float64(files)/1000)
	return nil
}
