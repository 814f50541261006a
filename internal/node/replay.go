package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

const (
	// replayAhead is how many replayed frames a service may have before it: enough to keep it busy, little enough that
	// what it reads beside them, and a stop, do not wait long.
	replayAhead = 256

	// replayTick is how often a replay says how far it is, stores its position and looks whether the service keeps up.
	replayTick = 200 * time.Millisecond

	// replayIdle is after how many ticks without a message, the broker answering, there is none left.
	replayIdle = 5
)

// Replay is a part of a stream to be sent again, to a service that consumes it or to another subject.
type Replay struct {
	ID        string    `json:"id"` // names its position; letters, digits, - and _
	Stream    string    `json:"stream"`
	FromSeq   uint64    `json:"from_seq,omitempty"`
	FromTime  time.Time `json:"from_time,omitzero"` // when FromSeq is 0
	UntilSeq  uint64    `json:"until_seq,omitempty"`
	UntilTime time.Time `json:"until_time,omitzero"`
	To        string    `json:"to"`               // a service, or a subject that a stream stores
	Events    float64   `json:"events,omitempty"` // most a second; 0 is no limit
	Bytes     float64   `json:"bytes,omitempty"`  // most a second, as stored; 0 is no limit
	DryRun    bool      `json:"dry_run,omitempty"`
}

// Replayed is how far a replay is.
type Replayed struct {
	Replay
	Next    uint64  `json:"next"`            // sequence of the next frame
	Last    uint64  `json:"last"`            // sequence of the last one; set at the first start
	Frames  uint64  `json:"frames"`          // sent
	Sent    uint64  `json:"sent"`            // events sent
	Size    uint64  `json:"size"`            // bytes sent, as stored
	Waits   bool    `json:"waits,omitempty"` // for the service to keep up
	Done    bool    `json:"done,omitempty"`
	Seconds float64 `json:"seconds"`
}

var replayID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (s state) replay(id string) string { return filepath.Join(string(s), "replays", id+".json") }

// target is where a replay goes.
type target struct {
	service string // or subject
	subject string
	filter  []string        // of the subjects that the service reads of the stream
	into    manifest.Stream // of the subject

	stream string // that holds what was sent
	stored uint64 // its last sequence
}

func (n *Node) targetOf(m *manifest.Manifest, r Replay) (target, error) {
	if !slices.ContainsFunc(m.Streams, func(s manifest.Stream) bool { return s.Name == r.Stream }) {
		return target{}, &fault.Error{Code: "stream/unknown", Kind: fault.Misuse, What: fmt.Sprintf("there is no stream %q", r.Stream), Fix: "`hozo stream ls` lists them"}
	}
	for _, s := range m.Services {
		if s.Name != r.To {
			continue
		}
		for _, src := range sources(s, streamsOf(m)) {
			if src.Stream == r.Stream {
				return target{service: s.Name, filter: src.Filters(), stream: wire.RetryStream}, nil
			}
		}
		return target{}, &fault.Error{
			Code: "replay/not-consumed", Kind: fault.Misuse, What: fmt.Sprintf("service %q does not consume stream %q", r.To, r.Stream), Where: m.Place("services", r.To),
			Fix: wiringOf(m, s, 1, streamsOf(m)).Fix("consumes", r.Stream),
		}
	}
	for _, s := range m.Streams {
		if slices.ContainsFunc(wire.StreamSubjects(s.Name), func(p string) bool { return wire.Covers(p, r.To) }) && s.Name != r.Stream {
			return target{subject: r.To, stream: s.Name, into: s}, nil
		}
	}
	return target{}, &fault.Error{
		Code: "replay/no-target", Kind: fault.Misuse, What: fmt.Sprintf("%q is neither a service nor a subject of another stream", r.To),
		Fix: "name a service that consumes " + r.Stream + ", or declare a stream for the copy: streams: { " + r.To + ": {} }",
	}
}

