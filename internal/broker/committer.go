package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/hozo-dev/hozo/wire"
)

const (
	// mostWaiting bounds the requests of one stream that wait for a sync. A publisher waits with 32 MiB of frames at
	// most, so this is beyond what any number of instances on a host has under way.
	mostWaiting = 1 << 16

	// lookPatience is how long the committer waits for the server to tell how far a stream is.
	lookPatience = 5 * time.Second
)

// committer makes streams durable on demand: nats-server acknowledges what it has written to a file, and whoever needs
// more asks here, which syncs once for everybody who waits. Streams that nobody asks for are synced now and then.
type committer struct {
	root string // folder of the streams
	log  *slog.Logger
	nc   *nats.Conn
	js   jetstream.JetStream
	done context.CancelCauseFunc // ends run: a sync has failed

	listening chan struct{} // closed when requests are answered

	mu      sync.Mutex
	streams map[string]*commitStream
	loops   sync.WaitGroup
	ended   bool
}

// commitStream is one stream somebody has asked for.
type commitStream struct {
	name   string
	wakeup chan struct{} // capacity 1: somebody waits

	files *streamFiles // of the loop

	mu      sync.Mutex // guards what follows
	waiting []commitRequest
	synced  uint64 // everything up to it is on disk, while the blocks are in the folder that was synced
	folder  fs.FileInfo
	cost    syncCost
}

type commitRequest struct {
	msg *nats.Msg
	seq uint64
}

// streamsDir is where nats-server keeps the streams of the one account.
func streamsDir(store string) string { return filepath.Join(store, "jetstream", "$G", "streams") }

// newCommitter connects to the own server; run begins to answer.
func (b *Broker) newCommitter() (*committer, error) {
	nc, err := nats.Connect(b.URL(), nats.UserInfo(committerUser, b.gate.ownPassword), nats.MaxReconnects(-1),
		nats.ReconnectWait(50*time.Millisecond), nats.Name("hozo-broker-committer"), nats.Timeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to the own server: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("use the own server: %w", err)
	}
	return &committer{
		root: streamsDir(b.store), log: b.cfg.Logger, nc: nc, js: js, streams: map[string]*commitStream{}, listening: make(chan struct{}),
	}, nil
}

// run answers until ctx is done; listening is closed when it does. It returns an error when a sync failed, after which
// nothing more may be promised, and closes the connection.
func (c *committer) run(ctx context.Context) error {
	defer c.nc.Close()
	ctx, c.done = context.WithCancelCause(ctx)
	defer c.done(nil)
	defer c.loops.Wait()
	commits, err := c.nc.Subscribe(wire.CommitSubject+".*", func(m *nats.Msg) { c.ask(ctx, m) })
	if err != nil {
		return fmt.Errorf("listen for commits: %w", err)
	}
	costs, err := c.nc.Subscribe(wire.SyncSubject, c.tell)
	if err != nil {
		return fmt.Errorf("listen for questions about syncs: %w", err)
	}
	if err := c.nc.FlushTimeout(lookPatience); err != nil {
		return fmt.Errorf("listen for commits: %w", err)
	}
	close(c.listening)
	c.loops.Go(func() { c.background(ctx) })
	<-ctx.Done()
	_ = commits.Unsubscribe() // the connection is closed next
	_ = costs.Unsubscribe()
	c.mu.Lock()
	c.ended = true // no loop begins from here on
	c.mu.Unlock()
	if failed, ok := errors.AsType[*syncError](context.Cause(ctx)); ok {
		return failed
	}
	return nil
}

// syncError says that a disk did not take what it was given.
type syncError struct{ err error }

func (e *syncError) Error() string { return "sync to disk: " + e.err.Error() }
func (e *syncError) Unwrap() error { return e.err }

// ask takes one request. It is called by one goroutine.
func (c *committer) ask(ctx context.Context, m *nats.Msg) {
	name := strings.TrimPrefix(m.Subject, wire.CommitSubject+".")
	seq, err := strconv.ParseUint(string(m.Data), 10, 64)
	if err != nil {
		answer(m, wire.Commit{Error: fmt.Sprintf("a commit names a sequence, not %.20q", m.Data)})
		return
	}
	s := c.stream(ctx, name)
	if s == nil {
		answer(m, wire.Commit{Error: fmt.Sprintf("there is no stream %.100q on disk", name)})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case seq <= s.synced && s.sameFolderLocked():
		s.cost.commits++
		answer(m, wire.Commit{Seq: s.synced})
	case len(s.waiting) >= mostWaiting:
		answer(m, wire.Commit{Error: "too many wait for the disk"})
	default:
		s.waiting = append(s.waiting, commitRequest{m, seq})
		select {
		case s.wakeup <- struct{}{}:
		default:
		}
	}
}

