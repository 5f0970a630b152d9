/* prog: one mode for each thing that cshim_test.go wants to see shmts.h do. It is C11 and C++17.
 *
 *     ./prog MODE STORE [ARGUMENT...]
 *
 * It ends without closing, as killed programs do, except where closing is the matter. What it says on stdout, the test checks; so
 * it does what is in STORE. Exit status 0, or 1 with the reason on stderr. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"

#include <dlfcn.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define WANT(what) ((what) ? (void)0 : (fprintf(stderr, "prog.c:%d: want %s\n", __LINE__, #what), exit(1)))

static int argc_;
static char **argv_;
static shmts_options options(void) {
	shmts_options o;
	memset(&o, 0, sizeof o);
	o.job = "prog";
	o.instance = "test";
	o.dir = argv_[2];
	return o;
}
static shmts_segment *open_or_die(const shmts_options *o) {
	shmts_segment *seg = shmts_open(o);
	if (shmts_error(seg)) {
		fprintf(stderr, "%s\n", shmts_error(seg));
		exit(1);
	}
	return seg;
}
static shmts_series labelled(const char *const *labels) {
	shmts_series s;
	memset(&s, 0, sizeof s);
	s.labels = labels;
	return s;
}

/* A series of each kind, and n records into each by the variant asked for. */
enum { PLAIN, LANE, TLS, ATOMIC };
typedef struct all {
	shmts_counter_t *counter;
	shmts_counter_f64_t *counter_f64;
	shmts_updown_t *updown;
	shmts_gauge_t *gauge;
	shmts_gauge_i64_t *gauge_i64;
	shmts_stat_t *stat;
	shmts_histogram_t *histogram;
	shmts_histogram_u64_t *histogram_u64;
} all;
static all register_all(shmts_segment *seg) {
	all a;
	a.counter = shmts_counter(seg, "counter", NULL);
	a.counter_f64 = shmts_counter_f64(seg, "counter_f64", NULL);
	a.updown = shmts_updown(seg, "updown", NULL);
	a.gauge = shmts_gauge(seg, "gauge", NULL);
	a.gauge_i64 = shmts_gauge_i64(seg, "gauge_i64", NULL);
	a.stat = shmts_stat(seg, "stat", NULL);
	a.histogram = shmts_histogram(seg, "histogram", NULL);
	a.histogram_u64 = shmts_histogram_u64(seg, "histogram_u64", NULL);
	return a;
}
#define EACH(name, h, v) (how == PLAIN ? shmts_##name(h, v) : how == LANE ? shmts_lane_##name(lane, h, v) : how == TLS ? shmts_tls_##name(h, v) : shmts_atomic_##name(h, v))
static shmts_exemplar trace(uint64_t n) {
	shmts_exemplar x;
	memset(&x, 0, sizeof x);
	memcpy(x.trace_id, &n, 8);
	memcpy(x.span_id, &n, 8);
	return x;
}
static void record_all(const all *a, int how, const shmts_lane *lane, int n) {
	shmts_exemplar x = trace(77);
	int i;
	for (i = 1; i <= n; i++) {
		EACH(add, a->counter, 2);
		EACH(add_f64, a->counter_f64, 0.25);
		EACH(add_i64, a->updown, i % 2 ? 3 : -1);
		shmts_set(a->gauge, i);
		shmts_set_i64(a->gauge_i64, -i);
		EACH(record, a->stat, i % 5);
		EACH(observe, a->histogram, 0.5);
		EACH(observe_u64, a->histogram_u64, 7);
		shmts_exemplar_counter(a->counter, (uint64_t)i, &x);
		shmts_exemplar_histogram(a->histogram, 0.5, &x);
	}
}

static shmts_segment *seg_;
static all all_;
static pthread_barrier_t *meet_;
static void *record_thread(void *arg) {
	int how = (int)(intptr_t)arg % 4 == PLAIN ? TLS : (int)(intptr_t)arg % 4;
	shmts_lane *lane = how == LANE ? shmts_lane_claim(seg_) : NULL;
	record_all(&all_, how, lane, 1000);
	if (meet_) pthread_barrier_wait(meet_); /* so that all have their lanes at once */
	if (lane) shmts_lane_release(lane);
	return NULL;
}

