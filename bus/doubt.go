package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	doubtBatch = 256     // messages that are read back at once
	doubtBytes = 4 << 20 // and their bytes, about
)

// doubt is the part of a stream in which output may lie that nobody has recorded: an earlier owner's, or this one's own
// whose acknowledgement got lost. It lies between what is known to be done and the newest fence, behind which nothing of
// the kind can be stored any more. Reading it back says what is there, however long ago it was stored.
type doubt struct {
	after, before uint64                       // sequences of the stream
	found         map[string]map[string]uint64 // by subject: sequence of each message id
	missed        bool                         // output of a frame is not there, so none of a later one is
}

// unstored returns those of msgs that no doubt covers or that are not there. Of those that are, the place is noted.
func (l *lease) unstored(ctx context.Context, msgs []*nats.Msg, inOrder bool) ([]*nats.Msg, error) {
	if len(l.doubts) == 0 {
		return msgs, nil
	}
	left := make([]*nats.Msg, 0, len(msgs))
	for _, m := range msgs {
		stream := l.o.conn.streamOf(m.Subject)
		d := l.doubts[stream]
		if d == nil || len(m.Header[jetstream.MsgIDHeader]) == 0 {
			left = append(left, m)
			continue
		}
		ids, ok := d.found[m.Subject]
		if !ok {
			var err error
			if ids, err = l.o.conn.idsOn(ctx, stream, m.Subject, d.after, d.before); err != nil {
				return msgs, err
			}
			d.found[m.Subject] = ids
		}
		if seq, ok := ids[m.Header[jetstream.MsgIDHeader][0]]; ok {
			l.noteStored(stream, seq)
			continue
		}
		d.missed = d.missed || inOrder
		left = append(left, m)
	}
	return left, nil
}

// noteStored notes that output of the frame in hand is at seq of stream.
func (l *lease) noteStored(stream string, seq uint64) {
	l.storing[stream] = max(l.storing[stream], seq)
}

// settle is called when the frame or the set in hand is stored and counts as done, and not before: what is recorded may
// name no place behind output that is still to come.
func (l *lease) settle() {
	for stream, d := range l.doubts {
		// Where output may be dropped, one that is missing says nothing about later ones.
		if d.missed && !l.o.conn.mayDrop(stream) {
			delete(l.doubts, stream)
		}
	}
	l.at.Lock()
	defer l.at.Unlock()
	maps.Copy(l.stored, l.storing)
	clear(l.storing)
}

// storedUntil returns, for each stream that output goes to, a sequence behind which all output lies that is not done.
func (l *lease) storedUntil() map[string]uint64 {
	l.at.Lock()
	defer l.at.Unlock()
	return maps.Clone(l.stored)
}

// beginDoubt notes that this lease's fence is now at seq of stream; earlier is that of the fence before it, or 0, where
// the record does not name the stream.
func (l *lease) beginDoubt(stream string, seq, earlier uint64) {
	l.at.Lock()
	defer l.at.Unlock()
	after, known := l.stored[stream]
	switch {
	case known && after > seq: // the stream was made anew, or has lost its tail with the power
		after = 0
	case !known && earlier == 0: // nobody has stored there in the name of this partition
		after = seq
	case !known:
		after = earlier
	}
	l.stored[stream] = after
	delete(l.doubts, stream)
	if after+1 < seq {
		l.doubts[stream] = &doubt{after: after, before: seq, found: make(map[string]map[string]uint64)}
	}
}

// mayDrop reports whether output may be dropped where it is stored.
func (c *Conn) mayDrop(stream string) bool {
	for _, r := range c.cfg.Grant.Publish {
		if r.Stream == stream && r.Full == wire.FullDropNewest {
			return true
		}
	}
	return false
}

// idsOn returns the ids of the messages on subject between two sequences of stream, both excluded, and where they are.
func (c *Conn) idsOn(ctx context.Context, stream, subject string, after, before uint64) (map[string]uint64, error) {
	ids := make(map[string]uint64)
	for after+1 < before {
		last, more, err := c.readIDs(ctx, ids, stream, subject, after+1, before)
		if err != nil {
			return nil, err
		}
		if !more {
			break
		}
		after = last
	}
	return ids, nil
}

// readIDs reads one batch of messages from sequence from on. more says that there may be others behind last.
func (c *Conn) readIDs(ctx context.Context, ids map[string]uint64, stream, subject string, from, before uint64) (last uint64, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	body, err := json.Marshal(struct {
		Seq   uint64 `json:"seq"`
		Next  string `json:"next_by_subj"`
		Batch int    `json:"batch"`
		Bytes int    `json:"max_bytes"`
	}{from, subject, doubtBatch, doubtBytes})
	if err != nil {
		return 0, false, fmt.Errorf("encode a question: %w", err)
	}
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return 0, false, fmt.Errorf("subscribe for answers: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only with the connection
	if err := c.nc.PublishRequest("$JS.API.DIRECT.GET."+wire.StreamName(stream), inbox, body); err != nil {
		return 0, false, ended(ctx, subject, err)
	}
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return 0, false, ended(ctx, subject, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "404":
			return 0, false, nil
		case "204":
			return last, last > 0 && m.Header.Get("Nats-Num-Pending") != "0", nil
		default:
			return 0, false, ended(ctx, subject, fmt.Errorf("the broker answers %s %s", status, m.Header.Get("Description")))
		}
		if last, err = strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64); err != nil {
			return 0, false, fmt.Errorf("read the sequence of a message: %w", err)
		}
		if last >= before {
			return last, false, nil
		}
		if id := m.Header.Get(jetstream.MsgIDHeader); id != "" {
			ids[id] = last
		}
	}
}
