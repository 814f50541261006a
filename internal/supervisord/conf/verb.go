package conf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// convert writes the next value in the way of verb, which stands at character at.
func (f *formatter) convert(verb rune, s spec, at int) error {
	if !strings.ContainsRune("sradiuoxXeEfFgGc", verb) {
		// Python has taken the value before it looks at the verb; a missing one is the mistake it sees.
		if f.arg == argNone {
			return errors.New("not enough arguments for format string")
		}
		shown := verb
		if verb < 31 || verb > 126 {
			shown = '?'
		}
		return fmt.Errorf("unsupported format character '%c' (0x%x) at index %d", shown, verb, at)
	}
	v, err := f.next(verb)
	if err != nil {
		return err
	}
	var sign, body string
	zero := false
	switch verb {
	case 's':
		body = cut(v.String(), s.precision)
	case 'r':
		body = cut(v.repr(repr), s.precision)
	case 'a':
		body = cut(v.repr(ascii), s.precision)
	case 'c':
		if body, err = v.char(); err != nil {
			return err
		}
	case 'd', 'i', 'u', 'o', 'x', 'X':
		if !v.isInt {
			return wrongType(verb, "str")
		}
		sign, body = s.integer(verb, v.number)
		zero = s.zero
	default:
		if !v.isInt {
			return wrongType(verb, "str")
		}
		sign, body = s.float(verb, v.number)
		zero = s.zero
	}
	f.pad(sign, body, s, zero)
	return nil
}

func (v value) repr(how func(string) string) string {
	if v.isInt {
		return v.String()
	}
	return how(v.text)
}

func (v value) char() (string, error) {
	if v.isInt {
		if v.number < 0 || v.number > utf8.MaxRune {
			return "", errors.New("%c arg not in range(0x110000)")
		}
		return string(rune(v.number)), nil
	}
	if utf8.RuneCountInString(v.text) != 1 {
		return "", errors.New("%c requires int or char")
	}
	return v.text, nil
}

// cut keeps the first n characters; a negative n keeps all.
func cut(s string, n int) string {
	if n < 0 {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

func (s spec) sign(negative bool) string {
	switch {
	case negative:
		return "-"
	case s.plus:
		return "+"
	case s.space:
		return " "
	}
	return ""
}

func (s spec) integer(verb rune, n int64) (sign, digits string) {
	base, prefix := 10, ""
	switch verb {
	case 'o':
		base, prefix = 8, "0o"
	case 'x', 'X':
		base, prefix = 16, "0x"
	}
	digits = strings.TrimPrefix(strconv.FormatInt(n, base), "-")
	digits = strings.Repeat("0", max(0, s.precision-len(digits))) + digits
	sign = s.sign(n < 0)
	if s.alt {
		sign += prefix
	}
	if verb == 'X' {
		sign, digits = strings.ToUpper(sign), strings.ToUpper(digits)
	}
	return sign, digits
}

func (s spec) float(verb rune, n int64) (sign, digits string) {
	precision := s.precision
	if precision < 0 {
		precision = 6
	}
	layout := "%."
	if s.alt {
		layout = "%#."
	}
	digits = fmt.Sprintf(layout+strconv.Itoa(precision)+string(verb), float64(n))
	digits = strings.TrimPrefix(digits, "-")
	return s.sign(n < 0), digits
}

// pad writes sign and body, filled to the width: zeros go between the two.
func (f *formatter) pad(sign, body string, s spec, zero bool) {
	fill := max(0, s.width-utf8.RuneCountInString(sign)-utf8.RuneCountInString(body))
	switch {
	case s.minus:
		f.out.WriteString(sign + body + strings.Repeat(" ", fill))
	case zero:
		f.out.WriteString(sign + strings.Repeat("0", fill) + body)
	default:
		f.out.WriteString(strings.Repeat(" ", fill) + sign + body)
	}
}