/* Every variant, from this thread and 8 others (more than the lanes that are free): 12 x 1000 records a series. */
static void mode_variants(void) {
	shmts_options o = options();
	pthread_barrier_t meet;
	pthread_t t[8];
	intptr_t i;
	o.lanes = 5;
	seg_ = open_or_die(&o);
	all_ = register_all(seg_);
	WANT(all_.counter == shmts_counter(seg_, "counter", NULL));
	record_all(&all_, PLAIN, NULL, 1000);
	record_all(&all_, LANE, shmts_lane_claim(seg_), 1000);
	record_all(&all_, TLS, NULL, 1000);
	record_all(&all_, ATOMIC, NULL, 1000);
	WANT(pthread_barrier_init(&meet, NULL, 8) == 0);
	meet_ = &meet;
	for (i = 0; i < 8; i++) WANT(pthread_create(&t[i], NULL, record_thread, (void *)i) == 0);
	for (i = 0; i < 8; i++) pthread_join(t[i], NULL);
	pthread_barrier_destroy(&meet);
}

static void *short_thread(void *arg) {
	(void)arg;
	record_all(&all_, TLS, NULL, 3);
	return NULL;
}
/* 10,000 threads that record 3 times each, at most 7 at a time on 8 lanes: no one needs the overflow lane. */
static void mode_churn(void) {
	shmts_options o = options();
	pthread_t t[7];
	shmts_info info;
	int i, n;
	o.lanes = 8;
	seg_ = open_or_die(&o);
	all_ = register_all(seg_);
	for (n = 0; n < 10000; n += i) {
		for (i = 0; i < 7 && n + i < 10000; i++) WANT(pthread_create(&t[i], NULL, short_thread, NULL) == 0);
		while (i > 0 && n + i <= 10000) { pthread_join(t[--i], NULL); n++; }
	}
	shmts_get_info(seg_, &info);
	printf("overflow_threads %llu\n", (unsigned long long)info.overflow_threads);
}

/* NaN, infinity, the negative; the unset patterns; bounds of a histogram. */
static void mode_rejects(void) {
	shmts_options o = options();
	shmts_segment *seg = open_or_die(&o);
	shmts_series s = labelled(NULL);
	all a = register_all(seg);
	shmts_stat_t *positive;
	double nan_ = __builtin_nan(""), inf = __builtin_inf();
	shmts_info info;
	s.non_negative = 1;
	positive = shmts_stat(seg, "positive", &s);
	shmts_add_f64(a.counter_f64, -1);
	shmts_add_f64(a.counter_f64, nan_);
	shmts_atomic_add_f64(a.counter_f64, inf);
	shmts_record(a.stat, nan_);
	shmts_tls_record(a.stat, -inf);
	shmts_record(positive, -0.5);
	shmts_observe(a.histogram, -1e-9);
	shmts_observe(a.histogram, inf);
	shmts_atomic_observe(a.histogram, nan_);
	shmts_get_info(seg, &info);
	WANT(info.rejected_records == 9);
	shmts_record(a.stat, -0.5);
	shmts_record(positive, 0.5);
	shmts_observe(a.histogram, 0);
	shmts_observe(a.histogram, -0.0);
	shmts_observe(a.histogram, 5e-324);
	shmts_observe(a.histogram, 0.001 / 2);
	shmts_observe(a.histogram, 1);          /* inclusive: the last bucket */
	shmts_observe(a.histogram, 1.0000001);  /* above */
	shmts_observe(a.histogram, 1e300);
	shmts_observe_u64(a.histogram_u64, 0);
	shmts_observe_u64(a.histogram_u64, UINT64_MAX);
	shmts_set(a.gauge, shmts__f64(SHMTS_UNSET_F64));
	shmts_set_i64(a.gauge_i64, INT64_MIN);
}

/* The bucket of what the arguments say, one line each: scale, value's bits in hexadecimal, index. */
static void mode_buckets(void) {
	char line[100];
	shmts_segment *seg;
	shmts_options o = options();
	seg = open_or_die(&o);
	(void)seg;
	while (fgets(line, sizeof line, stdin)) {
		int scale;
		unsigned long long bits;
		WANT(sscanf(line, "%d %llx", &scale, &bits) == 2);
		printf("%d\n", shmts__index(scale, shmts__f64(bits)));
	}
}

