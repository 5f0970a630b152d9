/* shmts.h - v1.0 - record metrics into shared memory from C11 or C++17: one store a record; no malloc, no lock,
 * no syscall, no clock. Any reader sees the values, also after the process was killed. Format: spec/FORMAT.md.
 *
 *     #define SHMTS_IMPLEMENTATION          in exactly one .c or .cc file of a program or shared object,
 *     #include "shmts.h"                    before other headers (it needs _GNU_SOURCE); link with -pthread.
 *
 *     #define SHMTS_IMPLEMENTATION
 *     #include "shmts.h"
 *     int main(void) {
 *         shmts_options o = {.job = "fwd", .instance = "eth0"};
 *         shmts_segment *seg = shmts_open(&o);                       // never NULL; shmts_error(seg) says what is wrong
 *         shmts_series rx = {.unit = "{packet}", .labels = SHMTS_LABELS("direction", "rx")};
 *         shmts_counter_t *packets = shmts_counter(seg, "packets", &rx);
 *         shmts_histogram_t *latency = shmts_histogram(seg, "latency", &(shmts_series){.unit = "s", .low = 1e-6, .high = 1});
 *         for (int i = 0; i < 1000000; i++) {
 *             shmts_add(packets, 1);                                 // one writing thread; others: see Record
 *             shmts_observe(latency, 25e-6);
 *             shmts_tick(seg, 0);                                    // or once: shmts_tick_start(seg)
 *         }
 *         shmts_close(seg);
 *     }
 *
 * Register (never NULL; the same series gives the same handle):          handle
 *     shmts_counter, shmts_counter_f64, shmts_updown                     shmts_counter_t, shmts_counter_f64_t, shmts_updown_t
 *     shmts_gauge, shmts_gauge_i64, shmts_stat                           shmts_gauge_t, shmts_gauge_i64_t, shmts_stat_t
 *     shmts_histogram, shmts_histogram_u64                               shmts_histogram_t, shmts_histogram_u64_t
 *     shmts_retire(handle): the series ends; what is recorded afterwards goes nowhere.
 * Record: add (counter), add_f64, add_i64 (updown), record (stat), observe (histogram), observe_u64, each as
 *     shmts_add(c, n)              by ONE thread of the process at a time: lane 0, a plain add
 *     shmts_lane_add(lane, c, n)   by the thread that has the lane: shmts_lane_claim(seg); also a plain add
 *     shmts_tls_add(c, n)          by any thread: its lane is claimed at first use and freed when it ends
 *     shmts_atomic_add(c, n)       by any thread and signal handlers: an atomic add in the overflow lane
 *   and shmts_set, shmts_set_i64 (gauges), by anybody: the last store wins.
 * Exemplars: beside any record of a counter or histogram, by anybody, with the trace that it belongs to (no label, no further series):
 *     shmts_exemplar_histogram(latency, seconds, &ex);   shmts_exemplar ex: trace_id, span_id; also _histogram_u64, _counter, _counter_f64
 *   The first of each row of a series is taken, and then each greater one; the newest 64 of all series stay in the segment.
 * Publish: shmts_tick(seg, mono_ns) from a loop that knows the time, or shmts_tick_start(seg) for a thread.
 *
 * Cost, in increments of a private volatile in the same run (bench/c/record.c): add, lane and TLS 1; set 0.3; atomic 3.7;
 *   histogram 2.3 for index and bucket, 2.9 with its f64 sum; stat 2.5; an exemplar that is not taken 1.3, one that is 60; a tick that has nothing to do 0.3.
 * Limits: 64-bit little-endian Linux; 64 lanes; 2048 buckets; TLS lanes for 31 segments a process. A full table grows into at
 *   most 4 segments; then series are dropped: recorded into a sink, and counted. After fork() the child records into a new segment
 *   of its own at the same addresses, with its own tick thread; a raw clone() skips that and may not record. No TLS calls in signal
 *   handlers. Before a strict seccomp filter call shmts_seal. A retired handle stays valid; only the same series gets it again.
 *   Values are exact: every completed call is in the segment, once, whatever kills the process. */
#ifndef SHMTS_H
#define SHMTS_H

#if defined(SHMTS_IMPLEMENTATION) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE 1
#endif
#include <stddef.h>
#include <stdint.h>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ > 0)
#error "shmts: want IEEE arithmetic, got -ffast-math or -ffinite-math-only: sums would go down and NaN be recorded"
#endif
#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || UINTPTR_MAX != UINT64_MAX
#error "shmts: want a 64-bit little-endian host (FORMAT.md 12)"
#endif

/* Hidden, so that two shared objects with a copy of this header each do not meet. */
#ifndef SHMTS_API
#define SHMTS_API __attribute__((visibility("hidden")))
#endif
/* For a shared object that is not dlopen'ed: -DSHMTS_TLS='__attribute__((tls_model("initial-exec")))' saves 1 ns. */
#ifndef SHMTS_TLS
#define SHMTS_TLS
#endif
#define SHMTS_VERSION "shmts.h 1.0.0-rc1"

