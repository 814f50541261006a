package wire

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"
)

// OwnerStream holds who reads which partition: the last record of each, and of each member.
const OwnerStream = "hozo.owner"

// Owner is the record of one partition of a source that is read in the order of keys. It is replaced only on the
// condition that it is the last one, so that whoever holds an older one can change nothing any more.
type Owner struct {
	Partition int       `json:"partition"`
	Epoch     uint64    `json:"epoch"`            // grows by one with every new owner
	Member    string    `json:"member,omitempty"` // who owns it; empty when it was given back
	Instance  int       `json:"instance"`         // of the owner
	Done      uint64    `json:"done"`             // everything up to and including this sequence of the source is settled
	Created   time.Time `json:"created"`          // of the source stream: a stream that is made anew counts from 1 again

	// State is the reader's own: which events behind Done it has put into sets.
	State json.RawMessage `json:"state,omitempty"`

	// Stored is, for each stream that output goes to, a sequence behind which all output of what comes after Done lies.
	Stored map[string]uint64 `json:"stored,omitempty"`

	// GivenUp are events behind Done that are parked and not handled, whoever owns the partition.
	GivenUp *GivenUp `json:"given_up,omitempty"`
}

// GivenUp are events of one frame that could not be handled. Each is recorded before its dead letter is stored: a later
// owner must not handle what this one may still park.
type GivenUp struct {
	Seq      uint64 `json:"seq"`
	Events   []int  `json:"events"` // indexes in the frame, in the order in which they were given up; all but the last are parked
	Code     string `json:"code"`   // why the last one was
	Error    string `json:"error"`
	Attempts int    `json:"attempts"`
}

// Member is the sign of life of one process that reads partitions.
type Member struct {
	Member   string `json:"member"`
	Instance int    `json:"instance"`
	Beat     uint64 `json:"beat"`              // grows with every sign
	Leaving  bool   `json:"leaving,omitempty"` // it has given back everything and says good-bye
}

// OwnerSubjects is the pattern of every record about how service reads stream.
func OwnerSubjects(service, stream string) string {
	return strings.Join([]string{OwnerStream, service, StreamName(stream), ">"}, ".")
}

// OwnerSubject is where the record of partition p is.
func OwnerSubject(service, stream string, p int) string {
	return strings.Join([]string{OwnerStream, service, StreamName(stream), "partition", strconv.Itoa(p)}, ".")
}

// LookSubject is a core subject: something has changed in how service shares out the partitions of stream.
func LookSubject(service, stream string) string {
	return strings.Join([]string{"hozo.look", service, StreamName(stream)}, ".")
}

// MemberSubject is where a member's signs of life are.
func MemberSubject(service, stream, member string) string {
	return strings.Join([]string{OwnerStream, service, StreamName(stream), "member", member}, ".")
}
