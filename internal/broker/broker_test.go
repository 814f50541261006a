package broker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/lifecycle"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestAcknowledgedMessagesSurviveKillDuringPublishing(t *testing.T) {
	t.Parallel()
	b := testkit.BrokerProcess(t)
	b.Declare(t, broker.StreamSpec{Name: "events", MaxBytes: 64 << 20})
	ctx, cancel := context.WithCancel(testkit.Context(t))
	acked := make(chan int, 1) // one publisher, one result
	enough := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		n := 0
		for {
			if _, err := b.JS.Publish(ctx, "events", []byte(strconv.Itoa(n))); err != nil {
				acked <- n
				return
			}
			if n++; n == 500 {
				close(enough)
			}
		}
	})
	testkit.Wait(t, enough)
	b.Kill(t)
	cancel()
	wg.Wait()
	n := <-acked
	b.Start(t)
	if err := b.NC.FlushWithContext(testkit.Context(t)); err != nil {
		t.Fatalf("reach the broker again: %v", err)
	}
	stream, err := b.JS.Stream(testkit.Context(t), "events")
	if err != nil {
		t.Fatal(err)
	}
	// One more may be stored than acknowledged: the one in flight.
	if stored := stream.CachedInfo().State.Msgs; stored < uint64(n) || stored > uint64(n)+1 {
		t.Fatalf("%d messages were acknowledged, %d are stored", n, stored)
	}
	for i := range n {
		msg, err := stream.GetMsg(testkit.Context(t), uint64(i+1))
		if err != nil || string(msg.Data) != strconv.Itoa(i) {
			t.Fatalf("message %d after the restart: %v, %v", i+1, msg, err)
		}
	}
}

func TestRestartKeepsDataAndPositions(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	b.Declare(t, broker.StreamSpec{Name: "events", MaxBytes: 64 << 20})
	layout := broker.Layout{
		Streams:   b.Layout().Streams,
		Consumers: []broker.ConsumerSpec{{Stream: "events", Durable: "reader"}},
	}
	if err := broker.Provision(testkit.Context(t), b.JS, layout); err != nil {
		t.Fatal(err)
	}
	publishAll(t, b.JS, "events.a", 10, 100)
	ack(t, fetch(t, b.JS, "events", "reader", 4)...)
	b.Restart(t)
	if err := b.NC.FlushWithContext(testkit.Context(t)); err != nil {
		t.Fatal(err)
	}
	if got := streamState(t, b.JS, "events").Msgs; got != 10 {
		t.Errorf("%d of 10 messages are left", got)
	}
	meta, err := fetch(t, b.JS, "events", "reader", 1)[0].Metadata()
	if err != nil || meta.Sequence.Stream != 5 {
		t.Errorf("the reader goes on at %v (%v), want message 5", meta, err)
	}
}

func TestStoreLimitRefusesWithAnErrorAndRecoversWhenPurged(t *testing.T) {
	t.Parallel()
	js := runBroker(t, broker.Config{Dir: testkit.TempDir(t), Store: 1 << 20}).js
	ctx := testkit.Context(t)
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "events", Subjects: []string{"events"}})
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64<<10)
	for range 32 {
		if _, err = js.Publish(ctx, "events", data); err != nil {
			break
		}
	}
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok || api.ErrorCode != 10023 {
		t.Fatalf("2 MiB into a store of 1 MiB: %v, want insufficient resources", err)
	}
	if err := stream.Purge(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(ctx, "events", data); err != nil {
		t.Errorf("publish after the purge: %v", err)
	}
}

func TestTakenPortEndsRunWithFault(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := broker.New(broker.Config{Dir: testkit.TempDir(t), Port: l.Addr().(*net.TCPAddr).Port})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Run(testkit.Context(t)); fault.Code(err) != "broker/no-start" {
		t.Errorf("Run on a taken port returned %v", err)
	}
}

func TestBrokerListensOnLoopbackOnly(t *testing.T) {
	t.Parallel()
	r := runBroker(t, broker.Config{Dir: testkit.TempDir(t)})
	_, port, _ := net.SplitHostPort(r.url[len("nats://"):])
	var want bytes.Buffer
	n, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&want, "0100007F:%04X 00000000:0000 0A", n) // 127.0.0.1, listening
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(table, want.Bytes()) {
		t.Errorf("no listener %q in /proc/net/tcp", want.String())
	}
	for _, all := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		table, err := os.ReadFile(all)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(table, fmt.Appendf(nil, "00000000:%04X 00000000:0000 0A", n)) {
			t.Errorf("port %d listens on every interface (%s)", n, all)
		}
	}
}

func TestBrokerStartsAndStopsFromManyGoroutines(t *testing.T) {
	t.Parallel()
	testkit.Stress(t, func() lifecycle.Runner {
		b, err := broker.New(broker.Config{Dir: testkit.TempDir(t)})
		if err != nil {
			t.Error(err)
		}
		return b
	})
}

func TestConfigReportsEveryMistake(t *testing.T) {
	t.Parallel()
	_, err := broker.New(broker.Config{Port: 70000, Store: -1})
	if got := len(fault.Flatten(err)); got != 3 {
		t.Errorf("%d mistakes in %v, want 3", got, err)
	}
}

// running is a broker on a free port that is run with a user who may do everything.
type running struct {
	url   string
	js    jetstream.JetStream
	ended <-chan error
	stop  func() // returns when Run has
}

func runBroker(t *testing.T, cfg broker.Config) running {
	t.Helper()
	if err := broker.WriteAccess(cfg.Dir, broker.Access{Users: []broker.User{
		{Name: broker.PlatformUser, PasswordSHA256: broker.HashPassword("secret")},
	}}); err != nil {
		t.Fatal(err)
	}
	cfg.Logger = testkit.Logger(t)
	b, err := broker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1) // one Run, one result
	var wg sync.WaitGroup
	wg.Go(func() { ended <- b.Run(ctx) })
	stop := func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	testkit.Wait(t, b.Ready())
	nc, err := nats.Connect(b.URL(), nats.UserInfo(broker.PlatformUser, "secret"), nats.NoReconnect(), nats.Timeout(testkit.Patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return running{b.URL(), js, ended, stop}
}
