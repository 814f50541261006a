package conf

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// What Python's shlex says of texts that end too early.
var (
	errNoClosingQuotation = errors.New("No closing quotation") //nolint:staticcheck // Python's own words, which supervisorctl shows
	errNoEscapedCharacter = errors.New("No escaped character") //nolint:staticcheck // likewise
)

// Split is Python's shlex.split: words of a command in POSIX mode, without a shell's expansions or comments.
func Split(command string) ([]string, error) {
	var words []string
	var word strings.Builder
	started := false // an empty pair of quotes is a word too
	for i := 0; i < len(command); i++ {
		switch c := command[i]; c {
		case ' ', '\t', '\r', '\n':
			if started {
				words = append(words, word.String())
				word.Reset()
				started = false
			}
		case '\\':
			if i++; i == len(command) {
				return nil, errNoEscapedCharacter
			}
			started = true
			word.WriteByte(command[i])
		case '\'', '"':
			started = true
			end, err := quoted(&word, command[i+1:], c)
			if err != nil {
				return nil, err
			}
			i += end + 1
		default:
			started = true
			word.WriteByte(c)
		}
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}

// quoted writes what stands before the closing quote and returns the quote's offset.
func quoted(word *strings.Builder, s string, quote byte) (int, error) {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == quote:
			return i, nil
		case s[i] == '\\' && quote == '"':
			if i++; i == len(s) {
				return 0, errNoEscapedCharacter
			}
			if s[i] != '\\' && s[i] != '"' {
				word.WriteByte('\\')
			}
			word.WriteByte(s[i])
		default:
			word.WriteByte(s[i])
		}
	}
	return 0, errNoClosingQuotation
}

// pairs reads KEY=value,KEY2="value, 2" as Supervisor does: the tokens of shlex outside POSIX mode, taken by four.
func pairs(s string) ([][2]string, error) {
	tokens, err := tokenize(s)
	if err != nil {
		return nil, err
	}
	var all [][2]string
	for i := 0; i < len(tokens); i += 4 {
		if len(tokens)-i < 3 || tokens[i+1] != "=" {
			return nil, fmt.Errorf("Unexpected end of key/value pairs in value '%s'", s) //nolint:staticcheck // Supervisor's words
		}
		all = append(all, [2]string{tokens[i], strings.Trim(tokens[i+2], `'"`)})
	}
	return all, nil
}

// isWordByte says whether shlex keeps a character in a word, with the characters that Supervisor adds.
func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_/.+-():", c) >= 0
}

// tokenize is Python's list(shlex(s)) outside POSIX mode: quotes stay in the tokens, # comments out the rest of a line,
// any other character is a token of its own.
func tokenize(s string) ([]string, error) {
	var tokens []string
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			i++
		case c == '#':
			i = lineEnd(s, i)
		case c == '\'' || c == '"':
			end := strings.IndexByte(s[i+1:], c)
			if end < 0 {
				return nil, errNoClosingQuotation
			}
			tokens = append(tokens, s[i:i+end+2])
			i += end + 2
		case isWordByte(c):
			var word string
			word, i = wordAt(s, i)
			tokens = append(tokens, word)
		default:
			_, size := utf8.DecodeRuneInString(s[i:])
			tokens = append(tokens, s[i:i+size])
			i += size
		}
	}
	return tokens, nil
}

// wordAt is the word that starts at i and where the next token does. Inside a word quotes are ordinary characters, and a
// comment is left out without ending the word.
func wordAt(s string, i int) (string, int) {
	var word strings.Builder
	for i < len(s) {
		switch c := s[i]; {
		case isWordByte(c) || c == '\'' || c == '"':
			word.WriteByte(c)
			i++
		case c == '#':
			i = lineEnd(s, i)
		default:
			return word.String(), i
		}
	}
	return word.String(), i
}

// lineEnd is the offset after the line that i is in.
func lineEnd(s string, i int) int {
	if n := strings.IndexByte(s[i:], '\n'); n >= 0 {
		return i + n + 1
	}
	return len(s)
}
