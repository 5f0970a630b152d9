// Command demo runs the main job on real input and checks what it shows: a C
// forwarder and a Go service record into a store while real datagrams and
// requests go through them; shmtsd answers PromQL and exports OTLP; the
// forwarder is killed with SIGKILL, and what the store says of it is held against what
// it had done; then shmtsd is killed and started again, and what only the archive has by now is held against it as
// well. Its exit status says whether all of it held.
//
// `make demo` builds what it needs and runs it; `make run` keeps it up.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	bin := flag.String("bin", "bin", "where shmtsd, shmctl, udpfwd, udpgen, record and httpservice are")
	otlp := flag.String("otlp", "", "an OTLP receiver, such as http://127.0.0.1:4318; else a small one of the demo's own")
	keep := flag.Bool("keep", false, "keep everything up until interrupted, instead of the kill and the end")
	seconds := flag.Int("seconds", 14, "how long to let it run before the kill; histograms have rows each 10 s")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *otlp, *keep, time.Duration(*seconds)*time.Second); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, otlp string, keep bool, runFor time.Duration) (err error) {
	s, err := newStage(ctx, bin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	if otlp == "" {
		if s.receiver, err = newReceiver(); err != nil {
			return err
		}
		otlp = "http://" + s.receiver.addr
	}
	if err := s.start(otlp, keep); err != nil {
		return err
	}
	if keep {
		s.where(otlp)
		<-ctx.Done()
		return nil
	}
	s.live(runFor)
	s.recordCost()
	s.answers()
	s.death()
	s.left()
	s.history()
	s.sizes()
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if s.failed > 0 {
		return fmt.Errorf("%d of %d did not hold", s.failed, s.checks)
	}
	fmt.Printf("\nall %d held\n", s.checks)
	return nil
}

// start brings everything up: the daemon first, then what records, then the load.
func (s *stage) start(otlp string, keep bool) error {
	s.title("The store is %s", s.store)
	s.listen = freeAddress("tcp")
	s.say("shmtsd reads it, answers PromQL on %s and exports OTLP to %s each second", s.listen, otlp)
	s.archive = filepath.Join(s.tmp, "archive")
	s.say("and keeps history in %s: 16 MiB of rows each second, 8 MiB of rows each 10 s, for ever", s.archive)
	s.daemonArgs = []string{"--store", s.store, "--listen", s.listen, "--log.level", "warn", "--otlp.endpoint", otlp, "--otlp.interval", "1s", "--poll-interval", "500ms",
		"--dead-ttl", "5s", "--archive.dir", s.archive, "--archive.tiers", "1s=16MiB,10s=8MiB"}
	s.daemon = s.spawn("shmtsd", s.daemonArgs...)
	if err := s.eventually("shmtsd is ready", func() error { return s.get("/-/ready", nil) }); err != nil {
		return err
	}
	in, out := freeAddress("udp"), freeAddress("udp")
	s.ack = filepath.Join(s.tmp, "ack")
	s.say("udpfwd (C, 2 threads) forwards datagrams from %s to %s and counts them with shmts.h", in, out)
	s.forwarder = s.spawn("udpfwd", "--listen", in, "--target", out, "--threads", "2", "--dir", s.store,
		"--job", "udpfwd", "--instance", "demo", "--ack", s.ack)
	web := freeAddress("tcp")
	s.say("httpservice (Go) keeps keys and values on %s and counts with package writer", web)
	s.spawn("httpservice", "--listen", web, "--store", s.store)
	if err := s.eventually("httpservice answers", func() error { return get(s.ctx, "http://"+web+"/healthz", nil) }); err != nil {
		return err
	}
	seconds := "600"
	if keep {
		seconds = "86400"
	}
	s.say("udpgen sends 50,000 datagrams a second through the forwarder, 4 clients ask the service without a pause")
	s.spawn("udpgen", "--target", in, "--sink", out, "--rate", "50000", "--bytes", "256", "--flows", "8", "--seconds", seconds)
	for range 4 {
		go s.ask("http://" + web)
	}
	return nil
}

// where says where to look while everything is kept up.
func (s *stage) where(otlp string) {
	s.title("Everything is up; ^C ends it. Look with")
	for _, line := range []string{
		"export SHMTS_DIR=" + s.store,
		s.bin + "/shmctl ls",
		s.bin + "/shmctl top",
		s.bin + "/shmctl query --url http://" + s.listen + " 'rate(udp_packets_total[5s])'",
		"curl -sg 'http://" + s.listen + "/api/v1/query?query=histogram_quantile(0.99,rate(udp_forward_latency_seconds[30s]))'",
		"kill -9 " + fmt.Sprint(s.forwarder.Process.Pid) + "    # and ask again",
		"Grafana: a Prometheus data source with URL http://" + s.listen + ", scrape interval 1s",
	} {
		fmt.Println("    " + line)
	}
}
