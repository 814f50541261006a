package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// taskLimit is how many tasks are listed or cancelled when the caller names no limit.
	taskLimit = 100

	// mostLooked bounds how many tasks one request looks at: each costs a few exchanges with the broker.
	mostLooked = 10_000
)

// TaskFilter chooses among tasks; what is empty does not matter.
type TaskFilter struct {
	Queue string   `json:"queue,omitempty"`
	Kind  string   `json:"kind,omitempty"`
	State string   `json:"state,omitempty"`
	IDs   []string `json:"ids,omitempty"`
	Limit int      `json:"limit,omitempty"` // most tasks; default 100
}

// TaskStatus is what is known of one task.
type TaskStatus struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"`
	Queue    string    `json:"queue"`
	State    string    `json:"state"`
	Attempt  int       `json:"attempt"`
	Due      time.Time `json:"due,omitzero"`
	Worker   string    `json:"worker,omitempty"`
	Progress int       `json:"progress,omitempty"`
	Note     string    `json:"note,omitempty"`
	Code     string    `json:"code,omitempty"`
	Error    string    `json:"error,omitempty"`
	Changed  time.Time `json:"changed"`
	Result   []byte    `json:"result,omitempty"`
}

// TaskList is what was found.
type TaskList struct {
	Tasks []TaskStatus `json:"tasks"`
	More  bool         `json:"more,omitempty"` // there may be others that were not looked at
}

// Cancelled is what a cancellation has done.
type Cancelled struct {
	Count  int  `json:"count"`
	Ended  int  `json:"ended,omitempty"` // had ended before
	DryRun bool `json:"dry_run,omitempty"`
	More   bool `json:"more,omitempty"` // there may be others
}

// Purged is what was removed from a queue.
type Purged struct {
	Count  uint64 `json:"count"`
	DryRun bool   `json:"dry_run,omitempty"`
}

// taskConn is a connection for what the task package does, with the rights of the platform. It is made for a request:
// people ask for tasks now and then.
func (n *Node) taskConn(ctx context.Context) (*bus.Conn, error) {
	m := n.current()
	if m == nil {
		return nil, errNoManifest
	}
	password, err := n.state.password()
	if err != nil {
		return nil, err
	}
	port, err := n.state.port()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, deadPatience)
	defer cancel()
	var queues []wire.TaskQueue
	var kinds []string // all may be cancelled
	for _, q := range handledQueues(m) {
		queues = append(queues, wire.TaskQueue{Name: q.Name, Kinds: q.Kinds, Max: int64(q.Max)})
		kinds = append(kinds, q.Kinds...)
	}
	return bus.Connect(ctx, bus.Config{URL: fmt.Sprintf("nats://127.0.0.1:%d", port), Logger: n.cfg.Logger, Grant: wire.Grant{
		Version: wire.GrantVersion, Project: m.Project, Service: "hozo", User: broker.PlatformUser, Password: password, Queues: queues, Enqueues: kinds,
	}})
}

// found is a task that a message or a record tells of.
type found struct{ queue, kind, token string }

