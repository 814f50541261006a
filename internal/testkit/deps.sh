#!/bin/sh
# Installs what the tests need from Debian packages: a C compiler for the race detector, the real Supervisor, with which
# internal/supervisord is compared, foreign clients of the bus, pyzmq, mosquitto_pub and Node, and the real sshd of internal/lab. Running it again changes nothing. Needs root only when something is missing.
set -eu

packages=
command -v cc >/dev/null || packages="$packages gcc libc6-dev"
command -v supervisord >/dev/null && /usr/bin/python3 -W ignore -c 'import supervisor.options' 2>/dev/null || packages="$packages supervisor"
/usr/bin/python3 -c 'import zmq' 2>/dev/null || packages="$packages python3-zmq"
command -v mosquitto_pub >/dev/null || packages="$packages mosquitto-clients"
[ -x /usr/sbin/sshd ] || packages="$packages openssh-server"
command -v ip >/dev/null || packages="$packages iproute2"
command -v sudo >/dev/null || packages="$packages sudo"
command -v node >/dev/null || packages="$packages nodejs"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || packages="$packages postgresql"
[ -n "$packages" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: run as root, or install:$packages" >&2
	exit 1
fi

# The tests start daemons of their own, so the package must not start its.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
# shellcheck disable=SC2086 # the list is words
apt-get install -y -q --no-install-recommends $packages
