package task

import (
	"context"
	"strconv"
	"strings"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// outboxMark is which rows of a service's outbox are in a queue although the outbox may still have them. It lies in the
// queue's stream and is replaced in the atomic batch that stores the tasks, on condition that it is as it was read. So
// tasks are stored with the word that they are, or not at all, and of two relays that hold the same rows one is refused.
type outboxMark struct {
	revision uint64
	rows     map[string]bool
}

func readMark(ctx context.Context, c *bus.Conn, queue, service string) (outboxMark, error) {
	m := outboxMark{rows: map[string]bool{}}
	msg, err := directGet(ctx, c, wire.QueueStream(queue), wire.OutboxSubject(queue, service))
	if err != nil || msg == nil {
		return m, err
	}
	m.revision = msg.seq
	for row := range strings.SplitSeq(string(msg.data), "\n") {
		if row != "" {
			m.rows[row] = true
		}
	}
	return m, nil
}

// message is the mark that replaces m and says that rows are in the queue.
func (m outboxMark) message(queue, service string, rows []string) *nats.Msg {
	return &nats.Msg{Subject: wire.OutboxSubject(queue, service), Data: []byte(strings.Join(rows, "\n")), Header: nats.Header{
		jetstream.MsgRollup:                 {jetstream.MsgRollupSubject},
		jetstream.ExpectedLastSubjSeqHeader: {strconv.FormatUint(m.revision, 10)},
	}}
}
