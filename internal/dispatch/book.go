// Package dispatch lets the tasks of limited queues begin: so many at once, so many in a time, each key its share.
//
// Tasks of such a queue wait where no worker looks, under the name of their key. The dispatcher moves one to where workers
// look when it may begin. A task that has been moved and has not left the queue is the place that it takes, so nothing needs
// a lease: it holds over restarts of everything, and a worker that dies gives nothing back that it did not have.
//
// Book is pure: it knows what waits, what has been let out, and who comes next. Dispatcher does what it says.
package dispatch

import (
	"cmp"
	"container/heap"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

// Rate is so many in a time. The zero Rate is no limit.
type Rate struct {
	N   int
	Per time.Duration
}

// Limits are those of one queue. A zero limit is none.
type Limits struct {
	Concurrency    int
	Rate           Rate
	KeyConcurrency int
	KeyRate        Rate
	Weights        map[string]int // by key; 1 for those that are not named
}

// Lane is where tasks wait that are alike to a Book. All of it but Priority are tokens of subjects.
type Lane struct {
	Kind     string
	Priority int // 1 to 3
	Key      string
}

const (
	// leastAhead and mostAhead bound how many tasks of a kind are let out beyond those that have begun.
	leastAhead, mostAhead = 4, 8192

	// aheadFor is how long the tasks that are let out and have not begun should keep workers busy: it is what another key
	// waits at least.
	aheadFor = 100 * time.Millisecond

	// burstPart is which part of a rate's time may pass at once: a tenth.
	burstPart = 10
)

// Book keeps the account of one queue. It is for one goroutine.
type Book struct {
	limits Limits
	weight func(key string) int
	kinds  map[string]*kindBook
	order  []*kindBook // whose turn it is among kinds
	keys   map[string]*keyBook
	out    map[string]*released // by token
	bucket bucket
	sleep  sleepers
}

// kindBook is one kind.
type kindBook struct {
	name   string
	ready  seats   // keys that have something waiting and may go
	turn   float64 // virtual time of the last that went
	ahead  int     // let out and not begun
	window int
	begun  int // since the last tick
	rate   float64
}

// keyBook is one key over all kinds.
type keyBook struct {
	name   string
	out    int
	bucket bucket
	seats  map[string]*seat // by kind
	asleep bool
}

// seat is a key's place in the line of a kind.
type seat struct {
	kind  *kindBook
	key   *keyBook
	waits [3]bool // by priority
	turns int
	at    float64 // virtual time
	index int     // in the heap; -1: not there
}

// released is a task that was let out.
type released struct {
	lane  Lane
	begun bool
	at    time.Time
}

// NewBook returns the book of a queue of which nothing is known.
func NewBook(limits Limits, weight func(key string) int, now time.Time) *Book {
	b := &Book{weight: weight, kinds: map[string]*kindBook{}, keys: map[string]*keyBook{}, out: map[string]*released{}}
	b.SetLimits(limits, now)
	return b
}

// SetLimits changes the limits. What has been let out stays so.
func (b *Book) SetLimits(limits Limits, now time.Time) {
	if limits.Rate != b.limits.Rate {
		b.bucket = newBucket(limits.Rate, now)
	}
	keyRate := limits.KeyRate != b.limits.KeyRate
	b.limits = limits
	if keyRate {
		b.sleep = nil
	}
	for _, k := range b.keys {
		if keyRate {
			k.bucket, k.asleep = newBucket(b.keyRate(k.name), now), false
		}
		b.enlist(k)
	}
}

// Arrive notes that something waits in a lane.
func (b *Book) Arrive(l Lane, now time.Time) {
	s := b.seat(l, now)
	s.waits[l.Priority-1] = true
	b.enlist(s.key)
}

// Empty notes that nothing waits in a lane.
func (b *Book) Empty(l Lane) {
	k := b.keys[l.Key]
	if k == nil || k.seats[l.Kind] == nil {
		return
	}
	s := k.seats[l.Kind]
	s.waits[l.Priority-1] = false
	if !s.waiting() {
		b.delist(s)
	}
	b.drop(k)
}

// Next returns the lane whose first task may go now. Otherwise it returns when to ask again if nothing happens before; 0 when
// only an event can change the answer.
func (b *Book) Next(now time.Time) (lane Lane, ok bool, wait time.Duration) {
	for len(b.sleep) > 0 && !b.sleep[0].until.After(now) {
		k := heap.Pop(&b.sleep).(sleeper).key
		k.asleep = false
		b.enlist(k)
	}
	if len(b.sleep) > 0 {
		wait = b.sleep[0].until.Sub(now)
	}
	if b.limits.Concurrency > 0 && len(b.out) >= b.limits.Concurrency {
		return lane, false, wait
	}
	for range b.order {
		k := b.order[0]
		for k.ahead < k.window && len(k.ready) > 0 {
			s := k.ready[0]
			if d := s.key.bucket.until(now); d > 0 {
				b.lull(s.key, now.Add(d))
				if wait == 0 || d < wait {
					wait = d
				}
				continue
			}
			if d := b.bucket.until(now); d > 0 {
				return lane, false, d
			}
			return Lane{k.name, s.next(), s.key.name}, true, 0
		}
		b.order = append(b.order[1:], k)
	}
	return lane, false, wait
}

// Release notes that a task of a lane was let out.
func (b *Book) Release(token string, l Lane, now time.Time) {
	s := b.seat(l, now)
	b.addOut(token, s, false, now)
	s.turns++
	b.bucket.take(now)
	s.key.bucket.take(now)
	s.kind.turn = max(s.kind.turn, s.at)
	s.at += 1 / float64(max(b.weight(l.Key), 1))
	b.enlist(s.key)
	if len(b.order) > 1 && b.order[0] == s.kind {
		b.order = append(b.order[1:], s.kind)
	}
}

// Found notes that a task is out that was let out by somebody else. Whether it has begun is not known.
func (b *Book) Found(token string, l Lane, now time.Time) {
	if b.out[token] == nil {
		b.addOut(token, b.seat(l, now), true, now)
	}
}

func (b *Book) addOut(token string, s *seat, begun bool, now time.Time) {
	if b.out[token] != nil {
		return
	}
	b.out[token] = &released{lane: Lane{s.kind.name, 0, s.key.name}, begun: begun, at: now}
	s.key.out++
	if !begun {
		s.kind.ahead++
	}
	b.enlist(s.key)
}

// Begun notes that a worker has begun a task.
func (b *Book) Begun(token string) {
	r := b.out[token]
	if r == nil || r.begun {
		return
	}
	r.begun = true
	k := b.kinds[r.lane.Kind]
	k.ahead--
	k.begun++
}

// Left notes that a task has left: it has ended, or waits for its next attempt elsewhere.
func (b *Book) Left(token string) {
	r := b.out[token]
	if r == nil {
		return
	}
	b.Begun(token)
	delete(b.out, token)
	k := b.keys[r.lane.Key]
	k.out--
	b.enlist(k)
	b.drop(k)
}

// Old returns up to n tasks that have been out for longer than age, and counts their age anew.
func (b *Book) Old(n int, age time.Duration, now time.Time) map[string]Lane {
	old := map[string]Lane{}
	for token, r := range b.out {
		if len(old) == n {
			break
		}
		if now.Sub(r.at) > age {
			old[token] = r.lane
			r.at = now
		}
	}
	return old
}

// Tick adjusts how many tasks are let out ahead to how fast they are begun. It is called every period.
func (b *Book) Tick(period time.Duration) {
	for _, k := range b.order {
		k.rate = 0.7*float64(k.begun)/period.Seconds() + 0.3*k.rate
		k.begun = 0
		k.window = min(max(int(k.rate*aheadFor.Seconds()), leastAhead), mostAhead)
	}
}

// Sweep forgets keys that have been quiet.
func (b *Book) Sweep(now time.Time) {
	for _, k := range b.keys {
		k.bucket.refill(now)
		b.drop(k)
	}
}

func (b *Book) keyRate(key string) Rate {
	if key == NoKey {
		return Rate{}
	}
	return b.limits.KeyRate
}

// Out is how many tasks are out, and how many of a key.
func (b *Book) Out(key string) (all, of int) {
	if k := b.keys[key]; k != nil {
		of = k.out
	}
	return len(b.out), of
}

// seat finds the place of a lane, or makes it.
func (b *Book) seat(l Lane, now time.Time) *seat {
	kind := b.kinds[l.Kind]
	if kind == nil {
		kind = &kindBook{name: l.Kind, window: leastAhead}
		b.kinds[l.Kind] = kind
		b.order = append(b.order, kind)
	}
	key := b.keys[l.Key]
	if key == nil {
		key = &keyBook{name: l.Key, bucket: newBucket(b.keyRate(l.Key), now), seats: map[string]*seat{}}
		b.keys[l.Key] = key
	}
	s := key.seats[l.Kind]
	if s == nil {
		s = &seat{kind: kind, key: key, index: -1, at: kind.turn}
		key.seats[l.Kind] = s
	}
	return s
}

// enlist puts the seats of a key into line that may be there, and takes the others out.
func (b *Book) enlist(k *keyBook) {
	free := !k.asleep && (b.limits.KeyConcurrency == 0 || k.out < b.limits.KeyConcurrency || k.name == NoKey)
	for _, s := range k.seats {
		switch {
		case !free || !s.waiting():
			b.delist(s)
		case s.index < 0:
			s.at = max(s.at, s.kind.turn) // who was away has saved nothing up
			heap.Push(&s.kind.ready, s)
		default:
			heap.Fix(&s.kind.ready, s.index)
		}
	}
}

func (b *Book) delist(s *seat) {
	if s.index >= 0 {
		heap.Remove(&s.kind.ready, s.index)
	}
}

// lull takes a key out of all lines until a time.
func (b *Book) lull(k *keyBook, until time.Time) {
	k.asleep = true
	for _, s := range k.seats {
		b.delist(s)
	}
	heap.Push(&b.sleep, sleeper{k, until})
}

// drop forgets a key of which nothing need be known: it has not used its rate lately, either.
func (b *Book) drop(k *keyBook) {
	if k.out > 0 || k.asleep || !k.bucket.full() {
		return
	}
	for _, s := range k.seats {
		if s.waiting() || s.at > s.kind.turn+1 {
			return
		}
	}
	delete(b.keys, k.name)
}

func (s *seat) waiting() bool { return s.waits[0] || s.waits[1] || s.waits[2] }

// order says which priority comes first, of ten turns.
var order = [10]int{0, 1, 0, 0, 1, 0, 2, 0, 1, 0}

// next is the priority whose turn it is.
func (s *seat) next() int {
	first := order[s.turns%len(order)]
	for i := range s.waits {
		if p := (first + i) % len(s.waits); s.waits[p] {
			return p + 1
		}
	}
	return 0 // it is not in line
}

// seats is a heap by virtual time.
type seats []*seat

func (h seats) Len() int { return len(h) }
func (h seats) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].at, h[j].at), cmp.Compare(h[i].key.name, h[j].key.name)) < 0
}
func (h seats) Swap(i, j int) { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *seats) Push(x any)   { s := x.(*seat); s.index = len(*h); *h = append(*h, s) }
func (h *seats) Pop() any {
	old := *h
	s := old[len(old)-1]
	s.index = -1
	*h = old[:len(old)-1]
	return s
}

