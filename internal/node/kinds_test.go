package node_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/bus"
	"github.com/hozo-dev/hozo/internal/node"
	"github.com/hozo-dev/hozo/internal/status"
	"github.com/hozo-dev/hozo/internal/testkit"
	"github.com/hozo-dev/hozo/wire"
)

// kindsManifest has a stream of every kind, and a reader of each.
const kindsManifest = `project: test
streams:
  plain: { max_bytes: 64MiB }
  keyed: { max_bytes: 64MiB, key: k, partitions: 4 }
  bare: { max_bytes: 64MiB, frames: false }
  power: { max_bytes: 64MiB, durability: power }
  copies: { max_bytes: 64MiB, key: k, partitions: 4 }
  bare-copies: { max_bytes: 64MiB, frames: false }
services:
  feeder: { run: "%[1]s idle", publishes: [plain.>, keyed.>, bare.>, power.>] }
  r-plain: { run: "%[1]s tiny plain", health: notify, consumes: [plain] }
  r-keyed: { run: "%[1]s tiny keyed", health: notify, consumes: [{ subject: keyed, ordered: true }] }
  r-bare: { run: "%[1]s tiny bare", health: notify, consumes: [bare] }
  r-power: { run: "%[1]s tiny power", health: notify, consumes: [power] }
`

// What operates messages works on every kind of stream: a tap below the stream, dead letters that are listed, sent back and
// dropped, and a replay into a service and into streams of other kinds.
func TestEveryKindOfStreamIsOperatedAlike(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := upWith(t, testkit.TempDir(t), self, fmt.Sprintf(kindsManifest, self))
	for _, kind := range []string{"plain", "keyed", "bare", "power"} {
		t.Run(kind, func(t *testing.T) {
			ctx := testkit.Context(t)
			var tapped []string
			err := p.client.Tap(ctx, node.Tap{Subject: kind + ".eu"}, func(one node.Tapped) bool {
				if one.Ready {
					p.feedTo(t, kind+".us", `{"k":"a","n":0}`)
					p.feedTo(t, kind+".eu", `{"k":"a","n":1}`, "bad", `{"k":"b","n":2}`)
					return true
				}
				tapped = append(tapped, one.Subject+" "+string(one.Data))
				return len(tapped) < 3
			})
			want := []string{kind + `.eu {"k":"a","n":1}`, kind + `.eu "bad"`, kind + `.eu {"k":"b","n":2}`}
			if slices.Sort(tapped); err != nil || !slices.Equal(tapped, sorted(want)) {
				t.Errorf("tapped %q, %v", tapped, err)
			}

			reader := "r-" + kind
			letters := func() (all []node.DeadLetter) {
				testkit.Eventually(t, func() bool {
					all, err = p.client.DeadLetters(ctx, node.Filter{Service: reader}, 0, 0)
					return err == nil && len(all) == 1
				}, "one parked event")
				return all
			}
			first := letters()[0]
			if first.Subject != kind+".eu" || first.Code != "tiny/bad" || !strings.HasPrefix(first.Event, kind+":") {
				t.Errorf("parked is %+v", first)
			}
			if one, err := p.client.DeadLetter(ctx, first.Seq); err != nil || string(one.Data) != "bad" {
				t.Errorf("the letter holds %q, %v", one.Data, err)
			}
			if done, err := p.client.RetryDead(ctx, node.Selection{Seqs: []uint64{first.Seq}}, nil); err != nil || done.Count != 1 {
				t.Fatalf("sent back %+v, %v", done, err)
			}
			p.await(t, "it has failed again", func(s status.Snapshot) bool { return service(s, reader).Traffic.Parked == 2 })
			if again := letters()[0]; again.Event != first.Event || again.Seq == first.Seq {
				t.Errorf("parked again is %+v, was %+v", again, first)
			}
			if done, err := p.client.DropDead(ctx, node.Selection{Filter: node.Filter{Service: reader}}, nil); err != nil || done.Count != 1 {
				t.Errorf("dropped %+v, %v", done, err)
			}

			if done, err := p.client.Replay(ctx, node.Replay{ID: "to-" + reader, Stream: kind, To: reader}, false, nil); err != nil || done.Sent != 4 {
				t.Errorf("replayed %+v, %v", done, err)
			}
			if replayed := letters()[0]; replayed.Event != first.Event {
				t.Errorf("parked from the replay is %+v, was %+v", replayed, first)
			}
			for _, into := range []string{"copies", "bare-copies"} {
				before := p.have(t, into)
				if done, err := p.client.Replay(ctx, node.Replay{ID: kind + "-" + into, Stream: kind, To: into + ".from." + kind}, false, nil); err != nil || done.Sent != 4 {
					t.Errorf("replayed into %s: %+v, %v", into, done, err)
				}
				var copies []string
				for _, one := range p.have(t, into)[len(before):] {
					subject, partition, _ := wire.SplitSubject(into, one.subject)
					if into == "copies" && partition < 0 || subject != into+".from."+kind {
						t.Errorf("a copy is on %s", one.subject)
					}
					copies = append(copies, one.events...)
				}
				if want := []string{`bad`, `{"k":"a","n":0}`, `{"k":"a","n":1}`, `{"k":"b","n":2}`}; !slices.Equal(sorted(copies), want) {
					t.Errorf("%s has got %q", into, copies)
				}
			}
		})
	}
}

