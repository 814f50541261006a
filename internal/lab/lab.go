//go:build linux

// Package lab makes hosts for tests and benchmarks of deploying: each is a network namespace with a cable of its own, a
// root that is the machine's own file system under a layer of its own, and a real sshd. There is no default route, so no
// host reaches anything but the others: what needs the internet fails here.
//
// Nothing of a lab has a name outside of it. Its file systems, networks and processes live in namespaces that end with
// the process that started it, whatever ends that; two labs at the same time do not know of each other.
//
// It needs Linux, root, and Debian's openssh-server, iproute2 and util-linux.
package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"
)

// base is where a lab's tmpfs lies inside its own mount namespace.
const base = "/mnt"

// Lab is a number of hosts and the switch between them. Its methods may be called by one goroutine at a time, except for
// Dial and Command.
type Lab struct {
	Hosts   []*Host
	KeyFile string // private key that may log in on every host as root
	Known   string // known_hosts file with the key of every host

	dir      string // of KeyFile and Known
	ground   *exec.Cmd
	hold     io.Closer // the ground ends when this is closed
	key      string    // authorized_keys line
	relaying []io.Closer
}

// ErrCannot is what Start fails with on a machine that is not able to hold a lab; the error says what is missing.
var ErrCannot = errors.New("this machine cannot hold a lab of hosts")

// New starts a lab for a test and ends it with the test. It skips the test where there cannot be one, and fails it where
// only a package is missing.
func New(t testing.TB, hosts int) *Lab {
	t.Helper()
	l, err := Start(t.Context(), t.TempDir(), hosts)
	if errors.Is(err, ErrCannot) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, h := range l.Hosts {
				t.Logf("sshd of %s:\n%s", h.Name, h.Log())
			}
		}
		l.Close()
	})
	return l
}

// Start boots hosts h1, h2, …, and returns once each accepts connections. dir takes the key and known_hosts files.
func Start(ctx context.Context, dir string, hosts int) (*Lab, error) {
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("%w: it takes root for namespaces and mounts", ErrCannot)
	}
	for _, tool := range []string{"/usr/sbin/sshd", "ip", "unshare", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("a lab needs %s: run internal/testkit/deps.sh", tool)
		}
	}
	l := &Lab{dir: dir, KeyFile: filepath.Join(dir, "id_ed25519"), Known: filepath.Join(dir, "known_hosts")}
	if err := l.build(ctx, hosts); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *Lab) build(ctx context.Context, hosts int) error {
	private, public, err := newKey()
	if err != nil {
		return err
	}
	l.key = public
	if err := os.WriteFile(l.KeyFile, private, 0o600); err != nil {
		return err
	}
	if err := l.layGround(); err != nil {
		return err
	}
	for i := range hosts {
		h := &Host{Name: fmt.Sprintf("h%d", i+1), Addr: fmt.Sprintf("10.77.0.%d", i+1), lab: l}
		if err := h.newHostKey(); err != nil {
			return err
		}
		if err := h.Boot(ctx); err != nil {
			return err
		}
		l.Hosts = append(l.Hosts, h)
	}
	return l.WriteKnownHosts()
}

// layGround makes the namespaces that outlive every host: the network of the switch, in which the controller is, and the
// mount namespace with the hosts' layers.
func (l *Lab) layGround() error {
	const script = `set -e
mount --make-rprivate /
mount -t tmpfs -o size=2g,mode=755 lab ` + base + `
ip link set lo up
ip link add br0 type bridge
ip addr add 10.77.0.254/24 dev br0
ip link set br0 up
echo ready
read wait || true`
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-c", script)
	out, err := l.begin(cmd)
	if err != nil {
		return err
	}
	l.ground = cmd
	if line, _ := out.ReadString('\n'); line != "ready\n" {
		rest, _ := io.ReadAll(out) // both streams are one pipe: it holds the reason
		return fmt.Errorf("%w: %s%s", ErrCannot, line, bytes.TrimSpace(rest))
	}
	return nil
}

// begin starts cmd so that it is killed with this process, and returns what it writes.
func (l *Lab) begin(cmd *exec.Cmd) (*bufio.Reader, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Args[0], err)
	}
	if l.ground == nil {
		l.hold = in
	}
	return bufio.NewReader(out), nil
}

// Close ends every host and forgets what they wrote. It may be called twice.
func (l *Lab) Close() {
	for _, r := range l.relaying {
		_ = r.Close() // its connections end with the hosts in any case
	}
	l.relaying = nil
	for _, h := range l.Hosts {
		h.Kill()
	}
	if l.ground != nil {
		_ = l.hold.Close()
		_ = l.ground.Process.Kill()
		_ = l.ground.Wait() // killed: its status says nothing
		l.ground = nil
	}
}

// Command makes a command that runs where the controller is: in the lab's network, with the machine's own files.
func (l *Lab) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + l.network(), "--", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (l *Lab) network() string { return fmt.Sprintf("/proc/%d/ns/net", l.ground.Process.Pid) }

// inside is the path of something in the lab's tmpfs, as seen from here.
func (l *Lab) inside(parts ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(l.ground.Process.Pid), "root", base}, parts...)...)
}

// ip changes the lab's network.
func (l *Lab) ip(args ...string) error {
	return run(l.Command(context.Background(), "ip", args...))
}

// WriteKnownHosts writes Known anew, with the keys that the hosts were given; after [Host.ChangeKey] it is the user who
// has been convinced that the new key is right.
func (l *Lab) WriteKnownHosts() error {
	var b strings.Builder
	for _, h := range l.Hosts {
		fmt.Fprintf(&b, "%s %s\n", h.Addr, h.public)
	}
	return os.WriteFile(l.Known, []byte(b.String()), 0o600)
}

// newKey makes an ed25519 key: the private one as OpenSSH stores it, the public one as a line.
func newKey() (private []byte, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, "", err
	}
	block, err := ssh.MarshalPrivateKey(priv, "lab")
	if err != nil {
		return nil, "", err
	}
	key, err := ssh.NewPublicKey(pub)
	if err != nil {
		return nil, "", err
	}
	return pem.EncodeToMemory(block), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))), nil
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
