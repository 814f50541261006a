// Package feed sends NDJSON to an ingest service: it cuts a stream of lines into numbered batches, posts them over
// several connections and repeats what was not answered, so that every line is stored exactly once.
//
// Each connection is a producer of its own and numbers its batches from 1. Ingest recognises a repeated pair of
// producer and number, so a batch whose answer was lost is sent again without being stored twice. Batches go to the
// connections in turn: the same input with the same producer name and number of connections makes the same pairs.
package feed

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// Config tunes a Feed. The zero Config is ready to use.
type Config struct {
	Producer    string // name of this sender; default random, so that sending a file twice stores it twice
	Connections int    // batches on their way at once; default 4
	BatchBytes  int    // a batch is posted when it reaches this size; default 1 MiB
	// PatientFor is how long one batch is repeated while the service cannot take it. Default: for ever.
	PatientFor time.Duration
	Client     *http.Client // default: a client of its own
	Logger     *slog.Logger // nil discards
}

func (c Config) withDefaults() Config {
	c.Producer = cmp.Or(c.Producer, "send-"+rand.Text())
	c.Connections = cmp.Or(c.Connections, 4)
	c.BatchBytes = cmp.Or(c.BatchBytes, 1<<20)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Rejected is a line that ingest refused.
type Rejected struct {
	Line   int    `json:"line"` // in the input, from 1
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

// Progress counts what a Feed has done so far.
type Progress struct {
	Bytes      int64 `json:"bytes"`      // sent and answered
	Accepted   int64 `json:"accepted"`   // lines stored
	Rejected   int64 `json:"rejected"`   // lines refused for what they are
	Batches    int64 `json:"batches"`    // answered
	Retries    int64 `json:"retries"`    // posts that had to be repeated
	Duplicates int64 `json:"duplicates"` // repeats that ingest recognised
}

// Feed sends one input. Its methods are safe for concurrent use.
type Feed struct {
	url string
	cfg Config

	bytes, accepted, rejected, batches, retries, duplicates atomic.Int64

	mu     sync.Mutex
	sample []Rejected // the first rejections, in order of arrival
}

// rejectedSample bounds how many rejected lines are remembered: enough to see a pattern, few enough to read.
const rejectedSample = 20

// New makes a Feed that posts to url, an ingest endpoint.
func New(url string, cfg Config) *Feed {
	f := &Feed{url: url, cfg: cfg.withDefaults()}
	if f.cfg.Client == nil {
		f.cfg.Client = &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: f.cfg.Connections, DisableCompression: true},
			Timeout:   2 * time.Minute, // longer than ingest's own patience with a full stream
		}
	}
	return f
}

// Progress returns what was done so far.
func (f *Feed) Progress() Progress {
	return Progress{
		Bytes: f.bytes.Load(), Accepted: f.accepted.Load(), Rejected: f.rejected.Load(),
		Batches: f.batches.Load(), Retries: f.retries.Load(), Duplicates: f.duplicates.Load(),
	}
}

// Rejections returns the first lines that were refused.
func (f *Feed) Rejections() []Rejected {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Rejected(nil), f.sample...)
}

type batch struct {
	number    uint64
	firstLine int
	body      []byte
}

