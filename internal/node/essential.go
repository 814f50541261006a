package node

import (
	"context"
	"errors"
	"os"

	"github.com/hozo-dev/hozo/internal/supervisor"
)

// Ended says which essential instance ended a project, and with which exit status.
type Ended struct {
	Instance string `json:"instance"`
	Code     int    `json:"code"`   // 128+n for signal n
	Reason   string `json:"reason"` // "exit status 17"
}

// LastEnd returns how an essential instance ended the project whose state is in dir, and false when none did since the
// last ForgetEnd.
func LastEnd(dir string) (Ended, bool) {
	var e Ended
	return e, read(state(dir).ended(), &e) == nil
}

// ForgetEnd makes LastEnd forget, for a project that is about to be started.
func ForgetEnd(dir string) error {
	if err := os.Remove(state(dir).ended()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// heard passes a change of an instance on, and notes when it is the end of everything.
func (n *Node) heard(e supervisor.Event) {
	n.feed.publish(e)
	if e.Ended == nil {
		return
	}
	select {
	case n.ended <- Ended{e.Instance, e.Ended.Code, e.Reason}:
	default: // everything stops already
	}
}

// awaitEnd stops everything once an essential instance has ended for good. Why is written down first: a node that is killed
// on the way finds the instance as it ended, and does it again.
func (n *Node) awaitEnd(ctx context.Context) error {
	var e Ended
	select {
	case <-ctx.Done():
		return nil
	case e = <-n.ended:
	}
	n.cfg.Logger.InfoContext(ctx, "an essential instance ended, everything stops", "instance", e.Instance, "code", e.Code)
	if err := write(n.state.ended(), e); err != nil {
		n.cfg.Logger.ErrorContext(ctx, "the end is not written down", "error", err)
	}
	if err := n.down(ctx); err != nil {
		n.cfg.Logger.ErrorContext(ctx, "not everything stops in order", "error", err)
	}
	if err := n.keeper.Shutdown(ctx); err != nil && ctx.Err() == nil {
		n.cfg.Logger.ErrorContext(ctx, "the keeper does not stop", "error", err)
	}
	<-ctx.Done()
	return nil
}
