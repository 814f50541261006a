package resource_test

import (
	"archive/tar"
	"bytes"
	"strings"

	"github.com/hozo-dev/hozo/internal/resource"
)

type with = map[string]any

func spec(kind, name string, w with) resource.Spec {
	return resource.Spec{Kind: kind, Name: name, With: w}
}

const someKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0000000000000000000000000000000000000000000 one"

// accountFiles are what useradd and its relatives write.
const accountFiles = "/etc/((passwd|shadow|group|gshadow|subuid|subgid)-?|.pwd.lock)"

// cases has the steps of every kind.
func cases() map[string][]step {
	return map[string][]step{
		"file": {
			{spec: spec("file", "/etc/f", nil), blob: "one\n", op: resource.Create, note: "+one", writes: []string{"/etc/f"}, ask: "cat /etc/f; stat -c '%U:%G %a' /etc/f", says: "one\nroot:root 644\n"},
			{spec: spec("file", "/etc/f", with{"mode": "0600", "group": "adm"}), blob: "two\n", op: resource.Update, note: "-one\n+two", writes: []string{"/etc/f"}, ask: "cat /etc/f; stat -c '%U:%G %a' /etc/f", says: "two\nroot:adm 600\n"},
			{spec: spec("file", "/etc/f", with{"mode": "2755"}), blob: "two\n", op: resource.Update, note: "mode 0600 -> 2755", writes: []string{"/etc/f"}, ask: "stat -c '%U:%G %a' /etc/f", says: "root:root 2755\n"},
			{before: "ln -s f /etc/link", spec: spec("file", "/etc/link", nil), blob: "three\n", op: resource.Update, note: "+three", writes: []string{"/etc/f"}, ask: "readlink /etc/link; cat /etc/f", says: "f\nthree\n"},
			{spec: spec("file", "/etc/f", with{"absent": true}), op: resource.Remove, writes: []string{"/etc/f"}},
			{spec: spec("file", "/etc/bytes", nil), blob: "\x00\xff", op: resource.Create, note: "2 bytes, not shown", writes: []string{"/etc/bytes"}},
			{spec: spec("file", "/etc", nil), blob: "x", fails: "a directory in its place"},
			{spec: spec("file", "/etc/none/f", nil), blob: "x", fails: "its folder does not exist"},
			{spec: spec("file", "/etc/g", with{"owner": "nobody-here"}), blob: "x", fails: "no user nobody-here"},
			{before: "mkfifo /etc/pipe", spec: spec("file", "/etc/pipe", nil), blob: "x", fails: "a special file in its place"},
			{
				needs: []resource.Spec{spec("user", "later", nil), spec("directory", "/srv/later", with{"owner": "later"})},
				spec:  spec("file", "/srv/later/f", with{"owner": "later"}), blob: "x\n", op: resource.Create, note: "owner later:root",
				writes: []string{"/srv/later(/f)?", "/etc/.*", "/home/later.*"}, ask: "stat -c %U /srv/later/f", says: "later\n",
			},
		},
		"directory": {
			{spec: spec("directory", "/srv/a/b", with{"mode": "0750", "group": "adm"}), op: resource.Create, note: "mode 0750", writes: []string{"/srv/a(/b)?"}, ask: "stat -c '%a %G' /srv/a /srv/a/b", says: "755 root\n750 adm\n"},
			{spec: spec("directory", "/srv/a/b", with{"mode": "1777"}), op: resource.Update, note: "mode 0750 -> 1777", writes: []string{"/srv/a/b"}},
			{before: "touch /srv/a/b/inside", spec: spec("directory", "/srv/a", with{"absent": true}), op: resource.Remove, writes: []string{"/srv/a.*"}},
			{before: "touch /srv/file", spec: spec("directory", "/srv/file", nil), fails: "something else in its place"},
			{spec: spec("directory", "/srv/file", with{"absent": true}), fails: "a file in its place"},
		},
		"line": {
			{before: "printf 'a=1\\nb=2\\n' >/etc/conf; chmod 640 /etc/conf", spec: spec("line", "c=3", with{"in": "/etc/conf"}), op: resource.Update, note: "+c=3", writes: []string{"/etc/conf"}, ask: "cat /etc/conf; stat -c %a /etc/conf", says: "a=1\nb=2\nc=3\n640\n"},
			{spec: spec("line", "b=9", with{"in": "/etc/conf", "match": "^b="}), op: resource.Update, note: "-b=2\n+b=9", writes: []string{"/etc/conf"}, ask: "cat /etc/conf", says: "a=1\nb=9\nc=3\n"},
			{spec: spec("line", "a=1", with{"in": "/etc/conf", "absent": true}), op: resource.Update, note: "-a=1", writes: []string{"/etc/conf"}, ask: "cat /etc/conf", says: "b=9\nc=3\n"},
			{spec: spec("line", "x", with{"in": "/etc/conf", "match": "=", "absent": true}), op: resource.Update, note: "-b=9", writes: []string{"/etc/conf"}, ask: "cat /etc/conf", says: ""},
			{before: "printf 'no end' >/etc/conf", spec: spec("line", "next", with{"in": "/etc/conf"}), op: resource.Update, writes: []string{"/etc/conf"}, ask: "cat /etc/conf", says: "no end\nnext\n"},
			{spec: spec("line", "x", with{"in": "/etc/none"}), fails: "cannot be read"},
		},
		"package": {
			{
				before: repository, spec: spec("package", "hozo-tool", nil), op: resource.Create, note: "hozo-tool none -> newest",
				writes: []string{"/usr/share/hozo-tool(/file)?", "/var/(lib|cache|log)/.*"}, ask: "cat /usr/share/hozo-tool/file", says: "2.0\n",
			},
			{spec: spec("package", "hozo-tool=1.0", nil), op: resource.Update, note: "hozo-tool 2.0 -> 1.0", writes: []string{"/usr/share/hozo-tool/file", "/var/.*"}, ask: "cat /usr/share/hozo-tool/file", says: "1.0\n"},
			{spec: spec("package", "hozo-tool", with{"absent": true}), op: resource.Remove, note: "hozo-tool 1.0 -> none", writes: []string{"/usr/share/hozo-tool.*", "/var/.*"}},
		},
		"user": {
			{
				spec: spec("user", "app", with{"uid": "4321", "groups": []string{"adm"}}), op: resource.Create, note: "--uid 4321", writes: []string{accountFiles, "/home/app.*"},
				ask: "id app; getent passwd app", says: "uid=4321(app) gid=4321(app) groups=4321(app),4(adm)\napp:x:4321:4321::/home/app:/bin/bash\n",
			},
			{spec: spec("user", "app", with{"shell": "/bin/sh", "groups": []string{"adm", "mail"}}), op: resource.Update, note: "joins mail", writes: []string{accountFiles}, ask: "id -Gn app; getent passwd app", says: "app adm mail\napp:x:4321:4321::/home/app:/bin/sh\n"},
			{spec: spec("user", "daemonic", with{"system": true}), op: resource.Create, note: "nologin", writes: []string{accountFiles}, ask: "ls -d /home/daemonic 2>/dev/null || echo none", says: "none\n"},
			{spec: spec("user", "daemonic", with{"absent": true}), op: resource.Remove, writes: []string{accountFiles}},
			{spec: spec("user", "other", with{"groups": []string{"nothing"}}), fails: "no group nothing"},
		},
		"group": {
			{spec: spec("group", "crew", with{"gid": "4000"}), op: resource.Create, note: "gid 4000", writes: []string{accountFiles}, ask: "getent group crew", says: "crew:x:4000:\n"},
			{spec: spec("group", "crew", with{"gid": "4001"}), op: resource.Update, note: "gid 4000 -> 4001", writes: []string{accountFiles}, ask: "getent group crew", says: "crew:x:4001:\n"},
			{spec: spec("group", "crew", with{"absent": true}), op: resource.Remove, writes: []string{accountFiles}},
		},
		"authorized_keys": {
			{
				before: "useradd -m ops", spec: spec("authorized_keys", "ops", with{"keys": []string{someKey}}), op: resource.Create, note: "+" + someKey, writes: []string{"/home/ops/.ssh(/authorized_keys)?"},
				ask: "stat -c '%U %a' /home/ops/.ssh /home/ops/.ssh/authorized_keys", says: "ops 700\nops 600\n",
			},
			{
				before: "echo '# a note' >>/home/ops/.ssh/authorized_keys", spec: spec("authorized_keys", "ops", with{"keys": []string{"restrict " + someKey}}), op: resource.Update, note: "+restrict", writes: []string{"/home/ops/.ssh/authorized_keys"},
				ask: "cat /home/ops/.ssh/authorized_keys", says: "restrict " + someKey + "\n# a note\n",
			},
			{
				spec: spec("authorized_keys", "ops", with{"keys": []string{strings.Replace(someKey, "IJ0", "IJ1", 1)}, "exclusive": true}), op: resource.Update, writes: []string{"/home/ops/.ssh/authorized_keys"},
				ask: "cat /home/ops/.ssh/authorized_keys", says: strings.Replace(someKey, "IJ0", "IJ1", 1) + "\n",
			},
			{before: "chmod 666 /home/ops/.ssh/authorized_keys", spec: spec("authorized_keys", "ops", with{"keys": []string{strings.Replace(someKey, "IJ0", "IJ1", 1)}}), op: resource.Update, note: "mode 0666 -> 0600", writes: []string{"/home/ops/.ssh/authorized_keys"}},
			{before: "useradd -m evil; ln -s /root /home/evil/.ssh", spec: spec("authorized_keys", "evil", with{"keys": []string{someKey}}), fails: "symbolic link"},
			{spec: spec("authorized_keys", "stranger", with{"keys": []string{someKey}}), fails: "no user stranger"},
		},
		"unit": unitSteps(),
		"sysctl": {
			{before: "mkdir -p /etc/sysctl.d", spec: spec("sysctl", "net.core.somaxconn", with{"value": "3000"}), op: resource.Create, note: "-> 3000", writes: []string{"/etc/sysctl.d/60-hozo-net.core.somaxconn.conf"}, ask: "cat /proc/sys/net/core/somaxconn", says: "3000\n"},
			{before: "echo 100 >/proc/sys/net/core/somaxconn", spec: spec("sysctl", "net.core.somaxconn", with{"value": "3000"}), op: resource.Update, note: "value 100 -> 3000", ask: "cat /proc/sys/net/core/somaxconn", says: "3000\n"},
			{spec: spec("sysctl", "net.ipv4.tcp_rmem", with{"value": "4096 87380 4194304"}), op: resource.Create, writes: []string{"/etc/sysctl.d/60-hozo-net.ipv4.tcp_rmem.conf"}},
			{spec: spec("sysctl", "net.no.such", with{"value": "1"}), fails: "does not know it"},
		},
		"cron": {
			{before: "mkdir -p /etc/cron.d", spec: spec("cron", "backup", with{"at": "0 3 * * *", "run": "date +%F"}), op: resource.Create, note: `+0 3 * * * root date +\%F`, writes: []string{"/etc/cron.d/hozo-backup"}},
			{spec: spec("cron", "backup", with{"at": "5 3 * * *", "run": "true", "user": "mail"}), op: resource.Update, note: "+5 3 * * * mail true", writes: []string{"/etc/cron.d/hozo-backup"}},
			{spec: spec("cron", "backup", with{"absent": true}), op: resource.Remove, writes: []string{"/etc/cron.d/hozo-backup"}},
		},
		"git": {
			{
				before: `mkdir -p /srv/repo && cd /srv/repo && export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a && git init -q -b main && echo one >f && git add f && git commit -qm one && git tag -a v1 -m v1 && echo two >f && git commit -qam two && chown -R nobody . && useradd -m deployer`,
				spec:   spec("git", "/srv/tree", with{"repo": "/srv/repo", "version": "v1"}), op: resource.Create, note: "commit none ->", fails: "does not answer",
			},
			{before: "chown -R deployer /srv/repo", spec: spec("git", "/srv/tree", with{"repo": "/srv/repo", "version": "v1", "user": "deployer"}), op: resource.Create, note: "commit none ->", writes: []string{"/srv/tree.*"}, ask: "cat /srv/tree/f; stat -c %U /srv/tree/f", says: "one\ndeployer\n"},
			{before: "touch /srv/tree/untracked", spec: spec("git", "/srv/tree", with{"repo": "/srv/repo", "version": "main", "user": "deployer"}), op: resource.Update, note: "->", writes: []string{"/srv/tree.*"}, ask: "cat /srv/tree/f; ls /srv/tree", says: "two\nf\nuntracked\n"},
			{before: "echo hand >/srv/tree/f", spec: spec("git", "/srv/tree", with{"repo": "/srv/repo", "version": "v1", "user": "deployer"}), fails: "changed by hand"},
			{spec: spec("git", "/srv/tree", with{"repo": "/srv/repo", "version": "nothing", "user": "deployer"}), fails: "has no nothing"},
			{spec: spec("git", "/etc", with{"repo": "/srv/repo", "user": "deployer"}), fails: "not empty"},
		},
		"archive": {
			{spec: spec("archive", "/srv/site", with{"strip": true}), blob: tarball("top/", "top/a", "top/d/b"), op: resource.Create, writes: []string{"/srv/site.*"}, ask: "cd /srv/site; find . -type f | sort; cat a", says: "./.hozo-archive\n./a\n./d/b\ntop/a\n"},
			{spec: spec("archive", "/srv/site", with{"owner": "mail"}), blob: tarball("a"), op: resource.Update, writes: []string{"/srv/site.*"}, ask: "cd /srv/site; find . -type f | sort; stat -c %U a; ls -A /srv", says: "./.hozo-archive\n./a\nmail\nsite\n"},
			{before: "mkdir -p /srv/mine; touch /srv/mine/f", spec: spec("archive", "/srv/mine", nil), blob: tarball("a"), fails: "not of an archive"},
		},
		"hostname": {
			{spec: spec("hostname", "web1.example", nil), op: resource.Update, note: "-> web1.example", writes: []string{"/etc/hostname"}, ask: "hostname; cat /etc/hostname", says: "web1.example\nweb1.example\n"},
		},
		"command": {
			{spec: spec("command", "make", with{"run": []string{"sh", "-c", "pwd >made; id -un >>made"}, "creates": "/srv/made", "dir": "/srv"}), op: resource.Run, note: "/srv/made does not exist", writes: []string{"/srv/made"}, ask: "cat /srv/made", says: "/srv\nroot\n"},
			{spec: spec("command", "once", with{"run": []string{"touch", "/srv/u"}, "unless": []string{"test", "-e", "/srv/u"}}), op: resource.Run, note: "ended with status 1", writes: []string{"/srv/u"}},
			{spec: spec("command", "checked", with{"run": []string{"touch", "/srv/c"}, "check": []string{"sh", "-c", "test -e /srv/c || { echo c is missing; exit 2; }"}}), op: resource.Run, note: "c is missing", writes: []string{"/srv/c"}},
			{before: "useradd -m runner", spec: spec("command", "as", with{"run": []string{"sh", "-c", "id -un >~/who"}, "creates": "/home/runner/who", "user": "runner"}), op: resource.Run, writes: []string{"/home/runner/who"}, ask: "cat /home/runner/who", says: "runner\n"},
			{spec: spec("command", "odd", with{"run": []string{"true"}, "check": []string{"sh", "-c", "echo broken; exit 7"}}), fails: "status 7"},
			{spec: spec("command", "none", with{"run": []string{"true"}, "unless": []string{"no-such-program"}}), fails: "could not be run"},
		},
	}
}

