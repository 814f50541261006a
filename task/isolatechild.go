package task

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// question is what a parent tells its child: tasks to do at once, or that the context of those ends.
type question struct {
	Tasks    []carried `json:"tasks,omitempty"`
	Deadline time.Time `json:"deadline,omitzero"`
	Cancel   bool      `json:"cancel,omitempty"`
}

// carried is a task on its way to a child.
type carried struct {
	Subject string      `json:"subject"`
	Header  nats.Header `json:"header,omitempty"`
	Data    []byte      `json:"data"`
	Seq     uint64      `json:"seq"`
	Stored  time.Time   `json:"stored"`
	Failed  int         `json:"failed,omitempty"`
}

// answer is what a child tells its parent: the outcomes of all tasks, or how far one is.
type answer struct {
	Outcomes []carriedOutcome `json:"outcomes,omitempty"`
	Progress *carriedProgress `json:"progress,omitempty"`
}

type carriedProgress struct {
	Task    int    `json:"task"` // of the question
	Percent int    `json:"percent"`
	Note    string `json:"note,omitempty"`
}

type carriedOutcome struct {
	Result   []byte         `json:"result,omitempty"`
	Error    *string        `json:"error,omitempty"`
	Code     string         `json:"code,omitempty"`
	Rejected bool           `json:"rejected,omitempty"`
	Snooze   *time.Duration `json:"snooze,omitempty"` // ns
	Ended    bool           `json:"ended,omitempty"`  // it is that the context has ended
}

func carry(l *lease) carried {
	d := &l.d
	return carried{Subject: d.subject(), Header: d.msg.Header, Data: d.data, Seq: d.seq, Stored: d.stored, Failed: l.failed()}
}

// lease is what the task is held by in the child: nothing is said to the broker there, but steps are saved.
func (c carried) lease(w *pool, cancel context.CancelCauseFunc) (*lease, error) {
	d, err := parseDelivery(&nats.Msg{Subject: c.Subject, Header: c.Header, Data: c.Data, Reply: "$JS.ACK.-.-.1.1.1.1.0"})
	d.seq, d.stored, d.failed = c.Seq, c.Stored, c.Failed
	l := &lease{conn: w.conn, alone: true}
	l.take(d, cancel)
	return l, err
}

func carryOutcome(ctx context.Context, o outcome) carriedOutcome {
	if o.err == nil {
		return carriedOutcome{Result: o.result}
	}
	text := o.err.Error()
	c := carriedOutcome{Error: &text, Code: fault.Code(o.err), Rejected: permanent(o.err), Ended: ctx.Err() != nil && errors.Is(o.err, ctx.Err())}
	if s, snoozed := errors.AsType[*snooze](o.err); snoozed {
		c.Snooze = &s.d
	}
	return c
}

// outcome is what it was in the child. ctx is the parent's, which has ended when the child's has, or does so any moment.
func (c carriedOutcome) outcome(ctx context.Context) outcome {
	if c.Error == nil {
		return outcome{result: c.Result}
	}
	if c.Snooze != nil {
		return outcome{err: Snooze(*c.Snooze)}
	}
	if c.Ended && c.Code == "" {
		select {
		case <-ctx.Done():
			return outcome{err: ctx.Err()}
		case <-time.After(time.Second): // the clocks are one; it does not come to this
		}
	}
	err := errors.New(*c.Error)
	if c.Code != "" {
		err = &fault.Error{Code: c.Code, What: *c.Error}
	}
	if c.Rejected {
		err = Reject(err)
	}
	return outcome{err: err}
}

// serveParent does what the parent asks until it hangs up or ctx ends, which the parent's goodbye comes before in an orderly stop.
func (w *pool) serveParent(ctx context.Context) error {
	in, out := os.NewFile(3, "questions"), os.NewFile(4, "answers")
	if in == nil || out == nil {
		return &fault.Error{Code: CodeCrashed, Kind: fault.Misuse, What: wire.EnvTaskChild + " is set, but nobody asks", Where: "task " + w.kind, Fix: "unset it; a worker sets it for its own children"}
	}
	defer out.Close()
	for _, fd := range []int{3, 4} { // what a handler starts should not hold the pipes open
		syscall.CloseOnExec(fd)
	}
	_ = os.Unsetenv(wire.EnvTaskChild) // it fails for bad names only
	close(w.ready)
	p := &parent{out: json.NewEncoder(out)}
	questions := make(chan question)
	go func() { // it ends with the process: a read of the pipe is not woken by anything else
		defer close(questions)
		for read := json.NewDecoder(in); ; {
			var q question
			if read.Decode(&q) != nil {
				p.gone()
				return
			}
			if q.Cancel {
				p.cancel()
				continue
			}
			questions <- q
		}
	}()
	for q := range questions {
		w.answerParent(context.WithoutCancel(ctx), p, q)
	}
	return nil
}

// parent is the other end of the pipes.
type parent struct {
	mu    sync.Mutex
	out   *json.Encoder
	stop  context.CancelCauseFunc // of the call under way
	under bool
}

// gone is called when the parent has hung up. A handler that runs then has nobody to tell.
func (p *parent) gone() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.under {
		os.Exit(1) //nolint:forbidigo // a handler that heeds nothing leaves no other way
	}
}

func (p *parent) cancel() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop != nil {
		p.stop(errStopped)
	}
}

func (p *parent) begin(stop context.CancelCauseFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop, p.under = stop, stop != nil
}

func (p *parent) say(a answer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.out.Encode(a) // when the parent is gone, gone ends the process
}

func (w *pool) answerParent(work context.Context, p *parent, q question) {
	ctx, cancel := context.WithCancelCause(work)
	defer cancel(nil)
	if !q.Deadline.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, q.Deadline)
		defer stop()
	}
	p.begin(cancel)
	leases, outcomes := make([]*lease, len(q.Tasks)), make([]outcome, len(q.Tasks))
	for i, c := range q.Tasks {
		var err error
		if leases[i], err = c.lease(w, cancel); err != nil {
			outcomes[i].err = err // it was readable for the parent: it does not come to this
		}
	}
	done := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() { reportUp(p, leases, done) })
	w.call(ctx, leases, outcomes)
	close(done)
	reporter.Wait()
	a := answer{Outcomes: make([]carriedOutcome, len(outcomes))}
	for i, o := range outcomes {
		a.Outcomes[i] = carryOutcome(ctx, o)
	}
	p.begin(nil)
	p.say(a)
}

// reportUp tells the parent how far tasks are, as often as it writes that down, and at the end.
func reportUp(p *parent, leases []*lease, done <-chan struct{}) {
	tick := time.NewTicker(time.Second / 2)
	defer tick.Stop()
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-done:
			last = true
		}
		for i, l := range leases {
			if percent, note, news := l.reported(); news {
				p.say(answer{Progress: &carriedProgress{i, percent, note}})
			}
		}
	}
}

// reported returns what was reported since the last time.
func (l *lease) reported() (percent int, note string, news bool) {
	l.recMu.Lock()
	defer l.recMu.Unlock()
	news, l.news = l.news, false
	return l.progress, l.note, news
}
