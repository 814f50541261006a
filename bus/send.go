package bus

import (
	"context"
	"errors"
)

// Send takes events for storing and returns without waiting for that: it is for one caller who has many, as Publish is
// for many callers who have one each. Events stay in the order of the calls within a frame, those of one call in one
// frame; on a stream with a key the events of each partition stay in the order of the calls. It blocks while the window is full; the bytes are copied before it returns.
//
// What was sent is stored when Flush says so. When a frame was refused, Send and Flush return the fault of the first
// one, which are those of Publish, and Send takes nothing more until Flush has told it.
func (p *Publisher) Send(ctx context.Context, events ...[]byte) error {
	if p.parts != nil {
		return p.sendKeyed(ctx, events)
	}
	size := 0
	for _, e := range events {
		size += len(e) + 1
	}
	if size > p.limit {
		return tooLarge(p.subject, size, p.limit)
	}
	if len(events) == 0 {
		return nil
	}
	weight := min(int64(size), int64(p.cfg.WindowBytes))
	for {
		p.mu.Lock()
		switch {
		case p.failed != nil:
			err := p.failed
			p.mu.Unlock()
			return err
		case p.closed:
			p.mu.Unlock()
			return closedFault(p.subject)
		case p.credit >= weight:
			p.credit -= weight
			g, _ := p.addLocked(ctx, events, weight)
			g.sent = true
			p.mu.Unlock()
			return nil
		}
		p.mu.Unlock()
		// Some frames' worth at once: the window's lock then costs nothing beside an event.
		ahead := max(weight, int64(p.aheadBytes()))
		if err := p.acquire(ctx, ahead); err != nil {
			return err
		}
		p.mu.Lock()
		p.credit += ahead
		p.mu.Unlock()
	}
}

// Flush waits until everything that Send and Publish have taken so far is stored or refused. It returns the first fault
// of a frame with events of Send since the last Flush; those of Publish are told to its callers. When ctx ends first
// the error is the fault bus/unavailable, and the events may be stored all the same.
func (p *Publisher) Flush(ctx context.Context) error {
	if p.parts != nil {
		return p.flushParts(ctx)
	}
	p.mu.Lock()
	p.cutLocked()
	waiting := make([]*group, 0, len(p.groups))
	for g := range p.groups {
		waiting = append(waiting, g)
	}
	p.returnCreditLocked()
	p.mu.Unlock()
	for _, g := range waiting {
		select {
		case <-g.done:
		case <-ctx.Done():
			return ended(ctx, p.subject, errors.New("events sent are not stored yet"))
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	err := p.failed
	p.failed = nil
	return err
}

// acquire takes weight bytes of the window, waiting for them until ctx ends.
func (p *Publisher) acquire(ctx context.Context, weight int64) error {
	if p.window.TryAcquire(weight) {
		return nil
	}
	p.mu.Lock()
	p.returnCreditLocked() // else it could be what everybody waits for
	p.mu.Unlock()
	if err := p.window.Acquire(ctx, weight); err != nil {
		return ended(ctx, p.subject, errors.New("the window of unacknowledged bytes is full"))
	}
	return nil
}

func (p *Publisher) returnCreditLocked() {
	p.window.Release(p.credit)
	p.credit = 0
}
