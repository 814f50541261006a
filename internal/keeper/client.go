package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/hozo-dev/hozo/fault"
)

// writeTime bounds the write of one request, which the keeper reads at once unless it hangs.
const writeTime = 10 * time.Second

// Client talks to a keeper. It is safe for concurrent use. Errors of the keeper are *fault.Error with its code; every
// other error means that the connection is gone or that ctx is over, and then the request may or may not have been
// carried out.
type Client struct {
	path string
	conn net.Conn
	done chan struct{}
	wg   sync.WaitGroup // the reader and the readers of Events

	writing sync.Mutex // one request a line: held over a write

	mu      sync.Mutex
	last    uint64
	pending map[uint64]chan Reply

	closed bool  // nothing joins wg any more
	cause  error // why the connection ended; written by read before it closes done
}

// Dial connects to the keeper that listens at a socket path. When none does, the error is the fault keeper/not-running.
func Dial(ctx context.Context, socketPath string) (*Client, error) {
	conn, err := dial(ctx, socketPath)
	if err != nil {
		return nil, err
	}
	c := &Client{
		path:    socketPath,
		conn:    conn,
		done:    make(chan struct{}),
		pending: map[uint64]chan Reply{},
	}
	c.wg.Go(c.read)
	return c, nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) {
		e := failure("not-running", "no keeper runs", "hozo up", err)
		e.Where = path
		return nil, e
	}
	if err != nil {
		return nil, fmt.Errorf("connect to keeper: %w", err)
	}
	return conn, nil
}

// Done is closed when the connection has ended: by Close, or because the keeper did.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection and every channel of Events, and waits for their goroutines.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	err := c.conn.Close()
	c.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil // the keeper was first
	}
	return err
}

// Hello asks who the keeper is.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	r, err := c.call(ctx, Request{Op: opHello})
	if err == nil && r.Hello == nil {
		err = errors.New("keeper answered hello without one")
	}
	if err != nil {
		return Hello{}, err
	}
	return *r.Hello, nil
}

// Spawn starts a process and returns its record. Faults: keeper/name-taken, keeper/no-binary, keeper/not-executable,
// keeper/no-dir, keeper/unknown-user, keeper/not-permitted, keeper/no-socket, keeper/log, keeper/bad-request,
// keeper/stopping, keeper/no-resources, keeper/spawn.
func (c *Client) Spawn(ctx context.Context, s Spawn) (Process, error) {
	return c.process(ctx, Request{Op: opSpawn, Spawn: &s})
}

// Signal sends a signal to a process, or with group to its whole process group. Faults: keeper/no-process,
// keeper/not-running, keeper/bad-request.
func (c *Client) Signal(ctx context.Context, name string, sig syscall.Signal, group bool) error {
	_, err := c.call(ctx, Request{Op: opSignal, Signal: &Signal{Name: name, Number: int(sig), Group: group}})
	return err
}

// Limit changes the limits of a process and its tree while they run, and returns the process with those that are not
// kept. Faults: keeper/no-process, keeper/not-running.
func (c *Client) Limit(ctx context.Context, name string, l Limits) (Process, error) {
	r, err := c.call(ctx, Request{Op: opLimit, Limit: &Limit{Name: name, Limits: l}})
	if err != nil {
		return Process{}, err
	}
	if r.Process == nil {
		return Process{}, fmt.Errorf("limit %s: the keeper answered without a process", name)
	}
	return *r.Process, nil
}

// Kill ends a process with its whole tree and returns when nothing of it is left; what could not be killed within 5s is
// in Exit.Survivors of its record. Killing a dead process does nothing. Faults: keeper/no-process, keeper/unkillable.
func (c *Client) Kill(ctx context.Context, name string) error {
	_, err := c.call(ctx, Request{Op: opKill, Name: name})
	return err
}

// List returns every process that is not forgotten, and every socket, both by name.
func (c *Client) List(ctx context.Context) ([]Process, []Socket, error) {
	r, err := c.call(ctx, Request{Op: opList})
	return r.Processes, r.Sockets, err
}

// Forget drops the record of a dead process, which frees its name. Faults: keeper/no-process, keeper/still-running.
func (c *Client) Forget(ctx context.Context, name string) error {
	_, err := c.call(ctx, Request{Op: opForget, Name: name})
	return err
}

// Listen opens a socket under a name, or returns the one that is open under that name at the same address. Faults:
// keeper/address-in-use, keeper/socket-exists (another address under that name), keeper/listen, keeper/bad-request.
func (c *Client) Listen(ctx context.Context, l Listen) (Socket, error) {
	r, err := c.call(ctx, Request{Op: opListen, Listen: &l})
	if err == nil && len(r.Sockets) != 1 {
		err = errors.New("keeper answered listen without a socket")
	}
	if err != nil {
		return Socket{}, err
	}
	return r.Sockets[0], nil
}

