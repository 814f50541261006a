package bus_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
)

// runMover is one instance of the service in a process of its own, until SIGTERM.
func runMover() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := moveOn(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mover:", err)
		os.Exit(1)
	}
}

func moveOn(ctx context.Context) error {
	c, err := bus.FromEnv(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	stage, err := bus.NewStage(c, moves, copyMove, bus.StageConfig{Workers: 2})
	if err != nil {
		return err
	}
	err = stage.Run(ctx)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), testkit.Patience)
	defer cancel()
	if closeErr := c.Close(end); err == nil {
		err = closeErr
	}
	return err
}

// drill is one run of the service under trouble.
type drill struct {
	t       *testing.T
	b       *testkit.TestBroker
	program string   // that each instance runs
	grants  []string // files, by instance
	alive   map[int]*testkit.Process
}

func newDrill(t *testing.T, instances int) *drill {
	d := &drill{t: t, b: testkit.BrokerProcess(t), program: "mover", alive: make(map[int]*testkit.Process)}
	dir := testkit.TempDir(t)
	for i := range instances {
		data, err := json.Marshal(d.b.Grant(t, orderedGrant()))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, strconv.Itoa(i+1))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		d.grants = append(d.grants, path)
	}
	return d
}

// start starts the lowest instance that does not run.
func (d *drill) start() {
	for i, path := range d.grants {
		if d.alive[i+1] == nil {
			d.alive[i+1] = testkit.Start(d.t, d.program, wire.EnvBus+"="+d.b.URL, wire.EnvGrant+"="+path)
			return
		}
	}
}

// any picks an instance.
func (d *drill) any() int {
	instances := make([]int, 0, len(d.alive))
	for i := range d.alive {
		instances = append(instances, i)
	}
	return instances[rand.IntN(len(instances))]
}

// owners returns the record of each partition.
func (d *drill) owners() map[int]wire.Owner {
	all := make(map[int]wire.Owner)
	stream, err := d.b.JS.Stream(testkit.Context(d.t), wire.StreamName(wire.OwnerStream))
	if err != nil {
		return all
	}
	for p := range partitions {
		msg, err := stream.GetLastMsgForSubject(testkit.Context(d.t), wire.OwnerSubject("mover", keyed, p))
		if err != nil {
			continue
		}
		var rec wire.Owner
		if err := json.Unmarshal(msg.Data, &rec); err != nil {
			d.t.Fatal(err)
		}
		all[p] = rec
	}
	return all
}

// shared waits until each instance that runs has its share of the partitions and nobody else has any.
func (d *drill) shared(but ...int) {
	d.t.Helper()
	want := make(map[int]bool)
	for i := range d.alive {
		want[i] = true
	}
	for _, i := range but {
		delete(want, i)
	}
	testkit.Eventually(d.t, func() bool {
		has := make(map[int]int)
		for _, rec := range d.owners() {
			if rec.Member == "" || !want[rec.Instance] {
				return false
			}
			has[rec.Instance]++
		}
		total := 0
		for i := range want {
			n := has[i]
			if n < partitions/len(want) || n > (partitions+len(want)-1)/len(want) {
				return false
			}
			total += n
		}
		return total == partitions
	}, fmt.Sprintf("the partitions are shared out evenly among %d instances", len(want)))
}

// TestKeysStayInOrderWhateverHappensToTheirOwners drives 4 → 16 → 2 instances with SIGKILL and SIGSTOP under load and
// audits the output from outside. HOZO_DRILL_KEYS and HOZO_DRILL_ROUNDS make it longer: 10000 and 20 are the long form.
func TestKeysStayInOrderWhateverHappensToTheirOwners(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many processes")
	}
	t.Parallel()
	keys, rounds, most := number("HOZO_DRILL_KEYS", 1000), number("HOZO_DRILL_ROUNDS", 2), number("HOZO_DRILL_INSTANCES", 16)
	d := newDrill(t, most)
	c := mover(t, d.b)
	var stop atomic.Bool
	sent := make([]int, keys)
	var players sync.WaitGroup
	for i := range 64 {
		players.Go(func() {
			for n := 0; !stop.Load() || n == 0; n++ {
				for k := i; k < keys; k += 64 {
					if _, err := moves.Publish(testkit.Context(t), c, move{fmt.Sprintf("key-%d", k), n}); err != nil {
						t.Errorf("publish: %v", err)
						return
					}
					sent[k]++
				}
			}
		})
	}
	defer players.Wait()
	defer stop.Store(true)

	for range 4 {
		d.start()
	}
	d.shared()
	for len(d.alive) < most {
		d.start()
	}
	d.shared()
	for range rounds {
		killed, stopped := d.any(), 0
		d.alive[killed].Kill(t)
		delete(d.alive, killed)
		stopped = d.any()
		d.alive[stopped].Signal(t, syscall.SIGSTOP)
		d.shared(stopped) // others have taken over everything
		d.alive[stopped].Signal(t, syscall.SIGCONT)
		d.start()
		d.shared()
	}
	for len(d.alive) > 2 {
		i := d.any()
		if len(d.alive)%2 == 0 {
			d.alive[i].Kill(t)
		} else {
			d.alive[i].Signal(t, syscall.SIGTERM)
			testkit.Wait(t, d.alive[i].Done)
			if err := d.alive[i].Err(); err != nil {
				t.Errorf("an instance that was asked to stop: %v", err)
			}
		}
		delete(d.alive, i)
	}
	d.shared()
	stop.Store(true)
	players.Wait()
	doneWith(t, d.b)
	audit(t, d.b, sent)
}

