// The program that the tests trace: it does what it is told, a command a line, and
// answers each with a line.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef uint64_t (*program)(void *);

// What the kernel or the handler in front passes to a handler: rax, rcx, rdx, rbx, rsp,
// rbp, rsi, rdi, r8 … r15.
uint64_t got[16];
static sigjmp_buf back;
static volatile int handled, code;
static volatile char *volatile wild;
static struct sigaction before;

static void jumps(int sig, siginfo_t *info, void *uc) { handled = sig, code = info->si_code; siglongjmp(back, 1); }
static void plain(int sig) { handled = sig; siglongjmp(back, 1); }
static void counts(int sig) { handled += 1; }
// It handles nothing, and leaves it to what was there before it.
static void chains(int sig, siginfo_t *info, void *uc) {
	handled++;
	if (before.sa_flags & SA_SIGINFO)
		before.sa_sigaction(sig, info, uc);
	else if (before.sa_handler == SIG_DFL)
		signal(sig, SIG_DFL);
	else if (before.sa_handler != SIG_IGN)
		before.sa_handler(sig);
}

// A handler that reads, by a program.
static uint64_t entry;
static uint64_t load(uint64_t entry, uint64_t from, uint64_t *value);
static volatile int64_t result;
static void reads(int sig, siginfo_t *info, void *uc) {
	uint64_t v = 1;
	handled = sig;
	result = load(entry, 8, &v);
	siglongjmp(back, 1);
}

// A handler that stores its registers.
void bare(void);
__asm__("bare: mov %rax, got(%rip)\n mov %rcx, got+8(%rip)\n mov %rdx, got+16(%rip)\n mov %rbx, got+24(%rip)\n"
	"mov %rsp, got+32(%rip)\n mov %rbp, got+40(%rip)\n mov %rsi, got+48(%rip)\n mov %rdi, got+56(%rip)\n"
	"mov %r8, got+64(%rip)\n mov %r9, got+72(%rip)\n mov %r10, got+80(%rip)\n mov %r11, got+88(%rip)\n"
	"mov %r12, got+96(%rip)\n mov %r13, got+104(%rip)\n mov %r14, got+112(%rip)\n mov %r15, got+120(%rip)\n"
	"cld\n jmp stored\n");
__attribute__((used)) static void stored(int sig) { handled = sig; siglongjmp(back, 1); }

static void install(int sig, const char *how) {
	struct sigaction a;
	memset(&a, 0, sizeof a);
	if (!strcmp(how, "jumps")) a.sa_sigaction = jumps, a.sa_flags = SA_SIGINFO;
	else if (!strcmp(how, "onstack")) a.sa_sigaction = jumps, a.sa_flags = SA_SIGINFO | SA_ONSTACK;
	else if (!strcmp(how, "nodefer")) a.sa_sigaction = jumps, a.sa_flags = SA_SIGINFO | SA_NODEFER;
	else if (!strcmp(how, "reads")) a.sa_sigaction = reads, a.sa_flags = SA_SIGINFO;
	else if (!strcmp(how, "plain")) a.sa_handler = plain;
	else if (!strcmp(how, "bare")) a.sa_handler = (void (*)(int))bare;
	else if (!strcmp(how, "chains")) a.sa_sigaction = chains, a.sa_flags = SA_SIGINFO;
	else if (!strcmp(how, "once")) a.sa_handler = plain, a.sa_flags = SA_RESETHAND;
	else if (!strcmp(how, "full")) a.sa_handler = counts, sigfillset(&a.sa_mask);
	else if (!strcmp(how, "counts")) a.sa_handler = counts;
	else if (!strcmp(how, "ignore")) a.sa_handler = SIG_IGN;
	else if (!strcmp(how, "before")) a = before;
	else a.sa_handler = SIG_DFL;
	struct sigaction *old = strcmp(how, "chains") ? NULL : &before;
	printf("%d\n", sigaction(sig, &a, old));
}

static uint64_t load(uint64_t entry, uint64_t from, uint64_t *value) {
	uint64_t ctx[4] = {(uint64_t)value, 8, from, 0};
	return ((program)entry)(ctx);
}

static void answer(uint64_t entry, uint64_t from) {
	uint64_t value = 0x1122334455667788;
	int64_t r = load(entry, from, &value);
	printf("%ld %lx\n", r, value);
}

static volatile int stop, hold, parked;
static volatile uint64_t loops, wrong;

// block: 1: it has all signals blocked; 2: it reads good pointers mostly.
struct work { uint64_t entry; int block; };

static volatile int worker;

static void *works(void *p) {
	struct work *w = p;
	if (w->block == 1) {
		sigset_t s;
		sigfillset(&s);
		pthread_sigmask(SIG_SETMASK, &s, NULL);
	}
	worker = gettid();
	uint64_t good = 0xabcdef, i = 0;
	while (!stop) {
		uint64_t v = 1;
		if (hold) {
			__sync_fetch_and_add(&parked, 1);
			while (hold) usleep(100);
			__sync_fetch_and_sub(&parked, 1);
		}
		if (w->entry) {
			if ((w->block != 2 || ++i % 64 == 0) && ((int64_t)load(w->entry, 8, &v) != -EFAULT || v)) wrong++;
			if (load(w->entry, (uint64_t)&good, &v) || v != good) wrong++;
			__sync_fetch_and_add(&loops, 1);
		} else
			usleep(1000);
	}
	return NULL;
}

