package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/shmts/shmts/reader"
)

// The scripts ask shmctl itself, so that they never know less than it does.
var completionScripts = map[string]string{
	"bash": `# bash completion for shmctl: source it, or put it into bash-completion's directory as shmctl.
_shmctl() {
    mapfile -t COMPREPLY < <("$1" __complete bash "$COMP_WORDBREAKS" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -o default -F _shmctl shmctl
`,
	"zsh": `#compdef shmctl
# zsh completion for shmctl: put it into a directory of $fpath as _shmctl, or source it after compinit.
_shmctl() {
    local -a found
    found=("${(@f)$("${words[1]}" __complete zsh "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        _describe -V shmctl found
    else
        _files
    fi
}
if [[ "${funcstack[1]}" = _shmctl ]]; then
    _shmctl "$@"
else
    compdef _shmctl shmctl
fi
`,
	"fish": `# fish completion for shmctl: source it, or put it into a completions directory as shmctl.fish.
function __shmctl_complete
    set -l before (commandline -opc)
    set -l current (commandline -ct)
    set -l program $before[1]
    set -e before[1]
    set -l found ($program __complete fish $before "$current" 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\n' $found
    else
        __fish_complete_path "$current"
    end
end
complete -c shmctl -f -a '(__shmctl_complete)'
`,
}

func completionVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name:        "completion",
			Usage:       "print a shell's completion script",
			ArgsUsage:   "bash | zsh | fish",
			Description: "It completes verbs, flags, and what the store holds: ids, jobs, instances, and the names of a segment's series.",
			Action: func(c *cli.Context) error {
				script, ok := completionScripts[c.Args().First()]
				if !ok || c.NArg() != 1 {
					return usagef(c, "want bash, zsh or fish, got %q", strings.Join(c.Args().Slice(), " "))
				}
				_, err := fmt.Fprint(c.App.Writer, script)
				return err
			},
		},
		examples: []string{
			"source <(shmctl completion bash)",
			"shmctl completion fish > ~/.config/fish/completions/shmctl.fish",
		},
		complete: func(*completion) []candidate { return words("bash", "zsh", "fish") },
	}
}

// completeVerb is what the scripts call: for bash the word breaks and the line up to the
// cursor, for the others the words behind the program's name, the last of them unfinished.
func completeVerb() *verb {
	return &verb{Command: &cli.Command{
		Name: "__complete", Hidden: true, HideHelp: true, SkipFlagParsing: true,
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) < 2 {
				return usagef(c, "want a shell and words, got %d arguments", len(args))
			}
			shell, list, breaks := args[0], args[1:], ""
			if shell == "bash" {
				if len(args) != 3 {
					return usagef(c, "want bash, its word breaks and a line, got %d arguments", len(args))
				}
				breaks = args[1]
				if list = splitLine(args[2]); len(list) > 0 {
					list = list[1:] // the program's name
				}
				if len(list) == 0 {
					return nil
				}
			}
			current := list[len(list)-1]
			found := complete(c, list[:len(list)-1], current)
			for _, f := range found {
				fmt.Fprintln(c.App.Writer, f.line(shell, current, breaks))
			}
			return nil
		},
	}}
}

// A candidate is a word that could stand at the cursor.
type candidate struct{ word, about string }

func words(list ...string) (found []candidate) {
	for _, w := range list {
		found = append(found, candidate{word: w})
	}
	return found
}

