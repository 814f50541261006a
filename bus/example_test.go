package bus_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/hozo-dev/hozo/bus"
)

// A program of the platform that reads events.raw, drops what is not interesting and hands on the rest.
func Example() {
	type event struct {
		Type string `json:"type"`
		User string `json:"user"`
	}
	var (
		raw    = bus.NewTopic[event]("events.raw")
		pushes = bus.NewTopic[event]("events.pushes")
	)
	run := func(ctx context.Context) error {
		conn, err := bus.FromEnv(ctx, slog.Default())
		if err != nil {
			return err
		}
		stage, err := bus.NewStage(conn, raw, func(_ context.Context, e bus.Event[event], out *bus.Out) error {
			switch {
			case e.Value.User == "":
				return bus.Reject("pushes/no-user", fmt.Errorf("event %s has no user", e.ID))
			case e.Value.Type != "push":
				return bus.Drop
			}
			return pushes.Send(out, e.Value)
		}, bus.StageConfig{})
		if err != nil {
			return err
		}
		return stage.Run(ctx)
	}
	_ = run // started by the platform, with a context that ends at SIGTERM
}

// A question to another service.
func ExampleCall() {
	type query struct{ ID string }
	type user struct{ Name string }
	lookUp := bus.NewCall[query, user]("users.get")

	greet := func(ctx context.Context, conn *bus.Conn, id string) (string, error) {
		u, err := lookUp.Ask(ctx, conn, query{ID: id})
		if err != nil {
			return "", fmt.Errorf("look up user %s: %w", id, err)
		}
		return "hello " + u.Name, nil
	}
	_ = greet
}
