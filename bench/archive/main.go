// Command archive measures what the archive on disk takes and costs, by itself: bench/fleet measures it inside the daemon. Each act
// prints lines of name and value, separated by a tab; bench/run makes RESULTS.md of them.
//
//	archive record  -dir DIR -bin BIN         records this host, and the demo's forwarder, for sizes and its peers
//	archive sizes   -recordings DIR           bytes a sample on disk, beside rrdtool's
//	archive flush                             ns a sample from rings to the disk, and what the disk is given
//	archive exemplars                         bytes and ns of exemplars, from rings to the disk and back
//	archive fill    -dir DIR                  makes a full archive of 100,000 VMs that are dead, for select and bench/fleet
//	archive select  -dir DIR                  finding some of them
//	archive query   -dir DIR                  PromQL over an hour that is in the archive alone
package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shmts/shmts/bench/profile"
)

type options struct {
	dir, recordings, bin string
	rows, segments, vms  int
	rounds               int
	prometheus           bool
}

var acts = map[string]func(options) error{"record": record, "sizes": sizes, "flush": flush, "exemplars": traced, "fill": fill, "select": selects, "query": queries}

func main() {
	if len(os.Args) < 2 || acts[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "shmts: want record, sizes, flush, exemplars, fill, select or query, and their flags")
		os.Exit(2)
	}
	var o options
	f := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	f.StringVar(&o.dir, "dir", "", "the `directory` to make or read")
	f.StringVar(&o.recordings, "recordings", "", "`directory` of what record has made; empty: none")
	f.StringVar(&o.bin, "bin", "bin", "`directory` of udpfwd and udpgen")
	f.IntVar(&o.rows, "rows", 60, "record: seconds")
	f.IntVar(&o.segments, "segments", 256, "flush, exemplars: writers")
	f.IntVar(&o.vms, "vms", 100_000, "fill: how many")
	f.IntVar(&o.rounds, "rounds", 0, "how often; 0: as is enough")
	f.BoolVar(&o.prometheus, "prometheus", false, "query: a Prometheus that holds the same samples as well (built if it is not cached: minutes)")
	cpuprofile := f.String("cpuprofile", "", "write a profile to this `file`")
	_ = f.Parse(os.Args[2:])
	if err := profile.CPU(*cpuprofile, func() error { return acts[os.Args[1]](o) }); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func print(name string, value float64) { fmt.Printf("%s\t%.6g\n", name, value) }

// cpu is the processor time that this process has used, all its threads.
func cpu() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// middle is the median and the value that 99 of 100 do not exceed, in ms.
func middle(all []time.Duration) (median, p99 float64) {
	slices.Sort(all)
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	return ms(all[len(all)/2]), ms(all[min(len(all)-1, len(all)*99/100)])
}

// scratch is a directory on a disk: /tmp is memory on some machines, and the working directory is not.
func scratch() (string, error) {
	for _, dir := range []string{os.TempDir(), "."} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type != unix.TMPFS_MAGIC {
			return os.MkdirTemp(dir, "shmts-archive-")
		}
	}
	return "", fmt.Errorf("shmts: neither %s nor the working directory is on a disk", os.TempDir())
}

// forget drops the files' clean pages from the page cache.
func forget(files ...string) error {
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}
