package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// DefaultCallTimeout ends an Ask whose context has no deadline, and bounds a handler's time in a Server.
const DefaultCallTimeout = 10 * time.Second

// headerFix carries the fix of a fault in an answer, beside wire.HeaderCode and wire.HeaderError.
const headerFix = "Hozo-Fix"

// Call is a question with a typed answer: a request to whichever instance of a service is free. Nothing of it is
// stored. Both types are written by encoding/json, unless an option names another codec; []byte and json.RawMessage pass
// through.
type Call[Req, Resp any] struct {
	subject string
	opts    *options
}

// NewCall names the call of subject.
func NewCall[Req, Resp any](subject string, opts ...Option) Call[Req, Resp] {
	o := optionsOf(opts)
	return Call[Req, Resp]{subject, &o}
}

// Subject returns the subject.
func (c Call[Req, Resp]) Subject() string { return c.subject }

// Ask sends req and waits for the answer until ctx ends, or DefaultCallTimeout when ctx has no deadline. A fault that
// the serving handler returned comes back with its code and fix; other faults are bus/no-responder, bus/timeout,
// bus/unavailable and bus/no-call. After bus/timeout the request may have been carried out.
func (c Call[Req, Resp]) Ask(ctx context.Context, conn *Conn, req Req) (Resp, error) {
	var resp Resp
	if err := c.mayAsk(conn); err != nil {
		return resp, err
	}
	data, err := encode(c.subject, c.opts, req)
	if err != nil {
		return resp, err
	}
	if _, ok := ctx.Deadline(); !ok {
		timed, cancel := context.WithTimeout(ctx, DefaultCallTimeout)
		defer cancel()
		ctx = timed
	}
	ctx, done := conn.denials.untilDenied(ctx, c.subject)
	defer done()
	header := conn.liveHeader(ctx, c.subject, c.opts.ceType, contentTypeOf[Req](c.opts))
	for attempt := 0; ; attempt++ {
		msg, err := conn.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: c.subject, Header: header, Data: data})
		if err == nil {
			conn.counters.AddEdge("calls", c.subject, 1)
			return c.answer(msg)
		}
		if denied := context.Cause(ctx); fault.Code(denied) == CodeDenied {
			return resp, denied
		}
		f := askFault(ctx, c.subject, err)
		again := c.opts.idempotent && (f.Code == CodeNoResponder || f.Code == CodeUnavailable)
		if !again || !sleep(ctx, retryDelay(attempt)) {
			return resp, f
		}
	}
}

func (c Call[Req, Resp]) mayAsk(conn *Conn) error {
	if slices.Contains(conn.cfg.Grant.Calls, c.subject) {
		return nil
	}
	return conn.undeclared(CodeNoCall, "ask", "calls", c.subject)
}

// answer reads what a Server sent back.
func (c Call[Req, Resp]) answer(msg *nats.Msg) (resp Resp, err error) {
	if code := msg.Header.Get(wire.HeaderCode); code != "" {
		return resp, &fault.Error{Code: code, Where: c.subject, What: msg.Header.Get(wire.HeaderError), Fix: msg.Header.Get(headerFix)}
	}
	if err := decode(c.opts, wire.ContentType(msg.Header), msg.Data, &resp); err != nil {
		return resp, fmt.Errorf("answer of %s: %w", c.subject, err)
	}
	return resp, nil
}

func askFault(ctx context.Context, subject string, err error) *fault.Error {
	f := &fault.Error{Where: subject, Err: err}
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		f.Code, f.What, f.Fix = CodeNoResponder, "nobody answers this call", "start a service that serves "+subject
	case ctx.Err() != nil:
		f.Code, f.What, f.Fix = CodeTimedOut, "no answer in time", "see hozo status; ask again if asking twice is harmless"
		f.Err = context.Cause(ctx)
	case errors.Is(err, nats.ErrMaxPayload):
		f.Code, f.What, f.Fix = CodeTooLarge, "the request is larger than the broker allows", "send less"
	default:
		f.Code, f.What, f.Fix = CodeUnavailable, "the bus is away", "see hozo status"
	}
	return f
}

// ServeConfig tunes a Server. The zero value is ready for production.
type ServeConfig struct {
	Workers int           // requests at once; default GOMAXPROCS
	Timeout time.Duration // of one request; default DefaultCallTimeout
	Use     []Middleware  // around the handler, the first outermost
	Drain   time.Duration // how long requests in hand may go on after the stop; default 8s
}

// Server answers a call. All instances of a service share the requests of Ask; each gets those of Gather.
type Server struct {
	conn    *Conn
	log     *slog.Logger
	subject string
	cfg     ServeConfig
	answer  func(ctx context.Context, m *nats.Msg) (*nats.Msg, error)
	panics  quiet
	ready   chan struct{}
}

