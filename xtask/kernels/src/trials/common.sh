# Shared by the scripts of trials, which root runs in a machine.

# Runs a command as the user, with the environment of a login session.
user() {
	setpriv --reuid=1001 --regid=1001 --init-groups env HOME=/home/tester USER=tester XDG_RUNTIME_DIR=/run/user/1001 \
		DOCKER_HOST=unix:///run/user/1001/docker.sock timeout "${LIMIT:-300}" "$@"
}

# Runs a command on the other machine.
peer() {
	ip netns exec peer "$@"
}

# Prints a row: its name, `yes` or `no`, and what was seen, separated by tabs. It is `yes` if the command succeeds and
# prints EXPECTED: `row NAME EXPECTED COMMAND...`.
row() {
	name=$1
	expected=$2
	shift 2
	answer=no
	seen=$("$@" 2>&1) && case $seen in *"$expected"*) answer=yes ;; esac
	printf '%s\t%s\t%s\n' "$name" "$answer" "$(printf '%s' "$seen" | tr '\n\t' '  ')"
}

# Runs a command until it succeeds, for half a minute: a server may need a moment.
patiently() {
	for _ in $(seq 30); do
		"$@" && return
		sleep 1
	done
	return 1
}

# Runs the fixture in a container: `contained OPTIONS... -- ARGUMENTS...`.
contained() {
	options=
	while [ "$1" != -- ]; do
		options="$options $1"
		shift
	done
	shift
	user docker run $options -v /usr/local/bin:/usr/local/bin:ro -v /opt/fixture:/opt/fixture:ro bb fixture "$@"
}

# Writes the daemon's configuration.
configure() {
	user mkdir -p /home/tester/.config/docker
	echo "$1" | user tee /home/tester/.config/docker/daemon.json >/dev/null
}

# Removes the daemon and its data, of which nothing may be left.
purge() {
	data=$(user dockerd-rootless-setuptool.sh check --json | jq -r .effective.data_root)
	row purge '' user dockerd-rootless-setuptool.sh uninstall --purge
	row gone '' [ ! -e "$data" ]
}
