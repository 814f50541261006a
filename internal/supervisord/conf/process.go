package conf

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// programs reads a [program:x], [eventlistener:x] or [fcgi-program:x] section: one Program for each process number,
// sorted by priority, then name.
func (r *reader) programs(section *section, group string) []Program {
	r.report.suffix = " in section " + repr(section.name) + " (file: " + repr(cmp.Or(r.from[section.name], r.path)) + ")"
	defer func() { r.report.suffix = "" }()
	_, name, _ := strings.Cut(section.name, ":")
	name = r.name(name, section.at)
	local := names{
		"here": textValue(r.config.Here), "program_name": textValue(name),
		"host_node_name": textValue(r.node), "group_name": textValue(group),
	}
	s := r.scope(section, local)
	common := Program{Group: group, Section: section.name, Position: section.at}
	common.Count = s.common(&common)
	first := s.integer("numprocs_start", 0)
	environment := s.raw("environment", "")
	s.channel(&common.Stdout, "stdout")
	s.channel(&common.Stderr, "stderr")
	s.serverURL(&common)
	s.user(&common)
	common.Umask = s.octal("umask", -1, "")
	processName := r.name(s.raw("process_name", "%(program_name)s"), s.at("process_name"))
	if common.Count > 1 && !strings.Contains(processName, "%(process_num)") {
		r.report.problem(problem{
			code: "numprocs-name", at: s.at("process_name"), what: "numprocs is " + strconv.Itoa(common.Count) + ", but process_name gives all of them one name",
			words: "%(process_num) must be present within process_name when numprocs > 1", fix: "add process_name = %(program_name)s_%(process_num)02d",
		})
		return nil
	}
	if common.StopAsGroup && !common.KillAsGroup {
		r.report.problem(problem{
			code: "stop-and-kill-group", at: s.at("killasgroup"), what: "stopasgroup is true and killasgroup is false",
			words: "Cannot set stopasgroup=true and killasgroup=false", fix: "drop killasgroup: it follows stopasgroup",
		})
	}
	const most = 100_000 // beyond it the machine has no processes left, and a slip would eat the memory
	if common.Count > most {
		r.report.problem(problem{code: "too-many", at: s.at("numprocs"), what: "numprocs is " + strconv.Itoa(common.Count), fix: "write at most 100000"})
		return nil
	}
	var all []Program
	for number := first; number < first+common.Count; number++ {
		p := common
		p.Number = number
		// The names of the last process stay, those of the daemon's environment are fresh: Supervisor's own order.
		local["process_num"], local["numprocs"] = intValue(number), intValue(p.Count)
		maps.Copy(local, r.environ)
		s.process(&p, environment, processName)
		all = append(all, p)
	}
	slices.SortStableFunc(all, func(a, b Program) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name))
	})
	return all
}

// common reads what every process of the section shares and returns numprocs.
func (s *scope) common(p *Program) int {
	p.Priority = s.integer("priority", 999)
	p.AutoStart = s.boolean("autostart", true)
	p.AutoRestart = s.autoRestart()
	p.StartSecs = s.integer("startsecs", 1)
	p.StartRetries = s.integer("startretries", 3)
	p.StopSignal = s.signal("stopsignal", syscall.SIGTERM)
	p.StopWaitSecs = s.integer("stopwaitsecs", 10)
	p.StopAsGroup = s.boolean("stopasgroup", false)
	p.KillAsGroup = s.boolean("killasgroup", p.StopAsGroup)
	p.ExitCodes = s.exitCodes()
	p.RedirectStderr = s.boolean("redirect_stderr", false)
	return s.integer("numprocs", 1)
}

// channel reads the keys of a channel that no process number can change.
func (s *scope) channel(l *Log, name string) {
	l.CaptureMaxBytes = s.bytes(name+"_capture_maxbytes", 0)
	l.Events = s.boolean(name+"_events_enabled", false)
}

// serverURL reads serverurl, where AUTO is the default.
func (s *scope) serverURL(p *Program) {
	v, ok := s.lookup("serverurl")
	if ok && strip(v) == "" {
		s.report.warn(s.at("serverurl"), "empty-value", "drop the line, or write AUTO", "[%s]: serverurl is empty, and counts as AUTO", p.Section)
	}
	if v = strip(v); !strings.EqualFold(v, "AUTO") {
		p.ServerURL = v
	}
}

func (s *scope) user(p *Program) {
	p.UID = -1
	v, ok := s.lookup("user")
	if !ok {
		return
	}
	u, err := lookupUser(v)
	if err != nil {
		s.report.problem(noUser(s.at("user"), err))
		return
	}
	p.User = v
	p.UID, _ = strconv.Atoi(u.Uid) // on Linux it is a number
}

