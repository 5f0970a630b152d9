package otelshm

import (
	"context"

	"go.opentelemetry.io/otel/trace"

	"github.com/shmts/shmts/writer"
)

// Exemplar is the trace that a context belongs to, for what the writer's own handles record in it:
//
//	ex, _ := otelshm.Exemplar(ctx)
//	latency.RecordExemplar(seconds, ex)
//
// Of a context without a span, or with one that is not sampled, so that nobody could look it up, it is the zero value, which leaves
// no exemplar, and false. The time is the caller's to set, if he knows it. It allocates nothing.
func Exemplar(ctx context.Context) (writer.Exemplar, bool) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() || !sc.IsSampled() {
		return writer.Exemplar{}, false
	}
	return writer.Exemplar{TraceID: sc.TraceID(), SpanID: sc.SpanID()}, true
}
