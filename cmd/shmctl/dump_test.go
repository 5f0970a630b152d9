package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/shmts/shmts/layout"
)

// Names, offsets and sizes that dump prints are those of FORMAT.md's tables.
func TestDumpNamesAreTheSpecs(t *testing.T) {
	spec, err := os.ReadFile(filepath.Join("..", "..", "spec", "FORMAT.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name, fields := range map[string][]field{
		"Superblock":   structFields("x", 0, &layout.Superblock{}),
		"Section":      structFields("x", 0, &layout.Section{}),
		"Tier":         structFields("x", 0, &layout.Tier{}),
		"Control":      structFields("x", 0, &layout.Control{}),
		"Table":        structFields("x", 0, &layout.Table{}),
		"TableControl": structFields("x", 0, &layout.TableControl{}),
		"Series":       structFields("x", 0, &layout.Series{}),
		"Row":          structFields("x", 0, &layout.RowHeader{}),
		"Exemplar":     structFields("x", 0, &layout.Exemplar{}),
	} {
		_, table, ok := strings.Cut(string(spec), "<!-- struct "+name+" ")
		if !ok {
			t.Fatalf("want a table of struct %s in FORMAT.md, got none", name)
		}
		printed := map[string]field{}
		for _, f := range fields {
			printed[strings.TrimPrefix(f.Field, "x.")] = f
		}
		rows := 0
		for _, line := range strings.Split(table, "\n")[1:] {
			m := regexp.MustCompile(`^\| (0x[0-9a-f]+) \| (\d+) \| (\w+) \| ([^|]*)`).FindStringSubmatch(line)
			if m == nil {
				if strings.HasPrefix(line, "#") {
					break
				}
				continue
			}
			rows++
			field, kind := m[3], strings.TrimSpace(m[4])
			if field == "reserved" {
				continue
			}
			f, ok := printed[field]
			nested := kind == "tier" || kind == "table control" // printed field by field
			if nested {
				for n, g := range printed {
					if strings.HasPrefix(n, field+".") && (!ok || g.Offset < f.Offset) {
						f, ok = g, true
					}
				}
			}
			if !ok {
				t.Errorf("%s: want field %s printed, got none", name, field)
				continue
			}
			offset, _ := strconv.ParseUint(m[1], 0, 64)
			if f.Offset != offset || !nested && strconv.FormatUint(f.Size, 10) != m[2] {
				t.Errorf("%s.%s: want offset %#x and %s bytes, got %#x and %d", name, field, offset, m[2], f.Offset, f.Size)
			}
		}
		if rows < 4 {
			t.Errorf("%s: want a table of FORMAT.md, got %d rows", name, rows)
		}
	}
}

// What the lanes of a closed segment hold adds up to the last row.
func TestDumpLanes(t *testing.T) {
	store := newStore(t)
	closedSegment(t, store, "forwarder", "eth0", 7)
	sums := map[string]float64{}
	for _, f := range decodeLines[field](shmctl(t, store, "dump", "forwarder", "--cells", "--section", "lanes", "--json").ok()) {
		if v, ok := f.Value.(float64); ok && strings.Contains(f.Field, ".cell") {
			sums[f.Note] += v
		}
	}
	for note, want := range map[string]float64{`rx_packets_total{queue="0"}`: 1500, "busy_seconds_total": 1.25, "wait_seconds count": 8,
		"wait_seconds sum": 4.5, "latency_seconds zero": 0, "queue_depth": 2.5, "wait_seconds last": 1.25} {
		if got, ok := sums[note]; !ok || got != want {
			t.Errorf("%s: want %g in all lanes, got %g (%v)", note, want, got, ok)
		}
	}
}

// A file that is no good is printed as far as it goes, and what is wrong is said.
func TestDumpOfDamage(t *testing.T) {
	store, dir := newStore(t), t.TempDir()
	closedSegment(t, store, "forwarder", "eth0", 7)
	image, err := os.ReadFile(strings.TrimSpace(shmctl(t, store, "ls", "-q").ok().out))
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, change func(b []byte) []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, change(append([]byte(nil), image...)), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	shmctl(t, store, "dump", write("short", func(b []byte) []byte { return b[:100] })).fails(exitFailed, "want 256 bytes at 0x0, got a file of 100")
	shmctl(t, store, "dump", write("magic", func(b []byte) []byte { b[0] = 'X'; return b })).fails(exitFailed, "want magic").contains("superblock.total_size")
	shmctl(t, store, "dump", write("cut", func(b []byte) []byte { return b[:4096] })).fails(exitFailed, "the file's size").contains("superblock.total_size")
	shmctl(t, store, "dump", dir+"/").fails(exitFailed, "want a regular file")
	shmctl(t, store, "dump", "/dev/null").fails(exitFailed, "want a regular file")
	shmctl(t, store, "dump", filepath.Join(dir, "none.shmts")).fails(exitFailed, "no such file")
	// One series whose table does not exist: the others, and the rows, are printed all the same.
	h, err := layout.ParseHeader(layout.Words(append(make([]byte, 0, len(image)), image...))[:], int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	one := write("series", func(b []byte) []byte { b[h.Series.Offset+8] = 9; return b })
	o := shmctl(t, store, "dump", one).fails(exitFailed, "series 0: want table below 2, got 9").contains("series1.name", "(ok)")
	if strings.Contains(o.out, "rx_packets_total") {
		t.Error("want no name of a series that is broken, got one")
	}
	// A row with a flipped bit is printed with its verdict.
	row := h.Tables[0].Tier[0].RowOffset(3)
	shmctl(t, store, "dump", write("row", func(b []byte) []byte { b[row+0x18] ^= 1; return b })).ok().contains("(bad)")
}
