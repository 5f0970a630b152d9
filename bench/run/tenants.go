package main

import "fmt"

// tenants runs bench/tenants: name, value.
func (b *bench) tenants() error {
	say("one tenant's dashboard beside another's scans")
	if failed := b.values(b.path("tenants"), "-shmtsd", b.path("shmtsd")); failed != nil {
		b.notes = append(b.notes, "The run of tenants ended early: "+failed.Error()+".")
		return nil
	}
	s := section{title: "A dashboard of ten panels a second over 200 segments, and another tenant's scans", header: []string{"daemon", "", "p50 ms", "p99 ms", "to alone", "scans a second"}}
	for _, d := range []struct{ name, what string }{
		{"isolated", "the two are tenants"},
		{"one", "all are one"},
	} {
		for _, c := range []struct{ name, what string }{{"alone", "alone"}, {"beside", "beside scans, eight at all times"}} {
			name := "tenants_" + d.name + "_" + c.name
			row := []string{d.what, c.what, fixed(b.results[name+"_p50"]), fixed(b.results[name+"_p99"]), "", ""}
			if c.name == "beside" {
				alone := "tenants_" + d.name + "_alone"
				row[4] = fmt.Sprintf("%.1f x, %.1f x", b.results[name+"_p50"]/b.results[alone+"_p50"], b.results[name+"_p99"]/b.results[alone+"_p99"])
				row[5] = fixed(b.results[name+"_scans"])
			}
			s.rows = append(s.rows, row)
		}
	}
	b.sections = append(b.sections, s)
	return nil
}
