package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hozo-dev/hozo/wire"
)

// sent is how sending a load went.
type sent struct {
	took     time.Duration
	accepted uint64
	refused  uint64 // requests answered with "later" and repeated
}

// send posts every body of l, conns at a time, each connection in a closed loop: its next request begins when the last
// one is answered. A refused body is sent again under the same number, so that it can be recognised. The error wraps
// errWrong when a body is accepted in part.
func send(ctx context.Context, url, name string, l load, conns int) (sent, error) {
	client := &http.Client{Transport: &http.Transport{
		MaxConnsPerHost: conns, MaxIdleConnsPerHost: conns, WriteBufferSize: 256 << 10, DisableCompression: true,
	}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	var accepted, refused atomic.Uint64
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for conn := range conns {
		group.Go(func() error {
			producer := fmt.Sprintf("%s-%d", name, conn)
			for batch := 1; ; batch++ {
				i := int(next.Add(1)) - 1
				if i >= len(l.bodies) {
					return nil
				}
				n, again, err := post(ctx, client, url, producer, batch, l.bodies[i])
				refused.Add(again)
				if err != nil {
					return err
				}
				if n != uint64(l.counts[i]) {
					return fmt.Errorf("%w: %d of %d events of a request accepted", errWrong, n, l.counts[i])
				}
				accepted.Add(n)
			}
		})
	}
	err := group.Wait()
	return sent{time.Since(start), accepted.Load(), refused.Load()}, err
}

// post sends one body until it is taken and returns the number of events accepted and how often it was refused.
func post(ctx context.Context, client *http.Client, url, producer string, batch int, body []byte) (accepted, refused uint64, err error) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
		if err != nil {
			return 0, refused, err
		}
		req.Header.Set("Content-Type", "application/x-ndjson")
		req.Header.Set(wire.HTTPProducer, producer)
		req.Header.Set(wire.HTTPBatch, strconv.Itoa(batch))
		resp, err := client.Do(req)
		if err != nil {
			return 0, refused, fmt.Errorf("send: %w", err)
		}
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		err = errors.Join(err, resp.Body.Close())
		if err != nil {
			return 0, refused, fmt.Errorf("read answer: %w", err)
		}
		switch resp.StatusCode {
		case http.StatusOK:
			var said struct {
				Accepted uint64 `json:"accepted"`
			}
			if err := json.Unmarshal(answer, &said); err != nil {
				return 0, refused, fmt.Errorf("read answer %q: %w", answer, err)
			}
			return said.Accepted, refused, nil
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			refused++
			wait := pause
			if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
				wait = max(wait, time.Duration(seconds)*time.Second)
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return 0, refused, context.Cause(ctx)
			}
		default:
			return 0, refused, fmt.Errorf("send: %s: %s", resp.Status, answer)
		}
	}
}
