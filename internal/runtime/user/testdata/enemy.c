// What the tests of this package trace, beside ../inject/testdata/target.c. The first
// argument is a work of those at the end; "ready PID" is written when it has begun. A
// failure of its own is printed and ends it with status 9. SIGTERM, or the end of the
// work, ends it with status 0 and a line of figures.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define probed __attribute__((noinline, noclone))
#define say(...) do { char b_[200]; int n_ = snprintf(b_, sizeof b_, __VA_ARGS__); if (write(1, b_, n_) != n_) _exit(10); } while (0)
#define fail(...) do { say("FAIL: " __VA_ARGS__); say(" (errno %d)\n", errno); _exit(9); } while (0)

static atomic_ulong work, handled;
static volatile sig_atomic_t over;
static int number; // the second argument

// Functions of all kinds that take probes at entries and exits: one that is a jump short
// of five bytes, some with several exits, some that call.
probed uint64_t mix(uint64_t x) { return (x ^ x >> 29) * 0x9e3779b97f4a7c15ull; }
probed int tiny(void) { return 1; }
probed int branch(int n) {
	asm volatile("" ::: "memory");
	if (n % 3 == 0) return tiny() + n;
	if (n % 3 == 1) return (int)mix(n);
	return n * 2;
}
probed int recurse(int n) { return n <= 0 ? tiny() : recurse(n - 1) + 1; }
probed double floats(double a, double b) { asm volatile("" ::: "memory"); return a * b + 1; }
probed int inside(int n) { asm volatile("" ::: "memory"); return n + 1; }

// short1 has one byte and padding behind it, so that its jump is a short one.
asm(".text; .p2align 4; .globl short1; .type short1, @function\nshort1: ret\n.size short1, . - short1\n.p2align 4, 0xcc\n"
    ".globl short3; .type short3, @function\nshort3: xor %eax, %eax; ret\n.size short3, . - short3\n.p2align 4, 0xcc\n"
    ".globl short4; .type short4, @function\nshort4: test %edi, %edi; je 1f; .byte 0x90; 1: ret\n.size short4, . - short4\n.p2align 4, 0xcc\n");
extern void short1(void);
extern int short3(void), short4(int);

static uint64_t want[64];

static void prepare(void) {
	for (int i = 0; i < 64; i++) want[i] = mix(i) + branch(i) + recurse(i % 8) + (uint64_t)floats(i, 3);
}

static void verify(void) {
	for (int i = 0; i < 64; i++) {
		short1();
		if (short3()) fail("short3");
		short4(i);
		uint64_t got = mix(i) + branch(i) + recurse(i % 8) + (uint64_t)floats(i, 3);
		if (got != want[i]) fail("%d: %lx, not %lx", i, got, want[i]);
	}
	work++;
}

static void *hammer(void *p) { while (!over) verify(); return p; }

static void threads(int n, void *(*f)(void *)) {
	for (int i = 0; i < n; i++) {
		pthread_t t;
		pthread_attr_t at;
		pthread_attr_init(&at);
		pthread_attr_setstacksize(&at, 128 << 10);
		if (pthread_create(&t, &at, f, (void *)(intptr_t)i)) fail("pthread_create");
	}
}

// storm: number threads do nothing else.
static void storm(void) { threads(number, hammer); hammer(0); }

// calls: number threads make 20000 calls of inside each; ends by itself.
static void *caller(void *p) {
	int x = 0;
	for (int i = 0; i < 20000; i++) x = inside(x);
	if (x != 20000) fail("%d", x);
	return p;
}
static void calls(void) {
	pthread_t t[64];
	for (int i = 0; i < number; i++) if (pthread_create(&t[i], 0, caller, 0)) fail("pthread_create");
	for (int i = 0; i < number; i++) pthread_join(t[i], 0);
	say("calls %d\n", number * 20000);
	_exit(0);
}

// family: parent, child and grandchild go on calling, each a hundred times a second or
// so; the parent leaves them after a second if number is 1.
static void family(void) {
	pid_t top = getpid(), child = fork();
	if (child == 0) {
		pid_t mid = getpid(), p = fork();
		if (p != 0) say("family %d %d %d\n", top, mid, p);
	}
	for (int i = 0; !over; i++) {
		if (inside(i) != i + 1) fail("inside");
		usleep(1000);
		if (number && getpid() == top && i == 1000) _exit(0);
	}
}

// forks: children are made all the time, which make calls, and one of their own.
static void forks(void) {
	while (!over) {
		int st;
		pid_t p = fork();
		if (p == 0) {
			pid_t q = fork();
			for (int i = 0; i < 2000; i++) if (inside(i) != i + 1) _exit(9);
			if (q) waitpid(q, &st, 0);
			_exit(7);
		}
		for (int i = 0; i < 1000; i++) if (inside(i) != i + 1) fail("inside");
		while (waitpid(p, &st, 0) < 0) if (errno != EINTR) fail("waitpid");
		if (!WIFEXITED(st) || WEXITSTATUS(st) != 7) fail("the child's status is %x", st);
		work++;
	}
}

// chain: each child goes on, and its parent ends, all of them with the same output.
static void chain(void) {
	for (int i = 0;; i++) {
		if (inside(i) != i + 1) fail("inside");
		if (i % 20 == 0) usleep(100);
		if (i % 200 == 0 && fork() != 0) _exit(0);
		if (i > 200 * number) break;
	}
	say("chain ended\n");
	_exit(0);
}

