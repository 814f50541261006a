package builtin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
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
	kind, ref := eventType(r)
	if ref != nil {
		return result{}, ref
	}
	body, ref := in.bodies.read(r)
	if ref != nil {
		return result{}, ref
	}
	defer body.release()
	event := body.data
	if kind == "" {
		if event, ref = oneDocument(body.data); ref != nil {
			return result{}, ref
		}
	}
	if len(event) > in.maxLine {
		return result{}, refuse(http.StatusRequestEntityTooLarge, "ingest/line-too-long", fmt.Sprintf("the event is over %d bytes", in.maxLine), "send a smaller one")
	}
	s, err := in.storeOne(r.Context(), st, key, kind, event)
	if err != nil {
		return result{}, st.refusal(err)
	}
	if !s.duplicate {
		in.conn.Counters().EventsIn.Add(1)
		in.conn.Counters().BytesIn.Add(uint64(len(event)))
	}
	return result{status: http.StatusOK, Stream: st.route.Stream, FirstSeq: s.first, LastSeq: s.last, Accepted: 1, Rejected: []rejection{}, Duplicate: s.duplicate}, nil
}

// eventType returns the media type of a body that is one event, "" for JSON. What a browser sends for foreign pages without
// asking first is refused.
func eventType(r *http.Request) (string, *refusal) {
	stated := r.Header.Get("Content-Type")
	kind, _, err := mime.ParseMediaType(stated)
	switch {
	case err != nil, kind == "text/plain", kind == "application/x-www-form-urlencoded", kind == "multipart/form-data",
		!strings.Contains(kind, "/"), len(stated) > maxKey:
		return "", checkType(r)
	case checkType(r) == nil:
		return "", nil
	}
	return stated, nil
}

// oneDocument returns a JSON document without what is around it and, when it has several lines, between.
func oneDocument(body []byte) ([]byte, *refusal) {
	event := bytes.TrimSpace(body)
	if !jsonscan.Valid(event) {
		return nil, refuse(http.StatusBadRequest, "ingest/invalid-json", "the body is not one JSON document", "send one document, or many lines to "+ingestPath)
	}
	if bytes.ContainsAny(event, "\r\n") {
		var compact bytes.Buffer
		if err := json.Compact(&compact, event); err != nil {
			return nil, refuse(http.StatusBadRequest, "ingest/invalid-json", err.Error(), "send one document")
		}
		event = compact.Bytes()
	}
	return event, nil
}

// storeOne stores one event: with a key, by which a repeat is recognised, or a media type that is not JSON as a message of
// its own, else in company.
func (in *ingest) storeOne(ctx context.Context, st *ingestStream, key, kind string, event []byte) (stored, error) {
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	if key == "" && kind == "" {
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
	header := nats.Header{}
	if key != "" {
		header[jetstream.MsgIDHeader] = []string{key}
	}
	if kind != "" {
		header[wire.HeaderContentType] = []string{kind}
	}
	events := 0 // the headers of a bare message
	if st.route.Frames {
		events = 1
	}
	bus.PutTrace(ctx, header, events)
	subject := st.subject
	if st.route.Partitions > 0 {
		subject = wire.PartitionSubject(st.route.Stream, subject, st.partitionOf(event))
	}
	ack, err := in.conn.PublishFrame(ctx, subject, header, message)
	if err != nil {
		return stored{}, err
	}
	if !ack.Duplicate {
		in.conn.Counters().AddOut(st.subject, 1, uint64(len(event)))
	}
	return stored{first: ack.Sequence, last: ack.Sequence, duplicate: ack.Duplicate}, nil
}
