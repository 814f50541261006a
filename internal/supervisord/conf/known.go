package conf

import (
	"cmp"
	"slices"
	"strings"
)

var (
	programKeys = []string{
		"command", "process_name", "numprocs", "numprocs_start", "priority", "autostart", "autorestart", "startsecs", "startretries",
		"exitcodes", "stopsignal", "stopwaitsecs", "stopasgroup", "killasgroup", "user", "umask", "directory", "environment",
		"serverurl", "redirect_stderr",
		"stdout_logfile", "stdout_logfile_maxbytes", "stdout_logfile_backups", "stdout_capture_maxbytes", "stdout_events_enabled", "stdout_syslog",
		"stderr_logfile", "stderr_logfile_maxbytes", "stderr_logfile_backups", "stderr_capture_maxbytes", "stderr_events_enabled", "stderr_syslog",
	}
	listenerKeys = append([]string{"events", "buffer_size", "result_handler"}, programKeys...)
	fcgiKeys     = append([]string{"socket", "socket_owner", "socket_mode", "socket_backlog"}, programKeys...)
	daemonKeys   = []string{
		"logfile", "logfile_maxbytes", "logfile_backups", "loglevel", "pidfile", "identifier", "umask", "nodaemon", "silent", "minfds",
		"minprocs", "nocleanup", "strip_ansi", "childlogdir", "user", "directory", "environment",
	}
)

// sectionKeys maps each section, or prefix with a colon, to the keys that Supervisor reads in it.
var sectionKeys = map[string][]string{
	"supervisord":      daemonKeys,
	"program:":         programKeys,
	"eventlistener:":   listenerKeys,
	"fcgi-program:":    fcgiKeys,
	"group:":           {"programs", "priority"},
	"include":          {"files"},
	"unix_http_server": {"file", "chmod", "chown", "username", "password"},
	"inet_http_server": {"port", "username", "password"},
	"supervisorctl":    {"serverurl", "username", "password", "prompt", "history_file"},
}

// unknown warns of sections and keys that nothing reads; Supervisor passes over them in silence.
func (r *reader) unknown() {
	for _, s := range r.doc.sections {
		kind := s.name
		if prefix, _, found := strings.Cut(s.name, ":"); found && !strings.HasSuffix(prefix, "_http_server") {
			kind = prefix + ":"
		} else if found {
			kind = prefix
		}
		switch kind {
		case "rpcinterface:":
			continue // a plug-in has keys of its own
		case "ctlplugin:":
			r.report.warn(s.at, "plugin-not-run", "none is needed for the daemon", "[%s]: a plug-in of supervisorctl; supervisorctl itself goes on running it, this daemon has no use for it", s.name)
			continue
		}
		keys, known := sectionKeys[kind]
		if !known {
			var kinds []string
			for k := range sectionKeys {
				kinds = append(kinds, k)
			}
			slices.Sort(kinds)
			r.report.warn(s.at, "unknown-section", orNear(kind, kinds, "drop it"), "[%s] is no section that Supervisor knows; it has no effect", s.name)
			continue
		}
		for _, key := range s.order {
			if !slices.Contains(keys, key) {
				r.report.warn(s.options[key].at, "unknown-key", orNear(key, keys, "drop it"), "[%s] has no key %s; it has no effect", s.name, key)
			}
		}
	}
}

// orNear proposes the nearest of the candidates as a fix; without one it is fallback, or the candidates.
func orNear(word string, candidates []string, fallback string) string {
	best, least := "", 3 // two slips still point at one word
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < least && d <= len(c)/2 {
			best, least = c, d
		}
	}
	if best != "" {
		return "did you mean " + quote(best) + "?"
	}
	return cmp.Or(fallback, "known: "+strings.Join(candidates, ", "))
}

// distance is the number of insertions, deletions and substitutions between a and b. Long words are never near.
func distance(a, b string) int {
	const most = 64
	if len(a) > most || len(b) > most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
