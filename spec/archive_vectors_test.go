package spec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/archive"
	"github.com/shmts/shmts/internal/canon"
	"github.com/shmts/shmts/spec/internal/vectors"
)

// silent are archives that can't be told from good ones: what an earlier use of an extent left may look like that, and a file of zeros is
// one that its writer is about to begin.
var silent = map[string]bool{"extent-another-generation": true, "trailer-check": true, "tiers-unfinished": true}

func archiveIndex(t *testing.T) []vectors.Vector {
	t.Helper()
	var all []vectors.Vector
	d := json.NewDecoder(bytes.NewReader(read(t, "archive/index.json")))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		t.Fatal(err)
	}
	if len(all) < 150 {
		t.Fatalf("want more than 150 archives, got %d", len(all))
	}
	return all
}

// archiveDir makes an archive of the vectors.
func archiveDir(t *testing.T, v vectors.Vector) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), v.ID)
	if err := vectors.WriteArchive(mkdir(t, dir), read(t, "archive/"+v.File)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestArchiveIndex(t *testing.T) {
	p := page(t)
	for _, v := range archiveIndex(t) {
		if !regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(v.Section) + ` `).MatchString(p) {
			t.Errorf("%s: FORMAT.md has no section %s", v.ID, v.Section)
		}
		if !slices.Contains([]string{vectors.Valid, vectors.Refuse, vectors.Skip, vectors.Ignore, vectors.Empty, vectors.Unsealed, vectors.NoBlock}, v.Verdict) {
			t.Errorf("%s: verdict %q", v.ID, v.Verdict)
		}
		if (v.Verdict == vectors.Valid) != (v.Rule == "") || (v.Verdict == vectors.Refuse) != (v.Text == "") || v.Comment == "" {
			t.Errorf("%s: verdict %s, rule %q, text %q, comment %q", v.ID, v.Verdict, v.Rule, v.Text, v.Comment)
		}
	}
}

func TestArchivesInGo(t *testing.T) {
	for _, v := range archiveIndex(t) {
		t.Run(v.ID, func(t *testing.T) {
			var got bytes.Buffer
			err := canon.Archive(&got, archiveDir(t, v))
			if v.Verdict != vectors.Refuse {
				if err != nil {
					t.Fatalf("want it %s, got %v", v.Verdict, err)
				}
				diff(t, string(read(t, "archive/"+v.Text)), got.String())
				return
			}
			if err == nil || !strings.Contains(err.Error(), v.Rule) || !strings.HasPrefix(err.Error(), "shmts: ") || got.Len() != 0 {
				t.Errorf("want it refused for %q and no text, got %v and %d bytes", v.Rule, err, got.Len())
			}
		})
	}
}

func TestArchivesInPython(t *testing.T) {
	all := archiveIndex(t)
	var dirs []string
	for _, v := range all {
		dirs = append(dirs, archiveDir(t, v))
	}
	said := archivesInPython(t, dirs)
	for i, v := range all {
		t.Run(v.ID, func(t *testing.T) {
			got := said[dirs[i]]
			notes := strings.Join(got.Notes, "\n")
			switch v.Verdict {
			case vectors.Refuse:
				if got.Refuse == "" || !strings.Contains(got.Refuse, v.Rule) {
					t.Errorf("want it refused for %q, got %q", v.Rule, got.Refuse)
				}
				return
			case vectors.Valid, vectors.Ignore:
				if notes != "" && (v.Rule == "" || !strings.Contains(notes, v.Rule)) {
					t.Errorf("want nothing passed over, got %s", notes)
				}
			case vectors.Skip, vectors.NoBlock:
				if !strings.Contains(notes, v.Rule) && !silent[v.ID] {
					t.Errorf("want something passed over for %q, got %q", v.Rule, notes)
				}
			case vectors.Unsealed:
				if !strings.Contains(notes, v.Rule) && !silent[v.ID] {
					t.Errorf("want an index that is not read for %q, got %q", v.Rule, notes)
				}
			}
			if got.Refuse != "" {
				t.Fatalf("want it %s, got it refused: %s", v.Verdict, got.Refuse)
			}
			diff(t, string(read(t, "archive/"+v.Text)), got.Text)
		})
	}
}

// The archive's fsck: nothing to say of what is valid, the rule of what is refused, something of all else that is passed over.
func TestArchivesByCheck(t *testing.T) {
	for _, v := range archiveIndex(t) {
		t.Run(v.ID, func(t *testing.T) {
			err := errors.Join(archive.Check(archiveDir(t, v))...)
			switch v.Verdict {
			case vectors.Refuse:
				if (err == nil || !strings.Contains(err.Error(), v.Rule)) && !silent[v.ID] {
					t.Errorf("want %q, got %v", v.Rule, err)
				}
			case vectors.Valid:
				if err != nil {
					t.Errorf("want nothing to say, got %v", err)
				}
			case vectors.Skip, vectors.Unsealed, vectors.NoBlock:
				if err == nil && !silent[v.ID] {
					t.Errorf("want something to say of what is passed over for its %s, got nothing", v.Rule)
				}
			}
		})
	}
}