// tasks lists what f chooses: those in the queues first, and then those of which only a record is left.
func (n *Node) tasks(ctx context.Context, f TaskFilter) (TaskList, error) {
	list := TaskList{Tasks: []TaskStatus{}}
	limit := f.Limit
	if limit <= 0 {
		limit = taskLimit
	}
	conn, err := n.taskConn(ctx)
	if err != nil {
		return list, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has nothing to store
	seen := map[found]bool{}
	looked := 0
	err = n.eachTask(ctx, f, func(one found) (bool, error) {
		if seen[one] {
			return true, nil
		}
		if len(list.Tasks) == limit || looked == mostLooked {
			list.More = true
			return false, nil
		}
		seen[one] = true
		looked++
		s, err := statusOf(ctx, conn, one)
		if fault.Code(err) == task.CodeUnknown {
			return true, nil // it ended meanwhile
		}
		if err == nil && (f.State == "" || s.State == f.State) {
			list.Tasks = append(list.Tasks, s)
		}
		return err == nil, err
	})
	return list, err
}

func statusOf(ctx context.Context, conn *bus.Conn, one found) (TaskStatus, error) {
	id, err := wire.ParseTaskToken(one.token)
	if err != nil {
		id = one.token
	}
	s, err := task.NewKind[json.RawMessage](one.kind, task.Config{}).Find(conn, id).Status(ctx)
	return taskStatus(id, one.kind, one.queue, s), err
}

func taskStatus(id, kind, queue string, s task.Status) TaskStatus {
	return TaskStatus{
		ID: id, Kind: kind, Queue: queue, State: string(s.State), Attempt: s.Attempt, Due: s.Due, Worker: s.Worker,
		Progress: s.Progress, Note: s.Note, Code: s.Code, Error: s.Error, Changed: s.Changed, Result: s.Result,
	}
}

// eachTask calls each for the tasks that f can mean by their place and name, until it returns false.
func (n *Node) eachTask(ctx context.Context, f TaskFilter, each func(found) (bool, error)) error {
	m := n.current()
	if m == nil {
		return errNoManifest
	}
	queues := handledQueues(m)
	if f.Queue != "" {
		q, err := n.queueNamed(f.Queue)
		if err != nil {
			return err
		}
		queues = []manifest.Queue{q}
	}
	tokens := []string{"*"}
	if len(f.IDs) > 0 {
		tokens = nil
		for _, id := range f.IDs {
			tokens = append(tokens, wire.TaskToken(id))
		}
	}
	known := false
	var places [][2]string // stream and subject
	var of []found
	add := func(stream, subject, queue, kind string) {
		places = append(places, [2]string{stream, subject})
		of = append(of, found{queue: queue, kind: kind})
	}
	for _, q := range queues {
		for _, kind := range q.Kinds {
			if f.Kind != "" && f.Kind != kind {
				continue
			}
			known = true
			for _, token := range tokens {
				for p := wire.TaskPriority1; p <= wire.TaskPriority3; p++ {
					add(wire.QueueStream(q.Name), wire.TaskSubject(q.Name, kind, p, token), q.Name, kind)
				}
				add(wire.QueueStream(q.Name), wire.ScheduleSubject(q.Name, kind, token), q.Name, kind)
				if q.Paced() {
					add(wire.QueueStream(q.Name), wire.WaitPrefix(q.Name)+wire.StreamName(kind)+".*.*."+token, q.Name, kind)
				}
				if frame, _, framed := wire.SplitFramedID(token); framed || token == "*" {
					add(wire.QueueStream(q.Name), wire.FrameSubject(q.Name, kind, "*", cmp.Or(frame, "*")), q.Name, kind)
				}
			}
		}
	}
	if f.Kind != "" && !known {
		return &fault.Error{Code: "task/unknown-kind", Kind: fault.Misuse, What: fmt.Sprintf("no service handles tasks of kind %q", f.Kind), Where: f.Kind, Fix: "`hozo status` lists the queues and their kinds"}
	}
	for _, o := range slices.Clone(of) {
		for _, token := range tokens {
			place := [2]string{wire.RecordStream, wire.RecordSubject(o.kind, token)}
			if !slices.Contains(places, place) {
				add(place[0], place[1], o.queue, o.kind)
			}
		}
	}
	for i, place := range places {
		more, err := n.eachMessage(ctx, place[0], place[1], func(subject string) (bool, error) {
			for _, token := range tokensOf(subject, tokens) {
				one := of[i]
				one.token = token
				if more, err := each(one); err != nil || !more {
					return false, err
				}
			}
			return true, nil
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// tokensOf names the tasks of a message on subject that are among wanted.
func tokensOf(subject string, wanted []string) []string {
	last := subject[strings.LastIndexByte(subject, '.')+1:]
	_, count := wire.FramedTasks(map[string]uint64{subject: 1}, "*")
	if count == 0 {
		return []string{last} // one task, that the subject was made for
	}
	var all []string
	for i := range int(min(count, task.MaxAtomic)) { //nolint:gosec // it is bounded
		if token := wire.FramedID(last, i); wanted[0] == "*" || slices.Contains(wanted, token) {
			all = append(all, token)
		}
	}
	return all
}

// eachMessage calls each with the subjects that match, oldest first, until it returns false.
func (n *Node) eachMessage(ctx context.Context, name, subject string, each func(subject string) (bool, error)) (more bool, err error) {
	stream, err := n.js.Stream(ctx, wire.StreamName(name))
	if err != nil {
		return false, &fault.Error{Code: "task/unavailable", What: "the broker does not answer", Where: name, Err: err, Fix: "look at `hozo status`"}
	}
	for seq := uint64(1); ; {
		msg, err := stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(subject))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read %s: %w", name, err)
		}
		seq = msg.Sequence + 1
		if task.State(msg.Header.Get(wire.HeaderState)) == task.Cancelled && name != wire.RecordStream {
			continue // a tombstone
		}
		if more, err := each(msg.Subject); err != nil || !more {
			return false, err
		}
	}
}

// cancelTasks cancels what f chooses of the tasks that have not ended.
func (n *Node) cancelTasks(ctx context.Context, f TaskFilter, dryRun bool) (Cancelled, error) {
	done := Cancelled{DryRun: dryRun}
	if len(f.IDs) == 0 && f.Queue == "" && f.Kind == "" && f.State == "" {
		return done, &fault.Error{Code: "task/nothing-selected", Kind: fault.Misuse, What: "no task is named", Fix: "give ids, or a filter such as --queue NAME"}
	}
	if f.Limit <= 0 {
		f.Limit = mostLooked
	}
	list, err := n.tasks(ctx, f)
	if err != nil {
		return done, err
	}
	done.More = list.More
	if len(f.IDs) > 0 && len(list.Tasks) == 0 {
		return done, &fault.Error{Code: task.CodeUnknown, Kind: fault.Misuse, What: "nothing is known of the task", Where: strings.Join(f.IDs, " "), Fix: "`hozo task ls` lists them"}
	}
	conn, err := n.taskConn(ctx)
	if err != nil {
		return done, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has nothing to store
	for _, one := range list.Tasks {
		switch task.State(one.State) {
		case task.Done, task.Dead, task.Cancelled, task.Expired:
			done.Ended++
			continue
		}
		if !dryRun {
			err := task.NewKind[json.RawMessage](one.Kind, task.Config{}).Find(conn, one.ID).Cancel(ctx)
			if code := fault.Code(err); code == task.CodeUnknown || code == task.CodeEnded {
				done.Ended++ // meanwhile
				continue
			}
			if err != nil {
				return done, err
			}
		}
		done.Count++
	}
	return done, nil
}

// purge removes every task from a queue, without a word about each task: what runs is finished, but not run again when its
// worker dies; records stay as they are, and what was unique can be enqueued again half a minute later.
func (n *Node) purge(ctx context.Context, name string, dryRun bool) (Purged, error) {
	done := Purged{DryRun: dryRun}
	q, err := n.queueNamed(name)
	if err != nil {
		return done, err
	}
	stream, err := n.js.Stream(ctx, wire.StreamName(wire.QueueStream(q.Name)))
	if err != nil {
		return done, &fault.Error{Code: "task/unavailable", What: "the broker does not answer", Where: q.Name, Err: err, Fix: "look at `hozo status`"}
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(wire.QueueFrames(q.Name)))
	if err != nil {
		return done, fmt.Errorf("count the tasks of queue %s: %w", q.Name, err)
	}
	before := depthOf(info)
	if dryRun {
		done.Count = before - min(before, n.crons.Stored(q.Name)+marks(ctx, stream, q.Name))
		return done, nil
	}
	// Neither what has come of crons nor marks of outboxes.
	for _, subjects := range []string{"w", "q", "s", "w"} { // what waits may become runnable meanwhile, and the other way round
		if err := stream.Purge(ctx, jetstream.WithPurgeSubject(wire.QueueStream(wire.StreamName(q.Name))+"."+subjects+".>")); err != nil {
			return done, fmt.Errorf("purge queue %s: %w", q.Name, err)
		}
	}
	info, err = stream.Info(ctx, jetstream.WithSubjectFilter(wire.QueueFrames(q.Name)))
	if err == nil && depthOf(info) < before {
		done.Count = before - depthOf(info)
	}
	return done, err
}
