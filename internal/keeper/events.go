package keeper

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
)

// Events subscribes to what happens to processes from now on. Subscribe first, then List, and trust an exited event
// over a list: both name the Run. The channel is closed when ctx is over, when the client or the keeper ends, and when
// the reader has fallen more than a thousand events behind; subscribe and List again then. Events come on a connection
// of their own, so a slow reader delays no call.
func (c *Client) Events(ctx context.Context) (<-chan Event, error) {
	conn, err := dial(ctx, c.path)
	if err != nil {
		return nil, err
	}
	in, err := subscribe(ctx, conn)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to keeper's events: %w", err), conn.Close())
	}
	events := make(chan Event)
	over := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, errors.Join(fmt.Errorf("subscribe to keeper's events: %w", net.ErrClosed), conn.Close())
	}
	c.wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-c.done:
		case <-over:
		}
		_ = conn.Close() // ends the reader below; nothing is left to say to the keeper
	})
	c.wg.Go(func() {
		defer close(over)
		defer close(events)
		for in.Scan() {
			var r Reply
			if json.Unmarshal(in.Bytes(), &r) != nil || r.Event == nil {
				return // not a keeper's line: the closed channel makes the reader subscribe again
			}
			select {
			case events <- *r.Event:
			case <-ctx.Done():
				return
			case <-c.done:
				return
			}
		}
	})
	return events, nil
}

// subscribe asks for events on a fresh connection and waits for the keeper's yes.
func subscribe(ctx context.Context, conn net.Conn) (*bufio.Scanner, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks the read below
	defer stop()
	line, err := encode(Request{ID: 1, Op: opEvents})
	if err != nil {
		return nil, err
	}
	if _, err := conn.Write(line); err != nil {
		return nil, err
	}
	in := lines(conn, maxReplyBytes)
	if !in.Scan() {
		return nil, errors.Join(context.Cause(ctx), in.Err(), errors.New("keeper closed the connection"))
	}
	var r Reply
	if err := json.Unmarshal(in.Bytes(), &r); err != nil {
		return nil, err
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return in, nil
}
