package main

import (
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange puts flags where the flag package looks for them: behind the verb and
// before its arguments. People write them anywhere, and `write updown NAME -5` means a
// number. From "--" on everything is an argument.
func arrange(all []*verb, args []string) []string {
	if len(args) < 2 {
		return args
	}
	rest := args[1:]
	var flags, words []string
	root := &cli.Command{Flags: []cli.Flag{storeFlag()}}
	var v *cli.Command
	var verb []string // its words
	for len(rest) > 0 {
		at := v
		if at == nil {
			at = root
		}
		word := rest[0]
		switch {
		case word == "--":
			words = append(words, rest[1:]...)
			rest = nil
			continue
		case !isFlag(word):
			if v == nil {
				if _, group := groups[word]; group && len(rest) > 1 {
					verb, rest = append(verb, word), rest[1:]
				}
				if v = findVerb(all, strings.Join(verb, " "), rest[0]); v == nil {
					return args // not a verb: the app says so
				}
				verb = append(verb, v.Name)
				if v.SkipFlagParsing {
					return args
				}
			} else {
				words = append(words, word)
			}
			rest = rest[1:]
			continue
		}
		n := 1
		if takesValue(at, word) && len(rest) > 1 {
			n = 2
		}
		flags = append(flags, rest[:n]...)
		rest = rest[n:]
	}
	if v == nil {
		return args
	}
	out := append(append([]string{args[0]}, verb...), flags...)
	if len(words) > 0 {
		out = append(append(out, "--"), words...)
	}
	return out
}

// isFlag tells a flag from a word: "-" is standard input, "-5" and "-Inf" are numbers.
func isFlag(word string) bool {
	if len(word) < 2 || word[0] != '-' {
		return false
	}
	_, err := strconv.ParseFloat(word, 64)
	return err != nil
}

// findVerb is the verb of that name, behind the word of a group or none.
func findVerb(all []*verb, under, name string) *cli.Command {
	for _, v := range all {
		if v.under == under && v.HasName(name) {
			return v.Command
		}
	}
	return nil
}

// takesValue tells whether the flag wants the word after it.
func takesValue(c *cli.Command, word string) bool {
	name := strings.TrimLeft(word, "-")
	if strings.Contains(name, "=") {
		return false
	}
	f := findFlag(c, name)
	if f == nil {
		return false
	}
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}

func findFlag(c *cli.Command, name string) cli.Flag {
	for _, f := range c.Flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}
