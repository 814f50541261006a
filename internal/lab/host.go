//go:build linux

package lab

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Host is one host of a lab. It is on until Kill, and on again after Boot, with the files that it had.
type Host struct {
	Name string // "h1"
	Addr string // of sshd, port 22

	lab     *Lab
	public  string // host key, as a line
	private []byte
	cmd     *exec.Cmd // unshare; nil while the host is off
	pid     int       // of the host's init, seen from here
}

// init is what a host runs as its first process. It waits for a line, by which its cable is in.
const initScript = `set -e
H=%[1]s/%[2]s; R=$H/root
mount --make-rprivate /
mkdir -p $H/up $H/work $R
mount -t overlay lab -o lowerdir=/,upperdir=$H/up,workdir=$H/work $R
mount -t proc proc $R/proc
mount -t sysfs -o ro sys $R/sys
mount --rbind /dev $R/dev
for d in run tmp; do mount -t tmpfs -o mode=1777 tmp $R/$d; done
mkdir -p -m 755 $R/run/sshd $R/run/lab
cp $H/key $R/run/lab/key; cp $H/authorized $R/run/lab/authorized; cp $H/sshd_config $R/run/lab/
chmod 600 $R/run/lab/key
hostname %[2]s
ip link set lo up
echo ready
read wait
ip link set eth0 address %[4]s
ip addr add %[3]s/24 dev eth0
ip link set eth0 up
exec </dev/null >/dev/null 2>>$H/sshd.log
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot $R /usr/sbin/sshd -D -e -f /run/lab/sshd_config
`

// MaxStartups stays at its default: it is part of what is tested.
const sshdConfig = `HostKey /run/lab/key
AuthorizedKeysFile /run/lab/authorized
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
PermitUserEnvironment no
LogLevel VERBOSE
PidFile none
UseDNS no
`

// Boot turns the host on and returns once its sshd accepts connections.
func (h *Host) Boot(ctx context.Context) error {
	dir := h.lab.inside(h.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"key": string(h.private), "authorized": h.lab.key + "\n", "sshd_config": sshdConfig} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	cmd := exec.Command("nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", h.lab.ground.Process.Pid), "--",
		"unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child=KILL", "sh", "-c", fmt.Sprintf(initScript, base, h.Name, h.Addr, h.mac()))
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start host %s: %w", h.Name, err)
	}
	h.cmd = cmd
	lines := bufio.NewReader(out)
	if line, _ := lines.ReadString('\n'); line != "ready\n" {
		rest, _ := io.ReadAll(lines) // both streams are one pipe: it holds the reason
		h.Kill()
		return fmt.Errorf("%w: host %s: %s%s", ErrCannot, h.Name, line, bytes.TrimSpace(rest))
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		return err
	}
	if _, err := fmt.Sscan(string(children), &h.pid); err != nil {
		return fmt.Errorf("find init of host %s: %w", h.Name, err)
	}
	_ = h.lab.ip("link", "del", h.cable()) // of the time before a Kill; the kernel may have been faster
	if err := h.lab.ip("link", "add", h.cable(), "type", "veth", "peer", "name", "eth0", "netns", fmt.Sprint(h.pid)); err != nil {
		return err
	}
	if err := h.lab.ip("link", "set", h.cable(), "master", "br0", "up"); err != nil {
		return err
	}
	if _, err := io.WriteString(in, "go\n"); err != nil {
		return err
	}
	return h.awaitSSH(ctx)
}

// mac stays the same through boots, or the others would talk to the cable of before for half a minute.
func (h *Host) mac() string {
	ip := net.ParseIP(h.Addr).To4()
	return fmt.Sprintf("02:77:%02x:%02x:%02x:%02x", ip[0], ip[1], ip[2], ip[3])
}

func (h *Host) cable() string { return "cable-" + h.Name }

