package translate

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// Bounds of hozo.yaml that Supervisor does not have.
const (
	maxScale     = 256
	maxStopSecs  = 3600
	defaultStop  = 10
	defaultPrio  = 999
	defaultBytes = 50 << 20
	defaultKeep  = 10
	minLog       = 4 << 10
	maxKeep      = 1000
)

// service is what is written for one program, or for the alike processes of one.
type service struct {
	name   string
	off    string // why it is commented out, or ""
	notes  []string
	fields []field
}

type field struct{ key, value string }

func (s *service) note(format string, args ...any) {
	// A value of the file may hold line ends, which would end the comment.
	s.notes = append(s.notes, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", " "))
}

func (s *service) set(key, format string, args ...any) {
	s.fields = append(s.fields, field{key, fmt.Sprintf(format, args...)})
}

// services makes services of a group: one for each section whose processes are alike but for their numbers, else one for
// each process.
func (w *writer) services(c *conf.Config, g *conf.Group) []*service {
	var all []*service
	for rest := g.Programs; len(rest) > 0; {
		n := 1
		for n < len(rest) && n < maxScale && rest[n].Section == rest[0].Section && alike(rest[0], rest[n]) {
			n++
		}
		all = append(all, w.one(c, g, rest[:n]))
		rest = rest[n:]
	}
	return all
}

// alike says whether two processes differ in nothing but name and number.
func alike(a, b conf.Program) bool {
	a.Name, a.Number, b.Name, b.Number = "", 0, "", 0
	return reflect.DeepEqual(a, b)
}

func (w *writer) one(c *conf.Config, g *conf.Group, processes []conf.Program) *service {
	p := processes[0]
	s := &service{}
	_, wanted, _ := strings.Cut(p.Section, ":")
	if len(processes) == 1 && p.Count > 1 {
		wanted = p.Name
	}
	if g.Kind == conf.KindGroup {
		wanted = g.Name + "-" + wanted
	}
	s.name = w.name(wanted)
	from := "[" + p.Section + "]"
	if g.Kind == conf.KindGroup {
		from += " of [group:" + g.Name + "]"
	}
	s.note("%s", from)
	s.run(p)
	if len(processes) > 1 {
		s.set("scale", "%d", len(processes))
	}
	s.environment(p)
	if dir := cmp.Or(p.Directory, c.Supervisord.Directory); dir != "" {
		s.set("dir", "%s", quote(dir))
	}
	if user := cmp.Or(p.User, c.Supervisord.User); user != "" && user != "root" {
		s.set("user", "%s", quote(user))
	}
	s.restart(p)
	s.stop(p)
	s.log(p)
	s.lost(g, p)
	switch {
	case g.Kind == conf.KindListener:
		s.off = "An event listener speaks Supervisor's protocol, which hozo up has no place for; hozo supervisord runs it."
	case g.Kind == conf.KindFCGI:
		s.off = "A FastCGI program expects " + g.Socket.URL() + " as its standard input; hozo up hands over sockets by LISTEN_FDS instead."
	case s.off == "" && !p.AutoStart:
		s.off = "autostart=false: it waits for someone to start it. Take the # away to have it started with the others."
	}
	return s
}

// run writes the command as a list, so that its words are those that Supervisor finds.
func (s *service) run(p conf.Program) {
	words, err := conf.Split(p.Command)
	if err != nil || len(words) == 0 {
		s.off = "The command cannot be run, here or there: it is empty, or a quotation in it is not closed."
		s.set("run", "%s", quote(p.Command))
		return
	}
	for i := range words {
		words[i] = quote(words[i])
	}
	s.set("run", "[%s]", strings.Join(words, ", "))
}

var variable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,62}$`)

func (s *service) environment(p conf.Program) {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(p.Environment)) {
		if !variable.MatchString(key) {
			s.note("not carried over: environment variable %s, whose name a hozo.yaml cannot hold", quote(key))
			continue
		}
		pairs = append(pairs, key+": "+quote(p.Environment[key]))
	}
	if len(pairs) > 0 {
		s.set("env", "{ %s }", strings.Join(pairs, ", "))
	}
}

func (s *service) restart(p conf.Program) {
	switch p.AutoRestart {
	case conf.RestartNever:
		s.set("restart", "never")
	case conf.RestartUnexpected:
		s.set("restart", "on-failure")
		if !slices.Equal(p.ExitCodes, []int{0}) {
			s.note("exitcodes=%s: on-failure takes 0 alone for a good end", strings.Trim(fmt.Sprint(p.ExitCodes), "[]"))
		}
	}
	if p.StartSecs != 1 {
		s.note("startsecs=%d: what up means is said by health; without it a service is up when it is started", p.StartSecs)
	}
}

func (s *service) stop(p conf.Program) {
	name := strings.TrimPrefix(unix.SignalName(p.StopSignal), "SIG")
	if name == "" {
		s.note("not carried over: stopsignal=%d, which has no name", int(p.StopSignal))
		name = "TERM"
	}
	grace := min(max(p.StopWaitSecs, 0), maxStopSecs)
	if grace != p.StopWaitSecs {
		s.note("stopwaitsecs=%d: a hozo.yaml holds up to an hour", p.StopWaitSecs)
	}
	switch {
	case name == "TERM" && grace == defaultStop:
	case name == "TERM":
		s.set("stop", "%ds", grace)
	default:
		s.set("stop", "{ signal: %s, grace: %ds }", name, grace)
	}
}

// log writes the bounds of a log that had bounds of its own.
func (s *service) log(p conf.Program) {
	l := p.Stdout
	if l.Kind == conf.LogFile || l.Kind == conf.LogNone {
		s.note("stdout_logfile=%s: hozo logs %s shows it now", cmp.Or(l.Path, "NONE"), s.name)
	}
	if p.Stderr.Kind == conf.LogFile {
		s.note("stderr_logfile=%s: in the same log", p.Stderr.Path)
	}
	if l.MaxBytes == 0 {
		s.note("stdout_logfile_maxbytes=0: a log is always rotated")
		return
	}
	var bounds []string
	if l.MaxBytes != defaultBytes && l.MaxBytes > 0 {
		bounds = append(bounds, fmt.Sprintf("max_bytes: %d", max(l.MaxBytes, minLog)))
	}
	if l.Backups != defaultKeep && l.Backups >= 0 {
		bounds = append(bounds, fmt.Sprintf("keep: %d", min(l.Backups, maxKeep)))
	}
	if len(bounds) > 0 {
		s.set("log", "{ %s }", strings.Join(bounds, ", "))
	}
}

// lost notes what has no counterpart.
func (s *service) lost(g *conf.Group, p conf.Program) {
	lost := func(is bool, format string, args ...any) {
		if is {
			s.note("not carried over: "+format, args...)
		}
	}
	lost(p.Umask >= 0, "umask=%03o", p.Umask)
	lost(p.StopAsGroup, "stopasgroup: the stop signal goes to the main process, which tells its own; what is left after the grace is killed")
	lost(p.Stdout.CaptureMaxBytes > 0 || p.Stderr.CaptureMaxBytes > 0, "capture_maxbytes, for there are no event listeners")
	lost(p.Stdout.Events || p.Stderr.Events, "events_enabled, for there are no event listeners")
	lost(p.Stdout.Syslog || p.Stderr.Syslog, "syslog")
	if p.Priority != defaultPrio || g.Priority != defaultPrio && g.Kind != conf.KindListener {
		order := p.Priority
		if p.Priority == defaultPrio {
			order = g.Priority
		}
		s.note("priority=%d: services start together. If one must come first, write needs: [NAME], which waits for it", order)
	}
}
