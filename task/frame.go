package task

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// frameGuess is how many tasks a frame is thought to hold before the first one has come.
	frameGuess = 256

	// frameKeep is how long it is known who has claimed a frame, and of one in the queue that tasks of it are cancelled.
	frameKeep = 30 * 24 * time.Hour
)

// frame is a message with many tasks in the hands of this worker. It has a lease as a task has, and is acknowledged when
// all of its tasks are settled. What cannot be settled here, or is not begun within heldFor, leaves it as a message of
// its own.
type frame struct {
	lease  lease
	body   *bus.Frame
	prefix string // of the subjects of its tasks
	came   time.Time
	marked atomic.Bool // a task of it was cancelled, so that each is looked at before it is begun

	mu   sync.Mutex
	next int   // first task that nobody has begun
	left int   // tasks that are not settled
	kept []int // tasks that have ended here and are not settled
}

// parseFrame reads everything but the tasks. seq is 0 only when msg is not from JetStream.
func parseFrame(msg *nats.Msg) (d delivery, count int, err error) {
	d = delivery{msg: msg, data: msg.Data, copy: 1, priority: Normal}
	if d.seq, d.delivered, d.stored, err = parseAck(msg.Reply); err != nil {
		return d, 0, err
	}
	d.token, count, err = splitFrameSubject(msg.Subject)
	d.id = d.token
	if err != nil {
		return d, 0, err
	}
	if d.id, err = wire.ParseTaskToken(d.token); err != nil {
		d.id = d.token
		return d, 0, err
	}
	return d, count, d.parseHeader(msg.Header)
}

// delivery is task i of the frame.
func (f *frame) delivery(i int) (delivery, error) {
	d := f.lease.d // nobody writes to it while tasks are left
	d.frame, d.index = f, i
	d.id = wire.FramedID(d.id, i)
	d.token = d.id
	var err error
	d.data, err = f.body.Event(i)
	return d, err
}

// done notes that task i has ended here and whether it is settled. It reports whether it was the last one.
func (f *frame) done(i int, settled bool) (last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left--
	if !settled {
		f.kept = append(f.kept, i)
	}
	return f.left == 0
}

// rest takes what nobody has begun.
func (f *frame) rest() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []int
	for ; f.body != nil && f.next < f.body.Len(); f.next++ {
		all = append(all, f.next)
	}
	return all
}

// frames are those that a worker has in hand. The zero frames is ready; it is safe for concurrent use.
type frames struct {
	waiting atomic.Int64 // tasks of them that nobody has begun

	mu  sync.Mutex
	all []*frame // oldest first
}

func (fs *frames) add(f *frame) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.all = append(fs.all, f)
}

func (fs *frames) remove(f *frame) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for i, one := range fs.all {
		if one == f {
			fs.all = append(fs.all[:i:i], fs.all[i+1:]...)
		}
	}
}

// each calls do for every frame.
func (fs *frames) each(do func(*frame)) {
	fs.mu.Lock()
	all := fs.all
	fs.mu.Unlock()
	for _, f := range all {
		do(f)
	}
}

