// Command httpservice is a small key-value store over HTTP that records what it does through shared
// memory: requests by route, method and status, requests in flight, a latency histogram and response bytes by route.
// Of requests with a sampled traceparent header, the slowest of each row leave their trace as exemplars.
// It serves no metrics itself; a reader of the store does that, while it lives and after it died.
//
//	httpservice -listen 127.0.0.1:8080
//	curl -X PUT -d hello http://127.0.0.1:8080/kv/greeting
//	curl http://127.0.0.1:8080/kv/greeting
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shmts/shmts/writer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "httpservice:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done. It prints where it listens, once it does.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("httpservice", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:8080", "address to serve HTTP on")
	store := flags.String("store", "", "store of segments; default $SHMTS_DIR, else /dev/shm/shmts")
	job := flags.String("job", "httpservice", "job label")
	instance := flags.String("instance", "", "instance label; default hostname:pid")
	if err := flags.Parse(args); err != nil {
		return err
	}
	w, err := writer.Open(writer.Options{Job: *job, Instance: *instance, Dir: *store,
		Attributes: map[string]string{"service.name": *job}})
	if err != nil {
		fmt.Fprintln(os.Stderr, "httpservice:", err) // it serves all the same
	}
	defer w.Close()

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: newService(w), ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintf(out, "listening on http://%s\n", listener.Addr())
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return server.Shutdown(drain)
}
