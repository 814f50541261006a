package hozo

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// closeTimeout bounds the flush of the bus when everything has stopped; a broker that is away is not waited for.
const closeTimeout = 500 * time.Millisecond

// phase is how far a Service is.
type phase int32

const (
	starting phase = iota
	running
	stopping
)

// Service is the running service, as its parts see it. Safe for concurrent use.
type Service struct {
	conn  *bus.Conn // nil without a bus
	log   *slog.Logger
	use   []bus.Middleware // around every handler
	phase atomic.Int32
}

// Conn returns the connection to the bus. It is nil when the program was started without a platform and no part needs
// the bus.
func (s *Service) Conn() *bus.Conn { return s.conn }

// Logger returns the service's log: text on standard error, with the service's name and instance.
func (s *Service) Logger() *slog.Logger { return s.log }

// Name returns the service's name in the manifest; without a platform it is the program's.
func (s *Service) Name() string { return serviceName() }

// Instance returns the instance's number within its service, from 1; without a platform it is 1.
func (s *Service) Instance() int {
	n, err := strconv.Atoi(os.Getenv(wire.EnvInstance))
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// Ready says why the service cannot work now, or nil: it is starting (hozo/starting), it is stopping (hozo/stopping),
// or the bus that it is wired to is away (bus/unavailable). /readyz shows it.
func (s *Service) Ready() error {
	switch phase(s.phase.Load()) {
	case starting:
		return &fault.Error{Code: "hozo/starting", What: "not every part is ready yet", Fix: "wait"}
	case stopping:
		return &fault.Error{Code: "hozo/stopping", What: "the service is stopping", Fix: "ask another instance"}
	}
	if s.conn != nil && wired(s.conn.Grant()) && !s.conn.Connected() {
		return &fault.Error{Code: bus.CodeUnavailable, What: "the bus is away", Fix: "see hozo status; the service reconnects by itself"}
	}
	return nil
}

// wired reports whether a service has any business on the bus; one that only reports works without it.
func wired(g wire.Grant) bool {
	return len(g.Consumes)+len(g.Publish)+len(g.Live)+len(g.Watches)+len(g.Handles)+len(g.Enqueues)+len(g.Serves)+len(g.Calls) > 0
}

// connect connects to the bus when a part needs it or the platform offers it.
func (s *Service) connect(ctx context.Context, parts []Part) error {
	needed := os.Getenv(wire.EnvGrant) != ""
	for _, p := range parts {
		if p.conn != nil {
			s.conn = p.conn
			return nil
		}
		needed = needed || p.needsBus
	}
	if !needed {
		return nil
	}
	conn, err := bus.FromEnv(ctx, s.log)
	if err != nil {
		return fmt.Errorf("connect to the bus: %w", err)
	}
	s.conn = conn
	return nil
}

// close sends what is still on its way and closes the bus.
func (s *Service) close(ctx context.Context) error {
	if s.conn == nil {
		return nil
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := s.conn.Close(bounded); err != nil {
		return fmt.Errorf("close the bus: %w", err)
	}
	return nil
}
