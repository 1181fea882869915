// Shapes of inlined code: a call in a loop, in a branch rarely taken, in a loop
// that is unrolled, in one that is vectorised, and a function with a loop of its
// own. Each prints how often it was called. Compiled by rust_test.go.
use std::hint::black_box;

pub struct Buf {
    data: [u64; 64],
    n: usize,
}

#[inline(always)]
fn push(b: &mut Buf, v: u64) {
    b.data[b.n & 63] = v;
    b.n += 1;
}

#[inline(always)]
fn rare(b: &mut Buf, v: u64) {
    b.data[(v & 63) as usize] ^= v.rotate_left(7);
    b.n = b.n.wrapping_mul(3);
}

#[inline(always)]
fn sum_step(acc: u64, v: u64) -> u64 {
    acc.wrapping_mul(31).wrapping_add(v)
}

#[inline(always)]
fn vec_step(d: &mut u32, s: u32) {
    *d = d.wrapping_add(s ^ 5);
}

#[inline(always)]
fn search(h: &[u8], c: u8) -> usize {
    let mut i = 0;
    while i < h.len() {
        if h[i] == c {
            return i;
        }
        i += 1;
    }
    h.len()
}

#[inline(always)]
fn store(b: &mut Buf, v: u64) {
    b.data[3] = v;
}

#[inline(never)]
pub fn call_in_loop(b: &mut Buf, n: u64) {
    for i in 0..n {
        push(b, black_box(i));
    }
}

#[inline(never)]
pub fn rarely(b: &mut Buf, n: u64) {
    for i in 0..n {
        if black_box(i) % 9 == 0 {
            rare(b, i);
        }
    }
}

#[inline(never)]
pub fn unrolled(v: &[u64]) -> u64 {
    let mut a = 0;
    for &x in v {
        a = sum_step(a, x);
    }
    a
}

#[inline(never)]
pub fn vectorised(d: &mut [u32], s: &[u32]) {
    for (d, s) in d.iter_mut().zip(s) {
        vec_step(d, *s);
    }
}

#[inline(never)]
pub fn searching(h: &[u8], c: u8) -> usize {
    search(black_box(h), black_box(c)) + 1
}

#[inline(never)]
pub fn once(b: &mut Buf, v: u64) {
    store(b, black_box(v) + 1);
}

// Results: kept, removed because no caller looks at it, and a pair.
#[inline(never)]
fn kept(a: u64, b: u64) -> u64 {
    black_box(a).wrapping_mul(a) + black_box(b)
}

#[inline(never)]
fn removed(a: u64, b: &mut u64) -> u64 {
    *b = black_box(a) * 3;
    a ^ 77
}

#[inline(never)]
fn halves(s: &str) -> (&str, u32) {
    (&s[black_box(1)..], black_box(3))
}

fn main() {
    let mut b = Buf { data: [0; 64], n: 0 };
    call_in_loop(&mut b, black_box(1000));
    rarely(&mut b, black_box(1000));
    let v: Vec<u64> = (0..1000).collect();
    let r = unrolled(black_box(&v));
    let mut d = vec![1u32; 1000];
    let s = vec![2u32; 1000];
    vectorised(black_box(&mut d), black_box(&s));
    let mut t = 0;
    for i in 0..10u8 {
        t += searching(b"abcdefghijklmnopqrstuvwxyz0123456789", b'a' + i);
    }
    for i in 0..20 {
        once(&mut b, i);
    }
    let k = kept(black_box(3), black_box(4)) + kept(black_box(5), black_box(6));
    let mut q = 0;
    removed(black_box(8), &mut q);
    let (h, n) = halves(black_box("half"));
    println!("{} {} {} {} {} {} {} {}", b.n, r, d[7], t, k, q, h, n);
}