// sleepers is a heap of keys that wait for their rate.
type sleepers []sleeper

type sleeper struct {
	key   *keyBook
	until time.Time
}

func (h sleepers) Len() int           { return len(h) }
func (h sleepers) Less(i, j int) bool { return h[i].until.Before(h[j].until) }
func (h sleepers) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sleepers) Push(x any)        { *h = append(*h, x.(sleeper)) }
func (h *sleepers) Pop() any {
	old := *h
	s := old[len(old)-1]
	*h = old[:len(old)-1]
	return s
}

// bucket holds what may go by a rate. A new one holds one: a restart gives nothing away.
type bucket struct {
	rate Rate
	have float64
	at   time.Time
}

func newBucket(r Rate, now time.Time) bucket { return bucket{r, 1, now} }

// size is the most that is saved up.
func (b *bucket) size() float64 {
	part := max(b.rate.Per/burstPart, min(b.rate.Per, aheadFor))
	return max(1, float64(b.rate.N)*float64(part)/float64(b.rate.Per))
}

func (b *bucket) refill(now time.Time) {
	if d := now.Sub(b.at); d > 0 && b.rate.N > 0 {
		b.have = min(b.size(), b.have+float64(b.rate.N)*float64(d)/float64(b.rate.Per))
		b.at = now
	}
}

// until is how long it takes until one may go; 0 when one may go now.
func (b *bucket) until(now time.Time) time.Duration {
	if b.rate.N == 0 {
		return 0
	}
	b.refill(now)
	if b.have >= 1 {
		return 0
	}
	return max(time.Duration((1-b.have)*float64(b.rate.Per)/float64(b.rate.N)), time.Millisecond)
}

func (b *bucket) take(now time.Time) {
	if b.rate.N > 0 {
		b.refill(now)
		b.have--
	}
}

func (b *bucket) full() bool { return b.rate.N == 0 || b.have >= b.size() }

// NoKey is the key of tasks that have none: only limits of the queue apply to them, and together they have the share of one.
const NoKey = wire.NoKeyToken
