use std::env;

pub fn hello(i: i32, len: usize) -> i32 {
    println!("Hello, world! {} in {}", i, len);
    i + len as i32
}

fn main() {
    let args: Vec<String> = env::args().collect();
    for arg in args.iter().skip(1) {
        match arg.parse::<i32>() {
            Ok(i) => {
                let result = hello(i, args.len());
                println!("Result: {}", result);
            }
            Err(_) => eprintln!("Error parsing argument: {:?}", arg),
        }
    }
}
