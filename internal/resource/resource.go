// Package resource is the things of a host that a manifest may ask for: files, users, packages and so on. Each kind is
// one type in one file.
//
// A kind has one way to look at the host, Check, and what it returns is a [Change]: what is to be done, in words and as
// functions. A plan prints the words and a deploy calls the functions, so the two cannot differ. After the functions have
// run, Check returns no change.
package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/hozo-dev/hozo/fault"
)

// Spec is one resource as it is sent to a host: everything is said, nothing is left to be filled in there.
type Spec struct {
	Kind   string         `json:"kind"`
	Name   string         `json:"name"`
	With   map[string]any `json:"with,omitempty"`
	Notify []string       `json:"notify,omitempty"` // ids of units and commands that are told when this one has changed
	Secret bool           `json:"secret,omitempty"` // its content is never shown
	Place  string         `json:"place,omitempty"`  // where it stands in the manifest, for messages
}

// ID names a resource of a host: "file /etc/hosts".
func (s Spec) ID() string {
	if in, ok := s.With["in"].(string); ok {
		return s.Kind + " " + s.Name + " in " + in
	}
	return s.Kind + " " + s.Name
}

// Resource is one thing of a host. It is made by [New] and used by one goroutine.
type Resource interface {
	// Check compares the host with what is wanted and changes nothing. The zero Change means that nothing is missing.
	Check(ctx context.Context, h *Host) (Change, error)
}

// Notified is a resource that does something when another has changed.
type Notified interface {
	// Handle does it.
	Handle(ctx context.Context, h *Host) error
	// Handling says what Handle does: "restart".
	Handling() string
}

// Blobs is a resource with content that is sent only if the host has it not.
type Blobs interface {
	// Wants returns the digest of the content that Check will ask the host for, or "".
	Wants(h *Host) string
}

// Op is what happens to a thing.
type Op string

// What happens.
const (
	Create Op = "create"
	Update Op = "update"
	Remove Op = "remove"
	Run    Op = "run"
)

// Change is what is missing between a host and a resource, in words and as the steps that do it.
type Change struct {
	Op    Op       `json:"op,omitempty"`    // empty: nothing is missing
	Notes []string `json:"notes,omitempty"` // "mode 0644 -> 0600"
	Diff  string   `json:"diff,omitempty"`  // unified; empty where there is no text to compare

	steps []func(ctx context.Context) error
}

// Empty reports whether nothing is missing.
func (c *Change) Empty() bool { return c.Op == "" }

// Apply does it. After an error a part may be done; Check says which.
func (c *Change) Apply(ctx context.Context) error {
	for _, step := range c.steps {
		if step == nil {
			return fmt.Errorf("resource: internal error: an announced step was applied")
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// do adds a step, and notes what it is. A nil step is one that a plan can only announce: what it depends on is not there.
func (c *Change) do(op Op, note string, step func(ctx context.Context) error) {
	if c.Op == "" {
		c.Op = op
	}
	if note != "" {
		c.Notes = append(c.Notes, note)
	}
	c.steps = append(c.steps, step)
}

// New makes the resource of a spec. Its error says which word is wrong.
func New(s Spec) (Resource, error) {
	at := slices.IndexFunc(Kinds(), func(k Kind) bool { return k.Name == s.Kind })
	if at < 0 {
		return nil, &fault.Error{Code: "resource/unknown-kind", What: fmt.Sprintf("this version knows no resource %q", s.Kind), Where: s.Place, Fix: "use the same version of hozo here and there"}
	}
	r := Kinds()[at].make(s)
	data, err := json.Marshal(s.With)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", s.ID(), err)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		return nil, &fault.Error{Code: "resource/bad-spec", What: s.ID() + " cannot be read", Where: s.Place, Fix: "use the same version of hozo here and there", Err: err}
	}
	if v, ok := r.(interface{ valid() error }); ok {
		if err := v.valid(); err != nil {
			return nil, &fault.Error{Code: "resource/invalid", Kind: fault.Misuse, What: s.ID() + ": " + err.Error(), Where: s.Place, Fix: "correct it: see docs/DEPLOY.md"}
		}
	}
	return r, nil
}

// failed makes the fault of a resource that could not be brought to what is wanted.
func failed(id, what, fix string, err error) error {
	return &fault.Error{Code: "resource/failed", What: id + ": " + what, Fix: fix, Err: err}
}

// lines splits a text into its lines, without the last line's end.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}
