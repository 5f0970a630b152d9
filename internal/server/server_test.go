package server_test

import (
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/query"
	"github.com/shmts/shmts/internal/query/querytest"
	"github.com/shmts/shmts/internal/server"
	"github.com/shmts/shmts/reader"
)

const t0 int64 = 1_700_000_000_000 // unix ms

// process is 20 s of a counter, a histogram and a gauge with an odd label.
func process() *querytest.Segment { return processAt(t0) }

func processAt(t0 int64) *querytest.Segment {
	s := querytest.New(t0, querytest.Pairs("job", "fwd", "instance", "h:1"), querytest.Scalars(), querytest.Histograms())
	s.Attribute(querytest.Pairs("host.name", "h"))
	_, c := s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "rx", Unit: "By", Help: "Bytes received.", Kind: reader.Counter, Number: reader.U64}})
	_, h := s.Register(t0, reader.Series{Definition: &reader.Definition{Name: "latency", Kind: reader.Histogram, Number: reader.F64, Table: 1, Buckets: reader.BucketRange{Scale: 0, Min: -1, Count: 4}}})
	g := s.Gauge("odd", "path", "a\"b\\c\n<é>\xff")
	for i := int64(1); i <= 20; i++ {
		querytest.Set(c, float64(i*100))
		querytest.Set(g, 0.5)
		h.Zero, h.Buckets[1], h.Buckets[2], h.Sum = uint64(i), uint64(2*i), uint64(3*i), float64(10*i)
		s.Tick(t0 + i*1000)
	}
	return s
}

type client struct {
	t *testing.T
	h http.Handler
}

func newClient(t *testing.T, o server.Options) client {
	now := func() time.Time { return time.UnixMilli(t0 + 20_000) }
	if o.Engine == nil {
		o.Engine = query.New(query.Options{Sources: querytest.Segments{process()}, Now: now})
	}
	o.Now, o.Version, o.Revision = now, "1.0.0", "abc"
	return client{t, server.New(o)}
}

func (c client) do(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, r)
	return w
}

func (c client) get(path string) *httptest.ResponseRecorder {
	return c.do(httptest.NewRequest("GET", path, nil))
}

func params(kv ...string) string {
	v := url.Values{}
	for i := 0; i < len(kv); i += 2 {
		v.Add(kv[i], kv[i+1])
	}
	return v.Encode()
}

