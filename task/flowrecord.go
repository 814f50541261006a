package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// edge names another task of the same workflow.
type edge struct {
	Kind string `json:"kind"`
	Node string `json:"node"`
}

// waiting is what is stored of a task of a workflow beside the task itself: when it begins, with what, and what follows. It
// lies under the task's own kind, so that whoever may enqueue the kind may say that it is the task's turn.
type waiting struct {
	Flow     string        `json:"flow"`
	Node     string        `json:"node"`
	Input    inputKind     `json:"input,omitempty"`
	Args     []byte        `json:"args,omitempty"`
	After    []edge        `json:"after,omitempty"`
	Data     int           `json:"data,omitempty"` // how many of After give their results
	Next     []edge        `json:"next,omitempty"` // when it is done
	Failed   []edge        `json:"failed,omitempty"`
	FailFast bool          `json:"fail_fast,omitempty"`
	Keep     time.Duration `json:"keep"` // ns

	Priority  Priority      `json:"priority"`
	Key       string        `json:"key,omitempty"`
	TTL       time.Duration `json:"ttl,omitempty"`   // ns
	Delay     time.Duration `json:"delay,omitempty"` // ns
	NotBefore time.Time     `json:"not_before,omitzero"`

	Arrived []byte   `json:"arrived,omitempty"` // a bit for each of After
	Failure *Failure `json:"failure,omitempty"` // the first, which begins a failure branch

	kind     string
	revision uint64
}

// flowID is the id of a task of a workflow.
func flowID(flow, node string) string { return flow + ":" + node }

func (w *waiting) token() string { return wire.TaskToken(flowID(w.Flow, w.Node)) }

// has reports whether the i-th of After is done.
func (w *waiting) has(i int) bool { return i/8 < len(w.Arrived) && w.Arrived[i/8]&(1<<(i%8)) != 0 }

func (w *waiting) mark(i int) {
	for len(w.Arrived) <= i/8 {
		w.Arrived = append(w.Arrived, 0)
	}
	w.Arrived[i/8] |= 1 << (i % 8)
}

// ready reports whether the task may begin.
func (w *waiting) ready() bool {
	if w.Input == inputFailure {
		return w.Failure != nil
	}
	for i := range w.After {
		if !w.has(i) {
			return false
		}
	}
	return true
}

// errFlowGone says that a workflow is not known any more.
func errFlowGone(kind, id string) error {
	return &fault.Error{
		Code: CodeFlowGone, What: "nothing is known any more of the workflow that the task belongs to", Where: "task " + kind + " " + id,
		Fix: "raise Keep of the workflow: it must be longer than the workflow takes",
	}
}

// getWaiting reads what is stored of a task of a workflow; the fault task/flow-gone says that nothing is.
func getWaiting(ctx context.Context, c *bus.Conn, kind, token string) (waiting, error) {
	w := waiting{kind: kind}
	msg, err := directGet(ctx, c, wire.RecordStream, wire.NodeSubject(kind, token))
	if err != nil {
		return w, err
	}
	if msg == nil {
		return w, errFlowGone(kind, token)
	}
	if err := json.Unmarshal(msg.data, &w); err != nil {
		return w, &fault.Error{Code: CodeBadHeader, What: "what is stored of a task of a workflow cannot be read", Where: wire.NodeSubject(kind, token), Err: err, Fix: "see decision 0022 for what it holds"}
	}
	w.revision = msg.seq
	return w, nil
}

// put replaces what is stored if it has w's revision, 0 for nothing; else it returns errMoved.
func (w *waiting) put(ctx context.Context, c *bus.Conn) error {
	data, err := json.Marshal(w)
	if err != nil {
		return fmt.Errorf("encode what is known of a task of a workflow: %w", err)
	}
	revision, err := putKept(ctx, c, wire.NodeSubject(w.kind, w.token()), data, w.revision, w.Keep)
	w.revision = revision
	return err
}

