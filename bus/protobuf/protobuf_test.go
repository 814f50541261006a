package protobuf_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/bus/protobuf"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// A message written by a newer program has fields that ours does not know; they are there when it is passed on.
func TestUnknownFieldsAreKept(t *testing.T) {
	t.Parallel()
	data, err := proto.Marshal(&timestamppb.Timestamp{Seconds: 7, Nanos: 9})
	if err != nil {
		t.Fatal(err)
	}
	const unknown = "\x1a\x03new" // field 3, which neither type has
	var v *durationpb.Duration
	if err := protobuf.Codec.Unmarshal("", append(data, unknown...), &v); err != nil {
		t.Fatal(err)
	}
	v.Seconds = 8
	again, err := protobuf.Codec.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	want, err := proto.Marshal(&durationpb.Duration{Seconds: 8, Nanos: 9})
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(want)+unknown {
		t.Errorf("written back as %x", again)
	}
}

func TestContentTypesThatAreRead(t *testing.T) {
	t.Parallel()
	binary, err := proto.Marshal(durationpb.New(2e9))
	if err != nil {
		t.Fatal(err)
	}
	for contentType, data := range map[string][]byte{
		"": binary, "application/protobuf": binary, "application/x-protobuf; v=1": binary, "application/json; charset=utf-8": []byte(`"2s"`),
	} {
		var v *durationpb.Duration
		if err := protobuf.Codec.Unmarshal(contentType, data, &v); err != nil || v.AsDuration() != 2e9 {
			t.Errorf("%q: %v, %v", contentType, v, err)
		}
	}
	for _, contentType := range []string{"text/plain", "application/cloudevents+json", ";"} {
		var v *durationpb.Duration
		if err := protobuf.Codec.Unmarshal(contentType, binary, &v); !errors.Is(err, bus.ErrContentType) {
			t.Errorf("%q: %v", contentType, err)
		}
	}
	var s string
	if err := protobuf.Codec.Unmarshal("", binary, &s); err == nil {
		t.Error("a string was taken for a message")
	}
	if _, err := protobuf.Codec.Marshal("text"); err == nil {
		t.Error("a string was written as a message")
	}
}

// A reader of JSON that meets protobuf events parks them; a reader of protobuf gets them.
func TestTheContentTypeTravelsThroughStreamsAndCalls(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	ctx := testkit.Context(t)
	g := b.Grant(t, wire.Grant{
		Consumes: []wire.Source{{Stream: "in"}}, Publish: []wire.Route{{Subject: "in", Stream: "in"}, {Subject: "out", Stream: "out"}},
		Serves: []string{"longer"}, Calls: []string{"longer"},
	})
	other := b.Grant(t, wire.Grant{Service: "json", Consumes: []wire.Source{{Stream: "out"}}})
	conn, reader := connect(t, b, g), connect(t, b, other)
	binary := bus.WithCodec(protobuf.Codec)
	in, out := bus.NewTopic[*durationpb.Duration]("in", binary), bus.NewTopic[*durationpb.Duration]("out", binary)
	longer := bus.NewCall[*durationpb.Duration, *durationpb.Duration]("longer", binary)
	run(t, longer.Serve(conn, func(_ context.Context, d *durationpb.Duration) (*durationpb.Duration, error) {
		return durationpb.New(2 * d.AsDuration()), nil
	}, bus.ServeConfig{}))
	if _, err := in.Publish(ctx, conn, durationpb.New(3e9)); err != nil {
		t.Fatal(err)
	}
	stage, err := bus.NewStage(conn, in, func(ctx context.Context, e bus.Event[*durationpb.Duration], o *bus.Out) error {
		d, err := longer.Ask(ctx, conn, e.Value)
		if err != nil {
			return err
		}
		if e.ContentType() != protobuf.ContentType {
			t.Errorf("%v came as %q", e.Value, e.ContentType())
		}
		return out.Send(o, d)
	}, bus.StageConfig{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	run(t, stage)
	jsonReader, err := bus.NewStage(reader, bus.NewTopic[map[string]any]("out"), func(context.Context, bus.Event[map[string]any], *bus.Out) error {
		return nil
	}, bus.StageConfig{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, jsonReader)
	testkit.Eventually(t, func() bool { return reader.Counters().Parked.Load() == 1 }, "what is no JSON is parked")
	dead, err := b.JS.Stream(ctx, wire.StreamName(wire.DeadStream))
	if err != nil {
		t.Fatal(err)
	}
	letter, err := dead.GetLastMsgForSubject(ctx, "hozo.dlq.>")
	if err != nil {
		t.Fatal(err)
	}
	if letter.Header.Get(wire.HeaderCode) != bus.CodeDecode || letter.Header.Get(wire.HeaderContentType) != protobuf.ContentType {
		t.Errorf("the dead letter says %v", letter.Header)
	}
}

func connect(t *testing.T, b *testkit.TestBroker, g wire.Grant) *bus.Conn {
	t.Helper()
	c, err := bus.Connect(testkit.Context(t), bus.Config{URL: b.URL, Grant: g, Logger: testkit.Logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), testkit.Patience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

type runner interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

func run(t *testing.T, r runner) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }() // awaited below
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	testkit.Wait(t, r.Ready())
}