// replay sends r, from the beginning or, with resume, from where it was left, until it is done or ctx ends. Its position
// is stored as it goes; a frame that was sent and not noted is sent again under the same id, and stored once.
func (n *Node) replay(ctx context.Context, r Replay, resume bool, tell func(Replayed) bool) (Replayed, error) {
	m := n.current()
	if m == nil {
		return Replayed{}, errNoManifest
	}
	if !replayID.MatchString(r.ID) {
		return Replayed{}, &fault.Error{Code: "replay/bad-id", Kind: fault.Misuse, What: "a replay is named by letters, digits, - and _", Where: r.ID, Fix: "--id NAME"}
	}
	at := Replayed{Replay: r}
	if resume {
		if err := read(n.state.replay(r.ID), &at); errors.Is(err, os.ErrNotExist) {
			return at, &fault.Error{Code: "replay/unknown", Kind: fault.Misuse, What: "there is no replay of this name to go on with", Where: r.ID, Fix: "start it without --resume"}
		} else if err != nil {
			return at, err
		}
	}
	to, err := n.targetOf(m, at.Replay)
	if err != nil {
		return at, err
	}
	stream, err := n.js.Stream(ctx, wire.StreamName(at.Stream))
	if err != nil {
		return at, &fault.Error{Code: "replay/unavailable", What: "the broker does not answer", Err: err, Fix: "look at `hozo status`"}
	}
	if state := stream.CachedInfo().State; !resume {
		at.Last = state.LastSeq // what is stored later is live, and not replayed
		if at.UntilSeq > 0 {
			at.Last = min(at.Last, at.UntilSeq)
		}
		at.Next = max(at.FromSeq, state.FirstSeq)
	}
	if at.Done || at.Next > at.Last {
		at.Done = true
		return at, nil
	}
	err = n.resend(ctx, stream, &at, &to, tell)
	if !at.DryRun {
		err = joined(err, n.note(context.WithoutCancel(ctx), at, to))
	}
	return at, err
}

// note stores how far a replay is, once what it has sent is on disk where that must be so.
func (n *Node) note(ctx context.Context, at Replayed, to target) error {
	if to.stored > 0 && n.keepsPower(to.stream) {
		if err := n.commit(ctx, to.stream, to.stored); err != nil {
			return err
		}
	}
	return write(n.state.replay(at.ID), at)
}

// resend sends frames from at.Next on.
func (n *Node) resend(ctx context.Context, stream jetstream.Stream, at *Replayed, to *target, tell func(Replayed) bool) error {
	cfg := jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: max(at.Next, 1), FilterSubjects: to.filter}
	if at.Frames == 0 && at.FromSeq == 0 && !at.FromTime.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, 0, &at.FromTime
	}
	consumer, err := stream.OrderedConsumer(ctx, cfg)
	if err != nil {
		return fmt.Errorf("read stream %s: %w", at.Stream, err)
	}
	began, told, before := time.Now(), time.Now(), *at
	idle := 0
	for ctx.Err() == nil {
		msg, err := consumer.Next(jetstream.FetchMaxWait(replayTick))
		if errors.Is(err, nats.ErrTimeout) || errors.Is(err, jetstream.ErrNoMessages) {
			if _, err := stream.Info(ctx); err == nil {
				idle++
			}
			if idle == replayIdle {
				at.Done = true // nothing more that the filter lets through, or the rest has expired
				return nil
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("read stream %s: %w", at.Stream, err)
		}
		idle = 0
		f, err := bus.OpenFrame(at.Stream, msg)
		if err != nil {
			return err
		}
		if f.Seq > at.Last || !at.UntilTime.IsZero() && !f.Time.Before(at.UntilTime) {
			at.Done = true
			return nil
		}
		if wire.IsFence(at.Stream, msg.Subject()) {
			if at.Next = f.Seq + 1; f.Seq == at.Last {
				at.Done = true
				return nil
			}
			continue
		}
		if !at.DryRun {
			if err := n.sendAgain(ctx, at, to, f, msg.Data()); err != nil || ctx.Err() != nil {
				return err // a frame whose answer did not come is sent again by the next
			}
		}
		at.Next, at.Frames, at.Sent, at.Size = f.Seq+1, at.Frames+1, at.Sent+uint64(f.Len()), at.Size+uint64(f.Bytes)
		if f.Seq == at.Last {
			at.Done = true
			return nil
		}
		if time.Since(told) >= replayTick {
			told = time.Now()
			at.Seconds = before.Seconds + time.Since(began).Seconds()
			if !at.DryRun {
				if err := n.note(ctx, *at, *to); err != nil {
					return err
				}
			}
			if !tell(*at) || !n.awaitRoomAt(ctx, at, *to, tell) {
				return nil
			}
		}
		if !at.DryRun {
			pace(ctx, began, *at, before)
		}
	}
	return nil
}

