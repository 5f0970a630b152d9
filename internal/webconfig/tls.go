package webconfig

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
)

var (
	versions = map[string]uint16{"TLS10": tls.VersionTLS10, "TLS11": tls.VersionTLS11, "TLS12": tls.VersionTLS12, "TLS13": tls.VersionTLS13}

	curves = map[string]tls.CurveID{"CurveP256": tls.CurveP256, "CurveP384": tls.CurveP384, "CurveP521": tls.CurveP521, "X25519": tls.X25519}

	clientAuthTypes = map[string]tls.ClientAuthType{
		"NoClientCert": tls.NoClientCert, "RequestClientCert": tls.RequestClientCert, "RequireAnyClientCert": tls.RequireAnyClientCert,
		"RequireClientCert":       tls.RequireAnyClientCert, // its name of old
		"VerifyClientCertIfGiven": tls.VerifyClientCertIfGiven, "RequireAndVerifyClientCert": tls.RequireAndVerifyClientCert,
	}
)

// buildTLS makes s.tls where the file has a tls_server_config. Relative paths are relative to the file.
func (s *state) buildTLS(path string) (err error) {
	t := &s.TLS
	if reflect.ValueOf(*t).IsZero() {
		return nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("tls_server_config: %w", err)
		}
	}()
	dir := filepath.Dir(path)
	cert, err := s.pem(dir, "cert", t.Cert, t.CertFile)
	if err != nil {
		return err
	}
	key, err := s.pem(dir, "key", t.Key, t.KeyFile)
	if err != nil {
		return err
	}
	if cert == nil || key == nil {
		return fmt.Errorf("want cert_file (or cert) and key_file (or key), got %s", given(cert != nil, key != nil))
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("want a certificate and its key in %s and %s: %w", cmp.Or(t.CertFile, "cert"), cmp.Or(t.KeyFile, "key"), err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	if s.HTTP.HTTP2 {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	if c.MinVersion, err = named("min_version", cmp.Or(t.MinVersion, "TLS12"), versions); err != nil {
		return err
	}
	if c.MaxVersion, err = named("max_version", cmp.Or(t.MaxVersion, "TLS13"), versions); err != nil {
		return err
	}
	if c.MaxVersion < c.MinVersion {
		return fmt.Errorf("want min_version at most max_version, got %s and %s", cmp.Or(t.MinVersion, "TLS12"), cmp.Or(t.MaxVersion, "TLS13"))
	}
	suites := make(map[string]uint16)
	for _, suite := range tls.CipherSuites() {
		suites[suite.Name] = suite.ID
	}
	for _, name := range t.CipherSuites {
		id, err := named("cipher_suites", name, suites)
		if err != nil {
			return err
		}
		c.CipherSuites = append(c.CipherSuites, id)
	}
	if s.HTTP.HTTP2 && c.MinVersion < tls.VersionTLS13 && c.CipherSuites != nil &&
		!slices.Contains(c.CipherSuites, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256) && !slices.Contains(c.CipherSuites, tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256) {
		return fmt.Errorf("cipher_suites: want TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 or TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 among them (HTTP/2 does), or http2: false, got %q", t.CipherSuites)
	}
	for _, name := range t.CurvePreferences {
		id, err := named("curve_preferences", name, curves)
		if err != nil {
			return err
		}
		c.CurvePreferences = append(c.CurvePreferences, id)
	}
	if err := s.buildClients(c, dir); err != nil {
		return err
	}
	s.tls = c
	return nil
}

// buildClients adds what clients must show.
func (s *state) buildClients(c *tls.Config, dir string) error {
	t := &s.TLS
	var err error
	if c.ClientAuth, err = named("client_auth_type", cmp.Or(t.ClientAuthType, "NoClientCert"), clientAuthTypes); err != nil {
		return err
	}
	ca, err := s.pem(dir, "client_ca", t.ClientCA, t.ClientCAFile)
	if err != nil {
		return err
	}
	if ca != nil {
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(ca) {
			return fmt.Errorf("want certificates in PEM in %s, got none", cmp.Or(t.ClientCAFile, "client_ca"))
		}
	}
	switch {
	case ca != nil && c.ClientAuth == tls.NoClientCert:
		return errors.New("want a client_auth_type with client_ca_file, or it is for nothing, got none")
	case c.ClientAuth == tls.RequireAndVerifyClientCert && ca == nil && len(t.ClientAllowedSANs) == 0:
		return fmt.Errorf("client_auth_type: want client_ca_file with %s, or all the world's certificates are good, got none", t.ClientAuthType)
	case t.ClientAllowedSANs != nil && len(t.ClientAllowedSANs) == 0:
		return errors.New("client_allowed_sans: want at least one, or none of it, got an empty list")
	case t.ClientAllowedSANs != nil && c.ClientAuth != tls.RequireAnyClientCert && c.ClientAuth != tls.RequireAndVerifyClientCert:
		return fmt.Errorf("client_allowed_sans: want client_auth_type RequireAndVerifyClientCert (or RequireAnyClientCert), or who shows no certificate gets in, got %q", cmp.Or(t.ClientAuthType, "NoClientCert"))
	}
	// A session that is resumed would carry a certificate past a change of what is let in.
	c.SessionTicketsDisabled = c.ClientAuth != tls.NoClientCert
	if allowed := t.ClientAllowedSANs; allowed != nil {
		c.VerifyConnection = func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return errors.New("shmts: client certificate: want one of client_allowed_sans, got no certificate")
			}
			names := alternativeNames(cs.PeerCertificates[0])
			if !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(allowed, n) }) {
				return fmt.Errorf("shmts: client certificate: want one of client_allowed_sans %q, got %q", allowed, names)
			}
			return nil
		}
	}
	return nil
}

// alternativeNames are all of a certificate's, as client_allowed_sans spells them.
func alternativeNames(c *x509.Certificate) []string {
	names := slices.Concat(c.DNSNames, c.EmailAddresses)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}

// pem is what the file says itself, or what the file that it names does; nil where it says neither.
func (s *state) pem(dir, name, inline, path string) ([]byte, error) {
	switch {
	case inline != "" && path != "":
		return nil, fmt.Errorf("want %s or %s_file, got both", name, name)
	case inline != "":
		return []byte(inline), nil
	case path == "":
		return nil, nil
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s_file: %w", name, err)
	}
	s.parts = append(s.parts, part{path, b})
	return b, nil
}

func named[V any](setting, name string, values map[string]V) (V, error) {
	v, ok := values[name]
	if !ok {
		return v, fmt.Errorf("%s: want one of %s, got %q", setting, orderedKeys(values), name)
	}
	return v, nil
}

func given(cert, key bool) string {
	switch {
	case cert:
		return "no key"
	case key:
		return "no certificate"
	}
	return "neither"
}
