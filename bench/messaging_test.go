package main

import (
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAccountTellsMissingDoubledAndDamagedEvents(t *testing.T) {
	t.Parallel()
	for _, n := range []uint64{1, 2, 3, 1000, 1 << 26} {
		right := account{Count: n, Sum: n * (n - 1) / 2}
		if complaint := right.against(n); complaint != "" {
			t.Errorf("%d events: %s", n, complaint)
		}
		for name, wrong := range map[string]account{
			"missing": {Count: n - 1, Sum: right.Sum}, "other": {Count: n, Sum: right.Sum + 1},
			"twice": {Count: n, Sum: right.Sum, Twice: 1}, "damaged": {Count: n, Sum: right.Sum, Damaged: 1},
		} {
			if wrong.against(n) == "" {
				t.Errorf("%s of %d: nothing was found wrong", name, n)
			}
		}
	}
	if (account{}).against(0) == "" {
		t.Error("a sender that sent nothing was not found")
	}
}

func TestMessagingRatiosCompareMedians(t *testing.T) {
	t.Parallel()
	g := newGrid(messagingMetrics, hozoName, libzmqName, natsName)
	g.add(hozoName, "stream 128 B", 2, 6, 100)
	g.add(libzmqName, "stream 128 B", 3, 4, 1)
	g.add(hozoName, "ask p50, 1", 100)
	g.add(natsName, "ask p50, 1", 90)
	got := map[string]float64{}
	for _, r := range messagingRatios(g) {
		got[r.Name] = r.Value
	}
	if got["messaging_durable_vs_libzmq"] != 2 || math.Abs(got["messaging_ask_p50_vs_nats"]-0.9) > 1e-9 {
		t.Errorf("ratios are %v", got)
	}
	if _, ok := got["messaging_durable_vs_jetstream"]; ok {
		t.Error("a contender that did not run is compared")
	}
}

func TestSpeakerTellsWhyAProgramEnded(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho ready\nread line\necho broken >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	one, err := speak([]string{script})
	if err != nil {
		t.Fatal(err)
	}
	if word, err := one.hear(ctx); word != "ready" || err != nil {
		t.Fatalf("heard %q, %v", word, err)
	}
	if err := one.say(); err != nil {
		t.Fatal(err)
	}
	if _, err := one.account(ctx); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("the error is %v", err)
	}
	if err := one.stop(); err != nil {
		t.Error(err)
	}
}
