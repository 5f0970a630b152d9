// Package spec holds FORMAT.md, the law of this module's bytes, with its
// vectors and its reference reader. Its tests compare the page with package layout,
// with the C header and with every reader. There is no code to import.
package spec

//go:generate go run ./internal/genvectors -o vectors
