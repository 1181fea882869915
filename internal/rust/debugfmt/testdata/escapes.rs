// Prints, as ranges "FIRST LAST" in hexadecimal, the chars from U+80 on that {:?}
// escapes as \u{…}: those that are not printable or extend a grapheme. A char
// and a string are asked, and have to agree, wherever in the string it stands.
fn main() {
    let mut run: Option<(u32, u32)> = None;
    for c in (0x80..=0x10ffffu32).filter_map(char::from_u32) {
        let escaped = format!("{c:?}").len() > c.len_utf8() + 2;
        for (s, plain) in [(format!("{c}"), 2), (format!("a{c}"), 3), (format!("\u{0}{c}"), 4)] {
            assert_eq!(escaped, format!("{s:?}").len() > c.len_utf8() + plain, "{c:?}");
        }
        if !escaped {
            continue;
        }
        let n = c as u32;
        match &mut run {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => {
                if let Some((a, b)) = run {
                    println!("{a:x} {b:x}");
                }
                run = Some((n, n));
            }
        }
    }
    let (a, b) = run.unwrap();
    println!("{a:x} {b:x}");
}