// awaitSSH waits until sshd says something; a minute is far beyond the 50 ms that it takes.
func (h *Host) awaitSSH(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := h.lab.Dial(ctx, "tcp", h.Addr+":22")
		if err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			hello := make([]byte, 4)
			_, err = io.ReadFull(conn, hello)
			_ = conn.Close()
			if err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("sshd of %s does not answer: %w\n%s", h.Name, err, h.Log())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Kill cuts the power: every process of the host ends at once. What was written stays.
func (h *Host) Kill() {
	if h.cmd == nil {
		return
	}
	if h.pid != 0 {
		_ = syscall.Kill(h.pid, syscall.SIGKILL) // init: the kernel kills the rest, and then unshare ends
	} else {
		_ = h.cmd.Process.Kill()
	}
	_ = h.cmd.Wait() // killed: its status says nothing
	h.cmd, h.pid = nil, 0
}

// Cut takes the host's cable out.
func (h *Host) Cut() error { return h.lab.ip("link", "set", h.cable(), "down") }

// Mend puts the cable back.
func (h *Host) Mend() error { return h.lab.ip("link", "set", h.cable(), "up") }

// Limit puts a file system of that many bytes on a folder of the host, which is made if need be; what was in it is hidden.
func (h *Host) Limit(ctx context.Context, dir string, bytes int64, options ...string) error {
	if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
		return err
	}
	opts := strings.Join(append([]string{fmt.Sprintf("size=%d", bytes)}, options...), ",")
	return run(h.Command(ctx, "mount", "-t", "tmpfs", "-o", opts, "small", dir))
}

// ChangeKey gives sshd another host key, as a stranger on the same address has one. Connections end.
func (h *Host) ChangeKey(ctx context.Context) error {
	h.Kill()
	if err := h.newHostKey(); err != nil {
		return err
	}
	return h.Boot(ctx)
}

func (h *Host) newHostKey() (err error) {
	h.private, h.public, err = newKey()
	return err
}

// Command makes a command that runs on the host, as root, without ssh.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	pid := fmt.Sprint(h.pid)
	all := []string{"--target", pid, "--mount", "--net", "--pid", "--uts", "--root", "--wdns=/", "--", name}
	cmd := exec.CommandContext(ctx, "nsenter", append(all, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	return cmd
}

// Run runs a shell command on the host and returns what it wrote.
func (h *Host) Run(ctx context.Context, script string) (string, error) {
	out, err := h.Command(ctx, "sh", "-c", script).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %q: %w: %s", h.Name, script, err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

// Path is where a file of the host is, seen from here, while the host is on.
func (h *Host) Path(path string) string {
	return filepath.Join("/proc", fmt.Sprint(h.pid), "root", path)
}

// Log is what sshd has written so far.
func (h *Host) Log() string {
	text, err := os.ReadFile(h.lab.inside(h.Name, "sshd.log"))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Logins is how many connections sshd has let in so far.
func (h *Host) Logins() int { return strings.Count(h.Log(), "Accepted publickey") }

// Received is how many bytes have come to the host over its cable so far, with all headers.
func (h *Host) Received(ctx context.Context) (int64, error) {
	out, err := h.lab.Command(ctx, "ip", "-j", "-s", "link", "show", h.cable()).Output()
	if err != nil {
		return 0, err
	}
	var links []struct {
		Stats struct {
			TX struct{ Bytes int64 }
		} `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return 0, fmt.Errorf("read counters of %s: %w: %s", h.Name, err, out)
	}
	return links[0].Stats.TX.Bytes, nil
}

// Layer is what a host has written outside of /run and /tmp: each path that differs from the machine's own file system,
// with a word that changes whenever the path does. What was removed is in it as well.
type Layer map[string]string

// Since lists the paths that are not as they were before, sorted.
func (l Layer) Since(before Layer) []string {
	var all []string
	for path, word := range l {
		if before[path] != word {
			all = append(all, path)
		}
	}
	for path := range before {
		if _, ok := l[path]; !ok {
			all = append(all, path)
		}
	}
	slices.Sort(all)
	return all
}

// Layer looks at the host's own layer of its file system. Folders that are there only to lead to something are left out.
func (h *Host) Layer() (Layer, error) {
	up := h.lab.inside(h.Name, "up")
	layer := Layer{}
	err := filepath.WalkDir(up, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, up)
		stat := info.Sys().(*syscall.Stat_t)
		word := fmt.Sprint(info.Mode(), stat.Uid, stat.Gid)
		if d.IsDir() {
			// One that is below as well was copied up to lead to what is in it, if it is as it is there.
			below, err := os.Lstat(filepath.Join("/", rel))
			if rel == "" || err == nil && fmt.Sprint(below.Mode(), below.Sys().(*syscall.Stat_t).Uid, below.Sys().(*syscall.Stat_t).Gid) == word {
				return nil
			}
		} else {
			word += fmt.Sprint(info.Size(), stat.Ino, stat.Mtim)
		}
		layer[rel] = word
		return nil
	})
	return layer, err
}
