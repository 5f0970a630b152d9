// Command shmtsd reads the segments of a store, answers PromQL over HTTP and exports OTLP.
//
// It ends on SIGTERM or SIGINT, after a last export, with status 0; a second signal ends it at once. SIGHUP is
// ignored: settings are read at the start only. Status 1: it could not go on; 2: it was told something wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/shmts/shmts/internal/config"
	"github.com/shmts/shmts/internal/webconfig"
)

// version is set by the linker: -X main.version=...
var version = "1.0.0-dev"

func main() { os.Exit(run(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) }

func run(args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	c, err := config.Load(args, getenv)
	switch {
	case err != nil:
		fmt.Fprintln(stderr, err)
		return 2
	case c.Help:
		config.Usage(stdout)
		return 0
	case c.Version:
		fmt.Fprintf(stdout, "shmtsd %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return 0
	}
	limitMemory(getenv)
	log := logger(c, stderr)
	web, err := webconfig.Open(c.WebConfig, log)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	signal.Ignore(syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // the second one ends it at once

	d, err := newDaemon(c, web, log)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

// limitMemory trades some processor time for memory, where the environment does not say otherwise: what
// is held for long is small and what a query needs is garbage soon after. The limit is soft, and above what a
// query of the default size takes, so that it only makes the collector work harder when queries pile up.
func limitMemory(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	if getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(512 << 20)
	}
}

func logger(c *config.Config, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
