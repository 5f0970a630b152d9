package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/shmts/shmts/internal/archive"
)

// selects finds some of the dead VMs of an archive that fill has made.
func selects(o options) error {
	if o.dir == "" {
		return errors.New("shmts: select: want -dir, got none")
	}
	before := heap()
	a, err := openAgain(o.dir)
	if err != nil {
		return err
	}
	defer a.Close()
	files, err := filepath.Glob(filepath.Join(o.dir, "*.tier"))
	if err != nil {
		return err
	}
	newest, sources := int64(0), 0
	for _, t := range a.Tiers() {
		newest = max(newest, t.Newest)
		if t.Step == time.Second {
			sources = t.Sources
		}
	}
	print("select/sources", float64(sources))
	if sources < o.vms {
		return fmt.Errorf("shmts: select: want %d sources in %s, got %d", o.vms, o.dir, sources)
	}
	schema := func(s *archive.Schema) bool { return s.Series[0].Name == "vm_metric_00" }
	r := rand.New(rand.NewPCG(1, 1))
	matcher := func(t labels.MatchType, name, value string) archive.Matcher {
		m := archive.Matcher{Name: name, Match: labels.MustNewMatcher(t, name, value).Matches}
		if t == labels.MatchEqual {
			m.Equal = value
		}
		return m
	}
	// Of a job 2.2 VMs end in each second.
	const window = 1000 * 1000 * vmJobs / vmBlock
	for _, c := range []struct {
		name       string
		least, top int
		selection  func() archive.Selection
	}{
		{"one", 1, 1, func() archive.Selection {
			return archive.Selection{To: 1 << 62, Labels: []archive.Matcher{matcher(labels.MatchEqual, "instance", fmt.Sprintf("vm-%06d", r.IntN(o.vms)))}}
		}},
		{"thousand", 900, 1100, func() archive.Selection {
			to := newest - r.Int64N(int64(o.vms/vmBlock)*1000*3/5)
			return archive.Selection{From: to - window + vmRows*1000, To: to, Labels: []archive.Matcher{matcher(labels.MatchEqual, "job", fmt.Sprintf("vm-%d", r.IntN(vmJobs)))}}
		}},
		{"regex", 100, 100, func() archive.Selection {
			return archive.Selection{To: 1 << 62, Labels: []archive.Matcher{matcher(labels.MatchRegexp, "instance", fmt.Sprintf("vm-%04d.+", r.IntN(o.vms/100)))}}
		}},
	} {
		for _, cold := range []bool{false, true} {
			rounds := 300
			if cold || c.name == "regex" {
				rounds = 40
			}
			var took []time.Duration
			var used time.Duration
			for range rounds {
				s := c.selection()
				s.Schema = schema
				if cold {
					if err := forget(files...); err != nil {
						return err
					}
				}
				begin, before := time.Now(), cpu()
				found, err := a.Select(context.Background(), s)
				took, used = append(took, time.Since(begin)), used+cpu()-before
				if err != nil {
					return err
				}
				if len(found) < c.least || len(found) > c.top {
					return fmt.Errorf("shmts: select %s: want %d to %d, got %d", c.name, c.least, c.top, len(found))
				}
			}
			name := "select/" + c.name
			if cold {
				name += "_cold"
			}
			p50, p99 := middle(took)
			print(name+"_p50_ms", p50)
			print(name+"_p99_ms", p99)
			print(name+"_cpu_ms", used.Seconds()*1e3/float64(rounds))
		}
	}
	print("select/resident_kB", float64(heap()-before)/1000)
	runtime.KeepAlive(a)
	return nil
}

// openAgain opens an archive as its writer does, with the tiers that it has.
func openAgain(dir string) (*archive.Archive, error) {
	r, err := archive.OpenReader(dir)
	if err != nil {
		return nil, err
	}
	o := archive.Options{Dir: dir}
	for _, t := range r.Tiers() {
		o.Tiers = append(o.Tiers, archive.TierOptions{Step: t.Step, Budget: t.Size})
	}
	if err := r.Close(); err != nil {
		return nil, err
	}
	return archive.Open(o)
}

// heap is what is left after a collection.
func heap() int64 {
	debug.FreeOSMemory()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
