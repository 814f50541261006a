package task

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// lookAge is how old the known depth of a queue may be.
const lookAge = time.Second

// admission keeps the bound of one queue for one connection. The broker cannot: a stream with schedules does not refuse.
type admission struct {
	conn  *bus.Conn
	queue wire.TaskQueue
	max   int64
	paced atomic.Bool // tasks wait in it until they are let out

	mu     sync.Mutex
	depth  int64     // when it was looked at last
	looked time.Time // zero: never
	stream jetstream.Stream
	credit int64 // how many may be stored before the next look
}

type admissionKey struct{ queue string }

func admissionOf(c *bus.Conn, queue wire.TaskQueue) *admission {
	return c.Attach(admissionKey{queue.Name}, func() any {
		return &admission{conn: c, queue: queue, max: cmp.Or(queue.Max, DefaultMax)}
	}).(*admission)
}

// admit takes n places, or says that the queue is full. While the broker is away it tries until ctx ends.
func (a *admission) admit(ctx context.Context, n int64) error {
	for try := 0; ; try++ {
		err := a.admitOnce(ctx, n)
		if fault.Code(err) != bus.CodeUnavailable || !sleep(ctx, min(storeRetryFirst<<min(try, 10), storeRetryMost)) {
			return err
		}
	}
}

func (a *admission) admitOnce(ctx context.Context, n int64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.credit >= n && time.Since(a.looked) < lookAge {
		a.credit -= n
		return nil
	}
	look, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	info, err := a.look(look)
	if err != nil {
		return &fault.Error{
			Code: bus.CodeUnavailable, What: "the depth of the queue is not known", Where: "queue " + a.queue.Name, Err: err,
			Fix: "see hozo status; it works again when the broker is back",
		}
	}
	a.paced.Store(info.Config.Metadata[wire.MetaPaced] != "")
	frames, tasks := wire.FramedTasks(info.State.Subjects, "*")
	a.depth, a.looked = int64(info.State.Msgs-frames+tasks), time.Now() //nolint:gosec // a stream holds fewer than 2^63 messages
	left := a.max - a.depth
	if left < n {
		a.credit = 0
		return &fault.Error{
			Code: CodeQueueFull, What: fmt.Sprintf("%d tasks are in the queue, and %d is its bound", a.depth, a.max), Where: "queue " + a.queue.Name,
			Fix: "enqueue later, add workers, or raise max of the queue in hozo.yaml",
		}
	}
	a.credit = max(left/10, n) - n // others enqueue, too
	return nil
}

// look asks the broker how many messages the queue holds, and which frames.
func (a *admission) look(ctx context.Context) (*jetstream.StreamInfo, error) {
	if a.stream == nil {
		stream, err := a.conn.JetStream().Stream(ctx, wire.StreamName(wire.QueueStream(a.queue.Name)))
		if err != nil {
			return nil, err
		}
		a.stream = stream
	}
	return a.stream.Info(ctx, jetstream.WithSubjectFilter(wire.QueueFrames(a.queue.Name)))
}
