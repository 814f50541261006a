package bus

import (
	"fmt"
	"strconv"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// outFrameBytes is the raw size at which a stage's output for one subject is cut into a further frame. It is twice the
// target so that a handler that adds to its events still makes one frame of one, not one and a bit; uncompressed it
// is half of what the broker takes as one message.
func outFrameBytes(codec wire.Codec) int { return 2 * targetBytes(codec) }

// maxOutBytes bounds what one event may send, before its handler is told bus/too-large.
const maxOutBytes = wire.MaxFrameRawBytes

// keptRoutes is the number of subjects beyond which an Out forgets their buffers between frames: programs that make
// subjects from data would grow without end.
const keptRoutes = 1024

// Out collects what the handlers of one frame send. It is stored only when the whole frame is done, and then before the
// frame is acknowledged; what a failing event sent is taken back. It belongs to the handler until it returns and is not
// safe for concurrent use.
type Out struct {
	conn   *Conn
	source string    // <JetStream stream>:<sequence>:<time stored> of the frame in hand
	origin string    // stream:sequence of the frame in hand, for people
	time   time.Time // when the frame in hand was stored
	id     wire.EventID
	trace  wire.Trace // of the event in hand; most have none
	limit  int        // bytes of one event

	routes map[outKey]*outRoute // kept from frame to frame
	used   []*outRoute          // in this frame, by first use
	msgs   []*nats.Msg          // of Store

	event     int         // counts events, to see a route's first use by one
	touched   []*outRoute // by the event in hand
	msgsMark  int
	sentBytes int // by the event in hand

	droppedEvents map[string]uint64 // of the frame, by subject; nil most of the time

	encoded []byte // of all messages of the frame; their Data aliases it or an older one
	scratch []byte // compression
	joined  []byte // an event in pieces, to find its key
	batch   []*nats.Msg
}

// outKey names an outRoute: the events of one frame have one content type.
type outKey struct{ subject, content string }

// outRoute is what a frame's handlers sent to one subject, or to one partition of it.
type outRoute struct {
	subject string // as stored
	counted string // as published
	content string // content type that its messages state; "" for JSON
	typed   string // content type of its events
	route   wire.Route
	live    bool // sent once the rest is stored, and stored nowhere
	keys    keyReader
	parts   []*outRoute // of a stream with a key, by partition; made when they are used
	events  eventBuffer
	used    bool
	touched int // event that used it last
	mark    int // events before that one
	traces  traces
}

func newOut(c *Conn) *Out {
	return &Out{conn: c, limit: c.maxEventBytes(), routes: make(map[outKey]*outRoute)}
}

// Conn returns the connection that the output goes to.
func (o *Out) Conn() *Conn { return o.conn }

// EventID names the event in hand: the deterministic base of ids that handlers make.
func (o *Out) EventID() wire.EventID { return o.id }

// Publish sends one event to subject: the pieces of data, one after the other. A handler that puts something in front
// of an event so need not join the two first. The pieces are copied. The errors are the faults bus/no-route and
// bus/too-large, which park the handler's event when it returns them.
func (o *Out) Publish(subject string, data ...[]byte) error { return o.publish(subject, "", data...) }

// PublishKey is Publish of an event with this key, whatever the stream's path finds in it. On a stream without a key in
// the manifest it is Publish.
func (o *Out) PublishKey(subject, key string, data ...[]byte) error {
	return o.publishKey(subject, "", key, data...)
}

func (o *Out) publish(subject, contentType string, data ...[]byte) error {
	r, err := o.routeOf(subject, contentType)
	if err != nil {
		return err
	}
	if r.parts != nil {
		r = r.part(o.keyOf(r, data))
	}
	return o.take(r, data)
}

func (o *Out) publishKey(subject, contentType, key string, data ...[]byte) error {
	r, err := o.routeOf(subject, contentType)
	if err != nil {
		return err
	}
	if r.parts != nil {
		r = r.part(key)
	}
	return o.take(r, data)
}

func (o *Out) routeOf(subject, contentType string) (*outRoute, error) {
	key := outKey{subject, stated(contentType)}
	r := o.routes[key]
	if r == nil {
		route, err := o.conn.route(subject)
		live := err != nil && o.conn.isLive(subject)
		if err != nil && !live {
			return nil, err
		}
		r = &outRoute{subject: subject, counted: subject, content: key.content, typed: contentType, route: route, live: live}
		if route.Partitions > 0 {
			r.keys, r.parts = newKeyReader(route.Key), make([]*outRoute, route.Partitions)
		}
		o.routes[key] = r
	}
	return r, nil
}

// keyOf finds the key of an event that is given in pieces.
func (o *Out) keyOf(r *outRoute, data [][]byte) string {
	if len(data) == 1 {
		return r.keys.of(data[0])
	}
	o.joined = o.joined[:0]
	for _, piece := range data {
		o.joined = append(o.joined, piece...)
	}
	return r.keys.of(o.joined)
}

// part returns what was sent to the partition of key.
func (r *outRoute) part(key string) *outRoute {
	p := partitionOf(key, len(r.parts))
	if r.parts[p] == nil {
		r.parts[p] = &outRoute{subject: wire.PartitionSubject(r.route.Stream, r.subject, p), counted: r.counted, content: r.content, typed: r.typed, route: r.route}
	}
	return r.parts[p]
}

func (o *Out) take(r *outRoute, data [][]byte) error {
	subject := r.counted
	size := 0
	for _, piece := range data {
		size += len(piece)
	}
	if size > o.limit {
		return tooLarge(subject, size, o.limit)
	}
	if o.sentBytes+size > maxOutBytes {
		return tooLarge(subject, o.sentBytes+size, maxOutBytes)
	}
	o.sentBytes += size + 1
	if !r.used {
		r.used = true
		o.used = append(o.used, r)
	}
	if r.touched != o.event {
		r.touched, r.mark = o.event, r.events.len()
		o.touched = append(o.touched, r)
	}
	if o.trace.Sampled {
		r.traces.add(r.events.len(), r.events.len(), o.trace)
	}
	r.events.add(data...)
	return nil
}

// Store sends a JetStream message as it is. It must carry a Nats-Msg-Id made from EventID, so that a repeat is
// recognised. The message belongs to the Out from here on.
func (o *Out) Store(msg *nats.Msg) error {
	if len(msg.Header[jetstream.MsgIDHeader]) == 0 {
		return &fault.Error{
			Code: "bus/no-message-id", Where: msg.Subject, What: "a stored message has no " + jetstream.MsgIDHeader,
			Fix: "make one from the event's id",
		}
	}
	if err := o.conn.mayPublish(msg.Subject); err != nil {
		return err
	}
	if limit := o.conn.maxEventBytes(); len(msg.Data) > limit {
		return tooLarge(msg.Subject, len(msg.Data), limit)
	}
	if o.trace.Sampled {
		o.trace.Put(msg.Header)
	}
	o.msgs = append(o.msgs, msg)
	return nil
}

// beginFrame forgets the frame before. source is the JetStream name of the stream that f came from, which for a
// retried event is not the one of its name.
func (o *Out) beginFrame(source string, f *Frame) {
	for _, r := range o.used {
		r.events.truncate(0)
		r.traces = r.traces[:0]
		r.used = false
	}
	if len(o.routes) > keptRoutes {
		clear(o.routes)
	}
	clear(o.msgs)
	o.used, o.msgs = o.used[:0], o.msgs[:0]
	clear(o.droppedEvents)
	// The time is part of the ids because a stream that lost its tail with the power, or was made anew, gives its
	// sequences a second time, and other events must not pass for repeats of the first ones.
	o.source = source + ":" + strconv.FormatUint(f.Seq, 10) + ":" + strconv.FormatInt(f.Time.UnixNano(), 36)
	if f.first > 0 {
		o.source += ":" + strconv.Itoa(f.first)
	}
	o.time = f.Time
	o.origin = f.Stream + ":" + strconv.FormatUint(f.Seq, 10)
}

// beginEvent marks where the output of the frame's event of that index begins.
func (o *Out) beginEvent(index int) {
	o.event++
	o.id.Index, o.msgsMark, o.sentBytes = index, len(o.msgs), 0
	if len(o.touched) > 0 {
		o.touched = o.touched[:0]
	}
}

// rollback takes back what the event in hand has sent.
func (o *Out) rollback() {
	for _, r := range o.touched {
		r.events.truncate(r.mark)
		r.traces.truncate(r.mark)
	}
	clear(o.msgs[o.msgsMark:])
	o.msgs = o.msgs[:o.msgsMark]
	o.beginEvent(o.id.Index)
}

// messages encodes the output of the frame. The messages are valid until the next frame begins.
func (o *Out) messages() []*nats.Msg {
	clear(o.batch)
	o.batch, o.encoded = o.batch[:0], o.encoded[:0]
	for _, r := range o.used {
		switch {
		case r.live || r.events.len() == 0: // the latter: all rolled back
		case r.route.Frames:
			o.addFrames(r)
		default:
			for i := range r.events.len() {
				o.addBare(r, i)
			}
		}
	}
	o.batch = append(o.batch, o.msgs...)
	return o.batch
}

func (o *Out) addFrames(r *outRoute) {
	for from, part := 0, 0; from < r.events.len(); part++ {
		to := r.events.cut(from, outFrameBytes(codecOf(r.route)))
		start := len(o.encoded)
		o.encoded, o.scratch = r.events.encode(o.encoded, o.scratch, codecOf(r.route), from, to)
		msg := o.add(r, part, o.encoded[start:len(o.encoded):len(o.encoded)])
		r.traces.put(msg.Header, from, to)
		from = to
	}
}

// add makes one message whose id is a function of the source frame and the place in its output.
func (o *Out) add(r *outRoute, part int, data []byte) *nats.Msg {
	id := fmt.Sprintf("%s:%s:%s:%d", o.source, o.conn.cfg.Grant.Service, r.subject, part)
	msg := &nats.Msg{Subject: r.subject, Data: data, Header: nats.Header{
		jetstream.MsgIDHeader: {id},
		wire.HeaderSource:     {o.origin},
	}}
	if r.content != "" {
		msg.Header[jetstream.MsgIDHeader][0] += ":" + r.content
		msg.Header[wire.HeaderContentType] = []string{r.content}
	}
	o.batch = append(o.batch, msg)
	return msg
}

// addBare makes a message of event i, for foreign clients. Its time is that of the source frame, because all of it must
// be a function of that.
func (o *Out) addBare(r *outRoute, i int) {
	msg := o.add(r, i, r.events.event(i))
	o.conn.cloudEvent(msg.Header[jetstream.MsgIDHeader][0], r.counted, r.typed, o.time).Put(msg.Header)
	if t, ok := r.traces.of(i); ok {
		t.Put(msg.Header)
	}
}

// sendLive sends the frame's live events. They are best effort, as everything live is.
func (o *Out) sendLive() {
	for _, r := range o.used {
		if !r.live {
			continue
		}
		for i := range r.events.len() {
			msg := &nats.Msg{Subject: r.subject, Data: r.events.event(i)}
			if t, ok := r.traces.of(i); ok || r.content != "" {
				msg.Header = nats.Header{}
				if ok {
					t.Put(msg.Header)
				}
				if r.content != "" {
					msg.Header[wire.HeaderContentType] = []string{r.content}
				}
			}
			_ = o.conn.nc.PublishMsg(msg)
		}
	}
}

// count adds what was stored to the counters.
func (o *Out) count() {
	o.conn.counters.countTasks(o.msgs)
	for _, r := range o.used {
		if n := r.events.len() - int(o.droppedEvents[r.subject]); n > 0 {
			o.conn.counters.AddOut(r.counted, uint64(n), uint64(r.events.bytes()-n)) // without the newlines
		}
	}
}
