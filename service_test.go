package hozo_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
	"github.com/hozo-dev/hozo/web"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

func TestPartsOfAServiceWorkTogether(t *testing.T) {
	b := platform(t)
	told := notifications(t)
	reports := make(chan *nats.Msg, 256) // more seconds than the test may take
	if _, err := b.NC.ChanSubscribe("hozo.report.orders.1", reports); err != nil {
		t.Fatal(err)
	}
	cfg, url := ownListener(t)
	packed := make(chan int, 1)
	s := run(t,
		hozo.With(func(s *hozo.Service) ([]hozo.Part, error) {
			if s.Name() != "orders" || s.Instance() != 1 || s.Logger() == nil {
				t.Errorf("the service is %s.%d", s.Name(), s.Instance())
			}
			publish := func(w http.ResponseWriter, r *http.Request) {
				id, err := raw.Publish(r.Context(), s.Conn(), order{"tea"})
				if err != nil {
					web.Fault(w, http.StatusServiceUnavailable, err)
					return
				}
				web.JSON(w, http.StatusCreated, id)
			}
			pack := func(ctx context.Context, one task.Task[order]) error {
				cents, err := price.Ask(ctx, s.Conn(), one.Args)
				packed <- cents
				return err
			}
			return []hozo.Part{hozo.HTTP(http.HandlerFunc(publish), cfg), hozo.Handle(packing, pack)}, nil
		}),
		hozo.Stage(raw, func(_ context.Context, e bus.Event[order], out *bus.Out) error {
			return packing.EnqueueFrom(out, e.Value)
		}),
		hozo.Serve(price, func(_ context.Context, o order) (int, error) { return len(o.Item) * 100, nil }),
	)
	expectNotified(t, told, "READY=1")
	if status, body := get(t, url+"/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: %s", body)
	}
	if status, body := get(t, url+"/orders"); status != http.StatusCreated {
		t.Errorf("/orders: %s", body)
	}
	if cents := testkit.Wait(t, packed); cents != 300 {
		t.Errorf("the call answered %d", cents)
	}
	if err := s.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	expectNotified(t, told, "STOPPING=1")
	testkit.Eventually(t, func() bool {
		var last wire.Report
		if err := json.Unmarshal(testkit.Wait(t, reports).Data, &last); err != nil {
			t.Fatal(err)
		}
		return last.Tasks == 1 && last.EventsOut == 1 && last.EventsIn >= 1
	}, "the last report has everything")
}

