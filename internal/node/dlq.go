package node

import (
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
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/wire"
)

// DeadLetter is an event or a task that a service has given up.
type DeadLetter struct {
	Seq      uint64 `json:"seq"` // its number in the dead letter stream
	Service  string `json:"service"`
	Event    string `json:"event"` // id of the event: stream:sequence:index
	Subject  string `json:"subject"`
	Code     string `json:"code"`
	Error    string `json:"error"`
	Attempts string `json:"attempts"`
	Time     string `json:"time"`
	Bytes    int    `json:"bytes"`
	// Header are the headers of the message that the event came in, as far as they are the program's own.
	Header nats.Header `json:"header,omitempty"`
	Data   []byte      `json:"data,omitempty"` // only when one is asked for
}

// listLimit is how many dead letters are listed when the caller names no limit.
const listLimit = 100

// deadPatience is how long a broker that is starting may take to have the stream of dead letters.
const deadPatience = 5 * time.Second

func (n *Node) dead(ctx context.Context) (jetstream.Stream, error) {
	wait, cancel := context.WithTimeout(ctx, deadPatience)
	defer cancel()
	stream, err := n.js.Stream(wait, wire.StreamName(wire.DeadStream))
	for tick := time.Tick(50 * time.Millisecond); errors.Is(err, jetstream.ErrStreamNotFound) && wait.Err() == nil; {
		select {
		case <-tick:
		case <-wait.Done():
			continue
		}
		stream, err = n.js.Stream(wait, wire.StreamName(wire.DeadStream))
	}
	if err != nil {
		return nil, &fault.Error{Code: "dlq/unavailable", What: "the broker does not answer", Err: err, Fix: "look at `hozo status`"}
	}
	return stream, nil
}

// deadLetters lists up to limit letters that f lets through, with a number above after.
func (n *Node) deadLetters(ctx context.Context, f Filter, after uint64, limit int) ([]DeadLetter, error) {
	match, err := f.compile()
	if err != nil {
		return nil, err
	}
	stream, err := n.dead(ctx)
	if err != nil {
		return nil, err
	}
	if limit <= 0 {
		limit = listLimit
	}
	letters := []DeadLetter{}
	for len(letters) < limit {
		msg, err := stream.GetMsg(ctx, after+1, jetstream.WithGetMsgSubject(f.subject()))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return letters, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read dead letters: %w", err)
		}
		after = msg.Sequence
		if letter := letterOf(msg, true); match(letter) {
			letter.Data = nil
			letters = append(letters, letter)
		}
	}
	return letters, nil
}

func (n *Node) deadLetter(ctx context.Context, seq uint64) (DeadLetter, error) {
	stream, err := n.dead(ctx)
	if err != nil {
		return DeadLetter{}, err
	}
	msg, err := stream.GetMsg(ctx, seq)
	if err != nil {
		return DeadLetter{}, unknownLetter(seq, err)
	}
	return letterOf(msg, true), nil
}

func unknownLetter(seq uint64, err error) error {
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return &fault.Error{Code: "dlq/unknown", Kind: fault.Misuse, What: fmt.Sprintf("there is no parked event number %d", seq), Fix: "`hozo dlq ls` lists them"}
	}
	return fmt.Errorf("read dead letter %d: %w", seq, err)
}

func letterOf(msg *jetstream.RawStreamMsg, data bool) DeadLetter {
	letter := DeadLetter{
		Seq: msg.Sequence, Event: msg.Header.Get(wire.HeaderSource), Subject: msg.Header.Get(wire.HeaderSubject),
		Code: msg.Header.Get(wire.HeaderCode), Error: msg.Header.Get(wire.HeaderError), Attempts: msg.Header.Get(wire.HeaderAttempts),
		Time: msg.Header.Get(wire.HeaderTime), Bytes: len(msg.Data),
	}
	letter.Service, _, _ = strings.Cut(strings.TrimPrefix(msg.Subject, wire.DeadStream+"."), ".")
	if letter.Time == "" {
		letter.Time = msg.Time.Format(time.RFC3339)
	}
	letter.Header = nats.Header{}
	stay(letter.Header, msg.Header)
	if data {
		letter.Data = msg.Data
	}
	return letter
}

// headerLetter of a message on its way back, or of a letter set aside, is the number of the letter that it was made from.
const headerLetter = "Hozo-Letter"

// asideToken ends the subject of a letter that is on its way back.
const asideToken = ".back"

