// Calls functions of many signatures and prints, for each, a line "args NAME" with
// the bytes of each argument and then the argument registers and stack that the
// callee found, and a line "result NAME" with the bytes of the result and the
// registers that the caller found. Each function stands in the debug info by name.
#![allow(dead_code)]
use std::arch::{asm, global_asm};
use std::hint::black_box;
use std::mem::{transmute, MaybeUninit};

// Saves rdi, rsi, rdx, rcx, r8, r9, the low halves of xmm0 to xmm7 and 8 words of
// stack, from that after the return address on.
global_asm!(
    ".globl capture_registers", "capture_registers:",
    "mov rax, [rip + captured@GOTPCREL]",
    "mov [rax], rdi", "mov [rax+8], rsi", "mov [rax+16], rdx", "mov [rax+24], rcx", "mov [rax+32], r8", "mov [rax+40], r9",
    "movq [rax+48], xmm0", "movq [rax+56], xmm1", "movq [rax+64], xmm2", "movq [rax+72], xmm3",
    "movq [rax+80], xmm4", "movq [rax+88], xmm5", "movq [rax+96], xmm6", "movq [rax+104], xmm7",
    "mov rcx, [rsp+8]", "mov [rax+112], rcx", "mov rcx, [rsp+16]", "mov [rax+120], rcx",
    "mov rcx, [rsp+24]", "mov [rax+128], rcx", "mov rcx, [rsp+32]", "mov [rax+136], rcx",
    "mov rcx, [rsp+40]", "mov [rax+144], rcx", "mov rcx, [rsp+48]", "mov [rax+152], rcx",
    "mov rcx, [rsp+56]", "mov [rax+160], rcx", "mov rcx, [rsp+64]", "mov [rax+168], rcx",
    "mov rax, rdi", "ret",
);
extern "C" { fn capture_registers(); }
#[no_mangle]
static mut captured: [u64; 22] = [0; 22];

fn hex(b: &[u8]) -> String { b.iter().map(|b| format!("{b:02x}")).collect::<String>() + "." }
fn bytes<T>(v: &T) -> String { hex(unsafe { std::slice::from_raw_parts(v as *const T as *const u8, std::mem::size_of::<T>()) }) }
fn words(w: &[u64]) -> String { w.iter().map(|w| format!(" {w:#x}")).collect() }

// What an indirect argument leads to is printed too: its address is of a copy.
fn pointees(w: &[u64]) -> String {
    let here = &w as *const _ as u64;
    w.iter().map(|&a| if a.abs_diff(here) < 1 << 18 { " ".to_string() + &hex(unsafe { std::slice::from_raw_parts(a as *const u8, 32) }) } else { " .".into() }).collect()
}

macro_rules! case {
    ($name:ident, ($($arg:ident: $t:ty = $v:expr),*) -> $r:ty = $result:expr) => {{
        #[no_mangle] #[inline(never)]
        fn $name($($arg: $t),*) -> $r { $( black_box(&$arg); )* black_box($result) }
        $( let $arg: $t = black_box($v); )*
        let shown = [$( bytes(&$arg) ),*] as [String; 0 $( + { let _ = stringify!($arg); 1 } )*];
        let f: fn($($t),*) -> MaybeUninit<$r> = unsafe { transmute(capture_registers as *const ()) };
        black_box(f($($arg),*));
        let regs = unsafe { captured };
        println!("args\t{}\t{}\t{}\t{}", stringify!($name), shown.join(" "), words(&regs), pointees(&regs));

        #[inline(never)]
        fn result() -> $r { black_box($result) }
        let mut buf = MaybeUninit::<[u8; 256]>::zeroed();
        let (rax, rdx, xmm0, xmm1): (u64, u64, f64, f64);
        unsafe {
            asm!("call {f}", f = in(reg) result as fn() -> $r as usize, inout("rdi") buf.as_mut_ptr() => _,
                out("rax") rax, out("rdx") rdx, out("xmm0") xmm0, out("xmm1") xmm1, clobber_abi("C"));
        }
        let want: $r = $result;
        let memory = if rax == buf.as_ptr() as u64 { hex(&unsafe { buf.assume_init() }) } else { ".".into() };
        println!("result\t{}\t{}\t{}\t{}", stringify!($name), bytes(&want), words(&[rax, rdx, xmm0.to_bits(), xmm1.to_bits()]), memory);
    }};
}

