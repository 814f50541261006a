// Package deploy brings hosts to what a manifest says, over ssh. A host needs sshd and a POSIX shell, nothing else: a
// copy of this very program is its agent, sent there once and started again by every later deploy.
//
// There is one ssh session a host, whatever is to be done. All hosts are looked at before anything is changed on any of
// them, and nothing is changed on any if one of them cannot be deployed to.
package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/hozo-dev/hozo/internal/deploy/protocol"
	"github.com/hozo-dev/hozo/internal/resource"
)

// DialFunc connects, as [net.Dialer.DialContext] does.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Host is a host and what is wanted of it.
type Host struct {
	Name      string
	Target    Target
	Resources []resource.Spec
	Blobs     map[string][]byte // content that resources name by digest
}

// Config is one deploy, or with Plan one look.
type Config struct {
	Project, Env string
	Hosts        []Host
	By           string // who deploys, for the journal of each host
	Plan         bool   // only look

	// Approve is asked once, when every host has been looked at and before anything is changed. nil approves.
	Approve func([]HostPlan) (bool, error)
	// Event is told what is done; calls come one at a time. nil tells nobody.
	Event func(Event)

	SudoPassword string // empty: sudo must not ask
	Self         string // the binary that is the agent; empty: this program
	Home         string // folder with .ssh; empty: the user's
	Getenv       func(string) string
	Dial         DialFunc
}

func (c Config) withDefaults() (Config, error) {
	if c.Self == "" {
		self, err := os.Executable()
		if err != nil {
			return c, fmt.Errorf("find own executable: %w", err)
		}
		c.Self = self
	}
	if c.Home == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return c, fmt.Errorf("find your home: %w", err)
		}
		c.Home = home
	}
	if c.Getenv == nil {
		c.Getenv = os.Getenv
	}
	if c.Dial == nil {
		var d net.Dialer
		c.Dial = d.DialContext
	}
	if c.Event == nil {
		c.Event = func(Event) {}
	}
	return c, nil
}

// HostPlan is what differs on a host.
type HostPlan struct {
	Host      string             `json:"host"`
	Changes   []protocol.Planned `json:"changes"`
	Unchanged int                `json:"unchanged"`
	Handlers  []string           `json:"handlers,omitempty"` // what will be notified, and what an earlier run owes
	Digest    string             `json:"digest"`
}

// Pending reports whether a deploy would do something.
func (p HostPlan) Pending() bool { return len(p.Changes) > 0 || len(p.Handlers) > 0 }

// Event is something that happens on a host.
type Event struct {
	Time time.Time `json:"time"`
	Host string    `json:"host"`
	What string    `json:"what"` // connected, planned, event, done, failed
	*protocol.Event
	SentBytes int    `json:"sent_bytes,omitempty"` // done: over the session, agent included
	Error     string `json:"error,omitempty"`
}

// Result is how a deploy ended on a host.
type Result struct {
	Host    string `json:"host"`
	Changed int    `json:"changed"`
	Handled int    `json:"handled"`
}

// deployment is a Run at work.
type deployment struct {
	cfg       Config
	run       string
	self      string
	binaries  map[string]*binary
	transport *transport

	leader  chan struct{} // closed when the first host is ours
	decided chan struct{} // closed when all were looked at and somebody said yes or no
	goes    bool          // set before decided is closed

	mu sync.Mutex // one event at a time
}

// Run looks at all hosts at once and then, if that is approved, changes them all at once. The plans are in the order of
// cfg.Hosts; the results are those of a deploy that was approved. The error joins a fault for each host that failed; a
// host that fails while it is changed stops no other.
func Run(ctx context.Context, cfg Config) ([]HostPlan, []Result, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, nil, err
	}
	found, err := binaries(cfg.Self)
	if err != nil {
		return nil, nil, err
	}
	d := &deployment{
		cfg: cfg, run: newRun(), self: cfg.Self, binaries: found, transport: &transport{cfg: cfg, jumps: map[string]*jump{}},
		leader: make(chan struct{}), decided: make(chan struct{}),
	}
	defer d.transport.close()
	return d.all(ctx)
}

// newRun names a run: the time for people, and the process so that two at the same time differ.
func newRun() string {
	return fmt.Sprintf("%s-%d", time.Now().UTC().Format("20060102T150405.000"), os.Getpid())
}

func (d *deployment) all(ctx context.Context) ([]HostPlan, []Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hosts := make([]*session, len(d.cfg.Hosts))
	for i := range d.cfg.Hosts {
		hosts[i] = &session{d: d, host: &d.cfg.Hosts[i], looked: make(chan struct{})}
	}
	// All deployers take the hosts in the same order, so of two at the same time one gets the first and all others.
	first := slices.MinFunc(hosts, func(a, b *session) int { return cmp.Compare(a.host.Name, b.host.Name) })
	first.leads = true
	var running sync.WaitGroup
	for _, s := range hosts {
		running.Go(func() {
			s.err = s.serve(ctx)
			s.endLook()
			if s.leads {
				d.lead()
			}
		})
	}
	plans := make([]HostPlan, len(hosts))
	all := true
	for i, s := range hosts {
		<-s.looked
		plans[i] = s.plan
		all = all && s.checked
	}
	var refused error
	if all && !d.cfg.Plan {
		d.goes, refused = d.approved(plans)
	}
	close(d.decided)
	running.Wait()
	var errs []error
	var results []Result
	for _, s := range hosts {
		if s.err != nil && !errors.Is(s.err, errNotApproved) {
			errs = append(errs, s.err)
		}
		results = append(results, s.result)
	}
	if !d.goes {
		results = nil
	}
	return plans, results, errors.Join(append([]error{refused}, errs...)...)
}

var errNotApproved = errors.New("not approved")

func (d *deployment) approved(plans []HostPlan) (bool, error) {
	if d.cfg.Approve == nil {
		return true, nil
	}
	yes, err := d.cfg.Approve(plans)
	return yes && err == nil, err
}

// lead tells the other sessions that the first host is ours, or lost.
func (d *deployment) lead() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.leader:
	default:
		close(d.leader)
	}
}

func (d *deployment) tell(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e.Time = time.Now().UTC()
	d.cfg.Event(e)
}
