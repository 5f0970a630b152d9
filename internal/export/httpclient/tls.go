package httpclient

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"time"
)

// TLS is Prometheus's tls_config. The zero value trusts the system's authorities.
type TLS struct {
	CAFile             string // PEM: the receiver's certificate is held against these instead
	CertFile, KeyFile  string // PEM: what to show a receiver that asks
	ServerName         string // in its certificate; empty: the endpoint's host
	MinVersion         string // TLS12 (also if empty) or TLS13
	InsecureSkipVerify bool   // take any certificate
}

func (t *TLS) check(c *Client) error {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return fmt.Errorf("shmts: %s: want cert_file and key_file, got one of them", c.o.Who)
	}
	if t.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile); err != nil {
			return fmt.Errorf("shmts: %s client certificate: %w", c.o.Who, err)
		}
	}
	switch t.MinVersion {
	case "", "TLS12", "TLS13":
		return nil
	}
	return c.wrong("min_version", "TLS12 or TLS13", t.MinVersion)
}

func (t *TLS) config(c *Client, roots []byte) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.MinVersion == "TLS13" {
		out.MinVersion = tls.VersionTLS13
	}
	if t.CAFile != "" {
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(roots) {
			return nil, c.wrong("ca_file", "a file of PEM certificates", t.CAFile)
		}
	}
	if t.CertFile != "" {
		// Read at each handshake, of which there are few: a certificate that was renewed is the one that is shown.
		out.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			return &pair, err
		}
	}
	return out, nil
}

// watched is a file's content, read again when its time or size are others. The zero value has read nothing.
type watched struct {
	data []byte
	time time.Time
	size int64
	read bool
}

// look reads the file if need be, and tells whether it says something new. No name is an empty file.
func (w *watched) look(name string) (changed bool, err error) {
	if name == "" {
		return false, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return false, err
	}
	if w.read && info.ModTime().Equal(w.time) && info.Size() == w.size {
		return false, nil
	}
	data, err := readFile(name)
	if err != nil {
		return false, err
	}
	changed = !w.read || !bytes.Equal(data, w.data)
	w.data, w.time, w.size, w.read = data, info.ModTime(), info.Size(), true
	return changed, nil
}

// maxFile bounds what is read of a file that a setting names: such as a device that never ends.
const maxFile = 1 << 20

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: want at most %d bytes, got more", name, maxFile)
	}
	return data, err
}
