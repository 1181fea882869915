// Package house holds the project's own rules as tests: which package may import
// which, that each says what it is for, and that no file outgrows a reader.
package house
