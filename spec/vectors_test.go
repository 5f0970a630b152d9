package spec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/canon"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
	"github.com/shmts/shmts/spec/internal/vectors"
)

const dir = "vectors"

func index(t *testing.T) []vectors.Vector {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all []vectors.Vector
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 100 {
		t.Fatalf("want more than 100 vectors, got %d", len(all))
	}
	return all
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is committed is what the generator builds.
func TestVectorsAreCurrent(t *testing.T) {
	files, err := vectors.Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(dir, path)
		if err != nil || e.IsDir() || name == "README.md" {
			return err
		}
		want, ok := files[name]
		got := read(t, name)
		switch {
		case !ok:
			t.Errorf("%s is no vector any more: run go generate ./spec", name)
		case !bytes.Equal(got, want):
			t.Errorf("%s is not what the generator builds: run go generate ./spec and look at the difference", name)
		}
		total += len(got)
		delete(files, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range files {
		t.Errorf("%s is missing: run go generate ./spec", name)
	}
	if total > 4<<20 {
		t.Errorf("the vectors take %d bytes, want at most 4 MiB", total)
	}
}

// The index says what FORMAT.md 13 promises.
func TestIndex(t *testing.T) {
	p := page(t)
	for _, v := range index(t) {
		if !regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(v.Section) + ` `).MatchString(p) {
			t.Errorf("%s: FORMAT.md has no section %s", v.ID, v.Section)
		}
		if !slices.Contains([]string{vectors.Valid, vectors.Refuse, vectors.Skip, vectors.Ignore}, v.Verdict) {
			t.Errorf("%s: verdict %q", v.ID, v.Verdict)
		}
		if (v.Verdict == vectors.Valid) != (v.Rule == "") {
			t.Errorf("%s: verdict %s, rule %q", v.ID, v.Verdict, v.Rule)
		}
		if (v.Verdict == vectors.Refuse) != (v.Text == "") {
			t.Errorf("%s: verdict %s, text %q", v.ID, v.Verdict, v.Text)
		}
		if v.Comment == "" {
			t.Errorf("%s: no comment", v.ID)
		}
	}
}

func TestVectorsInGo(t *testing.T) {
	for _, v := range index(t) {
		t.Run(v.ID, func(t *testing.T) {
			var got bytes.Buffer
			err := canon.Dump(&got, read(t, v.File))
			if v.Verdict != vectors.Refuse {
				if err != nil {
					t.Fatalf("want it %s, got %v", v.Verdict, err)
				}
				diff(t, string(read(t, v.Text)), got.String())
				return
			}
			var corrupt *layout.CorruptError
			var version *layout.VersionError
			switch {
			case err == nil:
				t.Fatalf("want it refused for %q, got a text", v.Rule)
			case !errors.As(err, &corrupt) && !errors.As(err, &version):
				t.Errorf("want a CorruptError or VersionError, got %T", err)
			case !strings.Contains(err.Error(), v.Rule) || !strings.HasPrefix(err.Error(), "shmts: "):
				t.Errorf("want it refused for %q, got %v", v.Rule, err)
			}
			if got.Len() != 0 {
				t.Errorf("want no text of a refused segment, got %d bytes", got.Len())
			}
		})
	}
}

// diff reports the first line that differs.
func diff(t *testing.T, want, got string) {
	t.Helper()
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "(nothing)", "(nothing)"
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			t.Fatalf("line %d:\nwant %s\ngot  %s", i+1, a, b)
		}
	}
}

// many runs the reference reader over many files in one process: reference.py itself takes one.
const many = `
import json, os, sys
sys.dont_write_bytecode = True
sys.path.insert(0, ".")
import reference
out = {}
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    try:
        out[path] = {"text": "".join(line + "\n" for line in reference.dump(reference.Segment(fd)))}
    except reference.Refuse as e:
        out[path] = {"refuse": str(e)}
    os.close(fd)
json.dump(out, sys.stdout)
`

func python(t *testing.T) string {
	t.Helper()
	p, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3: the reference reader is not run")
	}
	if err := exec.Command(p, "-c", "import json, struct, fcntl, decimal").Run(); err != nil {
		t.Skip("a python3 without its standard library: the reference reader is not run")
	}
	return p
}

