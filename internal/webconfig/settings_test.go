package webconfig

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

// A file that can't be used says where, what was wanted and what was got.
func TestErrors(t *testing.T) {
	p := newPlace(t, "")
	p.write("empty.pem", []byte("nothing"))
	other, _ := p.ca.issue("other")
	p.write("other.pem", other)
	hashed := hash(t, "secret", bcrypt.MinCost)
	clients := serverPair + "  client_ca_file: ca.pem\n"
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"no YAML", "tls_server_config: [", []string{"yaml: line 1"}},
		{"unknown key", "tls_config: {}\n", []string{"line 1", "want one of tls_server_config, http_server_config, rate_limit, basic_auth_users", `got "tls_config"`}},
		{"unknown keys within", "tls_server_config:\n  cert_path: x\n  keyfile: y\n", []string{"line 2", "cert_file", `"cert_path"`, "line 3", `"keyfile"`}},
		{"twice", "tls_server_config: {cert_file: a, cert_file: b}\n", []string{"cert_file", "twice"}},
		{"a user twice", "basic_auth_users: {a: " + hashed + ", a: " + hashed + "}\n", []string{`"a" already set`}},
		{"wrong shape", "tls_server_config: 7\n", []string{"line 1: want settings of cert, key, client_ca", "got !!int"}},
		{"no key", "tls_server_config: {cert_file: s.pem}\n", []string{"tls_server_config: want cert_file", "got no key"}},
		{"no certificate", "tls_server_config: {key_file: s.key}\n", []string{"got no certificate"}},
		{"a version alone", "tls_server_config: {min_version: TLS13}\n", []string{"got neither"}},
		{"both", "tls_server_config: {cert_file: s.pem, cert: x, key_file: s.key}\n", []string{"want cert or cert_file, got both"}},
		{"no such file", "tls_server_config: {cert_file: none.pem, key_file: s.key}\n", []string{"cert_file: open " + filepath.Join(p.dir, "none.pem"), "no such file"}},
		{"no PEM", "tls_server_config: {cert_file: empty.pem, key_file: s.key}\n", []string{"want a certificate and its key in empty.pem and s.key", "failed to find any PEM data"}},
		{"another's key", "tls_server_config: {cert_file: other.pem, key_file: s.key}\n", []string{"private key does not match"}},
		{"version", serverPair + "  min_version: SSL3\n", []string{"min_version: want one of TLS10, TLS11, TLS12, TLS13", `"SSL3"`}},
		{"versions", serverPair + "  min_version: TLS13\n  max_version: TLS12\n", []string{"want min_version at most max_version, got TLS13 and TLS12"}},
		{"default version", serverPair + "  max_version: TLS11\n", []string{"got TLS12 and TLS11"}},
		{"suite", serverPair + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n", []string{"cipher_suites: want one of TLS_AES_128_GCM_SHA256", `got "TLS_RSA_WITH_RC4_128_SHA"`}},
		{"suites not for HTTP/2", serverPair + "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA]\n", []string{"cipher_suites", "http2: false"}},
		{"curve", serverPair + "  curve_preferences: [P256]\n", []string{"curve_preferences: want one of CurveP256", `got "P256"`}},
		{"client_auth_type", clients + "  client_auth_type: always\n", []string{"client_auth_type: want one of NoClientCert", `got "always"`}},
		{"a CA for nothing", clients, []string{"want a client_auth_type with client_ca_file"}},
		{"an empty CA", serverPair + "  client_ca_file: empty.pem\n  client_auth_type: RequireAndVerifyClientCert\n", []string{"want certificates in PEM in empty.pem, got none"}},
		{"all the world", serverPair + "  client_auth_type: RequireAndVerifyClientCert\n", []string{"want client_ca_file with RequireAndVerifyClientCert"}},
		{"names for nothing", clients + "  client_auth_type: VerifyClientCertIfGiven\n  client_allowed_sans: [a]\n", []string{"client_allowed_sans: want client_auth_type RequireAndVerifyClientCert", `got "VerifyClientCertIfGiven"`}},
		{"no names", clients + "  client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: []\n", []string{"client_allowed_sans: want at least one"}},
		{"header", "http_server_config: {headers: {Server: x}}\n", []string{"want one of Content-Security-Policy, Strict", `got "Server"`}},
		{"header's value", "http_server_config: {headers: {X-Frame-Options: allow}}\n", []string{"X-Frame-Options: want deny or sameorigin", `got "allow"`}},
		{"plain password", "basic_auth_users: {alice: secret}\n", []string{"basic_auth_users: alice: want a bcrypt hash of 60 characters", "got 6"}},
		{"a hash cut short", "basic_auth_users: {alice: " + hashed[:59] + "}\n", []string{"got 59"}},
		{"no hash", "basic_auth_users: {alice: }\n", []string{"got 0"}},
		{"rate", "rate_limit: {interval: 1s}\n", []string{"burst of at least 1, got 1s and 0"}},
		{"interval", "rate_limit: {interval: often, burst: 1}\n", []string{"line 1: want time.Duration, got !!str"}},
		{"no map of users", "basic_auth_users: secret\n", []string{"line 1: want map[string]string, got !!str"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.write("web.yml", []byte(c.text))
			f, err := Open(p.path(), nil)
			if err == nil || f != nil {
				t.Fatal("want an error and no File, got none")
			}
			for _, w := range append(c.want, "shmts: web configuration "+p.path()+": ") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("want %q in it, got: %v", w, err)
				}
			}
			for _, secret := range []string{"secret", "webconfig.", "\n"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("want no %q in it, got: %v", secret, err)
				}
			}
		})
	}
	if err := os.Remove(p.path()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(p.path(), nil); err == nil || !strings.Contains(err.Error(), "shmts: web configuration: open "+p.path()) {
		t.Errorf("no file: got %v", err)
	}
}
