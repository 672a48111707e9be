#!/bin/sh
# Runs once, as root, during the image build: installs what a daemon with UID 1000 needs besides dockerd.
set -eu

fail() {
	printf 'error: %s\n' "$1" >&2
	printf 'hint: %s\n' "$2" >&2
	exit 1
}

# missing PROGRAM PACKAGE...: prints the packages if the program is missing.
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
		# If ip is a link, it is busybox's, which lacks features that dockerd uses.
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
		command -v "$program" >/dev/null || fail "$program is not in the image" "install it in the image BASE"
	done
}

account() {
	! grep -q '^[^:]*:[^:]*:1000:' /etc/passwd || fail "UID 1000 is already used in BASE" "remove that account from the image BASE"
	echo 'rootless:x:1000:1000:Rootless:/home/rootless:/bin/sh' >>/etc/passwd
	echo 'rootless:x:1000:' >>/etc/group
	for file in /etc/subuid /etc/subgid; do
		echo 'rootless:100000:65536' >>"$file"
	done
	mkdir -p /home/rootless/.local/share/docker
	chown -R 1000:1000 /home/rootless
	# Create what a rootful daemon would create and UID 1000 cannot.
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
	# Link the client's default address, for `docker exec CONTAINER docker ...`.
	mkdir -p /var/run
	ln -sf /run/user/1000/docker.sock /var/run/docker.sock
	rootlesskit --version
}

packages
account
programs
