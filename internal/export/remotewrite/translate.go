package remotewrite

import (
	"bytes"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/export/pbwire"
)

// Field numbers of prometheus.WriteRequest.
const (
	v1Timeseries = 1
	v1Metadata   = 3

	v1Labels     = 1
	v1Samples    = 2
	v1Exemplars  = 3
	v1Histograms = 4
	v1Name       = 1
	v1Value      = 2

	v1MetadataType = 1
	v1MetadataName = 2
	v1MetadataHelp = 4
	v1MetadataUnit = 5
)

// translate makes a prometheus.WriteRequest of a request of 2.0 that an Encoder wrote: labels are spelled out, starts are left
// away, and metadata are kept for a request of their own.
func (e *Encoder) translate(b, symbols, series []byte) []byte {
	var texts [][]byte
	pbwire.Each(symbols, func(_ protowire.Number, _ protowire.Type, text []byte, _ uint64) { texts = append(texts, text) })
	pbwire.Each(series, func(_ protowire.Number, _ protowire.Type, ts []byte, _ uint64) {
		var body int
		b, body = pbwire.Open(b, v1Timeseries)
		var name []byte
		floats := false
		pbwire.Each(ts, func(n protowire.Number, _ protowire.Type, v []byte, _ uint64) {
			switch n {
			case seriesLabels:
				b, name = appendLabels(b, v1Labels, v, texts)
			case seriesSamples:
				floats = true
				b = without(b, v1Samples, v, sampleStart)
			case seriesHistograms:
				b = without(b, v1Histograms, v, histStart)
			case seriesExemplars:
				b = appendExemplarV1(b, v, texts)
			case seriesMetadata:
				e.keepMetadata(name, v, texts, floats)
			}
		})
		b = pbwire.Shut(b, body)
	})
	return b
}

// appendLabels spells out pairs of numbers of symbols, and finds the metric's name among them.
func appendLabels(b []byte, field protowire.Number, refs []byte, texts [][]byte) (out, name []byte) {
	for len(refs) > 0 {
		n, size := protowire.ConsumeVarint(refs)
		v, more := protowire.ConsumeVarint(refs[max(size, 0):])
		if size < 0 || more < 0 {
			break
		}
		refs = refs[size+more:]
		var body int
		b, body = pbwire.Open(b, field)
		b = protowire.AppendBytes(protowire.AppendTag(b, v1Name, protowire.BytesType), texts[n])
		b = protowire.AppendBytes(protowire.AppendTag(b, v1Value, protowire.BytesType), texts[v])
		b = pbwire.Shut(b, body)
		if string(texts[n]) == "__name__" {
			name = texts[v]
		}
	}
	return b, name
}

// without appends a message as a field, but for a field of its own, which is its last.
func without(b []byte, field protowire.Number, message []byte, left protowire.Number) []byte {
	end := len(message)
	for at := 0; at < len(message); {
		n, t, size := protowire.ConsumeTag(message[at:])
		if size < 0 {
			break
		}
		if n == left {
			end = at
			break
		}
		more := protowire.ConsumeFieldValue(n, t, message[at+size:])
		if more < 0 {
			break
		}
		at += size + more
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), message[:end])
}

func appendExemplarV1(b, message []byte, texts [][]byte) []byte {
	b, body := pbwire.Open(b, v1Exemplars)
	pbwire.Each(message, func(n protowire.Number, _ protowire.Type, v []byte, number uint64) {
		switch n {
		case exemplarLabels:
			b, _ = appendLabels(b, exemplarLabels, v, texts)
		case exemplarValue:
			b = pbwire.Fixed(b, exemplarValue, number)
		case exemplarTime:
			b = pbwire.Varint(b, exemplarTime, number)
		}
	})
	return pbwire.Shut(b, body)
}

// keepMetadata keeps a series' metadata for the next request of those. A classic histogram's series are of one family.
func (e *Encoder) keepMetadata(name, message []byte, texts [][]byte, floats bool) {
	if e.o.NoMetadata || name == nil {
		return
	}
	var typ, help, unit uint64
	pbwire.Each(message, func(n protowire.Number, _ protowire.Type, _ []byte, number uint64) {
		switch n {
		case metadataType:
			typ = number
		case metadataHelp:
			help = number
		case metadataUnit:
			unit = number
		}
	})
	if typ == typeHistogram && floats {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if cut, ok := bytes.CutSuffix(name, []byte(suffix)); ok {
				name = cut
				break
			}
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	m := &e.metadata
	if _, ok := m.of[string(name)]; ok || len(m.of) >= maxFamilies {
		return
	}
	if m.of == nil {
		m.of = map[string]family{}
	}
	m.of[string(name)] = family{typ, string(texts[help]), string(texts[unit])}
}

// dueMetadata are the requests with what was kept, if it is time for them.
func (e *Encoder) dueMetadata(now time.Time) (requests [][]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := &e.metadata
	if len(m.of) == 0 || now.Before(m.next) {
		return nil
	}
	m.next = now.Add(e.o.MetadataInterval)
	names := make([]string, 0, len(m.of))
	for name := range m.of {
		names = append(names, name)
	}
	slices.Sort(names)
	var b []byte
	for _, name := range names {
		f := m.of[name]
		var body int
		b, body = pbwire.Open(b, v1Metadata)
		b = pbwire.Varint(b, v1MetadataType, f.typ)
		b = pbwire.String(b, v1MetadataName, name)
		b = pbwire.String(b, v1MetadataHelp, f.help)
		b = pbwire.String(b, v1MetadataUnit, f.unit)
		if b = pbwire.Shut(b, body); len(b) >= e.o.MaxBytes {
			requests, b = append(requests, b), nil
		}
	}
	if len(b) > 0 {
		requests = append(requests, b)
	}
	return requests
}

// forgetMetadata forgets what was sent: what series still say is kept again.
func (e *Encoder) forgetMetadata() {
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.metadata.of)
}
