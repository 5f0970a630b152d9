// Package profile is the -cpuprofile of the benchmarks' programs.
package profile

import (
	"os"
	"runtime/pprof"
)

// CPU runs f, and profiles it into a file, if one is named.
func CPU(path string, f func() error) error {
	if path == "" {
		return f()
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := pprof.StartCPUProfile(file); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}
