// Package webconfig protects an HTTP server as the Prometheus family of servers does: TLS, client certificates, passwords,
// headers and a rate limit, from the YAML file that they take with --web.config.file (prometheus/exporter-toolkit,
// docs/web-configuration.md). A file that works there works here, with these differences:
//
//   - What is ambiguous or protects nothing is refused: cert beside cert_file, a CA file without a certificate in it, client
//     certificates required of the system's roots, which is all the world, without client_allowed_sans.
//   - The file and those that it names are read anew for each connection, the file for each request as well. Where they are broken
//     the last good ones stay, and the log says why.
//   - A change of the file may not take protection away, since a file that is half written would: TLS, the last user,
//     a required client certificate and client_allowed_sans go with a restart only.
//
// The toolkit itself would cost the daemon 10.8 MB.
package webconfig

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// retryEvery is how long a broken file is left alone: neither its parser nor the log is there for every request.
const retryEvery = time.Second

// File is a web configuration file, and what it said when it was last good. All methods may be used from any goroutine; a nil File protects
// nothing.
type File struct {
	path  string
	log   *slog.Logger
	auth  *auth
	state atomic.Pointer[state]

	mu     sync.Mutex
	retry  time.Time // not read anew before
	failed string    // what was wrong the last time, and is in the log
}

// state is what was read at one time. It does not change.
type state struct {
	*settings
	file  []byte
	parts []part      // the files that it names
	tls   *tls.Config // nil: plain HTTP
	limit *rate.Limiter
}

// part is a file that the configuration names, as it was read.
type part struct {
	path  string
	bytes []byte
}

// Open reads the file at path, and those that it names. Without a path there is no File, and no error.
func Open(path string, log *slog.Logger) (*File, error) {
	if path == "" {
		return nil, nil
	}
	s, err := load(path)
	if err != nil {
		return nil, fmt.Errorf("shmts: %w", err)
	}
	f := &File{path: path, log: log, auth: newAuth()}
	f.state.Store(s)
	return f, nil
}

// Serve answers what comes to l with s, as the file says, until s is shut down: by HTTPS, or by plain HTTP where the file has
// no tls_server_config. It replaces s.Handler and s.TLSConfig.
func (f *File) Serve(s *http.Server, l net.Listener) error {
	if f == nil {
		return s.Serve(l)
	}
	s.Handler = f.handler(s.Handler)
	now := f.state.Load()
	f.log.Info("web configuration", "file", f.path, "tls", now.tls != nil, "client_auth_type", now.TLS.ClientAuthType, "users", len(now.Users))
	if now.tls == nil {
		return s.Serve(l)
	}
	s.TLSConfig = &tls.Config{
		NextProtos:         now.tls.NextProtos,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return f.now(true).tls, nil },
	}
	return s.ServeTLS(l, "", "")
}

// now is what the file says now: and, where that is asked for, those that it names.
func (f *File) now(parts bool) *state {
	s := f.state.Load()
	if s.unchanged(f.path, parts) {
		return s
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if newer := f.state.Load(); newer != s || time.Now().Before(f.retry) {
		return newer
	}
	newer, err := load(f.path)
	if err == nil {
		err = s.keeps(newer, f.path)
	}
	if err != nil {
		f.retry = time.Now().Add(retryEvery)
		if f.failed != err.Error() {
			f.failed = err.Error()
			f.log.Error("the web configuration can't be used: the last good one stays", "err", err)
		}
		return s
	}
	f.failed = ""
	if newer.Rate == s.Rate {
		newer.limit = s.limit
	}
	f.state.Store(newer)
	f.log.Info("web configuration read anew", "file", f.path, "users", len(newer.Users))
	return newer
}

// unchanged reads the files again, which is some microseconds each: times and sizes do not tell every change.
func (s *state) unchanged(path string, parts bool) bool {
	now, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(now, s.file) {
		return false
	}
	if parts {
		for _, p := range s.parts {
			if now, err := os.ReadFile(p.path); err != nil || !bytes.Equal(now, p.bytes) {
				return false
			}
		}
	}
	return true
}

// keeps tells whether newer protects all that s does. A file that is read while it is being written is the beginning of itself, which may say
// nothing of passwords; nor can a listener change between HTTP and HTTPS.
func (s *state) keeps(newer *state, path string) error {
	for _, what := range []struct {
		name     string
		was, now bool
	}{
		{"tls_server_config", s.tls != nil, newer.tls != nil},
		{"basic_auth_users", len(s.Users) > 0, len(newer.Users) > 0},
		{"a client_auth_type that requires certificates", s.requires() > 0, newer.requires() > 0},
		{"a client_auth_type that verifies them", s.requires() > 1, newer.requires() > 1},
		{"client_allowed_sans", len(s.TLS.ClientAllowedSANs) > 0, len(newer.TLS.ClientAllowedSANs) > 0},
	} {
		if what.was && !what.now {
			return fmt.Errorf("web configuration %s: want %s as before, got none: that takes a restart", path, what.name)
		}
	}
	if s.tls == nil && newer.tls != nil {
		return fmt.Errorf("web configuration %s: want no tls_server_config as before, got one: that takes a restart", path)
	}
	return nil
}

// requires tells how much of a client is certain: 0, 1 that it has a certificate, 2 that it is one of those wanted.
func (s *state) requires() int {
	switch {
	case s.tls == nil:
		return 0
	case s.tls.ClientAuth == tls.RequireAnyClientCert:
		return 1
	case s.tls.ClientAuth == tls.RequireAndVerifyClientCert:
		return 2
	}
	return 0
}

// load reads everything. An error leaves nothing behind.
func load(path string) (*state, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("web configuration: %w", err)
	}
	s := &state{file: text}
	if s.settings, err = parse(text); err == nil {
		err = s.buildTLS(path)
	}
	if err != nil {
		return nil, fmt.Errorf("web configuration %s: %w", path, err)
	}
	every := rate.Inf
	if s.Rate.Interval > 0 {
		every = rate.Every(s.Rate.Interval)
	}
	s.limit = rate.NewLimiter(every, s.Rate.Burst)
	return s, nil
}
