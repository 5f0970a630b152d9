package otlp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/klauspost/compress/gzip" // at its fastest half the time of the standard library's, measured by BenchmarkFlush

	"github.com/shmts/shmts/internal/export/httpclient"
)

// client is one receiver, by one protocol.
type client interface {
	// export sends a request once. body is the client's until it answers.
	export(ctx context.Context, body []byte) result
}

// result is what became of an attempt.
type result struct {
	err      error         // nil: taken, perhaps in part
	retry    bool          // the protocol says to send it again
	after    time.Duration // and not before; 0: it doesn't say
	rejected int64         // data points of a partial success
	message  string        // of a partial success
	reason   string        // why it was refused for good
	bytes    int           // sent
}

// transport is what both protocols share: gRPC is HTTP/2 with five bytes in front of the message and
// its status in the trailers, which net/http can do; google.golang.org/grpc would cost the daemon 1.7 MB.
type transport struct {
	http   *httpclient.Client
	header http.Header

	zip    *gzip.Writer // nil: no compression
	zipped bytes.Buffer
}

func newClient(o Options) (client, error) {
	t := transport{header: http.Header{"User-Agent": {"OTel-OTLP-Exporter-shmtsd/" + o.Version}}}
	h := o.HTTP
	if h.Who == "" {
		h.Who = "otlp"
	}
	switch o.Protocol {
	case "http/protobuf", "":
		t.header.Set("Content-Type", "application/x-protobuf")
	case "grpc":
		h.HTTP = httpclient.HTTP2
		if u, err := url.Parse(h.URL); err == nil {
			u.Path, u.RawQuery = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", ""
			h.URL = u.String()
		}
		t.header.Set("Content-Type", "application/grpc+proto")
		t.header.Set("Te", "trailers")
		t.header.Set("Grpc-Timeout", strconv.FormatInt(h.Timeout.Milliseconds(), 10)+"m")
	default:
		return nil, errOption("protocol", "http/protobuf or grpc", o.Protocol)
	}
	var err error
	if t.http, err = httpclient.New(h); err != nil {
		return nil, err
	}
	switch o.Compression {
	case "gzip", "auto":
		if o.Compression == "gzip" || !onThisHost(t.http.Host()) {
			t.zip, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed)
		}
	case "none", "":
	default:
		return nil, errOption("compression", "auto, gzip or none", o.Compression)
	}
	if o.Protocol == "grpc" {
		if t.zip != nil {
			t.header.Set("Grpc-Encoding", "gzip")
		}
		return &grpcClient{t}, nil
	}
	if t.zip != nil {
		t.header.Set("Content-Encoding", "gzip")
	}
	return &httpClient{t}, nil
}

// onThisHost tells whether what is sent to a host stays in memory: compressing it costs as much processor time as all
// the rest of an export, and saves nothing there.
func onThisHost(name string) bool {
	ip, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && ip.IsLoopback()
}

func errOption(name, want, got string) error {
	return fmt.Errorf("shmts: otlp %s: want %s, got %q", name, want, got)
}

// post sends one message, behind prefix, and answers with what came back.
func (t *transport) post(ctx context.Context, prefix, message []byte) (a *httpclient.Answer, sent int, err error) {
	if t.zip != nil {
		t.zipped.Reset()
		t.zip.Reset(&t.zipped)
		t.zip.Write(message)
		t.zip.Close()
		message = t.zipped.Bytes()
	}
	if len(prefix) == frameHeader {
		binary.BigEndian.PutUint32(prefix[1:], uint32(len(message)))
	}
	a, err = t.http.Post(ctx, t.header, prefix, message)
	return a, len(prefix) + len(message), err
}

// httpClient speaks OTLP/HTTP.
type httpClient struct{ transport }

func (c *httpClient) export(ctx context.Context, body []byte) (r result) {
	a, sent, err := c.post(ctx, nil, body)
	r.bytes = sent
	if err != nil && (a == nil || a.Code/100 == 2) {
		r.err, r.retry = err, true
		return r
	}
	if a.Code/100 == 2 {
		r.rejected, r.message = partialSuccess(a.Body)
		return r
	}
	message, _, _, _ := rpcStatus(a.Body)
	if message == "" {
		message = a.Text()
	}
	r.err = fmt.Errorf("shmts: otlp: want status 200 of %s, got %s: %q", c.http.URL(), a.Status, message)
	r.reason = fmt.Sprintf("status_%d", a.Code)
	switch a.Code {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		r.retry, r.after = true, httpclient.RetryAfter(a.Header.Get("Retry-After"), time.Now())
	}
	return r
}

