package node

import (
	"fmt"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

// slowAfter is how long a backlog must not shrink for its reader to be called slow. The janitor looks every two seconds,
// so a slow reader is named within five.
const slowAfter = 1500 * time.Millisecond

// slowReaders remembers how far behind readers were, to tell those who fall behind from those who catch up. Safe for
// concurrent use.
type slowReaders struct {
	mu   sync.Mutex
	seen map[readerKey]backlog
}

type readerKey struct{ stream, service string }

type backlog struct {
	behind uint64
	at     time.Time
	slow   time.Time // since when; zero while it is not
}

// look compares the readers of streams with what they were and names the slow ones.
func (r *slowReaders) look(now time.Time, streams []status.Stream) []status.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.seen
	r.seen = map[readerKey]backlog{}
	var problems []status.Problem
	for _, stream := range streams {
		for _, c := range stream.Consumers {
			behind := c.Lag + uint64(max(c.InFlight, 0))
			if behind < lagProblem {
				continue
			}
			key := readerKey{stream.Name, c.Service}
			was, known := before[key]
			is := was
			switch {
			case !known:
				is = backlog{behind: behind, at: now}
			case now.Sub(was.at) < slowAfter: // too early for another verdict
			case behind < was.behind:
				is = backlog{behind: behind, at: now} // it catches up
			default:
				is.behind, is.at = behind, now
				if is.slow.IsZero() {
					is.slow = was.at
				}
			}
			r.seen[key] = is
			if !is.slow.IsZero() {
				problems = append(problems, status.Problem{
					Code: "reader/slow", Service: c.Service, Since: is.slow,
					Title: fmt.Sprintf("%s does not keep up with stream %s: it is %d frames behind", c.Service, stream.Name, behind),
					Fix:   "hozo logs " + c.Service + "; scale it, make its handler faster, or give the stream another policy (full)",
				})
			}
		}
	}
	return problems
}
