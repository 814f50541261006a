package bus

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/hozo-dev/hozo/fault"
	"github.com/nats-io/nats.go"
)

// undeclared is the fault of using a subject that no line of the manifest gives to this service.
func (c *Conn) undeclared(code, verb, key, subject string) error {
	g := c.cfg.Grant
	return &fault.Error{
		Code: code, Where: subject, Fix: g.Fix(key, subject),
		What: fmt.Sprintf("service %q may not %s %q: it is not under its %s", g.Service, verb, subject, key),
	}
}

// mostDenials bounds what is remembered: a program has far fewer subjects that it believes to be its own.
const mostDenials = 1024

// denials remembers what the broker has refused on this connection, for those who wait for an answer: it never answers
// what it does not let through. The rights of a connection do not change, so a refusal holds until it is made anew.
type denials struct {
	mu      sync.Mutex
	refused map[string]error // by subject
	more    chan struct{}    // closed and replaced when there is one more
	asking  map[*asker]struct{}
}

// asker is a call whose context ends with the refusal of its subject.
type asker struct {
	subject string
	end     context.CancelCauseFunc
}

// of returns why a subject is refused, or nil, behind a channel that is closed when something more is.
func (d *denials) of(subject string) (<-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.more == nil {
		d.more = make(chan struct{})
	}
	return d.more, d.refused[subject]
}

func (d *denials) add(subject string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused == nil {
		d.refused = map[string]error{}
	}
	if len(d.refused) < mostDenials {
		d.refused[subject] = err
	}
	for a := range d.asking {
		if a.subject == subject {
			a.end(err)
		}
	}
	if d.more != nil {
		close(d.more)
		d.more = nil
	}
}

func (d *denials) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.refused)
}

// refusal is how nats-server words it: Permissions Violation for Publish to "subject".
var refusal = regexp.MustCompile(`(?i)permissions violation for (publish|subscription) to "([^"]+)"`)

// denied makes a fault of the broker's refusal, or returns false when err is something else.
func (c *Conn) denied(err error) (subject string, denied error, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", nil, false
	}
	found := refusal.FindStringSubmatch(err.Error())
	if found == nil {
		return "", nil, false
	}
	verb := "publish"
	if !strings.EqualFold(found[1], "publish") {
		verb = "subscribe to"
	}
	service := c.cfg.Grant.Service
	return found[2], &fault.Error{
		Code: CodeDenied, Where: found[2], Err: err,
		What: fmt.Sprintf("the broker does not let service %q %s %q", service, verb, found[2]),
		Fix:  fmt.Sprintf("hozo access explain %s '%s' names the rule and the line to write; a service that was granted less meanwhile is to be restarted", service, found[2]),
	}, true
}

// untilDenied returns a context that also ends when the broker refuses subject, with the refusal as its cause.
func (d *denials) untilDenied(ctx context.Context, subject string) (context.Context, func()) {
	ctx, end := context.WithCancelCause(ctx)
	a := &asker{subject, end}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.refused[subject]; err != nil {
		end(err)
	}
	if d.asking == nil {
		d.asking = map[*asker]struct{}{}
	}
	d.asking[a] = struct{}{}
	return ctx, func() {
		d.mu.Lock()
		delete(d.asking, a)
		d.mu.Unlock()
		end(nil)
	}
}
