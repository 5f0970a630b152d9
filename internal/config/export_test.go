package config

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/internal/export/httpclient"
)

func destinations(t *testing.T, text string, vars ...string) []Destination {
	t.Helper()
	c, err := Load([]string{"--config", file(t, text)}, env(vars...))
	if err != nil {
		t.Fatal(err)
	}
	return c.Destinations
}

// A file that reads like Prometheus's and the Collector's, and the environment beside it.
func TestDestinations(t *testing.T) {
	got := destinations(t, `
archive: {dir: /var/lib/a}
remote_write:
  - url: http://prometheus:9090/api/v1/write
  - url: https://mimir/api/v1/push
    name: mimir
    remote_timeout: 7s
    headers: {X-Scope-OrgID: a}
    basic_auth: {username: u, password_file: /p}
    tls_config: {ca_file: /ca, cert_file: /c, key_file: /k, server_name: s, insecure_skip_verify: true, min_version: TLS13}
    protobuf_message: prometheus.WriteRequest
    send_exemplars: true
    send_native_histograms: false
    queue_config: {max_shards: 3, max_samples_per_send: 500, min_backoff: 1s, max_backoff: 9s, retry_on_http_429: false}
    metadata_config: {send: false, send_interval: 2m}
    write_relabel_configs: [{action: labeldrop, regex: pod}]
    step: 5m
    allow_long_step: true
    catch_up_rate: 1000
exporters:
  otlphttp/east:
    endpoint: https://east:4318
    headers: {k: v}
    compression: gzip
    timeout: 3s
    temporality: delta
    step: 20s
    tls: {ca_file: /ca, server_name_override: s, min_version: "1.3"}
    retry_on_failure: {initial_interval: 2s, max_interval: 5s}
    authorization: {credentials_file: /t}
    write_relabel_configs: [{action: drop, source_labels: [__name__], regex: debug_.*}]
  otlp/west: {endpoint: "west:4317", tls: {insecure: true}, batch_points: 9}
  otlphttp/exact: {metrics_endpoint: "http://h/api/otlp/v1/metrics"}
`, "OTEL_EXPORTER_OTLP_ENDPOINT", "http://env:4318")
	var names []string
	by := map[string]Destination{}
	for _, d := range got {
		names = append(names, d.Name)
		by[d.Name] = d
	}
	slices.Sort(names)
	if want := []string{"mimir", "otlp", "otlp/west", "otlphttp/east", "otlphttp/exact", "remote_write-1"}; !slices.Equal(names, want) {
		t.Fatalf("want %v, got %v", want, names)
	}
	if d := by["remote_write-1"]; d.Protocol != RemoteWrite || d.Step != time.Minute || d.Message != messageV2 || d.HTTP.Timeout != 30*time.Second || d.NoMetadata || d.Classic || d.NoRetryOn429 {
		t.Errorf("defaults: got %+v", d)
	}
	m := by["mimir"]
	if m.Rules.Len() != 1 {
		t.Errorf("want a rule, got %d", m.Rules.Len())
	}
	m.Rules = nil
	want := Destination{Name: "mimir", Protocol: RemoteWrite, Step: 5 * time.Minute, MinBackoff: time.Second, MaxBackoff: 9 * time.Second, CatchUpRate: 1000, Message: messageV1,
		MaxShards: 3, MaxSamples: 500, NoRetryOn429: true, Exemplars: true, Classic: true, NoMetadata: true, MetadataInterval: 2 * time.Minute,
		HTTP: httpclient.Options{Who: "remote_write mimir", URL: "https://mimir/api/v1/push", Timeout: 7 * time.Second, Header: map[string]string{"X-Scope-OrgID": "a"},
			Auth: httpclient.Auth{Username: "u", PasswordFile: "/p"},
			TLS:  httpclient.TLS{CAFile: "/ca", CertFile: "/c", KeyFile: "/k", ServerName: "s", InsecureSkipVerify: true, MinVersion: "TLS13"}}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("want %+v\ngot  %+v", want, m)
	}
	e := by["otlphttp/east"]
	if e.Rules.Len() != 1 || e.Protocol != OTLPHTTP || !e.Delta || e.Step != 20*time.Second || e.Compression != "gzip" || e.MinBackoff != 2*time.Second || e.MaxBackoff != 5*time.Second ||
		e.HTTP.URL != "https://east:4318/v1/metrics" || e.HTTP.TLS.MinVersion != "TLS13" || e.HTTP.TLS.ServerName != "s" || e.HTTP.Auth.CredentialsFile != "/t" || e.HTTP.Timeout != 3*time.Second || e.HTTP.Header["k"] != "v" {
		t.Errorf("otlphttp/east: got %+v", e)
	}
	if w := by["otlp/west"]; w.Protocol != OTLPGRPC || w.HTTP.URL != "http://west:4317" || w.BatchPoints != 9 || w.Step != 10*time.Second {
		t.Errorf("otlp/west: got %+v", w)
	}
	if x := by["otlphttp/exact"]; x.HTTP.URL != "http://h/api/otlp/v1/metrics" {
		t.Errorf("otlphttp/exact: got %+v", x)
	}
}

