// Package bus moves events between programs: typed topics and calls on top of streams of frames.
//
// # Parts
//
// A [Topic] is a subject with a Go type. A [Stage] reads a topic with many workers and hands each event to a
// [HandlerFunc]; what the handler sends goes through its [Out]. [NewCollect] makes one that gathers the events of a key. A [Publisher] stores events that come from outside, such
// as HTTP requests. A [Follower] reads a stream strictly in order, for sinks. A [Watcher] hears live events. A [Call]
// asks another service and waits for its answer; [Call.Gather] asks every instance of it. All of them share one [Conn], whose rights and wiring come from the
// instance's wire.Grant.
//
// # Answers of a handler
//
// What a handler returns is the only acknowledgement: nil is done, [Drop] forgets the event, [Reject] parks it at once,
// [RetryLater] puts it aside durably and lets its neighbours go on, and any other error has it tried again and parked in
// the end. While a handler works its frame is kept alive, however long it takes. What a stop interrupts goes to another
// instance and has spent no attempt.
//
// # Middleware
//
// [Middleware] wraps the handlers of stages, watches, calls and tasks alike (Use in their configs): [Metrics], [Recover],
// [Limit], [Rate], [LogTraces] and whatever a service makes itself. A stage without any pays nothing for it.
//
// # Traces
//
// A W3C trace context (traceparent, tracestate) that is sampled goes with an event through everything: from an HTTP
// request into a frame, through stages, calls, live events and tasks, through retries and into dead letters, with a span
// for each hop. [TraceOf] tells a handler its trace, [WithTrace] begins one. A frame lists the traces of its events in
// one header, at most wire.MaxFrameTraces; a frame without sampled events has no such header and costs nothing more.
//
// # Codecs
//
// Values are JSON unless the topic or call has a [Codec] of its own ([WithCodec]; package bus/protobuf has one), and
// []byte passes through. What is not JSON states its content type in a header, which stays with the event into the dead
// letters, and a topic that cannot read it parks the event under bus/decode. A program that is older than its events
// keeps the fields that it does not know by [Keep], or by sending [Event].Data as it is.
//
// # CloudEvents
//
// Messages that carry one event have the attributes of a CloudEvent in their headers (binary mode: ce-id, ce-source,
// ce-type, ce-time, Content-Type): events of a stream with frames: off, dead letters, and live events, requests and
// answers whose topic or call has the option [CloudEvents]. The events of a frame share one message, so theirs are made
// from what names them. [Event.CloudEvent] tells both.
//
// # Live events
//
// A subject under live in the manifest is stored nowhere: [Topic.Publish] writes the event to the connection, and every
// instance that watches it then gets it, at most once. Between the network and the handlers of a Watcher lies a buffer
// with a bound and a [Policy]; what it drops is counted exactly, in [Watcher.Dropped], in the reports and in hozo
// status. What is published while the connection is away is not seen and cannot be counted. What must not be lost
// belongs into a stream.
//
// # Frames
//
// Streams store frames: many events, compressed as one, in one message with one acknowledgement. The layout belongs to
// package wire; [Builder] makes frames and [OpenFrame] reads them. An event is named for life by stream, sequence and
// index (wire.EventID). A stream declared with frames: off stores one event a message, and reads as frames of one.
//
// # Delivery
//
// Between programs every event is delivered at least once, and its effects are made once:
//
//   - A Stage acknowledges a frame only when everything that its handlers sent is stored. Until then the frame is kept
//     alive at the broker, and when the process dies the broker gives it to another instance after the consumer's
//     acknowledgement wait (5 s).
//   - What a Stage stores carries a message id made from the source frame, the service, the subject and the part, so a
//     frame that is handled twice is stored once within the target stream's duplicate window. This holds as far as the
//     handler is a function of its event: one that sends something else the second time is believed the first time.
//   - A Publisher gives every frame a random id before the first try, so its retries after a lost reply are recognised.
//     A caller whose Publish fails with bus/unavailable does not know the outcome.
//   - An event that keeps failing is parked: stored under a subject of its own, only if that subject is empty. Parking
//     comes before the frame's output, so that a crash between the two loses nothing.
//   - A Follower never returns a frame twice or leaves one out. What a sink did with it is settled by the sink's own
//     watermark, which it passes to [Conn.Follow].
//
// # Order
//
// A Stage handles the events of one frame in order, one at a time, and frames at once in any order. What one handler
// sends to one subject stays in order within the frame. Only a Follower sees a stream in order.
//
// On a stream that has a key in the manifest ([Key] gives one by a function), a service that consumes it with ordered:
// true handles the events of each key one at a time and in order, over all its instances: they share out the stream's
// partitions, take over from those that die, and the broker refuses what an earlier owner of a partition still sends.
// Output to a stream with a key keeps the order. An event that is parked lets the next of its key go on.
//
// # Sets
//
// [NewCollect] joins events by key: it hands [Set]s of so many events, or of those that came in time, to a handler. It
// reads as a service with ordered: true does, and what waits for the rest of its set is not acknowledged. Which events
// make a set is settled once, whatever happens to the processes: see NewCollect.
//
// # Failure of one event
//
// A handler's error, panic or overrun is retried in place with growing pauses, then the event is parked alone and its
// neighbours land. [Reject] parks at once; [Drop] forgets. A frame whose bytes are damaged is parked whole.
//
// # Backpressure
//
// Nothing is ever dropped because something is slow. A Stage pulls: it asks the broker for as many bytes as it has room
// for and as many frames as its workers finish in a quarter of a second, so that fast workers are never idle and slow
// ones leave work to others. When the target stream is full or the broker is away, workers keep their frame and try
// again, pulling stops, and the backlog waits in the source stream. A Publisher blocks its callers beyond a window of
// unacknowledged bytes and passes a full stream on as bus/stream-full, a full disk as bus/store-full; the caller owns that decision.
//
// # Stopping
//
// When the context of a Run ends, no more work is taken, frames not yet begun are given back for other instances, and
// the ones in hand are finished with a context that lives on for a grace period.
package bus
