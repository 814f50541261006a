package task

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// Option changes one enqueue.
type Option func(*enqueue)

// Priority orders tasks of one kind: workers take six high ones and three normal ones for each low one while they have
// all of them, and whatever there is when they have not.
type Priority int

// The priorities; Normal is the default.
const (
	High Priority = 1 + iota
	Normal
	Low
)

// enqueue is what the options of one call add up to.
type enqueue struct {
	id       string
	given    bool
	priority Priority
	at       time.Time     // zero: now
	delay    time.Duration // what In said, counted from now by at
	ttl      time.Duration
	key      string
	unique   string // what is unique; "" when nothing is
	scope    uniqueScope
	period   time.Duration
	err      error
}

// expires is when the time to live ends: it begins when the task can be run.
func (e *enqueue) expires() time.Time {
	from := time.Now()
	if e.at.After(from) {
		from = e.at
	}
	return from.Add(e.ttl)
}

// ID gives the task an id of the caller's. A second task of the same kind with this id is not stored as long as the
// first is in the queue, or the broker remembers it, which is ten minutes, or its record is kept. It must be 1 to 256
// printable ASCII characters without spaces.
func ID(id string) Option { return func(e *enqueue) { e.id, e.given = id, true } }

// In has the task run d from now at the earliest. It waits in the broker.
func In(d time.Duration) Option {
	return func(e *enqueue) {
		if d < 0 {
			e.err = badOption("a delay of %v lies in the past", d)
			return
		}
		e.at, e.delay = time.Now().Add(d), d
	}
}

// At has the task run at t at the earliest; at once when t has passed.
func At(t time.Time) Option {
	return func(e *enqueue) {
		if t.IsZero() {
			e.err = badOption("the time to run at is the zero time")
			return
		}
		e.at, e.delay = t, 0
	}
}

// TTL drops the task when no worker has begun it d after it could be run.
func TTL(d time.Duration) Option {
	return func(e *enqueue) {
		if d <= 0 {
			e.err = badOption("a time to live of %v is over already", d)
			return
		}
		e.ttl = d
	}
}

// WithPriority sets the priority.
func WithPriority(p Priority) Option {
	return func(e *enqueue) {
		if p < High || p > Low {
			e.err = badOption("%d is no priority", p)
			return
		}
		e.priority = p
	}
}

// Key names what the task belongs to, a customer for example, for limits by key. Handlers see it as Task.Key.
func Key(key string) Option {
	return func(e *enqueue) {
		if strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			e.err = badOption("the key %q holds control characters", key)
			return
		}
		e.key = key
	}
}

// uniqueScope is when a uniqueness ends.
type uniqueScope string

const (
	untilDone  uniqueScope = "done"
	untilStart uniqueScope = "start"
	forPeriod  uniqueScope = "for"
)

// Unique stores the task only if no other of the kind with the same name is waiting, scheduled or running. Otherwise the
// Handle is that of the other one, and its Duplicate is set. It survives restarts of everything.
func Unique(name string) Option { return unique(name, untilDone, 0) }

// UniqueUntilStart is Unique until a worker begins the task.
func UniqueUntilStart(name string) Option { return unique(name, untilStart, 0) }

// UniqueFor is Unique for a time from now, whatever becomes of the task.
func UniqueFor(name string, period time.Duration) Option { return unique(name, forPeriod, period) }

func unique(name string, scope uniqueScope, period time.Duration) Option {
	return func(e *enqueue) {
		if scope == forPeriod && period < time.Second {
			e.err = badOption("a task cannot be unique for %v: at least a second", period)
			return
		}
		sum := sha256.Sum256([]byte(name))
		e.unique, e.scope, e.period = hex.EncodeToString(sum[:16]), scope, period
	}
}

func badOption(format string, args ...any) error {
	return &fault.Error{Code: CodeBadOption, Kind: fault.Misuse, What: fmt.Sprintf(format, args...), Fix: "correct the option"}
}

// options adds up opts and completes them.
func (k Kind[T]) options(opts []Option) (enqueue, error) {
	e := enqueue{priority: Normal}
	for _, opt := range opts {
		opt(&e)
	}
	if e.err != nil {
		return e, fmt.Errorf("enqueue task %s: %w", k.name, e.err)
	}
	if !e.given {
		e.id = newID()
	} else if !validID(e.id) {
		return e, &fault.Error{
			Code: CodeBadID, Kind: fault.Misuse, What: fmt.Sprintf("%q cannot be the id of a task", e.id), Where: "task " + k.name,
			Fix: fmt.Sprintf("use 1 to %d printable ASCII characters without spaces", wire.MaxTaskID),
		}
	}
	return e, nil
}

func validID(id string) bool {
	return id != "" && len(id) <= wire.MaxTaskID && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}
