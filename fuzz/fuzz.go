// Package fuzz holds the fuzz targets: what whoever writes a segment may do to whoever reads it. Each
// asserts a contract, not merely that nothing panics.
//
//	go test ./fuzz                      runs the seeds
//	go test -fuzz=FuzzOpen -fuzzminimizetime=1s ./fuzz
//
// fuzzes one; without the bound, go test spends a minute on making each image smaller.
package fuzz
