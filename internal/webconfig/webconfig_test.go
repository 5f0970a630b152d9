package webconfig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// authority is a CA of this test's own.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	last int64
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key, a.pem = key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

// issue makes a certificate of a name, and its key, in PEM. Each has a number of its own.
func (a *authority) issue(name string, uris ...string) (cert, key []byte) {
	a.t.Helper()
	a.last++
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1000 + a.last), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, s := range uris {
		u, err := url.Parse(s)
		if err != nil {
			a.t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, private.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// pair is issue, for a client.
func (a *authority) pair(name string, uris ...string) *tls.Certificate {
	a.t.Helper()
	pair, err := tls.X509KeyPair(a.issue(name, uris...))
	if err != nil {
		a.t.Fatal(err)
	}
	return &pair
}

// place is a directory with a configuration in it, and what is served by it.
type place struct {
	t    *testing.T
	dir  string
	ca   *authority
	log  *logged
	file *File
	base string // host:port
}

// logged is a log that may be looked at while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newPlace has a server's certificate, s.pem and s.key, and the CA, ca.pem, beside web.yml.
func newPlace(t *testing.T, text string) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir(), ca: newAuthority(t, "test"), log: &logged{}}
	p.renew()
	p.write("ca.pem", p.ca.pem)
	p.write("web.yml", []byte(text))
	return p
}

func (p *place) renew() {
	cert, key := p.ca.issue("localhost")
	p.write("s.pem", cert)
	p.write("s.key", key)
}

// write replaces a file as a whole, as those who care do.
func (p *place) write(name string, b []byte) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) path() string { return filepath.Join(p.dir, "web.yml") }

// serve starts a server that says the protocol, and whose certificate it was shown.
func serve(t *testing.T, text string) *place {
	t.Helper()
	p := newPlace(t, text)
	var err error
	if p.file, err = Open(p.path(), slog.New(slog.NewTextHandler(p.log, nil))); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.base = l.Addr().String()
	s := &http.Server{ErrorLog: slog.NewLogLogger(slog.NewTextHandler(p.log, nil), slog.LevelError), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := ""
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			who = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		fmt.Fprintf(w, "%s %s", r.Proto, who)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.file.Serve(s, l); err != http.ErrServerClosed {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
		if t.Failed() {
			t.Logf("the log:\n%s", p.log)
		}
	})
	return p
}

type answer struct {
	status int
	body   string
	header http.Header
	tls    *tls.ConnectionState
}

// get asks once, over a connection of its own.
func (p *place) get(change func(*tls.Config), login ...string) (answer, error) {
	p.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(p.ca.cert)
	c := &tls.Config{RootCAs: pool}
	scheme := "http"
	if p.file.state.Load().tls != nil {
		scheme = "https"
	}
	if change != nil {
		change(c)
	}
	transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, scheme+"://"+p.base+"/", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(login) > 0 {
		r.SetBasicAuth(login[0], login[1])
	}
	response, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(body), response.Header, response.TLS}, err
}

// want asks, and wants this status and body.
func (p *place) want(status int, body string, change func(*tls.Config), login ...string) answer {
	p.t.Helper()
	a, err := p.get(change, login...)
	if err != nil || a.status != status || strings.TrimSpace(a.body) != body {
		p.t.Errorf("want %d %q, got %d %q, %v", status, body, a.status, a.body, err)
	}
	return a
}

// refused wants no answer, and this in the log.
func (p *place) refused(change func(*tls.Config), words string) {
	p.t.Helper()
	if a, err := p.get(change); err == nil {
		p.t.Errorf("want the connection refused, got %d %q", a.status, a.body)
	}
	p.eventually(words, func() bool { return strings.Contains(p.log.String(), words) })
}

func (p *place) eventually(what string, ok func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func with(c *tls.Certificate) func(*tls.Config) {
	return func(to *tls.Config) {
		// Shown whatever the server says it wants: that is the server's to judge.
		to.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c, nil }
	}
}

func hash(t *testing.T, password string, cost int) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

const serverPair = "tls_server_config:\n  cert_file: s.pem\n  key_file: s.key\n"

func TestTLS(t *testing.T) {
	p := serve(t, serverPair)
	p.want(200, "HTTP/2.0", nil)
	a := p.want(200, "HTTP/2.0", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })
	if a.tls == nil || a.tls.Version != tls.VersionTLS12 {
		t.Errorf("want TLS 1.2, got %+v", a.tls)
	}
	p.refused(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 }, "unsupported versions")
	if a, err := p.get(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }); err == nil {
		t.Errorf("want the server's certificate of its own CA, got %d with another", a.status)
	}
	r, err := http.Get("http://" + p.base)
	if err != nil || r.StatusCode != 400 {
		t.Errorf("plain HTTP: want 400, got %v, %v", r, err)
	}
	if err == nil {
		r.Body.Close()
	}
}

func TestTLSSettings(t *testing.T) {
	p := newPlace(t, "")
	cert, _ := os.ReadFile(filepath.Join(p.dir, "s.pem"))
	key, _ := os.ReadFile(filepath.Join(p.dir, "s.key"))
	p = serve(t, fmt.Sprintf("tls_server_config:\n  cert: %q\n  key: %q\n  max_version: TLS12\n  min_version: TLS12\n  curve_preferences: [CurveP384]\n"+
		"  cipher_suites: [TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]\n  prefer_server_cipher_suites: true\nhttp_server_config: {http2: false}\n", cert, key))
	a := p.want(200, "HTTP/1.1", func(c *tls.Config) { c.InsecureSkipVerify = true })
	if a.tls == nil || a.tls.Version != tls.VersionTLS12 || a.tls.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 || a.tls.CurveID != tls.CurveP384 {
		t.Errorf("want TLS 1.2, ChaCha20 and P-384, got %+v", a.tls)
	}
	p.refused(func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }, "unsupported versions")
}

