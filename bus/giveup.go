package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hozo-dev/hozo/wire"
)

// giveUp records that an event of the frame or the set in hand is parked and not handled. Only then may its dead letter
// be stored: without the record a process that was stopped in between could park what the next owner has handled. It gives
// p an id, so that a letter that comes late is dropped even if hozo dlq retry has taken the first one away.
func (l *lease) giveUp(ctx context.Context, p *Parked) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.valid() {
		return errLost
	}
	p.id = fmt.Sprintf("%s.%d", wire.DeadSubject(l.o.conn.cfg.Grant.Service, p.Event), l.rec.Created.UnixNano())
	before := l.rec.GivenUp
	next := &wire.GivenUp{Seq: p.Event.Seq, Code: codeOf(p.Err), Error: oneLine(p.Err.Error()), Attempts: p.Attempts}
	if before != nil && before.Seq == next.Seq {
		if before.Events[len(before.Events)-1] == p.Event.Index {
			return nil // an earlier owner has recorded it
		}
		next.Events = append(next.Events, before.Events...)
	}
	next.Events = append(next.Events, p.Event.Index)
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	l.rec.GivenUp = next
	if err := l.replaceLocked(ctx, l.rec.Member); err != nil {
		l.rec.GivenUp = before
		return err
	}
	return nil
}

// heed returns try for a frame of which an earlier owner has given up events: none of them is handled. The last one is
// parked, because nobody knows whether its dead letter was stored; storing it again does nothing.
func (l *lease) heed(f *Frame, try tryFunc) tryFunc {
	g := l.inherited
	if g == nil || g.Seq != f.Seq {
		return try
	}
	return func(ctx context.Context, e *rawEvent, out *Out) error {
		switch slices.Index(g.Events, e.id.Index) {
		case -1:
			return try(ctx, e, out)
		case len(g.Events) - 1:
			e.attempt = g.Attempts
			return Reject(g.Code, errors.New(g.Error))
		default:
			return nil
		}
	}
}
