//! Overflows its stack when told to: by a line of its input, or, with the argument FILE,
//! which gets its output, when FILE.go is there.

use std::io::Write;

extern "C" {
    fn open(path: *const u8, flags: i32, mode: u32) -> i32;
    fn dup2(old: i32, new: i32) -> i32;
}

#[inline(never)]
fn overflow(n: u64) -> u64 {
    let mut a = [n; 64];
    a[(n % 64) as usize] = overflow(std::hint::black_box(n + 1));
    std::hint::black_box(&a).iter().sum()
}

fn main() {
    if let Some(file) = std::env::args().nth(1) {
        let path = format!("{file}\0");
        unsafe {
            let fd = open(path.as_ptr(), 0o1101, 0o600); // O_WRONLY | O_CREAT | O_TRUNC
            assert!(fd >= 0 && dup2(fd, 1) == 1 && dup2(fd, 2) == 2);
        }
        while std::fs::metadata(format!("{file}.go")).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        overflow(0);
    }
    println!("ready {}", std::process::id());
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        match line.trim() {
            "overflow" => drop(overflow(0)),
            "thread" => drop(std::thread::Builder::new().name("worker".into()).spawn(|| overflow(0)).unwrap().join()),
            "null" => unsafe { std::ptr::write_volatile(std::hint::black_box(8) as *mut u8, 1) },
            _ => println!("what?"),
        }
        std::io::stdout().flush().unwrap();
        line.clear();
    }
}
