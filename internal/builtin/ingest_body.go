package builtin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// firstBodyBytes is what a body of unknown length is given at first: most requests are smaller.
	firstBodyBytes = 64 << 10

	// keptBodyBytes is the largest buffer that is kept for the next request.
	keptBodyBytes = 4 << 20

	// zstdWindow is the window that a compressed body may at least ask for: zstd's own levels need at most 8 MiB, and
	// a frame that knows its size asks for no more than that; only --long asks for more.
	zstdWindow = 8 << 20

	// bodyRoom is what a body may be larger compressed than decoded, and what the budget has over the largest body, so
	// that a lone request always fits.
	bodyRoom = 64 << 10
)

// bodies reads request bodies whole, within a limit each and a budget for all. Safe for concurrent use.
type bodies struct {
	limit   int64 // bytes of one body, decoded
	budget  *budget
	slots   chan struct{} // capacity: the decoders at work; one token each
	buffers sync.Pool     // *[]byte
	gzips   sync.Pool     // *gzip.Reader
	zstds   sync.Pool     // *zstd.Decoder
}

func newBodies(limit int64, budget *budget) *bodies {
	return &bodies{limit: limit, budget: budget, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// body is bytes of a request in memory. release must be called when they are no longer used.
type body struct {
	data    []byte
	charged int64
	from    *bodies
}

func (b *body) release() {
	b.from.budget.give(b.charged)
	if cap(b.data) <= keptBodyBytes {
		kept := b.data[:0]
		b.from.buffers.Put(&kept)
	}
}

// checkType refuses bodies that are not announced as lines of JSON. Being strict also keeps browsers of foreign pages
// out: none of these types can be sent without asking first.
func checkType(r *http.Request) *refusal {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err == nil {
		switch kind {
		case "application/x-ndjson", "application/jsonl", "application/json":
			return nil
		}
	}
	return refuse(http.StatusUnsupportedMediaType, "ingest/content-type",
		fmt.Sprintf("Content-Type %q is not one that ingest reads", r.Header.Get("Content-Type")),
		"send one JSON document a line as application/x-ndjson")
}

// read reads the body of r and decodes it.
func (bs *bodies) read(r *http.Request) (*body, *refusal) {
	encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding")))
	limit := bs.limit
	switch encoding {
	case "", "identity":
	case "gzip", "zstd":
		limit += bodyRoom // what does not compress grows a little
	default:
		return nil, refuse(http.StatusUnsupportedMediaType, "ingest/content-encoding",
			fmt.Sprintf("Content-Encoding %q is not one that ingest reads", encoding), "use gzip, zstd or none")
	}
	want := int64(firstBodyBytes)
	if r.ContentLength >= 0 {
		want = r.ContentLength + 1 // one more shows that there is no more
	}
	sent := newBody(bs)
	if err := sent.fill(r.Body, want, limit); err != nil {
		sent.release()
		return nil, bs.unread(err)
	}
	if limit == bs.limit {
		return sent, nil
	}
	defer sent.release()
	return bs.decode(r.Context(), encoding, sent.data)
}

// decode decodes a whole compressed body. The decoders' own memory, up to some 20 MiB each, is not in the budget, so
// only as many work as there are processors; none ever waits for a client.
func (bs *bodies) decode(ctx context.Context, encoding string, sent []byte) (*body, *refusal) {
	select {
	case bs.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, bs.unread(context.Cause(ctx))
	}
	defer func() { <-bs.slots }()
	src, done, err := bs.decoder(encoding, bytes.NewReader(sent))
	if err != nil {
		return nil, bs.undecoded(sent, err)
	}
	defer done()
	decoded := newBody(bs)
	if err := decoded.fill(src, max(firstBodyBytes, 4*int64(len(sent))), bs.limit); err != nil {
		decoded.release()
		return nil, bs.undecoded(sent, err)
	}
	return decoded, nil
}

func newBody(bs *bodies) *body {
	b := &body{from: bs}
	if kept, ok := bs.buffers.Get().(*[]byte); ok {
		b.data = *kept
	}
	return b
}

var errTooLarge = errors.New("too large")

// fill reads src to its end. want is a guess at how much that is. The error is src's, errTooLarge beyond limit, or a
// *refusal when the budget is used up.
func (b *body) fill(src io.Reader, want, limit int64) error {
	if want > limit+1 {
		want = limit + 1
	}
	for {
		if ref := b.grow(max(want, int64(cap(b.data)))); ref != nil {
			return ref
		}
		n, err := src.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		switch {
		case int64(len(b.data)) > limit:
			return errTooLarge
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if len(b.data) == cap(b.data) {
			want = min(2*int64(cap(b.data)), limit+1)
		}
	}
}

// grow makes room for size bytes, if the budget has it.
func (b *body) grow(size int64) *refusal {
	if more := size - b.charged; more > 0 {
		if !b.from.budget.take(more) {
			return busyRefusal(b.from.budget.retryAfter())
		}
		b.charged = size
	}
	if int64(cap(b.data)) < size {
		larger := make([]byte, len(b.data), size)
		copy(larger, b.data)
		b.data = larger
	}
	return nil
}

func (bs *bodies) tooLarge() *refusal {
	ref := refuse(http.StatusRequestEntityTooLarge, "ingest/body-too-large",
		fmt.Sprintf("the body is larger than %d bytes when decoded", bs.limit), "send it in smaller batches, or raise max_body")
	ref.hangUp = true
	return ref
}

// decoder returns a reader of src's content and what to do when it is done with.
func (bs *bodies) decoder(encoding string, src io.Reader) (io.Reader, func(), error) {
	if encoding == "gzip" {
		z, ok := bs.gzips.Get().(*gzip.Reader)
		if !ok {
			z = new(gzip.Reader)
		}
		if err := z.Reset(src); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // not even a header
			}
			return nil, nil, err
		}
		return z, func() { bs.gzips.Put(z) }, nil
	}
	z, ok := bs.zstds.Get().(*zstd.Decoder)
	if !ok {
		var err error
		// One goroutine, the request's own: a decoder in the pool owns nothing that must be closed.
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(uint64(max(zstdWindow, bs.limit+1))), zstd.WithDecoderMaxMemory(uint64(bs.limit)+1))
		if err != nil {
			return nil, nil, fmt.Errorf("make zstd decoder: %w", err)
		}
	}
	if err := z.Reset(src); err != nil {
		return nil, nil, err
	}
	return z, func() {
		if z.Reset(nil) == nil { // lets go of the request
			bs.zstds.Put(z)
		}
	}, nil
}

