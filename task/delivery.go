package task

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

// delivery is one task as a worker got it: a message of a queue, or a part of one.
type delivery struct {
	msg  *nats.Msg
	data []byte // arguments

	frame *frame // that the task came in; nil when it has a message of its own
	index int    // in the frame

	// From the subject of the acknowledgement.
	seq       uint64
	delivered uint64    // how often, from 1
	stored    time.Time // by the broker

	// From the subject.
	token    string
	id       string
	priority Priority

	// From the headers, which the fast path has none of.
	copy      int // from 1
	failed    int // attempts that have failed
	expires   time.Time
	unique    string // scope:hash
	key       string
	cancelled bool   // a tombstone
	released  bool   // let out of a limited queue
	flow      string // id of the workflow that it belongs to
	apart     string // sequence and index in the frame that the task was in before
}

// subject is where a message of the task's own is stored.
func (d *delivery) subject() string {
	if d.frame != nil {
		return d.frame.prefix + d.token
	}
	return d.msg.Subject
}

// place is the task's place in the frame that it is or was in.
func (d *delivery) place() string {
	if d.apart != "" {
		return d.apart
	}
	return strconv.FormatUint(d.seq, 10) + ":" + strconv.Itoa(d.index)
}

// origin names the task among the dead, however often it is delivered.
func (d *delivery) origin(stream string) wire.EventID {
	id := wire.EventID{Stream: stream, Seq: d.seq, Index: d.index}
	if was, err := wire.ParseEventID(stream + ":" + d.apart); err == nil {
		return was
	}
	return id
}

// parseDelivery reads everything but the arguments. With an error the places from the subjects are filled in all the
// same, if they could be read: seq is 0 only when msg is no task at all.
func parseDelivery(msg *nats.Msg) (delivery, error) {
	d := delivery{msg: msg, data: msg.Data, copy: 1}
	var err error
	if d.seq, d.delivered, d.stored, err = parseAck(msg.Reply); err != nil {
		return d, err
	}
	at := strings.LastIndexByte(msg.Subject, '.')
	d.token = msg.Subject[at+1:]
	if at < 2 || msg.Subject[at-2] != '.' || msg.Subject[at-1] < '0'+wire.TaskPriority1 || msg.Subject[at-1] > '0'+wire.TaskPriority3 {
		return d, fmt.Errorf("%q is no subject of a task", msg.Subject)
	}
	d.priority = Priority(msg.Subject[at-1] - '0')
	if d.id, err = wire.ParseTaskToken(d.token); err != nil {
		d.id = d.token
		return d, err
	}
	if len(msg.Header) == 0 {
		return d, nil
	}
	return d, d.parseHeader(msg.Header)
}

func (d *delivery) parseHeader(h nats.Header) error {
	var err error
	if d.copy, err = headerNumber(h, wire.HeaderCopy); err != nil {
		return err
	}
	d.copy = max(d.copy, 1)
	if d.failed, err = headerNumber(h, wire.HeaderAttempts); err != nil {
		return err
	}
	if d.expires, err = headerTime(h, wire.HeaderExpires); err != nil {
		return err
	}
	d.key, d.flow = h.Get(wire.HeaderKey), h.Get(wire.HeaderFlow)
	d.released = strings.HasPrefix(h.Get(headerScheduler), wire.TaskStream+".") && strings.Contains(h.Get(headerScheduler), ".w.")
	d.apart = h.Get(wire.HeaderApart)
	d.cancelled = State(h.Get(wire.HeaderState)) == Cancelled
	d.unique = h.Get(wire.HeaderUnique)
	if scope, hash, ok := strings.Cut(d.unique, ":"); d.unique != "" && (!ok || hash == "" || wire.TaskToken(hash) != hash ||
		(uniqueScope(scope) != untilDone && uniqueScope(scope) != untilStart)) {
		return fmt.Errorf("%s: %q is not done or start, a colon and a hash", wire.HeaderUnique, d.unique)
	}
	return nil
}

// lock returns the hash under which the task holds a lock until the scope's end; "" when it does not.
func (d *delivery) lock(scope uniqueScope) string {
	have, hash, _ := strings.Cut(d.unique, ":")
	if uniqueScope(have) != scope {
		return ""
	}
	return hash
}

// carried are the headers that go along to the next copy of the task.
func (d *delivery) carried() nats.Header {
	h := nats.Header{}
	for name, values := range d.msg.Header {
		switch {
		case strings.HasPrefix(name, "Nats-"): // the broker's own, and those that it acts on
		case name == jetstream.MsgIDHeader, name == wire.HeaderApart:
		default:
			h[name] = values
		}
	}
	return h
}

// parseAck reads the subject that acknowledges a message. It has two forms:
// $JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<time>.<pending> and, with a domain and an account before
// the stream, one that ends in a further, random token.
func parseAck(reply string) (seq, delivered uint64, stored time.Time, err error) {
	bad := func() (uint64, uint64, time.Time, error) {
		return 0, 0, time.Time{}, fmt.Errorf("%q acknowledges no message of a stream", reply)
	}
	if !strings.HasPrefix(reply, "$JS.ACK.") {
		return bad()
	}
	rest := reply
	if strings.Count(reply, ".") >= 11 {
		rest = rest[:strings.LastIndexByte(rest, '.')]
	} else if strings.Count(reply, ".") != 8 && strings.Count(reply, ".") != 10 {
		return bad()
	}
	var last [5]uint64 // pending, time, consumer seq, seq, delivered
	for i := range last {
		at := strings.LastIndexByte(rest, '.')
		if at < 0 {
			return bad()
		}
		if last[i], err = strconv.ParseUint(rest[at+1:], 10, 63); err != nil {
			return bad()
		}
		rest = rest[:at]
	}
	if last[3] == 0 || last[4] == 0 {
		return bad()
	}
	return last[3], last[4], time.Unix(0, int64(last[1])), nil //nolint:gosec // parsed with 63 bits
}
