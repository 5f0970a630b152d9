package config

import (
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/shmts/shmts/reader"
)

// A setting is one thing that can be said, defined once: its flag, its variables, its place in the file.
type setting struct {
	name    string // of the flag; in the file, dots are levels
	env     string // SHMTS_ and the name in capitals
	otel    []from // further variables, the first one counts most
	def     string
	what    string // the value, in the usage
	help    string
	boolean bool
	set     func(string) error
}

// from is a variable of OpenTelemetry's that says the same.
type from struct {
	env     string
	convert func(string) (string, error) // its spelling into ours; nil: the same
}

const (
	configFlag = "config"
	storeFlag  = "store"
)

func envName(name string) string {
	return "SHMTS_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(name))
}

func otlpEnv(suffix string, convert func(string) (string, error)) []from {
	return []from{{"OTEL_EXPORTER_OTLP_METRICS_" + suffix, convert}, {"OTEL_EXPORTER_OTLP_" + suffix, convert}}
}

func settings(c *Config) []setting {
	all := []setting{
		{name: configFlag, what: "FILE", help: "read settings from this YAML file", set: func(string) error { return nil }},
		{name: storeFlag, what: "DIR", help: "the store; else $SHMTS_DIR, else /dev/shm/shmts", otel: []from{{"SHMTS_DIR", nil}}, set: text(&c.Store)},
		{name: "listen", def: "127.0.0.1:9465", what: "ADDRESS", help: "answer HTTP here: host:port, or unix:PATH", set: listen(&c.Listen)},
		{name: "web.config-file", what: "FILE", help: "TLS, client certificates, passwords, headers and a rate limit for that, in the file that Prometheus takes with --web.config.file", set: text(&c.WebConfig)},
		{name: "poll-interval", def: "1s", what: "DURATION", help: "how often the store is looked at", set: duration(&c.PollInterval, 50*time.Millisecond, time.Minute)},
		{name: "dead-ttl", def: "60s", what: "DURATION", help: "how long the segment of a dead process is kept for queries before it is unlinked", set: duration(&c.DeadTTL, 5*time.Second, 24*time.Hour)},
		{name: "hold-limit", def: "10m", what: "DURATION", help: "how much longer than that, at most, while its last rows could not be exported or archived", set: duration(&c.HoldLimit, 0, 24*time.Hour)},
		{name: "trust-uids", what: "UID,...", help: "users, beside this process's own, whose segments may be mapped; others are read with pread", set: uids(&c.TrustUIDs)},
		{name: "any-owner", boolean: true, def: "false", help: "accept a store that belongs to neither root nor this process's user", set: boolean(&c.AnyOwner)},
		{name: "no-map", boolean: true, def: "false", help: "map nothing, read everything with pread", set: boolean(&c.NoMap)},
		{name: "self-metrics", boolean: true, def: "true", help: "record shmtsd's own health into the store", set: boolean(&c.SelfMetrics)},
		{name: "service-name", def: "shmtsd", what: "NAME", help: "job of shmtsd's own metrics", otel: []from{{"OTEL_SERVICE_NAME", nil}}, set: text(&c.ServiceName)},
		{name: "resource-attributes", what: "NAME=VALUE,...", help: "resource attributes of shmtsd's own metrics", otel: []from{{"OTEL_RESOURCE_ATTRIBUTES", nil}}, set: pairs(&c.Attributes)},
		{name: "log.level", def: "info", what: "LEVEL", help: "debug, info, warn or error", set: level(&c.LogLevel)},
		{name: "log.format", def: "text", what: "FORMAT", help: "text or json", set: oneOf(&c.LogFormat, "text", "json")},
		{name: "query.timeout", def: "2m", what: "DURATION", help: "a query may take so long", set: duration(&c.QueryTimeout, time.Millisecond, time.Hour)},
		{name: "query.max-concurrency", def: "4", what: "N", help: "so many queries at once; others wait", set: number(&c.QueryConcurrency, 1, 1024)},
		{name: "query.max-samples", def: "5000000", what: "N", help: "a query may hold so many samples in memory", set: number(&c.QueryMaxSamples, 1, 1<<40)},
		{name: "query.max-memory", def: "256MiB", what: "SIZE", help: "and so much of it, with what it reads and what it answers", set: size(&c.QueryMaxMemory, 64<<10, mostBytes)},
		{name: "query.max-memory-total", def: "1GiB", what: "SIZE", help: "and all queries together, with answers that their clients have not taken yet", set: size(&c.QueryMemoryTotal, 1<<20, mostBytes)},
		{name: "query.max-sources", def: "20000", what: "N", help: "so many lives of processes that are in the archive may match one selector", set: number(&c.QueryMaxSources, 1, 1<<24)},
		{name: "query.experimental-functions", boolean: true, def: "false", help: "allow the PromQL functions that Prometheus has behind --enable-feature=promql-experimental-functions", set: boolean(&c.QueryExperimental)},
		{name: "otlp.endpoint", what: "URL", help: "export OTLP there, such as http://localhost:4318 (/v1/metrics is added where there is no path) or, for grpc, http://localhost:4317; empty: no export",
			otel: []from{{"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", exactEndpoint}, {"OTEL_EXPORTER_OTLP_ENDPOINT", baseEndpoint}}, set: text(&c.OTLP.Endpoint)},
		{name: "otlp.protocol", def: "http/protobuf", what: "PROTOCOL", help: "http/protobuf or grpc", otel: otlpEnv("PROTOCOL", nil), set: oneOf(&c.OTLP.Protocol, "http/protobuf", "grpc")},
		{name: "otlp.headers", what: "NAME=VALUE,...", help: "headers of every request; values may be percent-encoded", otel: otlpEnv("HEADERS", nil), set: pairs(&c.OTLP.Headers)},
		{name: "otlp.timeout", def: "10s", what: "DURATION", help: "a request may take so long", otel: otlpEnv("TIMEOUT", milliseconds), set: duration(&c.OTLP.Timeout, time.Millisecond, 10*time.Minute)},
		{name: "otlp.compression", def: "auto", what: "METHOD", help: "gzip, none, or auto: gzip unless the receiver is on this host", otel: otlpEnv("COMPRESSION", nil), set: oneOf(&c.OTLP.Compression, "auto", "gzip", "none")},
		{name: "otlp.insecure", boolean: true, def: "false", help: "no TLS where the endpoint has no scheme", otel: otlpEnv("INSECURE", nil), set: boolean(&c.OTLP.Insecure)},
		{name: "otlp.certificate", what: "FILE", help: "hold the receiver's certificate against this CA", otel: otlpEnv("CERTIFICATE", nil), set: text(&c.OTLP.Certificate)},
		{name: "otlp.client-certificate", what: "FILE", help: "the certificate to show the receiver", otel: otlpEnv("CLIENT_CERTIFICATE", nil), set: text(&c.OTLP.ClientCert)},
		{name: "otlp.client-key", what: "FILE", help: "its key", otel: otlpEnv("CLIENT_KEY", nil), set: text(&c.OTLP.ClientKey)},
		{name: "otlp.interval", def: "10s", what: "DURATION", help: "how far apart the points are that are exported", otel: []from{{"OTEL_METRIC_EXPORT_INTERVAL", milliseconds}}, set: duration(&c.OTLP.Interval, 100*time.Millisecond, time.Hour)},
		{name: "otlp.temporality", def: "cumulative", what: "NAME", help: "cumulative, or delta: counters and histograms as what came since the point before", otel: []from{{"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", temporality}}, set: delta(&c.OTLP.Delta)},
		{name: "otlp.batch-bytes", def: "2097152", what: "N", help: "a request is sent when it is so large, uncompressed (gRPC receivers refuse more than 4194304 by default)", set: number(&c.OTLP.BatchBytes, 4096, 64<<20)},
		{name: "otlp.batch-points", def: "50000", what: "N", help: "or when it has so many data points", set: number(&c.OTLP.BatchPoints, 1, 10_000_000)},
	}
	all = append(all, budget("budget.user", "one user", "more are refused until there is room", &c.PerUser, reader.DefaultPerUser())...)
	all = append(all, budget("budget.total", "all users", "a user gets no more than he leaves free", &c.Total, reader.DefaultTotal())...)
	all = append(all, setting{name: "exemplars.max", def: "10000", what: "N", help: "keep so many exemplars of living processes in memory, the newest, some 100 bytes each; 0: no exemplars are read at all", set: number(&c.Exemplars, 0, 1<<24)})
	all = append(all, exportSettings(c)...)
	all = append(all, archiveSettings(&c.Archive)...)
	for i := range all {
		all[i].env = envName(all[i].name)
	}
	return all
}

