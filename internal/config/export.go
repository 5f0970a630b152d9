package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shmts/shmts/internal/export/httpclient"
	"github.com/shmts/shmts/internal/relabel"
)

// Protocols of a Destination.
const (
	OTLPHTTP    = "http/protobuf"
	OTLPGRPC    = "grpc"
	RemoteWrite = "remote_write"
)

// Destination is where metrics are sent to, by one protocol.
type Destination struct {
	Name     string // of all destinations
	Protocol string

	HTTP  httpclient.Options // with Who
	Step  time.Duration
	Delta bool // temporality
	Rules *relabel.Rules

	MinBackoff, MaxBackoff time.Duration
	CatchUpRate            int // points a second out of the archive

	// OTLP
	Compression             string
	BatchBytes, BatchPoints int

	// remote_write
	Message          string // protobuf_message
	MaxShards        int
	MaxSamples       int
	NoRetryOn429     bool
	Exemplars        bool
	Classic          bool
	NoMetadata       bool
	MetadataInterval time.Duration
}

const (
	defaultOTLPStep  = 10 * time.Second
	defaultWriteStep = time.Minute
	// longestWriteStep is what PromQL's lookback of 5 min bears at a receiver: a point that is late, and one that is missing.
	longestWriteStep = 2 * time.Minute

	messageV1 = "prometheus.WriteRequest"
	messageV2 = "io.prometheus.write.v2.Request"
)

const (
	remoteWriteKey = "remote_write"
	exportersKey   = "exporters"
)

func exportStructures(c *Config) []structure {
	return []structure{
		{name: remoteWriteKey, what: "[{url: URL, ...}, ...]", help: "send to these by remote-write, in Prometheus's words: docs/export.md",
			set: func(b block) error {
				var list []remoteWrite
				if err := b.decode(&list); err != nil {
					return err
				}
				for i := range list {
					d, err := list[i].destination(i)
					if err != nil {
						return err
					}
					c.Destinations = append(c.Destinations, d)
				}
				return nil
			}},
		{name: exportersKey, what: "{otlphttp/NAME: {endpoint: URL, ...}, ...}", help: "send to these by OTLP, in the OpenTelemetry Collector's words (otlphttp, and otlp for gRPC): docs/export.md",
			set: func(b block) error {
				var all map[string]exporter
				if err := b.decode(&all); err != nil {
					return err
				}
				for _, name := range slices.Sorted(maps.Keys(all)) {
					e := all[name]
					d, err := e.destination(name)
					if err != nil {
						return fmt.Errorf("%s: %w", name, err)
					}
					c.Destinations = append(c.Destinations, d)
				}
				return nil
			}},
	}
}

func exportSettings(c *Config) []setting {
	return []setting{
		{name: "export.dir", what: "DIR", help: "keep how far each destination is here; else in archive.dir, in the directory export; without either it is forgotten at the end", set: text(&c.ExportDir)},
	}
}

// PositionsDir is where destinations keep their positions. Empty: nowhere.
func (c *Config) PositionsDir() string {
	if c.ExportDir == "" && c.Archive.Dir != "" {
		return filepath.Join(c.Archive.Dir, "export")
	}
	return c.ExportDir
}

// destinations are all, once everything was read.
func (c *Config) destinations() error {
	if o := &c.OTLP; o.Endpoint != "" {
		c.Destinations = append(c.Destinations, Destination{Name: "otlp", Protocol: o.Protocol, Step: o.Interval, Delta: o.Delta,
			HTTP: httpclient.Options{Who: "otlp", URL: o.Endpoint, Header: o.Headers, Timeout: o.Timeout,
				TLS: httpclient.TLS{CAFile: o.Certificate, CertFile: o.ClientCert, KeyFile: o.ClientKey}},
			Compression: o.Compression, BatchBytes: o.BatchBytes, BatchPoints: o.BatchPoints})
	}
	seen := map[string]bool{}
	for _, d := range c.Destinations {
		if file := FileName(d.Name); seen[file] {
			return fmt.Errorf("shmts: destinations: want each name once, got %q twice", d.Name)
		} else {
			seen[file] = true
		}
	}
	return nil
}

