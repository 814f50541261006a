package conf

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// scope reads the options of one section: it finds them, expands them by the names known there, and turns them into
// values. A mistake is noted in the report and the default is returned, so that one reading finds all of them.
type scope struct {
	*reader
	section *section
	names   names // beside the environment
}

func (r *reader) scope(s *section, local names) *scope {
	return &scope{reader: r, section: s, names: local}
}

// at is where key stands, or the section's header for a key that is not there.
func (s *scope) at(key string) Position {
	if o, ok := s.doc.get(s.section, key); ok {
		return o.at
	}
	return s.section.at
}

// raw is the unexpanded value of key.
func (s *scope) raw(key, fallback string) string {
	if o, ok := s.doc.get(s.section, key); ok {
		return o.value
	}
	return fallback
}

// lookup is the expanded value of key and whether the file has it.
func (s *scope) lookup(key string) (string, bool) {
	o, ok := s.doc.get(s.section, key)
	if !ok {
		return "", false
	}
	return s.expand(o.value, s.section.name+"."+key, key)
}

// expand writes the names into text; label is what Supervisor calls it. False means that the mistake has been noted.
func (s *scope) expand(text, label, key string) (string, bool) {
	if !strings.Contains(text, "%") {
		return text, true
	}
	all := s.environ.with(s.names)
	out, err := format(text, all)
	if err == nil {
		return out, true
	}
	p := problem{code: "bad-expansion", at: s.at(key)}
	var unknown unknownNameError
	var bare bareVerbError
	switch {
	case errors.As(err, &unknown):
		p.words = "Format string " + repr(text) + " for " + repr(label) + " contains names (" + unknown.Error() + ") which cannot be expanded. Available names: " + all.available()
		p.what = "%(" + string(unknown) + ") in " + label + " stands for nothing"
		p.fix = expansionFix(string(unknown), all)
	case errors.As(err, &bare):
		p.what = label + " has a %" + string(bare) + " without a name; Supervisor would write the whole environment there"
		p.fix = "write %%" + string(bare) + " for a literal one"
	default:
		p.words = "Format string " + repr(text) + " for " + repr(label) + " is badly formatted: " + err.Error()
		p.what = label + " is badly formatted: " + err.Error()
		p.fix = "write %% for a percent sign, %(name)s for a name"
	}
	s.report.problem(p)
	return "", false
}

func expansionFix(name string, all names) string {
	var near []string
	for known := range all {
		if !strings.HasPrefix(known, "ENV_") {
			near = append(near, known)
		}
	}
	slices.Sort(near)
	if variable, ok := strings.CutPrefix(name, "ENV_"); ok {
		return "set " + variable + " in the daemon's environment or in environment= of [supervisord]"
	}
	if _, ok := all["ENV_"+name]; ok {
		return "write %(ENV_" + name + ")s"
	}
	return "known here: " + strings.Join(near, ", ") + ", ENV_…; write %% for a percent sign"
}

func (s *scope) text(key, fallback string) string {
	if v, ok := s.lookup(key); ok {
		return v
	}
	return fallback
}

// integer is the value of a key that counts something.
func (s *scope) integer(key string, fallback int) int {
	v, ok := s.lookup(key)
	if !ok {
		return fallback
	}
	n, err := parseInt(v, 10)
	if err != nil {
		s.report.problem(badNumber(s.at(key), key, v, err))
		return fallback
	}
	return int(n)
}

func badNumber(at Position, key, v string, err error) problem {
	p := problem{code: "bad-number", at: at, what: key + " is " + quote(v) + ", which is no whole number", words: notInt(v), fix: "write a whole number without a unit"}
	if errors.Is(err, errRange) {
		p.what, p.fix = key+" is "+quote(v)+", which does not fit into 64 bits", "write a smaller number"
	}
	return p
}

func (s *scope) boolean(key string, fallback bool) bool {
	v, ok := s.lookup(key)
	if !ok {
		return fallback
	}
	switch strings.ToLower(v) {
	case "yes", "true", "on", "1":
		return true
	case "no", "false", "off", "0":
		return false
	}
	s.report.problem(problem{
		code: "bad-boolean", at: s.at(key), what: key + " is " + quote(v) + ", which is neither true nor false",
		words: "not a valid boolean value: " + repr(v), fix: "write true or false",
	})
	return fallback
}

// bytes is the value of a key that is a size: a number with KB, MB or GB behind it, or of bytes.
func (s *scope) bytes(key string, fallback int64) int64 {
	v, ok := s.lookup(key)
	if !ok {
		return fallback
	}
	n, err := byteSize(v)
	if err == nil {
		return n
	}
	digits := strings.ToLower(v)
	for _, unit := range []string{"kb", "mb", "gb"} {
		if rest, found := strings.CutSuffix(digits, unit); found {
			digits = rest
			break
		}
	}
	p := problem{code: "bad-size", at: s.at(key), what: key + " is " + quote(v) + ", which is no size", words: notInt(digits), fix: "write a number of bytes, or one with KB, MB or GB: 50MB"}
	if errors.Is(err, errRange) {
		p.what, p.fix = key+" is "+quote(v)+", which does not fit into 64 bits", "write a smaller size; 0 means no limit"
	}
	s.report.problem(p)
	return fallback
}

// octal is the value of a mode or umask. Supervisor has other words for a wrong one in some keys.
func (s *scope) octal(key string, fallback int, words string) int {
	v, ok := s.lookup(key)
	if !ok {
		return fallback
	}
	n, err := parseInt(v, 8)
	if err != nil {
		s.report.problem(problem{
			code: "bad-octal", at: s.at(key), what: key + " is " + quote(v) + ", which is no octal number",
			words: cmp.Or(words, v+" can not be converted to an octal type"), fix: "write it like 022 or 0770",
		})
		return fallback
	}
	return int(n)
}

// folder is the value of a key that names an existing folder.
func (s *scope) folder(key, fallback string) string {
	v, ok := s.lookup(key)
	if !ok {
		v = fallback
		if v == "" {
			return ""
		}
	}
	path := s.expandUser(v)
	if isDir(path) {
		return path
	}
	s.report.problem(problem{code: "no-folder", at: s.at(key), what: v + " is not an existing directory", fix: "mkdir -p " + path + ", or correct " + key})
	return path
}

// file is the value of a key that names a file in an existing folder.
func (s *scope) file(key, fallback string) string { return s.checkFile(key, s.text(key, fallback)) }

func (s *scope) checkFile(key, v string) string {
	path := s.expandUser(v)
	cut := strings.LastIndexByte(path, '/')
	if cut < 0 {
		return path
	}
	dir := path[:cut]
	if strings.Trim(dir, "/") == "" {
		dir = "/"
	}
	if !isDir(dir) {
		s.report.problem(problem{
			code: "no-folder", at: s.at(key), what: "the folder of " + key + "=" + v + " does not exist",
			words: "The directory named as part of the path " + v + " does not exist", fix: "mkdir -p " + dir + ", or correct " + key,
		})
	}
	return path
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// absolute is Python's normpath(abspath(expanduser(path))).
func (s *scope) absolute(path string) string {
	full, err := filepath.Abs(s.expandUser(path))
	if err != nil {
		return path // the working directory is gone; whoever opens the file says so
	}
	return full
}

func quote(v string) string { return `"` + v + `"` }
