package main

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/shmts/shmts/reader"
	"github.com/urfave/cli/v2"
)

// A view is the store as of one look, and files named by path.
type view struct {
	dir     string
	store   *reader.Store // nil where every segment is named by its path
	all     []*reader.Segment
	whole   bool // all is everything, what has a shadow too
	refused []reader.Refusal
	loose   []*reader.Segment
}

// look opens the store and polls it once. Looking takes any owner's store: nothing
// that a store holds can hurt a reader, and root looks into other people's.
func look(c *cli.Context) (*view, error) { return open(c, true) }

func open(c *cli.Context, anyOwner bool) (*view, error) {
	v := &view{dir: reader.Dir(c.String("store")), whole: !anyOwner}
	if st, err := os.Stat(v.dir); err != nil {
		return nil, fmt.Errorf("shmts: store: %w", err)
	} else if !st.IsDir() {
		return nil, fmt.Errorf("shmts: store: want a directory, got %s (%v)", v.dir, st.Mode().Type())
	}
	store, err := reader.Open(reader.Options{Dir: v.dir, AnyOwner: anyOwner})
	if err != nil {
		return nil, err
	}
	v.store = store
	if err := v.poll(); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

func (v *view) poll() error {
	events, err := v.store.Poll()
	if err != nil {
		return err
	}
	v.refused = append(v.refused, events.Refused...)
	v.all = slices.Clone(v.store.Segments())
	if !v.whole {
		v.all = shown(v.all)
	}
	return nil
}

// shown leaves out the segments that never tick and have a shadow: it says all that they do, and has rows. FORMAT.md 10.8.
func shown(all []*reader.Segment) []*reader.Segment {
	shadows := map[string]bool{}
	for _, g := range all {
		if g.Shadow() {
			shadows[g.ID()] = true
		}
	}
	return slices.DeleteFunc(all, func(g *reader.Segment) bool { return !g.Shadow() && shadows[g.ID()] })
}

func (v *view) Close() {
	for _, g := range v.loose {
		g.Close()
	}
	if v.store != nil {
		v.store.Close()
	}
}

// lookAt finds the segments that words name: paths, first digits of an id, job, job/instance. No words mean
// all. A word that names none is an error. Close the view when done with them.
func lookAt(c *cli.Context, words []string) (*view, []*reader.Segment, error) {
	v := &view{}
	var found []*reader.Segment
	for _, word := range words {
		if !isPath(word) {
			continue
		}
		g, err := reader.OpenSegment(word)
		if err == nil {
			err = g.Refresh()
		}
		if err != nil {
			v.Close()
			return nil, nil, err
		}
		v.loose = append(v.loose, g)
		found = append(found, g)
	}
	if len(words) > 0 && len(found) == len(words) {
		return v, found, nil
	}
	in, err := look(c)
	if err != nil {
		v.Close()
		return nil, nil, err
	}
	in.loose = v.loose
	if len(words) == 0 {
		return in, in.all, nil
	}
	for _, word := range words {
		if isPath(word) {
			continue
		}
		m := matches(in.all, word)
		if len(m) == 0 {
			in.Close()
			return nil, nil, in.none(word)
		}
		for _, g := range m {
			if !slices.Contains(found, g) {
				found = append(found, g)
			}
		}
	}
	return in, found, nil
}

// none says that a word names no segment, and why if its file was refused.
func (v *view) none(word string) error {
	for _, r := range v.refused {
		if id := idOf(r.Path); id != "" && isIDPrefix(word) && strings.HasPrefix(id, word) {
			return fmt.Errorf("shmts: segment %s is refused: %w", word, r.Err)
		}
	}
	return fmt.Errorf("shmts: no segment %q in %s: want a path, the first digits of an id, a job or job/instance; shmctl ls lists them", word, v.dir)
}

// isPath tells a path from a job/instance: it is there, or it can be nothing else.
func isPath(word string) bool {
	if strings.HasPrefix(word, "/") || strings.HasPrefix(word, "./") || strings.HasPrefix(word, "../") || strings.HasSuffix(word, ".shmts") {
		return true
	}
	st, err := os.Lstat(word)
	return err == nil && strings.Contains(word, "/") && !st.IsDir()
}

func isIDPrefix(word string) bool {
	if len(word) < 2 || len(word) > 32 {
		return false
	}
	return strings.Trim(word, "0123456789abcdef") == ""
}

// idOf takes the id out of a segment's file name. FORMAT.md 2.
func idOf(path string) string {
	name, ok := strings.CutSuffix(filepath.Base(path), ".shmts")
	if !ok || len(name) < 33 || name[len(name)-33] != '.' {
		return ""
	}
	id := name[len(name)-32:]
	if _, err := hex.DecodeString(id); err != nil {
		return ""
	}
	return id
}

// matches answers the segments that a word names. A job or job/instance of that very name comes
// before the first digits of an id.
func matches(all []*reader.Segment, word string) []*reader.Segment {
	for _, is := range []func(*reader.Segment) bool{
		func(g *reader.Segment) bool { return g.Job()+"/"+g.Instance() == word },
		func(g *reader.Segment) bool { return g.Job() == word },
		func(g *reader.Segment) bool { return isIDPrefix(word) && strings.HasPrefix(g.ID(), word) },
	} {
		var m []*reader.Segment
		for _, g := range all {
			if is(g) {
				m = append(m, g)
			}
		}
		if len(m) > 0 {
			return m
		}
	}
	return nil
}

// newest leaves of each source its newest incarnation: all the segments that one process
// grew, and only those.
func newest(list []*reader.Segment) []*reader.Segment {
	type source struct {
		uid           int
		job, instance string
	}
	of := func(g *reader.Segment) source { return source{g.UID(), g.Job(), g.Instance()} }
	best := map[source]*reader.Segment{}
	for _, g := range list {
		b, ok := best[of(g)]
		if !ok || cmp.Or(cmp.Compare(btoi(b.Liveness().Ended()), btoi(g.Liveness().Ended())), cmp.Compare(g.Start(), b.Start())) > 0 {
			best[of(g)] = g
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(g *reader.Segment) bool { return best[of(g)].Group() != g.Group() })
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// oneIncarnation is for verbs that read one source: the segments of its newest incarnation.
func oneIncarnation(list []*reader.Segment, word string) ([]*reader.Segment, error) {
	list = newest(list)
	for _, g := range list[1:] {
		if g.Group() != list[0].Group() {
			return nil, fmt.Errorf("shmts: %q: want one source, got %s/%s (%.8s) and %s/%s (%.8s)%s", word,
				list[0].Job(), list[0].Instance(), list[0].ID(), g.Job(), g.Instance(), g.ID(), andMore(len(list)-2))
		}
	}
	return list, nil
}

func andMore(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// findPath is for verbs that read bytes, of files that the store may well refuse: a path, or the
// first digits of the id in a file's name, or what lookAt knows.
func findPath(c *cli.Context, word string) (string, error) {
	if isPath(word) {
		return word, nil
	}
	v, list, err := lookAt(c, []string{word})
	if err != nil {
		files, _ := filepath.Glob(filepath.Join(escapeGlob(reader.Dir(c.String("store"))), "*", "*.shmts"))
		var found []string
		for _, f := range files {
			if isIDPrefix(word) && strings.HasPrefix(idOf(f), word) {
				found = append(found, f)
			}
		}
		switch len(found) {
		case 0:
			return "", err
		case 1:
			return found[0], nil
		}
		return "", errors.New("shmts: " + word + ": want one segment, got " + strings.Join(found, " and "))
	}
	defer v.Close()
	if list = newest(list); len(list) > 1 {
		return "", fmt.Errorf("shmts: %q: want one segment, got %.8s and %.8s%s", word, list[0].ID(), list[1].ID(), andMore(len(list)-2))
	}
	return list[0].Path(), nil
}

// byPath answers the store's segment of that path.
func (v *view) byPath(path string) []*reader.Segment {
	want, err := os.Stat(path)
	if err != nil {
		return nil
	}
	for _, g := range v.all {
		if st, err := os.Stat(g.Path()); err == nil && os.SameFile(st, want) {
			return []*reader.Segment{g}
		}
	}
	return nil
}
