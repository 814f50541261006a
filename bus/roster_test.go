package bus

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hozo-dev/hozo/wire"
	"pgregory.net/rapid"
)

func TestPlanIsEvenAndMovesAsLittleAsItCan(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"", "a", "b", "c", "d", "e", "f", "g"}
		live := slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.SampledFrom(names[1:]), 1, 7, rapid.ID[string]).Draw(t, "live")))
		owners := rapid.SliceOfN(rapid.SampledFrom(names), 1, 64).Draw(t, "owners")
		plan := assign(owners, live)
		has, had := map[string]int{}, map[string]int{}
		for p, m := range plan {
			if !slices.Contains(live, m) {
				t.Fatalf("partition %d goes to %q, who does not live", p, m)
			}
			has[m]++
			had[owners[p]]++
		}
		least, most, must := len(owners), 0, 0
		ceiling := len(owners) % len(live) // how many may have one more
		counts := []int{}
		for _, m := range live {
			least, most = min(least, has[m]), max(most, has[m])
			counts = append(counts, had[m])
		}
		if most-least > 1 {
			t.Fatalf("members have between %d and %d partitions", least, most)
		}
		slices.Sort(counts)
		slices.Reverse(counts)
		for i, n := range counts { // what cannot stay: all beyond the quota, with the odd ones where they save most
			quota := len(owners) / len(live)
			if i < ceiling {
				quota++
			}
			must += max(0, n-quota)
		}
		moved := 0
		for p, m := range plan {
			if slices.Contains(live, owners[p]) && owners[p] != m {
				moved++
			}
		}
		if moved != must {
			t.Fatalf("%d partitions are taken from members that live, %d would do", moved, must)
		}
		if again := assign(plan, live); !slices.Equal(again, plan) {
			t.Fatalf("the plan changes itself: %v, then %v", plan, again)
		}
	})
}

// player is a member in the model: what it believes, and whether it runs.
type player struct {
	roster  *roster
	held    map[int]ownerRecord
	until   time.Duration
	stopped bool
	beats   uint64
}

// table is the broker in the model: records that are replaced on condition, signs of life, and fences.
type table struct {
	seq     uint64
	owners  []ownerRecord
	members map[string]wire.Member
	signs   map[string]uint64
	at      map[string]time.Duration
	fences  []uint64 // epoch
	now     time.Duration
}

func (b *table) replace(rec ownerRecord) (ownerRecord, bool) {
	if b.owners[rec.Partition].seq != rec.seq {
		return rec, false
	}
	b.seq++
	rec.seq = b.seq
	b.owners[rec.Partition] = rec
	return rec, true
}

// valid is what a member believes.
func (p *player) valid(now time.Duration) bool { return now < p.until }

// turn is one round of a member: a sign of life, a look, and what follows from it.
func (p *player) turn(b *table) {
	if !p.valid(b.now) {
		clear(p.held)
	}
	p.beats++
	b.seq++
	b.members[p.roster.self], b.signs[p.roster.self] = wire.Member{Member: p.roster.self, Beat: p.beats}, b.seq
	p.until = b.now + beatValid
	b.at[p.roster.self] = b.now
	for name, m := range b.members {
		if b.now-b.at[name] > 20*time.Second { // memberTTL
			delete(b.members, name)
			continue
		}
		p.roster.see(m, b.signs[name], b.now)
	}
	for _, rec := range b.owners {
		if rec.seq > 0 {
			p.roster.note(rec)
		}
	}
	claim, release := p.roster.decide(b.now, func(n int) bool { _, ok := p.held[n]; return ok })
	for _, n := range release {
		rec := p.roster.owners[n]
		rec.Member = ""
		if _, ok := b.replace(rec); ok {
			delete(p.held, n)
		}
	}
	for _, n := range claim {
		rec := p.roster.owners[n]
		rec.Epoch, rec.Member = rec.Epoch+1, p.roster.self
		if rec, ok := b.replace(rec); ok {
			b.fences[n] = rec.Epoch
			p.held[n] = rec
		}
	}
}

// TestNeverTwoValidOwners plays members that run, are stopped, wake up, die and join in any order against a broker that
// keeps its conditions: no two ever believe at once that they may act on a partition, only the newest epoch's output is
// taken, and left alone they come to share everything.
func TestNeverTwoValidOwners(t *testing.T) {
	t.Parallel()
	const n = 8
	rapid.Check(t, func(t *rapid.T) {
		b := &table{owners: make([]ownerRecord, n), members: map[string]wire.Member{}, signs: map[string]uint64{}, at: map[string]time.Duration{}, fences: make([]uint64, n)}
		for p := range b.owners {
			b.owners[p].Partition = p
		}
		players := []*player{}
		born := 0
		pick := func() *player {
			if len(players) == 0 {
				t.Skip("nobody is there")
			}
			return players[rapid.IntRange(0, len(players)-1).Draw(t, "who")]
		}
		t.Repeat(map[string]func(*rapid.T){
			"join": func(*rapid.T) {
				if len(players) >= 5 {
					t.Skip("enough")
				}
				born++
				players = append(players, &player{roster: newRoster(fmt.Sprintf("m%d", born), n), held: map[int]ownerRecord{}})
			},
			"kill": func(*rapid.T) {
				p := pick()
				players = slices.DeleteFunc(players, func(o *player) bool { return o == p })
			},
			"stop": func(*rapid.T) { pick().stopped = true },
			"wake": func(*rapid.T) { pick().stopped = false },
			"turn": func(*rapid.T) {
				if p := pick(); !p.stopped {
					p.turn(b)
				}
			},
			"all": func(*rapid.T) {
				b.now += beatInterval
				for _, p := range players {
					if !p.stopped {
						p.turn(b)
					}
				}
			},
			"wait": func(t *rapid.T) {
				b.now += time.Duration(rapid.IntRange(1, 12_000).Draw(t, "ms")) * time.Millisecond
			},
			"": func(t *rapid.T) {
				for p := range n {
					var who []string
					for _, m := range players {
						rec, ok := m.held[p]
						if !ok || !m.valid(b.now) {
							continue
						}
						who = append(who, m.roster.self)
						if taken := rec.Epoch == b.fences[p]; !taken {
							t.Fatalf("%s believes in epoch %d of partition %d, and the fence is of %d", m.roster.self, rec.Epoch, p, b.fences[p])
						}
					}
					if len(who) > 1 {
						t.Fatalf("partition %d has the owners %v", p, who)
					}
				}
			},
		})
		for _, p := range players {
			p.stopped = false
		}
		for range 30 {
			b.now += beatInterval
			for _, p := range players {
				p.turn(b)
			}
		}
		for p := range n {
			holders := 0
			for _, m := range players {
				if _, ok := m.held[p]; ok {
					holders++
				}
			}
			if len(players) > 0 && holders != 1 {
				t.Fatalf("left alone, partition %d has %d owners", p, holders)
			}
		}
	})
}