/* Parent 5, child 7, child's child 11, daemon() 13 (in the last child); the child's threads and lanes too. */
static void mode_fork(void) {
	shmts_options o = options();
	pid_t pid;
	int status;
	shmts_info before, after;
	seg_ = open_or_die(&o);
	all_ = register_all(seg_);
	WANT(shmts_tick_start(seg_) == 0);
	record_all(&all_, PLAIN, NULL, 5);
	record_all(&all_, TLS, NULL, 5);
	shmts_get_info(seg_, &before);
	pid = fork();
	WANT(pid >= 0);
	if (pid == 0) {
		pthread_t t;
		int i;
		shmts_get_info(seg_, &after);
		WANT(memcmp(before.segment_id, after.segment_id, 16) != 0 && after.path[0] && after.series == before.series && after.fork_losses == 0);
		record_all(&all_, PLAIN, NULL, 7);
		record_all(&all_, TLS, NULL, 7);
		WANT(shmts_counter(seg_, "counter", NULL) == all_.counter);
		shmts_add(shmts_counter(seg_, "child_only", NULL), 1);
		WANT(pthread_create(&t, NULL, short_thread, NULL) == 0);
		pthread_join(t, NULL);
		pid = fork();
		if (pid == 0) {
			record_all(&all_, ATOMIC, NULL, 11);
			WANT(daemon(1, 1) == 0);
			record_all(&all_, PLAIN, NULL, 13);
			for (i = 0; i < 2000; i++) { /* the tick thread lives here too: wait for a row */
				usleep(5000);
				if (__atomic_load_n(&((shmts__seg *)(void *)seg_)->parts[0].table[0].head[0], __ATOMIC_ACQUIRE)) break;
			}
			WANT(i < 2000);
			printf("daemon done\n");
			fflush(stdout);
			_exit(0);
		}
		WANT(waitpid(pid, &status, 0) == pid && status == 0);
		_exit(0);
	}
	record_all(&all_, TLS, NULL, 1);
	WANT(waitpid(pid, &status, 0) == pid && status == 0);
	shmts_get_info(seg_, &after);
	WANT(memcmp(before.segment_id, after.segment_id, 16) == 0);
}

/* By default the instance names the process: the child's is another. */
static void mode_instance(void) {
	static const char *const labels[] = {"a", "1", "zone", "z", NULL};
	shmts_options o = options();
	int status;
	pid_t pid;
	o.instance = NULL;
	o.labels = labels;
	o.attributes = labels;
	seg_ = open_or_die(&o);
	printf("%ld\n", (long)getpid());
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		printf("%ld\n", (long)getpid());
		fflush(stdout);
		_exit(0);
	}
	WANT(waitpid(pid, &status, 0) == pid && status == 0);
}

/* A child that can have no segment, and then one; and a child that wants none before its first tick. */
static void mode_fork_lost(void) {
	shmts_options o = options();
	shmts_info info;
	char aside[600];
	int status;
	pid_t pid;
	o.lazy_fork = argc_ > 3;
	seg_ = open_or_die(&o);
	all_ = register_all(seg_);
	record_all(&all_, PLAIN, NULL, 5);
	snprintf(aside, sizeof aside, "%s-aside", argv_[2]);
	WANT(rename(argv_[2], aside) == 0);
	pid = fork();
	if (pid == 0) {
		record_all(&all_, PLAIN, NULL, 7);
		shmts_get_info(seg_, &info);
		WANT(info.path[0] == 0 && info.fork_losses == (o.lazy_fork ? 0 : 1));
		WANT(rename(aside, argv_[2]) == 0);
		shmts_tick(seg_, shmts__ns(CLOCK_MONOTONIC) + 5000000000);
		shmts_get_info(seg_, &info);
		WANT(info.path[0] != 0);
		record_all(&all_, PLAIN, NULL, 1);
		_exit(0);
	}
	WANT(waitpid(pid, &status, 0) == pid && status == 0);
}

/* Everything goes on after closing, into nothing. */
static void mode_close(void) {
	shmts_options o = options();
	pthread_t t;
	shmts_segment *seg = seg_ = open_or_die(&o);
	shmts_lane *lane = shmts_lane_claim(seg);
	all_ = register_all(seg);
	record_all(&all_, PLAIN, NULL, 10);
	record_all(&all_, LANE, lane, 10);
	record_all(&all_, TLS, NULL, 10);
	WANT(shmts_tick_start(seg) == 0);
	WANT(pthread_create(&t, NULL, record_thread, (void *)(intptr_t)TLS) == 0);
	pthread_join(t, NULL);
	shmts_close(seg);
	record_all(&all_, PLAIN, NULL, 10);
	record_all(&all_, LANE, lane, 10);
	record_all(&all_, TLS, NULL, 10);
	record_all(&all_, ATOMIC, NULL, 10);
	WANT(pthread_create(&t, NULL, record_thread, (void *)(intptr_t)TLS) == 0);
	pthread_join(t, NULL);
	WANT(shmts_tick(seg, 0) == 0);
	shmts_add(shmts_counter(seg, "late", NULL), 1);
	shmts_retire(all_.counter);
	shmts_add(all_.counter, 1);
	shmts_lane_release(lane);
	shmts_new_epoch(seg);
	WANT(shmts_tick_start(seg) == 0);
	shmts_close(seg);
	WANT(fork() >= 0); /* both go on */
	record_all(&all_, TLS, NULL, 10);
	seg = open_or_die(&o); /* and a new one can be had */
	shmts_add(shmts_counter(seg, "second", NULL), 1);
	wait(NULL);
}

