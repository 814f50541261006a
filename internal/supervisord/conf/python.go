package conf

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// isSpace is Python's str.isspace for one character, which knows four separators that unicode.IsSpace does not.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f
}

func strip(s string) string  { return strings.TrimFunc(s, isSpace) }
func rstrip(s string) string { return strings.TrimRightFunc(s, isSpace) }

// repr is Python's repr of a string; Supervisor's messages are full of it.
func repr(s string) string {
	quote := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	var b strings.Builder
	b.WriteRune(quote)
	for _, r := range s {
		switch {
		case r == quote || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(escape(r))
		}
	}
	b.WriteRune(quote)
	return b.String()
}

// ascii is Python's ascii of a string.
func ascii(s string) string {
	var b strings.Builder
	for _, r := range repr(s) {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			b.WriteString(escape(r))
		}
	}
	return b.String()
}

func escape(r rune) string {
	switch {
	case r < 0x100:
		return fmt.Sprintf(`\x%02x`, r)
	case r < 0x10000:
		return fmt.Sprintf(`\u%04x`, r)
	}
	return fmt.Sprintf(`\U%08x`, r)
}

var errRange = errors.New("does not fit into 64 bits")

// parseInt is Python's int(s, base) for base 8 and 10: surrounding space, a sign, single underscores between digits.
// Python's numbers have no bounds; beyond 64 bits the error is errRange.
func parseInt(s string, base int) (int64, error) {
	// Python's int looks at a text of ASCII alone with C's isspace.
	space := unicode.IsSpace
	if strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) {
		space = isSpace
	}
	digits := strings.TrimFunc(s, space)
	sign := ""
	if rest, found := strings.CutPrefix(digits, "-"); found {
		sign, digits = "-", rest
	} else {
		digits = strings.TrimPrefix(digits, "+")
	}
	if base == 8 && (strings.HasPrefix(digits, "0o") || strings.HasPrefix(digits, "0O")) {
		digits = strings.TrimPrefix(digits[2:], "_")
	}
	if digits == "" || digits[0] == '_' || digits[len(digits)-1] == '_' || strings.Contains(digits, "__") || strings.ContainsAny(digits, "+-") {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseInt(sign+strings.ReplaceAll(digits, "_", ""), base, 64)
	if errors.Is(err, strconv.ErrRange) {
		return 0, errRange
	}
	return n, err
}

// notInt is what Python's int says of a text that is no number.
func notInt(s string) string { return "invalid literal for int() with base 10: " + repr(s) }
