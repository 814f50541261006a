package node

import (
	"context"
	"errors"
	"reflect"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/dispatch"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/wire"
)

// letOut lets tasks of limited queues begin until ctx ends.
func (n *Node) letOut(ctx context.Context) error { return n.pacer.Run(ctx) }

// setPaced has the limits of m hold from now on. What waits in queues that are limited no more is let out; before says
// which were. Without a connection to the broker it is not known, and awaits the next call.
func (n *Node) setPaced(ctx context.Context, m, before *manifest.Manifest) {
	all := pacedQueues(m)
	var were []dispatch.Queue
	if before != nil {
		were = pacedQueues(before)
	}
	known := n.nats.IsConnected()
	for _, q := range handledQueues(m) {
		if q.Paced() {
			continue
		}
		drain := slices.ContainsFunc(were, func(w dispatch.Queue) bool { return w.Name == q.Name })
		if !drain && known {
			var err error
			if drain, err = n.somethingWaits(ctx, q.Name); err != nil {
				known = false
			}
		}
		if drain {
			all = append(all, dispatch.Queue{Name: q.Name, Drain: true})
		}
	}
	n.pacer.Set(all)
	n.mu.Lock()
	defer n.mu.Unlock()
	if known {
		n.paced = m
	}
}

// somethingWaits reports whether tasks wait in a queue to be let out.
func (n *Node) somethingWaits(ctx context.Context, queue string) (bool, error) {
	stream, err := n.js.Stream(ctx, wire.StreamName(wire.QueueStream(queue)))
	if err != nil {
		return false, err
	}
	_, err = stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(wire.WaitPrefix(queue)+">"))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return false, nil
	}
	return err == nil, err
}

// pacedQueues are the limited queues of m.
func pacedQueues(m *manifest.Manifest) []dispatch.Queue {
	var all []dispatch.Queue
	for _, q := range handledQueues(m) {
		if q.Paced() {
			all = append(all, dispatch.Queue{Name: q.Name, Limits: dispatch.Limits{
				Concurrency: q.Concurrency, Rate: dispatch.Rate(q.Rate),
				KeyConcurrency: q.PerKey.Concurrency, KeyRate: dispatch.Rate(q.PerKey.Rate), Weights: q.Weights,
			}})
		}
	}
	return all
}

// queueSteps says which queues get other limits. Kinds, max and pause show elsewhere.
func queueSteps(before, after *manifest.Manifest) []plan.Step {
	if before == nil {
		return nil
	}
	old := handledQueues(before)
	var steps []plan.Step
	for _, q := range handledQueues(after) {
		i := slices.IndexFunc(old, func(was manifest.Queue) bool { return was.Name == q.Name })
		was := manifest.Queue{Name: q.Name}
		if i >= 0 {
			was = old[i]
		}
		was.Kinds, was.Max, was.Pause = q.Kinds, q.Max, q.Pause
		if reflect.DeepEqual(was, q) {
			continue
		}
		keys := plan.Changed(was, q)
		steps = append(steps, plan.Step{Op: plan.OpUpdate, Name: "queue " + q.Name, Keys: keys, Reason: plan.Because(keys, "its limits changed")})
	}
	return steps
}