// begin takes up to most tasks of the oldest frame that has some and is surely this worker's.
func (fs *frames) begin(most int) (f *frame, first, n int) {
	if fs.waiting.Load() == 0 {
		return nil, 0, 0
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.all {
		f.mu.Lock()
		first, n = f.next, 0
		if f.body != nil && f.next < f.body.Len() && f.lease.holds() {
			n = min(most, f.body.Len()-f.next)
			f.next += n
		}
		f.mu.Unlock()
		if n > 0 {
			fs.waiting.Add(-int64(n))
			return f, first, n
		}
	}
	return nil, 0, 0
}

// rest takes what nobody has begun of f.
func (fs *frames) rest(f *frame) []int {
	tasks := f.rest()
	fs.waiting.Add(-int64(len(tasks)))
	return tasks
}

// open takes a message of many tasks. They can be begun when it has returned.
func (w *pool) open(work context.Context, msg *nats.Msg) {
	d, count, err := parseFrame(msg)
	if d.seq == 0 { // not from JetStream: nothing to acknowledge
		w.log.WarnContext(work, "a message on the queue is no frame of tasks", "subject", msg.Subject, "error", err)
		return
	}
	again := d.delivered > 1 || w.forgotten(&d)
	if w.outdated() || (again && w.adopted(&d)) {
		return
	}
	f := &frame{prefix: runnable(w.queue, w.kind, Normal, ""), came: time.Now()}
	f.lease.take(d, nil)
	w.frames.add(f) // from here on it is kept
	body := (*bus.Frame)(nil)
	if err == nil {
		body, err = openBody(w.queue, msg, count)
	}
	if err != nil {
		w.buryFrame(work, f, err)
		w.forget(f)
		return
	}
	if again {
		f.mu.Lock()
		f.body, f.next = body, body.Len() // nobody begins any
		f.mu.Unlock()
		if err := w.takeApart(work, f); err != nil {
			w.log.WarnContext(work, "a frame of tasks is left to be delivered again", "frame", d.id, "error", err)
		}
		w.forget(f)
		return
	}
	err = retry(work, func(ctx context.Context) error { return f.look(ctx, w) })
	if err != nil {
		w.log.WarnContext(work, "a frame of tasks is left to be delivered again: its record was not reached", "frame", d.id, "error", err)
		w.forget(f)
		return
	}
	f.mu.Lock()
	f.body, f.left = body, body.Len()
	f.mu.Unlock()
	w.frames.waiting.Add(int64(body.Len()))
	w.perFrame.Store(max((3*w.perFrame.Load()+int64(body.Len()))/4, 1))
	w.wake()
}

// wake has idle handlers look for tasks of frames.
func (w *pool) wake() {
	for range w.cfg.Concurrency {
		select {
		case w.opened <- struct{}{}:
		default: // whoever waits is woken already
			return
		}
	}
}

// buryFrame makes a dead letter of a frame that cannot be read.
func (w *pool) buryFrame(work context.Context, f *frame, cause error) {
	cause = &fault.Error{
		Code: CodeBadHeader, What: "a frame of tasks cannot be read", Where: "task " + w.kind, Err: cause,
		Fix: "correct the program that enqueued it; see decision 0018",
	}
	err := retry(work, func(ctx context.Context) error {
		return storeDead(ctx, w.conn, letter{delivery: f.lease.d, queue: w.queue, attempts: 1, code: CodeBadHeader, err: cause.Error()})
	})
	if err != nil {
		w.log.WarnContext(work, "a dead frame could not be stored and stays in the queue", "frame", f.lease.d.id, "error", err)
		return // it is delivered again
	}
	w.acknowledge(&f.lease)
	if now, more := w.quiet.pass(); now {
		w.log.ErrorContext(work, "a frame of tasks is a dead letter", "frame", f.lease.d.id, "error", cause, "more_not_logged", more)
	}
}

// openBody reads and checks the tasks.
func openBody(queue string, msg *nats.Msg, count int) (*bus.Frame, error) {
	body, err := bus.OpenData(wire.QueueStream(queue), msg.Subject, msg.Header, msg.Data)
	if err != nil {
		return nil, err
	}
	if !body.Framed() || body.Len() != count {
		return nil, fmt.Errorf("%d tasks in a frame, and its subject says %d", body.Len(), count)
	}
	_, err = body.Events() // unpacks it
	return body, err
}

// look finds out whether tasks of the frame are cancelled.
func (f *frame) look(ctx context.Context, w *pool) error {
	mark, err := directGet(ctx, w.conn, wire.RecordStream, wire.FrameMarkSubject(w.kind, f.lease.d.token))
	if mark != nil {
		f.marked.Store(true)
	}
	return err
}

// forget ends the worker's hold on a frame.
func (w *pool) forget(f *frame) {
	w.frames.remove(f)
	f.lease.drop()
}

// splitFrameSubject reads where a frame is stored.
func splitFrameSubject(subject string) (token string, count int, err error) {
	parts := strings.Split(subject, ".")
	if len(parts) != 7 || parts[3] != "f" {
		return "", 0, fmt.Errorf("%q is no subject of a frame", subject)
	}
	count, err = strconv.Atoi(parts[5])
	if err != nil || count < 1 || count > MaxAtomic {
		return parts[6], 0, fmt.Errorf("%q is no subject of a frame: %s is no count from 1 to %d", subject, parts[5], MaxAtomic)
	}
	return parts[6], count, nil
}

// settleFrame takes a frame off the queue whose tasks have all ended, those that are not settled as messages of their own.
// When the frame may be somebody else's it says so only if nothing is left to do.
func (w *pool) settleFrame(work context.Context, f *frame) {
	defer w.forget(f)
	f.mu.Lock()
	kept := f.kept
	f.mu.Unlock()
	if len(kept) > 0 {
		if !f.lease.holds() {
			return
		}
		if err := w.storeApart(work, f, kept); err != nil {
			w.log.WarnContext(work, "a frame of tasks is left to be delivered again", "frame", f.lease.d.id, "error", err)
			return
		}
	}
	w.acknowledge(&f.lease)
}

// discharge notes that nobody will begin some tasks here.
func (w *pool) discharge(work context.Context, f *frame, tasks []int, settled bool) {
	last := false
	for _, i := range tasks {
		last = f.done(i, settled)
	}
	if last {
		w.settleFrame(work, f)
	}
}