func TestUseWrapsEveryHandlerOfTheService(t *testing.T) {
	platform(t)
	var mu sync.Mutex
	var wrong []string
	seen := make(map[string]bool)
	all := make(chan struct{})
	layers := func(depth string) bus.Middleware {
		return func(next bus.HandleFunc) bus.HandleFunc {
			return func(ctx context.Context, w *bus.Work) error {
				ctx = context.WithValue(ctx, layersKey{}, depthOf(ctx)+depth)
				err := next(ctx, w)
				mu.Lock()
				defer mu.Unlock()
				if depth == "b" && depthOf(ctx) != "ab" {
					wrong = append(wrong, w.Kind+": "+depthOf(ctx))
				}
				if seen[w.Kind] = true; depth == "b" && len(seen) == 3 {
					select {
					case <-all:
					default:
						close(all)
					}
				}
				return err
			}
		}
	}
	s := run(t,
		hozo.Stage(raw, func(ctx context.Context, e bus.Event[order], out *bus.Out) error {
			if depthOf(ctx) != "abc" {
				t.Errorf("the stage's own middleware is at %q, want it inside", depthOf(ctx))
			}
			return packing.EnqueueFrom(out, e.Value)
		}, bus.StageConfig{Use: []bus.Middleware{layers("c")}}),
		hozo.With(func(s *hozo.Service) ([]hozo.Part, error) {
			return []hozo.Part{
				hozo.Handle(packing, func(ctx context.Context, one task.Task[order]) error {
					_, err := price.Ask(ctx, s.Conn(), one.Args)
					return err
				}),
				hozo.Func("shop", func(ctx context.Context, s *hozo.Service) error {
					_, err := raw.Publish(ctx, s.Conn(), order{"tea"})
					<-ctx.Done()
					return err
				}),
			}, nil
		}),
		hozo.Serve(price, func(_ context.Context, o order) (int, error) { return len(o.Item), nil }),
		hozo.Use(layers("a"), layers("b")),
	)
	testkit.Wait(t, all)
	if err := s.stop(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if !seen["stage"] || !seen["task"] || !seen["call"] || len(wrong) > 0 {
		t.Errorf("handlers seen: %v, out of order: %q", seen, wrong)
	}
}

type layersKey struct{}

func depthOf(ctx context.Context) string {
	depth, _ := ctx.Value(layersKey{}).(string)
	return depth
}

func TestStopDrainsHTTPAndMessagesAsOneUnit(t *testing.T) {
	b := platform(t)
	told := notifications(t)
	cfg, url := ownListener(t)
	inHand := make(chan string, 3) // one a handler
	release := make(chan struct{})
	helperEnded := make(chan struct{})
	hold := func(what string) error {
		inHand <- what
		<-release
		select {
		case <-helperEnded:
			t.Errorf("%s lost the helper that it leans on", what)
		default:
		}
		return nil
	}
	connected := make(chan *bus.Conn, 1)
	s := run(t,
		hozo.Stage(raw, func(context.Context, bus.Event[order], *bus.Out) error { return hold("stage") }),
		hozo.Handle(packing, func(context.Context, task.Task[order]) error { return hold("task") }),
		hozo.HTTP(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _ = hold("http"); hello(w, r) }), cfg),
		hozo.Func("helper", func(ctx context.Context, s *hozo.Service) error {
			connected <- s.Conn()
			<-ctx.Done()
			close(helperEnded)
			return nil
		}),
	)
	expectNotified(t, told, "READY=1")
	conn := testkit.Wait(t, connected)
	if _, err := raw.Publish(t.Context(), conn, order{"tea"}); err != nil {
		t.Fatal(err)
	}
	if _, err := packing.Enqueue(t.Context(), conn, order{"tea"}); err != nil {
		t.Fatal(err)
	}
	busy := dial(t, url)
	busy.send(t, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	for range 3 {
		testkit.Wait(t, inHand)
	}
	s.cancel()
	expectNotified(t, told, "STOPPING=1")
	testkit.Eventually(t, func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err == nil {
			c.Close()
		}
		return err != nil
	}, "new connections are refused")
	if _, err := packing.Enqueue(t.Context(), conn, order{"coffee"}); err != nil {
		t.Fatal(err) // for the next instance; this one does not take it any more
	}
	close(release)
	if status, body := busy.response(t); status != http.StatusOK || body != "hello" {
		t.Errorf("the request in flight got %d %q", status, body)
	}
	if err := s.wait(t); err != nil {
		t.Errorf("Run: %v", err)
	}
	testkit.Wait(t, helperEnded)
	stream, err := b.JS.Stream(testkit.Context(t), wire.StreamName(wire.QueueStream(packing.Name())))
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() bool { // the broker has the acknowledgement, and may not have worked on it
		info, err := stream.Info(testkit.Context(t))
		return err == nil && info.State.Msgs == 1
	}, "only the task that came after the stop is queued")
	consumer, err := b.JS.Consumer(testkit.Context(t), wire.StreamName("orders.raw"), "orders")
	if err != nil {
		t.Fatal(err)
	}
	if info := consumer.CachedInfo(); info.NumAckPending != 0 || info.NumPending != 0 {
		t.Errorf("the stage left %d frames unacknowledged and %d unread", info.NumAckPending, info.NumPending)
	}
}

func TestReadyzTellsWhyTheServiceCannotWork(t *testing.T) {
	b := platform(t)
	told := notifications(t)
	cfg, url := ownListener(t)
	cfg.Ready = func() error { return errors.New("warming up") }
	run(t, hozo.HTTP(http.HandlerFunc(hello), cfg))
	expectNotified(t, told, "READY=1")
	if status, body := get(t, url+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "warming up") {
		t.Errorf("the service's own reason: %d %s", status, body)
	}
	b.Stop(t)
	testkit.Eventually(t, func() bool {
		_, body := get(t, url+"/readyz")
		return strings.Contains(body, bus.CodeUnavailable)
	}, "/readyz tells that the bus is away")
	b.Start(t)
	testkit.Eventually(t, func() bool {
		_, body := get(t, url+"/readyz")
		return strings.Contains(body, "warming up")
	}, "/readyz tells that the bus is back")
}

