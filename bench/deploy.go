package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hozo-dev/hozo/internal/lab"
)

const (
	ansibleName = "ansible"
	// noops is how many resources a host must have in the comparison, all of which it has.
	noops = 50
	// deployHosts is the number of hosts of the largest round.
	deployHosts = 20
	// fewTasks are the numbers of its tasks that Ansible runs on all hosts with -quick, where all 50 would take minutes.
	oneTask, fewTasks = 1, 6
	// maxWarm is what a host that has the agent may be sent, with the headers of every packet.
	maxWarm = 64 << 10
)

var deployMetrics = []metric{
	{"first", "s", "first contact with 20 hosts, 50 resources made; the agent is sent (Hozo alone)"},
	{"no-op, 1 host", "s", "50 resources that are there, one host"},
	{"no-op, 5 hosts", "s", "the same, five hosts (not with -quick)"},
	{"no-op, 20 hosts", "s", "the same, twenty hosts; Ansible with -quick: projected from 1 and 6 tasks"},
	{"change, 1 host", "s", "25 files with another content, one host (Hozo alone)"},
	{"distant, 1 host", "s", "no-op on one host that is 50 ms away, there and back (Hozo alone)"},
	{"sent, warm", "KiB", "bytes to one host over its cable, no-op"},
}

// deploys compares deploys to the same hosts, which are network namespaces with a real sshd.
func deploys(ctx context.Context, s *session) (err error) {
	s.report.Area = "deploy"
	bin := filepath.Join(s.dir, "bin", "hozo")
	s.say("building hozo")
	if _, err := output(ctx, s.root, "env", "CGO_ENABLED=0", "go", "build", "-o", bin, "./cmd/hozo"); err != nil {
		return fmt.Errorf("build hozo: %w", err)
	}
	l, err := lab.Start(ctx, s.dir, deployHosts)
	if err != nil {
		return err
	}
	defer l.Close()
	d := &deployRace{session: s, lab: l, bin: bin, grid: newGrid(deployMetrics, hozoName, ansibleName)}
	s.report.Grid = d.grid
	if err := d.write(); err != nil {
		return err
	}
	version, err := output(ctx, "", "ansible-playbook", "--version")
	if err != nil {
		return fmt.Errorf("ansible is missing: run bench/setup.sh: %w", err)
	}
	first, _, _ := strings.Cut(version, "\n")
	s.report.About = append(s.report.About, first+"; forks 20, pipelining, no facts, ControlPersist with connections open before the clock starts")
	if err := d.race(ctx); err != nil {
		return err
	}
	d.ratios()
	return d.verdict()
}

// deployRace is the rounds of the area.
type deployRace struct {
	session *session
	lab     *lab.Lab
	bin     string
	grid    *grid
	wrong   []error
}

func (d *deployRace) race(ctx context.Context) error {
	took, err := d.hozo(ctx, 50, deployHosts)
	if err != nil {
		return err
	}
	d.grid.add(hozoName, "first", took)
	// Connections of Ansible are open before it is measured.
	if _, err := d.ansible(ctx, oneTask, deployHosts); err != nil {
		return err
	}
	rounds := pick(d.session.quick, 1, d.session.rounds)
	sizes := pick(d.session.quick, []int{1, deployHosts}, []int{1, 5, deployHosts})
	for round := range rounds {
		for _, n := range sizes {
			name := fmt.Sprintf("no-op, %d host%s", n, pick(n == 1, "", "s"))
			d.session.say("round %d: %s", round+1, name)
			// Ours is quick: three turns, for a median within the round.
			for range 3 {
				before, err := d.lab.Hosts[0].Received(ctx)
				if err != nil {
					return err
				}
				took, err := d.hozo(ctx, 0, n)
				if err != nil {
					return err
				}
				after, err := d.lab.Hosts[0].Received(ctx)
				if err != nil {
					return err
				}
				d.grid.add(hozoName, name, took)
				d.grid.add(hozoName, "sent, warm", float64(after-before)/1024)
			}
			took, err := d.peer(ctx, n)
			if err != nil {
				return err
			}
			d.grid.add(ansibleName, name, took)
		}
		if err := d.more(ctx, round); err != nil {
			return err
		}
	}
	return nil
}

// peer measures Ansible with all tasks, or projects that from few.
func (d *deployRace) peer(ctx context.Context, hosts int) (float64, error) {
	if !d.session.quick || hosts == 1 {
		return d.ansible(ctx, noops, hosts)
	}
	one, err := d.ansible(ctx, oneTask, hosts)
	if err != nil {
		return 0, err
	}
	few, err := d.ansible(ctx, fewTasks, hosts)
	return one + (few-one)/(fewTasks-oneTask)*(noops-oneTask), err
}

