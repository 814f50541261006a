package cron

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/hozo-dev/hozo/wire"
)

const (
	// longestNap bounds how long a timer is trusted: timers follow the monotonic clock, ticks that on the wall.
	longestNap = 5 * time.Second

	// queuedNap is how often it is looked whether the task has ended that a tick waits for.
	queuedNap = 500 * time.Millisecond

	retryNap = 200 * time.Millisecond // after the broker did not answer
	patience = 5 * time.Second        // with one exchange
)

// Config tunes a Runner. All fields are required.
type Config struct {
	Logger *slog.Logger
	// Stored waits until what was stored in the stream up to a sequence outlasts what it must.
	Stored func(ctx context.Context, stream string, seq uint64) error
}

// Runner looks after crons. There may be several for the same ones. Its methods are safe for concurrent use.
type Runner struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	cfg Config

	changed chan struct{} // one slot: entries is another

	mu      sync.Mutex
	entries []Entry
	known   map[string]kept // by name
	failing bool
}

// kept is a state as it is in the broker.
type kept struct {
	state    State
	revision uint64 // 0: there is none
}

// Status is what there is to say of a cron.
type Status struct {
	Entry
	State
	Next time.Time // when it is due next; the zero time when never
	Busy bool      // its last task has not ended
}

// NewRunner returns a Runner without crons.
func NewRunner(nc *nats.Conn, js jetstream.JetStream, cfg Config) *Runner {
	return &Runner{nc: nc, js: js, cfg: cfg, changed: make(chan struct{}, 1), known: map[string]kept{}}
}

// Set has the runner look after these crons from now on.
func (r *Runner) Set(entries []Entry) {
	r.mu.Lock()
	r.entries = entries
	r.mu.Unlock()
	r.wake()
}

func (r *Runner) wake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Run turns ticks into tasks until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.changed:
		case <-timer.C:
		}
		timer.Reset(r.turn(ctx))
	}
}

// turn does what is due and returns when to come again.
func (r *Runner) turn(ctx context.Context) time.Duration {
	r.mu.Lock()
	entries := r.entries
	r.mu.Unlock()
	nap := longestNap
	var failed error
	for _, e := range entries {
		wait, err := r.tend(ctx, e)
		if err != nil {
			wait, failed = retryNap, fmt.Errorf("cron %s: %w", e.Name, err)
		}
		nap = min(nap, wait)
	}
	if failed != nil && !r.failing && ctx.Err() == nil {
		r.cfg.Logger.WarnContext(ctx, "crons cannot be looked after", "error", failed)
	}
	r.failing = failed != nil
	return max(nap, 0)
}

// tend does what is due of one cron.
func (r *Runner) tend(ctx context.Context, e Entry) (time.Duration, error) {
	for {
		if ctx.Err() != nil {
			return longestNap, nil
		}
		k, err := r.load(ctx, e)
		if err != nil {
			return 0, err
		}
		now := time.Now()
		if !e.Due(k.state, now) {
			next := e.Next(k.state, now)
			if next.IsZero() {
				return longestNap, nil
			}
			return next.Sub(now), nil
		}
		busy := false
		if e.Overlap != OverlapAllow && k.state.Task != "" {
			if busy, err = r.busy(ctx, e, k.state.Task); err != nil {
				return 0, err
			}
		}
		next, fire := e.Decide(k.state, now, busy)
		if next == k.state {
			return queuedNap, nil
		}
		if err := r.store(ctx, e, next, k.revision, fire); err != nil {
			return 0, err
		}
		if fire.IsZero() && next.Tick != k.state.Tick && k.state.Rule == next.Rule {
			r.cfg.Logger.InfoContext(ctx, "a tick of a cron is no task now", "cron", e.Name, "tick", next.Tick, "waits", !next.Queued.IsZero(), "busy", busy)
		}
	}
}

// load returns the state, from the broker when it is not known.
func (r *Runner) load(ctx context.Context, e Entry) (kept, error) {
	r.mu.Lock()
	k, ok := r.known[e.Name]
	r.mu.Unlock()
	if ok {
		return k, nil
	}
	msg, err := r.last(ctx, e.Queue, wire.CronSubject(e.Queue, e.Name))
	if err != nil {
		return k, err
	}
	if msg != nil {
		k.revision = msg.Sequence
		if err := json.Unmarshal(msg.Data, &k.state); err != nil {
			r.cfg.Logger.WarnContext(ctx, "what has come of a cron cannot be read, it begins anew", "cron", e.Name, "error", err)
			k.state = State{}
		}
	}
	r.keep(e.Name, k)
	return k, nil
}

func (r *Runner) keep(name string, k kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known[name] = k
}

func (r *Runner) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.known, name)
}

