package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/lifecycle"
)

// afterCut is how long handlers have to notice that their connection was cut. One that does not keeps its goroutine, and
// the process goes on without it: nothing but its end can end a handler.
const afterCut = time.Second

// drainLinger is how long idle and new connections stay open when the drain begins, for requests that are on their way:
// long beside a round trip to a client and a pause of its machine, short beside the grace.
const drainLinger = 2 * time.Second

// errCut is the cause of the context of requests that outlive DrainGrace.
var errCut = errors.New("web: the server stopped before the request was done")

// Server serves one handler on one listener. Make it with New and Run it once.
type Server struct {
	cfg      Config
	handler  http.Handler
	listener *limitListener
	ready    chan struct{}
	draining chan struct{}
	handlers flight
}

var _ lifecycle.Runner = (*Server)(nil)

// New makes a Server and opens its listener: from then on clients can connect, and are served once it runs. The errors
// are faults: web/no-listener, web/no-socket, web/bad-port, web/listen, web/listen-fds, web/bad-socket.
func New(handler http.Handler, cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	ln := cfg.Listener
	if ln == nil {
		var err error
		if ln, err = listen(cfg.Name); err != nil {
			return nil, err
		}
	}
	s := &Server{
		cfg:      cfg,
		listener: newLimitListener(ln, cfg.MaxConns),
		ready:    make(chan struct{}),
		draining: make(chan struct{}),
	}
	s.handler = s.guard(s.withHealth(handler))
	return s, nil
}

// Addr is the address that clients connect to.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Ready is closed when connections are accepted.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Close closes the listener of a Server that will never Run.
func (s *Server) Close() error { return s.listener.Close() }

// Run serves until ctx is done, then drains: /readyz turns 503, no connection is accepted any more, connections close
// after their current request, and requests in flight have DrainGrace to end. What is left then is cut: the requests'
// contexts are cancelled and their connections closed. Run returns nil after an asked-for stop, whether or not
// something had to be cut; the log says so.
func (s *Server) Run(ctx context.Context) error {
	base, cut := context.WithCancelCause(context.WithValue(context.WithoutCancel(ctx), drainKey{}, s.draining))
	defer cut(errCut)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    s.cfg.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return base },
		Protocols:         &protocols,
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	var failed error // of Serve, once served is closed
	served := make(chan struct{})
	wg.Go(func() {
		defer close(served)
		failed = srv.Serve(s.listener)
	})
	close(s.ready)
	select {
	case <-served:
		s.listener.closeAll()
		return fmt.Errorf("serve %s: %w", s.Addr(), failed)
	case <-ctx.Done():
	}
	close(s.draining)
	s.drain(ctx, srv, served, cut)
	return nil
}

// guard is the outermost handler: limits, and an end to panics.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.handlers.begin()
		defer s.handlers.end()
		if r.ContentLength > s.cfg.MaxBody {
			w.Header().Set("Connection", "close") // the body will not be read
			Fault(w, http.StatusRequestEntityTooLarge, &fault.Error{
				Code: "web/body-too-large", What: fmt.Sprintf("a body of %d bytes is over the limit of %d", r.ContentLength, s.cfg.MaxBody),
				Fix: "send it in smaller parts",
			})
			return
		}
		x, r := newExchange(w, r, s.cfg, s.draining)
		defer x.finish()
		defer s.recovered(x, r)
		next.ServeHTTP(x, r)
	})
}

// recovered turns a panic into status 500. When the answer has begun, the connection is cut so that the client does
// not take a part for the whole.
func (s *Server) recovered(x *exchange, r *http.Request) {
	cause := recover()
	if cause == nil {
		return
	}
	if cause == http.ErrAbortHandler { // asked for, by net/http's convention
		panic(cause)
	}
	s.cfg.Logger.ErrorContext(r.Context(), "http handler panicked",
		"method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(cause), "stack", string(debug.Stack()))
	if x.hijacked {
		return
	}
	if x.answered {
		panic(http.ErrAbortHandler)
	}
	Fault(x, http.StatusInternalServerError, &fault.Error{
		Code: "web/panic", What: "the handler panicked", Where: r.Method + " " + r.URL.Path, Fix: "see the service's log",
	})
}
