package main

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
)

// ledger is the account of a set of events: what was sent, or what was found. Equal ledgers mean that nothing is missing,
// nothing is twice and nothing changed its type.
type ledger struct {
	Count uint64
	Sum   uint64 // of the FNV-64a hashes of the ids, modulo 2^64
	Types map[string]uint64
	seen  map[uint64]struct{} // hashes of ids; nil when repeats are not looked for
	Twice uint64
}

func newLedger(watchRepeats bool) *ledger {
	l := &ledger{Types: make(map[string]uint64)}
	if watchRepeats {
		l.seen = make(map[uint64]struct{})
	}
	return l
}

func (l *ledger) add(id, kind []byte) {
	h := fnv.New64a()
	_, _ = h.Write(id) // never fails
	sum := h.Sum64()
	l.Count++
	l.Sum += sum
	l.Types[string(kind)]++
	if l.seen != nil {
		if _, again := l.seen[sum]; again {
			l.Twice++
		}
		l.seen[sum] = struct{}{}
	}
}

// merge adds another account to this one.
func (l *ledger) merge(other *ledger) {
	l.Count += other.Count
	l.Sum += other.Sum
	for kind, n := range other.Types {
		l.Types[kind] += n
	}
}

// compare says what found has that l, what was sent, has not, and the other way round.
func (l *ledger) compare(name string, found *ledger) []string {
	var wrong []string
	if found.Count != l.Count {
		wrong = append(wrong, fmt.Sprintf("%s: %d events stored, %d accepted", name, found.Count, l.Count))
	}
	if found.Twice > 0 {
		wrong = append(wrong, fmt.Sprintf("%s: %d events stored twice", name, found.Twice))
	}
	if found.Sum != l.Sum {
		wrong = append(wrong, fmt.Sprintf("%s: hashes of ids sum to %016x, want %016x", name, found.Sum, l.Sum))
	}
	if !maps.Equal(l.Types, found.Types) {
		wrong = append(wrong, fmt.Sprintf("%s: types are %s, want %s", name, found.types(), l.types()))
	}
	return wrong
}

func (l *ledger) types() string {
	var all []string
	for _, kind := range slices.Sorted(maps.Keys(l.Types)) {
		all = append(all, fmt.Sprintf("%s:%d", kind, l.Types[kind]))
	}
	return strings.Join(all, " ")
}
