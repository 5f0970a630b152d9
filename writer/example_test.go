package writer_test

import (
	"fmt"
	"log"
	"os"

	"github.com/shmts/shmts/writer"
)

// A service opens one writer and keeps the handles: recording is then an add in shared memory.
func Example() {
	dir, err := os.MkdirTemp("", "store") // services leave Dir empty: $SHMTS_DIR, else /dev/shm/shmts
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	w, err := writer.Open(writer.Options{Job: "checkout", Dir: dir})
	if err != nil {
		log.Print(err) // recording works all the same, into private memory
	}
	defer w.Close()

	requests := w.Counter("http_requests_total", writer.Label("method", "GET"), writer.Help("Requests served."))
	latency := w.Histogram("http_request_duration_seconds", writer.Buckets(0.001, 1), writer.Unit("s"))
	queue := w.Stat("queue_depth", writer.NonNegative())

	requests.Inc()
	latency.Record(0.0042)
	queue.Record(17)

	fmt.Println(w.Stats().Series, "series in", w.Stats().Segments, "segment")
	// Output: 3 series in 1 segment
}

// A goroutine that is the only one to count something adds without asking which P it runs on.
func ExampleWriter_Lane() {
	w, _ := writer.Open(writer.Options{Job: "forwarder", Dir: "/nonexistent", NoTicker: true})
	defer w.Close()
	packets := w.Counter("packets_total")

	lane, err := w.Lane()
	if err != nil {
		log.Print(err) // none free: its handles are right all the same
	}
	defer lane.Close()
	mine := lane.Counter(packets)
	for range 1000 {
		mine.Inc()
	}
}

// What a schema costs is known before anything is created.
func ExamplePlan() {
	h, err := writer.Plan(writer.Options{Job: "j", Instance: "i", MaxBytes: 256_000})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(h.TotalSize <= 256_000, len(h.Tables))
	// Output: true 2
}
