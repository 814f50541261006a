package conf

import "os"

// GroupKind says which section a group came from.
type GroupKind int

const (
	// KindProgram is a group of its own for one [program:x].
	KindProgram GroupKind = iota
	// KindGroup is a [group:x] of programs that lose their own groups.
	KindGroup
	// KindListener is an [eventlistener:x] pool.
	KindListener
	// KindFCGI is an [fcgi-program:x], whose processes share one socket as file descriptor 0.
	KindFCGI
)

// Group is what Supervisor starts, stops and reloads as one.
type Group struct {
	Name     string
	Kind     GroupKind
	Priority int // default 999; -1 for listeners
	// Programs has one entry a process, sorted by priority, then name.
	Programs []Program
	Listener *EventListener // of KindListener only
	Socket   *FCGISocket    // of KindFCGI only
	Position Position       // of the section's header
}

// EventListener is what an [eventlistener:x] has beyond a program.
type EventListener struct {
	BufferSize int      // events kept for a busy pool; default 10
	Events     []string // names of event types, upper case, sorted, without doubles
	// ResultHandler is the Python callable the file names; only the default one can be honoured, so any other has been
	// warned about.
	ResultHandler string
}

// DefaultResultHandler accepts OK and rejects everything else.
const DefaultResultHandler = "supervisor.dispatchers:default_handler"

// FCGISocket is the listening socket of an [fcgi-program:x].
type FCGISocket struct {
	Network string // "tcp" or "unix"
	Address string // host:port, or an absolute path
	// Backlog is the length of the queue of connections; 0 is the kernel's maximum.
	Backlog int
	Mode    os.FileMode // of a unix socket; default 0700
	// UID and GID own a unix socket; -1 leaves them as they are.
	UID, GID int
}

// URL is the socket as the file spells it; sockets of equal URLs count as equal to Supervisor.
func (s *FCGISocket) URL() string { return s.Network + "://" + s.Address }
