package httpclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func newClient(t testing.TB, o Options) *Client {
	t.Helper()
	o.Who = "dest"
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func post(t testing.TB, c *Client, body string) *Answer {
	t.Helper()
	a, err := c.Post(context.Background(), http.Header{"X-One": {"1"}}, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// echo answers what it was asked, with a header's value in front.
func echo(header string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s|%s", r.Header.Get(header), b)
	})
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func write(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPost(t *testing.T) {
	c := newClient(t, Options{URL: serve(t, echo("X-One")), Header: map[string]string{"X-One": "0"}})
	if a, err := c.Post(context.Background(), http.Header{"X-One": {"1"}}, nil, []byte("a"), []byte("bc")); err != nil || a.Code != 200 || string(a.Body) != "1|abc" {
		t.Errorf("parts and a header of the request's own: got %+v, %v", a, err)
	}
	if a, err := c.Post(context.Background(), nil); err != nil || string(a.Body) != "0|" {
		t.Errorf("nothing, and the client's own header: got %+v, %v", a, err)
	}
}

func TestAuth(t *testing.T) {
	dir := t.TempDir()
	file := write(t, filepath.Join(dir, "secret"), " hush \n")
	for _, c := range []struct {
		name string
		auth Auth
		want string
	}{
		{"none", Auth{}, ""},
		{"bearer", Auth{Credentials: "x"}, "Bearer x"},
		{"a type", Auth{Type: "Token", Credentials: "x"}, "Token x"},
		{"from a file", Auth{CredentialsFile: file}, "Bearer hush"},
		{"basic", Auth{Username: "u", Password: "p:q"}, "Basic dTpwOnE="},
		{"basic from files", Auth{UsernameFile: file, PasswordFile: file}, "Basic aHVzaDpodXNo"},
		{"no password", Auth{Username: "u"}, "Basic dTo="},
	} {
		client := newClient(t, Options{URL: serve(t, echo("Authorization")), Auth: c.auth})
		if got := string(post(t, client, "").Body); got != c.want+"|" {
			t.Errorf("%s: want %q, got %q", c.name, c.want, got)
		}
	}
	// A file that changes is read again; one that is gone fails the request, and sends nothing.
	var requests atomic.Int64
	handler := echo("Authorization")
	client := newClient(t, Options{Auth: Auth{CredentialsFile: file}, URL: serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		handler.ServeHTTP(w, r)
	}))})
	write(t, file, "new")
	if got := string(post(t, client, "").Body); got != "Bearer new|" {
		t.Errorf("want the file's new content, got %q", got)
	}
	os.Remove(file)
	if _, err := client.Post(context.Background(), nil); err == nil || !strings.HasPrefix(err.Error(), "shmts: dest credentials: ") || requests.Load() != 1 {
		t.Errorf("want an error of the credentials, got %v after %d requests", err, requests.Load())
	}
	write(t, file, "two\nlines")
	if _, err := client.Post(context.Background(), nil); err == nil || strings.Contains(err.Error(), "two") {
		t.Errorf("want an error without the secret, got %v", err)
	}
}

func TestOptionErrors(t *testing.T) {
	dir := t.TempDir()
	junk := write(t, filepath.Join(dir, "junk"), "no certificate")
	const u = "https://127.0.0.1:1"
	for _, c := range []struct {
		want string
		o    Options
	}{
		{"url", Options{URL: "localhost:9090"}},
		{"url", Options{URL: "ftp://x"}},
		{"url", Options{URL: "http://"}},
		{"proxy_url", Options{URL: u, ProxyURL: "x"}},
		{"headers", Options{URL: u, Header: map[string]string{"": "x"}}},
		{"ca_file", Options{URL: u, TLS: TLS{CAFile: "/nonexistent"}}},
		{"ca_file", Options{URL: u, TLS: TLS{CAFile: junk}}},
		{"ca_file", Options{URL: u, TLS: TLS{CAFile: "/dev/zero"}}},
		{"cert_file and key_file", Options{URL: u, TLS: TLS{CertFile: junk}}},
		{"client certificate", Options{URL: u, TLS: TLS{CertFile: junk, KeyFile: junk}}},
		{"min_version", Options{URL: u, TLS: TLS{MinVersion: "SSL3"}}},
		{"one of basic_auth and authorization", Options{URL: u, Auth: Auth{Username: "u", Credentials: "c"}}},
		{"one of username", Options{URL: u, Auth: Auth{Username: "u", UsernameFile: junk}}},
		{"username or", Options{URL: u, Auth: Auth{Password: "p"}}},
		{"one of credentials", Options{URL: u, Auth: Auth{Credentials: "c", CredentialsFile: junk}}},
		{"credentials or", Options{URL: u, Auth: Auth{Type: "Bearer"}}},
		{"basic_auth for", Options{URL: u, Auth: Auth{Type: "basic", Credentials: "c"}}},
		{"credentials", Options{URL: u, Auth: Auth{CredentialsFile: "/nonexistent"}}},
		{"Authorization", Options{URL: u, Auth: Auth{Credentials: "c"}, Header: map[string]string{"authorization": "x"}}},
	} {
		c.o.Who = "dest"
		if _, err := New(c.o); err == nil || !strings.HasPrefix(err.Error(), "shmts: dest") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: want an error of %q, got %v", c.o, c.want, err)
		}
	}
}

