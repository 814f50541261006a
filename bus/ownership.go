package bus

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"golang.org/x/sync/errgroup"
)

const (
	// settle is how long a new member looks around before it takes its first partitions: members that start together
	// then share them out at once, where the first would take all and give most of them back.
	settle = 300 * time.Millisecond

	// hintPause is the least time between two looks at the records because something changed.
	hintPause = 50 * time.Millisecond

	// commitInterval is how often what is done is recorded. What was done since is done again by the next owner after a
	// crash, and its output is recognised.
	commitInterval = 200 * time.Millisecond

	// recordTimeout bounds one question to the broker about records.
	recordTimeout = 2 * time.Second

	// memberTTL is how long the broker remembers a member's last sign.
	memberTTL = "20s"

	// claimsAtOnce bounds what a member that starts asks of the broker at once.
	claimsAtOnce = 8
)

// errLost ends what is done in the name of an owner that is none any more.
var errLost = &fault.Error{Code: CodeNotOwner, What: "this process does not own the partition any more"}

// ownership shares the partitions of one source out among the processes that read it. Each shows that it lives, all come
// to the same plan, and each gives back and takes what the plan says. Who owns a partition is settled by its record,
// which is replaced only by those who know the last one.
type ownership struct {
	conn    *Conn
	log     *slog.Logger
	src     wire.Source
	targets []string // streams that output goes to
	member  string
	work    func(*lease) // works on a partition until the lease ends
	ready   func()       // called once the first plan is made

	start time.Time
	until atomic.Int64 // since start, ns: until then this member may act
	beats uint64
	seen  *roster
	hint  chan struct{} // capacity 1: look at the records

	mu      sync.Mutex
	leases  map[int]*lease
	running sync.WaitGroup
}

func newOwnership(c *Conn, src wire.Source, log *slog.Logger, work func(*lease), ready func()) *ownership {
	member := nuid.Next()
	return &ownership{
		conn: c, log: log, src: src, targets: wire.TargetStreams(c.cfg.Grant.Publish), member: member, work: work, ready: ready,
		start: time.Now(), seen: newRoster(member, src.Partitions), hint: make(chan struct{}, 1), leases: make(map[int]*lease),
	}
}

func (o *ownership) now() time.Duration { return time.Since(o.start) }

// valid reports whether this member may act now. A process that was stopped for too long finds out here.
func (o *ownership) valid() bool { return int64(o.now()) < o.until.Load() }

// run takes and gives back partitions until ctx ends, then gives all of them back. work is the context of what is in
// hand, which outlives ctx.
func (o *ownership) run(ctx, work context.Context) error {
	sub, err := o.conn.nc.Subscribe(wire.LookSubject(o.conn.cfg.Grant.Service, o.src.Stream), func(*nats.Msg) { o.look() })
	if err != nil {
		return fmt.Errorf("watch the owners of %s: %w", o.src.Stream, err)
	}
	defer func() { _ = sub.Unsubscribe() }() // it fails only with the connection
	var commits sync.WaitGroup
	commitCtx, endCommits := context.WithCancel(work)
	commits.Go(func() { o.commitAll(commitCtx) })

	o.loop(ctx, work)

	o.mu.Lock()
	for _, l := range o.leases {
		l.handOver()
	}
	o.mu.Unlock()
	o.running.Wait()
	endCommits()
	commits.Wait()
	goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	_ = o.beat(goodbye, true) // without it the others wait for beatDead
	o.tell()
	return nil
}

func (o *ownership) loop(ctx, work context.Context) {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	var looked time.Time
	joined, first := time.Now(), true
	for ctx.Err() == nil {
		if !o.valid() {
			// Others may act in its place by now: it begins anew, whatever the next sign of life does.
			o.loseAll()
		}
		if err := o.beat(ctx, false); err == nil && o.beats == 1 {
			o.tell()
		}
		for rest := true; rest && ctx.Err() == nil; {
			if err := o.read(ctx); err == nil && o.valid() && time.Since(joined) >= settle {
				o.act(ctx, work)
				if first {
					first = false
					o.ready()
				}
			}
			looked = time.Now()
			pause := beatInterval
			if first {
				pause = settle / 3
			}
			select {
			case <-tick.C:
				rest = false
			case <-time.After(pause):
			case <-o.hint:
				sleep(ctx, hintPause-time.Since(looked))
			case <-ctx.Done():
			}
		}
	}
}

// tell makes the other members look at the records at once. It may get lost: they look from time to time in any case.
func (o *ownership) tell() {
	_ = o.conn.nc.Publish(wire.LookSubject(o.conn.cfg.Grant.Service, o.src.Stream), nil)
}

func (o *ownership) look() {
	select {
	case o.hint <- struct{}{}:
	default:
	}
}

// beat stores a sign of life, which lets this member act for another beatValid.
func (o *ownership) beat(ctx context.Context, leaving bool) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	o.beats++
	sent := o.now()
	g := o.conn.cfg.Grant
	data, err := json.Marshal(wire.Member{Member: o.member, Instance: g.Instance, Beat: o.beats, Leaving: leaving})
	if err != nil {
		return fmt.Errorf("encode a sign of life: %w", err)
	}
	_, err = o.conn.publishOnce(ctx, &nats.Msg{
		Subject: wire.MemberSubject(g.Service, o.src.Stream, o.member), Data: data, Header: nats.Header{jetstream.MsgTTLHeader: {memberTTL}},
	}, nil)
	if err == nil && !leaving {
		o.until.Store(int64(sent + beatValid))
	}
	return err
}

