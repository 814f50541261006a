package node

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// Filter chooses among dead letters; what is empty does not matter.
type Filter struct {
	Service string    `json:"service,omitempty"` // who parked it
	Stream  string    `json:"stream,omitempty"`  // where the event was; hozo.tasks.QUEUE for tasks
	Code    string    `json:"code,omitempty"`    // why it was parked
	ID      string    `json:"id,omitempty"`      // of the event: stream:sequence:index
	Grep    string    `json:"grep,omitempty"`    // regular expression on the error and the data
	Since   time.Time `json:"since,omitzero"`    // when it was parked
	Until   time.Time `json:"until,omitzero"`
}

// Selection names dead letters: by number, or those that a filter lets through, or all.
type Selection struct {
	Filter
	Seqs   []uint64 `json:"seqs,omitempty"`
	All    bool     `json:"all,omitempty"`     // needed when nothing else is given
	DryRun bool     `json:"dry_run,omitempty"` // count and change nothing
}

// Bulk is how far a command on dead letters is, and at the end what it has done.
type Bulk struct {
	Count   int    `json:"count"`             // letters that were sent back or dropped; of a dry run: would be
	Gone    int    `json:"gone,omitempty"`    // of those that were named: had been sent back or dropped before
	Looked  uint64 `json:"looked"`            // letters looked at
	Of      uint64 `json:"of"`                // letters there were
	DryRun  bool   `json:"dry_run,omitempty"` // nothing was changed
	Running bool   `json:"running,omitempty"` // this is not the end
}

// subject is the narrowest pattern that holds all that f lets through.
func (f Filter) subject() string {
	service, stream, rest := "*", "*", ">"
	if f.Service != "" {
		service = f.Service
	}
	if f.Stream != "" {
		stream = wire.StreamName(f.Stream)
	}
	if id, err := wire.ParseEventID(f.ID); err == nil {
		stream, rest = wire.StreamName(id.Stream), fmt.Sprintf("%d.>", id.Seq)
	}
	return strings.Join([]string{wire.DeadStream, service, stream, rest}, ".")
}

// compile checks f and returns what it lets through of the letters under its subject.
func (f Filter) compile() (func(DeadLetter) bool, error) {
	for _, name := range []string{f.Service, f.Stream} {
		if strings.ContainsAny(name, " *>\t") {
			return nil, &fault.Error{Code: "dlq/bad-filter", Kind: fault.Misuse, What: "services and streams are named without wildcards", Where: name, Fix: "name one, or leave it out"}
		}
	}
	if f.ID != "" {
		if _, err := wire.ParseEventID(f.ID); err != nil {
			return nil, &fault.Error{Code: "dlq/bad-filter", Kind: fault.Misuse, What: err.Error(), Where: f.ID, Fix: "write it as `hozo dlq ls` does: stream:sequence:index"}
		}
	}
	grep, err := regexp.Compile(f.Grep)
	if err != nil {
		return nil, &fault.Error{Code: "dlq/bad-filter", Kind: fault.Misuse, What: "the regular expression cannot be read", Where: f.Grep, Err: err, Fix: "see https://pkg.go.dev/regexp/syntax"}
	}
	return func(l DeadLetter) bool {
		at, err := time.Parse(time.RFC3339Nano, l.Time)
		return (f.Code == "" || l.Code == f.Code) && (f.ID == "" || l.Event == f.ID) &&
			(f.Stream == "" || strings.HasPrefix(l.Event, f.Stream+":")) &&
			(f.Since.IsZero() || err == nil && !at.Before(f.Since)) && (f.Until.IsZero() || err == nil && at.Before(f.Until)) &&
			(f.Grep == "" || grep.MatchString(l.Error) || grep.Match(l.Data))
	}, nil
}

// letterAct does something with one letter.
type letterAct func(context.Context, jetstream.Stream, *jetstream.RawStreamMsg) error

// bulkTick is how many letters are looked at between two words on how far a command is.
const bulkTick = 100

// bulk calls act for every selected letter and tells how far it is. What is named and not there any more has been dealt
// with before; so a command that was given twice does its work once.
func (n *Node) bulk(ctx context.Context, s Selection, act letterAct, tell func(Bulk)) (Bulk, error) {
	done := Bulk{DryRun: s.DryRun}
	if len(s.Seqs) == 0 && !s.All && s.Filter == (Filter{}) {
		return done, &fault.Error{Code: "dlq/nothing-selected", Kind: fault.Misuse, What: "no parked event is named", Fix: "give numbers, or a filter such as --service NAME, or --all"}
	}
	match, err := s.compile()
	if err != nil {
		return done, err
	}
	n.letters.Lock()
	defer n.letters.Unlock()
	stream, err := n.dead(ctx)
	if err != nil {
		return done, err
	}
	if s.DryRun {
		act = func(context.Context, jetstream.Stream, *jetstream.RawStreamMsg) error { return nil }
	}
	state := stream.CachedInfo().State
	if len(s.Seqs) > 0 {
		err := n.named(ctx, stream, s.Seqs, state.LastSeq, &done, func(msg *jetstream.RawStreamMsg) error {
			if !match(letterOf(msg, true)) {
				return nil
			}
			done.Count++
			return act(ctx, stream, msg)
		})
		return done, err
	}
	done.Of = state.Msgs
	// What is parked again meanwhile has a higher number than the last one now, and is left alone.
	for seq := uint64(1); ; {
		msg, err := stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(s.subject()))
		if errors.Is(err, jetstream.ErrMsgNotFound) || (err == nil && msg.Sequence > state.LastSeq) {
			return done, nil
		}
		if err != nil {
			return done, fmt.Errorf("read dead letters: %w", err)
		}
		done.Looked++
		if match(letterOf(msg, true)) {
			if err := act(ctx, stream, msg); err != nil {
				return done, err
			}
			done.Count++
		}
		if done.Looked%bulkTick == 0 {
			running := done
			running.Running = true
			tell(running)
		}
		seq = msg.Sequence + 1
	}
}

// named calls act for letters by number.
func (n *Node) named(ctx context.Context, stream jetstream.Stream, seqs []uint64, last uint64, done *Bulk, act func(*jetstream.RawStreamMsg) error) error {
	done.Of = uint64(len(seqs))
	for _, seq := range seqs {
		done.Looked++
		msg, err := stream.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) && seq > 0 && seq <= last {
			done.Gone++
			continue
		}
		if err != nil {
			return unknownLetter(seq, err)
		}
		if err := act(msg); err != nil {
			return err
		}
	}
	return nil
}

// drop removes one letter for good.
func drop(ctx context.Context, stream jetstream.Stream, msg *jetstream.RawStreamMsg) error {
	return stream.DeleteMsg(ctx, msg.Sequence)
}
