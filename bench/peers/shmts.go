package main

import (
	"fmt"
	"sync/atomic"

	"github.com/shmts/shmts/writer"
)

// floor is what the machine charges for the least that could be done: an add to
// private memory that nobody else sees, and the atomic add that sharing costs.
func floor(goroutines int) []*subject {
	shared := new(atomic.Uint64)
	at := func(s *subject) *subject { s.goroutines = goroutines; return s }
	return []*subject{
		at(&subject{name: "floor/private_add", body: func(int, int) func(int) {
			// A line of its own, on the heap: Go keeps no memory in registers from one turn of a loop to the next.
			cells := new([16]uint64)
			return func(n int) {
				p := &cells[8]
				for range n {
					*p++
				}
			}
		}}),
		at(&subject{name: "floor/private_add/in_turn", body: func(int, int) func(int) {
			cells := new([inTurn + 16]uint64)
			return func(n int) {
				for range n / inTurn {
					for i := 8; i < inTurn+8; i++ {
						cells[i]++
					}
				}
			}
		}}),
		at(&subject{name: "floor/atomic_add", body: loop(func(n int) {
			for range n {
				shared.Add(1)
			}
		})}),
	}
}

// inTurn is how many series the subjects of that name go over, one after the other: a
// program that records into one cell alone is rare, and the processor then waits for the store before.
const inTurn = 100

// shmts is this project's writer, with the ticker running as a service has it.
func shmts(goroutines int, dir string) ([]*subject, func(), error) {
	w, err := writer.Open(writer.Options{Job: "bench", Instance: fmt.Sprintf("g%d", goroutines), Dir: dir, Series: 2 * inTurn})
	if err != nil {
		w.Close()
		return nil, nil, err
	}
	counter := w.Counter("packets_total")
	gauge := w.Gauge("depth")
	stat := w.Stat("batch")
	histogram := w.Histogram("latency_seconds", writer.Buckets(0.001, 1), writer.Unit("s"))
	traced := w.Histogram("traced_seconds", writer.Buckets(0.001, 1), writer.Unit("s"))
	rising := w.Histogram("rising_seconds", writer.Buckets(0.001, 1), writer.Unit("s"))
	integer := w.IntHistogram("size_bytes", writer.Buckets(1, 65536), writer.Unit("By"))

	var many [inTurn]*writer.Counter
	for i := range many {
		many[i] = w.Counter("many_total", writer.Label("queue", fmt.Sprint(i)))
	}
	if err := w.Err(); err != nil {
		w.Close()
		return nil, nil, err
	}

	lanes := make([]*writer.Lane, goroutines)
	for g := range lanes {
		if lanes[g], err = w.Lane(); err != nil {
			w.Close()
			return nil, nil, err
		}
	}
	done := func() {
		for _, l := range lanes {
			l.Close()
		}
		w.Close()
	}

	at := func(s *subject) *subject { s.goroutines = goroutines; return s }
	return []*subject{
		at(&subject{name: "shmts/owned/Counter.Add/in_turn", against: []string{"floor/private_add/in_turn", "client_golang/Counter.Inc/in_turn"}, body: func(g, _ int) func(int) {
			var all [inTurn]writer.OwnedCounter
			for i := range all {
				all[i] = lanes[g].Counter(many[i])
			}
			return func(n int) {
				for range n / inTurn {
					for i := range all {
						all[i].Add(1)
					}
				}
			}
		}}),
		at(&subject{name: "shmts/Counter.Add/in_turn", against: []string{"client_golang/Counter.Inc/in_turn"}, body: loop(func(n int) {
			for range n / inTurn {
				for _, c := range many {
					c.Add(1)
				}
			}
		})}),
		at(&subject{name: "shmts/owned/Counter.Add", against: []string{"floor/private_add", "client_golang/Counter.Inc", "otel/Counter.Add/no_attributes",
			"victoriametrics/Counter.Inc"}, body: func(g, _ int) func(int) {
			c := lanes[g].Counter(counter)
			return func(n int) {
				for range n {
					c.Add(1)
				}
			}
		}}),
		at(&subject{name: "shmts/owned/Stat.Record", body: func(g, _ int) func(int) {
			s := lanes[g].Stat(stat)
			return func(n int) {
				for i := range n {
					s.Record(latencies[i&1023])
				}
			}
		}}),
		at(&subject{name: "shmts/owned/Histogram.Record", against: []string{"client_golang/Histogram.Observe/classic", "client_golang/Histogram.Observe/native",
			"otel/Histogram.Record/exponential/no_attributes", "victoriametrics/Histogram.Update"}, body: func(g, _ int) func(int) {
			h := lanes[g].Histogram(histogram)
			return func(n int) {
				for i := range n {
					h.Record(latencies[i&1023])
				}
			}
		}}),
		at(&subject{name: "shmts/Counter.Add", against: []string{"client_golang/Counter.Inc", "otel/Counter.Add/no_attributes",
			"victoriametrics/Counter.Inc"}, body: loop(func(n int) {
			for range n {
				counter.Add(1)
			}
		})}),
		at(&subject{name: "shmts/Gauge.Set", against: []string{"client_golang/Gauge.Set", "otel/Gauge.Record/no_attributes",
			"victoriametrics/Gauge.Set"}, body: loop(func(n int) {
			for i := range n {
				gauge.Set(float64(i))
			}
		})}),
		at(&subject{name: "shmts/Stat.Record", body: loop(func(n int) {
			for i := range n {
				stat.Record(latencies[i&1023])
			}
		})}),
		at(&subject{name: "shmts/Histogram.Record", against: []string{"client_golang/Histogram.Observe/classic", "client_golang/Histogram.Observe/native",
			"otel/Histogram.Record/exponential/no_attributes", "victoriametrics/Histogram.Update"}, body: loop(func(n int) {
			for i := range n {
				histogram.Record(latencies[i&1023])
			}
		})}),
		// With the trace of a request, as a service has it: of a row the first is taken, and then each greater one.
		at(&subject{name: "shmts/Histogram.RecordExemplar", against: []string{"client_golang/Histogram.ObserveWithExemplar/classic", "client_golang/Histogram.ObserveWithExemplar/native",
			"otel/Histogram.Record/exponential/sampled_span", "shmts/Histogram.Record"}, body: loop(func(n int) {
			ex := writer.Exemplar{TraceID: [16]byte{1}, SpanID: [8]byte{2}}
			for i := range n {
				traced.RecordExemplar(latencies[i&1023], ex)
			}
		})}),
		at(&subject{name: "shmts/Histogram.RecordExemplar/each_taken", against: []string{"client_golang/Histogram.ObserveWithExemplar/classic", "client_golang/Histogram.ObserveWithExemplar/native",
			"otel/Histogram.Record/exponential/sampled_span"}, body: func(int, int) func(int) {
			ex, top := writer.Exemplar{TraceID: [16]byte{1}, SpanID: [8]byte{2}}, 1.0
			return func(n int) {
				for range n {
					top++
					rising.RecordExemplar(top, ex)
				}
			}
		}}),
		at(&subject{name: "shmts/IntHistogram.Record", body: loop(func(n int) {
			for i := range n {
				integer.Record(uint64(i & 0xffff))
			}
		})}),
	}, done, nil
}