// read looks at all records.
func (o *ownership) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	msgs, err := o.conn.lastMessages(ctx, wire.OwnerStream, wire.OwnerSubjects(o.conn.cfg.Grant.Service, o.src.Stream))
	if err != nil {
		return err
	}
	now := o.now()
	for _, m := range msgs {
		if rec, ok := ownerOf(m); ok {
			o.seen.note(rec)
			continue
		}
		var member wire.Member
		if err := json.Unmarshal(m.data, &member); err == nil && member.Member != "" {
			o.seen.see(member, m.seq, now)
		}
	}
	return nil
}

// act gives back and takes what the plan says.
func (o *ownership) act(ctx, work context.Context) {
	claim, release := o.seen.decide(o.now(), func(p int) bool { return o.lease(p) != nil })
	for _, p := range release {
		if l := o.lease(p); l != nil {
			l.handOver()
		} else {
			o.giveBack(ctx, o.seen.owners[p]) // when the lease ended the broker was away
		}
	}
	var group errgroup.Group
	group.SetLimit(claimsAtOnce)
	for _, p := range claim {
		last := o.seen.owners[p]
		group.Go(func() error { o.claim(ctx, work, last); return nil })
	}
	_ = group.Wait() // a claim that fails is another member's, or is made again
}

// giveBack lets others take a partition whose record is last.
func (o *ownership) giveBack(ctx context.Context, last ownerRecord) {
	last.Member = ""
	if err := o.replace(ctx, &last); err == nil { // else it is somebody's, or the next look finds it again
		o.tell()
	}
}

// claim makes this member the owner of a partition if last is still its record.
func (o *ownership) claim(ctx, work context.Context, last ownerRecord) {
	next := last
	next.Epoch, next.Member, next.Instance = last.Epoch+1, o.member, o.conn.cfg.Grant.Instance
	ctx, cancel := context.WithTimeout(ctx, recordTimeout)
	defer cancel()
	if err := o.replace(ctx, &next); err != nil {
		o.look()
		return
	}
	l := newLease(o, work, next)
	o.mu.Lock()
	o.leases[next.Partition] = l
	o.mu.Unlock()
	o.running.Go(func() {
		o.work(l)
		l.end()
		o.mu.Lock()
		delete(o.leases, next.Partition)
		o.mu.Unlock()
		o.look()
	})
}

// replace stores rec in place of the record with sequence rec.seq and sets that to its own.
func (o *ownership) replace(ctx context.Context, rec *ownerRecord) error {
	data, err := json.Marshal(rec.Owner)
	if err != nil {
		return fmt.Errorf("encode the record of an owner: %w", err)
	}
	subject := wire.OwnerSubject(o.conn.cfg.Grant.Service, o.src.Stream, rec.Partition)
	msg := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{
		jetstream.ExpectedLastSubjSeqHeader: {fmt.Sprint(rec.seq)},
	}}
	for attempt := 0; ; attempt++ {
		ack, err := o.conn.publishOnce(ctx, msg, nil)
		switch {
		case err == nil:
			rec.seq = ack.Sequence
			return nil
		case fault.Code(err) == CodeWrongSequence && attempt > 0:
			// Perhaps it was stored by the first try, whose answer was lost.
			have, ok, readErr := o.record(ctx, rec.Partition)
			if readErr == nil && ok && have.Epoch == rec.Epoch && have.Member == rec.Member && have.Done == rec.Done && bytes.Equal(have.State, rec.State) &&
				reflect.DeepEqual(have.GivenUp, rec.GivenUp) {
				rec.seq = have.seq
				return nil
			}
			return errLost
		case fault.Code(err) == CodeWrongSequence:
			return errLost
		case !sleep(ctx, retryDelay(attempt)):
			return ended(ctx, subject, err)
		}
	}
}

// record reads the record of one partition.
func (o *ownership) record(ctx context.Context, p int) (ownerRecord, bool, error) {
	msgs, err := o.conn.lastMessages(ctx, wire.OwnerStream, wire.OwnerSubject(o.conn.cfg.Grant.Service, o.src.Stream, p))
	if err != nil || len(msgs) == 0 {
		return ownerRecord{}, false, err
	}
	rec, ok := ownerOf(msgs[0])
	return rec, ok, nil
}

func (o *ownership) lease(p int) *lease {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.leases[p]
}

// loseAll gives up everything, because this member may not act any more.
func (o *ownership) loseAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.leases) > 0 {
		o.log.Warn("partitions are given up: no sign of life could be stored in time", "partitions", len(o.leases))
	}
	for _, l := range o.leases {
		l.lose()
	}
}

// commitAll records what is done, until ctx ends.
func (o *ownership) commitAll(ctx context.Context) {
	tick := time.NewTicker(commitInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		o.mu.Lock()
		all := make([]*lease, 0, len(o.leases))
		for _, l := range o.leases {
			all = append(all, l)
		}
		o.mu.Unlock()
		var group errgroup.Group
		group.SetLimit(claimsAtOnce)
		for _, l := range all {
			group.Go(func() error { l.commit(ctx); return nil })
		}
		_ = group.Wait() // what could not be recorded now is the next time
	}
}

func ownerOf(m lastMessage) (ownerRecord, bool) {
	rec := ownerRecord{seq: m.seq}
	if err := json.Unmarshal(m.data, &rec.Owner); err != nil || rec.Epoch == 0 {
		return ownerRecord{}, false // a member's sign
	}
	return rec, true
}
