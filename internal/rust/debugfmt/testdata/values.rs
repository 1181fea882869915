// Prints a line for each of many values: the address of the function that was
// compiled for its type, its own address, and what {:?} prints. Then it waits for
// its standard input to end, so that its memory can be read.
#![allow(dead_code)]
use std::borrow::Cow;
use std::cell::{LazyCell, OnceCell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fmt::{self, Debug};
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::net::*;
use std::num::*;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, RwLock};
use std::time::Duration;

#[inline(never)]
fn probe<T: Debug>(v: &'static T) {
    black_box(std::any::type_name::<T>()); // or functions of like types are merged
    let pretty = format!("{:#?}", v).replace('\n', "\x01");
    println!("{:#x}\t{:#x}\t{:?}\t{}", probe::<T> as fn(&'static T) as usize, v as *const T as usize, v, pretty);
}

// As probe, for what has no Debug.
#[inline(never)]
fn probe_as<T>(v: &T, text: String) {
    black_box(std::any::type_name::<T>());
    println!("{:#x}\t{:#x}\t{}", probe_as::<T> as fn(&T, String) as usize, v as *const T as usize, text);
}

macro_rules! values { ($($e:expr),* $(,)?) => { $( probe(black_box(Box::leak(Box::new($e)))); )* } }

#[derive(Debug)]
struct Item { id: u32, name: &'static str, ok: bool }
#[derive(Debug)]
struct Reordered { a: u8, b: u64, c: u16, r#type: u8, d: Option<Box<Reordered>> }
#[derive(Debug, PartialEq, Eq, Hash)]
struct HashSetOf(u8);
#[derive(Debug)]
struct Tup(u8, u64);
#[derive(Debug)]
struct UnitStruct;
#[derive(Debug)]
struct Braces {}
#[derive(Debug)]
struct Generic<T, const N: usize>([T; N]);
#[derive(Debug)]
enum Void {}
#[derive(Debug)]
enum One { Only(u32) }
#[derive(Debug)]
enum OneUnit { Only }
#[derive(Debug)]
enum Plain { A, B, C = 200 }
#[derive(Debug)]
#[repr(i8)]
enum Negative { A = -5, B = 7, C = -128 }
#[derive(Debug)]
#[repr(i64)]
enum NegativeWide { A = -5, B = i64::MIN, C = i64::MAX }
#[derive(Debug)]
#[repr(i16)]
enum NegativeData { A(u8) = -2, B { x: u32 } = 300, C = 0, D(u8) = 254 }
#[derive(Debug)]
#[repr(u8)]
enum HighData { A(u8) = 254, B = 1 }
#[derive(Debug)]
#[repr(u128)]
enum Wide { A(u8) = 1 << 100, B = 3, C(u8) = (1 << 100) + 1 }
#[derive(Debug)]
#[repr(i128)]
enum WideNegative { A(u8) = -(1 << 100), B = -1 }
#[derive(Debug)]
enum ManyNiches { A(bool), B, C, D }
#[derive(Debug)]
enum DataNiches { A(String, u8), B(u32), C { x: u64 }, D }
#[derive(Debug)]
enum CharNiche { A(char), B, C }
#[derive(Debug)]
enum PartlyVoid { A(u32), B(Void), C, D(Void, String) }
#[derive(Debug)]
enum List { Nil, Cons(i32, Box<List>) }
#[derive(Debug)]
struct Node { v: u8, left: Option<Box<Node>>, right: Option<Box<Node>> }
#[derive(Debug)]
enum Deep { A(Option<Result<Option<&'static str>, Box<Deep>>>), B(Vec<Deep>), C { x: [Option<u8>; 3], y: (Plain, Ordering) } }
#[derive(Debug)]
#[repr(C, packed)]
struct Packed { a: u8, b: u32 }
#[derive(Debug)]
#[repr(align(64))]
struct Aligned(u8);

union Either { a: u32, b: f32 }

struct Once(bool);
impl std::future::Future for Once {
    type Output = ();
    fn poll(mut self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        if std::mem::replace(&mut self.0, true) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    }
}
const WAIT: u32 = line!() + 3;
async fn wait(text: String, n: u32) -> usize {
    let kept = n + 1;
    Once(false).await;
    text.len() + kept as usize
}
const MOVED: u32 = line!() + 3;
async fn moved(text: String, owned: Box<u8>) -> usize {
    drop(owned);
    wait(text, 1).await
}
fn poll<F: std::future::Future>(f: &mut F) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let _ = unsafe { std::pin::Pin::new_unchecked(f) }.poll(&mut cx);
}

fn add(a: i32) -> i32 { a + 1 }

fn main() {
    // Scalars.
    values![true, false, 0u8, 255u8, -128i8, 1u16, i16::MIN, u32::MAX, i32::MIN, u64::MAX, i64::MIN, 7usize, -7isize];
    values![0u128, u128::MAX, i128::MIN, -1i128, 1i128 << 64, 12345678901234567890123456789u128];
    values!['a', '\'', '"', '\\', '\n', '\0', '\x7f', 'é', '\u{301}', '\u{200b}', '\u{10ffff}', '🦀'];
    values![0.0f64, -0.0f64, 1.0f64, 0.1f64, 1e15f64, 1e16f64, 123456789012345680.0f64, 1e-4f64, 1e-5f64, 9.999e-5f64, 1.5e300f64,
        5e-324f64, f64::MAX, f64::MIN_POSITIVE, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0f64 / 3.0, 9007199254740993.0f64];
    values![0.0f32, 1.0f32, 0.1f32, 16777216.0f32, 1e16f32, 9.9999998e15f32, 1e-4f32, 0.00009f32, 1e-45f32, f32::MAX, f32::NAN, 1.0f32 / 3.0];
    // Strings.
    values!["", "pear", "tab\t quote\" 'single' back\\ nul\0 bell\x07 é 🦀 \u{301} \u{feff}", String::new(), String::from("apple\u{1b}[31m"),
        String::with_capacity(10), "x".to_string().into_boxed_str(), &"y", &&"z", &mut *Box::leak(String::from("m").into_boxed_str())];
    values![Path::new("/tmp/it's"), PathBuf::from("a\"b"), OsString::from("os"), OsStr::new("str"), Some(PathBuf::new()),
        unsafe { OsString::from_encoded_bytes_unchecked(vec![b'a', 0xff, 0xc3, b'z']) }];
    // Structs and tuples.
    values![(), (1,), (1u8, 'c', 2.0f32, "s"), ((), ((), 5)), UnitStruct, Braces {}, Tup(1, 2), Item { id: 7, name: "pear", ok: true },
        Generic([1u8, 2]), Generic::<&str, 0>([]), Generic([Generic([1u64; 1]); 1]), Aligned(3), Packed { a: 1, b: 2 },
        Reordered { a: 1, b: 2, c: 3, r#type: 4, d: Some(Box::new(Reordered { a: 5, b: 6, c: 7, r#type: 8, d: None })) }];
    // Enums.
    values![One::Only(3), OneUnit::Only, Plain::A, Plain::B, Plain::C, Negative::A, Negative::B, Negative::C,
        NegativeWide::A, NegativeWide::B, NegativeWide::C, NegativeData::A(1), NegativeData::B { x: 2 }, NegativeData::C, NegativeData::D(9),
        HighData::A(3), HighData::B, Wide::A(1), Wide::B, Wide::C(2), WideNegative::A(1), WideNegative::B,
        ManyNiches::A(true), ManyNiches::A(false), ManyNiches::B, ManyNiches::C, ManyNiches::D,
        DataNiches::A("s".into(), 1), DataNiches::B(2), DataNiches::C { x: 3 }, DataNiches::D,
        CharNiche::A('x'), CharNiche::B, CharNiche::C, PartlyVoid::A(1), PartlyVoid::C, Ordering::Less, Some(Ordering::Greater), None::<Ordering>];
    values![Some(1u8), None::<u8>, Some(Some(Some(true))), Some(Some(None::<bool>)), Some(None::<Option<bool>>), None::<Option<Option<bool>>>,
        Some('c'), None::<char>, Some(Some('c')), Some(None::<char>), Some(()), None::<()>, Some(&5), None::<&u8>, Some(Box::new(6)), None::<Box<u8>>,
        Some(NonZeroU32::new(9).unwrap()), None::<NonZeroU32>, NonZeroI128::new(-3).unwrap(), Some(NonZeroU128::MAX), None::<NonZeroU128>, Some(Some(NonZeroI8::MIN)), Some(None::<NonZeroI8>), Some(None::<u128>), Some(u128::MAX), None::<u128>, Some(String::from("s")), None::<String>,
        Some("str"), None::<&str>, Some(vec![1]), None::<Vec<u8>>, Some(Some(String::new())), Some(None::<String>), Some(3.5f32), None::<Void>,
        Some(add as fn(i32) -> i32).is_some()];
    values![Ok::<(), String>(()), Err::<(), _>(String::from("bad")), Ok::<u8, Void>(3), Err::<Void, u32>(4), Ok::<Option<u8>, ()>(None), Err::<u64, Box<u32>>(Box::new(8)),
        Ok::<Result<u8, u16>, u32>(Err(5)), Err::<(), std::fmt::Error>(std::fmt::Error)];
    // Collections.
    values![[0u8; 0], [1u8, 2, 3], [[1u8, 2], [3, 4], [5, 6]], [Some("a"), None], [(); 3], [String::from("a"), String::new()],
        Vec::<u8>::new(), vec![1u16, 2], vec![(), ()], vec![String::from("a"), String::from("b")], vec![vec![String::from("x")], vec![]], vec![Some(Box::new(1u8)), None],
        &[1u8, 2][..], &[] as &[u64], &["a", "b"][..], &[(), ()][..], &[[1u8; 2]; 2][..], Box::new([1u32, 2]) as Box<[u32]>, Vec::<String>::new().into_boxed_slice(), Box::new([1u8; 4]),
        &mut *Box::leak(vec![1i64, -1].into_boxed_slice()), &*Box::leak(Box::new(vec![1u8])), &&[1u8, 2], Box::new(Box::new(Box::new(5u8))), &(), Box::new(()), &UnitStruct];
    // Recursive and deep.
    values![List::Nil, List::Cons(1, Box::new(List::Cons(2, Box::new(List::Nil)))),
        Node { v: 1, left: Some(Box::new(Node { v: 2, left: None, right: None })), right: Some(Box::new(Node { v: 3, left: None, right: Some(Box::new(Node { v: 4, left: None, right: None })) })) },
        Deep::A(Some(Ok(Some("s")))), Deep::A(None), Deep::A(Some(Ok(None))), Deep::A(Some(Err(Box::new(Deep::B(vec![Deep::A(None), Deep::C { x: [Some(1), None, Some(3)], y: (Plain::C, Ordering::Less) }]))))), Deep::B(vec![])];
    // Pointers.
    values![&1u8 as *const u8, &mut *Box::leak(Box::new(2u8)) as *mut u8, std::ptr::null::<u8>(), &[1u8, 2][..] as *const [u8], "str" as *const str, &3u8 as *const dyn Debug,
        add as fn(i32) -> i32, main as fn(), (&1u8 as *const u8, add as fn(i32) -> i32)];
    // Types of std that write their Debug by hand.
    values![Wrapping(3u8), Saturating(4i8), Cow::Borrowed("b"), Cow::<str>::Owned("o".into()), Cow::Borrowed(&[1u8][..]), std::pin::Pin::new(Box::leak(Box::new(5u8))),
        std::marker::PhantomData::<u8>, std::marker::PhantomData::<&'static str>, std::marker::PhantomData::<Vec<Box<u8>>>, std::ptr::NonNull::<u8>::dangling(), std::ptr::NonNull::from(&[1u8, 2][..]), std::cell::Cell::new(3u8), std::cell::UnsafeCell::new(1),
        std::sync::atomic::AtomicU32::new(7), std::sync::atomic::AtomicBool::new(true), std::sync::atomic::AtomicI64::new(-7), std::mem::ManuallyDrop::new(String::from("kept")), std::cmp::Reverse(1)];
    values![0u8..5, 1usize.., ..3i32, ..=4u8, 1i64..=9, .., Some("a".."b")];
    values![Duration::ZERO, Duration::from_nanos(1), Duration::from_nanos(1500), Duration::from_micros(999_999), Duration::from_millis(1), Duration::from_nanos(1_000_001), Duration::from_secs(3),
        Duration::new(3, 1), Duration::new(u64::MAX, 999_999_999), Some(Duration::from_millis(2500)), None::<Duration>];
    // Cells and locks.
    let (lent, seen) = (Box::leak(Box::new(RefCell::new(String::from("lent")))), Box::leak(Box::new(RefCell::new(vec![1u8]))));
    let (_lent, _seen) = (lent.borrow_mut(), seen.borrow());
    values![&*lent, &*seen, RefCell::new(Some("s")), OnceCell::<String>::new(), OnceCell::from(String::from("once")), OnceCell::from(()), OnceCell::<()>::new(),
        OnceLock::<String>::new(), OnceLock::from(String::from("once")), OnceLock::from(()), OnceLock::<u8>::new(), OnceLock::from(vec![OnceLock::from(1u8), OnceLock::new()])];
    let (lazy, other) = (LazyLock::new(|| String::from("lazy")), LazyCell::new(|| vec![1u16]));
    let (forced, forced_cell) = (LazyLock::new(|| String::from("forced")), LazyCell::new(|| vec![2u16]));
    black_box((forced.len(), forced_cell.len()));
    probe_as(&lazy, format!("{lazy:?}"));
    probe_as(&other, format!("{other:?}"));
    probe_as(&forced, format!("{forced:?}"));
    probe_as(&forced_cell, format!("{forced_cell:?}"));
    let (held, free, poisoned) = (Box::leak(Box::new(Mutex::new(String::from("held")))), Mutex::new(vec![1u8]), Box::leak(Box::new(Mutex::new(Some(5u32)))));
    let shown: &'static Mutex<_> = poisoned;
    std::panic::set_hook(Box::new(|_| {}));
    let _ = std::thread::spawn(|| { let _guard = shown.lock().unwrap(); panic!() }).join();
    let _held = held.lock().unwrap();
    values![&*held, free, shown, Mutex::new(()), Mutex::new(Box::new(Mutex::new("in")))];
    let (write, read) = (Box::leak(Box::new(RwLock::new(String::from("w")))), Box::leak(Box::new(RwLock::new(String::from("r")))));
    let (_write, _read) = (write.write().unwrap(), read.read().unwrap());
    values![&*write, &*read, RwLock::new(7u128), RwLock::new([Some('a'), None])];
    values![MaybeUninit::new(1u8), MaybeUninit::<String>::uninit(), MaybeUninit::new(Some("s")), [MaybeUninit::<u8>::new(1), MaybeUninit::new(2)], std::mem::ManuallyDrop::new(vec![1u8])];
    values![std::task::Poll::Ready(1u8), std::task::Poll::<u8>::Pending, std::ops::ControlFlow::<u8, String>::Break(1), std::ops::ControlFlow::<u8, String>::Continue("s".into()),
        std::ops::Bound::Included(1u8), std::ops::Bound::<u8>::Unbounded, std::ops::Bound::Excluded("x")];
    let mut exhausted = 1u8..=3;
    exhausted.by_ref().for_each(drop);
    values![exhausted, "x".parse::<u8>(), "".parse::<u8>(), "999".parse::<u8>(), "x".parse::<f32>(), "x".parse::<bool>(), "xx".parse::<char>(), std::str::from_utf8(&[0xff]), String::from_utf8(vec![b'a', 0xff]),
        std::thread::current().id(), std::alloc::Layout::new::<u64>(), std::alloc::Layout::from_size_align(24, 16).unwrap(), std::any::TypeId::of::<u8>(), std::any::TypeId::of::<String>(),
        std::time::Instant::now(), std::time::SystemTime::now(), std::time::SystemTime::UNIX_EPOCH, std::time::SystemTime::UNIX_EPOCH - Duration::from_millis(1), fmt::Error, std::cell::Cell::new(Some(1u8))];
    let ip = |s: &str| s.parse::<IpAddr>().unwrap();
    values![ip("127.0.0.1"), ip("::"), ip("::1"), ip("1::"), ip("1:0:0:2::3"), ip("1:0:2:0:3:0:4:0"), ip("::ffff:1.2.3.4"), ip("::1.2.3.4"), ip("fe80::1"), ip("0:0:1::"), ip("64:ff9b::1"), Ipv4Addr::BROADCAST, Ipv6Addr::LOCALHOST,
        Some(ip("10.0.0.1")), None::<IpAddr>, "1.2.3.4:80".parse::<SocketAddr>(), "[::1]:65535".parse::<SocketAddr>(), "[fe80::1%5]:8".parse::<SocketAddr>(), "[::ffff:1.2.3.4]:0".parse::<SocketAddrV6>(),
        "x".parse::<IpAddr>(), None::<SocketAddr>];
    // Guards, which print what they guard.
    let (cell, lock, rw) = (Box::leak(Box::new(RefCell::new(vec![1u8]))), Box::leak(Box::new(Mutex::new(String::from("m")))), Box::leak(Box::new(RwLock::new(Some(3u64)))));
    let (cell, lock, rw): (&'static RefCell<_>, &'static Mutex<_>, &'static RwLock<_>) = (cell, lock, rw);
    values![cell.borrow()];
    values![lock.lock().unwrap(), rw.read().unwrap()];
    let (mutable, writable) = (Box::leak(Box::new(RefCell::new("m"))), Box::leak(Box::new(RwLock::new(vec![1u16]))));
    values![mutable.borrow_mut(), writable.write().unwrap()];
    let (sender, receiver) = std::sync::mpsc::channel::<u8>();
    values![sender, receiver, std::sync::mpsc::sync_channel::<u8>(1).0, std::sync::Once::new(), std::sync::Condvar::new(), std::sync::Barrier::new(2), std::thread::spawn(|| 1)];
    values![std::task::Waker::noop()];
    let context = std::task::Context::from_waker(std::task::Waker::noop());
    probe_as(&context, format!("{context:?}"));
    let simple = |k: std::io::ErrorKind| std::io::Error::from(k);
    values![simple(std::io::ErrorKind::NotFound), simple(std::io::ErrorKind::Other), simple(std::io::ErrorKind::UnexpectedEof), std::fs::read("/tmp\0"), None::<std::io::Error>, Err::<(), _>(simple(std::io::ErrorKind::TimedOut))];
    values![(std::io::Error::from_raw_os_error(2), std::io::Error::other("x"), std::io::Error::other(std::io::Error::from_raw_os_error(-1)))];
    for code in [0, 1, 41, 95, 115, 122, 132, 133, 134, i32::MAX, i32::MIN] {
        values![std::io::Error::from_raw_os_error(code)];
    }
    // Shared.
    let rc: &Rc<u8> = Box::leak(Box::new(Rc::new(5u8)));
    values![Rc::new(1u8), Rc::clone(rc), Rc::downgrade(rc), std::rc::Weak::<u8>::new(), Rc::<str>::from("shared"), Rc::<str>::from(""), Rc::<[u16]>::from([1, 2]), Rc::<[u16]>::from([]), Rc::<[u128]>::from([1, 2]), Rc::new(()), Rc::<[()]>::from([(), ()]),
        Arc::new(String::from("arc")), Arc::<str>::from("arc"), Arc::<[String]>::from([String::from("a")]), Arc::downgrade(&Arc::new(1)), Arc::new(Aligned(4)), Rc::new([Aligned(1), Aligned(2)]), Rc::<[Aligned]>::from([Aligned(1)]), Some(Arc::new(1u8)), None::<Arc<u8>>,
        Arc::<Path>::from(Path::new("/p")), Rc::<OsStr>::from(OsStr::new("o")), Rc::new(RefCell::new(Rc::new(1u8))), Arc::new(Mutex::new(HashMap::from([(String::from("k"), vec![1u8])]))),
        Cow::Borrowed(Path::new("p")), Cow::<[u8]>::Owned(vec![1]), rc, Box::<Path>::from(Path::new("b")), Box::<OsStr>::from(OsStr::new("b"))];
    values![CString::new("it's \"q\" \t\n\\ \x01 \u{7f} é 🦀 \u{301}").unwrap(), CString::default(), c"bo\xffr\xc3", c"", Box::<CStr>::from(c"boxed"), Some(CString::default()), None::<CString>, CString::new(vec![b'a', 0xc3, b'z']).unwrap()];
    // Collections that are no arrays.
    let mut ring = VecDeque::with_capacity(4);
    ring.extend([1u16, 2, 3, 4]);
    ring.pop_front();
    ring.pop_front();
    ring.push_back(5);
    let mut strings = VecDeque::from([String::from("b"), String::from("c")]);
    strings.push_front(String::from("a"));
    values![ring, strings, VecDeque::<u8>::new(), VecDeque::<u8>::with_capacity(9), VecDeque::from([(), ()]), VecDeque::from([1u8]), (0..64u8).collect::<VecDeque<_>>()];
    values![LinkedList::<u8>::new(), LinkedList::from([1u8]), LinkedList::from([String::from("a"), String::from("b"), String::from("c")]), LinkedList::from([(), ()]), (0..64u32).collect::<LinkedList<_>>(), LinkedList::from([LinkedList::from([1u8]), LinkedList::new()])];
    values![BinaryHeap::from([3, 1, 2]), BinaryHeap::<String>::new(), BinaryHeap::from([std::cmp::Reverse("a"), std::cmp::Reverse("b")])];
    let mut thinned: HashMap<u32, u8> = (0..60).map(|i| (i, i as u8)).collect();
    thinned.retain(|k, _| k % 7 == 0);
    values![HashMap::<u8, u8>::new(), HashMap::from([(1u8, 2u8)]), HashMap::from([(String::from("a"), Some(1u8)), (String::from("b"), None), (String::from("c"), Some(3))]), thinned, (0..64u64).map(|i| (i, i * 2)).collect::<HashMap<_, _>>(),
        HashMap::from([((), ())]), HashMap::<(), ()>::new(), HashMap::from([(1u8, ())]), HashMap::from([(HashSetOf(1), HashMap::from([("in", 1u128)]))]), HashMap::from([(1u8, [7u64; 20])]),
        HashSet::<u8>::new(), HashSet::from(["a", "b", "c"]), (0..50u16).collect::<HashSet<_>>(), HashSet::from([()]), HashSet::<()>::new(), HashSet::from([vec![1u8], vec![]])];
    values![BTreeMap::<u8, u8>::new(), BTreeMap::from([(1u8, "a"), (2, "b")]), (0..60u32).map(|i| (i, i.to_string())).collect::<BTreeMap<_, _>>(), (0..64u8).rev().map(|i| (i, ())).collect::<BTreeMap<_, _>>(), BTreeMap::from([("k", BTreeMap::from([(1u8, vec![2u8])]))]), BTreeMap::from([((), ())]), BTreeMap::from([((), 1u8)]),
        BTreeSet::<u8>::new(), BTreeSet::from([3u64, 1, 2]), (0..40).map(|i| format!("{i}")).collect::<BTreeSet<_>>(), BTreeSet::from([()]), (0..64u16).collect::<BTreeSet<_>>(), BTreeSet::from([[1u128; 3]])];
    let mut emptied: BTreeMap<u8, u8> = BTreeMap::from([(1, 1)]);
    emptied.clear();
    let mut popped: BTreeMap<u8, u8> = (0..30).map(|i| (i, i)).collect();
    while popped.pop_last().is_some() {}
    let mut drained = HashMap::from([(1u8, 1u8)]);
    drained.clear();
    values![emptied, popped, drained];
    // What has no Debug.
    let (k, name) = (black_box(5u32), String::from("z"));
    let (owned, shared) = (String::from("o"), black_box(7u64));
    let closure1 = move |x: u32| { black_box(&owned); x + k };
    probe_as(&closure1, format!("{{closure {}:{}}} {{ owned: \"o\", k: 5 }}", file!(), line!() - 1));
    let closure2 = || shared as usize + name.len();
    probe_as(&closure2, format!("{{closure {}:{}}} {{ shared: 7, name: \"z\" }}", file!(), line!() - 1));
    let closure3 = |x: u32| black_box(x) + 3;
    probe_as(&closure3, format!("{{closure {}:{}}}", file!(), line!() - 1));
    black_box(closure1(1) as usize + closure2() + closure3(2) as usize); // code, or there is no line
    let never_called = || 3 + k;
    probe_as(&never_called, "{closure values::main} { k: 5 }".into());
    let items = ((add, 3u8), (3u64, add, "s"), (1u8, Either { a: 3 }), (1u8, Box::new(3) as Box<dyn Debug>));
    probe_as(&items.0, "(<unreadable>, 3)".into());
    probe_as(&items.1, "(3, <unreadable>, \"s\")".into());
    probe_as(&items.2, "(1, <unreadable>)".into());
    values![items.3];
    let mut futures = [(); 3].map(|()| wait(String::from("q"), black_box(4)));
    poll(&mut futures[1]);
    poll(&mut futures[2]);
    poll(&mut futures[2]);
    probe_as(&futures[0], "{async fn values::wait} { unresumed, text: \"q\", n: 4 }".into());
    // Nothing tells a String that is alive from one that has been borrowed and then moved.
    // That a variable has a value there is told by code, which is not looked at here.
    let waiting = || format!("{{async fn values::wait}} {{ suspended at {}:{}, text: <unreadable>, kept: <unreadable>, awaiting: Once(true) }}", file!(), WAIT);
    probe_as(&futures[1], waiting());
    probe_as(&futures[2], "{async fn values::wait} { returned }".into());
    let mut future = moved(String::from("q"), Box::new(1));
    poll(&mut future);
    probe_as(&future, format!("{{async fn values::moved}} {{ suspended at {}:{}, awaiting: {} }}", file!(), MOVED, waiting()));
    let begin = line!() + 1;
    let calls = async move |n: u32| {
        let kept = black_box(n) + 1;
        Once(false).await;
        kept + k
    };
    let (fresh, mut future) = (calls(3), calls(3));
    probe_as(&fresh, format!("{{async closure {}:{}}} {{ unresumed, n: 3, k: 5 }}", file!(), begin));
    poll(&mut future);
    let at = begin + 2;
    probe_as(&future, format!("{{async closure {}:{}}} {{ suspended at {}:{}, kept: <unreadable>, n: <unreadable>, k: <unreadable>, awaiting: Once(true) }}", file!(), begin, file!(), at));
    println!("end");
    let _ = std::io::read_to_string(std::io::stdin());
}
