package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// lease is the right of this process to work on one partition. It ends by being handed over, which lets what is in hand
// be finished, or by being lost, which does not.
type lease struct {
	o    *ownership
	p    int
	take context.Context //nolint:containedctx // ends when no more is to be taken
	work context.Context //nolint:containedctx // ends when nothing may be done any more

	handOver context.CancelFunc
	abandon  context.CancelCauseFunc

	turn   sync.Mutex        // held while a frame or a retried event is worked on
	fences map[string]uint64 // by stream, the sequence of this lease's fence; guarded by turn

	doubts  map[string]*doubt // by stream; guarded by turn
	storing map[string]uint64 // by stream, where the newest output of the frame in hand is; guarded by turn

	epoch uint64
	done  atomic.Uint64 // everything up to here is settled; recorded by commit
	tail  uint64        // the stream's last sequence when the lease began

	inherited *wire.GivenUp // what an earlier owner has given up

	at     sync.Mutex
	stored map[string]uint64 // of the record that is made next; guarded by at

	mu        sync.Mutex
	rec       ownerRecord
	committed func(uint64)                                // told what is recorded
	snapshot  func() (done uint64, state json.RawMessage) // what is to be recorded
}

func newLease(o *ownership, work context.Context, rec ownerRecord) *lease {
	l := &lease{
		o: o, p: rec.Partition, rec: rec, epoch: rec.Epoch, fences: make(map[string]uint64), committed: func(uint64) {},
		doubts: make(map[string]*doubt), storing: make(map[string]uint64), stored: make(map[string]uint64),
	}
	maps.Copy(l.stored, rec.Stored)
	l.inherited = rec.GivenUp
	l.done.Store(rec.Done)
	l.snapshot = func() (uint64, json.RawMessage) { return l.done.Load(), l.rec.State }
	l.work, l.abandon = context.WithCancelCause(work)
	l.take, l.handOver = context.WithCancel(l.work)
	return l
}

// valid reports whether anything may still be done in the name of the lease.
func (l *lease) valid() bool {
	if l.work.Err() != nil {
		return false
	}
	if !l.o.valid() {
		l.lose()
		return false
	}
	return true
}

func (l *lease) lose() { l.abandon(errLost) }

// commit records what is done.
func (l *lease) commit(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	done, state := l.snapshot()
	if (done > l.rec.Done || !bytes.Equal(state, l.rec.State)) && l.valid() {
		_ = l.replaceLocked(ctx, l.rec.Member) // it is tried again
	}
}

// record is commit for those who have to know that it is done.
func (l *lease) record(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.valid() {
		return errLost
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	return l.replaceLocked(ctx, l.rec.Member)
}

// end gives the partition back for others, with everything recorded.
func (l *lease) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.work.Err() == nil || l.o.valid() && context.Cause(l.work) != error(errLost) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(l.work), recordTimeout)
		defer cancel()
		_ = l.replaceLocked(ctx, "") // else the others wait until this member is dead
		l.o.tell()
	}
	l.abandon(nil)
}

func (l *lease) replaceLocked(ctx context.Context, member string) error {
	next := l.rec
	next.Member = member
	next.Stored = l.storedUntil() // before what is done: it may name an earlier place than it could, and not a later one
	next.Done, next.State = l.snapshot()
	if next.GivenUp != nil && next.GivenUp.Seq <= next.Done {
		next.GivenUp = nil
	}
	err := l.o.replace(ctx, &next)
	switch {
	case err == nil:
		l.rec = next
		l.committed(next.Done)
	case fault.Code(err) == CodeNotOwner:
		l.lose()
	}
	return err
}

// noFence stands for the fence in a stream that has no room for it and drops what is newest.
const noFence = math.MaxUint64

// raise puts this lease's fences into the streams, so that nothing of an earlier owner can be stored there any more, and
// then makes sure that there is no later owner. Whoever becomes one afterwards raises its own fences behind these.
func (l *lease) raise(ctx context.Context, streams []string) error {
	for _, stream := range streams {
		earlier, err := l.earlierFence(ctx, stream)
		if err != nil {
			return err
		}
		ack, err := l.o.conn.publishOnce(ctx, &nats.Msg{
			Subject: l.fence(stream),
			Header:  nats.Header{wire.HeaderEpoch: {strconv.FormatUint(l.epoch, 10)}},
		}, nil)
		if fault.Code(err) == CodeStreamFull && l.o.conn.dropsNewest(stream) {
			l.fences[stream] = noFence
			continue
		}
		if err != nil {
			return fmt.Errorf("raise a fence in %s: %w", stream, err)
		}
		l.fences[stream] = ack.Sequence
		l.beginDoubt(stream, ack.Sequence, earlier)
	}
	have, ok, err := l.o.record(ctx, l.p)
	if err != nil {
		return err
	}
	if !ok || have.Epoch != l.epoch || have.Member != l.o.member {
		l.lose()
		return errLost
	}
	return nil
}

// earlierFence returns the sequence of the newest fence in a stream that the record does not name; 0 means none.
func (l *lease) earlierFence(ctx context.Context, stream string) (uint64, error) {
	if _, known := l.storedUntil()[stream]; known {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	msgs, err := l.o.conn.lastMessages(ctx, stream, l.fence(stream))
	if err != nil || len(msgs) == 0 {
		return 0, err
	}
	return msgs[0].seq, nil
}

func (l *lease) fence(stream string) string {
	return wire.FenceSubject(stream, l.o.conn.cfg.Grant.Service, l.o.src.Stream, l.p)
}

// condition makes a message one that is stored only while this lease's fence is the last.
func (l *lease) condition(msg *nats.Msg, stream string) {
	msg.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(l.fences[stream], 10)}
	msg.Header[jetstream.ExpectedLastSubjSeqSubjHeader] = []string{l.fence(stream)}
	msg.Header[wire.HeaderEpoch] = []string{strconv.FormatUint(l.epoch, 10)}
}
