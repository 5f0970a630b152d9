/* stress: records from many threads, threads that come and go, signal handlers and forked children, until it is killed,
 * and keeps what was completed in a file, so that the segments can be held against it. C11, Linux.
 *
 *     ./stress --dir STORE --ack FILE [--threads 4] [--churn] [--signals] [--forks 2] [--calls N] [--exemplars 4]
 *
 * FILE has a page of 16 KiB for each process, in the order of their births, MOST_PROCESSES of them:
 *
 *     word 0   1 once the rest is filled
 *     word 1   pid
 *     word 2-3 segment_id
 *     word 8 x (1 + i) and on, for i in 0..: a context's completed work: 0 calls of shmts_add (each 1), 1 of shmts_add_f64
 *              (each 0.5), 2 the sum of shmts_add_i64, 3 calls of shmts_record, 4 of shmts_observe, 5 of
 *              shmts_observe_u64 (each of 3), 6 the gauge last set, 7 exemplars offered (each says which one it is: see record)
 *
 * A context is one thing that records one call after the other: the main thread, a worker, a thread's signal handler. It adds to
 * its word right after each call returned. So in each segment, whatever killed its process:
 *     sum of the words <= what the series say <= that + one call for each context.
 * With --calls each context stops after so many rounds, and then both are equal. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"

#include <getopt.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>

enum { MOST_PROCESSES = 16, PAGE = 16384, MOST_THREADS = 60, CONTEXTS = 2 * (MOST_THREADS + 1) };
enum { MAIN, LANE, TLS, ATOMIC };

typedef struct context { uint64_t adds, f64s, sum, stats, observed, observed_u64, gauge, offered; } context;
typedef struct page { uint64_t ready, pid, id[2], unused[4]; context context[CONTEXTS]; } page;
_Static_assert(sizeof(page) <= PAGE, "a page holds its contexts");

static shmts_segment *seg;
static shmts_counter_t *adds;
static shmts_counter_f64_t *f64s;
static shmts_updown_t *level;
static shmts_stat_t *sizes;
static shmts_histogram_t *waits;
static shmts_histogram_u64_t *hops;
static shmts_gauge_t *gauge;
static shmts_counter_t *traced;
static char *pages;
static page *mine;
static int threads = 4, churn, signals, forks;
static uint64_t calls = UINT64_MAX;
static __thread context *handler_context; /* of this thread's signal handler */

#define DONE(word, n) __atomic_store_n(&c->word, c->word + (uint64_t)(n), __ATOMIC_RELEASE)
#define EACH(name, ...) (how == MAIN ? shmts_##name(__VA_ARGS__) : how == LANE ? shmts_lane_##name(lane, __VA_ARGS__) : how == TLS ? shmts_tls_##name(__VA_ARGS__) : shmts_atomic_##name(__VA_ARGS__))

static void record(context *c, int how, const shmts_lane *lane) {
	int64_t step = c->adds % 3 ? 2 : -1;
	double v = (double)(c->adds % 1000) * 1e-3;
	EACH(add, adds, 1);
	DONE(adds, 1);
	EACH(add_f64, f64s, 0.5);
	DONE(f64s, 1);
	EACH(add_i64, level, step);
	DONE(sum, step);
	EACH(record, sizes, v);
	DONE(stats, 1);
	EACH(observe, waits, v);
	DONE(observed, 1);
	EACH(observe_u64, hops, 3);
	DONE(observed_u64, 1);
	shmts_set(gauge, v);
	/* The k-th of context i: value k x 128 + i, trace_id k and i + 1, span_id k x 7 + i, time k x 1000 + i. */
	uint64_t i = (uint64_t)(c - mine->context), k = c->offered + 1, id[3] = {k, i + 1, k * 7 + i};
	shmts_exemplar x;
	memcpy(x.trace_id, id, 16);
	memcpy(x.span_id, id + 2, 8);
	x.unix_ns = (int64_t)(k * 1000 + i);
	shmts_exemplar_counter(traced, k * 128 + i, &x);
	DONE(offered, 1);
}

static void on_alarm(int number) {
	(void)number;
	if (handler_context && handler_context->adds < calls) record(handler_context, ATOMIC, NULL);
}

static void *worker(void *arg) {
	context *c = arg;
	int number = (int)(c - mine->context), how = number % 3 == 0 ? LANE : number % 3 == 1 ? TLS : ATOMIC;
	shmts_lane *lane = how == LANE ? shmts_lane_claim(seg) : NULL;
	uint64_t until = churn ? c->adds + 50 + (uint64_t)number * 7 : calls;
	handler_context = c + MOST_THREADS + 1;
	while (c->adds < until && c->adds < calls) record(c, how, lane);
	handler_context = NULL;
	if (lane) shmts_lane_release(lane);
	return NULL;
}

static void new_page(void) {
	uint64_t n = __atomic_fetch_add((uint64_t *)(void *)(pages + MOST_PROCESSES * PAGE), 1, __ATOMIC_RELAXED);
	shmts_info info;
	if (n >= MOST_PROCESSES) _exit(0);
	mine = (page *)(void *)(pages + n * PAGE);
	shmts_get_info(seg, &info);
	memcpy(mine->id, info.segment_id, 16);
	mine->pid = (uint64_t)getpid();
	__atomic_store_n(&mine->ready, 1, __ATOMIC_RELEASE);
	handler_context = &mine->context[MOST_THREADS + 1];
}

