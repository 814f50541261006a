package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/hozo-dev/hozo/fault"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Codes of the faults that callers branch on with fault.Code.
const (
	CodeUnavailable   = "bus/unavailable"    // the broker is away or does not answer: try again later
	CodeStreamFull    = "bus/stream-full"    // the stream is at its limit
	CodeStoreFull     = "bus/store-full"     // the broker's store is at its limit, or its file system is low on space
	CodeNoRoute       = "bus/no-route"       // the subject is not declared under publishes
	CodeNoSource      = "bus/no-source"      // the subject is not declared under consumes
	CodeTooLarge      = "bus/too-large"      // an event does not fit in a message
	CodeWrongSequence = "bus/wrong-sequence" // an expected sequence did not hold: somebody stored there first
	CodeNoResponder   = "bus/no-responder"   // nobody serves the call's subject now
	CodeNoCall        = "bus/no-call"        // the subject is not declared under calls
	CodeNotServed     = "bus/not-served"     // the subject is not declared under serves
	CodeNotWatched    = "bus/not-watched"    // the topic is not declared under watches
	CodeOverflow      = "bus/overflow"       // a watch with the policy Fail had no room
	CodeDenied        = "bus/denied"         // the broker refuses what the grant of this process seemed to allow
	CodeTimedOut      = "bus/timeout"        // a call was not answered in time; it may have been carried out
	CodeGap           = "bus/gap"            // frames were dropped by the stream's limits before they were read; only logged
	CodeStreamReset   = "bus/stream-reset"   // a watermark lies beyond the end of its stream
	CodeBadFrame      = "bus/bad-frame"      // a stored frame is damaged
	CodeDecode        = "bus/decode"         // an event is not what the topic's type says
	CodePanic         = "stage/panic"        // a handler panicked
	CodeTimeout       = "stage/timeout"      // a handler overran its time
	CodeNotOwner      = "bus/not-owner"      // a partition belongs to another process now
	CodeNoKey         = "bus/no-key"         // a message for a stream with a key names no partition
	CodeLaterInOrder  = "bus/later-in-order" // RetryLater of an event that is read in the order of its key
	CodeCollect       = "bus/collect"        // a CollectConfig, or what it is for, will not do
	CodeHandler       = "stage/error"        // a handler returned an error without a code
)

// JetStream's error codes that nats.go has no names for. From nats-server's errors.json.
const (
	jsAccountResources      jetstream.ErrorCode = 10002
	jsInsufficientResources jetstream.ErrorCode = 10023
	jsMemoryResources       jetstream.ErrorCode = 10028
	jsStorageResources      jetstream.ErrorCode = 10047
	jsStoreFailed           jetstream.ErrorCode = 10077 // includes "maximum bytes exceeded" and a full disk
)

// publishFault turns an error of storing a message on subject into a fault.
func publishFault(subject string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := fault.As(err); ok {
		return err
	}
	f := &fault.Error{Where: subject, Err: err}
	var api *jetstream.APIError
	switch {
	case errors.As(err, &api):
		switch api.ErrorCode {
		case jsStoreFailed:
			f.Code, f.What = CodeStreamFull, "the stream is full"
			f.Fix = "let its consumers catch up, shorten keep, or raise max_bytes of the stream"
		case jsAccountResources, jsInsufficientResources, jsMemoryResources, jsStorageResources:
			f.Code, f.What = CodeStoreFull, "the broker has no room left"
			f.Fix = "free space on the file system of the state folder, or raise store of the broker; see hozo status"
		case jetstream.JSErrCodeStreamMessageExceedsMaximum:
			f.Code, f.What, f.Fix = CodeTooLarge, "the message is larger than the stream allows", "send smaller events"
		case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
			f.Code, f.What = CodeWrongSequence, "the expected sequence does not hold"
		default:
			f.Code, f.What = CodeUnavailable, "the stream refused the message"
		}
	case errors.Is(err, nats.ErrMaxPayload):
		f.Code, f.What, f.Fix = CodeTooLarge, "the message is larger than the broker allows", "send smaller events"
	default:
		f.Code, f.What, f.Fix = CodeUnavailable, "the bus is away", "see hozo status; publishing works again when the broker is back"
	}
	return f
}

// retryable reports whether a publish that failed with err may succeed later without anything changing here.
func retryable(err error) bool { return fault.Code(err) == CodeUnavailable }

func tooLarge(subject string, size, limit int) error {
	return &fault.Error{
		Code: CodeTooLarge, Where: subject,
		What: fmt.Sprintf("an event of %d bytes is over the limit of %d", size, limit),
		Fix:  "send smaller events, or store the data elsewhere and send its address",
	}
}

// ended is the fault of waiting on the bus until ctx ended; last is what went wrong meanwhile, or nil.
func ended(ctx context.Context, subject string, last error) error {
	return &fault.Error{
		Code: CodeUnavailable, Where: subject, What: "no answer from the bus in time",
		Fix: "see hozo status; it works again when the broker is back", Err: errors.Join(context.Cause(ctx), last),
	}
}
