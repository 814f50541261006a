package dispatch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

const (
	period    = 100 * time.Millisecond // of Book.Tick
	sweepTime = 10 * time.Second
	retryNap  = 300 * time.Millisecond // after the broker did not answer
	patience  = 10 * time.Second       // with one exchange

	// doubtAfter is how long a task may be out before it is looked whether it still is, in case the word of that was lost.
	// mostDoubts bounds how many are looked at in one period.
	doubtAfter, mostDoubts = 5 * time.Second, 50

	// mostFetched is how many tasks of a lane are read at once.
	mostFetched = 64
)

// Queue is one limited queue.
type Queue struct {
	Name   string
	Limits Limits
	// Drain says that the queue is limited no more: what still waits is let out, and it is looked again and again for more,
	// which the broker does not tell of any more.
	Drain bool
}

// Dispatcher lets out tasks of limited queues. Its methods are safe for concurrent use. Two of them for one queue let no
// task out twice, but each counts by itself.
type Dispatcher struct {
	nc  *nats.Conn
	js  jetstream.JetStream
	log *slog.Logger

	changed chan struct{} // one slot: queues is another

	mu     sync.Mutex
	queues []Queue
}

// New returns a Dispatcher without queues.
func New(nc *nats.Conn, js jetstream.JetStream, log *slog.Logger) *Dispatcher {
	return &Dispatcher{nc: nc, js: js, log: log, changed: make(chan struct{}, 1)}
}

