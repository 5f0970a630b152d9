// Command shmtsd reads the segments of a store, answers PromQL over HTTP and exports OTLP.
//
// It ends on SIGTERM or SIGINT, after a last export, with status 0; a second signal ends it at once. On SIGHUP it reads its
// metric_relabel_configs anew. Status 1: it could not go on; 2: it was told something wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
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
	tenants, err := openTenants(c)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	log := logger(c, stderr)
	web, err := webconfig.Open(c.WebConfig, log)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // the second one ends it at once

	settings := newReloadable(c, func() (*config.Config, error) { return config.Load(args, getenv) }, log)
	d, err := newDaemon(c, settings, web, tenants, log)
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	go settings.run(ctx, hup)
	if err := d.run(ctx); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func logger(c *config.Config, w io.Writer) *slog.Logger {
	o := &slog.HandlerOptions{Level: c.LogLevel}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
