// Package conservation holds the tests that nothing is lost and nothing is
// counted twice: writers in C and Go are killed at random instants, and what
// the store says is compared with what each had completed; hundreds of short lives
// come and go beside the daemon, and what each recorded is in the archive, exactly.
package conservation
