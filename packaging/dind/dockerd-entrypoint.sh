#!/bin/sh
# The entry point of an image like docker:dind-rootless. It turns options into a dockerd command line, creates
# certificates, and executes rootlesskit. It supports that image's arguments and variables. As UID 0, it starts a
# rootful dockerd. It needs only busybox.
set -eu

fail() {
	printf 'error: %s\n' "$1" >&2
	[ -z "${2-}" ] || printf 'hint: %s\n' "$2" >&2
	exit 1
}

main() {
	uid=$(id -u)
	if [ "$uid" = 0 ]; then
		socket=unix:///var/run/docker.sock
	else
		export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-/run/user/$uid}"
		socket=unix://$XDG_RUNTIME_DIR/docker.sock
	fi
	case ${DOCKER_HOST-} in
	unix://*) socket=$DOCKER_HOST ;;
	esac
	case ${1-} in
	'' | -*) listen "$@" ;;
	dockerd) daemon "$@" ;;
	*) other "$@" ;;
	esac
}

# listen OPTIONS: starts the daemon on its socket and on a TCP port, with TLS if a certificate directory is set.
listen() {
	if [ -n "${DOCKER_TLS_CERTDIR-}" ]; then
		certificates "$DOCKER_TLS_CERTDIR"
		port=2376
		server=$DOCKER_TLS_CERTDIR/server
		set -- --tlsverify --tlscacert "$server/ca.pem" --tlscert "$server/cert.pem" --tlskey "$server/key.pem" "$@"
	else
		port=2375
		# Set explicitly, because dockerd otherwise prints a warning and waits for 15 seconds.
		set -- --tls=false "$@"
	fi
	DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS="${DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS-} -p 0.0.0.0:$port:$port/tcp"
	daemon dockerd --host="$socket" --host="tcp://0.0.0.0:$port" "$@"
}

# certificates DIRECTORY: creates a certificate authority, and a server and a client certificate signed by it. Keys are
# kept, but certificates are renewed at every start, because addresses change. If the authority's key is missing, the
# certificates were provided from outside and are only verified.
certificates() {
	if [ -s "$1/server/cert.pem" ] && [ ! -s "$1/ca/key.pem" ]; then
		openssl verify -CAfile "$1/server/ca.pem" "$1/server/cert.pem" >/dev/null ||
			fail "$1/server/ca.pem does not verify $1/server/cert.pem"
		return 0
	fi
	mkdir -p "$1/ca" "$1/server" "$1/client"
	for name in ca server client; do
		[ -s "$1/$name/key.pem" ] || (umask 077 && openssl genrsa -out "$1/$name/key.pem" 4096 2>/dev/null)
	done
	openssl req -x509 -new -key "$1/ca/key.pem" -out "$1/ca/cert.pem" -days 825 -subj '/CN=docker:dind CA'
	certificate "$1" server "extendedKeyUsage=serverAuth
subjectAltName=$(alternative_names)"
	certificate "$1" client extendedKeyUsage=clientAuth
	# Clients run as other users in other containers.
	chmod 644 "$1/client/key.pem"
}

certificate() {
	printf '%s\n' "$3" >"$1/$2/extensions"
	openssl req -new -key "$1/$2/key.pem" -out "$1/$2/csr.pem" -subj "/CN=docker:dind $2"
	openssl x509 -req -in "$1/$2/csr.pem" -CA "$1/ca/cert.pem" -CAkey "$1/ca/key.pem" -days 825 \
		-set_serial "0x$(openssl rand -hex 16)" -extfile "$1/$2/extensions" -out "$1/$2/cert.pem" 2>/dev/null
	cp "$1/ca/cert.pem" "$1/$2/ca.pem"
}

# All addresses and names that a client may use for the daemon.
alternative_names() {
	{
		ip -o addr show | sed -n 's/^.* inet6\{0,1\} \([^ /]*\).*$/IP:\1/p'
		for name in docker localhost "$(hostname)" "$(hostname -s 2>/dev/null || true)" "$(hostname -f 2>/dev/null || true)"; do
			[ -z "$name" ] || echo "DNS:$name"
		done
		echo "${DOCKER_TLS_SAN-}" | tr -s ', ' '\n' | grep . || true
	} | sort -u | paste -s -d , -
}

