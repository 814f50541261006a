package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// followBytes bounds what a Follower has read ahead: some 200 target frames at the usual ratio.
	followBytes  = 8 << 20
	followWindow = 256

	// followAckWait keeps the broker from delivering again by itself: a Follower asks anew when it has doubts.
	followAckWait = time.Hour

	// followCalm is how long the flow must have lasted for an interruption to count as the first: several heartbeats.
	followCalm = 10 * time.Second
)

// Follower reads a source strictly in order. Next and Close are for one goroutine; Commit and Pending for any.
type Follower struct {
	following
	conn   *Conn
	log    *slog.Logger
	src    wire.Source
	stream string // JetStream name
	pull   *puller
	cfg    jetstream.ConsumerConfig
	early  *nats.Msg // came when ctx ended before it was on disk; nil most of the time
	expect uint64    // consumer sequence of the next message
	last   uint64    // stream sequence of the last frame returned

	breaks   int       // how often the flow was interrupted since the last frame
	began    time.Time // when the consumer was last made anew
	notUntil time.Time // when it may be made anew again

	mu        sync.Mutex
	returned  uint64     // the last frame that Next returned
	skipped   uint64     // the last message behind it that holds no event
	committed uint64     // what the caller is done with: never begin behind it, the broker may drop what is before
	unacked   []ackPoint // of frames delivered by the consumer as it is now, in order
	pending   uint64
}

// ackPoint is where a position is acknowledged.
type ackPoint struct {
	seq   uint64
	reply string
}

// Follow begins to read src after the frame with sequence after, which is the caller's own watermark; 0 begins at the
// stream's first. It waits until the consumer stands, or fails with bus/unavailable when ctx ends. When frames behind
// the watermark were dropped unread by the stream's limits, that is logged as bus/gap and reading begins at the first
// that is left.
func (c *Conn) Follow(ctx context.Context, src wire.Source, after uint64) (*Follower, error) {
	return c.follow(ctx, src.Readers()[0], after, following{window: followWindow, may: func() bool { return true }})
}

// following is what a Follower of a partition has of its own.
type following struct {
	window int         // most frames read ahead
	may    func() bool // says whether the consumer may be placed anew
	memory bool        // the consumer need not outlive the broker: its position is recorded elsewhere
}

func (c *Conn) follow(ctx context.Context, src wire.Source, after uint64, how following) (*Follower, error) {
	f := &Follower{
		conn: c, following: how, src: src, stream: wire.StreamName(src.Stream), last: after, committed: after,
		log: c.log.With("stream", src.Stream, "durable", src.Durable),
	}
	for attempt := 0; ; attempt++ {
		err := f.begin(ctx)
		if err == nil {
			return f, nil
		}
		if fault.Code(err) == CodeStreamReset {
			return nil, err
		}
		if attempt == 0 && ctx.Err() == nil {
			f.log.InfoContext(ctx, "waiting for the stream", "error", err)
		}
		if !sleep(ctx, retryDelay(attempt)) {
			return nil, ended(ctx, src.Stream, err)
		}
	}
}

// begin compares the watermark with the stream and sets the consumer to it.
func (f *Follower) begin(ctx context.Context) error {
	stream, err := f.conn.js.Stream(ctx, f.stream)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", f.stream, err)
	}
	state := stream.CachedInfo().State
	switch {
	case f.last > state.LastSeq:
		return &fault.Error{
			Code: CodeStreamReset, Where: f.src.Stream,
			What: fmt.Sprintf("everything up to frame %d is done already, but the stream ends at %d: it was made anew", f.last, state.LastSeq),
			Fix:  "give the sink a new target, or clear the position in the old one",
		}
	case f.last > 0 && state.FirstSeq > f.last+1:
		f.warnGap(ctx, f.last+1, state.FirstSeq)
	}
	kept, err := f.resume(ctx)
	if err != nil || kept {
		return err
	}
	return f.recreate(ctx)
}

// resume keeps the consumer as it is when it stands exactly behind the watermark.
func (f *Follower) resume(ctx context.Context) (kept bool, err error) {
	f.cfg = f.defaultConfig()
	consumer, err := f.conn.js.Consumer(ctx, f.stream, f.src.Durable)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up consumer %s: %w", f.src.Durable, err)
	}
	info := consumer.CachedInfo()
	same := info.Config.AckPolicy == f.cfg.AckPolicy && info.Config.MemoryStorage == f.cfg.MemoryStorage && info.Config.FilterSubject == f.cfg.FilterSubject &&
		slices.Equal(info.Config.FilterSubjects, f.cfg.FilterSubjects)
	kept = same && info.AckFloor.Stream == f.last && info.Delivered.Stream == f.last && info.NumAckPending == 0
	if kept {
		f.listen(info.Delivered.Consumer)
	}
	return kept, nil
}