// process reads what depends on the process number.
func (s *scope) process(p *Program, environment, processName string) {
	p.Environment = s.environment(environment, s.environ.with(s.names))
	for key, v := range p.Environment {
		s.names["ENV_"+key] = textValue(v)
	}
	var ok bool
	if p.Directory, ok = s.lookup("directory"); ok && p.Directory == "" && s.raw("directory", "") == "" {
		s.report.warn(s.at("directory"), "empty-value", "drop the line", "[%s]: directory is empty, and counts as not set; Supervisor would fail every start", p.Section)
	}
	s.log(&p.Stdout, p.Section, "stdout")
	s.log(&p.Stderr, p.Section, "stderr")
	if p.RedirectStderr {
		if p.Stderr.Kind == LogFile {
			s.report.warn(s.at("stderr_logfile"), "stderr-redirected", "drop one of the two", "For [%s], redirect_stderr=true but stderr_logfile has also been set to a filename, the filename has been ignored", p.Section)
		}
		p.Stderr.Kind, p.Stderr.Path = LogNone, ""
	}
	p.Command, ok = s.lookup("command")
	if !ok && s.raw("command", "\x00") == "\x00" {
		s.report.problem(problem{
			code: "no-command", at: s.section.at, what: "[" + p.Section + "] has no command",
			words: "program section " + p.Section + " does not specify a command", fix: "add command = /path/to/program",
		})
	}
	p.Name, _ = s.expand(processName, "process_name", "process_name")
}

// log reads where a channel goes.
func (s *scope) log(l *Log, section, channel string) {
	key := channel + "_logfile"
	path, ok := s.lookup(key)
	if ok {
		// Supervisor expands this one twice, so a percent sign in it is written four times.
		if path, ok = s.expand(path, key, key); !ok {
			path = "none"
		}
	} else {
		path = "auto"
	}
	l.Kind = LogNone
	switch strings.ToLower(path) {
	case "none", "off", "syslog", "":
	case "auto":
		l.Kind = LogAuto
	default:
		l.Kind, l.Path = LogFile, s.checkFile(key, path)
	}
	l.Backups = s.integer(key+"_backups", 10)
	l.MaxBytes = s.bytes(key+"_maxbytes", 50<<20)
	l.Syslog = s.boolean(channel+"_syslog", false)
	if strings.EqualFold(path, "syslog") {
		l.Syslog = true
		s.report.warn(s.at(key), "syslog-file", "write "+channel+"_syslog=true", "For [%s], %s=syslog but this is deprecated and will be removed.  Use %s=true to enable syslog instead.", section, key, channel+"_syslog")
	}
	if l.Kind == LogAuto && l.MaxBytes == 0 {
		s.report.warn(s.at(key+"_maxbytes"), "auto-log-grows", "set "+key+"_maxbytes, or name a file", "For [%s], AUTO logging used for %s without rollover, set maxbytes > 0 to avoid filling up filesystem unintentionally", section, key)
	}
}

func (s *scope) autoRestart() AutoRestart {
	v, ok := s.lookup("autorestart")
	if !ok {
		return RestartUnexpected
	}
	switch strings.ToLower(v) {
	case "unexpected":
		return RestartUnexpected
	case "yes", "true", "on", "1":
		return RestartAlways
	case "no", "false", "off", "0":
		return RestartNever
	}
	s.report.problem(problem{
		code: "bad-autorestart", at: s.at("autorestart"), what: "autorestart is " + quote(v),
		words: "invalid 'autorestart' value " + repr(strings.ToLower(v)), fix: "write true, false or unexpected",
	})
	return RestartUnexpected
}

func (s *scope) signal(key string, fallback syscall.Signal) syscall.Signal {
	v, ok := s.lookup(key)
	if !ok {
		return fallback
	}
	sig, err := ParseSignal(v)
	if err != nil {
		s.report.problem(problem{code: "bad-signal", at: s.at(key), what: key + " is " + quote(v) + ", which is no signal", words: err.Error(), fix: "write a name such as TERM, INT, QUIT, HUP, USR1, or a number"})
		return fallback
	}
	return sig
}

func (s *scope) exitCodes() []int {
	v, ok := s.lookup("exitcodes")
	if !ok {
		return []int{0}
	}
	codes, err := exitCodes(v)
	if err != nil {
		s.report.problem(problem{code: "bad-exitcodes", at: s.at("exitcodes"), what: "exitcodes is " + quote(v) + ", which is no list of exit codes", words: "not a valid list of exit codes: " + repr(v), fix: "write numbers from 0 to 255 with commas between: 0,2"})
		return []int{0}
	}
	return codes
}
