package hozotest

import (
	"strconv"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// DeadLetter is an event or a task that a service has given up.
type DeadLetter struct {
	Service  string
	Subject  string // of the event; of a task the one that it waited on
	Task     string // id of the task; "" for an event
	Code     string
	Error    string
	Attempts int
	Data     []byte // the event, or the arguments

	msg *jetstream.RawStreamMsg
}

// DeadLetters returns what the services have given up, oldest first.
func (e *Env) DeadLetters() []DeadLetter {
	e.t.Helper()
	ctx, cancel := e.patience()
	defer cancel()
	var all []DeadLetter
	stream, err := e.js().Stream(ctx, wire.StreamName(wire.DeadStream))
	if err == nil {
		err = each(ctx, stream, wire.DeadStream+".>", func(msg *jetstream.RawStreamMsg) {
			service, _, _ := strings.Cut(strings.TrimPrefix(msg.Subject, wire.DeadStream+"."), ".")
			attempts, _ := strconv.Atoi(msg.Header.Get(wire.HeaderAttempts)) // a service has written it
			all = append(all, DeadLetter{
				Service: service, Subject: msg.Header.Get(wire.HeaderSubject), Task: msg.Header.Get(wire.HeaderTaskID),
				Code: msg.Header.Get(wire.HeaderCode), Error: msg.Header.Get(wire.HeaderError), Attempts: attempts, Data: msg.Data, msg: msg,
			})
		})
	}
	if err != nil {
		e.t.Fatalf("read the dead letters: %v", err)
	}
	return all
}

// Retry queues a dead task again, as hozo task retry does. The letter of an event cannot be retried here.
func (e *Env) Retry(letter DeadLetter) {
	e.t.Helper()
	if letter.Task == "" {
		e.t.Fatalf("hozotest: the letter of an event cannot be retried: publish %s again", letter.Subject)
	}
	ctx, cancel := e.patience()
	defer cancel()
	_, err := e.js().PublishMsg(ctx, task.Revived(letter.msg.Header, letter.msg.Data), jetstream.WithMsgID("letter-"+strconv.FormatUint(letter.msg.Sequence, 10)))
	if err == nil {
		var stream jetstream.Stream
		if stream, err = e.js().Stream(ctx, wire.StreamName(wire.DeadStream)); err == nil {
			err = stream.DeleteMsg(ctx, letter.msg.Sequence)
		}
	}
	if err != nil {
		e.t.Fatalf("retry task %s: %v", letter.Task, err)
	}
}

// Events returns what is stored of a subject and of everything below it, oldest first. The subject's first words are the name of a
// stream of the manifest.
func (e *Env) Events(subject string) [][]byte {
	e.t.Helper()
	ctx, cancel := e.patience()
	defer cancel()
	var all [][]byte
	for _, s := range e.layout.Streams {
		if s.Name != subject && !strings.HasPrefix(subject, s.Name+".") {
			continue
		}
		stream, err := e.js().Stream(ctx, wire.StreamName(s.Name))
		if err != nil {
			e.t.Fatalf("read %s: %v", subject, err)
		}
		err = each(ctx, stream, ">", func(msg *jetstream.RawStreamMsg) {
			frame, err := bus.OpenData(s.Name, msg.Subject, msg.Header, msg.Data)
			if err != nil || (frame.Subject != subject && !strings.HasPrefix(frame.Subject, subject+".")) {
				return
			}
			events, err := frame.Events()
			if err != nil {
				e.t.Fatalf("read %s: %v", subject, err)
			}
			for _, event := range events {
				all = append(all, append([]byte(nil), event...))
			}
		})
		if err != nil {
			e.t.Fatalf("read %s: %v", subject, err)
		}
		return all
	}
	e.t.Fatalf("hozotest: the manifest has no stream for %s", subject)
	return nil
}
