package wire

// Headers of messages between Hozo's processes.
const (
	// HeaderMsgID is JetStream's: within a stream's duplicate window a second message with the same id is dropped.
	HeaderMsgID = "Nats-Msg-Id"

	HeaderSource   = "Hozo-Source"    // EventID of the event, or stream:sequence of the frame, that this one was made from
	HeaderProducer = "Hozo-Producer"  // producer of an ingested batch
	HeaderBatch    = "Hozo-Batch"     // number of an ingested batch, and of the frame in it: "7/0/3" is the first of batch 7's three frames; the others add the first one's sequence, "7/1/3/1234"
	HeaderSubject  = "Hozo-Subject"   // original subject of a parked or retried event
	HeaderCode     = "Hozo-Code"      // fault code of why an event was parked
	HeaderError    = "Hozo-Error"     // why an event was parked, one line
	HeaderAttempts = "Hozo-Attempts"  // how often it was tried; on a task: how many of its attempts have failed
	HeaderTime     = "Hozo-Time"      // when, RFC 3339
	HeaderEpoch    = "Hozo-Epoch"     // of the owner of a partition that stored it; it grows with each owner
	HeaderReturns  = "Hozo-Returns"   // how often an event was put aside to be tried later
	HeaderNotUntil = "Hozo-Not-Until" // when such an event is to be tried, RFC 3339
	HeaderTaskID   = "Hozo-Task"      // id of a task in a dead letter, stable over its attempts: its idempotency key
)

// HTTP headers of the ingest protocol. A producer numbers its batches from 1 upwards and sends batch n+1 only after
// batch n was answered; then a repeated batch is recognised and never stored twice.
const (
	HTTPProducer = "Producer-Id"
	HTTPBatch    = "Batch-Seq"
)
