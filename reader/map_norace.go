//go:build !race

package reader

// canMap: atomic loads are plain instructions here, and a fault in one becomes a panic: see gate.go.
const canMap = true
