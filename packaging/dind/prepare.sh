#!/bin/sh
# Run once, as root, while the image is built: what the daemon of uid 1000 needs besides dockerd.
set -eu

fail() {
	printf 'error: %s\n' "$1" >&2
	printf 'hint: %s\n' "$2" >&2
	exit 1
}

# missing PROGRAM PACKAGE...: the packages, if the program is not there.
missing() {
	program=$1
	shift
	command -v "$program" >/dev/null || echo "$*"
}

none() {
	[ $# = 0 ]
}

packages() {
	if command -v apk >/dev/null; then
		list="$(missing newuidmap shadow-uidmap) $(missing iptables iptables ip6tables) $(missing openssl openssl)"
		# Busybox's ip is a link, and cannot do all that dockerd asks for.
		[ ! -h "$(command -v ip)" ] || list="$list iproute2"
		# shellcheck disable=SC2086 # a list of words
		none $list || apk add --no-cache $list
	elif command -v apt-get >/dev/null; then
		list="$(missing newuidmap uidmap) $(missing iptables iptables) $(missing openssl openssl) $(missing ip iproute2)"
		# shellcheck disable=SC2086 # a list of words
		if ! none $list; then
			apt-get update -qq
			DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $list
			rm -rf /var/lib/apt/lists/*
		fi
	fi
	for program in newuidmap newgidmap iptables ip openssl dockerd docker; do
		command -v "$program" >/dev/null || fail "$program is not in the image" "install it in BASE"
	done
}

account() {
	! grep -q '^[^:]*:[^:]*:1000:' /etc/passwd || fail "uid 1000 is taken in BASE" "remove that account there"
	echo 'rootless:x:1000:1000:Rootless:/home/rootless:/bin/sh' >>/etc/passwd
	echo 'rootless:x:1000:' >>/etc/group
	for file in /etc/subuid /etc/subgid; do
		echo 'rootless:100000:65536' >>"$file"
	done
	mkdir -p /home/rootless/.local/share/docker
	chown -R 1000:1000 /home/rootless
	# What the daemon of another base image would make, and uid 1000 may not.
	mkdir -p /run/user /certs/client
	chmod 1777 /run/user /certs /certs/client
}

programs() {
	own=/usr/local/lib/docker-rootless-extras
	for path in "$own"/*; do
		case $path in
		*/prepare.sh) rm "$path" ;;
		*) ln -sf "$path" "/usr/local/bin/${path##*/}" ;;
		esac
	done
	chmod 755 /usr/local/bin/dockerd-entrypoint.sh
	# The client's usual address, for `docker exec CONTAINER docker ...`.
	mkdir -p /var/run
	ln -sf /run/user/1000/docker.sock /var/run/docker.sock
	rootlesskit --version
}

packages
account
programs
