package builtin

import (
	"net/http"
	"strconv"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/web"
	"github.com/hozo-dev/hozo/wire"
)

// refusal is why a request is not answered with 200.
type refusal struct {
	status     int
	fault      *fault.Error
	retryAfter time.Duration // told when not zero
	hangUp     bool          // the rest of the body is not worth reading
}

func (r *refusal) Error() string { return r.fault.Error() }
func (r *refusal) Unwrap() error { return r.fault }

func refuse(status int, code, what, fix string) *refusal {
	return &refusal{status: status, fault: &fault.Error{Code: code, What: what, Fix: fix}}
}

// busyRefusal tells a client to come back when the requests under way have made room.
func busyRefusal(after time.Duration) *refusal {
	ref := refuse(http.StatusTooManyRequests, "ingest/busy", "too many bytes are being handled", "send it again after Retry-After")
	ref.retryAfter, ref.hangUp = after, true
	return ref
}

// refusal is storeRefusal of one stream: a full one with the policy fail does not ask to be tried again.
func (st *ingestStream) refusal(err error) *refusal {
	ref := storeRefusal(err)
	if fault.Code(err) == bus.CodeStreamFull && st.route.Full == wire.FullFail {
		ref.status, ref.retryAfter = http.StatusInsufficientStorage, 0
		ref.fault.Fix = "the operator can raise max_bytes, shorten keep or let its consumers catch up; see hozo status"
	}
	return ref
}

// storeRefusal turns an error of storing into what the client is told.
func storeRefusal(err error) *refusal {
	f := &fault.Error{Err: err}
	switch fault.Code(err) {
	case bus.CodeStreamFull:
		f.Code, f.What = "ingest/stream-full", "the stream is full"
		f.Fix = "send it again after Retry-After; the operator can raise max_bytes or shorten keep"
		return &refusal{status: http.StatusServiceUnavailable, fault: f, retryAfter: spread(5 * time.Second)}
	case bus.CodeStoreFull:
		f.Code, f.What = "ingest/store-full", "the broker has no room left"
		f.Fix = "send it again after Retry-After; the operator can free disk space, see hozo status"
		return &refusal{status: http.StatusServiceUnavailable, fault: f, retryAfter: spread(5 * time.Second)}
	case bus.CodeUnavailable, bus.CodeWrongSequence:
		f.Code, f.What, f.Fix = "ingest/broker-away", "the broker does not answer", "send it again after Retry-After; the operator sees in hozo status why"
		return &refusal{status: http.StatusServiceUnavailable, fault: f, retryAfter: spread(2 * time.Second)}
	case bus.CodeTooLarge:
		f.Code, f.What, f.Fix = "ingest/line-too-long", "an event is too large for the broker", "send smaller events"
		return &refusal{status: http.StatusRequestEntityTooLarge, fault: f}
	}
	if known, ok := fault.As(err); ok {
		f = known
	} else {
		f.Code, f.What = "ingest/store", "the events cannot be stored"
	}
	return &refusal{status: http.StatusInternalServerError, fault: f}
}

func (r *refusal) answer(w http.ResponseWriter) {
	if r.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(r.retryAfter/time.Second)))
	}
	if r.hangUp {
		w.Header().Set("Connection", "close")
	}
	if r.status == http.StatusMethodNotAllowed && w.Header().Get("Allow") == "" {
		w.Header().Set("Allow", http.MethodPost)
	}
	web.Fault(w, r.status, r.fault)
}
