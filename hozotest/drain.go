package hozotest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

// lookInterval is the pause between two looks at whether everything is done.
const lookInterval = time.Millisecond

// Drain waits until every event and every task that a running service has to do is settled: done, dead, or waiting for its time.
// What is enqueued or published meanwhile is waited for, too. It fails the test, and says what is left, when that takes longer
// than Patience.
func (e *Env) Drain() {
	e.t.Helper()
	ctx, cancel := e.patience()
	defer cancel()
	var before look
	for {
		now, err := e.look(ctx)
		switch {
		case ctx.Err() != nil:
			e.t.Fatalf("not everything was done within %v: %s", e.cfg.Patience, strings.Join(before.busy, ", "))
		case err != nil:
			e.t.Fatalf("look at what is left to do: %v", err)
		case len(now.busy) == 0 && before.seqs != nil && len(before.busy) == 0 && maps.Equal(now.seqs, before.seqs):
			return // nothing was there in either look, and nothing came between them
		}
		before = now
		select {
		case <-time.After(lookInterval):
		case <-ctx.Done():
		}
	}
}

// look is one look at everything. Its parts are not of one moment, so only two equal ones tell that nothing is left.
type look struct {
	busy []string          // what is left, for people
	seqs map[string]uint64 // last sequence of each stream
}

func (e *Env) look(ctx context.Context) (look, error) {
	l := look{seqs: map[string]uint64{}}
	e.mu.Lock()
	running := maps.Clone(e.running)
	e.mu.Unlock()
	var kinds []string
	for _, s := range e.manifest.Services {
		if running[s.Name] > 0 {
			kinds = append(kinds, s.Handles...)
		}
	}
	for _, q := range e.layout.Queues {
		if q.Paused {
			continue
		}
		stream, err := e.js().Stream(ctx, wire.StreamName(wire.QueueStream(q.Name)))
		if err != nil {
			return l, err
		}
		// All that can be run; what waits for its time is on other subjects.
		prefix := wire.TaskStream + "." + wire.StreamName(q.Name) + ".q."
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
		if err != nil {
			return l, err
		}
		l.seqs[q.Name] = info.State.LastSeq
		count := map[string]int{}
		for subject := range info.State.Subjects {
			kind, _, _ := strings.Cut(strings.TrimPrefix(subject, prefix), ".")
			count[kind]++
		}
		for _, kind := range q.Kinds {
			if n := count[wire.StreamName(kind)]; n > 0 && slices.Contains(kinds, kind) {
				l.busy = append(l.busy, fmt.Sprintf("%d tasks of kind %s", n, kind))
			}
		}
		if info, err = stream.Info(ctx, jetstream.WithSubjectFilter(wire.QueueFrames(q.Name))); err != nil {
			return l, err
		}
		for _, kind := range q.Kinds {
			if _, n := wire.FramedTasks(info.State.Subjects, kind); n > 0 && slices.Contains(kinds, kind) {
				l.busy = append(l.busy, fmt.Sprintf("%d tasks of kind %s that were enqueued together", n, kind))
			}
		}
	}
	streams := []string{wire.RetryStream}
	for _, s := range e.layout.Streams {
		streams = append(streams, s.Name)
	}
	for _, name := range streams {
		if err := e.lookAt(ctx, name, running, &l); err != nil {
			return l, err
		}
	}
	return l, nil
}

// lookAt looks at how far the running services have read a stream of events.
func (e *Env) lookAt(ctx context.Context, name string, running map[string]int, l *look) error {
	stream, err := e.js().Stream(ctx, wire.StreamName(name))
	if err != nil {
		return err
	}
	l.seqs[name] = stream.CachedInfo().State.LastSeq
	consumers := stream.ListConsumers(ctx)
	for c := range consumers.Info() {
		service, partition, _ := strings.Cut(c.Name, "@")
		if left := c.NumPending + uint64(c.NumAckPending); left > 0 && running[service] > 0 && partition == "" { //nolint:gosec // a count
			l.busy = append(l.busy, fmt.Sprintf("%d messages of %s for %s", left, name, service))
		}
	}
	return consumers.Err()
}
