package demangle

import (
	"bytes"
	"io"
)

const (
	// chunk is how much is read at a time, in bytes.
	chunk = 64 << 10
	// maxWord is the longest word in which symbols are looked for, in bytes.
	// It bounds the memory that text without any break takes.
	maxWord = 1 << 20
)

// Stream copies text from r to w with each Rust symbol in it replaced by its
// path, and every other byte as it is. The text may be binary, and its lines
// of any length. What has been read is written before more is read, but for a
// word that may go on.
//
// Symbols are looked for as rustfilt does: text falls into words of ASCII
// letters, digits, '_', '.' and '$', and in each, all from the first "_ZN" or
// "_R" on is replaced if it is a symbol. The forms of other systems (ZN…E, R…,
// __ZN…E, __R…), which rustfilt does not look for in text, must begin a word.
//
// The error is the first of r, other than io.EOF, or of w.
func (o Options) Stream(w io.Writer, r io.Reader) error {
	var (
		in       = make([]byte, chunk)
		out      []byte
		word     []byte // the word that the text so far ends in
		skipping bool   // the word is longer than maxWord, and written already
	)
	flush := func() error {
		if len(out) == 0 {
			return nil
		}
		_, err := w.Write(out)
		out = out[:0]
		return err
	}
	for {
		n, readErr := r.Read(in)
		for text := in[:n]; len(text) > 0; {
			i := 0
			for i < len(text) && isWordByte[text[i]] {
				i++
			}
			switch {
			case skipping:
				out = append(out, text[:i]...)
			case len(word)+i > maxWord:
				out = append(append(out, word...), text[:i]...)
				word, skipping = nil, true
			case i == len(text):
				word = append(word, text...)
			case len(word) == 0: // the usual case: no copy
				out = o.appendWord(out, text[:i])
			default:
				word = append(word, text[:i]...)
				out = o.appendWord(out, word)
				word = word[:0]
			}
			if text = text[i:]; len(text) > 0 {
				skipping = false
				i = 1
				for i < len(text) && !isWordByte[text[i]] {
					i++
				}
				out = append(out, text[:i]...)
				text = text[i:]
			}
			if len(out) >= chunk { // a short symbol can have a very long path
				if err := flush(); err != nil {
					return err
				}
			}
		}
		if readErr != nil {
			out = o.appendWord(out, word)
		}
		if err := flush(); err != nil {
			return err
		}
		if readErr == io.EOF {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

var isWordByte = func() (is [256]bool) {
	for _, c := range []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.$") {
		is[c] = true
	}
	return is
}()

// appendWord appends a word, with the symbol that it has replaced.
func (o Options) appendWord(dst, word []byte) []byte {
	if len(word) < 4 {
		return append(dst, word...)
	}
	if beginsBare(word) {
		if out, ok := o.appendSymbol(dst, word); ok {
			return out
		}
	}
	i := symbolStart(word)
	if i < 0 {
		return append(dst, word...)
	}
	dst = append(dst, word[:i]...)
	if out, ok := o.appendSymbol(dst, word[i:]); ok {
		return out
	}
	return append(dst, word[i:]...)
}

// appendSymbol appends the path of a symbol found in text. A path without any
// name is none: it would make text vanish.
func (o Options) appendSymbol(dst, sym []byte) ([]byte, bool) {
	out, ok := o.append(dst, string(sym))
	if !ok || len(out) == len(dst) {
		return dst, false
	}
	return out, true
}

// beginsBare reports whether a word begins as a symbol without its underscore
// does. A bare crate (RC3foo) is not taken for one: rustc makes no such symbol,
// and people write RC1.
func beginsBare(word []byte) bool {
	switch {
	case word[0] == 'R':
		switch word[1] {
		case 'N', 'I', 'M', 'X', 'Y':
			return true
		}
	case word[0] == 'Z' && word[1] == 'N':
		return '0' <= word[2] && word[2] <= '9'
	}
	return false
}

// symbolStart returns where the first "_ZN" or "_R" of a word is, with the
// underscore before it if that is where the word, or a part of it, begins;
// -1 if there is none.
func symbolStart(word []byte) int {
	for i := 0; ; i++ {
		n := bytes.IndexByte(word[i:], '_')
		if n < 0 {
			return -1
		}
		i += n
		rest := word[i+1:]
		if len(rest) > 0 && rest[0] == 'R' || len(rest) > 1 && rest[0] == 'Z' && rest[1] == 'N' {
			if i == 1 && word[0] == '_' || i > 1 && word[i-1] == '_' && word[i-2] == '.' {
				return i - 1
			}
			return i
		}
	}
}
