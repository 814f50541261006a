package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/wire"
)

// queueOf returns the queue of a kind: the one that names it, or one of its own.
func queueOf(m *manifest.Manifest, kind string) manifest.Queue {
	if m != nil {
		for _, q := range m.Queues {
			if slices.Contains(q.Kinds, kind) {
				return q
			}
		}
	}
	return manifest.Queue{Name: kind, Kinds: []string{kind}}
}

// queuesOf returns the queues of some kinds, by name.
func queuesOf(m *manifest.Manifest, kinds []string) []manifest.Queue {
	byName := map[string]manifest.Queue{}
	for _, kind := range kinds {
		q := queueOf(m, kind)
		byName[q.Name] = q
	}
	var all []manifest.Queue
	for _, q := range byName {
		all = append(all, q)
	}
	slices.SortFunc(all, func(a, b manifest.Queue) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

// queueSpecs are the queues that the broker must hold for kinds that are handled.
func queueSpecs(m *manifest.Manifest, kinds []string) []broker.QueueSpec {
	var specs []broker.QueueSpec
	for _, q := range queuesOf(m, kinds) {
		specs = append(specs, broker.QueueSpec{Name: q.Name, Kinds: q.Kinds, Paused: q.Pause, Paced: q.Paced()})
	}
	return specs
}

// grantQueues are the queues of the kinds of a service or client, as its grant names them. Those that say nothing of
// their own are left out.
func grantQueues(m *manifest.Manifest, kinds []string) []wire.TaskQueue {
	var all []wire.TaskQueue
	for _, q := range queuesOf(m, kinds) {
		if q.Max == 0 && len(q.Kinds) == 1 && q.Kinds[0] == q.Name {
			continue
		}
		all = append(all, wire.TaskQueue{Name: q.Name, Kinds: q.Kinds, Max: int64(q.Max)})
	}
	return all
}

// oldestIn is the age of the oldest task of a kind that waits or runs; 0 when there is none.
func oldestIn(ctx context.Context, stream jetstream.Stream, queue, kind string) (time.Duration, error) {
	var oldest time.Duration
	subjects := []string{wire.FrameSubject(queue, kind, "*", "*")}
	for priority := wire.TaskPriority1; priority <= wire.TaskPriority3; priority++ {
		subjects = append(subjects, wire.TaskSubject(queue, kind, priority, "*"))
	}
	for _, subject := range subjects {
		// A task is deleted when it is done, so the first of its subject is the oldest that is not.
		msg, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject(subject))
		switch {
		case err == nil:
			oldest = max(oldest, time.Since(msg.Time))
		case !errors.Is(err, jetstream.ErrMsgNotFound):
			return 0, err
		}
	}
	return oldest, nil
}

// queues says how the queues of m do. What the broker does not answer is left out.
func (n *Node) queues(ctx context.Context, m *manifest.Manifest) []status.Queue {
	dead := n.deadByQueue(ctx)
	var all []status.Queue
	for _, q := range handledQueues(m) {
		js := wire.StreamName(wire.QueueStream(q.Name))
		stream, err := n.js.Stream(ctx, js)
		if err != nil {
			continue
		}
		one := status.Queue{Name: q.Name, Kinds: q.Kinds, Max: int64(q.Max), Paused: n.pauses.paused(q), Dead: dead[js]}
		all = append(all, n.countQueue(ctx, stream, one, n.crons.Stored(q.Name)))
	}
	return all
}

// countQueue counts tasks. Of those that share a message as many count as running as their messages are in hand.
func (n *Node) countQueue(ctx context.Context, stream jetstream.Stream, q status.Queue, crons uint64) status.Queue {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(wire.QueueFrames(q.Name)))
	if err != nil {
		info = stream.CachedInfo() // tasks that share a message count as one
	}
	for _, kind := range q.Kinds {
		for _, durable := range wire.TaskDurables(kind) {
			consumer, err := stream.Consumer(ctx, durable)
			if err != nil {
				continue
			}
			c := consumer.CachedInfo()
			waiting, running := c.NumPending, uint64(max(c.NumAckPending, 0))
			if frames, tasks := wire.FramedTasks(info.State.Subjects, kind); durable == wire.FrameDurable(kind) && frames > 0 {
				running = tasks * min(running, frames) / frames
				waiting = tasks - running
			}
			q.Waiting += waiting
			q.Running += int(running) //nolint:gosec // a queue holds fewer than 2^63 tasks
			q.Redelivered += c.NumRedelivered
		}
		if age, err := oldestIn(ctx, stream, q.Name, kind); err == nil {
			q.OldestSeconds = max(q.OldestSeconds, age.Seconds())
		}
	}
	// What has come of crons is in the stream, too.
	depth := depthOf(info)
	depth -= min(depth, crons)
	if depth > q.Waiting+uint64(max(q.Running, 0)) {
		q.Scheduled = depth - q.Waiting - uint64(max(q.Running, 0))
		q.Scheduled -= min(q.Scheduled, marks(ctx, stream, q.Name))
		q.Held = min(q.Scheduled, n.held(ctx, q.Name))
		q.Scheduled -= q.Held
	}
	return q
}

