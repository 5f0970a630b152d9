/* record: what a record call of shmts.h costs next to a plain increment of private memory, and what a tick costs.
 *
 *     cc -O2 -std=c11 -Icshim -o record bench/c/record.c -pthread             (-DHAVE_PCP -lpcp_mmv -lpcp: libpcp_mmv too)
 *     ./record [-r rounds] [-d store]
 *
 * Rounds of about 1 ms are interleaved, so that a noisy moment hits all alike. Output: name<TAB>min<TAB>median,
 * ns an operation; of ticks, ns a cell or lane-cell. The store is a directory of its own under /dev/shm unless given. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"
#ifdef HAVE_PCP
#include <pcp/pmapi.h>
#include <pcp/mmv_stats.h>
#include <sys/stat.h>
#endif

enum { MOST_ROUNDS = 1001, BATCH = 1000, SPREAD = 100 };

static shmts_segment *seg;
static shmts_lane *lane;
static shmts_counter_t *counter, *hundred[SPREAD];
static shmts_counter_f64_t *counter_f64;
static shmts_updown_t *updown;
static shmts_gauge_t *gauge;
static shmts_stat_t *stat_;
static shmts_histogram_t *histogram;
static shmts_histogram_u64_t *histogram_u64;
static shmts_histogram_t *traced, *rising;
static uint64_t *private_cell;
static double values[BATCH], top = 1;
static shmts_exemplar exemplar = {{1}, {2}, 3};

#define LOOP(name, ...)                                                \
	static __attribute__((noinline)) void run_##name(int n) {          \
		for (int k = 0; k < n; k++)                                    \
			for (int i = 0; i < BATCH; i += 4) {                       \
				{ const int j = i; (void)j; __VA_ARGS__; }             \
				{ const int j = i + 1; (void)j; __VA_ARGS__; }         \
				{ const int j = i + 2; (void)j; __VA_ARGS__; }         \
				{ const int j = i + 3; (void)j; __VA_ARGS__; }         \
			}                                                          \
	}
LOOP(private, (*(volatile uint64_t *)private_cell)++)
LOOP(private_store, *(volatile uint64_t *)private_cell = (uint64_t)j)
LOOP(add, shmts_add(counter, 1))
LOOP(add_spread, shmts_add(hundred[j % SPREAD], 1))
LOOP(lane_add, shmts_lane_add(lane, counter, 1))
LOOP(tls_add, shmts_tls_add(counter, 1))
LOOP(atomic_add, shmts_atomic_add(counter, 1))
LOOP(add_f64, shmts_add_f64(counter_f64, 0.5))
LOOP(add_i64, shmts_add_i64(updown, -1))
LOOP(set, shmts_set(gauge, values[j]))
LOOP(stat, shmts_record(stat_, values[j]))
LOOP(stat_tls, shmts_tls_record(stat_, values[j]))
LOOP(observe, shmts_observe(histogram, values[j]))
LOOP(observe_tls, shmts_tls_observe(histogram, values[j]))
LOOP(observe_atomic, shmts_atomic_observe(histogram, values[j]))
LOOP(observe_u64, shmts_observe_u64(histogram_u64, (uint64_t)j))
/* What of shmts_observe is index and bucket: the same without the sum. */
LOOP(bucket, shmts__bump(shmts__bucket(&histogram->s, shmts__cell(&histogram->s, 0), values[j]), 1, 0))
LOOP(tick_early, shmts_tick(seg, 1))
/* An exemplar beside an observation: one that is not taken, as most are, and one that is. */
LOOP(declined, shmts_observe(traced, values[j]); shmts_exemplar_histogram(traced, values[j], &exemplar))
LOOP(taken, shmts_observe(rising, values[j]); shmts_exemplar_histogram(rising, top += 1, &exemplar))
#ifdef HAVE_PCP
static void *mmv;
static pmAtomValue *mmv_counter, *mmv_gauge;
LOOP(mmv_inc, mmv_inc(mmv, mmv_counter))
LOOP(mmv_set, double v = values[j]; mmv_set(mmv, mmv_gauge, &v))
#endif

