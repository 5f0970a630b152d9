package server_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/shmts/shmts/internal/server"
)

func lengthDelimited(n protowire.Number, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), b)
}

func varintField(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

// readRequest asks for {job="fwd"} of the 20 s.
func readRequest(types ...uint64) []byte {
	matcher := bytes.Join([][]byte{lengthDelimited(2, []byte("job")), lengthDelimited(3, []byte("fwd"))}, nil)
	q := bytes.Join([][]byte{varintField(1, uint64(t0)), varintField(2, uint64(t0+20_000)), lengthDelimited(3, matcher)}, nil)
	b := lengthDelimited(1, q)
	for _, t := range types {
		b = append(b, varintField(2, t)...)
	}
	return b
}

func (c client) post(body []byte) *httptest.ResponseRecorder {
	return c.do(httptest.NewRequest("POST", "/api/v1/read", bytes.NewReader(body)))
}

// Remote read as its two kinds; a real Prometheus reads it in peers_test.go.
func TestRemoteRead(t *testing.T) {
	c := newClient(t, server.Options{})
	w := c.post(snappy.Encode(nil, readRequest()))
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/x-protobuf" || w.Header().Get("Content-Encoding") != "snappy" {
		t.Fatalf("samples: %d %v", w.Code, w.Header())
	}
	b, err := snappy.Decode(nil, w.Body.Bytes())
	if err != nil || !bytes.Contains(b, []byte("rx_bytes_total")) || !bytes.Contains(b, []byte("latency")) {
		t.Errorf("samples: %v, %d bytes", err, len(b))
	}
	w = c.post(snappy.Encode(nil, readRequest(7, 1, 0)))
	if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "application/x-streamed-protobuf") {
		t.Fatalf("chunks: %d %v", w.Code, w.Header())
	}
	frames := 0
	for b = w.Body.Bytes(); len(b) > 0; frames++ {
		n, k := binary.Uvarint(b)
		sum, frame := binary.BigEndian.Uint32(b[k:]), b[k+4:k+4+int(n)]
		if crc32.Checksum(frame, crc32.MakeTable(crc32.Castagnoli)) != sum {
			t.Fatalf("frame %d: the checksum is wrong", frames)
		}
		b = b[k+4+int(n):]
	}
	if frames != 4 { // one a series
		t.Errorf("want 4 frames, got %d", frames)
	}
}

// What is no request costs nothing, whatever length it claims.
func TestRemoteReadRefuses(t *testing.T) {
	c := newClient(t, server.Options{MaxBody: 4096, MaxReadSamples: 10})
	matcher := func(kind uint64, value string) []byte {
		m := bytes.Join([][]byte{varintField(1, kind), lengthDelimited(2, []byte("a")), lengthDelimited(3, []byte(value))}, nil)
		return snappy.Encode(nil, lengthDelimited(1, lengthDelimited(3, m)))
	}
	for name, r := range map[string]struct {
		body []byte
		want string
	}{
		"a bomb":             {binary.AppendUvarint(nil, 1<<32-1), "want a request of at most 4096 bytes"},
		"no snappy":          {[]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, "want a snappy block"},
		"half of it":         {snappy.Encode(nil, readRequest())[:9], "want a snappy block"},
		"no message":         {snappy.Encode(nil, []byte{0x0a, 0xff}), "remote read"},
		"too large":          {bytes.Repeat([]byte{1}, 5000), "at most 4096 bytes"},
		"no matcher":         {snappy.Encode(nil, lengthDelimited(1, varintField(2, 5))), "want a matcher"},
		"an unknown matcher": {matcher(9, "x"), "invalid matcher type"},
		"a large matcher":    {matcher(2, strings.Repeat(`\pL`, 300)), "regular expressions"},
		"a broken matcher":   {matcher(2, "("), "missing closing"},
		"an unknown type":    {snappy.Encode(nil, readRequest(9)), "does not support"},
		"too many samples":   {snappy.Encode(nil, readRequest()), "exceeded sample limit (10)"},
	} {
		if w := c.post(r.body); w.Code != 400 || !strings.Contains(w.Body.String(), r.want) {
			t.Errorf("%s: want 400 and %q, got %d %.200s", name, r.want, w.Code, w.Body)
		}
	}
}

func TestFederate(t *testing.T) {
	c := newClient(t, server.Options{})
	w := c.get("/federate?" + params("match[]", `{job="fwd"}`))

	text := expfmt.NewTextParser(model.UTF8Validation)
	families, err := text.TextToMetricFamilies(bytes.NewReader(w.Body.Bytes()))
	if err != nil || w.Code != 200 {
		t.Fatalf("%d %v\n%s", w.Code, err, w.Body)
	}
	if len(families) != 3 || families["latency"] != nil { // the text format has no native histograms
		t.Errorf("want three families, got %s", w.Body)
	}
	if !strings.Contains(w.Body.String(), `rx_bytes_total{instance="h:1",job="fwd"} 2000 1700000020000`) {
		t.Errorf("got %s", w.Body)
	}
	r := httptest.NewRequest("GET", "/federate?"+params("match[]", "latency"), nil)
	r.Header.Set("Accept", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	if w = c.do(r); w.Code != 200 || !strings.Contains(w.Header().Get("Content-Type"), "delimited") || !strings.Contains(w.Body.String(), "latency") {
		t.Errorf("protobuf: %d %v %q", w.Code, w.Header(), w.Body)
	}
	if w = c.get("/federate?" + params("match[]", "sum(")); w.Code != 400 {
		t.Errorf("a broken selector: %d", w.Code)
	}
}

func TestStatus(t *testing.T) {
	c := newClient(t, server.Options{Flags: map[string]string{"a": "b"}, Config: func() (string, time.Time, bool) { return "a: b\n", time.Unix(5, 0), true }, Retention: "1s=1MiB"})
	var got struct {
		Data struct {
			HeadStats               map[string]int64
			SeriesCountByMetricName []struct {
				Name  string
				Value int
			}
			SeriesCountByLabelValuePair []struct {
				Name  string
				Value int
			}
		}
	}
	if err := json.Unmarshal(c.get("/api/v1/status/tsdb?limit=2").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	d := got.Data
	if d.HeadStats["numSeries"] != 4 || d.HeadStats["maxTime"] != t0+20_000 || len(d.SeriesCountByMetricName) != 2 ||
		d.SeriesCountByLabelValuePair[0].Name != "instance=h:1" || d.SeriesCountByLabelValuePair[0].Value != 4 {
		t.Errorf("status/tsdb: %+v", d)
	}
	for path, want := range map[string]string{
		"flags":       `{"status":"success","data":{"a":"b"}}`,
		"config":      `{"status":"success","data":{"yaml":"a: b\n"}}`,
		"runtimeinfo": `"storageRetention":"1s=1MiB"`,
	} {
		if w := c.get("/api/v1/status/" + path); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: want %s, got %d %s", path, want, w.Code, w.Body)
		}
	}
}
