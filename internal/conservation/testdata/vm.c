/* vm: a short life, whose every total is known: it records ROUNDS times into 100 series, spread over MS milliseconds,
 * and ends as it is told. C11, Linux.
 *
 *     ./vm --dir STORE --instance NAME --ms MS --rounds ROUNDS --end close|exit|kill
 *
 * What it leaves, with R rounds, R even: counter_k (k from 0 to 59) R x (k + 1); seconds_k (f64, 0 to 4) R x 0.25; level_k (up-down, 0 to 4)
 * R; gauge_k (0 to 9) R; size_k (stat, 0 to 9) count R, and of each round r from 1 to R the value r mod (k + 1) + 0.5;
 * wait_k (histogram, 0 to 9) count R, sum R x (k + 1) / 64. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"

#include <getopt.h>
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>

enum { COUNTERS = 60, SECONDS = 5, LEVELS = 5, GAUGES = 10, SIZES = 10, WAITS = 10 };

static const char *name(const char *kind, int k) {
	static char buffer[32];
	snprintf(buffer, sizeof buffer, "%s_%d", kind, k);
	return buffer;
}

int main(int argc, char **argv) {
	static const struct option flags[] = {{"dir", 1, 0, 'd'}, {"instance", 1, 0, 'i'}, {"ms", 1, 0, 'm'}, {"rounds", 1, 0, 'r'}, {"end", 1, 0, 'e'}, {0}};
	/* A tenth of the defaults' steps, since a life is a tenth of what it stands for. */
	const shmts_table tables[2] = {
		{.name = "scalars", .scalars = COUNTERS + SECONDS + LEVELS + GAUGES, .stats = SIZES, .rings = {{100000000, 120}, {1000000000, 60}}},
		{.name = "histograms", .histograms = WAITS, .buckets = 80, .rings = {{1000000000, 30}}},
	};
	shmts_options o = {.job = "vm", .tables = tables, .table_count = 2, .lanes = 2};
	const char *end = "";
	long ms = 0, rounds = 0;
	for (int c; (c = getopt_long(argc, argv, "", flags, NULL)) != -1;) switch (c) {
		case 'd': o.dir = optarg; break;
		case 'i': o.instance = optarg; break;
		case 'm': ms = atol(optarg); break;
		case 'r': rounds = atol(optarg); break;
		case 'e': end = optarg; break;
		default: return 2;
		}
	if (!*end || rounds < 1) return 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	shmts_segment *seg = shmts_open(&o);
	shmts_counter_t *counter[COUNTERS];
	shmts_counter_f64_t *seconds[SECONDS];
	shmts_updown_t *level[LEVELS];
	shmts_gauge_t *gauge[GAUGES];
	shmts_stat_t *size[SIZES];
	shmts_histogram_t *waits[WAITS];
	for (int k = 0; k < COUNTERS; k++) counter[k] = shmts_counter(seg, name("counter", k), NULL);
	for (int k = 0; k < SECONDS; k++) seconds[k] = shmts_counter_f64(seg, name("seconds", k), NULL);
	for (int k = 0; k < LEVELS; k++) level[k] = shmts_updown(seg, name("level", k), NULL);
	for (int k = 0; k < GAUGES; k++) gauge[k] = shmts_gauge(seg, name("gauge", k), NULL);
	for (int k = 0; k < SIZES; k++) size[k] = shmts_stat(seg, name("size", k), &(shmts_series){.non_negative = 1});
	for (int k = 0; k < WAITS; k++) waits[k] = shmts_histogram(seg, name("wait", k), &(shmts_series){.low = 0.001, .high = 1});
	if (shmts_error(seg)) {
		fprintf(stderr, "%s\n", shmts_error(seg));
		return 1;
	}
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	for (long r = 1; r <= rounds; r++) {
		for (int k = 0; k < COUNTERS; k++) shmts_add(counter[k], (uint64_t)k + 1);
		for (int k = 0; k < SECONDS; k++) shmts_add_f64(seconds[k], 0.25);
		for (int k = 0; k < LEVELS; k++) shmts_add_i64(level[k], r % 2 ? 3 : -1);
		for (int k = 0; k < GAUGES; k++) shmts_set(gauge[k], (double)r);
		for (int k = 0; k < SIZES; k++) shmts_record(size[k], (double)(r % (k + 1)) + 0.5);
		for (int k = 0; k < WAITS; k++) shmts_observe(waits[k], (double)(k + 1) / 64);
		do {
			shmts_tick(seg, 0);
			clock_gettime(CLOCK_MONOTONIC, &now);
			if ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 >= ms * r / rounds) break;
			nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
		} while (1);
	}
	if (*end == 'k') raise(SIGKILL);
	if (*end == 'e') _exit(0);
	shmts_close(seg);
	return 0;
}
