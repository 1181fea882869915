//! What the optimiser makes of signatures when it sees all calls. The test gives
//! ferrotrace the signatures that stand here: each function's on one line.
use std::num::*;
use truth::{opaque, tick, touch};

/// As truth's call!, but the compiler may know the values.
macro_rules! call {
    ($f:ident $(, $name:ident = $value:expr)*) => {{
        #[allow(unused_mut)]
        let mut line = String::from(concat!("CALL given::", stringify!($f)));
        $(truth::arg(&mut line, stringify!($name), &$value);)*
        println!("{}", line);
        let result = $f($($value),*);
        println!("RET given::{}|{:?}", stringify!($f), result);
    }};
}

/// The same, with a result that is not used.
macro_rules! drop {
    ($f:ident $(, $name:ident = $value:expr)*) => {{
        #[allow(unused_mut)]
        let mut line = String::from(concat!("CALL given::", stringify!($f)));
        $(truth::arg(&mut line, stringify!($name), &$value);)*
        println!("{}", line);
        $f($($value),*);
        println!("RET given::{}", stringify!($f));
    }};
}

#[inline(never)]
fn plain(a: u32, b: i64, c: u8, d: char, e: bool) -> i64 {
    tick(1);
    a as i64 * b + c as i64 + d as i64 + e as i64
}

// The place of the caller comes last, and stays when another goes.
#[inline(never)]
#[track_caller]
fn blamed(unused: u32, n: u32) -> u32 {
    tick(2);
    let _ = unused;
    if n > 1000 {
        panic!("{}", n);
    }
    n + 1
}

// What is in the place of a reference then is that of the caller.
#[inline(never)]
#[track_caller]
fn blamed_for(unused: u64, p: &u64) -> u64 {
    tick(20);
    let _ = unused;
    let p = opaque(p); // or its number is passed in its place
    if *p > 1000 {
        panic!("{}", p);
    }
    *p + 1
}

// One goes, one becomes two: as many as before.
#[inline(never)]
fn swapped(unused: u32, p: &[u32; 4]) -> u32 {
    tick(3);
    let _ = unused;
    p[0] ^ p[1]
}

#[inline(never)]
fn late(unused: u64, s: &str) -> usize {
    tick(4);
    let _ = unused;
    s.len() + s.as_bytes().first().map_or(0, |&b| b as usize)
}

#[inline(never)]
fn pear(s: &str) -> bool {
    tick(5);
    s == "pear"
}

#[inline(never)]
fn eight(s: &str) -> bool {
    tick(6);
    s == "12345678"
}

// An index that is no pointer looks like one.
#[inline(never)]
fn index(i: &usize, t: &[u8; 256]) -> u8 {
    tick(7);
    t[*i & 255]
}

#[inline(never)]
fn twice(x: &&u32) -> u32 {
    tick(8);
    **x + 1
}

#[inline(never)]
fn string(s: &String) -> u8 {
    tick(9);
    s.as_bytes()[0]
}

#[inline(never)]
fn length(s: &String) -> usize {
    tick(10);
    s.len()
}

#[inline(never)]
fn shown(s: String, n: u32) -> String {
    tick(11);
    format!("{}{}", s, n)
}

#[inline(never)]
fn vector(v: Vec<u16>) -> usize {
    tick(12);
    v.len() + touch(&v) as usize * 0
}

#[inline(never)]
fn boxed(b: Box<u32>) -> u32 {
    tick(13);
    *b + 1
}

#[inline(never)]
fn perhaps(b: Option<Box<u32>>, r: Option<&u32>, z: Option<NonZeroU8>) -> u32 {
    tick(14);
    b.map_or(0, |b| *b) + r.map_or(0, |r| *r) + z.map_or(0, |z| z.get() as u32)
}

#[inline(never)]
fn mixed(a: f32, n: u32, b: f64) -> f64 {
    tick(15);
    a as f64 * b + n as f64
}

#[inline(never)]
fn dead_float(unused: f64, b: f64) -> f64 {
    tick(16);
    let _ = unused;
    b * 3.0
}

#[inline(never)]
fn wide(a: i128, b: [u16; 3], c: [u8; 20]) -> i128 {
    tick(17);
    a + b[2] as i128 + c[19] as i128
}

#[inline(never)]
fn array(n: u64) -> [u64; 5] {
    tick(18);
    opaque([n, n + 1, n + 2, n + 3, n * n])
}

#[inline(never)]
fn small(n: u16) -> [u16; 2] {
    tick(19);
    [n, opaque(n) ^ 5]
}

#[inline(never)]
fn stack(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, g: u64, h: u64) -> u64 {
    tick(20);
    a ^ b ^ c ^ d ^ e ^ f ^ g ^ (h << 3)
}

#[inline(never)]
fn dead_stack(a: u64, b: u64, c: u64, d: u64, e: u64, f: u64, unused: u64, h: u64) -> u64 {
    tick(21);
    let _ = unused;
    a ^ b ^ c ^ d ^ e ^ f ^ (h << 4)
}

