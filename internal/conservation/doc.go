// Package conservation holds the test that nothing is lost and nothing is
// counted twice: writers in C and Go are killed at random instants, and what
// the store says is compared with what each had completed.
package conservation
