// Package peers builds the real servers that tests and benchmarks stand next
// to: an OpenTelemetry Collector, Prometheus and promtool, each of one pinned
// version, from source through the Go module proxy.
//
// Binaries are kept in $XDG_CACHE_HOME/shmts-peers (else ~/.cache/shmts-peers),
// in a directory of each version, so that a second run takes no time. Nothing
// of it is part of the product; no product package imports this one.
package peers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// The versions that were tried. Newer collectors are not complete on every
// proxy; an older Prometheus has neither the OTLP receiver nor remote-write 2.0.
const (
	CollectorVersion         = "v0.159.0"
	collectorProviderVersion = "v1.65.0"  // confmap providers of the same release
	PrometheusVersion        = "v0.316.0" // the module's number for Prometheus 3.16
)

const prometheusModule = "github.com/prometheus/prometheus"

// Logf says what is being done; testing.T's and log's Logf fit.
type Logf func(format string, args ...any)

// Dir is where built peers are kept.
func Dir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("shmts: no directory for built peers: %w", err)
	}
	return filepath.Join(cache, "shmts-peers"), nil
}

// Collector is the path of an OpenTelemetry Collector with the OTLP receiver
// and the file and debug exporters. Building it takes some minutes.
func Collector(logf Logf) (string, error) {
	return built("otelcol-"+CollectorVersion, "otelcol", logf, buildCollector)
}

// Prometheus is the path of prometheus, without service discovery.
func Prometheus(logf Logf) (string, error) {
	return built("prometheus-"+PrometheusVersion, "prometheus", logf, buildPrometheus)
}

// Promtool is the path of promtool.
func Promtool(logf Logf) (string, error) {
	return built("prometheus-"+PrometheusVersion, "promtool", logf, buildPrometheus)
}

// built is dir/name in the cache, made by build in a scratch directory if it
// is not there. A lock keeps two test processes from building it twice.
func built(dir, name string, logf Logf, build func(scratch, name string, logf Logf) error) (string, error) {
	root, err := Dir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(root, dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("shmts: no directory for built peers: %w", err)
	}
	path := filepath.Join(dir, name)
	if executable(path) {
		return path, nil
	}
	lock, err := os.OpenFile(filepath.Join(dir, "."+name+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", fmt.Errorf("shmts: no lock for building %s: %w", name, err)
	}
	defer lock.Close()
	logf("%s is not built yet; taking %s", name, lock.Name())
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("shmts: lock %s: %w", lock.Name(), err)
	}
	if executable(path) {
		return path, nil
	}
	scratch, err := os.MkdirTemp(dir, ".build-")
	if err != nil {
		return "", fmt.Errorf("shmts: no scratch directory for building %s: %w", name, err)
	}
	defer os.RemoveAll(scratch)
	logf("building %s into %s: some minutes, once", name, path)
	if err := build(scratch, name, logf); err != nil {
		return "", err
	}
	// Only a whole binary ever gets the name.
	if err := os.Rename(filepath.Join(scratch, name), path); err != nil {
		return "", fmt.Errorf("shmts: keep %s: %w", name, err)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func buildCollector(scratch, name string, logf Logf) error {
	if err := goTool(scratch, []string{"GOBIN=" + scratch}, logf,
		"install", "go.opentelemetry.io/collector/cmd/builder@"+CollectorVersion); err != nil {
		return err
	}
	source := filepath.Join(scratch, "source")
	config := filepath.Join(scratch, "builder.yaml")
	text := strings.NewReplacer("@NAME@", name, "@SOURCE@", source, "@VERSION@", CollectorVersion,
		"@PROVIDERS@", collectorProviderVersion).Replace(`
dist:
  name: @NAME@
  description: the collector that shmts is tested against
  module: github.com/shmts/shmts/peers/@NAME@
  output_path: @SOURCE@
receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver @VERSION@
exporters:
  - gomod: go.opentelemetry.io/collector/exporter/debugexporter @VERSION@
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter @VERSION@
providers:
  - gomod: go.opentelemetry.io/collector/confmap/provider/envprovider @PROVIDERS@
  - gomod: go.opentelemetry.io/collector/confmap/provider/fileprovider @PROVIDERS@
  - gomod: go.opentelemetry.io/collector/confmap/provider/yamlprovider @PROVIDERS@
`)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return fmt.Errorf("shmts: the collector's build configuration: %w", err)
	}
	cmd := exec.Command(filepath.Join(scratch, "builder"), "--config", config)
	if err := run(cmd, scratch, nil, logf); err != nil {
		return err
	}
	return os.Rename(filepath.Join(source, name), filepath.Join(scratch, name))
}

// buildPrometheus builds one command of the Prometheus module. go install
// refuses it (its go.mod has replace directives), so the module is copied out
// of the module cache and built in place.
func buildPrometheus(scratch, name string, logf Logf) error {
	cmd := exec.Command("go", "mod", "download", "-json", prometheusModule+"@"+PrometheusVersion)
	cmd.Dir, cmd.Env = scratch, append(os.Environ(), "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("shmts: download %s@%s: %w: %s", prometheusModule, PrometheusVersion, err, out)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil || module.Dir == "" {
		return fmt.Errorf("shmts: download %s@%s: want its directory, got %q", prometheusModule, PrometheusVersion, out)
	}
	source := filepath.Join(scratch, "source")
	if err := copyTree(source, module.Dir); err != nil {
		return fmt.Errorf("shmts: copy %s: %w", module.Dir, err)
	}
	return goTool(source, nil, logf, "build", "-trimpath", "-tags", "netgo remove_all_sd",
		"-o", filepath.Join(scratch, name), "./cmd/"+name)
}

func goTool(dir string, env []string, logf Logf, args ...string) error {
	return run(exec.Command("go", args...), dir, append(env, "GOWORK=off", "CGO_ENABLED=0"), logf)
}

func run(cmd *exec.Cmd, dir string, env []string, logf Logf) error {
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOWORK=off"), env...)
	logf("$ %s", strings.Join(cmd.Args, " "))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("shmts: %s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// copyTree copies a module out of the read-only module cache.
func copyTree(to, from string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		case !d.Type().IsRegular():
			return errors.New(path + " is not a regular file")
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, 0o644)
	})
}
