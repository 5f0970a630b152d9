package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/archive/fold"
	"github.com/shmts/shmts/reader"
)

// The VMs that fill makes, as on a host of 1,000 at a time that live for 45 s: 22 of them begin, and end, in each second.
const (
	vmRows   = 45
	vmSeries = 100
	vmBlock  = 22
	vmJobs   = 10
)

func vmLabels(i int) []reader.Pair {
	return []reader.Pair{{Name: "instance", Value: fmt.Sprintf("vm-%06d", i)}, {Name: "job", Value: fmt.Sprintf("vm-%d", i%vmJobs)}}
}

// vmBirth is when the i-th of n was born, unix ms: the last ended a minute before now.
func vmBirth(i, n int, now time.Time) int64 {
	return now.Truncate(time.Second).UnixMilli() - 60_000 - int64((n-1-i)/vmBlock)*1000 - (vmRows+1)*1000
}

// vmMix is the series of a VM, half of which stand still.
func vmMix() (series []*reader.Series, values [][]*hostmix.Series) {
	for i := range vmBlock {
		all := hostmix.App(uint64(i)+1, vmSeries, vmRows, 1)
		for k, s := range all {
			if k%2 == 0 {
				for row := range s.Values {
					s.Values[row] = s.Values[0]
				}
			}
		}
		values = append(values, all)
	}
	for k, s := range values[0] {
		r := &reader.Series{Definition: &reader.Definition{Name: fmt.Sprintf("vm_metric_%02d", k), Kind: reader.Gauge, Number: reader.I64}}
		if k%10 < 5 {
			r.Kind, r.Number = reader.Counter, reader.U64
		} else if s.Float {
			r.Number = reader.F64
		}
		series = append(series, r)
	}
	return series, values
}

// fill makes an archive as a daemon leaves it behind that has seen so many VMs die: drained at 1 s, folded at 10 s, marks behind it
// all. Then its tiers are made as small as what they hold, so that they are full.
func fill(o options) error {
	if o.dir == "" {
		return errors.New("shmts: fill: want -dir, got none")
	}
	tiers := []archive.TierOptions{{Step: time.Second, Budget: 2 << 30}, {Step: 10 * time.Second, Budget: 1 << 30}, {Step: 5 * time.Minute, Budget: 64 << 20}}
	a, err := archive.Open(archive.Options{Dir: o.dir, Tiers: tiers})
	if err != nil {
		return err
	}
	series, values := vmMix()
	schema, err := archive.NewSchema(0, "scalars", series)
	if err != nil {
		return err
	}
	now, began, used := time.Now(), time.Now(), cpu()
	starts := make([]int64, len(series))
	var folder fold.Folder
	for at := 0; at < o.vms; at += vmBlock {
		b := &archive.Block{Schema: schema, Step: tiers[0].Step}
		coarse := &archive.Block{Schema: schema, Step: tiers[1].Step, Folded: true}
		for i := at; i < min(at+vmBlock, o.vms); i++ {
			birth := vmBirth(i, o.vms, now)
			for k := range starts {
				starts[k] = birth
			}
			r := archive.Rows{Source: sourceOf(1, i, birth, vmLabels(i)), Base: vmRows, Starts: starts, Estimated: true}
			for k := range vmRows {
				r.Numbers = append(r.Numbers, uint64(k+1))
				r.Times = append(r.Times, birth+int64(k+1)*1000+int64(i%7))
			}
			for _, s := range values[i-at] {
				r.Cells = append(r.Cells, s.Values)
			}
			b.Sources = append(b.Sources, r)
			folder.Reset(series, tiers[1].Step, false, 0)
			folder.Add(&r)
			coarse.Sources = append(coarse.Sources, detached(folder.Flush(true), &r))
		}
		if err := a.Append(0, b); err != nil {
			return err
		}
		if err := a.Append(1, coarse); err != nil {
			return err
		}
	}
	for tier := 1; tier < len(tiers); tier++ {
		if err := a.SetMark(tier, a.End(tier-1)); err != nil {
			return err
		}
	}
	print("fill/cpu_seconds", (cpu() - used).Seconds())
	print("fill/seconds", time.Since(began).Seconds())
	var budgets string
	for i, t := range a.Tiers() {
		if t.Evicted > 0 {
			return fmt.Errorf("shmts: fill: tier %v holds less than it was given", t.Step)
		}
		print(fmt.Sprintf("fill/%v_MB", t.Step), float64(t.Bytes)/1e6)
		print(fmt.Sprintf("fill/%v_extents", t.Step), float64(t.Used))
		size := tierHeaderPage + max(16, int64(t.Used))*t.ExtentSize
		if i == len(tiers)-1 {
			size = t.Size
		}
		budgets += fmt.Sprintf(",%v=%d", map[int]string{0: "1s", 1: "10s", 2: "5m"}[i], size)
		tiers[i].Budget = size
	}
	if err := errors.Join(a.Sync(), a.Close()); err != nil {
		return err
	}
	if a, err = archive.Open(archive.Options{Dir: o.dir, Tiers: tiers}); err != nil { // makes them as small
		return err
	}
	if err := a.Close(); err != nil {
		return err
	}
	// What a daemon has to be told to have the same.
	return os.WriteFile(filepath.Join(o.dir, "tiers"), []byte(budgets[1:]+"\n"), 0o644)
}

const tierHeaderPage = 4096

// detached are folded rows that no longer belong to the folder.
func detached(r archive.Rows, of *archive.Rows) archive.Rows {
	out := r
	out.Source, out.Starts, out.Estimated = of.Source, of.Starts, of.Estimated
	out.Numbers = append([]uint64(nil), r.Numbers...)
	out.Times = append([]int64(nil), r.Times...)
	out.Coverage = append([]uint64(nil), r.Coverage...)
	out.Cells, out.Present = nil, nil
	for _, c := range r.Cells {
		out.Cells = append(out.Cells, append([]uint64(nil), c...))
	}
	for _, p := range r.Present {
		out.Present = append(out.Present, append([]bool(nil), p...))
	}
	return out
}
