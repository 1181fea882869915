package abi

import (
	"debug/elf"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ferrotrace/internal/dwarf"
	"ferrotrace/internal/rust/types"
)

// The compiler itself says how it passes values: in the LLVM IR that it emits. A
// program is made with a function for each of many types, some chosen and some at
// random, that takes and returns it.

// declarations are of types that someTypes and someReprC name.
const declarations = `#![allow(dead_code)]
use std::num::*; use std::cmp::Ordering; use std::mem::*; use std::marker::*;
pub enum Void {}
pub enum Plain { A, B } pub enum Single { A } #[repr(u8)] pub enum SingleByte { A } #[repr(u64)] pub enum PlainWide { A, B }
pub struct U(u64); pub struct F(f64); pub struct Unit; pub struct Named { a: u8, b: u64 } pub struct Three(u32, u32, u32); pub struct Four(u32, u32, u32, u32);
pub struct Six(u16, u16, u16); pub struct Floats(f32, f32, f32); #[repr(packed)] pub struct Packed(u32, u32); #[repr(align(16))] pub struct Aligned(u64);
#[repr(align(8))] pub struct AlignedPair(u32, u32);
pub union Same { a: u32, b: u32 } pub union Signs { a: u32, b: i32 } pub union Mixed { a: f32, b: u32 } pub union One { a: u64 } pub union Arr { a: u32, b: [u8; 4] }
pub union PairUnion { a: (u64, u64) }
#[repr(i8)] pub enum Neg { A = -1, B(u8) = 5 } #[repr(u128)] pub enum Wide { A = 1, B = 2 } #[repr(u128)] pub enum WideData { A(u8) = 1, B = 2 }
pub enum Partly { A(u32), B(Void), C } pub enum Niches { A(String, u8), B(u32), C } pub enum Bools { A(bool), B, C } pub enum Prims { A(f64), B(u64) }
pub enum Ints { A(i32), B(u32), C(char) } pub enum Ptrs { A(&'static u8), B(usize) } pub enum Offsets { A(u8), B(u16) } pub enum TwoFields { A(u8, u8), B }
pub struct Gen<T>(T); pub struct Gen2<T, V> { x: T, y: V } pub enum Either<T, V> { L(T), R(V) } pub enum Maybe<T> { Yes(T), No, Never } pub enum Solo<T> { It(T) }
#[repr(C)] pub struct CU(u64); #[repr(C)] pub struct CU32(u32); #[repr(C)] pub struct CF(f64); #[repr(C)] pub struct CPair(u64, u64); #[repr(C)] pub struct CMix { a: u8, b: f64 }
#[repr(C)] pub union CUnion { a: u32 } #[repr(transparent)] pub struct T(f32);
`

// before166 spells declarations for compilers that know no discriminants of variants with
// data, or of 128 bits.
var before166 = strings.NewReplacer("Neg { A = -1, B(u8) = 5 }", "Neg { A, B(u8) }", "#[repr(u128)] pub enum Wide {", "pub enum Wide {",
	"#[repr(u128)] pub enum WideData { A(u8) = 1, B = 2 }", "#[repr(u64)] pub enum WideData { A(u8), B }")

var someTypes = []string{
	"()", "bool", "char", "u8", "i16", "u32", "i64", "usize", "u128", "i128", "f32", "f64", "&'static u8", "&'static str", "&'static [u16]",
	"&'static dyn Send", "Box<u8>", "Box<dyn Send>", "String", "Vec<u8>", "fn()", "*const u8", "*mut [u8]", "Plain", "Single", "SingleByte", "PlainWide",
	"Unit", "U", "F", "T", "Named", "Three", "Four", "Six", "Floats", "Packed", "Aligned", "AlignedPair", "Same", "Signs", "Mixed", "One", "Arr", "PairUnion",
	"Neg", "Wide", "WideData", "Partly", "Niches", "Bools", "Prims", "Ints", "Ptrs", "Offsets", "TwoFields", "Ordering",
	"[u64; 1]", "[u8; 0]", "[u32; 3]", "[f32; 2]", "[u8; 16]", "[f64; 1]", "(u8, f64)", "(f32, f32)", "(f32, u32)", "(u32, u32)", "(u8, u8, u8)", "(u64, ())",
	"(u128, u64)", "((u64, u64),)", "((u32, u32), u64)", "(u64, f32, ())",
	"Option<u8>", "Option<u64>", "Option<u128>", "Option<f64>", "Option<f32>", "Option<bool>", "Option<char>", "Option<Option<char>>", "Option<&'static u8>",
	"Option<&'static str>", "Option<String>", "Option<NonZeroU32>", "Option<(u8, u32)>", "Option<[u64; 1]>", "Option<()>", "Option<Ordering>", "Option<Void>", "Option<U>", "Option<F>",
	"Result<u8, u64>", "Result<(), std::io::Error>", "Result<usize, std::io::Error>", "Result<u64, Box<u32>>", "Result<f64, u64>", "Result<f64, f64>", "Result<i8, u8>",
	"Result<u8, std::io::Error>", "Result<u32, [u8; 7]>", "Result<u8, Void>", "Result<Void, u64>", "Result<(), String>", "Result<(), ()>", "std::time::Duration", "Option<std::time::Duration>",
	"MaybeUninit<u64>", "MaybeUninit<(u64, u64)>", "ManuallyDrop<f32>", "PhantomData<u8>", "NonZeroU16", "std::cell::Cell<u32>", "std::rc::Rc<u8>", "std::rc::Rc<str>",
	"std::ops::Range<u64>", "std::net::Ipv4Addr", "std::net::IpAddr", "std::alloc::Layout", "std::num::Wrapping<f32>",
}

