package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// lookInterval is how often Wait looks by itself, in case the word about a change was lost.
const lookInterval = time.Second

// Handle names a task in the queue. The zero Handle names none.
type Handle struct {
	ID        string
	Kind      string
	Duplicate bool // Enqueue has stored nothing: a task with this id, or this uniqueness, was there already

	conn  *bus.Conn
	queue string
	keeps bool // the kind keeps what becomes of tasks
}

// Find makes a handle of the task of this kind with an id. It does not ask whether there is one.
func (k Kind[T]) Find(c *bus.Conn, id string) Handle {
	return k.handle(c, c.Grant().QueueOf(k.name), id)
}

func (k Kind[T]) handle(c *bus.Conn, q wire.TaskQueue, id string) Handle {
	return Handle{ID: id, Kind: k.name, conn: c, queue: q.Name, keeps: k.cfg.Keep > 0}
}

func (h Handle) token() string { return wire.TaskToken(h.ID) }

// Status is what is known of a task.
type Status struct {
	State    State
	Attempt  int       // that runs, or comes next, or was the last
	Due      time.Time // of the next attempt of a Scheduled or Retrying task
	Worker   string    // instance that wrote the record last; "" when there is none
	Code     string    // of its last error
	Error    string
	Progress int // per cent
	Note     string
	Result   []byte // of a Done task
	Changed  time.Time
}

// Status asks the broker what is known of the task. The fault task/unknown says that nothing is, or no longer: of a kind
// without Keep nothing is known once the task is done. Of a task that runs for the first time it is not known that it
// does: it is Pending, as it still is in the queue.
func (h Handle) Status(ctx context.Context) (Status, error) {
	r, err := getRecord(ctx, h.conn, h.Kind, h.token())
	if err != nil {
		return Status{}, err
	}
	if r.revision > 0 {
		back, err := h.revived(ctx, r)
		if err != nil || back == 0 {
			return r.status(), err
		}
		return Status{State: Pending, Attempt: 1, Changed: r.at}, nil
	}
	msg, err := find(ctx, h.conn, h.queue, h.Kind, h.token())
	if err != nil {
		return Status{}, err
	}
	if msg == nil {
		// It may have ended between the two looks: its record is written before it leaves the queue.
		if r, err = getRecord(ctx, h.conn, h.Kind, h.token()); err != nil || r.revision > 0 {
			return r.status(), err
		}
		return Status{}, &fault.Error{Code: CodeUnknown, What: "nothing is known of the task", Where: h.where(), Fix: "set Keep of the kind to know what has become of its tasks"}
	}
	s := Status{State: Pending, Attempt: 1, Changed: msg.time}
	if at, ok := strings.CutPrefix(msg.header.Get(headerSchedule), "@at "); ok && !msg.waits(h.queue) {
		s.State = Scheduled
		s.Due, _ = time.Parse(time.RFC3339Nano, at) // the broker has parsed it, too
	}
	return s, nil
}

// revived is the copy of a dead task that was queued again and is not begun; 0 when there is none.
func (h Handle) revived(ctx context.Context, r record) (number int, err error) {
	if r.state != Dead {
		return 0, nil
	}
	msg, err := find(ctx, h.conn, h.queue, h.Kind, h.token())
	if err != nil || msg == nil {
		return 0, err
	}
	if number, err = headerNumber(msg.header, wire.HeaderCopy); err != nil || number <= r.copy {
		return 0, nil //nolint:nilerr // what cannot be read is buried again by who begins it
	}
	return number, nil
}

// status is what a record tells.
func (r record) status() Status {
	s := Status{
		State: r.state, Attempt: r.failed + 1, Due: r.due, Worker: r.owner, Code: r.code, Error: r.err,
		Progress: r.progress, Note: r.note, Result: r.result, Changed: r.at,
	}
	if r.state == Dead {
		s.Attempt = max(r.failed, 1)
	}
	return s
}

func (h Handle) where() string { return "task " + h.Kind + " " + h.ID }

// Wait waits until the task has ended and returns what is known of it. The kind must have Keep. When the task has not
// ended well there is a fault as well: task/cancelled, task/expired, or that of the handler, task/error if it had none.
func (h Handle) Wait(ctx context.Context) (Status, error) {
	if !h.keeps {
		return Status{}, &fault.Error{Code: CodeUnknown, Kind: fault.Misuse, What: "tasks of this kind leave no word of their end", Where: h.where(), Fix: "set Keep of the kind, where it is handled as well"}
	}
	changed := make(chan *nats.Msg, 8) // hints; one that finds no room is not missed
	sub, err := h.conn.NATS().ChanSubscribe(wire.ChangeSubject(h.Kind, h.token()), changed)
	if err != nil {
		return Status{}, fmt.Errorf("wait for %s: %w", h.where(), err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection is closed
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		s, err := h.Status(ctx)
		switch {
		case err == nil && s.State.terminal():
			return s, s.fault(h)
		case err != nil && fault.Code(err) != bus.CodeUnavailable && fault.Code(err) != CodeUnknown:
			return s, err
		}
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			return s, &fault.Error{Code: bus.CodeTimedOut, What: fmt.Sprintf("the task has not ended in time, it is %s", s.State), Where: h.where(), Err: context.Cause(ctx), Fix: "wait longer; see hozo status"}
		}
	}
}

