// Package jsonscan checks JSON without decoding it. It says what encoding/json says, several times faster: an event is
// checked wherever it enters, so this is work for every byte of the flow.
package jsonscan

import (
	"encoding/binary"
	"math/bits"
)

// MaxDepth is how deep a document may nest: the limit of encoding/json, which whoever reads it later is likely to use.
const MaxDepth = 10000

// Valid reports whether data is one JSON document, as encoding/json.Valid does. Like that, it takes strings that are not
// UTF-8. It allocates nothing, and its recursion ends at MaxDepth.
func Valid(data []byte) bool {
	end := value(data, blank(data, 0), MaxDepth)
	return end >= 0 && blank(data, end) == len(data)
}

// The functions below take the offset where something begins and return the one behind it, or bad.
const bad = -1

// blank skips white space.
func blank(data []byte, i int) int {
	for i < len(data) && data[i] <= ' ' && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r') {
		i++
	}
	return i
}

// value checks any value; depth is how many levels it may have.
func value(data []byte, i, depth int) int {
	if i >= len(data) {
		return bad
	}
	switch c := data[i]; {
	case c == '"':
		return text(data, i+1)
	case c == '{':
		return object(data, i+1, depth-1)
	case c == '[':
		return array(data, i+1, depth-1)
	case c == '-' || c-'0' <= 9:
		return number(data, i)
	case c == 't':
		return word(data, i, "true")
	case c == 'f':
		return word(data, i, "false")
	case c == 'n':
		return word(data, i, "null")
	}
	return bad
}

// object checks what follows "{".
func object(data []byte, i, depth int) int {
	if depth < 0 {
		return bad
	}
	i = blank(data, i)
	if i < len(data) && data[i] == '}' {
		return i + 1
	}
	for i < len(data) && data[i] == '"' {
		if i = text(data, i+1); i < 0 {
			return bad
		}
		if i = blank(data, i); i >= len(data) || data[i] != ':' {
			return bad
		}
		if i = value(data, blank(data, i+1), depth); i < 0 {
			return bad
		}
		if i = blank(data, i); i >= len(data) {
			return bad
		}
		switch data[i] {
		case '}':
			return i + 1
		case ',':
			i = blank(data, i+1)
		default:
			return bad
		}
	}
	return bad
}

// array checks what follows "[".
func array(data []byte, i, depth int) int {
	if depth < 0 {
		return bad
	}
	i = blank(data, i)
	if i < len(data) && data[i] == ']' {
		return i + 1
	}
	for {
		if i = value(data, i, depth); i < 0 {
			return bad
		}
		if i = blank(data, i); i >= len(data) {
			return bad
		}
		switch data[i] {
		case ']':
			return i + 1
		case ',':
			i = blank(data, i+1)
		default:
			return bad
		}
	}
}

// text checks what follows the quotation mark that opens a string. Most bytes of most documents are in strings, so it
// looks at eight at a time.
func text(data []byte, i int) int {
	for i < len(data) {
		if i+8 <= len(data) {
			stop := special(binary.LittleEndian.Uint64(data[i:]))
			if stop == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(stop) / 8
		}
		switch c := data[i]; {
		case c == '"':
			return i + 1
		case c == '\\':
			if i = escape(data, i+1); i < 0 {
				return bad
			}
		case c < ' ':
			return bad
		default: // one of the last seven bytes of data
			i++
		}
	}
	return bad
}

// special sets the highest bit of each byte of x that is a quotation mark, a backslash or a control character. Bits
// above the lowest one set may be wrong: borrows run upwards.
func special(x uint64) uint64 {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	quote, backslash := x^ones*'"', x^ones*'\\' // their zero bytes
	return ((quote-ones)&^quote | (backslash-ones)&^backslash | (x-ones*' ')&^x) & highs
}

// escape checks what follows a backslash.
func escape(data []byte, i int) int {
	if i >= len(data) {
		return bad
	}
	switch data[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		if i+5 > len(data) {
			return bad
		}
		for _, c := range data[i+1 : i+5] {
			if c-'0' > 9 && c|0x20-'a' > 5 {
				return bad
			}
		}
		return i + 5
	}
	return bad
}

// number checks a number.
func number(data []byte, i int) int {
	if data[i] == '-' {
		i++
	}
	if i < len(data) && data[i] == '0' {
		i++
	} else if i = digits(data, i); i < 0 {
		return bad
	}
	if i < len(data) && data[i] == '.' {
		if i = digits(data, i+1); i < 0 {
			return bad
		}
	}
	if i < len(data) && data[i]|0x20 == 'e' {
		i++
		if i < len(data) && (data[i] == '+' || data[i] == '-') {
			i++
		}
		return digits(data, i)
	}
	return i
}

// digits checks one digit or more.
func digits(data []byte, i int) int {
	start := i
	for i < len(data) && data[i]-'0' <= 9 {
		i++
	}
	if i == start {
		return bad
	}
	return i
}

func word(data []byte, i int, want string) int {
	if end := i + len(want); end <= len(data) && string(data[i:end]) == want {
		return end
	}
	return bad
}
