package deploy

import (
	"bytes"
	"strings"
	"sync"
)

// tail keeps the last 4 KiB that are written to it, for messages. It may be read while it is written to.
type tail struct {
	mu   sync.Mutex
	data []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, p...)
	const most = 4 << 10
	if len(t.data) > most {
		t.data = bytes.Clone(t.data[len(t.data)-most:])
	}
	return len(p), nil
}

// String returns it on one line.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(string(t.data)), " ")
}
