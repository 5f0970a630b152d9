/* script: does with shmts.h what the lines on stdin say, one action a line, at the times that they say. ../writers_test.go does the
 * same with the Go writer. Arguments: the store, and perhaps the tiers of a table that is to be the only one, as step in ns and rows, one after
 * the other. It prints the segment's path and leaves the segment as if killed, or closed.
 *
 *     s KIND NAME UNIT HELP LABELS LOW HIGH SCALE   register; "-" for none; LABELS k=v,k=v
 *     a SERIES VALUE                                add, set or record
 *     q SERIES VALUE TRACE UNIX_NS                  the same, with an exemplar: TRACE is the last byte of its trace_id; UNIX_NS 0 for none
 *     t NS                                          let NS pass, then tick
 *     r SERIES                                      retire
 *     e                                             a new epoch
 *     w NS                                          the wall clock is stepped
 *     x NS                                          let NS pass, then close */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int64_t now_unix = 1700000000000000000, now_mono = 1000000000000;

static void fake_clock(void *arg, int64_t *unix_ns, int64_t *mono_ns) {
	(void)arg;
	*unix_ns = now_unix;
	*mono_ns = now_mono;
}

static char *none(char *s) { return strcmp(s, "-") == 0 ? NULL : s; }

/* k=v,k=v as a list that ends with NULL. */
static const char *const *labels_of(char *s) {
	static const char *list[2 * 64 + 1];
	size_t n = 0;
	char *save = NULL;
	if (none(s) == NULL) return NULL;
	for (char *p = strtok_r(s, ",", &save); p != NULL; p = strtok_r(NULL, ",", &save)) {
		char *eq = strchr(p, '=');
		if (eq == NULL) { fprintf(stderr, "script: want k=v, got %s\n", p); exit(2); }
		*eq = 0;
		list[n++] = p;
		list[n++] = eq + 1;
	}
	list[n] = NULL;
	return list;
}

