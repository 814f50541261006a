package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
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

// size writes n bytes for a person, in powers of 1000 as disks and networks are sold.
func size(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	f, i := float64(n), 0
	for f >= 1000 && i < len(units)-1 {
		f /= 1000
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