// FileName is what a destination's name is in a directory.
func FileName(name string) string { return url.PathEscape(name) }

// shared are keys of Prometheus's http_config and of shmtsd's own, that all destinations have.
type shared struct {
	Step           time.Duration  `yaml:"step"`
	CatchUpRate    int            `yaml:"catch_up_rate"`
	ProxyURL       string         `yaml:"proxy_url"`
	BasicAuth      *basicAuth     `yaml:"basic_auth"`
	Authorization  *authorization `yaml:"authorization"`
	RelabelConfigs *relabel.Rules `yaml:"write_relabel_configs"`
}

type basicAuth struct {
	Username     string `yaml:"username"`
	UsernameFile string `yaml:"username_file"`
	Password     string `yaml:"password"`
	PasswordFile string `yaml:"password_file"`
}

type authorization struct {
	Type            string `yaml:"type"`
	Credentials     string `yaml:"credentials"`
	CredentialsFile string `yaml:"credentials_file"`
}

func (s *shared) apply(d *Destination, step time.Duration) error {
	d.Step = cmp.Or(s.Step, step)
	if d.Step < 100*time.Millisecond || d.Step > time.Hour {
		return fmt.Errorf("want a step of 100ms to 1h, got %v", d.Step)
	}
	if s.CatchUpRate < 0 {
		return fmt.Errorf("want a catch_up_rate of at least 1 point a second, got %d", s.CatchUpRate)
	}
	d.CatchUpRate, d.Rules, d.HTTP.ProxyURL = s.CatchUpRate, s.RelabelConfigs, s.ProxyURL
	a := &d.HTTP.Auth
	if b := s.BasicAuth; b != nil {
		a.Username, a.UsernameFile, a.Password, a.PasswordFile = b.Username, b.UsernameFile, b.Password, b.PasswordFile
	}
	if b := s.Authorization; b != nil {
		a.Type, a.Credentials, a.CredentialsFile = b.Type, b.Credentials, b.CredentialsFile
	}
	return nil
}

// atLeast is a duration that may be left out.
func atLeast(name string, d, least time.Duration) error {
	if d != 0 && d < least {
		return fmt.Errorf("want a %s of at least %v, got %v", name, least, d)
	}
	return nil
}

// remoteWrite is one of Prometheus's remote_write, with step, catch_up_rate and allow_long_step beside.
type remoteWrite struct {
	shared               `yaml:",inline"`
	URL                  string            `yaml:"url"`
	Name                 string            `yaml:"name"`
	RemoteTimeout        time.Duration     `yaml:"remote_timeout"`
	Headers              map[string]string `yaml:"headers"`
	ProtobufMessage      string            `yaml:"protobuf_message"`
	SendExemplars        bool              `yaml:"send_exemplars"`
	SendNativeHistograms *bool             `yaml:"send_native_histograms"`
	AllowLongStep        bool              `yaml:"allow_long_step"`
	TLS                  promTLS           `yaml:"tls_config"`
	Queue                queue             `yaml:"queue_config"`
	Metadata             metadata          `yaml:"metadata_config"`
}

