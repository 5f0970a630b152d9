/* udpfwd: forwards UDP datagrams, and records what it does with shmts.h.
 *
 *     cc -O2 -std=c11 -I.. -o udpfwd udpfwd.c -pthread
 *     ./udpfwd --listen 127.0.0.1:9000 --target 127.0.0.1:9001 [--threads 2] [--dir STORE] [--seconds 10]
 *
 * Each thread has its socket (SO_REUSEPORT: the kernel spreads flows over them), its lane of the segment, and so
 * counts with plain adds. Thread 0 ticks in its loop; nobody else does anything for the metrics.
 *
 * --ack FILE: a page of 64 bytes a thread, eight u64: packets and bytes received, packets and bytes sent, packets
 * dropped, latencies and batches recorded. Each is stored right after the record call that it
 * counts, so after a SIGKILL the segment may be ahead by the one call in flight, and never behind. */
#define SHMTS_IMPLEMENTATION
#include "shmts.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/time.h>

enum { BATCH = 32, DATAGRAM = 2048, MOST_THREADS = 32, CONTROL = 128 };

typedef struct ack { uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, drops, latencies, batches, unused; } ack;

typedef struct worker {
	pthread_t   thread;
	int         number, in, out;
	shmts_lane *lane;
	ack        *ack;
	shmts_gauge_t *queue;
	uint32_t    overflowed; /* what the kernel said last that it dropped, since the socket's birth */
} worker;

static shmts_segment *seg;
static shmts_counter_t *rx_packets, *rx_bytes, *tx_packets, *tx_bytes, *drop_full, *drop_truncated, *drop_send;
static shmts_histogram_t *latency;
static shmts_stat_t *batch_size;
static volatile sig_atomic_t stop;

static void on_signal(int number) { (void)number; stop = 1; }

static void die(const char *what) {
	fprintf(stderr, "udpfwd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct sockaddr_in address(const char *text) {
	struct sockaddr_in a;
	char host[64];
	const char *colon = strrchr(text, ':');
	memset(&a, 0, sizeof a);
	a.sin_family = AF_INET;
	snprintf(host, sizeof host, "%.*s", colon ? (int)(colon - text) : 0, text);
	if (!colon || inet_pton(AF_INET, host, &a.sin_addr) != 1) {
		fprintf(stderr, "udpfwd: want address:port, got %s\n", text);
		exit(2);
	}
	a.sin_port = htons((uint16_t)atoi(colon + 1));
	return a;
}

static int listen_on(struct sockaddr_in *a) {
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), one = 1, size = 4 << 20;
	struct timeval idle = {0, 100000}; /* so that ticks and signals are looked at */
	socklen_t n = sizeof *a;
	if (fd < 0) die("socket");
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) || setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) ||
	    setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof one) || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle)) die("setsockopt");
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size); /* as much as there is */
	if (bind(fd, (struct sockaddr *)a, sizeof *a)) die("bind");
	if (getsockname(fd, (struct sockaddr *)a, &n)) die("getsockname"); /* port 0: the others take the same */
	return fd;
}