// Send reads lines from r to its end and returns when all are answered. It stops at the first batch that can never be
// sent, at an error of r, and when ctx ends; what was answered before is stored.
func (f *Feed) Send(ctx context.Context, r io.Reader) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer f.cfg.Client.CloseIdleConnections()

	queues := make([]chan batch, f.cfg.Connections)
	var wg sync.WaitGroup
	for i := range queues {
		queues[i] = make(chan batch, 1) // one batch waits while one is posted
		producer := fmt.Sprintf("%s-%d", f.cfg.Producer, i)
		wg.Go(func() {
			for b := range queues[i] {
				if err := f.deliver(ctx, producer, b); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	err := f.cut(ctx, r, queues)
	for _, q := range queues {
		close(q)
	}
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// cut reads r into batches that end at line ends and deals them to the queues in turn.
func (f *Feed) cut(ctx context.Context, r io.Reader, queues []chan batch) error {
	var (
		n    int
		line = 1
		rest []byte
	)
	for {
		buf := make([]byte, len(rest), max(f.cfg.BatchBytes, len(rest)+f.cfg.BatchBytes/2))
		copy(buf, rest)
		read, err := io.ReadFull(r, buf[len(rest):cap(buf)])
		buf = buf[:len(rest)+read]
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return fmt.Errorf("read input: %w", err)
		}
		body := buf
		if !last {
			end := bytes.LastIndexByte(buf, '\n') + 1
			if end == 0 { // one line longer than the buffer: take more of it, ingest will judge its length
				rest = buf
				if len(rest) > maxLine {
					return &fault.Error{
						Code: "send/line-too-long", Kind: fault.Misuse, Where: fmt.Sprintf("line %d", line),
						What: fmt.Sprintf("a line is longer than %d MiB", maxLine>>20), Fix: "send one JSON value a line (NDJSON)",
					}
				}
				continue
			}
			body, rest = buf[:end:end], buf[end:]
		}
		if len(body) > 0 {
			b := batch{number: uint64(n/len(queues)) + 1, firstLine: line, body: body}
			line += bytes.Count(body, []byte{'\n'})
			select {
			case queues[n%len(queues)] <- b:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			n++
		}
		if last {
			return nil
		}
	}
}

// maxLine bounds the memory that a line without an end can take. It is above any ingest's own limit.
const maxLine = 64 << 20

// answer is ingest's reply to a batch that it has taken.
type answer struct {
	Accepted      int64      `json:"accepted"`
	Rejected      []Rejected `json:"rejected"`
	RejectedTotal int64      `json:"rejected_total"`
	Duplicate     bool       `json:"duplicate"`
	Error         *struct {
		Code, What, Where, Fix string
	} `json:"error"`
}

// maxAnswer bounds what is read of an answer: a hundred rejected lines with their reasons fit many times.
const maxAnswer = 1 << 20

// deliver posts b until it is answered for good.
func (f *Feed) deliver(ctx context.Context, producer string, b batch) error {
	if f.cfg.PatientFor > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.cfg.PatientFor, &fault.Error{
			Code: "send/impatient", What: fmt.Sprintf("the service did not take a batch within %s", f.cfg.PatientFor),
			Where: f.url, Fix: "look at `hozo status`; a longer --patience waits longer",
		})
		defer cancel()
	}
	for attempt := 0; ; attempt++ {
		wait, err := f.post(ctx, producer, b)
		if err == nil || wait < 0 {
			return err
		}
		f.retries.Add(1)
		f.cfg.Logger.DebugContext(ctx, "batch repeated", "producer", producer, "batch", b.number, "error", err)
		// Exponential from 50 ms to 3 s, never less than what the service asked for, spread so that senders do not march in step.
		pause := max(wait, min(50*time.Millisecond<<min(attempt, 6), 3*time.Second))
		pause += time.Duration(mathrand.Int64N(int64(pause)/4 + 1))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// post sends b once. A negative wait means that repeating it is no use.
func (f *Feed) post(ctx context.Context, producer string, b batch) (wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url, bytes.NewReader(b.body))
	if err != nil {
		return -1, err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set(wire.HTTPProducer, producer)
	req.Header.Set(wire.HTTPBatch, strconv.FormatUint(b.number, 10))
	resp, err := f.cfg.Client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return -1, context.Cause(ctx)
		}
		return 0, err
	}
	defer resp.Body.Close()
	var a answer
	decodeErr := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&a)
	switch resp.StatusCode {
	case http.StatusOK:
		if decodeErr != nil {
			return 0, fmt.Errorf("decode answer: %w", decodeErr)
		}
		f.account(b, a)
		return 0, nil
	case http.StatusBadRequest:
		if a.RejectedTotal > 0 && a.Accepted == 0 { // every line of the batch is bad: nothing to store, nothing to repeat
			f.account(b, a)
			return 0, nil
		}
		return -1, refusal(f.url, resp, a)
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // absent or a date: our own backoff will do
		return time.Duration(seconds) * time.Second, refusal(f.url, resp, a)
	default:
		return -1, refusal(f.url, resp, a)
	}
}

func refusal(url string, resp *http.Response, a answer) error {
	e := &fault.Error{Code: "send/refused", What: "the service answered " + resp.Status, Where: url}
	if a.Error != nil {
		e.Code, e.What, e.Fix = a.Error.Code, a.Error.What, a.Error.Fix
	}
	return e
}

func (f *Feed) account(b batch, a answer) {
	f.bytes.Add(int64(len(b.body)))
	f.accepted.Add(a.Accepted)
	f.rejected.Add(a.RejectedTotal)
	f.batches.Add(1)
	if a.Duplicate {
		f.duplicates.Add(1)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range a.Rejected {
		if len(f.sample) < rejectedSample {
			r.Line += b.firstLine - 1
			f.sample = append(f.sample, r)
		}
	}
}
