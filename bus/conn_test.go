package bus_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

func TestConnectWaitsUntilTheBusAnswers(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	grant := b.Grant(t, wire.Grant{})
	b.Stop(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*quick)
	defer cancel()
	if _, err := bus.Connect(ctx, bus.Config{URL: b.URL, Grant: grant}); fault.Code(err) != bus.CodeUnavailable {
		t.Errorf("without a bus: %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := bus.Connect(testkit.Context(t), bus.Config{URL: b.URL, Grant: grant})
		if err != nil {
			t.Error(err)
			return
		}
		if !c.Connected() {
			t.Error("not connected")
		}
		if err := c.Close(testkit.Context(t)); err != nil {
			t.Error(err)
		}
	})
	b.Start(t)
	wg.Wait()
}

func TestConnectRefusesAStranger(t *testing.T) {
	t.Parallel()
	b := testkit.Broker(t)
	grant := b.Grant(t, wire.Grant{})
	grant.Password = "guessed"
	ctx, cancel := context.WithTimeout(t.Context(), 10*quick)
	defer cancel()
	if _, err := bus.Connect(ctx, bus.Config{URL: b.URL, Grant: grant}); fault.Code(err) != bus.CodeUnavailable {
		t.Errorf("error is %v", err)
	}
}

func TestFromEnvSaysWhenThereIsNoPlatform(t *testing.T) { // not parallel: it sets the environment
	t.Setenv(wire.EnvBus, "")
	t.Setenv(wire.EnvGrant, "")
	_, err := bus.FromEnv(t.Context(), nil)
	if f, ok := fault.As(err); !ok || f.Code != "bus/no-platform" || f.Fix == "" {
		t.Errorf("error is %v", err)
	}
}

func TestFromEnvConnectsWithTheGrant(t *testing.T) { // not parallel: it sets the environment
	b := testkit.Broker(t)
	data, err := json.Marshal(b.Grant(t, wire.Grant{Service: "mail"}))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mail.1.json")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(wire.EnvBus, b.URL)
	t.Setenv(wire.EnvGrant, path)
	c, err := bus.FromEnv(testkit.Context(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Grant().Service != "mail" {
		t.Errorf("connected as %q", c.Grant().Service)
	}
	if err := c.Close(testkit.Context(t)); err != nil {
		t.Error(err)
	}
}
