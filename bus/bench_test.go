package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go/jetstream"
)

// lines makes n JSON events that look like a code host's activity feed: 200 B to 2 KB, keys and words that repeat, ids
// that do not.
func lines(n int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	kinds := []string{"PushEvent", "CreateEvent", "WatchEvent", "IssuesEvent", "IssueCommentEvent", "PullRequestEvent"}
	words := []string{"fix", "the", "build", "of", "parser", "merge", "branch", "add", "test", "for", "release", "docs", "http", "timeout"}
	all := make([][]byte, n)
	for i := range all {
		message := ""
		for range 8 + rng.IntN(200) {
			message += words[rng.IntN(len(words))] + " "
		}
		all[i] = fmt.Appendf(nil, `{"id":"%d","type":"%s","actor":{"id":%d,"login":"user%d","url":"https://api.example.org/users/user%d"},`+
			`"repo":{"id":%d,"name":"org%d/repo%d"},"payload":{"ref":"refs/heads/main","sha":"%016x","message":"%s"},"public":true}`,
			2489000000+i, kinds[rng.IntN(len(kinds))], rng.IntN(1e6), rng.IntN(1e5), rng.IntN(1e5), rng.IntN(1e6), rng.IntN(1000), rng.IntN(1000), rng.Uint64(), message)
	}
	return all
}

// How fast does one core make frames, and does it allocate?
func BenchmarkBuilder(b *testing.B) {
	events := lines(2000)
	for _, codec := range []wire.Codec{wire.CodecNone, wire.CodecZstd, wire.CodecS2} {
		b.Run(codec.String(), func(b *testing.B) {
			builder := bus.NewBuilder(codec)
			raw, encoded, i := 0, 0, 0
			b.ReportAllocs()
			for b.Loop() {
				builder.Reset()
				for !builder.Full() {
					builder.Add(events[i%len(events)])
					i++
				}
				raw += builder.RawBytes()
				encoded += len(builder.Frame())
			}
			b.ReportMetric(float64(raw)/b.Elapsed().Seconds()/1e6, "MB/s")
			b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(raw)/float64(encoded), "ratio")
		})
	}
}

// How fast does one core check, decompress and walk frames? Buffers are reused by a Stage only, so this one allocates
// the raw payload of each frame.
func BenchmarkOpenFrame(b *testing.B) {
	broker := testkit.Broker(b)
	c := producer(b, broker)
	builder := bus.NewBuilder(wire.CodecZstd)
	for _, e := range lines(2000) {
		if builder.Full() {
			break
		}
		builder.Add(e)
	}
	if _, err := c.PublishFrame(testkit.Context(b), "events.raw", nil, builder.Frame()); err != nil {
		b.Fatal(err)
	}
	consumer, err := broker.JS.CreateConsumer(testkit.Context(b), "events_raw", jetstream.ConsumerConfig{AckPolicy: jetstream.AckNonePolicy})
	if err != nil {
		b.Fatal(err)
	}
	msg, err := consumer.Next()
	if err != nil {
		b.Fatal(err)
	}
	count, raw := 0, 0
	b.ReportAllocs()
	for b.Loop() {
		f, err := bus.OpenFrame("events.raw", msg)
		if err != nil {
			b.Fatal(err)
		}
		events, err := f.Events()
		if err != nil {
			b.Fatal(err)
		}
		for _, data := range events {
			raw += len(data)
			count++
		}
	}
	b.ReportMetric(float64(raw)/b.Elapsed().Seconds()/1e6, "MB/s")
	b.ReportMetric(float64(count)/b.Elapsed().Seconds(), "events/s")
}

// How fast does a stage move events from a filled stream to another one, broker in the same process? One op is one
// event.
func BenchmarkStage(b *testing.B) {
	raw := bus.NewTopic[json.RawMessage]("events.raw")
	out := bus.NewTopic[json.RawMessage]("events.done")
	b.Run("raw", func(b *testing.B) {
		benchmarkStage(b, raw, func(_ context.Context, e bus.Event[json.RawMessage], o *bus.Out) error {
			return out.Send(o, e.Value)
		})
	})
	type activity struct {
		ID   string `json:"id"`
		Type string `json:"type"`
	}
	b.Run("json", func(b *testing.B) {
		benchmarkStage(b, bus.NewTopic[activity]("events.raw"), func(_ context.Context, e bus.Event[activity], o *bus.Out) error {
			return o.Publish("events.done", e.Data)
		})
	})
}

func benchmarkStage[T any](b *testing.B, topic bus.Topic[T], fn bus.HandlerFunc[T]) {
	broker := testkit.Broker(b)
	c := dial(b, broker, workerGrant())
	p := producer(b, broker)
	events := lines(2000)
	builder := bus.NewBuilder(wire.CodecZstd)
	size := 0
	for i := range b.N {
		builder.Add(events[i%len(events)])
		size += len(events[i%len(events)])
		if builder.Full() || i == b.N-1 {
			if _, err := p.PublishFrame(testkit.Context(b), "events.raw", nil, builder.Frame()); err != nil {
				b.Fatal(err)
			}
			builder.Reset()
		}
	}
	var left sync.WaitGroup
	left.Add(b.N)
	stage := newStage(b, c, topic, func(ctx context.Context, e bus.Event[T], o *bus.Out) error {
		left.Done()
		return fn(ctx, e, o)
	}, bus.StageConfig{})
	b.ReportAllocs()
	b.ResetTimer()
	start(b, stage)
	left.Wait()
	settled(b, broker, "events.raw", "worker")
	b.StopTimer()
	b.ReportMetric(float64(size)/b.Elapsed().Seconds()/1e6, "MB/s")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// How many small events a second does group commit store for 64 callers who each wait for their own?
func BenchmarkPublisher(b *testing.B) {
	broker := testkit.Broker(b)
	p := newPublisher(b, producer(b, broker), "events.raw", bus.PublisherConfig{})
	event := lines(1)[0]
	b.SetParallelism(32) // times GOMAXPROCS
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := p.Publish(b.Context(), event); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// How long does a question to a free server take?
func BenchmarkCall(b *testing.B) {
	broker := testkit.Broker(b)
	start(b, double.Serve(server(b, broker), func(_ context.Context, req item) (item, error) { return req, nil }, bus.ServeConfig{}))
	c := asker(b, broker)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := double.Ask(b.Context(), c, item{N: 1}); err != nil {
			b.Fatal(err)
		}
	}
}

// What does counting on an edge of the graph cost? A stage does it once a frame, a call and a live event once each.
func BenchmarkAddEdge(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		var c bus.Counters
		for b.Loop() {
			c.AddEdge("consumes", "events.raw", 1)
		}
	})
	b.Run("contended", func(b *testing.B) {
		var c bus.Counters
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				c.AddEdge("consumes", "events.raw", 1)
			}
		})
	})
}
