package conf

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

// defaultSection is the section whose options every other section has too.
const defaultSection = "DEFAULT"

// option is one key of a section with its raw value.
type option struct {
	value string
	at    Position
	lines []string // of the value while its file is being read
	open  bool     // lines are still being gathered
}

// section is one [name], merged from every place where it stands.
type section struct {
	name    string
	at      Position // of its first header
	options map[string]*option
	order   []string // keys in the order they first came
}

func newSection(name string, at Position) *section {
	return &section{name: name, at: at, options: map[string]*option{}}
}

func (s *section) put(key string, o *option) {
	if _, known := s.options[key]; !known {
		s.order = append(s.order, key)
	}
	s.options[key] = o
}

// document is what Python's RawConfigParser(strict=False, inline_comment_prefixes=(';', '#')) keeps of the files read
// into it.
type document struct {
	sections []*section // in the order of their first headers
	defaults *section
	// repeated are keys that one file sets twice in one section: the earlier value is lost.
	repeated []repetition
}

type repetition struct {
	section, key  string
	first, second Position
}

func newDocument() *document { return &document{defaults: newSection(defaultSection, Position{})} }

func (d *document) section(name string) *section {
	for _, s := range d.sections {
		if s.name == name {
			return s
		}
	}
	return nil
}

// get finds an option in a section or in the defaults.
func (d *document) get(s *section, key string) (*option, bool) {
	if o, ok := s.options[key]; ok {
		return o, true
	}
	o, ok := d.defaults.options[key]
	return o, ok
}

// expandHere writes folder in the place of every literal %(here)s; an included file is so expanded by its own folder.
// As in Supervisor a default that holds one is copied into each section.
func (d *document) expandHere(folder string) {
	const name = "%(here)s"
	for _, s := range d.sections {
		for _, of := range []*section{d.defaults, s} {
			for _, key := range of.order {
				o, _ := d.get(s, key)
				if strings.Contains(o.value, name) {
					s.put(key, &option{value: strings.ReplaceAll(o.value, name, folder), at: o.at})
				}
			}
		}
	}
}

// syntaxError is one thing that Python's parser refuses in a file.
type syntaxError struct {
	message string // Python's words for the whole file
	what    string
	fix     string
	at      Position
}

// read parses text and merges it into d. name is the file as Python's messages show it, file as positions do. Mistakes
// are given together, as Python's parser gathers them, except for text before the first header, which ends the reading.
func (d *document) read(text, name, file string) []syntaxError {
	r := &lineReader{doc: d, name: name, file: file, indent: 0, seen: map[string]Position{}}
	number := 0
	for line := range strings.Lines(universalNewlines(text)) {
		number++
		if fatal := r.line(line, number); fatal != nil {
			return []syntaxError{*fatal}
		}
	}
	r.join()
	if len(r.bad) == 0 {
		return nil
	}
	var message strings.Builder
	message.WriteString("Source contains parsing errors: " + repr(name))
	for _, bad := range r.bad {
		fmt.Fprintf(&message, "\n\t[line %2d]: %s", bad.at.Line, bad.message)
	}
	for i := range r.bad {
		r.bad[i].message = message.String()
	}
	return r.bad
}

func universalNewlines(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
}

// lineReader is the state of reading one file.
type lineReader struct {
	doc        *document
	name, file string
	current    *section
	key        string // of the option being gathered; "" for none
	indent     int    // of the line that the current option or header began on
	seen       map[string]Position
	bad        []syntaxError
}