// repository makes a package repository in a folder, with two versions of one package.
const repository = `set -e
mkdir -p /srv/apt && cd /srv/apt
for v in 1.0 2.0; do
mkdir -p b/DEBIAN b/usr/share/hozo-tool && echo $v >b/usr/share/hozo-tool/file
printf 'Package: hozo-tool\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a tool\n' $v >b/DEBIAN/control
dpkg-deb -b b t_$v.deb >/dev/null
{ cat b/DEBIAN/control; echo "Filename: ./t_$v.deb"; echo "Size: $(stat -c %s t_$v.deb)"; echo "SHA256: $(sha256sum <t_$v.deb | cut -d' ' -f1)"; echo; } >>Packages
done
rm -rf b /etc/apt/sources.list /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] file:/srv/apt ./' >/etc/apt/sources.list`

// unitSteps are without a running systemd, which a lab's host has not: what systemd has to say comes from a program in
// its place that keeps a unit's state in files.
func unitSteps() []step {
	const systemctl = `cat >/usr/local/bin/systemctl <<'END'
#!/bin/sh
S=/run/units; mkdir -p $S; verb=$1; for u; do :; done
case $verb in
show) [ -e /etc/systemd/system/$u ] || [ -e $S/$u.package ] && echo LoadState=loaded || echo LoadState=not-found
[ -e $S/$u.on ] && echo ActiveState=active || echo ActiveState=inactive
[ -e $S/$u.enabled ] && echo UnitFileState=enabled || echo UnitFileState=disabled;;
start) touch $S/$u.on;; stop) rm -f $S/$u.on;;
enable) touch $S/$u.enabled;;
disable) rm -f $S/$u.enabled $S/$u.on;;
*) echo $verb $u >>$S/log;;
esac
END
chmod 755 /usr/local/bin/systemctl; mkdir -p /etc/systemd/system`
	unitFile := "[Service]\nExecStart=/bin/true\n"
	return []step{
		{
			before: systemctl, spec: spec("unit", "shop", with{"enabled": true, "running": true}), blob: unitFile, op: resource.Create, note: "start", writes: []string{"/etc/systemd/system/shop.service"},
			ask: "ls /run/units; cat /run/units/log", says: "log\nshop.service.enabled\nshop.service.on\ndaemon-reload daemon-reload\n",
		},
		{spec: spec("unit", "shop.service", with{"running": false}), op: resource.Update, note: "stop", ask: "ls /run/units", says: "log\nshop.service.enabled\n"},
		{spec: spec("unit", "shop", with{"absent": true}), op: resource.Remove, writes: []string{"/etc/systemd/system/shop.service"}, ask: "ls /run/units", says: "log\n"},
		{spec: spec("unit", "nothing", with{"running": true}), fails: "no such unit"},
		{before: "touch /run/units/nginx.service.package", spec: spec("unit", "nginx", with{"enabled": true}), op: resource.Update, note: "enable"},
	}
}

func tarball(names ...string) string {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, n := range names {
		head := &tar.Header{Name: n, Mode: 0o644, Size: int64(len(n) + 1), Typeflag: tar.TypeReg}
		if strings.HasSuffix(n, "/") {
			head = &tar.Header{Name: n, Mode: 0o755, Typeflag: tar.TypeDir}
		}
		if err := w.WriteHeader(head); err != nil {
			panic(err)
		}
		if head.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte(n + "\n")); err != nil {
				panic(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.String()
}
