package deploy_test

import (
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/hozo-dev/hozo/fault"
	"github.com/hozo-dev/hozo/internal/deploy"
	"github.com/hozo-dev/hozo/internal/lab"
)

// refused runs a plan that must fail with a code, and returns what is said.
func refused(t *testing.T, cfg deploy.Config, code string) string {
	t.Helper()
	_, _, err := deploy.Run(t.Context(), cfg)
	if got := fault.Code(err); got != code {
		t.Fatalf("%q, want %q: %v", got, code, err)
	}
	return fault.Render(err)
}

func TestOnlyKnownHostsAreTrusted(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	h := l.Hosts[0]
	cfg := config(l, file("/srv/f", "x\n"))
	if err := h.ChangeKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	if said := refused(t, cfg, "deploy/host-key-changed"); !strings.Contains(said, "SHA256:") || !strings.Contains(said, "ssh-keygen -R 10.77.0.1") {
		t.Error(said)
	}
	if err := os.WriteFile(l.Known, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	said := refused(t, cfg, "deploy/unknown-host")
	_, line, ok := strings.Cut(said, "add to known_hosts: ")
	if !ok {
		t.Fatal(said)
	}
	if n := h.Logins(); n != 0 {
		t.Errorf("logged in %d times", n)
	}
	if err := os.WriteFile(l.Known, []byte(line), 0o600); err != nil { // the advice works
		t.Fatal(err)
	}
	mustRun(t, cfg)
}

func TestALoginThatIsRefusedSaysWhichKeysWereTried(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	cfg := config(l, file("/srv/f", "x\n"))
	home := t.TempDir()
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(stranger, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	locked := filepath.Join(home, ".ssh", "id_ed25519")
	if err := os.WriteFile(locked, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Home, cfg.Hosts[0].Target.Key = home, ""
	if said := refused(t, cfg, "deploy/refused"); !strings.Contains(said, "run ssh-add "+locked) || !strings.Contains(said, "root@10.77.0.1:22") {
		t.Error(said)
	}

	// The key is in an agent: that is enough.
	text, err := os.ReadFile(l.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	ring := agent.NewKeyring()
	if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "hz") // a unix socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, err := net.Listen("unix", filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			_ = agent.ServeAgent(ring, conn) // ends when the client hangs up
			_ = conn.Close()
		}
	}()
	cfg.Getenv = func(name string) string {
		return map[string]string{"SSH_AUTH_SOCK": filepath.Join(dir, "agent")}[name]
	}
	mustRun(t, cfg)
	_ = socket.Close()
	<-served
}

func TestTheUsersSSHConfigurationIsFollowed(t *testing.T) {
	t.Parallel()
	l := settled(t, 2)
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(home, "known")
	text, err := os.ReadFile(l.Known)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(known, []byte(strings.ReplaceAll(string(text), "10.77.0.1 ", "web ")), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("Host web\n  HostName 10.77.0.1\n  ProxyJump 10.77.0.2\nMatch host 10.77.0.1,10.77.0.2\n  User root\nHost *\n  IdentityFile %s\n  UserKnownHostsFile %s\n  User root\n", l.KeyFile, known)
	if err := os.WriteFile(filepath.Join(home, ".ssh", "config"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := config(l, file("/srv/f", "x\n"))
	cfg.Home, cfg.Hosts = home, cfg.Hosts[:1]
	cfg.Hosts[0].Target = deploy.Target{Addr: "web"}
	if _, results := mustRun(t, cfg); results[0].Changed != 1 {
		t.Errorf("%+v", results)
	}
	if log := l.Hosts[0].Log(); l.Hosts[1].Logins() != 1 || !strings.Contains(log, "Accepted publickey for root from 10.77.0.2") {
		t.Errorf("not through the jump host: %s", log)
	}
}

func TestAJumpHostIsLoggedInToOnceForAllHosts(t *testing.T) {
	t.Parallel()
	l := settled(t, 4)
	cfg := config(l, file("/srv/f", "x\n"))
	cfg.Hosts = cfg.Hosts[1:]
	for i := range cfg.Hosts {
		cfg.Hosts[i].Target.Jump = []string{"root@10.77.0.1"}
	}
	var dialled atomic.Int64
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled.Add(1)
		return l.Dial(ctx, network, addr)
	}
	if _, results := mustRun(t, cfg); len(results) != 3 {
		t.Errorf("%+v", results)
	}
	if n := dialled.Load(); n != 1 || l.Hosts[0].Logins() != 1 || l.Hosts[3].Logins() != 1 {
		t.Errorf("%d connections, %d logins on the jump host", n, l.Hosts[0].Logins())
	}
}

// user makes a user that may log in and become root by sudo, with a password or without.
func user(t *testing.T, h *lab.Host, rule string) {
	t.Helper()
	script := `useradd -m -s /bin/bash ops && usermod -p "$(openssl passwd -6 open-sesame)" ops && echo '` + rule + `' >/etc/sudoers.d/ops && chmod 440 /etc/sudoers.d/ops && chmod 644 /run/lab/authorized && chmod 755 /run/lab
printf 'auth required pam_unix.so\naccount required pam_unix.so\nsession required pam_permit.so\n' >/etc/pam.d/sudo
# What a login prints is none of the agent's words.
printf 'echo welcome\necho "to this host" >&2\n' >>/home/ops/.bashrc; sed -i '1iecho early' /home/ops/.bashrc`
	if _, err := h.Run(t.Context(), script); err != nil {
		t.Fatal(err)
	}
}

func TestAnOrdinaryUserBecomesRootBySudo(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	h := l.Hosts[0]
	user(t, h, "ops ALL=(ALL) NOPASSWD: ALL")
	cfg := config(l, file("/srv/f", "x\n"))
	cfg.Hosts[0].Target.User = "ops"
	if _, results := mustRun(t, cfg); results[0].Changed != 1 {
		t.Errorf("%+v", results)
	}
	if out, err := h.Run(t.Context(), "stat -c %U /srv/f; ls /home/ops/.cache 2>/dev/null || true"); err != nil || out != "root\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestSudoGetsItsPasswordAndNobodyElseSeesIt(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	h := l.Hosts[0]
	user(t, h, "ops ALL=(ALL) ALL")
	cfg := config(l, file("/srv/f", "x\n"))
	cfg.Hosts[0].Target.User = "ops"
	if said := refused(t, cfg, "deploy/sudo"); !strings.Contains(said, "--sudo-password") {
		t.Error(said)
	}
	cfg.SudoPassword = "wrong"
	refused(t, cfg, "deploy/wrong-password")
	cfg.SudoPassword = "open-sesame"
	if _, results := mustRun(t, cfg); results[0].Changed != 1 {
		t.Errorf("%+v", results)
	}
	if out, err := h.Run(t.Context(), "grep -r open-sesame /var/lib/hozo/deploy /srv /home/ops || true"); err != nil || out != "" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestAnAgentIsPutWhereItCanRun(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 1)
	h := l.Hosts[0]
	if err := h.Limit(t.Context(), "/var/lib/hozo", 1<<20, "noexec"); err != nil {
		t.Fatal(err)
	}
	cfg := config(l, file("/srv/f", "x\n"))
	mustRun(t, cfg)
	if out, err := h.Run(t.Context(), "ls /usr/local/lib/hozo/agent | wc -l"); err != nil || out != "1\n" {
		t.Errorf("%q, %v", out, err)
	}
	for _, dir := range []string{"/usr/local/lib/hozo", "/root/.cache/hozo"} {
		if err := h.Limit(t.Context(), dir, 1<<20, "noexec"); err != nil {
			t.Fatal(err)
		}
	}
	if said := refused(t, cfg, "deploy/no-agent"); !strings.Contains(said, "noexec") {
		t.Error(said)
	}
}

func TestAFullDiskIsSaidAndChangesNothing(t *testing.T) {
	t.Parallel()
	l := lab.New(t, 1)
	h := l.Hosts[0]
	for _, dir := range []string{"/var/lib/hozo/agent", "/srv/small"} {
		if err := h.Limit(t.Context(), dir, 64<<10); err != nil {
			t.Fatal(err)
		}
	}
	cfg := config(l, file("/srv/small/f", strings.Repeat("0123456789abcdef", 1<<14)))
	if said := refused(t, cfg, "deploy/no-agent"); !strings.Contains(said, "/var/lib/hozo/agent") {
		t.Error(said)
	}
	if _, err := h.Run(t.Context(), "umount /var/lib/hozo/agent"); err != nil {
		t.Fatal(err)
	}
	_, _, err := deploy.Run(t.Context(), cfg)
	if fault.Code(err) != "resource/failed" || !strings.Contains(err.Error(), "no space left") {
		t.Error(err)
	}
	if out, err := h.Run(t.Context(), "ls -A /srv/small"); err != nil || out != "" {
		t.Errorf("left %q, %v", out, err)
	}
	if err := h.Limit(t.Context(), "/var/lib/hozo/deploy", 4<<10); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(t.Context(), "head -c 100000 /dev/zero >/var/lib/hozo/deploy/big 2>/dev/null; true"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := deploy.Run(t.Context(), config(l, file("/srv/g", "x\n"))); fault.Code(err) != "deploy/no-state" {
		t.Error(err)
	}
	if _, err := os.Stat(h.Path("/srv/g")); err == nil {
		t.Error("changed without a journal")
	}
}

func TestAHostThatDoesNotAnswerIsSaidToBeSo(t *testing.T) {
	t.Parallel()
	l := settled(t, 1)
	cfg := config(l, file("/srv/f", "x\n"))
	cfg.Hosts[0].Target.Addr = "10.77.0.254" // the switch, where no sshd is
	if said := refused(t, cfg, "deploy/unreachable"); !strings.Contains(said, "connection refused") || !strings.Contains(said, "root@10.77.0.254:22") {
		t.Error(said)
	}
}