struct Wrapper(u64);
struct Meters(f64);
struct Three(u32, u32, u32);
#[derive(Clone, Copy)]
struct Small(u8, u8, u8);
enum Shape { Circle(f64), Square(f64), Nothing }

fn main() {
    case!(ints, (a: u8 = 1, b: i16 = -2, c: u32 = 3, d: u64 = 4, e: usize = 5, f: i8 = -6, g: u8 = 7, h: u64 = 8) -> u32 = 0xdeadbeef);
    case!(floats, (a: f32 = 1.0, b: f64 = 2.0, c: u8 = 3, d: f32 = 4.0) -> f64 = 2.5);
    case!(many_floats, (a: f64 = 1., b: f64 = 2., c: f64 = 3., d: f64 = 4., e: f64 = 5., f: f64 = 6., g: f64 = 7., h: f64 = 8., i: f64 = 9., j: u8 = 10, k: f32 = 11.) -> f32 = 1.5);
    case!(strs, (a: &'static str = "pear", b: &'static [u16] = &[1, 2], c: char = 'x', d: &'static str = "apple") -> &'static str = "result");
    case!(zst, (a: () = (), b: u8 = 1, c: [u8; 0] = [], d: u16 = 2) -> bool = true);
    case!(wide, (a: u128 = 1 << 100 | 5, b: u8 = 2, c: i128 = -3) -> u128 = 1 << 90 | 7);
    case!(pairs, (a: (u8, f64) = (1, 2.0), b: (f32, u32) = (3.0, 4), c: (u64, u64) = (5, 6)) -> (u8, f64) = (9, 8.5));
    case!(float_pair, (a: (f64, f64) = (1.0, 2.0)) -> (f32, f64) = (9.0, 8.5));
    case!(float_first, (a: f32 = 1.0) -> (f64, u64) = (9.0, 8));
    case!(indirect, (a: Three = Three(1, 2, 3), b: String = String::from("s"), c: u8 = 3) -> Three = Three(7, 8, 9));
    case!(indirect_result, (a: u8 = 1, b: u64 = 2) -> String = String::new());
    case!(small, (a: Small = Small(1, 2, 3), b: [u32; 2] = [4, 5], c: [u8; 8] = *b"12345678") -> Small = Small(4, 5, 6));
    case!(arrays, (a: [u32; 3] = [1, 2, 3], b: [f32; 1] = [4.0]) -> [u64; 2] = [6, 7]);
    case!(options, (a: Option<u32> = Some(1), b: Option<u8> = None, c: Option<char> = Some('c'), d: Option<&'static str> = Some("d")) -> Option<u64> = Some(77));
    case!(results, (a: Result<u32, i32> = Err(-1), b: Result<(), String> = Ok(())) -> Result<u64, Box<u32>> = Ok(5));
    case!(enums, (a: Shape = Shape::Circle(1.5), b: Shape = Shape::Square(2.5)) -> Shape = Shape::Square(3.5));
    case!(wrappers, (a: Wrapper = Wrapper(1), b: Meters = Meters(2.0), c: (Wrapper, u32) = (Wrapper(3), 4)) -> Meters = Meters(5.0));
    case!(spill, (a: u64 = 1, b: u64 = 2, c: u64 = 3, d: u64 = 4, e: u64 = 5, f: &'static str = "half", g: f32 = 7.0, h: Three = Three(8, 9, 10), i: (u8, u16) = (11, 12)) -> (u64, u64) = (13, 14));
    case!(hidden_spill, (a: u64 = 1, b: u64 = 2, c: u64 = 3, d: u64 = 4, e: u64 = 5, f: u64 = 6, g: u8 = 7) -> [u64; 3] = [13, 14, 15]);
    case!(none, () -> () = ());
}
