package watermill

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/hozo-dev/hozo/bus"
)

var (
	errClosed = errors.New("the subscriber is closed")
	errNacked = errors.New("the message was refused")
)

// Subscriber is a message.Subscriber: one instance of a consumer group. Safe for concurrent use.
type Subscriber struct {
	join   func(ctx context.Context, topic string) (*bus.Conn, error)
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex // guards running against Close
	running sync.WaitGroup
}

var _ message.Subscriber = (*Subscriber)(nil)

// NewSubscriber makes a Subscriber. join connects as an instance of the group's service, which consumes topic: what an
// operator declares in a manifest.
func NewSubscriber(join func(ctx context.Context, topic string) (*bus.Conn, error)) *Subscriber {
	return &Subscriber{join: join, closed: make(chan struct{})}
}

// Subscribe returns the messages of topic, each when the one before was answered, until ctx ends or Close.
func (s *Subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return nil, errClosed
	default:
	}
	conn, err := s.join(ctx, topic)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	messages := make(chan *message.Message)
	stage, err := bus.NewStage(conn, bus.NewTopic[envelope](subject(topic)),
		func(_ context.Context, e bus.Event[envelope], _ *bus.Out) error {
			return deliver(ctx, e.Value, messages)
		},
		bus.StageConfig{
			Workers:  1,
			Attempts: math.MaxInt, // Watermill refuses a message as often as it likes
			Backoff:  50 * time.Microsecond,
			Timeout:  time.Hour,
			Drain:    time.Nanosecond, // a message that is not answered goes to another subscriber at once
		})
	if err != nil {
		stop()
		return nil, errors.Join(err, closeConn(conn))
	}
	s.running.Go(func() {
		defer close(messages)
		_ = errors.Join(stage.Run(ctx), closeConn(conn)) // Watermill asks nobody how a subscription ended
		stop()
	})
	s.running.Go(func() {
		select {
		case <-s.closed:
			stop()
		case <-ctx.Done():
		}
	})
	select {
	case <-stage.Ready():
	case <-ctx.Done():
	}
	return messages, nil
}

// deliver hands a message over and returns what its receiver says.
func deliver(ctx context.Context, e envelope, messages chan<- *message.Message) error {
	m := message.NewMessage(e.UUID, e.Payload)
	if e.Metadata != nil {
		m.Metadata = e.Metadata
	}
	mine, done := context.WithCancel(ctx)
	defer done()
	m.SetContext(mine)
	select {
	case messages <- m:
	case <-ctx.Done():
		return errClosed
	}
	select {
	case <-m.Acked():
		return nil
	case <-m.Nacked():
		return errNacked
	case <-ctx.Done():
		return errClosed
	}
}

// Close ends all subscriptions and waits for that.
func (s *Subscriber) Close() error {
	s.mu.Lock()
	s.once.Do(func() { close(s.closed) })
	s.mu.Unlock()
	s.running.Wait()
	return nil
}
