package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/internal/lab"
)

// site is a project with hosts in a lab.
type site struct {
	*lab.Lab
	dir string
}

func newSite(t *testing.T, hosts int) site {
	t.Helper()
	s := site{lab.New(t, hosts), t.TempDir()}
	var list strings.Builder
	for _, h := range s.Hosts {
		fmt.Fprintf(&list, "      %s: { addr: %s, roles: [web] }\n", h.Name, h.Addr)
	}
	s.write(t, "hozo.yaml", fmt.Sprintf(`project: shop
vars: { domain: localhost }
ssh: { user: root, key: %s, known_hosts: %s }
host:
  all:
    - { user: app, system: true }
  web:
    - { directory: /srv/shop, owner: app }
    - file: /srv/shop/motto
      from: motto.tmpl
      notify: command reload
    - command: reload
      run: [sh, -c, echo reloaded >>/srv/shop/log]
    - { file: /srv/shop/key, content: "hush-hush", secret: true, mode: "0600" }
envs:
  prod:
    vars: { domain: shop.example }
    hosts:
%s`, s.KeyFile, s.Known, list.String()))
	s.write(t, "motto.tmpl", "This is {{ .domain }}.\n")
	return s
}

func (s site) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// hozo runs the command line where the controller is, and returns what it wrote and its exit status.
func (s site) hozo(t *testing.T, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := s.Command(t.Context(), filepath.Join(binDir, "hozo"), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + s.dir}
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), talk.String(), exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), talk.String(), 0
}

func TestHostsArePlannedDeployedAndThenInOrder(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2)
	out, talk, status := s.hozo(t, "plan", "-e", "prod", "-o", "saved.json")
	for _, want := range []string{"h1, h2:\n  + user app\n", "  + file /srv/shop/motto\n", "      +This is shop.example.\n", "content (changed)", "@ command reload (notified)", "2 hosts, 8 changes, 2 notifications"} {
		if !strings.Contains(out, want) {
			t.Errorf("the plan lacks %q:\n%s%s", want, out, talk)
		}
	}
	if status != 2 || strings.Contains(out, "hush") {
		t.Errorf("status %d: %s", status, out)
	}
	if _, talk, status := s.hozo(t, "deploy", "-e", "prod"); status != 2 || !strings.Contains(talk, "cli/must-ask") {
		t.Errorf("asked nobody: status %d, %s", status, talk)
	}
	if out, talk, status := s.hozo(t, "deploy", "-e", "prod", "saved.json"); status != 0 || !strings.Contains(talk, "h1: 4 changed, 1 notified") || !strings.Contains(talk, "h2  @ command reload  run") {
		t.Errorf("status %d, %s%s", status, out, talk)
	}
	if out, talk, status := s.hozo(t, "plan", "-e", "prod"); status != 0 || out != "h1, h2: nothing to do\n2 hosts, 0 changes, 0 notifications\n" {
		t.Errorf("status %d: %s%s", status, out, talk)
	}
	// What somebody changes by hand is found, on that host alone, and an older plan is refused.
	if _, err := s.Hosts[1].Run(t.Context(), "echo by hand >>/srv/shop/motto"); err != nil {
		t.Fatal(err)
	}
	out, _, status = s.hozo(t, "plan", "-e", "prod")
	if status != 2 || !strings.Contains(out, "h1: nothing to do\nh2:\n  ~ file /srv/shop/motto\n") || !strings.Contains(out, "      -by hand\n") {
		t.Errorf("status %d: %s", status, out)
	}
	if _, talk, status := s.hozo(t, "deploy", "-e", "prod", "saved.json"); status != 1 || !strings.Contains(talk, "deploy/stale-plan") {
		t.Errorf("status %d: %s", status, talk)
	}
	if out, talk, status := s.hozo(t, "deploy", "-e", "prod", "-y", "--json", "--host", "h2"); status != 0 || !strings.Contains(out, `"what":"done"`) || !strings.Contains(out, `"results":[{"host":"h2","changed":1,"handled":1}]`) {
		t.Errorf("status %d: %s%s", status, out, talk)
	}
	if log, err := s.Hosts[1].Run(t.Context(), "cat /srv/shop/log"); err != nil || log != "reloaded\nreloaded\n" {
		t.Errorf("%q, %v", log, err)
	}
	for i, want := range []int{5, 6} { // one session each time that the host was looked at
		if n := s.Hosts[i].Logins(); n != want {
			t.Errorf("%s: %d logins, want %d", s.Hosts[i].Name, n, want)
		}
	}
}

func TestMistakesAreSaidBeforeAnyHostIsReached(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := site{dir: dir}
	run := func(args ...string) (string, int) {
		cmd := exec.Command(filepath.Join(binDir, "hozo"), args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return string(out), exit.ExitCode()
		}
		return string(out), 0
	}
	s.write(t, "hozo.yaml", `project: shop
host:
  all:
    - { file: /etc/a, from: a.tmpl }
    - { file: /etc/b, from: missing }
envs:
  prod: { hosts: { a1: { addr: 192.0.2.1 }, a2: { addr: 192.0.2.2, vars: { color: red } } } }
  empty: {}
`)
	s.write(t, "a.tmpl", "one\n{{ .colour }}\n")
	out, status := run("plan", "-e", "prod")
	for _, want := range []string{"a.tmpl:2:3", `there is no variable "colour" [deploy/bad-template]`, "hozo.yaml:5", "deploy/no-file"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said:\n%s", want, out)
		}
	}
	if status != 1 || strings.Count(out, "deploy/no-file") != 1 {
		t.Errorf("status %d:\n%s", status, out)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"deploy/no-hosts", []string{"deploy", "-y"}},
		{"deploy/no-hosts", []string{"deploy", "-y", "-e", "empty"}},
		{"manifest/unknown-env", []string{"deploy", "-y", "-e", "prd"}},
		{"deploy/unknown-host-name", []string{"deploy", "-y", "-e", "prod", "--host", "a3"}},
		{"cli/no-host", []string{"config", "-e", "prod"}},
		{"cli/no-plan", []string{"deploy", "-e", "prod", "--host", "a1", "none.json"}},
	} {
		s.write(t, "missing", "")
		s.write(t, "a.tmpl", "one\n")
		if out, status := run(c.args...); status != 2 || !strings.Contains(out, c.want) {
			t.Errorf("%v: status %d: %s", c.args, status, out)
		}
	}
}

func TestConfigSaysWhereEachValueComesFrom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := site{dir: dir}
	s.write(t, "hozo.yaml", `project: shop
vars: { domain: localhost, workers: 2 }
host:
  all:
    - file: /etc/shop
      content: "{{ .domain }} {{ .workers }} {{ .host }}"
envs:
  prod:
    vars: { domain: shop.example }
    hosts:
      a1: { addr: 10.0.0.1, vars: { workers: 9 } }
`)
	cmd := exec.Command(filepath.Join(binDir, "hozo"), "config", "-e", "prod", "--host", "a1", "--origin")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"  domain: shop.example", "# hozo.yaml:9", "  workers: 9", "# hozo.yaml:11", "    | shop.example 9 a1", "# hozo.yaml:5"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
}
