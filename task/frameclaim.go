package task

import (
	"context"
	"errors"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// claim makes a frame this worker's. It reports false when somebody else goes on with it.
func (f *frame) claim(ctx context.Context, w *pool) (bool, error) {
	f.lease.recMu.Lock()
	defer f.lease.recMu.Unlock()
	subject := wire.FrameRecordSubject(w.kind, f.lease.d.token)
	now, err := getRecordAt(ctx, w.conn, subject)
	if err != nil || (now.revision > 0 && now.owner != w.conn.Grant().User && time.Since(now.at) < ackWait) {
		return false, err
	}
	next := record{state: Running, copy: 1, revision: now.revision}
	next.revision, err = putRecordAt(ctx, w.conn, subject, next, frameKeep)
	if errors.Is(err, errMoved) {
		return false, nil
	}
	f.lease.rec = next
	return err == nil, err
}

// regain makes the frame surely this worker's again, when nobody else has claimed it. When somebody has, its handlers end.
func (f *frame) regain(ctx context.Context, w *pool) error {
	if !f.lease.recMu.TryLock() {
		return nil
	}
	defer f.lease.recMu.Unlock()
	token, ok := f.lease.current()
	if !ok {
		return nil
	}
	subject := wire.FrameRecordSubject(w.kind, token)
	now, err := getRecordAt(ctx, w.conn, subject)
	if err != nil {
		return err
	}
	if now.revision > f.lease.rec.revision && !f.lease.wrote(w, now) {
		f.lease.end(token, errLost)
		for _, l := range w.leases {
			l.lose(f)
		}
		w.discharge(ctx, f, w.frames.rest(f), false)
		return nil
	}
	f.lease.mu.Lock()
	lost := f.lease.lost
	f.lease.mu.Unlock()
	if !lost {
		return nil
	}
	if err := f.look(ctx, w); err != nil { // the word about a cancellation may have been lost with the connection
		return err
	}
	next := record{state: Running, copy: 1, revision: now.revision}
	next.revision, err = putRecordAt(ctx, w.conn, subject, next, frameKeep)
	if errors.Is(err, errMoved) {
		return nil // the next look says by whom
	}
	if err == nil {
		f.lease.rec = next
		f.lease.renew(token, w.conn.NATS().Publish)
		w.wake()
	}
	return err
}
