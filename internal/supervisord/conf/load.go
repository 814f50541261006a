package conf

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/hozo-dev/hozo/fault"
)

// maxSource bounds one file. A program is about 1 KiB: this is room for thousands.
const maxSource = 16 << 20

// Options is what Load knows of the daemon. The zero Options is an empty environment on a host without a name.
type Options struct {
	// Environ is the daemon's environment, as os.Environ gives it: %(ENV_X)s.
	Environ []string
	// NodeName is %(host_node_name)s: the kernel's name of the host.
	NodeName string
}

// Warning is something in the file that does not stop the daemon.
type Warning struct {
	Code     string // stable: supervisord/what
	Text     string // Supervisor's own words where it has some
	Fix      string
	Position Position
}

// Load reads the configuration at path and the files it includes.
//
// The error joins one *fault.Error of Kind Misuse for each mistake; Message gives Supervisor's words for it. Nothing is
// created or changed on disk, so Load may be called on a running daemon to see what would change.
func Load(path string, opts Options) (*Config, []Warning, error) {
	r := &reader{report: &report{}, doc: newDocument(), from: map[string]string{}, path: path, node: opts.NodeName, environ: names{}}
	for _, pair := range opts.Environ {
		if key, v, ok := strings.Cut(pair, "="); ok {
			r.environ["ENV_"+key] = textValue(v)
		}
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, fileFault(path, "could not read config file "+path, "check the working directory", err)
	}
	r.config = &Config{File: full, Here: filepath.Dir(full)}
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fileFault(path, "could not find config file "+path, "write it, or name another with -c", nil)
	}
	if err != nil {
		return nil, nil, fileFault(path, "could not read config file "+path, "check its permissions", err)
	}
	if !r.merge(text, path) {
		return nil, r.report.warnings, r.report.err()
	}
	if !r.include() {
		return nil, r.report.warnings, r.report.err()
	}
	r.sections()
	if err := r.report.err(); err != nil {
		return nil, r.report.warnings, err
	}
	return r.config, r.report.warnings, nil
}

// reader is the state of one Load.
type reader struct {
	report  *report
	doc     *document
	config  *Config
	path    string            // as the caller gave it: Supervisor's messages show it so
	from    map[string]string // sections that an included file brought in
	node    string
	environ names // ENV_ names
}

// merge parses one file into the document; false means that a mistake has been noted.
func (r *reader) merge(text, name string) bool {
	if !utf8.ValidString(text) {
		r.report.problem(problem{code: "not-utf8", at: Position{File: name, Line: badLine(text)}, what: name + " is not UTF-8", fix: "convert it: iconv -t UTF-8"})
		return false
	}
	bad := r.doc.read(text, name, name)
	for _, b := range bad {
		r.report.problem(problem{code: "syntax", at: b.at, what: b.what, words: b.message, fix: b.fix})
	}
	for _, twice := range r.doc.repeated {
		r.report.warn(twice.second, "repeated-key", "keep one of them", "[%s] sets %s twice, and the last one holds: the value at %s is lost", twice.section, twice.key, twice.first)
	}
	r.doc.repeated = nil
	return len(bad) == 0
}

func badLine(text string) int {
	line := 1
	for _, c := range text {
		if c == utf8.RuneError {
			break
		}
		if c == '\n' {
			line++
		}
	}
	return line
}

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() // only read: closing cannot lose anything
	text, err := io.ReadAll(io.LimitReader(f, maxSource+1))
	if err == nil && len(text) > maxSource {
		err = errors.New("it is larger than 16 MiB")
	}
	return string(text), err
}

func fileFault(path, what, fix string, err error) error {
	if inner, ok := errors.AsType[*fs.PathError](err); ok {
		err = inner.Err
	}
	return &spoken{words: what, fault: &fault.Error{Code: "supervisord/unreadable", Kind: fault.Misuse, What: what, Where: path, Fix: fix, Err: err}}
}

// sections reads every section in Supervisor's order, so that the first mistake found is the one it would name.
func (r *reader) sections() {
	main := r.doc.section("supervisord")
	if main == nil {
		r.report.problem(problem{
			code: "no-supervisord-section", at: Position{File: r.path}, what: "there is no [supervisord] section",
			words: ".ini file does not include supervisord section", fix: "add a line [supervisord]; all its keys have defaults",
		})
		return
	}
	r.supervisord(main)
	r.interfaces()
	r.groups()
	for i := range r.config.Groups {
		for j := range r.config.Groups[i].Programs {
			p := &r.config.Groups[i].Programs[j]
			p.Environment = overlay(r.config.Supervisord.Environment, p.Environment)
		}
	}
	r.servers()
	if in := r.scope(main, nil); in.raw("user", "none") != "none" {
		if _, err := lookupUser(r.config.Supervisord.User); err != nil {
			r.report.problem(noUser(in.at("user"), err))
		}
	}
	r.supervisorctl()
	r.unknown()
}

func overlay(base, over map[string]string) map[string]string {
	all := make(map[string]string, len(base)+len(over))
	maps.Copy(all, base)
	maps.Copy(all, over)
	return all
}

func noUser(at Position, err error) problem {
	return problem{code: "no-user", at: at, what: err.Error(), fix: "create the user, or correct the name"}
}

// expandUser is Python's expanduser: ~ is the home of the daemon's user, ~name that of another.
func (r *reader) expandUser(path string) string {
	rest, found := strings.CutPrefix(path, "~")
	if !found {
		return path
	}
	name, below, _ := strings.Cut(rest, "/")
	if below != "" || strings.HasSuffix(rest, "/") {
		below = "/" + below
	}
	home := ""
	if name == "" {
		home = r.environ["ENV_HOME"].text
		if home == "" {
			if u, err := user.Current(); err == nil {
				home = u.HomeDir
			}
		}
	} else if u, err := user.Lookup(name); err == nil {
		home = u.HomeDir
	}
	if home == "" {
		return path
	}
	return strings.TrimRight(home, "/") + below
}
