// Package translate writes the hozo.yaml that does what a supervisord.conf did, and says in it what it could not carry
// over.
package translate

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

// Manifest is the text of a hozo.yaml for c. Each program is a service; what Hozo does otherwise, or not at all, stands
// as a comment beside it, and a program that cannot be a service, or is not started by itself, stands commented out.
func Manifest(c *conf.Config) string {
	w := &writer{taken: map[string]bool{}}
	w.head(c)
	var live, idle []*service
	for i := range c.Groups {
		for _, s := range w.services(c, &c.Groups[i]) {
			if s.off == "" {
				live = append(live, s)
			} else {
				idle = append(idle, s)
			}
		}
	}
	if len(live) == 0 {
		w.line("services: {}")
	} else {
		w.line("services:")
	}
	for _, s := range live {
		w.service(s, "  ")
	}
	for _, s := range idle {
		w.line("")
		w.line("  # %s", s.off)
		w.service(s, "  # ")
	}
	return w.out.String()
}

type writer struct {
	out   strings.Builder
	taken map[string]bool // names of services
}

func (w *writer) line(format string, args ...any) {
	w.out.WriteString(strings.TrimRight(fmt.Sprintf(format, args...), " ") + "\n")
}

func (w *writer) head(c *conf.Config) {
	w.line("# Written from %s by hozo import. Look through it once, then: hozo validate, hozo up.", filepath.Base(c.File))
	w.line("# - supervisorctl does not speak to it: hozo ps, status, logs, start, stop and restart take its place. To keep")
	w.line("#   supervisorctl, event listeners and XML-RPC, run the file itself with hozo supervisord.")
	w.line("# - A service that keeps ending is started again after ever longer pauses and not given up after startretries.")
	w.line("# - stdout and stderr of an instance share one log, .hozo/logs/NAME.N.log; hozo logs NAME shows it.")
	w.line("# - A stop always ends the whole tree of processes, and SUPERVISOR_ variables are not set.")
	w.line("project: %s", w.name(project(c)))
	w.line("")
	delete(w.taken, project(c)) // a project and a service may share a name
}

func project(c *conf.Config) string {
	if id := c.Supervisord.Identifier; id != "" && id != "supervisor" {
		return plain(id)
	}
	return plain(filepath.Base(c.Here))
}

// name makes a name that Hozo allows, and that no other service has.
func (w *writer) name(wanted string) string {
	name := plain(wanted)
	for n := 2; w.taken[name]; n++ {
		suffix := fmt.Sprintf("-%d", n)
		name = plain(wanted)
		name = name[:min(len(name), maxName-len(suffix))] + suffix
	}
	w.taken[name] = true
	return name
}

const maxName = 48

// plain keeps of a name what a lower-case letter, letters, digits and - can say.
func plain(name string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z', b.Len() > 0 && r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() == 0 && r >= '0' && r <= '9':
			b.WriteString("p" + string(r))
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	s := strings.Trim(b.String(), "-")
	if s == "" {
		return "program"
	}
	return strings.TrimRight(s[:min(len(s), maxName)], "-")
}

// service writes one service, each line after a prefix.
func (w *writer) service(s *service, prefix string) {
	for _, n := range s.notes {
		w.line("%s# %s", prefix, n)
	}
	w.line("%s%s:", prefix, s.name)
	for _, f := range s.fields {
		w.line("%s  %s: %s", prefix, f.key, f.value)
	}
}

// quote writes a text as a YAML scalar in double quotes, whose escapes are those of JSON.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteString(`\` + string(r))
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == 0xfeff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
