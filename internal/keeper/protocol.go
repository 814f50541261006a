package keeper

import "time"

// ProtocolVersion is the version of the keeper's protocol. A keeper outlives upgrades of everything else, so the
// protocol only grows: requests and fields are added, never changed.
const ProtocolVersion = 1

// StateFormat is the version of what a keeper leaves with its standby for the keeper after it. It only grows, like the
// protocol: a keeper reads what older ones left, and refuses what a newer one did.
const StateFormat = 1

// The values of Request.Op.
const (
	opHello    = "hello"
	opSpawn    = "spawn"
	opSignal   = "signal"
	opKill     = "kill"
	opList     = "list"
	opForget   = "forget"
	opListen   = "listen"
	opUnlisten = "unlisten"
	opUnstore  = "unstore"
	opEvents   = "events"
	opShutdown = "shutdown"
	opUpgrade  = "upgrade"
	opLog      = "log"
	opRotate   = "rotate"
	opLimit    = "limit"
)

// The values of Event.Kind.
const (
	EventStarted = "started" // the process runs
	EventExited  = "exited"  // the process and all of its tree are gone, its output is in the log
	EventNotify  = "notify"  // the process sent a datagram to NOTIFY_SOCKET
	EventLine    = "line"    // a line of its output has matched Spawn.ReadyLine
)

// The keeper listens on a unix socket. A client writes one JSON Request a line and reads one JSON Reply a line; replies
// carry the id of their request. After an "events" request the connection also carries Replies with an Event.

// Request asks the keeper for one thing.
type Request struct {
	ID uint64 `json:"id"`
	Op string `json:"op"` // one of the above

	Spawn  *Spawn  `json:"spawn,omitempty"`
	Signal *Signal `json:"signal,omitempty"`
	Name   string  `json:"name,omitempty"` // kill, forget, unstore, log, rotate: process name; unlisten: socket name
	Listen *Listen `json:"listen,omitempty"`
	Log    *Log    `json:"log,omitempty"`

	Upgrade *Upgrade `json:"upgrade,omitempty"`
	Limit   *Limit   `json:"limit,omitempty"`
}

// The values of Upgrade.Part.
const (
	PartKeeper  = "keeper"  // becomes the binary; services, sockets and logs stay
	PartNode    = "node"    // is started again, by the keeper's own binary
	PartStandby = "standby" // becomes the binary
)

// Upgrade replaces a part of the platform while the services run on. The request is answered when it has begun: the
// keeper's own connection ends then, and Hello and List tell how it went. A keeper that does not get ready in its new
// binary is started again in the standby's.
type Upgrade struct {
	Part       string `json:"part"`
	Executable string `json:"executable,omitempty"` // keeper, standby: absolute path of the binary; empty: the keeper becomes the standby's
	State      int    `json:"state"`                // StateFormat of that binary
}

// Spawn starts a process. Name must be free: never used, or forgotten.
type Spawn struct {
	Name   string            `json:"name"`             // "classify.1"
	Argv   []string          `json:"argv"`             // argv[0] is an absolute path
	Env    []string          `json:"env"`              // whole environment; the keeper adds HOZO_RUN, LISTEN_*, PORT, NOTIFY_SOCKET
	Dir    string            `json:"dir"`              // empty: the keeper's own
	UID    *uint32           `json:"uid,omitempty"`    // nil: the keeper's own
	GID    *uint32           `json:"gid,omitempty"`    // nil: the main group of UID
	Groups []uint32          `json:"groups,omitempty"` // supplementary groups; none when empty
	Listen []string          `json:"listen,omitempty"` // names of sockets to inherit, in LISTEN_FDS order
	Log    Log               `json:"log"`
	Notify bool              `json:"notify,omitempty"` // set NOTIFY_SOCKET and accept its datagrams
	Labels map[string]string `json:"labels,omitempty"` // kept and given back, never read by the keeper

	Watchdog  time.Duration `json:"watchdog,omitempty"`   // sets WATCHDOG_USEC and WATCHDOG_PID; whether it pings is for clients to see
	ReadyLine string        `json:"ready_line,omitempty"` // regular expression (RE2): the first line of output that matches sets Process.Line

	Limits Limits `json:"limits,omitzero"`

	Store string `json:"store,omitempty"` // name of the store of its descriptors, which processes that follow each other share; empty: Name
}

// Log says where a process's output goes.
type Log struct {
	Path     string        `json:"path"`               // absolute; empty: output is discarded
	MaxBytes int64         `json:"max_bytes"`          // rotate beyond this size; 0 means never
	Keep     int           `json:"keep"`               // rotated files to keep
	Age      time.Duration `json:"age,omitempty"`      // rotate when the first byte of the file is as old, in ns; 0 means never
	Compress bool          `json:"compress,omitempty"` // rotated files, with zstd
	Full     string        `json:"full,omitempty"`     // when the log cannot be written: drop and count (default), or block
}

// Limit changes the limits of a process that runs, and of its tree.
type Limit struct {
	Name   string `json:"name"`
	Limits Limits `json:"limits"`
}

