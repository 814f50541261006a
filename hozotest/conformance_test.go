package hozotest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/hozotest"
	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/task"
)

// Environment of the broker child.
const (
	envDir  = "HOZOTEST_DIR"
	envPort = "HOZOTEST_PORT"
)

func TestMain(m *testing.M) { testkit.Main(m, testkit.Child("broker", brokerChild)) }

func brokerChild() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	port, err := strconv.Atoi(os.Getenv(envPort))
	var b *broker.Broker
	if err == nil {
		b, err = broker.New(broker.Config{Dir: os.Getenv(envDir), Port: port, Store: 1 << 40})
	}
	if err == nil {
		err = b.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// ownProcess runs the broker in a process of its own, as the platform does.
func ownProcess(t testing.TB, dir string, port int) {
	t.Helper()
	testkit.Start(t, "broker", envDir+"="+dir, envPort+"="+strconv.Itoa(port))
}

const project = `
project: shop
streams:
  orders: {}
  shipments: {}
queues:
  slow: { kinds: [order.count], pause: true }
services:
  web: { run: ./web, publishes: [orders], enqueues: [order.pack] }
  ship: { run: ./ship, consumes: [orders], publishes: [shipments], enqueues: [order.pack] }
  packer: { run: ./packer, scale: 2, handles: [order.pack, order.label, order.bill, order.count, order.alert], enqueues: [order.pack, order.label, order.bill, order.alert] }
`

type order struct{ Item string }

var (
	orders    = bus.NewTopic[order]("orders")
	shipments = bus.NewTopic[order]("shipments")

	pack  = task.NewKind[order]("order.pack", task.Config{Attempts: 3, Keep: time.Minute})
	label = task.NewResultKind[order, string]("order.label", task.Config{})
	bill  = task.NewResultKind[[]string, string]("order.bill", task.Config{})
	count = task.NewKind[order]("order.count", task.Config{Keep: time.Minute})
)

// shop notes what is done in it.
type shop struct {
	*hozotest.Env
	mu   sync.Mutex
	done []string
	fail map[string]error
}

func (s *shop) did(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = append(s.done, what)
	return s.fail[what]
}

func (s *shop) breaks(what string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail[what] = err
}

// want compares what was done since the last call.
func (s *shop) want(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.done)
	if !slices.Equal(s.done, want) {
		t.Errorf("%q was done, want %q", s.done, want)
	}
	s.done = nil
}

func (s *shop) packer() []hozo.Part {
	return []hozo.Part{
		hozo.Handle(pack, func(_ context.Context, one task.Task[order]) error { return s.did("pack " + one.Args.Item) }),
		hozo.Handle(count, func(_ context.Context, one task.Task[order]) error { return s.did("count " + one.Args.Item) }),
		hozo.HandleResult(label, func(_ context.Context, one task.Task[order]) (string, error) {
			return "to " + one.Args.Item, s.did("label " + one.Args.Item)
		}),
		hozo.HandleResult(bill, func(_ context.Context, one task.Task[[]string]) (string, error) {
			return strings.Join(one.Args, ", "), s.did("bill")
		}),
	}
}

func TestInTheProcessOfTheTest(t *testing.T) {
	t.Parallel()
	conformance(t, hozotest.New)
}

func TestOnABrokerInAProcessOfItsOwn(t *testing.T) {
	t.Parallel()
	conformance(t, func(t testing.TB, cfg hozotest.Config) *hozotest.Env { return hozotest.NewOn(t, cfg, ownProcess) })
}

