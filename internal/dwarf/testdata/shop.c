#include <stdio.h>
#include <stdlib.h>
struct item { unsigned id; char name[16]; double price; struct item *next; };
enum shape { circle = -1, square, big = 1 << 20 };
typedef union { long l; float f; unsigned char b[8]; } word;
static struct item *head;
static inline int weigh(struct item *i, int n) {
	int t = 0;
	for (int k = 0; k < n; k++) { if (i->name[k & 15] > 'c') continue; t += i->id * k; }
	return t;
}
__attribute__((noinline)) struct item *add(unsigned id, double price, enum shape s) {
	struct item *i = calloc(1, sizeof *i);
	if (!i) abort();
	i->id = id + s; i->price = price; i->next = head; head = i;
	snprintf(i->name, sizeof i->name, "item%u", id);
	return i;
}
__attribute__((noinline)) long sum(const word *w, int n) { long t = 0; while (n--) t += w[n].l; return t; }
int main(int argc, char **argv) {
	word w[3] = { { argc }, { 2 }, { 3 } };
	struct item *i = add(argc, 1.5, argc > 1 ? square : circle);
	printf("%d %ld %s\n", weigh(i, argc) + weigh(head, 9), sum(w, 3), argv[0]);
	return 0;
}
