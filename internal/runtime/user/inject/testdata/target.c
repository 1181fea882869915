// What the tests trace. It verifies by itself that nothing is done to it: the first
// failure is printed and ends it with status 9. The first argument is the leader's work,
// the others start threads. SIGTERM ends it with status 0 and a line of figures.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static atomic_ulong work, signals, made, forks;
static volatile int over;

// No stdio: a signal's handler may come in the middle of a fork, which has its locks.
#define say(...) do { char b_[200]; int n_ = snprintf(b_, sizeof b_, __VA_ARGS__); if (write(1, b_, n_) != n_) _exit(10); } while (0)
#define fail(...) do { int e_ = errno; say("FAIL: " __VA_ARGS__); say(" (errno %d)\n", e_); _exit(9); } while (0)

// regloop(patterns, n): all registers, flags and the red zone hold what is put there,
// through n rounds. 0, or which one does not.
long regloop(const void *patterns, long n);
asm(".macro check reg, val\n cmp $\\val, %\\reg\n jne 8f\n inc %eax\n.endm\n"
    ".text\nregloop:\n"
    "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
    "movq $0x1234567, -8(%rsp); movq $0x7654321, -120(%rsp)\n"
    ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vmovdqu (32*\\i)(%rdi), %ymm\\i\n.endr\n"
    "mov %rdi, %r15; mov %rsi, %rax\n"
    "mov $0x11111111, %rbx; mov $0x22222222, %rcx; mov $0x33333333, %rdx; mov $0x44444444, %rsi\n"
    "mov $0x55555555, %rdi; mov $0x66666666, %rbp; mov $0x77777777, %r8; mov $-0x11111111, %r9\n"
    "mov $-0x22222222, %r10; mov $-0x33333333, %r11; mov $-0x44444444, %r12; mov $-0x55555555, %r13\n"
    "mov $-0x66666666, %r14\n"
    "stc; std\n"
    "1: lea -1(%rax), %rax; .byte 0x67; jmp 2f\n" // neither changes flags
    "2: jnc 9f; mov %rax, -16(%rsp); mov %rcx, -24(%rsp); mov %rax, %rcx; jrcxz 3f; mov -24(%rsp), %rcx; jmp 1b\n"
    "3: mov -24(%rsp), %rcx; cld; mov $1, %eax\n"
    ".irp p,\"rbx,0x11111111\",\"rcx,0x22222222\",\"rdx,0x33333333\",\"rsi,0x44444444\",\"rdi,0x55555555\",\"rbp,0x66666666\",\"r8,0x77777777\",\"r9,-0x11111111\",\"r10,-0x22222222\",\"r11,-0x33333333\",\"r12,-0x44444444\",\"r13,-0x55555555\",\"r14,-0x66666666\"\n"
    "  check \\p\n.endr\n"
    "cmpq $0x1234567, -8(%rsp); jne 8f; cmpq $0x7654321, -120(%rsp); jne 8f; inc %eax\n"
    ".irp i,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n vpcmpeqb (32*\\i)(%r15), %ymm\\i, %ymm\\i\n vpmovmskb %ymm\\i, %ecx\n inc %ecx\n jnz 8f\n inc %eax\n.endr\n"
    "xor %eax, %eax; jmp 8f\n"
    "9: mov $99, %eax; cld\n"
    "8: vzeroupper; pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n");

static unsigned char patterns[16 * 32];

static void regs(void) {
	for (int i = 0; i < (int)sizeof patterns; i++) patterns[i] = i * 7 + 1;
	for (;;) {
		long r = regloop(patterns, 20000);
		if (r) fail("register %ld", r);
		work++;
		if (over) return;
	}
}

static uint64_t checksum(uint64_t x) {
	for (int i = 0; i < 100000; i++) x = (x ^ x >> 29) * 0x9e3779b97f4a7c15ull + i;
	return x;
}

static void sum(void) {
	uint64_t want = checksum(42);
	while (!over) {
		if (checksum(42) != want) fail("checksum");
		work++;
	}
}

static void mssleep(void) {
	while (!over) {
		struct timespec t = {0, 3000000}, a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		if (nanosleep(&t, &t)) fail("nanosleep");
		clock_gettime(CLOCK_MONOTONIC, &b);
		long d = (b.tv_sec - a.tv_sec) * 1000000000l + b.tv_nsec - a.tv_nsec;
		if (d < 3000000) fail("slept %ld ns only", d);
		work++;
	}
}

static int pipes[2], events, poller;

static void *feeder(void *p) {
	while (!over) {
		uint64_t one = 1;
		struct timespec t = {0, 2000000};
		nanosleep(&t, 0);
		if (write(events, &one, 8) != 8 || write(pipes[1], "x", 1) != 1) fail("feeder");
	}
	return p;
}

static void plumb(void) {
	static int once;
	if (once++) return;
	struct epoll_event ev = {.events = EPOLLIN};
	pthread_t t;
	events = eventfd(0, 0);
	poller = epoll_create1(0);
	if (pipe(pipes) || epoll_ctl(poller, EPOLL_CTL_ADD, events, &ev)) fail("plumb");
	pthread_create(&t, 0, feeder, 0);
}

static void epolls(void) {
	plumb();
	for (int i = 0; !over; i++) {
		struct epoll_event ev;
		uint64_t v;
		int n = epoll_wait(poller, &ev, 1, i & 1 ? -1 : 1000);
		if (n != 1) fail("epoll_wait: %d", n);
		if (read(events, &v, 8) != 8) fail("eventfd");
		work++;
	}
}

