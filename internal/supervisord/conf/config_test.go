package conf

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hozo-dev/hozo/fault"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var corpusOptions = Options{Environ: []string{"HOME=/root", "PATH=/usr/bin:/bin", "WHERE=he"}, NodeName: "host"}

func corpus(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", dir, "*.conf"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no corpus in testdata/%s: %v", dir, err)
	}
	return paths
}

func (o *oracle) config(t *testing.T, path string) reply {
	t.Helper()
	environ := map[string]string{}
	for _, pair := range corpusOptions.Environ {
		key, v, _ := strings.Cut(pair, "=")
		environ[key] = v
	}
	return o.ask(t, map[string]any{"ask": "config", "path": path, "environ": environ, "node": corpusOptions.NodeName})
}

func TestGoodFilesReadAsSupervisorReadsThem(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	stock := filepath.Join(t.TempDir(), "sample.conf")
	text, err := os.ReadFile("/usr/lib/python3/dist-packages/supervisor/skel/sample.conf")
	if err != nil {
		t.Fatalf("%v (run make deps)", err)
	}
	// The sample twice: as it comes, and with every example in it switched on.
	if err := os.WriteFile(stock, text, 0o600); err != nil {
		t.Fatal(err)
	}
	paths := append(corpus(t, "good"), stock, "/etc/supervisor/supervisord.conf", switchedOn(t, string(text)))
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, warnings, err := Load(path, corpusOptions)
			if err != nil {
				t.Fatal(fault.Render(err))
			}
			equal(t, path, dump(c, warnings), o.config(t, path).raw)
			if !filepath.IsAbs(path) {
				var b strings.Builder
				for _, w := range warnings {
					fmt.Fprintf(&b, "warning: %s [%s]\n  at:  %s\n  fix: %s\n", w.Text, w.Code, w.Position, w.Fix)
				}
				golden(t, strings.TrimSuffix(path, ".conf")+".warnings", b.String())
			}
		})
	}
}

// switchedOn takes the semicolons from before the examples in the sample, whose values must exist on this machine.
func switchedOn(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(text) {
		rest, commented := strings.CutPrefix(line, ";")
		if commented && (strings.HasPrefix(rest, "[") || strings.Contains(strings.SplitN(rest, ";", 2)[0], "=") && !strings.HasPrefix(rest, " ")) {
			line = rest
		}
		b.WriteString(line)
	}
	out := strings.NewReplacer("chrism", "root", "user=supervisord", "user=root", "=/a/path", "=/tmp/a", "redirect_stderr=true ", "redirect_stderr=false ", "programs=progname1,progname2", "programs=theprogramname").Replace(b.String())
	path := filepath.Join(t.TempDir(), "switched-on.conf")
	if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBadFilesAreRefusedInSupervisorsWordsAndOurs(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	for _, path := range corpus(t, "bad") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c, _, err := Load(path, corpusOptions)
			if err == nil || c != nil {
				t.Fatalf("accepted: %+v", c)
			}
			for _, one := range fault.Flatten(err) {
				f, ok := fault.As(one)
				if !ok || f.Kind != fault.Misuse || f.What == "" || f.Where == "" || f.Fix == "" || !strings.HasPrefix(f.Code, "supervisord/") {
					t.Errorf("incomplete fault %+v", f)
				}
			}
			golden(t, strings.TrimSuffix(path, ".conf")+".txt", fault.Render(err))
			theirs := o.config(t, path).Error
			switch filepath.Base(path) {
			case "bare-percent.conf": // Supervisor writes out its environment instead: refused here on purpose
				if theirs != nil {
					t.Errorf("Supervisor refuses it too now: %s", *theirs)
				}
			case "latin1.conf": // Python's words are about its codec
				if theirs == nil {
					t.Error("Supervisor accepts it")
				}
			default:
				if theirs == nil {
					t.Errorf("Supervisor accepts it")
				} else if Message(err) != *theirs {
					t.Errorf("Supervisor's words are not ours:\n ours   %s\n theirs %s", Message(err), *theirs)
				}
			}
		})
	}
}