func text(to *string) func(string) error {
	return func(v string) error { *to = v; return nil }
}

func oneOf(to *string, values ...string) func(string) error {
	return func(v string) error {
		for _, w := range values {
			if v == w {
				*to = v
				return nil
			}
		}
		return fmt.Errorf("want %s, got %q", strings.Join(values, " or "), v)
	}
}

func boolean(to *bool) func(string) error {
	return func(v string) error {
		b, err := strconv.ParseBool(v)
		if err != nil {
			return fmt.Errorf("want true or false, got %q", v)
		}
		*to = b
		return nil
	}
}

func duration(to *time.Duration, least, most time.Duration) func(string) error {
	return func(v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d < least || d > most {
			return fmt.Errorf("want a duration of %v to %v, such as 10s, got %q", least, most, v)
		}
		*to = d
		return nil
	}
}

func number(to *int, least, most int) func(string) error {
	return func(v string) error {
		n, err := strconv.Atoi(v)
		if err != nil || n < least || n > most {
			return fmt.Errorf("want a number of %d to %d, got %q", least, most, v)
		}
		*to = n
		return nil
	}
}

func uids(to *[]int) func(string) error {
	return func(v string) error {
		*to = nil
		for _, f := range strings.FieldsFunc(v, func(r rune) bool { return r == ',' || r == ' ' }) {
			n, err := strconv.ParseUint(f, 10, 32)
			if err != nil {
				return fmt.Errorf("want decimal user ids with commas between, got %q", v)
			}
			*to = append(*to, int(n))
		}
		return nil
	}
}