// Signal sends a signal to a process, or to its whole process group.
type Signal struct {
	Name   string `json:"name"`
	Number int    `json:"number"`
	Group  bool   `json:"group"`
}

// Listen opens a listening socket that stays open until unlisten, whatever happens to the processes that inherit it.
type Listen struct {
	Name    string `json:"name"`    // "ingest.http"
	Network string `json:"network"` // tcp or unix
	Address string `json:"address"`
}

// Process is the keeper's record of a process. A dead one stays until it is forgotten.
type Process struct {
	Name       string            `json:"name"`
	Run        string            `json:"run"` // unique id of this incarnation
	PID        int               `json:"pid"`
	StartTime  uint64            `json:"start_time"` // field 22 of /proc/PID/stat: with PID and boot id it names a process for ever
	Started    time.Time         `json:"started"`
	Since      time.Duration     `json:"since,omitempty"`  // Started by Monotonic, which no setting of the clock moves; 0: an older keeper
	Ready      bool              `json:"ready"`            // it has sent READY=1
	Status     string            `json:"status,omitempty"` // its last STATUS=
	Said       Said              `json:"said,omitzero"`    // what else it said
	Line       bool              `json:"line,omitempty"`   // a line of its output has matched Spawn.ReadyLine
	Stored     int               `json:"stored,omitempty"` // descriptors that are kept for its next run
	Exit       *Exit             `json:"exit,omitempty"`   // nil while it runs
	Limits     Limits            `json:"limits,omitzero"`  // as asked for
	Unmet      []Unmet           `json:"unmet,omitempty"`  // those of them that are not kept
	LogDropped uint64            `json:"log_dropped"`      // bytes of output that could not be written
	Labels     map[string]string `json:"labels,omitempty"`
}

// Said is what a process has sent to NOTIFY_SOCKET beside READY and STATUS; see sd_notify(3). Times are by Monotonic.
type Said struct {
	Stopping  bool           `json:"stopping,omitempty"`  // STOPPING=1
	Reloading bool           `json:"reloading,omitempty"` // RELOADING=1, and no READY=1 since
	MainPID   int            `json:"main_pid,omitempty"`  // MAINPID=, if it is of its tree
	Pinged    time.Duration  `json:"pinged,omitempty"`    // when it last sent WATCHDOG=1
	Trigger   bool           `json:"trigger,omitempty"`   // WATCHDOG=trigger: it reports itself broken
	Watchdog  *time.Duration `json:"watchdog,omitempty"`  // WATCHDOG_USEC=, in place of Spawn.Watchdog; 0 turns it off
	Extended  time.Duration  `json:"extended,omitempty"`  // until when EXTEND_TIMEOUT_USEC= asks to be waited for
}

// Exit says how a process ended.
type Exit struct {
	Code      int           `json:"code"`             // exit status, or -1
	Signal    int           `json:"signal,omitempty"` // signal that ended it, or 0
	Time      time.Time     `json:"time"`
	At        time.Duration `json:"at,omitempty"`        // Time by Monotonic; 0: an older keeper
	OOM       bool          `json:"oom,omitempty"`       // the kernel killed it for want of memory
	Survivors []int         `json:"survivors,omitempty"` // processes of its tree that outlived a kill
}

// Socket is a listening socket that the keeper holds.
type Socket struct {
	Name    string `json:"name"`
	Network string `json:"network"`
	Address string `json:"address"` // as bound: the port is filled in
}

// Event is a change of a process that the keeper saw.
type Event struct {
	Kind    string  `json:"kind"` // started, exited, notify
	Process Process `json:"process"`
	Notify  string  `json:"notify,omitempty"` // the datagram of a notify event
}

// Reply answers a Request, or carries an Event.
type Reply struct {
	ID        uint64    `json:"id"`
	Error     string    `json:"error,omitempty"`
	Code      string    `json:"code,omitempty"`   // fault code of the error
	Where     string    `json:"where,omitempty"`  // fault.Error.Where of the error
	Fix       string    `json:"fix,omitempty"`    // fault.Error.Fix of the error
	Misuse    bool      `json:"misuse,omitempty"` // the error is the caller's mistake
	Hello     *Hello    `json:"hello,omitempty"`
	Process   *Process  `json:"process,omitempty"`
	Processes []Process `json:"processes,omitempty"`
	Sockets   []Socket  `json:"sockets,omitempty"`
	Event     *Event    `json:"event,omitempty"`
}

// Hello is the keeper's answer to hello.
type Hello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
	PID      int    `json:"pid"`
	Standby  int    `json:"standby,omitempty"` // pid of the process that takes over when the keeper is killed; 0: none
	State    int    `json:"state,omitempty"`   // StateFormat: what the keeper leaves to the one after it; 0: it leaves nothing
	// Executable is the path of the keeper's binary. What is there now may be another one.
	Executable string `json:"executable,omitempty"`
	// StandbyVersion and StandbyStarted are Version and Started of the standby.
	StandbyVersion string    `json:"standby_version,omitempty"`
	StandbyStarted time.Time `json:"standby_started,omitzero"`

	BootID  string    `json:"boot_id"`
	Started time.Time `json:"started"`
}