#ifdef __cplusplus
#define SHMTS__ASSERT(what, why) static_assert(what, why)
extern "C" {
#else
#define SHMTS__ASSERT(what, why) _Static_assert(what, why)
#endif

/* ---- the format: FORMAT.md 4 to 8. Fields in byte order; the assertions fail where the page and this file differ. ---- */

#define SHMTS_MAGIC 0x1a0a0d53544d4853u
#define SHMTS_MAX_LANES 64u /* 11 */
#define SHMTS_MAX_GROUP 4u
enum { SHMTS_MAX_PAIRS = 64, SHMTS_MAX_TABLES = 8, SHMTS_MAX_TIERS = 4, SHMTS_MAX_BUCKETS = 2048, SHMTS_MAX_SCALE = 6, SHMTS_MAX_CELLS = 1 << 20,
       SHMTS_MAX_SERIES = 1 << 20, SHMTS_MAX_EXEMPLARS = 4096, SHMTS_MAX_ROWS = 65536, SHMTS_MAX_HEADER = 65536, SHMTS_MAX_TOTAL = 1 << 30 };
enum { SHMTS_COUNTER = 1, SHMTS_UPDOWN = 2, SHMTS_GAUGE = 3, SHMTS_STAT = 4, SHMTS_HISTOGRAM = 5 }; /* 6.2 */
enum { SHMTS_U64 = 1, SHMTS_I64 = 2, SHMTS_F64 = 3 };                                               /* 6.1 */
#define SHMTS_UNSET_F64 0xfff800756e736574u
#define SHMTS_UNSET_I64 0x8000000000000000u

typedef struct shmts_superblock { /* 4.1 */
	uint8_t  magic[8]; uint16_t major, minor;
	uint32_t header_size, compat, incompat;
	uint64_t total_size;
	uint8_t  segment_id[16], group_id[16], boot_id[16];
	int64_t  birth_unix, birth_mono; uint64_t birth_error;
	uint32_t pid, uid; uint64_t pid_ns;
	uint32_t flags, group_index, section_count, section_offset;
	uint64_t checksum; uint8_t writer[32], shadow_of[16], reserved[64];
} shmts_superblock;
SHMTS__ASSERT(sizeof(shmts_superblock) == 256 && offsetof(shmts_superblock, total_size) == 0x18 && offsetof(shmts_superblock, boot_id) == 0x40 &&
              offsetof(shmts_superblock, pid_ns) == 0x70 && offsetof(shmts_superblock, checksum) == 0x88 && offsetof(shmts_superblock, shadow_of) == 0xb0, "FORMAT.md 4.1");
typedef struct shmts_section { /* 4.2 */
	uint32_t type, count; uint64_t offset, length; uint32_t element_size, reserved;
} shmts_section;
SHMTS__ASSERT(sizeof(shmts_section) == 32 && offsetof(shmts_section, length) == 0x10 && offsetof(shmts_section, element_size) == 0x18, "FORMAT.md 4.2");
typedef struct shmts_tier { /* 4.3.1 */
	uint64_t step /* ns */; uint32_t rows, row_stride; uint64_t offset, reserved;
} shmts_tier;
SHMTS__ASSERT(sizeof(shmts_tier) == 32 && offsetof(shmts_tier, row_stride) == 0x0c && offsetof(shmts_tier, offset) == 0x10, "FORMAT.md 4.3.1");
typedef struct shmts_table_desc { /* 4.3 */
	uint8_t    name[16];
	uint32_t   tiers, lanes, row_cells, lane_cells, shared_cells, lane_stride;
	uint64_t   lanes_offset, shared_offset; uint32_t series_capacity, reserved0;
	shmts_tier tier0, tier1, tier2, tier3; uint8_t reserved[64];
} shmts_table_desc;
SHMTS__ASSERT(sizeof(shmts_table_desc) == 256 && offsetof(shmts_table_desc, lane_stride) == 0x24 && offsetof(shmts_table_desc, lanes_offset) == 0x28 &&
              offsetof(shmts_table_desc, tier0) == 0x40 && offsetof(shmts_table_desc, reserved) == 0xc0, "FORMAT.md 4.3");
typedef struct shmts_table_control { /* 5.1 */
	uint64_t open_row; uint32_t row_cells_used, lane_cells_used, shared_cells_used, reserved0;
	uint64_t head0, head1, head2, head3, changes;
} shmts_table_control;
SHMTS__ASSERT(sizeof(shmts_table_control) == 64 && offsetof(shmts_table_control, head0) == 0x18 && offsetof(shmts_table_control, changes) == 0x38, "FORMAT.md 5.1");
typedef struct shmts_control { /* 5 */
	uint32_t state, epoch; int64_t heartbeat; uint64_t ticks;
	uint32_t series_used, heap_used;
	uint64_t dropped_series, overflow_threads, rejected_records; int64_t clock_offset;
	uint64_t fork_losses, exemplars, exemplars_dropped; uint8_t reserved[40];
	shmts_table_control table0, table1, table2, table3, table4, table5, table6, table7;
} shmts_control;
SHMTS__ASSERT(sizeof(shmts_control) == 640 && offsetof(shmts_control, series_used) == 0x18 && offsetof(shmts_control, clock_offset) == 0x38 && offsetof(shmts_control, exemplars) == 0x48 &&
              offsetof(shmts_control, table0) == 0x80 && offsetof(shmts_control, table7) == 0x240, "FORMAT.md 5");
typedef struct shmts_series_desc { /* 6.1 */
	uint32_t state; uint8_t kind, number; int8_t scale; uint8_t flags;
	uint16_t table, name_length, unit_length, help_length;
	uint32_t strings, labels_length, row_cell, lane_cell, shared_cell;
	uint16_t buckets; int16_t bucket_min; int64_t born_unix; uint64_t born_row, retired_row;
} shmts_series_desc;
SHMTS__ASSERT(sizeof(shmts_series_desc) == 64 && offsetof(shmts_series_desc, table) == 8 && offsetof(shmts_series_desc, strings) == 0x10 &&
              offsetof(shmts_series_desc, bucket_min) == 0x26 && offsetof(shmts_series_desc, retired_row) == 0x38, "FORMAT.md 6.1");
typedef struct shmts_row { /* 8.1; the cells follow */
	uint64_t seq, row_no; int64_t t_begin, t, t_mono; uint64_t base_row;
	uint32_t cells; uint16_t epoch, flags; uint64_t checksum;
} shmts_row;
SHMTS__ASSERT(sizeof(shmts_row) == 64 && offsetof(shmts_row, base_row) == 0x28 && offsetof(shmts_row, epoch) == 0x34 && offsetof(shmts_row, checksum) == 0x38, "FORMAT.md 8.1");
typedef struct shmts_exemplar_slot { /* 8.4 */
	uint64_t seq, check; uint32_t series, generation; double value; int64_t t; uint8_t trace_id[16], span_id[8];
} shmts_exemplar_slot;
SHMTS__ASSERT(sizeof(shmts_exemplar_slot) == 64 && offsetof(shmts_exemplar_slot, value) == 0x18 && offsetof(shmts_exemplar_slot, span_id) == 0x38, "FORMAT.md 8.4");

/* ---- open, register ---- */

typedef struct shmts_ring { uint64_t step_ns; uint32_t rows; } shmts_ring; /* a tier: 4.3.1's bounds */

/* A table's room. A scalar is a counter, updown or gauge. */
typedef struct shmts_table {
	const char *name; /* at most 16 bytes; histograms go to the one called "histograms" where there is one */
	uint32_t    scalars, stats, histograms, buckets;
	shmts_ring  rings[SHMTS_MAX_TIERS]; /* ends at the first of 0 rows */
} shmts_table;

/* Everything zero or NULL is the default. Strings are copied. */
typedef struct shmts_options {
	const char         *job;        /* the program's name */
	const char         *instance;   /* host:pid */
	const char *const  *labels;     /* of every series: name, value, ..., NULL; see SHMTS_LABELS */
	const char *const  *attributes; /* resource attributes, the same way */
	const char         *dir;        /* the store: $SHMTS_DIR, else /dev/shm/shmts. A directory named is never created */
	uint32_t            series;     /* 100, of which: */
	uint32_t            stats;      /* 10 */
	uint32_t            histograms; /* 10, */
	uint32_t            buckets;    /* 80 buckets each */
	const shmts_table  *tables;     /* instead of the four above; default: scalars 1 s x 120 and 10 s x 60; histograms 10 s x 30 */
	uint32_t            table_count;
	uint32_t            heap_bytes; /* for names, units, helps, labels: 128 a series */
	uint32_t            lanes;      /* 8: lane 0 and 7 for threads; at most 64 */
	int32_t             exemplars;  /* slots for them, of 64 bytes, rounded up to a power of two: 64; at most 4096, -1: none */
	uint32_t            max_bytes;  /* shorten rings, to 16 rows at least, until the segment fits */
	uint32_t            segments;   /* grow into at most so many: 4 */
	uint32_t            mode;       /* of the file: 0444, or 0440 */
	uint8_t             sampled;    /* never ticks: a daemon samples the live cells (10.8) */
	uint8_t             lazy_fork;  /* a forked child's segment is born at its first tick, not in fork(): for who forks to exec */
	void              (*clock)(void *arg, int64_t *unix_ns, int64_t *mono_ns); /* for tests */
	void               *clock_arg;
	const uint8_t      *id;         /* 16 bytes instead of random ones, for tests */
} shmts_options;

/* What a series may have beside its name. NULL instead of one: none of it. */
typedef struct shmts_series {
	const char        *unit; /* UCUM */
	const char        *help;
	const char *const *labels;
	const char        *table;        /* by default by kind */
	double             low, high;    /* histograms: the range; 0.001 to 1, or 1 to 1024 (u64) */
	int                scale;        /* histograms: 1 to 6, 0 for the default 3, SHMTS_SCALE_0 for base 2 */
	int                non_negative; /* stats: nothing negative is recorded, so that the sum never falls */
} shmts_series;
#define SHMTS_SCALE_0 (-1)
#define SHMTS_LABELS(...) ((const char *const[]){__VA_ARGS__, NULL}) /* C only: in C++ an array with a name */

typedef struct shmts_segment { int64_t due; } shmts_segment; /* mono ns of the next tick that has work; the rest is private */
typedef struct shmts_lane { uint32_t number; } shmts_lane;

typedef struct shmts__scale { uint64_t bound[65]; uint8_t first[128]; } shmts__scale;
typedef struct shmts__series { /* what a record call needs, on one cache line; all but the pointers never changes */
	char     *cell;                                   /* in lane 0 */
	uint64_t *shared, *open_row, *rejected;           /* gauge, a stat's last; of the table; counted where a record is refused */
	uint32_t  stride, lanes, tls;                     /* bytes from lane to lane; private ones; where shmts__tls has the thread's */
	uint32_t  scale; int32_t bias, above;             /* histograms: the scale, what makes an index a cell, and the last cell */
	const shmts__scale *bounds;
	double    least;                                  /* stats: the least that may be recorded */
	void     *slot;
	uint64_t  who, taken_row, taken_most;             /* exemplars: descriptor and generation; the row of the last taken, and the greatest in it */
} shmts__series;
typedef struct shmts_counter_t { shmts__series s; } shmts_counter_t; /* types of their own, so that misuse does not compile */
typedef struct shmts_counter_f64_t { shmts__series s; } shmts_counter_f64_t;
typedef struct shmts_updown_t { shmts__series s; } shmts_updown_t;
typedef struct shmts_gauge_t { shmts__series s; } shmts_gauge_t;
typedef struct shmts_gauge_i64_t { shmts__series s; } shmts_gauge_i64_t;
typedef struct shmts_stat_t { shmts__series s; } shmts_stat_t;
typedef struct shmts_histogram_t { shmts__series s; } shmts_histogram_t;
typedef struct shmts_histogram_u64_t { shmts__series s; } shmts_histogram_u64_t;

typedef struct shmts_info {
	char     path[640]; /* "" while there is only private memory */
	uint8_t  segment_id[16];
	uint64_t bytes;     /* of one segment */
	uint32_t segments, series;
	uint64_t dropped_series, overflow_threads, rejected_records, fork_losses, exemplars /* taken */, exemplars_dropped;
} shmts_info;

/* Which trace a record belongs to. */
typedef struct shmts_exemplar {
	uint8_t trace_id[16], span_id[8]; /* all zeros: no trace, and no exemplar; no span */
	int64_t unix_ns;                  /* of the record; 0: the last tick's, since no clock is read */
} shmts_exemplar;

/* Any thread, except where said. Registering takes a lock and is for setting up, not for hot paths. */
SHMTS_API shmts_segment *shmts_open(const shmts_options *o); /* NULL: all defaults. Never NULL; tried again at ticks where it failed */
SHMTS_API const char *shmts_error(shmts_segment *seg);       /* NULL, or what was the first thing to fail, "shmts: ..." */
SHMTS_API uint64_t shmts_plan(const shmts_options *o);       /* the bytes that shmts_open will take; 0 where it would fail */
SHMTS_API void shmts_get_info(shmts_segment *seg, shmts_info *info);
SHMTS_API void shmts_seal(shmts_segment *seg);      /* from here on no births: neither growth nor another try; tick makes no syscall */
SHMTS_API void shmts_new_epoch(shmts_segment *seg); /* the memory was restored from a snapshot or checkpoint (10.9) */
SHMTS_API void shmts_close(shmts_segment *seg);     /* final rows; handles stay valid and record into nothing */
SHMTS_API int shmts_tick_start(shmts_segment *seg); /* 0, or an errno */
SHMTS_API void shmts_tick_stop(shmts_segment *seg);
SHMTS_API int shmts__tick(shmts_segment *seg, int64_t mono_ns);

SHMTS_API shmts_counter_t *shmts_counter(shmts_segment *seg, const char *name, const shmts_series *o);
SHMTS_API shmts_counter_f64_t *shmts_counter_f64(shmts_segment *seg, const char *name, const shmts_series *o);
SHMTS_API shmts_updown_t *shmts_updown(shmts_segment *seg, const char *name, const shmts_series *o);
SHMTS_API shmts_gauge_t *shmts_gauge(shmts_segment *seg, const char *name, const shmts_series *o);
SHMTS_API shmts_gauge_i64_t *shmts_gauge_i64(shmts_segment *seg, const char *name, const shmts_series *o);
SHMTS_API shmts_stat_t *shmts_stat(shmts_segment *seg, const char *name, const shmts_series *o);
SHMTS_API shmts_histogram_t *shmts_histogram(shmts_segment *seg, const char *name, const shmts_series *o);
SHMTS_API shmts_histogram_u64_t *shmts_histogram_u64(shmts_segment *seg, const char *name, const shmts_series *o);
#define shmts_retire(handle) shmts__retire(&(handle)->s)
SHMTS_API void shmts__retire(shmts__series *s);

/* A lane is one thread's at a time, but may be handed on. Where none is free it is the overflow lane, atomic and counted. */
SHMTS_API shmts_lane *shmts_lane_claim(shmts_segment *seg);
SHMTS_API void shmts_lane_release(shmts_lane *lane);

/* ---- record: FORMAT.md 7. h is a handle, k a lane, x says whether others store into that lane too (a constant). ---- */

#define SHMTS__RARE(x) __builtin_expect(!!(x), 0)
#define SHMTS__SEGMENTS 32u
#define SHMTS__OVERFLOW 255u
extern SHMTS_API SHMTS_TLS __thread uint8_t shmts__tls[SHMTS__SEGMENTS]; /* by segment: 0 not yet, else the thread's lane */
SHMTS_API uint32_t shmts__tls_claim(uint32_t tls);

static inline uint64_t shmts__load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void shmts__store(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
static inline double shmts__f64(uint64_t b) { double v; __builtin_memcpy(&v, &b, 8); return v; }
static inline uint64_t shmts__bits(double v) { uint64_t b; __builtin_memcpy(&b, &v, 8); return b; }
static inline uint64_t *shmts__cell(const shmts__series *s, uint32_t k) {
	return (uint64_t *)(void *)(__atomic_load_n(&s->cell, __ATOMIC_RELAXED) + (size_t)k * s->stride);
}
static inline void shmts__bump(uint64_t *c, uint64_t n, int x) {
	if (x) __atomic_fetch_add(c, n, __ATOMIC_RELAXED);
	else shmts__store(c, shmts__load(c) + n);
}
static inline void shmts__bump_f64(uint64_t *c, double n, int x) {
	uint64_t old = shmts__load(c);
	if (!x) { shmts__store(c, shmts__bits(shmts__f64(old) + n)); return; }
	while (!__atomic_compare_exchange_n(c, &old, shmts__bits(shmts__f64(old) + n), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}
/* Whether n is finite and not below least; if not, it is counted and not recorded. */
static inline int shmts__ok(const shmts__series *s, double n, double least) {
	if (SHMTS__RARE(!(n >= least && n <= 1.7976931348623157e308))) {
		__atomic_fetch_add(__atomic_load_n(&s->rejected, __ATOMIC_RELAXED), 1, __ATOMIC_RELAXED);
		return 0;
	}
	return 1;
}
/* min or max of the overflow lane's window: empty(r) is the NaN to begin from, another one says that the window has gone. 7.1 */
static inline void shmts__widen(uint64_t *c, uint64_t r, double v, int up) {
	uint64_t old = shmts__load(c);
	do {
		double was = shmts__f64(old);
		if (was != was ? old != 0x7ff8000000000000u + (r & 0x7ffffffffffffu) : up ? v <= was : v >= was) return;
	} while (!__atomic_compare_exchange_n(c, &old, shmts__bits(v), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}
/* The cell of a histogram's v >= 0: 9. Cell 1 holds what lies below the buckets, s->above what lies above them. */
static inline uint64_t *shmts__bucket(const shmts__series *s, uint64_t *c, double v) {
	uint64_t m = (shmts__bits(v) & 0x7fffffffffffffffu) - 1, f = m & 0xfffffffffffffu; /* 0: -1, below all */
	uint32_t j = s->bounds->first[f >> (51 - s->scale)];
	int32_t  at;
	j += f >= s->bounds->bound[j + 1];
	at = (int32_t)((uint32_t)((int64_t)m >> 52) << s->scale) + (int32_t)j + s->bias;
	at = at < 1 ? 1 : at;
	return c + (at > s->above ? s->above : at);
}

static inline void shmts__do_add(shmts_counter_t *h, uint32_t k, uint64_t n, int x) { shmts__bump(shmts__cell(&h->s, k), n, x); }
static inline void shmts__do_add_i64(shmts_updown_t *h, uint32_t k, int64_t n, int x) { shmts__bump(shmts__cell(&h->s, k), (uint64_t)n, x); }
static inline void shmts__do_add_f64(shmts_counter_f64_t *h, uint32_t k, double n, int x) {
	if (shmts__ok(&h->s, n, 0)) shmts__bump_f64(shmts__cell(&h->s, k), n, x);
}
static inline void shmts__do_observe(shmts_histogram_t *h, uint32_t k, double v, int x) {
	uint64_t *c = shmts__cell(&h->s, k);
	if (!shmts__ok(&h->s, v, 0)) return;
	shmts__bump(shmts__bucket(&h->s, c, v), 1, x);
	shmts__bump_f64(c, v, x);
}
static inline void shmts__do_observe_u64(shmts_histogram_u64_t *h, uint32_t k, uint64_t v, int x) {
	uint64_t *c = shmts__cell(&h->s, k);
	shmts__bump(shmts__bucket(&h->s, c, (double)v), 1, x);
	shmts__bump(c, v, x);
}
static inline void shmts__do_record(shmts_stat_t *h, uint32_t k, double v, int x) {
	uint64_t *c = shmts__cell(&h->s, k), *w, r, b = shmts__bits(v);
	if (!shmts__ok(&h->s, v, h->s.least)) return;
	r = __atomic_load_n(__atomic_load_n(&h->s.open_row, __ATOMIC_RELAXED), __ATOMIC_ACQUIRE);
	w = c + 2 + 3 * (r & 1); /* tag, min, max */
	if (x) {
		if (__atomic_load_n(w, __ATOMIC_ACQUIRE) == r) { shmts__widen(w + 1, r, v, 0); shmts__widen(w + 2, r, v, 1); }
	} else if (shmts__load(w) != r) {
		shmts__store(w + 1, b);
		shmts__store(w + 2, b);
		__atomic_store_n(w, r, __ATOMIC_RELEASE);
	} else {
		if (v < shmts__f64(shmts__load(w + 1))) shmts__store(w + 1, b);
		if (v > shmts__f64(shmts__load(w + 2))) shmts__store(w + 2, b);
	}
	shmts__bump(c, 1, x);
	shmts__bump_f64(c + 1, v, x);
	shmts__store(__atomic_load_n(&h->s.shared, __ATOMIC_RELAXED), b);
}

#define SHMTS__CALLS(name, handle, number_type)                                                                   \
	static inline void shmts_##name(handle *h, number_type n) { shmts__do_##name(h, 0, n, 0); }                   \
	static inline void shmts_atomic_##name(handle *h, number_type n) { shmts__do_##name(h, h->s.lanes, n, 1); }   \
	static inline void shmts_lane_##name(const shmts_lane *lane, handle *h, number_type n) {                      \
		if (SHMTS__RARE(lane->number >= h->s.lanes)) shmts_atomic_##name(h, n);                                   \
		else shmts__do_##name(h, lane->number, n, 0);                                                             \
	}                                                                                                             \
	static inline void shmts_tls_##name(handle *h, number_type n) {                                               \
		uint32_t k = shmts__tls[h->s.tls];                                                                        \
		if (SHMTS__RARE(k == 0)) k = shmts__tls_claim(h->s.tls);                                                  \
		if (SHMTS__RARE(k == SHMTS__OVERFLOW)) shmts_atomic_##name(h, n);                                         \
		else shmts__do_##name(h, k, n, 0);                                                                        \
	}
SHMTS__CALLS(add, shmts_counter_t, uint64_t)
SHMTS__CALLS(add_f64, shmts_counter_f64_t, double)
SHMTS__CALLS(add_i64, shmts_updown_t, int64_t)
SHMTS__CALLS(record, shmts_stat_t, double)
SHMTS__CALLS(observe, shmts_histogram_t, double)
SHMTS__CALLS(observe_u64, shmts_histogram_u64_t, uint64_t)

static inline void shmts_set(shmts_gauge_t *h, double v) {
	uint64_t b = shmts__bits(v);
	shmts__store(__atomic_load_n(&h->s.shared, __ATOMIC_RELAXED), b == SHMTS_UNSET_F64 ? 0x7ff8000000000001u : b);
}
static inline void shmts_set_i64(shmts_gauge_i64_t *h, int64_t v) {
	shmts__store(__atomic_load_n(&h->s.shared, __ATOMIC_RELAXED), (uint64_t)(v == INT64_MIN ? v + 1 : v));
}

/* FORMAT.md 10.12. What was recorded of h, with its trace: any thread and signal handlers. What is no legal record leaves none. */
SHMTS_API void shmts__leave(shmts__series *s, double v, const shmts_exemplar *x);
static inline void shmts__offer(shmts__series *s, double v, const shmts_exemplar *x) {
	uint64_t r = shmts__load(__atomic_load_n(&s->open_row, __ATOMIC_RELAXED));
	if (r != shmts__load(&s->taken_row) || v > shmts__f64(shmts__load(&s->taken_most))) shmts__leave(s, v, x);
}
static inline void shmts_exemplar_counter(shmts_counter_t *h, uint64_t n, const shmts_exemplar *x) { shmts__offer(&h->s, (double)n, x); }
static inline void shmts_exemplar_counter_f64(shmts_counter_f64_t *h, double n, const shmts_exemplar *x) { shmts__offer(&h->s, n, x); }
static inline void shmts_exemplar_histogram(shmts_histogram_t *h, double v, const shmts_exemplar *x) { shmts__offer(&h->s, v, x); }
static inline void shmts_exemplar_histogram_u64(shmts_histogram_u64_t *h, uint64_t v, const shmts_exemplar *x) { shmts__offer(&h->s, (double)v, x); }

/* Publishes rows where a step has gone by: a compare where none has. mono_ns is CLOCK_MONOTONIC's, 0 to have it read. Answers how
 * many rows. Any thread: one does it, others return at once. */
static inline int shmts_tick(shmts_segment *seg, int64_t mono_ns) {
	if (mono_ns != 0 && mono_ns < __atomic_load_n(&seg->due, __ATOMIC_RELAXED)) return 0;
	return shmts__tick(seg, mono_ns);
}

#ifdef __cplusplus
}
#endif
#endif /* SHMTS_H */

#if defined(SHMTS_IMPLEMENTATION) && !defined(SHMTS__IMPLEMENTED)
#define SHMTS__IMPLEMENTED
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#if !defined(O_TMPFILE) || !defined(F_OFD_SETLK)
#error "shmts: want _GNU_SOURCE before the first header: include shmts.h first in the file with SHMTS_IMPLEMENTATION"
#endif

/* A run is neighbouring cells of a row that are made in the same way. */
enum { SHMTS__SUM_U64, SHMTS__SUM_F64, SHMTS__TOTAL_F64 /* never falls */, SHMTS__SHARED, SHMTS__WINDOW /* a stat's min and max */ };
typedef struct shmts__run { uint32_t op, row, from, n; } shmts__run;
typedef struct shmts__slot { /* what a descriptor holds, and more */
	shmts_series_desc   d;
	char               *text; /* its strings, kept for a fork's child, who can't see the parent's segment */
	uint32_t            room, hash, owns_cells, in_rows;
	struct shmts__slot *next; /* of the same hash */
	shmts__series      *handle; struct shmts__part *part;
} shmts__slot;
typedef struct shmts__ptable { /* a table's ticks */
	const shmts_table_desc *d;
	uint32_t    row_used, lane_used, shared_used, run_count;
	uint64_t    open_row, head[SHMTS_MAX_TIERS], period[SHMTS_MAX_TIERS]; int64_t last_t[SHMTS_MAX_TIERS];
	uint64_t   *stage, *fold[SHMTS_MAX_TIERS]; /* the row being made; min and max since a coarser tier's last row */
	uint64_t   *moved;                         /* see shmts__move */
	shmts__run *runs;
} shmts__ptable;
typedef struct shmts__part { /* one segment; the first, or one grown into (10.7) */
	struct shmts__seg *g;
	char        *base; /* where it lies, until the process ends */
	char        *twin; /* private memory of the same shape: where retired handles point, at the same offsets */
	char        *old;  /* private memory that it was, before it could be born */
	uint32_t     index, born, old_ticks, dirty, series_used, heap_used, graves;
	uint8_t      id[16], group[16];
	int64_t      birth_unix, birth_mono; uint64_t birth_error;
	shmts__slot *slots; shmts__ptable table[SHMTS_MAX_TABLES];
	char         path[640];
} shmts__part;
typedef struct shmts__seg {
	shmts_segment pub; /* first: a shmts_segment * is one of these */
	pthread_mutex_t lock; struct shmts__seg *next;
	uint32_t    tls, lanes, part_max, part_count, closed, sealed, failed, birth_failed, sampled, lazy_fork, mode, epoch, own_instance;
	shmts__part parts[SHMTS_MAX_GROUP];
	uint64_t    claimed, claimed_by_tls, ever; /* lanes, by bit */
	shmts_lane  lane[SHMTS_MAX_LANES + 1];
	uint32_t    header_size, table_count, series_count, heap_size, source_at, buckets;
	uint64_t    total, control_at, series_at, heap_at, lanes_at, rows_at, exemplars_at, exemplars;
	shmts__slot **by_hash; char *arena; size_t arena_left;
	int64_t     retry_at, backoff, offset; /* unix minus mono time at the last tick, or at birth */
	void      (*clock)(void *, int64_t *, int64_t *); void *clock_arg;
	pthread_t   thread; pthread_mutex_t thread_lock; pthread_cond_t thread_wake; uint32_t ticking, thread_stop;
	shmts__series sink;                              /* what could not be had records here */
	uint64_t    sink_shared[16], sink_cells[SHMTS_MAX_LANES + 1][16]; /* a lane has its own lines */
	uint8_t     test_id[16]; uint32_t has_test_id;
	char        error[400], dir[400], stem[65], job[1024], instance[1024];
	char        scratch[68 * 1024];
	char        header[SHMTS_MAX_HEADER] __attribute__((aligned(64))); /* as it will stand in every segment, but for ids and times */
} shmts__seg;

__thread uint8_t shmts__tls[SHMTS__SEGMENTS];
static shmts__scale shmts__scales[SHMTS_MAX_SCALE + 1];
static shmts__seg  *shmts__all;                    /* every segment ever opened: fork looks after them */
static shmts__seg  *shmts__by_tls[SHMTS__SEGMENTS]; /* the last one stays NULL: more segments have no TLS lanes */
static shmts__seg   shmts__none;                   /* where there is not even memory */
static pthread_mutex_t shmts__global = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t  shmts__once = PTHREAD_ONCE_INIT;
static pthread_key_t   shmts__key; static int shmts__has_key;
static int shmts__fail(shmts__seg *g, const char *format, ...) __attribute__((format(printf, 2, 3)));
static int shmts__fail(shmts__seg *g, const char *format, ...) {
	va_list args;
	if (__atomic_load_n(&g->failed, __ATOMIC_ACQUIRE)) return 0; /* the first counts */
	va_start(args, format); vsnprintf(g->error, sizeof g->error, format, args); va_end(args); __atomic_store_n(&g->failed, 1, __ATOMIC_RELEASE);
	return 0;
}
static uint64_t shmts__up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
static int64_t shmts__ns(clockid_t id) { struct timespec ts = {0, 0}; clock_gettime(id, &ts); return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec; }
static void shmts__now(shmts__seg *g, int64_t *unix_ns, int64_t *mono) {
	if (g->clock) { g->clock(g->clock_arg, unix_ns, mono); return; }
	*mono = shmts__ns(CLOCK_MONOTONIC); *unix_ns = shmts__ns(CLOCK_REALTIME);
}
static char *shmts__pages(size_t n) { /* zeroed, paid for when touched; NULL where there is none */
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0); return p == MAP_FAILED ? NULL : (char *)p;
}
static void *shmts__arena(shmts__seg *g, size_t n) {
	char *p;
	n = shmts__up(n, 64);
	if (n > 1 << 16) return shmts__pages(n);
	if (n > g->arena_left) {
		if (!(p = shmts__pages(1 << 18))) return NULL;
		g->arena = p; g->arena_left = 1 << 18;
	}
	p = g->arena; g->arena += n; g->arena_left -= n; return p;
}
/* 8.3: the state of a sum, four streams that overlap. */
typedef struct shmts__summer { uint64_t a, b, c, d; } shmts__summer;
#define SHMTS__P 0x9e3779b185ebca87u
#define SHMTS__ROTL(x, n) ((x) << (n) | (x) >> (64 - (n)))
#define SHMTS__MIX(a, w) ((a) = SHMTS__ROTL((a) ^ (w), 29) * SHMTS__P)
static shmts__summer shmts__sum_begin(uint64_t seed) { shmts__summer s = {SHMTS__P, 0xc2b2ae3d27d4eb4fu, 0x165667b19e3779f9u, seed}; return s; }
static uint64_t shmts__sum_end(shmts__summer s) {
	uint64_t h = SHMTS__ROTL(s.a, 1) + SHMTS__ROTL(s.b, 7) + SHMTS__ROTL(s.c, 12) + SHMTS__ROTL(s.d, 18);
	h = (h ^ h >> 33) * 0xc2b2ae3d27d4eb4fu; h = (h ^ h >> 29) * 0x165667b19e3779f9u; return h ^ h >> 32;
}
typedef uint64_t shmts__any64 __attribute__((may_alias));
static uint64_t shmts__words_sum(uint64_t seed, const shmts__any64 *w, size_t n) { /* n a multiple of 4 */
	shmts__summer s = shmts__sum_begin(seed);
	for (size_t i = 0; i < n; i += 4) { SHMTS__MIX(s.a, w[i]); SHMTS__MIX(s.b, w[i + 1]); SHMTS__MIX(s.c, w[i + 2]); SHMTS__MIX(s.d, w[i + 3]); }
	return shmts__sum_end(s);
}
/* ---- what lies where in a segment ---- */
static uint64_t *shmts__at(char *base, uint64_t offset) { return (uint64_t *)(void *)(base + offset); }
static shmts_control *shmts__control(const shmts__part *p) {
	return (shmts_control *)(void *)(__atomic_load_n(&p->base, __ATOMIC_ACQUIRE) + p->g->control_at);
}
static shmts_table_control *shmts__table_control(const shmts__part *p, uint32_t ti) { return &shmts__control(p)->table0 + ti; }
static void shmts__move_epoch(shmts__seg *g) {
	g->epoch++; for (uint32_t i = 0; i < g->part_count && !g->closed; i++) __atomic_store_n(&shmts__control(&g->parts[i])->epoch, g->epoch, __ATOMIC_RELEASE);
}
/* The clocks for a tick. One that jumped, seen twice since this thread may be stopped between two readings, moves the epoch: 10.9. */
static void shmts__tick_now(shmts__seg *g, int64_t *unix_ns, int64_t *mono) {
	for (int seen = 0; seen < 2; seen++) {
		shmts__now(g, unix_ns, mono);
		if (*unix_ns - *mono - g->offset <= 500000000 && g->offset - (*unix_ns - *mono) <= 500000000) break;
		if (seen && !g->sampled) shmts__move_epoch(g);
	}
	g->offset = *unix_ns - *mono;
}
static const shmts_tier *shmts__tier(const shmts_table_desc *d, uint32_t j) { return &d->tier0 + j; }
static uint64_t *shmts__lane_at(const shmts_table_desc *d, char *base, uint32_t k) { return shmts__at(base, d->lanes_offset + (uint64_t)k * d->lane_stride); }
static uint64_t shmts__word(const uint8_t *id, int i) { uint64_t w; memcpy(&w, id + 8 * i, 8); return w; }
static void shmts__cells(const shmts_series_desc *d, uint32_t *row, uint32_t *lane, uint32_t *shared) { /* 6.2 */
	uint32_t b = (uint32_t)d->buckets + 3;
	*row = d->kind == SHMTS_STAT ? 5 : d->kind == SHMTS_HISTOGRAM ? b : 1;
	*lane = d->kind == SHMTS_STAT ? 8 : d->kind == SHMTS_HISTOGRAM ? b : d->kind != SHMTS_GAUGE;
	*shared = d->kind == SHMTS_STAT || d->kind == SHMTS_GAUGE;
}
/* ---- strings ---- */
static size_t shmts__utf8(const char *text, size_t most) { /* its length; most + 1 where it is longer, or is no UTF-8 */
	const unsigned char *t = (const unsigned char *)text; size_t i = 0;
	while (t[i] && i <= most) {
		unsigned c = t[i], n = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : c >= 0xe0 && c < 0xf0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;
		if (n == 9) return most + 1;
		if (n && ((t[i + 1] & 0xc0) != 0x80 || (c == 0xe0 && t[i + 1] < 0xa0) || (c == 0xed && t[i + 1] > 0x9f) ||
		          (c == 0xf0 && t[i + 1] < 0x90) || (c == 0xf4 && t[i + 1] > 0x8f))) return most + 1;
		if ((n > 1 && (t[i + 2] & 0xc0) != 0x80) || (n > 2 && (t[i + 3] & 0xc0) != 0x80)) return most + 1;
		i += n + 1;
	}
	return i > most ? most + 1 : i;
}
/* Writes the pair list of 6.4; fixed goes before list. Answers its bytes, 0 where it can't be. */
static size_t shmts__pairs(shmts__seg *g, char *out, const char *const *fixed, const char *const *list) {
	const char *pair[SHMTS_MAX_PAIRS][2], *const *from; uint32_t n = 0, i, k; size_t at = 2;
	for (k = 0; k < 2; k++) {
		for (from = k ? list : fixed; from && from[0]; from += 2) {
			if (!from[1]) return (size_t)shmts__fail(g, "shmts: labels: want name, value, ..., NULL, got no value for %.100s", from[0]);
			if (!from[1][0]) continue; /* the same as no pair */
			if (n == SHMTS_MAX_PAIRS) return (size_t)shmts__fail(g, "shmts: labels: want at most %u, got more", SHMTS_MAX_PAIRS);
			for (i = n++; i > 0 && strcmp(pair[i - 1][0], from[0]) > 0; i--) { pair[i][0] = pair[i - 1][0]; pair[i][1] = pair[i - 1][1]; }
			pair[i][0] = from[0]; pair[i][1] = from[1];
		}
	}
	memcpy(out, &n, 2);
	for (i = 0; i < n; i++) {
		size_t name = shmts__utf8(pair[i][0], 255), value = shmts__utf8(pair[i][1], 1023);
		if (name < 1 || name > 255) return (size_t)shmts__fail(g, "shmts: label name: want 1 to 255 bytes of UTF-8, got \"%.100s\"", pair[i][0]);
		if (value > 1023) return (size_t)shmts__fail(g, "shmts: value of label %.100s: want at most 1023 bytes of UTF-8, got \"%.100s\"", pair[i][0], pair[i][1]);
		if (i > 0 && strcmp(pair[i - 1][0], pair[i][0]) == 0) return (size_t)shmts__fail(g, "shmts: label %.100s: want it once, got it twice", pair[i][0]);
		if (at + 4 + name + value > 65535) return (size_t)shmts__fail(g, "shmts: labels: want at most 65535 bytes together, got more (at %.100s)", pair[i][0]);
		memcpy(out + at, &name, 2); memcpy(out + at + 2, &value, 2); memcpy(out + at + 4, pair[i][0], name);
		memcpy(out + at + 4 + name, pair[i][1], value); at += 4 + name + value;
	}
	return at;
}
/* ---- layout: FORMAT.md 4, as Go's layout.NewHeader does it ---- */
#define SHMTS__MIN_ROWS 8u     /* no ring is shortened below */
#define SHMTS__TABLES_AT 512u  /* behind 8 sections */
static void shmts__section(shmts__seg *g, uint32_t i, uint32_t type, uint64_t offset, uint64_t count, uint32_t element) {
	shmts_section s = {type, (uint32_t)count, offset, count * element, element, 0};
	memcpy(g->header + 256 + 32 * i, &s, sizeof s);
}
/* Lays out the segment for tables whose rings are shortened to share/1024; false with an error where it can't be. */
static int shmts__lay(shmts__seg *g, const shmts_table *tables, uint32_t share) {
	uint64_t at = g->header_size, rows_at; shmts_table_desc *desc = (shmts_table_desc *)(void *)(g->header + SHMTS__TABLES_AT);
	shmts_superblock *sb = (shmts_superblock *)(void *)g->header;
	g->control_at = at; g->series_at = at += 640; g->heap_at = at += (uint64_t)g->series_count * 64;
	g->lanes_at = at = shmts__up(at + g->heap_size, 64);
	for (uint32_t i = 0; i < g->table_count; i++) {
		const shmts_table *t = &tables[i]; shmts_table_desc d; uint64_t h = (uint64_t)t->histograms * (t->buckets + 3), stride;
		uint64_t row = t->scalars + 5 * (uint64_t)t->stats + h, lane = t->scalars + 8 * (uint64_t)t->stats + h, shared = (uint64_t)t->scalars + t->stats;
		memset(&d, 0, sizeof d);
		if (lane < 1) lane = 1;
		if (!t->name || !t->name[0] || strlen(t->name) > 16) return shmts__fail(g, "shmts: table %u: want a name of 1 to 16 bytes, got \"%.100s\"", i, t->name ? t->name : "");
		for (uint32_t j = 0; j < i; j++) if (!strcmp(t->name, tables[j].name)) return shmts__fail(g, "shmts: table %u: want a name of its own, got %s", i, t->name);
		if (row < 1 || row > SHMTS_MAX_CELLS || lane > SHMTS_MAX_CELLS || shared > SHMTS_MAX_CELLS || t->buckets > SHMTS_MAX_BUCKETS)
			return shmts__fail(g, "shmts: table %s: want 1 to %u cells and at most %d buckets, got %llu cells and %u buckets", t->name, SHMTS_MAX_CELLS, SHMTS_MAX_BUCKETS, (unsigned long long)(row > lane ? row : lane), t->buckets);
		memcpy(d.name, t->name, strlen(t->name)); d.lanes = g->lanes; d.row_cells = (uint32_t)row; d.lane_cells = (uint32_t)lane;
		d.shared_cells = (uint32_t)shared; d.series_capacity = t->scalars + t->stats + t->histograms; stride = shmts__up(lane * 8, 64);
		if (stride % 4096 == 0) stride += 64; /* equal cells of all lanes would compete for one cache set */
		d.lane_stride = (uint32_t)stride; d.lanes_offset = at; at += (g->lanes + 1) * stride; d.shared_offset = at;
		at += shmts__up(shared * 8, 64); memcpy(&desc[i], &d, sizeof d);
	}
	rows_at = at;
	for (uint32_t i = 0; i < g->table_count; i++) {
		for (uint32_t j = 0; j < SHMTS_MAX_TIERS && tables[i].rings[j].rows && !g->sampled; j++) {
			const shmts_ring *r = &tables[i].rings[j]; shmts_tier t; uint32_t least = r->rows < SHMTS__MIN_ROWS ? r->rows : SHMTS__MIN_ROWS;
			memset(&t, 0, sizeof t); t.step = r->step_ns; t.rows = (uint32_t)((uint64_t)r->rows * share / 1024);
			if (t.rows < least) t.rows = least;
			t.row_stride = (uint32_t)shmts__up(64 + 8 * (uint64_t)desc[i].row_cells, 64); t.offset = at;
			if (t.step < 100000000u || t.step > 3600000000000u || (j > 0 && (t.step <= r[-1].step_ns || t.step % r[-1].step_ns)))
				return shmts__fail(g, "shmts: table %s, tier %u: want a step of 100 ms to 1 h, a multiple of the tier before, got %llu ns", tables[i].name, j, (unsigned long long)t.step);
			if (r->rows < 2 || r->rows > SHMTS_MAX_ROWS) return shmts__fail(g, "shmts: table %s, tier %u: want 2 to %u rows, got %u", tables[i].name, j, SHMTS_MAX_ROWS, r->rows);
			at += (uint64_t)t.rows * t.row_stride; memcpy(&desc[i].tier0 + j, &t, sizeof t); desc[i].tiers = j + 1;
		}
		if (desc[i].tiers == 0 && !g->sampled) return shmts__fail(g, "shmts: table %s: want 1 to %u tiers, got none", tables[i].name, SHMTS_MAX_TIERS);
	}
	g->rows_at = rows_at; g->exemplars_at = at; g->total = shmts__up(at + 64 * g->exemplars, 4096); shmts__section(g, 2, 1, g->control_at, 1, 640);
	shmts__section(g, 3, 4, g->series_at, g->series_count, 64); shmts__section(g, 4, 5, g->heap_at, g->heap_size, 1);
	shmts__section(g, 5, 6, g->lanes_at, (rows_at - g->lanes_at) / 8, 8); shmts__section(g, 6, 7, rows_at, (at - rows_at) / 8, 8);
	if (g->exemplars) shmts__section(g, 7, 8, at, g->exemplars, 64);
	memset(sb, 0, sizeof *sb); memcpy(sb->magic, "SHMTS\r\n\x1a", 8); sb->major = 1; sb->header_size = g->header_size;
	sb->total_size = g->total; sb->flags = g->sampled; sb->section_count = g->exemplars ? 8 : 7; sb->section_offset = 256;
	memcpy(sb->writer, SHMTS_VERSION, sizeof SHMTS_VERSION - 1);
	if (g->total > SHMTS_MAX_TOTAL) return shmts__fail(g, "shmts: want a segment of at most %u bytes, got %llu", SHMTS_MAX_TOTAL, (unsigned long long)g->total);
	return 1;
}
/* Source and sizes, then shmts__lay for as much of the rings as fits. False with an error. */
static int shmts__layout(shmts__seg *g, const shmts_options *o) {
	shmts_table two[2], *t = two; const shmts_table *tables = o->tables ? o->tables : two;
	const char *fixed[5] = {"job", g->job, "instance", g->instance, NULL};
	uint32_t i, series = o->series ? o->series : 100, stats = o->stats ? o->stats : series / 10, histograms = o->histograms ? o->histograms : series / 10;
	uint32_t fits = 0, over = 1024; uint64_t count = 0; size_t labels, attributes;
	memset(two, 0, sizeof two); t[0].name = "scalars";
	t[0].scalars = series > stats + histograms ? series - stats - histograms : 0; t[0].stats = stats;
	t[0].rings[0].step_ns = 1000000000u; t[0].rings[0].rows = 120; t[0].rings[1].step_ns = 10000000000u; t[0].rings[1].rows = 60;
	t[1].name = "histograms"; t[1].histograms = histograms; t[1].buckets = o->buckets ? o->buckets : 80;
	t[1].rings[0].step_ns = 10000000000u; t[1].rings[0].rows = 30; g->sampled = o->sampled != 0;
	g->lanes = o->lanes ? o->lanes : g->sampled ? 4 : 8; g->part_max = o->segments ? o->segments : SHMTS_MAX_GROUP;
	g->mode = o->mode ? o->mode : 0444; g->table_count = o->tables ? o->table_count : histograms ? 2 : 1;
	if (g->lanes > SHMTS_MAX_LANES) { i = g->lanes; g->lanes = 1; return shmts__fail(g, "shmts: lanes: want 1 to %u, got %u", SHMTS_MAX_LANES, i); }
	if (o->exemplars > SHMTS_MAX_EXEMPLARS) return shmts__fail(g, "shmts: exemplars: want at most %d, got %d", SHMTS_MAX_EXEMPLARS, o->exemplars);
	for (g->exemplars = o->exemplars < 0 ? 0 : o->exemplars ? 2 : 64; o->exemplars > 0 && g->exemplars < (uint64_t)o->exemplars; g->exemplars *= 2) {}
	if (g->part_max > SHMTS_MAX_GROUP) return shmts__fail(g, "shmts: segments: want 1 to %u, got %u", SHMTS_MAX_GROUP, g->part_max);
	if (g->mode != 0444 && g->mode != 0440) return shmts__fail(g, "shmts: mode: want 0444 or 0440, got 0%o", g->mode);
	if (g->table_count < 1 || g->table_count > SHMTS_MAX_TABLES) return shmts__fail(g, "shmts: tables: want 1 to %u, got %u", SHMTS_MAX_TABLES, g->table_count);
	for (i = 0; i < g->table_count; i++) count += (uint64_t)tables[i].scalars + tables[i].stats + tables[i].histograms;
	count += count / 4; /* a retired series' descriptor stays until its rows have left the rings */
	if (count < 1 || count > SHMTS_MAX_SERIES) return shmts__fail(g, "shmts: series: want 1 to %u with a quarter to spare, got %llu", SHMTS_MAX_SERIES, (unsigned long long)count);
	g->series_count = (uint32_t)count; g->heap_size = o->heap_bytes ? o->heap_bytes : g->series_count * 128;
	if (g->heap_size > SHMTS_MAX_TOTAL) return shmts__fail(g, "shmts: heap: want at most %u bytes, got %u", SHMTS_MAX_TOTAL, g->heap_size);
	memset(g->header, 0, SHMTS__TABLES_AT); shmts__section(g, 0, 2, SHMTS__TABLES_AT, g->table_count, 256);
	g->source_at = SHMTS__TABLES_AT + 256 * g->table_count; labels = shmts__pairs(g, g->scratch, fixed, o->labels);
	if (!labels) return 0;
	if (g->source_at + labels > SHMTS_MAX_HEADER) return shmts__fail(g, "shmts: labels: want a header of at most %u bytes, got %zu of labels", SHMTS_MAX_HEADER, labels);
	memcpy(g->header + g->source_at, g->scratch, labels); attributes = shmts__pairs(g, g->scratch, NULL, o->attributes);
	if (!attributes) return 0;
	if (shmts__up(g->source_at + labels + attributes, 64) > SHMTS_MAX_HEADER)
		return shmts__fail(g, "shmts: labels and attributes: want a header of at most %u bytes, got %zu of them", SHMTS_MAX_HEADER, labels + attributes);
	memcpy(g->header + g->source_at + labels, g->scratch, attributes); shmts__section(g, 1, 3, g->source_at, labels + attributes, 1);
	g->header_size = (uint32_t)shmts__up(g->source_at + labels + attributes, 64);
	if (!shmts__lay(g, tables, 1024)) return 0;
	if (!o->max_bytes || g->total <= o->max_bytes) return 1;
	shmts__lay(g, tables, 0);
	if (g->total > o->max_bytes)
		return shmts__fail(g, "shmts: max_bytes: want at least %llu for these tables with %u rows a tier, got %u", (unsigned long long)g->total, SHMTS__MIN_ROWS, o->max_bytes);
	while (over - fits > 1) {
		uint32_t half = (fits + over) / 2;
		shmts__lay(g, tables, half);
		if (g->total <= o->max_bytes) fits = half; else over = half;
	}
	return shmts__lay(g, tables, fits);
}
/* Job, instance, stem and store, as far as they do not depend on the tables. */
static void shmts__names(shmts__seg *g, const shmts_options *o) {
	const char *dir = o->dir && o->dir[0] ? o->dir : getenv("SHMTS_DIR"); char host[256] = "localhost"; size_t i;
	snprintf(g->job, sizeof g->job, "%s", o->job && o->job[0] ? o->job : program_invocation_short_name);
	g->own_instance = !o->instance || !o->instance[0];
	if (g->own_instance) {
		gethostname(host, sizeof host - 1); snprintf(g->instance, sizeof g->instance, "%s:%ld", host, (long)getpid());
	} else { snprintf(g->instance, sizeof g->instance, "%s", o->instance); }
	snprintf(g->dir, sizeof g->dir, "%s", dir ? dir : ""); /* "": the default store */
	for (i = 0; i < 64 && g->job[i]; i++) {
		char c = g->job[i];
		g->stem[i] = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' ? c : '_';
	}
	g->stem[i] = 0;
	if (!i) memcpy(g->stem, "segment", 8);
}
SHMTS_API uint64_t shmts_plan(const shmts_options *o) {
	shmts_options none; shmts__seg *g = (shmts__seg *)(void *)shmts__pages(sizeof *g); uint64_t total;
	memset(&none, 0, sizeof none);
	if (!g) return 0;
	shmts__names(g, o ? o : &none); total = shmts__layout(g, o ? o : &none) ? g->total : 0; munmap(g, sizeof *g); return total;
}
/* ---- birth: FORMAT.md 10.1 ---- */
static void shmts__random(uint8_t *id) {
	uint64_t w[2] = {0, 0};
	if (syscall(SYS_getrandom, w, sizeof w, 0) != (long)sizeof w) { /* a kernel or sandbox without it */
		w[0] = ((uint64_t)shmts__ns(CLOCK_MONOTONIC) ^ (uint64_t)getpid() << 40) * SHMTS__P;
		w[1] = ((uint64_t)shmts__ns(CLOCK_REALTIME) ^ (uint64_t)(uintptr_t)&w) * SHMTS__P;
	}
	memcpy(id, w, 16);
}
static void shmts__boot_id(uint8_t *id) { /* stays zero where it is unknown */
	char text[40] = ""; int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0) return;
	if (read(fd, text, 36) == 36) for (int i = 0, n = 0; i < 36 && n < 16; i += 2) { i += text[i] == '-'; sscanf(text + i, "%2hhx", &id[n++]); }
	close(fd);
}
static void shmts__prepare(uint64_t *stat, uint64_t r) { /* the overflow lane's window of row r: 7.1 */
	uint64_t *w = stat + 2 + 3 * (r & 1), empty = 0x7ff8000000000000u + (r & 0x7ffffffffffffu);
	shmts__store(w + 1, empty); shmts__store(w + 2, empty); __atomic_store_n(w, r, __ATOMIC_RELEASE);
}
/* Zeroes a series' cells, gauges and last to unset, and prepares the overflow lane's window: 10.2. */
static void shmts__zero_cells(shmts__part *p, char *base, const shmts_series_desc *d) {
	const shmts__ptable *t = &p->table[d->table]; uint32_t row, lane, shared;
	shmts__cells(d, &row, &lane, &shared);
	for (uint32_t k = 0; k <= t->d->lanes; k++) for (uint32_t i = 0; i < lane; i++) shmts__store(shmts__lane_at(t->d, base, k) + d->lane_cell + i, 0);
	if (shared) shmts__store(shmts__at(base, t->d->shared_offset) + d->shared_cell, d->number == SHMTS_I64 ? SHMTS_UNSET_I64 : SHMTS_UNSET_F64);
	if (d->kind == SHMTS_STAT) shmts__prepare(shmts__lane_at(t->d, base, t->d->lanes) + d->lane_cell, t->open_row);
}
/* Stores a descriptor and its strings, live last of all: 10.2. */
static void shmts__store_series(shmts__part *p, char *base, const shmts__slot *s) {
	uint64_t *to = shmts__at(base, p->g->series_at + 64 * (uint64_t)(s - p->slots)), w[8];
	memcpy(w, &s->d, 64); shmts__store(to, (w[0] & ~(uint64_t)0xff) | 1); __atomic_thread_fence(__ATOMIC_RELEASE);
	memcpy(base + p->g->heap_at + s->d.strings, s->text, (size_t)s->d.name_length + s->d.unit_length + s->d.help_length + s->d.labels_length);
	for (size_t i = 1; i < 8; i++) shmts__store(to + i, w[i]);
	__atomic_store_n(to, w[0], __ATOMIC_RELEASE);
}
/* Fills memory that has no name yet. image: the private memory that the segment was so far, or NULL. */
static void shmts__fill(shmts__part *p, char *base, const char *image) {
	shmts__seg *g = p->g; shmts_superblock *sb = (shmts_superblock *)(void *)base; shmts_control *c = (shmts_control *)(void *)(base + g->control_at);
	struct stat st;
	memcpy(base, g->header, g->header_size); memcpy(sb->segment_id, p->id, 16); memcpy(sb->group_id, p->group, 16);
	shmts__boot_id(sb->boot_id); sb->birth_unix = p->birth_unix; sb->birth_mono = p->birth_mono; sb->birth_error = p->birth_error;
	sb->pid = (uint32_t)getpid(); sb->uid = (uint32_t)geteuid();
	if (stat("/proc/self/ns/pid", &st) == 0) sb->pid_ns = st.st_ino;
	sb->group_index = p->index; sb->checksum = 0; sb->checksum = shmts__words_sum(0x53, shmts__at(base, 0), g->header_size / 8);
	memset(base + g->exemplars_at, 0, 64 * g->exemplars); /* page faults now, not in a record call */
	if (image) {
		memcpy(base + g->control_at, image + g->control_at, g->lanes_at - g->control_at); /* control, series, heap */
	} else {
		memset(c, 0, sizeof *c); c->state = 1; c->epoch = g->epoch; c->clock_offset = p->birth_unix - p->birth_mono;
		c->series_used = p->series_used; c->heap_used = p->heap_used;
		for (uint32_t i = 0; i < SHMTS_MAX_TABLES; i++) (&c->table0)[i].open_row = 1;
	}
	for (uint64_t i = 0; image && i < g->exemplars; i++) { /* those that are whole, and no number comes twice */
		const uint64_t *from = (const uint64_t *)(const void *)(image + g->exemplars_at + 64 * i); uint64_t *to = shmts__at(base, g->exemplars_at + 64 * i);
		uint64_t seq = __atomic_load_n(from, __ATOMIC_ACQUIRE);
		for (int k = 1; k < 8; k++) to[k] = shmts__load(from + k);
		__atomic_thread_fence(__ATOMIC_ACQUIRE); to[0] = seq & 1 || shmts__load(from) != seq ? 0 : seq;
		if (to[0] >> 1 > c->exemplars) c->exemplars = to[0] >> 1;
	}
	for (uint32_t i = 0; i < g->table_count; i++) {
		(&c->table0)[i].row_cells_used = p->table[i].row_used; (&c->table0)[i].lane_cells_used = p->table[i].lane_used;
		(&c->table0)[i].shared_cells_used = p->table[i].shared_used;
	}
	for (uint32_t i = 0; i < p->series_used; i++) {
		if (p->slots[i].owns_cells) shmts__zero_cells(p, base, &p->slots[i].d);
		if (!image && (p->slots[i].d.state & 0xff) == 2) shmts__store_series(p, base, &p->slots[i]);
	}
}
/* Opens the uid's directory in the store, and makes what FORMAT.md 2 lets a writer make. -1 with an error. */
static int shmts__open_dir(shmts__seg *g, char *path, size_t size) {
	const char *dir = g->dir[0] ? g->dir : "/dev/shm/shmts"; char uid[16];
	struct stat st; int store, fd, made;
	if (!g->dir[0] && (mkdir(dir, 01777) == 0 ? chmod(dir, 01777) /* the umask's bits */ : errno != EEXIST))
		return shmts__fail(g, "shmts: create the store %s, mode 1777: %s", dir, strerror(errno)) - 1;
	store = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (g->dir[0] ? 0 : O_NOFOLLOW));
	if (store < 0) return shmts__fail(g, "shmts: open the store %s: want a directory, got %s", dir, strerror(errno)) - 1;
	snprintf(uid, sizeof uid, "%u", (unsigned)geteuid()); snprintf(path, size, "%.400s/%s", dir, uid); made = mkdirat(store, uid, 0755);
	fd = made == 0 || errno == EEXIST ? openat(store, uid, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (fd < 0) shmts__fail(g, "shmts: open %s: want a directory, got %s", path, strerror(errno));
	close(store);
	if (fd < 0 || ((made || fchmod(fd, 0755) == 0) && fstat(fd, &st) == 0 && st.st_uid == geteuid())) return fd;
	shmts__fail(g, "shmts: directory %s: want owner %s and mode 0755, got another", path, uid); close(fd); return -1;
}
/* Gives birth to p's file. want: where it is to lie, or NULL. Answers where it lies, or NULL with an error. The caller holds locks that
 * fork() waits for: a child must not inherit the descriptor, and with it the lock. */
static char *shmts__birth(shmts__part *p, char *want, const char *image) {
	shmts__seg *g = p->g; char dir[512], name[128], proc[40], *base = NULL;
	int dirfd = shmts__open_dir(g, dir, sizeof dir), fd, error = 0, named = 0, dot; size_t at = 0, i;
	if (dirfd < 0) { g->birth_failed = 1; return NULL; }
	name[0] = '.'; /* without it the name proper */
	at = 1 + (size_t)snprintf(name + 1, sizeof name - 1, "%s.", g->stem);
	for (i = 0; i < 16; i++) at += (size_t)snprintf(name + at, 3, "%02x", p->id[i]);
	memcpy(name + at, ".shmts", 7);
	for (dot = 0; dot < 2 && !named; dot++) {
		struct rlimit limit; struct flock lock; void *m = MAP_FAILED; int tries = 0;
		fd = dot ? openat(dirfd, name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600) : openat(dirfd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (fd < 0 && dot) shmts__fail(g, "shmts: create a segment in %s: %s", dir, strerror(errno));
		if (fd < 0) continue;
		if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < g->total) { /* writing beyond it is a signal, not an error */
			shmts__fail(g, "shmts: segment in %s: want %llu bytes, got RLIMIT_FSIZE %llu", dir, (unsigned long long)g->total, (unsigned long long)limit.rlim_cur);
			error = EFBIG;
		}
		while (!error && (error = posix_fallocate(fd, 0, (off_t)g->total)) == EINTR && ++tries < 100) error = 0;
		if (error && error != EFBIG) shmts__fail(g, "shmts: segment in %s: want %llu bytes, got %s", dir, (unsigned long long)g->total, strerror(error));
		memset(&lock, 0, sizeof lock); lock.l_type = F_WRLCK;
		if (!error && fcntl(fd, F_OFD_SETLK, &lock)) shmts__fail(g, "shmts: lock a segment in %s: %s", dir, strerror(error = errno));
		if (!error) {
			m = mmap(want, g->total, PROT_READ | PROT_WRITE, MAP_SHARED | (want ? 0x100000 /* MAP_FIXED_NOREPLACE */ : 0), fd, 0);
			if (m == MAP_FAILED && want) m = mmap(NULL, g->total, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); /* taken: handles move */
			if (m == MAP_FAILED || madvise(m, g->total, MADV_DONTFORK)) shmts__fail(g, "shmts: map a segment in %s: %s", dir, strerror(error = errno));
		}
		if (!error) {
			base = (char *)m;
			if (madvise(base, shmts__up(g->rows_at, 4096) < g->total ? shmts__up(g->rows_at, 4096) : g->total, 23 /* MADV_POPULATE_WRITE */)) {} /* or at first use */
			shmts__fill(p, base, image);
			if (fchmod(fd, g->mode)) shmts__fail(g, "shmts: mode of a segment in %s: want 0%o, got %s", dir, g->mode, strerror(error = errno));
		}
		if (!error && !dot) {
			snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
			named = linkat(AT_FDCWD, proc, dirfd, name + 1, AT_SYMLINK_FOLLOW) == 0 || linkat(fd, "", dirfd, name + 1, AT_EMPTY_PATH) == 0;
		} else if (!error) {
			named = syscall(SYS_renameat2, dirfd, name, dirfd, name + 1, 1 /* RENAME_NOREPLACE */) == 0;
			if (!named && linkat(dirfd, name, dirfd, name + 1, 0) == 0) { named = 1; unlinkat(dirfd, name, 0); }
			if (!named) shmts__fail(g, "shmts: name a segment %s/%s: %s", dir, name + 1, strerror(errno));
		}
		if (!named && dot) unlinkat(dirfd, name, 0);
		if (!named && m != MAP_FAILED) munmap(m, g->total);
		close(fd); /* the mapping keeps the lock */
		if (error) break;
	}
	close(dirfd);
	if (!named) { g->birth_failed = 1; return NULL; }
	snprintf(p->path, sizeof p->path, "%.400s/%s", dir, name + 1); return base;
}
/* When a dead segment gave its last sign of life: its heartbeat, or its birth. INT64_MAX where that can't be read. */
static int64_t shmts__last_sign(int fd) {
	struct { shmts_superblock sb; shmts_section section[64]; } head; int64_t beat;
	if (pread(fd, &head, sizeof head, 0) != (ssize_t)sizeof head || memcmp(head.sb.magic, "SHMTS\r\n\032", 8)) return INT64_MAX;
	for (uint32_t i = 0; i < 64 && i < head.sb.section_count; i++)
		if (head.section[i].type == 1) return pread(fd, &beat, 8, (off_t)(head.section[i].offset + 8)) != 8 ? INT64_MAX : beat > head.sb.birth_mono ? beat : head.sb.birth_mono;
	return INT64_MAX;
}
/* Removes segments of this uid and stem that died ten minutes ago, but for the 16 last: FORMAT.md 10.11. getdents64, since readdir allocates. */
static void shmts__litter(shmts__seg *g) {
	struct { char name[128]; int64_t last; } kept[17];
	char buffer[4096] __attribute__((aligned(8))), path[512];
	int dir = shmts__open_dir(g, path, sizeof path), used = 0; long n; size_t stem = strlen(g->stem); unsigned short length;
	int64_t unix_ns, now; shmts__now(g, &unix_ns, &now);
	while (dir >= 0 && (n = syscall(SYS_getdents64, dir, buffer, sizeof buffer)) > 0) {
		for (long at = 0; at < n; at += length) {
			const char *name = buffer + at + 19; /* struct linux_dirent64: ino 8, off 8, reclen 2, type 1 */
			struct flock lock; struct stat st; int fd, oldest = 0; int64_t last = INT64_MAX;
			memcpy(&length, buffer + at + 16, 2); memset(&lock, 0, sizeof lock); lock.l_type = F_RDLCK;
			if (strlen(name) != stem + 39 || memcmp(name, g->stem, stem) || name[stem] != '.' || strspn(name + stem + 1, "0123456789abcdef") != 32 || strcmp(name + stem + 33, ".shmts")) continue;
			fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
			if (fd < 0) continue;
			if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK) last = shmts__last_sign(fd);
			close(fd);
			if (last == INT64_MAX) continue;
			memcpy(kept[used].name, name, strlen(name) + 1); kept[used++].last = last;
			if (used <= 16) continue;
			for (int i = 1; i < used; i++) if (kept[i].last < kept[oldest].last) oldest = i;
			if (now - kept[oldest].last > 600000000000) unlinkat(dir, kept[oldest].name, 0); /* no name comes back: ids are random */
			kept[oldest] = kept[--used];
		}
	}
	if (dir >= 0) close(dir);
}
/* ---- tick: FORMAT.md 10.4. The caller holds g->lock. ---- */
/* Cuts the table's rows into runs: again after every registration and retirement. r: the row to come. */
static void shmts__compile(shmts__part *p, uint64_t r0[]) {
	uint32_t i, ti, again = 0;
	for (ti = 0; ti < p->g->table_count; ti++) p->table[ti].run_count = 0;
	for (i = 0; i < p->series_used; i++) {
		const shmts_series_desc *d = &p->slots[i].d; shmts__ptable *t = &p->table[d->table];
		uint32_t row, lane, shared, step, n = 0; shmts__run make[4];
		if (!p->slots[i].in_rows) continue;
		shmts__cells(d, &row, &lane, &shared);
		if ((d->state & 0xff) != 2 && d->retired_row <= r0[d->table]) { /* its last row was the one before */
			memset(t->stage + d->row_cell, 0, 8 * (size_t)row); p->slots[i].in_rows = 0; continue;
		}
		again |= (d->state & 0xff) != 2;
#define SHMTS__MAKE(op_, row_, from_, n_) (make[n].op = (op_), make[n].row = d->row_cell + (row_), make[n].from = (from_), make[n++].n = (n_))
		switch (d->kind) {
		case SHMTS_GAUGE: SHMTS__MAKE(SHMTS__SHARED, 0, d->shared_cell, 1); break;
		case SHMTS_STAT:
			SHMTS__MAKE(SHMTS__SUM_U64, 0, d->lane_cell, 1); SHMTS__MAKE(d->flags & 1 ? SHMTS__TOTAL_F64 : SHMTS__SUM_F64, 1, d->lane_cell + 1, 1);
			SHMTS__MAKE(SHMTS__SHARED, 2, d->shared_cell, 1); SHMTS__MAKE(SHMTS__WINDOW, 3, d->lane_cell, 2); break;
		default:
			if (d->number == SHMTS_F64) SHMTS__MAKE(SHMTS__TOTAL_F64, 0, d->lane_cell, 1); else SHMTS__MAKE(SHMTS__SUM_U64, 0, d->lane_cell, 1);
			if (row > 1) SHMTS__MAKE(SHMTS__SUM_U64, 1, d->lane_cell + 1, row - 1);
		}
		for (step = 0; step < n; step++) {
			shmts__run *last = t->run_count ? &t->runs[t->run_count - 1] : NULL; const shmts__run *m = &make[step];
			if (last && last->op == m->op && m->op != SHMTS__WINDOW && last->row + last->n == m->row && last->from + last->n == m->from) last->n += m->n;
			else t->runs[t->run_count++] = *m;
		}
	}
	p->dirty = again;
}
/* out[i] = the sum over the lanes of their cells from + i. Blocks of 8 in registers; the compiler makes vectors of them. */
typedef uint64_t shmts__v2 __attribute__((vector_size(16), aligned(8), may_alias));
static void shmts__sum_u64(uint64_t *out, uint64_t *const *lane, uint32_t lanes, uint32_t from, uint32_t n) {
	uint32_t i, k;
	for (i = 0; i + 8 <= n; i += 8) {
		const shmts__v2 *l = (const shmts__v2 *)(const void *)(lane[0] + from + i);
		shmts__v2 a = l[0], b = l[1], c = l[2], d = l[3], *o = (shmts__v2 *)(void *)(out + i);
		for (k = 1; k < lanes; k++) { l = (const shmts__v2 *)(const void *)(lane[k] + from + i); a += l[0]; b += l[1]; c += l[2]; d += l[3]; }
		o[0] = a; o[1] = b; o[2] = c; o[3] = d;
	}
	for (; i < n; i++) for (out[i] = shmts__load(lane[0] + from + i), k = 1; k < lanes; k++) out[i] += shmts__load(lane[k] + from + i);
}
static uint64_t shmts__lower(uint64_t a, uint64_t b) { return a == SHMTS_UNSET_F64 || (b != SHMTS_UNSET_F64 && shmts__f64(b) < shmts__f64(a)) ? b : a; }
static uint64_t shmts__upper(uint64_t a, uint64_t b) { return a == SHMTS_UNSET_F64 || (b != SHMTS_UNSET_F64 && shmts__f64(b) > shmts__f64(a)) ? b : a; }