// someReprC are types that debug info can't tell from others.
var someReprC = []string{"CU", "CU32", "CF", "CPair", "CMix", "CUnion", "(CU, u64)", "(CU32, u32)", "Option<CU>", "Gen<CF>", "Gen2<CU, u64>", "Option<CF>", "[CU; 1]", "Option<CPair>"}

// randomType writes some type.
func randomType(r *rand.Rand, depth int) string {
	sub := func() string { return randomType(r, depth-1) }
	if depth == 0 || r.IntN(4) == 0 {
		return someTypes[r.IntN(len(someTypes))]
	}
	switch r.IntN(10) {
	case 0:
		return "Option<" + sub() + ">"
	case 1:
		return "Result<" + sub() + ", " + sub() + ">"
	case 2:
		return "(" + sub() + ",)"
	case 3, 4:
		return "(" + sub() + ", " + sub() + ")"
	case 5:
		return "Gen<" + sub() + ">"
	case 6:
		return "Gen2<" + sub() + ", " + sub() + ">"
	case 7:
		return "Either<" + sub() + ", " + sub() + ">"
	case 8:
		return "Maybe<" + sub() + ">"
	}
	return "Solo<" + sub() + ">"
}

func TestAgainstCompiler(t *testing.T) {
	if testing.Short() {
		t.Skip("short: compiles programs")
	}
	rustc, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("no rustc")
	}
	all := append(append([]string{}, someTypes...), someReprC...)
	r := rand.New(rand.NewPCG(1, 2))
	for range 400 {
		all = append(all, randomType(r, 3))
	}
	var src strings.Builder
	src.WriteString(declarations)
	for i, ty := range all {
		fmt.Fprintf(&src, "#[no_mangle] pub fn probe_%d(x: %s) -> %[2]s { x }\n", i, ty)
	}
	for _, c := range []struct {
		name      string
		compiler  string
		toolchain string
		rules     Rules
	}{{"rustc", rustc, "", Current}, {"nightly", rustc, "+nightly", Current}, {"1.63", "/usr/bin/rustc", "", Rust163}} {
		t.Run(c.name, func(t *testing.T) {
			if out, err := exec.Command(c.compiler, "--version").Output(); err != nil || c.rules == Rust163 && !strings.HasPrefix(string(out), "rustc 1.63.") {
				t.Skip("skipped: " + c.compiler + " is not the rustc of Debian 12")
			}
			rustc, toolchain := c.compiler, c.toolchain
			dir := t.TempDir()
			file := filepath.Join(dir, "lib.rs")
			text := src.String()
			if c.rules == Rust163 {
				text = before166.Replace(text)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			args := []string{"--edition=2021", "--crate-type=cdylib", "--emit=llvm-ir,link", "-g", "--out-dir", dir, file}
			if toolchain != "" {
				if exec.Command(rustc, toolchain, "--version").Run() != nil {
					t.Skip("no toolchain " + toolchain)
				}
				args = append([]string{toolchain}, args...)
			}
			if out, err := exec.Command(rustc, args...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			ir, err := os.ReadFile(filepath.Join(dir, "lib.ll"))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, c.rules, all, string(ir), read(t, filepath.Join(dir, "liblib.so")))
		})
	}
}

var (
	define = regexp.MustCompile(`(?m)^define .*?(\{ [^}]*\}|void|ptr|i\d+|float|double|half|fp128|<[^>]*>|\[[^\]]*\]) @(probe_\d+)\((.*)\) unnamed_addr`)
	attr   = regexp.MustCompile(`\([^()]*\)`)
	// Before LLVM 15 pointers had types.
	named   = regexp.MustCompile(`%"[^"]*"`)
	nested  = regexp.MustCompile(`([{\[][^{}\[\]]*)(?:\{[^{}\[\]]*\}|\[[^{}\[\]]*\])`)
	pointer = regexp.MustCompile(`(%[\w.:]+|i\d+|float|double|void \(\)|ptr|\{[^{}]*\}|\[[^\[\]]*\])\*`)
)

