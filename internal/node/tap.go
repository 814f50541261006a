package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/wire"
)

// tapBuffer bounds the messages that wait to be shown; what comes on top is dropped and counted, so that a slow terminal
// holds nobody up.
const tapBuffer = 256

// Tap says what to show of what flows.
type Tap struct {
	Subject string  `json:"subject"` // of a stream, or a live one; with everything below it
	Sample  float64 `json:"sample"`  // share of the events, 0 to 1; 0 is all
	Where   string  `json:"where"`   // condition over the event's JSON, as of a route
}

// Tapped is one event that flows by, or how many were not shown.
type Tapped struct {
	Time    time.Time       `json:"time"`
	Subject string          `json:"subject,omitempty"`
	Index   int             `json:"index"`            // in its frame
	Of      int             `json:"of,omitempty"`     // events in the frame
	Header  nats.Header     `json:"header,omitempty"` // of the message
	Data    json.RawMessage `json:"data,omitempty"`   // the event if it is JSON, else a string, or Bytes
	Bytes   []byte          `json:"bytes,omitempty"`  // the event when it is no text
	Dropped uint64          `json:"dropped,omitempty"`
	Ready   bool            `json:"ready,omitempty"` // the first line: from now on everything is seen
}

// tap hands events that flow by to send until ctx ends or send returns false. It stores nothing and asks no stream.
func (n *Node) tap(ctx context.Context, t Tap, send func(Tapped) bool) error {
	var condition *vm.Program
	if t.Where != "" {
		var err error
		if condition, err = manifest.CompileCondition(t.Where); err != nil {
			return &fault.Error{Code: "tap/condition", Kind: fault.Misuse, What: "the condition cannot be read", Where: t.Where, Err: err, Fix: `write one over the event's fields, such as type == "PushEvent"`}
		}
	}
	if t.Sample < 0 || t.Sample > 1 || t.Subject == "" {
		return &fault.Error{Code: "tap/bad-request", Kind: fault.Misuse, What: "a subject is needed, and a sample of 0 to 100 %", Fix: "hozo tap events.raw --sample 1%"}
	}
	if m := n.current(); m != nil && !flows(m, t.Subject) {
		return &fault.Error{
			Code: "tap/unknown-subject", Kind: fault.Misuse, What: "nothing in the manifest stores, sends or asks on this subject", Where: t.Subject,
			Fix: "`hozo graph` shows what flows where; a pattern such as events.> is a subject too",
		}
	}
	msgs := make(chan *nats.Msg, tapBuffer)
	var subs []*nats.Subscription
	for _, subject := range storedOn(n.current(), t.Subject) {
		sub, err := n.nats.ChanSubscribe(subject, msgs)
		if err != nil {
			return &fault.Error{Code: "tap/bad-subject", Kind: fault.Misuse, What: "this is no subject", Where: t.Subject, Err: err, Fix: "hozo stream ls lists streams"}
		}
		defer func() { _ = sub.Unsubscribe() }() // it fails only when the connection has ended
		subs = append(subs, sub)
	}
	if err := n.nats.FlushTimeout(askPatience); err != nil {
		return &fault.Error{Code: "tap/unavailable", What: "the broker does not answer", Err: err, Fix: "look at `hozo status`"}
	}
	if !send(Tapped{Time: time.Now(), Ready: true}) {
		return nil
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	told := uint64(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if dropped := droppedOf(subs); dropped > told {
				if !send(Tapped{Time: time.Now(), Dropped: dropped - told}) {
					return nil
				}
				told = dropped
			}
		case m := <-msgs:
			if !show(m, t, condition, send) {
				return nil
			}
		}
	}
}

// below returns the patterns of subject and everything below it.
func below(subject string) []string {
	if strings.HasSuffix(subject, ">") {
		return []string{subject}
	}
	return wire.StreamSubjects(subject)
}

// flows reports whether anything of the manifest may be heard on subject or below it. The platform's own subjects are not
// of the manifest and can be listened to.
func flows(m *manifest.Manifest, subject string) bool {
	first, _, _ := strings.Cut(subject, ".")
	if first == "hozo" || strings.HasPrefix(first, "$") || strings.HasPrefix(first, "_") {
		return true
	}
	names := slices.Clone(m.Live)
	for _, s := range m.Services {
		names = append(append(names, s.Serves...), s.Calls...)
	}
	for _, c := range m.Clients {
		names = append(append(names, c.Serves...), c.Calls...)
	}
	for _, s := range m.Streams {
		names = append(names, wire.StreamSubjects(s.Name)...)
	}
	return slices.ContainsFunc(below(subject), func(pattern string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return overlap(name, pattern) })
	})
}

