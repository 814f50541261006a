/*
 * The program that every process manager runs in the process benchmark, the same for all:
 *
 *   child SOCKET NAME BYTES
 *
 * It says "NAME PID NANOSECONDS start" to the datagram socket SOCKET, the time being CLOCK_MONOTONIC. Then it waits. On
 * SIGUSR1 it writes BYTES bytes to its standard output, in lines of 100, and says the same with "flood" in place of
 * "start". SIGTERM ends it. It is in C so that its own start costs next to nothing.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int say(const char *path, const char *name, const char *what)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	struct timespec now;
	char text[256];
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

	if (fd < 0 || strlen(path) >= sizeof to.sun_path)
		return -1;
	strcpy(to.sun_path, path);
	clock_gettime(CLOCK_MONOTONIC, &now);
	int n = snprintf(text, sizeof text, "%s %d %lld %s", name, (int)getpid(),
			 now.tv_sec * 1000000000LL + now.tv_nsec, what);
	int sent = (int)sendto(fd, text, n, 0, (struct sockaddr *)&to, sizeof to);
	close(fd);
	return sent == n ? 0 : -1;
}

static int flood(long long bytes)
{
	static char block[64 * 1000]; /* 640 lines */

	memset(block, 'x', sizeof block);
	for (size_t i = 99; i < sizeof block; i += 100)
		block[i] = '\n';
	while (bytes > 0) {
		size_t want = bytes < (long long)sizeof block ? (size_t)bytes : sizeof block;
		ssize_t n = write(STDOUT_FILENO, block, want);
		if (n <= 0)
			return -1;
		if (n % 100 != 0) { /* a pipe took a part of a line: finish it */
			ssize_t rest = 100 - n % 100;
			while (rest > 0) {
				ssize_t m = write(STDOUT_FILENO, block + 100 - rest, rest);
				if (m <= 0)
					return -1;
				rest -= m, n += m;
			}
		}
		bytes -= n;
	}
	return 0;
}

int main(int argc, char **argv)
{
	sigset_t set;
	int sig;

	if (argc != 4)
		return 2;
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	if (say(argv[1], argv[2], "start") != 0)
		return 1;
	while (sigwait(&set, &sig) == 0) {
		if (flood(atoll(argv[3])) != 0 || say(argv[1], argv[2], "flood") != 0)
			return 1;
	}
	return 1;
}
