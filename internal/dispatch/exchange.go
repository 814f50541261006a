package dispatch

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

// first takes the first task of a lane; nil when there is none.
func (l *line) first(ctx context.Context, lane Lane) (*nats.Msg, error) {
	w := l.lanes[lane]
	if w == nil {
		return nil, nil
	}
	for {
		for len(w.read) > 0 {
			m := w.read[0]
			w.read = w.read[1:]
			if m.Header.Get(headerSchedule) != "" { // not what is left of one that was cancelled
				return m, nil
			}
		}
		// The more lanes there are, the fewer of each are read, to bound what is held.
		n := max(1, min(mostFetched, 16*mostFetched/len(l.lanes)))
		all, err := l.fetch(ctx, w.from, wire.WaitPrefix(l.queue)+lane.Kind+"."+strconv.Itoa(lane.Priority)+"."+lane.Key+".*", n)
		if err != nil {
			return nil, fmt.Errorf("read what waits: %w", err)
		}
		if len(all) == 0 {
			return nil, nil
		}
		w.read, w.from = all, sequence(all[len(all)-1])+1
	}
}

const (
	headerScheduler      = "Nats-Scheduler"
	headerSchedule       = "Nats-Schedule"
	headerScheduleNext   = "Nats-Schedule-Next"
	headerExpectedOfSubj = "Nats-Expected-Last-Subject-Sequence-Subject"
)

// move has the broker store the task where workers look and remove it where it waits, in one step, if it is there still.
func (l *line) move(lane Lane, token string, m *nats.Msg) error {
	h := nats.Header{}
	for name, values := range m.Header {
		if !strings.HasPrefix(name, "Nats-") {
			h[name] = values
		}
	}
	h[headerScheduler], h[headerScheduleNext] = []string{m.Subject}, []string{"purge"}
	h[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(sequence(m), 10)}
	h[headerExpectedOfSubj] = []string{m.Subject}
	tokens := m.Subject[len(wire.WaitPrefix(l.queue)):]
	return l.d.nc.PublishMsg(&nats.Msg{
		Subject: wire.TaskStream + "." + wire.StreamName(l.queue) + ".q." + lane.Kind + "." + strconv.Itoa(lane.Priority) + "." + token,
		Reply:   l.inbox + "." + tokens, Header: h, Data: m.Data,
	})
}

// doubt looks whether tasks that have been out for long still are.
func (l *line) doubt(ctx context.Context) error {
	for token, lane := range l.book.Old(mostDoubts, doubtAfter, time.Now()) {
		there := false
		for p := wire.TaskPriority1; p <= wire.TaskPriority3 && !there; p++ {
			all, err := l.fetch(ctx, 1, wire.TaskStream+"."+wire.StreamName(l.queue)+".q."+lane.Kind+"."+strconv.Itoa(p)+"."+token, 1)
			if err != nil {
				return fmt.Errorf("look whether a task is out: %w", err)
			}
			there = len(all) > 0
		}
		if !there {
			l.book.Left(token)
		}
	}
	return nil
}

// fetch reads up to n messages of a subject, which may have wildcards, from a sequence on.
func (l *line) fetch(ctx context.Context, seq uint64, subject string, n int) ([]*nats.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	inbox := l.d.nc.NewInbox()
	sub, err := l.d.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection is closed
	body := fmt.Sprintf(`{"seq":%d,"next_by_subj":%q,"batch":%d}`, seq, subject, n)
	if err := l.d.nc.PublishRequest("$JS.API.DIRECT.GET."+l.stream, inbox, []byte(body)); err != nil {
		return nil, err
	}
	var all []*nats.Msg
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			m.Subject = m.Header.Get(jetstream.SubjectHeader)
			all = append(all, m)
		case "204", "404": // the end of the batch, nothing at all
			return all, nil
		default:
			return nil, fmt.Errorf("the broker refused to read: %s %s", status, m.Header.Get("Description"))
		}
	}
}

func sequence(m *nats.Msg) uint64 {
	seq, _ := strconv.ParseUint(m.Header.Get(jetstream.SequenceHeader), 10, 64) // the broker wrote it
	return seq
}
