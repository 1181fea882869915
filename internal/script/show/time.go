package show

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// stampText is a time by strftime's format, with what the language adds to it: %f are
// microseconds, %l milliseconds and %k nanoseconds of the second.
func stampText(format string, t time.Time) string {
	ns := t.Nanosecond()
	return strftime(format, t, func(c byte) (string, bool) {
		switch c {
		case 'f':
			return fmt.Sprintf("%06d", ns/1000), true
		case 'l':
			return fmt.Sprintf("%03d", ns/1000000), true
		case 'k':
			return fmt.Sprintf("%09d", ns), true
		}
		return "", false
	})
}

// Strftime is a time by a format of C's strftime, in the C locale.
func Strftime(format string, t time.Time) string {
	return strftime(format, t, func(byte) (string, bool) { return "", false })
}

// strftime asks more first for what a conversion is. Formats are in C11 7.27.3.5 and,
// GNU's flags and conversions, in glibc's manual, Formatting Calendar Time.
func strftime(format string, t time.Time, more func(byte) (string, bool)) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		start := i
		i++
		flag, width := byte(0), 0
		upper := false
		for ; i < len(format) && strings.IndexByte("_-0^#", format[i]) >= 0; i++ {
			if format[i] == '^' || format[i] == '#' {
				upper = true
			} else {
				flag = format[i]
			}
		}
		for ; i < len(format) && format[i] >= '0' && format[i] <= '9'; i++ {
			width = min(10*width+int(format[i]-'0'), maxWidth)
		}
		for i < len(format) && (format[i] == 'E' || format[i] == 'O') {
			i++ // other digits and eras, of which the C locale has none
		}
		if i >= len(format) {
			b.WriteString(format[start:])
			break
		}
		s, ok := more(format[i])
		if !ok {
			s, ok = conversion(format[i], t, flag, width, more)
		}
		if !ok {
			b.WriteString(format[start : i+1])
			continue
		}
		if upper {
			s = strings.ToUpper(s)
		}
		if pad := width - len(s); pad > 0 {
			b.WriteString(strings.Repeat(" ", pad))
		}
		b.WriteString(s)
	}
	return b.String()
}

// conversion is what one letter stands for.
func conversion(c byte, t time.Time, flag byte, width int, more func(byte) (string, bool)) (string, bool) {
	number := func(n, digits int, pad byte) string {
		switch flag {
		case '_':
			pad = ' '
		case '-':
			return strconv.Itoa(n)
		case '0':
			pad = '0'
		}
		s := strconv.Itoa(n)
		if n := max(digits, width) - len(s); n > 0 {
			s = strings.Repeat(string(pad), n) + s
		}
		return s
	}
	again := func(format string) string { return strftime(format, t, more) }
	twelve := (t.Hour()+11)%12 + 1
	switch c {
	case '%':
		return "%", true
	case 'n':
		return "\n", true
	case 't':
		return "\t", true
	case 'a':
		return t.Format("Mon"), true
	case 'A':
		return t.Format("Monday"), true
	case 'b', 'h':
		return t.Format("Jan"), true
	case 'B':
		return t.Format("January"), true
	case 'c':
		return again("%a %b %e %H:%M:%S %Y"), true
	case 'C':
		return number(t.Year()/100, 2, '0'), true
	case 'd':
		return number(t.Day(), 2, '0'), true
	case 'D', 'x':
		return again("%m/%d/%y"), true
	case 'e':
		return number(t.Day(), 2, ' '), true
	case 'F':
		return again("%Y-%m-%d"), true
	case 'g', 'G':
		year, _ := t.ISOWeek()
		if c == 'g' {
			return number(year%100, 2, '0'), true
		}
		return number(year, 1, '0'), true
	case 'H':
		return number(t.Hour(), 2, '0'), true
	case 'I':
		return number(twelve, 2, '0'), true
	case 'j':
		return number(t.YearDay(), 3, '0'), true
	case 'k':
		return number(t.Hour(), 2, ' '), true
	case 'l':
		return number(twelve, 2, ' '), true
	case 'm':
		return number(int(t.Month()), 2, '0'), true
	case 'M':
		return number(t.Minute(), 2, '0'), true
	case 'p', 'P':
		s := t.Format("PM")
		if c == 'P' {
			s = strings.ToLower(s)
		}
		return s, true
	case 'r':
		return again("%I:%M:%S %p"), true
	case 'R':
		return again("%H:%M"), true
	case 's':
		return strconv.FormatInt(t.Unix(), 10), true
	case 'S':
		return number(t.Second(), 2, '0'), true
	case 'T', 'X':
		return again("%H:%M:%S"), true
	case 'u':
		return number((int(t.Weekday())+6)%7+1, 1, '0'), true
	case 'U':
		return number((t.YearDay()+6-int(t.Weekday()))/7, 2, '0'), true
	case 'V':
		_, week := t.ISOWeek()
		return number(week, 2, '0'), true
	case 'w':
		return number(int(t.Weekday()), 1, '0'), true
	case 'W':
		return number((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0'), true
	case 'y':
		return number(t.Year()%100, 2, '0'), true
	case 'Y':
		return number(t.Year(), 1, '0'), true
	case 'z':
		return t.Format("-0700"), true
	case 'Z':
		return t.Format("MST"), true
	}
	return "", false
}
