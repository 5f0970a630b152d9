package archive

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
)

// What the child of TestKilled appends, the same each time: its parent knows what should be there.
func killedBlock(w *world, r *rand.Rand, i int) *Block {
	return w.block(r, w.schemas[i%3], i%2 == 1, []int{i % 4 * 2, 8 + i%3*2}, 40)
}

func killedExemplars(w *world, r *rand.Rand, i int) []Exemplars {
	return w.exemplars(r, []int{i % 4 * 2, 100}, 30)
}

const killedBlocks = 150

func TestKilledChild(t *testing.T) {
	dir := os.Getenv("SHMTS_KILLED_DIR")
	if dir == "" {
		t.Skip("this is a child of TestKilled")
	}
	a := mustOpen(t, Options{Dir: dir, Tiers: testTiers[:1], ExtentSize: minExtentSize})
	w, r := newWorld(t), rand.New(rand.NewPCG(7, 7))
	for i := range killedBlocks {
		if err := a.Append(0, killedBlock(w, r, i)); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("appended %d\n", a.End(0).Generation) // one write: it is there before the next step
		if i%3 == 0 {
			if err := a.AppendExemplars(killedExemplars(w, r, i)...); err != nil {
				t.Fatal(err)
			}
			fmt.Printf("exemplars %d\n", a.End(0).Generation)
		}
		if i%5 == 0 {
			if err := a.SetMark(0, Mark{uint64(i + 1), 0}); err != nil {
				t.Fatal(err)
			}
		}
		if i%7 == 0 {
			if err := a.Sync(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// The process is killed at every place that the writer has: what Append returned from is there, and it goes on.
func TestKilled(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(t.TempDir(), "archive.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "failpoint", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var points []string
	for _, name := range []string{"append.go", "open.go", "mend.go"} {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`failpoint\.(?:Here|Fails)\("([^"]+)"\)`).FindAllSubmatch(src, -1) {
			points = append(points, string(m[1]))
		}
	}
	slices.Sort(points)
	if points = slices.Compact(points); len(points) < 12 {
		t.Fatalf("want a dozen places, got %q", points)
	}
	for _, point := range points {
		for _, pass := range []int{1, 4} {
			o := Options{Dir: t.TempDir(), Tiers: testTiers[:1], ExtentSize: minExtentSize}
			cmd := exec.Command(bin, "-test.run", "^TestKilledChild$")
			cmd.Env = append(os.Environ(), "SHMTS_KILLED_DIR="+o.Dir, fmt.Sprintf("SHMTS_FAILPOINTS=%s:%d", point, pass))
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			out, err := cmd.Output()
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
				t.Errorf("%s:%d: want it killed, got %v\n%s", point, pass, err, out)
				continue
			}
			a := mustOpen(t, o)
			w, r := newWorld(t), rand.New(rand.NewPCG(7, 7))
			got, wrong := w.read(a, 0)
			for _, word := range wrong {
				t.Errorf("%s:%d: %s", point, pass, word)
			}
			n := 0
			for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); n++ {
				var generation uint64
				if _, err := fmt.Sscanf(lines.Text(), "appended %d", &generation); err != nil {
					t.Fatalf("%s:%d: %q: %v", point, pass, lines.Text(), err)
				}
				ids := rowsOf(killedBlock(w, r, n))
				if n%3 == 0 && lines.Scan() {
					for id := range exemplarIDs(killedExemplars(w, r, n)) {
						ids[id] = true
					}
				}
				for id := range ids {
					if !got[id] && generation+4 > a.tiers[0].w.last {
						t.Fatalf("%s:%d: block %d of generation %d of %d: row %d is gone", point, pass, n, generation, a.tiers[0].w.last, id.no)
					}
				}
			}
			if err := a.Append(0, killedBlock(w, r, n+1)); err != nil {
				t.Errorf("%s:%d: it goes on: %v", point, pass, err)
			}
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
