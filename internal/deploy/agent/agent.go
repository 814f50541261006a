// Package agent is the other end of a deploy: it runs on the host, for the length of one ssh session, and brings
// resources to what a plan says.
//
// It writes into the host's journal before each change and keeps there who has been notified, so that a run that was
// killed at any point is finished by the next one. Once it was told to go it finishes its plan, also when the link or the
// controller dies.
package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/deploy/protocol"
	"github.com/hozo-dev/hozo/internal/resource"
)

// Config tunes an agent. The zero Config is ready for use.
type Config struct {
	State string       // folder of leases and journals; empty: /var/lib/hozo for root, else under the user's home
	Step  func(string) // called before each step of an apply, with what it is; nil: nothing. Tests end the process in it
}

// Run serves one session. It returns when the plan is done, was refused, or the controller has gone before it said Go.
func Run(ctx context.Context, in io.Reader, out io.Writer, cfg Config) error {
	conn, err := protocol.NewConn(in, out)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	a := &agent{conn: conn, cfg: cfg, frames: make(chan frame), gone: make(chan struct{})}
	var reading sync.WaitGroup
	reading.Go(func() { a.read(ctx) })
	done, err := a.session(ctx)
	if err != nil {
		done.Failed = protocol.Faults(err)
	}
	sent := conn.Send(protocol.KindDone, done)
	cancel()
	if c, ok := in.(io.Closer); ok {
		_ = c.Close() // ends the read below; nothing more is expected
	}
	reading.Wait()
	if err == nil {
		return sent
	}
	return err
}

type frame struct {
	kind protocol.Kind
	data []byte
}

type agent struct {
	conn   *protocol.Conn
	cfg    Config
	frames chan frame
	gone   chan struct{} // closed when the controller's stream has ended
	blobs  map[string][]byte
	specs  []resource.Spec
	things []resource.Resource
}

func (a *agent) read(ctx context.Context) {
	defer close(a.gone)
	for {
		kind, data, err := a.conn.Read()
		if err != nil {
			return // the end, or a controller that talks nonsense: both have nothing more to say
		}
		select {
		case a.frames <- frame{kind, data}:
		case <-ctx.Done():
			return
		}
	}
}

var errGone = errors.New("the controller has gone")

