package otelshm

import (
	"maps"
	"unicode/utf8"

	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/shmts/shmts/layout"
	"github.com/shmts/shmts/writer"
)

// Source is o for a service that a resource describes: Job is its service.name, after service.namespace and a slash
// where there is one, and Instance its service.instance.id, unless o has them; as OpenTelemetry's rules for Prometheus say. The resource's
// attributes are added to o.Attributes, which count where both have one.
//
//	w, err := writer.Open(otelshm.Source(writer.Options{}, res))
func Source(o writer.Options, res *resource.Resource) writer.Options {
	attributes := Attributes(res)
	if name := attributes["service.name"]; o.Job == "" && name != "" {
		o.Job = name
		if space := attributes["service.namespace"]; space != "" {
			o.Job = space + "/" + name
		}
	}
	if o.Instance == "" {
		o.Instance = attributes["service.instance.id"]
	}
	maps.Copy(attributes, o.Attributes)
	o.Attributes = attributes
	return o
}

// Attributes are a resource's, for writer.Options.Attributes: values that are no strings become what attribute.Value.String
// says. What the format can't hold (FORMAT.md 6.4) is left out: names beyond 255 bytes, values beyond 1,023, what is no
// UTF-8, and all but the first 64 in the order of names.
func Attributes(res *resource.Resource) map[string]string {
	all := map[string]string{}
	for i := res.Iter(); i.Next(); {
		kv := i.Attribute()
		name, value := string(kv.Key), kv.Value.String()
		if len(all) == layout.MaxPairs {
			break
		}
		if name == "" || value == "" || len(name) > layout.MaxLabelName || len(value) > layout.MaxLabelValue ||
			!utf8.ValidString(name) || !utf8.ValidString(value) {
			continue
		}
		all[name] = value
	}
	return all
}
