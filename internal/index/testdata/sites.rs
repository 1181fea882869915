//! The program of TestSites, small enough to be kept built. Made by
//!   rustc 1.95.0 --edition 2021 -g -C panic=abort -C debug-assertions=off -C link-args='-nostartfiles -static -Wl,--build-id=none' \
//!     -C relocation-model=static -C opt-level=0 -o sites-debug.elf sites.rs
//! and with -C opt-level=3 as sites-release.elf; both with --remap-path-prefix=$PWD=.
#![no_std]
#![no_main]

use core::hint::black_box;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

pub struct Point {
    x: i64,
    y: i64,
    z: i64,
}

/// Arguments in registers; the result in one.
#[inline(never)]
fn add(a: u32, b: u32) -> u32 {
    a.wrapping_add(b)
}

/// The first argument is not used.
#[inline(never)]
fn second(_a: u64, b: u64) -> u64 {
    b ^ 5
}

/// An argument by reference to memory, a result through a hidden pointer.
#[inline(never)]
fn mirror(p: Point) -> Point {
    Point { x: p.z, y: p.y, z: p.x }
}

/// A string is two registers.
#[inline(never)]
fn length(s: &str) -> usize {
    s.len() + 1
}

/// An argument whose address is taken lives in the frame.
#[inline(never)]
fn spilled(mut n: u32) -> u32 {
    black_box(&mut n);
    n
}

/// Ends in a call of another function.
#[inline(never)]
fn tail(a: u32) -> u32 {
    add(a, 7)
}

/// Ends in one of two, by a conditional jump.
#[inline(never)]
fn either(a: u32, b: u64) -> u64 {
    if a > 3 {
        second(b, b)
    } else {
        b
    }
}

/// Its parameters are stored in the frame; the result's address stays in its register.
#[inline(never)]
fn labelled(id: u64, at: i64) -> Point {
    black_box(&id);
    black_box(&at);
    Point { x: id as i64, y: at, z: 9 }
}

/// Inlined at one place.
#[inline(always)]
fn once(x: u32) -> u32 {
    black_box(x).wrapping_mul(3)
}

/// Inlined in a loop.
#[inline(always)]
fn step(sum: u64, x: u64) -> u64 {
    black_box(sum ^ x).rotate_left(5)
}

#[inline(never)]
fn caller(n: u32) -> u32 {
    let mut sum = 0;
    let mut i = 0u64;
    while i < n as u64 {
        sum = step(sum, i);
        i += 1;
    }
    once(sum as u32) + 1
}

/// Returns by a jump table.
#[inline(never)]
fn table(n: u32) -> u32 {
    match n {
        0 => black_box(10),
        1 => black_box(21),
        2 => black_box(32),
        3 => black_box(4),
        4 => black_box(50),
        5 => black_box(61),
        _ => 0,
    }
}

#[no_mangle]
extern "C" fn rust_eh_personality() {}

#[no_mangle]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, n: usize) -> *mut u8 {
    let mut i = 0;
    while i < n {
        to.add(i).write_volatile(from.add(i).read());
        i += 1;
    }
    to
}

#[no_mangle]
pub extern "C" fn _start() -> ! {
    let n = black_box(1u32);
    let p = mirror(Point { x: n as i64, y: 2, z: 3 });
    black_box(p.x + p.y + p.z);
    black_box(labelled(n as u64, black_box(7)).y);
    black_box(add(n, 2) + tail(n) + spilled(n) + caller(n) + table(n));
    black_box(second(n as u64, 2) + either(n, 4) + length(black_box("abc")) as u64);
    loop {}
}
