package keeper

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxInFlight bounds the requests of one connection that have no reply on the wire yet; no more are read.
	maxInFlight = 16
	// maxEventsBehind is how many events a client may be behind before its connection is closed. At some 600 bytes an
	// event it costs less than 1 MiB a client.
	maxEventsBehind = 1024
	// flushTime bounds the last write to a client when the keeper ends.
	flushTime = time.Second
)

// conn is a client's connection. Replies and events wait in one queue, so they come in the order they happened, and
// nothing ever waits for a slow client.
type conn struct {
	net    net.Conn
	queue  chan message
	slots  chan struct{} // one for each request in flight
	behind atomic.Int64  // events in the queue

	once  sync.Once
	gone  chan struct{} // closed with the connection
	flush chan struct{} // closed by the keeper's end: write what is queued, then close
}

type message struct {
	line  []byte
	event bool
}

// serve talks to one client until either side ends.
func (k *Keeper) serve(ctx context.Context, c net.Conn) {
	cn := &conn{
		net:   c,
		queue: make(chan message, maxInFlight+maxEventsBehind), // room for all that slots and behind allow
		slots: make(chan struct{}, maxInFlight),
		gone:  make(chan struct{}),
		flush: make(chan struct{}),
	}
	if !k.enrol(cn) {
		cn.close()
		return
	}
	var wg sync.WaitGroup
	wg.Go(cn.write)
	k.read(ctx, cn, &wg)
	// What was asked before the client closed its side is still answered.
	for range maxInFlight {
		select {
		case cn.slots <- struct{}{}:
		case <-cn.gone:
		}
	}
	cn.close()
	wg.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.conns, cn)
	delete(k.watchers, cn)
}

func (k *Keeper) enrol(cn *conn) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conns == nil {
		return false // closeConns was here
	}
	k.conns[cn] = true
	return true
}

// closeConns sends every client what it has to get, and ends.
func (k *Keeper) closeConns() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for cn := range k.conns {
		_ = cn.net.SetWriteDeadline(time.Now().Add(flushTime)) // fails only for one that is closed already
		close(cn.flush)
	}
	k.conns = nil
}

// read takes requests until the connection ends. A line that is no request is answered, one that is too long is the end.
func (k *Keeper) read(ctx context.Context, cn *conn, wg *sync.WaitGroup) {
	in := lines(cn.net, maxRequestBytes)
	for in.Scan() {
		select {
		case cn.slots <- struct{}{}:
		case <-cn.gone:
			return
		}
		var req Request
		if err := json.Unmarshal(in.Bytes(), &req); err != nil {
			cn.reply(errorReply(0, misuse("bad-request", fmt.Sprintf("not a request: %v", err), "")))
			continue
		}
		if req.Op == opEvents {
			k.watch(cn, req.ID)
			continue
		}
		if req.Op == opKill || req.Op == opRotate || req.Op == opUnlisten {
			wg.Go(func() { cn.reply(k.answer(ctx, req)) }) // take seconds; the others must not wait
			continue
		}
		cn.reply(k.answer(ctx, req))
	}
	if in.Err() != nil {
		cn.close()
	}
}

// watch makes the client one that gets events. The lock is held so that none comes before the reply.
func (k *Keeper) watch(cn *conn, id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watchers[cn] = true
	cn.reply(Reply{ID: id})
}

// answer carries a request out.
func (k *Keeper) answer(ctx context.Context, req Request) Reply {
	reply, err := k.do(ctx, req)
	if err != nil {
		return errorReply(req.ID, err)
	}
	reply.ID = req.ID
	return reply
}

// reply queues the answer to a request; its slot keeps a place for it.
func (cn *conn) reply(r Reply) {
	line, err := encode(r)
	if err != nil {
		cn.close() // our own types always encode
		return
	}
	cn.queue <- message{line: line}
}

// event queues an event, or closes the connection of a client that does not read.
func (cn *conn) event(line []byte) {
	if cn.behind.Add(1) > maxEventsBehind {
		cn.close()
		return
	}
	cn.queue <- message{line: line, event: true}
}

// write sends what is queued until the connection ends.
func (cn *conn) write() {
	defer cn.close()
	for {
		select {
		case m := <-cn.queue:
			if !cn.send(m) {
				return
			}
		case <-cn.gone:
			return
		case <-cn.flush:
			for {
				select {
				case m := <-cn.queue:
					if !cn.send(m) {
						return
					}
				default:
					return
				}
			}
		}
	}
}

func (cn *conn) send(m message) bool {
	_, err := cn.net.Write(m.line)
	if m.event {
		cn.behind.Add(-1)
	} else {
		<-cn.slots
	}
	return err == nil
}

func (cn *conn) close() {
	cn.once.Do(func() {
		close(cn.gone)
		_ = cn.net.Close() // the client sees the end; there is nobody to tell an error to
	})
}

// emitLocked gives an event to every client that asked for events.
func (k *Keeper) emitLocked(e Event) {
	if len(k.watchers) == 0 {
		return
	}
	line, err := encode(Reply{Event: &e})
	if err != nil {
		k.log.Error("event not encoded", "kind", e.Kind, "error", err)
		return
	}
	for cn := range k.watchers {
		cn.event(line)
	}
}