// unread says what an error of reading from the client means.
func (bs *bodies) unread(err error) *refusal {
	if ref, ok := errors.AsType[*refusal](err); ok {
		return ref
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok || errors.Is(err, errTooLarge) {
		return bs.tooLarge()
	}
	ref := refuse(http.StatusBadRequest, "ingest/body", "the body could not be read to its end", "send it again")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		ref = refuse(http.StatusRequestTimeout, "ingest/stalled", "the body stood still for too long", "send it again")
	}
	ref.fault.Err, ref.hangUp = err, true
	return ref
}

// undecoded says what an error of decoding sent means.
func (bs *bodies) undecoded(sent []byte, err error) *refusal {
	if ref, ok := errors.AsType[*refusal](err); ok {
		return ref
	}
	if errors.Is(err, errTooLarge) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return bs.tooLarge()
	}
	ref := refuse(http.StatusBadRequest, "ingest/encoding", "the body is not what its Content-Encoding says", "nothing was stored; encode it again")
	ref.fault.Err = err
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		ref.fault.Code, ref.fault.What = "ingest/truncated", "the compressed body is cut off"
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		var h zstd.Header
		if h.Decode(sent) == nil && h.HasFCS && h.FrameContentSize > uint64(bs.limit) {
			return bs.tooLarge() // the window is as large as the content
		}
		ref.fault.Code, ref.fault.What = "ingest/window", fmt.Sprintf("the body needs a window of more than %d bytes", max(zstdWindow, bs.limit))
		ref.fault.Fix = "compress it without --long"
	}
	return ref
}