// putKept stores data on condition that the subject's last message is revision, and returns the new one's; errMoved when it
// is not.
func putKept(ctx context.Context, c *bus.Conn, subject string, data []byte, revision uint64, keep time.Duration) (uint64, error) {
	ack, err := c.PublishFrame(ctx, subject, nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(revision, 10)},
		jetstream.MsgTTLHeader:              {keep.Round(time.Second).String()},
	}, data)
	if fault.Code(err) == bus.CodeWrongSequence {
		return revision, errMoved
	}
	if err != nil {
		return revision, err
	}
	return ack.Sequence, nil
}

// arrivalSubject holds the result that the i-th of After gives.
func (w *waiting) arrivalSubject(i int) string {
	return wire.NodeSubject(w.kind, wire.TaskToken(flowID(w.Flow, w.Node)+":"+strconv.Itoa(i)))
}

// arrive notes that the task of name from has ended: well, with a result, or by failure. It has the task of w begin when that
// was all that it waited for. Doing it again changes nothing.
func arrive(ctx context.Context, c *bus.Conn, to edge, flow, from string, result []byte, failure *Failure, trace nats.Header) error {
	for {
		w, err := getWaiting(ctx, c, to.Kind, wire.TaskToken(flowID(flow, to.Node)))
		if err != nil {
			return err
		}
		i := slices.IndexFunc(w.After, func(e edge) bool { return e.Node == from })
		if i < 0 {
			return nil // it was started anew with another shape
		}
		if err := w.note(ctx, c, i, result, failure); errors.Is(err, errMoved) {
			continue
		} else if err != nil {
			return err
		}
		step(stepArrived)
		if !w.ready() {
			return nil
		}
		args, err := w.arguments(ctx, c, result)
		if err != nil && fault.Code(err) == bus.CodeUnavailable {
			return err
		}
		return w.begin(ctx, c, args, err, trace)
	}
}

