// Package manifest reads hozo.yaml: it turns bytes into a checked Manifest, or into every mistake in them at once, each
// with its place and its fix. It does no I/O beyond reading the file that it is given and starts nothing.
//
// What the file says is what happens: ${VAR} is not expanded, commands run without a shell, and an unknown key is a
// mistake. The keys stand in tables (the functions called …Keys) that the decoder and the JSON Schema are both made of.
// An environment under envs is laid over the rest key by key before anything is decoded; it changes the streams and
// services that are there and adds none.
package manifest

import (
	"math"
	"time"
)

// Manifest is a checked hozo.yaml with one environment laid over it and every default filled in.
type Manifest struct {
	Project  string
	Path     string // absolute path of the file
	Dir      string // its folder: relative paths in it start here
	Env      string // name of the overlaid environment, or ""
	Broker   Broker
	Cores    int       // CPU cores that automatic scaling may fill; default 0: those of the host
	Streams  []Stream  // in file order
	Live     []string  `json:",omitempty"` // subject patterns that no stream stores: what is published there reaches who listens then
	Queues   []Queue   `json:",omitempty"` // in file order
	Crons    []Cron    `json:",omitempty"` // in file order
	Services []Service // in file order
	Clients  []Client  `json:",omitempty"` // in file order

	// Where it is deployed to. Hosts is what an environment makes of all of it.
	Vars  map[string]string `json:",omitempty"` // for templates
	SSH   SSH               `json:",omitzero"`
	Hosts []Host            `json:",omitempty"` // in file order
	Roles Roles             `json:"-"`          // what hosts must have, as it is written

	Places Places `json:"-"` // where all that stands; empty for a manifest that was not read from a file
}

// Broker tunes the message engine.
type Broker struct {
	Memory Bytes // soft memory limit of the broker process (GOMEMLIMIT); default 512MiB
	Store  Bytes // most bytes that all streams may take on disk; default 0: three quarters of the free space

	// Where foreign clients come in, beside the loopback port that services use; host:port, empty means not at all.
	Listen    string  `json:",omitempty"` // NATS
	MQTT      string  `json:",omitempty"` // MQTT 3.1.1
	WebSocket WebSock `json:",omitzero"`  // NATS over WebSocket
	TLS       TLS     `json:",omitzero"`  // of all three
}

// Durability says what an acknowledgement of a stream survives.
type Durability string

const (
	DurabilityMemory  Durability = "memory"  // nothing: the stream lives in the broker's memory
	DurabilityProcess Durability = "process" // kill -9 of every process (default)
	DurabilityPower   Durability = "power"   // loss of power: the broker syncs before it acknowledges
)

// Stream is a named, durable sequence of frames. It stores its own name as a subject and everything below it.
type Stream struct {
	Name        string        // dotted: "events.raw"
	Keep        time.Duration // age at which events are dropped; default 24h
	MaxBytes    Bytes         // most bytes on disk; publishing fails beyond; default 1GiB
	Durability  Durability
	Compression string        // zstd (default, smallest), s2 (fastest) or none
	Frames      bool          // default true
	Key         string        // dotted path of what orders its events, in their JSON; empty: nothing does
	Partitions  int           // default 16 with a Key, else 0
	Dedupe      time.Duration // window in which a repeated message id is recognised; default 10m, at most Keep
	Full        string        // what becomes of an event that there is no room for: block (default), fail, drop_oldest or drop_newest
}

// GroupCommit reports whether whoever stores in s waits for a sync that many share. Of a stream without frames, which is
// for clients that take the broker's own acknowledgement at its word, the broker syncs every message by itself.
func (s Stream) GroupCommit() bool { return s.Durability == DurabilityPower && s.Frames }

