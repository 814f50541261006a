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
)

// worker handles one frame at a time. Its buffers are reused from frame to frame, so nothing of a frame may be kept.
type worker struct {
	stage *Stage
	try   tryFunc
	out   *Out
	raw   []byte // decompressed events

	watch   *time.Timer     // ends ctx when a try overruns
	ctx     context.Context //nolint:containedctx // reused between tries: a context a try would be an allocation an event
	endCtx  context.CancelCauseFunc
	overrun error
}

func newWorker(s *Stage) *worker {
	w := &worker{stage: s, try: s.tries(), out: newOut(s.conn)}
	w.overrun = &fault.Error{
		Code: CodeTimeout, What: fmt.Sprintf("the handler took longer than %v", s.cfg.Timeout),
		Fix: "make it faster, hand slow work to a task, or raise the stage's Timeout",
	}
	return w
}

func (w *worker) stop() { w.endWatch() }

// handle sees one message through to its acknowledgement, or gives it back when work ends first.
func (w *worker) handle(work context.Context, h *held) {
	s := w.stage
	idle := s.conn.counters.Working()
	defer idle()
	began := time.Now()

	f, err := w.open(h)
	if err != nil {
		// Damaged: nothing in it can be told apart, so the whole message is parked under its first event's name.
		id := wire.EventID{Stream: h.feed.stream, Seq: h.meta.Sequence.Stream}
		if w.park(work, Parked{Event: id, Subject: h.msg.Subject, Data: h.msg.Data, Err: err, Attempts: 1}) {
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
	w.out.beginFrame(h.feed.js, f)
	for i := range f.Len() {
		if !w.event(work, f, h, i) {
			s.giveBack(h)
			return
		}
	}
	if !w.settle(work, f, h) || !w.store(work) {
		s.giveBack(h)
		return
	}
	w.out.sendLive()
	s.held.end(s.conn, h, "+ACK")
	w.out.count()
	s.conn.counters.EventsIn.Add(uint64(f.Len()))
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
		Stream: h.feed.stream, Subject: h.msg.Subject, Header: h.msg.Header,
		Seq: h.meta.Sequence.Stream, Time: h.meta.Timestamp, scratch: w.raw,
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

// event has event i handled, retried and parked as need be. It reports false when work ended before it was settled.
func (w *worker) event(work context.Context, f *Frame, h *held, i int) bool {
	s := w.stage
	data, err := f.Event(i)
	if err != nil {
		panic(fmt.Sprintf("bus: internal error: a decoded frame has no event %d: %v", i, err))
	}
	e := rawEvent{id: f.ID(i), subject: f.Subject, time: f.Time, data: data}
	if h.feed.stream == wire.RetryStream {
		e.id, e.subject = retried(f)
	}
	for e.attempt = 1; ; e.attempt++ {
		w.out.beginEvent(e.id)
		err := w.once(work, e)
		if err == nil {
			return true
		}
		w.out.rollback()
		switch {
		case errors.Is(err, Drop):
			s.conn.counters.Dropped.Add(1)
			return true
		case work.Err() != nil:
			return false // it failed because of the stop, or can be tried by another instance
		case permanent(err) || e.attempt >= s.cfg.Attempts:
			return w.park(work, Parked{Event: e.id, Subject: e.subject, Data: e.data, Err: err, Attempts: e.attempt})
		}
		s.conn.counters.Retried.Add(1)
		if !sleep(work, s.cfg.Backoff<<min(e.attempt-1, 10)) {
			return false
		}
	}
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

// once calls the handler one time, with a limit on its time and a net under its panics.
func (w *worker) once(work context.Context, e rawEvent) (err error) {
	ctx := w.beginWatch(work)
	defer func() {
		if p := recover(); p != nil {
			err = w.panicked(p, e)
		}
		if !w.watch.Stop() { // it fired: this context has ended or is about to
			w.endWatch()
			if err != nil && fault.Code(err) != CodePanic && !permanent(err) && !errors.Is(err, Drop) {
				err = &fault.Error{Code: CodeTimeout, What: w.overrun.Error(), Err: err}
			}
		}
	}()
	return w.try(ctx, e, w.out)
}

// beginWatch returns a context that ends when the try overruns. It is kept from event to event: a context and a timer
// of its own would cost each event more than many handlers do.
func (w *worker) beginWatch(work context.Context) context.Context {
	if w.ctx == nil || w.ctx.Err() != nil {
		w.endWatch()
		ctx, end := context.WithCancelCause(work)
		w.ctx, w.endCtx = ctx, end
		overrun := w.overrun
		w.watch = time.AfterFunc(w.stage.cfg.Timeout, func() { end(overrun) })
		return ctx
	}
	w.watch.Reset(w.stage.cfg.Timeout)
	return w.ctx
}

func (w *worker) endWatch() {
	if w.ctx != nil {
		w.watch.Stop()
		w.endCtx(nil)
		w.ctx = nil
	}
}

func (w *worker) panicked(p any, e rawEvent) error {
	if now, dropped := w.stage.panics.pass(); now {
		w.stage.log.Error("handler panicked", "event", e.id.String(), "panic", fmt.Sprint(p),
			"stack", string(debug.Stack()), "more_not_logged", dropped)
	}
	return &fault.Error{Code: CodePanic, What: fmt.Sprintf("the handler panicked: %v", p), Fix: "see the stack in the service's log"}
}

// park parks an event, trying until it is stored or work ends.
func (w *worker) park(work context.Context, p Parked) bool {
	return w.persist(work, func() error { return w.stage.conn.Park(work, p) })
}

// store stores the frame's output, trying until all of it is acknowledged or work ends.
func (w *worker) store(work context.Context) bool {
	msgs := w.out.messages()
	again := false
	err := w.stage.conn.storeAll(work, msgs, func(err error) {
		w.stage.blocked.set(err, again)
		again = true
	})
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
