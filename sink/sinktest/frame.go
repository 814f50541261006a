package sinktest

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/sink"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// eventsPerFrame varies with the sequence, so that frames differ.
func eventsPerFrame(seq uint64) int { return int(seq%7) + 1 }

// Events returns the events of the frames first to last that Frames makes: JSON objects that name themselves.
func Events(source string, first, last uint64) []string {
	var all []string
	for seq := first; seq <= last; seq++ {
		for i := range eventsPerFrame(seq) {
			all = append(all, fmt.Sprintf(`{"id":"%s/%d/%d","n":%d,"type":"Test","repo":{"name":"r%d"},"pad":"%s"}`,
				source, seq, i, seq, i, strings.Repeat("x", int(seq*31+uint64(i))%200)))
		}
	}
	return all
}

// Frames returns a batch of the frames first to last of source, the same ones each time.
func Frames(source string, first, last uint64) sink.Batch {
	b := sink.Batch{Source: source}
	for seq := first; seq <= last; seq++ {
		var events [][]byte
		for _, e := range Events(source, seq, seq) {
			events = append(events, []byte(e))
		}
		b.Frames = append(b.Frames, Frame(source, seq, wire.CodecZstd, events...))
	}
	return b
}

// Frame returns the frame with sequence seq of a stream.
func Frame(source string, seq uint64, codec wire.Codec, events ...[]byte) *bus.Frame {
	builder := bus.NewBuilder(codec)
	for _, e := range events {
		builder.Add(e)
	}
	return Message(source, source, seq, nil, builder.Frame())
}

// Message returns what a Follower would make of a stored message.
func Message(source, subject string, seq uint64, header nats.Header, data []byte) *bus.Frame {
	f, err := bus.OpenFrame(source, message{subject: subject, seq: seq, header: header, data: data})
	if err != nil {
		panic(fmt.Sprintf("sinktest: internal error: %v", err)) // the frames of this package are well formed
	}
	return f
}

// message is a stored message without a broker.
type message struct {
	jetstream.Msg // nobody acknowledges it
	subject       string
	seq           uint64
	header        nats.Header
	data          []byte
}

func (m message) Data() []byte         { return m.data }
func (m message) Subject() string      { return m.subject }
func (m message) Headers() nats.Header { return m.header }

func (m message) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{
		Sequence:  jetstream.SequencePair{Stream: m.seq, Consumer: m.seq},
		Timestamp: time.Unix(int64(m.seq), 0),
	}, nil
}

// noise returns frames that hardly compress.
func noise(first, last uint64) sink.Batch {
	b := sink.Batch{Source: stream}
	for seq := first; seq <= last; seq++ {
		b.Frames = append(b.Frames, Frame(stream, seq, wire.CodecZstd, []byte(noiseEvents(seq, seq)[0])))
	}
	return b
}

func noiseEvents(first, last uint64) []string {
	var all []string
	for seq := first; seq <= last; seq++ {
		random := rand.NewChaCha8([32]byte{byte(seq), byte(seq >> 8)})
		pad := make([]byte, 1500)
		_, _ = random.Read(pad) // never fails
		all = append(all, fmt.Sprintf(`{"n":%d,"pad":"%s"}`, seq, base64.StdEncoding.EncodeToString(pad)))
	}
	return all
}
