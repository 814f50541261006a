package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/jsonscan"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
)

const (
	pushLinger = 10 * time.Millisecond

	// pushBatchBytes is the size at which a batch is sent though it has room for more events.
	pushBatchBytes = 4 << 20

	// pushBatchFrames bounds the frames that wait for company: small ones fill a batch together.
	pushBatchFrames = 256

	// pushOutcomes bounds the answer that lists outcomes: some 100 bytes for each of the most lines.
	pushOutcomes = 1 << 20
)

// pushLine is one event of a batch: a CloudEvent in JSON, on a line of its own.
type pushLine struct {
	SpecVersion string          `json:"specversion"`
	ID          string          `json:"id"`
	Source      string          `json:"source"`
	Type        string          `json:"type"`
	Time        string          `json:"time"`
	ContentType string          `json:"datacontenttype,omitempty"`
	Event       string          `json:"hozoevent"` // the same however often it is sent
	Subject     string          `json:"hozosubject"`
	TraceParent string          `json:"traceparent,omitempty"`
	TraceState  string          `json:"tracestate,omitempty"`
	Data        json.RawMessage `json:"data,omitempty"`
	Base64      []byte          `json:"data_base64,omitempty"`
}

// pushItem is an event that waits for its batch.
type pushItem struct {
	id      wire.EventID
	subject string
	data    []byte
	line    []byte
	header  nats.Header // stays with it when it is parked
}

// pushOutcome is a line of a 207: what became of one line of the request. Lines that are not named are done.
type pushOutcome struct {
	Index  int    `json:"index"` // from 0
	Status int    `json:"status"`
	Error  string `json:"error"`
}

// batcher sends many events in one request. Its stage hands it the events of a frame and learns by settle what became
// of them. Whoever begins a batch sends it, when it is full or its time is over; the others wait for that.
type batcher struct {
	push     *pusher
	conn     *bus.Conn
	size     int
	linger   time.Duration
	attempts int
	backoff  time.Duration
	slots    chan struct{} // one a request

	mu      sync.Mutex
	pending map[frameName][]pushItem // of frames in hand
	open    *pushBatch               // has room
}

type pushBatch struct {
	items []pushItem
	bytes int
	full  chan struct{}
	done  chan struct{}
	err   error // read after done
}

func newBatcher(p *pusher, conn *bus.Conn, size int, linger time.Duration, attempts, requests int) *batcher {
	return &batcher{
		push: p, conn: conn, size: size, linger: linger, attempts: attempts, backoff: pushBackoff,
		slots: make(chan struct{}, requests), pending: make(map[frameName][]pushItem),
	}
}

// handle keeps an event until its frame is settled.
func (b *batcher) handle(ctx context.Context, e bus.Event[[]byte], _ *bus.Out) error {
	item := pushItem{id: e.ID, subject: e.Subject, data: bytes.Clone(e.Data), header: nats.Header{}}
	ce := e.CloudEvent()
	line := pushLine{
		SpecVersion: "1.0", ID: ce.ID, Source: ce.Source, Type: ce.Type, Time: e.Time.UTC().Format(time.RFC3339Nano),
		ContentType: ce.ContentType, Event: e.ID.String(), Subject: e.Subject,
	}
	if trace, ok := bus.TraceOf(ctx); ok {
		line.TraceParent, line.TraceState = trace.String(), trace.State
		trace.Put(item.header)
	}
	if ce.ContentType != "" {
		item.header[wire.HeaderContentType] = []string{ce.ContentType}
	}
	if jsonscan.Valid(item.data) {
		line.Data = item.data
	} else {
		line.Base64 = item.data
	}
	var err error
	if item.line, err = json.Marshal(line); err != nil {
		return bus.Reject("push/request", err)
	}
	name := frameName{e.ID.Stream, e.ID.Seq}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending[name] = append(b.pending[name], item)
	return nil
}

// settle returns when every event of the frame is delivered or parked.
func (b *batcher) settle(ctx context.Context, first wire.EventID) error {
	name := frameName{first.Stream, first.Seq}
	b.mu.Lock()
	items := b.pending[name]
	delete(b.pending, name)
	var begun, others []*pushBatch
	for _, item := range items {
		batch, mine := b.joinLocked(item)
		switch {
		case mine:
			begun = append(begun, batch)
		case (len(begun) == 0 || begun[len(begun)-1] != batch) && (len(others) == 0 || others[len(others)-1] != batch):
			others = append(others, batch)
		}
	}
	b.mu.Unlock()
	if len(items) == 0 {
		// An event that came back while its frame was in hand went with that.
		return errors.New("the events of the frame are on their way already")
	}
	var group errgroup.Group
	for _, batch := range begun {
		group.Go(func() error {
			b.run(ctx, batch)
			return batch.err
		})
	}
	err := group.Wait()
	for _, batch := range others {
		<-batch.done // whoever began it ends when the same work does
		err = errors.Join(err, batch.err)
	}
	return err
}

