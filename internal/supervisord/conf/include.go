package conf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// include reads the files that [include] names; false means that reading cannot go on. Included files are not asked for
// an [include] of their own.
func (r *reader) include() bool {
	s := r.doc.section("include")
	if s == nil {
		return true
	}
	r.doc.expandHere(r.config.Here)
	in := r.scope(s, names{"here": textValue(r.config.Here), "host_node_name": textValue(r.node)})
	o, ok := r.doc.get(s, "files")
	if !ok {
		r.report.problem(problem{
			code: "include-without-files", at: s.at, what: "[include] has no files",
			words: ".ini file has [include] section, but no files setting", fix: "add files = conf.d/*.conf, or drop the section",
		})
		return false
	}
	files, ok := in.expand(o.value, "include.files", "files")
	if !ok {
		return false
	}
	for _, pattern := range strings.FieldsFunc(files, isSpace) {
		if !filepath.IsAbs(pattern) {
			pattern = strings.TrimRight(r.config.Here, "/") + "/" + pattern
		}
		matches := glob(pattern)
		if len(matches) == 0 {
			r.report.warn(o.at, "no-include", "create the file, or drop the pattern", "No file matches via include \"%s\"", pattern)
		}
		slices.Sort(matches)
		for _, name := range matches {
			if !r.includeFile(name, o.at) {
				return false
			}
		}
	}
	if second := r.doc.section("include"); second != nil {
		if again, _ := r.doc.get(second, "files"); again.at != o.at {
			r.report.warn(again.at, "nested-include", "move it to the main file", "[include] in an included file is not read")
		}
	}
	return true
}

func (r *reader) includeFile(name string, at Position) bool {
	r.config.Included = append(r.config.Included, name)
	text, err := readFile(name)
	if err != nil {
		r.report.warn(at, "include-unreadable", "check its permissions", "the included file %s was left out: %s", name, shortError(err))
		return true
	}
	before := len(r.doc.sections)
	if !r.merge(text, name) {
		return false
	}
	for _, s := range r.doc.sections[before:] {
		r.from[s.name] = name
	}
	folder, err := filepath.Abs(filepath.Dir(name))
	if err != nil {
		folder = filepath.Dir(name)
	}
	r.doc.expandHere(folder)
	return true
}

func shortError(err error) string {
	if inner, ok := err.(*os.PathError); ok {
		return inner.Err.Error()
	}
	return err.Error()
}

// glob is Python's glob.glob: * and ? do not match a leading dot, [!a] negates, a backslash is itself.
func glob(pattern string) []string {
	dir, base := split(pattern)
	if !hasMagic(pattern) {
		if _, err := os.Lstat(pattern); err == nil {
			return []string{pattern}
		}
		return nil
	}
	dirs := []string{dir}
	if hasMagic(dir) {
		dirs = glob(dir)
	}
	var all []string
	for _, d := range dirs {
		switch {
		case base == "":
			if isDir(d) {
				all = append(all, join(d, ""))
			}
		case !hasMagic(base):
			if _, err := os.Lstat(join(d, base)); err == nil {
				all = append(all, join(d, base))
			}
		default:
			entries, err := os.ReadDir(d)
			if err != nil {
				continue // Python's glob passes over folders that it cannot read
			}
			for _, e := range entries {
				if hidden := strings.HasPrefix(e.Name(), "."); (!hidden || strings.HasPrefix(base, ".")) && matches([]rune(base), []rune(e.Name())) {
					all = append(all, join(d, e.Name()))
				}
			}
		}
	}
	return all
}

// split is Python's os.path.split.
func split(path string) (dir, base string) {
	cut := strings.LastIndexByte(path, '/') + 1
	dir, base = path[:cut], path[cut:]
	if strings.Trim(dir, "/") != "" {
		dir = strings.TrimRight(dir, "/")
	}
	return dir, base
}

func join(dir, base string) string {
	if dir == "" || strings.HasSuffix(dir, "/") {
		return dir + base
	}
	return dir + "/" + base
}

func hasMagic(s string) bool { return strings.ContainsAny(s, "*?[") }

// matches is Python's fnmatch for one name. Going back to the last * alone keeps it from taking exponential time.
func matches(pattern, name []rune) bool {
	p, n, star, mark := 0, 0, -1, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, n
			p++
			continue
		}
		if width, ok := matchOne(pattern[p:], name[n]); ok {
			p += width
			n++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, n = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches one character with the front of pattern, which is so many characters wide.
func matchOne(pattern []rune, c rune) (int, bool) {
	if len(pattern) == 0 {
		return 0, false
	}
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		if set, width := charSet(pattern); width > 0 {
			return width, inSet(set, c)
		}
	}
	return 1, pattern[0] == c
}

// charSet is what stands between brackets; a width of 0 means that the bracket is an ordinary character.
func charSet(pattern []rune) (set []rune, width int) {
	end := 1
	if end < len(pattern) && pattern[end] == '!' {
		end++
	}
	if end < len(pattern) && pattern[end] == ']' {
		end++
	}
	for end < len(pattern) && pattern[end] != ']' {
		end++
	}
	if end >= len(pattern) {
		return nil, 0
	}
	return pattern[1:end], end + 1
}

func inSet(set []rune, c rune) bool {
	want := true
	if set[0] == '!' {
		want, set = false, set[1:]
	}
	for i := 0; i < len(set); i++ {
		if i+2 < len(set) && set[i+1] == '-' {
			if set[i] <= c && c <= set[i+2] {
				return want
			}
			i += 2
			continue
		}
		if set[i] == c {
			return want
		}
	}
	return !want
}
