package broker_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/hozo-dev/hozo/internal/broker"
	"github.com/hozo-dev/hozo/internal/testkit"
)

func TestOnlyListedUsersGetIn(t *testing.T) {
	t.Parallel()
	r := runBroker(t, broker.Config{Dir: testkit.TempDir(t)})
	refused(t, r.url, "", "")
	refused(t, r.url, "stranger", "secret")
	refused(t, r.url, broker.PlatformUser, "wrong")
	refused(t, r.url, "broker", "secret")
}

func TestBrokerFollowsTheAccessFile(t *testing.T) {
	t.Parallel()
	dir := testkit.TempDir(t)
	r := runBroker(t, broker.Config{Dir: dir})
	write := func(users ...broker.User) {
		t.Helper()
		if err := broker.WriteAccess(dir, broker.Access{Users: users}); err != nil {
			t.Fatal(err)
		}
	}
	allowed := func(user, password string) {
		t.Helper()
		nc, err := nats.Connect(r.url, nats.UserInfo(user, password), nats.NoReconnect(), nats.Timeout(testkit.Patience))
		if err != nil {
			t.Errorf("%q was refused: %v", user, err)
			return
		}
		nc.Close()
	}
	// Same length, so that the size alone does not tell.
	write(broker.User{Name: "a.1", PasswordSHA256: broker.HashPassword("one")})
	allowed("a.1", "one")
	write(broker.User{Name: "a.1", PasswordSHA256: broker.HashPassword("two")})
	allowed("a.1", "two")
	refused(t, r.url, "a.1", "one")
	write(broker.User{Name: "a.1", PasswordSHA256: "not hex"}, broker.User{Name: "a.2", PasswordSHA256: ""})
	refused(t, r.url, "a.1", "two")
	refused(t, r.url, "a.2", "")
	if err := os.WriteFile(filepath.Join(dir, "access.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, r.url, "a.1", "two")
	if err := os.Remove(filepath.Join(dir, "access.json")); err != nil {
		t.Fatal(err)
	}
	refused(t, r.url, broker.PlatformUser, "secret")
	write(broker.User{Name: "a.1", PasswordSHA256: broker.HashPassword("three")})
	allowed("a.1", "three")
}

func TestAccessFileIsPrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(testkit.TempDir(t), "broker")
	if err := broker.WriteAccess(dir, broker.Access{}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "access.json"): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s is %o, want %o", path, got, want)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, ".access*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
}
