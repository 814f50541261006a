package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTaskRatiosCompareMedians(t *testing.T) {
	t.Parallel()
	g := newGrid(taskMetrics, hozoName, asynqName, powerName)
	g.add(hozoName, "end to end", 60, 80, 1000)
	g.add(asynqName, "end to end", 1, 10, 20)
	g.add(hozoName, "pickup p50", 750)
	g.add(hozoName, "run", 100)
	g.add(hozoName, "pending", 90)
	g.add(powerName, "end to end", 40)
	want := map[string]float64{
		"tasks_e2e_vs_asynq": 8, "tasks_power_vs_process": 0.5, "tasks_pickup_p50_vs_1500us": 2, "tasks_million_pending_vs_empty": 0.9,
	}
	got := taskRatios(g)
	for _, r := range got {
		if want[r.Name] != r.Value {
			t.Errorf("%s is %v, want %v", r.Name, r.Value, want[r.Name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d ratios, want %d: contenders that did not run are compared", len(got), len(want))
	}
}

func TestProgramGetsItsSecretsFromTheEnvironment(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho $PEER_URL $*\nread line\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := &tasker{argv: []string{script}, url: "redis://:secret@nowhere", dir: "folder"}
	one, err := m.speak("produce", "n=1")
	if err != nil {
		t.Fatal(err)
	}
	line, err := one.hear(t.Context())
	if err != nil || line != m.url+" produce dir=folder n=1" || strings.Contains(strings.Join(one.cmd.Args, " "), "secret") {
		t.Errorf("said %q, %v; arguments %v", line, err, one.cmd.Args)
	}
	if err := one.stop(); err != nil {
		t.Error(err)
	}
}
