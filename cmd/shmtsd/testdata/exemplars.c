/* exemplars: adds what it reads, a number a line, to a counter and records it in a histogram, with the number as the trace. Argument: the job. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"
#include <stdio.h>

int main(int argc, char **argv) {
	shmts_options o = {.job = argc > 1 ? argv[1] : "c", .instance = "i"};
	shmts_segment *seg = shmts_open(&o);
	shmts_series d = {.unit = "{item}", .labels = SHMTS_LABELS("kind", "x")}, t = {.unit = "s", .low = 0.001, .high = 1000};
	shmts_counter_t *done = shmts_counter(seg, "work.done", &d);
	shmts_histogram_t *took = shmts_histogram(seg, "work.time", &t);
	unsigned long long n;
	puts(shmts_error(seg) ? shmts_error(seg) : "ready");
	fflush(stdout);
	shmts_tick_start(seg);
	while (scanf("%llu", &n) == 1) {
		shmts_exemplar x = {.trace_id = {[15] = (uint8_t)n}, .span_id = {(uint8_t)n}};
		shmts_add(done, n);
		shmts_exemplar_counter(done, n, &x);
		shmts_observe(took, (double)n);
		shmts_exemplar_histogram(took, (double)n, &x);
		puts("done");
		fflush(stdout);
	}
	shmts_close(seg);
	return 0;
}
