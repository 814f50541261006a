package deploy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/deploy/protocol"
)

// session is the one ssh session with a host.
type session struct {
	d     *deployment
	host  *Host
	leads bool

	once    sync.Once
	looked  chan struct{} // closed once plan and checked are final
	plan    HostPlan
	checked bool

	conn   *protocol.Conn
	result Result
	err    error
}

func (s *session) endLook() { s.once.Do(func() { close(s.looked) }) }

func (s *session) serve(ctx context.Context) (err error) {
	s.plan.Host, s.result.Host = s.host.Name, s.host.Name
	defer func() {
		if err != nil && !errors.Is(err, errNotApproved) {
			s.d.tell(Event{Host: s.host.Name, What: "failed", Error: err.Error()})
		}
	}()
	client, err := s.d.transport.connect(ctx, s.host.Target)
	if err != nil {
		return named(s.host.Name, err)
	}
	var alive sync.WaitGroup
	watched, stop := context.WithCancel(ctx)
	broken := make(chan struct{})
	alive.Go(func() { s.watch(watched, client, broken) })
	defer func() {
		stop()
		_ = client.Close() // what was to be said is said, or the link is broken
		alive.Wait()
	}()
	err = s.talk(ctx, client)
	select {
	case <-broken:
		return s.lost(err)
	default:
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return named(s.host.Name, err)
}

// named puts the host's name before what went wrong there.
func named(host string, err error) error {
	if err == nil || errors.Is(err, errNotApproved) {
		return err
	}
	var all []error
	for _, one := range fault.Flatten(err) {
		f, ok := fault.As(one)
		if !ok {
			all = append(all, fmt.Errorf("%s: %w", host, one))
			continue
		}
		told := *f
		told.What = host + ": " + f.What
		all = append(all, &told)
	}
	return errors.Join(all...)
}

func (s *session) lost(err error) error {
	f := &fault.Error{Code: "deploy/link-lost", What: s.host.Name + ": the link broke", Err: err, Fix: "see whether the host is up, then deploy again: it goes on where it was"}
	if s.checked && s.d.goes {
		f.What += " while the host was being changed; its agent finishes by itself"
	}
	return f
}

// deadAfter is how long a host may be silent on the level of ssh, as long as a lease.
const deadAfter = protocol.Lease

// watch asks sshd now and then whether it is there, and hangs up when it is not, or when ctx ends.
func (s *session) watch(ctx context.Context, client *ssh.Client, broken chan<- struct{}) {
	ticker := time.NewTicker(protocol.Beat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = client.Close() // wakes up whoever reads
			return
		case <-ticker.C:
		}
		late := time.AfterFunc(deadAfter, func() { _ = client.Close() })
		_, _, err := client.SendRequest("keepalive@openssh.com", true, nil)
		late.Stop()
		if err != nil && ctx.Err() == nil {
			close(broken)
			_ = client.Close()
			return
		}
	}
}

func (s *session) talk(ctx context.Context, client *ssh.Client) error {
	remote, err := client.NewSession()
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	defer func() { _ = remote.Close() }() // it has ended, or is being given up
	pipe, err := remote.StdinPipe()
	if err != nil {
		return err
	}
	in := &counter{w: pipe}
	stdout, err := remote.StdoutPipe()
	if err != nil {
		return err
	}
	sudo := client.User() != "root" && !s.host.Target.NoSudo
	command, word := s.d.shim(sudo, s.d.cfg.SudoPassword != "")
	complaint := &prompter{prompt: word + ":", answer: s.d.cfg.SudoPassword, in: in, wrong: func() { _ = remote.Close() }}
	remote.Stderr = complaint
	if err := remote.Start(command); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	out := bufio.NewReader(stdout)
	if err := s.d.greet(word, in, out); err != nil {
		s.heardOut(remote)
		return complaint.explain(err, sudo)
	}
	if s.conn, err = protocol.NewConn(out, in); err != nil {
		return err
	}
	if err := s.hello(); err != nil {
		s.heardOut(remote)
		return complaint.explain(err, sudo)
	}
	s.d.tell(Event{Host: s.host.Name, What: "connected"})
	err = s.work(ctx)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = &fault.Error{Code: "deploy/agent-died", What: "the agent ended in the middle: " + complaint.text.String(), Fix: "deploy again: it goes on where it was"}
	}
	if err == nil {
		s.d.tell(Event{Host: s.host.Name, What: "done", SentBytes: int(in.n.Load())})
	}
	return err
}

// heardOut waits until all that the host had to say has come, because its two streams end in any order.
func (s *session) heardOut(remote *ssh.Session) {
	late := time.AfterFunc(lastWords, func() { _ = remote.Close() })
	defer late.Stop()
	_ = remote.Wait() // how it ended says less than what it wrote
}

// lastWords bounds the wait for what a host that has failed still says.
const lastWords = 3 * time.Second

