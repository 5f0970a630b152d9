package reader_test

import (
	"fmt"
	"os"
	"time"

	"github.com/shmts/shmts/internal/segtest"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
)

// What did every service on this host do over the last 10 s? Poll as often as the answer is wanted. This one was killed: its
// last words count.
func ExampleSegment_Delta() {
	store, err := reader.Open(reader.Options{Dir: exampleStore()})
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(store.Dir())
	defer store.Close()
	if _, err := store.Poll(); err != nil {
		panic(err)
	}
	for _, g := range store.Segments() {
		for _, s := range g.Series() {
			d, err := g.Delta(s, 10*time.Second)
			if err != nil {
				continue // no row yet
			}
			fmt.Printf("%s: %s: %g/s over %g s\n", g.Instance(), s.Name, d.PerSecond(), d.Seconds())
		}
	}
	// Output: web-1: requests_total: 23.6/s over 10 s
}

// All rows that are there, as a daemon reads them: each once, by its number, across polls and deaths.
func ExampleSegment_Rows() {
	store, err := reader.Open(reader.Options{Dir: exampleStore()})
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(store.Dir())
	defer store.Close()
	next := map[*reader.Segment]uint64{}
	ev, err := store.Poll()
	if err != nil {
		panic(err)
	}
	for _, g := range ev.New {
		s := g.Find("requests_total")
		for row := range g.Rows(s.Table, 0, next[g]) {
			next[g] = row.No + 1
			if v, ok := row.Value(s); ok && row.No > 10 {
				fmt.Println(row.No, time.Duration(row.Time-g.Start()), v.Int, row.Estimated)
			}
		}
	}
	// Output:
	// 11 11s 275 false
	// 12 12s 300 false
	// 13 13s 311 true
}

// The traces that records were left with, each once across polls: who goes on behind the last misses none that is still there.
func ExampleSegment_Exemplars() {
	store, err := reader.Open(reader.Options{Dir: exampleStore()})
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(store.Dir())
	defer store.Close()
	newest := map[*reader.Segment]uint64{}
	if _, err := store.Poll(); err != nil {
		panic(err)
	}
	for _, g := range store.Segments() {
		if g.ExemplarHead() == newest[g] {
			continue // none came
		}
		for x := range g.Exemplars(newest[g] + 1) {
			newest[g] = x.Number
			fmt.Printf("%s: %g in trace %x\n", x.Series.Name, x.Value, x.TraceID)
		}
	}
	// Output: requests_total: 3 in trace 4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b
}

// exampleStore holds what a killed web server left: 12 rows, and 11 requests after the last of them.
func exampleStore() string {
	dir, err := os.MkdirTemp("", "shmts-example-")
	if err != nil {
		panic(err)
	}
	ts := layout.TableSchema{Name: "scalars", Lanes: 1, RowCells: 1, LaneCells: 1, Tiers: []layout.TierSchema{{Step: time.Second, Rows: 60}}}
	f := segtest.New(nobody{}, segtest.Options{Job: "web", Instance: "web-1", Exemplars: 64, Tables: []layout.TableSchema{ts}})
	requests := f.Series(nobody{}, 0, "requests_total", layout.Counter, layout.U64, layout.BucketRange{})
	for n := uint64(1); n <= 12; n++ {
		f.Publish(0, 0, n, []uint64{25 * n})
	}
	f.Lane(0, 0)[0] = 311
	f.Exemplar(requests, 3, segtest.Birth+12e9, 0x4b)
	if err := f.Give(dir); err != nil {
		panic(err)
	}
	f.Die()
	return dir
}