static char altstack[1 << 16];

int main(void) {
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("ready %d\n", getpid());
	char line[256], word[64];
	pthread_t threads[16];
	int n = 0;
	while (fgets(line, sizeof line, stdin)) {
		uint64_t x = 0, y = 0;
		word[0] = 0;
		if (strcmp(line, "handled\n")) handled = code = 0;
		if (sscanf(line, "read %lx %lx", &x, &y) == 2)
			answer(x, y);
		else if (sscanf(line, "readin %lx", &x) == 1) {
			entry = x, result = 0;
			if (!sigsetjmp(back, 1)) *(volatile char *)8;
			printf("handled %d %ld\n", handled, result);
		} else if (sscanf(line, "deref %lx", &x) == 1) {
			wild = (void *)x;
			if (!sigsetjmp(back, 1)) {
				char c = *wild;
				printf("%d\n", c);
			} else
				printf("handled %d %d\n", handled, code);
		} else if (!strcmp(line, "regs\n")) {
			if (!sigsetjmp(back, 1))
				__asm__ volatile("xor %%eax, %%eax\n dec %%rax\n mov $0x101, %%ecx\n mov $0x102, %%edx\n mov $0x103, %%ebx\n"
					"mov $0x106, %%esi\n mov $0x107, %%edi\n mov $0x108, %%r8d\n mov $0x109, %%r9d\n mov $0x10a, %%r10d\n"
					"mov $0x10b, %%r11d\n mov $0x10c, %%r12d\n mov $0x10d, %%r13d\n mov $0x10e, %%r14d\n mov $0x10f, %%r15d\n"
					"movb $1, 16" ::: "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
			uint64_t frame = got[4];
			got[4] = frame % 16, got[2] -= frame, got[6] -= frame, got[5] = 0;
			for (int i = 0; i < 16; i++) printf("%lx ", got[i]);
			printf("%d\n", handled);
		} else if (sscanf(line, "sigaction %lu %63s", &x, word) == 2)
			install(x, word);
		else if (sscanf(line, "action %lu", &x) == 1) {
			struct { void *h; uint64_t f; void *r; uint64_t m; } k; // not by the C library
			syscall(SYS_rt_sigaction, (int)x, NULL, &k, 8);
			printf("%p %lx %p %lx\n", k.h, k.f, k.r, k.m);
		} else if (sscanf(line, "raise %lu", &x) == 1) {
			if (!sigsetjmp(back, 1)) raise(x);
			printf("handled %d %d\n", handled, code);
		} else if (!strcmp(line, "handled\n"))
			printf("%d\n", handled);
		else if (!strcmp(line, "truncated\n")) {
			int fd = memfd_create("x", 0);
			if (ftruncate(fd, 4096)) return 1;
			char *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
			if (ftruncate(fd, 0)) return 1;
			printf("%p\n", (void *)p);
		} else if (sscanf(line, "mask %63s", word) == 1) {
			sigset_t s;
			sigemptyset(&s), sigaddset(&s, SIGSEGV);
			printf("%d\n", pthread_sigmask(!strcmp(word, "block") ? SIG_BLOCK : SIG_UNBLOCK, &s, NULL));
		} else if (sscanf(line, "thread %lx %lu", &x, &y) == 2) {
			struct work *w = malloc(sizeof *w);
			w->entry = x, w->block = y;
			worker = 0;
			int err = pthread_create(&threads[n++], NULL, works, w);
			while (!err && !worker) usleep(100);
			printf("%d\n", err ? -err : worker);
		} else if (!strcmp(line, "join\n")) {
			stop = 1;
			while (n > 0) pthread_join(threads[--n], NULL);
			stop = 0;
			printf("%lu %lu\n", loops, wrong);
			loops = wrong = 0;
		} else if (!strcmp(line, "hold\n")) {
			for (hold = 1; parked < n;) usleep(100);
			printf("%d\n", n);
		} else if (!strcmp(line, "go\n")) {
			for (hold = 0; parked > 0;) usleep(100);
			printf("%d\n", n);
		} else if (!strcmp(line, "altstack\n")) {
			stack_t s = {altstack, 0, sizeof altstack};
			printf("%d\n", sigaltstack(&s, NULL));
		} else if (sscanf(line, "fork %lx %lx", &x, &y) == 2) {
			fflush(stdout);
			pid_t pid = fork();
			if (!pid) {
				answer(x, y);
				sigaction(SIGSEGV, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
				answer(x, y);
				wild = (void *)y;
				char c = *wild;
				_exit(c);
			}
			int status;
			waitpid(pid, &status, 0);
			printf("signal %d\n", WTERMSIG(status));
		} else
			printf("what?\n");
	}
	return 0;
}