func sorted(all []string) []string { return slices.Sorted(slices.Values(all)) }

type storedMessage struct {
	subject string
	events  []string
}

// have reads a whole stream.
func (p *project) have(t *testing.T, stream string) []storedMessage {
	t.Helper()
	ctx := testkit.Context(t)
	s, err := p.admin(t).Stream(ctx, wire.StreamName(stream))
	if err != nil {
		t.Fatal(err)
	}
	var all []storedMessage
	for seq := uint64(1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		msg, err := s.GetMsg(ctx, seq)
		if err != nil {
			t.Fatal(err)
		}
		f, err := bus.OpenData(stream, msg.Subject, msg.Header, msg.Data)
		if err != nil {
			t.Fatal(err)
		}
		one := storedMessage{subject: msg.Subject}
		events, err := f.Events()
		if err != nil {
			t.Fatal(err)
		}
		for _, data := range events {
			one.events = append(one.events, string(data))
		}
		all = append(all, one)
	}
	return all
}

// A replay ends where it is told to, by time, and is no faster than it is told to be, in bytes.
func TestReplayKeepsItsBounds(t *testing.T) {
	t.Parallel()
	p := up(t, manifestServices, 1)
	ctx := testkit.Context(t)
	events := func(name string) (all []string) {
		for i := range 10 {
			all = append(all, fmt.Sprintf("%s %d", name, i))
		}
		return all
	}
	p.feed(t, events("early")...)
	stream, err := p.admin(t).Stream(ctx, "events_raw")
	if err != nil {
		t.Fatal(err)
	}
	last, err := stream.GetMsg(ctx, stream.CachedInfo().State.LastSeq)
	if err != nil {
		t.Fatal(err)
	}
	middle := last.Time.Add(time.Nanosecond)
	p.feed(t, events("late")...)
	for name, c := range map[string]struct {
		r    node.Replay
		want uint64
	}{
		"until a time":   {node.Replay{UntilTime: middle}, 10},
		"from a time":    {node.Replay{FromTime: middle}, 10},
		"between times":  {node.Replay{FromTime: middle, UntilTime: middle}, 0},
		"until a number": {node.Replay{UntilSeq: last.Sequence}, 10},
		"everything":     {node.Replay{}, 20},
	} {
		c.r.ID, c.r.Stream, c.r.To, c.r.DryRun = "bounds", "events.raw", "worker", true
		if done, err := p.client.Replay(ctx, c.r, false, nil); err != nil || !done.Done || done.Sent != c.want {
			t.Errorf("%s: %+v, %v; want %d events", name, done, err, c.want)
		}
	}
	all, err := p.client.Replay(ctx, node.Replay{ID: "size", Stream: "events.raw", To: "worker", DryRun: true}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	done, err := p.client.Replay(ctx, node.Replay{ID: "slow", Stream: "events.raw", To: "worker", Bytes: float64(all.Size)}, false, nil)
	// What is due is all but the last frame, of 20: a second's worth but for a twentieth.
	if took := time.Since(began); err != nil || done.Sent != 20 || took < 900*time.Millisecond {
		t.Errorf("replayed %+v, %v in %v, at the rate of all of it a second", done, err, took)
	}
}
