#!/bin/sh
# Installs the peers of the benchmarks from Debian packages. Running it again changes nothing. Needs root.
set -eu

python_modules="tornado zmq celery redis psycopg2"
packages="python3-tornado python3-zmq celery python3-celery python3-redis redis-server postgresql python3-psycopg2"

present() {
	for module in $python_modules; do
		/usr/bin/python3 -c "import $module" 2>/dev/null || { echo "missing: python module $module"; return 1; }
	done
	/usr/bin/python3 -m celery --version >/dev/null 2>&1 || { echo "missing: celery command"; return 1; }
	command -v redis-server >/dev/null || { echo "missing: redis-server"; return 1; }
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { echo "missing: postgresql server"; return 1; }
}

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
