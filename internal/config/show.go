package config

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v2"
)

// secret stands where a setting may hold one.
const secret = "<secret>"

// Settings are what holds, by the names of the flags, as it was said or by default: all that there are, and no secrets.
func (c *Config) Settings() map[string]string {
	out := make(map[string]string, len(c.said))
	for name, v := range c.said {
		switch name {
		case "otlp.headers":
			if v != "" {
				v = secret
			}
		case "otlp.endpoint":
			if u, err := url.Parse(v); err == nil {
				v = u.Redacted()
			} else {
				v = secret
			}
		}
		out[name] = v
	}
	return out
}

// YAML is the same as a file that could be given to --config, but for its secrets.
func (c *Config) YAML() string {
	settings := c.Settings()
	names := make([]string, 0, len(settings))
	for name, v := range settings {
		if v != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		fmt.Fprintf(&b, "%s: %s\n", name, strconv.Quote(settings[name])) // a string of Go's is one of YAML's, but for what no setting holds
	}
	if len(c.structures) > 0 {
		if text, err := yaml.Marshal(c.structures); err == nil {
			b.Write(text)
		}
	}
	return b.String()
}

// Differs lists the settings that another Config says otherwise, but for those that can be changed while shmtsd runs.
func (c *Config) Differs(o *Config) (names []string) {
	for name, v := range c.said {
		if o.said[name] != v {
			names = append(names, name)
		}
	}
	structures := map[string][2]any{}
	for i, list := range [2]yaml.MapSlice{c.structures, o.structures} {
		for _, item := range list {
			both := structures[fmt.Sprint(item.Key)]
			both[i] = item.Value
			structures[fmt.Sprint(item.Key)] = both
		}
	}
	for name, both := range structures {
		if name != metricRelabel && !reflect.DeepEqual(both[0], both[1]) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
