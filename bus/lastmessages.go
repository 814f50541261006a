package bus

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go/jetstream"
)

// lastMessage is the last message of a subject.
type lastMessage struct {
	subject string
	seq     uint64
	data    []byte
}

// mostLast is how many subjects the broker answers for at most; nats-server's limit.
const mostLast = 1024

// lastMessages returns the last message of every subject of stream, the manifest's name, that matches pattern. They are
// of one moment.
func (c *Conn) lastMessages(ctx context.Context, stream, pattern string) ([]lastMessage, error) {
	body, err := json.Marshal(struct {
		Last []string `json:"multi_last"`
	}{[]string{pattern}})
	if err != nil {
		return nil, fmt.Errorf("encode a question: %w", err)
	}
	inbox := c.nc.NewInbox()
	sub, err := c.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("subscribe for answers: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only with the connection
	if err := c.nc.PublishRequest("$JS.API.DIRECT.GET."+wire.StreamName(stream), inbox, body); err != nil {
		return nil, ended(ctx, stream, err)
	}
	var all []lastMessage
	for len(all) <= mostLast {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, ended(ctx, stream, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
		case "204", "404": // the end; nothing there
			return all, nil
		default:
			return nil, ended(ctx, stream, fmt.Errorf("the broker answers %s %s", status, m.Header.Get("Description")))
		}
		seq, err := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read the sequence of a record: %w", err)
		}
		all = append(all, lastMessage{m.Header.Get("Nats-Subject"), seq, m.Data})
	}
	return nil, fmt.Errorf("more than %d subjects match %s", mostLast, pattern)
}
