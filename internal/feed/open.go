package feed

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/hozo-dev/hozo/fault"
)

// Input is an opened source of lines.
type Input struct {
	io.Reader
	read  *counter
	close []func() error

	// Size is the length of the source as it is stored, or 0 when it is not known.
	Size int64
}

// Consumed returns how many bytes of the source as it is stored were read: what Size counts. It is safe to call while
// another goroutine reads.
func (i *Input) Consumed() int64 { return i.read.n.Load() }

// Close closes the source.
func (i *Input) Close() error {
	var first error
	for _, c := range i.close {
		if err := c(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Open opens source: "-" is stdin, http:// and https:// are fetched, anything else is a file. Gzip and zstd are
// recognised by their first bytes and decompressed.
func Open(ctx context.Context, source string, stdin io.Reader) (*Input, error) {
	in := &Input{}
	var stored io.Reader
	switch {
	case source == "-":
		stored = stdin
	case strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://"):
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, source, nil)
		if err != nil {
			return nil, &fault.Error{Code: "send/bad-url", Kind: fault.Misuse, What: "the address is malformed", Where: source, Err: err}
		}
		resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // Input.Close closes it
		if err != nil {
			return nil, &fault.Error{Code: "send/unreachable", What: "the input cannot be fetched", Where: source, Err: err, Fix: "check the address and the network, or download the file and give its path"}
		}
		in.close = append(in.close, resp.Body.Close)
		if resp.StatusCode != http.StatusOK {
			_ = in.Close() // the refusal is the error to report
			return nil, &fault.Error{Code: "send/unreachable", What: "the input's server answered " + resp.Status, Where: source, Fix: "check the address"}
		}
		stored, in.Size = resp.Body, max(resp.ContentLength, 0)
	default:
		file, err := os.Open(source)
		if err != nil {
			return nil, &fault.Error{Code: "send/no-input", Kind: fault.Misuse, What: "the input cannot be opened", Where: source, Err: err, Fix: "give an existing file, an http(s) address, or - for standard input"}
		}
		in.close = append(in.close, file.Close)
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			in.Size = info.Size()
		}
		stored = file
	}
	in.read = &counter{r: stored}
	buffered := bufio.NewReaderSize(in.read, 256<<10)
	magic, err := buffered.Peek(4)
	if err != nil && err != io.EOF {
		_ = in.Close() // the read error is the one to report
		return nil, fmt.Errorf("read %s: %w", source, err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			_ = in.Close() // as above
			return nil, &fault.Error{Code: "send/bad-gzip", Kind: fault.Misuse, What: "the input is not valid gzip", Where: source, Err: err}
		}
		in.Reader = z
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1))
		if err != nil {
			_ = in.Close() // as above
			return nil, &fault.Error{Code: "send/bad-zstd", Kind: fault.Misuse, What: "the input is not valid zstd", Where: source, Err: err}
		}
		in.Reader, in.close = z, append([]func() error{func() error { z.Close(); return nil }}, in.close...)
	default:
		in.Reader = buffered
	}
	return in, nil
}
