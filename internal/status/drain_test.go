package status_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/internal/status"
)

// answers are snapshots of a chain of two streams, each from a question of its own.
type answers struct{ at time.Time }

func (a *answers) next(last1, lag1, last2, lag2 uint64) status.Snapshot {
	a.at = a.at.Add(time.Second)
	return status.Snapshot{Asked: a.at, Streams: []status.Stream{
		{Name: "in", LastSeq: last1, Consumers: []status.Consumer{{Service: "stage", Lag: lag1}}},
		{Name: "out", LastSeq: last2, Consumers: []status.Consumer{{Service: "sink", InFlight: int(lag2)}}},
	}}
}

func TestDrainedTakesTwoAnswersOfRestAfterTheFirst(t *testing.T) {
	t.Parallel()
	a := &answers{at: time.Unix(0, 0)}
	var d status.Drain
	rest := a.next(5, 0, 5, 0)
	for range 3 {
		if d.Behind(rest) == "" {
			t.Error("drained by an answer from before the question")
		}
	}
	rest = a.next(5, 0, 5, 0)
	for range 3 {
		if d.Behind(rest) == "" {
			t.Error("drained by one answer")
		}
	}
	if behind := d.Behind(a.next(5, 0, 5, 0)); behind != "" {
		t.Errorf("after two answers of rest: %s", behind)
	}
}

func TestNotDrainedWhileAnythingMoves(t *testing.T) {
	t.Parallel()
	a := &answers{at: time.Unix(0, 0)}
	unknown := status.Snapshot{}
	var d status.Drain
	for _, c := range []struct {
		what   string
		s      status.Snapshot
		behind string
	}{
		{"a node that has just started", unknown, "the broker has not answered"},
		{"the first answer", a.next(5, 0, 4, 0), "on their way"},
		{"an event between the streams", a.next(5, 0, 4, 0), "on their way"},
		{"and now it is in the second", a.next(5, 0, 5, 0), "on their way"},
		{"another comes", a.next(6, 1, 5, 0), "stage is 1 frames behind in in"},
		{"it moves on", a.next(6, 0, 6, 1), "sink is 1 frames behind in out"},
		{"it is stored", a.next(6, 0, 6, 0), "on their way"},
		{"a broker that starts anew", unknown, "the broker has not answered"},
		{"it is back", a.next(6, 0, 6, 0), "on their way"},
		{"it rests", a.next(6, 0, 6, 0), ""},
		{"and goes on", a.next(7, 0, 6, 0), "on their way"},
	} {
		if got := d.Behind(c.s); (c.behind == "") != (got == "") || !strings.Contains(got, c.behind) {
			t.Errorf("%s: behind is %q, want %q", c.what, got, c.behind)
		}
	}
}

func TestAProjectWithoutStreamsIsDrained(t *testing.T) {
	t.Parallel()
	var d status.Drain
	if behind := d.Behind(status.Snapshot{Asked: time.Unix(1, 0)}); behind != "" {
		t.Error(behind)
	}
}