func number(env string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	return otherwise
}

// audit reads the whole output: every move of every key once and in order, and never anything of an owner behind the
// fence of a later one.
func audit(t *testing.T, b *testkit.TestBroker, sent []int) {
	t.Helper()
	want := 0
	for _, n := range sent {
		want += n
	}
	s := newScores(want)
	epochs := make(map[int]uint64) // of each partition of the source, by its newest fence
	takeovers := 0
	for _, e := range stored(t, b, keyedOut) {
		epoch, err := strconv.ParseUint(e.msg.Headers().Get(wire.HeaderEpoch), 10, 64)
		if err != nil {
			t.Fatalf("message %d has no epoch: %v", e.id.Seq, err)
		}
		if wire.IsFence(keyedOut, e.msg.Subject()) {
			p := fencedPartition(t, e.msg.Subject())
			if epoch < epochs[p] {
				// A process that was stopped while it raised a fence: it finds out before it uses it.
				continue
			}
			if epoch > epochs[p] {
				takeovers++
			}
			epochs[p] = epoch
			continue
		}
		_, p, _ := wire.SplitSubject(keyedOut, e.msg.Subject()) // the same in both: they have one key and as many partitions
		if epoch != epochs[p] {
			t.Errorf("message %d of partition %d is of owner %d, and the last fence is of owner %d", e.id.Seq, p, epoch, epochs[p])
		}
		s.add(decodedMove(t, e.data))
	}
	s.check(t)
	for k, n := range sent {
		if got := s.next[fmt.Sprintf("key-%d", k)]; got != n {
			t.Errorf("key-%d has come to move %d of %d", k, got, n)
			break
		}
	}
	t.Logf("%d moves of %d keys, %d changes of an owner", s.total, len(sent), takeovers)
}

func fencedPartition(t *testing.T, subject string) int {
	t.Helper()
	for p := range partitions {
		if subject == wire.FenceSubject(keyedOut, "mover", keyed, p) {
			return p
		}
	}
	t.Fatalf("%s is no fence of ours", subject)
	return 0
}

// What an owner sends after another has taken over is refused by the broker itself.
func TestOutputBehindALaterFenceIsRefused(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	c := dial(t, b, orderedGrant())
	fence := wire.FenceSubject(keyedOut, "mover", keyed, 3)
	raise := func() uint64 {
		ack, err := c.JetStream().PublishMsg(testkit.Context(t), &nats.Msg{Subject: fence})
		if err != nil {
			t.Fatal(err)
		}
		return ack.Sequence
	}
	store := func(fenceSeq uint64) error {
		_, err := c.JetStream().PublishMsg(testkit.Context(t), &nats.Msg{
			Subject: wire.PartitionSubject(keyedOut, keyedOut, 3), Data: []byte("{}"), Header: nats.Header{
				"Nats-Expected-Last-Subject-Sequence":         {strconv.FormatUint(fenceSeq, 10)},
				"Nats-Expected-Last-Subject-Sequence-Subject": {fence},
			},
		})
		return err
	}
	first := raise()
	if err := store(first); err != nil {
		t.Fatalf("the owner's output is refused: %v", err)
	}
	second := raise()
	if err := store(first); err == nil {
		t.Error("output of the earlier owner was stored")
	}
	if err := store(second); err != nil {
		t.Errorf("the later owner's output is refused: %v", err)
	}
}
