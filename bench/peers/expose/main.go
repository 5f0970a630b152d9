// Command expose serves metrics pages as services do, with client_golang: the
// other side of bench/fleet's comparison. A target is a registry of its own at
// /metrics/<number> with 60 counters and 40 gauges, each recorded once a second.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	counters = 60
	gauges   = 40
)

type target struct {
	counters []prometheus.Counter
	gauges   []prometheus.Gauge
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` to serve at")
	first := flag.Int("first", 0, "number of the first target")
	count := flag.Int("targets", 1, "how many")
	flag.Parse()
	if err := run(*listen, *first, *count); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(listen string, first, count int) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	all := make([]target, count)
	for i := range all {
		registry := prometheus.NewRegistry()
		for n := range counters {
			c := prometheus.NewCounter(prometheus.CounterOpts{Name: fmt.Sprintf("fleet_c%02d_total", n),
				Help: "a counter", ConstLabels: prometheus.Labels{"queue": fmt.Sprint(n % 8)}})
			registry.MustRegister(c)
			all[i].counters = append(all[i].counters, c)
		}
		for n := range gauges {
			g := prometheus.NewGauge(prometheus.GaugeOpts{Name: fmt.Sprintf("fleet_g%02d", n), Help: "a gauge"})
			registry.MustRegister(g)
			all[i].gauges = append(all[i].gauges, g)
		}
		mux.Handle(fmt.Sprintf("/metrics/%d", first+i), promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	fmt.Println("ready")
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for round := uint64(0); ; round++ {
		for i := range all {
			for n, c := range all[i].counters {
				c.Add(float64(1 + (round*7+uint64(i)+uint64(n))%100))
			}
			for n, g := range all[i].gauges {
				g.Set(float64((round*13+uint64(i))%1000) + float64(n)/100)
			}
		}
		select {
		case <-second.C:
		case <-ctx.Done():
			return server.Close()
		case err := <-served:
			return errors.Join(errors.New("shmts: the server ended by itself"), err)
		}
	}
}
