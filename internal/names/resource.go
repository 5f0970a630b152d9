package names

import (
	"slices"
	"strings"

	"github.com/shmts/shmts/reader"
)

// The attributes that say who a source is, in OpenTelemetry's words, and the labels that say it in
// Prometheus's.
const (
	ServiceName       = "service.name"
	ServiceNamespace  = "service.namespace"
	ServiceInstanceID = "service.instance.id"

	Job      = "job"
	Instance = "instance"
)

// TargetInfo is the metric whose labels are a source's resource attributes.
const TargetInfo = "target_info"

// TargetInfoHelp is what its metadata say.
const TargetInfoHelp = "Resource attributes of the source."

// Resource is a source in OpenTelemetry's words: its attributes, sorted, with service.name and
// service.namespace out of job ("shop/cart" is the namespace shop and the name cart), and
// service.instance.id out of instance. An attribute of these names that the author gave himself stays,
// and then the others are not made up from a job that says something else. Labels other than job and instance are
// not part of it: they are each data point's attributes, see PointLabels.
func Resource(labels, attributes []reader.Pair) []reader.Pair {
	out := slices.Clone(attributes)
	add := func(name, value string) {
		if value != "" && find(attributes, name) == "" {
			out = append(out, reader.Pair{Name: name, Value: value})
		}
	}
	if find(attributes, ServiceName) == "" {
		name := find(labels, Job)
		if namespace, rest, ok := strings.Cut(name, "/"); ok && namespace != "" && rest != "" && find(attributes, ServiceNamespace) == "" {
			add(ServiceNamespace, namespace)
			name = rest
		}
		add(ServiceName, name)
	}
	add(ServiceInstanceID, find(labels, Instance))
	slices.SortFunc(out, byName)
	return out
}

// PointLabels are the labels of a source that its data points carry in OTLP: all but job and instance.
func PointLabels(labels []reader.Pair) []reader.Pair {
	return slices.DeleteFunc(slices.Clone(labels), func(p reader.Pair) bool { return p.Name == Job || p.Name == Instance })
}

// Source is the reverse of Resource's mapping: job and instance out of resource attributes, each
// empty if they do not say.
func Source(attributes []reader.Pair) (job, instance string) {
	job = find(attributes, ServiceName)
	if namespace := find(attributes, ServiceNamespace); namespace != "" && job != "" {
		job = namespace + "/" + job
	}
	return job, find(attributes, ServiceInstanceID)
}

// TargetLabels are the labels of a source's target_info, sorted and with legal names: its labels, and the
// attributes that are not said by job and instance. Nil if there is no such attribute: then there is
// no target_info. A label wins over an attribute of its name.
func TargetLabels(labels, attributes []reader.Pair) []reader.Pair {
	rest := slices.DeleteFunc(slices.Clone(attributes), func(p reader.Pair) bool {
		return p.Name == ServiceName || p.Name == ServiceNamespace || p.Name == ServiceInstanceID
	})
	if len(rest) == 0 {
		return nil
	}
	out := Labels(labels)
	for _, p := range Labels(rest) {
		if find(out, p.Name) == "" {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, byName)
	return out
}

func find(pairs []reader.Pair, name string) string {
	for _, p := range pairs {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}
