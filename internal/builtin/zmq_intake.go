package builtin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/zmtp"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"
)

const (
	// intakeSubjects bounds the subjects that one round of a SUB socket stores at once: one frame each.
	intakeSubjects = 64

	intakeRetryFirst = 20 * time.Millisecond // between tries to store in a full stream
	intakeRetryMost  = time.Second
)

// zmqIntake stores what PUSH peers send, or PUB peers publish. From each peer it reads as much as has arrived, stores
// that and only then reads on: while the stream takes nothing, nothing is read, TCP's window closes, and the peer blocks
// at its own high-water mark.
type zmqIntake struct {
	*zmqDoor
	conn      *bus.Conn
	subject   string // without a final .>
	topics    bool   // the topic is the rest of the subject
	sub       bool
	multipart bool
	route     wire.Route
	live      bool      // nothing stores the subject
	builders  sync.Pool // *bus.Builder
}

func newZMQIntake(conn *bus.Conn, z manifest.ZMQSocket, door *zmqDoor) (*zmqIntake, error) {
	in := &zmqIntake{zmqDoor: door, conn: conn, sub: z.Sub != "", multipart: z.Multipart}
	in.subject, in.topics = strings.CutSuffix(z.Stores(), ".>")
	i := slices.IndexFunc(conn.Grant().Publish, func(r wire.Route) bool { return wire.Covers(r.Subject, z.Stores()) })
	in.live = slices.ContainsFunc(conn.Grant().Live, func(pattern string) bool { return wire.Covers(pattern, z.Stores()) })
	if in.live {
		in.builders.New = func() any { return bus.NewBuilder(wire.CodecNone) }
		return in, nil
	}
	if i < 0 {
		return nil, &fault.Error{
			Code: bus.CodeNoRoute, Kind: fault.Misuse, Where: z.Stores(), What: "the service may not publish to it",
			Fix: fmt.Sprintf("add %s to publishes of service %s", z.Stores(), conn.Grant().Service),
		}
	}
	in.route = conn.Grant().Publish[i]
	codec, _ := wire.CodecOf(in.route.Compression) // the manifest has checked the word
	in.builders.New = func() any { return bus.NewBuilder(codec) }
	return in, nil
}

// Run takes messages until ctx ends and stores what it has taken.
func (in *zmqIntake) Run(ctx context.Context) error {
	work, end := outlive(ctx, zmqGrace)
	defer end()
	return in.serve(ctx, func(ctx context.Context, peer *zmtp.Conn) error { return in.take(ctx, work, peer) })
}

// take stores a peer's messages in their order.
func (in *zmqIntake) take(ctx, work context.Context, peer *zmtp.Conn) error {
	if in.sub {
		if err := peer.Subscribe(""); err != nil {
			return err
		}
	}
	r := round{in: in}
	defer r.clear()
	for {
		err := r.fill(ctx, peer)
		if stored := r.store(work); stored != nil {
			return stored
		}
		if err != nil {
			return err
		}
	}
}

// round is what was read from a peer and is stored at once.
type round struct {
	in      *zmqIntake
	message zmtp.Message
	buf     []byte
	parts   []roundPart
}

// roundPart is the events of one subject. In a stream without frames each event is a message.
type roundPart struct {
	subject string
	events  *bus.Builder
	alone   [][]byte // copies; only without frames
}

// fill waits for a message and adds what else has arrived.
func (r *round) fill(ctx context.Context, peer *zmtp.Conn) error {
	for first := true; first || peer.Buffered(); first = false {
		sub, err := peer.ReadMessage(&r.message)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
			return errStopping
		}
		if err != nil {
			return err
		}
		if sub != nil {
			continue
		}
		full, err := r.add()
		if err != nil {
			// A ZeroMQ peer cannot be told. What cannot be an event is left out, and its neighbours land.
			r.in.conn.Counters().Dropped.Add(1)
			r.in.complain(ctx, "message left out", err)
		}
		if full {
			return nil
		}
	}
	return nil
}

