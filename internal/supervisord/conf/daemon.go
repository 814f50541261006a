package conf

import (
	"cmp"
	"os"
	"strings"
)

var levels = map[string]Level{
	"critical": LevelCritical, "error": LevelError, "warn": LevelWarn, "info": LevelInfo, "debug": LevelDebug,
	"trace": LevelTrace, "blather": LevelBlather,
}

// ParseLevel reads a log level as loglevel= and -e give it.
func ParseLevel(s string) (Level, bool) {
	l, ok := levels[strings.ToLower(s)]
	return l, ok
}

// supervisord reads the [supervisord] section, key after key in Supervisor's order.
func (r *reader) supervisord(section *section) {
	s := r.scope(section, names{"here": textValue(r.config.Here)})
	d := &r.config.Supervisord
	d.Position = section.at
	d.MinFDs = s.integer("minfds", 1024)
	d.MinProcs = s.integer("minprocs", 200)
	d.Directory = s.folder("directory", "")
	d.User = s.text("user", "")
	d.Umask = s.octal("umask", 0o22, "")
	d.Logfile = s.file("logfile", "supervisord.log")
	d.LogfileMaxBytes = s.bytes("logfile_maxbytes", 50<<20)
	d.LogfileBackups = s.integer("logfile_backups", 10)
	d.Loglevel = s.level()
	d.Pidfile = s.file("pidfile", "supervisord.pid")
	d.Identifier = s.text("identifier", "supervisor")
	d.NoDaemon = s.boolean("nodaemon", false)
	d.Silent = s.boolean("silent", false)
	d.ChildLogDir = s.folder("childlogdir", r.tempDir())
	d.NoCleanup = s.boolean("nocleanup", false)
	d.StripANSI = s.boolean("strip_ansi", false)
	if d.Logfile != "syslog" {
		d.Logfile = s.absolute(cmp.Or(d.Logfile, "supervisord.log"))
	}
	d.Pidfile = s.absolute(cmp.Or(d.Pidfile, "supervisord.pid"))
	d.Environment = s.environment(s.text("environment", ""), names{"here": textValue(r.config.Here), "host_node_name": textValue(r.node)})
	for k, v := range d.Environment {
		r.environ["ENV_"+k] = textValue(v)
	}
}

// environment reads KEY=value pairs from text, expanded by the names given.
func (s *scope) environment(text string, local names) map[string]string {
	in := &scope{reader: s.reader, section: s.section, names: local}
	expanded, ok := in.expand(text, "environment", "environment")
	if !ok {
		return nil
	}
	all, err := pairs(expanded)
	if err != nil {
		s.report.problem(problem{
			code: "bad-environment", at: s.at("environment"), what: "environment is no list of KEY=value pairs: " + err.Error(), words: err.Error(),
			fix: `write KEY="value",OTHER="value", with quotes around values that hold anything but letters, digits and _/.+-():`,
		})
		return nil
	}
	env := make(map[string]string, len(all))
	for _, pair := range all {
		env[pair[0]] = pair[1]
	}
	return env
}

func (s *scope) level() Level {
	v, ok := s.lookup("loglevel")
	if !ok {
		return LevelInfo
	}
	l, known := ParseLevel(v)
	if !known {
		s.report.problem(problem{
			code: "bad-loglevel", at: s.at("loglevel"), what: "loglevel is " + quote(v) + ", which is no level",
			words: "bad logging level name " + repr(v), fix: "one of critical, error, warn, info, debug, trace, blather",
		})
	}
	return l
}

// tempDir is the folder of temporary files, as Python finds it.
func (r *reader) tempDir() string {
	for _, key := range []string{"TMPDIR", "TEMP", "TMP"} {
		if dir := r.environ["ENV_"+key].text; dir != "" && isDir(dir) {
			return dir
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/usr/tmp"} {
		if isDir(dir) {
			return dir
		}
	}
	return os.TempDir()
}

// StockInterface is the RPC interface that Supervisor comes with: the one its own supervisorctl speaks.
const StockInterface = "supervisor.rpcinterface:make_main_rpcinterface"

// interfaces reads the [rpcinterface:x] sections.
func (r *reader) interfaces() {
	const key = "supervisor.rpcinterface_factory"
	for _, section := range r.doc.sections {
		name, found := strings.CutPrefix(section.name, "rpcinterface:")
		if !found {
			continue
		}
		s := r.scope(section, nil)
		factory, ok := s.lookup(key)
		switch {
		case !ok && s.raw(key, "") == "":
			r.report.problem(problem{
				code: "plugin-without-factory", at: section.at, what: "[" + section.name + "] names no factory",
				words: "section [" + section.name + "] does not specify a " + key, fix: "add " + key + " = " + StockInterface,
			})
		case ok && factory != StockInterface:
			r.report.warn(s.at(key), "plugin-not-run", "drop the section; look for the method in docs/SUPERVISOR.md", "[%s]: the Python plug-in %s is not run", section.name, factory)
		case ok:
			r.config.Interfaces = append(r.config.Interfaces, name)
		}
	}
	if r.doc.section("rpcinterface:supervisor") == nil {
		r.report.warn(Position{File: r.path}, "no-rpcinterface", "add [rpcinterface:supervisor] with supervisor.rpcinterface_factory = "+StockInterface, "there is no [rpcinterface:supervisor] section, so Supervisor's own daemon would not answer supervisorctl")
	}
}
