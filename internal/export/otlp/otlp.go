// Package otlp writes rows as OpenTelemetry metrics and sends them, over http/protobuf or gRPC: the export.Encoder of a
// destination that speaks OTLP.
package otlp

import (
	"context"

	"time"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/httpclient"
	"github.com/shmts/shmts/internal/names"
	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/reader"
)

// Options of New.
type Options struct {
	HTTP        httpclient.Options // for grpc the path is the protocol's own
	Protocol    string             // "http/protobuf" (also if empty) or "grpc"
	Compression string             // "gzip", "none" (also if empty), or "auto": gzip unless the receiver is on this host
	Delta       bool               // temporality of what is only ever added to; of an up-down counter it is cumulative

	// Rules say which series go out, by what PromQL has for them: what they do to labels does nothing. nil, or what answers nil: all do.
	Rules func() *relabel.Rules

	BatchBytes  int // a request is sent when it is so large, uncompressed; 0: 2 MiB
	BatchPoints int // or has so many data points; 0: 50,000

	Version string // of the program, for the scope and the User-Agent
}

// Encoder is an export.Encoder for OTLP.
type Encoder struct {
	client client
	delta  bool
	rules  func() *relabel.Rules
	req    request

	// Segments of the same program share a schema. When there are too many, those that
	// segments use stay with them, and the map begins anew.
	schemas map[any]*schema
	scratch []byte
}

var _ export.Encoder = (*Encoder)(nil)

// New makes an encoder. Its error says which option is wrong.
func New(o Options) (*Encoder, error) {
	if o.HTTP.Timeout == 0 {
		o.HTTP.Timeout = 10 * time.Second
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 2 << 20
	}
	if o.BatchPoints == 0 {
		o.BatchPoints = 50_000
	}
	if o.Rules == nil {
		o.Rules = func() *relabel.Rules { return nil }
	}
	scope, body := open(nil, scopeMetricsScope)
	scope = appendString(scope, scopeName, "github.com/shmts/shmts")
	scope = shut(appendString(scope, scopeVersion, o.Version), body)
	c, err := newClient(o)
	if err != nil {
		return nil, err
	}
	return &Encoder{client: c, delta: o.Delta, rules: o.Rules, schemas: map[any]*schema{}, req: request{scope: scope, maxBytes: o.BatchBytes, maxPoints: o.BatchPoints}}, nil
}

// Add implements export.Encoder.
func (e *Encoder) Add(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	return e.req.whole(src, e.resource(src), row, false, at)
}

// End implements export.Encoder.
func (e *Encoder) End(src *export.Source, row *export.Row, at export.Cursor) (export.Cursor, bool) {
	return e.req.whole(src, e.resource(src), row, true, at)
}

// Full implements export.Encoder.
func (e *Encoder) Full() bool { return e.req.full() }

// Points implements export.Encoder.
func (e *Encoder) Points() int { return e.req.points }

// Reset implements export.Encoder.
func (e *Encoder) Reset() { e.req.reset() }

// Send implements export.Encoder.
func (e *Encoder) Send(ctx context.Context) export.Result {
	res := e.client.export(ctx, e.req.buf)
	out := export.Result{Err: res.err, Retry: res.retry, After: res.after, Message: res.message, Bytes: res.bytes}
	switch {
	case res.err == nil:
		rejected := int(min(max(res.rejected, 0), int64(e.req.points)))
		out.Taken = e.req.points - rejected
		if rejected > 0 {
			out.Refused = map[string]int{"partial_success": rejected}
		}
	case !res.retry:
		out.Refused = map[string]int{res.reason: e.req.points}
	}
	return out
}

// resource is what is written of a source, whatever the row.
type resource struct {
	rules       *relabel.Rules
	schema      *schema
	resource    []byte        // the Resource, as a field of ResourceMetrics
	numberAttrs []byte        // the source's labels, as fields of each data point
	histAttrs   []byte        // the same, of a histogram's
	labels      []reader.Pair // the same
}

func (e *Encoder) resource(src *export.Source) *resource {
	rules := e.rules()
	if r, ok := src.Enc.(*resource); ok && r.rules == rules {
		return r
	}
	r := &resource{rules: rules, labels: names.PointLabels(src.Labels)}
	b, body := open(nil, resourceMetricsResource)
	for _, p := range names.Resource(src.Labels, src.Attributes) {
		b = appendAttribute(b, resourceAttributes, p.Name, p.Value)
	}
	r.resource = shut(b, body)
	for _, p := range r.labels {
		r.numberAttrs = appendAttribute(r.numberAttrs, numberAttrs, p.Name, p.Value)
		r.histAttrs = appendAttribute(r.histAttrs, histAttrs, p.Name, p.Value)
	}
	r.schema = e.schemaOf(src, rules, r.labels)
	src.Enc = r
	return r
}

const maxSchemas = 1024

func (e *Encoder) schemaOf(src *export.Source, rules *relabel.Rules, labels []reader.Pair) *schema {
	key := src.Schema
	kept := keep(src, rules)
	if key == nil || kept != nil {
		key, e.scratch = schemaKey(e.scratch, src.Tables, src.Series, src.Overrides, labels, kept)
	}
	sc := e.schemas[key]
	if sc == nil {
		if len(e.schemas) >= maxSchemas {
			clear(e.schemas)
		}
		sc = newSchema(e.delta, src.Tables, src.Series, src.Overrides, labels, kept)
		e.schemas[key] = sc
	}
	return sc
}
