// Package relabel holds Prometheus's relabel_config rules, with Prometheus's library, for the places of shmtsd that have some:
// metric_relabel_configs before everything, write_relabel_configs before a destination. Rules see a series as PromQL does:
// its final name in __name__, the source's labels (job, instance) and its own.
//
// Rules are for series, not for samples: who applies them keeps what they said for as long as the series' labels are the same. Reads
// and Writes say which labels an outcome hangs on, so that a thousand processes of one program can share one.
package relabel

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"
)

// Rules are a list of relabel_configs, in their order. Nil, and the zero value, keep everything as it is. They are not changed
// once they were read, and so safe for concurrent use.
type Rules struct {
	configs []*relabel.Config
}

// What becomes of a series that rules do not keep, where it is not a rule's number.
const (
	Kept = -1 - iota
	// Nameless series have no __name__ any more.
	Nameless
	// Invalid ones have a name or label that Prometheus does not admit, such as an empty one that labelmap made.
	Invalid
)

// maxRules bounds a list: each is a metric's label.
const maxRules = 1000

// Parse reads rules from YAML: a list, as it stands behind metric_relabel_configs in a file of Prometheus.
func Parse(text []byte) (*Rules, error) {
	r := &Rules{}
	if err := yaml.UnmarshalStrict(text, r); err != nil {
		return nil, fmt.Errorf("shmts: relabelling: %w", err)
	}
	return r, nil
}

// UnmarshalYAML implements yaml.Unmarshaler. An unknown key is an error whether the decoder is strict or not: a rule that is
// misspelled would keep what it is there to drop.
func (r *Rules) UnmarshalYAML(unmarshal func(any) error) error {
	var raw []yaml.MapSlice
	if err := unmarshal(&raw); err != nil {
		return fmt.Errorf("want a list of rules: %w", err)
	}
	if len(raw) > maxRules {
		return fmt.Errorf("want at most %d rules, got %d", maxRules, len(raw))
	}
	for i, rule := range raw {
		if len(rule) == 0 {
			return fmt.Errorf("rule %d: want an action or labels, got nothing", i+1)
		}
		for _, e := range rule {
			if name := fmt.Sprint(e.Key); !slices.Contains(keys, name) {
				return fmt.Errorf("rule %d: want one of %s, got %q", i+1, strings.Join(keys, ", "), name)
			}
		}
	}
	var configs []*config
	if err := unmarshal(&configs); err != nil {
		return err
	}
	r.configs = make([]*relabel.Config, len(configs))
	for i, c := range configs {
		if c.err != nil {
			return fmt.Errorf("rule %d: %w", i+1, c.err)
		}
		if err := c.Validate(model.UTF8Validation); err != nil {
			return fmt.Errorf("rule %d: %w", i+1, err)
		}
		r.configs[i] = &c.Config
	}
	return nil
}

// config keeps its own error, so that it can be said which rule it is of.
type config struct {
	relabel.Config
	err error
}

func (c *config) UnmarshalYAML(unmarshal func(any) error) error {
	c.err = c.Config.UnmarshalYAML(unmarshal)
	return nil
}

// keys are those that a rule may have.
var keys = func() (out []string) {
	t := reflect.TypeFor[relabel.Config]()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" && name != "-" {
			out = append(out, name)
		}
	}
	return out
}()

// MarshalYAML implements yaml.Marshaler: what Parse reads.
func (r *Rules) MarshalYAML() (any, error) {
	if r == nil {
		return []*relabel.Config{}, nil
	}
	return r.configs, nil
}

// Join is the rules of some lists, one after the other: what one drops the next don't see.
func Join(lists ...*Rules) *Rules {
	out := &Rules{}
	for _, r := range lists {
		if r != nil {
			out.configs = append(out.configs, r.configs...)
		}
	}
	return out
}

// Len is how many rules there are.
func (r *Rules) Len() int {
	if r == nil {
		return 0
	}
	return len(r.configs)
}