// defaultConfig is the consumer that the platform makes for an ordered source.
func (f *Follower) defaultConfig() jetstream.ConsumerConfig {
	cfg := jetstream.ConsumerConfig{
		Durable: f.src.Durable, AckPolicy: jetstream.AckAllPolicy, AckWait: followAckWait,
		MaxDeliver: -1, MaxAckPending: -1, MemoryStorage: f.memory,
	}
	if len(f.src.Subjects) == 1 {
		cfg.FilterSubject = f.src.Subjects[0]
	} else {
		cfg.FilterSubjects = f.src.Subjects
	}
	return cfg
}

// restart makes the consumer anew behind the last position committed, trying until ctx ends. It begins there and not
// behind the last frame returned, because a consumer's position tells the broker what may be dropped.
func (f *Follower) restart(ctx context.Context) error {
	if pause := time.Until(f.notUntil); pause > 0 && !sleep(ctx, pause) {
		return ended(ctx, f.src.Stream, errBroken)
	}
	f.began = time.Now()
	for attempt := 0; ; attempt++ {
		err := f.recreate(ctx)
		if err == nil {
			return nil
		}
		if !sleep(ctx, retryDelay(attempt)) {
			return ended(ctx, f.src.Stream, err)
		}
	}
}

func (f *Follower) recreate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	if !f.may() {
		return errLost
	}
	err := f.conn.js.DeleteConsumer(ctx, f.stream, f.src.Durable)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("delete consumer %s: %w", f.src.Durable, err)
	}
	f.mu.Lock()
	committed := f.committed
	f.unacked = nil // acknowledgements of the consumer as it was would mean something else to the next one
	f.mu.Unlock()
	f.cfg.DeliverPolicy, f.cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, committed+1
	if committed == 0 {
		f.cfg.DeliverPolicy, f.cfg.OptStartSeq = jetstream.DeliverAllPolicy, 0
	}
	if _, err := f.conn.js.CreateConsumer(ctx, f.stream, f.cfg); err != nil {
		return fmt.Errorf("create consumer %s: %w", f.src.Durable, err)
	}
	f.listen(0)
	return nil
}

// listen begins to pull from a consumer that has delivered so many messages.
func (f *Follower) listen(delivered uint64) {
	f.expect = delivered + 1
	f.pull = newPuller(f.conn, f.stream, f.src.Durable, followBytes, func() int { return f.window })
	f.pull.strict, f.pull.got = true, delivered
}

// stop ends pulling.
func (f *Follower) stop() {
	if f.pull != nil {
		f.pull.abandon()
		f.pull, f.early = nil, nil
	}
}

// interrupted gives up the consumer as it is, because something may have gone elsewhere or got lost.
//
// Two readers of one consumer take it from each other, each by making it anew. They do so at growing intervals, so that
// each gets its turn; one of them is meant to end, by its target.
func (f *Follower) interrupted() {
	f.stop()
	if time.Since(f.began) > followCalm {
		f.breaks = 0
	}
	if f.breaks++; f.breaks > 1 {
		pause := retryDelay(f.breaks)
		f.notUntil = time.Now().Add(pause/2 + rand.N(pause))
	}
}

// warnGap tells that the stream's limits dropped frames before they were read.
func (f *Follower) warnGap(ctx context.Context, want, got uint64) {
	f.log.WarnContext(ctx, "frames were dropped by the stream's limits before they were read",
		"code", CodeGap, "first_lost", want, "first_left", got)
}

