package task

import (
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/wire"
)

// framer puts tasks that need nothing of their own into one message. It is not safe for concurrent use.
type framer struct {
	builder *bus.Builder
	id      string
}

// builders are used again, since each has room for the longest table of offsets.
var builders = sync.Pool{New: func() any { return bus.NewBuilder(wire.CodecNone) }}

func newFramer() *framer { return &framer{builder: builders.Get().(*bus.Builder), id: newID()} }

// add adds a task and returns its id; false when the frame has no room for it.
func (f *framer) add(args []byte) (id string, ok bool) {
	n := f.builder.Len()
	if n == MaxAtomic || (n > 0 && f.builder.RawBytes()+len(args) >= bus.PlainFrameBytes) {
		return "", false
	}
	f.builder.Add(args)
	return wire.FramedID(f.id, n), true
}

func (f *framer) len() int { return f.builder.Len() }

// message is the frame as it is stored. It is valid until free.
func (f *framer) message(queue, kind string) *nats.Msg {
	return &nats.Msg{Subject: wire.FrameSubject(queue, kind, strconv.Itoa(f.len()), f.id), Data: f.builder.Frame()}
}

// free lets others use the memory. The message must be stored, or given up.
func (f *framer) free() {
	f.builder.Reset()
	builders.Put(f.builder)
}

// rides reports whether tasks of the kind with these options need nothing of their own: they may share a message.
func (k Kind[T]) rides(e *enqueue) bool {
	return !e.given && e.unique == "" && e.key == "" && e.ttl == 0 && e.at.IsZero() && e.priority == Normal && k.cfg.Keep == 0
}
