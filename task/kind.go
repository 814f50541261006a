package task

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

// Defaults of Config.
const (
	DefaultAttempts   = 10              // with the default backoff the last one is 8½ minutes after the first
	DefaultBackoff    = time.Second     // a blip is over by then
	DefaultMaxBackoff = 5 * time.Minute // what was down an hour is used again within five minutes
	DefaultTimeout    = 5 * time.Minute // longer work should be cut into several tasks
	DefaultCrashes    = 3               // one crash may be another task's fault, two are bad luck
	DefaultMax        = 1_000_000       // tasks in a queue: some 200 MB on disk, 300 MB of the broker's memory
)

// Codes of this package's faults.
const (
	CodeNotHandled  = "task/not-handled" // the kind is not declared under handles
	CodeBadID       = "task/bad-id"      // an id that cannot be a header
	CodeDecode      = "task/decode"      // the arguments are not what the kind's type says
	CodeRejected    = "task/rejected"    // the handler returned Reject without a code of its own
	CodeFailed      = "task/error"       // the handler's error had no code
	CodePanic       = "task/panic"       // the handler panicked
	CodeCrashed     = "task/crashed"     // the child process that ran the handler has ended
	CodeTimeout     = "task/timeout"     // the handler overran Config.Timeout
	CodeInterrupted = "task/interrupted" // no attempt ever ended: the task seems to end its worker
	CodeQueueFull   = "task/queue-full"  // the queue is at its bound
	CodeBadOption   = "task/bad-option"  // an option that cannot be
	CodeBadHeader   = "task/bad-header"  // a stored task whose headers cannot be read
	CodeCancelled   = "task/cancelled"   // somebody cancelled the task
	CodeExpired     = "task/expired"     // nobody began the task in time
	CodeDead        = "task/dead"        // the task was given up
	CodeEnded       = "task/ended"       // what is to be cancelled has ended
	CodeUnknown     = "task/unknown"     // nothing is known of the task, or no longer
)

// Config says how tasks of a Kind are tried. The zero value is ready for production.
type Config struct {
	Attempts   int           // how often a task is tried; default 10
	Backoff    time.Duration // before the second try; doubles each time; default 1s
	MaxBackoff time.Duration // most it grows to; default 5m
	Timeout    time.Duration // of one try; default 5m
	Crashes    int           // starts in a row of which no end is known before the task is given up; default 3
	// Keep is how long what became of a task is kept: its state, its error, its result. Zero keeps nothing, which is
	// fastest: a task then costs one message and one acknowledgement. With Keep its end is recorded before it is
	// acknowledged, on condition that nobody else has recorded one: at most once for each task while the record is kept.
	Keep time.Duration
}

func (c Config) withDefaults() Config {
	c.Attempts = cmp.Or(max(c.Attempts, 0), DefaultAttempts)
	c.Backoff = cmp.Or(max(c.Backoff, 0), DefaultBackoff)
	c.MaxBackoff = max(cmp.Or(max(c.MaxBackoff, 0), DefaultMaxBackoff), c.Backoff)
	c.Timeout = cmp.Or(max(c.Timeout, 0), DefaultTimeout)
	c.Crashes = cmp.Or(max(c.Crashes, 0), DefaultCrashes)
	c.Keep = max(c.Keep, 0)
	return c
}

// Kind is a sort of task with arguments of type T, written and read by encoding/json; []byte and json.RawMessage pass
// through. A Kind is a value; make it once, near the type. Services that enqueue it and services that handle it share
// the name, and each declares it in its manifest.
type Kind[T any] struct {
	name string
	cfg  Config
}

// NewKind names a kind: dotted, as in the manifest ("repo.summary"). cfg matters to the service that handles it.
func NewKind[T any](name string, cfg Config) Kind[T] { return Kind[T]{name, cfg.withDefaults()} }

// Name returns the name.
func (k Kind[T]) Name() string { return k.name }

func (k Kind[T]) encode(args T) ([]byte, error) {
	data, err := marshal(args)
	if err != nil {
		return nil, fmt.Errorf("encode arguments of task %s: %w", k.name, err)
	}
	return data, nil
}

func (k Kind[T]) decode(data []byte) (args T, err error) {
	if err := unmarshal(data, &args); err != nil {
		return args, &fault.Error{
			Code: CodeDecode, What: fmt.Sprintf("the arguments are no %T", args), Where: "task " + k.name, Err: err,
			Fix: "correct the program that enqueues it, or the type of the kind",
		}
	}
	return args, nil
}

// marshal is json.Marshal that lets bytes pass through.
func marshal(v any) ([]byte, error) {
	switch b := v.(type) {
	case []byte:
		return b, nil
	case json.RawMessage:
		return b, nil
	}
	return json.Marshal(v)
}

// unmarshal is json.Unmarshal into what marshal has written.
func unmarshal(data []byte, into any) error {
	switch p := into.(type) {
	case *[]byte:
		*p = data
	case *json.RawMessage:
		*p = data
	default:
		return json.Unmarshal(data, into)
	}
	return nil
}
