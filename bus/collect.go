package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// Why a Set was closed.
const (
	WhySize     = "size"     // it has all its events
	WhyTimeout  = "timeout"  // its time is over
	WhyFull     = "full"     // it is as large as a set may be, or was the oldest when there was no room for more
	WhyReturned = "returned" // one event that came back from the dead letters, alone
)

// Set is what NewCollect gathers: events of one key, in order.
type Set[T any] struct {
	Key    string
	Why    string // Why…
	Events []Event[T]
}

// Complete reports whether the set has as many events as were asked for.
func (s Set[T]) Complete() bool { return s.Why == WhySize }

// CollectConfig says which events make a set. One of Size and Timeout alone will not do: Timeout is needed.
type CollectConfig struct {
	Size     int           // events of a complete set; 0: only Timeout ends one
	Timeout  time.Duration // from the time at which a set's first event was stored to the set's end, complete or not
	MaxBytes int           // of the events that an instance waits with, 128 bytes more for each; default 64 MiB

	Stage StageConfig // of the handler: an attempt, a timeout, a middleware is one of a whole set
}

const (
	defaultCollectBytes = 64 << 20

	// collectEvents bounds the events that are waiting in one partition, because each costs some three bytes in the
	// partition's record, which is replaced as sets are closed.
	collectEvents = 4096
)

// CollectFunc handles one Set. What it returns means what it means for a HandlerFunc, for the whole set.
type CollectFunc[T any] func(ctx context.Context, s Set[T], out *Out) error

// NewCollect makes a Stage that joins the events of topic by key and hands each set of them to fn: as soon as it has
// cfg.Size events, or incomplete when cfg.Timeout is over. The service must consume the topic with ordered: true from a
// stream that has a key; else the faults are bus/no-source and bus/collect.
//
// Every event is in exactly one set, and the sets stay what they are whatever happens to the process: events that wait
// are not acknowledged, and which sets are closed is recorded before the first of their output is sent. An event that
// comes after its set was closed begins a new one. Between reading and writing holds what holds for every Stage.
//
// Events wait in memory and, as long as they do, in the stream, whose limits must have room for them. An instance holds
// at most MaxBytes of them, each partition an equal share, and at most 4096 a partition; when there are more the oldest
// set is closed, incomplete. A set that fails is parked whole, as one dead letter under the name of its first event. An
// event that cannot be decoded is parked alone and is in no set.
func NewCollect[T any](c *Conn, topic Topic[T], fn CollectFunc[T], cfg CollectConfig) (*Stage, error) {
	s, err := newStage(c, topic.subject, cfg.Stage)
	if err != nil {
		return nil, err
	}
	if err := cfg.check(topic.subject, s.source); err != nil {
		return nil, err
	}
	s.keyOf = keyFunc(topic, s.source)
	s.collect = &collect{
		limits: cfg.limits(c, s.source.Partitions),
		check: func(content string, data []byte) error {
			var v T
			return decode(topic.opts, content, data, &v)
		},
	}
	s.tries = func() tryFunc {
		handle := func(ctx context.Context, r *rawEvent, out *Out) error {
			set, err := s.setOf(r)
			if err != nil {
				return err
			}
			typed := Set[T]{Key: set.key, Why: set.why, Events: make([]Event[T], len(set.events))}
			for i, e := range set.events {
				typed.Events[i] = Event[T]{ID: e.id, Subject: e.subject, Time: e.time, Attempt: r.attempt, Returns: r.returns, Data: e.data}
				if err := decode(topic.opts, e.content, e.data, &typed.Events[i].Value); err != nil {
					return err
				}
			}
			return fn(ctx, typed, out)
		}
		if len(s.cfg.Use) == 0 {
			return handle
		}
		return func(ctx context.Context, r *rawEvent, out *Out) error {
			use := Wrap(s.cfg.Use, func(ctx context.Context) error { return handle(ctx, r, out) })
			return use(ctx, &Work{Kind: "collect", Name: topic.subject, Subject: r.subject, Event: r.id, Attempt: r.attempt})
		}
	}
	return s, nil
}

func (cfg CollectConfig) check(subject string, src wire.Source) error {
	var errs []error
	wrong := func(what, fix string) {
		errs = append(errs, &fault.Error{Code: CodeCollect, Kind: fault.Misuse, Where: "collect " + subject, What: what, Fix: fix})
	}
	if !src.PerKey {
		wrong("events are collected by key, and the service reads them in no order",
			"give the stream a key and consume it with ordered: true")
	}
	if cfg.Size < 0 || cfg.Size > collectEvents {
		wrong(fmt.Sprintf("a set of %d events", cfg.Size), fmt.Sprintf("ask for 1 to %d, or 0 for no such bound", collectEvents))
	}
	if cfg.Timeout <= 0 {
		wrong("a set without a Timeout could stay incomplete for ever", "give a Timeout")
	}
	if cfg.MaxBytes < 0 {
		wrong(fmt.Sprintf("MaxBytes is %d", cfg.MaxBytes), "give a size, or 0 for the default")
	}
	return errors.Join(errs...)
}

func (cfg CollectConfig) limits(c *Conn, partitions int) setLimits {
	return setLimits{
		size: cfg.Size, timeout: cfg.Timeout, events: collectEvents,
		bytes: cmp.Or(cfg.MaxBytes, defaultCollectBytes) / max(partitions, 1),
		// A set that is parked is one message, and what is not JSON grows by a third in it.
		setBytes: c.maxEventBytes() / 2,
	}
}

// setContent is the media type of a set that was parked or put aside.
const setContent = "application/vnd.hozo.set+json"

// setDocument is a set as people see it among the dead letters.
type setDocument struct {
	Key    string          `json:"key"`
	Why    string          `json:"why"`
	Events []eventDocument `json:"events"`
}

type eventDocument struct {
	ID      wire.EventID    `json:"id"`
	Subject string          `json:"subject"`
	Time    time.Time       `json:"time"`
	Content string          `json:"content_type,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
	Bytes   []byte          `json:"bytes,omitempty"` // what is not JSON
}

func (set *rawSet) document() ([]byte, error) {
	doc := setDocument{Key: set.key, Why: set.why, Events: make([]eventDocument, len(set.events))}
	for i, e := range set.events {
		doc.Events[i] = eventDocument{ID: e.id, Subject: e.subject, Time: e.time, Content: e.content}
		if readsJSON(e.content) && json.Valid(e.data) {
			doc.Events[i].Data = e.data
		} else {
			doc.Events[i].Bytes = e.data
		}
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode a set: %w", err)
	}
	return data, nil
}

func parseSet(data []byte) (*rawSet, error) {
	var doc setDocument
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, &fault.Error{Code: CodeDecode, What: "the dead letter is no set of events", Err: err, Fix: "see it with hozo dlq show"}
	}
	set := &rawSet{key: doc.Key, why: doc.Why}
	for _, e := range doc.Events {
		data := e.Bytes
		if e.Data != nil {
			data = e.Data
		}
		set.events = append(set.events, rawSetEvent{id: e.ID, subject: e.Subject, time: e.Time, content: e.Content, data: data})
	}
	return set, nil
}

// setOf returns the set that an event stands for: one that was just closed, one that comes back, or an event alone that
// does.
func (s *Stage) setOf(r *rawEvent) (*rawSet, error) {
	switch {
	case r.set != nil:
		return r.set, nil
	case r.content == setContent:
		return parseSet(r.data)
	}
	return &rawSet{key: s.keyOf(r.data), why: WhyReturned, events: []rawSetEvent{
		{id: r.id, subject: r.subject, time: r.time, content: r.content, data: r.data},
	}}, nil
}
