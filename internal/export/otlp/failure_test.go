package otlp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/shmts/shmts/internal/export"
	"github.com/shmts/shmts/internal/export/exporttest"
	"github.com/shmts/shmts/internal/export/httpclient"
	"github.com/shmts/shmts/writer"
)

// one is a world with one point to send.
func one(t *testing.T, o settings) *world {
	w := newWorld(t, options{settings: o})
	w.Writer(writer.Options{Job: "j", Instance: "i"}).Counter("c").Add(7)
	w.Run(10 * time.Second)
	return w
}

const onePoint = `j/c{} "" counter 0..10 int 7`

// What a receiver may answer over HTTP the first time, and what must come of it. The second time it takes the request.
func TestHTTPFailures(t *testing.T) {
	code := func(n int, header ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(n)
			fmt.Fprint(w, "because")
		}
	}
	answer := func(rejected int64, message string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			b, _ := proto.Marshal(&collector.ExportMetricsServiceResponse{PartialSuccess: &collector.ExportMetricsPartialSuccess{RejectedDataPoints: rejected, ErrorMessage: message}})
			w.Write(b)
		}
	}
	const retried, refused, taken = "retried", "refused", "taken"
	names := []string{"an hour"} // TestOutage
	defer func() { exporttest.HoldFailures(t, "OTLP", "tried over HTTP", names) }()
	for _, c := range []struct {
		name  string
		first func(http.ResponseWriter, *http.Request)
		want  string
		wait  time.Duration
		stats func(export.Stats) bool
	}{
		{name: "429", first: code(429), want: retried},
		{name: "429, Retry-After", first: code(429, "Retry-After", "1"), want: retried, wait: time.Second},
		{name: "502", first: code(502), want: retried},
		{name: "503", first: code(503), want: retried},
		{name: "504", first: code(504), want: retried},
		{name: "400", first: code(400), want: refused},
		{name: "401", first: code(401), want: refused},
		{name: "404", first: code(404), want: refused},
		{name: "413", first: code(413), want: refused},
		{name: "500", first: code(500), want: refused},
		{name: "501", first: code(501), want: refused},
		{name: "301", first: code(301, "Location", "/elsewhere"), want: refused},
		{name: "202", first: code(202), want: taken},
		{name: "partial success", first: answer(1, "too old"), want: taken, stats: func(s export.Stats) bool {
			return s.Requests[export.OutcomePartial] == 1 && s.Refused["partial_success"] == 1 && s.Points == 0
		}},
		{name: "a warning", first: answer(0, "you are late"), want: taken, stats: func(s export.Stats) bool {
			return s.Requests[export.OutcomePartial] == 1 && s.Refused["partial_success"] == 0 && s.Points == 1
		}},
		{name: "more rejected than sent", first: answer(1000, ""), want: taken, stats: func(s export.Stats) bool { return s.Refused["partial_success"] == 1 && s.Points == 0 }},
		{name: "slow", first: func(http.ResponseWriter, *http.Request) { time.Sleep(100 * time.Millisecond) }, want: taken},
		{name: "garbage with 200", first: func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("\xff\xff\xff<html>")) }, want: taken},
		{name: "an endless answer", first: func(w http.ResponseWriter, q *http.Request) {
			for q.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, want: taken},
		{name: "cut in the answer", first: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("x"))
			panic(http.ErrAbortHandler)
		}, want: retried},
		{name: "cut before it", first: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: retried},
		{name: "hang", first: func(_ http.ResponseWriter, q *http.Request) {
			select {
			case <-q.Context().Done():
			case <-time.After(10 * time.Second):
			}
		}, want: retried},
	} {
		names = append(names, c.name)
		t.Run(c.name, func(t *testing.T) {
			r := &receiver{http: func(n int, w http.ResponseWriter, q *http.Request) bool {
				if n == 1 {
					c.first(w, q)
				}
				return n == 1
			}}
			w := one(t, settings{Endpoint: startHTTP(t, r), Timeout: 300 * time.Millisecond})
			began := time.Now()
			w.flush()
			if d := time.Since(began); d < c.wait {
				t.Errorf("want %v waited, got %v", c.wait, d)
			}
			checkOutcome(t, w, r, c.want, c.stats)
		})
	}
}

