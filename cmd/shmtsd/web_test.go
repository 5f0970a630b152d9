package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// selfSigned writes NAME.pem and NAME.key: a certificate of 127.0.0.1 for both ends, which is its own authority.
func selfSigned(t *testing.T, dir, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, private := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
	for suffix, b := range map[string][]byte{".pem": cert, ".key": private} {
		if err := os.WriteFile(filepath.Join(dir, name+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(cert, private)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// withLogin sends a user and a password with each request.
type withLogin struct {
	user, password string
	next           http.RoundTripper
}

func (l withLogin) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.SetBasicAuth(l.user, l.password)
	return l.next.RoundTrip(r)
}

// The daemon behind TLS, a client's certificate and a password: who has all three gets an answer, who lacks one does not, and
// a certificate that is renewed needs no restart.
func TestWebConfig(t *testing.T) {
	dir := t.TempDir()
	server, client := selfSigned(t, dir, "server"), selfSigned(t, dir, "client")
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "web.yml")
	text := "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: client.pem\n" +
		"basic_auth_users:\n  grafana: " + string(hash) + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	transport := func(server tls.Certificate, own ...tls.Certificate) *http.Transport {
		pool := x509.NewCertPool()
		pool.AddCert(server.Leaf)
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: own}, ForceAttemptHTTP2: true}
		t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
	d := startDaemonFor(t, "https", &http.Client{Transport: withLogin{"grafana", "secret", transport(server, client)}}, nil,
		"--store", t.TempDir(), "--web.config-file", path)
	if got, err := d.query("vector(42)"); err != nil || got[""] != "42" {
		t.Errorf("want 42, got %v, %v", got, err)
	}

	for what, c := range map[string]*http.Client{
		"no password":    {Transport: transport(server, client)},
		"wrong password": {Transport: withLogin{"grafana", "guess", transport(server, client)}},
	} {
		r, err := c.Get(d.base + "/metrics")
		if err != nil {
			t.Errorf("%s: want an answer, got %v", what, err)
			continue
		}
		r.Body.Close()
		if r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s: want status 401, got %s", what, r.Status)
		}
	}
	if r, err := (&http.Client{Transport: withLogin{"grafana", "secret", transport(server)}}).Get(d.base + "/metrics"); err == nil {
		r.Body.Close()
		t.Errorf("no certificate: want no answer, got %s", r.Status)
	}

	renewed := selfSigned(t, dir, "server")
	c := &http.Client{Transport: withLogin{"grafana", "secret", transport(renewed, client)}}
	waitFor(t, "the renewed certificate", func() error {
		r, err := c.Get(d.base + "/-/ready")
		if err == nil {
			r.Body.Close()
		}
		return err
	})
}

// A file that can't be used stops the start, as any setting does.
func TestWebConfigRefused(t *testing.T) {
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "web.yml")
	if err := os.WriteFile(file, []byte("tls_server_config: {cert: x}\nbasic_auth: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), path, "--listen", "127.0.0.1:0", "--store", t.TempDir())
	cmd.Env = []string{"SHMTS_WEB_CONFIG_FILE=" + file}
	cmd.Stderr = &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("want status 2, got %v", err)
	}
	if s := stderr.String(); !strings.HasPrefix(s, "shmts: web configuration "+file+": line 2: want one of tls_server_config, ") || !strings.HasSuffix(s, "got \"basic_auth\"\n") {
		t.Errorf("want what is wrong alone, got %q", s)
	}
}
