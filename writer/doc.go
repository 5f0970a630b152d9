// Package writer records metrics into a segment of shared memory: a file that
// other processes read while this one lives, and after it died. FORMAT.md is the
// law of that file; this package is its writer in Go.
//
//	w, err := writer.Open(writer.Options{Job: "checkout"})
//	if err != nil {
//		log.Print(err) // recording works all the same, and goes nowhere
//	}
//	defer w.Close()
//	requests := w.Counter("http_requests_total", writer.Label("method", "GET"), writer.Help("Requests served."))
//	latency := w.Histogram("http_request_duration_seconds", writer.Buckets(0.001, 10), writer.Unit("s"))
//	...
//	requests.Inc()
//	latency.Record(time.Since(start).Seconds())
//
// A record call reads no clock, makes no system call, takes no lock and
// allocates nothing. Handles are safe for any number of goroutines: each P has
// a lane of its own in the segment and adds plainly there (FORMAT.md 7). A
// goroutine that is the only one to record something can have a lane for
// itself: see [Writer.Lane].
//
// Nothing here fails or slows the application. Where there is no directory, no
// memory or no room, handles record into private memory or into nothing, and
// [Writer.Err] and [Writer.Stats] say so. No method panics on a nil handle.
//
// A tick publishes the values as rows (FORMAT.md 10.4): a goroutine of the
// writer's does that unless [Options.NoTicker] says otherwise.
package writer
