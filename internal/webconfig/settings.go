package webconfig

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v2"
	"golang.org/x/crypto/bcrypt"
)

// settings is the file. The names are the exporter-toolkit's.
type settings struct {
	TLS   tlsSettings       `yaml:"tls_server_config"`
	HTTP  httpSettings      `yaml:"http_server_config"`
	Rate  rateSettings      `yaml:"rate_limit"`
	Users map[string]string `yaml:"basic_auth_users"` // bcrypt
}

type tlsSettings struct {
	Cert                     string   `yaml:"cert"` // PEM, as are key and client_ca
	Key                      string   `yaml:"key"`
	ClientCA                 string   `yaml:"client_ca"`
	CertFile                 string   `yaml:"cert_file"`
	KeyFile                  string   `yaml:"key_file"`
	ClientCAFile             string   `yaml:"client_ca_file"`
	ClientAuthType           string   `yaml:"client_auth_type"`
	ClientAllowedSANs        []string `yaml:"client_allowed_sans"`
	CipherSuites             []string `yaml:"cipher_suites"`
	CurvePreferences         []string `yaml:"curve_preferences"`
	MinVersion               string   `yaml:"min_version"`
	MaxVersion               string   `yaml:"max_version"`
	PreferServerCipherSuites bool     `yaml:"prefer_server_cipher_suites"` // Go orders them by itself
}

type httpSettings struct {
	HTTP2   bool              `yaml:"http2"`
	Headers map[string]string `yaml:"headers"`
}

type rateSettings struct {
	Interval time.Duration `yaml:"interval"` // between two requests; 0: no limit
	Burst    int           `yaml:"burst"`
}

// headers are those that may be set, and what they may say: nothing here is anything.
var headers = map[string][]string{
	"Strict-Transport-Security": nil,
	"X-Content-Type-Options":    {"nosniff"},
	"X-Frame-Options":           {"deny", "sameorigin"},
	"X-XSS-Protection":          nil,
	"Content-Security-Policy":   nil,
}

// parse reads the file, and checks what can be without another.
func parse(text []byte) (*settings, error) {
	s := &settings{HTTP: httpSettings{HTTP2: true}}
	if err := yaml.UnmarshalStrict(text, s); err != nil {
		return nil, plain(err)
	}
	for name, value := range s.HTTP.Headers {
		values, ok := headers[name]
		if !ok {
			return nil, fmt.Errorf("http_server_config.headers: want one of %s, got %q", orderedKeys(headers), name)
		}
		if len(values) > 0 && !slices.Contains(values, value) {
			return nil, fmt.Errorf("http_server_config.headers: %s: want %s, got %q", name, strings.Join(values, " or "), value)
		}
	}
	for name, hash := range s.Users {
		// The hash stays out of the log.
		if _, err := bcrypt.Cost([]byte(hash)); err != nil || len(hash) != bcryptLen {
			return nil, fmt.Errorf("basic_auth_users: %s: want a bcrypt hash of %d characters, such as htpasswd -nB prints, got %d that are none", name, bcryptLen, len(hash))
		}
	}
	if r := s.Rate; r.Interval < 0 || r.Interval > 0 && r.Burst < 1 {
		return nil, fmt.Errorf("rate_limit: want an interval of at least 0s and, with one, a burst of at least 1, got %v and %d", r.Interval, r.Burst)
	}
	return s, nil
}

// bcryptLen is how long $2y$10$, 22 characters of salt and 31 of hash are.
const bcryptLen = 60

// sections are the names of the settings in each part of the file, by the type that the YAML library says.
var sections = func() map[string]string {
	all := map[string]string{}
	for _, t := range []reflect.Type{reflect.TypeFor[settings](), reflect.TypeFor[tlsSettings](), reflect.TypeFor[httpSettings](), reflect.TypeFor[rateSettings]()} {
		var names []string
		for i := range t.NumField() {
			names = append(names, t.Field(i).Tag.Get("yaml"))
		}
		all[t.String()] = strings.Join(names, ", ")
	}
	return all
}()

// plain says what the YAML library does in one line, and without our types.
func plain(err error) error {
	var list *yaml.TypeError
	if !errors.As(err, &list) {
		return err
	}
	lines := make([]string, len(list.Errors))
	for i, line := range list.Errors {
		where, what, _ := strings.Cut(line, ": ")
		if name, in, ok := cutBoth(what, "field ", " not found in type "); ok {
			line = fmt.Sprintf("%s: want one of %s, got %q", where, sections[in], name)
		} else if name, _, ok := cutBoth(what, "field ", " already set in type "); ok {
			line = fmt.Sprintf("%s: want %s once, got it twice", where, name)
		} else if got, in, ok := cutBoth(what, "cannot unmarshal ", " into "); ok {
			got, _, _ = strings.Cut(got, " `") // the value may be a secret
			if names := sections[in]; names != "" {
				in = "settings of " + names
			}
			line = fmt.Sprintf("%s: want %s, got %s", where, in, got)
		}
		lines[i] = line
	}
	return errors.New(strings.Join(lines, "; "))
}

func cutBoth(s, prefix, separator string) (before, after string, ok bool) {
	if s, ok = strings.CutPrefix(s, prefix); !ok {
		return "", "", false
	}
	return strings.Cut(s, separator)
}

func orderedKeys[V any](m map[string]V) string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
