// Package vectors builds the images of spec/vectors, good and broken, on
// package layout with fixed ids and clocks: every build gives the same bytes. Those
// that the C and the Go writer wrote are taken as they lie there. Those of archives are built
// byte by byte, with nothing of package archive.
package vectors

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shmts/shmts/internal/canon"
	"github.com/shmts/shmts/layout"
)

// A Vector is one entry of index.json: see spec/vectors/README.md.
type Vector struct {
	ID      string `json:"id"`
	File    string `json:"file"`
	Text    string `json:"text,omitempty"`
	Section string `json:"section"`
	Comment string `json:"comment"`
	Verdict string `json:"verdict"`
	Rule    string `json:"rule,omitempty"`

	Image []byte `json:"-"`
}

// Verdicts of a vector, FORMAT.md 1.
const (
	Valid  = "valid"
	Refuse = "refuse"
	Skip   = "skip"
	Ignore = "ignore"
)

// Written begins the names of images that are not built here: a test of package spec writes them.
const Written = "written-by-"

// All are the vectors, in the order of the index. dir is spec/vectors.
func All(dir string) ([]Vector, error) {
	all := append(good(), goodExemplars()...)
	for _, by := range []string{"c", "go"} {
		for _, how := range []string{"killed", "closed"} {
			id := Written + by + "-" + how
			b, err := os.ReadFile(filepath.Join(dir, id+".shmts"))
			if err != nil {
				return nil, err
			}
			all = append(all, Vector{ID: id, Section: "10", Verdict: Valid, Image: b,
				Comment: map[string]string{"c": "written by shmts.h, ", "go": "written by the Go writer, "}[by] + how + "; the other's says the same"})
		}
	}
	all = append(all, legal()...)
	all = append(all, brokenHeaders()...)
	all = append(all, brokenTables()...)
	all = append(all, brokenSeries()...)
	all = append(all, brokenRows()...)
	all = append(all, brokenExemplars()...)
	for i := range all {
		v := &all[i]
		v.File = v.ID + ".shmts"
		if v.Verdict != Refuse {
			v.Text = v.ID + ".txt"
		}
	}
	return all, nil
}

// Archives are the vectors of part two, in the order of their index.
func Archives() []Vector {
	all := append(goodArchives(), brokenArchives()...)
	for i := range all {
		v := &all[i]
		v.File = v.ID + ".image"
		if v.Verdict != Refuse {
			v.Text = v.ID + ".txt"
		}
	}
	return all
}

// WriteArchive makes an archive's files in a directory, of the text of its image.
func WriteArchive(dir string, image []byte) error {
	var f *os.File
	done := func() error {
		if f == nil {
			return nil
		}
		return f.Close()
	}
	for line := range strings.Lines(string(image)) {
		word := strings.Fields(line)
		if word[0] == "file" {
			size, err := strconv.ParseInt(word[2], 10, 64)
			if err != nil {
				return err
			}
			if err := done(); err != nil {
				return err
			}
			if f, err = os.Create(filepath.Join(dir, word[1])); err != nil {
				return err
			}
			if err := f.Truncate(size); err != nil {
				return err
			}
			continue
		}
		at, err := strconv.ParseInt(word[0], 10, 64)
		if err != nil {
			return err
		}
		b, err := hex.DecodeString(word[1])
		if err != nil {
			return err
		}
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
	}
	return done()
}

// Files are what is to lie in spec/vectors, README.md apart, by name.
func Files(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	all, err := All(dir)
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if files[v.File] != nil {
			return nil, fmt.Errorf("two vectors are called %s", v.ID)
		}
		files[v.File] = v.Image
		var text bytes.Buffer
		switch err := canon.Dump(&text, v.Image); {
		case v.Verdict == Refuse && err == nil:
			return nil, fmt.Errorf("%s: want it refused (%s), got a text", v.ID, v.Rule)
		case v.Verdict == Refuse && !strings.Contains(err.Error(), v.Rule):
			return nil, fmt.Errorf("%s: want it refused for %q, got %w", v.ID, v.Rule, err)
		case v.Verdict != Refuse && err != nil:
			return nil, fmt.Errorf("%s: want it %s, got %w", v.ID, v.Verdict, err)
		case err == nil:
			files[v.Text] = text.Bytes()
		}
	}
	if files["index.json"], err = encode(all); err != nil {
		return nil, err
	}
	return files, archives(files)
}

// archives adds those of directory archive.
func archives(files map[string][]byte) error {
	all := Archives()
	for _, v := range all {
		image := "archive/" + v.File
		if files[image] != nil {
			return fmt.Errorf("two archives are called %s", v.ID)
		}
		files[image] = v.Image
		text, err := archiveText(v.Image)
		switch {
		case v.Verdict == Refuse && err == nil:
			return fmt.Errorf("%s: want it refused (%s), got a text", v.ID, v.Rule)
		case v.Verdict == Refuse && !strings.Contains(err.Error(), v.Rule):
			return fmt.Errorf("%s: want it refused for %q, got %w", v.ID, v.Rule, err)
		case v.Verdict != Refuse && err != nil:
			return fmt.Errorf("%s: want it %s, got %w", v.ID, v.Verdict, err)
		case err == nil:
			files["archive/"+v.Text] = text
		}
	}
	var err error
	files["archive/index.json"], err = encode(all)
	return err
}

func archiveText(image []byte) ([]byte, error) {
	dir, err := os.MkdirTemp("", "vectors")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := WriteArchive(dir, image); err != nil {
		return nil, err
	}
	var text bytes.Buffer
	err = canon.Archive(&text, dir)
	return text.Bytes(), err
}

func encode(all []Vector) ([]byte, error) {
	var index bytes.Buffer
	e := json.NewEncoder(&index)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(all)
	return index.Bytes(), err
}

// image is a segment's bytes, in memory of their own.
func image(w []uint64) []byte { return bytes.Clone(layout.Bytes(w)) }
