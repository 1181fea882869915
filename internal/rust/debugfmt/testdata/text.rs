// Prints {:?} of every char and of a string of it, and of many floats by their bits.
use std::io::{BufWriter, Write};

fn main() {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for c in (0..=0x10ffffu32).filter_map(char::from_u32) {
        writeln!(out, "c {:x} {:?} {:?}", c as u32, c, c.to_string()).unwrap();
    }
    let mut bits: Vec<u64> = vec![0, 1 << 63, 1, f64::MAX.to_bits(), f64::MIN_POSITIVE.to_bits()];
    for e in -30..30 {
        let p = 10f64.powi(e);
        bits.extend([p.to_bits() - 1, p.to_bits(), p.to_bits() + 1, (p * 1.5).to_bits(), (-p).to_bits()]);
        let p = 10f32.powi(e);
        bits.extend([p.to_bits() as u64 - 1, p.to_bits() as u64, p.to_bits() as u64 + 1]);
    }
    let mut x = 0x9e3779b97f4a7c15u64;
    for _ in 0..20_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bits.push(x);
        bits.push(x >> 32);
        // Many of these lie half-way between two decimals.
        for v in [x as f64, (x >> 5) as f64, (x >> 9) as f64, (x % 1_000_000_000_000_000) as f64 / 8.0, (x % 100_000_000_000_000_000) as f64 / 4.0, (x >> 40) as f64 / 64.0, (x >> 11) as f64 / 1024.0] {
            bits.push(v.to_bits());
        }
        bits.push(((x as i64 % 1_000_000_000) as f64 / 1000.0).to_bits());
    }
    for b in bits {
        writeln!(out, "f {:x} {:?} {:?}", b, f64::from_bits(b), f32::from_bits(b as u32)).unwrap();
    }
}