// Set has the dispatcher look after these queues from now on.
func (d *Dispatcher) Set(queues []Queue) {
	d.mu.Lock()
	d.queues = queues
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// Run lets tasks out until ctx ends.
func (d *Dispatcher) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[string]*line{}
	stops := map[string]context.CancelFunc{}
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for {
		d.mu.Lock()
		queues := d.queues
		d.mu.Unlock()
		wanted := map[string]bool{}
		for _, q := range queues {
			wanted[q.Name] = true
			if l := running[q.Name]; l != nil {
				l.set(q)
				continue
			}
			l := newLine(d, q)
			one, stop := context.WithCancel(ctx)
			running[q.Name], stops[q.Name] = l, stop
			wg.Go(func() { l.run(one) })
		}
		for name := range maps.Clone(running) {
			if !wanted[name] {
				stops[name]()
				delete(running, name)
				delete(stops, name)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.changed:
		}
	}
}

// line is what a Dispatcher does for one queue. run is its one goroutine; what comes from the broker meanwhile is left
// for it in news.
type line struct {
	d      *Dispatcher
	queue  string
	stream string
	wake   chan struct{} // one slot: there are news, or other limits

	mu     sync.Mutex
	limits Limits
	drain  bool
	fresh  bool // limits are others than the book's
	news   []*nats.Msg

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

func (l *line) hear(m *nats.Msg) {
	l.mu.Lock()
	l.news = append(l.news, m)
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
	l.news = nil
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
		news := l.news
		l.news = nil
		limits, fresh := l.limits, l.fresh
		l.fresh = false
		l.mu.Unlock()
		if fresh {
			l.book.SetLimits(limits, time.Now())
		}
		for _, m := range news {
			l.learn(m)
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

const headerScheduler = "Nats-Scheduler"

// parseWait reads <kind>.<priority>.<key>.<id>.
func parseWait(tokens string) (lane Lane, token string, ok bool) {
	parts := strings.Split(tokens, ".")
	if len(parts) != 4 || len(parts[1]) != 1 || parts[1] < "1" || parts[1] > "3" {
		return lane, "", false
	}
	return Lane{parts[0], int(parts[1][0] - '0'), parts[2]}, parts[3], true
}

func sequence(m *nats.Msg) uint64 {
	seq, _ := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64) // the broker wrote it
	return seq
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

// learn takes what the broker or a worker has said.
func (l *line) learn(m *nats.Msg) {
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
			l.arrive(lane, 1, time.Now())
		}
	default:
		if lane, _, ok := parseWait(m.Subject[len(wire.WaitingSubject(l.queue))+1:]); ok {
			l.arrive(lane, sequence(m), time.Now())
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

// first takes the first task of a lane; nil when there is none.
func (l *line) first(ctx context.Context, lane Lane) (*nats.Msg, error) {
	w := l.lanes[lane]
	if w == nil {
		return nil, nil
	}
	for {
		for len(w.read) > 0 {
			m := w.read[0]
			w.read = w.read[1:]
			if m.Header.Get(headerSchedule) != "" { // not what is left of one that was cancelled
				return m, nil
			}
		}
		// The more lanes there are, the fewer of each are read, to bound what is held.
		n := max(1, min(mostFetched, 16*mostFetched/len(l.lanes)))
		all, err := l.fetch(ctx, w.from, wire.WaitPrefix(l.queue)+lane.Kind+"."+strconv.Itoa(lane.Priority)+"."+lane.Key+".*", n)
		if err != nil {
			return nil, fmt.Errorf("read what waits: %w", err)
		}
		if len(all) == 0 {
			return nil, nil
		}
		w.read, w.from = all, sequence(all[len(all)-1])+1
	}
}

const (
	headerSchedule       = "Nats-Schedule"
	headerScheduleNext   = "Nats-Schedule-Next"
	headerExpectedOfSubj = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// move has the broker store the task where workers look and remove it where it waits, in one step, if it is there still.
func (l *line) move(lane Lane, token string, m *nats.Msg) error {
	h := nats.Header{}
	for name, values := range m.Header {
		if !strings.HasPrefix(name, "Nats-") {
			h[name] = values
		}
	}
	h[headerScheduler], h[headerScheduleNext] = []string{m.Subject}, []string{"purge"}
	h[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(sequence(m), 10)}
	h[headerExpectedOfSubj] = []string{m.Subject}
	tokens := m.Subject[len(wire.WaitPrefix(l.queue)):]
	return l.d.nc.PublishMsg(&nats.Msg{
		Subject: wire.TaskStream + "." + wire.StreamName(l.queue) + ".q." + lane.Kind + "." + strconv.Itoa(lane.Priority) + "." + token,
		Reply:   l.inbox + "." + tokens, Header: h, Data: m.Data,
	})
}

// doubt looks whether tasks that have been out for long still are.
func (l *line) doubt(ctx context.Context) error {
	for token, lane := range l.book.Old(mostDoubts, doubtAfter, time.Now()) {
		there := false
		for p := wire.TaskPriority1; p <= wire.TaskPriority3 && !there; p++ {
			all, err := l.fetch(ctx, 1, wire.TaskStream+"."+wire.StreamName(l.queue)+".q."+lane.Kind+"."+strconv.Itoa(p)+"."+token, 1)
			if err != nil {
				return fmt.Errorf("look whether a task is out: %w", err)
			}
			there = len(all) > 0
		}
		if !there {
			l.book.Left(token)
		}
	}
	return nil
}

// fetch reads up to n messages of a subject, which may have wildcards, from a sequence on.
func (l *line) fetch(ctx context.Context, seq uint64, subject string, n int) ([]*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	inbox := l.d.nc.NewInbox()
	sub, err := l.d.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection is closed
	body := fmt.Sprintf(`{"seq":%d,"next_by_subj":%q,"batch":%d}`, seq, subject, n)
	if err := l.d.nc.PublishRequest("$JS.API.DIRECT.GET."+l.stream, inbox, []byte(body)); err != nil {
		return nil, err
	}
	var all []*nats.Msg
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			m.Subject = m.Header.Get(jetstream.SubjectHeader)
			all = append(all, m)
		case "204", "404": // the end of the batch, nothing at all
			return all, nil
		default:
			return nil, fmt.Errorf("the broker refused to read: %s %s", status, m.Header.Get("Description"))
		}
	}
}
