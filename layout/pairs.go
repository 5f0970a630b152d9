package layout

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Pair is a label or a resource attribute.
type Pair struct{ Name, Value string }

// AppendPairs appends the pair list of FORMAT.md 6.4 to b: sorted by name,
// pairs with an empty value left out. It answers an error, and b as it was,
// for an empty or repeated name, text that is not UTF-8, and what is over a maximum.
func AppendPairs(b []byte, pairs []Pair) ([]byte, error) {
	sorted := slices.DeleteFunc(slices.Clone(pairs), func(p Pair) bool { return p.Value == "" })
	slices.SortFunc(sorted, func(x, y Pair) int { return strings.Compare(x.Name, y.Name) })
	if len(sorted) > MaxPairs {
		return b, fmt.Errorf("shmts: labels: want at most %d, got %d", MaxPairs, len(sorted))
	}
	out := binary.LittleEndian.AppendUint16(b, uint16(len(sorted)))
	for i, p := range sorted {
		switch {
		case p.Name == "":
			return b, fmt.Errorf("shmts: label name: want 1 to %d bytes, got none (value %q)", MaxLabelName, p.Value)
		case len(p.Name) > MaxLabelName:
			return b, fmt.Errorf("shmts: label name: want 1 to %d bytes, got %d (%.20q...)", MaxLabelName, len(p.Name), p.Name)
		case len(p.Value) > MaxLabelValue:
			return b, fmt.Errorf("shmts: value of label %q: want at most %d bytes, got %d", p.Name, MaxLabelValue, len(p.Value))
		case !utf8.ValidString(p.Name) || !utf8.ValidString(p.Value):
			return b, fmt.Errorf("shmts: label %q: want UTF-8, got %q", p.Name, p.Value)
		case i > 0 && sorted[i-1].Name == p.Name:
			return b, fmt.Errorf("shmts: label %q: want it once, got it twice (%q, %q)", p.Name, sorted[i-1].Value, p.Value)
		}
		out = binary.LittleEndian.AppendUint16(out, uint16(len(p.Name)))
		out = binary.LittleEndian.AppendUint16(out, uint16(len(p.Value)))
		out = append(append(out, p.Name...), p.Value...)
	}
	if len(out)-len(b) > MaxLabelsLength {
		return b, fmt.Errorf("shmts: labels: want at most %d bytes together, got %d", MaxLabelsLength, len(out)-len(b))
	}
	return out, nil
}

// CutPairs reads the pair list at the front of b and answers what follows it.
// Pairs with an empty value are dropped: they mean the same as none. b must be a
// private copy.
func CutPairs(b []byte) (pairs []Pair, rest []byte, err error) {
	bad := func(want string, got any) ([]Pair, []byte, error) {
		return nil, nil, corrupt("pair list", -1, want, got)
	}
	if len(b) < 2 {
		return bad("at least 2 bytes", len(b))
	}
	n := int(binary.LittleEndian.Uint16(b))
	if n > MaxPairs {
		return bad(fmt.Sprintf("at most %d pairs", MaxPairs), n)
	}
	b = b[2:]
	pairs = make([]Pair, 0, n)
	before := ""
	for range n {
		if len(b) < 4 {
			return bad("a pair's 4 bytes of lengths", len(b))
		}
		nameLen, valueLen := int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
		b = b[4:]
		switch {
		case nameLen == 0 || nameLen > MaxLabelName:
			return bad(fmt.Sprintf("a name of 1 to %d bytes", MaxLabelName), nameLen)
		case valueLen > MaxLabelValue:
			return bad(fmt.Sprintf("a value of at most %d bytes", MaxLabelValue), valueLen)
		case nameLen+valueLen > len(b):
			return bad(fmt.Sprintf("name and value inside the %d bytes left", len(b)), nameLen+valueLen)
		}
		p := Pair{string(b[:nameLen]), string(b[nameLen : nameLen+valueLen])}
		b = b[nameLen+valueLen:]
		if !utf8.ValidString(p.Name) || !utf8.ValidString(p.Value) {
			return bad("UTF-8", fmt.Sprintf("%q=%q", p.Name, p.Value))
		}
		if before >= p.Name {
			return bad("names in byte order, each once", fmt.Sprintf("%q after %q", p.Name, before))
		}
		before = p.Name
		if p.Value != "" {
			pairs = append(pairs, p)
		}
	}
	return pairs, b, nil
}
