package bus

import (
	"slices"
	"time"

	"github.com/hozo-dev/hozo/wire"
)

const (
	// beatInterval is how often a member shows that it lives.
	beatInterval = time.Second

	// beatValid is how long after it began to send its last sign a member may act. It is shorter than beatDead, which
	// others count from when they saw that sign, so that it has stopped by itself before anybody takes over. Both are
	// spans of the monotonic clock, which goes on while a process is stopped.
	beatValid = 4 * time.Second

	// beatDead is how long after its last sign a member counts as dead: the acknowledgement wait of other consumers.
	beatDead = 5 * time.Second

	// forgetAfter is how long a dead member is remembered: until long after the broker has dropped its last sign
	// (memberTTL), which would else pass for the first one of a new member.
	forgetAfter = time.Minute
)

// roster is what one member knows: who lives, and who owns which partition. It decides nothing that others rely on: the
// broker does, by the conditions of what is stored. Not safe for concurrent use; times are spans of one monotonic clock.
type roster struct {
	self    string
	owners  []ownerRecord
	members map[string]*sighting
}

// ownerRecord is the last record of a partition and its sequence, 0 when there is none yet.
type ownerRecord struct {
	wire.Owner
	seq uint64
}

// sighting is the newest sign of life of a member and when it was seen first.
type sighting struct {
	seq     uint64
	at      time.Duration
	leaving bool
}

func newRoster(self string, partitions int) *roster {
	r := &roster{self: self, owners: make([]ownerRecord, partitions), members: make(map[string]*sighting)}
	for p := range r.owners {
		r.owners[p].Partition = p
	}
	return r
}

// see notes the newest sign of a member.
func (r *roster) see(m wire.Member, seq uint64, now time.Duration) {
	have := r.members[m.Member]
	if have == nil {
		have = &sighting{}
		r.members[m.Member] = have
	}
	if seq > have.seq {
		*have = sighting{seq, now, m.Leaving}
	}
}

// note keeps the record of a partition, unless a newer one is known.
func (r *roster) note(rec ownerRecord) {
	if rec.Partition >= 0 && rec.Partition < len(r.owners) && rec.seq > r.owners[rec.Partition].seq {
		r.owners[rec.Partition] = rec
	}
}

// live lists the members that count, this one included, and forgets the dead.
func (r *roster) live(now time.Duration) []string {
	all := []string{r.self}
	for name, seen := range r.members {
		switch {
		case name == r.self:
		case now-seen.at >= forgetAfter:
			delete(r.members, name)
		case !seen.leaving && now-seen.at < beatDead:
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// decide says which partitions to take and which to give back. held are those that this member works on now. Until an
// owner that is not known to be dead has given a partition back, nobody takes it.
func (r *roster) decide(now time.Duration, held func(p int) bool) (claim, release []int) {
	live := r.live(now)
	owners := make([]string, len(r.owners))
	for p, rec := range r.owners {
		owners[p] = rec.Member
	}
	for p, member := range assign(owners, live) {
		free := owners[p] == "" || owners[p] == r.self || !slices.Contains(live, owners[p])
		switch {
		case member == r.self && !held(p) && free:
			claim = append(claim, p)
		case member != r.self && (held(p) || owners[p] == r.self):
			release = append(release, p)
		}
	}
	return claim, release
}
