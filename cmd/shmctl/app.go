package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// Exit statuses. check gives them a meaning of its own.
const (
	exitDone   = 0
	exitFailed = 1 // no such segment, a file that is refused, a daemon that does not answer
	exitUsage  = 2 // the command line is wrong
)

// A verb is one command and what its reference says beyond the flags.
type verb struct {
	*cli.Command
	under    string   // the word before its name: archive
	examples []string // command lines, each with a comment behind " # "
	json     any      // a value of the type that --json prints; nil if the verb has no --json
	lines    bool     // --json prints one such value a line, not one for all
	also     []alsoJSON
	exits    []string // statuses that mean something else than everywhere, as "1 means"
	complete func(c *completion) []candidate
}

// alsoJSON is what --json prints with another flag.
type alsoJSON struct {
	flag string
	json any
}

// verbs in the order of the reference: what is there, what it holds, what to do about it.
func verbs() []*verb {
	return []*verb{
		lsVerb(), showVerb(), catVerb(), topVerb(), queryVerb(), statusVerb(),
		planVerb(), checkVerb(), dumpVerb(), writeVerb(), rmVerb(),
		archiveLsVerb(), archiveCatVerb(), archiveCheckVerb(),
		completionVerb(), manVerb(), completeVerb(), referenceVerb(),
	}
}

// words are the verb, as it is typed.
func (v *verb) words() string { return strings.TrimPrefix(v.under+" "+v.Name, " ") }

// groups are the words that verbs stand behind, and what they are about.
var groups = map[string]string{"archive": "look into an archive: ls, cat, check"}

func newApp(all []*verb) *cli.App {
	app := &cli.App{
		Name:    "shmctl",
		Usage:   "look at shared-memory time series",
		Version: version,
		Description: "Segments are files in a store, one for each process that records. Every verb that takes SEGMENT\n" +
			"understands a path, the first digits of a segment's id, a job, or job/instance.",
		Flags:                     []cli.Flag{storeFlag()},
		DisableSliceFlagSeparator: true, // a label's value may hold commas
		HideHelpCommand:           true,
		OnUsageError:              usageError,
		ExitErrHandler:            func(*cli.Context, error) {}, // run does that
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef(c, "no verb %q%s", c.Args().First(), suggest(all, c.Args().First()))
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, v := range all {
		v.HideHelpCommand = true
		v.OnUsageError = usageError
		if v.under == "" {
			app.Commands = append(app.Commands, v.Command)
			continue
		}
		group := app.Command(v.under)
		if group == nil {
			group = newGroup(v.under)
			app.Commands = append(app.Commands, group)
		}
		group.Subcommands = append(group.Subcommands, v.Command)
	}
	return app
}

// newGroup is a command that does nothing but name those behind it.
func newGroup(name string) *cli.Command {
	return &cli.Command{
		Name: name, Usage: groups[name], HideHelpCommand: true, OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			var names []string
			for _, sub := range c.Command.Subcommands {
				names = append(names, sub.Name)
			}
			return usagef(c, "want %s, got %q", strings.Join(names, ", "), c.Args().First())
		},
	}
}

// run is main without the process: it answers the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	out := bufio.NewWriterSize(stdout, 1<<16)
	all := verbs()
	app := newApp(all)
	app.Reader, app.Writer, app.ErrWriter = stdin, out, stderr
	app.Metadata = map[string]any{"stdout": stdout} // top asks whether it is a terminal
	err := app.RunContext(ctx, arrange(all, args))
	if flushErr := out.Flush(); err == nil && flushErr != nil {
		err = fmt.Errorf("shmts: standard output: %w", flushErr)
	}
	if err == nil {
		return exitDone
	}
	status := exitFailed
	var coded cli.ExitCoder
	if errors.As(err, &coded) {
		status = coded.ExitCode()
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(stderr, clean(text))
	}
	return status
}

// usagef says what is wrong with the command line.
func usagef(c *cli.Context, format string, args ...any) error {
	name := c.App.Name
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	return cli.Exit(fmt.Sprintf("shmts: "+format+"; see %s --help", append(args, name)...), exitUsage)
}

func usageError(c *cli.Context, err error, _ bool) error { return usagef(c, "%s", err) }

// suggest names the verb that was probably meant.
func suggest(all []*verb, word string) string {
	for _, v := range all {
		if !v.Hidden && v.under == "" && word != "" && (strings.HasPrefix(v.Name, word) || strings.HasPrefix(word, v.Name)) {
			return fmt.Sprintf(" (did you mean %s?)", v.Name)
		}
	}
	if s := cli.SuggestCommand(newCommands(all), word); s != "" {
		return fmt.Sprintf(" (%s)", strings.ToLower(s[:1])+s[1:])
	}
	return ""
}

func newCommands(all []*verb) (list []*cli.Command) {
	for _, v := range all {
		if !v.Hidden && v.under == "" {
			list = append(list, v.Command)
		}
	}
	return list
}

func storeFlag() cli.Flag {
	return &cli.StringFlag{Name: "store", Usage: "look in this `DIR`", DefaultText: "$SHMTS_DIR, else /dev/shm/shmts", TakesFile: true}
}

func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "answer in JSON"}
}

// flush hands to the reader what was printed so far.
func flush(c *cli.Context) error {
	if b, ok := c.App.Writer.(*bufio.Writer); ok {
		if err := b.Flush(); err != nil {
			return fmt.Errorf("shmts: standard output: %w", err)
		}
	}
	return nil
}

// printJSON prints one value for people and programs: indented, HTML left alone.
func printJSON(c *cli.Context, v any) error {
	e := json.NewEncoder(c.App.Writer)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// printJSONLine prints one value on one line.
func printJSONLine(c *cli.Context, v any) error {
	e := json.NewEncoder(c.App.Writer)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// warn is for standard error: the answer goes on.
func warn(c *cli.Context, format string, args ...any) {
	fmt.Fprintln(c.App.ErrWriter, clean(fmt.Sprintf("shmts: "+format, args...)))
}