// more is what only Hozo is measured with.
func (d *deployRace) more(ctx context.Context, round int) error {
	if err := d.manifest(fmt.Sprintf("round %d", round), ""); err != nil {
		return err
	}
	took, err := d.hozo(ctx, 25, 1)
	if err != nil {
		return err
	}
	d.grid.add(hozoName, "change, 1 host", took)
	addr, err := d.lab.Relay(d.lab.Hosts[0], 25*time.Millisecond)
	if err != nil {
		return err
	}
	if err := d.manifest(fmt.Sprintf("round %d", round), addr); err != nil {
		return err
	}
	if took, err = d.hozo(ctx, 0, 1); err != nil {
		return err
	}
	d.grid.add(hozoName, "distant, 1 host", took)
	// Back to what Ansible's tasks say.
	if err := d.manifest("text", ""); err != nil {
		return err
	}
	_, err = d.hozo(ctx, 25, 1)
	return err
}

// hozo deploys to the first hosts and returns the seconds that it took. The checker wants changed resources on each host
// and one login.
func (d *deployRace) hozo(ctx context.Context, changed, hosts int) (float64, error) {
	args := []string{"deploy", "-e", "prod", "-y", "--json"}
	logins := make([]int, hosts)
	for i, h := range d.lab.Hosts[:hosts] {
		args, logins[i] = append(args, "--host", h.Name), h.Logins()
	}
	cmd := d.lab.Command(ctx, d.bin, args...)
	cmd.Dir, cmd.Env = d.session.dir, []string{"PATH=/usr/bin:/bin", "HOME=" + d.session.dir}
	out, took, err := timed(cmd)
	if err != nil {
		return 0, err
	}
	for i, h := range d.lab.Hosts[:hosts] {
		if n := h.Logins() - logins[i]; n != 1 {
			d.wrong = append(d.wrong, fmt.Errorf("%w: hozo logged in on %s %d times in one deploy", errWrong, h.Name, n))
		}
		want := `{"results":[]}` // nothing was to be done
		if changed > 0 {
			want = fmt.Sprintf(`{"host":%q,"changed":%d,"handled":0}`, h.Name, changed)
		}
		if !strings.Contains(out, want) {
			d.wrong = append(d.wrong, fmt.Errorf("%w: hozo, %s: no %s in %s", errWrong, h.Name, want, out))
		}
	}
	return took, nil
}

var recap = regexp.MustCompile(`(?m)^(h\d+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=0\s+failed=0`)

// ansible runs the first tasks on the first hosts; the checker wants all of them to be well and none to change anything.
func (d *deployRace) ansible(ctx context.Context, tasks, hosts int) (float64, error) {
	var names []string
	for _, h := range d.lab.Hosts[:hosts] {
		names = append(names, h.Name)
	}
	cmd := d.lab.Command(ctx, "ansible-playbook", "-i", "hosts.ini", "--limit", strings.Join(names, ","), fmt.Sprintf("play-%d.yml", tasks))
	cmd.Dir, cmd.Env = d.session.dir, []string{"PATH=/usr/bin:/bin", "HOME=" + d.session.dir, "LANG=C.UTF-8", "ANSIBLE_CONFIG=" + filepath.Join(d.session.dir, "ansible.cfg")}
	out, took, err := timed(cmd)
	if err != nil {
		return 0, err
	}
	found := recap.FindAllStringSubmatch(out, -1)
	if len(found) != hosts || slices.ContainsFunc(found, func(f []string) bool { return f[2] != fmt.Sprint(tasks) || f[3] != "0" }) {
		d.wrong = append(d.wrong, fmt.Errorf("%w: ansible, %d tasks on %d hosts: %q", errWrong, tasks, hosts, found))
	}
	return took, nil
}

// timed runs a command and returns what it wrote and the seconds that it took.
func timed(cmd *exec.Cmd) (string, float64, error) {
	begin := monotonic()
	out, err := cmd.CombinedOutput()
	took := monotonic() - begin
	if err != nil {
		return "", 0, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out), took.Seconds(), nil
}

func (d *deployRace) ratios() {
	compare := func(name, metric string, bar float64) {
		ours, theirs := d.grid.get(hozoName, metric), d.grid.get(ansibleName, metric)
		d.session.report.Ratios = append(d.session.report.Ratios, ratio{name, theirs.median() / ours.median(), bar})
	}
	compare("deploy_noop_1_host_vs_ansible", "no-op, 1 host", 30)
	compare("deploy_noop_20_hosts_vs_ansible", "no-op, 20 hosts", 50)
	sent := d.grid.get(hozoName, "sent, warm")
	d.session.report.Ratios = append(d.session.report.Ratios, ratio{"deploy_warm_bytes_of_64KiB", maxWarm / 1024 / sent.quantile(1), 1})
}

