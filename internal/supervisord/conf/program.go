package conf

import "syscall"

// Program is one process: a [program:x], [eventlistener:x] or [fcgi-program:x] section for one process number.
type Program struct {
	Name    string // of the process; with numprocs > 1 it holds the number
	Group   string
	Section string // as in the file: "program:web"
	// Number is the process number, from numprocs_start; Count is numprocs.
	Number, Count int

	Command     string            // expanded, not split; Args splits it
	Directory   string            // "" stays in the daemon's
	Umask       int               // -1 keeps the daemon's
	User        string            // as in the file; "" keeps the daemon's
	UID         int               // of User; -1 without one
	Environment map[string]string // [supervisord]'s overlaid with the program's
	ServerURL   string            // "" is AUTO: Config.ServerURL

	Priority     int // default 999
	AutoStart    bool
	AutoRestart  AutoRestart    // default RestartUnexpected
	StartSecs    int            // seconds; default 1
	StartRetries int            // default 3
	ExitCodes    []int          // expected ones; default 0
	StopSignal   syscall.Signal // default SIGTERM
	StopWaitSecs int            // seconds; default 10
	StopAsGroup  bool
	KillAsGroup  bool // default StopAsGroup

	RedirectStderr bool
	Stdout, Stderr Log

	Position Position // of the section's header
}

// AutoRestart says after which exits a process that had been RUNNING is started again.
type AutoRestart int

const (
	// RestartUnexpected restarts after exit codes that ExitCodes does not list, and after signals.
	RestartUnexpected AutoRestart = iota
	// RestartAlways restarts after every exit.
	RestartAlways
	// RestartNever leaves it EXITED.
	RestartNever
)

// LogKind says where a channel's output goes.
type LogKind int

const (
	// LogAuto is a file with a made-up name in ChildLogDir.
	LogAuto LogKind = iota
	// LogNone is nowhere.
	LogNone
	// LogFile is the file Path.
	LogFile
)

// Log is one channel of output.
type Log struct {
	Kind            LogKind
	Path            string // of LogFile; as in the file, so perhaps relative to the daemon's directory
	MaxBytes        int64  // default 50 MB; 0 never rotates
	Backups         int    // default 10
	CaptureMaxBytes int64  // 0 captures nothing
	Events          bool   // emit PROCESS_LOG events
	Syslog          bool   // to syslog as well
}
