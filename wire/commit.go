package wire

import "time"

const (
	// CommitSubject is where the broker is asked to make a stream of durability power durable on disk:
	// hozo.commit.<JetStream name> with a sequence as decimal text. It answers with a [Commit] once everything up to
	// that sequence is synced, one sync for all who wait.
	CommitSubject = "hozo.commit"

	// SyncSubject is where the broker is asked what its syncs cost; it answers with a [SyncCost] a stream, as a list.
	SyncSubject = "hozo.sync"

	// ProcessWindow is the most that a stream of durability process loses with the power: what was acknowledged in the
	// last so many seconds before.
	ProcessWindow = 10 * time.Second
)

// Commit is the broker's answer to a request on [CommitSubject].
type Commit struct {
	Seq   uint64 `json:"seq"`             // everything up to it is on disk
	Error string `json:"error,omitempty"` // why nothing is known to be; empty when all went well
}

// SyncCost is what making one stream durable has cost since the broker started. Durations are of the last 1024 syncs.
type SyncCost struct {
	Stream    string        `json:"stream"`     // JetStream name
	Syncs     uint64        `json:"syncs"`      // to disk
	Commits   uint64        `json:"commits"`    // requests that they answered
	PerSecond float64       `json:"per_second"` // commits, over the time that the durations below span
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	Memory    bool          `json:"memory,omitempty"` // the file system is one in memory: nothing survives the power
}
