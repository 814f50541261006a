// Package envfile reads files of KEY=value lines in the dialect that systemd's EnvironmentFile and dotenv share:
//
//   - Blank lines, and lines that begin with # or ;, say nothing. A leading "export " is passed over.
//   - A value without quotes is what stands after =, without the blanks around it; # belongs to it.
//   - A value in single quotes is taken as it is, over several lines if need be.
//   - In double quotes, \n, \t, \r, \", \\, \$ and \` are what they are in C; a \ at the end of a line joins it to the next.
//   - Nothing is expanded: $HOME is five characters.
//
// The values are secrets more often than not, so errors never quote one.
package envfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/hozo-dev/hozo/fault"
)

// maxBytes bounds a file: Linux takes no more than 128 KiB in one variable and some megabytes in all.
const maxBytes = 1 << 20

// Load reads the file at path; of a name that is there twice the later value counts. A file that is missing has nothing
// when optional is set and is fault envfile/unreadable otherwise. Mistakes in it come all together, each a
// fault.Error of code envfile/syntax with its place.
func Load(path string, optional bool) (map[string]string, error) {
	f, err := os.Open(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreadable(path, err)
	}
	defer func() { _ = f.Close() }() // only read: closing cannot lose anything
	src, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, unreadable(path, err)
	}
	return Parse(string(src), path)
}

func unreadable(path string, err error) error {
	fix := "check its permissions"
	if errors.Is(err, fs.ErrNotExist) {
		fix = "write it, or put a - before its path in env_file if it may be missing"
	}
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return &fault.Error{Code: "envfile/unreadable", Kind: fault.Misuse, What: "an env_file cannot be read", Where: path, Fix: fix, Err: err}
}

// Parse reads src, of at most 1 MiB; path is what errors name. See Load.
func Parse(src, path string) (map[string]string, error) {
	if len(src) > maxBytes {
		return nil, &fault.Error{Code: "envfile/too-large", Kind: fault.Misuse, What: "an env_file is larger than 1 MiB", Where: path, Fix: "keep data in files of their own"}
	}
	p := &parser{rest: strings.TrimPrefix(src, "\uFEFF"), path: path, line: 1, col: 1, values: map[string]string{}}
	for p.rest != "" && len(p.errs) < maxMistakes {
		p.assignment()
	}
	if err := errors.Join(p.errs...); err != nil {
		return nil, err
	}
	return p.values, nil
}

// maxMistakes bounds what one file reports: more helps nobody.
const maxMistakes = 32

type parser struct {
	rest, path string
	line, col  int // of the first character of rest, from 1, in characters
	values     map[string]string
	errs       []error
}

func (p *parser) fail(line, col int, what, fix string) {
	p.errs = append(p.errs, &fault.Error{
		Code: "envfile/syntax", Kind: fault.Misuse, What: what, Fix: fix, Where: fmt.Sprintf("%s:%d:%d", p.path, line, col),
	})
}

// take removes the first n bytes of rest and returns them.
func (p *parser) take(n int) string {
	text := p.rest[:n]
	p.rest = p.rest[n:]
	if lines := strings.Count(text, "\n"); lines > 0 {
		p.line, p.col = p.line+lines, 1
		text, col := text, strings.LastIndexByte(text, '\n')+1
		p.col += utf8.RuneCountInString(text[col:])
		return text
	}
	p.col += utf8.RuneCountInString(text)
	return text
}

// blanks passes over spaces and tabs, and the end of a DOS line.
func (p *parser) blanks() {
	p.take(len(p.rest) - len(strings.TrimLeft(p.rest, " \t\r")))
}

// skipLine passes over the rest of the line and its end.
func (p *parser) skipLine() string {
	if end := strings.IndexByte(p.rest, '\n'); end >= 0 {
		return p.take(end + 1)
	}
	return p.take(len(p.rest))
}

func (p *parser) assignment() {
	p.blanks()
	if p.rest == "" || strings.HasPrefix(p.rest, "\n") || p.rest[0] == '#' || p.rest[0] == ';' {
		p.skipLine()
		return
	}
	if word := strings.TrimPrefix(p.rest, "export"); word != p.rest && strings.TrimLeft(word, " \t") != word {
		p.take(len("export"))
		p.blanks()
	}
	line, col := p.line, p.col
	end := strings.IndexAny(p.rest, "=\n")
	if end < 0 || p.rest[end] == '\n' {
		p.fail(line, col, "a line is not KEY=value", "write KEY=value, or begin a comment with #")
		p.skipLine()
		return
	}
	name := strings.TrimRight(p.take(end), " \t")
	p.take(1)
	if !isName(name) {
		p.fail(line, col, "what stands before = is not the name of a variable", "use letters, digits and _, and no digit first")
		p.skipLine()
		return
	}
	p.take(len(p.rest) - len(strings.TrimLeft(p.rest, " \t")))
	if value, ok := p.value(name); ok {
		p.values[name] = value
	}
}

func (p *parser) value(name string) (string, bool) {
	line, col := p.line, p.col
	var value string
	ok := true
	if p.rest != "" && (p.rest[0] == '"' || p.rest[0] == '\'') {
		quote := p.take(1)[0]
		if value, ok = p.quoted(quote); !ok {
			p.fail(line, col, fmt.Sprintf("the quote of %s is not closed", name), "close it, or write a value that begins with a quote in the other kind of quotes")
			return "", false
		}
		p.blanks()
		if p.rest != "" && p.rest[0] != '\n' && p.rest[0] != '#' {
			p.fail(p.line, p.col, fmt.Sprintf("something follows the closing quote of %s", name), "put all of the value into the quotes")
			ok = false
		}
		p.skipLine()
	} else {
		value = strings.Trim(p.skipLine(), " \t\r\n")
	}
	if strings.ContainsRune(value, 0) {
		p.fail(line, col, name+" holds a zero byte, which no environment can", "remove it")
		ok = false
	}
	return value, ok
}

// quoted reads up to the closing quote and over it.
func (p *parser) quoted(quote byte) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == quote:
			p.take(i + 1)
			return b.String(), true
		case c == '\\' && quote == '"' && i+1 < len(p.rest):
			i++
			switch e := p.rest[i]; e {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case '"', '\\', '$', '`':
				b.WriteByte(e)
			case '\n':
			default:
				b.WriteByte('\\')
				b.WriteByte(e)
			}
		default:
			b.WriteByte(c)
		}
	}
	p.take(len(p.rest))
	return "", false
}

func isName(s string) bool {
	if s == "" || '0' <= s[0] && s[0] <= '9' {
		return false
	}
	for _, r := range s {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') {
			return false
		}
	}
	return true
}