// sendBack sends one letter back. It is removed after it is stored on its way back. A retry that was interrupted between
// the two finds its own number on the way and does not send the letter again.
func (n *Node) sendBack(ctx context.Context, stream jetstream.Stream, msg *jetstream.RawStreamMsg) error {
	letter := letterOf(msg, true)
	id, err := wire.ParseEventID(letter.Event)
	if err != nil {
		return fmt.Errorf("dead letter %d: %w", letter.Seq, err)
	}
	if strings.HasPrefix(id.Stream, wire.TaskStream+".") {
		err = n.returnTask(ctx, letter, msg.Header)
	} else if msg, err = n.setAside(ctx, stream, msg); err == nil {
		err = n.returnEvent(ctx, letterOf(msg, true), id, msg.Header)
	}
	if err != nil {
		return fmt.Errorf("send dead letter %d back: %w", letter.Seq, err)
	}
	return stream.DeleteMsg(ctx, msg.Sequence)
}

// setAside moves the letter of an event to a subject beside its own. The service may fail on the event again before
// the letter is removed, and would then find its place taken, believe that it has parked the event already and forget
// it. The letter that it returns is the moved one. It can be repeated after an interruption at any point.
func (n *Node) setAside(ctx context.Context, stream jetstream.Stream, msg *jetstream.RawStreamMsg) (*jetstream.RawStreamMsg, error) {
	if strings.HasSuffix(msg.Subject, asideToken) {
		return msg, nil // by an earlier retry that was interrupted
	}
	number := strconv.FormatUint(msg.Sequence, 10)
	old, err := stream.GetLastMsgForSubject(ctx, msg.Subject+asideToken)
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
	case err != nil:
		return nil, err
	case old.Header.Get(headerLetter) == number:
		return old, stream.DeleteMsg(ctx, msg.Sequence) // only this was left to do
	default:
		// The event has come back since an earlier retry of it was interrupted: that one has done its work.
		if err := stream.DeleteMsg(ctx, old.Sequence); err != nil {
			return nil, err
		}
	}
	moved := nats.NewMsg(msg.Subject + asideToken)
	moved.Data = msg.Data
	for key, values := range msg.Header {
		if strings.HasPrefix(key, "Hozo-") || wire.Stays(key) { // not what the server adds on reading: it would be believed instead of the new
			moved.Header[key] = values
		}
	}
	moved.Header.Set(headerLetter, number)
	ack, err := n.js.PublishMsg(ctx, moved, jetstream.WithExpectLastSequencePerSubject(0))
	if err := n.committed(ctx, wire.DeadStream, ack, err); err != nil { // before the other is removed
		return nil, err
	}
	if err := stream.DeleteMsg(ctx, msg.Sequence); err != nil {
		return nil, err
	}
	return stream.GetMsg(ctx, ack.Sequence)
}

// stay copies the headers that belong to an event or a task wherever it is.
func stay(to, from nats.Header) {
	for name, values := range from {
		if wire.Stays(name) {
			to[name] = values
		}
	}
}

// returnTask queues a dead task again, under its own id.
func (n *Node) returnTask(ctx context.Context, letter DeadLetter, header nats.Header) error {
	ack, err := n.js.PublishMsg(ctx, task.Revived(header, letter.Data), jetstream.WithMsgID(fmt.Sprintf("letter-%d", letter.Seq)))
	queue, _, _ := strings.Cut(strings.TrimPrefix(letter.Subject, wire.TaskStream+"."), ".")
	return n.committed(ctx, wire.QueueStream(queue), ack, err)
}

// returnEvent stores a parked event, as a frame of its own, where only the service that parked it reads.
func (n *Node) returnEvent(ctx context.Context, letter DeadLetter, id wire.EventID, header nats.Header) error {
	subject, number := wire.RetrySubject(letter.Service, id), strconv.FormatUint(letter.Seq, 10)
	retries, err := n.js.Stream(ctx, wire.StreamName(wire.RetryStream))
	if err != nil {
		return err
	}
	var before uint64 // sequence of an earlier retry of the same event
	switch last, err := retries.GetLastMsgForSubject(ctx, subject); {
	case errors.Is(err, jetstream.ErrMsgNotFound):
	case err != nil:
		return err
	case last.Header.Get(headerLetter) == number:
		return n.committed(ctx, wire.RetryStream, &jetstream.PubAck{Sequence: last.Sequence}, nil)
	default:
		before = last.Sequence
	}
	back := nats.NewMsg(subject)
	if _, err := wire.ParseFrame(letter.Data); err == nil {
		back.Data = letter.Data // an event too large for a plain message was parked as a frame
	} else {
		frame := bus.NewBuilder(wire.CodecNone)
		frame.Add(letter.Data)
		back.Data = frame.Frame()
	}
	stay(back.Header, header)
	back.Header.Set(wire.HeaderSubject, letter.Subject)
	back.Header.Set(wire.HeaderSource, letter.Event)
	back.Header.Set(headerLetter, number)
	ack, err := n.js.PublishMsg(ctx, back, jetstream.WithExpectLastSequencePerSubject(before))
	return n.committed(ctx, wire.RetryStream, ack, err)
}