func (s *session) hello() error {
	kind, data, err := s.conn.Read()
	if err != nil {
		return err
	}
	var hello protocol.Hello
	if kind != protocol.KindHello {
		return fmt.Errorf("the agent began with frame %c", kind)
	}
	if err := json.Unmarshal(data, &hello); err != nil {
		return fmt.Errorf("read the agent's hello: %w", err)
	}
	if hello.Version != protocol.Version {
		return &fault.Error{Code: "deploy/version", What: fmt.Sprintf("the agent speaks version %d, not %d", hello.Version, protocol.Version), Fix: "put the same version of hozo beside this one"}
	}
	return nil
}

// work goes through plan, decision and changes.
func (s *session) work(ctx context.Context) error {
	if !s.leads && !s.d.cfg.Plan {
		select {
		case <-s.d.leader:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	plan := protocol.Plan{Run: s.d.run, Project: s.d.cfg.Project, Env: s.d.cfg.Env, By: s.d.cfg.By, Deploy: !s.d.cfg.Plan, Resources: s.host.Resources}
	if err := s.conn.Send(protocol.KindPlan, plan); err != nil {
		return err
	}
	if err := s.look(); err != nil {
		return err
	}
	s.d.tell(Event{Host: s.host.Name, What: "planned"})
	if s.d.cfg.Plan {
		return s.frames(unexpected)
	}
	if err := s.await(ctx); err != nil {
		return err
	}
	if !s.d.goes {
		return errNotApproved // hanging up tells the agent
	}
	if err := s.conn.Send(protocol.KindGo, protocol.Go{Digest: s.plan.Digest}); err != nil {
		return err
	}
	return s.frames(func(kind protocol.Kind, data []byte) (bool, error) {
		if kind != protocol.KindEvent {
			return unexpected(kind, data)
		}
		var e protocol.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return false, fmt.Errorf("read event: %w", err)
		}
		s.d.tell(Event{Host: s.host.Name, What: "event", Event: &e})
		return false, nil
	})
}

// look sends what the host lacks and gathers what differs.
func (s *session) look() error {
	err := s.frames(func(kind protocol.Kind, data []byte) (bool, error) {
		switch kind {
		case protocol.KindWant:
			return false, s.supply(data)
		case protocol.KindPlanned:
			var p protocol.Planned
			if err := json.Unmarshal(data, &p); err != nil {
				return false, fmt.Errorf("read change: %w", err)
			}
			s.plan.Changes = append(s.plan.Changes, p)
			return false, nil
		case protocol.KindChecked:
			var c protocol.Checked
			if err := json.Unmarshal(data, &c); err != nil {
				return false, fmt.Errorf("read plan: %w", err)
			}
			s.plan.Unchanged, s.plan.Digest = c.Unchanged, c.Digest
			s.plan.Handlers = c.Pending
			for _, id := range c.Notifies {
				if !slices.Contains(s.plan.Handlers, id) {
					s.plan.Handlers = append(s.plan.Handlers, id)
				}
			}
			s.checked = true
			s.endLook()
			return true, nil
		}
		return unexpected(kind, data)
	})
	if err == nil && !s.checked {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func (s *session) supply(data []byte) error {
	var want protocol.Want
	if err := json.Unmarshal(data, &want); err != nil {
		return fmt.Errorf("read what the host lacks: %w", err)
	}
	for _, digest := range want.Digests {
		content, ok := s.host.Blobs[digest]
		if !ok {
			return fmt.Errorf("the host asks for content that it was not promised")
		}
		if err := s.conn.SendBlob(digest, content); err != nil {
			return err
		}
	}
	return nil
}

func unexpected(kind protocol.Kind, _ []byte) (bool, error) {
	return false, fmt.Errorf("the agent sent frame %c, which is not its turn", kind)
}

// await keeps the lease alive until the decision.
func (s *session) await(ctx context.Context) error {
	ticker := time.NewTicker(protocol.Beat)
	defer ticker.Stop()
	for {
		select {
		case <-s.d.decided:
			return nil
		case <-ticker.C:
			if err := s.conn.Send(protocol.KindAlive, struct{}{}); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// frames reads until the agent's last word, or until each has had enough.
func (s *session) frames(each func(protocol.Kind, []byte) (enough bool, err error)) error {
	for {
		kind, data, err := s.conn.Read()
		if err != nil {
			return err
		}
		if s.leads {
			s.d.lead() // it answers, so the lease is ours
		}
		if kind == protocol.KindDone {
			var done protocol.Done
			if err := json.Unmarshal(data, &done); err != nil {
				return fmt.Errorf("read the agent's end: %w", err)
			}
			s.result.Changed, s.result.Handled = done.Changed, done.Handled
			return done.Err()
		}
		if enough, err := each(kind, data); enough || err != nil {
			return err
		}
	}
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n atomic.Int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}
