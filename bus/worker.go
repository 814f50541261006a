package bus

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// worker handles one frame at a time. Its buffers are reused from frame to frame, so nothing of a frame may be kept.
type worker struct {
	stage *Stage
	try   tryFunc
	out   *Out
	raw   []byte // decompressed events

	event  rawEvent   // in hand
	first  int        // index of the frame's first event
	traces traces     // of the frame; most have none
	trace  wire.Trace // of the event in hand
	limit  deadline   // of one try
	sick   *sickKeys  // of the partition in hand, or nil

	giveUp func(context.Context, *Parked) error // records what is parked before it is; nil where there is no order
}

func newWorker(s *Stage) *worker {
	w := &worker{stage: s, try: s.tries(), out: newOut(s.conn)}
	w.limit.after = s.cfg.Timeout
	w.limit.overrun = &fault.Error{
		Code: CodeTimeout, What: fmt.Sprintf("the handler took longer than %v", s.cfg.Timeout),
		Fix: "make it faster, hand slow work to a task, or raise the stage's Timeout",
	}
	return w
}

func (w *worker) stop() { w.limit.stop() }

// handle sees one message through to its acknowledgement, or gives it back when work ends first.
func (w *worker) handle(work context.Context, h *held) {
	s := w.stage
	idle := s.conn.counters.Working()
	defer idle()
	began := time.Now()

	if !s.conn.awaitPower(work, h.feed.power, h.feed.js, h.meta.Sequence.Stream, h.link) {
		s.giveBack(h)
		return
	}
	if wire.IsFence(h.feed.stream, h.msg.Subject) {
		s.held.end(s.conn, h, "+ACK")
		return
	}
	f, err := w.open(h)
	if err != nil {
		// Damaged: nothing in it can be told apart, so the whole message is parked under its first event's name.
		id := wire.EventID{Stream: h.feed.stream, Seq: h.meta.Sequence.Stream}
		if w.park(work, Parked{Event: id, Subject: h.msg.Subject, Data: h.msg.Data, Err: err, Attempts: 1, Header: h.msg.Header}) {
			s.conn.counters.EventsIn.Add(1)
			s.conn.counters.BytesIn.Add(uint64(len(h.msg.Data)))
			s.held.end(s.conn, h, "+ACK")
		} else {
			s.giveBack(h)
		}
		return
	}
	if h.feed.stream == wire.RetryStream && !s.owns(f) {
		s.held.end(s.conn, h, notMine)
		return
	}
	if h.feed.stream == wire.RetryStream {
		if wait := early(f.Header); wait > 0 {
			s.held.end(s.conn, h, fmt.Sprintf(`-NAK {"delay": %d}`, wait.Nanoseconds()))
			return
		}
	}
	w.out.beginFrame(h.feed.js, f)
	done := w.events(work, f, h)
	w.limit.over()
	if !done || !w.settle(work, f, h) || !w.store(work) {
		s.giveBack(h)
		return
	}
	w.out.sendLive()
	s.held.end(s.conn, h, "+ACK")
	w.out.count()
	s.conn.counters.EventsIn.Add(uint64(f.Len()))
	s.conn.counters.addConsumed(h.feed.stream, f, uint64(f.Len()))
	s.conn.counters.BytesIn.Add(uint64(f.eventBytes()))
	s.observe(time.Since(began))
}

// settle asks the stage's Settle whether a frame may be acknowledged.
func (w *worker) settle(work context.Context, f *Frame, h *held) bool {
	if w.stage.cfg.Settle == nil || f.Len() == 0 {
		return true
	}
	id := f.ID(0)
	if h.feed.stream == wire.RetryStream {
		id, _ = retried(f)
	}
	return w.stage.cfg.Settle(work, id) == nil
}

// notMine gives a retried event back for another Stage of this service; the pause, in ns, keeps the two from throwing
// it to and fro.
const notMine = `-NAK {"delay": 250000000}`

