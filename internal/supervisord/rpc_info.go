//go:build linux

package supervisord

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

func infoMethods() map[string]method {
	return map[string]method{
		"supervisor.getAPIVersion": {
			call: func(rpc, args) result { return value(apiVersion) }, returns: "string",
			help: "The version of this interface.",
		},
		"supervisor.getSupervisorVersion": {
			call: func(rpc, args) result { return value(Version) }, returns: "string",
			help: "The version of Supervisor that the daemon behaves like.",
		},
		"supervisor.getIdentification": {
			call: func(r rpc, _ args) result { return value(r.d.conf.Supervisord.Identifier) }, returns: "string",
			help: "The identifier of the daemon.",
		},
		"supervisor.getState": {
			call: func(r rpc, _ args) result {
				return value(map[string]any{"statecode": int(r.d.mood), "statename": r.d.mood.String()})
			}, returns: "struct",
			help: "The state of the daemon: statecode and statename.",
		},
		"supervisor.getPID": {
			call: func(rpc, args) result { return value(os.Getpid()) }, returns: "int",
			help: "The process id of the daemon.",
		},
		"supervisor.shutdown": {
			call: func(r rpc, _ args) result { r.d.setMood(MoodShutdown); return value(true) }, returns: "boolean",
			help: "Stop every process and end the daemon.",
		},
		"supervisor.restart": {
			call: func(r rpc, _ args) result { r.d.setMood(MoodRestarting); return value(true) }, returns: "boolean",
			help: "Stop every process, read the configuration and start again.",
		},
		"supervisor.getProcessInfo": {
			call: rpc.getProcessInfo, min: 1, returns: "struct", params: []string{"string name"},
			help: "What there is to know of a process, named alone or as group:name.",
		},
		"supervisor.getAllProcessInfo": {
			call: rpc.getAllProcessInfo, returns: "array",
			help: "What there is to know of every process, sorted by group and name.",
		},
		"supervisor.getAllConfigInfo": {
			call: rpc.getAllConfigInfo, returns: "array",
			help: "The configuration of every process as it was read last, sorted by name.",
		},
	}
}

func (r rpc) getProcessInfo(a args) result {
	_, p, fault := r.one(a, 0)
	if fault != nil {
		return result{fault: fault}
	}
	return value(p.info())
}

func (r rpc) getAllProcessInfo(args) result {
	list := []any{}
	groups := slices.Clone(r.d.groups)
	slices.SortFunc(groups, func(a, b *group) int { return cmp.Compare(a.conf.Name, b.conf.Name) })
	for _, g := range groups {
		procs := slices.Clone(g.procs)
		slices.SortFunc(procs, func(a, b *process) int { return cmp.Compare(a.conf.Name, b.conf.Name) })
		for _, p := range procs {
			list = append(list, p.info())
		}
	}
	return value(list)
}

// info is the process as clients see it. Times are seconds since 1970.
func (p *process) info() map[string]any {
	now := time.Now()
	return map[string]any{
		"name":           p.conf.Name,
		"group":          p.group.conf.Name,
		"start":          unixSeconds(p.started),
		"stop":           unixSeconds(p.stopped),
		"now":            unixSeconds(now),
		"state":          int(p.state),
		"statename":      p.state.String(),
		"spawnerr":       p.spawnErr,
		"exitstatus":     p.exitStatus,
		"logfile":        p.stdoutPath(),
		"stdout_logfile": p.stdoutPath(),
		"stderr_logfile": p.stderrPath(),
		"pid":            p.pid,
		"description":    p.description(now),
	}
}

func (p *process) description(now time.Time) string {
	switch p.state {
	case Running:
		// Counted in whole seconds of the clock, as Supervisor does, but by a clock that nobody sets.
		up := p.started.Add(now.Sub(p.started)).Unix() - p.started.Unix()
		return fmt.Sprintf("pid %d, uptime %s", p.pid, uptime(up))
	case Fatal, Backoff:
		return cmp.Or(p.spawnErr, fmt.Sprintf(`unknown error (try "tail %s")`, p.conf.Name))
	case Stopped, Exited:
		if p.started.IsZero() {
			return "Not started"
		}
		if p.stopped.IsZero() {
			return time.Unix(0, 0).Format("Jan 02 03:04 PM")
		}
		return p.stopped.Format("Jan 02 03:04 PM")
	default:
		return ""
	}
}

// uptime writes seconds as Python's timedelta does.
func uptime(seconds int64) string {
	seconds = max(seconds, 0)
	text := fmt.Sprintf("%d:%02d:%02d", seconds/3600%24, seconds/60%60, seconds%60)
	switch days := seconds / 86400; days {
	case 0:
		return text
	case 1:
		return "1 day, " + text
	default:
		return fmt.Sprintf("%d days, %s", days, text)
	}
}

func unixSeconds(t time.Time) int {
	if t.IsZero() {
		return 0
	}
	return capped(t.Unix())
}

func (r rpc) getAllConfigInfo(args) result {
	type entry struct {
		name string
		info map[string]any
	}
	var entries []entry
	for i := range r.d.known {
		c := &r.d.known[i]
		g := r.d.group(c.Name)
		for j := range c.Programs {
			p := &c.Programs[j]
			info := configInfo(c, p)
			info["inuse"] = g != nil
			if g != nil && g.conf == c { // running as read last, so the names of its AUTO logs are known
				info["stdout_logfile"], info["stderr_logfile"] = orNone(g.logPath(p, "stdout")), orNone(g.logPath(p, "stderr"))
			}
			entries = append(entries, entry{p.Name, info})
		}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	list := make([]any, len(entries))
	for i, e := range entries {
		list[i] = e.info
	}
	return value(list)
}

// configInfo is a program as clients see it; what has no value is "none", what is made up by the daemon "auto".
func configInfo(g *conf.Group, p *conf.Program) map[string]any {
	codes := make([]any, len(p.ExitCodes))
	for i, c := range p.ExitCodes {
		codes[i] = c
	}
	info := map[string]any{
		"autostart": p.AutoStart, "autorestart": p.AutoRestart != conf.RestartNever,
		"directory": orNone(p.Directory), "uid": any("none"), "command": p.Command, "exitcodes": codes,
		"group": g.Name, "group_prio": g.Priority, "killasgroup": p.KillAsGroup, "name": p.Name,
		"process_prio": p.Priority, "redirect_stderr": p.RedirectStderr, "startretries": p.StartRetries,
		"startsecs": p.StartSecs, "stopsignal": int(p.StopSignal), "stopwaitsecs": p.StopWaitSecs,
		"serverurl": orNone(p.ServerURL),
	}
	if p.UID >= 0 {
		info["uid"] = p.UID
	}
	for name, l := range map[string]conf.Log{"stdout": p.Stdout, "stderr": p.Stderr} {
		path := "auto"
		switch l.Kind {
		case conf.LogNone:
			path = "none"
		case conf.LogFile:
			path = l.Path
		}
		info[name+"_logfile"] = path
		info[name+"_logfile_backups"] = l.Backups
		info[name+"_logfile_maxbytes"] = capped(l.MaxBytes)
		info[name+"_capture_maxbytes"] = capped(l.CaptureMaxBytes)
		info[name+"_events_enabled"] = l.Events
		info[name+"_syslog"] = l.Syslog
	}
	return info
}

func orNone(s string) string { return cmp.Or(s, "none") }