// frameHeader is what gRPC puts in front of a message.
const frameHeader = 5

// grpcClient speaks OTLP/gRPC.
type grpcClient struct{ transport }

// Status codes of gRPC that matter here.
const (
	grpcOK                = 0
	grpcCanceled          = 1
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcAborted           = 10
	grpcOutOfRange        = 11
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcDataLoss          = 15
	grpcUnauthenticated   = 16
)

func (c *grpcClient) export(ctx context.Context, body []byte) (r result) {
	var prefix [frameHeader]byte // compressed?, then the length
	if c.zip != nil {
		prefix[0] = 1
	}
	a, sent, err := c.post(ctx, prefix[:], body)
	r.bytes = sent
	if err != nil {
		r.err, r.retry = err, true
		return r
	}
	code, message, seconds, nanos, retryInfo := grpcStatus(a)
	if code != grpcOK {
		r.reason = fmt.Sprintf("grpc_%d", code)
		r.err = fmt.Errorf("shmts: otlp: want gRPC status 0 of %s, got %d: %q", c.http.URL(), code, message[:min(len(message), 200)])
		switch code {
		case grpcCanceled, grpcDeadlineExceeded, grpcAborted, grpcOutOfRange, grpcUnavailable, grpcDataLoss:
			r.retry = true
		case grpcResourceExhausted:
			r.retry = retryInfo
		}
		if r.retry && retryInfo && seconds >= 0 && nanos >= 0 {
			r.after = min(time.Duration(min(seconds, int64(httpclient.MaxRetryAfter/time.Second)))*time.Second+time.Duration(nanos), httpclient.MaxRetryAfter)
		}
		return r
	}
	message0, err := grpcMessage(a.Body)
	if err != nil {
		// It was taken; what was said of it can't be read.
		r.message = err.Error()
		return r
	}
	r.rejected, r.message = partialSuccess(message0)
	return r
}

// grpcStatus finds the status in the trailers, or in the headers of an answer without a message, or makes
// one of the HTTP status as gRPC's page on that mapping says.
func grpcStatus(a *httpclient.Answer) (code int, message string, seconds, nanos int64, retryInfo bool) {
	h := a.Trailer
	if h.Get("Grpc-Status") == "" {
		h = a.Header
	}
	if s := h.Get("Grpc-Status"); s != "" {
		code, err := strconv.Atoi(s)
		if err != nil {
			code = grpcUnknown
		}
		message, err = url.PathUnescape(h.Get("Grpc-Message"))
		if err != nil {
			message = h.Get("Grpc-Message")
		}
		if details := h.Get("Grpc-Status-Details-Bin"); details != "" {
			b, err := base64.RawStdEncoding.DecodeString(trimPadding(details))
			if err == nil {
				_, seconds, nanos, retryInfo = rpcStatus(b)
			}
		}
		return code, message, seconds, nanos, retryInfo
	}
	switch a.Code {
	case http.StatusBadRequest:
		code = grpcInternal
	case http.StatusUnauthorized:
		code = grpcUnauthenticated
	case http.StatusForbidden:
		code = grpcPermissionDenied
	case http.StatusNotFound:
		code = grpcUnimplemented
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		code = grpcUnavailable
	default:
		code = grpcUnknown
	}
	return code, "HTTP status " + a.Status, 0, 0, false
}

func trimPadding(s string) string {
	for len(s) > 0 && s[len(s)-1] == '=' {
		s = s[:len(s)-1]
	}
	return s
}

// grpcMessage takes the one message out of its frame.
func grpcMessage(b []byte) ([]byte, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if len(b) < frameHeader || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-frameHeader) {
		return nil, errors.New("shmts: otlp: want one gRPC message in the answer, got something else")
	}
	if b[0] == 0 {
		return b[frameHeader:], nil
	}
	z, err := gzip.NewReader(bytes.NewReader(b[frameHeader:]))
	if err != nil {
		return nil, fmt.Errorf("shmts: otlp: compressed answer: %w", err)
	}
	return io.ReadAll(io.LimitReader(z, httpclient.MaxAnswer))
}