// next waits for a frame of a kind. Words of life are passed over, and start the time anew.
func (a *agent) next(ctx context.Context, kind protocol.Kind) ([]byte, error) {
	patience := time.NewTimer(protocol.Lease)
	defer patience.Stop()
	for {
		select {
		case f := <-a.frames:
			switch f.kind {
			case kind:
				return f.data, nil
			case protocol.KindAlive:
				patience.Reset(protocol.Lease)
			default:
				return nil, fmt.Errorf("got frame %c where %c was expected", f.kind, kind)
			}
		case <-a.gone:
			return nil, errGone
		case <-patience.C:
			return nil, fmt.Errorf("the controller was silent for %s: %w", protocol.Lease, errGone)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (a *agent) session(ctx context.Context) (done protocol.Done, err error) {
	name, err := os.Hostname()
	if err != nil {
		return done, err
	}
	if err := a.conn.Send(protocol.KindHello, protocol.Hello{Version: protocol.Version, Host: name, UID: os.Geteuid()}); err != nil {
		return done, err
	}
	data, err := a.next(ctx, protocol.KindPlan)
	if err != nil {
		return done, err
	}
	var plan protocol.Plan
	if err := json.Unmarshal(data, &plan); err != nil {
		return done, fmt.Errorf("read plan: %w", err)
	}
	dir, err := a.stateDir(plan)
	if err != nil {
		return done, err
	}
	var log *journal
	if plan.Deploy {
		held, err := takeLease(dir, plan.Run, plan.By)
		if err != nil {
			return done, err
		}
		defer func() { err = errors.Join(err, held.release()) }()
		if log, err = openJournal(dir, plan.Run, plan.By); err != nil {
			return done, err
		}
		defer func() { err = errors.Join(err, log.close()) }()
	}
	a.specs = plan.Resources
	if err := a.make(); err != nil {
		return done, err
	}
	host := &resource.Host{Blob: a.blob}
	if err := a.fetch(ctx, host); err != nil {
		return done, err
	}
	digest, err := a.check(ctx, host, dir, log)
	if err != nil || !plan.Deploy {
		return done, err
	}
	data, err = a.next(ctx, protocol.KindGo)
	if err != nil {
		return done, err
	}
	var word protocol.Go
	if err := json.Unmarshal(data, &word); err != nil || word.Digest != digest {
		return done, fmt.Errorf("told to go with another plan than this")
	}
	host.Kept()
	return a.apply(ctx, host, log)
}

// stateDir makes the folder of a project's environment on this host.
func (a *agent) stateDir(plan protocol.Plan) (string, error) {
	base := a.cfg.State
	if base == "" {
		base = "/var/lib/hozo"
		if os.Geteuid() != 0 {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", err
			}
			base = filepath.Join(home, ".local", "state", "hozo")
		}
	}
	dir := filepath.Join(base, "deploy", plan.Project+"."+plan.Env)
	if !plan.Deploy {
		return dir, nil // a plan writes nothing
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", unwritable(dir, err)
	}
	return dir, nil
}

func (a *agent) make() error {
	a.things = make([]resource.Resource, len(a.specs))
	var errs []error
	for i, s := range a.specs {
		r, err := resource.New(s)
		if err != nil {
			errs = append(errs, err)
		}
		a.things[i] = r
	}
	return errors.Join(errs...)
}

// fetch asks for all content that the host lacks at once, so that it costs one round trip.
func (a *agent) fetch(ctx context.Context, host *resource.Host) error {
	var want protocol.Want
	for _, r := range a.things {
		if b, ok := r.(resource.Blobs); ok {
			if d := b.Wants(host); d != "" && !slices.Contains(want.Digests, d) {
				want.Digests = append(want.Digests, d)
			}
		}
	}
	a.blobs = make(map[string][]byte, len(want.Digests))
	if len(want.Digests) == 0 {
		return nil
	}
	if err := a.conn.Send(protocol.KindWant, want); err != nil {
		return err
	}
	for len(a.blobs) < len(want.Digests) {
		data, err := a.next(ctx, protocol.KindBlob)
		if err != nil {
			return err
		}
		digest, content, err := protocol.Blob(data)
		if err != nil {
			return err
		}
		a.blobs[digest] = content
	}
	return nil
}

func (a *agent) blob(digest string) ([]byte, error) {
	if data, ok := a.blobs[digest]; ok {
		return data, nil
	}
	// It changed between the question and now.
	return nil, &fault.Error{Code: "deploy/moved", What: "the host was changed by somebody else during the deploy", Fix: "deploy again"}
}

// check tells every resource that differs, and returns the digest of all changes.
func (a *agent) check(ctx context.Context, host *resource.Host, dir string, log *journal) (string, error) {
	sum := sha256.New()
	enc := json.NewEncoder(sum)
	var checked protocol.Checked
	var errs []error
	for i, r := range a.things {
		change, err := r.Check(ctx, host)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if change.Empty() {
			checked.Unchanged++
			continue
		}
		planned := protocol.Planned{ID: a.specs[i].ID(), Change: change}
		if err := enc.Encode(planned); err != nil {
			return "", err
		}
		if err := a.conn.Send(protocol.KindPlanned, planned); err != nil {
			return "", err
		}
		for _, id := range a.specs[i].Notify {
			if !slices.Contains(checked.Notifies, id) {
				checked.Notifies = append(checked.Notifies, id)
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	checked.Pending = owed(log, dir)
	if err := enc.Encode(checked.Pending); err != nil {
		return "", err
	}
	checked.Digest = hex.EncodeToString(sum.Sum(nil))
	return checked.Digest, a.conn.Send(protocol.KindChecked, checked)
}

// owed returns the notifications that earlier runs left.
func owed(log *journal, dir string) []string {
	if log != nil {
		return slices.Clone(log.pending)
	}
	pending, err := pendingIn(dir)
	if err != nil {
		return nil // a plan that may not read the journal; the deploy will say so
	}
	return pending
}

// apply makes the changes and then deals with notifications, older ones too.
func (a *agent) apply(ctx context.Context, host *resource.Host, log *journal) (protocol.Done, error) {
	var done protocol.Done
	if err := log.add(record{What: saysBegin, By: log.by}, false); err != nil {
		return done, err
	}
	err := a.changes(ctx, host, log, &done)
	if err == nil {
		err = a.handlers(ctx, host, log, &done)
	}
	if err != nil {
		return done, errors.Join(err, log.add(record{What: saysFailed, Error: err.Error()}, true))
	}
	return done, log.add(record{What: saysEnd}, false)
}

func (a *agent) step(what string) {
	if a.cfg.Step != nil {
		a.cfg.Step(what)
	}
}

// tell sends an event. Where nobody listens any more the work goes on, and the journal knows.
func (a *agent) tell(e protocol.Event) { _ = a.conn.Send(protocol.KindEvent, e) }

func (a *agent) changes(ctx context.Context, host *resource.Host, log *journal, done *protocol.Done) error {
	for i, r := range a.things {
		spec := a.specs[i]
		change, err := r.Check(ctx, host)
		if err != nil {
			return err
		}
		if change.Empty() {
			continue
		}
		begin := time.Now()
		a.tell(protocol.Event{ID: spec.ID(), Op: change.Op, Begun: true})
		a.step("announce " + spec.ID())
		if err := log.add(record{What: saysChange, ID: spec.ID(), Op: string(change.Op), Notify: spec.Notify}, true); err != nil {
			return err
		}
		a.step("change " + spec.ID())
		if err := change.Apply(ctx); err != nil {
			return err
		}
		a.step("changed " + spec.ID())
		if again, err := r.Check(ctx, host); err != nil || !again.Empty() {
			return errors.Join(err, &fault.Error{
				Code: "deploy/not-converged", What: fmt.Sprintf("%s was changed and still differs: %s %v", spec.ID(), again.Op, again.Notes),
				Where: spec.Place, Fix: "see whether something else on the host changes it back",
			})
		}
		if err := log.add(record{What: saysChanged, ID: spec.ID()}, false); err != nil {
			return err
		}
		done.Changed++
		a.tell(protocol.Event{ID: spec.ID(), Op: change.Op, Notes: change.Notes, MS: time.Since(begin).Milliseconds()})
	}
	return nil
}

func (a *agent) handlers(ctx context.Context, host *resource.Host, log *journal, done *protocol.Done) error {
	for _, id := range slices.Clone(log.pending) {
		at := slices.IndexFunc(a.specs, func(s resource.Spec) bool { return s.ID() == id })
		if at < 0 { // it is no longer in the manifest: nothing is left to restart
			if err := log.add(record{What: saysHandled, ID: id, Error: "no longer in the manifest"}, true); err != nil {
				return err
			}
			continue
		}
		h, ok := a.things[at].(resource.Notified)
		if !ok {
			return fmt.Errorf("%s cannot be notified", id)
		}
		begin := time.Now()
		a.tell(protocol.Event{ID: id, Handling: h.Handling(), Begun: true})
		a.step("handle " + id)
		if err := h.Handle(ctx, host); err != nil {
			return err
		}
		if err := log.add(record{What: saysHandled, ID: id}, true); err != nil {
			return err
		}
		a.step("handled " + id)
		done.Handled++
		a.tell(protocol.Event{ID: id, Handling: h.Handling(), MS: time.Since(begin).Milliseconds()})
	}
	return nil
}

// pendingIn reads what is owed without the right to write.
func pendingIn(dir string) ([]string, error) {
	j := &journal{}
	text, err := os.ReadFile(filepath.Join(dir, "journal"))
	if err != nil {
		return nil, err
	}
	j.read(text)
	return j.pending, nil
}
