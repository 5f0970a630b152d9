package config

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// thing is what a structure may be: a list, with maps and lists in it.
type thing struct {
	Name    string
	Every   time.Duration     `yaml:"every,omitempty"`
	Bytes   Size              `yaml:"bytes"`
	Headers map[string]string `yaml:"headers"`
	Auth    *struct {
		Username string
		Password string
	} `yaml:"basic_auth"`
	Deep []other `yaml:"deep"`
	common
}

type other struct {
	URL    string `yaml:"url"`
	Hidden int    `yaml:"-"`
	Common common `yaml:",inline"`
}

type common struct {
	Token string `yaml:"bearer_token"`
}

func things(to *[]thing) []structure {
	return []structure{{name: "things", what: "[...]", help: "some", set: func(b block) error {
		if err := b.decode(to); err != nil {
			return err
		}
		if len(*to) == 0 {
			return errors.New("want a thing, got none")
		}
		return nil
	}}}
}

func TestStructure(t *testing.T) {
	var got []thing
	all := map[string]*setting{"log.level": {set: func(string) error { return nil }}}
	shown, err := fromFile(file(t, `
log: {level: info}
things:
  - name: a
    every: 1m30s
    bytes: 64MiB
    headers: {x-key: hush, y: hush}
    basic_auth: {username: me, password: hush}
    deep: [{url: "http://me:hush@h:1/x", bearer_token: hush}]
  - {name: b, bytes: 4096}
`), all, things(&got))
	if err != nil {
		t.Fatal(err)
	}
	want := []thing{
		{Name: "a", Every: 90 * time.Second, Bytes: 64 << 20, Headers: map[string]string{"x-key": "hush", "y": "hush"},
			Deep: []other{{URL: "http://me:hush@h:1/x", Common: common{"hush"}}}},
		{Name: "b", Bytes: 4096},
	}
	if auth := got[0].Auth; auth == nil || auth.Username != "me" || auth.Password != "hush" {
		t.Errorf("basic_auth: got %+v", auth)
	}
	got[0].Auth = nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("want %+v, got %+v", want, got)
	}
	text := (&Config{structures: shown}).YAML()
	if strings.Contains(text, "hush") || !strings.Contains(text, "http://me:xxxxx@h:1/x") || !strings.Contains(text, "x-key: <secret>") {
		t.Errorf("want all but the secrets shown, got\n%s", text)
	}
	if again, err := fromFile(file(t, text), all, things(&got)); err != nil || !reflect.DeepEqual(again, shown) {
		t.Errorf("read back: want %v, got %v, %v", shown, again, err)
	}
}

// An error says which file, which structure, which line, what was wanted and what was got.
func TestStructureErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		parts      []string
	}{
		{"unknown key", "things:\n  - name: a\n    evry: 1s\n", []string{"things: line 3: want one of", "basic_auth, bytes, deep, every, headers, name", `got "evry"`}},
		{"unknown key inside", "things: [{deep: [{uri: x}]}]\n", []string{`want one of bearer_token, url, got "uri"`}},
		{"unknown key of one without a name", "things: [{basic_auth: {user: x}}]\n", []string{`want one of password, username, got "user"`}},
		{"key twice", "things: [{name: a, name: b}]\n", []string{"things: line 1: ", "already set"}},
		{"structure twice", "things: [{name: a}]\nthings: [{name: b}]\n", []string{`"things" already set`}},
		{"unknown structure", "thing: []\n", []string{"want one of log.level, things", `"thing"`}},
		{"another shape", "things: {a: b}\n", []string{"things: ", "cannot unmarshal"}},
		{"size", "things: [{bytes: 3MB}]\n", []string{"things: ", "want a size of 1 to", `"3MB"`}},
		{"its own", "things: []\n", []string{"things: want a thing, got none"}},
		{"a setting beside it", "things: [{name: a}]\nlog: {level: loud}\n", []string{"log.level", "no"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []thing
			all := map[string]*setting{"log.level": {set: func(string) error { return errors.New("no") }}}
			path := file(t, c.text)
			_, err := fromFile(path, all, things(&got))
			if err == nil {
				t.Fatal("want an error, got none")
			}
			for _, p := range append(slices.Clone(c.parts), "shmts: ", path) {
				if !strings.Contains(err.Error(), p) {
					t.Errorf("want %q in it, got: %v", p, err)
				}
			}
		})
	}
}
