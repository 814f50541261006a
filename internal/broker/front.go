package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

const (
	// maxGuests bounds the connections of one door: each costs two sockets and two goroutines.
	maxGuests = 8192

	// doorPatience is how long a client may take to shake hands, and the server to greet it.
	doorPatience = 10 * time.Second

	// maxInfo bounds the server's greeting, some 500 bytes.
	maxInfo = 32 << 10
)

// front stands before the server. The server listens on the loopback alone, where services and their credentials are;
// what comes in at a door is decrypted here and passed on to the server's listener for its protocol. So the gate knows by
// which door a connection came, and no service's credential works from outside.
type front struct {
	broker *Broker
	guests *guests
	open   []openDoor
}

type openDoor struct {
	Door
	listener net.Listener
}

func (f *front) close() {
	for _, d := range f.open {
		_ = d.listener.Close() // nothing is lost with it
	}
}

// run lets clients in until ctx ends and wait is called, which returns when all have gone.
func (f *front) run(ctx context.Context) (wait func()) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	for _, d := range f.open {
		group.Go(func() { f.accept(ctx, d) })
	}
	unlisten := context.AfterFunc(ctx, f.close)
	return func() {
		cancel()
		unlisten()
		f.close()
		group.Wait()
	}
}

func (f *front) accept(ctx context.Context, d openDoor) {
	log := f.broker.cfg.Logger.With("door", string(d.Kind))
	log.InfoContext(ctx, "clients are let in", "address", d.listener.Addr().String())
	var conns sync.WaitGroup
	defer conns.Wait()
	places := make(chan struct{}, maxGuests) // one token a connection
	for {
		conn, err := d.listener.Accept()
		if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
			return
		}
		if err != nil {
			log.WarnContext(ctx, "a client cannot be let in", "error", err) // out of descriptors: others will be given back
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			_ = conn.Close() // it is sent away
			continue
		}
		conns.Go(func() {
			defer func() { <-places }()
			if err := f.pass(ctx, d.Kind, conn); err != nil && ctx.Err() == nil {
				log.DebugContext(ctx, "a client has gone", "error", err)
			}
		})
	}
}

// pass brings a client and the server together until one of them hangs up or ctx ends.
func (f *front) pass(ctx context.Context, kind DoorKind, client net.Conn) error {
	defer client.Close()
	server, err := f.dial(ctx, kind)
	if err != nil {
		return err
	}
	defer server.Close()
	defer f.guests.add(server.LocalAddr(), kind)()
	hangUp := context.AfterFunc(ctx, func() {
		client.Close()
		server.Close()
	})
	defer hangUp()
	if f.broker.cfg.TLS != nil {
		if client, err = f.encrypt(ctx, kind, client, server); err != nil {
			return err
		}
	}
	return splice(client, server)
}

// dial connects to the server's listener of a protocol. What is dialled before guests.add is not read by the server's
// gate before this side has written to it.
func (f *front) dial(ctx context.Context, kind DoorKind) (net.Conn, error) {
	address, err := f.broker.listenerOf(kind)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: doorPatience}
	return dialer.DialContext(ctx, "tcp", address)
}

// listenerOf is where the server listens for a protocol.
func (b *Broker) listenerOf(kind DoorKind) (string, error) {
	srv := b.server.Load()
	if kind == DoorNATS {
		if addr := srv.Addr(); addr != nil {
			return addr.String(), nil
		}
		return "", errors.New("the server does not listen")
	}
	vars, err := srv.Varz(nil)
	if err != nil {
		return "", err
	}
	port := vars.MQTT.Port
	if kind == DoorWebSocket {
		port = vars.Websocket.Port
	}
	if port <= 0 {
		return "", fmt.Errorf("the server does not listen for %s", kind)
	}
	return fmt.Sprintf("127.0.0.1:%d", port), nil
}

// encrypt makes the client's connection one of TLS. A NATS client waits for the server's greeting, which must tell it
// so; the others begin by themselves.
func (f *front) encrypt(ctx context.Context, kind DoorKind, client, server net.Conn) (net.Conn, error) {
	cfg, err := f.broker.cfg.TLS.config()
	if err != nil {
		f.broker.cfg.Logger.ErrorContext(ctx, "a client cannot be let in", "error", err)
		return nil, err
	}
	deadline := time.Now().Add(doorPatience)
	if err := errors.Join(client.SetDeadline(deadline), server.SetReadDeadline(deadline)); err != nil {
		return nil, err
	}
	if kind == DoorNATS {
		if err := greet(client, server, cfg.ClientCAs != nil); err != nil {
			return nil, err
		}
	}
	secure := tls.Server(client, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, errors.Join(client.SetDeadline(time.Time{}), server.SetReadDeadline(time.Time{}))
}

// greet passes the server's INFO on to the client, with word that TLS comes next.
func greet(client io.Writer, server io.Reader, verify bool) error {
	// Not one byte beyond the line may be read: a buffer would keep it from the client.
	line := make([]byte, 0, 1024)
	for one := make([]byte, 1); len(line) == 0 || line[len(line)-1] != '\n'; {
		if _, err := io.ReadFull(server, one); err != nil {
			return err
		}
		if line = append(line, one[0]); len(line) > maxInfo {
			return errors.New("the server's greeting is too long")
		}
	}
	text, ok := bytes.CutPrefix(line, []byte("INFO "))
	if !ok {
		return fmt.Errorf("the server greets with %.20q", line)
	}
	info := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &info); err != nil {
		return fmt.Errorf("the server's greeting: %w", err)
	}
	info["tls_required"] = json.RawMessage("true")
	if verify {
		info["tls_verify"] = json.RawMessage("true")
	}
	delete(info, "connect_urls") // the loopback's, which is another host's for the client
	out, err := json.Marshal(info)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(client, "INFO %s\r\n", out)
	return err
}

// splice copies both ways until one side ends.
func splice(a, b net.Conn) error {
	var group sync.WaitGroup
	var there error
	group.Go(func() {
		_, there = io.Copy(a, b)
		a.Close()
		b.Close()
	})
	_, back := io.Copy(b, a)
	a.Close()
	b.Close()
	group.Wait()
	return errors.Join(there, back)
}

// guests knows which of the server's connections came in at a door. Safe for concurrent use.
type guests struct {
	mu     sync.Mutex
	byAddr map[string]DoorKind
}

func newGuests() *guests { return &guests{byAddr: map[string]DoorKind{}} }

// add notes the address that the server sees, until gone is called.
func (g *guests) add(addr net.Addr, kind DoorKind) (gone func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.byAddr[addr.String()] = kind
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.byAddr, addr.String())
	}
}

// door is where a connection came in; empty for one of this host's own.
func (g *guests) door(addr net.Addr) DoorKind {
	if addr == nil {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.byAddr[addr.String()]
}
