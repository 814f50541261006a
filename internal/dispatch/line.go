package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

// line is what a Dispatcher does for one queue. run is its one goroutine; what comes from the broker meanwhile is left
// for it in came and news.
type line struct {
	d      *Dispatcher
	queue  string
	stream string
	wake   chan struct{} // one slot: there are news, or other limits

	mu     sync.Mutex
	limits Limits
	drain  bool
	fresh  bool            // limits are others than the book's
	came   map[Lane]uint64 // what was said to have come: the first sequence in each lane
	news   []*nats.Msg     // what else was said: a few words for each task that is let out

	// Of run alone.
	book  *Book
	lanes map[Lane]*waiting
	inbox string
}

// waiting is what is known of the tasks in a lane.
type waiting struct {
	from uint64 // sequence from which on there may be others
	read []*nats.Msg
}

func newLine(d *Dispatcher, q Queue) *line {
	return &line{d: d, queue: q.Name, stream: wire.StreamName(wire.QueueStream(q.Name)), wake: make(chan struct{}, 1), limits: q.Limits, drain: q.Drain}
}

func (l *line) set(q Queue) {
	l.mu.Lock()
	l.limits, l.drain, l.fresh = q.Limits, q.Drain, true
	l.mu.Unlock()
	l.poke()
}

func (l *line) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// hear leaves what the broker or a worker says for run.
func (l *line) hear(m *nats.Msg) {
	l.mu.Lock()
	if tokens, ok := strings.CutPrefix(m.Subject, wire.WaitingSubject(l.queue)+"."); !ok {
		l.news = append(l.news, m)
	} else if lane, _, ok := parseWait(tokens); ok {
		seq := sequence(m)
		if first, known := l.came[lane]; !known || seq < first {
			l.came[lane] = seq
		}
	}
	l.mu.Unlock()
	l.poke()
}

// run looks after the queue until ctx ends. It begins anew with every connection: what was said meanwhile is lost.
func (l *line) run(ctx context.Context) {
	failing := false
	for ctx.Err() == nil {
		err := l.session(ctx)
		if err != nil && !failing && ctx.Err() == nil && l.d.nc.IsConnected() {
			l.d.log.WarnContext(ctx, "tasks of a limited queue are not let out", "queue", l.queue, "error", err)
		}
		failing = err != nil
		select {
		case <-time.After(retryNap):
		case <-ctx.Done():
		}
	}
}

var errReconnected = errors.New("the connection is another one")

// session looks after the queue as long as the connection holds.
func (l *line) session(ctx context.Context) error {
	link := l.d.nc.Stats().Reconnects
	l.mu.Lock()
	l.news, l.came = nil, map[Lane]uint64{}
	limits := l.limits
	l.mu.Unlock()
	l.lanes, l.inbox = map[Lane]*waiting{}, l.d.nc.NewInbox()
	for _, subject := range []string{wire.WaitingSubject(l.queue) + ".>", wire.PaceSubject(l.queue), l.inbox + ".>"} {
		sub, err := l.d.nc.Subscribe(subject, l.hear)
		if err != nil {
			return err
		}
		defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection is closed
		_ = sub.SetPendingLimits(-1, -1)         // it fails only for a closed subscription
	}
	l.book = NewBook(limits, l.weight, time.Now())
	if err := l.takeStock(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(period)
	defer tick.Stop()
	swept := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-timer.C:
		case <-tick.C:
			l.book.Tick(period)
			if err := l.doubt(ctx); err != nil {
				return err
			}
			if time.Since(swept) > sweepTime {
				l.book.Sweep(time.Now())
				swept = time.Now()
				l.mu.Lock()
				drain := l.drain
				l.mu.Unlock()
				if drain {
					if err := l.takeStock(ctx); err != nil {
						return err
					}
				}
			}
		}
		if l.d.nc.Stats().Reconnects != link || !l.d.nc.IsConnected() {
			return errReconnected
		}
		l.mu.Lock()
		news, came := l.news, l.came
		l.news, l.came = nil, map[Lane]uint64{}
		limits, fresh := l.limits, l.fresh
		l.fresh = false
		l.mu.Unlock()
		if fresh {
			l.book.SetLimits(limits, time.Now())
		}
		now := time.Now()
		for lane, seq := range came {
			l.arrive(lane, seq, now)
		}
		for _, m := range news {
			l.learn(m, now)
		}
		wait, err := l.letOut(ctx)
		if err != nil {
			return err
		}
		if wait > 0 {
			timer.Reset(wait)
		}
	}
}