func TestVectorsInPython(t *testing.T) {
	args := []string{"-c", many}
	all := index(t)
	for _, v := range all {
		args = append(args, filepath.Join(dir, v.File))
	}
	cmd := exec.Command(python(t), args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var said map[string]struct {
		Text, Refuse string
	}
	if err := json.Unmarshal(out, &said); err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		t.Run(v.ID, func(t *testing.T) {
			got := said[filepath.Join(dir, v.File)]
			if v.Verdict == vectors.Refuse {
				if got.Refuse == "" || !strings.Contains(got.Refuse, v.Rule) {
					t.Errorf("want it refused for %q, got %q", v.Rule, got.Refuse)
				}
				return
			}
			if got.Refuse != "" {
				t.Fatalf("want it %s, got it refused: %s", v.Verdict, got.Refuse)
			}
			diff(t, string(read(t, v.Text)), got.Text)
		})
	}
}

// The program as a person runs it: text on stdout, reasons on stderr, exit status.
func TestReferenceCommand(t *testing.T) {
	run := func(args ...string) (stdout, stderr string, status int) {
		var out, errs bytes.Buffer
		cmd := exec.Command(python(t), append([]string{"-B", "reference.py"}, args...)...)
		cmd.Stdout, cmd.Stderr = &out, &errs
		var exit *exec.ExitError
		if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return out.String(), errs.String(), cmd.ProcessState.ExitCode()
	}
	if out, _, status := run("vectors/kinds.shmts"); status != 0 || out != string(read(t, "kinds.txt")) {
		t.Errorf("want the text and status 0, got %d bytes and %d", len(out), status)
	}
	if out, errs, status := run("vectors/major-2.shmts"); status != 1 || out != "" || !strings.Contains(errs, "major 1") {
		t.Errorf("want a reason on stderr and status 1, got %q, %q and %d", out, errs, status)
	}
	archives := map[string]string{}
	for _, v := range archiveIndex(t) {
		switch v.ID {
		case "folded", "tier-major-2", "block-body-check":
			archives[v.ID] = archiveDir(t, v)
		}
	}
	if out, errs, status := run(archives["folded"]); status != 0 || out != string(read(t, "archive/folded.txt")) || errs != "" {
		t.Errorf("want the text of two tiers and status 0, got %d bytes, %q and %d", len(out), errs, status)
	}
	if out, errs, status := run(filepath.Join(archives["block-body-check"], "1s.tier")); status != 0 || out != string(read(t, "archive/block-body-check.txt")) || !strings.Contains(errs, "body_check") {
		t.Errorf("want the text of one tier, what was passed over, and status 0, got %d bytes, %q and %d", len(out), errs, status)
	}
	if out, errs, status := run(archives["tier-major-2"]); status != 1 || out != "" || !strings.Contains(errs, "major 1") {
		t.Errorf("want a reason on stderr and status 1, got %q, %q and %d", out, errs, status)
	}
	if _, errs, status := run("vectors/none.shmts"); status != 2 || !strings.Contains(errs, "none.shmts") {
		t.Errorf("want the file's name on stderr and status 2, got %q and %d", errs, status)
	}
	if _, errs, status := run(); status != 2 || !strings.Contains(errs, "reference.py FILE") {
		t.Errorf("want usage and status 2, got %q and %d", errs, status)
	}
}

// It stays short enough to be read in a sitting for each part, and needs the standard library alone.
func TestReferenceIsSmall(t *testing.T) {
	b, err := os.ReadFile("reference.py")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte("\n")); n >= 1500 {
		t.Errorf("reference.py has %d lines, want fewer than 1500", n)
	}
	for _, m := range regexp.MustCompile(`(?m)^(?:import|from) (\w+)`).FindAllSubmatch(b, -1) {
		if !slices.Contains([]string{"fcntl", "hashlib", "math", "mmap", "os", "stat", "struct", "sys", "zlib"}, string(m[1])) {
			t.Errorf("reference.py imports %s, want the standard library alone", m[1])
		}
	}
}

// The public reader's fsck: nothing to say of what is valid, something of what is skipped, the rule of what is refused. Of what a
// reader ignores it may complain.
func TestVectorsByReaderCheck(t *testing.T) {
	for _, v := range index(t) {
		t.Run(v.ID, func(t *testing.T) {
			err := errors.Join(reader.Check(filepath.Join(dir, v.File))...)
			switch v.Verdict {
			case vectors.Refuse:
				if err == nil || !strings.Contains(err.Error(), v.Rule) {
					t.Errorf("want %q, got %v", v.Rule, err)
				}
			case vectors.Skip:
				if bytes.Contains(read(t, v.Text), []byte("\nskip ")) && err == nil {
					t.Errorf("want something to say of what is skipped for its %s, got nothing", v.Rule)
				}
			case vectors.Valid:
				if err != nil {
					t.Errorf("want nothing to say, got %v", err)
				}
			}
		})
	}
}