/* Takes the live cells at base into out, a row's cells; windows are those of row r. plain: no total is kept from falling. */
static void shmts__collect(const shmts__part *p, const shmts__ptable *t, char *base, uint64_t r, uint64_t *out, int plain) {
	uint64_t *lane[SHMTS_MAX_LANES + 1], ever = __atomic_load_n(&p->g->ever, __ATOMIC_ACQUIRE);
	const uint64_t *shared = shmts__at(base, t->d->shared_offset); uint32_t lanes = 0, i, j, k;
	for (k = 0; k <= t->d->lanes; k++) /* a lane that no thread ever claimed is zero; lane 0 and the overflow lane claim nobody */
		if (k == 0 || k == t->d->lanes || ever >> k & 1) lane[lanes++] = shmts__lane_at(t->d, base, k);
	for (i = 0; i < t->run_count; i++) {
		const shmts__run u = t->runs[i]; uint64_t *o = out + u.row;
		switch (u.op) {
		case SHMTS__SUM_U64: shmts__sum_u64(o, lane, lanes, u.from, u.n); break;
		case SHMTS__SHARED: for (j = 0; j < u.n; j++) o[j] = shmts__load(shared + u.from + j); break;
		case SHMTS__WINDOW:
			o[0] = o[1] = SHMTS_UNSET_F64;
			for (k = 0; k < lanes; k++) {
				const uint64_t *w = lane[k] + u.from + 2 + 3 * (r & 1); uint64_t least, most;
				if (__atomic_load_n(w, __ATOMIC_ACQUIRE) != r) continue;
				least = shmts__load(w + 1); most = shmts__load(w + 2);
				if (shmts__f64(least) == shmts__f64(least)) o[0] = shmts__lower(o[0], least); /* a NaN is no value: 7.1 */
				if (shmts__f64(most) == shmts__f64(most)) o[1] = shmts__upper(o[1], most);
			}
			break;
		default: /* f64, in the order of the lanes: 7 */
			for (j = 0; j < u.n; j++) {
				double a = shmts__f64(shmts__load(lane[0] + u.from + j));
				for (k = 1; k < lanes; k++) a += shmts__f64(shmts__load(lane[k] + u.from + j));
				if (u.op == SHMTS__SUM_F64 || plain || a > shmts__f64(o[j])) o[j] = shmts__bits(a);
			}
		}
	}
}
/* The writer's half of the seqlock: 10.3. (seq & ~1) + 1, not seq + 1: heals a row whose last owner died inside. */
static void shmts__publish(const shmts__part *p, uint32_t ti, uint32_t j, const shmts_row *h) {
	const shmts__ptable *t = &p->table[ti]; const shmts_tier *tier = shmts__tier(t->d, j);
	uint64_t *to = shmts__at(p->base, tier->offset + h->row_no % tier->rows * tier->row_stride), w[8];
	const uint64_t *c = t->stage; uint64_t seq = shmts__load(to) & ~(uint64_t)1; shmts__summer s = shmts__sum_begin(ti * 256 + j);
	uint32_t i, n = h->cells;
	memcpy(w, h, 64); SHMTS__MIX(s.a, shmts__word(p->id, 0)); SHMTS__MIX(s.b, shmts__word(p->id, 1)); SHMTS__MIX(s.c, w[1]); SHMTS__MIX(s.d, w[2]);
	SHMTS__MIX(s.a, w[3]); SHMTS__MIX(s.b, w[4]); SHMTS__MIX(s.c, w[5]); SHMTS__MIX(s.d, w[6]);
	shmts__store(to, seq + 1); __atomic_thread_fence(__ATOMIC_RELEASE);
	for (i = 1; i < 7; i++) shmts__store(to + i, w[i]);
#define SHMTS__PUT(stream, k) (shmts__store(to + 8 + i + (k), c[i + (k)]), SHMTS__MIX(stream, c[i + (k)]))
	for (i = 0; i + 4 <= n; i += 4) SHMTS__PUT(s.a, 0), SHMTS__PUT(s.b, 1), SHMTS__PUT(s.c, 2), SHMTS__PUT(s.d, 3);
	if (i < n) SHMTS__PUT(s.a, 0);
	if (i + 1 < n) SHMTS__PUT(s.b, 1);
	if (i + 2 < n) SHMTS__PUT(s.c, 2);
	shmts__store(to + 7, shmts__sum_end(s)); __atomic_store_n(to, seq + 2, __ATOMIC_RELEASE);
}
static uint64_t shmts__period(const shmts__part *p, uint64_t step, int64_t mono) { return ((uint64_t)mono + shmts__word(p->id, 0) % step) / step; }
static int shmts__tick_part(shmts__part *p, int64_t mono, int64_t offset, int final) {
	shmts__seg *g = p->g; shmts_control *c = shmts__control(p); uint64_t open_rows[SHMTS_MAX_TABLES]; int published = 0;
	for (uint32_t ti = 0; ti < g->table_count; ti++) open_rows[ti] = p->table[ti].open_row;
	if (p->dirty) shmts__compile(p, open_rows);
	for (uint32_t ti = 0; ti < g->table_count; ti++) {
		shmts__ptable *t = &p->table[ti]; uint64_t r = t->open_row; uint64_t *overflow = shmts__lane_at(t->d, p->base, t->d->lanes);
		if (t->d->tiers == 0 || (!final && shmts__period(p, t->d->tier0.step, mono) <= t->period[0])) continue;
		for (uint32_t i = 0; i < t->run_count; i++) if (t->runs[i].op == SHMTS__WINDOW) shmts__prepare(overflow + t->runs[i].from, r + 1);
		t->open_row = r + 1; __atomic_store_n(&shmts__table_control(p, ti)->open_row, r + 1, __ATOMIC_RELEASE);
		shmts__collect(p, t, p->base, r, t->stage, 0);
		for (uint32_t i = 0; i < t->run_count; i++)
			for (uint32_t j = 1; j < t->d->tiers && t->runs[i].op == SHMTS__WINDOW; j++) {
				uint64_t *fold = t->fold[j] + t->runs[i].row, *now = t->stage + t->runs[i].row;
				fold[0] = shmts__lower(fold[0], now[0]); fold[1] = shmts__upper(fold[1], now[1]);
			}
		for (uint32_t j = 0; j < t->d->tiers; j++) {
			uint64_t period = shmts__period(p, shmts__tier(t->d, j)->step, mono); shmts_row h;
			if (!final && period <= t->period[j]) continue;
			for (uint32_t i = 0; i < t->run_count && j > 0; i++) {
				uint64_t *fold = t->fold[j] + t->runs[i].row;
				if (t->runs[i].op == SHMTS__WINDOW) { memcpy(t->stage + t->runs[i].row, fold, 16); fold[0] = fold[1] = SHMTS_UNSET_F64; }
			}
			memset(&h, 0, sizeof h); h.row_no = t->head[j] + 1; h.t_begin = t->last_t[j]; h.t = mono + offset; h.t_mono = mono;
			h.base_row = r; h.cells = t->row_used; h.epoch = (uint16_t)g->epoch; h.flags = (uint16_t)final;
			shmts__publish(p, ti, j, &h); t->period[j] = period; t->head[j] = h.row_no; t->last_t[j] = h.t;
			__atomic_store_n(&shmts__table_control(p, ti)->head0 + j, h.row_no, __ATOMIC_RELEASE); published++;
		}
	}
	if (!published) return 0;
	__atomic_store_n(&c->heartbeat, mono, __ATOMIC_RELEASE); __atomic_store_n(&c->clock_offset, offset, __ATOMIC_RELAXED);
	__atomic_store_n(&c->ticks, c->ticks + 1, __ATOMIC_RELEASE); return published;
}
/* ---- private memory: where no file can be had, or not yet ---- */
/* Points every live handle of p to the same offsets from another base. A record in flight may still end in the old memory. */
static void shmts__point(shmts__series *h, ptrdiff_t by) {
	__atomic_store_n(&h->cell, h->cell + by, __ATOMIC_RELEASE);
	__atomic_store_n(&h->shared, (uint64_t *)(void *)((char *)h->shared + by), __ATOMIC_RELEASE);
	__atomic_store_n(&h->open_row, (uint64_t *)(void *)((char *)h->open_row + by), __ATOMIC_RELEASE);
	__atomic_store_n(&h->rejected, (uint64_t *)(void *)((char *)h->rejected + by), __ATOMIC_RELEASE);
}
static void shmts__rebase(shmts__part *p, char *base) {
	ptrdiff_t by = base - p->base; __atomic_store_n(&p->base, base, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < p->series_used && by; i++)
		if (p->slots[i].handle && (p->slots[i].d.state & 0xff) == 2) shmts__point(p->slots[i].handle, by);
}
/* Adds what the private memory holds, and was not moved yet, into the segment's overflow lane: all of it the first time, and for some
 * ticks more what records in flight still left there. So the first row covers everything since shmts_open, none of it twice. */