func TestAMissingFileIsSaidInSupervisorsWords(t *testing.T) {
	t.Parallel()
	_, _, err := Load("/no/such.conf", Options{})
	if got, want := Message(err), "could not find config file /no/such.conf"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	theirs := newOracle(t).config(t, "/no/such.conf")
	if theirs.Error == nil || *theirs.Error != Message(err) {
		t.Errorf("Supervisor says %s", theirs.raw)
	}
	if fault.Code(err) != "supervisord/unreadable" {
		t.Errorf("code %s", fault.Code(err))
	}
	if _, _, err = Load(t.TempDir(), Options{}); Message(err) == "" || fault.ExitCode(err) != 2 {
		t.Errorf("a folder: %v", err)
	}
	if got := Message(errors.New("other")); got != "other" {
		t.Errorf("Message of a stranger: %q", got)
	}
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	got = strings.ReplaceAll(got, here, "$HERE")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run with -update)", err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// dump is a Config in the shape of the oracle's.
func dump(c *Config, warnings []Warning) map[string]any {
	orNil := func(s string) any {
		if s == "" {
			return nil
		}
		return s
	}
	d := c.Supervisord
	groups := []any{}
	for _, g := range c.Groups {
		programs := []any{}
		for _, p := range g.Programs {
			programs = append(programs, dumpProgram(p))
		}
		one := map[string]any{"name": g.Name, "priority": g.Priority, "programs": programs}
		if g.Listener != nil {
			one["buffer_size"], one["events"] = g.Listener.BufferSize, g.Listener.Events
		}
		if g.Socket != nil {
			socket := map[string]any{"url": g.Socket.URL(), "backlog": g.Socket.Backlog}
			if g.Socket.Network == "unix" {
				socket["mode"], socket["owner"] = int(g.Socket.Mode), []int{g.Socket.UID, g.Socket.GID}
			}
			one["socket"] = socket
		}
		groups = append(groups, one)
	}
	auth := func(a Auth) (any, any) {
		if !a.Required {
			return nil, nil
		}
		return a.Username, a.Password
	}
	servers := []any{}
	for _, s := range c.InetServers {
		name, password := auth(s.Auth)
		servers = append(servers, map[string]any{"host": s.Host, "port": s.Port, "username": name, "password": password, "section": s.Section})
	}
	for _, s := range c.UnixServers {
		name, password := auth(s.Auth)
		servers = append(servers, map[string]any{"file": s.File, "chmod": int(s.Mode), "chown": []int{s.UID, s.GID}, "username": name, "password": password, "section": s.Section})
	}
	theirs := []string{} // Supervisor's own warnings
	for _, w := range warnings {
		switch w.Code {
		case "supervisord/no-include", "supervisord/stderr-redirected", "supervisord/auto-log-grows", "supervisord/syslog-file":
			theirs = append(theirs, w.Text)
		}
	}
	infos := []string{}
	for _, name := range c.Included {
		infos = append(infos, fmt.Sprintf("Included extra file %q during parsing", name))
	}
	return map[string]any{
		"supervisord": map[string]any{
			"minfds": d.MinFDs, "minprocs": d.MinProcs, "directory": orNil(d.Directory), "user": orNil(d.User), "umask": d.Umask,
			"logfile_maxbytes": d.LogfileMaxBytes, "logfile_backups": d.LogfileBackups, "loglevel": d.Loglevel, "identifier": d.Identifier,
			"nodaemon": d.NoDaemon, "silent": d.Silent, "childlogdir": d.ChildLogDir, "nocleanup": d.NoCleanup, "strip_ansi": d.StripANSI,
			"environment": d.Environment, "logfile": d.Logfile, "pidfile": d.Pidfile,
		},
		"groups": groups, "servers": servers, "warnings": theirs, "infos": infos, "serverurl": orNil(c.ServerURL()),
		"interfaces": append([]string{}, c.Interfaces...),
	}
}

func dumpProgram(p Program) map[string]any {
	orNil := func(set bool, v any) any {
		if !set {
			return nil
		}
		return v
	}
	channel := func(l Log) map[string]any {
		name := map[LogKind]string{LogAuto: "auto", LogNone: "none"}[l.Kind]
		return map[string]any{"logfile": cmp.Or(name, l.Path), "capture_maxbytes": l.CaptureMaxBytes, "events_enabled": l.Events, "syslog": l.Syslog, "logfile_backups": l.Backups, "logfile_maxbytes": l.MaxBytes}
	}
	return map[string]any{
		"name": p.Name, "command": p.Command, "directory": orNil(p.Directory != "", p.Directory), "umask": orNil(p.Umask >= 0, p.Umask),
		"priority": p.Priority, "startsecs": p.StartSecs, "startretries": p.StartRetries, "stopsignal": int(p.StopSignal),
		"stopwaitsecs": p.StopWaitSecs, "stopasgroup": p.StopAsGroup, "killasgroup": p.KillAsGroup, "exitcodes": append([]int{}, p.ExitCodes...),
		"redirect_stderr": p.RedirectStderr, "uid": orNil(p.UID >= 0, p.UID), "serverurl": orNil(p.ServerURL != "", p.ServerURL),
		"autostart": p.AutoStart, "environment": p.Environment, "stdout": channel(p.Stdout), "stderr": channel(p.Stderr),
		"autorestart": map[AutoRestart]string{RestartAlways: "always", RestartUnexpected: "unexpected", RestartNever: "never"}[p.AutoRestart],
	}
}

func TestEveryFieldOfAProgramIsCompared(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(dumpProgram(Program{}))
	if err != nil {
		t.Fatal(err)
	}
	var keys map[string]any
	if err := json.Unmarshal(text, &keys); err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("testdata/oracle.py")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range programKeys {
		bare := strings.TrimPrefix(strings.TrimPrefix(key, "stdout_"), "stderr_")
		_, direct := keys[bare]
		known := direct || slices.Contains([]string{"process_name", "user", "numprocs", "numprocs_start", "logfile"}, bare)
		if !known && !strings.Contains(string(source), `"`+bare+`"`) {
			t.Errorf("key %s is not compared", key)
		}
	}
}
