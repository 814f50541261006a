package builtin

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/jsonscan"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

const (
	pushTimeout  = 10 * time.Second
	pushAttempts = 5
	pushWorkers  = 16

	// pushBackoff is before the second try; it doubles each time: with five attempts an endpoint may be away for 7.5 s.
	pushBackoff = 500 * time.Millisecond

	// pushPatience bounds how long a Retry-After is waited for.
	pushPatience = time.Minute

	// pushAnswer is how much of an answer is read, for the record of a parked event and so that the connection is used again.
	pushAnswer = 4 << 10
)

// Headers of a pushed event.
const (
	pushEvent   = "Hozo-Event" // id, stream:sequence:index: the same however often it is sent
	pushSubject = "Hozo-Subject"
	pushAttempt = "Hozo-Attempt" // from 1, within this delivery
	pushTime    = "Hozo-Time"    // when it was stored, RFC 3339
	pushKey     = "Idempotency-Key"
)

// pusher sends each event to an HTTP endpoint, whose status code is the outcome: 2xx is done; 4xx parks the event, but
// for 408, 425 and 429; everything else is tried again in place and then parked.
type pusher struct {
	client *http.Client
	url    string
}

// pushParts makes a stage of each stream.
func pushParts(s *hozo.Service) ([]hozo.Part, error) {
	cfg, err := settings[manifest.Target](s.Conn())
	if err != nil {
		return nil, err
	}
	if len(s.Conn().Grant().Consumes) == 0 {
		return taskPushParts(s.Conn(), cfg), nil
	}
	workers := cmp.Or(max(cfg.Workers, 0), pushWorkers)
	p := newPusher(cfg.HTTP, cmp.Or(max(cfg.Timeout, 0), pushTimeout), workers)
	parts := []hozo.Part{p.connections()}
	for _, topic := range topics(s.Conn().Grant()) {
		stage := p.stageConfig(cfg, workers)
		if cfg.Batch == 0 {
			parts = append(parts, hozo.Stage(topic, p.handle, stage))
			continue
		}
		b := newBatcher(p, s.Conn(), cfg.Batch, cmp.Or(max(cfg.Linger, 0), pushLinger), stage.Attempts, workers)
		stage.Workers, stage.Settle = min(max(workers, cfg.Batch), pushBatchFrames), b.settle
		parts = append(parts, hozo.Stage(topic, b.handle, stage))
	}
	return append(parts, taskPushParts(s.Conn(), cfg)...), nil
}

// connections closes what is left open when the service has stopped.
func (p *pusher) connections() hozo.Part {
	return hozo.Func("connections", func(ctx context.Context, _ *hozo.Service) error {
		<-ctx.Done()
		p.client.CloseIdleConnections()
		return nil
	})
}

func (p *pusher) stageConfig(cfg manifest.Target, workers int) bus.StageConfig {
	return bus.StageConfig{
		Workers: workers, Attempts: cmp.Or(max(cfg.Attempts, 0), pushAttempts), Backoff: pushBackoff,
		Timeout: p.client.Timeout + pushPatience + time.Second,
	}
}

func newPusher(target string, timeout time.Duration, workers int) *pusher {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConns: workers, MaxIdleConnsPerHost: workers, MaxConnsPerHost: workers,
		IdleConnTimeout: time.Minute, ResponseHeaderTimeout: timeout, MaxResponseHeaderBytes: 64 << 10,
	}
	if socket, path, ok := manifest.SplitUnixURL(target); ok {
		target = "http://localhost" + path
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}
	}
	return &pusher{url: target, client: &http.Client{
		Transport: transport, Timeout: timeout,
		// An event belongs to the address in the manifest and to no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (p *pusher) handle(ctx context.Context, e bus.Event[[]byte], _ *bus.Out) error {
	id := e.ID.String()
	resp, err := p.post(ctx, e.Data, map[string]string{
		pushEvent: id, pushKey: id, pushSubject: e.Subject,
		pushAttempt: strconv.Itoa(e.Attempt), pushTime: e.Time.UTC().Format(time.RFC3339Nano),
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, pushAnswer))
	if err != nil && resp.StatusCode/100 == 2 {
		text = nil // it is done, whatever became of the rest
	}
	return p.outcome(ctx, resp, text)
}

// post sends data. The answer's body is the caller's to close.
func (p *pusher) post(ctx context.Context, data []byte, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(data))
	if err != nil {
		return nil, bus.Reject("push/request", err)
	}
	kind := "application/octet-stream"
	if jsonscan.Valid(data) {
		kind = "application/json"
	}
	req.Header.Set("Content-Type", kind)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	if trace, ok := bus.TraceOf(ctx); ok {
		req.Header.Set(wire.HeaderTraceParent, trace.String())
		if trace.State != "" {
			req.Header.Set(wire.HeaderTraceState, trace.State)
		}
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, &fault.Error{Code: "push/no-answer", Where: p.url, What: "the endpoint does not answer", Err: err}
	}
	return resp, nil
}

// outcome turns a status code into what becomes of the event.
func (p *pusher) outcome(ctx context.Context, resp *http.Response, text []byte) error {
	code := resp.StatusCode
	if code/100 == 2 {
		return nil
	}
	err := p.answered(code, string(text))
	if temporary(code) {
		if after := min(retryAfter(resp.Header.Get("Retry-After"), time.Now()), pushPatience); after > 0 && !pause(ctx, after) {
			return errors.Join(err, context.Cause(ctx))
		}
		return err
	}
	return bus.Reject(err.Code, err) // sending it again would be answered the same
}

func (p *pusher) answered(code int, text string) *fault.Error {
	return &fault.Error{
		Code: fmt.Sprintf("push/%d", code), Where: p.url,
		What: strings.TrimSpace(fmt.Sprintf("the endpoint answers %d %s", code, strings.TrimSpace(text))),
	}
}

// temporary reports whether a status code says "not now" rather than "not this".
func temporary(code int) bool {
	return code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests || code/100 == 5
}

// retryAfter reads the header's two forms; 0 when there is none that can be read.
func retryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(header, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(header)
	if err != nil {
		return 0
	}
	return max(at.Sub(now), 0)
}
