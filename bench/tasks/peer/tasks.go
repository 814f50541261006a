package main

import (
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// account is what a program reports.
type account struct {
	First, Last int64 // ns of the monotonic clock
	Count       uint64
	Sum         uint64
	Twice       uint64
	Damaged     uint64
	P50, P99    int64 // ns
}

// job is the arguments of a task, as a program would have them.
type job struct {
	N  uint64 `json:"n"`
	At int64  `json:"at"` // ns of the monotonic clock
	To string `json:"to"`
}

const address = "somebody@example.com"

func (j job) valid() bool { return j.To == address && j.At > 0 }

// each calls enqueue for every task, from parallel goroutines, or at the rate that was asked for; then flush.
func (s settings) each(parallel int, enqueue func(job) error, flush func() error) error {
	ready()
	if err := s.awaitGo(); err != nil {
		return err
	}
	a := account{First: monotonic(), Count: s.n}
	var next atomic.Uint64
	var wg sync.WaitGroup
	failed := make([]error, max(parallel, 1))
	for i := range failed {
		wg.Go(func() {
			for {
				n := next.Add(1) - 1
				if n >= s.n || failed[i] != nil {
					return
				}
				at := monotonic()
				if s.rate > 0 { // open loop: a late task counts as late
					at = a.First + int64(n)*int64(time.Second)/int64(s.rate)
					if early := at - monotonic(); early > 0 {
						<-time.After(time.Duration(early))
					}
				}
				failed[i] = enqueue(job{n, at, address})
			}
		})
	}
	wg.Wait()
	if err := errors.Join(append(failed, flush())...); err != nil {
		return err
	}
	a.Last = monotonic()
	return errors.Join(report(a), s.rest())
}

// tally is what a worker knows of the tasks that came. It is safe for concurrent use.
type tally struct {
	mu   sync.Mutex
	seen []uint64 // a bit a task
	took []int64  // from enqueue to handler
	n    uint64
	a    account
	all  chan struct{} // closed when every task has come
}

func newTally(n uint64) *tally {
	return &tally{seen: make([]uint64, n/64+1), n: n, all: make(chan struct{})}
}

func (t *tally) add(j job) {
	now := monotonic()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !j.valid() || j.N >= t.n:
		t.a.Damaged++
		return
	case t.seen[j.N/64]&(1<<(j.N%64)) != 0:
		t.a.Twice++
		return
	}
	t.seen[j.N/64] |= 1 << (j.N % 64)
	if t.a.Count == 0 {
		t.a.First = now
	}
	t.a.Count++
	t.a.Sum += j.N
	t.took = append(t.took, now-j.At)
	if t.a.Count == t.n {
		t.a.Last = now
		close(t.all)
	}
}

// addJSON is add for those who get bytes.
func (t *tally) addJSON(data []byte) {
	var j job
	if err := json.Unmarshal(data, &j); err != nil {
		j = job{}
	}
	t.add(j)
}

// finish waits for every task, and a little for some that come twice, and reports.
func (t *tally) finish() error {
	<-t.all
	<-time.After(150 * time.Millisecond)
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.Sort(t.took)
	t.a.P50, t.a.P99 = t.took[len(t.took)/2], t.took[len(t.took)*99/100]
	return report(t.a)
}

// work is what a task costs beside its queue: waiting, as for a database or another service.
func (s settings) work() {
	if s.busy > 0 {
		<-time.After(s.busy)
	}
}

// monotonic is a clock that all processes of the machine share, in ns.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic("peer: internal error: read the monotonic clock: " + err.Error())
	}
	return t.Nano()
}
