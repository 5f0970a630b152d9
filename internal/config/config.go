// Package config is what shmtsd can be told: by flags, by the environment, by a file. All three say
// the same things under the same names, from one definition each (settings.go): the flag --otlp.interval
// is SHMTS_OTLP_INTERVAL, and in the file
//
//	otlp:
//	  interval: 10s
//
// A flag wins over the environment, that over the file, and that over the default. Where
// OpenTelemetry has a variable for a thing it is understood as well, behind SHMTS_*.
//
// The file is YAML because those whom shmtsd stands beside, Prometheus and the OpenTelemetry Collector, have
// theirs in it, and its parser comes with the Prometheus engine already.
package config

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v2"

	"github.com/shmts/shmts/internal/relabel"
	"github.com/shmts/shmts/reader"
)

// Config is what was said, checked.
type Config struct {
	Help, Version bool // print that and end

	Store        string // empty: $SHMTS_DIR, else /dev/shm/shmts
	Listen       string // host:port, or unix:PATH
	WebConfig    string // empty: plain HTTP for whoever reaches it
	PollInterval time.Duration
	DeadTTL      time.Duration
	HoldLimit    time.Duration
	TrustUIDs    []int
	AnyOwner     bool
	NoMap        bool
	PerUser      reader.Budget // what the segments of one user may take, and those of all
	Total        reader.Budget
	LogLevel     slog.Level
	LogFormat    string // text or json

	QueryTimeout      time.Duration
	QueryConcurrency  int
	QueryMaxSamples   int
	QueryMaxSources   int
	Exemplars         int // that are kept in memory; 0: none
	QueryMaxMemory    int64
	QueryMemoryTotal  int64
	QueryExperimental bool

	// MetricRelabel are rules for all series; nil: none.
	MetricRelabel *relabel.Rules
	Tenants       *Tenants // nil: all are one

	OTLP         OTLP // the destination that flags and OpenTelemetry's environment name
	Destinations []Destination
	ExportDir    string // see PositionsDir
	Archive      Archive

	// The daemon's own source, as a writer of its own store.
	ServiceName string
	Attributes  map[string]string
	SelfMetrics bool

	said       map[string]string // by name: what holds, as it was said
	structures yaml.MapSlice     // those of the file, without secrets
}

// OTLP is where and how metrics are exported. No endpoint, no export.
type OTLP struct {
	Endpoint    string // a URL; for http/protobuf with its path
	Protocol    string // http/protobuf or grpc
	Headers     map[string]string
	Timeout     time.Duration
	Compression string // auto, gzip or none
	Insecure    bool
	Certificate string // file: the CA that the receiver's certificate is held against
	ClientCert  string
	ClientKey   string
	Interval    time.Duration
	Delta       bool
	BatchBytes  int
	BatchPoints int
}

// Load reads arguments (without the program's name), environment and file. Its error says which
// setting, where it was said, what was wanted and what was got.
func Load(args []string, getenv func(string) string) (*Config, error) {
	c := &Config{said: map[string]string{}}
	all := settings(c)
	for i := range all {
		s := &all[i]
		set := s.set
		s.set = func(v string) error {
			if s.name != configFlag { // where it was said does not matter
				c.said[s.name] = v
			}
			return set(v)
		}
	}
	byName := make(map[string]*setting, len(all))
	given := make(map[string]string)
	flags := flag.NewFlagSet("shmtsd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	for i := range all {
		s := &all[i]
		byName[s.name] = s
		set := func(v string) error { given[s.name] = v; return nil }
		if s.boolean {
			flags.BoolFunc(s.name, s.help, set)
		} else {
			flags.Func(s.name, s.help, set)
		}
		if err := s.set(s.def); err != nil {
			return nil, fmt.Errorf("shmts: default of %s: %w", s.name, err)
		}
	}
	flags.BoolVar(&c.Help, "help", false, "")
	flags.BoolVar(&c.Help, "h", false, "")
	flags.BoolVar(&c.Version, "version", false, "")
	err := flags.Parse(args)
	if err != nil {
		return nil, fmt.Errorf("shmts: %w (--help lists the flags)", err)
	}
	if n := flags.NArg(); n > 0 {
		return nil, fmt.Errorf("shmts: arguments: want flags only, got %q", flags.Args())
	}
	if c.Help || c.Version {
		return c, nil
	}
	path, ok := given[configFlag]
	if !ok {
		path = getenv(envName(configFlag))
	}
	if path != "" {
		if c.structures, err = fromFile(path, byName, structures(c)); err != nil {
			return nil, err
		}
	}
	// From the last word in precedence to the first, so that each overwrites what counts less.
	for i := range all {
		s := &all[i]
		for _, from := range slices.Backward(s.otel) {
			if v := getenv(from.env); v != "" {
				if from.convert != nil {
					var err error
					if v, err = from.convert(v); err != nil {
						return nil, fmt.Errorf("shmts: %s: %w (environment %s)", s.name, err, from.env)
					}
				}
				if err := s.set(v); err != nil {
					return nil, fmt.Errorf("shmts: %s: %w (environment %s)", s.name, err, from.env)
				}
			}
		}
		if v := getenv(s.env); v != "" && s.name != configFlag {
			if err := s.set(v); err != nil {
				return nil, fmt.Errorf("shmts: %s: %w (environment %s)", s.name, err, s.env)
			}
		}
		if v, ok := given[s.name]; ok {
			if err := s.set(v); err != nil {
				return nil, fmt.Errorf("shmts: %s: %w (flag --%s)", s.name, err, s.name)
			}
		}
	}
	return c, c.check()
}