// add adds the message, and reports whether the round should be stored now.
func (r *round) add() (full bool, err error) {
	subject, skip := r.in.subject, 0
	switch {
	case r.in.topics:
		if subject, err = topicSubject(subject, r.message.Part(0)); err != nil {
			return false, err
		}
		skip = 1
	case r.in.sub && r.message.Len() > 1:
		skip = 1 // by custom the topic
	}
	event, err := eventOf(partsOf(&r.message, skip), r.in.multipart, r.buf[:0])
	if err != nil {
		return false, err
	}
	if r.in.multipart {
		r.buf = event
	}
	i := slices.IndexFunc(r.parts, func(p roundPart) bool { return p.subject == subject })
	if i < 0 {
		i = len(r.parts)
		r.parts = append(r.parts, roundPart{subject: subject, events: r.in.builders.Get().(*bus.Builder)})
	}
	events := r.parts[i].events
	if !events.Add(event) {
		return true, fmt.Errorf("a message of %d bytes does not fit", len(event))
	}
	if !r.in.route.Frames {
		r.parts[i].alone = append(r.parts[i].alone, bytes.Clone(event))
	}
	return events.Full() || len(r.parts) == intakeSubjects, nil
}

// store stores the round, trying until it is stored or work ends.
func (r *round) store(work context.Context) error {
	defer r.clear()
	if len(r.parts) == 0 {
		return nil
	}
	if len(r.parts) == 1 {
		return r.in.store(work, r.parts[0])
	}
	var group errgroup.Group
	for _, p := range r.parts {
		group.Go(func() error { return r.in.store(work, p) })
	}
	return group.Wait()
}

func (r *round) clear() {
	for _, p := range r.parts {
		p.events.Reset()
		r.in.builders.Put(p.events)
	}
	r.parts = r.parts[:0]
}

func (in *zmqIntake) store(work context.Context, p roundPart) error {
	done := in.conn.Counters().Working()
	defer done()
	events, size := p.events.Len(), p.events.RawBytes()-p.events.Len()
	if in.live {
		return in.send(work, p)
	}
	messages := p.alone
	if in.route.Frames {
		messages = [][]byte{p.events.Frame()}
	}
	for _, m := range messages { // one after the other: the peer's order is the stream's
		if err := in.persist(work, p.subject, m, events); err != nil {
			return err
		}
	}
	counters := in.conn.Counters()
	counters.EventsIn.Add(uint64(events))
	counters.BytesIn.Add(uint64(size))
	counters.AddOut(in.subject, uint64(events), uint64(size))
	return nil
}

// send sends events that nothing stores.
func (in *zmqIntake) send(work context.Context, p roundPart) error {
	topic := bus.NewTopic[[]byte](p.subject)
	for _, event := range p.alone {
		if _, err := topic.Publish(work, in.conn, event); err != nil {
			if fault.Code(err) != bus.CodeUnavailable {
				return fmt.Errorf("send on %s: %w", p.subject, err)
			}
			in.conn.Counters().Dropped.Add(1) // who listens now does not hear it later
			in.complain(work, "live messages are lost: the bus is away", err)
			continue
		}
		in.conn.Counters().EventsIn.Add(1)
		in.conn.Counters().BytesIn.Add(uint64(len(event)))
	}
	return nil
}

// persist stores one message of so many events, trying until it is stored or work ends.
func (in *zmqIntake) persist(work context.Context, subject string, message []byte, events int) error {
	header := nats.Header{jetstream.MsgIDHeader: {nuid.Next()}} // so that a try whose answer was lost is recognised
	delay := intakeRetryFirst
	for {
		_, err := in.conn.PublishFrame(work, subject, header, message)
		switch code := fault.Code(err); {
		case err == nil:
			return nil
		case work.Err() != nil:
			in.log.ErrorContext(work, "messages were taken and could not be stored before the stop", "messages", events, "subject", subject, "error", err)
			return errStopping
		case code != bus.CodeStreamFull && code != bus.CodeStoreFull && code != bus.CodeUnavailable:
			return fmt.Errorf("store %d messages on %s: %w", events, subject, err)
		default:
			in.complain(work, "peers are held up: nothing can be stored", err, "subject", subject)
		}
		pause(work, delay)
		delay = min(2*delay, intakeRetryMost)
	}
}
