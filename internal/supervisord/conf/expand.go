package conf

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxWidth bounds %(x)999999d, which Python would fill with as many characters as it is told.
const maxWidth = 1 << 16

// value is what a name stands for: a text or a number.
type value struct {
	text   string
	number int64
	isInt  bool
}

func textValue(s string) value { return value{text: s} }
func intValue(n int) value     { return value{number: int64(n), isInt: true} }
func (v value) String() string {
	if v.isInt {
		return strconv.FormatInt(v.number, 10)
	}
	return v.text
}

// names are the values that % expansion knows in one place of the file.
type names map[string]value

// unknownNameError is a name that stands for nothing; Python's KeyError.
type unknownNameError string

func (n unknownNameError) Error() string { return repr(string(n)) }

// bareVerbError is a %s, %r or %a without a name. Python writes the whole mapping there, environment included: nobody wants
// that, and it would show secrets.
type bareVerbError string

func (v bareVerbError) Error() string { return "%" + string(v) + " has no name" }

// format is Python's s % names.
func format(s string, all names) (string, error) {
	f := &formatter{in: s, names: all, arg: argMapping}
	for {
		literal, rest, found := strings.Cut(f.in[f.pos:], "%")
		f.out.WriteString(literal)
		if !found {
			return f.out.String(), nil
		}
		f.pos = len(f.in) - len(rest)
		if err := f.verb(); err != nil {
			return "", err
		}
	}
}

// What the next conversion without a name of its own takes.
const (
	argMapping = iota // the mapping itself: nothing was named yet
	argValue          // the value that was named
	argNone           // it has been used
)

type formatter struct {
	in    string
	pos   int
	out   strings.Builder
	names names
	arg   int
	value value
}

// spec is the part of a conversion between % and the verb.
type spec struct {
	minus, plus, space, alt, zero bool
	width, precision              int // precision -1 when none is given
}

func (f *formatter) verb() error {
	if f.peek() == '%' {
		f.pos++
		f.out.WriteByte('%')
		return nil
	}
	if f.peek() == '(' {
		if err := f.key(); err != nil {
			return err
		}
	}
	s := spec{precision: -1}
flags:
	for ; ; f.pos++ {
		switch f.peek() {
		case '-':
			s.minus = true
		case '+':
			s.plus = true
		case ' ':
			s.space = true
		case '#':
			s.alt = true
		case '0':
			s.zero = true
		default:
			break flags
		}
	}
	var err error
	if s.width, err = f.size("width"); err != nil {
		return err
	}
	if s.width < 0 {
		s.minus, s.width = true, -s.width
	}
	if f.peek() == '.' {
		f.pos++
		if s.precision, err = f.size("precision"); err != nil {
			return err
		}
		s.precision = max(s.precision, 0)
	}
	if c := f.peek(); c == 'h' || c == 'l' || c == 'L' {
		f.pos++
	}
	if f.pos == len(f.in) {
		return errors.New("incomplete format")
	}
	at := utf8.RuneCountInString(f.in[:f.pos])
	verb, size := utf8.DecodeRuneInString(f.in[f.pos:])
	f.pos += size
	return f.convert(verb, s, at)
}

// peek is the next byte, or 0 at the end.
func (f *formatter) peek() byte {
	if f.pos == len(f.in) {
		return 0
	}
	return f.in[f.pos]
}

// key reads (name) and looks it up.
func (f *formatter) key() error {
	f.pos++
	start, depth := f.pos, 1
	for ; depth > 0 && f.pos < len(f.in); f.pos++ {
		switch f.in[f.pos] {
		case '(':
			depth++
		case ')':
			depth--
		}
	}
	if depth > 0 {
		return errors.New("incomplete format key")
	}
	name := f.in[start : f.pos-1]
	v, ok := f.names[name]
	if !ok {
		return unknownNameError(name)
	}
	f.value, f.arg = v, argValue
	return nil
}

// size reads a width or a precision.
func (f *formatter) size(what string) (int, error) {
	if f.peek() == '*' {
		f.pos++
		v, err := f.next('*')
		if err != nil {
			return 0, err
		}
		if !v.isInt {
			return 0, errors.New("* wants int")
		}
		return int(v.number), nil
	}
	n := 0
	for c := f.peek(); c >= '0' && c <= '9'; c = f.peek() {
		if n = n*10 + int(c-'0'); n > maxWidth {
			return 0, errors.New(what + " too big")
		}
		f.pos++
	}
	return n, nil
}

// next takes the value of a conversion.
func (f *formatter) next(verb rune) (value, error) {
	arg := f.arg
	f.arg = argNone
	switch arg {
	case argValue:
		return f.value, nil
	case argNone:
		return value{}, errors.New("not enough arguments for format string")
	}
	switch {
	case verb == '*':
		return value{}, errors.New("* wants int")
	case strings.ContainsRune("sra", verb):
		return value{}, bareVerbError(verb)
	}
	return value{}, wrongType(verb, "dict")
}

func wrongType(verb rune, kind string) error {
	switch verb {
	case 'o', 'x', 'X':
		return fmt.Errorf("%%%c format: an integer is required, not %s", verb, kind)
	case 'd', 'i', 'u':
		return fmt.Errorf("%%%c format: a real number is required, not %s", verb, kind)
	case 'c':
		return errors.New("%c requires int or char")
	}
	return fmt.Errorf("must be real number, not %s", kind)
}

// available lists the names, as Supervisor's message does.
func (n names) available() string {
	return strings.Join(slices.Sorted(maps.Keys(n)), ", ")
}

// with returns a copy with more laid over it.
func (n names) with(more names) names {
	all := maps.Clone(n)
	if all == nil {
		all = names{}
	}
	maps.Copy(all, more)
	return all
}
