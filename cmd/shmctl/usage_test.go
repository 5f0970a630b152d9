package main

import (
	"slices"
	"strings"
	"testing"
)

// Wrong command lines: status 2, nothing on standard output, and a word that starts as all errors do.
func TestUsage(t *testing.T) {
	store := newStore(t)
	for _, args := range [][]string{
		{"frobnicate"}, {"--frob"}, {"ls", "--frob"}, {"ls", "--state", "undead"}, {"ls", "--sort", "colour"},
		{"show"}, {"cat"}, {"cat", "x"}, {"cat", "x", "y", "--format", "xml"}, {"cat", "x", "y", "--last", "-1"},
		{"cat", "x", "y", "--from", "yesterday"}, {"cat", "x", "y", "--since", "5m", "--from", "now"}, {"cat", "x", "y", "--since", "5"},
		{"dump"}, {"dump", "x", "--section", "attic"}, {"plan", "x"}, {"plan", "--tier", "1s"}, {"plan", "--counters", "-1"},
		{"plan", "--series", "5", "--gauges", "5"}, {"plan", "--schema", "-", "--lanes", "2"}, {"plan", "--processes", "0"},
		{"top", "--sort", "x"}, {"top", "--interval", "1ms"}, {"top", "-n", "0"}, {"top", "--match", "{"},
		{"top", "--limit", "5"}, {"top", "--url", "http://x"}, {"top", "--series", "--limit", "0"}, {"top", "--series", "--limit", "10001"}, {"top", "--series", "--sort", "name"},
		{"top", "--series", "--url", "ftp://x"}, {"top", "--series", "--url", "http://x", "job"}, {"top", "--series", "--url", "http://x", "--match", "y"},
		{"query"}, {"query", "a", "b"}, {"query", "up", "--url", "ftp://x"}, {"query", "up", "--step", "5s"},
		{"query", "up", "--last", "5m", "--step", "0s"}, {"query", "up", "--from", "now", "--to", "-5m"}, {"query", "up", "--time", "then"},
		{"write"}, {"write", "counter"}, {"write", "counter", "x"}, {"write", "speed", "x", "5"}, {"write", "gauge", "x", "5", "--label", "y"},
		{"write", "histogram", "x", "5", "--buckets", "5"}, {"write", "-", "--series", "0"},
		{"archive"}, {"archive", "dump"}, {"archive", "ls"}, {"archive", "cat", "x"}, {"archive", "cat", "x", "y", "--field", "middle"},
		{"archive", "cat", "x", "y", "--format", "xml"}, {"archive", "ls", "x", "--since", "-5s"}, {"archive", "check"}, {"archive", "ls", "--frob"},
		{"plan", "--archive-budget", "1s"}, {"plan", "--archive-budget", "1s=0"}, {"plan", "--retention", "5m=soon"}, {"plan", "--retention", "1d=1y"},
		{"plan", "--retention", "1s=1d", "--archive-budget", "1s=1GiB"}, {"plan", "--churn", "5"}, {"plan", "--archive", "--constant", "101"}, {"plan", "--archive", "--rate", "0"},
		{"plan", "--archive", "--bytes-per-sample", "0"}, {"plan", "--archive", "--life", "0s"}, {"plan", "--from-archive", "x", "--series", "5"}, {"plan", "--archive", "--scale", "2"},
		{"rm"}, {"rm", "x", "--ended"}, {"completion"}, {"completion", "tcsh"},
	} {
		o := shmctl(t, store, args...).fails(exitUsage)
		if o.out != "" || !strings.HasPrefix(o.errors, "shmts: ") || !strings.Contains(o.errors, "--help") {
			t.Errorf("%q: want an error on standard error alone that names --help, got %q and %q", args, o.out, o.errors)
		}
	}
	shmctl(t, store, "sho").fails(exitUsage, "did you mean show?")
	shmctl(t, store).ok().contains("shmctl", "plan", "--store")
	shmctl(t, store, "--help").ok().contains("COMMANDS")
	shmctl(t, store, "cat", "--help").ok().contains("--follow", "SEGMENT SERIES")
	shmctl(t, store, "--version").ok().contains("devel")
}

func TestArrange(t *testing.T) {
	all := verbs()
	for _, c := range []struct{ in, want string }{
		{"ls", "ls"},
		{"ls --json", "ls --json"},
		{"--store d ls a --json b", "ls --store d --json -- a b"},
		{"cat a b --tier 1 -f", "cat --tier 1 -f -- a b"},
		{"cat a b --tier=1 -f c", "cat --tier=1 -f -- a b c"},
		{"write updown x -5 --job j", "write --job j -- updown x -5"},
		{"write gauge x -1e3", "write -- gauge x -1e3"},
		{"write counter - --job j", "write --job j -- counter -"},
		{"write gauge -- --odd 5", "write -- gauge --odd 5"},
		{"list", "ls"},
		{"archive ls d --json x", "archive ls --json -- d x"},
		{"archive cat --tier 10s d y -n 5", "archive cat --tier 10s -n 5 -- d y"},
		{"archive", "archive"},
		{"nonsense --json x", "nonsense --json x"},
		{"__complete fish ls --st", "__complete fish ls --st"},
		{"--help", "--help"},
		{"cat --tier", "cat --tier"},
	} {
		got := arrange(all, append([]string{"shmctl"}, strings.Fields(c.in)...))
		if want := append([]string{"shmctl"}, strings.Fields(c.want)...); !slices.Equal(got, want) {
			t.Errorf("%q: want %q, got %q", c.in, want, got)
		}
	}
}

func TestParseSeries(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"a", "a"}, {" a ", "a"}, {`a{}`, "a"}, {`a{b="c"}`, `a{b="c"}`}, {`a { b = "c" , d = "e" , }`, `a{b="c",d="e"}`},
		{`a{b="}\",="}`, `a{b="}\",="}`}, {"http.server.duration", "http.server.duration"},
	} {
		name, labels, err := parseSeries(c.in)
		if got := seriesText(name, labels); err != nil || got != c.want {
			t.Errorf("%q: want %s, got %s, %v", c.in, c.want, got, err)
		}
	}
	for _, in := range []string{"", "{", "{}", `{a="b"}`, "a{", "a{b}", "a{b=}", "a{b=c}", `a{b="c"`, `a{b="c}`, `a{b="c"} d`, `a{b="c" d="e"}`, `a{="c"}`, "a{b='c'}"} {
		if name, labels, err := parseSeries(in); err == nil || !strings.HasPrefix(err.Error(), "shmts: series") {
			t.Errorf("%q: want an error, got %s %v, %v", in, name, labels, err)
		}
	}
}
