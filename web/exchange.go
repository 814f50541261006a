package web

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// pieceBytes is how much of an answer must leave within WriteStall: 64 KiB in 30 s is 2 KiB/s, below any link in use.
const pieceBytes = 64 << 10

// exchange is one request and its answer under the stall limits: it is the ResponseWriter that the handler sees.
//
// Deadlines of net/http are points in time for a whole body. Here they are moved on with every piece, so that a long
// transfer that proceeds is never cut and one that stands still always is.
type exchange struct {
	http.ResponseWriter
	control    *http.ResponseController
	readStall  time.Duration
	writeStall time.Duration
	draining   <-chan struct{}
	body       *stallReader // nil when the request has none
	answered   bool         // the status line is decided
	hijacked   bool
}

var (
	_ http.Flusher  = (*exchange)(nil)
	_ http.Hijacker = (*exchange)(nil)
	_ io.ReaderFrom = (*exchange)(nil)
)

// newExchange starts the clocks and returns the request whose body is limited.
func newExchange(w http.ResponseWriter, r *http.Request, cfg Config, draining <-chan struct{}) (*exchange, *http.Request) {
	x := &exchange{
		ResponseWriter: w, control: http.NewResponseController(w),
		readStall: cfg.ReadStall, writeStall: cfg.WriteStall, draining: draining,
	}
	// The deadline of the connection's last answer may be long past. Deadlines can only fail on connections that are
	// closed already, here and below; then the transfer fails by itself.
	_ = x.control.SetWriteDeadline(time.Time{})
	if r.Body != nil && r.Body != http.NoBody {
		x.body = &stallReader{ReadCloser: r.Body, x: x}
		x.extendRead() // net/http may read the body itself before the handler does
		limited := *r
		limited.Body = http.MaxBytesReader(w, x.body, cfg.MaxBody)
		r = &limited
	}
	return x, r
}

// finish runs after the handler: net/http now drops the rest of the body and flushes the answer.
func (x *exchange) finish() {
	if x.hijacked {
		return
	}
	if x.body != nil && !x.body.ended {
		x.extendRead()
	}
	x.begin()
	x.extendWrite()
}

// begin notes that the header of the answer is about to leave. While draining it tells the client not to use the
// connection again, which net/http also heeds: HTTP/1.1 closes it, HTTP/2 sends GOAWAY.
func (x *exchange) begin() {
	if x.answered {
		return
	}
	x.answered = true
	select {
	case <-x.draining:
		x.Header().Set("Connection", "close")
	default:
	}
}

func (x *exchange) extendRead()  { _ = x.control.SetReadDeadline(time.Now().Add(x.readStall)) }
func (x *exchange) extendWrite() { _ = x.control.SetWriteDeadline(time.Now().Add(x.writeStall)) }

// Unwrap lets http.ResponseController through.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

func (x *exchange) WriteHeader(status int) {
	switch {
	case status == http.StatusSwitchingProtocols:
		x.answered = true // its Connection header is the new protocol's
	case status >= 200: // the others are interim answers
		x.begin()
	}
	x.extendWrite()
	x.ResponseWriter.WriteHeader(status)
}

func (x *exchange) Write(p []byte) (int, error) {
	x.begin()
	written := 0
	for {
		piece := p[written:min(len(p), written+pieceBytes)]
		x.extendWrite()
		n, err := x.ResponseWriter.Write(piece)
		written += n
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// ReadFrom copies piece by piece and leaves each to net/http, which can use sendfile.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	x.begin()
	left := int64(-1) // unknown
	if limited, ok := src.(*io.LimitedReader); ok {
		// sendfile sees through one LimitedReader, not through two.
		src, left = limited.R, limited.N
		defer func() { limited.N = left }()
	}
	var total int64
	for left != 0 {
		size := int64(pieceBytes)
		if left > 0 {
			size = min(size, left)
		}
		x.extendWrite()
		n, err := io.CopyN(x.ResponseWriter, src, size)
		total += n
		if left > 0 {
			left -= n
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// FlushError sends what has been written.
func (x *exchange) FlushError() error {
	x.begin()
	x.extendWrite()
	return x.control.Flush()
}

// Flush sends what has been written.
func (x *exchange) Flush() { _ = x.FlushError() } // http.Flusher has no way to tell

// Hijack hands the connection to the handler, which is alone with it from then on: no deadline is set any more.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := x.control.Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.hijacked, x.answered = true, true
	return raw, rw, raw.SetDeadline(time.Time{})
}

// stallReader is a request body in which every Read has its own deadline.
type stallReader struct {
	io.ReadCloser
	x     *exchange
	ended bool
}

func (b *stallReader) Read(p []byte) (int, error) {
	b.x.extendRead()
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) && !b.ended {
		b.ended = true
		// net/http now watches the connection for the client's leaving. A deadline would look like one.
		_ = b.x.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
