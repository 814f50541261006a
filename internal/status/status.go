// Package status is the read model of one host: what runs, what flows and what is wrong. The command line, the console
// and the next plan see Snapshots and nothing deeper.
package status

import "time"

// Snapshot is the state of a project on one host at one moment.
type Snapshot struct {
	Project   string    `json:"project"`
	Manifest  string    `json:"manifest"`
	Time      time.Time `json:"time"`
	Platform  []Process `json:"platform"` // keeper, node, broker
	Services  []Service `json:"services"` // in the manifest's order
	Streams   []Stream  `json:"streams"`
	Queues    []Queue   `json:"queues,omitempty"`
	Asked     time.Time `json:"asked,omitzero"` // when the broker was asked about them; zero when it did not say everything
	Problems  []Problem `json:"problems"`
	Saturated string    `json:"saturated,omitempty"` // first stage that is the bottleneck now, empty when none is
}

// Process is one process of the platform itself.
type Process struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	RSSBytes int64     `json:"rss_bytes"`
	CPU      float64   `json:"cpu_seconds"`
}

// Service is a service of the manifest with its instances.
type Service struct {
	Name      string            `json:"name"`
	Builtin   string            `json:"builtin,omitempty"`
	Scale     int               `json:"scale"`
	Listen    map[string]string `json:"listen,omitempty"` // name to address
	Instances []Instance        `json:"instances"`
	Traffic   Traffic           `json:"traffic"` // sum over the instances, restarts included
	Scaling   *Scaling          `json:"scaling,omitempty"`
}

// Scaling says why a service has as many instances as it has; nil when the manifest's own number is all there is to say.
type Scaling struct {
	Declared string    `json:"declared"` // in the manifest: "2", or "1 to 4 on lag"
	By       string    `json:"by"`       // hand or load
	Wanted   int       `json:"wanted"`
	Reason   string    `json:"reason"`         // "lag 812, 64 an instance; grows when that lasts 3s"
	Last     string    `json:"last,omitempty"` // the last change: "2 → 4: lag 812, 64 an instance"
	Since    time.Time `json:"since,omitzero"` // of the last change
}

// State is where an instance is in its life.
type State string

// The states of an instance. Pending, Starting, Ready and Backoff lead up; Stopping and Stopped were asked for; Exited
// ended by itself and stays so by its policy; Failed needs a person.
const (
	Pending  State = "pending"  // waits for what it needs
	Starting State = "starting" // runs, not ready yet
	Ready    State = "ready"    // runs and can work
	Unready  State = "unready"  // runs, its health check fails
	Backoff  State = "backoff"  // crashed, waits to be started again
	Stopping State = "stopping"
	Stopped  State = "stopped"
	Exited   State = "exited"
	Failed   State = "failed"

	Scheduled State = "scheduled" // waits for its first tick
)

// Change is how far a change of a running instance is.
type Change string

// The steps of a change.
const (
	ChangeWaiting  Change = "waiting"  // for its turn
	ChangeStarting Change = "starting" // the new process starts beside the old one
	ChangeDraining Change = "draining" // the new process has taken over, the old one finishes what it has in hand
	ChangeFailed   Change = "failed"   // the new process was given up, the old one runs on
	ChangeScaled   Change = "scaled"   // of a service, in events: it has another number of instances
)

// Instance is one process of a service.
type Instance struct {
	Name     string    `json:"name"` // "classify.1"
	State    State     `json:"state"`
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Reason   string    `json:"reason,omitempty"` // why it is in this state: "exit status 1", "needs broker"
	Status   string    `json:"status,omitempty"` // what it says of itself by STATUS=
	Log      string    `json:"log"`              // path of its log file
	// Change is how far a change, or a restart, of an instance is that runs meanwhile; empty when there is none.
	Change       Change `json:"change,omitempty"`
	ChangeReason string `json:"change_reason,omitempty"` // "web.1 (pid 4711) starts beside it"; of a failed one: why
	NextPID      int    `json:"next_pid,omitempty"`      // the process that starts, or drains, beside PID

	Next        time.Time `json:"next,omitzero"`          // when its schedule starts it
	LastRun     time.Time `json:"last_run,omitzero"`      // when the last run that has ended began
	LastSeconds float64   `json:"last_seconds,omitempty"` // how long that took
	LastResult  string    `json:"last_result,omitempty"`  // how it ended: "exit status 0"
	Overlapping int       `json:"overlapping,omitempty"`  // runs beside this one, see the schedule's overlap

	RSSBytes int64   `json:"rss_bytes"`
	CPU      float64 `json:"cpu_seconds"`

	LogDropped  uint64 `json:"log_dropped,omitempty"`  // bytes of its output that could not be written
	LimitsUnmet string `json:"limits_unmet,omitempty"` // which of its limits this host does not keep, and why
	LimitsFix   string `json:"-"`                      // what would help
}

