// Package ghevents makes events that look like those of GH Archive and are nobody's: the same keys, the same fourteen
// types in the same shares, the same sizes (366 bytes to 31 kB, median about 0.9 kB, mean about 2.3 kB) and about the same
// compressibility as one real hour, from a seed.
package ghevents

import (
	"math/rand/v2"
	"strconv"
	"time"
)

const (
	// firstID is the id that the numbering starts from, of the length that real ids had.
	firstID = 2_489_368_070
	// idsPerSeed keeps the ids of generators with different seeds apart: a seed owns this many.
	idsPerSeed = 100_000_000_000
	// seedsApart is how many seeds have ids of their own: seedsApart*idsPerSeed fits an unsigned 64-bit integer.
	seedsApart = 100_000_000
	// meanGapMillis is the time between two events; the real hour has 7,702 of them.
	meanGapMillis = 3_600_000 / totalWeight
)

// Generator makes events. The same seed gives the same events. It is not safe for concurrent use.
type Generator struct {
	rng    *rand.PCG
	users  []user
	repos  []repo
	next   uint64 // id of the next event
	millis int64  // time of the next event since the Unix epoch
	now    []byte // that time as GitHub writes it, quotes included
	second int64  // second that now was made for
}

// New returns a Generator. Generators with seeds that differ modulo 100,000,000 never make the same id within their
// first 97 billion events.
func New(seed uint64) *Generator {
	g := &Generator{
		rng:    rand.NewPCG(seed, 0x9e3779b97f4a7c15), // second word of the state: any constant will do
		next:   seed%seedsApart*idsPerSeed + firstID,
		millis: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli(),
		second: -1,
	}
	g.makePeople()
	return g
}

// Types returns the fourteen event types, most frequent first.
func Types() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// Next appends one event to dst, a JSON object and a newline, and returns the extended slice.
func (g *Generator) Next(dst []byte) []byte {
	g.tick()
	k := g.kind()
	actor, in := g.user(), g.repo()

	dst = append(dst, `{"id":"`...)
	dst = strconv.AppendUint(dst, g.next, 10)
	g.next++
	dst = append(dst, `","type":"`...)
	dst = append(dst, k.name...)
	dst = append(dst, `","actor":{"id":`...)
	dst = strconv.AppendUint(dst, actor.id, 10)
	dst = append(dst, `,"login":"`...)
	dst = append(dst, actor.login...)
	dst = append(dst, `","gravatar_id":"","url":"https://api.github.com/users/`...)
	dst = append(dst, actor.login...)
	dst = append(dst, `","avatar_url":"https://avatars.githubusercontent.com/u/`...)
	dst = strconv.AppendUint(dst, actor.id, 10)
	dst = append(dst, `?"},"repo":{"id":`...)
	dst = strconv.AppendUint(dst, in.id, 10)
	dst = append(dst, `,"name":"`...)
	dst = append(dst, in.full...)
	dst = append(dst, `","url":"https://api.github.com/repos/`...)
	dst = append(dst, in.full...)
	dst = append(dst, `"},"payload":`...)
	dst = k.payload(g, dst, actor, in)
	dst = append(dst, `,"public":true,"created_at":`...)
	dst = append(dst, g.now...)
	if in.owner.org {
		dst = append(dst, `,"org":{"id":`...)
		dst = strconv.AppendUint(dst, in.owner.id, 10)
		dst = append(dst, `,"login":"`...)
		dst = append(dst, in.owner.login...)
		dst = append(dst, `","gravatar_id":"","url":"https://api.github.com/orgs/`...)
		dst = append(dst, in.owner.login...)
		dst = append(dst, `","avatar_url":"https://avatars.githubusercontent.com/u/`...)
		dst = strconv.AppendUint(dst, in.owner.id, 10)
		dst = append(dst, `?"}`...)
	}
	return append(dst, '}', '\n')
}

// tick moves the clock on and keeps its text, which changes about once in two events and is used up to ten times in one.
func (g *Generator) tick() {
	g.millis += int64(g.below(2*meanGapMillis + 1))
	if s := g.millis / 1000; s != g.second {
		g.second = s
		g.now = time.Unix(s, 0).UTC().AppendFormat(g.now[:0], `"2006-01-02T15:04:05Z"`)
	}
}

// below returns a number in 0..n-1. The bias of the multiplication is below 2^-32 for every n used here.
func (g *Generator) below(n int) int {
	return int(g.rng.Uint64() >> 32 * uint64(n) >> 32)
}

// oneIn is true once in n times.
func (g *Generator) oneIn(n int) bool { return g.below(n) == 0 }
