use std::collections::HashMap;
#[derive(Debug, Clone, PartialEq)]
pub struct Item { pub id: u32, pub name: String, pub price: f64 }
#[derive(Debug)]
pub enum Shape { Circle(f32), Square { side: u16 }, Big(u128), Empty }
pub trait Area { fn area(&self) -> f64; }
impl Area for Shape { fn area(&self) -> f64 { match self { Shape::Circle(r) => (*r as f64) * 3.0, Shape::Square { side } => *side as f64, Shape::Big(b) => *b as f64, Shape::Empty => -1.0 } } }
pub struct Cart { items: Vec<Item>, index: HashMap<u32, usize> }
impl Cart {
    #[inline(never)]
    pub fn add(&mut self, item: Item) -> Option<usize> { let n = self.items.len(); self.index.insert(item.id, n); self.items.push(item); if n > 2 { Some(n) } else { None } }
    #[inline(never)]
    pub fn find(&self, id: u32) -> Result<&Item, String> { self.index.get(&id).map(|&i| &self.items[i]).ok_or_else(|| format!("no {id}")) }
}
#[inline(never)]
pub fn sum(xs: &[i32], scale: i64, c: char) -> i64 { xs.iter().map(|&x| x as i64 * scale).sum::<i64>() + c as i64 }
#[inline(never)]
pub fn pair(a: &str, b: (u8, u64), f: f64) -> (usize, f64) { (a.len() + b.0 as usize + b.1 as usize, f * 2.0) }
#[inline(never)]
pub fn risky(n: i32) -> i32 { let v = vec![1, 2, 3]; if n > 2 { panic!("too many: {n} {v:?}"); } v[n as usize] }
#[inline(never)]
pub fn wide(a: i128, b: Box<dyn Area>, o: Option<u32>, z: ()) -> i128 { let _ = z; a + b.area() as i128 + o.unwrap_or(7) as i128 }
fn fact(n: u64) -> u64 { if n < 2 { 1 } else { n * fact(n - 1) } }
fn main() {
    let n = std::env::args().count() as u32;
    let mut c = Cart { items: vec![], index: HashMap::new() };
    for i in 0..n + 5 { println!("{:?}", c.add(Item { id: i, name: format!("item{i}"), price: i as f64 * 1.5 })); }
    println!("{:?} {:?}", c.find(3), c.find(99));
    println!("{} {:?}", sum(&[1, 2, n as i32], 10, 'x'), pair("hello", (1, n as u64), 0.5));
    println!("{:?}", std::panic::catch_unwind(|| (0..5).map(risky).sum::<i32>()));
    println!("{} {}", wide(-5, Box::new(Shape::Square { side: n as u16 }), Some(n), ()), fact(n as u64 + 10));
    println!("{:?}", [Shape::Circle(1.0), Shape::Big(1 << 70), Shape::Empty]);
}
