package wire

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"
)

// GrantVersion is the version of Grant that this build writes.
const GrantVersion = 1

// Grant is what the platform grants one instance: its credential on the bus and its wiring, which are two views of the
// same lines of the manifest. It is written to a file named by HOZO_GRANT, which only the service's user can read, so
// that a program in any language can read it.
type Grant struct {
	Version  int             `json:"version"`
	Project  string          `json:"project"`
	Service  string          `json:"service"`
	Instance int             `json:"instance"`
	User     string          `json:"user"`
	Password string          `json:"password"`
	Expires  time.Time       `json:"expires,omitzero"`   // the platform replaces the password, and this file, well before; zero: never
	Declared string          `json:"declared,omitempty"` // where the service stands: "hozo.yaml:12"
	Inbox    string          `json:"inbox"`              // prefix of the only reply subjects that this user may subscribe to
	Consumes []Source        `json:"consumes,omitempty"`
	Publish  []Route         `json:"publishes,omitempty"`
	Live     []string        `json:"live,omitempty"`     // subject patterns that it may publish to and that nothing stores
	Watches  []string        `json:"watches,omitempty"`  // live subject patterns that every instance of it may hear
	Handles  []string        `json:"handles,omitempty"`  // task kinds that this service runs
	Enqueues []string        `json:"enqueues,omitempty"` // task kinds that this service may enqueue
	Queues   []TaskQueue     `json:"queues,omitempty"`   // queues of these kinds; a kind in none has one of its own name
	Serves   []string        `json:"serves,omitempty"`   // request subjects that this service answers
	Calls    []string        `json:"calls,omitempty"`    // request subjects that this service may ask
	Config   json.RawMessage `json:"config,omitempty"`   // settings of a built-in service
}

// Source is one stream that a service consumes.
type Source struct {
	Stream   string   `json:"stream"`             // the stream's name in the manifest: "events.raw"
	Subjects []string `json:"subjects,omitempty"` // filter; empty means the whole stream
	Durable  string   `json:"durable"`            // name of the JetStream consumer that the platform made
	Power    bool     `json:"power,omitempty"`    // the stream's durability: nothing is read that is not on disk
	Ordered  bool     `json:"ordered,omitempty"`  // the consumer is read in order by one instance and acknowledged cumulatively (sinks)

	Partitions int    `json:"partitions,omitempty"` // of a stream with a key; Subjects are then those that were published to
	Key        string `json:"key,omitempty"`        // dotted path of the key in events that are JSON
	PerKey     bool   `json:"per_key,omitempty"`    // its partitions are shared out among the instances, which read each in order
}

// Route is one subject pattern that a service publishes to, and the stream that stores it.
type Route struct {
	Subject     string `json:"subject"` // may end in ".>" or contain "*"
	Stream      string `json:"stream"`
	Compression string `json:"compression"`     // "zstd", "s2" or "none"
	Power       bool   `json:"power,omitempty"` // the stream's durability: stored means on disk, see CommitSubject
	Full        string `json:"full,omitempty"`  // what happens to an event that the stream has no room for; empty is FullBlock
	Frames      bool   `json:"frames"`          // false: one message an event, for foreign NATS clients

	Partitions int    `json:"partitions,omitempty"` // of a stream with a key; 0 when it has none
	Key        string `json:"key,omitempty"`        // dotted path of the key in events that are JSON
}

// What happens to an event that a full stream has no room for.
const (
	FullBlock      = "block"       // whoever publishes waits for room: programs and stages by trying again, HTTP clients by 503
	FullFail       = "fail"        // it is refused at once; only stages, which have nobody to tell, try again
	FullDropNewest = "drop_newest" // it is dropped and counted by who publishes it
	FullDropOldest = "drop_oldest" // the stream's oldest is dropped, read or not, and counted
)

// ReadGrant reads the Grant in the file at path.
func ReadGrant(path string) (Grant, error) {
	var g Grant
	data, err := os.ReadFile(path)
	if err != nil {
		return g, err
	}
	if err := json.Unmarshal(data, &g); err != nil {
		return g, fmt.Errorf("decode grant %s: %w", path, err)
	}
	if g.Version != GrantVersion {
		return g, fmt.Errorf("grant %s has version %d, this build reads version %d", path, g.Version, GrantVersion)
	}
	return g, nil
}

// QueueOf returns the queue of a kind.
func (g Grant) QueueOf(kind string) TaskQueue {
	for _, q := range g.Queues {
		if slices.Contains(q.Kinds, kind) {
			return q
		}
	}
	return TaskQueue{Name: kind, Kinds: []string{kind}}
}