// What is wrong is said with its key, the line, and both sides; nothing is ignored.
func TestDestinationErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		parts      []string
	}{
		{"no url", "remote_write: [{name: x}]", []string{"remote_write", "x", "want a url"}},
		{"unknown key", "remote_write: [{url: 'http://h', remote_timout: 3s}]", []string{"remote_timeout", `"remote_timout"`, "line 1"}},
		{"of Prometheus, and not here", "remote_write: [{url: 'http://h', queue_config: {capacity: 5}}]", []string{"max_shards", `"capacity"`}},
		{"a long step", "remote_write: [{url: 'http://h', step: 5m}]", []string{"2m0s", "allow_long_step", "5m0s"}},
		{"no step", "remote_write: [{url: 'http://h', step: 1ms}]", []string{"100ms to 1h", "1ms"}},
		{"message", "remote_write: [{url: 'http://h', protobuf_message: v3}]", []string{messageV1, messageV2, `"v3"`}},
		{"rules", "remote_write: [{url: 'http://h', write_relabel_configs: [{action: dorp}]}]", []string{"rule 1", "dorp"}},
		{"name twice", "remote_write: [{url: 'http://h', name: a}, {url: 'http://i', name: a}]", []string{"each name once", `"a"`}},
		{"the flat one's name", "otlp: {endpoint: 'http://h'}\nexporters: {otlp: {endpoint: 'http://i'}}", []string{"each name once", `"otlp"`}},
		{"backoff", "remote_write: [{url: 'http://h', queue_config: {min_backoff: 9s, max_backoff: 1s}}]", []string{"9s and 1s"}},
		{"a timeout", "remote_write: [{url: 'http://h', remote_timeout: 1us}]", []string{"remote_timeout", "1ms", "1µs"}},
		{"a kind", "exporters: {prometheus: {endpoint: 'http://h'}}", []string{"otlphttp/NAME", `"prometheus"`}},
		{"no endpoint", "exporters: {otlphttp: {}}", []string{"want an endpoint"}},
		{"two endpoints", "exporters: {otlphttp: {endpoint: 'http://h', metrics_endpoint: 'http://h'}}", []string{"got both"}},
		{"an endpoint", "exporters: {otlphttp: {endpoint: 'ftp://h'}}", []string{"http://host:port", "ftp://h"}},
		{"temporality", "exporters: {otlphttp: {endpoint: 'http://h', temporality: lowmemory}}", []string{"cumulative or delta", `"lowmemory"`}},
		{"compression", "exporters: {otlphttp: {endpoint: 'http://h', compression: zstd}}", []string{"auto, gzip or none", `"zstd"`}},
		{"a queue", "exporters: {otlphttp: {endpoint: 'http://h', sending_queue: {enabled: true}}}", []string{`"sending_queue"`}},
		{"rules that rewrite", "exporters: {otlphttp: {endpoint: 'http://h', write_relabel_configs: [{action: labeldrop, regex: x}]}}", []string{"keep and drop", "OTLP"}},
		{"no archive, and a step that is longer than segments are kept", "exporters: {otlphttp: {endpoint: 'http://h', step: 20m}}", []string{"hold-limit", "40m0s", "11m0s"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load([]string{"--config", file(t, c.text)}, env())
			if err == nil {
				t.Fatal("want an error, got none")
			}
			for _, p := range append(c.parts, "shmts: ") {
				if !strings.Contains(err.Error(), p) {
					t.Errorf("want %q in it, got: %v", p, err)
				}
			}
		})
	}
}