// Action is what rule i, from 0, does, in Prometheus's word.
func (r *Rules) Action(i int) string { return string(r.configs[i].Action) }

// Equal tells whether two lists say the same.
func (r *Rules) Equal(other *Rules) bool {
	return r.Len() == other.Len() && r.Text() == other.Text()
}

// Text is the rules as YAML, empty if there are none.
func (r *Rules) Text() string {
	if r.Len() == 0 {
		return ""
	}
	text, err := yaml.Marshal(r)
	if err != nil { // of strings and numbers
		panic(errors.Join(errors.New("shmts: relabelling"), err))
	}
	return string(text)
}

// Process applies the rules to the labels of a series in b. It answers Kept, the number from 0 of the rule that dropped the
// series, Nameless or Invalid. After anything but Kept, b's labels mean nothing.
func (r *Rules) Process(b *labels.Builder) int {
	if r.Len() == 0 {
		return Kept
	}
	for i, c := range r.configs {
		if !relabel.ProcessBuilder(b, c) {
			return i
		}
	}
	name, valid := "", true
	b.Range(func(l labels.Label) {
		switch {
		case l.Name == model.MetricNameLabel:
			name = l.Value
		case !model.UTF8Validation.IsValidLabelName(l.Name) || !model.LabelValue(l.Value).IsValid():
			valid = false
		}
	})
	switch {
	case name == "":
		return Nameless
	case !valid || !model.UTF8Validation.IsValidMetricName(name):
		return Invalid
	}
	return Kept
}

// Apply is Process for a whole set of labels. What it answers for a series that is not kept is empty.
func (r *Rules) Apply(ls labels.Labels) (out labels.Labels, outcome int) {
	if r.Len() == 0 {
		return ls, Kept
	}
	b := labels.NewBuilder(ls)
	if outcome = r.Process(b); outcome != Kept {
		return labels.EmptyLabels(), outcome
	}
	return b.Labels(), Kept
}

// Reads tells whether an outcome may hang on the value of a label, or may give the label a value. Two series whose other labels alone
// differ have the same outcome, and what the rules leave of the others they leave as it was.
func (r *Rules) Reads(name string) bool {
	if r == nil {
		return false
	}
	for _, c := range r.configs {
		switch c.Action {
		case relabel.LabelDrop, relabel.LabelKeep: // names alone
			continue
		case relabel.LabelMap: // from and to whatever label
			return true
		}
		if slices.Contains(c.SourceLabels, model.LabelName(name)) || c.TargetLabel == name || c.Action == relabel.Replace && strings.Contains(c.TargetLabel, "$") {
			return true
		}
	}
	return false
}

// Writes tells whether the rules may give a label another value than it had, or take it away.
func (r *Rules) Writes(name string) bool {
	if r == nil {
		return false
	}
	for _, c := range r.configs {
		switch c.Action {
		case relabel.Keep, relabel.Drop, relabel.KeepEqual, relabel.DropEqual:
		case relabel.LabelMap:
			return true
		case relabel.LabelDrop:
			if c.Regex.MatchString(name) {
				return true
			}
		case relabel.LabelKeep:
			if !c.Regex.MatchString(name) {
				return true
			}
		default: // replace, hashmod, lowercase, uppercase
			if c.TargetLabel == name || c.Action == relabel.Replace && strings.Contains(c.TargetLabel, "$") {
				return true
			}
		}
	}
	return false
}

// Rewrites tells whether the rules do more than keep and drop: two series may become one then.
func (r *Rules) Rewrites() bool {
	if r == nil {
		return false
	}
	return slices.ContainsFunc(r.configs, func(c *relabel.Config) bool {
		switch c.Action {
		case relabel.Keep, relabel.Drop, relabel.KeepEqual, relabel.DropEqual:
			return false
		}
		return true
	})
}