// The public reader serves the rows and values of the text, and no others but a dead writer's last words. A shadow's are rows.
func TestVectorsByReader(t *testing.T) {
	for _, v := range index(t) {
		t.Run(v.ID, func(t *testing.T) {
			g, err := reader.OpenSegment(filepath.Join(dir, v.File))
			if v.Verdict == vectors.Refuse {
				if err == nil {
					g.Close()
					t.Fatalf("want it refused for %q, got it open", v.Rule)
				}
				if !strings.Contains(err.Error(), v.Rule) {
					t.Errorf("want it refused for %q, got %v", v.Rule, err)
				}
				return
			}
			if err != nil {
				t.Fatalf("want it %s, got %v", v.Verdict, err)
			}
			defer g.Close()
			var want strings.Builder
			series := map[string]string{} // number -> name{labels}: the public reader has no numbers
			for line := range strings.Lines(string(read(t, v.Text))) {
				word := strings.Fields(line)
				switch word[0] {
				case "series":
					series[word[1]] = seriesName.FindStringSubmatch(line)[1]
				case "row":
					want.WriteString(strings.Join(word[:9], " ") + "\n")
				case "value":
					want.WriteString("value " + series[word[1]] + " " + strings.Join(word[2:], " ") + "\n")
				case "exemplar":
					want.WriteString(line)
				}
			}
			diff(t, want.String(), readerRows(g)+readerExemplars(g))
		})
	}
}

var seriesName = regexp.MustCompile(`^series [0-9]+ [a-z]+ generation=[0-9]+ [a-z]+ [a-z0-9]+ (.*?) unit="`)

// readerRows is what the public reader says of a segment's rows, in the canonical text as far as it knows.
func readerRows(g *reader.Segment) string {
	var b strings.Builder
	for table := range g.Tables() {
		for tier := range g.Tables()[table].Tiers {
			for r := range g.Rows(table, tier, 1) {
				if r.Estimated && !g.Shadow() {
					continue
				}
				fmt.Fprintf(&b, "row %d %d %d base=%d begin=%d t=%d mono=%d epoch=%d\n", table, tier, r.No, r.BaseRow, r.Begin, r.Time, r.Mono, r.Epoch)
				for _, s := range g.Series() {
					if v, ok := r.Value(s); ok {
						var labels []string
						for _, p := range s.Labels {
							labels = append(labels, quoted(p.Name)+"="+quoted(p.Value))
						}
						fmt.Fprintf(&b, "value %s{%s} %s\n", quoted(s.Name), strings.Join(labels, ","), valueText(s, &v))
					}
				}
			}
		}
	}
	return b.String()
}

// readerExemplars is what the public reader says of them.
func readerExemplars(g *reader.Segment) string {
	var b strings.Builder
	for x := range g.Exemplars(0) {
		index, _ := x.Series.Descriptor()
		value := valueText(x.Series, &reader.Value{Kind: reader.Gauge, Number: reader.F64, Float: x.Value})
		fmt.Fprintf(&b, "exemplar %d series=%d value=%s t=%d trace=%x span=%x\n", x.Number, index, value, x.Time, x.TraceID, x.SpanID)
	}
	return b.String()
}

func valueText(s *reader.Series, v *reader.Value) string {
	float := func(f float64) string {
		switch {
		case math.IsInf(f, 0):
			return strings.TrimPrefix(strings.ToLower(fmt.Sprint(f)), "+")
		case math.IsNaN(f):
			return fmt.Sprintf("nan:%016x", math.Float64bits(f))
		}
		return strconv.FormatFloat(f, 'g', 17, 64)
	}
	unset := func(f float64) string {
		if math.IsNaN(f) {
			return "unset"
		}
		return float(f)
	}
	switch v.Kind {
	case reader.Stat:
		return fmt.Sprintf("count=%d sum=%s last=%s min=%s max=%s", v.Count, float(v.Sum), unset(v.Last), unset(v.Min), unset(v.Max))
	case reader.Histogram:
		var buckets []string
		for i, n := range v.Buckets {
			if n != 0 {
				buckets = append(buckets, fmt.Sprintf("%d:%d", s.Buckets.Min+i, n))
			}
		}
		return fmt.Sprintf("sum=%s zero=%d above=%d buckets=%s", float(v.Sum), v.Zero, v.Above, strings.Join(buckets, ","))
	}
	switch {
	case v.Unset:
		return "unset"
	case v.Number == reader.F64:
		return float(v.Float)
	case v.Number == reader.U64:
		return strconv.FormatUint(uint64(v.Int), 10)
	}
	return strconv.FormatInt(v.Int, 10)
}

func quoted(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return `"` + b.String() + `"`
}