static void shmts__move(shmts__part *p, int first) {
	uint64_t none[SHMTS_MAX_TABLES] = {0, 0, 0, 0, 0, 0, 0, 0};
	if (p->dirty) shmts__compile(p, none);
	for (uint32_t ti = 0; ti < p->g->table_count; ti++) {
		shmts__ptable *t = &p->table[ti]; uint64_t *moved = t->moved, *now = t->moved + t->d->row_cells;
		uint64_t *overflow = shmts__lane_at(t->d, p->base, t->d->lanes), *shared = shmts__at(p->base, t->d->shared_offset);
		shmts__collect(p, t, p->old, 1, now, 1);
		for (uint32_t i = 0; i < t->run_count; i++) {
			const shmts__run u = t->runs[i]; uint64_t *a = moved + u.row, *b = now + u.row, *w = overflow + u.from + 2 + 3;
			if (u.op == SHMTS__WINDOW && first && b[0] != SHMTS_UNSET_F64) { shmts__widen(w + 1, 1, shmts__f64(b[0]), 0); shmts__widen(w + 2, 1, shmts__f64(b[1]), 1); }
			for (uint32_t j = 0; j < u.n && u.op != SHMTS__WINDOW; j++) {
				if (a[j] == b[j] && !(first && u.op == SHMTS__SHARED)) continue; /* a gauge of 0 is not one unset */
				if (u.op == SHMTS__SUM_U64) shmts__bump(overflow + u.from + j, b[j] - a[j], 1);
				else if (u.op != SHMTS__SHARED) shmts__bump_f64(overflow + u.from + j, shmts__f64(b[j]) - shmts__f64(a[j]), 1);
				else if (first) shmts__store(shared + u.from + j, b[j]);
				else __atomic_compare_exchange_n(shared + u.from + j, &a[j], b[j], 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED); /* unless newer was set */
				a[j] = b[j];
			}
		}
	}
}
/* Tries to give private memory a file; its ids, birth time, series and values stay. */
static int shmts__adopt(shmts__part *p) {
	char *base, *old = p->base;
	for (uint32_t ti = 0; ti < p->g->table_count; ti++)
		if (!p->table[ti].moved && !(p->table[ti].moved = (uint64_t *)(void *)shmts__pages(16 * (size_t)p->table[ti].d->row_cells))) return 0;
	if (!(base = shmts__birth(p, NULL, old))) return 0;
	p->old = old; p->old_ticks = 60; p->born = 1;
	for (uint32_t ti = 0; ti < p->g->table_count; ti++) memset(p->table[ti].moved, 0, 16 * (size_t)p->table[ti].d->row_cells);
	shmts__rebase(p, base); shmts__move(p, 1); return 1;
}
static void shmts__set_due(shmts__seg *g) {
	int64_t due = INT64_MAX;
	for (uint32_t i = 0; i < g->part_count && !g->closed; i++) {
		const shmts__part *p = &g->parts[i];
		if (!p->born) { if (!g->sealed && g->retry_at < due) due = g->retry_at; continue; }
		for (uint32_t ti = 0; ti < g->table_count; ti++) {
			uint64_t step = p->table[ti].d->tier0.step;
			int64_t at = step ? (int64_t)((p->table[ti].period[0] + 1) * step - shmts__word(p->id, 0) % step) : INT64_MAX;
			if (at < due) due = at;
		}
	}
	__atomic_store_n(&g->pub.due, due, __ATOMIC_RELAXED);
}
SHMTS_API int shmts__tick(shmts_segment *seg, int64_t mono) {
	shmts__seg *g = (shmts__seg *)(void *)seg; int64_t unix_ns, read_mono; int rows = 0;
	if (mono == 0) {
		if (g->clock) g->clock(g->clock_arg, &unix_ns, &mono); else mono = shmts__ns(CLOCK_MONOTONIC);
		if (mono < __atomic_load_n(&g->pub.due, __ATOMIC_RELAXED)) return 0;
	}
	if (pthread_mutex_trylock(&g->lock)) return 0; /* somebody else ticks, or registers */
	if (!g->closed) {
		shmts__tick_now(g, &unix_ns, &read_mono);
		for (uint32_t i = 0; i < g->part_count; i++) {
			shmts__part *p = &g->parts[i];
			if (!p->born) {
				if (g->sealed || mono < g->retry_at) continue;
				if (!shmts__adopt(p)) {
					g->backoff = g->backoff < 30000000000 ? 2 * g->backoff : 60000000000; g->retry_at = mono + g->backoff; continue;
				}
				if (g->birth_failed) { g->birth_failed = 0; __atomic_store_n(&g->failed, 0, __ATOMIC_RELEASE); }
			}
			if (p->old) { shmts__move(p, 0); if (--p->old_ticks == 0) p->old = NULL; }
			if (!g->sampled) rows += shmts__tick_part(p, mono, unix_ns - read_mono, 0);
		}
		shmts__set_due(g);
	}
	pthread_mutex_unlock(&g->lock); return rows;
}
/* ---- series ---- */
static void shmts__set_birth(shmts__part *p) {
	shmts__seg *g = p->g;
	if (g->has_test_id) { memcpy(p->id, g->test_id, 16); p->id[15] = (uint8_t)(p->id[15] + p->index); }
	else shmts__random(p->id);
	memcpy(p->group, g->parts[0].id, 16);
	if (g->clock) { g->clock(g->clock_arg, &p->birth_unix, &p->birth_mono); p->birth_error = 0; return; }
	p->birth_error = UINT64_MAX;
	for (int tries = 0; tries < 5 && p->birth_error > 5000; tries++) { /* 10 us between two readings */
		int64_t m = shmts__ns(CLOCK_MONOTONIC), u = shmts__ns(CLOCK_REALTIME), n = shmts__ns(CLOCK_MONOTONIC);
		if ((uint64_t)(n - m) / 2 >= p->birth_error) continue;
		p->birth_error = (uint64_t)(n - m) / 2; p->birth_unix = u; p->birth_mono = m + (n - m) / 2;
	}
}
static void shmts__reset_ticks(shmts__part *p) { /* as at birth */
	for (uint32_t ti = 0; ti < p->g->table_count; ti++) {
		shmts__ptable *t = &p->table[ti];
		t->open_row = 1; memset(t->stage, 0, 8 * (size_t)t->row_used);
		for (uint32_t j = 0; j < t->d->tiers; j++) {
			t->head[j] = 0; t->last_t[j] = p->birth_unix; t->period[j] = shmts__period(p, shmts__tier(t->d, j)->step, p->birth_mono);
			for (uint32_t i = 0; i < t->row_used && j; i++) t->fold[j][i] = SHMTS_UNSET_F64;
		}
	}
	p->dirty = 1; if (p->index == 0) p->g->offset = p->birth_unix - p->birth_mono;
}
/* A further segment, or the first; private memory where it has no file. False where there is not even that. */
static int shmts__new_part(shmts__seg *g) {
	shmts__part *p = &g->parts[g->part_count]; int ok;
	memset(p, 0, sizeof *p); p->g = g; p->index = g->part_count;
	p->slots = (shmts__slot *)shmts__arena(g, sizeof *p->slots * g->series_count); p->twin = shmts__pages(g->total);
	ok = p->slots && p->twin;
	for (uint32_t ti = 0; ti < g->table_count; ti++) {
		shmts__ptable *t = &p->table[ti];
		t->d = (const shmts_table_desc *)(void *)(g->header + SHMTS__TABLES_AT) + ti;
		t->stage = (uint64_t *)shmts__arena(g, 8 * (size_t)t->d->row_cells);
		t->runs = (shmts__run *)shmts__arena(g, sizeof *t->runs * t->d->row_cells);
		ok = ok && t->stage && t->runs;
		for (uint32_t j = 1; j < t->d->tiers; j++) ok = (t->fold[j] = (uint64_t *)shmts__arena(g, 8 * (size_t)t->d->row_cells)) && ok;
	}
	if (!ok) return shmts__fail(g, "shmts: want %llu bytes of private memory, got %s", (unsigned long long)g->total, strerror(errno));
	shmts__set_birth(p); shmts__reset_ticks(p); p->base = shmts__birth(p, NULL, NULL); p->born = p->base != NULL;
	if (!p->born) {
		p->base = shmts__pages(g->total);
		if (!p->base) return 0;
		shmts__fill(p, p->base, NULL); g->backoff = 1000000000; g->retry_at = p->birth_mono + g->backoff;
	}
	__atomic_store_n(&g->part_count, g->part_count + 1, __ATOMIC_RELEASE); shmts__set_due(g); return 1;
}
/* Whether no row before retired_row is left in any ring, so that the descriptor may be another's: 10.2. */
static int shmts__rows_gone(const shmts__part *p, const shmts_series_desc *d) {
	const shmts__ptable *t = &p->table[d->table];
	for (uint32_t j = 0; j < t->d->tiers && t->open_row >= d->retired_row; j++) {
		const shmts_tier *tier = shmts__tier(t->d, j); uint64_t oldest = t->head[j] >= tier->rows ? t->head[j] - tier->rows + 1 : 1;
		if (t->head[j] && shmts__load(shmts__at(p->base, tier->offset + oldest % tier->rows * tier->row_stride) + 5) < d->retired_row) return 0;
	}
	return t->open_row >= d->retired_row;
}
/* Finds room for d and size bytes of strings in p. Cells and descriptors of retired series come first. NULL where there is none. */
static shmts__slot *shmts__room(shmts__part *p, shmts_series_desc *d, uint32_t size) {
	shmts__ptable *t = &p->table[d->table]; shmts__slot *s = NULL, *cells = NULL, **link;
	uint32_t row, lane, shared, i, room = (uint32_t)shmts__up(size, 32);
	shmts__cells(d, &row, &lane, &shared);
	for (i = 0; i < p->series_used && p->graves; i++) {
		shmts__slot *x = &p->slots[i]; uint32_t life = x->d.state & 0xff;
		int fits = x->owns_cells && x->d.table == d->table && (x->d.kind == SHMTS_GAUGE) == (d->kind == SHMTS_GAUGE) && (x->d.kind == SHMTS_STAT) == (d->kind == SHMTS_STAT) &&
		           x->d.buckets == d->buckets && (life == 0 || x->d.retired_row + 2 <= t->open_row);
		if (life == 2) continue;
		if (!cells && fits) cells = x;
		if (!s && size <= x->room && (!x->owns_cells || cells == x) && (life == 0 || shmts__rows_gone(p, &x->d))) s = x;
	}
	if (!cells && (t->row_used + row > t->d->row_cells || t->lane_used + lane > t->d->lane_cells || t->shared_used + shared > t->d->shared_cells)) return NULL;
	if (!s && (p->series_used == p->g->series_count || p->heap_used + size > p->g->heap_size)) return NULL;
	if (s) {
		for (link = &p->g->by_hash[s->hash & (p->g->buckets - 1)]; *link && *link != s; link = &(*link)->next) {}
		if (*link) *link = s->next;
		p->graves--;
	} else {
		s = &p->slots[p->series_used++]; s->d.strings = p->heap_used;
		s->room = p->heap_used + room > p->g->heap_size ? size : room; p->heap_used += s->room;
	}
	d->strings = s->d.strings; d->state = (((s->d.state >> 8) + 1) & 0xffffff) << 8 | 2;
	if (cells) {
		d->row_cell = cells->d.row_cell; d->lane_cell = cells->d.lane_cell; d->shared_cell = cells->d.shared_cell;
		cells->owns_cells = 0; cells->in_rows = 0;
	} else {
		d->row_cell = t->row_used; d->lane_cell = lane ? t->lane_used : 0; d->shared_cell = shared ? t->shared_used : 0;
		t->row_used += row; t->lane_used += lane; t->shared_used += shared;
	}
	s->owns_cells = s->in_rows = 1; return s;
}
static int shmts__index(int scale, double v) { /* of v's bucket: 9 */
	uint64_t m = shmts__bits(v) - 1, f = m & 0xfffffffffffffu; uint32_t j = shmts__scales[scale].first[f >> (51 - scale)];
	return ((int)(m >> 52) - 1023) * (1 << scale) + (int)j + (f >= shmts__scales[scale].bound[j + 1]);
}
/* Makes descriptor and strings (in g->scratch) of what is asked for. Answers the strings' length, 0 with an error. */
static uint32_t shmts__describe(shmts__seg *g, shmts_series_desc *d, const char *name, const shmts_series *o, int kind, int number) {
	const char *table = o->table ? o->table : kind == SHMTS_HISTOGRAM ? "histograms" : NULL;
	size_t n = shmts__utf8(name ? name : "", 255), u = shmts__utf8(o->unit ? o->unit : "", 63), h = shmts__utf8(o->help ? o->help : "", 1023), l;
	memset(d, 0, sizeof *d); d->kind = (uint8_t)kind; d->number = (uint8_t)number;
	if (n < 1 || n > 255 || u > 63 || h > 1023)
		return (uint32_t)shmts__fail(g, "shmts: series \"%.60s\": want UTF-8, 1 to 255 bytes of name, at most 63 of unit and 1023 of help, got other ones", name ? name : "");
	for (uint32_t i = 0; i < g->table_count; i++) {
		char have[17] = "";
		memcpy(have, g->parts[0].table[i].d->name, 16);
		if (table && !strcmp(have, table)) { d->table = (uint16_t)i; table = NULL; break; }
	}
	if (table && o->table) return (uint32_t)shmts__fail(g, "shmts: series %.60s: want one of the segment's tables, got \"%.60s\"", name, o->table);
	if (kind == SHMTS_STAT && o->non_negative) d->flags = 1;
	if (kind == SHMTS_HISTOGRAM) {
		double low = o->low > 0 || o->high > 0 ? o->low : number == SHMTS_F64 ? 0.001 : 0.9, high = o->low > 0 || o->high > 0 ? o->high : number == SHMTS_F64 ? 1 : 881743;
		int scale = o->scale == SHMTS_SCALE_0 ? 0 : o->scale ? o->scale : number == SHMTS_F64 || o->low > 0 ? 3 : 2, least, count;
		if (scale < 0 || scale > SHMTS_MAX_SCALE) return (uint32_t)shmts__fail(g, "shmts: histogram %.60s: want a scale of 0 to 6, got %d", name, scale);
		if (!(low >= 0x1p-511) || !(high > low) || !(high <= 1.7976931348623157e308)) return (uint32_t)shmts__fail(g, "shmts: histogram %.60s: want 2^-511 <= low < high, got %g and %g", name, low, high);
		least = shmts__index(scale, shmts__f64(shmts__bits(low) + 1)); /* the bucket of what lies just above low */
		count = shmts__index(scale, high) - least + 1;
		if (count < 1 || count > SHMTS_MAX_BUCKETS) return (uint32_t)shmts__fail(g, "shmts: histogram %.60s: want 1 to %d buckets, got %d: take a lower scale or a smaller range", name, SHMTS_MAX_BUCKETS, count);
		if (least < INT16_MIN || least > INT16_MAX) return (uint32_t)shmts__fail(g, "shmts: histogram %.60s: want a lowest bucket of 16 bits, got %d", name, least);
		d->scale = (int8_t)scale; d->buckets = (uint16_t)count; d->bucket_min = (int16_t)least;
	}
	memcpy(g->scratch, name, n);
	if (u) memcpy(g->scratch + n, o->unit, u);
	if (h) memcpy(g->scratch + n + u, o->help, h);
	l = shmts__pairs(g, g->scratch + n + u + h, NULL, o->labels);
	if (!l) return 0;
	d->name_length = (uint16_t)n; d->unit_length = (uint16_t)u; d->help_length = (uint16_t)h; d->labels_length = (uint32_t)l;
	return (uint32_t)(n + u + h + l);
}
static void shmts__bind(shmts__slot *s) { /* makes the handle point to the series */
	const shmts__part *p = s->part; const shmts__ptable *t = &p->table[s->d.table]; shmts__series *h = s->handle;
	h->stride = t->d->lane_stride; h->lanes = t->d->lanes; h->tls = p->g->tls; h->scale = (uint32_t)s->d.scale;
	h->bias = 2 - s->d.bucket_min - 1023 * (1 << s->d.scale); h->above = s->d.buckets + 2; h->bounds = &shmts__scales[s->d.scale];
	h->least = s->d.flags & 1 ? 0 : -1.7976931348623157e308; __atomic_store_n(&h->slot, (void *)s, __ATOMIC_RELEASE);
	shmts__store(&h->who, (uint64_t)(s - p->slots) | (uint64_t)(s->d.state >> 8) << 32); shmts__store(&h->taken_row, 0);
	__atomic_store_n(&h->rejected, &shmts__control(p)->rejected_records, __ATOMIC_RELAXED);
	__atomic_store_n(&h->open_row, &shmts__table_control(p, s->d.table)->open_row, __ATOMIC_RELAXED);
	__atomic_store_n(&h->shared, shmts__at(p->base, t->d->shared_offset) + s->d.shared_cell, __ATOMIC_RELEASE);
	__atomic_store_n(&h->cell, (char *)(shmts__lane_at(t->d, p->base, 0) + s->d.lane_cell), __ATOMIC_RELEASE);
}
static shmts__series *shmts__dropped(shmts__seg *g) {
	if (g->part_count) __atomic_fetch_add(&shmts__control(&g->parts[0])->dropped_series, 1, __ATOMIC_RELAXED);
	return &g->sink;
}
/* The lock is held. */
static shmts__series *shmts__register_locked(shmts__seg *g, const char *name, const shmts_series *o, int kind, int number) {
	shmts_series_desc d; uint32_t size = shmts__describe(g, &d, name, o, kind, number), hash = 2166136261u, i, labels, row, lane, shared;
	shmts__slot *s, *was = NULL; shmts__series *h; shmts__part *p; shmts__ptable *t; shmts_control *c; shmts_table_control *tc; int64_t mono;
	if (!size) return shmts__dropped(g);
	labels = size - d.labels_length;
	for (i = 0; i < size; i++) if (i < d.name_length || i >= labels) hash = (hash ^ (unsigned char)g->scratch[i]) * 16777619u;
	for (s = g->by_hash[hash & (g->buckets - 1)]; s; s = s->next) {
		const char *theirs = s->text + s->d.name_length + s->d.unit_length + s->d.help_length;
		if (s->hash != hash || s->d.name_length != d.name_length || s->d.labels_length != d.labels_length ||
		    memcmp(s->text, g->scratch, d.name_length) || memcmp(theirs, g->scratch + labels, d.labels_length)) continue;
		if (memcmp(&s->d.kind, &d.kind, 4) || s->d.buckets != d.buckets || s->d.bucket_min != d.bucket_min) { /* kind, number, scale, flags */
			if ((s->d.state & 0xff) != 2) continue;
			shmts__fail(g, "shmts: series %.60s: want kind %d, number %d, %d buckets as it was registered first, got %d, %d, %d", name, s->d.kind, s->d.number, s->d.buckets, kind, number, d.buckets);
			return shmts__dropped(g);
		}
		if ((s->d.state & 0xff) == 2) return s->handle;
		if (s->handle) was = s; /* retired: its handle lives again */
	}
	shmts__cells(&d, &row, &lane, &shared);
	for (i = 0, s = NULL; !s; i++) {
		const shmts_table_desc *most = g->parts[0].table[d.table].d;
		if (i == g->part_count && (g->sealed || i == g->part_max || row > most->row_cells || lane > most->lane_cells || shared > most->shared_cells || size > g->heap_size || !shmts__new_part(g))) {
			shmts__fail(g, "shmts: series %.60s: want room in one of at most %u segments, got all full (%u row cells, %u bytes of text)", name, g->part_max, row, size);
			return shmts__dropped(g);
		}
		s = shmts__room(&g->parts[i], &d, size);
	}
	p = s->part = &g->parts[i - 1]; t = &p->table[d.table]; h = was ? was->handle : (shmts__series *)shmts__arena(g, sizeof *h);
	if (!s->text) s->text = (char *)shmts__arena(g, s->room);
	if (!h || !s->text) { s->d = d; s->d.state = 0; return shmts__dropped(g); } /* the descriptor is lost; there is no memory anyway */
	if (was) was->handle = NULL;
	memcpy(s->text, g->scratch, size); shmts__now(g, &d.born_unix, &mono); d.born_row = t->open_row;
	s->d = d; s->hash = hash; s->handle = h; s->next = g->by_hash[hash & (g->buckets - 1)]; g->by_hash[hash & (g->buckets - 1)] = s;
	memset(t->stage + d.row_cell, 0, 8 * (size_t)row); p->dirty = 1;
	for (i = 1; i < t->d->tiers && kind == SHMTS_STAT; i++) t->fold[i][d.row_cell + 3] = t->fold[i][d.row_cell + 4] = SHMTS_UNSET_F64;
	shmts__zero_cells(p, p->base, &d); shmts__store_series(p, p->base, s); shmts__bind(s);
	c = shmts__control(p); tc = shmts__table_control(p, d.table);
	__atomic_store_n(&tc->row_cells_used, t->row_used, __ATOMIC_RELEASE); __atomic_store_n(&tc->lane_cells_used, t->lane_used, __ATOMIC_RELEASE);
	__atomic_store_n(&tc->shared_cells_used, t->shared_used, __ATOMIC_RELEASE); __atomic_store_n(&c->series_used, p->series_used, __ATOMIC_RELEASE);
	__atomic_store_n(&c->heap_used, p->heap_used, __ATOMIC_RELEASE); __atomic_fetch_add(&tc->changes, 1, __ATOMIC_RELEASE); return h;
}
/* The writer's half of an exemplar: 10.12. Everything is found by the address of one word, so that all of it is of one segment. */
SHMTS_API void shmts__leave(shmts__series *h, double v, const shmts_exemplar *x) {
	const shmts__slot *slot = (const shmts__slot *)__atomic_load_n(&h->slot, __ATOMIC_ACQUIRE);
	char *rejected = (char *)__atomic_load_n(&h->rejected, __ATOMIC_ACQUIRE);
	const shmts__seg *g; shmts_control *c; uint64_t w[8], n, seq, *to; int64_t beat; shmts__summer s = shmts__sum_begin(0x10000);
	if (!slot || !x || !(v >= 0 && v <= 1.7976931348623157e308)) return; /* a sink; or not recorded */
	g = slot->part->g; memcpy(w + 5, x->trace_id, 16); memcpy(w + 7, x->span_id, 8);
	if (!g->exemplars || !(w[5] | w[6])) return;
	if (!g->sampled) { /* the value first: another thread would hold its own against the last row's */
		shmts__store(&h->taken_most, shmts__bits(v)); shmts__store(&h->taken_row, shmts__load(__atomic_load_n(&h->open_row, __ATOMIC_RELAXED)));
	}
	c = (shmts_control *)(void *)(rejected - offsetof(shmts_control, rejected_records)); n = __atomic_fetch_add(&c->exemplars, 1, __ATOMIC_RELAXED) + 1;
	to = shmts__at((char *)c - g->control_at, g->exemplars_at + 64 * ((n - 1) & (g->exemplars - 1))); seq = shmts__load(to);
	if (seq & 1 || seq >= 2 * n || !__atomic_compare_exchange_n(to, &seq, 2 * n + 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
		__atomic_fetch_add(&c->exemplars_dropped, 1, __ATOMIC_RELAXED); return;
	}
	__atomic_thread_fence(__ATOMIC_RELEASE); beat = __atomic_load_n(&c->heartbeat, __ATOMIC_RELAXED);
	w[2] = shmts__load(&h->who); w[3] = shmts__bits(v);
	w[4] = (uint64_t)(x->unix_ns ? x->unix_ns : beat ? beat + __atomic_load_n(&c->clock_offset, __ATOMIC_RELAXED) : slot->part->birth_unix);
	SHMTS__MIX(s.a, shmts__word(slot->part->id, 0)); SHMTS__MIX(s.b, shmts__word(slot->part->id, 1)); SHMTS__MIX(s.c, n); SHMTS__MIX(s.d, w[2]);
	SHMTS__MIX(s.a, w[3]); SHMTS__MIX(s.b, w[4]); SHMTS__MIX(s.c, w[5]); SHMTS__MIX(s.d, w[6]); SHMTS__MIX(s.a, w[7]); w[1] = shmts__sum_end(s);
	for (int i = 1; i < 8; i++) shmts__store(to + i, w[i]);
	__atomic_store_n(to, 2 * n, __ATOMIC_RELEASE);
}
static void *shmts__register(shmts_segment *seg, const char *name, const shmts_series *o, int kind, int number) {
	shmts__seg *g = (shmts__seg *)(void *)seg; shmts_series none; shmts__series *h = &g->sink;
	memset(&none, 0, sizeof none); pthread_mutex_lock(&g->lock);
	if (!g->closed) h = shmts__register_locked(g, name, o ? o : &none, kind, number); else shmts__dropped(g);
	pthread_mutex_unlock(&g->lock); return h;
}
#define SHMTS__REGISTER(function, kind, number) \
	SHMTS_API function##_t *function(shmts_segment *seg, const char *name, const shmts_series *o) { return (function##_t *)shmts__register(seg, name, o, kind, number); }
SHMTS__REGISTER(shmts_counter, SHMTS_COUNTER, SHMTS_U64) SHMTS__REGISTER(shmts_counter_f64, SHMTS_COUNTER, SHMTS_F64) SHMTS__REGISTER(shmts_updown, SHMTS_UPDOWN, SHMTS_I64)
SHMTS__REGISTER(shmts_gauge, SHMTS_GAUGE, SHMTS_F64) SHMTS__REGISTER(shmts_gauge_i64, SHMTS_GAUGE, SHMTS_I64) SHMTS__REGISTER(shmts_stat, SHMTS_STAT, SHMTS_F64)
SHMTS__REGISTER(shmts_histogram, SHMTS_HISTOGRAM, SHMTS_F64) SHMTS__REGISTER(shmts_histogram_u64, SHMTS_HISTOGRAM, SHMTS_U64)
SHMTS_API void shmts__retire(shmts__series *h) {
	shmts__slot *s = (shmts__slot *)h->slot; shmts__seg *g;
	if (!s) return; /* a sink */
	g = s->part->g; pthread_mutex_lock(&g->lock); s = (shmts__slot *)h->slot;
	if (!g->closed && s->handle == h && (s->d.state & 0xff) == 2) {
		shmts__part *p = s->part; uint64_t *to = shmts__at(p->base, g->series_at + 64 * (uint64_t)(s - p->slots));
		s->d.retired_row = p->table[s->d.table].open_row + 1; s->d.state = (s->d.state & ~0xffu) | 3;
		__atomic_store_n(to + 7, s->d.retired_row, __ATOMIC_RELEASE); __atomic_store_n(to, (shmts__load(to) & ~(uint64_t)0xff) | 3, __ATOMIC_RELEASE);
		__atomic_fetch_add(&shmts__table_control(p, s->d.table)->changes, 1, __ATOMIC_RELEASE);
		shmts__point(h, p->twin - p->base); p->graves++; p->dirty = 1;
	}
	pthread_mutex_unlock(&g->lock);
}
/* ---- lanes ---- */
static uint32_t shmts__take_lane(shmts__seg *g, int tls) {
	uint64_t all = g->lanes == 64 ? UINT64_MAX : ((uint64_t)1 << g->lanes) - 1, was = __atomic_load_n(&g->claimed, __ATOMIC_RELAXED);
	while (~was & all & ~(uint64_t)1) {
		uint32_t k = (uint32_t)__builtin_ctzll(~was & all & ~(uint64_t)1);
		if (!__atomic_compare_exchange_n(&g->claimed, &was, was | (uint64_t)1 << k, 1, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) continue;
		__atomic_fetch_or(&g->ever, (uint64_t)1 << k, __ATOMIC_RELEASE);
		if (tls) __atomic_fetch_or(&g->claimed_by_tls, (uint64_t)1 << k, __ATOMIC_RELAXED);
		return k; /* acquire: goes on from what the last owner left */
	}
	if (g->part_count) __atomic_fetch_add(&shmts__control(&g->parts[0])->overflow_threads, 1, __ATOMIC_RELAXED);
	return SHMTS__OVERFLOW;
}
static void shmts__free_lane(shmts__seg *g, uint32_t k) {
	__atomic_fetch_and(&g->claimed_by_tls, ~((uint64_t)1 << k), __ATOMIC_RELAXED);
	__atomic_fetch_and(&g->claimed, ~((uint64_t)1 << k), __ATOMIC_RELEASE);
}
SHMTS_API shmts_lane *shmts_lane_claim(shmts_segment *seg) {
	shmts__seg *g = (shmts__seg *)(void *)seg; uint32_t k = shmts__take_lane(g, 0);
	return &g->lane[k == SHMTS__OVERFLOW ? SHMTS_MAX_LANES : k];
}
SHMTS_API void shmts_lane_release(shmts_lane *lane) {
	shmts__seg *g;
	if (lane->number >= SHMTS_MAX_LANES) return;
	g = (shmts__seg *)(void *)((char *)(lane - lane->number) - offsetof(shmts__seg, lane)); shmts__free_lane(g, lane->number);
}
SHMTS_API uint32_t shmts__tls_claim(uint32_t tls) {
	shmts__seg *g = __atomic_load_n(&shmts__by_tls[tls], __ATOMIC_ACQUIRE);
	uint32_t k = g && shmts__has_key ? shmts__take_lane(g, 1) : SHMTS__OVERFLOW;
	if (k != SHMTS__OVERFLOW && pthread_setspecific(shmts__key, shmts__tls)) { /* nobody would free it */
		shmts__free_lane(g, k); k = SHMTS__OVERFLOW;
	}
	shmts__tls[tls] = (uint8_t)k; return k;
}
static void shmts__thread_ends(void *unused) {
	(void)unused;
	for (uint32_t i = 0; i < SHMTS__SEGMENTS; i++) {
		uint32_t k = shmts__tls[i]; shmts__tls[i] = 0;
		if (k && k != SHMTS__OVERFLOW) shmts__free_lane(shmts__by_tls[i], k);
	}
}
/* ---- the tick thread ---- */
static void *shmts__ticker(void *arg) {
	shmts__seg *g = (shmts__seg *)arg;
	pthread_mutex_lock(&g->thread_lock);
	while (!g->thread_stop) {
		int64_t now = shmts__ns(CLOCK_MONOTONIC), due = __atomic_load_n(&g->pub.due, __ATOMIC_RELAXED); struct timespec until;
		/* A clock of its own says nothing of when; growth may bring the time forward; where it has come, somebody else ticks just now. */
		due = g->clock ? now + 10000000 : due > now + 1000000000 ? now + 1000000000 : due <= now ? now + 1000000 : due;
		until.tv_sec = due / 1000000000; until.tv_nsec = due % 1000000000; pthread_cond_timedwait(&g->thread_wake, &g->thread_lock, &until);
		if (g->thread_stop) break;
		pthread_mutex_unlock(&g->thread_lock); shmts_tick(&g->pub, 0); pthread_mutex_lock(&g->thread_lock);
	}
	pthread_mutex_unlock(&g->thread_lock); return NULL;
}
static int shmts__start_thread(shmts__seg *g) {
	pthread_condattr_t monotonic; sigset_t all, was; int error; pthread_mutex_init(&g->thread_lock, NULL); pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC); pthread_cond_init(&g->thread_wake, &monotonic);
	pthread_condattr_destroy(&monotonic); g->thread_stop = 0;
	sigfillset(&all); /* the application's signals are not for this thread */
	pthread_sigmask(SIG_SETMASK, &all, &was); error = pthread_create(&g->thread, NULL, shmts__ticker, g);
	pthread_sigmask(SIG_SETMASK, &was, NULL); g->ticking = !error; return error;
}
SHMTS_API int shmts_tick_start(shmts_segment *seg) {
	shmts__seg *g = (shmts__seg *)(void *)seg; int error = 0;
	pthread_mutex_lock(&shmts__global);
	if (!g->ticking && !g->closed) error = shmts__start_thread(g);
	pthread_mutex_unlock(&shmts__global); return error;
}
SHMTS_API void shmts_tick_stop(shmts_segment *seg) {
	shmts__seg *g = (shmts__seg *)(void *)seg; int was;
	pthread_mutex_lock(&shmts__global); was = (int)g->ticking; g->ticking = 0;
	if (was) {
		pthread_mutex_lock(&g->thread_lock); g->thread_stop = 1; pthread_cond_signal(&g->thread_wake);
		pthread_mutex_unlock(&g->thread_lock); pthread_join(g->thread, NULL);
	}
	pthread_mutex_unlock(&shmts__global);
}
/* ---- fork: FORMAT.md 10.10 ---- */
static void shmts__before_fork(void) {
	pthread_mutex_lock(&shmts__global);
	for (shmts__seg *g = shmts__all; g; g = g->next) pthread_mutex_lock(&g->lock);
}
static void shmts__after_fork(void) {
	for (shmts__seg *g = shmts__all; g; g = g->next) pthread_mutex_unlock(&g->lock);
	pthread_mutex_unlock(&shmts__global);
}
/* A default instance names the process, so the child's is another: where the header's spare bytes have room for it. */
static void shmts__rename_instance(shmts__seg *g) {
	char *at = g->header + g->source_at + 2, *colon = strrchr(g->instance, ':'), text[16];
	shmts_section *source = (shmts_section *)(void *)(g->header + 256 + 32); uint16_t name, value, want;
	if (!colon) return;
	want = (uint16_t)(colon + 1 - g->instance + snprintf(text, sizeof text, "%ld", (long)getpid()));
	for (;; at += 4 + name + value) {
		memcpy(&name, at, 2); memcpy(&value, at + 2, 2);
		if (name == 8 && !memcmp(at + 4, "instance", 8)) break;
	}
	if (source->length + want > (uint64_t)(g->header_size - g->source_at) + value) return;
	memmove(at + 12 + want, at + 12 + value, g->source_at + source->length - (uint64_t)(at + 12 + value - g->header));
	source->length = source->length + want - value; source->count = (uint32_t)source->length; memcpy(at + 2, &want, 2);
	snprintf(colon + 1, sizeof g->instance - (size_t)(colon + 1 - g->instance), "%s", text); memcpy(at + 12, g->instance, want);
}
static void shmts__reborn(shmts__part *p) { /* in the child: the parent's mapping is not here any more, private memory is a copy */
	shmts__seg *g = p->g; char *base = NULL;
	shmts__set_birth(p);
	for (uint32_t i = 0; i < p->series_used; i++) {
		shmts__slot *s = &p->slots[i];
		if ((s->d.state & 0xff) == 3) { s->d.state &= ~0xffu; s->d.retired_row = 0; s->in_rows = 0; }
		s->d.born_row = 1; s->d.born_unix = p->birth_unix;
		if (s->handle) s->handle->taken_row = 0;
	}
	shmts__reset_ticks(p); p->old = NULL;
	if (!p->born) munmap(p->base, g->total);
	if (!g->lazy_fork && !g->sealed) base = shmts__birth(p, p->base, NULL);
	p->born = base != NULL;
	if (!base) {
		void *m = mmap(p->base, g->total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
		base = m == MAP_FAILED ? p->twin : (char *)m; shmts__fill(p, base, NULL); p->path[0] = 0;
		((shmts_control *)(void *)(base + g->control_at))->fork_losses = !g->lazy_fork; g->backoff = 1000000000;
		g->retry_at = g->lazy_fork ? 0 : p->birth_mono + g->backoff;
	}
	shmts__rebase(p, base);
}
static void shmts__in_child(void) {
	for (shmts__seg *g = shmts__all; g; g = g->next) {
		uint64_t own = 0; pthread_mutex_init(&g->lock, NULL);
		if (g->closed) continue;
		for (uint32_t i = 0; i < SHMTS__SEGMENTS; i++)
			if (shmts__by_tls[i] == g && shmts__tls[i] && shmts__tls[i] != SHMTS__OVERFLOW) own = (uint64_t)1 << shmts__tls[i];
		g->claimed = (g->claimed & ~g->claimed_by_tls) | own; /* other threads are not here */
		g->claimed_by_tls = own; g->ever = g->claimed; g->has_test_id = 0;
		if (g->own_instance) shmts__rename_instance(g);
		for (uint32_t i = 0; i < g->part_count; i++) shmts__reborn(&g->parts[i]);
		shmts__set_due(g);
	}
	pthread_mutex_init(&shmts__global, NULL);
	for (shmts__seg *g = shmts__all; g; g = g->next) if (g->ticking) shmts__start_thread(g);
}
/* ---- open, close ---- */
static void shmts__init(void) {
	/* the 52 low bits of 2^(k/64), rounded up, less 1: 9 */
	static const uint64_t bound[64] = {
		0x0000000000000, 0x02c9a3e778060, 0x059b0d3158574, 0x0874518759bc8, 0x0b5586cf9890f, 0x0e3ec32d3d1a2, 0x11301d0125b50, 0x1429aaea92ddf,
		0x172b83c7d517a, 0x1a35beb6fcb75, 0x1d4873168b9aa, 0x2063b88628cd6, 0x2387a6e756238, 0x26b4565e27cdd, 0x29e9df51fdee1, 0x2d285a6e4030b,
		0x306fe0a31b715, 0x33c08b26416ff, 0x371a7373aa9ca, 0x3a7db34e59ff6, 0x3dea64c123422, 0x4160a21f72e29, 0x44e086061892d, 0x486a2b5c13cd0,
		0x4bfdad5362a27, 0x4f9b2769d2ca6, 0x5342b569d4f81, 0x56f4736b527da, 0x5ab07dd485429, 0x5e76f15ad2148, 0x6247eb03a5584, 0x6623882552224,
		0x6a09e667f3bcc, 0x6dfb23c651a2e, 0x71f75e8ec5f73, 0x75feb564267c8, 0x7a11473eb0186, 0x7e2f336cf4e62, 0x82589994cce12, 0x868d99b4492ec,
		0x8ace5422aa0db, 0x8f1ae99157736, 0x93737b0cdc5e4, 0x97d829fde4e4f, 0x9c49182a3f090, 0xa0c667b5de564, 0xa5503b23e255c, 0xa9e6b5579fdbf,
		0xae89f995ad3ad, 0xb33a2b84f15fa, 0xb7f76f2fb5e46, 0xbcc1e904bc1d2, 0xc199bdd85529c, 0xc67f12e57d14b, 0xcb720dcef9069, 0xd072d4a07897b,
		0xd5818dcfba487, 0xda9e603db3285, 0xdfc97337b9b5e, 0xe502ee78b3ff6, 0xea4afa2a490d9, 0xefa1bee615a27, 0xf50765b6e4540, 0xfa7c1819e90d8};
	uint32_t s, j, c;
	for (s = 0; s <= SHMTS_MAX_SCALE; s++) { /* first[c]: the greatest j whose bound is not above where cell c begins */
		shmts__scale *to = &shmts__scales[s];
		for (j = 0; j < 1u << s; j++) to->bound[j] = bound[j << (SHMTS_MAX_SCALE - s)];
		to->bound[1u << s] = UINT64_MAX;
		for (c = 0; c < 2u << s; c++) {
			for (j = 0; j + 1 < 1u << s && (uint64_t)c << (51 - s) >= to->bound[j + 1]; j++) {}
			to->first[c] = (uint8_t)j;
		}
	}
	shmts__has_key = pthread_key_create(&shmts__key, shmts__thread_ends) == 0; pthread_atfork(shmts__before_fork, shmts__after_fork, shmts__in_child);
}
/* dlclose: the key's destructor must not stay behind. */
__attribute__((destructor)) static void shmts__unload(void) {
	if (shmts__has_key) pthread_key_delete(shmts__key);
	shmts__has_key = 0;
}
static void shmts__set_sink(shmts__seg *g) {
	shmts__series *h = &g->sink;
	h->cell = (char *)g->sink_cells; h->shared = &g->sink_shared[0]; h->open_row = &g->sink_shared[8];
	h->rejected = &g->sink_shared[9]; h->stride = sizeof g->sink_cells[0]; h->lanes = g->lanes; h->tls = g->tls; h->above = 1;
	h->bounds = &shmts__scales[0]; h->least = -1.7976931348623157e308;
}
SHMTS_API shmts_segment *shmts_open(const shmts_options *o) {
	shmts_options none; shmts__seg *g; uint32_t i, used = 0;
	memset(&none, 0, sizeof none);
	if (!o) o = &none;
	pthread_once(&shmts__once, shmts__init); pthread_mutex_lock(&shmts__global); g = (shmts__seg *)(void *)shmts__pages(sizeof *g);
	if (!g) { /* everything records into one static sink */
		g = &shmts__none; shmts__fail(g, "shmts: want %zu bytes of private memory, got %s", sizeof *g, strerror(errno));
		g->lanes = g->closed = 1; g->tls = SHMTS__SEGMENTS - 1; g->pub.due = INT64_MAX;
		g->lane[SHMTS_MAX_LANES].number = SHMTS__OVERFLOW; shmts__set_sink(g); pthread_mutex_unlock(&shmts__global); return &g->pub;
	}
	pthread_mutex_init(&g->lock, NULL);
	for (i = 0; i < SHMTS__SEGMENTS - 1 && shmts__by_tls[i]; i++) used++;
	g->tls = used;
	for (i = 0; i <= SHMTS_MAX_LANES; i++) g->lane[i].number = i < SHMTS_MAX_LANES ? i : SHMTS__OVERFLOW;
	g->lazy_fork = o->lazy_fork; g->clock = o->clock; g->clock_arg = o->clock_arg;
	if (o->id) { memcpy(g->test_id, o->id, 16); g->has_test_id = 1; }
	shmts__names(g, o); g->closed = 1; g->pub.due = INT64_MAX;
	if (shmts__layout(g, o)) {
		for (g->buckets = 64; g->buckets < g->series_count * 2; g->buckets *= 2) {}
		g->by_hash = (shmts__slot **)shmts__arena(g, sizeof *g->by_hash * g->buckets); g->closed = 0;
		if (!g->by_hash || !shmts__new_part(g)) g->closed = 1; else if (g->parts[0].born) shmts__litter(g);
	}
	shmts__set_sink(g); shmts__by_tls[SHMTS__SEGMENTS - 1] = NULL;
	if (used < SHMTS__SEGMENTS - 1) __atomic_store_n(&shmts__by_tls[used], g, __ATOMIC_RELEASE);
	g->next = shmts__all; shmts__all = g; pthread_mutex_unlock(&shmts__global); return &g->pub;
}
SHMTS_API const char *shmts_error(shmts_segment *seg) {
	shmts__seg *g = (shmts__seg *)(void *)seg;
	return __atomic_load_n(&g->failed, __ATOMIC_ACQUIRE) ? g->error : NULL;
}
SHMTS_API void shmts_seal(shmts_segment *seg) {
	shmts__seg *g = (shmts__seg *)(void *)seg;
	pthread_mutex_lock(&g->lock); g->sealed = 1; shmts__set_due(g); pthread_mutex_unlock(&g->lock);
}
SHMTS_API void shmts_new_epoch(shmts_segment *seg) {
	shmts__seg *g = (shmts__seg *)(void *)seg;
	pthread_mutex_lock(&g->lock); shmts__move_epoch(g); pthread_mutex_unlock(&g->lock);
}
SHMTS_API void shmts_get_info(shmts_segment *seg, shmts_info *info) {
	shmts__seg *g = (shmts__seg *)(void *)seg;
	memset(info, 0, sizeof *info); pthread_mutex_lock(&g->lock); memcpy(info->path, g->parts[0].path, sizeof info->path);
	memcpy(info->segment_id, g->parts[0].id, 16); info->bytes = g->total; info->segments = g->part_count;
	for (uint32_t i = 0; i < g->part_count; i++) {
		const shmts_control *c = shmts__control(&g->parts[i]);
		for (uint32_t j = 0; j < g->parts[i].series_used; j++) info->series += (g->parts[i].slots[j].d.state & 0xff) == 2;
		info->dropped_series += __atomic_load_n(&c->dropped_series, __ATOMIC_RELAXED);
		info->overflow_threads += __atomic_load_n(&c->overflow_threads, __ATOMIC_RELAXED);
		info->rejected_records += __atomic_load_n(&c->rejected_records, __ATOMIC_RELAXED);
		info->fork_losses += __atomic_load_n(&c->fork_losses, __ATOMIC_RELAXED);
		info->exemplars += __atomic_load_n(&c->exemplars, __ATOMIC_RELAXED);
		info->exemplars_dropped += __atomic_load_n(&c->exemplars_dropped, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&g->lock);
}
SHMTS_API void shmts_close(shmts_segment *seg) {
	shmts__seg *g = (shmts__seg *)(void *)seg; int64_t unix_ns, mono;
	shmts_tick_stop(seg); pthread_mutex_lock(&g->lock);
	if (!g->closed) {
		shmts__tick_now(g, &unix_ns, &mono);
		for (uint32_t i = 0; i < g->part_count; i++) {
			shmts__part *p = &g->parts[i];
			if (!p->born) continue;
			if (p->old) shmts__move(p, 0);
			if (!g->sampled) shmts__tick_part(p, mono, unix_ns - mono, 1);
			__atomic_store_n(&shmts__control(p)->state, 2, __ATOMIC_RELEASE);
			/* The addresses stay, and what is recorded there from now on is nobody's; the lock goes with the mapping. */
			if (mmap(p->base, g->total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
				shmts__fail(g, "shmts: close: want private memory over the segment, got %s", strerror(errno));
		}
		g->closed = 1; shmts__set_due(g);
	}
	pthread_mutex_unlock(&g->lock);
}
#endif /* SHMTS_IMPLEMENTATION */
