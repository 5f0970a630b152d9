package httpclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// selfSigned writes NAME.pem and NAME.key, a certificate of that host which is its own authority.
func selfSigned(t testing.TB, dir, name, host string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert = write(t, filepath.Join(dir, name+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	key = write(t, filepath.Join(dir, name+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	return cert, key
}

// startTLS answers who the client is that asks.
func startTLS(t testing.TB, cert, key string, most uint16) *httptest.Server {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, c := range r.TLS.PeerCertificates {
			fmt.Fprint(w, c.Subject.CommonName)
		}
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert, MaxVersion: most}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, dir, "server", "receiver.example")
	clientCert, clientKey := selfSigned(t, dir, "client", "client.example")
	other, _ := selfSigned(t, dir, "other", "receiver.example")
	s := startTLS(t, cert, key, tls.VersionTLS12)
	for _, c := range []struct {
		name string
		tls  TLS
		want string // in the error; empty: it goes through
	}{
		{"the system's authorities", TLS{ServerName: "receiver.example"}, "unknown authority"},
		{"another authority", TLS{ServerName: "receiver.example", CAFile: other}, "unknown authority"},
		{"another name", TLS{CAFile: cert}, "127.0.0.1"},
		{"authority and name", TLS{CAFile: cert, ServerName: "receiver.example"}, ""},
		{"anything", TLS{InsecureSkipVerify: true}, ""},
		{"too old", TLS{InsecureSkipVerify: true, MinVersion: "TLS13"}, "protocol version"},
	} {
		c.tls.CertFile, c.tls.KeyFile = clientCert, clientKey
		client := newClient(t, Options{URL: s.URL, TLS: c.tls})
		a, err := client.Post(context.Background(), nil)
		switch {
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: want an error of %q, got %v", c.name, c.want, err)
		case c.want == "" && (err != nil || string(a.Body) != "client"):
			t.Errorf("%s: want the client's certificate shown, got %+v, %v", c.name, a, err)
		}
	}
}

// Certificates that are renewed, on both sides, need no restart; a file that is gone or broken meanwhile changes nothing.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, dir, "server", "127.0.0.1")
	ca := filepath.Join(dir, "ca.pem")
	trust := func(name string) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, ca, string(data))
		// However coarse the file system's times are.
		if err := os.Chtimes(ca, time.Time{}, time.Now().Add(time.Duration(len(name))*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	trust(cert)
	clientCert, clientKey := selfSigned(t, dir, "me", "client.example")
	first := startTLS(t, cert, key, 0)
	client := newClient(t, Options{URL: first.URL, TLS: TLS{CAFile: ca, CertFile: clientCert, KeyFile: clientKey}})
	if got := string(post(t, client, "").Body); got != "me" {
		t.Fatalf("want the certificate of me, got %q", got)
	}
	write(t, ca, "being written")
	os.Chtimes(ca, time.Time{}, time.Now().Add(-time.Hour))
	post(t, client, "")
	os.Remove(ca)
	post(t, client, "")
	renewed, renewedKey := selfSigned(t, dir, "server-renewed", "127.0.0.1")
	trust(renewed)
	again, againKey := selfSigned(t, dir, "me-again", "client.example")
	for to, from := range map[string]string{clientCert: again, clientKey: againKey} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	second := startTLS(t, renewed, renewedKey, 0)
	client.url.Host = second.Listener.Addr().String()
	if got := string(post(t, client, "").Body); got != "me-again" {
		t.Errorf("want the renewed certificate trusted, and the own one shown, got %q", got)
	}
	client.CloseIdleConnections()
	client.url.Host = first.Listener.Addr().String()
	if _, err := client.Post(context.Background(), nil); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("the old certificate: want it not trusted any more, got %v", err)
	}
}