// Unlisten closes a socket; processes that inherited it keep theirs. Fault: keeper/no-socket.
func (c *Client) Unlisten(ctx context.Context, name string) error {
	_, err := c.call(ctx, Request{Op: opUnlisten, Name: name})
	return err
}

// Upgrade replaces a part of the platform; see Upgrade. That the connection ends is no error: the keeper has begun. Faults:
// keeper/skew, keeper/no-standby, keeper/no-binary, keeper/not-executable, keeper/no-process, keeper/stopping,
// keeper/bad-request.
func (c *Client) Upgrade(ctx context.Context, u Upgrade) error {
	_, err := c.call(ctx, Request{Op: opUpgrade, Upgrade: &u})
	select {
	case <-c.done:
		if fault.Code(err) == "" && u.Part == PartKeeper {
			return nil
		}
	default:
	}
	return err
}

// Unstore drops the descriptors that are kept for a process's next run. A keeper that knows no such store, which is
// keeper/unknown-op, keeps none.
func (c *Client) Unstore(ctx context.Context, name string) error {
	_, err := c.call(ctx, Request{Op: opUnstore, Name: name})
	return err
}

// SetLog changes how a process is logged while it runs; the path cannot change. Faults: keeper/no-process,
// keeper/bad-request.
func (c *Client) SetLog(ctx context.Context, name string, l Log) error {
	_, err := c.call(ctx, Request{Op: opLog, Name: name, Log: &l})
	return err
}

// Rotate begins a new file of a process's log, at a line's end if one comes within a second, and returns when that is
// done. An empty log stays as it is. Faults: keeper/no-process, keeper/log, keeper/not-rotated (its output goes to no
// file).
func (c *Client) Rotate(ctx context.Context, name string) error {
	_, err := c.call(ctx, Request{Op: opRotate, Name: name})
	return err
}

// Shutdown asks the keeper to stop everything, and returns when it has agreed. Done tells when it is finished.
func (c *Client) Shutdown(ctx context.Context) error {
	_, err := c.call(ctx, Request{Op: opShutdown})
	return err
}

func (c *Client) process(ctx context.Context, req Request) (Process, error) {
	r, err := c.call(ctx, req)
	if err == nil && r.Process == nil {
		err = fmt.Errorf("keeper answered %s without a process", req.Op)
	}
	if err != nil {
		return Process{}, err
	}
	return *r.Process, nil
}

// call sends a request and waits for its reply.
func (c *Client) call(ctx context.Context, req Request) (Reply, error) {
	answer := make(chan Reply, 1) // one reply: the reader never waits for a caller that gave up
	c.mu.Lock()
	c.last++
	req.ID = c.last
	c.pending[req.ID] = answer
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.pending, req.ID)
	}()
	if err := c.send(req); err != nil {
		return Reply{}, fmt.Errorf("ask keeper to %s: %w", req.Op, err)
	}
	select {
	case r := <-answer:
		return r, r.err()
	case <-ctx.Done():
		return Reply{}, fmt.Errorf("await keeper's answer to %s: %w", req.Op, context.Cause(ctx))
	case <-c.done:
	}
	select {
	case r := <-answer: // it came just before the end
		return r, r.err()
	default:
		return Reply{}, fmt.Errorf("await keeper's answer to %s: %w", req.Op, c.cause)
	}
}

func (c *Client) send(req Request) error {
	line, err := encode(req)
	if err != nil {
		return err
	}
	if len(line) > maxRequestBytes {
		return misuse("too-long", fmt.Sprintf("request is %d bytes long, at most %d are allowed", len(line), maxRequestBytes), "")
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	if _, err := c.conn.Write(line); err != nil {
		_ = c.conn.Close() // half a line may be on the wire: the connection is of no more use
		return err
	}
	return nil
}

// read hands replies to their callers until the connection ends.
func (c *Client) read() {
	defer close(c.done)
	defer c.conn.Close()
	in := lines(c.conn, maxReplyBytes)
	for in.Scan() {
		var r Reply
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			c.cause = fmt.Errorf("read keeper's answer: %w", err)
			return
		}
		c.mu.Lock()
		answer := c.pending[r.ID]
		delete(c.pending, r.ID) // a second reply would block below
		c.mu.Unlock()
		if answer != nil {
			answer <- r
		}
	}
	c.cause = in.Err()
	if c.cause == nil {
		c.cause = errors.New("keeper closed the connection")
	}
}
