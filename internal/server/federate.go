package server

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	stale "github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"google.golang.org/protobuf/encoding/protodelim"
	"google.golang.org/protobuf/proto"

	"github.com/shmts/shmts/internal/query"
)

// federate shows the newest sample of what match[] selects, in the text format, or in protobuf, which alone has native histograms.
func (s *server) federate(w http.ResponseWriter, r *http.Request) int {
	list, done, err := s.newest(r)
	if err != nil {
		return plainError(w, err)
	}
	defer done()
	// What is scraped by: of Prometheus's four formats not the two that are for reading protobuf by eye.
	format := expfmt.NegotiateAccept(r.Header, expfmt.NewFormat(expfmt.TypeProtoDelim), expfmt.NewFormat(expfmt.TypeTextPlain))
	w.Header().Set("Content-Type", string(format))
	w.Header().Add("Vary", "Accept-Encoding")
	p := s.pace(w)
	var to io.Writer = p
	zip := coding(r)
	if zip != "" {
		w.Header().Set("Content-Encoding", zip)
		z := zippers[zip].Get().(zipper)
		defer zippers[zip].Put(z)
		z.Reset(p)
		to = z
	}
	if format.FormatType() == expfmt.TypeProtoDelim {
		err = encodeFamilies(list, true, func(f *dto.MetricFamily) error { _, err := protodelim.MarshalTo(to, f); return err })
	} else {
		err = encodeFamilies(list, false, func(f *dto.MetricFamily) error { _, err := expfmt.MetricFamilyToText(to, f); return err })
	}
	if z, ok := to.(zipper); ok && err == nil {
		err = z.Close()
	}
	if err != nil {
		s.Logger.Debug("federation was not answered to its end", "err", err)
		panic(http.ErrAbortHandler)
	}
	p.end()
	return http.StatusOK
}

// newest is what match[] selects, sorted by name. It counts as memory until done is called.
func (s *server) newest(r *http.Request) (out promql.Vector, done func(), err error) {
	sets, err := s.Engine(r).Selectors(r.Form["match[]"])
	if err != nil {
		return nil, nil, badRequest(err)
	}
	if len(sets) == 0 {
		return nil, func() {}, nil
	}
	now := timestamp.FromTime(s.Now())
	hints := &storage.SelectHints{Start: now - s.Engine(r).Lookback().Milliseconds(), End: now}
	q, err := s.Engine(r).Querier(hints.Start, hints.End)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if done == nil {
			q.Close()
		}
	}()
	selected := make([]storage.SeriesSet, len(sets))
	for i, m := range sets {
		selected[i] = q.Select(r.Context(), true, hints, m...)
	}
	set := selected[0]
	if len(selected) > 1 {
		set = storage.NewMergeSeriesSet(selected, 0, storage.ChainedSeriesMerge)
	}
	var it chunkenc.Iterator
	for set.Next() {
		series := set.At()
		it = series.Iterator(it)
		last := promql.Sample{}
		found := false
		for v := it.Next(); v != chunkenc.ValNone && it.AtT() <= now; v = it.Next() {
			found = true
			if v == chunkenc.ValFloat {
				last.H = nil
				last.T, last.F = it.At()
			} else {
				last.T, last.H = it.AtFloatHistogram(nil)
			}
		}
		if err := it.Err(); err != nil {
			return nil, nil, err
		}
		// The formats have no staleness.
		if !found || last.H == nil && stale.IsStaleNaN(last.F) || last.H != nil && stale.IsStaleNaN(last.H.Sum) {
			continue
		}
		last.Metric = series.Labels()
		if len(out)%1024 == 0 {
			if err := cmp.Or(r.Context().Err(), query.Held(q, 1024*sampleBytes)); err != nil {
				return nil, nil, err
			}
		}
		out = append(out, last)
	}
	if err := set.Err(); err != nil {
		return nil, nil, err
	}
	if len(out) > s.MaxReadSamples {
		return nil, nil, badRequest(errors.New("shmts: more series than an answer may have samples"))
	}
	slices.SortStableFunc(out, func(a, b promql.Sample) int {
		return strings.Compare(a.Metric.Get(model.MetricNameLabel), b.Metric.Get(model.MetricNameLabel))
	})
	return out, func() { q.Close() }, nil
}

// sampleBytes is what a sample takes beside its labels.
const sampleBytes = 48

// encodeFamilies writes samples, sorted by name: untyped, since a query can't tell a counter from a gauge, and histograms where the
// format has them.
func encodeFamilies(list promql.Vector, native bool, encode func(*dto.MetricFamily) error) error {
	var family *dto.MetricFamily
	was := dto.MetricType(-1)
	for i := range list {
		x := &list[i]
		kind := dto.MetricType_UNTYPED
		switch {
		case x.H == nil:
		case !native:
			continue
		case x.H.CounterResetHint == histogram.GaugeType:
			kind = dto.MetricType_GAUGE_HISTOGRAM
		default:
			kind = dto.MetricType_HISTOGRAM
		}
		if name := x.Metric.Get(model.MetricNameLabel); family == nil || family.GetName() != name || kind != was {
			if family != nil {
				if err := encode(family); err != nil {
					return err
				}
			}
			family, was = &dto.MetricFamily{Type: kind.Enum(), Name: proto.String(name)}, kind
		}
		m := &dto.Metric{TimestampMs: proto.Int64(x.T)}
		instance := false
		x.Metric.Range(func(l labels.Label) {
			if l.Name != model.MetricNameLabel {
				m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(l.Name), Value: proto.String(valid(l.Value))})
				instance = instance || l.Name == model.InstanceLabel
			}
		})
		if !instance { // or the one who scrapes would give it ours
			m.Label = append(m.Label, &dto.LabelPair{Name: proto.String(model.InstanceLabel), Value: proto.String("")})
		}
		if x.H == nil {
			m.Untyped = &dto.Untyped{Value: proto.Float64(x.F)}
		} else {
			m.Histogram = nativeHistogram(x.H)
		}
		family.Metric = append(family.Metric, m)
	}
	if family == nil {
		return nil
	}
	return encode(family)
}

func nativeHistogram(h *histogram.FloatHistogram) *dto.Histogram {
	return &dto.Histogram{
		SampleCountFloat: proto.Float64(h.Count), SampleSum: proto.Float64(h.Sum), Schema: proto.Int32(h.Schema),
		ZeroThreshold: proto.Float64(h.ZeroThreshold), ZeroCountFloat: proto.Float64(h.ZeroCount),
		NegativeCount: h.NegativeBuckets, PositiveCount: h.PositiveBuckets,
		NegativeSpan: bucketSpans(h.NegativeSpans), PositiveSpan: bucketSpans(h.PositiveSpans),
	}
}

func bucketSpans(spans []histogram.Span) []*dto.BucketSpan {
	var out []*dto.BucketSpan
	for _, s := range spans {
		out = append(out, &dto.BucketSpan{Offset: proto.Int32(s.Offset), Length: proto.Uint32(s.Length)})
	}
	return out
}
