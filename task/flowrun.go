package task

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
)

// FlowHandle names a workflow that was started. The zero FlowHandle names none.
type FlowHandle struct {
	ID        string
	Duplicate bool // a workflow with this id was there already

	conn *bus.Conn
}

// FindFlow makes a handle of the workflow with an id. It does not ask whether there is one.
func FindFlow(c *bus.Conn, id string) FlowHandle { return FlowHandle{ID: id, conn: c} }

// Start starts the workflow and returns when all that can begin at once is stored. The service must declare every kind in it
// under enqueues, and so must each service that handles a kind for the kinds that come after it. With [ID] the workflow has
// an id of the caller's: a second start with it while the first is known changes nothing, and only completes one that was
// interrupted. Other options are refused. Without ID a start that fails may leave a workflow of which only a part runs.
//
// The faults are those of Enqueue, but for task/queue-full: workflows are not held up at the bound of a queue.
func (f *Flow) Start(ctx context.Context, c *bus.Conn, opts ...Option) (FlowHandle, error) {
	e := enqueue{}
	for _, opt := range opts {
		opt(&e)
	}
	h := FlowHandle{ID: e.id, conn: c}
	if !e.given {
		h.ID = newID()
	}
	if err := f.startable(c, e); err != nil {
		return h, err
	}
	rec, nodes := f.spell(h.ID, c)
	if err := f.fits(c, rec, nodes); err != nil {
		return h, err
	}
	have, err := getFlow(ctx, c, h.ID)
	if err != nil {
		return h, f.wrap(err)
	}
	h.Duplicate = have.revision > 0
	if !h.Duplicate {
		if err := rec.put(ctx, c, h.ID); err != nil && !errors.Is(err, errMoved) {
			return h, f.wrap(err)
		} else if err != nil { // somebody starts it at the same time, or an earlier try was stored
			if have, err = getFlow(ctx, c, h.ID); err != nil {
				return h, f.wrap(err)
			}
		}
	}
	if have.revision > 0 && (have.Digest != rec.Digest || have.State != "") {
		return h, nil // another workflow, or one that goes no further
	}
	for i := range nodes {
		if err := nodes[i].put(ctx, c); err != nil && !errors.Is(err, errMoved) { // there by an earlier start
			return h, f.wrap(err)
		}
	}
	trace := &nats.Msg{}
	putTrace(ctx, trace)
	for i := range nodes {
		if n := &nodes[i]; len(n.After) == 0 {
			if err := n.begin(ctx, c, n.Args, nil, trace.Header); err != nil {
				return h, f.wrap(err)
			}
		}
	}
	return h, nil
}

func (f *Flow) wrap(err error) error { return fmt.Errorf("start workflow %s: %w", f.name, err) }

// startable reports all that keeps the workflow from being started.
func (f *Flow) startable(c *bus.Conn, e enqueue) error {
	var errs []error
	if e.err != nil {
		errs = append(errs, e.err)
	}
	if e.given && (!validID(e.id) || len(e.id) > wire.MaxTaskID-maxNodeName-8) {
		errs = append(errs, &fault.Error{
			Code: CodeBadID, Kind: fault.Misuse, What: fmt.Sprintf("%q cannot be the id of a workflow", e.id), Where: "workflow " + f.name,
			Fix: fmt.Sprintf("use 1 to %d printable ASCII characters without spaces", wire.MaxTaskID-maxNodeName-8),
		})
	}
	if e.unique != "" || !e.at.IsZero() || e.ttl != 0 || e.key != "" || e.priority != 0 {
		errs = append(errs, badOption("of a workflow only the ID can be chosen: use Opts of its tasks"))
	}
	grant := c.Grant()
	var missing []string
	for _, n := range f.nodes {
		if !slices.Contains(grant.Enqueues, n.kind) && !slices.Contains(missing, n.kind) {
			missing = append(missing, n.kind)
			errs = append(errs, NewKind[None](n.kind, Config{}).notEnqueued(grant.Service, nil))
		}
	}
	if len(errs) > 0 {
		return f.wrap(errors.Join(errs...))
	}
	return nil
}

