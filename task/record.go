package task

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// State is where a task is in its life.
type State string

// The states of a task. Of a task that was never handed out twice and never ended nothing is recorded: it is Pending
// when it is in the queue, and Scheduled when it waits for its time.
const (
	Pending   State = "pending"
	Scheduled State = "scheduled"
	Running   State = "running"
	Retrying  State = "retry" // waits for its next attempt
	Done      State = "done"
	Dead      State = "dead"
	Cancelled State = "cancelled"
	Expired   State = "expired"
)

// terminal reports whether nothing more becomes of the task by itself.
func (s State) terminal() bool { return s == Done || s == Dead || s == Cancelled || s == Expired }

// minRecord is how long the end of a task is known when its kind keeps nothing: longer than it may take the message of
// the task to be delivered once more.
const minRecord = 10 * time.Minute

// record is what is known of a task beyond its message. Its revision is the sequence of the stored message.
type record struct {
	state    State
	copy     int // the copy of the task that it is about
	failed   int // attempts that have failed
	strikes  int // starts since then of which no end is known
	owner    string
	code     string
	err      string
	due      time.Time // of the next attempt
	at       time.Time // when it was written
	progress int       // per cent
	note     string
	result   []byte

	revision uint64
}

const (
	headerDue      = "Hozo-Due"
	headerProgress = "Hozo-Progress"
	headerNote     = "Hozo-Note"
)

func (r record) header() nats.Header {
	h := nats.Header{wire.HeaderState: {string(r.state)}, wire.HeaderTime: {r.at.UTC().Format(time.RFC3339Nano)}}
	number := func(name string, n int) {
		if n != 0 {
			h[name] = []string{strconv.Itoa(n)}
		}
	}
	text := func(name, value string) {
		if value != "" {
			h[name] = []string{oneLine(value)}
		}
	}
	number(wire.HeaderCopy, r.copy)
	number(wire.HeaderAttempts, r.failed)
	number(wire.HeaderStrikes, r.strikes)
	number(headerProgress, r.progress)
	text(wire.HeaderOwner, r.owner)
	text(wire.HeaderCode, r.code)
	text(wire.HeaderError, r.err)
	text(headerNote, r.note)
	if !r.due.IsZero() {
		h[headerDue] = []string{r.due.UTC().Format(time.RFC3339Nano)}
	}
	return h
}

// parseRecord reads a stored record.
func parseRecord(h nats.Header, data []byte) (record, error) {
	r := record{state: State(h.Get(wire.HeaderState)), owner: h.Get(wire.HeaderOwner), code: h.Get(wire.HeaderCode), err: h.Get(wire.HeaderError), note: h.Get(headerNote), result: data}
	switch r.state {
	case Running, Retrying, Done, Dead, Cancelled, Expired:
	default:
		return r, fmt.Errorf("%s: %q is no state of a task", wire.HeaderState, r.state)
	}
	var errs []error
	number := func(name string) int {
		n, err := headerNumber(h, name)
		errs = append(errs, err)
		return n
	}
	r.copy, r.failed, r.strikes, r.progress = max(number(wire.HeaderCopy), 1), number(wire.HeaderAttempts), number(wire.HeaderStrikes), number(headerProgress)
	var err error
	r.due, err = headerTime(h, headerDue)
	errs = append(errs, err)
	r.at, err = headerTime(h, wire.HeaderTime)
	errs = append(errs, err)
	return r, errors.Join(errs...)
}

// headerNumber reads a count; 0 when it is not there.
func headerNumber(h nats.Header, name string) (int, error) {
	text := h.Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > 1<<30 {
		return 0, fmt.Errorf("%s: %q is no count", name, text)
	}
	return n, nil
}

// headerTime reads a time; the zero time when it is not there.
func headerTime(h nats.Header, name string) (time.Time, error) {
	text := h.Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %q is no time of RFC 3339", name, text)
	}
	return t, nil
}

// errMoved says that a record is not as it was read: somebody else has the task.
var errMoved = errors.New("the record of the task was changed by somebody else")

// getRecord reads the record of a task; a task without one has revision 0.
func getRecord(ctx context.Context, c *bus.Conn, kind, token string) (record, error) {
	return getRecordAt(ctx, c, wire.RecordSubject(kind, token))
}

func getRecordAt(ctx context.Context, c *bus.Conn, subject string) (record, error) {
	msg, err := directGet(ctx, c, wire.RecordStream, subject)
	if err != nil || msg == nil {
		return record{}, err
	}
	r, err := parseRecord(msg.header, msg.data)
	r.revision = msg.seq
	if err != nil {
		return r, &fault.Error{Code: CodeBadHeader, What: "the record of a task cannot be read", Where: subject, Err: err, Fix: "see decision 0018 for what records hold"}
	}
	return r, nil
}

// putRecord replaces the record that has revision r.revision, 0 for none, and returns the new revision. It returns
// errMoved when the record is another by now. keep is how long it is kept; 0 as long as the stream keeps anything.
func putRecord(ctx context.Context, c *bus.Conn, kind, token string, r record, keep time.Duration) (uint64, error) {
	return putRecordAt(ctx, c, wire.RecordSubject(kind, token), r, keep)
}

func putRecordAt(ctx context.Context, c *bus.Conn, subject string, r record, keep time.Duration) (uint64, error) {
	r.at, r.owner = time.Now(), c.Grant().User
	h := r.header()
	h[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(r.revision, 10)}
	if keep > 0 {
		h[jetstream.MsgTTLHeader] = []string{keep.Round(time.Second).String()}
	}
	ack, err := c.PublishFrame(ctx, subject, h, r.result)
	if err == nil {
		return ack.Sequence, nil
	}
	if fault.Code(err) != bus.CodeWrongSequence {
		return 0, err
	}
	// An earlier try of the same publish may have been stored without its answer coming through.
	now, getErr := getRecordAt(ctx, c, subject)
	if getErr == nil && now.revision > 0 && now.owner == r.owner && now.at.Equal(r.at) && now.state == r.state && now.copy == r.copy {
		return now.revision, nil
	}
	return 0, errMoved
}

// stored is a message of a stream.
type stored struct {
	seq    uint64
	time   time.Time
	sub    string
	header nats.Header
	data   []byte
}

// directGet reads the last message of a subject, which may have wildcards; nil when there is none.
func directGet(ctx context.Context, c *bus.Conn, stream, subject string) (*stored, error) {
	msg, err := c.NATS().RequestWithContext(ctx, "$JS.API.DIRECT.GET."+wire.StreamName(stream)+"."+subject, nil)
	if err != nil {
		return nil, &fault.Error{Code: bus.CodeUnavailable, What: "the broker did not answer", Where: subject, Err: err, Fix: "see hozo status; it works again when the broker is back"}
	}
	switch status := msg.Header.Get("Status"); status {
	case "":
	case "404":
		return nil, nil
	default:
		return nil, &fault.Error{Code: bus.CodeUnavailable, What: "the broker refused to read: " + status + " " + msg.Header.Get("Description"), Where: subject, Fix: "see hozo status"}
	}
	s := &stored{sub: msg.Header.Get(jetstream.SubjectHeader), header: msg.Header, data: msg.Data}
	if s.seq, err = strconv.ParseUint(msg.Header.Get(jetstream.SequenceHeader), 10, 64); err != nil {
		return nil, fmt.Errorf("read %s: the broker told no sequence: %w", subject, err)
	}
	s.time, _ = time.Parse(time.RFC3339Nano, msg.Header.Get(jetstream.TimeStampHeaer)) // only shown
	return s, nil
}
