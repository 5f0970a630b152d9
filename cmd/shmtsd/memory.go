package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strings"

	"golang.org/x/sys/unix"
)

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

// image is where this program's code and constants are mapped: half of them the start alone needed.
type image [][2]uintptr

// ownImage finds it in /proc/self/smaps. What is not as it is in the file is left out: it would be lost.
func ownImage() (m image, err error) {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var begin, end uintptr
	own := false
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) >= 5 && strings.Contains(fields[0], "-") {
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &begin, &end); err != nil {
				return nil, fmt.Errorf("shmts: smaps: want addresses, got %q: %w", fields[0], err)
			}
			own = len(fields) >= 6 && strings.Join(fields[5:], " ") == self && (fields[1] == "r-xp" || fields[1] == "r--p")
		}
		if own && len(fields) >= 2 && fields[0] == "Anonymous:" && fields[1] == "0" {
			m = append(m, [2]uintptr{begin, end})
		}
	}
	return m, s.Err()
}

// release takes the pages out of this process's memory. Those that are used come back from the page cache as they are.
func (m image) release() {
	for _, r := range m {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, r[0], r[1]-r[0], unix.MADV_DONTNEED)
	}
}

// spare is how much of the heap nobody needs, as far as that is known without a collection: what is free, and at most what was allocated since
// the last one.
func spare() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	n, objects, live := s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()
	return n + objects - min(objects, live)
}

// giveBack gives back to the system what is not in use, this program's own pages too.
func (m image) giveBack() {
	debug.FreeOSMemory()
	m.release()
}
