package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/urfave/cli/v2"
)

// referenceVerb prints docs/shmctl.md. A test holds the file against it.
func referenceVerb() *verb {
	return &verb{Command: &cli.Command{
		Name: "__reference", Hidden: true, HideHelp: true,
		Usage:  "print the reference in Markdown",
		Action: func(c *cli.Context) error { return printReference(c.App.Writer) },
	}}
}

//go:generate sh -c "go run . __reference > ../../docs/shmctl.md"

// A flagDoc is one flag for the reference and the man page.
type flagDoc struct {
	names string // --follow, -f
	value string // placeholder, empty for a switch
	usage string
	def   string // default, empty for none
	env   string
}

// flagDocs are a verb's flags, as they stand in its source.
func flagDocs(v *verb) (docs []flagDoc) {
	for _, f := range v.Flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok || f.Names()[0] == "help" {
			continue
		}
		doc := flagDoc{env: strings.Join(d.GetEnvVars(), ", ")}
		var names []string
		for _, n := range f.Names() {
			if len(n) == 1 {
				names = append(names, "-"+n)
			} else {
				names = append(names, "--"+n)
			}
		}
		doc.names = strings.Join(names, ", ")
		doc.value, doc.usage = cutPlaceholder(d.GetUsage())
		if !d.TakesValue() {
			doc.value = ""
		}
		doc.def = defaultText(f)
		docs = append(docs, doc)
	}
	return docs
}

// cutPlaceholder takes the word between backquotes: the name of the flag's value.
func cutPlaceholder(usage string) (value, rest string) {
	before, after, ok := strings.Cut(usage, "`")
	value, after, closed := strings.Cut(after, "`")
	if !ok || !closed {
		return "", usage
	}
	return value, before + value + after
}

func defaultText(f cli.Flag) string {
	switch f := f.(type) {
	case *cli.StringFlag:
		if f.DefaultText != "" {
			return f.DefaultText
		}
		return f.Value
	case *cli.DurationFlag:
		if f.DefaultText != "" || f.Value == 0 {
			return f.DefaultText
		}
		return f.Value.String()
	case *cli.Float64Flag:
		if f.DefaultText != "" || f.Value == 0 {
			return f.DefaultText
		}
		return floatText(f.Value)
	case *cli.IntFlag:
		if f.DefaultText != "" || f.Value == 0 {
			return f.DefaultText
		}
		return fmt.Sprint(f.Value)
	}
	return ""
}

// A jsonDoc is one field of what --json prints.
type jsonDoc struct{ path, kind, about string }

// jsonDocs walks a struct as encoding/json does: embedded structs are flat.
func jsonDocs(t reflect.Type, prefix string) (docs []jsonDoc) {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			docs = append(docs, jsonDocs(f.Type, prefix)...)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			continue
		}
		kind, element := jsonKind(f.Type)
		d := jsonDoc{prefix + name, kind, f.Tag.Get("doc")}
		if strings.Contains(options, "omitempty") && !strings.Contains(d.about, "absent") && !strings.Contains(d.about, ":") {
			d.about = strings.TrimPrefix(d.about+"; absent if there is none", "; ")
		}
		docs = append(docs, d)
		if element != nil {
			dot := "."
			if f.Type.Kind() == reflect.Slice {
				dot = "[]."
			}
			docs = append(docs, jsonDocs(element, prefix+name+dot)...)
		}
	}
	return docs
}

// jsonKind is the JSON type, and of an object or a list of objects the struct that the object is made of.
func jsonKind(t reflect.Type) (kind string, element reflect.Type) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "string", nil
	case reflect.Bool:
		return "boolean", nil
	case reflect.Map:
		return "object", nil
	case reflect.Struct:
		return "object", t
	case reflect.Interface:
		return "any", nil
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Struct {
			return "list of objects", t.Elem()
		}
		if t.Elem().Kind() == reflect.Uint8 {
			return "any", nil // json.RawMessage
		}
		k, _ := jsonKind(t.Elem())
		return "list of " + k + "s", nil
	}
	return "number", nil
}

