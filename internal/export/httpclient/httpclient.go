// Package httpclient is what every protocol that pushes over HTTP needs of it, in the words of Prometheus's
// http_config: an endpoint with its TLS, credentials, headers, proxy and timeout; a POST whose body stays the caller's
// memory; an answer that is bounded; and when to come again.
//
// What is in files (certificates, keys, credentials) is read again when it changed, so that a rotation needs no restart.
package httpclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// MaxAnswer bounds what is read of an answer's body, and of its headers. An answer is never decompressed.
const MaxAnswer = 64 << 10

// Options of New.
type Options struct {
	Who string // the setting that this is of, such as "otlp": errors begin with it

	URL         string // http:// or https://, with its path
	Header      map[string]string
	Timeout     time.Duration // of one request, from the connection to the answer's last byte; 0: 10 s
	ProxyURL    string        // empty: as HTTP_PROXY, HTTPS_PROXY and NO_PROXY say
	HTTP        Version
	Connections int // kept open while idle; 0: 1

	TLS  TLS
	Auth Auth
}

// Version says which of HTTP's a client speaks.
type Version int

const (
	HTTP1or2 Version = iota // 2 where TLS offers it
	HTTP1                   // of many requests at once, each has a connection of its own
	HTTP2                   // alone, also without TLS: gRPC
)

// Client posts to one endpoint. It is safe for concurrent use.
type Client struct {
	o      Options
	url    *url.URL
	header http.Header
	proxy  func(*http.Request) (*url.URL, error)
	auth   authorizer

	mu    sync.Mutex
	roots watched // the CA file that http trusts
	http  *http.Client
}

// New checks the options, reads the files that they name, and makes no connection. Its error says which option is wrong.
func New(o Options) (*Client, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Connections == 0 {
		o.Connections = 1
	}
	c := &Client{o: o, header: http.Header{}, proxy: http.ProxyFromEnvironment}
	var err error
	if c.url, err = endpoint(o.URL); err != nil {
		return nil, c.wrong("url", "http://host:port or https://host:port", o.URL)
	}
	if o.ProxyURL != "" {
		p, err := endpoint(o.ProxyURL)
		if err != nil {
			return nil, c.wrong("proxy_url", "http://host:port or https://host:port", o.ProxyURL)
		}
		c.proxy = http.ProxyURL(p)
	}
	for name, value := range o.Header {
		if name == "" {
			return nil, c.wrong("headers", "names that are not empty", name)
		}
		c.header.Set(name, value)
	}
	if c.auth, err = o.Auth.check(c); err != nil {
		return nil, err
	}
	if c.auth != nil && c.header.Get("Authorization") != "" {
		return nil, fmt.Errorf("shmts: %s: want one of credentials and a header Authorization, got both", o.Who)
	}
	if err := o.TLS.check(c); err != nil {
		return nil, err
	}
	if _, err := c.client(); err != nil {
		return nil, err
	}
	return c, nil
}

func endpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err == nil && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		err = errors.New("not http")
	}
	return u, err
}

func (c *Client) wrong(option, want, got string) error {
	return fmt.Errorf("shmts: %s %s: want %s, got %q", c.o.Who, option, want, got)
}

// URL is the endpoint, without a password that it may hold.
func (c *Client) URL() string { return c.url.Redacted() }

// Host is the endpoint's, without its port.
func (c *Client) Host() string { return c.url.Hostname() }

// client is the one that trusts what the CA file holds now.
func (c *Client) client() (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed, err := c.roots.look(c.o.TLS.CAFile)
	if err != nil {
		if c.http != nil {
			return c.http, nil // being replaced, perhaps: what was read last holds
		}
		return nil, fmt.Errorf("shmts: %s ca_file: %w", c.o.Who, err)
	}
	if c.http != nil && !changed {
		return c.http, nil
	}
	tlsConfig, err := c.o.TLS.config(c, c.roots.data)
	if err != nil {
		if c.http != nil {
			return c.http, nil
		}
		return nil, err
	}
	tr := &http.Transport{
		Proxy:                  c.proxy,
		DialContext:            (&net.Dialer{Timeout: c.o.Timeout, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    c.o.Timeout,
		MaxIdleConns:           c.o.Connections,
		MaxIdleConnsPerHost:    c.o.Connections,
		IdleConnTimeout:        5 * time.Minute,
		DisableCompression:     true,
		MaxResponseHeaderBytes: MaxAnswer,
		Protocols:              new(http.Protocols),
	}
	switch c.o.HTTP {
	case HTTP2:
		tr.Protocols.SetHTTP2(c.url.Scheme == "https")
		tr.Protocols.SetUnencryptedHTTP2(c.url.Scheme == "http")
	case HTTP1or2:
		tr.Protocols.SetHTTP2(true)
		fallthrough
	default:
		tr.Protocols.SetHTTP1(true)
	}
	old := c.http
	c.http = &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if old != nil {
		old.CloseIdleConnections()
	}
	return c.http, nil
}

// CloseIdleConnections closes those that no request uses.
func (c *Client) CloseIdleConnections() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.http.CloseIdleConnections()
}

// Answer is what a receiver said. A redirection is one: none is followed, so credentials go to no other host.
type Answer struct {
	Code    int
	Status  string // "200 OK"
	Header  http.Header
	Trailer http.Header
	Body    []byte // its first MaxAnswer bytes
}

// Text is the beginning of the body, for an error's message.
func (a *Answer) Text() string { return string(a.Body[:min(len(a.Body), 200)]) }

// Post sends the parts one behind the other as one body, with header beside the client's own, and answers with what came
// back. The parts are the caller's again when it returns. Where an answer began and broke off, both the answer and an
// error are not nil.
func (c *Client) Post(ctx context.Context, header http.Header, parts ...[]byte) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("shmts: %s: %w", c.o.Who, err)
	}
	req.Header = c.header.Clone()
	for name, values := range header {
		req.Header[name] = values
	}
	if c.auth != nil {
		value, err := c.auth()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", value)
	}
	for _, p := range parts {
		req.ContentLength += int64(len(p))
	}
	lent := &lentBody{}
	defer lent.takeBack()
	if req.ContentLength > 0 { // 0 with a body would be one of unknown length
		req.GetBody = func() (io.ReadCloser, error) { return lent.reader(parts), nil }
		req.Body, _ = req.GetBody()
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("shmts: %s: %w", c.o.Who, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxAnswer))
	if err != nil {
		err = fmt.Errorf("shmts: %s: the answer of %s: %w", c.o.Who, c.URL(), err)
	}
	return &Answer{resp.StatusCode, resp.Status, resp.Header, resp.Trailer, body}, err
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

func (l *lentBody) reader(parts [][]byte) io.ReadCloser {
	return &lentReader{l, append([][]byte(nil), parts...)}
}

type lentReader struct {
	*lentBody
	parts [][]byte
}

func (r *lentReader) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.back {
		return 0, errors.New("shmts: the request is over")
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
