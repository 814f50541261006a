package broker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
)

// fill writes a file that takes what the file system of dir has left, but for the last bytes. It returns its path.
func fill(t *testing.T, dir string, left int64) string {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for block := make([]byte, 64<<10); err == nil; {
		space, statErr := broker.SpaceOf(dir)
		if statErr != nil {
			t.Fatal(statErr)
		}
		if left > 0 && space.FreeBytes <= left {
			return path
		}
		_, err = file.Write(block)
	}
	if left > 0 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("fill the disk but for %d bytes: %v", left, err)
	}
	return path
}

// reconnecting connects so that the connection outlives the server.
func reconnecting(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url, nats.UserInfo(broker.PlatformUser, "secret"), nats.MaxReconnects(-1), nats.Timeout(testkit.Patience), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// tryPublish tries to store data within a moment: a server that failed to write answers nothing.
func tryPublish(t *testing.T, js jetstream.JetStream, data []byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := js.Publish(ctx, "events", data)
	return err
}

func TestLowSpaceRefusesMessagesAndServesReaders(t *testing.T) {
	t.Parallel()
	dir := testkit.Tmpfs(t, 16<<20) // its reserve is 800 KB
	r := runBroker(t, broker.Config{Dir: filepath.Join(dir, "broker")})
	ctx := testkit.Context(t)
	if _, err := r.js.CreateStream(ctx, jetstream.StreamConfig{Name: "events", Subjects: []string{"events"}, MaxBytes: 8 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.js.CreateConsumer(ctx, "events", jetstream.ConsumerConfig{Durable: "reader", AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		t.Fatal(err)
	}
	publishAll(t, r.js, "events", 3, 1000)
	ballast := fill(t, dir, 500<<10)
	testkit.Eventually(t, func() bool {
		api, ok := errors.AsType[*jetstream.APIError](tryPublish(t, r.js, []byte("more")))
		return ok && api.ErrorCode == 10002
	}, "messages are refused for want of room")
	ack(t, fetch(t, r.js, "events", "reader", 3)...)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { return tryPublish(t, r.js, []byte("more")) == nil }, "messages are taken again")
}

// TestFullDiskLosesNothingAndHealsItself fills the disk under load, so that some write fails in its middle.
func TestFullDiskLosesNothingAndHealsItself(t *testing.T) {
	t.Parallel()
	dir := testkit.Tmpfs(t, 16<<20)
	r := runBroker(t, broker.Config{Dir: filepath.Join(dir, "broker")})
	js := reconnecting(t, r.url)
	if _, err := js.CreateStream(testkit.Context(t), jetstream.StreamConfig{Name: "events", Subjects: []string{"events"}}); err != nil {
		t.Fatal(err)
	}
	var acknowledged []uint64
	store := func() error {
		n := uint64(len(acknowledged))
		err := tryPublish(t, js, binary.BigEndian.AppendUint64(make([]byte, 4<<10), n))
		if err == nil {
			acknowledged = append(acknowledged, n)
		}
		return err
	}
	if err := store(); err != nil {
		t.Fatal(err)
	}
	var ballast string
	var wg sync.WaitGroup
	wg.Go(func() { ballast = fill(t, dir, 0) })
	for store() == nil {
	}
	wg.Wait()
	for range 3 {
		if err := store(); err == nil {
			t.Error("a message was acknowledged on a full disk")
		}
	}
	select {
	case err := <-r.ended:
		t.Fatalf("the broker ended on a full disk: %v", err)
	default:
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { return store() == nil }, "messages are taken again")
	stream, err := js.Stream(testkit.Context(t), "events")
	if err != nil {
		t.Fatal(err)
	}
	held := map[uint64]bool{}
	for seq := uint64(1); seq <= stream.CachedInfo().State.LastSeq; seq++ {
		msg, err := stream.GetMsg(testkit.Context(t), seq)
		if err != nil {
			t.Fatalf("message %d: %v", seq, err)
		}
		held[binary.BigEndian.Uint64(msg.Data[len(msg.Data)-8:])] = true
	}
	for _, n := range acknowledged {
		if !held[n] {
			t.Errorf("acknowledged message %d is gone", n)
		}
	}
}

// lineWatch is a Writer that tells when a line with a text comes.
type lineWatch struct {
	text string
	seen chan<- struct{}
}

func (w lineWatch) Write(line []byte) (int, error) {
	if strings.Contains(string(line), w.text) {
		select {
		case w.seen <- struct{}{}:
		default:
		}
	}
	return len(line), nil
}

func TestBrokerStartedOnAFullDiskWaitsAndKeepsItsPromises(t *testing.T) {
	t.Parallel()
	dir := testkit.Tmpfs(t, 16<<20)
	cfg := broker.Config{Dir: filepath.Join(dir, "broker")}
	first := runBroker(t, cfg)
	layout := broker.Layout{Streams: []broker.StreamSpec{{Name: "events", MaxBytes: 8 << 20}}}
	if err := broker.Provision(testkit.Context(t), first.js, layout); err != nil {
		t.Fatal(err)
	}
	publishAll(t, first.js, "events", 5, 1000)
	first.stop()
	ballast := fill(t, dir, 0)
	waiting := make(chan struct{}, 1)
	cfg.Logger = slog.New(slog.NewTextHandler(lineWatch{"waiting for room", waiting}, nil))
	b, err := broker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1) // one Run, one result
	var wg sync.WaitGroup
	wg.Go(func() { ended <- b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	testkit.Wait(t, waiting)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	testkit.Wait(t, b.Ready())
	js := reconnecting(t, b.URL())
	if err := broker.Provision(testkit.Context(t), js, layout); err != nil {
		t.Errorf("what was promised before: %v", err)
	}
	if state := streamState(t, js, "events"); state.Msgs != 5 {
		t.Errorf("the stream holds %d messages, want 5", state.Msgs)
	}
	publishAll(t, js, "events", 1000, 1000)
	select {
	case err := <-ended:
		t.Errorf("the broker ended: %v", err)
	default:
	}
}
