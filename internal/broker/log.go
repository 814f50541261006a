package broker

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
)

// serverLog takes the server's printf-style log into slog, and hears in it the two events that the server tells nobody
// else: that it cannot start, and that a stream's file cannot be written any more.
type serverLog struct {
	logger *slog.Logger
	fatal  chan string // 1: the first line says it all, later ones are only logged
	broken chan string // 1: likewise
}

var _ server.Logger = (*serverLog)(nil)

func newServerLog(logger *slog.Logger) *serverLog {
	return &serverLog{logger: logger, fatal: make(chan string, 1), broken: make(chan string, 1)}
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.logger.Debug("nats-server", "line", line(format, v))
}

func (l *serverLog) Warnf(format string, v ...any) {
	text := line(format, v)
	if strings.HasPrefix(text, "Websocket not configured with TLS") {
		return // it listens on the loopback, behind a door that has TLS
	}
	l.logger.Warn("nats-server", "line", text)
}

func (l *serverLog) Debugf(format string, v ...any) {
	l.logger.Debug("nats-server", "line", line(format, v))
}

func (l *serverLog) Tracef(format string, v ...any) {
	l.logger.Debug("nats-server", "line", line(format, v))
}

func (l *serverLog) Errorf(format string, v ...any) {
	text := line(format, v)
	l.logger.Error("nats-server", "line", text)
	// nats-server keeps running with such a stream and lets its publishers time out; only a restart opens it again.
	if strings.Contains(strings.ToLower(text), "critical write error") {
		offer(l.broken, text)
	}
}

// Fatalf must not end the process: it is the caller's.
func (l *serverLog) Fatalf(format string, v ...any) {
	text := line(format, v)
	l.logger.Error("nats-server", "line", text)
	offer(l.fatal, text)
}

// forget drops what a server that has ended said.
func (l *serverLog) forget() {
	for _, ch := range []chan string{l.fatal, l.broken} {
		select {
		case <-ch:
		default:
		}
	}
}

func offer(ch chan string, text string) {
	select {
	case ch <- text:
	default: // an earlier one waits to be read
	}
}

func line(format string, v []any) string { return strings.TrimSpace(fmt.Sprintf(format, v...)) }
