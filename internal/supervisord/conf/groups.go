package conf

import (
	"cmp"
	"os"
	"slices"
	"strings"
)

// name checks the name of a program, group or process.
func (r *reader) name(name string, at Position) string {
	name, err := checkName(name)
	if err != nil {
		r.report.problem(problem{code: "bad-name", at: at, what: err.Error(), fix: "use letters, digits, - and _"})
	}
	return name
}

// groups reads every program, in Supervisor's order: groups first, for their programs have no group of their own.
func (r *reader) groups() {
	taken := map[string]bool{}
	r.each("group:", func(s *scope, name string) { r.group(s, name, taken) })
	r.each("program:", func(s *scope, name string) {
		if taken[s.section.name] {
			return
		}
		name = r.name(name, s.section.at)
		g := Group{Name: name, Kind: KindProgram, Priority: s.integer("priority", 999), Position: s.section.at}
		g.Programs = r.programs(s.section, name)
		r.config.Groups = append(r.config.Groups, g)
	})
	r.each("eventlistener:", r.listener)
	r.each("fcgi-program:", func(s *scope, name string) {
		if !taken[s.section.name] {
			r.fcgi(s, name)
		}
	})
	slices.SortStableFunc(r.config.Groups, func(a, b Group) int { return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Name, b.Name)) })
	r.twins()
}

func (r *reader) each(prefix string, read func(*scope, string)) {
	for _, section := range r.doc.sections {
		if name, found := strings.CutPrefix(section.name, prefix); found {
			read(r.scope(section, names{"here": textValue(r.config.Here)}), name)
		}
	}
}

// group reads a [group:x] and the programs in it.
func (r *reader) group(s *scope, name string, taken map[string]bool) {
	name = r.name(name, s.section.at)
	programs := list(s.text("programs", ""))
	g := Group{Name: name, Kind: KindGroup, Priority: s.integer("priority", 999), Position: s.section.at}
	if len(programs) == 0 {
		r.report.warn(s.section.at, "empty-group", "add programs = NAME,NAME", "[%s] has no programs", s.section.name)
	}
	// Supervisor's messages name the section that it looked at last.
	last := s.section.name
	for _, program := range programs {
		plain, fcgi := r.doc.section("program:"+program), r.doc.section("fcgi-program:"+program)
		switch {
		case plain == nil && fcgi == nil:
			r.report.problem(problem{
				code: "unknown-program", at: s.at("programs"), what: "[" + s.section.name + "] names " + quote(program) + ", and there is no [program:" + program + "]",
				words: "[" + last + "] names unknown program or fcgi-program " + program, fix: r.knownPrograms(program),
			})
			continue
		case plain != nil && fcgi != nil:
			r.report.problem(problem{
				code: "ambiguous-program", at: s.at("programs"), what: "[" + s.section.name + "] names " + quote(program) + ", which is both a program and an fcgi-program",
				words: "[" + last + "] name " + program + " is ambiguous (exists as program and fcgi-program)", fix: "rename one of them",
			})
			continue
		case plain == nil:
			plain = fcgi
			r.report.warn(s.at("programs"), "fcgi-in-group", "take it out of the group", "[%s] takes [%s] as a plain program, as Supervisor does: it gets no socket", s.section.name, fcgi.name)
		}
		last = plain.name
		taken[plain.name] = true
		g.Programs = append(g.Programs, r.programs(plain, name)...)
	}
	r.config.Groups = append(r.config.Groups, g)
}

func (r *reader) knownPrograms(program string) string {
	var known []string
	for _, s := range r.doc.sections {
		if _, name, found := strings.Cut(s.name, "program:"); found {
			known = append(known, name)
		}
	}
	return orNear(program, known, "add [program:"+program+"]")
}

