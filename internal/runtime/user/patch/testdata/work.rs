// A library of small functions of many shapes: TestCompiled plants probes into all
// of them. It calls nothing outside of itself.
#![no_std]
#![crate_type = "cdylib"]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[inline(never)]
fn fib(n: u64) -> u64 {
    if n < 2 { n } else { fib(n - 1).wrapping_add(fib(n - 2)) }
}

#[inline(never)]
fn collatz(mut n: u64) -> (u64, u64) {
    let (mut steps, mut top) = (0, n);
    while n > 1 && steps < 200 {
        n = if n & 1 == 0 { n / 2 } else { n.wrapping_mul(3).wrapping_add(1) };
        top = if n > top { n } else { top };
        steps += 1;
    }
    (steps, top)
}

#[inline(never)]
fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[inline(never)]
fn pick(k: u64, x: u64) -> u64 {
    match k & 15 {
        0 => x.rotate_left(3),
        1 => x ^ 0xdead,
        2 => gcd(x, 360360),
        3 => x.swap_bytes(),
        4 => fib(x & 7),
        5 => x.count_ones() as u64,
        6 => x.wrapping_mul(x),
        7 => !x,
        8 => collatz(x & 0xffff).0,
        9 => (x as f64).sqrt_ish() as u64,
        10 => x >> 7,
        _ => 0,
    }
}

trait Sqrt {
    fn sqrt_ish(self) -> f64;
}

impl Sqrt for f64 {
    #[inline(never)]
    fn sqrt_ish(self) -> f64 {
        let mut y = self / 2.0 + 1.0;
        for _ in 0..8 {
            y = (y + self / y) / 2.0;
        }
        y
    }
}

trait Shape {
    fn area(&self) -> f64;
    fn corners(&self) -> u32;
}

struct Square(f64);
struct Circle(f64);
struct Polygon([f64; 6]);

impl Shape for Square {
    fn area(&self) -> f64 { self.0 * self.0 }
    fn corners(&self) -> u32 { 4 }
}

impl Shape for Circle {
    fn area(&self) -> f64 { 3.14 * self.0 * self.0 }
    fn corners(&self) -> u32 { 0 }
}

impl Shape for Polygon {
    fn area(&self) -> f64 { self.0.iter().sum() }
    fn corners(&self) -> u32 { 6 }
}

#[inline(never)]
fn measure(s: &dyn Shape) -> f64 {
    s.area() + s.corners() as f64
}

#[inline(never)]
fn forward(s: &dyn Shape) -> f64 {
    s.area()
}

#[inline(never)]
fn pass(x: u64, y: u64) -> u64 {
    if x & 1 == 0 { pick(y, x) } else { y }
}

#[inline(never)]
fn fill(seed: u64, out: &mut [u64; 16]) {
    let mut x = seed | 1;
    for o in out.iter_mut() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *o = x;
    }
}

#[inline(never)]
fn big(seed: u64) -> [u64; 16] {
    let mut a = [0; 16];
    fill(seed, &mut a);
    a
}

#[no_mangle]
pub extern "C" fn work(a: u64, b: u64) -> u64 {
    let shapes: [&dyn Shape; 3] = [&Square(a as u8 as f64), &Circle(b as u8 as f64), &Polygon([1.0; 6])];
    let m = measure(shapes[(a % 3) as usize]) + forward(shapes[(b % 3) as usize]);
    let mut h = m.to_bits();
    for x in big(a) {
        h = h.wrapping_mul(31).wrapping_add(pick(x, b));
    }
    let (steps, top) = collatz(b & 0xfff);
    h ^ pass(a, b) ^ steps ^ top
}