// pairs reads OpenTelemetry's lists: name=value with commas between, percent-encoded where need be.
func pairs(to *map[string]string) func(string) error {
	return func(v string) error {
		m := map[string]string{}
		for _, f := range strings.Split(v, ",") {
			if f = strings.TrimSpace(f); f == "" {
				continue
			}
			name, value, ok := strings.Cut(f, "=")
			name, value = strings.TrimSpace(name), strings.TrimSpace(value)
			plain, err := url.PathUnescape(value)
			if !ok || name == "" || err != nil {
				return fmt.Errorf("want name=value with commas between, got %q", v)
			}
			m[name] = plain
		}
		*to = m
		return nil
	}
}

// escape makes a value safe for pairs.
func escape(v string) string { return strings.NewReplacer("%", "%25", ",", "%2C").Replace(v) }

func level(to *slog.Level) func(string) error {
	return func(v string) error {
		switch v {
		case "debug", "info", "warn", "error":
			return to.UnmarshalText([]byte(v))
		}
		return fmt.Errorf("want debug, info, warn or error, got %q", v)
	}
}

func listen(to *string) func(string) error {
	return func(v string) error {
		if path, ok := strings.CutPrefix(v, "unix:"); ok && path != "" {
			*to = v
			return nil
		}
		if _, _, err := net.SplitHostPort(v); err != nil {
			return fmt.Errorf("want host:port or unix:PATH, got %q", v)
		}
		*to = v
		return nil
	}
}

func milliseconds(v string) (string, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 31)
	if err != nil {
		return "", fmt.Errorf("want milliseconds, got %q", v)
	}
	return (time.Duration(n) * time.Millisecond).String(), nil
}

// temporality is OpenTelemetry's preference: lowmemory is delta where that takes no memory, which it takes nowhere here.
func temporality(v string) (string, error) {
	if v = strings.ToLower(v); v == "lowmemory" {
		v = "delta"
	}
	return v, nil
}

func delta(to *bool) func(string) error {
	return func(v string) error {
		var s string
		err := oneOf(&s, "cumulative", "delta")(v)
		*to = s == "delta"
		return err
	}
}

// The two endpoints of OpenTelemetry's environment, into ours, which gets /v1/metrics where it has no
// path: the general one is a base to which that is always added, the one for metrics is taken as it is.
func baseEndpoint(v string) (string, error) { return strings.TrimSuffix(v, "/") + metricsPath, nil }

func exactEndpoint(v string) (string, error) {
	if _, rest, _ := strings.Cut(v, "://"); !strings.Contains(rest, "/") {
		v += "/"
	}
	return v, nil
}

const metricsPath = "/v1/metrics"

// resolve makes a URL of the endpoint, whatever of it was said.
func (o *OTLP) resolve() error {
	raw := o.Endpoint
	if !strings.Contains(raw, "://") {
		scheme := "https"
		if o.Insecure {
			scheme = "http"
		}
		raw = scheme + "://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("shmts: otlp.endpoint: want http://host:port or https://host:port, got %q", o.Endpoint)
	}
	switch {
	case o.Protocol == "grpc":
		u.Path, u.RawQuery = "", ""
	case u.Path == "":
		u.Path = metricsPath
	}
	o.Endpoint = u.String()
	return nil
}
