package spec_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const header = "../cshim"

// assertions is a C program that compiles only where shmts.h has the page's structures.
func assertions(all []structure) string {
	var b strings.Builder
	b.WriteString("#include \"shmts.h\"\n#include <stddef.h>\n")
	for _, s := range all {
		end := 0
		for _, f := range s.fields {
			if f.size < 0 || f.name == "reserved" { // what lies between is covered by the offsets around it
				end = max(end, f.offset+f.size)
				continue
			}
			end = f.offset + f.size
			name := f.name
			fmt.Fprintf(&b, "_Static_assert(offsetof(%s, %s) == %d, \"FORMAT.md: %s.%s: offset\");\n", s.cName, name, f.offset, s.goName, f.name)
			fmt.Fprintf(&b, "_Static_assert(sizeof(((%s *)0)->%s) == %d, \"FORMAT.md: %s.%s: size\");\n", s.cName, name, f.size, s.goName, f.name)
			if sign := map[byte]string{'u': "> 0", 'i': "< 0"}[f.typ[0]]; sign != "" && !strings.Contains(f.typ, "[") && f.name != "magic" {
				fmt.Fprintf(&b, "_Static_assert((__typeof__(((%s *)0)->%s))-1 %s, \"FORMAT.md: %s.%s: sign\");\n", s.cName, name, sign, s.goName, f.name)
			}
		}
		fmt.Fprintf(&b, "_Static_assert(sizeof(%s) == %d, \"FORMAT.md: %s: size\");\n", s.cName, end, s.goName)
	}
	b.WriteString("int main(void) { return 0; }\n")
	return b.String()
}

// compile answers what the compiler says of a program that includes shmts.h.
func compile(t *testing.T, source string) (output string, err error) {
	t.Helper()
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("no gcc: the C header is not compared with FORMAT.md")
	}
	if _, err := os.Stat(filepath.Join(header, "shmts.h")); err != nil {
		t.Fatal(err)
	}
	f := filepath.Join(t.TempDir(), "assertions.c")
	if err := os.WriteFile(f, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(gcc, "-std=gnu11", "-fsyntax-only", "-I", header, f).CombinedOutput()
	return string(out), err
}

func TestCStructures(t *testing.T) {
	all, err := parseStructures(page(t))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := compile(t, assertions(all)); err != nil {
		t.Errorf("shmts.h and FORMAT.md differ: %v\n%s", err, out)
	}
}

func TestCStructuresCheckerSees(t *testing.T) {
	good := page(t)
	for _, c := range []struct{ old, new, want string }{
		{"| 0x0c | 4 | header_size", "| 0x10 | 4 | header_size", "Superblock.header_size: offset"},
		{"| 0x18 | 8 | total_size | u64", "| 0x18 | 4 | total_size | u32", "Superblock.total_size: size"},
		{"| 0x26 | 2 | bucket_min | i16", "| 0x26 | 2 | bucket_min | u16", "Series.bucket_min: sign"},
		{"| 0x240 | 64 | table7 | table control | | |\n", "", "Control: size"},
	} {
		all, err := parseStructures(strings.Replace(good, c.old, c.new, 1))
		if err != nil {
			t.Fatal(err)
		}
		out, err := compile(t, assertions(all))
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("want the compiler to say %q, got %v: %s", c.want, err, out)
		}
	}
}
