// A process that ends: mortal HOW MICROSECONDS [loud], with threads that work, wait, begin and end.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long us;
static volatile int over;

static void nap(long us) {
	struct timespec t = {us / 1000000, us % 1000000 * 1000};
	syscall(SYS_nanosleep, &t, 0);
}

static void *nothing(void *p) { return p; }
static void *churn(void *p) {
	while (!over) {
		pthread_t t;
		if (!pthread_create(&t, 0, nothing, 0)) pthread_join(t, 0);
	}
	return p;
}
static void *work(void *p) { while (!over); return p; }
static void *idle(void *p) { while (!over) nap(300); return p; }
// Mapping keeps others out of the memory's lock, as the loader does.
static void *maps(void *p) {
	while (!over) {
		void *at = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		munmap(at, 1 << 16);
	}
	return p;
}

static void end(void) { nap(us); _exit(3); }
static void die(void) { nap(us); kill(getpid(), SIGKILL); pause(); }
static void crash(void) { nap(us); abort(); }
static void other(void) { nap(us); execl("/bin/true", "true", (char *)0); _exit(9); }
// The leader ends before the others do.
static void leave(void) { over = 1; nap(us); }
// A thread waits for its vfork child while another ends the process.
static void child(void) {
	if (vfork() == 0) { nap(us + 2000); _exit(0); }
}

static void *by(void *f) { ((void (*)(void))f)(); return 0; }
static void start(void *(*f)(void *), void *p) {
	pthread_t t;
	if (pthread_create(&t, 0, f, p)) _exit(9);
}

int main(int argc, char **argv) {
	if (argc < 3) return 2;
	struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
	us = atol(argv[2]);
	start(churn, 0), start(work, 0), start(idle, 0), start(maps, 0);
	if (argc > 3) {
		printf("ready %d\n", getpid());
		fflush(stdout);
	}
	const char *how = argv[1];
	if (!strcmp(how, "exit")) end();
	if (!strcmp(how, "exitother")) start(by, end);
	if (!strcmp(how, "kill")) start(by, die);
	if (!strcmp(how, "abort")) start(by, crash);
	if (!strcmp(how, "exec")) other();
	if (!strcmp(how, "execother")) start(by, other);
	if (!strcmp(how, "vfork")) start(by, end), start(by, child);
	if (!strcmp(how, "leader")) { start(by, leave); pthread_exit(0); }
	for (;;) pause();
}