// last returns the last message of a subject in the stream of a queue, or nil.
func (r *Runner) last(ctx context.Context, queue, subject string) (*jetstream.RawStreamMsg, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := r.js.Stream(ctx, wire.StreamName(wire.QueueStream(queue)))
	if err != nil {
		return nil, fmt.Errorf("look up queue %s: %w", queue, err)
	}
	msg, err := stream.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil
	}
	return msg, err
}

// busy reports whether the task is still in the queue: waiting, in hand, or until its next attempt.
func (r *Runner) busy(ctx context.Context, e Entry, id string) (bool, error) {
	token := wire.TaskToken(id)
	// A schedule becomes a runnable task and the other way round only while somebody has it, so both are asked for twice.
	subjects := []string{wire.ScheduleSubject(e.Queue, e.Kind, token)}
	for p := wire.TaskPriority1; p <= wire.TaskPriority3; p++ {
		subjects = append(subjects, wire.TaskSubject(e.Queue, e.Kind, p, token))
	}
	for _, subject := range slices.Concat(subjects, subjects[:1]) {
		msg, err := r.last(ctx, e.Queue, subject)
		if err != nil {
			return false, err
		}
		if msg != nil && msg.Header.Get(wire.HeaderState) == "" { // not a tombstone
			return true, nil
		}
	}
	return false, nil
}

// store replaces the state that has the revision and stores the task of the tick fire, if there is one: both or neither.
// When the state is another by now it only forgets what it knew.
func (r *Runner) store(ctx context.Context, e Entry, next State, revision uint64, fire time.Time) error {
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	msg := &nats.Msg{Subject: wire.CronSubject(e.Queue, e.Name), Data: data, Header: nats.Header{
		jetstream.MsgRollup: {jetstream.MsgRollupSubject}, jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(revision, 10)},
	}}
	// Whatever comes of it, what is known is over, unless it is known to be stored.
	r.forget(e.Name)
	last := msg
	if !fire.IsZero() {
		id := nuid.Next()
		msg.Header.Set("Nats-Batch-Id", id)
		msg.Header.Set("Nats-Batch-Sequence", "1")
		last = &nats.Msg{Subject: wire.TaskSubject(e.Queue, e.Kind, e.Priority, wire.TaskToken(e.TaskID(fire))), Data: e.Args, Header: nats.Header{
			"Nats-Batch-Id": {id}, "Nats-Batch-Sequence": {"2"}, "Nats-Batch-Commit": {"1"},
		}}
		if err := r.nc.PublishMsg(msg); err != nil {
			return err
		}
	}
	ack, err := r.js.PublishMsg(ctx, last, jetstream.WithRetryAttempts(0))
	if moved(err) {
		return nil
	}
	if err != nil {
		return err
	}
	seq := ack.Sequence
	if !fire.IsZero() {
		seq-- // that of the state is the one before the task's
	}
	if err := r.cfg.Stored(ctx, wire.QueueStream(e.Queue), ack.Sequence); err != nil {
		return err
	}
	r.keep(e.Name, kept{next, seq})
	return nil
}

// moved reports whether a publish was refused because the state is another by now.
func moved(err error) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == codeWrongSequenceConstant)
}

// codeWrongSequenceConstant is nats-server's JSStreamWrongLastSequenceConstantErr: the answer within a batch.
const codeWrongSequenceConstant = 10164

// List says how each cron does.
func (r *Runner) List(ctx context.Context) ([]Status, error) {
	r.mu.Lock()
	entries := r.entries
	r.mu.Unlock()
	all := make([]Status, 0, len(entries))
	for _, e := range entries {
		k, err := r.load(ctx, e)
		if err != nil {
			return nil, err
		}
		s := Status{Entry: e, State: k.state, Next: e.Next(k.state, time.Now())}
		if k.state.Task != "" {
			if s.Busy, err = r.busy(ctx, e, k.state.Task); err != nil {
				return nil, err
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// Stored is how many messages of a queue's stream hold what has come of crons.
func (r *Runner) Stored(queue string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	stored := uint64(0)
	for _, e := range r.entries {
		if e.Queue == queue && r.known[e.Name].revision > 0 {
			stored++
		}
	}
	return stored
}

// Clean forgets what has come of crons that are none any more, so that one of the same name begins anew.
func (r *Runner) Clean(ctx context.Context, queues []string) error {
	r.mu.Lock()
	entries := r.entries
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, queue := range queues {
		stream, err := r.js.Stream(ctx, wire.StreamName(wire.QueueStream(queue)))
		if err != nil {
			return fmt.Errorf("look up queue %s: %w", queue, err)
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(wire.CronSubject(queue, "*")))
		if err != nil {
			return fmt.Errorf("look for crons in queue %s: %w", queue, err)
		}
		for subject := range info.State.Subjects {
			if slices.ContainsFunc(entries, func(e Entry) bool { return wire.CronSubject(e.Queue, e.Name) == subject }) {
				continue
			}
			if err := stream.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
				return fmt.Errorf("forget %s: %w", subject, err)
			}
		}
	}
	return nil
}