// spell is what is stored of the workflow when it is started with an id.
func (f *Flow) spell(id string, c *bus.Conn) (flowRecord, []waiting) {
	rec := flowRecord{Name: f.name, Started: time.Now().UTC(), By: c.Grant().User, FailFast: f.cfg.FailFast, Keep: f.cfg.Keep}
	place := map[*node]int{}
	nodes := make([]waiting, len(f.nodes))
	for i, n := range f.nodes {
		place[n] = i
		e := n.opts
		nodes[i] = waiting{
			Flow: id, Node: n.label, Input: n.input, Args: n.args, Data: n.data, FailFast: f.cfg.FailFast, Keep: f.cfg.Keep,
			Priority: e.priority, Key: e.key, TTL: e.ttl, Delay: e.delay, kind: n.kind,
		}
		if e.delay == 0 {
			nodes[i].NotBefore = e.at
		}
		stored := flowNode{Name: n.label, Kind: n.kind, Failure: n.input == inputFailure}
		for _, before := range n.all {
			at := place[before] // NewFlow has put it before this one
			stored.After = append(stored.After, at)
			nodes[i].After = append(nodes[i].After, edge{before.kind, before.label})
			if n.input == inputFailure {
				nodes[at].Failed = append(nodes[at].Failed, edge{n.kind, n.label})
			} else {
				nodes[at].Next = append(nodes[at].Next, edge{n.kind, n.label})
			}
		}
		rec.Nodes = append(rec.Nodes, stored)
	}
	rec.Digest = digest(nodes)
	return rec, nodes
}

func digest(nodes []waiting) string {
	h := sha256.New()
	_ = json.NewEncoder(h).Encode(nodes) // strings, numbers and bytes
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// fits reports what is too large to be stored.
func (f *Flow) fits(c *bus.Conn, rec flowRecord, nodes []waiting) error {
	limit := int(c.NATS().MaxPayload()) - headroomBytes
	tooLarge := func(what string, n int, fix string) error {
		return f.wrap(&fault.Error{Code: bus.CodeTooLarge, What: fmt.Sprintf("%s of %d bytes is over the limit of %d", what, n, limit), Where: "workflow " + f.name, Fix: fix})
	}
	for i := range nodes {
		if len(nodes[i].Args) > limit*5/8 { // they are written in base64
			return tooLarge("the arguments of "+nodes[i].Node, len(nodes[i].Args), "store the data elsewhere and enqueue its address")
		}
	}
	if data, err := json.Marshal(rec); err != nil || len(data) > limit {
		return tooLarge("the record", len(data), "use shorter names, or fewer tasks")
	}
	return nil
}

// Task is the task of the workflow with a name, as Named has said. It does not ask whether there is one. kind is its kind.
func (h FlowHandle) Task(kind, name string) Handle {
	return Handle{ID: flowID(h.ID, name), Kind: kind, conn: h.conn, queue: h.conn.Grant().QueueOf(kind).Name, keeps: true}
}

// Result waits until the task of this workflow has ended and returns its result, or why there is none: see Handle.Wait. n
// must be of the Flow that was started.
func (n *Node[R]) Result(ctx context.Context, h FlowHandle) (R, error) {
	return ResultHandle[R]{h.Task(n.n.kind, n.n.label)}.Wait(ctx)
}

// Cancel ends the workflow: what waits never begins, what is queued is dropped, and the contexts of running handlers end. What
// has ended stays as it is. It is so for good when Cancel has returned nil; after an error a part may go on, and Cancel can be
// called again.
func (h FlowHandle) Cancel(ctx context.Context) error {
	for {
		f, err := getFlow(ctx, h.conn, h.ID)
		if err != nil {
			return err
		}
		if f.revision == 0 {
			return h.unknown()
		}
		if f.State != Cancelled {
			f.State = Cancelled
			if err := f.put(ctx, h.conn, h.ID); errors.Is(err, errMoved) {
				continue
			} else if err != nil {
				return err
			}
		}
		for _, n := range f.Nodes {
			if err := h.Task(n.Kind, n.Name).cancel(ctx, true, f.Keep); err != nil && fault.Code(err) != CodeEnded {
				return err
			}
		}
		return nil
	}
}

func (h FlowHandle) unknown() error {
	return &fault.Error{Code: CodeUnknown, What: "nothing is known of the workflow, or no longer", Where: "workflow " + h.ID, Fix: "raise Keep of the workflow to know for longer what has become of it"}
}
