package wire

import (
	"slices"
	"strconv"
	"strings"
)

const (
	// DefaultPartitions is into how many partitions a stream with a key is cut when its manifest does not say: as
	// many instances as one host runs can read it. 64 cost half of the speed, see docs/decisions/0012-messaging-speed.md.
	DefaultPartitions = 16

	// MaxPartitions bounds what each partition costs: a consumer at the broker and some lines of rights for each reader.
	MaxPartitions = 256
)

// partitionMark is the token behind a stream's name that begins what the platform keeps to itself. No name in a manifest
// holds an @, so nothing that a person declares can look like it.
const partitionMark = "@"

// fenceToken takes the place of a partition's number in the subjects of fences.
const fenceToken = "fence"

// PartitionOf says which of n partitions the events of a key are in: 32-bit FNV-1a of the key, modulo n. It is part of the
// contract, so that programs in any language can compute it.
func PartitionOf(key []byte, n int) int {
	hash := uint32(2166136261)
	for _, b := range key {
		hash = (hash ^ uint32(b)) * 16777619
	}
	return int(hash % uint32(n))
}

// PartitionSubject is where events of subject, which stream stores, are kept when they are in partition p: the events
// of subject events.raw.eu in partition 7 of stream events.raw are stored on events.raw.@.7.eu.
func PartitionSubject(stream, subject string, p int) string {
	return stream + "." + partitionMark + "." + strconv.Itoa(p) + strings.TrimPrefix(subject, stream)
}

// PartitionFilters returns the patterns of what is stored of a source in partition p, or in all when p is negative.
// subjects are those of the source: none means the whole stream.
func PartitionFilters(stream string, subjects []string, p int) []string {
	token := "*"
	if p >= 0 {
		token = strconv.Itoa(p)
	}
	if len(subjects) == 0 {
		subjects = StreamSubjects(stream)
	}
	all := make([]string, len(subjects))
	for i, subject := range subjects {
		all[i] = stream + "." + partitionMark + "." + token + strings.TrimPrefix(subject, stream)
	}
	return all
}

// SplitSubject takes a stored subject of stream apart into the subject that its events were published to and their
// partition, which is -1 when the stream has none. It reports false for a message that holds no event: a fence.
func SplitSubject(stream, stored string) (subject string, partition int, event bool) {
	rest, marked := strings.CutPrefix(stored, stream+"."+partitionMark+".")
	if !marked {
		return stored, -1, true
	}
	token, rest, more := strings.Cut(rest, ".")
	if token == fenceToken {
		return stored, -1, false
	}
	p, err := strconv.Atoi(token)
	if err != nil || p < 0 || p >= MaxPartitions || strconv.Itoa(p) != token {
		return stored, -1, true // not of our making
	}
	if more {
		return stream + "." + rest, p, true
	}
	return stream, p, true
}

// IsFence reports whether what is stored on a subject of stream is a fence and no event.
func IsFence(stream, stored string) bool {
	_, _, event := SplitSubject(stream, stored)
	return !event
}

// FenceSubject is where the owner of partition p of source, as which service reads it, puts a fence into a target stream:
// what it stores there is stored only while its own fence is the last.
func FenceSubject(target, service, source string, p int) string {
	return strings.Join([]string{FencePrefix(target, service), StreamName(source), strconv.Itoa(p)}, ".")
}

// FencePrefix is what all fences of service in the stream target begin with.
func FencePrefix(target, service string) string {
	return strings.Join([]string{target, partitionMark, fenceToken, service}, ".")
}

// PartitionDurable is the name of the consumer of partition p that belongs to the reader called durable.
func PartitionDurable(durable string, p int) string { return durable + "@" + strconv.Itoa(p) }

// Filters are the patterns of what the consumer of s gives, as the broker knows them; none means the whole stream.
func (s Source) Filters() []string {
	if s.Partitions == 0 || len(s.Subjects) == 0 {
		return s.Subjects
	}
	return PartitionFilters(s.Stream, s.Subjects, -1)
}

// Readers are the sources that s is read by: s itself, or one for each partition when it is read in the order of keys.
// Those of partitions are not partitioned any more: their Subjects are the stored ones.
func (s Source) Readers() []Source {
	if !s.PerKey {
		own := s
		own.Subjects, own.Partitions = s.Filters(), 0
		return []Source{own}
	}
	all := make([]Source, s.Partitions)
	for p := range all {
		all[p] = Source{
			Stream: s.Stream, Subjects: PartitionFilters(s.Stream, s.Subjects, p),
			Durable: PartitionDurable(s.Durable, p), Ordered: true, Power: s.Power,
		}
	}
	return all
}

// StoredSubjects are the patterns that r stores on.
func (r Route) StoredSubjects() []string {
	if r.Partitions == 0 {
		return []string{r.Subject}
	}
	return PartitionFilters(r.Stream, []string{r.Subject}, -1)
}

// TargetStreams are the streams that routes store in, each once, sorted.
func TargetStreams(routes []Route) []string {
	var all []string
	for _, r := range routes {
		all = append(all, r.Stream)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
