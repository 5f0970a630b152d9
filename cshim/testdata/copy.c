/* copy: a shared object with its own copy of shmts.h; -DCOPY=a or b. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"

#define PASTE2(a, b) a##b
#define PASTE(a, b) PASTE2(a, b)
void PASTE(copy_open_, COPY)(const char *dir, const char *instance);
void PASTE(copy_record_, COPY)(void);

static shmts_counter_t *counter;

void PASTE(copy_open_, COPY)(const char *dir, const char *instance) {
	shmts_segment *seg = shmts_open(&(shmts_options){.job = "copy", .instance = instance, .dir = dir});
	if (shmts_error(seg)) fprintf(stderr, "%s\n", shmts_error(seg));
	counter = shmts_counter(seg, "counter", NULL);
}
void PASTE(copy_record_, COPY)(void) {
	for (int i = 0; i < 1000; i++) shmts_tls_add(counter, 1);
}
