package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/feed"
)

// watch runs work and, unless quiet, shows line on standard error while it runs: rewritten in place four times a second
// on a terminal, every five seconds elsewhere.
func (o *options) watch(quiet bool, work func(), line func() string) {
	if quiet {
		work()
		return
	}
	terminal := newPainter(o.env.Stderr, o.env).on
	every := 5 * time.Second
	if terminal {
		every = 250 * time.Millisecond
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if terminal {
					_, _ = io.WriteString(o.env.Stderr, "\r\x1b[K"+line()) // progress is not worth failing for
				} else {
					o.say("%s", line())
				}
			case <-done:
				if terminal {
					_, _ = io.WriteString(o.env.Stderr, "\r\x1b[K") // as above
				}
				return
			}
		}
	})
	work()
	close(done)
	wg.Wait()
}

func progressLine(p feed.Progress, in *feed.Input, took time.Duration) string {
	rate := float64(p.Bytes) / 1e6 / max(took.Seconds(), 0.001)
	line := fmt.Sprintf("%s sent, %d accepted, %.1f MB/s, %d retries", size(p.Bytes), p.Accepted, rate, p.Retries)
	if in.Size > 0 {
		share := min(float64(in.Consumed())/float64(in.Size), 1)
		full := int(share * barWidth)
		line = fmt.Sprintf("[%s%s] %3.0f%% ", strings.Repeat("#", full), strings.Repeat(".", barWidth-full), share*100) + line
	}
	return line
}

// barWidth of the progress bar: it and its figures fit in 100 columns.
const barWidth = 24