// Next returns the next frame. It never repeats or leaves out one, whatever happens to the connection and the broker;
// it waits as long as ctx lasts and then returns its cause. A damaged frame gives the fault bus/bad-frame together with
// a Frame that holds only its name and its stored bytes as one event; the Follower goes on behind it.
func (f *Follower) Next(ctx context.Context) (*Frame, error) {
	for {
		if f.pull == nil {
			if err := f.restart(ctx); err != nil {
				return nil, err
			}
		}
		msg, err := f.take(ctx)
		if errors.Is(err, errBroken) {
			f.interrupted()
			continue
		}
		if err != nil {
			return nil, err
		}
		meta, err := msg.Metadata()
		if err != nil {
			return nil, fmt.Errorf("read message metadata: %w", err)
		}
		seq := meta.Sequence.Stream
		switch {
		case meta.Sequence.Consumer != f.expect || meta.NumDelivered != 1:
			f.interrupted() // something went missing on the way, or comes again
			continue
		case seq <= f.last: // returned before the consumer was made anew
			f.expect++
			f.note(msg, meta)
			continue
		case f.last > 0 && seq != f.last+1 && len(f.src.Subjects) == 0:
			f.warnGap(ctx, f.last+1, seq)
		}
		if !f.conn.awaitPower(ctx, f.src.Power, f.stream, seq, f.pull.link) {
			if ctx.Err() == nil {
				f.interrupted()
				continue
			}
			f.early = msg
			return nil, context.Cause(ctx)
		}
		f.expect++
		f.last, f.breaks = seq, 0
		if wire.IsFence(f.src.Stream, msg.Subject) {
			f.skip(msg, meta)
			continue
		}
		return f.accept(msg, meta)
	}
}

// take returns the next message of the consumer: one that came before it was on disk, or a new one.
func (f *Follower) take(ctx context.Context) (*nats.Msg, error) {
	if msg := f.early; msg != nil {
		f.early = nil
		return msg, nil
	}
	return f.pull.next(ctx)
}

func (f *Follower) accept(msg *nats.Msg, meta *nats.MsgMetadata) (*Frame, error) {
	f.note(msg, meta)
	f.mu.Lock()
	f.returned = meta.Sequence.Stream
	f.mu.Unlock()
	frame := &Frame{
		Stream: f.src.Stream, Subject: published(f.src.Stream, msg.Subject), Header: msg.Header,
		Seq: meta.Sequence.Stream, Time: meta.Timestamp, pending: meta.NumPending,
	}
	err := frame.parse(msg.Data)
	if err != nil {
		frame.framed, frame.plain = false, msg.Data
	}
	return frame, err
}

// skip passes over a message that holds no event. It is acknowledged with the frame before it.
func (f *Follower) skip(msg *nats.Msg, meta *nats.MsgMetadata) {
	f.note(msg, meta)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.skipped = meta.Sequence.Stream
	if f.committed >= f.returned {
		_ = f.acknowledgeLocked(f.skipped) // best effort, as all of them
	}
}

// note gives back the message's room, what the caller gathers being the caller's to bound, and keeps where to
// acknowledge it.
func (f *Follower) note(msg *nats.Msg, meta *nats.MsgMetadata) {
	f.pull.release(msg.Size())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = meta.NumPending
	f.unacked = append(f.unacked, ackPoint{meta.Sequence.Stream, msg.Reply})
	if meta.Sequence.Stream <= f.committed {
		_ = f.acknowledgeLocked(f.committed) // best effort, as all of them
	}
}

// Commit tells the broker that everything up to and including the frame seq is done with, which is what its lag and
// hozo status show. It is advice: it may get lost, and Follow trusts only its own argument.
func (f *Follower) Commit(_ context.Context, seq uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.committed = max(f.committed, seq)
	seq = f.committed
	if seq >= f.returned {
		seq = max(seq, f.skipped)
	}
	if err := f.acknowledgeLocked(seq); err != nil {
		return fmt.Errorf("commit %s:%d: %w", f.src.Stream, seq, err)
	}
	return nil
}

// acknowledgeLocked acknowledges everything delivered up to seq.
func (f *Follower) acknowledgeLocked(seq uint64) error {
	n := 0
	for n < len(f.unacked) && f.unacked[n].seq <= seq {
		n++
	}
	if n == 0 {
		return nil
	}
	reply := f.unacked[n-1].reply
	f.unacked = append(f.unacked[:0], f.unacked[n:]...)
	err := f.conn.nc.Publish(reply, []byte("+ACK"))
	if errors.Is(err, nats.ErrReconnectBufExceeded) {
		return nil // the connection is away; a later one says it all
	}
	return err
}

// Pending is how many frames were behind the last returned one when the broker delivered it.
func (f *Follower) Pending() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pending
}

// Close stops reading. The consumer stays, with its position.
func (f *Follower) Close() { f.stop() }
