package otlp

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip" // at its fastest half the time of the standard library's, measured by BenchmarkFlush
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

// maxAnswer bounds what is read of an answer.
const maxAnswer = 64 << 10

// transport is what both protocols share: gRPC is HTTP/2 with five bytes in front of the message and
// its status in the trailers, which net/http can do; google.golang.org/grpc would cost the daemon 1.7 MB.
type transport struct {
	http    *http.Client
	url     string
	header  http.Header
	timeout time.Duration

	zip    *gzip.Writer // nil: no compression
	zipped bytes.Buffer
}

func newClient(o Options) (client, error) {
	u, err := url.Parse(o.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errOption("endpoint", "http://host:port or https://host:port", o.Endpoint)
	}
	t := transport{timeout: o.Timeout, header: http.Header{}}
	for k, v := range o.Headers {
		t.header.Set(k, v)
	}
	t.header.Set("User-Agent", "OTel-OTLP-Exporter-shmtsd/"+o.Version)
	switch o.Compression {
	case "gzip", "auto":
		if o.Compression == "gzip" || !onThisHost(u.Hostname()) {
			t.zip, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed)
		}
	case "none", "":
	default:
		return nil, errOption("compression", "auto, gzip or none", o.Compression)
	}
	tr := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: o.Timeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    o.Timeout,
		MaxIdleConns:           1,
		IdleConnTimeout:        5 * time.Minute,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxAnswer,
		Protocols:              new(http.Protocols),
	}
	t.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if tr.TLSClientConfig, err = tlsConfig(o); err != nil {
		return nil, err
	}
	switch o.Protocol {
	case "http/protobuf", "":
		tr.Protocols.SetHTTP1(true)
		tr.Protocols.SetHTTP2(true)
		t.url = u.String()
		t.header.Set("Content-Type", "application/x-protobuf")
		if t.zip != nil {
			t.header.Set("Content-Encoding", "gzip")
		}
		return &httpClient{t}, nil
	case "grpc":
		tr.Protocols.SetHTTP2(u.Scheme == "https")
		tr.Protocols.SetUnencryptedHTTP2(u.Scheme == "http")
		u.Path, u.RawQuery = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", ""
		t.url = u.String()
		t.header.Set("Content-Type", "application/grpc+proto")
		t.header.Set("Te", "trailers")
		t.header.Set("Grpc-Timeout", strconv.FormatInt(o.Timeout.Milliseconds(), 10)+"m")
		if t.zip != nil {
			t.header.Set("Grpc-Encoding", "gzip")
		}
		return &grpcClient{t}, nil
	}
	return nil, errOption("protocol", "http/protobuf or grpc", o.Protocol)
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

func tlsConfig(o Options) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.Certificate != "" {
		pem, err := os.ReadFile(o.Certificate)
		if err != nil {
			return nil, fmt.Errorf("shmts: otlp certificate: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errOption("certificate", "a file of PEM certificates", o.Certificate)
		}
	}
	if o.ClientCert != "" || o.ClientKey != "" {
		pair, err := tls.LoadX509KeyPair(o.ClientCert, o.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("shmts: otlp client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// post sends one message, behind prefix, and answers with what came back, read to its end.
func (t *transport) post(ctx context.Context, prefix, message []byte) (resp *http.Response, answer []byte, sent int, err error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
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
	sent = len(prefix) + len(message)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, nil)
	if err != nil {
		return nil, nil, 0, err
	}
	lent := &lentBody{}
	defer lent.takeBack()
	req.Header = t.header.Clone()
	req.ContentLength = int64(sent)
	req.GetBody = func() (io.ReadCloser, error) { return lent.reader(prefix, message), nil }
	req.Body, _ = req.GetBody()
	resp, err = t.http.Do(req)
	if err != nil {
		return nil, nil, sent, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp, answer, sent, err
}

// lentBody lends buffers to a transport, which may go on reading a body for a while after it answered:
// once taken back, they can be used again.
type lentBody struct {
	mu   sync.Mutex
	back bool
}

func (l *lentBody) takeBack() {
	l.mu.Lock()
	l.back = true
	l.mu.Unlock()
}

func (l *lentBody) reader(parts ...[]byte) io.ReadCloser { return &lentReader{l, parts} }

type lentReader struct {
	*lentBody
	parts [][]byte
}

func (r *lentReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back {
		return 0, errors.New("shmts: otlp: the request is over")
	}
	for len(r.parts) > 0 && len(r.parts[0]) == 0 {
		r.parts = r.parts[1:]
	}
	if len(r.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.parts[0])
	r.parts[0] = r.parts[0][n:]
	return n, nil
}

func (r *lentReader) Close() error { return nil }

// httpClient speaks OTLP/HTTP.
type httpClient struct{ transport }

func (c *httpClient) export(ctx context.Context, body []byte) (r result) {
	resp, answer, sent, err := c.post(ctx, nil, body)
	r.bytes = sent
	if err != nil && (resp == nil || resp.StatusCode/100 == 2) {
		r.err, r.retry = fmt.Errorf("shmts: otlp: %w", err), true
		return r
	}
	if resp.StatusCode/100 == 2 {
		r.rejected, r.message = partialSuccess(answer)
		return r
	}
	message, _, _, _ := rpcStatus(answer)
	if message == "" {
		message = string(answer[:min(len(answer), 200)])
	}
	r.reason = fmt.Sprintf("status_%d", resp.StatusCode)
	r.err = fmt.Errorf("shmts: otlp: want status 200 of %s, got %s: %q", c.url, resp.Status, message)
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		r.retry, r.after = true, retryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	return r
}

// maxRetryAfter bounds what a receiver can ask for.
const maxRetryAfter = 5 * time.Minute

func retryAfter(v string, now time.Time) time.Duration {
	if n, err := strconv.Atoi(v); err == nil {
		return min(max(time.Duration(n)*time.Second, 0), maxRetryAfter)
	}
	if at, err := http.ParseTime(v); err == nil {
		return min(max(at.Sub(now), 0), maxRetryAfter)
	}
	return 0
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
	resp, answer, sent, err := c.post(ctx, prefix[:], body)
	r.bytes = sent
	if err != nil {
		r.err, r.retry = fmt.Errorf("shmts: otlp: %w", err), true
		return r
	}
	code, message, seconds, nanos, retryInfo := grpcStatus(resp)
	if code != grpcOK {
		r.reason = fmt.Sprintf("grpc_%d", code)
		r.err = fmt.Errorf("shmts: otlp: want gRPC status 0 of %s, got %d: %q", c.url, code, message[:min(len(message), 200)])
		switch code {
		case grpcCanceled, grpcDeadlineExceeded, grpcAborted, grpcOutOfRange, grpcUnavailable, grpcDataLoss:
			r.retry = true
		case grpcResourceExhausted:
			r.retry = retryInfo
		}
		if r.retry && retryInfo && seconds >= 0 && nanos >= 0 {
			r.after = min(time.Duration(min(seconds, int64(maxRetryAfter/time.Second)))*time.Second+time.Duration(nanos), maxRetryAfter)
		}
		return r
	}
	message0, err := grpcMessage(answer)
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
func grpcStatus(resp *http.Response) (code int, message string, seconds, nanos int64, retryInfo bool) {
	h := resp.Trailer
	if h.Get("Grpc-Status") == "" {
		h = resp.Header
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
	switch resp.StatusCode {
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
	return code, "HTTP status " + resp.Status, 0, 0, false
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
	return io.ReadAll(io.LimitReader(z, maxAnswer))
}
