package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// hello is what a child of the process benchmark says of itself.
type hello struct {
	pid  int
	at   time.Duration // CLOCK_MONOTONIC, as monotonic returns it
	what string        // "start" or "flood"
}

// hellos hears the children of one contender. It is safe for concurrent use.
type hellos struct {
	conn *net.UnixConn
	done chan struct{} // closed when nothing is heard any more

	mu     sync.Mutex // guards everything that follows
	last   map[string]hello
	count  int
	change chan struct{} // closed at the next hello
	err    error
}

// hear opens a datagram socket at path.
func hear(path string) (*hellos, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("hear children: %w", err)
	}
	if err := conn.SetReadBuffer(1 << 20); err != nil { // a thousand may speak at once; a full buffer makes them wait
		return nil, errors.Join(err, conn.Close())
	}
	h := &hellos{conn: conn, done: make(chan struct{}), last: make(map[string]hello), change: make(chan struct{})}
	go h.run() // close waits for it
	return h, nil
}

func (h *hellos) run() {
	defer close(h.done)
	buf := make([]byte, 512)
	for {
		n, err := h.conn.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		name, said, parsed := parseHello(string(buf[:n]))
		h.mu.Lock()
		if err == nil {
			err = parsed
		}
		if err != nil {
			h.err = err
		} else {
			h.last[name] = said
			h.count++
		}
		close(h.change)
		h.change = make(chan struct{})
		h.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func parseHello(text string) (name string, h hello, err error) {
	fields := strings.Fields(text)
	if len(fields) != 4 {
		return "", hello{}, fmt.Errorf("a child says %q", text)
	}
	pid, err := strconv.Atoi(fields[1])
	if err != nil {
		return "", hello{}, fmt.Errorf("a child says %q: %w", text, err)
	}
	at, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return "", hello{}, fmt.Errorf("a child says %q: %w", text, err)
	}
	return fields[0], hello{pid, time.Duration(at), fields[3]}, nil
}

// await waits until met is true of what each child said last.
func (h *hellos) await(ctx context.Context, what string, met func(last map[string]hello) bool) error {
	for {
		h.mu.Lock()
		ok, changed, err := met(h.last), h.change, h.err
		h.mu.Unlock()
		if ok || err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, context.Cause(ctx))
		}
	}
}

// of returns what a child said last.
func (h *hellos) of(name string) hello {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last[name]
}

// heard is how often children spoke.
func (h *hellos) heard() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

func (h *hellos) close() error {
	err := h.conn.Close()
	<-h.done
	return err
}

// monotonic is the clock that children read as well.
func monotonic() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic("bench: internal error: no monotonic clock: " + err.Error())
	}
	return time.Duration(now.Nano())
}