func TestClientCertificates(t *testing.T) {
	stranger := newAuthority(t, "stranger")
	t.Run("required", func(t *testing.T) {
		p := serve(t, serverPair+"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n")
		p.want(200, "HTTP/2.0 alice", with(p.ca.pair("alice")))
		p.refused(nil, "client didn't provide a certificate")
		p.refused(with(stranger.pair("alice")), "failed to verify certificate")
	})
	t.Run("optional", func(t *testing.T) {
		p := serve(t, serverPair+"  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: ca.pem\n")
		p.want(200, "HTTP/2.0 alice", with(p.ca.pair("alice")))
		p.want(200, "HTTP/2.0", nil)
		p.refused(with(stranger.pair("alice")), "failed to verify certificate")
	})
	// Without a CA the system's roots count: our own is not among them, and who shows none gets in.
	t.Run("optional, no CA", func(t *testing.T) {
		p := serve(t, serverPair+"  client_auth_type: VerifyClientCertIfGiven\n")
		p.want(200, "HTTP/2.0", nil)
		p.refused(with(p.ca.pair("alice")), "failed to verify certificate")
	})
	t.Run("any", func(t *testing.T) {
		p := serve(t, serverPair+"  client_auth_type: RequireAnyClientCert\n")
		p.want(200, "HTTP/2.0 who", with(stranger.pair("who")))
		p.refused(nil, "client didn't provide a certificate")
	})
	t.Run("requested", func(t *testing.T) {
		p := serve(t, serverPair+"  client_auth_type: RequestClientCert\n")
		p.want(200, "HTTP/2.0 who", with(stranger.pair("who")))
		p.want(200, "HTTP/2.0", nil)
	})
	t.Run("by name", func(t *testing.T) {
		p := serve(t, serverPair+"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [alice, 'spiffe://x/bob']\n")
		p.want(200, "HTTP/2.0 alice", with(p.ca.pair("alice")))
		p.want(200, "HTTP/2.0 bob", with(p.ca.pair("bob", "spiffe://x/bob")))
		p.refused(with(p.ca.pair("mallory")), "client_allowed_sans")
		p.refused(with(stranger.pair("alice")), "failed to verify certificate")
		p.refused(nil, "client didn't provide a certificate")
	})
	// A session that was begun before must not be a way around what is asked for now.
	t.Run("not resumed", func(t *testing.T) {
		p := serve(t, serverPair+"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [alice]\n")
		cache, alice := tls.NewLRUClientSessionCache(4), p.ca.pair("alice")
		ask := func(c *tls.Config) { c.ClientSessionCache = cache; with(alice)(c) }
		for range 2 {
			if a := p.want(200, "HTTP/2.0 alice", ask); a.tls == nil || a.tls.DidResume {
				t.Errorf("want a whole handshake, got %+v", a.tls)
			}
		}
		p.write("web.yml", []byte(serverPair+"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [bob]\n"))
		p.refused(ask, "client_allowed_sans")
	})
}

func TestPasswords(t *testing.T) {
	p := serve(t, serverPair+"basic_auth_users:\n  alice: "+hash(t, "right", bcrypt.MinCost)+"\n  'b:b': "+hash(t, "right", bcrypt.MinCost)+"\n")
	p.want(200, "HTTP/2.0", nil, "alice", "right")
	for _, login := range [][]string{nil, {"alice", "wrong"}, {"alice", ""}, {"", ""}, {"nobody", "right"}, {"Alice", "right"}} {
		a := p.want(401, "Unauthorized", nil, login...)
		if w := a.header.Get("WWW-Authenticate"); !strings.HasPrefix(w, "Basic realm=") {
			t.Errorf("%q: want a challenge, got %q", login, w)
		}
	}
}

// Without TLS passwords hold all the same, as behind a proxy on this host.
func TestPlain(t *testing.T) {
	p := serve(t, "basic_auth_users: {alice: "+hash(t, "right", bcrypt.MinCost)+"}\n")
	p.want(200, "HTTP/1.1", nil, "alice", "right")
	p.want(401, "Unauthorized", nil)
	p = serve(t, "")
	p.want(200, "HTTP/1.1", nil)
}

func TestHeaders(t *testing.T) {
	p := serve(t, "http_server_config:\n  headers: {X-Frame-Options: deny, Content-Security-Policy: default-src 'self', X-XSS-Protection: ''}\n")
	a := p.want(200, "HTTP/1.1", nil)
	if a.header.Get("X-Frame-Options") != "deny" || a.header.Get("Content-Security-Policy") != "default-src 'self'" || a.header.Values("X-XSS-Protection") != nil {
		t.Errorf("want the headers of the file, got %v", a.header)
	}
}

func TestRateLimit(t *testing.T) {
	p := serve(t, "rate_limit: {interval: 1h, burst: 2}\n")
	p.want(200, "HTTP/1.1", nil)
	p.want(200, "HTTP/1.1", nil)
	p.want(429, "Too Many Requests", nil)
	p.write("web.yml", []byte("rate_limit: {interval: 1h, burst: 2} # a change elsewhere\n"))
	p.want(429, "Too Many Requests", nil)
	p.write("web.yml", []byte("rate_limit: {interval: 0s}\n"))
	p.want(200, "HTTP/1.1", nil)
}

// What is there without a file: the server as it was.
func TestNoFile(t *testing.T) {
	f, err := Open("", nil)
	if f != nil || err != nil {
		t.Fatalf("want no File and no error, got %v, %v", f, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{}
	s.Close()
	if err := f.Serve(s, l); err != http.ErrServerClosed {
		t.Errorf("want the server's own error, got %v", err)
	}
}