// listener reads an [eventlistener:x].
func (r *reader) listener(s *scope, name string) {
	g := Group{Name: name, Kind: KindListener, Priority: s.integer("priority", -1), Position: s.section.at}
	l := &EventListener{BufferSize: s.integer("buffer_size", 10)}
	g.Listener = l
	label := "[" + s.section.name + "]"
	if l.BufferSize < 1 {
		r.report.problem(problem{
			code: "bad-buffer-size", at: s.at("buffer_size"), what: "buffer_size must be at least 1",
			words: label + " section sets invalid buffer_size (" + intValue(l.BufferSize).String() + ")", fix: "write 10 or more",
		})
	}
	l.ResultHandler = s.text("result_handler", DefaultResultHandler)
	if l.ResultHandler != DefaultResultHandler {
		r.report.warn(s.at("result_handler"), "result-handler", "answer RESULT 2\\nOK or RESULT 4\\nFAIL; write "+DefaultResultHandler, "%s: the Python result_handler %s is not run; OK accepts an event, anything else rejects it", label, l.ResultHandler)
	}
	for _, event := range list(s.text("events", "")) {
		event = strings.ToUpper(event)
		if slices.Contains(l.Events, event) {
			continue
		}
		l.Events = append(l.Events, event)
		if !slices.Contains(eventTypes, event) {
			r.report.problem(problem{
				code: "unknown-event", at: s.at("events"), what: label + " asks for events of the type " + quote(event) + ", which there is not",
				words: "Unknown event type " + event + " in " + label + " events", fix: orNear(event, eventTypes, ""),
			})
		}
	}
	if len(l.Events) == 0 {
		r.report.problem(problem{code: "no-events", at: s.section.at, what: label + " has no events", words: label + " section requires an \"events\" line", fix: "add events = PROCESS_STATE, or another type of event"})
	}
	slices.Sort(l.Events)
	if s.boolean("redirect_stderr", false) {
		r.report.problem(problem{
			code: "listener-redirect", at: s.at("redirect_stderr"), what: label + " sets redirect_stderr, which would mix words into the event protocol",
			words: label + " section sets redirect_stderr=true but this is not allowed because it will interfere with the eventlistener protocol", fix: "drop redirect_stderr",
		})
	}
	g.Programs = r.programs(s.section, name)
	r.config.Groups = append(r.config.Groups, g)
}

// fcgi reads an [fcgi-program:x].
func (r *reader) fcgi(s *scope, name string) {
	name = r.name(name, s.section.at)
	g := Group{Name: name, Kind: KindFCGI, Priority: s.integer("priority", 999), Position: s.section.at}
	label := "[" + s.section.name + "]"
	uid := -1
	if v, ok := s.lookup("user"); ok {
		u, err := lookupUser(v)
		if err != nil {
			r.report.problem(noUser(s.at("user"), err))
		} else {
			n, _ := parseInt(u.Uid, 10) // on Linux it is a number
			uid = int(n)
		}
	}
	socket := &FCGISocket{Mode: 0o700, UID: -1, GID: -1, Backlog: s.integer("socket_backlog", 0)}
	backlog, hasBacklog := s.lookup("socket_backlog")
	if hasBacklog && (socket.Backlog < 1 || socket.Backlog > 65535) {
		r.report.problem(problem{code: "bad-backlog", at: s.at("socket_backlog"), what: "socket_backlog is " + backlog, words: "Invalid socket_backlog value " + intValue(socket.Backlog).String(), fix: "write a number from 1 to 65535"})
	}
	ownerText, hasOwner := s.lookup("socket_owner")
	if hasOwner {
		var err error
		if socket.UID, socket.GID, err = owner(ownerText); err != nil {
			r.report.problem(noOwner(s.at("socket_owner"), "socket_owner", ownerText, "Invalid socket_owner value "))
		}
	}
	modeText, hasMode := s.lookup("socket_mode")
	if hasMode {
		socket.Mode = os.FileMode(s.octal("socket_mode", 0o700, "Invalid socket_mode value "+modeText)) //nolint:gosec // checked to be octal
	}
	in := r.scope(s.section, s.names.with(names{"program_name": textValue(name)}))
	address := in.text("socket", "")
	if address == "" {
		r.report.problem(problem{code: "no-socket", at: s.section.at, what: label + " has no socket", words: label + " section requires a \"socket\" line", fix: "add socket = unix:///run/%(program_name)s.sock, or tcp://127.0.0.1:9002"})
	} else if p := socket.parse(address, uid, hasOwner, hasMode); p != nil {
		p.at, p.words = s.at("socket"), p.words+" in "+label+" socket"
		r.report.problem(*p)
	}
	g.Socket = socket
	g.Programs = r.programs(s.section, name)
	r.config.Groups = append(r.config.Groups, g)
}

func noOwner(at Position, key, v, words string) problem {
	return problem{code: "no-owner", at: at, what: key + " is " + quote(v) + ", and there is no such user or group", words: words + v, fix: "write user or user:group of this machine"}
}

// twins warns of names that hide each other.
func (r *reader) twins() {
	groups := map[string]Position{}
	for _, g := range r.config.Groups {
		if first, twice := groups[g.Name]; twice {
			r.report.warn(g.Position, "same-group", "rename one of them", "a group called %s exists already (%s); only the first of equal names is run", g.Name, first)
		} else {
			groups[g.Name] = g.Position
		}
		processes := map[string]bool{}
		for _, p := range g.Programs {
			if processes[p.Name] {
				r.report.warn(p.Position, "same-process", "give the process a name of its own with process_name", "group %s has two processes called %s; only the last of equal names is run", g.Name, p.Name)
			}
			processes[p.Name] = true
		}
	}
}
