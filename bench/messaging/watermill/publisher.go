package watermill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/hozo-dev/hozo/bus"
)

// closePatience bounds the end of a connection.
const closePatience = 10 * time.Second

// stream holds every topic: the message of topic x has the subject wm.x.
const stream = "wm"

func subject(topic string) string { return stream + "." + topic }

// envelope is a message as an event.
type envelope struct {
	UUID     string            `json:"uuid"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Payload  []byte            `json:"payload"`
}

// Publisher is a message.Publisher. Safe for concurrent use.
type Publisher struct {
	conn   *bus.Conn // of a service that publishes wm.>
	closed sync.Once

	mu     sync.Mutex
	topics map[string]*bus.Publisher
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher publishes through conn, which Close closes.
func NewPublisher(conn *bus.Conn) *Publisher {
	return &Publisher{conn: conn, topics: make(map[string]*bus.Publisher)}
}

// Publish stores messages in one frame; it returns when they are.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	events := make([][]byte, len(messages))
	for i, m := range messages {
		var err error
		if events[i], err = json.Marshal(envelope{m.UUID, m.Metadata, m.Payload}); err != nil {
			return fmt.Errorf("encode message %s: %w", m.UUID, err)
		}
	}
	to, err := p.topic(topic)
	if err != nil {
		return err
	}
	_, err = to.Publish(messages[0].Context(), events...)
	return err
}

func (p *Publisher) topic(name string) (*bus.Publisher, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if have := p.topics[name]; have != nil {
		return have, nil
	}
	made, err := p.conn.NewPublisher(subject(name), bus.PublisherConfig{})
	if err == nil {
		p.topics[name] = made
	}
	return made, err
}

// Close waits until everything is stored.
func (p *Publisher) Close() (err error) {
	p.closed.Do(func() { err = closeConn(p.conn) })
	return err
}

func closeConn(c *bus.Conn) error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), closePatience, errors.New("the connection took too long to close"))
	defer cancel()
	return c.Close(ctx)
}
