// Values for the kernel tests to capture: argv[1] says which. Each is passed to
// hit, after a line on standard input has said that the probes are in.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { const void *ptr; size_t len; } slice;
typedef struct { size_t cap; const void *ptr; size_t len; } vec;
typedef struct node { struct node *next; uint64_t value; } node;
typedef struct { uint32_t tag; uint32_t pad; uint64_t a, b; } choice;

// The end of it lies in a page that nothing has touched.
static const char untouched[1 << 22] = {[3 << 20] = 'f', 'a', 'r'};

uint64_t global = 0x1122334455667788;

__attribute__((noipa)) long hit(long a, long b, long c, long d, long e, long f)
{
	__asm__ volatile("" ::: "memory");
	return a + b + c + d + e + f;
}

// cond compares its arguments; at cond_at the flags say how.
long cond(long a, long b);
__asm__(".text\n.globl cond\n.type cond,@function\ncond:\n"
	"cmp %rsi, %rdi\n.globl cond_at\n.type cond_at,@function\ncond_at:\nnop\nret\n");

static slice str(const char *s) { return (slice){s, strlen(s)}; }
static vec vec_of(const void *p, size_t n) { return (vec){n, p, n}; }
#define P(x) ((long)(x))

static long rounds;

static void *thread(void *arg)
{
	char text[16];
	node last = {0, (long)arg}, first = {&last, 0};
	int n = sprintf(text, "thread %ld", (long)arg);
	for (long i = 0; i < rounds; i++)
		hit(P(&first), P(text), n, (long)arg, 0, 0);
	return 0;
}

int main(int argc, char **argv)
{
	const char *what = argv[1];
	long n = argc > 2 ? atol(argv[2]) : 1;
	getchar();
	if (!strcmp(what, "scalars")) {
		hit(-5, 0x1234567800000fff, 1, 'x', 7, -1);
	} else if (!strcmp(what, "str")) {
		hit(P("hello"), 5, 0, 0, 0, 0);
	} else if (!strcmp(what, "point")) {
		int32_t point[2] = {3, -4};
		hit(P(point), 0, 0, 0, 0, 0);
	} else if (!strcmp(what, "strings")) {
		vec s[200];
		for (int i = 0; i < 200; i++) {
			char *p = malloc(16);
			s[i] = vec_of(p, sprintf(p, "string %d", i));
		}
		vec v = vec_of(s, n);
		hit(P(&v), 0, 0, 0, 0, 0);
	} else if (!strcmp(what, "matrix")) {
		uint32_t rows[3][4] = {{1, 2, 3, 4}, {5}, {6, 7}};
		vec v[3] = {vec_of(rows[0], 4), vec_of(rows[1], 1), vec_of((void *)4, 0)};
		vec m = vec_of(v, 3);
		hit(P(&m), 0, 0, 0, 0, 0);
	} else if (!strcmp(what, "list")) {
		node nodes[20];
		for (int i = 0; i < 20; i++)
			nodes[i] = (node){i < 19 ? &nodes[i + 1] : 0, i};
		hit(P(nodes), 0, 0, 0, 0, 0);
	} else if (!strcmp(what, "cycle")) {
		node a, b;
		a = (node){&b, 1};
		b = (node){&a, 2};
		hit(P(&a), 0, 0, 0, 0, 0);
	} else if (!strcmp(what, "bad")) {
		slice s[3] = {str("good"), {(void *)8, 3}, str("fine")};
		vec v = vec_of(s, 3);
		hit(P(&v), 8, 16, 8, 0, 0);
	} else if (!strcmp(what, "untouched")) {
		hit(P(untouched + (3 << 20)), 3, 0, 0, 0, 0);
	} else if (!strcmp(what, "many")) {
		for (long i = 0; i < n; i++)
			hit(i, 0, 0, 0, 0, 0);
	} else if (!strcmp(what, "containers")) {
		// As Rust's are in memory. What is not in use has addresses that lead nowhere.
		slice none = {(void *)8, 3};
		struct { slice buckets[4]; uint8_t ctrl[20]; } buckets = {{str("late"), none, str("early"), none}, {0xff, 1, 0x80, 2}};
		struct { void *ctrl; size_t mask, items; } table = {buckets.ctrl, 3, 2};
		slice places[3] = {str("b"), none, str("a")};
		struct { slice *ptr; size_t cap, head, len; } ring = {places, 3, 2, 2};
		struct link { struct link *next; slice item; } second = {0, str("2")}, first = {&second, str("1")};
		struct { struct link *head; size_t len; } chain = {&first, 2};
		struct leaf { slice keys[11]; uint16_t len; } left = {{str("k"), none}, 1}, right = {{str("m"), str("n"), none}, 2};
		struct { struct leaf data; struct leaf *edges[12]; } inner = {{{str("l"), none}, 1}, {&left, &right, (void *)8}};
		struct { void *root; size_t height, len; } tree = {&inner, 1, 4};
		struct { size_t strong, weak; slice value; } counted = {1, 1, str("shared")};
		void *shared = &counted;
		hit(P(&table), P(&ring), P(&chain), P(&tree), P(&shared), 0);
	} else if (!strcmp(what, "choices")) {
		slice s = str("boxed");
		choice c[3] = {{0, 0, 17, 1}, {1, 0, P("text"), 4}, {2, 0, P(&s), 0}};
		for (int i = 0; i < 3; i++)
			hit(P(&c[i]), 0, 0, 0, 0, 0);
	} else if (!strcmp(what, "large")) {
		static uint8_t bytes[10000];
		memset(bytes, 7, sizeof bytes);
		vec v = vec_of(bytes, 10000);
		hit(P(bytes), P(&v), 0, 0, 0, 0);
	} else if (!strcmp(what, "frame")) {
		int32_t local = 5;
		static int32_t fixed = 6;
		hit(P(&local), P(&fixed), P(&local) + 4096, 0, 0, 0);
	} else if (!strcmp(what, "threads")) {
		pthread_t t[8];
		rounds = n;
		for (long i = 0; i < 8; i++)
			pthread_create(&t[i], 0, thread, (void *)i);
		for (int i = 0; i < 8; i++)
			pthread_join(t[i], 0);
	} else if (!strcmp(what, "cond")) {
		static const long v[] = {0, 1, -1, 2, -2, INT64_MAX, INT64_MIN, 255};
		for (size_t i = 0; i < sizeof v / sizeof *v; i++)
			for (size_t j = 0; j < sizeof v / sizeof *v; j++)
				cond(v[i], v[j]);
	}
	return 0;
}
