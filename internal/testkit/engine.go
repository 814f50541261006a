package testkit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/hozo-dev/hozo/internal/broker"
)

// testStore keeps the reservations of the platform's own streams possible on a small disk; files grow as they are used.
const testStore = 16 << 30

// processMemory leaves the memory of a whole test process alone: the limit is the process's, not the broker's.
const processMemory = 1 << 40

type processlessEngine struct {
	dir    string
	port   int
	cancel context.CancelFunc
	wg     sync.WaitGroup
	err    chan error
}

func inProcess(dir string, port int) engine { return &processlessEngine{dir: dir, port: port} }

func (e *processlessEngine) start(t testing.TB) {
	t.Helper()
	b, err := broker.New(broker.Config{Dir: e.dir, Port: e.port, Memory: processMemory, Store: testStore, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("make the test broker: %v", err)
	}
	// The broker ends by stop, which cleanup calls after the test's own context has ended.
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	e.cancel, e.err = cancel, make(chan error, 1) // one Run, one result
	e.wg.Go(func() { e.err <- b.Run(ctx) })
	select {
	case <-b.Ready():
	case err := <-e.err:
		e.err <- nil
		t.Fatalf("start the test broker: %v", err)
	}
}

func (e *processlessEngine) stop(t testing.TB) {
	t.Helper()
	if e.cancel == nil {
		return
	}
	e.cancel()
	e.wg.Wait()
	e.cancel = nil
	if err := <-e.err; err != nil {
		t.Logf("the test broker ended: %v", err)
	}
}

func (e *processlessEngine) kill(t testing.TB) {
	t.Helper()
	t.Fatal("only a BrokerProcess can be killed")
}

// The environment of a broker child.
const (
	brokerChild   = "testkit-broker"
	brokerDirEnv  = "HOZO_TESTKIT_DIR"
	brokerPortEnv = "HOZO_TESTKIT_PORT"
	brokerReady   = "ready"
)

type processEngine struct {
	dir  string
	port int
	cmd  *exec.Cmd // nil when it does not run
}

func ownProcess(dir string, port int) engine { return &processEngine{dir: dir, port: port} }

func (e *processEngine) start(t testing.TB) {
	t.Helper()
	cmd := Command(t, brokerChild, brokerDirEnv+"="+e.dir, brokerPortEnv+"="+strconv.Itoa(e.port))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe() // its end tells the child that the test is gone
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the broker process: %v", err)
	}
	_ = in // held by cmd until Wait closes it
	e.cmd = cmd
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != brokerReady+"\n" {
		e.kill(t)
		t.Fatalf("the broker process did not become ready: said %q, %v", line, err)
	}
}

func (e *processEngine) stop(t testing.TB) { e.end(t, syscall.SIGTERM) }
func (e *processEngine) kill(t testing.TB) { e.end(t, syscall.SIGKILL) }

func (e *processEngine) end(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if e.cmd == nil {
		return
	}
	cmd := e.cmd
	e.cmd = nil
	if err := cmd.Process.Signal(sig); err != nil {
		t.Errorf("signal the broker process: %v", err)
	}
	if err := cmd.Wait(); err != nil && sig == syscall.SIGTERM {
		t.Errorf("the broker process ended: %v", err)
	}
}

// runBrokerChild is the broker process: it serves until SIGTERM, or until the test that holds its stdin is gone.
func runBrokerChild() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	port, err := strconv.Atoi(os.Getenv(brokerPortEnv))
	if err == nil {
		err = serveBroker(ctx, stop, port)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testkit broker:", err)
		os.Exit(1)
	}
}

func serveBroker(ctx context.Context, stop func(), port int) error {
	b, err := broker.New(broker.Config{Dir: os.Getenv(brokerDirEnv), Port: port, Store: testStore})
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test
		stop()
	})
	wg.Go(func() {
		select {
		case <-b.Ready():
			fmt.Println(brokerReady)
		case <-ctx.Done():
		}
	})
	err = b.Run(ctx)
	_ = os.Stdin.Close() // Close does not wake a pipe's reader on every system; the process is about to end anyway
	return err
}
