package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v2"

	"github.com/shmts/shmts/internal/relabel"
)

// A structure is a part of the file that no flag could say: a list, or a tree. It is a key at the top of the file, defined once, in
// structures. Its set decodes what stands there, and checks it:
//
//	set: func(b block) error {
//		var list []Thing // with yaml tags; time.Duration and Size read what flags do
//		if err := b.decode(&list); err != nil {
//			return err
//		}
//		c.Things = list
//		return nil
//	}
//
// Load says where an error of set's was: it begins with what was wanted. What was said is shown again by YAML, without the secrets (see
// redacted). A structure of a package's own syntax may decode into that package's type.
type structure struct {
	name string
	what string // its shape, in the usage
	help string
	set  func(block) error
}

// metricRelabel is the one that may change while shmtsd runs.
const metricRelabel = "metric_relabel_configs"

// structures are all there are.
func structures(c *Config) []structure {
	all := []structure{
		tenants(&c.Tenants),
		{name: metricRelabel, what: "[RULE, ...]", help: "keep, drop, rename series and change their labels before anything sees them: Prometheus's relabel_config; read anew on SIGHUP",
			set: func(b block) error {
				c.MetricRelabel = &relabel.Rules{}
				return b.decode(c.MetricRelabel)
			}},
	}
	return append(all, exportStructures(c)...)
}

// block is what stands in the file behind a key.
type block struct{ unmarshal func(any) error }

// UnmarshalYAML keeps what is there for decode.
func (b *block) UnmarshalYAML(unmarshal func(any) error) error {
	b.unmarshal = unmarshal
	return nil
}

// decode makes to what is said, which has to fit: a key that to does not have, or the same key twice, is an error.
func (b block) decode(to any) error {
	err := b.unmarshal(to)
	var wrong *yaml.TypeError
	if errors.As(err, &wrong) {
		for i, e := range wrong.Errors {
			wrong.Errors[i] = unknownKey.ReplaceAllStringFunc(e, func(s string) string {
				m := unknownKey.FindStringSubmatch(s)
				if known := keysOf(reflect.TypeOf(to), m[2], 0); known != nil {
					return fmt.Sprintf("want one of %s, got %q", strings.Join(known, ", "), m[1])
				}
				return fmt.Sprintf("unknown key %q", m[1])
			})
		}
		return errors.New(strings.Join(wrong.Errors, "; "))
	}
	return err
}

// unknownKey is how the yaml package says it.
var unknownKey = regexp.MustCompile(`field (.+) not found in type (.+)`)

// keysOf finds the struct of a name inside a type, and lists its keys.
func keysOf(t reflect.Type, name string, depth int) (keys []string) {
	if depth > 16 {
		return nil
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
		return keysOf(t.Elem(), name, depth+1)
	case reflect.Struct:
	default:
		return nil
	}
	here := t.String() == name
	for f := range t.Fields() {
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		inline := strings.Contains(options, "inline")
		switch {
		case !here:
			if found := keysOf(f.Type, name, depth+1); found != nil {
				return found
			}
		case inline:
			keys = append(keys, keysOf(f.Type, f.Type.String(), depth+1)...)
		case f.IsExported() && key != "-":
			keys = append(keys, cmp.Or(key, strings.ToLower(f.Name)))
		}
	}
	slices.Sort(keys)
	return keys
}

// Size is a number of bytes in a structure: 64MiB, or 67108864. 0 is what is not said.
type Size int64

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(unmarshal func(any) error) error {
	var text string
	if err := unmarshal(&text); err != nil {
		return err
	}
	return size((*int64)(s), 1, mostBytes)(text)
}

// secretKeys are the keys of structures whose values are secrets, wherever they stand, and however deep what stands there is.
var secretKeys = []string{"password", "credentials", "bearer_token", "client_secret", "headers"}

// addressKeys have URLs, in which a password may be.
var addressKeys = []string{"url", "endpoint", "proxy_url"}

// redacted is a YAML value without its secrets.
func redacted(v any) any {
	switch v := v.(type) {
	case yaml.MapSlice:
		out := make(yaml.MapSlice, len(v))
		for i, item := range v {
			key := fmt.Sprint(item.Key)
			out[i] = item
			switch text, plain := item.Value.(string); {
			case slices.Contains(secretKeys, key):
				out[i].Value = hidden(item.Value)
			case plain && slices.Contains(addressKeys, key):
				if u, err := url.Parse(text); err == nil {
					out[i].Value = u.Redacted()
				} else {
					out[i].Value = secret
				}
			default:
				out[i].Value = redacted(item.Value)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = redacted(e)
		}
		return out
	}
	return v
}

// hidden keeps of a value which keys there are.
func hidden(v any) any {
	switch v := v.(type) {
	case yaml.MapSlice:
		out := make(yaml.MapSlice, len(v))
		for i, item := range v {
			out[i] = yaml.MapItem{Key: item.Key, Value: hidden(item.Value)}
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, e := range v {
			out[i] = hidden(e)
		}
		return out
	case nil:
		return nil
	}
	return secret
}
