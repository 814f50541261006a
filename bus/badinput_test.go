package bus_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// damagedFrames are a frame with each of its bytes flipped once.
func damagedFrames(codec wire.Codec) (whole []byte, damaged [][]byte) {
	b := bus.NewBuilder(codec)
	for n := range 3 {
		b.Add([]byte{'{', '"', 'n', '"', ':', byte('0' + n), '}'})
	}
	whole = slices.Clone(b.Frame())
	for i := range whole {
		bad := slices.Clone(whole)
		bad[i] ^= 0xff
		damaged = append(damaged, bad)
	}
	return whole, damaged
}

// A flipped byte is detected, or it hits the mark by which a frame is told from a bare event: then the message is one
// event, which no handler takes for what it was.
func TestEveryFlippedByteOfAFrameIsDetected(t *testing.T) {
	t.Parallel()
	for _, codec := range []wire.Codec{wire.CodecNone, wire.CodecS2, wire.CodecZstd} {
		whole, damaged := damagedFrames(codec)
		for i, data := range damaged {
			f, err := bus.OpenData("events.raw", "events.raw", nil, data)
			if err == nil && f.Framed() {
				_, err = f.Events()
			}
			switch {
			case fault.Code(err) == bus.CodeBadFrame:
			case err == nil && !f.Framed() && f.Len() == 1:
				if event, err := f.Event(0); err != nil || !bytes.Equal(event, data) {
					t.Errorf("codec %v, byte %d of %d: it is event %q, %v", codec, i, len(whole), event, err)
				}
			default:
				t.Errorf("codec %v, byte %d of %d flipped: error %v, want %s", codec, i, len(whole), err, bus.CodeBadFrame)
			}
		}
	}
}

// The same through a stage: each is parked, byte for byte, and what is between them lands.
func TestEveryFlippedByteIsParkedByAStage(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c, p := dial(t, b, workerGrant()), producer(t, b)
	_, damaged := damagedFrames(wire.CodecZstd)
	builder := bus.NewBuilder(wire.CodecZstd)
	for i, data := range damaged {
		if _, err := p.PublishFrame(testkit.Context(t), "events.raw", nil, data); err != nil {
			t.Fatal(err)
		}
		builder.Reset()
		builder.Add(encoded(t, item{N: i}))
		if _, err := p.PublishFrame(testkit.Context(t), "events.raw", nil, builder.Frame()); err != nil {
			t.Fatal(err)
		}
	}
	start(t, newStage(t, c, rawTopic, copyItem, bus.StageConfig{}))
	settled(t, b, "events.raw", "worker")
	items(t, b, "events.done", len(damaged)).exact(t)
	dead, err := b.JS.Stream(testkit.Context(t), wire.StreamName(wire.DeadStream))
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range damaged {
		id := wire.EventID{Stream: "events.raw", Seq: uint64(2*i + 1)}
		msg, err := dead.GetLastMsgForSubject(testkit.Context(t), wire.DeadSubject("worker", id))
		if err != nil {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		if code := msg.Header.Get(wire.HeaderCode); (code != bus.CodeBadFrame && code != bus.CodeDecode) || !bytes.Equal(msg.Data, data) {
			t.Errorf("byte %d flipped: parked under %q with %d bytes of %d", i, code, len(msg.Data), len(data))
		}
	}
}

// What the manifest does not declare is refused before it reaches the broker, with the line to add.
func TestAnUnknownSubjectNamesTheManifestLine(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	p := producer(t, b)
	_, err := bus.NewTopic[item]("orders.unheard").Publish(testkit.Context(t), p, item{})
	f, ok := fault.As(err)
	if !ok || f.Code != bus.CodeNoRoute || f.Where != "orders.unheard" || !bytes.Contains([]byte(f.Fix), []byte("publishes: [")) || !bytes.Contains([]byte(f.Fix), []byte("orders.unheard")) {
		t.Errorf("publishing an undeclared subject: %#v", err)
	}
	_, err = bus.NewStage(p, bus.NewTopic[item]("orders.unheard"), copyItem, bus.StageConfig{})
	f, ok = fault.As(err)
	if !ok || f.Code != bus.CodeNoSource || !bytes.Contains([]byte(f.Fix), []byte("consumes: [")) {
		t.Errorf("reading an undeclared subject: %#v", err)
	}
}
