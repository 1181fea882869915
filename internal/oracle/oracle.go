// Package oracle holds the tests in which Rust itself says what is right: the
// fixtures print their own calls with {:?}, and what ferrotrace shows of them is
// compared. It has no code of its own but these tests.
package oracle
