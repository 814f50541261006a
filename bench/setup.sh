#!/bin/sh
# Installs the peers of the benchmarks: Debian packages, and process-compose from the Go module proxy, which is left out
# where it does not build. Running it again changes nothing. Needs root for the packages.
set -eu
cd "$(dirname "$0")/.."

python_modules="tornado zmq celery redis psycopg2 rq"
packages="python3-tornado python3-zmq celery python3-celery python3-rq python3-redis redis-server postgresql python3-psycopg2 supervisor libzmq3-dev gcc libc6-dev ansible-core openssh-server openssh-client iproute2"

present() {
	for module in $python_modules; do
		/usr/bin/python3 -c "import $module" 2>/dev/null || { echo "missing: python module $module"; return 1; }
	done
	/usr/bin/python3 -m celery --version >/dev/null 2>&1 || { echo "missing: celery command"; return 1; }
	command -v ansible-playbook >/dev/null || { echo "missing: ansible-playbook"; return 1; }
	[ -x /usr/sbin/sshd ] || { echo "missing: sshd"; return 1; }
	command -v redis-server >/dev/null || { echo "missing: redis-server"; return 1; }
	command -v supervisord >/dev/null || { echo "missing: supervisord"; return 1; }
	command -v cc >/dev/null || { echo "missing: cc"; return 1; }
	[ -e /usr/include/zmq.h ] || { echo "missing: zmq.h"; return 1; }
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { echo "missing: postgresql server"; return 1; }
}

# process_compose builds F1bonacc1/process-compose in a module of its own, so that go.mod knows nothing of it.
process_compose() {
	version=v1.85.0
	[ -x .tools/process-compose ] && return 0
	module=$(mktemp -d)
	mkdir -p .tools
	printf 'module peer\n\ngo 1.26\n\nrequire github.com/f1bonacc1/process-compose %s\n\ntool github.com/f1bonacc1/process-compose\n' "$version" >"$module/go.mod"
	(cd "$module" && go build -mod=mod -o process-compose github.com/f1bonacc1/process-compose) &&
		mv "$module/process-compose" .tools/process-compose ||
		echo "setup: process-compose $version does not build here; the process benchmark leaves it out" >&2
	rm -rf "$module"
}

process_compose
if present; then
	echo "setup: every peer is installed"
	exit 0
fi
if [ "$(id -u)" != 0 ]; then
	echo "setup: run as root, or install: $packages" >&2
	exit 1
fi

# The harness starts its own servers on free ports, so the packages must not start theirs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # the list is words
apt-get install -y -qq --no-install-recommends $packages
present
echo "setup: installed"