typedef struct { const char *name; void (*run)(int); int batches; double ns[MOST_ROUNDS]; } bench;
static bench benches[] = {
	{"private ++", run_private, 1, {0}}, {"private store", run_private_store, 1, {0}}, {"shmts_add", run_add, 1, {0}}, {"shmts_add, 100 in turn", run_add_spread, 1, {0}},
	{"shmts_lane_add", run_lane_add, 1, {0}}, {"shmts_tls_add", run_tls_add, 1, {0}}, {"shmts_atomic_add", run_atomic_add, 1, {0}}, {"shmts_add_f64", run_add_f64, 1, {0}},
	{"shmts_add_i64", run_add_i64, 1, {0}}, {"shmts_set", run_set, 1, {0}}, {"shmts_record (stat)", run_stat, 1, {0}}, {"shmts_tls_record (stat)", run_stat_tls, 1, {0}},
	{"histogram index and bucket", run_bucket, 1, {0}}, {"shmts_observe", run_observe, 1, {0}}, {"shmts_tls_observe", run_observe_tls, 1, {0}},
	{"shmts_atomic_observe", run_observe_atomic, 1, {0}}, {"shmts_observe_u64", run_observe_u64, 1, {0}}, {"shmts_tick, nothing due", run_tick_early, 1, {0}},
	{"shmts_observe and an exemplar that is not taken", run_declined, 1, {0}}, {"shmts_observe and an exemplar that is taken", run_taken, 1, {0}},
#ifdef HAVE_PCP
	{"mmv_inc", run_mmv_inc, 1, {0}}, {"mmv_set", run_mmv_set, 1, {0}},
#endif
};
enum { BENCHES = sizeof benches / sizeof benches[0] };

static double now(void) {
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}
static int by_size(const void *a, const void *b) { double x = *(const double *)a, y = *(const double *)b; return x < y ? -1 : x > y; }
static void print(const char *name, double *ns, int n) {
	qsort(ns, (size_t)n, sizeof *ns, by_size);
	printf("%s\t%.3f\t%.3f\n", name, ns[0], ns[n / 2]);
}

/* Two threads at once, each in its own lane or both in the overflow lane. */
typedef struct { void (*run)(int); int batches; double ns; pthread_barrier_t *start; } worker;
static void *work(void *arg) {
	worker *w = arg;
	w->run(1); /* claims its lane */
	pthread_barrier_wait(w->start);
	double t = now();
	w->run(w->batches);
	w->ns = (now() - t) / w->batches / BATCH;
	return NULL;
}
static void two_threads(const char *name, void (*run)(int), int batches, int rounds) {
	static double ns[2 * MOST_ROUNDS];
	for (int r = 0; r < rounds; r++) {
		pthread_barrier_t start;
		pthread_t other;
		worker w[2] = {{run, batches, 0, &start}, {run, batches, 0, &start}};
		pthread_barrier_init(&start, NULL, 2);
		if (pthread_create(&other, NULL, work, &w[1])) exit(1);
		work(&w[0]);
		pthread_join(other, NULL);
		pthread_barrier_destroy(&start);
		ns[2 * r] = w[0].ns;
		ns[2 * r + 1] = w[1].ns;
	}
	print(name, ns, 2 * rounds);
}

/* Ticks of a table of counters: each tick sums lanes x cells lane-cells and publishes cells. */
static void ticks(const char *store, uint32_t lanes, uint32_t cells, int rounds) {
	static double ns[MOST_ROUNDS];
	char name[100];
	shmts_table table = {"scalars", cells, 0, 0, 0, {{1000000000, 8}}};
	shmts_options o = {.job = "tick", .instance = "bench", .dir = store, .tables = &table, .table_count = 1, .lanes = lanes};
	shmts_segment *s = shmts_open(&o);
	int64_t mono = (int64_t)now();
	if (shmts_error(s)) { fprintf(stderr, "%s\n", shmts_error(s)); exit(1); }
	for (uint32_t i = 0; i < cells; i++) {
		snprintf(name, sizeof name, "c%u", i);
		shmts_add(shmts_counter(s, name, NULL), i);
	}
	for (uint32_t k = 1; k < lanes; k++) shmts_lane_claim(s);
	for (int r = -3; r < rounds; r++) {
		double t = now();
		if (shmts_tick(s, mono += 1000000000) != 1) exit(1);
		if (r >= 0) ns[r] = now() - t;
	}
	for (int r = 0; r < rounds; r++) ns[r] /= cells;
	snprintf(name, sizeof name, "tick, %u lanes and overflow x %u cells, ns a cell", lanes, cells);
	print(name, ns, rounds);
	for (int r = 0; r < rounds; r++) ns[r] /= lanes + 1;
	snprintf(name, sizeof name, "tick, %u lanes and overflow x %u cells, ns a lane-cell", lanes, cells);
	print(name, ns, rounds);
	char path[640];
	shmts_info info;
	shmts_get_info(s, &info);
	memcpy(path, info.path, sizeof path);
	shmts_close(s);
	unlink(path);
}

