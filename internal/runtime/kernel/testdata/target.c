// The program that the tests trace. It does what each line of its input says, and
// answers with a line.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

volatile int sum;

__attribute__((noinline)) int work(int n) { return sum += n; }
__attribute__((noinline)) int other(int n) { return sum -= n; }

// The kernel refuses a uprobe on hlt (good_insns_64 in arch/x86/kernel/uprobes.c).
__asm__(".globl refused\n.type refused, @function\nrefused: hlt\nret\n.size refused, . - refused");

static void *thread(void *n) {
	for (long i = 0; i < (long)n; i++) work(1);
	return NULL;
}

int main(void) {
	char line[64], what[16];
	int n;
	while (fgets(line, sizeof line, stdin) && sscanf(line, "%15s %d", what, &n) == 2) {
		int answer = 0;
		if (!strcmp(what, "work")) {
			for (int i = 0; i < n; i++) work(i);
		} else if (!strcmp(what, "other")) {
			for (int i = 0; i < n; i++) other(i);
		} else if (!strcmp(what, "thread")) {
			pthread_t t;
			pthread_create(&t, NULL, thread, (void *)(long)n);
			pthread_join(t, NULL);
		} else if (!strcmp(what, "fork")) {
			pid_t child = fork();
			if (child == 0) {
				for (int i = 0; i < n; i++) work(i);
				_exit(0);
			}
			answer = child;
			waitpid(child, NULL, 0);
		}
		printf("%d\n", answer);
		fflush(stdout);
	}
	return 0;
}