// joinLocked puts an item into the open batch, or begins one.
func (b *batcher) joinLocked(item pushItem) (batch *pushBatch, begun bool) {
	if b.open == nil {
		b.open, begun = &pushBatch{full: make(chan struct{}), done: make(chan struct{})}, true
	}
	batch = b.open
	batch.items = append(batch.items, item)
	batch.bytes += len(item.line) + 1
	if len(batch.items) >= b.size || batch.bytes >= pushBatchBytes {
		close(batch.full)
		b.open = nil
	}
	return batch, begun
}

// run waits for a batch to fill and sends it.
func (b *batcher) run(ctx context.Context, batch *pushBatch) {
	defer close(batch.done)
	linger := time.NewTimer(b.linger)
	defer linger.Stop()
	select {
	case <-batch.full:
	case <-linger.C:
	case <-ctx.Done():
	}
	b.mu.Lock()
	if b.open == batch {
		b.open = nil
	}
	b.mu.Unlock()
	select {
	case b.slots <- struct{}{}:
		defer func() { <-b.slots }()
		batch.err = b.send(ctx, batch.items)
	case <-ctx.Done():
		batch.err = context.Cause(ctx)
	}
}

// send sends items until each is delivered or parked.
func (b *batcher) send(ctx context.Context, items []pushItem) error {
	for attempt := 1; ; attempt++ {
		again, after, why := b.post(ctx, items, attempt)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(again.refused) > 0 && len(items) > 1 && len(again.refused) == len(items) {
			// Refused as a whole: only by itself can the one that is wrong be found.
			for _, item := range items {
				if err := b.send(ctx, []pushItem{item}); err != nil {
					return err
				}
			}
			return nil
		}
		for i, item := range again.refused {
			if err := b.park(ctx, item, again.because[i], attempt); err != nil {
				return err
			}
		}
		if items = again.items; len(items) == 0 {
			return nil
		}
		if attempt >= b.attempts {
			for _, item := range items {
				if err := b.park(ctx, item, why, attempt); err != nil {
					return err
				}
			}
			return nil
		}
		b.conn.Counters().Retried.Add(uint64(len(items)))
		if !pause(ctx, max(b.backoff<<min(attempt-1, 10), after)) {
			return context.Cause(ctx)
		}
	}
}

// leftover is what a request did not get done.
type leftover struct {
	items   []pushItem // to be sent again
	refused []pushItem // not to be
	because []error    // of each that was refused
}

// post sends one request.
func (b *batcher) post(ctx context.Context, items []pushItem, attempt int) (left leftover, after time.Duration, why error) {
	var body bytes.Buffer
	for _, item := range items {
		body.Write(item.line)
		body.WriteByte('\n')
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.push.url, &body)
	if err != nil {
		return leftover{items: items}, 0, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set(pushAttempt, strconv.Itoa(attempt))
	resp, err := b.push.client.Do(req)
	if err != nil {
		return leftover{items: items}, 0, &fault.Error{Code: "push/no-answer", Where: b.push.url, What: "the endpoint does not answer", Err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusMultiStatus {
		return b.outcomes(items, resp.Body)
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, pushAnswer)) // the status code says it all
	why = b.push.answered(resp.StatusCode, string(text))
	switch {
	case resp.StatusCode/100 == 2:
		return leftover{}, 0, nil
	case temporary(resp.StatusCode):
		return leftover{items: items}, min(retryAfter(resp.Header.Get("Retry-After"), time.Now()), pushPatience), why
	}
	left.refused = items
	for range items {
		left.because = append(left.because, why)
	}
	return left, 0, why
}

// outcomes reads what became of each line. When that cannot be read to its end all of them are sent again.
func (b *batcher) outcomes(items []pushItem, body io.Reader) (left leftover, after time.Duration, why error) {
	lines := json.NewDecoder(io.LimitReader(body, pushOutcomes))
	seen := make(map[int]bool)
	for {
		var o pushOutcome
		err := lines.Decode(&o)
		if errors.Is(err, io.EOF) {
			return left, 0, why
		}
		if err == nil && (o.Index < 0 || o.Index >= len(items) || seen[o.Index]) {
			err = fmt.Errorf("line %d is none of the request's %d, or is named twice", o.Index, len(items))
		}
		if err != nil {
			return leftover{items: items}, 0, &fault.Error{Code: "push/bad-answer", Where: b.push.url, What: "the endpoint's list of outcomes cannot be read", Err: err}
		}
		seen[o.Index] = true
		failed := b.push.answered(o.Status, o.Error)
		switch {
		case o.Status/100 == 2:
		case temporary(o.Status):
			left.items, why = append(left.items, items[o.Index]), failed
		default:
			left.refused, left.because = append(left.refused, items[o.Index]), append(left.because, failed)
		}
	}
}

func (b *batcher) park(ctx context.Context, item pushItem, why error, attempts int) error {
	err := b.conn.Park(ctx, bus.Parked{Event: item.id, Subject: item.subject, Data: item.data, Err: why, Attempts: attempts, Header: item.header})
	if err != nil {
		pause(ctx, b.backoff) // the frame comes again at once
		return fmt.Errorf("park %s: %w", item.id, err)
	}
	return nil
}