// Traffic sums the Reports of a service.
type Traffic struct {
	EventsIn  uint64            `json:"events_in"`
	BytesIn   uint64            `json:"bytes_in"`
	EventsOut uint64            `json:"events_out"`
	BytesOut  uint64            `json:"bytes_out"`
	Parked    uint64            `json:"parked"`
	Tasks     uint64            `json:"tasks"`
	Routes    map[string]uint64 `json:"routes,omitempty"`
	Edges     map[string]Edge   `json:"edges,omitempty"`    // per wire.EdgeKey: "consumes events.raw"
	Overflow  map[string]uint64 `json:"overflow,omitempty"` // live events dropped because a watch's buffer was full, per watched topic
	Busy      float64           `json:"busy"`               // mean over the instances, 0 to 1
	InFlight  float64           `json:"in_flight"`          // HTTP requests in flight
	Reporting int               `json:"reporting"`          // processes that have reported in the last seconds
}

// Edge is what has gone over one line between a service and a stream, live subject, call or task kind.
type Edge struct {
	Events    uint64  `json:"events"`     // or requests, or tasks, restarts included
	PerSecond float64 `json:"per_second"` // between the last two reports, which come each second
}

// Stream is a stream with the services that read it.
type Stream struct {
	Name      string     `json:"name"`
	Messages  uint64     `json:"messages"` // frames stored
	Bytes     uint64     `json:"bytes"`
	MaxBytes  int64      `json:"max_bytes"`
	FirstSeq  uint64     `json:"first_seq"`
	LastSeq   uint64     `json:"last_seq"`
	Consumers []Consumer `json:"consumers"`

	Full       string `json:"full"`           // what becomes of an event that there is no room for
	Dropped    uint64 `json:"dropped"`        // messages that a stream with full: drop_oldest has dropped, by size or age; exact
	Durability string `json:"durability"`     // what an acknowledgement survives: memory, process or power
	Sync       *Sync  `json:"sync,omitempty"` // what that costs; nil when nobody has waited for the disk yet
}

// Sync is what making a stream durable costs, measured where it happens.
type Sync struct {
	Syncs     uint64  `json:"syncs"`      // to disk, since the broker started
	Commits   uint64  `json:"commits"`    // publishers and readers served by them
	PerSecond float64 `json:"per_second"` // commits
	P50Millis float64 `json:"p50_ms"`     // of the last 1024 syncs
	P99Millis float64 `json:"p99_ms"`
}

// Consumer is the position of one service in a stream.
type Consumer struct {
	Service  string `json:"service"`
	Lag      uint64 `json:"lag"`       // messages not delivered yet
	InFlight int    `json:"in_flight"` // delivered, not acknowledged

	Partitions []Partition `json:"partitions,omitempty"` // of a stream that the service reads in the order of its keys
}

// Partition is one partition of a stream as one service reads it.
type Partition struct {
	Partition int    `json:"partition"`
	Instance  int    `json:"instance"` // of the service, that reads it; 0 while nobody does
	Epoch     uint64 `json:"epoch"`    // grows by one with every new reader
	Lag       uint64 `json:"lag"`      // messages not delivered yet
}

// Queue is where tasks of some kinds wait.
type Queue struct {
	Name          string   `json:"name"`
	Kinds         []string `json:"kinds"`
	Paused        bool     `json:"paused,omitempty"`
	Waiting       uint64   `json:"waiting"`        // to be run as soon as a worker is free
	Held          uint64   `json:"held"`           // wait for the queue's limits
	Scheduled     uint64   `json:"scheduled"`      // for a later time, and for their next attempt
	Running       int      `json:"running"`        // in the hands of workers
	Redelivered   int      `json:"redelivered"`    // of them, how many were in other hands before
	Dead          uint64   `json:"dead"`           // given up, in hozo dlq
	OldestSeconds float64  `json:"oldest_seconds"` // age of the oldest that waits or runs
	Max           int64    `json:"max,omitempty"`  // most tasks in it; 0 is the default
}

// Problem is something wrong as data: a page can order it, hide it and explain it.
type Problem struct {
	Code    string    `json:"code"`
	Title   string    `json:"title"`
	Service string    `json:"service,omitempty"`
	Since   time.Time `json:"since"`
	Fix     string    `json:"fix"`
}
