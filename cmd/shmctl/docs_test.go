package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shmts/shmts/writer"
)

// docs/shmctl.md is what the verbs say of themselves.
func TestReference(t *testing.T) {
	var b bytes.Buffer
	if err := printReference(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "docs", "shmctl.md")
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Errorf("docs/shmctl.md: want what the verbs say, got something older: go generate ./cmd/shmctl")
	}
	// Whoever reads the JSON finds every field explained or plain.
	for _, v := range verbs() {
		if v.Hidden {
			continue
		}
		if v.Usage == "" || len(v.examples) == 0 && v.Name != "man" {
			t.Errorf("%s: want a usage and examples, got %q and %d", v.Name, v.Usage, len(v.examples))
		}
		if (findFlag(v.Command, "json") != nil) != (v.json != nil) {
			t.Errorf("%s: want --json and its fields together", v.Name)
		}
		for _, d := range flagDocs(v) {
			if d.usage == "" {
				t.Errorf("%s %s: want a usage, got none", v.words(), d.names)
			}
		}
	}
}

// Every example is a command line that this program understands.
func TestExamplesParse(t *testing.T) {
	all := verbs()
	for _, v := range all {
		for _, e := range v.examples {
			at := strings.LastIndex(e, "shmctl "+v.words())
			if at < 0 {
				t.Errorf("%s: want an example that calls it, got %q", v.Name, e)
				continue
			}
			line := e[at:]
			for _, stop := range []string{" | ", " > ", ")"} {
				if i := strings.Index(line, stop); i >= 0 && !strings.Contains(line[:i], "'") {
					line = line[:i]
				}
			}
			line, _, _ = strings.Cut(line, " # ")
			args := arrange(all, splitLine(line))
			for _, a := range args[2:] {
				if a == "--" {
					break
				}
				if isFlag(a) && findFlag(v.Command, strings.TrimLeft(strings.Split(a, "=")[0], "-")) == nil {
					t.Errorf("%q: want flags that %s has, got %s", e, v.Name, a)
				}
			}
		}
	}
}

func TestMan(t *testing.T) {
	page := shmctl(t, "", "man").ok().out
	for _, v := range verbs() {
		if v.Hidden {
			continue
		}
		if !strings.Contains(page, ".SS "+roff(v.synopsis())+"\n") {
			t.Errorf("want verb %s in the page, got none", v.Name)
		}
		for _, d := range flagDocs(v) {
			if !strings.Contains(page, roff(d.names)) {
				t.Errorf("%s: want flag %s in the page, got none", v.Name, d.names)
			}
		}
	}
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed: the page is not linted")
	}
	lint := exec.Command(mandoc, "-T", "lint", "-W", "style")
	lint.Stdin = strings.NewReader(page)
	// No words of STYLE about what base system it belongs to, but everything else.
	if out, err := lint.CombinedOutput(); err != nil {
		t.Errorf("mandoc -Tlint: %v\n%s", err, out)
	}
	render := exec.Command(mandoc, "-T", "ascii")
	render.Stdin = strings.NewReader(page)
	out, err := render.Output()
	out = regexp.MustCompile(".\x08").ReplaceAll(out, nil) // overstruck: bold
	if err != nil || !bytes.Contains(out, []byte("EXIT STATUS")) {
		t.Errorf("want a page, got %v: %.100s", err, out)
	}
}

// completions asks shmctl itself, as the scripts do.
func completions(t *testing.T, store string, args ...string) []string {
	t.Helper()
	var found []string
	for _, l := range strings.Split(strings.TrimSpace(shmctl(t, store, append([]string{"__complete", "fish"}, args...)...).ok().out), "\n") {
		word, _, _ := strings.Cut(l, "\t")
		found = append(found, word)
	}
	return found
}

