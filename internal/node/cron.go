package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/hozo-dev/hozo/internal/cron"
	"github.com/hozo-dev/hozo/internal/manifest"
	"github.com/hozo-dev/hozo/internal/plan"
	"github.com/hozo-dev/hozo/internal/schedule"
	"github.com/hozo-dev/hozo/wire"
)

// CronStatus is what there is to say of a cron.
type CronStatus struct {
	Name    string    `json:"name"`
	Kind    string    `json:"kind"`
	Queue   string    `json:"queue"`
	When    string    `json:"when"` // as in the manifest
	Overlap string    `json:"overlap"`
	CatchUp string    `json:"catch_up"`
	Next    time.Time `json:"next,omitzero"`
	Last    time.Time `json:"last,omitzero"`    // tick of its last task
	Task    string    `json:"task,omitempty"`   // id of that
	Busy    bool      `json:"busy,omitempty"`   // that has not ended
	Waits   time.Time `json:"waits,omitzero"`   // tick that waits for it to end
	Count   uint64    `json:"count"`            // tasks enqueued
	Skipped uint64    `json:"skipped"`          // ticks that were none because of overlap
	Paused  bool      `json:"paused,omitempty"` // its queue is: tasks are enqueued and not begun
}

// cronEntries are the crons of m.
func cronEntries(m *manifest.Manifest) ([]cron.Entry, error) {
	priorities := map[string]int{"high": wire.TaskPriority1, "normal": wire.TaskPriority1 + 1, "low": wire.TaskPriority3}
	entries := make([]cron.Entry, 0, len(m.Crons))
	for _, c := range m.Crons {
		ticks, err := cronTicks(c)
		if err != nil {
			return nil, fmt.Errorf("cron %s: %w", c.Name, err) // the manifest was checked: a zone has gone since
		}
		rule := sha256.Sum256([]byte(whenOf(c)))
		entries = append(entries, cron.Entry{
			Name: c.Name, Queue: queueOf(m, c.Task).Name, Kind: c.Task, Args: []byte(c.Args), Priority: priorities[c.Priority],
			Ticks: ticks, Overlap: c.Overlap, CatchUp: c.CatchUp, Rule: hex.EncodeToString(rule[:8]), // 64 bits tell the rules of one cron apart
		})
	}
	return entries, nil
}

func cronTicks(c manifest.Cron) (schedule.Schedule, error) {
	if c.Every > 0 {
		return schedule.Every(c.Every)
	}
	zone := time.Local
	if c.Zone != "" {
		var err error
		if zone, err = time.LoadLocation(c.Zone); err != nil {
			return schedule.Schedule{}, err
		}
	}
	return schedule.Cron(c.At, zone)
}

// whenOf is when a cron is due, in words.
func whenOf(c manifest.Cron) string {
	switch {
	case c.Every > 0:
		return "every " + c.Every.String()
	case c.Zone != "":
		return c.At + " " + c.Zone
	}
	return c.At
}

// tendCrons enqueues tasks by the clock until ctx ends.
func (n *Node) tendCrons(ctx context.Context) error { return n.crons.Run(ctx) }

// setCrons has the crons of m run from now on. What has come of others is forgotten when the broker can be told.
func (n *Node) setCrons(ctx context.Context, m *manifest.Manifest) error {
	entries, err := cronEntries(m)
	if err != nil {
		return err
	}
	n.crons.Set(entries)
	if !n.nats.IsConnected() {
		return nil
	}
	var queues []string
	for _, q := range handledQueues(m) {
		queues = append(queues, q.Name)
	}
	return n.crons.Clean(ctx, queues)
}

// cronList says how the crons do, by name.
func (n *Node) cronList(ctx context.Context) ([]CronStatus, error) {
	m := n.current()
	if m == nil {
		return nil, errNoManifest
	}
	ctx, cancel := context.WithTimeout(ctx, deadPatience)
	defer cancel()
	all, err := n.crons.List(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]CronStatus, 0, len(all))
	for _, s := range all {
		one := CronStatus{
			Name: s.Name, Kind: s.Kind, Queue: s.Queue, Overlap: s.Overlap, CatchUp: s.CatchUp, Next: s.Next,
			Last: s.Fired, Task: s.State.Task, Busy: s.Busy, Waits: s.Queued, Count: s.Count, Skipped: s.Skipped,
			Paused: n.pauses.paused(queueOf(m, s.Kind)),
		}
		if i := slices.IndexFunc(m.Crons, func(c manifest.Cron) bool { return c.Name == s.Name }); i >= 0 {
			one.When = whenOf(m.Crons[i])
		}
		list = append(list, one)
	}
	return list, nil
}

// cronSteps says what changes in crons.
func cronSteps(before, after *manifest.Manifest) []plan.Step {
	if before == nil {
		return nil
	}
	return listSteps("cron ", before.Crons, after.Crons, func(c manifest.Cron) string { return c.Name },
		plan.Step{Op: plan.OpStop, Reason: "not in the manifest any more"})
}