# daemon COMMAND...: executes COMMAND, in rootlesskit if this is not root.
daemon() {
	# Remove stale pid files after a crash: the numbers may belong to other processes now.
	find /run /var/run "${XDG_RUNTIME_DIR:-/run}" -maxdepth 2 -name 'docker*.pid' -delete 2>/dev/null || true
	# docker-init reaps the processes that containers leave behind.
	! command -v docker-init >/dev/null || set -- docker-init -s -- "$@"
	if [ "$uid" = 0 ]; then
		choose_iptables env
		exec "$@"
	fi
	check_user
	choose_iptables rootlesskit --net=none
	net=${DOCKERD_ROOTLESS_ROOTLESSKIT_NET-}
	[ -n "$net" ] || net=$(choose_net)
	loopback=--disable-host-loopback
	[ "${DOCKERD_ROOTLESS_ROOTLESSKIT_DISABLE_HOST_LOOPBACK-}" != false ] || loopback=
	port_driver=builtin
	case $net in
	gateway) port_driver=gateway ;;
	pasta) port_driver=implicit ;;
	esac
	# Like the launcher: what one file denies, the other cannot allow.
	config=${XDG_CONFIG_HOME:-${HOME-}/.config}/docker-rootless/egress.toml
	policy=${DOCKERD_ROOTLESS_ROOTLESSKIT_EGRESS_POLICY-$config}
	if [ -n "${DOCKERD_ROOTLESS_ROOTLESSKIT_EGRESS_POLICY-}" ] || { [ -n "$policy" ] && is_there "$policy"; }; then
		set -- "--egress-policy=$policy" "$@"
	fi
	policy=/etc/docker-rootless/egress.toml
	! is_there "$policy" || set -- "--egress-policy=$policy" "$@"
	# Use the launcher's state directory, so that rootlessctl and `dockerd-rootless-setuptool.sh nsenter` find it.
	# shellcheck disable=SC2086 # flags are words
	exec rootlesskit --state-dir="${DOCKERD_ROOTLESS_ROOTLESSKIT_STATE_DIR:-$XDG_RUNTIME_DIR/dockerd-rootless}" \
		--net="$net" --mtu="${DOCKERD_ROOTLESS_ROOTLESSKIT_MTU:-1500}" $loopback \
		${DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW:+"--host-loopback-allow=$DOCKERD_ROOTLESS_ROOTLESSKIT_HOST_LOOPBACK_ALLOW"} \
		--port-driver="${DOCKERD_ROOTLESS_ROOTLESSKIT_PORT_DRIVER:-$port_driver}" --copy-up=/etc --copy-up=/run \
		${DOCKERD_ROOTLESS_ROOTLESSKIT_FLAGS-} "$@"
}

# is_there FILE: whether there is one, or a symlink that leads nowhere: whoever made it wanted a policy.
is_there() {
	[ -e "$1" ] || [ -L "$1" ]
}

# Like the launcher, use the gateway network driver if the kernel supports it, otherwise the image's slirp4netns.
choose_net() {
	if ! command -v slirp4netns >/dev/null || rootlesskit --net=gateway --disable-host-loopback true 2>/dev/null; then
		echo gateway
	else
		echo slirp4netns
	fi
}

check_user() {
	command -v rootlesskit >/dev/null || fail "rootlesskit is not in PATH"
	user=$(id -un 2>/dev/null || echo "$uid")
	for file in /etc/subuid /etc/subgid; do
		grep -Eqs "^($user|$uid):" "$file" || fail "$file has no line for $user" "run: echo $user:100000:65536 >>$file"
	done
	for dir in "$XDG_RUNTIME_DIR" "$HOME/.local/share/docker"; do
		mkdir -p "$dir" 2>/dev/null || true
		[ -w "$dir" ] || fail "$user cannot create $dir or write to it"
	done
	chmod 700 "$XDG_RUNTIME_DIR"
	for want in kernel/unprivileged_userns_clone:1 user/max_user_namespaces:; do
		file=/proc/sys/${want%:*}
		[ -r "$file" ] || continue
		value=$(cat "$file")
		if [ "$value" = 0 ]; then
			fail "$file is 0, so ordinary users cannot create namespaces" "run on the host: sysctl -w $(echo "${want%:*}" | tr / .)=${want#*:}"
		fi
	done
}

# choose_iptables COMMAND...: puts the iptables variant that works when COMMAND runs it first in PATH. If
# DOCKER_IPTABLES_LEGACY is set, it decides: non-empty means the legacy variant.
choose_iptables() {
	legacy=/usr/local/sbin/.iptables-legacy
	if [ -n "${DOCKER_IPTABLES_LEGACY-}" ]; then
		[ -d "$legacy" ] || fail "DOCKER_IPTABLES_LEGACY is set, but the image has no $legacy"
		PATH=$legacy:$PATH
	elif [ -z "${DOCKER_IPTABLES_LEGACY+set}" ] && [ -d "$legacy" ]; then
		if [ -s /proc/net/ip_tables_names ]; then
			PATH=$legacy:$PATH
		elif ! "$@" iptables -nL >/dev/null 2>&1; then
			modprobe nf_tables 2>/dev/null || true
			if ! "$@" iptables -nL >/dev/null 2>&1; then
				modprobe ip_tables 2>/dev/null || true
				! "$@" "$legacy/iptables" -nL >/dev/null 2>&1 || PATH=$legacy:$PATH
			fi
		fi
	fi
	export PATH
	iptables --version
}

# Runs clients: they use the daemon in this container if one is running, otherwise a daemon on the host "docker".
other() {
	! command -v docker-entrypoint.sh >/dev/null || exec docker-entrypoint.sh "$@"
	if [ -z "${DOCKER_HOST-}" ] && [ ! -S "${socket#unix://}" ]; then
		if [ -n "${DOCKER_TLS_CERTDIR-}" ] && [ -s "$DOCKER_TLS_CERTDIR/client/cert.pem" ]; then
			export DOCKER_HOST=tcp://docker:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH="$DOCKER_TLS_CERTDIR/client"
		else
			export DOCKER_HOST=tcp://docker:2375
		fi
	fi
	exec "$@"
}

main "$@"
