package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/hozo-dev/hozo/internal/feed"
	"github.com/hozo-dev/hozo/internal/status"
)

// view shows what flows while it flows, and remembers where it stood still.
type view struct {
	demo
	started   time.Time
	stored    time.Time // when the archive had everything
	drain     status.Drain
	saturated map[string]int
	platform  int64 // most memory of keeper, node and broker together, in bytes
	live      bool
}

func newView(d demo) *view {
	return &view{demo: d, saturated: map[string]int{}, live: term.IsTerminal(int(os.Stdout.Fd()))}
}

// look is how often the view asks; redraw is how often it prints where it cannot draw over itself.
const (
	look   = 500 * time.Millisecond
	redraw = 3 * time.Second
)

// feed sends the input and returns when both sinks have stored what was accepted.
func (v *view) feed(ctx context.Context, source string) (feed.Progress, error) {
	v.started = time.Now()
	var result feed.Progress
	sent := make(chan error, 1)
	go func() { sent <- v.query(ctx, &result, "send", source) }()

	tick := time.NewTicker(look)
	defer tick.Stop()
	late := time.NewTimer(drainPatience)
	defer late.Stop()
	sending := true
	var printed time.Time
	for {
		select {
		case err := <-sent:
			if err != nil {
				return result, err
			}
			sending = false
		case <-tick.C:
		case <-late.C:
			return result, fmt.Errorf("the sinks have not stored everything within %s: look at `hozo status` in %s", drainPatience, v.dir)
		case <-ctx.Done():
			if sending {
				<-sent
			}
			return result, context.Cause(ctx)
		}
		var s status.Snapshot
		if err := v.query(ctx, &s, "status"); err != nil {
			return result, err
		}
		v.note(s)
		behind := v.drain.Behind(s)
		archive, lake := traffic(s, "archive"), traffic(s, "lake")
		if v.live || time.Since(printed) > redraw {
			v.draw(s)
			printed = time.Now()
		}
		parked := int64(0)
		for _, service := range s.Services {
			parked += int64(service.Traffic.Parked)
		}
		if done := result.Accepted - parked; !sending && int64(archive.EventsOut) >= done {
			if v.stored.IsZero() {
				v.stored = time.Now()
			}
			if int64(lake.EventsOut) >= done && behind == "" {
				v.draw(s)
				fmt.Println()
				return result, nil
			}
		}
	}
}

func (v *view) note(s status.Snapshot) {
	if s.Saturated != "" {
		v.saturated[s.Saturated]++
	}
	var rss int64
	for _, p := range s.Platform {
		rss += p.RSSBytes
	}
	v.platform = max(v.platform, rss)
}

func (v *view) draw(s status.Snapshot) {
	start, end := "", "\n"
	if v.live {
		start, end = "\r\x1b[K", ""
	}
	in := traffic(s, "ingest")
	fmt.Printf("%s%5.1fs  accepted %d (%.0f MB)  classified %d  enriched %d  routed %d  archived %d  in the lake %d  tasks %d%s",
		start, time.Since(v.started).Seconds(), in.EventsIn, float64(in.BytesIn)/1e6, traffic(s, "classify").EventsOut, traffic(s, "enrich").EventsOut,
		traffic(s, "route").EventsOut, traffic(s, "archive").EventsOut, traffic(s, "lake").EventsOut, traffic(s, "report").Tasks, end)
}

func traffic(s status.Snapshot, service string) status.Traffic {
	for _, one := range s.Services {
		if one.Name == service {
			return one.Traffic
		}
	}
	return status.Traffic{}
}

// bottleneck is the stage that was saturated most often.
func (v *view) bottleneck() string {
	best, times := "none: every stage kept up", 0
	for name, n := range v.saturated {
		if n > times {
			best, times = name, n
		}
	}
	return best
}