int main(int argc, char **argv) {
	static const uint8_t id[16] = {0x20, 0x31, 0x42, 0x53, 0x64, 0x75, 0x86, 0x97, 0xa8, 0xb9, 0xca, 0xdb, 0xec, 0xfd, 0x0e, 0x1f};
	static shmts_table tables[] = {
		{.name = "scalars", .scalars = 8, .stats = 2, .rings = {{1000000000u, 8}, {2000000000u, 4}}},
		{.name = "histograms", .histograms = 2, .buckets = 24, .rings = {{2000000000u, 4}}},
	};
	shmts_options o = {.job = "writers", .instance = "one", .labels = SHMTS_LABELS("zone", "a"), .attributes = SHMTS_LABELS("service.version", "1"),
	                   .tables = tables, .table_count = 2, .lanes = 2, .clock = fake_clock, .id = id, .segments = 1};
	struct { char kind[16]; void *handle; } series[64];
	size_t count = 0;
	char line[4096];
	if (argc < 2 || argc % 2 != 0 || argc > 2 + 2 * SHMTS_MAX_TIERS) { fprintf(stderr, "script: want the store, and perhaps tiers\n"); return 2; }
	o.dir = argv[1];
	if (argc > 2) {
		o.table_count = 1;
		memset(tables[0].rings, 0, sizeof tables[0].rings);
		for (int i = 2; i < argc; i += 2) {
			tables[0].rings[i / 2 - 1].step_ns = strtoull(argv[i], NULL, 10);
			tables[0].rings[i / 2 - 1].rows = (uint32_t)strtoul(argv[i + 1], NULL, 10);
		}
	}
	shmts_segment *seg = shmts_open(&o);
	if (shmts_error(seg) != NULL) { fprintf(stderr, "script: %s\n", shmts_error(seg)); return 1; }
	shmts_info info;
	shmts_get_info(seg, &info);
	while (fgets(line, sizeof line, stdin) != NULL) {
		char name[256], unit[64], help[1024], labels[1024], low[64], high[64], value[64];
		int scale;
		size_t i;
		int64_t ns;
		switch (line[0]) {
		case 's': {
			if (count == sizeof series / sizeof series[0] ||
			    sscanf(line, "s %15s %255s %63s %1023s %1023s %63s %63s %d", series[count].kind, name, unit, help, labels, low, high, &scale) != 8) goto bad;
			shmts_series d = {.unit = none(unit), .help = none(help), .labels = labels_of(labels), .low = strtod(low, NULL),
			                  .high = strtod(high, NULL), .scale = scale == 0 ? SHMTS_SCALE_0 : scale};
			const char *kind = series[count].kind;
			void **h = &series[count++].handle;
			if (strcmp(kind, "counter") == 0) *h = shmts_counter(seg, name, &d);
			else if (strcmp(kind, "counter_f64") == 0) *h = shmts_counter_f64(seg, name, &d);
			else if (strcmp(kind, "updown") == 0) *h = shmts_updown(seg, name, &d);
			else if (strcmp(kind, "gauge") == 0) *h = shmts_gauge(seg, name, &d);
			else if (strcmp(kind, "gauge_i64") == 0) *h = shmts_gauge_i64(seg, name, &d);
			else if (strcmp(kind, "stat") == 0) *h = shmts_stat(seg, name, &d);
			else if (strcmp(kind, "stat_nonneg") == 0) { d.non_negative = 1; *h = shmts_stat(seg, name, &d); }
			else if (strcmp(kind, "histogram") == 0) *h = shmts_histogram(seg, name, &d);
			else if (strcmp(kind, "histogram_u64") == 0) *h = shmts_histogram_u64(seg, name, &d);
			else goto bad;
			break;
		}
		case 'a': {
			if (sscanf(line, "a %zu %63s", &i, value) != 2 || i >= count) goto bad;
			const char *kind = series[i].kind;
			void *h = series[i].handle;
			double v = strtod(value, NULL);
			if (strcmp(kind, "counter") == 0) shmts_add((shmts_counter_t *)h, strtoull(value, NULL, 10));
			else if (strcmp(kind, "counter_f64") == 0) shmts_add_f64((shmts_counter_f64_t *)h, v);
			else if (strcmp(kind, "updown") == 0) shmts_add_i64((shmts_updown_t *)h, strtoll(value, NULL, 10));
			else if (strcmp(kind, "gauge") == 0) shmts_set((shmts_gauge_t *)h, v);
			else if (strcmp(kind, "gauge_i64") == 0) shmts_set_i64((shmts_gauge_i64_t *)h, strtoll(value, NULL, 10));
			else if (strncmp(kind, "stat", 4) == 0) shmts_record((shmts_stat_t *)h, v);
			else if (strcmp(kind, "histogram") == 0) shmts_observe((shmts_histogram_t *)h, v);
			else shmts_observe_u64((shmts_histogram_u64_t *)h, strtoull(value, NULL, 10));
			break;
		}
		case 'q': {
			int trace;
			shmts_exemplar x = {{0}, {0}, 0};
			if (sscanf(line, "q %zu %63s %d %" SCNd64, &i, value, &trace, &ns) != 4 || i >= count) goto bad;
			const char *kind = series[i].kind;
			void *h = series[i].handle;
			double v = strtod(value, NULL);
			uint64_t n = strtoull(value, NULL, 10);
			x.trace_id[15] = (uint8_t)trace;
			if (ns != 0) x.span_id[0] = (uint8_t)trace;
			x.unix_ns = ns;
			if (strcmp(kind, "counter") == 0) { shmts_add((shmts_counter_t *)h, n); shmts_exemplar_counter((shmts_counter_t *)h, n, &x); }
			else if (strcmp(kind, "counter_f64") == 0) { shmts_add_f64((shmts_counter_f64_t *)h, v); shmts_exemplar_counter_f64((shmts_counter_f64_t *)h, v, &x); }
			else if (strcmp(kind, "histogram") == 0) { shmts_observe((shmts_histogram_t *)h, v); shmts_exemplar_histogram((shmts_histogram_t *)h, v, &x); }
			else if (strcmp(kind, "histogram_u64") == 0) { shmts_observe_u64((shmts_histogram_u64_t *)h, n); shmts_exemplar_histogram_u64((shmts_histogram_u64_t *)h, n, &x); }
			else goto bad;
			break;
		}
		case 'r': {
			if (sscanf(line, "r %zu", &i) != 1 || i >= count) goto bad;
			shmts__retire((shmts__series *)series[i].handle);
			break;
		}
		case 'e':
			shmts_new_epoch(seg);
			break;
		case 'w':
			if (sscanf(line + 1, "%" SCNd64, &ns) != 1) goto bad;
			now_unix += ns;
			break;
		case 't':
		case 'x':
			if (sscanf(line + 1, "%" SCNd64, &ns) != 1) goto bad;
			now_unix += ns;
			now_mono += ns;
			if (line[0] == 't') shmts_tick(seg, now_mono);
			else shmts_close(seg);
			break;
		default:
		bad:
			fprintf(stderr, "script: %s: not understood\n", line);
			return 2;
		}
	}
	puts(info.path);
	fflush(stdout);
	_exit(0); /* without the handlers that a tidy exit would run */
}
