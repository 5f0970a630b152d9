package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/reader"
	"github.com/urfave/cli/v2"
)

// What check --json prints: one for each file.
type checkJSON struct {
	Path   string        `json:"path"`
	OK     bool          `json:"ok"`
	Errors []problemJSON `json:"errors" doc:"in FORMAT.md's order"`
}

type problemJSON struct {
	Error   string `json:"error" doc:"the whole of it, for people"`
	Damage  bool   `json:"damage" doc:"false: the file could not be checked, or is of another version"`
	Section string `json:"section,omitempty" doc:"superblock, section table, table, tier, source, series, row, ..."`
	Index   *int   `json:"index,omitempty" doc:"which one of the section"`
	Want    string `json:"want,omitempty"`
	Got     string `json:"got,omitempty"`
}

const (
	exitDamaged   = 1
	exitUnchecked = 2
)

func checkVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:      "check",
			Usage:     "hold segments against every rule of FORMAT.md",
			ArgsUsage: "[SEGMENT...]",
			Description: "Reads everything in the segments (of the whole store, if none is named) and says what is wrong, both sides: want\n" +
				"and got. Sound files are named on standard output, faults on standard error.",
			Flags:  []cli.Flag{storeFlag(), jsonFlag(), &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing of sound files"}},
			Action: checkAction,
		},
		json: checkJSON{}, lines: true,
		exits:    []string{"0 every file is sound", "1 a file is damaged", "2 none is, but one could not be checked (or the command line is wrong)"},
		examples: []string{"shmctl check", "shmctl check ./image.shmts --json"},
		complete: func(c *completion) []candidate { return c.segments() },
	}
}

func checkAction(c *cli.Context) error {
	paths, err := checkPaths(c)
	if err != nil {
		return cli.Exit(err.Error(), exitUnchecked)
	}
	return checkAll(c, paths, reader.Check, problemOf)
}

// checkAll says of each path what check found, and which is damage, and answers the status of all.
func checkAll(c *cli.Context, paths []string, check func(string) []error, problem func(error) problemJSON) error {
	status := exitDone
	for _, path := range paths {
		result := checkJSON{Path: path, Errors: []problemJSON{}}
		for _, err := range check(path) {
			p := problem(err)
			result.Errors = append(result.Errors, p)
			switch {
			case p.Damage:
				status = exitDamaged
			case status == exitDone:
				status = exitUnchecked
			}
		}
		if err := printChecked(c, &result); err != nil {
			return err
		}
	}
	if status != exitDone {
		return cli.Exit("", status)
	}
	return nil
}

// printChecked says what was found.
func printChecked(c *cli.Context, result *checkJSON) error {
	result.OK = len(result.Errors) == 0
	switch {
	case c.Bool("json"):
		return printJSONLine(c, result)
	case result.OK && !c.Bool("quiet"):
		fmt.Fprintf(c.App.Writer, "%s: sound\n", oneLine(result.Path))
	}
	for _, p := range result.Errors {
		fmt.Fprintf(c.App.ErrWriter, "%s: %s\n", oneLine(result.Path), oneLine(p.Error))
	}
	return nil
}

// checkPaths are the files that the arguments name: without any, every file of the store that is
// called as a segment is, whatever a reader would say of it.
func checkPaths(c *cli.Context) ([]string, error) {
	if c.NArg() == 0 {
		dir := reader.Dir(c.String("store"))
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("shmts: store: %w", err)
		}
		files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*", "*.shmts"))
		return slices.DeleteFunc(files, func(f string) bool { return filepath.Base(f)[0] == '.' }), err
	}
	var paths []string
	for _, word := range c.Args().Slice() {
		if isPath(word) {
			paths = append(paths, word)
			continue
		}
		v, list, err := lookAt(c, []string{word})
		if err != nil {
			path, findErr := findPath(c, word) // a file that the store refuses
			if findErr != nil {
				return nil, err
			}
			paths = append(paths, path)
			continue
		}
		for _, g := range list {
			paths = append(paths, g.Path())
		}
		v.Close()
	}
	return paths, nil
}

// escapeGlob makes a directory's name stand for itself in a pattern.
func escapeGlob(dir string) string {
	var b []byte
	for i := range len(dir) {
		if slices.Contains([]byte(`*?[\`), dir[i]) {
			b = append(b, '\\')
		}
		b = append(b, dir[i])
	}
	return string(b)
}

func problemOf(err error) problemJSON {
	p := problemJSON{Error: err.Error()}
	var corrupt *layout.CorruptError
	var other *layout.VersionError
	switch {
	case errors.As(err, &corrupt):
		p.Damage, p.Section, p.Want, p.Got = true, corrupt.Section, corrupt.Want, corrupt.Got
		if corrupt.Index >= 0 {
			p.Index = &corrupt.Index
		}
	case errors.As(err, &other):
		p.Want, p.Got = other.Want, other.Got
	}
	return p
}