// What receivers do to a client, and that it neither hangs, nor grows, nor follows.
func TestHostileAnswers(t *testing.T) {
	endless := func(w io.Writer) {
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
	var elsewhere atomic.Int64
	other := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		code    int // 0: no answer
		failed  bool
	}{
		{"endless", func(w http.ResponseWriter, _ *http.Request) { endless(w) }, 200, false},
		{"endless headers", func(w http.ResponseWriter, r *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			defer conn.Close()
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: ")
			endless(conn)
		}, 0, true},
		{"endless compressed", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			endless(w)
		}, 200, false},
		{"elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusTemporaryRedirect) }, 307, false},
		{"cut before the answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, true},
		{"cut in the answer", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(400)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, 400, true},
		{"hang", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 0, true},
		{"hang in the answer", func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(500)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}, 500, true},
		{"an answer before the body was read", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }, 429, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.code != http.StatusTooManyRequests {
					io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
				}
				c.handler(w, r)
			}))
			client := newClient(t, Options{URL: url, Timeout: time.Second})
			a, err := client.Post(context.Background(), http.Header{"Authorization": {"secret"}}, make([]byte, 1<<20))
			if c.code == http.StatusTooManyRequests && a == nil {
				return // the body was being written when the connection was closed: it may come as an error too
			}
			if (a == nil) != (c.code == 0) || a != nil && a.Code != c.code || (err != nil) != c.failed {
				t.Fatalf("want %d, failed %v, got %+v, %v", c.code, c.failed, a, err)
			}
			if a != nil && len(a.Body) > MaxAnswer {
				t.Errorf("want at most %d bytes, got %d", MaxAnswer, len(a.Body))
			}
		})
	}
	t.Cleanup(func() {
		if elsewhere.Load() > 0 {
			t.Error("want no redirection followed")
		}
	})
}

// The caller's memory is its own again after Post, even where the receiver still reads.
func TestBodyIsLent(t *testing.T) {
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
	}))
	client := newClient(t, Options{URL: url})
	body := bytes.Repeat([]byte{1}, 8<<20)
	for range 20 {
		client.Post(context.Background(), nil, body)
		for i := range body { // the race detector sees a transport that reads on
			body[i]++
		}
	}
}

// The context ends a request at once.
func TestContext(t *testing.T) {
	url := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	client := newClient(t, Options{URL: url, Timeout: time.Minute})
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := client.Post(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("want the context's error, got %v", err)
	}
}

func TestProxy(t *testing.T) {
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.String()) }))
	client := newClient(t, Options{URL: "http://receiver.invalid/write", ProxyURL: proxy})
	if got := string(post(t, client, "").Body); got != "http://receiver.invalid/write" {
		t.Errorf("want the request at the proxy, got %q", got)
	}
}

// Requests at once take connections at once, of which so many are kept.
func TestConnections(t *testing.T) {
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(echo("X"))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	client := newClient(t, Options{URL: s.URL, HTTP: HTTP1, Connections: 4})
	for range 5 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { post(t, client, "x") })
		}
		wg.Wait()
	}
	if n := opened.Load(); n > 12 { // 20 if none were kept; one may be on its way back when the next request begins
		t.Errorf("want about 4 connections, got %d", n)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for in, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "x": 0, "99999999": MaxRetryAfter, "9223372036854775807": MaxRetryAfter,
		"Wed, 02 Jan 2030 03:04:35 GMT": 30 * time.Second, "Wed, 02 Jan 2030 03:04:00 GMT": 0, "Wed, 02 Jan 2031 03:04:00 GMT": MaxRetryAfter,
	} {
		if got := RetryAfter(in, now); got != want {
			t.Errorf("%q: want %v, got %v", in, want, got)
		}
	}
}
