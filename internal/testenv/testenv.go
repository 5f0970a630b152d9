// Package testenv is how a person asks a test for more than make test does.
package testenv

import (
	"os"
	"strconv"
	"testing"
)

// Number is how often a test does its thing: what the variable says, else short with -short, else usual.
func Number(t testing.TB, variable string, usual, short int) int {
	t.Helper()
	if s := os.Getenv(variable); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("%s: want a number, got %q", variable, s)
		}
		return n
	}
	if testing.Short() {
		return short
	}
	return usual
}
