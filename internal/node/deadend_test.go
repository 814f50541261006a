package node

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestDeadLettersNearTheirEndAreAProblem(t *testing.T) {
	t.Parallel()
	info := func(age time.Duration, msgs uint64) *jetstream.StreamInfo {
		return &jetstream.StreamInfo{
			Config: jetstream.StreamConfig{MaxAge: 30 * 24 * time.Hour, MaxMsgs: 1000},
			State:  jetstream.StreamState{Msgs: msgs, FirstTime: time.Now().Add(-age)},
		}
	}
	for name, c := range map[string]struct {
		info *jetstream.StreamInfo
		want []string
	}{
		"young and few": {info(time.Hour, 10), nil},
		"old":           {info(26*24*time.Hour, 10), []string{"dlq/expiring"}},
		"many":          {info(time.Hour, 950), []string{"dlq/nearly-full"}},
		"old and many":  {info(29*24*time.Hour, 950), []string{"dlq/expiring", "dlq/nearly-full"}},
	} {
		got := deadNearItsEnd(c.info)
		if len(got) != len(c.want) {
			t.Errorf("%s: %+v", name, got)
			continue
		}
		for i, p := range got {
			if p.Code != c.want[i] || p.Fix == "" {
				t.Errorf("%s: %+v, want %s", name, p, c.want[i])
			}
		}
	}
}
