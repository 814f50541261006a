//go:build linux

package supervisord

import (
	"testing"

	"github.com/hozo-dev/hozo/internal/supervisord/conf"
)

func TestAuthorized(t *testing.T) {
	t.Parallel()
	const sha = "{SHA}82ab876d1387bfafe46cc1c8a2ef074eae50cb1d" // of "thepassword"
	for _, c := range []struct {
		stored, username, password string
		want                       bool
	}{
		{"plain", "u", "plain", true},
		{"plain", "u", "Plain", false},
		{"plain", "v", "plain", false},
		{"plain", "", "", false},
		{sha, "u", "thepassword", true},
		{sha, "u", sha, false},
		{sha, "u", sha[len("{SHA}"):], false},
	} {
		auth := conf.Auth{Username: "u", Password: c.stored, Required: true}
		if got := authorized(auth, c.username, c.password); got != c.want {
			t.Errorf("%q with %q against %q: %t", c.username, c.password, c.stored, got)
		}
	}
}

func TestUptimeReadsLikeTimedelta(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[int64]string{
		-5: "0:00:00", 0: "0:00:00", 59: "0:00:59", 3661: "1:01:01", 86400: "1 day, 0:00:00", 2*86400 + 7384: "2 days, 2:03:04",
	} {
		if got := uptime(seconds); got != want {
			t.Errorf("%d s reads %q, want %q", seconds, got, want)
		}
	}
}

func TestSubscriptionsReachDown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind eventKind
		name string
		want bool
	}{
		{"PROCESS_STATE_RUNNING", "PROCESS_STATE_RUNNING", true},
		{"PROCESS_STATE_RUNNING", "PROCESS_STATE", true},
		{"PROCESS_STATE_RUNNING", "EVENT", true},
		{"PROCESS_STATE_RUNNING", "PROCESS_STATE_EXITED", false},
		{"TICK_5", "TICK", true},
		{"TICK_60", "TICK_6", false},
		{"TICK_3600", "TICK_60", false},
	} {
		if got := c.kind.is(c.name); got != c.want {
			t.Errorf("%s for %s: %t", c.kind, c.name, got)
		}
	}
}
