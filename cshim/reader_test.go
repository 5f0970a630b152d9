package cshim_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shmts/shmts/layout"
)

// readerInC builds testdata/reader.c, a reader in C written from FORMAT.md.
func readerInC(t *testing.T) string {
	t.Helper()
	return program(t, firstCompiler(t), "testdata/reader.c")
}

// The reader in C says of every vector what is to be said of it: read by copy, and in place.
func TestReaderInCAgreesOnVectors(t *testing.T) {
	reader := readerInC(t)
	dir := filepath.Join("..", "spec", "vectors")
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ ID, File, Verdict, Rule string }
	if err := json.Unmarshal(index, &vectors); err != nil {
		t.Fatal(err)
	}
	refused, read := 0, 0
	for _, v := range vectors {
		image := filepath.Join(dir, v.ID+".shmts")
		for _, mode := range [][]string{nil, {"--in-place"}} {
			out, err := try(t, exec.Command(reader, append(mode, image)...))
			if v.Verdict == "refuse" {
				refused++
				if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "shmts: corrupt segment: ") {
					t.Errorf("%s %v: want it refused (%s), got %v", v.ID, mode, v.Rule, err)
				}
				continue
			}
			read++
			want, missing := os.ReadFile(filepath.Join(dir, v.ID+".txt"))
			if missing != nil || err != nil {
				t.Errorf("%s %v: want its text, got %v, %v", v.ID, mode, missing, err)
				continue
			}
			if out != string(want) && !(mode != nil && oddSeq(t, image)) {
				t.Errorf("%s %v: want\n%s\ngot\n%s", v.ID, mode, want, out)
			}
			if mode != nil && oddSeq(t, image) && !strings.Contains(out, " busy\n") {
				t.Errorf("%s in place: want the row of odd seq skipped, got\n%s", v.ID, out)
			}
		}
	}
	if refused < 50 || read < 50 {
		t.Errorf("want vectors of both sorts, got %d refused and %d read", refused, read)
	}
}

// oddSeq tells whether a row of the image looks as if its writer were inside: what a reader in place
// skips, and one with a copy leaves to the checksum.
func oddSeq(t *testing.T, path string) bool {
	t.Helper()
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	words := make([]uint64, len(image)/8)
	copy(layout.Bytes(words), image)
	h, err := layout.ParseHeader(words, int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	for i := range h.Tables {
		for j := range int(h.Tables[i].Tiers) {
			tier := &h.Tables[i].Tier[j]
			for slot := range uint64(tier.Rows) {
				if row := words[(tier.Offset+slot*uint64(tier.RowStride))/8:]; row[0]&1 != 0 && row[1] != 0 {
					return true
				}
			}
		}
	}
	return false
}

// What the Go writer wrote, the reader in C reads as layout does; and what the C writer wrote.
func TestReaderInCReadsBothWriters(t *testing.T) {
	reader := readerInC(t)
	inC, inGo := newStore(t), newStore(t)
	run(t, program(t, firstCompiler(t), "testdata/prog.c", "-ldl"), "story", inC)
	tellStory(t, inGo, false)
	for _, store := range []string{inC, inGo} {
		s := readOne(t, store)
		want := strings.Join(s.text, "\n") + "\n"
		for _, mode := range [][]string{nil, {"--in-place"}} {
			if out := run(t, reader, append(mode, s.path)...); out != want {
				t.Errorf("%s %v: want what layout says of it, got another text of %d bytes instead of %d", s.path, mode, len(out), len(want))
			}
		}
	}
}

// A reader in place, and one that copies, beside a writer that publishes without a pause: no row that they
// serve is torn. In row n every counter is n.
func TestNoTornRowIsServed(t *testing.T) {
	reader := readerInC(t)
	eachCompiler(t, func(t *testing.T, prog string) {
		store := newStore(t)
		writer := exec.Command(prog, "rows", store)
		said := &lines{ready: make(chan struct{})}
		writer.Stdout = said
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		defer writer.Wait()
		defer writer.Process.Kill()
		select {
		case <-said.ready:
		case <-time.After(10 * time.Second):
			t.Fatal("want the writer to begin, got nothing in 10 s")
		}
		paths, err := filepath.Glob(filepath.Join(store, "*", "*.shmts"))
		if err != nil || len(paths) != 1 {
			t.Fatalf("want one segment, got %v, %v", paths, err)
		}
		rows, skipped := 0, 0
		for round := range 60 {
			mode := []string{paths[0]}
			if round%2 == 0 {
				mode = []string{"--in-place", paths[0]}
			}
			number := ""
			for _, line := range strings.Split(run(t, reader, mode...), "\n") {
				f := strings.Fields(line)
				switch {
				case strings.HasPrefix(line, "row "):
					number = f[3]
					rows++
				case strings.HasPrefix(line, "skip row "):
					skipped++
				case strings.HasPrefix(line, "value ") && f[2] != number:
					t.Fatalf("row %s: want every counter %s, got %s", number, number, line)
				}
			}
		}
		t.Logf("%d rows served, %d skipped", rows, skipped)
		if rows == 0 {
			t.Error("want rows, got none")
		}
	})
}
