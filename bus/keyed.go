package bus

import (
	"context"
	"errors"

	"github.com/hozo-dev/hozo/wire"
	"golang.org/x/sync/errgroup"
)

// newParts makes the Publishers of the partitions that p, which stores on a stream with a key, hands its events to. Each
// sends one frame at a time: a second one under way could be stored before the first, which is tried again. Meanwhile
// the next fills up, so that frames are as large as the traffic allows.
func (p *Publisher) newParts() {
	p.keys = newKeyReader(p.route.Key)
	p.parts = make([]*Publisher, p.route.Partitions)
	for i := range p.parts {
		part := &Publisher{
			conn: p.conn, subject: wire.PartitionSubject(p.route.Stream, p.subject, i), counted: p.subject,
			route: p.route, codec: p.codec, cfg: p.cfg, limit: p.limit, window: p.window, ready: p.ready, serial: true, groups: make(map[*group]struct{}),
			spare: p.spare,
		}
		p.parts[i] = part
	}
}

// PublishKey is Publish of events that all have this key. On a stream without a key in the manifest it is Publish.
func (p *Publisher) PublishKey(ctx context.Context, key string, events ...[]byte) (wire.EventID, error) {
	if p.parts == nil {
		return p.Publish(ctx, events...)
	}
	return p.parts[partitionOf(key, len(p.parts))].Publish(ctx, events...)
}

// publishKeyed hands each event to its partition. Events of one partition stay together and in order.
func (p *Publisher) publishKeyed(ctx context.Context, events [][]byte) (wire.EventID, error) {
	switch len(events) {
	case 0:
		return wire.EventID{}, errors.New("publish no events")
	case 1:
		return p.PublishKey(ctx, p.keys.of(events[0]), events[0])
	}
	by := make(map[int][][]byte)
	first := -1
	for _, e := range events {
		i := partitionOf(p.keys.of(e), len(p.parts))
		if first < 0 {
			first = i
		}
		by[i] = append(by[i], e)
	}
	var id wire.EventID
	group, ctx := errgroup.WithContext(ctx)
	for i, some := range by {
		group.Go(func() error {
			got, err := p.parts[i].Publish(ctx, some...)
			if i == first {
				id = got
			}
			return err
		})
	}
	err := group.Wait()
	return id, err
}

// sendKeyed hands each event of Send to its partition.
func (p *Publisher) sendKeyed(ctx context.Context, events [][]byte) error {
	for _, e := range events {
		if err := p.SendKey(ctx, p.keys.of(e), e); err != nil {
			return err
		}
	}
	return nil
}

// SendKey is Send of events that all have this key. On a stream without a key in the manifest it is Send.
func (p *Publisher) SendKey(ctx context.Context, key string, events ...[]byte) error {
	if p.parts == nil {
		return p.Send(ctx, events...)
	}
	return p.parts[partitionOf(key, len(p.parts))].Send(ctx, events...)
}

// flushParts flushes all partitions and returns the first fault.
func (p *Publisher) flushParts(ctx context.Context) error {
	var group errgroup.Group
	for _, part := range p.parts {
		group.Go(func() error { return part.Flush(ctx) })
	}
	return group.Wait()
}

// aheadBytes is how much of the window a Publisher takes ahead for what Send brings next.
func (p *Publisher) aheadBytes() int {
	if p.serial {
		// What idle partitions have taken ahead must not be all that there is.
		return p.cfg.WindowBytes / (4 * p.route.Partitions)
	}
	return min(p.cfg.FrameBytes, p.cfg.WindowBytes/4)
}

// drainParts drains the partitions.
func (p *Publisher) drainParts(ctx context.Context) error {
	var group errgroup.Group
	for _, part := range p.parts {
		group.Go(func() error { return part.drain(ctx) })
	}
	return group.Wait()
}