// overlap reports whether some subject matches both patterns.
func overlap(a, b string) bool {
	for more, also := true, true; more && also; {
		var one, other string
		one, a, more = strings.Cut(a, ".")
		other, b, also = strings.Cut(b, ".")
		if one == ">" || other == ">" {
			return true
		}
		if one != "*" && other != "*" && one != other || more != also {
			return false
		}
	}
	return true
}

// storedOn returns where what is published to subject, and below it, can be heard. Streams with a key store it by
// partition. None of the patterns covers another, or messages would come twice.
func storedOn(m *manifest.Manifest, subject string) []string {
	all := below(subject)
	if m == nil {
		return all
	}
	for _, stream := range m.Streams {
		for _, pattern := range below(subject) {
			inside, ok := inside(stream.Name, pattern)
			if stream.Partitions == 0 || !ok {
				continue
			}
			filter := wire.PartitionFilters(stream.Name, []string{inside}, -1)[0]
			if !slices.ContainsFunc(all, func(have string) bool { return wire.Covers(have, filter) }) {
				all = append(all, filter)
			}
		}
	}
	return all
}

// inside returns the part of pattern that lies in a stream, and reports false when there is none.
func inside(stream, pattern string) (string, bool) {
	names, tokens := strings.Split(stream, "."), strings.Split(pattern, ".")
	for i, name := range names {
		switch {
		case i == len(tokens):
			return "", false
		case tokens[i] == ">":
			return stream + ".>", true
		case tokens[i] != "*" && tokens[i] != name:
			return "", false
		}
	}
	return strings.Join(append(names, tokens[len(names):]...), "."), true
}

// droppedOf sums what subscriptions had no room for.
func droppedOf(subs []*nats.Subscription) (sum uint64) {
	for _, sub := range subs {
		if n, err := sub.Dropped(); err == nil {
			sum += uint64(n)
		}
	}
	return sum
}

// show sends the events of one message that the tap asks for.
func show(m *nats.Msg, t Tap, condition *vm.Program, send func(Tapped) bool) bool {
	subject, event := publishedTo(m.Subject)
	if !event || !slices.ContainsFunc(below(t.Subject), func(pattern string) bool { return wire.Covers(pattern, subject) }) {
		return true
	}
	f, err := bus.OpenData(t.Subject, m.Subject, m.Header, m.Data)
	if err != nil {
		return send(Tapped{Time: time.Now(), Subject: subject, Bytes: m.Data})
	}
	if t.Sample > 0 && f.Len() == 1 && rand.Float64() >= t.Sample { //nolint:gosec // a sample is no secret
		return true // a frame that is not looked at is not decompressed
	}
	events, err := f.Events()
	if err != nil {
		return send(Tapped{Time: time.Now(), Subject: subject, Bytes: m.Data})
	}
	for i, data := range events {
		if t.Sample > 0 && f.Len() > 1 && rand.Float64() >= t.Sample { //nolint:gosec // as above
			continue
		}
		if condition != nil && !holds(condition, data) {
			continue
		}
		one := Tapped{Time: time.Now(), Subject: subject, Index: i, Of: f.Len(), Header: m.Header}
		switch {
		case json.Valid(data):
			one.Data = slices.Clone(data)
		case utf8.Valid(data):
			one.Data, _ = json.Marshal(string(data)) // a string always can be
		default:
			one.Bytes = slices.Clone(data)
		}
		if !send(one) {
			return false
		}
	}
	return true
}

// publishedTo takes a partition out of a subject. It reports false for a message that holds no event: a fence.
func publishedTo(stored string) (subject string, event bool) {
	stream, _, marked := strings.Cut(stored, ".@.") // no name of a manifest holds an @
	if !marked {
		return stored, true
	}
	subject, _, event = wire.SplitSubject(stream, stored)
	return subject, event
}

func holds(condition *vm.Program, data []byte) bool {
	var env map[string]any
	if json.Unmarshal(data, &env) != nil {
		return false
	}
	ok, err := expr.Run(condition, env)
	return err == nil && ok == true
}

func (c *control) tap(w http.ResponseWriter, r *http.Request) {
	var in Tap
	if !decode(w, r, &in) {
		return
	}
	out := newLines(w)
	err := c.node.tap(r.Context(), in, func(t Tapped) bool { return out.send(t) })
	if err != nil {
		out.end(nil, err)
	}
}

// Tap yields what flows by until ctx ends or take returns false.
func (c *Client) Tap(ctx context.Context, t Tap, take func(Tapped) bool) error {
	resp, err := c.send(ctx, http.MethodPost, "/v1/tap", t)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	err = readLines(resp.Body, take)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err != nil && errors.As(err, new(*json.SyntaxError)) {
		return fmt.Errorf("read what flows by: %w", err)
	}
	return err
}