// Service is one small program, user-written or built-in.
type Service struct {
	Name      string
	Builtin   string   // ingest, route, sink, push or zmq; empty for the user's programs
	Build     []string // argv, run once before the first start; from a string by POSIX word rules, no shell
	Run       []string // argv
	Env       map[string]string
	Dir       string // absolute; default: the manifest's folder
	User      string // default: the user who runs Hozo
	Listen    []Listen
	Watchdog  time.Duration // how often it promises to send WATCHDOG=1; default 0: never
	Health    *Health
	Liveness  *Health    // neither Notify nor Log
	Scale     int        // instances; default 1, with Autoscale its Min
	Autoscale *Autoscale // nil: Scale is the number of instances
	Rolling   Rolling
	Restart   Restart
	Stop      Stop
	Needs     []Need
	Publishes []Route
	Consumes  []Source
	Watches   []string `json:",omitempty"` // live subjects that every instance hears
	Serves    []string // request subjects that it answers
	Calls     []string // request subjects that it asks
	Handles   []string // task kinds that it runs
	Enqueues  []string // task kinds that it enqueues
	Log       Log
	Limits    Limits    `json:",omitzero"`
	Schedule  *Schedule // nil: it runs all the time, or once
	Hooks     Hooks
	EnvFile   []EnvFile // read at each apply; later ones win, and Env wins over all
	Essential bool      // when an instance ends for good, everything stops

	// Settings of built-in services; nil for the others.
	Ingest  *Ingest
	RouteBy *RouteBy
	To      *Target
	ZMQ     []ZMQSocket `json:",omitempty"` // in file order
}

// Limits bound each instance of a service; what is zero or nil is not bounded. The first four hold for its whole tree.
type Limits struct {
	Memory     Bytes   // beyond it something of it is killed
	MemoryHigh Bytes   // beyond it it is slowed down; below Memory
	CPU        float64 // cores
	PIDs       int     // processes and threads

	// Limits of resources, soft and hard; [Unlimited] is none.
	Nofile  *uint64 // open files
	NProc   *uint64 // processes and threads of its user
	Core    *uint64 // bytes
	FSize   *uint64 // bytes
	Stack   *uint64 // bytes
	Memlock *uint64 // bytes
	AS      *uint64 // bytes

	Nice        *int // -20 to 19
	OOMScoreAdj *int // -1000 to 1000
}

// Unlimited is a limit of a resource that is written as unlimited.
const Unlimited = math.MaxUint64

// Listen is a socket that the keeper holds for a service.
type Listen struct {
	Name    string // "http"
	Network string // tcp or unix
	Address string // "127.0.0.1:8080"; a bare port in the file means loopback; port 0 is any free one
}

// Health is how the platform learns that an instance can work, or as Liveness that it still does. Exactly one of HTTP,
// TCP, Exec, GRPC, Log and Notify is set.
type Health struct {
	HTTP      string        // path on the first tcp listener, or a full URL: good on 2xx
	TCP       string        // listener name or host:port: good when it accepts
	Exec      []string      // argv: good on exit status 0
	GRPC      string        // listener name or host:port, then /SERVICE if not the whole server is meant: good on SERVING
	Log       string        // regular expression: good once a line of output matches
	Notify    bool          // good on READY=1 to NOTIFY_SOCKET
	Interval  time.Duration // default 1s
	Timeout   time.Duration // of one probe; default 1s
	Grace     time.Duration // from start to ready; default 30s, then it is restarted
	Failures  int           // failures in a row that count; default 3
	Successes int           // successes in a row that make it ready; default 1
}

// Restart is what happens when an instance ends by itself.
type Restart struct {
	Policy string        // always (default), on-failure, never
	Delay  time.Duration // before a restart; doubles each time; default 100ms. The first one comes at once after a run of ten times as long
	Max    time.Duration // most it grows to; default 30s
	Reset  time.Duration // time up after which the delay starts over; default 10s

	Budget     int           // starts within Window that the delays above are good for; default 10
	Window     time.Duration // default 5m
	Then       string        // once the budget is spent: slow (default: try again every RetryAfter) or fail
	RetryAfter time.Duration // default 1m
}

// What automatic scaling looks at.
const (
	OnLag      = "lag"      // messages (frames) of its streams that are not done, an instance
	OnTaskAge  = "task_age" // age in seconds of the oldest task that is not done
	OnCPU      = "cpu"      // CPU cores that an instance uses
	OnRequests = "requests" // HTTP requests in flight, an instance
)

