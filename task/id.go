package task

import (
	"crypto/rand"
	"sync"
)

const idDigits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ" // Crockford's: none is mistaken for another

// ids makes ids: random ones of which 1024 in a row differ in their last two digits only. Ids that begin alike take less
// room in the broker, which keeps the subjects of waiting tasks in a tree of prefixes.
var ids struct {
	mu     sync.Mutex
	prefix [18]byte // 90 random bits
	next   int
}

// newID returns an id of 20 digits.
func newID() string {
	ids.mu.Lock()
	defer ids.mu.Unlock()
	if ids.next&1023 == 0 {
		var random [18]byte
		_, _ = rand.Read(random[:]) // it never fails
		for i, b := range random {
			ids.prefix[i] = idDigits[b&31]
		}
		ids.next = 0
	}
	n := ids.next
	ids.next++
	var id [20]byte
	copy(id[:], ids.prefix[:])
	id[18], id[19] = idDigits[n>>5&31], idDigits[n&31]
	return string(id[:])
}