// A timer interrupts all of that a thousand times a second; its handler calls too.
static void on_alarm(int s) { int e = errno; handled++; if (inside(s) != s + 1 || branch(2) != 4) fail("inside a handler"); errno = e; }
static void timers(void) {
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
	struct itimerval iv = {{0, 1000}, {0, 1000}};
	sigaction(SIGALRM, &sa, 0);
	setitimer(ITIMER_REAL, &iv, 0);
	threads(2, hammer);
	hammer(0);
}

// A handler that takes its time, of which number is how many KiB of stack: the thread has
// to come back to wherever it was.
static probed void deep(int kb) {
	char b[1024];
	memset(b, kb, sizeof b);
	if (kb > 0) deep(kb - 1);
	else {
		struct timespec t = {0, 20000000};
		nanosleep(&t, 0);
	}
	asm volatile("" :: "r"(b) : "memory");
}
static void on_slow(int s) { int e = errno; handled++; deep(number); errno = e; (void)s; }
static void slow(void) {
	struct sigaction sa = {.sa_handler = on_slow, .sa_flags = SA_RESTART};
	struct itimerval iv = {{0, 1000}, {0, 1000}};
	sigaction(SIGVTALRM, &sa, 0);
	setitimer(ITIMER_VIRTUAL, &iv, 0);
	hammer(0);
}
// The same on another stack.
static void slowalt(void) {
	stack_t ss = {.ss_size = 512 << 10};
	ss.ss_sp = malloc(ss.ss_size);
	sigaltstack(&ss, 0);
	struct sigaction sa = {.sa_handler = on_slow, .sa_flags = SA_RESTART | SA_ONSTACK};
	struct itimerval iv = {{0, 1000}, {0, 1000}};
	sigaction(SIGVTALRM, &sa, 0);
	setitimer(ITIMER_VIRTUAL, &iv, 0);
	hammer(0);
}

// maps: memory is mapped and unmapped all the time, also near the program.
static void *mapper(void *p) {
	for (unsigned i = 0; !over; i++) {
		uintptr_t at = ((uintptr_t)storm & ~0xfffffful) + (i * 7919u % 4096 + 16) * 65536;
		void *a = mmap(i & 1 ? (void *)at : 0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (a == MAP_FAILED) fail("mmap");
		*(char *)a = 1;
		if (munmap(a, 65536)) fail("munmap");
	}
	return p;
}
static void maps(void) { threads(1, mapper); hammer(0); }

// cancel: threads are cancelled in the midst of their calls.
static void *cancelled(void *p) {
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, 0);
	for (int i = 0;; i++) if (inside(i) != i + 1) fail("inside");
	return p;
}
static void cancel(void) {
	while (!over) {
		pthread_t t;
		if (pthread_create(&t, 0, cancelled, 0)) fail("pthread_create");
		usleep(500);
		pthread_cancel(t);
		pthread_join(t, 0);
		work++;
	}
}

// kill: children are killed in the midst of their calls.
static void killed(void) {
	pid_t me = getpid();
	while (!over) {
		int st;
		pid_t p = fork();
		if (p == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (p == 0 && getppid() != me) _exit(0); // it had ended before
		if (p == 0) for (int i = 0;; i++) if (inside(i) != i + 1) _exit(9);
		usleep(500 + work % 7 * 100);
		kill(p, SIGKILL);
		while (waitpid(p, &st, 0) < 0) if (errno != EINTR) fail("waitpid");
		if (!WIFSIGNALED(st)) fail("the child's status is %x", st);
		work++;
	}
}

// Ends and other programs, after number ms.
static void execs(void) { threads(2, hammer); usleep(number * 1000); execl("/bin/sleep", "sleep", "1", (char *)0); }
static void exits(void) { threads(2, hammer); usleep(number * 1000); _exit(3); }

static void once(void) { verify(); say("works\n"); }

static const struct { const char *name; void (*f)(void); } all[] = {
	{"storm", storm}, {"calls", calls}, {"family", family}, {"forks", forks}, {"chain", chain}, {"timers", timers},
	{"slow", slow}, {"slowalt", slowalt}, {"maps", maps}, {"cancel", cancel}, {"kill", killed}, {"exec", execs},
	{"exit", exits}, {"once", once},
};

static void on_term(int s) { over = s; }
static void *ender(void *p) {
	int s;
	sigset_t term;
	sigemptyset(&term);
	sigaddset(&term, SIGUSR1);
	sigwait(&term, &s);
	say("work %lu handled %lu\n", work, handled);
	_exit(0);
	return p;
}

int main(int argc, char **argv) {
	sigset_t usr;
	pthread_t e;
	if (argc < 2) return 2;
	number = argc > 2 ? atoi(argv[2]) : 0;
	sigemptyset(&usr);
	sigaddset(&usr, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr, 0);
	signal(SIGTERM, on_term);
	prepare();
	if (pthread_create(&e, 0, ender, 0)) fail("pthread_create");
	say("ready %d\n", getpid());
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) if (!strcmp(all[i].name, argv[1])) all[i].f();
	say("work %lu handled %lu\n", work, handled);
	return 0;
}