// line is the candidate as a shell's script wants it.
func (f candidate) line(shell, current, breaks string) string {
	about := oneLine(f.about)
	switch {
	case shell == "fish" && about != "":
		return f.word + "\t" + about
	case shell == "zsh":
		line := strings.NewReplacer(`\`, `\\`, ":", `\:`).Replace(f.word)
		if about != "" {
			line += ":" + about
		}
		return line
	case shell == "bash":
		// Bash replaces only what stands behind the last word break.
		if at := strings.LastIndexAny(current, breaks); at >= 0 {
			return f.word[at+1:]
		}
	}
	return f.word
}

// A completion is a command line that is being written.
type completion struct {
	c     *cli.Context
	words []string // the verb's arguments so far
	flag  string   // whose value is being written; empty: an argument is
	store string   // --store, if given
}

// complete answers what could stand where current stands.
func complete(c *cli.Context, before []string, current string) []candidate {
	all := verbs()
	var v *verb
	done := &completion{c: c}
	given := ""
	if name, value, ok := strings.Cut(current, "="); ok && strings.HasPrefix(name, "--") {
		given, before, current = name+"=", append(slices.Clone(before), name), value
	}
	root := &cli.Command{Flags: []cli.Flag{storeFlag(), cli.HelpFlag, cli.VersionFlag}}
	onlyWords, group := false, ""
	for i := 0; i < len(before); i++ {
		word := before[i]
		at := root
		if v != nil {
			at = v.Command
		}
		switch {
		case word == "--":
			onlyWords = true
		case onlyWords || !isFlag(word):
			if v != nil {
				done.words = append(done.words, word)
				break
			}
			if _, is := groups[word]; is && group == "" {
				group = word
				break
			}
			for _, other := range all {
				if other.under == group && other.HasName(word) {
					v = other
				}
			}
			if v == nil {
				return nil
			}
		case takesValue(at, word):
			name := strings.TrimLeft(word, "-")
			if i+1 == len(before) {
				done.flag = name
				break
			}
			i++
			if name == "store" {
				done.store = before[i]
			}
		case strings.HasPrefix(word, "--store="):
			done.store = strings.TrimPrefix(word, "--store=")
		}
	}
	var found []candidate
	switch {
	case done.flag == "" && !onlyWords && strings.HasPrefix(current, "-"):
		flags := root.Flags
		if v != nil {
			flags = append(slices.Clone(v.Flags), cli.HelpFlag)
		}
		found = flagCandidates(flags, before)
		if v != nil && v.complete != nil {
			found = append(found, done.of(v)...) // - is a word
		}
	case v == nil && done.flag == "":
		for _, other := range all {
			if !other.Hidden && other.under == group {
				found = append(found, candidate{other.Name, other.Usage})
			}
		}
		for name, usage := range groups {
			if group == "" {
				found = append(found, candidate{name, usage})
			}
		}
	case v != nil && v.complete != nil:
		if f := findFlag(v.Command, done.flag); done.flag != "" && f != nil {
			done.flag = f.Names()[0] // not its short name
		}
		found = done.of(v)
	}
	// What goes into a command line must be one word of it, whoever chose the name.
	found = slices.DeleteFunc(found, func(f candidate) bool {
		return !strings.HasPrefix(f.word, current) || strings.IndexFunc(f.word, unsafeInShell) >= 0
	})
	for i := range found {
		found[i].word = given + found[i].word
	}
	return found
}

// of asks the verb. A flag's value, where the verb knows none, is a file: the shell's business.
func (c *completion) of(v *verb) []candidate {
	found := v.complete(c)
	if c.flag == "" {
		return found
	}
	// Verbs answer segments for every flag that they don't know.
	if f, ok := findFlag(v.Command, c.flag).(*cli.StringFlag); ok && f.TakesFile {
		return nil
	}
	return slices.DeleteFunc(found, func(f candidate) bool { return f.segment() })
}

func unsafeInShell(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_./:@%+=,-", r))
}

func flagCandidates(flags []cli.Flag, before []string) (found []candidate) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok {
			continue
		}
		_, repeats := f.(*cli.StringSliceFlag)
		name := f.Names()[0]
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		if repeats || !slices.Contains(before, dashes+name) {
			found = append(found, candidate{dashes + name, strings.ReplaceAll(d.GetUsage(), "`", "")})
		}
	}
	return found
}

const aboutSegment = "segment of "

func (f candidate) segment() bool { return strings.HasPrefix(f.about, aboutSegment) }

// look is the store, or nil: completion never complains.
func (c *completion) look() *view {
	store, err := reader.Open(reader.Options{Dir: reader.Dir(c.store), AnyOwner: true})
	if err != nil {
		return nil
	}
	v := &view{dir: reader.Dir(c.store), store: store}
	if v.poll() != nil {
		v.Close()
		return nil
	}
	return v
}

// segments are job/instance and, where one names several or can't be written, ids.
func (c *completion) segments() []candidate {
	v := c.look()
	if v == nil {
		return nil
	}
	defer v.Close()
	var found []candidate
	for _, g := range v.all {
		name := g.Job() + "/" + g.Instance()
		about := fmt.Sprintf("%s%s, %s, %d series", aboutSegment, name, stateOf(g), liveSeries(g))
		found = append(found, candidate{name, about}, candidate{g.ID()[:8], about})
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.word, b.word) })
	return slices.CompactFunc(found, func(a, b candidate) bool { return a.word == b.word })
}

// series are the names in the segments that word names.
func (c *completion) series(word string) []candidate {
	var list []*reader.Segment
	if isPath(word) {
		g, err := reader.OpenSegment(word)
		if err != nil || g.Refresh() != nil {
			return nil
		}
		defer g.Close()
		list = []*reader.Segment{g}
	} else {
		v := c.look()
		if v == nil {
			return nil
		}
		defer v.Close()
		list = newest(matches(v.all, word))
	}
	var found []candidate
	for _, g := range list {
		for _, s := range g.Series() {
			found = append(found, candidate{s.Name, strings.TrimSpace(s.Kind.String() + " " + s.Help)})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return cmp.Compare(a.word, b.word) })
	return slices.CompactFunc(found, func(a, b candidate) bool { return a.word == b.word })
}

// splitLine cuts a line into words as a shell does, quotes and backslashes taken away. The last
// word is unfinished, and empty behind a blank.
func splitLine(line string) []string {
	var list []string
	var word strings.Builder
	in, quote, escaped := false, rune(0), false
	for _, r := range line {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			in, escaped = true, true
		case quote != 0:
			if r == quote {
				quote = 0
			} else {
				word.WriteRune(r)
			}
		case r == '\'' || r == '"':
			in, quote = true, r
		case r == ' ' || r == '\t' || r == '\n':
			if in {
				list = append(list, word.String())
				word.Reset()
				in = false
			}
		default:
			in = true
			word.WriteRune(r)
		}
	}
	return append(list, word.String())
}