static int64_t realtime(void) {
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* Counts n dropped packets, and says so in the acknowledgement after it is done. */
static void dropped(worker *w, shmts_counter_t *reason, uint64_t n) {
	shmts_lane_add(w->lane, reason, n);
	w->ack->drops += n;
}

static void *forward(void *arg) {
	static __thread char data[BATCH][DATAGRAM], control[BATCH][CONTROL];
	worker *w = arg;
	volatile ack *done = w->ack;
	struct iovec iov[BATCH];
	struct mmsghdr in[BATCH], out[BATCH];
	int64_t arrived[BATCH];
	unsigned rounds = 0;
	while (!stop) {
		uint64_t bytes = 0;
		int n, good = 0, sent = 0;
		memset(in, 0, sizeof in);
		for (int i = 0; i < BATCH; i++) {
			iov[i].iov_base = data[i];
			iov[i].iov_len = DATAGRAM;
			in[i].msg_hdr.msg_iov = &iov[i];
			in[i].msg_hdr.msg_iovlen = 1;
			in[i].msg_hdr.msg_control = control[i];
			in[i].msg_hdr.msg_controllen = CONTROL;
		}
		n = recvmmsg(w->in, in, BATCH, MSG_WAITFORONE, NULL);
		if (w->number == 0) shmts_tick(seg, 0);
		if (n <= 0) continue;
		memset(out, 0, sizeof out);
		for (int i = 0; i < n; i++) {
			int64_t when = 0;
			for (struct cmsghdr *c = CMSG_FIRSTHDR(&in[i].msg_hdr); c; c = CMSG_NXTHDR(&in[i].msg_hdr, c)) {
				if (c->cmsg_level != SOL_SOCKET) continue;
				if (c->cmsg_type == SCM_TIMESTAMPNS) {
					struct timespec ts;
					memcpy(&ts, CMSG_DATA(c), sizeof ts);
					when = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
				} else if (c->cmsg_type == SO_RXQ_OVFL) {
					uint32_t total;
					memcpy(&total, CMSG_DATA(c), sizeof total);
					if (total != w->overflowed) dropped(w, drop_full, total - w->overflowed);
					w->overflowed = total;
				}
			}
			bytes += in[i].msg_len;
			if (in[i].msg_hdr.msg_flags & MSG_TRUNC) { dropped(w, drop_truncated, 1); continue; }
			arrived[good] = when;
			iov[i].iov_len = in[i].msg_len;
			out[good].msg_hdr.msg_iov = &iov[i];
			out[good++].msg_hdr.msg_iovlen = 1;
		}
		shmts_lane_add(w->lane, rx_packets, (uint64_t)n);
		done->rx_packets += (uint64_t)n;
		shmts_lane_add(w->lane, rx_bytes, bytes);
		done->rx_bytes += bytes;
		shmts_lane_record(w->lane, batch_size, n);
		done->batches++;
		while (sent < good) {
			int k = sendmmsg(w->out, out + sent, (unsigned)(good - sent), 0);
			int64_t now = realtime();
			if (k <= 0) { /* the first of them can't be sent: nobody listens, or no buffers */
				dropped(w, drop_send, 1);
				sent++;
				continue;
			}
			bytes = 0;
			for (int i = sent; i < sent + k; i++) {
				bytes += out[i].msg_len;
				if (!arrived[i]) continue;
				shmts_lane_observe(w->lane, latency, now > arrived[i] ? (double)(now - arrived[i]) * 1e-9 : 0);
				done->latencies++;
			}
			shmts_lane_add(w->lane, tx_packets, (uint64_t)k);
			done->tx_packets += (uint64_t)k;
			shmts_lane_add(w->lane, tx_bytes, bytes);
			done->tx_bytes += bytes;
			sent += k;
		}
		if (rounds++ % 16 == 0) {
			uint32_t memory[SK_MEMINFO_VARS];
			socklen_t size = sizeof memory;
			if (getsockopt(w->in, SOL_SOCKET, SO_MEMINFO, memory, &size) == 0) shmts_set(w->queue, memory[SK_MEMINFO_RMEM_ALLOC]);
		}
	}
	return NULL;
}

static ack *open_ack(const char *path) {
	static ack none[MOST_THREADS];
	void *m;
	int fd;
	if (!path) return none;
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || ftruncate(fd, sizeof none)) die(path);
	m = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (m == MAP_FAILED) die(path);
	close(fd);
	return m;
}

