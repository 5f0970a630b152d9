package promshm

import (
	"encoding/hex"

	dto "github.com/prometheus/client_model/go"

	"github.com/shmts/shmts/writer/internal/bridge"
)

// offer offers the exemplars of the metric that was brought last. Some may be nil.
func (b *Bridge) offer(key string, list ...*dto.Exemplar) {
	b.traced = b.traced[:0]
	for _, p := range list {
		if p == nil {
			continue
		}
		x := bridge.Exemplar{Value: p.GetValue()}
		for _, l := range p.GetLabel() {
			switch l.GetName() {
			case "trace_id", "traceID":
				digits(x.TraceID[:], l.GetValue())
			case "span_id", "spanID":
				digits(x.SpanID[:], l.GetValue())
			}
		}
		if p.GetTimestamp() != nil {
			x.Time = p.GetTimestamp().AsTime()
		}
		b.traced = append(b.traced, x)
	}
	b.set.Exemplars(key, b.traced)
}

// digits reads an id of hexadecimal digits into the bytes of id, on the right: some write trace ids of 64 bits. What is no such
// id leaves zeros.
func digits(id []byte, text string) {
	if n := len(text) / 2; len(text)%2 == 0 && n > 0 && n <= len(id) {
		if _, err := hex.Decode(id[len(id)-n:], []byte(text)); err != nil {
			clear(id)
		}
	}
}
