package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/internal/archive"
)

func archiveCheckVerb() *verb {
	return &verb{
		under: "archive",
		Command: &cli.Command{
			Name:      "check",
			Usage:     "hold archives against every rule of FORMAT.md",
			ArgsUsage: "DIR...",
			Description: "Reads everything in the archives and says what is wrong: tier, extent, block, want and got. It may be asked while\n" +
				"shmtsd writes: what that explains is no fault. Sound archives are named on standard output, faults on standard error.",
			Flags:  []cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "say nothing of sound archives"}},
			Action: archiveCheckAction,
		},
		json: checkJSON{}, lines: true,
		exits:    []string{"0 every archive is sound", "1 an archive is damaged", "2 none is, but one could not be checked (or the command line is wrong)"},
		examples: []string{"shmctl archive check /var/lib/shmtsd/archive"},
		complete: archiveComplete,
	}
}

func archiveCheckAction(c *cli.Context) error {
	if !c.Args().Present() {
		return usagef(c, "want the DIR of an archive, got none")
	}
	return checkAll(c, c.Args().Slice(), checkArchive, archiveProblem)
}

func checkArchive(dir string) []error {
	files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.tier"))
	if err == nil {
		_, err = os.Stat(dir)
	}
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: want files named <step>.tier, got none: %w", dir, fs.ErrNotExist)
	}
	if err != nil {
		return []error{fmt.Errorf("shmts: archive: %w", err)}
	}
	return archive.Check(dir)
}

// archiveProblem tells what the system said from what is wrong with the bytes.
func archiveProblem(err error) problemJSON {
	var system *fs.PathError
	return problemJSON{Error: err.Error(), Damage: !errors.Is(err, fs.ErrNotExist) && !errors.As(err, &system)}
}