int main(int argc, char **argv) {
	char own[64] = "/dev/shm/shmts-bench-XXXXXX";
	const char *store = NULL;
	int rounds = 41, c;
	while ((c = getopt(argc, argv, "r:d:")) != -1) {
		if (c == 'r') rounds = atoi(optarg);
		else if (c == 'd') store = optarg;
		else return 2;
	}
	if (rounds < 1 || rounds > MOST_ROUNDS) { fprintf(stderr, "record: want 1 to %d rounds, got %d\n", MOST_ROUNDS, rounds); return 2; }
	if (!store && !(store = mkdtemp(own))) { perror("record: mkdtemp"); return 1; }
	seg = shmts_open(&(shmts_options){.job = "record", .instance = "bench", .dir = store, .series = 200, .lanes = 8});
	if (shmts_error(seg)) { fprintf(stderr, "%s\n", shmts_error(seg)); return 1; }
	lane = shmts_lane_claim(seg);
	counter = shmts_counter(seg, "counter", NULL);
	for (int i = 0; i < SPREAD; i++) {
		char name[32];
		snprintf(name, sizeof name, "hundred_%d", i);
		hundred[i] = shmts_counter(seg, name, NULL);
	}
	counter_f64 = shmts_counter_f64(seg, "counter_f64", NULL);
	updown = shmts_updown(seg, "updown", NULL);
	gauge = shmts_gauge(seg, "gauge", NULL);
	stat_ = shmts_stat(seg, "stat", NULL);
	histogram = shmts_histogram(seg, "histogram", NULL);
	histogram_u64 = shmts_histogram_u64(seg, "histogram_u64", NULL);
	traced = shmts_histogram(seg, "traced", NULL);
	rising = shmts_histogram(seg, "rising", NULL);
	shmts_exemplar_histogram(traced, 1e9, &exemplar); /* nothing greater comes */
	private_cell = (uint64_t *)(void *)shmts__pages(4096);
#ifdef HAVE_PCP
	static mmv_metric2_t metrics[] = {
		{.name = (char *)"counter", .item = 1, .type = MMV_TYPE_U64, .semantics = MMV_SEM_COUNTER},
		{.name = (char *)"gauge", .item = 2, .type = MMV_TYPE_DOUBLE, .semantics = MMV_SEM_INSTANT},
	};
	char pcp[64] = "/dev/shm/shmts-bench-pcp-XXXXXX", pcp_mmv[80], pcp_file[96]; /* as where no pmcd is installed there is no such directory */
	if (!mkdtemp(pcp)) { perror("record: mkdtemp"); return 1; }
	snprintf(pcp_mmv, sizeof pcp_mmv, "%s/mmv", pcp);
	snprintf(pcp_file, sizeof pcp_file, "%s/shmtsbench", pcp_mmv);
	mkdir(pcp_mmv, 0755);
	setenv("PCP_TMP_DIR", pcp, 1);
	mmv_registry_t *registry = mmv_stats_registry("shmtsbench", 321, 0);
	for (int i = 0; i < 2; i++) mmv_stats_add_metric(registry, metrics[i].name, metrics[i].item, metrics[i].type, metrics[i].semantics, metrics[i].dimension, 0, "", "");
	mmv = mmv_stats_start(registry);
	if (!mmv) { fprintf(stderr, "record: mmv_stats_start: want a file in %s\n", pcp_mmv); return 1; }
	mmv_counter = mmv_lookup_value_desc(mmv, "counter", NULL);
	mmv_gauge = mmv_lookup_value_desc(mmv, "gauge", NULL);
#endif
	uint64_t x = 88172645463325252;
	for (int i = 0; i < BATCH; i++) { /* latencies over the histogram's three decades, in no order */
		x ^= x << 13; x ^= x >> 7; x ^= x << 17;
		values[i] = 0.001 + (double)(x % 1000) / 1010;
	}
	for (int i = 0; i < BENCHES; i++) { /* about 1 ms a round */
		double t = now();
		benches[i].run(20);
		benches[i].batches = 1 + (int)(1e6 / ((now() - t) / 20));
	}
	for (int r = 0; r < rounds; r++)
		for (int i = 0; i < BENCHES; i++) {
			double t = now();
			benches[i].run(benches[i].batches);
			benches[i].ns[r] = (now() - t) / benches[i].batches / BATCH;
		}
	for (int i = 0; i < BENCHES; i++) print(benches[i].name, benches[i].ns, rounds);
	two_threads("shmts_tls_add, 2 threads", run_tls_add, 1000, rounds);
	two_threads("shmts_tls_observe, 2 threads", run_observe_tls, 200, rounds);
	two_threads("shmts_atomic_add, 2 threads", run_atomic_add, 100, rounds);
	ticks(store, 1, 1000, rounds);
	ticks(store, 8, 1000, rounds);
	ticks(store, 8, 10000, rounds);
#ifdef HAVE_PCP
	mmv_stats_stop("shmtsbench", mmv);
	unlink(pcp_file); /* which it leaves */
	rmdir(pcp_mmv);
	rmdir(pcp);
#endif
	shmts_info info;
	shmts_get_info(seg, &info);
	char path[640];
	memcpy(path, info.path, sizeof path);
	shmts_close(seg);
	unlink(path);
	if (store == own) {
		char dir[128];
		snprintf(dir, sizeof dir, "%s/%u", own, (unsigned)geteuid());
		rmdir(dir);
		rmdir(own);
	}
	return 0;
}
