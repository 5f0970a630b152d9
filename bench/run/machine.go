package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine says what this was measured on, as far as numbers depend on it.
func machine() [][]string {
	var u unix.Utsname
	kernel := "unknown"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Release[:])
	}
	compiler := "none"
	if out, err := exec.Command("gcc", "--version").Output(); err == nil {
		compiler, _, _ = strings.Cut(string(out), "\n")
	}
	return [][]string{
		{"processor", fmt.Sprintf("%s, %s MHz, %d CPUs", procField("/proc/cpuinfo", "model name"), procField("/proc/cpuinfo", "cpu MHz"), runtime.NumCPU())},
		{"memory", procField("/proc/meminfo", "MemTotal")},
		{"kernel", kernel},
		{"Go", fmt.Sprintf("%s, GOMAXPROCS %d", runtime.Version(), runtime.GOMAXPROCS(0))},
		{"C", compiler},
		{"when", time.Now().UTC().Format("2006-01-02 15:04 UTC")},
	}
}

// procField is the first value of a "name : value" file.
func procField(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if n, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(n) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(data))[:2], ", ")
}

// waitQuiet waits for the machine to come to rest, but not for ever: what the load
// was then stands in the page.
func waitQuiet(load float64) {
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Second) {
		var now float64
		if _, err := fmt.Sscan(loadAverage(), &now); err != nil || now <= load {
			return
		}
	}
}