func (r *lineReader) line(line string, number int) *syntaxError {
	at := Position{File: r.file, Line: number}
	cut, comment := commentStart(line)
	value := strip(line[:cut])
	if value == "" {
		// An empty line belongs to a value that goes on after it; a comment does not.
		if o := r.gathering(); o != nil && !comment {
			o.lines = append(o.lines, "")
		}
		return nil
	}
	indent := leadingSpace(line)
	if o := r.gathering(); o != nil && indent > r.indent {
		o.lines = append(o.lines, value)
		return nil
	}
	r.indent = indent
	if header, ok := sectionHeader(value); ok {
		r.open(header, at)
		return nil
	}
	if r.current == nil {
		return &syntaxError{
			message: fmt.Sprintf("File contains no section headers.\nfile: %s, line: %d\n%s", repr(r.name), number, repr(line)),
			what:    "a line stands before the first [section]", fix: "put it under a section such as [supervisord], or make it a comment with ;", at: at,
		}
	}
	r.option(line, value, at)
	return nil
}

// gathering is the option whose value may go on, or nil.
func (r *lineReader) gathering() *option {
	if r.current == nil || r.key == "" {
		return nil
	}
	return r.current.options[r.key]
}

func (r *lineReader) open(name string, at Position) {
	r.key = ""
	if name == defaultSection && r.doc.section(name) == nil {
		r.current = r.doc.defaults
		return
	}
	if r.current = r.doc.section(name); r.current == nil {
		r.current = newSection(name, at)
		r.doc.sections = append(r.doc.sections, r.current)
	}
}

func (r *lineReader) option(line, value string, at Position) {
	cut := strings.IndexAny(value, "=:")
	if cut < 0 {
		r.bad = append(r.bad, syntaxError{message: repr(line), what: fmt.Sprintf("%q is neither a [section] nor key=value", value), fix: "write key=value; indent the line if it continues the value above", at: at})
		return
	}
	r.key = strings.ToLower(rstrip(value[:cut]))
	if r.key == "" {
		r.bad = append(r.bad, syntaxError{message: repr(line), what: fmt.Sprintf("%q has no key", value), fix: "write the name of a key before the " + value[cut:cut+1], at: at})
	}
	if first, twice := r.seen[r.current.name+"\x00"+r.key]; twice {
		r.doc.repeated = append(r.doc.repeated, repetition{section: r.current.name, key: r.key, first: first, second: at})
	}
	r.seen[r.current.name+"\x00"+r.key] = at
	r.current.put(r.key, &option{lines: []string{strip(value[cut+1:])}, open: true, at: at})
}

// join makes values of the gathered lines.
func (r *lineReader) join() {
	for _, s := range append([]*section{r.doc.defaults}, r.doc.sections...) {
		for _, o := range s.options {
			if o.open {
				o.value, o.lines, o.open = rstrip(strings.Join(o.lines, "\n")), nil, false
			}
		}
	}
}

// sectionHeader is the name in [name]; what follows the last bracket does not count.
func sectionHeader(value string) (string, bool) {
	end := strings.LastIndex(value, "]")
	if value[0] != '[' || end < 2 {
		return "", false
	}
	return value[1:end], true
}

func leadingSpace(line string) int {
	trimmed := strings.TrimLeftFunc(line, isSpace)
	return utf8.RuneCountInString(line[:len(line)-len(trimmed)])
}

// commentStart is where the comment of a line begins, or the line's length and false. A prefix counts only at the start
// of the line or after space. As in Python the n-th occurrences of the two prefixes are looked at together, and the
// first round with a comment among them decides, so that `a;b ;c #d` is cut at the #.
func commentStart(line string) (int, bool) {
	if t := strings.TrimLeftFunc(line, isSpace); strings.HasPrefix(t, "#") || strings.HasPrefix(t, ";") {
		return 0, true
	}
	next := map[byte]int{';': -1, '#': -1}
	for len(next) > 0 {
		start := math.MaxInt
		for prefix, last := range next {
			i := strings.IndexByte(line[last+1:], prefix)
			if i < 0 {
				delete(next, prefix)
				continue
			}
			i += last + 1
			next[prefix] = i
			if before, _ := utf8.DecodeLastRuneInString(line[:i]); i == 0 || isSpace(before) {
				start = min(start, i)
			}
		}
		if start != math.MaxInt {
			return start, true
		}
	}
	return len(line), false
}