/* Lets a syscall fail from now on, where the bits of mask are set in its third argument. */
static void forbid(unsigned number, unsigned mask) {
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 16),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, mask, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program;
	program.len = sizeof filter / sizeof filter[0];
	program.filter = filter;
	WANT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
}

/* An open that fails says why, and recording works all the same. argv[3] is what makes it fail, or take the long way. */
static void mode_fail(void) {
	shmts_options o = options();
	shmts_segment *seg;
	all a;
	const char *how = argc_ > 3 ? argv_[3] : "";
	if (!strcmp(how, "fsize")) {
		struct rlimit limit = {65536, 65536};
		WANT(setrlimit(RLIMIT_FSIZE, &limit) == 0);
	}
	if (!strcmp(how, "noproc") && (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("none", "/proc", "tmpfs", 0, NULL))) {
		printf("can't hide /proc: %s\n", strerror(errno)); /* a container's root, or a chroot */
		exit(0);
	}
	if (!strcmp(how, "notmpfile") || !strcmp(how, "norename")) forbid(SYS_openat, O_TMPFILE);
	if (!strcmp(how, "nolink")) forbid(SYS_linkat, 0);
	if (!strcmp(how, "norename")) forbid(SYS_renameat2, 0);
	if (!strcmp(how, "as")) {
		struct rlimit limit = {0, 0};
		WANT(setrlimit(RLIMIT_AS, &limit) == 0);
	}
	seg = shmts_open(&o);
	printf("%s\n", shmts_error(seg) ? shmts_error(seg) : "born");
	a = register_all(seg);
	record_all(&a, PLAIN, NULL, 10);
	record_all(&a, TLS, NULL, 10);
	record_all(&a, ATOMIC, NULL, 10);
	record_all(&a, LANE, shmts_lane_claim(seg), 10);
	shmts_tick(seg, 0);
	shmts_retire(a.counter);
	shmts_add(a.counter, 1);
	shmts_close(seg);
}

static int64_t unix_ = 1700000000000000000, mono_ = 1000000000000;
static void fake_clock(void *arg, int64_t *unix_ns, int64_t *mono) {
	(void)arg;
	*unix_ns = unix_;
	*mono = mono_;
}
static void advance(int64_t ns) { unix_ += ns; mono_ += ns; }

