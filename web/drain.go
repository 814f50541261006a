package web

import (
	"context"
	"net/http"
)

// drain ends srv. Shutdown alone would lose requests: it drops one that it has just read, and closes an idle
// connection on which one may be under way. So clients first get drainLinger to finish what they are sending, and hear
// with the answer that the connection closes. A connection that is left then has been silent all that time, or has a
// request in flight.
//
// served is closed when Serve of srv has returned. Until then a connection may have been accepted that is not counted
// yet; to take the server for idle and go on to Shutdown would drop its request.
func (s *Server) drain(ctx context.Context, srv *http.Server, served <-chan struct{}, cut context.CancelCauseFunc) {
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainGrace)
	defer cancel()
	_ = s.listener.Close()
	select {
	case <-served:
	case <-grace.Done(): // a Config.Listener whose Close does not end its Accept
	}
	linger, stopLinger := context.WithTimeout(grace, min(drainLinger, s.cfg.DrainGrace/4))
	s.listener.conns.wait(linger)
	stopLinger()
	err := srv.Shutdown(grace)
	// Shutdown does not know of hijacked connections; their handlers are waited for here.
	if err == nil && s.handlers.wait(grace) {
		s.listener.closeAll() // hijacked ones whose handler has returned
		return
	}
	cut(errCut)
	n := s.listener.closeAll()
	_ = srv.Close() // what is left in it is closed already
	s.cfg.Logger.WarnContext(ctx, "requests were cut", "grace", s.cfg.DrainGrace, "connections", n)
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), afterCut)
	defer cancelLast()
	if !s.handlers.wait(last) {
		s.cfg.Logger.WarnContext(ctx, "a handler ignores its cancelled context")
	}
}

type drainKey struct{}

// Draining returns a channel that is closed when the Server that serves the request of ctx begins to stop. A handler
// that lives as long as its client listens should end then. For any other context the channel never closes.
func Draining(ctx context.Context) <-chan struct{} {
	if draining, ok := ctx.Value(drainKey{}).(chan struct{}); ok {
		return draining
	}
	return nil
}