// weight is that of a key's token.
func (l *line) weight(token string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, w := range l.limits.Weights {
		if wire.KeyToken(key) == token {
			return w
		}
	}
	return 1
}

// takeStock finds out what waits and what is out.
func (l *line) takeStock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // a million subjects take some seconds
	defer cancel()
	stream, err := l.d.js.Stream(ctx, l.stream)
	if err != nil {
		return fmt.Errorf("look up the queue: %w", err)
	}
	prefix := wire.WaitPrefix(l.queue)
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return fmt.Errorf("look what waits: %w", err)
	}
	now := time.Now()
	for subject := range info.State.Subjects {
		if lane, _, ok := parseWait(subject[len(prefix):]); ok {
			l.arrive(lane, 1, now)
		}
	}
	for seq := uint64(1); ; {
		all, err := l.fetch(ctx, seq, strings.TrimSuffix(prefix, "w.")+"q.>", 1000)
		if err != nil {
			return fmt.Errorf("look what is let out: %w", err)
		}
		for _, m := range all {
			if lane, token, ok := parseWait(strings.TrimPrefix(m.Header.Get(headerScheduler), prefix)); ok {
				l.book.Found(token, lane, now)
			}
			seq = sequence(m) + 1
		}
		if len(all) == 0 {
			return nil
		}
	}
}

// parseWait reads <kind>.<priority>.<key>.<id>.
func parseWait(tokens string) (lane Lane, token string, ok bool) {
	parts := strings.Split(tokens, ".")
	if len(parts) != 4 || len(parts[1]) != 1 || parts[1] < "1" || parts[1] > "3" {
		return lane, "", false
	}
	return Lane{parts[0], int(parts[1][0] - '0'), parts[2]}, parts[3], true
}

// arrive notes that there may be something in a lane from a sequence on.
func (l *line) arrive(lane Lane, seq uint64, now time.Time) {
	w := l.lanes[lane]
	if w == nil {
		w = &waiting{from: seq}
		l.lanes[lane] = w
	}
	if seq < w.from && len(w.read) == 0 {
		w.from = seq
	}
	l.book.Arrive(lane, now)
}

// learn takes what was said of a task that is let out.
func (l *line) learn(m *nats.Msg, now time.Time) {
	switch {
	case m.Subject == wire.PaceSubject(l.queue):
		if len(m.Data) < 2 {
			return
		}
		if token := string(m.Data[1:]); m.Data[0] == 'b' {
			l.book.Begun(token)
		} else {
			l.book.Left(token)
		}
	case strings.HasPrefix(m.Subject, l.inbox):
		// That a task was not let out: it was cancelled, or the broker could not store it.
		if rest := m.Subject[len(l.inbox)+1:]; bytes.Contains(m.Data, []byte(`"error"`)) || m.Header.Get("Status") != "" {
			lane, token, ok := parseWait(rest)
			if !ok {
				return
			}
			l.book.Left(token)
			l.arrive(lane, 1, now)
		}
	}
}

// letOut lets out everything that may go, and returns when to look again.
func (l *line) letOut(ctx context.Context) (time.Duration, error) {
	for range 1000 {
		now := time.Now()
		lane, ok, wait := l.book.Next(now)
		if !ok {
			return wait, nil
		}
		m, err := l.first(ctx, lane)
		if err != nil {
			return 0, err
		}
		if m == nil {
			l.book.Empty(lane)
			delete(l.lanes, lane)
			continue
		}
		token := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
		if err := l.move(lane, token, m); err != nil {
			return 0, err
		}
		l.book.Release(token, lane, now)
	}
	return time.Nanosecond, nil // what has been said meanwhile is heard first
}
