package server

import (
	hexa "encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/timestamp"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/stats"

	"github.com/shmts/shmts/internal/query"
)

// data is the envelope's data, written in Prometheus's format.
type data interface{ write(o *out) }

// out collects an answer and hands it on in parts, gzipped if the client takes that. A client
// that does not take the next part within wait is given up.
type out struct {
	buf  []byte
	w    http.ResponseWriter
	pace *pace
	zip  string // content coding; empty: none
	gz   zipper
	code int
	sent bool
	err  error
}

const (
	partSize = 64 << 10
	zipFrom  = 1 << 10 // smaller answers are not worth it
)

var (
	buffers = sync.Pool{New: func() any { b := make([]byte, 0, partSize+4<<10); return &b }}
	zippers = map[string]*sync.Pool{
		"gzip":    {New: func() any { z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return z }},
		"deflate": {New: func() any { z, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed); return z }},
	}
)

// zipper is a writer of gzip, or of zlib, which HTTP calls deflate.
type zipper interface {
	io.WriteCloser
	Reset(io.Writer)
}

// respond writes an answer and returns its status code.
func (s *server) respond(w http.ResponseWriter, r *http.Request, a answer) int {
	if a.done != nil {
		defer a.done()
	}
	if a.err != nil {
		return s.fail(w, a.err)
	}
	if a.data == nil {
		w.WriteHeader(http.StatusNoContent)
		return http.StatusNoContent
	}
	b := buffers.Get().(*[]byte)
	o := &out{buf: (*b)[:0], w: w, pace: s.pace(w), zip: coding(r), code: http.StatusOK}
	o.raw(`{"status":"success","data":`)
	a.data.write(o)
	o.list("warnings", a.warnings)
	o.list("infos", a.infos)
	o.raw("}")
	o.finish()
	if *b = o.buf[:0]; cap(*b) <= 4*partSize {
		buffers.Put(b)
	}
	if o.err != nil {
		s.Logger.Debug("the client did not take its answer", "path", r.URL.Path, "err", o.err)
	}
	return o.code
}

// fail writes an error.
func (s *server) fail(w http.ResponseWriter, e *apiError) int {
	o := &out{}
	o.raw(`{"status":"error","errorType":`)
	o.str(e.name)
	o.raw(`,"error":`)
	o.str(e.err.Error())
	o.raw("}")
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(o.buf)))
	if e.errorType == unavailable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(e.code)
	w.Write(o.buf) // a client that is gone needs no answer
	return e.code
}

