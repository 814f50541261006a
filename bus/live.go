package bus

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
)

// isLive reports whether subject is declared live: sent to whoever listens, stored nowhere.
func (c *Conn) isLive(subject string) bool {
	for _, pattern := range c.cfg.Grant.Live {
		if pattern == subject || wire.Covers(pattern, subject) {
			return true
		}
	}
	return false
}

// liveCount is what a process has sent to one live subject.
type liveCount struct{ events, bytes atomic.Uint64 }

// liveCounts are the live subjects of a process. Reading takes no lock: publishing live events is to cost little more
// than what nats.go does. Safe for concurrent use.
type liveCounts struct {
	all atomic.Pointer[map[string]*liveCount] // replaced as a whole
	mu  sync.Mutex                            // of those who replace it
}

// live returns the count of a live subject, or nil when subject is not live.
func (c *Conn) live(subject string) *liveCount {
	if all := c.counters.live.all.Load(); all != nil {
		if count := (*all)[subject]; count != nil {
			return count
		}
	}
	if !c.isLive(subject) {
		return nil
	}
	return c.counters.live.add(subject)
}

// add makes the count of a subject. Beyond keptRoutes subjects the rest are counted together: programs that make
// subjects from data would grow without end.
func (l *liveCounts) add(subject string) *liveCount {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]*liveCount{}
	if have := l.all.Load(); have != nil {
		if len(*have) >= keptRoutes {
			subject = otherSubjects
		}
		if count := (*have)[subject]; count != nil {
			return count
		}
		maps.Copy(all, *have)
	}
	all[subject] = &liveCount{}
	l.all.Store(&all)
	return all[subject]
}

// otherSubjects stands for live subjects that are not counted one by one. It is no subject that a program can have.
const otherSubjects = "…"

func (l *liveCounts) addTo(r *wire.Report) {
	all := l.all.Load()
	if all == nil {
		return
	}
	if r.Routes == nil {
		r.Routes = map[string]uint64{}
	}
	for subject, count := range *all {
		n := count.events.Load()
		r.EventsOut += n
		r.BytesOut += count.bytes.Load()
		r.Routes[subject] += n
	}
}

// send sends one event. Without options and a trace it has no headers.
func (l *liveCount) send(ctx context.Context, c *Conn, subject string, data []byte, ceType, contentType string) error {
	err := error(nil)
	if h := c.liveHeader(ctx, subject, ceType, contentType); h != nil {
		err = c.nc.PublishMsg(&nats.Msg{Subject: subject, Header: h, Data: data})
	} else {
		err = c.nc.Publish(subject, data)
	}
	if err != nil {
		return publishFault(subject, err)
	}
	l.events.Add(1)
	l.bytes.Add(uint64(len(data)))
	return nil
}

// liveHeader returns the headers of something that nothing stores, or nil when it needs none.
func (c *Conn) liveHeader(ctx context.Context, subject, ceType, contentType string) nats.Header {
	var h nats.Header
	if ceType != "" {
		h = nats.Header{}
		if ceType == subjectType {
			ceType = subject
		}
		c.cloudEvent(nuid.Next(), ceType, contentType, time.Now()).Put(h)
	} else if ct := stated(contentType); ct != "" {
		h = nats.Header{wire.HeaderContentType: {ct}}
	}
	if t, ok := TraceOf(ctx); ok {
		if h == nil {
			h = nats.Header{}
		}
		t.Child().Put(h)
	}
	return h
}

// watched returns the subject patterns to subscribe to for topic: the lines of watches that lie within it, or the part
// of a wider line that is the topic's.
func (c *Conn) watched(topic string) []string {
	below := topic + ".>"
	var all []string
	for _, line := range c.cfg.Grant.Watches {
		if wire.Covers(topic, line) || wire.Covers(below, line) {
			all = append(all, line)
			continue
		}
		for _, part := range []string{topic, below} {
			if wire.Covers(line, part) && !slices.Contains(all, part) {
				all = append(all, part)
			}
		}
	}
	return all
}