// note records the arrival, unless it is recorded.
func (w *waiting) note(ctx context.Context, c *bus.Conn, i int, result []byte, failure *Failure) error {
	switch {
	case w.Input == inputFailure && w.Failure != nil, w.Input != inputFailure && w.has(i):
		return nil
	case w.Input == inputFailure:
		w.Failure = failure
	case i < w.Data && len(w.After) > 1:
		// Before the mark, so that whoever sees all marks finds all results.
		_, err := putKept(ctx, c, w.arrivalSubject(i), result, 0, w.Keep)
		if err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	w.mark(i)
	return w.put(ctx, c)
}

// arguments are those with which the task begins; last is the result of the one that arrived last.
func (w *waiting) arguments(ctx context.Context, c *bus.Conn, last []byte) ([]byte, error) {
	switch w.Input {
	case inputFailure:
		return json.Marshal(w.Failure)
	case inputGiven:
		return w.Args, nil
	}
	limit := int(c.NATS().MaxPayload()) - headroomBytes
	var results []json.RawMessage
	total := 2
	for i := range w.Data {
		result := last
		if len(w.After) > 1 {
			msg, err := directGet(ctx, c, wire.RecordStream, w.arrivalSubject(i))
			if err != nil {
				return nil, err
			}
			if msg == nil {
				return nil, errFlowGone(w.kind, flowID(w.Flow, w.Node))
			}
			result = msg.data
		}
		if len(result) == 0 {
			result = []byte("null") // of a kind without results
		}
		if total += len(result) + 1; total > limit {
			return nil, &fault.Error{
				Code: bus.CodeTooLarge, What: fmt.Sprintf("the results of the %d tasks before it are over the limit of %d bytes", w.Data, limit),
				Where: "task " + w.kind + " " + flowID(w.Flow, w.Node), Fix: "store the data elsewhere and return its address",
			}
		}
		results = append(results, result)
	}
	switch w.Input {
	case inputResults:
		return json.Marshal(results)
	case inputBytes:
		var plain []byte
		if err := json.Unmarshal(results[0], &plain); err != nil {
			return nil, &fault.Error{Code: CodeDecode, What: "the result of the task before it is no []byte", Where: "task " + w.kind, Err: err, Fix: "let both sides use one type"}
		}
		return plain, nil
	}
	return results[0], nil
}

// begin stores the task, unless it has been. A second copy of it that is stored all the same, because the first has left the
// queue meanwhile, finds the record of the first and is dropped. bad is why it cannot be given its arguments.
func (w *waiting) begin(ctx context.Context, c *bus.Conn, args []byte, bad error, trace nats.Header) error {
	if r, err := getRecord(ctx, c, w.kind, w.token()); r.revision > 0 || err != nil {
		return err
	}
	h := nats.Header{wire.HeaderFlow: {w.Flow}, jetstream.ExpectedLastSubjSeqHeader: {"0"}}
	for _, name := range []string{wire.HeaderTraceParent, wire.HeaderTraceState} {
		if values := trace[name]; len(values) > 0 {
			h[name] = values
		}
	}
	if bad != nil {
		h[wire.HeaderFlowError] = []string{oneLine(bad.Error())}
	}
	if w.Key != "" {
		h[wire.HeaderKey] = []string{w.Key}
	}
	queue := c.Grant().QueueOf(w.kind).Name
	subject := runnable(queue, w.kind, w.Priority, w.token())
	now := time.Now()
	at := w.at(now)
	if w.TTL > 0 {
		h[wire.HeaderExpires] = []string{later(at, now).Add(w.TTL).UTC().Format(time.RFC3339Nano)}
	}
	if at.Sub(now) > scheduleGrain {
		h[headerSchedule], h[headerScheduleTarget] = []string{"@at " + at.UTC().Format(time.RFC3339Nano)}, []string{subject}
		subject = wire.ScheduleSubject(queue, w.kind, w.token())
	}
	_, err := c.PublishFrame(ctx, subject, h, args)
	switch {
	case fault.Code(err) == bus.CodeWrongSequence:
		err = nil // it is there
	case err == nil:
		c.Counters().AddEdge("enqueues", w.kind, 1)
	}
	if err == nil {
		step(stepBegun)
	}
	return err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// flowRecord is what is stored of a whole workflow.
type flowRecord struct {
	Name     string        `json:"name"`
	Started  time.Time     `json:"started"`
	By       string        `json:"by"` // instance
	Digest   string        `json:"digest"`
	FailFast bool          `json:"fail_fast,omitempty"`
	Keep     time.Duration `json:"keep"`             // ns
	State    State         `json:"state,omitempty"`  // Cancelled, or Dead when FailFast has ended it
	Failed   string        `json:"failed,omitempty"` // the task by which it has
	Nodes    []flowNode    `json:"nodes"`            // each behind those that it waits for

	revision uint64
}

type flowNode struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	After   []int  `json:"after,omitempty"` // places in Nodes
	Failure bool   `json:"failure,omitempty"`
}

// getFlow reads the record of a workflow; revision 0 when there is none.
func getFlow(ctx context.Context, c *bus.Conn, id string) (flowRecord, error) {
	var f flowRecord
	msg, err := directGet(ctx, c, wire.RecordStream, wire.FlowSubject(wire.TaskToken(id)))
	if err != nil || msg == nil {
		return f, err
	}
	if err := json.Unmarshal(msg.data, &f); err != nil {
		return f, &fault.Error{Code: CodeBadHeader, What: "the record of a workflow cannot be read", Where: "workflow " + id, Err: err, Fix: "see decision 0022 for what it holds"}
	}
	f.revision = msg.seq
	return f, nil
}

// put replaces the record if it has f's revision; else it returns errMoved.
func (f *flowRecord) put(ctx context.Context, c *bus.Conn, id string) error {
	data, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode the record of a workflow: %w", err)
	}
	// Longer than anything else of it, so that an id is taken as long as any of its tasks is known.
	f.revision, err = putKept(ctx, c, wire.FlowSubject(wire.TaskToken(id)), data, f.revision, 2*f.Keep+time.Hour)
	return err
}
