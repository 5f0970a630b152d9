// Command shmctl looks at shmts segments, plans them, and writes single values
// into them from a shell. docs/shmctl.md is its reference; `shmctl man` its man page.
package main

import "os"

// version is set by the linker: -X main.version=...
var version = "devel"

func main() {
	os.Exit(run(os.Args, os.Stdin, os.Stdout, os.Stderr))
}
