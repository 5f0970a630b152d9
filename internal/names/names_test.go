package names

import (
	"reflect"
	"testing"

	"github.com/shmts/shmts/reader"
)

func TestMetric(t *testing.T) {
	for _, c := range []struct {
		name, unit string
		kind       reader.Kind
		want       string
	}{
		{"rx_packets_total", "", reader.Counter, "rx_packets_total"},
		{"rx_packets", "{packet}", reader.Counter, "rx_packets_total"},
		{"rx_bytes_total", "By", reader.Counter, "rx_bytes_total"},
		{"rx", "By", reader.Counter, "rx_bytes_total"},
		{"node_cpu_seconds_total", "s", reader.Counter, "node_cpu_seconds_total"},
		{"http.server.request.duration", "s", reader.Histogram, "http_server_request_duration_seconds"},
		{"http.server.active_requests", "{request}", reader.UpDown, "http_server_active_requests"},
		{"process.memory.usage", "By", reader.UpDown, "process_memory_usage_bytes"},
		{"node_memory_MemFree_bytes", "By", reader.Gauge, "node_memory_MemFree_bytes"},
		{"system.cpu.utilization", "1", reader.Gauge, "system_cpu_utilization_ratio"},
		{"hits", "1", reader.Counter, "hits_total"},
		{"disk.used", "%", reader.Gauge, "disk_used_percent"},
		{"speed", "m/s", reader.Gauge, "speed_meters_per_second"},
		{"latency", "us", reader.Stat, "latency_microseconds"},
		{"room.temperature", "Cel", reader.Gauge, "room_temperature_celsius"},
		{"cache", "KiBy", reader.Gauge, "cache_kibibytes"},
		{"job:rate:5m", "", reader.Gauge, "job:rate:5m"},
		{"2xx", "", reader.Counter, "_2xx_total"},
		{"a..b--c", "", reader.Gauge, "a_b_c"},
		{"日", "", reader.Gauge, "_"},
	} {
		if got := Metric(c.name, c.unit, c.kind); got != c.want {
			t.Errorf("Metric(%q, %q, %v) = %q, want %q", c.name, c.unit, c.kind, got, c.want)
		}
		// A name that is legal already says its unit and kind once. (The rules themselves repeat a "per" unit.)
		if again := Metric(c.want, c.unit, c.kind); c.unit != "m/s" && c.name != "2xx" && again != c.want {
			t.Errorf("Metric is not stable: %q becomes %q", c.want, again)
		}
	}
}

func TestStatParts(t *testing.T) {
	if got := StatPart(Metric("steal", "s", reader.Stat), Max); got != "steal_seconds_max" {
		t.Errorf("got %q", got)
	}
	for _, c := range [][3]string{{"queue.depth", Min, "queue.depth.min"}, {"queue_depth", Count, "queue_depth_count"}, {"queue.depth", Last, "queue.depth"}} {
		if got := OTelStatPart(c[0], c[1]); got != c[2] {
			t.Errorf("OTelStatPart(%q, %q) = %q, want %q", c[0], c[1], got, c[2])
		}
	}
}

func TestLabel(t *testing.T) {
	for in, want := range map[string]string{
		"code": "code", "http.route": "http_route", "le": "le", "_hidden": "_hidden", "a__b": "a_b",
		"0day": "key_0day", "é": "_", "___": "_", "k8s.pod-name": "k8s_pod_name", "MixedCase9": "MixedCase9",
	} {
		if got := Label(in); got != want {
			t.Errorf("Label(%q) = %q, want %q", in, got, want)
		}
		// The shortcut says what the rules say.
		if rule, err := labelNamer.Build(in); err == nil && plainLabel(in) && rule != in {
			t.Errorf("plainLabel(%q), but the rules make it %q", in, rule)
		}
	}
}

func TestLabelsCollide(t *testing.T) {
	got := Labels([]reader.Pair{{Name: "z", Value: "1"}, {Name: "a_b", Value: "under"}, {Name: "a.b", Value: "dot"}})
	want := []reader.Pair{{Name: "a_b", Value: "dot;under"}, {Name: "z", Value: "1"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func pairs(kv ...string) (out []reader.Pair) {
	for i := 0; i < len(kv); i += 2 {
		out = append(out, reader.Pair{Name: kv[i], Value: kv[i+1]})
	}
	return out
}

func TestResource(t *testing.T) {
	for _, c := range []struct {
		name                     string
		labels, attributes, want []reader.Pair
		job, instance            string
	}{
		{"plain", pairs("instance", "h:1", "job", "cart"), nil,
			pairs(ServiceInstanceID, "h:1", ServiceName, "cart"), "cart", "h:1"},
		{"namespace", pairs("instance", "h:1", "job", "shop/cart"), pairs("host.name", "h"),
			pairs("host.name", "h", ServiceInstanceID, "h:1", ServiceName, "cart", ServiceNamespace, "shop"), "shop/cart", "h:1"},
		{"slash in the name", pairs("instance", "i", "job", "a/b/c"), nil,
			pairs(ServiceInstanceID, "i", ServiceName, "b/c", ServiceNamespace, "a"), "a/b/c", "i"},
		{"an odd slash", pairs("instance", "i", "job", "/b"), nil,
			pairs(ServiceInstanceID, "i", ServiceName, "/b"), "/b", "i"},
		{"the author's own", pairs("instance", "i", "job", "shop/x"), pairs(ServiceName, "cart"),
			pairs(ServiceInstanceID, "i", ServiceName, "cart"), "cart", "i"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Resource(c.labels, c.attributes)
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if job, instance := Source(got); job != c.job || instance != c.instance {
				t.Errorf("back: got %q, %q, want %q, %q", job, instance, c.job, c.instance)
			}
		})
	}
}

func TestTargetLabels(t *testing.T) {
	labels := pairs("instance", "i", "job", "j", "vm", "7")
	if got := TargetLabels(labels, pairs(ServiceName, "j")); got != nil {
		t.Errorf("no attribute of its own: want nil, got %v", got)
	}
	got := TargetLabels(labels, pairs("host.name", "h", "vm", "other"))
	want := pairs("host_name", "h", "instance", "i", "job", "j", "vm", "7")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := PointLabels(labels); !reflect.DeepEqual(got, pairs("vm", "7")) {
		t.Errorf("PointLabels: got %v", got)
	}
}

func TestUnit(t *testing.T) {
	for ucum, want := range map[string]string{"": "", "1": "", "s": "seconds", "By": "bytes", "By/s": "bytes_per_second", "{packet}": "", "Cel": "celsius", "%": "percent"} {
		if got := Unit(ucum); got != want {
			t.Errorf("%q: want %q, got %q", ucum, want, got)
		}
	}
}

func TestSeriesLabels(t *testing.T) {
	pair := func(name, value string) reader.Pair { return reader.Pair{Name: name, Value: value} }
	got := SeriesLabels([]reader.Pair{pair("zone", "a"), pair("job", "own"), pair("exported_job", "x"), pair("__name__", "n"), pair("empty", ""), pair("http.method", "GET")}, []string{"instance", "job"})
	want := []reader.Pair{pair("exported___name__", "n"), pair("exported_exported_job", "own"), pair("exported_job", "x"), pair("http_method", "GET"), pair("zone", "a")}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("want %v, got %v", want, got)
	}
}
