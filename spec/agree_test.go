package spec_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shmts/shmts/internal/canon"
	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
)

// Images broken at random: Go and Python, written from the same page, refuse the same ones and say the same of the others. The header's
// checksum is made right again, or nearly all would end there.
func TestMutationsAgree(t *testing.T) {
	python := python(t)
	r := rand.New(rand.NewPCG(13, 14))
	var seeds [][]byte
	for _, id := range []string{"base", "kinds", "wrapped", "cells-reused", "sampled", "written-by-go-killed"} {
		seeds = append(seeds, read(t, id+".shmts"))
	}
	interesting := []uint64{0, 1, 2, 3, 7, 8, 63, 64, 65, 255, 256, 1 << 12, 1 << 16, 1<<20 + 1, 1<<32 - 1, 1 << 63, 1<<64 - 1, 1<<64 - 64}
	store := t.TempDir()
	const images = 400
	args := []string{"-c", many}
	var refused, served int
	want := map[string]string{} // "" where Go refuses
	for n := range images {
		b := bytes.Clone(seeds[n%len(seeds)])
		w := layout.Words(b)
		header := int(uint32(w[1] >> 32))
		for range 1 + r.IntN(3) {
			limit := len(b)
			if r.IntN(2) == 0 {
				limit = header // half of them where structure is
			}
			at := r.IntN(limit)
			switch r.IntN(3) {
			case 0:
				b[at] ^= 1 << r.IntN(8)
			case 1:
				b[at] = byte(interesting[r.IntN(len(interesting))])
			default:
				w[at/8] = interesting[r.IntN(len(interesting))]
			}
		}
		if size := int(uint32(w[1]>>32)) / 8; size > 17 && size <= len(w) {
			w[17] = 0
			w[17] = layout.Sum(0x53, w[:size])
		}
		name := filepath.Join(store, fmt.Sprintf("%03d.shmts", n))
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
		var text bytes.Buffer
		if err := canon.Dump(&text, b); err != nil {
			refused++
			want[name] = ""
			continue
		}
		served++
		want[name] = text.String()
	}
	if refused < images/10 || served < images/10 {
		t.Errorf("want some of both, got %d refused, %d served", refused, served)
	}
	cmd := exec.Command(python, args...)
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
	for name, text := range want {
		got := said[name]
		if (text == "") != (got.Refuse != "") {
			b, _ := os.ReadFile(name)
			_, err := layout.ParseHeader(layout.Words(b), int64(len(b)))
			t.Errorf("%s: Go says %v, Python says %q", filepath.Base(name), err, got.Refuse)
			continue
		}
		if text != got.Text {
			t.Run(filepath.Base(name), func(t *testing.T) { diff(t, text, got.Text) })
		}
	}
}

// The reference reader reads a store: who is alive is told by the lock, across processes.
func TestReferenceLive(t *testing.T) {
	python, program := python(t), scriptProgram(t)
	store, err := os.MkdirTemp("/dev/shm", "shmts-spec-")
	if err != nil {
		t.Skipf("no /dev/shm to test in: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(store) })
	live := func() map[string]string { // instance, or a name that is no segment's -> what is said
		t.Helper()
		out, err := exec.Command(python, "-B", "reference.py", "--live", store).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		said := map[string]string{}
		for line := range strings.Lines(string(out)) {
			state, _, _ := strings.Cut(line, " ")
			if _, rest, ok := strings.Cut(line, `"instance"="`); ok {
				instance, _, _ := strings.Cut(rest, `"`)
				said[instance] = state
			} else {
				said[filepath.Base(strings.TrimSpace(line))] = state
			}
		}
		return said
	}
	open := func(instance string) *writer.Writer {
		w, err := writer.Open(writer.Options{Job: "live", Instance: instance, Dir: store, NoTicker: true})
		if err != nil {
			t.Fatal(err)
		}
		w.Counter("c").Add(1)
		return w
	}
	defer open("alive").Close()
	open("closed").Close()
	cmd := exec.Command(program, store) // the instance is called one
	cmd.Stdin = strings.NewReader("s counter c - - - 0 0 0\na 0 5\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	uid := filepath.Join(store, fmt.Sprint(os.Getuid()))
	for name, b := range map[string][]byte{"no.shmts": []byte("not a segment"), ".hidden.shmts": nil, "other.txt": nil} {
		if err := os.WriteFile(filepath.Join(uid, name), b, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/null", filepath.Join(uid, "link.shmts")); err != nil {
		t.Fatal(err)
	}
	got := live()
	want := map[string]string{"alive": "alive", "closed": "closed", "one": "dead", "no.shmts": "refused", "link.shmts": "refused"}
	for who, state := range want {
		if got[who] != state {
			t.Errorf("%s: want %s, got %q", who, state, got[who])
		}
	}
	if len(got) != len(want) {
		t.Errorf("want %v, got %v", want, got)
	}
}

// The C reader of cshim's tests prints the same text.
func TestVectorsInC(t *testing.T) {
	const source = header + "/testdata/reader.c"
	if _, err := os.Stat(source); err != nil {
		t.Skipf("no C reader: %v", err)
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc: the C reader is not run")
	}
	program := filepath.Join(t.TempDir(), "reader")
	if out, err := exec.Command(gcc, "-std=c11", "-O1", "-I", header, "-o", program, source, "-pthread", "-lm").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, v := range index(t) {
		t.Run(v.ID, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			cmd := exec.Command(program, filepath.Join(dir, v.File))
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			if v.Verdict == "refuse" {
				if err == nil || stdout.Len() != 0 || !strings.Contains(stderr.String(), v.Rule) {
					t.Errorf("want it refused for %q, got %v, %q", v.Rule, err, stderr.String())
				}
				return
			}
			if err != nil {
				t.Fatalf("want it %s, got %v: %s", v.Verdict, err, stderr.String())
			}
			diff(t, string(read(t, v.Text)), stdout.String())
		})
	}
}
