package main

import (
	"fmt"
	"time"

	"github.com/shmts/shmts/writer"
)

// ticks are subjects whose call is a tick that publishes a row: of a table of counters,
// by cells and lanes, and of a segment as a service has it by default. The clock is
// the caller's and moves a step each time, so that every call has something to do.
func ticks(dir string) (subjects []*subject, done func(), err error) {
	var open []*writer.Writer
	done = func() {
		for _, w := range open {
			w.Close()
		}
	}
	add := func(name string, o writer.Options, register func(w *writer.Writer)) error {
		mono := time.Now().UnixNano()
		o.Job, o.Instance, o.Dir, o.NoTicker = "tick", name, dir, true
		o.Clock = func() (int64, int64) { return mono, mono }
		w, err := writer.Open(o)
		open = append(open, w)
		if err != nil {
			return err
		}
		register(w)
		if err := w.Err(); err != nil {
			return err
		}
		subjects = append(subjects, &subject{name: "shmts/Tick/" + name, goroutines: 1, body: loop(func(n int) {
			for range n {
				mono += int64(time.Second)
				w.Tick()
			}
		})})
		return nil
	}
	for _, cells := range []int{1000, 10_000} {
		for _, lanes := range []int{1, 8} {
			o := writer.Options{OwnedLanes: -1, Tables: []writer.Table{{Name: "scalars", Counters: cells, Lanes: lanes,
				Tiers: []writer.Tier{{Step: time.Second, Rows: 8}}}}}
			err := add(fmt.Sprintf("%d_cells_%d_lanes", cells, lanes), o, func(w *writer.Writer) {
				for i := range cells { // nothing is recorded, so that no overflow lane is summed as well
					w.Counter(fmt.Sprintf("c%d_total", i))
				}
			})
			if err != nil {
				done()
				return nil, nil, err
			}
		}
	}
	err = add("default_100_series", writer.Options{}, func(w *writer.Writer) {
		for i := range 60 {
			w.Counter(fmt.Sprintf("c%d_total", i)).Inc()
		}
		for i := range 20 {
			w.Gauge(fmt.Sprintf("g%d", i)).Set(1)
		}
		for i := range 10 {
			w.Stat(fmt.Sprintf("s%d", i)).Record(1)
			w.Histogram(fmt.Sprintf("h%d", i)).Record(0.5)
		}
	})
	if err != nil {
		done()
		return nil, nil, err
	}
	return subjects, done, nil
}
