package builtin

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/hozo-dev/hozo/fault"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// firstBodyBytes is what a body of unknown length is given at first: most requests are smaller.
	firstBodyBytes = 64 << 10

	// keptBodyBytes is the largest buffer that is kept for the next request.
	keptBodyBytes = 4 << 20

	// zstdWindow is the most memory that a compressed body may make its reader hold. zstd's own levels need at most
	// 8 MiB; only --long asks for more.
	zstdWindow = 8 << 20
)

// bodies reads request bodies whole, within a limit each and a budget for all. Safe for concurrent use.
type bodies struct {
	limit   int64 // bytes of one body, decoded
	budget  *budget
	buffers sync.Pool // *[]byte
	gzips   sync.Pool // *gzip.Reader
	zstds   sync.Pool // *zstd.Decoder
}

// body is a request's body in memory. release must be called when its bytes are no longer used.
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

// read reads the body of r.
func (bs *bodies) read(r *http.Request) (*body, *refusal) {
	src := &bodySource{r: r.Body}
	decoded, done, ref := bs.decoder(r, src)
	if ref != nil {
		return nil, ref
	}
	defer done()
	b := &body{from: bs}
	want := int64(firstBodyBytes)
	if decoded == io.Reader(src) && r.ContentLength >= 0 {
		want = r.ContentLength + 1 // one more shows that there is no more
	}
	if want > bs.limit+1 {
		return nil, bs.tooLarge()
	}
	if kept, ok := bs.buffers.Get().(*[]byte); ok {
		b.data = *kept
	}
	for {
		if ref := b.grow(max(want, int64(cap(b.data)))); ref != nil {
			b.release()
			return nil, ref
		}
		n, err := decoded.Read(b.data[len(b.data):cap(b.data)])
		b.data = b.data[:len(b.data)+n]
		switch {
		case int64(len(b.data)) > bs.limit:
			b.release()
			return nil, bs.tooLarge()
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			b.release()
			return nil, bs.broken(src, err)
		}
		if len(b.data) == cap(b.data) {
			want = min(2*int64(cap(b.data)), bs.limit+1)
		}
	}
}

// grow makes room for size bytes, if the budget has it.
func (b *body) grow(size int64) *refusal {
	if more := size - b.charged; more > 0 {
		if !b.from.budget.take(more) {
			ref := refuse(http.StatusTooManyRequests, "ingest/busy", "too many bytes are being handled", "send it again after Retry-After")
			ref.retryAfter, ref.hangUp = b.from.budget.retryAfter(), true
			return ref
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
func (bs *bodies) decoder(r *http.Request, src io.Reader) (io.Reader, func(), *refusal) {
	encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding")))
	switch encoding {
	case "", "identity":
		return src, func() {}, nil
	case "gzip":
		z, ok := bs.gzips.Get().(*gzip.Reader)
		if !ok {
			z = new(gzip.Reader)
		}
		return &lateGzip{z: z, src: src}, func() { bs.gzips.Put(z) }, nil
	case "zstd":
		z, ok := bs.zstds.Get().(*zstd.Decoder)
		if !ok {
			var err error
			// One goroutine, the request's own: a decoder in the pool owns nothing that must be closed.
			z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(uint64(bs.limit)+1))
			if err != nil {
				return nil, nil, &refusal{status: http.StatusInternalServerError, fault: &fault.Error{Code: "ingest/zstd", What: "no decoder", Err: err}}
			}
		}
		done := func() {
			if z.Reset(nil) == nil { // lets go of the request
				bs.zstds.Put(z)
			}
		}
		if err := z.Reset(src); err != nil {
			done()
			return nil, nil, brokenEncoding(err)
		}
		return z, done, nil
	default:
		return nil, nil, refuse(http.StatusUnsupportedMediaType, "ingest/content-encoding",
			fmt.Sprintf("Content-Encoding %q is not one that ingest reads", encoding), "use gzip, zstd or none")
	}
}

// broken says what an error of reading means.
func (bs *bodies) broken(src *bodySource, err error) *refusal {
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](src.err); ok && tooLarge != nil {
		return bs.tooLarge()
	}
	switch {
	case errors.Is(src.err, os.ErrDeadlineExceeded):
		ref := refuse(http.StatusRequestTimeout, "ingest/stalled", "the body stood still for too long", "send it again")
		ref.hangUp = true
		return ref
	case src.err != nil:
		ref := refuse(http.StatusBadRequest, "ingest/body", "the body could not be read to its end", "send it again")
		ref.fault.Err, ref.hangUp = src.err, true
		return ref
	case errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return bs.tooLarge()
	}
	return brokenEncoding(err)
}

func brokenEncoding(err error) *refusal {
	ref := refuse(http.StatusBadRequest, "ingest/encoding", "the body is not what its Content-Encoding says", "nothing was stored; encode it again")
	ref.fault.Err, ref.hangUp = err, true
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		ref.fault.Code, ref.fault.What = "ingest/truncated", "the compressed body is cut off"
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		ref.fault.Code, ref.fault.What = "ingest/window", fmt.Sprintf("the body needs a window of more than %d bytes", zstdWindow)
		ref.fault.Fix = "compress it without --long"
	}
	return ref
}

// bodySource remembers what went wrong on the connection, which decoders wrap or rename.
type bodySource struct {
	r   io.Reader
	err error
}

func (s *bodySource) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// lateGzip reads the header at the first Read, so that its errors come where all others do.
type lateGzip struct {
	z      *gzip.Reader
	src    io.Reader
	opened bool
}

func (l *lateGzip) Read(p []byte) (int, error) {
	if !l.opened {
		if err := l.z.Reset(l.src); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // not even a header
			}
			return 0, err
		}
		l.opened = true
	}
	return l.z.Read(p)
}