int main(int argc, char **argv) {
	static const struct option flags[] = {
		{"listen", 1, NULL, 'l'}, {"target", 1, NULL, 'o'}, {"threads", 1, NULL, 't'}, {"dir", 1, NULL, 'd'}, {"job", 1, NULL, 'j'},
		{"instance", 1, NULL, 'i'}, {"seconds", 1, NULL, 's'}, {"ack", 1, NULL, 'a'}, {NULL, 0, NULL, 0}};
	static worker workers[MOST_THREADS];
	const char *listen = "127.0.0.1:9000", *target = "127.0.0.1:9001", *ack_path = NULL;
	shmts_options o = {.job = "udpfwd", .lanes = 8};
	double seconds = 0;
	int threads = 1, c;
	while ((c = getopt_long(argc, argv, "l:o:t:d:j:i:s:a:", flags, NULL)) != -1) {
		switch (c) {
		case 'l': listen = optarg; break;
		case 'o': target = optarg; break;
		case 't': threads = atoi(optarg); break;
		case 'd': o.dir = optarg; break;
		case 'j': o.job = optarg; break;
		case 'i': o.instance = optarg; break;
		case 's': seconds = atof(optarg); break;
		case 'a': ack_path = optarg; break;
		default: return 2;
		}
	}
	if (threads < 1 || threads > MOST_THREADS) {
		fprintf(stderr, "udpfwd: want 1 to %d threads, got %d\n", MOST_THREADS, threads);
		return 2;
	}
	if (threads > 7) o.lanes = (uint32_t)threads + 1; /* lane 0 is not claimed by threads */

	seg = shmts_open(&o);
	if (shmts_error(seg)) fprintf(stderr, "udpfwd: goes on without metrics: %s\n", shmts_error(seg));
	rx_packets = shmts_counter(seg, "udp_packets", &(shmts_series){.unit = "{packet}", .help = "Datagrams.", .labels = SHMTS_LABELS("direction", "rx")});
	tx_packets = shmts_counter(seg, "udp_packets", &(shmts_series){.unit = "{packet}", .help = "Datagrams.", .labels = SHMTS_LABELS("direction", "tx")});
	rx_bytes = shmts_counter(seg, "udp_bytes", &(shmts_series){.unit = "By", .help = "Bytes of payload.", .labels = SHMTS_LABELS("direction", "rx")});
	tx_bytes = shmts_counter(seg, "udp_bytes", &(shmts_series){.unit = "By", .help = "Bytes of payload.", .labels = SHMTS_LABELS("direction", "tx")});
	drop_full = shmts_counter(seg, "udp_drops", &(shmts_series){.unit = "{packet}", .help = "Datagrams that were not forwarded.", .labels = SHMTS_LABELS("reason", "queue_full")});
	drop_truncated = shmts_counter(seg, "udp_drops", &(shmts_series){.unit = "{packet}", .help = "Datagrams that were not forwarded.", .labels = SHMTS_LABELS("reason", "truncated")});
	drop_send = shmts_counter(seg, "udp_drops", &(shmts_series){.unit = "{packet}", .help = "Datagrams that were not forwarded.", .labels = SHMTS_LABELS("reason", "send_failed")});
	latency = shmts_histogram(seg, "udp_forward_latency", &(shmts_series){.unit = "s", .help = "From the kernel's receive timestamp until sent.", .low = 1e-6, .high = 1});
	batch_size = shmts_stat(seg, "udp_batch_size", &(shmts_series){.unit = "{packet}", .help = "Datagrams a recvmmsg.", .non_negative = 1});

	struct sockaddr_in in = address(listen), out = address(target);
	ack *acks = open_ack(ack_path);
	char text[64];
	for (int i = 0; i < threads; i++) {
		worker *w = &workers[i];
		snprintf(text, sizeof text, "%d", i);
		w->number = i;
		w->in = listen_on(&in);
		w->out = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (w->out < 0 || connect(w->out, (struct sockaddr *)&out, sizeof out)) die(target);
		w->lane = shmts_lane_claim(seg);
		w->ack = &acks[i];
		w->queue = shmts_gauge(seg, "udp_queue_depth", &(shmts_series){.unit = "By", .help = "Memory of the receive queue in use.", .labels = SHMTS_LABELS("thread", text)});
	}
	inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
	printf("udpfwd: listening on %s:%u\n", text, ntohs(in.sin_port));
	fflush(stdout);

	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_signal;
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGALRM, &action, NULL);
	if (seconds > 0) {
		struct itimerval timer = {{0, 0}, {(time_t)seconds, (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)}};
		setitimer(ITIMER_REAL, &timer, NULL);
	}
	int64_t began = realtime();
	for (int i = 1; i < threads; i++)
		if (pthread_create(&workers[i].thread, NULL, forward, &workers[i])) die("pthread_create");
	forward(&workers[0]);
	for (int i = 1; i < threads; i++) pthread_join(workers[i].thread, NULL);
	double took = (double)(realtime() - began) * 1e-9;

	ack sum = {0, 0, 0, 0, 0, 0, 0, 0};
	for (int i = 0; i < threads; i++) {
		sum.rx_packets += acks[i].rx_packets;
		sum.tx_packets += acks[i].tx_packets;
		sum.tx_bytes += acks[i].tx_bytes;
		sum.drops += acks[i].drops;
		sum.batches += acks[i].batches;
	}
	printf("udpfwd: %llu packets in, %llu out, %llu dropped, %.0f packets/s, %.1f Mbit/s, %.1f packets a batch, %d threads, %.1f s\n",
	       (unsigned long long)sum.rx_packets, (unsigned long long)sum.tx_packets, (unsigned long long)sum.drops, (double)sum.tx_packets / took,
	       (double)sum.tx_bytes * 8e-6 / took, sum.batches ? (double)sum.rx_packets / (double)sum.batches : 0, threads, took);
	shmts_close(seg);
	return 0;
}