// Autoscale lets the platform choose the number of instances.
type Autoscale struct {
	Min, Max    int           // 1 by default, and required
	On          string        // OnLag, OnTaskAge, OnCPU or OnRequests
	Target      float64       // of what On says; default 64 messages, 10 (seconds), 0.7 cores, 64 requests
	GrowAfter   time.Duration // how long it must be above before instances are added; default 3s
	ShrinkAfter time.Duration // how long it must be below before some are taken away; default 1m
}

// Rolling is how the instances of a service are replaced.
type Rolling struct {
	Surge          int           // new processes beside old ones at once; default 1 for a service that listens, can be probed and has no hooks, else 0
	MaxUnavailable int           // without Surge, instances that may be away at once; default 1
	Timeout        time.Duration // in which a new process must get ready beside the old one; default 0: health.grace, or 30s
}

// Stop is how an instance is asked to end.
type Stop struct {
	Signal string        // default TERM
	Grace  time.Duration // then the whole tree is killed; default 10s
}

// Need is a service that must be there first.
type Need struct {
	Service   string
	Condition string // ready (default), started, completed
	Restart   bool   // start again once that service has been
}

// Log bounds the log of each instance.
type Log struct {
	MaxBytes Bytes         // rotate beyond; default 16MiB
	Keep     int           // rotated files kept; default 4
	Age      time.Duration // rotate when its first byte is as old; default 0: never
	Compress bool          // rotated files, with zstd; default false
	Full     string        // when it cannot be written: drop and count (default), or block the program
}

// Source is a stream, or a part of one, that a service consumes.
type Source struct {
	Subject string // as written: the stream's bare name means everything in it; * and a final > match as in NATS
	Stream  string // the stream that stores it
	Ordered bool   // the events of each key one by one and in order, whatever the number of instances
}

// Route is a subject pattern that a service publishes to.
type Route struct {
	Subject string
	Stream  string // empty when Live
	Live    bool   `json:",omitzero"` // under a live pattern: not stored
}

// Ingest tunes the built-in ingest service.
type Ingest struct {
	MaxBody  Bytes         // most bytes of one request, decompressed; default 16MiB
	MaxLine  Bytes         // most bytes of one event; default 1MiB
	InFlight Bytes         // most bytes of all requests being handled; default 128MiB
	Linger   time.Duration // how long a small request waits for company in its frame; default 2ms
}

// RouteBy tunes the built-in route service: each event goes to the first route whose condition holds.
type RouteBy struct {
	Rules   []Rule
	Default string // subject for the rest; empty parks them
}

// Rule sends an event to Subject when the expression When is true for it.
type Rule struct {
	When    string // expr-lang expression over the event's JSON, for CompileCondition: `type == "PushEvent"`
	Subject string
}

// Target is where the built-in sink service writes. Exactly one of SQLite, Postgres and File is set.
type Target struct {
	SQLite   string            // path of the database
	Postgres string            `json:",omitempty"` // URL of the database, without a password
	Table    string            // default "events"
	Columns  map[string]string // column to dotted path in the event's JSON
	File     string            // folder of rotated .ndjson.zst files
	Rotate   Rotate

	// Of the built-in push service.
	HTTP     string        `json:",omitempty"` // http:// or https:// URL, or unix:SOCKET:PATH; an event, or a task, is a POST
	Timeout  time.Duration `json:",omitzero"`  // of one request; default 10s, for tasks 5m
	Attempts int           `json:",omitzero"`  // of one event or task before it is parked; default 5, for tasks 10
	Workers  int           `json:",omitzero"`  // requests at once, and as many for each kind of task; default 16
	Batch    int           `json:",omitzero"`  // events of one request, as lines; 0: one event is the body
	Linger   time.Duration `json:",omitzero"`  // how long a batch waits to be full; default 10ms
}

// Rotate says when a file sink finishes a file.
type Rotate struct {
	Bytes Bytes         // default 64MiB of stored (compressed) bytes
	Age   time.Duration // default 10s after its first event
}

// Bytes is a size; in the file a number with an optional unit (B, KB, MB, GB, TB, KiB, MiB, GiB, TiB).
type Bytes int64
