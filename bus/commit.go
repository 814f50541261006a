package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// commits knows how far the streams of durability power are on disk, by their JetStream names. Safe for concurrent use.
type commits struct {
	mu     sync.Mutex
	link   uint64 // reconnects when it was learned: another broker may have another stream
	synced map[string]uint64
}

func (k *commits) known(stream string, link uint64) uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.link != link {
		return 0
	}
	return k.synced[stream]
}

func (k *commits) learn(stream string, link, seq uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.link != link || k.synced == nil {
		k.link, k.synced = link, map[string]uint64{}
	}
	k.synced[stream] = max(k.synced[stream], seq)
}

// Link names the connection to the broker as it is now; it is another one after each reconnect.
//
// nats.go counts before anything goes over the new connection, which no handler of reconnects could.
func (c *Conn) Link() uint64 { return c.nc.Stats().Reconnects }

// Commit returns once everything that stream holds up to seq is on disk, which the broker does by one sync for all who
// wait. stream is its name in the manifest, and its durability is to be power: of others nothing was promised. link is
// what Link said before seq was learned, because the broker of another connection may have lost seq with the power and
// given it to another message. It is for programs that store by other means than this package, whose own publishers,
// stages and followers commit by themselves. The error is a fault bus/unavailable.
func (c *Conn) Commit(ctx context.Context, stream string, seq, link uint64) error {
	return c.commit(ctx, wire.StreamName(stream), seq, link)
}

func (c *Conn) commit(ctx context.Context, js string, seq, link uint64) error {
	_, changed := c.link()
	if c.Link() != link {
		return notCommitted(js, errNewLink)
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		select {
		case <-changed: // the answer will not come any more, or from a broker that knows nothing of seq
			cancel()
		case <-ctx.Done():
		}
	})
	msg, err := c.nc.RequestWithContext(ctx, wire.CommitSubject+"."+js, strconv.AppendUint(nil, seq, 10))
	if c.Link() != link {
		return notCommitted(js, errNewLink)
	}
	if err != nil {
		return notCommitted(js, err)
	}
	var done wire.Commit
	switch err := json.Unmarshal(msg.Data, &done); {
	case err != nil:
		return notCommitted(js, fmt.Errorf("decode the broker's answer: %w", err))
	case done.Error != "":
		return notCommitted(js, fmt.Errorf("the broker says: %s", done.Error))
	case done.Seq < seq:
		return notCommitted(js, fmt.Errorf("the stream ends at %d, before %d", done.Seq, seq))
	}
	c.commits.learn(js, link, done.Seq)
	return nil
}

var errNewLink = errors.New("the connection was made anew meanwhile")

func notCommitted(js string, err error) error {
	return &fault.Error{
		Code: CodeUnavailable, Where: js, Err: err,
		What: "what was written is not known to be on disk", Fix: "try again: a repeat is recognised",
	}
}

// CommitStored returns once what was stored on subject as seq is on disk, if that is what its stream promises to this
// service. link is as for Commit.
func (c *Conn) CommitStored(ctx context.Context, subject string, seq, link uint64) error {
	js, must := c.commitsOn(subject)
	if !must {
		return nil
	}
	return c.commit(ctx, js, seq, link)
}

// MustCommit reports whether what is stored on subject counts as stored only after CommitStored.
func (c *Conn) MustCommit(subject string) bool {
	_, must := c.commitsOn(subject)
	return must
}

// commitsOn reports whether what is stored on subject must be on disk before it counts as stored, and the stream's
// JetStream name. Parked events, retried ones and tasks must be when anything that this service reads or writes must:
// they stand for such events.
func (c *Conn) commitsOn(subject string) (js string, must bool) {
	if !c.powerful {
		return "", false // first: it is asked for every task
	}
	if rest, isTask := strings.CutPrefix(subject, wire.TaskStream+"."); isTask {
		queue, _, _ := strings.Cut(rest, ".")
		return wire.StreamName(wire.QueueStream(queue)), true
	}
	for _, platform := range []string{wire.DeadStream, wire.RetryStream, wire.RecordStream} {
		if strings.HasPrefix(subject, platform+".") {
			return wire.StreamName(platform), true
		}
	}
	route, err := c.route(subject)
	return wire.StreamName(route.Stream), err == nil && route.Power
}

// powerBatch gathers stored messages that must be on disk, to commit them by one request a stream.
type powerBatch struct {
	conn *Conn
	link uint64                 // from before they were sent
	msgs map[string][]*nats.Msg // by JetStream name; nil while there are none
	last map[string]uint64
}

func (b *powerBatch) add(msg *nats.Msg, seq uint64) {
	js, must := b.conn.commitsOn(msg.Subject)
	if !must {
		return
	}
	if b.msgs == nil {
		b.msgs, b.last = map[string][]*nats.Msg{}, map[string]uint64{}
	}
	b.msgs[js] = append(b.msgs[js], msg)
	b.last[js] = max(b.last[js], seq)
}

// commit returns the messages that are not known to be on disk, and why.
func (b *powerBatch) commit(ctx context.Context) (left []*nats.Msg, err error) {
	for js, last := range b.last {
		if e := b.conn.commit(ctx, js, last, b.link); e != nil {
			left, err = append(left, b.msgs[js]...), e
		}
	}
	return left, err
}

// powerful reports whether a grant has to do with streams of durability power.
func powerful(g wire.Grant) bool {
	return slices.ContainsFunc(g.Publish, func(r wire.Route) bool { return r.Power }) ||
		slices.ContainsFunc(g.Consumes, func(s wire.Source) bool { return s.Power })
}

// awaitPower waits until message seq of a stream of durability power is on disk, trying until ctx ends. Readers see
// nothing that the power could take back: its sequence would be given to another message, which they would pass over.
// It reports false when ctx ended, or when the message is not to be used because it came by another connection than the
// one there is now: it is delivered again if it still exists. power is whether the stream has that durability, link the
// connection that it came by.
func (c *Conn) awaitPower(ctx context.Context, power bool, js string, seq, link uint64) bool {
	if !power {
		return true
	}
	for attempt := 0; c.Link() == link; attempt++ {
		if seq <= c.commits.known(js, link) {
			return true
		}
		err := c.commit(ctx, js, seq, link)
		if err == nil {
			return true
		}
		if attempt == 1 && ctx.Err() == nil {
			c.log.WarnContext(ctx, "waiting for the disk", "stream", js, "seq", seq, "error", err)
		}
		if !sleep(ctx, min(retryDelay(attempt), 250*time.Millisecond)) {
			return false
		}
	}
	return false
}
