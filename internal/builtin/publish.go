package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/jsonscan"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	publishPath = "/v1/publish/"

	// maxKey bounds an Idempotency-Key: the broker keeps each for the stream's dedupe window.
	maxKey = 255
)

// publishOne stores the body as one event.
func (in *ingest) publishOne(r *http.Request) (result, *refusal) {
	if r.Method != http.MethodPost {
		return result{}, refuse(http.StatusMethodNotAllowed, "ingest/method", "events are sent with POST, not "+r.Method, "POST to "+r.URL.Path)
	}
	name := strings.TrimPrefix(r.URL.Path, publishPath)
	st := in.streams[name]
	if st == nil {
		return result{}, refuse(http.StatusNotFound, "ingest/no-stream", fmt.Sprintf("this service does not publish to %q", name), "POST to a subject that it publishes")
	}
	key := r.Header.Get(pushKey)
	if len(key) > maxKey || strings.ContainsFunc(key, func(c rune) bool { return c < ' ' || c > '~' }) {
		return result{}, refuse(http.StatusBadRequest, "ingest/bad-key", fmt.Sprintf("%s is not up to %d printable ASCII characters", pushKey, maxKey), "send a shorter one")
	}
	if ref := checkType(r); ref != nil {
		return result{}, ref
	}
	body, ref := in.bodies.read(r)
	if ref != nil {
		return result{}, ref
	}
	defer body.release()
	event := bytes.TrimSpace(body.data)
	if !jsonscan.Valid(event) {
		return result{}, refuse(http.StatusBadRequest, "ingest/invalid-json", "the body is not one JSON document", "send one document, or many lines to "+ingestPath)
	}
	if bytes.ContainsAny(event, "\r\n") {
		var compact bytes.Buffer
		if err := json.Compact(&compact, event); err != nil {
			return result{}, refuse(http.StatusBadRequest, "ingest/invalid-json", err.Error(), "send one document")
		}
		event = compact.Bytes()
	}
	if len(event) > in.maxLine {
		return result{}, refuse(http.StatusRequestEntityTooLarge, "ingest/line-too-long", fmt.Sprintf("the event is over %d bytes", in.maxLine), "send a smaller one")
	}
	s, err := in.storeOne(r.Context(), st, key, event)
	if err != nil {
		return result{}, storeRefusal(err)
	}
	if !s.duplicate {
		in.conn.Counters().EventsIn.Add(1)
		in.conn.Counters().BytesIn.Add(uint64(len(event)))
	}
	return result{status: http.StatusOK, Stream: st.route.Stream, FirstSeq: s.first, LastSeq: s.last, Accepted: 1, Rejected: []rejection{}, Duplicate: s.duplicate}, nil
}

// storeOne stores one event: with a key as a message of its own, by which a repeat is recognised, else in company.
func (in *ingest) storeOne(ctx context.Context, st *ingestStream, key string, event []byte) (stored, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	if key == "" {
		id, err := st.publisher.Publish(ctx, event)
		return stored{first: id.Seq, last: id.Seq}, err
	}
	builder := st.builders.Get().(*bus.Builder)
	defer st.builders.Put(builder)
	defer builder.Reset()
	message := event
	if st.route.Frames {
		builder.Add(event)
		message = builder.Frame()
	}
	subject := st.subject
	if st.route.Partitions > 0 {
		subject = wire.PartitionSubject(st.route.Stream, subject, st.partitionOf(event))
	}
	ack, err := in.conn.PublishFrame(ctx, subject, nats.Header{jetstream.MsgIDHeader: {key}}, message)
	if err != nil {
		return stored{}, err
	}
	if !ack.Duplicate {
		in.conn.Counters().AddOut(st.subject, 1, uint64(len(event)))
	}
	return stored{first: ack.Sequence, last: ack.Sequence, duplicate: ack.Duplicate}, nil
}
