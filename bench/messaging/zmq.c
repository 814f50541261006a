// A program of the contender libzmq in `go run ./bench messaging`. See peer/main.go for what every program of every
// contender says and hears; this one says and hears the same.
//
//	zmq push|pull|relay|pub|sub|ask|answer in=ADDRESS out=ADDRESS size=BYTES ms=MILLISECONDS most=EVENTS peers=N callers=N
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <zmq.h>

enum { MOST_EVENTS = 1 << 26, MOST_CALLS = 1 << 20 };
static const uint64_t end_mark = UINT64_MAX;

static const char *in = "", *out = "";
static size_t size = 128;
static int64_t for_ns = 500000000, most = MOST_EVENTS;
static int peers = 1, callers = 1;
static void *context;
static uint64_t seen[MOST_EVENTS / 64];

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void die(const char *what) {
	fprintf(stderr, "zmq: %s: %s\n", what, zmq_strerror(errno));
	exit(1);
}

static uint64_t mix(uint64_t seq) { return seq * 0x9E3779B97F4A7C15u + size; }

// stamp writes the number of an event into its first 8 bytes and a function of it into its last 8.
static void stamp(char *event, uint64_t seq, uint64_t last) {
	memcpy(event, &seq, 8);
	memcpy(event + size - 8, &last, 8);
}

// High-water marks of 100,000 events instead of 1,000: never slower, and less dependent on what else the machine does.
static void *open_socket(int type) {
	void *s = zmq_socket(context, type);
	int hwm = size > 4096 ? 1000 : 100000, yes = 1;
	if (!s) die("socket");
	zmq_setsockopt(s, ZMQ_SNDHWM, &hwm, sizeof hwm);
	zmq_setsockopt(s, ZMQ_RCVHWM, &hwm, sizeof hwm);
	if (type == ZMQ_XPUB) {
		zmq_setsockopt(s, ZMQ_XPUB_NODROP, &yes, sizeof yes);
		zmq_setsockopt(s, ZMQ_XPUB_VERBOSE, &yes, sizeof yes); // tell of every subscriber, and not only of the first
	}
	if (type == ZMQ_SUB) zmq_setsockopt(s, ZMQ_SUBSCRIBE, "", 0);
	return s;
}

static void *bound(int type, const char *address) {
	void *s = open_socket(type);
	if (zmq_bind(s, address)) die(address);
	return s;
}

static void *connected(int type, const char *address) {
	void *s = open_socket(type);
	if (zmq_connect(s, address)) die(address);
	return s;
}

static void ready(void) {
	puts("ready");
	fflush(stdout);
}

static void await_go(void) {
	char line[16];
	if (!fgets(line, sizeof line, stdin)) exit(1);
}

static void send_event(void *s, const char *event) {
	while (zmq_send(s, event, size, 0) < 0)
		if (errno != EINTR) die("send");
}

static void source(void *s) {
	char *event = malloc(size);
	memset(event, 'x', size);
	int64_t first = now(), until = first + for_ns;
	uint64_t n = 0;
	do {
		for (int i = 0; i < 64 && (int64_t)n < most; i++, n++) {
			stamp(event, n, mix(n));
			send_event(s, event);
		}
	} while ((int64_t)n < most && now() < until);
	stamp(event, end_mark, n);
	send_event(s, event);
	printf("{\"first\":%lld,\"count\":%llu}\n", (long long)first, (unsigned long long)n);
	fflush(stdout);
}

static void sink(void *s) {
	uint64_t distinct = 0, twice = 0, damaged = 0, sum = 0, want = end_mark, seq, last;
	zmq_msg_t m;
	while (distinct != want) {
		zmq_msg_init(&m);
		if (zmq_msg_recv(&m, s, 0) < 0) {
			if (errno == EINTR) continue;
			die("receive");
		}
		const char *event = zmq_msg_data(&m);
		if (zmq_msg_size(&m) != size) {
			damaged++;
			zmq_msg_close(&m);
			continue;
		}
		memcpy(&seq, event, 8);
		memcpy(&last, event + size - 8, 8);
		zmq_msg_close(&m);
		if (seq == end_mark) {
			want = last;
		} else if (last != mix(seq) || seq >= MOST_EVENTS) {
			damaged++;
		} else if (seen[seq / 64] >> (seq % 64) & 1) {
			twice++;
		} else {
			seen[seq / 64] |= (uint64_t)1 << (seq % 64);
			distinct++;
			sum += seq;
		}
	}
	printf("{\"last\":%lld,\"count\":%llu,\"sum\":%llu,\"twice\":%llu,\"damaged\":%llu}\n", (long long)now(),
		(unsigned long long)distinct, (unsigned long long)sum, (unsigned long long)twice, (unsigned long long)damaged);
	fflush(stdout);
}

