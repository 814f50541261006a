package task

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// maxIDBytes bounds an id: it is repeated in headers and kept in the broker's memory for the duplicate window.
const maxIDBytes = 256

// headroomBytes is kept free beside the arguments, so that the headers of a dead letter (error text, ids, subjects) fit
// into the same message.
const headroomBytes = 8 << 10

// Option changes one Enqueue.
type Option func(*enqueue)

type enqueue struct {
	id    string
	given bool
}

// ID gives the task an id of the caller's. A second task of the same kind with this id is not stored as long as the
// broker remembers the first, which is ten minutes. It must be 1 to 256 printable ASCII characters without spaces.
func ID(id string) Option { return func(e *enqueue) { e.id, e.given = id, true } }

// Enqueue stores a task and returns its id once the broker has acknowledged it. While the broker is away it tries until
// ctx ends. The errors are faults: bus/unavailable, bus/stream-full, bus/store-full, bus/too-large, bus/no-route (the
// kind is not declared under enqueues) and task/bad-id.
func (k Kind[T]) Enqueue(ctx context.Context, c *bus.Conn, args T, opts ...Option) (id string, err error) {
	var e enqueue
	for _, opt := range opts {
		opt(&e)
	}
	if !e.given {
		e.id = rand.Text()
	} else if !validID(e.id) {
		return "", &fault.Error{
			Code: CodeBadID, Kind: fault.Misuse, What: fmt.Sprintf("%q cannot be the id of a task", e.id), Where: "task " + k.name,
			Fix: fmt.Sprintf("use 1 to %d printable ASCII characters without spaces", maxIDBytes),
		}
	}
	grant := c.Grant()
	if !slices.Contains(grant.Enqueues, k.name) {
		return "", k.notEnqueued(grant.Service, nil)
	}
	msg, err := k.message(e.id, args)
	if err != nil {
		return "", err
	}
	if limit := int(c.NATS().MaxPayload()) - headroomBytes; len(msg.Data) > limit {
		return "", &fault.Error{
			Code: bus.CodeTooLarge, What: fmt.Sprintf("arguments of %d bytes are over the limit of %d", len(msg.Data), limit),
			Where: "task " + k.name, Fix: "store the data elsewhere and enqueue its address",
		}
	}
	bus.PutTrace(ctx, msg.Header, 0)
	if _, err := c.PublishFrame(ctx, msg.Subject, msg.Header, msg.Data); err != nil {
		return "", fmt.Errorf("enqueue task %s: %w", k.name, err)
	}
	return e.id, nil
}

// EnqueueFrom stores a task from inside the handler of a stage: before the handler's event is acknowledged, and only if
// the handler returns nil. Its id is made from the event's id, the kind and the arguments, so that handling the event
// again enqueues nothing twice; equal arguments from one event are one task. The errors are the faults bus/no-route and
// bus/too-large, which park the event when the handler returns them.
func (k Kind[T]) EnqueueFrom(out *bus.Out, args T) error {
	msg, err := k.message("", args)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(msg.Data)
	// 64 bits tell apart what one event enqueues.
	k.identify(msg, out.EventID().String()+":"+hex.EncodeToString(sum[:8]))
	if err := out.Store(msg); err != nil {
		if fault.Code(err) == bus.CodeNoRoute {
			return k.notEnqueued("", err)
		}
		return fmt.Errorf("enqueue task %s: %w", k.name, err)
	}
	return nil
}

func (k Kind[T]) message(id string, args T) (*nats.Msg, error) {
	data, err := k.encode(args)
	if err != nil {
		return nil, err
	}
	msg := &nats.Msg{Subject: wire.TaskSubject(k.name), Data: data, Header: nats.Header{}}
	k.identify(msg, id)
	return msg, nil
}

// identify puts the id into msg, for the handler and for the broker's duplicate window, which all kinds share.
func (k Kind[T]) identify(msg *nats.Msg, id string) {
	msg.Header.Set(wire.HeaderTaskID, id)
	msg.Header.Set(wire.HeaderMsgID, k.name+":"+id)
}

func (k Kind[T]) notEnqueued(service string, cause error) error {
	who, where := "this service", "the service"
	if service != "" {
		who = fmt.Sprintf("service %q", service)
		where = "service " + service
	}
	return &fault.Error{
		Code: bus.CodeNoRoute, What: fmt.Sprintf("%s may not enqueue %q", who, k.name), Where: wire.TaskSubject(k.name),
		Fix: fmt.Sprintf("add %s to enqueues of %s in hozo.yaml", k.name, where), Err: cause,
	}
}

func validID(id string) bool {
	return id != "" && len(id) <= maxIDBytes && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' })
}