// check holds settings against each other.
func (c *Config) check() error {
	if (c.OTLP.ClientCert == "") != (c.OTLP.ClientKey == "") {
		return fmt.Errorf("shmts: otlp: want client-certificate and client-key together, got %q and %q", c.OTLP.ClientCert, c.OTLP.ClientKey)
	}
	if c.OTLP.Endpoint != "" {
		if err := c.OTLP.resolve(); err != nil {
			return err
		}
	}
	if err := c.destinations(); err != nil {
		return err
	}
	if c.Archive.Dir != "" {
		return nil // that has what the rings forgot
	}
	for _, d := range c.Destinations {
		if kept, least := c.DeadTTL+c.HoldLimit, 2*d.Step; kept < least {
			return fmt.Errorf("shmts: hold-limit: want dead-ttl and hold-limit together at least twice the step of %s (%v), or last rows are gone before they are exported; got %v", d.Name, least, kept)
		}
	}
	return nil
}

// fromFile reads the settings of a file, and the structures, which it answers as they are shown.
func fromFile(path string, settings map[string]*setting, structures []structure) (shown yaml.MapSlice, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("shmts: config file: %w", err)
	}
	var top yaml.MapSlice
	if err := yaml.Unmarshal(text, &top); err != nil {
		return nil, fmt.Errorf("shmts: config file %s: %w", path, err)
	}
	top = slices.DeleteFunc(top, func(item yaml.MapItem) bool {
		is := slices.ContainsFunc(structures, func(s structure) bool { return s.name == item.Key })
		if is {
			shown = append(shown, item)
		}
		return is
	})
	names := keys(settings)
	for _, s := range structures {
		names = append(names, s.name)
	}
	if err := fromMap(path, "", top, settings, names); err != nil || len(shown) == 0 {
		return nil, err
	}
	// Once more, for the structures: their errors have lines.
	var blocks map[string]block
	if err := yaml.UnmarshalStrict(text, &blocks); err != nil { // a key twice
		return nil, fmt.Errorf("shmts: config file %s: %w", path, err)
	}
	for _, s := range structures {
		if b, ok := blocks[s.name]; ok {
			if err := s.set(b); err != nil {
				return nil, fmt.Errorf("shmts: config file %s: %s: %w", path, s.name, err)
			}
		}
	}
	return redacted(shown).(yaml.MapSlice), nil
}

func fromMap(path, prefix string, m yaml.MapSlice, settings map[string]*setting, names []string) error {
	seen := make(map[string]bool, len(m))
	for _, item := range m {
		name := prefix + fmt.Sprint(item.Key)
		if seen[name] {
			return fmt.Errorf("shmts: config file %s: want %s once, got it twice", path, name)
		}
		seen[name] = true
		s := settings[name]
		if s == nil || name == configFlag {
			if inner, ok := item.Value.(yaml.MapSlice); ok && slices.ContainsFunc(names, func(k string) bool { return strings.HasPrefix(k, name+".") }) {
				if err := fromMap(path, name+".", inner, settings, names); err != nil {
					return err
				}
				continue
			}
			return fmt.Errorf("shmts: config file %s: want one of %s, got %q", path, strings.Join(names, ", "), name)
		}
		v, err := scalar(item.Value)
		if err == nil {
			err = s.set(v)
		}
		if err != nil {
			return fmt.Errorf("shmts: %s: %w (file %s)", name, err, path)
		}
	}
	return nil
}

// scalar writes a YAML value as a flag would be: lists with commas, maps as name=value.
func scalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case []any:
		parts := make([]string, len(v))
		for i, e := range v {
			s, err := scalar(e)
			if err != nil {
				return "", err
			}
			parts[i] = s
		}
		return strings.Join(parts, ","), nil
	case yaml.MapSlice:
		parts := make([]string, len(v))
		for i, e := range v {
			s, err := scalar(e.Value)
			if err != nil {
				return "", err
			}
			parts[i] = fmt.Sprint(e.Key) + "=" + escape(s)
		}
		return strings.Join(parts, ","), nil
	case string, bool, int, int64, uint64, float64:
		return fmt.Sprint(v), nil
	}
	return "", errors.New("want a plain value, a list or a map, got " + fmt.Sprintf("%T", v))
}

func keys(settings map[string]*setting) []string {
	out := make([]string, 0, len(settings))
	for k := range settings {
		if k != configFlag {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// Usage writes every setting with its variables and its default.
func Usage(w io.Writer) {
	fmt.Fprint(w, `shmtsd reads shared-memory time series, answers PromQL over HTTP and exports by OTLP and remote-write.

Every flag can also be said in the environment (in brackets; the first that is set wins) and in a
YAML file (--config): --otlp.interval 10s is otlp: {interval: 10s}. Flags win over the environment,
that over the file.

`)
	for _, s := range settings(&Config{}) {
		env := []string{s.env}
		for _, o := range s.otel {
			env = append(env, o.env)
		}
		fmt.Fprintf(w, "  --%s", s.name)
		if !s.boolean {
			fmt.Fprintf(w, " %s", s.what)
		}
		if s.def != "" && !s.boolean {
			fmt.Fprintf(w, " (default %s)", s.def)
		}
		fmt.Fprintf(w, "\n        %s\n        [%s]\n", s.help, strings.Join(env, ", "))
	}
	fmt.Fprint(w, "  --version\n        print the version and end\n  --help\n        print this and end\n")
	for i, s := range structures(&Config{}) {
		if i == 0 {
			fmt.Fprint(w, "\nIn the file alone:\n\n")
		}
		fmt.Fprintf(w, "  %s: %s\n        %s\n", s.name, s.what, s.help)
	}
}
