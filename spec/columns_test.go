package spec_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shmts/shmts/bench/hostmix"
	"github.com/shmts/shmts/internal/archive/column"
)

// columnsPage is the text of section 17.
func columnsPage(t *testing.T) string {
	t.Helper()
	_, rest, ok := strings.Cut(page(t), "\n## 17 Columns\n")
	text, _, end := strings.Cut(rest, "\n## ")
	if !ok || !end {
		t.Fatal("FORMAT.md has no section 17")
	}
	return text
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return b
}

// A columnExample is a row of 17.4's table.
type columnExample struct {
	vals    []uint64
	present []bool
	float   bool
	bytes   []byte
}

func columnExamples(t *testing.T) (all []columnExample) {
	t.Helper()
	for _, m := range regexp.MustCompile("(?m)^\\| (integer|f64) \\| ([^|]+) \\| `([0-9a-f ]+)` \\|").FindAllStringSubmatch(columnsPage(t), -1) {
		c := columnExample{float: m[1] == "f64", bytes: unhex(t, m[3])}
		for _, word := range strings.Fields(m[2]) {
			var v uint64
			var err error
			switch {
			case word == "-":
			case len(word) == 16:
				v, err = strconv.ParseUint(word, 16, 64)
			case c.float:
				var f float64
				f, err = strconv.ParseFloat(word, 64)
				v = math.Float64bits(f)
			default:
				var i int64
				i, err = strconv.ParseInt(word, 10, 64)
				v = uint64(i)
			}
			if err != nil {
				t.Fatal(err)
			}
			c.vals, c.present = append(c.vals, v), append(c.present, word != "-")
		}
		all = append(all, c)
	}
	if len(all) < 15 {
		t.Fatalf("want at least 15 worked columns in the page, got %d", len(all))
	}
	return all
}

// A column that the page shows is what a writer writes, and what a reader reads.
func TestColumnExamples(t *testing.T) {
	codecs := map[byte]int{}
	for _, c := range columnExamples(t) {
		var e column.Encoder
		if got := e.Encode(nil, c.vals, c.present, c.float); !bytes.Equal(got, c.bytes) {
			t.Errorf("%d: % x in the page, % x in Go", c.vals, c.bytes, got)
		}
		var d column.Decoder
		vals, present, rest, err := d.Decode(c.bytes, len(c.vals), c.float)
		if present == nil {
			present = slices.Repeat([]bool{true}, len(vals))
		}
		if err != nil || len(rest) != 0 || !slices.Equal(vals, c.vals) || !slices.Equal(present, c.present) {
			t.Errorf("% x: %d (%v) in the page, %d (%v) in Go, %v", c.bytes, c.vals, c.present, vals, present, err)
		}
		codecs[c.bytes[0]>>2&3]++
	}
	if len(codecs) != 3 {
		t.Errorf("want examples of codecs 0 to 2, got %v", codecs)
	}
}

func TestHistogramExamples(t *testing.T) {
	p := columnsPage(t)
	m := regexp.MustCompile("n = (\\d+), k = (\\d+)[^`]*`([0-9a-f ]+)`").FindAllStringSubmatch(p, -1)
	if len(m) != 2 {
		t.Fatalf("want two worked histograms, got %d", len(m))
	}
	var want []uint64
	for _, row := range regexp.MustCompile(`(?m)^\| \d+ \| (\d+(?: \d+)+) \|$`).FindAllStringSubmatch(p, -1) {
		for _, word := range strings.Fields(row[1]) {
			v, err := strconv.ParseUint(word, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, v)
		}
	}
	var d column.Decoder
	for i, want := range [][]uint64{want, {0, 16}} {
		n, _ := strconv.Atoi(m[i][1])
		k, _ := strconv.Atoi(m[i][2])
		b := unhex(t, m[i][3])
		got, rest, err := d.DecodeHistogram(nil, b, n, k)
		if err != nil || len(rest) != 0 || !slices.Equal(got, want) {
			t.Errorf("% x: %d in the page, %d in Go, %v", b, want, got, err)
		}
		if i == 0 {
			var e column.Encoder
			if got := e.EncodeHistogram(nil, want, n, k); !bytes.Equal(got, b) {
				t.Errorf("%d: % x in the page, % x in Go", want, b, got)
			}
		}
	}
	// Its table of bits, one after the other, is its stream.
	stream := ""
	for _, row := range regexp.MustCompile("(?m)^\\| \\d? ?\\| ((?:`[01]+` ?)+)\\|").FindAllStringSubmatch(p, -1) {
		stream += strings.NewReplacer("`", "", " ", "").Replace(row[1])
	}
	said := ""
	for _, b := range unhex(t, m[0][3])[3:] {
		for i := range 8 {
			said += strconv.Itoa(int(b >> i & 1))
		}
	}
	if stream != said {
		t.Errorf("the example's bits: %s in the table, %s in its bytes", stream, said)
	}
}

