// Command record is what bench/proof looks at: a million records of each kind, in
// batches between marks, for strace, and the inlined calls, for the disassembler.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/shmts/shmts/writer"
)

// A batch takes a millisecond or two. After ten the scheduler asks a goroutine to yield, at its
// next function call, and that takes futexes; so it yields by itself, between batches.
const (
	batches = 100
	records = 10_000 // a batch, of each kind
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run records into the store. The thread is locked to the goroutine, so that all its
// system calls are the record calls'; the collector is off, as it would stop the world.
func run(store string) error {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	w, err := writer.Open(writer.Options{Job: "proof", Dir: store, NoTicker: true})
	if err != nil {
		return err
	}
	defer w.Close()
	lane, err := w.Lane()
	if err != nil {
		return err
	}
	counter := w.Counter("counter")
	float := w.FloatCounter("float")
	updown := w.UpDownCounter("updown")
	gauge := w.Gauge("gauge")
	integer := w.IntGauge("integer")
	stat := w.Stat("stat")
	histogram := w.Histogram("histogram")
	ints := w.IntHistogram("ints", writer.Buckets(1, 65536))
	traced, rising := w.Histogram("traced"), w.Counter("rising")
	ex, top := writer.Exemplar{TraceID: [16]byte{1}}, uint64(0)
	owned, ownedStat, ownedHistogram := lane.Counter(counter), lane.Stat(stat), lane.Histogram(histogram)
	if err := w.Err(); err != nil {
		return err
	}
	batch := func() {
		mark(markBegin)
		for i := range records {
			v := float64(i%1000) / 1000
			counter.Add(1)
			float.Add(v)
			updown.Add(-1)
			gauge.Set(v)
			integer.Set(int64(i))
			stat.Record(v)
			histogram.Record(v)
			ints.Record(uint64(i))
			ownedAdd(owned)
			ownedStat.Record(v)
			ownedHistogram.Record(v)
			traced.RecordExemplar(v, ex) // seldom taken
			top++
			rising.AddExemplar(top, ex) // always
		}
		mark(markEnd)
	}
	for range batches {
		batch()
		runtime.Gosched()
	}
	return nil
}

// The marks are system calls that stand out in a trace: closing descriptors that can't be.
// Made raw, so that the runtime has no part in them: it may take this thread's P away in
// an ordinary one, and the thread then waits for another.
const (
	markBegin = -1_000_001
	markEnd   = -1_000_002
)

func mark(fd int) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// ownedAdd is there to be disassembled: what an owned counter's Add compiles to where it is used.
//
//go:noinline
func ownedAdd(c writer.OwnedCounter) { c.Add(1) }
