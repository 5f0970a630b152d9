/* sampled: a writer that never ticks (FORMAT.md 10.8) and records until it is killed. What the page, its argument, says was recorded. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

int main(int argc, char **argv) {
	shmts_options o = {.job = "killed", .instance = "c", .sampled = 1};
	int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
	volatile uint64_t *page = fd < 0 ? NULL : (volatile uint64_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	shmts_segment *seg = shmts_open(&o);
	if (!page || page == MAP_FAILED || shmts_error(seg)) {
		fprintf(stderr, "sampled: want a page and a segment, got %s\n", shmts_error(seg) ? shmts_error(seg) : "no page");
		return 1;
	}
	shmts_counter_t *n = shmts_counter(seg, "n", NULL);
	shmts_histogram_t *h = shmts_histogram(seg, "h", NULL);
	puts("ready");
	fflush(stdout);
	for (;;) {
		shmts_add(n, 1);
		page[0]++;
		shmts_observe(h, 0.25);
		page[1]++;
		shmts_tick(seg, 0);
	}
}
