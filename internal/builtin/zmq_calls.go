package builtin

import (
	"cmp"
	"context"
	"errors"
	"os"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/zmtp"
)

// zmqCalls puts the requests of REQ and DEALER peers to a call, one after the other for each peer. An answer is one part,
// or parts with multipart; a failure is three: an empty one, the fault's code and what went wrong.
type zmqCalls struct {
	*zmqDoor
	conn      *bus.Conn
	call      bus.Call[[]byte, []byte]
	multipart bool
}

func newZMQCalls(conn *bus.Conn, z manifest.ZMQSocket, door *zmqDoor) *zmqCalls {
	return &zmqCalls{zmqDoor: door, conn: conn, call: bus.NewCall[[]byte, []byte](z.Rep), multipart: z.Multipart}
}

// Run answers until ctx ends, requests that it has read included.
func (c *zmqCalls) Run(ctx context.Context) error {
	work, end := outlive(ctx, zmqGrace)
	defer end()
	return c.serve(ctx, func(ctx context.Context, peer *zmtp.Conn) error { return c.answer(ctx, work, peer) })
}

func (c *zmqCalls) answer(ctx, work context.Context, peer *zmtp.Conn) error {
	var m zmtp.Message
	var out, event []byte
	for {
		sub, err := peer.ReadMessage(&m)
		if errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil {
			return errStopping
		}
		if err != nil {
			return err
		}
		if sub != nil {
			continue
		}
		parts := partsOf(&m, 0)
		body := 0 // behind the envelope, which ends in an empty part
		for body < len(parts) && len(parts[body]) > 0 {
			body++
		}
		if body++; body >= len(parts) {
			c.conn.Counters().Dropped.Add(1)
			c.complain(ctx, "message left out", errors.New("a request without an empty part before its body"))
			continue // as libzmq does
		}
		var answer [][]byte
		if event, err = eventOf(parts[body:], c.multipart, event[:0]); err == nil {
			answer, err = c.ask(work, event)
		}
		if err != nil {
			answer = [][]byte{nil, []byte(cmp.Or(fault.Code(err), "zmq/request")), []byte(err.Error())}
		}
		out = zmtp.AppendMessage(out[:0], append(parts[:body:body], answer...)...)
		if err := peer.Write(out); err != nil {
			return err
		}
	}
}

func (c *zmqCalls) ask(ctx context.Context, request []byte) ([][]byte, error) {
	done := c.conn.Counters().Working()
	defer done()
	answer, err := c.call.Ask(ctx, c.conn, request)
	if err != nil {
		return nil, err
	}
	return messageOf(answer, c.multipart)
}
