package firehose_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/feed"
	"github.com/hozo-dev/hozo/internal/ghevents"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// The drill sends rounds of events while every process of the tree but the keeper is killed with -9 in turn. Afterwards
// both sinks hold every accepted event exactly once. HOZO_DRILL_KILLS, HOZO_DRILL_ROUNDS and HOZO_DRILL_EVENTS (a file of
// NDJSON, gzip or not) make it longer and real; the defaults suit CI.
func TestKillingEverythingInTurnLosesAndDoublesNothing(t *testing.T) {
	kills, least := fromEnv(t, "HOZO_DRILL_KILLS", 12), fromEnv(t, "HOZO_DRILL_ROUNDS", 5)
	round := drillEvents(t)
	stack := startStack(t, testkit.TempDir(t))
	ingest := stack.address("ingest", "http")

	// The sender goes on round after round until the killing is over.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	over := make(chan struct{})
	done := make(chan error, 1)
	source := &rounds{lines: round, over: over, least: least}
	sender := feed.New("http://"+ingest+"/v1/ingest", feed.Config{BatchBytes: 256 << 10})
	go func() { done <- sender.Send(ctx, source) }()

	killed := map[string]int{}
	for i := 0; i < kills; {
		s := stack.status()
		victims := stack.victims(s)
		v := victims[i%len(victims)]
		if err := syscall.Kill(v.pid, syscall.SIGKILL); err != nil {
			t.Fatalf("kill %s (pid %d): %v", v.name, v.pid, err)
		}
		killed[v.name]++
		i++
		stack.awaitBack(v)
	}
	close(over)
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("send: %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the sender does not end")
	}
	sent := sender.Progress()
	t.Logf("killed %v; %d rounds, %d events accepted (%.0f MB), %d retries, %d repeats recognised", killed, source.round, sent.Accepted, float64(sent.Bytes)/1e6, sent.Retries, sent.Duplicates)
	if sent.Accepted != int64(source.sent) || sent.Rejected != 0 {
		t.Fatalf("sent %d events, accepted %d, rejected %d", source.sent, sent.Accepted, sent.Rejected)
	}
	stack.awaitStored(source.sent)
	stack.down()
	checkStores(t, stack.data, source.sent, source.types)
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// drillEvents returns the lines of one round.
func drillEvents(t *testing.T) [][]byte {
	t.Helper()
	if path := os.Getenv("HOZO_DRILL_EVENTS"); path != "" {
		in, err := feed.Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		all, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		return bytes.SplitAfter(bytes.TrimSuffix(all, []byte{'\n'}), []byte{'\n'})
	}
	g := ghevents.New(7)
	lines := make([][]byte, 2000)
	for i := range lines {
		lines[i] = g.Next(nil)
	}
	return lines
}

// rounds is a reader of the same lines again and again, each round with ids of its own, until over is closed.
type rounds struct {
	lines [][]byte
	over  <-chan struct{}
	least int // rounds to send in any case

	round, line, sent int
	types             map[string]int
	rest              []byte
}

func (r *rounds) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.line == len(r.lines) {
			r.line, r.round = 0, r.round+1
		}
		if r.line == 0 && r.round >= r.least {
			select {
			case <-r.over:
				return 0, io.EOF
			default:
			}
		}
		line := r.lines[r.line]
		r.rest = ghevents.WithID(nil, line, fmt.Sprintf("%d-%d", r.round, r.line))
		if !bytes.HasSuffix(r.rest, []byte{'\n'}) {
			r.rest = append(r.rest, '\n')
		}
		if r.types == nil {
			r.types = map[string]int{}
		}
		r.types[typeOf(line)]++
		r.line++
		r.sent++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
