// record writes a recording of this host's metrics, for the benchmarks of columns and archives.
//
//	record -rows 300 -step 1s FILE
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/shmts/shmts/bench/hostmix"
)

func main() {
	rows := flag.Int("rows", 300, "how many")
	step := flag.Duration("step", time.Second, "from row to row")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "record: want the name of the file to write")
		os.Exit(2)
	}
	h := hostmix.NewHost()
	for tick := time.NewTicker(*step); ; <-tick.C {
		h.Sample()
		if *rows--; *rows <= 0 {
			break
		}
	}
	var b bytes.Buffer
	err := hostmix.Write(&b, h.Series())
	if err == nil {
		err = os.WriteFile(flag.Arg(0), b.Bytes(), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "record:", err)
		os.Exit(1)
	}
}
