package manifest

import (
	"fmt"
	"strings"
)

// wordError says why a command line cannot be split into words.
type wordError struct {
	offset int // of the character that is wrong, in characters from the start
	what   string
	shell  bool // a shell could do what is asked for
}

func (e *wordError) Error() string { return e.what }

// splitWords splits a command line as a POSIX shell would, without being one: blanks separate words; '…' keeps
// everything; "…" keeps everything but \ before $, `, ", \ and a line's end; outside quotes \ keeps the next character.
// What only a shell can do — operators, $ and ` — is an error rather than a surprise. Names with wildcards, ~ and # stay
// as they are.
func splitWords(s string) ([]string, error) {
	w := splitter{text: []rune(s)}
	for w.at < len(w.text) {
		if err := w.next(); err != nil {
			return nil, err
		}
	}
	w.end()
	return w.words, nil
}

type splitter struct {
	text  []rune
	at    int
	words []string
	word  strings.Builder
	open  bool // a word has begun; it may be empty, as in two quotes with nothing between
}

func (w *splitter) end() {
	if w.open {
		w.words = append(w.words, w.word.String())
	}
	w.word.Reset()
	w.open = false
}

func (w *splitter) keep(r rune) {
	w.word.WriteRune(r)
	w.open = true
}

// next reads one character, or one quoted part, outside quotes.
func (w *splitter) next() error {
	r := w.text[w.at]
	switch {
	case r == ' ' || r == '\t' || r == '\n' || r == '\r':
		w.end()
	case r == '\'':
		return w.single()
	case r == '"':
		return w.double()
	case r == '\\':
		if w.at+1 == len(w.text) {
			return &wordError{offset: w.at, what: `the command ends in a lone \`}
		}
		w.at++
		if w.text[w.at] != '\n' {
			w.keep(w.text[w.at])
		}
	case strings.ContainsRune("|&;<>()`", r):
		return &wordError{offset: w.at, shell: true, what: fmt.Sprintf("%q means something to a shell, but the command runs without one", string(r))}
	case r == '$' && w.expands():
		return w.dollar()
	default:
		w.keep(r)
	}
	w.at++
	return nil
}

// expands reports whether the $ in hand would begin an expansion in a shell.
func (w *splitter) expands() bool {
	if w.at+1 == len(w.text) {
		return false
	}
	r := w.text[w.at+1]
	return r == '{' || r == '(' || r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("@*#?$!-", r)
}

func (w *splitter) dollar() error {
	return &wordError{offset: w.at, shell: true, what: `"$" is not expanded: the command runs without a shell`}
}

func (w *splitter) single() error {
	start := w.at
	w.open = true
	for w.at++; w.at < len(w.text); w.at++ {
		if w.text[w.at] == '\'' {
			w.at++
			return nil
		}
		w.keep(w.text[w.at])
	}
	return &wordError{offset: start, what: "a ' has no partner"}
}

func (w *splitter) double() error {
	start := w.at
	w.open = true
	for w.at++; w.at < len(w.text); w.at++ {
		switch r := w.text[w.at]; {
		case r == '"':
			w.at++
			return nil
		case r == '\\' && w.at+1 < len(w.text) && strings.ContainsRune("$`\"\\\n", w.text[w.at+1]):
			w.at++
			if w.text[w.at] != '\n' {
				w.keep(w.text[w.at])
			}
		case r == '`':
			return &wordError{offset: w.at, shell: true, what: "\"`\" means something to a shell, but the command runs without one"}
		case r == '$' && w.expands():
			return w.dollar()
		default:
			w.keep(r)
		}
	}
	return &wordError{offset: start, what: `a " has no partner`}
}

// quoteWord writes a word so that splitWords, or a shell, reads it back.
func quoteWord(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