// conformance is what a platform for tests does as the real one does.
func conformance(t *testing.T, start func(testing.TB, hozotest.Config) *hozotest.Env) {
	s := &shop{Env: start(t, hozotest.Config{Text: project}), fail: map[string]error{}}
	ctx, conn := testkit.Context(t), s.Conn()
	enqueue := func(t *testing.T, item string, opts ...task.Option) task.Handle {
		t.Helper()
		h, err := pack.Enqueue(ctx, conn, order{item}, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	state := func(t *testing.T, h task.Handle, want task.State) {
		t.Helper()
		if got, err := h.Status(ctx); err != nil || got.State != want {
			t.Errorf("the task is %+v, %v; want %s", got, err, want)
		}
	}

	// What has no service stays where it is, and Drain does not wait for it.
	early := enqueue(t, "early")
	s.Drain()
	state(t, early, task.Pending)
	stop := s.Run("packer", s.packer()...)
	s.Run("packer", s.packer()...)
	s.Drain()
	state(t, early, task.Done)
	s.want(t, "pack early")

	// Time passes when the test says so, with what comes due in its order.
	later := enqueue(t, "later", task.In(2*time.Hour))
	soon := enqueue(t, "soon", task.In(time.Hour))
	s.Advance(90 * time.Minute)
	state(t, soon, task.Done)
	state(t, later, task.Scheduled)
	s.Advance(time.Hour)
	state(t, later, task.Done)
	s.want(t, "pack later", "pack soon")

	// Retries wait for it, too.
	s.breaks("pack bad", errors.New("no box"))
	bad := enqueue(t, "bad")
	s.Drain()
	state(t, bad, task.Retrying)
	s.want(t, "pack bad")
	s.Advance(time.Hour)
	s.want(t, "pack bad", "pack bad")
	state(t, bad, task.Dead)
	letters := s.DeadLetters()
	if len(letters) != 1 || letters[0].Task != bad.ID || letters[0].Error != "no box" || letters[0].Attempts != 3 || string(letters[0].Data) != `{"Item":"bad"}` {
		t.Fatalf("the dead letters are %+v", letters)
	}
	s.breaks("pack bad", nil)
	s.Retry(letters[0])
	s.Drain()
	state(t, bad, task.Done)
	s.want(t, "pack bad")
	if letters := s.DeadLetters(); len(letters) != 0 {
		t.Errorf("after the retry the dead letters are %+v", letters)
	}

	// A snooze spends no attempt.
	s.breaks("pack tired", task.Snooze(time.Minute))
	tired := enqueue(t, "tired")
	s.Advance(4*time.Minute + time.Second)
	s.breaks("pack tired", nil)
	s.Advance(time.Minute)
	state(t, tired, task.Done)
	s.want(t, slices.Repeat([]string{"pack tired"}, 6)...)

	// Cancelled and unique tasks.
	first := enqueue(t, "one", task.Unique("one"), task.In(time.Hour))
	if again := enqueue(t, "one", task.Unique("one")); !again.Duplicate || again.ID != first.ID {
		t.Errorf("a second one is %+v", again)
	}
	if err := first.Cancel(ctx); err != nil {
		t.Error(err)
	}
	s.Advance(2 * time.Hour)
	state(t, first, task.Cancelled)
	s.want(t)

	// A paused queue rests.
	resting, err := count.Enqueue(ctx, conn, order{"x"})
	if err != nil {
		t.Fatal(err)
	}
	s.Drain()
	state(t, resting, task.Pending)

	// Events go through stages, into tasks and to dead letters.
	s.Run("ship", hozo.Stage(orders, func(_ context.Context, e bus.Event[order], out *bus.Out) error {
		if e.Value.Item == "" {
			return bus.Reject("shop/empty", errors.New("nothing is ordered"))
		}
		if err := shipments.Send(out, order{"box of " + e.Value.Item}); err != nil {
			return err
		}
		return pack.EnqueueFrom(out, e.Value)
	}))
	for _, item := range []string{"tea", "", "rice"} {
		if _, err := orders.Publish(ctx, conn, order{item}); err != nil {
			t.Fatal(err)
		}
	}
	s.Drain()
	s.want(t, "pack rice", "pack tea")
	if got := fmt.Sprintf("%s", s.Events("shipments")); got != `[{"Item":"box of tea"} {"Item":"box of rice"}]` {
		t.Errorf("shipped were %s", got)
	}
	if letters := s.DeadLetters(); len(letters) != 1 || letters[0].Code != "shop/empty" || letters[0].Service != "ship" || letters[0].Task != "" {
		t.Errorf("the dead letters are %+v", letters)
	}

	// Workflows.
	flow, err := task.NewFlow("bill", task.FlowConfig{}, task.Then(task.Group(label.With(order{"a"}), label.With(order{"b"}).Opts(task.In(time.Hour))), bill))
	if err != nil {
		t.Fatal(err)
	}
	run, err := flow.Start(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	s.Drain()
	s.want(t, "label a")
	s.Advance(time.Hour)
	s.want(t, "bill", "label b")
	if all, err := run.Wait(ctx); err != nil || string(all.Tasks[2].Result) != `"to a, to b"` {
		t.Errorf("the workflow is %+v, %v", all, err)
	}

	// A stopped service leaves its work to the other instance, and then to nobody.
	stop()
	enqueue(t, "last")
	s.Drain()
	s.want(t, "pack last")

	// Rights are those of the manifest.
	s.Run("web", hozo.Func("check", func(ctx context.Context, svc *hozo.Service) error {
		_, err := label.Enqueue(ctx, svc.Conn(), order{"x"})
		if fault.Code(err) != bus.CodeNoRoute {
			t.Errorf("an undeclared kind is enqueued: %v", err)
		}
		<-ctx.Done()
		return nil
	}))
}
