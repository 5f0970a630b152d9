package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

func manVerb() *verb {
	return &verb{
		Command: &cli.Command{
			Name: "man", Usage: "print the manual page",
			Description: "It is made of the verbs themselves, in man(7)'s macros.",
			Action:      func(c *cli.Context) error { return printMan(c.App.Writer) },
		},
		examples: []string{"shmctl man | man -l -"},
	}
}

// roff makes text safe: a backslash, a dot or quote at the beginning of a line, and
// dashes, which are to be dashes one can copy.
func roff(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	return roffStart(s)
}

// roffStart keeps what begins a line from being a request.
func roffStart(s string) string {
	if strings.HasPrefix(s, ".") {
		return `\&` + s
	}
	return s
}

// manDate is when the page last changed in substance, as man(7) wants one.
const manDate = "2026-11-21"

// fill breaks text into lines of at most 78 bytes once it is roff: what is filled anyway may be broken
// anywhere, and a line is to be read in a diff.
func fill(text string) string {
	var b strings.Builder
	at := 0
	for _, word := range strings.Fields(text) {
		word = roff(word)
		switch {
		case at == 0:
		case at+1+len(word) > 78:
			b.WriteString("\n")
			at = 0
			word = roffStart(word)
		default:
			b.WriteString(" ")
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	return b.String()
}

// paragraphs writes text: a blank line begins a paragraph, four blanks what stays as it is.
func paragraphs(b *strings.Builder, text string) {
	var plain []string
	verbatim := false
	end := func() {
		if len(plain) > 0 {
			b.WriteString(".PP\n" + fill(strings.Join(plain, " ")) + "\n")
			plain = nil
		}
		if verbatim {
			b.WriteString(".RE\n.fi\n")
			verbatim = false
		}
	}
	for _, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		code, isCode := strings.CutPrefix(line, "    ")
		switch {
		case line == "" && verbatim: // the next line decides
		case line == "":
			end()
		case isCode:
			if !verbatim {
				end()
				b.WriteString(".PP\n.nf\n.RS 4\n")
				verbatim = true
			}
			b.WriteString(roff(code) + "\n")
		default:
			if verbatim {
				end()
			}
			plain = append(plain, line)
		}
	}
	end()
}

func printMan(w io.Writer) error {
	all := verbs()
	app := newApp(all)
	var b strings.Builder
	fmt.Fprintf(&b, ".TH SHMCTL 1 %s \"shmts %s\" \"User Commands\"\n", manDate, roff(version))
	fmt.Fprintf(&b, ".SH NAME\nshmctl \\- %s\n.SH SYNOPSIS\n", roff(app.Usage))
	first := true
	for _, v := range all {
		if v.Hidden {
			continue
		}
		if !first {
			b.WriteString(".br\n")
		}
		first = false
		fmt.Fprintf(&b, ".B shmctl %s\n", roff(v.words()))
		if rest := strings.TrimPrefix(v.synopsis(), "shmctl "+v.words()); rest != "" {
			b.WriteString(roff(strings.TrimSpace(rest)) + "\n")
		}
	}
	b.WriteString(".SH DESCRIPTION\n")
	b.WriteString(fill(app.Description) + "\n")
	paragraphs(&b, strings.ReplaceAll(commonText, "`", ""))
	b.WriteString(".SH VERBS\n")
	for _, v := range all {
		if !v.Hidden {
			v.man(&b)
		}
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, e := range commonExits {
		n, about, _ := strings.Cut(e, " ")
		fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", n, fill(about))
	}
	b.WriteString(".SH ENVIRONMENT\n" +
		".TP\n.B SHMTS_DIR\nThe store, where \\-\\-store does not say it.\n" +
		".TP\n.B SHMTS_URL\nWhere query finds the daemon, where \\-\\-url does not say it.\n" +
		".SH FILES\n.TP\n.I /dev/shm/shmts\nThe store, where nothing else is said.\n" +
		".SH SEE ALSO\n.BR shmtsd (1)\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (v *verb) man(b *strings.Builder) {
	fmt.Fprintf(b, ".SS %s\n%s.\n", roff(v.synopsis()), roff(upperFirst(v.Usage)))
	if v.Description != "" {
		paragraphs(b, v.Description)
	}
	for _, d := range flagDocs(v) {
		fmt.Fprintf(b, ".TP\n.B %s\n", roff(strings.TrimSpace(d.names+" "+d.value)))
		text := upperFirst(d.usage) + "."
		if d.def != "" {
			text += " Default: " + d.def + "."
		}
		if d.env != "" {
			text += " Environment: " + d.env + "."
		}
		b.WriteString(fill(text) + "\n")
	}
	if len(v.exits) > 0 {
		b.WriteString(".PP\nExit status:\n")
		for _, e := range v.exits {
			n, about, _ := strings.Cut(e, " ")
			fmt.Fprintf(b, ".TP\n.B %s\n%s\n", n, fill(about))
		}
	}
	if len(v.examples) > 0 {
		b.WriteString(".PP\n.nf\n.RS 4\n")
		for _, e := range v.examples {
			b.WriteString(roff(e) + "\n")
		}
		b.WriteString(".RE\n.fi\n")
	}
}
