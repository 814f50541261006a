package conf

import (
	"os"
	"path/filepath"
	"strings"
)

// servers reads the HTTP servers, inet ones first as Supervisor does.
func (r *reader) servers() {
	for _, section := range r.doc.sections {
		if strings.HasPrefix(section.name, "inet_http_server") {
			r.inetServer(r.scope(section, nil))
		}
	}
	for _, section := range r.doc.sections {
		if strings.HasPrefix(section.name, "unix_http_server") {
			r.unixServer(r.scope(section, nil))
		}
	}
}

func (r *reader) inetServer(s *scope) {
	server := InetServer{Section: s.section.name, Position: s.section.at, Auth: s.auth()}
	port, ok := s.lookup("port")
	if !ok {
		if s.raw("port", "\x00") == "\x00" {
			r.report.problem(problem{code: "no-port", at: s.section.at, what: "[" + s.section.name + "] has no port", words: "section [" + s.section.name + "] has no port value", fix: "add port = 127.0.0.1:9001"})
		}
		return
	}
	var err error
	if server.Host, server.Port, err = inetAddress(port); err != nil {
		r.report.problem(problem{code: "bad-port", at: s.at("port"), what: "port is " + quote(port) + ", which is no address", words: err.Error(), fix: "write 9001, *:9001 or 127.0.0.1:9001"})
	}
	r.config.InetServers = append(r.config.InetServers, server)
}

func (r *reader) unixServer(s *scope) {
	server := UnixServer{Section: s.section.name, Position: s.section.at, UID: -1, GID: -1}
	in := r.scope(s.section, names{"here": textValue(r.config.Here)})
	file, ok := in.lookup("file")
	if !ok && s.raw("file", "\x00") == "\x00" {
		r.report.problem(problem{code: "no-file", at: s.section.at, what: "[" + s.section.name + "] has no file", words: "section [" + s.section.name + "] has no file value", fix: "add file = /run/supervisor.sock"})
	}
	server.File = cleanPath(s.absoluteText(strip(file)))
	server.Auth = s.auth()
	if v, ok := s.lookup("chown"); ok {
		var err error
		if server.UID, server.GID, err = owner(v); err != nil {
			r.report.problem(noOwner(s.at("chown"), "chown", v, "Invalid sockchown value "))
		}
	}
	mode := s.octal("chmod", 0o700, "Invalid chmod value "+s.raw("chmod", ""))
	server.Mode = os.FileMode(mode) //nolint:gosec // checked to be octal
	r.config.UnixServers = append(r.config.UnixServers, server)
}

// absoluteText is path under the working directory, not cleaned.
func (s *scope) absoluteText(path string) string {
	path = s.expandUser(path)
	if strings.HasPrefix(path, "/") {
		return path
	}
	dir, err := filepath.Abs(".")
	if err != nil {
		return path // the working directory is gone; whoever opens the file says so
	}
	return dir + "/" + path
}

// auth reads username and password, of which neither goes alone.
func (s *scope) auth() Auth {
	username, hasUser := s.lookup("username")
	password, hasPassword := s.lookup("password")
	if hasUser != hasPassword {
		missing := "password"
		if hasPassword {
			missing = "username"
		}
		s.report.problem(problem{
			code: "incomplete-auth", at: s.section.at, what: "[" + s.section.name + "] has no " + missing,
			words: "Section [" + s.section.name + "] contains incomplete authentication: If a username or a password is specified, both the username and password must be specified",
			fix:   "add " + missing + " = …, or drop both",
		})
	}
	return Auth{Username: username, Password: password, Required: hasUser && hasPassword}
}

// supervisorctl reads what the daemon itself has no use for; mistakes in it are supervisorctl's to find.
func (r *reader) supervisorctl() {
	c := &r.config.Supervisorctl
	*c = Supervisorctl{ServerURL: "http://localhost:9001", Prompt: "supervisor"}
	section := r.doc.section("supervisorctl")
	if section == nil {
		return
	}
	known := r.environ.with(names{"here": textValue(r.config.Here)})
	for key, to := range map[string]*string{"serverurl": &c.ServerURL, "prompt": &c.Prompt, "username": &c.Username, "password": &c.Password, "history_file": &c.HistoryFile} {
		if o, ok := r.doc.get(section, key); ok {
			if v, err := format(o.value, known); err == nil {
				*to = v
			}
		}
	}
}