func checkOutcome(t *testing.T, w *world, r *receiver, want string, stats func(export.Stats) bool) {
	t.Helper()
	w.flush() // nothing goes out twice
	s := w.e.Stats()
	switch want {
	case "retried":
		if got := r.lines(); !slices.Equal(got, []string{onePoint}) || r.requests() != 2 || s.Requests[export.OutcomeRetry] != 1 || s.Points != 1 || s.LastError != "" {
			t.Errorf("want it sent again, once: got %q in %d requests, %+v", got, r.requests(), s)
		}
	case "refused":
		if r.requests() != 1 || s.Requests[export.OutcomeRefused] != 1 || refusedPoints(s) != 1 || s.Points != 0 || !strings.HasPrefix(s.LastError, "shmts: otlp: ") {
			t.Errorf("want it dropped: got %d requests, %+v", r.requests(), s)
		}
	case "taken":
		if r.requests() != 1 || s.Requests[export.OutcomeRetry]+s.Requests[export.OutcomeRefused] != 0 {
			t.Errorf("want it never sent again: got %d requests, %+v", r.requests(), s)
		}
	}
	if stats != nil && !stats(s) {
		t.Errorf("stats: got %+v", s)
	}
}

// retryInfo is a google.rpc.Status with a google.rpc.RetryInfo, as grpc-status-details-bin has it.
func retryInfo(code codes.Code, delay time.Duration) []byte {
	var duration, info, any, st []byte
	duration = protowire.AppendVarint(protowire.AppendTag(duration, 1, protowire.VarintType), uint64(delay/time.Second))
	duration = protowire.AppendVarint(protowire.AppendTag(duration, 2, protowire.VarintType), uint64(delay%time.Second))
	info = protowire.AppendBytes(protowire.AppendTag(info, 1, protowire.BytesType), duration)
	any = protowire.AppendString(protowire.AppendTag(any, 1, protowire.BytesType), "type.googleapis.com/google.rpc.RetryInfo")
	any = protowire.AppendBytes(protowire.AppendTag(any, 2, protowire.BytesType), info)
	st = protowire.AppendVarint(protowire.AppendTag(st, 1, protowire.VarintType), uint64(code))
	st = protowire.AppendString(protowire.AppendTag(st, 2, protowire.BytesType), "slow down")
	return protowire.AppendBytes(protowire.AppendTag(st, 3, protowire.BytesType), any)
}

// The same over gRPC: every status code.
func TestGRPCFailures(t *testing.T) {
	want := map[codes.Code]string{
		codes.Canceled: "retried", codes.DeadlineExceeded: "retried", codes.Aborted: "retried", codes.OutOfRange: "retried",
		codes.Unavailable: "retried", codes.DataLoss: "retried",
	}
	var names []string
	run := func(name string, test func(*testing.T)) { names = append(names, name); t.Run(name, test) }
	defer func() { exporttest.HoldFailures(t, "OTLP", "tried over gRPC", names) }()
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		run(code.String(), func(t *testing.T) {
			r := &receiver{grpc: func(n int, _ context.Context) (*collector.ExportMetricsServiceResponse, error) {
				if n == 1 {
					return nil, status.Error(code, "so it is: 100 %")
				}
				return nil, nil
			}}
			w := one(t, settings{Endpoint: startGRPC(t, r), Protocol: "grpc"})
			w.flush()
			outcome := want[code]
			if outcome == "" {
				outcome = "refused"
				if e := w.e.Stats().LastError; !strings.Contains(e, "100 %") || !strings.Contains(e, fmt.Sprintf("got %d", code)) {
					t.Errorf("the error: want code and message, got %q", e)
				}
			}
			checkOutcome(t, w, r, outcome, nil)
		})
	}
	run("ResourceExhausted with RetryInfo", func(t *testing.T) {
		r := &receiver{grpc: func(n int, ctx context.Context) (*collector.ExportMetricsServiceResponse, error) {
			if n > 1 {
				return nil, nil
			}
			grpc.SetTrailer(ctx, metadata.Pairs("grpc-status-details-bin", string(retryInfo(codes.ResourceExhausted, 700*time.Millisecond))))
			return nil, status.Error(codes.ResourceExhausted, "slow down")
		}}
		w := one(t, settings{Endpoint: startGRPC(t, r), Protocol: "grpc"})
		began := time.Now()
		w.flush()
		if d := time.Since(began); d < 700*time.Millisecond {
			t.Errorf("want 700ms waited, got %v", d)
		}
		checkOutcome(t, w, r, "retried", nil)
	})
	run("partial success", func(t *testing.T) {
		r := &receiver{grpc: func(int, context.Context) (*collector.ExportMetricsServiceResponse, error) {
			return &collector.ExportMetricsServiceResponse{PartialSuccess: &collector.ExportMetricsPartialSuccess{RejectedDataPoints: 1, ErrorMessage: "no"}}, nil
		}}
		w := one(t, settings{Endpoint: startGRPC(t, r), Protocol: "grpc", Compression: "gzip"})
		w.flush()
		checkOutcome(t, w, r, "taken", func(s export.Stats) bool {
			return s.Requests[export.OutcomePartial] == 1 && s.Refused["partial_success"] == 1
		})
	})
	run("hang", func(t *testing.T) {
		r := &receiver{grpc: func(n int, ctx context.Context) (*collector.ExportMetricsServiceResponse, error) {
			if n == 1 {
				<-ctx.Done() // the deadline travels with the request
				return nil, status.FromContextError(ctx.Err()).Err()
			}
			return nil, nil
		}}
		w := one(t, settings{Endpoint: startGRPC(t, r), Protocol: "grpc", Timeout: 300 * time.Millisecond})
		w.flush()
		checkOutcome(t, w, r, "retried", nil)
	})
	run("not gRPC at all", func(t *testing.T) {
		r := &receiver{http: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: r, Protocols: new(http.Protocols)}
		s.Protocols.SetUnencryptedHTTP2(true)
		go s.Serve(l)
		defer s.Close()
		w := one(t, settings{Endpoint: "http://" + l.Addr().String(), Protocol: "grpc"})
		w.flush()
		checkOutcome(t, w, r, "refused", nil)
	})
}