func (d *deployRace) verdict() error {
	if err := errors.Join(d.wrong...); err != nil {
		return err
	}
	d.session.report.Checks = append(d.session.report.Checks,
		"every deploy of Hozo was one ssh login a host and changed what it had to", "no task of Ansible failed or changed anything")
	return nil
}

// write lays out what both are given.
func (d *deployRace) write() error {
	var inventory strings.Builder
	for _, h := range d.lab.Hosts {
		fmt.Fprintf(&inventory, "%s ansible_host=%s\n", h.Name, h.Addr)
	}
	config := fmt.Sprintf(`[defaults]
forks = %d
gathering = explicit
host_key_checking = True
remote_user = root
private_key_file = %s
interpreter_python = /usr/bin/python3
retry_files_enabled = False
[ssh_connection]
pipelining = True
control_path_dir = %s/cp
ssh_args = -o ControlMaster=auto -o ControlPersist=600s -o UserKnownHostsFile=%s
`, deployHosts, d.lab.KeyFile, d.session.dir, d.lab.Known)
	for name, text := range map[string]string{"hosts.ini": inventory.String(), "ansible.cfg": config} {
		if err := os.WriteFile(filepath.Join(d.session.dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	for _, n := range []int{oneTask, fewTasks, noops} {
		if err := os.WriteFile(filepath.Join(d.session.dir, fmt.Sprintf("play-%d.yml", n)), []byte(playbook(n)), 0o600); err != nil {
			return err
		}
	}
	return d.manifest("text", "")
}

// The 50 resources: 25 files, 10 directories, 10 lines and 5 users. Users come first, so that few tasks are not only files.
const (
	files, directories, confLines, users = 25, 10, 10, 5
)

// manifest writes hozo.yaml; every file holds text, and h1 is at addr if that is given.
func (d *deployRace) manifest(text, addr string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "project: bench\nssh: { user: root, key: %s, known_hosts: %s }\nhost:\n  all:\n", d.lab.KeyFile, d.lab.Known)
	for i := range users {
		fmt.Fprintf(&b, "    - { user: bench%d, system: true }\n", i)
	}
	for i := range directories {
		fmt.Fprintf(&b, "    - { directory: /srv/bench/d%d, mode: \"0750\" }\n", i)
	}
	for i := range files {
		fmt.Fprintf(&b, "    - { file: /srv/bench/f%d, content: \"%s %d\\n\", mode: \"0640\" }\n", i, text, i)
	}
	for i := range confLines {
		fmt.Fprintf(&b, "    - { line: \"127.0.1.%d bench%d\", in: /etc/hosts }\n", i, i)
	}
	b.WriteString("envs:\n  prod:\n    hosts:\n")
	for i, h := range d.lab.Hosts {
		at := h.Addr
		if i == 0 && addr != "" {
			at = addr
		}
		fmt.Fprintf(&b, "      %s: { addr: %q }\n", h.Name, at)
	}
	if addr != "" {
		if err := d.alsoKnown(addr); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(d.session.dir, "hozo.yaml"), []byte(b.String()), 0o600)
}

// alsoKnown adds the first host's key under the address of a relay.
func (d *deployRace) alsoKnown(addr string) error {
	text, err := os.ReadFile(d.lab.Known)
	if err != nil {
		return err
	}
	host, port, _ := strings.Cut(addr, ":")
	first, _, _ := strings.Cut(string(text), "\n")
	_, key, _ := strings.Cut(first, " ")
	return os.WriteFile(d.lab.Known, append(text, fmt.Sprintf("[%s]:%s %s\n", host, port, key)...), 0o600)
}

// playbook is the first n of the same resources for Ansible.
func playbook(n int) string {
	var tasks []string
	add := func(format string, args ...any) { tasks = append(tasks, fmt.Sprintf("    - "+format+"\n", args...)) }
	for i := range users {
		add("user: { name: bench%d, system: true, create_home: false, shell: /usr/sbin/nologin }", i)
	}
	for i := range directories {
		add("file: { path: /srv/bench/d%d, state: directory, mode: '0750' }", i)
	}
	for i := range files {
		add("copy: { dest: /srv/bench/f%d, content: \"text %d\\n\", mode: '0640' }", i, i)
	}
	for i := range confLines {
		add("lineinfile: { path: /etc/hosts, line: '127.0.1.%d bench%d' }", i, i)
	}
	if len(tasks) != noops {
		panic("bench: internal error: the playbook has other tasks than the manifest")
	}
	return "- hosts: all\n  gather_facts: false\n  tasks:\n" + strings.Join(tasks[:n], "")
}
