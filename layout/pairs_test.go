package layout

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestPairsRoundTrip(t *testing.T) {
	many := make([]Pair, MaxPairs)
	for i := range many {
		many[i] = Pair{string(rune('A'+i)) + "x", strings.Repeat("v", i)}
	}
	many[0].Value = "v"
	for _, pairs := range [][]Pair{
		{},
		{{"a", "1"}},
		{{"b", "2"}, {"a", "1"}, {"é", "日本"}, {"aa", "\x00"}},
		{{strings.Repeat("n", MaxLabelName), strings.Repeat("v", MaxLabelValue)}},
		many,
	} {
		b, err := AppendPairs([]byte("before"), pairs)
		if err != nil {
			t.Fatal(err)
		}
		got, rest, err := CutPairs(append(b[len("before"):], "behind"...))
		if err != nil || string(rest) != "behind" || string(b[:6]) != "before" {
			t.Fatalf("%v: rest %q, %v", pairs, rest, err)
		}
		want := slices.Clone(pairs)
		slices.SortFunc(want, func(x, y Pair) int { return strings.Compare(x.Name, y.Name) })
		if !reflect.DeepEqual(got, want) {
			t.Errorf("want %v, got %v", want, got)
		}
	}
}

// An empty value means the same as no pair: writers leave it out, readers drop it.
func TestPairsEmptyValue(t *testing.T) {
	b, err := AppendPairs(nil, []Pair{{"a", ""}, {"b", "x"}, {"", ""}})
	if err != nil || string(b) != "\x01\x00\x01\x00\x01\x00bx" {
		t.Errorf("got %q and %v", b, err)
	}
	pairs, rest, err := CutPairs([]byte("\x02\x00\x01\x00\x00\x00a\x01\x00\x01\x00bx"))
	if err != nil || len(rest) != 0 || !reflect.DeepEqual(pairs, []Pair{{"b", "x"}}) {
		t.Errorf("got %v, %q and %v", pairs, rest, err)
	}
}

func TestAppendPairsRefuses(t *testing.T) {
	var tooMany, tooLong []Pair
	for i := range MaxPairs + 1 {
		tooMany = append(tooMany, Pair{"n" + string(rune('A'+i)), "v"})
	}
	for i := range MaxPairs {
		tooLong = append(tooLong, Pair{"n" + string(rune('A'+i)), strings.Repeat("v", MaxLabelValue)})
	}
	for _, c := range []struct {
		want  string
		pairs []Pair
	}{
		{"want at most 64, got 65", tooMany},
		{"want at most 65535 bytes together", tooLong},
		{"want 1 to 255 bytes, got none", []Pair{{"", "v"}}},
		{"want 1 to 255 bytes, got 256", []Pair{{strings.Repeat("n", 256), "v"}}},
		{"want at most 1023 bytes, got 1024", []Pair{{"n", strings.Repeat("v", 1024)}}},
		{"want UTF-8", []Pair{{"n", "\xff"}}},
		{"want UTF-8", []Pair{{"\xc0\xaf", "v"}}},
		{"want it once, got it twice", []Pair{{"n", "1"}, {"n", "2"}}},
	} {
		b, err := AppendPairs([]byte("as it was"), c.pairs)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "shmts: ") {
			t.Errorf("want %q, got %v", c.want, err)
		}
		if string(b) != "as it was" {
			t.Errorf("%s: want the bytes as they were, got %q", c.want, b)
		}
	}
}

func TestCutPairsRefuses(t *testing.T) {
	for _, c := range []struct{ want, list string }{
		{"at least 2 bytes", ""},
		{"at least 2 bytes", "\x00"},
		{"at most 64 pairs, got 65", "\x41\x00"},
		{"a pair's 4 bytes of lengths", "\x01\x00\x01\x00\x01"},
		{"a name of 1 to 255 bytes, got 0", "\x01\x00\x00\x00\x01\x00v"},
		{"a name of 1 to 255 bytes, got 256", "\x01\x00\x00\x01\x00\x00"},
		{"a value of at most 1023 bytes, got 1024", "\x01\x00\x01\x00\x00\x04n"},
		{"name and value inside the 2 bytes left, got 3", "\x01\x00\x01\x00\x02\x00nv"},
		{"UTF-8", "\x01\x00\x01\x00\x01\x00n\xff"},
		{"UTF-8", "\x01\x00\x01\x00\x01\x00\x80v"},
		{"names in byte order, each once", "\x02\x00\x01\x00\x01\x00bv\x01\x00\x01\x00av"},
		{"names in byte order, each once", "\x02\x00\x01\x00\x01\x00av\x01\x00\x01\x00av"},
		{"names in byte order, each once", "\x02\x00\x01\x00\x00\x00a\x01\x00\x01\x00av"},
	} {
		pairs, rest, err := CutPairs([]byte(c.list))
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || !strings.Contains(err.Error(), c.want) || pairs != nil || rest != nil {
			t.Errorf("%q: want %q and nothing else, got %v, %q, %v", c.list, c.want, pairs, rest, err)
		}
	}
}

// A list cut anywhere is broken or leaves nothing out; none reads past its end.
func TestCutPairsCutAnywhere(t *testing.T) {
	b, err := AppendPairs(nil, []Pair{{"a", "1"}, {"bb", "22"}, {"ccc", "333"}})
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		if _, _, err := CutPairs(b[:n:n]); err == nil {
			t.Errorf("%d of %d bytes: want an error", n, len(b))
		}
	}
}
