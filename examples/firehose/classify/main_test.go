package main

import (
	"testing"

	"github.com/hozo-dev/hozo"
	"github.com/hozo-dev/hozo/hozotest"
)

func TestEventsGetAClassAndThoseWithoutATypeAreParked(t *testing.T) {
	t.Parallel()
	env := hozotest.New(t, hozotest.Config{Manifest: "../hozo.yaml"})
	env.Run("classify", hozo.Stage(raw, classify))
	for _, event := range []string{`{"type":"PushEvent","id":"1"}`, `{"id":"2"}`, `{"type":"ForkEvent","id":"3"}`} {
		if _, err := raw.Publish(t.Context(), env.Conn(), []byte(event)); err != nil {
			t.Fatal(err)
		}
	}
	env.Drain()
	var got string
	for _, event := range env.Events("events.classified") {
		got += string(event)
	}
	if want := `{"class":"code","type":"PushEvent","id":"1"}{"class":"interest","type":"ForkEvent","id":"3"}`; got != want {
		t.Errorf("classified were %s, want %s", got, want)
	}
	if dead := env.DeadLetters(); len(dead) != 1 || dead[0].Code != "classify/no-type" || string(dead[0].Data) != `{"id":"2"}` {
		t.Errorf("the dead letters are %+v", dead)
	}
}