static void reads(void) {
	plumb();
	while (!over) {
		char c;
		if (read(pipes[0], &c, 1) != 1 || c != 'x') fail("read");
		work++;
	}
}

// Signals: the sender counts.
static volatile int next;
static void on_rt(int s, siginfo_t *i, void *u) {
	int e = errno;
	if (i->si_value.sival_int != next) fail("signal %d instead of %d", i->si_value.sival_int, next);
	next++;
	signals++;
	errno = e;
}

static void *nothing(void *p) { made++; return p; }

static void churn(void) {
	while (!over) {
		pthread_t t[4];
		for (int i = 0; i < 4; i++)
			if (pthread_create(&t[i], 0, nothing, 0)) fail("pthread_create");
		for (int i = 0; i < 4; i++) pthread_join(t[i], 0);
	}
}

static void forkwait(void) {
	while (!over) {
		int st;
		pid_t p = fork();
		if (p < 0) fail("fork");
		if (p == 0) _exit(checksum(1) == checksum(1) ? 7 : 8);
		while (waitpid(p, &st, 0) < 0) if (errno != EINTR) fail("waitpid");
		if (!WIFEXITED(st) || WEXITSTATUS(st) != 7) fail("the fork's status is %x", st);
		forks++;
	}
}

static void vforkexec(void) {
	while (!over) {
		int st;
		pid_t p = vfork();
		if (p < 0) fail("vfork");
		if (p == 0) { execl("/bin/true", "true", (char *)0); _exit(8); }
		while (waitpid(p, &st, 0) < 0) if (errno != EINTR) fail("waitpid");
		if (st) fail("the vfork's status is %x", st);
		forks++;
	}
}

// The child of a vfork that takes its time.
static void vforkslow(void) {
	while (!over) {
		pid_t p = vfork();
		if (p == 0) {
			struct timespec t = {1, 500000000};
			syscall(SYS_nanosleep, &t, 0);
			_exit(0);
		}
		waitpid(p, 0, 0);
		forks++;
	}
}

static void idle(void) { do { struct timespec t = {0, 10000000}; work++; nanosleep(&t, 0); } while (!over); }

static void strict(void) {
	volatile char c;
	if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT)) fail("seccomp");
	while (syscall(SYS_read, 0, &c, 1) == 1) checksum(1); // until standard input ends
	syscall(SYS_write, 1, "fine\n", 5);
	syscall(SYS_exit, 0);
}

static void execs(void) { sleep(1); execl("/bin/sleep", "sleep", "2", (char *)0); }
static void *execthread(void *p) { execs(); return p; }
static void execother(void) { pthread_t t; pthread_create(&t, 0, execthread, 0); pause(); }
static void exits(void) { sleep(1); _exit(3); }

static volatile int stage;
__attribute__((noinline)) int victim(int x) { asm volatile("" ::: "memory"); return x * 3 + stage; }
static void calls(void) {
	while (!over) {
		int got = victim(5);
		if (got != 15 && got != 1) fail("victim: %d", got);
		work++;
	}
}

static const struct { const char *name; void (*f)(void); } all[] = {
	{"regs", regs}, {"sum", sum}, {"sleep", mssleep}, {"epoll", epolls}, {"read", reads}, {"churn", churn},
	{"fork", forkwait}, {"vfork", vforkexec}, {"vforkslow", vforkslow}, {"idle", idle}, {"strict", strict},
	{"exec", execs}, {"execother", execother}, {"exit", exits}, {"calls", calls},
};

static void (*find(const char *name))(void) {
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
		if (!strcmp(all[i].name, name)) return all[i].f;
	fail("no work %s", name);
}

static void *thread(void *p) { ((void (*)(void))p)(); return 0; }
// SIGTERM is blocked but here, or it would wake others too.
static void *ender(void *p) {
	int s;
	sigset_t term;
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	if (sigwait(&term, &s)) fail("sigwait");
	say("work %lu signals %lu made %lu forks %lu\n", work, signals, made, forks);
	_exit(0);
}

__thread int tls = 5;

int main(int argc, char **argv) {
	struct sigaction sa = {.sa_sigaction = on_rt, .sa_flags = SA_SIGINFO | SA_RESTART};
	sigset_t rt;
	sigaction(SIGRTMIN + 3, &sa, 0);
	sigemptyset(&rt);
	sigaddset(&rt, SIGRTMIN + 3);
	// The leader alone takes signals, if its work cannot fail with EINTR.
	int takes = argc > 1 && (!strcmp(argv[1], "regs") || !strcmp(argv[1], "sum"));
	if (argc < 2 || tls != 5) return 2;
	sigaddset(&rt, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &rt, 0);
	sigdelset(&rt, SIGTERM);
	pthread_t e;
	if (strcmp(argv[1], "strict") && pthread_create(&e, 0, ender, 0)) fail("pthread_create"); // strict ends by its only thread
	for (int i = 2; i < argc; i++) {
		pthread_attr_t at;
		pthread_t t;
		pthread_attr_init(&at);
		pthread_attr_setstacksize(&at, 128 << 10);
		if (pthread_create(&t, &at, thread, (void *)find(argv[i]))) fail("pthread_create");
	}
	if (takes) pthread_sigmask(SIG_UNBLOCK, &rt, 0);
	say( "ready %d %p\n", getpid(), (void *)victim);
	find(argv[1])();
	for (;;) pause();
}
