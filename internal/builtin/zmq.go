package builtin

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/zmtp"
	"github.com/hozo-dev/hozo/web"
)

// zmqGrace is how long what peers have sent may still be stored, and what they are given still be written, after the
// stop; within the manifest's default stop grace of 10s.
const zmqGrace = 7 * time.Second

// zmqParts makes a part of each socket.
func zmqParts(s *hozo.Service) (parts []hozo.Part, err error) {
	sockets, err := settings[[]manifest.ZMQSocket](s.Conn())
	if err != nil {
		return nil, err
	}
	listeners, err := web.Listeners()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, ln := range listeners {
				_ = ln.Close() // a copy: nothing is lost with it
			}
		}
	}()
	for _, z := range sockets {
		ln := listenerCalled(z.Listen, listeners)
		if ln == nil {
			return nil, &fault.Error{
				Code: "zmq/no-listener", Kind: fault.Misuse, What: fmt.Sprintf("no inherited socket is called %q", z.Listen),
				Fix: fmt.Sprintf("add listen: { %s: PORT } to the service", z.Listen),
			}
		}
		one, err := newZMQ(s.Conn(), z, ln, s.Logger())
		if err != nil {
			return nil, err
		}
		parts = append(parts, hozo.Work("zmq "+z.Listen, one))
	}
	return append(parts, workers(len(sockets))), nil
}

// listenerCalled finds a listener by its name in the manifest; the platform puts the service's before it.
func listenerCalled(name string, all map[string]net.Listener) net.Listener {
	if ln := all[name]; ln != nil {
		return ln
	}
	for full, ln := range all {
		if strings.HasSuffix(full, "."+name) {
			return ln
		}
	}
	return nil
}

// newZMQ makes the socket that z describes, on ln.
func newZMQ(conn *bus.Conn, z manifest.ZMQSocket, ln net.Listener, log *slog.Logger) (hozo.Runner, error) {
	z.HWM = max(z.HWM, 1)
	z.MaxMessage = orDefault(z.MaxMessage, 1<<20)
	log = log.With("socket", z.Listen)
	door := &zmqDoor{listener: ln, log: log, linger: zmqGrace, ready: make(chan struct{})}
	door.cfg.MaxMessage = min(int(z.MaxMessage), int(conn.NATS().MaxPayload())-messageRoom)
	if z.Reads() != "" {
		door.cfg.MaxMessage = 2 * fanPrefix // peers send subscriptions
		door.linger = time.Second           // the stage has waited before
	}
	if z.Plain != "" {
		users, err := readUsers(z.Plain)
		if err != nil {
			return nil, err
		}
		door.cfg.Auth = users.know
	}
	switch {
	case z.Stores() != "":
		door.cfg.Type = zmtp.Pull
		if z.Sub != "" {
			door.cfg.Type = zmtp.Sub
		}
		return newZMQIntake(conn, z, door)
	case z.Push != "":
		door.cfg.Type = zmtp.Push
		return newZMQTurns(conn, z, door)
	case z.Pub != "":
		door.cfg.Type = zmtp.Pub
		return newZMQFan(conn, z, door)
	case z.Rep != "":
		door.cfg.Type = zmtp.Rep
		return newZMQCalls(conn, z, door), nil
	}
	return nil, &fault.Error{
		Code: "zmq/no-type", Kind: fault.Misuse, What: fmt.Sprintf("socket %q is of no type", z.Listen), Fix: "write one of pull, push, pub, sub and rep",
	}
}

// users are names and the SHA-256 sums of their passwords.
type users map[string][sha256.Size]byte

const maxUserFile = 1 << 20

// readUsers reads a file of user:password lines. Blank lines and lines that begin with # count for nothing.
func readUsers(path string) (users, error) {
	bad := func(what, fix string, err error) error {
		return &fault.Error{Code: "zmq/users", Kind: fault.Misuse, Where: path, What: what, Fix: fix, Err: err}
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, bad("the file of users cannot be read", "make it, with mode 0600 and user:password lines", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || info.Size() > maxUserFile {
		return nil, bad("the file of users cannot be read", fmt.Sprintf("keep it a file below %d bytes", maxUserFile), err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, bad("everybody on this host can read the file of users", "chmod 600 "+path, nil)
	}
	all := users{}
	lines := bufio.NewScanner(file)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSuffix(lines.Text(), "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, password, ok := strings.Cut(line, ":")
		if !ok || name == "" || password == "" || len(name) > 255 || len(password) > 255 {
			return nil, bad(fmt.Sprintf("line %d is not user:password", n), "write one user a line; each half has 1 to 255 bytes", nil)
		}
		all[name] = sha256.Sum256([]byte(password))
	}
	if err := lines.Err(); err != nil {
		return nil, bad("the file of users cannot be read", "write one user a line", err)
	}
	if len(all) == 0 {
		return nil, bad("the file of users names nobody", "write user:password lines", nil)
	}
	return all, nil
}

// know reports whether a password is the user's. What it takes tells nothing of the names there are.
func (u users) know(name, password string) bool {
	want, known := u[name]
	got := sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && known
}

// errStopping ends what waits when the service stops.
var errStopping = errors.New("the service is stopping")

// outlive returns a context that ends a grace after ctx does, or by end.
func outlive(ctx context.Context, grace time.Duration) (work context.Context, end func()) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(grace, func() { cancel(errStopping) })
	})
	return work, func() { stop(); cancel(nil) }
}

// pause waits for d, or until ctx ends, which it reports by false.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