func compare(t *testing.T, rules Rules, names []string, ir string, sigs map[string]*types.Type) {
	checked, doubtful := 0, 0
	if rules == Rust163 {
		ir = named.ReplaceAllString(ir, "%T")
		for pointer.MatchString(ir) || nested.MatchString(ir) {
			if !pointer.MatchString(ir) {
				ir = nested.ReplaceAllString(ir, "${1}i1")
			}
			ir = pointer.ReplaceAllString(ir, "ptr")
		}
	}
	for _, m := range define.FindAllStringSubmatch(ir, -1) {
		var i int
		fmt.Sscanf(m[2], "probe_%d", &i)
		ty := sigs[m[2]]
		if ty == nil {
			continue // it returns nothing: a ZST has its type, () has none
		}
		checked++
		ret := shape(m[1])
		var params []string
		for _, p := range strings.Split(attr.ReplaceAllString(m[3], ""), ", ") {
			if strings.Contains(p, "sret") {
				ret = "indirect"
				continue
			}
			if p != "" {
				params = append(params, shape(strings.Fields(p)[0]))
			}
		}
		all := rules.Predict([]*types.Type{ty}, ty)
		res, par, class := all[0].Result, all[0].Params[0], rules.classify(ty, false)
		if res.Kind == Unclear && strings.Contains(res.Why, "SIMD") {
			continue
		}
		gotRet, gotPar := describe(rules.result(class), class, true), describe(par, class, false)
		if gotRet == ret && gotPar == strings.Join(params, " ") {
			continue
		}
		c := rules.classify(ty, true)
		if len(all) > 1 && describe(rules.result(c), c, true) == ret {
			doubtful++
			continue
		}
		t.Errorf("%s (%s): result %s, parameter %s; the compiler has %s, %s", names[i], ty.Name, gotRet, gotPar, ret, strings.Join(params, " "))
	}
	if checked < len(names)*9/10 {
		t.Errorf("%d of %d types checked", checked, len(names))
	}
	t.Logf("%d types, %d of them repr(C) and doubted", checked, doubtful)
}

// shape is an LLVM type as the sizes of its scalars: "8", "f4", "8+4".
func shape(ir string) string {
	switch {
	case ir == "void":
		return ""
	case ir == "ptr":
		return "8"
	case ir == "float":
		return "f4"
	case ir == "double":
		return "f8"
	case strings.HasPrefix(ir, "{"):
		var parts []string
		for _, p := range strings.Split(strings.Trim(ir, "{} "), ", ") {
			parts = append(parts, shape(p))
		}
		return strings.Join(parts, "+")
	}
	var bits int
	if n, _ := fmt.Sscanf(ir, "i%d", &bits); n == 1 {
		return fmt.Sprint((bits + 7) / 8)
	}
	return ir
}

// describe is a place as shape is an LLVM type; scalars are one value in a result
// and several parameters.
func describe(p Place, c Class, result bool) string {
	switch p.Kind {
	case Unclear:
		return "unclear: " + p.Why
	case Nowhere:
		return ""
	case Indirect:
		if result {
			return "indirect"
		}
		return "8"
	}
	var parts []string
	for _, q := range c.parts() {
		s := fmt.Sprint(q.Size)
		if q.Kind == Float {
			s = "f" + s
		}
		parts = append(parts, s)
	}
	if result {
		return strings.Join(parts, "+")
	}
	return strings.Join(parts, " ")
}

// open reads the debug info of a program or library.
func open(t *testing.T, file string) *dwarf.Data {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	section := func(name string) []byte {
		if s := f.Section(name); s != nil {
			b, err := s.Data()
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		return nil
	}
	d, err := dwarf.New(dwarf.Sections{Info: section(".debug_info"), Abbrev: section(".debug_abbrev"), Str: section(".debug_str")})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// read is the result types of a library's functions by name.
func read(t *testing.T, file string) map[string]*types.Type {
	t.Helper()
	d := open(t, file)
	r := types.NewReader(d, types.Image{})
	sigs := map[string]*types.Type{}
	for _, u := range d.Units() {
		c := u.Cursor(0)
		for c.Next() {
			e := c.Entry()
			if e.Tag != dwarf.TagSubprogram || !strings.HasPrefix(e.Name(), "probe_") {
				continue
			}
			off, _ := e.Ref(dwarf.AttrType)
			if off == 0 {
				continue
			}
			ty, err := r.Type(off)
			if err != nil {
				t.Fatal(err)
			}
			sigs[strings.Clone(e.Name())] = ty
		}
	}
	return sigs
}