type promTLS struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	ServerName         string `yaml:"server_name"`
	MinVersion         string `yaml:"min_version"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

type queue struct {
	MaxShards         int           `yaml:"max_shards"`
	MaxSamplesPerSend int           `yaml:"max_samples_per_send"`
	MinBackoff        time.Duration `yaml:"min_backoff"`
	MaxBackoff        time.Duration `yaml:"max_backoff"`
	RetryOn429        *bool         `yaml:"retry_on_http_429"`
}

type metadata struct {
	Send         *bool         `yaml:"send"`
	SendInterval time.Duration `yaml:"send_interval"`
}

func (r *remoteWrite) destination(i int) (d Destination, err error) {
	name := cmp.Or(r.Name, fmt.Sprintf("remote_write-%d", i+1))
	fail := func(err error) (Destination, error) { return d, fmt.Errorf("%s: %w", name, err) }
	d = Destination{Name: name, Protocol: RemoteWrite, Message: cmp.Or(r.ProtobufMessage, messageV2), Exemplars: r.SendExemplars,
		Classic: r.SendNativeHistograms != nil && !*r.SendNativeHistograms, NoMetadata: r.Metadata.Send != nil && !*r.Metadata.Send, MetadataInterval: r.Metadata.SendInterval,
		MaxShards: r.Queue.MaxShards, MaxSamples: r.Queue.MaxSamplesPerSend, NoRetryOn429: r.Queue.RetryOn429 != nil && !*r.Queue.RetryOn429,
		MinBackoff: cmp.Or(r.Queue.MinBackoff, 30*time.Millisecond), MaxBackoff: cmp.Or(r.Queue.MaxBackoff, 5*time.Second),
		HTTP: httpclient.Options{Who: "remote_write " + name, URL: r.URL, Header: r.Headers, Timeout: cmp.Or(r.RemoteTimeout, 30*time.Second),
			TLS: httpclient.TLS{CAFile: r.TLS.CAFile, CertFile: r.TLS.CertFile, KeyFile: r.TLS.KeyFile, ServerName: r.TLS.ServerName, MinVersion: r.TLS.MinVersion, InsecureSkipVerify: r.TLS.InsecureSkipVerify}}}
	if err := r.shared.apply(&d, defaultWriteStep); err != nil {
		return fail(err)
	}
	switch {
	case r.URL == "":
		return fail(fmt.Errorf("want a url, got none"))
	case d.Message != messageV1 && d.Message != messageV2:
		return fail(fmt.Errorf("want a protobuf_message %s or %s, got %q", messageV1, messageV2, d.Message))
	case d.Step > longestWriteStep && !r.AllowLongStep:
		return fail(fmt.Errorf("want a step of at most %v, or allow_long_step: true and queries that look back 4 steps, got %v", longestWriteStep, d.Step))
	case d.MaxShards < 0 || d.MaxShards > 1000:
		return fail(fmt.Errorf("want max_shards of 1 to 1000, got %d", d.MaxShards))
	case d.MaxSamples < 0 || d.MaxSamples > 1_000_000:
		return fail(fmt.Errorf("want max_samples_per_send of 1 to 1000000, got %d", d.MaxSamples))
	case d.MinBackoff > d.MaxBackoff:
		return fail(fmt.Errorf("want a min_backoff of at most max_backoff, got %v and %v", d.MinBackoff, d.MaxBackoff))
	}
	for _, x := range []struct {
		name     string
		d, least time.Duration
	}{{"remote_timeout", r.RemoteTimeout, time.Millisecond}, {"min_backoff", d.MinBackoff, time.Millisecond}, {"send_interval", r.Metadata.SendInterval, time.Second}} {
		if err := atLeast(x.name, x.d, x.least); err != nil {
			return fail(err)
		}
	}
	return d, nil
}

// exporter is one of the Collector's otlphttp and otlp exporters, with step, temporality, catch_up_rate, batch_bytes, batch_points, and what
// the Collector has in extensions and processors, in Prometheus's words.
type exporter struct {
	shared          `yaml:",inline"`
	Endpoint        string            `yaml:"endpoint"`
	MetricsEndpoint string            `yaml:"metrics_endpoint"`
	Headers         map[string]string `yaml:"headers"`
	Compression     string            `yaml:"compression"`
	Timeout         time.Duration     `yaml:"timeout"`
	Temporality     string            `yaml:"temporality"`
	BatchBytes      int               `yaml:"batch_bytes"`
	BatchPoints     int               `yaml:"batch_points"`
	TLS             collectorTLS      `yaml:"tls"`
	Retry           retry             `yaml:"retry_on_failure"`
}

type collectorTLS struct {
	CAFile             string `yaml:"ca_file"`
	CertFile           string `yaml:"cert_file"`
	KeyFile            string `yaml:"key_file"`
	Insecure           bool   `yaml:"insecure"`
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
	ServerNameOverride string `yaml:"server_name_override"`
	MinVersion         string `yaml:"min_version"`
}

type retry struct {
	InitialInterval time.Duration `yaml:"initial_interval"`
	MaxInterval     time.Duration `yaml:"max_interval"`
}

func (e *exporter) destination(name string) (d Destination, err error) {
	d = Destination{Name: name, Compression: cmp.Or(e.Compression, "auto"), BatchBytes: e.BatchBytes, BatchPoints: e.BatchPoints,
		MinBackoff: e.Retry.InitialInterval, MaxBackoff: e.Retry.MaxInterval,
		HTTP: httpclient.Options{Who: "exporters " + name, Header: e.Headers, Timeout: e.Timeout,
			TLS: httpclient.TLS{CAFile: e.TLS.CAFile, CertFile: e.TLS.CertFile, KeyFile: e.TLS.KeyFile, ServerName: e.TLS.ServerNameOverride, InsecureSkipVerify: e.TLS.InsecureSkipVerify}}}
	switch kind, _, _ := strings.Cut(name, "/"); kind {
	case "otlphttp", "otlp_http":
		d.Protocol = OTLPHTTP
	case "otlp", "otlp_grpc":
		d.Protocol = OTLPGRPC
	default:
		return d, fmt.Errorf("want otlphttp, otlphttp/NAME, otlp or otlp/NAME, got %q", name)
	}
	if err := e.shared.apply(&d, defaultOTLPStep); err != nil {
		return d, err
	}
	switch e.Temporality {
	case "", "cumulative":
	case "delta":
		d.Delta = true
	default:
		return d, fmt.Errorf("want a temporality cumulative or delta, got %q", e.Temporality)
	}
	switch d.Compression {
	case "auto", "gzip", "none":
	default:
		return d, fmt.Errorf("want a compression auto, gzip or none, got %q", d.Compression)
	}
	switch e.TLS.MinVersion {
	case "":
	case "1.2", "1.3":
		d.HTTP.TLS.MinVersion = "TLS" + strings.ReplaceAll(e.TLS.MinVersion, ".", "")
	default:
		return d, fmt.Errorf("want a min_version 1.2 or 1.3, got %q", e.TLS.MinVersion)
	}
	if d.Rules.Rewrites() {
		return d, fmt.Errorf("want write_relabel_configs that keep and drop, got some that change labels: OTLP carries what was recorded")
	}
	if d.BatchBytes != 0 && (d.BatchBytes < 4096 || d.BatchBytes > 64<<20) {
		return d, fmt.Errorf("want batch_bytes of 4096 to %d, got %d", 64<<20, d.BatchBytes)
	}
	if d.BatchPoints < 0 || d.BatchPoints > 10_000_000 {
		return d, fmt.Errorf("want batch_points of 1 to 10000000, got %d", d.BatchPoints)
	}
	for _, x := range []struct {
		name     string
		d, least time.Duration
	}{{"timeout", e.Timeout, time.Millisecond}, {"initial_interval", d.MinBackoff, time.Millisecond}, {"max_interval", d.MaxBackoff, d.MinBackoff}} {
		if err := atLeast(x.name, x.d, x.least); err != nil {
			return d, err
		}
	}
	raw := e.Endpoint
	if e.MetricsEndpoint != "" && d.Protocol == OTLPHTTP {
		if raw != "" {
			return d, fmt.Errorf("want one of endpoint and metrics_endpoint, got both")
		}
		raw, _ = exactEndpoint(e.MetricsEndpoint)
	} else if raw != "" && d.Protocol == OTLPHTTP {
		raw, _ = baseEndpoint(raw)
	}
	if raw == "" {
		return d, fmt.Errorf("want an endpoint, got none")
	}
	o := OTLP{Endpoint: raw, Protocol: d.Protocol, Insecure: e.TLS.Insecure}
	if err := o.resolve(); err != nil {
		return d, fmt.Errorf("want an endpoint http://host:port, https://host:port or host:port, got %q", raw)
	}
	d.HTTP.URL = o.Endpoint
	return d, nil
}