// held counts the tasks that wait for the limits of a queue.
func (n *Node) held(ctx context.Context, queue string) uint64 {
	body := fmt.Sprintf(`{"seq":1,"next_by_subj":%q,"batch":1}`, wire.WaitPrefix(queue)+">")
	first, err := n.nats.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+wire.StreamName(wire.QueueStream(queue)), []byte(body))
	if err != nil || first.Header.Get("Status") != "" {
		return 0
	}
	more, _ := strconv.ParseUint(first.Header.Get("Nats-Num-Pending"), 10, 64) // the broker wrote it
	return more + 1
}

// marks counts what lies in a queue and is no task: the marks of outboxes.
func marks(ctx context.Context, stream jetstream.Stream, queue string) uint64 {
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(wire.OutboxSubject(queue, "*")))
	if err != nil {
		return 0
	}
	return uint64(len(info.State.Subjects))
}

// depthOf counts the tasks of a queue from its stream's state, in which the frames are listed.
func depthOf(info *jetstream.StreamInfo) uint64 {
	frames, tasks := wire.FramedTasks(info.State.Subjects, "*")
	return info.State.Msgs - frames + tasks
}

// deadByQueue counts the dead tasks by the JetStream names of their queues.
func (n *Node) deadByQueue(ctx context.Context) map[string]uint64 {
	stream, err := n.js.Stream(ctx, wire.StreamName(wire.DeadStream))
	if err != nil || stream.CachedInfo().State.Msgs == 0 {
		return nil
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(fmt.Sprintf("%s.*.*.>", wire.DeadStream)))
	if err != nil {
		return nil
	}
	return deadTasks(info.State.Subjects)
}

// deadTasks counts the letters of each queue, by JetStream name, from the subjects of hozo.dlq:
// hozo.dlq.<service>.<JetStream name>.<sequence>.<index>.
func deadTasks(subjects map[string]uint64) map[string]uint64 {
	dead := map[string]uint64{}
	for subject, n := range subjects {
		if parts := strings.Split(subject, "."); len(parts) > 3 && strings.HasPrefix(parts[3], wire.StreamName(wire.TaskStream)+"_") {
			dead[parts[3]] += n
		}
	}
	return dead
}

// taskKind returns the kind whose tasks a subject stores.
func taskKind(m *manifest.Manifest, subject string) (kind string, ok bool) {
	parts := strings.Split(subject, ".")
	if len(parts) < 5 || parts[0]+"."+parts[1] != wire.TaskStream {
		return "", false
	}
	for _, s := range m.Services {
		for _, kind := range s.Handles {
			if wire.StreamName(kind) == parts[4] {
				return kind, true
			}
		}
	}
	return strings.ReplaceAll(parts[4], "_", "."), true
}
