package conf

import "fmt"

// Config is a whole supervisord.conf.
type Config struct {
	File     string   // the main file, absolute
	Here     string   // its folder, which %(here)s stands for
	Included []string // files that [include] brought in, in the order they were read

	Supervisord   Supervisord
	UnixServers   []UnixServer // [unix_http_server] sections, in the order of the file
	InetServers   []InetServer // [inet_http_server] sections, in the order of the file
	Supervisorctl Supervisorctl
	// Interfaces are the names of the [rpcinterface:x] sections with the stock factory; "supervisor" is the usual one.
	Interfaces []string

	// Groups is sorted by priority, then name: the order of starting. Stopping goes the other way.
	Groups []Group
}

// Group returns the group called name, or nil.
func (c *Config) Group(name string) *Group {
	for i := range c.Groups {
		if c.Groups[i].Name == name {
			return &c.Groups[i]
		}
	}
	return nil
}

// ServerURL is what a child finds in SUPERVISOR_SERVER_URL unless its program says otherwise: the first unix socket,
// else the first inet server, else "" (the variable is then not set).
func (c *Config) ServerURL() string {
	if len(c.UnixServers) > 0 {
		return "unix://" + c.UnixServers[0].File
	}
	if len(c.InetServers) > 0 {
		host := c.InetServers[0].Host
		if host == "" {
			host = "localhost"
		}
		return fmt.Sprintf("http://%s:%d", host, c.InetServers[0].Port)
	}
	return ""
}

// Supervisord is the [supervisord] section.
type Supervisord struct {
	Logfile         string // default supervisord.log; "syslog" means syslog. Absolute otherwise
	LogfileMaxBytes int64  // default 50 MB; 0 never rotates
	LogfileBackups  int    // default 10
	Loglevel        Level  // default info
	Pidfile         string // default supervisord.pid. Absolute
	Identifier      string // default supervisor
	Umask           int    // default 022
	NoDaemon        bool
	Silent          bool
	NoCleanup       bool   // keep AUTO logs of an earlier run
	StripANSI       bool   // take escape sequences out of child logs
	MinFDs          int    // default 1024
	MinProcs        int    // default 200
	User            string // "" keeps the user who started the daemon
	Directory       string // "" stays where the daemon was started
	ChildLogDir     string // folder of AUTO logs; default the folder of temporary files
	Environment     map[string]string
	Position        Position
}

// Level is a log level of Supervisor.
type Level int

// The levels, with Supervisor's numbers.
const (
	LevelCritical Level = 50
	LevelError    Level = 40
	LevelWarn     Level = 30
	LevelInfo     Level = 20
	LevelDebug    Level = 10
	LevelTrace    Level = 5
	LevelBlather  Level = 3
)

// Position is a place in a file; Line counts from 1. The zero Position is no place: a default.
type Position struct {
	File string
	Line int
}

// String gives file:line, or "" for no place.
func (p Position) String() string {
	if p.File == "" {
		return ""
	}
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}