static int stop_;
static void *record_until(void *arg) {
	uint64_t *n = (uint64_t *)arg;
	while (!__atomic_load_n(&stop_, __ATOMIC_ACQUIRE)) {
		record_all(&all_, TLS, NULL, 1);
		__atomic_fetch_add(n, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}
/* Born late: the store appears while threads record. None is lost and none counted twice. */
static void mode_adopt(void) {
	shmts_options o = options();
	char nowhere[600];
	pthread_t t[3];
	uint64_t n[3] = {0, 0, 0};
	shmts_info info;
	int i;
	snprintf(nowhere, sizeof nowhere, "%s/later", argv_[2]);
	o.dir = nowhere;
	o.clock = fake_clock;
	seg_ = shmts_open(&o);
	WANT(shmts_error(seg_) != NULL);
	all_ = register_all(seg_);
	shmts_set(shmts_gauge(seg_, "zero", NULL), 0);
	shmts_gauge(seg_, "never_set", NULL);
	record_all(&all_, PLAIN, NULL, 10);
	for (i = 0; i < 3; i++) WANT(pthread_create(&t[i], NULL, record_until, &n[i]) == 0);
	advance(1000000000);
	WANT(shmts_tick(seg_, 0) == 0); /* not there yet */
	WANT(mkdir(nowhere, 0755) == 0);
	for (i = 0; i < 100; i++) {
		advance(1000000000);
		shmts_tick(seg_, 0);
		if (i == 2) { /* born: whoever was inside a record then gets out of it before the 60 ticks that wait for it */
			uint64_t was[3];
			int k;
			for (k = 0; k < 3; k++) was[k] = __atomic_load_n(&n[k], __ATOMIC_RELAXED);
			for (k = 0; k < 3; k++) while (__atomic_load_n(&n[k], __ATOMIC_RELAXED) < was[k] + 2) usleep(100);
		}
	}
	shmts_get_info(seg_, &info);
	WANT(info.path[0] != 0 && shmts_error(seg_) == NULL);
	__atomic_store_n(&stop_, 1, __ATOMIC_RELEASE);
	for (i = 0; i < 3; i++) pthread_join(t[i], NULL);
	record_all(&all_, ATOMIC, NULL, 10);
	printf("%llu\n", (unsigned long long)(n[0] + n[1] + n[2] + 20));
	advance(1000000000);
	WANT(shmts_tick(seg_, 0) > 0);
}

/* What a dataplane does under a strict filter: records and ticks with a time it has. */
static void mode_seccomp(void) {
	static struct sock_filter strict[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program;
	shmts_options o = options();
	int i, rows = 0;
	int64_t now;
	seg_ = open_or_die(&o);
	all_ = register_all(seg_);
	record_all(&all_, TLS, NULL, 1); /* claims the lane */
	shmts_seal(seg_);
	now = shmts__ns(CLOCK_MONOTONIC);
	program.len = sizeof strict / sizeof strict[0];
	program.filter = strict;
	WANT(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0);
	for (i = 0; i < 1000; i++) {
		record_all(&all_, PLAIN, NULL, 250);
		record_all(&all_, TLS, NULL, 250);
		record_all(&all_, ATOMIC, NULL, 250);
		rows += shmts_tick(seg_, now += 100000000);
	}
	shmts_add(shmts_counter(seg_, "too_late_for_growth", NULL), 1); /* room is there: no birth */
	if (rows < 99 || write(1, "sealed\n", 7) != 7) syscall(SYS_exit_group, 3);
	syscall(SYS_exit_group, 0);
}

/* Two shared objects with a copy of the header each, argv[3] and argv[4]. */
static void *call_both(void *arg) {
	void (**record)(void) = (void (**)(void))arg;
	record[0]();
	record[1]();
	return NULL;
}
static void mode_copies(void) {
	void (*record[2])(void);
	void *lib[2];
	pthread_t t;
	int i;
	for (i = 0; i < 2; i++) {
		void (*open_copy)(const char *, const char *);
		lib[i] = dlopen(argv_[3 + i], RTLD_NOW | RTLD_GLOBAL);
		if (!lib[i]) { fprintf(stderr, "%s\n", dlerror()); exit(1); }
		*(void **)&open_copy = dlsym(lib[i], i ? "copy_open_b" : "copy_open_a");
		*(void **)&record[i] = dlsym(lib[i], i ? "copy_record_b" : "copy_record_a");
		WANT(open_copy && record[i]);
		open_copy(argv_[2], i ? "b" : "a");
	}
	for (i = 0; i < 5; i++) {
		WANT(pthread_create(&t, NULL, call_both, record) == 0);
		pthread_join(t, NULL);
	}
	call_both(record);
	i = fork();
	call_both(record);
	if (i) wait(NULL);
}

/* 1,000 counters in a segment of 100: four segments, then sinks. */
static void mode_growth(void) {
	shmts_options o = options();
	shmts_segment *seg;
	shmts_info info;
	char name[32];
	int i;
	o.series = 100;
	seg = open_or_die(&o);
	for (i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "c%d", i);
		shmts_tls_add(shmts_counter(seg, name, NULL), 1);
	}
	snprintf(name, sizeof name, "c%d", 250);
	shmts_tls_add(shmts_counter(seg, name, NULL), 1);
	shmts_get_info(seg, &info);
	printf("%s\n%u segments, %u series, %llu dropped, plan %llu\n", shmts_error(seg), info.segments, info.series, (unsigned long long)info.dropped_series, (unsigned long long)shmts_plan(&o));
}

/* Misuse of strings and shapes: each a sink, and counted. */
static void mode_misuse(void) {
	shmts_options o = options();
	shmts_segment *seg = open_or_die(&o);
	const char *const twice[] = {"a", "1", "a", "2", NULL}, *const odd[] = {"a", NULL}, *const utf[] = {"a", "\xff", NULL};
	const char *const order[] = {"b", "2", "a", "1", "c", "", NULL}, *const sorted[] = {"a", "1", "b", "2", NULL};
	shmts_series s = labelled(order);
	shmts_info info;
	shmts_counter_t *good = shmts_counter(seg, "good", &s);
	s = labelled(sorted);
	WANT(good == shmts_counter(seg, "good", &s) && shmts_error(seg) == NULL);
	s = labelled(twice);
	shmts_add(shmts_counter(seg, "bad", &s), 1);
	s = labelled(odd);
	shmts_add(shmts_counter(seg, "bad", &s), 1);
	s = labelled(utf);
	shmts_add(shmts_counter(seg, "bad", &s), 1);
	shmts_add(shmts_counter(seg, "", NULL), 1);
	shmts_add(shmts_counter(seg, NULL, NULL), 1);
	shmts_add(shmts_counter(seg, "\xc0\x80", NULL), 1);
	s = labelled(sorted);
	shmts_set(shmts_gauge(seg, "good", &s), 1); /* another kind */
	s = labelled(NULL);
	s.table = "none";
	shmts_add(shmts_counter(seg, "bad", &s), 1);
	s = labelled(NULL);
	s.low = 2;
	s.high = 1;
	shmts_observe(shmts_histogram(seg, "bad", &s), 1);
	s.low = 1e-100;
	s.high = 1e100;
	s.scale = 6;
	shmts_observe(shmts_histogram(seg, "bad", &s), 1);
	shmts_get_info(seg, &info);
	WANT(info.dropped_series == 10 && info.series == 1);
	printf("%s\n", shmts_error(seg));
}

/* Retired cells and descriptors come back, and show nobody else's past. */
static void mode_retire(void) {
	shmts_table table;
	shmts_options o = options();
	shmts_segment *seg;
	shmts_counter_t *a, *b, *c;
	int i;
	memset(&table, 0, sizeof table);
	table.name = "scalars";
	table.scalars = 1;
	table.rings[0].step_ns = 1000000000;
	table.rings[0].rows = 4;
	o.tables = &table;
	o.table_count = 1;
	o.segments = 1;
	o.heap_bytes = 64;
	o.clock = fake_clock;
	o.lanes = 3;
	seg = open_or_die(&o);
	a = shmts_counter(seg, "a", NULL);
	shmts_add(a, 5);
	shmts_retire(a); /* before any row: its descriptor stays until that row has come and gone */
	WANT(shmts_error(seg) == NULL);
	shmts_add(shmts_counter(seg, "early", NULL), 1);
	WANT(shmts_error(seg) != NULL);
	for (i = 0; i < 8; i++) {
		advance(1000000000);
		WANT(shmts_tick(seg, 0) == 1);
	}
	WANT(shmts_counter(seg, "a", NULL) == a);
	shmts_add(a, 5);
	advance(1000000000);
	WANT(shmts_tick(seg, 0) == 1);
	shmts_retire(a);
	shmts_add(a, 100); /* nowhere */
	b = shmts_counter(seg, "b", NULL);
	shmts_add(b, 1); /* a sink: the cell has not been freed yet */
	for (i = 0; i < 8; i++) {
		advance(1000000000);
		WANT(shmts_tick(seg, 0) == 1);
	}
	c = shmts_counter(seg, "c", NULL);
	WANT(c != b && c != a);
	shmts_add(c, 2);
	shmts_add(a, 100);
	shmts_atomic_add(b, 100);
	advance(1000000000);
	WANT(shmts_tick(seg, 0) == 1);
	shmts_retire(c);
	for (i = 0; i < 8; i++) {
		advance(1000000000);
		WANT(shmts_tick(seg, 0) == 1);
	}
	WANT(shmts_counter(seg, "c", NULL) == c); /* the same series: its handle lives again, from 0 */
	shmts_add(c, 3);
	advance(1000000000);
	WANT(shmts_tick(seg, 0) == 1);
}

/* A fixed story by a fixed clock: writer.Writer tells the same in Go, and both must say the same. */
static void mode_story(void) {
	static const uint8_t id[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
	static const char *const attributes[] = {"service.version", "1", NULL}, *const labels[] = {"path", "/a \"b\"", NULL};
	shmts_options o = options();
	shmts_segment *seg;
	shmts_series s = labelled(labels);
	shmts_stat_t *positive;
	uint64_t x = 12345;
	shmts_exemplar e;
	all a;
	int i;
	o.attributes = attributes;
	o.clock = fake_clock;
	o.id = id;
	seg = open_or_die(&o);
	a = register_all(seg);
	s.unit = "By";
	s.help = "Of a path.";
	s.non_negative = 1;
	positive = shmts_stat(seg, "sizes", &s);
	for (i = 0; i < 300; i++) {
		int k, n = i % 7;
		for (k = 0; k < n; k++) {
			double v;
			x = x * 6364136223846793005u + 1442695040888963407u;
			v = (double)(x >> 40) / 1048576.0; /* 0 to 16 */
			shmts_add(a.counter, x >> 50);
			shmts_add_f64(a.counter_f64, v);
			shmts_add_i64(a.updown, (int64_t)(x >> 60) - 8);
			shmts_set(a.gauge, v);
			shmts_set_i64(a.gauge_i64, (int64_t)(x >> 32));
			shmts_record(a.stat, v - 8);
			shmts_record(positive, v);
			shmts_observe(a.histogram, v);
			shmts_observe_u64(a.histogram_u64, x >> 55);
			e = trace(x);
			shmts_exemplar_counter(a.counter, x >> 50, &e);
			shmts_exemplar_counter_f64(a.counter_f64, v, &e);
			shmts_exemplar_histogram(a.histogram, v, &e);
			e.unix_ns = unix_ + k;
			shmts_exemplar_histogram_u64(a.histogram_u64, x >> 55, &e);
		}
		if (i == 100) shmts_retire(positive);
		if (i == 150) shmts_new_epoch(seg);
		advance(i % 10 == 0 ? 2300000000 : 700000000);
		shmts_tick(seg, 0);
	}
	if (argc_ > 3) shmts_close(seg);
}

/* Rows as fast as it goes, until it is killed: in row n each of 64 counters is n. */
static void mode_rows(void) {
	shmts_table table;
	shmts_options o = options();
	shmts_segment *seg;
	shmts_counter_t *c[64];
	char name[16];
	int i;
	memset(&table, 0, sizeof table);
	table.name = "scalars";
	table.scalars = 64;
	table.rings[0].step_ns = 1000000000;
	table.rings[0].rows = 3;
	o.tables = &table;
	o.table_count = 1;
	o.clock = fake_clock;
	seg = open_or_die(&o);
	for (i = 0; i < 64; i++) {
		snprintf(name, sizeof name, "c%d", i);
		c[i] = shmts_counter(seg, name, NULL);
	}
	printf("rows\n");
	fflush(stdout);
	for (;;) {
		for (i = 0; i < 64; i++) shmts_add(c[i], 1);
		advance(1000000000);
		WANT(shmts_tick(seg, 0) == 1);
	}
}

/* max_bytes, options that are wrong: what shmts_plan and shmts_error say. argv[3]: max_bytes. */
static void mode_plan(void) {
	shmts_options o = options();
	shmts_segment *seg;
	shmts_info info;
	o.max_bytes = (uint32_t)atoi(argv_[3]);
	seg = shmts_open(&o);
	shmts_get_info(seg, &info);
	printf("%llu %s\n", (unsigned long long)shmts_plan(&o), shmts_error(seg) ? shmts_error(seg) : "born");
	WANT(shmts_error(seg) || info.bytes == shmts_plan(&o));
}

static void *offer_many(void *arg) {
	shmts_exemplar x = trace(5);
	int i;
	for (i = 1; i <= 60000; i++) shmts_exemplar_counter((shmts_counter_t *)arg, (uint64_t)i, &x); /* its own: each is taken */
	__atomic_fetch_add(&stop_, 1, __ATOMIC_RELEASE);
	return NULL;
}
/* No slot goes back to an older number, while n threads offer. */
static void watch_slots(const char *path, int n) {
	int fd = open(path, O_RDONLY), i, k;
	struct stat st;
	const char *m;
	const shmts_superblock *sb;
	uint64_t newest[4] = {0, 0, 0, 0};
	WANT(fd >= 0 && fstat(fd, &st) == 0);
	m = (const char *)mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	WANT(m != MAP_FAILED);
	sb = (const shmts_superblock *)(const void *)m;
	for (i = 0; i < (int)sb->section_count; i++) {
		const shmts_section *s = (const shmts_section *)(const void *)(m + 256 + 32 * i);
		if (s->type != 8) continue;
		WANT(s->count == 4);
		while (__atomic_load_n(&stop_, __ATOMIC_ACQUIRE) < n)
			for (k = 0; k < 4; k++) {
				uint64_t number = __atomic_load_n((const uint64_t *)(const void *)(m + s->offset + 64 * k), __ATOMIC_ACQUIRE) >> 1;
				WANT(number >= newest[k]);
				newest[k] = number;
			}
		return;
	}
	exit(1);
}
/* Exemplars. argv[3]: of every kind, and what leaves none; in a child; before there is a file; of grown segments; of many threads. */
static void mode_exemplars(void) {
	shmts_options o = options();
	shmts_exemplar x = trace(1);
	const char *how = argc_ > 3 ? argv_[3] : "";
	shmts_series none;
	shmts_info info;
	char nowhere[600], name[8];
	pthread_t t[4];
	int i;
	memset(&none, 0, sizeof none);
	o.clock = fake_clock;
	if (!strcmp(how, "late")) {
		snprintf(nowhere, sizeof nowhere, "%s/later", argv_[2]);
		o.dir = nowhere;
		seg_ = shmts_open(&o);
	} else if (!strcmp(how, "grow")) {
		o.series = 4;
		o.exemplars = 2;
		seg_ = open_or_die(&o);
		for (i = 0; i < 4; i++) {
			snprintf(name, sizeof name, "c%d", i);
			shmts_exemplar_counter(shmts_counter(seg_, name, NULL), (uint64_t)i + 1, &x);
		}
		return;
	} else {
		o.exemplars = !strcmp(how, "none") ? -1 : !strcmp(how, "threads") ? 3 : 0;
		seg_ = open_or_die(&o);
	}
	all_ = register_all(seg_);
	if (!strcmp(how, "threads")) {
		shmts_get_info(seg_, &info);
		for (i = 0; i < 4; i++) {
			snprintf(name, sizeof name, "c%d", i);
			WANT(pthread_create(&t[i], NULL, offer_many, shmts_counter(seg_, name, NULL)) == 0);
		}
		watch_slots(info.path, 4);
		for (i = 0; i < 4; i++) pthread_join(t[i], NULL);
		shmts_get_info(seg_, &info);
		WANT(info.exemplars == 240000 && info.exemplars_dropped < info.exemplars);
		return;
	}
	shmts_exemplar_counter(all_.counter, 3, &x); /* 1 */
	shmts_exemplar_counter(all_.counter, 3, &x); /* not greater */
	x = trace(2);
	x.unix_ns = 42;
	shmts_exemplar_counter_f64(all_.counter_f64, 2.5, &x); /* 2 */
	shmts_exemplar_histogram(all_.histogram, 0.125, &x);   /* 3 */
	if (!strcmp(how, "late")) {
		WANT(mkdir(nowhere, 0755) == 0);
		advance(2000000000);
		shmts_tick(seg_, 0);
	}
	if (!strcmp(how, "fork")) {
		i = fork();
		if (i == 0) { shmts_exemplar_counter(all_.counter, 1, &x); return; } /* its own 1, though 3 was taken in the parent */
		wait(NULL);
	}
	shmts_exemplar_histogram_u64(all_.histogram_u64, 99, &x); /* 4 */
	shmts_exemplar_counter_f64(all_.counter_f64, -1, &x);     /* what is no record */
	shmts_exemplar_histogram(all_.histogram, 0.0 / (double)(argc_ - argc_), &x);
	shmts_exemplar_histogram(all_.histogram, 1e308 * 10, &x);
	x = trace(0);
	shmts_exemplar_histogram(all_.histogram, 7, &x); /* no trace */
	shmts_exemplar_histogram(all_.histogram, 7, NULL);
	x = trace(3);
	shmts_exemplar_counter((shmts_counter_t *)shmts_counter(seg_, "", NULL), 7, &x); /* a sink */
	shmts_retire(all_.counter);
	shmts_exemplar_counter(all_.counter, 7, &x);
	shmts_get_info(seg_, &info);
	WANT(info.exemplars == (o.exemplars < 0 ? 0 : 4) && info.exemplars_dropped == 0);
	if (!strcmp(how, "close")) {
		shmts_close(seg_);
		shmts_exemplar_histogram(all_.histogram, 8, &x);
	}
}

/* A million records of each variant, and nothing else that would make a syscall: for strace. */
static void mode_million(void) {
	shmts_options o = options();
	seg_ = open_or_die(&o);
	all_ = register_all(seg_);
	record_all(&all_, TLS, NULL, 1);
	if (write(1, "begin\n", 6) != 6) exit(1);
	record_all(&all_, PLAIN, NULL, 1000000);
	record_all(&all_, TLS, NULL, 1000000);
	record_all(&all_, ATOMIC, NULL, 1000000);
	if (write(1, "end\n", 4) != 4) exit(1);
}

int main(int argc, char **argv) {
	static const struct { const char *name; void (*run)(void); } modes[] = {
		{"variants", mode_variants}, {"churn", mode_churn}, {"rejects", mode_rejects}, {"buckets", mode_buckets}, {"fork", mode_fork}, {"fork_lost", mode_fork_lost},
		{"close", mode_close}, {"fail", mode_fail}, {"adopt", mode_adopt}, {"seccomp", mode_seccomp}, {"copies", mode_copies}, {"growth", mode_growth},
		{"misuse", mode_misuse}, {"retire", mode_retire}, {"story", mode_story}, {"rows", mode_rows}, {"instance", mode_instance}, {"plan", mode_plan}, {"million", mode_million}, {"exemplars", mode_exemplars}};
	size_t i;
	argc_ = argc;
	argv_ = argv;
	for (i = 0; argc > 2 && i < sizeof modes / sizeof modes[0]; i++)
		if (!strcmp(argv[1], modes[i].name)) {
			modes[i].run();
			fflush(stdout);
			return 0;
		}
	fprintf(stderr, "prog: want a mode and a store\n");
	return 2;
}