const commonText = `Standard output is the answer; everything else goes to standard error. Flags may stand anywhere behind the verb; what follows
` + "`--`" + ` is taken as arguments. Times are RFC 3339 in UTC. What ` + "`--json`" + ` prints may gain fields; those that are here keep their
names and meanings. Text from segments is made safe for terminals: what does not print is escaped.
`

var commonExits = []string{
	"0 it did what was asked",
	"1 it failed: no such segment, a file that is refused, a daemon that does not answer",
	"2 the command line is wrong",
}

func printReference(w io.Writer) error {
	all := verbs()
	app := newApp(all)
	var b strings.Builder
	b.WriteString("# shmctl\n\n<!-- Generated: go generate ./cmd/shmctl. A test compares. -->\n\n")
	fmt.Fprintf(&b, "%s. %s\n\n", upperFirst(app.Usage), strings.ReplaceAll(app.Description, "\n", " "))
	b.WriteString(commonText)
	b.WriteString("\n| exit status | |\n|--:|---|\n")
	for _, e := range commonExits {
		n, about, _ := strings.Cut(e, " ")
		fmt.Fprintf(&b, "| %s | %s |\n", n, about)
	}
	b.WriteString("\n")
	for _, v := range all {
		if !v.Hidden {
			fmt.Fprintf(&b, "- [%s](#%s): %s\n", v.words(), strings.ReplaceAll(v.words(), " ", "-"), v.Usage)
		}
	}
	for _, v := range all {
		if !v.Hidden {
			b.WriteString("\n")
			v.markdown(&b)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (v *verb) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "## %s\n\n    %s\n\n%s.", v.words(), v.synopsis(), upperFirst(v.Usage))
	if v.Description != "" {
		b.WriteString(" " + strings.TrimSpace(v.Description))
	}
	b.WriteString("\n")
	if docs := flagDocs(v); len(docs) > 0 {
		b.WriteString("\n| flag | default | |\n|---|---|---|\n")
		for _, d := range docs {
			names := "`" + strings.ReplaceAll(d.names, ", ", "`, `")
			if d.value != "" {
				names += " " + d.value
			}
			names += "`"
			def := d.def
			if d.env != "" {
				def = strings.TrimPrefix(def+", `$"+d.env+"`", ", ")
			}
			fmt.Fprintf(b, "| %s | %s | %s |\n", names, strings.ReplaceAll(def, "|", "\\|"), strings.ReplaceAll(d.usage, "|", "\\|"))
		}
	}
	if len(v.exits) > 0 {
		b.WriteString("\n| exit status | |\n|--:|---|\n")
		for _, e := range v.exits {
			n, about, _ := strings.Cut(e, " ")
			fmt.Fprintf(b, "| %s | %s |\n", n, about)
		}
	}
	if len(v.examples) > 0 {
		b.WriteString("\n```sh\n" + strings.Join(v.examples, "\n") + "\n```\n")
	}
	if v.json != nil {
		what := "one object"
		if v.lines {
			what = "an object a line"
		}
		for _, j := range append([]alsoJSON{{"", v.json}}, v.also...) {
			fmt.Fprintf(b, "\n`%s`: %s.\n\n| field | type | |\n|---|---|---|\n", strings.TrimPrefix(j.flag+" --json", " "), what)
			for _, d := range jsonDocs(reflect.TypeOf(j.json), "") {
				fmt.Fprintf(b, "| `%s` | %s | %s |\n", d.path, d.kind, d.about)
			}
		}
	}
}

// synopsis is how the verb is called.
func (v *verb) synopsis() string {
	s := "shmctl " + v.words()
	if len(v.Flags) > 0 {
		s += " [flags]"
	}
	if v.ArgsUsage != "" {
		s += " " + v.ArgsUsage
	}
	return s
}