// fault says how a task ended that has not ended well.
func (s Status) fault(h Handle) error {
	f := &fault.Error{Where: h.where(), Code: s.Code, What: s.Error}
	switch s.State {
	case Cancelled:
		f.Code, f.What, f.Fix = CodeCancelled, "the task was cancelled", "enqueue it again if it should run"
	case Expired:
		f.Code, f.What, f.Fix = CodeExpired, "no worker began the task in time", "add workers, or give it more time"
	case Dead:
		f.Fix = "see hozo dlq"
	default:
		return nil
	}
	return f
}

// Cancel ends the task wherever it is: waiting, scheduled or running. A running handler's context ends, and whatever it
// still does, the task is cancelled. It is so for good when Cancel has returned nil; after an error it may run or not.
// A task that has ended is left as it is, and the fault says how it has.
func (h Handle) Cancel(ctx context.Context) error { return h.cancel(ctx, false, cancelledKeep) }

// cancel is Cancel that keeps for a time that the task was cancelled. early says that the task may come only later.
func (h Handle) cancel(ctx context.Context, early bool, keep time.Duration) error {
	token := h.token()
	for {
		r, err := getRecord(ctx, h.conn, h.Kind, token)
		if err != nil {
			return err
		}
		if r.state == Cancelled {
			break // go on where an earlier try was interrupted
		}
		back, err := h.revived(ctx, r)
		if err != nil {
			return err
		}
		if back > 0 {
			r.copy = back
		} else if r.state.terminal() {
			return &fault.Error{Code: CodeEnded, What: fmt.Sprintf("the task is %s already", r.state), Where: h.where(), Fix: "there is nothing to cancel"}
		}
		if r.revision == 0 && !early {
			if msg, err := find(ctx, h.conn, h.queue, h.Kind, token); err != nil {
				return err
			} else if msg == nil {
				return &fault.Error{Code: CodeUnknown, What: "there is no such task, or no longer", Where: h.where(), Fix: "there is nothing to cancel"}
			}
		}
		r.state, r.copy, r.code, r.err = Cancelled, max(r.copy, 1), CodeCancelled, "cancelled by "+h.conn.Grant().User
		if _, _, framed := wire.SplitFramedID(token); framed {
			keep = frameKeep // nothing else says that it is cancelled while its frame waits
		}
		if _, err := putRecord(ctx, h.conn, h.Kind, token, r, keep); err == nil {
			break
		} else if !errors.Is(err, errMoved) {
			return err
		}
	}
	// Order: what is in a frame can get out of it meanwhile, and what is scheduled become runnable, but not the other way
	// round.
	if framed, err := findFrame(ctx, h.conn, h.queue, h.Kind, token); err != nil {
		return err
	} else if framed != nil {
		if err := h.mark(ctx); err != nil {
			return err
		}
	}
	lock, err := h.bury(ctx, wire.ScheduleSubject(h.queue, h.Kind, token), headerSchedule, time.Second)
	take := func(subject, header string, keep time.Duration) {
		if err != nil {
			return
		}
		var own string
		own, err = h.bury(ctx, subject, header, keep)
		lock = cmp.Or(lock, own)
	}
	waiting := waitPattern(h.queue, h.Kind, token)
	take(waiting, headerSchedule, time.Second)
	for p := High; p <= Low; p++ {
		take(runnable(h.queue, h.Kind, p, token), "", 0)
	}
	take(waiting, headerSchedule, time.Second) // a worker may have set it aside meanwhile
	if _, hash, unique := strings.Cut(lock, ":"); unique && err == nil {
		err = unlock(ctx, h.conn, h.Kind, token, hash)
	}
	if err != nil {
		return err
	}
	if err := h.conn.NATS().Publish(wire.NoteSubject(h.Kind), []byte(token)); err != nil {
		return unanswered(wire.NoteSubject(h.Kind), err)
	}
	return nil
}

// mark has whoever gets the task's frame look at the records of its tasks.
func (h Handle) mark(ctx context.Context) error {
	frame, _, _ := wire.SplitFramedID(h.token())
	_, err := h.conn.PublishFrame(ctx, wire.FrameMarkSubject(h.Kind, frame), nats.Header{jetstream.MsgTTLHeader: {frameKeep.String()}}, nil)
	return err
}

// cancelledKeep is how long it is known that a task was cancelled: no worker holds one that long without a look at it.
const cancelledKeep = 24 * time.Hour

// bury replaces what is stored on the subject by a tombstone, if anything is that has the header. It returns which lock
// the task held.
func (h Handle) bury(ctx context.Context, subject, header string, keep time.Duration) (lock string, err error) {
	msg, err := directGet(ctx, h.conn, wire.QueueStream(h.queue), subject)
	if err != nil || msg == nil || (header != "" && msg.header.Get(header) == "") {
		return "", err
	}
	stone := nats.Header{
		jetstream.MsgRollup: {jetstream.MsgRollupSubject}, wire.HeaderState: {string(Cancelled)},
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(msg.seq, 10)},
	}
	lock = msg.header.Get(wire.HeaderUnique)
	if lock != "" {
		stone[wire.HeaderUnique] = []string{lock}
	}
	if keep > 0 {
		stone[jetstream.MsgTTLHeader] = []string{keep.String()}
	}
	_, err = h.conn.PublishFrame(ctx, msg.sub, stone, nil)
	if fault.Code(err) == bus.CodeWrongSequence {
		return lock, nil // it has gone on: the record says what it is
	}
	return lock, err
}