static void relay(void *from, void *to) {
	zmq_msg_t m;
	for (;;) {
		zmq_msg_init(&m);
		if (zmq_msg_recv(&m, from, 0) < 0) die("receive");
		if (zmq_msg_send(&m, to, 0) < 0) die("send");
	}
}

struct caller {
	pthread_t thread;
	int64_t *took, until;
	uint64_t n, damaged, id;
};

static void *call(void *arg) {
	struct caller *c = arg;
	void *s = connected(ZMQ_REQ, out);
	char *question = malloc(size), *answer = malloc(size);
	memset(question, 'x', size);
	for (int64_t at = now(); at < c->until && c->n < MOST_CALLS;) {
		stamp(question, c->n, mix(c->n));
		if (zmq_send(s, question, size, 0) < 0) die("ask");
		if (zmq_recv(s, answer, size, 0) != (int)size || memcmp(question, answer, size)) c->damaged++;
		int64_t later = now();
		c->took[c->n++] = later - at;
		at = later;
	}
	return NULL;
}

static int by_size(const void *a, const void *b) {
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

static void ask(void) {
	struct caller *all = calloc(callers, sizeof *all);
	int64_t first = now();
	for (int i = 0; i < callers; i++) {
		all[i].took = malloc(MOST_CALLS * sizeof(int64_t));
		all[i].until = first + for_ns;
		if (pthread_create(&all[i].thread, NULL, call, &all[i])) die("thread");
	}
	uint64_t n = 0, damaged = 0;
	for (int i = 0; i < callers; i++) {
		pthread_join(all[i].thread, NULL);
		n += all[i].n;
		damaged += all[i].damaged;
	}
	int64_t last = now(), *took = malloc(n * sizeof *took), *at = took;
	for (int i = 0; i < callers; i++) {
		memcpy(at, all[i].took, all[i].n * sizeof *at);
		at += all[i].n;
	}
	qsort(took, n, sizeof *took, by_size);
	printf("{\"first\":%lld,\"last\":%lld,\"count\":%llu,\"damaged\":%llu,\"p50\":%lld,\"p99\":%lld}\n", (long long)first,
		(long long)last, (unsigned long long)n, (unsigned long long)damaged, (long long)took[n / 2], (long long)took[n * 99 / 100]);
	fflush(stdout);
}

int main(int argc, char **argv) {
	const char *role = argc > 1 ? argv[1] : "";
	for (int i = 2; i < argc; i++) {
		char *value = strchr(argv[i], '=');
		if (!value) return 2;
		*value++ = 0;
		if (!strcmp(argv[i], "in")) in = value;
		if (!strcmp(argv[i], "out")) out = value;
		if (!strcmp(argv[i], "size")) size = strtoull(value, NULL, 10);
		if (!strcmp(argv[i], "ms")) for_ns = strtoll(value, NULL, 10) * 1000000;
		if (!strcmp(argv[i], "most")) most = strtoll(value, NULL, 10);
		if (!strcmp(argv[i], "peers")) peers = atoi(value);
		if (!strcmp(argv[i], "callers")) callers = atoi(value);
	}
	context = zmq_ctx_new();
	if (!strcmp(role, "push")) {
		void *s = connected(ZMQ_PUSH, out);
		ready();
		await_go();
		source(s);
	} else if (!strcmp(role, "pull")) {
		void *s = bound(ZMQ_PULL, in);
		ready();
		sink(s);
	} else if (!strcmp(role, "relay")) {
		void *from = bound(ZMQ_PULL, in), *to = connected(ZMQ_PUSH, out);
		ready();
		relay(from, to);
	} else if (!strcmp(role, "pub")) {
		void *s = bound(ZMQ_XPUB, out);
		ready();
		char hello[8];
		for (int i = 0; i < peers; i++) // each subscription arrives as a message
			if (zmq_recv(s, hello, sizeof hello, 0) < 0) die("await subscribers");
		await_go();
		source(s);
	} else if (!strcmp(role, "sub")) {
		void *s = connected(ZMQ_SUB, in);
		ready();
		sink(s);
	} else if (!strcmp(role, "ask")) {
		ready();
		await_go();
		ask();
	} else if (!strcmp(role, "answer")) {
		void *s = bound(ZMQ_REP, in);
		ready();
		relay(s, s);
	} else {
		fprintf(stderr, "zmq: no role %s\n", role);
		return 2;
	}
	char c;
	while (fread(&c, 1, 1, stdin) > 0) {} // the harness reads this process's times before it lets it end
	return 0;
}
