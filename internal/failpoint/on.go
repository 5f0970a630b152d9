//go:build failpoint

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// On tells whether places do anything.
const On = true

type point struct {
	pass   int64
	action string
	passed atomic.Int64
}

var points = parse(os.Getenv("SHMTS_FAILPOINTS"))

func parse(s string) map[string]*point {
	all := map[string]*point{}
	for _, word := range strings.Split(s, ",") {
		if word == "" {
			continue
		}
		part := strings.Split(word, ":")
		n := int64(-1)
		if len(part) == 2 || len(part) == 3 {
			n, _ = strconv.ParseInt(part[1], 10, 64)
		}
		action := "kill"
		if len(part) == 3 {
			action = part[2]
		}
		if n < 1 || action != "kill" && action != "error" && action != "exit" {
			panic(fmt.Sprintf("shmts: SHMTS_FAILPOINTS: want name:N[:kill|error|exit], N at least 1, got %q", word))
		}
		all[part[0]] = &point{pass: n, action: action}
	}
	return all
}

// Here is a place.
func Here(name string) { _ = Fails(name) }

// Fails is a place that can answer an error.
func Fails(name string) error {
	p := points[name]
	if p == nil {
		return nil
	}
	n := p.passed.Add(1)
	switch {
	case p.action == "error" && n >= p.pass:
		return fmt.Errorf("shmts: failpoint %s: pass %d", name, n)
	case n != p.pass:
	case p.action == "exit":
		os.Exit(3)
	case p.action == "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // it is on its way
	}
	return nil
}