#[inline(never)]
fn half(n: u32) -> &'static str {
    tick(22);
    if n & 1 == 0 { "even" } else { "odd" }
}

#[inline(never)]
fn passes_on(a: u32, s: &str, n: u32) -> u32 {
    tick(23);
    if n == 0 { a } else { receives(a, s) }
}

#[inline(never)]
fn receives(a: u32, s: &str) -> u32 {
    tick(24);
    s.bytes().map(|b| b as u32).sum::<u32>() ^ a
}

#[inline(never)]
fn dead_in_callee(a: u32, b: u32) -> u32 {
    tick(25);
    half_dead(a, b) + 1
}

#[inline(never)]
fn half_dead(unused: u32, b: u32) -> u32 {
    tick(26);
    let _ = unused;
    b * 7
}

#[inline(never)]
fn pointer(unused: u32, b: u32) -> u32 {
    tick(27);
    let _ = unused;
    b * 9
}

#[inline(never)]
extern "C" fn c_like(a: i32, p: *const u8, b: f64, n: u64) -> i32 {
    tick(28);
    a + unsafe { *p } as i32 + b as i32 + n as i32
}

#[inline(never)]
fn raw(p: *const u32, q: *mut u8) -> u32 {
    tick(29);
    unsafe { *p + *q as u32 }
}

#[inline(never)]
fn raw_dead(unused: *const u32, q: *const u32) -> u32 {
    tick(30);
    let _ = unused;
    unsafe { *q }
}

#[inline(never)]
fn filled(p: &mut [u32; 4], n: u32) -> u32 {
    tick(31);
    p[1] = n;
    p[2] = n + 1;
    n
}

#[inline(never)]
fn words(w: &[&str]) -> usize {
    tick(32);
    w.iter().map(|s| s.len()).sum()
}

#[inline(never)]
fn constant(always: u32, x: u32) -> u32 {
    tick(33);
    always * x
}

#[inline(never)]
fn nothing(a: (), n: u32) {
    tick(34 + n);
    a
}

static SEVEN: u8 = 7;

fn main() {
    for n in 1..4u32 {
        let m = opaque(n);
        call!(plain, a = m, b = -(m as i64) << 33, c = m as u8 + 250, d = ['a', 'é', '𝄞', '\n'][m as usize % 4], e = m & 1 == 1);
        call!(blamed, unused = 77, n = m);
        call!(blamed_for, unused = 66u64, p = &(m as u64));
        call!(blamed_for, unused = 67u64, p = &(m as u64 + 1));
        call!(swapped, unused = 88, p = &[m, m + 1, 9, 9]);
        call!(late, unused = 99, s = ["x", "pear", ""][m as usize % 3]);
        call!(pear, s = ["pear", "plum", "fig"][m as usize % 3]);
        call!(eight, s = ["12345678", "87654321", ""][m as usize % 3]);
        call!(index, i = &(m as usize), t = &[m as u8; 256]);
        call!(twice, x = &&m);
        call!(string, s = &format!("{}pear", m));
        call!(length, s = &"p".repeat(m as usize));
        call!(shown, s = format!("<{}>", m), n = m);
        call!(vector, v = vec![m as u16; m as usize]);
        call!(boxed, b = Box::new(m));
        call!(perhaps, b = if m == 2 { None } else { Some(Box::new(m)) }, r = if m == 1 { None } else { Some(&m) }, z = NonZeroU8::new(m as u8 - 1));
        call!(mixed, a = m as f32 / 2.0, n = m, b = 1.5);
        call!(dead_float, unused = 2.5, b = m as f64);
        call!(wide, a = -(m as i128) << 99, b = [m as u16; 3], c = [m as u8; 20]);
        call!(array, n = m as u64);
        call!(small, n = m as u16);
        call!(stack, a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = m as u64, h = 8);
        call!(dead_stack, a = m as u64, b = 2, c = 3, d = 4, e = 5, f = 6, unused = 7, h = 8);
        println!("CALL given::half|n={}", m);
        let len = half(m).len();
        println!("RET given::half\n{}", len);
        call!(passes_on, a = m, s = "passed", n = m - 1);
        drop!(receives, a = m, s = "dropped");
        call!(dead_in_callee, a = 5, b = m);
        call!(c_like, a = -(m as i32), p = &SEVEN as *const u8, b = 2.5, n = m as u64);
        let mut byte = m as u8;
        let (p, q) = (&m as *const u32, &mut byte as *mut u8);
        call!(raw, p = p, q = q);
        call!(raw_dead, unused = p, q = p);
        call!(filled, p = &mut [m; 4], n = m);
        call!(words, w = &["a", ["pear", "plum"][m as usize & 1]]);
        call!(constant, always = 3, x = m);
        call!(nothing, a = (), n = m);
        let by_address: fn(u32, u32) -> u32 = opaque(pointer as fn(u32, u32) -> u32);
        println!("CALL given::pointer|unused=5|b={}", m);
        println!("RET given::pointer|{:?}", by_address(5, m));
    }
}
