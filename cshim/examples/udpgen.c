/* udpgen: sends UDP datagrams to a forwarder, receives what comes out of it, and says how much that was.
 *
 *     cc -O2 -std=c11 -o udpgen udpgen.c -pthread
 *     ./udpgen --target 127.0.0.1:9000 --sink 127.0.0.1:9001 [--rate 50000] [--bytes 256] [--seconds 5] [--flows 4]
 *
 * rate is in packets a second, 0 for as fast as it goes. Each flow is a socket, so that a forwarder with SO_REUSEPORT has
 * something to spread over its threads. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 32, MOST_BYTES = 1400, MOST_FLOWS = 64 };

static int sink;
static uint64_t received, received_bytes;
static int ended;

static void die(const char *what) {
	fprintf(stderr, "udpgen: %s: %s\n", what, strerror(errno));
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
		fprintf(stderr, "udpgen: want address:port, got %s\n", text);
		exit(2);
	}
	a.sin_port = htons((uint16_t)atoi(colon + 1));
	return a;
}

static double now(void) {
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* Receives until the sender has ended and nothing has come for 200 ms. */
static void *receive(void *unused) {
	static char data[BATCH][2048];
	struct mmsghdr in[BATCH];
	struct iovec iov[BATCH];
	(void)unused;
	memset(in, 0, sizeof in);
	for (int i = 0; i < BATCH; i++) {
		iov[i].iov_base = data[i];
		iov[i].iov_len = sizeof data[i];
		in[i].msg_hdr.msg_iov = &iov[i];
		in[i].msg_hdr.msg_iovlen = 1;
	}
	for (;;) {
		int n = recvmmsg(sink, in, BATCH, MSG_WAITFORONE, NULL);
		if (n <= 0) {
			if (__atomic_load_n(&ended, __ATOMIC_ACQUIRE)) return NULL;
			continue;
		}
		received += (uint64_t)n;
		for (int i = 0; i < n; i++) received_bytes += in[i].msg_len;
	}
}

int main(int argc, char **argv) {
	static const struct option flags[] = {{"target", 1, NULL, 'o'}, {"sink", 1, NULL, 'l'}, {"rate", 1, NULL, 'r'}, {"bytes", 1, NULL, 'b'},
	                                      {"seconds", 1, NULL, 's'}, {"flows", 1, NULL, 'f'}, {NULL, 0, NULL, 0}};
	static char data[MOST_BYTES];
	const char *target = "127.0.0.1:9000", *listen = "127.0.0.1:9001";
	double rate = 0, seconds = 5;
	int bytes = 256, flows = 4, c, fd[MOST_FLOWS], size = 4 << 20;
	struct timeval idle = {0, 200000};
	struct mmsghdr out[BATCH];
	struct iovec iov = {data, 0};
	uint64_t sent = 0, refused = 0;
	pthread_t thread;
	while ((c = getopt_long(argc, argv, "o:l:r:b:s:f:", flags, NULL)) != -1) {
		switch (c) {
		case 'o': target = optarg; break;
		case 'l': listen = optarg; break;
		case 'r': rate = atof(optarg); break;
		case 'b': bytes = atoi(optarg); break;
		case 's': seconds = atof(optarg); break;
		case 'f': flows = atoi(optarg); break;
		default: return 2;
		}
	}
	if (bytes < 1 || bytes > MOST_BYTES || flows < 1 || flows > MOST_FLOWS) {
		fprintf(stderr, "udpgen: want 1 to %d bytes and 1 to %d flows, got %d and %d\n", MOST_BYTES, MOST_FLOWS, bytes, flows);
		return 2;
	}
	struct sockaddr_in to = address(target), from = address(listen);
	sink = socket(AF_INET, SOCK_DGRAM, 0);
	if (sink < 0 || bind(sink, (struct sockaddr *)&from, sizeof from) || setsockopt(sink, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle)) die(listen);
	setsockopt(sink, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	for (int i = 0; i < flows; i++) {
		fd[i] = socket(AF_INET, SOCK_DGRAM, 0);
		if (fd[i] < 0 || connect(fd[i], (struct sockaddr *)&to, sizeof to)) die(target);
	}
	memset(out, 0, sizeof out);
	iov.iov_len = (size_t)bytes;
	for (int i = 0; i < BATCH; i++) {
		out[i].msg_hdr.msg_iov = &iov;
		out[i].msg_hdr.msg_iovlen = 1;
	}
	if (pthread_create(&thread, NULL, receive, NULL)) die("pthread_create");

	double began = now(), t = began;
	for (unsigned turn = 0; (t = now()) < began + seconds; turn++) {
		unsigned n = BATCH;
		if (rate > 0) {
			double owed = (t - began) * rate - (double)sent;
			if (owed < 1) {
				struct timespec pause = {0, 200000};
				nanosleep(&pause, NULL);
				continue;
			}
			if (owed < n) n = (unsigned)owed;
		}
		int k = sendmmsg(fd[turn % (unsigned)flows], out, n, 0);
		if (k > 0) sent += (uint64_t)k;
		else refused++; /* nobody listens yet, or no buffers */
	}
	double took = now() - began;
	__atomic_store_n(&ended, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	printf("udpgen: sent %llu packets, received %llu (%.2f %%), refused %llu, %.0f packets/s, %.1f Mbit/s received, %d bytes, %d flows, %.1f s\n",
	       (unsigned long long)sent, (unsigned long long)received, sent ? 100.0 * (double)received / (double)sent : 0, (unsigned long long)refused,
	       (double)received / took, (double)received_bytes * 8e-6 / took, bytes, flows, took);
	return 0;
}
