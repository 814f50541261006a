package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/web"
	"github.com/hozo-dev/hozo/wire"
)

const (
	ingestPath = "/v1/ingest"

	// storePatience is how long a request waits for the broker before it is answered with 503: a restart of the broker
	// takes one to three seconds and stays unseen.
	storePatience = 5 * time.Second

	// messageRoom is what a message needs beside its event: headers and the frame's offsets. It is the room that package
	// bus keeps.
	messageRoom = 80 << 10

	// drainBytes is how much of a refused request's body is read, so that the client sees the answer and not a reset
	// connection; net/http does the same on connections that stay open.
	drainBytes = 256 << 10
)

// ingest takes events over HTTP. It is an http.Handler.
type ingest struct {
	conn    *bus.Conn
	bodies  *bodies
	maxLine int
	streams map[string]*ingestStream // by the subject that is published to
	only    *ingestStream            // when there is one
	away    awayClock
}

// ingestStream is one subject that events are stored on.
type ingestStream struct {
	subject   string
	route     wire.Route
	publisher *bus.Publisher       // of requests without a producer
	builders  sync.Pool            // *bus.Builder
	latest    *latestCache[latest] // newest frame on each producer's subject

	partitionOf func(event []byte) int // of a stream with a key
	keyed       *latestCache[[]latest] // and the newest frame of each producer in each of its partitions
}

// newIngest makes the handler for the subjects that conn's grant may publish to.
func newIngest(conn *bus.Conn, cfg manifest.Ingest) (*ingest, error) {
	cfg.MaxBody = orDefault(cfg.MaxBody, 16<<20)
	cfg.MaxLine = orDefault(cfg.MaxLine, 1<<20)
	cfg.InFlight = orDefault(cfg.InFlight, 128<<20)
	in := &ingest{
		conn: conn,
		// A compressed body is held twice for a moment.
		bodies:  newBodies(int64(cfg.MaxBody), newBudget(max(int64(cfg.InFlight), 2*(int64(cfg.MaxBody)+bodyRoom)))),
		maxLine: min(int(cfg.MaxLine), int(conn.NATS().MaxPayload())-messageRoom, wire.MaxFrameRawBytes-1),
		streams: make(map[string]*ingestStream),
	}
	for _, route := range conn.Grant().Publish {
		if strings.ContainsAny(route.Subject, "*>") {
			continue // below a subject: the place of producers
		}
		publisher, err := conn.NewPublisher(route.Subject, bus.PublisherConfig{Linger: cfg.Linger, NoWait: true})
		if err != nil {
			return nil, fmt.Errorf("publish to %s: %w", route.Subject, err)
		}
		codec, _ := wire.CodecOf(route.Compression) // the manifest has checked the word
		in.only = &ingestStream{
			subject: route.Subject, route: route, publisher: publisher, latest: newLatestCache[latest](), keyed: newLatestCache[[]latest](),
			builders: sync.Pool{New: func() any { return bus.NewBuilder(codec) }},
		}
		if route.Partitions > 0 {
			in.only.partitionOf = bus.Partitioner(route)
		}
		in.streams[route.Subject] = in.only
	}
	switch len(in.streams) {
	case 0:
		if len(conn.Grant().Enqueues) > 0 {
			break
		}
		return nil, &fault.Error{
			Code: "ingest/no-subject", Kind: fault.Misuse, What: "ingest publishes to no subject without wildcards and enqueues no tasks",
			Fix: "add publishes: [NAME OF A STREAM], or enqueues: [KIND], to the service",
		}
	case 1:
	default:
		in.only = nil
	}
	return in, nil
}

func orDefault(n, otherwise manifest.Bytes) manifest.Bytes {
	if n <= 0 {
		return otherwise
	}
	return n
}

// ready says why requests would be refused now, or nil.
func (in *ingest) ready() error {
	if !in.conn.Connected() {
		return &fault.Error{Code: "ingest/broker-away", What: "the broker is away", Fix: "see hozo status"}
	}
	return nil
}

// ServeHTTP answers one request; see the package comment for the protocol.
func (in *ingest) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, tasksPath) {
		if ref := in.serveTasks(w, r); ref != nil {
			in.refuse(w, r, ref)
		}
		return
	}
	answer := in.handle
	if strings.HasPrefix(r.URL.Path, publishPath) {
		answer = in.publishOne
	}
	result, ref := answer(r)
	if ref != nil {
		in.refuse(w, r, ref)
		return
	}
	web.JSON(w, result.status, result)
}

func (in *ingest) refuse(w http.ResponseWriter, r *http.Request, ref *refusal) {
	if r.Header.Get("Expect") == "" { // else the client has not sent it
		_, _ = io.CopyN(io.Discard, r.Body, drainBytes) // an error is the client's, who is answered in any case
	}
	ref.answer(w)
}

