package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/plan"
)

// firstProbes is the pause after the first failed probe. It doubles up to the interval, so that a service that is up
// in a moment does not look starting for a whole interval.
const firstProbes = 20 * time.Millisecond

// probe asks one process again and again whether it can work. It ends with the process.
type probe struct {
	results chan error // nil for a success
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// startProbe returns a probe of the process of s by h, or nil when h says nothing that can be asked. READY=1 and lines
// of output are not asked for: they come from the keeper, see owner.hear. With a pid only answers of that process, or of
// one below it, count; with 0 it does not matter which of those that share a socket answers.
func startProbe(ctx context.Context, h *plan.Health, s plan.Spec, pid int) *probe {
	if h == nil || h.HTTP == "" && h.TCP == "" && len(h.Exec) == 0 && h.GRPC == "" {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &probe{results: make(chan error), cancel: cancel}
	p.wg.Go(func() { p.run(ctx, *h, s, pid) })
	return p
}

// stop ends the probe and waits for it; a nil probe is stopped already.
func (p *probe) stop() {
	if p != nil {
		p.cancel()
		p.wg.Wait()
	}
}

// result returns the channel of results; that of a nil probe never yields.
func (p *probe) result() <-chan error {
	if p == nil {
		return nil
	}
	return p.results
}

func (p *probe) run(ctx context.Context, h plan.Health, s plan.Spec, pid int) {
	ask := prober(h, s, pid)
	pause := min(firstProbes, h.Interval)
	up := false
	for {
		err := once(ctx, h.Timeout, ask)
		select {
		case p.results <- err:
		case <-ctx.Done():
			return
		}
		up = up || err == nil
		if up {
			pause = h.Interval
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		pause = min(pause*2, h.Interval)
	}
}

func once(ctx context.Context, timeout time.Duration, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := ask(ctx)
	if err != nil && !errors.Is(err, errOthers) && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no answer within %s", brief(timeout))
	}
	return err
}

func prober(h plan.Health, s plan.Spec, pid int) func(context.Context) error {
	switch {
	case h.TCP != "":
		return func(ctx context.Context) error { return askTCP(ctx, h.TCP, pid) }
	case len(h.Exec) > 0:
		return func(ctx context.Context) error { return askExec(ctx, h.Exec, s) }
	case h.GRPC != "":
		return func(ctx context.Context) error { return askGRPC(ctx, h, pid) }
	}
	client := &http.Client{
		Transport: &http.Transport{
			DialContext:       dialer(h, pid),
			DisableKeepAlives: true, // a kept connection would pin the probe to what used to be there
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) error { return askHTTP(ctx, client, h.HTTP) }
}

// dialer connects to what h asks over: its unix socket, if it has one.
func dialer(h plan.Health, pid int) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if h.Unix != "" {
			network, address = "unix", h.Unix
		}
		return dial(ctx, network, address, pid)
	}
}

// mostTries bounds how often one probe connects anew because another process answered.
const mostTries = 50

// dial connects, with a pid until that process has accepted.
func dial(ctx context.Context, network, address string, pid int) (net.Conn, error) {
	var dialer net.Dialer
	for try := 1; ; try++ {
		conn, err := dialer.DialContext(ctx, network, address)
		switch {
		case err != nil && try > 1 && ctx.Err() != nil:
			return nil, errOthers
		case err != nil || pid == 0:
			return conn, err
		}
		if err = acceptedBy(ctx, conn, pid); err == nil {
			return conn, nil
		}
		_ = conn.Close() // nothing was asked on it
		if !errors.Is(err, errOthers) || try == mostTries || ctx.Err() != nil {
			return nil, err
		}
	}
}

func askTCP(ctx context.Context, address string, pid int) error {
	conn, err := dial(ctx, "tcp", address, pid)
	if err != nil {
		return err
	}
	return conn.Close()
}

// errNotNow is the answer of a process that works and says that it cannot serve at the moment, most often because what
// it leans on is away. A restart would not bring that back.
var (
	errNotNow     = errors.New("503 Service Unavailable")
	errNotServing = errors.New("NOT_SERVING") // gRPC's word for it
)

func askHTTP(ctx context.Context, client *http.Client, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "hozo-health")
	resp, err := client.Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			return inner.Err // the method and the URL are known; the reason is what matters
		}
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // the status counts; reading a little lets the service finish its write
	if resp.StatusCode == http.StatusServiceUnavailable {
		return fmt.Errorf("GET answers %w", errNotNow)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("GET answers %s", resp.Status)
	}
	return nil
}

// resolved returns h with each address of a listener replaced by what that listener is bound to.
func resolved(h *plan.Health, s plan.Spec, bound map[string]string) *plan.Health {
	if h == nil {
		return nil
	}
	r := *h
	for _, l := range s.Listen {
		address := bound[s.Socket(l)]
		if address == "" || l.Network != "tcp" {
			continue
		}
		if r.TCP == l.Address {
			r.TCP = address
		}
		if r.GRPC == l.Address {
			r.GRPC = address
		}
		if u, err := url.Parse(r.HTTP); err == nil && r.HTTP != "" && u.Host == l.Address {
			u.Host = address
			r.HTTP = u.String()
		}
	}
	return &r
}
