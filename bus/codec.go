package bus

import (
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/hozo-dev/hozo/wire"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// The codecs are made once and shared: EncodeAll and DecodeAll keep no state between calls, are safe for concurrent
// use and hold one set of tables a core, some 2 MiB each.
var (
	zstdEncoder = sync.OnceValues(func() (*zstd.Encoder, error) {
		return zstd.NewWriter(nil,
			zstd.WithEncoderLevel(zstd.SpeedFastest),
			zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
			zstd.WithWindowSize(1<<20), // four target frames; the default of 4 MiB costs memory and gains nothing
			zstd.WithLowerEncoderMem(true))
	})
	zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
		return zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
			zstd.WithDecoderMaxMemory(wire.MaxFrameRawBytes),
			zstd.WithDecodeAllCapLimit(true)) // output never outgrows what the header announced
	})
)

// compress appends raw, coded by codec, to dst.
func compress(dst []byte, codec wire.Codec, raw []byte) []byte {
	switch codec {
	case wire.CodecNone:
		return append(dst, raw...)
	case wire.CodecS2:
		most := s2.MaxEncodedLen(len(raw))
		dst = slices.Grow(dst, most)
		return dst[:len(dst)+len(s2.Encode(dst[len(dst):len(dst)+most], raw))]
	}
	enc, err := zstdEncoder()
	if err != nil {
		panic(fmt.Sprintf("bus: internal error: zstd encoder: %v", err)) // only wrong options can fail
	}
	return enc.EncodeAll(raw, dst)
}

// decompress returns the size bytes that payload holds, in buf when that is large enough, and the buffer to use the
// next time.
func decompress(buf []byte, codec wire.Codec, payload []byte, size int) (raw, next []byte, err error) {
	if codec == wire.CodecNone {
		return payload, buf, nil
	}
	if cap(buf) < size {
		buf = make([]byte, 0, size+size/8) // frames of one stream differ by a few events
	}
	if codec == wire.CodecS2 {
		if n, err := s2.DecodedLen(payload); err != nil {
			return nil, buf, fmt.Errorf("%w: decompress: %w", wire.ErrFrame, err)
		} else if n != size {
			return nil, buf, fmt.Errorf("%w: payload is %d bytes decompressed, header says %d", wire.ErrFrame, n, size)
		}
		if raw, err = s2.Decode(buf[:size], payload); err != nil {
			return nil, buf, fmt.Errorf("%w: decompress: %w", wire.ErrFrame, err)
		}
		return raw, buf, nil
	}
	dec, err := zstdDecoder()
	if err != nil {
		panic(fmt.Sprintf("bus: internal error: zstd decoder: %v", err)) // only wrong options can fail
	}
	raw, err = dec.DecodeAll(payload, buf[:0:size])
	if err != nil {
		return nil, buf, fmt.Errorf("%w: decompress: %w", wire.ErrFrame, err)
	}
	if len(raw) != size {
		return nil, buf, fmt.Errorf("%w: payload is %d bytes decompressed, header says %d", wire.ErrFrame, len(raw), size)
	}
	return raw, buf, nil
}

// codecOf reads the manifest's word for a route's compression; zstd is the default.
func codecOf(r wire.Route) wire.Codec {
	codec, _ := wire.CodecOf(r.Compression) // the manifest has checked the word
	return codec
}