func TestComplete(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0:9", 7)
	closedSegment(t, store, "bad;rm -rf", "x", 8)
	for _, c := range []struct{ line, want string }{
		{"sho", "show"}, {"--st", "--store"}, {"show f", "forwarder/eth0:9"}, {"show 70", "70000000"}, {"show ", "70000000 80000000 forwarder/eth0:9"},
		{"show forwarder/eth0:9 wa", "wait_seconds"}, {"cat 70 r", "rx_packets_total"}, {"ls --state d", "dead"}, {"ls --state=d", "--state=dead"},
		{"cat -", "--store"}, {"dump x --sec", "--section"}, {"dump --section so", "source"}, {"write g", "gauge"}, {"completion f", "fish"},
		{"cat x y --tier ", "0 1 2 3"}, {"ls --store ", ""}, {"nonsense ", ""}, {"write counter x --job ", ""}, {"top -d ", ""}, {"ls -- --", ""},
	} {
		words := strings.Split(c.line, " ")
		got := completions(t, store, words...)
		if c.line == "cat -" {
			got = got[:1] // all flags
		}
		if !slices.Equal(got, strings.Split(c.want, " ")) {
			t.Errorf("%q: want %q, got %q", c.line, c.want, got)
		}
	}
	// Where there is no store, nothing is completed and nothing is said.
	if got := completions(t, store+"/absent", "show", ""); !slices.Equal(got, []string{""}) {
		t.Errorf("want nothing, got %q", got)
	}
}

func TestSplitLine(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"a b", []string{"a", "b"}}, {"a ", []string{"a", ""}}, {"", []string{""}}, {`a 'b c' "d e" f\ g`, []string{"a", "b c", "d e", "f g"}},
		{`a 'b`, []string{"a", "b"}}, {"a  b", []string{"a", "b"}}, {`a ''  b`, []string{"a", "", "b"}},
	} {
		if got := splitLine(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%q: want %q, got %q", c.in, c.want, got)
		}
	}
}

// The scripts work in the shells that are installed.
func TestCompletionScripts(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0:9", 7)
	bin := t.TempDir()
	wrapper := "#!/bin/sh\n" + asShmctl + "=1 exec '" + os.Args[0] + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "shmctl"), []byte(wrapper), 0o755); err != nil {
		t.Fatal(err)
	}
	for shell, test := range map[string]struct {
		args []string
		ask  string // the script that prints what the line $LINE completes to
	}{
		"bash": {[]string{"--norc", "--noprofile", "-c"}, `source <(shmctl completion bash)
			COMP_LINE=$LINE COMP_POINT=${#LINE} COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
			_shmctl shmctl; printf '%s\n' "${COMPREPLY[@]}"; complete -p shmctl`},
		"zsh": {[]string{"-f", "-c"}, `compdef() { registered=$2 }; _files() { print -l files }
			source <(shmctl completion zsh)
			_describe() { print -rl -- "${(@P)3}" }
			words=("${(@s: :)LINE}") CURRENT=${#words}; _shmctl; print complete $registered`},
		"fish": {[]string{"--no-config", "-c"}, `shmctl completion fish | source; complete -C "$LINE"; complete -c shmctl`},
	} {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			for line, want := range map[string]string{
				"shmctl sho":                     "show",
				"shmctl show forw":               "forwarder/eth0",
				"shmctl show forwarder/eth0:":    "9",
				"shmctl cat forwarder/eth0:9 rx": "rx_packets_total",
				"shmctl ls --state cl":           "closed",
				"shmctl ls --state=cl":           "closed",
			} {
				cmd := exec.Command(path, append(test.args, test.ask)...)
				cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SHMTS_DIR="+store, "LINE="+line, "HOME="+bin)
				out, err := cmd.CombinedOutput()
				if err != nil || !strings.Contains(strings.Split(string(out), "\n")[0], want) || !strings.Contains(string(out), "complete") || !strings.Contains(string(out), "shmctl") {
					t.Errorf("%s: want %s, got %v: %s", line, want, err, out)
				}
			}
		})
	}
}

// Completion offers no word that would be more than one word of a command line.
func TestCompletionIsSafe(t *testing.T) {
	store := newStore(t)
	w, err := writer.Open(writer.Options{Job: "$(reboot)", Instance: "`x`\n;", Dir: store, NoTicker: true})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Counter("ok;rm")
	w.Counter("fine_total")
	for _, word := range append(completions(t, store, "show", ""), completions(t, store, "show", w.Stats().Paths[0], "")...) {
		if strings.IndexFunc(word, unsafeInShell) >= 0 || word == "" {
			t.Errorf("want words that are safe, got %q", word)
		}
	}
}
