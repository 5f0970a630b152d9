/* sampled: adds what it reads, a number a line, to a counter of a segment that never ticks (FORMAT.md 10.8). Argument: the job. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"
#include <stdio.h>

int main(int argc, char **argv) {
	shmts_options o = {.job = argc > 1 ? argv[1] : "c", .instance = "i", .sampled = 1};
	shmts_segment *seg = shmts_open(&o);
	shmts_series d = {.unit = "{item}", .labels = SHMTS_LABELS("kind", "x")};
	shmts_counter_t *done = shmts_counter(seg, "work.done", &d);
	unsigned long long n;
	puts(shmts_error(seg) ? shmts_error(seg) : "ready");
	fflush(stdout);
	while (scanf("%llu", &n) == 1) {
		shmts_add(done, n);
		puts("done");
		fflush(stdout);
	}
	shmts_close(seg);
	return 0;
}
