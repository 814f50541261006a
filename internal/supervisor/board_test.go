package supervisor

import (
	"testing"

	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/status"
)

func shown(b *board, name string, state status.State) {
	b.set(entry{Instance: status.Instance{Name: name, State: state}, service: "a"})
}

func TestTurnComesWhenThoseBeforeAreDone(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		first, third status.State
		rolling      bool // the first
		want         bool
	}{
		"first waits itself":   {status.Ready, status.Ready, true, false},
		"first is ready again": {status.Ready, status.Ready, false, true},
		"first is stopping":    {status.Stopping, status.Ready, false, false},
		"first crashes":        {status.Backoff, status.Ready, false, false},
		"first failed":         {status.Failed, status.Ready, false, false},
		"first is stopped":     {status.Stopped, status.Ready, false, true},
		"third crashes":        {status.Ready, status.Backoff, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBoard()
			shown(b, "a.1", test.first)
			shown(b, "a.2", status.Ready)
			shown(b, "a.3", test.third)
			b.roll("a.2", "a.3")
			if test.rolling {
				b.roll("a.1")
			}
			if got := b.myTurn("a", "a.2", 1); got != test.want {
				t.Errorf("turn is %v", got)
			}
		})
	}
}

func TestWidthIsHowManyAreReplacedAtOnce(t *testing.T) {
	t.Parallel()
	b := newBoard()
	for _, name := range []string{"a.1", "a.2", "a.3", "a.4"} {
		shown(b, name, status.Ready)
		b.roll(name)
	}
	for width := 1; width <= 4; width++ {
		turns := 0
		for _, name := range []string{"a.1", "a.2", "a.3", "a.4"} {
			if b.myTurn("a", name, width) {
				turns++
			}
		}
		if turns != width {
			t.Errorf("width %d gives %d turns", width, turns)
		}
	}
	b.rolled("a.1")
	e, _ := b.get("a.1")
	e.Change = status.ChangeFailed
	b.set(e)
	if b.myTurn("a", "a.2", 4) {
		t.Error("one was given up, and the next has its turn")
	}
}

func TestBoardWakesOnlyForChanges(t *testing.T) {
	t.Parallel()
	b := newBoard()
	shown(b, "a.1", status.Ready)
	changed := b.changed()
	shown(b, "a.1", status.Ready)
	b.rolled("a.1")
	select {
	case <-changed:
		t.Error("woken for nothing")
	default:
	}
	shown(b, "a.1", status.Unready)
	<-changed
}

func TestReadyNeedsEveryInstance(t *testing.T) {
	t.Parallel()
	b := newBoard()
	shown(b, "a.1", status.Ready)
	shown(b, "a.2", status.Unready)
	need := []plan.Need{{Service: "a", Condition: plan.Ready}}
	if got := b.unmet(need); got != "needs a: unready" {
		t.Errorf("unmet: %q", got)
	}
	if got := b.unmet([]plan.Need{{Service: "a", Condition: plan.Started}}); got != "" {
		t.Errorf("unmet: %q", got)
	}
	shown(b, "a.2", status.Ready)
	if got := b.unmet(need); got != "" {
		t.Errorf("unmet: %q", got)
	}
}