// A receiver that is away: memory stays one request, everything that the rings still hold arrives, once and in order.
func TestOutage(t *testing.T) {
	var mu sync.Mutex
	down := true
	r := &receiver{http: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if down {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return down
	}}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r), BatchPoints: 2}})
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	var want []string
	for i := range 12 {
		wr.Counter("a").Add(1)
		wr.Counter("b").Add(2)
		w.Run(10 * time.Second)
		want = append(want, fmt.Sprintf(`j/a{} "" counter 0..%d int %d`, 10*(i+1), i+1), fmt.Sprintf(`j/b{} "" counter 0..%d int %d`, 10*(i+1), 2*(i+1)))
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		if err := w.e.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the receiver is down: want the context's error, got %v", err)
		}
		cancel()
		if len(w.enc.req.buf) > 1000 {
			t.Fatalf("want one request of 2 points in memory, got %d bytes", len(w.enc.req.buf))
		}
	}
	mu.Lock()
	down = false
	mu.Unlock()
	w.flush()
	if got := r.lines(); !slices.Equal(got, want) {
		t.Errorf("want %q, got %q", want, got)
	}
}

// An ended segment is not finished as long as its last rows were not answered.
func TestFinishedAfterTheAnswer(t *testing.T) {
	r := &receiver{http: func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n < 5 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		return n < 5
	}}
	w := newWorld(t, options{settings: settings{Endpoint: startHTTP(t, r)}})
	wr := w.Writer(writer.Options{Job: "j", Instance: "i"})
	wr.Counter("c").Inc()
	w.Now += 3 * time.Second
	wr.Close()
	id := w.Segments()[0].ID()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.e.Flush(ctx)
	if w.e.Finished(id) {
		t.Error("nothing was answered yet: want it not finished")
	}
	w.flush()
	if !w.e.Finished(id) {
		t.Error("want it finished")
	}
	exporttest.SameLines(t, r.lines(), `
		j/c{} "" counter 0..3 int 1
		j/c{} "" counter 0..3.001 stale
	`)
}