func answer(m *nats.Msg, a wire.Commit) {
	data, err := json.Marshal(a)
	if err != nil {
		panic(fmt.Sprintf("broker: internal error: an answer cannot be encoded: %v", err))
	}
	_ = m.Respond(data) // who does not hear it asks again
}

// stream returns the stream of that JetStream name, or nil when it has no files.
func (c *committer) stream(ctx context.Context, name string) *commitStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.streams[name]; s != nil {
		return s
	}
	if name == "." || name == ".." || strings.ContainsAny(name, "/\\\x00") || c.ended {
		return nil
	}
	if info, err := os.Stat(filepath.Join(c.root, name)); err != nil || !info.IsDir() {
		return nil
	}
	s := &commitStream{name: name, wakeup: make(chan struct{}, 1), files: newStreamFiles(c.root, name)}
	c.streams[name] = s
	c.loops.Go(func() { c.serve(ctx, s) })
	return s
}

// serve syncs a stream whenever somebody waits for it. While one sync runs, the next ones gather.
func (c *committer) serve(ctx context.Context, s *commitStream) {
	defer s.files.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wakeup:
		}
		s.mu.Lock()
		waiting := s.waiting
		s.waiting = nil
		s.mu.Unlock()
		c.syncFor(ctx, s, waiting)
	}
}

func (c *committer) syncFor(ctx context.Context, s *commitStream, waiting []commitRequest) {
	fail := func(err error) {
		for _, r := range waiting {
			answer(r.msg, wire.Commit{Error: err.Error()})
		}
	}
	last, err := c.lastSeq(ctx, s.name)
	if err != nil {
		fail(err)
		return
	}
	began := time.Now()
	err = s.files.sync()
	now := time.Now()
	if err != nil {
		fail(err)
		if !errors.Is(err, fs.ErrNotExist) { // else the stream was deleted meanwhile
			c.done(&syncError{fmt.Errorf("stream %s: %w", s.name, err)})
		}
		return
	}
	s.mu.Lock()
	s.synced, s.folder = last, s.files.info
	s.cost.add(now.Sub(began), now, len(waiting))
	s.mu.Unlock()
	for _, r := range waiting {
		answer(r.msg, wire.Commit{Seq: last})
	}
}

// sameFolderLocked reports whether the stream is still the one that was synced, and was not purged or made anew.
func (s *commitStream) sameFolderLocked() bool {
	now, err := os.Stat(s.files.msgsDir())
	return err == nil && os.SameFile(now, s.folder)
}

// lastSeq asks how far the stream is: what has a sequence has been written.
func (c *committer) lastSeq(ctx context.Context, stream string) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	found, err := c.js.Stream(ctx, stream)
	if err != nil {
		return 0, fmt.Errorf("ask for the end of stream %s: %w", stream, err)
	}
	return found.CachedInfo().State.LastSeq, nil
}

// background syncs everything now and then, so that what other streams lose with the power is bounded.
func (c *committer) background(ctx context.Context) {
	all := map[string]*streamFiles{}
	defer func() {
		for _, f := range all {
			f.close()
		}
	}()
	tick := time.NewTicker(wire.ProcessWindow / 2)
	defer tick.Stop()
	for first := true; ; first = false {
		// At once at first: a broker that is killed again and again must not put it off for ever.
		if !first {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		entries, err := os.ReadDir(c.root)
		if err != nil {
			continue // no stream is there yet
		}
		for _, e := range entries {
			f := all[e.Name()]
			if f == nil {
				f = newStreamFiles(c.root, e.Name())
				all[e.Name()] = f
			}
			if err := f.syncTree(); err != nil && !errors.Is(err, fs.ErrNotExist) {
				c.done(&syncError{fmt.Errorf("stream %s: %w", e.Name(), err)})
				return
			}
		}
	}
}

// tell answers what syncs have cost.
func (c *committer) tell(m *nats.Msg) {
	now, memory := time.Now(), inMemory(c.root)
	all := []wire.SyncCost{}
	c.mu.Lock()
	for name, s := range c.streams {
		s.mu.Lock()
		cost := s.cost.report(name, now)
		s.mu.Unlock()
		cost.Memory = memory
		all = append(all, cost)
	}
	c.mu.Unlock()
	data, err := json.Marshal(all)
	if err != nil {
		panic(fmt.Sprintf("broker: internal error: the cost of syncs cannot be encoded: %v", err))
	}
	_ = m.Respond(data) // who does not hear it asks again
}