// manyColumns answers a line for each line "c n float hex" or "h n k hex": its words and how many bytes they took, or error.
const manyColumns = `
import sys
sys.path.insert(0, ".")
import reference
for line in sys.stdin:
    kind, n, what, data = (line.rstrip("\n") + " ").split(" ")[:4]
    data = bytes.fromhex(data)
    try:
        if kind == "c":
            words, end = reference.decode_column(data, 0, int(n), what == "1")
        else:
            rows, end = reference.decode_histogram(data, 0, int(n), int(what))
            words = [w for row in rows for w in row]
        print(end, *("-" if w is None else "%x" % w for w in words))
    except reference.Corrupt:
        print("error")
`

// The reader that was written from the page alone and Go's agree about every word, and about what is corrupt.
func TestColumnsAgree(t *testing.T) {
	interpreter := python(t)
	var in bytes.Buffer
	var want []string
	var d column.Decoder
	corrupt := 0
	tryColumn := func(b []byte, n int, float bool) {
		flag := 0
		if float {
			flag = 1
		}
		fmt.Fprintf(&in, "c %d %d %x\n", n, flag, b)
		vals, present, rest, err := d.Decode(b, n, float)
		if err != nil {
			corrupt++
			want = append(want, "error")
			return
		}
		line := strconv.Itoa(len(b) - len(rest))
		for i, v := range vals {
			if present != nil && !present[i] {
				line += " -"
			} else {
				line += fmt.Sprintf(" %x", v)
			}
		}
		want = append(want, line)
	}
	tryHistogram := func(b []byte, n, k int) {
		fmt.Fprintf(&in, "h %d %d %x\n", n, k, b)
		counts, rest, err := d.DecodeHistogram(nil, b, n, k)
		if err != nil {
			corrupt++
			want = append(want, "error")
			return
		}
		line := strconv.Itoa(len(b) - len(rest))
		for _, v := range counts {
			line += fmt.Sprintf(" %x", v)
		}
		want = append(want, line)
	}
	var e column.Encoder
	r := rand.New(rand.NewPCG(1, 17))
	broken := func(b []byte) []byte {
		b = slices.Clone(b)
		for range 1 + r.IntN(2) {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		return append(b, 1, 2, 3)[:max(len(b)+r.IntN(5)-1, 0)]
	}
	for _, c := range columnExamples(t) {
		tryColumn(c.bytes, len(c.vals), c.float)
		for range 50 {
			tryColumn(broken(c.bytes), len(c.vals), c.float)
		}
	}
	for _, s := range slices.Concat(hostmix.Recorded(), hostmix.App(1, 200, 60, 1)) {
		n := 1 + r.IntN(60)
		present := make([]bool, n)
		for i := range present {
			present[i] = r.IntN(4) > 0
		}
		tryColumn(e.Encode(nil, s.Values[:n], nil, s.Float), n, s.Float)
		b := e.Encode(nil, s.Values[:n], present, s.Float)
		tryColumn(b, n, s.Float)
		tryColumn(broken(b), n, s.Float)
	}
	for i := range 300 {
		n, k := 1+r.IntN(10), 1+r.IntN(40)
		counts := hostmix.Histogram(uint64(i), n, k, 10, math.Exp(r.Float64()*10-3), r.Float64())
		if i%10 == 0 {
			counts[r.IntN(len(counts))] = r.Uint64()
		}
		b := e.EncodeHistogram(nil, counts, n, k)
		tryHistogram(b, n, k)
		for range 5 {
			tryHistogram(broken(b), n, k)
		}
	}
	cmd := exec.Command(interpreter, "-B", "-c", manyColumns)
	cmd.Stdin, cmd.Stderr = &in, os.Stderr
	lines := strings.Split(in.String(), "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got := bufio.NewScanner(bytes.NewReader(out))
	got.Buffer(nil, 1<<20)
	for i, w := range want {
		if !got.Scan() {
			t.Fatalf("want %d lines, got %d", len(want), i)
		}
		if got.Text() != w {
			t.Errorf("%s:\n%s in Go\n%s in Python", lines[i], w, got.Text())
		}
	}
	t.Logf("%d columns, %d of them corrupt", len(want), corrupt)
	if corrupt < len(want)/20 {
		t.Errorf("want some corrupt ones, got %d of %d", corrupt, len(want))
	}
}