// owns reports whether a retried event came from this Stage's topic.
func (s *Stage) owns(f *Frame) bool {
	id, subject := retried(f)
	return id.Stream == s.source.Stream && (wire.Covers(s.subject, subject) || wire.Covers(s.subject+".>", subject))
}

func (w *worker) open(h *held) (*Frame, error) {
	f := &Frame{
		Stream: h.feed.stream, Subject: published(h.feed.stream, h.msg.Subject), Header: h.msg.Header,
		Seq: h.meta.Sequence.Stream, Time: h.meta.Timestamp, scratch: w.raw,
	}
	if f.Header != nil {
		f.content = wire.ContentType(f.Header)
	}
	if err := f.parse(h.msg.Data); err != nil {
		return nil, err
	}
	if f.framed {
		err := f.decode()
		w.raw = f.scratch
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

// events has every event of f handled, retried and parked as need be. It reports false when work ended before that.
func (w *worker) events(work context.Context, f *Frame, h *held) bool {
	w.event = rawEvent{
		frame: w.event.frame + 1, id: f.ID(0), subject: f.Subject, time: f.Time, content: f.content, header: f.Header, set: f.set,
	}
	if h.feed.stream == wire.RetryStream {
		w.event.id, w.event.subject = retried(f)
		w.event.returns, _ = strconv.Atoi(f.Header.Get(wire.HeaderReturns)) // none: 0
	}
	w.traces = tracesOf(f.Header, f.Len())
	first := w.event.id.Index
	w.first, w.out.trace = first, wire.Trace{}
	w.out.id = w.event.id
	for next := 0; ; next++ {
		var err error
		next, err = w.run(work, f, first, next)
		if err == nil {
			return true
		}
		if !w.failed(work, err) {
			return false
		}
	}
}

// run hands the events from next on to the handler, each once, until one fails, and returns which. One net under the
// panics of all of them costs less than one for each.
func (w *worker) run(work context.Context, f *Frame, first, next int) (i int, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = w.panicked(p)
		}
	}()
	w.event.attempt = 1
	for i = next; i < f.Len(); i++ {
		w.event.id.Index, w.event.data = first+i, f.event(i)
		w.out.beginEvent(first + i)
		ctx := w.limit.begin(work)
		if w.traces != nil {
			ctx = w.traced(ctx)
		}
		if err := w.try(ctx, &w.event, w.out); err != nil {
			return i, err
		}
	}
	return i, nil
}

// failed goes on with the event in hand, whose first try failed with err. It reports false when work ended before the
// event was settled.
func (w *worker) failed(work context.Context, err error) bool {
	s, e := w.stage, &w.event
	if e.set != nil {
		doc, docErr := e.set.document()
		if docErr != nil {
			s.log.Error("a set that fails is parked without its events", "event", e.id.String(), "error", docErr)
		}
		e.data = doc
	}
	for {
		err = w.judge(err)
		w.out.rollback()
		if l, ok := errors.AsType[*later](err); ok {
			if s.source.PerKey {
				return w.park(work, Parked{Event: e.id, Subject: e.subject, Data: e.data, Err: errLaterInOrder, Attempts: e.attempt, Header: w.leaving()})
			}
			s.conn.counters.Retried.Add(1)
			return w.putAside(work, l.after)
		}
		switch {
		case errors.Is(err, Drop):
			s.conn.counters.Dropped.Add(1)
			return true
		case work.Err() != nil:
			return false // it failed because of the stop, or can be tried by another instance
		case permanent(err) || e.attempt >= s.cfg.Attempts || w.sick.has(e.data):
			w.sick.add(e.data)
			return w.park(work, Parked{Event: e.id, Subject: e.subject, Data: e.data, Err: err, Attempts: e.attempt, Header: w.leaving()})
		}
		s.conn.counters.Retried.Add(1)
		if !sleep(work, s.cfg.Backoff<<min(e.attempt-1, 10)) {
			return false
		}
		e.attempt++
		w.out.beginEvent(e.id.Index)
		if err = w.again(work); err == nil {
			return true
		}
	}
}