static void run(void) {
	pthread_t thread[MOST_THREADS + 1];
	struct itimerval every = {{0, 300}, {0, 300}};
	int children = forks;
	pid_t child[MOST_PROCESSES];
	if (signals) setitimer(ITIMER_REAL, &every, NULL);
	for (int i = 1; i <= threads; i++)
		if (pthread_create(&thread[i], NULL, worker, &mine->context[i])) exit(1);
	while (mine->context[0].adds < calls) {
		for (int i = 0; i < 100 && mine->context[0].adds < calls; i++) record(&mine->context[0], MAIN, NULL);
		shmts_tick(seg, 0);
		for (int i = 1; i <= threads && churn; i++)
			if (pthread_tryjoin_np(thread[i], NULL) == 0 && pthread_create(&thread[i], NULL, worker, &mine->context[i])) exit(1);
		if (children > 0 && mine->context[0].adds >= (uint64_t)(100 * (forks - children + 1))) {
			sigset_t alarm, was;
			sigemptyset(&alarm);
			sigaddset(&alarm, SIGALRM);
			pthread_sigmask(SIG_BLOCK, &alarm, &was);
			pid_t parent = getpid(), pid = fork();
			child[--children] = pid;
			if (pid < 0) exit(1);
			if (pid == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				if (getppid() != parent) _exit(0);
				forks = 0;
				new_page();
				pthread_sigmask(SIG_SETMASK, &was, NULL);
				run();
				_exit(0);
			}
			pthread_sigmask(SIG_SETMASK, &was, NULL);
		}
	}
	for (int again = churn; again;) { /* churned threads go on until all their rounds are done */
		again = 0;
		for (int i = 1; i <= threads; i++) {
			pthread_join(thread[i], NULL);
			again |= mine->context[i].adds < calls;
			if (pthread_create(&thread[i], NULL, worker, &mine->context[i])) exit(1);
		}
	}
	for (int i = 1; i <= threads; i++) pthread_join(thread[i], NULL);
	while (children < forks) {
		int status;
		while (waitpid(child[children], &status, 0) < 0 && errno == EINTR) {}
		if (status) exit(3);
		children++;
	}
	memset(&every, 0, sizeof every);
	setitimer(ITIMER_REAL, &every, NULL);
}

int main(int argc, char **argv) {
	static const struct option flags[] = {{"dir", 1, NULL, 'd'}, {"ack", 1, NULL, 'a'}, {"threads", 1, NULL, 't'}, {"churn", 0, NULL, 'c'},
	                                      {"signals", 0, NULL, 's'}, {"forks", 1, NULL, 'f'}, {"calls", 1, NULL, 'n'}, {"exemplars", 1, NULL, 'e'}, {NULL, 0, NULL, 0}};
	const char *ack = NULL;
	static const shmts_table tables[] = {/* short steps, so that even a short life has rows */
	                                     {.name = "scalars", .scalars = 8, .stats = 2, .rings = {{100000000, 50}, {500000000, 20}}},
	                                     {.name = "histograms", .histograms = 2, .buckets = 80, .rings = {{100000000, 50}, {500000000, 20}}}};
	shmts_options o = {.job = "stress", .instance = "stress", .lanes = 6, .tables = tables, .table_count = 2, .exemplars = 4};
	int c, fd;
	while ((c = getopt_long(argc, argv, "", flags, NULL)) != -1) {
		switch (c) {
		case 'd': o.dir = optarg; break;
		case 'a': ack = optarg; break;
		case 't': threads = atoi(optarg); break;
		case 'c': churn = 1; break;
		case 's': signals = 1; break;
		case 'f': forks = atoi(optarg); break;
		case 'n': calls = strtoull(optarg, NULL, 10); break;
		case 'e': o.exemplars = atoi(optarg); break;
		default: return 2;
		}
	}
	if (!ack || threads < 0 || threads > MOST_THREADS || forks < 0 || forks >= MOST_PROCESSES) {
		fprintf(stderr, "stress: want --ack, at most %d threads and %d forks, got %s, %d and %d\n", MOST_THREADS, MOST_PROCESSES - 1, ack ? ack : "none", threads, forks);
		return 2;
	}
	fd = open(ack, O_RDWR | O_CREAT | O_CLOEXEC, 0644); /* may be mapped by who started this */
	if (fd < 0 || ftruncate(fd, (MOST_PROCESSES + 1) * PAGE)) { perror(ack); return 1; }
	pages = mmap(NULL, (MOST_PROCESSES + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (pages == MAP_FAILED) { perror(ack); return 1; }
	close(fd);
	seg = shmts_open(&o);
	if (shmts_error(seg)) { fprintf(stderr, "%s\n", shmts_error(seg)); return 1; }
	adds = shmts_counter(seg, "adds", NULL);
	f64s = shmts_counter_f64(seg, "f64s", NULL);
	level = shmts_updown(seg, "level", NULL);
	sizes = shmts_stat(seg, "sizes", &(shmts_series){.non_negative = 1});
	waits = shmts_histogram(seg, "waits", NULL);
	hops = shmts_histogram_u64(seg, "hops", NULL);
	gauge = shmts_gauge(seg, "gauge", NULL);
	traced = shmts_counter(seg, "traced", NULL);
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_alarm;
	action.sa_flags = SA_RESTART;
	sigaction(SIGALRM, &action, NULL);
	new_page();
	run();
	return 0; /* without closing: the live cells say it all */
}