// coding is what a client takes, of gzip and deflate the first that it says.
func coding(r *http.Request) string {
	for _, v := range r.Header.Values("Accept-Encoding") {
		for part := range strings.SplitSeq(v, ",") {
			name, q, _ := strings.Cut(part, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			if zippers[name] == nil {
				continue
			}
			q = strings.TrimPrefix(strings.ReplaceAll(q, " ", ""), "q=")
			if f, err := strconv.ParseFloat(q, 64); q == "" || err == nil && f > 0 {
				return name
			}
		}
	}
	return ""
}

// part sends what is collected, once it is enough.
func (o *out) part() {
	if len(o.buf) >= partSize {
		o.flush()
	}
}

func (o *out) begin(whole bool) {
	h := o.w.Header()
	h.Set("Content-Type", "application/json")
	h.Add("Vary", "Accept-Encoding")
	if o.zip != "" && (!whole || len(o.buf) >= zipFrom) {
		h.Set("Content-Encoding", o.zip)
		o.gz = zippers[o.zip].Get().(zipper)
		o.gz.Reset(o.w)
	} else if whole {
		h.Set("Content-Length", strconv.Itoa(len(o.buf)))
	}
	o.w.WriteHeader(o.code)
	o.sent = true
}

func (o *out) flush() {
	if !o.sent {
		o.begin(false)
	}
	if o.err == nil {
		o.pace.deadline()
		o.pace.sent += int64(len(o.buf)) // as it is before it is zipped: a slow line is no slow reader
		if o.gz != nil {
			_, o.err = o.gz.Write(o.buf)
		} else {
			_, o.err = o.w.Write(o.buf)
		}
	}
	o.buf = o.buf[:0]
}

func (o *out) finish() {
	if !o.sent {
		o.begin(true)
	}
	o.flush()
	if o.gz != nil {
		if err := o.gz.Close(); o.err == nil {
			o.err = err
		}
		zippers[o.zip].Put(o.gz)
		o.gz = nil
	}
	if o.err == nil {
		o.err = o.pace.end()
	}
}

func (o *out) raw(s string) { o.buf = append(o.buf, s...) }

// list writes a further member of the envelope, if it has any elements.
func (o *out) list(name string, list []string) {
	if len(list) == 0 {
		return
	}
	o.raw(`,"` + name + `":`)
	strs(list).write(o)
}

const hex = "0123456789abcdef"

// str writes a JSON string. Bytes that are no UTF-8 become U+FFFD.
func (o *out) str(s string) {
	o.buf = append(o.buf, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		o.buf = append(o.buf, s[from:i]...)
		switch {
		case c >= utf8.RuneSelf:
			o.buf = append(o.buf, "\\ufffd"...)
		case c == '"' || c == '\\':
			o.buf = append(o.buf, '\\', c)
		case c == '\n':
			o.buf = append(o.buf, '\\', 'n')
		case c == '\r':
			o.buf = append(o.buf, '\\', 'r')
		case c == '\t':
			o.buf = append(o.buf, '\\', 't')
		default:
			o.buf = append(o.buf, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	o.buf = append(o.buf, s[from:]...)
	o.buf = append(o.buf, '"')
}

// time writes ms as seconds, with three places if there is a fraction.
func (o *out) time(t int64) {
	if t < 0 {
		o.buf = append(o.buf, '-')
		t = -t
	}
	o.buf = strconv.AppendInt(o.buf, t/1000, 10)
	if f := t % 1000; f != 0 {
		o.buf = append(o.buf, '.', byte('0'+f/100), byte('0'+f/10%10), byte('0'+f%10))
	}
}

// float writes a sample's value, which is a string.
func (o *out) float(f float64) {
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	o.buf = append(o.buf, '"')
	o.buf = strconv.AppendFloat(o.buf, f, format, -1, 64)
	o.buf = append(o.buf, '"')
}

func (o *out) labels(ls labels.Labels) {
	o.buf = append(o.buf, '{')
	first := true
	ls.Range(func(l labels.Label) {
		if !first {
			o.buf = append(o.buf, ',')
		}
		first = false
		o.str(l.Name)
		o.buf = append(o.buf, ':')
		o.str(l.Value)
	})
	o.buf = append(o.buf, '}')
}

// point writes [time, value].
func (o *out) point(t int64, f float64) {
	o.buf = append(o.buf, '[')
	o.time(t)
	o.buf = append(o.buf, ',')
	o.float(f)
	o.buf = append(o.buf, ']')
}

func (o *out) histogramPoint(t int64, h *histogram.FloatHistogram) {
	o.buf = append(o.buf, '[')
	o.time(t)
	o.buf = append(o.buf, ',')
	o.histogram(h)
	o.buf = append(o.buf, ']')
}

// histogram writes a native histogram: buckets are [which bounds are inclusive, lower, upper, count].
func (o *out) histogram(h *histogram.FloatHistogram) {
	o.raw(`{"count":`)
	o.float(h.Count)
	o.raw(`,"sum":`)
	o.float(h.Sum)
	first := true
	for it := h.AllBucketIterator(); it.Next(); {
		b := it.At()
		if b.Count == 0 {
			continue
		}
		if first {
			o.raw(`,"buckets":[[`)
		} else {
			o.raw(`,[`)
		}
		first = false
		rule := byte('2')
		switch {
		case b.LowerInclusive && b.UpperInclusive:
			rule = '3'
		case b.LowerInclusive:
			rule = '1'
		case b.UpperInclusive:
			rule = '0'
		}
		o.buf = append(o.buf, rule, ',')
		o.float(b.Lower)
		o.buf = append(o.buf, ',')
		o.float(b.Upper)
		o.buf = append(o.buf, ',')
		o.float(b.Count)
		o.buf = append(o.buf, ']')
	}
	if !first {
		o.buf = append(o.buf, ']')
	}
	o.buf = append(o.buf, '}')
}

// queryResult is the data of query and query_range. resultType comes first: Grafana's parser needs that.
type queryResult struct {
	value parser.Value
	stats stats.QueryStats
}

func (q *queryResult) write(o *out) {
	o.raw(`{"resultType":"` + string(q.value.Type()) + `","result":`)
	switch v := q.value.(type) {
	case promql.Vector:
		o.vector(v)
	case promql.Matrix:
		o.matrix(v)
	case promql.Scalar:
		o.raw("[")
		o.seconds(v.T)
		o.raw(",")
		o.float(v.V)
		o.raw("]")
	case promql.String:
		o.raw("[")
		o.seconds(v.T)
		o.raw(",")
		o.str(v.V)
		o.raw("]")
	default:
		panic(fmt.Sprintf("shmts: server: no encoding for a %T", v))
	}
	if q.stats != nil {
		o.raw(`,"stats":`)
		value{q.stats}.write(o)
	}
	o.raw("}")
}

// seconds is a time as Prometheus writes that of a scalar or a string: without zeros at its end.
func (o *out) seconds(ms int64) { o.buf = strconv.AppendFloat(o.buf, float64(ms)/1000, 'f', -1, 64) }

func (o *out) vector(v promql.Vector) {
	o.raw("[")
	for i := range v {
		if i > 0 {
			o.raw(",")
		}
		o.raw(`{"metric":`)
		o.labels(v[i].Metric)
		if v[i].H == nil {
			o.raw(`,"value":`)
			o.point(v[i].T, v[i].F)
		} else {
			o.raw(`,"histogram":`)
			o.histogramPoint(v[i].T, v[i].H)
		}
		o.raw("}")
		o.part()
	}
	o.raw("]")
}

func (o *out) matrix(m promql.Matrix) {
	o.raw("[")
	for i := range m {
		if i > 0 {
			o.raw(",")
		}
		o.raw(`{"metric":`)
		o.labels(m[i].Metric)
		for k, p := range m[i].Floats {
			if k == 0 {
				o.raw(`,"values":[`)
			} else {
				o.raw(",")
			}
			o.point(p.T, p.F)
			o.part()
		}
		if len(m[i].Floats) > 0 {
			o.raw("]")
		}
		for k, p := range m[i].Histograms {
			if k == 0 {
				o.raw(`,"histograms":[`)
			} else {
				o.raw(",")
			}
			o.histogramPoint(p.T, p.H)
			o.part()
		}
		if len(m[i].Histograms) > 0 {
			o.raw("]")
		}
		o.raw("}")
	}
	o.raw("]")
}

// str is a string as data.
type str string

func (s str) write(o *out) { o.str(string(s)) }

// strs is a list of strings; an empty one is [].
type strs []string

func (s strs) write(o *out) {
	o.raw("[")
	for i, e := range s {
		if i > 0 {
			o.raw(",")
		}
		o.str(e)
		if o.w != nil {
			o.part()
		}
	}
	o.raw("]")
}

// labelSets is the data of series.
type labelSets []labels.Labels

func (s labelSets) write(o *out) {
	o.raw("[")
	for i, e := range s {
		if i > 0 {
			o.raw(",")
		}
		o.labels(e)
		o.part()
	}
	o.raw("]")
}

// value is anything that is small and rare.
type value struct{ v any }

func (v value) write(o *out) {
	b, err := json.Marshal(v.v)
	if err != nil {
		panic(fmt.Sprintf("shmts: server: %v", err))
	}
	o.buf = append(o.buf, b...)
	o.part()
}

// exemplarSets is the data of query_exemplars.
type exemplarSets []query.ExemplarSeries

func (s exemplarSets) write(o *out) {
	o.raw("[")
	for i := range s {
		if i > 0 {
			o.raw(",")
		}
		o.raw(`{"seriesLabels":`)
		o.labels(s[i].Labels)
		o.raw(`,"exemplars":[`)
		for k := range s[i].Exemplars {
			if k > 0 {
				o.raw(",")
			}
			o.exemplar(&s[i].Exemplars[k])
			o.part()
		}
		o.raw("]}")
	}
	o.raw("]")
}

func (o *out) exemplar(e *query.Exemplar) {
	o.raw(`{"labels":{`)
	if e.SpanID != [8]byte{} {
		o.raw(`"span_id":"`)
		o.buf = hexa.AppendEncode(o.buf, e.SpanID[:])
		o.raw(`",`)
	}
	o.raw(`"trace_id":"`)
	o.buf = hexa.AppendEncode(o.buf, e.TraceID[:])
	o.raw(`"},"value":`)
	o.float(e.Value)
	o.raw(`,"timestamp":`)
	o.time(timestamp.FromTime(time.Unix(0, e.Time)))
	o.raw("}")
}
