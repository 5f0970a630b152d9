package main

import (
	"encoding/hex"
	"net/http"

	"github.com/shmts/shmts/writer"
)

// traceOf is the trace that a request belongs to, by its traceparent header (W3C Trace Context): 00-<trace id>-<span id>-<flags>.
// Without one, or of a trace that is not sampled, it is the zero value, which leaves no exemplar. A service with OpenTelemetry has
// otelshm.Exemplar(ctx) instead.
func traceOf(h http.Header) (ex writer.Exemplar) {
	const trace, span, flags, length = 3, 36, 53, 55
	p := h.Get("traceparent")
	if len(p) < length || len(p) > length && (p[:2] == "00" || p[length] != '-') || p[:2] == "ff" || p[trace-1] != '-' || p[span-1] != '-' || p[flags-1] != '-' {
		return ex
	}
	var flag [1]byte
	if _, err := hex.Decode(flag[:], []byte(p[flags:length])); err != nil || flag[0]&1 == 0 {
		return ex
	}
	if _, err := hex.Decode(ex.TraceID[:], []byte(p[trace:span-1])); err != nil {
		return writer.Exemplar{}
	}
	if _, err := hex.Decode(ex.SpanID[:], []byte(p[span:flags-1])); err != nil {
		return writer.Exemplar{}
	}
	return ex
}