// The status of an answer: broken details are no reason to fail.
func TestGRPCStatusDetails(t *testing.T) {
	good := retryInfo(codes.Unavailable, 1500*time.Millisecond)
	for name, c := range map[string]struct {
		details string
		after   time.Duration
	}{
		"unpadded":   {base64.RawStdEncoding.EncodeToString(good), 1500 * time.Millisecond},
		"padded":     {base64.StdEncoding.EncodeToString(good), 1500 * time.Millisecond},
		"cut":        {base64.RawStdEncoding.EncodeToString(good[:len(good)-4]), 0},
		"not base64": {"!!", 0},
		"none":       {"", 0},
	} {
		resp := &httpclient.Answer{Trailer: http.Header{"Grpc-Status": {"14"}, "Grpc-Message": {"a%20b"}, "Grpc-Status-Details-Bin": {c.details}}}
		code, message, seconds, nanos, _ := grpcStatus(resp)
		if got := time.Duration(seconds)*time.Second + time.Duration(nanos); code != 14 || message != "a b" || got != c.after {
			t.Errorf("%s: want 14, \"a b\", %v, got %d, %q, %v", name, c.after, code, message, got)
		}
	}
}

// With TLS: the receiver's certificate is held against the CA given, and a client certificate is shown, over both protocols.
func TestTLS(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			r := &receiver{t: t}
			var shown atomic.Int64
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				shown.Add(int64(len(q.TLS.PeerCertificates)))
				if protocol == "http/protobuf" {
					r.ServeHTTP(w, q)
					return
				}
				b, _ := io.ReadAll(q.Body)
				m := &collector.ExportMetricsServiceRequest{}
				if q.ProtoMajor != 2 || len(b) < frameHeader || proto.Unmarshal(b[frameHeader:], m) != nil {
					t.Errorf("want a gRPC message over HTTP/2, got %s, %q", q.Proto, b)
				}
				r.take(m)
				w.Header().Set("Content-Type", "application/grpc")
				w.Header().Set("Trailer", "Grpc-Status")
				w.Write(make([]byte, frameHeader))
				w.Header().Set("Grpc-Status", "0")
			}))
			s.EnableHTTP2 = true
			s.Config.ErrorLog = log.New(io.Discard, "", 0)
			s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
			s.StartTLS()
			defer s.Close()
			dir := t.TempDir()
			cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
			der, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
			if err == nil {
				err = os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600)
			}
			if err == nil {
				err = os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			endpoint := s.URL
			if protocol == "http/protobuf" {
				endpoint += "/v1/metrics"
			}
			o := settings{Endpoint: endpoint, Protocol: protocol, Certificate: cert, ClientCert: cert, ClientKey: key}
			w := one(t, o)
			w.flush()
			exporttest.SameLines(t, r.lines(), onePoint)
			if shown.Load() == 0 {
				t.Error("want a client certificate shown, got none")
			}
			// Without the CA it is not trusted, and nothing is sent.
			o.Certificate = ""
			w = one(t, o)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			w.sent = func() {
				if strings.Contains(w.e.Stats().LastError, "certificate") {
					cancel()
				}
			}
			if err := w.e.Flush(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("an unknown CA: want an error of the certificate, got %v, %q", err, w.e.Stats().LastError)
			}
			if n := len(r.lines()); n != 1 {
				t.Errorf("want nothing sent to whom is not trusted, got %d points", n)
			}
		})
	}
}

func TestAutoCompression(t *testing.T) {
	for endpoint, want := range map[string]bool{
		"http://localhost:4318": false, "http://127.0.0.1:4318": false, "http://[::1]:4318": false,
		"http://collector:4318": true, "http://10.0.0.1:4318": true, "https://localhost.example": true,
	} {
		c, err := newClient(settings{Endpoint: endpoint, Compression: "auto"}.real())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(*httpClient).zip != nil; got != want {
			t.Errorf("%s: want gzip %v, got %v", endpoint, want, got)
		}
	}
}

func TestOptionErrors(t *testing.T) {
	for _, o := range []settings{
		{Endpoint: "localhost:4318"}, {Endpoint: "ftp://x"}, {Endpoint: "http://x", Protocol: "http/json"}, {Endpoint: "http://x", Compression: "zstd"},
		{Endpoint: "https://x", Certificate: "/nonexistent"}, {Endpoint: "https://x", ClientCert: "/nonexistent", ClientKey: "/nonexistent"},
	} {
		if _, err := New(o.real()); err == nil || !strings.HasPrefix(err.Error(), "shmts: otlp ") {
			t.Errorf("%+v: want an error of shmts: otlp, got %v", o, err)
		}
	}
}

// refusedPoints are those that were refused for whatever reason.
func refusedPoints(s export.Stats) (n uint64) {
	for _, k := range s.Refused {
		n += k
	}
	return n
}
