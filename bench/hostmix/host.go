// Package hostmix is what the benchmarks of columns and archives are fed with: the metrics of the host that they run on, a recording of
// such, and an application's as a generator draws them. All of it is columns: one value of each series for each row.
package hostmix

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Series is one series, with a value for each row.
type Series struct {
	Name    string
	Float   bool     // Values are the bits of f64s, else integers
	Values  []uint64 // of each row; 0 where it is absent
	Present []bool   // nil: every row has a value
}

// Host collects a host's metrics as node_exporter and its like do: /proc's own counters as integers, times in seconds and loads as f64.
type Host struct {
	rows   int
	series []*Series
	byName map[string]*Series
	pids   []string // processes that lived at the first row, by which they are numbered: names would say whose host it is
}

// NewHost begins a recording without rows.
func NewHost() *Host { return &Host{byName: map[string]*Series{}} }

const (
	ticks        = 100  // of /proc's times, a second
	pageSize     = 4096 // of /proc/[pid]/stat's rss
	maxProcesses = 60   // a recording holds the first of them
)

// Sample appends a row of what /proc says now. Files that are missing are series that are absent.
func (h *Host) Sample() {
	h.stat()
	for line := range lines("/proc/vmstat") {
		f := strings.Fields(line)
		h.integer("vmstat/"+f[0], f, 1, 1)
	}
	for line := range lines("/proc/meminfo") {
		f := strings.Fields(line)
		if len(f) == 3 { // kB
			h.integer("meminfo/"+strings.TrimSuffix(f[0], ":"), f, 1, 1024)
		}
	}
	for line := range lines("/proc/diskstats") {
		f := strings.Fields(line)
		for i := 3; i < len(f); i++ {
			h.integer("disk/"+f[2]+"/"+strconv.Itoa(i), f, i, 1)
		}
	}
	for line := range lines("/proc/net/dev") {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			f := strings.Fields(rest)
			for i := range f {
				h.integer("net/"+strings.TrimSpace(name)+"/"+strconv.Itoa(i), f, i, 1)
			}
		}
	}
	for _, file := range []string{"snmp", "netstat"} {
		var names []string
		for line := range lines("/proc/net/" + file) {
			f := strings.Fields(line)
			if names == nil {
				names = f
				continue
			}
			for i := 1; i < min(len(f), len(names)); i++ {
				h.integer(file+"/"+names[0]+names[i], f, i, 1)
			}
			names = nil
		}
	}
	for line := range lines("/proc/loadavg") {
		f := strings.Fields(line)
		for i := range 3 {
			h.float("loadavg/"+strconv.Itoa(i), f, i, 1)
		}
	}
	for _, file := range []string{"cpu", "io", "memory"} {
		for line := range lines("/proc/pressure/" + file) {
			for _, field := range strings.Fields(line)[1:] {
				name, value, _ := strings.Cut(field, "=")
				name = "pressure/" + file + "/" + line[:4] + "/" + name
				if strings.HasSuffix(name, "total") {
					h.integer(name, []string{value}, 0, 1)
				} else {
					h.float(name, []string{value}, 0, 1)
				}
			}
		}
	}
	h.processes()
	h.rows++
	for _, s := range h.series {
		for len(s.Values) < h.rows { // not seen in this row
			s.set(len(s.Values), 0, false)
		}
	}
}

// Series are the rows collected so far, in the order in which they were first seen.
func (h *Host) Series() []*Series { return h.series }

func (h *Host) stat() {
	for line := range lines("/proc/stat") {
		f := strings.Fields(line)
		switch {
		case strings.HasPrefix(f[0], "cpu"):
			for i := 1; i < len(f); i++ {
				h.float("stat/"+f[0]+"/"+strconv.Itoa(i), f, i, ticks)
			}
		case f[0] == "intr":
			for i := 1; i < len(f); i++ {
				if name := "stat/intr/" + strconv.Itoa(i); f[i] != "0" || h.byName[name] != nil {
					h.integer(name, f, i, 1)
				}
			}
		default:
			for i := 1; i < len(f); i++ {
				h.integer("stat/"+f[0]+"/"+strconv.Itoa(i), f, i, 1)
			}
		}
	}
}

func (h *Host) processes() {
	if h.rows == 0 {
		found, _ := filepath.Glob("/proc/[0-9]*") // the pattern is good: no error
		for _, p := range found[:min(len(found), maxProcesses)] {
			h.pids = append(h.pids, filepath.Base(p))
		}
	}
	for k, pid := range h.pids {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil {
			continue // it has ended
		}
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // f[0] is field 3 of proc(5)
		name := "process/" + strconv.Itoa(k) + "/"
		for _, i := range []int{10, 12, 20} { // minflt, majflt, threads, vsize
			h.integer(name+strconv.Itoa(i), f, i-3, 1)
		}
		h.integer(name+"23", f, 23-3, 1)
		h.integer(name+"24", f, 24-3, pageSize)
		h.float(name+"14", f, 14-3, ticks) // utime, stime
		h.float(name+"15", f, 15-3, ticks)
	}
}

func (h *Host) integer(name string, fields []string, i int, scale uint64) {
	if i >= len(fields) {
		return
	}
	if v, err := strconv.ParseUint(fields[i], 10, 64); err == nil {
		h.add(name, false, v*scale)
	} else if v, err := strconv.ParseInt(fields[i], 10, 64); err == nil {
		h.add(name, false, uint64(v)*scale)
	}
}

func (h *Host) float(name string, fields []string, i int, divisor float64) {
	if i >= len(fields) {
		return
	}
	if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
		h.add(name, true, math.Float64bits(v/divisor))
	}
}

func (h *Host) add(name string, float bool, v uint64) {
	s := h.byName[name]
	if s == nil {
		s = &Series{Name: name, Float: float}
		h.byName[name] = s
		h.series = append(h.series, s)
	}
	if len(s.Values) > h.rows {
		return // a name twice in a file: the first counts
	}
	for len(s.Values) < h.rows {
		s.set(len(s.Values), 0, false)
	}
	s.set(h.rows, v, true)
}

// set appends row i, which is the next.
func (s *Series) set(i int, v uint64, present bool) {
	if !present && s.Present == nil {
		s.Present = make([]bool, i)
		for k := range s.Present {
			s.Present[k] = true
		}
	}
	s.Values = append(s.Values, v)
	if s.Present != nil {
		s.Present = append(s.Present, present)
	}
}

// lines are those of a file that have words in them; none, where it can't be read.
func lines(name string) func(yield func(string) bool) {
	b, _ := os.ReadFile(name)
	return func(yield func(string) bool) {
		for line := range strings.Lines(string(b)) {
			if strings.TrimSpace(line) != "" && !yield(line) {
				return
			}
		}
	}
}