// Serve returns a Server that answers with fn. An error of fn goes to the asker; a fault keeps its code and fix.
func (c Call[Req, Resp]) Serve(conn *Conn, fn func(ctx context.Context, req Req) (Resp, error), cfg ServeConfig) *Server {
	cfg.Workers = cmp.Or(max(cfg.Workers, 0), runtime.GOMAXPROCS(0))
	cfg.Timeout = cmp.Or(max(cfg.Timeout, 0), DefaultCallTimeout)
	cfg.Drain = cmp.Or(max(cfg.Drain, 0), 8*time.Second)
	return &Server{
		conn: conn, subject: c.subject, cfg: cfg, log: conn.log.With("call", c.subject), ready: make(chan struct{}),
		answer: func(ctx context.Context, m *nats.Msg) (*nats.Msg, error) {
			var req Req
			if err := decode(c.opts, wire.ContentType(m.Header), m.Data, &req); err != nil {
				return nil, err
			}
			ctx = Continue(ctx, m.Header)
			var resp Resp
			err := Wrap(cfg.Use, func(ctx context.Context) (err error) {
				resp, err = fn(ctx, req)
				return err
			})(ctx, &Work{Kind: "call", Name: c.subject, Subject: m.Subject, Attempt: 1})
			if err != nil {
				return nil, err
			}
			data, err := encode(c.subject, c.opts, resp)
			return &nats.Msg{Data: data, Header: conn.liveHeader(ctx, c.subject, c.opts.ceType, contentTypeOf[Resp](c.opts))}, err
		},
	}
}

// Ready is closed when the broker knows of this Server.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Run answers requests until ctx ends; then it takes no more, answers those that have reached it and returns. It
// returns the fault bus/not-served when the subject is not declared under serves.
func (s *Server) Run(ctx context.Context) error {
	g := s.conn.cfg.Grant
	if !slices.Contains(g.Serves, s.subject) {
		return s.conn.undeclared(CodeNotServed, "serve", "serves", s.subject)
	}
	work, abandon := context.WithCancelCause(context.WithoutCancel(ctx))
	defer abandon(nil)
	requests := make(chan *nats.Msg) // what waits for a worker waits in the subscription
	take := func(m *nats.Msg) {
		select {
		case requests <- m:
		case <-work.Done():
		}
	}
	closed := make(chan struct{}, 2) // one for each subscription
	one, err := s.conn.nc.QueueSubscribe(s.subject, g.Service, take)
	if err != nil {
		return fmt.Errorf("serve %s: %w", s.subject, err)
	}
	every, err := s.conn.nc.Subscribe(wire.EverySubject(s.subject), take)
	if err != nil {
		return errors.Join(fmt.Errorf("serve %s: %w", s.subject, err), one.Unsubscribe())
	}
	subs := []*nats.Subscription{one, every}
	for _, sub := range subs {
		sub.SetClosedHandler(func(string) { closed <- struct{}{} })
	}

	s.conn.counters.addWorkers(s.cfg.Workers)
	defer s.conn.counters.addWorkers(-s.cfg.Workers)
	var workers sync.WaitGroup
	idle := make(chan struct{}) // closed when no more requests come
	for range s.cfg.Workers {
		workers.Go(func() {
			for {
				select {
				case m := <-requests:
					s.serve(work, m)
				case <-idle:
					return
				}
			}
		})
	}
	flush, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	_ = s.conn.nc.FlushWithContext(flush) // while disconnected it fails; nats.go subscribes again when the bus is back
	cancel()
	close(s.ready)
	<-ctx.Done()
	grace := time.AfterFunc(s.cfg.Drain, func() { abandon(errors.New("the drain is over")) })
	defer grace.Stop()
	for _, sub := range subs {
		if err := sub.Drain(); err != nil {
			abandon(err) // the connection is closed: nothing comes any more
		}
	}
	for range subs {
		select {
		case <-closed: // a callback has returned for the last time
		case <-work.Done():
		}
	}
	for _, sub := range subs {
		_ = sub.Unsubscribe() // fails only when that has happened already
	}
	close(idle)
	workers.Wait()
	return nil
}

func (s *Server) serve(work context.Context, m *nats.Msg) {
	idle := s.conn.counters.Working()
	defer idle()
	ctx, cancel := context.WithTimeoutCause(work, s.cfg.Timeout, fmt.Errorf("the request took longer than %v", s.cfg.Timeout))
	defer cancel()
	reply, err := s.safely(ctx, m)
	if err != nil {
		reply = &nats.Msg{}
		reply.Header = nats.Header{wire.HeaderCode: {cmp.Or(fault.Code(err), "call/error")}, wire.HeaderError: {oneLine(err.Error())}}
		if f, ok := fault.As(err); ok && f.Fix != "" {
			reply.Header.Set(headerFix, oneLine(f.Fix))
		}
	}
	reply.Subject = m.Reply
	_ = s.conn.nc.PublishMsg(reply) // when the bus is away the asker sees a timeout
	s.conn.counters.EventsIn.Add(1)
	s.conn.counters.AddEdge("serves", s.subject, 1)
	s.conn.counters.BytesIn.Add(uint64(len(m.Data)))
}

func (s *Server) safely(ctx context.Context, m *nats.Msg) (answer *nats.Msg, err error) {
	defer func() {
		if p := recover(); p != nil {
			if now, dropped := s.panics.pass(); now {
				s.log.Error("handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), "more_not_logged", dropped)
			}
			answer, err = nil, &fault.Error{Code: CodePanic, What: fmt.Sprintf("the handler panicked: %v", p), Fix: "see the stack in the service's log"}
		}
	}()
	return s.answer(ctx, m)
}
