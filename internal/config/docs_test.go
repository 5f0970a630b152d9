package config

import (
	"bytes"
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/shmtsd.md's settings anew")

const page = "../../docs/shmtsd.md"

// The page's settings are what --help says, and its example of a file is one.
func TestPage(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- shmtsd --help -->\n```\n", "```\n"
	before, rest, ok := strings.Cut(string(b), begin)
	settings, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s: want a block behind %q, got none", page, begin)
	}
	var help bytes.Buffer
	Usage(&help)
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+help.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if settings != help.String() {
		t.Errorf("%s: its settings are not what --help says (go test ./internal/config -update writes them)", page)
	}
	_, example, ok := strings.Cut(after, "```yaml\n")
	example, _, ok2 = strings.Cut(example, "```")
	if !ok || !ok2 {
		t.Fatalf("%s: want an example of a file, got none", page)
	}
	c, err := Load([]string{"--config", file(t, example)}, func(string) string { return "" })
	if err != nil {
		t.Fatal(err)
	}
	if c.Store != "/run/shmts" || !strings.HasPrefix(c.OTLP.Endpoint, "http://collector:4318") || c.OTLP.Headers["authorization"] != "Bearer ..." {
		t.Errorf("%s: its example says store %q, endpoint %q, headers %v", page, c.Store, c.OTLP.Endpoint, c.OTLP.Headers)
	}
}