// result is the answer to a request whose body could be read.
type result struct {
	status        int
	Error         *problem    `json:"error,omitempty"` // when every line is bad
	Stream        string      `json:"stream"`
	FirstSeq      uint64      `json:"first_seq,omitempty"` // of the frames; missing when nothing was stored, or in an older batch
	LastSeq       uint64      `json:"last_seq,omitempty"`
	Accepted      int         `json:"accepted"`
	Rejected      []rejection `json:"rejected"`
	RejectedTotal int         `json:"rejected_total"`
	Duplicate     bool        `json:"duplicate"`
}

type problem struct {
	Code string `json:"code"`
	What string `json:"what"`
	Fix  string `json:"fix"`
}

func (in *ingest) handle(r *http.Request) (result, *refusal) {
	st, ref := in.find(r)
	if ref != nil {
		return result{}, ref
	}
	producer, ref := producerOf(r, st)
	if ref != nil {
		return result{}, ref
	}
	if ref := checkType(r); ref != nil {
		return result{}, ref
	}
	if in.away.tooLong(in.conn.Connected(), time.Now()) {
		ref := storeRefusal(&fault.Error{Code: bus.CodeUnavailable, What: "the connection is lost"})
		ref.hangUp = true
		return result{}, ref
	}
	body, ref := in.bodies.read(r)
	if ref != nil {
		return result{}, ref
	}
	defer body.release()
	done := in.conn.Counters().Working()
	b := cut(body.data, in.maxLine)
	done()
	res := result{
		status: http.StatusOK, Stream: st.route.Stream,
		Accepted: b.accepted, Rejected: b.rejected, RejectedTotal: b.rejectedTotal,
	}
	switch {
	case b.accepted == 0 && b.rejectedTotal > 0:
		res.status = http.StatusBadRequest
		res.Error = &problem{"ingest/all-bad", "every line of the body is bad", "nothing was stored; see rejected for the reasons"}
		return res, nil
	case b.accepted == 0:
		return res, nil
	}
	var s stored
	var err error
	if producer.id == "" {
		s, err = in.publish(r.Context(), st, b)
	} else {
		s, err = in.store(r.Context(), st, producer, b)
	}
	if err != nil {
		if ref, ok := errors.AsType[*refusal](err); ok {
			return result{}, ref
		}
		return result{}, st.refusal(err)
	}
	res.FirstSeq, res.LastSeq, res.Duplicate = s.first, s.last, s.duplicate
	if !s.duplicate {
		counters := in.conn.Counters()
		counters.EventsIn.Add(uint64(b.accepted))
		counters.BytesIn.Add(uint64(len(b.lines) - b.accepted)) // without the newlines
	}
	return res, nil
}

// find returns the stream that the request's path names.
func (in *ingest) find(r *http.Request) (*ingestStream, *refusal) {
	name, ok := strings.CutPrefix(r.URL.Path, ingestPath)
	if !ok || (name != "" && name[0] != '/') {
		return nil, refuse(http.StatusNotFound, "ingest/no-page", "there is nothing at "+r.URL.Path, "POST to "+ingestPath)
	}
	if r.Method != http.MethodPost {
		return nil, refuse(http.StatusMethodNotAllowed, "ingest/method", "events are sent with POST, not "+r.Method, "POST to "+r.URL.Path)
	}
	name = strings.TrimPrefix(name, "/")
	if name == "" && in.only != nil {
		return in.only, nil
	}
	if st := in.streams[name]; st != nil {
		return st, nil
	}
	paths := make([]string, 0, len(in.streams))
	for _, route := range in.conn.Grant().Publish {
		if in.streams[route.Subject] != nil {
			paths = append(paths, ingestPath+"/"+route.Subject)
		}
	}
	what := fmt.Sprintf("this service does not publish to %q", name)
	if name == "" && len(paths) > 0 {
		what = "this service publishes to several subjects"
	}
	for _, kind := range in.conn.Grant().Enqueues {
		paths = append(paths, tasksPath+kind)
	}
	return nil, refuse(http.StatusNotFound, "ingest/no-stream", what, "POST to "+strings.Join(paths, " or "))
}

// stored says where a request's frames are.
type stored struct {
	first, last uint64
	duplicate   bool
}

// publish stores a request that has no producer. Its parts share frames with other requests where they are small.
func (in *ingest) publish(ctx context.Context, st *ingestStream, b batch) (stored, error) {
	var s stored
	events := make([][]byte, 0, b.parts[0].events)
	for i, p := range b.parts {
		events = events[:0]
		b.eachEvent(p, func(event []byte) { events = append(events, event) })
		id, err := func() (wire.EventID, error) {
			ctx, cancel := context.WithTimeout(ctx, storePatience)
			defer cancel()
			return st.publisher.Publish(ctx, events...)
		}()
		if err != nil {
			return s, err
		}
		if st.route.Partitions > 0 {
			continue // in many frames, which lie between others
		}
		last := id.Seq
		if !st.route.Frames {
			last += uint64(len(events) - 1) // at least; other messages may lie between
		}
		if i == 0 {
			s.first = id.Seq
		}
		s.last = last
	}
	return s, nil
}
