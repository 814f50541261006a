//go:build linux

package keeper_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/hozo-dev/hozo/internal/keeper"
)

var update = flag.Bool("update", false, "write golden files")

// TestProtocolKeepsItsJSON guards the promise that the protocol only grows: a field that changes its name or form here
// breaks a keeper that runs already.
func TestProtocolKeepsItsJSON(t *testing.T) {
	t.Parallel()
	uid, gid := uint32(1000), uint32(1001)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000000, time.UTC)
	process := keeper.Process{
		Name: "classify.1", Run: "R", PID: 42, StartTime: 99, Started: at, Ready: true, Status: "at work",
		Exit:       &keeper.Exit{Code: -1, Signal: 9, Time: at, Survivors: []int{43}},
		LogDropped: 7, Labels: map[string]string{"service": "classify"},
	}
	messages := []any{
		keeper.Request{ID: 1, Op: "hello"},
		keeper.Request{ID: 2, Op: "spawn", Spawn: &keeper.Spawn{
			Name: "classify.1", Argv: []string{"/bin/classify", "-v"}, Env: []string{"A=b"}, Dir: "/srv",
			UID: &uid, GID: &gid, Groups: []uint32{5}, Listen: []string{"web.http"},
			Log: keeper.Log{Path: "/log", MaxBytes: 1024, Keep: 3}, Notify: true,
			Labels: map[string]string{"service": "classify"},
		}},
		keeper.Request{ID: 3, Op: "signal", Signal: &keeper.Signal{Name: "classify.1", Number: 15, Group: true}},
		keeper.Request{ID: 4, Op: "kill", Name: "classify.1"},
		keeper.Request{ID: 5, Op: "listen", Listen: &keeper.Listen{Name: "web.http", Network: "tcp", Address: "127.0.0.1:0"}},
		keeper.Reply{ID: 1, Hello: &keeper.Hello{Protocol: 1, Version: "v1", PID: 1, BootID: "b", Started: at}},
		keeper.Reply{ID: 2, Process: &process},
		keeper.Reply{ID: 3, Error: "no such process", Code: "keeper/no-process", Where: "w", Fix: "f", Misuse: true},
		keeper.Reply{
			ID: 6, Processes: []keeper.Process{process},
			Sockets: []keeper.Socket{{Name: "web.http", Network: "tcp", Address: "127.0.0.1:80"}},
		},
		keeper.Reply{Event: &keeper.Event{Kind: "notify", Process: keeper.Process{Name: "a", Started: at}, Notify: "READY=1"}},
	}
	var got bytes.Buffer
	for _, m := range messages {
		if err := json.NewEncoder(&got).Encode(m); err != nil {
			t.Fatal(err)
		}
	}
	const golden = "testdata/protocol.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("the protocol changed (-want +got):\n%s", diff)
	}
}