func TestHandlerThatIgnoresTheStopIsNamed(t *testing.T) {
	release, returned := make(chan struct{}), make(chan struct{})
	up := make(chan struct{})
	s := run(t,
		hozo.Grace(500*time.Millisecond),
		hozo.Func("deaf", func(context.Context, *hozo.Service) error {
			defer close(returned)
			close(up)
			<-release
			return nil
		}))
	testkit.Wait(t, up)
	err := s.stop(t)
	if f, ok := fault.As(err); !ok || f.Code != "hozo/drain-timeout" || f.Where != "deaf" {
		t.Errorf("Run = %v", err)
	}
	close(release)
	testkit.Wait(t, returned)
}

func TestFailingPartStopsTheOthersUnderItsName(t *testing.T) {
	cfg, _ := ownListener(t)
	stopped := make(chan struct{})
	s := run(t,
		hozo.HTTP(http.HandlerFunc(hello), cfg),
		hozo.Func("patient", func(ctx context.Context, _ *hozo.Service) error {
			<-ctx.Done()
			close(stopped)
			return nil
		}),
		hozo.Func("hasty", func(context.Context, *hozo.Service) error {
			return &fault.Error{Code: "db/away", What: "the database is away"}
		}))
	err := s.wait(t)
	if fault.Code(err) != "db/away" || !strings.HasPrefix(err.Error(), "hasty: ") {
		t.Errorf("Run = %v", err)
	}
	testkit.Wait(t, stopped)
}

func TestRunSaysWhatIsMissing(t *testing.T) {
	stage := hozo.Stage(raw, func(context.Context, bus.Event[order], *bus.Out) error { return nil })
	tests := map[string]struct {
		parts []hozo.Part
		code  string
	}{
		"no parts":        {nil, "hozo/no-parts"},
		"no platform":     {[]hozo.Part{stage}, "bus/no-platform"},
		"with a bus part": {[]hozo.Part{hozo.With(func(*hozo.Service) ([]hozo.Part, error) { return []hozo.Part{stage}, nil })}, "bus/no-platform"},
		"failing with":    {[]hozo.Part{hozo.With(func(*hozo.Service) ([]hozo.Part, error) { return nil, &fault.Error{Code: "db/away"} })}, "db/away"},
		"two configs":     {[]hozo.Part{hozo.HTTP(http.NotFoundHandler(), web.Config{}, web.Config{})}, "hozo/two-configs"},
		"no port":         {[]hozo.Part{hozo.HTTP(http.NotFoundHandler())}, "web/no-listener"},
	}
	t.Setenv("PORT", "")
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if err := hozo.Run(testkit.Context(t), test.parts...); fault.Code(err) != test.code {
				t.Errorf("Run = %v, want %s", err, test.code)
			}
		})
	}
}

func TestPartsOutsideTheGrantAreNamed(t *testing.T) {
	b := testkit.Broker(t)
	setGrant(t, b, b.Grant(t, wire.Grant{Service: "orders"}))
	cfg, _ := ownListener(t)
	err := hozo.Run(testkit.Context(t),
		hozo.HTTP(http.HandlerFunc(hello), cfg),
		hozo.Stage(raw, func(context.Context, bus.Event[order], *bus.Out) error { return nil }))
	if fault.Code(err) != bus.CodeNoSource || !strings.HasPrefix(err.Error(), "stage orders.raw: ") {
		t.Errorf("Run = %v", err)
	}
	if _, err := net.Dial("tcp", cfg.Listener.Addr().String()); err == nil {
		t.Error("the listener of a service that never ran is open")
	}
}

func TestStopWhileWaitingForTheBusIsNoError(t *testing.T) {
	b := platform(t)
	b.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := hozo.Run(ctx, hozo.Stage(raw, func(context.Context, bus.Event[order], *bus.Out) error { return nil })); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestServiceFeedsTheWatchdogOfThePlatform(t *testing.T) {
	told := notifications(t)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", "")
	cfg, _ := ownListener(t)
	s := run(t, hozo.HTTP(http.NotFoundHandler(), cfg))
	fed := 0
	for fed < 5 { // among them READY=1, in an order that is free
		buf := make([]byte, 64)
		n, err := told.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) == "WATCHDOG=1" {
			fed++
		}
	}
	if err := s.stop(t); err != nil {
		t.Error(err)
	}
}