// again tries the event in hand once more.
func (w *worker) again(work context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = w.panicked(p)
		}
	}()
	ctx := w.limit.begin(work)
	if w.traces != nil {
		ctx = w.traced(ctx)
	}
	return w.try(ctx, &w.event, w.out)
}

// traced puts the event in hand, and what it sends, into its trace with a span of their own.
func (w *worker) traced(ctx context.Context) context.Context {
	t, ok := w.traces.of(w.event.id.Index - w.first)
	if !ok {
		w.trace, w.out.trace = wire.Trace{}, wire.Trace{}
		return ctx
	}
	w.trace = t.Child()
	w.out.trace = w.trace
	return WithTrace(ctx, w.trace)
}

// leaving returns the headers that go with the event in hand to where it is parked or put aside.
func (w *worker) leaving() nats.Header {
	h := keep(w.event.header)
	if w.traces != nil && w.trace.Valid() {
		if h == nil {
			h = nats.Header{}
		}
		w.trace.Put(h)
	}
	return h
}

// judge ends the time of a failed try and says by what code it failed: a handler that overran reports whatever its
// context's end led to.
func (w *worker) judge(err error) error {
	if w.limit.over() && fault.Code(err) != CodePanic && !permanent(err) && !errors.Is(err, Drop) && !isLater(err) {
		return &fault.Error{Code: CodeTimeout, What: w.limit.overrun.Error(), Err: err}
	}
	return err
}

// retried gives the name that an event had before it was parked: its subject carries it.
func retried(f *Frame) (wire.EventID, string) {
	id, subject := f.ID(0), f.Subject
	tokens := strings.Split(f.Subject, ".") // hozo.retry.<service>.<JetStream name>.<sequence>.<index>
	if n := len(tokens); n >= 6 {
		seq, errSeq := strconv.ParseUint(tokens[n-2], 10, 64)
		index, errIndex := strconv.Atoi(tokens[n-1])
		if errSeq == nil && errIndex == nil {
			// Manifest names hold no underscores, so the way back is one to one.
			id = wire.EventID{Stream: strings.ReplaceAll(tokens[n-3], "_", "."), Seq: seq, Index: index}
		}
	}
	if original := f.Header.Get(wire.HeaderSubject); original != "" {
		subject = original
	}
	return id, subject
}

func (w *worker) panicked(p any) error {
	if now, dropped := w.stage.panics.pass(); now {
		w.stage.log.Error("handler panicked", "event", w.event.id.String(), "panic", fmt.Sprint(p),
			"stack", string(debug.Stack()), "more_not_logged", dropped)
	}
	return &fault.Error{Code: CodePanic, What: fmt.Sprintf("the handler panicked: %v", p), Fix: "see the stack in the service's log"}
}

// park parks an event, trying until it is stored or work ends.
func (w *worker) park(work context.Context, p Parked) bool {
	if w.giveUp != nil && !w.persist(work, func() error { return w.giveUp(work, &p) }) {
		return false
	}
	return w.persist(work, func() error { return w.stage.conn.Park(work, p) })
}

// store stores the frame's output, trying until all of it is acknowledged or work ends.
func (w *worker) store(work context.Context) bool {
	msgs := w.out.messages()
	again := false
	err := w.stage.conn.storeAll(work, msgs, func(err error) {
		w.stage.blocked.set(err, again)
		again = true
	}, w.out.dropOf)
	if again {
		w.stage.blocked.clear()
	}
	return err == nil
}

// persist tries fn until it succeeds or work ends.
func (w *worker) persist(work context.Context, fn func() error) bool {
	again := false
	defer func() {
		if again {
			w.stage.blocked.clear()
		}
	}()
	for attempt := 0; ; attempt++ {
		err := fn()
		if err == nil {
			return true
		}
		if work.Err() != nil {
			return false
		}
		w.stage.blocked.set(err, again)
		again = true
		if !sleep(work, retryDelay(attempt)) {
			return false
		}
	}
}