// sendAgain stores one frame where only the target reads it. A service gets it on its way for retries, under the event's
// own name, so that it sees the ids that the events have had from the start; a subject gets copies that say where they
// are from.
func (n *Node) sendAgain(ctx context.Context, at *Replayed, to *target, f *bus.Frame, data []byte) error {
	parts, err := to.parts(f, data)
	if err != nil {
		return err
	}
	for _, part := range parts {
		msg := nats.NewMsg(part.subject)
		msg.Data, msg.Header = part.data, nats.Header{}
		stay(msg.Header, f.Header)
		maps.Copy(msg.Header, nats.Header{wire.HeaderSubject: {f.Subject}, wire.HeaderSource: {part.first.String()}})
		ack, err := n.js.PublishMsg(ctx, msg, jetstream.WithMsgID(fmt.Sprintf("replay-%s-%s", at.ID, part.first)))
		switch {
		case err == nil:
			to.stored = max(to.stored, ack.Sequence)
		case ctx.Err() == nil:
			return &fault.Error{Code: "replay/refused", What: "a frame could not be stored again", Where: msg.Subject, Err: err, Fix: "look at `hozo status`, then go on with --resume"}
		default:
			return nil // it is sent again by the next
		}
	}
	return nil
}

// awaitRoomAt waits while the service has more replayed frames before it than it should; it reports false when it is over.
func (n *Node) awaitRoomAt(ctx context.Context, at *Replayed, to target, tell func(Replayed) bool) bool {
	for to.service != "" && !at.DryRun {
		info, err := n.js.Consumer(ctx, wire.StreamName(wire.RetryStream), to.service)
		if err == nil && info.CachedInfo().NumPending < replayAhead {
			return true
		}
		waiting := *at
		waiting.Waits = true
		if !tell(waiting) || !sleepFor(ctx, replayTick) {
			return false
		}
	}
	return true
}

// pace waits until the bounds on the rate let the next frame through.
func pace(ctx context.Context, began time.Time, at, before Replayed) {
	var due float64
	if at.Events > 0 {
		due = float64(at.Sent-before.Sent) / at.Events
	}
	if at.Bytes > 0 {
		due = max(due, float64(at.Size-before.Size)/at.Bytes)
	}
	if wait := time.Duration(due*float64(time.Second)) - time.Since(began); wait > 0 {
		sleepFor(ctx, wait)
	}
}

func sleepFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

type replayRequest struct {
	Replay
	Resume bool `json:"resume,omitempty"`
}

func (c *control) replay(w http.ResponseWriter, r *http.Request) {
	var in replayRequest
	if !decode(w, r, &in) {
		return
	}
	out := newLines(w)
	done, err := c.node.replay(r.Context(), in.Replay, in.Resume, func(at Replayed) bool { return out.send(at) })
	out.end(done, err)
}

// Replay sends a part of a stream again, or goes on with one that was interrupted. It ends with ctx; tell may be nil.
func (c *Client) Replay(ctx context.Context, r Replay, resume bool, tell func(Replayed)) (Replayed, error) {
	var last Replayed
	resp, err := c.send(ctx, http.MethodPost, "/v1/replay", replayRequest{r, resume})
	if err != nil {
		return last, err
	}
	defer resp.Body.Close()
	err = readLines(resp.Body, func(at Replayed) bool {
		last = at
		if tell != nil {
			tell(at)
		}
		return true
	})
	if cause := context.Cause(ctx); cause != nil {
		return last, cause
	}
	if err == nil && !last.Done {
		err = &fault.Error{Code: "node/cut-off", What: "the node has ended in the middle", Fix: "go on with --resume --id " + last.ID}
	}
	return last, err
}
