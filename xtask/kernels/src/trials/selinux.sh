# Docker with SELinux. The variable MAKE_IMAGE is the script that makes the image (tests/src/docker.rs).

# Runs a command as the user in the context of a session, which the service manager of the user has from PAM. The agent
# and what it starts have the context of a system service, from which the service manager takes no orders.
user() {
	setpriv --reuid=1001 --regid=1001 --init-groups runcon unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023 \
		env HOME=/home/tester USER=tester XDG_RUNTIME_DIR=/run/user/1001 timeout "${LIMIT:-300}" systemd-run --user \
		--quiet --wait --pipe --collect --expand-environment=no \
		--setenv=DOCKER_HOST=unix:///run/user/1001/docker.sock "$@"
}

# The data root has what overlay2 leaves there.
earlier() {
	user mkdir -p /home/tester/.local/share/docker/overlay2/l
}

whole() {
	row install 'Installed docker.service successfully.' user dockerd-rootless-setuptool.sh install
	if [ "$answer" = yes ]; then
		# None of these has another context than the session.
		row contexts '' sh -c "ps -u tester -o label=,comm= | grep -E 'rootless|docker|containerd' |
			{ ! grep -v '^unconfined_u:unconfined_r:unconfined_t:'; }"
		row driver '' user docker info --format '{{.Driver}}'
		row image sha256: user sh -c "$MAKE_IMAGE"
		row tcp4 'peer from 10.77.0.1' contained --rm -- get 10.77.0.2:7000
		row name 'peer from 10.77.0.1' contained --rm -- get peer.test:7000
		row run '' contained -d --name web --stop-signal KILL -p 8080:80 -- http 0.0.0.0:80 inside
		row published4 'inside from 10.77.0.2' patiently peer fixture get 10.77.0.1:8080
		row written done user docker run --pull never --rm bb sh -c \
			'mkdir -p /made/below && echo x >/made/below/file && chown -R 500:500 /made && rm -r /www && echo done'
		folder=$(user mktemp -d)
		printf 'FROM bb\nRUN echo built >/built\n' | user tee "$folder/Dockerfile" >/dev/null
		row build '' user docker build -q -t built "$folder"
		row built built user docker run --pull never --rm built cat /built
		row volume '' user docker run --pull never --rm -v kept:/kept bb sh -c 'echo x >/kept/file && chown 500 /kept/file'
		row mounted x user docker run --pull never --rm -v "$folder:/folder" bb sh -c 'echo x >/folder/x && cat /folder/x'
		row stop '' user systemctl --user stop docker.service
		row processes '' sh -c '! pgrep -u tester -l "rootless|docker|containerd"'
	fi
	purge
}