// Answers are Prometheus's, byte for byte.
func TestGolden(t *testing.T) {
	c := newClient(t, server.Options{})
	const at = "1700000020"
	for _, g := range []struct{ path, query, want string }{
		{"query", params("query", "1+1", "time", "4"), // Grafana's health check
			`{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}`},
		{"query", params("query", `"a<b"`, "time", "4.5"),
			`{"status":"success","data":{"resultType":"string","result":[4.5,"a<b"]}}`},
		{"query", params("query", "rx_bytes_total", "time", at),
			`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"rx_bytes_total","instance":"h:1","job":"fwd"},"value":[1700000020,"2000"]}]}}`},
		{"query", params("query", "rx_bytes_total", "time", "2023-11-14T22:13:20.050Z"),
			`{"status":"success","data":{"resultType":"vector","result":[]}}`},
		{"query", params("query", "rx_bytes_total/0", "time", at),
			`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"instance":"h:1","job":"fwd"},"value":[1700000020,"+Inf"]}]}}`},
		{"query", params("query", "rx_bytes_total[2s]", "time", "1700000020.007"),
			`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"rx_bytes_total","instance":"h:1","job":"fwd"},"values":[[1700000019,"1900"],[1700000020,"2000"]]}]}}`},
		{"query", params("query", "odd * 1e-7", "time", at),
			`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"instance":"h:1","job":"fwd","path":"a\"b\\c\n<é>\ufffd"},"value":[1700000020,"5e-08"]}]}}`},
		{"query", params("query", "latency", "time", at),
			`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"latency","instance":"h:1","job":"fwd"},"histogram":[1700000020,{"count":"120","sum":"200","buckets":[[3,"-0.5","0.5","20"],[0,"1","2","40"],[0,"2","4","60"]]}]}]}}`},
		{"query_range", params("query", "rx_bytes_total", "start", at, "end", "1700000030", "step", "5"),
			`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"rx_bytes_total","instance":"h:1","job":"fwd"},"values":[[1700000020,"2000"],[1700000025,"2000"],[1700000030,"2000"]]}]}}`},
		{"query_range", params("query", "latency", "start", at, "end", at, "step", "1m"),
			`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"latency","instance":"h:1","job":"fwd"},"histograms":[[1700000020,{"count":"120","sum":"200","buckets":[[3,"-0.5","0.5","20"],[0,"1","2","40"],[0,"2","4","60"]]}]]}]}}`},
		{"query", params("query", `{job="fwd"}`, "time", at, "limit", "1"),
			`{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"latency","instance":"h:1","job":"fwd"},"histogram":[1700000020,{"count":"120","sum":"200","buckets":[[3,"-0.5","0.5","20"],[0,"1","2","40"],[0,"2","4","60"]]}]}]},"warnings":["results truncated due to limit"]}`},
		{"labels", "", `{"status":"success","data":["__name__","host_name","instance","job","path"]}`},
		{"labels", params("match[]", "rx_bytes_total", "match[]", "target_info", "limit", "3"),
			`{"status":"success","data":["__name__","host_name","instance"],"warnings":["results truncated due to limit"]}`},
		{"label/job/values", "", `{"status":"success","data":["fwd"]}`},
		{"label/__name__/values", params("match[]", `{path!=""}`), `{"status":"success","data":["odd"]}`},
		{"label/U__job/values", "", `{"status":"success","data":["fwd"]}`},
		{"label/U__no_2e_such/values", "", `{"status":"success","data":[]}`},
		{"series", params("match[]", "rx_bytes_total", "match[]", `{__name__="rx_bytes_total"}`),
			`{"status":"success","data":[{"__name__":"rx_bytes_total","instance":"h:1","job":"fwd"}]}`},
		{"series", params("match[]", "nosuch"), `{"status":"success","data":[]}`},
		{"metadata", params("metric", "rx_bytes_total"), `{"status":"success","data":{"rx_bytes_total":[{"type":"counter","help":"Bytes received.","unit":"By"}]}}`},
		{"metadata", params("limit", "0"), `{"status":"success","data":{}}`},
		{"query_exemplars", params("query", "test", "start", "1700000000000", "end", "1700000020000"), `{"status":"success","data":[]}`},
		{"rules", "", `{"status":"success","data":{"groups":[]}}`},
		{"format_query", params("query", "sum(rate(x[5m]))by(a)"), `{"status":"success","data":"sum by (a) (rate(x[5m]))"}`},
		{"parse_query", params("query", "-x"), `{"status":"success","data":{"expr":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"x"}],"name":"x","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"op":"-","type":"unaryExpr"}}`},
	} {
		t.Run(g.path+"?"+g.query, func(t *testing.T) {
			for _, method := range []string{"GET", "POST"} {
				r := httptest.NewRequest(method, "/api/v1/"+g.path+"?"+g.query, nil)
				if method == "POST" {
					if g.path == "metadata" || g.path == "rules" || strings.HasPrefix(g.path, "label/") {
						continue
					}
					r = httptest.NewRequest(method, "/api/v1/"+g.path, strings.NewReader(g.query))
					r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
				}
				w := c.do(r)
				if w.Code != 200 || w.Body.String() != g.want {
					t.Errorf("%s: %d\ngot:  %s\nwant: %s", method, w.Code, w.Body, g.want)
				}
				if ct := w.Header().Get("Content-Type"); ct != "application/json" {
					t.Errorf("content type %q", ct)
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	c := newClient(t, server.Options{MaxBody: 4096})
	for _, e := range []struct {
		path string
		code int
		typ  string
		want string
	}{
		{"query", 400, "bad_data", `invalid parameter "query": unknown position: parse error: no expression found in input`},
		{"query?" + params("query", "sum("), 400, "bad_data", `invalid parameter "query": 1:5: parse error: unclosed left parenthesis`},
		{"query?" + params("query", "x", "time", "yesterday"), 400, "bad_data", `invalid parameter "time": invalid time value for 'time': cannot parse "yesterday" to a valid timestamp`},
		{"query?" + params("query", "x", "time", "NaN"), 400, "bad_data", `cannot parse "NaN"`},
		{"query?" + params("query", "x", "time", "1e300"), 400, "bad_data", `cannot parse "1e300"`},
		{"query?" + params("query", "x", "timeout", "soon"), 400, "bad_data", `invalid parameter "timeout"`},
		{"query?" + params("query", "x", "limit", "-1"), 400, "bad_data", "limit must be non-negative"},
		{"query?" + params("query", "x", "limit", "many"), 400, "bad_data", `invalid parameter "limit"`},
		{"query?" + params("query", "x", "lookback_delta", "far"), 400, "bad_data", "error parsing lookback delta duration"},
		{"query?" + params("query", "x", "max_source_resolution", "-5m"), 400, "bad_data", "max_source_resolution"},
		{"query?" + params("query", `label_replace(odd,"a","$1","path","(")`), 422, "execution", "invalid regular expression"},
		{"query?" + params("query", `{job="fwd"} + on() group_left() {job="fwd"}`), 422, "execution", "duplicate series"},
		{"query?" + params("query", "odd", "timeout", "1e-9"), 503, "timeout", ""},
		{"query?" + params("query", "x", "timeout", "-5"), 503, "timeout", ""},
		{"query_range?" + params("query", "x"), 400, "bad_data", `invalid parameter "start": cannot parse "" to a valid timestamp`},
		{"query_range?" + params("query", "x", "start", "2", "end", "1", "step", "1"), 400, "bad_data", `invalid parameter "end": end timestamp must not be before start time`},
		{"query_range?" + params("query", "x", "start", "1", "end", "2", "step", "0"), 400, "bad_data", "zero or negative query resolution step"},
		{"query_range?" + params("query", "x", "start", "1", "end", "2", "step", "1e-9"), 400, "bad_data", `invalid parameter "step"`},
		{"query_range?" + params("query", "x", "start", "1", "end", "2", "step", "NaN"), 400, "bad_data", `cannot parse "NaN"`},
		{"query_range?" + params("query", "x", "start", "0", "end", "11001", "step", "1"), 400, "bad_data", "exceeded maximum resolution of 11,000 points per timeseries"},
		{"query_range?" + params("query", "x[1m]", "start", "0", "end", "1", "step", "1"), 400, "bad_data", "invalid expression type"},
		{"series", 400, "bad_data", "no match[] parameter provided"},
		{"series?" + params("match[]", "{}"), 400, "bad_data", "match[]"},
		{"series?" + params("match[]", `{a=~".*"}`), 400, "bad_data", "must contain at least one non-empty matcher"},
		{"labels?" + params("start", "x"), 400, "bad_data", `invalid parameter "start"`},
		{"label//values", 404, "not_found", ""},
		{"label/%ff/values", 400, "bad_data", "invalid label name"},
		{"metadata?limit=x", 400, "bad_data", "limit must be a number"},
		{"query_exemplars?" + params("query", "x", "start", "2", "end", "1"), 400, "bad_data", "must not be before"},
		{"nosuch", 404, "not_found", "/api/v1/nosuch"},
		{"query?query=%zz", 400, "bad_data", "error parsing form values"},
	} {
		w := c.get("/api/v1/" + e.path)
		var got struct{ Status, ErrorType, Error string }
		if w.Code == 301 || w.Code == 307 { // the mux cleans "//"
			continue
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Errorf("%s: %d %q: %v", e.path, w.Code, w.Body, err)
			continue
		}
		if w.Code != e.code || got.Status != "error" || got.ErrorType != e.typ || !strings.Contains(got.Error, e.want) {
			t.Errorf("%s\ngot:  %d %+v\nwant: %d %s %q", e.path, w.Code, got, e.code, e.typ, e.want)
		}
	}

	r := httptest.NewRequest("POST", "/api/v1/query", strings.NewReader("query="+strings.Repeat("x", 5000)))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if w := c.do(r); w.Code != 400 || !strings.Contains(w.Body.String(), "at most 4096 bytes") {
		t.Errorf("a body too large: %d %s", w.Code, w.Body)
	}
	r = httptest.NewRequest("DELETE", "/api/v1/query", nil)
	if w := c.do(r); w.Code != 405 || w.Header().Get("Allow") != "POST, GET, HEAD, OPTIONS" {
		t.Errorf("DELETE: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}
}

// Whatever a parameter holds, the answer is an envelope of a known kind.
func FuzzParameters(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "1e308", "Inf", "NaN", "0x10", "5m", "1d2h", "9999999999999999999", "2020-01-01T00:00:00Z", "-292273086-05-16T16:47:06Z", "{}", `{a="b"}`, "x[1m:1ms]", "x offset -1y", "x @ 1e18", "\xff", "sum(x) by (\xff)", "((((", "x[0s]", "rate(odd[1ms])"} {
		f.Add(s, s, s)
	}
	c := newClient(nil, server.Options{Timeout: time.Second})
	f.Fuzz(func(t *testing.T, a, b, d string) {
		for _, path := range []string{
			"query?" + params("query", a, "time", b, "timeout", d),
			"query_range?" + params("query", a, "start", b, "end", b, "step", d),
			"series?" + params("match[]", a, "start", b, "limit", d),
			"labels?" + params("match[]", a, "end", b, "limit", d),
			"metadata?" + params("metric", a, "limit", b, "limit_per_metric", d),
			"label/" + url.PathEscape(a) + "/values?" + params("match[]", b, "start", d),
			"query_exemplars?" + params("query", a, "start", b, "end", d),
			"parse_query?" + params("query", a),
			"format_query?" + params("query", a),
		} {
			w := c.get("/api/v1/" + path)
			if w.Code == 301 || w.Code == 307 || w.Code == 404 || w.Code == 204 && strings.HasPrefix(path, "query_exemplars?") {
				continue
			}
			var got struct{ Status, ErrorType string }
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatalf("%s: %d %q: %v", path, w.Code, w.Body, err)
			}
			ok := w.Code == 200 && got.Status == "success"
			bad := (w.Code == 400 || w.Code == 422 || w.Code == 503) && got.Status == "error" && got.ErrorType != ""
			if !ok && !bad {
				t.Fatalf("%s: %d %q", path, w.Code, w.Body)
			}
		}
	})
}

func TestBuildInfo(t *testing.T) {
	w := newClient(t, server.Options{}).get("/api/v1/status/buildinfo")
	var got struct{ Data map[string]any }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if v := fmt.Sprint(got.Data["version"]); v < "2.24" || got.Data["revision"] != "abc" {
		t.Errorf("got %v", got.Data)
	}
	if _, ok := got.Data["features"]; ok {
		t.Error("with features, Grafana takes this for Mimir")
	}
}

func TestStats(t *testing.T) {
	c := newClient(t, server.Options{})
	for stats, wanted := range map[string][]string{
		"true": {`"stats":{"timings":{`, `"totalQueryableSamples":`},
		"all":  {`"totalQueryableSamplesPerStep":[[1700000020,`},
		"odd":  {`"stats":{`, `"warnings":["value \"odd\" for parameter \"stats\" is deprecated`},
	} {
		w := c.get("/api/v1/query?" + params("query", "odd", "time", "1700000020", "stats", stats))
		for _, s := range wanted {
			if !strings.Contains(w.Body.String(), s) {
				t.Errorf("stats=%s: want %s in %s", stats, s, w.Body)
			}
		}
	}
}

func TestInfos(t *testing.T) {
	c := newClient(t, server.Options{})
	w := c.get("/api/v1/query?" + params("query", "rate(rx_bytes_total[1m])", "time", "1700000020"))
	if !strings.Contains(w.Body.String(), `"infos":["PromQL info: shmts: rows of step 10s answered"]`) {
		t.Errorf("want infos that name the tier: %s", w.Body)
	}
	w = c.get("/api/v1/query?" + params("query", "rate(rx_bytes_total[1m])", "time", "1700000020", "max_source_resolution", "0s"))
	if strings.Contains(w.Body.String(), "infos") {
		t.Errorf("want the finest tier: %s", w.Body)
	}
}

func TestGzip(t *testing.T) {
	segments := querytest.Segments{}
	for i := range 100 {
		s := querytest.New(t0, querytest.Pairs("job", "fwd", "instance", fmt.Sprint(i)), querytest.Scalars())
		g := s.Gauge("g")
		for k := int64(1); k <= 20; k++ {
			querytest.Set(g, float64(k))
			s.Tick(t0 + k*1000)
		}
		segments = append(segments, s)
	}
	e := query.New(query.Options{Sources: segments, Now: func() time.Time { return time.UnixMilli(t0 + 20_000) }})
	c := newClient(t, server.Options{Engine: e})
	for path, large := range map[string]bool{
		"/api/v1/query_range?" + params("query", "g", "start", "1700000001", "end", "1700000020", "step", "0.02"): true,
		"/api/v1/query?" + params("query", "1"): false,
	} {
		plain := c.get(path).Body.String()
		for accept, want := range map[string]string{"gzip": "gzip", "deflate": "deflate", "deflate, gzip;q=0.5": "deflate", "br;q=1.0, gzip;q=0.5": "gzip", "gzip;q=0": "", "br": ""} {
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Accept-Encoding", accept)
			w := c.do(r)
			if !large {
				want = ""
			}
			got := w.Header().Get("Content-Encoding")
			if got != want {
				t.Errorf("%s, large %v: want coding %q, got %q", accept, large, want, got)
			}
			var body io.Reader = w.Body
			var err error
			switch got {
			case "gzip":
				body, err = gzip.NewReader(body)
			case "deflate":
				body, err = zlib.NewReader(body)
			}
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(body)
			if err != nil || string(b) != plain || !json.Valid(b) {
				t.Errorf("%s: the body differs (%d and %d bytes), %v", accept, len(b), len(plain), err)
			}
		}
	}
}

func TestHealth(t *testing.T) {
	var notReady error
	seen := map[string]int{}
	c := newClient(t, server.Options{
		Ready:   func() error { return notReady },
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "shmtsd_polls_total 1\n") }),
		Observe: func(endpoint string, code int, took time.Duration) { seen[endpoint] = code },
	})
	for _, m := range []string{"GET", "HEAD"} {
		for _, p := range []string{"/-/ready", "/-/healthy", "/metrics", "/"} {
			if w := c.do(httptest.NewRequest(m, p, nil)); w.Code != 200 {
				t.Errorf("%s %s: %d", m, p, w.Code)
			}
		}
	}
	if w := c.do(httptest.NewRequest("POST", "/-/ready", nil)); w.Code != 405 {
		t.Errorf("POST /-/ready: %d", w.Code)
	}
	notReady = errors.New("the first poll is not over")
	if w := c.get("/-/ready"); w.Code != 503 || !strings.Contains(w.Body.String(), "the first poll is not over") {
		t.Errorf("not ready: %d %s", w.Code, w.Body)
	}
	c.get("/api/v1/query?query=1")
	c.get("/api/v1/query_range")
	c.get("/api/v1/label/job/values")
	if fmt.Sprint(seen) != "map[label/{name}/values:200 query:200 query_range:400]" {
		t.Errorf("observed: %v", seen)
	}
}

// More requests than places are refused at once, and a slow one does not keep others from ending.
func TestBusy(t *testing.T) {
	in, leave := make(chan struct{}), make(chan struct{})
	src := query.Snapshot(func() []query.Segment {
		in <- struct{}{}
		<-leave
		return nil
	})
	e := query.New(query.Options{Sources: src})
	c := newClient(t, server.Options{Engine: e, MaxRequests: 1})
	done := make(chan int)
	go func() { done <- c.get("/api/v1/labels").Code }()
	<-in
	w := c.get("/api/v1/labels")
	if w.Code != 503 || !strings.Contains(w.Body.String(), `"errorType":"unavailable"`) || w.Header().Get("Retry-After") == "" {
		t.Errorf("busy: %d %s", w.Code, w.Body)
	}
	close(leave)
	if code := <-done; code != 200 {
		t.Errorf("the first: %d", code)
	}
}

// A source that panics costs one request, not the daemon.
func TestPanic(t *testing.T) {
	e := query.New(query.Options{Sources: query.Snapshot(func() []query.Segment { panic("broken") })})
	c := newClient(t, server.Options{Engine: e})
	for range 3 {
		if w := c.get("/api/v1/labels"); w.Code != 500 || !strings.Contains(w.Body.String(), `"errorType":"internal"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
}

// deadlines records what is set.
type deadlines struct {
	*httptest.ResponseRecorder
	set []time.Time
}

func (d *deadlines) SetWriteDeadline(t time.Time) error {
	d.set = append(d.set, t)
	return nil
}

// The deadline of one answer is not left to the next one on the connection.
func TestDeadlineIsTakenBack(t *testing.T) {
	c := newClient(t, server.Options{})
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	c.h.ServeHTTP(d, httptest.NewRequest("GET", "/api/v1/query?query=1", nil))
	if len(d.set) < 2 || d.set[0].IsZero() || !d.set[len(d.set)-1].IsZero() {
		t.Errorf("deadlines: %v; want one, and none at last", d.set)
	}
}

// A client that asks for much and reads nothing is given up.
func TestSlowReader(t *testing.T) {
	var segments querytest.Segments
	for i := range 100 {
		s := querytest.New(t0, querytest.Pairs("job", "fwd", "instance", fmt.Sprint(i)), querytest.Scalars())
		querytest.Set(s.Gauge("g"), 1)
		s.Tick(t0 + 20_000)
		segments = append(segments, s)
	}
	now := func() time.Time { return time.UnixMilli(t0 + 20_000) }
	ended := make(chan int, 1)
	srv := httptest.NewServer(server.New(server.Options{
		Engine: query.New(query.Options{Sources: segments, Now: now}), Now: now, WriteWait: 50 * time.Millisecond,
		Observe: func(_ string, code int, _ time.Duration) { ended <- code },
	}))
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// 100 series x 9,000 points: some 20 MB, more than any socket buffer.
	fmt.Fprintf(conn, "GET /api/v1/query_range?query=g&start=1700000020&end=1700009020&step=1&lookback_delta=3h HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the answer still waits for its reader")
	}
}
