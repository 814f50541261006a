//go:build linux

package keeper_test

import (
	"bufio"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/keeper"
)

func TestSecondKeeperIsRefused(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	second := startCommand(t, "keeper", k.state)
	<-second.done
	if !strings.HasPrefix(lastLine(second.output()), "keeper/running ") {
		t.Errorf("second keeper said %q", second.output())
	}
	hello, err := k.client.Hello(limited(t))
	if err != nil || hello.Standby != k.cmd.cmd.Process.Pid || hello.Protocol != keeper.ProtocolVersion || hello.Version != "test" {
		t.Errorf("first keeper says %+v, %v", hello, err)
	}
}

func lastLine(s string) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return all[len(all)-1]
}

func TestStateAndSocketsArePrivate(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	for path, want := range map[string]os.FileMode{"": 0o700, "keeper.sock": 0o600, "notify.sock": 0o600, "keeper.lock": 0o600} {
		info, err := os.Stat(filepath.Join(k.state, path))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%q: %v, %v", path, info.Mode(), err)
		}
	}
}

func TestConfigurationFaults(t *testing.T) {
	t.Parallel()
	for code, state := range map[string]string{
		"keeper/bad-state":     "relative",
		"keeper/path-too-long": "/" + strings.Repeat("x", 100),
	} {
		if _, err := keeper.New(keeper.Config{State: state}); fault.Code(err) != code {
			t.Errorf("%s: %v", state, err)
		}
	}
	_, err := keeper.Dial(t.Context(), t.TempDir()+"/none.sock")
	if fault.Code(err) != "keeper/not-running" {
		t.Errorf("dial: %v", err)
	}
}

func TestShutdownEndsAtOnceWhenNothingRuns(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	if err := k.client.Shutdown(limited(t)); err != nil {
		t.Fatal(err)
	}
	<-k.client.Done()
	if _, err := k.client.Hello(limited(t)); err == nil || fault.Code(err) != "" {
		t.Errorf("call after the end: %v", err)
	}
}

func TestBadLinesAreAnsweredOrEnd(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	c, err := net.Dial("unix", keeper.SocketPath(k.state))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	in := bufio.NewScanner(c)
	for line, want := range map[string]string{
		"nonsense\n":                   `"code":"keeper/bad-request"`,
		`{"id":7,"op":"dance"}` + "\n": `"code":"keeper/unknown-op"`,
		`{"id":7,"op":"spawn"}` + "\n": `"code":"keeper/bad-request"`,
		`{"id":7,"op":"hello"}` + "\n": `"protocol":1`,
	} {
		if _, err := c.Write([]byte(line)); err != nil {
			t.Fatal(err)
		}
		if !in.Scan() || !strings.Contains(in.Text(), want) {
			t.Errorf("%q is answered by %q", line, in.Text())
		}
	}
	long := []byte(strings.Repeat("x", 1<<16))
	for err == nil { // the keeper hangs up on a line without an end
		_, err = c.Write(long)
	}
	if _, err := k.client.Hello(limited(t)); err != nil {
		t.Errorf("others suffer: %v", err)
	}
}

func TestClientIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	k := startKeeper(t)
	ctx := limited(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				if _, _, err := k.client.List(ctx); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				if _, err := k.client.Hello(ctx); err != nil {
					t.Error(err)
				}
			}
		})
		events, err := k.client.Events(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if e := <-events; e.Kind != keeper.EventStarted || e.Process.Name != "seen" {
				t.Errorf("got %+v", e)
			}
		})
	}
	wg.Go(func() {
		if _, err := k.trySpawn("seen", "exit", nil, "0"); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
}
