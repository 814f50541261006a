package task

import (
	"context"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// A task of a limited queue waits as a schedule of the broker that is never due, under its key. The platform lets it out by
// the broker's own way to fire a schedule early, which stores the task where workers look and removes the schedule in one
// step: decision 0023.

const (
	headerScheduler = "Nats-Scheduler"

	// never is when what waits would be run if nobody let it out.
	never = "@at 2200-01-01T00:00:00Z"
)

// place has a runnable task wait in the queue, if the queue is limited. What is scheduled waits when it is due.
func (a *admission) place(msg *nats.Msg) {
	if a.paced.Load() {
		putAside(msg)
	}
}

// putAside turns a runnable task into one that waits.
func putAside(msg *nats.Msg) {
	if len(msg.Header[headerSchedule]) > 0 {
		return
	}
	parts := strings.Split(msg.Subject, ".") // hozo.tasks.<queue>.q.<kind>.<priority>.<id>
	if len(parts) != 7 {
		return // it is no task
	}
	priority, err := strconv.Atoi(parts[5])
	if err != nil {
		return // likewise
	}
	if msg.Header == nil {
		msg.Header = nats.Header{}
	}
	msg.Header[headerSchedule], msg.Header[headerScheduleTarget] = []string{never}, []string{msg.Subject}
	msg.Subject = wire.WaitSubject(parts[2], parts[4], priority, wire.KeyToken(msg.Header.Get(wire.HeaderKey)), parts[6])
}

// setAside has a task wait that has come to a worker of a limited queue without having been let out: it was enqueued before
// the queue was limited, by a client that does not know of it, or its time has come.
func (w *pool) setAside(work context.Context, l *lease) {
	msg := &nats.Msg{Subject: runnable(w.queue, w.kind, l.d.priority, l.d.token), Header: l.d.carried(), Data: l.d.data}
	if l.d.frame != nil || l.d.apart != "" { // its record is to be read before it is run
		msg.Header[wire.HeaderApart] = []string{l.d.place()}
	}
	putAside(msg)
	msg.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{"0"}
	err := retry(work, func(ctx context.Context) error {
		_, err := w.conn.PublishFrame(ctx, msg.Subject, msg.Header, msg.Data)
		return err
	})
	if err != nil && fault.Code(err) != bus.CodeWrongSequence { // then it was set aside by an earlier try
		w.log.WarnContext(work, "a task is left to be delivered again: it could not be set aside", "task", l.d.id, "error", err)
		return
	}
	w.acknowledge(l)
}

// notePace tells the dispatcher of a task that it has let out. When that is lost, it finds out by itself.
func (w *pool) notePace(d *delivery, word byte) {
	if d.released {
		_ = w.conn.NATS().Publish(w.pace, append([]byte{word}, d.token...))
	}
}

// The words of notePace.
const (
	paceBegun = 'b'
	paceLeft  = 'l'
)

// findWaiting returns the message of a task that waits to be let out, or nil.
func findWaiting(ctx context.Context, c *bus.Conn, queue, kind, token string) (*stored, error) {
	msg, err := directGet(ctx, c, wire.QueueStream(queue), waitPattern(queue, kind, token))
	if err != nil || msg == nil || msg.header.Get(headerSchedule) == "" {
		return nil, err
	}
	return msg, nil
}

func waitPattern(queue, kind, token string) string {
	return wire.WaitPrefix(queue) + wire.StreamName(kind) + ".*.*." + token
}

// waits reports whether the message is that of a task that waits to be let out.
func (s *stored) waits(queue string) bool { return strings.HasPrefix(s.sub, wire.WaitPrefix(queue)) }
